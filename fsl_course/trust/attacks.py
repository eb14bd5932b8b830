"""What breaks an answer: flipped labels, noise, and pictures changed by projected gradient ascent; and centres that resist.

Pictures have values in [0, 1], and epsilon is the largest change of a pixel (the L-infinity norm).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor

from fsl_course.episodes import Episode
from fsl_course.evaluation import evaluation_mode
from fsl_course.inner_loop.functional import supervised_loss
from fsl_course.methods.base import ComparesEmbeddings, FewShotLearner, check_labels, embed_episode


def project(x: Tensor, start: Tensor, epsilon: float) -> Tensor:
    """Returns the nearest pictures to x that differ from `start` by at most epsilon in a pixel and stay in [0, 1]."""
    return x.clamp(start - epsilon, start + epsilon).clamp(0, 1)


def ascend(
    loss: Callable[[Tensor], Tensor], start: Tensor, epsilon: float, steps: int = 10, rate: float | None = None
) -> Tensor:
    """Projected gradient ascent (PGD, Madry et al. 2018): `steps` times a step of `rate` along the gradient's sign, projected.

    loss: pictures like `start` -> scalar; rate: epsilon / 4 by default. Returns pictures of the same shape, without a graph.
    """
    x = start.detach().clone()
    for _ in range(steps):
        with torch.enable_grad():
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(x), x)
        x = project(x.detach() + (epsilon / 4 if rate is None else rate) * gradient.sign(), start, epsilon)
    return x


def poisoned(learner: FewShotLearner, episode: Episode, rows: Tensor, epsilon: float, steps: int = 10) -> Episode:
    """Changes support pictures so that the task's queries are misread (Oldewage et al. 2022); labels stay as they are.

    rows: int64 [R], the pictures that may change. The gradient passes through whatever the learner does with the support: for
    MAML through all inner steps, with second derivatives unless its first_order is True. Judge the result by other queries than
    those of `episode`, from which it was made.
    """
    with evaluation_mode(learner):
        changed = ascend(_loss_of_rows(learner, episode, rows), episode.support_x[rows], epsilon, steps)
    return replace(episode, support_x=episode.support_x.index_copy(0, rows, changed))


def _loss_of_rows(learner: FewShotLearner, episode: Episode, rows: Tensor) -> Callable[[Tensor], Tensor]:
    """Returns a function: these support pictures -> query loss. Where a learner compares embeddings, the others embed once."""
    if not isinstance(learner, ComparesEmbeddings) or learner.uses_unlabelled or learner.uses_attributes:
        return lambda x: learner.loss(replace(episode, support_x=episode.support_x.index_copy(0, rows, x)))
    with torch.no_grad():
        support, query = embed_episode(learner, episode)

    def loss(x: Tensor) -> Tensor:
        changed = support.index_copy(0, rows, learner.embed(x))
        return supervised_loss(learner.score(changed, episode.support_y, query, episode.n_way), episode.query_y)

    return loss


def perturbed_queries(learner: FewShotLearner, episode: Episode, epsilon: float, steps: int = 10) -> Episode:
    """Changes every query picture so that it is misread; the support stays as it is."""
    with evaluation_mode(learner):
        changed = ascend(lambda x: learner.loss(replace(episode, query_x=x)), episode.query_x, epsilon, steps)
    return replace(episode, query_x=changed)


def noisy(episode: Episode, rows: Tensor, epsilon: float, generator: Generator) -> Episode:
    """Moves every pixel of these support pictures by epsilon up or down at random: a change as large as PGD's, without aim."""
    start = episode.support_x[rows]
    sign = torch.randint(2, start.shape, generator=generator).to(start) * 2 - 1
    changed = project(start + epsilon * sign, start, epsilon)
    return replace(episode, support_x=episode.support_x.index_copy(0, rows, changed))


def flipped(labels: Tensor, rows: Tensor, n_way: int, generator: Generator) -> Tensor:
    """Returns the labels [S] with a wrong one, drawn at random, in each of these rows [R]."""
    off = torch.randint(1, n_way, rows.shape, generator=generator)
    return labels.index_copy(0, rows, (labels[rows] + off) % n_way)


def trimmed_mean(rows: Tensor, share: float = 0.2) -> Tensor:
    """Averages each feature without its lowest and highest values, at least one each where 3 rows are there. [K, D] -> [D]"""
    cut = max(int(share * len(rows)), int(len(rows) > 2))
    return rows.sort(0).values[cut : len(rows) - cut].mean(0)


def geometric_median(rows: Tensor, iterations: int = 50) -> Tensor:
    """Returns the point with the smallest sum of distances to the rows, by Weiszfeld's iteration (1937). [K, D] -> [D]"""
    point = rows.mean(0)
    for _ in range(iterations):
        weight = 1 / (rows - point).norm(dim=1).clamp_min(1e-6)
        point = (weight @ rows) / weight.sum()
    return point


CENTRES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda rows: rows.mean(0),
    "median": lambda rows: rows.quantile(0.5, 0),  # of an even number of rows the middle of the two middle values
    "trimmed": trimmed_mean,
    "geometric": geometric_median,
}


def robust_prototypes(support: Tensor, labels: Tensor, n_way: int, kind: str = "geometric") -> Tensor:
    """Returns a centre of each class, of one of the kinds in CENTRES. support [S, D], labels int64 [S] -> [n_way, D]."""
    check_labels(labels, n_way)
    return torch.stack([CENTRES[kind](support[labels == k]) for k in range(n_way)])
