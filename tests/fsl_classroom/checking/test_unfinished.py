"""A check that ends its process, or never ends, is told of by the next one."""

import faulthandler
import io
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest

from fsl_classroom import check
from fsl_classroom.checking import unfinished
from fsl_classroom.checking.last_resort import last_resort
from fsl_classroom.checking.timelimit import Clock
from fsl_classroom.checking.unfinished import marked

_START = """
import itertools, os, sys
from fsl_classroom import check
from fsl_classroom.checking import check as desk, last_resort, unfinished
unfinished._in_a_notebook = lambda: True
last_resort._LIMIT = 1.0
desk.SECONDS = 0.3
"""


def ends_in(answer: str, progress_file) -> int:
    """Checks an answer in a process of its own, as if in a notebook, and returns how that ended."""
    program = f"{_START}\ndef prototypes(embeddings, labels, n_way):\n    {answer}\n\ncheck('05.1', prototypes)\n"
    environment = {**os.environ, "FSL_PROGRESS": str(progress_file), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    return ran.returncode


def marks(progress_file):
    return sorted(path.name for path in progress_file.parent.glob("checking-*"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            "sum(itertools.count())",
            "a single call could not be interrupted for more than a minute (line 10 of the cell",
        ),
        ("os._exit(3)", "the kernel ended while 05.1 Prototypes was checked"),
        ("os.kill(os.getpid(), 11)", "A crash in compiled code, too much memory, os._exit or a restart does that"),
    ],
)
def test_a_process_that_an_answer_ends_is_told_of_by_the_next_check(toy, capsys, progress_file, answer, words):
    assert ends_in(answer, progress_file) != 0
    assert len(marks(progress_file)) == 1
    right = toy.right[0]
    assert check(toy, right) is right
    assert words in capsys.readouterr().out
    assert marks(progress_file) == []
    assert check(toy, right) is right
    assert "Note" not in capsys.readouterr().out  # it is said once


def test_the_mark_of_a_process_that_still_checks_is_left_alone(progress_file):
    program = "import sys, time; from fsl_classroom.checking.unfinished import marked\n"
    program += "with marked('05.1 Prototypes'):\n    print('ready', flush=True); sys.stdin.read()"
    environment = {**os.environ, "FSL_PROGRESS": str(progress_file)}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "ready\n"
        with marked("05.2 Distances") as notes:
            assert notes == []
            assert len(marks(progress_file)) == 2
        other.stdin.close()
        assert other.wait(60) == 0
    assert marks(progress_file) == []


@pytest.mark.parametrize("debugged", [False, True])
def test_the_last_resort_is_for_notebooks_without_a_debugger(monkeypatch, debugged):
    asked = []
    monkeypatch.setattr(unfinished, "_in_a_notebook", lambda: True)
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *args, **options: asked.append(args[0]))
    monkeypatch.setattr(sys, "gettrace", (lambda: print) if debugged else (lambda: None))
    clock = Clock(2.0, busy=3.0)
    with last_resort(clock):  # outside of a check
        assert asked == []
    with marked("05.1 Prototypes"), last_resort(clock):
        assert asked == ([] if debugged else [66.0])


def test_a_dead_process_may_have_had_the_number_of_this_one(progress_file):
    mark = progress_file.with_name(f"checking-{os.getpid()}.lock")
    mark.write_text("05.1 Prototypes\n")
    with marked("05.2 Distances") as notes:
        assert len(notes) == 1
        assert "while 05.1 Prototypes was checked" in notes[0]
        with marked("05.3 Loss") as inner:
            assert inner == []  # the outer check is alive
    assert marks(progress_file) == []


def test_where_no_mark_can_be_left_the_check_goes_on(toy, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("FSL_PROGRESS", str(blocked / "progress.json"))
    assert check(toy, toy.right[0]) is toy.right[0]


def test_a_long_check_says_that_it_is_still_busy(monkeypatch, progress_file):
    said, done = io.StringIO(), []
    monkeypatch.setattr(unfinished, "_WORD", 0.01)
    monkeypatch.setattr(sys, "stdout", said)
    with marked("05.1 Prototypes"):
        for _ in itertools.count():  # until the other thread had its turn
            if "still busy" in said.getvalue():
                done.append(True)
                break
            signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert done
    assert said.getvalue().startswith("○ 05.1 Prototypes: still busy after 0.01 seconds.")


def test_what_no_file_can_hold_is_written_as_its_escape(toy, capsys, progress_file):
    def prints(embeddings, labels, n_way):
        print("\ud800")
        return toy.reference(embeddings, labels, n_way)

    def raises(embeddings, labels, n_way):
        raise ValueError("odd \ud800 words")

    assert check(toy, prints) is prints
    assert "\\ud800" in capsys.readouterr().out
    assert check(toy, raises) is toy.reference
    assert "ValueError: odd \\ud800 words." in capsys.readouterr().out
    record = json.loads(progress_file.read_text(encoding="utf-8"))["exercises"]["99.1"]
    assert "ValueError: odd \\ud800 words." in record["last_diagnosis"]


def test_a_process_that_only_runs_answers_needs_neither_progress_nor_catalogue():
    code = (
        "import sys, fsl_classroom.checking.sandbox; "
        "print([n for n in ('progress', 'catalogue', 'judge') if f'fsl_classroom.checking.{n}' in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
