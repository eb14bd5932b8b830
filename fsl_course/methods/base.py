"""What every few-shot learner answers to."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode


class FewShotLearner(nn.Module):
    """A module that reads a task's support set and predicts its queries. Every method of the course is one."""

    def forward(self, episode: Episode) -> Tensor:
        """episode: one task without a task axis -> logits [N*Q, N] (regression: predictions [Q, d_out])."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(episode) -> logits [N*Q, N].")

    def loss(self, episode: Episode) -> Tensor:
        """The loss of one task, a scalar: cross-entropy of forward unless the paper says otherwise."""
        return F.cross_entropy(self(episode), episode.query_y)

    def training_step(self, episodes: Episode) -> Tensor:
        """What `fit` minimises on T stacked tasks, a scalar: the mean loss of the tasks."""
        return torch.stack([self.loss(episode) for episode in episodes]).mean()


@runtime_checkable
class ComparesEmbeddings(Protocol):
    """A learner that embeds every picture by itself and then compares embeddings: `evaluate` embeds each picture only once.

    In evaluation mode forward(episode) must equal score(embed(support_x), support_y, embed(query_x), n_way).
    """

    def embed(self, x: Tensor) -> Tensor:
        """Pictures [B, c, H, W] -> embeddings [B, D]."""
        ...

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """Embeddings [..., S, D], labels [..., S], embeddings [..., M, D] -> logits [..., M, N]; leading axes are tasks."""
        ...


def check_labels(labels: Tensor, n_way: int) -> None:
    """ValueError unless every slot 0..n_way-1 has at least one support row. labels: int64 [..., S]."""
    if labels.dtype != torch.int64:
        raise ValueError(f"support labels must be int64; got {labels.dtype}.")
    present = F.one_hot(labels.clamp(0, n_way - 1), n_way).sum(-2) > 0
    if labels.numel() == 0 or int(labels.min()) < 0 or int(labels.max()) >= n_way or not bool(present.all()):
        raise ValueError(
            f"support labels must cover the slots 0..{n_way - 1}; got {sorted(set(labels.flatten().tolist()))}. "
            "A class without support has no prototype."
        )
