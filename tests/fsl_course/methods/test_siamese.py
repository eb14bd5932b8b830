"""Siamese networks: pairs, distances, and the learner."""

import math

import pytest
import torch

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.siamese import (
    OBJECTIVES,
    SiameseNetwork,
    euclidean_distances,
    sample_pairs,
    weighted_l1,
)
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from tests.conftest import permute_support, relabel, settled, toy_images
from tests.fsl_course.methods.adapting import randn
from tests.fsl_course.methods.laws import evaluating_twice_changes_nothing, judges_each_query_alone, other_queries


@pytest.fixture(params=OBJECTIVES)
def learner(request, precise) -> SiameseNetwork:
    torch.manual_seed(0)
    net = SiameseNetwork(conv4(8), request.param).double()
    if request.param == "bce":  # weights of both signs, all different
        net.weight.data = torch.randn(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return settled(net, precise)


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_are_balanced_never_a_row_with_itself_and_fixed_by_the_generator():
    labels = torch.tensor([3, 7, 3, 3, 9, 7])
    for count in (1, 2, 7, 400):
        first, second, same = sample_pairs(labels, count, torch.Generator().manual_seed(5))
        assert first.shape == second.shape == same.shape == (count,)
        assert same.tolist() == [True] * (count // 2) + [False] * (count - count // 2)
        assert torch.equal(same, labels[first] == labels[second])
        assert not (first == second).any()
        again = sample_pairs(labels, count, torch.Generator().manual_seed(5))
        assert all(torch.equal(a, b) for a, b in zip((first, second, same), again, strict=True))
    other = sample_pairs(labels, 400, torch.Generator().manual_seed(6))
    assert not torch.equal(first, other[0])


def test_every_pair_can_be_drawn_and_the_global_seed_is_left_alone():
    labels = torch.tensor([0, 0, 1, 1])
    state = torch.get_rng_state()
    first, second, _ = sample_pairs(labels, 2000, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    drawn = set(zip(first.tolist(), second.tolist(), strict=True))
    assert drawn == {(i, j) for i in range(4) for j in range(4) if i != j}


@pytest.mark.parametrize("labels", [[4, 4, 4], [0, 1, 2], [0], []])
def test_pairs_that_cannot_be_drawn_are_explained(labels):
    with pytest.raises(ValueError, match="pairs need two classes and a class with two pictures"):
        sample_pairs(torch.tensor(labels, dtype=torch.int64), 4, torch.Generator().manual_seed(0))


# --- distances -------------------------------------------------------------------------------------------------------


def test_weighted_l1_by_hand():
    """2 * |1 - 4| - 3 * |5 - 3| = 0, and 2 * |1 - 0| - 3 * |5 - 5| = 2."""
    found = weighted_l1(torch.tensor([[1.0, 5.0]]), torch.tensor([[4.0, 3.0], [0.0, 5.0]]), torch.tensor([2.0, -3.0]))
    assert found.tolist() == [[0.0, 2.0]]


def test_weighted_l1_equals_broadcasting_with_weights_of_both_signs():
    a, b = randn(3, 4, 6, seed=1), randn(3, 5, 6, seed=2)
    weight = torch.tensor([1.5, -2.0, 0.3, -0.1, 0.0, 4.0], dtype=torch.float64)
    expected = (weight * (a.unsqueeze(-2) - b.unsqueeze(-3)).abs()).sum(-1)
    assert expected.shape == (3, 4, 5)
    assert torch.allclose(weighted_l1(a, b, weight), expected, atol=1e-12)
    assert torch.allclose(weighted_l1(a[0], b[0], weight), expected[0], atol=1e-12)


def test_gradient_of_weighted_l1_agrees_with_finite_differences():
    a, b = randn(3, 4, seed=1).requires_grad_(), randn(2, 4, seed=2).requires_grad_()
    weight = torch.tensor([1.5, -2.0, 0.3, -0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(weighted_l1, (a, b, weight))


def test_distances_equal_loops_and_are_not_squared():
    a, b = randn(2, 4, 6, seed=1), randn(2, 3, 6, seed=2)
    found = euclidean_distances(a, b)
    for t in range(2):
        for m in range(4):
            for s in range(3):
                assert found[t, m, s].item() == pytest.approx(math.dist(a[t, m].tolist(), b[t, s].tolist()), abs=1e-12)
    assert euclidean_distances(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).item() == 5.0
    assert torch.autograd.gradcheck(euclidean_distances, (a[0].requires_grad_(), b[0].requires_grad_()))


def test_equal_rows_far_from_the_origin_have_distance_zero():
    """The fast |a|^2 - 2ab + |b|^2 gives about 0.1 here, in float32 and from 26 rows on."""
    z = randn(60, 64).float() + 30
    assert euclidean_distances(z, z).diagonal().abs().max() == 0


@pytest.mark.parametrize("distance", [euclidean_distances, lambda a, b: weighted_l1(a, b, torch.ones(3).double())])
def test_gradient_at_distance_zero_is_zero_and_finite(distance):
    z = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    distance(z, torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    assert z.grad.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_pair_of_equal_pictures_gives_a_finite_gradient(objective, task):
    torch.manual_seed(0)
    learner = SiameseNetwork(conv4(8, "group"), objective)
    twice = Episode(task.support_x, task.support_y, task.support_x.clone(), task.support_y, task.classes)
    loss = learner.loss(twice)
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [p.grad for p in learner.parameters()]
    assert all(torch.isfinite(g).all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)


# --- the learner -----------------------------------------------------------------------------------------------------


def test_scores_equal_loops_with_unequal_shots(learner):
    support, query = randn(6, 8, seed=1), randn(4, 8, seed=2)
    labels = torch.tensor([2, 0, 1, 2, 2, 0])
    logits = learner.score(support, labels, query, 3)
    assert logits.shape == (4, 3)
    for m in range(4):
        for k in range(3):
            found = []
            for s in range(6):
                if labels[s] == k:
                    difference = query[m] - support[s]
                    if learner.objective == "bce":
                        found.append((learner.weight * difference.abs()).sum() + learner.bias)
                    else:
                        found.append(-difference.square().sum().sqrt())
            assert logits[m, k].item() == pytest.approx((sum(found) / len(found)).item(), rel=1e-10)


def test_relabelling_slots_permutes_scores_and_order_of_support_changes_nothing(learner, precise):
    logits, new_slot = learner(precise), torch.tensor([3, 0, 4, 1, 2])
    assert logits.shape == (15, 5)
    assert logits.std() > 0.05  # otherwise every law holds
    assert torch.allclose(learner(relabel(precise, new_slot))[:, new_slot], logits, atol=1e-12)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(precise, order)), logits, atol=1e-12)


def test_pairs_have_no_order_and_labels_of_the_loss_no_meaning(learner, precise):
    a, b = randn(4, 8, seed=1), randn(5, 8, seed=2)
    assert torch.allclose(learner.similarities(a, b), learner.similarities(b, a).T, atol=1e-12)
    loss = learner.loss(precise).item()
    assert learner.loss(relabel(precise, torch.tensor([3, 0, 4, 1, 2]))).item() == pytest.approx(loss, rel=1e-10)


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
    assert learner.training_step(batch).item() == pytest.approx(sum(learner.loss(e).item() for e in batch) / 3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_evaluating_twice_gives_the_same_and_changes_nothing(toys, objective):
    torch.manual_seed(0)
    learner = SiameseNetwork(conv4(8), objective)
    evaluating_twice_changes_nothing(learner, toys, 10)


def test_fresh_log_odds_are_4_for_equal_embeddings_and_0_at_a_mean_difference_of_one_half():
    learner = SiameseNetwork(conv4(8))
    z = torch.rand(1, 8)
    assert learner.similarities(z, z).item() == 4.0
    assert learner.similarities(z, z + 0.5).item() == pytest.approx(0.0, abs=1e-5)
    assert {name for name in learner.state_dict() if "encoder" not in name} == {"weight", "bias"}
    assert not [n for n, _ in SiameseNetwork(conv4(8), "contrastive").named_parameters() if "encoder" not in n]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_learns_in_seconds(objective):
    source = toy_images(80, 8, noise=120)
    torch.manual_seed(0)
    learner = SiameseNetwork(conv4(16), objective)
    test = EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    before = evaluate(learner, test, 50)
    history = fit(learner, EpisodeSampler(source.split("train"), 10, 1, 3), steps=60, progress=False)
    after = evaluate(learner, test, 50)
    assert after.mean > 0.9
    assert after.mean > before.mean + 0.1
    assert sum(history.loss[-5:]) < 0.6 * sum(history.loss[:5])


def test_wrong_arguments_are_explained(task):
    with pytest.raises(ValueError, match="objective must be one of bce, contrastive, triplet; got 'hinge'"):
        SiameseNetwork(conv4(8), "hinge")
    with pytest.raises(ValueError, match="pass features=D"):
        SiameseNetwork(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)))
    assert SiameseNetwork(torch.nn.Identity(), features=4).weight.shape == (4,)
    learner = SiameseNetwork(conv4(8))
    with pytest.raises(ValueError, match="cover the slots 0..2"):
        learner.score(torch.rand(4, 8), torch.tensor([0, 0, 1, 1]), torch.rand(2, 8), 3)
    one = Episode(task.support_x[:1], torch.tensor([0]), task.query_x[:2], torch.tensor([0, 0]), torch.tensor([5]))
    with pytest.raises(ValueError, match="equal and unequal pairs"):
        learner.loss(one)


def test_it_lets_evaluate_embed_each_picture_once(learner):
    assert isinstance(learner, ComparesEmbeddings)
