"""Exercises of lesson 23: FiLM, statistics of another domain, steps chosen without the test, a frozen encoder that moves, and a
residual adapter.

Cases: every exercise builds its own. The detector 23.4 gets a function that fits something beside an encoder, and must return
True for those that change the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ---------------------------------------------------------------------------------------------- 23.1 FiLM


def film(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Returns (1 + scale) * maps + shift, channel by channel. [B, c, H, W], [c], [c] -> [B, c, H, W]."""
    return maps * (1 + scale[:, None, None]) + shift[:, None, None]


def _film_by_einsum(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.einsum("bchw,c->bchw", maps, 1 + scale) + shift.view(1, -1, 1, 1)


def _film_by_channels(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.stack([(1 + scale[k]) * maps[:, k] + shift[k] for k in range(len(scale))], dim=1)


def _film_channels_last(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return (maps.movedim(1, -1) * (scale + 1) + shift).movedim(-1, 1)


def _film_by_addcmul(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    a, b = (t.reshape(1, -1, 1, 1).expand_as(maps) for t in (scale, shift))
    return torch.addcmul(maps + b, a, maps)


def _film_by_convolution(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.conv2d(maps, torch.diag(1 + scale)[:, :, None, None], shift)


def _film_on_pictures(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    out = maps.clone()
    for k in range(maps.shape[1]):
        out[k] = (1 + scale[k]) * maps[k] + shift[k]
    return out


def _each(v: Tensor) -> Tensor:
    return v[:, None, None]


def _film_cases(generator: Generator) -> list[Case]:
    def case(says: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Case:
        maps = torch.randn(shape, generator=generator, dtype=dtype)
        scale, shift = (torch.randn(shape[1], generator=generator, dtype=dtype) for _ in range(2))
        return Case(says, (maps, scale, shift))

    paper = torch.tensor([[[[1.0, -2.0]], [[3.0, 0.0]]]]), torch.tensor([0.5, -1.0]), torch.tensor([0.0, 4.0])
    return [
        Case("the example on paper", paper),
        case("4 pictures, 3 channels, maps of 5 by 5", (4, 3, 5, 5)),
        case("maps as wide as there are channels", (2, 3, 3, 3)),
        case("one picture", (1, 4, 2, 3)),
        Case("adapters at their start", (torch.randn(2, 3, 2, 2, generator=generator), torch.zeros(3), torch.zeros(3))),
        case("in float64", (2, 3, 4, 2), torch.float64),
    ]


FILM = Exercise(
    id="23.1",
    title="FiLM",
    reference=film,
    cases=_film_cases,
    gradient=(0, 1, 2),
    right=(_film_by_einsum, _film_by_channels, _film_channels_last, _film_by_addcmul, _film_by_convolution),
    wrong=(
        Wrong(
            "scale alone",
            lambda m, a, b: _each(a) * m + _each(b),
            "the 1 is missing: with a scale of 0 nothing is left of the maps",
            "The factor is `1 + scale`, so that zeros change nothing.",
            also=(lambda m, a, b: _each(a) * m,),
        ),
        Wrong(
            "last axis",
            lambda m, a, b: (1 + a) * m + b,
            "scale or shift, or both, meet the last axis of the maps and not the channels",
            "Give them two axes of size 1 behind: `scale[:, None, None]`.",
            also=(
                lambda m, a, b: (1 + a[:, None]) * m + b[:, None],
                lambda m, a, b: (1 + a.expand_as(m)) * m + b.expand_as(m),
                lambda m, a, b: (1 + _each(a)) * m + b,
                lambda m, a, b: (1 + a) * m + _each(b),
            ),
        ),
        Wrong(
            "no bracket",
            lambda m, a, b: 1 + _each(a) * m + _each(b),
            "the bracket is missing: 1 is added to the product, and not to the scale",
            "`(1 + scale) * maps`: the sum comes first, so it needs a bracket.",
        ),
        Wrong(
            "maps[k] is a picture",
            lambda m, a, b: torch.stack([(1 + a[k]) * m[k] + b[k] for k in range(len(a))]),
            "`maps[k]` is picture k, and not channel k",
            "Channel k of all pictures is `maps[:, k]`.",
            also=(_film_on_pictures,),
        ),
        Wrong(
            "put together along another axis",
            lambda m, a, b: torch.stack([(1 + a[k]) * m[:, k] + b[k] for k in range(len(a))]),
            "the finished channels are put together along another axis than axis 1",
            "`torch.stack(channels, dim=1)` makes the axis of channels anew, at its place.",
            also=(
                lambda m, a, b: torch.cat([(1 + a[k]) * m[:, k] + b[k] for k in range(len(a))], 1),
                lambda m, a, b: torch.cat([(1 + a[k]) * m[:, k] + b[k] for k in range(len(a))]),
                lambda m, a, b: torch.stack([(1 + a[k]) * m[:, k] + b[k] for k in range(len(a))], -1),
            ),
        ),
        Wrong(
            "a ReLU",
            lambda m, a, b: film(m, a, b).relu(),
            "a ReLU follows",
            "Scale and shift, and nothing behind them.",
            also=(lambda m, a, b: film(m.relu(), a, b),),
        ),
        Wrong(
            "channels in another order",
            lambda m, a, b: film(m, a.flip(0), b),
            "the numbers of one channel are used for another",
            "Channel k uses `scale[k]` and `shift[k]`.",
            also=(lambda m, a, b: film(m, a.flip(0), b.flip(0)), lambda m, a, b: film(m, a, b.flip(0))),
        ),
        Wrong(
            "picture by picture",
            lambda m, a, b: (1 + a[:, None, None, None]) * m + b[:, None, None, None],
            "scale and shift meet the pictures, the first axis, and not the channels",
            "Channels are axis 1: `scale[:, None, None]` has two axes behind it, not three.",
            also=(lambda m, a, b: torch.stack([(1 + a[k]) * m[k] + b[k] for k in range(len(m))]),),
        ),
        Wrong(
            "shift scaled, too",
            lambda m, a, b: (1 + _each(a)) * (m + _each(b)),
            "the shift is added first and then scaled, too",
            "Scale first, then add the shift.",
        ),
        Wrong(
            "shift forgotten",
            lambda m, a, b: (1 + _each(a)) * m,
            "the shift is forgotten",
            "Add `shift`, by channels.",
        ),
        Wrong(
            "scale forgotten",
            lambda m, a, b: m + _each(b),
            "the scale is forgotten",
            "Multiply by `1 + scale`, by channels.",
        ),
        Wrong(
            "exchanged",
            lambda m, a, b: (1 + _each(b)) * m + _each(a),
            "scale and shift have changed places",
            "`scale` multiplies and `shift` is added.",
            also=(lambda m, a, b: _each(b) * m + _each(a), lambda m, a, b: (m + _each(a)) * (1 + _each(b))),
        ),
        Wrong(
            "shift multiplied",
            lambda m, a, b: m * (1 + _each(a)) * (1 + _each(b)),
            "the shift multiplies, and is not added",
            "`(1 + scale) * maps`, and then `+ shift`.",
            also=(lambda m, a, b: m * (1 + _each(a) * _each(b)), lambda m, a, b: m * (1 + _each(a)) * _each(b)),
        ),
        Wrong(
            "shift subtracted",
            lambda m, a, b: (1 + _each(a)) * m - _each(b),
            "the shift is subtracted",
            "Plus the shift.",
        ),
        Wrong(
            "1 minus scale",
            lambda m, a, b: (1 - _each(a)) * m + _each(b),
            "the factor is 1 minus the scale, or the scale minus 1",
            "The factor is `1 + scale`.",
            also=(lambda m, a, b: (_each(a) - 1) * m + _each(b),),
        ),
        Wrong(
            "normalised first",
            lambda m, a, b: (
                (1 + _each(a)) * (m - m.mean((0, 2, 3), keepdim=True)) / (m.var((0, 2, 3), keepdim=True) + 1e-5).sqrt()
                + _each(b)
            ),
            "the maps are normalised, too",
            "FiLM only scales and shifts; normalising is the batch norm's work, in front of it.",
            also=(
                lambda m, a, b: F.batch_norm(m, None, None, 1 + a, b, training=True),
                lambda m, a, b: (1 + _each(a)) * F.instance_norm(m) + _each(b),
            ),
        ),
        Wrong(
            "1 added to the maps",
            lambda m, a, b: m + 1 + _each(a) + _each(b),
            "scale is added, and not multiplied",
            "Multiply the maps by `1 + scale`; only the shift is added.",
            also=(lambda m, a, b: m + _each(a) + _each(b),),
        ),
        Wrong(
            "shift inside of the factor",
            lambda m, a, b: m * (1 + _each(a) + _each(b)),
            "the shift stands inside of the factor",
            "`(1 + scale) * maps`, and then `+ shift`.",
        ),
        Wrong(
            "one number for all channels",
            lambda m, a, b: (1 + a.mean()) * m + b.mean(),
            "one scale or one shift serves all channels",
            "Channel k has its own: `scale[k]` and `shift[k]`.",
            also=(
                lambda m, a, b: (1 + a[0]) * m + b[0],
                lambda m, a, b: (1 + a[-1]) * m + b[-1],
                lambda m, a, b: (1 + a.mean()) * m + _each(b),
                lambda m, a, b: (1 + _each(a)) * m + b.mean(),
            ),
        ),
        Wrong(
            "exponential",
            lambda m, a, b: _each(a).exp() * m + _each(b),
            "the factor is the exponential of the scale",
            "The factor is `1 + scale`. (The exponential starts at 1, too, but it is another function.)",
        ),
        Wrong(
            "without gradient",
            lambda m, a, b: film(m, a.detach(), b.detach()),
            "no gradient reaches scale and shift: nothing can be fitted",
            "No `.detach()`, no `.data`, no `no_grad`.",
            also=(lambda m, a, b: film(m.detach(), a, b), lambda m, a, b: film(m, a, b).detach()),
        ),
    ),
    hints=(
        "Every channel has two numbers, and all pixels of all pictures in this channel use them.",
        "Channels are axis 1 of four. A vector [c] meets them if it has two axes of size 1 behind.",
        "`maps * (1 + scale[:, None, None]) + shift[:, None, None]`",
    ),
)

# ---------------------------------------------------------------------------------------------- 23.2 statistics of the new domain


def renormalise(maps: Tensor, seen: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Batch norm of `maps` [B, c, H, W] by the channel statistics of `seen` [S, c, H, W] -> [B, c, H, W]."""
    mean = seen.mean((0, 2, 3), keepdim=True)
    variance = seen.var((0, 2, 3), correction=0, keepdim=True)
    return (maps - mean) / (variance + eps).sqrt() * weight[:, None, None] + bias[:, None, None]


def _renormalise_by_hand(maps: Tensor, seen: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    mean = seen.mean(dim=(0, 2, 3), keepdim=True)
    variance = (seen - mean).square().mean(dim=(0, 2, 3), keepdim=True)
    return (maps - mean) / (variance + eps).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def _renormalise_by_moments(maps: Tensor, seen: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    rows = seen.transpose(0, 1).flatten(1)
    centre = rows.mean(1)
    variance = ((rows - centre[:, None]) ** 2).sum(1) / rows.shape[1]
    a = weight * torch.rsqrt(variance + eps)
    return maps * a[:, None, None] + (bias - centre * a)[:, None, None]


def _renormalise_by_channel(maps: Tensor, seen: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    done = []
    for k in range(maps.shape[1]):
        values = seen[:, k]
        done.append(weight[k] * (maps[:, k] - values.mean()) / torch.sqrt(values.var(unbiased=False) + eps) + bias[k])
    return torch.stack(done, 1)


def _renormalise_by_var_mean(maps: Tensor, seen: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    variance, mean = torch.var_mean(seen, dim=(0, 2, 3), correction=0, keepdim=True)
    return torch.addcmul(_each(bias), (maps - mean) * (variance + eps) ** -0.5, _each(weight))


def _root(variance: Tensor, eps: float) -> Tensor:
    return (variance + eps).sqrt()


def _by(
    statistics: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], root: Callable[[Tensor, float], Tensor] = _root
) -> Callable[..., Tensor]:
    """An answer with other statistics (mean, variance), of shapes that meet the maps."""

    def answer(maps: Tensor, seen: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
        mean, variance = statistics(maps, seen)
        return (maps - mean) / root(variance, eps) * _each(weight) + _each(bias)

    return answer


def _bare(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [c], without the axes that would make them meet the channels."""
    return x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)


def _renormalise_by_layer(maps: Tensor, seen: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    layer = nn.BatchNorm2d(seen.shape[1], eps=eps, momentum=1.0).to(seen.dtype)
    layer(seen)
    layer.eval()
    return F.batch_norm(maps, layer.running_mean, layer.running_var, weight, bias, False, 0.0, eps)


def _renormalise_by_own_layer(maps: Tensor, seen: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    layer = nn.BatchNorm2d(seen.shape[1], eps=eps, momentum=1.0).to(seen.dtype)
    layer.weight.data, layer.bias.data = weight, bias
    layer(seen)
    return layer.eval()(maps)


def _renormalise_with_momentum(maps: Tensor, seen: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    layer = nn.BatchNorm2d(seen.shape[1], eps=eps).to(seen.dtype)
    layer.weight.data, layer.bias.data = weight, bias
    layer(seen)
    return layer.eval()(maps)


def _renormalise_by_buffers(maps: Tensor, seen: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    mean, variance = torch.zeros(seen.shape[1]).to(seen.dtype), torch.ones(seen.shape[1]).to(seen.dtype)
    F.batch_norm(seen, mean, variance, training=True, momentum=1.0)
    return (maps - _each(mean)) / _each((variance + eps).sqrt()) * _each(weight) + _each(bias)


def _renormalise_over_channels(maps: Tensor, seen: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    mean, variance = seen.mean((1, 2, 3)), seen.var((1, 2, 3), correction=0)
    return (maps - _each(mean)) / _each((variance + eps).sqrt()) * _each(weight) + _each(bias)


def _mv(x: Tensor, dims: tuple[int, ...] = (0, 2, 3), correction: int = 0) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, dim=dims, correction=correction, keepdim=True)
    return mean, variance


def _renormalise_cases(generator: Generator) -> list[Case]:
    def case(says: str, b: int, s: int, c: int, side: int, dtype: torch.dtype = torch.float32) -> Case:
        maps = 2 * torch.randn(b, c, side, side, generator=generator, dtype=dtype) + 3
        seen = torch.randn(s, c, side, side, generator=generator, dtype=dtype) * (1 + torch.arange(c).view(-1, 1, 1))
        weight, bias = (torch.randn(c, generator=generator, dtype=dtype) for _ in range(2))
        return Case(says, (maps, seen, weight, bias))

    paper = (
        torch.tensor([[[[5.0]]], [[[1.0]]]]),
        torch.tensor([[[[1.0]]], [[[3.0]]]]),
        torch.tensor([2.0]),
        torch.tensor([10.0]),
        0.0,
    )
    wide = case("an eps that matters", 3, 2, 2, 2)
    return [
        Case("the example on paper", paper),
        case("4 maps to normalise, 6 seen, 3 channels", 4, 6, 3, 2),
        case("as many seen as maps", 3, 3, 2, 4),
        case("a single map to normalise", 1, 5, 4, 3),
        case("a single picture seen", 3, 1, 2, 3),
        case("maps as wide as there are channels", 2, 3, 3, 3),
        Case("an eps that matters", (*wide.args, 2.0)),
        Case("a channel that is constant in what was seen", (wide.args[0], torch.ones(3, 2, 2, 2), *wide.args[2:])),
        case("in float64", 3, 4, 2, 2, torch.float64),
    ]


def _alone(answer: Callable, reference: Callable) -> str | None:
    g = Generator().manual_seed(5)
    maps, seen = torch.randn(4, 2, 3, 3, generator=g), torch.randn(5, 2, 3, 3, generator=g)
    weight, bias = torch.ones(2), torch.zeros(2)
    gap = float((answer(maps, seen, weight, bias)[:1] - answer(maps[:1], seen, weight, bias)).abs().max())
    return f"the same map alone, without its neighbours, came out different by {gap:.2g}." if gap > 1e-5 else None


RENORMALISE = Exercise(
    id="23.2",
    title="Statistics of the new domain",
    reference=renormalise,
    cases=_renormalise_cases,
    properties=(Property("a map is normalised the same without its neighbours", _alone),),
    gradient=(0, 1, 2, 3),
    right=(_renormalise_by_hand, _renormalise_by_moments, _renormalise_by_channel, _renormalise_by_var_mean),
    wrong=(
        Wrong(
            "own statistics",
            _by(lambda m, s: _mv(m)),
            "the maps are normalised by their own statistics: that is transductive, and `seen` is never used",
            "Mean and variance come from `seen`.",
            also=(
                lambda m, s, w, b, eps=1e-5: F.batch_norm(m, None, None, w, b, True, 0.1, eps),
                lambda m, s, w, b, eps=1e-5: (
                    (m - _mv(m)[0]) / torch.sqrt(_mv(m, correction=1)[1] + eps) * _each(w) + _each(b)
                ),
            ),
        ),
        Wrong(
            "both together",
            _by(lambda m, s: _mv(torch.cat([m, s]))),
            "the statistics are those of `seen` and `maps` together",
            "Only `seen` may speak; the maps are judged by it.",
            also=(
                lambda m, s, w, b, eps=1e-5: F.batch_norm(torch.cat([s, m]), None, None, w, b, True, 0.1, eps)[
                    len(s) :
                ],
            ),
        ),
        Wrong(
            "seen is returned",
            lambda m, s, w, b, eps=1e-5: renormalise(s, s, w, b, eps),
            "`seen` itself is normalised and returned",
            "Normalise `maps`, by the statistics of `seen`.",
            also=(lambda m, s, w, b, eps=1e-5: F.batch_norm(s, None, None, w, b, True, 0.1, eps),),
        ),
        Wrong(
            "maps and seen exchanged",
            lambda m, s, w, b, eps=1e-5: renormalise(s, m, w, b, eps),
            "`maps` and `seen` have changed places",
            "Statistics of `seen`, applied to `maps`.",
        ),
        Wrong(
            "no root",
            lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) / (_mv(s)[1] + eps) * _each(w) + _each(b),
            "the maps are divided by the variance and not by its root",
            "Divide by the square root of variance plus eps.",
            also=(lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) / _mv(s)[1] * _each(w) + _each(b),),
        ),
        Wrong(
            "not normalised",
            lambda m, s, w, b, eps=1e-5: m * _each(w) + _each(b),
            "the maps are only scaled and shifted: mean and variance are not used",
            "Subtract the mean of `seen` and divide by the root of its variance plus eps first.",
        ),
        Wrong(
            "squared",
            _by(lambda m, s: _mv(s), lambda variance, eps: (variance + eps) ** 2),
            "variance plus eps is squared",
            "The square *root*: `(variance + eps).sqrt()`.",
        ),
        Wrong(
            "multiplied by the root",
            _by(lambda m, s: _mv(s), lambda variance, eps: (variance + eps).rsqrt()),
            "the maps are multiplied by the root, and not divided by it",
            "Divide, so that a channel with a large spread becomes smaller.",
        ),
        Wrong(
            "bias subtracted",
            lambda m, s, w, b, eps=1e-5: renormalise(m, s, w, -b, eps),
            "the bias is subtracted",
            "Plus the bias.",
        ),
        Wrong(
            "eps outside of the root",
            lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) / (_mv(s)[1].sqrt() + eps) * _each(w) + _each(b),
            "eps is added to the root, not to the variance",
            "`(variance + eps).sqrt()`.",
            also=(
                lambda m, s, w, b, eps=1e-5: (
                    (m - _mv(s)[0]) / (s.std((0, 2, 3), correction=0, keepdim=True) + eps) * _each(w) + _each(b)
                ),
                lambda m, s, w, b, eps=1e-5: (
                    (m - _mv(s)[0]) / (s.std((0, 2, 3), keepdim=True) + eps) * _each(w) + _each(b)
                ),
            ),
        ),
        Wrong(
            "no eps",
            lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) / _mv(s)[1].sqrt() * _each(w) + _each(b),
            "eps is left out, or a fixed one is used",
            "Add the argument `eps` to the variance, before the root.",
            also=(
                lambda m, s, w, b, eps=1e-5: renormalise(m, s, w, b, 1e-5),
                lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) / _mv(s, correction=1)[1].sqrt() * _each(w) + _each(b),
            ),
        ),
        Wrong(
            "n - 1",
            _by(lambda m, s: _mv(s, correction=1)),
            "the variance is divided by n - 1",
            "Batch norm divides by n here: `var(..., correction=0)`.",
        ),
        Wrong(
            "picture by picture",
            _by(lambda m, s: tuple(t.mean(0, keepdim=True) for t in _mv(s, (2, 3)))),
            "each picture gets statistics of its own, which are then averaged: how the pictures differ is lost",
            "Mean and variance over axes 0, 2 and 3 together.",
        ),
        Wrong(
            "axes 2 and 3 alone",
            _by(lambda m, s: _mv(s, (2, 3))),
            "axis 0 is left out: every picture of `seen` has statistics of its own",
            "Mean and variance over axes 0, 2 and 3 together.",
        ),
        Wrong(
            "channels averaged away",
            _by(lambda m, s: _mv(s, (1, 2, 3))),
            "the channels are averaged away, and the pictures are kept: axes 1, 2 and 3",
            "Axis 1 holds the channels. Keep it, and average over axes 0, 2 and 3.",
            also=(_renormalise_over_channels,),
        ),
        Wrong(
            "variances of pixels averaged",
            _by(lambda m, s: tuple(t.mean((2, 3), keepdim=True) for t in _mv(s, (0,)))),
            "each pixel gets a variance of its own, and these are averaged: how the pixels differ is lost",
            "Mean and variance over axes 0, 2 and 3 together.",
        ),
        Wrong(
            "own picture",
            _by(lambda m, s: _mv(m, (2, 3))),
            "every map is normalised by itself, as instance norm does",
            "Use the statistics of `seen`, over axes 0, 2 and 3.",
            also=(lambda m, s, w, b, eps=1e-5: F.instance_norm(m, weight=w, bias=b, eps=eps),),
        ),
        Wrong(
            "pixel by pixel",
            _by(lambda m, s: _mv(s, (0,))),
            "every pixel has statistics of its own",
            "One mean and one variance for each channel: axes 0, 2 and 3.",
        ),
        Wrong(
            "all channels together",
            _by(lambda m, s: _mv(s, (0, 1, 2, 3))),
            "all channels share one mean and one variance",
            "Keep axis 1: `seen.mean((0, 2, 3))`.",
            also=(
                lambda m, s, w, b, eps=1e-5: (m - s.mean()) / (s.std() + eps) * _each(w) + _each(b),
                lambda m, s, w, b, eps=1e-5: (m - s.mean()) / (s.var() + eps).sqrt() * _each(w) + _each(b),
            ),
        ),
        Wrong(
            "mean alone",
            lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) * _each(w) + _each(b),
            "the maps are centred and not scaled",
            "Divide by the root of variance plus eps.",
        ),
        Wrong(
            "mean forgotten",
            lambda m, s, w, b, eps=1e-5: m / (_mv(s)[1] + eps).sqrt() * _each(w) + _each(b),
            "the maps are scaled and not centred: the mean is never subtracted",
            "Subtract the mean of `seen` before you divide.",
        ),
        Wrong(
            "no bracket",
            lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0] / (_mv(s)[1] + eps).sqrt()) * _each(w) + _each(b),
            "only one of the two, maps or mean, is divided by the root: a bracket is missing or stands elsewhere",
            "`(maps - mean) / ...`: subtract first, so a bracket is needed.",
            also=(
                lambda m, s, w, b, eps=1e-5: (m / (_mv(s)[1] + eps).sqrt() - _mv(s)[0]) * _each(w) + _each(b),
                lambda m, s, w, b, eps=1e-5: m - _mv(s)[0] / (_mv(s)[1] + eps).sqrt() * _each(w) + _each(b),
            ),
        ),
        Wrong(
            "mean of the squares",
            _by(lambda m, s: (_mv(s)[0], s.square().mean((0, 2, 3), keepdim=True))),
            "the mean of the squares stands for the variance: the square of the mean is still in it",
            "`seen.var((0, 2, 3), correction=0)` centres first.",
        ),
        Wrong(
            "last axis",
            lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) / (_mv(s)[1] + eps).sqrt() * w + b,
            "a vector of one number for each channel meets the last axis of the maps and not the channels",
            "`keepdim=True` for mean and variance, `weight[:, None, None]` for weight and bias.",
            also=(
                lambda m, s, w, b, eps=1e-5: (m - _bare(s)[0]) / (_bare(s)[1] + eps).sqrt() * _each(w) + _each(b),
                lambda m, s, w, b, eps=1e-5: (m - _bare(s)[0]) / (_bare(s)[1] + eps).sqrt() * w + b,
                lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) / (_mv(s)[1] + eps).sqrt() * w[:, None] + b[:, None],
                lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) / (_mv(s, correction=1)[1] + eps).sqrt() * w + b,
            ),
        ),
        Wrong(
            "a floor",
            _by(lambda m, s: _mv(s), lambda variance, eps: variance.sqrt().clamp(min=eps)),
            "eps is used as a floor, and not added",
            "`(variance + eps).sqrt()`.",
            also=(
                _by(lambda m, s: _mv(s), lambda variance, eps: variance.clamp(min=eps).sqrt()),
                lambda m, s, w, b, eps=1e-5: (
                    (m - _mv(s)[0]) / s.std((0, 2, 3), correction=0, keepdim=True).clamp(min=eps) * _each(w) + _each(b)
                ),
            ),
        ),
        Wrong(
            "through PyTorch's batch norm",
            lambda m, s, w, b, eps=1e-5: F.batch_norm(m, _bare(s)[0], _bare(s)[1], w, b, False, 0.0, eps),
            "`F.batch_norm` gets the statistics: it lets no gradient through them",
            "Write the formula out: then gradients reach `seen`, too.",
            also=(
                lambda m, s, w, b, eps=1e-5: F.batch_norm(
                    m, s.mean((0, 2, 3)), s.var((0, 2, 3)), w, b, False, 0.1, eps
                ),
            ),
        ),
        Wrong(
            "a batch norm layer",
            _renormalise_by_layer,
            "a batch norm layer collects the statistics: what it keeps is divided by n - 1, and carries no gradient",
            "Write the formula out, with `seen.var((0, 2, 3), correction=0)`.",
            also=(
                _renormalise_by_own_layer,
                _renormalise_by_buffers,
                _renormalise_with_momentum,
            ),
        ),
        Wrong(
            "weight and bias forgotten",
            lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) / (_mv(s)[1] + eps).sqrt(),
            "weight and bias are not used, or only one of them",
            "Scale by `weight` and shift by `bias` after normalising.",
            also=(
                lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) / (_mv(s)[1] + eps).sqrt() * _each(w),
                lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0]) / (_mv(s)[1] + eps).sqrt() + _each(b),
            ),
        ),
        Wrong(
            "1 plus weight",
            lambda m, s, w, b, eps=1e-5: renormalise(m, s, 1 + w, b, eps),
            "1 is added to the weight, as in FiLM",
            "A batch norm multiplies by `weight` itself; FiLM multiplies by `1 + scale`.",
        ),
        Wrong(
            "weight and bias exchanged",
            lambda m, s, w, b, eps=1e-5: renormalise(m, s, b, w, eps),
            "weight and bias have changed places",
            "`weight` multiplies and `bias` is added.",
        ),
        Wrong(
            "bias scaled, too",
            lambda m, s, w, b, eps=1e-5: renormalise(m, s, w, w * b, eps),
            "the bias is added before the weight multiplies",
            "Weight first, then bias.",
            also=(lambda m, s, w, b, eps=1e-5: (m - _mv(s)[0] + _each(b)) / (_mv(s)[1] + eps).sqrt() * _each(w),),
        ),
        Wrong(
            "mean taken from maps",
            _by(lambda m, s: (_mv(m)[0], _mv(s)[1])),
            "one of the two statistics is that of the maps",
            "Both mean and variance come from `seen`.",
            also=(
                _by(lambda m, s: (_mv(s)[0], _mv(m)[1])),
                _by(lambda m, s: (_mv(s)[0], (m - _mv(s)[0]).square().mean((0, 2, 3), keepdim=True))),
            ),
        ),
        Wrong(
            "without gradient",
            lambda m, s, w, b, eps=1e-5: renormalise(m, s.detach(), w, b, eps),
            "a gradient is cut off on its way: through the statistics, or through weight, bias or maps",
            "No `.detach()` and no `no_grad`.",
            also=(
                lambda m, s, w, b, eps=1e-5: renormalise(m, s, w.detach(), b.detach(), eps),
                lambda m, s, w, b, eps=1e-5: renormalise(m, s, w, b, eps).detach(),
                _by(lambda m, s: (_mv(s.detach())[0], _mv(s)[1])),
                _by(lambda m, s: (_mv(s)[0], _mv(s.detach())[1])),
            ),
        ),
    ),
    hints=(
        "Whose mean and variance? Those of the pictures that were seen. To whom are they applied? To the maps.",
        "`seen.mean((0, 2, 3))` and `seen.var((0, 2, 3), correction=0)` have one number for each channel.",
        "`(maps - mean) / (variance + eps).sqrt() * weight + bias`, each vector with two axes of size 1 behind it",
    ),
)

