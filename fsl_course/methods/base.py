"""The interface of every few-shot learner, and what learners that compare embeddings share."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode, EpisodeSampler, SinusoidSampler
from fsl_course.inner_loop.functional import predict, supervised_loss
from fsl_course.inner_loop.task_batches import mean_over_tasks


class FewShotLearner(nn.Module):
    """A module that reads a task's support set and predicts its queries. Every method of the course is one.

    transductive: True if a query's answer depends on the other queries of the call, by the method's nature or by an option
    joins_tasks: True if training_step passes the pictures of all T tasks through a network together, so that batch norm
                 normalises them together; such tasks cannot be shared among processes
    uses_unlabelled: True if the method learns from an episode's unlabelled pictures, too; its score takes their embeddings as
                 `unlabelled` [..., U, D], or None
    uses_attributes: True if the method reads the descriptions of an episode's classes; its score takes them as a fifth argument
    made_from:   {"method", "settings"} of a learner that `learners.make` made; None if it was made by hand
    """

    transductive: bool = False
    joins_tasks: ClassVar[bool] = False
    uses_unlabelled: ClassVar[bool] = False
    uses_attributes: ClassVar[bool] = False
    made_from: dict[str, Any] | None = None

    def embed(self, x: Tensor) -> Tensor:
        """Embeds pictures [B, c, H, W] -> [B, D], where a method compares embeddings: by its encoder unless it does more."""
        return self.encoder(x)

    def forward(self, episode: Episode) -> Tensor:
        """Predicts the queries of one task, which has no task axis -> logits [N*Q, N] (regression: predictions [Q, d_out]).

        A method with `score` compares embeddings, one with `adapted` predicts with a model's adapted parameters; every other
        one defines its own forward.
        """
        if isinstance(self, ComparesEmbeddings):
            return by_embeddings(self, episode)
        if callable(getattr(self, "adapted", None)):
            return predict(self.model, self.adapted(episode), episode)
        raise NotImplementedError(f"{type(self).__name__} must define forward(episode) -> logits [N*Q, N].")

    def loss(self, episode: Episode) -> Tensor:
        """Returns the loss of one task, a scalar: cross-entropy of forward unless a paper differs; regression: squared error."""
        return supervised_loss(self(episode), episode.query_y)

    def training_step(self, episodes: Episode) -> Tensor:
        """Returns what `fit` minimises on T stacked tasks, a scalar: the mean loss of the tasks.

        With `adapted` by `mean_over_tasks`, in the way that self.vmap says, or one task after the other.
        """
        if callable(getattr(self, "adapted", None)):
            return mean_over_tasks(self, episodes, getattr(self, "vmap", False))
        return torch.stack([self.loss(episode) for episode in episodes]).mean()

    def after_training(self, sampler: EpisodeSampler | SinusoidSampler) -> None:
        """Does nothing; for methods that need statistics over the base classes, which are in sampler.source, in a buffer.

        `fit` calls it once, after its last checkpoint, in evaluation mode and without gradients, with the weights that remain.
        """


@runtime_checkable
class ComparesEmbeddings(Protocol):
    """A learner that embeds each picture by itself and then compares embeddings. `evaluate` embeds each picture only once.

    In evaluation mode forward(episode) must equal score(embed(support_x), support_y, embed(query_x), n_way), for a learner that
    uses_unlabelled with embed(unlabelled_x) as a fifth argument where the episode has such pictures.
    """

    def embed(self, x: Tensor) -> Tensor:
        """Embeds pictures [B, c, H, W] -> [B, D]."""
        ...

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """Scores queries [..., M, D] by support [..., S, D], labels [..., S] -> logits [..., M, N]; leading axes are tasks."""
        ...


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Returns the name of the first tensor that holds NaN or infinity, or "" if none does."""
    return next((n for n, t in tensors.items() if t.is_floating_point() and not bool(t.isfinite().all())), "")


def check_labels(labels: Tensor, n_way: int) -> None:
    """Raises ValueError unless every slot 0..n_way-1 has at least one support row. labels: int64 [..., S]."""
    if labels.dtype != torch.int64:
        raise ValueError(f"support labels must be int64; got {labels.dtype}.")
    present = F.one_hot(labels.clamp(0, n_way - 1), n_way).sum(-2) > 0
    if labels.numel() == 0 or int(labels.min()) < 0 or int(labels.max()) >= n_way or not bool(present.all()):
        tasks = [sorted(set(task.tolist())) for task in labels.reshape(-1, max(labels.shape[-1], 1))]
        found = next((task for task in tasks if task != list(range(n_way))), [])
        raise ValueError(f"support labels must cover the slots 0..{n_way - 1}; got {found}: each class needs support.")


def class_sums(rows: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Sums the support rows of each class. rows [..., S, D], labels int64 [..., S] -> [..., n_way, D]."""
    check_labels(labels, n_way)
    return F.one_hot(labels, n_way).to(rows.dtype).mT @ rows


def class_means(rows: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Averages the support rows of each class; shots may differ. rows [..., S, D], labels int64 [..., S] -> [..., n_way, D]."""
    return class_sums(rows, labels, n_way) / F.one_hot(labels, n_way).sum(-2).unsqueeze(-1)


def embed_episode(learner: ComparesEmbeddings, episode: Episode) -> tuple[Tensor, Tensor]:
    """Embeds one task -> its support [N*K, D] and its queries [N*Q, D].

    Support and query pass through the encoder together, as in the code of Snell et al. In training mode batch norm therefore sees
    the whole episode; in evaluation mode it uses running statistics, and every query is judged on its own.
    """
    shots = len(episode.support_x)
    embeddings = learner.embed(torch.cat([episode.support_x, episode.query_x]))
    return embeddings[:shots], embeddings[shots:]


def by_embeddings(learner: ComparesEmbeddings, episode: Episode) -> Tensor:
    """Predicts the queries of one task, for a learner that compares embeddings -> logits [N*Q, N].

    All its pictures are embedded together, as in `embed_episode`.
    """
    parts = [episode.support_x, episode.query_x]
    if learner.uses_unlabelled and episode.unlabelled_x is not None:
        parts.append(episode.unlabelled_x)
    support, query, *unlabelled = learner.embed(torch.cat(parts)).split([len(part) for part in parts])
    return learner.score(support, episode.support_y, query, episode.n_way, *unlabelled)
