"""Calls of code that may do anything: time, output, global state and exceptions are held."""

from __future__ import annotations

import functools
import inspect
import io
import linecache
import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from fsl_classroom.checking.explain import explain
from fsl_classroom.checking.state import Changes, preserved
from fsl_classroom.checking.timelimit import Clock

_SHOWN = 2000  # characters of printed output that are kept
_LINES = 10  # and lines of them that are shown


class Capture(io.TextIOBase):
    """A stream that keeps the first characters and counts the rest, so that printing without end fills no memory."""

    def __init__(self, limit: int = _SHOWN) -> None:
        super().__init__()
        self.limit = limit
        self.total = 0
        self._ends = 0  # line ends so far
        self._open = False  # has a line begun that has no end yet?
        self._kept: list[str] = []

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        written = len(text)
        text = text.replace("\r\n", "\n").replace("\r", "\n")  # every step of a progress bar is a line
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
        """Stays open: an answer that closes sys.stdout must not end the check."""

    def text(self) -> str:
        """The first lines of what was printed, with a count of what was left out."""
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
    """The user pressed stop."""


@dataclass
class Ran:
    """How a call ended: with a result, with an error, or late."""

    result: Any
    error: BaseException | None
    late: bool
    changes: Changes


def run(function: Callable[[], Any], clock: Clock, out: Capture) -> Ran:
    """Call the function on what is left on the clock. Raises Stopped when the user interrupts, else nothing."""
    pressed: list[bool] = []
    with _watching_for_stop(pressed, clock), preserved(out) as changes:
        result, error, late = clock.run(function)
    if pressed:
        raise Stopped
    return Ran(result, error, late, changes)


@contextmanager
def _watching_for_stop(pressed: list[bool], clock: Clock) -> Iterator[None]:
    """Tell the user's stop (SIGINT) from a KeyboardInterrupt that the code raises itself."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return

    def on_stop(number: int, frame: FrameType | None) -> None:
        pressed.append(True)
        clock.stop()  # for code that catches what is raised here
        if clock.is_running:  # while state is put back, nothing may cut in: `run` raises Stopped at its end
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def code_of(answer: Callable[..., Any]) -> CodeType | None:
    """The code of a function, also behind functools.partial, functools.wraps and bound methods; None for anything else."""
    while isinstance(answer, functools.partial):
        answer = answer.func
    answer = inspect.unwrap(answer) if callable(answer) else answer
    answer = getattr(answer, "__func__", answer)
    if not hasattr(answer, "__code__"):
        answer = vars(type(answer)).get("__call__", answer)  # an object that can be called
    code = getattr(answer, "__code__", None)
    return code if isinstance(code, CodeType) else None


def error_words(error: BaseException, answer: Callable[..., Any]) -> list[str]:
    """An exception in up to three lines: type and message, a plain sentence about it, and where in the answer it was raised."""
    try:
        message = " ".join(str(error).split())
    except Exception:
        message = "(its message cannot be shown)"
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
    """The deepest line of the answer that the exception passed: its text, its number counted from `def`, its variables."""
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


def same_words(first: object, second: object) -> bool:
    """Same sentence but for names in quotes and numbers, which differ with every spelling of the same mistake."""
    texts = []
    for words in (first, second):
        try:
            masked = re.sub(r"'[^']*'|-?\b(\d+(\.\d*)?(e[+-]?\d+)?|nan|inf)\b", "_", str(words))
            texts.append(re.sub(r"_(, _)+", "_", masked))
        except Exception:  # an exception of the learner's own making whose message cannot be made
            texts.append("")
    return texts[0] == texts[1]


def same_error(first: BaseException, second: BaseException) -> bool:
    """Same type and same words."""
    return type(first).__name__ == type(second).__name__ and same_words(first, second)
