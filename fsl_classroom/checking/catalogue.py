"""Finds exercises by their ids. Each file exNN_name.py of `fsl_classroom.exercises` holds a tuple EXERCISES.

Exercises and variants stand above the checking engine. This file imports them by name when they are asked for, so that the engine
depends on neither.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from fsl_classroom.checking.describe import describe
from fsl_classroom.checking.model import Exercise

_EXERCISES, _VARIANTS = "fsl_classroom.exercises", "fsl_classroom.variants"
_FOLDER = Path(__file__).resolve().parents[1] / "exercises"


def lesson_files() -> dict[str, str]:
    """Returns lesson number -> module name of its exercises, e.g. {"05": "ex05_prototypical"}, in order."""
    names = sorted(path.stem for path in _FOLDER.glob("ex[0-9][0-9]_*.py"))
    return {name[2:4]: name for name in names}


def of_lesson(lesson: str) -> tuple[Exercise, ...]:
    """Returns the exercises of a lesson such as "05". Raises LookupError if it has none."""
    files = lesson_files()
    if lesson not in files:
        known = ", ".join(files) or "none"
        raise LookupError(f"lesson {lesson!r} has no exercises. Lessons with exercises: {known}.")
    return import_module(f"{_EXERCISES}.{files[lesson]}").EXERCISES


def all_exercises() -> tuple[Exercise, ...]:
    """Returns all exercises of the course in the order of the lessons."""
    return tuple(exercise for lesson in lesson_files() for exercise in of_lesson(lesson))


def exercises_with_variants() -> tuple[str, ...]:
    """Returns the ids of the exercises that have variants, e.g. ("01.3", "01.4", ...)."""
    return tuple(import_module(_VARIANTS).FAMILIES)


def find(exercise_id: str) -> Exercise:
    """Returns the exercise with this id. "05.1@7" is the variant of 05.1 for seed 7 (see `fsl_classroom.variants`).

    Raises LookupError, with the ids that exist, for an unknown exercise, and ValueError for text that is no id.
    """
    if isinstance(exercise_id, str) and (parts := re.fullmatch(r"(\d\d\.\d+)@(0|[1-9]\d{0,8})", exercise_id)):
        return import_module(_VARIANTS).variant(find(parts[1]).id, int(parts[2]))
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
    """Returns a sentence that suggests the id meant by 5.1 or "5.1", or ""."""
    text = str(exercise_id) if isinstance(exercise_id, (str, float)) else ""
    found = re.fullmatch(r"\s*(\d\d?)[.,](\d{1,2})\s*", text)
    return f' Did you mean "{found[1].zfill(2)}.{int(found[2])}"?' if found else ""
