"""Runs one answer in a worker: forks the process, watches what it uses, ends it and reads its verdict."""

from __future__ import annotations

import json
import os
import resource
import secrets
import select
import signal
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from fsl_classroom.grading import confinement, folders, worker

_LONGEST = 16 * 1024  # bytes of a verdict
_THREADS = 32
_SCRATCH = 64 * 2**20  # bytes that a worker may keep in its folder
_PAGE = resource.getpagesize()
_SIGNALS = {
    "SIGSEGV": "the recursion has no end, or compiled code was misused",
    "SIGXCPU": "it used up its computing time: is there a loop that does not end?",
    "SIGKILL": "it used up its computing time or memory",
    "SIGXFSZ": "it writes a file that is too large",
}


def try_answer(job: worker.Job) -> tuple[bool, str]:
    """Forks a worker for an answer, watches and ends it, and returns (passed, diagnosis)."""
    token = secrets.token_hex(16)
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            confinement.die_with_parent()
            os.setsid()
            os.close(read)
            worker.run(job, write, token)
        finally:
            os._exit(70)
    os.close(write)
    said, words = _watch(process, read, job)
    os.close(read)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    _kill_orphans()
    folders.empty(job.scratch)
    return (False, words) if words else _read(said, token, status)


def _read(said: bytes, token: str, status: int) -> tuple[bool, str]:
    """Returns (passed, diagnosis) from the message of a worker, or from how it ended if it did not send one.

    said:   what it wrote into its pipe
    token:  what a true message contains
    status: as `os.waitpid` returns it
    """
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        message = json.loads(said)
        if secrets.compare_digest(message["token"], token) and isinstance(message["passed"], bool):
            return message["passed"], str(message["diagnosis"])
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return False, f"The answer's process was ended by {name}: {_SIGNALS.get(name, 'it crashed')}."
    if said:
        return False, "The answer writes into the grader's channel: nothing that it says is believed."
    return False, "The answer ends its process (os._exit or the like) before there is a verdict."


def _watch(process: int, read: int, job: worker.Job) -> tuple[bytes, str]:
    """Returns what the worker wrote until it ended, and a diagnosis if it has to be killed, else ""."""
    bounds = job.bounds
    said, deadline, open_end = b"", time.monotonic() + job.seconds, True
    while True:
        ready = select.select([read] if open_end else [], [], [], 0.02)[0]
        if ready:
            piece = os.read(read, _LONGEST)
            said += piece
            open_end = bool(piece)
            if len(said) > _LONGEST:
                return said, "The answer floods the grader's channel."
        use = _use(process)
        if use is None:  # it has ended, but the pipe may still hold what it wrote
            while open_end and select.select([read], [], [], 0)[0] and (piece := os.read(read, _LONGEST)):
                said += piece
            return said[: _LONGEST + 1], ""
        megabytes, threads = use
        if megabytes > bounds.memory + base_memory():
            return said, f"The answer uses more than {bounds.memory} MB of memory."
        if threads > _THREADS:
            return said, f"The answer starts more than {_THREADS} threads."
        if folders.held(job.scratch) > _SCRATCH:
            return said, f"The answer writes more than {_SCRATCH // 2**20} MB of files."
        if time.monotonic() > deadline:
            return said, f"No verdict within {job.seconds:.0f} seconds: is there a loop that does not end?"


@cache
def base_memory() -> float:
    """Returns the megabytes of a lane itself, with which its workers start. A lane asks before it forks the first one."""
    use = _use(os.getpid())
    return use[0] if use else 0.0


def _use(process: int) -> tuple[float, int] | None:
    """Returns (megabytes in memory, threads) of a process, or None if it has ended."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # a system without /proc
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return None if ended else (0.0, 1)
    return None if words[0] in "ZX" else (int(words[21]) * _PAGE / 2**20, int(words[17]))


def _kill_orphans() -> None:
    """Kills the children of this process: those that unconfined workers left behind (see `confinement.adopt_orphans`)."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    for _ in range(200):
        try:
            left = [int(number) for number in children.read_text().split()]
        except OSError:  # a system, or a kernel, that does not list them
            return
        if not left:
            return
        for process in left:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
