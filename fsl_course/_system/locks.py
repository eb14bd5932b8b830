"""One run at a time in a folder: a lock that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

_BEYOND = 2**30  # on Windows locked bytes cannot be read by others: lock one far behind the words that they should read
_CANNOT = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}  # disks that know no locks


class BusyError(OSError):
    """Another process holds the lock; the message names it."""


@contextmanager
def only_run(path: str | Path) -> Iterator[None]:
    """Holds the lock file at path while the block runs, and removes it afterwards.

    A run that was killed leaves the file but not the lock: the next one simply takes it. The folder is made where it is missing.
    Raises BusyError, with process number and computer, where another run holds it; OSError where the folder cannot be written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _taken(path)
    except BusyError:
        raise
    except OSError as error:
        raise OSError(
            f"could not make {path}: {error.strerror or error}. Name a folder that you may write to."
        ) from error
    try:
        os.ftruncate(file, 0)
        with suppress(OSError):  # a full disk: the lock holds all the same, and what is written next says so
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        if fcntl is None:
            _unlock(file)
            os.close(file)
        with suppress(
            OSError
        ):  # Windows keeps a file that somebody is just looking at; without its lock it does no harm
            path.unlink()
        if fcntl is not None:
            os.close(file)  # after unlink: whoever opened the old file meanwhile sees that it is gone


def _taken(path: Path) -> int:
    """The locked file, open."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(file)
            if fcntl is None or _same(file, path):
                return file
        except OSError as error:
            if error.errno in _CANNOT:
                warnings.warn(f"{path.parent} knows no locks: see to it that no other run uses it.", stacklevel=4)
                return file
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                os.close(file)
                raise
            holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
            os.close(file)
            raise BusyError(
                f"a run is already under way in {path.parent}: {holder} holds {path.name}. "
                "Wait for it, stop it, or name another folder."
            ) from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its holder removed it between our opening and locking it


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(file: int) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    os.lseek(file, _BEYOND, os.SEEK_SET)
    try:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    finally:
        os.lseek(file, 0, os.SEEK_SET)


def _unlock(file: int) -> None:
    os.lseek(file, _BEYOND, os.SEEK_SET)
    msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
