"""Finds what is wrong with an answer and says it in words: kinds and values first, then gradient flow, laws, gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsl_classroom.checking.compare import DOUBLE, as_bool, compare
from fsl_classroom.checking.model import Case, Exercise, Wrong
from fsl_classroom.checking.outcome import (
    Answer,
    Outcome,
    Step,
    attempt,
    difference,
    gradient_names,
    probe_gradient,
    same_outcome,
    steps_of,
    tolerance_of,
)
from fsl_classroom.checking.sandbox import error_words, reads_nothing
from fsl_classroom.checking.timelimit import Clock
from fsl_classroom.checking.tree import float_tensors, widened

Outcomes = Mapping[Step, Outcome]
ENTRY = 0.5  # seconds that a classic wrong answer has at least; some of them are endless loops
_NOTHING: Outcomes = {}
_MOST_ITEMS = 1_000_000  # of a list; a result with more, where few are expected, is not asked for again and again
PATIENCE = 60.0  # seconds for the reference, which is trusted
BUSY = 3.0  # how many times slower a busy machine may be before the time that it takes counts


@dataclass
class Fault:
    """The first thing that is wrong.

    lines:   to print
    printed: what the answer printed in that step
    hedged:  whether it is found without comparing values that could tell one mistake from another
    """

    lines: list[str]
    printed: str = ""
    hedged: bool = False


def examine(
    exercise: Exercise, cases: Sequence[Case], answer: Answer, clock: Clock, reference: Outcomes = _NOTHING
) -> dict[Step, Outcome]:
    """Tries an answer in every step, up to the first one that takes too long or whose result fills the memory.

    reference: outcomes of the reference; a float32 result is then turned into float64 where the reference's is that
    """
    outcomes: dict[Step, Outcome] = {}
    for step in steps_of(exercise, cases):
        outcomes[step] = _widened(attempt(exercise, cases, answer, step, clock), reference.get(step))
        huge = step in reference and _size(outcomes[step].result) > _MOST_ITEMS > _size(reference[step].result)
        if outcomes[step].late or huge:
            break
    return outcomes


def first_fault(
    exercise: Exercise, cases: Sequence[Case], outcomes: Outcomes, reference: Outcomes, answer: Answer, seconds: float
) -> Fault | None:
    """Returns the first fault of an examined answer, or None. Finite differences are left to `gradient_fault`."""
    of_cases = [step for step in outcomes if step[0] == "case"]
    gradients = [step for step in outcomes if step[0] == "gradient"]
    laws = [step for step in outcomes if step[0] == "property"]
    always = lambda step: _always(outcomes, reference, step)  # noqa: E731
    looks: list[tuple[list[Step], Callable[[Step], list[str] | str | None]]] = [
        (of_cases, lambda step: _ended(outcomes[step], answer, seconds)),
        (of_cases, lambda step: _kind(outcomes[step], reference[step])),
        (of_cases, lambda step: _not_a_number(outcomes[step], reference[step])),
        (of_cases, lambda step: _written(outcomes[step], reference[step])),
        (of_cases, always),
        (of_cases, lambda step: _equal(exercise, outcomes[step], reference[step], tolerance_of(exercise, cases, step))),
        (of_cases, lambda step: _spoilt(outcomes[step], reference[step])),
        (gradients, lambda step: _ended(outcomes[step], answer, seconds)),
        (gradients, lambda step: _kind(outcomes[step], reference[step])),
        (
            gradients,
            lambda step: _equal(exercise, outcomes[step], reference[step], tolerance_of(exercise, cases, step)),
        ),
        (gradients, lambda step: _flows(exercise, cases[step[1]], outcomes[step], reference[step])),
        (laws, lambda step: _ended(outcomes[step], answer, seconds)),
        (laws, lambda step: outcomes[step].verdict),
        (gradients + laws, lambda step: _spoilt(outcomes[step], reference[step])),
    ]
    for steps, look in looks:
        for step in steps:
            if words := look(step):
                lines = [words] if isinstance(words, str) else words
                hedged = look is always or step[0] == "property"
                return Fault([_tried(exercise, cases, step), *lines], outcomes[step].printed, hedged)
    return None


def gradient_fault(
    exercise: Exercise, cases: Sequence[Case], outcomes: Outcomes, reference: Outcomes, answer: Answer, clock: Clock
) -> Fault | None:
    """Returns a fault of the answer's gradient, or None.

    An answer with the right values has the right gradient if it agrees with the reference's, which `verify` holds against finite
    differences. If it does not agree, finite differences of the answer itself show the learner that autograd missed something.
    """
    for step in [step for step in outcomes if step[0] == "gradient"]:
        case = cases[step[1]]
        names = gradient_names(exercise, case)
        ours, theirs = reference[step].slopes, outcomes[step].slopes
        pairs = [(n, a, b) for n, a, b in zip(names, ours, theirs, strict=True) if a is not None and b is not None]
        expected, got = {n: a for n, a, _ in pairs}, {n: b for n, _, b in pairs}
        if words := compare(expected, got, 10 * DOUBLE if outcomes[step].narrow else DOUBLE):
            measured = None if outcomes[step].narrow else probe_gradient(exercise, case, answer, theirs, clock)
            words = measured or f"The gradient of a weighted sum of the outputs differs. {words}"
            return Fault([_tried(exercise, cases, step), words], outcomes[step].printed)
    return None


def _widened(outcome: Outcome, reference: Outcome | None) -> Outcome:
    """Turns a float32 result into float64 if that is expected, and notes it: a table without a dtype is no wrong idea."""
    if reference is not None:
        wide = widened(reference.result, outcome.result)
        outcome.narrow, outcome.result = wide is not outcome.result, wide
    return outcome


def _size(result: Any) -> int:
    return len(result) if type(result) in (list, tuple, dict, set) else 0


def _always(outcomes: Outcomes, reference: Outcomes, step: Step) -> str | None:
    """Returns what is wrong if an answer says True in every case, or False, and this step's case asks for the other."""
    cases = [other for other in outcomes if other[0] == "case"]
    wanted, got = ([as_bool(trial[case].result) for case in cases] for trial in (reference, outcomes))
    if set(wanted) != {True, False} or len(set(got)) != 1 or got[0] is None:
        return None
    if as_bool(reference[step].result) == got[0]:
        return None
    never = "always says True" if got[0] else "never says True"
    return (
        f"It {never}: all {len(got)} cases give {got[0]}, but {wanted.count(not got[0])} of them ask for {not got[0]}."
    )


