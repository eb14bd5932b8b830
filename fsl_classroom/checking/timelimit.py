"""A time limit for code that may do anything.

In the main thread of a system with SIGALRM a repeating alarm stops the code. Elsewhere (Windows, other threads) a watchdog
thread raises an asynchronous exception in it. Either way the exception is raised again at further lines, so that
`while True: try: ... except: pass` ends, too.

Limits: it cannot stop a single call into compiled code that never returns (`sum(itertools.count())`, a deadlocked lock), and the
watchdog cannot stop a long `time.sleep`. Threads that the code started keep running. In a notebook last_resort.py then ends the
kernel.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_TICK = 0.05  # seconds between two looks at the clock
_SILENT = 1.0  # seconds without a tick after which the alarm counts as switched off
_IMPORTS = 20.0  # seconds of importing that do not count, because the first use of some parts of PyTorch is slow
_TRACERS = {"coverage", "bdb", "pdb", "debugpy", "_pydevd_bundle", "pydevd", "_pydevd_sys_monitoring"}
# Context managers of these packages must run to their end. If torch.func's does not, all later operations run inside a gradient.
_MUST_FINISH = {"torch", "contextlib"}
_PATIENCE = 10  # ticks that the watchdog waits for code of these packages to return
_LOOKED_AT = 2000  # frames: walking up a million of them at every tick would take all the time
DEEPEST = 50_000  # calls inside each other; many more take minutes to unwind, and all memory
_over: set[int] = set()  # threads whose time is up but whose code still runs


class TimeUp(BaseException):
    """Raised in code that runs too long. It is no Exception, so that `except Exception` does not catch it.

    Code may still catch it with a bare `except:`. Once the time is up, a trace function therefore raises it again at the next
    line. Python removes a trace function that raises. It is set again when a caught TimeUp is deleted, and by a profile function
    at the next call or return. Both belong to this thread and are removed when the code has ended.
    """

    def __del__(self) -> None:
        _watch()


def time_is_up() -> bool:
    """Returns True if the code of this thread has used up its time and still runs."""
    return threading.get_ident() in _over


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename == __file__


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """Yields a frame and its callers up to Clock.run, but not more than _LOOKED_AT of them."""
    for _ in range(_LOOKED_AT):
        if frame is None or _is_ours(frame):
            return
        yield frame
        frame = frame.f_back


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _watch() -> None:
    """If the time is up, makes the next line of the running code, of its callers or of what they call raise TimeUp."""
    if threading.get_ident() not in _over:
        return
    frame: FrameType | None = sys._getframe()
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    for caller in _callers(frame):
        caller.f_trace = _on_line
    sys.settrace(_on_line)
    sys.setprofile(_on_call)


def _on_line(frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
    if _is_ours(frame):
        return None
    if event == "line" and _package(frame) not in _MUST_FINISH:
        raise TimeUp
    return _on_line


def _on_call(frame: FrameType, event: str, arg: Any) -> None:
    # what `_watch` set is still there while a deep recursion unwinds: it walks up only where it is needed
    if not _is_ours(frame) and (frame.f_trace is not _on_line or sys.gettrace() is not _on_line):
        _watch()


def _raise_in(thread: int) -> None:
    """Makes Python raise TimeUp in a thread at its next call or its next turn of a loop."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeUp))


def _let_pending_come() -> None:
    """Lets Python raise a pending TimeUp here, where the caller catches it.

    Cancelling it with a null pointer would make Python 3.11 look for it forever, which hangs traced code.
    """
    for _ in range(10):
        pass


def _is_importing(frame: FrameType | None) -> bool:
    return any(caller.f_code.co_filename.startswith("<frozen importlib") for caller in _callers(frame))


def _is_too_deep(frame: FrameType | None) -> bool:
    for _ in range(DEEPEST):
        if frame is None:
            return False
        frame = frame.f_back
    return True


def _may_interrupt(frame: FrameType | None) -> bool:
    """Returns True if TimeUp may be raised at this frame; if not, the next tick comes soon.

    In this file (a finaliser, a trace function) it would be lost, and a coverage tool or debugger may hold a lock.
    """
    if frame is None or _is_ours(frame):
        return False
    return all(_package(caller) not in _TRACERS for caller in _callers(frame))


def _has_alarm() -> bool:
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


