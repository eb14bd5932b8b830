"""One answer, tried in a process of its own: what runs in the child after the fork.

The lane that forks (lanes.py) believes only a message with the token, one line of JSON. A worker that ends without one failed.
"""

from __future__ import annotations
import __future__

import ast
import json
import linecache
import os
import signal
import sys
import tempfile
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsl_classroom.checking.check import Verdict, judge
from fsl_classroom.checking.model import Exercise
from fsl_classroom.checking.sandbox import error_words
from fsl_classroom.grading import confinement, guards, rules
from fsl_classroom.grading.slices import Answer
from fsl_classroom.grading.submissions import Cell

MOST_SECONDS = 6.0  # for the answer's own calls; in the notebook it is 2, on a machine with nothing else to do
NOT_ATTEMPTED = "not attempted"
# In a checkout, tools and tests lie beside the packages and lead to the reference, too.
_HIDDEN = (rules.CLASSROOM, f"{rules.COURSE}.__main__", "tools", "tests")


@dataclass(frozen=True)
class Bounds:
    """What one notebook may use: seconds altogether, megabytes above what Python and PyTorch need; confined or not."""

    seconds: float = 120.0
    memory: int = 1024
    confined: bool = True


@dataclass(frozen=True)
class Job:
    """One answer to try: the exercise it is for, the notebook's cells (for source lines), seconds, and an empty folder."""

    answer: Answer
    exercise: Exercise
    cells: list[Cell]
    seconds: float
    bounds: Bounds
    scratch: Path
    landlock: int = -1


def run(job: Job, out: int, token: str) -> None:
    """Shut this process in, try the answer, send the verdict through `out`, end. Never returns."""
    try:
        passed, diagnosis = _verdict(job, out)
        message = json.dumps({"token": token, "passed": passed, "diagnosis": diagnosis[:2000]}) + "\n"
        os.write(out, message.encode())
    finally:
        os._exit(0)  # no finaliser, thread or exit handler of the answer's runs any more


def _verdict(job: Job, out: int) -> tuple[bool, str]:
    answer = job.answer
    _leave_nothing_open(out, job.landlock, job.scratch)
    modules = {name: module for name, module in sys.modules.items() if rules.lies_in(name, *_HIDDEN)}
    before = guards.integrity()
    incidents = guards.Incidents()
    namespace = _namespace(answer, incidents)
    confinement.set_limits(job.seconds, job.bounds.memory)
    if job.bounds.confined:
        confinement.confine(job.landlock)
    guards.hide(_HIDDEN)
    open_again = guards.watch(job.scratch, incidents)
    verdict = _try(job, namespace)
    open_again()
    if incidents.words:
        return False, incidents.words[0]
    if name := guards.patched(before, modules):
        return False, rules.looks_into_checker(f"patches {name}")
    words = _words(verdict, answer)
    if "MemoryError" in words or "can't allocate memory" in words:
        words = f"The answer uses more than {job.bounds.memory} MB of memory."
    return verdict.kind == "right", words


def _leave_nothing_open(out: int, landlock: int, scratch: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nothing, handle)
    keep = sorted({out, landlock} - {-1})
    low = 3
    for handle in keep:
        os.closerange(low, handle)
        low = handle + 1
    os.closerange(low, 4096)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - they last as long as we do
    os.chdir(scratch)
    os.environ.clear()
    os.environ.update(
        HOME=str(scratch), TMPDIR=str(scratch), OMP_NUM_THREADS="1", FSL_PROGRESS=str(scratch / "progress")
    )
    sys.argv, sys.dont_write_bytecode = [""], True
    tempfile.tempdir = str(scratch)  # it remembers the folder that it found first
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _namespace(answer: Answer, incidents: guards.Incidents) -> dict[str, Any]:
    """A module like a notebook's own, in its place."""
    module = types.ModuleType("__main__")
    vars(module)["__builtins__"] = guards.learner_builtins(answer.exercise, incidents)
    sys.modules["__main__"] = module
    return vars(module)


def _try(job: Job, namespace: dict[str, Any]) -> Verdict:
    answer = job.answer
    sources = {cell.number: cell.source for cell in job.cells}
    future = _future(job.cells)
    function: Any = None
    try:
        for number, statement in answer.statements:
            exec(_compiled([statement], number, sources, future), namespace)
        function = eval(_compiled(answer.expression, answer.cell, sources, future), namespace)
        return judge(job.exercise, guards.honest(function), min(MOST_SECONDS, round(job.seconds / 2, 1)))
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: the answer may raise anything
        if function is None:
            lines = error_words(error, lambda: None)
            return Verdict("wrong", ["What the answer needs from earlier cells ends in an error.", *lines])
        return Verdict("wrong", [f"The result cannot be judged ({type(error).__name__})."])


def _future(cells: list[Cell]) -> int:
    """The flag for annotations that are not evaluated: in a notebook, one such import is for all cells after it."""
    nodes = [node for cell in cells if cell.tree is not None for node in cell.tree.body]
    asked = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in nodes)
    return __future__.annotations.compiler_flag if asked else 0


def _compiled(code: Any, number: int, sources: dict[int, str], flags: int) -> types.CodeType:
    name = f"{guards.FILE}cell {number}>"
    source = sources.get(number, "")
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    if isinstance(code, list):
        return compile(ast.Module(code, []), name, "exec", flags, dont_inherit=True)
    return compile(ast.Expression(code), name, "eval", flags, dont_inherit=True)


def _words(verdict: Verdict, answer: Answer) -> str:
    """The verdict in one line."""
    if verdict.kind == "right":
        return ""
    if verdict.kind == "unattempted":
        return NOT_ATTEMPTED
    if verdict.kind == "reference":
        return rules.imports_reference(f"exercise {answer.exercise}")
    if verdict.kind == "broken":
        return f"The exercise itself is broken: {verdict.lines[0]}. Please report it."
    return verdict.diagnosis or " ".join(verdict.lines) or f"The check was stopped ({verdict.kind})."
