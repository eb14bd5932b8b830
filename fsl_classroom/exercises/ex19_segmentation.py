"""Exercises of lesson 19: masked average pooling, logits by cosines, mean IoU, non-maximum suppression, and a detector.

Cases: every exercise builds its own. The detector 19.5 gets an implementation of 19.1 as an argument and must return True for the
broken ones only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Wrong

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
    right=(_average_by_loop, _average_by_einsum, _average_by_matmul, _average_by_where),
    wrong=(
        Wrong(
            "the mask shrinks",
            _shrunk,
            "the mask is shrunk to the size of the map, so that thin strokes fall between its places",
            "Enlarge the features to the size of the mask, not the other way round.",
            also=(
                lambda f, m: _shrunk(f, m, "bilinear"),
                lambda f, m: _shrunk(f, F.max_pool2d(m.to(f.dtype), 2) if m.shape[-1] > f.shape[-1] else m),
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
            also=(lambda f, p, s: s * _dots(f, p) / f.shape[1] ** 0.5,),
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
            "the features are normalised along the columns of the picture",
            "The D numbers of a place lie along axis 1.",
            also=(
                lambda f, p, s: s * _dots(F.normalize(f, dim=2), F.normalize(p, dim=1)),
                lambda f, p, s: s * _dots(F.normalize(f, dim=1), F.normalize(p, dim=0)),
                lambda f, p, s: s * _dots(F.normalize(f.flatten(1), dim=1).view_as(f), F.normalize(p, dim=1)),
            ),
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
            "squared distances take the place of cosines",
            "PANet compares by the cosine.",
            also=(lambda f, p, s: -s * (f[:, None] - p[None, :, :, None, None]).norm(dim=2),),
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
    return [
        Case("the example on paper", (answer, truth, torch.tensor([7, 7, 2]))),
        Case("three classes, one of them large and right", (answers, truths, torch.tensor([5, 0, 5, 0, 9, 9]))),
        Case("a class in one episode only", (answers[:4], truths[:4], torch.tensor([1, 1, 1, 3]))),
        Case("one episode", (answers[:1], truths[:1], torch.tensor([4]))),
        Case("nothing there and nothing found, and then something missed", (empty, some, torch.tensor([0, 1]))),
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
            "each episode has its own ratio, and the episodes are averaged: a class that comes often counts more",
            "Sum intersections and unions over the episodes of a class, and divide once for each class.",
        ),
        Wrong(
            "episodes inside classes",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: _by_episode(x, y, c)),
            "the ratio is taken for each episode of a class and averaged inside the class",
            "Sum the intersections and the unions of a class first, and divide once.",
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
            also=(lambda a, t, c: _classwise(a, t, c, lambda x, y: _ratio(float((x & y).sum()), float(x.sum()))),),
        ),
        Wrong(
            "empty counts 0",
            lambda a, t, c: _classwise(a, t, c, lambda x, y: float((x & y).sum()) / max(float((x | y).sum()), 1.0)),
            "a class that is rightly found nowhere counts 0",
            "With an empty union nothing is wrong: the class counts 1.",
            also=(
                lambda a, t, c: float(
                    torch.stack([(a & t)[c == k].sum() / (a | t)[c == k].sum() for k in c.unique()]).mean()
                ),
            ),
        ),
        Wrong(
            "all class numbers",
            lambda a, t, c: sum(_pooled(a[c == k], t[c == k], c) for k in c.unique()) / (int(c.max()) + 1),
            "the sum is divided by the largest class number, although most numbers do not occur",
            "Average over the classes that occur: classes.unique().",
            also=(lambda a, t, c: sum(_pooled(a[c == k], t[c == k], c) for k in c.unique()) / len(c),),
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


def _keep_cases(generator: Generator) -> list[Case]:
    paper = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [20.0, 20.0, 30.0, 30.0]])
    chain = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 0.0, 13.0, 10.0], [6.0, 0.0, 16.0, 10.0]])
    inner = torch.tensor([[0.0, 0.0, 20.0, 20.0], [5.0, 5.0, 10.0, 10.0], [100.0, 100.0, 120.0, 120.0]])
    exact = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]])
    corner = 20 * torch.rand(12, 2, generator=generator)
    many = torch.cat([corner, corner + 5 + 8 * torch.rand(12, 2, generator=generator)], 1)
    scores = torch.rand(12, generator=generator)
    return [
        Case("the example on paper", (paper, torch.tensor([0.8, 0.9, 0.3]), 0.5)),
        Case(
            "a chain: the first touches the second, the second the third", (chain, torch.tensor([0.9, 0.8, 0.7]), 0.5)
        ),
        Case("a small box inside a large one", (inner, torch.tensor([0.2, 0.9, 0.5]), 0.5)),
        Case("an overlap of exactly the threshold stays", (exact, torch.tensor([0.9, 0.8]), 0.5)),
        Case("12 boxes", (many, scores, 0.3)),
        Case("12 boxes in float64, another threshold", (many.double(), scores.double(), 0.1)),
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
            "over the smaller box",
            lambda b, s, t: _greedy(b, _down(s), lambda x, y: _over_the_smaller(x, y) > t),
            "the overlap is divided by the smaller box: a small box inside a large one is removed",
            "Divide by the union.",
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
            also=(lambda b, s, t: torch.isin(torch.arange(len(s)), keep_best(b, s, t)),),
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
    ("one that is wrong in one feature", _one_feature),
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


def _exposes_by_largest(average: Average) -> bool:
    return _rings(average, [_trial(seed, 3) for seed in range(7)])


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
            "all shots are tried with one mask, so that pooling the shots passes",
            "Give the shots masks of different sizes.",
        ),
        Wrong(
            "sums",
            lambda average: any(
                abs(float(average(f, m).sum() - masked_average(f, m).sum())) > 1e-4
                for f, m in [_trial(k, 3) for k in range(6)]
            ),
            "only the sum of the prototype is compared, and features in another order have the same sum",
            "Compare entry by entry.",
        ),
        Wrong(
            "one entry",
            lambda average: any(
                abs(float((average(f, m) - masked_average(f, m))[0])) > 1e-4
                for f, m in [_trial(k, 3) for k in range(6)]
            ),
            "only the first feature is compared",
            "Compare all D entries.",
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

EXERCISES = (AVERAGE, COMPARE, MEAN_IOU, KEEP, EXPOSES)
