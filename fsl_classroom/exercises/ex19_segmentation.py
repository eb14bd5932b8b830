"""Exercises of lesson 19: masked average pooling, logits by cosines, mean IoU, non-maximum suppression, a detector, and
the alignment loss.

Cases: every exercise builds its own. The detector 19.5 gets an implementation of 19.1 as an argument and must return True for the
broken ones only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

SMALL = 1e-5


def _large(features: Tensor, masks: Tensor, mode: str = "bilinear") -> Tensor:
    how = {"align_corners": False} if mode == "bilinear" else {}
    return F.interpolate(features, size=masks.shape[-2:], mode=mode, **how)


# ------------------------------------------------------------------------------------ 19.1 masked average pooling


def masked_average(features: Tensor, masks: Tensor) -> Tensor:
    """Returns the mean over shots of the mean feature under the mask. [K, D, h, w], bool [K, H, W] -> [D]."""
    weight = masks.to(features.dtype)[:, None]
    sums = (_large(features, masks) * weight).sum((2, 3))
    return (sums / (weight.sum((2, 3)) + SMALL)).mean(0)


def _average_by_loop(features: Tensor, masks: Tensor) -> Tensor:
    large, found = _large(features, masks), []
    for maps, mask in zip(large, masks, strict=True):
        inside = maps[:, mask]
        found.append(inside.sum(1) / (inside.shape[1] + SMALL))
    return sum(found) / len(found)


def _average_by_einsum(features: Tensor, masks: Tensor) -> Tensor:
    m = masks.to(features.dtype)
    m = m / (m.sum((1, 2), keepdim=True) + SMALL)
    return torch.einsum("kdhw,khw->d", _large(features, masks), m) / len(m)


def _average_by_matmul(features: Tensor, masks: Tensor) -> Tensor:
    m = masks.flatten(1).to(features.dtype)
    total = (_large(features, masks).flatten(2) @ m[..., None])[..., 0]
    return torch.mean(total / (m.sum(1, keepdim=True) + SMALL), dim=0)


def _average_by_where(features: Tensor, masks: Tensor) -> Tensor:
    large = F.interpolate(features, size=tuple(masks.shape[1:]), mode="bilinear")
    kept = torch.where(masks[:, None], large, torch.zeros_like(large))
    return (kept.flatten(2).sum(2) / (masks.flatten(1).sum(1)[:, None] + SMALL)).mean(0)


def _shrunk(features: Tensor, masks: Tensor, mode: str = "nearest") -> Tensor:
    """The mask goes to the size of the map."""
    how = {"align_corners": False} if mode == "bilinear" else {}
    m = F.interpolate(masks.to(features.dtype)[:, None], features.shape[-2:], mode=mode, **how)
    return ((features * m).sum((2, 3)) / (m.sum((2, 3)) + SMALL)).mean(0)


def _averaged_over(features: Tensor, masks: Tensor, add: float = SMALL, least: float = 0.0) -> Tensor:
    """The right mean, but for the number that is added to the pixels, or below which they do not fall."""
    weight = masks.to(features.dtype)[:, None]
    return ((features * weight).sum((2, 3)) / (weight.sum((2, 3)) + add).clamp_min(least)).mean(0)


def _area_shrunk(features: Tensor, masks: Tensor, maximum: bool = False) -> Tensor:
    pool = F.adaptive_max_pool2d if maximum else F.adaptive_avg_pool2d
    return _averaged_over(features, pool(masks.to(features.dtype)[:, None], features.shape[-2:])[:, 0])


def _shrunk_to_bool(features: Tensor, masks: Tensor) -> Tensor:
    m = F.interpolate(masks.to(features.dtype)[:, None], features.shape[-2:], mode="bilinear", align_corners=False)
    return _averaged_over(features, m[:, 0] > 0.5)


def _not_enlarged(features: Tensor, masks: Tensor) -> Tensor:
    return _averaged_over(features, masks)


def _rows_of_marked(features: Tensor, masks: Tensor) -> Tensor:
    """Shots without a marked pixel are left out."""
    large = _large(features, masks)
    rows = [a[:, m].mean(1) for a, m in zip(large, masks, strict=True) if bool(m.any())]
    return torch.stack(rows).mean(0)


def _in_single(features: Tensor, masks: Tensor) -> Tensor:
    return masked_average(features.float(), masks)


def _keeps_double(answer: Callable[..., Tensor], reference: Callable[..., Tensor]) -> str | None:
    """Large features whose mean is small: a sum in float32 loses it, and a count of pixels in float32 does not."""
    source = torch.Generator().manual_seed(3)
    masks, features = _thin(source, 2, 8), torch.rand(2, 3, 4, 4, generator=source, dtype=torch.float64)
    means = torch.stack([masked_average(f[None], m[None]) for f, m in zip(features, masks, strict=True)])
    features = 1e5 * (features - means[..., None, None]) + 1
    found = torch.as_tensor(answer(features, masks))
    if found.dtype != torch.float64:
        return f"float64 features gave a result in {found.dtype}"
    gap = float((found - reference(features, masks)).detach().abs().max())
    return None if gap < 2e-5 else "float64 features gave a result with the digits of float32 only"


def _all_at_once(features: Tensor, masks: Tensor) -> Tensor:
    weight = masks.to(features.dtype)[:, None]
    return (_large(features, masks) * weight).sum((0, 2, 3)) / (weight.sum() + SMALL)


def _over_the_picture(features: Tensor, masks: Tensor) -> Tensor:
    return (_large(features, masks) * masks[:, None]).mean((2, 3)).mean(0)


def _thin(generator: Generator, shots: int, side: int) -> Tensor:
    masks = torch.rand(shots, side, side, generator=generator) < 0.15
    masks[:, side // 2, side // 2] = True
    return masks


def _average_cases(generator: Generator) -> list[Case]:
    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    paper = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    uneven = _thin(generator, 2, 8)
    uneven[1, :6] = True
    dot = torch.zeros(1, 8, 8, dtype=torch.bool)
    dot[0, 5, 3] = True
    nothing = _thin(generator, 2, 4)
    nothing[1] = False
    return [
        Case("the example on paper", (paper, torch.tensor([[[True, False], [False, True]]]))),
        Case("a map of 4 x 4 places under a mask of 8 x 8 pixels", (drawn(1, 3, 4, 4), _thin(generator, 1, 8))),
        Case("2 shots, whose masks differ in size", (drawn(2, 3, 4, 4), uneven)),
        Case("a mask of one pixel", (drawn(1, 3, 4, 4), dot)),
        Case("a shot whose mask is empty", (drawn(2, 3, 2, 2), nothing)),
        Case("maps that are not square", (drawn(2, 2, 3, 2), torch.rand(2, 6, 4, generator=generator) < 0.4)),
        Case("float64", (drawn(2, 3, 4, 4).double(), _thin(generator, 2, 8))),
    ]


AVERAGE = Exercise(
    id="19.1",
    title="Masked average pooling",
    reference=masked_average,
    cases=_average_cases,
    gradient=(0,),
    properties=(Property("float64 goes in, and all its digits come out", _keeps_double),),
    right=(_average_by_loop, _average_by_einsum, _average_by_matmul, _average_by_where),
    wrong=(
        Wrong(
            "in float32",
            _in_single,
            "the mean is computed or summed in float32, although the features are float64",
            "Take the dtype of the features: masks.to(features.dtype), features.new_zeros(...).",
            also=(lambda f, m: _in_single(f, m).to(f.dtype),),
        ),
        Wrong(
            "not enlarged",
            _not_enlarged,
            "the features keep the size of the map, and the mask is larger",
            "Enlarge the features first: F.interpolate(features, masks.shape[-2:], ...).",
        ),
        Wrong(
            "the axis of D",
            lambda f, m: (_large(f, m) * m.to(f.dtype)).sum((2, 3)).div(m.sum((1, 2))[:, None] + SMALL).mean(0),
            "the mask [K, H, W] has no axis for D, so that its shots meet the features",
            "Insert the axis: masks[:, None] is [K, 1, H, W].",
            also=(
                lambda f, m: ((_large(f, m) * m[..., None]).sum((2, 3)) / (m[..., None].sum((2, 3)) + SMALL)).mean(0),
            ),
        ),
        Wrong(
            "other sides enlarged",
            lambda f, m: _averaged_over(F.interpolate(f, scale_factor=2, mode="bilinear"), m),
            "the features are enlarged by a fixed factor, whatever the size of the mask",
            "Enlarge to masks.shape[-2:].",
        ),
        Wrong(
            "an empty shot is left out",
            _rows_of_marked,
            "a shot whose mask is empty is left out, and the mean runs over the others only",
            "The shot counts: it gives zeros, and the mean runs over all K shots.",
            also=(lambda f, m: masked_average(f[m.any(2).any(1)], m[m.any(2).any(1)]),),
        ),
        Wrong(
            "one axis too many",
            lambda f, m: masked_average(f, m)[:, None, None],
            "the summed axes stay in the result",
            "Sum without keepdim: the prototype is [D].",
            also=(lambda f, m: masked_average(f, m)[None],),
        ),
        Wrong(
            "another small number",
            lambda f, m: _averaged_over(_large(f, m), m, 0.0, 1.0),
            "the number of pixels is not raised by 1e-5, but by another number or not at all",
            "Divide by the number of pixels plus 1e-5.",
            also=tuple(
                lambda f, m, add=add: _averaged_over(_large(f, m), m, add) for add in (1.0, 0.1, 1e-2, 1e-3, 1e-4)
            ),
        ),
        Wrong(
            "the small number in the mask",
            lambda f, m: (lambda w: ((_large(f, m) * w).sum((2, 3)) / w.sum((2, 3))).mean(0))(
                m.to(f.dtype)[:, None] + SMALL
            ),
            "the small number is added to every pixel of the mask",
            "Add 1e-5 once, to the number of pixels in the denominator.",
        ),
        Wrong(
            "divided by D, too",
            lambda f, m: _averaged_over(_large(f, m) / f.shape[1], m, SMALL / f.shape[1]),
            "the pixels are counted once for every feature, so the sum is divided D times too often",
            "Count the True pixels of the mask [K, H, W]: one number for each shot.",
        ),
        Wrong(
            "unit features",
            lambda f, m: masked_average(F.normalize(_large(f, m), dim=1), m),
            "the features are brought to length 1 before they are averaged",
            "Equation (1) averages the features as they are: the cosine comes later.",
            also=(
                lambda f, m: masked_average(F.normalize(f, dim=1), m),
                lambda f, m: F.normalize(masked_average(f, m), dim=0),
            ),
        ),
        Wrong(
            "the first shot",
            lambda f, m: masked_average(f[:1], m[:1]),
            "only the first shot is used",
            "Take the mean over all K shots.",
        ),
        Wrong(
            "bicubic",
            lambda f, m: _averaged_over(F.interpolate(f, m.shape[1:], mode="bicubic", align_corners=False), m),
            "the features are enlarged in another way than the one that is asked for",
            'Interpolate with mode="bilinear".',
        ),
        Wrong(
            "the mask shrinks",
            _shrunk,
            "the mask is shrunk to the size of the map, where thin strokes blur or are lost",
            "Enlarge the features to the size of the mask, not the other way round.",
            also=(
                lambda f, m: _shrunk(f, m, "bilinear"),
                lambda f, m: _area_shrunk(f, m, True),
                _shrunk_to_bool,
            ),
        ),
        Wrong(
            "all shots in one sum",
            _all_at_once,
            "the pixels of all shots are averaged together: a shot with a large mask counts more",
            "Average inside each shot first, then over the shots.",
            also=(
                lambda f, m: _large(f, m).movedim(1, -1)[m].mean(0),
                lambda f, m: ((_large(f, m) * m[:, None]).sum((2, 3)) / (m.sum() + SMALL)).mean(0),
            ),
        ),
        Wrong(
            "divided by the whole picture",
            _over_the_picture,
            "the sum under the mask is divided by all pixels of the picture",
            "Divide by the number of pixels under the mask, plus 1e-5.",
        ),
        Wrong(
            "without mask",
            lambda f, m: _large(f, m).mean((2, 3)).mean(0),
            "the mask is not used: the mean runs over the whole picture",
            "Multiply the enlarged features by the mask before you sum.",
        ),
        Wrong(
            "the background",
            lambda f, m: masked_average(f, ~m),
            "the pixels outside the mask are averaged",
            "True marks the object.",
        ),
        Wrong(
            "sums",
            lambda f, m: (_large(f, m) * m[:, None]).sum((2, 3)).mean(0),
            "the features under the mask are summed and not divided by their number",
            "Divide by the number of pixels under the mask, plus 1e-5.",
            also=(lambda f, m: (_large(f, m) * m[:, None]).sum((0, 2, 3)),),
        ),
        Wrong(
            "no small number",
            lambda f, m: ((_large(f, m) * m[:, None]).sum((2, 3)) / m.sum((1, 2))[:, None]).mean(0),
            "a shot whose mask is empty is divided by zero",
            "Add 1e-5 to the number of pixels: an empty mask then gives zeros.",
            also=(lambda f, m: torch.stack([a[:, b].mean(1) for a, b in zip(_large(f, m), m, strict=True)]).mean(0),),
        ),
        Wrong(
            "nearest",
            lambda f, m: ((_large(f, m, "nearest") * m[:, None]).sum((2, 3)) / (m.sum((1, 2))[:, None] + SMALL)).mean(
                0
            ),
            "the features are enlarged by copying the nearest place",
            'Interpolate with mode="bilinear" and align_corners=False.',
        ),
        Wrong(
            "maximum",
            lambda f, m: (_large(f, m) * m[:, None]).amax((2, 3)).mean(0),
            "the largest feature under the mask is taken in place of the mean",
            "Sum under the mask and divide by the number of pixels.",
        ),
        Wrong(
            "aligned corners",
            lambda f, m: (
                (F.interpolate(f, m.shape[1:], mode="bilinear", align_corners=True) * m[:, None]).sum((2, 3))
                / (m.sum((1, 2))[:, None] + SMALL)
            ).mean(0),
            "the corners of map and mask are aligned, which shifts the features",
            "Pass align_corners=False.",
        ),
        Wrong(
            "summed over shots",
            lambda f, m: len(m) * masked_average(f, m),
            "the shots are summed and not averaged",
            "Take the mean over the shots at the end.",
        ),
        Wrong(
            "one row for each shot",
            lambda f, m: (_large(f, m) * m[:, None]).sum((2, 3)) / (m.sum((1, 2))[:, None] + SMALL),
            "each shot keeps its own average",
            "The prototype is one row [D]: the mean over the shots.",
        ),
    ),
    hints=(
        "A bool mask turns into weights 0 and 1.",
        "Enlarge, multiply by the mask with an axis for D, sum over rows and columns, divide, average over shots.",
        "`weight = masks.to(features.dtype)[:, None]`, then `(large * weight).sum((2, 3)) / (weight.sum((2, 3)) + 1e-5)`",
    ),
)


# ------------------------------------------------------------------------------------ 19.2 logits


def compare_places(features: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """Returns scale times the cosine of each place with each prototype. [B, D, h, w], [N, D] -> [B, N, h, w]."""
    return scale * torch.einsum("bdhw,nd->bnhw", F.normalize(features, dim=1), F.normalize(prototypes, dim=1))


def _compare_by_torch(features: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    return scale * F.cosine_similarity(features[:, None], prototypes[None, :, :, None, None], dim=2)


def _compare_by_convolution(features: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    unit = F.normalize(prototypes, dim=1)[:, :, None, None]
    return F.conv2d(F.normalize(features, dim=1), scale * unit)


def _compare_by_lengths(features: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    dots = (features.movedim(1, -1) @ prototypes.T).movedim(-1, 1)
    return scale * dots / features.norm(dim=1, keepdim=True) / prototypes.norm(dim=1)[:, None, None]


def _compare_by_loop(features: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    return torch.stack([scale * F.cosine_similarity(features, p[None, :, None, None]) for p in prototypes], 1)


def _dots(features: Tensor, prototypes: Tensor) -> Tensor:
    return torch.einsum("bdhw,nd->bnhw", features, prototypes)


def _reshaped(features: Tensor, prototypes: Tensor, scale: float, before: bool) -> Tensor:
    """The axes move by reshape: before the product, or after it."""
    unit, count = F.normalize(features, dim=1), (len(features), len(prototypes), *features.shape[2:])
    if before:
        rows = unit.reshape(len(features), -1, features.shape[1]) @ F.normalize(prototypes, dim=1).T
        return scale * rows.mT.reshape(count)
    return scale * (unit.movedim(1, -1) @ F.normalize(prototypes, dim=1).T).reshape(count)


def _compare_cases(generator: Generator) -> list[Case]:
    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    paper = torch.tensor([[3.0, 0.0], [4.0, 2.0]]).view(1, 2, 1, 2)
    return [
        Case("the example on paper", (paper, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 20.0)),
        Case("2 maps of 3 x 4 places, 2 prototypes of 5 features", (drawn(2, 5, 3, 4), drawn(2, 5), 20.0)),
        Case("3 prototypes, scale 2", (drawn(1, 4, 2, 2), drawn(3, 4), 2.0)),
        Case("features ten times as long", (10 * drawn(1, 3, 2, 3), drawn(2, 3), 20.0)),
        Case("float64", (drawn(2, 3, 2, 2).double(), drawn(2, 3).double(), 20.0)),
    ]


COMPARE = Exercise(
    id="19.2",
    title="Every place against two prototypes",
    reference=compare_places,
    cases=_compare_cases,
    gradient=(0, 1),
    right=(_compare_by_torch, _compare_by_convolution, _compare_by_lengths, _compare_by_loop),
    wrong=(
        Wrong(
            "dot products",
            lambda f, p, s: s * _dots(f, p),
            "dot products are not divided by the lengths: a bright place scores high for every prototype",
            "A cosine divides by both lengths: F.normalize features and prototypes.",
            also=(
                lambda f, p, s: s * _dots(f, p) / f.shape[1] ** 0.5,
                lambda f, p, s: _dots(f, p),
                lambda f, p, s: _dots(f, p) / s,
            ),
        ),
        Wrong(
            "only the features have length one",
            lambda f, p, s: s * _dots(F.normalize(f, dim=1), p),
            "the prototypes keep their lengths",
            "Normalise the prototypes, too: F.normalize(prototypes, dim=1).",
        ),
        Wrong(
            "only the prototypes have length one",
            lambda f, p, s: s * _dots(f, F.normalize(p, dim=1)),
            "the features keep their lengths",
            "Normalise the features along D, too: F.normalize(features, dim=1).",
        ),
        Wrong(
            "no scale",
            lambda f, p, s: _dots(F.normalize(f, dim=1), F.normalize(p, dim=1)),
            "the cosines are not multiplied by the scale, so a softmax of them is nearly flat",
            "Multiply by `scale`.",
            also=(lambda f, p, s: _dots(F.normalize(f, dim=1), F.normalize(p, dim=1)) / s,),
        ),
        Wrong(
            "the wrong axis",
            lambda f, p, s: s * _dots(F.normalize(f, dim=-1), F.normalize(p, dim=1)),
            "features or prototypes are divided by a length along another axis than that of D, or over several axes",
            "The D numbers of a place lie along axis 1 of the features, those of a prototype along axis 1 of the prototypes.",
            also=(
                lambda f, p, s: s * _dots(F.normalize(f, dim=2), F.normalize(p, dim=1)),
                lambda f, p, s: s * _dots(F.normalize(f, dim=0), F.normalize(p, dim=1)),
                lambda f, p, s: s * _dots(F.normalize(f, dim=0), F.normalize(p, dim=0)),
                lambda f, p, s: s * _dots(F.normalize(f, dim=1), F.normalize(p, dim=0)),
                lambda f, p, s: s * _dots(F.normalize(f.flatten(1), dim=1).view_as(f), F.normalize(p, dim=1)),
                lambda f, p, s: s * _dots(F.normalize(f.flatten(2), dim=2).view_as(f), F.normalize(p, dim=1)),
                lambda f, p, s: s * _dots(f / f.norm(), p / p.norm()),
                lambda f, p, s: s * _dots(F.normalize(f, dim=1), p / p.norm()),
            ),
        ),
        Wrong(
            "squared lengths",
            lambda f, p, s: s * _dots(f / f.square().sum(1, keepdim=True), p / p.square().sum(1, keepdim=True)),
            "the products are divided by squared lengths",
            "A length is the square root of the sum of squares: .norm(dim=1).",
            also=(
                lambda f, p, s: s * _dots(F.normalize(f, dim=1), p / p.square().sum(1, keepdim=True)),
                lambda f, p, s: s * _dots(f / f.square().sum(1, keepdim=True), F.normalize(p, dim=1)),
            ),
        ),
        Wrong(
            "sums of absolute values",
            lambda f, p, s: s * _dots(F.normalize(f, p=1, dim=1), F.normalize(p, p=1, dim=1)),
            "the length is taken as a sum of absolute values",
            "A cosine divides by Euclidean lengths: F.normalize(..., dim=1) with its default p=2.",
        ),
        Wrong(
            "most similar is lowest",
            lambda f, p, s: -compare_places(f, p, s),
            "the most similar prototype gets the lowest logit",
            "The logit is scale times the cosine: neither minus it, nor one minus it.",
            also=(lambda f, p, s: s - compare_places(f, p, s), lambda f, p, s: 1 - compare_places(f, p, s)),
        ),
        Wrong(
            "no negative cosines",
            lambda f, p, s: compare_places(f, p, s).clamp_min(0),
            "negative cosines are cut off or turned positive",
            "A cosine lies between -1 and 1, and its sign counts.",
            also=(
                lambda f, p, s: compare_places(f, p, s).abs(),
                lambda f, p, s: s * (compare_places(f, p, 1.0) + 1) / 2,
            ),
        ),
        Wrong(
            "always twenty",
            lambda f, p, s: compare_places(f, p, 20.0),
            "20 stands where `scale` should",
            "Multiply by the argument `scale`.",
        ),
        Wrong(
            "reshaped, not moved",
            lambda f, p, s: _reshaped(f, p, s, True),
            "an axis is moved by reshape or view, so that numbers of several places are mixed",
            "permute and movedim keep each number at its place; a reshape does not.",
            also=(
                lambda f, p, s: _reshaped(f, p, s, False),
                lambda f, p, s: (
                    s
                    * (F.normalize(f.reshape(-1, f.shape[1]), dim=1) @ F.normalize(p, dim=1).T).reshape(
                        len(f), len(p), *f.shape[2:]
                    )
                ),
            ),
        ),
        Wrong(
            "enlarged",
            lambda f, p, s: F.interpolate(compare_places(f, p, s), scale_factor=2.0, mode="bilinear"),
            "the logits are enlarged here already",
            "Return them at the size of the map.",
            also=(lambda f, p, s: F.interpolate(compare_places(f, p, s), (64, 64), mode="bilinear"),),
        ),
        Wrong(
            "places in one row",
            lambda f, p, s: compare_places(f, p, s).flatten(2),
            "rows and columns of the map stay joined in one axis",
            "Return [B, N, h, w]: give the last axis back its rows and columns.",
        ),
        Wrong(
            "prototypes first",
            lambda f, p, s: compare_places(f, p, s).movedim(1, 0),
            "the axis of the prototypes stands first",
            "Stack along axis 1: [B, N, h, w].",
        ),
        Wrong(
            "D is left over",
            lambda f, p, s: s * F.cosine_similarity(f[:, None], p[None, :, :, None, None], dim=1),
            "the cosine runs over the axis of the prototypes, and D stays in the result",
            "With features [B, 1, D, h, w] and prototypes [1, N, D, 1, 1] the D numbers lie along axis 2.",
        ),
        Wrong(
            "probabilities",
            lambda f, p, s: compare_places(f, p, s).softmax(1),
            "the softmax is taken already",
            "Return the logits: the loss takes the softmax.",
            also=(lambda f, p, s: compare_places(f, p, s).log_softmax(1),),
        ),
        Wrong(
            "distances",
            lambda f, p, s: -s * (f[:, None] - p[None, :, :, None, None]).square().sum(2),
            "distances take the place of cosines",
            "PANet compares by the cosine.",
            also=(
                lambda f, p, s: -s * (f[:, None] - p[None, :, :, None, None]).norm(dim=2),
                lambda f, p, s: -(f[:, None] - p[None, :, :, None, None]).square().sum(2),
            ),
        ),
        Wrong(
            "prototypes last",
            lambda f, p, s: compare_places(f, p, s).movedim(1, -1),
            "the axis of the prototypes stands last",
            "Return [B, N, h, w].",
        ),
    ),
    hints=(
        "What does a cosine divide by?",
        "Normalise features along axis 1 and prototypes along axis 1, then sum products over D.",
        '`torch.einsum("bdhw,nd->bnhw", ...)` of both, times scale',
    ),
)


# ------------------------------------------------------------------------------------ 19.3 mean IoU


def mean_iou(answers: Tensor, truths: Tensor, classes: Tensor) -> float:
    """Returns the mean over classes of intersection over union. bool [E, H, W] twice, int64 [E] -> float."""
    found = []
    for c in classes.unique():
        a, t = answers[classes == c], truths[classes == c]
        union = int((a | t).sum())
        found.append(int((a & t).sum()) / union if union else 1.0)
    return sum(found) / len(found)


def _miou_by_index_add(answers: Tensor, truths: Tensor, classes: Tensor) -> float:
    names, slot = classes.unique(return_inverse=True)
    both, either = (x.flatten(1).sum(1).double() for x in (answers & truths, answers | truths))
    inner = torch.zeros(len(names), dtype=torch.float64).index_add(0, slot, both)
    outer = torch.zeros(len(names), dtype=torch.float64).index_add(0, slot, either)
    return float(torch.where(outer > 0, inner / outer, 1.0).mean())


def _miou_by_one_hot(answers: Tensor, truths: Tensor, classes: Tensor) -> float:
    names = classes.unique()
    member = (classes == names[:, None]).double()
    inner, outer = (member @ x.flatten(1).double().sum(1) for x in (answers & truths, answers | truths))
    return torch.nan_to_num(inner / outer, nan=1.0).mean().item()


def _miou_by_dict(answers: Tensor, truths: Tensor, classes: Tensor) -> float:
    counts: dict[int, list[int]] = {}
    for a, t, c in zip(answers, truths, classes.tolist(), strict=True):
        pair = counts.setdefault(c, [0, 0])
        pair[0] += int((a * t).sum())
        pair[1] += int((a + t).sum())
    return sum(i / u if u > 0 else 1.0 for i, u in counts.values()) / len(counts)


def _miou_by_areas(answers: Tensor, truths: Tensor, classes: Tensor) -> float:
    total, names = 0.0, sorted(set(classes.tolist()))
    for name in names:
        a, t = answers[classes == name].double(), truths[classes == name].double()
        inner = float((a * t).sum())
        outer = float(a.sum() + t.sum()) - inner
        total += 1.0 if outer == 0 else inner / outer
    return total / len(names)


def _ratio(inner: float, outer: float) -> float:
    return inner / outer if outer else 1.0


def _pooled(answers: Tensor, truths: Tensor, classes: Tensor) -> float:
    return _ratio(float((answers & truths).sum()), float((answers | truths).sum()))


def _by_episode(answers: Tensor, truths: Tensor, classes: Tensor) -> float:
    found = [_pooled(a, t, classes) for a, t in zip(answers, truths, strict=True)]
    return sum(found) / len(found)


def _classwise(answers: Tensor, truths: Tensor, classes: Tensor, one: Callable[[Tensor, Tensor], float]) -> float:
    found = [one(answers[classes == c], truths[classes == c]) for c in classes.unique()]
    return sum(found) / len(found)


def _left_out(answers: Tensor, truths: Tensor, classes: Tensor) -> float:
    found = []
    for c in classes.unique():
        union = float((answers | truths)[classes == c].sum())
        if union:
            found.append(float((answers & truths)[classes == c].sum()) / union)
    return sum(found) / max(len(found), 1)


def _smoothed(answers: Tensor, truths: Tensor, classes: Tensor, add: float) -> float:
    return _classwise(
        answers, truths, classes, lambda a, t: (float((a & t).sum()) + add) / (float((a | t).sum()) + add)
    )


def _over_numbers(answers: Tensor, truths: Tensor, classes: Tensor, numbers: Iterable[int]) -> float:
    found = [_pooled(answers[classes == k], truths[classes == k], classes) for k in numbers]
    return sum(found) / len(found)


def _miou_cases(generator: Generator) -> list[Case]:
    def drawn(count: int, share: float) -> Tensor:
        return torch.rand(count, 5, 5, generator=generator) < share

    answer = torch.tensor([[[1, 1, 0, 0]], [[1, 0, 0, 0]], [[1, 1, 1, 1]]]).bool()
    truth = torch.tensor([[[0, 1, 1, 1]], [[1, 0, 0, 0]], [[1, 1, 1, 1]]]).bool()
    truths, answers = drawn(6, 0.4), drawn(6, 0.4)
    truths[4:] = drawn(2, 0.9)
    answers[4:] = truths[4:]
    empty = torch.zeros(2, 3, 3, dtype=torch.bool)
    some = empty.clone()
    some[1, 0] = True
    missed, half = some.flip(0), torch.zeros(2, 3, 3, dtype=torch.bool)
    half[1, :2, 0] = half[1, :2, 1] = True
    return [
        Case("the example on paper", (answer, truth, torch.tensor([7, 7, 2]))),
        Case("three classes, one of them large and right", (answers, truths, torch.tensor([5, 0, 5, 0, 9, 9]))),
        Case("a class in one episode only", (answers[:4], truths[:4], torch.tensor([1, 1, 1, 3]))),
        Case("one episode", (answers[:1], truths[:1], torch.tensor([4]))),
        Case("nothing there and nothing found, and then something missed", (empty, some, torch.tensor([0, 1]))),
        Case("nothing there, but something found", (some, empty, torch.tensor([4, 4]))),
        Case(
            "one class missed, one found where it is not, one rightly nowhere, one half right",
            (torch.cat([empty, half]), torch.cat([missed, half.roll(1, 2)]), torch.tensor([8, 6, 9, 3])),
        ),
        Case("classes numbered far apart", (answers, truths, torch.tensor([100, 3, 3, 100, 3, 3]))),
    ]


MEAN_IOU = Exercise(
    id="19.3",
    title="Mean IoU over classes",
    reference=mean_iou,
    cases=_miou_cases,
    right=(_miou_by_index_add, _miou_by_one_hot, _miou_by_dict, _miou_by_areas),
    wrong=(
        Wrong(
            "pooled",
            _pooled,
            "intersections and unions of all classes are pooled: large objects decide",
            "Divide for each class, then average over the classes.",
        ),
        Wrong(
            "mean over episodes",
            _by_episode,
            "each picture has its own ratio, and the pictures are averaged: a class that comes often counts more",
            "Sum intersections and unions over the pictures of a class, and divide once for each class.",
        ),
        Wrong(
            "episodes inside classes",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: _by_episode(x, y, c)),
            "the ratio is taken for each picture of a class and averaged inside the class",
            "Sum the intersections and the unions of a class first, and divide once.",
            also=(
                lambda a, t, c: _classwise(
                    a,
                    t,
                    c,
                    lambda x, y: (
                        sum(float((u & v).sum()) / max(float((u | v).sum()), 1.0) for u, v in zip(x, y, strict=True))
                        / len(x)
                    ),
                ),
            ),
        ),
        Wrong(
            "Dice",
            lambda a, t, c: _classwise(
                a, t, c, lambda x, y: _ratio(2 * float((x & y).sum()), float(x.sum() + y.sum()))
            ),
            "twice the intersection over the sum of both areas is Dice, not IoU",
            "The union counts a pixel of both masks once: (a | t).sum().",
        ),
        Wrong(
            "sum of the areas",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: _ratio(float((x & y).sum()), float(x.sum() + y.sum()))),
            "the areas are added: a pixel in both masks counts twice",
            "The union is (a | t).sum().",
        ),
        Wrong(
            "pixel accuracy",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: float((x == y).double().mean())),
            "the share of right pixels is counted, and background is nearly all of them",
            "Only pixels that are in one of the two masks count.",
            also=(lambda a, t, c: float((a == t).double().mean()),),
        ),
        Wrong(
            "recall",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: _ratio(float((x & y).sum()), float(y.sum()))),
            "the intersection is divided by the truth alone: an answer that marks everything is perfect",
            "Divide by the union.",
        ),
        Wrong(
            "precision",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: _ratio(float((x & y).sum()), float(x.sum()))),
            "the intersection is divided by the answer alone: an answer of one right pixel is perfect",
            "Divide by the union.",
        ),
        Wrong(
            "pixels in exactly one",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: _ratio(float((x & y).sum()), float((x ^ y).sum()))),
            "the intersection is divided by the pixels that are in exactly one of the masks",
            "The union holds the pixels of both masks, too: (a | t).sum().",
        ),
        Wrong(
            "one empty mask counts 1",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: _pooled(x, y, c) if bool(y.any()) else 1.0),
            "a class counts 1 although a mask of it is not empty: something was missed, or found where nothing is",
            "Only an empty UNION counts 1: test (a | t).any().",
            also=(
                lambda a, t, c: _classwise(a, t, c, lambda x, y: _pooled(x, y, c) if bool(x.any()) else 1.0),
                lambda a, t, c: _classwise(
                    a, t, c, lambda x, y: _pooled(x, y, c) if bool(x.any()) and bool(y.any()) else 1.0
                ),
            ),
        ),
        Wrong(
            "empty counts 0",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: float((x & y).sum()) / max(float((x | y).sum()), 1.0)),
            "a class that is rightly found nowhere counts 0",
            "With an empty union nothing is wrong: the class counts 1.",
        ),
        Wrong(
            "not a number",
            lambda a, t, c: float(
                torch.stack([(a & t)[c == k].sum() / (a | t)[c == k].sum() for k in c.unique()]).mean()
            ),
            "0 is divided by 0 for a class that is rightly found nowhere",
            "Test for an empty union: the class counts 1.",
            also=(
                lambda a, t, c: (
                    sum(int((a & t)[c == k].sum()) / int((a | t)[c == k].sum()) for k in c.unique()) / len(c.unique())
                ),
            ),
        ),
        Wrong(
            "an empty class is left out",
            lambda a, t, c: _left_out(a, t, c),
            "a class that is rightly found nowhere is left out of the mean",
            "It counts 1, and the mean runs over all classes that occur.",
        ),
        Wrong(
            "smoothed",
            lambda a, t, c: _smoothed(a, t, c, 1.0),
            "a number is added above and below the line, which moves every ratio",
            "Divide the counts as they are, and treat an empty union by itself.",
            also=tuple(lambda a, t, c, e=e: _smoothed(a, t, c, e) for e in (0.1, 1e-2, 1e-3, 1e-4)),
        ),
        Wrong(
            "all class numbers",
            lambda a, t, c: sum(_pooled(a[c == k], t[c == k], c) for k in c.unique()) / (int(c.max()) + 1),
            "the sum over the classes is divided by another number than that of the classes that occur",
            "Divide by len(classes.unique()).",
            also=(
                lambda a, t, c: sum(_pooled(a[c == k], t[c == k], c) for k in c.unique()) / len(c),
                lambda a, t, c: sum(_pooled(a[c == k], t[c == k], c) for k in c.unique()),
            ),
        ),
        Wrong(
            "numbers that do not occur",
            lambda a, t, c: _over_numbers(a, t, c, range(int(c.max()) + 1)),
            "the loop runs over 0, 1, 2, ...: numbers of classes that do not occur have an empty union and count 1",
            "Loop over classes.unique().",
            also=(lambda a, t, c: _over_numbers(a, t, c, range(len(c.unique()))),),
        ),
        Wrong(
            "a class for each picture",
            lambda a, t, c: _over_numbers(a, t, c, c.tolist()),
            "a class counts once for each of its pictures",
            "Every class counts once: loop over classes.unique() and not over classes.",
        ),
        Wrong(
            "background, too",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: (_pooled(x, y, c) + _pooled(~x, ~y, c)) / 2),
            "the IoU of the background is averaged in",
            "Only the wanted classes count.",
            also=(
                lambda a, t, c: _classwise(
                    a, t, c, lambda x, y: (_pooled(x, y, c) + float((~x & ~y).sum() / (~x | ~y).sum())) / 2
                ),
            ),
        ),
        Wrong(
            "whole numbers",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: int((x & y).sum()) // max(1, int((x | y).sum()))),
            "the division gives whole numbers only",
            "Divide with / and not with //.",
            also=(lambda a, t, c: float(_classwise(a, t, c, lambda x, y: int(_pooled(x, y, c)))),),
        ),
        Wrong(
            "only one class",
            lambda a, t, c: [_pooled(a[c == k], t[c == k], c) for k in c.unique()][-1],
            "only one class is returned: the first, because a return stands in the loop, or the last",
            "Collect the ratio of every class, and return their mean after the loop.",
            also=(
                lambda a, t, c: next(_pooled(a[c == k], t[c == k], c) for k in c.unique()),
                lambda a, t, c: [_left_out(a[c == k], t[c == k], c[c == k]) for k in c.unique()][-1],
            ),
        ),
        Wrong(
            "per cent",
            lambda a, t, c: 100 * mean_iou(a, t, c),
            "the result is in per cent",
            "Return a number from 0 to 1.",
        ),
    ),
    hints=(
        "Which numbers do you sum before you divide?",
        "For each class in classes.unique(): pixels in both masks, pixels in at least one, then one division.",
        "`a, t = answers[classes == c], truths[classes == c]`; `(a & t).sum() / (a | t).sum()`, or 1 where the union is empty",
    ),
)


# ------------------------------------------------------------------------------------ 19.4 non-maximum suppression


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Returns the IoU of boxes [A, 4] and [B, 4] -> [A, B]."""
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    both = (high - low).clamp_min(0).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    return both / (area_a[:, None] + area_b - both)


