"""The progress file, hints, the table and the export."""

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fsl_classroom import check, export_results, hint, progress
from fsl_classroom.checking import catalogue
from fsl_classroom.checking import progress as record_of


@pytest.fixture
def course(toy, monkeypatch):
    """Makes the course one lesson with two exercises."""
    exercises = (toy, replace(toy, id="99.2", title="Distances"))
    monkeypatch.setattr(catalogue, "lesson_files", lambda: {"99": "ex99_toy_lesson"})
    monkeypatch.setattr(catalogue, "of_lesson", lambda lesson: exercises)
    return exercises


def wrong(exercise):
    return exercise.wrong[0].answer


def test_attempts_and_the_first_success_are_kept(toy, progress_file):
    check(toy, wrong(toy))
    record = json.loads(progress_file.read_text(encoding="utf-8"))["exercises"]["99.1"]
    assert (record["passed"], record["attempts"], record["first_passed_at"]) == (False, 1, None)
    assert record["last_diagnosis"] == "This is what you get when the rows are summed and never divided."

    check(toy, toy.right[0])
    first = record_of.load()["99.1"]
    assert (first["passed"], first["attempts"], first["last_diagnosis"]) == (True, 2, "")
    assert first["first_passed_at"].endswith("+00:00")

    check(toy, wrong(toy))
    later = record_of.load()["99.1"]
    assert (later["passed"], later["attempts"]) == (True, 3)  # what was right once stays right
    assert later["first_passed_at"] == first["first_passed_at"]
    assert [path.name for path in progress_file.parent.iterdir()] == ["progress.json"]  # no half-written file is left


def test_a_damaged_file_is_moved_aside_not_lost(toy, progress_file, capsys):
    for number, content in ((1, "{half"), (2, '{"exercises": [1]}')):
        progress_file.write_text(content)
        check(toy, toy.right[0])
        assert "was damaged" in capsys.readouterr().out
        assert progress_file.with_name(f"progress.damaged-{number}.json").read_text() == content
        assert record_of.load()["99.1"]["passed"]


def test_where_nothing_can_be_written_the_session_remembers(toy, tmp_path, monkeypatch, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("FSL_PROGRESS", str(blocked / "progress.json"))
    answer = toy.right[0]
    assert check(toy, answer) is answer
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("  Note: progress cannot be written to")
    check(toy, answer)
    assert record_of.load()["99.1"]["attempts"] == 2

    later = tmp_path / "new folder" / "progress.json"  # everything is written as soon as it can be
    monkeypatch.setenv("FSL_PROGRESS", str(later))
    check(replace(toy, id="99.2"), answer)
    written = json.loads(later.read_text(encoding="utf-8"))["exercises"]
    assert {key: record["attempts"] for key, record in written.items()} == {"99.1": 2, "99.2": 1}


@pytest.fixture
def unreadable(progress_file, monkeypatch):
    """A progress file with 45 records that may be replaced, but not read. Returns the function that makes it readable again."""
    full = {f"05.{n}": {"passed": True, "attempts": n} for n in range(45)} | {"99.1": {"passed": True, "attempts": 9}}
    progress_file.write_text(json.dumps({"version": 1, "exercises": full}))
    read = Path.read_text

    def refuses(path, *args, **kwargs):
        if path == progress_file:
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuses)
    return lambda: monkeypatch.setattr(Path, "read_text", read)


def test_a_file_that_cannot_be_read_is_never_replaced(toy, progress_file, unreadable, capsys, tmp_path):
    before = progress_file.read_bytes()
    check(toy, wrong(toy))
    said = capsys.readouterr().out
    assert "cannot be written to" in said
    assert "Permission denied" in said
    assert progress_file.read_bytes() == before
    assert record_of.load()["99.1"]["attempts"] == 1  # of this session
    with pytest.raises(OSError, match=r"cannot be read \(Permission denied\). Nothing was exported"):
        export_results(tmp_path / "results.json")
    assert not (tmp_path / "results.json").exists()

    unreadable()  # what the session remembers is merged, so that nothing is lost on either side
    check(replace(toy, id="99.2"), toy.right[0])
    written = json.loads(progress_file.read_text(encoding="utf-8"))["exercises"]
    assert len(written) == 47
    assert (written["99.1"]["passed"], written["99.1"]["attempts"]) == (True, 9)


def test_the_table_says_that_the_file_cannot_be_read(course, unreadable, capsys):
    progress()
    assert "Permission denied" in capsys.readouterr().out.splitlines()[0]


def test_a_link_that_leads_to_itself_is_left_as_it_is(toy, progress_file, capsys):
    progress_file.symlink_to(progress_file)
    check(toy, toy.right[0])
    assert "cannot be written to" in capsys.readouterr().out
    assert progress_file.is_symlink()


