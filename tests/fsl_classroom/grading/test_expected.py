"""`grade --assignment`: whose work it is, what counts, and what it is worth."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from fsl_classroom.__main__ import main
from fsl_classroom.assignments import student_seed
from fsl_classroom.grading import confinement
from fsl_classroom.grading.expected import Assignment, read_assignment, read_points
from fsl_classroom.grading.submissions import Submission
from tests.fsl_classroom.grading import zoo

UNCONFINED = ["--unconfined"] if confinement.problem() else []
STUDENTS = ("Ada", "Bob", "Cem", "Dan", "Eve", "Fay", "Gus")


@pytest.fixture(scope="module")
def graded(tmp_path_factory) -> tuple[list[dict[str, str]], dict[str, dict[str, str]], str]:
    """Rows, summary by student and messages of a class with an assignment of two exercises."""
    root = tmp_path_factory.mktemp("term")
    out, folder = root / "out", root / "class"
    (root / "names.txt").write_text("\n".join(STUDENTS))
    words = ["--seed", "7", "--exercises", "05.1", "05.2", "--students", str(root / "names.txt"), "--out", str(out)]
    assert main(["assignment", *words]) == 0
    (out / "points.toml").write_text('05.1 = 2\n"05.2" = 0.5\n')
    seed = {name: student_seed(7, name) for name in STUDENTS}

    def hand_in(student: str, solved_by: str, old: str = "", new: str = "") -> None:
        text = (out / f"solved-{seed[solved_by]}.ipynb").read_text(encoding="utf-8")
        assert old in text
        (folder / student).mkdir(parents=True)
        (folder / student / "assignment.ipynb").write_text(text.replace(old, new), encoding="utf-8")

    hand_in("Ada_4711_assignsubmission_file_", "Ada")
    hand_in("Cem", "Ada")  # a neighbour's work as it is
    hand_in("Dan", "Ada", str(seed["Ada"]), str(seed["Dan"]))  # and with the seed of his own
    hand_in("Eve", "Eve", f"@{seed['Eve']}", "")
    hand_in("Fay", "Fay", f'prototypes = check(\\"05.1@{seed["Fay"]}\\", prototypes)')
    hand_in("Nobody", "Ada")
    public = zoo.answer(zoo.RIGHT).replace("05.1", f"05.1@{seed['Bob']}")
    zoo.write(folder / "Bob", [zoo.IMPORTS, public, zoo.answer(zoo.RIGHT), 'check("01.1", prototypes)'])
    from contextlib import redirect_stderr
    from io import StringIO

    with redirect_stderr(StringIO()) as said:
        assert main(["grade", str(folder), "--assignment", str(out), "--jobs", "1", *UNCONFINED]) == 0
    read = lambda name: list(csv.DictReader((folder / name).read_text(encoding="utf-8").splitlines()))  # noqa: E731
    return read("grades.csv"), {r["student"]: r for r in read("grades-summary.csv")}, said.getvalue()


def of(graded, student: str, exercise: str = "05.1") -> dict[str, str]:
    (found,) = [r for r in graded[0] if r["student"].startswith(student) and r["exercise"] == exercise]
    return found


def test_only_the_exercises_of_the_assignment_count_and_everybody_has_rows(graded):
    assert {row["exercise"] for row in graded[0]} == {"05.1", "05.2"}
    assert len(graded[0]) == 2 * (len(STUDENTS) + 1)
    ada = graded[1]["Ada_4711_assignsubmission_file_"]
    assert (ada["passed"], ada["exercises"], ada["points"], ada["worth"]) == ("2", "2", "2.5", "2.5")
    gus = graded[1]["Gus"]
    assert (gus["passed"], gus["exercises"], gus["errors"]) == ("0", "2", "nothing was handed in")


def test_own_work_passes_with_its_seed_and_points(graded):
    row = of(graded, "Ada")
    assert (row["passed"], row["seed"], row["points"]) == ("true", str(student_seed(7, "Ada")), "2")
    assert of(graded, "Ada", "05.2")["points"] == "0.5"


def test_the_public_solution_is_refused_although_a_check_of_the_public_exercise_follows(graded):
    row = of(graded, "Bob")
    assert row["passed"] == "false"
    assert "the public solution of 05.1 is handed in" in row["diagnosis"]
    assert row["seed"] == str(student_seed(7, "Bob"))
    assert row["points"] == "0"


def test_a_neighbours_seed_is_refused_and_only_the_teacher_hears_whose_it_is(graded):
    row = of(graded, "Cem")
    assert row["passed"] == "false"
    assert f"has the seed {student_seed(7, 'Ada')}, which is not this student's" in row["diagnosis"]
    assert f'check("05.1@{student_seed(7, "Cem")}", ...)' in row["diagnosis"]
    assert "Ada" not in row["diagnosis"]
    assert f"05.1 was handed in with the seed {student_seed(7, 'Ada')} of Ada" in graded[1]["Cem"]["errors"]


def test_a_neighbours_work_under_the_students_own_seed_fails(graded):
    row = of(graded, "Dan")
    assert (row["passed"], row["seed"]) == ("false", str(student_seed(7, "Dan")))
    assert row["diagnosis"] not in ("", "not attempted")


def test_a_removed_seed_is_refused(graded):
    row = of(graded, "Eve")
    assert row["passed"] == "false"
    assert "The seed was removed" in row["diagnosis"]
    assert row["seed"] == ""


def test_a_deleted_check_does_no_harm(graded):
    row = of(graded, "Fay")
    assert (row["passed"], row["seed"]) == ("true", str(student_seed(7, "Fay")))


def test_an_unknown_student_is_told_and_not_graded(graded):
    assert "no student of this name" in graded[1]["Nobody"]["errors"]
    assert of(graded, "Nobody")["diagnosis"] == "not attempted"


def test_one_seed_for_everybody(tmp_path):
    assert main(["assignment", "--seed", "7", "--exercises", "05.1", "--out", str(tmp_path)]) == 0
    assignment = read_assignment(tmp_path)
    assert assignment == Assignment(("05.1",), 7, None, {"05.1": 1.0})
    assert assignment.expects("anybody") == {"05.1": "05.1@7"}
    assert assignment.missing([]) == []


def test_names_are_compared_without_case_accents_apart_and_moodles_ending():
    assignment = Assignment(("05.1",), 7, {"Zoë O'Neil": 1, "李 雷": 2, "Anna": 3})
    assert assignment.seed_of("zoe\u0308 o-neil") == 1
    assert assignment.seed_of("Zoë O'Neil_99_assignsubmission_file_") == 1
    assert assignment.seed_of("李_雷") == 2
    assert assignment.seed_of("Ann") is None
    assert assignment.missing([Submission("ANNA", Path()), Submission("李 雷", Path())]) == ["Zoë O'Neil"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"05.1" = "many"', "gives 05.1 'many' points"),
        ('"05.1" = -1', "from 0 to 10,000"),
        ('"05.1" = nan', "from 0 to 10,000"),
        ('"05.1" = true', "from 0 to 10,000"),
        ('"07.3" = 1', "names 07.3, which is not in the assignment"),
        ("= 1", "cannot be read"),
        ("\x00", "cannot be read"),
    ],
)
def test_points_that_make_no_sense(tmp_path, text, words):
    (tmp_path / "points.toml").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_points(tmp_path / "points.toml", ["05.1"])


@pytest.mark.parametrize(
    "plan",
    [
        "[]",
        "{",
        "[" * 100_000,
        '{"format": "fsl-course assignment 1"}',
        json.dumps({"format": "fsl-course assignment 1", "exercises": ["x"], "seed": 1, "students": None}),
        json.dumps({"format": "fsl-course assignment 1", "exercises": ["05.1"], "seed": "1", "students": None}),
        json.dumps({"format": "fsl-course assignment 1", "exercises": ["05.1"], "seed": 1, "students": {"a": None}}),
    ],
)
def test_a_plan_that_is_none_is_told(tmp_path, plan, capsys):
    (tmp_path / "assignment.json").write_text(plan)
    (tmp_path / "class" / "Ada").mkdir(parents=True)
    assert main(["grade", str(tmp_path / "class"), "--assignment", str(tmp_path), *UNCONFINED]) == 1
    assert "Write the assignment again with --force" in capsys.readouterr().err


def test_a_folder_without_a_plan_is_told(tmp_path, capsys):
    (tmp_path / "Ada").mkdir()
    for folder, words in ((tmp_path, "has no assignment.json"), (tmp_path / "none", "there is no folder")):
        assert main(["grade", str(tmp_path), "--assignment", str(folder), *UNCONFINED]) == 1
        assert words in capsys.readouterr().err
    shutil.rmtree(tmp_path)
