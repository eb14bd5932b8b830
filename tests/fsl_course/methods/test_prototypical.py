import pytest
import torch
import torch.nn.functional as F

from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.prototypical import PrototypicalNetwork, cosine_similarities, prototypes, squared_distances
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from tests.conftest import permute_support, relabel, toy_images
from tests.fsl_course.methods.laws import judges_each_query_alone, other_queries


@pytest.fixture
def learner() -> PrototypicalNetwork:
    torch.manual_seed(0)
    return PrototypicalNetwork(conv4(8)).double().eval()


def test_by_hand_in_the_plane():
    """Class 0: (0,0), (2,0); class 1: (4,4), (4,2), (4,0), unequal shots. Query (2,1)."""
    support = torch.tensor([[4.0, 4.0], [0.0, 0.0], [4.0, 2.0], [2.0, 0.0], [4.0, 0.0]])
    labels = torch.tensor([1, 0, 1, 0, 1])
    centres = prototypes(support, labels, 2)
    assert centres.tolist() == [[1.0, 0.0], [4.0, 2.0]]
    distances = squared_distances(torch.tensor([[2.0, 1.0]]), centres)
    assert distances.tolist() == [[2.0, 5.0]]
    learner = PrototypicalNetwork(torch.nn.Identity())
    logits = learner.score(support, labels, torch.tensor([[2.0, 1.0]]), 2)
    assert logits.softmax(1)[0, 0].item() == pytest.approx(1 / (1 + torch.e**-3))


def test_vectorised_equals_loops_with_unequal_shots():
    generator = torch.Generator().manual_seed(1)
    support = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    labels = torch.tensor([2, 0, 1, 1, 2, 2, 0, 1, 1])
    query = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    centres = prototypes(support, labels, 3)
    for k in range(3):
        assert torch.allclose(centres[k], support[labels == k].mean(0), atol=1e-14)
    expected = torch.stack([torch.stack([((q - c) ** 2).sum() for c in centres]) for q in query])
    assert torch.allclose(squared_distances(query, centres), expected, atol=1e-12)
    assert torch.allclose(squared_distances(query, centres), torch.cdist(query, centres) ** 2, atol=1e-10)


def test_stacked_tasks_equal_single_tasks(toys, learner):
    batch = EpisodeSampler(toys, 4, 2, 3, dtype=torch.float64).batch(0, 3)
    single = torch.stack([learner(e) for e in batch])
    embedded = [learner.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in (batch.support_x, batch.query_x)]
    together = learner.score(embedded[0], batch.support_y, embedded[1], 4)
    assert torch.allclose(single, together, atol=1e-10)


def test_it_is_a_linear_classifier(learner, precise):
    """w = 2c, b = -|c|^2 (Snell et al. 2017, section 2.4): logits differ by a constant per query, probabilities not at all."""
    centres = prototypes(learner.embed(precise.support_x), precise.support_y, 5)
    linear = learner.embed(precise.query_x) @ (2 * centres).T - centres.square().sum(1)
    difference = learner(precise) - linear
    assert torch.allclose(difference, difference[:, :1].expand_as(difference), atol=1e-10)
    assert torch.allclose(learner(precise).log_softmax(1), linear.log_softmax(1), atol=1e-10)


def test_relabelling_slots_permutes_logits_and_order_of_support_changes_nothing(learner, precise):
    logits, new_slot = learner(precise), torch.tensor([3, 0, 4, 1, 2])
    moved = learner(relabel(precise, new_slot))
    assert torch.allclose(moved[:, new_slot], logits, atol=1e-12)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(precise, order)), logits, atol=1e-12)


def test_a_query_is_judged_alone_in_evaluation_mode_and_not_in_training_mode(learner, precise):
    judges_each_query_alone(learner, precise)
    learner.train()
    assert not torch.allclose(learner(precise)[0], learner(other_queries(precise))[0], atol=1e-3)


def test_gradient_agrees_with_finite_differences(precise):
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 4).double()
    support, query = torch.randn(6, 6).double(), torch.randn(4, 6).double()
    labels, target = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 2, 0])
    learner = PrototypicalNetwork(torch.nn.Identity())

    def loss(weight: torch.Tensor) -> torch.Tensor:
        logits = learner.score(F.linear(support, weight), labels, F.linear(query, weight), 3)
        return F.cross_entropy(logits, target)

    assert torch.autograd.gradcheck(loss, (head.weight.detach().requires_grad_(),), atol=1e-8)


def test_gradient_at_distance_zero_is_zero_and_finite():
    z = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    squared_distances(z, torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    assert z.grad.tolist() == [[0.0, 0.0, 0.0]]


def test_distances_are_never_negative():
    z = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)) + 30
    assert squared_distances(z, z).min() >= 0


def test_cosine_is_bounded_by_its_scale(toys, precise):
    torch.manual_seed(0)
    encoder = conv4(8).double()
    one = PrototypicalNetwork(encoder, "cosine").eval()(precise)
    ten = PrototypicalNetwork(encoder, "cosine", scale=10).eval()(precise)
    assert one.abs().max() <= 1 + 1e-12
    assert torch.allclose(ten, 10 * one)
    plain, scaled = (PrototypicalNetwork(encoder, scale=s).eval()(precise) for s in (1.0, 0.5))
    assert torch.allclose(scaled, 0.5 * plain)
    best = torch.softmax(torch.tensor([1.0, -1, -1, -1, -1]), 0)[0]
    assert one.softmax(1).max() <= best + 1e-9  # e^1 / (e^1 + 4 e^-1) = 0.65: never sure
    a = torch.tensor([[3.0, 4.0]])
    assert cosine_similarities(a, torch.tensor([[4.0, 3.0]])).item() == pytest.approx(24 / 25)


def test_it_learns_in_seconds():
    source = toy_images(80, 8, noise=120)  # many classes: what is learned must carry over to new ones
    torch.manual_seed(0)
    learner = PrototypicalNetwork(conv4(16))
    test = EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    before = evaluate(learner, test, 50)
    history = fit(learner, EpisodeSampler(source.split("train"), 10, 1, 3), steps=60, progress=False)
    after = evaluate(learner, test, 50)
    assert after.mean > 0.95
    assert after.mean > before.mean + 0.1
    assert sum(history.loss[-5:]) < 0.5 * sum(history.loss[:5])


def test_wrong_arguments_are_explained():
    with pytest.raises(ValueError, match='"euclidean" or "cosine"'):
        PrototypicalNetwork(conv4(8), "manhattan")
    support = torch.rand(4, 3)
    with pytest.raises(ValueError, match=r"cover the slots 0..2; got \[0, 1\]"):
        prototypes(support, torch.tensor([0, 0, 1, 1]), 3)
    with pytest.raises(ValueError, match="cover the slots"):
        prototypes(support, torch.tensor([0, 1, 2, 3]), 3)
    with pytest.raises(ValueError, match="int64"):
        prototypes(support, torch.tensor([0.0, 1, 2, 2]), 3)


def test_it_lets_evaluate_embed_each_picture_once():
    assert isinstance(PrototypicalNetwork(conv4(8)), ComparesEmbeddings)