def keep_best(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Returns the positions of the boxes that stay, best first. float [M, 4], [M] -> int64 [kept]."""
    overlap, left, kept = box_iou(boxes, boxes), scores.argsort(descending=True), []
    while len(left):
        best = left[0]
        kept.append(int(best))
        left = left[1:][overlap[best, left[1:]] <= threshold]
    return torch.tensor(kept, dtype=torch.int64)


def _keep_by_mask(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    overlap, alive, kept = box_iou(boxes, boxes), scores.clone(), []
    while len(kept) < len(scores) and float(alive.max()) > -torch.inf:
        best = int(alive.argmax())
        kept.append(best)
        alive[overlap[best] > threshold] = -torch.inf
        alive[best] = -torch.inf
    return torch.tensor(kept, dtype=torch.long)


def _keep_by_comparison(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    kept: list[int] = []
    for i in torch.sort(scores, descending=True).indices.tolist():
        if not kept or bool((box_iou(boxes[i : i + 1], boxes[kept])[0] <= threshold).all()):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def _area(box: list[float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _keep_in_python(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    rows, kept = boxes.tolist(), []
    for i in sorted(range(len(rows)), key=lambda k: -float(scores[k])):
        free = True
        for j in kept:
            a, b = rows[i], rows[j]
            both = _area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
            free = free and both <= threshold * (_area(a) + _area(b) - both)
        if free:
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def _keep_recursively(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    def rest(order: list[int]) -> list[int]:
        if not order:
            return []
        first, others = order[0], order[1:]
        return [first, *rest([i for i in others if float(box_iou(boxes[[first]], boxes[[i]])) <= threshold])]

    return torch.tensor(rest(scores.argsort(descending=True).tolist()), dtype=torch.int64)


def _greedy(boxes: Tensor, order: Tensor, gone: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    kept, left = [], order
    while len(left):
        kept.append(int(left[0]))
        left = left[1:][~gone(boxes[left[0]][None], boxes[left[1:]])]
    return torch.tensor(kept, dtype=torch.int64)


def _down(scores: Tensor) -> Tensor:
    return scores.argsort(descending=True)


def _suppressed_by_all(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Boxes that are already gone suppress others, too."""
    order = _down(scores)
    overlap = box_iou(boxes[order], boxes[order]).triu(1)
    return order[(overlap <= threshold).all(0)]


def _over_the_smaller(a: Tensor, b: Tensor) -> Tensor:
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    return ((high - low).clamp_min(0).prod(2) / torch.minimum(area_a[:, None], area_b))[0]


def _without_clamp(a: Tensor, b: Tensor) -> Tensor:
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    both = (high - low).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    return (both / (area_a[:, None] + area_b - both))[0]


def _keep_if(boxes: Tensor, scores: Tensor, stays: Callable[[Tensor, int, list[int], list[int]], bool]) -> Tensor:
    """Goes through the boxes by falling score; stays is asked with (overlaps, box, boxes kept so far, boxes tried so far)."""
    overlap, kept, tried = box_iou(boxes, boxes), [], []
    for i in _down(scores).tolist():
        if not kept or stays(overlap, i, kept, tried):
            kept.append(i)
        tried.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def _until(boxes: Tensor, scores: Tensor, threshold: float, end: float) -> Tensor:
    """Marks boxes that are gone by a score that others may have, too."""
    overlap, alive, kept = box_iou(boxes, boxes), scores.clone(), []
    while len(alive) and float(alive.max()) > end:
        best = int(alive.argmax())
        kept.append(best)
        alive[overlap[best] > threshold] = end
        alive[best] = end
    return torch.tensor(kept, dtype=torch.int64)


def _divided(a: Tensor, b: Tensor, by: str, edge: float = 0.0) -> Tensor:
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    both = (high - low + edge).clamp_min(0).prod(2)[0]
    one, other = ((x[:, 2:] - x[:, :2] + edge).prod(1) for x in (a, b))
    return (
        both
        / {
            "kept": one,
            "other": other,
            "larger": torch.maximum(one, other),
            "sum": one + other,
            "union": one + other - both,
            "nothing": torch.ones_like(other),
        }[by]
    )


def _corner_and_size(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def _while_removing(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    order, overlap = _down(scores).tolist(), box_iou(boxes, boxes)
    for i in order:
        for j in order:
            if i != j and float(overlap[i, j]) > threshold:
                order.remove(j)
    return torch.tensor(order, dtype=torch.int64)


def _keep_cases(generator: Generator) -> list[Case]:
    paper = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [20.0, 20.0, 30.0, 30.0]])
    chain = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 0.0, 13.0, 10.0], [6.0, 0.0, 16.0, 10.0]])
    inner = torch.tensor([[0.0, 0.0, 20.0, 20.0], [5.0, 5.0, 10.0, 10.0], [100.0, 100.0, 120.0, 120.0]])
    exact = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]])
    corner = 20 * torch.rand(12, 2, generator=generator)
    many = torch.cat([corner, corner + 5 + 8 * torch.rand(12, 2, generator=generator)], 1)
    scores = torch.rand(12, generator=generator)
    low = torch.tensor([-0.5, -7.0, 0.0, -3.0, -0.1, -9.0])
    row = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [12.0, 0.0, 22.0, 10.0], [40.0, 0.0, 50.0, 10.0], [6.0, 0.0, 16.0, 10.0]]
    )
    falling = torch.tensor([0.9, 0.8, 0.7, 0.6])
    return [
        Case("the example on paper", (paper, torch.tensor([0.8, 0.9, 0.3]), 0.5)),
        Case(
            "a chain: the first touches the second, the second the third", (chain, torch.tensor([0.9, 0.8, 0.7]), 0.5)
        ),
        Case("a small box inside a large one", (inner, torch.tensor([0.2, 0.9, 0.5]), 0.5)),
        Case("an overlap of exactly the threshold stays", (exact, torch.tensor([0.9, 0.8]), 0.5)),
        Case("12 boxes", (many, scores, 0.3)),
        Case("12 boxes in float64, another threshold", (many.double(), scores.double(), 0.1)),
        Case("scores below zero", (torch.cat([many[:5], many[:1] + 100]), low, 0.3)),
        Case("three boxes apart from each other, and one that overlaps the first two", (row, falling, 0.1)),
        Case("one box", (paper[:1], torch.tensor([0.1]), 0.5)),
        Case("no box", (paper[:0], torch.zeros(0), 0.5)),
    ]


