"""MAML's inner loop: closed forms, rates, graphs, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, hessian, jacrev, vmap

from fsl_course.episodes import SinusoidSampler
from fsl_course.inner_loop.functional import support_loss, trainable
from fsl_course.methods.maml import adapt
from fsl_course.nets import mlp
from tests.fsl_course.methods.adapting import (
    randn,
    smooth_net,
)

SINES = SinusoidSampler(6, 4, dtype=torch.float64)


def parabola(curvature: float, minimum: Tensor | float):
    """theta -> curvature / 2 * (theta - minimum)^2, summed."""
    return lambda params: curvature / 2 * ((params["w"] - minimum) ** 2).sum()


def point(*values: float) -> dict[str, Tensor]:
    return {"w": torch.tensor(values, dtype=torch.float64, requires_grad=True)}


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 10])
def test_steps_on_a_parabola_are_the_closed_form(steps, first_order, track):
    """w_T - c = (1 - lr a)^T (w_0 - c)."""
    start = point(3.0, -1.0)
    found = adapt(parabola(2.0, 1.0), start, lr=0.3, steps=steps, first_order=first_order, track=track)["w"]
    expected = 1 + 0.4**steps * (start["w"] - 1)
    assert torch.allclose(found, expected, rtol=0, atol=1e-14)
    assert found.requires_grad == track
    assert start["w"].tolist() == [3.0, -1.0]
    assert start["w"].grad is None


def test_without_a_graph_the_numbers_are_the_same():
    model, task = smooth_net(), SINES[0]
    params, loss = trainable(model), support_loss(model, task)
    before = {name: p.detach().clone() for name, p in params.items()}
    kept = adapt(loss, params, lr=0.1, steps=3)
    bare = adapt(loss, params, lr=0.1, steps=3, track=False)
    with torch.no_grad():
        quiet = adapt(loss, params, lr=0.1, steps=3)
    for name, value in kept.items():
        assert value.grad_fn is not None
        assert torch.equal(bare[name], value)
        assert torch.equal(quiet[name], value)
        assert not bare[name].requires_grad
        assert not quiet[name].requires_grad
        assert torch.equal(params[name], before[name])
        assert params[name].grad is None
        assert (value - params[name]).abs().max() > 1e-4  # something was adapted
    assert not any(p.requires_grad for p in adapt(loss, params, lr=0.1, steps=0, track=False).values())


def test_the_result_is_a_new_dict():
    start = point(1.0)
    found = adapt(parabola(1.0, 0.0), start, lr=0.1, steps=0)
    assert found is not start
    found["other"] = torch.zeros(())
    assert list(start) == ["w"]


def test_rates_are_a_number_a_tensor_or_a_dict_of_either():
    params = {"w": randn(2, 3).requires_grad_(), "b": randn(3, seed=1).requires_grad_()}

    def loss(theta: dict[str, Tensor]) -> Tensor:
        return (theta["w"] ** 2).sum() + (theta["b"] ** 3).sum()

    for w, b in [(0.1, 0.1), (0.1, -0.2), (torch.tensor([[0.1], [0.5]], dtype=torch.float64), 0.3), (randn(2, 3), 0.0)]:
        found = adapt(loss, params, lr={"b": b, "w": w}, steps=1)
        assert torch.allclose(found["w"], params["w"] - w * 2 * params["w"])
        assert torch.allclose(found["b"], params["b"] - b * 3 * params["b"] ** 2)
    found = adapt(loss, params, lr={"b": 0.1, "w": 0.1}, steps=1)
    for same in (0.1, torch.tensor(0.1, dtype=torch.float64)):
        again = adapt(loss, params, lr=same, steps=1)
        # a plain number is multiplied and subtracted in one operation: a last bit may differ
        assert all(torch.allclose(again[name], found[name], rtol=1e-14, atol=1e-15) for name in params)


def test_it_is_differentiable_in_start_rate_and_task():
    """On a parabola of curvature a: d w_T / d w_0 = (1 - lr a)^T, d w_T / d c = 1 - (1 - lr a)^T, and the rate's by hand."""
    start, lr, centre = point(3.0), torch.tensor(0.3, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    lr.requires_grad_()
    centre.requires_grad_()
    found = adapt(parabola(2.0, centre), start, lr=lr, steps=3)["w"].sum()
    slopes = torch.autograd.grad(found, (start["w"], centre, lr), create_graph=True)
    assert slopes[0].item() == pytest.approx(0.4**3)
    assert slopes[1].item() == pytest.approx(1 - 0.4**3)
    assert slopes[2].item() == pytest.approx(3 * 0.4**2 * -2 * (3 - 1))
    # once more: d^2 w_T / d lr^2
    assert torch.autograd.grad(slopes[2], lr)[0].item() == pytest.approx(3 * 2 * 0.4 * 4 * 2)


def test_first_order_detaches_the_inner_gradients_only():
    """theta - lr * constant: slope 1 in theta; the slope in lr is minus the sum of the gradients on the way."""
    start, lr = point(3.0), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    found = adapt(parabola(2.0, 1.0), start, lr=lr, steps=3, first_order=True)["w"].sum()
    slopes = torch.autograd.grad(found, (start["w"], lr))
    assert slopes[0].item() == 1.0
    assert slopes[1].item() == pytest.approx(-sum(2 * 2 * 0.4**t for t in range(3)))
    assert grad(lambda w: adapt(parabola(2.0, 1.0), {"w": w}, lr=0.3, steps=3, first_order=True)["w"].sum())(
        start["w"]
    ).tolist() == [1.0]


def test_it_composes_with_torch_func():
    """vmap over tasks, grad, jacobian and hessian of what comes out, and both nested."""

    def end(w: Tensor, centre: Tensor, **how) -> Tensor:
        return adapt(parabola(2.0, centre), {"w": w}, lr=0.3, steps=2, **how)["w"]

    w, centres = randn(3), randn(4, 3, seed=1)
    for how in ({}, {"first_order": True}, {"track": False}):
        at_once = vmap(lambda c, how=how: end(w, c, **how))(centres)
        assert torch.allclose(at_once, torch.stack([end(w, c, **how) for c in centres]), atol=1e-14)
    assert torch.allclose(jacrev(end)(w, centres[0]), 0.16 * torch.eye(3, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(grad(lambda w: (end(w, centres[0]) ** 2).sum())(w), 2 * 0.16 * end(w, centres[0]))
    second = hessian(lambda w: (end(w, centres[0]) ** 2).sum())(w)
    assert torch.allclose(second, 2 * 0.16**2 * torch.eye(3, dtype=torch.float64), atol=1e-13)
    each = vmap(grad(lambda w, c: (end(w, c) ** 2).sum()), in_dims=(None, 0))(w, centres)
    assert torch.allclose(each, torch.stack([0.32 * end(w, c) for c in centres]), atol=1e-14)


def test_a_sum_instead_of_a_mean_multiplies_the_rate():
    """Trap G7: 6 rows, so a summed loss takes a sixth of the rate to get to the same place."""
    model, task = smooth_net(), SINES[0]

    def summed(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets, reduction="sum")

    by_mean = adapt(support_loss(model, task), trainable(model), lr=0.06, steps=3)
    by_sum = adapt(support_loss(model, task, summed), trainable(model), lr=0.01, steps=3)
    assert all(torch.allclose(by_sum[name], value, atol=1e-12) for name, value in by_mean.items())


def test_wrong_arguments_of_the_inner_loop_are_explained():
    start, loss = point(1.0, 2.0), parabola(1.0, 0.0)
    with pytest.raises(TypeError, match=r"must be a dict name -> tensor, e.g. dict\(net.named.*; got generator"):
        adapt(loss, mlp().parameters(), lr=0.1, steps=1)
    for steps in (-1, 1.0, True, "1", None):
        with pytest.raises(ValueError, match=f"steps must be a whole number of at least 0; got {steps!r}"):
            adapt(loss, start, lr=0.1, steps=steps)
    with pytest.raises(ValueError, match=r"a rate for each parameter and no other; \['v', 'w'\] differ"):
        adapt(loss, start, lr={"v": 0.1}, steps=1)
    with pytest.raises(ValueError, match=r"no other; \['b'\] differ"):
        adapt(loss, start, lr={"w": 0.1, "b": 0.1}, steps=0)
    with pytest.raises(ValueError, match=r"must return a scalar; got shape \[2\]. Take the mean"):
        adapt(lambda params: params["w"] ** 2, start, lr=0.1, steps=1)
