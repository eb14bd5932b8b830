import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, vmap

from fsl_course.episodes import Episode, EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.inner_loop.functional import call, predict, support_loss, trainable
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.maml import MAML, adapt, meta_loss
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import classifier, conv4, mlp
from fsl_course.training.loop import fit
from tests.conftest import relabel, toy_images
from tests.fsl_course.methods.adapting import (
    LiveBytes,
    central_differences,
    linear_model,
    linear_task,
    quadratic,
    randn,
    small_conv,
    small_episodes,
    smooth_net,
)
from tests.fsl_course.methods.laws import judges_each_query_alone

SINES = SinusoidSampler(6, 4, dtype=torch.float64)


def parabola(curvature: float, minimum: Tensor | float):
    """theta -> curvature / 2 * (theta - minimum)^2, summed."""
    return lambda params: curvature / 2 * ((params["w"] - minimum) ** 2).sum()


def point(*values: float) -> dict[str, Tensor]:
    return {"w": torch.tensor(values, dtype=torch.float64, requires_grad=True)}


# --- the inner loop ------------------------------------------------------------------------------------------------------


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


# --- the meta-gradient ---------------------------------------------------------------------------------------------------

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


# --- the learner ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_order", [False, True])
def test_a_training_step_is_the_mean_meta_loss(first_order):
    model, batch = smooth_net(), SINES.batch(0, 3)
    learner = MAML(model, 0.1, 2, first_order)
    loss = learner.training_step(batch)
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    how = {"lr": 0.1, "steps": 2, "first_order": first_order, "loss_fn": F.mse_loss}
    expected = sum(meta_loss(model, trainable(model), task, **how) for task in batch) / 3
    model.zero_grad()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert all(torch.allclose(found[n], p.grad, atol=1e-12) for n, p in model.named_parameters())


def test_test_steps_count_in_evaluation_mode_only():
    model, task = smooth_net(), SINES[0]

    def outputs(steps: int) -> Tensor:
        adapted = adapt(support_loss(model, task), trainable(model), lr=0.1, steps=steps)
        return call(model, adapted, task.query_x)

    learner = MAML(model, 0.1, 2)
    assert torch.equal(learner(task), outputs(2))
    assert torch.equal(learner.eval()(task), outputs(2))
    for steps in (0, 5):
        learner.test_steps = steps
        assert torch.equal(learner.train()(task), outputs(2))
        assert torch.equal(learner.eval()(task), outputs(steps))
    assert torch.equal(MAML(model, 0.1, 2, test_steps=7).eval()(task), outputs(7))
    assert learner.loss(task).item() == pytest.approx(F.mse_loss(outputs(5), task.query_y).item())


def test_adaptation_keeps_a_graph_where_gradients_are_wanted():
    learner, task = MAML(smooth_net(), 0.1, 2), SINES[0]
    for module in (learner.train(), learner.eval()):
        assert all(p.grad_fn is not None for p in module.adapted(task).values())
        with torch.no_grad():
            assert not any(p.requires_grad for p in module.adapted(task).values())
            assert not module(task).requires_grad


# --- any module ----------------------------------------------------------------------------------------------------------


class Counts(nn.Module):
    """A buffer of its own that moves with every call, in place and by assignment, and takes part in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(1, 1)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x.detach().mean(0)
        return self.out(x) + self.calls


class Tied(nn.Module):
    """x -> W^T tanh(W x), one matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())[:, :1]


def test_buffers_of_a_model_do_not_move():
    model = Counts().double()
    learner = MAML(model, 0.1, 3, vmap=False)
    for module in (learner.train(), learner.eval()):
        module.training_step(SINES.batch(0, 2)).backward()
        output = module(SINES[0])
        assert model.calls.item() == 0
        assert model.last.item() == 0
        at_rest = {"calls": torch.zeros(()), "last": torch.zeros(1)}  # functional_call moves what it is given
        plain = functional_call(model, {**module.adapted(SINES[0]), **at_rest}, (SINES[0].query_x,))
        assert torch.equal(output, plain)  # every call starts from the model's own buffers


