"""Submissions and circumstances that a run of `grade` must survive: the class is graded, and the fault is named."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsl_classroom.__main__ import main
from fsl_classroom.grading import confinement, folders, submissions
from fsl_classroom.grading.submissions import Unreadable, find_submissions, read_cells
from tests.fsl_classroom.grading import zoo

ROOT = Path(__file__).resolve().parents[3]
UNCONFINED = ["--unconfined"] if confinement.problem() else []
needs_landlock = pytest.mark.skipif(bool(UNCONFINED), reason=f"this system cannot confine: {confinement.problem()}")
NESTS = zoo.answer(
    "    import os\n    fd = os.open('.', os.O_RDONLY)\n    for _ in range(1500):\n        os.mkdir('d', dir_fd=fd)\n"
    "        new = os.open('d', os.O_RDONLY, dir_fd=fd)\n        os.close(fd)\n        fd = new\n" + zoo.RIGHT
)
HOLDS = zoo.answer(
    "    import os\n    kept = []\n    for i in range(50):\n        f = open(f'f{i}', 'wb')\n        f.write(bytes(15 * 2**20))\n"
    "        f.flush()\n        os.unlink(f'f{i}')\n        kept.append(f)\n" + zoo.RIGHT
)
SLOW = {
    "softmax": zoo.answer("    while True: F.softmax(embeddings, 0)\n"),
    "no_grad": zoo.answer("    while True:\n        with torch.no_grad(): embeddings.sum()\n"),
}
# The same slowness where the judge shares the process, in an exercise on functions.
SLOW_TOGETHER = """\
def exposes_order(implementation, support, labels, n_way):
    while True:
        with torch.no_grad(): torch.ones(2).softmax(0)
