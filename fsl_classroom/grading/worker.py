"""Runs the code of one answer: what the two kinds of workers (apart.py, together.py) share.

A lane sends the code compiled, with the cells of this one notebook for the source lines in messages.
"""

from __future__ import annotations

import linecache
import marshal
import os
import signal
import sys
import tempfile
import types
from dataclasses import dataclass
from typing import Any

from fsl_classroom.grading import confinement, frames, guards
from fsl_classroom.grading.answer_builtins import learner_builtins
from fsl_classroom.grading.supervisor import Room


@dataclass(frozen=True)
class Job:
    """One answer to try.

    asked:    the id of the exercise, with its seed
    codes:    the statements that the answer needs
    function: the expression whose value is the answer
    sources:  file name of a code object -> its source
    modules:  modules of fsl_course that the code imports
    seconds:  for the calls of the answer
    token:    what a true verdict contains (only where judge and answer share a process)
    """

    asked: str
    codes: list[types.CodeType]
    function: types.CodeType
    sources: dict[str, str]
    modules: list[str]
    seconds: float
    token: str = ""

    @property
    def exercise(self) -> str:
        """Returns the id without its seed."""
        return self.asked.partition("@")[0]


def send_job(channel: int, job: Job) -> None:
    """Sends a job to a worker. The code travels in Python's own form of code objects, from the trusted side only."""
    head = {
        "asked": job.asked,
        "sources": job.sources,
        "modules": job.modules,
        "seconds": job.seconds,
        "token": job.token,
    }
    frames.send(channel, head, marshal.dumps([*job.codes, job.function]))


def receive_job(channel: int) -> Job:
    """Receives what `send_job` sent."""
    head, blob = frames.receive(channel)
    *codes, function = marshal.loads(blob)
    return Job(codes=codes, function=function, **head)


def leave_nothing_open(channel: int, room: Room) -> None:
    """Closes all file handles but the channel and the ruleset, and replaces the environment, so that an answer finds nothing."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nothing, handle)
    low = 3
    for handle in sorted({channel, room.landlock} - {-1}):
        os.closerange(low, handle)
        low = handle + 1
    os.closerange(low, 4096)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - open until the process ends
    os.chdir(room.scratch)
    os.environ.clear()
    scratch = str(room.scratch)
    os.environ.update(HOME=scratch, TMPDIR=scratch, OMP_NUM_THREADS="1", FSL_PROGRESS=f"{scratch}/progress")
    sys.argv, sys.dont_write_bytecode = [""], True
    tempfile.tempdir = scratch  # otherwise it would use the folder that it found first
    signal.signal(signal.SIGINT, signal.default_int_handler)


def confine(room: Room) -> None:
    """Limits and confines this process for good."""
    confinement.set_limits(room.seconds, room.memory)
    if room.landlock >= 0:
        confinement.confine(room.landlock)


def namespace(job: Job, incidents: guards.Incidents) -> dict[str, Any]:
    """Returns the namespace of a new `__main__` module, like that of a notebook, with guarded builtins."""
    module = types.ModuleType("__main__")
    vars(module)["__builtins__"] = learner_builtins(job.exercise, incidents)
    sys.modules["__main__"] = module
    return vars(module)


def function_of(job: Job, space: dict[str, Any]) -> Any:
    """Runs the statements in the namespace and returns the answer. Raises whatever they raise."""
    for name, source in job.sources.items():
        linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    for code in job.codes:
        exec(code, space)
    return eval(job.function, space)
