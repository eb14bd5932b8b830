"""Records what an answer does: one outcome for every case, every gradient and every property of an exercise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fsl_classroom.checking.compare import DOUBLE, compare, tolerance_for
from fsl_classroom.checking.elsewhere import Elsewhere
from fsl_classroom.checking.model import Case, Exercise
from fsl_classroom.checking.sandbox import Capture, run, same_error, same_words
from fsl_classroom.checking.state import Changes
from fsl_classroom.checking.timelimit import Clock
from fsl_classroom.checking.tree import clone, float_tensors, to_double

_SEED = 20  # of the cases, of the weights on outputs and of the coordinates for central differences
_PROBES = 6  # coordinates for central differences in each case
_EPSILON = 1e-5
Answer = Callable[..., Any]
Step = tuple[str, int]  # ("case" | "gradient" | "property", position)


@dataclass
class Outcome:
    """Everything about one step that can be noticed from outside.

    result:   what the answer returned; None for a property
    error:    what it raised
    late:     whether the time was up first
    written:  name -> value after the call, for arguments that the answer wrote into
    slopes:   the gradient of a weighted sum of the outputs for every tensor of `gradient`; None where no gradient flows
    verdict:  what a property says; None if it holds
    changes:  the global state that the answer changed
    printed:  what it printed
    narrow:   whether float32 came where the inputs were float64; `result` is then in float64
    """

    result: Any = None
    error: BaseException | None = None
    late: bool = False
    written: dict[str, Any] = field(default_factory=dict)
    slopes: list[Tensor | None] = field(default_factory=list)
    verdict: str | None = None
    changes: Changes = field(default_factory=Changes)
    printed: str = ""
    narrow: bool = False


def cases_of(exercise: Exercise) -> list[Case]:
    """Returns the cases of an exercise, newly made, so that no two answers share objects in them."""
    return list(exercise.cases(torch.Generator().manual_seed(_SEED)))


def steps_of(exercise: Exercise, cases: Sequence[Case]) -> list[Step]:
    """Returns all steps of an exercise in order: cases, gradients, properties."""
    steps = [("case", i) for i in range(len(cases))]
    if exercise.gradient:
        steps += [("gradient", i) for i in range(len(cases))]
    return steps + [("property", i) for i in range(len(exercise.properties))]


def attempt(exercise: Exercise, cases: Sequence[Case], answer: Answer, step: Step, clock: Clock) -> Outcome:
    """Tries an answer in one step."""
    if not isinstance(answer, Elsewhere):
        return _attempt(exercise, cases, answer, step, clock)
    answer.begin()
    outcome = _attempt(exercise, cases, answer, step, clock)
    outcome.changes, outcome.printed = answer.end()
    return outcome


def _attempt(exercise: Exercise, cases: Sequence[Case], answer: Answer, step: Step, clock: Clock) -> Outcome:
    kind, position = step
    if kind == "case":
        return _attempt_case(exercise, cases[position], answer, clock)
    out = Capture()
    if kind == "gradient":
        ran = run(lambda: _value_and_slopes(exercise, cases[position], answer), clock, out)
        result, slopes = (None, []) if ran.result is None else ran.result
        return Outcome(result, ran.error, ran.late, slopes=slopes, changes=ran.changes, printed=out.text())
    law = exercise.properties[position]
    ran = run(lambda: law.holds(answer, exercise.reference), clock, out)
    verdict = None if ran.result is None else str(ran.result)
    return Outcome(None, ran.error, ran.late, verdict=verdict, changes=ran.changes, printed=out.text())


def _attempt_case(exercise: Exercise, case: Case, answer: Answer, clock: Clock) -> Outcome:
    args, kwargs, out = clone(case.args), clone(dict(case.kwargs)), Capture()
    ran = run(lambda: answer(*args, **kwargs), clock, out)
    before = named_arguments(exercise.reference, case.args, case.kwargs)
    after = named_arguments(exercise.reference, args, kwargs)
    written = {name: value for name, value in after.items() if compare(before[name], value, 0.0) is not None}
    return Outcome(ran.result, ran.error, ran.late, written, changes=ran.changes, printed=out.text())


def named_arguments(reference: Answer, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns parameter name -> value, with the names from the reference's signature."""
    try:
        parameters = list(inspect.signature(reference).parameters.values())
    except (TypeError, ValueError):  # a reference without a signature
        parameters = []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in plain]
    names += [f"argument {i + 1}" for i in range(len(names), len(args))]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _double_arguments(
    exercise: Exercise, case: Case
) -> tuple[tuple[Any, ...], dict[str, Any], list[tuple[str, Tensor]]]:
    """Returns args and kwargs in float64, and (name, tensor) for the tensors through which gradient must flow."""
    args, kwargs = to_double(case.args), to_double(dict(case.kwargs))
    names = list(named_arguments(exercise.reference, args, {}))
    leaves = [(names[i] + path, leaf) for i in exercise.gradient for path, leaf in float_tensors(args[i])]
    for _, leaf in leaves:
        leaf.requires_grad_(True)
    return args, kwargs, leaves