# ------------------------------------------------------------------------------------------ 23.3 steps chosen without the test


def honest_and_best(left_out: Tensor, test: Tensor) -> Tensor:
    """Mean test accuracy with steps chosen by `left_out`, and with steps chosen by the test. [T, P], [T, P] -> [2]."""
    chosen = left_out.argmax(1)  # the first of equal ones
    honest = test.gather(1, chosen[:, None]).mean()
    return torch.stack([honest, test.amax(1).mean()])


def _choice_by_loop(left_out: Tensor, test: Tensor) -> Tensor:
    honest = best = test.new_zeros(())
    for held, truth in zip(left_out.tolist(), test, strict=True):
        honest = honest + truth[held.index(max(held))]
        best = best + max(truth)
    return torch.stack([honest, best]) / len(test)


def _choice_by_mask(left_out: Tensor, test: Tensor) -> Tensor:
    top = left_out == left_out.max(1, keepdim=True).values
    first = top & (top.cumsum(1) == 1)
    return torch.stack([test[first].mean(), test.max(dim=1).values.mean()])


def _choice_by_index(left_out: Tensor, test: Tensor) -> Tensor:
    rows = torch.arange(test.shape[0])
    return torch.stack([picked.mean() for picked in (test[rows, left_out.argmax(1)], test[rows, test.argmax(1)])])


