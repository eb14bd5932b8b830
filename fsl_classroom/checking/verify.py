"""`verify`: tests that an exercise judges as it promises."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fsl_classroom.checking.check import judge
from fsl_classroom.checking.compare import compare
from fsl_classroom.checking.judge import BUSY, PATIENCE, examine, same_trial
from fsl_classroom.checking.model import Exercise
from fsl_classroom.checking.outcome import cases_of, probe_gradient
from fsl_classroom.checking.signature import refuse_call
from fsl_classroom.checking.timelimit import Clock

_LOOPING = 1.0  # seconds that a wrong answer may take: some are endless loops


def verify(exercise: Exercise) -> list[str]:
    """Returns what is wrong with an exercise, one sentence each.

    The reference must work and give the same twice. At least two right answers must be accepted, and at least five wrong ones
    refused, each with its own diagnosis. There must be three hints, and the cases must be the same every time.
    """
    problems = _form(exercise)
    first, second = cases_of(exercise), cases_of(exercise)
    if not first:
        return [*problems, "there are no cases."]
    if words := compare(first, second, 0.0):
        problems.append(f"the cases differ from one time to the next, use the generator: {words}")

    reference = examine(exercise, first, exercise.reference, Clock(PATIENCE))
    for (kind, position), outcome in reference.items():
        if outcome.late or outcome.error is not None or outcome.verdict is not None:
            what = "is late" if outcome.late else repr(outcome.error) if outcome.error else outcome.verdict
            problems.append(f"the reference fails on {kind} {position}: {what}")
        if kind != "gradient" or outcome.error is not None or outcome.late:
            continue
        if any(slope is None for slope in outcome.slopes):
            problems.append(f"no gradient flows through the reference on case {position}.")
        elif words := probe_gradient(exercise, first[position], exercise.reference, outcome.slopes, Clock(PATIENCE)):
            problems.append(f"the reference's gradient is not its own finite difference on case {position}: {words}")
    if problems:
        return problems
    if not same_trial(exercise, first, reference, examine(exercise, second, exercise.reference, Clock(PATIENCE))):
        return ["the reference gives another result the second time."]

    for number, answer in enumerate((_again(exercise.reference), *exercise.right)):
        verdict = judge(exercise, answer, seconds=PATIENCE)
        if verdict.kind != "right":
            who = f"right answer {number}" if number else "the reference"
            problems.append(f"{who} is not accepted: {' '.join(verdict.lines) or verdict.kind}")

    trials = {}
    for entry in exercise.wrong:
        for number, answer in enumerate(entry.answers):
            name = f"{entry.name} (also {number})" if number else entry.name
            trials[name] = examine(exercise, cases_of(exercise), answer, Clock(_LOOPING, BUSY))
            verdict = judge(exercise, answer, seconds=_LOOPING, busy=BUSY, patience=4.0)
            if verdict.kind != "wrong":
                problems.append(f"wrong answer {name!r} is not refused ({verdict.kind}).")
            elif verdict.diagnosed is not entry:
                found = verdict.diagnosed.name if verdict.diagnosed else "nobody"
                problems.append(f"wrong answer {name!r} is diagnosed by {found!r}: {' '.join(verdict.lines)}")
    names = list(trials)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if same_trial(exercise, first, trials[one], trials[other], numbers=exercise.same is None):
                problems.append(
                    f"wrong answers {one!r} and {other!r} have the same outcome: add a case that parts them, or keep one."
                )
    return problems


def _form(exercise: Exercise) -> list[str]:
    """Returns what is wrong with the parts of an exercise, without running an answer."""
    problems = []
    if not re.fullmatch(r"\d\d\.\d+", exercise.id):
        problems.append(f'the id must look like "05.1"; it is {exercise.id!r}.')
    if not exercise.title.strip():
        problems.append("the title is empty.")
    if len(exercise.hints) != 3 or not all(hint.strip() for hint in exercise.hints):
        problems.append(f"there must be three hints; there are {len(exercise.hints)}.")
    if len(exercise.wrong) < 5:
        problems.append(f"there must be at least five wrong answers; there are {len(exercise.wrong)}.")
    if len(set(exercise.right) - {exercise.reference}) < 2:
        problems.append("there must be at least two right answers besides the reference.")
    for what in ("name", "diagnosis", "hint"):
        texts = [getattr(entry, what).strip() for entry in exercise.wrong]
        if not all(texts) or (what != "hint" and len(set(texts)) < len(texts)):
            problems.append(f"every wrong answer needs a {what} of its own.")
    for answer in (*exercise.right, *(answer for entry in exercise.wrong for answer in entry.answers)):
        if words := refuse_call(exercise, cases_of(exercise), answer):
            problems.append(f"{getattr(answer, '__name__', answer)} cannot be called like the reference. {words}")
    return problems


def _again(reference: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a new function that calls the reference, because `check` recognises the reference itself by identity."""
    return lambda *args, **kwargs: reference(*args, **kwargs)
