"""Every exercise judges as it promises, and every lesson checks exactly its own exercises."""

import re
from pathlib import Path

import pytest

from fsl_classroom import all_exercises, find, verify
from fsl_classroom.checking.catalogue import lesson_files, of_lesson
from fsl_classroom.checking.compare import as_bool
from fsl_classroom.checking.outcome import cases_of
from fsl_classroom.checking.tree import clone

LESSONS = Path(__file__).resolve().parents[3] / "lessons"
EXERCISES = all_exercises()


def checked_ids(lesson: Path) -> list[str]:
    """Returns the ids that a lesson checks, in order. Mentions of `check` in text cells do not count."""
    lines = lesson.read_text(encoding="utf-8").splitlines()
    return re.findall(
        r"""\bcheck\(["'](\d\d\.\d+)["']""", "\n".join(line for line in lines if not line.startswith("#"))
    )


LESSON_IDS = {path: checked_ids(path) for path in sorted(LESSONS.glob("[0-9][0-9]_*.py"))}


def test_exercise_ids_are_unique_and_belong_to_their_file():
    for lesson in lesson_files():
        assert {exercise.lesson for exercise in of_lesson(lesson)} == {lesson}
    ids = [exercise.id for exercise in EXERCISES]
    assert len(ids) == len(set(ids))
    assert all(find(exercise.id) is exercise for exercise in EXERCISES)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_exercise_holds_what_it_promises(exercise):
    assert verify(exercise) == []


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_an_exercise_knows_four_right_answers_and_a_test_faces_eight_things(exercise):
    assert len(set(exercise.right) - {exercise.reference}) >= 4
    cases = cases_of(exercise)
    if as_bool(exercise.reference(*clone(cases[0].args), **clone(dict(cases[0].kwargs)))) is not None:
        assert len(cases) >= 8


def test_every_lesson_checks_exactly_its_exercises():
    in_lessons = {path.stem[:2]: sorted(set(ids)) for path, ids in LESSON_IDS.items() if ids}
    in_package = {lesson: sorted(exercise.id for exercise in of_lesson(lesson)) for lesson in lesson_files()}
    assert in_lessons == in_package


def test_no_lesson_checks_the_exercise_of_another():
    strangers = [(path.name, key) for path, ids in LESSON_IDS.items() for key in ids if key[:2] != path.stem[:2]]
    assert strangers == []
