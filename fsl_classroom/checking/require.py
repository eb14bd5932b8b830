"""require: the test cell of a graded notebook."""

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
    """An answer that is not right. In a notebook only its words are shown, not the lines of the test."""

    def _render_traceback_(self, *_: object) -> list[str]:  # IPython asks for it
        return str(self).split("\n")


def require(exercise_id: str, answer: Callable[..., Any]) -> None:
    """Pass in silence where the answer is right; raise NotRight, an AssertionError, with the diagnosis otherwise.

    exercise_id: "05.1", or a variant "05.1@7"
    answer:      the learner's function

    There is no fallback: the reference, which `check` hands out after a wrong answer, is refused. Nothing is printed or
    recorded. Exercises and judge are imported afresh from their files, so that whatever the notebook did to them before has
    no say. That stops slips and lazy tricks. The answer still runs inside the notebook's own process, unconfined: whoever is
    determined can cheat there, as in every test cell. `python -m fsl_classroom grade` judges in a confined process.

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
    """The package of exercises imported a second time, from its files; afterwards the first one is back in its place."""
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
    """Is this the reference of the first import? It is another object, with the same code from the same file."""
    ours, theirs = reference.__code__, getattr(getattr(answer, "__wrapped__", answer), "__code__", None)
    if theirs is None:
        return False
    return theirs == ours and (theirs.co_filename, theirs.co_firstlineno) == (ours.co_filename, ours.co_firstlineno)
