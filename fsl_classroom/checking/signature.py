"""What can be said of an answer before its results are looked at: it cannot be called, or it was never attempted."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

from fsl_classroom.checking.describe import describe
from fsl_classroom.checking.model import Case, Exercise
from fsl_classroom.checking.outcome import Answer, Outcome


def refuse_call(exercise: Exercise, cases: Sequence[Case], answer: Any) -> str | None:
    """Returns why the answer cannot be called with the arguments of the exercise, or None if it can."""
    name = getattr(exercise.reference, "__name__", "function").lstrip("_")
    if not callable(answer):
        return (
            f"Expected a function, got {describe(answer)}. "
            f'Pass the function itself, without calling it: check("{exercise.id}", {name}).'
        )
    if inspect.iscoroutinefunction(answer):
        return "Your function is written with `async def`. Write `def`: nobody awaits it here."
    try:
        signature, wanted = inspect.signature(answer), inspect.signature(exercise.reference)
    except (TypeError, ValueError):  # some compiled functions have no signature, so the call must show it
        return None
    for case in cases:
        try:
            signature.bind(*case.args, **case.kwargs)
        except TypeError as error:
            ours, theirs = ", ".join(wanted.parameters), ", ".join(signature.parameters)
            return f"Expected a function of ({ours}), got one of ({theirs}): {error}."
    return None


def is_unattempted(answer: Answer, first: Outcome) -> bool:
    """Returns True for the stub that the lesson came with and for a function that does nothing."""
    if isinstance(first.error, NotImplementedError) and "not attempted" in str(first.error):
        return True
    nothing_came = first.result is None or first.result is Ellipsis
    if not nothing_came or not (first.error is None or isinstance(first.error, NotImplementedError)):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(answer)))
    except (OSError, TypeError, SyntaxError, ValueError):  # there is no source
        return False
    definition = tree.body[0]
    return isinstance(definition, ast.FunctionDef) and all(_says_nothing(line) for line in definition.body)


def _says_nothing(line: ast.stmt) -> bool:
    """Returns True for a docstring, `...`, `pass`, `raise` and a `return` of nothing."""
    if isinstance(line, ast.Expr):
        return isinstance(line.value, ast.Constant)  # a docstring, or `...`
    if isinstance(line, ast.Return):
        return line.value is None or (isinstance(line.value, ast.Constant) and line.value.value in (None, Ellipsis))
    return isinstance(line, (ast.Pass, ast.Raise))
