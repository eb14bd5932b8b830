"""Baselines that every method must beat: guessing, the nearest picture in pixels, and an untrained convolutional net."""

import torch
from torch import Tensor

from fsl_course.episodes import Episode
from fsl_course.methods.base import FewShotLearner, check_labels
from fsl_course.methods.prototypical import PrototypicalNetwork, cosine_similarities, squared_distances
from fsl_course.nets import conv4


class Chance(FewShotLearner):
    """Guesses a slot for every query without looking at a picture, and is right 1/N of the time.

    The guesses are a pure function of (seed, classes, number of queries), so a run can be repeated.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, episode: Episode) -> Tensor:
        """One task -> random logits [N*Q, N]."""
        key = self.seed
        for position in episode.classes.tolist():
            key = (key * 1_000_003 + position + 1) % (2**62)
        generator = torch.Generator().manual_seed(key)
        logits = torch.rand(len(episode.query_x), episode.n_way, generator=generator)
        return logits.to(episode.query_x)


class PixelNearestNeighbour(FewShotLearner):
    """Predicts the class of the most similar support picture, pixel by pixel. metric: "euclidean" or "cosine"."""

    def __init__(self, metric: str = "cosine") -> None:
        super().__init__()
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f'metric must be "euclidean" or "cosine"; got {metric!r}.')
        self.metric = metric

    def embed(self, x: Tensor) -> Tensor:
        """Pictures [B, c, H, W] -> their pixels [B, c*H*W]."""
        return x.flatten(1)

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> logits [..., M, n_way]: the best row of each class."""
        check_labels(labels, n_way)
        cosine = self.metric == "cosine"
        likeness = cosine_similarities(query, support) if cosine else -squared_distances(query, support)
        best = likeness.new_full((*likeness.shape[:-1], n_way), -torch.inf)  # scatter needs no array [..., M, N, S]
        return best.scatter_reduce(-1, labels.unsqueeze(-2).expand_as(likeness), likeness, "amax")


def random_conv4(seed: int = 0, width: int = 64, in_channels: int = 1) -> PrototypicalNetwork:
    """Returns a Conv4 with random, fixed weights and the nearest class mean on top. The weights depend only on the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PrototypicalNetwork(conv4(width, in_channels=in_channels)).eval()


def baselines(seed: int = 0, in_channels: int = 1) -> dict[str, FewShotLearner]:
    """Returns every baseline by the name that tables show."""
    return {
        "chance": Chance(seed),
        "pixels, Euclidean": PixelNearestNeighbour("euclidean"),
        "pixels, cosine": PixelNearestNeighbour("cosine"),
        "random Conv4": random_conv4(seed, in_channels=in_channels),
    }
