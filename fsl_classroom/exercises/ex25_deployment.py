"""Exercises of lesson 25: what a Conv4 costs, int8 filters, the loss of distillation, a store of class means, a test of parity.

Cases: every exercise builds its own. The detector 25.5 gets an exported encoder as a function, and must return True for those
that do not do what the encoder does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ---------------------------------------------------------------------------------------------- 25.1 what a Conv4 costs


def conv4_cost(width: int, channels: int, size: int) -> tuple[int, int]:
    """Counts the numbers to store and the multiply-adds of a Conv4 for one picture [channels, size, size]."""
    numbers = multiply_adds = 0
    for entering in (channels, width, width, width):
        numbers += 9 * entering * width + width
        multiply_adds += size * size * 9 * entering * width
        size //= 2
    return numbers, multiply_adds


def _cost_closed(width: int, channels: int, size: int) -> tuple[int, int]:
    areas = [(size // 2**k) ** 2 for k in range(4)]
    numbers = 9 * channels * width + 27 * width**2 + 4 * width
    return numbers, 9 * width * (channels * areas[0] + width * sum(areas[1:]))


def _cost_by_filter(width: int, channels: int, size: int) -> tuple[int, int]:
    filters = [torch.zeros(width, entering, 3, 3) for entering in [channels] + 3 * [width]]
    work = sum(f.numel() * (size >> k) ** 2 for k, f in enumerate(filters))
    return sum(f.numel() + len(f) for f in filters), work


def _cost_recursive(width: int, channels: int, size: int) -> tuple[int, int]:
    def rest(blocks: int, entering: int, side: int) -> tuple[int, int]:
        if blocks == 0:
            return 0, 0
        n, m = rest(blocks - 1, width, side // 2)
        return n + width * (9 * entering + 1), m + side**2 * 9 * entering * width

    return rest(4, channels, size)


def _cost_by_output(width: int, channels: int, size: int) -> tuple[int, int]:
    entering = torch.tensor([channels, width, width, width])
    sides = torch.tensor([size, size // 2, size // 4, size // 8])
    per_number = 9 * entering
    return int((width * per_number + width).sum()), int((sides**2 * width * per_number).sum())


def _cost(
    *,
    sides: Callable[[int], Sequence[Any]] = lambda s: [s, s // 2, s // 4, s // 8],
    entering: Callable[[int, int], Sequence[int]] = lambda w, c: [c, w, w, w],
    taps: int = 9,
    beside: Callable[[int], int] = lambda w: 4 * w,
    power: int = 2,
    end: Callable[[Any, Any], Any] = lambda n, m: (n, m),
) -> Callable[[int, int, int], Any]:
    """A count with something changed: sides of the maps, channels entering, taps of a filter, numbers beside the filters."""

    def answer(width: int, channels: int, size: int) -> Any:
        came = entering(width, channels)
        pairs = list(zip(sides(size), came, strict=False))
        numbers = sum(taps * c * width for _, c in pairs) + beside(width)
        return end(numbers, sum(side**power * taps * c * width for side, c in pairs))

    return answer


def _halved_up(size: int) -> list[int]:
    sides = [size]
    for _ in range(3):
        sides.append((sides[-1] + 1) // 2)
    return sides


def _halved_and_one(size: int) -> list[int]:
    sides = [size]
    for _ in range(3):
        sides.append(sides[-1] // 2 + 1)
    return sides


def _shrinking(size: int) -> list[int]:
    """Sides of the maps where no convolution is padded."""
    sides = []
    for _ in range(4):
        sides.append(max(size - 2, 0))
        size = sides[-1] // 2
    return sides


def _cost_cases(generator: Generator) -> list[Case]:
    return [
        Case("the example on paper: width 2, one channel, 16 pixels", (2, 1, 16)),
        Case("Conv4-64 on grey pictures of 28 pixels", (64, 1, 28)),
        Case("Conv4-16 on grey pictures of 28 pixels", (16, 1, 28)),
        Case("width 32, three channels, 84 pixels", (32, 3, 84)),
        Case("two channels, 30 pixels: sides that do not halve evenly", (5, 2, 30)),
        Case("more channels than filters, 31 pixels", (3, 4, 31)),
        Case("as many channels as filters", (4, 4, 19)),
    ]


COST = Exercise(
    id="25.1",
    title="What a Conv4 costs",
    reference=conv4_cost,
    cases=_cost_cases,
    right=(_cost_closed, _cost_by_filter, _cost_recursive, _cost_by_output),
    wrong=(
        Wrong(
            "after pooling",
            _cost(sides=lambda s: [s // 2, s // 4, s // 8, s // 16]),
            "the maps are halved before their convolution is counted",
            "Pooling comes *behind* the convolution: the first one works on `size * size` places.",
            also=(_cost(sides=lambda s: [s / 2, s / 4, s / 8, s / 16], end=lambda n, m: (n, int(m))),),
        ),
        Wrong(
            "never halved",
            _cost(sides=lambda s: [s] * 4),
            "every block works on maps of full size",
            "Each block ends with a pooling that halves both sides.",
            also=(_cost(sides=lambda s: [s] * 4, entering=lambda w, c: [w] * 4),),
        ),
        Wrong(
            "quartered",
            _cost(sides=lambda s: [s, s // 4, s // 16, s // 64]),
            "the sides are divided by four, and not the areas",
            "Pooling halves each side: the area falls to about a quarter.",
        ),
        Wrong(
            "not rounded down",
            _cost(sides=lambda s: [s, s / 2, s / 4, s / 8]),
            "odd sides are halved into fractions: 7 becomes 3.5",
            "`size //= 2` rounds down, as the pooling does.",
            also=(_cost(sides=lambda s: [s / 2**k for k in range(4)], end=lambda n, m: (float(n), float(m))),),
        ),
        Wrong(
            "rounded up",
            _cost(sides=_halved_up),
            "odd sides are rounded up when they are halved",
            "`size // 2` rounds down: a row that has no partner is dropped.",
            also=(
                _cost(sides=lambda s: [s, round(s / 2), round(s / 4), round(s / 8)]),
                _cost(sides=_halved_and_one),
            ),
        ),
        Wrong(
            "a smaller picture in every convolution",
            _cost(sides=_shrinking),
            "the convolutions shrink their maps by two pixels, as without padding",
            "They are padded by one pixel, so the size stays until the pooling.",
            also=(_cost(sides=lambda s: [s - 2, s // 2 - 2, s // 4 - 2, s // 8 - 2]),),
        ),
        Wrong(
            "first block like the others",
            _cost(entering=lambda w, c: [w] * 4),
            "the first block, too, is counted with `width` channels coming in",
            "The first block sees the picture: `channels` come in.",
            also=(
                lambda w, c, s: (_cost_closed(w, c, s)[0], _cost(entering=lambda w, c: [w] * 4)(w, c, s)[1]),
                lambda w, c, s: (_cost(entering=lambda w, c: [w] * 4)(w, c, s)[0], _cost_closed(w, c, s)[1]),
            ),
        ),
        Wrong(
            "all blocks like the first",
            _cost(entering=lambda w, c: [c] * 4),
            "every block is counted as if the picture's channels came in",
            "From the second block on `width` channels come in.",
        ),
        Wrong(
            "one channel in",
            _cost(entering=lambda w, c: [1] * 4),
            "the incoming channels are left out: each filter is counted as one 3 by 3 plane",
            "A filter has a 3 by 3 plane for *each* incoming channel.",
            also=(_cost(entering=lambda w, c: [1, w, w, w]),),
        ),
        Wrong(
            "doubling",
            _cost(entering=lambda w, c: [c, w, 2 * w, 4 * w]),
            "the width doubles from block to block",
            "A Conv4 has `width` filters in every block.",
        ),
        Wrong(
            "nine forgotten",
            _cost(taps=1),
            "a filter is counted as one number for each incoming channel, and not as nine",
            "3 by 3 makes nine.",
            also=(
                _cost(taps=3),
                lambda w, c, s: (_cost_closed(w, c, s)[0], _cost(taps=1)(w, c, s)[1]),
            ),
        ),
        Wrong(
            "shifts forgotten",
            _cost(beside=lambda w: 0),
            "the shifts are not counted among the numbers to store",
            "Every filter has one shift: 4 times `width` numbers more.",
        ),
        Wrong(
            "batch norm, too",
            _cost(beside=lambda w: 8 * w),
            "batch norm is counted as stored: scale and shift, or mean and variance as well",
            "It is folded: the scale goes into the filter, and one shift a filter remains.",
            also=(_cost(beside=lambda w: 12 * w), _cost(beside=lambda w: 16 * w), _cost(beside=lambda w: 20 * w)),
        ),
        Wrong(
            "one shift a block",
            _cost(beside=lambda w: 4),
            "one shift is counted for a block, or for the net, and not for each filter",
            "Every one of the `width` filters of a block has its own shift.",
            also=(
                _cost(beside=lambda w: w),
                _cost(beside=lambda w: 1),
                _cost(beside=lambda w: 3 * w),
                lambda w, c, s: (_cost_closed(w, c, s)[0] - w + c, _cost_closed(w, c, s)[1]),
            ),
        ),
        Wrong(
            "bytes",
            _cost(end=lambda n, m: (4 * n, m)),
            "bytes are returned, and not numbers",
            "Count numbers; how many bytes each of them takes is the next question.",
            also=(_cost(end=lambda n, m: (4 * n, 4 * m)), _cost(end=lambda n, m: (n, 4 * m))),
        ),
        Wrong(
            "multiplications and additions apart",
            _cost(end=lambda n, m: (n, 2 * m)),
            "multiplications and additions are counted apart, which doubles the work",
            "One multiply-add is one multiplication together with its addition.",
        ),
        Wrong(
            "exchanged",
            _cost(end=lambda n, m: (m, n)),
            "the two counts have changed places",
            "Numbers first, multiply-adds second.",
        ),
        Wrong(
            "places forgotten",
            _cost(power=0),
            "a filter is counted as if it worked at one place only",
            "It works at each of the `size * size` places of the map.",
            also=(_cost(power=1), lambda w, c, s: (_cost_closed(w, c, s)[0],) * 2),
        ),
        Wrong(
            "one filter",
            lambda w, c, s: (
                _cost_closed(w, c, s)[0],
                sum((s // 2**k) ** 2 * 9 * i for k, i in enumerate((c, w, w, w))),
            ),
            "the work of one filter is counted for a block, and not that of all",
            "Each of the `width` filters works at every place.",
            also=(
                lambda w, c, s: (
                    sum(9 * i + 1 for i in (c, w, w, w)),
                    sum((s // 2**k) ** 2 * 9 * i for k, i in enumerate((c, w, w, w))),
                ),
            ),
        ),
        Wrong(
            "three blocks",
            _cost(entering=lambda w, c: [c, w, w], beside=lambda w: 3 * w),
            "three blocks are counted, or five",
            "A Conv4 has four: one on the picture, and three more.",
            also=(
                _cost(entering=lambda w, c: [c, w, w]),
                _cost(
                    entering=lambda w, c: [c, w, w, w, w],
                    sides=lambda s: [s // 2**k for k in range(5)],
                    beside=lambda w: 5 * w,
                ),
            ),
        ),
        Wrong(
            "shifts as work",
            lambda w, c, s: (
                _cost_closed(w, c, s)[0],
                _cost_closed(w, c, s)[1] + w * sum((s // 2**k) ** 2 for k in range(4)),
            ),
            "the additions of the shifts are counted as multiply-adds",
            "Only the convolutions count: places times nine times incoming channels times filters.",
        ),
        Wrong(
            "one of the two",
            _cost(end=lambda n, m: n),
            "only one of the two counts is returned",
            "`return numbers, multiply_adds`.",
            also=(_cost(end=lambda n, m: m),),
        ),
    ),
    hints=(
        "Go through the four blocks and keep two sums. What changes from the first block to the second?",
        "A block stores nine times incoming channels times filters, and a shift for each filter; it uses each at every place.",
        "`numbers += 9 * entering * width + width`, `multiply_adds += size**2 * 9 * entering * width`, then `size //= 2`",
    ),
)

# ---------------------------------------------------------------------------------------------- 25.2 int8 filters


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 with one scale for each output channel. [o, ...] -> codes int8 [o, ...], scale [o]."""
    largest = weight.flatten(1).abs().amax(1)
    scale = torch.where(largest > 0, largest / 127, 1.0).to(weight.dtype)
    return torch.round(weight / scale.view(-1, *[1] * (weight.dim() - 1))).to(torch.int8), scale


