"""`require`: the test cell of a graded notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_PACKAGE = "fsl_classroom"
SECONDS = 10.0  # for the answer, all calls together: a grading machine may be busy


class NotRight(AssertionError):
    """Raised for an answer that is not right. A notebook shows only its message, without a traceback."""

    def _render_traceback_(self, *_: object) -> list[str]:  # called by IPython
        return str(self).split("\n")


def require(exercise_id: str, answer: Callable[..., Any]) -> None:
    """Does nothing if the answer is right, and raises NotRight, an AssertionError, with the diagnosis otherwise.

    exercise_id: "05.1", or a variant "05.1@7"
    answer:      the learner's function

    Refuses the reference, which `check` returns after a wrong answer. Prints and records nothing. Imports the exercises and the
    checking engine afresh from their files, so that changes that the notebook made to them have no effect. That prevents slips
    and lazy tricks. The answer still runs unconfined inside the notebook's process, where a determined student can cheat, as in
    every test cell. `python -m fsl_classroom grade` judges in a confined process.

    Raises LookupError or ValueError for an unknown id.
    """
    with _fresh() as package:
        exercise = package.find(exercise_id)
        judge = import_module(f"{_PACKAGE}.checking.check").judge
        if _is_reference(answer, exercise.reference):
            raise NotRight(
                f"{exercise.id} {exercise.title}: not your function.\n  This is the reference that check handed out."
            )
        verdict = judge(exercise, answer, SECONDS)
    if verdict.kind == "right":
        return
    if verdict.kind == "broken":
        raise RuntimeError(f"exercise {exercise.id} is broken ({verdict.lines[0]}). Please report it.")
    if verdict.kind == "unattempted":
        raise NotRight(f"{exercise.id} {exercise.title}: not attempted yet.")
    lines = [f"{exercise.id} {exercise.title}: not right yet.", *verdict.lines]
    if verdict.diagnosed:
        lines += [verdict.diagnosis, f"Hint: {verdict.diagnosed.hint}"]
    raise NotRight("\n  ".join(lines))


@contextmanager
def _fresh() -> Iterator[ModuleType]:
    """Imports fsl_classroom a second time from its files and yields it. Afterwards the first import is back in sys.modules."""
    kept = {n: m for n, m in sys.modules.items() if n == _PACKAGE or n.startswith(f"{_PACKAGE}.")}
    for module in kept:
        del sys.modules[module]
    try:
        yield import_module(_PACKAGE)
    finally:
        for module in [n for n in sys.modules if n == _PACKAGE or n.startswith(f"{_PACKAGE}.")]:
            del sys.modules[module]
        sys.modules.update(kept)


def _is_reference(answer: Any, reference: Callable[..., Any]) -> bool:
    """Returns True for the reference of the first import: another object with the same code from the same file."""
    ours, theirs = reference.__code__, getattr(getattr(answer, "__wrapped__", answer), "__code__", None)
    if theirs is None:
        return False
    return theirs == ours and (theirs.co_filename, theirs.co_firstlineno) == (ours.co_filename, ours.co_firstlineno)
