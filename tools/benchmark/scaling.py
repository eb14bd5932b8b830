"""What a training step costs with more ways, shots, tasks in a batch and inner steps; and the figure of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fsl_course._system.allocator import keep_memory
from fsl_course.data import load_glyphs
from fsl_course.episodes import EpisodeSampler
from fsl_course.methods.prototypical import PrototypicalNetwork
from tools.benchmark import maml, measure, peers
from tools.benchmark.measure import Row, Settings
from tools.benchmark.report import peak_megabytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Axis(NamedTuple):
    title: str
    values: tuple[int, ...]  # ascending, so that the peak memory so far belongs to the latest value
    rounds: int


AXES = {
    "ways": Axis("prototypical network, 1-shot, 5 queries a class", (5, 10, 20, 40, 60), 9),
    "shots": Axis("prototypical network, 20-way, 5 queries a class", (1, 2, 5, 10, 15), 9),
    "tasks": Axis("MAML, Conv4, 5-way 1-shot, 15 queries a class, 1 inner step", (1, 2, 4, 8, 16), 5),
    "inner steps": Axis("MAML, Conv4, 4 tasks, 5-way 1-shot, 15 queries a class", (1, 2, 3, 5, 8), 5),
    "sine tasks": Axis("MAML, sine curves, 5 inner steps", (1, 4, 16, 64, 256), 9),
    "sine inner steps": Axis("MAML, 25 sine curves", (1, 2, 5, 10, 20), 9),
}


def metric_step(way: int, shot: int, device: str) -> Callable[[], None]:
    """Returns a prototypical network's training step, without the optimiser, on an episode of glyphs with 5 queries a class."""
    learner = PrototypicalNetwork(peers.encoders(device, torch.float32)[0]).train()
    batch = EpisodeSampler(load_glyphs().split("train"), way, shot, 5).batch(0, 1).to(device)

    def step() -> None:
        learner.zero_grad()
        learner.training_step(batch).backward()

    return step


def work_of(axis: str, value: int, device: str) -> Callable[[], Any]:
    """Returns what is timed at a point of an axis."""
    if axis in ("ways", "shots"):
        return metric_step(value if axis == "ways" else 20, value if axis == "shots" else 1, device)
    net, sine = ("mlp", True) if axis.startswith("sine") else ("batch", False)
    in_batch = axis.endswith("tasks")
    tasks = value if in_batch else 25 if sine else 4
    steps = value if not in_batch else 5 if sine else 1
    model, episodes = maml.model_and_tasks(net, tasks, torch.float32, device)
    return lambda: maml.course(model, episodes, steps)


def slopes(x: Sequence[float], y: Sequence[float]) -> Row:
    """Fits y = fixed + each * x by least squares, and the exponent p of y ~ x^p by a line through the logarithms."""
    each, fixed = np.polyfit(x, y, 1)
    exponent = np.polyfit(np.log(x), np.log(y), 1)[0]
    return {"each_s": float(each), "fixed_s": float(fixed), "exponent": float(exponent)}


def along(axis: str, settings: Settings) -> Row:
    """Measures an axis: median seconds and peak memory of every point, and the slopes."""
    keep_memory()
    about, points = AXES[axis], []
    values = about.values[:2] if settings.quick else about.values
    for value in values:
        side = measure.stopwatch(work_of(axis, value, settings.device), settings.device)
        seconds = measure.race({measure.COURSE: side}, settings.rounds(about.rounds))[measure.COURSE]
        points.append({"x": value, "seconds": statistics.median(seconds), "peak_mb": peak_megabytes()})
    fitted = slopes([p["x"] for p in points], [p["seconds"] for p in points])
    threads = {"threads": torch.get_num_threads(), "device": settings.device}
    return {"axis": axis, "title": about.title, "points": points, **fitted, **threads}


def described(rows: Sequence[Row]) -> Iterator[str]:
    """Yields a sentence for each axis."""
    for row in rows:
        points = row["points"]
        yield (
            f"{row['axis']} ({row['title']}): {1e3 * points[0]['seconds']:.3g} ms at {points[0]['x']}, "
            f"{1e3 * points[-1]['seconds']:.3g} ms at {points[-1]['x']}; each one more costs {1e3 * row['each_s']:.2g} ms, "
            f"exponent {row['exponent']:.2f}"
        )


def figure(rows: Sequence[Row]) -> tuple[Figure, str]:
    """Draws time against every axis with its fitted line. Returns figure and alt text. rows: "scaling" of the JSON file."""
    from fsl_course import figures

    columns = min(3, len(rows))
    lines = -(-len(rows) // columns)
    drawn, grid = figures.new(3.2 * columns, 2.6 * lines, columns, lines, squeeze=False)
    for axes in grid.flat[len(rows) :]:
        axes.axis("off")
    for axes, row in zip(grid.flat, rows, strict=False):
        x = np.array([point["x"] for point in row["points"]])
        axes.plot(x, [1e3 * point["seconds"] for point in row["points"]], linestyle="none", **figures.slot_style(0))
        axes.plot(x, 1e3 * (row["fixed_s"] + row["each_s"] * x), color=figures.CHANCE, linestyle="--")
        axes.set(xlabel=row["axis"], ylabel="ms for a step", ylim=(0, None), xlim=(0, None))
        axes.set_title(row["title"].replace(", 5-way", ",\n5-way").replace(", 20-way", ",\n20-way"), fontsize=7)
    return drawn, "Time of a training step. " + ". ".join(described(rows)) + "."
