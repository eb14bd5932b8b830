"""A time limit for code that may do anything.

In the main thread of a system with SIGALRM a repeating alarm stops the code. Elsewhere (Windows, other threads) a watchdog
thread raises an asynchronous exception in it. Either way the exception, once raised, is raised again at further lines,
so that `while True: try: ... except: pass` ends too.

Limits: a single call into compiled code that never returns (`sum(itertools.count())`, a deadlocked lock) is not stopped,
and neither is a long `time.sleep` where the watchdog is at work. Threads that the code started are left alone.
In a notebook, "restart the kernel" remains.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

_TICK = 0.05  # seconds between two looks at the clock
_IMPORTS = 20.0  # seconds of importing that are not charged: the first use of some parts of PyTorch is slow
_TRACERS = {"coverage", "bdb", "pdb", "debugpy", "_pydevd_bundle", "pydevd", "_pydevd_sys_monitoring"}
# Their context managers must close: torch.func's would leave every later operation inside a gradient that nobody takes.
_MUST_FINISH = {"torch", "contextlib"}
_PATIENCE = 10  # ticks that a watchdog waits for code in these to come back
_over: set[int] = set()  # threads whose time is up and whose code has not ended yet


class TimeUp(BaseException):
    """Raised in code that runs too long. Not an Exception, so that `except Exception` lets it pass.

    Code may still catch it with a bare `except:`. So, once the time is up, a trace function raises it again at the next
    line. Python takes a trace function off when it raises; it is put back when a caught TimeUp is dropped, and by a
    profile function at the next call or return. Both belong to this thread and are gone when the code has ended.
    """

    def __init__(self) -> None:
        super().__init__()
        _watch()

    def __del__(self) -> None:
        _watch()


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename == __file__


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _watch() -> None:
    """Where the time is up: raise TimeUp at the next line of the running code, of its callers, or of what they call."""
    if threading.get_ident() not in _over:
        return
    frame: FrameType | None = sys._getframe()
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    while frame is not None and not _is_ours(frame):  # up to Clock.run
        frame.f_trace = _on_line
        frame = frame.f_back
    sys.settrace(_on_line)
    sys.setprofile(_on_call)


def _on_line(frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
    if _is_ours(frame):
        return None
    if event == "line" and _package(frame) not in _MUST_FINISH:
        raise TimeUp
    return _on_line


def _on_call(frame: FrameType, event: str, arg: Any) -> None:
    if not _is_ours(frame):
        _watch()


def _raise_in(thread: int) -> None:
    """Ask for TimeUp in a thread; it is raised there at the next call, or the next turn of a loop."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeUp))


def _let_pending_come() -> None:
    """Give TimeUp that was asked for and not raised yet the chance to be raised here, where it is caught.

    Taking it back with a null pointer would leave Python 3.11 looking for it forever, which hangs traced code.
    """
    for _ in range(10):
        pass


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _may_interrupt(frame: FrameType | None) -> bool:
    """Is this a place to raise TimeUp? Not in this file (a finaliser, a trace function), where it would get lost, and not
    in a coverage tool or debugger that is looking at the code, which might hold a lock. The next tick comes soon."""
    if frame is None or _is_ours(frame):
        return False
    while frame is not None and not _is_ours(frame):
        if _package(frame) in _TRACERS:
            return False
        frame = frame.f_back
    return True


def _has_alarm() -> bool:
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


class Clock:
    """The seconds that several pieces of code may use together. One thread at a time."""

    def __init__(self, seconds: float) -> None:
        self.limit = seconds
        self.used = 0.0
        self.imports = 0.0
        self._last = 0.0
        self._running = False
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Let nothing be left: running code is stopped at the next tick."""
        self.used = max(self.used, self.limit)

    @property
    def is_over(self) -> bool:
        """Is nothing left?"""
        return self.used >= self.limit

    @property
    def is_running(self) -> bool:
        """Is code running on this clock at the moment?"""
        return self._running

    def run(self, function: Callable[[], Any]) -> tuple[Any, BaseException | None, bool]:
        """Call the function: (its result, what it raised, whether the time was up first). Raises nothing itself."""
        if self.is_over:
            return None, None, True
        result, error, late = None, None, False
        thread, tracer, profiler, hook = threading.get_ident(), sys.gettrace(), sys.getprofile(), sys.unraisablehook
        # TimeUp raised inside a finaliser cannot be passed on, and Python would print a traceback about it.
        sys.unraisablehook = lambda raised: None if issubclass(raised.exc_type, TimeUp) else hook(raised)
        stop = self._start_alarm() if _has_alarm() else self._start_watchdog()
        try:
            self._last, self._running = time.monotonic(), True  # from here on TimeUp may come at any line
            result = function()
        except TimeUp:
            late = True
        except BaseException as raised:
            error = raised
        while True:
            try:
                self._running = False
                with self._lock:  # the watchdog is not in the midst of asking
                    _over.discard(thread)
                _let_pending_come()
                break
            except TimeUp:
                late = True
        late = late or self.is_over
        if sys.gettrace() is not tracer:
            sys.settrace(tracer)
        if sys.getprofile() is not profiler:
            sys.setprofile(profiler)
        stop()
        sys.unraisablehook = hook
        return (None, None, True) if late else (result, error, False)

    def _tick(self, frame: FrameType | None) -> bool:
        """Count the time since the last tick; True when the code has to be stopped."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        if self.imports < _IMPORTS and _is_importing(frame):
            self.imports += passed
            return False
        self.used += passed
        return self.is_over

    def _start_alarm(self) -> Callable[[], None]:
        """Start the alarm; returns the function that puts everything back."""
        started = time.monotonic()

        def on_alarm(number: int, frame: FrameType | None) -> None:
            if self._running and self._tick(frame) and _may_interrupt(frame):
                _over.add(threading.get_ident())
                if frame is not None and _package(frame) in _MUST_FINISH:
                    _watch()  # at the next line outside of them
                else:
                    raise TimeUp

        handler = signal.signal(signal.SIGALRM, on_alarm)
        delay, interval = signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)

        def stop() -> None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.used += time.monotonic() - self._last
            if handler is not None:  # None: installed from outside Python, which cannot be put back
                signal.signal(signal.SIGALRM, handler)
            if delay:  # an alarm that was set before still rings, at once where it is overdue
                signal.setitimer(signal.ITIMER_REAL, max(delay - (time.monotonic() - started), 1e-3), interval)

        return stop

    def _start_watchdog(self) -> Callable[[], None]:
        """Start the watchdog; returns the function that ends it."""
        thread, done = threading.get_ident(), threading.Event()

        def watch() -> None:
            waited = 0
            while not done.wait(_TICK):
                if self._running and self._tick(sys._current_frames().get(thread)):
                    with self._lock:
                        frame, waited = sys._current_frames().get(thread), waited + 1
                        if frame is not None and _package(frame) in _MUST_FINISH and waited <= _PATIENCE:
                            continue
                        if self._running and _may_interrupt(frame):
                            _over.add(thread)
                            _raise_in(thread)

        threading.Thread(target=watch, name="exercise time limit", daemon=True).start()

        def stop() -> None:
            done.set()
            self.used += time.monotonic() - self._last

        return stop
