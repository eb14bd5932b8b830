"""The last resort against a call that holds Python and never returns: in a notebook, its kernel is ended from outside Python.

It stands apart from unfinished.py, which knows the progress file: a process that runs an answer for grading needs neither.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from fsl_classroom.checking.timelimit import Clock

_LIMIT = 60.0  # seconds beyond the time limit after which the kernel of a notebook is ended
_mark: IO[str] | None = None  # where it writes; None outside of the checks of a notebook


def write_to(mark: IO[str] | None) -> IO[str] | None:
    """Sets the open file into which the traceback goes; None switches the last resort off. Returns the file before."""
    global _mark
    before, _mark = _mark, mark
    return before


@contextmanager
def last_resort(clock: Clock) -> Iterator[None]:
    """Ends the kernel of a notebook if the block still runs long after the clock's limit, because nothing else can end it.

    The traceback goes into the mark, so that the next check can say where it was. Does nothing outside of a notebook, and under
    a debugger, in which an answer may wait for its user.
    """
    if _mark is None or _is_debugged():
        yield
        return
    faulthandler.dump_traceback_later(clock.limit * clock.busy + _LIMIT, exit=True, file=_mark)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _is_debugged() -> bool:
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12 on
    return sys.gettrace() is not None or (
        monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None
    )
