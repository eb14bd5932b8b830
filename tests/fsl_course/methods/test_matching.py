"""Matching networks: attention, similarity, and the learner."""

import math

import pytest
import torch
import torch.nn.functional as F

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.matching import MatchingNetwork, class_log_probabilities
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from tests.conftest import permute_support, relabel, settled, toy_images
from tests.fsl_course.methods.adapting import randn
from tests.fsl_course.methods.laws import evaluating_twice_changes_nothing, judges_each_query_alone, other_queries

KINDS = {"cosine": {}, "euclidean": {"similarity": "euclidean"}, "full context": {"full_context": True, "scale": 3.0}}


@pytest.fixture(params=KINDS)
def learner(request, precise) -> MatchingNetwork:
    torch.manual_seed(0)
    return settled(MatchingNetwork(conv4(8), **KINDS[request.param]).double(), precise)


# --- attention -------------------------------------------------------------------------------------------------------


def test_attention_by_hand():
    """Similarities log 1, log 2, log 3, log 4: attention 0.1 to 0.4; the classes get 0.1 + 0.3 and 0.2 + 0.4."""
    similarity = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64).log()
    found = class_log_probabilities(similarity, torch.tensor([1, 0, 1, 0]), 2)
    assert found.exp()[0].tolist() == pytest.approx([0.6, 0.4])


def test_attention_equals_loops_over_stacked_tasks_with_unequal_shots():
    similarity = 4 * randn(2, 5, 7, seed=1)
    labels = torch.tensor([[0, 2, 1, 2, 2, 0, 2], [1, 1, 0, 2, 0, 1, 1]])
    found = class_log_probabilities(similarity, labels, 3)
    assert found.shape == (2, 5, 3)
    for t in range(2):
        for m in range(5):
            weights = [math.exp(s) for s in similarity[t, m].tolist()]
            for k in range(3):
                own = [w for w, label in zip(weights, labels[t].tolist(), strict=True) if label == k]
                assert found[t, m, k].item() == pytest.approx(math.log(sum(own) / sum(weights)), abs=1e-10)
    total = found.exp().sum(-1)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-12)


def test_a_class_without_attention_has_a_finite_loss_and_gradient():
    """In float32 exp(-200) is 0 and its logarithm minus infinity; the sum by class has to stay in logarithms."""
    similarity = torch.tensor([[0.0, -200.0, -300.0, -200.0]], requires_grad=True)
    labels = torch.tensor([0, 1, 1, 1])
    assert similarity.softmax(-1)[0, 1:].sum() == 0
    found = class_log_probabilities(similarity, labels, 2)
    assert found[0, 0].item() == 0.0
    assert found[0, 1].item() == pytest.approx(-200 + math.log(2), rel=1e-6)
    F.cross_entropy(found, torch.tensor([1])).backward()
    assert similarity.grad[0].tolist() == pytest.approx([1.0, -0.5, 0.0, -0.5], abs=1e-6)


def test_very_sure_attention_in_a_network_is_finite(task):
    torch.manual_seed(0)
    learner = MatchingNetwork(conv4(8), scale=1e6)
    loss = learner.loss(task)
    loss.backward()
    assert loss.item() > 100  # float32 knows no probability below 1e-45, minus whose logarithm is 104
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in learner.parameters())


def test_gradient_of_the_attention_agrees_with_finite_differences():
    labels = torch.tensor([2, 0, 1, 1, 2, 2])
    similarity = randn(3, 6, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: class_log_probabilities(s, labels, 3), (similarity,))
    tied = torch.zeros(2, 6, dtype=torch.float64, requires_grad=True)  # two rows share the largest of their class
    assert torch.autograd.gradcheck(lambda s: class_log_probabilities(s, labels, 3), (tied,))


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_scores_equal_loops_with_unequal_shots(similarity):
    learner = MatchingNetwork(torch.nn.Identity(), similarity=similarity, scale=1.7)
    support, query, labels = randn(6, 4, seed=1), randn(3, 4, seed=2), torch.tensor([2, 0, 1, 2, 2, 0])
    found = learner.score(support, labels, query, 3)
    for m in range(3):
        kernel = []
        for s in range(6):
            if similarity == "cosine":
                alike = (query[m] @ support[s] / query[m].norm() / support[s].norm()).item()
            else:
                alike = -(query[m] - support[s]).square().sum().item()
            kernel.append(math.exp(1.7 * alike))
        for k in range(3):
            own = sum(kernel[s] for s in range(6) if labels[s] == k)
            assert found[m, k].item() == pytest.approx(math.log(own / sum(kernel)), abs=1e-10)


