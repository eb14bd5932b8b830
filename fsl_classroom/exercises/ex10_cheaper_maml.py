"""Exercises of lesson 10: first-order gradient, Reptile's displacement, Meta-SGD's step, ANIL's split, a detector, MAML++,
and the pull towards agreement.

Cases: every exercise builds its own; 10.1 and 10.2 use the gradients `_valley` and `_waves`, 10.3 and 10.4 the tensors of
`_named`. Losses come as functions of a vector of parameters, most of them as their gradients, so nothing needs a network.
The detector 10.5 gets implementations as arguments and must return True for the wrong ones only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.func import grad, hessian, vjp

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

Gradient = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor], Tensor]
Params = dict[str, Tensor]


def _valley(steepness: list[float], bottom: list[float]) -> Gradient:
    """Returns the gradient of a quadratic: steepness * (theta - bottom), number by number."""
    return lambda theta: torch.tensor(steepness).to(theta) * (theta - torch.tensor(bottom).to(theta))


def _waves(frequency: float) -> Gradient:
    """Returns the gradient of a loss whose curvature depends on theta, unlike that of a quadratic."""
    return lambda theta: torch.sin(frequency * theta) + 0.3 * theta


def _walk(gradient: Gradient, theta: Tensor, lr: float, steps: int) -> Tensor:
    """Returns the end point of gradient descent."""
    for _ in range(steps):
        theta = theta - lr * gradient(theta)
    return theta


# ---------------------------------------------------------------------------------------------- 10.1 first order


def first_order_gradient(
    support_gradient: Gradient, query_gradient: Gradient, theta: Tensor, lr: float, steps: int
) -> Tensor:
    """Returns FOMAML's meta-gradient of one task: the query gradient at the end of the inner loop. theta [D] -> [D]."""
    return query_gradient(_walk(support_gradient, theta, lr, steps))


def _first_order_recursive(
    support_gradient: Gradient, query_gradient: Gradient, theta: Tensor, lr: float, steps: int
) -> Tensor:
    if steps == 0:
        return query_gradient(theta)
    moved = theta - lr * support_gradient(theta)
    return _first_order_recursive(support_gradient, query_gradient, moved, lr, steps - 1)


def _first_order_in_place(
    support_gradient: Gradient, query_gradient: Gradient, theta: Tensor, lr: float, steps: int
) -> Tensor:
    fast = theta.clone()
    for _ in range(steps):
        fast -= lr * support_gradient(fast)
    return query_gradient(fast)


def _first_order_by_places(
    support_gradient: Gradient, query_gradient: Gradient, theta: Tensor, lr: float, steps: int
) -> Tensor:
    places = [theta]
    while len(places) <= steps:
        places.append(torch.sub(places[-1], support_gradient(places[-1]), alpha=lr))
    return query_gradient(places[-1])


def _first_order_by_total(
    support_gradient: Gradient, query_gradient: Gradient, theta: Tensor, lr: float, steps: int
) -> Tensor:
    way = torch.zeros_like(theta)
    for _ in range(steps):
        way = way + support_gradient(theta - lr * way)
    return query_gradient(theta - lr * way)


def _query_gradients(
    support: Gradient, query: Gradient, theta: Tensor, lr: float, steps: int, start: bool = True
) -> Tensor:
    """Returns the query gradients at all places of the walk, [places, D]."""
    return torch.stack([query(_walk(support, theta, lr, k)) for k in range(0 if start else min(1, steps), steps + 1)])


def _first_order_writes(support: Gradient, query: Gradient, theta: Tensor, lr: float, steps: int) -> Tensor:
    for _ in range(steps):
        theta -= lr * support(theta)
    return query(theta)


def _second_order(support: Gradient, query: Gradient, theta: Tensor, lr: float, steps: int) -> Tensor:
    adapted, pull_back = vjp(lambda start: _walk(support, start, lr, steps), theta)
    return pull_back(query(adapted))[0]


def _task_cases(generator: Generator) -> list[Case]:
    theta = torch.randn(4, generator=generator)
    hills = _waves(2.0), _waves(3.0)
    paper = _valley([4.0], [0.0]), _valley([4.0], [0.0]), torch.tensor([0.5]), 0.2, 1
    apart = _valley([2.0] * 4, [1.0, 0.0, -1.0, 2.0]), _valley([3.0] * 4, [0.5] * 4), theta, 0.1, 1
    return [
        Case("the steep valley of the lesson, one step", paper),
        Case("support and query with bottoms of their own, one step", apart),
        Case("losses that are no quadratics, 3 steps", (*hills, theta, 0.3, 3)),
        Case("no step at all", (*hills, theta, 0.3, 0)),
        Case("5 steps in float64", (*hills, theta.double(), 0.2, 5)),
    ]  # fmt: skip


