"""Variants of lesson 10: first-order MAML and Reptile, with twists in the inner steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fsl_classroom.checking.model import Wrong
from fsl_classroom.variants.build import Draw, Variant, build
from fsl_classroom.variants.steps import Steps, code, drawn, words_of, wrong_steps

Gradient = Callable[[Tensor], Tensor]


def _walk(how: Steps, gradient: Gradient, theta: Tensor, lr: float, steps: int) -> list[Tensor]:
    places = how.walk(lambda p: {"theta": gradient(p["theta"])}, {"theta": theta}, lr, steps)
    return [place["theta"] for place in places]


def _first_order(how: Steps, last: int) -> Callable[..., Tensor]:
    def answer(support_gradient: Gradient, query_gradient: Gradient, theta: Tensor, lr: float, steps: int) -> Tensor:
        places = _walk(how, support_gradient, theta, lr, steps)[-last:]
        return sum(query_gradient(place) for place in places) / len(places)

    return answer


def _vector_code(how: Steps, gradient: str) -> str:
    """Returns the source of the loop on one vector: it is the loop on a dict with one entry."""
    return 'params = {"theta": theta}\n' + code(how, f'{{"theta": {gradient}(theta["theta"])}}', keep=True)


def first_order(draw: Draw) -> Variant:
    """Returns a variant of 10.1: draws two twists, and over how many last places the query gradients are averaged."""
    how, last = drawn(draw, 2, "shrink", "clip", "momentum", "decay"), draw.one(2, 3)
    return build(
        draw,
        title="The first-order gradient, averaged",
        difficulty=3,
        signature="first_order_gradient(support_gradient: Callable, query_gradient: Callable, theta: Tensor, lr: "
        "float, steps: int) "
        "-> Tensor",
        doc="First-order meta-gradient, averaged over the last places. theta [D] -> [D].",
        task="Walk `steps` inner steps from `theta` along `support_gradient` (a function [D] → [D], as "
        "`query_gradient` is) and return the "
        "first-order meta-gradient.",
        twists=(
            *words_of(how),
            f"the result is the mean of the query gradients at the last {last} places of the walk; the start is a "
            "place, and a shorter "
            "walk has fewer",
        ),
        shapes="| `theta` | returned |\n|---|---|\n| `[D]` | `[D]` |",
        body=_vector_code(how, "support_gradient")
        + f'\nlast = [place["theta"] for place in places[-{last}:]]\nreturn torch.stack([query_gradient(p) for p in '
        "last]).mean(0)",
        right=(_first_order(how, last), _recursive(how, last)),
        wrong=(
            *wrong_steps(how, lambda h: _first_order(h, last), slips=False),
            Wrong("end only", _first_order(how, 1), "only the last place is asked", f"The last {last} places."),
            Wrong(
                "the whole walk",
                _first_order(how, 10**6),
                "all places of the walk are averaged",
                f"`places[-{last}:]`.",
            ),
        ),
        hints=(
            "Keep a list of the places; the start is the first.",
            "A loop with the list's lines; `places.append(theta)` after each step.",
            f"`torch.stack([query_gradient(p) for p in places[-{last}:]]).mean(0)`",
        ),
    )


def _recursive(how: Steps, last: int) -> Callable[..., Tensor]:
    """Returns an answer like `_first_order`, written with torch.stack and places popped from the end."""

    def answer(support_gradient: Gradient, query_gradient: Gradient, theta: Tensor, lr: float, steps: int) -> Tensor:
        places, found = _walk(how, support_gradient, theta, lr, steps), []
        while places and len(found) < last:
            found.append(query_gradient(places.pop()))
        return torch.stack(found).mean(0)

    return answer


def _reptile(how: Steps, ratio: float, normed: bool = True) -> Callable[..., Tensor]:
    def answer(gradients: Sequence[Gradient], theta: Tensor, lr: float, steps: int) -> Tensor:
        weights = [ratio**t for t in range(len(gradients))]
        moved = [theta - _walk(how, gradient, theta, lr, steps)[-1] for gradient in gradients]
        total = sum(w * m for w, m in zip(weights, moved, strict=True))
        return total / (sum(weights) if normed else len(weights))

    return answer


def _reptile_by_ends(how: Steps, ratio: float) -> Callable[..., Tensor]:
    def answer(gradients: Sequence[Gradient], theta: Tensor, lr: float, steps: int) -> Tensor:
        ends = torch.stack([_walk(how, gradient, theta, lr, steps)[-1] for gradient in gradients])
        weights = ratio ** torch.arange(len(ends), dtype=torch.float64)
        return theta - (weights / weights.sum()).to(theta.dtype) @ ends

    return answer


def reptile(draw: Draw) -> Variant:
    """Returns a variant of 10.2: draws two twists, and the ratio of the weights of successive tasks."""
    how, ratio = drawn(draw, 2, "shrink", "clip", "momentum", "decay"), draw.one(0.5, 0.75, 1.5, 2.0)
    walk = "\n".join("    " + line for line in _vector_code(how, "gradient").splitlines())
    return build(
        draw,
        title="Reptile's direction, weighted",
        difficulty=3,
        signature="reptile_direction(gradients: Sequence[Callable], theta: Tensor, lr: float, steps: int) -> Tensor",
        doc="Weighted mean over tasks of theta - theta_task. gradients: one function [D] -> [D] a task; theta [D] -> [D].",
        task="From `theta` walk `steps` inner steps in every task and return the weighted mean of the displacements "
        "theta − theta_task.",
        twists=(
            *words_of(how),
            f"task t = 0, 1, ... has the weight {ratio:g}^t; divide by the sum of the weights",
        ),
        shapes="| `gradients` | `theta` | returned |\n|---|---|---|\n| one function `[D]` → `[D]` for each task | "
        "`[D]` | `[D]` |",
        body=f"total, weights = torch.zeros_like(theta), 0.0\nstart = theta\nfor t, gradient in enumerate(gradients):\n"
        f'    theta = start\n{walk}\n    total = total + {ratio:g}**t * (start - places[-1]["theta"])\n'
        f"    weights += {ratio:g}**t\nreturn total / weights",
        right=(_reptile(how, ratio), _reptile_by_ends(how, ratio)),
        wrong=(
            *wrong_steps(how, lambda h: _reptile(h, ratio), slips=False),
            Wrong("plain mean", _reptile(how, 1.0), "all tasks weigh the same", f"Task t weighs {ratio:g}^t."),
            Wrong(
                "divided by the tasks",
                _reptile(how, ratio, normed=False),
                "the weighted sum is divided by the number of tasks",
                "Divide by the sum of the weights.",
            ),
            Wrong(
                "reversed",
                lambda g, theta, lr, steps: -_reptile(how, ratio)(g, theta, lr, steps),
                "the sign is turned: theta_task − theta",
                "A gradient points uphill: theta − theta_task.",
            ),
        ),
        hints=(
            "Each task starts at the same theta; momentum starts at 0 in every task.",
            "A loop over tasks around the loop over steps; keep the sum of weight times displacement, and the sum of "
            "the weights.",
            f"`total += {ratio:g}**t * (start - end)`, and at the end `total / weights`",
        ),
    )
