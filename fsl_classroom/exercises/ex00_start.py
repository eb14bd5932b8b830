"""Exercises of lesson 00: accuracy, the nearest support picture, a paired comparison.

Cases: every exercise builds its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ---------------------------------------------------------------------------------------------- 00.1 accuracy


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Returns the fraction of right predictions. predicted int64 [M], labels int64 [M] -> float in [0, 1]."""
    return (predicted == labels).double().mean().item()


def _accuracy_cases(generator: torch.Generator) -> Sequence[Case]:
    def labels(size: int, ways: int) -> Tensor:
        return torch.randint(ways, (size,), generator=generator)

    return [
        Case("predictions 0, 1, 1, 2 against 0, 1, 2, 2", (torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]))),
        Case("75 queries, 5 classes", (labels(75, 5), labels(75, 5))),
        Case("one query, wrong", (torch.tensor([3]), torch.tensor([1]))),
        Case("everything right", (torch.tensor([2, 0, 1]), torch.tensor([2, 0, 1]))),
        Case("7 queries, 2 classes", (labels(7, 2), labels(7, 2))),
    ]


def _accuracy_loop(predicted: Tensor, labels: Tensor) -> float:
    hits = sum(int(p) == int(y) for p, y in zip(predicted, labels, strict=True))
    return hits / len(labels)


def _return_in_loop(predicted: Tensor, labels: Tensor) -> float:
    hits = 0
    for p, y in zip(predicted, labels, strict=True):
        hits += int(p == y)
        break  # as a `return` inside the loop does
    return hits / len(labels)


def _all_or_nothing(predicted: Tensor, labels: Tensor) -> float:
    return float(torch.equal(predicted, labels))


ACCURACY = Exercise(
    id="00.1",
    title="Accuracy",
    reference=accuracy,
    cases=_accuracy_cases,
    right=(
        _accuracy_loop,
        lambda predicted, labels: 1 - (predicted != labels).sum().item() / predicted.numel(),
        lambda predicted, labels: float((predicted == labels).float().mean()),
        lambda predicted, labels: 1.0 - torch.count_nonzero(predicted - labels).item() / len(labels),
        lambda predicted, labels: float(np.mean(predicted.numpy() == labels.numpy())),
    ),
    wrong=(
        Wrong(
            "a count",
            lambda predicted, labels: float((predicted == labels).sum()),
            "the right predictions are counted but not divided by their number",
            "A fraction lies between 0 and 1: divide by len(labels), or take the mean.",
        ),
        Wrong(
            "a percentage",
            lambda predicted, labels: 100 * accuracy(predicted, labels),
            "the fraction is multiplied by 100",
            "The course writes accuracies as fractions; leave the 100 out.",
            also=(lambda predicted, labels: round(100 * accuracy(predicted, labels), 1),),
        ),
        Wrong(
            "the error rate",
            lambda predicted, labels: 1 - accuracy(predicted, labels),
            "wrong predictions are counted instead of right ones",
            "Compare with == and not with !=.",
        ),
        Wrong(
            "divided by the number of classes",
            lambda predicted, labels: float((predicted == labels).sum() / labels.unique().numel()),
            "the count is divided by the number of classes",
            "Divide by the number of queries, len(labels).",
        ),
        Wrong(
            "a tensor",
            lambda predicted, labels: (predicted == labels).double().mean(),
            "the result is still a tensor",
            "Call .item() on it: a Python float is asked for.",
            also=(lambda predicted, labels: (predicted == labels).float().mean(),),
        ),
        Wrong(
            "all or nothing",
            _all_or_nothing,
            "only 0 and 1 come out: the predictions are compared as a whole, or the count is divided with //, which rounds down",
            "Compare with ==, place by place; then take the mean, or divide with a single /.",
        ),
        Wrong(
            "return inside the loop",
            _return_in_loop,
            "only the first query is looked at: the loop ends after one step",
            "A `return` that stands inside the loop ends it at once: put it below the loop, at the margin of `for`.",
        ),
    ),
    hints=(
        "`predicted == labels` is True where a prediction is right. True counts as 1.",
        "Booleans have no mean; turn them into numbers first, then average.",
        "`(predicted == labels).double().mean()` is a tensor with one number; `.item()` makes it a float.",
    ),
)

# ---------------------------------------------------------------------------------------------- 00.2 the nearest support picture


