"""A widget on a graph in the plane: labels flow from two labelled points along edges to the nearest neighbours (lesson 14)."""

from __future__ import annotations

from typing import Any

import ipywidgets
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fsl_classroom.widgets._panels import LivePanel, control, together, view, wrapping
from fsl_classroom.widgets._slider_names import SliderNames
from fsl_classroom.widgets._twin import WithTwin, status
from fsl_course.figures import CHANCE, slot_style
from fsl_course.methods.label_propagation import affinities, normalised, propagate

EACH = 20  # points of a crescent
LEAST = 1e-9  # a point where less has arrived, or as much of either class, stays undecided


def crescents() -> tuple[Tensor, Tensor, Tensor]:
    """Returns points [40, 2] of two bent classes, their classes [40], and the rows [2] that carry a label."""
    generator = torch.Generator().manual_seed(4)
    angle = torch.linspace(0, torch.pi, EACH, dtype=torch.float64)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    noise = 0.04 * torch.randn(2 * EACH, 2, generator=generator)
    return torch.cat([upper, lower]) + noise, torch.arange(2).repeat_interleave(EACH), torch.tensor([0, 2 * EACH - 1])


class LabelFlow(WithTwin):
    """Two crescents with one label each. Controls: neighbours, alpha; `label_propagation` computes what arrives where."""

    def __init__(self) -> None:
        super().__init__()
        self.add_class("fsl-label-flow")
        self.points, self.classes, self.labelled = crescents()
        self.neighbours = control(ipywidgets.IntSlider, "neighbours", value=3, min=1, max=30)
        self.alpha = control(ipywidgets.FloatSlider, "alpha", value=0.99, min=0.0, max=0.99, step=0.01)
        self._view, self._status = view(), ipywidgets.HTML()
        self._panel = LivePanel(self._view, 6.0, 3.4)
        self.children = [wrapping(self.neighbours, self.alpha), self._view, self._status, SliderNames()]
        for each in (self.neighbours, self.alpha):
            each.observe(self._update, "value")
        self._update()

    def edges(self) -> Tensor:
        """Returns the weights of the edges [40, 40]."""
        return affinities(self.points, self.neighbours.value)

    def answers(self) -> Tensor:
        """Returns the class of each point [40], -1 where it is undecided."""
        given = torch.zeros(len(self.points), 2, dtype=torch.float64)
        given[self.labelled, self.classes[self.labelled]] = 1
        arrived = propagate(normalised(self.edges()), given, self.alpha.value)
        lead = (arrived[:, 0] - arrived[:, 1]).abs()
        return arrived.argmax(1).masked_fill(lead <= LEAST, -1)

    def _draw(self, axes: Axes) -> None:
        answers, edges = self.answers(), self.edges()
        for i, j in (edges > LEAST).triu().nonzero().tolist():
            axes.plot(*self.points[[i, j]].T.numpy(), color="#C8C8C8", linewidth=0.7, zorder=0)
        for slot in range(2):
            mine = self.points[answers == slot].T.numpy()
            axes.scatter(*mine, s=30, label=f"class {slot}", **slot_style(slot))
        axes.scatter(*self.points[answers < 0].T.numpy(), s=30, marker="x", color=CHANCE, label="undecided")
        axes.scatter(*self.points[self.labelled].T.numpy(), s=150, marker="*", color="black", label="labelled")
        axes.set(title=f"{self.neighbours.value} neighbours, alpha {self.alpha.value:.2f}", xlim=(-1.2, 2.9))
        axes.legend(fontsize=7, loc="upper right")

    def words(self) -> str:
        """Returns the state in one sentence."""
        answers = self.answers()
        right, undecided = int((answers == self.classes).sum()), int((answers < 0).sum())
        return (
            f"With {self.neighbours.value} neighbours and alpha {self.alpha.value:.2f}, {right} of {len(answers)} points get "
            f"their class and {undecided} stay undecided."
        )

    def _update(self, _: Any = None) -> None:
        self._panel.show(self._draw, f"Two crescents of points, joined to their neighbours by edges. {self.words()}")
        self._status.value = status(self.words())

    def twin(self) -> tuple[Figure, str]:
        """Returns the graph as a picture, and its words as alt text."""
        alt = f"Two crescents of points with a star at an end of each, joined to their neighbours by edges. {self.words()}"
        return together([self._draw], 6.0, 3.4), alt
