"""Tries an answer in one process with the judge, for exercises that take functions, modules or other live objects.

The lane accepts one message with the right token. A worker that ends without sending it has failed.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from fsl_classroom import find
from fsl_classroom.checking.check import Verdict, judge
from fsl_classroom.checking.sandbox import error_words
from fsl_classroom.grading import frames, guards, rules, worker
from fsl_classroom.grading.supervisor import Room

# In a checkout, tools and tests lie beside the packages and lead to the reference, too.
HIDDEN = (rules.CLASSROOM, f"{rules.COURSE}.__main__", "tools", "tests")


def work(channel: int, room: Room) -> None:
    """Receives a job, tries its answer, sends the verdict and ends the process. Runs in the worker."""
    try:
        worker.leave_nothing_open(channel, room)
        job = worker.receive_job(channel)
        kind, lines, incident = _verdict(job, room, channel)
        frames.send(channel, {"token": job.token, "kind": kind, "lines": lines, "incident": incident})
    finally:
        os._exit(0)  # so that no finaliser, thread or exit handler of the answer runs


def _verdict(job: worker.Job, room: Room, channel: int) -> tuple[str, list[str], str]:
    """Returns the verdict's kind, what it says, and the rule that the answer broke, or ""."""
    exercise = find(job.asked)
    rules.allowed(job.exercise)  # fills its cache, because a confined worker cannot open the table
    modules = {name: module for name, module in sys.modules.items() if rules.lies_in(name, *HIDDEN)}
    before = guards.integrity()
    incidents = guards.Incidents()
    space = worker.namespace(job, incidents)
    worker.confine(room)
    guards.hide(HIDDEN)
    open_again = guards.watch(room.scratch, incidents)
    frames.send(channel, {"started": True})
    verdict = _try(job, exercise, space)
    open_again()
    if incidents.words:
        return "wrong", [], incidents.words[0]
    if name := guards.patched(before, modules):
        return "wrong", [], rules.looks_into_checker(f"patches {name}")
    return verdict.kind, [verdict.diagnosis] if verdict.diagnosis else verdict.lines, ""


def _try(job: worker.Job, exercise: Any, space: dict[str, Any]) -> Verdict:
    """Runs the statements that the answer needs and judges its function."""
    function: Any = None
    try:
        function = worker.function_of(job, space)
        return judge(exercise, guards.honest(function), job.seconds)
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: the answer may raise anything
        if function is None:
            lines = error_words(error, lambda: None)
            return Verdict("wrong", ["What the answer needs from earlier cells ends in an error.", *lines])
        return Verdict("wrong", [f"The result cannot be judged ({type(error).__name__})."])
