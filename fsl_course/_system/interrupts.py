"""Turns Ctrl-C and SIGTERM (sent by job schedulers, torchrun and a shutdown) into a request to stop after the current step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def gentle_interrupt() -> Iterator[threading.Event]:
    """Yields an event that Ctrl-C or SIGTERM sets. A second Ctrl-C interrupts at once.

    A second SIGTERM does not, because senders repeat it and then use SIGKILL. Outside the main thread nothing changes, because
    signals do not reach other threads.
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
            # None stands for a handler that Python did not set and cannot set again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