KEEP = Exercise(
    id="19.4",
    title="Non-maximum suppression",
    reference=keep_best,
    cases=_keep_cases,
    right=(_keep_by_mask, _keep_by_comparison, _keep_in_python, _keep_recursively),
    wrong=(
        Wrong(
            "worst first",
            lambda b, s, t: _greedy(b, s.argsort(), lambda x, y: box_iou(x, y)[0] > t),
            "the boxes are tried in rising order of the score, so the worst ones stay",
            "Sort with descending=True.",
        ),
        Wrong(
            "in the given order",
            lambda b, s, t: _greedy(b, torch.arange(len(s)), lambda x, y: box_iou(x, y)[0] > t),
            "the boxes are tried in the given order, and their scores are not used",
            "Sort by the score, best first.",
        ),
        Wrong(
            "suppressed boxes suppress",
            _suppressed_by_all,
            "a box that is already gone still removes others",
            "Only boxes that stay remove others: compare with the kept ones.",
        ),
        Wrong(
            "the wrong side",
            lambda b, s, t: _greedy(b, _down(s), lambda x, y: box_iou(x, y)[0] < t),
            "the boxes that do NOT overlap are removed",
            "Remove a box whose overlap is above the threshold.",
            also=(lambda b, s, t: _greedy(b, _down(s), lambda x, y: box_iou(x, y)[0] <= t),),
        ),
        Wrong(
            "the threshold itself",
            lambda b, s, t: _greedy(b, _down(s), lambda x, y: box_iou(x, y)[0] >= t),
            "an overlap of exactly the threshold removes a box",
            "Only an overlap above the threshold removes: > and not >=.",
        ),
        Wrong(
            "over one box",
            lambda b, s, t: _greedy(b, _down(s), lambda x, y: _over_the_smaller(x, y) > t),
            "the overlap is divided by the area of one of the two boxes, and not by the union",
            "Divide by the area that both cover together: the sum of both areas, minus the overlap. `box_iou` does it.",
            also=tuple(
                lambda b, s, t, by=by: _greedy(b, _down(s), lambda x, y: _divided(x, y, by) > t)
                for by in ("kept", "other", "larger")
            ),
        ),
        Wrong(
            "over the sum",
            lambda b, s, t: _greedy(b, _down(s), lambda x, y: _divided(x, y, "sum") > t),
            "the overlap is divided by the sum of both areas, in which it counts twice",
            "Subtract the overlap from the sum. `box_iou` does it.",
        ),
        Wrong(
            "not divided",
            lambda b, s, t: _greedy(b, _down(s), lambda x, y: _divided(x, y, "nothing") > t),
            "the area of the overlap is compared with the threshold, without a division",
            "Divide the overlap by the union. `box_iou` does it.",
        ),
        Wrong(
            "one pixel more",
            lambda b, s, t: _greedy(b, _down(s), lambda x, y: _divided(x, y, "union", 1.0) > t),
            "each side is one pixel longer: right minus left plus 1",
            "Right and bottom lie outside here, so the width is right minus left.",
        ),
        Wrong(
            "corner and size",
            lambda b, s, t: keep_best(_corner_and_size(b), s, t),
            "the boxes are read as left, top, width, height",
            "They are left, top, right, bottom.",
        ),
        Wrong(
            "ends at a score",
            lambda b, s, t: _until(b, s, t, 0.0),
            "boxes that are gone get a score such as 0 or -1, or the loop ends at one: a box with a lower score never stays",
            "Scores may be below zero: mark what is gone with -inf, or go through a sorted list.",
            also=(
                lambda b, s, t: _until(b, s, t, -1.0),
                lambda b, s, t: (lambda k: k[s[k] >= 0])(keep_best(b, s, t)),
            ),
        ),
        Wrong(
            "only the last kept box",
            lambda b, s, t: _keep_if(b, s, lambda o, i, kept, tried: float(o[i, kept[-1]]) <= t),
            "a box is compared with one kept box only, and not with every one",
            "Compare with every box kept so far: overlap[i, kept].",
            also=(lambda b, s, t: _keep_if(b, s, lambda o, i, kept, tried: float(o[i, kept[0]]) <= t),),
        ),
        Wrong(
            "any and not all",
            lambda b, s, t: _keep_if(b, s, lambda o, i, kept, tried: bool((o[i, kept] <= t).any())),
            "a box stays as soon as one kept box leaves it alone, although another one overlaps it",
            "Every kept box must leave it alone: all() and not any().",
        ),
        Wrong(
            "the box before",
            lambda b, s, t: _keep_if(b, s, lambda o, i, kept, tried: float(o[i, tried[-1]]) <= t),
            "a box is compared with the one before it in the order of scores, kept or not",
            "Compare with every box kept so far: overlap[i, kept].",
        ),
        Wrong(
            "the mean overlap",
            lambda b, s, t: _keep_if(b, s, lambda o, i, kept, tried: float(o[i, kept].mean()) <= t),
            "the overlaps with the kept boxes are added or averaged before the comparison",
            "A single overlap above the threshold removes the box: all(), or the maximum.",
            also=(lambda b, s, t: _keep_if(b, s, lambda o, i, kept, tried: float(o[i, kept].sum()) <= t),),
        ),
        Wrong(
            "against itself",
            lambda b, s, t: _down(s)[(box_iou(b, b) <= t).all(1)[_down(s)]],
            "a box is compared with itself: that overlap is 1, so nothing stays",
            "Compare with the boxes kept so far, among which it is not yet.",
        ),
        Wrong(
            "both go",
            lambda b, s, t: _down(s)[(box_iou(b, b).fill_diagonal_(0) <= t).all(1)[_down(s)]],
            "of two boxes that overlap both are removed",
            "The one with the higher score stays.",
        ),
        Wrong(
            "nothing removed",
            lambda b, s, t: _down(s),
            "the boxes are sorted, and none is removed",
            "Keep a box only if its overlap with every kept one is at most the threshold.",
        ),
        Wrong(
            "a threshold for scores",
            lambda b, s, t: (lambda k: k[s[k] >= t])(keep_best(b, s, t)),
            "boxes whose score is below the threshold are removed",
            "The threshold is for overlaps. A low score alone removes nobody.",
            also=(lambda b, s, t: (lambda k: k[s[k] > t])(_down(s)),),
        ),
        Wrong(
            "removed while looping",
            _while_removing,
            "boxes are removed from the list over which the loop runs, so that it skips some",
            "Collect the kept boxes in a list of their own.",
        ),
        Wrong(
            "no box at all",
            lambda b, s, t: torch.tensor([int(_down(s)[0]), *keep_best(b, s, t)[1:].tolist()]),
            "the first box is read before it is asked whether there is one",
            "With no box at all, return torch.empty(0, dtype=torch.int64).",
        ),
        Wrong(
            "boxes and not positions",
            lambda b, s, t: b[keep_best(b, s, t)],
            "the boxes are returned, or their scores, and not their positions",
            "Return positions in `boxes`, int64 [kept].",
            also=(lambda b, s, t: s[keep_best(b, s, t)],),
        ),
        Wrong(
            "a mask",
            lambda b, s, t: torch.isin(torch.arange(len(s)), keep_best(b, s, t)),
            "True and False are returned for every box, which says nothing about the order",
            "Return positions, best first.",
        ),
        Wrong(
            "negative sides",
            lambda b, s, t: _greedy(b, _down(s), lambda x, y: _without_clamp(x, y) > t),
            "boxes apart from each other have two negative sides, whose product looks like an overlap",
            "clamp_min(0) for width and height before you multiply.",
        ),
        Wrong(
            "positions in the sorted order",
            lambda b, s, t: _down(s).argsort()[keep_best(b, s, t)],
            "positions in the sorted order are returned",
            "Return positions in `boxes` as it was given.",
        ),
        Wrong(
            "only one",
            lambda b, s, t: _down(s)[:1],
            "only the best box of all is kept",
            "Go on with the boxes that overlap no kept one.",
        ),
        Wrong(
            "sorted by place",
            lambda b, s, t: keep_best(b, s, t).sort().values,
            "the positions are sorted by number and not by score",
            "Best first: keep the order in which you accept them.",
        ),
    ),
    hints=(
        "Take the best box. Which of the others may still stay?",
        "Loop over the positions by falling score, and keep one if its overlap with every kept box is at most the threshold.",
        "`for i in scores.argsort(descending=True).tolist(): if all(box_iou(...) <= threshold for j in kept): kept.append(i)`",
    ),
)


