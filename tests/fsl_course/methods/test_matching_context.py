"""Full context embeddings, against their equations."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_course.methods.matching import MatchingNetwork, QueryContext, SupportContext
from tests.fsl_course.methods.adapting import randn


def lstm_step(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """One vector through the equations of an LSTM cell: gates in the order input, forget, candidate, output."""
    i, f, g, o = (w_ih @ x + w_hh @ h + bias).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def support_by_hand(context: SupportContext, support: Tensor) -> Tensor:
    weights = dict(context.lstm.named_parameters())
    total = support.clone()
    for end, rows in (("", range(len(support))), ("_reverse", reversed(range(len(support))))):
        w_ih, w_hh = weights[f"weight_ih_l0{end}"], weights[f"weight_hh_l0{end}"]
        bias = weights[f"bias_ih_l0{end}"] + weights[f"bias_hh_l0{end}"]
        h = c = support.new_zeros(support.shape[1])
        for row in rows:
            h, c = lstm_step(support[row], h, c, w_ih, w_hh, bias)
            total[row] = total[row] + h
    return total


def query_by_hand(context: QueryContext, query: Tensor, support: Tensor, steps: int) -> Tensor:
    cell, found = context.cell, []
    for q in query:
        h = c = q.new_zeros(len(q))
        for _ in range(steps):
            attention = torch.stack([h @ g for g in support]).exp()
            attention = attention / attention.sum()
            read = sum(a * g for a, g in zip(attention, support, strict=True))
            h, c = lstm_step(torch.cat([q, read]), h, c, cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh)
            h = h + q
        found.append(h)
    return torch.stack(found)


def test_context_of_the_support_equals_the_equations_of_an_lstm():
    torch.manual_seed(0)
    context = SupportContext(4).double()
    support = randn(2, 6, 4, seed=1)
    found = context(support)
    assert found.shape == (2, 6, 4)
    for t in range(2):
        assert torch.allclose(found[t], support_by_hand(context, support[t]), atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_context_of_a_query_equals_its_equations(steps):
    torch.manual_seed(0)
    context = QueryContext(4, steps).double()
    support, query = randn(2, 6, 4, seed=1), randn(2, 3, 4, seed=2)
    found = context(query, support)
    assert found.shape == (2, 3, 4)
    for t in range(2):
        assert torch.allclose(found[t], query_by_hand(context, query[t], support[t], steps), atol=1e-12)


def test_full_context_is_both_contexts_and_then_the_attention():
    torch.manual_seed(0)
    learner = MatchingNetwork(torch.nn.Identity(), full_context=True, steps=3, features=4).double()
    support, query, labels = randn(6, 4, seed=1), randn(3, 4, seed=2), torch.tensor([2, 0, 1, 2, 2, 0])
    g = support_by_hand(learner.support_context, support)
    f = query_by_hand(learner.query_context, query, g, 3)
    expected = MatchingNetwork(torch.nn.Identity()).score(g, labels, f, 3)
    assert torch.allclose(learner.score(support, labels, query, 3), expected, atol=1e-12)


def test_gradient_reaches_every_weight_of_the_contexts():
    torch.manual_seed(0)
    learner = MatchingNetwork(torch.nn.Identity(), full_context=True, steps=2, features=3).double()
    support, query = randn(4, 3, seed=1).requires_grad_(), randn(2, 3, seed=2).requires_grad_()
    labels, target = torch.tensor([1, 0, 1, 2]), torch.tensor([0, 2])
    weights = tuple(p for name, p in learner.named_parameters())

    def loss(*inputs: Tensor) -> Tensor:
        return F.cross_entropy(learner.score(inputs[0], labels, inputs[1], 3), target)

    assert torch.autograd.gradcheck(loss, (support, query, *weights), atol=1e-7)
    gradients = torch.autograd.grad(loss(support, query), weights)
    assert all(g.abs().max() > 0 for g in gradients)