def _quantise_by_channel(weight: Tensor) -> tuple[Tensor, Tensor]:
    codes, scales = [], []
    for row in weight:
        largest = float(row.abs().max())
        scales.append(largest / 127 if largest > 0 else 1.0)
        codes.append((row.double() / scales[-1]).round().to(torch.int8))
    return torch.stack(codes), torch.tensor(scales, dtype=weight.dtype)


def _quantise_by_max_and_min(weight: Tensor) -> tuple[Tensor, Tensor]:
    rows = weight.reshape(len(weight), -1)
    scale = torch.maximum(rows.max(1).values, -rows.min(1).values) / 127
    scale[scale == 0] = 1
    codes = torch.round(rows / scale.unsqueeze(1)).clamp(-127, 127)
    return codes.view_as(weight).to(torch.int8), scale


def _quantise_by_transposing(weight: Tensor) -> tuple[Tensor, Tensor]:
    largest = torch.linalg.vector_norm(weight.flatten(1), float("inf"), dim=1)
    scale = largest / 127 + (largest == 0).to(weight.dtype)
    return (weight.movedim(0, -1) / scale).movedim(-1, 0).round().char(), scale


def _quantise_by_einsum(weight: Tensor) -> tuple[Tensor, Tensor]:
    largest = weight.abs().amax(dim=tuple(range(1, weight.dim())))
    inverse = torch.where(largest == 0, torch.ones_like(largest), 127 / largest)
    return torch.einsum("o...,o->o...", weight, inverse).round().to(dtype=torch.int8), 1 / inverse


def _behind(v: Tensor, like: Tensor) -> Tensor:
    """Gives a vector [o] the axes that it needs to meet [o, ...]."""
    return v.view(-1, *[1] * (like.dim() - 1))


def _largest(weight: Tensor) -> Tensor:
    return weight.flatten(1).abs().amax(1)


def _safe(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, 1.0).to(scale.dtype)


def _quantised(
    *,
    scale: Callable[[Tensor], Tensor] = lambda w: _safe(_largest(w) / 127),
    to_codes: Callable[[Tensor], Tensor] = lambda x: torch.round(x).to(torch.int8),
    end: Callable[[Tensor, Tensor, Tensor], Any] = lambda codes, scale, w: (codes, scale),
) -> Callable[[Tensor], Any]:
    """A quantiser with something changed: the scales [o], the way from w / scale to codes, or what is returned."""

    def answer(weight: Tensor) -> Any:
        s = scale(weight)
        return end(to_codes(weight / _behind(s, weight)), s, weight)

    return answer


def _wrapped(x: Tensor) -> Tensor:
    """Rounds to int8 as the processor does where a code does not fit: 128 becomes -128."""
    return (x.round().nan_to_num(0).to(torch.int64) + 128).remainder(256).sub(128).to(torch.int8)


def _per_tensor(weight: Tensor) -> Tensor:
    return _safe((weight.abs().max() / 127).expand(len(weight)).clone())


def _zero_point(weight: Tensor) -> tuple[Tensor, Tensor]:
    rows = weight.flatten(1)
    low, high = rows.amin(1), rows.amax(1)
    scale = _safe((high - low) / 255)
    codes = torch.round((weight - _behind(low, weight)) / _behind(scale, weight)) - 128
    return codes.to(torch.int8), scale


