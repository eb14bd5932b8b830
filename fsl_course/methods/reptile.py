"""Reptile (Nichol, Achiam, Schulman 2018): moves the initialisation towards the weights after training on a task."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import vmap

from fsl_course.episodes import Episode
from fsl_course.episodes._blocks import check_whole
from fsl_course.inner_loop.functional import Params, predict, supervised_loss, support_loss, trainable, with_gradient
from fsl_course.inner_loop.support_statistics import norms_for_vmap
from fsl_course.inner_loop.task_batches import prefers_vmap, tensors_of
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import adapt


class Reptile(FewShotLearner):
    """theta <- theta + epsilon * mean of (theta_task - theta) (section 3, equation 5): no queries or second derivative.

    theta - theta_task takes the place of a gradient (section 3). `fit` passes it to Adam, as the authors suggest; an SGD step of
    rate epsilon is the algorithm exactly. tasks=1 in `fit` is the serial version, more tasks are the batched one.

    model:      as for MAML
    lr, steps:  rate and number of inner steps (plain SGD; the authors' experiments use Adam without momentum)
    batch:      support rows in an inner step of training, taken in turn; None: all of them. With different rows in each step
                the displacement also rewards gradients that agree (section 5)
    test_steps: inner steps in evaluation mode, on all support rows
    vmap:       as for MAML
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        steps: int,
        *,
        batch: int | None = None,
        test_steps: int | None = None,
        vmap: bool | None = None,
    ) -> None:
        super().__init__()
        check_whole(0, steps=steps, test_steps=test_steps or 0)
        if batch is not None and batch < 1:
            raise ValueError(f"batch must be at least 1 support row, or None for all; got {batch}.")
        self.model, self.lr, self.steps = model, lr, steps
        self.batch, self.test_steps, self.vmap = batch, test_steps, vmap

    def _rows(self, step: int, episode: Episode) -> Episode:
        """Returns the support rows of one inner step, taken in turn, as the rows of an episode are in random order."""
        count = len(episode.support_x)
        rows = (torch.arange(min(self.batch or count, count)) + step * (self.batch or 0)) % count
        rows = rows.to(episode.support_y.device)
        return replace(episode, support_x=episode.support_x[rows], support_y=episode.support_y[rows])

    def adapted(self, episode: Episode) -> Params:
        """Returns the model's parameters after training on this task's support, without a graph."""
        steps = self.steps if self.training or self.test_steps is None else self.test_steps
        if not self.training or self.batch is None:
            return adapt(support_loss(self.model, episode), trainable(self.model), lr=self.lr, steps=steps, track=False)
        params = trainable(self.model)
        for step in range(steps):
            loss = support_loss(self.model, self._rows(step, episode))
            params = adapt(loss, params, lr=self.lr, steps=1, track=False)
        return params

    def training_step(self, episodes: Episode) -> Tensor:
        """T stacked tasks -> a scalar whose gradient is the mean of theta - theta_task.

        Its value, for the training curve, is the mean query loss of the adapted weights, which has no part in the gradient.
        """
        at_once = prefers_vmap(self.model, episodes.query_x.device) if self.vmap is None else self.vmap
        params = trainable(self.model)

        def displacement(*tensors: Tensor) -> tuple[Tensor, Params]:
            episode = Episode(*tensors)
            adapted = self.adapted(episode)
            loss = supervised_loss(predict(self.model, adapted, episode), episode.query_y)
            return loss, {name: params[name] - value for name, value in adapted.items()}

        with torch.no_grad():
            if at_once:
                with norms_for_vmap(self.model):
                    losses, moved = vmap(displacement)(*tensors_of(episodes))
                mean_loss, mean = losses.mean(), {name: value.mean(0) for name, value in moved.items()}
            else:  # one after the other, keeping only the running mean
                mean_loss, mean = torch.zeros((), device=episodes.query_x.device), dict.fromkeys(params, 0.0)
                for episode in episodes:
                    loss, moved = displacement(*tensors_of(episode))
                    mean_loss = mean_loss + loss / len(episodes)
                    mean = {name: mean[name] + moved[name] / len(episodes) for name in params}
        return with_gradient(mean_loss, params.values(), (mean[name] for name in params))