def test_attention_of_an_episode_runs_over_the_support_and_gives_the_predictions(learner, precise):
    """Softmax over the wrong axis (over the queries) would make the columns sum to one (trap C8)."""
    attention = learner.attention(precise)
    assert attention.shape == (15, 10)
    assert torch.allclose(attention.sum(1), torch.ones(15, dtype=torch.float64), atol=1e-12)
    by_class = torch.stack([attention[:, precise.support_y == k].sum(1) for k in range(5)], dim=1)
    assert torch.allclose(learner(precise).exp(), by_class, atol=1e-12)


# --- similarity and scale --------------------------------------------------------------------------------------------


def test_unscaled_cosine_is_nearly_flat(precise):
    """At scale 1 the right one of 5 classes gets at most e / (e + 4 / e) = 0.65, even by a copy of the query (trap C1)."""
    bound = math.e / (math.e + 4 / math.e)
    torch.manual_seed(0)
    learner = settled(MatchingNetwork(conv4(8).double(), scale=1.0), precise)
    x, slots = precise.query_x[:5], torch.arange(5)
    copies = Episode(x, slots, x, slots, precise.classes)
    assert learner(copies).exp().max().item() <= bound + 1e-12
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-2.0, 0.0], [-3.0, 0.0], [-4.0, 0.0]])
    best, usual = (
        MatchingNetwork(torch.nn.Identity(), scale=scale).score(opposite, slots, opposite[:1], 5).exp()[0, 0].item()
        for scale in (1.0, None)
    )
    assert best == pytest.approx(bound, rel=1e-6)  # the bound is reached
    assert usual > 0.999


def test_scale_multiplies_similarities_and_a_larger_one_is_sharper(precise):
    torch.manual_seed(0)
    encoder = settled(MatchingNetwork(conv4(8).double()), precise).encoder
    for similarity, default in (("cosine", 10.0), ("euclidean", 1.0)):
        nets = [MatchingNetwork(encoder, similarity=similarity, scale=s).eval() for s in (1.0, 3.0, None)]
        assert nets[2].scale == default
        support, query = encoder(precise.support_x), encoder(precise.query_x)
        one, three, usual = (net.similarities(support, query) for net in nets)
        assert torch.allclose(three, 3 * one, atol=1e-12)
        assert torch.allclose(usual, default * one, atol=1e-12)
        sharpness = [net.attention(precise).max(1).values.mean() for net in nets[:2]]
        assert sharpness[1] > sharpness[0]


def test_cosine_looks_at_directions_only_of_support_and_query_alike():
    learner = MatchingNetwork(torch.nn.Identity())
    support, query = randn(4, 6, seed=1), randn(3, 6, seed=2)
    plain = learner.similarities(support, query)
    assert torch.allclose(learner.similarities(7 * support, query), plain, atol=1e-12)
    assert torch.allclose(learner.similarities(support, 0.1 * query), plain, atol=1e-12)


def test_distances_are_squared_and_their_gradient_at_zero_is_zero():
    learner = MatchingNetwork(torch.nn.Identity(), similarity="euclidean")
    z = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    assert learner.similarities(torch.tensor([[3.0, 4.0]]).double(), z).item() == -25.0
    learner.similarities(torch.zeros(1, 2, dtype=torch.float64), z).sum().backward()
    assert z.grad.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(("shots", "equal"), [(1, True), (2, False)])
