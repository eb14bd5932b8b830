"""Counts and removes what answers leave in their scratch folder. They may nest, name and multiply files as they like."""

from __future__ import annotations

import math
import os
import stat
from contextlib import suppress
from pathlib import Path

_DEEPEST = 32  # folders in folders
_LEAST = 1024  # bytes that each file and folder counts, so that millions of empty ones are too many as well


def held(folder: Path) -> float:
    """Returns the bytes of everything in a folder, infinity if folders are nested very deeply. It may change meanwhile."""
    total, waiting = 0, [(str(folder), 0)]
    while waiting:
        path, depth = waiting.pop()
        if depth > _DEEPEST:
            return math.inf
        with suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, depth + 1))
                total += max(_LEAST, entry.stat(follow_symlinks=False).st_size)
    return total


def remove(folder: Path) -> None:
    """Removes a folder with everything in it, as far as the system lets it."""
    with suppress(OSError):
        empty(folder)
        folder.rmdir()


def empty(folder: Path) -> None:
    """Removes everything in a folder. Follows no link and does not recurse, because paths may be longer than the system takes.

    Every folder below moves up into `folder` before its parent goes, so that no path is longer than two names. Raises OSError if
    something cannot be removed.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        while names := os.listdir(handle):
            for name in names:
                if _is_folder(name, handle):
                    _flatten(name, handle)
                    os.rmdir(name, dir_fd=handle)
                else:
                    os.unlink(name, dir_fd=handle)
    finally:
        os.close(handle)


def _flatten(name: str, parent: int) -> None:
    """Removes the files of a folder and moves the folders in it up into the parent (a file handle)."""
    os.chmod(name, 0o700, dir_fd=parent)
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        for below in os.listdir(handle):
            if _is_folder(below, handle):
                os.rename(below, f"moved up {os.urandom(16).hex()}", src_dir_fd=handle, dst_dir_fd=parent)
            else:
                os.unlink(below, dir_fd=handle)
    finally:
        os.close(handle)


def _is_folder(name: str, parent: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
