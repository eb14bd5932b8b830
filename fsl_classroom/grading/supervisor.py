"""Forks a process for every answer, watches what it uses, and ends it. Runs in a cradle (cradle.py)."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fsl_classroom.grading import confinement, folders

_THREADS = 32
_SCRATCH = 64 * 2**20  # bytes that a worker may keep in its folder
_PAGE = resource.getpagesize()
_SIGNALS = {
    "SIGSEGV": "the recursion has no end, or compiled code was misused",
    "SIGXCPU": "it used up its computing time: is there a loop that does not end?",
    "SIGKILL": "it used up its computing time or memory",
    "SIGXFSZ": "it writes a file that is too large",
}


@dataclass(frozen=True)
class Bounds:
    """What one notebook may use: seconds for all its answers, megabytes besides Python and PyTorch; confined or not."""

    seconds: float = 120.0
    memory: int = 1024
    confined: bool = True


@dataclass(frozen=True)
class Room:
    """What one worker gets.

    seconds:  after which it is killed
    memory:   megabytes besides Python and PyTorch
    scratch:  an empty folder that it may write to
    landlock: file handle of the ruleset; -1 if the worker is not confined
    """

    seconds: float
    memory: int
    scratch: Path
    landlock: int = -1


def try_answer(work: Callable[[int, Room], None], channel: int, room: Room, control: socket.socket) -> str:
    """Forks a worker, watches it until it ends or the lane says so, and ends it. Returns why it ended, or "".

    work:    runs in the worker; gets the channel to the judge and never returns
    channel: file handle of the worker's end, which is closed here
    control: something arrives here as soon as the lane has its verdict
    """
    process = os.fork()
    if process == 0:
        try:
            confinement.die_with_parent()
            os.setsid()
            work(channel, room)
        finally:
            os._exit(70)
    os.close(channel)
    words = _watch(process, room, control)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)  # it may have ended before it had a group of its own
    os.waitpid(process, 0)
    _kill_orphans()
    with suppress(OSError):
        folders.empty(room.scratch)
    return words


def _watch(process: int, room: Room, control: socket.socket) -> str:
    """Returns why the worker has to be killed, or how it ended by itself; "" if the lane needs it no longer."""
    deadline = time.monotonic() + room.seconds
    while True:
        if select.select([control], [], [], 0.02)[0]:
            return ""
        use = _use(process)
        if use is None:
            return _ended(process)
        megabytes, threads = use
        if megabytes > room.memory + base_memory():
            return f"The answer uses more than {room.memory} MB of memory."
        if threads > _THREADS:
            return f"The answer starts more than {_THREADS} threads."
        if folders.held(room.scratch) > _SCRATCH:
            return f"The answer writes more than {_SCRATCH // 2**20} MB of files, or nests folders without end."
        if time.monotonic() > deadline:
            return f"No verdict within {room.seconds:.0f} seconds: is there a loop that does not end?"


def _ended(process: int) -> str:
    """Returns in words how a process ended that is not waited for yet."""
    how = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    if how is not None and how.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
        name = signal.Signals(how.si_status).name
        return f"The answer's process was ended by {name}: {_SIGNALS.get(name, 'it crashed')}."
    return "The answer ends its process (os._exit or the like) before there is a verdict."


@cache
def base_memory() -> float:
    """Returns the megabytes of a cradle itself, with which its workers start. A cradle asks before it forks the first one."""
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