def _by_inputs(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Scales of the second axis, the incoming channels."""
    codes, scale = quantise(weight.transpose(0, 1))
    return codes.transpose(0, 1), scale


def _away_from_zero(x: Tensor) -> Tensor:
    return (x.abs() + 0.5).floor().mul(x.sign()).to(torch.int8)


def _quantise_cases(generator: Generator) -> list[Case]:
    def case(says: str, *shape: int, dtype: torch.dtype = torch.float32) -> Case:
        size = 1 + torch.arange(shape[0], dtype=dtype)
        return Case(says, (torch.randn(shape, generator=generator, dtype=dtype) * _behind(size, torch.zeros(shape)),))

    paper = torch.tensor([[127.0, 0.5, 1.5, -2.5], [-0.254, 0.1, 0.0, -0.051]])
    dead = torch.randn(3, 2, 3, 3, generator=generator)
    dead[1] = 0
    below = -torch.rand(3, 4, generator=generator) - 0.2
    return [
        Case("the example on paper", (paper,)),
        case("filters [4, 2, 3, 3]", 4, 2, 3, 3),
        case("filters [3, 3, 3, 3], as many channels in as out", 3, 3, 3, 3),
        case("a matrix [5, 4]", 5, 4),
        Case("a channel of zeros", (dead,)),
        Case("weights that are all negative", (below,)),
        Case("a channel of very small weights", (torch.tensor([[1.0, -0.3, 0.2], [2e-7, -4e-7, 1e-7]]),)),
        case("a single output channel", 1, 2, 3, 3),
        case("in float64", 3, 2, 3, 3, dtype=torch.float64),
    ]


def _opposite_codes(answer: Callable, reference: Callable) -> str | None:
    weight = torch.randn(3, 5, generator=Generator().manual_seed(2))
    (codes, scale), (turned, same) = answer(weight), answer(-weight)
    if not torch.equal(codes, -turned) or not torch.equal(scale, same):
        return "the codes of -weight were not the opposite ones, with the same scales."
    return None


QUANTISE = Exercise(
    id="25.2",
    title="Int8 filters",
    reference=quantise,
    cases=_quantise_cases,
    properties=(Property("opposite weights have opposite codes", _opposite_codes),),
    right=(_quantise_by_channel, _quantise_by_max_and_min, _quantise_by_transposing, _quantise_by_einsum),
    wrong=(
        Wrong(
            "signs lost",
            _quantised(to_codes=lambda x: x.abs().round().to(torch.int8)),
            "the codes have lost their signs",
            "Sizes are for the scale; the codes come from the weights themselves.",
        ),
        Wrong(
            "one scale",
            _quantised(scale=_per_tensor),
            "one scale serves the whole tensor, and not each output channel its own",
            "`weight.flatten(1).abs().amax(1)` has a largest size for every output channel.",
            also=(
                _quantised(scale=lambda w: _per_tensor(w)[:1]),
                lambda w: (torch.round(w / (w.abs().max() / 127)).to(torch.int8), w.abs().max() / 127),
            ),
        ),
        Wrong(
            "cut off",
            _quantised(to_codes=lambda x: x.to(torch.int8)),
            "the numbers are cut off, or rounded down, and not rounded to the nearest code",
            "`torch.round` before `.to(torch.int8)`, which alone cuts off the fraction.",
            also=(
                _quantised(to_codes=lambda x: x.floor().to(torch.int8)),
                _quantised(to_codes=lambda x: x.ceil().to(torch.int8)),
                lambda w: ((w // _behind(_safe(_largest(w) / 127), w)).to(torch.int8), _safe(_largest(w) / 127)),
            ),
        ),
        Wrong(
            "128 codes",
            _quantised(scale=lambda w: _safe(_largest(w) / 128), to_codes=_wrapped),
            "the largest weight gets the code 128, which int8 does not have: it turns into -128, or is cut to 127",
            "Divide the largest size by 127.",
            also=(
                _quantised(
                    scale=lambda w: _safe(_largest(w) / 128),
                    to_codes=lambda x: x.round().clamp(-128, 127).to(torch.int8),
                ),
                _quantised(
                    scale=lambda w: _safe(_largest(w) / 128),
                    to_codes=lambda x: x.round().clamp(-127, 127).to(torch.int8),
                ),
                _quantised(scale=lambda w: _largest(w) / 128, to_codes=_wrapped),
            ),
        ),
        Wrong(
            "255 steps",
            _quantised(scale=lambda w: _safe(2 * _largest(w) / 255)),
            "the steps are those of 255 or 256 codes between minus and plus the largest size",
            "The codes go from -127 to 127: one step is the largest size by 127.",
            also=(
                _quantised(scale=lambda w: _safe(_largest(w) / 255)),
                _quantised(
                    scale=lambda w: _safe(_largest(w) / 127.5),
                    to_codes=lambda x: x.round().clamp(-127, 127).to(torch.int8),
                ),
            ),
        ),
        Wrong(
            "with a zero point",
            _zero_point,
            "the range from the smallest to the largest weight is cut into steps, which needs a zero point",
            "Symmetric: the scale is the largest *size*, and the code of 0 is 0.",
            also=(
                _quantised(scale=lambda w: _safe((w.flatten(1).amax(1) - w.flatten(1).amin(1)) / 255)),
                _quantised(scale=lambda w: _safe((w.flatten(1).amax(1) - w.flatten(1).amin(1)) / 254)),
                _quantised(
                    scale=lambda w: _safe((w.flatten(1).amax(1) - w.flatten(1).amin(1)) / 254),
                    to_codes=lambda x: x.round().clamp(-127, 127).to(torch.int8),
                ),
                _quantised(
                    scale=lambda w: _safe((w.flatten(1).amax(1) - w.flatten(1).amin(1)) / 255),
                    to_codes=lambda x: x.round().clamp(-127, 127).to(torch.int8),
                ),
            ),
        ),
        Wrong(
            "no sizes",
            _quantised(scale=lambda w: _safe(w.flatten(1).amax(1) / 127), to_codes=_wrapped),
            "the largest weight counts, and not the largest size: a large negative weight does not fit",
            "Take `.abs()` before the maximum.",
            also=(
                _quantised(scale=lambda w: w.flatten(1).amax(1) / 127, to_codes=lambda x: x.round().to(torch.int8)),
                _quantised(scale=lambda w: w.flatten(1).amax(1).abs() / 127, to_codes=_wrapped),
                _quantised(
                    scale=lambda w: _safe(w.flatten(1).amax(1).abs() / 127),
                    to_codes=lambda x: x.round().clamp(-127, 127).to(torch.int8),
                ),
                _quantised(
                    scale=lambda w: _safe(w.flatten(1).amax(1) / 127),
                    to_codes=lambda x: x.round().clamp(-127, 127).to(torch.int8),
                ),
            ),
        ),
        Wrong(
            "a scale of zero",
            _quantised(scale=lambda w: _largest(w) / 127, to_codes=lambda x: x.nan_to_num(0).round().to(torch.int8)),
            "a channel of zeros does not get the scale 1: 0 divided by 0 is no number, and a tiny scale is no 1 either",
            "`torch.where(largest > 0, largest / 127, 1.0)`.",
            also=(_quantised(scale=lambda w: _safe(_largest(w)) / 127),),
        ),
        Wrong(
            "at least 1",
            _quantised(scale=lambda w: (_largest(w) / 127).clamp_min(1)),
            "every scale is at least 1, so small weights all get the code 0",
            "Only a channel of zeros gets the scale 1.",
            also=(_quantised(scale=lambda w: _largest(w).clamp_min(1) / 127),),
        ),
        Wrong(
            "four axes only",
            lambda w: (
                torch.round(w / (w.abs().amax((1, 2, 3)) / 127)[:, None, None, None]).to(torch.int8),
                w[:, 0, 0, 0],
            ),
            "exactly four axes are expected: a matrix [o, i] has two, and fails",
            "`weight.flatten(1)` serves any number of axes, and `scale.view(-1, *[1] * (weight.dim() - 1))` too.",
            also=(
                lambda w: (
                    torch.round(w / _safe(_largest(w) / 127)[:, None, None, None]).to(torch.int8),
                    _safe(_largest(w) / 127),
                ),
                lambda w: (w.permute(1, 2, 3, 0), w),
            ),
        ),
        Wrong(
            "no axes behind the scales",
            lambda w: (torch.round(w / _safe(_largest(w) / 127)).to(torch.int8), _safe(_largest(w) / 127)),
            "the scales `[o]` meet the last axis of the weights, and not the first",
            "Give the scales axes of size 1 behind: `scale.view(-1, *[1] * (weight.dim() - 1))`.",
        ),
        Wrong(
            "incoming channels",
            _by_inputs,
            "the scales belong to the incoming channels, the second axis",
            "Output channels are axis 0: one scale for each `weight[k]`.",
            also=(
                lambda w: (
                    torch.round(w / _safe(w.abs().amax(0) / 127)).to(torch.int8),
                    _safe(w.abs().amax(0) / 127),
                ),
            ),
        ),
        Wrong(
            "every row of a filter",
            lambda w: (
                torch.round(w / _safe(w.abs().amax(1, keepdim=True) / 127)).to(torch.int8),
                _safe(w.abs().amax(1) / 127),
            ),
            "the maximum runs over one axis only, so that the scales keep the others",
            "Flatten everything behind the output channels first: `.flatten(1)`.",
            also=(
                lambda w: (
                    torch.round(w / _safe(w.abs().amax(-1, keepdim=True) / 127)).to(torch.int8),
                    _safe(w.abs().amax(-1) / 127),
                ),
            ),
        ),
        Wrong(
            "axes kept",
            _quantised(end=lambda codes, scale, w: (codes, _behind(scale, w))),
            "the scales keep axes of size 1 behind them",
            "Return `scale` as `[o]`; view it only for the division.",
            also=(_quantised(end=lambda codes, scale, w: (codes, scale[:, None])),),
        ),
        Wrong(
            "codes in float",
            _quantised(to_codes=torch.round),
            "the codes are still floats, or integers of another kind: no byte is saved",
            "`.to(torch.int8)` behind the rounding.",
            also=(
                _quantised(to_codes=lambda x: x.round().int()),
                _quantised(to_codes=lambda x: x.round().long()),
                _quantised(to_codes=lambda x: x.round().short()),
                _quantised(to_codes=lambda x: x.round().to(torch.int16).to(torch.uint8)),
                _quantised(to_codes=lambda x: x.round().half()),
                _quantised(to_codes=lambda x: x.round().to(torch.int8).float()),
            ),
        ),
        Wrong(
            "inverse",
            _quantised(end=lambda codes, scale, w: (codes, 1 / scale)),
            "the inverse of the scale is returned",
            "`codes * scale` must give the weights back, about.",
        ),
        Wrong(
            "multiplied",
            lambda w: (_wrapped(w * _behind(_safe(_largest(w) / 127), w)), _safe(_largest(w) / 127)),
            "the weights are multiplied by the scale, and not divided",
            "Codes are `weight / scale`, rounded.",
        ),
        Wrong(
            "the largest size as scale",
            _quantised(scale=lambda w: _safe(_largest(w))),
            "the scale is the largest size itself: only the codes -1, 0 and 1 are left",
            "Divide the largest size by 127.",
            also=(
                _quantised(end=lambda codes, scale, w: (codes, _safe(_largest(w)))),
                _quantised(
                    scale=lambda w: _safe(_largest(w)),
                    to_codes=lambda x: (127 * x).round().to(torch.int8),
                ),
            ),
        ),
        Wrong(
            "halves away from zero",
            _quantised(to_codes=_away_from_zero),
            "halves are rounded away from zero, or up, and not to the even code",
            "`torch.round` rounds halves to even: 0.5 to 0, 1.5 to 2.",
            also=(_quantised(to_codes=lambda x: (x + 0.5).floor().to(torch.int8)),),
        ),
        Wrong(
            "fewer bits",
            _quantised(scale=lambda w: _safe(_largest(w) / 63)),
            "the codes end at 63 or 64: one bit is wasted",
            "Eight bits reach from -127 to 127.",
            also=(
                _quantised(scale=lambda w: _safe(_largest(w) / 64)),
                _quantised(scale=lambda w: _safe(_largest(w) / 100)),
            ),
        ),
        Wrong(
            "mean size",
            _quantised(scale=lambda w: _safe(w.flatten(1).abs().mean(1) / 127), to_codes=_wrapped),
            "the scale comes from the mean size or the spread, so that large weights do not fit",
            "The *largest* size must get the code 127.",
            also=(
                _quantised(
                    scale=lambda w: _safe(w.flatten(1).abs().mean(1) / 127),
                    to_codes=lambda x: x.round().clamp(-127, 127).to(torch.int8),
                ),
                _quantised(scale=lambda w: _safe(w.flatten(1).norm(dim=1) / 127)),
            ),
        ),
        Wrong(
            "given back",
            _quantised(end=lambda codes, scale, w: (codes * _behind(scale, w), scale)),
            "the rounded weights are returned, and not their codes",
            "Return the int8 codes; multiplying by the scale is for later.",
        ),
        Wrong(
            "codes alone",
            _quantised(end=lambda codes, scale, w: codes),
            "one of the two is missing",
            "`return codes, scale`.",
            also=(_quantised(end=lambda codes, scale, w: scale),),
        ),
        Wrong(
            "exchanged",
            _quantised(end=lambda codes, scale, w: (scale, codes)),
            "codes and scales have changed places",
            "Codes first, scales second.",
        ),
    ),
    hints=(
        "Which weight of a channel must get the code 127 or -127? That fixes the step.",
        "Flatten behind axis 0, take sizes and their maximum; divide by 127; a maximum of 0 needs a scale of 1.",
        "`scale = torch.where(largest > 0, largest / 127, 1.0)`; `torch.round(weight / scale[:, None, None, None])` for filters",
    ),
)

# ---------------------------------------------------------------------------------------------- 25.3 the loss of distillation


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean over rows of KL(teacher || student), both softened by T. [M, N] twice -> scalar."""
    mine = (student / temperature).log_softmax(1)
    theirs = (teacher.detach() / temperature).log_softmax(1)
    return temperature**2 * (theirs.exp() * (theirs - mine)).sum(1).mean()


def _distil_by_kl_div(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    mine, theirs = (student / temperature).log_softmax(-1), (teacher.detach() / temperature).log_softmax(-1)
    return F.kl_div(mine, theirs, reduction="batchmean", log_target=True) * temperature * temperature


def _distil_by_probabilities(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    with torch.no_grad():
        wanted = F.softmax(teacher / temperature, dim=1)
    return F.kl_div(F.log_softmax(student / temperature, 1), wanted, reduction="batchmean").mul(temperature**2)


def _distil_by_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    wanted = (teacher.detach() / temperature).softmax(1)
    entropy = -torch.special.xlogy(wanted, wanted).sum(1).mean()
    return temperature**2 * (F.cross_entropy(student / temperature, wanted) - entropy)


def _distil_by_rows(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    total = student.new_zeros(())
    for mine, theirs in zip(student, teacher.data, strict=True):
        a = mine / temperature - torch.logsumexp(mine / temperature, 0)
        b = theirs / temperature - torch.logsumexp(theirs / temperature, 0)
        total = total + (b.exp() * (b - a)).sum()
    return temperature**2 * total / len(student)


def _distilled(
    *,
    factor: Callable[[float], float] = lambda t: t**2,
    mine: Callable[[Tensor, float], Tensor] = lambda z, t: (z / t).log_softmax(1),
    theirs: Callable[[Tensor, float], Tensor] = lambda z, t: (z.detach() / t).log_softmax(1),
    gap: Callable[[Tensor, Tensor], Tensor] = lambda a, b: (b.exp() * (b - a)).sum(1),
    end: Callable[[Tensor], Tensor] = torch.mean,
) -> Callable[[Tensor, Tensor, float], Tensor]:
    """A loss with something changed: the factor, either logarithm of softened probabilities, their gap, the mean over rows."""

    def answer(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        return factor(temperature) * end(gap(mine(student, temperature), theirs(teacher, temperature)))

    return answer


def _distil_cases(generator: Generator) -> list[Case]:
    def case(says: str, m: int, n: int, temperature: float, dtype: torch.dtype = torch.float32) -> Case:
        student, teacher = (3 * torch.randn(m, n, generator=generator, dtype=dtype) for _ in range(2))
        return Case(says, (student, teacher, temperature))

    paper = torch.zeros(1, 2), torch.tensor([[2 * 1.0986122886681098, 0.0]]), 2.0
    far = torch.tensor([[0.0, -900.0, -1200.0], [-700.0, 0.0, -1.0]])
    return [
        Case("the example on paper", paper),
        case("6 queries, 5 classes, T = 4", 6, 5, 4.0),
        case("T = 1", 4, 3, 1.0),
        case("T = 0.5, sharper than it was", 4, 3, 0.5),
        case("a single query", 1, 4, 3.0),
        case("as many queries as classes", 4, 4, 2.0),
        Case("a student that answers as its teacher", (case("", 3, 4, 2.0).args[0],) * 2 + (2.0,)),
        Case("logits that lie far apart", (far.flip(0), far, 4.0)),
        case("in float64", 5, 3, 2.5, torch.float64),
    ]


def _teacher_is_left_alone(answer: Callable, reference: Callable) -> str | None:
    g = Generator().manual_seed(4)
    student, teacher = (torch.randn(3, 4, generator=g).requires_grad_() for _ in range(2))
    answer(student, teacher, 2.0).backward()
    if teacher.grad is not None and bool(teacher.grad.abs().max() > 0):
        return "a gradient reached the teacher's logits."
    return None


def _student_and_teacher(answer: Callable, reference: Callable) -> str | None:
    student = torch.randn(3, 4, generator=Generator().manual_seed(4)).requires_grad_()
    answer(student, student.detach().clone(), 3.0).backward()
    if student.grad is None or bool(student.grad.abs().max() > 1e-5):
        return "a student that answers as its teacher was still pulled away."
    return None


def _shares(z: Tensor, t: float) -> Tensor:
    return (z / t).softmax(1)


def _attached(z: Tensor, t: float) -> Tensor:
    """The teacher's logarithms, with its gradient."""
    return (z / t).log_softmax(1)


DISTIL = Exercise(
    id="25.3",
    title="The loss of distillation",
    reference=distillation_loss,
    cases=_distil_cases,
    gradient=(0,),
    properties=(
        Property("the teacher gets no gradient", _teacher_is_left_alone),
        Property("who agrees with the teacher stays where they are", _student_and_teacher),
    ),
    right=(_distil_by_kl_div, _distil_by_probabilities, _distil_by_cross_entropy, _distil_by_rows),
    wrong=(
        Wrong(
            "no factor",
            _distilled(factor=lambda t: 1.0),
            "the factor T squared is missing: the softer the targets, the smaller the gradient",
            "Multiply by `temperature**2`.",
            also=(_distilled(factor=lambda t: 1.0, theirs=_attached),),
        ),
        Wrong(
            "T once",
            _distilled(factor=lambda t: t),
            "the factor is T, and not T squared",
            "Both softmaxes divide by T, so the gradient falls like 1/T squared.",
            also=(_distilled(factor=lambda t: t, theirs=_attached),),
        ),
        Wrong(
            "divided by T squared",
            _distilled(factor=lambda t: 1 / t**2),
            "the divergence is divided by T squared, or by T",
            "Multiply: the factor gives back what softening took.",
            also=(
                _distilled(factor=lambda t: 1 / t),
                _distilled(factor=lambda t: 1 / t**2, theirs=_attached),
                _distilled(factor=lambda t: 1 / t, theirs=_attached),
            ),
        ),
        Wrong(
            "reversed",
            _distilled(gap=lambda a, b: (a.exp() * (a - b)).sum(1)),
            "the divergence is turned round: KL(student || teacher)",
            "The teacher's probabilities weigh the differences; in `F.kl_div` the student comes first, as logarithms.",
            also=(
                lambda s, t, T: T**2 * F.kl_div((t / T).log_softmax(1), (s / T).softmax(1), reduction="batchmean"),
                _distilled(gap=lambda a, b: (b.exp() * (a - b)).sum(1)),
                _distilled(gap=lambda a, b: (b.exp() * (a - b)).sum(1), theirs=_attached),
                _distilled(factor=lambda t: 1.0, gap=lambda a, b: (a.exp() * (a - b)).sum(1)),
                lambda s, t, T: (
                    T**2 * F.kl_div(_shares(t.detach(), T).log(), (s / T).log_softmax(1).exp(), reduction="batchmean")
                ),
            ),
        ),
        Wrong(
            "mean over entries",
            lambda s, t, T: T**2 * F.kl_div((s / T).log_softmax(1), (t.detach() / T).softmax(1), reduction="mean"),
            "the mean runs over all entries, and not over the queries: it is too small by the number of classes",
            '`reduction="batchmean"`, or sum over the classes and then take the mean.',
            also=(
                lambda s, t, T: T**2 * F.kl_div((s / T).log_softmax(1), (t / T).softmax(1), reduction="mean"),
                _distilled(factor=lambda t: 1.0, gap=lambda a, b: (b.exp() * (b - a)).mean(1)),
                _distilled(factor=lambda t: 1.0, gap=lambda a, b: (b.exp() * (b - a)).mean(1), theirs=_attached),
            ),
        ),
        Wrong(
            "sum over queries",
            _distilled(end=torch.sum),
            "the queries are summed, and not averaged",
            "Take the mean over the rows.",
            also=(_distilled(end=torch.sum, theirs=_attached),),
        ),
        Wrong(
            "one number for each query",
            _distilled(end=lambda rows: rows),
            "every query keeps a number of its own",
            "Return the mean over the queries, one number.",
        ),
        Wrong(
            "probabilities in place of logarithms",
            lambda s, t, T: T**2 * F.kl_div(_shares(s, T), _shares(t.detach(), T), reduction="batchmean"),
            "`F.kl_div` gets the student's probabilities, and it expects their logarithms",
            "`log_softmax` for the student.",
            also=(
                lambda s, t, T: T**2 * F.kl_div(_shares(s, T), _shares(t, T), reduction="batchmean"),
                lambda s, t, T: T**2 * F.kl_div(s / T, _shares(t.detach(), T), reduction="batchmean"),
                lambda s, t, T: T**2 * F.kl_div(s / T, t.detach() / T, reduction="batchmean"),
            ),
        ),
        Wrong(
            "logarithms as a target",
            lambda s, t, T: (
                T**2 * F.kl_div((s / T).log_softmax(1), (t.detach() / T).log_softmax(1), reduction="batchmean")
            ),
            "the target of `F.kl_div` is given as logarithms without `log_target=True`, or as probabilities with it",
            "Give it the teacher's probabilities, or logarithms and `log_target=True`.",
            also=(
                lambda s, t, T: (
                    T**2
                    * F.kl_div(
                        (s / T).log_softmax(1), (t.detach() / T).softmax(1), reduction="batchmean", log_target=True
                    )
                ),
            ),
        ),
        Wrong(
            "cross-entropy",
            _distilled(gap=lambda a, b: -(b.exp() * a).sum(1)),
            "this is the cross-entropy: it has the same gradient, but it is not 0 for a student that agrees",
            "Take the teacher's entropy away: weigh `log p_teacher - log p_student`.",
            also=(
                lambda s, t, T: F.cross_entropy(s / T, (t.detach() / T).softmax(1)),
                _distilled(gap=lambda a, b: -(b.exp() * a).sum(1), theirs=_attached),
                _distilled(gap=lambda a, b: -(b.exp() * a).mean(1)),
                _distilled(factor=lambda t: 1.0, gap=lambda a, b: -(b.exp() * a).sum(1), theirs=_attached),
                _distilled(factor=lambda t: 1.0, gap=lambda a, b: -(b.exp() * a).mean(1)),
            ),
        ),
        Wrong(
            "hard labels",
            lambda s, t, T: F.cross_entropy(s, t.argmax(1)),
            "only the teacher's best class is used: everything that it says about the others is lost",
            "Use all of its softened probabilities.",
            also=(
                lambda s, t, T: T**2 * F.cross_entropy(s / T, t.argmax(1)),
                lambda s, t, T: F.cross_entropy(s / T, t.argmax(1)),
            ),
        ),
        Wrong(
            "teacher not softened",
            _distilled(theirs=lambda z, t: z.detach().log_softmax(1)),
            "the teacher's logits are not divided by T",
            "Both are divided by the same temperature.",
            also=(_distilled(theirs=lambda z, t: z.log_softmax(1)),),
        ),
        Wrong(
            "student not softened",
            _distilled(mine=lambda z, t: z.log_softmax(1)),
            "the student's logits are not divided by T",
            "Both are divided by the same temperature.",
            also=(_distilled(mine=lambda z, t: z.log_softmax(1), theirs=_attached),),
        ),
        Wrong(
            "no temperature",
            _distilled(mine=lambda z, t: z.log_softmax(1), theirs=lambda z, t: z.detach().log_softmax(1)),
            "nothing is softened: T does not divide the logits",
            "`(logits / temperature).log_softmax(1)`, for both.",
            also=(
                _distilled(
                    factor=lambda t: 1.0,
                    mine=lambda z, t: z.log_softmax(1),
                    theirs=lambda z, t: z.detach().log_softmax(1),
                ),
                _distilled(
                    mine=lambda z, t: z.log_softmax(1) / t,
                    theirs=lambda z, t: z.detach().log_softmax(1) / t,
                ),
                _distilled(mine=lambda z, t: z.log_softmax(1), theirs=lambda z, t: z.log_softmax(1)),
            ),
        ),
        Wrong(
            "multiplied",
            _distilled(mine=lambda z, t: (z * t).log_softmax(1), theirs=lambda z, t: (z.detach() * t).log_softmax(1)),
            "the logits are multiplied by T, which makes them sharper",
            "Divide by T.",
            also=(
                _distilled(
                    factor=lambda t: 1 / t**2,
                    mine=lambda z, t: (z * t).log_softmax(1),
                    theirs=lambda z, t: (z.detach() * t).log_softmax(1),
                ),
            ),
        ),
        Wrong(
            "softmax over queries",
            _distilled(mine=lambda z, t: (z / t).log_softmax(0), theirs=lambda z, t: (z.detach() / t).log_softmax(0)),
            "the softmax runs over the queries, and not over the classes",
            "Classes are axis 1.",
            also=(_distilled(mine=lambda z, t: (z / t).log_softmax(0), theirs=lambda z, t: (z / t).log_softmax(0)),),
        ),
        Wrong(
            "logarithm behind the softmax",
            _distilled(
                mine=lambda z, t: (z / t).softmax(1).log(), theirs=lambda z, t: (z.detach() / t).softmax(1).log()
            ),
            "`softmax(...).log()` rounds small probabilities to 0 first, and their logarithm is minus infinity",
            "`log_softmax` in one step.",
            also=(
                _distilled(mine=lambda z, t: (z / t).softmax(1).log()),
                _distilled(mine=lambda z, t: ((z / t).softmax(1) + 1e-8).log()),
                lambda s, t, T: T**2 * (_shares(t, T) * (_shares(t, T) / _shares(s, T)).log()).sum(1).mean(),
            ),
        ),
        Wrong(
            "squares of logits",
            lambda s, t, T: F.mse_loss(s, t.detach()),
            "the squared differences of logits or probabilities are averaged",
            "Compare the softened probabilities by the Kullback-Leibler divergence.",
            also=(
                lambda s, t, T: F.mse_loss(_shares(s, T), _shares(t.detach(), T)),
                lambda s, t, T: T**2 * F.mse_loss(_shares(s, T), _shares(t.detach(), T)),
                lambda s, t, T: F.mse_loss(s / T, t.detach() / T),
            ),
        ),
        Wrong(
            "both directions",
            _distilled(gap=lambda a, b: ((b.exp() - a.exp()) * (b - a)).sum(1)),
            "both directions of the divergence are added or averaged",
            "Only KL(teacher || student).",
            also=(_distilled(gap=lambda a, b: ((b.exp() - a.exp()) * (b - a)).sum(1) / 2),),
        ),
        Wrong(
            "student cut off",
            lambda s, t, T: distillation_loss(s.detach(), t, T),
            "the student is cut off from the gradient, and it is the one to learn",
            "`.detach()` belongs to the teacher.",
            also=(lambda s, t, T: _distilled(theirs=lambda z, t: (z / t).log_softmax(1))(s.detach(), t, T),),
        ),
        Wrong(
            "a float",
            lambda s, t, T: float(distillation_loss(s, t, T)),
            "a Python number is returned, which carries no gradient",
            "Return the tensor, without `.item()` or `float(...)`.",
        ),
        Wrong(
            "teacher learns, too",
            _distilled(theirs=lambda z, t: (z / t).log_softmax(1)),
            "the teacher gets a gradient as well, and moves towards its student",
            "`teacher.detach()`.",
        ),
    ),
    hints=(
        "Two rows of probabilities for each query, both made softer by T. How far is the student's from the teacher's?",
        "`log_softmax` of both divided by T, the teacher detached; weigh the differences by the teacher's probabilities.",
        '`temperature**2 * F.kl_div(log_p_student, log_p_teacher, reduction="batchmean", log_target=True)`',
    ),
)

# ---------------------------------------------------------------------------------------------- 25.4 a store of class means

Store = dict[str, tuple[Tensor, int]]


def remember(store: Store, name: str, embeddings: Tensor) -> Store:
    """Takes pictures of one class into a store. store: name -> (float16 mean [D], count); embeddings float32 [K, D]."""
    mean, count = store.get(name, (torch.zeros(embeddings.shape[1]), 0))
    after = count + len(embeddings)
    mean = mean.float() + (embeddings - mean.float()).sum(0) / after
    return {**store, name: (mean.half(), after)}


def _remember_by_sums(store: Store, name: str, embeddings: Tensor) -> Store:
    found = dict(store)
    if name in found:
        mean, count = found[name]
        total = mean.to(torch.float32) * count + embeddings.sum(dim=0)
        count = count + embeddings.shape[0]
        found[name] = ((total / count).to(torch.float16), count)
    else:
        found[name] = (embeddings.mean(0).to(torch.float16), len(embeddings))
    return found


def _remember_in_double(store: Store, name: str, embeddings: Tensor) -> Store:
    rows, (old, n) = embeddings.double(), store.get(name, (None, 0))
    total = rows.sum(0) if old is None else rows.sum(0) + n * old.double()
    return store | {name: ((total / (n + len(rows))).half(), n + len(rows))}


def _remember_by_weights(store: Store, name: str, embeddings: Tensor) -> Store:
    k = len(embeddings)
    mean, n = store.get(name, (torch.zeros_like(embeddings[0]).half(), 0))
    share = k / (n + k)
    mixed = torch.lerp(mean.float(), embeddings.mean(0), share)
    return {key: value for key, value in store.items() if key != name} | {name: (mixed.half(), n + k)}


def _remember_one_by_one(store: Store, name: str, embeddings: Tensor) -> Store:
    mean, count = store.get(name, (torch.zeros(embeddings.shape[1], dtype=torch.float16), 0))
    mean = mean.double()
    for row in embeddings:
        count += 1
        mean = mean + (row - mean) / count
    copy = store.copy()
    copy[name] = mean.half(), count
    return copy


def _remembered(
    *,
    step: Callable[[Tensor, int, Tensor], Tensor] = lambda c, n, z: (c * n + z.sum(0)) / (n + len(z)),
    first: Callable[[Tensor], Tensor] = lambda z: z.mean(0),
    count: Callable[[int, Tensor], Any] = lambda n, z: n + len(z),
    kind: torch.dtype = torch.float16,
    end: Callable[[Store, str, tuple[Tensor, Any]], Any] = lambda store, name, entry: {**store, name: entry},
) -> Callable[[Store, str, Tensor], Any]:
    """A store with something changed: the step of a known class, the mean of a new one, the count, the dtype, the end."""

    def answer(store: Store, name: str, embeddings: Tensor) -> Any:
        if name in store:
            mean, n = store[name]
            entry = step(mean.float(), n, embeddings).to(kind), count(n, embeddings)
        else:
            entry = first(embeddings).to(kind), count(0, embeddings)
        return end(store, name, entry)

    return answer


def _in_half(store: Store, name: str, embeddings: Tensor) -> Store:
    """The mean times the count, in float16: more than 65504 is infinite there."""
    mean, n = store.get(name, (embeddings[0].half() * 0, 0))
    total = mean * n + embeddings.sum(0).half()
    return {**store, name: (total / (n + len(embeddings)), n + len(embeddings))}


def _half_then_float(store: Store, name: str, embeddings: Tensor) -> Store:
    mean, n = store.get(name, (embeddings[0].half() * 0, 0))
    return {
        **store,
        name: (((mean * n).float() + embeddings.sum(0)).div(n + len(embeddings)).half(), n + len(embeddings)),
    }


def _half_pictures(store: Store, name: str, embeddings: Tensor) -> Store:
    mean, n = store.get(name, (embeddings[0].half() * 0, 0))
    return {**store, name: ((mean * n + embeddings.half().sum(0)) / (n + len(embeddings)), n + len(embeddings))}


def _half_steps(store: Store, name: str, embeddings: Tensor) -> Store:
    mean, n = store.get(name, (embeddings[0].half() * 0, 0))
    for row in embeddings.half():
        n += 1
        mean = mean + (row - mean) / n
    return {**store, name: (mean, n)}


def _rounded_steps(store: Store, name: str, embeddings: Tensor) -> Store:
    mean, n = store.get(name, (embeddings[0].half() * 0, 0))
    for row in embeddings:
        n += 1
        mean = (mean.float() + (row - mean.float()) / n).half()
    return {**store, name: (mean, n)}


def _promoted(store: Store, name: str, embeddings: Tensor) -> Store:
    mean, n = store.get(name, (torch.zeros(embeddings.shape[1]), 0))
    return {**store, name: ((mean * n + embeddings.sum(0)) / (n + len(embeddings)), n + len(embeddings))}


def _new_in_half_only(store: Store, name: str, embeddings: Tensor) -> Store:
    if name not in store:
        return {**store, name: (embeddings.mean(0).half(), len(embeddings))}
    mean, n = store[name]
    after = n + len(embeddings)
    return {**store, name: ((mean.float() * n + embeddings.sum(0)) / after, after)}


def _new_in_float_only(store: Store, name: str, embeddings: Tensor) -> Store:
    return (
        remember(store, name, embeddings) if name in store else {**store, name: (embeddings.mean(0), len(embeddings))}
    )


def _writes_and_returns_nothing(store: Store, name: str, embeddings: Tensor) -> None:
    store[name] = remember(store, name, embeddings)[name]


def _zeros_count(store: Store, name: str, embeddings: Tensor) -> Store:
    mean, n = store.get(name, (torch.zeros(embeddings.shape[1]), 1))
    after = n + len(embeddings)
    return {**store, name: (((mean.float() * n + embeddings.sum(0)) / after).half(), after)}


def _writes(store: Store, name: str, embeddings: Tensor) -> Store:
    store[name] = remember(store, name, embeddings)[name]
    return store


def _writes_into_the_mean(store: Store, name: str, embeddings: Tensor) -> Store:
    entry = remember(store, name, embeddings)[name]
    if name in store:
        store[name][0].copy_(entry[0])
        return {**store, name: (store[name][0], entry[1])}
    return {**store, name: entry}


def _known_only(store: Store, name: str, embeddings: Tensor) -> Store:
    mean, n = store[name]
    after = n + len(embeddings)
    return {**store, name: (((mean.float() * n + embeddings.sum(0)) / after).half(), after)}


def _renormalised(store: Store, name: str, entry: tuple[Tensor, Any]) -> Store:
    return {**store, name: (F.normalize(entry[0].float(), dim=0).half(), entry[1])}


def _remember_cases(generator: Generator) -> list[Case]:
    def rows(k: int, d: int, middle: float = 0.0) -> Tensor:
        return middle + torch.randn(k, d, generator=generator)

    def store(**counts: int) -> Store:
        return {name: (rows(1, 3)[0].half(), n) for name, n in counts.items()}

    long_known = {"ka": (torch.tensor([40.0, 12.0, -30.0]).half(), 4000), "mu": (torch.ones(3).half(), 2)}
    paper: Store = {"A": (torch.tensor([2.0, 0.0]).half(), 3)}
    return [
        Case("the example on paper", (paper, "A", torch.tensor([[6.0, 4.0]]))),
        Case("an empty store", ({}, "ka", rows(5, 4))),
        Case("a new class beside two known ones", (store(ka=5, mu=2), "to", rows(3, 3))),
        Case("two pictures more of a class with five", (store(ka=5, mu=2), "ka", rows(2, 3, 1.0))),
        Case("more new pictures than old ones", (store(ka=1, mu=2), "mu", rows(6, 3, -2.0))),
        Case("a new class whose numbers float16 cannot hold", ({}, "to", torch.tensor([[2049.0], [2049.0], [2050.0]]))),
        Case("a single new picture", (store(ka=3), "ka", rows(1, 3))),
        Case("a class with 4000 pictures, and 600 more", (long_known, "ka", rows(600, 3, 60.0))),
    ]


def _others_stay(answer: Callable, reference: Callable) -> str | None:
    mean = torch.tensor([0.1, -3.0]).half()
    found = answer({"A": (mean, 3), "B": (mean + 1, 4)}, "B", torch.ones(2, 2))
    if "A" not in found or not torch.equal(found["A"][0], torch.tensor([0.1, -3.0]).half()) or found["A"][1] != 3:
        return "class A changed while pictures of B came."
    return None


REMEMBER = Exercise(
    id="25.4",
    title="A store of class means",
    reference=remember,
    cases=_remember_cases,
    properties=(Property("a class is left alone while pictures of another one come", _others_stay),),
    tolerance=1.5e-3,  # neighbours in float16 differ by up to a thousandth
    right=(_remember_by_sums, _remember_in_double, _remember_by_weights, _remember_one_by_one),
    wrong=(
        Wrong(
            "replaced",
            _remembered(step=lambda c, n, z: z.mean(0)),
            "the mean of the new pictures replaces the stored one",
            "The stored mean speaks for `count` pictures: `count * mean` is their sum.",
            also=(
                _remembered(step=lambda c, n, z: z.mean(0), count=lambda n, z: len(z)),
                _remembered(step=lambda c, n, z: z.sum(0) / (n + len(z))),
            ),
        ),
        Wrong(
            "half and half",
            _remembered(step=lambda c, n, z: (c + z.mean(0)) / 2),
            "old and new mean count the same, whatever the numbers of pictures",
            "Weigh each by its number of pictures.",
        ),
        Wrong(
            "old mean once",
            _remembered(step=lambda c, n, z: (c + z.sum(0)) / (n + len(z))),
            "the old mean is added as if it were one picture",
            "Multiply the mean by its count first.",
            also=(_remembered(step=lambda c, n, z: (c + z.sum(0)) / (1 + len(z))),),
        ),
        Wrong(
            "new mean once",
            _remembered(step=lambda c, n, z: (c * n + z.mean(0)) / (n + 1)),
            "the new pictures count as one, however many they are",
            "K new pictures weigh K times: add their sum.",
            also=(
                _remembered(step=lambda c, n, z: c + (z.mean(0) - c) / (n + len(z))),
                _remembered(step=lambda c, n, z: (c * n + z.mean(0)) / (n + 1), count=lambda n, z: n + 1),
                _remembered(step=lambda c, n, z: (c * n + z.mean(0)) / (n + len(z))),
            ),
        ),
        Wrong(
            "divided before counting",
            _remembered(step=lambda c, n, z: c + (z - c).sum(0) / n),
            "the pull is divided by the number of pictures before these came",
            "Count the new pictures first: divide by `count + len(embeddings)`.",
            also=(_remembered(step=lambda c, n, z: (c * n + z.sum(0)) / n),),
        ),
        Wrong(
            "weights exchanged",
            _remembered(step=lambda c, n, z: (c * len(z) + z.mean(0) * n) / (n + len(z))),
            "the old mean gets the new number of pictures as weight, and the other way round",
            "The old mean weighs `count`, the new one `len(embeddings)`.",
        ),
        Wrong(
            "count stays",
            _remembered(count=lambda n, z: n if n else len(z)),
            "the count does not grow by the number of new pictures",
            "`count + len(embeddings)` is the new count.",
            also=(
                _remembered(count=lambda n, z: n + 1),
                _remembered(count=lambda n, z: len(z)),
                _remembered(count=lambda n, z: n),
                _remembered(count=lambda n, z: n + z.shape[1]),
            ),
        ),
        Wrong(
            "count in a tensor",
            _remembered(count=lambda n, z: torch.tensor(n + len(z))),
            "the count is no plain int",
            "`count + len(embeddings)`, two ints.",
            also=(_remembered(count=lambda n, z: str(n + len(z))),),
        ),
        Wrong(
            "kept in float32",
            _remembered(kind=torch.float32),
            "the mean is stored in float32, or in another kind than float16",
            "`.half()` at the end.",
            also=(
                _remembered(kind=torch.float64),
                _remembered(kind=torch.bfloat16),
                _promoted,
                _new_in_half_only,
                _new_in_float_only,
            ),
        ),
        Wrong(
            "computed in float16",
            _in_half,
            "mean times count, or the sum of the pictures, is computed in float16, where nothing above 65504 exists",
            "`.float()` first, compute, and `.half()` at the end.",
            also=(_half_then_float,),
        ),
        Wrong(
            "rounded after every picture",
            _rounded_steps,
            "the mean is rounded to float16 after every picture: steps smaller than its last digit are lost, one by one",
            "Stay in float32 until all pictures are in, and round once.",
        ),
        Wrong(
            "sum stored",
            _remembered(step=lambda c, n, z: c * n + z.sum(0), first=lambda z: z.sum(0)),
            "the sum is stored, and not the mean",
            "Divide by the new count.",
            also=(
                _remembered(step=lambda c, n, z: c + z.sum(0), first=lambda z: z.sum(0)),
                _remembered(step=lambda c, n, z: c + z.mean(0)),
                _remembered(first=lambda z: z.sum(0)),
            ),
        ),
        Wrong(
            "written into the store",
            _writes,
            "the store that was given is changed, too: whoever kept it has lost the old state",
            "Return a new dict: `{**store, name: ...}`.",
            also=(
                _writes_into_the_mean,
                _writes_and_returns_nothing,
            ),
        ),
        Wrong(
            "others lost",
            _remembered(end=lambda store, name, entry: {name: entry}),
            "only the class that was updated is returned",
            "All other classes stay in the dict: `{**store, name: ...}`.",
            also=(_remembered(end=lambda store, name, entry: entry),),
        ),
        Wrong(
            "known classes kept as they are",
            lambda store, name, z: store if name in store else {**store, name: (z.mean(0).half(), len(z))},
            "a class that is there learns nothing more",
            "Its mean moves towards the new pictures.",
        ),
        Wrong(
            "a picture of zeros",
            _zeros_count,
            "a new class starts with a count of 1, as if a picture of zeros had been there",
            "A class that is not there has the count 0.",
        ),
        Wrong(
            "no new class",
            _known_only,
            "a class that is not there yet makes it fail, or is left out",
            "`store.get(name, ...)` with a mean of zeros and a count of 0.",
            also=(lambda store, name, z: remember(store, name, z) if name in store else dict(store),),
        ),
        Wrong(
            "unit length",
            _remembered(end=_renormalised),
            "the mean is scaled to unit length",
            "Store the mean as it is.",
        ),
        Wrong(
            "median",
            _remembered(
                first=lambda z: z.median(0).values,
                step=lambda c, n, z: (c * n + z.median(0).values * len(z)) / (n + len(z)),
            ),
            "the median of the new pictures is taken, or a single one of them, and not their mean",
            "A prototype is the mean.",
            also=(_remembered(first=lambda z: z[0], step=lambda c, n, z: (c * n + z[-1]) / (n + 1)),),
        ),
        Wrong(
            "forgets slowly",
            _remembered(step=lambda c, n, z: 0.9 * c + 0.1 * z.mean(0)),
            "a fixed share of the new pictures is mixed in, whatever the counts",
            "The share of the new ones is `len(embeddings) / (count + len(embeddings))`.",
            also=(
                _remembered(step=lambda c, n, z: 0.5 * c + 0.5 * z.sum(0)),
                _remembered(step=lambda c, n, z: 0.1 * c + 0.9 * z.mean(0)),
                _remembered(step=lambda c, n, z: 0.99 * c + 0.01 * z.mean(0)),
            ),
        ),
    ),
    hints=(
        "A mean and a count give the sum back. What is the sum after the new pictures?",
        "`mean.float() * count + embeddings.sum(0)`, divided by the new count; a class that is not there has count 0.",
        "`{**store, name: (((mean.float() * count + embeddings.sum(0)) / after).half(), after)}`",
    ),
)

# ---------------------------------------------------------------------------------------------- 25.5 does the export agree?

Embed = Callable[[Tensor], Tensor]


def exposes_export(run: Embed, embed: Embed, pictures: Tensor) -> bool:
    """True if run fails, or differs from embed by more than rounding, on pictures[:n] for any n from 1 to B."""
    for n in range(1, len(pictures) + 1):
        wanted = embed(pictures[:n])
        try:
            got = run(pictures[:n])
        except Exception:
            return True
        if got.shape != wanted.shape or not torch.allclose(got, wanted, rtol=0, atol=1e-4):
            return True
    return False


def _exposed_with_noise(run: Embed, embed: Embed, pictures: Tensor) -> bool:
    noise = torch.rand(pictures.shape, generator=Generator().manual_seed(0))
    for n in reversed(range(1, len(noise) + 1)):
        try:
            gap = run(noise[:n]) - embed(noise[:n])
            same = run(noise[:n]).shape == (n, embed(noise).shape[1])
        except (RuntimeError, ValueError, IndexError):
            return True
        if not same or not bool((gap.abs() <= 1e-4).all()):
            return True
    return False


def _exposed_from_a_table(run: Embed, embed: Embed, pictures: Tensor) -> bool:
    table = embed(pictures)
    try:
        for n in range(len(pictures)):
            torch.testing.assert_close(run(pictures[: n + 1]), table[: n + 1], rtol=0, atol=3e-4)
    except Exception:
        return True
    return False


def _exposed_by_windows(run: Embed, embed: Embed, pictures: Tensor) -> bool:
    def broken(x: Tensor) -> bool:
        wanted = embed(x).double()
        try:
            got = torch.as_tensor(run(x)).double()
        except Exception:
            return True
        if got.shape != wanted.shape or bool(got.isnan().any()):
            return True
        return bool((got - wanted).abs().max() > 1e-4)

    return any(broken(x) for n in range(1, len(pictures) + 1) for x in pictures.unfold(0, n, 1).movedim(-1, 1))


_MIX = torch.tensor(
    [
        [0.9, -0.4, 0.3, 0.8, -0.6],
        [-0.5, 0.7, 0.9, -0.3, 0.4],
        [0.6, 0.2, -0.8, 0.5, 0.9],
        [0.3, -0.9, 0.5, 0.7, -0.2],
    ]
)


def _embedded(x: Tensor) -> Tensor:
    """Embeds pictures [B, 1, 2, 2] -> [B, 5], each on its own."""
    rows = x.flatten(1)
    return torch.tanh(rows @ _MIX) + (rows**2) @ _MIX


def _rounded(x: Tensor) -> Tensor:
    return _embedded(x.double().float()) + 5e-6 * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])


def _one_by_one(x: Tensor) -> Tensor:
    return torch.cat([_embedded(row[None]) for row in x])


def _padded(x: Tensor) -> Tensor:
    return _embedded(F.pad(x, (0, 0, 0, 0, 0, 0, 0, 3)))[: len(x)]


def _only(*sizes: int) -> Embed:
    def run(x: Tensor) -> Tensor:
        if len(x) not in sizes:
            raise ValueError(f"got {len(x)} pictures, expected {sizes[0]}")
        return _embedded(x)

    return run


def _first_row(x: Tensor) -> Tensor:
    return _embedded(x[:1]).expand(len(x), -1).clone()


def _batch_statistics(x: Tensor) -> Tensor:
    z = _embedded(x)
    return (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()


def _scaled_twice(x: Tensor) -> Tensor:
    return _embedded(x / 255)


def _a_little(x: Tensor) -> Tensor:
    z = _embedded(x)
    z[0, 2] += 1.1e-3
    return z


def _swapped_channels(x: Tensor) -> Tensor:
    return _embedded(x)[:, [0, 2, 1, 3, 4]]


def _turned_rows(x: Tensor) -> Tensor:
    return _embedded(x).flip(0)


def _last_row(x: Tensor) -> Tensor:
    z = _embedded(x)
    if len(x) > 1:
        z[-1] = z[0]
    return z


def _no_number(x: Tensor) -> Tensor:
    z = _embedded(x)
    z[-1, 1] = torch.nan
    return z


def _cancelling(x: Tensor) -> Tensor:
    z = _embedded(x)
    z[0, 0] += 0.01
    z[0, 1] -= 0.01
    return z


def _squeezed(x: Tensor) -> Tensor:
    return _embedded(x).squeeze()


def _four_rows(x: Tensor) -> Tensor:
    return _embedded(x)[:4]


def _odd_batches(x: Tensor) -> Tensor:
    """Works in pairs: an odd last row is copied from the one before."""
    z = _embedded(x)
    if len(x) > 1 and len(x) % 2:
        z[-1] = z[-2]
    return z


def _even_batches(x: Tensor) -> Tensor:
    """An even batch gets its last row from the one before."""
    z = _embedded(x)
    if len(x) % 2 == 0:
        z[-1] = z[-2]
    return z


def _first_of_many(x: Tensor) -> Tensor:
    z = _embedded(x)
    if len(x) > 1:
        z[0] = z[0] * 0.9
    return z


def _saturated(x: Tensor) -> Tensor:
    z = _embedded(x)
    return z.clamp_max(float(0.98 * z.max()))


def _no_negatives(x: Tensor) -> Tensor:
    return _embedded(x).clamp_min(0)


def _one_channel(x: Tensor) -> Tensor:
    z = _embedded(x)
    z[:, 4] *= 0.97
    return z


def _late(x: Tensor) -> Tensor:
    found = _embedded(x).clone()
    if len(x) == 5:
        found[4, -1] += 0.0011
    return found


_RUNS: tuple[tuple[str, Embed], ...] = (
    ("an export that does what the encoder does, which is sound", lambda x: _embedded(x)),
    ("an export that rounds differently in the sixth digit, which is sound", _rounded),
    ("an export that works picture by picture, which is sound", _one_by_one),
    ("an export that fills the batch up with blanks and cuts them off, which is sound", _padded),
    ("a batch frozen at 1", _only(1)),
    ("a batch frozen at the number of pictures given", _only(5)),
    ("a batch frozen at 3", _only(3)),
    ("a batch of at most 2", _only(2, 1)),
    ("a batch of at most 4", _only(4, 3, 2, 1)),
    ("an export that fails for a single picture", _only(2, 3, 4, 5)),
    ("an export that fails for two pictures", _only(1, 3, 4, 5)),
    ("an export that fails for three pictures", _only(1, 2, 4, 5)),
    ("an export that fails for four pictures", _only(1, 2, 3, 5)),
    ("all rows are that of the first picture", _first_row),
    ("batch norms left in training mode", _batch_statistics),
    ("pictures divided by 255 once more, which zeros do not show", _scaled_twice),
    ("one number is off by 0.0011", _a_little),
    ("one number of the last of five pictures is off by 0.0011", _late),
    ("two channels have changed places", _swapped_channels),
    ("the rows come in reverse order", _turned_rows),
    ("the last row is a copy of the first", _last_row),
    ("one number is no number", _no_number),
    ("two numbers are off in opposite directions", _cancelling),
    ("a single picture loses its axis of the batch", _squeezed),
    ("at most four rows come back", _four_rows),
    ("an odd batch loses its last picture", _odd_batches),
    ("an even batch loses its last picture", _even_batches),
    ("the first of several pictures is off by a tenth", _first_of_many),
    ("the largest number is cut off", _saturated),
    ("negative numbers are cut off", _no_negatives),
    ("the last channel is too small by 3 percent", _one_channel),
)


def _export_cases(generator: Generator) -> list[Case]:
    pictures = torch.rand(5, 1, 2, 2, generator=generator)
    return [Case(says, (run, _embedded, pictures)) for says, run in _RUNS]


def _parity(
    differ: Callable[[Tensor, Tensor], bool] = lambda a, b: (
        a.shape != b.shape or not torch.allclose(a, b, rtol=0, atol=1e-4)
    ),
    batches: Callable[[Tensor], Sequence[Tensor]] = lambda x: [x[:n] for n in range(1, len(x) + 1)],
    failing: bool | None = True,
) -> Callable[..., bool]:
    """A detector with something changed: the comparison, the batches, what a failing run means (None: it is not caught)."""

    def answer(run: Embed, embed: Embed, pictures: Tensor) -> bool:
        for x in batches(pictures):
            wanted = embed(x)
            try:
                got = run(x)
            except Exception:
                if failing is None:
                    raise
                if failing:
                    return True
                continue
            if differ(got, wanted):
                return True
        return False

    return answer


def _gap(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs()


def _all_sizes(x: Tensor) -> list[Tensor]:
    return [x[:n] for n in range(1, len(x) + 1)]


PARITY = Exercise(
    id="25.5",
    title="Bug hunt: does the export agree?",
    reference=exposes_export,
    cases=_export_cases,
    right=(
        _exposed_with_noise,
        _exposed_from_a_table,
        _exposed_by_windows,
        _parity(lambda a, b: a.shape != b.shape or not bool(torch.isclose(a, b, rtol=1e-4, atol=1e-4).all())),
    ),
    wrong=(
        Wrong(
            "the whole batch alone",
            _parity(batches=lambda x: [x]),
            "only one size of batch is tried, all pictures together",
            "Try `pictures[:n]` for every n: a batch frozen at this size passes, and so does a fault of smaller ones.",
            also=(
                _parity(batches=lambda x: [x], failing=None),
                _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4), lambda x: [x]),
                _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4), lambda x: [x], None),
                _parity(batches=lambda x: [x], failing=False),
            ),
        ),
        Wrong(
            "single pictures",
            _parity(batches=lambda x: [row[None] for row in x]),
            "the pictures are tried one by one only: a batch frozen at 1 passes",
            "Try `pictures[:n]` for every n from 1 to all.",
            also=(
                _parity(batches=lambda x: [row[None] for row in x], failing=None),
                _parity(lambda a, b: not torch.allclose(a, b, atol=1e-4), lambda x: [x[:1]]),
                _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4), lambda x: [x[:1]]),
                _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4), lambda x: [x[:1]], None),
            ),
        ),
        Wrong(
            "two sizes",
            _parity(batches=lambda x: [x[:1], x]),
            "only some sizes are tried, such as one picture and all: a size between them may fail",
            "Loop over every n from 1 to `len(pictures)`.",
            also=(
                _parity(batches=lambda x: [x[:1], x[:2]]),
                _parity(batches=lambda x: [x[:2], x]),
                _parity(batches=lambda x: [x[:1], x[:2], x]),
                _parity(batches=lambda x: _all_sizes(x)[1:]),
                _parity(batches=lambda x: _all_sizes(x)[:-1]),
                _parity(batches=lambda x: _all_sizes(x)[1:-1]),
                _parity(lambda a, b: not torch.allclose(a, b, atol=1e-4), lambda x: [x[:1], x]),
                _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4), lambda x: [x[:1], x]),
                _parity(batches=lambda x: [x[:1], x], failing=None),
                _parity(lambda a, b: not torch.allclose(a, b, atol=1e-4), lambda x: _all_sizes(x)[:-1]),
                _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4), lambda x: _all_sizes(x)[:-1]),
                _parity(lambda a, b: not torch.allclose(a, b, atol=1e-4), lambda x: [x[:1], x], None),
                _parity(batches=lambda x: [x[:n] for n in (1, 2, 4, 8)]),
                _parity(batches=lambda x: [x[:n] for n in (1, 2, 4)]),
                _parity(batches=lambda x: [x[:n] for n in (1, 3, 5)]),
                _parity(batches=lambda x: [x[:n] for n in (2, 3, 5)]),
            ),
        ),
        Wrong(
            "zeros",
            _parity(batches=lambda x: _all_sizes(torch.zeros_like(x))),
            "the test runs on zeros, or on the same picture several times: many faults leave such pictures alone",
            "Use the pictures that are given, all different.",
            also=(
                _parity(batches=lambda x: [torch.zeros_like(x)]),
                _parity(batches=lambda x: [torch.zeros_like(x[:1])]),
                _parity(batches=lambda x: _all_sizes(torch.ones_like(x))),
                _parity(batches=lambda x: [torch.ones_like(x)]),
                _parity(batches=lambda x: [torch.zeros_like(x)], failing=None),
                _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4), lambda x: [torch.zeros_like(x)]),
                _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4), lambda x: _all_sizes(torch.zeros_like(x))),
                _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4), lambda x: [torch.zeros_like(x[:1])]),
            ),
        ),
        Wrong(
            "an empty batch",
            _parity(batches=lambda x: [x[:n] for n in range(len(x) + 1)]),
            "a batch without any picture is tried, too, and sound exports need not take it",
            "n goes from 1 to `len(pictures)`: `range(1, len(pictures) + 1)`.",
            also=(
                _parity(lambda a, b: not torch.allclose(a, b, atol=1e-4), lambda x: [x[:n] for n in range(len(x) + 1)]),
            ),
        ),
        Wrong(
            "a failure stops the test",
            _parity(failing=None),
            "an export that raises stops the test, which then says nothing",
            "`try: ... except Exception: return True`.",
            also=(
                _parity(lambda a, b: not torch.allclose(a, b, atol=1e-4), failing=None),
                _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4), failing=None),
            ),
        ),
        Wrong(
            "a failure passes",
            _parity(failing=False),
            "an export that raises is passed over as if all were well",
            "A failing batch is a fault: return `True`.",
            also=(
                _parity(lambda a, b: not torch.allclose(a, b, atol=1e-4), failing=False),
                _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4), failing=False),
            ),
        ),
        Wrong(
            "shapes not compared",
            _parity(lambda a, b: not torch.allclose(a, b, atol=1e-4)),
            "the shapes are not compared: a row without its batch axis stretches over the others and passes",
            "`got.shape != wanted.shape` is a fault of its own.",
            also=(_parity(lambda a, b: any(not torch.allclose(x, y, atol=1e-4) for x, y in zip(a, b, strict=False))),),
        ),
        Wrong(
            "no number passes",
            _parity(lambda a, b: a.shape != b.shape or bool(_gap(a, b).max() > 1e-4)),
            "a comparison with `>` is false for NaN, so an embedding that is no number passes",
            "Ask the other way round: `not (gap <= 1e-4).all()`, or `not torch.allclose(...)`.",
            also=(_parity(lambda a, b: bool(_gap(a, b).max() > 1e-4)),),
        ),
        Wrong(
            "exactly equal",
            _parity(lambda a, b: a.shape != b.shape or not torch.equal(a, b)),
            "rounding rings the alarm: another library adds up in another order",
            "Allow an absolute 1e-4: `torch.allclose(got, wanted, rtol=0, atol=1e-4)`.",
            also=(
                _parity(lambda a, b: not torch.allclose(a, b)),
                _parity(lambda a, b: not torch.equal(a, b), failing=None),
            ),
        ),
        Wrong(
            "a generous tolerance",
            _parity(lambda a, b: a.shape != b.shape or not torch.allclose(a, b, rtol=0, atol=0.005)),
            "small faults pass: the tolerance is too wide",
            "Rounding stays below 1e-5 here; allow 1e-4 and no more.",
            also=(
                _parity(lambda a, b: a.shape != b.shape or not torch.allclose(a, b, rtol=0.01, atol=0.01)),
                _parity(lambda a, b: a.shape != b.shape or not torch.allclose(a, b, rtol=0, atol=0.1)),
                _parity(lambda a, b: not torch.allclose(a, b, rtol=0, atol=0.005)),
                _parity(lambda a, b: not torch.allclose(a, b, rtol=0.01, atol=0.01)),
            ),
        ),
        Wrong(
            "means",
            _parity(lambda a, b: a.shape != b.shape or abs(float((a - b).mean())) > 1e-4),
            "sums, means or lengths are compared: faults that are small, cancel, or change places, pass",
            "Look at every number: the largest difference.",
            also=(
                _parity(lambda a, b: abs(float(a.mean() - b.mean())) > 1e-4),
                _parity(lambda a, b: abs(float(a.norm() - b.norm())) > 1e-4),
                _parity(lambda a, b: float(_gap(a, b).mean()) > 1e-3),
                _parity(lambda a, b: float((a - b).square().mean()) > 1e-4),
                _parity(lambda a, b: a.shape != b.shape or float((a - b).square().mean()) > 1e-4),
                _parity(lambda a, b: a.shape != b.shape or float(F.mse_loss(a, b)) > 1e-5),
            ),
        ),
        Wrong(
            "first row",
            _parity(lambda a, b: a.shape != b.shape or not torch.allclose(a[0], b[0], rtol=0, atol=1e-4)),
            "only the first row, or the last, or one channel is compared",
            "Compare the whole tensor.",
            also=(
                _parity(lambda a, b: a.shape != b.shape or not torch.allclose(a[-1], b[-1], rtol=0, atol=1e-4)),
                _parity(lambda a, b: a.shape != b.shape or not torch.allclose(a[:, 0], b[:, 0], rtol=0, atol=1e-4)),
            ),
        ),
        Wrong(
            "angles",
            _parity(lambda a, b: a.shape != b.shape or float(F.cosine_similarity(a, b).min()) < 0.999),
            "only directions, or the largest entries, are compared: small faults and wrong lengths pass",
            "Distances use every number: compare the numbers.",
            also=(
                _parity(lambda a, b: a.shape != b.shape or not torch.equal(a.argmax(1), b.argmax(1))),
                _parity(lambda a, b: float(F.cosine_similarity(a, b, dim=-1).min()) < 0.99),
            ),
        ),
        Wrong(
            "shapes alone",
            _parity(lambda a, b: a.shape != b.shape),
            "only shapes, or failures, are looked at, and never the numbers",
            "Compare the numbers with `torch.allclose`.",
            also=(_parity(lambda a, b: False),),
        ),
        Wrong("always", lambda run, embed, x: True, "the alarm always rings", "A sound export must pass."),
        Wrong(
            "never",
            lambda run, embed, x: False,
            "the alarm never rings: perhaps the encoder is compared with itself",
            "Compare `run(pictures[:n])` with `embed(pictures[:n])`.",
        ),
        Wrong(
            "turned round",
            lambda run, embed, x: not exposes_export(run, embed, x),
            "True and False have changed places",
            "True means: the export is at fault.",
            also=(
                lambda run, embed, x: not _parity(failing=False)(run, embed, x),
                lambda run, embed, x: not _parity(lambda a, b: not torch.allclose(a, b, atol=1e-4))(run, embed, x),
                lambda run, embed, x: not _parity(lambda a, b: bool(_gap(a, b).max() > 1e-4))(run, embed, x),
            ),
        ),
    ),
    hints=(
        "What did the colleague's test never try? Sizes, pictures, failures, and numbers that are none.",
        "Loop over n from 1 to all pictures; a `try` round `run`; compare shapes, then every number with a tolerance.",
        "`got.shape != wanted.shape or not torch.allclose(got, wanted, rtol=0, atol=1e-4)` for `pictures[:n]`, every n",
    ),
)

EXERCISES = (COST, QUANTISE, DISTIL, REMEMBER, PARITY)
