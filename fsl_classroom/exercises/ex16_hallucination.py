"""Exercises of lesson 16: KL in nats, how varied drawings are, a borrowed Gaussian, and a detector of alpha in the wrong place.

Cases: every exercise builds its own. The detector 16.4 gets an implementation as an argument and must return True for the broken
ones only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.distributions import Normal, kl_divergence

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ---------------------------------------------------------------------------------------------- 16.1 the KL term


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns KL(N(mean, exp(log_variance)) || N(0, I)) of every row, in nats. [B, Z], [B, Z] -> [B]."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)


def _kl_of_torch(mean: Tensor, log_variance: Tensor) -> Tensor:
    return kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros_like(mean), 1.0)).sum(-1)


def _kl_with_spreads(mean: Tensor, log_variance: Tensor) -> Tensor:
    spread = torch.exp(0.5 * log_variance)
    return ((spread**2 + mean**2) / 2 - 0.5 - spread.log()).sum(dim=1)


def _kl_row_by_row(mean: Tensor, log_variance: Tensor) -> Tensor:
    rows = []
    for m, lv in zip(mean, log_variance, strict=True):
        rows.append(sum(0.5 * (a * a + b.exp() - b - 1) for a, b in zip(m, lv, strict=True)))
    return torch.stack(rows)


def _kl_in_parts(mean: Tensor, log_variance: Tensor) -> Tensor:
    trace, length, log_determinant = (
        log_variance.exp().sum(1),
        torch.einsum("bz,bz->b", mean, mean),
        log_variance.sum(1),
    )
    return (trace + length - log_determinant - mean.shape[1]) / 2


def _each(mean: Tensor, log_variance: Tensor) -> Tensor:
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)


def _kl_cases(generator: Generator) -> list[Case]:
    def drawn(b: int, z: int) -> tuple[Tensor, Tensor]:
        return torch.randn(b, z, generator=generator), 0.8 * torch.randn(b, z, generator=generator) - 0.3

    four = drawn(4, 3)
    return [
        Case("the example on paper", (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, -2.0]]))),
        Case("4 rows, 3 numbers each", four),
        Case("as many rows as numbers", drawn(3, 3)),
        Case("a row that is the prior itself", (torch.zeros(2, 3), torch.zeros(2, 3))),
        Case("one number", drawn(5, 1)),
        Case(
            "rows that are far away, very wide, and very narrow",
            (torch.tensor([[8.0, -8.0], [0.5, 0.0], [0.0, -0.5]]), torch.tensor([[0.0, 0.1], [7.0, 0.0], [0.0, -8.0]])),
        ),
        Case("float64", (four[0].double(), four[1].double())),
    ]


KL = Exercise(
    id="16.1",
    title="The KL term",
    reference=kl,
    cases=_kl_cases,
    gradient=(0, 1),
    right=(_kl_of_torch, _kl_with_spreads, _kl_row_by_row, _kl_in_parts),
    wrong=(
        Wrong(
            "mean over the numbers",
            lambda m, v: _each(m, v).mean(1),
            "the numbers of a row are averaged and not summed",
            "The coordinates are independent, so their nats add up: `.sum(1)`.",
        ),
        Wrong(
            "mean over the batch",
            lambda m, v: _each(m, v).sum(1).mean(),
            "the rows are averaged or summed: one number comes out where every row has its own",
            "Sum over `dim=1` only.",
            also=(
                lambda m, v: _each(m, v).sum(),
                lambda m, v: _each(m, v).mean(),
            ),
        ),
        Wrong(
            "sum over the rows",
            lambda m, v: _each(m, v).sum(0),
            "the sum runs over the rows, and each coordinate gets a number",
            "Each row is one Gaussian: sum over its coordinates, `dim=1`.",
        ),
        Wrong(
            "not summed",
            _each,
            "every coordinate keeps its own number",
            "A row is one Gaussian: sum its coordinates.",
        ),
        Wrong(
            "without one half",
            lambda m, v: 2 * kl(m, v),
            "the factor 1/2 is missing",
            "Half of the whole bracket.",
        ),
        Wrong(
            "turned sign",
            lambda m, v: -kl(m, v),
            "the sign is turned round: a divergence is never negative",
            "Half the sum of mean squared, plus variance, minus log variance, minus 1.",
        ),
        Wrong(
            "without the 1",
            lambda m, v: 0.5 * (m.square() + v.exp() - v).sum(1),
            "the 1 is forgotten, or not subtracted in each coordinate: the prior itself gets a divergence",
            "Subtract 1 in every coordinate, inside the sum.",
            also=(
                lambda m, v: 0.5 * ((m.square() + v.exp() - v).sum(1) - 1),
                lambda m, v: 0.5 * (m.square() + v.exp() - v).sum(1) - 1,
                lambda m, v: 0.5 * ((m.square() + v.exp() - v).sum(1) - len(m)),
                lambda m, v: (0.5 * (m.square() + v.exp() - v) - 1).sum(1),
            ),
        ),
        Wrong(
            "variance for its logarithm",
            lambda m, v: 0.5 * (m.square() + v - v.clamp_min(1e-6).log() - 1).sum(1),
            "the second argument is taken for the variance; it is the logarithm of it",
            "The variance is `log_variance.exp()`.",
            also=(
                lambda m, v: 0.5 * (m.square() + v - v.log() - 1).sum(1),
                lambda m, v: 0.5 * (m.square() + v.square() - 2 * v.log() - 1).sum(1),
                lambda m, v: 0.5 * (m.square() + v.square() - v.square().log() - 1).sum(1),
                lambda m, v: 0.5 * (m.square() + v.abs() - v.abs().log() - 1).sum(1),
            ),
        ),
        Wrong(
            "logarithm of the spread",
            lambda m, v: 0.5 * (m.square() + (2 * v).exp() - 2 * v - 1).sum(1),
            "the second argument is taken for the logarithm of the standard deviation",
            "It is that of the variance: `log_variance.exp()` is the variance already.",
        ),
        Wrong(
            "half spread",
            lambda m, v: 0.5 * (m.square() + (v / 2).exp() - v - 1).sum(1),
            "the standard deviation stands where the variance belongs",
            "`log_variance.exp()` is the variance.",
            also=(lambda m, v: 0.5 * (m.square() + (v / 2).exp() - v / 2 - 1).sum(1),),
        ),
        Wrong(
            "mean not squared",
            lambda m, v: 0.5 * (m + v.exp() - v - 1).sum(1),
            "the mean is not squared",
            "`mean.square()`.",
            also=(lambda m, v: 0.5 * (m.abs() + v.exp() - v - 1).sum(1),),
        ),
        Wrong(
            "log variance added",
            lambda m, v: 0.5 * (m.square() + v.exp() + v - 1).sum(1),
            "the log variance is added and not subtracted",
            "Minus the log variance: a narrow Gaussian costs nats.",
        ),
        Wrong(
            "variance and logarithm exchanged",
            lambda m, v: 0.5 * (m.square() + v - v.exp() - 1).sum(1),
            "the variance is subtracted and its logarithm added: their signs have changed places",
            "Plus the variance, minus its logarithm.",
            also=(
                lambda m, v: 0.5 * (m.square() + v - v.exp() + 1).sum(1),
                lambda m, v: 0.5 * (1 + v - m.square() + v.exp()).sum(1),
            ),
        ),
        Wrong(
            "summed before squaring",
            lambda m, v: 0.5 * (m.sum(1).square() + (v.exp() - v - 1).sum(1)),
            "the means of a row are summed first and squared afterwards",
            "Square every coordinate, then sum.",
        ),
        Wrong(
            "the other direction",
            lambda m, v: 0.5 * ((m.square() + 1) / v.exp() + v - 1).sum(1),
            "the two Gaussians have changed places: this is KL(prior || q)",
            "Average the log ratio under q: the variance stands above the line.",
        ),
        Wrong(
            "in bits",
            lambda m, v: kl(m, v) / 0.6931471805599453,
            "the result is in bits",
            "Nats come from the natural logarithm: do not divide by log 2.",
            also=(lambda m, v: 0.5 * (m.square() + v.exp() - v / 0.6931471805599453 - 1).sum(1),),
        ),
        Wrong(
            "variance forgotten",
            lambda m, v: 0.5 * m.square().sum(1),
            "only the means are used",
            "The variance has a cost of its own: variance minus log variance minus 1.",
        ),
        Wrong(
            "mean forgotten",
            lambda m, v: 0.5 * (v.exp() - v - 1).sum(1),
            "only the variances are used",
            "A mean away from 0 costs half of its square.",
        ),
        Wrong(
            "logarithm forgotten",
            lambda m, v: 0.5 * (m.square() + v.exp() - 1).sum(1),
            "the log variance is not subtracted",
            "The bracket is mean squared, plus variance, minus log variance, minus 1.",
        ),
        Wrong(
            "variance itself forgotten",
            lambda m, v: 0.5 * (m.square() - v - 1).sum(1),
            "the log variance is there and the variance is not",
            "Add `log_variance.exp()` inside the bracket.",
            also=(lambda m, v: 0.5 * (m.square() - v).sum(1),),
        ),
        Wrong(
            "half in one place only",
            lambda m, v: (0.5 * (m.square() + v.exp() - 1) - v).sum(1),
            "the factor 1/2 does not reach the log variance",
            "One half stands before the whole bracket.",
        ),
        Wrong(
            "one coordinate",
            lambda m, v: _each(m, v)[:, -1],
            "only one coordinate of each row is used",
            "Sum over all of them: `.sum(1)`.",
            also=(lambda m, v: _each(m, v)[:, 0],),
        ),
        Wrong(
            "product",
            lambda m, v: _each(m, v).prod(1),
            "the coordinates are multiplied",
            "Densities multiply, nats add up: `.sum(1)`.",
        ),
        Wrong(
            "mean over variance",
            lambda m, v: 0.5 * (m.square() / v.exp() + v.exp() - v - 1).sum(1),
            "the squared mean is divided by the variance of q",
            "It is divided by the variance of the prior, which is 1.",
        ),
        Wrong(
            "kept dimension",
            lambda m, v: kl(m, v)[:, None],
            "a dimension of size 1 is kept",
            "[B]: sum without `keepdim`.",
        ),
        Wrong(
            "without gradient",
            lambda m, v: kl(m.detach(), v.detach()),
            "the result is cut off from the graph",
            "No `.detach()` and no `no_grad`.",
            also=(
                lambda m, v: kl(m.detach(), v),
                lambda m, v: kl(m, v.detach()),
                lambda m, v: 0.5 * (m.square() + v.exp().detach() - v - 1).sum(1),
            ),
        ),
    ),
    hints=(
        "The bracket of equation (3) stands for one coordinate. Coordinates are independent, so their divergences add up.",
        "The variance is `log_variance.exp()`. Build the bracket for all entries at once, then sum over `dim=1`.",
        "`0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 16.2 how varied?


def spread(embeddings: Tensor) -> Tensor:
    """Returns the mean distance of two different drawings of each letter. [L, n, D] -> [L]."""
    apart = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    n = embeddings.shape[1]
    return apart.sum((1, 2)) / (n * (n - 1))


def _spread_by_pdist(embeddings: Tensor) -> Tensor:
    return torch.stack([torch.pdist(rows).mean() for rows in embeddings])


def _spread_by_pairs(embeddings: Tensor) -> Tensor:
    n = embeddings.shape[1]
    pairs = [(i, j) for i in range(n) for j in range(i)]
    return torch.stack([(embeddings[:, i] - embeddings[:, j]).norm(dim=-1) for i, j in pairs]).mean(0)


def _spread_by_triangle(embeddings: Tensor) -> Tensor:
    i, j = torch.triu_indices(embeddings.shape[1], embeddings.shape[1], 1)
    return (embeddings[:, i] - embeddings[:, j]).square().sum(-1).sqrt().mean(1)


def _spread_by_mask(embeddings: Tensor) -> Tensor:
    apart = (embeddings[:, :, None] - embeddings[:, None]).norm(dim=-1)
    others = ~torch.eye(embeddings.shape[1], dtype=torch.bool)
    return apart[:, others].mean(1)


def _distances(e: Tensor) -> Tensor:
    return (e[:, :, None] - e[:, None]).square().sum(-1).sqrt()


def _spread_cases(generator: Generator) -> list[Case]:
    def drawn(letters: int, n: int, d: int = 3) -> Tensor:
        return torch.randn(letters, n, d, generator=generator) * (1 + torch.arange(letters).view(-1, 1, 1))

    return [
        Case("the example on paper", (torch.tensor([[[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]]),)),
        Case("3 letters, 5 drawings", (drawn(3, 5),)),
        Case("two drawings of each", (drawn(4, 2),)),
        Case("as many letters as drawings", (drawn(3, 3),)),
        Case("all drawings alike", (torch.ones(2, 4, 3),)),
        Case("a copy among the drawings", (torch.cat([drawn(2, 3), torch.zeros(2, 2, 3)], 1),)),
        Case(
            "near copies, as a collapsed drawer makes them",
            (torch.randn(2, 1, 64, generator=generator) + 1e-4 * torch.randn(2, 4, 64, generator=generator),),
        ),
        Case("float64", (drawn(2, 4).double(),)),
    ]


def _by_products(e: Tensor) -> Tensor:
    """Distances by |a|^2 + |b|^2 - 2ab, which loses the digits of near copies."""
    products = e @ e.mT
    squares = products.diagonal(dim1=1, dim2=2)
    return squares[:, :, None] + squares[:, None] - 2 * products


def _no_order(answer: Callable, reference: Callable) -> str | None:
    rows = torch.randn(2, 5, 3, generator=Generator().manual_seed(3))
    gap = float((answer(rows.flip(1)) - answer(rows)).abs().max())
    return f"the same drawings in another order changed the answer by {gap:.2g}." if gap > 1e-5 else None


SPREAD = Exercise(
    id="16.2",
    title="How varied?",
    reference=spread,
    cases=_spread_cases,
    properties=(Property("the order of the drawings does not matter", _no_order),),
    right=(_spread_by_pdist, _spread_by_pairs, _spread_by_triangle, _spread_by_mask),
    wrong=(
        Wrong(
            "each with itself",
            lambda e: _distances(e).mean((1, 2)),
            "every drawing is also compared with itself, and these zeros lower the mean",
            "There are n (n - 1) ordered pairs of *different* drawings, not n squared.",
        ),
        Wrong(
            "squared distances",
            lambda e: _distances(e).square().sum((1, 2)) / (e.shape[1] * (e.shape[1] - 1)),
            "the distances are squared",
            "Take the root: plain distances.",
            also=(lambda e: _distances(e).square().mean((1, 2)),),
        ),
        Wrong(
            "one number for all letters",
            lambda e: spread(e).mean(),
            "the letters are averaged, too",
            "Every letter has a spread of its own: [L].",
            also=(lambda e: spread(e).sum(), lambda e: _distances(e).mean()),
        ),
        Wrong(
            "pairs of all letters",
            lambda e: spread(e.flatten(0, 1)[None])[0].expand(len(e)).clone(),
            "drawings of different letters are compared, too",
            "Only pairs within one letter count.",
            also=(lambda e: spread(e.flatten(0, 1)[None])[0], lambda e: spread(e.flatten(0, 1)[None])),
        ),
        Wrong(
            "sum of pairs",
            lambda e: _distances(e).sum((1, 2)) / 2,
            "the distances are summed, or divided by the number of drawings and not of pairs",
            "Divide by the number of pairs.",
            also=(
                lambda e: _distances(e).sum((1, 2)),
                lambda e: _distances(e).sum((1, 2)) / (e.shape[1] - 1),
                lambda e: _distances(e).sum((1, 2)) / e.shape[1],
                lambda e: _distances(e).triu(1).sum((1, 2)) / e.shape[1],
                lambda e: _distances(e).sum((1, 2)) / (e.shape[1] - 1) ** 2,
            ),
        ),
        Wrong(
            "half of the pairs",
            lambda e: _distances(e).sum((1, 2)) / (e.shape[1] * (e.shape[1] - 1)) / 2,
            "each pair stands once above the line and twice below it, or the other way round",
            "The full table holds every pair twice: divide its sum by n (n - 1).",
            also=(
                lambda e: 2 * spread(e),
                lambda e: _distances(e).triu().mean((1, 2)),
            ),
        ),
        Wrong(
            "distance to the mean",
            lambda e: (e - e.mean(1, keepdim=True)).norm(dim=-1).mean(1),
            "distances to the mean of the drawings are averaged",
            "Compare the drawings with each other, two at a time.",
        ),
        Wrong(
            "distance to the first",
            lambda e: (e - e[:, :1]).norm(dim=-1).sum(1) / (e.shape[1] - 1),
            "all drawings are compared with the first one only",
            "All pairs of different drawings.",
            also=(lambda e: (e - e[:, :1]).norm(dim=-1).mean(1),),
        ),
        Wrong(
            "neighbours only",
            lambda e: (e[:, 1:] - e[:, :-1]).norm(dim=-1).mean(1),
            "only drawings that follow each other are compared",
            "All pairs of different drawings.",
            also=(lambda e: (e.roll(1, 1) - e).norm(dim=-1).mean(1),),
        ),
        Wrong(
            "standard deviation",
            lambda e: e.std(1).mean(1),
            "the standard deviation of the features is averaged",
            "The distance of two drawings is one number: the length of their difference.",
            also=(lambda e: e.std(1).norm(dim=1), lambda e: e.var(1).sum(1), lambda e: e.var(1).mean(1)),
        ),
        Wrong(
            "zeros left out",
            lambda e: torch.stack([d[d > 0].mean() if bool((d > 0).any()) else d.sum() for d in _distances(e)]),
            "all distances of 0 are left out, and with them the copies that show a collapse",
            "Leave out the diagonal only: two equal drawings are a pair with distance 0.",
            also=(lambda e: torch.stack([d[d > 0].mean() for d in _distances(e)]),),
        ),
        Wrong(
            "city blocks",
            lambda e: torch.cdist(e, e, p=1).sum((1, 2)) / (e.shape[1] * (e.shape[1] - 1)),
            "absolute differences are summed or averaged: the city-block distance",
            "Squares, their sum, then the root.",
            also=(lambda e: (e[:, :, None] - e[:, None]).abs().mean((1, 2, 3)),),
        ),
        Wrong(
            "mean of squares",
            lambda e: spread(e) / e.shape[2] ** 0.5,
            "the squares are averaged over the features before the root",
            "Sum the squares.",
        ),
        Wrong(
            "the largest",
            lambda e: _distances(e).amax((1, 2)),
            "only some pairs count: the farthest, the nearest or the median",
            "The mean over all pairs of different drawings.",
            also=(
                lambda e: _distances(e).amax(2).mean(1),
                lambda e: (_distances(e) + 1e9 * torch.eye(e.shape[1]).to(e)).amin(2).mean(1),
                lambda e: _distances(e).flatten(1).median(1).values,
                lambda e: torch.stack([torch.pdist(r).median() for r in e]),
                lambda e: torch.stack([torch.pdist(r).min() for r in e]),
            ),
        ),
        Wrong(
            "root mean square",
            lambda e: (_distances(e).square().sum((1, 2)) / (e.shape[1] * (e.shape[1] - 1))).sqrt(),
            "the squares are averaged over the pairs before the root is taken",
            "A root for every pair first, then the mean.",
            also=(lambda e: _distances(e).square().mean((1, 2)).sqrt(),),
        ),
        Wrong(
            "lengths made equal",
            lambda e: spread(torch.nn.functional.normalize(e, dim=-1)),
            "embeddings are normalised, or compared by their angle",
            "Take the embeddings as they are.",
            also=(
                lambda e: (
                    torch.stack([(1 - torch.cosine_similarity(r[:, None], r[None], dim=-1)).sum() for r in e])
                    / (e.shape[1] * (e.shape[1] - 1))
                ),
            ),
        ),
        Wrong(
            "largest feature",
            lambda e: (e[:, :, None] - e[:, None]).abs().amax(-1).sum((1, 2)) / (e.shape[1] * (e.shape[1] - 1)),
            "only the feature that differs most counts",
            "Squares of all features, their sum, then the root.",
        ),
        Wrong(
            "rounding of near copies",
            lambda e: _by_products(e).clamp_min(0).sqrt().sum((1, 2)) / (e.shape[1] * (e.shape[1] - 1)),
            "distances come from squares minus products: for near copies, rounding is larger than the distance",
            "Subtract first: `embeddings[:, :, None] - embeddings[:, None]`, or `torch.pdist`.",
        ),
        Wrong(
            "axes exchanged",
            lambda e: spread(e.transpose(0, 1)),
            "letters and drawings have changed places",
            "The first axis holds letters, the second their drawings.",
        ),
    ),
    hints=(
        "How many pairs of different drawings does a letter with n drawings have?",
        "`torch.cdist(embeddings, embeddings)` has shape [L, n, n], and zeros on the diagonal that are no pairs.",
        "Sum that table over its last two axes and divide by n * (n - 1).",
    ),
)

# ---------------------------------------------------------------------------------------------- 16.3 a borrowed Gaussian


def calibrate(x: Tensor, means: Tensor, covariances: Tensor, nearest: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Borrows a Gaussian. x [D], means [C, D], covariances [C, D, D] -> mean [D], covariance [D, D]."""
    near = (means - x).norm(dim=1).argsort()[:nearest]
    mean = (means[near].sum(0) + x) / (nearest + 1)
    return mean, covariances[near].mean(0) + alpha * torch.eye(len(x), dtype=x.dtype)