# ------------------------------------------------------------------------------------ 19.5 the detector

Average = Callable[[Tensor, Tensor], Tensor]


def _trial(seed: int, shots: int = 2, width: int = 4, pixels: int = 32) -> tuple[Tensor, Tensor]:
    """Random maps of 4 x 4 or 8 x 8 places, and thin masks of another size in each shot."""
    source = torch.Generator().manual_seed(seed)
    features = torch.randn(shots, 6, width, width, generator=source)
    masks = torch.zeros(shots, pixels, pixels, dtype=torch.bool)
    for shot in range(shots):
        row, column = (int(torch.randint(2, pixels - 2, (1,), generator=source)) for _ in range(2))
        masks[shot, row, 1 : 3 + 5 * (shot + 1)] = True
        masks[shot, :, column] |= torch.rand(pixels, generator=source) < 0.3
    return features, masks


def exposes_average(average: Average) -> bool:
    """Returns True when average(features, masks) is not the mean under the mask at its full size, averaged over the shots."""
    for seed in range(6):
        features, masks = _trial(seed, shots=1 + seed % 3, width=4 if seed < 3 else 8)
        for shot_masks in (masks, masks.flip(0)):
            if not torch.allclose(
                average(features, shot_masks), masked_average(features, shot_masks), rtol=1e-4, atol=1e-5
            ):
                return True
    return False


