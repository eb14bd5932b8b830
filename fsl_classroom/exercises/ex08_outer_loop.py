"""Exercises of lesson 08: meta-gradients by hand, by autograd, by differences, as a product; a detector; Hessian-vector products.

Cases: every exercise builds its own. Losses are functions of parameters and come as arguments. The detector 08.5 gets whole
outer steps and must return True for the wrong ones only.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from types import CodeType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad, hessian, jvp, linearize, vjp
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong
from fsl_course.episodes import Episode
from fsl_course.methods.maml import adapt

Params = dict[str, Tensor]
Loss = Callable[[Params], Tensor]

# ---------------------------------------------------------------------------------------------- 08.1 one parameter


def one_parameter(theta: float, lr: float, a: float, s: float, b: float, q: float) -> float:
    """Returns d L_Q(theta') / d theta for L_S = a/2 (theta - s)^2, L_Q = b/2 (theta - q)^2 and one inner step."""
    adapted = theta - lr * a * (theta - s)
    return (1 - lr * a) * b * (adapted - q)


def _one_multiplied_out(theta: float, lr: float, a: float, s: float, b: float, q: float) -> float:
    factor = 1 - lr * a
    return b * factor * factor * theta + b * factor * (lr * a * s - q)


def _one_by_parts(theta: float, lr: float, a: float, s: float, b: float, q: float) -> float:
    slope = b * (theta - lr * (a * theta - a * s) - q)
    return slope - lr * a * slope


def _one_by_substitution(theta: float, lr: float, a: float, s: float, b: float, q: float) -> float:
    shrink = 1 - lr * a
    landing = s + shrink * (theta - s)  # the distance to s shrinks
    return b * shrink * landing - shrink * b * q


def _one_by_difference(theta: float, lr: float, a: float, s: float, b: float, q: float) -> float:
    def after(start: float) -> float:
        return b / 2 * (start - lr * a * (start - s) - q) ** 2

    return (after(theta + 1) - after(theta - 1)) / 2  # exact for a parabola


def _one_case(says: str, *numbers: float) -> Case:
    return Case(says, numbers)


def _one_cases(generator: Generator) -> list[Case]:
    return [
        _one_case("the example on paper", 1.0, 0.25, 2.0, 3.0, 2.0, 5.0),
        _one_case("query steeper than support", 0.5, 0.1, 0.8, -1.0, 3.0, 2.0),
        _one_case("no inner step at all: lr = 0", 2.0, 0.0, 1.5, 0.5, 0.7, -1.0),
        _one_case("a step that lands on the support's optimum: lr = 1/a", 3.0, 0.5, 2.0, 1.0, 4.0, -2.0),
        _one_case("a step that goes far beyond it: lr = 2.5/a", -1.0, 1.25, 2.0, 0.5, 1.5, 2.0),
    ]


ONE_PARAMETER = Exercise(
    id="08.1",
    title="The meta-gradient of one parameter",
    reference=one_parameter,
    cases=_one_cases,
    right=(_one_multiplied_out, _one_by_parts, _one_by_substitution, _one_by_difference),
    wrong=(
        Wrong(
            "first order",
            lambda theta, lr, a, s, b, q: b * (theta - lr * a * (theta - s) - q),
            "the factor d theta' / d theta is left out: this is the first-order gradient",
            "theta' moves only (1 − lr·a) as far as theta does: the chain rule asks for that factor.",
        ),
        Wrong(
            "query gradient at theta",
            lambda theta, lr, a, s, b, q: (1 - lr * a) * b * (theta - q),
            "the query gradient is taken at theta, before the inner step",
            "L_Q is asked about theta'. First compute theta' = theta − lr·a·(theta − s).",
        ),
        Wrong(
            "plus in the factor",
            lambda theta, lr, a, s, b, q: (1 + lr * a) * b * (theta - lr * a * (theta - s) - q),
            "the factor is 1 + lr·a",
            "Differentiate theta − lr·a·(theta − s): the second term gives −lr·a.",
        ),
        Wrong(
            "query's curvature",
            lambda theta, lr, a, s, b, q: (1 - lr * b) * b * (theta - lr * a * (theta - s) - q),
            "the curvature b of the query loss stands in the factor",
            "The inner step runs on the support: its curvature is a.",
        ),
        Wrong(
            "uphill",
            lambda theta, lr, a, s, b, q: (1 - lr * a) * b * (theta + lr * a * (theta - s) - q),
            "the inner step goes uphill: theta' = theta + lr·gradient",
            "Gradient descent subtracts.",
        ),
        Wrong(
            "uphill throughout",
            lambda theta, lr, a, s, b, q: (1 + lr * a) * b * (theta + lr * a * (theta - s) - q),
            "the inner step goes uphill, and the factor 1 + lr·a follows from it",
            "Gradient descent subtracts: theta' = theta − lr·a·(theta − s), and the factor changes with it.",
        ),
        Wrong(
            "b forgotten",
            lambda theta, lr, a, s, b, q: (1 - lr * a) * (theta - lr * a * (theta - s) - q),
            "the b of the query's gradient b·(theta' − q) is missing",
            "The derivative of b/2·(x − q)² is b·(x − q).",
        ),
        Wrong(
            "support's gradient",
            lambda theta, lr, a, s, b, q: (1 - lr * a) * a * (theta - lr * a * (theta - s) - s),
            "the support loss is differentiated at theta': the query is not used at all",
            "The outer loss is L_Q.",
        ),
        Wrong(
            "the loss itself",
            lambda theta, lr, a, s, b, q: b / 2 * (theta - lr * a * (theta - s) - q) ** 2,
            "the value of the meta-loss is returned, not its derivative",
            "Differentiate it with respect to theta, by the chain rule.",
        ),
        Wrong(
            "support's curvature outside",
            lambda theta, lr, a, s, b, q: (1 - lr * a) * a * (theta - lr * a * (theta - s) - q),
            "the query's gradient is taken with the support's curvature a",
            "L_Q = b/2·(theta' − q)²: its derivative at theta' is b·(theta' − q).",
        ),
        Wrong(
            "downhill",
            lambda theta, lr, a, s, b, q: -(1 - lr * a) * b * (theta - lr * a * (theta - s) - q),
            "the sign is turned: this is the way downhill, minus the gradient",
            "Return the slope itself. The outer step subtracts it later.",
        ),
        Wrong(
            "correction only",
            lambda theta, lr, a, s, b, q: -lr * a * b * (theta - lr * a * (theta - s) - q),
            "theta' is taken to move by −lr·a only: the theta in front of the step is forgotten",
            "d theta' / d theta of theta − lr·a·(theta − s) starts with 1.",
        ),
        Wrong(
            "a forgotten",
            lambda theta, lr, a, s, b, q: (1 - lr) * b * (theta - lr * (theta - s) - q),
            "the inner gradient is taken as theta − s, without its a",
            "The derivative of a/2·(x − s)² is a·(x − s).",
        ),
        Wrong(
            "half kept",
            lambda theta, lr, a, s, b, q: (1 - lr * a) * b / 2 * (theta - lr * a * (theta - s) - q),
            "the query's gradient is taken as b/2·(theta' − q)",
            "The 2 of the square cancels the half: the derivative of b/2·(x − q)² is b·(x − q).",
        ),
        Wrong(
            "factor twice",
            lambda theta, lr, a, s, b, q: (1 - lr * a) ** 2 * b * (theta - lr * a * (theta - s) - q),
            "the factor 1 − lr·a is squared",
            "theta' depends on theta through one step: one factor.",
        ),
        Wrong(
            "targets exchanged",
            lambda theta, lr, a, s, b, q: (1 - lr * a) * b * (theta - lr * a * (theta - q) - s),
            "s and q have changed places: the inner step goes to the query's target",
            "The support pulls towards s, the query judges by q.",
        ),
        Wrong(
            "derivative of the step only",
            lambda theta, lr, a, s, b, q: 1 - lr * a,
            "only d theta' / d theta is returned",
            "Multiply by the slope of L_Q at theta'.",
        ),
    ),
    hints=(
        "A chain: theta moves theta', theta' moves L_Q. Multiply the two derivatives.",
        "theta' = theta − lr·a·(theta − s), so d theta'/d theta = 1 − lr·a. And L_Q has slope b·(theta' − q).",
        "`adapted = theta - lr * a * (theta - s)`, then `return (1 - lr * a) * b * (adapted - q)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 08.2 meta_loss


def meta_loss(model: nn.Module, params: Params, episode: Episode, lr: float, steps: int) -> Tensor:
    """Returns the mean squared error on the query after the inner loop on the support, a scalar."""

    def support_loss(theta: Params) -> Tensor:
        return F.mse_loss(functional_call(model, theta, (episode.support_x,)), episode.support_y)

    adapted = adapt(support_loss, params, lr=lr, steps=steps)
    return F.mse_loss(functional_call(model, adapted, (episode.query_x,)), episode.query_y)


def _error(model: nn.Module, params: Params, x: Tensor, y: Tensor) -> Tensor:
    return (functional_call(model, params, x) - y).square().mean()


def _meta_by_autograd(model: nn.Module, params: Params, episode: Episode, lr: float, steps: int) -> Tensor:
    with torch.enable_grad():
        theta = {k: v if v.requires_grad else v.clone().requires_grad_() for k, v in params.items()}
        for _ in range(steps):
            loss = _error(model, theta, episode.support_x, episode.support_y)
            slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            theta = {k: v - lr * g for (k, v), g in zip(theta.items(), slopes, strict=True)}
        return _error(model, theta, episode.query_x, episode.query_y)


def _meta_by_func(model: nn.Module, params: Params, episode: Episode, lr: float, steps: int) -> Tensor:
    slope = grad(lambda theta: _error(model, theta, episode.support_x, episode.support_y))
    theta = params
    for _ in range(steps):
        slopes = slope(theta)
        theta = {k: theta[k] - lr * slopes[k] for k in theta}
    return _error(model, theta, episode.query_x, episode.query_y)


def _meta_by_hand(model: nn.Module, params: Params, episode: Episode, lr: float, steps: int) -> Tensor:
    fast = dict(params)
    for _ in range(steps):
        loss = F.mse_loss(functional_call(model, fast, (episode.support_x,)), episode.support_y)
        gradients = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
        fast = {name: w - lr * g for (name, w), g in zip(fast.items(), gradients, strict=True)}
    return F.mse_loss(functional_call(model, fast, (episode.query_x,)), episode.query_y)


def _meta_recursive(model: nn.Module, params: Params, episode: Episode, lr: float, steps: int) -> Tensor:
    if steps == 0:
        return nn.MSELoss()(functional_call(model, params, episode.query_x), episode.query_y)
    loss = nn.MSELoss()(functional_call(model, params, episode.support_x), episode.support_y)
    slopes = dict(zip(params, torch.autograd.grad(loss, tuple(params.values()), create_graph=True), strict=True))
    moved = {name: value.sub(slopes[name], alpha=lr) for name, value in params.items()}
    return _meta_recursive(model, moved, episode, lr, steps - 1)


def _meta_by_hand_variant(*, from_start: bool = False, cut: bool = False, sign: float = 1.0) -> Callable[..., Tensor]:
    """Returns `meta_loss` with an inner loop written by hand and one fault."""

    def loss(model: nn.Module, params: Params, episode: Episode, lr: float, steps: int) -> Tensor:
        fast = dict(params)
        for _ in range(steps):
            error = _error(model, fast, episode.support_x, episode.support_y)
            slopes = torch.autograd.grad(error, list(fast.values()), create_graph=True)
            base = params if from_start else fast
            fast = {k: base[k] - sign * lr * g for k, g in zip(fast, slopes, strict=True)}
            if cut:
                fast = {k: v.detach().requires_grad_() for k, v in fast.items()}
        return _error(model, fast, episode.query_x, episode.query_y)

    return loss


def _flattened(model: nn.Module, params: Params, x: Tensor, y: Tensor) -> Tensor:
    return (functional_call(model, params, x) - y.flatten()).square().mean()  # [Q, 1] meets [Q]


def _meta_variant(
    *,
    inner: Callable[[nn.Module, Params, Episode], Tensor] = lambda m, p, e: _error(m, p, e.support_x, e.support_y),
    outer: Callable[[nn.Module, Params, Episode], Tensor] = lambda m, p, e: _error(m, p, e.query_x, e.query_y),
    start: Callable[[nn.Module, Params], Params] = lambda model, params: params,
    count: Callable[[int], int] = lambda steps: steps,
    **options: bool,
) -> Callable[..., Tensor]:
    """Returns `meta_loss` with one part replaced. options: those of `adapt`."""

    def loss(model: nn.Module, params: Params, episode: Episode, lr: float, steps: int) -> Tensor:
        begin = start(model, params)
        adapted = adapt(lambda p: inner(model, p, episode), begin, lr=lr, steps=count(steps), **options)
        return outer(model, adapted, episode)

    return loss


def _curve(generator: Generator, support: int, query: int) -> Episode:
    x = 4 * torch.rand(support + query, 1, generator=generator) - 2
    y = 1.5 * torch.sin(x + torch.rand(1, generator=generator))
    return Episode(x[:support], y[:support], x[support:], y[support:], torch.zeros(0, dtype=torch.int64))


def _small_net(generator: Generator, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Returns a net [B, 1] -> [B, 1] with four hidden tanh units."""
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).to(dtype)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return net


def _other_params(net: nn.Module, generator: Generator) -> Params:
    """Draws parameters that fit the net but are not its own. They require a gradient, like those of a net."""
    drawn = {k: torch.randn(v.shape, generator=generator).to(v.dtype) for k, v in net.named_parameters()}
    return {k: v.requires_grad_() for k, v in drawn.items()}


def _meta_cases(generator: Generator) -> list[Case]:
    def case(says: str, support: int, query: int, lr: float, steps: int, dtype: torch.dtype = torch.float32) -> Case:
        net = _small_net(generator, dtype)
        return Case(says, (net, _other_params(net, generator), _curve(generator, support, query).to(dtype), lr, steps))

    return [
        case("5 support points, 8 query points, one inner step", 5, 8, 0.1, 1),
        case("three inner steps", 6, 4, 0.1, 3),
        case("one query point", 3, 1, 0.2, 2),
        case("no inner step", 4, 5, 0.1, 0),
        case("float64", 5, 5, 0.05, 2, torch.float64),
    ]


META_LOSS = Exercise(
    id="08.2",
    title="meta_loss",
    reference=meta_loss,
    cases=_meta_cases,
    gradient=(1,),
    right=(_meta_by_autograd, _meta_by_func, _meta_by_hand, _meta_recursive),
    wrong=(
        Wrong(
            "unadapted",
            lambda m, p, e, lr, steps: _error(m, p, e.query_x, e.query_y),
            "nothing is learned from the support: either the query loss is taken at `params`, or the support loss never looks at "
            "the parameters that `adapt` hands it",
            "The support loss is a function of its own argument, run by `functional_call`; and the query is judged with what "
            "`adapt` returns.",
        ),
        Wrong(
            "support twice",
            _meta_variant(outer=lambda m, p, e: _error(m, p, e.support_x, e.support_y)),
            "the outer loss is taken on the support, and the query is never used",
            "Outer loop: `query_x` and `query_y`.",
        ),
        Wrong(
            "adapts on the query",
            _meta_variant(inner=lambda m, p, e: _error(m, p, e.query_x, e.query_y)),
            "the inner loop runs on the query: the answers leak",
            "Inner loop: `support_x` and `support_y`.",
        ),
        Wrong(
            "first order",
            _meta_variant(first_order=True),
            "the value is right, but the inner gradients count as constants (`first_order=True`, or no `create_graph=True`)",
            "Leave `first_order` out, or set `create_graph=True`: the outer gradient must pass through the inner ones.",
        ),
        Wrong(
            "no graph",
            _meta_variant(track=False),
            "the value is right, but the graph is cut on the way: the initialisation gets no gradient",
            "No `track=False`, no `.detach()`, no copy of the model with an optimizer: `adapt` starts from `params` themselves.",
        ),
        Wrong(
            "summed query loss",
            _meta_variant(
                outer=lambda m, p, e: F.mse_loss(functional_call(m, p, e.query_x), e.query_y, reduction="sum")
            ),
            "the squared errors of the query are summed",
            "The *mean* squared error: `F.mse_loss` without `reduction`.",
        ),
        Wrong(
            "summed support loss",
            _meta_variant(
                inner=lambda m, p, e: F.mse_loss(functional_call(m, p, e.support_x), e.support_y, reduction="sum")
            ),
            "the inner loss is a sum, which multiplies the inner rate by the number of support points",
            "The *mean* squared error in the inner loop too.",
        ),
        Wrong(
            "model's own weights",
            _meta_variant(start=lambda model, params: dict(model.named_parameters())),
            "the model's own weights are adapted and `params` is ignored",
            "Start the inner loop from `params`.",
        ),
        Wrong(
            "one step",
            _meta_variant(count=lambda steps: min(steps, 1)),
            "one inner step is taken, however many were asked for",
            "Hand `steps` to `adapt`.",
            also=(_meta_variant(count=lambda steps: 1),),
        ),
        Wrong(
            "one long step",
            lambda m, p, e, lr, steps: meta_loss(m, p, e, lr * steps, 1),
            "all steps are made as one, with `steps` times the rate",
            "Each step has a gradient of its own, at the place where it starts.",
        ),
        Wrong(
            "steps from the start",
            _meta_by_hand_variant(from_start=True),
            "every inner step leaves from `params` again, so that only the last one counts",
            "Subtract from the parameters of the step before: `fast[name] - lr * g`.",
        ),
        Wrong(
            "graph cut between steps",
            _meta_by_hand_variant(cut=True),
            "the value is right, but each step starts from detached tensors, so that no gradient gets back to `params`",
            "Detach nothing on the way from `params` to the query loss.",
        ),
        Wrong(
            "uphill",
            _meta_by_hand_variant(sign=-1.0),
            "the inner loop climbs: the gradient is added",
            "Subtract `lr` times the gradient.",
        ),
        Wrong(
            "broadcast targets",
            _meta_variant(outer=lambda m, p, e: _flattened(m, p, e.query_x, e.query_y)),
            "flattened targets [Q] meet predictions [Q, 1]: broadcasting compares every prediction with every target",
            "Leave both as `[Q, 1]`, or flatten both.",
            also=(
                _meta_variant(inner=lambda m, p, e: _flattened(m, p, e.support_x, e.support_y)),
                _meta_variant(
                    inner=lambda m, p, e: _flattened(m, p, e.support_x, e.support_y),
                    outer=lambda m, p, e: _flattened(m, p, e.query_x, e.query_y),
                ),
            ),
        ),
        Wrong(
            "halved",
            _meta_variant(outer=lambda m, p, e: _error(m, p, e.query_x, e.query_y) / 2),
            "the query loss carries a factor of one half",
            "The mean of the squared errors, as `F.mse_loss` returns it.",
        ),
        Wrong(
            "model called directly",
            _meta_variant(outer=lambda m, p, e: F.mse_loss(m(e.query_x), e.query_y)),
            "the model is called with its own weights, not with the adapted ones",
            "`functional_call(model, adapted, (episode.query_x,))`",
        ),
        Wrong(
            "support and query",
            _meta_variant(
                outer=lambda m, p, e: _error(m, p, e.query_x, e.query_y) + _error(m, p, e.support_x, e.support_y)
            ),
            "the support loss is added to the outer loss",
            "Only the query judges.",
        ),
    ),
    hints=(
        "Two functions you know: `adapt` for the inner loop, `functional_call` to run the model with other weights.",
        "Write the support loss as a function of parameters and hand it to `adapt(loss, params, lr=lr, steps=steps)`.",
        "`adapted = adapt(lambda p: F.mse_loss(functional_call(model, p, (episode.support_x,)), episode.support_y), params, "
        "lr=lr, steps=steps)`, then the same loss on the query with `adapted`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 08.3 central differences


def central_differences(loss: Loss, params: Params, eps: float) -> Params:
    """Returns the slope of loss in every single number of params. loss: params -> scalar."""
    slopes = {}
    with torch.no_grad():
        for name, value in params.items():
            slope = torch.zeros_like(value)
            for i in range(value.numel()):
                ends = []
                for side in (eps, -eps):
                    moved = value.clone()
                    moved.view(-1)[i] += side
                    ends.append(loss({**params, name: moved}))
                slope.view(-1)[i] = (ends[0] - ends[1]) / (2 * eps)
            slopes[name] = slope
    return slopes


def _central_by_units(loss: Loss, params: Params, eps: float) -> Params:
    slopes = {}
    for name, value in params.items():
        units = torch.eye(value.numel(), dtype=value.dtype).view(-1, *value.shape) * eps
        found = [
            (float(loss({**params, name: value + unit})) - float(loss({**params, name: value - unit}))) / 2 / eps
            for unit in units
        ]
        slopes[name] = torch.tensor(found, dtype=value.dtype).view(value.shape)
    return slopes


def _central_flat(loss: Loss, params: Params, eps: float) -> Params:
    sizes = [v.numel() for v in params.values()]
    flat = torch.cat([v.detach().reshape(-1) for v in params.values()])

    def shaped(vector: Tensor) -> Params:
        parts = vector.split(sizes)
        return {k: part.reshape(v.shape) for (k, v), part in zip(params.items(), parts, strict=True)}

    found = torch.zeros_like(flat)
    for i in range(len(flat)):
        up, down = flat.clone(), flat.clone()
        up[i], down[i] = up[i] + eps, down[i] - eps
        found[i] = (loss(shaped(up)).detach() - loss(shaped(down)).detach()) / (2 * eps)
    return shaped(found)


def _differences(
    *,
    quotient: Callable[[Callable[[float], Tensor], float], Tensor],
    pick: Callable[[Tensor, int], Tensor] = lambda value, i: (
        F.one_hot(torch.tensor(i), value.numel())
        .to(value)  # an integer tensor times eps would be float32
        .view(value.shape)
    ),
    where: Callable[[Params], list[str]] = list,
) -> Callable[..., Params]:
    """Returns finite differences with one part replaced. quotient(along, eps): along(t) is the loss after a move of t."""

    def differences(loss: Loss, params: Params, eps: float) -> Params:
        slopes = {name: torch.zeros_like(value) for name, value in params.items()}
        for name in where(params):
            for i in range(params[name].numel()):
                unit = pick(params[name], i)

                def along(t: float, name: str = name, unit: Tensor = unit) -> Tensor:
                    return loss({**params, name: params[name] + t * unit}).detach()

                slopes[name].view(-1)[i] = quotient(along, eps)
        return slopes

    return differences


def _central(along: Callable[[float], Tensor], eps: float) -> Tensor:
    return (along(eps) - along(-eps)) / (2 * eps)


def _by_autograd(loss: Loss, params: Params, eps: float) -> Params:
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    found = torch.autograd.grad(loss(leaves), list(leaves.values()), allow_unused=True)
    return {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), found, strict=True)}


def _by_autograd_plainly(loss: Loss, params: Params, eps: float) -> Params:
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    return dict(zip(leaves, torch.autograd.grad(loss(leaves), list(leaves.values())), strict=True))


def _by_backward(loss: Loss, params: Params, eps: float) -> Params:
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    loss(leaves).backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def _central_by_put_back(loss: Loss, params: Params, eps: float) -> Params:
    own = {name: value.detach().clone() for name, value in params.items()}
    found = {}
    for name in own:
        flat, slopes = own[name].reshape(-1), []
        for i in range(flat.numel()):
            here, ends = flat[i].item(), []
            for there in (here + eps, here - eps):
                flat[i] = there
                ends.append(loss({key: value.clone() for key, value in own.items()}).detach())
            flat[i] = here
            slopes.append((ends[0] - ends[1]) / (2 * eps))
        found[name] = torch.stack(slopes).reshape(own[name].shape)
    return found


def _central_by_index(loss: Loss, params: Params, eps: float) -> Params:
    def end(name: str, index: tuple[int, ...], by: float) -> float:
        moved = {key: value.detach().clone() for key, value in params.items()}
        moved[name][index] += by
        return loss(moved).item()

    found = {name: torch.empty_like(value) for name, value in params.items()}
    for name, value in params.items():
        for index in itertools.product(*map(range, value.shape)):
            found[name][index] = 0.5 / eps * (end(name, index, eps) - end(name, index, -eps))
    return found


def _all_tensors_at_once(loss: Loss, params: Params, eps: float) -> Params:
    above, below = ({name: value + side for name, value in params.items()} for side in (eps, -eps))
    slope = ((loss(above) - loss(below)) / (2 * eps)).detach()
    return {name: torch.full_like(value, float(slope)) for name, value in params.items()}


def _whole_row(value: Tensor, i: int) -> Tensor:
    """Returns 1 for every number in the row of number i, and 0 elsewhere."""
    row = torch.arange(value.numel()) // (value[0].numel() if value.dim() else 1)
    return (row == row[i]).to(value).view(value.shape)


def _never_put_back(loss: Loss, params: Params, eps: float) -> Params:
    moved = {name: value.clone() for name, value in params.items()}
    slopes = {name: torch.zeros_like(value) for name, value in params.items()}
    for name, value in moved.items():
        for i in range(value.numel()):
            value.view(-1)[i] += eps
            above = loss(moved)
            value.view(-1)[i] -= 2 * eps
            slopes[name].view(-1)[i] = (above - loss(moved)) / (2 * eps)
    return slopes


def _copied_once(loss: Loss, params: Params, eps: float) -> Params:
    slopes = {name: torch.zeros_like(value) for name, value in params.items()}
    for name, value in params.items():
        above, below = value.clone(), value.clone()
        for i in range(value.numel()):
            above.view(-1)[i] += eps
            below.view(-1)[i] -= eps
            slopes[name].view(-1)[i] = (loss({**params, name: above}) - loss({**params, name: below})) / (2 * eps)
    return slopes


def _difference_cases(generator: Generator) -> list[Case]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def coupled(p: Params) -> Tensor:
        return (p["w"] * p["b"]).sum().sin() + (p["w"] ** 3).sum() / 3

    def only_w(p: Params) -> Tensor:
        return p["w"].square().sum()

    def cut(p: Params) -> Tensor:
        return (p["w"].detach() ** 2).sum() * p["b"].detach().prod()

    two = {"w": draw(2, 3), "b": draw(3)}
    return [
        Case("a parabola of one number", (lambda p: 3 * p["theta"] ** 2, {"theta": draw()}, 1e-5)),
        Case("two tensors that meet in the loss", (coupled, two, 1e-5)),
        Case("a wide step on a curved loss", (coupled, {"w": draw(2, 2), "b": draw(2)}, 0.1)),
        Case("a loss that leaves one tensor out", (only_w, two, 1e-4)),
        Case("a loss that is cut off from autograd", (cut, two, 1e-4)),
    ]


DIFFERENCES = Exercise(
    id="08.3",
    title="Central differences",
    reference=central_differences,
    cases=_difference_cases,
    right=(_central_by_units, _central_flat, _central_by_put_back, _central_by_index),
    wrong=(
        Wrong(
            "forward differences",
            _differences(quotient=lambda along, eps: (along(eps) - along(0.0)) / eps),
            "only one side is moved: a forward difference, whose error grows with eps itself and not with its square",
            "Move by +eps and by −eps and divide by 2·eps.",
        ),
        Wrong(
            "backward differences",
            _differences(quotient=lambda along, eps: (along(0.0) - along(-eps)) / eps),
            "only one side is moved, downwards: a backward difference, whose error grows with eps and not with its square",
            "Move by +eps and by −eps and divide by 2·eps.",
        ),
        Wrong(
            "divided by eps",
            _differences(quotient=lambda along, eps: (along(eps) - along(-eps)) / eps),
            "the difference is divided by eps, but the two points are 2·eps apart",
            "Divide by `2 * eps`.",
        ),
        Wrong(
            "half, times eps",
            _differences(quotient=lambda along, eps: (along(eps) - along(-eps)) / 2 * eps),
            "`/ 2 * eps` halves the difference and then multiplies by eps",
            "Python works from left to right: write `/ (2 * eps)`.",
        ),
        Wrong(
            "sign",
            _differences(quotient=lambda along, eps: (along(-eps) - along(eps)) / (2 * eps)),
            "the two ends change places: all signs are turned",
            "Loss at +eps minus loss at −eps.",
        ),
        Wrong(
            "not divided",
            _differences(quotient=lambda along, eps: along(eps) - along(-eps)),
            "the difference is not divided at all",
            "A slope is a difference over a distance: divide by `2 * eps`.",
        ),
        Wrong(
            "all at once",
            _differences(quotient=_central, pick=lambda value, i: torch.ones_like(value)),
            "all numbers of a tensor are moved together: every entry holds the sum of their slopes",
            "Move one single number, and leave the others where they are.",
        ),
        Wrong(
            "row by row",
            _differences(quotient=_central, pick=_whole_row),
            "a whole row of a matrix is moved at once: its entries all hold the sum of the row's slopes",
            "`value[i]` is a row when the tensor is a matrix: `value.view(-1)[i]` is one number.",
        ),
        Wrong(
            "the whole dict at once",
            _all_tensors_at_once,
            "all numbers of all tensors are moved together: every entry holds one and the same sum of slopes",
            "Move one single number, and leave the others where they are.",
        ),
        Wrong(
            "first tensor only",
            _differences(quotient=_central, where=lambda params: list(params)[:1]),
            "only the first tensor of the dict is tried, the others keep zeros",
            "Loop over all of `params.items()`.",
        ),
        Wrong(
            "never put back",
            _never_put_back,
            "a number that was moved is not put back before the next one is tried",
            "Start every trial from a fresh copy: `moved = value.clone()`.",
        ),
        Wrong(
            "copied once",
            _copied_once,
            "the copies are made once for a tensor, so that the moves add up: later entries hold sums of slopes",
            "Make both copies inside the loop over the positions.",
        ),
        Wrong(
            "autograd",
            _by_autograd,
            "autograd is asked in place of the loss itself: the check would trust what it is to check",
            "Call `loss` twice for every number; no `backward`, no `grad`.",
            also=(_by_autograd_plainly, _by_backward, lambda loss, params, eps: grad(loss)(params)),
        ),
    ),
    hints=(
        "Move one number up, then down. How far apart are the two points?",
        "For every name and every position: a clone with that number moved, `loss({**params, name: moved})`, once for each side.",
        "`moved = value.clone(); moved.view(-1)[i] += eps` and the same with `-eps`; "
        "slope i is `(above - below) / (2 * eps)`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 08.4 several steps

VectorLoss = Callable[[Tensor], Tensor]


def product_gradient(
    loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    """Returns the meta-gradient [P] after several steps, as a product of I - lr H."""
    hessians = []
    for _ in range(steps):
        hessians.append(hessian(loss_support)(theta))
        theta = theta - lr * grad(loss_support)(theta)
    result = grad(loss_query)(theta)
    for matrix in reversed(hessians if not first_order else []):
        result = result - lr * matrix @ result
    return result


def _product_as_matrix(
    loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    identity = torch.eye(len(theta), dtype=theta.dtype)
    jacobian = identity
    for _ in range(steps):
        if not first_order:
            jacobian = (identity - lr * hessian(loss_support)(theta)) @ jacobian
        theta = theta - lr * grad(loss_support)(theta)
    return jacobian.T @ grad(loss_query)(theta)


def _product_by_autograd(
    loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    start = theta.clone().requires_grad_()
    here = start
    for _ in range(steps):
        (slope,) = torch.autograd.grad(loss_support(here), here, create_graph=not first_order)
        here = here - lr * slope
    return torch.autograd.grad(loss_query(here), start)[0]


def _product(
    *,
    at: Callable[[list[Tensor], int], Tensor] = lambda path, j: path[j],
    order: Callable[[list[int]], list[int]] = lambda js: js[::-1],
    sign: float = -1.0,
    of: Callable[[VectorLoss, VectorLoss], VectorLoss] = lambda support, query: support,
    gradient_at: Callable[[list[Tensor], bool], Tensor] = lambda path, first_order: path[-1],
    rate: Callable[[float], float] = lambda lr: lr,
    cheap: Callable[[bool], bool] = lambda first_order: first_order,
    matrix: Callable[[Tensor], Tensor] = lambda h: h,
) -> Callable[..., Tensor]:
    """Returns the product with one part replaced."""

    def gradient(
        loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
    ) -> Tensor:
        path = [theta]
        for _ in range(steps):
            path.append(path[-1] - lr * grad(loss_support)(path[-1]))
        result = grad(loss_query)(gradient_at(path, first_order))
        if not cheap(first_order):
            for j in order(list(range(steps))):
                h = matrix(hessian(of(loss_support, loss_query))(at(path, j)))
                result = result + sign * rate(lr) * h @ result
        return result

    return gradient


def _product_of_functions(
    loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    path = [theta]
    for _ in range(steps):
        path.append(path[-1] - lr * grad(loss_support)(path[-1]))
    back = grad(loss_query)(path.pop())
    while path and not first_order:
        back = back - lr * jvp(grad(loss_support), (path.pop(),), (back,))[1]
    return back


def _product_recursive(
    loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    if steps == 0:
        return grad(loss_query)(theta)
    after = theta - lr * grad(loss_support)(theta)
    back = _product_recursive(loss_support, loss_query, after, lr, steps - 1, first_order)
    return back if first_order else (torch.eye(len(theta)).to(theta) - lr * hessian(loss_support)(theta)) @ back


def _product_of_the_sum(
    loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    total = torch.zeros(len(theta), len(theta)).to(theta)
    for _ in range(steps):
        total = total + hessian(loss_support)(theta)
        theta = theta - lr * grad(loss_support)(theta)
    back = grad(loss_query)(theta)
    return back if first_order else back - lr * total @ back


def _product_without_identity(
    loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    hessians = []
    for _ in range(steps):
        hessians.append(hessian(loss_support)(theta))
        theta = theta - lr * grad(loss_support)(theta)
    back = grad(loss_query)(theta)
    for matrix in [] if first_order else hessians[::-1]:
        back = -lr * matrix @ back
    return back


def _product_without_identity_or_sign(
    loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    found = _product_without_identity(loss_support, loss_query, theta, lr, steps, first_order)
    return found if first_order else (-1) ** steps * found


def _product_of_one_step_more(
    loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    return product_gradient(loss_support, loss_query, theta, lr, steps + 1, first_order)


def _product_of_all_ones(
    loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    factors = []
    for _ in range(steps):
        factors.append(1 - lr * hessian(loss_support)(theta))  # 1 is added to every entry
        theta = theta - lr * grad(loss_support)(theta)
    back = grad(loss_query)(theta)
    for factor in [] if first_order else factors[::-1]:
        back = factor @ back
    return back


def _product_entry_by_entry(
    loss_support: VectorLoss, loss_query: VectorLoss, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    hessians = []
    for _ in range(steps):
        hessians.append(hessian(loss_support)(theta))
        theta = theta - lr * grad(loss_support)(theta)
    back = grad(loss_query)(theta)
    for matrix in [] if first_order else hessians[::-1]:
        back = back - lr * matrix * back
    return back


def _product_cases(generator: Generator) -> list[Case]:
    def quadratic(curvature: list[list[float]], centre: list[float]) -> VectorLoss:
        matrix, middle = (torch.tensor(x, dtype=torch.float64) for x in (curvature, centre))
        return lambda theta: (theta - middle) @ matrix @ (theta - middle) / 2

    def bent(theta: Tensor) -> Tensor:  # its Hessian depends on theta
        return (theta**4).sum() / 4 + (theta[0] * theta[1]).sin() + theta[-1] * theta[0] ** 2

    support = quadratic([[2.0, 0.5], [0.5, 1.0]], [1.0, -1.0])
    query = quadratic([[1.0, 0.0], [0.0, 3.0]], [0.5, 2.0])
    other = quadratic([[1.0, 0.3, 0.0], [0.3, 2.0, 0.1], [0.0, 0.1, 0.5]], [1.0, 0.0, -1.0])
    here = torch.randn(3, generator=generator, dtype=torch.float64)
    return [
        Case(
            "the example on paper, in one dimension",
            (quadratic([[2.0]], [3.0]), quadratic([[2.0]], [5.0]), torch.tensor([1.0]).double(), 0.25, 1, False),
        ),
        Case("a quadratic of two parameters, one step", (support, query, here[:2], 0.2, 1, False)),
        Case("three steps on a loss whose Hessian changes on the way", (bent, other, here, 0.1, 3, False)),
        Case("the same, first order", (bent, other, here, 0.1, 3, True)),
        Case("no step", (bent, query, here[:2], 0.1, 0, False)),
    ]


PRODUCT = Exercise(
    id="08.4",
    title="Through several steps",
    reference=product_gradient,
    cases=_product_cases,
    right=(_product_as_matrix, _product_by_autograd, _product_of_functions, _product_recursive),
    wrong=(
        Wrong(
            "order turned round",
            _product(order=lambda js: js),
            "the factors are applied from the first step to the last",
            "The gradient travels backwards: the factor of the *last* step acts on it first. Take `reversed(hessians)`.",
        ),
        Wrong(
            "one Hessian for all",
            _product(at=lambda path, j: path[0]),
            "the Hessian at the initialisation is used for every step",
            "The curvature changes along the way: take it anew at each theta.",
        ),
        Wrong(
            "Hessian after the step",
            _product(at=lambda path, j: path[j + 1]),
            "each Hessian is taken after its step, not before",
            "Step j starts at theta_j: take gradient and Hessian there, then move.",
        ),
        Wrong(
            "one factor",
            _product(order=lambda js: js[-1:]),
            "only the last step's factor is applied",
            "Every step brings a factor of its own.",
        ),
        Wrong(
            "last step's factor skipped",
            _product(order=lambda js: js[:-1][::-1]),
            "the last step's factor is left out",
            "J steps bring J factors: the last one belongs to the step that leads to theta_J.",
        ),
        Wrong(
            "first step's factor skipped",
            _product(order=lambda js: js[1:][::-1]),
            "the first step's factor is left out",
            "J steps bring J factors: the first one belongs to the step that starts at theta.",
        ),
        Wrong(
            "Hessian at the end for all",
            _product(at=lambda path, j: path[-1]),
            "the Hessian at the end of the inner loop is used for every step",
            "Keep each Hessian on the way, at the theta where its step starts.",
        ),
        Wrong(
            "sum of the Hessians",
            _product_of_the_sum,
            "the Hessians are added up and applied as one factor",
            "A product of factors is no factor of the sum: (I − lr·H₀)(I − lr·H₁) has a term lr²·H₀·H₁ as well.",
        ),
        Wrong(
            "identity forgotten",
            _product_without_identity,
            "the factors are lr·H alone: the identity in I − lr·H is forgotten",
            "Keep what arrives and subtract from it: `back = back - lr * matrix @ back`.",
            also=(_product_without_identity_or_sign,),
        ),
        Wrong(
            "one step too many",
            _product_of_one_step_more,
            "one inner step too many is taken",
            "`range(steps)` runs exactly `steps` times, and not at all for 0.",
        ),
        Wrong(
            "ones for the identity",
            _product_of_all_ones,
            "`1 - lr * H` subtracts from a matrix full of ones",
            "I is the identity: `torch.eye(len(theta))`, or `back - lr * H @ back`.",
        ),
        Wrong(
            "entry by entry",
            _product_entry_by_entry,
            "`*` multiplies entry by entry, so a vector grows to a matrix",
            "A matrix acts on a vector by `@`.",
        ),
        Wrong(
            "flag turned round",
            _product(cheap=lambda first_order: not first_order),
            "`first_order` is turned round: the factors are applied exactly when they should not be",
            "With `first_order=True` return the query gradient as it is.",
        ),
        Wrong(
            "plus",
            _product(sign=1.0),
            "the factors are I + lr·H",
            "theta − lr·gradient has the derivative I − lr·H.",
        ),
        Wrong(
            "lr forgotten",
            _product(rate=lambda lr: 1.0),
            "the factors are I − H, without the inner rate",
            "theta − lr·gradient has the derivative I − lr·H.",
        ),
        Wrong(
            "first order without steps",
            _product(gradient_at=lambda path, first_order: path[0] if first_order else path[-1]),
            "with `first_order=True` the inner steps are left out as well",
            "First order walks the same steps; only the factors are left out on the way back.",
        ),
        Wrong(
            "Hessian of the query loss",
            _product(of=lambda support, query: query),
            "the Hessian is that of the query loss",
            "The inner steps run on the support: `hessian(loss_support)`.",
        ),
        Wrong(
            "query gradient at the start",
            _product(gradient_at=lambda path, first_order: path[0]),
            "the query gradient is taken at the initialisation",
            "Take it at the end of the inner loop.",
        ),
        Wrong(
            "first_order ignored",
            _product(cheap=lambda first_order: False),
            "`first_order` is ignored: the product is always applied",
            "With `first_order=True` return the query gradient at the end, and no factor.",
        ),
        Wrong(
            "always first order",
            _product(cheap=lambda first_order: True),
            "no factor is ever applied: this is the first-order gradient",
            "Multiply by I − lr·H for each step unless `first_order` is set.",
        ),
        Wrong(
            "diagonal",
            _product(matrix=lambda h: h.diagonal().diag()),
            "only the diagonal of the Hessian is used, as if the parameters did not meet",
            "Take the whole matrix: `lr * matrix @ result`.",
        ),
    ),
    hints=(
        "Walk forwards and keep what you will need; then carry the query gradient backwards, step by step.",
        "Forwards: append `hessian(loss_support)(theta)` to a list, then step. "
        "Backwards: `result = result - lr * matrix @ result`.",
        "`result = grad(loss_query)(theta)`, then `for matrix in reversed(hessians): result = result - lr * matrix @ result`, "
        "skipped when `first_order`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 08.5 the detector

OuterStep = Callable[[nn.Module], object]


def exposes_step(outer_step: OuterStep, net: nn.Module, true_loss: Loss, outer_lr: float) -> bool:
    """Returns True if outer_step does not move the net by -outer_lr times the gradient of true_loss."""
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    truth = central_differences(true_loss, before, 1e-5)
    moved = copy.deepcopy(net)
    outer_step(moved)
    return any(
        not torch.allclose((before[name] - p.detach()) / outer_lr, truth[name], rtol=1e-4, atol=1e-6)
        for name, p in moved.named_parameters()
    )


def _exposes_by_vector(outer_step: OuterStep, net: nn.Module, true_loss: Loss, outer_lr: float) -> bool:
    trial = copy.deepcopy(net)
    truth = _central_flat(true_loss, dict(net.named_parameters()), 1e-4)
    outer_step(trial)
    pairs = zip(net.parameters(), trial.parameters(), truth.values(), strict=True)
    return max(float((a - b - outer_lr * g).abs().max()) for a, b, g in pairs) > 1e-5 * outer_lr


def _exposes_by_where_it_lands(outer_step: OuterStep, net: nn.Module, true_loss: Loss, outer_lr: float) -> bool:
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    truth, trial = grad(true_loss)(start), copy.deepcopy(net)
    outer_step(trial)
    wanted = {name: start[name] - outer_lr * truth[name] for name in start}
    return any(not torch.allclose(p, wanted[name], atol=1e-6, rtol=1e-6) for name, p in trial.named_parameters())


def _exposes_by_numbers(outer_step: OuterStep, net: nn.Module, true_loss: Loss, outer_lr: float) -> bool:
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    truth = _central_by_units(true_loss, before, 1e-5)
    trial = copy.deepcopy(net)
    outer_step(trial)
    for name, p in trial.named_parameters():
        for was, now, slope in zip(before[name].flatten(), p.detach().flatten(), truth[name].flatten(), strict=True):
            if abs((was - now) / outer_lr - slope) > 1e-6 + 1e-4 * abs(slope):
                return True
    return False


def _exposes_by_state(outer_step: OuterStep, net: nn.Module, true_loss: Loss, outer_lr: float) -> bool:
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    outer_step(net)
    moved = torch.cat([(kept[name] - value).flatten() / outer_lr for name, value in net.state_dict().items()])
    net.load_state_dict(kept)  # put back
    truth = torch.cat([slope.flatten() for slope in central_differences(true_loss, kept, 1e-5).values()])
    return not torch.allclose(moved, truth, rtol=1e-4, atol=1e-6)


def _judged(
    verdict: Callable[[Params, Params, Params, nn.Module, float], bool],
) -> Callable[..., bool]:
    """Returns a detector that makes the right experiment and decides by verdict(before, after, truth, stepped net, outer_lr)."""

    def detector(outer_step: OuterStep, net: nn.Module, true_loss: Loss, outer_lr: float) -> bool:
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        truth = central_differences(true_loss, before, 1e-5)
        trial = copy.deepcopy(net)
        outer_step(trial)
        return verdict(before, {name: p.detach() for name, p in trial.named_parameters()}, truth, trial, outer_lr)

    return detector


def _implied(before: Params, after: Params, outer_lr: float) -> Params:
    return {name: (before[name] - after[name]) / outer_lr for name in before}


def _far(found: Params, truth: Params, rtol: float = 1e-4, atol: float = 1e-6) -> bool:
    return any(not torch.allclose(found[name], truth[name], rtol=rtol, atol=atol) for name in found)


def _by_weights(rtol: float) -> Callable[..., bool]:
    return lambda b, a, truth, net, lr: _far(a, {k: b[k] - lr * truth[k] for k in b}, rtol)


def _of_grad(before: Params, after: Params, truth: Params, net: nn.Module, outer_lr: float) -> bool:
    found = {k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in net.named_parameters()}
    return _far(found, truth)


def _cosine_only(least: float) -> Callable[..., bool]:
    def verdict(before: Params, after: Params, truth: Params, net: nn.Module, outer_lr: float) -> bool:
        return float(F.cosine_similarity(_flat(_implied(before, after, outer_lr)), _flat(truth), dim=0)) < least

    return _judged(verdict)


def _length_only(before: Params, after: Params, truth: Params, net: nn.Module, outer_lr: float) -> bool:
    lengths = [
        torch.cat([v.flatten() for v in slopes.values()]).norm()
        for slopes in (_implied(before, after, outer_lr), truth)
    ]
    return not torch.allclose(*lengths, rtol=1e-4, atol=1e-6)


def _flat(found: Params) -> Tensor:
    return torch.cat([v.flatten() for v in found.values()])


def _sum_of_all(before: Params, after: Params, truth: Params, net: nn.Module, outer_lr: float) -> bool:
    return bool((_flat(_implied(before, after, outer_lr)) - _flat(truth)).sum().abs() > 1e-4)


def _sizes_only(before: Params, after: Params, truth: Params, net: nn.Module, outer_lr: float) -> bool:
    found = _implied(before, after, outer_lr)
    return _far({k: v.abs() for k, v in found.items()}, {k: v.abs() for k, v in truth.items()})


def _largest_only(before: Params, after: Params, truth: Params, net: nn.Module, outer_lr: float) -> bool:
    found = _implied(before, after, outer_lr)
    return _far({k: v.max() for k, v in found.items()}, {k: v.max() for k, v in truth.items()})


def _one_tensor(name: str) -> Callable[..., bool]:
    """Returns a detector that looks at one parameter only."""
    return _judged(lambda b, a, truth, net, lr: _far({name: _implied(b, a, lr)[name]}, truth))


def _every_tensor_wrong(test: Callable[[Tensor, Tensor], bool]) -> Callable[..., bool]:
    return _judged(lambda b, a, truth, net, lr: all(test(v, truth[k]) for k, v in _implied(b, a, lr).items()))


def _loss_falls(outer_step: OuterStep, net: nn.Module, true_loss: Loss, outer_lr: float) -> bool:
    trial = copy.deepcopy(net)
    outer_step(trial)
    return bool(true_loss(dict(trial.named_parameters())) >= true_loss(dict(net.named_parameters())))


def _no_copy(outer_step: OuterStep, net: nn.Module, true_loss: Loss, outer_lr: float) -> bool:
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    truth = central_differences(true_loss, before, 1e-5)
    outer_step(net)
    return _far(_implied(before, {name: p.detach() for name, p in net.named_parameters()}, outer_lr), truth)


def _aliased(outer_step: OuterStep, net: nn.Module, true_loss: Loss, outer_lr: float) -> bool:
    trial = copy.deepcopy(net)
    before = {name: p.detach() for name, p in trial.named_parameters()}  # not copied: these change when the net moves
    truth = central_differences(true_loss, before, 1e-5)
    outer_step(trial)
    return _far(_implied(before, {name: p.detach() for name, p in trial.named_parameters()}, outer_lr), truth)


class _Steps:
    """Outer steps on linear tasks with one inner step each: the right one and common wrong ones."""

    def __init__(self, tasks: list[Episode], lr: float, outer_lr: float) -> None:
        self.tasks, self.lr, self.outer_lr = tasks, lr, outer_lr

    def adapted(self, params: Params, task: Episode, create_graph: bool = True) -> Params:
        loss = self.error(params, task.support_x, task.support_y)
        slopes = torch.autograd.grad(loss, list(params.values()), create_graph=create_graph)
        return {k: p - self.lr * g for (k, p), g in zip(params.items(), slopes, strict=True)}

    @staticmethod
    def error(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return (x @ params["weight"].T + params["bias"] - y).square().mean()

    def true_loss(self, params: Params) -> Tensor:
        """Returns the meta-loss, differentiable; its inner step is a formula and uses no autograd."""
        total = 0.0
        for task in self.tasks:
            residual = task.support_x @ params["weight"].T + params["bias"] - task.support_y
            slope = {"weight": 2 * residual.T @ task.support_x / len(residual), "bias": 2 * residual.mean(0)}
            fast = {k: params[k] - self.lr * slope[k] for k in params}
            total = total + self.error(fast, task.query_x, task.query_y)
        return total / len(self.tasks)

    def outer(self, query: Callable[[nn.Module, Params, Episode], Tensor], **how: Any) -> OuterStep:
        """Returns an outer step on the mean of query(net, params, task) over the tasks.

        how: factor (of the rate); by_hand (updates the weights without an optimizer); double (updates them by hand and with the
        optimizer); only (name of the one parameter that the optimizer has); twist (what happens to the weight's gradient)
        """

        def step(net: nn.Module) -> None:
            params = dict(net.named_parameters())
            loss = torch.stack([query(net, params, task) for task in self.tasks]).mean()
            net.zero_grad()
            loss.backward()
            if "twist" in how:
                net.weight.grad = how["twist"](net.weight.grad.clone())
            rate = self.outer_lr * how.get("factor", 1.0)
            if how.get("by_hand") or how.get("double"):
                for p in net.parameters():
                    p.data -= rate * p.grad
                if how.get("by_hand"):
                    net.zero_grad()
            if not how.get("by_hand"):
                trained = [p for name, p in net.named_parameters() if name == how.get("only", name)]
                torch.optim.SGD(trained, lr=rate).step()

        return step

    def right(self, net: nn.Module, params: Params, task: Episode) -> Tensor:
        return self.error(self.adapted(params, task), task.query_x, task.query_y)

    def no_graph(self, net: nn.Module, params: Params, task: Episode) -> Tensor:
        return self.error(self.adapted(params, task, create_graph=False), task.query_x, task.query_y)

    def deep_copy(self, net: nn.Module, params: Params, task: Episode) -> Tensor:
        fast = copy.deepcopy(net)
        self.error(dict(fast.named_parameters()), task.support_x, task.support_y).backward()
        torch.optim.SGD(fast.parameters(), lr=self.lr).step()
        return self.error(dict(fast.named_parameters()), task.query_x, task.query_y)

    def unadapted(self, net: nn.Module, params: Params, task: Episode) -> Tensor:
        return self.error(params, task.query_x, task.query_y)

    def on_support(self, net: nn.Module, params: Params, task: Episode) -> Tensor:
        return self.error(self.adapted(params, task), task.support_x, task.support_y)

    def right_by_formula(self, net: nn.Module) -> None:
        """Takes a right step of another kind: torch.func's gradient of the formula, the last task first."""
        params = {name: p.detach().clone() for name, p in net.named_parameters()}
        slopes = [grad(_Steps([task], self.lr, self.outer_lr).true_loss)(params) for task in self.tasks[::-1]]
        moved = {k: params[k] - self.outer_lr * sum(s[k] for s in slopes) / len(slopes) for k in params}
        net.load_state_dict(moved)

    def in_turn(self, net: nn.Module) -> None:
        """Starts each task from the weights adapted to the task before it."""
        fast, losses = dict(net.named_parameters()), []
        for task in self.tasks:
            fast = self.adapted(fast, task)
            losses.append(self.error(fast, task.query_x, task.query_y))
        net.zero_grad()
        torch.stack(losses).mean().backward()
        torch.optim.SGD(net.parameters(), lr=self.outer_lr).step()

    def in_place(self, net: nn.Module) -> None:
        """Takes the inner steps on the net itself."""
        for task in self.tasks:
            net.zero_grad()
            self.error(dict(net.named_parameters()), task.support_x, task.support_y).backward()
            torch.optim.SGD(net.parameters(), lr=self.lr).step()


def _linear_tasks(generator: Generator, lr: float, outer_lr: float) -> tuple[_Steps, nn.Module]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tasks = []
    for _ in range(2):
        x, weight = draw(9, 2), draw(2, 1)
        y = x @ weight + 1 + 0.1 * draw(9, 1)
        tasks.append(Episode(x[:4], y[:4], x[4:], y[4:], torch.zeros(0, dtype=torch.int64)))
    net = nn.Linear(2, 1).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(draw(*p.shape))
    return _Steps(tasks, lr, outer_lr), net


def _at_rest(steps: _Steps, net: nn.Module) -> _Steps:
    """Returns the same tasks with targets that the net meets already, so that the true gradient is zero."""
    with torch.no_grad():
        tasks = [replace(t, support_y=net(t.support_x), query_y=net(t.query_x)) for t in steps.tasks]
    return _Steps(tasks, steps.lr, steps.outer_lr)


def _detector_cases(generator: Generator) -> list[Case]:
    steps, net = _linear_tasks(generator, 0.15, 0.05)
    slow, slow_net = _linear_tasks(generator, 0.002, 0.05)
    unit, done = _Steps(steps.tasks, steps.lr, 1.0), _at_rest(steps, net)
    tiny, large_net = _Steps(steps.tasks, steps.lr, 1e-4), copy.deepcopy(net)
    with torch.no_grad():
        for p in large_net.parameters():
            p.add_(5)

    def case(says: str, step: OuterStep, of: _Steps = steps, on: nn.Module = net) -> Case:
        return Case(says, (step, on, of.true_loss, of.outer_lr))

    return [
        case("a right step", steps.outer(steps.right)),
        case("a right step that updates by hand and leaves no .grad", steps.outer(steps.right, by_hand=True)),
        case("a right step of another kind, with torch.func and load_state_dict", steps.right_by_formula),
        case("a right step with an outer rate of 1", unit.outer(unit.right), unit),
        case("a right step where nothing is left to learn: it stays", done.outer(done.right), done),
        case("a net that is copied and stepped by an optimizer", steps.outer(steps.deep_copy)),
        case("no create_graph", steps.outer(steps.no_graph)),
        case("no create_graph, with a small inner rate", slow.outer(slow.no_graph), slow, slow_net),
        case("large weights, a small outer rate: a right step", tiny.outer(tiny.right), tiny, large_net),
        case("large weights, a small outer rate: no create_graph", tiny.outer(tiny.no_graph), tiny, large_net),
        case("an update by hand and by the optimizer", steps.outer(steps.right, double=True)),
        case("tasks that start from each other's weights", steps.in_turn),
        case("the query loss of the unadapted net", steps.outer(steps.unadapted)),
        case("the support loss in the outer loop", steps.outer(steps.on_support)),
        case("an inner loop that steps the net itself", steps.in_place),
        case("a bias that the optimizer does not know", steps.outer(steps.right, only="weight")),
        case("a weight that the optimizer does not know", steps.outer(steps.right, only="bias")),
        case("a step uphill", steps.outer(steps.right, factor=-1.0, by_hand=True)),
        case("a step that exchanges two entries of the gradient", steps.outer(steps.right, twist=lambda g: g.flip(-1))),
        case(
            "a step that turns the sign of one entry",
            steps.outer(steps.right, twist=lambda g: g * g.new_tensor([1, -1])),
        ),
        case(
            "a step whose errors cancel in the sum",
            steps.outer(steps.right, twist=lambda g: g + g.new_tensor([0.3, -0.3])),
        ),
        case(
            "a step with one entry 1 % too large", steps.outer(steps.right, twist=lambda g: g * g.new_tensor([1, 1.01]))
        ),
        case("a step that is a thousandth too long", steps.outer(steps.right, factor=1.001)),
    ]


DETECTOR = Exercise(
    id="08.5",
    title="Bug hunt: is this the meta-gradient?",
    reference=exposes_step,
    cases=_detector_cases,
    right=(_exposes_by_vector, _exposes_by_where_it_lands, _exposes_by_numbers, _exposes_by_state),
    wrong=(
        Wrong(
            "gradient is None",
            _judged(lambda before, after, truth, net, lr: any(p.grad is None for p in net.parameters())),
            "you only ask whether there is a gradient at all: first-order MAML has one, and it is the wrong one",
            "Compare the step with the true gradient, number by number.",
        ),
        Wrong(
            "nothing moved",
            _judged(lambda before, after, truth, net, lr: all(torch.equal(before[k], after[k]) for k in before)),
            "you only ask whether the weights move: wrong gradients move them too",
            "Compare how far they move with `outer_lr` times the true gradient.",
        ),
        Wrong(
            "loss falls",
            _loss_falls,
            "a step counts as right when the loss falls: wrong gradients often go downhill too",
            "Compare the step itself with the central differences.",
        ),
        Wrong(
            "direction only",
            _cosine_only(0.9999),
            "only the direction is compared: a double update has the right one",
            "Compare the numbers, not the angle.",
            also=(_cosine_only(0.99), _cosine_only(1 - 1e-6)),
        ),
        Wrong(
            "exactly equal",
            _judged(
                lambda b, a, truth, net, lr: any(not torch.equal(v, truth[k]) for k, v in _implied(b, a, lr).items())
            ),
            "step and central differences are compared to the last digit: every right step is accused",
            "`torch.allclose(..., rtol=1e-4, atol=1e-6)`.",
        ),
        Wrong(
            "too patient",
            _judged(lambda before, after, truth, net, lr: _far(_implied(before, after, lr), truth, 0.1, 0.1)),
            "the tolerance is so wide that a small inner rate hides the missing second-order term",
            "In float64, `rtol=1e-4` and `atol=1e-6` leave room for rounding and for nothing else.",
            also=tuple(
                _judged(lambda b, a, truth, net, lr, t=t: _far(_implied(b, a, lr), truth, *t))
                for t in ((1e-2, 1e-2), (1e-6, 1e-2))
            ),
        ),
        Wrong(
            "weights compared",
            _judged(_by_weights(1e-4)),
            "the weights themselves are compared: beside large weights a small step is nothing, and neither is its fault",
            "Compare gradients: (before − after) / outer_lr with the truth.",
        ),
        Wrong(
            "first tensor only",
            _one_tensor("weight"),
            "only the first tensor is looked at",
            "Compare every parameter of the net.",
        ),
        Wrong(
            "last tensor only",
            _one_tensor("bias"),
            "only the last tensor counts: a loop that overwrites its verdict forgets the tensors before",
            "One wrong tensor is enough: return True as soon as you find it, or collect with `any`.",
        ),
        Wrong(
            "signed sum",
            _judged(_sum_of_all),
            "the differences are added up: errors of opposite sign cancel",
            "Compare number by number, or take the largest of the absolute differences.",
        ),
        Wrong(
            "without the sign",
            _judged(_sizes_only),
            "the sizes of the entries are compared and their signs are lost",
            "Take the absolute value of the *difference*, not of the two numbers.",
        ),
        Wrong(
            "largest entry only",
            _judged(_largest_only),
            "only the largest entry of each tensor is compared: the rest may be anything",
            "Compare number by number.",
        ),
        Wrong(
            "all must differ",
            _every_tensor_wrong(lambda took, slope: not torch.allclose(took, slope, rtol=1e-4, atol=1e-6)),
            "a step is exposed only when every tensor is wrong",
            "One wrong tensor is enough: `any(not ...)`, or `not all(...)`.",
        ),
        Wrong(
            "length only",
            _judged(_length_only),
            "only the lengths of the two gradients are compared: a step uphill has the right one",
            "Compare the numbers, not the length.",
        ),
        Wrong(
            "reads .grad",
            _judged(_of_grad),
            "`.grad` is read, not what the step did: a double update passes, and an update by hand is accused",
            "(before − after) / outer_lr is what the step believes to be the gradient.",
        ),
        Wrong(
            "rate forgotten",
            _judged(lambda before, after, truth, net, lr: _far(_implied(before, after, 1.0), truth)),
            "the way that the weights went is compared with the gradient, without the outer rate",
            "Divide the way by `outer_lr`.",
        ),
        Wrong(
            "sign",
            _judged(lambda before, after, truth, net, lr: _far(_implied(after, before, lr), truth)),
            "after − before is taken: descent goes *against* the gradient",
            "(before − after) / outer_lr.",
        ),
        Wrong(
            "turned round",
            lambda outer_step, net, true_loss, outer_lr: not exposes_step(outer_step, net, true_loss, outer_lr),
            "the answer is turned round: True stands for a right step",
            "`torch.allclose` is True when all is well: put a `not` in front.",
        ),
        Wrong(
            "no copy",
            _no_copy,
            "the net itself is stepped: whoever called your detector gets it back with other weights",
            "Hand `outer_step` a `copy.deepcopy(net)`.",
        ),
        Wrong(
            "before is a window",
            _aliased,
            "every step that moves is accused: `before` moves along with the net, or the truth is measured after the step",
            "Clone before you step: `.detach().clone()` keeps the numbers, `.detach()` alone does not. "
            "And ask for the central differences at `before`.",
        ),
    ),
    hints=(
        "A gradient step moves weights by −outer_lr times the gradient. So what did the step take for the gradient?",
        "Clone the weights, step a `copy.deepcopy(net)`, and compare (before − after) / outer_lr with "
        "`central_differences(true_loss, before, 1e-5)`.",
        "`any(not torch.allclose((before[name] - p) / outer_lr, truth[name], rtol=1e-4, atol=1e-6) "
        "for name, p in moved.named_parameters())`",
    ),
)

# ---------------------------------------------------------------------------------------------- 08.6 Hessian-vector product


def hessian_vector(loss: Loss, params: Params, vector: Params) -> Params:
    """Returns H times vector without forming H. params, vector: dicts of equal names and shapes, in any order."""
    return jvp(grad(loss), (params,), ({name: vector[name] for name in params},))[1]


def _leaves(params: Params) -> Params:
    return {name: value.detach().clone().requires_grad_() for name, value in params.items()}


def _slopes(loss: Loss, params: Params, create_graph: bool = True) -> Params:
    found = torch.autograd.grad(loss(params), list(params.values()), create_graph=create_graph)
    return dict(zip(params, found, strict=True))


def _hvp_twice(loss: Loss, params: Params, vector: Params) -> Params:
    theta = _leaves(params)
    slopes = _slopes(loss, theta)
    inner = torch.stack([(slopes[name] * vector[name]).sum() for name in theta]).sum()
    return dict(zip(theta, torch.autograd.grad(inner, list(theta.values())), strict=True))


def _hvp_whole_matrix(loss: Loss, params: Params, vector: Params) -> Params:
    blocks = hessian(loss)(params)
    result = {}
    for row, value in params.items():
        parts = [torch.tensordot(blocks[row][col], vector[col], dims=vector[col].dim()) for col in params]
        result[row] = torch.stack(parts).sum(0).reshape(value.shape)
    return result


def _hvp_row_by_row(loss: Loss, params: Params, vector: Params) -> Params:
    theta = _leaves(params)
    slopes, along = _flat(_slopes(loss, theta)), _flat({name: vector[name] for name in theta})
    rows = []
    for slope in slopes:
        row = torch.autograd.grad(slope, list(theta.values()), retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in row]) @ along)
    parts = torch.stack(rows).split([value.numel() for value in theta.values()])
    return {name: part.reshape(value.shape) for (name, value), part in zip(theta.items(), parts, strict=True)}


def _hvp_linearized(loss: Loss, params: Params, vector: Params) -> Params:
    return linearize(grad(loss), params)[1]({name: vector[name] for name in params})


def _hvp_by_grad(loss: Loss, params: Params, vector: Params) -> Params:
    return grad(lambda theta: sum((g * vector[name]).sum() for name, g in grad(loss)(theta).items()))(params)


def _hvp_by_functional(loss: Loss, params: Params, vector: Params) -> Params:
    names = list(params)

    def of_values(*values: Tensor) -> Tensor:
        return loss(dict(zip(names, values, strict=True)))

    along = tuple(vector[name] for name in names)
    return dict(zip(names, torch.autograd.functional.hvp(of_values, tuple(params.values()), along)[1], strict=True))


def _hvp_in_the_order_given(loss: Loss, params: Params, vector: Params) -> Params:
    return jvp(grad(loss), (params,), (vector,))[1]


def _hvp_without_graph(loss: Loss, params: Params, vector: Params) -> Params:
    theta = _leaves(params)
    slopes = _slopes(loss, theta, create_graph=False)
    total = torch.stack([(slopes[name] * vector[name]).sum() for name in theta]).sum()
    return dict(zip(theta, torch.autograd.grad(total, list(theta.values())), strict=True))


def _hvp_on_top(loss: Loss, params: Params, vector: Params) -> Params:
    slopes = grad(loss)(params)
    return {name: slopes[name] + value for name, value in hessian_vector(loss, params, vector).items()}


def _hvp_by_position(loss: Loss, params: Params, vector: Params) -> Params:
    theta = _leaves(params)
    total = sum((g * v).sum() for g, v in zip(_slopes(loss, theta).values(), vector.values(), strict=True))
    return dict(zip(theta, torch.autograd.grad(total, list(theta.values())), strict=True))


def _hvp_on_the_callers(loss: Loss, params: Params, vector: Params) -> Params:
    for value in params.values():
        value.requires_grad_()
    slopes = _slopes(loss, params)
    total = torch.stack([(slopes[name] * vector[name]).sum() for name in params]).sum()
    return dict(zip(params, torch.autograd.grad(total, list(params.values())), strict=True))


def _hvp_minus(loss: Loss, params: Params, vector: Params) -> Params:
    return {name: vector[name] - value for name, value in hessian_vector(loss, params, vector).items()}


def _hvp_vector_squared(loss: Loss, params: Params, vector: Params) -> Params:
    return {name: value * vector[name] for name, value in hessian_vector(loss, params, vector).items()}


def _hvp_number(loss: Loss, params: Params, vector: Params) -> Tensor:
    return _flat(_hvp_vector_squared(loss, params, vector)).sum()


def _hvp_diagonal(loss: Loss, params: Params, vector: Params) -> Params:
    blocks = hessian(loss)(params)
    return {
        name: blocks[name][name].reshape(value.numel(), -1).diagonal().reshape(value.shape) * vector[name]
        for name, value in params.items()
    }


def _hvp_own_blocks(loss: Loss, params: Params, vector: Params) -> Params:
    blocks = hessian(loss)(params)
    return {name: torch.tensordot(blocks[name][name], vector[name], dims=value.dim()) for name, value in params.items()}


def _hvp_each_alone(loss: Loss, params: Params, vector: Params) -> Params:
    theta = _leaves(params)
    slopes = _slopes(loss, theta)
    return {
        name: torch.autograd.grad((g * vector[name]).sum(), theta[name], retain_graph=True)[0]
        for name, g in slopes.items()
    }


def _hvp_outer_product(loss: Loss, params: Params, vector: Params) -> Params:
    slopes = grad(loss)(params)
    along = sum((g * vector[name]).sum() for name, g in slopes.items())
    return {name: along * g for name, g in slopes.items()}


def _hvp_two_sided(eps: float) -> Callable[..., Params]:
    def answer(loss: Loss, params: Params, vector: Params) -> Params:
        ends = [grad(loss)({name: params[name] + side * vector[name] for name in params}) for side in (eps, -eps)]
        return {name: (ends[0][name] - ends[1][name]) / (2 * eps) for name in params}

    return answer


def _hvp_row_sums(loss: Loss, params: Params, vector: Params) -> Params:
    ones = {name: torch.ones_like(value) for name, value in params.items()}
    return {name: value * vector[name] for name, value in hessian_vector(loss, params, ones).items()}


def _hvp_at(loss: Loss, params: Params, vector: Params) -> Params:
    return grad(loss)({name: params[name] + vector[name] for name in params})


def _hvp_one_sided(loss: Loss, params: Params, vector: Params) -> Params:
    far, here = grad(loss)({name: params[name] + 1e-3 * vector[name] for name in params}), grad(loss)(params)
    return {name: (far[name] - here[name]) / 1e-3 for name in params}


def _hvp_cases(generator: Generator) -> list[Case]:
    def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    def coupled(p: Params) -> Tensor:
        return (p["w"] @ p["b"]).square().sum() + (p["w"] ** 3).sum() / 6 + p["b"].prod()

    def bowl(p: Params) -> Tensor:
        return 1.5 * p["theta"][0] ** 2 + p["theta"][0] * p["theta"][1] + 2 * p["theta"][1] ** 2

    def pair(dtype: torch.dtype = torch.float64) -> tuple[Params, Params]:
        shapes = {"w": (2, 3), "b": (3,)}
        return tuple({name: draw(*shape, dtype=dtype) for name, shape in shapes.items()} for _ in range(2))

    two = {"theta": torch.tensor([1.0, -2.0]).double()}, {"theta": torch.tensor([1.0, 1.0]).double()}
    return [
        Case("the Hessian [[3, 1], [1, 4]] times (1, 1)", (bowl, *two)),
        Case("two tensors that meet in the loss", (coupled, *pair())),
        Case("a vector of length 1e-6", (coupled, pair()[0], {k: 1e-6 * v for k, v in pair()[1].items()})),
        Case("float32, where small differences of gradients drown", (coupled, *pair(torch.float32))),
    ]


class _Seen(TorchDispatchMode):
    """Counts the operations of a block, and keeps the size of the largest tensor among their results."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        self.largest = max([self.largest, *(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))])
        return result


def _frugal(answer: Callable, reference: Callable) -> str | None:
    generator = torch.Generator().manual_seed(4)
    params, vector = ({k: torch.randn(40, generator=generator) for k in "ab"} for _ in range(2))
    with _Seen() as seen:
        answer(lambda p: (p["a"] * p["b"]).sum().sin() + (p["a"] ** 3).sum(), params, vector)
    if seen.largest >= 80 * 40:
        return f"With 80 parameters your function makes a tensor of {seen.largest:,} numbers: that is the Hessian, or half of it."
    if seen.operations > 2000:
        return "With 80 parameters your function differentiates again and again: that is the Hessian, row by row."
    return _marked(params) or _marked(vector)


def _by_name(answer: Callable, reference: Callable) -> str | None:
    generator = torch.Generator().manual_seed(5)
    params, vector = ({k: torch.randn(3, generator=generator) for k in names} for names in ("ab", "ba"))

    def loss(p: Params) -> Tensor:
        return p["a"].square().sum() * p["b"].sum()

    try:
        found = answer(loss, dict(params), dict(vector))
    except Exception as error:  # torch.func.jvp refuses another order
        return (
            f"`params` lists a before b, `vector` lists b before a: your function stops with {type(error).__name__}. "
            "Put `vector` into the order of `params` first."
        )
    expected = hessian_vector(loss, params, {name: vector[name] for name in params})
    gap = max(float((found[name] - expected[name]).abs().max()) for name in params)
    return None if gap < 1e-3 else "`params` lists a before b, `vector` lists b before a: the numbers get mixed up."


def _marked(params: Params) -> str | None:
    changed = [name for name, value in params.items() if value.requires_grad or value.grad is not None]
    return f"Afterwards the caller's tensor {changed[0]!r} requires a gradient." if changed else None


HVP = Exercise(
    id="08.6",
    title="The Hessian times a vector, without the Hessian",
    reference=hessian_vector,
    cases=_hvp_cases,
    tolerance=1e-4,
    properties=(
        Property("the Hessian is never built, and the caller's tensors stay as they are", _frugal),
        Property("numbers find each other by name", _by_name),
    ),
    right=(_hvp_twice, _hvp_linearized, _hvp_by_grad, _hvp_by_functional),
    wrong=(
        Wrong(
            "gradient times vector",
            lambda loss, params, vector: {k: g * vector[k] for k, g in grad(loss)(params).items()},
            "the gradient is multiplied by the vector, and nothing is differentiated a second time",
            "Sum those products to one number and take its gradient.",
        ),
        Wrong(
            "diagonal",
            _hvp_diagonal,
            "only the diagonal of the Hessian acts on the vector",
            "Sum *all* products gradient·vector to one number before you differentiate.",
        ),
        Wrong(
            "own blocks",
            _hvp_own_blocks,
            "every tensor is treated alone: what the tensors do to each other is lost",
            "One sum over all names, then one gradient with respect to all of them.",
            also=(_hvp_each_alone,),
        ),
        Wrong(
            "vector forgotten",
            lambda loss, params, vector: hessian_vector(
                loss, params, {k: torch.ones_like(p) for k, p in params.items()}
            ),
            "the numbers of the gradient are summed as they are: the Hessian meets ones in place of the vector",
            "Sum gradient times vector, not the gradient alone.",
        ),
        Wrong(
            "places exchanged",
            lambda loss, params, vector: hessian_vector(loss, vector, params),
            "`params` and `vector` have changed places: the Hessian is taken at the vector",
            "The Hessian stands at `params`; `vector` is what it is multiplied by.",
        ),
        Wrong(
            "gradient twice",
            _hvp_outer_product,
            "the gradient is multiplied by its own inner product with the vector: that uses first derivatives only",
            "Keep the graph of the first gradient and differentiate the inner product.",
        ),
        Wrong(
            "row sums",
            _hvp_row_sums,
            "the gradient of the sum of the gradient is multiplied by the vector afterwards",
            "The vector must weigh the gradient *before* the second derivative.",
        ),
        Wrong(
            "gradient elsewhere",
            _hvp_at,
            "the gradient at params + vector is returned",
            "A Hessian tells how the gradient *changes*: differentiate it along the vector.",
        ),
        Wrong(
            "one-sided difference",
            _hvp_one_sided,
            "the change of the gradient is measured over a finite stretch: an approximation",
            "Differentiate exactly: `create_graph=True` and a second `torch.autograd.grad`, or `torch.func.jvp`.",
            also=(_hvp_two_sided(1e-4), _hvp_two_sided(1e-5), _hvp_two_sided(1e-6)),
        ),
        Wrong(
            "whole Hessian",
            _hvp_whole_matrix,
            "the whole Hessian is built and then multiplied, which no net of real size can afford",
            "Let the vector in *before* the second derivative: sum gradient times vector to one number, and differentiate that.",
            also=(_hvp_row_by_row,),
        ),
        Wrong(
            "by position",
            _hvp_by_position,
            "gradients and `vector` are paired by position, although dicts of equal names may list them in another order",
            "Pair them by name: `slopes[name] * vector[name]`.",
        ),
        Wrong(
            "the order given",
            _hvp_in_the_order_given,
            "`torch.func` gets `vector` as it comes, and stops where its names stand in another order than those of `params`",
            "Reorder it first: `{name: vector[name] for name in params}`.",
        ),
        Wrong(
            "no graph of the gradient",
            _hvp_without_graph,
            "the first gradient is taken without `create_graph=True`, so it is a constant and cannot be differentiated again",
            "`torch.autograd.grad(loss(theta), list(theta.values()), create_graph=True)` for the first gradient.",
        ),
        Wrong(
            "gradient added",
            _hvp_on_top,
            "the gradient itself is added to H v, as `.backward()` does when it adds to the `.grad` of a first `.backward()`",
            "Take both gradients with `torch.autograd.grad`, which returns them and accumulates nothing.",
        ),
        Wrong(
            "marks the caller's tensors",
            _hvp_on_the_callers,
            "`requires_grad_()` is set on the caller's own tensors, and stays set",
            "Make leaves of your own: `{name: value.detach().clone().requires_grad_() for ...}`.",
        ),
        Wrong(
            "step of one",
            _hvp_minus,
            "v − H v is returned, a factor of the meta-gradient, in place of H v",
            "Return the product alone.",
        ),
        Wrong(
            "vector twice",
            _hvp_vector_squared,
            "the product H v is multiplied by the vector once more",
            "The vector weighs the gradient once, before the second derivative.",
        ),
        Wrong(
            "one number",
            _hvp_number,
            "the number v·(H v) is returned, not the vector H v",
            "Differentiate the inner product of gradient and v with respect to `params`: the result is a dict like it.",
        ),
        Wrong(
            "gradient",
            lambda loss, params, vector: grad(loss)(params),
            "the plain gradient is returned",
            "Differentiate once more, along the vector.",
        ),
    ),
    hints=(
        "H v is the gradient of one number: the inner product of the gradient with a constant v.",
        "`torch.autograd.grad(loss, ..., create_graph=True)`, sum of gradient times vector, `torch.autograd.grad` again. "
        "Or in one go: how does `grad(loss)` change along the vector?",
        "`along = {name: vector[name] for name in params}`, then "
        "`torch.func.jvp(torch.func.grad(loss), (params,), (along,))[1]`",
    ),
)

# ---------------------------------------------------------------------------------------------- 08.7 from memory


def truncated_gradient(
    loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int, last: int
) -> Params:
    """Returns the gradient through the last inner steps only. last=0 is first-order MAML, last=steps is MAML."""
    middle = adapt(loss_support, params, lr=lr, steps=steps - last)
    return grad(lambda theta: loss_query(adapt(loss_support, theta, lr=lr, steps=last)))(middle)


def _truncated_by_products(
    loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int, last: int
) -> Params:
    path = [params]
    for _ in range(steps):
        slopes = grad(loss_support)(path[-1])
        path.append({name: path[-1][name] - lr * slopes[name] for name in params})
    result = grad(loss_query)(path[-1])
    for theta in path[steps - last : steps][::-1]:
        turned = hessian_vector(loss_support, theta, result)
        result = {name: result[name] - lr * turned[name] for name in params}
    return result


def _dict_losses(generator: Generator) -> tuple[Loss, Loss, Params]:
    """Returns support and query loss of a small nonlinear model, and a start."""
    x, y = (torch.randn(2, 5, 2, generator=generator, dtype=torch.float64) for _ in range(2))

    def loss(task: int) -> Loss:
        return lambda p: ((x[task] @ p["w"] + p["b"]).tanh() * p["scale"] - y[task]).square().mean()

    start = {"w": (2, 2), "b": (2,), "scale": ()}
    params = {k: torch.randn(shape, generator=generator, dtype=torch.float64) for k, shape in start.items()}
    return loss(0), loss(1), params


def maml_gradient(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    """Returns the second-order meta-gradient, a dict like params."""

    def outer(theta: Params) -> Tensor:
        for _ in range(steps):
            slopes = grad(loss_support)(theta)
            theta = {name: theta[name] - lr * slopes[name] for name in theta}
        return loss_query(theta)

    return grad(outer)(params)


def _memory_by_autograd(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    start = _leaves(params)
    fast = dict(start)
    for _ in range(steps):
        slopes = _slopes(loss_support, fast)
        fast = {name: fast[name] - lr * slopes[name] for name in fast}
    found = torch.autograd.grad(loss_query(fast), list(start.values()))
    return dict(zip(start, found, strict=True))


def _memory_by_backward(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    start = _leaves(params)
    names, fast = list(start), list(start.values())
    for _ in range(steps):
        loss = loss_support(dict(zip(names, fast, strict=True)))
        slopes = torch.autograd.grad(loss, fast, create_graph=True)
        fast = [w - lr * g for w, g in zip(fast, slopes, strict=True)]
    loss_query(dict(zip(names, fast, strict=True))).backward()
    return {name: leaf.grad for name, leaf in start.items()}


def _memory_by_products(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    return _truncated_by_products(loss_support, loss_query, params, lr, steps, steps)


def _memory_by_pullbacks(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    def step(theta: Params) -> Params:
        slopes = grad(loss_support)(theta)
        return {name: theta[name] - lr * slopes[name] for name in theta}

    pullbacks, theta = [], params
    for _ in range(steps):
        theta, pullback = vjp(step, theta)
        pullbacks.append(pullback)
    back = grad(loss_query)(theta)
    for pullback in reversed(pullbacks):
        (back,) = pullback(back)
    return back


def _memory_inner_from_the_start(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    start = _leaves(params)
    fast = dict(start)
    for _ in range(steps):
        slopes = torch.autograd.grad(loss_support(fast), list(start.values()), create_graph=True)
        fast = _descend(fast, dict(zip(start, slopes, strict=True)), lr)
    return dict(zip(start, torch.autograd.grad(loss_query(fast), list(start.values())), strict=True))


def _memory(
    *,
    step: Callable[[Loss, Loss, Params, Params, float], Params],
    outer: Callable[[Loss, Loss], Loss] = lambda support, query: query,
    count: Callable[[int], int] = lambda steps: steps,
) -> Callable[..., Params]:
    """Returns the answer from memory with one part replaced. step(support, query, theta, start, lr) -> theta after one step."""

    def gradient(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
        def loss(start: Params) -> Tensor:
            theta = start
            for _ in range(count(steps)):
                theta = step(loss_support, loss_query, theta, start, lr)
            return outer(loss_support, loss_query)(theta)

        return grad(loss)(params)

    return gradient


def _descend(theta: Params, slopes: Params, lr: float) -> Params:
    return {name: theta[name] - lr * slopes[name] for name in theta}


def _plain_step(support: Loss, query: Loss, theta: Params, start: Params, lr: float) -> Params:
    return _descend(theta, grad(support)(theta), lr)


def _constant_step(support: Loss, query: Loss, theta: Params, start: Params, lr: float) -> Params:
    return _descend(theta, {name: g.detach() for name, g in grad(support)(theta).items()}, lr)


def _adapted_returned(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    for _ in range(steps):
        params = _descend(params, grad(loss_support)(params), lr)
    return params


def _cut_at_every_step(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    return truncated_gradient(loss_support, loss_query, params, lr, steps, min(steps, 1))


def _memory_from_package(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    return grad(lambda theta: loss_query(adapt(loss_support, theta, lr=lr, steps=steps)))(params)


def _memory_on_the_callers(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    for value in params.values():
        value.requires_grad_()
    fast = dict(params)
    for _ in range(steps):
        fast = _descend(fast, _slopes(loss_support, fast), lr)
    return dict(zip(params, torch.autograd.grad(loss_query(fast), list(params.values())), strict=True))


def _at_the_adapted(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    theta = _adapted_returned(loss_support, loss_query, params, lr, steps)
    return grad(loss_query)(theta)


def _one_factor_for_all(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    result = _at_the_adapted(loss_support, loss_query, params, lr, steps)
    for _ in range(steps):
        result = _descend(result, hessian_vector(loss_support, params, result), lr)
    return result


def _one_factor_only(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    result = _at_the_adapted(loss_support, loss_query, params, lr, steps)
    return _descend(result, hessian_vector(loss_support, params, result), lr) if steps else result


def _factors_forwards(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    path = [params]
    for _ in range(steps):
        path.append(_descend(path[-1], grad(loss_support)(path[-1]), lr))
    result = grad(loss_query)(path.pop())
    for theta in path:
        result = _descend(result, hessian_vector(loss_support, theta, result), lr)
    return result


def _written_into(loss_support: Loss, loss_query: Loss, params: Params, lr: float, steps: int) -> Params:
    for _ in range(steps):
        slopes = grad(loss_support)(params)
        for name in params:
            params[name] -= lr * slopes[name]
    return grad(loss_query)(params)


def _memory_cases(generator: Generator) -> list[Case]:
    support, query, params = _dict_losses(generator)
    bent = {"theta": torch.tensor([1.0]).double()}

    def parabola(centre: float) -> Loss:
        return lambda p: (p["theta"] - centre).square().sum()

    return [
        Case("the example on paper: -3", (parabola(3.0), parabola(5.0), bent, 0.25, 1)),
        Case("three tensors, one step", (support, query, params, 0.3, 1)),
        Case("four steps", (support, query, params, 0.3, 4)),
        Case("no step: the plain gradient of the query loss", (support, query, params, 0.3, 0)),
    ]


def _descends(answer: Callable, reference: Callable) -> str | None:
    support, query, params = _dict_losses(torch.Generator().manual_seed(3))

    def true_loss(theta: Params) -> Tensor:
        return query(adapt(support, theta, lr=0.3, steps=2, track=False))

    found, truth = answer(support, query, dict(params), 0.3, 2), central_differences(true_loss, params, 1e-5)
    gap = max(float((found[name] - truth[name]).abs().max()) for name in params)
    return f"Central differences of the query loss after two steps differ by up to {gap:.2g}." if gap > 1e-6 else None


def _names_of(code: CodeType) -> set[str]:
    """Returns the names that a function and the functions inside it look up."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {*code.co_names, *code.co_freevars}.union(*map(_names_of, inner))


def _torch_alone(answer: Callable, reference: Callable) -> str | None:
    code = getattr(answer, "__code__", None)
    if code is None:
        return None
    known = getattr(answer, "__globals__", {})
    for name in sorted(_names_of(code)):
        value = known.get(name)
        home = getattr(value, "__module__", None) or getattr(value, "__name__", None) or name
        if str(home).startswith("fsl_course") or name.startswith("fsl_course"):
            return f"Your function uses `{name}` of the package."
    return None


def _start_untouched(answer: Callable, reference: Callable) -> str | None:
    support, query, params = _dict_losses(torch.Generator().manual_seed(6))
    answer(support, query, params, 0.3, 2)
    return _marked(params)


MEMORY = Exercise(
    id="08.7",
    title="MAML's gradient from memory",
    reference=maml_gradient,
    cases=_memory_cases,
    properties=(
        Property("it agrees with central differences of the meta-loss", _descends),
        Property("the caller's tensors stay as they are", _start_untouched),
        Property("it stands on torch alone", _torch_alone),
    ),
    right=(_memory_by_autograd, _memory_by_backward, _memory_by_products, _memory_by_pullbacks),
    wrong=(
        Wrong(
            "first order",
            _memory(step=_constant_step),
            "the inner gradients are constants (no `create_graph=True`, a `.detach()`, or the gradient at the adapted weights): "
            "first-order MAML",
            "`torch.autograd.grad(..., create_graph=True)` in the inner loop, or `torch.func.grad` all the way; "
            "the last gradient is with respect to the *initial* parameters.",
        ),
        Wrong(
            "one Hessian for all",
            _one_factor_for_all,
            "every step's factor is taken with the Hessian at the initial parameters",
            "The curvature changes along the way: step j has the Hessian at the place where it starts.",
        ),
        Wrong(
            "one factor",
            _one_factor_only,
            "one factor I − lr·H is applied, however many steps were taken",
            "Each step brings a factor of its own.",
        ),
        Wrong(
            "through the last step only",
            _cut_at_every_step,
            "the graph is cut between the steps: only the last one is differentiated",
            "Detach nothing between the steps.",
        ),
        Wrong(
            "one step",
            _memory(step=_plain_step, count=lambda steps: min(steps, 1)),
            "one inner step is taken, however many were asked for",
            "`for _ in range(steps):` around the inner step.",
            also=(_memory(step=_plain_step, count=lambda steps: 1),),
        ),
        Wrong(
            "gradient at the start",
            _memory(step=lambda s, q, theta, start, lr: _descend(theta, grad(s)(start), lr)),
            "every step uses the gradient at the initial parameters",
            "Take the gradient where you stand: at the parameters of the step before.",
        ),
        Wrong(
            "inner gradient with respect to the start",
            _memory_inner_from_the_start,
            "each inner gradient is taken with respect to the initial parameters, through all the steps before it",
            "Inside the loop, differentiate with respect to where you stand: `list(fast.values())`, not `start.values()`.",
        ),
        Wrong(
            "steps from the start",
            _memory(step=lambda s, q, theta, start, lr: _descend(start, grad(s)(theta), lr)),
            "every step leaves from the initial parameters again: only one step is ever made",
            "Subtract from the parameters of the step before.",
        ),
        Wrong(
            "uphill",
            _memory(step=lambda s, q, theta, start, lr: _descend(theta, grad(s)(theta), -lr)),
            "the inner loop goes uphill",
            "Subtract lr times the gradient.",
        ),
        Wrong(
            "unadapted",
            _memory(step=lambda s, q, theta, start, lr: theta),
            "the query loss is taken at the unadapted parameters",
            "Hand the adapted parameters to `loss_query`.",
        ),
        Wrong(
            "support in the outer loop",
            _memory(step=_plain_step, outer=lambda support, query: support),
            "the outer loss is the support loss: the query is never used",
            "Outer: `loss_query`.",
        ),
        Wrong(
            "query in the inner loop",
            _memory(step=lambda s, q, theta, start, lr: _descend(theta, grad(q)(theta), lr)),
            "the inner loop runs on the query",
            "Inner: `loss_support`.",
        ),
        Wrong(
            "losses exchanged",
            lambda support, query, params, lr, steps: maml_gradient(query, support, params, lr, steps),
            "support and query have changed places: the steps go down the query loss, and the support judges",
            "Inner: `loss_support`. Outer: `loss_query`.",
        ),
        Wrong(
            "order turned round",
            _factors_forwards,
            "the factors are applied from the first step to the last",
            "The gradient travels back: the factor of the last step comes first.",
        ),
        Wrong(
            "way of the inner loop",
            lambda support, query, params, lr, steps: {
                k: params[k] - p for k, p in _adapted_returned(support, query, params, lr, steps).items()
            },
            "the way that the inner loop went is returned (that is Reptile), and the query is never asked",
            "Differentiate `loss_query` at the adapted parameters with respect to `params`.",
        ),
        Wrong(
            "updated parameters",
            lambda support, query, params, lr, steps: _descend(
                params, maml_gradient(support, query, params, lr, steps), lr
            ),
            "an outer step is made as well: parameters come back, not a gradient",
            "Return the meta-gradient itself.",
        ),
        Wrong(
            "adapted parameters returned",
            _adapted_returned,
            "the adapted parameters are returned, not a gradient",
            "Differentiate the query loss at the adapted parameters with respect to `params`.",
        ),
        Wrong(
            "written into",
            _written_into,
            "`params` is stepped in place: the caller's initialisation is gone, and with it the way back to it",
            "Make new tensors: `{name: theta[name] - lr * slopes[name] for name in theta}`.",
        ),
        Wrong(
            "marks the caller's tensors",
            _memory_on_the_callers,
            "`requires_grad_()` is set on the caller's own tensors, and stays set",
            "Make leaves of your own: `{name: value.detach().clone().requires_grad_() for ...}`.",
        ),
        Wrong(
            "the package's adapt",
            _memory_from_package,
            "the inner loop is the package's `adapt`: right numbers, but not from memory",
            "Write the loop yourself: `grad(loss_support)(theta)`, then new tensors.",
        ),
    ),
    hints=(
        "Write the meta-loss as a function of the initial parameters; its gradient is the answer.",
        "Inner loop: `grad(loss_support)(theta)` and new tensors. Outer: `loss_query` of the result. One `grad` around it all.",
        "`def outer(theta): for _ in range(steps): ...; return loss_query(theta)`, then `return torch.func.grad(outer)(params)`",
    ),
)

EXERCISES = (ONE_PARAMETER, META_LOSS, DIFFERENCES, PRODUCT, DETECTOR, HVP, MEMORY)
