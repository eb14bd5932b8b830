"""MAML (Finn, Abbeel, Levine 2017): an initialisation from which a few gradient steps on the support solve a new task.

The inner loop is a function of parameters, so the outer gradient passes through it. No model is copied or changed in place.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.episodes._blocks import check_whole
from fsl_course.inner_loop.functional import LossFn, Params, grad, own_copies, predict, support_loss, trainable
from fsl_course.inner_loop.task_batches import mean_over_tasks
from fsl_course.methods.base import FewShotLearner

Rates = float | Tensor | Mapping[str, float | Tensor]


def _step(value: Tensor, rate: float | Tensor, gradient: Tensor) -> Tensor:
    """Returns value - rate * gradient. For a plain number in a single operation, which is faster for many small tensors."""
    return value - rate * gradient if isinstance(rate, Tensor) else torch.add(value, gradient, alpha=-rate)


def adapt(
    loss_fn: Callable[[Params], Tensor],
    params: Params,
    *,
    lr: Rates,
    steps: int,
    first_order: bool = False,
    track: bool = True,
) -> Params:
    """The inner loop (section 2.2): `steps` times theta <- theta - lr * grad loss_fn(theta). Returns new parameters.

    loss_fn:     params -> scalar, usually the mean loss on the support: a sum would multiply lr by the number of rows
    params:      name -> tensor of any shape; never written to
    lr:          one rate, or a dict with a rate for each name (a number, or a tensor that broadcasts to the parameter)
    first_order: takes each gradient as a constant: the result stays differentiable in params, through theta - lr * constant
    track:       False keeps no graph at all, for evaluation; nor does a surrounding torch.no_grad()

    Otherwise the result is differentiable in params, in lr and in what loss_fn captures, as often as you like.
    """
    if not isinstance(params, Mapping):
        raise TypeError(
            f"params must be a dict name -> tensor, e.g. dict(net.named_parameters()); got {type(params).__name__}."
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps must be a whole number of at least 0; got {steps!r}.")
    rates = lr if isinstance(lr, Mapping) else dict.fromkeys(params, lr)
    if set(rates) != set(params):
        raise ValueError(f"lr needs a rate for each parameter and no other; {sorted(set(rates) ^ set(params))} differ.")

    def scalar_loss(theta: Params) -> Tensor:
        loss = loss_fn(theta)
        if loss.dim():
            raise ValueError(
                f"loss_fn must return a scalar; got shape {list(loss.shape)}. Take the mean over the rows."
            )
        return loss

    theta = dict(params)
    with nullcontext() if track else torch.no_grad():
        for _ in range(steps):
            with torch.no_grad() if first_order else nullcontext():
                gradients = grad(scalar_loss)(theta)
            theta = {name: _step(value, rates[name], gradients[name]) for name, value in theta.items()}
    return theta if track else {name: value.detach() for name, value in theta.items()}


def adapt_model(model: nn.Module, episode: Episode, *, lr: Rates, steps: int, first_order: bool = False) -> Params:
    """Returns the model's trainable parameters after the inner loop on one task's support; [T, ...] for T stacked tasks.

    Keeps a graph where gradients are enabled.
    """
    params = trainable(model)
    params = own_copies(params, len(episode)) if episode.stacked else params
    loss, track = support_loss(model, episode), torch.is_grad_enabled()
    return adapt(loss, params, lr=lr, steps=steps, first_order=first_order, track=track)


def meta_loss(
    model: nn.Module,
    params: Params,
    episode: Episode,
    *,
    lr: Rates,
    steps: int,
    first_order: bool = False,
    loss_fn: LossFn = F.cross_entropy,
) -> Tensor:
    """The outer objective of one task (section 2.2, equation 1): the query loss after the inner loop on the support, a scalar.

    Its gradient with respect to params is MAML's: for one step (I - lr H) grad L_query(theta'), H the Hessian of L_support.
    loss_fn: (outputs, targets) -> scalar mean; regression tasks need F.mse_loss.
    """
    if loss_fn is F.cross_entropy and episode.query_y.is_floating_point():
        raise ValueError("these are regression targets: take loss_fn=F.mse_loss.")
    adapted = adapt(support_loss(model, episode, loss_fn), params, lr=lr, steps=steps, first_order=first_order)
    return loss_fn(predict(model, adapted, episode), episode.query_y)


class MAML(FewShotLearner):
    """Learns the initialisation of a model (algorithms 1 and 2). With first_order=True: FOMAML (section 5.2).

    model:      [B, ...] -> [B, N]; for pictures classifier(conv4(), n_way). Any nn.Module without active dropout
    lr, steps:  inner rate (of a mean loss) and number of inner steps
    test_steps: inner steps in evaluation mode, where they differ
    vmap:       tasks of a batch all at once (True), one after the other (False), or the faster way (None): see task_batches

    Regression tasks use the mean squared error in both loops. A trained head is bound to its slots, so relabelling a task
    changes more than the order of the logits.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        steps: int,
        first_order: bool = False,
        *,
        test_steps: int | None = None,
        vmap: bool | None = None,
    ) -> None:
        super().__init__()
        check_whole(0, steps=steps, test_steps=test_steps or 0)
        self.model, self.lr, self.steps, self.first_order = model, lr, steps, first_order
        self.test_steps, self.vmap = test_steps, vmap

    def adapted(self, episode: Episode) -> Params:
        """Returns the model's parameters after the inner loop on this task's support, with a graph if gradients are enabled."""
        steps = self.steps if self.training or self.test_steps is None else self.test_steps
        return adapt_model(self.model, episode, lr=self.lr, steps=steps, first_order=self.first_order)

    def forward(self, episode: Episode) -> Tensor:
        """One task -> logits [N*Q, N], regression: predictions [Q, d_out]. T stacked tasks: a leading axis [T]."""
        return predict(self.model, self.adapted(episode), episode)

    def training_step(self, episodes: Episode) -> Tensor:
        """T stacked tasks -> mean query loss after adaptation, a scalar with the meta-gradient."""
        return mean_over_tasks(self, episodes, self.vmap)
