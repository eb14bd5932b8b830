"""Checks that never come back: a word while one runs, a limit from outside Python in notebooks, and a word afterwards.

A call into compiled code can hold Python so that no other line of it runs, neither an alarm nor a thread; os._exit and a crash
end the process at once. Within one process nothing can be done about either. So a check leaves a mark, a file that it holds
locked and removes at its end. A mark whose lock is free belongs to a process that has died, and the next check says so.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from fsl_classroom.checking.last_resort import write_to
from fsl_classroom.checking.progress import progress_file

_WORD = 30.0  # seconds after which a check says that it is still busy
_PATTERN = "checking-*.lock"


@contextmanager
def marked(name: str) -> Iterator[list[str]]:
    """Leaves a mark while the block runs. Yields sentences about earlier checks that ended their process.

    name: the exercise's id and title
    """
    notes = _notes_on_the_dead()
    path = progress_file().with_name(_PATTERN.replace("*", str(os.getpid())))
    lock, file = FileLock(path, timeout=0), None
    with suppress(
        OSError, Timeout, NotImplementedError
    ):  # then there is no mark: a disk that knows no locks, or is full
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - it is closed below
        file.write(f"{name}\n")
        file.flush()
    before = write_to(file if _in_a_notebook() else None)
    word = threading.Timer(_WORD, _say_busy, (name, sys.stdout))
    word.daemon = True
    word.start()
    try:
        yield notes
    finally:
        word.cancel()
        write_to(before)
        with suppress(OSError):
            if file is not None:
                file.close()
                path.unlink()
            lock.release()


def _say_busy(name: str, stream: IO[str]) -> None:
    """Prints a word from another thread, which gets its turn unless the call holds all of Python."""
    with suppress(Exception):  # whatever the stream is, the check goes on
        print(
            f"○ {name}: still busy after {_WORD:g} seconds. A single call that takes long cannot be interrupted. "
            "Wait for it, or restart the kernel (Kernel > Restart).",
            file=stream,
            flush=True,
        )


def _in_a_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _notes_on_the_dead() -> list[str]:
    """Removes the marks of processes that have died, and returns a sentence about each."""
    notes = []
    with suppress(OSError):
        for path in sorted(progress_file().parent.glob(_PATTERN)):
            if words := _left_by_a_dead_process(path):  # it may have had this process's number, as in a new container
                notes.append(words)
    return notes


def _left_by_a_dead_process(path: Path) -> str:
    """Returns what a mark says, and removes it; "" if its process still runs, or if the mark cannot be used."""
    lock = FileLock(path, timeout=0)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        lock.acquire()
    except (OSError, Timeout, NotImplementedError):
        return ""
    with suppress(OSError):
        path.unlink()
    lock.release()
    name, _, traceback = text.partition("\n")
    if not name.strip():
        return ""
    threads = [part for part in traceback.split("Thread 0x") if "timelimit.py" in part and " in watch" not in part]
    if found := re.search(r'File "[^"]*", line (\d+) in (\S+)', "".join(threads)):  # the most recent call comes first
        return (
            f"the check of {name} ended its kernel, because a single call could not be interrupted for more than a minute "
            f"(line {found[1]} of the cell, in {found[2]}). Is there something without an end in it?"
        )
    return (
        f"the kernel ended while {name} was checked. A crash in compiled code, too much memory, os._exit or a restart does "
        "that; if it comes again, your function does it."
    )
