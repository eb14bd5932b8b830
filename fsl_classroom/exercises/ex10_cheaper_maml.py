"""Exercises of lesson 10: first-order gradient, Reptile's displacement, Meta-SGD's step, ANIL's split, a detector, MAML++.

Cases: every exercise builds its own; 10.1 and 10.2 use the gradients `_valley` and `_waves`, 10.3 and 10.4 the tensors of
`_named`. Losses come as functions of a vector of parameters, most of them as their gradients, so nothing needs a network.
The detector 10.5 gets implementations as arguments and must return True for the wrong ones only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.func import grad, vjp

from fsl_classroom.checking.model import Case, Exercise, Wrong

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
    right=(_first_order_recursive, _first_order_in_place),
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
        ),
        Wrong(
            "where the walk ends",
            lambda s, q, theta, lr, steps: _walk(s, theta, lr, steps),
            "the adapted parameters are returned",
            "Hand them to `query_gradient` and return what it says.",
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
    right=(_reptile_by_ends, _reptile_by_steps),
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
            "each task starts where the one before it ended, and the whole way is divided by the tasks",
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


def _named(generator: Generator, shapes: dict[str, tuple[int, ...]]) -> Params:
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


_SHAPES = {"encoder.weight": (3, 2), "encoder.bias": (3,), "head.weight": (2, 3), "head.bias": (2,)}


def _meta_sgd_cases(generator: Generator) -> list[Case]:
    nets = [_named(generator, _SHAPES) for _ in range(3)]
    one = {"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([2.0, 3.0])}, {"w": torch.tensor([0.5, -0.1])}
    doubles = tuple({name: value.double() for name, value in net.items()} for net in nets)
    return [
        Case("two numbers, one rate positive and one negative", one),
        Case("a small net, rates of either sign", tuple(nets)),
        Case("a small net in float64", doubles),
    ]


META_SGD = Exercise(
    id="10.3",
    title="Meta-SGD's step",
    reference=meta_sgd_step,
    cases=_meta_sgd_cases,
    gradient=(0, 1, 2),
    right=(_meta_sgd_loop, _meta_sgd_addcmul),
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
            "the rates of a tensor are averaged to one",
            "Multiply element by element: every number has a rate of its own.",
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
            "the rates are taken for logarithms",
            "`rates[name]` are the rates themselves.",
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
    return [
        case("an encoder and a head", _SHAPES, "head"),
        case("names that look like the head's", tricky, "head"),
        case("a head inside a submodule", {"net.out.weight": (2, 2), "net.body.weight": (2, 2), "out.bias": (2,)}, "net.out"),
        case('the whole model as head: ""', _SHAPES, ""),
        case("a head of two layers", {"encoder.weight": (3, 2), "head.0.weight": (2, 3), "head.2.bias": (2,)}, "head"),
        case("in float64", _SHAPES, "head", torch.float64),
    ]  # fmt: skip


ANIL = Exercise(
    id="10.4",
    title="ANIL's split",
    reference=anil_step,
    cases=_anil_cases,
    gradient=(0,),
    right=(_anil_by_parts, _anil_by_rates),
    wrong=(
        Wrong(
            "no dot",
            _anil_where(lambda n, head: n.startswith(head)),
            "names that merely begin like the head, such as `header.weight`, move with it",
            'Ask for the head\'s name *and a dot*: `name.startswith(head + ".")`.',
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
        ),
        Wrong(
            "first part only",
            _anil_where(lambda n, head: not head or n.split(".")[0] == head),
            "only the first part of a name is compared: a head such as `net.out` is never found",
            'Compare as many parts as the head has, or ask `name.startswith(head + ".")`.',
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
_STEEPNESS, _BOTTOM, _ELSEWHERE, _START, _LR = 1.3, 0.7, -2.9, 3.1, 0.3


def _rings(
    direction: Direction,
    steps: Sequence[int] = (1, 2, 4),
    *,
    lr: float = _LR,
    start: float = _START,
    elsewhere: float = _ELSEWHERE,
    by: Callable[[Tensor, Tensor], bool] = lambda a, b: torch.allclose(a, b, rtol=1e-3, atol=1e-4),
) -> bool:
    """Returns True if the displacement on a 1-D quadratic differs from its closed form for any of these numbers of steps."""
    theta = torch.tensor([start])
    support, query = _valley([_STEEPNESS], [_BOTTOM]), _valley([_STEEPNESS], [elsewhere])
    for k in steps:
        expected = (1 - (1 - lr * _STEEPNESS) ** k) * (theta - _BOTTOM)
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
    return bool(torch.stack(gaps).abs().max() > 1e-3)


def _exposes_by_doubling(direction: Direction) -> bool:
    start, steep, bottom, lr = torch.tensor([4.0]), 2.0, 1.0, 0.1
    found = [float(direction(_valley([steep], [bottom]), _valley([1.0], [-5.0]), start.clone(), lr, k)) for k in (1, 3)]
    wanted = [3 * (1 - 0.8), 3 * (1 - 0.8**3)]
    return any(abs(a - b) > 1e-3 for a, b in zip(found, wanted, strict=True))


def _in_double(support: Gradient, query: Gradient, theta: Tensor, lr: float, steps: int) -> Tensor:
    return (theta.double() - _walk(support, theta.double(), lr, steps)).to(theta)


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
    ("divided by the rate", lambda s, q, theta, lr, steps: (theta - _walk(s, theta, lr, steps)) / lr),
    ("start and end are one tensor", lambda s, q, theta, lr, steps: torch.zeros_like(theta)),
)  # fmt: skip


def _displacement_cases(generator: Generator) -> list[Case]:
    return [Case(says, (implementation,)) for says, implementation in (*_RIGHT, *_BROKEN)]


DISPLACEMENT = Exercise(
    id="10.5",
    title="Bug hunt: is the displacement right?",
    reference=exposes_displacement,
    cases=_displacement_cases,
    right=(_exposes_by_walking, _exposes_by_doubling),
    wrong=(
        Wrong(
            "one step only",
            lambda direction: _rings(direction, (1,)),
            "only one inner step is tried: whoever ignores `steps` passes",
            "Try several numbers of steps, 1 among them.",
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
            lambda direction: _rings(direction, by=lambda a, b: torch.allclose(a.abs(), b.abs(), rtol=1e-3, atol=1e-4)),
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
            "starts at the bottom",
            lambda direction: _rings(direction, start=_BOTTOM),
            "the walk starts at the support's bottom, where nothing has to move: only walks on the queries are seen",
            "Start away from the bottom.",
        ),
        Wrong(
            "to the last digit",
            lambda direction: _rings(direction, by=torch.equal),
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
            lambda direction: bool(
                direction(_valley([1.0], [0.0]), _valley([1.0], [5.0]), torch.tensor([1.0]), 0.1, 1) == 0
            ),
            "it is only asked whether anything moves at all",
            "Compare with the closed form's value.",
        ),
    ),
    hints=(
        "On which loss do you know the end of a walk without walking?",
        "On h/2 (θ − b)² the displacement after k steps is (1 − (1 − αh)^k)(θ − b). Let the query loss have another b.",
        "For k in (1, 3): `torch.allclose(direction(g_support, g_query, theta, lr, k), closed_form(k), atol=1e-4)`, else True",
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
    return [
        Case("one step", (*tasks, theta, torch.tensor([0.2]), torch.tensor([1.0]))),
        Case("3 steps with rates and weights of their own", (*tasks, theta, *three)),
        Case("3 steps, a negative rate and all weight on the last", (*tasks, theta, *last)),
        Case("3 steps in float64", (*tasks, theta.double(), *(t.double() for t in three))),
    ]  # fmt: skip


def _last_only(support_loss: Loss, query_loss: Loss, theta: Tensor, rates: Tensor, weights: Tensor) -> Tensor:
    last = torch.zeros_like(weights)
    return multi_step_loss(support_loss, query_loss, theta, rates, last + torch.eye(len(weights)).to(weights)[-1])


def _wrong_weights(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    return lambda s, q, theta, rates, weights: multi_step_loss(s, q, theta, rates, change(weights))


MULTI_STEP = Exercise(
    id="10.6",
    title="MAML++: a loss after every step",
    reference=multi_step_loss,
    cases=_multi_step_cases,
    gradient=(2, 3, 4),
    right=(_multi_step_stacked, _multi_step_recursive),
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
    ),
    hints=(
        "The inner loop as ever, and a question to the queries after every step.",
        "In the loop: one step with this step's rate, then add this step's weight times `query_loss`.",
        "`theta = theta - rate * torch.func.grad(support_loss)(theta)`, then `total = total + weight * query_loss(theta)`",
    ),
)

EXERCISES = (FIRST_ORDER, REPTILE, META_SGD, ANIL, DISPLACEMENT, MULTI_STEP)
