"""How sure an answer is: calibration error, temperature, and how well a score tells strangers from known classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Sorts answers by confidence into bins of equal width -> count, mean confidence, accuracy of each bin, [bins] three times.

    The confidence of an answer is its largest probability. Bin b holds b/bins < confidence <= (b+1)/bins, so that a confidence
    of exactly 1 is in the last one. Empty bins have zeros.
    probabilities: [M, N], rows sum to one; labels: int64 [M]
    """
    confidence, answer = probabilities.max(1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    member = F.one_hot(place, bins).to(probabilities.dtype)
    count = member.sum(0)
    right = (answer == labels).to(probabilities.dtype)
    return count, member.T @ confidence / count.clamp_min(1), member.T @ right / count.clamp_min(1)


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 10) -> Tensor:
    """Returns the expected calibration error (Guo et al. 2017, equation 3): the mean |accuracy - confidence|, a scalar."""
    count, confidence, accuracy = reliability(probabilities, labels, bins)
    return count @ (accuracy - confidence).abs() / count.sum()


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """Returns the T that minimises the cross-entropy of logits / T (Guo et al. 2017, section 4.2), between 0.001 and 1000.

    One number cannot change which class wins. logits: [M, N] and labels: int64 [M] must not be those that are judged later.
    """
    logits = logits.double()

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(logits * 10.0**-log_t, labels))

    return 10.0 ** float(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-6}).x)


def auroc(known: Tensor, strangers: Tensor) -> float:
    """Returns how often a known row scores above a stranger, ties counted half: the area under the ROC curve. [A], [B] -> 0..1"""
    both = torch.cat([known, strangers]).double()
    _, place, count = both.unique(return_inverse=True, return_counts=True)
    middle = count.cumsum(0) - (count - 1) / 2  # the mean rank of equal values
    rank = middle[place[: len(known)]].sum() - len(known) * (len(known) + 1) / 2
    return float(rank) / (len(known) * len(strangers))