def nearest(query: Tensor, support: Tensor, labels: Tensor) -> Tensor:
    """Returns the label of each query's nearest support row. query [M, D], support [S, D], labels int64 [S] -> int64 [M]."""
    return labels[(query[:, None] - support[None]).square().sum(2).argmin(1)]


def _nearest_cases(generator: torch.Generator) -> Sequence[Case]:
    def task(queries: int, features: int, labels: list[int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        query = torch.randn(queries, features, generator=generator, dtype=torch.float64)
        support = torch.randn(len(labels), features, generator=generator, dtype=torch.float64)
        # Rows of different lengths, so that the nearest row by cosine is another one than by distance.
        support *= torch.linspace(0.5, 2, len(labels), dtype=torch.float64)[:, None]
        return query.to(dtype), support.to(dtype), torch.tensor(labels)

    def far(*of: int | list[int]) -> tuple[Tensor, ...]:
        query, support, labels = task(*of)
        return 3000 * query, 3000 * support, labels

    return [
        Case("the example by hand: query (3, 2)", (torch.tensor([[3.0, 2]]), torch.tensor([[0.0, 0], [0, 2], [4, 0], [6, 2]]),
                                     torch.tensor([0, 0, 1, 1]))),
        Case("5 classes, 1 shot, shuffled labels", task(40, 8, [3, 0, 4, 1, 2])),
        Case("unequal shots", task(40, 3, [1, 0, 2, 1, 1, 2])),
        Case("one query", task(1, 4, [1, 0])),
        Case("one feature, float64", task(30, 1, [2, 1, 0], torch.float64)),
        Case("long vectors: squared distances of many millions", far(12, 6, [2, 0, 1, 1, 2])),
        Case("as many queries as support rows, in which a shuffle of the labels shows", task(6, 2, [5, 3, 0, 1, 4, 2])),
    ]  # fmt: skip


def _nearest_loop(query: Tensor, support: Tensor, labels: Tensor) -> Tensor:
    found = []
    for q in query:
        best, label = float("inf"), None
        for z, y in zip(support, labels, strict=True):
            distance = float(((q - z) ** 2).sum())
            if distance < best:
                best, label = distance, int(y)
        found.append(label)
    return torch.tensor(found)


def _first_best(best: float, label: int | None, *, row: int | None = None) -> Callable[..., Tensor]:
    """Returns a loop whose first best distance is `best`. label: what it says if no row is nearer; row: the same as a row."""

    def answer(query: Tensor, support: Tensor, labels: Tensor) -> Tensor:
        found = []
        for q in query:
            least, says = best, label if row is None else int(labels[row])
            for z, y in zip(support, labels, strict=True):
                distance = float(((q - z) ** 2).sum())
                if distance < least:
                    least, says = distance, int(y)
            found.append(says)
        return torch.tensor(found)

    return answer


def _nearest_numpy(query: Tensor, support: Tensor, labels: Tensor) -> Tensor:
    gaps = query.numpy()[:, None] - support.numpy()[None]
    return torch.from_numpy(labels.numpy()[np.argmin((gaps**2).sum(-1), axis=1)])


def _nearest_sorted(query: Tensor, support: Tensor, labels: Tensor) -> Tensor:
    found = [sorted(range(len(support)), key=lambda i: float((q - support[i]).norm()))[0] for q in query]
    return torch.stack([labels[i] for i in found])


def _squares(query: Tensor, support: Tensor) -> Tensor:
    return (query[:, None] - support[None]).square().sum(2)


def _cosines(query: Tensor, support: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(query[:, None], support[None], dim=2)


def _transposed(query: Tensor, support: Tensor) -> Tensor:
    return (query[:, None] - support[None]).square().sum(1)


def _nearest_mean(query: Tensor, support: Tensor, labels: Tensor) -> Tensor:
    classes = labels.unique()
    means = torch.stack([support[labels == c].mean(0) for c in classes])
    return classes[torch.cdist(query, means).argmin(1)]


def _best_is_kept(query: Tensor, support: Tensor, labels: Tensor) -> Tensor:
    found, best, label = [], float("inf"), 0
    for q in query:
        for z, y in zip(support, labels, strict=True):
            distance = float(((q - z) ** 2).sum())
            if distance < best:
                best, label = distance, int(y)
        found.append(label)
    return torch.tensor(found)


def _vote(neighbours: int) -> Callable[..., Tensor]:
    def answer(query: Tensor, support: Tensor, labels: Tensor) -> Tensor:
        count = min(neighbours, len(support))
        return labels[torch.cdist(query, support).topk(count, largest=False).indices].mode(1).values

    return answer


def _order_of_support(answer, reference) -> str | None:
    generator = torch.Generator().manual_seed(1)
    query, support = torch.randn(12, 4, generator=generator), torch.randn(6, 4, generator=generator)
    labels, order = torch.tensor([0, 1, 2, 0, 1, 2]), torch.randperm(6, generator=generator)
    before, after = answer(query, support, labels), answer(query, support[order], labels[order])
    return (
        None if torch.equal(before, after) else f"Shuffling changed {int((before != after).sum())} of 12 predictions."
    )


NEAREST = Exercise(
    id="00.2",
    title="The nearest support picture",
    reference=nearest,
    cases=_nearest_cases,
    properties=(Property("shuffling the support rows together with their labels changes nothing", _order_of_support),),
    right=(
        _nearest_loop,
        lambda query, support, labels: labels[torch.cdist(query, support).argmin(dim=1)],
        lambda query, support, labels: labels[(2 * query @ support.T - support.square().sum(1)).argmax(1)],
        lambda query, support, labels: torch.stack([labels[(support - q).norm(dim=1).argmin()] for q in query]),
        lambda query, support, labels: labels[torch.topk(_squares(query, support), 1, largest=False).indices[:, 0]],
        lambda query, support, labels: labels.take(torch.min(_squares(query, support), dim=1)[1]),
        _nearest_numpy,
        _nearest_sorted,
    ),
    wrong=(
        Wrong(
            "row numbers",
            lambda query, support, labels: torch.cdist(query, support).argmin(1),
            "the position of the nearest row is returned instead of its label",
            "Positions and labels differ because the support is shuffled: index `labels` with the positions.",
        ),
        Wrong(
            "farthest",
            lambda query, support, labels: labels[torch.cdist(query, support).argmax(1)],
            "the row with the largest distance is taken",
            "Near means a small distance: argmin, not argmax.",
        ),
        Wrong(
            "dot product",
            lambda query, support, labels: labels[(query @ support.T).argmax(1)],
            "the largest dot product is taken for the smallest distance: long vectors win",
            "Use the squared difference, summed over the features.",
        ),
        Wrong(
            "wrong axis",
            lambda query, support, labels: labels[torch.cdist(query, support).argmin(0)],
            "argmin runs over the queries, so you ask which query is nearest to each support row",
            "In [M, S] the support runs along dimension 1: argmin(1).",
            also=(lambda query, support, labels: labels[torch.cdist(query, support).argmin(0) % len(labels)],),
        ),
        Wrong(
            "one answer for all queries",
            lambda query, support, labels: labels[torch.cdist(query, support).argmin()],
            "argmin is called without a dimension, so that it counts through the whole table [M, S]",
            "Each query needs a minimum of its own: argmin(1).",
        ),
        Wrong(
            "distances",
            lambda query, support, labels: _squares(query, support).min(1).values,
            "the smallest distance of each query is returned, not the label of the row that has it",
            "`argmin(1)` gives the position of the smallest; `labels[position]` is the answer.",
            also=(lambda query, support, labels: torch.cdist(query, support).min(1).values,),
        ),
        Wrong(
            "table of distances",
            lambda query, support, labels: _squares(query, support),
            "the whole table of distances [M, S] is returned",
            "Take argmin(1) of the table, then look the positions up in `labels`.",
            also=(lambda query, support, labels: torch.cdist(query, support),),
        ),
        Wrong(
            "Manhattan",
            lambda query, support, labels: labels[torch.cdist(query, support, p=1).argmin(1)],
            "the absolute differences are summed: that is the Manhattan distance, along streets at right angles",
            "Square the differences before you sum them.",
        ),
        Wrong(
            "largest difference",
            lambda query, support, labels: labels[torch.cdist(query, support, p=torch.inf).argmin(1)],
            "only the largest difference of the features counts",
            "Square all differences and sum them.",
        ),
        Wrong(
            "summed over the rows",
            lambda query, support, labels: labels[_transposed(query, support).argmin(1)],
            "the squares are summed over the support rows, and argmin runs over the features",
            "In [M, S, D] the features run along dimension 2: sum(2) first, then argmin(1).",
        ),
        Wrong(
            "a first best that is too small",
            _first_best(100.0, 0),
            "a loop starts with a first best distance that real distances exceed, so that no row can beat it",
            'Start with `float("inf")`, or with the distance of the first row.',
            also=(
                _first_best(1.0, 0),
                _first_best(50.0, -1),
                _first_best(1000.0, None, row=0),
                _first_best(100.0, None),
            ),
        ),
        Wrong(
            "the best of all queries",
            _best_is_kept,
            "the best distance is not set back for the next query, so that a query can only win against earlier ones",
            'Put `best = float("inf")` inside the loop over the queries.',
        ),
        Wrong(
            "sum without an axis",
            lambda query, support, labels: torch.stack([labels[(q - support).square().sum().argmin()] for q in query]),
            "`.sum()` without an axis adds up everything: one number is left, and its smallest place is 0",
            "Sum over the features only: `.sum(1)` for one query, `.sum(2)` for all at once.",
        ),
        Wrong(
            "a vote of three",
            _vote(3),
            "several neighbours vote, although the nearest alone decides",
            "Take `argmin`, the one nearest row.",
            also=(_vote(2),),
        ),
        Wrong(
            "signed difference",
            lambda query, support, labels: labels[(query[:, None] - support).sum(2).argmin(1)],
            "differences are summed without squaring, so that negative ones count as very near",
            "Square the differences before you sum them.",
        ),
        Wrong(
            "square of the sum",
            lambda query, support, labels: labels[(query[:, None] - support).sum(2).square().argmin(1)],
            "differences are summed first and squared afterwards, so that they cancel each other",
            "Square every difference, then sum: `.square().sum(2)`.",
        ),
        Wrong(
            "half of the expansion",
            lambda query, support, labels: labels[(support.square().sum(1) - query @ support.T).argmin(1)],
            "the square is multiplied out without the factor 2 of the mixed term",
            "Squared distance is |q|² - 2 q·z + |z|²: double the dot product, or square the difference.",
        ),
        Wrong(
            "cosine",
            lambda query, support, labels: labels[_cosines(query, support).argmax(1)],
            "the largest cosine is taken for the smallest distance: lengths are ignored",
            "Use the squared difference, summed over the features.",
        ),
        Wrong(
            "class means",
            _nearest_mean,
            "a query is compared with the mean of each class, not with single support rows",
            "Here the single nearest row decides; leave out the means.",
        ),
        Wrong(
            "first feature only",
            lambda query, support, labels: labels[(query[:, None, 0] - support[:, 0]).square().argmin(1)],
            "only the first feature is compared",
            "Sum the squares over all features, the last axis.",
        ),
        Wrong(
            "as decimals",
            lambda query, support, labels: nearest(query, support, labels.float()),
            "the labels come out as decimals (float), not as whole numbers",
            "Labels are int64: index `labels` itself, or start from `torch.empty(M, dtype=torch.int64)`.",
        ),
    ),
    hints=(
        "For one query q, `(support - q).square().sum(1)` holds its squared distance to every support row.",
        "`argmin` gives the position of the smallest; `labels[position]` is the answer for that query.",
        "All queries at once: `query[:, None] - support[None]` has shape [M, S, D]: square, sum(2), argmin(1).",
    ),
)

# ---------------------------------------------------------------------------------------------- 00.3 a paired comparison


def better(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Returns the mean of a - b and the share of episodes with a > b. a, b float [E] -> two floats."""
    return (a - b).mean().item(), (a > b).double().mean().item()


def _better_cases(generator: torch.Generator) -> Sequence[Case]:
    def rates(episodes: int) -> Tensor:
        return torch.randint(0, 16, (episodes,), generator=generator).double() / 15

    return [
        Case("4 episodes, one of them a tie", (torch.tensor([0.8, 0.6, 0.9, 0.5]).double(),
                                               torch.tensor([0.6, 0.6, 0.5, 0.7]).double())),
        Case("300 episodes", (rates(300), rates(300))),
        Case("one episode", (rates(1), rates(1))),
        Case("a learner against itself", (torch.tensor([0.2, 0.4]).double(), torch.tensor([0.2, 0.4]).double())),
    ]  # fmt: skip


def _better_loop(a: Tensor, b: Tensor) -> tuple[float, float]:
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    return sum(x - y for x, y in pairs) / len(pairs), sum(x > y for x, y in pairs) / len(pairs)


BETTER = Exercise(
    id="00.3",
    title="Better by how much?",
    reference=better,
    cases=_better_cases,
    right=(
        _better_loop,
        lambda a, b: (float(a.mean() - b.mean()), float((a - b).gt(0).sum()) / a.numel()),
        lambda a, b: (float(np.mean(a.numpy() - b.numpy())), float(np.mean(a.numpy() > b.numpy()))),
        lambda a, b: ((a - b).sum().item() / len(a), 1 - (a <= b).sum().item() / len(a)),
        lambda a, b: ((a - b).mean().item(), torch.sign(a - b).clamp(min=0).mean().item()),
    ),
    wrong=(
        Wrong(
            "ties count",
            lambda a, b: ((a - b).mean().item(), (a >= b).double().mean().item()),
            "ties count as wins",
            "Strictly better means >, not >=.",
        ),
        Wrong(
            "b minus a",
            lambda a, b: ((b - a).mean().item(), (b > a).double().mean().item()),
            "the roles of a and b are swapped",
            "A positive difference means that a is better.",
        ),
        Wrong(
            "absolute differences",
            lambda a, b: ((a - b).abs().mean().item(), (a > b).double().mean().item()),
            "the differences lose their sign before they are averaged",
            "Leave out abs: where b wins, the difference is negative and must count against a.",
        ),
        Wrong(
            "a count of wins",
            lambda a, b: ((a - b).mean().item(), float((a > b).sum())),
            "the wins are counted but not divided by the number of episodes",
            "A share lies between 0 and 1: take the mean of (a > b).double().",
        ),
        Wrong(
            "the wins of b",
            lambda a, b: ((a - b).mean().item(), (a < b).double().mean().item()),
            "the share counts the episodes that b wins",
            "a is better where a > b.",
        ),
        Wrong(
            "ties count half",
            lambda a, b: ((a - b).mean().item(), ((a > b).double() + 0.5 * (a == b).double()).mean().item()),
            "a tie counts as half a win",
            "Strictly better means a > b; a tie counts 0.",
        ),
        Wrong(
            "wins among decided episodes",
            lambda a, b: ((a - b).mean().item(), float((a > b).sum() / (a != b).sum().clamp_min(1))),
            "ties are left out of the number of episodes",
            "Divide by all episodes, ties included.",
            also=(
                lambda a, b: ((a - b).mean().item(), float((a > b).sum() / (a != b).sum())),
                lambda a, b: ((a - b).mean().item(), int((a > b).sum()) / int((a != b).sum())),
            ),
        ),
        Wrong(
            "sum of differences",
            lambda a, b: ((a - b).sum().item(), (a > b).double().mean().item()),
            "the differences are summed instead of averaged",
            "Take the mean over episodes.",
        ),
        Wrong(
            "order of the results",
            lambda a, b: ((a > b).double().mean().item(), (a - b).mean().item()),
            "the two results come in the wrong order",
            "First the mean difference, then the share of wins.",
        ),
        Wrong(
            "mean over the wins",
            lambda a, b: (float((a - b)[a > b].sum() / (a > b).sum().clamp_min(1)), (a > b).double().mean().item()),
            "the difference is averaged over the episodes that a wins, not over all",
            "Where b wins, the difference is negative and counts as well: average `a - b` over all episodes.",
            also=(lambda a, b: ((a - b)[a > b].mean().item(), (a > b).double().mean().item()),),
        ),
        Wrong(
            "net wins",
            lambda a, b: ((a - b).mean().item(), torch.sign(a - b).mean().item()),
            "defeats are subtracted from the wins",
            "Count the episodes with a > b and divide by all; those that b wins count 0, not -1.",
        ),
        Wrong(
            "share of decided means",
            lambda a, b: ((a - b).mean().item(), float(a.mean() > b.mean())),
            "the means are compared, which gives only 0 or 1, not the episodes one by one",
            "`a > b` compares place by place; the mean of that (as numbers) is the share.",
        ),
        Wrong(
            "percentages",
            lambda a, b: (100 * (a - b).mean().item(), 100 * (a > b).double().mean().item()),
            "both results are multiplied by 100",
            "The course writes accuracies and shares as fractions; leave the 100 out.",
        ),
    ),
    hints=(
        "Both tensors list the same episodes in the same order: subtract them place by place.",
        "`a > b` is True in the episodes that a wins; its mean (as numbers) is the share.",
        "Return `(a - b).mean().item(), (a > b).double().mean().item()`.",
    ),
)

EXERCISES = (ACCURACY, NEAREST, BETTER)
