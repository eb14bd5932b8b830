"""Tries one answer of a notebook: compiles it, has it run in a worker, and says what came out. Runs in a lane."""

from __future__ import annotations
import __future__

import ast
import linecache
import secrets
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import fsl_course
from fsl_classroom.checking.check import Verdict, judge
from fsl_classroom.checking.model import Exercise
from fsl_classroom.checking.outcome import cases_of
from fsl_classroom.grading import codec, distant, frames, guards, rules
from fsl_classroom.grading.cradle import Cradle
from fsl_classroom.grading.report import NOT_ATTEMPTED
from fsl_classroom.grading.slices import Answer
from fsl_classroom.grading.submissions import Cell
from fsl_classroom.grading.supervisor import Bounds
from fsl_classroom.grading.worker import Job, send_job

# A law of these works inside the process of the answer: it counts calls or the maps that are convolved, or differentiates twice.
_WATCHED_INSIDE = {"01.3", "06.3", "21.2"}
APART, TOGETHER = "apart", "together"
_MOST_SECONDS = 6.0  # for the answer's own calls; the notebook gives 2, but a grading machine is busy
_SHARE = 0.5  # of the time of an answer, what its calls get
# Apart, the judge waits while other processes have the machine. Little of that counts: every call has a limit of its own, too.
_WAITING = 20.0
_STARTING = 60.0  # seconds that a worker may need before it runs the answer, on a busy machine
_JUDGING = 120.0  # seconds that the judge may need besides: it also tries the classic wrong answers


@dataclass(frozen=True)
class Bench:
    """What a lane tries answers with: a cradle of each kind, and the bounds of a notebook."""

    cradles: dict[str, Cradle]
    bounds: Bounds

    def try_answer(self, answer: Answer, exercise: Exercise, cells: list[Cell], seconds: float) -> tuple[bool, str]:
        """Returns (passed, diagnosis). seconds: for this answer."""
        kind = kind_of(exercise)
        try:
            job = _job(answer, exercise, cells, min(_MOST_SECONDS, round(seconds * _SHARE, 1)))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return False, f"What the answer needs cannot be compiled ({type(error).__name__}: {error})."
        cradle = self.cradles[kind]
        channel = cradle.order(seconds + _JUDGING, self.bounds.memory)
        link = distant.Link(channel, job.seconds, 0.9 * seconds)
        try:
            send_job(channel, job)
            link.ready(_STARTING)
            verdict = _apart(link, job, exercise, seconds) if kind == APART else _together(link, job, seconds)
        except (distant.Lost, OSError):
            verdict = None
        except Exception as error:  # a result that breaks the judge
            verdict = Verdict("wrong", [f"The result cannot be judged ({type(error).__name__})."])
        finally:
            ended = cradle.end(channel)
        if link.incident:
            return False, link.incident
        if verdict is None or link.is_gone:
            return False, link.words or ended or "The answer's process ended before there is a verdict."
        words = _words(verdict, answer)
        if "MemoryError" in words or "can't allocate memory" in words:
            words = f"The answer uses more than {self.bounds.memory} MB of memory."
        return verdict.kind == "right", words[:2000]


@cache
def kind_of(exercise: Exercise) -> str:
    """Returns APART if everything that the cases and laws of an exercise send to an answer is data, else TOGETHER."""
    if exercise.id in _WATCHED_INSIDE:
        return TOGETHER
    recorded: list[bool] = []

    def recording(*args: Any, **kwargs: Any) -> Any:
        try:
            codec.Packer(strict=True).pack((args, kwargs))
        except codec.Unsendable:
            recorded.append(False)
        result = exercise.reference(*args, **kwargs)
        try:
            codec.Packer(strict=True).pack(result)
        except codec.Unsendable:
            recorded.append(False)
        return result

    for case in cases_of(exercise):
        recording(*case.args, **case.kwargs)
    for law in exercise.properties:
        law.holds(recording, exercise.reference)
    return APART if all(recorded) else TOGETHER


def _job(answer: Answer, exercise: Exercise, cells: list[Cell], seconds: float) -> Job:
    """Compiles an answer. Raises what `compile` raises."""
    flags = _future(cells)
    codes = [_compiled([statement], number, flags) for number, statement in answer.statements]
    function = _compiled(answer.expression, answer.cell, flags)
    used = {number for number, _ in answer.statements} | {answer.cell}
    sources = {_file(cell.number): cell.source for cell in cells if cell.number in used}
    return Job(exercise.id, codes, function, sources, sorted(_modules(answer)), seconds, secrets.token_hex(16))


