"""Layers of a picture net whose second derivative costs less than PyTorch's and is the same number.

MAML differentiates through the gradient of every inner step. PyTorch makes that second derivative of batch norm of some 40 passes
over the maps, leaves pooling in another memory order, which slows down what follows, and convolves for the gradient of the
pictures, which nobody asks for. Here each takes what its formula needs and keeps channels last.
Third derivatives are right as well (PyTorch's own of batch norm are not), and slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active as transforms_active
from torch.autograd import Function

from fsl_course.inner_loop.support_statistics import replaced

Grads = tuple[Tensor | None, ...]
# All keep what they need in `forward`: torch's newer way, a method setup_context, inspects the signature at every call.


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """z * weight + bias, z = (x - mean) r, r = 1 / sqrt(variance + eps), with mean and biased variance of every channel of x.

    x: float [B, c, ...]; weight, bias: [c], all of one dtype -> like x.
    """
    return _BatchNorm.apply(x, weight, bias, eps)


def _norm_gradients(
    gy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, wanted: tuple[bool, bool, bool] = (True, True, True)
) -> tuple[Tensor, Tensor, Tensor]:
    """By PyTorch's kernel. Of x: weight r P(gy), P(a) = a - mean a - z mean(a z). Of weight: sum gy z. Of bias: sum gy."""
    return torch.ops.aten.native_batch_norm_backward(gy, x, weight, None, None, mean, r, True, 0.0, wanted)


class _BatchNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, mean, r = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, r)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Grads:
        return *_BatchNormBackward.apply(gy, *ctx.saved_tensors, ctx.eps), None


class _BatchNormBackward(Function):
    """_norm_gradients as a function of gy, x and weight; that mean and r depend on x is in its own gradient."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, eps: float) -> Grads:
        ctx.eps = eps
        gx, gw, gb = _norm_gradients(gy, x, weight, mean, r)
        ctx.save_for_backward(gy, x, weight, mean, r, gw, gb)
        return gx, gw, gb

    @staticmethod
    def backward(ctx: Any, v: Tensor, u: Tensor, t: Tensor) -> Grads:
        """Gradients of <v, gx> + <u, gw> + <t, gb>, where <v, gx> = weight r <v, P(gy)> and P is symmetric."""
        gy, x, weight, mean, r, gw, gb = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated once more: mean and r are constants below
            return *_plain_second_derivative(gy, x, weight, ctx.eps, (v, u, t)), None, None, None
        count, ones = x.numel() // x.shape[1], torch.ones_like(r)
        r_pv, v_z, v_sum = _norm_gradients(v, x, ones, mean, r)  # r P(v), sum v z, sum v
        _, v_gy, _ = _norm_gradients(gy, v, ones, torch.zeros_like(r), ones, (False, True, False))  # sum v gy
        v_pgy = v_gy - (v_sum * gb + v_z * gw) / count  # sum v P(gy): what weight and r are multiplied by
        w_r, mean_gyz, u_r = weight * r, gw / count, u * r
        # x takes part in both P(v) and P(gy) through z, with dz/dx = r P, and in r, with dr/dx = -r^2 z / count
        of_gy = u_r - w_r * r * v_z / count
        of_x = r * (of_gy * mean_gyz + w_r * r * v_pgy / count)

        def by_channel(a: Tensor) -> Tensor:
            return a.view(1, -1, *[1] * (x.dim() - 2))

        to_x = torch.addcmul(by_channel(of_x * mean - of_gy * gb / count), x, by_channel(of_x), value=-1)
        to_x.addcmul_(r_pv, by_channel(w_r * mean_gyz), value=-1).addcmul_(gy, by_channel(of_gy))
        to_gy = torch.addcmul(by_channel(t - u_r * mean), x, by_channel(u_r)).addcmul_(r_pv, by_channel(weight))
        return to_gy, to_x, r * v_pgy, None, None, None


def _plain_second_derivative(gy: Tensor, x: Tensor, weight: Tensor, eps: float, along: tuple[Tensor, ...]) -> Grads:
    """What _BatchNormBackward.backward gives, by autograd through plain operations: differentiable as often as you like."""
    # views: the history that the three share is not part of this derivative
    gy, x, weight = (a.view_as(a) if a.requires_grad else a.detach().requires_grad_() for a in (gy, x, weight))
    bias = torch.zeros_like(weight).requires_grad_()
    variance, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=0, keepdim=True)
    shape = mean.shape
    y = (x - mean) * (variance + eps).rsqrt() * weight.view(shape) + bias.view(shape)
    first = torch.autograd.grad(y, (x, weight, bias), gy, create_graph=True)
    return torch.autograd.grad(first, (gy, x, weight), along, create_graph=True)


def convolution(x: Tensor, weight: Tensor, *how: Any) -> Tensor:
    """F.conv2d(x, weight, None, *how) with how = stride, padding, dilation, groups: pairs of numbers, and a number."""
    return _Convolution.apply(x, weight, how)


def _conv_gradients(gy: Tensor, x: Tensor, weight: Tensor, how: tuple, of_x: bool, of_weight: bool) -> Grads:
    *geometry, groups = how
    return torch.ops.aten.convolution_backward(
        gy, x, weight, None, *geometry, False, [0, 0], groups, [of_x, of_weight, False]
    )[:2]


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, how: tuple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return F.conv2d(x, weight, None, *how)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Grads:
        return *_ConvolutionBackward.apply(gy, *ctx.saved_tensors, ctx.how, *ctx.needs_input_grad[:2]), None


class _ConvolutionBackward(Function):
    """_conv_gradients as a function of gy, x and weight: linear in each, so its own gradients are convolutions again."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, weight: Tensor, how: tuple, of_x: bool, of_weight: bool) -> Grads:
        ctx.save_for_backward(gy, x, weight)
        ctx.how = how
        ctx.set_materialize_grads(False)
        return _conv_gradients(gy, x, weight, how, of_x, of_weight)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, u: Tensor | None) -> Grads:
        """Gradients of <v, gx> + <u, gw> = <gy, conv(v, weight) + conv(x, u)>."""
        gy, x, weight = ctx.saved_tensors
        parts = [F.conv2d(a, b, None, *ctx.how) for a, b in ((v, weight), (x, u)) if a is not None and b is not None]
        to_x = to_weight = None
        if u is not None and ctx.needs_input_grad[1]:
            to_x, _ = _conv_gradients(gy, x, u, ctx.how, True, False)
        if v is not None and ctx.needs_input_grad[2]:
            _, to_weight = _conv_gradients(gy, v, weight, ctx.how, False, True)
        return sum(parts[1:], parts[0]) if parts else None, to_x, to_weight, None, None, None


