"""Variants of lessons 08 and 09: a meta-gradient by hand, and the normalisation of queries."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fsl_classroom.checking.model import Wrong
from fsl_classroom.variants.build import Draw, Variant, build

# ---------------------------------------------------------------------------------------------- 08.1 by hand


def _by_hand(shrink: float, fall: float, factors: int = 2) -> Callable[..., float]:
    """Returns an answer. factors: the number of steps through which it carries the gradient, counted from the last."""

    def answer(theta: float, lr: float, a: float, s: float, b: float, q: float) -> float:
        place, product = theta, 1.0
        for k, rate in enumerate((lr, fall * lr)):
            place -= rate * (a * (place - s) + shrink * place)
            product *= 1 - rate * (a + shrink) if k >= 2 - factors else 1.0
        return product * b * (place - q)

    return answer


def _by_autograd(shrink: float, fall: float) -> Callable[..., float]:
    def answer(theta: float, lr: float, a: float, s: float, b: float, q: float) -> float:
        with torch.enable_grad():
            start = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
            first = start - lr * (a * (start - s) + shrink * start)
            second = first - fall * lr * (a * (first - s) + shrink * first)
            return float(torch.autograd.grad(b / 2 * (second - q) ** 2, start)[0])

    return answer


def one_parameter(draw: Draw) -> Variant:
    """Returns a variant of 08.1: draws the weight decay and the rate of the second step."""
    shrink, fall = draw.one(0.1, 0.2, 0.3, 0.4, 0.6), draw.one(0.25, 0.5, 0.75, 2.0)
    return build(
        draw,
        title="The meta-gradient of one parameter through two steps",
        difficulty=3,
        signature="one_parameter(theta: float, lr: float, a: float, s: float, b: float, q: float) -> float",
        doc="d L_Q(theta'') / d theta after two inner steps on L_S. Numbers in, a number out.",
        task="With $L_S = \\frac a2 (\\theta - s)^2$ and $L_Q = \\frac b2 (\\theta - q)^2$, take two inner steps, "
        "$\\theta \\to \\theta' \\to "
        "\\theta''$, and return $\\frac{d}{d\\theta} L_Q(\\theta'')$, through both steps. Derive it on paper; a "
        "formula is enough.",
        twists=(
            f"each inner step follows the slope of L_S plus {shrink:g} times the parameter (weight decay)",
            f"the first step has the rate lr, the second {fall:g} times lr",
        ),
        shapes="All arguments and the result are numbers.",
        body=f"""
            first = theta - lr * (a * (theta - s) + {shrink:g} * theta)
            second = first - {fall:g} * lr * (a * (first - s) + {shrink:g} * first)
            through = (1 - lr * (a + {shrink:g})) * (1 - {fall:g} * lr * (a + {shrink:g}))
            return through * b * (second - q)
        """,
        right=(_by_hand(shrink, fall), _by_autograd(shrink, fall)),
        wrong=(
            Wrong("no decay", _by_hand(0.0, fall), "the weight decay is left out", "The slope is a(θ − s) + λθ."),
            Wrong("same rate", _by_hand(shrink, 1.0), "both steps have the same rate", f"The second has {fall:g}·lr."),
            Wrong("one step", _by_hand(shrink, 0.0), "only one step is taken", "Two steps, and a factor for each."),
            Wrong(
                "first order",
                _by_hand(shrink, fall, 0),
                "the slope at the end is not carried back through the steps",
                "Each step contributes the factor dθ'/dθ = 1 − rate·(a + λ).",
            ),
            Wrong(
                "last step only",
                _by_hand(shrink, fall, 1),
                "the slope is carried back through the second step and not through the first",
                "A chain of two factors.",
            ),
        ),
        hints=(
            "A chain of three: L_Q of θ'', θ'' of θ', θ' of θ.",
            "dθ'/dθ = 1 − lr·(a + λ); the second step has the same form with its own rate.",
            "`factor_1 * factor_2 * b * (second - q)`",
        ),
    )


# ---------------------------------------------------------------------------------------------- 09.1 normalised queries


def _normalise(share: float, most: float, correction: int, all_queries: bool = False) -> Callable[..., Tensor]:
    """Returns an answer. all_queries: it blends in the mean of all queries, so that they depend on each other."""

    def answer(support: Tensor, query: Tensor, eps: float = 1e-5) -> Tensor:
        own = query.mean((0, 2, 3) if all_queries else (2, 3), keepdim=True)
        mean = (1 - share) * support.mean((0, 2, 3), keepdim=True) + share * own
        variance = support.var((0, 2, 3), correction=correction, keepdim=True)
        return ((query - mean) / (variance + eps).sqrt()).clamp(-most, most)

    return answer


def _normalise_flat(share: float, most: float, correction: int) -> Callable[..., Tensor]:
    def answer(support: Tensor, query: Tensor, eps: float = 1e-5) -> Tensor:
        seen = support.transpose(0, 1).flatten(1)  # [c, S*h*w]
        mean = seen.mean(1)
        variance = (seen - mean[:, None]).square().sum(1) / (seen.shape[1] - correction)
        pictures = []
        for picture in query:
            middle = mean + share * (picture.flatten(1).mean(1) - mean)
            made = (picture - middle[:, None, None]) * (variance + eps).rsqrt()[:, None, None]
            pictures.append(torch.minimum(torch.maximum(made, -made.new_tensor(most)), made.new_tensor(most)))
        return torch.stack(pictures)

    return answer


def normalise(draw: Draw) -> Variant:
    """Returns a variant of 09.1: draws the share of the query's own mean, the kind of variance, and the cut."""
    share, most, correction = draw.one(0.1, 0.2, 0.3, 0.4), draw.one(0.75, 1.0, 1.25, 1.5), draw.one(0, 1)
    kind = {0: "biased (divided by the count)", 1: "unbiased (divided by the count less 1)"}
    return build(
        draw,
        title="Queries by blended statistics",
        difficulty=3,
        signature="normalise_queries(support: Tensor, query: Tensor, eps: float = 1e-5) -> Tensor",
        doc="Queries normalised channel by channel. [S, c, h, w], [M, c, h, w] -> [M, c, h, w].",
        task="Normalise the queries channel by channel: subtract a mean, divide by $\\sqrt{\\text{variance} + "
        "\\text{eps}}$, cut. A query must "
        "not depend on the other queries.",
        twists=(
            f"the mean is {1 - share:g} times the support's channel mean plus {share:g} times the mean of that "
            "channel in the query itself",
            f"the variance is the support's alone, over its rows and pixels, {kind[correction]}",
            f"the result is cut to the range from −{most:g} to {most:g}",
        ),
        shapes="| `support` | `query` | returned |\n|---|---|---|\n| `[S, c, h, w]` | `[M, c, h, w]` | `[M, c, h, w]` |",
        body=f"""
            own = query.mean((2, 3), keepdim=True)  # [M, c, 1, 1]
            mean = {1 - share:g} * support.mean((0, 2, 3), keepdim=True) + {share:g} * own
            variance = support.var((0, 2, 3), correction={correction}, keepdim=True)
            return ((query - mean) / (variance + eps).sqrt()).clamp(-{most:g}, {most:g})
        """,
        right=(_normalise(share, most, correction), _normalise_flat(share, most, correction)),
        wrong=(
            Wrong(
                "support only",
                _normalise(0.0, most, correction),
                "the mean is the support's alone",
                "Blend in the query's own mean, `query.mean((2, 3), keepdim=True)`.",
            ),
            Wrong(
                "all queries",
                _normalise(share, most, correction, all_queries=True),
                "the mean of all queries is blended in: they see each other",
                "Every query has a mean of its own: average over pixels, not over rows.",
            ),
            Wrong(
                "other variance",
                _normalise(share, most, 1 - correction),
                f"the variance is {kind[1 - correction]}",
                f"`correction={correction}`.",
            ),
            Wrong(
                "not cut",
                _normalise(share, 1e9, correction),
                "the result is not cut",
                f"`.clamp(-{most:g}, {most:g})` at the end.",
            ),
        ),
        hints=(
            "Which axes does each mean run over? The support's over rows and pixels, the query's over pixels.",
            "`keepdim=True` leaves [1, c, 1, 1] and [M, c, 1, 1], which add up.",
            "`((query - mean) / (variance + eps).sqrt()).clamp(-m, m)`",
        ),
        gradient=(0, 1),
    )
