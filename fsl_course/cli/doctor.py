"""The command `doctor`: says what is right and wrong with an installation, and how to mend it. Works without PyTorch."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fsl_course._system import threads

PYTHON = (3, 11)
MEMORY_GB = 1.5  # what a lesson needs at most
NOTEBOOK_PACKAGES = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget")

# Whether all is well (None for a remark), and what was found.
Finding = tuple[bool | None, str]


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info < PYTHON:
        yield False, f"Python {version} is too old: install Python {PYTHON[0]}.{PYTHON[1]} or newer, then `make env`."
    else:
        yield True, f"Python {version}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])


def _packages() -> Iterator[Finding]:
    """Compares the installed packages with the ranges that the metadata of this one gives."""
    try:
        needs = importlib.metadata.requires("fsl-course") or []
    except importlib.metadata.PackageNotFoundError:
        yield False, "the package fsl-course is not installed: run `make env`, or `pip install -e .` in the repository."
        return
    seen = set()
    for need in needs:
        requirement, _, extra = need.partition(";")
        name = re.match(r"[A-Za-z0-9_.-]+", requirement).group()
        if name in seen or (extra and name not in NOTEBOOK_PACKAGES):
            continue
        seen.add(name)  # an extra may repeat what another one asks for
        least = re.search(r">=\s*([\d.]+)", requirement)
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            purpose = " (needed for notebooks)" if extra else ""
            yield None if extra else False, f"{name} is missing{purpose}: run `make env`, or `pip install {name}`."
            continue
        if least and _numbers(found) < _numbers(least.group(1)):
            yield False, f"{name} {found} is too old, {least.group(1)} is needed: `pip install --upgrade {name}`."
        else:
            yield True, f"{name} {found}"


def _data() -> Iterator[Finding]:
    try:
        from fsl_course.data import assets
    except (ImportError, OSError) as error:  # OSError: PyTorch is there, but a library that it needs is not
        yield None, f"data and weights cannot be checked before the packages are mended ({error})"
        return
    try:
        names = json.loads(assets.asset("checksums.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        yield False, f"the list of embedded files cannot be read: {error}"
        return
    for name in sorted(names):
        if assets.left_out(name):
            yield None, f"{name}: lies in the repository alone; no lesson needs it"
            continue
        try:
            assets.verified(name)
        except (FileNotFoundError, ValueError, OSError) as error:
            yield False, str(error)
        else:
            yield True, f"{name}: SHA-256 as it should be"
    folder = os.environ.get("FSL_DATA")
    if not folder:
        unset = "FSL_DATA is not set: the real Omniglot will not be found"
        yield None, f"{unset} (only needed for comparison; lessons do not need it)"
    elif Path(folder).is_dir():
        yield True, "FSL_DATA names a folder that is there"
    else:
        yield False, f"FSL_DATA names {folder}, which is no folder: mend or unset it"


def _memory() -> Iterator[Finding]:
    try:
        import psutil
    except ImportError:
        yield None, "memory unknown (psutil is missing)"
        return
    free = psutil.virtual_memory().available / 1e9
    if free < MEMORY_GB:
        yield False, f"{free:.1f} GB of memory free; lessons need up to {MEMORY_GB} GB: close other programs."
    else:
        yield True, f"{free:.1f} GB of memory free"


def _processor() -> Iterator[Finding]:
    """Says what `threads` found. Nothing here is wrong: at worst, training is slow beside other programs."""
    cores, quota = threads.cores(), threads.quota()
    yield None, f"{cores} core{'s' * (cores > 1)}, " + ("no quota" if quota is None else f"a quota of {quota:g} cores")
    if sys.platform != "linux":
        return
    cure = "not set in this process, which is slow beside other programs: the course's commands and notebooks set it"
    for name, value in (threads.SPINNING | threads.settings()).items():
        if name in os.environ:
            yield None, f"{name} is {os.environ[name]}"
        else:
            yield None, f"{name} is {cure}; for a program of your own, `export {name}={value}` before it starts."


def _folders() -> Iterator[Finding]:
    for purpose, folder in (("this folder", Path.cwd()), ("your home folder (progress, cache)", Path.home())):
        try:
            with tempfile.TemporaryFile(dir=folder):
                yield True, f"{purpose} can be written to, {shutil.disk_usage(folder).free / 1e9:.0f} GB free"
        except OSError as error:
            cure = "start from a folder of your own."
            yield False, f"{purpose}, {folder}, cannot be written to ({error.strerror}): {cure}"


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield False, f"PyTorch cannot be imported ({error}): run `make env`; on Linux see the README for the CPU build."
        return
    if abs(float(torch.ones(3, 3).matmul(torch.ones(3, 1)).sum()) - 9) < 1e-6:
        yield True, f"PyTorch computes with {torch.get_num_threads()} threads"
    else:
        yield False, "PyTorch computes wrongly: reinstall it."
    apple = "GPU: Apple mps" if torch.backends.mps.is_available() else "no GPU"
    found = f"GPU: {torch.cuda.get_device_name()}" if torch.cuda.is_available() else apple
    yield None, f"{found} (no lesson needs one)"


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Python": _python,
    "Packages": _packages,
    "PyTorch": _torch,
    "Processor": _processor,
    "Data and weights": _data,
    "Memory": _memory,
    "Folders": _folders,
}


def run(*, brief: bool = False) -> int:
    """Prints all findings, or with brief=True only what is wrong. Returns the exit status: 1 where something is wrong, else 0."""
    wrong = 0
    for title, findings in CHECKS.items():
        if not brief:
            print(title)
        for good, text in findings():
            wrong += good is False
            if good is False or not brief:
                print(f"  {'ok   ' if good else 'note ' if good is None else 'WRONG'} {text}")
    if wrong:
        print(f"{wrong} thing{'s' * (wrong > 1)} to mend; the lines marked WRONG say how.")
    else:
        print("Everything is in order.")
    return 1 if wrong else 0
