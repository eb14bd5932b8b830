"""Exercises of lesson 22: prototypes without each picture, calibration error, PGD, hidden gradients, a geometric median.

Cases: every exercise builds its own. The detector 22.4 gets a loss as an argument and must return True for those whose gradient
is not that of the cross-entropy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ---------------------------------------------------------------------------------------------- 22.1 without each picture


def without_each(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Returns for each row the mean of the other rows of its class. embeddings [S, D], labels [S] -> [S, D]."""
    member = F.one_hot(labels, n_way).to(embeddings.dtype)
    total, count = member.T @ embeddings, member.sum(0)
    return (total[labels] - embeddings) / (count[labels] - 1)[:, None]


def _without_by_loop(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    found = []
    for i in range(len(labels)):
        others = [embeddings[j] for j in range(len(labels)) if j != i and labels[j] == labels[i]]
        found.append(sum(others) / len(others))
    return torch.stack(found)


def _without_by_mask(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    same = (labels[:, None] == labels).to(embeddings.dtype) * (1 - torch.eye(len(labels), dtype=embeddings.dtype))
    return same @ embeddings / same.sum(1, keepdim=True)


def _without_by_moving(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    centres = torch.stack([embeddings[labels == k].mean(0) for k in range(n_way)])[labels]
    return centres + (centres - embeddings) / (labels.bincount()[labels] - 1).unsqueeze(1)


def _without_by_index_add(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    total = torch.zeros(n_way, embeddings.shape[1], dtype=embeddings.dtype).index_add(0, labels, embeddings)
    shots = torch.bincount(labels, minlength=n_way)
    return torch.stack([(total[y] - z) / (shots[y] - 1) for z, y in zip(embeddings, labels, strict=True)])


def _parts(z: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Returns class means and shots of every row's class: [S, D], [S, 1]."""
    member = F.one_hot(y, n).to(z.dtype)
    shots = member.sum(0)
    return (member.T @ z / shots[:, None])[y], shots[y][:, None]


def _shots(y: Tensor) -> Tensor:
    """Returns the shots of every row's class, [S, 1]."""
    return y.bincount()[y][:, None]


def _own_prototype(z: Tensor, y: Tensor, n: int) -> Tensor:
    return _parts(z, y, n)[0]


def _without_by_value(same: Callable[[Tensor], Tensor]) -> Callable:
    """Returns an answer that looks for the row by its numbers."""

    def answer(z: Tensor, y: Tensor, n: int) -> Tensor:
        return torch.stack([z[(y == y[i]) & ~same(z == z[i])].mean(0) for i in range(len(y))])

    return answer


def _row_cut_out(z: Tensor, y: Tensor, n: int) -> Tensor:
    return torch.stack([torch.cat([z[:i], z[i + 1 :]])[y == y[i]].mean(0) for i in range(len(y))])


def _cut_into_classes(z: Tensor, y: Tensor, n: int) -> Tensor:
    parts = z.reshape(n, -1, z.shape[1])
    return ((parts.sum(1, keepdim=True) - parts) / (parts.shape[1] - 1)).flatten(0, 1)


def _cut_evenly(z: Tensor, y: Tensor, n: int) -> Tensor:
    parts = z[y.argsort(stable=True)].view(n, len(z) // n, z.shape[1])
    return ((parts.sum(1, keepdim=True) - parts) / (parts.shape[1] - 1)).flatten(0, 1)


def _every_prototype(z: Tensor, y: Tensor, n: int) -> Tensor:
    found = []
    for i in range(len(z)):
        keep = torch.arange(len(z)) != i
        found.append(torch.stack([z[keep][y[keep] == k].mean(0) for k in range(n)]))
    return torch.stack(found)


def _without_cases(generator: Generator) -> list[Case]:
    def drawn(labels: list[int], n_way: int) -> tuple[Tensor, Tensor, int]:
        return torch.randn(len(labels), 4, generator=generator), torch.tensor(labels), n_way

    paper = torch.tensor([[0.0], [4.0], [2.0], [9.0], [7.0]]), torch.tensor([0, 1, 0, 0, 1]), 2
    unequal = drawn([2, 0, 1, 1, 0, 2, 2, 0, 2, 1, 2], 3)
    twins = drawn([1, 0, 1, 0, 0, 1, 0], 2)
    twins[0][4], twins[0][6, 0] = twins[0][1], twins[0][3, 0]
    return [
        Case("the example on paper", paper),
        Case("2 classes of 2 shots: the other picture is left", drawn([0, 1, 1, 0], 2)),
        Case("3 classes of 5 shots, rows shuffled", drawn([0, 2, 1, 1, 0, 2, 2, 0, 1, 0, 2, 1, 1, 0, 2], 3)),
        Case("unequal shots: 3, 3 and 5", unequal),
        Case("two pictures of a class are alike", twins),
        Case("float64", (unequal[0].double(), *unequal[1:])),
    ]


WITHOUT = Exercise(
    id="22.1",
    title="Prototypes without each picture",
    reference=without_each,
    cases=_without_cases,
    gradient=(0,),
    right=(_without_by_loop, _without_by_mask, _without_by_moving, _without_by_index_add),
    wrong=(
        Wrong(
            "with itself",
            lambda z, y, n: _parts(z, y, n)[0],
            "the picture itself is still in the mean",
            "Take the picture out of the sum, and divide by one less.",
        ),
        Wrong(
            "divided by K",
            lambda z, y, n: _parts(z, y, n)[0] - z / _parts(z, y, n)[1],
            "the picture is taken out of the sum, but the sum is still divided by K",
            "One picture fewer is left: divide by K - 1.",
        ),
        Wrong(
            "never divided",
            lambda z, y, n: _parts(z, y, n)[0] * _parts(z, y, n)[1] - z,
            "the other rows of the class are summed and never divided",
            "A prototype is a mean: divide by K - 1.",
        ),
        Wrong(
            "taken from the mean",
            lambda z, y, n: _parts(z, y, n)[0] - z,
            "the picture is taken from the mean and not from the sum",
            "The sum of a class is K times its mean: (K c - z) / (K - 1).",
            also=(
                lambda z, y, n: _parts(z, y, n)[0] - z / (_parts(z, y, n)[1] - 1),
                lambda z, y, n: (_parts(z, y, n)[0] - z) / _parts(z, y, n)[1],
            ),
        ),
        Wrong(
            "counted twice",
            lambda z, y, n: (_parts(z, y, n)[0] * _parts(z, y, n)[1] + z) / (_parts(z, y, n)[1] + 1),
            "the picture is added once more and not taken out",
            "Minus z, and K - 1 below the line.",
            also=(lambda z, y, n: (_parts(z, y, n)[0] * _parts(z, y, n)[1] + z) / (_parts(z, y, n)[1] - 1),),
        ),
        Wrong(
            "all classes",
            lambda z, y, n: (z.sum(0) - z) / (len(z) - 1),
            "the mean runs over the rows of all classes",
            "Only rows with the same label belong to the prototype: `labels == labels[i]`.",
        ),
        Wrong(
            "the other classes",
            lambda z, y, n: torch.stack([z[y != k].mean(0) for k in y]),
            "the mean runs over the rows of the *other* classes",
            "The other rows of the same class: `labels == labels[i]`, without i.",
        ),
        Wrong(
            "equal shots assumed",
            lambda z, y, n: (_parts(z, y, n)[0] * _parts(z, y, n)[1] - z) / (len(z) / n - 1),
            "every class is divided by the same number, as if shots were equal",
            "Count the rows of each class: `labels.bincount()[labels]`.",
            also=(
                lambda z, y, n: (_parts(z, y, n)[0] * (len(z) / n) - z) / (len(z) / n - 1),
                lambda z, y, n: (_parts(z, y, n)[0] * (len(z) // n) - z) / (len(z) // n - 1),
                lambda z, y, n: (_parts(z, y, n)[0] * _parts(z, y, n)[1] - z) / (len(z) // n - 1),
                lambda z, y, n: (_parts(z, y, n)[0] * int((y == 0).sum()) - z) / (int((y == 0).sum()) - 1),
                lambda z, y, n: (_parts(z, y, n)[0] * _parts(z, y, n)[1] - z) / (int(y.bincount().max()) - 1),
            ),
        ),
        Wrong(
            "S in place of K",
            lambda z, y, n: (len(z) * _parts(z, y, n)[0] - z) / (len(z) - 1),
            "the number of all support rows stands where the shots of the class belong",
            "K is the number of rows with this label.",
            also=(lambda z, y, n: (n * _parts(z, y, n)[0] - z) / (n - 1 + 1e-9),),
        ),
        Wrong(
            "one row for each class",
            lambda z, y, n: torch.stack([z[y == k][1:].mean(0) for k in range(n)]),
            "one row is returned for each class",
            "Every picture has a row of its own in the result: [S, D].",
            also=(lambda z, y, n: torch.stack([z[y == k].mean(0) for k in range(n)]),),
        ),
        Wrong(
            "all prototypes for each row",
            _every_prototype,
            "all prototypes are returned for each picture: [S, N, D]",
            "Only the prototype of the picture's own class: [S, D].",
        ),
        Wrong(
            "found by its values",
            _without_by_value(lambda equal: equal.all(1)),
            "the picture is found by its numbers: where another one of its class has the same, that one is left out, too",
            "Leave out one place, not one value: `torch.arange(len(labels)) != i`.",
            also=(_without_by_value(lambda equal: equal.any(1)),),
        ),
        Wrong(
            "labels stay",
            _row_cut_out,
            "the row is cut out of `embeddings` and its label stays in `labels`, so that the two no longer have the same length",
            "Cut both, or make a mask: `(labels == labels[i]) & (torch.arange(len(labels)) != i)`.",
        ),
        Wrong(
            "cut into classes",
            _cut_into_classes,
            "the rows are cut into classes of the same size, and shots differ from class to class",
            "Choose rows by their label: `labels == labels[i]`.",
            also=(_cut_evenly,),
        ),
        Wrong(
            "towards the picture",
            lambda z, y, n: _own_prototype(z, y, n) + (z - _own_prototype(z, y, n)) / (_shots(y) - 1),
            "the prototype moves *towards* the picture",
            "Without a picture the mean moves away from it: c + (c - z) / (K - 1).",
            also=(
                lambda z, y, n: _own_prototype(z, y, n) + (z - _own_prototype(z, y, n)) / _shots(y),
                lambda z, y, n: _own_prototype(z, y, n) + (z - _own_prototype(z, y, n)),
            ),
        ),
        Wrong(
            "moves by 1/K",
            lambda z, y, n: _own_prototype(z, y, n) + (_own_prototype(z, y, n) - z) / _shots(y),
            "the prototype moves by (c - z) / K",
            "One picture fewer is left: divide by K - 1.",
            also=(lambda z, y, n: 2 * _own_prototype(z, y, n) - z,),
        ),
        Wrong(
            "parentheses",
            lambda z, y, n: (_shots(y) * _own_prototype(z, y, n) - z) / _shots(y) - 1,
            "a pair of parentheses is missing: the division reaches only what stands next to it",
            "`(K * c - z) / (K - 1)`: two pairs.",
            also=(
                lambda z, y, n: _shots(y) * _own_prototype(z, y, n) - z / (_shots(y) - 1),
                lambda z, y, n: _shots(y) * _own_prototype(z, y, n) - z / _shots(y) - 1,
                lambda z, y, n: _own_prototype(z, y, n) + (_own_prototype(z, y, n) - z) / _shots(y) - 1,
                lambda z, y, n: _own_prototype(z, y, n) + _own_prototype(z, y, n) - z / (_shots(y) - 1),
                lambda z, y, n: z.sum(0) - z / (_shots(y) - 1),
            ),
        ),
        Wrong(
            "only the count is lower",
            lambda z, y, n: _own_prototype(z, y, n) * _shots(y) / (_shots(y) - 1),
            "the sum is divided by K - 1, and the picture is still in it",
            "Take the picture out of the sum, too.",
        ),
        Wrong(
            "in the order of the classes",
            lambda z, y, n: without_each(z, y, n)[y.argsort(stable=True)],
            "the rows come sorted by class and not in the order of the support",
            "Row i of the result belongs to row i of `embeddings`.",
        ),
        Wrong(
            "neighbour",
            lambda z, y, n: torch.stack([z[(y == y[i]) & (torch.arange(len(y)) != i)][0] for i in range(len(y))]),
            "a single other picture of the class is returned and not the mean of the others",
            "Average all other rows of the class.",
        ),
        Wrong(
            "difference",
            lambda z, y, n: _parts(z, y, n)[0] - without_each(z, y, n),
            "only the change of the prototype comes out, (c - z) / (K - 1) or minus that",
            "Either c plus this change, or K c in place of c: (K c - z) / (K - 1).",
            also=(lambda z, y, n: (_parts(z, y, n)[0] - z) / (_parts(z, y, n)[1] - 1),),
        ),
    ),
    hints=(
        "You know the sum of a class. What is left of it when one row goes?",
        "The sum of a class is K times its prototype. Subtract the row, and count how many rows are left.",
        "`(total[labels] - embeddings) / (count[labels] - 1)[:, None]`, with `total` [N, D] and `count` [N]",
    ),
)


# ---------------------------------------------------------------------------------------------- 22.2 calibration error


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int) -> Tensor:
    """Returns the expected calibration error, a scalar. probabilities [M, N], labels [M]."""
    confidence, answer = probabilities.max(1)
    right = (answer == labels).to(confidence.dtype)
    error = torch.zeros((), dtype=confidence.dtype)
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            error = error + inside.to(error.dtype).mean() * (right[inside].mean() - confidence[inside].mean()).abs()
    return error


def _bins(p: Tensor, y: Tensor, bins: int, place: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Returns per bin: rows, sum of confidences, right answers, [bins] three times."""
    confidence, answer = p.max(1)
    if place is None:
        place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    inside = (place >= 0) & (place < bins)
    member = F.one_hot(place.clamp(0, bins - 1), bins).to(p.dtype) * inside[:, None]
    return member.sum(0), member.T @ confidence, member.T @ (answer == y).to(p.dtype)


def _error_by_gaps(p: Tensor, y: Tensor, bins: int) -> Tensor:
    _, sure, right = _bins(p, y, bins)
    return (right - sure).abs().sum() / len(p)


def _error_by_bucketize(p: Tensor, y: Tensor, bins: int) -> Tensor:
    confidence = p.amax(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=p.dtype)
    place = torch.bucketize(confidence, edges[1:-1], right=False)
    gaps = p.new_zeros(bins).index_add(0, place, (p.argmax(1) == y).to(p.dtype) - confidence)
    return gaps.abs().sum() / len(y)


def _error_by_numbers(p: Tensor, y: Tensor, bins: int) -> Tensor:
    table: dict[int, list[float]] = {}
    for row, label in zip(p.tolist(), y.tolist(), strict=True):
        sure = max(row)
        place = next(b for b in range(bins) if sure <= (b + 1) / bins)
        table.setdefault(place, []).append(float(row.index(sure) == label) - sure)
    return torch.tensor(sum(abs(sum(gaps)) for gaps in table.values()) / len(y), dtype=p.dtype)


def _error_by_sorting(p: Tensor, y: Tensor, bins: int) -> Tensor:
    confidence, order = p.amax(1).sort()
    right = (p.argmax(1) == y)[order].to(p.dtype)
    cuts = torch.searchsorted(confidence, torch.arange(1, bins, dtype=p.dtype) / bins, right=True).tolist()
    parts = zip([0, *cuts], [*cuts, len(p)], strict=True)
    return sum((right[a:b].sum() - confidence[a:b].sum()).abs() for a, b in parts) / len(p)


def _other_side(p: Tensor, y: Tensor, bins: int) -> Tensor:
    return (p.amax(1) * bins).floor().long()


def _per_bin(p: Tensor, y: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    count, sure, right = _bins(p, y, bins)
    some = count > 0
    return count[some], sure[some] / count[some], right[some] / count[some]


def _midpoints(p: Tensor, y: Tensor, bins: int) -> Tensor:
    count, _, right = _bins(p, y, bins)
    middle = (torch.arange(bins, dtype=p.dtype) + 0.5) / bins
    return (right - count * middle).abs().sum() / len(p)


def _error_with(place: Callable) -> Callable:
    def answer(p: Tensor, y: Tensor, bins: int) -> Tensor:
        _, sure, right = _bins(p, y, bins, place(p, y, bins))
        return (right - sure).abs().sum() / len(p)

    return answer


def _true_class(p: Tensor, y: Tensor, bins: int) -> Tensor:
    """Takes the probability of the true class for the confidence."""
    sure = p.gather(1, y[:, None])[:, 0]
    right = (p.argmax(1) == y).to(p.dtype)
    place = (sure * bins).ceil().long().clamp(1, bins) - 1
    return p.new_zeros(bins).index_add(0, place, right - sure).abs().sum() / len(p)


def _some_bins(first: int, last: int) -> Callable:
    """Returns an answer whose loop leaves out bins at the beginning or at the end."""

    def answer(p: Tensor, y: Tensor, bins: int) -> Tensor:
        _, sure, right = _bins(p, y, bins)
        return (right - sure).abs()[first : bins - last].sum() / len(p)

    return answer


def _limits(inside: Callable[[Tensor, float, float], Tensor]) -> Callable:
    """Returns an answer that asks for each bin which confidences lie inside."""

    def answer(p: Tensor, y: Tensor, bins: int) -> Tensor:
        confidence = p.amax(1)
        gap = (p.argmax(1) == y).to(p.dtype) - confidence
        parts = [gap[inside(confidence, b / bins, (b + 1) / bins)].sum().abs() for b in range(bins)]
        return torch.stack(parts).sum() / len(p)

    return answer


def _between(edges: Callable[[Tensor, Tensor, int], Tensor]) -> Callable:
    """Returns an answer with these borders of bins, the first and the last included."""

    def answer(p: Tensor, y: Tensor, bins: int) -> Tensor:
        confidence, total = p.amax(1), p.new_zeros(())
        gap, found = (p.argmax(1) == y).to(p.dtype) - confidence, edges(p, confidence, bins).to(p.dtype)
        for low, high in itertools.pairwise(found):
            total = total + gap[(confidence > low) & (confidence <= high)].sum().abs() / len(p)
        return total

    return answer


def _binned(low: Callable[[Tensor], Tensor | float], closed: bool = True) -> Callable:
    """Returns an answer whose bins begin at `low` of the probabilities and end at the largest confidence, or at 1."""

    def place(p: Tensor, y: Tensor, bins: int) -> Tensor:
        confidence, first = p.amax(1), low(p)
        last = confidence.max() if closed else 1.0
        return (((confidence - first) / (last - first + 1e-12) * bins).ceil().long() - 1).clamp(0, bins - 1)

    return _error_with(place)


def _every_probability(p: Tensor, y: Tensor, bins: int) -> Tensor:
    sure, right = p.flatten(), F.one_hot(y, p.shape[1]).flatten().to(p.dtype)
    place = (sure * bins).ceil().long().clamp(1, bins) - 1
    return p.new_zeros(bins).index_add(0, place, right - sure).abs().sum() / len(sure)


def _last_filled(p: Tensor, y: Tensor, bins: int) -> Tensor:
    count, sure, right = _bins(p, y, bins)
    return (right - sure).abs()[count > 0][-1] / len(p)


def _mean_of_bools(p: Tensor, y: Tensor, bins: int) -> Tensor:
    confidence, answer = p.max(1)
    right, error = answer == y, p.new_zeros(())
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            error = error + inside.sum() / len(p) * (right[inside].mean() - confidence[inside].mean()).abs()
    return error


def _equal_counts(p: Tensor, y: Tensor, bins: int) -> Tensor:
    confidence, order = p.amax(1).sort()
    right = (p.argmax(1) == y)[order].to(p.dtype)
    return sum(part.sum().abs() for part in (right - confidence).tensor_split(bins)) / len(p)


def _error_cases(generator: Generator) -> list[Case]:
    def drawn(rows: int, ways: int, scale: float) -> tuple[Tensor, Tensor]:
        """Draws answers of which about three in four are right, sure or not: the gaps of bins have both signs."""
        found = (scale * torch.randn(rows, ways, generator=generator)).softmax(1)
        other = torch.randint(ways, (rows,), generator=generator)
        return found, torch.where(torch.rand(rows, generator=generator) < 0.6, found.argmax(1), other)

    paper = torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.95, 0.05], [0.0, 1.0]]), torch.tensor([0, 0, 0, 1])
    edges = torch.tensor(
        [[0.5, 0.25, 0.25], [0.25, 0.75, 0.0], [0.0, 0.375, 0.625], [0.125, 0.0, 0.875], [0.625, 0.375, 0.0]]
    )
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.625, 0.375]]), torch.tensor([1, 1, 0, 0])
    many, unsure = drawn(60, 3, 2.0), drawn(20, 3, 0.7)[0]
    return [
        Case("the example on paper: 4 bins", (*paper, 4)),
        Case("60 answers among 3 classes, 10 bins", (*many, 10)),
        Case("40 answers among 5 classes, 7 bins", (*drawn(40, 5, 1.0), 7)),
        Case("one bin", (*drawn(12, 3, 1.0), 1)),
        Case("20 answers, all of them right", (unsure, unsure.argmax(1), 10)),
        Case("confidences on the borders of 4 bins", (edges, torch.tensor([0, 0, 2, 1, 0]), 4)),
        Case("three answers of confidence 1", (*certain, 4)),
        Case("a single answer, wrong", (torch.tensor([[0.1, 0.2, 0.7]]), torch.tensor([1]), 5)),
        Case("float64", (many[0].double(), many[1], 15)),
    ]


ERROR = Exercise(
    id="22.2",
    title="Calibration error",
    reference=calibration_error,
    cases=_error_cases,
    right=(_error_by_gaps, _error_by_bucketize, _error_by_numbers, _error_by_sorting),
    wrong=(
        Wrong(
            "confidence 1 is lost",
            _error_with(_other_side),
            "the bins are closed on the left, and a confidence of exactly 1 is in none of them",
            "Bin b holds b/bins < confidence <= (b+1)/bins, so the last one holds 1.",
            also=(_error_with(lambda p, y, b: torch.where(p.amax(1) >= 1, b, (p.amax(1) * b).ceil().long() - 1)),),
        ),
        Wrong(
            "closed on the left",
            _error_with(lambda p, y, bins: _other_side(p, y, bins).clamp_max(bins - 1)),
            "a confidence on a border goes into the upper bin",
            "Bin b holds b/bins < confidence <= (b+1)/bins.",
        ),
        Wrong(
            "all bins equal",
            lambda p, y, bins: (_per_bin(p, y, bins)[2] - _per_bin(p, y, bins)[1]).abs().mean(),
            "every bin counts the same, however few answers it holds",
            "Weigh a bin by its share of the answers: n_b / M.",
            also=(
                lambda p, y, bins: (_per_bin(p, y, bins)[2] - _per_bin(p, y, bins)[1]).abs().sum() / bins,
                lambda p, y, bins: (_per_bin(p, y, bins)[2] - _per_bin(p, y, bins)[1]).abs().sum(),
            ),
        ),
        Wrong(
            "no absolute value",
            lambda p, y, bins: (p.amax(1) - (p.argmax(1) == y).to(p.dtype)).mean(),
            "the gaps have signs: too sure in one bin and not sure enough in another cancel",
            "Take the absolute value of the gap in each bin.",
            also=(lambda p, y, bins: ((p.argmax(1) == y).to(p.dtype) - p.amax(1)).mean(),),
        ),
        Wrong(
            "one gap for all",
            lambda p, y, bins: ((p.argmax(1) == y).to(p.dtype).mean() - p.amax(1).mean()).abs(),
            "the mean confidence and the accuracy of all answers are compared, without bins",
            "Compare within every bin, then add the absolute gaps.",
        ),
        Wrong(
            "answer by answer",
            lambda p, y, bins: ((p.argmax(1) == y).to(p.dtype) - p.amax(1)).abs().mean(),
            "the absolute value is taken of every answer and not of the mean of a bin",
            "Average within the bin first: a confidence of 0.7 is right if 7 of 10 such answers are.",
        ),
        Wrong(
            "squares",
            lambda p, y, bins: (
                (_per_bin(p, y, bins)[0] * (_per_bin(p, y, bins)[2] - _per_bin(p, y, bins)[1]).square()).sum() / len(p)
            ),
            "the gaps are squared",
            "The absolute value of the gap: `.abs()`.",
            also=(
                lambda p, y, bins: (
                    (_per_bin(p, y, bins)[0] * (_per_bin(p, y, bins)[2] - _per_bin(p, y, bins)[1]).square()).sum()
                    / len(p)
                ).sqrt(),
            ),
        ),
        Wrong(
            "the worst bin",
            lambda p, y, bins: (_per_bin(p, y, bins)[2] - _per_bin(p, y, bins)[1]).abs().max(),
            "the largest gap of a bin is returned: the *maximum* calibration error",
            "Add the gaps of all bins, each weighed by its share of the answers.",
        ),
        Wrong(
            "middle of the bin",
            _midpoints,
            "the middle of a bin stands where the mean confidence of its answers belongs",
            "Average the confidences of the answers in the bin.",
            also=(
                lambda p, y, bins: (
                    (_bins(p, y, bins)[2] - _bins(p, y, bins)[0] * torch.arange(1, bins + 1, dtype=p.dtype) / bins)
                    .abs()
                    .sum()
                    / len(p)
                ),
            ),
        ),
        Wrong(
            "probability of the label",
            _true_class,
            "the confidence is the probability of the true class and not the largest probability",
            "The learner does not know the label: its confidence is `probabilities.max(1)`.",
        ),
        Wrong(
            "the last bin is forgotten",
            _some_bins(0, 1),
            "the last bin is never visited, and it holds the surest answers",
            "`for b in range(bins)`: b runs from 0 to bins - 1.",
        ),
        Wrong(
            "the first bin is forgotten",
            _some_bins(1, 0),
            "the first bin is never visited",
            "`for b in range(bins)`: b runs from 0 to bins - 1.",
        ),
        Wrong(
            "one bin too few",
            _between(lambda p, c, bins: torch.linspace(0, 1, bins)),
            "the number of bins is off by one",
            "`torch.linspace(0, 1, bins + 1)` holds the borders of `bins` bins.",
            also=(
                _error_with(lambda p, y, b: torch.bucketize(p.amax(1), torch.linspace(0, 1, b, dtype=p.dtype)[1:-1])),
                lambda p, y, bins: calibration_error(p, y, bins + 1),
            ),
        ),
        Wrong(
            "counted twice",
            _limits(lambda c, low, high: (c >= low) & (c <= high)),
            "a confidence on a border is counted in two bins",
            "Bin b holds b/bins < confidence <= (b+1)/bins: only the upper border belongs to it.",
        ),
        Wrong(
            "borders are lost",
            _limits(lambda c, low, high: (c > low) & (c < high)),
            "a confidence on a border is in no bin, and one of exactly 1 neither",
            "Bin b holds b/bins < confidence <= (b+1)/bins: the upper border belongs to it.",
        ),
        Wrong(
            "other borders",
            _binned(lambda p: p.amax(1).min()),
            "the bins do not run from 0 to 1: they begin at the smallest confidence, drawn or possible",
            "The borders are b/bins, from 0 to 1, whatever confidences there are.",
            also=(_binned(lambda p: 1 / p.shape[1], closed=False),),
        ),
        Wrong(
            "rounded",
            _error_with(lambda p, y, b: (p.amax(1) * b).round().long().clamp(1, b) - 1),
            "a confidence is rounded to the nearest border",
            "Round up: bin b holds b/bins < confidence <= (b+1)/bins.",
            also=(_error_with(lambda p, y, b: (p.amax(1) * b).round().long().clamp_max(b - 1)),),
        ),
        Wrong(
            "one bin is left",
            _last_filled,
            "only the last bin with answers counts: each one takes the place of the one before",
            "Add them up: `error = error + ...`.",
        ),
        Wrong(
            "all probabilities",
            _every_probability,
            "all probabilities are sorted into bins, those of the other classes, too",
            "The confidence of an answer is its largest probability: one number for each row.",
            also=(lambda p, y, bins: _every_probability(p, y, bins) * p.shape[1],),
        ),
        Wrong(
            "mean of bools",
            _mean_of_bools,
            "the mean is taken of a tensor of True and False, which has none",
            "`(answer == labels).to(confidence.dtype)` makes ones and zeros.",
        ),
        Wrong(
            "counts",
            lambda p, y, bins: calibration_error(p, y, bins) * len(p),
            "the gaps are weighed by counts and never divided by M",
            "Weigh by n_b / M.",
            also=(lambda p, y, bins: calibration_error(p, y, bins) * len(p) / bins,),
        ),
        Wrong(
            "equal counts",
            _equal_counts,
            "the bins hold equally many answers and are not equally wide",
            "Equal width: the borders are b/bins.",
        ),
        Wrong(
            "empty bins",
            lambda p, y, bins: (
                ((_bins(p, y, bins)[2] - _bins(p, y, bins)[1]) / _bins(p, y, bins)[0] * _bins(p, y, bins)[0])
                .abs()
                .sum()
                / len(p)
            ),
            "an empty bin divides 0 by 0",
            "Leave empty bins out.",
        ),
        Wrong(
            "accuracy",
            lambda p, y, bins: (p.argmax(1) == y).to(p.dtype).mean(),
            "the accuracy is returned",
            "Compare it with the confidence, bin by bin.",
            also=(lambda p, y, bins: 1 - (p.argmax(1) == y).to(p.dtype).mean(), lambda p, y, bins: p.amax(1).mean()),
        ),
        Wrong(
            "a fixed number of bins",
            lambda p, y, bins: calibration_error(p, y, 10),
            "the number of bins is always the same, whatever is asked for",
            "Use `bins`.",
            also=(lambda p, y, bins: calibration_error(p, y, 15),),
        ),
        Wrong(
            "a second softmax",
            lambda p, y, bins: calibration_error(p.softmax(1), y, bins),
            "a softmax is taken of the probabilities, which flattens them",
            "They are probabilities already.",
        ),
        Wrong(
            "one minus",
            lambda p, y, bins: 1 - calibration_error(p, y, bins),
            "one minus the error is returned",
            "A perfect learner has the error 0.",
        ),
        Wrong(
            "in per cent",
            lambda p, y, bins: 100 * calibration_error(p, y, bins),
            "the error is given in per cent",
            "Return a fraction.",
        ),
        Wrong(
            "a number of Python",
            lambda p, y, bins: float(calibration_error(p, y, bins)),
            "a float of Python is returned",
            "Return a tensor without dimensions, in the dtype of `probabilities`.",
        ),
    ),
    hints=(
        "What should be true of all answers that are given with confidence 0.7?",
        "For every bin: the share of answers in it, times |accuracy - mean confidence|. Add these up.",
        "`inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)`, then `inside.float().mean() * "
        "(right[inside].mean() - confidence[inside].mean()).abs()` where `inside.any()`",
    ),
)


# ---------------------------------------------------------------------------------------------- 22.3 a step of PGD


def ascent_step(x: Tensor, start: Tensor, gradient: Tensor, rate: float, epsilon: float) -> Tensor:
    """Returns pictures after one step of projected gradient ascent. x, start, gradient [B, ...] -> [B, ...]."""
    moved = x + rate * gradient.sign()
    return moved.clamp(start - epsilon, start + epsilon).clamp(0, 1)


def _step_by_change(x: Tensor, start: Tensor, gradient: Tensor, rate: float, epsilon: float) -> Tensor:
    change = (x + rate * torch.sign(gradient) - start).clamp(-epsilon, epsilon)
    return torch.clip(start + change, 0, 1)


def _step_by_box(x: Tensor, start: Tensor, gradient: Tensor, rate: float, epsilon: float) -> Tensor:
    low, high = (start - epsilon).clamp_min(0), (start + epsilon).clamp_max(1)
    return torch.minimum(torch.maximum(x + rate * gradient.sign(), low), high)


def _step_by_where(x: Tensor, start: Tensor, gradient: Tensor, rate: float, epsilon: float) -> Tensor:
    moved = torch.where(gradient > 0, x + rate, torch.where(gradient < 0, x - rate, x))
    moved = torch.where(moved > start + epsilon, start + epsilon, moved)
    moved = torch.where(moved < start - epsilon, start - epsilon, moved)
    return moved.clamp(0, 1)


def _step_by_loop(x: Tensor, start: Tensor, gradient: Tensor, rate: float, epsilon: float) -> Tensor:
    found = x.clone()
    flat, first, slope = found.view(-1), start.reshape(-1).tolist(), gradient.reshape(-1).tolist()
    for i, (s, g) in enumerate(zip(first, slope, strict=True)):
        moved = float(flat[i]) + rate * ((g > 0) - (g < 0))
        flat[i] = min(max(moved, s - epsilon, 0.0), s + epsilon, 1.0)
    return found


def _step_by_quotient(x: Tensor, start: Tensor, gradient: Tensor, rate: float, epsilon: float) -> Tensor:
    sign = torch.where(gradient == 0, 0.0, gradient / gradient.abs()).to(x.dtype)
    return torch.max(torch.min((x + rate * sign), start + epsilon), start - epsilon).clamp(0.0, 1.0)


def _into(x: Tensor, start: Tensor, epsilon: float) -> Tensor:
    return x.clamp(start - epsilon, start + epsilon).clamp(0, 1)


def _in_place(x: Tensor, start: Tensor, gradient: Tensor, rate: float, epsilon: float) -> Tensor:
    x += rate * gradient.sign()
    return _into(x, start, epsilon)


def _unit(gradient: Tensor) -> Tensor:
    return gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (gradient.dim() - 1))


def _one_way(keep: Callable[[Tensor, Tensor, float], Tensor]) -> Callable:
    """Returns a step after which `keep` takes the place of the ball."""
    return lambda x, s, g, r, e: keep(x + r * g.sign(), s, e).clamp(0, 1)


def _or_stay(fits: Callable[[Tensor, Tensor, float], Tensor]) -> Callable:
    """Returns a step that a pixel does not make at all where it leads too far."""

    def answer(x: Tensor, start: Tensor, gradient: Tensor, rate: float, epsilon: float) -> Tensor:
        moved = x + rate * gradient.sign()
        return torch.where(fits(moved, start, epsilon), moved, x).clamp(0, 1)

    return answer


def _stretched(moved: Tensor) -> Tensor:
    return (moved - moved.min()) / (moved.max() - moved.min())


def _step_cases(generator: Generator) -> list[Case]:
    def drawn(rate: float, epsilon: float, *shape: int) -> tuple[Tensor, Tensor, Tensor, float, float]:
        start = torch.rand(*shape, generator=generator)
        x = _into(start + epsilon * (2 * torch.rand(*shape, generator=generator) - 1), start, epsilon)
        return x, start, torch.randn(*shape, generator=generator), rate, epsilon

    paper = (torch.tensor([[0.25, 0.5, 0.95, 0.05, 0.5]]), torch.tensor([[0.1, 0.5, 0.95, 0.05, 0.5]]),
             torch.tensor([[3.0, -0.01, 2.0, -5.0, 0.0]]), 0.1, 0.2)  # fmt: skip
    first = drawn(0.03, 0.1, 2, 1, 5, 5)
    small = drawn(0.05, 0.3, 3, 1, 4, 4)
    return [
        Case("the example on paper", paper),
        Case("first step: x is the start", (first[1], *first[1:])),
        Case("a later step", first),
        Case("a step larger than epsilon", drawn(0.5, 0.2, 2, 1, 4, 4)),
        Case("tiny gradients", (small[0], small[1], 1e-8 * small[2], *small[3:])),
        Case("pictures of ink 1 and paper 0", (first[1].round(), first[1].round(), first[2], 0.1, 0.1)),
        Case("float64", (*(t.double() for t in small[:3]), *small[3:])),
    ]


STEP = Exercise(
    id="22.3",
    title="A step of PGD",
    reference=ascent_step,
    cases=_step_cases,
    right=(_step_by_change, _step_by_box, _step_by_where, _step_by_loop, _step_by_quotient),
    wrong=(
        Wrong(
            "downhill",
            lambda x, s, g, r, e: _into(x - r * g.sign(), s, e),
            "the step goes against the gradient: the loss falls",
            "An attack climbs: plus.",
        ),
        Wrong(
            "no sign",
            lambda x, s, g, r, e: _into(x + r * g, s, e),
            "the gradient's size counts: where it is small, as it is or after scaling, the pixel hardly moves",
            "`gradient.sign()`: every pixel moves by the whole rate.",
            also=(
                lambda x, s, g, r, e: _into(x + r * _unit(g), s, e),
                lambda x, s, g, r, e: _into(x + r * g / g.abs().max(), s, e),
                lambda x, s, g, r, e: _into(x + r * g / g.norm(), s, e),
            ),
        ),
        Wrong(
            "around the last picture",
            lambda x, s, g, r, e: (x + r * g.sign()).clamp(x - e, x + e).clamp(0, 1),
            "the change is limited from the last step and not from the start: step by step the picture walks away",
            "Keep within epsilon of `start`.",
        ),
        Wrong(
            "no ball",
            lambda x, s, g, r, e: (x + r * g.sign()).clamp(0, 1),
            "nothing keeps the picture within epsilon of its start",
            "`.clamp(start - epsilon, start + epsilon)`.",
        ),
        Wrong(
            "no pictures",
            lambda x, s, g, r, e: (x + r * g.sign()).clamp(s - e, s + e),
            "values outside [0, 1] come out, which no picture has",
            "Clamp to [0, 1], too: `.clamp(0, 1)`.",
            also=(lambda x, s, g, r, e: (x + r * g.sign()).clamp(s - e, s + e).clamp(0, 255),),
        ),
        Wrong(
            "one side only",
            _one_way(lambda moved, s, e: torch.minimum(moved, s + e)),
            "only one side of the budget is kept: up or down a pixel may go farther than epsilon",
            "Two limits: `.clamp(start - epsilon, start + epsilon)`.",
            also=(_one_way(lambda moved, s, e: torch.maximum(moved, s - e)),),
        ),
        Wrong(
            "stays instead",
            _or_stay(lambda moved, s, e: ((moved - s).abs() <= e) & (moved >= 0) & (moved <= 1)),
            "a pixel whose step leads too far does not move at all",
            "The nearest allowed value is the border itself: clamp.",
            also=(
                _or_stay(lambda moved, s, e: (moved - s).abs() <= e),
                _or_stay(lambda moved, s, e: (moved - s).abs() < e),
            ),
        ),
        Wrong(
            "one gradient for all pictures",
            lambda x, s, g, r, e: _into(x + r * g.mean(0, keepdim=True).sign(), s, e),
            "all pictures of the batch move along one gradient, the mean or the sum of theirs",
            "Every picture has a gradient of its own: `gradient.sign()`.",
            also=(lambda x, s, g, r, e: _into(x + r * g.mean().sign(), s, e),),
        ),
        Wrong(
            "stretched",
            lambda x, s, g, r, e: _stretched((x + r * g.sign()).clamp(s - e, s + e)),
            "the pictures are stretched to [0, 1]: every pixel changes, those within the limits, too",
            "Clamp: a value between 0 and 1 stays as it is.",
            also=(lambda x, s, g, r, e: _stretched(x + r * g.sign()),),
        ),
        Wrong(
            "no projection at all",
            lambda x, s, g, r, e: x + r * g.sign(),
            "the step is not projected: neither onto the ball nor onto [0, 1]",
            "Clamp to start ± epsilon, and to [0, 1].",
        ),
        Wrong(
            "from the start",
            lambda x, s, g, r, e: _into(s + r * g.sign(), s, e),
            "the step begins at the start every time: many steps are one",
            "Step from `x`; `start` is only for the projection.",
        ),
        Wrong(
            "epsilon as the rate",
            lambda x, s, g, r, e: _into(x + e * g.sign(), s, e),
            "the step has the length epsilon and not `rate`",
            "`rate * gradient.sign()`.",
            also=(lambda x, s, g, r, e: _into(x + r * e * g.sign(), s, e),),
        ),
        Wrong(
            "no rate",
            lambda x, s, g, r, e: _into(x + g.sign(), s, e),
            "every pixel goes straight to the end of its budget: the rate is forgotten, or `start` moves by epsilon",
            "`x + rate * gradient.sign()`, then the projection.",
        ),
        Wrong(
            "rate and epsilon",
            lambda x, s, g, r, e: _into(x + e * g.sign(), s, r),
            "`rate` and `epsilon` have changed places",
            "The step has the length `rate`, and the ball the radius `epsilon`.",
        ),
        Wrong(
            "change added to x",
            lambda x, s, g, r, e: (x + (x + r * g.sign() - s).clamp(-e, e)).clamp(0, 1),
            "the change since the start is added to `x`, which holds a part of it already",
            "Start plus change: `start + (...).clamp(-epsilon, epsilon)`.",
        ),
        Wrong(
            "around zero",
            lambda x, s, g, r, e: (x + r * g.sign()).clamp(-e, e).clamp(0, 1),
            "the picture itself is kept between -epsilon and epsilon",
            "The *change* is limited: `.clamp(start - epsilon, start + epsilon)`.",
        ),
        Wrong(
            "the rate as epsilon",
            lambda x, s, g, r, e: _into(x + r * g.sign(), s, r),
            "the ball has the radius `rate` and not epsilon",
            "`.clamp(start - epsilon, start + epsilon)`.",
        ),
        Wrong(
            "the change",
            lambda x, s, g, r, e: _into(x + r * g.sign(), s, e) - s,
            "the change is returned and not the picture",
            "Return start plus change.",
            also=(
                lambda x, s, g, r, e: (x + r * g.sign() - s).clamp(-e, e),
                lambda x, s, g, r, e: (r * g.sign()).clamp(-e, e),
                lambda x, s, g, r, e: r * g.sign(),
            ),
        ),
        Wrong(
            "written into x",
            _in_place,
            "the step is written into `x` itself",
            "`x + ...` makes a new tensor; `x += ...` changes the caller's.",
        ),
        Wrong(
            "scaled back",
            lambda x, s, g, r, e: (
                s + (x + r * g.sign() - s) / ((x + r * g.sign() - s).abs().max() / e).clamp_min(1)
            ).clamp(0, 1),
            "the whole change is shrunk until its largest entry is epsilon: that is not the nearest picture in the ball",
            "Clamp pixel by pixel.",
            also=(
                lambda x, s, g, r, e: (s + e * (x + r * g.sign() - s) / (x + r * g.sign() - s).abs().max()).clamp(0, 1),
            ),
        ),
        Wrong(
            "zero moves, too",
            lambda x, s, g, r, e: _into(x + r * torch.where(g > 0, 1.0, -1.0).to(x.dtype), s, e),
            "a pixel without gradient moves, too",
            "The sign of 0 is 0: `gradient.sign()`.",
            also=(lambda x, s, g, r, e: _into(x + r * torch.where(g >= 0, 1.0, -1.0).to(x.dtype), s, e),),
        ),
        Wrong(
            "a round ball",
            lambda x, s, g, r, e: (
                s
                + _unit(x + r * g.sign() - s)
                * (x + r * g.sign() - s).flatten(1).norm(dim=1).clamp_max(e).view(-1, *[1] * (x.dim() - 1))
            ).clamp(0, 1),
            "the change is limited in length: that is the ball of the Euclidean norm",
            "Epsilon limits every pixel on its own: clamp.",
        ),
        Wrong(
            "minus one to one",
            lambda x, s, g, r, e: (x + r * g.sign()).clamp(s - e, s + e).clamp(-1, 1),
            "values below 0 come out, which no picture has",
            "Pictures of this course have values from 0 to 1.",
        ),
    ),
    hints=(
        "Which way does the loss rise fastest if every pixel may change by the same amount?",
        "Step along the sign of the gradient. Then put every pixel back to within epsilon of its start, and between 0 and 1.",
        "`(x + rate * gradient.sign()).clamp(start - epsilon, start + epsilon).clamp(0, 1)`",
    ),
)


# ---------------------------------------------------------------------------------------------- 22.4 hidden gradients


def exposes_hiding(loss: Callable, logits: Tensor, labels: Tensor) -> bool:
    """Returns True when the gradient of loss(logits, labels) is not that of the cross-entropy. logits [M, N] in float64."""

    def slope(f: Callable) -> Tensor:
        z = logits.clone().requires_grad_()
        return torch.autograd.grad(f(z, labels).sum(), z)[0]

    wanted = slope(lambda z, y: F.cross_entropy(z, y, reduction="none"))
    return not torch.allclose(slope(loss), wanted, rtol=1e-4, atol=0)


def _slope(f: Callable, logits: Tensor, labels: Tensor) -> Tensor:
    z = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(f(z, labels).sum(), z)[0]


def _exposes_by_formula(loss: Callable, logits: Tensor, labels: Tensor) -> bool:
    own = F.one_hot(labels, logits.shape[1]).bool()
    p = logits.softmax(1)
    rest = p.masked_fill(own, 0)
    wanted = torch.where(own, -rest.sum(1, keepdim=True), rest)
    return not bool(((_slope(loss, logits, labels) - wanted).abs() <= 1e-3 * wanted.abs()).all())


def _exposes_by_ratio(loss: Callable, logits: Tensor, labels: Tensor) -> bool:
    wanted = logits.softmax(1) - F.one_hot(labels, logits.shape[1])
    ratio = _slope(loss, logits, labels) / wanted
    return not bool((ratio - 1).abs().max() < 1e-3)


def _exposes_row_by_row(loss: Callable, logits: Tensor, labels: Tensor) -> bool:
    for i in range(len(labels)):
        a = _slope(loss, logits, labels)[i]
        b = logits[i].softmax(0) - F.one_hot(labels[i], logits.shape[1])
        for got, want in zip(a.tolist(), b.tolist(), strict=True):
            if not abs(got - want) <= 5e-4 * abs(want):
                return True
    return False


def _exposes_by_backward(loss: Callable, logits: Tensor, labels: Tensor) -> bool:
    z = logits.clone().requires_grad_()
    loss(z, labels).sum().backward()
    wanted = logits.softmax(1) - F.one_hot(labels, logits.shape[1])
    return not bool(torch.isclose(z.grad, wanted, rtol=1e-3, atol=1e-14).all())


def _compares(same: Callable[[Tensor, Tensor], bool]) -> Callable:
    """Returns a detector that compares the two gradients by `same`."""

    def detector(loss: Callable, logits: Tensor, labels: Tensor) -> bool:
        wanted = logits.softmax(1) - F.one_hot(labels, logits.shape[1])
        return not same(_slope(loss, logits, labels), wanted)

    return detector


def _ask(loss: Callable, logits: Tensor, labels: Tensor) -> bool:
    z = logits.clone().requires_grad_()
    return bool((torch.autograd.grad(loss(z, labels), z)[0] == 0).any())


def _compares_some(which: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """Returns a detector that compares the gradients of some queries only."""

    def detector(loss: Callable, logits: Tensor, labels: Tensor) -> bool:
        rows = which(logits, labels)
        return not torch.allclose(_slope(loss, logits, labels)[rows], _wanted(logits, labels)[rows], rtol=1e-3, atol=0)

    return detector


def _wanted(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.softmax(1) - F.one_hot(labels, logits.shape[1])


def _wanted_in_float32(logits: Tensor, labels: Tensor) -> Tensor:
    return _slope(_plain, logits.float(), labels)


def _exposes_by_func(loss: Callable, logits: Tensor, labels: Tensor) -> bool:
    found, wanted = (torch.func.grad(lambda z, f=f: f(z, labels).sum())(logits) for f in (loss, _plain))
    return not np.allclose(found.numpy(), wanted.numpy(), rtol=1e-3, atol=0)


def _exposes_by_jacobian(loss: Callable, logits: Tensor, labels: Tensor) -> bool:
    found = torch.autograd.functional.jacobian(lambda z: loss(z, labels), logits).sum(0)
    wanted = torch.autograd.functional.jacobian(lambda z: _plain(z, labels), logits).sum(0)
    with torch.no_grad():
        small = (found.abs().log() - wanted.abs().log()).abs() < 1e-3
    return not bool((small & (found.sign() == wanted.sign())).all())


def _plain(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _by_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """The same loss as log(1 + sum of exp(others - own))."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf).logsumexp(1)
    return F.softplus(others - logits.gather(1, labels[:, None])[:, 0], threshold=1000)


def _by_rows(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([z.logsumexp(0) - z[y] for z, y in zip(logits, labels, strict=True)])


def _with_offset(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.log_softmax(1).gather(1, labels[:, None])[:, 0] + 1.0


def _clipped(low: float, high: float, rows: slice = slice(None)) -> Callable:
    """Returns a fault: in these rows the probability is kept between low and high before its logarithm is taken."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        p = logits.softmax(1).gather(1, labels[:, None])[:, 0]
        found = _plain(logits, labels).clone()
        found[rows] = -p.clamp(low, high).log()[rows]
        return found

    return loss


def _with_slope(change: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """Returns a fault: the values of the cross-entropy, and a gradient that `change` makes of its gradient and the labels."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        fixed = logits.detach()
        own = F.one_hot(labels, logits.shape[1]).bool()
        rest = fixed.softmax(1).masked_fill(own, 0)
        slope = change(torch.where(own, -rest.sum(1, keepdim=True), rest), labels)
        return _plain(fixed, labels) + ((logits - fixed) * slope).sum(1)

    return loss


def _reversed(slope: Tensor, labels: Tensor) -> Tensor:
    """Gives the gradient to the wrong classes in reverse: each row keeps its sum and its norm."""
    order = torch.arange(slope.shape[1]).repeat(len(slope), 1)
    for i, y in enumerate(labels.tolist()):
        wrong = [k for k in range(slope.shape[1]) if k != y]
        order[i, wrong] = torch.tensor(wrong[::-1])
    return slope.gather(1, order)


def _in_entry(row: int, column: int, value: float) -> Callable:
    """Returns a fault that replaces one entry of the gradient."""
    places = [torch.tensor([row]), torch.tensor([column])]
    return _with_slope(lambda slope, labels: slope.index_put(places, torch.tensor(value, dtype=slope.dtype)))


def _swapped_rows(logits: Tensor, labels: Tensor) -> Tensor:
    """Adds what is right on average: every row's gradient goes to the next one."""
    return _plain(logits.roll(1, 0).detach() + (logits - logits.detach()), labels.roll(1, 0))


def _stops_after_easy(logits: Tensor, labels: Tensor) -> Tensor:
    """Hides rows whose loss is smaller than that of the row before."""
    found = _plain(logits, labels)
    falls = torch.cat([torch.tensor([False]), found[1:] < found[:-1]])
    return torch.where(falls, found.detach(), found)


def _hides(rows: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        found = _plain(logits, labels)
        return torch.where(rows(logits, labels), found.detach(), found)

    return loss


def _smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=1e-3)


def _scaled(logits: Tensor, labels: Tensor) -> Tensor:
    return 1.02 * _plain(logits, labels)


def _row(i: int) -> Callable:
    return lambda z, y: torch.arange(len(y)) == i


def _hiding_cases(generator: Generator) -> list[Case]:
    ways = 4
    labels = torch.tensor([0, 1, 2, 3, 1, 0, 3, 2])
    logits = torch.randn(8, ways, generator=generator, dtype=torch.float64)
    gap = torch.tensor([0.0, 22.5, 3.0, -20.0, 10.0, 23.0, -4.0, 6.0], dtype=torch.float64)
    logits = 0.3 * logits + gap[:, None] * F.one_hot(labels, ways) - 30
    logits[4, 3] -= 9  # a class that counts for little: a gradient of 1e-4 of that of its neighbours
    few, some = logits[[2, 1]], labels[[2, 1]]

    def case(says: str, loss: Callable) -> Case:
        return Case(says, (loss, logits, labels))

    return [
        case("a right loss: PyTorch's cross-entropy", _plain),
        case("a right one: log(1 + sum of exp(others - own))", _by_margins),
        case("a right one, query by query", _by_rows),
        case("a right gradient; the value is larger by 1", _with_offset),
        case("probabilities kept between 1e-7 and 1 - 1e-7 before the logarithm", _clipped(1e-7, 1 - 1e-7)),
        case("probabilities kept above 1e-7: only surely wrong answers are hidden", _clipped(1e-7, 1.0)),
        case("probabilities kept below 1 - 1e-7: only surely right answers are hidden", _clipped(0.0, 1 - 1e-7)),
        case("one query's probability is kept below 1 - 1e-7", _clipped(0.0, 1 - 1e-7, slice(5, 6))),
        case("the softmax is taken twice", lambda z, y: _plain(z.softmax(1), y)),
        case("logits are rounded: no gradient anywhere", lambda z, y: _plain(z.round(), y)),
        case("the last query has no gradient", _hides(_row(7))),
        case("the first query has no gradient", _hides(_row(0))),
        case("queries of class 1 have no gradient", _hides(lambda z, y: y == 1)),
        case("queries that are answered right have no gradient", _hides(lambda z, y: z.argmax(1) == y)),
        case("a thousandth of label smoothing", _smoothed),
        case("logits divided by 1.01", lambda z, y: _plain(z / 1.01, y)),
        case("gradients 0.3 % too large", lambda z, y: 1.003 * _plain(z, y)),
        case("the wrong classes' gradients in reverse: sums and norms stay", _with_slope(_reversed)),
        case("one entry of the gradient is missing", _in_entry(2, 3, 0.0)),
        case("the smallest entry of one query's gradient is missing", _in_entry(4, 3, 0.0)),
        case("one entry of the gradient is NaN", _in_entry(6, 1, torch.nan)),
        case("every query gets the gradient of another one", _swapped_rows),
        case("no gradient where the loss is smaller than that of the query before", _stops_after_easy),
        case("the loss falls: minus the cross-entropy", lambda z, y: -_plain(z, y)),
        Case("a right loss, two queries", (_plain, few, some)),
        Case("a right loss, a single query that is not sure", (_plain, few[:1], some[:1])),
        Case("a right loss, two queries that are not sure", (_plain, logits[[2, 7]], labels[[2, 7]])),
        Case("a gradient 2 % too large, two queries that are not sure", (_scaled, logits[[2, 7]], labels[[2, 7]])),
        Case("kept between 1e-7 and 1 - 1e-7, two queries", (_clipped(1e-7, 1 - 1e-7), few, some)),
    ]


HIDING = Exercise(
    id="22.4",
    title="Bug hunt: does a loss hide its gradient?",
    reference=exposes_hiding,
    cases=_hiding_cases,
    right=(
        _exposes_by_formula,
        _exposes_by_ratio,
        _exposes_row_by_row,
        _exposes_by_backward,
        _exposes_by_func,
        _exposes_by_jacobian,
    ),
    wrong=(
        Wrong(
            "the usual tolerance",
            _compares(torch.allclose),
            "the tolerance of `allclose` hides small gradients: its `atol` of 1e-8 is larger than what a sure answer leaves",
            "Compare relative to the size of each number: `torch.allclose(a, b, rtol=1e-3, atol=0)`.",
            also=(
                _compares(lambda a, b: torch.allclose(a, b, atol=1e-3)),
                _compares(lambda a, b: bool((a - b).abs().max() < 1e-2)),
            ),
        ),
        Wrong(
            "values",
            lambda loss, z, y: not torch.allclose(loss(z, y), _plain(z, y)),
            "the values of the loss are compared: a right value may have no gradient, and another value may do no harm",
            "An attack uses the gradient: `torch.autograd.grad(loss(z, labels).sum(), z)`.",
            also=(
                lambda loss, z, y: not torch.allclose(loss(z, y).sum(), _plain(z, y).sum()),
                lambda loss, z, y: bool(((loss(z, y) - _plain(z, y)).abs() > 1e-3).any()),
            ),
        ),
        Wrong(
            "all zero",
            lambda loss, z, y: bool((_slope(loss, z, y) == 0).all()),
            "the alarm waits until the gradient of *all* queries is zero",
            "One hidden query is enough.",
        ),
        Wrong(
            "zeros only",
            lambda loss, z, y: bool((_slope(loss, z, y) == 0).all(1).any()),
            "only queries whose gradient is exactly zero ring: one that points elsewhere passes",
            "Compare with the gradient of the cross-entropy, entry by entry.",
            also=(lambda loss, z, y: bool((_slope(loss, z, y) == 0).any()),),
        ),
        Wrong(
            "sums",
            _compares(lambda a, b: torch.allclose(a.norm(dim=1), b.norm(dim=1), rtol=1e-3, atol=0)),
            "sums or norms are compared: what one entry loses another may gain",
            "Compare entry by entry.",
            also=(
                _compares(lambda a, b: torch.allclose(a.norm(), b.norm(), rtol=1e-3)),
                _compares(lambda a, b: torch.allclose(a.sum(0), b.sum(0), rtol=1e-3, atol=0)),
            ),
        ),
        Wrong(
            "drowned",
            _compares(lambda a, b: not bool(((a - b).norm(dim=1) / b.norm(dim=1) > 1e-3).any())),
            "one number is made of many differences: beside large gradients a small one that is wrong does not count",
            "Compare every entry with its own size: `torch.allclose(a, b, rtol=1e-3, atol=0)`.",
            also=(
                _compares(lambda a, b: bool(((a - b).norm(dim=1) / b.norm(dim=1) < 1e-3).all())),
                _compares(lambda a, b: not bool((a - b).norm() / b.norm() > 1e-3)),
                _compares(lambda a, b: bool((a - b).norm() / b.norm() < 1e-3)),
                _compares(lambda a, b: not bool((a - b).abs().mean() > 1e-6)),
                _compares(lambda a, b: not bool((a - b).abs().max() > 1e-3)),
            ),
        ),
        Wrong(
            "with itself",
            lambda loss, z, y: not torch.allclose(_slope(loss, z, y), _slope(loss, z, y), rtol=1e-3, atol=0),
            "the gradient is compared with itself, as happens when a second `backward` adds to the same `.grad`",
            "Take each by `torch.autograd.grad`, at a copy of its own: `logits.clone().requires_grad_()`.",
        ),
        Wrong(
            "no gradient asked for",
            lambda loss, z, y: bool((torch.autograd.grad(loss(z, y).sum(), z)[0] == 0).any()),
            "`logits` asks for no gradient, so nothing is recorded",
            "`z = logits.clone().requires_grad_()`.",
        ),
        Wrong(
            "a gradient of many numbers",
            lambda loss, z, y: _ask(loss, z, y),
            "the gradient is asked of M numbers and not of one",
            "Take the sum first: `loss(z, labels).sum()`.",
        ),
        Wrong(
            "NaN slips through",
            lambda loss, z, y: bool(((_slope(loss, z, y) - _wanted(z, y)).abs() > 1e-3 * _wanted(z, y).abs()).any()),
            "a NaN slips through: it is not larger than any tolerance, nor smaller",
            "Ask what is right and not what is wrong: `not ((a - b).abs() <= 1e-3 * b.abs()).all()`, or `torch.allclose`.",
        ),
        Wrong(
            "mean and sum",
            lambda loss, z, y: not torch.allclose(_slope(loss, z, y), _wanted(z, y) / len(y), rtol=1e-3, atol=0),
            "the gradient of a mean is held against that of a sum: they differ by the factor M",
            '`F.cross_entropy(z, labels, reduction="sum")`: its default is the mean.',
        ),
        Wrong(
            "single precision",
            lambda loss, z, y: (
                not torch.allclose(_slope(loss, z, y), _wanted_in_float32(z, y).double(), rtol=1e-3, atol=0)
            ),
            "one of the gradients is computed in float32, where those of sure answers are rounded to 0 or nearly so",
            "Stay in the dtype of `logits`, float64.",
        ),
        Wrong(
            "directions",
            _compares(lambda a, b: bool((F.cosine_similarity(a, b, dim=1) > 0.9999).all())),
            "only directions are compared, by `cosine_similarity`: it takes norms below 1e-8 for 1e-8, so sure answers ring, and "
            "a gradient of the wrong size does not",
            "Compare every entry: `torch.allclose(a, b, rtol=1e-3, atol=0)`.",
        ),
        Wrong(
            "the colleague's loss",
            lambda loss, z, y: (
                not torch.allclose(_slope(loss, z, y), _slope(_clipped(1e-7, 1 - 1e-7), z, y), rtol=1e-3, atol=0)
            ),
            "the gradient is held against that of a loss with a clamp, so right losses ring and the colleague's does not",
            "Hold it against the cross-entropy of the logits.",
        ),
        Wrong(
            "signs only",
            _compares(lambda a, b: torch.equal(a.sign(), b.sign())),
            "only signs are compared: a gradient of the wrong size passes",
            "The task asks for the gradient of the cross-entropy: compare sizes, too.",
        ),
        Wrong(
            "the label's entry",
            lambda loss, z, y: (
                not torch.allclose(
                    _slope(loss, z, y).gather(1, y[:, None]),
                    (z.softmax(1) - F.one_hot(y, z.shape[1])).gather(1, y[:, None]),
                    rtol=1e-3,
                    atol=0,
                )
            ),
            "only the entry of the right class is compared",
            "Compare all of [M, N].",
        ),
        Wrong(
            "some queries",
            _compares(lambda a, b: torch.allclose(a[:1], b[:1], rtol=1e-3, atol=0)),
            "some queries are never looked at",
            "Compare all of [M, N].",
            also=(
                _compares(lambda a, b: torch.allclose(a[-1], b[-1], rtol=1e-3, atol=0)),
                _compares(lambda a, b: torch.allclose(a[:, 0], b[:, 0], rtol=1e-3, atol=0)),
                _compares(lambda a, b: torch.allclose(a[1:], b[1:], rtol=1e-3, atol=0)),
                _compares_some(lambda z, y: z.argmax(1) == y),
                _compares_some(lambda z, y: z.argmax(1) != y),
                _compares_some(lambda z, y: z.softmax(1).amax(1) < 0.9999),
            ),
        ),
        Wrong(
            "almost exactly equal",
            _compares(lambda a, b: torch.allclose(a, b, rtol=1e-12, atol=0)),
            "the gradients are compared to the last digit: rounding rings the alarm",
            "`torch.allclose` with `rtol=1e-3` and `atol=0`.",
        ),
        Wrong(
            "too generous",
            _compares(lambda a, b: torch.allclose(a, b, rtol=0.1, atol=0)),
            "the tolerance is so wide that a small fault passes",
            "Rounding stays below a relative 1e-4: `rtol=1e-3`.",
            also=(_compares(lambda a, b: torch.allclose(a, b, rtol=1e-2, atol=0)),),
        ),
        Wrong(
            "all must be wrong",
            _compares(lambda a, b: bool(torch.isclose(a, b, rtol=1e-3, atol=0).any())),
            "the alarm waits until *all* entries are wrong",
            "One wrong entry is enough.",
        ),
        Wrong(
            "turned round",
            lambda loss, z, y: not exposes_hiding(loss, z, y),
            "True and False have changed places",
            "True means: the gradient is not that of the cross-entropy.",
        ),
        Wrong(
            "always",
            lambda loss, z, y: True,
            "the alarm rings for right losses, too: it compares with a gradient that none of them has",
            "The gradient of the cross-entropy is softmax minus one-hot. A `.grad` adds up from call to call; "
            "`torch.autograd.grad` does not.",
        ),
        Wrong(
            "the probabilities",
            lambda loss, z, y: (
                not torch.allclose(_slope(loss, z, y), F.one_hot(y, z.shape[1]) - z.softmax(1), rtol=1e-3, atol=0)
            ),
            "the gradient is compared with one-hot minus softmax: right losses ring, and a loss that falls does not",
            "The gradient of the cross-entropy is softmax minus one-hot.",
        ),
        Wrong(
            "never",
            lambda loss, z, y: False,
            "the alarm never rings: nothing is compared, or only sums of rows, which are zero for every loss of differences",
            "Compute the gradient of `loss(z, labels).sum()` and compare all its entries with that of the cross-entropy.",
        ),
    ),
    hints=(
        "Which number does an attack take from a loss? What must it be for a sure answer?",
        "Compute the gradient of the summed losses with respect to the logits, and that of the cross-entropy. How small may a "
        "gradient be that still has a sign?",
        "`z = logits.clone().requires_grad_()`, `torch.autograd.grad(loss(z, labels).sum(), z)[0]`, and "
        "`torch.allclose(found, wanted, rtol=1e-3, atol=0)`",
    ),
)


# ---------------------------------------------------------------------------------------------- 22.5 geometric median


def geometric_median(rows: Tensor, iterations: int) -> Tensor:
    """Returns the point after so many steps of Weiszfeld's iteration from the mean. rows [K, D] -> [D]."""
    point = rows.mean(0)
    for _ in range(iterations):
        weight = 1 / (rows - point).norm(dim=1).clamp_min(1e-6)
        point = (weight[:, None] * rows).sum(0) / weight.sum()
    return point


def _median_by_products(rows: Tensor, iterations: int) -> Tensor:
    point = rows.mean(0)
    for _ in range(iterations):
        weight = torch.cdist(rows[:, None], point[None, None])[:, 0, 0].clamp_min(1e-6).reciprocal()
        point = (weight / weight.sum()) @ rows
    return point


def _median_by_average(rows: Tensor, iterations: int) -> Tensor:
    point = rows.sum(0) / len(rows)
    for _ in range(iterations):
        distance = ((rows - point) ** 2).sum(1).sqrt()
        distance = torch.where(distance < 1e-6, torch.full_like(distance, 1e-6), distance)
        point = torch.einsum("k,kd->d", 1 / distance, rows) / (1 / distance).sum()
    return point


def _median_by_steps(rows: Tensor, iterations: int) -> Tensor:
    """As a gradient step: the point moves by the mean of unit vectors, divided by the mean of inverse distances."""
    point = rows.mean(0)
    for _ in range(iterations):
        inverse = 1 / (rows - point).norm(dim=1).clamp_min(1e-6)
        point = point + ((rows - point) * inverse[:, None]).sum(0) / inverse.sum()
    return point


def _median_recursive(rows: Tensor, iterations: int) -> Tensor:
    if iterations == 0:
        return rows.mean(0)
    before = _median_recursive(rows, iterations - 1)
    weights = torch.stack([1 / max(torch.dist(r, before), rows.new_tensor(1e-6)) for r in rows])
    return sum(w * r for w, r in zip(weights, rows, strict=True)) / weights.sum()


def _weiszfeld(
    weigh: Callable[[Tensor], Tensor] = lambda d: 1 / d.clamp_min(1e-6),
    start: Callable[[Tensor], Tensor] = lambda rows: rows.mean(0),
    distance: Callable[[Tensor], Tensor] = lambda gap: gap.norm(dim=1),
    more: int = 0,
    divide: Callable[[Tensor], Tensor] = lambda w: w.sum(),
) -> Callable:
    """Returns Weiszfeld's iteration with parts exchanged."""

    def answer(rows: Tensor, iterations: int) -> Tensor:
        point = start(rows)
        for _ in range(iterations + more):
            weight = weigh(distance(rows - point))
            point = weight @ rows / divide(weight)
        return point

    return answer


def _divided_by_rows(rows: Tensor, iterations: int) -> Tensor:
    point = rows.mean(0)
    for _ in range(iterations):
        weight = 1 / (rows - point).norm(dim=1).clamp_min(1e-6)
        point = (weight[:, None] * rows).mean(0)
    return point


def _by_feature(rows: Tensor, iterations: int) -> Tensor:
    point = rows.mean(0)
    for _ in range(iterations):
        weight = 1 / (rows - point).abs().clamp_min(1e-6)
        point = (weight * rows).sum(0) / weight.sum(0)
    return point


def _stops(below: float, last: bool = False) -> Callable:
    """Returns an answer that stops when a step is short."""

    def answer(rows: Tensor, iterations: int) -> Tensor:
        point = rows.mean(0)
        for _ in range(iterations):
            weight = 1 / (rows - point).norm(dim=1).clamp_min(1e-6)
            moved = weight @ rows / weight.sum()
            if (moved - point).norm() < below:
                return point if last else moved
            point = moved
        return point

    return answer


def _along_rows(weigh: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """Returns an answer that takes the norm along the rows: one number for each feature."""

    def answer(rows: Tensor, iterations: int) -> Tensor:
        point = rows.mean(0)
        for _ in range(iterations):
            point = weigh(1 / (rows - point).norm(dim=0).clamp_min(1e-6), rows)
        return point

    return answer


def _nearest_to_the_median(rows: Tensor, iterations: int) -> Tensor:
    return rows[(rows - geometric_median(rows, iterations)).norm(dim=1).argmin()]


def _median_cases(generator: Generator) -> list[Case]:
    cloud = torch.randn(6, 3, generator=generator)
    cloud[2] += 20
    beside = torch.full(
        (18, 1), -1.0, dtype=torch.float64
    )  # one row is 1/1024 from the mean, 16 lie left, one far right
    beside[0], beside[1] = 0.0, 16 + 17 / 1024 + 1 / 1024
    return [
        Case("the example on paper: one step", (torch.tensor([[0.0], [1.0], [8.0]]), 1)),
        Case("six rows, one of them far away, 30 steps", (cloud, 30)),
        Case("no step: the mean", (cloud, 0)),
        Case("five rows, 2 steps", (torch.randn(5, 4, generator=generator), 2)),
        Case("a row that is the mean itself", (torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), 3)),
        Case("a single row", (cloud[:1], 5)),
        Case("a row very near the mean, float64", (beside, 1)),
        Case("float64", (cloud.double(), 10)),
    ]


def _moves_along(answer: Callable, reference: Callable) -> str | None:
    rows = torch.randn(5, 3, generator=Generator().manual_seed(1), dtype=torch.float64)
    gap = float((answer(rows + 4, 10) - answer(rows, 10) - 4).abs().max())
    return f"all rows moved by 4, and the median by {gap:.2g} more or less." if gap > 1e-6 else None


MEDIAN = Exercise(
    id="22.5",
    title="Geometric median",
    reference=geometric_median,
    cases=_median_cases,
    properties=(Property("moving all rows moves the median along", _moves_along),),
    right=(_median_by_products, _median_by_average, _median_by_steps, _median_recursive),
    wrong=(
        Wrong(
            "distances as weights",
            _weiszfeld(lambda d: d),
            "far rows get large weights",
            "The weight is one over the distance.",
            also=(_weiszfeld(lambda d: d.clamp_min(1e-6)),),
        ),
        Wrong(
            "squared distances",
            _weiszfeld(lambda d: 1 / d.square().clamp_min(1e-6)),
            "the weight is one over the *squared* distance",
            "Plain distances: `.norm(dim=1)`.",
        ),
        Wrong(
            "not divided",
            _weiszfeld(divide=lambda w: torch.ones((), dtype=w.dtype)),
            "the weighted sum is never divided by the sum of the weights",
            "Divide by `weight.sum()`, so that the weights sum to one.",
        ),
        Wrong(
            "divided by K",
            _weiszfeld(divide=lambda w: torch.tensor(float(len(w)), dtype=w.dtype)),
            "the weighted sum is divided by the number of rows",
            "Divide by the sum of the weights.",
            also=(_divided_by_rows,),
        ),
        Wrong(
            "weights per feature",
            _by_feature,
            "every feature has a distance and a weight of its own",
            "The distance is that of the whole row: `.norm(dim=1)`, one weight for each row.",
        ),
        Wrong(
            "stops early",
            _stops(1e-2),
            "the iteration stops as soon as a step is short",
            "Take all `iterations` steps.",
            also=(_stops(1e-3), _stops(1e-4), _stops(1e-2, last=True), _stops(1e-3, last=True)),
        ),
        Wrong(
            "along the rows",
            _along_rows(lambda weight, rows: (weight * rows).sum(0) / weight.sum()),
            "the norm runs along the rows and leaves one number for each feature",
            "One distance for each row: `.norm(dim=1)`.",
            also=(
                _along_rows(lambda weight, rows: (weight[:, None] * rows).sum(0) / weight.sum()),
                _along_rows(lambda weight, rows: weight @ rows / weight.sum()),
            ),
        ),
        Wrong(
            "left out at the point",
            _weiszfeld(lambda d: torch.where(d < 1e-6, torch.zeros_like(d), 1 / d.clamp_min(1e-6))),
            "a row at the point itself gets the weight 0",
            "It is the nearest of all: count its distance as 1e-6.",
        ),
        Wrong(
            "another floor",
            _weiszfeld(lambda d: 1 / d.clamp_min(1e-3)),
            "distances are cut off at another number than 1e-6",
            "`.clamp_min(1e-6)`.",
            also=(
                _weiszfeld(lambda d: 1 / d.clamp_min(1)),
                _weiszfeld(lambda d: 1 / d.clamp_min(1e-2)),
                _weiszfeld(lambda d: 1 / d.clamp_min(0.1)),
            ),
        ),
        Wrong(
            "the mean",
            lambda rows, n: rows.mean(0),
            "the mean is returned: all rows weigh the same",
            "Weigh every row by one over its distance, and repeat.",
        ),
        Wrong(
            "the median of each feature",
            lambda rows, n: rows.median(0).values,
            "every feature has a median of its own",
            "The geometric median weighs whole rows.",
            also=(lambda rows, n: rows.quantile(0.5, 0),),
        ),
        Wrong(
            "another start",
            _weiszfeld(start=lambda rows: rows[0]),
            "the iteration does not start at the mean",
            "`point = rows.mean(0)`.",
            also=(
                _weiszfeld(start=lambda rows: torch.zeros_like(rows[0])),
                _weiszfeld(start=lambda rows: rows.median(0).values),
                _weiszfeld(start=lambda rows: rows[-1]),
                _weiszfeld(start=lambda rows: torch.ones_like(rows[0])),
            ),
        ),
        Wrong(
            "one step too many",
            _weiszfeld(more=1),
            "the number of steps is off by one",
            "`for _ in range(iterations)`.",
            also=(_weiszfeld(more=-1),),
        ),
        Wrong(
            "one step",
            lambda rows, n: geometric_median(rows, min(n, 1)),
            "the second step is like the first: the distances are never computed again from the new point",
            "Repeat `iterations` times, each time with the distances from the last point.",
        ),
        Wrong(
            "divides by zero",
            _weiszfeld(lambda d: 1 / d),
            "a row at distance 0 divides by zero",
            "Take 1e-6 for every distance below it: `.clamp_min(1e-6)`.",
        ),
        Wrong(
            "added to every distance",
            _weiszfeld(lambda d: 1 / (d + 1)),
            "a number is added to every distance",
            "Only distances below 1e-6 are changed.",
            also=(
                _weiszfeld(lambda d: 1 / (d + 1e-2)),
                _weiszfeld(lambda d: 1 / (d + 1e-3)),
                _weiszfeld(lambda d: 1 / (d + 1e-6)),
                _weiszfeld(lambda d: 1 / (d.square() + 1e-6).sqrt()),
            ),
        ),
        Wrong(
            "city blocks",
            _weiszfeld(distance=lambda gap: gap.abs().sum(1)),
            "the distance is the sum of absolute differences",
            "The Euclidean distance: `.norm(dim=1)`.",
        ),
        Wrong(
            "softmax",
            _weiszfeld(lambda d: (-d).softmax(0)),
            "the weights come from exponentials of minus the distances",
            "One over the distance.",
        ),
        Wrong(
            "roots",
            _weiszfeld(lambda d: 1 / d.clamp_min(1e-6).sqrt()),
            "the weight is one over the *root* of the distance",
            "`.norm(dim=1)` has taken the root already.",
        ),
        Wrong(
            "the nearest row",
            lambda rows, n: rows[torch.cdist(rows, rows).sum(1).argmin()],
            "one of the rows is returned",
            "The geometric median may lie between rows: return the weighted mean itself.",
            also=(_nearest_to_the_median,),
        ),
    ),
    hints=(
        "The mean minimises the sum of squared distances. What does a far row weigh in the sum of plain ones?",
        "Set the gradient of the sum of distances to zero: a weighted mean, and the weights are one over the distances.",
        "`weight = 1 / (rows - point).norm(dim=1).clamp_min(1e-6)`, `point = weight @ rows / weight.sum()`",
    ),
)

EXERCISES = (WITHOUT, ERROR, STEP, HIDING, MEDIAN)
