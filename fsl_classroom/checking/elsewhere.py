"""Answers that run in another process than the judge, as in grading. The engine calls them like any other answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from fsl_classroom.checking.state import Changes


class Elsewhere(ABC):
    """An answer in another process: a callable that sends its arguments there and returns what comes back.

    `__signature__` and `__wrapped__` may tell the parameters, and a function with the answer's code that is never called.
    """

    __signature__: Any
    __wrapped__: Callable[..., Any]

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the answer. Writes into the arguments what the answer wrote into them there."""

    @abstractmethod
    def begin(self) -> None:
        """Is called before each step, so that the other process watches its global state and output."""

    @abstractmethod
    def end(self) -> tuple[Changes, str]:
        """Is called after each step. Returns the global state that was changed there, and what was printed."""


class Reported:
    """Is a base of exceptions that an answer raised in another process.

    message: what `str` gives; lines: what `error_words` said about it there
    """

    message = ""
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message