def test_tied_weights_adapt_together_and_stay_tied():
    torch.manual_seed(0)
    model, task = Tied().double(), linear_task(3)
    assert list(trainable(model)) == ["first.weight"]
    adapted = adapt(support_loss(model, task), trainable(model), lr=0.1, steps=2)
    matrix = adapted["first.weight"]
    by_hand = ((task.query_x @ matrix.T).tanh() @ matrix.T)[:, :1]
    assert torch.allclose(call(model, adapted, task.query_x), by_hand, atol=1e-14)
    params = trainable(model)

    def objective(theta: dict[str, Tensor]) -> Tensor:
        return meta_loss(model, theta, task, lr=0.1, steps=2, loss_fn=F.mse_loss)

    gradient = torch.autograd.grad(objective(params), list(params.values()))[0]
    assert torch.allclose(gradient, central_differences(objective, params)["first.weight"], rtol=0, atol=1e-8)
    learner = MAML(model, 0.1, 2)
    learner.training_step(Episode(*(t[None] for t in vars(task).values()))).backward()
    assert torch.allclose(model.first.weight.grad, gradient, rtol=0, atol=1e-12)
    assert model.first.weight is model.second.weight


@pytest.mark.parametrize("at_once", [False, True])
def test_frozen_parameters_are_neither_adapted_nor_learned(at_once):
    model, batch = smooth_net(), SINES.batch(0, 2)
    model[0].weight.requires_grad_(False)
    assert list(trainable(model)) == ["0.bias", "2.weight", "2.bias"]
    learner = MAML(model, 0.1, 2, vmap=at_once)
    assert set(learner.adapted(batch[0])) == {"0.bias", "2.weight", "2.bias"}
    learner.training_step(batch).backward()
    assert model[0].weight.grad is None
    assert all(p.grad.abs().max() > 0 for p in trainable(model).values())


@pytest.mark.parametrize("dropout", [nn.Dropout(0.3), nn.Dropout1d(0.3), nn.AlphaDropout(0.3)])
def test_active_dropout_is_refused_and_sleeping_dropout_is_not(dropout):
    model = nn.Sequential(smooth_net(1, 4), dropout, nn.Linear(4, 1).double())
    learner = MAML(model, 0.1, 1)
    message = (
        rf"{type(dropout).__name__}\(p=0.3\) makes the inner loss a game of chance.*set its p to 0, or put it into eval"
    )
    with pytest.raises(ValueError, match=message):
        learner(SINES[0])
    with pytest.raises(ValueError, match=message):
        learner.training_step(SINES.batch(0, 2))
    assert torch.equal(learner.eval()(SINES[0]), learner(SINES[0]))
    dropout.p = 0.0
    assert torch.equal(learner.train()(SINES[0]), learner.eval()(SINES[0]))
    dropout.p = 0.3
    learner.train()
    dropout.eval()
    assert learner(SINES[0]).shape == (4, 1)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_conv4_of_every_norm(norm):
    """Inner steps lower the support loss; the head and the first convolution both get a meta-gradient (trap G2)."""
    learner, episode = MAML(small_conv(norm), 0.05, 3), small_episodes(1)[0]
    start, after = (
        support_loss(learner.model, episode)(p) for p in (trainable(learner.model), learner.adapted(episode))
    )
    assert after < start
    assert learner(episode).shape == (6, 3)
    learner.loss(episode).backward()
    for parameter in (learner.model.head.weight, learner.model.encoder.layers[0].weight):
        assert parameter.grad.abs().max() > 1e-6


# --- laws ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_every_query_is_judged_alone_in_evaluation_mode(norm):
    judges_each_query_alone(MAML(small_conv(norm), 0.1, 2).eval(), small_episodes(1)[0])


def test_evaluating_twice_gives_the_same_and_changes_nothing():
    torch.manual_seed(0)
    learner = MAML(classifier(conv4(4), 4), 0.1, 2)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    sampler = EpisodeSampler(toy_images(20, size=16), 4, 1, 3)
    first, second = (evaluate(learner, sampler, 5).per_episode for _ in range(2))
    assert torch.equal(first, second)
    assert learner.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())
    assert not isinstance(learner, ComparesEmbeddings)


def test_relabelling_slots_permutes_logits_only_while_the_head_is_symmetric():
    """A head of equal rows does not know its slots yet; a random or trained one does. Metric methods never learn them."""
    episode, new_slot = small_episodes(1)[0], torch.tensor([2, 0, 1])
    learner = MAML(small_conv("group"), 0.1, 3).eval()
    for model, equivariant in ((learner, False), (PrototypicalNetwork(learner.model.encoder).eval(), True)):
        difference = (model(relabel(episode, new_slot))[:, new_slot] - model(episode)).abs().max()
        assert (difference < 1e-12) == equivariant
        assert equivariant or difference > 1e-2
    learner.model.head.weight.data.zero_()
    learner.model.head.bias.data.zero_()
    assert torch.allclose(learner(relabel(episode, new_slot))[:, new_slot], learner(episode), atol=1e-12)
    assert learner(episode).std() > 1e-3


