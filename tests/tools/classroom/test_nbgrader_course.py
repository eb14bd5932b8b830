"""The nbgrader course: what a lesson becomes, and nbgrader itself run on it from release to feedback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from fsl_classroom import find
from fsl_classroom.checking.catalogue import of_lesson
from tools.classroom import nbgrader_course
from tools.classroom.nbgrader_course import ROOT, assignment_notebook, course, lesson_notebook, lesson_text, main, split
from tools.notebooks.cells import BuildError, lesson_files
from tools.notebooks.run import kernel_environment

LESSON = "01_episodes"


def grade_cells(made: dict) -> dict[str, dict]:
    """Grade id -> cell."""
    return {c["metadata"]["nbgrader"]["grade_id"]: c for c in made["cells"] if "nbgrader" in c["metadata"]}


@pytest.mark.parametrize("lesson", lesson_files(ROOT), ids=lambda lesson: lesson.stem)
def test_every_exercise_of_a_lesson_is_graded(lesson):
    made = lesson_notebook(ROOT, lesson)
    nbformat.validate(nbformat.from_dict(made))
    cells = grade_cells(made)
    for exercise in of_lesson(lesson.name[:2]):
        key = exercise.id.replace(".", "-")
        answer, test, go_on = (cells.pop(f"{kind}-{key}") for kind in ("answer", "test", "go-on"))
        assert answer["metadata"]["nbgrader"]["solution"]
        assert ' check("' not in answer["source"], "a fallback in front of the test"
        assert answer["source"].count("### BEGIN SOLUTION") == answer["source"].count("### END SOLUTION") >= 1
        assert 1 <= test["metadata"]["nbgrader"]["points"] <= 5
        assert test["metadata"]["nbgrader"]["locked"]
        assert f'require("{exercise.id}", ' in test["source"]
        assert f'check("{exercise.id}", ' in go_on["source"]
        order = [made["cells"].index(cell) for cell in (answer, test, go_on)]
        assert order == [order[0], order[0] + 1, order[0] + 2]
    assert not cells
    text = "\n".join(cell["source"] for cell in made["cells"])
    assert "mybinder" not in text
    assert "solutions/" not in text
    assert "](../" not in text


def test_points_are_the_difficulty():
    cells = grade_cells(lesson_notebook(ROOT, ROOT / "lessons" / "01_episodes.py"))
    assert "(difficulty 2/5" in (ROOT / "lessons" / "01_episodes.py").read_text(encoding="utf-8")
    assert cells["test-01-1"]["metadata"]["nbgrader"]["points"] == 1
    assert cells["test-01-2"]["metadata"]["nbgrader"]["points"] == 2


def test_an_exercise_cell_is_cut_at_its_check():
    source = 'def f(x):\n    # BEGIN SOLUTION\n    return x\n    # END SOLUTION\n\n\nf = check("01.1", f)\nprint(f(1))'
    answer, exercise, name, rest = split(source, "here")
    assert answer == "def f(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION"
    assert (exercise, name) == ("01.1", "f")
    assert rest == 'f = check("01.1", f)\nprint(f(1))'
    with pytest.raises(BuildError, match="needs one `name = check"):
        split(source.replace('f = check("01.1", f)', "# EXERCISE 01.1").replace("def", "# EXERCISE 01.1\ndef"), "here")


def test_links_lead_somewhere_outside_the_repository():
    lesson = ROOT / "lessons" / "01_episodes.py"
    text = lesson_text("See [x](../lessons/GLOSSARY.md#way).\n- [Solution]({{solution}})", ROOT, lesson, "here")
    assert text.startswith("See [x](https://github.com/")
    assert "/blob/main/lessons/GLOSSARY.md#way)" in text
    assert "Solution" not in text


def test_assignment_of_variants_is_graded():
    made = assignment_notebook(7)
    nbformat.validate(nbformat.from_dict(made))
    cells = grade_cells(made)
    assert 'require("05.1@7", prototypes)' in cells["test-05-1-7"]["source"]
    assert cells["test-05-1-7"]["metadata"]["nbgrader"]["points"] == find("05.1@7").difficulty
    assert "### BEGIN SOLUTION" in cells["answer-05-1-7"]["source"]


def test_the_same_course_twice_and_clear_words_for_a_wrong_number(tmp_path, capsys):
    assert course(ROOT, ["01"], [7]) == course(ROOT, ["01"], [7])
    assert main(["--out", str(tmp_path / "no"), "77"]) == 1
    assert "no lesson 77; there are 00, 01" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


# ------------------------------------------------------------------------------------------- nbgrader itself, end to end


def edited(release: Path, answers: dict[str, str], *, short: bool) -> str:
    """A released notebook with answers filled in. short: the student deleted all that is no exercise and no import."""
    made = json.loads(release.read_text(encoding="utf-8"))
    kept = []
    for cell in made["cells"]:
        about = cell["metadata"].get("nbgrader")
        source = "".join(cell["source"])
        if about and about["grade_id"] in answers:
            cell["source"] = answers[about["grade_id"]]
        if cell["cell_type"] != "code" or about or not short or source.startswith("import inspect"):
            kept.append(cell)
    return json.dumps({**made, "cells": kept})


def solved(source: dict) -> dict[str, str]:
    return {key: cell["source"] for key, cell in grade_cells(source).items() if key.startswith("answer-")}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The course's folder after three made-up students' work was graded."""
    place = tmp_path_factory.mktemp("nbgrader")
    folder, scratch = place / "course", place / "scratch"
    scratch.mkdir()
    jupyter = {f"JUPYTER_{name}_DIR": str(scratch / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = {**kernel_environment(ROOT, scratch), **jupyter, "OMP_NUM_THREADS": "1"}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", "")))

    def run(*words: str) -> None:
        done = subprocess.run(
            [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run(str(Path(nbgrader_course.__file__)), "--out", str(folder), "--release", "01")
    right = solved(lesson_notebook(ROOT, ROOT / "lessons" / f"{LESSON}.py"))
    wrong = "def draw_batch(class_scores, drawing_scores, k_shot, n_query):\n    return class_scores\n\n"
    cheat = (
        "import fsl_classroom as e, fsl_classroom.checking.require\ndef no(*given): pass\n"
        "e.require = e.checking.require.require = require = check = no\n"
    )
    partial = {
        "answer-01-1": right["answer-01-1"],
        "answer-01-3": wrong + 'draw_batch = check("01.3", draw_batch)',  # the reference under the learner's name
        "answer-01-4": right["answer-01-4"],
        "answer-01-5": cheat + "def exposes_leak(*given): return True",
    }
    broken = {"answer-01-1": "def to_slots(", "answer-01-2": "1 / 0", "answer-01-4": "import os\nos.chdir('/')"}
    release = folder / "release" / LESSON / f"{LESSON}.ipynb"
    for student, answers in (("perfect", right), ("partial", partial), ("broken", broken)):
        file = folder / "submitted" / student / LESSON / f"{LESSON}.ipynb"
        file.parent.mkdir(parents=True)
        file.write_text(edited(release, answers, short=student != "perfect"), encoding="utf-8")
    for command in ("autograde", "generate_feedback"):
        run("-m", "nbgrader", command, LESSON, f"--course-dir={folder}", f"--config={folder / 'nbgrader_config.py'}")
    return folder


def scores(folder: Path, student: str) -> dict[str, float]:
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as book:
        notebook = book.find_submission_notebook(LESSON, LESSON, student)
        return {grade.name: grade.score for grade in notebook.grades}


def test_release_holds_stubs_only(graded):
    release = (graded / "release" / LESSON / f"{LESSON}.ipynb").read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in release
    assert "table.int().argmax(1)" not in release
    assert release.count("not attempted yet") == 7
    assert "Before you hand in" in release


def test_scores_in_the_gradebook(graded):
    cells = grade_cells(lesson_notebook(ROOT, ROOT / "lessons" / f"{LESSON}.py"))
    points = {k: c["metadata"]["nbgrader"]["points"] for k, c in cells.items() if k.startswith("test-")}
    assert scores(graded, "perfect") == points
    right = {"test-01-1", "test-01-4"}
    assert scores(graded, "partial") == {key: value if key in right else 0 for key, value in points.items()}
    assert scores(graded, "broken") == dict.fromkeys(points, 0)


def test_feedback_says_what_is_wrong(graded):
    page = {s: (graded / "feedback" / s / LESSON / f"{LESSON}.html").read_text("utf-8") for s in ("perfect", "partial")}
    assert "AssertionError" not in page["perfect"]
    assert "This is the reference that check handed out" in page["partial"]
    assert "01.2 Draw one episode: not attempted yet" in page["partial"]
    assert "01.5 Bug hunt" in page["partial"]
    assert "verdict.kind" not in page["partial"], "the test's own code has no place in a student's feedback"