def _calibrate_topk(x: Tensor, means: Tensor, covariances: Tensor, nearest: int, alpha: float) -> tuple[Tensor, Tensor]:
    near = torch.cdist(x[None], means)[0].topk(nearest, largest=False).indices
    mean = torch.cat([means[near], x[None]]).mean(0)
    covariance = covariances[near].sum(0) / nearest
    covariance.diagonal().add_(alpha)
    return mean, covariance


def _calibrate_loop(x: Tensor, means: Tensor, covariances: Tensor, nearest: int, alpha: float) -> tuple[Tensor, Tensor]:
    order = sorted(range(len(means)), key=lambda c: float(((means[c] - x) ** 2).sum()))[:nearest]
    mean, covariance = x.clone(), torch.zeros_like(covariances[0])
    for c in order:
        mean, covariance = mean + means[c], covariance + covariances[c] / nearest
    return mean / (nearest + 1), covariance + torch.diag(torch.full((len(x),), alpha, dtype=x.dtype))


def _calibrate_einsum(
    x: Tensor, means: Tensor, covariances: Tensor, nearest: int, alpha: float
) -> tuple[Tensor, Tensor]:
    gaps = (means - x).square().sum(1)
    weight = torch.zeros_like(gaps)
    weight[gaps.sort().indices[:nearest]] = 1.0
    mean = (weight @ means + x) / (weight.sum() + 1)
    return mean, torch.einsum("c,cij->ij", weight / nearest, covariances) + alpha * torch.eye(x.shape[0]).to(x)


