"""The mean loss of T stacked tasks, one task after the other or all at once by torch.func.vmap, with the same gradient."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from fsl_course.episodes import Episode
from fsl_course.inner_loop.functional import supervised_loss, with_gradient

TaskGradient = tuple[Tensor, tuple[Tensor | None, ...]]


def prefers_vmap(model: nn.Module, device: torch.device) -> bool:
    """Returns True if vmap is both possible and faster: no convolution on a CPU, no LSTM, and no buffers but those of batch norm.

    A small net spends most of its time in Python, which vmap runs once for all tasks. A convolution with different weights for
    each task becomes a grouped convolution, which is slow on a CPU. Time of the loop divided by time of vmap, as lesson 09
    measures it (two cores, one inner step): sine MLP 1.2, 2.5, 10, 23 at 1, 4, 16, 64 tasks; Conv4 of width 32 0.7, 0.6, 0.5
    at 1, 4, 16 tasks.
    """
    own = [b for m in model.modules() if not isinstance(m, _BatchNorm) for b in m.buffers(recurse=False)]
    convolves = any(isinstance(m, _ConvNd) for m in model.modules())
    recurs = any(isinstance(m, nn.RNNBase) for m in model.modules())  # for which PyTorch has no batching rule
    return not own and not recurs and not (convolves and device.type == "cpu")


def tensors_of(episodes: Episode) -> list[Tensor]:
    """Returns the tensors of an episode in the order of its fields, for vmap to map over; unlabelled_x only if it has some.

    Descriptions of the classes are left out: no method with an inner loop reads them.
    """
    names = [f.name for f in fields(episodes) if f.name != "attributes"]
    return [tensor for name in names if (tensor := getattr(episodes, name)) is not None]


def mean_over_tasks(learner: nn.Module, episodes: Episode, at_once: bool | None = None) -> Tensor:
    """Returns the mean of learner.loss over T stacked tasks, a scalar to call backward on.

    at_once: True passes all tasks to learner.forward, which calls the model by vmap; the memory of the graph grows with T. False
             takes one task after the other and keeps its gradient, not its graph, so memory stays flat. None: `prefers_vmap`.
             With batch norm in evaluation mode every task needs a support pass, so they go one after the other in any case
    """
    if at_once is None:
        at_once = prefers_vmap(learner, episodes.query_x.device)
    at_once = at_once and all(m.training for m in learner.modules() if isinstance(m, _BatchNorm))
    return _at_once(learner, episodes) if at_once else _one_by_one(learner, episodes)


def _at_once(learner: nn.Module, episodes: Episode) -> Tensor:
    outputs = learner.forward(episodes)  # not learner(episodes), because its hooks expect single tasks
    return supervised_loss(outputs.flatten(0, 1), episodes.query_y.flatten(0, 1))


def _one_by_one(learner: nn.Module, episodes: Episode) -> Tensor:
    if not torch.is_grad_enabled():
        return torch.stack([learner.loss(episode) for episode in episodes]).mean()
    params = [p for p in learner.parameters() if p.requires_grad]
    total, sums = 0.0, [None] * len(params)
    for loss, gradients in _gradients(learner, episodes):
        sums = [g if s is None else s if g is None else s + g for s, g in zip(sums, gradients, strict=True)]
        total = total + loss
    count = len(episodes)
    return with_gradient(total / count, params, [None if s is None else s / count for s in sums])


def _task_gradient(learner: nn.Module, episode: Episode) -> TaskGradient:
    loss = learner.loss(episode)
    params = [p for p in learner.parameters() if p.requires_grad]
    return loss.detach(), torch.autograd.grad(loss, params, allow_unused=True)


def _gradients(learner: nn.Module, episodes: Episode) -> Iterator[TaskGradient]:
    """Yields loss and gradient of each task, in order. On a CPU, as many tasks run at a time as PyTorch has threads.

    The operations of one task are too small to be divided among threads, so every thread takes whole tasks. It works on its own
    copy of the learner, because functional_call and batch_statistics change the module for the time of a call.
    """
    threads = min(torch.get_num_threads(), len(episodes))
    if threads == 1 or episodes.query_x.device.type != "cpu":
        yield from (_task_gradient(learner, episode) for episode in episodes)
        return
    copies = [deepcopy(learner) for _ in range(threads)]

    def share(first: int) -> list[TaskGradient]:
        return [_task_gradient(copies[first], episodes[task]) for task in range(first, len(episodes), threads)]

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            shares = list(pool.map(share, range(threads)))
    finally:
        torch.set_num_threads(before)  # later threads would start with what a worker has set
    yield from (shares[task % threads][task // threads] for task in range(len(episodes)))