class Clock:
    """The seconds that several calls may use together. Only one thread at a time may use a clock.

    busy: how many times slower the machine may be because others work on it. Time counts that the code's thread works, but at
          least the time that passes divided by `busy`, so that a sleeping answer ends, too.
    """

    def __init__(self, seconds: float, busy: float = 1.0) -> None:
        self.limit = seconds
        self.busy = busy
        self.used = 0.0
        self.imports = 0.0
        self._last = self._worked = 0.0
        self._work: Callable[[], float] = time.monotonic  # seconds that the code's thread has worked
        self._running = False
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Uses up all time, which stops running code at the next tick."""
        self.used = max(self.used, self.limit)

    @property
    def is_over(self) -> bool:
        """Returns True if no time is left."""
        return self.used >= self.limit

    @property
    def is_running(self) -> bool:
        """Returns True while code runs on this clock."""
        return self._running

    def run(self, function: Callable[[], Any]) -> tuple[Any, BaseException | None, bool]:
        """Calls the function and returns (its result, what it raised, whether the time was up first). Raises nothing."""
        if self.is_over:
            return None, None, True
        result, error, late = None, None, False
        thread, tracer, profiler, hook = threading.get_ident(), sys.gettrace(), sys.getprofile(), sys.unraisablehook
        # TimeUp raised inside a finaliser cannot be passed on, and Python would print a traceback about it.
        sys.unraisablehook = lambda raised: None if issubclass(raised.exc_type, TimeUp) else hook(raised)
        stop = self._start_alarm() if _has_alarm() else self._start_watchdog()
        try:
            self._worked = self._work()
            self._last, self._running = time.monotonic(), True  # from here on TimeUp may come at any line
            result = function()
        except TimeUp:
            late = True
        except BaseException as raised:
            error = raised
        while True:
            try:
                self._running = False
                with self._lock:  # so that the watchdog is not just about to raise
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
        """Counts the time since the last tick. Returns True if the code must be stopped."""
        passed = self._count()
        if self.imports < _IMPORTS and _is_importing(frame):
            self.imports += passed
            return False
        self.used += passed
        if sys.getrecursionlimit() > DEEPEST and _is_too_deep(frame):
            self.stop()
        return self.is_over

    def _count(self) -> float:
        """Returns the seconds since the last count, as `busy` has it."""
        now, work = time.monotonic(), self._work()
        passed, worked = now - self._last, work - self._worked
        self._last, self._worked = now, work
        return min(passed, max(worked, passed / self.busy))

    def _start_alarm(self) -> Callable[[], None]:
        """Starts the alarm. Returns the function that stops it and restores the one before.

        A watchdog takes over if the code has switched the alarm off.
        """
        started = time.monotonic()
        self._work = time.thread_time
        end_watchdog = self._start_watchdog(self.limit - self.used)

        def on_alarm(number: int, frame: FrameType | None) -> None:
            if self._running and self._tick(frame) and _may_interrupt(frame):
                _over.add(threading.get_ident())
                if frame is not None and _package(frame) in _MUST_FINISH:
                    _watch()  # raises at the next line outside of these packages
                else:
                    raise TimeUp

        handler = signal.signal(signal.SIGALRM, on_alarm)
        delay, interval = signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)

        def stop() -> None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            end_watchdog()
            if handler is not None:  # None: installed by other code than Python, which Python cannot restore
                signal.signal(signal.SIGALRM, handler)
            if delay:  # an alarm that was set before still rings, at once if it is overdue
                signal.setitimer(signal.ITIMER_REAL, max(delay - (time.monotonic() - started), 1e-3), interval)

        return stop

    def _start_watchdog(self, asleep: float = 0.0) -> Callable[[], None]:
        """Starts the watchdog. Returns the function that ends it. asleep: seconds in which an alarm does its work."""
        thread, done = threading.get_ident(), threading.Event()
        if hasattr(time, "pthread_getcpuclockid"):
            of_thread = time.pthread_getcpuclockid(thread)
            self._work = lambda: time.clock_gettime(of_thread)

        def watch() -> None:
            waited = 0
            while asleep and not done.wait(max(asleep, _SILENT)) and time.monotonic() - self._last < _SILENT:
                pass  # the alarm ticks
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
            self.used += self._count()

        return stop
