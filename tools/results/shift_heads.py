"""Rows of `tools.results.compare_shift` that embed every picture once: fitted heads, statistics in parts, and a matrix behind.

Each row keeps the right answers of the nearest class mean and of ridge heads on the same embeddings and the same episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fsl_course import EpisodeSampler, pretrained
from fsl_course.data import ImageSet
from fsl_course.evaluation import embed_all
from fsl_course.methods.base import class_means
from fsl_course.methods.prototypical import PrototypicalNetwork, cosine_similarities, squared_distances
from fsl_course.methods.ridge import ridge_head

PENALTIES = (100.0, 10.0, 1.0, 0.1)  # the one that fits least comes first, as the fewest steps do
ENCODERS = ("prototypical", "transfer", "matching")  # shipped ones, all trained on letters
PARTS = ("statistics", "means", "variances")  # what the batch norms take from the domain
HEADS = (*(f"heads, {name}" for name in ENCODERS), *(f"heads, {part} of the domain" for part in PARTS))
SMALL = ("small heads", *(f"small heads, {part} of the domain" for part in PARTS))  # on encoders trained here, by seed
BEHIND = tuple(f"behind, {name}" for name in ENCODERS)
BEHIND_RATE = 0.01  # of Adam


def encoder_of(name: str) -> nn.Module:
    """Returns the encoder of a shipped learner, in evaluation mode."""
    return pretrained(name, "glyphs").eval().encoder


@torch.no_grad()
def with_part(encoder: nn.Module, pictures: Tensor, part: str) -> nn.Module:
    """Returns a copy whose batch norms take their means, their variances, or both ("statistics") from pictures [B, c, H, W].

    One norm after the other, from the pixels inwards: each sees what the norms before it now let through.
    """
    new = deepcopy(encoder).eval()
    for layer in new.modules():
        if isinstance(layer, _BatchNorm):
            mean, variance = layer.running_mean.clone(), layer.running_var.clone()
            layer.train().momentum = 1.0
            new(pictures)
            layer.eval()
            if part == "means":
                layer.running_var.copy_(variance)
            if part == "variances":
                layer.running_mean.copy_(mean)
    return new


class Tasks:
    """Embedded tasks of a domain: support [T, S, D], labels [T, S], queries [T, M, D], labels [T, M]."""

    def __init__(self, encoder: nn.Module, source: ImageSet, shot: int, count: int, n_query: int) -> None:
        drawn = EpisodeSampler(source, 5, shot, n_query, seed=7).layout(0, count)
        used, places = torch.cat([drawn.support, drawn.query], 1).unique(return_inverse=True)
        rows = embed_all(PrototypicalNetwork(encoder).eval(), source.images.flatten(0, 1)[used])[places]
        self.support, self.query = rows.split([drawn.support.shape[1], drawn.query.shape[1]], 1)
        self.support_y, self.query_y = drawn.support_y, drawn.query_y

    def without(self, turn: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Leaves picture number `turn` of each class out -> what is left and its labels, what is out and its labels."""
        order = self.support_y.argsort(dim=1, stable=True).unflatten(1, (5, -1))  # [T, class, shot]
        left = order[:, :, [k for k in range(order.shape[2]) if k != turn]].flatten(1)
        rows = [
            (self.support.gather(1, r[..., None].expand(-1, -1, self.support.shape[-1])))
            for r in (left, order[:, :, turn])
        ]
        return rows[0], self.support_y.gather(1, left), rows[1], self.support_y.gather(1, order[:, :, turn])


def _right(scores: Tensor, truth: Tensor) -> Tensor:
    return (scores.argmax(-1) == truth).sum(-1)


def _ridge(support: Tensor, labels: Tensor, query: Tensor, truth: Tensor, penalties: Sequence[float]) -> Tensor:
    """Right answers of ridge heads -> int64 [P, T]."""
    heads = [ridge_head(support, labels, 5, penalty) for penalty in penalties]
    return torch.stack([_right(query @ weight.mT + bias[:, None], truth) for weight, bias in heads])


@torch.no_grad()
def heads(encoder: nn.Module, source: ImageSet, shot: int, count: int, n_query: int, vote: bool) -> dict[str, Any]:
    """Counts right answers by task: of the nearest mean, of ridge heads by penalty, and of these on left-out support pictures.

    vote: whether to leave support pictures out, in as many turns as there are shots
    """
    tasks = Tasks(encoder, source, shot, count, n_query)
    penalties = PENALTIES if vote else (10.0,)
    nearest = -squared_distances(tasks.query, class_means(tasks.support, tasks.support_y, 5))
    found = {"shot": shot, "correct": _right(nearest, tasks.query_y).tolist(), "penalties": penalties}
    found["ridge"] = _ridge(tasks.support, tasks.support_y, tasks.query, tasks.query_y, penalties).tolist()
    if vote and shot > 1:
        found["held"] = sum(_ridge(*tasks.without(turn), penalties) for turn in range(shot)).tolist()
    return found


def behind(name: str, source: ImageSet, shot: int, count: int, n_query: int, grid: Sequence[int]) -> dict[str, Any]:
    """Counts right answers of a matrix A behind a shipped encoder, z + Az, fitted to each task, after each of `grid` steps."""
    tasks = Tasks(encoder_of(name), source, shot, count, n_query)
    size = tasks.support.shape[-1]
    matrix = torch.zeros(count, size, size, requires_grad=True)
    solver, found = torch.optim.Adam([matrix], lr=BEHIND_RATE), []
    for step in range(grid[-1] + 1):
        z = tasks.support + tasks.support @ matrix.mT
        means = class_means(z, tasks.support_y, 5)
        if step in grid:
            query = (tasks.query + tasks.query @ matrix.mT).detach()
            found.append(_right(cosine_similarities(query, means.detach()), tasks.query_y).tolist())
        losses = F.cross_entropy(10 * cosine_similarities(z, means).mT, tasks.support_y, reduction="none")
        solver.zero_grad()
        losses.mean(1).sum().backward()  # a sum over tasks: each has its own gradient
        solver.step()
    return {"shot": shot, "steps": grid, "correct": found}