def _exposes_by_loops(average: Average) -> bool:
    for seed in range(10, 16):
        features, masks = _trial(seed, shots=3)
        if float((average(features, masks) - _average_by_loop(features, masks)).abs().max()) > 1e-4:
            return True
    return False


def _exposes_by_single_pixels(average: Average) -> bool:
    """Under a mask of one pixel the average is that pixel; two shots average; a large mask counts no more."""
    source = torch.Generator().manual_seed(1)
    for _ in range(12):
        features = torch.randn(2, 5, 4, 4, generator=source)
        masks = torch.zeros(2, 16, 16, dtype=torch.bool)
        large = F.interpolate(features, (16, 16), mode="bilinear")
        row, column = torch.randint(16, (2,), generator=source).tolist()
        masks[0, row, column] = True
        masks[1, :, column] = True
        expected = (large[0, :, row, column] + large[1, :, :, column].mean(1)) / 2
        if not torch.allclose(average(features, masks), expected, atol=2e-4):
            return True
    return False


def _exposes_by_einsum(average: Average) -> bool:
    worst = 0.0
    for seed in range(8):
        features, masks = _trial(100 + seed, shots=2, pixels=24)
        worst = max(worst, float((average(features, masks) - _average_by_einsum(features, masks)).norm()))
    return worst > 2e-4


