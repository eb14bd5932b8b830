"""Lanes: trusted processes that read notebooks and run every answer in a worker (supervisor.py).

grade.py starts one process that imports PyTorch and both packages once and then forks a lane for every socket that it was given.
A lane receives one notebook at a time, {"path": ..., "expected": {id: id with seed} or null}, and replies with

    {"lessons": [...], "verdicts": {id: [passed, diagnosis]}, "seeds": {id: seed}, "judged": {id: "apart" or "together"},
     "errors": [...], "unread": whether the file could not be read}
"""

from __future__ import annotations

import ast
import gc
import importlib
import json
import os
import pkgutil
import re
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
from fsl_classroom.grading import confinement, doors, guards, rules, supervisor, worker
from fsl_classroom.grading.slices import Answer, answers_of
from fsl_classroom.grading.submissions import Cell, Unreadable, read_cells, within

_STUB = "is not attempted yet"  # in the line that a student replaces


def grade_notebook(
    path: Path, expected: dict[str, str] | None, bounds: worker.Bounds, scratch: Path, landlock: int
) -> dict[str, Any]:
    """Returns what a lane replies for one notebook. expected: as in `feeders.Task`."""
    named = re.match(r"(\d\d)_", path.name)
    lessons = {named[1]} & set(rules.table()) if named else set()
    names = rules.function_names()
    if expected is not None:
        lessons = {id[:2] for id in expected}
        names = {id: getattr(find(asked), "name", names[id]) for id, asked in expected.items()}
    reply: dict[str, Any] = {"verdicts": {}, "seeds": {}, "judged": {}, "errors": [], "unread": False}
    try:
        with within(max(10.0, bounds.seconds / 4)):
            cells = read_cells(path)
            answers = answers_of(cells, names, lessons, expected)
    except Unreadable as error:
        return reply | {"lessons": sorted(lessons), "errors": [f"{path.name}: {error}"], "unread": True}
    reply["errors"] = [f"{path.name}: {cell.trouble}" for cell in cells if cell.trouble]
    deadline = time.monotonic() + bounds.seconds
    for position, (id, answer) in enumerate(sorted(answers.items())):
        if expected is not None and not answer.checked:
            answer.asked = expected[id]
        seed = answer.asked.partition("@")[2]
        reply["seeds"][id] = seed if re.fullmatch(r"\d{1,9}", seed) else ""
        for attempt in (answer, answer.later):
            if attempt is None or reply["verdicts"].get(id, (False,))[0]:
                continue
            # An answer gets an equal share of the time that the answers before it left.
            share = max(0.5, (deadline - time.monotonic()) / (len(answers) - position))
            wanted = expected[id] if expected is not None else None
            found = _verdict(attempt, wanted, cells, share, bounds, scratch, landlock)
            # What was written after the check counts if it is right, or if there was nothing before.
            if found[0] or id not in reply["verdicts"] or _is_empty(answer) or not _is_defined(answer):
                reply["verdicts"][id] = found
    return reply | {"lessons": sorted(lessons | {id[:2] for id in answers})}


def _verdict(
    answer: Answer,
    expected: str | None,
    cells: list[Cell],
    seconds: float,
    bounds: worker.Bounds,
    scratch: Path,
    landlock: int,
) -> tuple[bool, str]:
    """Returns (passed, diagnosis), from the code alone where that is enough, else by running it."""
    if not answer.trouble and _is_untouched(answer):
        return False, worker.NOT_ATTEMPTED
    if words := answer.trouble or _other_variant(answer.asked, expected) or rules.suspicion(answer):
        return False, words
    try:
        exercise = find(answer.asked)
    except (LookupError, ValueError) as error:
        return False, str(error)
    rules.allowed(answer.exercise)  # fills its cache, because the worker, a copy of this process, cannot open the table
    passed, words = supervisor.try_answer(worker.Job(answer, exercise, cells, seconds, bounds, scratch, landlock))
    if words == worker.NOT_ATTEMPTED and not _is_empty(answer):
        words = "It calls the answer to another exercise, which is not attempted."
    return passed, words


