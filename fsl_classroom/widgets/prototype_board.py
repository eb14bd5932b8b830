"""A widget with support points to drag in the plane and the decision regions of a metric learner (lessons 04, 05)."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn

from fsl_classroom.widgets._panels import control, together, wrapping
from fsl_classroom.widgets._slider_names import SliderNames
from fsl_classroom.widgets._twin import WithTwin, status
from fsl_course.figures import PROTOTYPE_MARKER, SLOTS, slot_style
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.matching import MatchingNetwork
from fsl_course.methods.prototypical import PrototypicalNetwork, prototypes

LETTERS = "ABCDE"
REACH = 3.0  # the board shows -REACH..REACH in both directions
CELLS = 120  # resolution of the regions in each direction
LETTER_STEP = 20  # cells between two of the letters that label a region
MAX_SHOT = 5
RULES = {
    "prototypes, Euclidean distance": "euclidean",
    "prototypes, cosine": "cosine",
    "Matching attention, cosine": "attention cosine",
    "Matching attention, squared Euclidean": "attention euclidean",
}


class _Board(anywidget.AnyWidget):
    """The picture in the browser. Python sends points, prototypes and regions; the browser sends the moves of a point."""

    _esm = Path(__file__).with_suffix(".js")
    reach = traitlets.Float(REACH).tag(sync=True)
    cells = traitlets.Int(CELLS).tag(sync=True)
    step = traitlets.Int(LETTER_STEP).tag(sync=True)
    colours = traitlets.List(SLOTS[: len(LETTERS)]).tag(sync=True)
    board = traitlets.Dict({"points": [], "centres": [], "answered": 0}).tag(sync=True)
    regions = traitlets.Bytes(b"").tag(sync=True)  # uint8 [CELLS, CELLS], lowest y first
    moved = traitlets.List([]).tag(sync=True)  # point, x, y, True if it was released, message number


class PrototypeBoard(WithTwin):
    """A board to drag the support points of 2 to 5 classes on; it shows the region in which each class wins.

    Controls: rule, way, shot (the same for all classes), scale (of the attention), which, add, remove (one point of one
    class, so that shots may differ), fresh (new points). `move` does the same as dragging.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.add_class("fsl-prototype-board")
        self.layout.padding = "0 0 0 6px"  # in a narrow Lab the bar of a selected cell would cover the first letters
        self.seed, self._next, self._points = seed, 0, {}  # points: id -> (slot, x, y)
        self.rule = control(ipywidgets.Dropdown, "rule", options=list(RULES.items()), value="euclidean")
        self.way = control(ipywidgets.IntSlider, "classes N", value=3, min=2, max=len(LETTERS))
        self.shot = control(ipywidgets.IntSlider, "points per class K", value=3, min=1, max=MAX_SHOT)
        self.scale = control(
            ipywidgets.FloatLogSlider,
            "scale of the attention",
            value=1.0,
            min=-1,
            max=2,
            step=0.1,
            readout_format=".1f",
        )
        self.which = control(ipywidgets.Dropdown, "class", options=[], value=None)
        self.add = control(ipywidgets.Button, "Add a point")
        self.remove = control(ipywidgets.Button, "Remove a point")
        self.fresh = control(ipywidgets.Button, "New points")
        self.board = _Board(layout={"flex": "1 1 300px", "max_width": "420px", "margin": "4px 16px 4px 0"})
        self._status = ipywidgets.HTML(layout={"flex": "1 1 220px", "max_width": "100%"})
        hint = ipywidgets.HTML("Drag a point, or Tab to it and press the arrow keys (with Shift five times as far).")
        self.children = [
            wrapping(self.rule, self.scale),
            wrapping(self.way, self.shot),
            wrapping(self.which, self.add, self.remove, self.fresh),
            hint,
            wrapping(self.board, self._status),
            SliderNames(),
        ]
        self.rule.observe(self._update, "value")
        self.scale.observe(self._update, "value")
        self.way.observe(self._deal, "value")
        self.shot.observe(self._deal, "value")
        self.add.on_click(lambda _: self._add())
        self.remove.on_click(lambda _: self._remove())
        self.fresh.on_click(lambda _: self._renew())
        self.board.observe(self._moved, "moved")
        self._deal()

    # --- points

    def _position(self, slot: int, number: int) -> tuple[float, float]:
        """Returns the first position of point `number` of a class, near the class's place on a circle; it depends on the seed."""
        key = (self.seed * len(LETTERS) + slot) * 1000 + number
        # The factor spreads the seeds, because torch's generators start alike for seeds that are close together.
        noise = torch.randn(4, generator=torch.Generator().manual_seed(key * 7919 + 17), dtype=torch.float64)[2:]
        angle = 2 * math.pi * 2 * slot / len(LETTERS) + 0.6  # every second place, which spreads a few classes too
        ends = (1.5 * math.cos(angle), 1.5 * math.sin(angle))
        x, y = (max(-REACH, min(REACH, e + 0.55 * n)) for e, n in zip(ends, noise.tolist(), strict=True))
        return x, y

    def _of(self, slot: int) -> list[int]:
        return [i for i, point in self._points.items() if point[0] == slot]

    def _new(self, slot: int, number: int) -> None:
        self._points[self._next] = (slot, *self._position(slot, number))
        self._next += 1

    def _deal(self, _: object = None) -> None:
        """Brings every class to K points and drops surplus classes. Points that stay keep their place."""
        way, shot = self.way.value, self.shot.value
        self._points = {i: point for i, point in self._points.items() if point[0] < way}
        for slot in range(way):
            mine = self._of(slot)
            for i in mine[shot:]:
                del self._points[i]
            for number in range(len(mine), shot):
                self._new(slot, number)
        chosen = self.which.value
        self.which.options = [(LETTERS[slot], slot) for slot in range(way)]
        self.which.value = chosen if chosen is not None and chosen < way else 0
        self._update()

    def _add(self) -> None:
        slot = self.which.value
        if len(self._of(slot)) >= MAX_SHOT:
            self._say(f"Class {LETTERS[slot]} has {MAX_SHOT} points already: that is all the board takes.")
            return
        self._new(slot, len(self._of(slot)))
        self._update()

    def _remove(self) -> None:
        slot = self.which.value
        if len(self._of(slot)) == 1:
            self._say(f"Class {LETTERS[slot]} has one point left: a class without support has no prototype.")
            return
        del self._points[self._of(slot)[-1]]
        self._update()

    def _renew(self) -> None:
        self.seed, self._points = self.seed + 1, {}
        self._deal()

    def move(self, point: int, x: float, y: float) -> None:
        """Puts a point at (x, y), clamped to the board. point: its id, a key of `points`. Raises KeyError if there is none."""
        if point not in self._points:
            raise KeyError(f"there is no point {point}; there are {sorted(self._points)}.")
        self._put(point, x, y)
        self._update()

    def _put(self, point: int, x: float, y: float) -> None:
        x, y = (max(-REACH, min(REACH, float(v))) for v in (x, y))
        self._points[point] = (self._points[point][0], x, y)

    def _moved(self, change: dict[str, Any]) -> None:
        point, x, y, done, serial = change["new"]
        if point in self._points:  # it may have been removed while the message was in transit
            self._put(point, x, y)
        self._update(answered=serial, speak=done)

    # --- what follows from the points

    @property
    def points(self) -> dict[int, tuple[int, float, float]]:
        """The points, id -> (slot, x, y)."""
        return dict(self._points)

    def support(self) -> tuple[Tensor, Tensor]:
        """Returns support points float64 [S, 2] and their slots int64 [S]."""
        rows = list(self._points.values())
        return torch.tensor([row[1:] for row in rows], dtype=torch.float64), torch.tensor([row[0] for row in rows])

    def learner(self) -> FewShotLearner:
        """Returns the chosen rule as a learner on points instead of embeddings."""
        rule = self.rule.value
        if rule.startswith("attention"):
            return MatchingNetwork(nn.Identity(), similarity=rule.split()[1], scale=self.scale.value)
        return PrototypicalNetwork(nn.Identity(), distance=rule)

    def scores(self, query: Tensor) -> Tensor:
        """Scores points float64 [M, 2] by the chosen rule -> logits [M, N]."""
        return self.learner().score(*self.support(), query, self.way.value)

    def regions(self) -> Tensor:
        """Returns the class that wins in each cell, uint8 [CELLS, CELLS]: rows from the lowest y upwards, columns along x."""
        middles = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS * 2 * REACH - REACH
        y, x = torch.meshgrid(middles, middles, indexing="ij")
        winner = self.scores(torch.stack([x.flatten(), y.flatten()], 1)).argmax(1)
        return winner.to(torch.uint8).view(CELLS, CELLS)

    def _centres(self) -> list[list[float]]:
        if self.rule.value.startswith("attention"):
            return []  # attention compares with the points themselves
        return prototypes(*self.support(), self.way.value).tolist()

    def _words(self, regions: Tensor) -> str:
        support, labels = self.support()
        right = self.scores(support).argmax(1) == labels
        share = regions.flatten().long().bincount(minlength=self.way.value) / regions.numel()
        areas = ", ".join(f"{LETTERS[slot]} {float(part):.0%}" for slot, part in enumerate(share))
        count = Counter(labels.tolist())
        shots = ", ".join(f"{LETTERS[slot]} {count[slot]}" for slot in range(self.way.value))
        return (
            f"Points: {shots}. Share of the board: {areas}. "
            f"{int(right.sum())} of {len(right)} support points lie in their own class's region."
        )

    def _say(self, text: str) -> None:
        self._status.value = status(text)

    def _update(self, _: object = None, *, answered: int = 0, speak: bool = True) -> None:
        regions = self.regions()
        self.scale.disabled = not self.rule.value.startswith("attention")
        points = [[i, *point] for i, point in self._points.items()]
        with self.board.hold_sync():  # one message, so that the picture never shows old regions under new points
            self.board.regions = regions.numpy().tobytes()
            self.board.board = {"points": points, "centres": self._centres(), "answered": answered}
        if speak:  # not during a drag, when a screen reader would never stop talking
            self._say(self._words(regions))

    # --- without a kernel

    def _draw(self, axes: Axes, regions: Tensor) -> None:
        way = self.way.value
        edges = (-REACH, REACH, -REACH, REACH)
        colours = ListedColormap(SLOTS[:way])
        axes.imshow(regions.numpy(), cmap=colours, vmin=-0.5, vmax=way - 0.5, alpha=0.25, extent=edges, origin="lower")
        for slot in range(way):
            inside = (regions == slot).double().numpy()
            if 0 < inside.mean() < 1:
                axes.contour(inside, [0.5], colors="#3C3C3C", linewidths=0.8, extent=edges, origin="lower")
        for row in range(LETTER_STEP // 2, CELLS, LETTER_STEP):
            for column in range(LETTER_STEP // 2, CELLS, LETTER_STEP):
                place = ((column + 0.5) / CELLS * 2 * REACH - REACH, (row + 0.5) / CELLS * 2 * REACH - REACH)
                letter = LETTERS[int(regions[row, column])]
                axes.text(*place, letter, ha="center", va="center", fontsize=8, color="#333333", alpha=0.65)
        for slot, x, y in self._points.values():
            axes.scatter(x, y, s=80, edgecolor="black", zorder=3, **slot_style(slot))
            axes.annotate(LETTERS[slot], (x, y), (7, 5), textcoords="offset points", fontsize=9, fontweight="bold")
        for slot, (x, y) in enumerate(self._centres()):
            axes.scatter(x, y, s=230, marker=PROTOTYPE_MARKER, color=SLOTS[slot], edgecolor="black", zorder=4)
        axes.grid(False)
        axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", title=self.rule.label)

    def twin(self) -> tuple[Figure, str]:
        """Returns the board as it is now; the alt text names the rule, the shares and the prototypes."""
        regions = self.regions()
        stars = "; ".join(f"{LETTERS[k]} at ({x:.1f}, {y:.1f})" for k, (x, y) in enumerate(self._centres()))
        alt = f"Decision regions of {self.way.value} classes in the plane, {self.rule.label}. {self._words(regions)}"
        figure = together([partial(self._draw, regions=regions)], 4.6, 4.6)
        return figure, alt + (f" Prototypes, drawn as stars: {stars}." if stars else "")
