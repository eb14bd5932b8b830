"""Gradebooks as Moodle and Canvas read them, and lists of the class that leave somebody in doubt."""

import csv
import io

import pytest

from fsl_classroom.__main__ import main
from fsl_classroom.grading.roster import matched, read_roster
from tests.fsl_classroom.grading.class_of_three import ROSTER, late_files, write_class


@pytest.fixture
def made(tmp_path):
    """Returns a function that runs the command and returns its status and the rows of both files."""
    folder = write_class(tmp_path / "class")
    (tmp_path / "list.csv").write_text(ROSTER, encoding="utf-8")

    def run(*words: str, roster: str = "list.csv"):
        files = tmp_path / "moodle.csv", tmp_path / "canvas.csv"
        outputs = "--moodle", str(files[0]), "--canvas", str(files[1])
        status = main(["gradebook", str(folder), "--roster", str(tmp_path / roster), *outputs, *words])
        rows = [list(csv.reader(io.StringIO(f.read_text(encoding="utf-8")))) if f.exists() else None for f in files]
        return status, *rows

    return run


def test_the_file_for_moodle_has_one_identifier_the_grade_and_feedback(made):
    status, rows, _ = made("--title", "Week 3")
    assert status == 0
    assert rows[0] == ["Email address", "Student", "Week 3", "Week 3 feedback"]
    assert [row[:3] for row in rows[1:]] == [
        ["ada@uni.example", "Lovelace, Ada", "2"],
        ["Wang@uni.example", "王小明", "0"],  # as it is written: Moodle looks at upper and lower case
        ["eve@uni.example", "'=Eve & Co", "5"],
    ]
    assert rows[1][3].startswith("2 of 5 points. 05.1: right. 07.3: This is what you get when the rows")
    assert "‹b›shapes‹/b› {x} cannot be multiplied" in rows[2][3]  # no HTML, which Moodle would interpret
    assert all(row[0] for row in rows)  # a line without an identifier would get the grade of the line before it


def test_the_file_for_canvas_has_its_columns_in_its_order(made):
    status, _, rows = made("--title", "Week 3 (815)")
    assert status == 0
    assert rows == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Week 3 (815)"],
        ["    Points Possible", "", "", "", "", "5"],
        ["Lovelace, Ada", "101", "a1", "ada", "B", "2"],
        ["王小明", "102", "x2", "wang", "B", "0"],
        ["=Eve & Co", "103", "e3", "eve", "B", "5"],
    ]


def test_the_late_policy_reaches_both_files_and_the_feedback(made, tmp_path):
    times = "Ada Lovelace,2026-12-02T09:00:00+01:00,\n=Eve & Co,2026-11-30T17:00:00Z,\n"
    status, moodle, canvas = made(*late_files(tmp_path, times))
    assert status == 0
    assert [row[2] for row in moodle[1:]] == ["1", "0", "5"] == [row[5] for row in canvas[2:]]
    assert moodle[1][3].startswith("1 of 5 points. Handed in 2 days late: 1 points off.")


def test_a_student_without_a_time_stops_it_before_anything_is_written(made, tmp_path, capsys):
    status, moodle, canvas = made(*late_files(tmp_path, "Ada Lovelace,2026-12-02T09:00:00+01:00,\n"))
    assert (status, moodle, canvas) == (1, None, None)
    assert "has no time for =Eve & Co" in capsys.readouterr().err


def test_who_is_not_in_the_list_is_named_and_the_others_are_written(made, tmp_path, capsys):
    (tmp_path / "short.csv").write_text("Student,Email address\nAda Lovelace,ada@uni.example\n")
    status, moodle, canvas = made(roster="short.csv")
    assert status == 1
    assert [len(moodle), len(canvas)] == [2, 3]
    assert "王小明 is not in" in capsys.readouterr().err


def test_an_identifier_that_some_lack_is_passed_over_or_refused(made, tmp_path, capsys):
    assert made("--identify", "idnumber")[0] == 1
    assert "has no ID number for 王小明. Moodle needs one for every student" in capsys.readouterr().err
    (tmp_path / "same.csv").write_text(ROSTER.replace("eve@uni", "ada@uni"), encoding="utf-8")
    assert made(roster="same.csv")[0] == 1
    assert "Ada Lovelace and =Eve & Co have the same Email address" in capsys.readouterr().err


def test_what_moodle_exports_is_a_list_too(tmp_path):
    path = tmp_path / "moodle-export.csv"
    path.write_text(
        "First name,Last name,ID number,Institution,Department,Email address,Course total (Real)\n"
        "Ada,Lovelace,7001,,,ada@uni.example,-\nSmith,Jo,7002,,,jo@uni.example,-\nJo,Smith,7003,,,js@uni.example,-\n"
        "小明,王,7004,,,wang@uni.example,-\n",
        encoding="utf-8",
    )
    people = read_roster(path)
    students = ["Ada Lovelace_4711_assignsubmission_file", "7002", "Jo Smith", "ada@uni.example", "Zoe", "王小明"]
    found, lost = matched(students, people, path)
    assert {name: person.fields["idnumber"] for name, person in found.items()} == {
        students[0]: "7001",
        "7002": "7002",
        "王小明": "7004",
    }
    assert lost == [
        f"Jo Smith could be 2 people of {path}",
        f"ada@uni.example is the same person of {path} as {students[0]}",
        f"Zoe is not in {path}",
    ]


def test_a_file_to_write_must_be_named(tmp_path, capsys):
    assert main(["gradebook", str(write_class(tmp_path / "class")), "--roster", "list.csv"]) == 1
    assert "say where to write: --moodle FILE, --canvas FILE, or both" in capsys.readouterr().err


def test_a_list_without_names_is_refused(made, tmp_path, capsys):
    (tmp_path / "colours.csv").write_text("colour\nred\n")
    assert made(roster="colours.csv") == (1, None, None)
    assert "has no column that names a student" in capsys.readouterr().err


def test_nobody_of_the_class_in_the_list_is_an_error(made, tmp_path, capsys):
    (tmp_path / "other.csv").write_text("Student\nZoe\n")
    assert made(roster="other.csv") == (1, None, None)
    assert "no student of" in capsys.readouterr().err


def test_grades_above_what_moodle_takes_are_noted(made, tmp_path, capsys):
    path = tmp_path / "class" / "grades.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(",3,", ",300,"), encoding="utf-8")
    assert made()[0] == 0
    assert "Moodle refuses grades above 100" in capsys.readouterr().err
