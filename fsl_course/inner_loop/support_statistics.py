"""Batch norm in learners that adapt: queries are normalised by the statistics of the support, so each is judged on its own."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active as transforms_active
from torch.nn.modules.batchnorm import _BatchNorm

from fsl_course.inner_loop.instead import Instead


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Makes batch norm use the statistics of the batch and leave its running ones alone, for the time of the block."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, (training, tracks) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracks


@contextmanager
def query_statistics(model: nn.Module, support_pass: Callable[[], Any]) -> Iterator[None]:
    """Decides how batch norm normalises the queries in the block. Running statistics are neither used nor moved.

    In evaluation mode (inductive): by the statistics that it computes in support_pass(), which must call the model as the block
    does; gradients flow through them. In training mode, or under `batch_statistics` (transductive): by the queries' own.
    """
    inductive = any(isinstance(module, _BatchNorm) and not module.training for module in model.modules())
    with batch_statistics(model):
        if not inductive:
            yield
            return
        moments: list[tuple[Tensor, Tensor]] = []  # one entry for each call of a batch norm, in the order of the calls

        def record(x: Tensor, *args: Any, **options: Any) -> Tensor:
            moments.append(_moments(x))
            return F.batch_norm(x, *args, **options)

        with Instead({F.batch_norm: record}):
            support_pass()
        recorded = iter(moments)

        def by_support(x, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5) -> Tensor:
            return _normalise(x, *next(recorded), weight, bias, eps)

        with Instead({F.batch_norm: by_support}):
            yield


def norms_for_vmap(model: nn.Module) -> AbstractContextManager:
    """Computes batch norm (of batch statistics) and group norm by plain operations, for the time of the block.

    PyTorch's own batch norm silently gives wrong second derivatives under vmap, because its backward pass then treats mean and
    deviation as constants. Its group norm refuses channels-last pictures there.
    """
    norms = any(isinstance(module, (_BatchNorm, nn.GroupNorm)) for module in model.modules())
    return Instead({F.batch_norm: _batch_norm, F.group_norm: _group_norm}) if norms else nullcontext()


def _batch_norm(x, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5) -> Tensor:
    """Computes F.batch_norm without moving the running statistics."""
    if not training:
        return F.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
    return _normalise(x, *_moments(x), weight, bias, eps)


def _group_norm(x, num_groups, weight=None, bias=None, eps=1e-5) -> Tensor:
    """Computes F.group_norm."""
    groups = x.reshape(len(x), num_groups, -1)
    mean, variance = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, correction=0)
    return _scale(((groups - mean) * (variance + eps).rsqrt()).view(x.shape), weight, bias)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and biased variance of every channel, as batch norm itself divides by. x [B, c, ...] -> [c], [c]."""
    if x.device.type == "cpu" and not torch.is_grad_enabled() and not transforms_active():
        return torch.batch_norm_update_stats(x, None, None, 0.0)  # batch norm's own pass: var takes ten times as long
    over = [d for d in range(x.dim()) if d != 1]
    return x.mean(over), x.var(over, correction=0)


def _normalise(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    shape = [1, -1] + [1] * (x.dim() - 2)
    return _scale((x - mean.view(shape)) * (variance.view(shape) + eps).rsqrt(), weight, bias)


def _scale(z: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Returns z * weight + bias by channel; None leaves either out."""
    shape = [1, -1] + [1] * (z.dim() - 2)
    z = z if weight is None else z * weight.view(shape)
    return z if bias is None else z + bias.view(shape)