def _choice_by_sort(left_out: Tensor, test: Tensor) -> Tensor:
    order = left_out.argsort(dim=1, descending=True, stable=True)
    honest = torch.take_along_dim(test, order[:, :1], 1)
    return torch.cat([honest, test.sort(1).values[:, -1:]], 1).mean(0)


def _choice(
    honest: Callable[[Tensor, Tensor], Tensor], best: Callable[[Tensor], Tensor] | None = None
) -> Callable[..., Tensor]:
    return lambda held, test: torch.stack([honest(held, test), test.amax(1).mean() if best is None else best(test)])


def _last_of_equal(held: Tensor) -> Tensor:
    return held.shape[1] - 1 - held.flip(1).argmax(1)


def _from_zero(counts: Tensor) -> int:
    most, at = 0, 0
    for k in range(1, len(counts)):
        if counts[k] > most:
            most, at = counts[k], k
    return at


def _picked(test: Tensor, chosen: Tensor) -> Tensor:
    return test.gather(1, chosen[:, None]).mean()


def _choice_cases(generator: Generator) -> list[Case]:
    def case(says: str, tasks: int, choices: int, dtype: torch.dtype = torch.float32) -> Case:
        held = torch.randint(0, 26, (tasks, choices), generator=generator)
        return Case(says, (held, torch.rand(tasks, choices, generator=generator).to(dtype)))

    paper = torch.tensor([[3, 5, 5], [4, 2, 1]]), torch.tensor([[0.5, 0.6, 0.9], [0.8, 0.7, 0.9]])
    ties = torch.randint(0, 3, (6, 4), generator=generator)
    return [
        Case("the example on paper", paper),
        case("5 tasks, 4 numbers of steps", 5, 4),
        case("as many tasks as numbers of steps", 3, 3),
        case("a single task", 1, 5),
        Case("many that are equal", (ties, torch.rand(6, 4, generator=generator))),
        Case("all equal, in every task", (torch.ones(3, 4, dtype=torch.int64), torch.rand(3, 4, generator=generator))),
        case("in float64", 4, 3, torch.float64),
        Case(
            "nobody was right in one task",
            (torch.tensor([[0, 0, 0], [1, 3, 2]]), torch.rand(2, 3, generator=generator)),
        ),
    ]


