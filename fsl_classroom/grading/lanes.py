"""Lanes: trusted processes that read notebooks, fork a worker for each answer, watch it and kill it.

A process of its own (grade.py starts it) imports PyTorch and the course once, then forks one lane for every socket it was given.
A lane takes one notebook at a time, {"path": ...}, and sends back {"lessons": [...], "verdicts": {id: [passed, diagnosis]}}.
"""

from __future__ import annotations

import ast
import gc
import importlib
import json
import os
import pkgutil
import re
import resource
import secrets
import select
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import fsl_classroom
import fsl_course
from fsl_classroom import find
from fsl_classroom.grading import confinement, doors, guards, rules, worker
from fsl_classroom.grading.slices import Answer, answers_of
from fsl_classroom.grading.submissions import Cell, Unreadable, read_cells, within

_LONGEST = 16 * 1024  # bytes of a verdict
_THREADS = 32
_SCRATCH = 64 * 2**20  # bytes that a worker may keep in its folder
_PAGE = resource.getpagesize()


def grade_notebook(path: Path, bounds: worker.Bounds, scratch: Path, landlock: int) -> dict[str, Any]:
    """Everything about one notebook: its lessons, a verdict for each answer in it, and what was odd about the file."""
    named = re.match(r"(\d\d)_", path.name)
    lessons = {named[1]} & set(rules.table()) if named else set()
    try:
        with within(max(10.0, bounds.seconds / 4)):
            cells = read_cells(path)
            answers = answers_of(cells, rules.function_names(), lessons)
    except Unreadable as error:
        return {"lessons": sorted(lessons), "verdicts": {}, "errors": [f"{path.name}: {error}"], "unread": True}
    errors = [f"{path.name}: {cell.trouble}" for cell in cells if cell.trouble]
    verdicts: dict[str, tuple[bool, str]] = {}
    deadline = time.monotonic() + bounds.seconds
    for position, (id, answer) in enumerate(sorted(answers.items())):
        for attempt in (answer, answer.later):
            if attempt is None or verdicts.get(id, (False,))[0]:
                continue
            share = max(
                0.5, (deadline - time.monotonic()) / (len(answers) - position)
            )  # what one leaves goes to the next
            found = _verdict(attempt, cells, share, bounds, scratch, landlock)
            # What was written after the check counts where it is right, or where there was nothing before.
            if found[0] or id not in verdicts or _is_stub(answer) or not _is_defined(answer):
                verdicts[id] = found
    lessons |= {id[:2] for id in answers}
    return {"lessons": sorted(lessons), "verdicts": verdicts, "errors": errors}


def _verdict(
    answer: Answer, cells: list[Cell], seconds: float, bounds: worker.Bounds, scratch: Path, landlock: int
) -> tuple[bool, str]:
    """(passed, diagnosis): read off the code where that is enough, else tried."""
    if not answer.trouble and _is_stub(answer, untouched=True):
        return False, worker.NOT_ATTEMPTED
    if words := answer.trouble or rules.suspicion(answer):
        return False, words
    try:
        exercise = find(answer.asked)
    except (LookupError, ValueError) as error:
        return False, str(error)
    rules.allowed(answer.exercise)  # kept: the worker, which is a copy of this process, cannot open the table
    return _try(worker.Job(answer, exercise, cells, seconds, bounds, scratch, landlock))


def _try(job: worker.Job) -> tuple[bool, str]:
    """Fork, watch, kill: (passed, diagnosis)."""
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
    _empty(job.scratch)
    return (False, words) if words else _believe(said, token, status, job.answer)


def _believe(said: bytes, token: str, status: int, answer: Answer) -> tuple[bool, str]:
    """The verdict, where the message is what a worker sends at its end; else words for how it ended."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        message = json.loads(said)
        if secrets.compare_digest(message["token"], token) and isinstance(message["passed"], bool):
            diagnosis = str(message["diagnosis"])
            if diagnosis == worker.NOT_ATTEMPTED and not _is_stub(answer):
                diagnosis = "It calls the answer to another exercise, which is not attempted."
            return message["passed"], diagnosis
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return False, f"The answer's process was ended by {name}: {_SIGNALS.get(name, 'it crashed')}."
    if said:
        return False, "The answer writes into the grader's channel: nothing that it says is believed."
    return False, "The answer ends its process (os._exit or the like) before there is a verdict."


_SIGNALS = {
    "SIGSEGV": "the recursion has no end, or compiled code was misused",
    "SIGXCPU": "it used up its computing time: is there a loop that does not end?",
    "SIGKILL": "it used up its computing time or memory",
    "SIGXFSZ": "it writes a file that is too large",
}


def _watch(process: int, read: int, job: worker.Job) -> tuple[bytes, str]:
    """What the worker said until it ended, and words where it has to be killed."""
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
        if use is None:  # ended; what it wrote before is still in the pipe
            while open_end and select.select([read], [], [], 0)[0] and (piece := os.read(read, _LONGEST)):
                said += piece
            return said[: _LONGEST + 1], ""
        megabytes, threads = use
        if megabytes > bounds.memory + _BASE:
            return said, f"The answer uses more than {bounds.memory} MB of memory."
        if threads > _THREADS:
            return said, f"The answer starts more than {_THREADS} threads."
        if _held(job.scratch) > _SCRATCH:
            return said, f"The answer writes more than {_SCRATCH // 2**20} MB of files."
        if time.monotonic() > deadline:
            return said, f"No verdict within {job.seconds:.0f} seconds: is there a loop that does not end?"


_BASE = 0.0  # megabytes of a lane itself: what a worker starts with


def _use(process: int) -> tuple[float, int] | None:
    """(megabytes in memory, threads) of a process; None when it has ended."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # a system without /proc
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return None if ended else (0.0, 1)
    return None if words[0] in "ZX" else (int(words[21]) * _PAGE / 2**20, int(words[17]))


