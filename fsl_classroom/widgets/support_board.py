"""A widget on trust: take a support picture away, or give it another label, and see the answers move (lesson 22)."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fsl_classroom.widgets._panels import LivePanel, control, together, view, wrapping
from fsl_classroom.widgets._twin import WithTwin, status
from fsl_course.data import load_glyphs
from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import embed_all
from fsl_course.figures import CHANCE, SLOTS
from fsl_course.methods.base import class_means
from fsl_course.methods.prototypical import squared_distances
from fsl_course.weights.checkpoints import pretrained

NAMES, SHOTS, QUERIES, SEED = "ABC", 4, 6, 22
AWAY = "taken away"


class SupportBoard(WithTwin):
    """Three unseen letters with four support pictures each, read by the shipped ProtoNet.

    A dropdown for every support picture says which letter it is taken for, or that it is taken away. The bars show the
    probability of the right letter for every query: grey with the support as it came, coloured as it is now.
    """

    def __init__(self, changed: dict[int, str] | None = None) -> None:
        super().__init__()
        self.add_class("fsl-support-board")
        self.task = EpisodeSampler(load_glyphs().split("test"), len(NAMES), SHOTS, QUERIES // len(NAMES), seed=SEED)[0]
        order = self.task.support_y.argsort(stable=True)
        self.pictures, self.labels = self.task.support_x[order], self.task.support_y[order]
        learner = pretrained("prototypical", "glyphs")
        self.support, self.queries = (
            embed_all(learner, (x * 255).round().to(torch.uint8)) for x in (self.pictures, self.task.query_x)
        )
        self.boxes = [
            control(ipywidgets.Dropdown, f"{NAMES[y]}{i % SHOTS + 1}", options=[*NAMES, AWAY], value=NAMES[y])
            for i, y in enumerate(self.labels.tolist())
        ]
        for i, value in (changed or {}).items():
            self.boxes[i].value = value
        views = [view(), view()]
        self._panels = [LivePanel(place) for place in views]
        self._status = ipywidgets.HTML()
        self.children = [wrapping(*self.boxes), wrapping(*views), self._status]
        for box in self.boxes:
            box.observe(self._update, "value")
        self._update()

    def now(self) -> Tensor:
        """Returns the letter that each support picture is taken for, int64 [12]; -1 where it is taken away."""
        return torch.tensor([NAMES.find(box.value) if box.value != AWAY else -1 for box in self.boxes])

    def probabilities(self, labels: Tensor) -> Tensor:
        """Returns the probability of each letter for each query [6, 3]; a letter without a picture has none."""
        kept = labels >= 0
        present = labels[kept].unique()
        found = torch.zeros(len(self.queries), len(NAMES))
        if len(present):
            slots = torch.searchsorted(present, labels[kept])
            centres = class_means(self.support[kept], slots, len(present))
            found[:, present] = (-squared_distances(self.queries, centres)).softmax(1)
        return found

    def words(self) -> str:
        """Returns what was changed, and how many queries are answered right."""
        now = self.now()
        right = int((self.probabilities(now).argmax(1) == self.task.query_y).sum()) if bool((now >= 0).any()) else 0
        gone, other = int((now < 0).sum()), int(((now >= 0) & (now != self.labels)).sum())
        told = f"{gone} of {len(now)} support pictures taken away, {other} with another label"
        return f"{told}: {right} of {len(self.queries)} queries are answered right."

    def _draw_support(self, axes: Axes) -> None:
        now, (height, width) = self.now(), self.pictures.shape[-2:]
        grid = np.ones((height * len(NAMES), width * SHOTS))
        for i, picture in enumerate(self.pictures[:, 0].numpy()):
            row, column = divmod(i, SHOTS)
            faint = 0.15 if now[i] < 0 else 1.0
            grid[row * height : (row + 1) * height, column * width : (column + 1) * width] -= faint * picture
        axes.imshow(grid, cmap="gray", vmin=0, vmax=1)
        for i, k in enumerate(now.tolist()):
            row, column = divmod(i, SHOTS)
            told, colour = ("away", CHANCE) if k < 0 else (f"-> {NAMES[k]}", SLOTS[k])
            name = f"{NAMES[int(self.labels[i])]}{column + 1}"
            words = name if k == int(self.labels[i]) else f"{name} {told}"
            axes.text(column * width + 1, row * height + 4, words, color=colour, fontsize=7, weight="bold")
        axes.set(title="support: its name -> what it is taken for", xticks=[], yticks=[])
        axes.grid(False)

    def _draw_answers(self, axes: Axes) -> None:
        truth = self.task.query_y
        places = np.arange(len(truth))
        for shift, labels, told in ((-0.2, self.labels, "as it came"), (0.2, self.now(), "now")):
            height = self.probabilities(labels).gather(1, truth[:, None])[:, 0].numpy()
            colours = [CHANCE if shift < 0 else SLOTS[k] for k in truth.tolist()]
            axes.bar(places + shift, height, 0.38, color=colours, label=told, hatch="" if shift < 0 else "//")
        axes.set(title="probability of the right letter", ylim=(0, 1.3), xticks=places, xlabel="query (its letter)")
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xticklabels([NAMES[k] for k in truth.tolist()])
        axes.legend(fontsize=8, loc="upper center", ncols=2)  # in the room above the bars

    def _update(self, _: Any = None) -> None:
        words = self.words()
        state = tuple(self.now().tolist())
        for panel, draw, told in zip(
            self._panels,
            (self._draw_support, self._draw_answers),
            ("Twelve support pictures in three rows.", "Two bars for each of six queries."),
            strict=True,
        ):
            panel.show(draw, f"{told} {words}", state)
        self._status.value = status(words)

    def twin(self) -> tuple[Figure, str]:
        """Returns support and answers side by side, and alt text."""
        told = "Left: twelve support pictures, with the letter each is taken for. Right: the probability of the right letter."
        return together([self._draw_support, self._draw_answers]), f"{told} {self.words()}"
