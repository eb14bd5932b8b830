"""`python -m fsl_course doctor`: what is right and wrong with an installation, in words, and how to mend it."""

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

PYTHON = (3, 11)
MEMORY_GB = 1.5  # what a lesson needs at most
NOTEBOOK_PACKAGES = ("jupyterlab", "ipykernel", "ipywidgets", "anywidget")

# (good?, what was found); good is None for a remark that is neither
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
    """Every package that this one needs, against the ranges of pyproject.toml as installed."""
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
            grade = None if extra else False
            yield (
                grade,
                f"{name} is missing{' (needed for notebooks)' if extra else ''}: run `make env`, or `pip install {name}`.",
            )
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
        try:
            assets.verified(name)
        except (FileNotFoundError, ValueError, OSError) as error:
            yield False, str(error)
        else:
            yield True, f"{name}: SHA-256 as it should be"
    folder = os.environ.get("FSL_DATA")
    if folder:
        there = Path(folder).is_dir()
        yield (
            there,
            f"FSL_DATA names {'a folder that is there' if there else f'{folder}, which is no folder: mend or unset it'}",
        )
    else:
        yield (
            None,
            "FSL_DATA is not set: the real Omniglot will not be found (only needed for comparison; lessons do not need it)",
        )


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


def _folders() -> Iterator[Finding]:
    for purpose, folder in (("this folder", Path.cwd()), ("your home folder (progress, cache)", Path.home())):
        try:
            with tempfile.TemporaryFile(dir=folder):
                yield True, f"{purpose} can be written to, {shutil.disk_usage(folder).free / 1e9:.0f} GB free"
        except OSError as error:
            yield (
                False,
                f"{purpose}, {folder}, cannot be written to ({error.strerror}): start from a folder of your own.",
            )


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield False, f"PyTorch cannot be imported ({error}): run `make env`; on Linux see the README for the CPU build."
        return
    good = abs(float(torch.ones(3, 3).matmul(torch.ones(3, 1)).sum()) - 9) < 1e-6
    yield (
        good,
        f"PyTorch computes with {torch.get_num_threads()} threads"
        if good
        else "PyTorch computes wrongly: reinstall it.",
    )
    if torch.cuda.is_available():
        yield None, f"GPU: {torch.cuda.get_device_name()} (no lesson needs one)"
    elif torch.backends.mps.is_available():
        yield None, "GPU: Apple mps (no lesson needs one)"
    else:
        yield None, "no GPU (no lesson needs one)"


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Python": _python,
    "Packages": _packages,
    "PyTorch": _torch,
    "Data and weights": _data,
    "Memory": _memory,
    "Folders": _folders,
}


def run(*, brief: bool = False) -> int:
    """Prints all findings, or with brief=True only what is wrong. Exit status 0 when nothing is wrong, else 1."""
    wrong = 0
    for title, findings in CHECKS.items():
        if not brief:
            print(title)
        for good, text in findings():
            wrong += good is False
            if good is False or not brief:
                print(f"  {'ok   ' if good else 'note ' if good is None else 'WRONG'} {text}")
    print(
        "Everything is in order."
        if not wrong
        else f"{wrong} thing{'s' * (wrong > 1)} to mend; the lines marked WRONG say how."
    )
    return 1 if wrong else 0