def _held(scratch: Path) -> int:
    """Bytes of the files in a folder, as far as they can be counted while it changes."""
    total = 0
    for folder, _, names in os.walk(scratch):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _kill_orphans() -> None:
    """Unconfined workers may leave children; they come to this process, which waits for nobody else."""
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


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _is_stub(answer: Answer, untouched: bool = False) -> bool:
    """Is the function without a line of its own? untouched: is it exactly as the lesson came, so that nothing need run?"""
    name = answer.expression.id if isinstance(answer.expression, ast.Name) else None
    found = [s for _, s in answer.statements if isinstance(s, ast.FunctionDef) and s.name == name]
    if not found:
        return not untouched
    body = [s for s in found[-1].body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    if untouched:
        return len(body) == 1 and isinstance(body[0], ast.Raise) and _STUB in ast.unparse(body[0])
    empty = ("return", "return None", "return ...", "pass")
    return all(isinstance(s, ast.Raise) or ast.unparse(s) in empty for s in body)


def _is_defined(answer: Answer) -> bool:
    """Does the notebook say before the check what was passed to it?"""
    return not isinstance(answer.expression, ast.Name) or any(
        node.id == answer.expression.id
        if isinstance(node, ast.Name)
        else getattr(node, "name", "") == answer.expression.id
        for _, statement in answer.statements
        for node in ast.walk(statement)
    )


_STUB = "is not attempted yet"


def _lane(connection: socket.socket, scratch: Path, bounds: worker.Bounds) -> None:
    global _BASE
    confinement.die_with_parent()
    confinement.adopt_orphans()
    scratch.mkdir()
    landlock = confinement.ruleset(scratch) if bounds.confined else -1
    guards.integrity()
    gc.collect()
    gc.freeze()  # what is loaded stays: collecting it in every worker would copy all its memory
    use = _use(os.getpid())
    _BASE = use[0] if use else 0.0
    file = connection.makefile("rw", encoding="utf-8", newline="\n")
    file.write("ready\n")
    file.flush()
    for line in file:
        path = Path(json.loads(line)["path"])
        try:
            found = grade_notebook(path, bounds, scratch, landlock)
        except Exception as error:  # a fault of ours must cost one notebook, not the class
            words = f"{path.name}: the grader itself failed on it ({type(error).__name__}: {error}); please report it"
            found = {"lessons": [], "verdicts": {}, "errors": [words]}
        file.write(json.dumps(found) + "\n")
        file.flush()


def _warm_up() -> None:
    """Import what answers and exercises use, once for all; no threads may be left running, for forks do not take them along."""
    torch.set_num_threads(1)
    for module in [m for p in (fsl_course, fsl_classroom) for m in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")]:
        if not module.name.endswith("__main__") and ".grading" not in module.name:
            with suppress(ImportError):  # what a classroom server lacks, e.g. widgets, no answer needs
                importlib.import_module(module.name)
    doors.compile_nothing()
    ones = torch.ones(2, requires_grad=True)
    torch.autograd.grad(ones.square().sum(), ones)
    torch.func.hessian(lambda x: x.square().sum())(torch.ones(2))
    torch.func.vmap(torch.sin)(torch.ones(2))


def main() -> None:
    """Arguments: a folder for scratch, then the bounds as JSON, then the numbers of the lanes' sockets."""
    scratch, bounds = Path(sys.argv[1]), worker.Bounds(**json.loads(sys.argv[2]))
    handles = [int(number) for number in sys.argv[3:]]
    _warm_up()
    sys.stdout.flush()
    lanes = []
    for handle in handles:
        process = os.fork()
        if process == 0:
            for other in handles:
                if other != handle:
                    os.close(other)
            try:
                _lane(socket.socket(fileno=handle), scratch / str(handle), bounds)
            finally:
                sys.stderr.flush()
                os._exit(0)
        lanes.append(process)
    for handle in handles:
        os.close(handle)
    for process in lanes:
        os.waitpid(process, 0)
