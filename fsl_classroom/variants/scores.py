"""Variants of what is computed from distances or scores: attention (04), the loss of an episode (05), relation loss (06)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_classroom.checking.model import Wrong
from fsl_classroom.variants.build import Draw, Variant, build

# ---------------------------------------------------------------------------------------------- 04.1 attention


def _attention(top: int, temperature: float, share: float, kept_only: bool = False) -> Callable[[Tensor], Tensor]:
    """Returns an answer. kept_only: it gives the even share to the rows that take part, not to all."""

    def answer(similarity: Tensor) -> Tensor:
        edge = similarity.topk(min(top, similarity.shape[1]), dim=1).values[:, -1:]
        kept = similarity >= edge
        weights = (similarity / temperature).masked_fill(~kept, -torch.inf).softmax(1)
        even = kept / kept.sum(1, keepdim=True) if kept_only else 1 / similarity.shape[1]
        return (1 - share) * weights + share * even

    return answer


def _attention_rows(top: int, temperature: float, share: float) -> Callable[[Tensor], Tensor]:
    def answer(similarity: Tensor) -> Tensor:
        value, place = similarity.topk(min(top, similarity.shape[1]), dim=1)
        weight = ((value - value[:, :1]) / temperature).exp()
        weight = weight / weight.sum(1, keepdim=True)
        return torch.full_like(similarity, share / similarity.shape[1]).scatter_add(1, place, (1 - share) * weight)

    return answer


def _wrong_attention(top: int, temperature: float, share: float) -> tuple[Wrong, ...]:
    """Returns the classic mistakes in 04.1."""
    return (
        Wrong(
            "all rows",
            _attention(10**6, temperature, share),
            "all rows take part in the softmax",
            f"Rows that are not among the {top} most similar get minus infinity before the softmax.",
        ),
        Wrong(
            "one row less",
            _attention(top - 1, temperature, share),
            "one row too few takes part",
            "The last of the chosen rows belongs to them: mind < and <=.",
        ),
        Wrong(
            "temperature upside down",
            _attention(top, 1 / temperature, share),
            "the similarities are multiplied by τ",
            "Divide by the temperature.",
        ),
        Wrong(
            "no even share",
            _attention(top, temperature, 0.0),
            "the even share is left out",
            "Mix at the end: (1 − λ) times the softmax plus λ/S.",
        ),
        Wrong(
            "share for the chosen",
            _attention(top, temperature, share, kept_only=True),
            "only the chosen rows get the even share",
            "Every row of the support gets λ/S, also those that the softmax does not see.",
        ),
    )


def attention(draw: Draw) -> Variant:
    """Returns a variant of 04.1: draws how many rows take part, the temperature, and the even share."""
    top, temperature = draw.one(2, 3), draw.one(0.2, 0.25, 0.5, 2.0, 4.0)
    share = draw.one(0.1, 0.2, 0.25, 0.3)
    return build(
        draw,
        title="Attention to the nearest few",
        difficulty=2,
        signature="attention_weights(similarity: Tensor) -> Tensor",
        doc="Attention weights. similarity [M, S] -> [M, S], rows sum to 1.",
        task="Return attention weights over the support. For each query only its most similar rows take part in the "
        "softmax, the others "
        "get weight 0 there; then every one of the S rows gets an even share:\n\n"
        "$$a = (1 - \\lambda) \\, \\mathrm{softmax}(s / \\tau) + \\lambda / S$$",
        twists=(
            f"the {top} most similar rows take part (all rows where the support has fewer)",
            f"the temperature is τ = {temperature:g}",
            f"the even share is λ = {share:g}",
        ),
        shapes="| `similarity` | returned |\n|---|---|\n| `[M, S]`, no ties | `[M, S]` |",
        body=f"""
            edge = similarity.topk(min({top}, similarity.shape[1]), dim=1).values[:, -1:]
            seen = similarity.masked_fill(similarity < edge, -math.inf)
            return {1 - share:g} * (seen / {temperature:g}).softmax(1) + {share:g} / similarity.shape[1]
        """,
        right=(_attention(top, temperature, share), _attention_rows(top, temperature, share)),
        wrong=_wrong_attention(top, temperature, share),
        hints=(
            "Three steps: hide rows, softmax, mix.",
            "The smallest value that still takes part: `similarity.topk(k, dim=1).values[:, -1:]`.",
            "`masked_fill(similarity < edge, -math.inf)`, `/ tau`, `.softmax(1)`, then the mixture.",
        ),
        gradient=(0,),
    )


# ---------------------------------------------------------------------------------------------- 05.3 loss


def _loss(temperature: float, smooth: float, prior: float, inside: bool = False) -> Callable[..., Tensor]:
    """Returns an answer. inside: it divides the prior by the temperature, too."""

    def answer(support: Tensor, support_y: Tensor, query: Tensor, query_y: Tensor, n_way: int) -> Tensor:
        member = F.one_hot(support_y, n_way).to(support.dtype)
        count = member.sum(0)
        squared = (query[:, None] - member.T @ support / count[:, None]).square().sum(-1)
        scale = temperature if inside else 1.0
        log_p = (prior * count.log() / scale - squared / temperature).log_softmax(1)
        right = log_p.gather(1, query_y[:, None]).mean()
        return -(1 - smooth) * right - smooth * log_p.mean()

    return answer


def _loss_torch(temperature: float, smooth: float, prior: float) -> Callable[..., Tensor]:
    def answer(support: Tensor, support_y: Tensor, query: Tensor, query_y: Tensor, n_way: int) -> Tensor:
        logits = []
        for k in range(n_way):
            own = support[support_y == k]
            distance = ((query - own.mean(0)) ** 2).sum(1)
            logits.append(-distance / temperature + prior * math.log(len(own)))
        return F.cross_entropy(torch.stack(logits, 1), query_y, label_smoothing=smooth)

    return answer


def _wrong_losses(temperature: float, smooth: float, prior: float) -> tuple[Wrong, ...]:
    """Returns the classic mistakes in 05.3."""
    return (
        Wrong("no temperature", _loss(1.0, smooth, prior), "τ is left out", "Divide the squared distances by τ."),
        Wrong(
            "temperature upside down",
            _loss(1 / temperature, smooth, prior),
            "the distances are multiplied by τ",
            "A high temperature makes the softmax flat: divide.",
        ),
        Wrong(
            "no smoothing",
            _loss(temperature, 0.0, prior),
            "the labels are not smoothed",
            "`F.cross_entropy` knows `label_smoothing`.",
        ),
        Wrong(
            "no prior",
            _loss(temperature, smooth, 0.0),
            "the number of shots has no say",
            "Add β·log n_k to the logit of class k.",
        ),
        Wrong(
            "all divided",
            _loss(temperature, smooth, prior, inside=True),
            "the prior is divided by τ as well",
            "Only the distance is divided; β·log n_k is added afterwards.",
        ),
    )


def loss(draw: Draw) -> Variant:
    """Returns a variant of 05.3: draws the temperature, the label smoothing, and the weight of the shots."""
    temperature, smooth = draw.one(0.5, 2.0, 3.0, 4.0), draw.one(0.05, 0.1, 0.15, 0.2)
    prior = draw.one(0.5, 1.0, 1.5, 2.0)
    return build(
        draw,
        title="The loss of an episode, softened",
        difficulty=3,
        signature="episode_loss(support: Tensor, support_y: Tensor, query: Tensor, query_y: Tensor, n_way: int) -> Tensor",
        doc="Smoothed loss of an episode. Embeddings [S, D], [M, D], labels [S], [M] -> scalar.",
        task="Return the loss of an episode of Prototypical Networks, the mean over its queries. With $n_k$ shots, "
        "class means $c_k$ and "
        "the query embedding $z$ of class $y$:\n\n$$p = \\mathrm{softmax}_k \\Big( -\\frac{\\|z - c_k\\|^2}{\\tau} + "
        "\\beta \\log n_k \\Big),"
        " \\qquad L = -(1 - \\varepsilon) \\log p_y - \\frac{\\varepsilon}{N} \\sum_k \\log p_k$$",
        twists=(
            f"the temperature is τ = {temperature:g}; it divides the distance only",
            f"the labels are smoothed by ε = {smooth:g}",
            f"β = {prior:g}: classes with more shots are likelier",
        ),
        shapes="| | shape |\n|---|---|\n| `support`, `query`: embeddings | `[S, D]`, `[M, D]` |\n| `support_y`, "
        "`query_y` | `[S]`, `[M]` |"
        "\n| returned | scalar |",
        body=f"""
            centres = torch.stack([support[support_y == k].mean(0) for k in range(n_way)])
            shots = torch.stack([(support_y == k).sum() for k in range(n_way)]).to(query.dtype)
            squared = (query[:, None] - centres).square().sum(-1)
            logits = -squared / {temperature:g} + {prior:g} * shots.log()
            return F.cross_entropy(logits, query_y, label_smoothing={smooth:g})
        """,
        right=(_loss(temperature, smooth, prior), _loss_torch(temperature, smooth, prior)),
        wrong=_wrong_losses(temperature, smooth, prior),
        hints=(
            "Everything new happens in the logits, but for the smoothing, which the loss knows.",
            "Logits: `-squared / tau + beta * shots.log()`, with `shots` [N] as floats.",
            "`F.cross_entropy(logits, query_y, label_smoothing=eps)`",
        ),
        gradient=(0, 2),
    )


# ---------------------------------------------------------------------------------------------- 06.2 relation loss


def _relation(high: float, low: float, weight: float, by_weights: bool) -> Callable[[Tensor, Tensor], Tensor]:
    def answer(logits: Tensor, query_y: Tensor) -> Tensor:
        right = F.one_hot(query_y, logits.shape[1]).to(logits.dtype)
        error = (logits.sigmoid() - high * right - low * (1 - right)).square()
        weights = weight * right + (1 - right)
        return (weights * error).sum() / (weights.sum() if by_weights else weights.numel())

    return answer


def _relation_index(high: float, low: float, weight: float, by_weights: bool) -> Callable[[Tensor, Tensor], Tensor]:
    def answer(logits: Tensor, query_y: Tensor) -> Tensor:
        score = torch.sigmoid(logits)
        own = score.gather(1, query_y[:, None])
        rest = (score - low).square().sum() - (own - low).square().sum()
        count = logits.numel() + (weight - 1) * len(query_y) * by_weights
        return (weight * (own - high).square().sum() + rest) / count

    return answer


def relation(draw: Draw) -> Variant:
    """Returns a variant of 06.2: draws the soft targets, the weight of right pairs, and the divisor of the sum."""
    high, low = draw.one(0.75, 0.875, 0.9375), draw.one(0.03125, 0.0625, 0.125)  # exact in float32
    weight, by_weights = draw.one(2.0, 3.0, 4.0), draw.one(True, False)
    divided = {True: "the sum of the weights", False: "the number of pairs"}
    return build(
        draw,
        title="The loss on scores, weighted",
        difficulty=2,
        signature="relation_loss(logits: Tensor, query_y: Tensor) -> Tensor",
        doc="Weighted squared error of relation scores. logits [M, N], query_y [M] -> scalar.",
        task="Squeeze the logits to scores with the sigmoid and hold them against soft targets, with weights: right "
        "pairs are rare.",
        twists=(
            f"the target of a right pair is {high:g}, of a wrong pair {low:g}",
            f"a right pair has weight {weight:g}, a wrong pair weight 1",
            f"the weighted squared errors are summed and divided by {divided[by_weights]}",
        ),
        shapes="| `logits` | `query_y` | returned |\n|---|---|---|\n| `[M, N]` | `[M]` | scalar |",
        body=f"""
            right = F.one_hot(query_y, logits.shape[1]).to(logits.dtype)
            target = {high:g} * right + {low:g} * (1 - right)
            weights = {weight:g} * right + (1 - right)
            error = weights * (logits.sigmoid() - target).square()
            return error.sum() / {"weights.sum()" if by_weights else "logits.numel()"}
        """,
        right=(_relation(high, low, weight, by_weights), _relation_index(high, low, weight, by_weights)),
        wrong=(
            Wrong(
                "hard targets",
                _relation(1.0, 0.0, weight, by_weights),
                "the targets are 1 and 0",
                f"They are {high:g} and {low:g}.",
            ),
            Wrong(
                "no weights",
                _relation(high, low, 1.0, by_weights),
                "right and wrong pairs weigh the same",
                f"Multiply the squared error of right pairs by {weight:g}.",
            ),
            Wrong(
                "divided by the other",
                _relation(high, low, weight, not by_weights),
                f"the sum is divided by {divided[not by_weights]}",
                f"Divide by {divided[by_weights]}.",
            ),
            Wrong(
                "weight squared",
                _relation(high, low, weight**2, by_weights),
                "the weight is multiplied to the error before it is squared",
                "Square first, then weigh.",
            ),
        ),
        hints=(
            "A table [M, N] of targets and one of weights, both from the same mask of right pairs.",
            "The mask: `F.one_hot(query_y, logits.shape[1])`; `high * mask + low * (1 - mask)` is the table of targets.",
            "`(weights * (logits.sigmoid() - target).square()).sum()`, divided as the list says.",
        ),
        gradient=(0,),
    )
