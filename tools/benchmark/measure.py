"""Timing that is fair: both sides in one process and in turns, medians, and nothing before both sides agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fsl_course.data import ImageSet, load_glyphs, load_omniglot
from tools.benchmark.options import WORKS

Side = Callable[[int], float]  # number of the round (0 warms up) -> seconds
Row = dict[str, Any]
COURSE = "course"


class Disagreement(AssertionError):
    """Both sides do not compute the same: their times would compare different things."""


@dataclass(frozen=True)
class Settings:
    """What the command line asks of every work. learn2learn, higher: folders of source checkouts."""

    repeats: int | None = None
    threads: int | None = None
    device: str = "cpu"
    quick: bool = False
    learn2learn: str | None = None
    higher: str | None = None

    def rounds(self, usual: int) -> int:
        return self.repeats or (2 if self.quick else usual)


def agree(what: str, difference: float, limit: float) -> Row:
    """The field "agreement" of a row. Raises Disagreement where the difference is larger than the limit, or not a number."""
    if not difference <= limit:
        raise Disagreement(f"{what}: the sides differ by {difference:.1e}, more than {limit:.0e}. Nothing is timed.")
    return {"compared": what, "largest_difference": difference, "limit": limit}


def largest_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Largest absolute difference of two lists of tensors, relative to the largest entry of ours."""
    flat = [torch.cat([t.detach().flatten().cpu() for t in side]) for side in (ours, theirs)]
    return float((flat[0] - flat[1]).abs().max() / flat[0].abs().max())


def synchronise(device: str | torch.device) -> None:
    """Waits for a GPU: its work goes on after the call that asked for it."""
    kind = torch.device(device).type
    if kind != "cpu":
        getattr(torch, kind).synchronize()


def stopwatch(work: Callable[[], Any], device: str | torch.device, units: float = 1) -> Side:
    """A side that times one call. units: how many episodes (or the like) a call does; the seconds are those of one."""

    def seconds(_: int) -> float:
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        return (time.perf_counter() - began) / units

    return seconds


def race(sides: Mapping[str, Side], repeats: int) -> dict[str, list[float]]:
    """Seconds of every repeat of every side, which take turns. One round before them warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name, side in sides.items():
            took = side(number)
            if number:
                seconds[name].append(took)
    return seconds


def median_ratio(peer: Sequence[float], ours: Sequence[float]) -> float:
    """Median of the ratios of repeats that ran one after the other: slow spells of the machine cancel."""
    return statistics.median(p / o for p, o in zip(peer, ours, strict=True))


def row(
    work: str, setting: str, peer: str, ours: Sequence[float], theirs: Sequence[float], settings: Settings, **more: Any
) -> Row:
    """One line of the result. goal=None in `more` for rows beside the one that the goal speaks of; a quick try meets no goal."""
    ratio = median_ratio(theirs, ours)
    goal = more.pop("goal", WORKS[work].goal)
    return {
        "work": work,
        "setting": setting,
        "peer": peer,
        "ours_s": statistics.median(ours),
        "peer_s": statistics.median(theirs),
        "ratio": ratio,
        "goal": goal,
        "met": None if goal is None or settings.quick else ratio >= goal,
        "repeats": len(ours),
        "threads": torch.get_num_threads(),
        "device": settings.device,
        "peer_version": None,
        **more,
    }


def pictures(settings: Settings, split: str) -> ImageSet:
    """Omniglot, protocol "alphabets", where FSL_DATA names its folder; otherwise, and for a quick try, glyphs."""
    if settings.quick:
        return load_glyphs().split(split)
    try:
        return load_omniglot().split(split)
    except FileNotFoundError:
        return load_glyphs().split(split)
