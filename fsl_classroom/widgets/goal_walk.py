"""A widget in the plane: put the goal somewhere, take inner steps, and watch how the policy walks (lesson 21)."""

from __future__ import annotations

from functools import cache
from typing import Any

import ipywidgets
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fsl_classroom.widgets._panels import LivePanel, control, together, view, wrapping
from fsl_classroom.widgets._slider_names import SliderNames
from fsl_classroom.widgets._twin import WithTwin, status
from fsl_course.data.assets import verified
from fsl_course.data.worlds import Navigation
from fsl_course.figures import CHANCE, QUERY
from fsl_course.methods.maml_rl import MAMLRL, GaussianPolicy, Trajectories, walk
from fsl_course.weights.checkpoints import load_file

SHOWN, MOST = 6, 3  # walks that are drawn, steps at most


@cache
def shipped() -> MAMLRL:
    """Returns the learner with the shipped weights."""
    learner = MAMLRL(GaussianPolicy())
    learner.policy.load_state_dict(load_file(verified("checkpoints/maml_rl-navigation.safetensors"))[0])
    return learner


class GoalWalk(WithTwin):
    """A goal to place and a policy that adapts to it. Controls: right, up (the goal), steps; `walked`: every stage's walks."""

    def __init__(self) -> None:
        super().__init__()
        self.add_class("fsl-goal-walk")
        self.right = control(ipywidgets.FloatSlider, "goal, right", value=0.3, min=-0.5, max=0.5, step=0.1)
        self.up = control(ipywidgets.FloatSlider, "goal, up", value=0.4, min=-0.5, max=0.5, step=0.1)
        self.steps = control(ipywidgets.IntSlider, "inner steps", value=1, min=0, max=MOST)
        self._view, self._status = view(), ipywidgets.HTML()
        self._panel = LivePanel(self._view, 4.6, 4.2)
        self.children = [wrapping(self.right, self.up, self.steps), self._view, self._status, SliderNames()]
        for each in (self.right, self.up, self.steps):
            each.observe(self._update, "value")
        self._update()

    @property
    def walked(self) -> list[Trajectories]:
        """The walks before adaptation and after each step, 20 each; the same goal gives the same walks."""
        return _walks(self.right.value, self.up.value)

    def score(self, steps: int) -> float:
        """Returns the mean return after so many steps."""
        return float(self.walked[steps].rewards.sum(-1).mean())

    def _draw(self, axes: Axes) -> None:
        walked = self.walked
        for steps, color, width in ((0, CHANCE, 0.6), (self.steps.value, QUERY, 1.1)):
            for path in walked[steps].states[0, :SHOWN]:
                axes.plot(path[:, 0], path[:, 1], color=color, linewidth=width)
        axes.plot([], [], color=CHANCE, label="before adaptation")
        axes.plot([], [], color=QUERY, label=f"after {_steps(self.steps.value)}")
        axes.plot(self.right.value, self.up.value, "k*", markersize=14, label="goal")
        axes.plot(0, 0, "k+", markersize=10)
        axes.set(xlim=(-0.9, 0.9), ylim=(-0.9, 0.9), aspect="equal", title="walks of 20 moves")
        axes.legend(fontsize=7, loc="lower right")

    def words(self) -> str:
        """Returns the state in one sentence."""
        return (
            f"The goal lies at ({self.right.value:.1f}, {self.up.value:.1f}): the mean return is {self.score(0):.1f} before "
            f"adaptation and {self.score(self.steps.value):.1f} after {_steps(self.steps.value)}."
        )

    def _update(self, _: Any = None) -> None:
        self._panel.show(self._draw, f"Walks of a point towards a goal. {self.words()}")
        self._status.value = status(self.words())

    def twin(self) -> tuple[Figure, str]:
        """Returns the walks as a picture, and its words as alt text."""
        return together([self._draw], 4.6, 4.2), f"Walks of a point towards a goal. {self.words()}"


def _steps(count: int) -> str:
    return f"{count} inner step" if count == 1 else f"{count} inner steps"


@cache
def _walks(right: float, up: float) -> list[Trajectories]:
    """Adapts to one goal, step by step, and walks 20 times after each -> MOST + 1 stages."""
    learner, world = shipped(), Navigation(torch.tensor([[right, up]]))
    generator = torch.Generator().manual_seed(3)
    return [walk(world, learner.policy, params, 20, generator) for params in learner.adapt(world, MOST, generator)]
