"""Where the exercises lie: exNN_name.py beside this file, each with a tuple EXERCISES."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from ._describe import describe
from ._model import Exercise

_HERE = Path(__file__).resolve().parent


def lesson_files() -> dict[str, str]:
    """Lesson number -> module name of its exercises, e.g. {"05": "ex05_prototypical"}, in order."""
    names = sorted(path.stem for path in _HERE.glob("ex[0-9][0-9]_*.py"))
    return {name[2:4]: name for name in names}


def of_lesson(lesson: str) -> tuple[Exercise, ...]:
    """The exercises of lesson "05". LookupError where the lesson has none."""
    files = lesson_files()
    if lesson not in files:
        known = ", ".join(files) or "none"
        raise LookupError(f"lesson {lesson!r} has no exercises. Lessons with exercises: {known}.")
    return import_module(f"{__package__}.{files[lesson]}").EXERCISES


def all_exercises() -> tuple[Exercise, ...]:
    """Every exercise of the course, lesson by lesson."""
    return tuple(exercise for lesson in lesson_files() for exercise in of_lesson(lesson))


def variants() -> tuple[str, ...]:
    """The ids of the exercises that have variants, e.g. ("01.3", "01.4", ...)."""
    from ._variants import (
        FAMILIES,
    )  # here and in `find`: it needs this file, and loads SciPy, which most uses do without

    return tuple(FAMILIES)


def find(exercise_id: str) -> Exercise:
    """The exercise with this id; "05.1@7" is the variant of 05.1 that belongs to seed 7 (see _variants/).

    LookupError lists the ids of its lesson, or those with variants; ValueError says what an id looks like.
    """
    if isinstance(exercise_id, str) and (parts := re.fullmatch(r"(\d\d\.\d+)@(0|[1-9]\d{0,8})", exercise_id)):
        from ._variants import variant

        return variant(find(parts[1]).id, int(parts[2]))
    if not isinstance(exercise_id, str) or not re.fullmatch(r"\d\d\.\d+", exercise_id):
        what = describe(exercise_id)
        raise ValueError(
            f'an exercise id looks like "05.1" (lesson, dot, number, in quotes), a variant of it like '
            f'"05.1@7"; got {what}.{_meant(exercise_id)}'
        )
    lesson = exercise_id.partition(".")[0]
    exercises = of_lesson(lesson)
    for exercise in exercises:
        if exercise.id == exercise_id:
            return exercise
    raise LookupError(f"there is no exercise {exercise_id}. Lesson {lesson} has {', '.join(e.id for e in exercises)}.")


def _meant(exercise_id: object) -> str:
    """The id behind 5.1 or "5.1", as a question."""
    text = str(exercise_id) if isinstance(exercise_id, (str, float)) else ""
    found = re.fullmatch(r"\s*(\d\d?)[.,](\d{1,2})\s*", text)
    return f' Did you mean "{found[1].zfill(2)}.{int(found[2])}"?' if found else ""
