"""Exercises of lesson 15: shares, refined centres, the mask, typicality, and a detector of masks that count twice.

Cases: every exercise builds its own. The detector 15.5 gets an implementation as an argument and must return True for the broken
ones only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong


def squared_distances(query: Tensor, centres: Tensor) -> Tensor:
    """Returns squared Euclidean distances. query [M, D], centres [N, D] -> [M, N]."""
    return (query[:, None] - centres).square().sum(-1)


# ---------------------------------------------------------------------------------------------- 15.1 shares


def shares(unlabelled: Tensor, centres: Tensor) -> Tensor:
    """Returns the share of every picture in every class. unlabelled [U, D], centres [N, D] -> [U, N], rows sum to one."""
    return (-squared_distances(unlabelled, centres)).softmax(1)


def _shares_by_logarithms(unlabelled: Tensor, centres: Tensor) -> Tensor:
    scores = 2 * unlabelled @ centres.T - centres.square().sum(1)  # -|u|^2 is the same for all classes
    return (scores - scores.logsumexp(1, keepdim=True)).exp()


def _shares_by_hand(unlabelled: Tensor, centres: Tensor) -> Tensor:
    found = squared_distances(unlabelled, centres)
    mass = (found.min(1, keepdim=True).values - found).exp()
    return mass / mass.sum(1, keepdim=True)


def _shares_row_by_row(unlabelled: Tensor, centres: Tensor) -> Tensor:
    return torch.stack([F.softmax(torch.stack([-((u - c) ** 2).sum() for c in centres]), 0) for u in unlabelled])


def _shares_by_broadcasting(unlabelled: Tensor, centres: Tensor) -> Tensor:
    difference = centres.unsqueeze(0) - unlabelled.unsqueeze(1)
    return F.log_softmax(-torch.einsum("und,und->un", difference, difference), dim=-1).exp()


def _naive(unlabelled: Tensor, centres: Tensor) -> Tensor:
    mass = (-squared_distances(unlabelled, centres)).exp()
    return mass / mass.sum(1, keepdim=True)


def _nearest_first(unlabelled: Tensor, centres: Tensor) -> Tensor:
    """Exponentials that are 1 for the nearest class of each picture."""
    found = squared_distances(unlabelled, centres)
    return (found.min(1, keepdim=True).values - found).exp()


def _one_shift(unlabelled: Tensor, centres: Tensor) -> Tensor:
    found = squared_distances(unlabelled, centres)
    mass = (found.min() - found).exp()
    return mass / mass.sum(1, keepdim=True)


def _share_cases(generator: Generator) -> list[Case]:
    def drawn(u: int, n: int) -> tuple[Tensor, Tensor]:
        return 0.7 * torch.randn(u, 4, generator=generator), 0.7 * torch.randn(n, 4, generator=generator)

    line = torch.tensor([[2.0], [1.0], [0.0]]), torch.tensor([[0.0], [4.0]])
    five, square = drawn(5, 3), drawn(3, 3)
    return [
        Case("the example on paper", line),
        Case("5 pictures, 3 classes, 4 features", five),
        Case("one picture", (five[0][:1], five[1])),
        Case("as many pictures as classes", square),
        Case(
            "a picture 20 away from all centres", (torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
        ),
        Case(
            "a far picture beside a near one",
            (torch.tensor([[0.0, 0.0], [11.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])),
        ),
        Case("float64", (five[0].double(), five[1].double())),
    ]


SHARES = Exercise(
    id="15.1",
    title="Shares",
    reference=shares,
    cases=_share_cases,
    gradient=(0, 1),
    right=(_shares_by_logarithms, _shares_by_hand, _shares_row_by_row, _shares_by_broadcasting),
    wrong=(
        Wrong(
            "no minus",
            lambda u, c: squared_distances(u, c).softmax(1),
            "the softmax gets distances without the minus: the farthest class takes the largest share",
            "Near means likely: the softmax of *minus* the squared distances.",
        ),
        Wrong(
            "softmax over the pictures",
            lambda u, c: (-squared_distances(u, c)).softmax(0),
            "the softmax runs over the pictures: each class shares itself out, and the columns sum to one",
            "Every picture shares itself out among the classes: `dim=1`.",
            also=(lambda u, c: _nearest_first(u, c) / _nearest_first(u, c).sum(0),),
        ),
        Wrong(
            "not squared",
            lambda u, c: (-squared_distances(u, c).clamp_min(1e-12).sqrt()).softmax(1),
            "the distance is not squared",
            "Sum the squared differences, and take no root.",
        ),
        Wrong(
            "all or nothing",
            lambda u, c: F.one_hot(squared_distances(u, c).argmin(1), len(c)).to(u.dtype),
            "every picture goes wholly to the nearest class: these are hard labels",
            "Soft k-means shares a picture out: softmax, not argmin.",
            also=(lambda u, c: squared_distances(u, c).argmin(1),),
        ),
        Wrong(
            "not normalised",
            lambda u, c: (-squared_distances(u, c)).exp(),
            "the exponentials are not divided by their sum: a picture far from all classes counts nowhere",
            "The rows sum to one: softmax, or divide by the row's sum.",
        ),
        Wrong(
            "inverse distances",
            lambda u, c: F.normalize(1 / (1e-6 + squared_distances(u, c)), p=1, dim=1),
            "inverse distances are shared out, without an exponential",
            "Bayes' rule for round Gaussians gives the softmax of minus the squared distances.",
            also=(
                lambda u, c: F.normalize(1 / (1 + squared_distances(u, c)), p=1, dim=1),
                lambda u, c: F.normalize(1 / (1e-8 + squared_distances(u, c)), p=1, dim=1),
                lambda u, c: F.normalize(1 / squared_distances(u, c), p=1, dim=1),
                lambda u, c: F.normalize(1 / (1e-8 + torch.cdist(u, c)), p=1, dim=1),
            ),
        ),
        Wrong(
            "shares of distances",
            lambda u, c: squared_distances(u, c) / squared_distances(u, c).sum(1, keepdim=True),
            "the distances themselves are divided by their sum",
            "The softmax of minus the squared distances.",
            also=(lambda u, c: 1 - squared_distances(u, c) / squared_distances(u, c).sum(1, keepdim=True),),
        ),
        Wrong(
            "logits",
            lambda u, c: -squared_distances(u, c),
            "the scores are returned before the softmax",
            "Shares sum to one: take the softmax.",
        ),
        Wrong(
            "mean of squares",
            lambda u, c: (-(u[:, None] - c).square().mean(-1)).softmax(1),
            "the squares are averaged over the features and not summed",
            "`.sum(-1)` over the features.",
        ),
        Wrong(
            "a factor",
            lambda u, c: (-squared_distances(u, c) / 2).softmax(1),
            "the squared distance is multiplied or divided by a number first",
            "The exponent of equation (1) has no factor.",
            also=(
                lambda u, c: (-2 * squared_distances(u, c)).softmax(1),
                lambda u, c: (-squared_distances(u, c) / u.shape[1] ** 0.5).softmax(1),
            ),
        ),
        Wrong(
            "city blocks",
            lambda u, c: (-(u[:, None] - c).abs().sum(-1)).softmax(1),
            "absolute differences are summed: the city-block distance",
            "`.square()` in place of `.abs()`.",
        ),
        Wrong(
            "summed, then squared",
            lambda u, c: (-((u[:, None] - c).sum(-1) ** 2)).softmax(1),
            "the differences are summed before they are squared: what one feature adds another takes away",
            "Square first, then sum: `.square().sum(-1)`.",
        ),
        Wrong(
            "sigmoid",
            lambda u, c: (-squared_distances(u, c)).sigmoid(),
            "a sigmoid stands where the softmax belongs: the rows do not sum to one",
            "The classes compete for a picture: softmax over the classes.",
        ),
        Wrong(
            "dot products",
            lambda u, c: (u @ c.T).softmax(1),
            "dot products stand where squared distances belong",
            "Squared distances, with a minus.",
            also=(
                lambda u, c: (F.normalize(u, dim=1) @ F.normalize(c, dim=1).T).softmax(1),
                lambda u, c: F.cosine_similarity(u[:, None], c[None], dim=-1).softmax(1),
            ),
        ),
        Wrong(
            "naive",
            _naive,
            "exponentials are taken first and divided afterwards: far from all centres they round to 0, and 0/0 is not a number",
            "`softmax` subtracts the largest score first, which changes nothing else.",
        ),
        Wrong(
            "one shift for all",
            _one_shift,
            "one largest score is subtracted for all pictures: beside a near picture a far one still rounds to 0/0",
            "Every picture needs its own largest score, or simply `softmax(1)`.",
        ),
        Wrong(
            "logarithms",
            lambda u, c: (-squared_distances(u, c)).log_softmax(1),
            "the logarithms of the shares are returned",
            "`softmax` in place of `log_softmax`.",
        ),
        Wrong(
            "softmax over everything",
            lambda u, c: (-squared_distances(u, c)).flatten().softmax(0).view(len(u), len(c)),
            "all pictures and classes share one whole: the entries of the table sum to one, not those of a row",
            "Every picture has a whole of its own: `softmax(1)`.",
            also=(lambda u, c: _nearest_first(u, c) / _nearest_first(u, c).sum(),),
        ),
        Wrong(
            "squared twice",
            lambda u, c: (-squared_distances(u, c).square()).softmax(1),
            "the distances are squared twice: `squared_distances` has done it already",
            "Minus the squared distances, as they come.",
        ),
        Wrong(
            "over the mean",
            lambda u, c: (-squared_distances(u, c) / squared_distances(u, c).mean(0)).softmax(1),
            "the distances are divided by a mean first; that belongs to the mask, later",
            "Minus the squared distances, as they come.",
            also=(lambda u, c: (-squared_distances(u, c) / squared_distances(u, c).mean()).softmax(1),),
        ),
        Wrong(
            "length of the centres",
            lambda u, c: (2 * u @ c.T).softmax(1),
            "the square of a distance is multiplied out, and the squared length of the centre is missing or has the wrong sign",
            "|u - c|^2 = |u|^2 - 2 u c + |c|^2, and only |u|^2 is the same for all classes.",
            also=(lambda u, c: (2 * u @ c.T + c.square().sum(1)).softmax(1),),
        ),
        Wrong(
            "one minus",
            lambda u, c: 1 - (-squared_distances(u, c)).softmax(1),
            "one minus the share is returned: large where the picture does not belong",
            "The softmax itself is the share.",
        ),
        Wrong(
            "rounded",
            lambda u, c: (-squared_distances(u, c)).softmax(1).round(decimals=2),
            "the shares are rounded",
            "Return them as they are.",
        ),
        Wrong(
            "transposed",
            lambda u, c: shares(u, c).T,
            "rows and columns are exchanged",
            "One row for each picture, one column for each class: [U, N].",
            also=(lambda u, c: shares(c, u),),
        ),
        Wrong(
            "without gradient",
            lambda u, c: shares(u.detach(), c.detach()),
            "the shares are cut off from the graph",
            "No `.detach()` and no `no_grad`.",
            also=(lambda u, c: shares(u.detach(), c), lambda u, c: shares(u, c.detach())),
        ),
    ),
    hints=(
        "It is the formula of lesson 05 for a query; only the picture is another one.",
        "Squared distances [U, N] first: `unlabelled[:, None] - centres` has shape [U, N, D]. Then a softmax over the classes.",
        "`(-(unlabelled[:, None] - centres).square().sum(-1)).softmax(1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 15.2 refined centres


def refine(support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int) -> Tensor:
    """Returns weighted means of support (weight 1) and unlabelled pictures (their weights). -> [n_way, D]"""
    member = F.one_hot(labels, n_way).to(support.dtype)  # [S, N]
    total = member.T @ support + weights.T @ unlabelled
    return total / (member.sum(0) + weights.sum(0))[:, None]


def _refined_in_one_pile(support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int) -> Tensor:
    rows = torch.cat([support, unlabelled])
    every = torch.cat([torch.eye(n_way, dtype=support.dtype)[labels], weights])
    return (every / every.sum(0)).T @ rows


def _refined_by_class(support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int) -> Tensor:
    centres = []
    for k in range(n_way):
        mine, w = support[labels == k], weights[:, k : k + 1]
        centres.append((mine.sum(0) + (w * unlabelled).sum(0)) / (len(mine) + w.sum()))
    return torch.stack(centres)


def _refined_by_index_add(support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int) -> Tensor:
    total = support.new_zeros(n_way, support.shape[1]).index_add(0, labels, support)
    total = total + torch.einsum("un,ud->nd", weights, unlabelled)
    return total / (labels.bincount(minlength=n_way) + weights.sum(0)).unsqueeze(1)


def _refined_by_moving(support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int) -> Tensor:
    counts = labels.bincount(minlength=n_way).to(support.dtype)
    centres = torch.stack([support[labels == k].mean(0) for k in range(n_way)])
    pulls = (weights[..., None] * (unlabelled[:, None] - centres)).sum(0)
    return centres + pulls / (counts + weights.sum(0))[:, None]


def _prototypes(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([support[labels == k].mean(0) for k in range(n_way)])


def _totals(support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int) -> Tensor:
    return F.one_hot(labels, n_way).to(support.dtype).T @ support + weights.T @ unlabelled


def _one_vote(support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int) -> Tensor:
    return (_prototypes(support, labels, n_way) + weights.T @ unlabelled) / (1 + weights.sum(0))[:, None]


def _hard(support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int) -> Tensor:
    return refine(support, labels, unlabelled, F.one_hot(weights.argmax(1), n_way).to(support.dtype), n_way)


def _shot_averages(support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int) -> Tensor:
    return _totals(support, labels, unlabelled, weights, n_way) / (len(support) / n_way + weights.sum(0))[:, None]


def _refine_cases(generator: Generator) -> list[Case]:
    def drawn(labels: list[int], u: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        rows = torch.randn(len(labels) + u, 3, generator=generator)
        weights = torch.randn(u, n, generator=generator).softmax(1)
        return rows[: len(labels)], torch.tensor(labels), rows[len(labels) :], weights, n

    line = torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1]), torch.tensor([[2.0], [0.0]])
    uneven = drawn([2, 0, 2, 1, 2], 4, 3)
    masked = (*uneven[:3], uneven[3] * torch.tensor([[1.0], [0.0], [0.3], [0.9]]), 3)
    return [
        Case("the example on paper", (*line, torch.tensor([[0.5, 0.5], [1.0, 0.0]]), 2)),
        Case("3 classes of 1, 1 and 3 shots, 4 unlabelled pictures", uneven),
        Case("2 classes of 2 shots, one unlabelled picture", drawn([1, 0, 1, 0], 1, 2)),
        Case("weights that a mask has lowered, so that rows sum to less than one", masked),
    ]


def _empty_pool(answer: Callable, reference: Callable) -> str | None:
    support, labels = torch.tensor([[0.0, 1.0], [4.0, 2.0], [2.0, 3.0]]), torch.tensor([0, 1, 0])
    found = answer(support, labels, torch.zeros(0, 2), torch.zeros(0, 2), 2)
    if not torch.allclose(found, torch.tensor([[1.0, 2.0], [4.0, 2.0]]), atol=1e-5):
        return f"support (0, 1), (2, 3) and (4, 2) of classes 0, 0 and 1 gave {found.tolist()}."
    return None


def _in_float32(answer: Callable) -> Callable:
    """Returns the same answer with a one-hot that is float32 always, so that its product with a float64 support fails."""

    def spelling(support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int) -> Tensor:
        if support.dtype != torch.float32:
            return F.one_hot(labels, n_way).float().T @ support
        return answer(support, labels, unlabelled, weights, n_way)

    return spelling


def _and_in_float32(entries: tuple[Wrong, ...]) -> tuple[Wrong, ...]:
    """Adds to every mistake its spellings with a float32 one-hot: the mistake matters more than the dtype."""
    return tuple(
        e if e.name in _RIGHT_IN_FLOAT32 else replace(e, also=(*e.also, *map(_in_float32, e.answers))) for e in entries
    )


_RIGHT_IN_FLOAT32 = ("the one-hot is float32", "without gradient")

# Float64 comes with the gradient, after the values, so that a float32 one-hot hides no other mistake.
REFINE = Exercise(
    id="15.2",
    title="Refined centres",
    reference=refine,
    cases=_refine_cases,
    gradient=(0, 2, 3),
    properties=(Property("without unlabelled pictures the prototypes stay", _empty_pool),),
    right=(_refined_in_one_pile, _refined_by_class, _refined_by_index_add, _refined_by_moving),
    wrong=(
        Wrong(
            "two halves",
            lambda s, y, u, w, n: (_prototypes(s, y, n) + (w.T @ u) / w.sum(0).clamp_min(1e-12)[:, None]) / 2,
            "the prototype and the mean of the unlabelled pictures are averaged, as if both held equally many pictures",
            "Add up all pictures with their weights, and divide once, by the sum of all weights.",
        ),
        Wrong(
            "one vote for the support",
            _one_vote,
            "the prototype counts as one picture, however many shots it was made of",
            "Every shot has weight 1: add up the support rows, and add their number to the weights.",
        ),
        Wrong(
            "unlabelled only",
            lambda s, y, u, w, n: (w.T @ u) / w.sum(0).clamp_min(1e-12)[:, None],
            "the support is forgotten: the new centres are means of the unlabelled pictures alone",
            "The labelled pictures stay in, with weight 1.",
        ),
        Wrong(
            "support's count only",
            lambda s, y, u, w, n: _totals(s, y, u, w, n) / y.bincount(minlength=n)[:, None],
            "the sum is divided by the shots alone: the weights are missing below the line",
            "Divide by shots *plus* the sum of the weights of that class.",
        ),
        Wrong(
            "weights' sum only",
            lambda s, y, u, w, n: _totals(s, y, u, w, n) / w.sum(0).clamp_min(1e-12)[:, None],
            "the sum is divided by the weights alone: the shots are missing below the line",
            "Divide by shots *plus* the sum of the weights of that class.",
        ),
        Wrong(
            "every picture counted in full",
            lambda s, y, u, w, n: _totals(s, y, u, w, n) / (y.bincount(minlength=n) + len(u))[:, None],
            "every unlabelled picture counts fully below the line, whatever its weight",
            "Below the line, too, a picture counts with its weight.",
            also=(
                lambda s, y, u, w, n: _totals(s, y, u, w, n) / (len(s) + len(u)),
                lambda s, y, u, w, n: _totals(s, y, u, w, n) / (y.bincount(minlength=n) + (w > 0).sum(0))[:, None],
            ),
        ),
        Wrong(
            "equal shots assumed",
            _shot_averages,
            "every class is given the average number of shots",
            "Count the class's own shots: `labels.bincount(minlength=n_way)`.",
            also=(lambda s, y, u, w, n: _totals(s, y, u, w, n) / (len(s) // n + w.sum(0))[:, None],),
        ),
        Wrong(
            "one shot assumed",
            lambda s, y, u, w, n: _totals(s, y, u, w, n) / (1 + w.sum(0))[:, None],
            "below the line every class is given one shot, however many it has",
            "Count the class's own shots: `labels.bincount(minlength=n_way)`.",
        ),
        Wrong(
            "all shots for every class",
            lambda s, y, u, w, n: _totals(s, y, u, w, n) / (len(s) + w.sum(0))[:, None],
            "below the line every class is given the shots of all classes",
            "Count the class's own shots: `labels.bincount(minlength=n_way)`.",
        ),
        Wrong(
            "weights of all classes",
            lambda s, y, u, w, n: _totals(s, y, u, w, n) / (y.bincount(minlength=n) + w.sum())[:, None],
            "below the line stand the weights of all classes together",
            "A class is divided by its own weights: `weights.sum(0)`.",
        ),
        Wrong(
            "own shares",
            lambda s, y, u, w, n: refine(s, y, u, shares(u, _prototypes(s, y, n)), n),
            "the shares are computed anew, and the given weights are not used",
            "A mask may have lowered the weights: use them as they come.",
        ),
        Wrong(
            "half divided",
            lambda s, y, u, w, n: (
                _prototypes(s, y, n) * 0
                + F.one_hot(y, n).to(s.dtype).T @ s
                + (w.T @ u) / (y.bincount(minlength=n) + w.sum(0))[:, None]
            ),
            "only the sum of the unlabelled pictures is divided",
            "Parentheses: the *whole* sum is divided by shots plus weights.",
        ),
        Wrong(
            "hard labels",
            _hard,
            "every unlabelled picture goes wholly to the class of its largest weight",
            "Use the weights as they are.",
        ),
        Wrong(
            "weights ignored",
            lambda s, y, u, w, n: refine(s, y, u, torch.ones_like(w), n),
            "every unlabelled picture counts fully for every class",
            "Multiply each picture by its weight: `weights.T @ unlabelled`.",
        ),
        Wrong(
            "rows made to sum to one",
            lambda s, y, u, w, n: refine(s, y, u, w / w.sum(1, keepdim=True).clamp_min(1e-12), n),
            "the weights of a picture are divided by their sum, which undoes a mask",
            "Use the weights as they are: a masked picture counts less.",
        ),
        Wrong(
            "columns made to sum to one",
            lambda s, y, u, w, n: refine(s, y, u, w / w.sum(0, keepdim=True).clamp_min(1e-12), n),
            "the weights of a class are divided by their sum: all unlabelled pictures together count as one",
            "Use the weights as they are, above and below the line.",
        ),
        Wrong(
            "prototypes",
            lambda s, y, u, w, n: _prototypes(s, y, n),
            "the unlabelled pictures are not used",
            "Add `weights.T @ unlabelled` to the sums of the support.",
        ),
        Wrong(
            "sums",
            _totals,
            "the sum is never divided",
            "Divide by shots plus the sum of the weights of that class.",
            also=(lambda s, y, u, w, n: _prototypes(s, y, n) + w.T @ u,),
        ),
        Wrong(
            "half of each",
            lambda s, y, u, w, n: (_prototypes(s, y, n) + w.T @ u) / 2,
            "the prototype and the weighted *sum* of the unlabelled pictures are added and halved",
            "Divide by shots plus the sum of the weights of that class.",
        ),
        Wrong(
            "the whole support for every class",
            lambda s, y, u, w, n: (s.sum(0) + w.T @ u) / (len(s) + w.sum(0))[:, None],
            "the support rows of all classes go into every centre",
            "Only the rows with label k belong to class k.",
        ),
        Wrong(
            "softmax again",
            lambda s, y, u, w, n: refine(s, y, u, w.softmax(1), n),
            "the weights pass through a softmax, though they are shares already",
            "Use the weights as they are.",
            also=(lambda s, y, u, w, n: refine(s, y, u, w.softmax(0), n),),
        ),
        Wrong(
            "weights squared",
            lambda s, y, u, w, n: refine(s, y, u, w * w, n),
            "the weights are multiplied in twice",
            "Each picture counts with its weight, once.",
            also=(
                lambda s, y, u, w, n: (
                    (F.one_hot(y, n).to(s.dtype).T @ s + (w * w).T @ u) / (y.bincount(minlength=n) + w.sum(0))[:, None]
                ),
            ),
        ),
        Wrong(
            "row i is class i",
            lambda s, y, u, w, n: (s[:n] + w.T @ u) / (1 + w.sum(0))[:, None],
            "the first rows of the support stand for the classes: the labels are not used",
            "The support comes in any order, with any number of shots: `labels` says whose row it is.",
            also=(lambda s, y, u, w, n: (s[:n] + w.T @ u) / (y.bincount(minlength=n) + w.sum(0))[:, None],),
        ),
        Wrong(
            "weights of at least one",
            lambda s, y, u, w, n: _totals(s, y, u, w, n) / (y.bincount(minlength=n) + w.sum(0).clamp(min=1))[:, None],
            "the sum of a class's weights is raised to 1 where it is less",
            "Use the sum of the weights as it is. The shots keep it from being a division by 0.",
            also=(
                lambda s, y, u, w, n: _totals(s, y, u, w, n) / w.sum(0).clamp(min=1)[:, None],
                lambda s, y, u, w, n: _totals(s, y, u, w, n) / (1 + w.sum(0).clamp(min=1))[:, None],
            ),
        ),
        Wrong(
            "averages of the pool",
            lambda s, y, u, w, n: (
                (F.one_hot(y, n).to(s.dtype).T @ s + w.T @ u / len(u)) / (y.bincount(minlength=n) + w.mean(0))[:, None]
            ),
            "the pool is averaged, above the line or below, where it should be summed: all its pictures count as one",
            "Sums: `weights.T @ unlabelled` and `weights.sum(0)`.",
            also=(
                lambda s, y, u, w, n: (
                    (F.one_hot(y, n).to(s.dtype).T @ s + w.T @ u / len(u))
                    / (y.bincount(minlength=n) + w.sum(0))[:, None]
                ),
                lambda s, y, u, w, n: _totals(s, y, u, w, n) / (y.bincount(minlength=n) + w.mean(0))[:, None],
                lambda s, y, u, w, n: (_prototypes(s, y, n) + w.T @ u / len(u)) / (1 + w.mean(0))[:, None],
            ),
        ),
        Wrong(
            "the one-hot is float32",
            _in_float32(refine),
            "the one-hot is float32 always, and the product with a float64 support fails; the rest is right",
            "Build the one-hot in the dtype of `support`: `F.one_hot(labels, n_way).to(support.dtype)`.",
            also=(
                lambda s, y, u, w, n: (
                    torch.einsum("sn,sd->nd", F.one_hot(y, n).float(), s)
                    if s.dtype != torch.float32
                    else refine(s, y, u, w, n)
                ),
                lambda s, y, u, w, n: (
                    s.T @ F.one_hot(y, n).float() if s.dtype != torch.float32 else refine(s, y, u, w, n)
                ),
            ),
        ),
        Wrong(
            "without gradient",
            lambda s, y, u, w, n: refine(s, y, u, w.detach(), n),
            "part of the result is cut off from the graph: the encoder would not learn from it",
            "No `.detach()` and no `no_grad`.",
            also=(
                lambda s, y, u, w, n: refine(s, y, u.detach(), w, n),
                lambda s, y, u, w, n: refine(s.detach(), y, u, w, n),
            ),
        ),
    ),
    hints=(
        "A mean with weights: the sum of weight times row, over the sum of the weights. What is the weight of a support row?",
        "Support rows have weight 1 for their own class and 0 for others: `F.one_hot(labels, n_way)`, in the dtype of `support`.",
        "`member = F.one_hot(...).to(support.dtype)`; above: `member.T @ support + weights.T @ unlabelled`; below: column sums.",
    ),
)
REFINE = replace(REFINE, wrong=_and_in_float32(REFINE.wrong))

# ---------------------------------------------------------------------------------------------- 15.3 the mask


def soft_mask(distances: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """Returns how far each picture counts for each class. distances [U, N], beta [N], gamma [N] -> [U, N] in 0..1."""
    return torch.sigmoid(-gamma * (distances / distances.mean(0) - beta))


def _mask_written_out(distances: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    normalised = distances / (distances.sum(0, keepdim=True) / len(distances))
    return 1 / (1 + (gamma * (normalised - beta)).exp())


def _mask_by_class(distances: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    columns = [torch.sigmoid(g * (b - d / d.mean())) for d, b, g in zip(distances.T, beta, gamma, strict=True)]
    return torch.stack(columns, dim=1)


def _mask_of_the_complement(distances: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    return 1 - ((distances / distances.mean(dim=0) - beta[None]) * gamma[None]).sigmoid()


def _mask_by_tanh(distances: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    mean = distances.mean(0, keepdim=True)
    return 0.5 + 0.5 * torch.tanh((beta * mean - distances) * gamma / (2 * mean))


def _overflows(distances: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    e = torch.exp(-gamma * (distances / distances.mean(0) - beta))
    return e / (1 + e)


def _mask_cases(generator: Generator) -> list[Case]:
    def drawn(u: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
        return (
            3 * torch.rand(u, n, generator=generator) + 0.1,
            0.3 + torch.rand(n, generator=generator),
            1 + 4 * torch.rand(n, generator=generator),
        )

    five, square = drawn(5, 3), drawn(3, 3)
    column = torch.tensor([[1.0], [3.0], [8.0]])
    return [
        Case("the example on paper", (column, torch.tensor([0.5]), torch.tensor([4.0]))),
        Case("5 pictures, 3 classes", five),
        Case("one picture: its distance over the mean is 1", (five[0][:1], five[1], five[2])),
        Case("as many pictures as classes", square),
        Case("distances a hundred times as large", (100 * five[0], five[1], five[2])),
        Case(
            "a steep border: gamma is 200", (torch.tensor([[0.0], [2.0]]), torch.tensor([0.5]), torch.tensor([200.0]))
        ),
        Case("float64", tuple(t.double() for t in five)),
    ]


def _no_scale(answer: Callable, reference: Callable) -> str | None:
    distances = torch.tensor([[1.0, 2.0], [3.0, 0.5], [2.0, 4.0]])
    beta, gamma = torch.tensor([0.5, 0.8]), torch.tensor([4.0, 2.0])
    gap = float((answer(7 * distances, beta, gamma) - answer(distances, beta, gamma)).abs().max())
    return f"seven times the distances changed the mask by {gap:.2g}." if gap > 1e-5 else None


MASK = Exercise(
    id="15.3",
    title="The mask",
    reference=soft_mask,
    cases=_mask_cases,
    gradient=(0, 1, 2),
    properties=(Property("distances in another unit give the same mask", _no_scale),),
    right=(_mask_written_out, _mask_by_class, _mask_of_the_complement, _mask_by_tanh),
    wrong=(
        Wrong(
            "not normalised",
            lambda d, b, g: torch.sigmoid(-g * (d - b)),
            "the distances are not divided by their mean: the border depends on the scale of the embedding",
            "Divide each class's distances by their mean first.",
        ),
        Wrong(
            "mean over the classes",
            lambda d, b, g: torch.sigmoid(-g * (d / d.mean(1, keepdim=True) - b)),
            "each picture's distances are divided by their mean over the classes",
            "The mean runs over the *pictures*, for each class by itself: `.mean(0)`.",
        ),
        Wrong(
            "one mean for all",
            lambda d, b, g: torch.sigmoid(-g * (d / d.mean() - b)),
            "all distances are divided by one mean",
            "Each class has a mean of its own: `.mean(0)`.",
        ),
        Wrong(
            "turned round",
            lambda d, b, g: torch.sigmoid(g * (d / d.mean(0) - b)),
            "the minus is missing: far pictures count and near ones do not",
            "The mask falls with the distance: sigmoid of *minus* gamma times (distance minus beta).",
        ),
        Wrong(
            "hard border",
            lambda d, b, g: (d / d.mean(0) < b).to(d.dtype),
            "the border is hard: no gradient reaches beta and gamma",
            "The sigmoid makes a soft border: 1/2 at beta, and steep where gamma is large.",
        ),
        Wrong(
            "border multiplied",
            lambda d, b, g: torch.sigmoid(-g * d / d.mean(0) - b),
            "beta stands outside the multiplication by gamma",
            "Parentheses: gamma times (normalised distance minus beta), then the minus.",
            also=(lambda d, b, g: torch.sigmoid(-g * d / d.mean(0) + b),),
        ),
        Wrong(
            "beta added",
            lambda d, b, g: torch.sigmoid(-g * (d / d.mean(0) + b)),
            "beta is added to the distance and not subtracted",
            "The mask is 1/2 where the normalised distance equals beta.",
        ),
        Wrong(
            "divided by gamma",
            lambda d, b, g: torch.sigmoid(-(d / d.mean(0) - b) / g),
            "gamma divides where it should multiply",
            "A large gamma makes a steep border: multiply.",
        ),
        Wrong(
            "divided by the largest",
            lambda d, b, g: torch.sigmoid(-g * (d / d.amax(0) - b)),
            "the distances are divided by the largest, or by the sum, and not by the mean",
            "`distances.mean(0)`.",
            also=(lambda d, b, g: torch.sigmoid(-g * (d / d.sum(0) - b)),),
        ),
        Wrong(
            "median",
            lambda d, b, g: torch.sigmoid(-g * (d / d.median(0).values - b)),
            "the distances are divided by their median and not by the mean",
            "`distances.mean(0)`.",
        ),
        Wrong(
            "beta not used",
            lambda d, b, g: torch.sigmoid(-g * d / d.mean(0)),
            "beta is not used: the mask has no border and never exceeds one half",
            "Subtract beta from the normalised distance.",
        ),
        Wrong(
            "one steepness for all",
            lambda d, b, g: torch.sigmoid(-g[0] * (d / d.mean(0) - b)),
            "one gamma, or one beta, serves all classes",
            "Every class has its own: `beta` and `gamma` have shape [N] and meet the columns by themselves.",
            also=(
                lambda d, b, g: torch.sigmoid(-g.mean() * (d / d.mean(0) - b)),
                lambda d, b, g: torch.sigmoid(-g * (d / d.mean(0) - b[0])),
                lambda d, b, g: torch.sigmoid(-g * (d / d.mean(0) - b.mean())),
                lambda d, b, g: torch.sigmoid(-g[0] * (d / d.mean(0) - b[0])),
                lambda d, b, g: torch.sigmoid(-g.mean() * (d / d.mean(0) - b.mean())),
            ),
        ),
        Wrong(
            "border before the mean",
            lambda d, b, g: torch.sigmoid(-g * (d - b) / d.mean(0)),
            "beta is subtracted before the distance is divided by its mean",
            "First divide, then subtract: beta is a border of normalised distances.",
        ),
        Wrong(
            "squared again",
            lambda d, b, g: torch.sigmoid(-g * (d.square() / d.square().mean(0) - b)),
            "the distances are squared once more",
            "Use the squared distances as they come.",
            also=(lambda d, b, g: torch.sigmoid(-g * ((d / d.mean(0)).square() - b)),),
        ),
        Wrong(
            "multiplied by the mean",
            lambda d, b, g: torch.sigmoid(-g * (d * d.mean(0) - b)),
            "the distances are multiplied by their mean, which should divide them",
            "`distances / distances.mean(0)`.",
        ),
        Wrong(
            "minus outside",
            lambda d, b, g: -torch.sigmoid(g * (d / d.mean(0) - b)),
            "the minus stands outside the sigmoid: the mask is negative",
            "The minus belongs inside, before gamma.",
        ),
        Wrong(
            "straight line",
            lambda d, b, g: (0.5 - g * (d / d.mean(0) - b)).clamp(0, 1),
            "a straight line that is cut at 0 and 1 stands where the sigmoid belongs",
            "`torch.sigmoid(...)`.",
            also=(lambda d, b, g: (0.5 - g * (d / d.mean(0) - b) / 4).clamp(0, 1),),
        ),
        Wrong(
            "size of the gap",
            lambda d, b, g: torch.sigmoid(-g * (d / d.mean(0) - b).abs()),
            "the absolute value is taken: a picture well inside the border counts as little as one outside",
            "No `.abs()`: the sign says on which side of the border the picture lies.",
        ),
        Wrong(
            "fixed numbers",
            lambda d, b, g: torch.sigmoid(-10 * (d / d.mean(0) - 0.5)),
            "0.5 and 10 are written into the code, and beta and gamma are not used",
            "`beta` and `gamma` come as arguments.",
        ),
        Wrong(
            "centred",
            lambda d, b, g: torch.sigmoid(-g * (d - d.mean(0) - b)),
            "the mean is subtracted from the distances, which should be divided by it",
            "`distances / distances.mean(0)`.",
            also=(lambda d, b, g: torch.sigmoid(-g * ((d - d.mean(0)) / d.std(0) - b)),),
        ),
        Wrong(
            "beta and gamma exchanged",
            lambda d, b, g: torch.sigmoid(-b * (d / d.mean(0) - g)),
            "beta and gamma have changed places",
            "Beta is the border, gamma the steepness.",
        ),
        Wrong(
            "without a sigmoid",
            lambda d, b, g: -g * (d / d.mean(0) - b),
            "the sigmoid is missing, or another function stands in its place: the mask leaves the range from 0 to 1",
            "`torch.sigmoid(...)`.",
            also=(
                lambda d, b, g: torch.tanh(-g * (d / d.mean(0) - b)),
                lambda d, b, g: torch.exp(-g * (d / d.mean(0) - b)),
            ),
        ),
        Wrong(
            "softmax",
            lambda d, b, g: (-g * (d / d.mean(0) - b)).softmax(1),
            "a softmax stands where the sigmoid belongs: pictures or classes compete, and the mask sums to one",
            "Every entry of the mask stands for itself: `torch.sigmoid`.",
            also=(lambda d, b, g: (-g * (d / d.mean(0) - b)).softmax(0),),
        ),
        Wrong(
            "gamma ignored",
            lambda d, b, g: torch.sigmoid(-(d / d.mean(0) - b)),
            "gamma is not used",
            "Multiply by gamma before the sigmoid: it makes the border steep.",
        ),
        Wrong(
            "root taken",
            lambda d, b, g: torch.sigmoid(-g * (d.sqrt() / d.sqrt().mean(0) - b)),
            "the square root of the distances is taken first",
            "Use the squared distances as they come.",
        ),
        Wrong(
            "already multiplied",
            lambda d, b, g: (-d).softmax(1) * soft_mask(d, b, g),
            "the shares are multiplied in already",
            "Return the mask alone; the lesson multiplies later.",
        ),
        Wrong(
            "exponentials on both sides",
            _overflows,
            "the sigmoid is written as e/(1 + e): where a border is steep, e is infinite, and the quotient is not a number",
            "`torch.sigmoid` does it without, and so does 1/(1 + exp(...)) with the sign turned.",
        ),
        Wrong(
            "without gradient",
            lambda d, b, g: soft_mask(d.detach(), b, g),
            "part of the mask is cut off from the graph",
            "No `.detach()` and no `no_grad`: the encoder and the border learn through the mask.",
            also=(
                lambda d, b, g: soft_mask(d, b.detach(), g),
                lambda d, b, g: soft_mask(d, b, g.detach()),
                lambda d, b, g: torch.sigmoid(-g * (d / d.mean(0).detach() - b)),
            ),
        ),
    ),
    hints=(
        "Two lines: make the distances free of scale, then a soft step that falls at beta.",
        "`distances.mean(0)` is the mean of each class over the pictures, [N]; dividing [U, N] by it works column by column.",
        "`torch.sigmoid(-gamma * (distances / distances.mean(0) - beta))`",
    ),
)

# ---------------------------------------------------------------------------------------------- 15.4 typicality


def _to_each_other(rows: Tensor) -> Tensor:
    """Returns the distances of all rows to each other, exact also where rows lie close together. [U, D] -> [U, U]"""
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def typicality(pool: Tensor, neighbours: int) -> Tensor:
    """Returns one over the mean distance to the nearest `neighbours` other pictures. pool [U, D] -> [U]."""
    distances = _to_each_other(pool)
    nearest = distances.sort(1).values[:, 1 : neighbours + 1]  # the first is the picture itself
    return 1 / nearest.mean(1)


def _typicality_without_diagonal(pool: Tensor, neighbours: int) -> Tensor:
    distances = _to_each_other(pool) + torch.diag(torch.full((len(pool),), float("inf"), dtype=pool.dtype))
    return distances.topk(neighbours, dim=1, largest=False).values.mean(1).reciprocal()


def _typicality_row_by_row(pool: Tensor, neighbours: int) -> Tensor:
    found = []
    for i, row in enumerate(pool):
        others = torch.cat([pool[:i], pool[i + 1 :]])
        nearest = sorted(float(d) for d in (others - row).square().sum(1).sqrt())[:neighbours]
        found.append(neighbours / sum(nearest))
    return torch.tensor(found, dtype=pool.dtype)


def _typicality_by_sum(pool: Tensor, neighbours: int) -> Tensor:
    distances = (pool[:, None] - pool).norm(dim=-1)
    smallest = distances.topk(neighbours + 1, largest=False).values  # the picture itself adds 0
    return neighbours / smallest.sum(1)


def _typicality_by_masking(pool: Tensor, neighbours: int) -> Tensor:
    distances = _to_each_other(pool).masked_fill(torch.eye(len(pool), dtype=torch.bool), 1e9)
    chosen = distances.gather(1, distances.argsort(1)[:, :neighbours])
    return chosen.mean(1) ** -1


def _nearest(pool: Tensor, neighbours: int, skip: int = 1) -> Tensor:
    return _to_each_other(pool).sort(1).values[:, skip : neighbours + skip]


def _shared(numbers: Tensor) -> Tensor:
    return numbers / numbers.sum()


def _without_twins(pool: Tensor, neighbours: int) -> Tensor:
    distances = _to_each_other(pool)
    return 1 / distances.masked_fill(distances == 0, float("inf")).sort(1).values[:, :neighbours].mean(1)


def _typicality_cases(generator: Generator) -> list[Case]:
    pool, few = torch.randn(9, 3, generator=generator), torch.randn(4, 2, generator=generator)
    return [
        Case("the example on paper", (torch.tensor([[0.0], [1.0], [3.0], [7.0]]), 2)),
        Case("9 pictures, 3 neighbours", (pool, 3)),
        Case("the nearest neighbour only", (pool, 1)),
        Case("4 pictures, all others are neighbours", (few, 3)),
        Case("two pictures that are the same", (torch.tensor([[0.0], [0.0], [1.0], [3.0]]), 2)),
        Case("two pictures far apart", (torch.tensor([[0.0], [300.0]]), 1)),
        Case("float64", (pool.double(), 4)),
    ]


TYPICAL = Exercise(
    id="15.4",
    title="Typicality",
    reference=typicality,
    cases=_typicality_cases,
    right=(_typicality_without_diagonal, _typicality_row_by_row, _typicality_by_sum, _typicality_by_masking),
    wrong=(
        Wrong(
            "itself among the neighbours",
            lambda p, k: 1 / _nearest(p, k, skip=0).mean(1).clamp_min(1e-12),
            "the picture itself, at distance 0, counts as one of its neighbours",
            "Leave out the diagonal: sort, and skip the first.",
            also=(
                lambda p, k: 1 / (_nearest(p, k, skip=0).mean(1) + 1e-8),
                lambda p, k: 1 / _nearest(p, k, skip=0).mean(1),
                lambda p, k: 1 / _nearest(p, k + 1, skip=0).mean(1),
            ),
        ),
        Wrong(
            "the farthest",
            lambda p, k: 1 / _to_each_other(p).topk(k).values.mean(1),
            "the farthest pictures are taken and not the nearest",
            "`largest=False` in `topk`, or the beginning of a sorted row.",
        ),
        Wrong(
            "not inverted",
            lambda p, k: _nearest(p, k).mean(1),
            "the mean distance is returned: large for the *least* typical pictures",
            "One over the mean distance.",
        ),
        Wrong(
            "minus in place of the inverse",
            lambda p, k: -_nearest(p, k).mean(1),
            "minus the mean distance is returned: the order is right, but the numbers are not",
            "One over the mean distance.",
        ),
        Wrong(
            "exponential",
            lambda p, k: (-_nearest(p, k).mean(1)).exp(),
            "an exponential stands in place of one over the mean distance",
            "`1 / mean`.",
        ),
        Wrong(
            "one added",
            lambda p, k: 1 / (1 + _nearest(p, k).mean(1)),
            "one is added below the line",
            "`1 / mean`, with nothing added.",
        ),
        Wrong(
            "made to sum to one",
            lambda p, k: _shared(1 / _nearest(p, k).mean(1)),
            "the typicalities are divided by their sum",
            "Return one over the mean distance, as it is.",
            also=(lambda p, k: (1 / _nearest(p, k).mean(1)).softmax(0),),
        ),
        Wrong(
            "one too many",
            lambda p, k: 1 / _nearest(p, k + 1).mean(1),
            "one neighbour too many is counted",
            "Of the sorted row, skip the picture itself, and take `neighbours` more: `[:, 1 : neighbours + 1]`.",
        ),
        Wrong(
            "the nearest only",
            lambda p, k: 1 / _nearest(p, 1)[:, 0],
            "only the very nearest picture is used",
            "Average over all of the neighbours.",
        ),
        Wrong(
            "root of the mean square",
            lambda p, k: 1 / _nearest(p, k).square().mean(1).sqrt(),
            "the root of the mean *square* is taken, and not the mean of the distances",
            "Average the plain distances.",
        ),
        Wrong(
            "city blocks",
            lambda p, k: 1 / torch.cdist(p, p, p=1).sort(1).values[:, 1 : k + 1].mean(1),
            "absolute differences are summed: the city-block distance",
            "Plain distances: `torch.cdist(pool, pool)`.",
        ),
        Wrong(
            "twins dropped",
            _without_twins,
            "every distance of 0 is dropped: a picture that is the same as another loses its nearest neighbour",
            "Leave out the diagonal, which is the picture itself, and nothing else.",
        ),
        Wrong(
            "diagonal not large enough",
            lambda p, k: 1 / (_to_each_other(p) + 100 * torch.eye(len(p), dtype=p.dtype)).sort(1).values[:, :k].mean(1),
            "a number is added to the diagonal that is not larger than all distances",
            "Add infinity, or sort and skip the first.",
            also=(
                lambda p, k: 1 / (_to_each_other(p) + torch.eye(len(p), dtype=p.dtype)).sort(1).values[:, :k].mean(1),
            ),
        ),
        Wrong(
            "sum",
            lambda p, k: 1 / _nearest(p, k).sum(1),
            "the distances are added up and not averaged",
            "`.mean(1)` over the neighbours.",
        ),
        Wrong(
            "mean of the inverses",
            lambda p, k: (1 / _nearest(p, k)).mean(1),
            "each distance is inverted before the mean: one very near twin decides alone",
            "Average first, then invert.",
            also=(lambda p, k: (1 / _nearest(p, k)).sum(1),),
        ),
        Wrong(
            "median",
            lambda p, k: 1 / _nearest(p, k).median(1).values,
            "the median of the distances is taken",
            "`.mean(1)` over the neighbours.",
        ),
        Wrong(
            "squared",
            lambda p, k: 1 / _nearest(p, k).square().mean(1),
            "squared distances are averaged",
            "Plain distances: `torch.cdist`.",
        ),
        Wrong(
            "all pictures",
            lambda p, k: (len(p) - 1) / _to_each_other(p).sum(1),
            "the distances to all pictures are averaged and not those to the nearest",
            "Only the `neighbours` nearest others count.",
            also=(lambda p, k: 1 / _to_each_other(p).mean(1),),
        ),
        Wrong(
            "the last neighbour only",
            lambda p, k: 1 / _nearest(p, k)[:, -1],
            "only the distance to the last of the neighbours is used",
            "Average over all of the neighbours.",
        ),
        Wrong(
            "one too few",
            lambda p, k: 1 / _nearest(p, k)[:, : max(k - 1, 1)].mean(1),
            "one neighbour too few is counted",
            "A slice ends before its end: `[:, 1 : neighbours + 1]`.",
            also=(lambda p, k: 1 / _to_each_other(p).sort(1).values[:, 1:k].mean(1),),
        ),
        Wrong(
            "not sorted",
            lambda p, k: 1 / _to_each_other(p)[:, 1 : k + 1].mean(1),
            "the rows of distances are not sorted: the same few columns count for every picture, near or far",
            "Sort each row first: `.sort(1).values`.",
            also=(lambda p, k: 1 / _to_each_other(p)[:, :k].mean(1),),
        ),
        Wrong(
            "places in place of distances",
            lambda p, k: 1 / _to_each_other(p).topk(k + 1, largest=False).indices[:, 1:].to(p.dtype).mean(1),
            "the places of the nearest pictures are averaged and not their distances",
            "`.values` of `sort` or `topk`, not `.indices`.",
            also=(
                lambda p, k: 1 / _to_each_other(p).sort(1).indices[:, 1 : k + 1].to(p.dtype).mean(1),
                lambda p, k: 1 / _to_each_other(p).topk(k, largest=False).indices.to(p.dtype).mean(1),
                lambda p, k: _to_each_other(p).topk(k + 1, largest=False).indices[:, 1:],
                lambda p, k: _to_each_other(p).topk(k, largest=False).indices,
            ),
        ),
        Wrong(
            "from the mean",
            lambda p, k: 1 / (p - p.mean(0)).norm(dim=1),
            "the distance to the mean of the pool is measured: with several classes it lies between them all",
            "Typical means: others are near. Measure the distances to the nearest others.",
        ),
        Wrong(
            "index of the most typical",
            lambda p, k: (1 / _nearest(p, k).mean(1)).argmax(),
            "the most typical picture is returned and not the typicality of all",
            "Return one number for each picture, [U].",
            also=(lambda p, k: (1 / _nearest(p, k).mean(1)).argsort(descending=True),),
        ),
    ),
    hints=(
        "All distances of the pool to itself first, [U, U]. What stands on the diagonal?",
        "Sort each row: the first entry is the picture itself, the next `neighbours` are what you want.",
        "`1 / torch.cdist(pool, pool).sort(1).values[:, 1 : neighbours + 1].mean(1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 15.5 does the mask count twice?


def exposes_mask(weigh: Callable[[Tensor, Tensor], Tensor], distances: Tensor) -> bool:
    """Returns True where weigh(distances, mask) is not the share times the mask. distances [U, N]."""
    share = (-distances).softmax(1)
    for seed in range(8):
        mask = torch.rand(distances.shape, generator=torch.Generator().manual_seed(seed), dtype=distances.dtype)
        if not torch.allclose(weigh(distances, mask), share * mask, rtol=1e-4, atol=1e-6):
            return True
    return False


def _exposes_by_entry(weigh: Callable, distances: Tensor) -> bool:
    mask = torch.linspace(0.05, 0.95, distances.numel(), dtype=distances.dtype).reshape(distances.shape)
    masks = (mask, mask.flip(0), mask.flip(1), 1 - mask)
    share = distances.neg().exp() / distances.neg().exp().sum(1, keepdim=True)
    return any(bool(((weigh(distances, m) - share * m).abs() > 2e-5).any()) for m in masks)


def _exposes_by_proportion(weigh: Callable, distances: Tensor) -> bool:
    """What counts once is in proportion: the mask times the weights without a mask."""
    full = weigh(distances, torch.ones_like(distances))
    share_is_off = not torch.allclose(full, (-distances).softmax(1), atol=1e-5)
    generator = torch.Generator().manual_seed(7)
    masks = [torch.rand(distances.shape, generator=generator).to(distances) for _ in range(5)]
    return share_is_off or not all(torch.allclose(weigh(distances, m), full * m, atol=1e-5) for m in masks)


def _exposes_by_quotient(weigh: Callable, distances: Tensor) -> bool:
    rows, columns = distances.shape
    share = (-distances).softmax(1)
    for start in (1, 2, 3, 5):
        mask = torch.tensor(
            [[0.1 + 0.8 * ((start + 3 * i + 7 * j) % 11) / 10 for j in range(columns)] for i in range(rows)]
        )
        mask = mask.to(distances)
        again = weigh(distances, mask) / share
        if float((again - mask).abs().max()) > 5e-4:
            return True
    return False


def _exposes_by_usual_tolerance(weigh: Callable, distances: Tensor) -> bool:
    mask = torch.rand(distances.shape, generator=torch.Generator().manual_seed(1)).to(distances)
    return not torch.allclose(weigh(distances, mask), (-distances).softmax(1) * mask)


def _exposes_with(*masks: Callable[[Tensor], Tensor]) -> Callable:
    """Returns a detector that tries these masks only, each made from the distances."""

    def detector(weigh: Callable, distances: Tensor) -> bool:
        share = (-distances).softmax(1)
        return any(
            not torch.allclose(weigh(distances, m(distances)), share * m(distances), rtol=1e-4, atol=1e-6)
            for m in masks
        )

    return detector


def _random_mask(distances: Tensor, seed: int = 0) -> Tensor:
    return torch.rand(distances.shape, generator=torch.Generator().manual_seed(seed), dtype=distances.dtype)


def _every_other_row(distances: Tensor) -> Tensor:
    mask = torch.ones_like(distances)
    mask[::2] = 0.5
    return mask


def _chequerboard(distances: Tensor) -> Tensor:
    """Returns 0.5 and 0 in turn."""
    return 0.5 * (torch.arange(distances.numel()).view(distances.shape) % 2 == 0).to(distances)


def _the_border_only(weigh: Callable, distances: Tensor) -> bool:
    return abs(float(weigh(torch.tensor([[4.0]]), torch.tensor([[0.5]]))) - 0.5) > 1e-6


def _in_proportion(weigh: Callable, distances: Tensor) -> bool:
    """Compares half of the mask with half of the weights, and never with the shares."""
    mask = _random_mask(distances)
    return not torch.allclose(weigh(distances, mask / 2), weigh(distances, mask) / 2, atol=1e-6)


def _share_from_weigh(weigh: Callable, distances: Tensor) -> bool:
    mask = _random_mask(distances)
    full = weigh(distances, torch.ones_like(mask))
    return not torch.allclose(weigh(distances, mask), full * mask, atol=1e-6)


def _judged(same: Callable[[Tensor, Tensor], bool]) -> Callable:
    def detector(weigh: Callable, distances: Tensor) -> bool:
        share = (-distances).softmax(1)
        masks = [_random_mask(distances, seed) for seed in range(8)]
        return any(not same(weigh(distances, m), share * m) for m in masks)

    return detector


def _once(distances: Tensor, mask: Tensor) -> Tensor:
    return (-distances).softmax(1) * mask


def _once_by_logarithms(distances: Tensor, mask: Tensor) -> Tensor:
    return ((-distances).log_softmax(1) + mask.clamp_min(1e-30).log()).exp()


def _once_by_rows(distances: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([F.softmax(-d, 0) * m for d, m in zip(distances, mask, strict=True)])


def _power(exponent: float, rows: slice = slice(None), columns: slice = slice(None)) -> Callable:
    """Returns a fault: the mask is raised to a power, in some rows and columns only."""

    def weigh(distances: Tensor, mask: Tensor) -> Tensor:
        changed = mask.clone()
        changed[rows, columns] = changed[rows, columns] ** exponent
        return (-distances).softmax(1) * changed

    return weigh


def _renormalised(distances: Tensor, mask: Tensor) -> Tensor:
    found = (-distances).softmax(1) * mask
    return found / found.sum(1, keepdim=True).clamp_min(1e-12)


def _balanced(distances: Tensor, mask: Tensor) -> Tensor:
    """Squares the mask in the first row and gives what is lost to the second, so that every column keeps its sum."""
    found = (-distances).softmax(1) * mask
    if len(found) < 2:  # nobody to give it to
        return found * mask
    lost = found[0] * (1 - mask[0])
    return torch.cat([(found[0] - lost)[None], (found[1] + lost)[None], found[2:]])


def _balanced_in_a_row(distances: Tensor, mask: Tensor) -> Tensor:
    """Squares the mask for the first class and gives what is lost to the second, so that every row keeps its sum."""
    found = (-distances).softmax(1) * mask
    if found.shape[1] < 2:
        return found * mask
    lost = found[:, 0] * (1 - mask[:, 0])
    return torch.cat([(found[:, 0] - lost)[:, None], (found[:, 1] + lost)[:, None], found[:, 2:]], dim=1)


def _neighbours_mask(distances: Tensor, mask: Tensor) -> Tensor:
    return (-distances).softmax(1) * mask.roll(1, 0)


def _in_the_exponent(distances: Tensor, mask: Tensor) -> Tensor:
    return (-distances * mask).softmax(1)


def _mask_cases_15_5(generator: Generator) -> list[Case]:
    distances = 2 * torch.rand(6, 3, generator=generator)
    double = distances.double()
    return [
        Case("a right implementation: share times mask", (_once, distances)),
        Case("a right one that works with logarithms", (_once_by_logarithms, distances)),
        Case("a right one, picture by picture", (_once_by_rows, distances)),
        Case("a right one that takes no mask below 0", (lambda d, m: _once(d, m.clamp_min(0)), distances)),
        Case("the mask counts twice", (_power(2), distances)),
        Case("the mask counts twice for the last class", (_power(2, columns=slice(2, 3)), distances)),
        Case("the mask counts twice for the last picture", (_power(2, rows=slice(5, 6)), distances)),
        Case("the mask counts twice for one picture and one class", (_power(2, slice(3, 4), slice(1, 2)), distances)),
        Case("a little more than once", (_power(1.003), distances)),
        Case("the square root of the mask", (_power(0.5), distances)),
        Case("the mask is ignored", (lambda d, m: (-d).softmax(1), distances)),
        Case("weights divided by their sum, which undoes part of the mask", (_renormalised, distances)),
        Case("twice for one picture, less than once for another, so that sums stay", (_balanced, distances)),
        Case("twice for one class, less than once for another, so that sums stay", (_balanced_in_a_row, distances)),
        Case("every picture gets its neighbour's mask", (_neighbours_mask, distances)),
        Case("every class gets its neighbour's mask", (lambda d, m: (-d).softmax(1) * m.roll(1, 1), distances)),
        Case("every picture gets its neighbour's weights", (lambda d, m: _once(d, m).roll(1, 0), distances)),
        Case("the mask multiplies the distances", (_in_the_exponent, distances)),
        Case("once, but the shares are wrong", (lambda d, m: d.softmax(1) * m, distances)),
        Case(
            "the mask counts twice for the first picture and second class",
            (_power(2, slice(0, 1), slice(1, 2)), distances),
        ),
        Case("all weights 0.2 % too large", (lambda d, m: 1.002 * _once(d, m), distances)),
        Case("a right one, in float64", (_once, double)),
        Case("twice, in float64", (_power(2), double)),
    ]


TWICE = Exercise(
    id="15.5",
    title="Bug hunt: how often does the mask count?",
    reference=exposes_mask,
    cases=_mask_cases_15_5,
    right=(
        _exposes_by_entry,
        _exposes_by_proportion,
        _exposes_by_quotient,
        _exposes_with(_random_mask, lambda d: 0.9 * _random_mask(d, 3)),
        _exposes_by_usual_tolerance,
    ),
    wrong=(
        Wrong(
            "a mask of ones",
            _exposes_with(torch.ones_like),
            "the mask that is tried is all ones: one squared is still one",
            "Try masks between 0 and 1, such as `torch.rand(distances.shape)`.",
        ),
        Wrong(
            "zeros and ones",
            _exposes_with(
                lambda d: (_random_mask(d) > 0.5).to(d.dtype), lambda d: (_random_mask(d, 1) > 0.5).to(d.dtype)
            ),
            "the masks that are tried hold zeros and ones only, and these are their own squares",
            "Try masks between 0 and 1, such as `torch.rand(distances.shape)`.",
        ),
        Wrong(
            "a mask of zeros",
            _exposes_with(torch.zeros_like),
            "the mask that is tried is all zeros",
            "Try masks between 0 and 1, such as `torch.rand(distances.shape)`.",
        ),
        Wrong(
            "one number everywhere",
            _exposes_with(lambda d: torch.full_like(d, 0.5)),
            "the mask that is tried holds the same number for several pictures or classes: whose mask it is does not show",
            "Give every picture and class a number of its own: `torch.rand(distances.shape)`.",
            also=(
                _exposes_with(lambda d: _random_mask(d)[:, :1].expand_as(d)),
                _exposes_with(lambda d: _random_mask(d)[:1].expand_as(d)),
            ),
        ),
        Wrong(
            "sums",
            _judged(lambda a, b: torch.allclose(a.sum(), b.sum(), rtol=1e-4, atol=1e-6)),
            "sums, norms or sorted values are compared: what one picture or class loses another may gain",
            "Compare entry by entry: `torch.allclose(a, b)`.",
            also=(
                _judged(lambda a, b: torch.allclose(a.sum(1), b.sum(1), rtol=1e-4, atol=1e-6)),
                _judged(lambda a, b: torch.allclose(a.sum(0), b.sum(0), rtol=1e-4, atol=1e-6)),
                _judged(lambda a, b: torch.allclose(a.norm(), b.norm(), rtol=1e-4, atol=1e-6)),
            ),
        ),
        Wrong(
            "too generous",
            _judged(lambda a, b: torch.allclose(a, b, atol=0.05)),
            "the tolerance is so wide that a small fault passes",
            "Rounding is far below 1e-4: `torch.allclose(a, b, rtol=1e-4, atol=1e-6)`.",
        ),
        Wrong(
            "negative masks",
            _exposes_with(lambda d: torch.randn(d.shape, generator=Generator().manual_seed(0), dtype=d.dtype)),
            "masks below 0 are tried, which no sigmoid gives: a right implementation need not know what to do with them",
            "Masks between 0 and 1: `torch.rand` in place of `torch.randn`.",
        ),
        Wrong(
            "exactly equal",
            _judged(torch.equal),
            "the weights are compared to the last digit: rounding rings the alarm",
            "`torch.allclose` with a small tolerance.",
        ),
        Wrong(
            "the winning class only",
            _judged(lambda a, b: torch.equal(a.argmax(1), b.argmax(1))),
            "only the class with the largest weight is compared",
            "Compare all weights.",
            also=(
                lambda weigh, d: not torch.equal(weigh(d, torch.ones_like(d)).argmax(1), d.argmin(1)),
                lambda weigh, d: not torch.equal(weigh(d, _random_mask(d)).argmax(1), d.argmin(1)),
            ),
        ),
        Wrong(
            "rows that sum to one",
            lambda weigh, d: (
                not torch.allclose(weigh(d, _random_mask(d)).sum(1), torch.ones(len(d), dtype=d.dtype), atol=1e-4)
            ),
            "the rows are asked to sum to one: a mask is there to lower them",
            "The weight of a picture is its share times its mask.",
            also=(
                lambda weigh, d: (
                    not torch.allclose(
                        weigh(d, torch.ones_like(d)).sum(1), torch.ones(len(d), dtype=d.dtype), atol=1e-4
                    )
                ),
            ),
        ),
        Wrong(
            "shares of the farthest",
            lambda weigh, d: not torch.allclose(weigh(d, _random_mask(d)), d.softmax(1) * _random_mask(d), atol=1e-6),
            "the shares that are compared with come from a softmax without the minus: right weights ring the alarm",
            "`(-distances).softmax(1)`: near means likely.",
        ),
        Wrong(
            "the border only",
            _the_border_only,
            "only the one picture on the border is tried, and never the given distances",
            "Try a mask on all of `distances`.",
        ),
        Wrong(
            "shares taken from the code under test",
            _share_from_weigh,
            "the code under test is compared with itself: its shares may be wrong, too",
            "Compute the shares yourself: `(-distances).softmax(1)`.",
        ),
        Wrong(
            "in proportion",
            _in_proportion,
            "half a mask is compared with half the weights: exchanged masks and wrong shares keep that proportion",
            "Compare with share times mask.",
        ),
        Wrong(
            "a tiny mask",
            _exposes_with(lambda d: 1e-4 * _random_mask(d)),
            "the masks that are tried are so small that the weights vanish in the tolerance",
            "Masks that fill the range from 0 to 1: `torch.rand(distances.shape)`.",
        ),
        Wrong(
            "all must be wrong",
            _judged(lambda a, b: bool(torch.isclose(a, b, rtol=1e-4, atol=1e-6).any())),
            "the alarm waits until *all* weights are wrong",
            "One wrong weight is enough.",
        ),
        Wrong(
            "the first row only",
            _judged(lambda a, b: torch.allclose(a[0], b[0], rtol=1e-4, atol=1e-6)),
            "some pictures or classes are never looked at, or get no mask: a fault there passes",
            "Compare all of [U, N], with a number between 0 and 1 in every entry of the mask.",
            also=(
                _judged(lambda a, b: torch.allclose(a[:, 0], b[:, 0], rtol=1e-4, atol=1e-6)),
                _judged(lambda a, b: torch.allclose(a[0, 0], b[0, 0], rtol=1e-4, atol=1e-6)),
                _judged(lambda a, b: torch.allclose(a.diagonal(), b.diagonal(), rtol=1e-4, atol=1e-6)),
                _exposes_with(_every_other_row),
                _exposes_with(_chequerboard),
            ),
        ),
        Wrong(
            "the mask itself",
            _judged(lambda a, b: False),
            "the alarm always rings: it compares the weights with something that they never are",
            "The weight of a picture is its share, `(-distances).softmax(1)`, times its mask.",
        ),
        Wrong(
            "turned round",
            lambda weigh, d: not exposes_mask(weigh, d),
            "True and False have changed places",
            "True means: broken.",
        ),
        Wrong(
            "only what is too small",
            _judged(lambda a, b: bool((a >= b - 1e-6).all())),
            "only weights that are too small ring, or only those that are too large: faults come in both directions",
            "Compare both ways: `torch.allclose`, or the absolute difference.",
            also=(_judged(lambda a, b: bool((a - b).max() <= 1e-5)),),
        ),
        Wrong(
            "squares only",
            lambda weigh, d: torch.allclose(
                weigh(d, _random_mask(d)), (-d).softmax(1) * _random_mask(d).square(), rtol=1e-4, atol=1e-6
            ),
            "only the square of the whole mask is recognised: other wrong powers and parts pass",
            "Ask whether the weights are right, not whether they are wrong in one particular way.",
        ),
    ),
    hints=(
        "You know what the right weights are. Which masks would a squared mask leave unnoticed?",
        "Draw a mask between 0 and 1, different for every picture and class, and compare all weights with share times mask.",
        "`mask = torch.rand(distances.shape, dtype=distances.dtype)`; "
        "`not torch.allclose(weigh(distances, mask), (-distances).softmax(1) * mask, rtol=1e-4, atol=1e-6)`",
    ),
)

EXERCISES = (SHARES, REFINE, MASK, TYPICAL, TWICE)
