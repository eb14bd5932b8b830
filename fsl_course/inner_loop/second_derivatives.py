"""Batch norm, convolution and pooling with cheaper second derivatives than PyTorch's, and the same numbers.

MAML differentiates through the gradient of every inner step. In that second derivative PyTorch makes some 40 passes over the
feature maps for batch norm, leaves the output of pooling in another memory order, which slows down what follows, and computes
the gradient of the pictures, which is never used. The functions here compute only what the formulas need, and keep channels
last. Third derivatives are correct too (PyTorch's own of batch norm are not), but slow. All this was measured with PyTorch 2.13.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active as transforms_active
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.utils import _pair

from fsl_course.inner_loop.instead import Instead

Grads = tuple[Tensor | None, ...]
# All save their tensors in `forward`, because setup_context, torch's newer way, inspects the signature at every call.


def _norm_gradients(
    gy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, wanted: tuple[bool, bool, bool] = (True, True, True)
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of x, weight and bias for the gradient gy of the output, by PyTorch's kernel.

    Of x: weight r P(gy), with P(a) = a - mean a - z mean(a z). Of weight: sum gy z. Of bias: sum gy.
    """
    return torch.ops.aten.native_batch_norm_backward(gy, x, weight, None, None, mean, r, True, 0.0, wanted)


class BatchNorm(Function):
    """z * weight + bias, z = (x - mean) r, r = 1 / sqrt(variance + eps), by mean and biased variance of each channel.

    x: float [B, c, ...]; weight, bias: [c], all of one dtype -> like x
    """

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
    """_norm_gradients as a function of gy, x and weight. Its own gradient includes that mean and r depend on x."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, eps: float) -> Grads:
        ctx.eps = eps
        gx, gw, gb = _norm_gradients(gy, x, weight, mean, r)
        ctx.save_for_backward(gy, x, weight, mean, r, gw, gb)
        return gx, gw, gb

    @staticmethod
    def backward(ctx: Any, v: Tensor, u: Tensor, t: Tensor) -> Grads:
        """Returns the gradients of <v, gx> + <u, gw> + <t, gb>, where <v, gx> = weight r <v, P(gy)> and P is symmetric."""
        gy, x, weight, mean, r, gw, gb = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a third derivative: the formulas below take mean and r as constants
            return *_plain_second_derivative(gy, x, weight, ctx.eps, (v, u, t)), None, None, None
        count, ones = x.numel() // x.shape[1], torch.ones_like(r)
        r_pv, v_z, v_sum = _norm_gradients(v, x, ones, mean, r)  # r P(v), sum v z, sum v
        _, v_gy, _ = _norm_gradients(gy, v, ones, torch.zeros_like(r), ones, (False, True, False))  # sum v gy
        v_pgy = v_gy - (v_sum * gb + v_z * gw) / count  # sum v P(gy), the factor of weight and r
        w_r, mean_gyz, u_r = weight * r, gw / count, u * r
        # <v, P(gy)> depends on x through z, with dz/dx = r P, and r does too, with dr/dx = -r^2 z / count
        of_gy = u_r - w_r * r * v_z / count
        of_x = r * (of_gy * mean_gyz + w_r * r * v_pgy / count)

        def by_channel(a: Tensor) -> Tensor:
            return a.view(1, -1, *[1] * (x.dim() - 2))

        to_x = torch.addcmul(by_channel(of_x * mean - of_gy * gb / count), x, by_channel(of_x), value=-1)
        to_x.addcmul_(r_pv, by_channel(w_r * mean_gyz), value=-1).addcmul_(gy, by_channel(of_gy))
        to_gy = torch.addcmul(by_channel(t - u_r * mean), x, by_channel(u_r)).addcmul_(r_pv, by_channel(weight))
        return to_gy, to_x, r * v_pgy, None, None, None


def _plain_second_derivative(gy: Tensor, x: Tensor, weight: Tensor, eps: float, along: tuple[Tensor, ...]) -> Grads:
    """Computes what _BatchNormBackward.backward returns by autograd through plain operations, differentiable without limit."""
    # views, because the history that the three share is not part of this derivative
    gy, x, weight = (a.view_as(a) if a.requires_grad else a.detach().requires_grad_() for a in (gy, x, weight))
    bias = torch.zeros_like(weight).requires_grad_()
    variance, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=0, keepdim=True)
    shape = mean.shape
    y = (x - mean) * (variance + eps).rsqrt() * weight.view(shape) + bias.view(shape)
    first = torch.autograd.grad(y, (x, weight, bias), gy, create_graph=True)
    return torch.autograd.grad(first, (gy, x, weight), along, create_graph=True)


def _conv_gradients(gy: Tensor, x: Tensor, weight: Tensor, how: tuple, of_x: bool, of_weight: bool) -> Grads:
    *geometry, groups = how
    return torch.ops.aten.convolution_backward(
        gy, x, weight, None, *geometry, False, [0, 0], groups, [of_x, of_weight, False]
    )[:2]


class Convolution(Function):
    """F.conv2d(x, weight, None, *how). how: stride, padding, dilation (pairs of numbers) and groups (a number)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, how: tuple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return F.conv2d(x, weight, None, *how)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Grads:
        return *_ConvolutionBackward.apply(gy, *ctx.saved_tensors, ctx.how, *ctx.needs_input_grad[:2]), None


