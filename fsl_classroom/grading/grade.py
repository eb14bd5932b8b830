"""The command `grade`: sends notebooks to the lanes, collects the verdicts and writes two tables."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from tqdm import tqdm

from fsl_classroom import all_exercises
from fsl_classroom.grading import confinement, report
from fsl_classroom.grading.submissions import Submission, find_submissions
from fsl_course._system import threads
from fsl_course._system.files import replace_file

_PROGRAM = "from fsl_classroom.grading.lanes import main; main()"
_LOST = "the grader's own process ended while it was at this file: grade again, and report it if it happens twice"


def run(arguments: argparse.Namespace) -> int:
    """Grades a folder. Returns exit status 0, or 1 after printing to stderr what is wrong."""
    folder = Path(arguments.folder)
    if words := _refusal(arguments, folder):
        print(f"error: {words}", file=sys.stderr)
        return 1
    submissions = find_submissions(folder)
    if not submissions:
        print(f"error: {folder} has no student folders. It must hold one folder for each student.", file=sys.stderr)
        return 1
    records = _graded(submissions, arguments)
    lessons = set().union(*(record.lessons for record in records))
    if arguments.lessons:
        lessons &= {lesson.zfill(2) for lesson in arguments.lessons}
    exercises = [exercise.id for exercise in all_exercises() if exercise.lesson in lessons]
    rows = report.rows(records, exercises)
    try:
        replace_file(folder / "grades.csv", report.table(report.COLUMNS, rows))
        replace_file(folder / "grades-summary.csv", report.table(report.SUMMARY, report.summary(records, exercises)))
    except OSError as error:
        print(f"error: the tables cannot be written into {folder} ({error.strerror or error})", file=sys.stderr)
        return 1
    if arguments.json:
        for row in rows:
            print(json.dumps(dict(zip(report.COLUMNS, row, strict=True)) | {"passed": row[2] == "true"}))
    print(
        f"{len(records)} students, {len(exercises)} exercises of {len(lessons)} lessons: "
        f"{folder / 'grades.csv'}, {folder / 'grades-summary.csv'}",
        file=sys.stderr,
    )
    for record in records:
        for words in record.errors:
            print(f"  {report.defused(record.student)}: {report.defused(words)}", file=sys.stderr)
    return 0


def _refusal(arguments: argparse.Namespace, folder: Path) -> str | None:
    """Returns why nothing can be graded, or None."""
    if not folder.is_dir():
        return f"there is no folder {folder}. It must hold one folder for each student, with notebooks in it."
    if arguments.seconds <= 0 or arguments.memory <= 0 or (arguments.jobs is not None and arguments.jobs < 1):
        return "--seconds, --memory and --jobs must be positive."
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
    return None


def _graded(submissions: list[Submission], arguments: argparse.Namespace) -> list[report.Record]:
    """Returns a record for each submission, with verdicts or errors for each of its notebooks."""
    records = [report.Record(s.student, notebooks=len(s.notebooks)) for s in submissions]
    tasks: SimpleQueue[tuple[report.Record, Path]] = SimpleQueue()
    for submission, record in zip(submissions, records, strict=True):
        record.errors += [submission.refused] if submission.refused else []
        if not submission.notebooks and not submission.refused:
            record.errors.append("no notebook was handed in")
        for notebook in submission.notebooks:
            tasks.put((record, notebook.absolute()))
    total = tasks.qsize()
    lock = threading.Lock()
    with tqdm(total=total, desc="grading", unit="notebook", file=sys.stderr) as bar:
        while not tasks.empty():  # a second time only if every lane was lost
            _with_lanes(tasks, min(arguments.jobs or os.cpu_count() or 1, tasks.qsize()), arguments, bar, lock)
    for record in records:
        record.errors.sort()
    return records


def _with_lanes(tasks: Any, jobs: int, arguments: argparse.Namespace, bar: Any, lock: threading.Lock) -> None:
    """Starts lanes and works through the queue. Raises OSError if none of them starts."""
    bounds = {"seconds": arguments.seconds, "memory": arguments.memory, "confined": not arguments.unconfined}
    pairs = [socket.socketpair() for _ in range(jobs)]
    lost: list[str] = []
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as scratch:
        server = _start(Path(scratch), bounds, [theirs for _, theirs in pairs])
        try:
            for _, theirs in pairs:
                theirs.close()
            given = tasks, bar, lock, lost
            feeders = [threading.Thread(target=_feed, args=(ours, *given), daemon=True) for ours, _ in pairs]
            for feeder in feeders:
                feeder.start()
            for feeder in feeders:
                feeder.join()
            if len(lost) == len(pairs):
                raise OSError("the process that grades could not be started; what it said stands above")
        finally:
            for ours, _ in pairs:
                with suppress(OSError):  # the other end is gone
                    ours.shutdown(socket.SHUT_RDWR)
                ours.close()
            with suppress(subprocess.TimeoutExpired):  # idle lanes end by themselves when their sockets close
                server.wait(5 if not lost else 0.1)
            server.kill()  # after Ctrl-C it still runs; its lanes and their workers die with it
            server.wait()


def _start(scratch: Path, bounds: dict[str, Any], sockets: list[socket.socket]) -> subprocess.Popen[bytes]:
    """Starts the process that forks the lanes. Of the environment it gets only what it needs to find Python's packages."""
    handles = [each.fileno() for each in sockets]
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH") if name in os.environ}
    root = str(Path(__file__).resolve().parent.parent.parent)
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    one |= threads.settings(one)  # an answer may still ask PyTorch for more threads, which should not spin
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM, str(scratch), json.dumps(bounds), *map(str, handles)],
        cwd=scratch,
        env={**kept, **one, "PYTHONPATH": root, "PYTHONHASHSEED": "0", "MPLBACKEND": "agg", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=handles,
        start_new_session=True,  # so that Ctrl-C reaches only the command, which then ends this process
    )


def _feed(connection: socket.socket, tasks: Any, bar: Any, lock: threading.Lock, lost: list[str]) -> None:
    """Sends notebooks to one lane until none is left or the lane has ended."""
    file = connection.makefile("rw", encoding="utf-8", newline="\n")
    if not file.readline():  # "ready"
        lost.append("a lane did not start")
        return
    while True:
        try:
            record, notebook = tasks.get_nowait()
        except Empty:
            return
        try:
            file.write(json.dumps({"path": str(notebook)}) + "\n")
            file.flush()
            reply = file.readline()
        except OSError:
            reply = ""
        with lock:
            bar.update()
            if not reply:
                record.errors.append(f"{notebook.name}: {_LOST}")
                return
            found = json.loads(reply)
            record.add({id: (passed, words) for id, (passed, words) in found["verdicts"].items()})
            record.lessons.update(found["lessons"])
            record.errors.extend(found["errors"])
            if found.get("unread"):
                record.unread |= dict.fromkeys(found["lessons"], found["errors"][0])
