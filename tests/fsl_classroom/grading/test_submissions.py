"""Reading what was handed in."""

import json
import os
import time

import pytest

from fsl_classroom.grading import submissions
from fsl_classroom.grading.submissions import Unreadable, find_submissions, read_cells, within, without_magics
from tests.fsl_classroom.grading import zoo


def put(tmp_path, content):
    path = tmp_path / "05_a.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("{", "no JSON"),
        ("<<<<<<< HEAD\n{}\n", "merge conflict"),
        ("[1]", "no notebook"),
        ('{"a": 1}', "no cells"),
        (b"\xff\xfe\x00", "UTF-8"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_notebook_is_told(tmp_path, content, words):
    with pytest.raises(Unreadable, match=words):
        read_cells(put(tmp_path, content))


def test_a_huge_file_a_pipe_and_a_link_outside_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(submissions, "LARGEST", 10)
    with pytest.raises(Unreadable, match="larger than"):
        read_cells(put(tmp_path, '{"cells": []}'))
    os.mkfifo(tmp_path / "pipe.ipynb")
    with pytest.raises(Unreadable, match="no regular file"):
        read_cells(tmp_path / "pipe.ipynb")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "link.ipynb").symlink_to(tmp_path / "05_a.ipynb")
    with pytest.raises(Unreadable, match="leads outside"):
        read_cells(tmp_path / "one" / "link.ipynb")


def test_sources_of_both_formats_and_both_spellings(tmp_path):
    new = {"cells": [{"cell_type": "code", "source": ["a = 1\n", "b = 2"]}, {"cell_type": "markdown", "source": "no"}]}
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": "a = 1\nb = 2"}]}]}
    for notebook in (new, old):
        (cell,) = read_cells(put(tmp_path, json.dumps(notebook)))
        assert cell.source == "a = 1\nb = 2"
        assert len(cell.tree.body) == 2


def test_a_cell_that_is_no_python_is_told_and_the_others_are_read(tmp_path):
    path = zoo.write(
        tmp_path, ["a = 1", "def f(:", "<<<<<<< HEAD\nb = 1\n=======\nb = 2\n>>>>>>> x", "return 1", "c = 3"]
    )
    cells = read_cells(path)
    assert [cell.tree is None for cell in cells] == [False, True, True, True, False]
    assert "code cell 2 is no Python: line 1" in cells[1].trouble
    assert "merge conflict" in cells[2].trouble


def test_magics_are_taken_out_and_modulo_is_not(tmp_path):
    kept = without_magics("%matplotlib inline\nif a:\n    !rm -rf x\nb = %time f()\ntorch.stack?\nc = 7 % 2")
    assert kept == "pass\nif a:\n    pass\nb = None\npass\nc = 7 % 2"
    assert without_magics("%%time\na = 1") == "\na = 1"
    assert without_magics("%%bash\nrm -rf x").strip() == ""
    plain = "a = (7\n% 2)"  # valid Python, so nothing is removed
    (cell,) = read_cells(zoo.write(tmp_path, [plain]))
    assert cell.source == plain


def test_hidden_folders_are_passed_over_and_names_are_kept(tmp_path):
    for name in ("b b", "王小明", ".git", ".ipynb_checkpoints"):
        zoo.write(tmp_path / name, ["a = 1"])
    zoo.write(tmp_path / "b b", ["a = 1"], ".hidden.ipynb")
    (tmp_path / "grades.csv").write_text("")
    found = find_submissions(tmp_path)
    assert [s.student for s in found] == ["b b", "王小明"]
    assert [len(s.notebooks) for s in found] == [1, 1]


def test_commands_inside_brackets_and_texts_are_none():
    assert without_magics("!ls\ny = (7\n% 4)\nd = '''\n%x\n'''\n%y") == "pass\ny = (7\n% 4)\nd = '''\n%x\n'''\npass"
    assert without_magics("!pip install \\\n  torch\na = 1") == "pass\n\na = 1"
    assert without_magics("pip install torch\n%time a = f(1)") == "pass\na = f(1)"
    assert without_magics("a = \"it's (\"  # it's (\n%x") == "a = \"it's (\"  # it's (\npass"


def test_line_ends_marks_and_indents_of_other_programs(tmp_path):
    sources = ["a = 1\r\nb = 2", "\ufeffa = 1", "  a = 1\n  b = 2", "a = 1\rb = 2", "await f()"]
    assert [cell.trouble for cell in read_cells(zoo.write(tmp_path, sources))] == [""] * 5


def test_files_that_are_no_files_and_files_that_take_for_ever(tmp_path):
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "loop.ipynb").symlink_to("loop.ipynb")
    (tmp_path / "number.ipynb").write_text('{"cells": [' + "9" * 10000 + "]}")
    with open(tmp_path / "hole.ipynb", "wb") as file:
        file.truncate(10**10)
    words = {"pipe": "no regular file", "loop": "leads", "number": "digits", "hole": "larger than"}
    for name, said in words.items():
        with pytest.raises(Unreadable, match=said):
            read_cells(tmp_path / f"{name}.ipynb")
    with pytest.raises(Unreadable, match="within 0 seconds"), within(0.01):
        time.sleep(60)


def test_capital_letters_in_the_ending(tmp_path):
    zoo.write(tmp_path / "a", ["a = 1"], "05.IPYNB")
    assert [len(s.notebooks) for s in find_submissions(tmp_path)] == [1]