_RECORDS = """
import sys
from dataclasses import replace
from fsl_classroom import find
from fsl_classroom.checking import progress
exercise = find("05.1")
print("ready", flush=True)
sys.stdin.readline()
for number in range(25):
    note = progress.record(replace(exercise, id=f"{sys.argv[1]}.{number}"), passed=True, diagnosis="")
    note = note or progress.record(exercise, passed=False, diagnosis="")
    assert note is None, note
"""


def test_two_processes_that_record_at_full_speed_lose_nothing(progress_file):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RECORDS, who], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for who in ("71", "72")
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    written = record_of.load()
    assert len(written) == 51
    assert written["05.1"]["attempts"] == 50
    assert [path.name for path in progress_file.parent.iterdir()] == ["progress.json"]


def test_where_the_disk_knows_no_locks_progress_is_kept_all_the_same(toy, monkeypatch):
    def knows_none(lock):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(record_of.FileLock, "acquire", knows_none)
    check(toy, toy.right[0])
    assert record_of.load()["99.1"]["passed"]


def test_who_cannot_have_the_lock_keeps_the_record_for_the_session(toy, progress_file, monkeypatch, capsys):
    monkeypatch.setattr(record_of, "_LONGEST_WAIT", 0.05)
    with record_of.FileLock(progress_file.with_name(".progress.json.lock")):
        check(toy, toy.right[0])
    assert "another process has written to it" in capsys.readouterr().out
    assert record_of.load()["99.1"]["passed"]
    assert not progress_file.exists()


def test_a_file_nested_too_deeply_is_damaged(toy, progress_file, capsys):
    progress_file.write_text('{"exercises": ' + "[" * 100_000)
    check(toy, toy.right[0])
    assert "was damaged" in capsys.readouterr().out


def test_the_file_lies_in_the_home_folder_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("FSL_PROGRESS")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert record_of.progress_file() == tmp_path / ".fsl_course" / "progress.json"


def test_edited_counts_do_no_harm(toy, progress_file):
    progress_file.write_text(json.dumps({"exercises": {"99.1": {"attempts": "many", "hints_used": None}}}))
    check(toy, wrong(toy))
    assert record_of.load()["99.1"]["attempts"] == 1


def test_hints_come_one_by_one_and_end(toy, capsys):
    said = []
    for _ in range(5):
        hint(toy)
        said.append(capsys.readouterr().out)
    assert [toy.hints[i] in said[i] for i in range(3)] == [True, True, True]
    assert said[0].startswith("Hint 1 of 3 for 99.1 Prototypes:")
    assert said[3] == said[4] == 'There are no more hints for 99.1. hint("99.1", 1) shows the first again.\n'
    assert record_of.load()["99.1"]["hints_used"] == 3
    assert record_of.load()["99.1"]["attempts"] == 0


def test_a_hint_can_be_asked_for_by_number(toy, capsys):
    hint(toy, 2)
    assert toy.hints[1] in capsys.readouterr().out
    hint(toy)
    assert toy.hints[0] in capsys.readouterr().out  # asking for one hint by number does not disturb the order
    assert record_of.load()["99.1"]["hints_used"] == 2
    with pytest.raises(ValueError, match="hints 1 to 3; got 4"):
        hint(toy, 4)


def test_the_table_goes_by_lesson(course, capsys):
    first, second = course
    check(first, first.right[0])
    check(second, wrong(second))
    check(second, wrong(second))
    hint(second)
    capsys.readouterr()
    assert progress() is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Lesson 99 toy lesson: 1 of 2 right"
    assert lines[1].split() == ["✓", "99.1", "Prototypes", "1", "try"]
    assert lines[2].split() == ["✗", "99.2", "Distances", "2", "tries,", "1", "hint"]
    assert "the rows are summed" in lines[3]


def test_the_table_of_one_lesson(course, capsys):
    progress("99")
    one = capsys.readouterr().out
    progress()
    assert one == capsys.readouterr().out  # the toy course has one lesson
    with pytest.raises(ValueError, match="no exercises of lesson '98'; there are some of: 99"):
        progress("98")


def test_the_table_before_anything_was_tried(course, capsys):
    progress()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("0 of 2 right")
    assert all(line.strip().startswith("○") and "not tried yet" in line for line in lines[1:])


def test_the_export_lists_every_exercise(course, tmp_path):
    first, _ = course
    check(first, first.right[0])
    target = export_results(tmp_path / "results.json")
    content = json.loads(target.read_text(encoding="utf-8"))
    assert content["version"] == 1
    assert content["exported_at"].endswith("+00:00")
    assert [(row["id"], row["passed"], row["attempts"]) for row in content["exercises"]] == [
        ("99.1", True, 1),
        ("99.2", False, 0),
    ]
    fields = {"id", "title", "passed", "attempts", "first_passed_at", "last_diagnosis", "hints_used"}
    assert all(set(row) == fields for row in content["exercises"])


def test_the_export_needs_a_folder(course, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist: make it first"):
        export_results(tmp_path / "missing" / "results.json")
