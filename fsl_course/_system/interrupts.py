"""Ctrl-C and the polite request to end (SIGTERM: job schedulers, torchrun, shutdown) let the work under way be finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def gentle_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C or SIGTERM sets the event that the block gets; a second Ctrl-C interrupts at once.

    A second SIGTERM does not: whoever is out of patience sends SIGKILL. Outside the main thread, which signals do not reach,
    nothing is changed.
    """
    asked, pressed = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(signum: int, frame: Any) -> None:
        if signum == signal.SIGINT:
            if pressed.is_set():
                raise KeyboardInterrupt
            pressed.set()
        asked.set()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            # None: a handler that Python did not set and cannot set again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
