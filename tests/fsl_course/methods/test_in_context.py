"""In-context learning: the bridge to gradient descent, an independent second reader, its laws, and what it learns in seconds."""

import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from fsl_course.episodes import Episode, EpisodeSampler, linear_tasks
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.in_context import InContextLearner, code_order, context_mask, draw_codes, linear_attention
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from tests.conftest import permute_support, relabel, settled, toy_images
from tests.fsl_course.methods.laws import (
    evaluating_twice_changes_nothing,
    judges_each_query_alone,
    stacked_tasks_equal_single_tasks,
)
from tests.fsl_course.methods.transferring import LABELS, randn


@pytest.fixture
def learner(precise: Episode) -> InContextLearner:
    torch.manual_seed(0)
    return settled(InContextLearner(conv4(8).double(), tokens=16, codes=6, heads=2).double(), precise).double()


def of_rows(features: int = 4, **settings: object) -> InContextLearner:
    torch.manual_seed(0)
    return (
        InContextLearner(nn.Identity(), features, **{"tokens": 12, "codes": 4, "heads": 2} | settings).double().eval()
    )


def test_linear_attention_is_one_step_of_gradient_descent():
    """From W = 0, on half the mean squared error (von Oswald et al. 2023, proposition 1)."""
    support, targets, query = randn(7, 4, seed=1), randn(7, 2, seed=2), randn(3, 4, seed=3)
    weight = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    loss = 0.5 * (support @ weight.T - targets).square().sum(1).mean()
    (gradient,) = torch.autograd.grad(loss, weight)
    stepped = query @ (weight - 0.3 * gradient).detach().T
    assert torch.allclose(linear_attention(support, targets, query, 0.3), stepped, rtol=0, atol=1e-12)
    both = linear_attention(
        torch.stack([support, -support]), torch.stack([targets, targets]), query.expand(2, -1, -1), 0.3
    )
    assert torch.allclose(both, torch.stack([stepped, -stepped]), rtol=0, atol=1e-12)


def test_the_mask_by_hand():
    assert context_mask(2, 2).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


