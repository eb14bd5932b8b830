"""Exercises of lesson 05: prototypes, distances, the loss, the linear view, the Gaussian posterior, two detectors, the method.

Cases: every exercise builds its own; 05.1, 05.3 and 05.8 draw their support with `_support_rows`. The detectors 05.5 and 05.7
get implementations as arguments and must return True for the broken ones only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong
from fsl_classroom.exercises.encoders import small_encoder, teaches_encoder
from fsl_course.episodes import Episode

# ---------------------------------------------------------------------------------------------- 05.1 prototypes


def prototypes(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Returns the class means. embeddings [S, D], labels [S] in 0..n_way-1 -> [n_way, D]."""
    return torch.stack([embeddings[labels == k].mean(0) for k in range(n_way)])


def _one_hot_means(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    member = (labels[:, None] == torch.arange(n_way)).to(embeddings.dtype)  # [S, N]
    return member.T @ embeddings / member.sum(0)[:, None]


def _index_add_means(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    total = embeddings.new_zeros(n_way, embeddings.shape[1]).index_add(0, labels, embeddings)
    return total / labels.bincount(minlength=n_way)[:, None]


def _scattered_means(embeddings: Tensor, labels: Tensor, n_way: int, include_self: bool = False) -> Tensor:
    """Computes means by scatter_reduce. include_self: counts the zeros that it starts from as one more row of each class."""
    zeros, index = embeddings.new_zeros(n_way, embeddings.shape[1]), labels[:, None].expand_as(embeddings)
    return zeros.scatter_reduce(0, index, embeddings, "mean", include_self=include_self)


def _masked_means(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    mask = labels == torch.arange(n_way)[:, None]  # [N, S]
    return (embeddings * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def _means_of_sorted_parts(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    parts = embeddings[labels.argsort()].split(labels.bincount(minlength=n_way).tolist())
    return torch.stack([part.mean(0) for part in parts])


def _overwriting_sums(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Adds with `total[labels] += embeddings`, which keeps one row of each class."""
    total = embeddings.new_zeros(n_way, embeddings.shape[1])
    total[labels] += embeddings
    return total / labels.bincount(minlength=n_way)[:, None]


def _first_met_means(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([embeddings[labels == k].mean(0) for k in dict.fromkeys(labels.tolist())])


def _halving_means(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Halves what is there with every new row, so that late rows weigh more than early ones."""
    centres: list[Tensor | None] = [None] * n_way
    for row, k in zip(embeddings, labels.tolist(), strict=True):
        centres[k] = row if centres[k] is None else (centres[k] + row) / 2
    return torch.stack(centres)


def _halving_from_zero(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    rows = torch.cat([embeddings.new_zeros(n_way, embeddings.shape[1]), embeddings])
    return _halving_means(rows, torch.cat([torch.arange(n_way), labels]), n_way)


def _support_rows(generator: Generator, shots: list[int], features: int = 6) -> tuple[Tensor, Tensor, int]:
    """Draws embeddings [S, D] in random order with shots[k] rows of class k. -> embeddings, labels [S], n_way"""
    labels = torch.cat([torch.full((shot,), k) for k, shot in enumerate(shots)])
    labels = labels[torch.randperm(len(labels), generator=generator)]
    return torch.randn(len(labels), features, generator=generator), labels, len(shots)


def _prototype_cases(generator: Generator) -> list[Case]:
    points = torch.tensor([[0.0, 2.0], [2.0, 3.0], [2.0, 0.0], [4.0, 1.0]])
    unequal = _support_rows(generator, [1, 4, 2])
    return [
        Case("the example on paper", (points, torch.tensor([0, 1, 0, 1]), 2)),
        Case("5 classes of 3 shots, rows shuffled", _support_rows(generator, [3, 3, 3, 3, 3])),
        Case("one shot each: a prototype is the support row itself", _support_rows(generator, [1, 1, 1, 1])),
        Case("unequal shots: 1, 4 and 2", unequal),
        Case("float64", (unequal[0].double(), *unequal[1:])),
    ]


def _shuffling_is_free(answer: Callable, reference: Callable) -> str | None:
    generator = torch.Generator().manual_seed(1)
    rows, labels, n_way = _support_rows(generator, [2, 2, 2])
    order = torch.randperm(6, generator=generator)
    gap = float((answer(rows[order], labels[order], n_way) - answer(rows, labels, n_way)).abs().max())
    return f"the same support in another order moved a prototype by {gap:.2g}." if gap > 1e-5 else None


PROTOTYPES = Exercise(
    id="05.1",
    title="Prototypes",
    reference=prototypes,
    cases=_prototype_cases,
    gradient=(0,),
    properties=(Property("shuffling rows and labels together changes nothing", _shuffling_is_free),),
    right=(_one_hot_means, _index_add_means, _scattered_means, _masked_means, _means_of_sorted_parts),
    wrong=(
        Wrong(
            "reshape",
            lambda z, y, n: z.reshape(n, -1, z.shape[1]).mean(1),
            "the rows are reshaped to (n_way, k_shot, D) without a look at the labels",
            "That is right only for sorted, equal classes. Let `labels == k` say which rows belong to class k.",
            also=(
                lambda z, y, n: z.reshape(-1, n, z.shape[1]).mean(0),
                lambda z, y, n: torch.stack([z[k * (len(z) // n) : (k + 1) * (len(z) // n)].mean(0) for k in range(n)]),
                lambda z, y, n: torch.stack([part.mean(0) for part in z.chunk(n)]),
                lambda z, y, n: torch.stack([z[k::n].mean(0) for k in range(n)]),
            ),
        ),
        Wrong(
            "sorted, then reshaped",
            lambda z, y, n: z[y.argsort(stable=True)].reshape(n, -1, z.shape[1]).mean(1),
            "the rows are sorted by label and then cut into equal parts",
            "The classes may have different shots. Choose the rows of class k with `labels == k`.",
            also=(lambda z, y, n: z[y.argsort(stable=True)].view(n, len(z) // n, -1).mean(1),),
        ),
        Wrong(
            "sum",
            lambda z, y, n: torch.stack([z[y == k].sum(0) for k in range(n)]),
            "the rows of a class are summed and never divided",
            "A prototype is a mean: `.mean(0)`.",
        ),
        Wrong(
            "equal shots assumed",
            lambda z, y, n: torch.stack([z[y == k].sum(0) for k in range(n)]) / (len(z) / n),
            "every class is divided by the average number of shots",
            "Divide by the class's own count: the classes may have different shots.",
            also=(
                lambda z, y, n: torch.stack([z[y == k].sum(0) for k in range(n)]) / (len(z) // n),
                lambda z, y, n: torch.stack([z[y == k].sum(0) for k in range(n)]) / (y == 0).sum(),
            ),
        ),
        Wrong(
            "one row too many",
            lambda z, y, n: _scattered_means(z, y, n, include_self=True),
            "every sum is divided by one more than the shots: `scatter_reduce` counts the zeros that it starts from, too",
            "`include_self=False`, or divide the sum by the class's own count.",
        ),
        Wrong(
            "one row too few",
            lambda z, y, n: torch.stack([z[y == k].sum(0) / ((y == k).sum() - 1) for k in range(n)]),
            "every sum is divided by one less than the shots, as for an unbiased variance",
            "A mean divides by the count itself.",
        ),
        Wrong(
            "the last sum only",
            _overwriting_sums,
            "`total[labels] += embeddings` adds one row to each class only: a repeated index does not add up",
            "`total.index_add_(0, labels, embeddings)` adds them all; or choose rows with `labels == k`.",
        ),
        Wrong(
            "halved with every row",
            _halving_means,
            "`(old + new) / 2` runs over the rows: the last row of a class then weighs as much as all before it together",
            "Add the rows of a class, and divide once, by their number.",
            also=(_halving_from_zero,),
        ),
        Wrong(
            "divided by all",
            lambda z, y, n: torch.stack([z[y == k].sum(0) for k in range(n)]) / len(z),
            "every sum is divided by the size of the whole support set",
            "Divide by the number of rows of that class only.",
        ),
        Wrong(
            "mean over features",
            lambda z, y, n: torch.stack([z[y == k].mean() for k in range(n)]),
            "the features are averaged: a prototype must keep all D of them",
            "Average over the rows only: `.mean(0)` keeps the D features.",
            also=(
                lambda z, y, n: torch.stack([z[y == k].mean(1) for k in range(n)]),
                lambda z, y, n: torch.stack([z[y == k].mean().expand(z.shape[1]) for k in range(n)]),
            ),
        ),
        Wrong(
            "an axis too many",
            lambda z, y, n: torch.stack([z[y == k].mean(0, keepdim=True) for k in range(n)]),
            "every mean keeps an axis of length 1, or all are joined into one long row",
            "`.mean(0)` gives [D]; `torch.stack` of n_way such rows gives [n_way, D].",
            also=(lambda z, y, n: torch.cat([z[y == k].mean(0) for k in range(n)]),),
        ),
        Wrong(
            "order of first meeting",
            _first_met_means,
            "prototype 0 belongs to the class that comes first in the support, not to slot 0",
            "Go through `range(n_way)`: row k of the result is slot k.",
        ),
        Wrong(
            "first row",
            lambda z, y, n: torch.stack([z[y == k][0] for k in range(n)]),
            "one support row stands for its class and the other shots are dropped",
            "Use all rows of the class: their mean.",
            also=(
                lambda z, y, n: torch.stack([z[y == k][-1] for k in range(n)]),
                lambda z, y, n: z[:n].clone(),
            ),
        ),
        Wrong(
            "length 1",
            lambda z, y, n: F.normalize(prototypes(z, y, n), dim=1),
            "vectors are brought to length 1, before or after the mean",
            "A prototype is the mean of the embeddings as they are.",
            also=(lambda z, y, n: prototypes(F.normalize(z, dim=1), y, n),),
        ),
        Wrong(
            "median",
            lambda z, y, n: torch.stack([z[y == k].median(0).values for k in range(n)]),
            "the median of each feature stands where the mean belongs",
            "`.mean(0)`: the mean is what minimises the squared distances.",
            also=(lambda z, y, n: torch.stack([z[y == k].quantile(0.5, dim=0) for k in range(n)]),),
        ),
        Wrong(
            "detached",
            lambda z, y, n: prototypes(z.detach(), y, n),
            "the prototypes are cut off from the graph: the encoder learns nothing from the support",
            "No `.detach()`, no `no_grad`: gradient must flow through the means.",
        ),
    ),
    hints=(
        "Which rows belong to class 0? The labels say so; their positions do not.",
        "`embeddings[labels == k]` holds the rows of class k, however many there are.",
        "`torch.stack([embeddings[labels == k].mean(0) for k in range(n_way)])`",
    ),
)

# ---------------------------------------------------------------------------------------------- 05.2 squared distances


def squared_distances(query: Tensor, centres: Tensor) -> Tensor:
    """Returns squared Euclidean distances. query [M, D], centres [N, D] -> [M, N]."""
    return (query[:, None] - centres).square().sum(-1)


def _distances_written_out(query: Tensor, centres: Tensor) -> Tensor:
    return (query**2).sum(1, keepdim=True) - 2 * query @ centres.T + (centres**2).sum(1)


def _distances_loop(query: Tensor, centres: Tensor) -> Tensor:
    return torch.stack([((query - centre) ** 2).sum(1) for centre in centres], dim=1)


def _distances_from_cdist(query: Tensor, centres: Tensor) -> Tensor:
    return torch.cdist(query, centres, compute_mode="donot_use_mm_for_euclid_dist").square()


def _distances_by_einsum(query: Tensor, centres: Tensor) -> Tensor:
    difference = query.unsqueeze(1) - centres.unsqueeze(0)
    return torch.einsum("mnd,mnd->mn", difference, difference)


def _distance_cases(generator: Generator) -> list[Case]:
    query, centres = torch.randn(7, 5, generator=generator), torch.randn(3, 5, generator=generator)
    return [
        Case("the example on paper", (torch.tensor([[2.0, 1.0], [3.0, 1.0]]), torch.tensor([[1.0, 1.0], [3.0, 2.0]]))),
        Case("7 queries, 3 prototypes, 5 features", (query, centres)),
        Case("one query", (query[:1], centres)),
        Case("as many queries as prototypes", (query[:3], centres)),
        Case("float64", (query.double(), centres.double())),
    ]


def _finite_at_zero(answer: Callable, reference: Callable) -> str | None:
    query = torch.tensor([[1.0, 2.0], [3.0, 1.0]], requires_grad=True)
    answer(query, torch.tensor([[1.0, 2.0], [0.0, 0.0]])).sum().backward()
    if query.grad is not None and not query.grad.isfinite().all():
        return "where a query lies on a prototype the gradient is not a number. Is there a square root?"
    return None


DISTANCES = Exercise(
    id="05.2",
    title="Squared distances",
    reference=squared_distances,
    cases=_distance_cases,
    gradient=(0, 1),
    properties=(Property("the gradient at distance zero is finite", _finite_at_zero),),
    right=(_distances_written_out, _distances_loop, _distances_from_cdist, _distances_by_einsum),
    wrong=(
        Wrong(
            "bare square root",
            lambda q, c: (q[:, None] - c).square().sum(-1).sqrt(),
            "a square root is taken at the end: not the squared distance, and NaN in the gradient at distance zero",
            "Stop before the root: the method wants squares.",
        ),
        Wrong(
            "root, then square",
            lambda q, c: (q[:, None] - c).square().sum(-1).sqrt().square(),
            "a root is taken and squared again: the value is right, but at distance zero the gradient of a root is infinite",
            "Stop before the root.",
        ),
        Wrong(
            "cdist",
            lambda q, c: torch.cdist(q, c, compute_mode="donot_use_mm_for_euclid_dist"),
            "`torch.cdist` or a norm is returned as it is: the distance, not its square",
            "Square it, or sum the squared differences yourself.",
        ),
        Wrong(
            "transposed",
            lambda q, c: squared_distances(c, q),
            "the table is transposed: [N, M]",
            "A row for each query: put the new axis behind the queries, `query[:, None]`.",
        ),
        Wrong(
            "no new axis",
            lambda q, c: (q - c).square().sum(-1),
            "row i of the queries meets row i of the prototypes only, where the shapes allow it at all",
            "All pairs: `query[:, None] - centres` is [M, N, D].",
            also=(lambda q, c: (q - c).square(), lambda q, c: (q - c).square().sum(-1, keepdim=True)),
        ),
        Wrong(
            "everything summed",
            lambda q, c: (q[:, None] - c).square().sum(),
            "all squares are summed into one number",
            "`.sum(-1)` sums over the features and leaves [M, N].",
        ),
        Wrong(
            "half",
            lambda q, c: squared_distances(q, c) / 2,
            "there is a factor 1/2 in front, as in the exponent of a Gaussian",
            "The squared distance itself has no factor.",
        ),
        Wrong(
            "inner product",
            lambda q, c: q @ c.T,
            "inner products are returned: large for similar vectors, not for distant ones",
            "Subtract, square, and sum over the features.",
            also=(lambda q, c: F.normalize(q, dim=1) @ F.normalize(c, dim=1).T,),
        ),
        Wrong(
            "mean of squares",
            lambda q, c: (q[:, None] - c).square().mean(-1),
            "the squares are averaged over the features, which divides every distance by D",
            "`.sum(-1)`, not `.mean(-1)`.",
        ),
        Wrong(
            "square of the sum",
            lambda q, c: (q[:, None] - c).sum(-1).square(),
            "the differences are summed first and squared afterwards, so that plus and minus cancel",
            "Square every difference, then sum.",
        ),
        Wrong(
            "absolute differences",
            lambda q, c: (q[:, None] - c).abs().sum(-1),
            "absolute differences are summed: the city-block distance",
            "`.square()` in place of `.abs()`.",
            also=(lambda q, c: (q[:, None] - c).abs().sum(-1).square(),),
        ),
        Wrong(
            "largest difference",
            lambda q, c: (q[:, None] - c).abs().amax(-1).square(),
            "only the feature with the largest difference counts",
            "Sum the squares of all features.",
            also=(lambda q, c: (q[:, None] - c).abs().amax(-1),),
        ),
        Wrong(
            "difference of the lengths",
            lambda q, c: (q.norm(dim=1)[:, None] - c.norm(dim=1)).square(),
            "the lengths are subtracted, not the vectors: two vectors of one length would be at distance 0",
            "Subtract feature by feature, then square and sum.",
        ),
        Wrong(
            "cosine distance",
            lambda q, c: 1 - F.normalize(q, dim=1) @ F.normalize(c, dim=1).T,
            "1 − cosine is returned, which does not see lengths",
            "Subtract, square, and sum over the features.",
        ),
        Wrong(
            "half of the middle term",
            lambda q, c: (q**2).sum(1, keepdim=True) - q @ c.T + (c**2).sum(1),
            "the 2 in front of q·c is missing",
            "|q − c|² = |q|² − 2 q·c + |c|².",
        ),
        Wrong(
            "no square of the prototype",
            lambda q, c: (q**2).sum(1, keepdim=True) - 2 * q @ c.T,
            "|c|² is missing, which is another number for every class",
            "|q − c|² = |q|² − 2 q·c + |c|²: three terms.",
        ),
        Wrong(
            "no square of the query",
            lambda q, c: -2 * q @ c.T + (c**2).sum(1),
            "|q|² is missing: the order of the classes stays, but these are not distances",
            "|q − c|² = |q|² − 2 q·c + |c|²: three terms.",
            also=(lambda q, c: -2 * q @ c.T,),
        ),
        Wrong(
            "plus in the middle",
            lambda q, c: (q**2).sum(1, keepdim=True) + 2 * q @ c.T + (c**2).sum(1),
            "the middle term has a plus: this is |q + c|²",
            "|q − c|² = |q|² − 2 q·c + |c|².",
        ),
        Wrong(
            "detached",
            lambda q, c: squared_distances(q, c.detach()),
            "a part is cut off from the graph, so that no gradient reaches it",
            "No `.detach()`, no `no_grad`, no `.tolist()`: gradient must reach queries and prototypes.",
            also=(
                lambda q, c: squared_distances(q.detach(), c),
                lambda q, c: squared_distances(q, c).detach(),
            ),
        ),
        Wrong(
            "negative",
            lambda q, c: -squared_distances(q, c),
            "the sign is turned already here",
            "Return distances; the minus comes with the logits.",
        ),
        Wrong(
            "over the rows",
            lambda q, c: (q[:, None] - c).square().sum(1),
            "the sum runs over the prototypes and leaves the features: [M, D]",
            "Sum over the last axis of [M, N, D].",
            also=(lambda q, c: (q[:, None] - c).square().sum(0),),
        ),
        Wrong(
            "not summed",
            lambda q, c: (q[:, None] - c).square(),
            "the squares are not summed: there is still a number for each feature, [M, N, D]",
            "`.sum(-1)` sums over the features and leaves [M, N].",
        ),
    ),
    hints=(
        "One table [M, N]: a row for each query, a column for each prototype.",
        "`query[:, None] - centres` broadcasts to [M, N, D]; square it and sum over the last axis.",
        "`(query[:, None] - centres).square().sum(-1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 05.3 the episode's loss


def episode_loss(support: Tensor, support_y: Tensor, query: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    """Returns the mean negative log-probability of the right class. Embeddings [S, D], [M, D], labels [S], [M] -> scalar."""
    logits = -squared_distances(query, prototypes(support, support_y, n_way))
    return F.cross_entropy(logits, query_y)


def _loss_by_hand(support: Tensor, support_y: Tensor, query: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    distances = squared_distances(query, prototypes(support, support_y, n_way))
    return (distances.gather(1, query_y[:, None])[:, 0] + (-distances).logsumexp(1)).mean()


def _loss_nll(support: Tensor, support_y: Tensor, query: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    logits = -squared_distances(query, _one_hot_means(support, support_y, n_way))
    return F.nll_loss(logits.log_softmax(dim=1), query_y)


def _loss_of_log_probabilities(
    support: Tensor, support_y: Tensor, query: Tensor, query_y: Tensor, n_way: int
) -> Tensor:
    """Takes the cross-entropy of log-probabilities: log_softmax does not change what is normalised already."""
    centres = _index_add_means(support, support_y, n_way)
    return F.cross_entropy(F.log_softmax(-_distances_from_cdist(query, centres), dim=-1), query_y)


def _loss_in_a_loop(support: Tensor, support_y: Tensor, query: Tensor, query_y: Tensor, n_way: int) -> Tensor:
    centres, total = prototypes(support, support_y, n_way), query.new_zeros(())
    for row, k in zip(query, query_y.tolist(), strict=True):
        distances = (row - centres).square().sum(1)
        # the smallest distance is taken out, so that one exponential is 1
        total = total + distances[k] - distances.min() + (distances.min() - distances).exp().sum().log()
    return total / len(query)


def _loss_from(tail: Callable[[Tensor, Tensor], Tensor], means: Callable = prototypes) -> Callable[..., Tensor]:
    """Returns a loss that differs in its class means or in its last step, tail(squared distances [M, N], labels [M])."""

    def loss(support: Tensor, support_y: Tensor, query: Tensor, query_y: Tensor, n_way: int) -> Tensor:
        return tail(squared_distances(query, means(support, support_y, n_way)), query_y)

    return loss


def _vote_of_rows(support: Tensor, support_y: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Returns log-probabilities [M, N] of attention by minus the squared distance, summed by class."""
    log_a = (-squared_distances(query, support)).log_softmax(1)
    return torch.stack([log_a[:, support_y == k].logsumexp(1) for k in range(n_way)], dim=1)


def _embedded(generator: Generator, shots: list[int], queries: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    support, support_y, n_way = _support_rows(generator, shots, 4)
    query_y = torch.randint(n_way, (queries,), generator=generator)
    return support, support_y, torch.randn(queries, 4, generator=generator), query_y, n_way


def _loss_cases(generator: Generator) -> list[Case]:
    points = torch.tensor([[0.0, 2.0], [2.0, 3.0], [2.0, 0.0], [4.0, 1.0]])
    query = torch.tensor([[2.0, 1.0], [3.0, 1.0]])
    unequal = _embedded(generator, [1, 3, 2], 5)
    return [
        Case("the example on paper", (points, torch.tensor([0, 1, 0, 1]), query, torch.tensor([0, 1]), 2)),
        Case("5-way 2-shot, 10 queries", _embedded(generator, [2] * 5, 10)),
        Case("unequal shots: 1, 3 and 2", unequal),
        Case("one query", _embedded(generator, [1, 1, 1, 1], 1)),
        Case("as many queries as classes", _embedded(generator, [2, 2, 2], 3)),
        # Far enough that a softmax rounds to 0 in float64, too: the loss is 41 * 41 - 1.
        Case(
            "a query at 41, near the wrong one of the prototypes 0 and 42",
            (torch.tensor([[0.0], [42.0]]), torch.tensor([0, 1]), torch.tensor([[41.0]]), torch.tensor([0]), 2),
        ),
        Case("float64", (unequal[0].double(), unequal[1], unequal[2].double(), *unequal[3:])),
    ]


LOSS = Exercise(
    id="05.3",
    title="The loss of an episode",
    reference=episode_loss,
    cases=_loss_cases,
    gradient=(0, 2),
    right=(_loss_by_hand, _loss_nll, _loss_of_log_probabilities, _loss_in_a_loop),
    wrong=(
        Wrong(
            "no minus",
            _loss_from(lambda d, y: F.cross_entropy(d, y)),
            "distances are used as logits: the farthest class wins",
            "Near must mean likely: logits are *minus* the distances.",
        ),
        Wrong(
            "distance of the right class",
            _loss_from(lambda d, y: d.gather(1, y[:, None]).mean()),
            "only the distance to the right prototype is averaged; a net that maps everything to one point would win",
            "The softmax over all classes is missing: `log_softmax` of the negative distances.",
            also=(_loss_from(lambda d, y: (-d).gather(1, y[:, None]).mean()),),
        ),
        Wrong(
            "query prototypes",
            lambda s, sy, q, qy, n: F.cross_entropy(-squared_distances(q, prototypes(q, qy, n)), qy),
            "the prototypes are made from the queries and their labels, which nobody knows in a test",
            "Prototypes come from `support` and `support_y` alone.",
            also=(
                lambda s, sy, q, qy, n: F.cross_entropy(
                    -squared_distances(q, prototypes(torch.cat([s, q]), torch.cat([sy, qy]), n)), qy
                ),
            ),
        ),
        Wrong(
            "the support's loss",
            lambda s, sy, q, qy, n: F.cross_entropy(-squared_distances(s, prototypes(s, sy, n)), sy),
            "the support is judged by its own prototypes: with one shot each, all its distances are zero",
            "Measure from `query`, and compare with `query_y`.",
        ),
        Wrong(
            "sum over queries",
            _loss_from(lambda d, y: F.cross_entropy(-d, y, reduction="sum")),
            "the queries are summed: the loss grows with their number",
            "Average over the queries.",
        ),
        Wrong(
            "averaged over queries and classes",
            _loss_from(lambda d, y: F.cross_entropy(-d, y, reduction="sum") / d.numel()),
            "the sum is divided by queries times classes, as a mean over a masked table does",
            "Only one class counts for each query: divide by the number of queries.",
        ),
        Wrong(
            "not averaged",
            _loss_from(lambda d, y: F.cross_entropy(-d, y, reduction="none")),
            "each query keeps its own loss: [M] in place of one number",
            "Average over the queries.",
        ),
        Wrong(
            "softmax over the queries",
            _loss_from(lambda d, y: F.nll_loss((-d).log_softmax(0), y)),
            "the softmax runs over the queries: dim=0",
            "Every *query* chooses among classes: `log_softmax(dim=1)`.",
        ),
        Wrong(
            "softmax over everything",
            _loss_from(lambda d, y: -((-d).flatten().log_softmax(0).view_as(d)).gather(1, y[:, None]).mean()),
            "one softmax runs over all queries and classes together",
            "Every *query* has a softmax of its own: `log_softmax(dim=1)`.",
        ),
        Wrong(
            "softmax twice",
            _loss_from(lambda d, y: F.cross_entropy((-d).softmax(1), y)),
            "probabilities go into `F.cross_entropy`, which takes the softmax again",
            "`F.cross_entropy` wants logits: hand it the negative distances.",
        ),
        Wrong(
            "log of softmax",
            _loss_from(lambda d, y: -(-d).softmax(1).log().gather(1, y[:, None]).mean()),
            "the logarithm is taken of a softmax that has become exactly 0",
            "`log_softmax` does both at once and stays finite.",
        ),
        Wrong(
            "a crutch in the logarithm",
            _loss_from(lambda d, y: F.nll_loss(((-d).softmax(1) + 1e-8).log(), y)),
            "a small number keeps the logarithm finite: the loss of a far query is cut off, and its gradient vanishes",
            "`log_softmax` needs no crutch: it never forms the probability.",
            also=(
                _loss_from(lambda d, y: F.nll_loss(((-d).softmax(1) + 1e-12).log(), y)),
                _loss_from(lambda d, y: F.nll_loss(((-d).softmax(1) + 1e-10).log(), y)),
                _loss_from(lambda d, y: F.nll_loss(((-d).softmax(1) + 1e-6).log(), y)),
                _loss_from(lambda d, y: F.nll_loss((-d).softmax(1).clamp_min(1e-8).log(), y)),
                _loss_from(lambda d, y: F.nll_loss((-d).softmax(1).clamp_min(1e-30).log(), y)),
            ),
        ),
        Wrong(
            "no logarithm",
            _loss_from(lambda d, y: F.nll_loss((-d).softmax(1), y)),
            "the logarithm is missing: minus the mean *probability* of the right class",
            "`F.nll_loss` wants log-probabilities: `log_softmax`, not `softmax`.",
            also=(_loss_from(lambda d, y: 1 - (-d).softmax(1).gather(1, y[:, None]).mean()),),
        ),
        Wrong(
            "squared error",
            _loss_from(lambda d, y: F.mse_loss((-d).softmax(1), F.one_hot(y, d.shape[1]).to(d))),
            "probabilities are held against 0 and 1 by a squared error",
            "Cross-entropy: minus the logarithm of the right class's probability.",
        ),
        Wrong(
            "not negative",
            _loss_from(lambda d, y: (-d).log_softmax(1).gather(1, y[:, None]).mean()),
            "the minus of the *negative* log-probability is missing: training would make the right class unlikely",
            "The loss is never below zero: put a minus in front.",
        ),
        Wrong(
            "unsquared",
            _loss_from(lambda d, y: F.cross_entropy(-(d + 1e-12).sqrt(), y)),
            "distances are not squared",
            "Use your `squared_distances` as it is.",
        ),
        Wrong(
            "half the distance",
            _loss_from(lambda d, y: F.cross_entropy(-d / 2, y)),
            "the squared distance is halved, as in the exponent of a Gaussian with variance 1",
            "Equation 2 has no factor: the logits are −d.",
        ),
        Wrong(
            "cosine",
            lambda s, sy, q, qy, n: F.cross_entropy(
                F.normalize(q, dim=1) @ F.normalize(prototypes(s, sy, n), dim=1).T, qy
            ),
            "cosines are used as logits",
            "The method's logits are minus the squared Euclidean distances.",
        ),
        Wrong(
            "vote of the rows",
            lambda s, sy, q, qy, n: F.cross_entropy(_vote_of_rows(s, sy, q, n), qy),
            "every support row votes for itself, as in matching networks: no prototype is formed",
            "Average the rows of a class first: use your `prototypes`.",
        ),
        Wrong(
            "logarithm of the mean",
            _loss_from(lambda d, y: -(-d).softmax(1).gather(1, y[:, None]).mean().log()),
            "the probabilities are averaged over the queries before the logarithm",
            "Take the logarithm for each query, then the mean.",
        ),
        Wrong(
            "support without gradient",
            lambda s, sy, q, qy, n: episode_loss(s.detach(), sy, q, qy, n),
            "the prototypes are cut off from the graph: the encoder learns nothing from the support",
            "No `.detach()` and no `no_grad`: gradient must flow through prototypes and queries.",
        ),
        Wrong(
            "queries without gradient",
            lambda s, sy, q, qy, n: episode_loss(s, sy, q.detach(), qy, n),
            "the queries are cut off from the graph: the encoder learns from the support only",
            "No `.detach()` and no `no_grad`: gradient must flow through prototypes and queries.",
        ),
        Wrong(
            "gradient to neither",
            lambda s, sy, q, qy, n: episode_loss(s, sy, q, qy, n).detach(),
            "the loss is cut off from the graph: no training is possible",
            "No `.detach()`, no `no_grad`, no `.item()`: return the tensor as it comes.",
        ),
        Wrong(
            "reshape",
            _loss_from(lambda d, y: F.cross_entropy(-d, y), lambda z, y, n: z.reshape(n, -1, z.shape[1]).mean(1)),
            "the prototypes come from a reshape that ignores the labels",
            "Use your `prototypes`, which reads the labels.",
        ),
        Wrong(
            "sums for prototypes",
            _loss_from(
                lambda d, y: F.cross_entropy(-d, y), lambda z, y, n: torch.stack([z[y == k].sum(0) for k in range(n)])
            ),
            "the prototypes are sums, not means",
            "Use your `prototypes`, which divides by the shots.",
        ),
    ),
    hints=(
        "Three steps: prototypes, a table of distances, and a loss for classification.",
        "Logits are minus the distances. Cross-entropy is the mean of minus log_softmax at the right class.",
        "`F.cross_entropy(-squared_distances(query, prototypes(support, support_y, n_way)), query_y)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 05.4 the linear view


def linear_classifier(centres: Tensor) -> tuple[Tensor, Tensor]:
    """Returns weights [N, D] and biases [N] of equation 8. centres [N, D]."""
    return 2 * centres, -centres.square().sum(1)


def _linear_norms(centres: Tensor) -> tuple[Tensor, Tensor]:
    return centres + centres, -(torch.linalg.vector_norm(centres, dim=-1) ** 2)


def _linear_diagonal(centres: Tensor) -> tuple[Tensor, Tensor]:
    return centres * 2.0, -(centres @ centres.T).diagonal()


def _linear_row_by_row(centres: Tensor) -> tuple[Tensor, Tensor]:
    return torch.stack([2 * c for c in centres]), torch.stack([-(c @ c) for c in centres])


def _linear_measured(centres: Tensor) -> tuple[Tensor, Tensor]:
    """Measures the bias, the score at the origin, and reads the weights from the scores at the unit vectors."""
    axes = torch.eye(centres.shape[1], dtype=centres.dtype)
    bias = -centres.square().sum(1)
    at_axes = -(axes[:, None] - centres).square().sum(-1) + 1  # 1 is |z|^2 of a unit vector
    return (at_axes - bias).T, bias


def _linear_cases(generator: Generator) -> list[Case]:
    return [
        Case("the example on paper", (torch.tensor([[1.0, 1.0], [3.0, 2.0]]),)),
        Case("5 prototypes of 8 features", (torch.randn(5, 8, generator=generator),)),
        Case("4 prototypes of 4 features", (torch.randn(4, 4, generator=generator),)),
        Case("float64", (torch.randn(3, 6, generator=generator, dtype=torch.float64),)),
    ]


LINEAR = Exercise(
    id="05.4",
    title="The linear classifier inside",
    reference=linear_classifier,
    cases=_linear_cases,
    right=(_linear_norms, _linear_diagonal, _linear_row_by_row, _linear_measured),
    wrong=(
        Wrong(
            "turned order",
            lambda c: (-c.square().sum(1), 2 * c),
            "the biases come first and the weights second",
            "Return the tuple (weights, biases).",
        ),
        Wrong(
            "biases as a column",
            lambda c: (2 * c, -c.square().sum(1, keepdim=True)),
            "the biases are a column [N, 1], which would be added along the wrong axis of the scores [M, N]",
            "No `keepdim`: `.sum(1)` gives [N].",
            also=(lambda c: (2 * c, -c.square().sum(1)[None]),),
        ),
        Wrong(
            "squares not summed",
            lambda c: (2 * c, -c.square()),
            "the squares are not summed over the features: [N, D] in place of [N]",
            "|c|² is a sum: `.sum(1)`.",
        ),
        Wrong(
            "half of the bias",
            lambda c: (2 * c, -c.square().sum(1) / 2),
            "the bias is halved while the weights are 2c",
            "w = 2c goes with b = −|c|². With w = c the bias would be −|c|²/2.",
        ),
        Wrong(
            "mean of squares",
            lambda c: (2 * c, -c.square().mean(1)),
            "the squares are averaged over the features, not summed",
            "`.sum(1)`.",
        ),
        Wrong(
            "unit length",
            lambda c: (2 * F.normalize(c, dim=1), -c.square().sum(1)),
            "the weights are brought to length 1",
            "w = 2c, at the prototype's own length.",
            also=(lambda c: (2 * F.normalize(c, dim=1), -torch.ones_like(c[:, 0])),),
        ),
        Wrong(
            "square of the sum",
            lambda c: (2 * c, -c.sum(1).square()),
            "the features are summed first and squared afterwards",
            "Square every feature, then sum.",
        ),
        Wrong(
            "squared weights",
            lambda c: (c.square(), -c.square().sum(1)),
            "the weights are squares of the features",
            "The middle term is 2 c·z, so w = 2c.",
        ),
        Wrong(
            "bias with a plus",
            lambda c: (2 * c, c.square().sum(1)),
            "the bias has the wrong sign",
            "−|z − c|² = −|z|² + 2 c·z − |c|²: a minus stands before |c|².",
        ),
        Wrong(
            "no 2",
            lambda c: (c.clone(), -c.square().sum(1)),
            "the 2 of the middle term is missing in the weights",
            "The middle term is 2 c·z, so w = 2c.",
        ),
        Wrong(
            "half of everything",
            lambda c: (c.clone(), -c.square().sum(1) / 2),
            "weights and biases are half of what they should be: the same class wins, with softer probabilities",
            "A common factor is a temperature. Keep w = 2c and b = −|c|².",
        ),
        Wrong(
            "all signs turned",
            lambda c: (-2 * c, c.square().sum(1)),
            "signs are turned: the weights belong to the squared distance itself, and the farthest class wins",
            "Logits are *minus* the squared distances: w = 2c and b = −|c|².",
            also=(lambda c: (-2 * c, -c.square().sum(1)),),
        ),
        Wrong(
            "twice the bias",
            lambda c: (2 * c, -2 * c.square().sum(1)),
            "the bias has a factor 2 that belongs to the weights only",
            "b = −|c|², once.",
        ),
        Wrong(
            "length, not its square",
            lambda c: (2 * c, -c.square().sum(1).sqrt()),
            "the bias holds the length of the prototype, not its square",
            "No square root: |c|² is the sum of squares.",
        ),
        Wrong(
            "no bias",
            lambda c: (2 * c, torch.zeros_like(c[:, 0])),
            "the bias is left out: long prototypes win too often",
            "Without −|c|² the scores are inner products, not distances.",
        ),
        Wrong(
            "sum over the classes",
            lambda c: (2 * c, -c.square().sum(0)),
            "the squares are summed over the classes",
            "One bias for each class: sum over the features, `.sum(1)`.",
            also=(lambda c: (2 * c, -c.square().sum()), lambda c: (2 * c, -c.square().sum().expand(len(c)))),
        ),
        Wrong(
            "transposed weights",
            lambda c: (2 * c.T, -c.square().sum(1)),
            "the weights are transposed: [D, N]",
            "A row for each class, as in `nn.Linear`: [N, D].",
        ),
    ),
    hints=(
        "Multiply out −|z − c|². Which of the three terms do all classes share?",
        "What is left of it is 2 c·z − |c|². Compare with w·z + b.",
        "`return 2 * centres, -centres.square().sum(1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 05.5 do queries leak?

Predict = Callable[[Episode], Tensor]


def exposes_leak(predict: Predict, episode: Episode) -> bool:
    """Returns True if the logits of some query change with the other queries."""
    together = predict(episode)
    alone = [
        predict(replace(episode, query_x=episode.query_x[j : j + 1], query_y=episode.query_y[j : j + 1]))
        for j in range(len(episode.query_x))
    ]
    return not torch.allclose(together, torch.cat(alone), rtol=1e-3, atol=1e-4)


def _exposes_by_noise(predict: Predict, episode: Episode) -> bool:
    """Detects a leak by replacing all other queries, for one query at a time."""
    before, foreign = predict(episode), torch.randn_like(episode.query_x) * 3
    for j in range(len(episode.query_x)):
        changed = foreign.clone()
        changed[j] = episode.query_x[j]
        if float((predict(replace(episode, query_x=changed))[j] - before[j]).abs().max()) > 1e-3:
            return True
    return False


def _exposes_by_row(predict: Predict, episode: Episode) -> Tensor:
    """Compares each query alone with its row; returns a tensor without dimensions."""
    together = predict(episode)
    alone = torch.cat(
        [predict(replace(episode, query_x=x[None], query_y=y[None])) for x, y in zip(*_queries(episode), strict=True)]
    )
    return ((alone - together).abs() > 1e-3).any()


def _exposes_by_leaving_one_out(predict: Predict, episode: Episode) -> bool:
    """Takes away each query in turn and looks at all the others."""
    together, rows = predict(episode), torch.arange(len(episode.query_x))
    for left_out in rows:
        kept = rows[rows != left_out]
        fewer = replace(episode, query_x=episode.query_x[kept], query_y=episode.query_y[kept])
        if not torch.allclose(predict(fewer), together[kept], rtol=1e-4, atol=5e-4):
            return True
    return False


def _exposes_by_black_company(predict: Predict, episode: Episode) -> bool:
    gaps = []
    for j, before in enumerate(predict(episode)):
        company = torch.zeros_like(episode.query_x)
        company[j] = episode.query_x[j]
        gaps.append(float((predict(replace(episode, query_x=company))[j] - before).abs().max()))
    return max(gaps) > 1e-3


def _queries(episode: Episode) -> tuple[Tensor, Tensor]:
    return episode.query_x, episode.query_y


def _parts_judged(starts: Callable[[int], list[int]]) -> Callable[..., bool]:
    """Returns a flawed detector: it asks for the queries in parts that begin at starts(M) and compares with the whole."""

    def detector(predict: Predict, episode: Episode) -> bool:
        x, y = _queries(episode)
        edges = [*starts(len(x)), len(x)]
        parts = [predict(replace(episode, query_x=x[i:j], query_y=y[i:j])) for i, j in pairwise(edges)]
        return not torch.allclose(predict(episode)[edges[0] :], torch.cat(parts), rtol=1e-3, atol=1e-4)

    return detector


def _parts_judged_up_to(end: Callable[[int], int]) -> Callable[..., bool]:
    """Returns a flawed detector: it keeps the queries before end(M) and compares these."""

    def detector(predict: Predict, episode: Episode) -> bool:
        x, y = _queries(episode)
        kept = slice(0, end(len(x)))
        return not torch.allclose(
            predict(replace(episode, query_x=x[kept], query_y=y[kept])), predict(episode)[kept], rtol=1e-3, atol=1e-4
        )

    return detector


def _rows_judged(rows: Callable[[int], list[int]]) -> Callable[..., bool]:
    """Returns a flawed detector: it judges some rows alone and never the others."""

    def detector(predict: Predict, episode: Episode) -> bool:
        x, y = _queries(episode)
        found = predict(episode)
        return any(
            not torch.allclose(
                predict(replace(episode, query_x=x[j : j + 1], query_y=y[j : j + 1]))[0], found[j], rtol=1e-3, atol=1e-4
            )
            for j in rows(len(x))
        )

    return detector


def _one_more_query(predict: Predict, episode: Episode) -> bool:
    x, y = _queries(episode)
    more = replace(episode, query_x=torch.cat([x, 3 * torch.ones_like(x[:1])]), query_y=torch.cat([y, y[:1]]))
    return not torch.allclose(predict(more)[: len(x)], predict(episode), rtol=1e-3, atol=1e-4)


def _asked_twice(predict: Predict, episode: Episode) -> bool:
    return not torch.allclose(predict(episode), predict(episode), rtol=1e-3, atol=1e-4)


def _query_changed(change: Callable[[Tensor], Tensor], undo: Callable[[Tensor], Tensor]) -> Callable[..., bool]:
    """Returns a detector that changes the query set as a whole and undoes the change on the logits."""

    def detector(predict: Predict, episode: Episode) -> bool:
        changed = replace(episode, query_x=change(episode.query_x), query_y=change(episode.query_y))
        return not torch.allclose(predict(episode), undo(predict(changed)), rtol=1e-3, atol=1e-4)

    return detector


def _alone_judged_by(differ: Callable[[Tensor, Tensor], bool]) -> Callable[..., bool]:
    """Returns a detector that makes the right experiment and decides by differ(logits together, logits alone)."""

    def detector(predict: Predict, episode: Episode) -> bool:
        rows = range(len(episode.query_x))
        alone = [predict(replace(episode, query_x=episode.query_x[j : j + 1])) for j in rows]
        return differ(predict(episode), torch.cat(alone))

    return detector


def _other_support(predict: Predict, episode: Episode) -> bool:
    changed = replace(episode, support_x=episode.support_x.flip(0) + 1)
    return not torch.allclose(predict(episode), predict(changed), rtol=1e-3, atol=1e-4)


def _scored(embed: Callable[[Tensor], Tensor], *, together: bool = False) -> Predict:
    """Returns prototypical logits on embed(pictures). together: embeds support and query as one batch."""

    def predict(episode: Episode) -> Tensor:
        shots = len(episode.support_x)
        if together:
            joint = embed(torch.cat([episode.support_x, episode.query_x]))
            support, query = joint[:shots], joint[shots:]
        else:
            support, query = embed(episode.support_x), embed(episode.query_x)
        return -squared_distances(query, prototypes(support, episode.support_y, episode.n_way))

    return predict


def _rounds_differently(episode: Episode) -> Tensor:
    """Predicts rightly, by one formula for a single query and by another for several, which differ in the last digits only."""
    x, way = episode.query_x, episode.n_way
    centres = prototypes(episode.support_x, episode.support_y, way)
    return -(squared_distances if len(x) == 1 else _distances_written_out)(x, centres)


def _softmax_over_queries(episode: Episode) -> Tensor:
    return _scored(torch.tanh)(episode).log_softmax(0)


def _mean_so_far(episode: Episode) -> Tensor:
    """Centres every query by the mean of those before it, so that only the first is judged by itself."""
    x = episode.query_x
    before = torch.cat([torch.zeros_like(x[:1]), x.cumsum(0)[:-1] / torch.arange(1, len(x))[:, None].to(x)])
    return _scored(torch.tanh)(replace(episode, query_x=x - 0.3 * before))


def _mean_to_come(episode: Episode) -> Tensor:
    """Centres every query by the mean of those after it, so that only the last is judged by itself."""
    return _mean_so_far(replace(episode, query_x=episode.query_x.flip(0))).flip(0)


def _a_little(episode: Episode) -> Tensor:
    """Moves all logits of class 0 a little by the mean of the queries, which changes no prediction."""
    logits = _scored(torch.tanh)(episode)
    return logits + 0.01 * F.one_hot(torch.tensor(0), episode.n_way) * episode.query_x.mean()


def _mixed_with(partner: Callable[[Tensor, int], Tensor], share: float = 0.3) -> Predict:
    """Returns logits of queries that are mixed with partner(rows, M), where that row is there."""

    def predict(episode: Episode) -> Tensor:
        x = episode.query_x
        other = partner(torch.arange(len(x)), len(x))
        other = torch.where(other < len(x), other, torch.arange(len(x)))
        return _scored(torch.tanh)(replace(episode, query_x=(1 - share) * x + share * x[other]))

    return predict


def _swapped(episode: Episode) -> Tensor:
    """Exchanges the logits of queries 1 and 2 where both are there: sums, norms and means over the queries stay."""
    logits = _scored(torch.tanh)(episode)
    return logits if len(logits) < 3 else logits[[0, 2, 1, *range(3, len(logits))]]


def _raised(episode: Episode) -> Tensor:
    """Raises all logits of a query alike where there is company: no softmax and no winner notices."""
    logits = _scored(torch.tanh)(episode)
    return logits + 0.5 * (len(logits) > 1) * episode.query_x.mean().abs()


def _no_batch_axis(predict: Predict, episode: Episode) -> bool:
    together = predict(episode)
    return any(
        not torch.allclose(
            predict(replace(episode, query_x=x, query_y=y)).squeeze(0), together[j], rtol=1e-3, atol=1e-4
        )
        for j, (x, y) in enumerate(zip(*_queries(episode), strict=True))
    )


def _accuracies_compared(predict: Predict, episode: Episode) -> bool:
    alone = [
        predict(replace(episode, query_x=x[None], query_y=y[None])) for x, y in zip(*_queries(episode), strict=True)
    ]
    right = [(logits.argmax(1) == episode.query_y).sum() for logits in (predict(episode), torch.cat(alone))]
    return bool(right[0] != right[1])


def _balanced(episode: Episode) -> Tensor:
    """Moves something from the logit of class 1 to that of class 0: the sum of every row stays."""
    shift = 0.05 * (episode.query_x - episode.query_x.mean(0)).abs().mean()
    logits = _scored(torch.tanh)(episode)
    return logits + shift * (F.one_hot(torch.tensor(0), episode.n_way) - F.one_hot(torch.tensor(1), episode.n_way))


class _Net(nn.Module):
    """A learner on points [B, 5] with fixed weights and a norm layer."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        weight = torch.linspace(-1, 1, 30).sin().view(6, 5) * 1.5
        self.register_buffer("weight", weight)
        self.norm = norm

    def forward(self, episode: Episode) -> Tensor:
        return _scored(lambda x: self.norm(x @ self.weight.T).tanh(), together=True)(episode)


def _leak_cases(generator: Generator) -> list[Case]:
    labels = torch.arange(3).repeat_interleave(2)
    episode = Episode(
        support_x=torch.randn(6, 5, generator=generator) + labels[:, None],
        support_y=labels,
        query_x=torch.randn(6, 5, generator=generator) + labels[:, None],
        query_y=labels,
        classes=torch.tensor([4, 0, 9]),
    )
    four = replace(episode, query_x=episode.query_x[:4], query_y=labels[:4])

    def by_batch(x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()

    forgetful = _Net(nn.BatchNorm1d(6, track_running_stats=False)).eval()
    return [
        Case("a right implementation: every picture by itself", (_scored(torch.tanh), episode)),
        Case("a right one whose last digits depend on the number of queries", (_rounds_differently, episode)),
        Case("a right one: layer norm, still in training mode", (_Net(nn.LayerNorm(6)).train(), episode)),
        Case("a right one: batch norm with running statistics", (_Net(nn.BatchNorm1d(6)).eval(), episode)),
        Case("batch statistics, support and queries together", (_scored(by_batch, together=True), episode)),
        Case("batch statistics, support and queries apart", (_scored(by_batch), episode)),
        Case("batch norm that keeps no running statistics, in evaluation mode", (forgetful, episode)),
        Case("a softmax over the queries", (_softmax_over_queries, episode)),
        Case("every query is centred by the queries before it", (_mean_so_far, episode)),
        Case("every query is centred by the queries behind it", (_mean_to_come, episode)),
        Case("a leak too small to change a prediction", (_a_little, episode)),
        Case("a right one, with four queries", (_scored(torch.tanh), four)),
        Case("four queries, mixed in pairs", (_mixed_with(lambda i, m: i ^ 1), four)),
        Case("the third query only is mixed with the fourth", (_mixed_with(lambda i, m: i + (i == 2)), episode)),
        Case("the last query but one is mixed with the last", (_mixed_with(lambda i, m: i + (i == m - 2)), episode)),
        Case("two queries get each other's logits", (_swapped, episode)),
        Case("what one class gains another loses, so that sums stay", (_balanced, episode)),
        Case("all logits of a query raised alike, which no softmax notices", (_raised, episode)),
    ]


LEAK = Exercise(
    id="05.5",
    title="Bug hunt: does a query see the others?",
    reference=exposes_leak,
    cases=_leak_cases,
    right=(_exposes_by_noise, _exposes_by_row, _exposes_by_leaving_one_out, _exposes_by_black_company),
    wrong=(
        Wrong(
            "shuffled",
            _query_changed(lambda t: t.flip(0), lambda t: t.flip(0)),
            "the queries are only put in another order: means and variances of a batch do not notice",
            "Change *which* queries are there: remove the others, or replace them.",
            also=(_query_changed(lambda t: t.roll(1, 0), lambda t: t.roll(-1, 0)),),
        ),
        Wrong(
            "doubled",
            _query_changed(lambda t: torch.cat([t, t]), lambda t: t[: len(t) // 2]),
            "every query is shown twice: their mean and variance stay what they were",
            "Remove the other queries, or replace them by something else.",
        ),
        Wrong(
            "predictions only",
            _alone_judged_by(lambda a, b: not torch.equal(a.argmax(1), b.argmax(1))),
            "only the winning classes are compared: a leak that is small here slips through",
            "Compare the logits themselves.",
        ),
        Wrong(
            "probabilities only",
            _alone_judged_by(lambda a, b: not torch.allclose(a.softmax(1), b.softmax(1), rtol=1e-3, atol=1e-4)),
            "the logits pass a softmax, or lose their mean, before they are compared: a query whose logits all rise is missed",
            "Compare the logits themselves.",
        ),
        Wrong(
            "accuracies only",
            _accuracies_compared,
            "accuracies are compared: most leaks leave every prediction as it is",
            "Compare the logits themselves.",
        ),
        Wrong(
            "no batch axis",
            _no_batch_axis,
            "a query is taken by its bare number: `query_x[j]` has lost the axis of the queries",
            "A slice keeps it: `query_x[j : j + 1]`.",
        ),
        Wrong(
            "sums",
            _alone_judged_by(lambda a, b: not torch.allclose(a.sum(), b.sum(), rtol=1e-3, atol=1e-4)),
            "a sum, a mean or a norm is compared: what one logit gains another may lose",
            "Compare logit by logit.",
            also=(
                _alone_judged_by(lambda a, b: bool((a.norm() - b.norm()).abs() > 1e-4)),
                _alone_judged_by(lambda a, b: not torch.allclose(a.sum(1), b.sum(1), rtol=1e-3, atol=1e-4)),
                _alone_judged_by(lambda a, b: not torch.allclose(a.sum(0), b.sum(0), rtol=1e-3, atol=1e-4)),
            ),
        ),
        Wrong(
            "too generous",
            _alone_judged_by(lambda a, b: not torch.allclose(a, b, atol=0.1)),
            "the tolerance is so wide that a small leak passes",
            "Rounding is far below 1e-3: `torch.allclose(a, b, rtol=1e-3, atol=1e-4)`.",
        ),
        Wrong(
            "exactly equal",
            _alone_judged_by(lambda a, b: not torch.equal(a, b)),
            "the logits are compared to the last digit: rounding rings the alarm",
            "`torch.allclose` with a tolerance such as `atol=1e-4`.",
        ),
        Wrong(
            "every query must move",
            _alone_judged_by(
                lambda a, b: all(not torch.allclose(*ab, rtol=1e-3, atol=1e-4) for ab in zip(a, b, strict=True))
            ),
            "the alarm waits until *all* queries change: some may be left alone by a leak",
            "One query that changes is enough: `any`, not `all`.",
        ),
        Wrong(
            "first query only",
            _rows_judged(lambda m: [0]),
            "only the first query, or the first few, are looked at: what leaks from earlier to later queries is missed",
            "Try every query alone.",
            also=(
                _rows_judged(lambda m: [0, 1]),
                _parts_judged_up_to(lambda m: m // 2),
            ),
        ),
        Wrong(
            "last query only",
            _rows_judged(lambda m: [m - 1]),
            "only the last query decides, as in a loop that overwrites its verdict: what leaks to earlier queries is missed",
            "One query that changes is enough: return True at once, or compare all of them together.",
        ),
        Wrong(
            "first and last",
            _rows_judged(lambda m: [0, m - 1]),
            "the first and the last query are looked at and those between are not",
            "Try every query alone.",
        ),
        Wrong(
            "in parts",
            _parts_judged(lambda m: [0, m // 2]),
            "the queries are asked for in parts of several: a query that sees only its neighbour still sees it there",
            "Ask for every query alone: parts of one.",
            also=(_parts_judged(lambda m: [0, 1]),),
        ),
        Wrong(
            "one query away",
            _parts_judged(lambda m: [1]),
            "only one query is taken away: a leak between others stays",
            "Take away *all* others of each query in turn.",
            also=(_parts_judged_up_to(lambda m: m - 1),),
        ),
        Wrong(
            "one query more",
            _one_more_query,
            "a query is added at the end: what leaks among those already there, or from earlier to later, does not change",
            "Take away all others of each query in turn.",
        ),
        Wrong(
            "asked twice",
            _asked_twice,
            "the same queries are asked for twice: a leak repeats itself exactly",
            "Change the company of a query between the two calls.",
        ),
        Wrong(
            "turned round",
            lambda predict, episode: not exposes_leak(predict, episode),
            "the answer is turned round: True stands where nothing leaks",
            "`torch.allclose` is True when all is well: put a `not` in front.",
        ),
        Wrong(
            "mode flag",
            lambda predict, episode: bool(getattr(predict, "training", False)),
            "the training flag is read instead of watching what happens",
            "Batch norm without running statistics leaks in evaluation mode too. Run it and compare logits.",
        ),
        Wrong(
            "support changed",
            _other_support,
            "logits are compared that differ where nothing leaks: on another support, or of one query and of all the others",
            "Leave the support alone, and compare the logits of query j alone with row j only.",
        ),
    ),
    hints=(
        "A query's logits may depend on the support and on itself. On what must they not depend?",
        "Ask for all queries together, then for each alone: `replace(episode, query_x=episode.query_x[j:j+1], ...)`.",
        "Stack the lonely logits with `torch.cat` and return `not torch.allclose(together, alone, rtol=1e-3, atol=1e-4)`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 05.6 the Gaussian posterior


def gaussian_posterior(query: Tensor, centres: Tensor, variance: Tensor, prior: Tensor) -> Tensor:
    """Returns p(class | query) of spherical Gaussian classes. query [M, D], centres [N, D], variance and prior [N] -> [M, N]."""
    return _gaussian_logits(query, centres, variance, prior).softmax(1)


def _gaussian_logits(query: Tensor, centres: Tensor, variance: Tensor, prior: Tensor) -> Tensor:
    """Returns log(prior * density) up to the (2 pi)^(-D/2) that all classes share."""
    features = query.shape[1]
    return prior.log() - features / 2 * variance.log() - squared_distances(query, centres) / (2 * variance)


def _gaussian_by_distributions(query: Tensor, centres: Tensor, variance: Tensor, prior: Tensor) -> Tensor:
    classes = torch.distributions.Normal(centres, variance.sqrt()[:, None])
    joint = classes.log_prob(query[:, None]).sum(-1) + prior.log()
    return (joint - joint.logsumexp(1, keepdim=True)).exp()


def _gaussian_multivariate(query: Tensor, centres: Tensor, variance: Tensor, prior: Tensor) -> Tensor:
    covariance = variance[:, None, None] * torch.eye(query.shape[1], dtype=query.dtype)
    densities = torch.distributions.MultivariateNormal(centres, covariance).log_prob(query[:, None])
    return torch.softmax(densities + prior.log(), dim=-1)


def _gaussian_in_a_loop(query: Tensor, centres: Tensor, variance: Tensor, prior: Tensor) -> Tensor:
    columns = []
    for centre, v, share in zip(centres, variance, prior, strict=True):
        exponent = ((query - centre) ** 2).sum(1) / v
        columns.append(share.log() - 0.5 * (query.shape[1] * (2 * math.pi * v).log() + exponent))
    return F.softmax(torch.stack(columns, dim=1), dim=1)


def _gaussian_largest_out(query: Tensor, centres: Tensor, variance: Tensor, prior: Tensor) -> Tensor:
    """Takes the largest logarithm out, multiplies by the prior afterwards, and divides by the sum."""
    logs = -0.5 * (_distances_written_out(query, centres) / variance + query.shape[1] * variance.log())
    weights = (logs - logs.amax(1, keepdim=True)).exp() * prior
    return weights / weights.sum(1, keepdim=True)


def _gaussian_cases(generator: Generator) -> list[Case]:
    query, centres = torch.randn(6, 3, generator=generator), torch.randn(4, 3, generator=generator)
    variance, prior = torch.tensor([0.3, 0.5, 1.5, 2.5]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    paper = (torch.tensor([[2.0, 1.0], [3.0, 1.0]]), torch.tensor([[1.0, 1.0], [3.0, 2.0]]))
    even, half = torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5])
    wide, rare = torch.tensor([0.5, 2.0]), torch.tensor([0.8, 0.2])
    far = (torch.tensor([[41.0]]), torch.tensor([[0.0], [80.0]]), torch.tensor([1.0, 1.0]), torch.tensor([0.7, 0.3]))
    return [
        Case("the example on paper: variances of 1/2, even priors", (*paper, half, even)),
        Case("the same with one rare class", (*paper, half, rare)),
        Case("the same with one wide class", (*paper, wide, even)),
        Case("6 queries, 4 classes, 3 features, all of them different", (query, centres, variance, prior)),
        Case("one query", (query[:1], centres, variance, prior)),
        Case("as many queries as classes", (query[:4], centres, variance, prior)),
        Case("a query so far away that every density rounds to 0", far),
        Case("float64", (query.double(), centres.double(), variance.double(), prior.double())),
    ]


def _posterior_from(
    logits: Callable[..., Tensor], tail: Callable[[Tensor], Tensor] = lambda t: t.softmax(1)
) -> Callable:
    """Returns a flawed posterior: tail of logits(squared distances [M, N], variance [N], prior [N], D)."""

    def posterior(query: Tensor, centres: Tensor, variance: Tensor, prior: Tensor) -> Tensor:
        return tail(logits(squared_distances(query, centres), variance, prior, query.shape[1]))

    return posterior


def _joint(d: Tensor, v: Tensor, p: Tensor, features: int) -> Tensor:
    return p.log() - features / 2 * v.log() - d / (2 * v)


GAUSSIAN = Exercise(
    id="05.6",
    title="The Gaussian posterior",
    reference=gaussian_posterior,
    cases=_gaussian_cases,
    gradient=(0, 1),
    right=(_gaussian_by_distributions, _gaussian_multivariate, _gaussian_in_a_loop, _gaussian_largest_out),
    wrong=(
        Wrong(
            "equation 2",
            _posterior_from(lambda d, v, p, n: -d),
            "the softmax of minus the squared distances is taken as it is: variances and priors play no part",
            "That is the case of variances 1/2 and even priors. Divide by 2 times the variance, and add what else differs.",
            also=(_posterior_from(lambda d, v, p, n: -d / 2),),
        ),
        Wrong(
            "no factor of the density",
            _posterior_from(lambda d, v, p, n: p.log() - d / (2 * v)),
            "the factor before the exponential is dropped: it cancels for equal variances only, and a wide class wins too often",
            "The logarithm of a density's factor is −(D/2) log(variance): a wide class is low everywhere.",
            also=(_posterior_from(lambda d, v, p, n: -d / (2 * v)),),
        ),
        Wrong(
            "factor of one feature",
            _posterior_from(lambda d, v, p, n: p.log() - v.log() / 2 - d / (2 * v)),
            "the factor is that of a single feature: D features have D of them",
            "−(D/2) log(variance), with D = `query.shape[1]`.",
        ),
        Wrong(
            "classes counted as features",
            _posterior_from(lambda d, v, p, n: p.log() - len(p) / 2 * v.log() - d / (2 * v)),
            "the factor's exponent counts the N classes, not the D features",
            "−(D/2) log(variance), with D = `query.shape[1]`.",
            also=(_posterior_from(lambda d, v, p, n: p.log() - len(d) / 2 * v.log() - d / (2 * v)),),
        ),
        Wrong(
            "variance taken for a deviation",
            _posterior_from(lambda d, v, p, n: p.log() - n * v.log() - d / (2 * v**2)),
            "the variance is squared in the exponent, the factor, or both, as if it were a standard deviation",
            "The exponent is −d / (2 variance), and its factor variance to the power −D/2.",
            also=(
                _posterior_from(lambda d, v, p, n: p.log() - n / 2 * v.log() - d / (2 * v**2)),
                _posterior_from(lambda d, v, p, n: p.log() - n * v.log() - d / (2 * v)),
            ),
        ),
        Wrong(
            "root of the variance",
            _posterior_from(lambda d, v, p, n: p.log() - n / 2 * v.log() - d / (2 * v.sqrt())),
            "the distance is divided by standard deviations, not by variances",
            "The exponent is −d / (2 variance).",
            also=(_posterior_from(lambda d, v, p, n: p.log() - n / 4 * v.log() - d / (2 * v.sqrt())),),
        ),
        Wrong(
            "no 2",
            _posterior_from(lambda d, v, p, n: p.log() - n / 2 * v.log() - d / v),
            "the 2 in the exponent is missing",
            "The exponent is −d / (2 variance).",
            also=(_posterior_from(lambda d, v, p, n: p.log() - d / v),),
        ),
        Wrong(
            "multiplied by the variance",
            _posterior_from(lambda d, v, p, n: p.log() - n / 2 * v.log() - d / 2 * v),
            "the distance is multiplied by the variance: `d / 2 * variance` divides by 2 only",
            "The exponent is −d / (2 variance): mind the brackets.",
        ),
        Wrong(
            "prior times logarithm",
            _posterior_from(lambda d, v, p, n: p * (-n / 2 * v.log() - d / (2 * v))),
            "the *logarithm* of the density is multiplied by the prior",
            "A product becomes a sum of logarithms: add `prior.log()`.",
        ),
        Wrong(
            "turned factor",
            _posterior_from(lambda d, v, p, n: p.log() + n / 2 * v.log() - d / (2 * v)),
            "a sign in the exponent or of the factor is turned: a wide class would be high everywhere, or far would be likely",
            "variance to the power *minus* D/2, times exp(−d / (2 variance)).",
            also=(_posterior_from(lambda d, v, p, n: p.log() - n / 2 * v.log() + d / (2 * v)),),
        ),
        Wrong(
            "no prior",
            _posterior_from(lambda d, v, p, n: -n / 2 * v.log() - d / (2 * v)),
            "the prior is left out: a rare class wins too often",
            "Bayes: density times prior, divided by the sum over the classes. In logarithms, add `prior.log()`.",
        ),
        Wrong(
            "prior without logarithm",
            _posterior_from(lambda d, v, p, n: p - n / 2 * v.log() - d / (2 * v)),
            "the prior itself is added to logarithms",
            "Add `prior.log()`, or multiply by the prior after the exponential.",
        ),
        Wrong(
            "prior after the softmax",
            lambda q, c, v, p: gaussian_posterior(q, c, v, torch.ones_like(p)) * p,
            "the prior is multiplied on after the softmax, so that rows no longer sum to one",
            "Divide by the sum again, or add `prior.log()` before the softmax.",
        ),
        Wrong(
            "densities that round to 0",
            _posterior_from(_joint, lambda t: t.exp() / t.exp().sum(1, keepdim=True)),
            "the densities themselves are divided: far from all classes they all round to 0, and 0/0 is not a number",
            "Add logarithms and take their softmax.",
            also=(_posterior_from(_joint, lambda t: t.exp() / (t.exp().sum(1, keepdim=True) + 1e-12)),),
        ),
        Wrong(
            "not divided by the sum",
            _posterior_from(_joint, lambda t: t.exp()),
            "density times prior is returned: the division by the sum over the classes is missing",
            "Bayes divides by the sum: rows must sum to one.",
            also=(lambda q, c, v, p: _gaussian_logits(q, c, v, p).exp() / (2 * math.pi) ** (q.shape[1] / 2),),
        ),
        Wrong(
            "logits",
            _posterior_from(_joint, lambda t: t),
            "logarithms are returned in place of probabilities",
            "Take the softmax over the classes.",
            also=(_posterior_from(_joint, lambda t: t.log_softmax(1)),),
        ),
        Wrong(
            "over the queries",
            _posterior_from(_joint, lambda t: t.softmax(0)),
            "the softmax runs over the queries: dim=0",
            "Each *query* chooses among the classes: dim=1.",
        ),
        Wrong(
            "unsquared",
            _posterior_from(lambda d, v, p, n: p.log() - n / 2 * v.log() - (d + 1e-12).sqrt() / (2 * v)),
            "the distance in the exponent is not squared",
            "The exponent is minus the *squared* distance over 2 times the variance.",
        ),
        Wrong(
            "one variance for all",
            lambda q, c, v, p: gaussian_posterior(q, c, v.mean().expand_as(v), p),
            "all classes get one variance",
            "Column k uses `variance[k]`.",
        ),
    ),
    hints=(
        "Bayes: p(k | z) is prior times density, divided by the sum of that over all classes.",
        "Take logarithms: log prior − (D/2) log variance − squared distance / (2 variance). What is normalised by a softmax?",
        "`(prior.log() - D / 2 * variance.log() - squared_distances(query, centres) / (2 * variance)).softmax(1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 05.7 order of the support

Means = Callable[[Tensor, Tensor, int], Tensor]


def exposes_order(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
    """Returns True if another order of the support gives other prototypes."""
    before = implementation(support, labels, n_way)
    for seed in range(50):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        if not torch.allclose(implementation(support[order], labels[order], n_way), before, atol=1e-4):
            return True
    return False


def _order_by_sorting_and_shuffling(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
    """Compares the support sorted by label with many orders that mix it."""
    orders = [labels.argsort(stable=True), torch.arange(len(labels)).flip(0)]
    orders += [torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)) for seed in range(70, 110)]
    first, *others = (implementation(support[o], labels[o], n_way) for o in orders)
    return max(float((first - other).abs().max()) for other in others) > 1e-4


def _order_by_random_keys(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
    before = implementation(support, labels, n_way)
    keys = [torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)) for seed in range(200, 240)]
    return any(
        not torch.allclose(before, implementation(support[k.argsort()], labels[k.argsort()], n_way), atol=1e-4)
        for k in keys
    )


def _order_pair_by_pair(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
    """Exchanges every two rows with their labels."""
    before, rows = implementation(support, labels, n_way), list(range(len(labels)))
    for i in rows:
        for j in rows[:i]:
            order = torch.tensor([j if r == i else i if r == j else r for r in rows])
            if (implementation(support[order], labels[order], n_way) - before).abs().max() > 1e-3:
                return True
    return False


def _order_by_many_shuffles(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Compares sixty shuffles among themselves; returns a tensor without dimensions."""
    found = []
    for seed in range(60):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(100 + seed))
        found.append(implementation(support[order], labels[order], n_way))
    return (torch.stack(found).amax(0) - torch.stack(found).amin(0) > 1e-4).any()


def _order_once(order_of: Callable[[Tensor, int], Tensor]) -> Callable[..., bool]:
    """Returns a flawed detector: it tries the one order order_of(labels, n_way)."""

    def detector(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
        order = order_of(labels, n_way)
        first, second = implementation(support, labels, n_way), implementation(support[order], labels[order], n_way)
        return not torch.allclose(first, second, atol=1e-4)

    return detector


def _own_places(labels: Tensor, n_way: int) -> Tensor:
    """Returns an order in which the rows of each class change places among themselves."""
    order = torch.arange(len(labels))
    for k in range(n_way):
        order[labels == k] = order[labels == k].flip(0)
    return order


def _order_compared(
    summary: Callable[[Tensor], Tensor] = lambda t: t,
    *,
    rows: bool = True,
    names: bool = True,
    differ: Callable[[Tensor, Tensor], bool] = lambda a, b: not torch.allclose(a, b, atol=1e-4),
    seeds: Iterable[int] = range(50),
    verdict: Callable[[Iterable[bool]], bool] = any,
) -> Callable[..., bool]:
    """Returns a detector that shuffles once for each of the seeds; by default a sound one, each keyword makes a flaw.

    It compares a summary of the prototypes by `differ`, shuffles rows or names (labels) only, or lets `verdict` decide.
    """

    def detector(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
        before, gaps = summary(implementation(support, labels, n_way)), []
        for seed in seeds:
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
            mixed = (support[order] if rows else support, labels[order] if names else labels)
            gaps.append(differ(before, summary(implementation(*mixed, n_way))))
        return verdict(gaps)

    return detector


def _order_within(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
    order = labels.argsort(stable=True)
    inside = order.view(n_way, -1).flip(1).flatten()
    first, second = (implementation(support[o], labels[o], n_way) for o in (order, inside))
    return not torch.allclose(first, second, atol=1e-4)


def _order_against_means(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
    orders = [torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)) for seed in range(50)]
    means = prototypes(support, labels, n_way)
    return any(not torch.allclose(implementation(support[o], labels[o], n_way), means, atol=1e-4) for o in orders)


def _sorted_reshape(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return support[labels.argsort(stable=True)].view(n_way, -1, support.shape[1]).mean(1)


def _running_means(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Computes the right means one row at a time, so that the last digits depend on the order."""
    centres, seen = support.new_zeros(n_way, support.shape[1]), [0] * n_way
    for row, k in zip(support, labels.tolist(), strict=True):
        seen[k] += 1
        centres[k] = centres[k] + (row - centres[k]) / seen[k]
    return centres


def _first_rows(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([support[labels == k][0] for k in range(n_way)])


def _first_and_last(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Takes the mean of the first and the last row of each class."""
    rows = [support[labels == k] for k in range(n_way)]
    return torch.stack([(r[0] + r[-1]) / 2 for r in rows])


def _with_the_row_before(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Adds the row before to every row, so that going round in a circle changes nothing."""
    return prototypes(support + 0.3 * support.roll(1, 0), labels, n_way)


def _one_class_by_its_first_row(share: float) -> Means:
    """Returns class means whose class 2 leans by share towards its first row."""

    def implementation(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
        centres = prototypes(support, labels, n_way)
        centres[2] += share * (support[labels == 2][0] - centres[2])
        return centres

    return implementation


def _taken_for_sorted(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Takes the support for sorted, and reshapes it, where its first two rows are of one class, as one order in six has them."""
    if labels[0] == labels[1]:
        return support.view(n_way, -1, support.shape[1]).mean(1)
    return prototypes(support, labels, n_way)


def _long_row_at_an_end(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Counts the longest row once more where it comes first or last, as one order in six has it."""
    longest = int(support.norm(dim=1).argmax())
    if longest not in (0, len(labels) - 1):
        return prototypes(support, labels, n_way)
    return prototypes(torch.cat([support, support[[longest]]]), torch.cat([labels, labels[[longest]]]), n_way)


def _last_row_for_one_class(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Lets the last row of the whole support stand for the last class, as a loop does that leaks its variable."""
    return torch.cat([prototypes(support, labels, n_way)[:-1], support[-1:]])


def _median_where_sorted(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Takes the median of class 1 where its rows come in the order of their first feature, as one order in six has them."""
    centres, rows = prototypes(support, labels, n_way), support[labels == 1]
    if bool((rows[1:, 0] > rows[:-1, 0]).all()):
        centres[1] = rows.median(0).values
    return centres


def _order_cases(generator: Generator) -> list[Case]:
    labels = torch.arange(4).repeat_interleave(3)
    sorted_rows = torch.randn(12, 5, generator=generator) + 2 * labels[:, None]
    order = torch.randperm(12, generator=generator)
    shuffled, names = sorted_rows[order], labels[order]
    interleaved = torch.arange(12).view(4, 3).T.flatten()

    def medians(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
        return torch.stack([support[labels == k].median(0).values for k in range(n_way)])

    # The mean of two whole numbers has no rounding error, so even an exact comparison is right here.
    whole, pairs = torch.randint(-9, 10, (8, 5), generator=generator).float(), torch.arange(8) % 4

    def reshape(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
        return support.view(n_way, -1, support.shape[1]).mean(1)

    def reshape_other(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
        return support.view(-1, n_way, support.shape[1]).mean(0)

    return [
        Case("class means of whole numbers, two shots", (prototypes, whole, pairs, 4)),
        Case("class means in a loop, on a shuffled support", (prototypes, shuffled, names, 4)),
        Case("class means by one-hot, on a sorted support", (_one_hot_means, sorted_rows, labels, 4)),
        Case("a right reshape: it sorts first", (_sorted_reshape, whole, pairs, 4)),
        Case("a right one whose last digits depend on the order", (_running_means, shuffled, names, 4)),
        Case("a reshape, on a support that happens to be sorted", (reshape, sorted_rows, labels, 4)),
        Case("a reshape, on a shuffled support", (reshape, shuffled, names, 4)),
        Case(
            "the other reshape, on classes in turn", (reshape_other, sorted_rows[interleaved], labels[interleaved], 4)
        ),
        Case("prototypes in the order of first meeting", (_first_met_means, sorted_rows, labels, 4)),
        Case("the first row of each class stands for it", (_first_rows, sorted_rows, labels, 4)),
        Case("the mean of the first and the last row of each class", (_first_and_last, sorted_rows, labels, 4)),
        Case("every row takes in a part of the row before it", (_with_the_row_before, sorted_rows, labels, 4)),
        Case("one class of four leans towards its first row", (_one_class_by_its_first_row(0.5), shuffled, names, 4)),
        Case("and the same, by a hundredth", (_one_class_by_its_first_row(0.01), shuffled, names, 4)),
        Case("first meeting, on classes that come in another order", (_first_met_means, sorted_rows, 3 - labels, 4)),
        Case("the last row of the support stands for the last class", (_last_row_for_one_class, shuffled, names, 4)),
        Case(
            "a reshape, where the first two rows are of one class",
            (_taken_for_sorted, shuffled.roll(1, 0), names.roll(1), 4),
        ),
        Case(
            "the longest row counts twice where it is the first or the last", (_long_row_at_an_end, shuffled, names, 4)
        ),
        Case("a median, where the rows of class 1 come in order", (_median_where_sorted, shuffled, names, 4)),
        Case("medians for means: no order changes them", (medians, shuffled, names, 4)),
    ]


# Seeds of single shuffles that miss different faults, the likeliest first.
_FEW_ORDERS = (4, 0, 52, 11, 7, 14, 45, 6, 8, 32, 93, 5, 39)

ORDER = Exercise(
    id="05.7",
    title="Bug hunt: does the order of the support matter?",
    reference=exposes_order,
    cases=_order_cases,
    right=(_order_by_sorting_and_shuffling, _order_pair_by_pair, _order_by_many_shuffles, _order_by_random_keys),
    wrong=(
        Wrong(
            "rows without labels",
            _order_compared(names=False),
            "what belongs together is shuffled apart, pictures and labels, or the prototypes too: right answers must change",
            "Use one `order` for both, `support[order], labels[order]`, and leave the prototypes where they are.",
        ),
        Wrong(
            "labels without rows",
            _order_compared(rows=False),
            "only the labels are shuffled: a reshape never reads them, and every right answer changes",
            "Use one `order` for both: `support[order], labels[order]`.",
        ),
        Wrong(
            "too few orders",
            _order_compared(seeds=(3,)),
            "one or a few orders are tried: some faults show in one order of six",
            "Try some dozens of random orders in a loop, and return True as soon as one of them gives other prototypes.",
            also=tuple(_order_compared(seeds=(seed,)) for seed in _FEW_ORDERS),
        ),
        Wrong(
            "every order must ring",
            _order_compared(verdict=all),
            "the alarm waits until *all* orders give other prototypes, or the last order decides alone",
            "One order that differs is enough: `any`, not `all`.",
        ),
        Wrong(
            "turned round in a row",
            _order_once(lambda y, n: torch.arange(len(y)).flip(0)),
            "one special order is tried, back to front or in a circle: some faults look the same from there",
            "Try random orders: `torch.randperm(len(labels))`.",
            also=(
                _order_once(lambda y, n: torch.arange(len(y)).roll(1)),
                _order_once(lambda y, n: torch.arange(len(y)).roll(-1)),
                _order_once(lambda y, n: torch.tensor([1, 0, *range(2, len(y))])),
            ),
        ),
        Wrong(
            "mean of all prototypes",
            _order_compared(lambda t: t.mean(0)),
            "a mean, a sum or a norm of the prototypes is compared, in which changes cancel",
            "Compare prototype by prototype.",
            also=(
                _order_compared(lambda t: t.norm()),
                _order_compared(lambda t: t.norm(), seeds=(0,)),
                _order_compared(differ=lambda a, b: bool((a - b).sum() > 1e-4)),
            ),
        ),
        Wrong(
            "first prototype",
            _order_compared(lambda t: t[0]),
            "only the first prototype is compared",
            "Compare all of them.",
        ),
        Wrong(
            "too generous",
            _order_compared(differ=lambda a, b: not torch.allclose(a, b, atol=0.1)),
            "the tolerance is so wide that a small change passes",
            "Rounding is far below `atol=1e-4`.",
            also=(_order_compared(differ=lambda a, b: not torch.allclose(a, b, atol=0.5)),),
        ),
        Wrong(
            "shapes",
            _order_compared(lambda t: torch.tensor(t.shape)),
            "only the shapes are compared",
            "Compare the values with `torch.allclose`.",
        ),
        Wrong(
            "to the last digit",
            _order_compared(differ=lambda a, b: not torch.equal(a, b)),
            "no rounding is allowed: a sum in another order differs in its last digits",
            "`torch.allclose` with `atol=1e-4`.",
        ),
        Wrong(
            "turned round",
            lambda f, z, y, n: not exposes_order(f, z, y, n),
            "the answer is turned round: True stands where the order does not matter",
            "`torch.allclose` is True when all is well: put a `not` in front.",
        ),
        Wrong(
            "sorted once",
            _order_once(lambda y, n: y.argsort(stable=True)),
            "the support is compared with the same support sorted: where it was sorted already, nothing has moved",
            "Mix the classes: one `torch.randperm` over all rows.",
        ),
        Wrong(
            "against class means",
            lambda f, z, y, n: not torch.allclose(f(z, y, n), prototypes(z, y, n), atol=1e-4),
            "one order is compared with class means: a reshape passes where the rows happen to suit it",
            "Call `implementation` twice, on two orders of the same support.",
        ),
        Wrong(
            "class means in every order",
            _order_against_means,
            "many orders are compared with class means: prototypes of another kind ring, though no order changes them",
            "Compare `implementation` with itself, on two orders of the same support.",
        ),
        Wrong(
            "within a class",
            _order_within,
            "rows change places within their class only, where a reshape of sorted rows is safe",
            "Mix the classes: one `torch.randperm` over all rows.",
            also=(_order_once(_own_places),),
        ),
    ),
    hints=(
        "A set has no order. What may a shuffled support not change?",
        "`order = torch.randperm(len(labels))`, then the same implementation on `support[order], labels[order]`. Fifty times.",
        "Over 50 orders: `if not torch.allclose(before, after, atol=1e-4): return True`; after the loop, `return False`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 05.8 from memory


def protonet(
    encoder: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, n_way: int
) -> tuple[Tensor, Tensor]:
    """Returns logits [M, N] and the loss, from pictures."""
    support, query = encoder(support_x), encoder(query_x)
    logits = -squared_distances(query, prototypes(support, support_y, n_way))
    return logits, F.cross_entropy(logits, query_y)


def _protonet_joint(
    encoder: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, n_way: int
) -> tuple[Tensor, Tensor]:
    z = encoder(torch.cat([support_x, query_x]))
    support, query = z[: len(support_x)], z[len(support_x) :]
    logits = -torch.cdist(query, _one_hot_means(support, support_y, n_way)).square()
    return logits, -logits.log_softmax(1)[torch.arange(len(query_y)), query_y].mean()


def _protonet_plain(
    encoder: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, n_way: int
) -> tuple[Tensor, Tensor]:
    support, query = encoder(support_x), encoder(query_x)
    centres = [support[support_y == k].mean(dim=0) for k in range(n_way)]
    logits = torch.stack([-((query - centre) ** 2).sum(dim=1) for centre in centres], dim=1)
    return logits, F.nll_loss(F.log_softmax(logits, dim=1), query_y)


def _protonet_einsum(
    encoder: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, n_way: int
) -> tuple[Tensor, Tensor]:
    support, query = encoder(support_x), encoder(query_x)
    member = F.one_hot(support_y, n_way).to(support.dtype)
    centres = torch.einsum("sn,sd->nd", member, support) / member.sum(0).unsqueeze(1)
    logits = -_distances_by_einsum(query, centres)
    return logits, (logits.logsumexp(1) - logits.gather(1, query_y[:, None]).squeeze(1)).mean()


def _protonet_written_out(
    encoder: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, n_way: int
) -> tuple[Tensor, Tensor]:
    centres = _index_add_means(encoder(support_x), support_y, n_way)
    logits = -_distances_written_out(encoder(query_x), centres)
    return logits, F.cross_entropy(logits, query_y)


def _flawed(
    *,
    means: Callable = prototypes,
    logits: Callable[[Tensor, Tensor], Tensor] = lambda q, c: -squared_distances(q, c),
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    support_of: Callable[[nn.Module, Tensor], Tensor] = lambda encoder, x: encoder(x),
    query_of: Callable[[nn.Module, Tensor], Tensor] = lambda encoder, x: encoder(x),
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns the method with one part replaced."""

    def method(
        encoder: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, n_way: int
    ) -> tuple[Tensor, Tensor]:
        support, query = support_of(encoder, support_x), query_of(encoder, query_x)
        found = logits(query, means(support, support_y, n_way))
        return found, loss(found, query_y)

    return method


def _probabilities_beside_the_loss(*args: Any) -> tuple[Tensor, Tensor]:
    logits, loss = protonet(*args)
    return logits.softmax(1), loss


def _votes_beside_their_loss(
    encoder: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, n_way: int
) -> tuple[Tensor, Tensor]:
    found = _vote_of_rows(encoder(support_x), support_y, encoder(query_x), n_way)
    return found, F.cross_entropy(found, query_y)


def _loss_of_the_support(
    encoder: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, n_way: int
) -> tuple[Tensor, Tensor]:
    logits, _ = protonet(encoder, support_x, support_y, query_x, query_y, n_way)
    return logits, protonet(encoder, support_x, support_y, support_x, support_y, n_way)[1]


def _memory_cases(generator: Generator) -> list[Case]:
    def case(says: str, shots: list[int], queries: int) -> Case:
        _, support_y, n_way = _support_rows(generator, shots)
        pictures = torch.rand(len(support_y) + queries, 1, 4, 4, generator=generator)
        query_y = torch.randint(n_way, (queries,), generator=generator)
        support_x, query_x = pictures[: len(support_y)], pictures[len(support_y) :]
        return Case(says, (small_encoder(generator), support_x, support_y, query_x, query_y, n_way))

    # An encoder without weights: the embeddings are the pictures, and the loss of the only query is 41 * 41 - 1.
    far = (nn.Flatten(), torch.tensor([0.0, 42.0]).view(2, 1, 1, 1), torch.tensor([0, 1]))
    return [
        case("5-way 2-shot, 10 queries, rows shuffled", [2] * 5, 10),
        case("unequal shots: 1, 4 and 2", [1, 4, 2], 6),
        case("one query", [1, 1, 1], 1),
        case("as many queries as classes", [3, 3, 3], 3),
        Case(
            "a query at 41, near the wrong one of the prototypes 0 and 42",
            (*far, torch.full((1, 1, 1, 1), 41.0), torch.tensor([0]), 2),
        ),
    ]


MEMORY = Exercise(
    id="05.8",
    title="Prototypical Networks from memory",
    reference=protonet,
    cases=_memory_cases,
    properties=(Property("the loss teaches the encoder through support and query", teaches_encoder(_memory_cases)),),
    right=(_protonet_joint, _protonet_plain, _protonet_einsum, _protonet_written_out),
    wrong=(
        Wrong(
            "reshape",
            _flawed(means=lambda z, y, n: z.reshape(n, -1, z.shape[1]).mean(1)),
            "the support is reshaped to (n_way, k_shot, D) without a look at its labels",
            "Choose the rows of class k with `support_y == k`.",
        ),
        Wrong(
            "sum of the shots",
            _flawed(means=lambda z, y, n: torch.stack([z[y == k].sum(0) for k in range(n)])),
            "prototypes are sums, not means",
            "`.mean(0)` over the rows of a class.",
        ),
        Wrong(
            "no minus",
            _flawed(logits=squared_distances),
            "the logits are distances without the minus: the farthest class wins",
            "logits = −squared distance.",
        ),
        Wrong(
            "distances returned",
            _flawed(logits=squared_distances, loss=lambda found, y: F.cross_entropy(-found, y)),
            "the loss is right, but distances are returned in place of logits",
            "Return what goes into the loss: minus the squared distances.",
        ),
        Wrong(
            "probabilities returned",
            _flawed(
                logits=lambda q, c: (-squared_distances(q, c)).softmax(1),
                loss=lambda found, y: F.nll_loss(found.log(), y),
            ),
            "probabilities are returned in place of logits",
            "Return what goes into `F.cross_entropy`, before the softmax.",
            also=(_probabilities_beside_the_loss,),
        ),
        Wrong(
            "log-probabilities returned",
            _flawed(logits=lambda q, c: (-squared_distances(q, c)).log_softmax(1)),
            "the loss is right, but log-probabilities are returned in place of the logits",
            "Return minus the squared distances, before the softmax.",
        ),
        Wrong(
            "linear layer",
            _flawed(logits=lambda q, c: 2 * q @ c.T - c.square().sum(1)),
            "the loss is right, but the scores lack −|z|², which is the same for all classes: they are those of the linear layer",
            "Return minus the squared distances in full.",
        ),
        Wrong(
            "vote of the rows",
            _votes_beside_their_loss,
            "every support row votes for itself, as in matching networks: no prototype is formed",
            "Average the rows of a class first, then measure.",
        ),
        Wrong(
            "pixels",
            lambda encoder, sx, sy, qx, qy, n: protonet(nn.Flatten(), sx, sy, qx, qy, n),
            "pictures are compared pixel by pixel: the encoder is not used",
            "Call `encoder` on support and queries first.",
        ),
        Wrong(
            "medians",
            _flawed(means=lambda z, y, n: torch.stack([z[y == k].median(0).values for k in range(n)])),
            "medians are taken in place of means",
            "`.mean(0)` over the rows of a class.",
        ),
        Wrong(
            "city blocks",
            _flawed(logits=lambda q, c: -(q[:, None] - c).abs().sum(-1)),
            "absolute differences are summed: the city-block distance",
            "`.square()` in place of `.abs()`.",
        ),
        Wrong(
            "unsquared",
            _flawed(logits=lambda q, c: -torch.cdist(q, c)),
            "the distance is not squared",
            "Sum the squared differences and take no root.",
        ),
        Wrong(
            "cosine",
            _flawed(logits=lambda q, c: F.normalize(q, dim=1) @ F.normalize(c, dim=1).T),
            "cosines are used as logits, without a scale",
            "The method's logits are minus the squared Euclidean distances.",
        ),
        Wrong(
            "length 1",
            _flawed(logits=lambda q, c: -squared_distances(F.normalize(q, dim=1), F.normalize(c, dim=1))),
            "the embeddings or prototypes are brought to length 1",
            "Measure the embeddings as they are.",
            also=(
                _flawed(
                    support_of=lambda encoder, x: F.normalize(encoder(x), dim=1),
                    query_of=lambda encoder, x: F.normalize(encoder(x), dim=1),
                ),
            ),
        ),
        Wrong(
            "loss of the support",
            _loss_of_the_support,
            "the loss is that of the support pictures, which the prototypes are made of",
            "The loss compares the *queries'* logits with `query_y`.",
        ),
        Wrong(
            "pictures averaged",
            lambda encoder, sx, sy, qx, qy, n: protonet(
                encoder, torch.stack([sx[sy == k].mean(0) for k in range(n)]), torch.arange(n), qx, qy, n
            ),
            "the pictures are averaged before they pass the encoder",
            "Embed first, average then: the mean of embeddings.",
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
            "query prototypes",
            lambda encoder, sx, sy, qx, qy, n: protonet(encoder, qx, qy, qx, qy, n),
            "the prototypes are made from the queries and their labels, which nobody knows in a test",
            "Prototypes come from the support alone.",
            also=(
                lambda encoder, sx, sy, qx, qy, n: protonet(
                    encoder, torch.cat([sx, qx]), torch.cat([sy, qy]), qx, qy, n
                ),
            ),
        ),
        Wrong(
            "log of softmax",
            _flawed(loss=lambda found, y: F.nll_loss(found.softmax(1).log(), y)),
            "the logarithm is taken of a softmax that has become exactly 0",
            "`F.cross_entropy` or `log_softmax` does both at once and stays finite.",
        ),
        Wrong(
            "a crutch in the logarithm",
            _flawed(loss=lambda found, y: F.nll_loss((found.softmax(1) + 1e-8).log(), y)),
            "a small number keeps the logarithm finite: the loss of a far query is cut off, and its gradient vanishes",
            "`F.cross_entropy` needs no crutch.",
            also=(_flawed(loss=lambda found, y: F.nll_loss((found.softmax(1) + 1e-12).log(), y)),),
        ),
        Wrong(
            "mean of squares",
            _flawed(logits=lambda q, c: -(q[:, None] - c).square().mean(-1)),
            "the squares are averaged over the features, which divides every distance by D",
            "`.sum(-1)`, not `.mean(-1)`.",
        ),
        Wrong(
            "half the distance",
            _flawed(logits=lambda q, c: -squared_distances(q, c) / 2),
            "the squared distance is halved",
            "Equation 2 has no factor: the logits are −d.",
        ),
        Wrong(
            "turned order",
            lambda *args: protonet(*args)[::-1],
            "the loss comes first and the logits second",
            "Return the tuple (logits, loss).",
        ),
        Wrong(
            "softmax twice",
            _flawed(loss=lambda found, y: F.cross_entropy(found.softmax(1), y)),
            "the loss takes the softmax twice",
            "`F.cross_entropy` wants logits.",
        ),
        Wrong(
            "summed loss",
            _flawed(loss=lambda found, y: F.cross_entropy(found, y, reduction="sum")),
            "the loss is summed over the queries",
            "Average over the queries.",
        ),
        Wrong(
            "softmax over the queries",
            _flawed(loss=lambda found, y: F.nll_loss(found.log_softmax(0), y)),
            "the softmax runs over the queries: dim=0",
            "Every *query* chooses among classes.",
        ),
    ),
    hints=(
        "Four lines: embed, average, measure, compare with the labels.",
        "Prototypes from `support[support_y == k].mean(0)`; logits are minus squared distances; loss is the cross-entropy.",
        "`logits = -(query[:, None] - centres).square().sum(-1); return logits, F.cross_entropy(logits, query_y)`",
    ),
)

EXERCISES = (PROTOTYPES, DISTANCES, LOSS, LINEAR, LEAK, GAUSSIAN, ORDER, MEMORY)
