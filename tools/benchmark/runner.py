"""Runs the works, each in a process of its own, and prints or writes their rows."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from fsl_course import __version__
from fsl_course._system import devices
from fsl_course._system.files import replace_file
from tools.benchmark import scaling
from tools.benchmark.measure import Row, Settings
from tools.benchmark.report import peak_megabytes
from tools.benchmark.works import WORKS


def work(name: str, settings: Settings) -> list[Row]:
    """Runs a work in this process and returns its rows, each with the process's peak memory (PyTorch and both sides together)."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    module = import_module(f"tools.benchmark.{WORKS[name].module}")
    rows: list[Row] = getattr(module, name.replace("-", "_"))(settings)
    peak = peak_megabytes()
    return [row if "skipped" in row else {"peak_mb": peak} | row for row in rows]


def axis(name: str, settings: Settings) -> Row:
    """Measures one axis of the scaling in this process."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    return scaling.along(name, settings)


def _each(run: Callable[[str, Settings], Any], names: Sequence[str], settings: Settings) -> list[Any]:
    """Calls run(name, settings) for every name, each in a fresh process, so that peak and kept memory belong to it alone.

    Quick tries run in this process.
    """
    if settings.quick:
        return [run(name, settings) for name in names]
    found = []
    for name in names:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(run, name, settings).result())
    return found


def measured(options: argparse.Namespace, names: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Returns the rows of these works, and those of the scaling if it was asked for."""
    settings = Settings(
        repeats=options.repeats,
        threads=options.threads,
        device=str(devices.choose(options.device)),
        quick=options.quick,
        learn2learn=options.learn2learn,
        higher=options.higher,
    )
    rows = [row for found in _each(work, names, settings) for row in found]
    return rows, _each(axis, list(scaling.AXES), settings) if options.scaling else []


def _processor() -> str:
    """Returns the processor's name, which Linux tells only in a file."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def about(options: argparse.Namespace) -> Row:
    """Returns what was run, with which versions, on which processor."""
    words = ["python", "-m", "tools.benchmark"]
    words += [word for name in options.only for word in ("--only", name)]
    for name in ("repeats", "threads"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name}", str(value)]
    words += ["--device", options.device] if options.device != "auto" else []
    words += [f"--{name}" for name in ("quick", "scaling") if getattr(options, name)]
    words += [word for name in ("learn2learn", "higher") if getattr(options, name) for word in (f"--{name}", "FOLDER")]
    return {
        "command": " ".join([*words, "--out", "FILE"]),
        "course": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "ratio": "median of peer_s / ours_s over repeats in turns; conv4-matmul-share: share of a matrix product's rate",
    }


def write(options: argparse.Namespace, rows: Sequence[Row], scaled: Sequence[Row]) -> None:
    """Writes {about, rows, scaling} into the file of --out, without works that could not run."""
    content = {"about": about(options), "rows": [row for row in rows if "skipped" not in row], "scaling": list(scaled)}
    replace_file(Path(options.out), (json.dumps(content, indent=2) + "\n").encode())


def as_lines(rows: Sequence[Row]) -> str:
    """Returns one JSON object a line, without works that could not run."""
    return "\n".join(json.dumps(row) for row in rows if "skipped" not in row)


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 10 else f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.0f} µs"


def as_table(rows: Sequence[Row], scaled: Sequence[Row]) -> str:
    """Returns a table for people: a line for each row, and below it what was measured."""
    lines = []
    for row in rows:
        if "skipped" in row:
            continue
        goal = "" if row["met"] is None else f"  goal {row['goal']:g}: {'met' if row['met'] else 'not met'}"
        lines.append(
            f"{row['work']:20s} {_seconds(row['ours_s']):>9s}   {row['peer']:18s} {_seconds(row['peer_s']):>9s}   "
            f"ratio {row['ratio']:7.2f}{goal}"
        )
        lines.append(f"  {row['setting']}; {row['repeats']} repeats, {row['threads']} threads, {row['device']}")
    return "\n".join(lines + list(scaling.described(scaled)))
