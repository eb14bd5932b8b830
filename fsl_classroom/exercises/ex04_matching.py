"""Exercises of lesson 04: attention, class probabilities, the bound on cosine attention, the loss, three detectors, the method.

Cases: every exercise builds its own; 04.2, 04.4 and 04.8 draw their labels with `_shuffled_labels`. The detectors 04.5, 04.6
and 04.7 get implementations as arguments and must return True for the broken ones only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong
from fsl_classroom.exercises.encoders import small_encoder, teaches_encoder
from fsl_course.methods.matching import MatchingNetwork, class_log_probabilities
from fsl_course.methods.prototypical import squared_distances


def _shuffled_labels(generator: Generator, shots: list[int]) -> Tensor:
    """Returns labels [S] in random order with shots[k] rows of class k."""
    labels = torch.cat([torch.full((shot,), k) for k, shot in enumerate(shots)])
    return labels[torch.randperm(len(labels), generator=generator)]


def _cosines(query: Tensor, support: Tensor) -> Tensor:
    return F.normalize(query, dim=-1) @ F.normalize(support, dim=-1).mT


# ---------------------------------------------------------------------------------------------- 04.1 attention


def attention_weights(similarity: Tensor) -> Tensor:
    """Returns the softmax over the support. similarity [M, S] -> [M, S]."""
    return similarity.softmax(1)


def _attention_by_hand(similarity: Tensor) -> Tensor:
    weight = (similarity - similarity.max(dim=1, keepdim=True).values).exp()
    return weight / weight.sum(1, keepdim=True)


def _attention_by_logarithms(similarity: Tensor) -> Tensor:
    return (similarity - similarity.logsumexp(dim=1, keepdim=True)).exp()


def _attention_loop(similarity: Tensor) -> Tensor:
    return torch.stack([torch.softmax(row, dim=0) for row in similarity])


def _attention_transposed(similarity: Tensor) -> Tensor:
    return F.softmax(similarity.T, dim=0).T


def _attention_module(similarity: Tensor) -> Tensor:
    return nn.Softmax(dim=-1)(similarity)


def _attention_over(weight: Callable[[Tensor], Tensor], **axis: int | bool) -> Callable[[Tensor], Tensor]:
    """Returns weight(similarity), divided by its sum along the axis."""

    def attention(similarity: Tensor) -> Tensor:
        found = weight(similarity)
        return found / found.sum(**axis)

    return attention


def _attention_cases(generator: Generator) -> list[Case]:
    table = torch.randn(6, 4, generator=generator)
    return [
        Case("the example on paper", (torch.tensor([[1.0, 0.8, 0.6, 0.0]]),)),
        Case("6 queries, 4 support rows", (table,)),
        Case("as many queries as support rows", (table[:4],)),
        Case("one support row", (table[:, :1],)),
        Case("float64", (table.double(),)),
        Case("similarities near 0, 100 and 1000", (torch.tensor([[0.0, 1.0], [100.0, 90.0], [1000.0, 0.0]]),)),
    ]


ATTENTION = Exercise(
    id="04.1",
    title="Attention weights",
    reference=attention_weights,
    cases=_attention_cases,
    gradient=(0,),
    right=(_attention_by_hand, _attention_by_logarithms, _attention_loop, _attention_transposed, _attention_module),
    wrong=(
        Wrong(
            "over the queries",
            lambda s: s.softmax(0),
            "the softmax runs over the queries: dim=0",
            "Every *query* shares out one unit of attention over the support: dim=1.",
            also=(_attention_over(torch.exp, dim=0, keepdim=True),),
        ),
        Wrong(
            "over everything",
            lambda s: s.flatten().softmax(0).view_as(s),
            "one softmax runs over the whole table: all queries share a single unit of attention",
            "A unit for each query: dim=1.",
            also=(_attention_over(torch.exp),),
        ),
        Wrong(
            "no exponential",
            lambda s: s / s.sum(1, keepdim=True),
            "the similarities are divided by a sum without an exponential: ratios count, where gaps should",
            "Take `exp` first.",
            also=(
                lambda s: F.normalize(s, p=1, dim=1),
                lambda s: s.abs() / s.abs().sum(1, keepdim=True),
                lambda s: s.square() / s.square().sum(1, keepdim=True),
                lambda s: s.relu() / s.relu().sum(1, keepdim=True).clamp_min(1e-12),
            ),
        ),
        Wrong(
            "not divided",
            lambda s: (s - s.max(1, keepdim=True).values).exp(),
            "nothing is divided by the sum of the row: every weight stands for itself",
            "Divide each row by its sum: the weights of a query sum to one.",
            also=(lambda s: s.exp(), lambda s: s.sigmoid()),
        ),
        Wrong(
            "bare exponential",
            lambda s: s.exp() / s.exp().sum(1, keepdim=True),
            "`exp` of a large similarity is infinite in float32, and infinity divided by infinity is not a number",
            "Subtract the largest similarity of the row first, or let `softmax` do it.",
        ),
        Wrong(
            "largest of the table",
            lambda s: _attention_over(torch.exp, dim=1, keepdim=True)(s - s.max()),
            "the largest similarity of the *table* is subtracted: a row far below it underflows, and 0 / 0 is not a number",
            "Subtract the largest similarity of each row: `s.max(dim=1, keepdim=True).values`.",
        ),
        Wrong(
            "clamped",
            lambda s: _attention_over(torch.exp, dim=1, keepdim=True)(s.clamp(max=80)),
            "similarities are clamped before the exponential, so that two large ones become equal",
            "Subtract the largest similarity of the row: only gaps matter to a softmax, and those stay.",
        ),
        Wrong(
            "length one",
            lambda s: F.normalize((s - s.max(1, keepdim=True).values).exp(), dim=1),
            "`F.normalize` makes the *length* of a row one, the root of its sum of squares",
            "The weights themselves sum to one: divide by `.sum(1, keepdim=True)`.",
        ),
        Wrong(
            "another scale",
            lambda s: (10 * s).softmax(1),
            "the similarities are multiplied by a scale once more",
            "They come with their scale: only the softmax is missing.",
            also=(lambda s: (s / s.shape[1] ** 0.5).softmax(1),),
        ),
        Wrong(
            "logarithms",
            lambda s: s.log_softmax(1),
            "logarithms of the weights are returned",
            "`softmax`, not `log_softmax`.",
        ),
        Wrong(
            "distance",
            lambda s: (-s).softmax(1),
            "the sign is turned, as for distances: the least similar row gets most",
            "A large similarity must give a large weight.",
        ),
        Wrong(
            "winner takes all",
            lambda s: F.one_hot(s.argmax(1), s.shape[1]).to(s),
            "the most similar row gets all attention: no gradient flows through that choice",
            "Share the attention out softly, with a softmax.",
        ),
        Wrong(
            "softmax twice",
            lambda s: s.softmax(1).softmax(1),
            "a softmax is taken of weights, which makes them nearly equal",
            "One softmax is enough: its rows sum to one already.",
        ),
        Wrong(
            "divided by the columns",
            lambda s: _attention_over(torch.exp, dim=0, keepdim=True)(s - s.max(1, keepdim=True).values),
            "the exponentials are divided by the sums of the *columns*",
            "Divide each row by its own sum: `.sum(1, keepdim=True)`.",
        ),
        Wrong(
            "detached",
            lambda s: s.detach().softmax(1),
            "the weights are cut off from the graph: the encoder learns nothing",
            "No `.detach()`, no `no_grad`.",
        ),
    ),
    hints=(
        "Each query has one unit of attention to give away. Over which axis of [M, S]?",
        "A softmax along the support: the axis with S entries.",
        "`return similarity.softmax(dim=1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 04.2 class probabilities


def class_probabilities(attention: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Sums attention by class. attention [M, S], labels [S] -> [M, n_way]."""
    return attention @ F.one_hot(labels, n_way).to(attention.dtype)


