"""The path of one start through the inner loop, step by step, for the stepper of lesson 07."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.inner_loop.functional import Params
from fsl_course.methods.maml import adapt, predict, support_loss

RUNAWAY = 1e6  # a loss above this counts as diverged and is not drawn


@dataclass
class Path:
    """The path of one start. params: after the last step; the lists hold one number for each step, from step 0 on."""

    model: nn.Module
    params: Params
    support: list[float] = field(default_factory=list)  # support loss
    query: list[float] = field(default_factory=list)  # sine: squared error; glyphs: accuracy
    slice: Tensor | None = None  # cache of `InnerLoopStepper.slice` for these params

    @property
    def diverged(self) -> bool:
        """True if the last support loss is NaN or above RUNAWAY, so that no further step makes sense."""
        return not self.support[-1] <= RUNAWAY  # also True for NaN

    def step(self, task: Episode, rate: float) -> None:
        """Takes one inner step and measures the losses after it."""
        params = adapt(support_loss(self.model, task), self.params, lr=rate, steps=1, track=False)
        self.params, self.slice = self.laid_out(params), None
        self.measure(task)

    def laid_out(self, params: Params) -> Params:
        """Returns the same numbers in the memory layout of the model's own parameters.

        A sum loses the layout of filters with a single input channel, and then the whole Conv4 takes half as long again.
        """
        own = dict(self.model.named_parameters())
        return {
            name: p if p.stride() == own[name].stride() else torch.empty_like(own[name]).copy_(p)
            for name, p in params.items()
        }

    def measure(self, task: Episode) -> None:
        """Appends the support loss and the query error or accuracy at `params`."""
        with torch.no_grad():
            self.support.append(float(support_loss(self.model, task)(self.params)))
            outputs = predict(self.model, self.params, task)
        if task.query_y.is_floating_point():
            self.query.append(float(F.mse_loss(outputs, task.query_y)))
        else:
            self.query.append(float((outputs.argmax(1) == task.query_y).double().mean()))
