"""Label propagation (Zhou et al. 2004; for few shots Liu et al. 2019): labels flow along a graph of support and queries."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.methods.base import FewShotLearner, check_labels
from fsl_course.methods.prototypical import squared_distances

LEAST = 1e-9  # stands for a share of 0, whose logarithm is not finite


def affinities(nodes: Tensor, neighbours: int | None = 10, sigma: float = 0.3) -> Tensor:
    """Returns the weights of the edges, W_ij = exp(-d_ij^2 / (2 s^2)): symmetric, with a zero diagonal.

    nodes:      embeddings [..., V, D] -> W [..., V, V]
    neighbours: an edge stays if one of its ends is among the nearest `neighbours` of the other; None keeps every edge
    sigma:      s^2 is sigma^2 times the mean squared distance of all pairs, so that the unit of the embedding does not matter
    """
    count = nodes.shape[-2]
    itself = torch.eye(count, dtype=torch.bool, device=nodes.device)
    distances = squared_distances(nodes, nodes)
    distances = (distances + distances.mT) / 2  # rounding differs between the two halves of the product
    mean = distances.masked_fill(itself, 0).sum((-2, -1), keepdim=True) / (count * (count - 1))
    weights = (-distances / (2 * sigma**2 * mean.clamp_min(1e-12))).exp().masked_fill(itself, 0)
    if neighbours is None or neighbours >= count - 1:
        return weights
    nearest = distances.detach().masked_fill(itself, torch.inf).topk(neighbours, dim=-1, largest=False).indices
    kept = torch.zeros_like(weights, dtype=torch.bool).scatter(-1, nearest, True)
    return weights * (kept | kept.mT)


def normalised(weights: Tensor) -> Tensor:
    """Returns S = D^-1/2 W D^-1/2, where D holds the row sums of W (Zhou et al. 2004, step 2). weights [..., V, V], symmetric."""
    scale = weights.sum(-1).clamp_min(1e-12).rsqrt()
    return scale.unsqueeze(-1) * weights * scale.unsqueeze(-2)


def propagate(flow: Tensor, given: Tensor, alpha: float = 0.9) -> Tensor:
    """Returns F = (I - alpha S)^-1 Y (Liu et al. 2019, equation 4): the limit of F <- alpha S F + (1 - alpha) Y over (1 - alpha).

    flow: S [..., V, V], of eigenvalues in [-1, 1]; given: Y [..., V, N], a 1 where the support has a label -> F [..., V, N]
    """
    identity = torch.eye(flow.shape[-1], dtype=flow.dtype, device=flow.device)
    return torch.linalg.solve(identity - alpha * flow, given)


class LabelPropagation(FewShotLearner):
    """Support and queries are the nodes of one graph; the logits are the logarithms of what has flowed to a query.

    The softmax of these logits is F divided by the sum of its row. (The code of Liu et al. takes the softmax of F itself,
    keeps the diagonal of W, and learns s for each picture.) The queries of a call are judged together: transductive by nature.

    encoder: pictures [B, c, H, W] -> embeddings [B, D]; neighbours, sigma, alpha: as above
    """

    transductive: ClassVar[bool] = True

    def __init__(self, encoder: nn.Module, neighbours: int = 10, sigma: float = 0.3, alpha: float = 0.9) -> None:
        super().__init__()
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha must be at least 0 and below 1, or labels flow for ever; got {alpha}.")
        if neighbours < 1 or sigma <= 0:
            raise ValueError(f"neighbours must be at least 1, and sigma above 0; got {neighbours} and {sigma}.")
        self.encoder, self.neighbours, self.sigma, self.alpha = encoder, neighbours, sigma, alpha

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> logits [..., M, n_way]; leading axes are tasks."""
        check_labels(labels, n_way)
        weights = affinities(torch.cat([support, query], -2), self.neighbours, self.sigma)
        given = F.pad(F.one_hot(labels, n_way).to(weights), (0, 0, 0, query.shape[-2]))  # rows of zeros for the queries
        arrived = propagate(normalised(weights), given, self.alpha)[..., support.shape[-2] :, :]
        return arrived.clamp_min(LEAST).log()
