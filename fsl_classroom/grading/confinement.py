"""Confines a worker: Landlock restricts files, a seccomp filter restricts system calls, and there are limits. Linux only.

Sources: the kernel's Documentation/userspace-api/landlock.rst and seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import site
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import fsl_classroom
import fsl_course
from fsl_classroom.grading import seccomp
from fsl_course.data import assets

_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every architecture
_ASK_VERSION = 1
_OLDEST = 3  # Linux 6.2; older versions let a process truncate files that it may not write
_READ_FILE, _READ_DIR, _REFER = 1 << 2, 1 << 3, 1 << 13
# Write, remove a folder, make folder and file, truncate. No file may be removed: one that is open or mapped would go on to
# fill the disk, and nobody could count it.
_WRITES = sum(1 << bit for bit in (1, 4, 7, 8, 14))
_FILE_RIGHTS = (1 << 1) | _READ_FILE | (1 << 14)
_NO_NEW_PRIVS, _DUMPABLE, _DEATH_SIGNAL, _DROP_BOUND, _ADOPT = 38, 4, 1, 24, 36
_PACKAGES = [Path(package.__path__[0]).resolve() for package in (fsl_classroom, fsl_course)]


def problem() -> str | None:
    """Returns why this system cannot confine a process, or None if it can."""
    if sys.platform != "linux":
        return f"confinement needs Linux (Landlock and seccomp), and this is {sys.platform}"
    version = landlock_version()
    if version < _OLDEST:
        has = f"version {version}" if version > 0 else "no Landlock, or it is switched off"
        return f"confinement needs Landlock version {_OLDEST} (Linux 6.2 or newer), and this system has {has}"
    return seccomp.problem()


def landlock_version() -> int:
    """Returns the version of Landlock's interface; 0 or less if there is none."""
    try:
        return _libc().syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))
    except (AttributeError, OSError):  # a C library without syscall()
        return 0


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(what: str, *arguments: object) -> int:
    """Makes a system call and returns its result. Raises OSError that names `what` if it fails."""
    result = _libc().syscall(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def ruleset(scratch: Path) -> int:
    """Returns the file handle of a Landlock ruleset.

    A confined process can read what Python needs and write to `scratch`. It can open nothing else.
    """
    version = landlock_version()
    rights = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    # files, TCP (bind and connect), scope (abstract sockets and signals)
    attributes = struct.pack("<QQQ", rights, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    handle = _call("Landlock's ruleset", _CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    for path in _readable():
        _allow(handle, path, _READ_FILE | _READ_DIR)
    _allow(handle, scratch, _READ_FILE | _READ_DIR | _WRITES)
    _allow(handle, Path("/dev/null"), _READ_FILE | (1 << 1))
    return handle


def _allow(handle: int, path: Path, rights: int) -> None:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not path.is_dir():
            rights &= _FILE_RIGHTS
        rule = struct.pack("<Qi", rights, opened)
        _call(f"Landlock's rule for {path}", _ADD_RULE, ctypes.c_int(handle), ctypes.c_int(1), rule, ctypes.c_uint32(0))
    finally:
        os.close(opened)


def _readable() -> Iterator[Path]:
    """Yields what a worker may read: Python, installed packages, shared libraries and the course's data.

    The code of the course's own two packages is left out: a worker has it loaded, and answers must not read it.
    """
    folders = {Path(p) for p in site.getsitepackages()} | {Path(p) for p in sysconfig.get_paths().values()}
    folders |= {Path(p) for p in sys.path if p and Path(p).name in ("site-packages", "dist-packages")}
    for folder in sorted(folders):
        if folder.name in ("site-packages", "dist-packages") and folder.is_dir():
            for entry in sorted(folder.iterdir()):
                if entry.resolve() not in _PACKAGES and entry.exists():
                    yield entry
    standard = Path(sysconfig.get_path("stdlib"))
    for entry in sorted(standard.iterdir()):  # one by one: packages may lie in a folder of it
        if entry.name not in ("site-packages", "dist-packages"):
            yield entry
    for name in (
        "/usr/lib",
        "/usr/lib64",
        "/lib",
        "/lib64",
        "/usr/share/zoneinfo",
        "/etc/ld.so.cache",
        "/etc/localtime",
    ):
        if Path(name).exists() and not any(package.is_relative_to(Path(name).resolve()) for package in _PACKAGES):
            yield Path(name)
    for name in ("/dev/urandom", "/dev/random", "/dev/zero"):
        yield Path(name)
    yield assets.asset("glyphs.npz").parent


def die_with_parent() -> None:
    """Makes the system kill this process when its parent ends. Linux only; elsewhere the time limit ends it."""
    if sys.platform == "linux":
        _libc().prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Makes descendants whose parent has ended children of this process, so that it can end them. Linux only."""
    if sys.platform == "linux":
        _libc().prctl(_ADOPT, 1, 0, 0, 0)


def set_limits(seconds: float, megabytes: int) -> None:
    """Limits CPU seconds, memory above what the process has now, and size and number of files; allows no core dumps."""
    limits = {
        resource.RLIMIT_CPU: int(seconds) + 2,
        resource.RLIMIT_FSIZE: 16 * 2**20,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform == "linux":
        pages = [int(word) * resource.getpagesize() for word in Path("/proc/self/statm").read_text().split()]
        limits[resource.RLIMIT_AS] = pages[0] + megabytes * 2**20
        limits[resource.RLIMIT_DATA] = pages[5] + megabytes * 2**20
    for which, value in limits.items():
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def drop_rights() -> None:
    """Drops all capabilities for good, and keeps other processes of this user from inspecting this one."""
    libc = _libc()
    for capability in range(64):
        libc.prctl(_DROP_BOUND, capability, 0, 0, 0)  # fails harmlessly if the process does not have it
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS was refused")
    header, empty = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    if libc.capset(header, empty) != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")
    libc.prctl(_DUMPABLE, 0, 0, 0, 0)


def confine(landlock: int) -> None:
    """Confines this process for good. landlock: the handle from `ruleset`. Raises OSError if the system refuses a step."""
    drop_rights()
    _call("Landlock", _RESTRICT_SELF, ctypes.c_int(landlock), ctypes.c_uint32(0))
    os.close(landlock)
    seccomp.restrict()