def _first_shot_only(features: Tensor, masks: Tensor) -> Tensor:
    return masked_average(features[:1], masks[:1])


def _one_shot_shrunk(features: Tensor, masks: Tensor) -> Tensor:
    """Only the last shot has its mask shrunk."""
    if len(masks) == 1:
        return masked_average(features, masks)
    rest = masked_average(features[:-1], masks[:-1]) * (len(masks) - 1)
    return (rest + _shrunk(features[-1:], masks[-1:])) / len(masks)


def _small_fault(features: Tensor, masks: Tensor) -> Tensor:
    return masked_average(features, masks) + 1e-3


def _cancelling(features: Tensor, masks: Tensor) -> Tensor:
    return masked_average(features, masks).roll(1)


def _one_feature(features: Tensor, masks: Tensor) -> Tensor:
    found = masked_average(features, masks).clone()
    found[-1] = _over_the_picture(features, masks)[-1]
    return found


def _wrong_first(features: Tensor, masks: Tensor) -> Tensor:
    found = masked_average(features, masks).clone()
    found[0] = _over_the_picture(features, masks)[0]
    return found


def _a_little_low(features: Tensor, masks: Tensor) -> Tensor:
    return masked_average(features, masks) - 1e-3


def _opposite(features: Tensor, masks: Tensor) -> Tensor:
    return -masked_average(features, masks)


def _up_and_down(features: Tensor, masks: Tensor) -> Tensor:
    found = masked_average(features, masks).clone()
    found[1] += 0.3
    found[2] -= 0.3
    return found


def _weights_by_order(features: Tensor, masks: Tensor) -> Tensor:
    found = torch.stack([masked_average(f[None], m[None]) for f, m in zip(features, masks, strict=True)])
    weight = torch.arange(1.0, len(found) + 1)
    return (weight[:, None] * found).sum(0) / weight.sum()


IMPLEMENTATIONS: tuple[tuple[str, Average], ...] = (
    ("a sound one", masked_average),
    ("a sound one that loops over the shots", _average_by_loop),
    ("a sound one by einsum", _average_by_einsum),
    ("one that shrinks every mask", _shrunk),
    ("one that shrinks the mask of one shot", _one_shot_shrunk),
    ("one that reads the first shot only", _first_shot_only),
    ("one that is off by a thousandth", _small_fault),
    ("one whose features are in another order", _cancelling),
    ("one that is wrong in the last feature", _one_feature),
    ("one that is wrong in the first feature", _wrong_first),
    ("one that is a thousandth too low", _a_little_low),
    ("one whose signs are turned", _opposite),
    ("one that is too high in one feature and too low in another", _up_and_down),
    ("one that weights shots by their place", _weights_by_order),
    ("one that pools the shots", _all_at_once),
    ("one that divides by the whole picture", _over_the_picture),
)


def _detector_cases(generator: Generator) -> list[Case]:
    return [Case(says, (answer,)) for says, answer in IMPLEMENTATIONS]


def _rings(average: Average, trials: list[tuple[Tensor, Tensor]], limit: float = 1e-4) -> bool:
    return any(float((average(f, m) - masked_average(f, m)).abs().max()) > limit for f, m in trials)


def _even(seed: int) -> tuple[Tensor, Tensor]:
    features, masks = _trial(seed, 3)
    return features, masks[:1].expand(3, -1, -1)


def _some(average: Average, differ: Callable[[Tensor, Tensor], bool], trials: int = 6) -> bool:
    return any(differ(average(f, m), masked_average(f, m)) for f, m in (_trial(k, 3) for k in range(trials)))


def _with_masks(average: Average, masks: Callable[[Tensor], Tensor]) -> bool:
    return _rings(average, [(f, masks(m)) for f, m in (_trial(k, 3) for k in range(6))])


def _wide(seed: int) -> Tensor:
    """Masks of many pixels, whose shots differ in size."""
    masks = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(seed)) < 0.3
    for shot in range(3):
        masks[shot, 3, 1 : 4 + 8 * shot] = True
    return masks


def _some_law(average: Average, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], times: float) -> bool:
    trials = [_trial(k, 3) for k in range(6)]
    return any(float((average(*change(f, m)) - times * average(f, m)).abs().max()) > 1e-4 for f, m in trials)


def _line() -> tuple[Tensor, Tensor]:
    """A map of 8 x 8 places, and a line of two pixels between the places that nearest takes."""
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 10:50, 21:23] = True
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), mask


def _loose(limit: float, seed: int, mean: bool) -> Callable[[Average], bool]:
    """One trial, by the mean or the largest difference: which faults pass beside the small ones depends on the numbers drawn."""

    def rings(average: Average) -> bool:
        features, masks = _trial(seed, 3)
        gap = (average(features, masks) - masked_average(features, masks)).abs()
        return float(gap.mean() if mean else gap.max()) > limit

    return rings


LOOSE = (
    *(_loose(limit, seed, False) for limit, seed in ((0.05, 1), (0.05, 2), (0.1, 0), (0.1, 1), (0.1, 2), (0.1, 3))),
    *(_loose(limit, seed, True) for limit, seed in ((0.05, 0), (0.05, 2), (0.1, 0))),
)