def max_pool(x: Tensor, *how: Any) -> Tensor:
    """F.max_pool2d(x, *how) with how = kernel, stride, padding, dilation, ceil_mode."""
    return _MaxPool.apply(x, how)


class _MaxPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, how: tuple) -> Tensor:
        y, places = F.max_pool2d(x, *how, return_indices=True)
        ctx.save_for_backward(x, places)
        ctx.how = how
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Grads:
        return _MaxPoolBackward.apply(gy, *ctx.saved_tensors, ctx.how), None


class _MaxPoolBackward(Function):
    """Puts every gradient to the place of its maximum; its own gradient fetches them from there."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, places: Tensor, how: tuple) -> Tensor:
        ctx.save_for_backward(places)
        return torch.ops.aten.max_pool2d_with_indices_backward(gy, x, *how, places)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Grads:
        (places,) = ctx.saved_tensors
        if places.is_contiguous():
            found = v.flatten(2).gather(2, places.flatten(2)).view_as(places)
        else:  # channels last
            last = places.permute(0, 2, 3, 1)
            found = v.permute(0, 2, 3, 1).flatten(1, 2).gather(1, last.flatten(1, 2)).view_as(last).permute(0, 3, 1, 2)
        return found, None, None, None


def _norm_forward(norm: Any, x: Tensor) -> Tensor:
    own_statistics = norm.training and not norm.track_running_stats and x.numel() > norm.num_features
    if not own_statistics or norm.weight is None or norm.bias is None or x.dtype != norm.weight.dtype:
        return type(norm).forward(norm, x)
    norm._check_input_dim(x)
    return batch_norm(x, norm.weight, norm.bias, norm.eps)


def _convolution_forward(layer: Any, x: Tensor) -> Tensor:
    if layer.bias is not None or layer.padding_mode != "zeros" or isinstance(layer.padding, str) or x.dim() != 4:
        return type(layer).forward(layer, x)
    return convolution(x, layer.weight, layer.stride, layer.padding, layer.dilation, layer.groups)


def _pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _max_pool_forward(layer: Any, x: Tensor) -> Tensor:
    if layer.return_indices or x.dim() != 4:
        return type(layer).forward(layer, x)
    sizes = (_pair(size) for size in (layer.kernel_size, layer.stride, layer.padding, layer.dilation))
    return max_pool(x, *sizes, layer.ceil_mode)


_FORWARDS = {
    nn.BatchNorm1d: _norm_forward,
    nn.BatchNorm2d: _norm_forward,
    nn.BatchNorm3d: _norm_forward,
    nn.Conv2d: _convolution_forward,
    nn.MaxPool2d: _max_pool_forward,
}


def _forward(layer: Any, x: Tensor) -> Tensor:
    """The layer by its function here: on a CPU, where that is measured to be faster, outside of torch.func's transforms and of
    autocast, which would change the type of what the layer computes but not of what its backward pass has kept.
    """
    if x.device.type != "cpu" or transforms_active() or torch.is_autocast_enabled("cpu"):
        return type(layer).forward(layer, x)
    return _FORWARDS[type(layer)](layer, x)


@contextmanager
def cheap_second_derivatives(model: nn.Module) -> Iterator[None]:
    """The layers of the model by the functions of this file, for the block. One that does more than they can stays as it is."""
    # and so does one that a surrounding block has replaced already
    with replaced([m for m in model.modules() if type(m) in _FORWARDS and "forward" not in vars(m)], _forward):
        yield
