"""Calls code that may do anything, and controls its time, output, global state and exceptions."""

from __future__ import annotations

import dis
import functools
import inspect
import io
import linecache
import math
import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from fsl_classroom.checking.elsewhere import Reported
from fsl_classroom.checking.explain import explain
from fsl_classroom.checking.last_resort import last_resort
from fsl_classroom.checking.state import Changes, preserved
from fsl_classroom.checking.timelimit import Clock

_SHOWN = 2000  # characters of printed output that are kept
_LINES = 10  # lines of it that are shown


class Capture(io.TextIOBase):
    """A stream that keeps the first characters and only counts the rest, so that endless printing cannot fill the memory."""

    def __init__(self, limit: int = _SHOWN) -> None:
        super().__init__()
        self.limit = limit
        self.total = 0
        self._ends = 0  # number of line ends so far
        self._open = False  # whether a line has begun and not ended
        self._kept: list[str] = []

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        written = len(text)
        text = text.replace("\r\n", "\n").replace("\r", "\n")  # so that every step of a progress bar is a line
        if not text:
            return written
        room = self.limit - self.total
        if room > 0:
            self._kept.append(text[:room])
        self.total += len(text)
        self._ends += text.count("\n")
        self._open = not text.endswith("\n")
        return written

    def close(self) -> None:
        """Does nothing, because an answer that closes sys.stdout must not end the check."""

    def text(self) -> str:
        """Returns the first lines of what was printed, with a count of what was left out."""
        kept = "".join(self._kept)
        shown = kept.removesuffix("\n").split("\n")[:_LINES] if kept else []
        rest = self._ends + self._open - len(shown)
        text = "\n".join(shown)
        if rest:
            text += " …" if self.total > self.limit and text.endswith(kept) else ""  # the last line shown is cut
            return f"{text}\n… and {rest:,} more line{'s' * (rest != 1)}"
        more = self.total - self.limit
        return f"{text}\n… and {more:,} more character{'s' * (more != 1)}" if more > 0 else text.rstrip()


class Stopped(Exception):
    """Raised when the user pressed stop."""


@dataclass
class Ran:
    """How a call ended: with a result, with an error, or too late. changes: of global state."""

    result: Any
    error: BaseException | None
    late: bool
    changes: Changes


def run(function: Callable[[], Any], clock: Clock, out: Capture) -> Ran:
    """Calls the function with the time that is left on the clock. Raises nothing but Stopped, if the user interrupts."""
    pressed: list[bool] = []
    with last_resort(clock), _watching_for_stop(pressed, clock), preserved(out) as changes:
        result, error, late = clock.run(function)
    if pressed:
        raise Stopped
    return Ran(result, error, late, changes)


@contextmanager
def _watching_for_stop(pressed: list[bool], clock: Clock) -> Iterator[None]:
    """Adds True to `pressed` when the user interrupts (SIGINT), which a KeyboardInterrupt raised by the code does not do."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return

    def on_stop(number: int, frame: FrameType | None) -> None:
        pressed.append(True)
        clock.stop()  # ends code that catches the KeyboardInterrupt
        if clock.is_running:  # else state is being restored, which nothing may interrupt: `run` raises Stopped later
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def code_of(answer: Callable[..., Any]) -> CodeType | None:
    """Returns the code of a function, also behind functools.partial, functools.wraps and methods; None for anything else."""
    while isinstance(answer, functools.partial):
        answer = answer.func
    answer = inspect.unwrap(answer) if callable(answer) else answer
    answer = getattr(answer, "__func__", answer)
    if not hasattr(answer, "__code__"):
        answer = vars(type(answer)).get("__call__", answer)  # an object that can be called
    code = getattr(answer, "__code__", None)
    return code if isinstance(code, CodeType) else None


def reads_nothing(answer: Callable[..., Any]) -> bool:
    """Returns True for a function that never looks at its arguments, such as `lambda sampler: False`."""
    code = code_of(answer)
    if code is None:
        return False
    extra = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    arguments = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + extra])
    read = {line.argval for line in dis.get_instructions(code) if line.opname.startswith("LOAD_")}
    return not arguments & read and not arguments & set(code.co_cellvars)


def message_of(error: BaseException) -> str:
    """Returns the message of an exception on one line. An exception of the learner's own class may fail to give one."""
    try:
        return " ".join(str(error).split())
    except Exception:
        return "(its message cannot be shown)"


def error_words(error: BaseException, answer: Callable[..., Any]) -> list[str]:
    """Returns an exception in up to three lines: type and message, an explanation, and the line of the answer that raised it."""
    if isinstance(error, Reported):
        return list(error.lines)
    message = message_of(error)
    source, where, variables = _line_of(error, answer)
    plain = explain(message[:1000], source, variables)
    name = type(error).__name__
    message = f"{name}: {message[:240]}{'…' if len(message) > 240 else ''}" if message else name
    if isinstance(error, SystemExit):
        message = f"{message} (exit() and sys.exit() have no place in an answer)"
    lines = [message if message.endswith((".", ")", "?", "!")) else message + "."]
    if plain:
        lines.append(plain)
    if where:
        lines.append(f"Raised in {where}: {source[:100]}" if source else f"Raised in {where}.")
    return lines


def _line_of(error: BaseException, answer: Callable[..., Any]) -> tuple[str, str, Mapping[str, Any]]:
    """Returns the deepest line of the answer in the traceback: its text, its number counted from `def`, its variables."""
    code = code_of(answer)
    if code is None:
        return "", "", {}
    inside = [
        (frame, number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code is code or frame.f_code in code.co_consts  # the answer, or a function defined in it
    ]
    if not inside or inside[-1][1] is None:
        return "", "", {}
    frame, number = inside[-1]
    source = linecache.getline(code.co_filename, number).strip()
    return source, f"line {number - code.co_firstlineno + 1} of your function", frame.f_locals


_NUMBER = r"-?\b(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|nan|inf)\b"


def same_words(first: object, second: object, numbers: bool = False) -> bool:
    """Returns True if two sentences agree apart from numbers and quoted names, which vary between forms of one mistake.

    numbers: whether their numbers have to agree as well, within 2 %
    """
    texts, found = [], []
    for words in (first, second):
        try:
            masked = re.sub(rf"'[^']*'|{_NUMBER}", "_", str(words))
            texts.append(re.sub(r"_(, _)+", "_", masked))
            found.append([float(number) for number in re.findall(_NUMBER, str(words))])
        except Exception:  # an exception of the learner's own class may fail to give its message
            texts.append("")
            found.append([])
    if texts[0] != texts[1] or not numbers:
        return texts[0] == texts[1]
    return len(found[0]) == len(found[1]) and all(
        (a != a and b != b) or math.isclose(a, b, rel_tol=0.02, abs_tol=1e-5) for a, b in zip(*found, strict=True)
    )


def same_error(first: BaseException, second: BaseException) -> bool:
    """Returns True if two exceptions have the same type name and, by `same_words`, the same message."""
    return type(first).__name__ == type(second).__name__ and same_words(first, second)
