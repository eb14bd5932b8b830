import pytest
import torch
from torch import Tensor

from fsl_course import EpisodeSampler, evaluate, fit, load_intents
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.induction import InductionNetwork, induce, squash
from fsl_course.nets import conv4, ngram_encoder
from fsl_course.weights.checkpoints import card, pretrained
from tests.conftest import toy_images
from tests.fsl_course.methods.laws import (
    judges_each_query_alone,
    order_and_slots_do_not_matter,
    stacked_tasks_equal_single_tasks,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def routed_by_loop(votes: list[Tensor], iterations: int) -> Tensor:
    """Algorithm 1 for one class, in Python."""
    logits = [0.0] * len(votes)
    for _ in range(iterations):
        weights = [float(torch.tensor(b).exp()) for b in logits]
        total = sum(w / sum(weights) * v for w, v in zip(weights, votes, strict=True))
        length = float(total.norm())
        centre = total / length * length**2 / (1 + length**2)
        logits = [b + float(v @ centre) for b, v in zip(logits, votes, strict=True)]
    return centre


@pytest.fixture
def learner() -> InductionNetwork:
    torch.manual_seed(0)
    return InductionNetwork(conv4(4), slices=3).double().eval()


def test_squash_by_hand():
    assert torch.allclose(squash(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 4.0]]) / 5 * 25 / 26)
    zero = torch.zeros(1, 2, requires_grad=True)
    squash(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()


def test_one_iteration_by_hand():
    """Votes (1, 0) and (0, 1): equal shares, sum (1/2, 1/2), squared length 1/2, so squashed to (1/2, 1/2) sqrt(1/2) / (3/2)."""
    votes = torch.eye(2, dtype=torch.float64)
    expected = torch.full((1, 2), 0.5 * 0.5**0.5 / 1.5, dtype=torch.float64)
    assert torch.allclose(induce(votes, torch.zeros(2, dtype=torch.int64), 1, 1), expected)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_routing_agrees_with_the_loop_with_unequal_shots(iterations):
    votes, labels = squash(randn(6, 4)), torch.tensor([1, 0, 1, 1, 0, 2])
    found = induce(votes, labels, 3, iterations)
    for k in range(3):
        own = [v for v, y in zip(votes, labels, strict=True) if y == k]
        assert torch.allclose(found[k], routed_by_loop(own, iterations), atol=1e-7)


def test_with_one_shot_routing_does_nothing():
    votes = squash(randn(3, 4))
    assert torch.allclose(induce(votes, torch.arange(3), 3, 5), squash(votes))


def test_gradients():
    votes, labels = randn(4, 3).requires_grad_(), torch.tensor([0, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda v: induce(squash(v), labels, 2), votes)


def test_laws(learner, precise):
    order_and_slots_do_not_matter(learner, precise)
    judges_each_query_alone(learner, precise)
    stacked_tasks_equal_single_tasks(learner, toy_images(), 1e-10)
    assert isinstance(learner, ComparesEmbeddings)


def test_scores_are_those_of_one_pair_at_a_time(learner, precise):
    support, query = learner.embed(precise.support_x), learner.embed(precise.query_x)
    classes = induce(squash(learner.transform(support)), precise.support_y, 5)
    found = learner.score(support, precise.support_y, query, 5)
    pair = torch.stack([classes[2] @ form @ query[1] for form in learner.forms]).relu()
    assert torch.allclose(found[1, 2], learner.relation(pair)[0], atol=1e-10)


@pytest.mark.parametrize("objective", ["mse", "cross_entropy"])
def test_it_learns_in_seconds(objective):
    source = toy_images(80, 8, noise=250)
    torch.manual_seed(0)
    learner = InductionNetwork(conv4(8), slices=4, objective=objective)
    test = EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    before = evaluate(learner, test, 60)
    fit(learner, EpisodeSampler(source.split("train"), 5, 2, 3), steps=60, lr=3e-3, progress=False)
    assert evaluate(learner, test, 60).mean > before.mean + 0.1


def test_it_reads_sentences():
    learner = InductionNetwork(ngram_encoder(16, 64), features=16)
    assert learner(EpisodeSampler(load_intents(), 5, 2, 3)[0]).shape == (15, 5)


def test_shipped_weights_reach_the_number_on_their_card():
    for method in ("induction", "prototypical"):
        row = card(method, "intents")["test"][0]
        sampler = EpisodeSampler(load_intents().split("test"), row["way"], row["shot"], row["query"])
        result = evaluate(pretrained(method, "intents"), sampler, 100)
        assert abs(result.mean - row["mean"]) < 2 * result.ci95


def test_wrong_settings_are_explained():
    with pytest.raises(ValueError, match="objective must be"):
        InductionNetwork(conv4(4), objective="hinge")
    with pytest.raises(ValueError, match="at least one iteration"):
        induce(randn(2, 2), torch.arange(2), 2, 0)