def _tried(exercise: Exercise, cases: Sequence[Case], step: Step) -> str:
    """Says what was tried in a step."""
    kind, position = step
    if kind == "property":
        return f"Property: {exercise.properties[position].says.rstrip('.')}."
    says = cases[position].says.rstrip(".")
    return f"Tried: {says}." if kind == "case" else f"Tried with a gradient, in float64: {says}."


def _ended(outcome: Outcome, answer: Answer, seconds: float) -> list[str] | None:
    """Returns what is wrong if the answer was late or raised an error."""
    if outcome.late:
        return [f"No answer within {seconds:g} seconds: is there a loop that does not end, or is it only slow?"]
    return None if outcome.error is None else error_words(outcome.error, answer)


def _kind(outcome: Outcome, reference: Outcome) -> str | None:
    """Returns what is wrong with type, shape, dtype or device, also if the exercise has its own comparison of values."""
    return compare(reference.result, outcome.result, 0.0, values=False)


def _not_a_number(outcome: Outcome, reference: Outcome) -> str | None:
    """Returns what is wrong if a result holds NaN where the reference has none."""
    expected = [tensor for _, tensor in float_tensors(reference.result)]
    for ours, (path, theirs) in zip(expected, float_tensors(outcome.result), strict=False):
        wrong = theirs.detach().isnan() & ~ours.detach().isnan()
        if count := int(wrong.sum()):
            where = f" in {path}" if path else ""
            return f"{count} of {wrong.numel()} values{where} are NaN (not a number). Is something divided by 0?"
    return None


