"""Keeps a learner's progress in a small JSON file in the user's folder. Sends nothing anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsl_classroom.checking import catalogue
from fsl_classroom.checking.model import Exercise
from fsl_course._system.files import replace_file

_VERSION = 1
_memory: dict[str, dict[str, Any]] = {}  # records that could not be written; this session still needs them
_next_hint: dict[str, int] = {}


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
    """Returns exercise id -> record. A damaged file counts as empty; `_store` moves it aside before it writes a new one."""
    records, _ = _read(progress_file())
    return {**records, **_memory}


def _read(path: Path) -> tuple[dict[str, dict[str, Any]], bool]:
    """Returns the records, and whether the file is there but damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        records = content["exercises"]
        if not isinstance(records, Mapping) or not all(isinstance(record, Mapping) for record in records.values()):
            return {}, True
        return {str(key): dict(record) for key, record in records.items()}, False
    except FileNotFoundError:
        return {}, False
    except (ValueError, KeyError, TypeError):
        return {}, True
    except OSError:
        return {}, False


def _save(exercise: Exercise, change: Mapping[str, Any]) -> str | None:
    """Changes some fields of one record. Returns a sentence if the learner should know of a problem, else None."""
    return _store(exercise.id, {**_fresh(exercise), **load().get(exercise.id, {}), **change, "title": exercise.title})


def _store(key: str, entry: Mapping[str, Any]) -> str | None:
    """Writes one record. Returns a sentence if the learner should know of a problem, else None."""
    path = progress_file()
    records, damaged = _read(path)
    records.update(_memory)
    records[key] = dict(entry)
    note = None
    content = {"version": _VERSION, "exercises": dict(sorted(records.items()))}
    try:
        if damaged:
            aside = _free_name(path)
            path.rename(aside)
            note = f"the progress file {path} was damaged. It was moved to {aside.name} and a new one begun."
        replace_file(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        _memory[key] = records[key]
        return (
            f"progress cannot be written to {path} ({error.strerror or error}), so it is kept for this session only. "
            "Set FSL_PROGRESS to a file that can be written."
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
    before = load().get(exercise.id, _fresh(exercise))
    was_right = bool(before.get("passed"))
    keeps = answer and (passed or not was_right)
    return _save(
        exercise,
        {
            "attempts": _count(before, "attempts") + 1,
            "passed": passed or was_right,
            "first_passed_at": before.get("first_passed_at") or (now() if passed else None),
            "last_diagnosis": diagnosis,
            "answer": answer if keeps else before.get("answer", ""),
        },
    )


def merge(records: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Adds the records of another progress file. An exercise is right afterwards if it is right in either file.

    Keeps the answer of this file, unless only the other file has one or only the other one is right. Returns a sentence if the
    file cannot be written, else None.
    """
    note = None
    for key, theirs in sorted(records.items()):
        ours = load().get(key, {})
        firsts = [first for record in (ours, theirs) if isinstance(first := record.get("first_passed_at"), str)]
        prefers_ours = ours.get("answer") and (ours.get("passed") or not theirs.get("passed"))
        change = {
            "title": str(ours.get("title") or theirs.get("title") or ""),
            "passed": bool(ours.get("passed")) or bool(theirs.get("passed")),
            "attempts": max(_count(ours, "attempts"), _count(theirs, "attempts")),
            "hints_used": max(_count(ours, "hints_used"), _count(theirs, "hints_used")),
            "first_passed_at": min(firsts) if firsts else None,
            "last_diagnosis": str((ours or theirs).get("last_diagnosis") or ""),
            "answer": str((ours if prefers_ours else theirs).get("answer") or ""),
        }
        note = _store(key, change) or note
    return note


def hint(exercise: str | Exercise, number: int | None = None) -> None:
    """Prints the next hint of an exercise, from a nudge to almost the code. hint("05.1", 2) prints the second.

    Raises ValueError for a number that is not among the hints, and LookupError or ValueError for an unknown exercise.
    """
    exercise = exercise if isinstance(exercise, Exercise) else catalogue.find(exercise)
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
    used = _count(load().get(exercise.id, {}), "hints_used")
    if number > used and (note := _save(exercise, {"hints_used": number})):
        print(f"  Note: {note}")


def progress(lesson: str | None = None) -> None:
    """Prints which exercises are right, with the last diagnosis of the others: for one lesson ("05") or for all.

    Raises ValueError for a lesson without exercises and names the lessons that have some.
    """
    records, lines, files = load(), [], catalogue.lesson_files()
    if lesson is not None:
        if lesson not in files:
            raise ValueError(f"there are no exercises of lesson {lesson!r}; there are some of: {', '.join(files)}.")
        files = {lesson: files[lesson]}
    width = max((len(e.title) for number in files for e in catalogue.of_lesson(number)), default=0)
    for lesson, module in files.items():
        exercises = catalogue.of_lesson(lesson)
        right = sum(bool(records.get(e.id, {}).get("passed")) for e in exercises)
        lines.append(f"Lesson {lesson} {module[5:].replace('_', ' ')}: {right} of {len(exercises)} right")
        lines += [f"  {_row(exercise, records.get(exercise.id, {}), width)}" for exercise in exercises]
    print("\n".join(lines) or "There are no exercises yet.")


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
    FileNotFoundError if the folder does not exist.
    """
    target = Path(path).expanduser()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {target.parent} does not exist: make it first, or choose another path.")
    records = {exercise.id: _fresh(exercise) for exercise in catalogue.all_exercises()}
    for key, found in load().items():
        records[key] = {**records.get(key, {}), **found}
    rows = [{"id": key, **{k: v for k, v in records[key].items() if k != "answer"}} for key in sorted(records)]
    content = {"version": _VERSION, "exported_at": now(), "exercises": rows}
    target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return target
