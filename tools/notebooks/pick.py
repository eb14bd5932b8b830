"""Prints the notebooks that `make test` executes: every solution, and two of the student notebooks in rotation.

Executing all student notebooks in every run would take twice the time. So each day tests the next two, untouched, as a reader
first meets them: day d of the year picks numbers 2d and 2d+1, modulo their count.
`python -m tools.notebooks.pick 3` picks as on day 3, `... all` picks all.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def rotate(names: list[str], turn: int, count: int = 2) -> list[str]:
    """Returns the `count` names whose turn it is, without repetition: turn 0 gives the first ones, turn 1 the next ones."""
    return [names[(turn * count + i) % len(names)] for i in range(min(count, len(names)))]


def pick(root: Path, turn: str | None = None) -> list[str]:
    """Returns paths relative to root. turn: a number, "all", or None for the day of the year.

    Raises ValueError if a lesson has no notebook or a notebook no lesson, because a missing notebook must not pass the tests.
    """
    if turn is not None and turn != "all" and not turn.isdecimal():
        raise ValueError(f"FSL_ROTATE must be a number or all; got {turn!r}.")
    lessons = sorted(p.stem for p in (root / "lessons").glob("[0-9][0-9]_*.py"))
    for folder in ("solutions", "notebooks"):
        built = sorted(p.stem for p in (root / folder).glob("*.ipynb"))
        if differing := sorted(set(built) ^ set(lessons)):
            raise ValueError(
                f"{folder}/ and lessons/ do not hold the same lessons: {', '.join(differing)}. Run `make notebooks`."
            )
    student = lessons if turn == "all" else rotate(lessons, int(turn or date.today().strftime("%j")))
    return [f"solutions/{name}.ipynb" for name in lessons] + [f"notebooks/{name}.ipynb" for name in student]


if __name__ == "__main__":
    try:
        print(" ".join(pick(ROOT, sys.argv[1] if len(sys.argv) > 1 else None)))
    except ValueError as error:
        sys.exit(f"tools.notebooks.pick: {error}")