"""
# Cells with 300 functions each, every one of which names 30 others.
FUNCTIONS = [
    "\n".join(
        f"def f{i}(x):\n    return [{', '.join(f'f{(i + 37 * j) % 1500}' for j in range(30))}]"
        for i in range(first, first + 300)
    )
    for first in range(0, 1500, 300)
]


@pytest.fixture(scope="module")
def school(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("school")
    for name in ("aaa", "zzz"):
        zoo.write(folder / name, [zoo.IMPORTS, zoo.answer(zoo.RIGHT)])
    for name, cell in SLOW.items():
        zoo.write(folder / name, [zoo.IMPORTS, cell])
    zoo.write(folder / "slow together", [zoo.IMPORTS, SLOW_TOGETHER, 'check("05.7", exposes_order)'])
    if not UNCONFINED:
        zoo.write(folder / "nests", [zoo.IMPORTS, NESTS])
        zoo.write(folder / "holds", [zoo.IMPORTS, HOLDS])
    names_one = zoo.answer(zoo.RIGHT.replace("embeddings[", "f0 and embeddings["))
    zoo.write(folder / "many functions", [zoo.IMPORTS, *FUNCTIONS, names_one])
    for number in range(90):
        (folder / "folders" / f"{number}.ipynb").mkdir(parents=True)
    (folder / "zzz link").symlink_to(folder / "aaa")
    assert main(["grade", str(folder), "--seconds", "30", "--jobs", "1", *UNCONFINED]) == 0
    return folder


def row(folder: Path, student: str, exercise: str = "05.1") -> dict[str, str]:
    with open(folder / "grades.csv", encoding="utf-8", newline="") as file:
        (found,) = [r for r in csv.DictReader(file) if r["student"] == student and r["exercise"] == exercise]
    return found


def errors(folder: Path, student: str) -> str:
    with open(folder / "grades-summary.csv", encoding="utf-8", newline="") as file:
        (found,) = [r for r in csv.DictReader(file) if r["student"] == student]
    return found["errors"]


def test_the_class_around_the_faults_is_graded(school):
    assert (row(school, "aaa")["passed"], row(school, "zzz")["passed"]) == ("true", "true")


@needs_landlock
def test_folders_without_end_are_ended_and_cleared_away(school):
    assert row(school, "nests")["passed"] == "false"
    assert "nests folders without end" in row(school, "nests")["diagnosis"]


@needs_landlock
def test_no_answer_holds_files_that_nobody_can_count(school):
    assert row(school, "holds")["passed"] == "false"


@pytest.mark.parametrize("name", SLOW)
def test_slow_code_is_called_slow_and_not_dishonest(school, name):
    assert "No answer within" in row(school, name)["diagnosis"]


def test_slow_code_beside_the_judge_is_called_slow_too(school):
    found = row(school, "slow together", "05.7")
    assert (found["passed"], found["judged"]) == ("false", "together")
    assert "No answer within" in found["diagnosis"]


def test_an_answer_that_names_hundreds_of_functions_is_graded(school):
    assert (row(school, "many functions")["passed"], errors(school, "many functions")) == ("true", "")


def test_folders_named_like_notebooks_cost_nobody_else_a_handle(school):
    assert errors(school, "folders").count("it is no regular file") == 90


def test_a_link_to_another_student_earns_nothing(school):
    assert row(school, "zzz link")["passed"] == "false"
    assert "a link to another student's folder" in errors(school, "zzz link")


def test_a_folder_is_removed_without_recursion_and_links_are_not_followed(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "file").write_text("x")
    handle = os.open(inside, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=handle)
        os.symlink(outside, "link 2", dir_fd=handle)
        below = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    assert folders.held(inside) == float("inf")
    folders.remove(inside)
    assert not inside.exists()
    assert (outside / "precious").read_text() == "mine"


def test_what_a_folder_holds_counts_empty_files_too(tmp_path):
    for number in range(5):
        (tmp_path / str(number)).touch()
    (tmp_path / "large").write_bytes(bytes(5000))
    assert folders.held(tmp_path) == 5 * 1024 + 5000


def test_many_notebooks_that_are_folders_leave_no_handle_open(tmp_path):
    (tmp_path / "one.ipynb").mkdir()
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(20):
        with pytest.raises(Unreadable, match="no regular file"):
            read_cells(tmp_path / "one.ipynb")
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)


@pytest.mark.parametrize(
    ("notebook", "words"),
    [
        ({"cells": {"0": {}}}, "its cells are damaged"),
        ({"cells": [1, 2]}, "its cells are damaged"),
        ({"cells": 7}, "its cells are damaged"),
        ({"cells": [{"cell_type": "code", "source": 5}]}, "the source of code cell 1 is no text"),
        ({"cells": [{"cell_type": "code", "source": ["a", 5]}]}, "the source of code cell 1 is no text"),
        ({"worksheets": [5]}, "its worksheets are damaged"),
        ({"worksheets": [{"cells": 5}]}, "its worksheets are damaged"),
        ({"cells": [{"cell_type": "code", "source": "a;" * 10**5}]}, "code cell 1 has 200,000 characters"),
        ({"cells": [{"cell_type": "code", "source": "a\n" * 40_000}] * 6}, "480,000 characters of code"),
    ],
)
def test_notebooks_that_are_built_wrongly_are_named(tmp_path, notebook, words):
    (tmp_path / "05_a.ipynb").write_text(json.dumps(notebook))
    with pytest.raises(Unreadable, match=words):
        read_cells(tmp_path / "05_a.ipynb")


def test_every_lesson_is_far_below_the_limits_of_code():
    for path in (ROOT / "solutions").glob("*.ipynb"):
        sources = [cell.source for cell in read_cells(path)]
        assert sum(map(len, sources)) < submissions.MOST_CODE / 2
        assert max(map(len, sources)) < submissions.MOST_OF_A_CELL / 4


def test_an_unreadable_folder_costs_only_its_student(tmp_path, monkeypatch):
    for name in ("a", "b"):
        zoo.write(tmp_path / name, ["x = 1"])
    plain = Path.iterdir

    def iterdir(self):
        if self.name == "a":  # the superuser may read every folder
            raise PermissionError(13, "Permission denied")
        return plain(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    first, second = find_submissions(tmp_path)
    assert first.refused == "the folder cannot be read (Permission denied)"
    assert (second.refused, len(second.notebooks)) == ("", 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seconds", "1e308"], "--seconds takes at most 86400"),
        (["--seconds", "inf"], "--seconds takes at most 86400"),
        (["--seconds", "nan"], "--seconds takes at most 86400"),
        (["--seconds", "-1"], "must be positive"),
        (["--memory", "999999999999999"], "--memory takes megabytes, at most"),
        (["--jobs", "100000"], "--jobs takes at most"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_and_the_table_stays(tmp_path, capsys, options, words):
    zoo.write(tmp_path / "one", ["x = 1"])
    (tmp_path / "grades.csv").write_text("old")
    assert main(["grade", str(tmp_path), *options, *UNCONFINED]) == 1
    assert words in capsys.readouterr().err
    assert (tmp_path / "grades.csv").read_text() == "old"


def test_a_folder_that_takes_no_tables_is_noticed_before_grading(tmp_path, capsys, monkeypatch):
    from fsl_classroom.grading import grade

    zoo.write(tmp_path / "one", ["x = 1"])

    def full(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(grade.tempfile, "TemporaryFile", full)
    monkeypatch.setattr(grade, "graded", lambda *_: pytest.fail("it has begun to grade"))
    assert main(["grade", str(tmp_path), *UNCONFINED]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_rows_are_printed_although_the_tables_cannot_be_written(tmp_path, capsys):
    zoo.write(tmp_path / "one", ["x = 1"])
    (tmp_path / "grades.csv").mkdir()
    assert main(["grade", str(tmp_path), "--json", *UNCONFINED]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "one" in {json.loads(line)["student"] for line in lines}


def _descendants(process: int) -> list[int]:
    found = [process]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if words[0] != "Z" and int(words[1]) == process:
            found += _descendants(int(path.parent.name))
    return found


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process_and_sigterm_no_scratch_folder(tmp_path, number):
    (tmp_path / "tmp").mkdir()
    zoo.write(tmp_path / "class" / "one", [zoo.IMPORTS, zoo.answer("    while True: pass\n")])
    (tmp_path / "class" / "grades.csv").write_text("old")
    command = [
        sys.executable,
        "-m",
        "fsl_classroom",
        "grade",
        str(tmp_path / "class"),
        "--seconds",
        "600",
        "--jobs",
        "1",
    ]
    run = subprocess.Popen(
        [*command, *UNCONFINED],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while len(everybody := _descendants(run.pid)) < 6 and time.monotonic() < until:  # with both cradles and a lane
        time.sleep(0.2)
    assert len(everybody) >= 6
    run.send_signal(number)
    said = run.communicate(timeout=60)[1]
    until = time.monotonic() + 60
    while any(map(_lives, everybody)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not any(map(_lives, everybody))
    assert (tmp_path / "class" / "grades.csv").read_text() == "old"
    if number == signal.SIGTERM:
        assert run.returncode == 143
        assert re.search("Stopped by SIGTERM. The tables are as they were.", said)
        assert not list((tmp_path / "tmp").glob("grading-*"))