def _with(
    near: Callable[[Tensor, Tensor, int], Tensor] | None = None,
    mean: Callable[[Tensor, Tensor, int], Tensor] | None = None,
    covariance: Callable[[Tensor, float], Tensor] | None = None,
) -> Callable:
    """Returns an answer in which one of the three steps is another one."""

    def answer(x: Tensor, means: Tensor, covariances: Tensor, nearest: int, alpha: float) -> tuple[Tensor, Tensor]:
        chosen = near(x, means, nearest) if near else (means - x).norm(dim=1).argsort()[:nearest]
        middle = mean(means[chosen], x, nearest) if mean else (means[chosen].sum(0) + x) / (nearest + 1)
        wide = covariance(covariances[chosen], alpha) if covariance else None
        eye = torch.eye(len(x), dtype=x.dtype)
        return middle, covariances[chosen].mean(0) + alpha * eye if wide is None else wide

    return answer


def _eye(c: Tensor) -> Tensor:
    return torch.eye(c.shape[-1], dtype=c.dtype)


def _calibrate_cases(generator: Generator) -> list[Case]:
    def drawn(classes: int, d: int, nearest: int, alpha: float) -> tuple:
        means = 2 * torch.rand(classes, d, generator=generator)
        root = torch.randn(classes, d, d, generator=generator)
        return 2 * torch.rand(d, generator=generator), means, root @ root.mT, nearest, alpha

    line = (
        torch.tensor([0.0, 0.0]),
        torch.tensor([[3.0, 0.0], [0.0, 6.0], [9.0, 9.0]]),
        torch.stack([torch.eye(2), 3 * torch.eye(2), 9 * torch.eye(2)]),
        2,
        0.5,
    )
    six = drawn(6, 3, 2, 0.21)
    return [
        Case("the example on paper", line),
        Case("6 base classes, 3 features", six),
        Case("only the nearest class", drawn(5, 4, 1, 0.1)),
        Case("the nearest three", drawn(7, 3, 3, 0.4)),
        Case("as many classes as features", drawn(3, 3, 2, 0.3)),
        Case("no alpha", (*six[:4], 0.0)),
        Case(
            "a class far in one feature, and one a little off in both",
            (
                torch.zeros(2),
                torch.tensor([[0.0, 3.0], [2.0, 2.0], [9.0, 0.0]]),
                torch.stack([torch.eye(2), 2 * torch.eye(2), 3 * torch.eye(2)]),
                1,
                0.5,
            ),
        ),
        Case("features below 0", (six[0] - 1.2, six[1] - 1.0, *six[2:])),
        Case(
            "two classes at one distance, and classes that do not vary",
            (
                torch.tensor([0.5, 1.0]),
                torch.tensor([[9.0, 9.0], [1.5, 1.0], [-0.5, 1.0]]),
                torch.zeros(3, 2, 2),
                2,
                0.5,
            ),
        ),
        Case("float64", tuple(t.double() for t in six[:3]) + six[3:]),
    ]


