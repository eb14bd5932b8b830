"""Keeps a learner's progress in a small JSON file in the user's folder. Sends nothing anywhere."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock, Timeout

from fsl_classroom.checking.describe import printable
from fsl_classroom.checking.model import Exercise
from fsl_course._system.files import replace_file

_VERSION = 1
_LONGEST_WAIT = 20.0  # seconds for another process to write
_WITHOUT_LOCKS = {
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOLCK,
    errno.EINVAL,
}  # what disks without locks say
_memory: dict[str, dict[str, Any]] = {}  # records that could not be written; this session still needs them
_next_hint: dict[str, int] = {}


def _catalogue() -> ModuleType:
    """Returns the catalogue. It is imported when it is needed: processes that run an answer for grading hold no catalogue."""
    return import_module("fsl_classroom.checking.catalogue")


def progress_file() -> Path:
    """Returns the path FSL_PROGRESS if it is set, else ~/.fsl_course/progress.json."""
    path = Path(os.environ.get("FSL_PROGRESS") or "~/.fsl_course/progress.json")
    try:
        return path.expanduser()
    except RuntimeError:  # a user without a home
        return Path("fsl_progress.json")


def now() -> str:
    """Returns the time in UTC as ISO text."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _fresh(exercise: Exercise) -> dict[str, Any]:
    return {
        "title": exercise.title,
        "passed": False,
        "attempts": 0,
        "first_passed_at": None,
        "last_diagnosis": "",
        "hints_used": 0,
        "answer": "",
    }


def load() -> dict[str, dict[str, Any]]:
    """Returns exercise id -> record. A file that is damaged or cannot be read counts as empty (see `trouble`)."""
    try:
        records, _ = _read(progress_file())
    except OSError:
        records = {}
    return _with_memory(records)


def trouble() -> str:
    """Returns a sentence if there is a progress file that cannot be read, else ""."""
    try:
        _read(progress_file())
    except OSError as error:
        return f"the progress file {progress_file()} cannot be read ({error.strerror or error})."
    return ""


def _with_memory(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the records with what this session could not write: an exercise is right if it is right in either."""
    return {**records, **{key: _merged(entry, records.get(key, {})) for key, entry in _memory.items()}}


def _read(path: Path) -> tuple[dict[str, dict[str, Any]], bool]:
    """Returns the records, and whether the file is there but damaged. Raises OSError if it is there and cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        records = content["exercises"]
        if not isinstance(records, Mapping) or not all(isinstance(record, Mapping) for record in records.values()):
            return {}, True
        return {str(key): dict(record) for key, record in records.items()}, False
    except (FileNotFoundError, NotADirectoryError):
        return {}, False
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}, True


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lets one process at a time read, change and write the file. Raises OSError if another one takes too long.

    On a disk that knows no locks, all go on without one.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=_LONGEST_WAIT)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise OSError(f"another process has written to it for {_LONGEST_WAIT:g} seconds") from None
    except NotImplementedError:
        yield
        return
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # Windows cannot remove an open file
            Path(lock.lock_file).unlink()  # before the release: whoever waits for this file sees that it is gone
        lock.release()


def _change(changes: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]) -> str | None:
    """Replaces records by what the functions return for them. Returns a sentence if the learner should know of a problem.

    Moves a damaged file aside, and never replaces one that cannot be read.
    """
    path, note = progress_file(), None
    records = _with_memory({})
    try:
        with _alone(path):
            found, damaged = _read(path)
            records = _with_memory(found)
            records |= {key: change(records.get(key, {})) for key, change in changes.items()}
            if damaged:
                aside = _free_name(path)
                path.rename(aside)
                note = f"the progress file {path} was damaged. It was moved to {aside.name} and a new one begun."
            content = {"version": _VERSION, "exercises": dict(sorted(records.items()))}
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            replace_file(path, text.encode("utf-8", "backslashreplace"))  # the escape of a lone surrogate is its JSON
    except OSError as error:
        _memory.update({key: change(_with_memory({}).get(key, {})) for key, change in changes.items()})
        return (
            f"progress cannot be written to {path} ({error.strerror or error}), so it is kept for this session only. "
            "Set FSL_PROGRESS to a file that can be read and written."
        )
    _memory.clear()
    return note


def _count(record: Mapping[str, Any], name: str) -> int:
    """Returns a count in the record; 0 if it is missing or no longer an integer."""
    value = record.get(name)
    return value if isinstance(value, int) else 0


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")).exists():
        number += 1
    return aside


def record(exercise: Exercise, *, passed: bool, diagnosis: str, answer: str = "") -> str | None:
    """Counts one attempt. An exercise once right stays right. Returns a sentence if the file could not be written, else None.

    answer: the source of the cell, which `work` can restore later; a wrong answer does not replace a right one
    """

    def counted(before: Mapping[str, Any]) -> dict[str, Any]:
        was_right = bool(before.get("passed"))
        keeps = answer and (passed or not was_right)
        return {
            **_fresh(exercise),
            **before,
            "title": exercise.title,
            "attempts": _count(before, "attempts") + 1,
            "passed": passed or was_right,
            "first_passed_at": before.get("first_passed_at") or (now() if passed else None),
            "last_diagnosis": diagnosis,
            "answer": answer if keeps else before.get("answer", ""),
        }

    return _change({exercise.id: counted})


