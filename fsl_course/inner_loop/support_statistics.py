"""Batch norm in learners that adapt: queries normalised by the statistics of the support, so that each is judged on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active as transforms_active
from torch.nn.modules.batchnorm import _BatchNorm

Statistics = list[
    tuple[Tensor, Tensor]
]  # mean [c] and variance [c] of every call of a batch norm, in the order of the calls


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every channel, as batch norm itself divides by. x [B, c, ...] -> [c], [c]."""
    if x.device.type == "cpu" and not torch.is_grad_enabled() and not transforms_active():
        return torch.batch_norm_update_stats(x, None, None, 0.0)  # batch norm's own pass: var takes ten times as long
    over = [d for d in range(x.dim()) if d != 1]
    return x.mean(over), x.var(over, correction=0)


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norm uses the statistics of the batch and leaves its running ones alone, for the time of the block."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    before = [(m.training, m.track_running_stats) for m in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, (training, tracks) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracks


@contextmanager
def _recorded(model: nn.Module) -> Iterator[Statistics]:
    """Collects the statistics of all that batch norm sees in the block."""
    found: Statistics = []

    def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        found.append(_moments(args[0]))

    with ExitStack() as hooks, batch_statistics(model):
        for norm in _norms(model):
            hooks.callback(norm.register_forward_pre_hook(record).remove)
        yield found


def _normalise(norm: Any, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    shape = [1, -1] + [1] * (x.dim() - 2)
    return _scaled(norm, (x - mean.view(shape)) * (variance.view(shape) + norm.eps).rsqrt())


def _scaled(norm: Any, z: Tensor) -> Tensor:
    """z * weight + bias by channel, where the layer has them."""
    shape = [1, -1] + [1] * (z.dim() - 2)
    z = z if norm.weight is None else z * norm.weight.view(shape)
    return z if norm.bias is None else z + norm.bias.view(shape)


@contextmanager
def replaced(modules: list[Any], forward: Callable[..., Tensor]) -> Iterator[None]:
    """module(x, ...) is forward(module, x, ...) in the block."""
    before = [(module, module.__dict__.get("forward")) for module in modules]
    try:
        for module in modules:
            module.forward = partial(forward, module)
        yield
    finally:
        for module, own in before:
            del module.forward
            if own is not None:
                module.forward = own


@contextmanager
def _normalised_by(model: nn.Module, statistics: Statistics) -> Iterator[None]:
    """Batch norm divides by these statistics, taken in order, instead of its running ones. Gradients flow through them."""
    remaining = iter(statistics)
    # in place of its forward, which without running statistics refuses a single query
    with replaced(_norms(model), lambda norm, x: _normalise(norm, x, *next(remaining))):
        yield


@contextmanager
def norms_for_vmap(model: nn.Module) -> Iterator[None]:
    """Batch norm of batch statistics and group norm written out, for the block.

    PyTorch's own batch norm gives wrong second derivatives under vmap, without a word: there its mean and deviation count as
    constants in the backward pass. Its group norm refuses channels-last pictures there.
    """

    def batch_norm(norm: Any, x: Tensor) -> Tensor:
        if not norm.training and norm.running_mean is not None:
            return type(norm).forward(norm, x)
        return _normalise(norm, x, *_moments(x))

    def group_norm(norm: Any, x: Tensor) -> Tensor:
        groups = x.reshape(len(x), norm.num_groups, -1)
        mean, variance = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, correction=0)
        return _scaled(norm, ((groups - mean) * (variance + norm.eps).rsqrt()).view(x.shape))

    groups = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    with replaced(_norms(model), batch_norm), replaced(groups, group_norm):
        yield


@contextmanager
def query_statistics(model: nn.Module, support_pass: Callable[[], Any]) -> Iterator[None]:
    """How batch norm normalises the queries in the block.

    In evaluation mode (inductive): by the statistics that it meets in support_pass(), which must call the model as the block
    does. In training mode, or under `batch_statistics` (transductive): by those of the queries themselves. Running statistics
    are neither used nor moved.
    """
    if all(norm.training for norm in _norms(model)):
        with batch_statistics(model):
            yield
        return
    with _recorded(model) as statistics:
        support_pass()
    with _normalised_by(model, statistics):
        yield
