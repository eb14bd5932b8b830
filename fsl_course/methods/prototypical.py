"""Prototypical Networks (Snell, Swersky, Zemel 2017): a class is the mean of its embedded support; the nearest mean wins."""

import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.methods.base import FewShotLearner, by_embeddings, class_means


def prototypes(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Returns the class means (equation 1). Shots may differ from class to class.

    support: embeddings [..., S, D]; labels: int64 [..., S] in 0..n_way-1, every slot at least once -> [..., n_way, D]
    """
    return class_means(support, labels, n_way)


def squared_distances(query: Tensor, centres: Tensor) -> Tensor:
    """Returns squared Euclidean distances. query [..., M, D], centres [..., N, D] -> [..., M, N].

    Computed as |q|^2 - 2 q.c + |c|^2, by one matrix product and without an array [M, N, D]. Rounding can make a distance of zero
    slightly negative, so the result is clamped. Because it is squared, the gradient at distance zero is 0 and not NaN.
    """
    squares = query.square().sum(-1, keepdim=True) + centres.square().sum(-1).unsqueeze(-2)
    return (squares - 2 * query @ centres.mT).clamp_min(0)


def cosine_similarities(query: Tensor, centres: Tensor) -> Tensor:
    """Returns cosines in [-1, 1]. query [..., M, D], centres [..., N, D] -> [..., M, N]."""
    return F.normalize(query, dim=-1) @ F.normalize(centres, dim=-1).mT


class PrototypicalNetwork(FewShotLearner):
    """Logits are negative squared Euclidean distances to the class means (equation 2).

    encoder:  pictures [B, c, H, W] -> embeddings [B, D], e.g. conv4()
    distance: "euclidean" (squared, the paper's choice: a Bregman divergence, section 2.3) or "cosine"
    scale:    multiplies the logits. With "euclidean", scale 1 is Bayes' rule for Gaussian classes of variance 1/2 (lesson 05).
              With "cosine" they lie in [-scale, scale]; at the default 1 the softmax is nearly flat (lesson 04), and 10 is a
              usable value
    """

    def __init__(self, encoder: nn.Module, distance: str = "euclidean", scale: float = 1.0) -> None:
        super().__init__()
        if distance not in ("euclidean", "cosine"):
            raise ValueError(f'distance must be "euclidean" or "cosine"; got {distance!r}.')
        self.encoder, self.distance, self.scale = encoder, distance, scale

    def embed(self, x: Tensor) -> Tensor:
        """Pictures [B, c, H, W] -> embeddings [B, D]."""
        return self.encoder(x)

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> logits [..., M, n_way]; leading axes are tasks."""
        centres = prototypes(support, labels, n_way)
        if self.distance == "cosine":
            return self.scale * cosine_similarities(query, centres)
        return -self.scale * squared_distances(query, centres)

    def forward(self, episode: Episode) -> Tensor:
        """One task -> logits [N*Q, N]."""
        return by_embeddings(self, episode)
