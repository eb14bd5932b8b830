"""Starts the process that grades, and feeds its lanes (lanes.py) with notebooks. Runs in the command `grade`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from fsl_classroom.grading import folders
from fsl_classroom.grading.report import Record
from fsl_course._system import threads

_PROGRAM = "from fsl_classroom.grading.lanes import main; main()"
_LOST = "the grader's own process ended while it was at this file: grade again, and report it if it happens twice"


@dataclass(frozen=True)
class Task:
    """One notebook to grade.

    record:   of its student
    expected: exercise id -> the id that an assignment handed out to this student; None if everything is graded as it stands
    """

    record: Record
    notebook: Path
    expected: dict[str, str] | None = None


def with_lanes(tasks: Any, jobs: int, bounds: dict[str, Any], bar: Any, lock: threading.Lock) -> None:
    """Starts lanes and works through a queue of tasks. Raises OSError if none of the lanes starts.

    bounds: the fields of `worker.Bounds`
    bar:    a tqdm bar that counts notebooks
    lock:   held while a record is changed
    """
    pairs = [socket.socketpair() for _ in range(jobs)]
    lost: list[str] = []
    with _scratch() as scratch:
        server = start(scratch, bounds, [theirs for _, theirs in pairs])
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


@contextmanager
def _scratch() -> Iterator[Path]:
    """Makes a scratch folder and removes it at the end, whatever answers have put there."""
    folder = Path(tempfile.mkdtemp(prefix="grading-"))
    try:
        yield folder
    finally:
        folders.remove(folder)


def start(scratch: Path, bounds: dict[str, Any], sockets: list[socket.socket]) -> subprocess.Popen[bytes]:
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
            task = tasks.get_nowait()
        except Empty:
            return
        try:
            file.write(json.dumps({"path": str(task.notebook), "expected": task.expected}) + "\n")
            file.flush()
            reply = file.readline()
        except OSError:
            reply = ""
        with lock:
            bar.update()
            if not reply:
                task.record.errors.append(f"{task.notebook.name}: {_LOST}")
                return
            _enter(task.record, json.loads(reply))


def _enter(record: Record, found: dict[str, Any]) -> None:
    """Enters the reply of a lane (see lanes.py) into a student's record."""
    verdicts = {id: (passed, words) for id, (passed, words) in found["verdicts"].items()}
    record.add(verdicts, found["seeds"], found["judged"])
    record.lessons.update(found["lessons"])
    record.errors.extend(found["errors"])
    if found["unread"]:
        record.unread |= dict.fromkeys(found["lessons"], found["errors"][0])