def _future(cells: list[Cell]) -> int:
    """Returns the compiler flag of `from __future__ import annotations` if a cell has it, else 0.

    In a notebook one such import holds for all cells after it.
    """
    nodes = [node for cell in cells if cell.tree is not None for node in cell.tree.body]
    asked = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in nodes)
    return __future__.annotations.compiler_flag if asked else 0


def _file(number: int) -> str:
    """Returns the file name of the code of a cell. The guards know it by its beginning."""
    return f"{guards.FILE}cell {number}>"


def _compiled(code: Any, number: int, flags: int) -> types.CodeType:
    """Compiles statements (a list) or an expression."""
    if isinstance(code, list):
        return compile(ast.Module(code, []), _file(number), "exec", flags, dont_inherit=True)
    return compile(ast.Expression(code), _file(number), "eval", flags, dont_inherit=True)


def _modules(answer: Answer) -> Iterator[str]:
    """Yields dotted names of the course that the code of an answer imports: modules, and what it takes from them."""
    for node in (node for _, statement in answer.statements for node in ast.walk(statement)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if rules.lies_in(alias.name, rules.COURSE))
        elif isinstance(node, ast.ImportFrom) and rules.lies_in(node.module or "", rules.COURSE):
            for alias in node.names:
                home = fsl_course._HOME.get(alias.name) if node.module == rules.COURSE else None
                yield f"{rules.COURSE}.{home}" if home else f"{node.module}.{alias.name}"


def _together(link: distant.Link, job: Job, seconds: float) -> Verdict:
    """Returns the verdict of a worker that judges its answer itself. Raises distant.Lost if it sends none to believe."""
    message = link.ready(seconds + 5.0)
    kind, lines, token = message.get("kind"), message.get("lines"), message.get("token")
    if not isinstance(token, str) or not secrets.compare_digest(token, job.token):
        raise link.garbled()
    incident = message.get("incident")
    link.incident = incident if isinstance(incident, str) else ""
    return Verdict(str(kind), [str(line) for line in lines] if isinstance(lines, list) else [])


def _apart(link: distant.Link, job: Job, exercise: Exercise, seconds: float) -> Verdict:
    """Judges an answer that runs in another process. Raises distant.Lost if that process ends or cheats."""
    told = link.ready(seconds)
    if "broken" in told:
        lines = distant.error_of(told["broken"]).lines
        return Verdict("wrong", ["What the answer needs from earlier cells ends in an error.", *lines])
    ready = told.get("ready")
    if not isinstance(ready, dict):
        raise link.garbled()
    try:
        if "value" in ready:
            answer: Any = codec.Unpacker(b"").unpack(ready["value"])
        elif ready.get("waits"):
            answer = _waiting
        else:
            answer = distant.Distant(link, ready.get("parameters"), _twin(job, ready.get("code")))
    except frames.Garbled:
        raise link.garbled() from None
    linecache.cache |= {name: (len(s), None, s.splitlines(keepends=True), name) for name, s in job.sources.items()}
    return judge(exercise, answer, job.seconds, busy=_WAITING)


async def _waiting() -> None:
    """Stands for an answer that is written with `async def`."""


def _twin(job: Job, place: Any) -> types.FunctionType | None:
    """Returns a function with the answer's code, which the judge looks at and never calls. place: [file, line, name]."""
    for code in _all_codes([*job.codes, job.function]):
        if [code.co_filename, code.co_firstlineno, code.co_name] == place:
            return types.FunctionType(code, {}, closure=tuple(types.CellType() for _ in code.co_freevars))
    return None


def _all_codes(codes: Sequence[types.CodeType]) -> Iterator[types.CodeType]:
    waiting = list(codes)
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [const for const in code.co_consts if isinstance(const, types.CodeType)]


def _words(verdict: Verdict, answer: Answer) -> str:
    """Returns the diagnosis in one line; "" if the answer is right."""
    if verdict.kind == "right":
        return ""
    if verdict.kind == "unattempted":
        return NOT_ATTEMPTED
    if verdict.kind == "reference":
        return rules.imports_reference(f"exercise {answer.exercise}")
    if verdict.kind == "broken":
        return f"The exercise itself is broken: {' '.join(verdict.lines)}. Please report it."
    return verdict.diagnosis or " ".join(verdict.lines) or f"The check was stopped ({verdict.kind})."