def test_with_one_shot_it_is_a_prototypical_network_and_with_two_it_is_not(toys, shots, equal):
    torch.manual_seed(0)
    episode = EpisodeSampler(toys, 5, shots, 3, dtype=torch.float64)[0]
    learner = settled(MatchingNetwork(conv4(8).double(), similarity="euclidean"), episode)
    prototypical = PrototypicalNetwork(learner.encoder).eval()(episode).log_softmax(1)
    gap = (learner(episode) - prototypical).abs().max().item()
    assert gap < 1e-9 if equal else gap > 1e-2


# --- laws ------------------------------------------------------------------------------------------------------------


def test_relabelling_slots_permutes_logits(learner, precise):
    logits, new_slot = learner(precise), torch.tensor([3, 0, 4, 1, 2])
    assert logits.shape == (15, 5)
    assert logits.std() > 0.05  # otherwise every law holds
    assert torch.allclose(learner(relabel(precise, new_slot))[:, new_slot], logits, atol=1e-12)


def test_order_of_support_changes_nothing_without_context_and_something_with_it(learner, precise):
    """An LSTM reads the support in one order: with it a set is no set any more."""
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    logits, moved = learner(precise), learner(permute_support(precise, order))
    if learner.full_context:
        assert (logits - moved).abs().max() > 1e-4
    else:
        assert torch.allclose(moved, logits, atol=1e-12)


def test_a_query_is_judged_alone_in_evaluation_mode_and_not_in_training_mode(learner, precise):
    judges_each_query_alone(learner, precise)
    learner.train()
    assert not torch.allclose(learner(precise)[0], learner(other_queries(precise))[0], atol=1e-3)


def test_stacked_tasks_equal_single_tasks(toys, learner):
    batch = EpisodeSampler(toys, 4, 2, 3, dtype=torch.float64).batch(0, 3)
    single = torch.stack([learner(e) for e in batch])
    support, query = (
        learner.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in (batch.support_x, batch.query_x)
    )
    assert torch.allclose(single, learner.score(support, batch.support_y, query, 4), atol=1e-10)
    grid = [x.unsqueeze(0) for x in (support, batch.support_y, query)]  # two task axes
    assert torch.allclose(single, learner.score(*grid, 4).squeeze(0), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluating_twice_gives_the_same_and_changes_nothing(toys, kind):
    torch.manual_seed(0)
    learner = MatchingNetwork(conv4(8), **KINDS[kind])
    evaluating_twice_changes_nothing(learner, toys, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_in_seconds(kind):
    source = toy_images(80, 8, noise=120)
    torch.manual_seed(0)
    learner = MatchingNetwork(conv4(16), **(KINDS[kind] | ({"scale": 10.0} if kind == "full context" else {})))
    test = EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    before = evaluate(learner, test, 50)
    history = fit(learner, EpisodeSampler(source.split("train"), 10, 1, 3), steps=60, progress=False)
    after = evaluate(learner, test, 50)
    assert after.mean > 0.9
    assert after.mean > before.mean + 0.1
    assert sum(history.loss[-5:]) < 0.6 * sum(history.loss[:5])


def test_wrong_arguments_are_explained():
    with pytest.raises(ValueError, match='"cosine" or "euclidean"; got \'manhattan\''):
        MatchingNetwork(conv4(8), similarity="manhattan")
    with pytest.raises(ValueError, match="pass features=D"):
        MatchingNetwork(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), full_context=True)
    for labels in ([0, 0, 1, 1], [0, 1, 2, 3]):
        with pytest.raises(ValueError, match="cover the slots 0..2"):
            MatchingNetwork(conv4(8)).score(torch.rand(4, 8), torch.tensor(labels), torch.rand(2, 8), 3)
    with pytest.raises(ValueError, match="int64"):
        class_log_probabilities(torch.rand(2, 3), torch.tensor([0.0, 1, 2]), 3)


def test_without_context_it_has_no_weights_besides_the_encoder():
    plain, full = MatchingNetwork(conv4(8)), MatchingNetwork(conv4(8), full_context=True)
    assert all(name.startswith("encoder.") for name in plain.state_dict())
    own = {name.split(".")[0] for name in full.state_dict()}
    assert own == {"encoder", "support_context", "query_context"}
    assert full.query_context.steps == 5


def test_it_lets_evaluate_embed_each_picture_once(learner):
    assert isinstance(learner, ComparesEmbeddings)
