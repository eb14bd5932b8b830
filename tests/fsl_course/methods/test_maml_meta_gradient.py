"""MAML's meta-gradient, derived by hand, by autograd, by torch.func and by central differences."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian

from fsl_course.episodes import Episode, SinusoidSampler
from fsl_course.inner_loop.functional import predict, support_loss, trainable
from fsl_course.methods.maml import adapt, meta_loss
from tests.fsl_course.methods.adapting import (
    central_differences,
    linear_model,
    linear_task,
    quadratic,
    randn,
    small_conv,
    small_episodes,
    smooth_net,
)

SINES = SinusoidSampler(6, 4, dtype=torch.float64)


RATES = {"a rate": 0.07, "a rate for each number": torch.tensor([[0.02, 0.05, -0.03]], dtype=torch.float64)}


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("rate", RATES)
def test_meta_gradient_of_a_quadratic_is_the_hand_derivation(inputs, steps, rate):
    """With L_S of gradient H w - b: w' = w - A (H w - b), and the meta-gradient is ((I - A H)^T)^steps grad L_Q(w')."""
    model, task = linear_model(inputs), linear_task(inputs)
    alpha = RATES[rate] if isinstance(RATES[rate], float) else RATES[rate][:, :inputs]
    lr = {"weight": alpha}
    h, b = quadratic(task.support_x, task.support_y)
    h_query, b_query = quadratic(task.query_x, task.query_y)
    rates = torch.diag(torch.as_tensor(alpha, dtype=torch.float64).expand(1, inputs)[0])
    keep, w = torch.eye(inputs, dtype=torch.float64) - rates @ h, model.weight.detach()[0]
    for _ in range(steps):
        w = w - rates @ (h @ w - b)
    by_hand = torch.linalg.matrix_power(keep.T, steps) @ (h_query @ w - b_query)

    loss = meta_loss(model, trainable(model), task, lr=lr, steps=steps, loss_fn=F.mse_loss)
    assert loss.item() == pytest.approx(F.mse_loss(task.query_x @ w[:, None], task.query_y).item(), rel=1e-12)
    loss.backward()
    assert torch.allclose(model.weight.grad[0], by_hand, rtol=0, atol=1e-12)
    first = meta_loss(model, trainable(model), task, lr=lr, steps=steps, first_order=True, loss_fn=F.mse_loss)
    assert torch.equal(first, loss)
    first_gradient = torch.autograd.grad(first, model.weight)[0][0]
    assert torch.allclose(first_gradient, h_query @ w - b_query, rtol=0, atol=1e-12)  # plainly that of L_Q at w'
    assert (first_gradient - by_hand).abs().max() > 1e-2


def written_out(
    model: nn.Module, params: dict[str, Tensor], task: Episode, lr: dict[str, Tensor], steps: int
) -> Tensor:
    """The outer objective by torch.autograd alone, loop and all."""
    theta = params
    for _ in range(steps):
        loss = F.mse_loss(functional_call(model, theta, (task.support_x,)), task.support_y)
        gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {n: p - lr[n] * g for (n, p), g in zip(theta.items(), gradients, strict=True)}
    return F.mse_loss(functional_call(model, theta, (task.query_x,)), task.query_y)


def as_vector(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors.values()])


@pytest.mark.parametrize("rates", ["one", "each"])
@pytest.mark.parametrize("steps", [1, 3])
def test_meta_gradient_of_a_net_four_ways(steps, rates):
    """meta_loss.backward() = autograd.grad(create_graph=True) written out = torch.func.grad = central differences."""
    model, task = smooth_net(), SINES[1]
    params = trainable(model)
    each = {n: 0.1 + 0.05 * randn(*p.shape, seed=i) for i, (n, p) in enumerate(params.items())}
    lr = 0.1 if rates == "one" else each
    spread = dict.fromkeys(params, 0.1) if rates == "one" else each

    def objective(theta: dict[str, Tensor], first_order: bool = False) -> Tensor:
        return meta_loss(model, theta, task, lr=lr, steps=steps, first_order=first_order, loss_fn=F.mse_loss)

    model.zero_grad()
    objective(params).backward()
    ours = torch.cat([p.grad.flatten() for p in params.values()])
    loss = written_out(model, params, task, spread, steps)
    assert objective(params).item() == pytest.approx(loss.item(), rel=1e-13)
    by_autograd = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(params.values()))])
    by_func = as_vector(grad(objective)({n: p.detach() for n, p in params.items()}))
    by_differences = as_vector(central_differences(objective, params))
    assert ours.abs().max() > 1e-2
    assert torch.allclose(ours, by_autograd, rtol=0, atol=1e-12)
    assert torch.allclose(ours, by_func, rtol=0, atol=1e-12)
    assert torch.allclose(ours, by_differences, rtol=0, atol=1e-8)

    # the first-order gradient must fail the same check (trap G1): the same value, another direction
    first = torch.autograd.grad(objective(params, first_order=True), list(params.values()))
    first = torch.cat([g.flatten() for g in first])
    assert (first - by_differences).abs().max() > 1e-3
    by_func = as_vector(
        grad(lambda theta: objective(theta, first_order=True))({n: p.detach() for n, p in params.items()})
    )
    assert torch.allclose(first, by_func, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_meta_gradient_through_batch_norm(training):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double().train(training)
    task, params = SINES[1], trainable(model)

    def objective(theta: dict[str, Tensor]) -> Tensor:
        return meta_loss(model, theta, task, lr=0.3, steps=2, loss_fn=F.mse_loss)

    ours = torch.cat([g.flatten() for g in torch.autograd.grad(objective(params), list(params.values()))])
    by_func = as_vector(grad(objective)({n: p.detach() for n, p in params.items()}))
    assert torch.allclose(ours, by_func, rtol=0, atol=1e-12)
    error = (ours - as_vector(central_differences(objective, params))).abs().max()
    assert error < 1e-5 * ours.abs().max()


def test_the_product_of_i_minus_alpha_h_along_the_way():
    """Three steps of a net: g <- (I - lr H(theta_t)) g for t = 2, 1, 0, each Hessian where the loop was then."""
    model, task = smooth_net(hidden=4), SINES[2]
    params, lr = {n: p.detach() for n, p in trainable(model).items()}, 0.2
    shapes = {n: p.shape for n, p in params.items()}

    def unflatten(flat: Tensor) -> dict[str, Tensor]:
        pieces = flat.split([s.numel() for s in shapes.values()])
        return {n: piece.view(s) for (n, s), piece in zip(shapes.items(), pieces, strict=True)}

    loss = support_loss(model, task)
    theta, curvature = as_vector(params), []
    for _ in range(3):
        curvature.append(hessian(lambda flat: loss(unflatten(flat)))(theta))
        theta = theta - lr * grad(lambda flat: loss(unflatten(flat)))(theta)
    g = grad(lambda flat: F.mse_loss(predict(model, unflatten(flat), task), task.query_y))(theta)
    for h in reversed(curvature):
        g = g - lr * h @ g
    found = as_vector(grad(lambda p: meta_loss(model, p, task, lr=lr, steps=3, loss_fn=F.mse_loss))(params))
    assert torch.allclose(found, g, rtol=0, atol=1e-12)
    assert not torch.allclose(curvature[0] @ curvature[2], curvature[2] @ curvature[0], atol=1e-3)  # the order matters


def test_the_first_order_error_vanishes_linearly_with_the_inner_rate():
    """Slope 1 on log-log paper: the terms that are left out are lr times a Hessian."""
    model, task = smooth_net(), SINES[1]
    params, errors, rates = trainable(model), [], [0.01 * 2.0**-k for k in range(6)]
    for lr in rates:
        both = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(params.values()))])
            for loss in (
                meta_loss(model, params, task, lr=lr, steps=3, first_order=f, loss_fn=F.mse_loss) for f in (0, 1)
            )
        ]
        errors.append((both[0] - both[1]).norm())
    log_rate, log_error = torch.tensor(rates).log(), torch.stack(errors).log()
    x = log_rate - log_rate.mean()
    slope = (x * log_error).sum() / (x**2).sum()
    assert slope.item() == pytest.approx(1, abs=0.03)
    assert errors[0] / errors[-1] > 25  # 32 in the limit


def test_meta_loss_asks_for_the_right_loss():
    model, task = smooth_net(), SINES[0]
    with pytest.raises(ValueError, match="regression targets: take loss_fn=F.mse_loss"):
        meta_loss(model, trainable(model), task, lr=0.1, steps=1)
    theta = adapt(support_loss(model, task, F.l1_loss), trainable(model), lr=0.1, steps=2)  # both loops take loss_fn
    found = meta_loss(model, trainable(model), task, lr=0.1, steps=2, loss_fn=F.l1_loss)
    assert found.item() == pytest.approx(F.l1_loss(predict(model, theta, task), task.query_y).item(), rel=1e-12)
    pictures, net = small_episodes(1)[0], small_conv("group")
    found = meta_loss(net, trainable(net), pictures, lr=0.1, steps=1)
    adapted = adapt(support_loss(net, pictures), trainable(net), lr=0.1, steps=1)
    assert found.item() == pytest.approx(F.cross_entropy(predict(net, adapted, pictures), pictures.query_y).item())
