"""Exercises of lesson 05: prototypes, squared distances, the loss, the linear view, two detectors, cosine, the whole method.

Cases: every exercise builds its own; 05.1, 05.3 and 05.8 draw their support with `_support_rows`. The detectors 05.5 and 05.7
get implementations as arguments and must return True for the broken ones only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
            "every sum is divided by one more than the shots: `scatter_reduce` and `index_reduce` count the zeros that they start from",
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
            "a square root is taken and squared again: the value is right, but at distance zero the gradient of the root is infinite",
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
            "row i of the queries meets row i of the prototypes only: one distance for each pair of rows, where the shapes allow it",
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
            also=(lambda q, c: (q[:, None] - c).square().sum(0), lambda q, c: (q[:, None] - c).square()),
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
            "all signs are turned: this is the squared distance itself, and the farthest class wins",
            "Logits are *minus* the squared distances: w = 2c and b = −|c|².",
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
            "the squares are summed over the classes: a bias for each feature",
            "One bias for each class: sum over the features, `.sum(1)`.",
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


def _exposes_by_first_and_last(predict: Predict, episode: Episode) -> bool:
    whole = predict(episode)
    for rows in (slice(0, 1), slice(-1, None)):
        part = predict(replace(episode, query_x=episode.query_x[rows], query_y=episode.query_y[rows]))
        if (part - whole[rows]).abs().max() > 1e-3:
            return True
    return False


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


def _only_first(predict: Predict, episode: Episode) -> bool:
    alone = predict(replace(episode, query_x=episode.query_x[:1], query_y=episode.query_y[:1]))
    return not torch.allclose(predict(episode)[:1], alone, rtol=1e-3, atol=1e-4)


def _only_last(predict: Predict, episode: Episode) -> bool:
    """Judges the last query only, as a loop does that overwrites its verdict."""
    alone = predict(replace(episode, query_x=episode.query_x[-1:], query_y=episode.query_y[-1:]))
    return not torch.allclose(predict(episode)[-1:], alone, rtol=1e-3, atol=1e-4)


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
    ]


LEAK = Exercise(
    id="05.5",
    title="Bug hunt: does a query see the others?",
    reference=exposes_leak,
    cases=_leak_cases,
    right=(_exposes_by_noise, _exposes_by_first_and_last),
    wrong=(
        Wrong(
            "shuffled",
            _query_changed(lambda t: t.flip(0), lambda t: t.flip(0)),
            "the queries are only put in another order: means and variances of a batch do not notice",
            "Change *which* queries are there: remove the others, or replace them.",
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
            "exactly equal",
            _alone_judged_by(lambda a, b: not torch.equal(a, b)),
            "the logits are compared to the last digit: rounding rings the alarm",
            "`torch.allclose` with a tolerance such as `atol=1e-4`.",
        ),
        Wrong(
            "first query only",
            _only_first,
            "only the first query is looked at: what leaks from earlier to later queries is missed",
            "Try every query alone, not only number 0.",
        ),
        Wrong(
            "last query only",
            _only_last,
            "only the last query decides, as in a loop that overwrites its verdict: what leaks to earlier queries is missed",
            "One query that changes is enough: return True at once, or compare all of them together.",
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
            "the *support* is changed: predictions must depend on it, so the alarm rings always",
            "Leave the support alone; change the company of a query.",
        ),
    ),
    hints=(
        "A query's logits may depend on the support and on itself. On what must they not depend?",
        "Ask for all queries together, then for each alone: `replace(episode, query_x=episode.query_x[j:j+1], ...)`.",
        "Stack the lonely logits with `torch.cat` and return `not torch.allclose(together, alone, rtol=1e-3, atol=1e-4)`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 05.6 cosine with a scale


def cosine_logits(query: Tensor, centres: Tensor, scale: float) -> Tensor:
    """Returns scale times the cosine. query [M, D], centres [N, D] -> [M, N] in -scale..scale."""
    return scale * F.normalize(query, dim=1) @ F.normalize(centres, dim=1).T


def _cosine_by_hand(query: Tensor, centres: Tensor, scale: float) -> Tensor:
    q = query / query.norm(dim=1, keepdim=True).clamp_min(1e-8)
    c = centres / centres.norm(dim=1, keepdim=True).clamp_min(1e-8)
    return torch.einsum("md,nd->mn", q, c) * scale


def _cosine_with_epsilon(query: Tensor, centres: Tensor, scale: float) -> Tensor:
    unit_query = query / (query.norm(dim=1, keepdim=True) + 1e-8)
    return scale * unit_query @ (centres / (centres.norm(dim=1, keepdim=True) + 1e-8)).T


def _cosine_torch(query: Tensor, centres: Tensor, scale: float) -> Tensor:
    return scale * F.cosine_similarity(query[:, None], centres[None], dim=-1)


def _cosine_cases(generator: Generator) -> list[Case]:
    # Rows are long, so that a tiny number added to a length against division by zero does not show, even in float64.
    query, centres = 100 * torch.randn(6, 4, generator=generator), 300 * torch.randn(5, 4, generator=generator)
    example = (torch.tensor([[10.0, 0.0], [0.0, 10.0]]), torch.tensor([[30.0, 40.0], [0.0, 20.0]]), 10.0)
    return [
        Case("two queries, two prototypes, scale 10", example),
        Case("6 queries, 5 prototypes, scale 1", (query, centres, 1.0)),
        Case("one query, scale 20", (query[:1], centres, 20.0)),
        Case("float64", (query.double(), centres.double(), 5.0)),
    ]


def _zero_is_harmless(answer: Callable, reference: Callable) -> str | None:
    found = answer(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), 10.0)
    return None if bool(found.isfinite().all()) else "an embedding of zeros, as a dead ReLU gives, led to NaN."


COSINE = Exercise(
    id="05.6",
    title="Cosine with a scale",
    reference=cosine_logits,
    cases=_cosine_cases,
    gradient=(0, 1),
    properties=(Property("an embedding of zeros gives finite logits", _zero_is_harmless),),
    right=(_cosine_by_hand, _cosine_with_epsilon, _cosine_torch),
    wrong=(
        Wrong(
            "no scale",
            lambda q, c, s: cosine_logits(q, c, 1.0),
            "the scale is not used: the softmax stays nearly flat",
            "Multiply the cosines by `scale`.",
        ),
        Wrong(
            "divided",
            lambda q, c, s: cosine_logits(q, c, 1 / s),
            "the cosines are divided by the scale: that is what a temperature does",
            "A large scale must make the softmax sharp: multiply.",
        ),
        Wrong(
            "inner product",
            lambda q, c, s: s * q @ c.T,
            "nothing is made unit length: this is the inner product",
            "`F.normalize(..., dim=1)` on both.",
        ),
        Wrong(
            "queries not normalised",
            lambda q, c, s: s * q @ F.normalize(c, dim=1).T,
            "only the prototypes are made unit length: the length of a query then acts as a scale of its own",
            "Normalise the queries too.",
        ),
        Wrong(
            "prototypes not normalised",
            lambda q, c, s: s * F.normalize(q, dim=1) @ c.T,
            "only the queries are made unit length: a long prototype then gets the larger logits",
            "Normalise the prototypes too.",
        ),
        Wrong(
            "normalised over the rows",
            lambda q, c, s: s * F.normalize(q, dim=0) @ F.normalize(c, dim=0).T,
            "every feature is normalised over the rows: dim=0",
            "Each *row* becomes unit length: dim=1.",
        ),
        Wrong(
            "cosine distance",
            lambda q, c, s: s * (1 - cosine_logits(q, c, 1.0)),
            "1 − cosine is returned: a distance, for which near is small",
            "Logits must be large for the nearest class: return the cosine itself, scaled.",
        ),
        Wrong(
            "bare norm",
            lambda q, c, s: s * (q / q.norm(dim=1, keepdim=True)) @ (c / c.norm(dim=1, keepdim=True)).T,
            "a row of zeros is divided by its length 0",
            "`F.normalize` guards against it.",
        ),
        Wrong(
            "probabilities",
            lambda q, c, s: cosine_logits(q, c, s).softmax(1),
            "the softmax is taken already here",
            "Return logits; the loss takes the softmax.",
        ),
    ),
    hints=(
        "The cosine is the inner product of two vectors of length 1.",
        "`F.normalize(query, dim=1)` makes rows unit length; a matrix product gives all cosines.",
        "`scale * F.normalize(query, dim=1) @ F.normalize(centres, dim=1).T`",
    ),
)

# ---------------------------------------------------------------------------------------------- 05.7 order of the support

Means = Callable[[Tensor, Tensor, int], Tensor]


def exposes_order(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
    """Returns True if another order of the support gives other prototypes."""
    before = implementation(support, labels, n_way)
    for seed in range(5):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        if not torch.allclose(implementation(support[order], labels[order], n_way), before, atol=1e-4):
            return True
    return False


def _order_by_sorting(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
    """Detects a dependence on the order by sorting the support by label, forwards and backwards."""
    orders = [labels.argsort(stable=True), labels.argsort(stable=True).flip(0)]
    first, second = (implementation(support[o], labels[o], n_way) for o in orders)
    return bool((first - second).abs().max() > 1e-4)


def _order_by_rolling(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
    before = implementation(support, labels, n_way)
    rolled = [implementation(support.roll(i, 0), labels.roll(i, 0), n_way) for i in range(1, len(labels))]
    return any(float((after - before).abs().max()) > 1e-3 for after in rolled)


def _order_compared(
    summary: Callable[[Tensor], Tensor] = lambda t: t, *, rows: bool = True, names: bool = True, exact: bool = False
) -> Callable[..., bool]:
    """Returns a flawed detector: it compares a summary, or shuffles only rows or only labels, or compares exactly."""

    def detector(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        first = summary(implementation(support, labels, n_way))
        second = summary(implementation(support[order] if rows else support, labels[order] if names else labels, n_way))
        return not torch.equal(first, second) if exact else not torch.allclose(first, second, atol=1e-4)

    return detector


def _order_sorted_once(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
    order = labels.argsort(stable=True)
    first, second = implementation(support, labels, n_way), implementation(support[order], labels[order], n_way)
    return not torch.allclose(first, second, atol=1e-4)


def _order_within(implementation: Means, support: Tensor, labels: Tensor, n_way: int) -> bool:
    order = labels.argsort(stable=True)
    inside = order.view(n_way, -1).flip(1).flatten()
    first, second = (implementation(support[o], labels[o], n_way) for o in (order, inside))
    return not torch.allclose(first, second, atol=1e-4)


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


def _order_cases(generator: Generator) -> list[Case]:
    labels = torch.arange(4).repeat_interleave(3)
    sorted_rows = torch.randn(12, 5, generator=generator) + 2 * labels[:, None]
    order = torch.randperm(12, generator=generator)
    shuffled, names = sorted_rows[order], labels[order]
    interleaved = torch.arange(12).view(4, 3).T.flatten()
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
    ]


ORDER = Exercise(
    id="05.7",
    title="Bug hunt: does the order of the support matter?",
    reference=exposes_order,
    cases=_order_cases,
    right=(_order_by_sorting, _order_by_rolling),
    wrong=(
        Wrong(
            "rows without labels",
            _order_compared(names=False),
            "only the pictures are shuffled: now the labels are wrong, and right answers must change",
            "Use one `order` for both: `support[order], labels[order]`.",
        ),
        Wrong(
            "labels without rows",
            _order_compared(rows=False),
            "only the labels are shuffled: a reshape never reads them, and every right answer changes",
            "Use one `order` for both: `support[order], labels[order]`.",
        ),
        Wrong(
            "mean of all prototypes",
            _order_compared(lambda t: t.mean(0)),
            "the mean of all prototypes is compared, which no order of equal classes can move",
            "Compare prototype by prototype.",
        ),
        Wrong(
            "shapes",
            _order_compared(lambda t: torch.tensor(t.shape)),
            "only the shapes are compared",
            "Compare the values with `torch.allclose`.",
        ),
        Wrong(
            "to the last digit",
            _order_compared(exact=True),
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
            _order_sorted_once,
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
            "within a class",
            _order_within,
            "the support is sorted first and rows change places within their class only, where a reshape is safe",
            "Mix the classes: one `torch.randperm` over all rows.",
        ),
    ),
    hints=(
        "A set has no order. What may a shuffled support not change?",
        "`order = torch.randperm(len(labels))`, then the same implementation on `support[order], labels[order]`.",
        "Call the implementation on both orders and return `not torch.allclose(before, after, atol=1e-4)`.",
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


def _memory_cases(generator: Generator) -> list[Case]:
    def case(says: str, shots: list[int], queries: int) -> Case:
        _, support_y, n_way = _support_rows(generator, shots)
        pictures = torch.rand(len(support_y) + queries, 1, 4, 4, generator=generator)
        query_y = torch.randint(n_way, (queries,), generator=generator)
        support_x, query_x = pictures[: len(support_y)], pictures[len(support_y) :]
        return Case(says, (small_encoder(generator), support_x, support_y, query_x, query_y, n_way))

    return [
        case("5-way 2-shot, 10 queries, rows shuffled", [2] * 5, 10),
        case("unequal shots: 1, 4 and 2", [1, 4, 2], 6),
        case("one query", [1, 1, 1], 1),
        case("as many queries as classes", [3, 3, 3], 3),
    ]


MEMORY = Exercise(
    id="05.8",
    title="Prototypical Networks from memory",
    reference=protonet,
    cases=_memory_cases,
    properties=(Property("the loss teaches the encoder through support and query", teaches_encoder(_memory_cases)),),
    right=(_protonet_joint, _protonet_plain),
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
    ),
    hints=(
        "Four lines: embed, average, measure, compare with the labels.",
        "Prototypes from `support[support_y == k].mean(0)`; logits are minus squared distances; loss is the cross-entropy.",
        "`logits = -(query[:, None] - centres).square().sum(-1); return logits, F.cross_entropy(logits, query_y)`",
    ),
)

EXERCISES = (PROTOTYPES, DISTANCES, LOSS, LINEAR, LEAK, COSINE, ORDER, MEMORY)
