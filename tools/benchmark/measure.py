"""Fair timing: both sides take turns in one process, medians count, and nothing is timed before both sides agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fsl_course.data import ImageSet, load_glyphs, load_omniglot
from tools.benchmark.works import WORKS

Side = Callable[[int], float]  # number of the round (0 warms up) -> seconds it took
Row = dict[str, Any]
COURSE = "course"


class Disagreement(AssertionError):
    """The two sides do not compute the same, so their times would compare different things."""


@dataclass(frozen=True)
class Settings:
    """What the command line asks of every work.

    repeats, threads: None for the work's usual number and for PyTorch's
    quick: tiny sizes, to try the code
    learn2learn, higher: folders of source checkouts, or None
    """

    repeats: int | None = None
    threads: int | None = None
    device: str = "cpu"
    quick: bool = False
    learn2learn: str | None = None
    higher: str | None = None

    def rounds(self, usual: int) -> int:
        """Returns how many repeats to time."""
        return self.repeats or (2 if self.quick else usual)


def agree(what: str, difference: float, limit: float) -> Row:
    """Returns the field "agreement" of a row. Raises Disagreement if the difference is larger than the limit or not a number."""
    if not difference <= limit:
        raise Disagreement(f"{what}: the sides differ by {difference:.1e}, more than {limit:.0e}. Nothing is timed.")
    return {"compared": what, "largest_difference": difference, "limit": limit}


def largest_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Returns the largest absolute difference of two lists of tensors divided by the largest absolute entry of ours."""
    flat = [torch.cat([t.detach().flatten().cpu() for t in side]) for side in (ours, theirs)]
    return float((flat[0] - flat[1]).abs().max() / flat[0].abs().max())


def synchronise(device: str | torch.device) -> None:
    """Waits for a GPU to finish, because calls return before their work is done."""
    kind = torch.device(device).type
    if kind != "cpu":
        getattr(torch, kind).synchronize()


def stopwatch(work: Callable[[], Any], device: str | torch.device, units: float = 1) -> Side:
    """Returns a side that times a call. units: how many episodes, or other units, a call does; the seconds are those of one."""

    def seconds(_: int) -> float:
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        return (time.perf_counter() - began) / units

    return seconds


def race(sides: Mapping[str, Side], repeats: int) -> dict[str, list[float]]:
    """Times the sides in turns. Returns the seconds of every repeat of each side, without the first round, which warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name, side in sides.items():
            took = side(number)
            if number:
                seconds[name].append(took)
    return seconds


def median_ratio(peer: Sequence[float], ours: Sequence[float]) -> float:
    """Returns the median ratio of repeats that ran one after the other, in which slow spells of the machine cancel."""
    return statistics.median(p / o for p, o in zip(peer, ours, strict=True))


def row(
    work: str, setting: str, peer: str, ours: Sequence[float], theirs: Sequence[float], settings: Settings, **more: Any
) -> Row:
    """Returns a row of the result. more: further fields; goal=None for a row that the work's goal is not about.

    "met" is None without a goal, and for a quick try, which measures nothing.
    """
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
    """Returns Omniglot, protocol "alphabets", if FSL_DATA names its folder. Returns glyphs otherwise, and for a quick try."""
    if settings.quick:
        return load_glyphs().split(split)
    try:
        return load_omniglot().split(split)
    except FileNotFoundError:
        return load_glyphs().split(split)