CALIBRATE = Exercise(
    id="16.3",
    title="A borrowed Gaussian",
    reference=calibrate,
    cases=_calibrate_cases,
    right=(_calibrate_topk, _calibrate_loop, _calibrate_einsum, _with()),
    wrong=(
        Wrong(
            "alpha everywhere",
            _with(covariance=lambda c, a: c.mean(0) + a),
            "alpha is added to every entry of the covariance, as in the public code",
            "Only the diagonal gets alpha: add `alpha * torch.eye(D)`.",
        ),
        Wrong(
            "without alpha",
            _with(covariance=lambda c, a: c.mean(0)),
            "alpha is forgotten",
            "Add `alpha * torch.eye(D)` to the covariance.",
        ),
        Wrong(
            "alpha multiplied",
            _with(covariance=lambda c, a: c.mean(0) * a),
            "the covariance is multiplied by alpha, by 1 + alpha or by 1 - alpha",
            "Add `alpha * torch.eye(D)`.",
            also=(
                _with(covariance=lambda c, a: c.mean(0) * (1 + a)),
                _with(covariance=lambda c, a: c.mean(0) * (1 + a * _eye(c))),
                _with(covariance=lambda c, a: (1 - a) * c.mean(0)),
                _with(covariance=lambda c, a: (1 - a) * c.mean(0) + a * _eye(c)),
            ),
        ),
        Wrong(
            "only the base means",
            _with(mean=lambda m, x, k: m.mean(0)),
            "the drawing itself is left out of the mean",
            "It counts like one of the base means: divide the sum of all by nearest + 1.",
        ),
        Wrong(
            "halves",
            _with(mean=lambda m, x, k: (m.mean(0) + x) / 2),
            "the drawing counts as much as all base means together",
            "It counts like *one* of them: divide the sum of all by nearest + 1.",
        ),
        Wrong(
            "divided by nearest",
            _with(mean=lambda m, x, k: (m.sum(0) + x) / k),
            "the sum of nearest + 1 vectors is divided by nearest, or not at all",
            "Divide by nearest + 1.",
            also=(_with(mean=lambda m, x, k: m.sum(0) + x), _with(mean=lambda m, x, k: m.mean(0) + x)),
        ),
        Wrong(
            "the drawing alone",
            _with(mean=lambda m, x, k: x + 0 * m.sum(0)),
            "the mean stays at the drawing: only the covariance is borrowed",
            "The mean of the nearest base means and the drawing.",
        ),
        Wrong(
            "farthest classes",
            _with(near=lambda x, m, k: (m - x).norm(dim=1).argsort(descending=True)[:k]),
            "the farthest base classes are taken",
            "`largest=False`, or sort upwards.",
        ),
        Wrong(
            "one class too many",
            _with(
                near=lambda x, m, k: (m - x).norm(dim=1).argsort()[1 : k + 1],
            ),
            "the nearest class is skipped, as if it were the drawing itself",
            "The drawing is no base class: take the first `nearest` of the order.",
        ),
        Wrong(
            "cosine",
            _with(near=lambda x, m, k: torch.cosine_similarity(m, x[None], dim=1).argsort(descending=True)[:k]),
            "base classes are ranked by the angle or the dot product and not by the distance",
            "`(means - x).norm(dim=1)`.",
            also=(_with(near=lambda x, m, k: (m @ x).argsort(descending=True)[:k]),),
        ),
        Wrong(
            "city blocks",
            _with(near=lambda x, m, k: (m - x).abs().sum(1).argsort()[:k]),
            "base classes are ranked by the sum or the largest of the absolute differences",
            "`(means - x).norm(dim=1)`.",
            also=(_with(near=lambda x, m, k: (m - x).abs().amax(1).argsort()[:k]),),
        ),
        Wrong(
            "a fixed three",
            _with(mean=lambda m, x, k: (m.sum(0) + x) / 3),
            "the sum is divided by 3, however many classes are asked for",
            "Divide by nearest + 1.",
        ),
        Wrong(
            "alpha over nearest",
            _with(covariance=lambda c, a: (c.sum(0) + a * _eye(c)) / len(c)),
            "alpha is divided, too: it was added before the mean was taken",
            "Average first, then add `alpha * torch.eye(D)`.",
            also=(_with(covariance=lambda c, a: (c.sum(0) + a * _eye(c)) / (len(c) + 1)),),
        ),
        Wrong(
            "by rows",
            _with(near=lambda x, m, k: (m - x).norm(dim=1).argsort()[:1]),
            "mean or covariance comes from only one class, from two, or from the first of the table",
            "Take `nearest` of them, in the order of their distance.",
            also=(
                _with(mean=lambda m, x, k: (m[0] + x) / 2),
                _with(covariance=lambda c, a: c[0] + a * _eye(c)),
                lambda x, m, c, k, a: (calibrate(x, m, c, k, a)[0], c[:k].mean(0) + a * _eye(c)),
                _with(near=lambda x, m, k: torch.arange(k)),
                _with(near=lambda x, m, k: (m - x).norm(dim=1).argsort()[:2]),
            ),
        ),
        Wrong(
            "sum of covariances",
            _with(covariance=lambda c, a: c.sum(0) + a * _eye(c)),
            "the covariances are summed and not averaged",
            "`covariances[near].mean(0)`.",
        ),
        Wrong(
            "covariances with x",
            _with(covariance=lambda c, a: c.sum(0) / (len(c) + 1) + a * _eye(c)),
            "the covariances are divided by nearest + 1; the drawing has no covariance to add",
            "`covariances[near].mean(0)`: divide by nearest.",
        ),
        Wrong(
            "alpha for every class",
            _with(covariance=lambda c, a: c.mean(0) + len(c) * a * _eye(c)),
            "alpha is added once for every class",
            "Average first, then add `alpha * torch.eye(D)` once.",
        ),
        Wrong(
            "all base classes",
            lambda x, m, c, k, a: ((m.sum(0) + x) / (len(m) + 1), c.mean(0) + a * _eye(c)),
            "all base classes are used",
            "Only the `nearest` ones.",
            also=(
                lambda x, m, c, k, a: (calibrate(x, m, c, k, a)[0], c.mean(0) + a * _eye(c)),
                lambda x, m, c, k, a: ((m.sum(0) + x) / (len(m) + 1), calibrate(x, m, c, k, a)[1]),
            ),
        ),
        Wrong(
            "alpha divided",
            _with(covariance=lambda c, a: c.mean(0) + a**2 * _eye(c)),
            "alpha is squared, or its root is taken",
            "alpha is a variance already.",
            also=(_with(covariance=lambda c, a: c.mean(0) + a**0.5 * _eye(c)),),
        ),
        Wrong(
            "only the diagonal",
            _with(covariance=lambda c, a: (c.mean(0) + a) * _eye(c)),
            "everything off the diagonal is set to 0",
            "Keep the covariance whole; only alpha belongs to the diagonal alone.",
            also=(_with(covariance=lambda c, a: c.mean(0).diagonal() + a),),
        ),
        Wrong(
            "alpha as a floor",
            _with(covariance=lambda c, a: c.mean(0) + torch.diag((a - c.mean(0).diagonal()).clamp_min(0))),
            "alpha is the least that a variance may be; it is not added",
            "Add `alpha * torch.eye(D)`, also where the variance is large.",
        ),
        Wrong(
            "diagonal replaced",
            _with(covariance=lambda c, a: c.mean(0) * (1 - _eye(c)) + a * _eye(c)),
            "the diagonal is replaced by alpha",
            "Add alpha to what stands there.",
        ),
        Wrong(
            "alpha subtracted",
            _with(covariance=lambda c, a: c.mean(0) - a * _eye(c)),
            "alpha is subtracted",
            "Add it: every direction shall vary more.",
        ),
        Wrong(
            "a fixed alpha",
            _with(covariance=lambda c, a: c.mean(0) + 0.21 * _eye(c)),
            "alpha is 0.21, whatever is asked for",
            "Use the argument.",
        ),
        Wrong(
            "one class more",
            _with(
                near=lambda x, m, k: (m - x).norm(dim=1).argsort()[: k + 1],
                mean=lambda m, x, k: (m.sum(0) + x) / (k + 2),
            ),
            "nearest + 1 base classes are taken",
            "`[:nearest]`. The drawing is the one more.",
            also=(
                _with(near=lambda x, m, k: (m - x).norm(dim=1).argsort()[: k + 1]),
                _with(near=lambda x, m, k: (m - x).norm(dim=1).argsort()[: k + 1], mean=lambda m, x, k: m.mean(0)),
            ),
        ),
        Wrong(
            "weights that are not shares",
            _with(mean=lambda m, x, k: x + m.sum(0) / (k + 1)),
            "the drawing and the base means are divided by different numbers",
            "Add all nearest + 1 vectors, then divide once.",
            also=(_with(mean=lambda m, x, k: x / (k + 1) + m.mean(0)),),
        ),
        Wrong(
            "alpha in the mean",
            lambda x, m, c, k, a: (calibrate(x, m, c, k, a)[0] + a, calibrate(x, m, c, k, a)[1]),
            "alpha is added to the mean, too",
            "alpha widens the covariance only.",
        ),
        Wrong(
            "exchanged",
            lambda x, m, c, k, a: calibrate(x, m, c, k, a)[::-1],
            "mean and covariance have changed places",
            "Return the mean first.",
        ),
    ),
    hints=(
        "Three steps: which base classes are near, their mean with the drawing among them, their covariance made wider.",
        "`(means - x).norm(dim=1).argsort()[:nearest]` says which. The mean has nearest + 1 members, the covariance nearest.",
        "`(means[near].sum(0) + x) / (nearest + 1)`, and `covariances[near].mean(0) + alpha * torch.eye(len(x), dtype=x.dtype)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 16.4 where does alpha go?


def exposes_alpha(widen: Callable[[Tensor, float], Tensor], covariance: Tensor) -> bool:
    """Returns True where widen(covariance, alpha) is not the covariance with alpha added to its diagonal. covariance [D, D]."""
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    return any(
        not torch.allclose(widen(covariance, alpha), covariance + alpha * eye, rtol=1e-4, atol=1e-5)
        for alpha in (0.0, 0.21, 1.7)
    )


def _exposes_by_difference(widen: Callable, covariance: Tensor) -> bool:
    for alpha in (0.1, 1.0):
        added = widen(covariance, alpha) - covariance
        off = added - torch.diag(added.diagonal())
        if float(off.abs().max()) > 1e-4 or float((added.diagonal() - alpha).abs().max()) > 1e-4:
            return True
    return False


def _exposes_entry_by_entry(widen: Callable, covariance: Tensor) -> bool:
    d = len(covariance)
    for alpha in (0.3, 2.0):
        found = widen(covariance.clone(), alpha)
        for i in range(d):
            for j in range(d):
                wanted = float(covariance[i, j]) + (alpha if i == j else 0.0)
                if abs(float(found[i, j]) - wanted) > 2e-4:
                    return True
    return False


def _exposes_with_fill(widen: Callable, covariance: Tensor) -> bool:
    found = False
    for alpha in (0.05, 0.5, 5.0):
        wanted = covariance.clone()
        wanted.diagonal().add_(alpha)
        found = found or not bool(torch.isclose(widen(covariance, alpha), wanted, rtol=1e-5, atol=1e-4).all())
    return found


def _exposes_with_other_matrices(widen: Callable, covariance: Tensor) -> bool:
    generator = Generator().manual_seed(0)
    root = torch.randn(covariance.shape, generator=generator, dtype=covariance.dtype)
    matrices = (covariance, root @ root.mT, torch.zeros_like(covariance))
    eye = torch.diag(torch.ones(len(covariance), dtype=covariance.dtype))
    return any(float((widen(m, a) - m - a * eye).abs().max()) > 1e-4 for m in matrices for a in (0.25, 1.5))


def _judged(same: Callable[[Tensor, Tensor], bool], alphas: tuple[float, ...] = (0.21, 1.7)) -> Callable:
    """Returns a detector that compares what widen says with the right matrix in a way of its own."""

    def detector(widen: Callable, covariance: Tensor) -> bool:
        eye = torch.eye(len(covariance), dtype=covariance.dtype)
        return any(not same(widen(covariance, a), covariance + a * eye) for a in alphas)

    return detector


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _off_diagonal(m: Tensor) -> Tensor:
    return m - torch.diag(m.diagonal())


def _sound(c: Tensor, a: float) -> Tensor:
    return c + a * torch.eye(len(c), dtype=c.dtype)


def _sound_in_place(c: Tensor, a: float) -> Tensor:
    wide = c.clone()
    wide.diagonal().add_(a)
    return wide


def _sound_by_thirds(c: Tensor, a: float) -> Tensor:
    """Right but for the last digits."""
    return (3 * c + 3 * a * torch.eye(len(c), dtype=c.dtype)) / 3


def _added(where: Callable[[int], Tensor]) -> Callable:
    """Returns a fault that adds alpha times a matrix of its own. where: D -> [D, D]."""
    return lambda c, a: c + a * where(len(c)).to(c)


def _one_entry(d: int, size: float) -> Tensor:
    table = torch.eye(d)
    table[0, d - 1] = table[d - 1, 0] = size
    return table


def _cancelling(d: int) -> Tensor:
    """Entries off the diagonal, as many plus as minus, so that their sum is 0."""
    table = torch.eye(d)
    table[0, 1] = table[1, 0] = 0.5
    table[0, 2] = table[2, 0] = -0.5
    return table


def _uneven(d: int) -> Tensor:
    """A diagonal that keeps its sum: one entry has more, another less."""
    table = torch.eye(d)
    table[0, 0], table[1, 1] = 1.5, 0.5
    return table


def _missing_last(d: int) -> Tensor:
    table = torch.eye(d)
    table[d - 1, d - 1] = 0
    return table


def _alpha_cases(generator: Generator) -> list[Case]:
    root = torch.randn(4, 4, generator=generator)
    c = root @ root.T / 4 + 0.1 * torch.eye(4)
    flat = c.clone()
    flat[0], flat[:, 0] = 0.0, 0.0  # a feature that does not vary
    changed = 0.01 * (_one_entry(4, 1.0) - torch.eye(4))
    return [
        Case("a right implementation: alpha times the identity is added", (_sound, c)),
        Case("a right one that writes into the diagonal of a copy", (_sound_in_place, c)),
        Case("a right one that rounds on its way", (_sound_by_thirds, c)),
        Case("alpha in every entry", (_added(lambda d: torch.ones(d, d)), c)),
        Case("alpha off the diagonal only", (_added(lambda d: 1 - torch.eye(d)), c)),
        Case("alpha in the upper triangle", (_added(lambda d: torch.ones(d, d).triu()), c)),
        Case("alpha in the lower triangle", (_added(lambda d: torch.ones(d, d).tril()), c)),
        Case("alpha in the first entry only", (_added(lambda d: torch.eye(d) * torch.eye(d)[0]), c)),
        Case("alpha missing in the last entry of the diagonal", (_added(_missing_last), c)),
        Case("one pair of entries off the diagonal gets 0.003 alpha", (_added(lambda d: _one_entry(d, 0.003)), c)),
        Case("entries off the diagonal that cancel in the sum", (_added(_cancelling), c)),
        Case("a diagonal that is uneven and keeps its sum", (_added(_uneven), c)),
        Case("the diagonal gets 0.3 % too much", (_added(lambda d: 1.003 * torch.eye(d)), c)),
        Case("alpha is ignored", (lambda m, a: m.clone(), c)),
        Case("alpha is fixed at 0.21", (lambda m, a: _sound(m, 0.21), c)),
        Case("alpha squared", (lambda m, a: _sound(m, a * a), c)),
        Case("alpha subtracted", (lambda m, a: _sound(m, -a), c)),
        Case("the covariance multiplied by 1 + alpha", (lambda m, a: m * (1 + a), c)),
        Case("alpha on the other diagonal", (_added(lambda d: torch.eye(d).flip(0)), c)),
        Case("alpha right, but rows and columns in another order", (lambda m, a: _sound(m, a).flip(0, 1), c)),
        Case("only the diagonal is kept", (lambda m, a: torch.diag(m.diagonal() + a), c)),
        Case("one pair of entries changed by 0.01, whatever alpha is", (lambda m, a: _sound(m, a) + changed, c)),
        Case("a right one, where a feature does not vary", (_sound, flat)),
        Case("alpha in every entry, where a feature does not vary", (_added(lambda d: torch.ones(d, d)), flat)),
    ]


ALPHA = Exercise(
    id="16.4",
    title="Bug hunt: where does alpha go?",
    reference=exposes_alpha,
    cases=_alpha_cases,
    right=(
        _exposes_by_difference,
        _exposes_entry_by_entry,
        _exposes_with_fill,
        _exposes_with_other_matrices,
        _judged(lambda a, b: torch.allclose(a, b, rtol=1e-3, atol=1e-4)),
    ),
    wrong=(
        Wrong(
            "trace",
            _judged(lambda a, b: abs(float(a.trace() - b.trace())) < 1e-4),
            "only the diagonal is compared, or its sum: alpha in other entries passes",
            "Compare the whole matrix with `covariance + alpha * torch.eye(D)`.",
            also=(
                _judged(lambda a, b: _close(a.diagonal(), b.diagonal())),
                _judged(lambda a, b: float(a.trace() - b.trace()) < 1e-3),
            ),
        ),
        Wrong(
            "off the diagonal only",
            _judged(lambda a, b: _close(_off_diagonal(a), _off_diagonal(b))),
            "only the entries off the diagonal are compared: a wrong diagonal passes",
            "Compare the whole matrix with `covariance + alpha * torch.eye(D)`.",
        ),
        Wrong(
            "sums",
            _judged(lambda a, b: abs(float(a.sum() - b.sum())) < 1e-4),
            "sums, norms or eigenvalues are compared, or a matrix where order does not matter: entries that change places pass",
            "Compare entry by entry, on the given covariance: `torch.allclose(a, b)`.",
            also=(
                _judged(lambda a, b: _close(torch.linalg.eigvalsh(a), torch.linalg.eigvalsh(b))),
                _judged(lambda a, b: abs(float(a.norm() - b.norm())) < 1e-4),
                _judged(lambda a, b: _close(a.sum(0), b.sum(0))),
            ),
        ),
        Wrong(
            "positive definite",
            lambda widen, c: any(float(torch.linalg.eigvals(widen(c, a)).real.min()) <= 0 for a in (0.21, 1.7)),
            "the alarm asks only whether the result is positive definite: most wrong matrices are",
            "You know the right matrix: compare with it.",
        ),
        Wrong(
            "symmetric",
            lambda widen, c: any(not torch.allclose(widen(c, a), widen(c, a).T, atol=1e-5) for a in (0.21, 1.7)),
            "the alarm asks only whether the result is symmetric",
            "You know the right matrix: compare with it.",
        ),
        Wrong(
            "alpha of zero",
            _judged(_close, (0.0,)),
            "alpha is 0 or tiny in every trial, or a trial with alpha 0 must ring, too, before the alarm does",
            "Try values such as 0.2 and 1.5, and ring as soon as one of them is wrong.",
        ),
        Wrong(
            "one alpha",
            _judged(_close, (0.21,)),
            "only one alpha is tried: code with a fixed number, or with a power of alpha, may pass",
            "Try at least two values, none of them 1.",
            also=(_judged(_close, (1.0,)),),
        ),
        Wrong(
            "too generous",
            _judged(lambda a, b: torch.allclose(a, b, atol=0.05)),
            "the tolerance is so wide that a small fault passes",
            "Rounding is far below 1e-4: `torch.allclose(a, b, rtol=1e-4, atol=1e-5)`.",
        ),
        Wrong(
            "exactly equal",
            _judged(torch.equal),
            "the matrices are compared to the last digit: rounding rings the alarm",
            "`torch.allclose` with a small tolerance.",
        ),
        Wrong(
            "every entry",
            lambda widen, c: any(not _close(widen(c, a), c + a) for a in (0.21, 1.7)),
            "the result is compared with alpha in *every* entry: the bug is taken for the rule",
            "Right is `covariance + alpha * torch.eye(D)`.",
        ),
        Wrong(
            "only that bug",
            lambda widen, c: any(_close(widen(c, a), c + a) for a in (0.21, 1.7)),
            "only alpha in every entry is recognised: other wrong places pass",
            "Ask whether the matrix is right, not whether it is wrong in one particular way.",
            also=(lambda widen, c: any(bool(((widen(c, a) - c)[0, 1] - a).abs() < 1e-4) for a in (0.21, 1.7)),),
        ),
        Wrong(
            "one entry",
            _judged(lambda a, b: bool(torch.isclose(a[0, 1], b[0, 1], atol=1e-5))),
            "only some entries are looked at",
            "Compare all of [D, D].",
            also=(
                _judged(lambda a, b: _close(a[0], b[0])),
                _judged(lambda a, b: _close(a[:, 0], b[:, 0])),
                _judged(lambda a, b: _close(a.triu(), b.triu())),
                _judged(lambda a, b: _close(a.tril(), b.tril())),
                _judged(lambda a, b: bool(torch.isclose(a[0, 0], b[0, 0], atol=1e-5))),
            ),
        ),
        Wrong(
            "all must be wrong",
            _judged(lambda a, b: bool(torch.isclose(a, b, rtol=1e-4, atol=1e-5).any())),
            "the alarm waits until *all* entries are wrong, or both the diagonal and the rest",
            "One wrong entry is enough.",
            also=(
                _judged(lambda a, b: _close(a.diagonal(), b.diagonal()) or _close(_off_diagonal(a), _off_diagonal(b))),
            ),
        ),
        Wrong(
            "one direction",
            _judged(lambda a, b: bool((a <= b + 1e-5).all())),
            "only entries that are too large ring, or only those that are too small",
            "Compare both ways: `torch.allclose`, or the absolute difference.",
            also=(
                _judged(lambda a, b: bool((a >= b - 1e-5).all())),
                _judged(lambda a, b: bool((a - b).max() < 1e-4), (0.5,)),
            ),
        ),
        Wrong(
            "compared with itself",
            lambda widen, c: not _close(widen(c, 0.21), _sound(widen(c, 0.0), 0.21)),
            "faults in the covariance itself pass: the code is compared with itself, or alpha is so large that they drown",
            "Compare with `covariance + alpha * torch.eye(D)`, for alphas such as 0.2 and 1.5.",
        ),
        Wrong(
            "relative to the covariance",
            lambda widen, c: not torch.allclose(widen(c, 0.3) / c, _sound(c, 0.3) / c, atol=1e-3),
            "differences are divided by the covariance, which may be 0",
            "Compare the matrices themselves.",
            also=(lambda widen, c: bool(((widen(c, 0.3) - _sound(c, 0.3)) / c).abs().max() > 1e-3),),
        ),
        Wrong(
            "a zero matrix",
            lambda widen, c: any(
                not _close(widen(torch.zeros_like(c), a), a * torch.eye(len(c), dtype=c.dtype)) for a in (0.21, 1.7)
            ),
            "the given covariance is never used: what the code does to other entries of it does not show",
            "Try it on `covariance`.",
        ),
        Wrong(
            "always",
            lambda widen, c: True,
            "the alarm always rings",
            "A right implementation must pass: compare with `covariance + alpha * torch.eye(D)`.",
        ),
        Wrong(
            "never",
            lambda widen, c: False,
            "the alarm never rings",
            "Compare with `covariance + alpha * torch.eye(D)`.",
        ),
        Wrong(
            "turned round",
            lambda widen, c: not exposes_alpha(widen, c),
            "True and False have changed places",
            "True means: broken.",
        ),
    ),
    hints=(
        "You know the right matrix for every alpha. Which faults would one alpha, or one entry, leave unnoticed?",
        "Build `covariance + alpha * torch.eye(D)` for two or three alphas, and compare all entries.",
        "`any(not torch.allclose(widen(covariance, a), covariance + a * eye, rtol=1e-4, atol=1e-5) for a in (0.2, 1.7))`",
    ),
)

EXERCISES = (KL, SPREAD, CALIBRATE, ALPHA)