def _written(outcome: Outcome, reference: Outcome) -> str | None:
    """Returns what is wrong if the answer changes arguments that it should not, or the other way round."""
    if extra := [name for name in outcome.written if name not in reference.written]:
        return f"Your function writes into its argument {', '.join(extra)}. Work on a copy: the caller still needs it."
    if missing := [name for name in reference.written if name not in outcome.written]:
        return f"Your function should change its argument {', '.join(missing)} in place, and leaves it as it was."
    return None


def _flows(exercise: Exercise, case: Case, outcome: Outcome, reference: Outcome) -> str | None:
    """Returns what is wrong if no gradient reaches an argument that it should reach."""
    pairs = zip(gradient_names(exercise, case), outcome.slopes, reference.slopes, strict=True)
    stopped = [name for name, slope, expected in pairs if slope is None and expected is not None]
    if not stopped:
        return None
    return (
        f"No gradient flows back to {', '.join(stopped[:4])}. "
        "Look for .detach(), .item(), .data, torch.tensor(...) or no_grad on the way."
    )


def _spoilt(outcome: Outcome, reference: Outcome) -> str | None:
    """Returns what is wrong if the answer leaves global state changed that later cells depend on."""
    changed = [name for name in outcome.changes.spoils if name not in reference.changes.spoils]
    if not changed:
        return None
    return f"Your function leaves {' and '.join(changed)} changed: all that is computed later would differ."


def _equal(exercise: Exercise, outcome: Outcome, reference: Outcome, tolerance: float) -> str | None:
    """Returns what is wrong with the values of the result or of arguments that are changed in place."""
    if words := difference(exercise, reference.result, outcome.result, tolerance):
        return words
    for name, expected in reference.written.items():
        if words := compare(expected, outcome.written[name], tolerance):
            return f"The argument {name} is changed in place, but not to what it should be. {words}"
    return None


def diagnose(
    exercise: Exercise, cases: Sequence[Case], outcomes: Outcomes, reference: Outcomes, seconds: float, answer: Answer
) -> Wrong | None:
    """Returns the classic wrong answer with the same outcome in every step, or None. seconds: for each entry, usually.

    If only laws are broken, what they say must agree in its numbers, too, unless results may differ and still be right. An answer
    that never looks at its arguments makes no mistake of those who do.
    """
    blind = reads_nothing(answer)
    late = any(outcome.late for outcome in outcomes.values())
    seconds = 2 * ENTRY if late else seconds
    values = {step: outcome for step, outcome in outcomes.items() if step[0] != "property"}
    numbers = exercise.same is None and same_trial(exercise, cases, values, reference)
    for entry, spelling in [(wrong, one) for wrong in exercise.wrong for one in wrong.answers]:
        if blind and not reads_nothing(spelling):
            continue
        clock = Clock(seconds, BUSY)
        tried: dict[Step, Outcome] = {}
        for step, outcome in outcomes.items():
            tried[step] = _widened(attempt(exercise, cases, spelling, step, clock), reference.get(step))
            if not same_outcome(exercise, tried[step], outcome, tolerance_of(exercise, cases, step), numbers):
                break
        else:
            if not same_trial(
                exercise, cases, tried, reference
            ):  # an entry that equals the reference so far explains nothing
                return entry
    return None


def same_trial(
    exercise: Exercise, cases: Sequence[Case], first: Outcomes, second: Outcomes, numbers: bool = False
) -> bool:
    """Returns True if two answers have the same outcome in every step that both were tried in. numbers: as in `same_outcome`."""
    return all(
        same_outcome(exercise, first[step], second[step], tolerance_of(exercise, cases, step), numbers)
        for step in first
        if step in second
    )
