"""Saving and restoring a learner's work."""

from __future__ import annotations

import json
import linecache
from pathlib import Path

import pytest

from fsl_classroom import check, find, restore_work, saved_work
from fsl_classroom.checking.progress import load
from fsl_classroom.checking.work import MOST_BYTES, cell_of

RIGHT = '''\
def accuracy(predictions, labels):
    """The share of right answers."""
    return (predictions == labels).double().mean().item()


accuracy = check("00.1", accuracy)'''
WRONG = RIGHT.replace("==", "!=")
STUB = '''\
def accuracy(predictions, labels):
    """The share of right answers."""
    # YOUR CODE HERE
    raise NotImplementedError("exercise 00.1 is not attempted yet")


accuracy = check("00.1", accuracy)'''


def answer_in_a_cell(source: str, name: str) -> None:
    """Runs a cell as a kernel does: compiles it under a name of its own and gives its lines to linecache."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), {"check": check})


def a_notebook(folder: Path, source: str, name: str = "00_start.ipynb") -> Path:
    cell = {"cell_type": "code", "id": "00-010", "metadata": {}, "outputs": [{"old": 1}], "execution_count": 3}
    text = {"cell_type": "markdown", "id": "00-009", "metadata": {}, "source": ["exercise 00.1 is not attempted yet"]}
    cells = [text, cell | {"source": source.splitlines(keepends=True)}]
    path = folder / name
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n")
    return path


def source_of(notebook: Path) -> str:
    return "".join(json.loads(notebook.read_text())["cells"][1]["source"])


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns the saved work of a learner who got 00.1 right, with an empty progress file in place afterwards."""
    monkeypatch.setenv("FSL_PROGRESS", str(tmp_path / "there.json"))
    answer_in_a_cell(RIGHT, "<cell right>")
    content = saved_work()
    monkeypatch.setenv("FSL_PROGRESS", str(tmp_path / "here.json"))
    return content


def test_the_cell_of_an_answer_is_kept_and_comes_back_into_its_stub(saved: str, tmp_path: Path):
    notebook = a_notebook(tmp_path, STUB)
    said = restore_work(saved, tmp_path)
    assert source_of(notebook) == RIGHT
    assert json.loads(notebook.read_text())["cells"][1]["outputs"] == []
    assert load()["00.1"]["passed"] is True
    assert said[0] == "1 exercises brought back, 1 of them right."
    assert "00_start.ipynb: your cells for 00.1 are back" in said[1]


def test_what_was_written_here_is_never_overwritten(saved: str, tmp_path: Path):
    notebook = a_notebook(tmp_path, WRONG)
    before = notebook.read_bytes()
    said = restore_work(saved, tmp_path)
    assert notebook.read_bytes() == before
    assert "Left alone, because their cells are not empty: 00.1." in said


def test_a_wrong_answer_does_not_displace_a_right_one(saved: str):
    answer_in_a_cell(WRONG, "<cell wrong>")
    assert load()["00.1"]["answer"] == WRONG
    restore_work(saved)
    assert (load()["00.1"]["answer"], load()["00.1"]["passed"]) == (RIGHT, True)
    answer_in_a_cell(WRONG, "<cell wrong>")
    assert (load()["00.1"]["answer"], load()["00.1"]["passed"]) == (RIGHT, True)


def test_merging_keeps_what_is_right_on_either_side(saved: str, tmp_path: Path):
    theirs = json.loads(saved)
    theirs["exercises"]["00.1"] |= {
        "passed": False,
        "attempts": 7,
        "hints_used": 2,
        "first_passed_at": None,
        "answer": WRONG,
    }
    answer_in_a_cell(RIGHT, "<cell right>")
    first = load()["00.1"]["first_passed_at"]
    restore_work(json.dumps(theirs))
    record = load()["00.1"]
    assert (record["passed"], record["attempts"], record["hints_used"]) == (True, 7, 2)
    assert (record["first_passed_at"], record["answer"]) == (first, RIGHT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ('{"cells": []}', "no saved work of the course"),
        ("[1, 2]", "no saved work of the course"),
        ('{"format": "fsl-course work", "version": 99, "exercises": {}}', "another version"),
        ('{"format": "fsl-course work", "version": 1, "exercises": {"00.1": 3}}', "damaged"),
        (" " * (MOST_BYTES + 1), "too large"),
    ],
    ids=["empty", "deep", "notebook", "list", "newer", "damaged", "large"],
)
def test_files_that_are_none_of_ours_change_nothing(tmp_path: Path, text: str, words: str):
    before = load()
    with pytest.raises(ValueError, match=words):
        restore_work(text, tmp_path)
    assert load() == before


def test_restoring_executes_nothing_and_refuses_what_is_no_code(saved: str, tmp_path: Path):
    theirs = json.loads(saved)
    theirs["exercises"]["00.1"]["answer"] = f"open({str(tmp_path / 'ran')!r}, 'w')"
    restore_work(json.dumps(theirs), tmp_path)
    assert not (tmp_path / "ran").exists()
    notebook = a_notebook(tmp_path, STUB)
    theirs["exercises"]["00.1"]["answer"] = "!rm -rf ."
    restore_work(json.dumps(theirs), tmp_path)
    assert source_of(notebook) == STUB


def test_a_damaged_notebook_is_left_as_it_is(saved: str, tmp_path: Path):
    (tmp_path / "00_start.ipynb").write_text("<<<<<<< mine")
    said = restore_work(saved, tmp_path)
    assert any("00_start.ipynb could not be filled" in sentence for sentence in said)
    assert (tmp_path / "00_start.ipynb").read_text() == "<<<<<<< mine"


def test_without_notebooks_progress_alone_comes_back(saved: str, tmp_path: Path):
    said = restore_work(saved, tmp_path)
    assert said[-1] == "There are no notebooks of the course in this folder, so only your progress is back."
    assert load()["00.1"]["passed"] is True


def test_the_source_of_a_function_in_a_file_is_that_function_alone():
    assert cell_of(source_of) == (
        "def source_of(notebook: Path) -> str:\n"
        '    return "".join(json.loads(notebook.read_text())["cells"][1]["source"])'
    )
    assert cell_of(len) == ""
    assert cell_of(find("00.1").reference).startswith("def ")
