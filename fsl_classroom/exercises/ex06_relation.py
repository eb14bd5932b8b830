"""Exercises of lesson 06: all pairs, the loss on scores, the split convolution, AUC, two verdicts, the whole method.

Cases: every exercise builds its own; 06.1 and 06.3 draw their feature maps with `_maps`. The detector 06.5 gets scoring
functions as arguments and must return True for those whose scores move when shots are added that bring no news.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong
from fsl_course.evaluation import mean_and_ci95

# ---------------------------------------------------------------------------------------------- 06.1 all pairs


def all_pairs(classes: Tensor, query: Tensor) -> Tensor:
    """Pairs class maps [N, width, h, w] with query maps [M, width, h, w] -> [M, N, 2*width, h, w], the class first."""
    lead = len(query), len(classes)
    left = classes.expand(*lead, *classes.shape[1:])
    right = query[:, None].expand(*lead, *query.shape[1:])
    return torch.cat([left, right], dim=2)


def _pairs_by_loop(classes: Tensor, query: Tensor) -> Tensor:
    return torch.stack([torch.stack([torch.cat([c, q]) for c in classes]) for q in query])


def _pairs_by_index(classes: Tensor, query: Tensor) -> Tensor:
    j, k = torch.meshgrid(torch.arange(len(query)), torch.arange(len(classes)), indexing="ij")
    return torch.cat([classes[k], query[j]], dim=-3)


def _pairs_by_repeating(classes: Tensor, query: Tensor) -> Tensor:
    fast, slow = classes.repeat(len(query), 1, 1, 1), query.repeat_interleave(len(classes), 0)
    return torch.cat([fast, slow], dim=1).unflatten(0, (len(query), len(classes)))


def _pairs_filled(classes: Tensor, query: Tensor) -> Tensor:
    """Fills an empty table, half by half."""
    width, *size = classes.shape[1:]
    table = classes.new_zeros(len(query), len(classes), 2 * width, *size)
    table[:, :, :width] = classes
    table[:, :, width:] = query.unsqueeze(1)
    return table


def _pairs_both_tiled(classes: Tensor, query: Tensor) -> Tensor:
    """Repeats both as a whole, so that classes and queries advance together and pairs are wrong."""
    n, m = len(classes), len(query)
    flat = torch.cat([classes.repeat(m, 1, 1, 1), query.repeat(n, 1, 1, 1)], dim=1)
    return flat.unflatten(0, (m, n))


def _maps(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _pair_cases(generator: Generator) -> list[Case]:
    three, five = _maps(generator, 3, 2, 4, 4), _maps(generator, 5, 2, 4, 4)
    numbers = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), torch.tensor([2.0, 5.0, 8.0]).view(3, 1, 1, 1)
    return [
        Case("2 classes and 3 queries, maps of a single number", numbers),
        Case("3 classes, 5 queries, 2 channels of 4 x 4", (three, five)),
        Case("as many queries as classes", (three, five[:3])),
        Case("one query", (three, five[:1])),
        Case("maps that are not square", (three[..., :3], five[..., :3])),
        Case("float64", (three.double(), five.double())),
    ]


PAIRS = Exercise(
    id="06.1",
    title="All pairs",
    reference=all_pairs,
    cases=_pair_cases,
    gradient=(0, 1),
    right=(_pairs_by_loop, _pairs_by_index, _pairs_by_repeating, _pairs_filled),
    wrong=(
        Wrong(
            "query first",
            lambda c, q: all_pairs(c, q).roll(c.shape[1], 2),
            "the query's channels come first and the class's behind",
            "`torch.cat([class map, query map])`: the class fills the first half of the channels.",
        ),
        Wrong(
            "rows are classes",
            lambda c, q: all_pairs(c, q).transpose(0, 1),
            "the table is transposed: [N, M], a row for each class",
            "A row for each query: the outer loop runs over the queries.",
        ),
        Wrong(
            "one list of pairs",
            lambda c, q: all_pairs(c, q).flatten(0, 1),
            "all pairs lie in one list: [M*N, 2*width, h, w]",
            "Keep the two axes [M, N]: stack once over the classes, once over the queries.",
        ),
        Wrong(
            "both tiled",
            _pairs_both_tiled,
            "classes and queries are repeated in the same way and run in step: some pairs come twice, others never",
            "Let the classes run fast and the queries slowly: `repeat` for the one, `repeat_interleave` for the other.",
        ),
        Wrong(
            "classes outside, then viewed",
            lambda c, q: all_pairs(c, q).transpose(0, 1).reshape(len(q), len(c), -1, *c.shape[2:]),
            "the pairs run over the queries first, and are then read as if they ran over the classes first",
            "The queries belong in the outer loop; or swap the first two axes with `.transpose(0, 1)`, which `view` does not do.",
        ),
        Wrong(
            "a new axis",
            lambda c, q: all_pairs(c, q).unflatten(2, (2, -1)),
            "the two maps of a pair are stacked on a new axis",
            "`torch.cat` joins along the channels that are there; `torch.stack` makes a new axis.",
        ),
        Wrong(
            "only in step",
            lambda c, q: torch.stack([torch.cat(pair) for pair in zip(c, q, strict=False)]),
            "the first class meets only the first query, and so on",
            "Every query meets every class: two loops, one inside the other.",
        ),
        Wrong(
            "side by side",
            lambda c, q: torch.cat([c.expand(len(q), *c.shape), q[:, None].expand(len(q), *c.shape)], dim=-1),
            "the maps are joined along their width or height instead of along the channels",
            "Join along the channels, axis 0 of one map [width, h, w].",
            also=(lambda c, q: torch.cat([c.expand(len(q), *c.shape), q[:, None].expand(len(q), *c.shape)], dim=-2),),
        ),
        Wrong(
            "channels in turn",
            lambda c, q: all_pairs(c, q).unflatten(2, (2, -1)).transpose(2, 3).flatten(2, 3),
            "the channels of class and query take turns",
            "All channels of the class first, then all of the query: `torch.cat`.",
        ),
        Wrong(
            "summed",
            lambda c, q: q[:, None] + c,
            "the maps are added: the module can no longer tell what came from which",
            "Join the channels with `torch.cat`.",
        ),
        Wrong(
            "the query twice",
            lambda c, q: torch.cat([q[:, None].expand(len(q), *c.shape)] * 2, 2),
            "both halves hold the query, and the class is lost",
            "`torch.cat([class map, query map])`.",
        ),
        Wrong(
            "difference",
            lambda c, q: q[:, None] - c,
            "the maps are subtracted: that fixes the comparison in advance, and the network should learn it",
            "Join the channels with `torch.cat`.",
            also=(lambda c, q: (q[:, None] - c).abs(),),
        ),
        Wrong(
            "detached",
            lambda c, q: all_pairs(c.detach(), q),
            "maps are cut off from the graph: the encoder learns nothing from them",
            "No `.detach()` and no `no_grad`.",
            also=(lambda c, q: all_pairs(c.detach(), q.detach()),),
        ),
    ),
    hints=(
        "How many pairs are there? Every query meets every class.",
        "Two loops: for each query, for each class, `torch.cat([class map, query map])` joins the channels.",
        "`torch.stack([torch.stack([torch.cat([c, q]) for c in classes]) for q in query])`",
    ),
)

# ---------------------------------------------------------------------------------------------- 06.2 the loss


def relation_loss(logits: Tensor, query_y: Tensor) -> Tensor:
    """Returns the mean squared error of the relation scores over all pairs. logits [M, N], query_y [M] -> scalar."""
    target = F.one_hot(query_y, logits.shape[1]).to(logits.dtype)
    return F.mse_loss(logits.sigmoid(), target)


def _loss_by_comparing(logits: Tensor, query_y: Tensor) -> Tensor:
    right = query_y[:, None] == torch.arange(logits.shape[1])
    score = 1 / (1 + (-logits).exp())
    return torch.where(right, (1 - score) ** 2, score**2).mean()


def _loss_by_index(logits: Tensor, query_y: Tensor) -> Tensor:
    target = torch.zeros_like(logits)
    target[torch.arange(len(query_y)), query_y] = 1
    return (torch.sigmoid(logits) - target).square().sum() / logits.numel()


def _loss_by_expanding(logits: Tensor, query_y: Tensor) -> Tensor:
    """Expands (r - t)² into r² - 2rt + t, as t is 0 or 1."""
    score = logits.sigmoid()
    return (score.square().sum() - 2 * score.gather(1, query_y[:, None]).sum() + len(query_y)) / logits.numel()


def _loss_by_loop(logits: Tensor, query_y: Tensor) -> Tensor:
    rows, columns = logits.shape
    total = logits.new_zeros(())
    for j in range(rows):
        for k in range(columns):
            total = total + (torch.sigmoid(logits[j, k]) - (1.0 if int(query_y[j]) == k else 0.0)) ** 2
    return total / (rows * columns)


def _error(logits: Tensor, query_y: Tensor, score: Callable[[Tensor], Tensor] = torch.sigmoid) -> Tensor:
    """Returns scores minus targets [M, N]."""
    return score(logits) - F.one_hot(query_y, logits.shape[1]).to(logits.dtype)


def _loss_cases(generator: Generator) -> list[Case]:
    logits = 2 * torch.randn(6, 4, generator=generator)
    labels = torch.tensor([0, 3, 1, 2, 3, 0])
    return [
        Case("the example on paper", (torch.tensor([[0.5, -0.5], [-0.5, 0.5]]), torch.tensor([0, 1]))),
        Case("4 classes, 6 queries", (logits, labels)),
        Case("the last class has no query", (logits[:3], torch.tensor([0, 2, 1]))),
        Case("one query", (logits[:1], labels[:1])),
        Case("as many queries as classes", (logits[:4], labels[:4])),
        Case("float64", (logits.double(), labels)),
    ]


LOSS = Exercise(
    id="06.2",
    title="The loss on scores",
    reference=relation_loss,
    cases=_loss_cases,
    gradient=(0,),
    right=(_loss_by_comparing, _loss_by_index, _loss_by_expanding, _loss_by_loop),
    wrong=(
        Wrong(
            "no sigmoid",
            lambda s, y: _error(s, y, lambda t: t).square().mean(),
            "the logits themselves are held against 0 and 1",
            "Squeeze the logits with `.sigmoid()` first: the score lies in [0, 1].",
        ),
        Wrong(
            "softmax",
            lambda s, y: _error(s, y, lambda t: t.softmax(1)).square().mean(),
            "a softmax makes the scores of a query sum to one; here every pair is judged by itself",
            "`.sigmoid()`, pair by pair.",
        ),
        Wrong(
            "sum over the classes",
            lambda s, y: _error(s, y).square().sum(1).mean(),
            "the errors are summed over the classes and averaged over the queries only: N times too large",
            "The mean over all M·N pairs.",
        ),
        Wrong(
            "sum over all pairs",
            lambda s, y: _error(s, y).square().sum(),
            "the errors are summed over all pairs",
            "The mean over all M·N pairs.",
        ),
        Wrong(
            "right pairs only",
            lambda s, y: (1 - s.sigmoid().gather(1, y[:, None])).square().mean(),
            "only the right pairs count: a net that always answers 1 would be perfect",
            "The wrong pairs have the target 0, and count as well.",
        ),
        Wrong(
            "targets turned round",
            lambda s, y: (s.sigmoid() - 1 + F.one_hot(y, s.shape[1])).square().mean(),
            "the right class has the target 0 and the others 1",
            "1 where class and label agree, 0 elsewhere.",
        ),
        Wrong(
            "minus one for wrong",
            lambda s, y: (s.sigmoid() - (2 * F.one_hot(y, s.shape[1]) - 1)).square().mean(),
            "wrong pairs have the target −1, which no sigmoid can reach",
            "The target of a wrong pair is 0.",
        ),
        Wrong(
            "cross-entropy",
            F.cross_entropy,
            "this is the cross-entropy of lesson 05",
            "The squared difference of score and target, over all pairs.",
        ),
        Wrong(
            "binary cross-entropy",
            lambda s, y: F.binary_cross_entropy_with_logits(s, F.one_hot(y, s.shape[1]).to(s.dtype)),
            "this is the binary cross-entropy of the pairs",
            "The squared difference of score and target, over all pairs.",
        ),
        Wrong(
            "absolute error",
            lambda s, y: _error(s, y).abs().mean(),
            "the absolute differences are averaged, not their squares",
            "`.square()` before the mean.",
        ),
        Wrong(
            "half of the square",
            lambda s, y: _error(s, y).square().mean() / 2,
            "the loss is halved, as some textbooks do to tidy up the gradient",
            "The mean of the squares, without a factor.",
        ),
        Wrong(
            "softmax over the queries",
            lambda s, y: _error(s, y, lambda t: t.softmax(0)).square().mean(),
            "a softmax makes the scores of a class sum to one over the queries",
            "`.sigmoid()`, pair by pair.",
        ),
        Wrong(
            "sum over the queries",
            lambda s, y: _error(s, y).square().sum(0).mean(),
            "the errors are summed over the queries and averaged over the classes only: M times too large",
            "The mean over all M·N pairs.",
        ),
        Wrong(
            "squared mean",
            lambda s, y: _error(s, y).mean().square(),
            "the errors are averaged first and squared then, so that plus and minus cancel",
            "Square every error, then average.",
        ),
        Wrong(
            "no gradient",
            lambda s, y: relation_loss(s.detach(), y),
            "the logits are cut off from the graph: nothing learns",
            "No `.detach()`, no `.data` and no `no_grad`.",
        ),
        Wrong(
            "one number a query",
            lambda s, y: _error(s, y).square().mean(1),
            "the mean runs over the classes only and leaves one number a query",
            "`.mean()` over everything: one number.",
        ),
        Wrong(
            "sigmoid twice",
            lambda s, y: _error(s.sigmoid(), y).square().mean(),
            "the sigmoid is taken twice: all scores lie between 0.5 and 0.73",
            "Once: the logits become scores in [0, 1].",
        ),
        Wrong(
            "one_hot with M",
            lambda s, y: (s.sigmoid() - F.one_hot(y, len(y)).to(s.dtype)).square().mean(),
            "the targets get as many columns as there are queries",
            "`F.one_hot(query_y, logits.shape[1])`: a column for each class.",
        ),
        Wrong(
            "root",
            lambda s, y: _error(s, y).square().mean().sqrt(),
            "a square root is taken at the end",
            "Stop at the mean of the squares.",
        ),
        Wrong(
            "one_hot without N",
            lambda s, y: F.mse_loss(s.sigmoid(), F.one_hot(y).to(s.dtype)),
            "`F.one_hot` guesses the number of classes from the labels, and a class without a query is lost",
            "`F.one_hot(query_y, logits.shape[1])`.",
        ),
    ),
    hints=(
        "Which number should the score of a right pair be? And of a wrong one?",
        "`F.one_hot(query_y, N)` is the table of targets; subtract it from the sigmoid of the logits.",
        "`F.mse_loss(logits.sigmoid(), F.one_hot(query_y, logits.shape[1]).to(logits.dtype))`",
    ),
)

# ---------------------------------------------------------------------------------------------- 06.3 split convolution


def split_convolution(classes: Tensor, query: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution of all concatenated pairs, from N + M convolutions.

    classes [N, width, h, w], query [M, width, h, w], weight [F, 2*width, 3, 3], bias [F] -> [M, N, F, h, w]
    """
    left, right = weight.chunk(2, dim=1)
    return F.conv2d(query, right, padding=1)[:, None] + F.conv2d(classes, left, bias, padding=1)


