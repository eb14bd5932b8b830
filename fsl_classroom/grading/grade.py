"""The command `grade`: sends notebooks to the lanes, collects the verdicts and writes two tables."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from tqdm import tqdm

from fsl_classroom import all_exercises
from fsl_classroom.grading import confinement, report
from fsl_classroom.grading.expected import Assignment, read_assignment
from fsl_classroom.grading.feeders import Task, with_lanes
from fsl_classroom.grading.submissions import Submission, find_submissions
from fsl_course._system.files import replace_file

_LONGEST, _MOST_MEMORY, _MOST_JOBS = 86_400.0, 1_048_576, 512  # a day, a terabyte in MB


class _Terminated(BaseException):
    """Raised in the main thread by SIGTERM, so that everything is cleaned up as after Ctrl-C."""


def run(arguments: argparse.Namespace) -> int:
    """Grades a folder. Returns exit status 0, 1 after printing to stderr what is wrong, or 143 after SIGTERM."""
    folder = Path(arguments.folder)
    try:
        if words := _refusal(arguments, folder):
            raise ValueError(words)
        assignment = read_assignment(Path(arguments.assignment)) if arguments.assignment else None
        submissions = find_submissions(folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {folder} cannot be read ({error.strerror or error}).", file=sys.stderr)
        return 1
    if not submissions:
        print(f"error: {folder} has no student folders. It must hold one folder for each student.", file=sys.stderr)
        return 1
    try:
        with _ended_by_sigterm():
            records = graded(submissions, arguments, assignment)
    except _Terminated:
        print("Stopped by SIGTERM. The tables are as they were.", file=sys.stderr)
        return 143
    return _finish(_results(folder, records, arguments, assignment), arguments.json)


def _results(
    folder: Path, records: list[report.Record], arguments: argparse.Namespace, assignment: Assignment | None
) -> report.Results:
    """Returns the records with the exercises that count: the assignment's, or all of the lessons that were handed in."""
    if assignment is not None:
        return report.Results(folder, records, list(assignment.exercises), assignment.points)
    lessons = set().union(*(record.lessons for record in records))
    if arguments.lessons:
        lessons &= {lesson.zfill(2) for lesson in arguments.lessons}
    return report.Results(folder, records, [e.id for e in all_exercises() if e.lesson in lessons])


def _finish(results: report.Results, as_json: bool) -> int:
    """Prints the rows if they are asked for, writes the tables and returns the exit status."""
    rows = report.rows(results)
    if as_json:
        for row in rows:
            print(json.dumps(dict(zip(report.COLUMNS, row, strict=True)) | {"passed": row[2] == "true"}))
    summary = report.summary(results)
    try:
        replace_file(results.folder / "grades.csv", report.table(report.COLUMNS, rows))
        replace_file(results.folder / "grades-summary.csv", report.table(report.SUMMARY, summary))
    except OSError as error:
        print(f"error: the tables cannot be written into {results.folder} ({error.strerror or error})", file=sys.stderr)
        return 1
    lessons = len({exercise[:2] for exercise in results.exercises})
    print(
        f"{len(results.records)} students, {len(results.exercises)} exercises of {lessons} lessons: "
        f"{results.folder / 'grades.csv'}, {results.folder / 'grades-summary.csv'}",
        file=sys.stderr,
    )
    for record in results.records:
        for words in record.errors:
            print(f"  {report.defused(record.student)}: {report.defused(words)}", file=sys.stderr)
    return 0


def _refusal(arguments: argparse.Namespace, folder: Path) -> str | None:
    """Returns why nothing can be graded, or None."""
    if not folder.is_dir():
        return f"there is no folder {folder}. It must hold one folder for each student, with notebooks in it."
    if arguments.seconds <= 0 or arguments.memory <= 0 or (arguments.jobs is not None and arguments.jobs < 1):
        return "--seconds, --memory and --jobs must be positive."
    if not math.isfinite(arguments.seconds) or arguments.seconds > _LONGEST:
        return f"--seconds takes at most {_LONGEST:.0f}, a day for each notebook; got {arguments.seconds:g}."
    if arguments.memory > _MOST_MEMORY:
        return f"--memory takes megabytes, at most {_MOST_MEMORY}; got {arguments.memory}."
    if (arguments.jobs or 1) > _MOST_JOBS:
        return f"--jobs takes at most {_MOST_JOBS}; got {arguments.jobs}."
    known = {exercise.lesson for exercise in all_exercises()}
    if unknown := [lesson for lesson in arguments.lessons or () if lesson.zfill(2) not in known]:
        return f"there is no lesson {', '.join(unknown)}. Lessons with exercises: {', '.join(sorted(known))}."
    if os.name != "posix":
        return "grading needs a system with fork, such as Linux or macOS."
    if not arguments.unconfined and (words := confinement.problem()):
        return (
            f"{words}. Answers are other people's programs: without confinement they may read, change and send whatever you "
            "may. To grade all the same, on a machine with nothing to lose, add --unconfined."
        )
    return _no_room(folder)


def _no_room(folder: Path) -> str | None:
    """Returns why the tables could not be written into the folder, so that nobody learns it only after an hour; or None."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"the tables cannot be written into {folder} ({error.strerror or error})."


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Raises _Terminated in the block on SIGTERM. In other threads than the main one SIGTERM works as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def graded(
    submissions: list[Submission], arguments: argparse.Namespace, assignment: Assignment | None = None
) -> list[report.Record]:
    """Returns a record for each student by name, with verdicts or errors for each of the student's notebooks."""
    records = []
    tasks: SimpleQueue[Task] = SimpleQueue()
    for submission in submissions:
        record = report.Record(submission.student, notebooks=len(submission.notebooks), folder=submission.folder)
        records.append(record)
        expected = assignment.expects(submission.student) if assignment else None
        if submission.refused:
            record.errors.append(submission.refused)
        elif assignment and expected is None:
            record.errors.append(
                "the assignment has no student of this name, so that no seed is known: nothing was graded. Give the folder "
                "the name that the student has in assignment.json"
            )
        elif not submission.notebooks:
            record.errors.append("no notebook was handed in")
        else:
            for notebook in submission.notebooks:
                tasks.put(Task(record, notebook.absolute(), expected))
    if assignment:
        records += [report.Record(name, errors=["nothing was handed in"]) for name in assignment.missing(submissions)]
    bounds = {"seconds": arguments.seconds, "memory": arguments.memory, "confined": not arguments.unconfined}
    lock = threading.Lock()
    with tqdm(total=tasks.qsize(), desc="grading", unit="notebook", file=sys.stderr) as bar:
        while not tasks.empty():  # a second time only if every lane was lost
            with_lanes(tasks, min(arguments.jobs or os.cpu_count() or 1, tasks.qsize()), bounds, bar, lock)
    for record in records:
        record.errors.sort()
        _name_owners(record, assignment)
    return sorted(records, key=lambda record: record.student)


def _name_owners(record: report.Record, assignment: Assignment | None) -> None:
    """Tells the teacher whose seed stands in a notebook. The student's diagnosis names nobody."""
    owners = {str(seed): name for name, seed in ((assignment and assignment.students) or {}).items()}
    for exercise, seed in sorted(record.seeds.items()):
        if assignment and seed in owners and assignment.seed_of(record.student) != int(seed):
            record.errors.append(f"{exercise} was handed in with the seed {seed} of {owners[seed]}")