def _probabilities_loop(attention: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([attention[:, labels == k].sum(1) for k in range(n_way)], dim=1)


def _probabilities_index_add(attention: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return attention.new_zeros(len(attention), n_way).index_add(1, labels, attention)


def _probabilities_einsum(attention: Tensor, labels: Tensor, n_way: int) -> Tensor:
    mine = (labels[:, None] == torch.arange(n_way)).to(attention)
    return torch.einsum("ms,sn->mn", attention, mine)


def _probabilities_scatter(attention: Tensor, labels: Tensor, n_way: int) -> Tensor:
    found = torch.zeros(len(attention), n_way, dtype=attention.dtype)
    return found.scatter_add(1, labels.expand_as(attention), attention)


def _probability_cases(generator: Generator) -> list[Case]:
    def case(says: str, shots: list[int], queries: int, dtype: torch.dtype = torch.float32) -> Case:
        labels = _shuffled_labels(generator, shots)
        weights = (2 * torch.randn(queries, len(labels), generator=generator)).softmax(1).to(dtype)
        return Case(says, (weights, labels, len(shots)))

    return [
        Case("the example on paper", (torch.tensor([[0.35, 0.29, 0.23, 0.13]]), torch.tensor([0, 1, 1, 0]), 2)),
        case("5 classes of 2 shots, rows shuffled", [2] * 5, 7),
        case("unequal shots: 1, 4 and 2", [1, 4, 2], 5),
        case("one shot each", [1, 1, 1, 1], 4),
        case("one query", [3, 1], 1),
        case("float64, unequal shots", [2, 1, 3], 4, torch.float64),
    ]


def _sums_to_one(answer: Callable, reference: Callable) -> str | None:
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    total = answer(weights, torch.tensor([1, 0, 1, 1]), 2).sum(1)
    if total.shape != (2,) or not torch.allclose(total, torch.ones(2), atol=1e-5):
        return (
            f"with shots 1 and 3 the probabilities of the two queries sum to {[round(t, 3) for t in total.tolist()]}."
        )
    return None


def _probabilities_first_met(attention: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([attention[:, labels == k].sum(1) for k in dict.fromkeys(labels.tolist())], dim=1)


def _probabilities_sorted_and_cut(attention: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Sorts the columns by label, drops what does not fill n_way equal parts, and cuts."""
    shots = len(labels) // n_way
    return attention[:, labels.argsort(stable=True)[: n_way * shots]].unflatten(1, (n_way, shots)).sum(2)


PROBABILITIES = Exercise(
    id="04.2",
    title="Class probabilities",
    reference=class_probabilities,
    cases=_probability_cases,
    gradient=(0,),
    properties=(Property("the probabilities of a query sum to one", _sums_to_one),),
    right=(_probabilities_loop, _probabilities_index_add, _probabilities_einsum, _probabilities_scatter),
    wrong=(
        Wrong(
            "mean of the class",
            lambda a, y, n: torch.stack([a[:, y == k].mean(1) for k in range(n)], dim=1),
            "the weights of a class are averaged, so that they no longer sum to one",
            "Equation 1 sums: `.sum(1)`.",
            also=(lambda a, y, n: torch.stack([(a * (y == k)).mean(1) for k in range(n)], dim=1),),
        ),
        Wrong(
            "mean, then divided",
            lambda a, y, n: F.normalize(torch.stack([a[:, y == k].mean(1) for k in range(n)], dim=1), p=1, dim=1),
            "the weights of a class are averaged and then made to sum to one: another rule as soon as shots differ",
            "Equation 1 sums the weights; a class with more shots has more votes.",
        ),
        Wrong(
            "largest weight",
            lambda a, y, n: torch.stack([a[:, y == k].amax(1) for k in range(n)], dim=1),
            "only the largest weight of each class counts, as in nearest neighbour",
            "Every support row has a vote: sum them.",
        ),
        Wrong(
            "winner takes all",
            lambda a, y, n: F.one_hot(y[a.argmax(1)], n).to(a),
            "the class of the most attended row gets everything",
            "Every support row has a vote, as large as its weight: sum them by class.",
        ),
        Wrong(
            "first row of a class",
            lambda a, y, n: torch.stack([a[:, int((y == k).nonzero()[0])] for k in range(n)], dim=1),
            "only the first support row of each class votes",
            "Every support row has a vote: sum over all columns with `labels == k`.",
        ),
        Wrong(
            "summed over the queries, too",
            lambda a, y, n: torch.stack([a[:, y == k].sum() for k in range(n)]).expand(len(a), n),
            "the sum runs over the queries as well, so that all of them get the same row",
            "Sum over the support only: `.sum(1)`.",
        ),
        Wrong(
            "majority of the sums",
            lambda a, y, n: F.one_hot(class_probabilities(a, y, n).argmax(1), n).to(a),
            "the winner is returned as a row of zeros with a single one, not the probabilities",
            "Return the sums themselves.",
        ),
        Wrong(
            "product",
            lambda a, y, n: torch.stack([a[:, y == k].prod(1) for k in range(n)], dim=1),
            "the weights of a class are multiplied, as if its rows were independent evidence",
            "Votes add up: `.sum(1)`.",
            also=(lambda a, y, n: F.normalize(torch.stack([a[:, y == k].prod(1) for k in range(n)], 1), p=1, dim=1),),
        ),
        Wrong(
            "logarithms",
            lambda a, y, n: class_probabilities(a, y, n).log(),
            "logarithms of the probabilities are returned",
            "Stop at the sums.",
            also=(lambda a, y, n: torch.stack([a[:, y == k].logsumexp(1) for k in range(n)], dim=1),),
        ),
        Wrong(
            "counted from 1",
            lambda a, y, n: torch.stack([a[:, y == k].sum(1) for k in range(1, n + 1)], dim=1),
            "slots are counted from 1: the columns are shifted, and the last is empty",
            "Slots are 0 to n_way − 1: `range(n_way)`.",
        ),
        Wrong(
            "reshape",
            lambda a, y, n: a.reshape(len(a), n, -1).sum(2),
            "the columns are cut into n_way equal parts without a look at the labels",
            "Rows come shuffled and shots may differ: let `labels == k` choose the columns.",
        ),
        Wrong(
            "sorted, then reshaped",
            lambda a, y, n: a[:, y.argsort(stable=True)].reshape(len(a), n, -1).sum(2),
            "the columns are sorted by label and then cut into equal parts",
            "Shots may differ: choose the columns of class k with `labels == k`.",
            also=(_probabilities_sorted_and_cut,),
        ),
        Wrong(
            "one label a column",
            lambda a, y, n: a.new_zeros(len(a), n).index_copy(1, y, a),
            "a later support row of a class overwrites an earlier one",
            "Add, do not assign: `index_add`, or a product with one-hot labels.",
        ),
        Wrong(
            "softmax again",
            lambda a, y, n: class_probabilities(a, y, n).softmax(1),
            "a softmax is taken of the sums, which are probabilities already",
            "Attention sums to one, so its sums by class do too: stop there.",
        ),
        Wrong(
            "order of first meeting",
            _probabilities_first_met,
            "column 0 belongs to the class that comes first in the support, not to slot 0",
            "Column k of the result is slot k: go through `range(n_way)`.",
        ),
        Wrong(
            "transposed",
            lambda a, y, n: class_probabilities(a, y, n).T,
            "the table is transposed: [n_way, M]",
            "A row for each query, a column for each class.",
        ),
        Wrong(
            "detached",
            lambda a, y, n: class_probabilities(a.detach(), y, n),
            "the probabilities are cut off from the graph",
            "No `.detach()`, no `no_grad`.",
        ),
    ),
    hints=(
        "A support row with label 3 votes for class 3. With how much?",
        "`labels == k` chooses the columns of class k; or write labels as one-hot rows [S, n_way] and multiply.",
        "`return attention @ F.one_hot(labels, n_way).to(attention.dtype)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 04.3 the bound


def surest(n_way: int, scale: float, lowest: float) -> float:
    """Returns the largest probability that one shot and cosines in lowest..1, times scale, can give the right class."""
    return 1 / (1 + (n_way - 1) * math.exp(-scale * (1 - lowest)))


def _surest_softmax(n_way: int, scale: float, lowest: float) -> float:
    logits = scale * torch.tensor([1.0] + [lowest] * (n_way - 1), dtype=torch.float64)
    return float(logits.softmax(0)[0])


def _surest_logarithms(n_way: int, scale: float, lowest: float) -> float:
    gap = math.log(n_way - 1) - scale * (1 - lowest)
    return math.exp(-math.log1p(math.exp(gap)))


def _surest_sum(n_way: int, scale: float, lowest: float) -> float:
    right, wrong = 0.0, scale * (lowest - 1)  # the largest is subtracted
    return math.exp(right) / (math.exp(right) + sum(math.exp(wrong) for _ in range(n_way - 1)))


def _surest_logistic(n_way: int, scale: float, lowest: float) -> float:
    return torch.sigmoid(torch.tensor(scale * (1 - lowest) - math.log(n_way - 1))).item()


def _large_powers(n_way: int, scale: float, lowest: float) -> float:
    """Writes the softmax as it stands in the text, which overflows from scale 710 on."""
    return math.exp(scale) / (math.exp(scale) + (n_way - 1) * math.exp(scale * lowest))


def _overflow_caught(n_way: int, scale: float, lowest: float) -> float:
    try:
        return _large_powers(n_way, scale, lowest)
    except OverflowError:
        return 1.0


def _surest_cases(generator: Generator) -> list[Case]:
    return [
        Case("2 ways, scale 1, cosines from -1", (2, 1.0, -1.0)),
        Case("20 ways, scale 1, cosines from -1", (20, 1.0, -1.0)),
        Case("20 ways, scale 1, cosines from 0", (20, 1.0, 0.0)),
        Case("5 ways, scale 3, cosines from 0.5", (5, 3.0, 0.5)),
        Case("scale 0: no attention to anything", (10, 0.0, -1.0)),
        Case("20 ways, scale 1024, cosines from 0.99609375", (20, 1024.0, 0.99609375)),
    ]


def _huge_scale(answer: Callable, reference: Callable) -> str | None:
    try:
        found = answer(20, 2000.0, -1.0)
    except OverflowError:
        return "a scale of 2000 ended in an OverflowError: e to the power of 2000 or more is beyond all floats."
    return None if abs(found - 1) < 1e-9 else f"a scale of 2000 gave {found}; it must give 1."


BOUND = Exercise(
    id="04.3",
    title="How sure can cosine attention be?",
    reference=surest,
    cases=_surest_cases,
    properties=(Property("a very large scale gives 1", _huge_scale),),
    right=(_surest_softmax, _surest_logarithms, _surest_sum, _surest_logistic),
    wrong=(
        Wrong(
            "no scale",
            lambda n, s, low: surest(n, 1.0, low),
            "the scale is not used",
            "Both cosines are multiplied by `scale` before the exponential.",
        ),
        Wrong(
            "temperature",
            lambda n, s, low: surest(n, 1 / s if s else 0.0, low),
            "the cosines are divided by the scale: that is what a temperature does",
            "Multiply by `scale`.",
        ),
        Wrong(
            "all ways are wrong ways",
            lambda n, s, low: 1 / (1 + n * math.exp(-s * (1 - low))),
            "all N classes are counted as wrong ones",
            "One of the N is the right class: N − 1 are wrong.",
        ),
        Wrong(
            "n - 2",
            lambda n, s, low: 1 / (1 + (n - 2) * math.exp(-s * (1 - low))),
            "only N − 2 classes are counted as wrong ones",
            "One of the N is the right class: N − 1 are wrong.",
        ),
        Wrong(
            "bracket around n - 1",
            lambda n, s, low: 1 / (1 + n - 1 * math.exp(-s * (1 - low))),
            "in `1 + n_way - 1 * x` only the last 1 is multiplied by the exponential: a bracket is missing",
            "Put n_way − 1 into brackets: `1 + (n_way - 1) * ...`.",
        ),
        Wrong(
            "bracket around the denominator",
            lambda n, s, low: 1 / 1 + (n - 1) * math.exp(-s * (1 - low)),
            "`1 / 1 + ...` divides by the 1 alone: a bracket is missing",
            "Put the whole denominator into brackets: `1 / (1 + ...)`.",
        ),
        Wrong(
            "bracket in the exponent",
            lambda n, s, low: 1 / (1 + (n - 1) * math.exp(-s * 1 - low)),
            "in `-scale * 1 - lowest` only the 1 is multiplied by the scale: a bracket is missing",
            "Put the gap into brackets: `-scale * (1 - lowest)`.",
        ),
        Wrong(
            "the 1 multiplied, too",
            lambda n, s, low: 1 / (n * math.exp(-s * (1 - low))),
            "the exponential multiplies the right row's 1 as well, as in `(1 + n_way - 1) * x`",
            "Only the N − 1 wrong rows carry the exponential: `1 + (n_way - 1) * ...`.",
        ),
        Wrong(
            "a wrong row",
            lambda n, s, low: surest(n, s, low) * math.exp(-s * (1 - low)),
            "this is what a *wrong* row gets",
            "The right row has a 1 in the numerator.",
        ),
        Wrong(
            "negative cosines cut off",
            lambda n, s, low: surest(n, s, max(low, 0.0)),
            "a negative `lowest` is taken for 0",
            "`lowest` is what the features allow; with both signs it is −1, and the gap is 2.",
        ),
        Wrong(
            "absolute value",
            lambda n, s, low: 1 / (1 + (n - 1) * math.exp(-s * (1 - abs(low)))),
            "the sign of `lowest` is dropped, so that −1 counts as 1 and leaves no gap",
            "Keep the sign: the gap is 1 − lowest, which is 2 for −1.",
        ),
        Wrong(
            "lowest ignored",
            lambda n, s, low: surest(n, s, -1.0),
            "the lowest cosine is taken to be −1 whatever `lowest` says",
            "The gap between the best and the worst cosine is 1 − lowest.",
        ),
        Wrong(
            "wrong rows at zero",
            lambda n, s, low: surest(n, s, 0.0),
            "the wrong rows are taken to have cosine 0 whatever `lowest` says",
            "The wrong rows have cosine `lowest`: the gap is 1 − lowest.",
        ),
        Wrong(
            "without exponentials",
            lambda n, s, low: 1 / (1 + (n - 1) * max(0.0, 1 - s * (1 - low))),
            "the exponential is left out",
            "Attention compares exponentials: e to the power of minus the scaled gap.",
        ),
        Wrong(
            "sign",
            lambda n, s, low: 1 / (1 + (n - 1) * math.exp(s * (1 - low))),
            "the sign in the exponent is turned: this is the *smallest* probability",
            "A larger gap must make the wrong rows count less: e to the power of *minus* the gap.",
            also=(lambda n, s, low: 1 / (1 + (n - 1) * math.exp(min(700.0, s * (1 - low)))),),
        ),
        Wrong(
            "one plus lowest",
            lambda n, s, low: 1 / (1 + (n - 1) * math.exp(-s * (1 + low))),
            "the gap is taken to be 1 + lowest, which is 0 when lowest is −1",
            "From `lowest` up to 1 the gap is 1 − lowest.",
        ),
        Wrong(
            "large exponentials",
            _large_powers,
            "e is raised to the power of the scale itself, which overflows",
            "Divide numerator and denominator by e^scale: only the gap 1 − lowest stays.",
        ),
        Wrong(
            "overflow caught",
            _overflow_caught,
            "an overflow is answered by 1, though a large scale with a tiny gap is far from sure",
            "Divide numerator and denominator by e^scale: only the gap 1 − lowest stays, and nothing overflows.",
        ),
        Wrong(
            "scale capped",
            lambda n, s, low: _large_powers(n, min(s, 700.0), low),
            "the scale is capped: beyond the cap the answer no longer depends on it",
            "Divide numerator and denominator by e^scale: only the gap 1 − lowest stays, and nothing overflows.",
            also=tuple(
                (lambda n, s, low, cap=cap: _large_powers(n, min(s, cap), low)) for cap in (709.0, 500.0, 100.0)
            ),
        ),
        Wrong(
            "one wrong row",
            lambda n, s, low: 1 / (1 + math.exp(-s * (1 - low))),
            "a single wrong row stands against the right one, whatever the number of ways",
            "All N − 1 wrong rows take a share: multiply their exponential by N − 1.",
        ),
        Wrong(
            "lowest not scaled",
            lambda n, s, low: 1 / (1 + (n - 1) * math.exp(-(s - low))),
            "only the cosine 1 is multiplied by the scale, `lowest` is not",
            "Both cosines are multiplied: the gap is scale * (1 − lowest).",
        ),
        Wrong(
            "percent",
            lambda n, s, low: 100 * surest(n, s, low),
            "percent are returned",
            "Return a probability, between 0 and 1.",
        ),
        Wrong(
            "guessing",
            lambda n, s, low: 1 / n,
            "this is guessing: neither scale nor `lowest` counts",
            "Put the right row at cosine 1, the N − 1 others at `lowest`, and take a softmax of both times the scale.",
        ),
        Wrong(
            "the loss",
            lambda n, s, low: -math.log(max(surest(n, s, low), 1e-300)),
            "minus the logarithm is returned: the smallest loss, not the largest probability",
            "Return the probability.",
        ),
    ),
    hints=(
        "When is the right class surest? Put the right row as high as it can be, and all others as low as they can be.",
        "Right row: cosine 1. The N − 1 others: cosine `lowest`. Only the gap, 1 − lowest, matters to a softmax.",
        "`return 1 / (1 + (n_way - 1) * math.exp(-scale * (1 - lowest)))`",
    ),
)

# ---------------------------------------------------------------------------------------------- 04.4 the loss in logarithms


def matching_loss(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    """Returns the mean negative log-probability of the right class. similarity [M, S], labels [S], query_y [M] -> scalar."""
    return F.nll_loss(class_log_probabilities(similarity, labels, n_way), query_y)


def _class_evidence(similarity: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Returns the log-sum-exp of the similarities of each class [M, n_way], without the common denominator."""
    return torch.stack([similarity[:, labels == k].logsumexp(1) for k in range(n_way)], dim=1)


def _loss_cross_entropy(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    return F.cross_entropy(_class_evidence(similarity, labels, n_way), query_y)


def _loss_masked(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    mine = labels == query_y[:, None]  # [M, S]
    right = similarity.masked_fill(~mine, -torch.inf).logsumexp(1)
    return (similarity.logsumexp(1) - right).mean()


def _loss_one_hot(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    log_members = F.one_hot(labels, n_way).T.to(similarity).log()  # 0 for a member, minus infinity for a stranger
    log_p = (similarity.log_softmax(1)[:, None] + log_members).logsumexp(2)
    return -log_p[torch.arange(len(query_y)), query_y].mean()


def _loss_query_by_query(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    losses = [row.logsumexp(0) - row[labels == k].logsumexp(0) for row, k in zip(similarity, query_y, strict=True)]
    return torch.stack(losses).mean()


def _loss_of_classes(join: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Returns a loss that joins the similarities of a class [M, shots] -> [M] before any softmax."""

    def loss(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
        joined = [join(similarity[:, labels == k]) for k in range(n_way)]
        return F.cross_entropy(torch.stack(joined, dim=1), query_y)

    return loss


def _loss_masked_with_zero(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    log_attention = similarity.log_softmax(1)
    log_p = [(log_attention * (labels == k)).logsumexp(1) for k in range(n_way)]
    return F.nll_loss(torch.stack(log_p, dim=1), query_y)


def _loss_without_rivals(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    own = similarity.masked_fill(labels != query_y[:, None], -1e9)
    return -own.log_softmax(1).logsumexp(1).mean()


def _loss_equal_parts(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    parts = similarity.log_softmax(1).tensor_split(n_way, dim=1)
    return F.nll_loss(torch.stack([part.logsumexp(1) for part in parts], dim=1), query_y)


def _loss_with(tail: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Returns a loss that differs in its last step, tail(probabilities [M, N], labels [M])."""

    def loss(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
        return tail(class_probabilities(similarity.softmax(1), labels, n_way), query_y)

    return loss


def _picked(table: Tensor, query_y: Tensor) -> Tensor:
    return table.gather(1, query_y[:, None])[:, 0]


def _loss_mean_of_logs(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    log_attention = similarity.log_softmax(1)
    means = torch.stack([log_attention[:, labels == k].mean(1) for k in range(n_way)], dim=1)
    return -_picked(means, query_y).mean()


def _loss_sum_of_logs(similarity: Tensor, labels: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    log_attention = similarity.log_softmax(1)
    sums = torch.stack([log_attention[:, labels == k].sum(1) for k in range(n_way)], dim=1)
    return -_picked(sums, query_y).mean()


def _loss_cases(generator: Generator) -> list[Case]:
    def case(says: str, shots: list[int], queries: int) -> Case:
        labels = _shuffled_labels(generator, shots)
        similarity = 2 * torch.randn(queries, len(labels), generator=generator)
        return Case(says, (similarity, labels, torch.randint(len(shots), (queries,), generator=generator), len(shots)))

    unequal = case("unequal shots: 1, 4 and 2", [1, 4, 2], 6)
    paper = torch.tensor([[1.0, 0.8, 0.6, 0.0]])
    return [
        Case("the example on paper", (paper, torch.tensor([0, 1, 1, 0]), torch.tensor([0]), 2)),
        case("5-way 2-shot, 10 queries, rows shuffled", [2] * 5, 10),
        unequal,
        case("one shot each, as many queries as classes", [1, 1, 1, 1], 4),
        Case("float64", (unequal.args[0].double(), *unequal.args[1:])),
        Case("a query 20 below the best", (torch.tensor([[-20.0, 0.0]]), torch.tensor([0, 1]), torch.tensor([0]), 2)),
    ]


# So far that the weights are exactly 0 in float64, too.
_FAR = torch.tensor([[-1000.0, -900.0, 0.0]])  # the first two rows belong to the right class


def _survives_underflow(answer: Callable, reference: Callable) -> str | None:
    loss = float(answer(_FAR.clone(), torch.tensor([0, 0, 1]), torch.tensor([0]), 2))
    if not math.isfinite(loss):
        return f"a right class with similarities 900 below the best gave a loss of {loss}; it is 900."
    return (
        None
        if abs(loss - 900) < 0.01
        else f"a right class with similarities 900 below the best gave {loss:.4g}, not 900."
    )


def _teaches_far_queries(answer: Callable, reference: Callable) -> str | None:
    similarity = _FAR.clone().requires_grad_()
    loss = answer(similarity, torch.tensor([0, 0, 1]), torch.tensor([0]), 2)
    slope = torch.autograd.grad(loss, similarity)[0] if loss.requires_grad else torch.zeros(1, 3)
    if torch.allclose(slope, torch.tensor([[0.0, -1.0, 1.0]]), atol=1e-3):
        return None
    return (
        "for the same query the gradient should be 0, -1 and 1; it is " + f"{[round(g, 3) for g in slope[0].tolist()]}."
    )


LOSS = Exercise(
    id="04.4",
    title="The loss, in logarithms",
    reference=matching_loss,
    cases=_loss_cases,
    gradient=(0,),
    properties=(
        Property("a query far from its class has a large, finite loss", _survives_underflow),
        Property("and it is the query that teaches most", _teaches_far_queries),
    ),
    right=(_loss_cross_entropy, _loss_masked, _loss_one_hot, _loss_query_by_query),
    wrong=(
        Wrong(
            "log of a rounded zero",
            _loss_with(lambda p, y: -_picked(p, y).log().mean()),
            "the logarithm is taken of a probability that has underflowed to exactly 0",
            "Start from `log_softmax` and join rows of a class with `logsumexp`: no probability is ever formed.",
        ),
        Wrong(
            "clamped",
            _loss_with(lambda p, y: -_picked(p, y).clamp_min(1e-8).log().mean()),
            "the probability is clamped: the loss is finite, but the queries that are most wrong get no gradient at all",
            "Start from `log_softmax` and join rows of a class with `logsumexp`.",
            also=tuple(
                _loss_with(lambda p, y, low=low: -_picked(p, y).clamp_min(low).log().mean())
                for low in (1e-6, 1e-7, 1e-10, 1e-12, 1e-38)
            ),
        ),
        Wrong(
            "a small number added",
            _loss_with(lambda p, y: -(_picked(p, y) + 1e-8).log().mean()),
            "a small number is added to the probability: every loss is a little off, and the worst queries get no gradient",
            "Start from `log_softmax` and join rows of a class with `logsumexp`.",
            also=tuple(
                _loss_with(lambda p, y, extra=extra: -(_picked(p, y) + extra).log().mean())
                for extra in (1e-6, 1e-7, 1e-10, 1e-12)
            ),
        ),
        Wrong(
            "logarithms clamped",
            lambda s, y, q, n: -_picked(class_log_probabilities(s, y, n).clamp_min(-100), q).mean(),
            "the log-probability is clamped: beyond the clamp the loss stands still, and there is no gradient",
            "`log_softmax` and `logsumexp` are finite by themselves: leave the clamp out.",
            also=(lambda s, y, q, n: -_picked(class_log_probabilities(s, y, n).clamp_min(-50), q).mean(),),
        ),
        Wrong(
            "own rows pooled",
            lambda s, y, q, n: -s.log_softmax(1)[y == q[:, None]].mean(),
            "the logarithms of single weights are averaged over all rows of the right classes: no class is ever summed",
            "First one `logsumexp` for each query, over the rows of its class; then the mean over the queries.",
        ),
        Wrong(
            "columns taken for classes",
            lambda s, y, q, n: F.cross_entropy(s, q),
            "the columns of `similarity` are taken for classes: they are support rows, in any order",
            "Row i of the support has class `labels[i]`: join the columns of each class first.",
        ),
        Wrong(
            "masked with 0",
            _loss_masked_with_zero,
            "rows of other classes are multiplied by 0: a logarithm of 0 is a weight of 1, so they count most",
            "Leave them out, `log_attention[:, labels == k]`, or mask them with `-torch.inf`.",
        ),
        Wrong(
            "mean similarity",
            _loss_of_classes(lambda part: part.mean(1)),
            "the similarities of a class are averaged, or summed, before any exponential",
            "Attention comes first, one weight for each row; then the weights are summed: `logsumexp`, not `mean` or `sum`.",
            also=(_loss_of_classes(lambda part: part.sum(1)),),
        ),
        Wrong(
            "mean weight",
            lambda s, y, q, n: F.nll_loss(
                class_log_probabilities(s, y, n) - torch.bincount(y, minlength=n).to(s).log(), q
            ),
            "the weights of a class are averaged, so that they no longer sum to one over the classes",
            "Sum the weights of a class: `logsumexp` alone.",
        ),
        Wrong(
            "mean exponential",
            _loss_of_classes(lambda part: part.logsumexp(1) - math.log(part.shape[1])),
            "the exponentials of a class are averaged, so that a class with more shots has no more votes",
            "Equation 1 sums: `logsumexp` alone.",
        ),
        Wrong(
            "masked before the softmax",
            _loss_without_rivals,
            "rows of other classes are masked *before* the softmax, so that the right class has no rivals and the loss is 0",
            "First the softmax over the whole support, then leave the other classes out.",
        ),
        Wrong(
            "averaged over queries and classes",
            lambda s, y, q, n: matching_loss(s, y, q, n) / n,
            "the sum is divided by queries times classes, as a mean over a masked table does",
            "Only one class counts for each query: divide by the number of queries.",
        ),
        Wrong(
            "logarithm of the mean",
            lambda s, y, q, n: math.log(len(q)) - _picked(class_log_probabilities(s, y, n), q).logsumexp(0),
            "the probabilities are averaged over the queries before the logarithm",
            "Take the logarithm for each query, then the mean.",
        ),
        Wrong(
            "no logarithm",
            _loss_with(lambda p, y: -_picked(p, y).mean()),
            "the probability itself is averaged, without a logarithm",
            "The loss is the mean of −log p.",
            also=(_loss_with(lambda p, y: 1 - _picked(p, y).mean()),),
        ),
        Wrong(
            "equal parts",
            _loss_equal_parts,
            "the support is cut into n_way parts without a look at its labels",
            "Choose the columns of class k with `labels == k`.",
        ),
        Wrong(
            "mean of logarithms",
            _loss_mean_of_logs,
            "the *logarithms* of the weights are averaged over a class, so that one far row spoils it",
            "Sum the weights, then take the logarithm: `logsumexp` does both.",
        ),
        Wrong(
            "sum of logarithms",
            _loss_sum_of_logs,
            "the *logarithms* of the weights are summed over a class: that is the product of the weights",
            "Sum the weights, then take the logarithm: `logsumexp` does both.",
        ),
        Wrong(
            "no denominator",
            lambda s, y, q, n: -_picked(_class_evidence(s, y, n), q).mean(),
            "the similarities of the class are joined, but the other classes are missing: nothing is normalised",
            "Take `log_softmax` over the whole support first, or hand the joined values to `F.cross_entropy`.",
        ),
        Wrong(
            "nearest row",
            lambda s, y, q, n: (
                -_picked(torch.stack([s.log_softmax(1)[:, y == k].amax(1) for k in range(n)], dim=1), q).mean()
            ),
            "only the best row of a class counts",
            "`logsumexp` over the rows of a class, not `amax`.",
            also=(_loss_of_classes(lambda part: part.amax(1)),),
        ),
        Wrong(
            "softmax again",
            _loss_with(lambda p, y: F.cross_entropy(p, y)),
            "probabilities go into `F.cross_entropy`, which takes a softmax again",
            "Use `F.nll_loss` on log-probabilities.",
        ),
        Wrong(
            "columns of all queries",
            lambda s, y, q, n: -class_log_probabilities(s, y, n)[:, q].mean(),
            "`log_p[:, query_y]` takes, for every query, the classes of *all* queries",
            "One entry a row: `log_p[torch.arange(len(query_y)), query_y]`, or `F.nll_loss`.",
        ),
        Wrong(
            "no minus",
            lambda s, y, q, n: -matching_loss(s, y, q, n),
            "the minus of the *negative* log-probability is missing",
            "The loss is never below zero: put a minus in front, or use `F.nll_loss`.",
        ),
        Wrong(
            "summed over queries",
            lambda s, y, q, n: matching_loss(s, y, q, n) * len(q),
            "the queries are summed: the loss grows with their number",
            "Average over the queries.",
        ),
        Wrong(
            "over the queries",
            lambda s, y, q, n: (
                -_picked(torch.stack([s.log_softmax(0)[:, y == k].logsumexp(1) for k in range(n)], dim=1), q).mean()
            ),
            "the softmax runs over the queries: dim=0",
            "Every query shares its attention over the support: dim=1.",
        ),
    ),
    hints=(
        "The logarithm of a sum of weights is wanted, and the weights may be too small for a float. Never leave the logarithms.",
        "`similarity.log_softmax(1)` gives log-weights; `.logsumexp(1)` over the columns of class k is log p(k).",
        "`log_p = torch.stack([log_a[:, labels == k].logsumexp(1) for k in range(n_way)], 1)`, then `F.nll_loss(log_p, query_y)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 04.5 the wrong axis

Attend = Callable[[Tensor, Tensor], Tensor]


def exposes_axis(attend: Attend, query: Tensor, support: Tensor) -> bool:
    """Returns True if the weights of some query do not sum to one, or change with the other queries."""
    together = attend(query, support)
    alone = torch.cat([attend(query[j : j + 1], support) for j in range(len(query))])
    one = torch.allclose(together.sum(1), torch.ones(len(query)), atol=1e-4)
    return not (one and torch.allclose(together, alone, atol=1e-4))


def _axis_by_noise(attend: Attend, query: Tensor, support: Tensor) -> bool:
    """Detects a wrong axis by replacing all queries but one."""
    before, foreign = attend(query, support), query.flip(1) * 3 + 1
    if float((before.sum(1) - 1).abs().max()) > 1e-3:
        return True
    for j in range(len(query)):
        changed = foreign.clone()
        changed[j] = query[j]
        if float((attend(changed, support)[j] - before[j]).abs().max()) > 1e-3:
            return True
    return False


def _axis_by_halves(attend: Attend, query: Tensor, support: Tensor) -> bool:
    whole, half = attend(query, support), len(query) // 2
    parts = torch.cat([attend(query[:half], support), attend(query[half:], support)])
    sound = torch.allclose(whole.sum(1), torch.ones(len(query)), atol=1e-4)
    return not sound or float((whole - parts).abs().max()) > 1e-3


def _axis_by_loops(attend: Attend, query: Tensor, support: Tensor) -> bool:
    table = attend(query, support).tolist()
    for j, row in enumerate(table):
        alone = attend(query[j].reshape(1, -1), support)[0].tolist()
        if abs(sum(row) - 1) > 1e-4 or any(abs(a - b) > 1e-4 for a, b in zip(row, alone, strict=True)):
            return True
    return False


def _axis_as_tensor(attend: Attend, query: Tensor, support: Tensor) -> Tensor:
    together = attend(query, support)
    alone = torch.stack([attend(row[None], support)[0] for row in query])
    return ((together - alone).abs() > 1e-4).any() | ((together.sum(1) - 1).abs() > 1e-4).any()


def _axis_with_copies(attend: Attend, query: Tensor, support: Tensor) -> bool:
    """Detects a wrong axis by comparing each query with a table that holds that query alone, several times."""
    together = attend(query, support)
    for row, weights in zip(query, together, strict=True):
        copies, single = attend(row.repeat(3, 1), support), attend(row.unsqueeze(0), support)
        if max(float((single[0] - weights).abs().max()), float((copies - single).abs().max())) > 1e-4:
            return True
    return bool(abs(together.sum(1) - 1).max() > 1e-4)


def _axis_judged_by(differ: Callable[[Tensor, Tensor], bool]) -> Callable[..., bool]:
    """Returns a detector that makes the right experiment and decides by differ(weights together, weights alone)."""

    def detector(attend: Attend, query: Tensor, support: Tensor) -> bool:
        alone = [attend(query[j : j + 1], support) for j in range(len(query))]
        return differ(attend(query, support), torch.cat(alone))

    return detector


def _off_one(weights: Tensor, tolerance: float = 1e-4) -> bool:
    return not torch.allclose(weights.sum(1), torch.ones(len(weights)), atol=tolerance)


def _apart(a: Tensor, b: Tensor) -> bool:
    return not torch.allclose(a, b, atol=1e-4)


def _attends(share: Callable[[Tensor], Tensor], likeness: Callable[[Tensor, Tensor], Tensor] = _cosines) -> Attend:
    """Returns the attention share(10 * likeness), where likeness is [M, S]."""
    return lambda query, support: share(10 * likeness(query, support))


def _rounds_differently(query: Tensor, support: Tensor) -> Tensor:
    """Attends rightly, by one formula for a single query and by another for several, which differ in the last digits only."""
    if len(query) == 1:
        return (10 * _cosines(query, support)).softmax(1)
    return _attention_by_hand(10 * F.cosine_similarity(query[:, None], support, dim=-1))


def _axis_then_rows(similarity: Tensor) -> Tensor:
    """Takes the softmax over the queries, then divides so that each row sums to one."""
    weights = similarity.softmax(0)
    return weights / weights.sum(1, keepdim=True)


def _partners(query: Tensor, support: Tensor) -> Tensor:
    """Mixes each query with its partner, 0 with 1 and 2 with 3, so that both halves agree with the whole."""
    partner = (torch.arange(len(query)) ^ 1).clamp(max=len(query) - 1)
    return (10 * _cosines(query + 2 * query[partner], support)).softmax(1)


def _third(query: Tensor, support: Tensor) -> Tensor:
    """Lets a single query see another one: the third sees the first."""
    seen = query.clone()
    if len(query) > 2:
        seen[2] = query[2] + 2 * query[0]
    return (10 * _cosines(seen, support)).softmax(1)


def _uneven(query: Tensor, support: Tensor) -> Tensor:
    """Gives queries that look one way a little too much and others too little, by 0.5 %."""
    side = torch.where(query[:, :1] > query[:, 1:2], 1.0, -1.0)
    return (10 * _cosines(query, support)).softmax(1) * (1 + 0.005 * side)


def _axis_cases(generator: Generator) -> list[Case]:
    support = torch.randn(4, 5, generator=generator)
    query = support[[0, 1, 2, 3, 0, 1]] + torch.randn(6, 5, generator=generator)

    def centred(query: Tensor, support: Tensor) -> Tensor:
        return (10 * _cosines(query - query.mean(0), support)).softmax(1)

    def little(query: Tensor, support: Tensor) -> Tensor:
        """Lets the mean of the queries shift a little attention, so that the row with the most attention stays the same."""
        return (10 * _cosines(query, support) + 0.05 * _cosines(query.mean(0, keepdim=True), support)).softmax(1)

    def mixed(query: Tensor, support: Tensor) -> Tensor:
        """Mixes each query with the one before it, so that only the first is judged by itself."""
        before = torch.cat([torch.zeros_like(query[:1]), query[:-1]])
        return (10 * _cosines(query + 2 * before, support)).softmax(1)

    def mixed_after(query: Tensor, support: Tensor) -> Tensor:
        """Mixes each query with the one after it, so that only the last is judged by itself."""
        after = torch.cat([query[1:], torch.zeros_like(query[:1])])
        return (10 * _cosines(query + 2 * after, support)).softmax(1)

    def case(says: str, attend: Attend, queries: Tensor = query) -> Case:
        return Case(says, (attend, queries, support))

    balanced = torch.cat([query[:3], query[:3, [1, 0, 2, 3, 4]]])  # as many of one kind as of the other

    return [
        case("a right one: softmax over the support", _attends(lambda s: s.softmax(1))),
        case("a right one: as many queries as support rows", _attends(lambda s: s.softmax(1)), query[:4]),
        case("a right one on squared distances", _attends(lambda s: (-s / 10).softmax(1), squared_distances)),
        case("a right one whose last digits depend on the number of queries", _rounds_differently),
        case("equal weights for all: useless, but lawful", _attends(lambda s: (0 * s).softmax(1))),
        case("equal weights, as many queries as support rows", _attends(lambda s: (0 * s).softmax(1)), query[:4]),
        case("softmax over the queries", _attends(lambda s: s.softmax(0))),
        case("softmax over the queries, as many of them as support rows", _attends(lambda s: s.softmax(0)), query[:4]),
        case("softmax over the queries, then rows divided by their sums", _attends(_axis_then_rows)),
        case("one softmax over the whole table", _attends(lambda s: s.flatten().softmax(0).view_as(s))),
        case("every weight between 0 and 1 by itself", _attends(torch.sigmoid)),
        case("the queries are centred by their mean first", centred),
        case("the mean of the queries shifts a little attention", little),
        case("each query is mixed with the one before it", mixed),
        case("each query is mixed with the one after it", mixed_after),
        case("each query is mixed with its partner: 0 with 1, 2 with 3", _partners, query[:4]),
        case("a single query sees another one", _third),
        case("half of the weights sum to 1.005, the others to 0.995", _uneven, balanced),
    ]


AXIS = Exercise(
    id="04.5",
    title="Bug hunt: attention over the wrong axis",
    reference=exposes_axis,
    cases=_axis_cases,
    right=(_axis_by_noise, _axis_as_tensor, _axis_with_copies, _axis_by_loops),
    wrong=(
        Wrong(
            "sums only",
            lambda f, q, s: _off_one(f(q, s)),
            "only the sums are looked at: weights that are divided afterwards sum to one and still see other queries",
            "Test both laws: ask for each query alone, too.",
        ),
        Wrong(
            "company only",
            _axis_judged_by(_apart),
            "only the company of a query is tested: weights that never sum to one slip through",
            "Test both laws: each row of `[M, S]` must sum to one.",
        ),
        Wrong(
            "columns",
            _axis_judged_by(lambda a, b: _off_one(a.T) or _apart(a, b)),
            "the *columns* are asked to sum to one: right attention never does that",
            "A query is a row: `.sum(1)`.",
        ),
        Wrong(
            "columns only",
            lambda f, q, s: _off_one(f(q, s).T),
            "the *columns* are asked to sum to one, and no query is asked alone",
            "A query is a row: `.sum(1)`. And test the second law, too.",
        ),
        Wrong(
            "total only",
            lambda f, q, s: abs(float(f(q, s).sum()) - len(q)) > 1e-3,
            "only the total of the table is looked at",
            "Test each row, and each query alone.",
        ),
        Wrong(
            "mean of the sums",
            _axis_judged_by(lambda a, b: abs(float(a.sum(1).mean()) - 1) > 1e-4 or _apart(a, b)),
            "only the mean (or the total) of the row sums is tested: rows above one and rows below it cancel",
            "Test the sum of each row by itself.",
        ),
        Wrong(
            "both laws at once",
            _axis_judged_by(lambda a, b: _off_one(a) and _apart(a, b)),
            "the alarm rings only where *both* laws are broken",
            "One broken law is enough: `or`.",
        ),
        Wrong(
            "last query only",
            lambda f, q, s: _off_one(f(q, s)) or _apart(f(q, s)[-1:], f(q[-1:], s)),
            "only the last query is asked alone: the others may be the ones that change",
            "Ask for every query alone, in a loop.",
        ),
        Wrong(
            "first and last query only",
            lambda f, q, s: _off_one(f(q, s)) or _apart(f(q, s)[:1], f(q[:1], s)) or _apart(f(q, s)[-1:], f(q[-1:], s)),
            "only the first and the last query are asked alone: one in the middle may be the one that changes",
            "Ask for every query alone, in a loop.",
        ),
        Wrong(
            "halves",
            _axis_by_halves,
            "two halves are compared with the whole: queries of the same half may still see each other",
            "Ask for every query alone, in a loop.",
        ),
        Wrong(
            "alone only",
            lambda f, q, s: any(_off_one(f(q[j : j + 1], s)) for j in range(len(q))),
            "each query is asked alone, but what it gets in company is never looked at",
            "Compare its weights alone with its weights in company.",
        ),
        Wrong(
            "most attended row only",
            _axis_judged_by(lambda a, b: _off_one(a) or not torch.equal(a.argmax(1), b.argmax(1))),
            "only the most attended rows are compared: a small dependence slips through",
            "Compare the weights themselves.",
        ),
        Wrong(
            "exactly equal",
            _axis_judged_by(lambda a, b: _off_one(a) or not torch.equal(a, b)),
            "weights are compared to the last digit: rounding rings the alarm",
            "`torch.allclose` with `atol=1e-4`.",
        ),
        Wrong(
            "shuffled",
            lambda f, q, s: _off_one(f(q, s)) or _apart(f(q, s), f(q.flip(0), s).flip(0)),
            "the queries are only put in another order: a sum over all queries does not notice",
            "Change *which* queries are there: ask for each one alone.",
        ),
        Wrong(
            "doubled",
            lambda f, q, s: _off_one(f(q, s)) or _apart(f(q, s), f(torch.cat([q, q]), s)[: len(q)]),
            "the queries are only doubled: their mean stays, and most of the company of a query does, too",
            "Change *which* queries are there: ask for each one alone.",
        ),
        Wrong(
            "first query only",
            lambda f, q, s: _off_one(f(q, s)) or _apart(f(q, s)[:1], f(q[:1], s)),
            "only the first query is asked alone: the others may be the ones that change",
            "Ask for every query alone, in a loop.",
        ),
        Wrong(
            "first query only, no sums",
            lambda f, q, s: _apart(f(q, s)[:1], f(q[:1], s)),
            "the sums are not tested, and only the first query is asked alone",
            "Test both laws, for every query: the sums of all rows, then each query alone.",
        ),
        Wrong(
            "turned round",
            lambda f, q, s: not exposes_axis(f, q, s),
            "the answer is turned round: True stands where all is well",
            "`torch.allclose` is True when all is well: put a `not` in front.",
        ),
        Wrong(
            "support removed",
            lambda f, q, s: _off_one(f(q, s)) or _apart(f(q, s)[:, :-1], f(q, s[:-1])),
            "a *support* row is removed: attention must then change, so the alarm rings always",
            "Leave the support alone; change the company of a query.",
        ),
    ),
    hints=(
        "Two laws hold for every query: its weights sum to one, and other queries do not touch them.",
        "Compare `attend(query, support)` with the joined answers to `query[j:j+1]`, and look at `.sum(1)`.",
        "`not torch.allclose(w, alone, atol=1e-4) or not torch.allclose(w.sum(1), torch.ones(len(w)), atol=1e-4)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 04.6 flat attention


def _friendliest(query_like: Callable[[Tensor], Tensor], ways: int = 20, length: float = 5.0) -> tuple[Tensor, Tensor]:
    """Returns one query [1, 2] and support rows [ways, 2]: the query itself, then copies of query_like(query)."""
    query = torch.tensor([[length, 0.0]])
    return query, torch.cat([query, query_like(query).expand(ways - 1, 2)])


def exposes_flat(attend: Attend) -> bool:
    """Returns True if not even a copy of the query among 19 opposite rows gets half of the attention."""
    query, support = _friendliest(torch.neg)
    return float(attend(query, support)[0, 0]) < 0.5


def _flat_in_four_dimensions(attend: Attend) -> bool:
    direction = torch.tensor([1.0, -2.0, 0.5, 3.0])
    support = 4 * torch.stack([direction] + [-direction] * 19)
    return bool(attend(support[:1], support)[:, 0] < 0.5)


def _flat_by_many_queries(attend: Attend) -> bool:
    """Detects flat attention with several queries, each with the support that favours it, by the largest weight."""
    generator = torch.Generator().manual_seed(0)
    best = 0.0
    for point in torch.randn(5, 8, generator=generator):
        support = 6 * torch.cat([point[None], -point.expand(19, 8)])
        best = max(best, float(attend(support[:1], support)[0, 0]))
    return best <= 0.5


def _flat_of_all_twins(attend: Attend) -> bool:
    """Detects flat attention with the twin at the end of the support, and two equal queries."""
    query = torch.full((2, 3), 7.0)
    return not bool((attend(query, torch.cat([-query[:1].repeat(19, 1), query[:1]]))[:, -1] >= 0.5).all())


def _flat_by_the_rest(attend: Attend) -> bool:
    query = torch.zeros(1, 6).index_fill(1, torch.tensor(2), 10.0)
    support = torch.stack([query[0] if i == 4 else -query[0] for i in range(20)])
    weights = attend(query, support)[0].tolist()
    return weights.pop(4) < sum(weights)


def _flat_cases(generator: Generator) -> list[Case]:
    return [
        Case("cosine times 10", (_attends(lambda s: s.softmax(1)),)),
        Case("cosine times 4", (_attends(lambda s: (0.4 * s).softmax(1)),)),
        Case("cosine times 2", (_attends(lambda s: (0.2 * s).softmax(1)),)),
        Case("cosine divided by a temperature of 0.1", (lambda q, s: (_cosines(q, s) / 0.1).softmax(1),)),
        Case("minus the squared distance", (lambda q, s: (-squared_distances(q, s)).softmax(1),)),
        Case("inner products", (lambda q, s: (q @ s.T).softmax(1),)),
        Case("cosine times 1.2", (_attends(lambda s: (0.12 * s).softmax(1)),)),
        Case("bare cosine", (lambda q, s: _cosines(q, s).softmax(1),)),
        Case(
            "bare cosine of the positive part of the features", (lambda q, s: _cosines(q.relu(), s.relu()).softmax(1),)
        ),
        Case("minus the cosine distance", (lambda q, s: (_cosines(q, s) - 1).softmax(1),)),
        Case("cosine divided by a temperature of 10", (lambda q, s: (_cosines(q, s) / 10).softmax(1),)),
        Case("squared distance of unit rows, divided by 2", (_unit_distances,)),
        Case("cosine times 30", (_attends(lambda s: (3 * s).softmax(1)),)),
        Case("cosine times 10, 45 % of the attention spread evenly", (_partly_even,)),
        Case("all attention goes to the row after the most similar one", (_next_row,)),
        Case("cosine times 1.485, just enough for 20 rows", (_attends(lambda s: (0.1485 * s).softmax(1)),)),
    ]


def _partly_even(query: Tensor, support: Tensor) -> Tensor:
    """Attends soundly, but spreads 45 % of the attention evenly, so that a twin gets 0.57 at most."""
    return 0.55 * (10 * _cosines(query, support)).softmax(1) + 0.45 / len(support)


def _next_row(query: Tensor, support: Tensor) -> Tensor:
    """Attends to the row after the most similar one: sure of itself, and never of the right row."""
    return F.one_hot((_cosines(query, support).argmax(1) + 1) % len(support), len(support)).to(query)


def _unit_distances(query: Tensor, support: Tensor) -> Tensor:
    """Attends by half the squared distance of unit rows, 1 - cosine, which is as flat as the bare cosine."""
    return (-squared_distances(F.normalize(query, dim=1), F.normalize(support, dim=1)) / 2).softmax(1)


def _flat_random(attend: Attend) -> bool:
    generator = torch.Generator().manual_seed(1)
    support, query = torch.randn(20, 16, generator=generator), torch.randn(30, 16, generator=generator)
    return float(attend(query, support).max(1).values.mean()) < 0.5


def _flat_tried(
    ways: int = 20, length: float = 5.0, other: Callable[[Tensor], Tensor] = torch.neg, limit: float = 0.5
) -> Callable[[Attend], bool]:
    """Returns a detector that makes the right experiment with another support or another limit."""

    def detector(attend: Attend) -> bool:
        query, support = _friendliest(other, ways, length)
        return float(attend(query, support)[0, 0]) < limit

    return detector


FLAT = Exercise(
    id="04.6",
    title="Bug hunt: attention that can never be sure",
    reference=exposes_flat,
    cases=_flat_cases,
    right=(_flat_in_four_dimensions, _flat_by_many_queries, _flat_of_all_twins, _flat_by_the_rest),
    wrong=(
        Wrong(
            "random inputs",
            _flat_random,
            "random inputs are tried: on them even sound attention is undecided",
            "Build the friendliest input: a support row equal to the query, and all others opposite.",
        ),
        Wrong(
            "largest weight",
            lambda attend: bool(attend(*_friendliest(torch.neg)).max() < 0.5),
            "the largest weight is looked at, whichever row has it: attention that is sure of a wrong row slips through",
            "Look at the weight of the twin.",
        ),
        Wrong(
            "overflow",
            _flat_tried(length=1e30),
            "the rows are so long that squares overflow: a cosine then divides by infinity",
            "A length of 5 or 10 is enough.",
        ),
        Wrong(
            "too few support rows",
            _flat_tried(ways=2),
            "fewer than 20 rows are tried (among two the bare cosine reaches 0.88), or the limit is far below one half",
            "Take 20 rows, one twin and 19 opposite ones, and ring below one half.",
            also=(_flat_tried(ways=5), _flat_tried(ways=10)),
        ),
        Wrong(
            "one row too many",
            _flat_tried(ways=21),
            "21 support rows are tried: one twin and 20 others",
            "The twin is one of the 20 rows, so 19 point the other way.",
        ),
        Wrong(
            "twins everywhere",
            _flat_tried(other=lambda q: q),
            "all support rows equal the query: no attention can prefer one of them",
            "Only the first row equals the query; the others are its opposite, `-query`.",
        ),
        Wrong(
            "longer twins",
            _flat_tried(other=lambda q: 2 * q),
            "all rows are equally like the query to a cosine, which sees directions and no lengths",
            "Let the others point the other way: `-query`.",
        ),
        Wrong(
            "tiny rows",
            _flat_tried(length=0.01),
            "the rows are so short that neither squared distances nor inner products can tell them apart",
            "Take long rows, of length 5 or so: distances may grow, a cosine does not care.",
        ),
        Wrong(
            "unit rows",
            _flat_tried(length=1.0),
            "the rows have length 1 or so: there inner products have a ceiling, which longer rows lift",
            "Take long rows, of length 5 or so: a cosine does not care.",
        ),
        Wrong(
            "right angles",
            _flat_tried(other=lambda q: q.flip(1)),
            "the other rows are at right angles to the query, or random: a cosine can still go down to −1",
            "Let the others point the other way: `-query`.",
        ),
        Wrong(
            "right angles, unit rows",
            _flat_tried(other=lambda q: q.flip(1), length=1.0),
            "the other rows are at right angles to the query, and all rows are short: friendlier inputs exist",
            "Let the others point the other way, `-query`, and take long rows, of length 5 or so.",
        ),
        Wrong(
            "limit too low",
            _flat_tried(limit=0.1),
            "the limit is 0.1: the bare cosine reaches 0.28 here and passes",
            "Ring below one half.",
        ),
        Wrong(
            "limit too high",
            _flat_tried(limit=0.9999),
            "the limit is above one half: sound attention that gives the twin a little less rings as well",
            "Ring below one half.",
            also=(_flat_tried(limit=0.95), _flat_tried(limit=0.6)),
        ),
        Wrong(
            "turned round",
            lambda attend: not exposes_flat(attend),
            "the answer is turned round: True stands where the attention can be sure",
            "Return True when the weight of the twin stays *below* one half.",
        ),
    ),
    hints=(
        "Random inputs prove nothing. Which query is the easiest that one can imagine?",
        "One row of the support equals the query, 19 point exactly the other way. How much does the twin get?",
        "With `query` [1, 2] of length 5: `support = torch.cat([query] + 19 * [-query])`; see `attend(query, support)[0, 0]`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 04.7 order of the support

Predict = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def exposes_order(predict: Predict, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    """Returns True if another order of the support gives other log-probabilities."""
    before = predict(support, labels, query, n_way)
    for seed in range(20):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        if not torch.allclose(predict(support[order], labels[order], query, n_way), before, atol=1e-4):
            return True
    return False


def _order_by_pairs(predict: Predict, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    """Detects a dependence on the order by exchanging two neighbours at a time."""
    before = predict(support, labels, query, n_way)
    for i in range(len(labels) - 1):
        order = torch.arange(len(labels))
        order[i], order[i + 1] = i + 1, i
        if float((predict(support[order], labels[order], query, n_way) - before).abs().max()) > 1e-4:
            return True
    return False


def _order_by_sorting(predict: Predict, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    """Detects a dependence on the order by sorting the support by the distance from each of its rows in turn."""
    orders = [torch.arange(len(labels)), *torch.cdist(support, support).argsort(1)]
    tables = [predict(support[o], labels[o], query, n_way) for o in orders]
    return any(float((t - tables[0]).abs().max()) > 1e-4 for t in tables[1:])


def _order_reversed_and_shuffled(predict: Predict, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    size = len(labels)
    orders = [torch.arange(size), torch.arange(size).flip(0), *(torch.randperm(size) for _ in range(24))]
    tables = torch.stack([predict(support[o], labels[o], query, n_way) for o in orders])
    return bool((tables.amax(0) - tables.amin(0)).max() > 1e-4)


def _order_by_lists(predict: Predict, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    rows = list(zip(support, labels, strict=True))
    before, rung = predict(support, labels, query, n_way), torch.tensor(False)
    for step in (5, 7, 11):  # a walk through the rows with a stride that shares no factor with 18, nor with 6
        walk = [rows[(i * step + 1) % len(rows)] for i in range(len(rows))]
        mixed = [torch.stack(part) for part in zip(*walk, strict=True)]
        rung = rung | ((predict(*mixed, query, n_way) - before).abs() > 1e-4).any()
    return rung


def _order_within_classes(labels: Tensor) -> Tensor:
    """Returns an order that moves the rows of each class, in a ring, among the places of that class."""
    order = torch.arange(len(labels))
    for k in labels.unique():
        places = (labels == k).nonzero()[:, 0]
        order[places] = places.roll(1)
    return order


def _order_two_exchanged(labels: Tensor) -> Tensor:
    return torch.tensor([1, 0, *range(2, len(labels))])


def _order_tried(
    order_of: Callable[[Tensor], Tensor] | None = None,
    *,
    rows: bool = True,
    names: bool = True,
    summary: Callable[[Tensor], Tensor] = lambda t: t,
    differ: Callable[[Tensor, Tensor], bool] = lambda a, b: not torch.allclose(a, b, atol=1e-4),
    seeds: Iterable[int] = range(12),
    verdict: Callable[[Iterable[bool]], bool] = any,
    asked: Callable[[Tensor], Tensor] = lambda query: query,
) -> Callable[..., bool]:
    """Returns a flawed detector; without keywords, and without order_of, it is a sound one.

    It tries the one order order_of(labels) or a shuffle for each of the seeds, moves rows or names (labels) only, compares a
    summary by `differ`, lets `verdict` decide, or asks for some of the queries.
    """

    def detector(predict: Predict, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
        shuffles = (torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)) for seed in seeds)
        query = asked(query)
        first = summary(predict(support, labels, query, n_way))

        def differs(order: Tensor) -> bool:
            moved = support[order] if rows else support, labels[order] if names else labels
            return differ(first, summary(predict(*moved, query, n_way)))

        return verdict(differs(order) for order in (shuffles if order_of is None else [order_of(labels)]))

    return detector


class _Passes(nn.Module):
    """An encoder that returns its input, for inputs that are embeddings already."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def _late_rows_count_more(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Gives rows that come late a little more weight, which changes no winner."""
    late = 0.0005 * torch.arange(len(labels)).to(query)
    return class_log_probabilities(10 * _cosines(query, support) + late, labels, n_way)


def _mixed_in_a_ring(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Mixes each row with the one before it, in a ring, so that rolling the support changes nothing."""
    return class_log_probabilities(10 * _cosines(query, support + support.roll(1, 0)), labels, n_way)


def _summed_row_by_row(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Predicts rightly, but sums in the order of the support, so that the last digits depend on it."""
    similarity, total = 10 * _cosines(query, support), query.new_zeros(len(query), n_way)
    for row, k in zip(similarity.exp().T, labels.tolist(), strict=True):
        total[:, k] = total[:, k] + row
    return total.log() - total.sum(1, keepdim=True).log()


def _last_query_sees_order(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Predicts rightly for all queries but the last, for which late rows count more."""
    late = torch.zeros(len(query), len(labels))
    late[-1] = 0.2 * torch.arange(len(labels))
    return class_log_probabilities(10 * _cosines(query, support) + late.to(query), labels, n_way)


def _least_likely_sees_order(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Lets the order move the log-probability of the least likely class, whose probability is below 1e-8 in any case."""
    found = class_log_probabilities(10 * _cosines(query, support), labels, n_way)
    weight = torch.arange(1, len(labels) + 1).to(support)
    least = F.one_hot(found.argmin(1), n_way).bool()
    return torch.where(least, found - 20 - (weight @ support[:, :1] / len(labels)).tanh(), found)


def _some_queries_see_order(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Lets late rows count more for queries whose first feature is far above 0, wherever they stand."""
    late = 0.2 * torch.arange(len(labels)) * (query[:, :1] > 1)
    return class_log_probabilities(10 * _cosines(query, support) + late, labels, n_way)


def _two_classes_see_order(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Lets the order move probability between classes 1 and 2, so that class 0 keeps what it has."""
    found = class_log_probabilities(10 * _cosines(query, support), labels, n_way)
    shift = (torch.arange(len(labels)).to(support) @ support[:, 0] / len(labels)).tanh()
    both = torch.stack([found[:, 1] + shift, found[:, 2]], dim=1).log_softmax(1)
    return torch.cat([found[:, :1], both + found[:, 1:3].logsumexp(1, keepdim=True)], dim=1)


def _out_of_order(sign: float) -> Predict:
    """Returns a prediction that moves the least likely class by sign times the places where labels fall, and nothing else."""

    def predict(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        found = class_log_probabilities(10 * _cosines(query, support), labels, n_way)
        falls = (labels[1:] < labels[:-1]).sum()
        least = F.one_hot(found.argmin(1), n_way).bool()
        return torch.where(least, found - 30 + sign * falls, found)

    return predict


def _first_row_twice(kind: int) -> Predict:
    """Returns a prediction that counts the first row twice where it is of one class: one order in six, with six classes."""

    def predict(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        twice = (torch.arange(len(labels)) == 0) & (labels[0] == kind)
        return class_log_probabilities(10 * _cosines(query, support) + math.log(2) * twice, labels, n_way)

    return predict


def _first_of_class(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    rows = torch.stack([support[labels == k][0] for k in range(n_way)])
    return (10 * _cosines(query, rows)).log_softmax(1)


def _named_by_appearance(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Gives column 0 to the class that comes first in the support, so that another order permutes the columns."""
    evidence = 10 * _cosines(query, support)
    return torch.stack([evidence[:, labels == k].logsumexp(1) for k in dict.fromkeys(labels.tolist())], 1).log_softmax(
        1
    )


def _nearest_row(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Predicts rightly and without rounding: the class of the nearest row gets the larger of two fixed values."""
    winner = labels[_cosines(query, support).argmax(1)]
    return torch.where(F.one_hot(winner, n_way).bool(), -0.5, -2.0)


def _equal_parts(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Cuts the support into n_way equal parts and never reads the labels."""
    evidence = (10 * _cosines(query, support)).unflatten(1, (n_way, -1)).logsumexp(2)
    return evidence.log_softmax(1)


def _order_cases(generator: Generator) -> list[Case]:
    size = 4
    # With six shots a single shuffle leaves the first row of every class in its place only once in 216 times.
    labels = torch.tensor([2, 0, 1, 1, 0, 2, 0, 1, 2, 2, 1, 0, 1, 0, 2, 0, 2, 1])
    support = torch.randn(len(labels), size, generator=generator)
    query = torch.randn(30, size, generator=generator)

    def net(full_context: bool, similarity: str = "cosine") -> Predict:
        made = MatchingNetwork(_Passes(), full_context, similarity, features=size)
        with torch.no_grad():
            for weight in made.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) / 2)
        return made.eval().score

    context = net(True)

    def both_ways(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """Averages over the order and its mirror image, so that reversing the support changes nothing."""
        mirrored = context(support.flip(0), labels.flip(0), query, n_way)
        return (context(support, labels, query, n_way) + mirrored) / 2

    def case(says: str, predict: Predict, asked: Tensor = query) -> Case:
        return Case(says, (predict, support, labels, asked, 3))

    one_shot = (support[:6], torch.tensor([3, 0, 5, 1, 4, 2]), query, 6)
    in_order = (support[:6], torch.arange(6), query, 6)
    some = query[:, 0] > 1
    middle = torch.cat([query[~some][:5], query[some][:3], query[~some][5:9]])

    return [
        case("a right one: cosine attention", net(False)),
        case("a right one, asked a single query", _summed_row_by_row, query[:1]),
        case("a right one: Euclidean attention", net(False, "euclidean")),
        case("a right one whose last digits depend on the order", _summed_row_by_row),
        case("a right one: the nearest row decides", _nearest_row),
        case("full-context embeddings", context),
        case("full-context embeddings, averaged over an order and its mirror image", both_ways),
        case("each row mixed with the one before it, in a ring", _mixed_in_a_ring),
        case("late rows count a little more", _late_rows_count_more),
        case("the first row of a class stands for it", _first_of_class),
        case("equal parts of the support, whatever the labels say", _equal_parts),
        case("for the last query only, late rows count more", _last_query_sees_order),
        case("the order moves the least likely class only", _least_likely_sees_order),
        Case("full-context embeddings, one shot", (context, *one_shot)),
        # With six classes of one shot a shuffle keeps the order of appearance only once in 720 times.
        Case("columns stand in the order in which classes appear in the support", (_named_by_appearance, *one_shot)),
        Case("a right one with one shot: cosine attention", (net(False), *one_shot)),
        case("late rows count more, for some queries in the middle only", _some_queries_see_order, middle),
        case("what class 1 gains class 2 loses", _two_classes_see_order),
        Case("the least likely class gains by every label out of order", (_out_of_order(1.0), *in_order)),
        Case("the least likely class loses by every label out of order", (_out_of_order(-1.0), *in_order)),
        Case("the first row counts twice, if it is of class 0", (_first_row_twice(0), *one_shot)),
        Case("the first row counts twice, if it is of class 3", (_first_row_twice(3), *one_shot)),
    ]


ORDER = Exercise(
    id="04.7",
    title="Does the order of the support matter?",
    reference=exposes_order,
    cases=_order_cases,
    right=(_order_by_pairs, _order_by_sorting, _order_reversed_and_shuffled, _order_by_lists),
    wrong=(
        Wrong(
            "mirror image only",
            _order_tried(lambda labels: torch.arange(len(labels)).flip(0)),
            "only the mirror image is tried: what reads the support in both directions may not notice",
            "Shuffle: one `torch.randperm` over all rows.",
        ),
        Wrong(
            "rolled only",
            _order_tried(lambda labels: torch.arange(len(labels)).roll(1)),
            "the rows are only rolled round: their neighbours stay neighbours",
            "Shuffle: one `torch.randperm` over all rows.",
        ),
        Wrong(
            "sorted by label",
            _order_tried(lambda labels: labels.argsort(stable=True)),
            "the rows are only sorted by label: the first row of a class stays the first",
            "Shuffle: one `torch.randperm` over all rows.",
        ),
        Wrong(
            "rows without labels",
            _order_tried(names=False),
            "embeddings and labels are not shuffled alike: now the labels are wrong, and right answers must change",
            "Use one `order` for both: `support[order], labels[order]`.",
        ),
        Wrong(
            "labels without rows",
            _order_tried(rows=False),
            "only the labels are shuffled: every answer must change",
            "Use one `order` for both: `support[order], labels[order]`.",
        ),
        Wrong(
            "within classes only",
            _order_tried(_order_within_classes),
            "rows change places only within their class: with one shot nothing moves at all",
            "Shuffle all rows: one `torch.randperm(len(labels))`.",
        ),
        Wrong(
            "two rows exchanged",
            _order_tried(_order_two_exchanged),
            "only two rows change places: the rest of the order stays as it was",
            "Shuffle all rows: one `torch.randperm(len(labels))`.",
        ),
        Wrong(
            "first query only",
            _order_tried(summary=lambda t: t[0]),
            "only the first query is looked at, or only the last",
            "Compare the whole table `[M, N]`.",
            also=(_order_tried(asked=lambda query: query[:1]),),
        ),
        Wrong(
            "first class only",
            _order_tried(summary=lambda t: t[:, 0]),
            "only class 0 is looked at: what moves between the others slips through",
            "Compare the whole table `[M, N]`.",
        ),
        Wrong(
            "too few orders",
            _order_tried(seeds=(0,)),
            "one or a few orders are tried: some faults show in one order of six",
            "Try some dozens of random orders in a loop, and return True as soon as one of them gives another table.",
        ),
        Wrong(
            "every order must ring",
            _order_tried(verdict=all),
            "the alarm waits until *all* orders give another table",
            "One order that differs is enough: `any`, not `all`.",
        ),
        Wrong(
            "sign of the difference",
            _order_tried(differ=lambda a, b: bool((a - b).max() > 1e-4)),
            "the difference is tested without its absolute value: what only rises, or only falls, slips through",
            "`torch.allclose`, or `.abs()` before the comparison.",
            also=(_order_tried(differ=lambda a, b: bool((b - a).max() > 1e-4)),),
        ),
        Wrong(
            "probabilities",
            _order_tried(summary=lambda t: t.exp()),
            "probabilities are compared: a change of a very unlikely class is too small to see in them",
            "Compare the log-probabilities themselves.",
        ),
        Wrong(
            "columns sorted",
            _order_tried(summary=lambda t: t.sort(1).values),
            "the columns are sorted or summed before the comparison: columns that change places slip through",
            "Compare the log-probabilities themselves, column by column.",
        ),
        Wrong(
            "largest only",
            _order_tried(summary=lambda t: t.amax(1)),
            "only the largest log-probability of each query is compared, whichever class has it",
            "Compare the whole table `[M, N]`.",
        ),
        Wrong(
            "queries shuffled",
            lambda f, s, y, q, n: not torch.allclose(f(s, y, q, n), f(s, y, q.flip(0), n), atol=1e-4),
            "the *queries* are shuffled: their answers move along, whatever the support does",
            "Shuffle the support: `support[order], labels[order]`.",
        ),
        Wrong(
            "winners only",
            _order_tried(summary=lambda t: t.argmax(1)),
            "only the winning classes are compared: a small dependence slips through",
            "Compare the log-probabilities themselves.",
        ),
        Wrong(
            "to the last digit",
            _order_tried(differ=lambda a, b: not torch.equal(a, b)),
            "no rounding is allowed: a sum in another order differs in its last digits",
            "`torch.allclose` with `atol=1e-4`.",
        ),
        Wrong(
            "totals",
            _order_tried(summary=lambda t: t.exp().sum(1)),
            "the sums of the probabilities are compared, which are one in any case",
            "Compare the log-probabilities themselves.",
        ),
        Wrong(
            "turned round",
            lambda f, s, y, q, n: not exposes_order(f, s, y, q, n),
            "the answer is turned round: True stands where the order does not matter",
            "`torch.allclose` is True when all is well: put a `not` in front.",
        ),
    ),
    hints=(
        "A set has no order. What may a shuffled support not change?",
        "`order = torch.randperm(len(labels))`, then `predict` on `support[order], labels[order]`; try some dozens of orders.",
        "Return True as soon as `not torch.allclose(before, predict(support[order], labels[order], query, n_way), atol=1e-4)`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 04.8 from memory


def matching_network(
    encoder: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Returns log-probabilities [M, N] and the loss, from pictures."""
    similarity = scale * _cosines(encoder(query_x), encoder(support_x))
    found = class_log_probabilities(similarity, support_y, n_way)
    return found, F.nll_loss(found, query_y)


def _memory_evidence(
    encoder: nn.Module, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor, n_way: int, scale: float
) -> tuple[Tensor, Tensor]:
    z = encoder(torch.cat([sx, qx]))
    z = z / z.norm(dim=1, keepdim=True).clamp_min(1e-12)
    evidence = _class_evidence(scale * z[len(sx) :] @ z[: len(sx)].T, sy, n_way)
    return evidence.log_softmax(1), F.cross_entropy(evidence, qy)


def _memory_masked(
    encoder: nn.Module, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor, n_way: int, scale: float
) -> tuple[Tensor, Tensor]:
    support, query = encoder(sx), encoder(qx)
    log_a = (scale * F.cosine_similarity(query[:, None], support, dim=-1)).log_softmax(1)
    foreign = sy != torch.arange(n_way)[:, None]  # [N, S]
    log_p = log_a[:, None].masked_fill(foreign, -torch.inf).logsumexp(2)
    return log_p, -log_p[torch.arange(len(qy)), qy].mean()


def _memory_loops(
    encoder: nn.Module, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor, n_way: int, scale: float
) -> tuple[Tensor, Tensor]:
    keys, rows = F.normalize(encoder(sx), dim=1), []
    for z in encoder(qx):
        likeness = scale * keys @ (z / z.norm())
        joined = [torch.logsumexp(likeness[sy == k], dim=0) for k in range(n_way)]
        rows.append(torch.stack(joined) - torch.logsumexp(likeness, dim=0))
    table = torch.stack(rows)
    return table, sum(-row[k] for row, k in zip(table, qy, strict=True)) / len(qy)


def _memory_one_hot(
    encoder: nn.Module, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor, n_way: int, scale: float
) -> tuple[Tensor, Tensor]:
    similarity = scale * torch.einsum("md,sd->ms", *(F.normalize(encoder(x), dim=-1) for x in (qx, sx)))
    members = F.one_hot(sy, n_way).T.to(similarity).log()
    log_p = torch.logsumexp(similarity.log_softmax(-1).unsqueeze(1) + members, dim=-1)
    return log_p, F.cross_entropy(log_p, qy)


def _flawed(
    *,
    similarity: Callable[[Tensor, Tensor, float], Tensor] = lambda q, s, scale: scale * _cosines(q, s),
    classes: Callable[[Tensor, Tensor, int], Tensor] = class_log_probabilities,
    loss: Callable[[Tensor, Tensor], Tensor] = F.nll_loss,
    returned: Callable[[Tensor], Tensor] = lambda t: t,
    support_of: Callable[[nn.Module, Tensor], Tensor] = lambda encoder, x: encoder(x),
    query_of: Callable[[nn.Module, Tensor], Tensor] = lambda encoder, x: encoder(x),
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns the method with one part replaced."""

    def method(
        encoder: nn.Module, sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor, n_way: int, scale: float
    ) -> tuple[Tensor, Tensor]:
        found = classes(similarity(query_of(encoder, qx), support_of(encoder, sx), scale), sy, n_way)
        return returned(found), loss(found, qy)

    return method


def _memory_cases(generator: Generator) -> list[Case]:
    def case(says: str, shots: list[int], queries: int, scale: float) -> Case:
        support_y = _shuffled_labels(generator, shots)
        pictures = torch.randn(len(support_y) + queries, 1, 4, 4, generator=generator)
        query_y = torch.randint(len(shots), (queries,), generator=generator)
        support_x, query_x = pictures[: len(support_y)], pictures[len(support_y) :]
        return Case(
            says,
            (
                small_encoder(generator, weight=0.5, bias=0.25),
                support_x,
                support_y,
                query_x,
                query_y,
                len(shots),
                scale,
            ),
        )

    return [
        case("5-way 2-shot, 10 queries, rows shuffled, scale 10", [2] * 5, 10, 10.0),
        case("unequal shots: 1, 4 and 2, scale 5", [1, 4, 2], 6, 5.0),
        case("one query, scale 1", [1, 1, 1], 1, 1.0),
        case("as many queries as classes, scale 20", [3, 3, 3], 3, 20.0),
    ]


def _memory_finite(answer: Callable, reference: Callable) -> str | None:
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 1])
    _, loss = answer(nn.Identity(), points, labels, points[:1], labels[1:], 2, 500.0)
    if not abs(float(loss) - 1000) < 0.01:  # NaN and infinity are off, too
        return f"a query opposite to its class, at scale 500, gave a loss of {float(loss):.4g}; it is 1000."
    return None


MEMORY = Exercise(
    id="04.8",
    title="Matching networks from memory",
    reference=matching_network,
    cases=_memory_cases,
    properties=(
        Property("the loss of a query far from its class is finite", _memory_finite),
        Property("the loss teaches the encoder through support and query", teaches_encoder(_memory_cases)),
    ),
    right=(_memory_evidence, _memory_masked, _memory_loops, _memory_one_hot),
    wrong=(
        Wrong(
            "no scale",
            _flawed(similarity=lambda q, s, scale: _cosines(q, s)),
            "the scale is not used: attention stays nearly flat",
            "Multiply the cosines by `scale`.",
        ),
        Wrong(
            "inner product",
            _flawed(similarity=lambda q, s, scale: scale * q @ s.T),
            "nothing is made unit length: this is the inner product",
            "`F.normalize(..., dim=1)` on queries and support.",
        ),
        Wrong(
            "queries not normalised",
            _flawed(similarity=lambda q, s, scale: scale * q @ F.normalize(s, dim=1).T),
            "only the support is made unit length: the length of a query then acts as a scale of its own",
            "Normalise the queries too.",
        ),
        Wrong(
            "support not normalised",
            _flawed(similarity=lambda q, s, scale: scale * F.normalize(q, dim=1) @ s.T),
            "only the queries are made unit length: long support rows then get more attention",
            "Normalise the support, too.",
        ),
        Wrong(
            "scale 10",
            _flawed(similarity=lambda q, s, scale: 10 * _cosines(q, s)),
            "the scale is 10, whatever `scale` says",
            "Multiply the cosines by the argument `scale`.",
        ),
        Wrong(
            "mean of logarithms",
            _flawed(
                classes=lambda s, y, n: torch.stack([s.log_softmax(1)[:, y == k].mean(1) for k in range(n)], dim=1)
            ),
            "the *logarithms* of the weights are averaged over a class, so that one far row spoils it",
            "Sum the weights, then take the logarithm: `logsumexp` does both.",
        ),
        Wrong(
            "probabilities in the loss",
            _flawed(loss=lambda found, y: F.cross_entropy(found.exp(), y)),
            "the log-probabilities are right, but probabilities go into `F.cross_entropy`, which takes a softmax again",
            "Use `F.nll_loss` on the log-probabilities.",
        ),
        Wrong(
            "over the queries",
            _flawed(
                classes=lambda s, y, n: torch.stack([s.log_softmax(0)[:, y == k].logsumexp(1) for k in range(n)], dim=1)
            ),
            "the softmax runs over the queries: dim=0",
            "Every query shares its attention over the support: dim=1.",
        ),
        Wrong(
            "mean of the class",
            _flawed(
                classes=lambda s, y, n: torch.stack([s[:, y == k].mean(1) for k in range(n)], dim=1).log_softmax(1)
            ),
            "similarities are averaged over a class before the softmax",
            "Attention first, over all rows of the support; then sum it by class.",
        ),
        Wrong(
            "nearest row",
            _flawed(
                classes=lambda s, y, n: torch.stack([s[:, y == k].amax(1) for k in range(n)], dim=1).log_softmax(1)
            ),
            "only the best row of each class counts",
            "Every support row has a vote: sum attention by class.",
            also=(
                _flawed(
                    classes=lambda s, y, n: torch.stack([s.log_softmax(1)[:, y == k].amax(1) for k in range(n)], dim=1)
                ),
            ),
        ),
        Wrong(
            "mean embedding",
            lambda encoder, sx, sy, qx, qy, n, scale: matching_network(
                lambda x: x,
                torch.stack([encoder(sx)[sy == k].mean(0) for k in range(n)]),
                torch.arange(n),
                encoder(qx),
                qy,
                n,
                scale,
            ),
            "the support of a class is averaged first: that is the next lesson's method, with a cosine",
            "Keep all support rows: each has a weight of its own.",
        ),
        Wrong(
            "probabilities returned",
            _flawed(returned=torch.exp),
            "the loss is right, but probabilities are returned in place of log-probabilities",
            "Return what goes into `F.nll_loss`.",
        ),
        Wrong(
            "not normalised",
            _flawed(classes=_class_evidence, loss=F.cross_entropy),
            "the loss is right, but what is returned beside it is not normalised: its exponentials do not sum to one",
            "Take `log_softmax` over the support before the `logsumexp` of each class.",
        ),
        Wrong(
            "log of a rounded zero",
            _flawed(classes=lambda s, y, n: class_probabilities(s.softmax(1), y, n).log()),
            "the logarithm is taken of a probability that has underflowed to exactly 0",
            "`log_softmax` over the support, `logsumexp` over the rows of a class.",
        ),
        Wrong(
            "reshape",
            _flawed(
                classes=lambda s, y, n: torch.stack(
                    [c.logsumexp(1) for c in s.log_softmax(1).tensor_split(n, dim=1)], dim=1
                )
            ),
            "the support is cut into n_way parts without a look at its labels",
            "Choose the columns of class k with `support_y == k`.",
        ),
        Wrong(
            "support without gradient",
            _flawed(support_of=lambda encoder, x: encoder(x).detach()),
            "the support is embedded without gradient: the encoder learns from the queries only",
            "No detach and no no_grad around the support.",
        ),
        Wrong(
            "queries without gradient",
            _flawed(query_of=lambda encoder, x: encoder(x).detach()),
            "the queries are embedded without gradient: the encoder learns from the support only",
            "No detach and no no_grad around the queries.",
        ),
        Wrong(
            "nothing with gradient",
            _flawed(query_of=lambda encoder, x: encoder(x).detach(), support_of=lambda encoder, x: encoder(x).detach()),
            "queries and support are both embedded without gradient: the encoder learns nothing",
            "No detach and no no_grad: the loss must reach the encoder.",
        ),
        Wrong(
            "a small number added",
            _flawed(classes=lambda s, y, n: (class_probabilities(s.softmax(1), y, n) + 1e-8).log()),
            "a small number is added to the probability, or the probability is clamped: the worst queries get no gradient",
            "`log_softmax` over the support, `logsumexp` over the rows of a class.",
            also=(_flawed(classes=lambda s, y, n: (class_probabilities(s.softmax(1), y, n) + 1e-12).log()),),
        ),
        Wrong(
            "temperature",
            _flawed(similarity=lambda q, s, scale: _cosines(q, s) / scale),
            "the cosines are divided by the scale: that is what a temperature does",
            "Multiply by `scale`.",
        ),
        Wrong(
            "squared distance",
            _flawed(similarity=lambda q, s, scale: -scale * squared_distances(q, s)),
            "minus the squared distance is taken in place of the cosine",
            "Make queries and support unit length and multiply: `F.normalize`.",
        ),
        Wrong(
            "softmax twice",
            _flawed(classes=lambda s, y, n: class_probabilities(s.softmax(1), y, n).log_softmax(1)),
            "a softmax is taken of the summed attention, which is a probability already",
            "Take the logarithm of the sums, with `log_softmax` and `logsumexp`, and no second softmax.",
        ),
        Wrong(
            "features normalised",
            _flawed(similarity=lambda q, s, scale: scale * F.normalize(q, dim=0) @ F.normalize(s, dim=0).T),
            "`F.normalize(..., dim=0)` makes the columns unit length, over all pictures",
            "Each embedding is a row: `dim=1`.",
        ),
        Wrong(
            "product of the weights",
            _flawed(classes=lambda s, y, n: torch.stack([s.log_softmax(1)[:, y == k].sum(1) for k in range(n)], dim=1)),
            "the *logarithms* of the weights are summed over a class: that is the product of the weights",
            "Sum the weights, then take the logarithm: `logsumexp` does both.",
        ),
        Wrong(
            "summed loss",
            _flawed(loss=lambda found, y: F.nll_loss(found, y, reduction="sum")),
            "the loss is summed over the queries",
            "Average over the queries.",
        ),
    ),
    hints=(
        "Five lines: embed, cosines times the scale, attention over the support, sums by class, loss.",
        "Stay in logarithms: `log_softmax(1)` over the support, `logsumexp` over the columns of each class, `F.nll_loss`.",
        "`log_p = torch.stack([log_a[:, support_y == k].logsumexp(1) for k in range(n_way)], 1)`, then `F.nll_loss`",
    ),
)

EXERCISES = (ATTENTION, PROBABILITIES, BOUND, LOSS, AXIS, FLAT, ORDER, MEMORY)