class _ConvolutionBackward(Function):
    """_conv_gradients as a function of gy, x and weight. It is linear in each, so its own gradients are convolutions again."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, weight: Tensor, how: tuple, of_x: bool, of_weight: bool) -> Grads:
        ctx.save_for_backward(gy, x, weight)
        ctx.how = how
        ctx.set_materialize_grads(False)
        return _conv_gradients(gy, x, weight, how, of_x, of_weight)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, u: Tensor | None) -> Grads:
        """Returns the gradients of <v, gx> + <u, gw> = <gy, conv(v, weight) + conv(x, u)>."""
        gy, x, weight = ctx.saved_tensors
        parts = [F.conv2d(a, b, None, *ctx.how) for a, b in ((v, weight), (x, u)) if a is not None and b is not None]
        to_x = to_weight = None
        if u is not None and ctx.needs_input_grad[1]:
            to_x, _ = _conv_gradients(gy, x, u, ctx.how, True, False)
        if v is not None and ctx.needs_input_grad[2]:
            _, to_weight = _conv_gradients(gy, v, weight, ctx.how, False, True)
        return sum(parts[1:], parts[0]) if parts else None, to_x, to_weight, None, None, None


class MaxPool(Function):
    """F.max_pool2d(x, *how). how: kernel, stride, padding, dilation (pairs of numbers) and ceil_mode."""

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
    """Moves every gradient to the position of its maximum; its own gradient gathers from these positions."""

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


def _not_ours(x: Tensor) -> bool:
    """Returns True where PyTorch's own function must run, or is not known to be slower.

    Measured on a CPU only. torch.func's transforms need functions with rules of their own. Autocast would change the dtype of
    what a layer computes, but not of what its backward pass has kept.
    """
    return x.device.type != "cpu" or transforms_active() or torch.is_autocast_enabled("cpu")


# The arguments of the next three are those of PyTorch's functions.


def _batch_norm(x, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5) -> Tensor:
    of_the_batch = training and mean is None and x.numel() > x.shape[1]
    if _not_ours(x) or not of_the_batch or weight is None or bias is None or x.dtype != weight.dtype:
        return F.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
    return BatchNorm.apply(x, weight, bias, eps)


def _conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    if _not_ours(x) or bias is not None or isinstance(padding, str) or x.dim() != 4:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return Convolution.apply(x, weight, (_pair(stride), _pair(padding), _pair(dilation), groups))


def _max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False) -> Tensor:
    if _not_ours(x) or x.dim() != 4:
        return F.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    pairs = (_pair(each) for each in (kernel_size, kernel_size if stride is None else stride, padding, dilation))
    return MaxPool.apply(x, (*pairs, ceil_mode))


def cheap_second_derivatives(model: nn.Module) -> AbstractContextManager:
    """Calls the functions of this file in place of PyTorch's, for the time of the block; PyTorch's where ours cannot do it.

    A model without such layers, e.g. a plain MLP, is left alone, because every small operation would take longer.
    """
    if not any(isinstance(module, (_BatchNorm, nn.Conv2d, nn.MaxPool2d)) for module in model.modules()):
        return nullcontext()
    return Instead({F.batch_norm: _batch_norm, F.conv2d: _conv2d, F.max_pool2d: _max_pool2d})
