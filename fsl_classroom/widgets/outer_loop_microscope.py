"""A widget on one parameter and two tasks: the slope that the outer loop needs, and the first-order one (lesson 08)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import ipywidgets
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.func import grad, vmap

from fsl_classroom.widgets._panels import LivePanel, control, table, together, view, wrapping
from fsl_classroom.widgets._slider_names import SliderNames
from fsl_classroom.widgets._twin import WithTwin, status
from fsl_course.episodes import Episode
from fsl_course.figures import CHANCE, SLOTS
from fsl_course.methods.maml import adapt, meta_loss, support_loss

LOW, HIGH = -6.0, 6.0  # range of the start
PLACES = 97  # starts at which the curve is drawn


class _Factor(nn.Module):
    """The model y = theta x. With squared error on one row its loss is a parabola in theta."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1] -> [B, 1]"""
        return self.theta * x


def parabola_task(curvature: float, support: float, query: float) -> Episode:
    """Returns a task for y = theta x with losses curvature/2 (theta - support)^2 and curvature/2 (theta - query)^2.

    Support and query have one row each: x = sqrt(curvature/2), and y = x times the optimum.
    """
    x = torch.full((1, 1), math.sqrt(curvature / 2), dtype=torch.float64)
    return Episode(x, x * support, x, x * query, torch.zeros(0, dtype=torch.int64))


def _chopped(number: float) -> float:
    """Returns 0 for a rounding error, because the slopes at an optimum would otherwise have random signs."""
    return 0.0 if abs(number) < 1e-9 else number


@dataclass(frozen=True)
class Reading:
    """The numbers that the microscope shows at the start for one task, or for the mean of both.

    lands: theta after the inner loop, nan for the mean; loss: query loss there; true, first_order: its slopes with respect to
    the start
    """

    lands: float
    loss: float
    true: float
    first_order: float

    @property
    def opposed(self) -> bool:
        """True if the two slopes send the start in opposite directions."""
        return self.true * self.first_order < 0