def _weighted_sum(result: Any) -> Tensor | None:
    """Returns the sum of all outputs times fixed random weights, which depends on every output; None without outputs."""
    generator = torch.Generator().manual_seed(_SEED)
    terms = []
    for _, tensor in float_tensors(result):
        weights = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        terms.append((tensor * weights.to(tensor)).sum())
    return torch.stack(terms).sum() if terms else None


def _value_and_slopes(exercise: Exercise, case: Case, answer: Answer) -> tuple[Any, list[Tensor | None]]:
    """Returns the answer's result in float64 and its slopes as in `Outcome`."""
    args, kwargs, leaves = _double_arguments(exercise, case)
    with torch.enable_grad():
        result = answer(*args, **kwargs)
        total = _weighted_sum(result)
        if total is None or not total.requires_grad:
            return result, [None] * len(leaves)
        return result, list(torch.autograd.grad(total, [leaf for _, leaf in leaves], allow_unused=True))


def gradient_names(exercise: Exercise, case: Case) -> list[str]:
    """Returns the names of the tensors through which gradient must flow, in the order of Outcome.slopes."""
    return [name for name, _ in _double_arguments(exercise, case)[2]]


def probe_gradient(
    exercise: Exercise, case: Case, answer: Answer, slopes: Sequence[Tensor | None], clock: Clock
) -> str | None:
    """Compares an answer's gradient with central differences of its own output at a few coordinates.

    Returns None if they agree, else what is wrong.
    """
    sizes = [leaf.numel() for _, leaf in _double_arguments(exercise, case)[2]]
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(_SEED))
    for flat in order[:_PROBES].tolist():
        which = 0
        while flat >= sizes[which]:
            flat, which = flat - sizes[which], which + 1
        ends: list[float] = []
        for side in (_EPSILON, -_EPSILON):
            args, kwargs, leaves = _double_arguments(exercise, case)
            name, leaf = leaves[which]
            place = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), leaf.shape))
            with torch.no_grad():
                leaf[place] += side
            ran = run(lambda a=args, k=kwargs: _weighted_sum(answer(*a, **k)), clock, Capture())
            if ran.late:
                return "Checking the gradient by finite differences takes too long: is a loop slow?"
            if ran.error is not None or ran.result is None:
                return f"Moving {name} by {side:g} ends in an error ({type(ran.error).__name__})."
            ends.append(float(ran.result.detach()))
        measured = (ends[0] - ends[1]) / (2 * _EPSILON)
        slope = slopes[which]
        claimed = 0.0 if slope is None else float(slope.reshape(-1)[flat])
        if not abs(measured - claimed) <= 1e-5 * (1 + abs(measured)):
            return (
                f"Gradient of a weighted sum of the outputs with respect to {name}{list(place) or ''}: "
                f"finite differences give {measured:.6g}, autograd through your function gives {claimed:.6g}."
            )
    return None


def tolerance_of(exercise: Exercise, cases: Sequence[Case], step: Step) -> float:
    """Returns the tolerance for results in a step."""
    kind, position = step
    if kind == "case":
        return tolerance_for((cases[position].args, dict(cases[position].kwargs)), exercise.tolerance)
    return min(exercise.tolerance, DOUBLE)  # gradients are taken in float64


def same_outcome(exercise: Exercise, first: Outcome, second: Outcome, tolerance: float, numbers: bool = False) -> bool:
    """Returns True if two outcomes of a step are the same in everything that can be noticed.

    numbers: whether the numbers in what a property says count as well
    """
    if first.late or second.late:
        return first.late and second.late
    if first.error is not None or second.error is not None:
        return first.error is not None and second.error is not None and same_error(first.error, second.error)
    if (first.verdict is None) != (second.verdict is None):
        return False
    if not same_words(first.verdict, second.verdict, numbers):
        return False
    if first.changes.spoils != second.changes.spoils:
        return False
    if set(first.written) != set(second.written) or len(first.slopes) != len(second.slopes):
        return False
    if any((a is None) != (b is None) for a, b in zip(first.slopes, second.slopes, strict=True)):
        return False
    if compare(first.slopes, second.slopes, 1e-6) is not None:
        return False
    if compare(first.written, second.written, tolerance) is not None:
        return False
    return difference(exercise, first.result, second.result, tolerance) is None


def difference(exercise: Exercise, expected: Any, got: Any, tolerance: float) -> str | None:
    """Returns None if the results agree, else what differs, by the exercise's own comparison if it has one."""
    words = compare(expected, got, tolerance)
    if words is None or exercise.same is None:
        return words
    if other_kind := compare(expected, got, tolerance, values=False):
        return other_kind
    try:
        return exercise.same(got, expected)
    except Exception as error:  # the result breaks a comparison that trusts types and shapes
        return f"The result cannot be compared ({type(error).__name__}): {words}"