def _other_variant(asked: str, expected: str | None) -> str:
    """Returns the diagnosis for a check of another exercise than the one that was handed out to this student, or ""."""
    if expected is None or asked == expected:
        return ""
    back = f'Handed out was check("{expected}", ...)'
    exercise, sign, seed = asked.partition("@")
    if not sign:
        return f"The seed was removed: the check asks for the public exercise {exercise}. {back}."
    return f"The check has the seed {seed[:20]}, which is not this student's: it may be a neighbour's work. {back}."


def _body(answer: Answer) -> list[ast.stmt] | None:
    """Returns the lines of the answer's function without its docstring, or None if no function of the notebook is checked."""
    name = answer.expression.id if isinstance(answer.expression, ast.Name) else None
    found = [s for _, s in answer.statements if isinstance(s, ast.FunctionDef) and s.name == name]
    if not found:
        return None
    return [s for s in found[-1].body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]


def _is_untouched(answer: Answer) -> bool:
    """Returns True if the function is still the stub of the lesson, so that nothing needs to run."""
    body = _body(answer)
    return body is not None and len(body) == 1 and isinstance(body[0], ast.Raise) and _STUB in ast.unparse(body[0])


def _is_empty(answer: Answer) -> bool:
    """Returns True if the function does not compute anything, or if there is no function."""
    nothing = ("return", "return None", "return ...", "pass")
    return all(isinstance(s, ast.Raise) or ast.unparse(s) in nothing for s in _body(answer) or ())


def _is_defined(answer: Answer) -> bool:
    """Returns True if the notebook defines the checked name before the check, or if it checks another expression."""
    if not isinstance(answer.expression, ast.Name):
        return True
    nodes = [node for _, statement in answer.statements for node in ast.walk(statement)]
    return answer.expression.id in {n.id if isinstance(n, ast.Name) else getattr(n, "name", "") for n in nodes}


def _lane(connection: socket.socket, scratch: Path, bounds: worker.Bounds) -> None:
    """Grades the notebooks that arrive through the socket until it closes. scratch: the lane's own folder, to be made."""
    confinement.die_with_parent()
    confinement.adopt_orphans()
    scratch.mkdir()
    landlock = confinement.ruleset(scratch) if bounds.confined else -1
    guards.integrity()
    gc.collect()
    gc.freeze()  # because a collection in a worker would touch, and so copy, all memory that it shares with the lane
    supervisor.base_memory()
    file = connection.makefile("rw", encoding="utf-8", newline="\n")
    file.write("ready\n")
    file.flush()
    for line in file:
        task = json.loads(line)
        path = Path(task["path"])
        try:
            found = grade_notebook(path, task["expected"], bounds, scratch, landlock)
        except Exception as error:  # a bug of the grader must cost one notebook, not the whole class
            words = f"{path.name}: the grader itself failed on it ({type(error).__name__}: {error}); please report it"
            found = {"lessons": [], "verdicts": {}, "seeds": {}, "judged": {}, "errors": [words], "unread": False}
        file.write(json.dumps(found) + "\n")
        file.flush()


def _warm_up() -> None:
    """Imports what answers and exercises use, once for all workers. Leaves no threads running, because a fork loses them."""
    torch.set_num_threads(1)
    for module in [m for p in (fsl_course, fsl_classroom) for m in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")]:
        if not module.name.endswith("__main__") and ".grading" not in module.name:
            with suppress(ImportError):  # a package for widgets, say, which no answer needs
                importlib.import_module(module.name)
    doors.compile_nothing()
    ones = torch.ones(2, requires_grad=True)
    torch.autograd.grad(ones.square().sum(), ones)
    torch.func.hessian(lambda x: x.square().sum())(torch.ones(2))
    torch.func.vmap(torch.sin)(torch.ones(2))


def main() -> None:
    """Forks the lanes and waits for them. Arguments: a scratch folder, the bounds as JSON, file handles of the sockets."""
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
