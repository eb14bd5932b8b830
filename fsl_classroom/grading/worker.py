"""Tries one answer in a process of its own: the code that runs in the child after a lane has forked.

The lane (lanes.py) accepts only one line of JSON with the right token. A worker that ends without sending it has failed.
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
from fsl_classroom.grading.answer_builtins import learner_builtins
from fsl_classroom.grading.slices import Answer
from fsl_classroom.grading.submissions import Cell

MOST_SECONDS = 6.0  # for the answer's own calls; the notebook gives 2, but a grading machine is busy
NOT_ATTEMPTED = "not attempted"
# In a checkout, tools and tests lie beside the packages and lead to the reference, too.
_HIDDEN = (rules.CLASSROOM, f"{rules.COURSE}.__main__", "tools", "tests")


@dataclass(frozen=True)
class Bounds:
    """What one notebook may use: seconds for all its answers, megabytes besides Python and PyTorch; confined or not."""

    seconds: float = 120.0
    memory: int = 1024
    confined: bool = True


@dataclass(frozen=True)
class Job:
    """One answer to try.

    cells:    the notebook's cells, for the source lines in messages
    seconds:  for this answer
    scratch:  an empty folder that it may write to
    landlock: file handle of the ruleset; -1 if the worker is not confined
    """

    answer: Answer
    exercise: Exercise
    cells: list[Cell]
    seconds: float
    bounds: Bounds
    scratch: Path
    landlock: int = -1


def run(job: Job, out: int, token: str) -> None:
    """Confines this process, tries the answer, sends the verdict through the file handle `out` and ends the process."""
    try:
        passed, diagnosis = _verdict(job, out)
        message = json.dumps({"token": token, "passed": passed, "diagnosis": diagnosis[:2000]}) + "\n"
        os.write(out, message.encode())
    finally:
        os._exit(0)  # so that no finaliser, thread or exit handler of the answer runs


def _verdict(job: Job, out: int) -> tuple[bool, str]:
    """Returns (passed, diagnosis)."""
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
    """Closes all file handles but `out` and `landlock`, and replaces the environment, so that an answer finds nothing."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nothing, handle)
    keep = sorted({out, landlock} - {-1})
    low = 3
    for handle in keep:
        os.closerange(low, handle)
        low = handle + 1
    os.closerange(low, 4096)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - open until the process ends
    os.chdir(scratch)
    os.environ.clear()
    os.environ.update(
        HOME=str(scratch), TMPDIR=str(scratch), OMP_NUM_THREADS="1", FSL_PROGRESS=str(scratch / "progress")
    )
    sys.argv, sys.dont_write_bytecode = [""], True
    tempfile.tempdir = str(scratch)  # otherwise it would use the folder that it found first
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _namespace(answer: Answer, incidents: guards.Incidents) -> dict[str, Any]:
    """Returns the namespace of a new `__main__` module, like that of a notebook, with guarded builtins."""
    module = types.ModuleType("__main__")
    vars(module)["__builtins__"] = learner_builtins(answer.exercise, incidents)
    sys.modules["__main__"] = module
    return vars(module)


def _try(job: Job, namespace: dict[str, Any]) -> Verdict:
    """Runs the statements that the answer needs and judges its function."""
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
    """Returns the compiler flag of `from __future__ import annotations` if a cell has it, else 0.

    In a notebook one such import holds for all cells after it.
    """
    nodes = [node for cell in cells if cell.tree is not None for node in cell.tree.body]
    asked = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in nodes)
    return __future__.annotations.compiler_flag if asked else 0


def _compiled(code: Any, number: int, sources: dict[int, str], flags: int) -> types.CodeType:
    """Compiles statements (a list) or an expression under a file name that the guards know, with source lines for errors."""
    name = f"{guards.FILE}cell {number}>"
    source = sources.get(number, "")
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    if isinstance(code, list):
        return compile(ast.Module(code, []), name, "exec", flags, dont_inherit=True)
    return compile(ast.Expression(code), name, "eval", flags, dont_inherit=True)


def _words(verdict: Verdict, answer: Answer) -> str:
    """Returns the diagnosis in one line; "" if the answer is right."""
    if verdict.kind == "right":
        return ""
    if verdict.kind == "unattempted":
        return NOT_ATTEMPTED
    if verdict.kind == "reference":
        return rules.imports_reference(f"exercise {answer.exercise}")
    if verdict.kind == "broken":
        return f"The exercise itself is broken: {verdict.lines[0]}. Please report it."
    return verdict.diagnosis or " ".join(verdict.lines) or f"The check was stopped ({verdict.kind})."