def _split_with_zeros(classes: Tensor, query: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolves each part with zeros in place of the other."""
    one = F.conv2d(torch.cat([classes, torch.zeros_like(classes)], 1), weight, padding=1)
    two = F.conv2d(torch.cat([torch.zeros_like(query), query], 1), weight, bias, padding=1)
    return one.unsqueeze(0) + two.unsqueeze(1)


def _split_by_unfolding(classes: Tensor, query: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolves by a matrix product over 3 x 3 patches."""
    width, size = classes.shape[1], classes.shape[2:]
    one = weight[:, :width].flatten(1) @ F.unfold(classes, 3, padding=1)
    two = weight[:, width:].flatten(1) @ F.unfold(query, 3, padding=1)
    return (two[:, None] + one + bias[:, None]).unflatten(-1, size)


def _split_together(classes: Tensor, query: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Lets all maps meet both halves of the weight in one convolution, and keeps what is needed."""
    n, filters = len(classes), len(weight)
    maps = F.conv2d(torch.cat([classes, query]), torch.cat(weight.tensor_split(2, dim=1)), padding=1)
    return maps[n:, None, filters:] + maps[:n, :filters] + bias.view(-1, 1, 1)


def _split_by_shifting(classes: Tensor, query: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Adds up the nine shifted maps."""

    def convolved(maps: Tensor, half: Tensor) -> Tensor:
        (h, w), padded = maps.shape[2:], F.pad(maps, (1, 1, 1, 1))
        places = [(i, j) for i in range(3) for j in range(3)]
        return sum(torch.einsum("bchw,fc->bfhw", padded[..., i : i + h, j : j + w], half[..., i, j]) for i, j in places)

    width = query.shape[1]
    of_class = convolved(classes, weight[:, :width]) + bias[:, None, None]
    return of_class + convolved(query, weight[:, width:]).unsqueeze(1)


def _pairs_convolved(classes: Tensor, query: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    pairs = all_pairs(classes, query)
    return F.conv2d(pairs.flatten(0, 1), weight, bias, padding=1).unflatten(0, pairs.shape[:2])


def _convolution_cases(generator: Generator) -> list[Case]:
    classes, query = _maps(generator, 3, 2, 5, 5), _maps(generator, 4, 2, 5, 5)
    weight, bias = _maps(generator, 6, 4, 3, 3), _maps(generator, 6)
    args = classes, query, weight, bias
    return [
        Case("3 classes, 4 queries, 2 channels each, 6 filters", args),
        Case("as many queries as classes", (classes, query[:3], weight, bias)),
        Case("one class, one query", (classes[:1], query[:1], weight, bias)),
        Case("maps that are not square", (classes[..., :3], query[..., :3], weight, bias)),
        Case("as many filters as channels in a map", (classes, query, weight[:2], bias[:2])),
        Case("float64", tuple(t.double() for t in args)),
    ]


class _Convolved(TorchDispatchMode):
    """Counts the maps that pass a convolution while the block runs."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.maps += len(args[0])
        return func(*args, **(kwargs or {}))


def _few_convolutions(answer: Callable, reference: Callable) -> str | None:
    generator = torch.Generator().manual_seed(1)
    args = _maps(generator, 6, 2, 4, 4), _maps(generator, 9, 2, 4, 4), _maps(generator, 3, 4, 3, 3), torch.zeros(3)
    with _Convolved() as counter:
        answer(*args)
    if counter.maps > 2 * (6 + 9):
        return f"6 classes and 9 queries took {counter.maps} convolved maps; 15 are enough."
    return None


SPLIT = Exercise(
    id="06.3",
    title="The split convolution",
    reference=split_convolution,
    cases=_convolution_cases,
    gradient=(0, 1, 2, 3),
    properties=(Property("N + M maps are convolved, not N * M", _few_convolutions),),
    right=(_split_with_zeros, _split_by_unfolding, _split_together, _split_by_shifting),
    wrong=(
        Wrong(
            "all pairs",
            _pairs_convolved,
            "all pairs are concatenated and convolved: the right numbers, and N·M convolutions",
            "Cut the *weight* in two along its input channels, and convolve classes and queries apart.",
        ),
        Wrong(
            "bias twice",
            lambda c, q, w, b: split_convolution(c, q, w, b) + b[:, None, None],
            "the bias is added in both halves",
            "Give the bias to one of the two convolutions only.",
        ),
        Wrong(
            "bias in the queries' map only once a class",
            lambda c, q, w, b: split_convolution(c, q, w, b) + (len(c) - 1) * b[:, None, None],
            "the bias is added once for every class",
            "Once for each pair: give the bias to one of the two convolutions.",
        ),
        Wrong(
            "whole weight for both",
            lambda c, q, w, b: (
                F.conv2d(torch.cat([q, q], 1), w, padding=1)[:, None] + F.conv2d(torch.cat([c, c], 1), w, b, padding=1)
            ),
            "class and query both meet the whole weight",
            "Cut the weight: the class meets the first half of its input channels, the query the second.",
        ),
        Wrong(
            "joined, not added",
            lambda c, q, w, b: all_pairs(
                F.conv2d(c, w[:, : w.shape[1] // 2], b, padding=1), F.conv2d(q, w[:, w.shape[1] // 2 :], padding=1)
            ),
            "the two convolved parts are joined along the channels instead of added",
            "A convolution sums over its input channels: add the two parts.",
        ),
        Wrong(
            "averaged",
            lambda c, q, w, b: split_convolution(c, q, w, b) / 2,
            "the two parts are averaged instead of added",
            "A convolution *sums* over its input channels.",
            also=(lambda c, q, w, b: (split_convolution(c, q, w, b) + b[:, None, None]) / 2,),
        ),
        Wrong(
            "no bias",
            lambda c, q, w, b: split_convolution(c, q, w, torch.zeros_like(b)),
            "the bias is left out",
            "Give the bias to one of the two convolutions.",
        ),
        Wrong(
            "halves swapped",
            lambda c, q, w, b: split_convolution(c, q, w.roll(w.shape[1] // 2, 1), b),
            "the classes get the weights of the queries, and the other way round",
            "The class comes first in a pair: it meets `weight[:, :width]`.",
        ),
        Wrong(
            "every other channel",
            lambda c, q, w, b: split_convolution(c, q, torch.cat([w[:, ::2], w[:, 1::2]], 1), b),
            "the class gets every other input channel of the weight",
            "`weight.chunk(2, dim=1)`: the first half, then the second.",
        ),
        Wrong(
            "product",
            lambda c, q, w, b: (
                F.conv2d(q, w[:, w.shape[1] // 2 :], padding=1)[:, None]
                * F.conv2d(c, w[:, : w.shape[1] // 2], b, padding=1)
            ),
            "the two parts are multiplied",
            "A convolution sums over its input channels: the sum over all is the sum of both halves.",
        ),
        Wrong(
            "no padding",
            lambda c, q, w, b: F.conv2d(q, w[:, w.shape[1] // 2 :])[:, None] + F.conv2d(c, w[:, : w.shape[1] // 2], b),
            "there is no padding: the maps shrink by two",
            "`padding=1` in both convolutions.",
        ),
        Wrong(
            "rows are classes",
            lambda c, q, w, b: split_convolution(c, q, w, b).transpose(0, 1),
            "the table is transposed: [N, M]",
            "A row for each query: `[:, None]` behind the queries' convolution.",
        ),
        Wrong(
            "no new axis",
            lambda c, q, w, b: (
                F.conv2d(q, w[:, w.shape[1] // 2 :], padding=1) + F.conv2d(c, w[:, : w.shape[1] // 2], b, padding=1)
            ),
            "the maps of queries and classes are added one to one, not every query to every class",
            "A new axis for the queries: `[:, None]` makes [M, 1, F, h, w], which meets [N, F, h, w].",
        ),
        Wrong(
            "output filters cut",
            lambda c, q, w, b: (
                F.conv2d(q, w.chunk(2)[1], padding=1)[:, None] + F.conv2d(c, w.chunk(2)[0], b, padding=1)
            ),
            "the weight is cut along its filters instead of its input channels",
            "`weight` is [F, 2*width, 3, 3]: cut axis 1.",
        ),
        Wrong(
            "cut at F",
            lambda c, q, w, b: (
                F.conv2d(c, w[:, : w.shape[0]], b, padding=1)[None]
                + F.conv2d(q, w[:, w.shape[0] :], padding=1)[:, None]
            ),
            "the input channels are cut at F, the number of filters, which is another number",
            "`weight` is [F, 2*width, 3, 3]: cut axis 1 at `width = classes.shape[1]`, or in two with `.chunk(2, dim=1)`.",
        ),
        Wrong(
            "relu too early",
            lambda c, q, w, b: (
                F.conv2d(q, w[:, w.shape[1] // 2 :], padding=1).relu()[:, None]
                + F.conv2d(c, w[:, : w.shape[1] // 2], b, padding=1).relu()
            ),
            "each half passes a ReLU before the sum: only what is linear may be split",
            "Add first; the ReLU comes after.",
        ),
    ),
    hints=(
        "A convolution sums over input channels. The first half of them belongs to the class, the second to the query.",
        "Cut `weight` with `.chunk(2, dim=1)`, convolve each part with its half, and add with broadcasting [M, 1] + [N].",
        "`F.conv2d(query, right, padding=1)[:, None] + F.conv2d(classes, left, bias, padding=1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 06.4 AUC


def auc(right: Tensor, wrong: Tensor) -> float:
    """Returns how often a right pair scores above a wrong one, ties as one half.

    right [n_right], wrong [n_wrong] -> float in 0..1
    """
    above = (right[:, None] > wrong).double() + 0.5 * (right[:, None] == wrong).double()
    return float(above.mean())


def _auc_by_sorting(right: Tensor, wrong: Tensor) -> float:
    ordered = wrong.sort().values
    below = torch.searchsorted(ordered, right)
    not_above = torch.searchsorted(ordered, right, right=True)
    return float((below + not_above).double().mean()) / (2 * len(wrong))


def _auc_by_loop(right: Tensor, wrong: Tensor) -> float:
    found = [1.0 if r > w else 0.5 if r == w else 0.0 for r in right.tolist() for w in wrong.tolist()]
    return sum(found) / len(found)


def _auc_by_sign(right: Tensor, wrong: Tensor) -> float:
    return ((right.unsqueeze(1) - wrong.unsqueeze(0)).sign() / 2 + 0.5).double().mean().item()


def _auc_by_curve(right: Tensor, wrong: Tensor) -> float:
    """The area under the curve of true against false alarms, by trapezoids."""
    cuts = torch.cat([right, wrong]).unique().flip(0)
    hits = [0.0] + [float((right >= cut).double().mean()) for cut in cuts]
    alarms = [0.0] + [float((wrong >= cut).double().mean()) for cut in cuts]
    return sum((alarms[i + 1] - alarms[i]) * (hits[i] + hits[i + 1]) / 2 for i in range(len(cuts)))


def _auc_zipped(tie: float) -> Callable[[Tensor, Tensor], float]:
    """Returns an answer that compares pair by pair, as far as the shorter list goes."""

    def answer(right: Tensor, wrong: Tensor) -> float:
        found = [1.0 if r > w else tie if r == w else 0.0 for r, w in zip(right.tolist(), wrong.tolist(), strict=False)]
        return sum(found) / len(found)

    return answer


def _auc_cases(generator: Generator) -> list[Case]:
    right, wrong = torch.randn(12, generator=generator) + 1, torch.randn(30, generator=generator)
    ones, others = torch.tensor([0.9, 0.4]), torch.tensor([0.4, 0.1, 0.8])
    return [
        Case("4.5 of 6 on paper: 0.9 and 0.4 against 0.4, 0.1 and 0.8, with a tie", (ones, others)),
        Case("12 right pairs, 30 wrong ones", (right, wrong)),
        Case("as many right as wrong pairs", (right, wrong[:12])),
        Case("negative squared distances: all below zero", (right - 9, wrong - 9)),
        Case("perfect separation", (right.abs() + 1, -wrong.abs())),
        Case("all scores equal", (torch.zeros(3), torch.zeros(5))),
        Case("the best score of all is wrong", (torch.tensor([0.2, 0.5, 0.6]), torch.tensor([0.1, 0.4, 0.9]))),
        Case("one pair each", (right[:1], wrong[:1])),
        Case("distances of hundreds", (torch.tensor([-300.0, -400.0]), torch.tensor([-500.0, -600.0, -350.0]))),
        Case("float64", (right.double(), wrong.double())),
        Case("a score that comes twice among the right", (torch.tensor([0.9, 0.9, 0.1]), torch.tensor([0.5]))),
        Case("a score that comes twice among the wrong", (torch.tensor([0.5]), torch.tensor([0.2, 0.8, 0.8]))),
    ]


AUC = Exercise(
    id="06.4",
    title="AUC",
    reference=auc,
    cases=_auc_cases,
    right=(_auc_by_sorting, _auc_by_loop, _auc_by_sign, _auc_by_curve),
    wrong=(
        Wrong(
            "ties lost",
            lambda r, w: float((r[:, None] > w).double().mean()),
            "a tie counts as a defeat: equal scores would give 0 instead of one half",
            "Add one half where the two scores are equal.",
        ),
        Wrong(
            "ties won",
            lambda r, w: float((r[:, None] >= w).double().mean()),
            "a tie counts as a win: a net that always says the same would be perfect",
            "A tie counts one half.",
        ),
        Wrong(
            "turned round",
            lambda r, w: auc(w, r),
            "the wrong pairs are counted that score above the right ones",
            "`right[:, None] > wrong`.",
        ),
        Wrong(
            "threshold",
            lambda r, w: float(torch.cat([r > 0.5, w <= 0.5]).double().mean()),
            "scores are cut at 0.5 and counted, which judges a threshold that distances do not have",
            "No threshold: compare every right pair with every wrong one.",
        ),
        Wrong(
            "repeats dropped",
            lambda r, w: float(torch.sign(r.unique()[:, None] - w.unique()).double().mean() + 1) / 2,
            "scores that come twice are counted once",
            "Every pair counts, also if another has the same score: no `set` and no `unique`.",
        ),
        Wrong(
            "in step",
            lambda r, w: float((r > w).double().mean()),
            "the first right pair meets only the first wrong one, and so on",
            "Every right pair meets every wrong one: `right[:, None] > wrong` is a table [n_right, n_wrong].",
            also=(_auc_zipped(0.0), _auc_zipped(0.5)),
        ),
        Wrong(
            "sigmoid first",
            lambda r, w: auc(r.sigmoid(), w.sigmoid()),
            "a sigmoid squeezes the scores first: far from 0 it makes different scores equal, by rounding",
            "Compare the scores as they are: only their order matters, and a sigmoid can only lose some of it.",
        ),
        Wrong(
            "a tensor",
            lambda r, w: ((r[:, None] > w).double() + 0.5 * (r[:, None] == w).double()).mean(),
            "the right number comes as a tensor",
            "`float(...)` around it, or `.item()`.",
        ),
        Wrong(
            "middle of all scores as threshold",
            lambda r, w: float(
                torch.cat([r > torch.cat([r, w]).median(), w <= torch.cat([r, w]).median()]).double().mean()
            ),
            "scores are cut at their median and counted",
            "No threshold: compare every right pair with every wrong one.",
        ),
        Wrong(
            "below the best only",
            lambda r, w: float((r.max() > w).double().mean()),
            "only the highest right pair is compared with the wrong ones",
            "Every right pair meets every wrong one.",
        ),
        Wrong(
            "means compared",
            lambda r, w: float(r.mean() > w.mean()),
            "only the two means are compared",
            "Compare every right pair with every wrong one, and average.",
        ),
        Wrong(
            "against the mean",
            lambda r, w: float((r > w.mean()).double().mean()),
            "every right pair is compared with the mean of the wrong ones only",
            "Compare every right pair with every wrong one.",
        ),
        Wrong(
            "sigmoid of the difference",
            lambda r, w: float((r[:, None] - w).sigmoid().mean()),
            "a sigmoid of the difference is averaged, which depends on the scale of the scores",
            "A win counts 1, a tie one half, a defeat 0: only the order matters.",
        ),
        Wrong(
            "divided by one count",
            lambda r, w: auc(r, w) * len(w),
            "the wins are divided by the number of right pairs only",
            "Divide by the number of comparisons, `n_right * n_wrong`.",
        ),
        Wrong(
            "count",
            lambda r, w: auc(r, w) * len(r) * len(w),
            "the wins are counted, and not divided by the number of comparisons",
            "Divide by the number of comparisons, or take the mean of the table.",
        ),
        Wrong(
            "minus one for a defeat",
            lambda r, w: 2 * auc(r, w) - 1,
            "a defeat counts −1 and a tie 0: a coin would get 0",
            "A win counts 1, a tie one half, a defeat 0.",
        ),
        Wrong(
            "difference of means",
            lambda r, w: float(r.mean() - w.mean()),
            "the means are subtracted: multiply the scores by ten and it grows by ten",
            "Count how often the order is right.",
        ),
        Wrong(
            "above all",
            lambda r, w: float((r > w.max()).double().mean()),
            "a right pair counts only when it beats every wrong pair",
            "Count each comparison of one right and one wrong pair.",
        ),
    ),
    hints=(
        "Draw one right and one wrong pair at random. How often has the right one the higher score?",
        "`right[:, None] > wrong` is the table of all comparisons; its mean is the share. Ties are still missing.",
        "`((right[:, None] > wrong).double() + 0.5 * (right[:, None] == wrong).double()).mean()`, as a float.",
    ),
)

# ---------------------------------------------------------------------------------------------- 06.5 more shots without news

Score = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def shots_alarm(score: Score, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    """Returns True if showing every support row twice changes a score."""
    once = score(support, labels, query, n_way)
    twice = score(torch.cat([support, support]), torch.cat([labels, labels]), query, n_way)
    return bool((once - twice).abs().max() > 1e-3)


def _alarm_interleaved(score: Score, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    twice = score(support.repeat_interleave(2, 0), labels.repeat_interleave(2), query, n_way)
    return bool((twice - score(support, labels, query, n_way)).abs().max() > 1e-3)


def _alarm_thrice(score: Score, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    before = score(support, labels, query, n_way)
    after = score(support.repeat(3, 1), labels.repeat(3), query, n_way)
    return not torch.allclose(before, after, rtol=0, atol=1e-3)


def _alarm_by_loops(score: Score, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    """Doubles class by class, and looks at one number after the other."""
    rows, names = [], []
    for row, name in zip(support, labels.tolist(), strict=True):
        rows += [row, row]
        names += [name, name]
    before = score(support, labels, query, n_way).tolist()
    after = score(torch.stack(rows), torch.tensor(names), query, n_way).tolist()
    pairs = [(a, b) for x, y in zip(before, after, strict=True) for a, b in zip(x, y, strict=True)]
    return any(abs(a - b) > 1e-3 for a, b in pairs)


def _alarm_shuffled(score: Score, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Any:
    """Puts the second copy in front, backwards, and returns a tensor of one bool."""
    rows, names = torch.cat([support.flip(0), support]), torch.cat([labels.flip(0), labels])
    gap = score(support, labels, query, n_way) - score(rows, names, query, n_way)
    return bool(torch.any(gap.abs() > 1e-3))


def _twice(
    rows: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], differ: Callable[[Tensor, Tensor], bool]
) -> Callable[..., bool]:
    """Returns a detector that scores again with the support rows(support, labels) and decides by differ(first, second)."""

    def detector(score: Score, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
        return differ(score(support, labels, query, n_way), score(*rows(support, labels), query, n_way))

    return detector


def _doubled(support: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([support, support]), torch.cat([labels, labels])


def _apart(a: Tensor, b: Tensor) -> bool:
    return not torch.allclose(a, b, rtol=0, atol=1e-3)


def _of(part: Callable[[Tensor], Tensor]) -> Callable[..., bool]:
    """Returns a detector that compares only part(scores) before and after."""
    return _twice(_doubled, lambda a, b: _apart(part(a), part(b)))


def _class_doubled(which: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def rows(support: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mine = labels == which
        return torch.cat([support, support[mine]]), torch.cat([labels, labels[mine]])

    return rows


def _scoring(pool: Callable[[Tensor], Tensor], compare: Callable[[Tensor, Tensor], Tensor] | None = None) -> Score:
    """Returns a function that scores queries against pooled classes.

    pool: rows of one class [K, D] -> [D]; compare: (classes [N, D], query [M, D]) -> scores [M, N], by default a fixed relation
    """

    def relation(classes: Tensor, query: Tensor) -> Tensor:
        hidden = (classes @ mix.to(classes) - query[:, None] @ mix.to(query)).abs().tanh()
        return 2 - hidden.sum(-1)

    mix = torch.linspace(-1, 1, 20).cos().view(5, 4)
    judge = relation if compare is None else compare

    def score(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        return judge(torch.stack([pool(support[labels == k]) for k in range(n_way)]), query)

    return score


def _sum(rows: Tensor) -> Tensor:
    return rows.sum(0)


def _cosine(classes: Tensor, query: Tensor) -> Tensor:
    return F.normalize(query, dim=1) @ F.normalize(classes, dim=1).T


def _weak(classes: Tensor, query: Tensor) -> Tensor:
    """Moves all scores a little, and all by the same amount, with the mean length of the class vectors."""
    return _cosine(classes, query) + 0.02 * classes.norm(dim=1).mean()


def _weak_down(classes: Tensor, query: Tensor) -> Tensor:
    return _cosine(classes, query) - 0.02 * classes.norm(dim=1).mean()


def _dot(classes: Tensor, query: Tensor) -> Tensor:
    return query @ classes.T


def _centred(classes: Tensor, query: Tensor) -> Tensor:
    scores = query @ classes.T
    return scores - scores.mean()


def _centred_by_class(classes: Tensor, query: Tensor) -> Tensor:
    scores = query @ classes.T
    return scores - scores.mean(0)


def _of_one_norm(classes: Tensor, query: Tensor) -> Tensor:
    """Scores whose table always has the same mean and the same norm."""
    scores = -torch.cdist(query, classes)
    scores = scores - scores.mean()
    return 3 * scores / scores.norm()


def _expanded(classes: Tensor, query: Tensor) -> Tensor:
    """Minus squared distances by |q|² − 2qc + |c|², whose rounding shows where the distance is near 0."""
    return 2 * query @ classes.T - query.square().sum(1, keepdim=True) - classes.square().sum(1)


def _mean_of_scores(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Scores rightly: compares every support row by itself and averages the scores."""
    each = -torch.cdist(query, support)
    return torch.stack([each[:, labels == k].mean(1) for k in range(n_way)], dim=1)


def _sum_of_scores(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    each = -torch.cdist(query, support)
    return torch.stack([each[:, labels == k].sum(1) for k in range(n_way)], dim=1)


def _one_class_summed(which: int) -> Score:
    """Returns minus the distances to class means, but for one class, whose rows are summed."""

    def score(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        pooled = [support[labels == k].sum(0) if k == which else support[labels == k].mean(0) for k in range(n_way)]
        return -torch.cdist(query, torch.stack(pooled))

    return score


def _one_query_summed(which: int) -> Score:
    """Returns a score against class means, but against sums for one query."""
    right, wrong = _scoring(lambda z: z.mean(0)), _scoring(_sum)

    def score(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        args = support, labels, query, n_way
        chosen = (torch.arange(len(query)) == which)[:, None]
        return torch.where(chosen, wrong(*args), right(*args))

    return score


def _over_queries(classes: Tensor, query: Tensor) -> Tensor:
    return (query @ classes.T).log_softmax(0)


def _growing_a_little(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Cosines against class means plus 5e-3 for each doubling of the shots."""
    shots = torch.stack([(labels == k).sum() for k in range(n_way)])
    return _scoring(lambda z: z.mean(0), _cosine)(support, labels, query, n_way) + 5e-3 * shots.log2()


def _growing_high(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    return 20 + _growing_a_little(support, labels, query, n_way)


def _one_score_growing(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Cosines against class means, of which one score of the table grows by 6e-3 for each doubling of the shots."""
    scores = _scoring(lambda z: z.mean(0), _cosine)(support, labels, query, n_way)
    scores[2, 1] += 6e-3 * math.log2(len(support))
    return scores


def _by_average_shots(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Divides a sum by the average number of shots, which is right only for equal shots."""
    return _scoring(lambda rows: rows.sum(0) * n_way / len(support))(support, labels, query, n_way)


def _fixed_shots(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Divides a sum by a number of shots that was fixed at training time."""
    return _scoring(lambda rows: rows.sum(0) / 2)(support, labels, query, n_way)


def _running_mean(rows: Tensor) -> Tensor:
    """Computes the mean row by row, so that the last digits depend on the number of rows."""
    centre = torch.zeros_like(rows[0])
    for seen, row in enumerate(rows, start=1):
        centre = centre + (row - centre) / seen
    return centre


def _moving_average(rows: Tensor) -> Tensor:
    """Goes a part of the way to every row, so that the weights depend on order and number of the rows."""
    centre = rows[0]
    for row in rows[1:]:
        centre = centre + 0.3 * (row - centre)
    return centre


def _sound_scores(generator: Generator, support: Tensor, rest: tuple) -> list[Case]:
    """Returns the cases in which no alarm may ring."""
    # The mean of two whole numbers has no rounding error, so even an exact comparison is right here.
    whole = torch.randint(-9, 10, (6, 5), generator=generator).float()
    mean = _scoring(lambda z: z.mean(0), _expanded)
    many, names = 3 * torch.randn(21, 5, generator=generator), torch.arange(21) % 3
    return [
        Case("a mean of whole numbers", (_scoring(lambda z: z.mean(0), _cosine), whole, *rest)),
        Case("a mean in a loop: the last digits differ", (_scoring(_running_mean), support, *rest)),
        Case(
            "queries that equal their class means: only rounding is left of their scores",
            (_scoring(_running_mean, _expanded), many, names, _class_means(many, names), 3),
        ),
        Case("every class shows one picture twice", (mean, support[[0, 1, 2, 2, 0, 1]], *rest)),
        Case("only the sign of the pooled map counts", (_scoring(lambda z: z.sum(0).sign()), whole + 0.25, *rest)),
        Case("all support rows are alike", (mean, support[:1].expand(6, 5).contiguous(), *rest)),
        Case("the largest value of each feature: no sum", (_scoring(lambda z: z.amax(0)), support, *rest)),
        Case("scores of single rows, averaged", (_mean_of_scores, support, *rest)),
        Case("class means and squared distances", (mean, support, *rest)),
        Case("a sum divided by the average number of shots", (_by_average_shots, support, *rest)),
        Case("a sum, compared by cosine: length does not matter", (_scoring(_sum, _cosine), support, *rest)),
    ]


def _class_means(support: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([support[labels == k].mean(0) for k in range(int(labels.max()) + 1)])


def _sum_cases(generator: Generator) -> list[Case]:
    labels = torch.tensor([0, 2, 1, 1, 0, 2])
    support = torch.randn(6, 5, generator=generator) + labels[:, None]
    query = torch.randn(4, 5, generator=generator) + 1
    rest = labels, query, 3
    # class 0 near the queries, class 1 far away, class 2 between: neither the highest score moves nor the lowest
    spread = support + torch.tensor([0.0, 40.0, 6.0])[labels][:, None]
    blank = torch.cat([torch.zeros(1, 5), query[1:]])
    return [
        *_sound_scores(generator, support, rest),
        Case("a sum", (_scoring(_sum), support, *rest)),
        Case("a sum, one shot", (_scoring(_sum), support[:3], labels[:3], query, 3)),
        Case("a sum of scores, not of maps: the order of the classes stays", (_sum_of_scores, support, *rest)),
        Case("a sum divided by a fixed number", (_fixed_shots, support, *rest)),
        Case("a sum that moves all scores of a query alike", (_scoring(_sum, _weak), support, *rest)),
        Case("a sum that lowers all scores of a query alike", (_scoring(_sum, _weak_down), support, *rest)),
        Case("means, but the last class is summed", (_one_class_summed(2), spread, *rest)),
        Case("means, but the first class is summed", (_one_class_summed(0), support, *rest)),
        Case("means, but the last query meets sums", (_one_query_summed(3), support, *rest)),
        Case("means, but the first query meets sums", (_one_query_summed(0), support, *rest)),
        Case("a sum and a softmax over the queries", (_scoring(_sum, _over_queries), support, *rest)),
        Case("a sum and dot products, the first query is blank", (_scoring(_sum, _dot), support, labels, blank, 3)),
        Case("a sum; the scores are centred over the table", (_scoring(_sum, _centred), support, *rest)),
        Case("a sum; the scores are centred class by class", (_scoring(_sum, _centred_by_class), support, *rest)),
        Case("a sum; mean and norm of the table stay as they are", (_scoring(_sum, _of_one_norm), support, *rest)),
        Case("means, but each doubling of the shots adds 0.005", (_growing_a_little, support, *rest)),
        Case("a moving average: the last rows weigh most", (_scoring(_moving_average), support, *rest)),
        Case("scores near 20, and each doubling of the shots adds 0.005", (_growing_high, support, *rest)),
        Case("one score of twelve rises by 0.006", (_one_score_growing, support, *rest)),
    ]


SUM = Exercise(
    id="06.5",
    title="Bug hunt: more shots without news",
    reference=shots_alarm,
    cases=_sum_cases,
    right=(_alarm_interleaved, _alarm_thrice, _alarm_by_loops, _alarm_shuffled),
    wrong=(
        Wrong(
            "winners only",
            _twice(_doubled, lambda a, b: not torch.equal(a.argmax(1), b.argmax(1))),
            "only the winning classes are compared: a score that moves without a change of winner slips through",
            "Compare the scores themselves.",
        ),
        Wrong(
            "order of the classes only",
            _twice(_doubled, lambda a, b: not torch.equal(a.argsort(1), b.argsort(1))),
            "only the order of the classes is compared: scores can move without a change of order",
            "Compare the scores themselves.",
        ),
        Wrong(
            "exactly equal",
            _twice(_doubled, lambda a, b: not torch.equal(a, b)),
            "the scores are compared to the last digit: rounding rings the alarm",
            "Ask for a difference above 0.001: rounding is far below, a fault far above.",
        ),
        Wrong(
            "default tolerance",
            _twice(_doubled, lambda a, b: not torch.allclose(a, b)),
            "the default tolerance of `allclose` leaves no room for rounding where a score is near 0",
            "Name a tolerance: `torch.allclose(a, b, rtol=0, atol=1e-3)`.",
            also=(_twice(_doubled, lambda a, b: bool((a - b).abs().max() > 1e-6)),),
        ),
        Wrong(
            "tolerance too wide",
            _twice(_doubled, lambda a, b: not torch.allclose(a, b, atol=0.1)),
            "the tolerance is so wide that small faults pass as rounding",
            "Rounding changes a score by about a millionth: `rtol=0, atol=1e-3` is wide enough.",
        ),
        Wrong(
            "relative tolerance",
            _twice(_doubled, lambda a, b: not torch.allclose(a, b, rtol=1e-3, atol=1e-4)),
            "the tolerance grows with the score (`rtol`): where scores are large, a fault of 0.005 passes as rounding",
            "An absolute tolerance: `rtol=0, atol=1e-3`.",
            also=(_twice(_doubled, lambda a, b: not torch.allclose(a, b, rtol=1e-2, atol=1e-3)),),
        ),
        Wrong(
            "differences averaged",
            _twice(_doubled, lambda a, b: bool((a - b).abs().mean() > 1e-3)),
            "the differences, or their squares, are averaged over the table: one score that moves drowns among those that rest",
            "Ask for the *largest* difference: `(a - b).abs().max()`.",
        ),
        Wrong(
            "turned round",
            lambda *args: not shots_alarm(*args),
            "the answer is turned round: True stands where the scores stay",
            "`torch.allclose` is True when all is well: put a `not` in front.",
        ),
        Wrong(
            "one class doubled",
            _twice(_class_doubled(0), _apart),
            "only one class gets more rows: that also rings for code that is right where all shots are equal",
            "Show *every* support row again.",
            also=(_twice(_class_doubled(1), _apart), _twice(_class_doubled(2), _apart)),
        ),
        Wrong(
            "one row doubled",
            _twice(lambda z, y: (torch.cat([z, z[:1]]), torch.cat([y, y[:1]])), _apart),
            "only one row is shown again: its class gets a new mean, and that is news",
            "Show *every* support row again, so that no mean moves.",
            also=(_twice(lambda z, y: (torch.cat([z, z[-1:]]), torch.cat([y, y[-1:]])), _apart),),
        ),
        Wrong(
            "half of the rows",
            _twice(lambda z, y: (z[: len(z) // 2], y[: len(y) // 2]), _apart),
            "rows are taken away: that takes information away as well, and right code must answer something else",
            "Add rows that bring no news.",
        ),
        Wrong(
            "new rows",
            _twice(lambda z, y: (torch.cat([z, z + 0.1]), torch.cat([y, y])), _apart),
            "the added rows are not copies: they bring news, and right code must answer something else",
            "Add copies of rows that are there.",
            also=(_twice(lambda z, y: (torch.cat([z, torch.zeros_like(z)]), torch.cat([y, y])), _apart),),
        ),
        Wrong(
            "another order",
            _twice(lambda z, y: (z.flip(0), y.flip(0)), _apart),
            "the rows only change places: the number of shots stays what it was",
            "Add rows, so that every class has more shots than before.",
        ),
        Wrong(
            "queries doubled",
            lambda score, support, labels, query, n: _apart(
                score(support, labels, query, n), score(support, labels, torch.cat([query, query]), n)[: len(query)]
            ),
            "the queries are shown twice: the shots stay what they were",
            "Double `support` and `labels`; leave the queries alone.",
        ),
        Wrong(
            "rows without labels",
            _twice(lambda z, y: (torch.cat([z, z]), torch.cat([y, y.roll(1)])), _apart),
            "the second copy of the rows gets other labels: right code must answer something else",
            "`torch.cat([labels, labels])`: every copy keeps its label.",
        ),
        Wrong(
            "labels forgotten",
            _twice(lambda z, y: (torch.cat([z, z]), y), _apart),
            "there are twice as many rows, but only as many labels as before",
            "`torch.cat([labels, labels])`: every copy needs its label.",
        ),
        Wrong(
            "upwards only",
            _twice(_doubled, lambda a, b: bool((b > a + 1e-3).any())),
            "only scores that rise ring: a sum can make every score fall",
            "Compare in both directions: `torch.allclose`.",
            also=(_twice(_doubled, lambda a, b: bool((b > a).any())),),
        ),
        Wrong(
            "downwards only",
            _twice(_doubled, lambda a, b: bool((b < a - 1e-3).any())),
            "only scores that fall ring: a sum can make every score rise",
            "Compare in both directions: `torch.allclose`.",
        ),
        Wrong(
            "all must move",
            _twice(_doubled, lambda a, b: bool(((a - b).abs() > 1e-3).all())),
            "every score must move before it rings",
            "One that moves is enough.",
        ),
        Wrong(
            "one query",
            _of(lambda a: a[0]),
            "only one query's scores are compared",
            "Compare the whole table [M, n_way].",
            also=(_of(lambda a: a[-1]),),
        ),
        Wrong(
            "one class",
            _of(lambda a: a[:, 0]),
            "only the scores of one class are compared",
            "Compare the whole table [M, n_way].",
            also=(_of(lambda a: a[:, -1]),),
        ),
        Wrong(
            "mean of the table",
            _of(lambda a: a.mean()),
            "only the mean over the table is compared: a rise and a fall can cancel",
            "Compare score by score.",
        ),
        Wrong(
            "norm of the table",
            _of(lambda a: a.norm()),
            "only the norm of the table is compared: scores can move and leave it as it is",
            "Compare score by score.",
        ),
        Wrong(
            "highest score",
            _of(lambda a: a.max(1).values),
            "only the highest score of each query is compared",
            "Compare the whole table [M, n_way].",
            also=(_twice(_doubled, lambda a, b: abs(float(a.max() - b.max())) > 1e-3),),
        ),
        Wrong(
            "mean of each class",
            _of(lambda a: a.mean(0)),
            "the scores are averaged over the queries first: a rise and a fall can cancel",
            "Compare score by score.",
        ),
        Wrong(
            "softmax first",
            _of(lambda a: a.softmax(1)),
            "a softmax takes away what all classes of a query share",
            "Compare the scores as they come.",
        ),
        Wrong(
            "against a mean",
            lambda score, z, y, q, n: _apart(
                score(z, y, q, n), score(torch.stack([z[y == k].mean(0) for k in range(n)]), torch.arange(n), q, n)
            ),
            "the support is replaced by its class means: that rings for everything that is no mean of maps, right or not",
            "Change the number of shots only: the same rows, again.",
        ),
        Wrong(
            "support doubled in value",
            _twice(lambda z, y: (2 * z, y), _apart),
            "the numbers of the support are doubled instead of its rows",
            "`torch.cat([support, support])`: twice as many rows, with the values they have.",
        ),
        Wrong(
            "mean score",
            _twice(_doubled, lambda a, b: _apart(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True))),
            "the mean score of each query is taken away first, and with it a change that all classes share",
            "Compare the scores as they come.",
        ),
    ),
    hints=(
        "Which rows can you add to a support set without telling the net anything new?",
        "Score once with the support, once with every row and its label given twice. Sound code answers the same.",
        "`bool((once - twice).abs().max() > 1e-3)`, `twice` with both rows and labels doubled.",
    ),
)

# ---------------------------------------------------------------------------------------------- 06.6 which differences survive


def survives(differences: Tensor) -> bool:
    """Returns True if a difference survives other episodes and other seeds. differences [seeds, E], paired -> bool."""
    mean, half = mean_and_ci95(differences.mean(0))
    signs = differences.double().mean(1).sign()
    return abs(mean) > half and abs(float(signs.sum())) == len(signs)


def _survives_by_hand(differences: Tensor) -> bool:
    per_episode = differences.double().mean(0)
    mean, half = mean_and_ci95(per_episode)
    each = differences.double().mean(1).tolist()
    if mean - half > 0:
        return all(value > 0 for value in each)
    if mean + half < 0:
        return all(value < 0 for value in each)
    return False


def _survives_by_product(differences: Tensor) -> bool:
    mean, half = mean_and_ci95(differences.mean(0))
    agree = bool((differences.double().mean(1) * mean > 0).all())
    return agree and abs(mean) > half


def _survives_by_extremes(differences: Tensor) -> Any:
    """All seeds above zero or all below, and the same of both ends of the interval; returns a numpy bool."""
    mean, half = mean_and_ci95(differences.mean(0))
    lowest, highest = differences.double().mean(1).aminmax()
    return bool(lowest * highest > 0) and (mean - half) * (mean + half) > 0


def _survives_by_ends(differences: Tensor) -> bool:
    """Turns the difference so that it is positive, and asks whether everything lies above zero."""
    turned = differences * differences.mean().sign()
    mean, half = mean_and_ci95(turned.mean(dim=0))
    return min([mean - half, *turned.double().mean(dim=1).tolist()]) > 0


def _same_side(differences: Tensor) -> Tensor:
    """Returns which seeds agree with the sign of the mean over all, [seeds]."""
    return differences.mean(1) * differences.mean() > 0


def _separated(values: Tensor) -> bool:
    mean, half = mean_and_ci95(values)
    return abs(mean) > half


def _signs_agree(differences: Tensor) -> bool:
    signs = differences.double().mean(1).sign()
    return abs(float(signs.sum())) == len(signs)


def _differences(generator: Generator, means: list[float], noise: float, shared: float, episodes: int = 40) -> Tensor:
    """Draws paired differences [seeds, E] whose row means are exactly as given.

    noise: standard deviation of what differs between seeds; shared: of what all seeds have in common in an episode
    """

    def centred(*shape: int) -> Tensor:
        t = torch.randn(*shape, generator=generator)
        return t - t.mean(-1, keepdim=True)

    return torch.tensor(means)[:, None] + noise * centred(len(means), episodes) + shared * centred(episodes)


def _in_unison(generator: Generator, means: list[float], ratio: float, episodes: int = 40) -> Tensor:
    """Draws differences that all seeds share but for their means; the mean over all is `ratio` half widths of its interval."""
    noise = torch.randn(episodes, generator=generator)
    noise = noise - noise.mean()
    wide = sum(means) / len(means) / (ratio * mean_and_ci95(noise)[1])
    return torch.tensor(means)[:, None] + wide * noise


def _skewed_seed(generator: Generator) -> Tensor:
    """Returns differences whose last seed is far above zero in ten episodes and a little below in thirty."""
    few = torch.tensor([0.2] * 10 + [-0.01] * 30)[torch.randperm(40, generator=generator)]
    return torch.cat([_differences(generator, [0.05, 0.06], 0.02, 0.02), few[None]])


def _one_seed_without(generator: Generator) -> Tensor:
    """Returns differences whose last seed is 0 in every episode."""
    return torch.cat([_differences(generator, [0.05, 0.06], 0.02, 0.02), torch.zeros(1, 40)])


def _survival_cases(generator: Generator) -> list[Case]:
    return [
        Case("clearly better with every seed", (_differences(generator, [0.03, 0.04, 0.05], 0.02, 0.02),)),
        Case("clearly worse with every seed", (_differences(generator, [-0.03, -0.04, -0.05], 0.02, 0.02),)),
        Case(
            "clear on average, but one seed says the opposite",
            (_differences(generator, [0.1, 0.06, -0.01], 0.02, 0.02),),
        ),
        Case(
            "every seed says better, but the interval holds zero",
            (_differences(generator, [0.01, 0.02, 0.03], 0.1, 0.1),),
        ),
        Case(
            "the seeds agree episode by episode: 120 numbers, 40 episodes",
            (_in_unison(generator, [0.02, 0.025, 0.03], 0.75),),
        ),
        Case(
            "better with every seed, though no seed is sure alone",
            (_differences(generator, [0.025, 0.025, 0.03], 0.11, 0.0),),
        ),
        Case("the seeds differ in how much, not in whether", (_differences(generator, [0.2, 0.02, 0.02], 0.03, 0.03),)),
        Case("no difference at all", (torch.zeros(3, 40),)),
        Case("five seeds, float64", (_differences(generator, [0.03, 0.04, 0.05, 0.02, 0.06], 0.02, 0.02).double(),)),
        Case("one seed far above, two just below zero", (_differences(generator, [0.2, -0.01, -0.01], 0.02, 0.02),)),
        Case("the first seed says the opposite", (_differences(generator, [-0.01, 0.06, 0.1], 0.02, 0.02),)),
        Case("the middle seed says the opposite", (_differences(generator, [0.1, -0.01, 0.06], 0.02, 0.02),)),
        Case("one seed finds no difference at all", (_one_seed_without(generator),)),
        Case(
            "every seed says better, only the first is sure",
            (torch.cat([_differences(generator, [0.03], 0.02, 0.0), _differences(generator, [0.01, 0.01], 0.3, 0.0)]),),
        ),
        Case("better in every single episode", (_differences(generator, [0.3, 0.4, 0.5], 0.01, 0.01),)),
        Case("the same, by very different amounts", (_differences(generator, [0.2, 0.5, 1.5], 0.01, 0.01),)),
        Case("two seeds in unison, far from clear", (_in_unison(generator, [0.02, 0.02], 0.6),)),
        Case("two seeds in unison, clear, though single episodes scatter", (_in_unison(generator, [0.02, 0.02], 1.6),)),
        Case("a seed with a mean above zero and a median below", (_skewed_seed(generator),)),
        Case("the seed in the middle is barely above", (_differences(generator, [0.2, 0.005, 0.02], 0.05, 0.0),)),
        Case("one seed is far above, the others barely", (_differences(generator, [0.005, 0.2, 0.006], 0.05, 0.0),)),
    ]


SURVIVES = Exercise(
    id="06.6",
    title="Which differences survive?",
    reference=survives,
    cases=_survival_cases,
    right=(_survives_by_hand, _survives_by_product, _survives_by_extremes, _survives_by_ends),
    wrong=(
        Wrong(
            "interval only",
            lambda d: _separated(d.mean(0)),
            "only the interval is asked: a single lucky seed can carry the mean",
            "Ask for the sign of each seed's mean as well.",
        ),
        Wrong(
            "majority",
            lambda d: _separated(d.mean(0)) and float(_same_side(d).double().mean()) > 0.5,
            "a majority of the seeds decides: one that says the opposite is outvoted",
            "*Every* seed's mean must have the same sign: `.all()`.",
        ),
        Wrong(
            "first two seeds",
            lambda d: _separated(d.mean(0)) and bool(d[0].mean() * d[1].mean() > 0),
            "only the first two seeds are asked for their sign",
            "All of them: `(differences.mean(1) * mean > 0).all()`.",
            also=(lambda d: _separated(d[:2].mean(0)) and _signs_agree(d[:2]),),
        ),
        Wrong(
            "product of the signs",
            lambda d: _separated(d.mean(0)) and bool(d.mean(1).sign().prod() * d.mean() > 0),
            "the signs are multiplied: two seeds below zero make a plus again",
            "Compare each seed's sign with that of the mean, one by one.",
            also=(lambda d: _separated(d.mean(0)) and bool(d.mean(1).sign().prod() > 0),),
        ),
        Wrong(
            "zero agrees",
            lambda d: _separated(d.mean(0)) and bool((d.mean(1) * d.mean() >= 0).all()),
            "a seed that finds no difference at all counts as one that agrees",
            "`> 0`, not `>= 0`: zero has no sign.",
        ),
        Wrong(
            "interval of the first seed",
            lambda d: _separated(d[0]) and _signs_agree(d),
            "the interval is taken of one seed alone",
            "`mean_and_ci95(differences.mean(0))`: the mean over the seeds, episode by episode.",
            also=(lambda d: _separated(d[-1]) and _signs_agree(d),),
        ),
        Wrong(
            "any seed",
            lambda d: any(_separated(row) for row in d),
            "one seed that is sure by itself is enough",
            "One interval over the mean of the seeds, and every seed with the same sign.",
        ),
        Wrong(
            "axes swapped",
            lambda d: _separated(d.mean(1)) and _signs_agree(d.T),
            "the axes are swapped: the interval is taken over the seeds, and the sign asked of every episode",
            "`differences.mean(0)` for the interval, `differences.mean(1)` for the signs.",
        ),
        Wrong(
            "signs only",
            _signs_agree,
            "only the signs are asked: three coins fall alike one time in four",
            "Ask for the interval over the episodes as well.",
        ),
        Wrong(
            "one is enough",
            lambda d: _separated(d.mean(0)) or _signs_agree(d),
            "one of the two conditions is enough",
            "Both must hold: `and`.",
        ),
        Wrong(
            "sign of every episode",
            lambda d: _separated(d.mean(0)) and _signs_agree(d.T),
            "the sign is asked of every episode instead of every seed",
            "`differences.mean(1)` leaves one number for each seed.",
            also=(lambda d: _separated(d.mean(0)) and bool((d > 0).all() or (d < 0).all()),),
        ),
        Wrong(
            "sign of the medians",
            lambda d: _separated(d.mean(0)) and abs(float(d.median(1).values.sign().sum())) == len(d),
            "the sign of every seed's median is asked, not that of its mean",
            "`differences.mean(1)` leaves one mean for each seed.",
        ),
        Wrong(
            "half widths averaged",
            lambda d: (
                abs(sum(mean_and_ci95(row)[0] for row in d)) > sum(mean_and_ci95(row)[1] for row in d)
                and _signs_agree(d)
            ),
            "the half widths of the seeds' own intervals are added or averaged: the mean over the seeds has a narrower one",
            "Average the differences first, `differences.mean(0)`, then take one interval.",
        ),
        Wrong(
            "half of the half width",
            lambda d: abs(float(d.mean())) > mean_and_ci95(d.mean(0))[1] / 2 and _signs_agree(d),
            "the mean is compared with half of the half width",
            "`mean_and_ci95` returns the *half* width already: compare with it as it is.",
        ),
        Wrong(
            "all numbers at once",
            lambda d: _separated(d.flatten()) and _signs_agree(d),
            "all seeds and episodes go into one interval, as if they were independent: the seeds met the same episodes",
            "Average over the seeds first: `differences.mean(0)` leaves one number an episode.",
        ),
        Wrong(
            "every seed alone",
            lambda d: all(_separated(row) for row in d) and _signs_agree(d),
            "every seed must be sure by itself, and what they say together is not used",
            "One interval, over the mean of the seeds.",
            also=(lambda d: all(_separated(row) for row in d),),
        ),
        Wrong(
            "better only",
            lambda d: survives(d) and float(d.mean()) > 0,
            "only a difference above zero counts: to be worse for certain is a result as well",
            "Compare the *absolute* mean with the half width.",
            also=(lambda d: mean_and_ci95(d.mean(0))[0] > mean_and_ci95(d.mean(0))[1],),
        ),
        Wrong(
            "interval over seeds",
            lambda d: _separated(d.mean(1)) and _signs_agree(d),
            "the interval is taken over the seeds' means instead of over the episodes",
            "`differences.mean(0)`: average the seeds away, keep the episodes.",
        ),
        Wrong(
            "two standard deviations",
            lambda d: abs(float(d.mean())) > 2 * float(d.mean(0).std()) and _signs_agree(d),
            "the spread of single episodes is used: it does not shrink with more episodes",
            "The half width of the mean's interval: `mean_and_ci95`.",
            also=(
                lambda d: abs(float(d.mean())) > float(d.std()) and _signs_agree(d),
                lambda d: abs(float(d.mean())) > float(d.mean(0).std()) and _signs_agree(d),
            ),
        ),
        Wrong(
            "turned round",
            lambda d: not survives(d),
            "the answer is turned round",
            "True when the difference survives.",
            also=(lambda d: not _separated(d.mean(0)),),
        ),
    ),
    hints=(
        "Two questions: would other episodes say the same, and would another training say the same?",
        "`mean_and_ci95(differences.mean(0))` answers the first; the signs of `differences.mean(1)` the second.",
        "`abs(mean) > half and bool((differences.mean(1) * mean > 0).all())`",
    ),
)

# ---------------------------------------------------------------------------------------------- 06.7 from memory


def relation_network(
    encoder: nn.Module,
    relation: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
) -> tuple[Tensor, Tensor]:
    """Returns relation scores [M, N] and the loss, from pictures."""
    support, query = encoder(support_x), encoder(query_x)
    classes = torch.stack([support[support_y == k].mean(0) for k in range(n_way)])
    logits = relation(all_pairs(classes, query).flatten(0, 1)).view(len(query), n_way)
    return logits.sigmoid(), relation_loss(logits, query_y)


def _memory_by_loop(
    encoder: nn.Module,
    relation: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
) -> tuple[Tensor, Tensor]:
    maps = encoder(torch.cat([support_x, query_x]))
    support, query = maps[: len(support_x)], maps[len(support_x) :]
    columns = []
    for k in range(n_way):
        pool = support[support_y == k].mean(dim=0, keepdim=True)
        columns.append(relation(torch.cat([pool.expand_as(query), query], dim=1))[:, 0])
    scores = torch.stack(columns, dim=1).sigmoid()
    right = (query_y[:, None] == torch.arange(n_way)).to(scores.dtype)
    return scores, ((scores - right) ** 2).mean()


def _memory_by_one_hot(
    encoder: nn.Module,
    relation: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
) -> tuple[Tensor, Tensor]:
    support, query = encoder(support_x), encoder(query_x)
    member = F.one_hot(support_y, n_way).to(support.dtype)
    classes = torch.einsum("sn,schw->nchw", member / member.sum(0), support)
    pairs = torch.cat([classes.repeat(len(query), 1, 1, 1), query.repeat_interleave(n_way, 0)], dim=1)
    scores = torch.sigmoid(relation(pairs).reshape(-1, n_way))
    return scores, F.mse_loss(scores, F.one_hot(query_y, n_way).to(scores.dtype))


def _memory_by_counting(
    encoder: nn.Module,
    relation: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
) -> tuple[Tensor, Tensor]:
    """Adds every map to its class and divides by the number of shots."""
    support, query = encoder(support_x), encoder(query_x)
    sums = support.new_zeros(n_way, *support.shape[1:]).index_add(0, support_y, support)
    classes = sums / support_y.bincount(minlength=n_way).view(-1, 1, 1, 1)
    scores = relation(_pairs_by_repeating(classes, query).flatten(0, 1)).unflatten(0, (-1, n_way)).squeeze(-1).sigmoid()
    return scores, _loss_by_index(scores.logit(), query_y)


def _memory_query_by_query(
    encoder: nn.Module,
    relation: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
) -> tuple[Tensor, Tensor]:
    support = encoder(support_x)
    classes = torch.stack([support[support_y.eq(k)].mean(0) for k in range(n_way)])
    rows, total = [], support.new_zeros(())
    for picture, truth in zip(query_x, query_y.tolist(), strict=True):
        pairs = torch.cat([classes, encoder(picture[None]).repeat(n_way, 1, 1, 1)], dim=1)
        rows.append(relation(pairs).flatten().sigmoid())
        total = total + (1 - rows[-1][truth]) ** 2 + sum(r**2 for k, r in enumerate(rows[-1]) if k != truth)
    return torch.stack(rows), total / (n_way * len(rows))


def _memory_by_appearance(
    encoder: nn.Module,
    relation: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
) -> tuple[Tensor, Tensor]:
    support, query = encoder(support_x), encoder(query_x)
    classes = torch.stack([support[support_y == k].mean(0) for k in dict.fromkeys(support_y.tolist())])
    logits = relation(all_pairs(classes, query).flatten(0, 1)).view(len(query), n_way)
    return logits.sigmoid(), relation_loss(logits, query_y)


def _flawed(
    *,
    pool: Callable[[Tensor], Tensor] = lambda rows: rows.mean(0),
    pairs: Callable[[Tensor, Tensor], Tensor] = all_pairs,
    table: Callable[[Tensor, int, int], Tensor] = lambda flat, m, n: flat.view(m, n),
    score: Callable[[Tensor], Tensor] = torch.sigmoid,
    loss: Callable[[Tensor, Tensor], Tensor] = relation_loss,
    support_of: Callable[[nn.Module, Tensor], Tensor] = lambda encoder, x: encoder(x),
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns the method with one part replaced."""

    def method(
        encoder: nn.Module,
        relation: nn.Module,
        support_x: Tensor,
        support_y: Tensor,
        query_x: Tensor,
        query_y: Tensor,
        n_way: int,
    ) -> tuple[Tensor, Tensor]:
        support, query = support_of(encoder, support_x), encoder(query_x)
        classes = torch.stack([pool(support[support_y == k]) for k in range(n_way)])
        logits = table(relation(pairs(classes, query).flatten(0, 1)), len(query), n_way)
        return score(logits), loss(logits, query_y)

    return method


def _scores_averaged(
    encoder: nn.Module,
    relation: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
    *,
    squeeze_first: bool = True,
) -> tuple[Tensor, Tensor]:
    """Compares every query with every shot, and averages the scores (or the logits) of a class."""
    support, query = encoder(support_x), encoder(query_x)
    each = relation(all_pairs(support, query).flatten(0, 1)).view(len(query), len(support))
    each = each.sigmoid() if squeeze_first else each
    scores = torch.stack([each[:, support_y == k].mean(1) for k in range(n_way)], dim=1)
    scores = scores if squeeze_first else scores.sigmoid()
    return scores, F.mse_loss(scores, F.one_hot(query_y, n_way).to(scores.dtype))


def _query_detached(
    encoder: nn.Module,
    relation: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
) -> tuple[Tensor, Tensor]:
    support, query = encoder(support_x), encoder(query_x).detach()
    classes = torch.stack([support[support_y == k].mean(0) for k in range(n_way)])
    logits = relation(all_pairs(classes, query).flatten(0, 1)).view(len(query), n_way)
    return logits.sigmoid(), relation_loss(logits, query_y)


def _both_detached(
    encoder: nn.Module,
    relation: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
) -> tuple[Tensor, Tensor]:
    frozen = lambda x: encoder(x).detach()  # noqa: E731
    return relation_network(frozen, relation, support_x, support_y, query_x, query_y, n_way)  # type: ignore[arg-type]


def _sorted_then_viewed(order: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns the method with classes read as rows of equal length, after support[order(labels)]."""

    def method(
        encoder: nn.Module,
        relation: nn.Module,
        support_x: Tensor,
        support_y: Tensor,
        query_x: Tensor,
        query_y: Tensor,
        n_way: int,
    ) -> tuple[Tensor, Tensor]:
        support, query = encoder(support_x)[order(support_y)], encoder(query_x)
        classes = support.view(n_way, -1, *support.shape[1:]).mean(1)
        logits = relation(all_pairs(classes, query).flatten(0, 1)).view(len(query), n_way)
        return logits.sigmoid(), relation_loss(logits, query_y)

    return method


def _memory_cases(generator: Generator) -> list[Case]:
    def layer(kind: type[nn.Module], *sizes: int, **options: int) -> nn.Module:
        made = kind(*sizes, **options)
        with torch.no_grad():
            for weight in made.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) / 2)
        return made

    def case(says: str, shots: list[int], queries: int) -> Case:
        labels = torch.arange(len(shots)).repeat_interleave(torch.tensor(shots))
        support_y = labels[torch.randperm(len(labels), generator=generator)]
        pictures = torch.rand(len(labels) + queries, 1, 4, 4, generator=generator)
        query_y = torch.randint(len(shots), (queries,), generator=generator)
        encoder = nn.Sequential(layer(nn.Conv2d, 1, 3, 3, padding=1), nn.Tanh())
        relation = nn.Sequential(
            nn.AvgPool2d(2), nn.Flatten(), layer(nn.Linear, 24, 4), nn.Tanh(), layer(nn.Linear, 4, 1)
        )
        support_x, query_x = pictures[: len(labels)], pictures[len(labels) :]
        return Case(says, (encoder, relation, support_x, support_y, query_x, query_y, len(shots)))

    return [
        case("5-way 2-shot, 8 queries, rows shuffled", [2] * 5, 8),
        case("unequal shots: 1, 4 and 2", [1, 4, 2], 6),
        case("one query", [1, 1, 1], 1),
        case("as many queries as classes", [3, 3, 3], 3),
    ]


def _teaches_both(answer: Callable, reference: Callable) -> str | None:
    """Returns None if the gradients in encoder and relation module equal the reference's, or what is wrong."""
    args = _memory_cases(torch.Generator().manual_seed(5))[1].args
    for name, module in (("encoder", args[0]), ("relation module", args[1])):
        weights, slopes = list(module.parameters()), []
        for method in (answer, reference):
            loss = method(*args)[1]
            if not isinstance(loss, Tensor) or not loss.requires_grad:
                return "no gradient flows from the loss. Is there a no_grad or a detach?"
            found = torch.autograd.grad(loss, weights, allow_unused=True)
            slopes.append(
                torch.cat(
                    [(torch.zeros_like(w) if s is None else s).flatten() for s, w in zip(found, weights, strict=True)]
                )
            )
        gap = float((slopes[0] - slopes[1]).abs().max())
        if gap > 1e-4:
            return f"the gradient in the weights of the {name} is off by up to {gap:.2g}."
    return None


MEMORY = Exercise(
    id="06.7",
    title="Relation network from memory",
    reference=relation_network,
    cases=_memory_cases,
    properties=(Property("the loss teaches the encoder and the relation module", _teaches_both),),
    right=(_memory_by_loop, _memory_by_one_hot, _memory_by_counting, _memory_query_by_query),
    wrong=(
        Wrong(
            "sum of the shots",
            _flawed(pool=lambda rows: rows.sum(0)),
            "the maps of a class are summed: what is compared grows with the shots",
            "`.mean(0)` over the maps of a class.",
        ),
        Wrong(
            "query first",
            _flawed(pairs=lambda c, q: all_pairs(c, q).roll(c.shape[1], 2)),
            "the query's channels come before the class's",
            "The class fills the first half of the channels.",
        ),
        Wrong(
            "table read across",
            _flawed(
                pairs=lambda c, q: all_pairs(c, q).transpose(0, 1),
                table=lambda flat, m, n: flat.view(m, n),
            ),
            "the pairs run over the queries first, and are then read as if they ran over the classes first",
            "Pairs as [M, N, ...] flatten to M·N rows that `.view(M, N)` puts back.",
        ),
        Wrong(
            "table turned",
            _flawed(table=lambda flat, m, n: flat.view(n, m).T),
            "the pairs run over the classes first, but their logits are read as if they ran over the queries first",
            "M·N rows that run over the classes first become the table by `.view(M, n_way)`, without `.T`.",
        ),
        Wrong(
            "logits returned",
            _flawed(score=lambda s: s),
            "the loss is right, but logits are returned in place of scores",
            "Scores lie in [0, 1]: `.sigmoid()`.",
        ),
        Wrong(
            "softmax",
            _flawed(
                score=lambda s: s.softmax(1),
                loss=lambda s, y: F.mse_loss(s.softmax(1), F.one_hot(y, s.shape[1]).to(s.dtype)),
            ),
            "a softmax makes the scores of a query sum to one",
            "`.sigmoid()`: every pair is judged by itself.",
        ),
        Wrong(
            "cross-entropy",
            _flawed(loss=F.cross_entropy),
            "the loss is the cross-entropy of the logits",
            "The paper's loss: the mean squared error of the scores against 0 and 1.",
        ),
        Wrong(
            "error of the logits",
            _flawed(loss=lambda s, y: F.mse_loss(s, F.one_hot(y, s.shape[1]).to(s.dtype))),
            "the loss holds the logits against 0 and 1",
            "`.sigmoid()` first: the loss is on scores.",
        ),
        Wrong(
            "summed loss",
            _flawed(loss=lambda s, y: relation_loss(s, y) * s.numel()),
            "the squared errors are summed over all pairs",
            "Average over the pairs.",
        ),
        Wrong(
            "one side without gradient",
            _flawed(support_of=lambda encoder, x: encoder(x).detach()),
            "the support, or the queries, are encoded without gradient: the encoder learns from one side only",
            "No detach and no no_grad around the encoder.",
            also=(_query_detached,),
        ),
        Wrong(
            "pictures averaged",
            lambda e, g, sx, sy, qx, qy, n: relation_network(
                e, g, torch.stack([sx[sy == k].mean(0) for k in range(n)]), torch.arange(n), qx, qy, n
            ),
            "the pictures are averaged before they pass the encoder",
            "Encode first, average then.",
        ),
        Wrong(
            "scores of the shots averaged",
            _scores_averaged,
            "every shot is compared by itself, and the scores of a class are averaged",
            "Average the *maps* of a class first, then compare once.",
            also=(lambda *args: _scores_averaged(*args, squeeze_first=False),),
        ),
        Wrong(
            "sorted and viewed",
            _sorted_then_viewed(lambda y: y.argsort(stable=True)),
            "the sorted support is read as rows of equal length: that breaks where the shots are unequal",
            "`support[support_y == k].mean(0)` for each class.",
        ),
        Wrong(
            "order of appearance",
            _memory_by_appearance,
            "the classes stand in the order in which the support shows them, so that column k is not class k",
            "`for k in range(n_way)`: column k belongs to label k.",
        ),
        Wrong(
            "viewed unsorted",
            _sorted_then_viewed(lambda y: torch.arange(len(y))),
            "the support is read as if its rows came class by class",
            "Ask the labels: `support[support_y == k].mean(0)`.",
        ),
        Wrong(
            "one_hot without N",
            _flawed(loss=lambda s, y: F.mse_loss(s.sigmoid(), F.one_hot(y).to(s.dtype))),
            "`F.one_hot` guesses the number of classes from the labels, and a class without a query is lost",
            "`F.one_hot(query_y, n_way)`.",
        ),
        Wrong(
            "binary cross-entropy",
            _flawed(loss=lambda s, y: F.binary_cross_entropy_with_logits(s, F.one_hot(y, s.shape[1]).to(s.dtype))),
            "the loss is the binary cross-entropy of the pairs",
            "The paper's loss: the mean squared error of the scores against 0 and 1.",
        ),
        Wrong(
            "summed over the classes",
            _flawed(loss=lambda s, y: relation_loss(s, y) * s.shape[1]),
            "the squared errors are summed over the classes and averaged over the queries only",
            "Average over all M·N pairs.",
        ),
        Wrong(
            "loss first",
            lambda *args: relation_network(*args)[::-1],
            "the loss comes first and the scores second",
            "Return `scores, loss`.",
        ),
        Wrong(
            "labels returned",
            _flawed(score=lambda s: s.argmax(1)),
            "the winning classes are returned in place of the scores",
            "Return the table of scores [M, n_way].",
        ),
        Wrong(
            "no sigmoid anywhere",
            _flawed(score=lambda s: s, loss=lambda s, y: F.mse_loss(s, F.one_hot(y, s.shape[1]).to(s.dtype))),
            "the sigmoid is missing: logits are returned, and held against 0 and 1",
            "`.sigmoid()` once, before both.",
        ),
        Wrong(
            "right pairs only",
            _flawed(loss=lambda s, y: (1 - s.sigmoid().gather(1, y[:, None])).square().mean()),
            "only the right pairs enter the loss: a net that always answers 1 would be perfect",
            "The wrong pairs have the target 0, and count as well.",
        ),
        Wrong(
            "absolute error",
            _flawed(loss=lambda s, y: _error(s, y).abs().mean()),
            "the absolute differences are averaged, not their squares",
            "The paper's loss is the mean *squared* error.",
        ),
        Wrong(
            "median map",
            _flawed(pool=lambda rows: rows.median(0).values),
            "the median of the maps stands for the class",
            "`.mean(0)` over the maps of a class.",
        ),
        Wrong(
            "encoder without gradient",
            _both_detached,
            "the encoder is cut off from the loss and learns nothing",
            "No detach and no no_grad around the encoder.",
        ),
        Wrong(
            "first shot",
            _flawed(pool=lambda rows: rows[0]),
            "the first support picture stands for its class",
            "Average the maps of all its shots.",
        ),
    ),
    hints=(
        "Encode, average, pair, relate, squeeze, compare with 0 and 1.",
        "`torch.cat([classes.repeat(M, 1, 1, 1), query.repeat_interleave(n_way, 0)], dim=1)` holds all pairs, M·N of them.",
        "`scores = relation(pairs).view(-1, n_way).sigmoid()`, then `F.mse_loss(scores, F.one_hot(query_y, n_way).float())`.",
    ),
)

EXERCISES = (PAIRS, LOSS, SPLIT, AUC, SUM, SURVIVES, MEMORY)