EXPOSES = Exercise(
    id="19.5",
    title="Bug hunt: whose mean is it?",
    reference=exposes_average,
    cases=_detector_cases,
    right=(
        _exposes_by_loops,
        _exposes_by_single_pixels,
        _exposes_by_einsum,
        lambda a: _rings(a, [_trial(k, 3) for k in range(7)]),
    ),
    wrong=(
        Wrong("always", lambda average: True, "the test rings for everything", "A sound implementation must pass."),
        Wrong("never", lambda average: False, "the test never rings", "Compare with a mean that you compute yourself."),
        Wrong(
            "loose",
            lambda average: _rings(average, [_trial(k, 3) for k in range(6)], 0.02),
            "the comparison is so loose that a small fault passes",
            "Rounding is about 1e-6 here: compare with a tolerance of 1e-4.",
            also=LOOSE,
        ),
        Wrong(
            "strict",
            lambda average: _some(average, lambda a, b: not torch.equal(a, b), 12),
            "the comparison is so strict that mere rounding rings",
            "Two sound ways of summing differ by about 1e-6: compare with a tolerance of 1e-4.",
        ),
        Wrong(
            "one shot",
            lambda average: _rings(average, [_trial(k, 1) for k in range(6)]),
            "only single shots are tried, so whatever goes wrong among shots passes",
            "Try two or three shots with masks of different sizes.",
        ),
        Wrong(
            "masks of one size",
            lambda average: _rings(average, [_even(k) for k in range(6)]),
            "all shots are tried with masks of one size, so that pooling the shots passes",
            "Give the shots masks of different sizes.",
        ),
        Wrong(
            "sums",
            lambda average: _some(average, lambda a, b: abs(float(a.sum() - b.sum())) > 1e-4),
            "only the sum or the mean of the differences is looked at, and opposite differences cancel in it",
            "Compare entry by entry.",
        ),
        Wrong(
            "lengths",
            lambda average: _some(average, lambda a, b: abs(float(a.norm() - b.norm())) > 1e-4),
            "only the length of the prototype is compared, which says nothing about order and signs",
            "Compare entry by entry.",
        ),
        Wrong(
            "sorted",
            lambda average: _some(
                average, lambda a, b: not torch.allclose(a.sort().values, b.sort().values, atol=1e-4)
            ),
            "the entries are sorted before they are compared, so that features in another order pass",
            "Compare entry by entry, each at its place.",
        ),
        Wrong(
            "one entry",
            lambda average: _some(average, lambda a, b: abs(float((a - b)[0])) > 1e-4),
            "only the first feature is compared",
            "Compare all D entries.",
        ),
        Wrong(
            "the last entry",
            lambda average: _some(average, lambda a, b: abs(float((a - b)[-1])) > 1e-4),
            "only the last feature is compared",
            "Compare all D entries.",
        ),
        Wrong(
            "all entries",
            lambda average: _some(average, lambda a, b: bool(((a - b).abs() > 1e-4).all())),
            "the test rings only if ALL features are off, and a fault may touch one",
            "One entry that is off is enough: any(), the largest difference, or not allclose.",
        ),
        Wrong(
            "no absolute value",
            lambda average: _some(average, lambda a, b: float((a - b).max()) > 1e-4),
            "the difference is not taken by its absolute value, so what comes out too low passes",
            "Take .abs() before the maximum.",
            also=(lambda average: _some(average, lambda a, b: float((b - a).max()) > 1e-4),),
        ),
        Wrong(
            "the place of the maximum",
            lambda average: _some(average, lambda a, b: bool(a.argmax() != b.argmax())),
            "only the place of the largest entry is compared",
            "Compare the numbers themselves.",
            also=(lambda average: bool(average(*_trial(0, 3)).argmax() != masked_average(*_trial(0, 3)).argmax()),),
        ),
        Wrong(
            "everything is marked",
            lambda average: _with_masks(average, lambda m: torch.ones_like(m)),
            "only masks are tried that mark everything, and a mask that is shrunk or ignored is then as good",
            "Draw thin masks: lines, or one pixel in a hundred.",
        ),
        Wrong(
            "one size of map and mask",
            lambda average: _rings(average, [(torch.randn(3, 6, 32, 32), _trial(k, 3)[1]) for k in range(6)]),
            "the map has as many places as the mask has pixels, so that nothing has to be enlarged or shrunk",
            "Take maps smaller than the masks, 4 x 4 under 32 x 32 for instance.",
        ),
        Wrong(
            "constant features",
            lambda average: _rings(average, [(torch.ones(3, 6, 4, 4), _trial(k, 3)[1]) for k in range(6)]),
            "the features are constant, and every mean of them is the same",
            "Draw random features.",
            also=(
                lambda average: _rings(average, [(torch.ones(3, 6, 4, 4), _trial(k, 3)[1]) for k in range(6)], 5e-3),
                lambda average: _rings(average, [(torch.ones(3, 6, 4, 4), _wide(k)) for k in range(3)]),
            ),
        ),
        Wrong(
            "only zero rings",
            lambda average: bool((average(*_trial(0, 1)).abs() < 1e-6).all()) or bool((average(*_line()) == 0).all()),
            "the test rings only where the prototype is zero, and a wrong one seldom is",
            "Compare with a mean that you compute yourself.",
        ),
        Wrong(
            "a law only",
            lambda average: _some_law(average, lambda f, m: (f.flip(0), m.flip(0)), 1.0),
            "a law is tried (the order of the shots, or multiples of the features) that many wrong means obey, too",
            "Compare with a mean that you compute yourself.",
            also=(
                lambda average: _some_law(average, lambda f, m: (2 * f, m), 2.0),
                lambda average: (
                    _some_law(average, lambda f, m: (f.flip(0), m.flip(0)), 1.0)
                    or _some_law(average, lambda f, m: (2 * f, m), 2.0)
                ),
            ),
        ),
        Wrong(
            "upside down",
            lambda average: not exposes_average(average),
            "the test rings for the sound ones",
            "True means broken.",
        ),
    ),
    hints=(
        "You know the right answer: you wrote it in exercise 19.1.",
        "Draw random maps and thin masks, two or three shots whose masks differ in size, and compare entry by entry.",
        "`if not torch.allclose(average(features, masks), masked_average(features, masks), atol=1e-4): return True`",
    ),
)


# ------------------------------------------------------------------------------------ 19.6 the way back


def alignment_loss(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float) -> Tensor:
    """Returns PANet's alignment loss, a scalar. [W, K, D, h, w], bool [W, K, S, S], [Q, D, h, w], [Q, 1 + W, S, S]."""
    found, losses = logits.argmax(1), []
    for way, (maps, truth) in enumerate(zip(support, masks, strict=True), start=1):
        if bool((found == way).any()):
            pair = torch.stack([masked_average(query, found == 0), masked_average(query, found == way)])
            losses.append(F.cross_entropy(_large(compare_places(maps, pair, scale), truth), truth.long()))
    return sum(losses, logits.new_zeros(())) / len(support)


def _back(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float, **changed: Any) -> Tensor:
    """The same in parts that a mistake can replace: see the defaults."""
    found, ways, losses = logits.argmax(1), len(support), []
    average = changed.get("average", masked_average)
    for way in range(1, ways + 1):
        mine = changed.get("mine", lambda f, w: f == w)(found, way)
        other = changed.get("other", lambda f, w: f == 0)(found, way)
        if changed.get("skip", True) and not bool(mine.any()):
            continue
        maps, truth = support[way - 1], masks[way - 1]
        pair = [average(query, other), average(query, mine)]
        back = compare_places(maps, torch.stack(pair[:: changed.get("step", 1)]), changed.get("times", scale))
        losses.append(changed.get("loss", _cross_entropy)(back, truth))
    total = sum(losses, logits.new_zeros(()))
    return total / changed.get("number", lambda ways, kept: ways)(ways, len(losses))


def _cross_entropy(back: Tensor, truth: Tensor) -> Tensor:
    return F.cross_entropy(_large(back, truth), truth.long())


def _back_by_probabilities(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float) -> Tensor:
    """Right: the cross-entropy from log-probabilities, shot by shot, and one-hot masks."""
    ways, shots = masks.shape[:2]
    hot = F.one_hot(logits.argmax(1), ways + 1).bool().permute(3, 0, 1, 2)
    total = torch.zeros((), dtype=support.dtype)
    for w in range(ways):
        if hot[w + 1].sum() == 0:
            continue
        pair = torch.stack([_average_by_loop(query, hot[0]), _average_by_loop(query, hot[w + 1])])
        for k in range(shots):
            log_p = _large(_compare_by_loop(support[w, k][None], pair, scale), masks[w, k]).log_softmax(1)[0]
            right = torch.where(masks[w, k], log_p[1], log_p[0])
            total = total - right.mean() / shots / ways
    return total


def _back_all_at_once(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float) -> Tensor:
    """Right: prototypes of all channels together, and the skipped ways multiplied by 0."""
    channel = torch.arange(logits.shape[1])[:, None, None, None]
    chosen = logits.max(1).indices[None] == channel  # [1 + W, Q, H, W]
    prototypes = torch.stack([_average_by_einsum(query, m) for m in chosen])
    losses = []
    for way in range(len(support)):
        back = _compare_by_lengths(support[way], prototypes[[0, way + 1]] + 1e-12, scale)
        losses.append(F.cross_entropy(_large(back, masks[way]), masks[way].to(torch.int64)))
    there = chosen[1:].flatten(1).any(1)
    return torch.where(there, torch.stack(losses), 0.0).mean()


def _back_with_margins(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float) -> Tensor:
    """Right: of two logits only the difference matters, so softplus is the cross-entropy."""
    best, losses = logits.argmax(dim=1), [support.new_zeros(())]
    for way in best.unique().tolist():
        if way > 0:
            pair = torch.stack([_average_by_matmul(query, best == 0), _average_by_matmul(query, best == way)])
            two = _large(_compare_by_convolution(support[way - 1], pair, scale), masks[way - 1])
            sign = masks[way - 1].to(two.dtype) * 2 - 1
            losses.append(F.softplus(-sign * (two[:, 1] - two[:, 0])).mean())
    return torch.stack(losses).sum() / support.shape[0]


def _back_by_part(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float) -> Tensor:
    return _back(support, masks, query, logits, scale)


def _soft(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float) -> Tensor:
    weight, losses = logits.softmax(1), []
    for way in range(1, len(support) + 1):
        pair = torch.stack([masked_average(query, weight[:, 0]), masked_average(query, weight[:, way])])
        losses.append(_cross_entropy(compare_places(support[way - 1], pair, scale), masks[way - 1]))
    return torch.stack(losses).mean()


def _all_ways(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float) -> Tensor:
    """Every support pixel is compared with all 1 + W prototypes."""
    found, losses = logits.argmax(1), [logits.new_zeros(())]
    prototypes = torch.stack([masked_average(query, found == c) for c in range(logits.shape[1])])
    for way in range(1, len(support) + 1):
        if bool((found == way).any()):
            back = _large(compare_places(support[way - 1], prototypes, scale), masks[way - 1])
            losses.append(F.cross_entropy(back, masks[way - 1].long() * way))
    return torch.stack(losses).sum() / len(support)


def _not_swapped(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float) -> Tensor:
    """Prototypes of the support, which segment the queries; the answers are the target."""
    found, losses = logits.argmax(1), []
    for way in range(1, len(support) + 1):
        pair = torch.stack([masked_average(support[way - 1], m) for m in (~masks[way - 1], masks[way - 1])])
        losses.append(_cross_entropy(compare_places(query, pair, scale), found == way))
    return torch.stack(losses).mean()


def _own_prototypes(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float) -> Tensor:
    """Prototypes of the support, which segment the support itself."""
    losses = []
    for maps, truth in zip(support, masks, strict=True):
        pair = torch.stack([masked_average(maps, ~truth), masked_average(maps, truth)])
        losses.append(_cross_entropy(compare_places(maps, pair, scale), truth))
    return torch.stack(losses).mean()


def _all_or_nothing(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float) -> Tensor:
    found = logits.argmax(1)
    if any(not bool((found == way).any()) for way in range(1, len(support) + 1)):
        return logits.new_zeros(())
    return alignment_loss(support, masks, query, logits, scale)


def _letters(arguments: tuple[Any, ...]) -> bool:
    return bool((arguments[3].argmax(1) > 0).any())


def _weighted(back: Tensor, truth: Tensor, more: float) -> Tensor:
    return F.cross_entropy(_large(back, truth), truth.long(), weight=back.new_tensor([1.0, more]))


