"""The classifiers that are fitted to the support of a task: probe, linear head, cosine head."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from fsl_course.methods.transfer import (
    fit_cosine,
    fit_linear,
    fit_probe,
)
from tests.fsl_course.methods.transferring import LABELS, randn


def probe_objective(weight: Tensor, bias: Tensor, support: Tensor, labels: Tensor, l2: float) -> Tensor:
    total = support.new_zeros(())
    for z, k in zip(support, labels.tolist(), strict=True):
        logits = torch.stack([w @ z + b for w, b in zip(weight, bias, strict=True)])
        total = total - logits[k] + logits.exp().sum().log()
    return total / len(support) + l2 / 2 * (weight.square().sum() + bias.square().sum())


@pytest.mark.parametrize("l2", [0.01, 0.3])
def test_the_probe_is_the_minimum_that_scipy_finds(l2):
    support = randn(6, 4, seed=1)
    weight, bias = (t.requires_grad_() for t in fit_probe(support, LABELS, 3, l2))
    gradient = torch.autograd.grad(probe_objective(weight, bias, support, LABELS, l2), (weight, bias))
    assert all(g.abs().max() < 1e-5 for g in gradient)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.from_numpy(flat).view(3, 5).requires_grad_()
        value = probe_objective(w[:, :4], w[:, 4], support, LABELS, l2)
        value.backward()
        return value.item(), w.grad.numpy().ravel()

    found = minimize(objective, np.ones(15), jac=True, method="BFGS", options={"gtol": 1e-8})
    expected = torch.from_numpy(found.x).view(3, 5)
    assert torch.allclose(torch.cat([weight, bias[:, None]], 1), expected, atol=1e-3)
    assert expected.abs().max() > 0.1


def test_the_probe_by_hand():
    """Two points at +1 and -1: by symmetry w = (v, -v), b = 0, with sigmoid(-2v) = l2 * v."""
    weight, bias = fit_probe(torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([0, 1]), 2, l2=0.1)
    v = weight[0, 0].item()
    assert weight[1, 0].item() == pytest.approx(-v, abs=1e-6)
    assert bias.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert 1 / (1 + math.exp(2 * v)) == pytest.approx(0.1 * v, abs=1e-5)


def test_linear_head_equals_an_explicit_loop():
    support, labels = randn(6, 4, seed=1), LABELS
    weight, bias = torch.zeros(3, 4).double(), torch.zeros(3).double()
    for _ in range(7):
        step_w, step_b = torch.zeros_like(weight), torch.zeros_like(bias)
        for z, k in zip(support, labels.tolist(), strict=True):
            p = (weight @ z + bias).softmax(0)
            p[k] -= 1  # the gradient of cross-entropy in the logits
            step_w += p[:, None] * z / 6
            step_b += p / 6
        weight, bias = weight - 0.3 * step_w, bias - 0.3 * step_b
    found = fit_linear(support, labels, 3, steps=7, lr=0.3)
    assert torch.allclose(found[0], weight, atol=1e-12)
    assert torch.allclose(found[1], bias, atol=1e-12)
    assert all((t == 0).all() for t in fit_linear(support, labels, 3, steps=0))  # no slot is ahead


def test_cosine_head_equals_an_explicit_loop():
    support = randn(6, 4, seed=1)
    unit = [z / z.norm() for z in support]
    rows = []
    for k in range(3):
        members = [z for z, label in zip(unit, LABELS.tolist(), strict=True) if label == k]
        mean = sum(members) / len(members)
        rows.append(mean / mean.norm())
    start = torch.stack(rows)
    assert torch.allclose(fit_cosine(support, LABELS, 3, 5.0, steps=0), start, atol=1e-12)
    weight = start
    for _ in range(6):
        weight = weight.detach().requires_grad_()
        total = 0.0
        for z, k in zip(unit, LABELS.tolist(), strict=True):
            logits = torch.stack([5 * (z @ w) / w.norm() for w in weight])
            total = total - logits.log_softmax(0)[k] / 6
        total.backward()
        weight = weight - 0.4 * weight.grad
    found = fit_cosine(support, LABELS, 3, 5.0, steps=6, lr=0.4)
    assert torch.allclose(found, weight.detach(), atol=1e-12)
    assert not torch.allclose(found, start, atol=1e-2)
    assert torch.allclose(fit_cosine(3 * support, LABELS, 3, 5.0, 6, 0.4), found, atol=1e-12)  # directions only


def test_classifiers_are_fitted_also_where_gradients_are_switched_off_and_leave_none_behind():
    support = randn(6, 4, seed=1).requires_grad_()
    fitters = (fit_probe, fit_linear, lambda *args: (fit_cosine(*args, 10.0),))
    for fitter in fitters:
        outside = fitter(support, LABELS, 3)
        with torch.no_grad():
            inside = fitter(support, LABELS, 3)
        assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(inside, outside, strict=True))
    assert support.grad is None


def test_tasks_do_not_see_each_other():
    """An easy and a hard task, and one task alone: the same classifiers, to the accuracy of the solver."""
    support = torch.stack([randn(6, 4, seed=1), 5 * randn(6, 4, seed=2), 0.1 * randn(6, 4, seed=3)])
    labels = torch.stack([LABELS, LABELS.flip(0), LABELS])
    for fitter, atol in (
        (fit_probe, 1e-3),
        (fit_linear, 1e-12),
        (lambda *args: (fit_cosine(*args, 10.0),), 1e-12),
    ):
        together = fitter(support, labels, 3)
        for t in range(3):
            alone = fitter(support[t], labels[t], 3)
            assert all(torch.allclose(a[t], b, atol=atol) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("fitter", [fit_probe, fit_linear, lambda *args: fit_cosine(*args, 10.0)])
def test_labels_that_do_not_fit_are_explained(fitter):
    for labels in ([0, 0, 1, 1], [0, 1, 2, 3]):
        with pytest.raises(ValueError, match="cover the slots 0..2"):
            fitter(torch.rand(4, 3), torch.tensor(labels), 3)
