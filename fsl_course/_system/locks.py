"""One run at a time in a folder: a lock that the system releases when its process ends, however it ends."""

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_CANNOT = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}  # disks without locks
_SECONDS = 0.1  # long enough to try again where the holder removes the file between our opening and locking it


class BusyError(OSError):
    """Another process holds the lock; the message names it."""


@contextmanager
def only_run(path: str | Path) -> Iterator[None]:
    """Holds the lock file at path while the block runs, and removes it afterwards. A killed run leaves the file, but no lock.

    Raises BusyError, with process number and computer, if another run holds the lock; OSError if the folder cannot be written to.
    """
    path = Path(path)
    lock = FileLock(path, timeout=_SECONDS, on_acquired=_write_holder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BusyError(
            f"a run is already under way in {path.parent}: {_holder(path)} holds {path.name}. "
            "Wait for it, stop it, or name another folder."
        ) from None
    except OSError as error:
        if error.errno not in _CANNOT:
            raise OSError(
                f"could not make {path}: {error.strerror or error}. Name a folder that you may write to."
            ) from error
        warnings.warn(f"{path.parent} knows no locks: see to it that no other run uses it.", stacklevel=3)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows cannot remove an open file; filelock then removes it after the release
            path.unlink()  # before the release: a run that waits for the old file sees that it is gone
        lock.release()


def _write_holder(file: int) -> None:
    """Writes this process and computer into an open lock file."""
    os.ftruncate(file, 0)
    with suppress(OSError):  # a full disk: the lock holds nevertheless, and the next write reports the full disk
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _holder(path: Path) -> str:
    """Returns what the holder wrote into its lock file, e.g. "process 12 on lab-3"."""
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        file.seek(len("process"))  # the first byte is locked, which on Windows makes it unreadable
        if rest := file.read(200).decode(errors="replace").strip():
            return f"process {rest}"
    return "another process"