def merge(records: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Adds the records of another progress file. An exercise is right afterwards if it is right in either file.

    Keeps the answer of this file, unless only the other file has one or only the other one is right. Returns a sentence if the
    file cannot be written, else None.
    """
    return _change({key: partial(_merged, theirs=theirs) for key, theirs in sorted(records.items())})


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns one record made of two of the same exercise, as `merge` says."""
    firsts = [first for record in (ours, theirs) if isinstance(first := record.get("first_passed_at"), str)]
    prefers_ours = ours.get("answer") and (ours.get("passed") or not theirs.get("passed"))
    return {
        "title": str(ours.get("title") or theirs.get("title") or ""),
        "passed": bool(ours.get("passed")) or bool(theirs.get("passed")),
        "attempts": max(_count(ours, "attempts"), _count(theirs, "attempts")),
        "hints_used": max(_count(ours, "hints_used"), _count(theirs, "hints_used")),
        "first_passed_at": min(firsts) if firsts else None,
        "last_diagnosis": str((ours or theirs).get("last_diagnosis") or ""),
        "answer": str((ours if prefers_ours else theirs).get("answer") or ""),
    }


def hint(exercise: str | Exercise, number: int | None = None) -> None:
    """Prints the next hint of an exercise, from a nudge to almost the code. hint("05.1", 2) prints the second.

    Raises ValueError for a number that is not among the hints, and LookupError or ValueError for an unknown exercise.
    """
    exercise = exercise if isinstance(exercise, Exercise) else _catalogue().find(exercise)
    count = len(exercise.hints)
    if number is None:
        number = _next_hint.get(exercise.id, 0) + 1
        if number > count:
            print(f'There are no more hints for {exercise.id}. hint("{exercise.id}", 1) shows the first again.')
            return
        _next_hint[exercise.id] = number
    elif isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= count:
        raise ValueError(f"exercise {exercise.id} has hints 1 to {count}; got {number!r}.")
    print(f"Hint {number} of {count} for {exercise.id} {exercise.title}:\n  {exercise.hints[number - 1]}")

    def counted(before: Mapping[str, Any]) -> dict[str, Any]:
        used = max(number, _count(before, "hints_used"))
        return {**_fresh(exercise), **before, "title": exercise.title, "hints_used": used}

    if number > _count(load().get(exercise.id, {}), "hints_used") and (note := _change({exercise.id: counted})):
        print(f"  Note: {note}")


def progress(lesson: str | None = None) -> None:
    """Prints which exercises are right, with the last diagnosis of the others: for one lesson ("05") or for all.

    Raises ValueError for a lesson without exercises and names the lessons that have some.
    """
    records, lines, files = load(), [], _catalogue().lesson_files()
    if lesson is not None:
        if lesson not in files:
            raise ValueError(f"there are no exercises of lesson {lesson!r}; there are some of: {', '.join(files)}.")
        files = {lesson: files[lesson]}
    width = max((len(e.title) for number in files for e in _catalogue().of_lesson(number)), default=0)
    for lesson, module in files.items():
        exercises = _catalogue().of_lesson(lesson)
        right = sum(bool(records.get(e.id, {}).get("passed")) for e in exercises)
        lines.append(f"Lesson {lesson} {module[5:].replace('_', ' ')}: {right} of {len(exercises)} right")
        lines += [f"  {_row(exercise, records.get(exercise.id, {}), width)}" for exercise in exercises]
    if words := trouble():
        lines.insert(0, f"Note: {words} Only what was done in this session is counted.")
    print(printable("\n".join(lines)) or "There are no exercises yet.")


def _row(exercise: Exercise, found: Mapping[str, Any], width: int) -> str:
    tries = _count(found, "attempts")
    counted = "not tried yet" if not tries else f"{tries} {'try' if tries == 1 else 'tries'}"
    if hints := _count(found, "hints_used"):
        counted += f", {hints} hint{'s' * (hints != 1)}"
    name = f"{exercise.id:<5} {exercise.title:<{width}}  {counted}"
    if found.get("passed"):
        return f"✓ {name}"
    diagnosis = str(found.get("last_diagnosis") or "")
    diagnosis = diagnosis if len(diagnosis) <= 100 else diagnosis[:97] + "..."
    return f"{'✗' if tries else '○'} {name}" + (f"\n       {diagnosis}" if tries and diagnosis else "")


def export_results(path: str | Path) -> Path:
    """Writes the progress on every exercise to a JSON file for a teacher and returns its path.

    {"version": 1, "exported_at": ISO time, "exercises": [{"id", "title", "passed", "attempts", "first_passed_at",
    "last_diagnosis", "hints_used"}, ...]}. Exercises that were never tried have 0 attempts. Raises
    FileNotFoundError if the folder does not exist, and OSError if there is a progress file that cannot be read.
    """
    target = Path(path).expanduser()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {target.parent} does not exist: make it first, or choose another path.")
    if words := trouble():
        raise OSError(f"{words} Nothing was exported, because it would be incomplete.")
    records = {exercise.id: _fresh(exercise) for exercise in _catalogue().all_exercises()}
    for key, found in load().items():
        records[key] = {**records.get(key, {}), **found}
    rows = [{"id": key, **{k: v for k, v in records[key].items() if k != "answer"}} for key in sorted(records)]
    content = {"version": _VERSION, "exported_at": now(), "exercises": rows}
    replace_file(target, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
    return target