def _above_zero(support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float) -> Tensor:
    losses = [logits.new_zeros(())]
    for way in range(1, len(support) + 1):
        if bool((mine := logits[:, way] > 0).any()):
            pair = torch.stack([masked_average(query, ~mine), masked_average(query, mine)])
            losses.append(_cross_entropy(compare_places(support[way - 1], pair, scale), masks[way - 1]))
    return torch.stack(losses).sum() / len(support)


def _small_target(back: Tensor, truth: Tensor) -> Tensor:
    small = F.interpolate(truth[:, None].to(back.dtype), back.shape[-2:], mode="nearest")[:, 0]
    return F.cross_entropy(back, small.long())


def _pooled_average(features: Tensor, masks: Tensor) -> Tensor:
    return _all_at_once(features, masks)


def _zero_without_letters(answer: Callable[..., Any], reference: Callable[..., Any]) -> str | None:
    source = torch.Generator().manual_seed(4)
    support, query = torch.randn(2, 1, 3, 2, 2, generator=source), torch.randn(1, 3, 2, 2, generator=source)
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0] = 9.0
    found = answer(support, torch.rand(2, 1, 4, 4, generator=source) < 0.4, query, logits, 4.0)
    if not isinstance(found, Tensor):
        return "what came out is no tensor"
    return None if found.shape == () and float(found.detach()) == 0 else "what came out is not a scalar 0"


def _way_back_cases(generator: Generator) -> list[Case]:
    def case(says: str, ways: int, shots: int, queries: int, scale: float, double: bool = False, **only: int) -> Case:
        dtype = torch.float64 if double else torch.float32
        support = torch.randn(ways, shots, 3, 2, 2, generator=generator).to(dtype)
        query = torch.randn(queries, 3, 2, 2, generator=generator).to(dtype)
        masks = torch.rand(ways, shots, 4, 4, generator=generator) < 0.4
        logits = torch.randn(queries, 1 + ways, 4, 4, generator=generator).to(dtype)
        if (empty := only.get("empty")) is not None:
            logits[:, empty] = -9.0
        return Case(says, (support, masks, query, logits, scale))

    return [
        case("1 way, 1 shot, 1 query", 1, 1, 1, 4.0),
        case("1 way, 2 shots, 2 queries", 1, 2, 2, 4.0),
        case("2 ways, 1 shot, 1 query", 2, 1, 1, 4.0),
        case("3 ways, of which the second is predicted nowhere", 3, 2, 1, 4.0, empty=2),
        case("2 ways, 2 queries, scale 20, float64", 2, 1, 2, 20.0, double=True),
    ]


ALIGNMENT = Exercise(
    id="19.6",
    title="The way back",
    reference=alignment_loss,
    cases=_way_back_cases,
    gradient=(0, 2),
    properties=(Property("the loss is a tensor with the value 0 where no letter is predicted", _zero_without_letters),),
    right=(_back_by_probabilities, _back_all_at_once, _back_with_margins, _back_by_part),
    wrong=(
        Wrong(
            "empty ways are not skipped",
            lambda *a: _back(*a, skip=False),
            "a way that is predicted nowhere adds to the loss, although it has no prototype",
            "Ask (found == way).any() first, and add nothing if it is False.",
        ),
        Wrong(
            "one empty way skips all",
            _all_or_nothing,
            "one way that is predicted nowhere makes the whole loss 0",
            "Skip that way only; the others still count.",
        ),
        Wrong(
            "the mean over the ways that are there",
            lambda *a: _back(*a, number=lambda ways, kept: max(kept, 1)),
            "the sum is divided by the number of ways that are not skipped",
            "Divide by W: a skipped way counts as 0.",
            also=(lambda *a: torch.stack([_back(*a, number=lambda ways, kept: kept)] * int(_letters(a))).mean(),),
        ),
        Wrong(
            "no tensor",
            lambda *a: _back(*a) if _letters(a) else 0.0,
            "a number of Python comes back where every way is skipped",
            "Begin with logits.new_zeros(()), and add the loss of each way.",
        ),
        Wrong(
            "nothing to stack",
            lambda *a: torch.stack([_back(*a)] * int(_letters(a))).mean(),
            "the losses of an empty list are stacked where every way is skipped",
            "Begin with logits.new_zeros(()), and add the loss of each way.",
        ),
        Wrong(
            "summed over ways",
            lambda *a: _back(*a, number=lambda ways, kept: 1),
            "the losses of the ways are added and not averaged",
            "Divide by W.",
        ),
        Wrong(
            "other ways are background",
            lambda *a: _back(*a, other=lambda f, w: f != w),
            "the background prototype averages the other ways, too: everything that is not predicted to be this way",
            "Background is channel 0 alone: found == 0.",
        ),
        Wrong(
            "everything is background",
            lambda *a: _back(*a, other=lambda f, w: torch.ones_like(f, dtype=torch.bool)),
            "the background prototype averages every place, those of the letters, too",
            "Background is channel 0 alone: found == 0.",
        ),
        Wrong(
            "all letters are one",
            lambda *a: _back(*a, mine=lambda f, w: f > 0),
            "every way takes the places of all ways together",
            "Each way has its own channel: found == way.",
        ),
        Wrong(
            "logits above 0",
            _above_zero,
            "a place belongs to a way if its logit is above 0, and not if it is the largest",
            "The largest channel wins: argmax over axis 1.",
        ),
        Wrong(
            "weights in the loss",
            lambda *a: _back(*a, loss=lambda b, t: _weighted(b, t, 2.0)),
            "pixels of the letter count more than others in the cross-entropy",
            "Leave the weights out: plain F.cross_entropy.",
            also=(lambda *a: _back(*a, loss=lambda b, t: _weighted(b, t, float(t.numel() / t.sum()))),),
        ),
        Wrong(
            "no log-probabilities",
            lambda *a: _back(*a, loss=lambda b, t: F.nll_loss(_large(b, t), t.long())),
            "nll_loss gets logits, although it expects log-probabilities",
            "F.cross_entropy takes the log-softmax itself.",
        ),
        Wrong(
            "another loss",
            lambda *a: _back(*a, loss=lambda b, t: F.mse_loss(_large(b, t).softmax(1)[:, 1], t.to(b.dtype))),
            "another loss than the cross-entropy is computed",
            "F.cross_entropy of the enlarged logits, with the mask as target 0 or 1.",
        ),
        Wrong(
            "only the first way",
            lambda *a: _back(a[0][:1], a[1][:1], *a[2:]),
            "only the first way is used",
            "Go through all W ways.",
            also=(lambda *a: _back(a[0][:1], a[1][:1], *a[2:], skip=False),),
        ),
        Wrong(
            "one channel off",
            lambda *a: _back(*a, mine=lambda f, w: f == w - 1),
            "way number w reads channel w of the logits, counted from 0, which belongs to the one before",
            "Channel 0 is background, so the first way has channel 1.",
        ),
        Wrong(
            "soft masks",
            _soft,
            "the prototypes are weighted by probabilities and not by the predicted masks",
            "A pixel belongs to the channel with the largest logit: argmax over axis 1.",
        ),
        Wrong(
            "all ways at once",
            _all_ways,
            "each support is compared with the prototypes of all ways",
            "A way has two prototypes only: background and its own.",
        ),
        Wrong(
            "not swapped",
            _not_swapped,
            "the support makes the prototypes, and the queries are segmented: that is the way there",
            "The way back: prototypes from `query`, which segment `support`.",
        ),
        Wrong(
            "own prototypes",
            _own_prototypes,
            "the support is segmented by its own prototypes, and the queries are not used",
            "Make the prototypes from `query` and the predicted masks.",
        ),
        Wrong(
            "the letter first",
            lambda *a: _back(*a, step=-1),
            "background and letter are exchanged, in the prototypes or in the target",
            "Background first: torch.stack([background, letter]), and target 1 for the letter.",
            also=(lambda *a: _back(*a, mine=lambda f, w: f == 0, other=lambda f, w: f == w),),
        ),
        Wrong(
            "no scale",
            lambda *a: _back(*a, times=1.0),
            "the cosines are not multiplied by `scale`",
            "compare_places(..., scale).",
            also=(lambda *a: _back(*a, times=20.0),),
        ),
        Wrong(
            "on the small map",
            lambda *a: _back(*a, loss=_small_target),
            "the mask is shrunk to the map, and the loss counts its few places",
            "Enlarge the logits to the size of the mask before the cross-entropy.",
        ),
        Wrong(
            "softmax twice",
            lambda *a: _back(*a, loss=lambda b, t: _cross_entropy(b.softmax(1), t)),
            "probabilities go into the cross-entropy, which takes the softmax once more",
            "F.cross_entropy takes logits.",
            also=(lambda *a: _back(*a, loss=lambda b, t: F.cross_entropy(_large(b, t).softmax(1), t.long())),),
        ),
        Wrong(
            "each channel by itself",
            lambda *a: _back(
                *a, loss=lambda b, t: F.binary_cross_entropy_with_logits(_large(b, t)[:, 1], t.to(b.dtype))
            ),
            "the logit of the letter is judged alone, and that of the background has no say",
            "F.cross_entropy of both logits, with the mask as target 0 or 1.",
        ),
        Wrong(
            "pixels and not pictures",
            lambda *a: _back(*a, average=_pooled_average),
            "the pixels of all queries are averaged together",
            "Make the prototypes by `masked_average`: first inside each picture, then over the pictures.",
        ),
        Wrong(
            "summed over pixels",
            lambda *a: _back(*a, loss=lambda b, t: F.cross_entropy(_large(b, t), t.long(), reduction="sum")),
            "the cross-entropy is summed over the pixels",
            "Take the mean over pixels and shots, as F.cross_entropy does by itself.",
            also=(lambda *a: _back(*a, loss=lambda b, t: len(t) * _cross_entropy(b, t)),),
        ),
    ),
    hints=(
        "In the lesson the support makes prototypes and the queries are judged. Now it is the other way round.",
        "found = logits.argmax(1) holds the predicted masks: found == 0 is background, found == way the way's letter.",
        "For each way that is found: `pair = torch.stack([masked_average(query, found == c) for c in (0, way)])`; "
        "then `compare_places`, `F.interpolate`, `F.cross_entropy(..., masks[way - 1].long())`. Divide the sum by W",
    ),
)

EXERCISES = (AVERAGE, COMPARE, MEAN_IOU, KEEP, EXPOSES, ALIGNMENT)
