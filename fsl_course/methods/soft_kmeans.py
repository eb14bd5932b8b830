"""Soft k-means (Ren et al. 2018): prototypes that pictures without labels refine, by one step of clustering.

Every unlabelled picture is shared out among the prototypes by a softmax, and each moves to the weighted mean of its support and
of its shares. A distractor, of no class of the task, would pull them away; a cluster of its own, or a mask, keeps it out.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.methods.base import FewShotLearner, class_sums
from fsl_course.methods.prototypical import prototypes, squared_distances

WITH = ("none", "cluster", "mask")
_LEAST = 1e-6  # keeps a variance and a mean distance from dividing by zero


def shares(distances: Tensor) -> Tensor:
    """Shares each unlabelled picture out among the centres (section 3.1.1). [..., U, N] -> [..., U, N], rows sum to 1."""
    return (-distances).softmax(-1)


def refined(support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int) -> Tensor:
    """Returns the refined centres (sections 3.1.1 and 3.1.3): weighted means of support and unlabelled pictures.

    support [..., S, D], labels [..., S]; unlabelled [..., U, D] with weights [..., U, n_way] -> [..., n_way, D]
    """
    counts = F.one_hot(labels, n_way).sum(-2).to(support.dtype) + weights.sum(-2)  # [..., N]
    return (class_sums(support, labels, n_way) + weights.mT @ unlabelled) / counts.unsqueeze(-1)


def statistics(normalised: Tensor) -> Tensor:
    """Describes each centre's normalised distances to the unlabelled pictures: minimum, maximum, variance, skewness, kurtosis.

    normalised [..., U, N] -> [..., N, 5]. The variance is that of the U pictures, divided by U. The kurtosis is 3 for a Gaussian.
    """
    centred = normalised - normalised.mean(-2, keepdim=True)
    variance = centred.square().mean(-2)
    spread = variance.clamp_min(_LEAST)
    skewness, kurtosis = centred.pow(3).mean(-2) / spread.pow(1.5), centred.pow(4).mean(-2) / spread.square()
    return torch.stack([normalised.amin(-2), normalised.amax(-2), variance, skewness, kurtosis], dim=-1)


class Mask(nn.Module):
    """Says how far a picture may lie from a centre to count (section 3.1.3): m_jk = sigmoid(-gamma_k (d~_jk - beta_k)).

    A small network computes beta_k, the border, and gamma_k, its steepness, from the statistics of the normalised distances d~.
    Before training beta is 0.5 and gamma 10 for every centre; in the authors' code, which takes exponentials of the network's
    outputs, both are 1. hidden: units of the network, which has tanh between its layers
    """

    def __init__(self, hidden: int = 20) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, hidden), nn.Linear(hidden, 2)
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.bias.copy_(torch.tensor([0.5, 10.0]))

    def forward(self, distances: Tensor) -> Tensor:
        """Squared distances [..., U, N] of the unlabelled pictures to the centres -> mask [..., U, N] between 0 and 1."""
        normalised = distances / distances.mean(-2, keepdim=True).clamp_min(_LEAST)
        beta, gamma = self.last(self.first(statistics(normalised)).tanh()).unsqueeze(-3).unbind(-1)
        return (-gamma * (normalised - beta)).sigmoid()


class SoftKMeans(FewShotLearner):
    """Prototypical networks whose prototypes take one step of soft k-means on unlabelled pictures. Without any, it is one.

    encoder:     pictures [B, c, H, W] -> embeddings [B, D], e.g. conv4()
    distractors: "none": every unlabelled picture counts fully (section 3.1.1)
                 "cluster": one more cluster takes pictures of no class; its centre is 0, its radius r is learned (3.1.2)
                 "mask": a picture counts for a class by a learned soft mask of its distance (3.1.3)

    The mask multiplies the shares once, as in the paper; the authors' code multiplies twice (lesson 15).
    Queries are judged one by one: they neither move a centre nor see each other. The unlabelled pictures are other pictures.
    """

    uses_unlabelled: ClassVar[bool] = True

    def __init__(self, encoder: nn.Module, distractors: str = "none") -> None:
        super().__init__()
        if distractors not in WITH:
            raise ValueError(f"distractors must be one of {', '.join(WITH)}; got {distractors!r}.")
        self.encoder, self.distractors = encoder, distractors
        if distractors == "cluster":
            self.log_radius = nn.Parameter(torch.zeros(()))
        self.mask = Mask() if distractors == "mask" else None

    def weights(self, unlabelled: Tensor, centres: Tensor) -> Tensor:
        """Says how much each unlabelled picture counts for each centre. [..., U, D], [..., N, D] -> [..., U, N], from 0 to 1."""
        distances = squared_distances(unlabelled, centres)
        if self.distractors == "cluster":  # radius 1 for the classes, exp(log_radius) for the cluster at 0
            strangers = -unlabelled.square().sum(-1, keepdim=True) * (-2 * self.log_radius).exp() - self.log_radius
            return torch.cat([-distances, strangers], dim=-1).softmax(-1)[..., :-1]
        return shares(distances) if self.mask is None else shares(distances) * self.mask(distances)

    def score(
        self, support: Tensor, labels: Tensor, query: Tensor, n_way: int, unlabelled: Tensor | None = None
    ) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D], unlabelled [..., U, D] or None -> logits [..., M, n_way]."""
        centres = prototypes(support, labels, n_way)
        if unlabelled is not None and unlabelled.shape[-2]:
            centres = refined(support, labels, unlabelled, self.weights(unlabelled, centres), n_way)
        return -squared_distances(query, centres)
