"""Inner loops with drawn twists, for all variants that take inner steps: as sentences, as lines of code and as a function.

A step applies in this order: gradient, weight decay, clipping, momentum, rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from fsl_classroom.checking.model import Wrong
from fsl_classroom.variants.build import Draw

Params = dict[str, Tensor]
Slope = Callable[[Params], Params]  # the gradient at a place


@dataclass(frozen=True)
class Steps:
    """The settings of an inner step. The defaults are plain gradient descent; `slip` names a twist to get wrong."""

    decay: float = 1.0  # the rate of step k = 0, 1, ... is lr * decay**k
    momentum: float = 0.0
    shrink: float = 0.0  # weight decay
    bias: float = 1.0  # rate of parameters whose name ends with "bias", relative to the others
    clip: float = float("inf")  # largest norm of the gradient of all parameters together
    slip: str = ""

    def walk(self, slope: Slope, params: Params, lr: float, steps: int) -> list[Params]:
        """Returns all steps + 1 places of the walk, the start included."""
        places, speed = [dict(params)], dict.fromkeys(params, 0.0)
        for k in range(steps):
            here = places[-1]
            g = slope(here)
            decayed = {n: x + self.shrink * (-here[n] if self.slip == "shrink" else here[n]) for n, x in g.items()}
            if self.clip < float("inf"):
                whole = sum(x.square().sum() for x in decayed.values()).sqrt()
                lengths = {n: x.square().sum().sqrt() if self.slip == "clip" else whole for n, x in decayed.items()}
                decayed = {n: x * (self.clip / lengths[n]).clamp(max=1) for n, x in decayed.items()}
            fresh = 1 - self.momentum if self.slip == "momentum" else 1
            speed = {n: self.momentum * speed[n] + fresh * x for n, x in decayed.items()}
            rate = lr * self.decay ** (k + (self.slip == "decay"))
            factors = {n: self.bias if n.endswith("bias") != (self.slip == "bias") else 1 for n in here}
            places.append({n: p - rate * factors[n] * speed[n] for n, p in here.items()})
        return places


@dataclass(frozen=True)
class _Twist:
    """A change to the plain step. {x} stands for its number in the texts."""

    choices: tuple[float, ...]
    words: str
    slip: str  # diagnosis of the mistake that is typical of it
    hint: str


TWISTS = {
    "shrink": _Twist(
        (0.1, 0.2, 0.3, 0.5),
        "weight decay: {x} times the parameters is added to the gradient, before anything else",
        "the weight decay has the wrong sign: the parameters are driven away from zero",
        "The decay is added to the gradient, `g + {x} * p`; the step subtracts both.",
    ),
    "clip": _Twist(
        (0.2, 0.3, 0.4, 0.5),
        "clipping: a gradient longer than {x} is shortened to length {x} (one length: the root of the sum of all "
        "squares, over all "
        "parameters together); gradients flow through the factor",
        "each tensor is clipped by itself",
        "One length over all parameters, one factor for all: `(c / length).clamp(max=1)`.",
    ),
    "momentum": _Twist(
        (0.3, 0.5, 0.7, 0.9),
        "momentum: v starts at 0, each step v becomes {x}·v + gradient, and v takes the gradient's place in the step",
        "the gradient is multiplied by 1 − {x} before it is added to v",
        "v becomes {x}·v + g, with the whole g.",
    ),
    "decay": _Twist(
        (0.5, 0.6, 0.7, 0.8),
        "a falling rate: step k = 0, 1, ... has the rate lr · {x}^k",
        "the rate falls one step too early: the first step has lr · {x} already",
        "Step 0 has the full rate: `lr * {x}**k` with k from 0.",
    ),
    "bias": _Twist(
        (0.25, 0.5, 2.0, 3.0),
        'rates of their own: parameters whose name ends with "bias" move with {x} times the rate',
        "the factor stands at the weights and not at the biases",
        'Ask `name.endswith("bias")`.',
    ),
}
_NEUTRAL = Steps()


def drawn(draw: Draw, count: int, *names: str) -> Steps:
    """Draws `count` of the named twists (default: of all) and their numbers."""
    chosen = draw.some(count, *(names or tuple(TWISTS)))
    return replace(_NEUTRAL, **{name: draw.one(*TWISTS[name].choices) for name in chosen})


def _used(steps: Steps) -> list[str]:
    return [name for name in TWISTS if getattr(steps, name) != getattr(_NEUTRAL, name)]


def words_of(steps: Steps) -> list[str]:
    """Returns a sentence for each twist, in the order in which a step applies them, and one that says so."""
    words = [TWISTS[name].words.format(x=f"{getattr(steps, name):g}") for name in _used(steps)]
    return [*words, "a step takes the lines above in this order"]


def wrong_steps(
    steps: Steps, answer: Callable[[Steps], Callable[..., Any]], *, slips: bool = True
) -> tuple[Wrong, ...]:
    """Returns, for each twist, the answer without it and (with slips) the answer with its typical mistake.

    answer: makes an answer from Steps
    """
    found = []
    for name in _used(steps):
        twist, x = TWISTS[name], f"{getattr(steps, name):g}"
        short = twist.words.partition(":")[0]
        left_out = answer(replace(steps, **{name: getattr(_NEUTRAL, name)}))
        found.append(Wrong(f"no {name}", left_out, f"one thing is left out: {short}", twist.words.format(x=x) + "."))
        if slips:
            hint = twist.hint.format(x=x)
            found.append(Wrong(f"slip in {name}", answer(replace(steps, slip=name)), twist.slip.format(x=x), hint))
    return tuple(found)


def code(steps: Steps, slope: str, *, keep: bool = False) -> str:
    """Returns the source of the loop, which computes the dict `theta` from `params`, `lr` and `steps`.

    slope: an expression for the dict of gradients
    keep:  whether the loop collects its places in a list `places`
    """
    lines = ["theta = dict(params)"]
    lines += ["places = [theta]"] if keep else []
    if steps.momentum:
        lines.append("speed = {name: torch.zeros_like(p) for name, p in params.items()}")
    lines += [f"for {'k' if steps.decay != 1 else '_'} in range(steps):", f"    g = {slope}"]
    if steps.shrink:
        lines.append(f"    g = {{name: g[name] + {steps.shrink:g} * p for name, p in theta.items()}}")
    if steps.clip < float("inf"):
        lines += [
            "    length = sum(x.square().sum() for x in g.values()).sqrt()",
            f"    g = {{name: x * ({steps.clip:g} / length).clamp(max=1) for name, x in g.items()}}",
        ]
    if steps.momentum:
        lines.append(f"    g = speed = {{name: {steps.momentum:g} * speed[name] + x for name, x in g.items()}}")
    if steps.bias != 1:
        factor = f'({steps.bias:g} if name.endswith("bias") else 1)'
        lines.append(f"    g = {{name: x * {factor} for name, x in g.items()}}")
    rate = f"lr * {steps.decay:g}**k" if steps.decay != 1 else "lr"
    lines.append(f"    theta = {{name: p - {rate} * g[name] for name, p in theta.items()}}")
    lines += ["    places.append(theta)"] if keep else []
    return "\n".join(lines)


def by_func(loss_fn: Callable[[Params], Tensor]) -> Slope:
    """Returns the gradient of a loss, computed by torch.func."""
    return grad(loss_fn)


def by_autograd(loss_fn: Callable[[Params], Tensor]) -> Slope:
    """Returns the gradient of a loss, computed by autograd with its graph kept. Parameters need not require gradients."""

    def slope(params: Params) -> Params:
        with torch.enable_grad():
            here = {n: p if p.requires_grad else p.clone().requires_grad_() for n, p in params.items()}
            found = torch.autograd.grad(loss_fn(here), list(here.values()), create_graph=True)
        return dict(zip(here, found, strict=True))

    return slope