class OuterLoopMicroscope(WithTwin):
    """The loss after the inner loop as a function of the start, with its true slope and the first-order one.

    Controls: start, lr (inner rate), steps; and of each task curvature, support and query (the optima of its two losses),
    e.g. `microscope.curvature[0].value = 4.0`. All numbers come from `methods.maml.meta_loss` in float64.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_class("fsl-outer-loop-microscope")
        self._model = _Factor()
        slider = partial(control, ipywidgets.FloatSlider)
        self.start = slider("start θ", value=1.0, min=LOW, max=HIGH, step=0.1)
        self.lr = slider("inner rate α", value=0.25, min=0.0, max=1.0, step=0.01)
        self.steps = control(ipywidgets.IntSlider, "inner steps", value=1, min=0, max=10)
        # Task 1 is case A of lesson 08. In task 2 the step jumps over the optimum, and the slopes disagree.
        self.curvature, self.support, self.query = (
            [slider(f"{words} {t + 1}", value=values[t], min=low, max=high, step=0.1) for t in range(2)]
            for words, values, low, high in (
                ("curvature", (2.0, 6.0), 0.0, 8.0),
                ("support optimum", (3.0, -1.0), LOW, HIGH),
                ("query optimum", (5.0, 2.0), LOW, HIGH),
            )
        )
        self._views = [view() for _ in range(3)]
        self._panels = [LivePanel(place, 2.6, 2.6) for place in self._views]
        self._table, self._status = view(), ipywidgets.HTML()
        rows = [wrapping(*controls) for controls in zip(self.curvature, self.support, self.query, strict=True)]
        self.children = [
            wrapping(self.start, self.lr, self.steps),
            *rows,
            wrapping(*self._views),
            self._table,
            self._status,
            SliderNames(),
        ]
        for each in (self.start, self.lr, self.steps, *self.curvature, *self.support, *self.query):
            each.observe(self._update, "value")
        self._update()

    def tasks(self) -> list[Episode]:
        """Returns the two tasks that the controls describe."""
        settings = zip(self.curvature, self.support, self.query, strict=True)
        return [parabola_task(*(each.value for each in task)) for task in settings]

    def meta_loss_at(self, theta: Tensor, task: int, first_order: bool = False) -> Tensor:
        """Returns the query loss of task 0 or 1 after the inner loop from theta, a float64 scalar differentiable in theta."""
        how = {"lr": self.lr.value, "steps": self.steps.value, "first_order": first_order}
        return meta_loss(self._model, {"theta": theta}, self.tasks()[task], loss_fn=F.mse_loss, **how)

    def readings(self) -> list[Reading]:
        """Returns the readings of task 1, of task 2 and of their mean, at the start."""
        theta, found = torch.tensor(self.start.value, dtype=torch.float64), []
        for t, task in enumerate(self.tasks()):
            loss_fn, how = support_loss(self._model, task), {"lr": self.lr.value, "steps": self.steps.value}
            lands = adapt(loss_fn, {"theta": theta}, track=False, **how)["theta"]
            with torch.no_grad():
                loss = self.meta_loss_at(theta, t)
            slopes = [grad(partial(self.meta_loss_at, task=t, first_order=first))(theta) for first in (False, True)]
            found.append(Reading(*(_chopped(float(number)) for number in (lands, loss, *slopes))))
        one, two = found
        mean = [(getattr(one, n) + getattr(two, n)) / 2 for n in ("loss", "true", "first_order")]
        return [one, two, Reading(math.nan, *mean)]

    def curves(self) -> tuple[Tensor, list[Tensor]]:
        """Returns starts [P], and the query loss after the inner loop from each [P]: of task 1, of task 2 and of the mean."""
        places = torch.linspace(LOW, HIGH, PLACES, dtype=torch.float64)
        with torch.no_grad():
            one, two = (vmap(partial(self.meta_loss_at, task=t))(places) for t in range(2))
        return places, [one, two, (one + two) / 2]

    def _draws(self, readings: list[Reading]) -> list[Any]:
        places, losses = self.curves()
        start = self.start.value

        def draw(axes: Axes, title: str, reading: Reading, loss: Tensor) -> None:
            top, bottom = float(loss.max()), float(loss.min())
            room = 0.12 * (top - bottom) or 1.0
            axes.plot(places, loss, color=SLOTS[0], linewidth=2, label="loss after the inner loop")
            for slope, style, colour, label in (
                (reading.true, "-", "black", "true slope"),
                (reading.first_order, "--", SLOTS[1], "first-order slope"),
            ):
                ends = (start - 2.5, start + 2.5)
                axes.plot(ends, [reading.loss + slope * (e - start) for e in ends], style, color=colour, label=label)
            axes.scatter([start], [reading.loss], color="black", zorder=3)
            axes.axvline(start, color=CHANCE, linewidth=0.7, linestyle=":")
            axes.set(title=title, xlabel="start θ", xlim=(LOW, HIGH), ylim=(bottom - room, top + room))
            axes.ticklabel_format(axis="y", scilimits=(-2, 4))
            if title == "task 1":
                axes.legend(fontsize=7, loc="upper left", frameon=True, framealpha=0.85)

        names = ("task 1", "task 2", "mean of both")
        return [
            partial(draw, title=name, reading=reading, loss=loss)
            for name, reading, loss in zip(names, readings, losses, strict=True)
        ]

    def _words(self, name: str, reading: Reading) -> str:
        return (
            f"{name}: at the start {self.start.value:.1f} the loss after {self.steps.value} inner steps of rate "
            f"{self.lr.value:.2f} is {reading.loss:.4g}, its true slope {reading.true:.4g}, "
            f"the first-order slope {reading.first_order:.4g}"
        )

    def _verdict(self, readings: list[Reading]) -> str:
        names = ("task 1", "task 2", "the mean of both")
        wrong = [name for name, reading in zip(names, readings, strict=True) if reading.opposed]
        if wrong:
            return (
                f"The signs disagree for {' and '.join(wrong)}: first-order MAML moves the start the wrong way there."
            )
        if any(reading.true == 0 != reading.first_order for reading in readings):
            return "Where the true slope is 0 the start does not matter; the first-order slope moves it all the same."
        if all(math.isclose(r.true, r.first_order, rel_tol=1e-9, abs_tol=1e-12) for r in readings):
            return "Both slopes agree."
        return "The signs agree, the sizes do not."

    def _update(self, _: object = None) -> None:
        readings = self.readings()
        names = ("task 1", "task 2", "mean of both")
        for panel, draw, name, reading in zip(self._panels, self._draws(readings), names, readings, strict=True):
            panel.show(draw, f"A curve with two lines through the start. {self._words(name, reading)}.")
        rows = [
            [
                name,
                "" if math.isnan(reading.lands) else f"{reading.lands:.4g}",
                *(f"{value:.4g}" for value in (reading.loss, reading.true, reading.first_order)),
                f"{reading.first_order - reading.true:.4g}",
                "differ" if reading.opposed else "",
            ]
            for name, reading in zip(names, readings, strict=True)
        ]
        head = ["", "lands on θ′", "loss there", "true slope", "first-order slope", "difference", "signs"]
        self._table.value = table("At the start", head, rows)
        self._status.value = status(self._verdict(readings))

    def twin(self) -> tuple[Figure, str]:
        """Returns the three panels, and their numbers as alt text."""
        readings = self.readings()
        names = ("Task 1", "Task 2", "Mean of both")
        words = [self._words(name, reading) for name, reading in zip(names, readings, strict=True)]
        alt = f"Three curves of the loss against the start, each with its true and its first-order slope. {'. '.join(words)}."
        return together(self._draws(readings), 3.0, 2.6), f"{alt} {self._verdict(readings)}"
