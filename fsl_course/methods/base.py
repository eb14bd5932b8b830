"""What every few-shot learner answers to."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.inner_loop.functional import supervised_loss


class FewShotLearner(nn.Module):
    """A module that reads a task's support set and predicts its queries. Every method of the course is one."""

    def forward(self, episode: Episode) -> Tensor:
        """episode: one task without a task axis -> logits [N*Q, N] (regression: predictions [Q, d_out])."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(episode) -> logits [N*Q, N].")

    def loss(self, episode: Episode) -> Tensor:
        """The loss of one task, a scalar: cross-entropy of forward unless the paper says otherwise; regression: squared error."""
        return supervised_loss(self(episode), episode.query_y)

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
        tasks = [sorted(set(task.tolist())) for task in labels.reshape(-1, max(labels.shape[-1], 1))]
        found = next((task for task in tasks if task != list(range(n_way))), [])
        raise ValueError(
            f"support labels must cover the slots 0..{n_way - 1}; got {found}. A class without support has no prototype."
        )


def class_sums(rows: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Sums of the support rows of each class. rows [..., S, D], labels int64 [..., S] -> [..., n_way, D]."""
    check_labels(labels, n_way)
    return F.one_hot(labels, n_way).to(rows.dtype).mT @ rows


def class_means(rows: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Means of the support rows of each class; shots may differ. rows [..., S, D], labels int64 [..., S] -> [..., n_way, D]."""
    return class_sums(rows, labels, n_way) / F.one_hot(labels, n_way).sum(-2).unsqueeze(-1)


def embed_episode(learner: ComparesEmbeddings, episode: Episode) -> tuple[Tensor, Tensor]:
    """One task -> embeddings of its support [N*K, D] and of its queries [N*Q, D].

    Support and query pass the encoder together, as in the authors' code: in training mode batch norm therefore sees the whole
    episode; in evaluation mode it uses running statistics and every query is judged on its own.
    """
    shots = len(episode.support_x)
    embeddings = learner.embed(torch.cat([episode.support_x, episode.query_x]))
    return embeddings[:shots], embeddings[shots:]


def by_embeddings(learner: ComparesEmbeddings, episode: Episode) -> Tensor:
    """forward of a learner that compares embeddings: one task -> logits [N*Q, N]."""
    support, query = embed_episode(learner, episode)
    return learner.score(support, episode.support_y, query, episode.n_way)
