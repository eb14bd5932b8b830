"""Tests the command from outside: it grades two classes once each, and every test checks the tables."""

import csv
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from fsl_classroom import all_exercises
from fsl_classroom.__main__ import main
from fsl_classroom.grading import confinement, feeders
from fsl_course._system import threads
from tests.fsl_classroom.grading import zoo

ROOT = Path(__file__).resolve().parents[3]
UNCONFINED = ["--unconfined"] if confinement.problem() else []
needs_landlock = pytest.mark.skipif(bool(UNCONFINED), reason=f"this system cannot confine: {confinement.problem()}")


def read(folder: Path, name: str = "grades.csv") -> list[dict[str, str]]:
    with open(folder / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def row(rows, student: str, exercise: str = "05.1") -> dict[str, str]:
    (found,) = [r for r in rows if r["student"] == student and r["exercise"] == exercise]
    return found


@pytest.fixture(scope="module")
def school(tmp_path_factory) -> Path:
    """The lessons' own notebooks, honest and dishonest answers, and broken files."""
    folder = tmp_path_factory.mktemp("school")
    for student, source in (("Zoë Müller 王小明", "solutions"), ("blank", "notebooks")):
        (folder / student).mkdir()
        for notebook in (ROOT / source).glob("*.ipynb"):
            shutil.copy(notebook, folder / student)
    for kind in ("HONEST", "LAZY", "CURIOUS", "FORGED"):
        for name, cell in getattr(zoo, kind).items():
            zoo.write(folder / f"{kind} {name}", [zoo.IMPORTS, cell])
    zoo.write(folder / "=cmd()", [zoo.IMPORTS, zoo.answer(zoo.WRONG)])
    zoo.write(folder / "syntax", [zoo.IMPORTS, zoo.answer(zoo.RIGHT), 'def oops(:\ncheck("05.2", oops)', "1 +"])
    depends = "def episode_loss(support, support_y, query, query_y, n_way):\n    return prototypes(support, support_y, n_way)\n"
    zoo.write(folder / "depends", [zoo.IMPORTS, zoo.answer(zoo.STUB), depends + 'check("05.3", episode_loss)'])
    twice = zoo.write(folder / "twice", [zoo.IMPORTS, zoo.answer(zoo.WRONG)])
    zoo.write(twice.parent, [zoo.IMPORTS, zoo.answer(zoo.RIGHT)], "05_prototypical (1).ipynb")
    zoo.write(folder / "needs", [zoo.IMPORTS, zoo.answer("    return 1 / scale\n", "scale = int('x')")])
    (folder / "broken").mkdir()
    (folder / "broken" / "05_prototypical.ipynb").write_text("<<<<<<< HEAD\n{\n=======\n")
    (folder / "broken" / "06_relation.ipynb").write_text("")
    (folder / "nothing").mkdir()
    zoo.write(folder / ".hidden", [zoo.IMPORTS, zoo.answer(zoo.RIGHT)])
    (folder / "link").mkdir()
    (folder / "link" / "05_prototypical.ipynb").symlink_to(folder / "HONEST plain" / "05_prototypical.ipynb")
    (folder / "outside").symlink_to(ROOT / "solutions")
    assert main(["grade", str(folder), "--seconds", "120", "--jobs", "2", *UNCONFINED]) == 0
    return folder


@pytest.fixture(scope="module")
def battlefield(tmp_path_factory) -> tuple[Path, Path]:
    """Attacks, with honest neighbours before and after them on the same lane."""
    folder, victim = tmp_path_factory.mktemp("battlefield"), tmp_path_factory.mktemp("victim")
    (victim / "precious").write_text("mine")
    os.chmod(victim / "precious", 0o640)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name, (cell, _words) in zoo.HOSTILE.items():
            if UNCONFINED and name in ("fork", "fills the disk", "kills"):
                continue  # nothing would stop these attacks
            cell = cell.replace("{target}", str(victim / "precious")).replace("{folder}", str(victim))
            zoo.write(folder / name, [zoo.IMPORTS, cell.replace("{port}", str(server.getsockname()[1]))])
        for name in ("aaa neighbour", "zzz neighbour"):
            zoo.write(folder / name, [zoo.IMPORTS, zoo.answer(zoo.RIGHT)])
        own = zoo.doing("import glob, os", "for f in glob.glob('../*/*') + glob.glob('*'):", "    os.remove(f)")
        zoo.write(folder / "own notebook", [zoo.IMPORTS, own])
        options = ["--seconds", "4", "--memory", "500", "--jobs", "4", *UNCONFINED]
        assert main(["grade", str(folder), *options]) == 0
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # no answer has connected
            server.accept()
    return folder, victim


def test_every_solution_of_every_lesson_passes(school):
    rows = [r for r in read(school) if r["student"].startswith("Zoë")]
    assert [r["exercise"] for r in rows] == [exercise.id for exercise in all_exercises()]
    assert [r for r in rows if r["passed"] != "true" or r["diagnosis"]] == []


def test_untouched_notebooks_are_not_attempted(school):
    rows = [r for r in read(school) if r["student"] == "blank"]
    assert {(r["passed"], r["diagnosis"]) for r in rows} == {("false", "not attempted")}
    assert len(rows) == len(all_exercises())


@pytest.mark.parametrize("name", zoo.HONEST)
def test_honest_answers_pass(school, name):
    found = row(read(school), f"HONEST {name}")
    assert found["passed"] == "true", found


@pytest.mark.parametrize("name", zoo.LAZY)
def test_importing_the_reference_fails(school, name):
    found = row(read(school), f"LAZY {name}")
    assert found["passed"] == "false"
    assert zoo.REFERENCE in found["diagnosis"]


@pytest.mark.parametrize("name", zoo.CURIOUS)
def test_looking_into_the_checker_fails(school, name):
    found = row(read(school), f"CURIOUS {name}")
    assert found["passed"] == "false"
    assert zoo.CHECKER in found["diagnosis"], found


@pytest.mark.parametrize("name", zoo.FORGED)
def test_results_that_lie_about_themselves_fail(school, name):
    assert row(read(school), f"FORGED {name}")["passed"] == "false"


@needs_landlock
@pytest.mark.parametrize("name", zoo.HOSTILE)
def test_attacks_fail_with_words(battlefield, name):
    found = row(read(battlefield[0]), name)
    assert found["passed"] == "false"
    assert zoo.HOSTILE[name][1] in found["diagnosis"], found
    assert found["diagnosis"] not in ("", "not attempted")


@needs_landlock
def test_neighbours_of_attackers_pass_and_nothing_outside_is_touched(battlefield):
    folder, victim = battlefield
    for name in ("aaa neighbour", "zzz neighbour"):
        assert row(read(folder), name)["passed"] == "true"
    assert (victim / "precious").read_text() == "mine"
    assert os.stat(victim / "precious").st_mode & 0o777 == 0o640
    assert (folder / "own notebook" / "05_prototypical.ipynb").is_file()


def test_a_classic_mistake_gets_its_diagnosis_and_formulas_are_defused(school):
    found = row(read(school), "'=cmd()")
    assert found["diagnosis"].startswith("This is what you get when ")


def test_a_broken_cell_costs_only_its_own_exercise(school):
    rows = read(school)
    assert row(rows, "syntax")["passed"] == "true"
    assert "is no Python: line 1" in row(rows, "syntax", "05.2")["diagnosis"]
    assert row(rows, "syntax", "05.3")["diagnosis"] == "not attempted"


def test_an_answer_that_calls_one_that_is_not_attempted_is_told_so(school):
    assert row(read(school), "depends")["diagnosis"] == "not attempted"
    assert "another exercise, which is not attempted" in row(read(school), "depends", "05.3")["diagnosis"]


def test_an_error_before_the_answer_is_told(school):
    assert "earlier cells ends in an error. ValueError" in row(read(school), "needs")["diagnosis"]


def test_of_two_notebooks_the_better_answer_counts(school):
    assert row(read(school), "twice")["passed"] == "true"


def test_broken_files_and_links_are_told_in_the_summary(school):
    rows = {r["student"]: r for r in read(school, "grades-summary.csv")}
    assert "merge conflict" in rows["broken"]["errors"]
    assert "06_relation.ipynb: the file is empty" in rows["broken"]["errors"]
    assert "leads outside" in rows["link"]["errors"]
    assert "leads outside" in rows["outside"]["errors"]
    assert rows["nothing"]["errors"] == "no notebook was handed in"
    assert rows["HONEST plain"] | {"errors": ""} == rows["HONEST plain"]
    assert (rows["HONEST plain"]["passed"], rows["HONEST plain"]["exercises"]) == ("1", str(len(all_exercises())))
    assert ".hidden" not in rows
    assert "merge conflict" in row(read(school), "broken")["diagnosis"]


def test_the_columns_are_the_promised_ones(school):
    head = (school / "grades.csv").read_text(encoding="utf-8").splitlines()[0]
    assert head == "student,exercise,passed,diagnosis,seed,points,worth,judged"


def test_a_missing_or_empty_folder_is_an_error_in_words(tmp_path, capsys):
    assert main(["grade", str(tmp_path / "none")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert main(["grade", str(tmp_path), *UNCONFINED]) == 1
    assert "has no student folders" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_table_that_cannot_be_written_is_an_error_in_words_and_the_old_one_stays(tmp_path, capsys):
    (tmp_path / "one").mkdir()
    (tmp_path / "grades.csv").write_text("old")
    (tmp_path / "grades-summary.csv").mkdir()
    assert main(["grade", str(tmp_path), *UNCONFINED]) == 1
    assert "cannot be written" in capsys.readouterr().err
    (tmp_path / "grades-summary.csv").rmdir()
    assert main(["grade", str(tmp_path), *UNCONFINED]) == 0
    first = (tmp_path / "grades.csv").read_bytes(), (tmp_path / "grades-summary.csv").read_bytes()
    assert main(["grade", str(tmp_path), *UNCONFINED]) == 0
    assert first == ((tmp_path / "grades.csv").read_bytes(), (tmp_path / "grades-summary.csv").read_bytes())


def test_an_assignment_solved_untouched_and_with_the_public_solution(tmp_path):
    assert main(["assignment", "--seed", "7", "--exercises", "05.1", "--out", str(tmp_path / "out")]) == 0
    for student, name in (("solved", "solved-7"), ("blank", "assignment-7")):
        (tmp_path / "class" / student).mkdir(parents=True)
        shutil.copy(tmp_path / "out" / f"{name}.ipynb", tmp_path / "class" / student)
    zoo.write(tmp_path / "class" / "public", [zoo.IMPORTS, zoo.answer(zoo.RIGHT).replace("05.1", "05.1@7")])
    assert main(["grade", str(tmp_path / "class"), *UNCONFINED]) == 0
    rows = read(tmp_path / "class")
    assert (row(rows, "solved")["passed"], row(rows, "solved")["seed"]) == ("true", "7")
    assert row(rows, "blank")["diagnosis"] == "not attempted"
    assert "when the public solution of 05.1 is handed in" in row(rows, "public")["diagnosis"]


def test_without_confinement_it_refuses(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(confinement, "landlock_version", lambda: -1)
    zoo.write(tmp_path / "one", [zoo.IMPORTS, zoo.answer(zoo.RIGHT)])
    assert main(["grade", str(tmp_path)]) == 1
    assert "--unconfined" in capsys.readouterr().err
    assert not (tmp_path / "grades.csv").exists()


def test_unconfined_grading_grades_all_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(confinement, "landlock_version", lambda: -1)
    zoo.write(tmp_path / "one", [zoo.IMPORTS, zoo.answer(zoo.RIGHT)])
    zoo.write(tmp_path / "two", [zoo.IMPORTS, zoo.LAZY["module"]])
    assert main(["grade", str(tmp_path), "--unconfined", "--json", "--lessons", "5"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["student"], r["passed"]) for r in rows if r["exercise"] == "05.1"] == [("one", True), ("two", False)]


def test_unknown_lessons_and_odd_numbers_are_errors(tmp_path, capsys):
    assert main(["grade", str(tmp_path), "--lessons", "77", "--unconfined"]) == 1
    assert "there is no lesson 77" in capsys.readouterr().err
    assert main(["grade", str(tmp_path), "--jobs", "0", "--unconfined"]) == 1
    assert "must be positive" in capsys.readouterr().err


def test_the_process_that_grades_gets_one_thread_and_waits_without_spinning(tmp_path, monkeypatch):
    started = {}
    monkeypatch.setattr(feeders.subprocess, "Popen", lambda command, **options: started.update(options))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("A_SECRET", "of the teacher's")
    feeders.start(tmp_path, {}, [])
    assert started["env"]["OMP_NUM_THREADS"] == "1"
    assert started["env"].items() >= threads.SPINNING.items()
    assert "A_SECRET" not in started["env"]