FIRST_ORDER = Exercise(
    id="10.1",
    title="The first-order gradient",
    reference=first_order_gradient,
    cases=_task_cases,
    right=(_first_order_recursive, _first_order_in_place, _first_order_by_places, _first_order_by_total),
    wrong=(
        Wrong(
            "second order",
            _second_order,
            "the gradient is carried back through the inner steps: that is MAML's, second derivative and all",
            "Stop where the inner loop ends: the query gradient there is the answer.",
        ),
        Wrong(
            "at the start",
            lambda s, q, theta, lr, steps: q(theta),
            "the query gradient is taken at the start: the inner loop has no say",
            "Walk first, then ask `query_gradient` at the place where you have arrived.",
        ),
        Wrong(
            "support at the end",
            lambda s, q, theta, lr, steps: s(_walk(s, theta, lr, steps)),
            "the support gradient is taken after the inner loop, so the queries are never asked",
            "The last gradient is `query_gradient`.",
        ),
        Wrong(
            "walks on the queries",
            lambda s, q, theta, lr, steps: q(_walk(q, theta, lr, steps)),
            "the inner loop walks on the query loss: the learner trains on what it is tested on",
            "Inner steps follow `support_gradient`.",
        ),
        Wrong(
            "uphill",
            lambda s, q, theta, lr, steps: q(_walk(s, theta, -lr, steps)),
            "the inner steps go up the support loss",
            "A step is *minus* the rate times the gradient.",
        ),
        Wrong(
            "one step",
            lambda s, q, theta, lr, steps: q(_walk(s, theta, lr, 1)),
            "one inner step is taken, whatever `steps` says",
            "`for _ in range(steps)`.",
        ),
        Wrong(
            "all steps from the start",
            lambda s, q, theta, lr, steps: q(theta - steps * lr * s(theta)),
            "the gradient of the first step is used for all steps",
            "Take the support gradient anew at every place that you reach.",
        ),
        Wrong(
            "an outer step",
            lambda s, q, theta, lr, steps: theta - lr * q(_walk(s, theta, lr, steps)),
            "the outer step is taken already: parameters come back, not a gradient",
            "Return the gradient; the outer optimiser takes the step.",
            also=(lambda s, q, theta, lr, steps: theta - q(_walk(s, theta, lr, steps)),),
        ),
        Wrong(
            "where the walk ends",
            lambda s, q, theta, lr, steps: _walk(s, theta, lr, steps),
            "the adapted parameters are returned",
            "Hand them to `query_gradient` and return what it says.",
        ),
        Wrong(
            "Reptile's displacement",
            lambda s, q, theta, lr, steps: theta - _walk(s, theta, lr, steps),
            "the way of the inner loop is returned, start minus end: that is Reptile's direction, which asks no queries",
            "FOMAML hands the end of the walk to `query_gradient`.",
        ),
        Wrong(
            "one step too many",
            lambda s, q, theta, lr, steps: q(_walk(s, theta, lr, steps + 1)),
            "one inner step too many is taken",
            "With `steps` = 0 the walk does not move at all.",
        ),
        Wrong(
            "one step too few",
            lambda s, q, theta, lr, steps: q(_walk(s, theta, lr, steps - 1)),
            "one inner step too few is taken",
            "`range(steps)` counts all of them, and the query gradient comes after the last one.",
        ),
        Wrong(
            "times the rate",
            lambda s, q, theta, lr, steps: lr * q(_walk(s, theta, lr, steps)),
            "the query gradient is multiplied by the inner rate",
            "The inner rate belongs to the inner steps; return the gradient as it is.",
        ),
        Wrong(
            "turned sign",
            lambda s, q, theta, lr, steps: -q(_walk(s, theta, lr, steps)),
            "the sign of the query gradient is turned",
            "A gradient points uphill, and the outer optimiser subtracts it.",
        ),
        Wrong(
            "support added",
            lambda s, q, theta, lr, steps: s(_walk(s, theta, lr, steps)) + q(_walk(s, theta, lr, steps)),
            "the support gradient at the end is added to the query gradient",
            "Only the queries judge the end of the walk.",
        ),
        Wrong(
            "summed on the way",
            lambda s, q, theta, lr, steps: _query_gradients(s, q, theta, lr, steps, False).sum(0),
            "the query gradients after all steps are summed",
            "Ask the queries once, at the end.",
            also=(lambda s, q, theta, lr, steps: _query_gradients(s, q, theta, lr, steps).sum(0),),
        ),
        Wrong(
            "averaged on the way",
            lambda s, q, theta, lr, steps: _query_gradients(s, q, theta, lr, steps, False).mean(0),
            "the query gradients after all steps are averaged",
            "Ask the queries once, at the end.",
            also=(lambda s, q, theta, lr, steps: _query_gradients(s, q, theta, lr, steps).mean(0),),
        ),
        Wrong(
            "rate forgotten",
            lambda s, q, theta, lr, steps: q(_walk(s, theta, 1.0, steps)),
            "the inner steps are as long as the gradient: `lr` is not used",
            "`place - lr * support_gradient(place)`.",
        ),
        Wrong(
            "writes into theta",
            _first_order_writes,
            "`-=` writes into `theta`: the initialisation is gone for the next task",
            "`place = place - lr * ...` makes a new tensor.",
        ),
    ),
    hints=(
        "If the second derivative counts as zero, what is left of (I − αH) g?",
        "Walk `steps` times down the support loss. The answer is the query gradient at that place.",
        "`for _ in range(steps): theta = theta - lr * support_gradient(theta)`, then `return query_gradient(theta)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 10.2 Reptile


def reptile_direction(gradients: Sequence[Gradient], theta: Tensor, lr: float, steps: int) -> Tensor:
    """Returns the mean over tasks of theta - theta_task, which takes the place of a gradient. theta [D] -> [D]."""
    return torch.stack([theta - _walk(gradient, theta, lr, steps) for gradient in gradients]).mean(0)


def _reptile_by_ends(gradients: Sequence[Gradient], theta: Tensor, lr: float, steps: int) -> Tensor:
    ends = [_walk(gradient, theta, lr, steps) for gradient in gradients]
    return theta - sum(ends) / len(ends)


def _reptile_by_steps(gradients: Sequence[Gradient], theta: Tensor, lr: float, steps: int) -> Tensor:
    total = torch.zeros_like(theta)
    for gradient in gradients:
        place = theta
        for _ in range(steps):
            slope = gradient(place)
            place, total = place - lr * slope, total + lr * slope
    return total / len(gradients)


def _reptile_serial(gradients: Sequence[Gradient], theta: Tensor, lr: float, steps: int) -> Tensor:
    place = theta
    for gradient in gradients:
        place = _walk(gradient, place, lr, steps)
    return theta - place


def _reptile_overwrites(gradients: Sequence[Gradient], theta: Tensor, lr: float, steps: int) -> Tensor:
    moved = []
    for gradient in gradients:
        place = theta
        for _ in range(steps):
            place -= lr * gradient(place)
        moved.append(theta - place)
    return torch.stack(moved).mean(0)


def _reptile_of_place(gradients: Sequence[Gradient], theta: Tensor, lr: float, steps: int) -> Tensor:
    """Returns the mean way to all places of each walk, not only to its end."""
    ways = [theta - _walk(g, theta, lr, k) for g in gradients for k in range(1, steps + 1)]
    return torch.stack(ways).mean(0)


def _reptile_joint(gradients: Sequence[Gradient], theta: Tensor, lr: float, steps: int) -> Tensor:
    return theta - _walk(lambda place: torch.stack([g(place) for g in gradients]).mean(0), theta, lr, steps)


def _reptile_at_once(gradients: Sequence[Gradient], theta: Tensor, lr: float, steps: int) -> Tensor:
    places = theta.repeat(len(gradients), 1)
    for _ in range(steps):
        places = places - lr * torch.stack([g(place) for g, place in zip(gradients, places, strict=True)])
    return (theta - places).mean(dim=0)


def _reptile_running(gradients: Sequence[Gradient], theta: Tensor, lr: float, steps: int) -> Tensor:
    mean = torch.zeros_like(theta)
    for count, gradient in enumerate(gradients, start=1):
        fast = theta.clone()
        for _ in range(steps):
            fast -= lr * gradient(fast)
        mean += (theta - fast - mean) / count
    return mean


def _reptile_cases(generator: Generator) -> list[Case]:
    theta = torch.randn(3, generator=generator)
    valleys = [_valley([4.0], [0.0]), _valley([1.0], [1.0])]
    tasks = [_valley([1.0, 2.0, 3.0], [1.0, 0.0, -1.0]), _waves(2.0), _waves(0.7)]
    return [
        Case("one task, one step", ([_valley([2.0] * 3, [1.0, 0.5, 0.0])], theta, 0.1, 1)),
        Case("the two valleys of the lesson, one step", (valleys, torch.tensor([0.5]), 0.2, 1)),
        Case("the two valleys, 5 steps", (valleys, torch.tensor([0.5]), 0.2, 5)),
        Case("3 tasks, 4 steps", (tasks, theta, 0.2, 4)),
        Case("3 tasks, 4 steps, in float64", (tasks, theta.double(), 0.2, 4)),
    ]


REPTILE = Exercise(
    id="10.2",
    title="Reptile's direction",
    reference=reptile_direction,
    cases=_reptile_cases,
    right=(_reptile_by_ends, _reptile_by_steps, _reptile_at_once, _reptile_running),
    wrong=(
        Wrong(
            "reversed",
            lambda g, theta, lr, steps: -reptile_direction(g, theta, lr, steps),
            "the sign is turned: theta_task − theta. An optimiser subtracts what it is given, and would run away from the tasks",
            "A gradient points uphill: `theta - theta_task`.",
        ),
        Wrong(
            "sum over tasks",
            lambda g, theta, lr, steps: len(g) * reptile_direction(g, theta, lr, steps),
            "the tasks' displacements are summed: twice the tasks, twice the step",
            "Take the mean over the tasks.",
        ),
        Wrong(
            "serial",
            _reptile_serial,
            "each task starts where the one before it ended",
            "Every task starts at the same `theta`.",
        ),
        Wrong(
            "serial, averaged",
            lambda g, theta, lr, steps: _reptile_serial(g, theta, lr, steps) / len(g),
            "each task starts where the one before it ended, and the ways are averaged",
            "Every task starts at the same `theta`.",
        ),
        Wrong(
            "one step short",
            lambda g, theta, lr, steps: reptile_direction(g, theta, lr, steps - 1),
            "the end is read one step too early: with one inner step nothing moves at all",
            "Read the end after the last step.",
        ),
        Wrong(
            "only the last step",
            lambda g, theta, lr, steps: torch.stack([lr * f(_walk(f, theta, lr, steps - 1)) for f in g]).mean(0),
            "only the last inner step is measured: that is FOMAML on the support",
            "From the very start to the very end: all steps together.",
        ),
        Wrong(
            "divided by the rate",
            lambda g, theta, lr, steps: reptile_direction(g, theta, lr, steps) / lr,
            "the displacement is divided by the inner rate",
            "Return the displacement itself; the outer rate takes care of its size.",
        ),
        Wrong(
            "divided by the steps",
            lambda g, theta, lr, steps: reptile_direction(g, theta, lr, steps) / steps,
            "the displacement is divided by the number of inner steps",
            "Return the displacement itself; the outer rate takes care of its size.",
        ),
        Wrong(
            "divided by rate and steps",
            lambda g, theta, lr, steps: reptile_direction(g, theta, lr, steps) / (lr * steps),
            "the displacement is divided by the inner rate and by the number of steps",
            "Return the displacement itself; the outer rate takes care of its size.",
        ),
        Wrong(
            "times the rate",
            lambda g, theta, lr, steps: lr * reptile_direction(g, theta, lr, steps),
            "the displacement is multiplied by the inner rate once more",
            "The inner rate is in the inner steps already; return the displacement itself.",
        ),
        Wrong(
            "one step, whatever is asked",
            lambda g, theta, lr, steps: reptile_direction(g, theta, lr, 1),
            "one inner step is taken, whatever `steps` says",
            "`for _ in range(steps)` in every task.",
        ),
        Wrong(
            "one step too many",
            lambda g, theta, lr, steps: reptile_direction(g, theta, lr, steps + 1),
            "one inner step too many is taken",
            "`range(steps)` counts exactly `steps`.",
        ),
        Wrong(
            "uphill",
            lambda g, theta, lr, steps: reptile_direction(g, theta, -lr, steps),
            "the inner steps go up the loss",
            "A step is *minus* the rate times the gradient.",
        ),
        Wrong(
            "all places",
            _reptile_of_place,
            "the ways to all places of the walk are averaged, not the way to its end",
            "Only the last place of a task counts.",
        ),
        Wrong(
            "one walk for all tasks",
            _reptile_joint,
            "one walk goes down the mean loss of all tasks: that is joint training",
            "Every task has a walk of its own; average the ways, not the gradients.",
        ),
        Wrong(
            "all steps from the start",
            lambda g, theta, lr, steps: torch.stack([steps * lr * f(theta) for f in g]).mean(0),
            "all steps use the gradient at the start: with that the displacement says no more than joint training",
            "Take the gradient anew after every step.",
        ),
        Wrong(
            "the ends",
            lambda g, theta, lr, steps: theta - reptile_direction(g, theta, lr, steps),
            "the mean of the ends is returned, not the way to them",
            "Subtract: `theta - theta_task`.",
        ),
        Wrong(
            "first task",
            lambda g, theta, lr, steps: theta - _walk(g[0], theta, lr, steps),
            "only the first task is walked",
            "Go through all of `gradients` and average.",
        ),
        Wrong(
            "last task",
            lambda g, theta, lr, steps: theta - _walk(g[-1], theta, lr, steps),
            "only the last task counts",
            "Keep the displacement of every task, then take their mean.",
        ),
        Wrong(
            "rate forgotten",
            lambda g, theta, lr, steps: reptile_direction(g, theta, 1.0, steps),
            "the inner steps are as long as the gradient: `lr` is not used",
            "`place - lr * gradient(place)`.",
        ),
        Wrong(
            "the gradient at the end",
            lambda g, theta, lr, steps: torch.stack([f(_walk(f, theta, lr, steps)) for f in g]).mean(0),
            "the gradient at the end of each walk is returned: that is FOMAML's way, on the support",
            "Reptile returns the way itself, `theta - theta_task`.",
        ),
        Wrong(
            "overwrites theta",
            _reptile_overwrites,
            "`-=` overwrites theta itself: start and end are one tensor, and their difference is zero",
            "`place = place - lr * ...` makes a new tensor.",
        ),
    ),
    hints=(
        "Walk each task from the same start. How far, and which way, have you come?",
        "A task's displacement is the start minus the end. Average it over the tasks.",
        "A task: `place = theta`, `steps` times `place = place - lr * gradient(place)`, keep `theta - place`; then the mean",
    ),
)

# ---------------------------------------------------------------------------------------------- 10.3 Meta-SGD


def meta_sgd_step(params: Params, gradients: Params, rates: Params) -> Params:
    """Takes one step with a rate for every number. Three dicts with the same names and shapes -> new parameters."""
    return {name: value - rates[name] * gradients[name] for name, value in params.items()}


def _meta_sgd_loop(params: Params, gradients: Params, rates: Params) -> Params:
    moved = {}
    for name in params:
        moved[name] = params[name].sub(gradients[name].mul(rates[name]))
    return moved


def _meta_sgd_addcmul(params: Params, gradients: Params, rates: Params) -> Params:
    return {name: torch.addcmul(params[name], rates[name], gradients[name], value=-1) for name in params}


def _step_with(change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Params, Params, Params], Params]:
    """Returns the step with the rule change(parameter, gradient, rate)."""
    return lambda params, gradients, rates: {n: change(params[n], gradients[n], rates[n]) for n in params}


def _meta_sgd_in_place(params: Params, gradients: Params, rates: Params) -> Params:
    for name in params:
        params[name] = params[name] - rates[name] * gradients[name]
    return params


def _meta_sgd_by_position(params: Params, gradients: Params, rates: Params) -> Params:
    threes = zip(params.items(), gradients.values(), rates.values(), strict=True)
    return {name: value - a * g for (name, value), g, a in threes}


def _meta_sgd_backwards(params: Params, gradients: Params, rates: Params) -> Params:
    return {n: torch.add(params[n], torch.neg(rates[n]).mul(gradients[n])) for n in reversed(list(params))}


def _meta_sgd_merged(params: Params, gradients: Params, rates: Params) -> Params:
    return params | {n: params[n] - a * gradients[n] for n, a in rates.items()}


def _meta_sgd_mean_of_all(params: Params, gradients: Params, rates: Params) -> Params:
    one = torch.cat([a.flatten() for a in rates.values()]).mean()
    return {n: p - one * gradients[n] for n, p in params.items()}


def _meta_sgd_writes_tensors(params: Params, gradients: Params, rates: Params) -> Params:
    with torch.no_grad():
        for name in params:
            params[name] -= rates[name] * gradients[name]
    return params


def _detached(params: Params, gradients: Params, rates: Params) -> Params:
    with torch.no_grad():
        return meta_sgd_step(params, gradients, rates)


def _turned_round(tensors: Params) -> Params:
    return dict(reversed(tensors.items()))


def _named(generator: Generator, shapes: dict[str, tuple[int, ...]]) -> Params:
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


_SHAPES = {"encoder.weight": (3, 2), "encoder.bias": (3,), "head.weight": (2, 3), "head.bias": (2,)}


def _meta_sgd_cases(generator: Generator) -> list[Case]:
    nets = [_named(generator, _SHAPES) for _ in range(3)]
    one = {"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([2.0, 3.0])}, {"w": torch.tensor([0.5, -0.1])}
    doubles = tuple({name: value.double() for name, value in net.items()} for net in nets)
    a, b, c = (_named(generator, {"first.bias": (3,), "second.bias": (3,), "third.bias": (3,)}) for _ in range(3))
    return [
        Case("two numbers, one rate positive and one negative", one),
        Case("a small net, rates of either sign", tuple(nets)),
        Case("three names of one shape, gradients and rates listed in other orders", (a, _turned_round(b), _turned_round(c))),
        Case("a small net in float64", doubles),
    ]  # fmt: skip


META_SGD = Exercise(
    id="10.3",
    title="Meta-SGD's step",
    reference=meta_sgd_step,
    cases=_meta_sgd_cases,
    gradient=(0, 1, 2),
    right=(_meta_sgd_loop, _meta_sgd_addcmul, _meta_sgd_backwards, _meta_sgd_merged),
    wrong=(
        Wrong(
            "uphill",
            _step_with(lambda p, g, a: p + a * g),
            "the step is added: it goes uphill wherever the rate is positive",
            "*Minus* rate times gradient.",
        ),
        Wrong(
            "one rate a tensor",
            _step_with(lambda p, g, a: p - a.mean() * g),
            "one rate serves a whole tensor, such as the mean of its rates",
            "Multiply element by element: every number has a rate of its own.",
            also=(_step_with(lambda p, g, a: p - a.flatten()[0] * g),),
        ),
        Wrong(
            "positive rates",
            _step_with(lambda p, g, a: p - a.abs() * g),
            "the rates lose their sign, which Meta-SGD learns as well",
            "Use the rates as they are: a negative one is allowed.",
        ),
        Wrong(
            "no negative rates",
            _step_with(lambda p, g, a: p - a.clamp_min(0) * g),
            "negative rates are set to zero",
            "Use the rates as they are: a negative one is allowed.",
        ),
        Wrong(
            "exponential",
            _step_with(lambda p, g, a: p - a.exp() * g),
            "the rates go through a function that makes them positive, such as exp, sigmoid or softplus",
            "`rates[name]` are the rates themselves, sign included.",
            also=(
                _step_with(lambda p, g, a: p - a.sigmoid() * g),
                _step_with(lambda p, g, a: p - torch.nn.functional.softplus(a) * g),
            ),
        ),
        Wrong(
            "sign of the gradient",
            _step_with(lambda p, g, a: p - a * g.sign()),
            "only the gradient's sign is used, so a rate becomes a length",
            "Multiply the rate with the gradient itself.",
        ),
        Wrong(
            "rates as gradients",
            _step_with(lambda p, g, a: p - a),
            "the rates are subtracted and the gradients left out",
            "`rates[name] * gradients[name]`.",
        ),
        Wrong(
            "rates cut off",
            _step_with(lambda p, g, a: p - a.detach() * g),
            "the rates are cut off from the graph: the outer loop cannot learn them",
            "No `.detach()` and no `no_grad`.",
        ),
        Wrong(
            "gradients cut off",
            _step_with(lambda p, g, a: p - a * g.detach()),
            "the gradients are cut off from the graph: that is the first-order version",
            "No `.detach()` and no `no_grad`.",
        ),
        Wrong(
            "writes into params",
            _meta_sgd_in_place,
            "the dictionary that came in is overwritten: the initialisation is gone for the next task",
            "Build a new dictionary: `{name: ... for name in params}`.",
            also=(_meta_sgd_writes_tensors,),
        ),
        Wrong(
            "matched by position",
            _meta_sgd_by_position,
            "tensors are matched by their position in the dictionaries, not by their names",
            "Look up `gradients[name]` and `rates[name]`: dictionaries with the same names may list them in any order.",
        ),
        Wrong(
            "one rate for all",
            _meta_sgd_mean_of_all,
            "all rates are averaged to a single one, which is MAML with a learned rate",
            "Multiply element by element: every number has a rate of its own.",
        ),
        Wrong(
            "the step alone",
            _step_with(lambda p, g, a: a * g),
            "the step is returned and not subtracted from the parameters",
            "`params[name]` minus the step.",
            also=(_step_with(lambda p, g, a: -a * g),),
        ),
        Wrong(
            "nothing is tracked",
            _detached,
            "everything is cut off from the graph, as `torch.no_grad()` does: the outer loop learns nothing",
            "No `.detach()` and no `no_grad`.",
        ),
        Wrong(
            "parameters cut off",
            _step_with(lambda p, g, a: p.detach() - a * g),
            "the parameters are cut off from the graph: the outer loop cannot learn the initialisation",
            "No `.detach()` and no `no_grad`.",
        ),
        Wrong(
            "two cut off",
            _step_with(lambda p, g, a: p - (a * g).detach()),
            "the whole step is cut off from the graph: the outer loop cannot learn the rates",
            "No `.detach()` and no `no_grad`.",
        ),
        Wrong(
            "rates divide",
            _step_with(lambda p, g, a: p - g / a),
            "the gradient is divided by the rates",
            "Multiply: a large rate makes a large step.",
        ),
        Wrong(
            "parameters scaled",
            _step_with(lambda p, g, a: p * (1 - a * g)),
            "the parameter is multiplied by 1 minus the step",
            "Subtract the step from the parameter.",
        ),
    ),
    hints=(
        "One line for each name. What stood in front of the gradient in MAML?",
        "`rates[name]` has the shape of the parameter: `*` multiplies element by element.",
        "`{name: value - rates[name] * gradients[name] for name, value in params.items()}`",
    ),
)

# ---------------------------------------------------------------------------------------------- 10.4 ANIL


def anil_step(params: Params, gradients: Params, lr: float, head: str) -> Params:
    """Takes a step that moves the submodule `head` alone; "" is the whole model. Dicts -> new parameters, all names."""
    prefix = f"{head}." if head else ""
    return {n: p - lr * gradients[n] if n.startswith(prefix) else p for n, p in params.items()}


def _anil_by_parts(params: Params, gradients: Params, lr: float, head: str) -> Params:
    parts = head.split(".") if head else []
    moved = {}
    for name, value in params.items():
        inside = name.split(".")[: len(parts)] == parts
        moved[name] = value - lr * gradients[name] if inside else value
    return moved


def _anil_by_rates(params: Params, gradients: Params, lr: float, head: str) -> Params:
    rates = {name: lr * float(head == "" or name.startswith(head + ".")) for name in params}
    return {name: value - rates[name] * gradients[name] for name, value in params.items()}


def _anil_merged(params: Params, gradients: Params, lr: float, head: str) -> Params:
    inside = [n for n in params if head in ("", *(n.rsplit(".", k)[0] for k in range(1, n.count(".") + 1)))]
    body = {n: p for n, p in params.items() if n not in inside}
    return {n: torch.sub(params[n], gradients[n], alpha=lr) for n in inside} | body


def _anil_copy(params: Params, gradients: Params, lr: float, head: str) -> Params:
    moved = params.copy()
    for name in filter(lambda n: not head or (n + ".").startswith(head + "."), params):
        moved[name] = moved[name] - gradients[name] * lr
    return moved


def _anil_by_position(params: Params, gradients: Params, lr: float, head: str) -> Params:
    pairs = zip(params.items(), gradients.values(), strict=True)
    return {n: p - lr * g if _in_head(n, head) else p for (n, p), g in pairs}


def _anil_gradients_cut(params: Params, gradients: Params, lr: float, head: str) -> Params:
    return anil_step(params, {n: g.detach() for n, g in gradients.items()}, lr, head)


def _anil_start_cut(params: Params, gradients: Params, lr: float, head: str) -> Params:
    return anil_step({n: p.detach() if _in_head(n, head) else p for n, p in params.items()}, gradients, lr, head)


def _anil_no_grad(params: Params, gradients: Params, lr: float, head: str) -> Params:
    with torch.no_grad():
        return anil_step(params, gradients, lr, head)


def _anil_writes(params: Params, gradients: Params, lr: float, head: str) -> Params:
    for name in params:
        if _in_head(name, head):
            params[name] = params[name] - lr * gradients[name]
    return params


def _anil_where(inside: Callable[[str, str], bool], body: Callable[[Tensor], Tensor] = lambda p: p) -> Callable:
    """Returns the step with the rule inside(name, head) for what belongs to the head. body: what happens to everything else."""

    def step(params: Params, gradients: Params, lr: float, head: str) -> Params:
        return {n: p - lr * gradients[n] if inside(n, head) else body(p) for n, p in params.items()}

    return step


def _in_head(name: str, head: str) -> bool:
    return not head or name.startswith(head + ".")


def _anil_head_only(params: Params, gradients: Params, lr: float, head: str) -> Params:
    return {n: p - lr * gradients[n] for n, p in params.items() if _in_head(n, head)}


def _anil_last_two(params: Params, gradients: Params, lr: float, head: str) -> Params:
    last = list(params)[-2:] if head else list(params)
    return {n: p - lr * gradients[n] if n in last else p for n, p in params.items()}


def _anil_cases(generator: Generator) -> list[Case]:
    def case(says: str, shapes: dict[str, tuple[int, ...]], head: str, dtype: torch.dtype = torch.float32) -> Case:
        nets = [{n: p.to(dtype) for n, p in _named(generator, shapes).items()} for _ in range(2)]
        return Case(says, (*nets, 0.4, head))

    tricky = {"head.weight": (2, 3), "header.weight": (2,), "encoder.head.bias": (3,), "head.bias": (2,), "scale": (1,)}
    inner = {"net.out.weight": (2, 2), "net.body.weight": (2, 2), "net_out.bias": (2,), "out.bias": (2,)}
    a, b = (_named(generator, {"body.bias": (3,), "head.in": (3,), "head.out": (3,)}) for _ in range(2))
    return [
        case("an encoder and a head", _SHAPES, "head"),
        case("names that look like the head's", tricky, "head"),
        case("a head inside a submodule", inner, "net.out"),
        case('the whole model as head: ""', _SHAPES, ""),
        case("a head of two layers", {"encoder.weight": (3, 2), "head.0.weight": (2, 3), "head.2.bias": (2,)}, "head"),
        Case("three names of one shape, gradients listed in another order", (a, _turned_round(b), 0.4, "head")),
        case("in float64", _SHAPES, "head", torch.float64),
    ]  # fmt: skip


def _gradients_keep_their_graph(answer: Callable[..., Params], reference: Callable[..., Params]) -> str | None:
    start = {name: torch.ones(2, requires_grad=True) for name in ("body.bias", "head.bias")}
    steep = {name: 3.0 * p.square() for name, p in start.items()}
    moved = answer(start, steep, 0.1, "head")["head.bias"].sum()
    slope = torch.autograd.grad(moved, start["head.bias"])[0] if moved.requires_grad else torch.zeros(2)
    if torch.allclose(slope, torch.full((2,), 1.0 - 0.1 * 6.0)):
        return None
    if torch.allclose(slope, torch.full((2,), -0.1 * 6.0)):
        return "The outer gradient passes through `gradients`, but not through the head's `params`."
    return "The outer gradient does not pass through `gradients`: the second derivative is lost."


ANIL = Exercise(
    id="10.4",
    title="ANIL's split",
    reference=anil_step,
    cases=_anil_cases,
    properties=(Property("the head's inner gradients keep their graph", _gradients_keep_their_graph),),
    gradient=(0,),
    right=(_anil_by_parts, _anil_by_rates, _anil_merged, _anil_copy),
    wrong=(
        Wrong(
            "no dot",
            _anil_where(lambda n, head: n.startswith(head)),
            "names that merely begin like the head, such as `header.weight`, move with it",
            'Ask for the head\'s name *and a dot*: `name.startswith(head + ".")`.',
        ),
        Wrong(
            "any character for a dot",
            _anil_where(lambda n, head: not head or re.match(head + r"\.", n) is not None),
            "the dot inside the head's name stands for any character, as in a regular expression: `net_out.bias` moves too",
            'No regular expression is needed: `name.startswith(head + ".")`.',
        ),
        Wrong(
            "contains",
            _anil_where(lambda n, head: head in n),
            "every name that contains the head's moves, wherever it stands",
            'The name must begin with it: `name.startswith(head + ".")`.',
        ),
        Wrong(
            "contains, with a dot",
            _anil_where(lambda n, head: not head or head + "." in n),
            "a head inside of another part moves too, such as `encoder.head.bias`",
            'The name must begin with it: `name.startswith(head + ".")`.',
            also=(_anil_where(lambda n, head: not head or head in n.split(".")),),
        ),
        Wrong(
            "first part only",
            _anil_where(lambda n, head: not head or n.split(".")[0] == head),
            "only the first part of a name is compared, which a head such as `net.out` does not fit",
            'Compare as many parts as the head has, or ask `name.startswith(head + ".")`.',
            also=(_anil_where(lambda n, head: not head or n.split(".")[0] == head.split(".")[0]),),
        ),
        Wrong(
            "one level only",
            _anil_where(lambda n, head: not head or n.rpartition(".")[0] == head),
            "only what lies directly in the head moves, not its layers, such as `head.0.weight`",
            'All that begins with the head and a dot is inside: `name.startswith(head + ".")`.',
        ),
        Wrong(
            "the body moves",
            _anil_where(lambda n, head: bool(head) and not _in_head(n, head)),
            "the body moves and the head stays",
            "Turn the condition round: the head adapts.",
        ),
        Wrong(
            "everything moves",
            _anil_where(lambda n, head: True),
            "everything moves: that is MAML",
            "Names outside of the head keep their value.",
        ),
        Wrong(
            "nothing for the empty name",
            _anil_where(lambda n, head: n.startswith(head + ".")),
            'the head "" moves nothing: no name begins with a dot',
            'Treat "" by itself: it means the whole model.',
        ),
        Wrong(
            "the body is dropped",
            _anil_head_only,
            "only the head comes back: a network cannot be called without its body",
            "Keep all names; the body's tensors go through unchanged.",
        ),
        Wrong(
            "the body is cut off",
            _anil_where(_in_head, lambda p: p.detach()),
            "the body is cut off from the graph: the outer loop could not train it",
            "The body does not adapt, but it learns: hand it through without `.detach()`.",
        ),
        Wrong(
            "gradients cut off",
            _anil_gradients_cut,
            "the inner gradients are cut off from the graph: that is a first-order ANIL",
            "No `.detach()`: the outer loop also asks how the head's step depends on its start.",
        ),
        Wrong(
            "nothing is tracked",
            _anil_no_grad,
            "everything is cut off from the graph, as `torch.no_grad()` does: the outer loop learns nothing",
            "Leave the graph alone: no `.detach()` and no `no_grad`.",
        ),
        Wrong(
            "the head's start cut off",
            _anil_start_cut,
            "the head's start is cut off from the graph: the outer loop could not train where the head begins",
            "`params[name] - lr * gradients[name]`, without `.detach()`.",
        ),
        Wrong(
            "writes into params",
            _anil_writes,
            "the dictionary that came in is overwritten: the initialisation is gone for the next task",
            "Start from a copy, `dict(params)`, and put new tensors into it.",
        ),
        Wrong(
            "matched by position",
            _anil_by_position,
            "gradients are matched by their position in the dictionary, not by their names",
            "Look up `gradients[name]`: dictionaries with the same names may list them in any order.",
        ),
        Wrong(
            "the exact name",
            _anil_where(lambda n, head: not head or n == head),
            "a name must equal the head's, or end with it: no tensor's name does, so nothing moves",
            'Tensors lie *in* the head: their names start with `head + "."`.',
        ),
        Wrong(
            "the body is zero",
            _anil_where(_in_head, lambda p: p * 0.0),
            "the body comes back as zeros",
            "The body's tensors go through as they are.",
            also=(_anil_where(_in_head, torch.zeros_like),),
        ),
        Wrong(
            "the last two",
            _anil_last_two,
            "the last two entries move, whatever they are called",
            "Go by the name, not by the position.",
        ),
        Wrong(
            "uphill",
            lambda params, gradients, lr, head: anil_step(params, gradients, -lr, head),
            "the head's step is added",
            "*Minus* rate times gradient.",
        ),
    ),
    hints=(
        'Parameters are named by path: `head.weight` lies in `head`. In what does `header.weight` lie? And what lies in ""?',
        'A name is inside when `head` is "" or the name starts with `head + "."`. All others keep their tensor.',
        '`inside = head == "" or name.startswith(head + ".")`, then `value - lr * gradients[name] if inside else value`',
    ),
)

# ---------------------------------------------------------------------------------------------- 10.5 bug hunt

Direction = Callable[[Gradient, Gradient, Tensor, float, int], Tensor]
Same = Callable[[Tensor, Tensor], bool]
# Three parameters, each in a valley of its own, so that a fault that mixes parameters cannot hide.
_STEEPNESS, _BOTTOM, _ELSEWHERE, _START, _LR = (
    (1.3, 0.7, 2.1),
    (0.7, -1.0, 2.0),
    (-2.9, 3.0, 0.4),
    (3.1, 1.4, -0.6),
    0.3,
)


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _rings(
    direction: Direction,
    steps: Sequence[int] = (1, 2, 4),
    *,
    parameters: int = 3,
    lr: float = _LR,
    start: Sequence[float] = _START,
    elsewhere: Sequence[float] = _ELSEWHERE,
    steepness: Sequence[float] = _STEEPNESS,
    by: Same = _close,
) -> bool:
    """Returns True if the displacement in 1-D valleys differs from its closed form for any of these numbers of steps."""
    h, b, theta = (torch.tensor(numbers[:parameters]) for numbers in (steepness, _BOTTOM, start))
    support, query = _valley(h.tolist(), b.tolist()), _valley(h.tolist(), list(elsewhere[:parameters]))
    for k in steps:
        expected = (1 - (1 - lr * h) ** k) * (theta - b)
        if not by(direction(support, query, theta.clone(), lr, k), expected):
            return True
    return False


def exposes_displacement(direction: Direction) -> bool:
    """Returns True if an implementation of Reptile's direction is wrong.

    direction: (support gradient, query gradient, theta [D], lr, steps) -> [D], of one task.
    """
    return _rings(direction)


def _exposes_by_walking(direction: Direction) -> bool:
    theta, support, query = torch.tensor([2.0, -1.0]), _waves(1.5), _valley([2.0, 2.0], [9.0, 9.0])
    gaps = [direction(support, query, theta.clone(), 0.2, k) - theta + _walk(support, theta, 0.2, k) for k in (1, 3)]
    return bool(torch.stack(gaps).abs().max() > 1e-4)


def _exposes_by_numbers(direction: Direction) -> bool:
    start, steep, bottom, lr = torch.tensor([4.0, 1.0]), [2.0, 1.0], [1.0, -3.0], 0.1
    gradients = _valley(steep, bottom), _valley([1.0, 1.0], [-5.0, 8.0])
    found = [direction(*gradients, start.clone(), lr, k).tolist() for k in (1, 3)]
    wanted = [[3 * (1 - 0.8**k), 4 * (1 - 0.9**k)] for k in (1, 3)]
    return any(abs(a - b) > 1e-4 for f, w in zip(found, wanted, strict=True) for a, b in zip(f, w, strict=True))


def _exposes_by_random(direction: Direction) -> bool:
    generator = torch.Generator().manual_seed(1)
    b, elsewhere, theta = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    for k in range(1, 6):
        found = direction(lambda t: t - b, lambda t: t - elsewhere, theta.clone(), 0.3, k)
        if not torch.allclose(found, (1 - 0.7**k) * (theta - b)):
            return True
    return False


def _exposes_by_recursion(direction: Direction) -> Tensor:
    """Needs no closed form: k + 1 steps are one step, and then k steps from where it ended."""
    theta, bottom, lr = torch.tensor([0.5, 2.0, -1.0]), torch.tensor([0.0, 1.0, 1.0]), 0.2
    steepness, gaps = torch.tensor([4.0, 1.0, 0.5]), []
    tasks = (lambda t: steepness * (t - bottom)), (lambda t: 3.0 * (t + 2.0))
    step = lr * steepness * (theta - bottom)
    gaps.append(direction(*tasks, theta.clone(), lr, 1) - step)
    for k in (1, 2, 4):
        rest = direction(*tasks, theta - step, lr, k)
        gaps.append(direction(*tasks, theta.clone(), lr, k + 1) - step - rest)
    return torch.stack(gaps).abs().gt(1e-5).any()


def _in_double(support: Gradient, query: Gradient, theta: Tensor, lr: float, steps: int) -> Tensor:
    return (theta.double() - _walk(support, theta.double(), lr, steps)).to(theta)


def _with_momentum(support: Gradient, query: Gradient, theta: Tensor, lr: float, steps: int) -> Tensor:
    place, velocity = theta, torch.zeros_like(theta)
    for _ in range(steps):
        velocity = 0.9 * velocity + support(place)
        place = place - lr * velocity
    return theta - place


def _with_decaying_rate(support: Gradient, query: Gradient, theta: Tensor, lr: float, steps: int) -> Tensor:
    place = theta
    for step in range(steps):
        place = place - lr * 0.99**step * support(place)
    return theta - place


def _first_parameter_only(support: Gradient, query: Gradient, theta: Tensor, lr: float, steps: int) -> Tensor:
    way = theta - _walk(support, theta, lr, steps)
    return way * (torch.arange(len(way)) < 1).to(way)


def _averaged(support: Gradient, query: Gradient, theta: Tensor, lr: float, steps: int) -> Tensor:
    return (theta - _walk(support, theta, lr, steps)).mean().expand_as(theta).clone()


def _always(count: int) -> Direction:
    """Returns an implementation that takes `count` steps, whatever is asked for."""
    return lambda support, query, theta, lr, steps: theta - _walk(support, theta, lr, count)


# Implementations that the detector gets, as (says, implementation).
_RIGHT: tuple[tuple[str, Direction], ...] = (
    ("a right one: start minus end", lambda s, q, theta, lr, steps: theta - _walk(s, theta, lr, steps)),
    ("a right one that adds up its steps", lambda s, q, theta, lr, steps: _reptile_by_steps([s], theta, lr, steps)),
    ("a right one in float64 inside", _in_double),
)  # fmt: skip
_BROKEN: tuple[tuple[str, Direction], ...] = (
    ("end minus start", lambda s, q, theta, lr, steps: _walk(s, theta, lr, steps) - theta),
    ("the end read one step too early", lambda s, q, theta, lr, steps: theta - _walk(s, theta, lr, steps - 1)),
    ("measured from the first step on", lambda s, q, theta, lr, steps: _walk(s, theta, lr, 1) - _walk(s, theta, lr, steps)),
    ("trained on the query rows", lambda s, q, theta, lr, steps: theta - _walk(q, theta, lr, steps)),
    ("one step, whatever is asked for", lambda s, q, theta, lr, steps: theta - _walk(s, theta, lr, 1)),
    *((f"{k} steps, whatever is asked for", _always(k)) for k in (2, 3, 5, 10)),
    ("divided by the rate", lambda s, q, theta, lr, steps: (theta - _walk(s, theta, lr, steps)) / lr),
    ("start and end are one tensor", lambda s, q, theta, lr, steps: torch.zeros_like(theta)),
    ("only the first parameter has moved", _first_parameter_only),
    ("the parameters are in reverse order", lambda s, q, theta, lr, steps: (theta - _walk(s, theta, lr, steps)).flip(0)),
    ("every parameter gets the mean of all", _averaged),
    ("a rate that falls by one per cent a step", _with_decaying_rate),
    ("a weight decay of 0.001", lambda s, q, theta, lr, steps: theta - _walk(lambda t: s(t) + 1e-3 * t, theta, lr, steps)),
    ("momentum in the inner loop", _with_momentum),
)  # fmt: skip


def _displacement_cases(generator: Generator) -> list[Case]:
    return [Case(says, (implementation,)) for says, implementation in (*_RIGHT, *_BROKEN)]


def _query_matters(direction: Direction) -> bool:
    theta, support = torch.tensor([3.1, 1.4]), _valley([1.3, 0.7], [0.7, -1.0])
    one, other = (direction(support, _valley([1.0, 1.0], [b, b]), theta.clone(), 0.3, 3) for b in (5.0, -5.0))
    return not torch.equal(one, other)


def _moves(direction: Direction) -> bool:
    return bool(direction(_valley([1.0], [0.0]), _valley([1.0], [5.0]), torch.tensor([1.0]), 0.1, 1) == 0)


def _to_the_last_digit(direction: Direction) -> bool:
    theta, support, query = torch.tensor([3.1, 1.4]), _waves(1.5), _valley([2.0, 2.0], [9.0, 9.0])
    walks = {k: theta - _walk(support, theta, 0.2, k) for k in (1, 2, 4)}
    return not all(torch.equal(direction(support, query, theta.clone(), 0.2, k), way) for k, way in walks.items())


def _loose(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-2, atol=1e-2)


DISPLACEMENT = Exercise(
    id="10.5",
    title="Bug hunt: is the displacement right?",
    reference=exposes_displacement,
    cases=_displacement_cases,
    right=(_exposes_by_walking, _exposes_by_numbers, _exposes_by_random, _exposes_by_recursion),
    wrong=(
        Wrong(
            "one step only",
            lambda direction: _rings(direction, (1,)),
            "only one inner step is tried: whoever ignores `steps` passes",
            "Try several numbers of steps, 1 among them.",
        ),
        Wrong(
            "five steps only",
            lambda direction: _rings(direction, (5,)),
            "only one number of inner steps is tried: whoever always takes as many passes",
            "Try several numbers of steps, 1 among them.",
            also=tuple(lambda direction, k=k: _rings(direction, (k,)) for k in (2, 3, 10)),
        ),
        Wrong(
            "many steps only",
            lambda direction: _rings(direction, (60,)),
            "only a long walk is tried: near the bottom one step more or less cannot be seen",
            "Take few steps, 1 among them.",
        ),
        Wrong(
            "one bottom",
            lambda direction: _rings(direction, elsewhere=_BOTTOM),
            "support and query have the same bottom: training on the query rows goes unseen",
            "Give the query loss another bottom.",
        ),
        Wrong(
            "without sign",
            lambda direction: _rings(direction, by=lambda a, b: _close(a.abs(), b.abs())),
            "only sizes are compared: a turned sign passes",
            "Compare the numbers with their sign.",
        ),
        Wrong(
            "only the sign",
            lambda direction: _rings(direction, by=lambda a, b: bool((a.sign() == b.sign()).all())),
            "only the sign is compared: wrong lengths pass",
            "Compare with the closed form's value.",
        ),
        Wrong(
            "one parameter",
            lambda direction: _rings(direction, parameters=1),
            "only one parameter is tried: a fault that mixes up parameters, or forgets some, goes unseen",
            "Take a `theta` of several numbers, each with a valley of its own.",
        ),
        Wrong(
            "the sum",
            lambda direction: _rings(direction, by=lambda a, b: _close(a.sum(), b.sum())),
            "exchanged or averaged parameters pass: only a sum is compared, or all parameters have the same valley and start",
            "Give every parameter a valley of its own, and compare number by number.",
        ),
        Wrong(
            "the length",
            lambda direction: _rings(direction, by=lambda a, b: _close(a.norm(), b.norm())),
            "only the length of the displacement is compared: a turned sign and exchanged parameters keep it",
            "Compare number by number, with the sign.",
        ),
        Wrong(
            "the first parameter",
            lambda direction: _rings(direction, by=lambda a, b: _close(a[0], b[0])),
            "only the first parameter is compared: the others may be wrong, or not move at all",
            "Compare all of them: `torch.allclose` of the two vectors.",
        ),
        Wrong(
            "a rate of 1",
            lambda direction: _rings(direction, lr=1.0, steepness=(0.5, 0.2, 0.9)),
            "the rate is 1: whoever divides or multiplies by it, or forgets it, passes",
            "Take a rate other than 1, such as 0.2.",
        ),
        Wrong(
            "the cosine",
            lambda direction: _rings(direction, by=lambda a, b: bool(torch.cosine_similarity(a, b, dim=0) > 0.9999)),
            "only the direction is compared: a wrong length passes, such as a division by the rate",
            "Compare number by number with the closed form.",
        ),
        Wrong(
            "some parameter is right",
            lambda direction: _rings(direction, by=lambda a, b: bool(torch.isclose(a, b, rtol=1e-4, atol=1e-5).any())),
            "one right parameter is enough to pass",
            "All of them must be right: `torch.allclose`, or `.all()`.",
        ),
        Wrong(
            "a wide tolerance",
            lambda direction: _rings(direction, by=_loose),
            "the tolerance is so wide that small faults pass, such as a weight decay of 0.001 that was left on",
            "Rounding in float32 is far below 1e-4: compare with the tolerance of the table.",
        ),
        Wrong(
            "only the query",
            lambda direction: _query_matters(direction),
            "it is only asked whether the query loss matters, or whether the answer depends on it",
            "Compare with the closed form's value.",
        ),
        Wrong(
            "starts at the bottom",
            lambda direction: _rings(direction, start=_BOTTOM),
            "the walk starts at the support's bottom, where nothing has to move: only walks on the queries are seen",
            "Start away from the bottom.",
        ),
        Wrong(
            "to the last digit",
            _to_the_last_digit,
            "no rounding is allowed: a right answer that adds in another order is accused",
            "`torch.allclose` with a tolerance.",
        ),
        Wrong(
            "turned round",
            lambda direction: not _rings(direction),
            "the answer is turned round: True stands for a right implementation",
            "`torch.allclose` is True when all is well: put a `not` in front.",
        ),
        Wrong(
            "does it move",
            _moves,
            "it is only asked whether anything moves at all",
            "Compare with the closed form's value.",
        ),
    ),
    hints=(
        "On which loss do you know the end of a walk without walking?",
        "On h/2 (θ − b)² it is (1 − (1 − αh)^k)(θ − b), parameter by parameter. Which faults would your numbers hide?",
        "`theta`, `h`, `b` [3], all unequal, another b for the queries; for k in (1, 2, 5) `torch.allclose` with the closed form",
    ),
)

# ---------------------------------------------------------------------------------------------- 10.6 MAML++


def multi_step_loss(support_loss: Loss, query_loss: Loss, theta: Tensor, rates: Tensor, weights: Tensor) -> Tensor:
    """Returns the weighted sum of the query losses after each inner step. theta [D], rates [L], weights [L] -> scalar."""
    total = torch.zeros_like(weights[0])
    for rate, weight in zip(rates, weights, strict=True):
        theta = theta - rate * grad(support_loss)(theta)
        total = total + weight * query_loss(theta)
    return total


def _multi_step_stacked(support_loss: Loss, query_loss: Loss, theta: Tensor, rates: Tensor, weights: Tensor) -> Tensor:
    losses = []
    for step in range(len(rates)):
        theta = theta - rates[step] * grad(support_loss)(theta)
        losses.append(query_loss(theta))
    return weights @ torch.stack(losses)


def _multi_step_recursive(
    support_loss: Loss, query_loss: Loss, theta: Tensor, rates: Tensor, weights: Tensor
) -> Tensor:
    theta = theta - rates[0] * grad(support_loss)(theta)
    loss = weights[0] * query_loss(theta)
    if len(rates) == 1:
        return loss
    return loss + _multi_step_recursive(support_loss, query_loss, theta, rates[1:], weights[1:])


def _multi_step_places(support_loss: Loss, query_loss: Loss, theta: Tensor, rates: Tensor, weights: Tensor) -> Tensor:
    places = [theta]
    for rate in rates.unbind():
        (slope,) = vjp(support_loss, places[-1])[1](torch.ones((), dtype=theta.dtype))
        places.append(places[-1] - rate * slope)
    return torch.einsum("i,i->", weights, torch.stack([query_loss(place) for place in places[1:]]))


def _multi_step_autograd(support_loss: Loss, query_loss: Loss, theta: Tensor, rates: Tensor, weights: Tensor) -> Tensor:
    with torch.enable_grad():
        place, total = theta if theta.requires_grad else theta.clone().requires_grad_(), 0.0
        for i in range(weights.numel()):
            (slope,) = torch.autograd.grad(support_loss(place), place, create_graph=True)
            place = place - slope * rates[i]
            total = total + query_loss(place) * weights[i]
    return total


def _multi_step_with(
    *,
    direction: Callable[[Tensor], Tensor] = lambda g: g,
    rate_of: Callable[[Tensor, int], Tensor] = lambda rates, step: rates[step],
    before: bool = False,
    restart: bool = False,
    on_support: bool = False,
) -> Callable[..., Tensor]:
    """Returns the loss with one part replaced."""

    def loss(support_loss: Loss, query_loss: Loss, theta: Tensor, rates: Tensor, weights: Tensor) -> Tensor:
        place, total, judged = theta, torch.zeros_like(weights[0]), support_loss if on_support else query_loss
        for step in range(len(rates)):
            came_from = place
            base = theta if restart else place
            place = base - rate_of(rates, step) * direction(grad(support_loss)(base))
            total = total + weights[step] * judged(came_from if before else place)
        return total

    return loss


def _multi_step_cases(generator: Generator) -> list[Case]:
    def bowl(steepness: float, bottom: float) -> Loss:
        return lambda theta: (steepness / 2 * (theta - bottom).square() + torch.cos(theta)).sum()

    theta, tasks = torch.randn(3, generator=generator), (bowl(2.0, 1.0), bowl(1.5, 0.5))
    three = torch.tensor([0.3, 0.2, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    last = torch.tensor([0.3, -0.1, 0.2]), torch.tensor([0.0, 0.0, 1.0])
    heavy = torch.tensor([0.1, 0.25]), torch.tensor([2.0, 0.5])
    return [
        Case("one step", (*tasks, theta, torch.tensor([0.2]), torch.tensor([1.0]))),
        Case("3 steps with rates and weights of their own", (*tasks, theta, *three)),
        Case("3 steps, a negative rate and all weight on the last", (*tasks, theta, *last)),
        Case("2 steps, weights that add up to 2.5", (*tasks, theta, *heavy)),
        Case("3 steps in float64", (*tasks, theta.double(), *(t.double() for t in three))),
    ]  # fmt: skip


def _last_only(support_loss: Loss, query_loss: Loss, theta: Tensor, rates: Tensor, weights: Tensor) -> Tensor:
    last = torch.zeros_like(weights)
    return multi_step_loss(support_loss, query_loss, theta, rates, last + torch.eye(len(weights)).to(weights)[-1])


def _wrong_weights(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    return lambda s, q, theta, rates, weights: multi_step_loss(s, q, theta, rates, change(weights))


def _multi_step_cut(support_loss: Loss, query_loss: Loss, theta: Tensor, rates: Tensor, weights: Tensor) -> Tensor:
    """Cuts the graph at every new place: each step knows of itself only."""
    total = torch.zeros_like(weights[0])
    for rate, weight in zip(rates, weights, strict=True):
        theta = theta.detach() - rate * grad(support_loss)(theta.detach())
        total = total + weight * query_loss(theta)
    return total


def _multi_step_from_start(
    support_loss: Loss, query_loss: Loss, theta: Tensor, rates: Tensor, weights: Tensor
) -> Tensor:
    """Counts the start as well: weight i belongs to the loss before step i, and the last place has the last weight too."""
    before = _multi_step_with(before=True)(support_loss, query_loss, theta, rates, weights)
    return before + _last_only(support_loss, query_loss, theta, rates, weights) * weights[-1]


def _multi_step_same_slope(
    support_loss: Loss, query_loss: Loss, theta: Tensor, rates: Tensor, weights: Tensor
) -> Tensor:
    slope = grad(support_loss)(theta)
    places = [theta - rate * slope for rate in rates.cumsum(0)]
    return sum(w * query_loss(place) for w, place in zip(weights, places, strict=True))


MULTI_STEP = Exercise(
    id="10.6",
    title="MAML++: a loss after every step",
    reference=multi_step_loss,
    cases=_multi_step_cases,
    gradient=(2, 3, 4),
    right=(_multi_step_stacked, _multi_step_recursive, _multi_step_places, _multi_step_autograd),
    wrong=(
        Wrong(
            "only the last",
            _last_only,
            "only the loss after the last step counts: that is MAML with a rate for each step",
            "Add a weighted query loss inside the loop.",
        ),
        Wrong(
            "unweighted",
            _wrong_weights(torch.ones_like),
            "the losses are summed without their weights",
            "Multiply each loss by its weight.",
        ),
        Wrong(
            "plain mean",
            _wrong_weights(lambda w: torch.full_like(w, 1 / len(w))),
            "the losses are averaged, whatever the weights say",
            "Multiply each loss by its weight.",
        ),
        Wrong(
            "walks on the queries",
            lambda s, q, theta, rates, weights: multi_step_loss(q, q, theta, rates, weights),
            "the inner loop walks on the query loss: the learner trains on what it is tested on",
            "`grad(support_loss)`; the queries only judge.",
        ),
        Wrong(
            "divided by the steps",
            lambda s, q, theta, rates, weights: multi_step_loss(s, q, theta, rates, weights) / len(rates),
            "the weighted sum is divided by the number of steps",
            "The weights say all: take the sum.",
        ),
        Wrong(
            "before the step",
            _multi_step_with(before=True),
            "each loss is taken before its step: the first asks the initialisation, the last step counts for nothing",
            "Step first, then ask the queries.",
        ),
        Wrong(
            "the last summand",
            lambda s, q, theta, rates, weights: _last_only(s, q, theta, rates, weights) * weights[-1],
            "only the last weighted loss comes back: each one replaces those before it, as `=` in place of `+=` does",
            "`total = total + weight * query_loss(theta)`.",
        ),
        Wrong(
            "weights on the steps",
            lambda s, q, theta, rates, weights: multi_step_loss(s, q, theta, rates * weights, torch.ones_like(weights)),
            "the weights are multiplied into the steps, not into the losses",
            "A step has its rate, a loss has its weight.",
        ),
        Wrong(
            "one rate",
            _multi_step_with(rate_of=lambda rates, step: rates[0]),
            "the first rate is used for all steps",
            "Step number i has `rates[i]`.",
        ),
        Wrong(
            "first order",
            _multi_step_with(direction=lambda g: g.detach()),
            "the inner gradients are cut off: the value is right, its gradient is first order",
            "No `.detach()`: `torch.func.grad` keeps the graph by itself.",
        ),
        Wrong(
            "from the start again",
            _multi_step_with(restart=True),
            "every step starts at the initialisation again",
            "Go on from where the last step ended.",
        ),
        Wrong(
            "support losses",
            _multi_step_with(on_support=True),
            "the support is asked after each step, not the queries",
            "`query_loss` of the new parameters.",
        ),
        Wrong(
            "positive rates",
            lambda s, q, theta, rates, weights: multi_step_loss(s, q, theta, rates.abs(), weights),
            "the rates lose their sign",
            "Use the rates as they are.",
        ),
        Wrong(
            "normalised weights",
            _wrong_weights(lambda w: w / w.sum()),
            "the weighted sum is divided by the sum of the weights",
            "The weights say all: take the sum as it is.",
        ),
        Wrong(
            "softmax of the weights",
            _wrong_weights(lambda w: w.softmax(0)),
            "the weights go through a softmax",
            "`weights` are the weights themselves.",
        ),
        Wrong(
            "weights turned round",
            _wrong_weights(lambda w: w.flip(0)),
            "the weights are used in reverse order",
            "Weight i belongs to the loss after step i.",
        ),
        Wrong(
            "rates turned round",
            lambda s, q, theta, rates, weights: multi_step_loss(s, q, theta, rates.flip(0), weights),
            "the rates are used in reverse order",
            "Step number i has `rates[i]`.",
        ),
        Wrong(
            "the mean rate",
            _multi_step_with(rate_of=lambda rates, step: rates.mean()),
            "the mean rate is used for all steps",
            "Step number i has `rates[i]`.",
        ),
        Wrong(
            "uphill",
            lambda s, q, theta, rates, weights: multi_step_loss(s, q, theta, -rates, weights),
            "the inner steps go up the support loss",
            "A step is *minus* the rate times the gradient.",
        ),
        Wrong(
            "places cut off",
            _multi_step_cut,
            "every new place is cut off from the graph: the value is right, but no step knows of those before it",
            "No `.detach()`: the last loss depends on every step.",
        ),
        Wrong(
            "rates cut off",
            lambda s, q, theta, rates, weights: multi_step_loss(s, q, theta, rates.detach(), weights),
            "the rates are cut off from the graph: MAML++ could not learn them",
            "Use `rates[i]` as the tensor that it is, without `.item()` or `.detach()`.",
        ),
        Wrong(
            "the start counts too",
            _multi_step_from_start,
            "the query loss of the start is asked as well",
            "The first loss comes after the first step.",
            also=(
                lambda s, q, theta, rates, weights: (
                    multi_step_loss(s, q, theta, rates, weights) + weights[0] * q(theta)
                ),
            ),
        ),
        Wrong(
            "one gradient for all steps",
            _multi_step_same_slope,
            "all steps use the support gradient at the start",
            "Take the support gradient anew after every step.",
        ),
    ),
    hints=(
        "The inner loop as ever, and a question to the queries after every step.",
        "In the loop: one step with this step's rate, then add this step's weight times `query_loss`.",
        "`theta = theta - rate * torch.func.grad(support_loss)(theta)`, then `total = total + weight * query_loss(theta)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 10.7 agreement


def agreement_pull(losses: Sequence[Loss], theta: Tensor) -> Tensor:
    """Returns A, the mean over ordered pairs i, j with i unequal j of H_j g_i. losses: M functions [D] -> scalar; [D] -> [D]."""
    pairs = [(i, j) for i in range(len(losses)) for j in range(len(losses)) if i != j]
    slopes = [grad(loss)(theta) for loss in losses]
    return torch.stack([_hessian_times(losses[j], theta, slopes[i]) for i, j in pairs]).mean(0)


def _hessian_times(loss: Loss, theta: Tensor, vector: Tensor) -> Tensor:
    return grad(lambda place: grad(loss)(place) @ vector)(theta)


def _half_the_slope(losses: Sequence[Loss], theta: Tensor) -> Tensor:
    def agreement(place: Tensor) -> Tensor:
        slopes = torch.stack([grad(loss)(place) for loss in losses])
        products = slopes @ slopes.T
        count = len(losses)
        return (products.sum() - products.diagonal().sum()) / (count * (count - 1))

    return grad(agreement)(theta) / 2


def _with_hessians(losses: Sequence[Loss], theta: Tensor) -> Tensor:
    total, count = torch.zeros_like(theta), 0
    for i, first in enumerate(losses):
        for j, second in enumerate(losses):
            if i != j:
                total, count = total + hessian(second)(theta) @ grad(first)(theta), count + 1
    return total / count


def _all_less_own(losses: Sequence[Loss], theta: Tensor) -> Tensor:
    slopes = torch.stack([grad(loss)(theta) for loss in losses])
    others = slopes.sum(0) - slopes  # for each j the sum of g_i over i != j
    pulled = [vjp(grad(loss), theta)[1](other)[0] for loss, other in zip(losses, others, strict=True)]
    return sum(pulled) / (len(losses) * (len(losses) - 1))


def _by_autograd(losses: Sequence[Loss], theta: Tensor) -> Tensor:
    with torch.enable_grad():
        place = theta.clone().requires_grad_()
        slopes = [torch.autograd.grad(loss(place), place, create_graph=True)[0] for loss in losses]
        pairs = [(i, j) for j in range(len(losses)) for i in range(j)]
        dot = sum((slopes[i] * slopes[j]).sum() for i, j in pairs) / len(pairs)
        return torch.autograd.grad(dot, place)[0] / 2


def _pull_over(
    pairs: Callable[[int], list[tuple[int, int]]], factor: float = 1.0, normal: bool = False
) -> Callable[[Sequence[Loss], Tensor], Tensor]:
    """Returns the pull with other pairs (i, j), times a factor; normal: the gradients have length 1."""

    def pull(losses: Sequence[Loss], theta: Tensor) -> Tensor:
        slopes = [grad(loss)(theta) for loss in losses]
        if normal:
            slopes = [slope / slope.norm() for slope in slopes]
        products = [_hessian_times(losses[j], theta, slopes[i]) for i, j in pairs(len(losses))]
        return factor * torch.stack(products).mean(0)

    return pull


def _unequal(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(count) if i != j]


def _all_pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(count)]


def _pull_summed(losses: Sequence[Loss], theta: Tensor) -> Tensor:
    return agreement_pull(losses, theta) * len(losses) * (len(losses) - 1)


def _dot_only(losses: Sequence[Loss], theta: Tensor) -> Tensor:
    slopes = [grad(loss)(theta) for loss in losses]
    return torch.stack([slopes[i] @ slopes[j] for i, j in _unequal(len(losses))]).mean()


def _mean_gradient(losses: Sequence[Loss], theta: Tensor) -> Tensor:
    return torch.stack([grad(loss)(theta) for loss in losses]).mean(0)


def _cosine_slope(losses: Sequence[Loss], theta: Tensor) -> Tensor:
    def cosine(place: Tensor) -> Tensor:
        slopes = [grad(loss)(place) for loss in losses]
        slopes = [slope / slope.norm() for slope in slopes]
        return torch.stack([slopes[i] @ slopes[j] for i, j in _unequal(len(losses))]).mean()

    return grad(cosine)(theta) / 2


def _pull_of_diagonals(losses: Sequence[Loss], theta: Tensor) -> Tensor:
    pairs = _unequal(len(losses))
    return torch.stack([hessian(losses[j])(theta).diagonal() * grad(losses[i])(theta) for i, j in pairs]).mean(0)


def _pull_by_difference(losses: Sequence[Loss], theta: Tensor, step: float = 1e-2) -> Tensor:
    slopes = [grad(loss)(theta) for loss in losses]
    moved = [slopes[j] - grad(losses[j])(theta - step * slopes[i]) for i, j in _unequal(len(losses))]
    return torch.stack(moved).mean(0) / step


def _agreement_cases(generator: Generator) -> list[Case]:
    def bowl(wave: float, *bottom: float) -> Loss:
        def loss(theta: Tensor) -> Tensor:
            gap = theta - torch.tensor(bottom).to(theta)
            return gap.square().sum() + 0.5 * torch.sin(wave * theta).prod() + 0.3 * (gap[:1] * gap[-1:]).sum()

        return loss

    def valley(steepness: float, bottom: float) -> Loss:
        return lambda theta: steepness / 2 * (theta - bottom).square().sum()

    theta = torch.randn(3, generator=generator)
    two, three = (
        [bowl(1.0, 1.0, 0.0, 2.0), bowl(2.0, -1.0, 0.5, 0.0)],
        [bowl(w, w, 1.0 - w, 0.3) for w in (0.5, 1.5, 2.5)],
    )
    return [
        Case("two draws: the valleys of the lesson", ([valley(4.0, 0.0), valley(1.0, 1.0)], torch.tensor([0.5]))),
        Case("two draws, 3 parameters", (two, theta)),
        Case("three draws, 3 parameters", (three, theta)),
        Case("three draws in float64", (three, theta.double())),
    ]  # fmt: skip


AGREEMENT = Exercise(
    id="10.7",
    title="The pull towards agreement",
    reference=agreement_pull,
    cases=_agreement_cases,
    right=(_half_the_slope, _with_hessians, _all_less_own, _by_autograd),
    wrong=(
        Wrong(
            "no half",
            _pull_over(_unequal, 2.0),
            "the slope of the inner product is returned whole: it is H_j g_i *plus* H_i g_j, which is twice A",
            "A is one half of that slope.",
        ),
        Wrong(
            "own pairs too",
            _pull_over(_all_pairs),
            "a draw is also paired with itself",
            "Take pairs of *different* draws only: i unequal j.",
        ),
        Wrong(
            "only its own",
            _pull_over(lambda count: [(i, i) for i in range(count)]),
            "every Hessian meets its own gradient",
            "The Hessian belongs to one draw and the gradient to another.",
        ),
        Wrong(
            "one order",
            _pull_over(lambda count: [(i, j) for i, j in _unequal(count) if i < j]),
            "each pair is taken in one order only: H_2 g_1 and never H_1 g_2",
            "Ordered pairs: (1, 2) and (2, 1) both count.",
        ),
        Wrong(
            "the other order",
            _pull_over(lambda count: [(i, j) for i, j in _unequal(count) if i > j]),
            "each pair is taken in one order only: H_1 g_2 and never H_2 g_1",
            "Ordered pairs: (1, 2) and (2, 1) both count.",
        ),
        Wrong(
            "first two draws",
            _pull_over(lambda count: [(0, 1), (1, 0)]),
            "only the first two draws are used",
            "Go through all pairs of `losses`.",
        ),
        Wrong(
            "summed",
            _pull_summed,
            "the pairs are summed",
            "Take the mean over the ordered pairs.",
            also=(lambda losses, theta: _pull_summed(losses, theta) / 2,),
        ),
        Wrong(
            "divided by the draws",
            lambda losses, theta: _pull_summed(losses, theta) / len(losses),
            "the sum over pairs is divided by the number of draws",
            "M draws have M (M - 1) ordered pairs of different ones.",
        ),
        Wrong(
            "divided by all pairs",
            lambda losses, theta: _pull_summed(losses, theta) / len(losses) ** 2,
            "the sum over pairs of different draws is divided by all M² pairs",
            "M draws have M (M - 1) ordered pairs of different ones.",
        ),
        Wrong(
            "half of A",
            _pull_over(_unequal, 0.5),
            "half of A comes back, as when one gradient counts as a constant, or unordered pairs are divided by M (M - 1)",
            "Halve the slope of the *mean* product, with both gradients taken at `t`; the mean of H_j g_i needs no half.",
        ),
        Wrong(
            "neighbours only",
            _pull_over(lambda count: [p for i in range(count - 1) for p in ((i, i + 1), (i + 1, i))]),
            "only neighbouring draws are paired",
            "Go through all pairs of `losses`.",
        ),
        Wrong(
            "neighbours, one order",
            _pull_over(lambda count: [(i, i + 1) for i in range(count - 1)]),
            "only neighbouring draws are paired, and in one order: H_2 g_1 and never H_1 g_2",
            "Go through all ordered pairs of different draws.",
        ),
        Wrong(
            "one pair",
            _pull_over(lambda count: [(0, 1)]),
            "one pair alone is used: H_2 g_1 of the first two draws",
            "Go through all ordered pairs of different draws.",
        ),
        Wrong(
            "own pairs on top",
            lambda losses, theta: _pull_over(_all_pairs)(losses, theta) * len(losses) / (len(losses) - 1),
            "a draw is also paired with itself, and the sum divided by the number of pairs without these",
            "Take pairs of *different* draws only: i unequal j.",
        ),
        Wrong(
            "the cosine",
            _cosine_slope,
            "the cosine of the gradients is differentiated: their lengths are divided out",
            "Use the inner product as it is.",
        ),
        Wrong(
            "the diagonal",
            _pull_of_diagonals,
            "only the diagonal of each Hessian is used",
            "The whole H_j meets g_i: a matrix times a vector.",
        ),
        Wrong(
            "a finite difference",
            _pull_by_difference,
            "the difference of two gradients is taken over a step: near A, but not it",
            "`torch.func.grad` differentiates exactly.",
        ),
        Wrong(
            "turned sign",
            _pull_over(_unequal, -1.0),
            "the sign is turned",
            "A stands for plus H_j g_i; the minus of the table stands before it.",
        ),
        Wrong(
            "lengths lost",
            _pull_over(_unequal, normal=True),
            "the gradients are brought to length 1 first",
            "Use the gradients as they are.",
        ),
        Wrong(
            "the inner product",
            _dot_only,
            "the inner product itself is returned, a single number",
            "A is one half of its *gradient* with respect to `theta`.",
        ),
        Wrong(
            "the mean gradient",
            _mean_gradient,
            "the mean gradient comes back: that is G",
            "A needs second derivatives: H_j g_i.",
        ),
    ),
    hints=(
        "H_j g_i says how fast g_j changes when θ moves along g_i. Summed over both orders it is the slope of g_i · g_j.",
        "`grad(lambda t: grad(losses[j])(t) @ g_i)(theta)` for each pair; or half the gradient of the mean g_i · g_j.",
        "`agreement(t)`: the mean of `grad(a)(t) @ grad(b)(t)` over pairs; the answer is `grad(agreement)(theta) / 2`",
    ),
)

EXERCISES = (FIRST_ORDER, REPTILE, META_SGD, ANIL, DISPLACEMENT, MULTI_STEP, AGREEMENT)