def norm(rows: np.ndarray, layer: nn.LayerNorm) -> np.ndarray:
    centred = rows - rows.mean(1, keepdims=True)
    scaled = centred / np.sqrt(rows.var(1, keepdims=True) + layer.eps)
    return scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def linear(rows: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return rows @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def one_query(net: InContextLearner, support: np.ndarray, told: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Reads one query by loops in NumPy: the support never looks at it."""
    context = np.concatenate([linear(support, net.read_x), told], axis=1)
    asked = np.concatenate([linear(query[None], net.read_x), np.zeros((1, net.codes))], axis=1)
    for block in net.blocks:
        width, parts = net.tokens // net.heads, []
        for rows, seen in ((context, context), (asked, np.concatenate([context, asked]))):
            q = linear(norm(rows, block.before_attention), block.query_key_value)[:, : net.tokens]
            other = linear(norm(seen, block.before_attention), block.query_key_value)
            read = []
            for head in range(net.heads):
                at = slice(head * width, (head + 1) * width)
                k, v = other[:, net.tokens : 2 * net.tokens][:, at], other[:, 2 * net.tokens :][:, at]
                weights = np.exp(q[:, at] @ k.T / math.sqrt(width))
                read.append(weights / weights.sum(1, keepdims=True) @ v)
            rows = rows + linear(np.concatenate(read, axis=1), block.mix)
            inner = linear(norm(rows, block.before_net), block.net[0])
            inner = torch.nn.functional.gelu(torch.from_numpy(inner)).numpy()
            parts.append(rows + linear(inner, block.net[2]))
        context, asked = parts
    return linear(norm(asked, net.answer[0]), net.answer[1])[0]


def test_scores_are_those_of_an_independent_reader_with_unequal_shots():
    net, support, query = of_rows(), randn(6, 4, seed=1), randn(5, 4, seed=2)
    found = net.score(support, LABELS, query, 3)
    codes = draw_codes(3, 4, 0)[code_order(support, LABELS, 3)]
    answers = [one_query(net, support.numpy(), codes[LABELS].numpy(), q) for q in query.numpy()]
    expected = np.stack(answers) @ codes.numpy().T / 2
    assert np.allclose(found.detach().numpy(), expected, rtol=0, atol=1e-10)


def test_codes_follow_the_support_and_not_the_slots():
    support = torch.tensor([[3.0], [1.0], [2.0], [5.0]])
    sign = -1 if draw_codes(1, 1, seed=1) < 0 else 1
    assert code_order(sign * support, torch.tensor([0, 1, 2, 0]), 3).tolist() == [2, 0, 1]  # means 4, 1 and 2
    assert code_order(sign * support, torch.tensor([1, 2, 0, 1]), 3).tolist() == [1, 2, 0]


def test_relabelling_slots_permutes_logits_and_order_of_support_changes_nothing(learner, precise):
    logits, new_slot = learner(precise), torch.tensor([3, 0, 4, 1, 2])
    moved = learner(relabel(precise, new_slot))
    assert torch.allclose(moved[:, new_slot], logits, atol=1e-12)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(precise, order)), logits, atol=1e-12)
    assert logits.std() > 1e-3


def test_a_query_is_judged_alone(learner, precise):
    judges_each_query_alone(learner, precise)


def test_stacked_tasks_equal_single_tasks(toys, learner):
    stacked_tasks_equal_single_tasks(learner, toys, atol=1e-10)


def test_training_draws_other_codes_for_every_task_and_the_same_ones_again(toys):
    torch.manual_seed(0)
    learner, batch = InContextLearner(conv4(4), tokens=12, codes=4), EpisodeSampler(toys, 4, 1, 2).batch(0, 2)
    drawn: list[Tensor] = []
    score = learner.score
    learner.score = lambda *args: drawn.append(args[4]) or score(*args)  # type: ignore[method-assign]
    losses = [float(learner.training_step(batch).detach()) for _ in range(2)]
    assert losses[0] == losses[1]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_fit_notes_the_accuracy_of_every_step(toys):
    torch.manual_seed(0)
    learner = InContextLearner(conv4(4), tokens=12, codes=4)
    history = fit(learner, EpisodeSampler(toys, 4, 1, 2), steps=2, tasks=2, progress=False)
    assert len(history.accuracy) == 2
    assert all(0 <= share <= 1 for share in history.accuracy)


def test_gradients_agree_with_finite_differences():
    net, targets = of_rows(outputs=2, layers=1), randn(4, 2, seed=4)
    inputs = tuple(t.requires_grad_() for t in (randn(4, 4, seed=1), targets, randn(2, 4, seed=2)))
    assert torch.autograd.gradcheck(net.read, inputs, atol=1e-8)


def test_regression_predicts_rows_of_numbers_and_its_loss_is_the_squared_error():
    net, task = of_rows(outputs=1), linear_tasks(3, 5, 2, 4, 0.5, Generator().manual_seed(0)).to(torch.float64)
    found = torch.stack([net(e) for e in task])
    assert found.shape == (3, 2, 1)
    assert torch.allclose(net.training_step(task), (found - task.query_y).square().mean())


def test_it_learns_in_seconds():
    """Lines through the origin in two dimensions: less error than the mean of nothing, which is the variance of the targets."""
    torch.manual_seed(0)
    net, generator = (
        InContextLearner(nn.Identity(), 2, tokens=16, codes=4, heads=2, outputs=1),
        Generator().manual_seed(0),
    )
    test = linear_tasks(200, 8, 4, 2, 0.1, Generator().manual_seed(9))

    def error() -> float:
        with torch.no_grad():
            return float((net.read(test.support_x, test.support_y, test.query_x) - test.query_y).square().mean())

    before, optimiser = error(), torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(200):
        loss = net.training_step(linear_tasks(32, 8, 4, 2, 0.1, generator))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert error() < 0.5 * min(before, float(test.query_y.square().mean()))


def test_evaluating_twice_changes_nothing():
    torch.manual_seed(0)
    evaluating_twice_changes_nothing(InContextLearner(conv4(4), tokens=12, codes=4), toy_images(10, 8), 4)
    assert isinstance(InContextLearner(conv4(4)), ComparesEmbeddings)


def test_wrong_arguments_are_explained():
    with pytest.raises(ValueError, match="a multiple of heads and above codes; got 10, 3 and 4"):
        InContextLearner(conv4(4), tokens=10, heads=3, codes=4)


def test_more_classes_than_numbers_in_a_code_are_no_error(toys):
    learner = InContextLearner(conv4(4), tokens=6, codes=2).eval()
    result = evaluate(learner, EpisodeSampler(toys, 4, 1, 2), 4)
    assert 0 <= result.mean <= 1