CHOICE = Exercise(
    id="23.3",
    title="Steps chosen without the test",
    reference=honest_and_best,
    cases=_choice_cases,
    right=(_choice_by_loop, _choice_by_mask, _choice_by_index, _choice_by_sort),
    wrong=(
        Wrong(
            "the test chooses twice",
            _choice(lambda h, t: t.amax(1).mean()),
            "the test itself chooses in both numbers, and `left_out` is never used",
            "The first number: the column with most right left-out answers, row by row.",
        ),
        Wrong(
            "last of equal ones",
            _choice(lambda h, t: _picked(t, _last_of_equal(h))),
            "among equal counts the most steps are taken",
            "Ties go to the fewest steps, the leftmost column; `argmax` finds the first.",
        ),
        Wrong(
            "ties by the test",
            _choice(lambda h, t: t.masked_fill(h != h.amax(1, keepdim=True), -1).amax(1).mean()),
            "among equal counts the test decides, or their accuracies are averaged or added",
            "Ties go to the fewest steps; the test has no say.",
            also=(
                _choice(lambda h, t: torch.stack([b[a == a.max()].mean() for a, b in zip(h, t, strict=True)]).mean()),
                _choice(lambda h, t: t[h == h.amax(1, keepdim=True)].mean()),
                _choice(lambda h, t: (t * (h == h.amax(1, keepdim=True))).sum(1).mean()),
            ),
        ),
        Wrong(
            "nobody right scores nothing",
            _choice(lambda h, t: torch.where(h.amax(1) > 0, t.gather(1, h.argmax(1)[:, None])[:, 0], 0).mean()),
            "a task without any right left-out answer scores 0, instead of taking the fewest steps",
            "Begin a loop with column 0, or with a maximum of -1.",
        ),
        Wrong(
            "one place of the table",
            _choice(lambda h, t: t.flatten()[h.argmax()]),
            "the largest count of the whole table is asked for, and not that of each row",
            "`left_out.argmax(1)` chooses in every row.",
            also=(
                _choice(lambda h, t: t.flatten()[h.argmax()], lambda t: t.max()),
                _choice(lambda h, t: t[h == h.max()].mean()),
            ),
        ),
        Wrong(
            "median",
            _choice(lambda h, t: t.gather(1, h.argmax(1)[:, None]).median(), lambda t: t.amax(1).median()),
            "the median of the tasks is returned",
            "`.mean()` over the tasks.",
        ),
        Wrong(
            "one number of steps for all",
            _choice(lambda h, t: t[:, h.float().mean(0).argmax()].mean()),
            "one number of steps is chosen for all tasks together",
            "Each task chooses for itself: `left_out.argmax(1)`.",
            also=(
                _choice(lambda h, t: t[:, h.float().mean(0).argmax()].mean(), lambda t: t.mean(0).max()),
                _choice(lambda h, t: t[:, h.argmax(1).mode().values].mean()),
                _choice(lambda h, t: t[:, int(h.argmax(1).to(t).mean())].mean()),
            ),
        ),
        Wrong(
            "one best column for all",
            _choice(lambda h, t: _picked(t, h.argmax(1)), lambda t: t.mean(0).max()),
            "the second number takes one best column for all tasks",
            "For the second number, too, each task takes its own best: `test.amax(1)`.",
        ),
        Wrong(
            "chosen columns as rows",
            _choice(lambda h, t: t[h.argmax(1)].mean()),
            "`test[chosen]` takes rows, that is tasks, and the numbers in `chosen` are columns",
            "`test[torch.arange(len(test)), chosen]`, or `test.gather(1, chosen[:, None])`.",
            also=(
                _choice(lambda h, t: t[h.argmax(1)].mean(), lambda t: t[t.argmax(1)].mean()),
                _choice(lambda h, t: t[h.argmax(1)].amax(1).mean()),
                _choice(lambda h, t: t[h.argmax(1), torch.arange(len(t))].mean()),
            ),
        ),
        Wrong(
            "a start that is no column",
            _choice(lambda h, t: torch.stack([b[_from_zero(a)] for a, b in zip(h, t, strict=True)]).mean()),
            "the loop begins with a count of 0 and goes on with the second column: the first one never wins",
            "Begin with column 0 *and* its own count, or let the loop run over all columns.",
        ),
        Wrong(
            "counted from the other end",
            _choice(lambda h, t: _picked(t, h.flip(1).argmax(1))),
            "the columns of `left_out` are turned round, and those of `test` are not",
            "`left_out.argmax(1)` needs no turning: it finds the first of equal ones.",
        ),
        Wrong(
            "the best task alone",
            lambda h, t: torch.stack([t.gather(1, h.argmax(1)[:, None]).amax(), t.amax()]),
            "the best task alone is reported",
            "`.mean()` over the tasks.",
        ),
        Wrong(
            "weighted",
            _choice(lambda h, t: (h.to(t).softmax(1) * t).sum(1).mean()),
            "all columns count, weighted by the left-out answers",
            "Each task takes one column, and no mixture.",
            also=(_choice(lambda h, t: (h.to(t) * t).sum(1).div(h.to(t).sum(1)).mean()),),
        ),
        Wrong(
            "divided by P",
            lambda h, t: honest_and_best(h, t) * len(t) / t.shape[1],
            "the sum over the tasks is divided by the number of columns",
            "There are T tasks: divide by `len(test)`, or take `.mean()`.",
        ),
        Wrong(
            "the first task alone",
            lambda h, t: torch.stack([t[0, h[0].argmax()], t[0].max()]),
            "the first task alone is reported: a `return` stands inside of the loop",
            "Collect the accuracies of all tasks, and return their mean after the loop.",
        ),
        Wrong(
            "places of the flat table",
            _choice(lambda h, t: t.take(h.argmax(1)).mean()),
            "`take` counts through the whole table, and the chosen columns belong to their rows",
            "`test.gather(1, chosen[:, None])`.",
        ),
        Wrong(
            "in percent",
            lambda h, t: 100 * honest_and_best(h, t),
            "the numbers are in percent",
            "Accuracies stay between 0 and 1, as in `test`.",
        ),
        Wrong(
            "all columns of the chosen",
            _choice(lambda h, t: t[:, h.argmax(1)].mean()),
            "every task gets the choices of all tasks: `test[:, chosen]` takes columns for all rows",
            "One entry of each row: `test.gather(1, chosen[:, None])`.",
            also=(_choice(lambda h, t: t[:, h.argmax(1)].mean(), lambda t: t[:, t.argmax(1)].mean()),),
        ),
        Wrong(
            "across tasks",
            _choice(lambda h, t: t.gather(0, h.argmax(0)[None]).mean()),
            "the best *task* of each column is chosen, in one number or in both, and not the best column of each task",
            "`argmax(1)` and `amax(1)` run along a row, over the numbers of steps.",
            also=(
                _choice(lambda h, t: t.gather(0, h.argmax(0)[None]).mean(), lambda t: t.amax(0).mean()),
                _choice(lambda h, t: _picked(t, h.argmax(1)), lambda t: t.amax(0).mean()),
                _choice(lambda h, t: t.gather(1, h.argmax(0)[None]).mean()),
            ),
        ),
        Wrong(
            "fewest right",
            _choice(lambda h, t: _picked(t, h.argmin(1))),
            "the column with the fewest right left-out answers is chosen",
            "`argmax`: `left_out` counts right answers, not mistakes.",
        ),
        Wrong(
            "worst of the test",
            _choice(lambda h, t: _picked(t, h.argmax(1)), lambda t: t.amin(1).mean()),
            "the second number is made of the smallest test accuracies",
            "Chosen by the test means: the largest of each row.",
        ),
        Wrong(
            "mean of the test",
            _choice(lambda h, t: _picked(t, h.argmax(1)), lambda t: t.mean()),
            "one of the two numbers is the mean over all numbers of steps",
            "Each task has one number of steps, chosen once by `left_out` and once by the test.",
            also=(_choice(lambda h, t: t.mean()),),
        ),
        Wrong(
            "best of all tasks",
            _choice(lambda h, t: _picked(t, h.argmax(1)), lambda t: t.max()),
            "the second number is the largest of the whole table",
            "The largest of each row, then the mean over the tasks.",
        ),
        Wrong(
            "most steps",
            _choice(lambda h, t: t[:, -1].mean()),
            "the last number of steps, or the first, is taken whatever was left out",
            "Let `left_out` choose: `left_out.argmax(1)`.",
            also=(_choice(lambda h, t: t[:, 0].mean()),),
        ),
        Wrong(
            "the left-out pictures judge, too",
            _choice(lambda h, t: h.amax(1).to(t).mean()),
            "the left-out pictures choose the steps and also give the number",
            "They choose; the number comes from `test`, at the chosen place.",
            also=(
                _choice(lambda h, t: (h.amax(1) / h.amax()).to(t).mean()),
                _choice(lambda h, t: (h.amax(1) / 25).to(t).mean()),
            ),
        ),
        Wrong(
            "exchanged",
            lambda h, t: honest_and_best(h, t).flip(0),
            "the two numbers have changed places",
            "First the honest one, then the one that the test has chosen.",
        ),
        Wrong(
            "the difference",
            lambda h, t: torch.stack([honest_and_best(h, t)[0], honest_and_best(h, t)[1] - honest_and_best(h, t)[0]]),
            "the second number is the optimism: the difference of the two",
            "Return both accuracies.",
        ),
        Wrong(
            "not averaged",
            lambda h, t: honest_and_best(h, t) * len(t),
            "the tasks are summed and not averaged, or stay apart",
            "Take the mean over the tasks.",
            also=(lambda h, t: torch.stack([t.gather(1, h.argmax(1)[:, None])[:, 0], t.amax(1)]),),
        ),
        Wrong(
            "the place and not the accuracy",
            lambda h, t: torch.stack([h.argmax(1).to(t).mean(), t.argmax(1).to(t).mean()]),
            "the chosen columns are averaged, and not the accuracies in them",
            "Look up `test` at the chosen column of each row.",
            also=(_choice(lambda h, t: h.argmax(1).to(t).mean()),),
        ),
    ),
    hints=(
        "Two tables of the same shape: one chooses a column for each row, the other says what this choice is worth.",
        "`left_out.argmax(1)` gives one column for each task, the first of equal ones. `gather` reads `test` there.",
        "`test.gather(1, left_out.argmax(1, keepdim=True)).mean()` and `test.amax(1).mean()`, in `torch.stack`",
    ),
)