def test_shuffling_the_support_changes_nothing():
    learner, episode = MAML(small_conv("batch"), 0.1, 2).eval(), small_episodes(1)[0]
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    other = Episode(
        episode.support_x[order], episode.support_y[order], episode.query_x, episode.query_y, episode.classes
    )
    assert torch.allclose(learner(other), learner(episode), atol=1e-10)


@pytest.mark.parametrize("steps", [0, 1])
def test_other_ways_than_the_head_has_are_explained(steps):
    learner = MAML(small_conv("group", n_way=3), 0.1, steps, vmap=False)
    for way in (2, 4):
        message = f"the model has 3 outputs and the episode {way} classes: a method with a fixed head"
        with pytest.raises(ValueError, match=message):
            learner(small_episodes(1, n_way=way)[0])
        with pytest.raises(ValueError, match=message):
            learner.training_step(small_episodes(2, n_way=way))
        with pytest.raises(ValueError, match=message):
            evaluate(learner, EpisodeSampler(toy_images(size=16), way, 2, 2, dtype=torch.float64), 2)


# --- memory --------------------------------------------------------------------------------------------------------------


def test_memory_of_an_evaluation_does_not_grow_with_its_episodes():
    """Trap G5. What 450 more episodes leave behind are 8 bytes each; one kept graph alone has tens of thousands."""
    learner, sampler = MAML(mlp((1, 8, 8, 1)), 0.01, 2), SinusoidSampler(5, 5)
    most = {}
    for episodes in (64, 512):
        with LiveBytes() as memory:
            result = evaluate(learner, sampler, episodes, metric="mse")
        most[episodes] = memory.peak
        assert memory.now <= 3 * result.per_episode.nbytes + 10_000  # sampler and result
    assert most[512] - most[64] <= 448 * 8 * 4
    learner.eval()
    with LiveBytes() as memory, torch.no_grad():  # outputs kept by hand hold on to no graph either
        outputs = [learner(sampler[0]) for _ in range(3)]
        three = memory.now
        outputs += [learner(sampler[0]) for _ in range(20)]
    assert memory.now - three == 20 * outputs[0].nbytes


# --- learning ------------------------------------------------------------------------------------------------------------


def test_it_learns_sine_curves_better_than_no_adaptation_and_pretraining():
    """300 updates of 10 curves. Pretraining is the same learner without an inner loop (0 steps)."""
    train, test, after = SinusoidSampler(10, 10), SinusoidSampler(10, 20, seed=1), {}
    for name, steps, first_order in (("maml", 1, False), ("first order", 1, True), ("pretraining", 0, False)):
        torch.manual_seed(0)
        learner = MAML(mlp(), 0.01, steps, first_order)
        fit(learner, train, steps=300, tasks=10, lr=5e-3, progress=False)
        for test_steps in (0, 1, 5):
            learner.test_steps = test_steps
            after[name, test_steps] = evaluate(learner, test, 100, metric="mse").mean
    for name in ("maml", "first order"):
        assert after[name, 5] < after[name, 1] < 0.8 * after[name, 0]
        assert after[name, 1] < 0.9 * after["pretraining", 1]
        assert after[name, 5] < 0.9 * after["pretraining", 5]


@pytest.mark.parametrize(("norm", "lr"), [("batch", 0.3), ("group", 0.5)])
def test_it_learns_pictures_in_seconds_and_is_at_chance_before_adaptation(norm, lr):
    """On classes never seen; without adaptation, averaged over random slots, it scores 1/N (trap E4)."""
    source = toy_images(80, 8, size=16, noise=120)
    torch.manual_seed(0)
    learner = MAML(classifier(conv4(8, norm), 4), lr, 2)
    test = EpisodeSampler(source.split("test"), 4, 1, 4, seed=10)
    before = evaluate(learner, test, 40)
    fit(learner, EpisodeSampler(source.split("train"), 4, 1, 3), steps=25, tasks=3, lr=1e-2, progress=False)
    after = evaluate(learner, test, 40)
    assert after.mean > before.mean + 0.25
    learner.test_steps = 0
    unadapted = evaluate(learner, test, 300)
    assert abs(unadapted.mean - 1 / 4) <= unadapted.ci95 < 0.03


def test_a_task_is_solved_in_inference_mode_as_without_gradients():
    learner, episode = MAML(small_conv("batch"), 0.1, 2).eval(), small_episodes(1)[0]
    with torch.no_grad():
        expected = learner(episode)
    with torch.inference_mode():
        assert torch.allclose(learner(episode), expected, rtol=0, atol=1e-12)
