"""Lanes: trusted processes that read notebooks and have every answer run in a worker (trials.py).

The command starts one process that imports PyTorch and both packages once. It forks a lane for every socket that it was given,
and the cradles (cradle.py) from which a lane gets its workers.

A lane receives one notebook at a time, {"path": ..., "expected": {id: id with seed} or null}, and replies with

    {"lessons": [...], "verdicts": {id: [passed, diagnosis]}, "seeds": {id: seed}, "judged": {id: "apart" or "together"},
     "errors": [...], "unread": whether the file could not be read}
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import fsl_classroom
import fsl_course
from fsl_classroom import find
from fsl_classroom.grading import confinement, cradle, doors, guards, rules
from fsl_classroom.grading import together as together_worker
from fsl_classroom.grading.report import NOT_ATTEMPTED
from fsl_classroom.grading.slices import Answer, answers_of
from fsl_classroom.grading.submissions import Cell, Unreadable, read_cells, within
from fsl_classroom.grading.supervisor import Bounds
from fsl_classroom.grading.trials import APART, TOGETHER, Bench, kind_of

_STUB = "is not attempted yet"  # in the line that a student replaces


def grade_notebook(path: Path, expected: dict[str, str] | None, bench: Bench) -> dict[str, Any]:
    """Returns what a lane replies for one notebook. expected: as in `feeders.Task`."""
    named = re.match(r"(\d\d)_", path.name)
    lessons = {named[1]} & set(rules.table()) if named else set()
    names = rules.function_names()
    if expected is not None:
        lessons = {id[:2] for id in expected}
        names = {id: getattr(find(asked), "name", names[id]) for id, asked in expected.items()}
    reply = blank() | {"lessons": sorted(lessons)}
    try:
        with within(max(10.0, bench.bounds.seconds / 4)):
            cells = read_cells(path)
            answers = answers_of(cells, names, lessons, expected)
    except Unreadable as error:
        return reply | {"errors": [f"{path.name}: {error}"], "unread": True}
    reply["errors"] = [f"{path.name}: {cell.trouble}" for cell in cells if cell.trouble]
    reply["lessons"] = sorted(lessons | {id[:2] for id in answers})
    deadline = time.monotonic() + bench.bounds.seconds
    for position, (id, answer) in enumerate(sorted(answers.items())):
        wanted = expected[id] if expected is not None else None
        if wanted is not None and not answer.checked:
            answer.asked = wanted
        seed = answer.asked.partition("@")[2]
        reply["seeds"][id] = seed if re.fullmatch(r"\d{1,9}", seed) else ""
        for attempt in (answer, answer.later):
            if attempt is None or reply["verdicts"].get(id, (False,))[0]:
                continue
            # An answer gets an equal share of the time that the answers before it left.
            share = max(0.5, (deadline - time.monotonic()) / (len(answers) - position))
            passed, words, judged = _verdict(attempt, wanted, cells, share, bench)
            # What was written after the check counts if it is right, or if there was nothing before.
            if passed or id not in reply["verdicts"] or _is_empty(answer) or not _is_defined(answer):
                reply["verdicts"][id], reply["judged"][id] = (passed, words), judged
    return reply


def blank() -> dict[str, Any]:
    """Returns a reply about a notebook without answers."""
    return {"lessons": [], "verdicts": {}, "seeds": {}, "judged": {}, "errors": [], "unread": False}


def _verdict(
    answer: Answer, expected: str | None, cells: list[Cell], seconds: float, bench: Bench
) -> tuple[bool, str, str]:
    """Returns (passed, diagnosis, how it was judged), from the code alone where that is enough, else by running it."""
    if not answer.trouble and _is_untouched(answer):
        return False, NOT_ATTEMPTED, ""
    if words := answer.trouble or _other_variant(answer.asked, expected) or rules.suspicion(answer):
        return False, words, ""
    try:
        exercise = find(answer.asked)
    except (LookupError, ValueError) as error:
        return False, str(error), ""
    passed, words = bench.try_answer(answer, exercise, cells, seconds)
    if words == NOT_ATTEMPTED and not _is_empty(answer):
        words = "It calls the answer to another exercise, which is not attempted."
    return passed, words, "" if words == NOT_ATTEMPTED else kind_of(exercise)


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


def _lane(connection: socket.socket, bench: Bench) -> None:
    """Grades the notebooks that arrive through the socket until it closes."""
    confinement.die_with_parent()
    file = connection.makefile("rw", encoding="utf-8", newline="\n")
    file.write("ready\n")
    file.flush()
    for line in file:
        task = json.loads(line)
        path = Path(task["path"])
        try:
            found = grade_notebook(path, task["expected"], bench)
        except Exception as error:  # a bug of the grader must cost one notebook, not the whole class
            words = f"{path.name}: the grader itself failed on it ({type(error).__name__}: {error}); please report it"
            found = blank() | {"errors": [words]}
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
    """Starts cradles and lanes and waits for them. Arguments: a scratch folder, the bounds as JSON, file handles of sockets."""
    confinement.die_with_parent()
    scratch, bounds = Path(sys.argv[1]), Bounds(**json.loads(sys.argv[2]))
    connections = [socket.socket(fileno=int(number)) for number in sys.argv[3:]]
    apart = [socket.socketpair() for _ in connections]
    server = _start_apart(scratch, bounds, [theirs for _, theirs in apart])
    together = [socket.socketpair() for _ in connections]
    for _, theirs in apart:
        theirs.close()
    _warm_up()
    guards.integrity()
    sys.stdout.flush()
    sockets = [*connections, *(ours for ours, _ in apart), *(end for pair in together for end in pair)]
    for number, (_, theirs) in enumerate(together):  # before any lane has read a notebook
        others = [other for other in sockets if other is not theirs]
        cradle.fork(theirs, others, scratch / f"together {number}", bounds.confined, together_worker.work)
    lanes = []
    for connection, (of_apart, _), (of_together, _) in zip(connections, apart, together, strict=True):
        process = os.fork()
        if process == 0:
            own = (connection, of_apart, of_together)
            for other in sockets:
                if other not in own:
                    other.close()
            try:
                cradles = {APART: cradle.Cradle(of_apart), TOGETHER: cradle.Cradle(of_together)}
                _lane(connection, Bench(cradles, bounds))
            finally:
                sys.stderr.flush()
                os._exit(0)
        lanes.append(process)
    for each in sockets:
        each.close()
    for process in lanes:
        os.waitpid(process, 0)
    server.kill()  # nobody needs its cradles any more; they and those of this process die with their parents
    server.wait()
    sys.stderr.flush()
    os._exit(0)  # taking PyTorch down would take seconds on a busy machine


def _start_apart(scratch: Path, bounds: Bounds, sockets: list[socket.socket]) -> subprocess.Popen[bytes]:
    """Starts the process that forks the cradles for answers that are judged apart. It never imports what this one imports."""
    handles = [each.fileno() for each in sockets]
    program = "from fsl_classroom.grading.cradle import main; main()"
    arguments = [str(scratch), str(int(bounds.confined)), *map(str, handles)]
    return subprocess.Popen([sys.executable, "-P", "-c", program, *arguments], pass_fds=handles)