# ---------------------------------------------------------------------------------------------- 23.4 frozen, or not?

Fit = Callable[[nn.Module, Tensor], None]


def exposes_thaw(fit: Fit, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
    """True when fit(encoder, pictures) leaves anything of the encoder changed: a tensor of state_dict(), or a layer's mode."""
    encoder = make_encoder()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    modes = [layer.training for layer in encoder.modules()]
    fit(encoder, pictures)
    same = all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    return not same or modes != [layer.training for layer in encoder.modules()]


def _thaw_by_copies(fit: Fit, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
    used, fresh = make_encoder(), make_encoder()
    fit(used, pictures)
    if any(a.training != b.training for a, b in zip(used.modules(), fresh.modules(), strict=True)):
        return True
    tensors = zip([*used.parameters(), *used.buffers()], [*fresh.parameters(), *fresh.buffers()], strict=True)
    return any(bool((a != b).any()) for a, b in tensors)


def _thaw_by_deepcopy(fit: Fit, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
    encoder = make_encoder()
    twin = deepcopy(encoder)
    fit(encoder, pictures)

    def told(net: nn.Module) -> list:
        return [[t.tolist() for t in net.state_dict().values()], [(n, m.training) for n, m in net.named_modules()]]

    return told(encoder) != told(twin)


def _thaw_by_loop(fit: Fit, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
    encoder = make_encoder()
    old = deepcopy(encoder.state_dict())
    training = {name: layer.training for name, layer in encoder.named_modules()}
    fit(encoder, pictures.clone())
    for name, tensor in encoder.state_dict().items():
        if (tensor - old[name]).abs().max() > 0:
            return True
    return any(layer.training is not training[name] for name, layer in encoder.named_modules())


def _made() -> nn.Module:
    """A small encoder with two batch norms, always the same, in evaluation mode."""
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3),
        nn.Sequential(nn.Flatten()),
    )  # fmt: skip
    generator = Generator().manual_seed(23)
    for tensor in [*net.parameters(), *(b for b in net.buffers() if b.dim())]:
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    net[1].bias.data[2] = -50.0  # a channel that never passes the ReLU: what changes in it does not show
    return net.eval()


def _beside(net: nn.Module, pictures: Tensor) -> None:
    """Fits two numbers behind the encoder for one step: the sound fit."""
    scale = torch.ones(2, requires_grad=True)
    loss = (net(pictures)[:, :2] * scale).square().mean()
    torch.autograd.grad(loss, scale)


def _on_a_copy(net: nn.Module, pictures: Tensor) -> None:
    deepcopy(net).train()(pictures)


def _and_puts_back(net: nn.Module, pictures: Tensor) -> None:
    kept = deepcopy(net.state_dict())
    net.train()(pictures)
    net.load_state_dict(kept)
    net.eval()


def _gradients_stay(net: nn.Module, pictures: Tensor) -> None:
    """Leaves gradients behind, which change no tensor of the state."""
    net(pictures).square().mean().backward()


def _in_training_mode(net: nn.Module, pictures: Tensor) -> None:
    for p in net.parameters():
        p.requires_grad_(False)
    net.train()(pictures)
    net.eval()


def _mode_stays(net: nn.Module, pictures: Tensor) -> None:
    _beside(net, pictures)
    net[4].train()


def _all_modes_stay(net: nn.Module, pictures: Tensor) -> None:
    _beside(net, pictures)
    net.train()


def _last_norm(net: nn.Module, pictures: Tensor) -> None:
    net[4].train()
    net(pictures)
    net[4].eval()


def _one_channel(net: nn.Module, pictures: Tensor) -> None:
    net[1].running_var[2] += pictures.mean()


def _a_little(net: nn.Module, pictures: Tensor) -> None:
    with torch.no_grad():
        net[3].weight[0, 0, 0, 0] += 1e-3


def _a_bias(net: nn.Module, pictures: Tensor) -> None:
    with torch.no_grad():
        net[1].bias[0] -= 0.01


def _trains(net: nn.Module, pictures: Tensor) -> None:
    net(pictures).square().mean().backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.01 * p.grad


def _exchanged(net: nn.Module, pictures: Tensor) -> None:
    net[4].running_mean.copy_(net[4].running_mean[[1, 0, 2]])


def _opposite(net: nn.Module, pictures: Tensor) -> None:
    net[1].running_mean[0] += 0.02
    net[1].running_mean[1] -= 0.02


def _one_rounding(net: nn.Module, pictures: Tensor) -> None:
    weight = net[3].weight.data
    weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(2.0))


def _counter(net: nn.Module, pictures: Tensor) -> None:
    net[1].num_batches_tracked += 1


def _inner_mode(net: nn.Module, pictures: Tensor) -> None:
    net[5][0].train()


def _convolution_mode(net: nn.Module, pictures: Tensor) -> None:
    net[0].train()


def _once(net: nn.Module, pictures: Tensor) -> None:
    """Changes the encoder, but a second call changes nothing more."""
    net[1].running_mean.zero_()


def _freezes(net: nn.Module, pictures: Tensor) -> None:
    net.requires_grad_(False)


def _replaced(net: nn.Module, pictures: Tensor) -> None:
    net[4].running_mean = net[4].running_mean + 0.01


def _replaced_by_an_equal_one(net: nn.Module, pictures: Tensor) -> None:
    net[4].running_mean = net[4].running_mean.clone()


def _in_turn(net: nn.Module, pictures: Tensor) -> None:
    net[4].running_mean.copy_(net[4].running_mean[[1, 2, 0]])


def _moves_and_stays(net: nn.Module, pictures: Tensor) -> None:
    net[4].train()
    net(pictures)


_FITS: tuple[tuple[str, Fit], ...] = (
    ("a fit of numbers behind the encoder, which is sound", _beside),
    ("a fit that works on a copy of the encoder, which is sound", _on_a_copy),
    ("a fit that puts everything back, which is sound", _and_puts_back),
    ("a fit that leaves gradients behind but no change, which is sound", _gradients_stay),
    ("frozen weights, but a pass in training mode", _in_training_mode),
    ("a layer that stays in training mode", _mode_stays),
    ("the whole encoder stays in training mode", _all_modes_stay),
    ("the last batch norm alone moves", _last_norm),
    ("the running variance of one channel moves", _one_channel),
    ("one weight moves by 0.001", _a_little),
    ("the bias of a batch norm moves", _a_bias),
    ("all weights are trained", _trains),
    ("two channels of a running mean change places", _exchanged),
    ("two channels of a running mean move in opposite directions", _opposite),
    ("a fit that freezes the weights and changes none, which is sound", _freezes),
    ("one weight moves by its last bit", _one_rounding),
    ("only the counter of batches moves", _counter),
    ("a layer within a layer stays in training mode", _inner_mode),
    ("a convolution stays in training mode", _convolution_mode),
    ("a fit that changes the encoder in its first call alone", _once),
    ("a running mean is replaced by another tensor", _replaced),
    ("a running mean is replaced by an equal tensor, which is sound", _replaced_by_an_equal_one),
    ("three channels of a running mean change places in turn", _in_turn),
    ("a batch norm moves and stays in training mode", _moves_and_stays),
)


def _thaw_cases(generator: Generator) -> list[Case]:
    pictures = torch.rand(6, 1, 5, 5, generator=generator)
    return [Case(says, (fit, _made, pictures)) for says, fit in _FITS]


def _thaw(changed: Callable[[nn.Module, nn.Module, Tensor], bool]) -> Callable[..., bool]:
    """A detector that asks `changed(encoder after the fit, fresh encoder, pictures)`."""

    def answer(fit: Fit, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
        used = make_encoder()
        fit(used, pictures)
        return changed(used, make_encoder(), pictures)

    return answer


def _modes(net: nn.Module) -> list[bool]:
    return [layer.training for layer in net.modules()]


def _differ(a: Iterable[Tensor], b: Iterable[Tensor]) -> bool:
    return any(not torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _state(net: nn.Module) -> list[Tensor]:
    return list(net.state_dict().values())


def _thaw_but(differ: Callable[[Tensor, Tensor], bool]) -> Callable[..., bool]:
    """A detector that compares modes rightly, and tensors by `differ`."""
    return _thaw(
        lambda u, f, x: any(differ(a, b) for a, b in zip(_state(u), _state(f), strict=True)) or _modes(u) != _modes(f)
    )


def _thaw_or(more: Callable[[nn.Module], bool]) -> Callable[..., bool]:
    """A detector that is right, and rings in one more case."""
    return _thaw(lambda u, f, x: _differ(_state(u), _state(f)) or _modes(u) != _modes(f) or more(u))


def _floats(net: nn.Module) -> list[Tensor]:
    return [tensor for tensor in _state(net) if tensor.is_floating_point()]


def _thaw_by_kept_objects(fit: Fit, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
    encoder = make_encoder()
    tensors = [*encoder.parameters(), *encoder.buffers()]
    before, modes = [t.detach().clone() for t in tensors], _modes(encoder)
    fit(encoder, pictures)
    return _differ(before, tensors) or modes != _modes(encoder)


def _thaw_without_clones(mode: Callable[[nn.Module], object]) -> Callable[..., bool]:
    def answer(fit: Fit, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
        encoder = make_encoder()
        before, modes = _state(encoder), mode(encoder)
        fit(encoder, pictures)
        return _differ(before, _state(encoder)) or modes != mode(encoder)

    return answer


def _thaw_by_identity(fit: Fit, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
    encoder = make_encoder()
    before, modes = [*encoder.parameters(), *encoder.buffers()], _modes(encoder)
    fit(encoder, pictures)
    after = [*encoder.parameters(), *encoder.buffers()]
    return any(a is not b for a, b in zip(before, after, strict=True)) or modes != _modes(encoder)


def _thaw_twice(fit: Fit, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
    encoder = make_encoder()
    fit(encoder, pictures)
    fit(encoder, pictures)
    return _differ(_state(encoder), _state(make_encoder())) or _modes(encoder) != _modes(make_encoder())


def _thaw_kept_late(fit: Fit, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
    encoder = make_encoder()
    fit(encoder, pictures)
    before = deepcopy(encoder)
    fit(encoder, pictures)
    return _differ(_state(before), _state(encoder)) or any(_modes(encoder))


def _thaw_by_dicts(fit: Fit, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
    encoder = make_encoder()
    before = deepcopy(encoder.state_dict())
    fit(encoder, pictures)
    return before != encoder.state_dict()


def _thaw_of_none(fit: Callable, make_encoder: Callable[[], nn.Module], pictures: Tensor) -> bool:
    encoder = fit(make_encoder(), pictures)
    return _differ(_state(encoder), _state(make_encoder()))


def _named(net: nn.Module, word: str) -> list[Tensor]:
    return [t for name, t in net.state_dict().items() if word in name]


THAW = Exercise(
    id="23.4",
    title="Bug hunt: frozen, or not?",
    reference=exposes_thaw,
    cases=_thaw_cases,
    right=(
        _thaw_by_copies,
        _thaw_by_deepcopy,
        _thaw_by_loop,
        _thaw(lambda u, f, x: _differ(_state(u), _state(f)) or _modes(u) != _modes(f)),
    ),
    wrong=(
        Wrong(
            "weights alone",
            _thaw(lambda u, f, x: _differ(u.parameters(), f.parameters())),
            "only the weights are compared: running statistics are buffers, and a mode is neither",
            "`state_dict()` has weights *and* buffers; compare `layer.training` of every layer as well.",
            also=(
                _thaw(lambda u, f, x: _differ(u.parameters(), f.parameters()) or _modes(u) != _modes(f)),
                _thaw(lambda u, f, x: _differ(_named(u, "weight"), _named(f, "weight"))),
                _thaw(lambda u, f, x: _differ(u.parameters(), f.parameters()) or u.training),
            ),
        ),
        Wrong(
            "modes forgotten",
            _thaw(lambda u, f, x: _differ(_state(u), _state(f))),
            "a layer in training mode passes: modes are not compared, not those of all layers, or only after `.eval()`",
            "Compare `layer.training` for every layer of `encoder.modules()`, before and after.",
            also=(
                _thaw(lambda u, f, x: _differ(_state(u), _state(f)) or u.training),
                _thaw(lambda u, f, x: _differ(_state(u), _state(f)) or any(c.training for c in [u, *u.children()])),
                _thaw(
                    lambda u, f, x: (
                        _differ(_state(u), _state(f))
                        or any(m.training for m in u.modules() if isinstance(m, nn.BatchNorm2d))
                    )
                ),
            ),
        ),
        Wrong(
            "modes alone",
            _thaw(lambda u, f, x: _modes(u) != _modes(f)),
            "changed tensors pass: only modes are compared, or all tensors must differ, or what is kept is no copy from before",
            "Keep `tensor.clone()` of every tensor of `state_dict()` before the fit, and compare these as well as the modes.",
            also=(
                _thaw(lambda u, f, x: u.training),
                _thaw(lambda u, f, x: any(m.training for m in u.modules() if isinstance(m, nn.BatchNorm2d))),
            ),
        ),
        Wrong(
            "buffers alone",
            _thaw(lambda u, f, x: _differ(u.buffers(), f.buffers())),
            "only the buffers are compared, or some of them: a trained weight passes",
            "`state_dict()` has both; and compare the modes.",
            also=(
                _thaw(lambda u, f, x: _differ(u.buffers(), f.buffers()) or _modes(u) != _modes(f)),
                _thaw(lambda u, f, x: _differ(_named(u, "running_mean"), _named(f, "running_mean"))),
                _thaw(lambda u, f, x: _differ(_named(u, "num_batches"), _named(f, "num_batches"))),
                _thaw(lambda u, f, x: _differ(_named(u, "running"), _named(f, "running"))),
                _thaw(lambda u, f, x: _differ(_named(u, "running"), _named(f, "running")) or _modes(u) != _modes(f)),
            ),
        ),
        Wrong(
            "the counter left out",
            _thaw(lambda u, f, x: _differ(_floats(u), _floats(f)) or _modes(u) != _modes(f)),
            "the counter of batches is not compared: `num_batches_tracked` is a tensor of `state_dict()`, too",
            "Compare every tensor of `state_dict()`, whole numbers as well.",
            also=(_thaw(lambda u, f, x: _differ(_floats(u), _floats(f))),),
        ),
        Wrong(
            "the last one decides",
            _thaw(lambda u, f, x: _differ(_state(u)[-1:], _state(f)[-1:]) or _modes(u) != _modes(f)),
            "each comparison overwrites the one before, so that only the last tensor decides",
            "`changed = changed or ...`, or `return True` at the first difference.",
            also=(_thaw(lambda u, f, x: _differ(_state(u)[-1:], _state(f)[-1:])),),
        ),
        Wrong(
            "kept objects",
            _thaw_by_kept_objects,
            "the tensors are listed before the fit, and the same objects are asked afterwards: one that was replaced is missed",
            "Ask the encoder again after the fit: `encoder.state_dict()`.",
        ),
        Wrong(
            "no clones",
            _thaw_without_clones(lambda net: _modes(net)),
            "the tensors are kept without `.clone()`: they change along with the encoder",
            "`{name: tensor.clone() for name, tensor in encoder.state_dict().items()}`, or a `deepcopy`.",
            also=(_thaw_without_clones(lambda net: net.training), _thaw_without_clones(lambda net: None)),
        ),
        Wrong(
            "identity",
            _thaw_by_identity,
            "it is asked whether a tensor is the same object, and not whether its numbers are the same",
            "Keep clones, and compare them with `torch.equal`.",
        ),
        Wrong(
            "fit called twice",
            _thaw_twice,
            "`fit` is called twice: what the second call undoes, passes",
            "Call it once, keep what you need before, and compare afterwards.",
        ),
        Wrong(
            "kept after a first fit",
            _thaw_kept_late,
            "`fit` is called before anything is kept: what only its first call changes, passes",
            "Keep tensors and modes first, then call `fit` once.",
        ),
        Wrong(
            "every number",
            _thaw_but(lambda a, b: bool((a != b).all())),
            "a tensor counts as changed only when all of its numbers have changed",
            "One number is enough: `not torch.equal(a, b)`, or `(a != b).any()`.",
            also=(_thaw(lambda u, f, x: any(bool((a != b).all()) for a, b in zip(_state(u), _state(f), strict=True))),),
        ),
        Wrong(
            "and",
            _thaw(lambda u, f, x: _differ(_state(u), _state(f)) and _modes(u) != _modes(f)),
            "a tensor *and* a mode must have changed before it rings",
            "One of the two is enough: `or`.",
        ),
        Wrong(
            "without a size",
            _thaw_but(lambda a, b: bool((a - b).max() > 0)),
            "a difference counts in one direction alone: its sign is not taken away",
            "`torch.equal(a, b)`, or the largest of `(a - b).abs()`.",
            also=(
                _thaw_but(lambda a, b: bool((b - a).max() > 0)),
                _thaw_but(lambda a, b: float((a - b).sum()) > 0),
                _thaw_but(lambda a, b: float((b - a).sum()) > 0),
            ),
        ),
        Wrong(
            "dicts compared by ==",
            _thaw_by_dicts,
            "dicts or lists of tensors are compared by `==` or `!=`, which asks for the truth of a whole tensor",
            "Compare tensor by tensor: `torch.equal(a, b)`.",
        ),
        Wrong(
            "fit returns nothing",
            _thaw_of_none,
            "the result of `fit` is used, and `fit` returns nothing",
            "`fit(encoder, pictures)` works on the encoder that you gave it: look at that one.",
        ),
        Wrong(
            "sums",
            _thaw_but(lambda a, b: abs(float(a.sum() - b.sum())) > 2e-3),
            "sums, means or lengths are compared: changes that cancel, or change places, pass",
            "Compare every number: `torch.equal`.",
            also=(
                _thaw_but(lambda a, b: abs(float(a.float().norm() - b.float().norm())) > 1e-6),
                _thaw_but(lambda a, b: float((a - b).sum()) != 0),
            ),
        ),
        Wrong(
            "a generous tolerance",
            _thaw_but(lambda a, b: bool((a - b).abs().max() > 0.05)),
            "small changes pass: the tolerance is too wide, or printed numbers are compared",
            "Nothing may change here, not even by rounding: `torch.equal`. And compare the modes.",
            also=(
                _thaw_but(lambda a, b: not torch.allclose(a.float(), b.float(), 1e-2, 1e-2)),
                _thaw_but(lambda a, b: not torch.allclose(a, b)),
                _thaw_but(lambda a, b: not torch.allclose(a, b, atol=1e-3)),
                _thaw(lambda u, f, x: str(u.state_dict()) != str(f.state_dict())),
            ),
        ),
        Wrong(
            "requires_grad",
            _thaw(lambda u, f, x: any(p.requires_grad for p in u.parameters())),
            "`requires_grad` is asked, which says what a gradient would do, and not what has changed",
            "Compare tensors and modes before and after, and nothing else.",
            also=(_thaw_or(lambda u: not all(p.requires_grad for p in u.parameters())),),
        ),
        Wrong(
            "gradients",
            _thaw_or(lambda u: any(p.grad is not None for p in u.parameters())),
            "gradients that stay behind ring the alarm, and they change nothing",
            "Compare the tensors of `state_dict()` and the modes, and nothing else.",
            also=(_thaw(lambda u, f, x: any(p.grad is not None for p in u.parameters())),),
        ),
        Wrong(
            "one layer",
            _thaw(lambda u, f, x: _differ(_state(u)[:7], _state(f)[:7])),
            "only the first layers, or the last, are compared",
            "Compare all tensors of `state_dict()`, and all modes.",
            also=(
                _thaw(lambda u, f, x: _differ(_state(u)[7:], _state(f)[7:])),
                _thaw(lambda u, f, x: _differ(_state(u)[:1], _state(f)[:1])),
            ),
        ),
        Wrong(
            "outputs",
            _thaw(lambda u, f, x: not torch.allclose(u.eval()(x), f.eval()(x), atol=1e-6)),
            "the outputs on the pictures are compared: what does not show there, passes",
            "Compare the tensors and the modes themselves.",
            also=(_thaw(lambda u, f, x: not torch.equal(u(x), f(x))),),
        ),
        Wrong("always", lambda fit, make, x: True, "the alarm always rings", "A fit that changes nothing must pass."),
        Wrong(
            "never",
            lambda fit, make, x: False,
            "the alarm never rings: copies may change along, none or all of those compared were fitted, or `and` asks for both",
            "Make one encoder, keep `.clone()`s of its tensors, call `fit(encoder, pictures)`, and compare the same encoder.",
        ),
        Wrong(
            "turned round",
            lambda fit, make, x: not exposes_thaw(fit, make, x),
            "True and False have changed places",
            "True means: something has changed.",
        ),
    ),
    hints=(
        "What does an encoder consist of? Weights that gradients change, and numbers that a mere pass can change.",
        "Keep a `.clone()` of every tensor of `state_dict()`, and every layer's `.training`; compare after the fit, exactly.",
        "`any(not torch.equal(t, before[n]) for n, t in encoder.state_dict().items())`, or the list of modes differs",
    ),
)

# ---------------------------------------------------------------------------------------------- 23.5 a residual adapter (starred)


def beside(x: Tensor, filters: Tensor, matrix: Tensor) -> Tensor:
    """3x3 convolution plus a 1x1 convolution beside it. [B, i, H, W], [o, i, 3, 3], [o, i] -> [B, o, H, W]."""
    return F.conv2d(x, filters, padding=1) + F.conv2d(x, matrix[:, :, None, None])


def _beside_by_einsum(x: Tensor, filters: Tensor, matrix: Tensor) -> Tensor:
    return F.conv2d(x, filters, padding=1) + torch.einsum("oi,bihw->bohw", matrix, x)


def _beside_in_the_middle(x: Tensor, filters: Tensor, matrix: Tensor) -> Tensor:
    return F.conv2d(x, filters + F.pad(matrix[:, :, None, None], (1, 1, 1, 1)), padding=1)


def _beside_by_matmul(x: Tensor, filters: Tensor, matrix: Tensor) -> Tensor:
    return F.conv2d(x, filters, padding="same") + (matrix @ x.flatten(2)).view(len(x), -1, *x.shape[2:])


def _beside_at_once(x: Tensor, filters: Tensor, matrix: Tensor) -> Tensor:
    both = torch.cat([filters, F.pad(matrix[..., None, None], (1, 1, 1, 1))])
    a, b = F.conv2d(x, both, padding=1).chunk(2, dim=1)
    return a + b


def _wide(x: Tensor, f: Tensor) -> Tensor:
    return F.conv2d(x, f, padding=1)


def _narrow(x: Tensor, m: Tensor) -> Tensor:
    return F.conv2d(x, m[:, :, None, None])


_RING = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 1]])  # all places of a filter but the middle


def _beside_by_layer(x: Tensor, filters: Tensor, matrix: Tensor) -> Tensor:
    layer = nn.Conv2d(matrix.shape[1], matrix.shape[0], 1)
    layer.weight.data = matrix[:, :, None, None].data
    return _wide(x, filters) + layer(x)


def _beside_cases(generator: Generator) -> list[Case]:
    def case(says: str, b: int, i: int, o: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> Case:
        shapes = ((b, i, h, w), (o, i, 3, 3), (o, i))
        return Case(says, tuple(torch.randn(s, generator=generator, dtype=dtype) for s in shapes))

    start = case("", 2, 3, 3, 4, 4).args
    return [
        case("2 pictures, 3 channels in and 4 out", 2, 3, 4, 5, 5),
        case("as many channels in as out", 2, 3, 3, 4, 4),
        case("one channel in", 1, 1, 4, 6, 3),
        case("maps as wide as there are channels", 3, 3, 3, 3, 3),
        Case("an adapter at its start", (start[0], start[1], torch.zeros(3, 3))),
        case("in float64", 2, 2, 3, 4, 3, torch.float64),
    ]


BESIDE = Exercise(
    id="23.5",
    title="A residual adapter",
    reference=beside,
    cases=_beside_cases,
    gradient=(0, 1, 2),
    right=(_beside_by_einsum, _beside_in_the_middle, _beside_by_matmul, _beside_at_once),
    wrong=(
        Wrong(
            "one after the other",
            lambda x, f, m: (
                _wide(_narrow(x, m), f[:, :1].expand(-1, len(m), -1, -1))
                if f.shape[0] != f.shape[1]
                else _wide(_narrow(x, m), f)
            ),
            "the two stand one behind the other: with a matrix of zeros nothing is left",
            "Both see `x`, and their outputs are added.",
            also=(
                lambda x, f, m: _narrow(_wide(x, f), m),
                lambda x, f, m: _wide(_narrow(x, m), f),
                lambda x, f, m: torch.einsum(
                    "oi,bihw->bohw", m[:, :1].expand(-1, len(m)) if m.shape[0] != m.shape[1] else m, _wide(x, f)
                ),
            ),
        ),
        Wrong(
            "adapter of the output",
            lambda x, f, m: (
                _wide(x, f)
                + torch.einsum(
                    "oi,bihw->bohw", m[:, :1].expand(-1, len(m)) if m.shape[0] != m.shape[1] else m, _wide(x, f)
                )
            ),
            "the 1x1 convolution sees the output of the frozen one and not its input",
            "Beside, not behind: both see `x`.",
            also=(lambda x, f, m: _narrow(_wide(x, f), m) + _wide(x, f),),
        ),
        Wrong(
            "transposed",
            lambda x, f, m: _wide(x, f) + _narrow(x, m.T),
            "the matrix is turned round: rows are outputs, columns are inputs",
            "`matrix` is [o, i]: `matrix[:, :, None, None]` is a filter as it stands.",
            also=(
                lambda x, f, m: _wide(x, f) + torch.einsum("io,bihw->bohw", m, x),
                lambda x, f, m: _wide(x, f) + (x.movedim(1, -1) @ m).movedim(-1, 1),
            ),
        ),
        Wrong(
            "no padding",
            lambda x, f, m: F.conv2d(x, f) + _narrow(x, m)[:, :, 1:-1, 1:-1],
            "the 3x3 convolution is not padded: a border of one pixel is lost",
            "`padding=1` keeps the size.",
            also=(lambda x, f, m: F.conv2d(x, f) + _narrow(x, m),),
        ),
        Wrong(
            "padding for both",
            lambda x, f, m: F.pad(_wide(x, f), (1, 1, 1, 1)) + F.conv2d(x, m[:, :, None, None], padding=1),
            "a result has not the height and width of `x`: a convolution is padded too much, or a product is left flat",
            "A filter of 1 by 1 needs no padding, one of 3 by 3 one pixel, and a product of flat maps a `.view`.",
            also=(lambda x, f, m: _wide(x, f) + F.conv2d(x, m[:, :, None, None], padding=1),),
        ),
        Wrong(
            "without the adapter",
            lambda x, f, m: _wide(x, f),
            "the adapter is left out",
            "Add `F.conv2d(x, matrix[:, :, None, None])`.",
        ),
        Wrong(
            "adapter alone",
            lambda x, f, m: _narrow(x, m),
            "the frozen convolution is left out",
            "Add `F.conv2d(x, filters, padding=1)`.",
        ),
        Wrong(
            "the input, too",
            lambda x, f, m: _wide(x, f) + _narrow(x, m) + (x if x.shape[1] == len(f) else x[:, :1]),
            "the input itself is added, as in a residual *network*",
            "Only the two convolutions are added; the adapter starts at zero, not at the identity.",
            also=(
                lambda x, f, m: _wide(x, f) + _narrow(x, m) + x,
                lambda x, f, m: _wide(x, f) + x,
                lambda x, f, m: _wide(x, f) + _narrow(x, m + torch.eye(*m.shape).to(m)),
            ),
        ),
        Wrong(
            "matrix times rows",
            lambda x, f, m: _wide(x, f) + m @ x,
            "the matrix product runs along the rows or columns of each map, and not along the channels",
            "`torch.einsum('oi,bihw->bohw', matrix, x)`, or a 1x1 convolution.",
            also=(lambda x, f, m: _wide(x, f) + x @ m, lambda x, f, m: _wide(x, f) + x @ m.T),
        ),
        Wrong(
            "in front",
            lambda x, f, m: _wide(x + _narrow(x, m), f),
            "the adapter stands in front of the frozen convolution: this sees what was added",
            "Both see `x` itself, and their outputs are added.",
        ),
        Wrong(
            "middle replaced",
            lambda x, f, m: _wide(x, f * _RING + F.pad(m[:, :, None, None], (1, 1, 1, 1))),
            "the middle of the filters is replaced by the matrix, and what stood there is lost",
            "Add the matrix to `filters[:, :, 1, 1]`, on a copy.",
        ),
        Wrong(
            "flipped",
            lambda x, f, m: _wide(x, f.flip(2, 3)) + _narrow(x, m),
            "the filters are turned round, as a convolution in mathematics does",
            "`F.conv2d` takes them as they stand.",
        ),
        Wrong(
            "another border",
            lambda x, f, m: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), f) + _narrow(x, m),
            "the border is filled with copies of pixels, and not with zeros",
            "`padding=1` fills with zeros.",
            also=(
                lambda x, f, m: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), f) + _narrow(x, m),
                lambda x, f, m: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), f) + _narrow(x, m),
            ),
        ),
        Wrong(
            "averaged over the channels",
            lambda x, f, m: _wide(x, f) + _narrow(x, m) / x.shape[1],
            "the adapter's sum over the channels is divided by their number",
            "A sum over i, and no mean.",
        ),
        Wrong(
            "side by side",
            lambda x, f, m: torch.cat([_wide(x, f), _narrow(x, m)], 1),
            "the two outputs stand side by side, so that there are twice as many channels",
            "Add them.",
        ),
        Wrong(
            "a filter of one channel",
            lambda x, f, m: _wide(x, f) + F.conv2d(x, m[None, None], padding="same"),
            "the new axes of the matrix stand in front: it is read as a filter as large as the matrix",
            "Behind: `matrix[:, :, None, None]` is [o, i, 1, 1].",
            also=(lambda x, f, m: _wide(x, f) + F.conv2d(x, m[None, None]),),
        ),
        Wrong(
            "a matrix is no filter",
            lambda x, f, m: _wide(x, f) + F.conv2d(x, m),
            "the matrix [o, i] is given to `F.conv2d` as it is, and a filter has four axes",
            "`matrix[:, :, None, None]` is [o, i, 1, 1].",
        ),
        Wrong(
            "a layer's own bias",
            _beside_by_layer,
            "a layer `nn.Conv2d` brings a bias of its own, drawn at random, and cuts the gradient to the matrix",
            "`F.conv2d(x, matrix[:, :, None, None])` needs no layer.",
        ),
        Wrong(
            "subtracted",
            lambda x, f, m: _wide(x, f) - _narrow(x, m),
            "the adapter is subtracted",
            "Plus.",
        ),
        Wrong(
            "all nine places",
            lambda x, f, m: _wide(x, f + m[:, :, None, None]),
            "the matrix is added in all nine places of the filters, and not in the middle only",
            "A 1x1 convolution sees one pixel: the middle of the filter.",
        ),
        Wrong(
            "a corner",
            lambda x, f, m: _wide(x, f + F.pad(m[:, :, None, None], (0, 2, 0, 2))),
            "the matrix is added in a corner of the filters",
            "The middle is `filters[:, :, 1, 1]`.",
        ),
        Wrong(
            "the mean",
            lambda x, f, m: (_wide(x, f) + _narrow(x, m)) / 2,
            "the two are averaged",
            "Add them: with a matrix of zeros the frozen output must stay as it is.",
        ),
        Wrong(
            "a ReLU",
            lambda x, f, m: (_wide(x, f) + _narrow(x, m)).relu(),
            "a ReLU follows one of the outputs or their sum, or comes in front",
            "The two convolutions and their sum, nothing behind them.",
            also=(
                lambda x, f, m: _wide(x, f) + _narrow(x, m).relu(),
                lambda x, f, m: _wide(x, f) + _narrow(x.relu(), m),
            ),
        ),
        Wrong(
            "the product",
            lambda x, f, m: _wide(x, f) * (1 + _narrow(x, m)),
            "the outputs are multiplied",
            "Add them.",
            also=(lambda x, f, m: _wide(x, f) * _narrow(x, m),),
        ),
        Wrong(
            "without gradient",
            lambda x, f, m: _wide(x, f) + _narrow(x, m.detach()),
            "a gradient is cut off on its way to the matrix, the filters or the pictures",
            "No `.detach()` and no `no_grad`.",
            also=(
                lambda x, f, m: _wide(x, f) + _narrow(x.detach(), m),
                lambda x, f, m: _wide(x, f.detach()) + _narrow(x, m),
                lambda x, f, m: _wide(x, f).detach() + _narrow(x, m),
                lambda x, f, m: _wide(x, f) + _narrow(x, m).detach(),
                lambda x, f, m: beside(x, f, m).detach(),
            ),
        ),
    ),
    hints=(
        "Two convolutions see the same `x`. Which sizes do their outputs have?",
        "`F.conv2d(x, filters, padding=1)` keeps the size; a 1x1 filter is the matrix with two axes of size 1 behind it.",
        "`F.conv2d(x, filters, padding=1) + F.conv2d(x, matrix[:, :, None, None])`",
    ),
)

EXERCISES = (FILM, RENORMALISE, CHOICE, THAW, BESIDE)
