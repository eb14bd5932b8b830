"""Variants of lessons 07 and 08: the inner loop with twists, and the outer loss that depends on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.func import functional_call

from fsl_classroom.checking.model import Case, Wrong
from fsl_classroom.variants.build import Draw, Variant, build
from fsl_classroom.variants.steps import Params, Steps, by_autograd, by_func, code, drawn, words_of, wrong_steps
from fsl_course.episodes import Episode

Loss = Callable[[Params], Tensor]

# ---------------------------------------------------------------------------------------------- 07.3 the inner loop


def _adapt(steps: Steps, slope: Callable = by_func) -> Callable[..., Params]:
    how = steps

    def answer(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
        return how.walk(slope(loss_fn), params, lr, steps)[-1]

    return answer


def _line(params: Params) -> Tensor:
    x = torch.tensor([-2.0, -1.0, 0.5, 3.0], dtype=params["weight"].dtype)
    return (params["weight"] * x + params["bias"] - x.square() + 1).square().mean()


def _curved(params: Params) -> Tensor:
    x = torch.linspace(-1, 1, 5, dtype=params["0.weight"].dtype)[:, None]
    hidden = torch.tanh(F.linear(x, params["0.weight"], params["0.bias"]))
    return (F.linear(hidden, params["2.weight"], params["2.bias"]) - torch.sin(3 * x)).square().mean()


def _adapt_cases(generator: Generator) -> list[Case]:
    def params(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> Params:
        return {n: torch.randn(s, generator=generator).to(dtype).requires_grad_() for n, s in shapes.items()}

    line, net = (
        {"weight": (), "bias": ()},
        {"0.weight": (3, 1), "0.bias": (3,), "2.weight": (1, 3), "2.bias": (1,)},
    )
    return [
        Case("a line, one step", (_line, params(line), 0.05, 1)),
        Case("a line, 4 steps", (_line, params(line), 0.05, 4)),
        Case("no step at all", (_line, params(line), 0.05, 0)),
        Case("a small net, 3 steps, float64", (_curved, params(net, torch.float64), 0.3, 3)),
    ]


def adapt(draw: Draw) -> Variant:
    """Returns a variant of 07.3: draws three of five twists."""
    steps = drawn(draw, 3)
    uphill = _adapt(steps)
    return build(
        draw,
        title="The inner loop, with twists",
        difficulty=3,
        signature="adapt(loss_fn: Callable, params: dict[str, Tensor], lr: float, steps: int) -> dict[str, Tensor]",
        doc="`steps` inner steps on a dict of parameters. loss_fn(params) -> scalar; returns a dict like params.",
        task="Return the parameters after `steps` inner steps on `loss_fn`. Change nothing in place, and leave the "
        "graph whole: the result "
        "must be differentiable in `params`, the gradients in it included.",
        twists=words_of(steps),
        shapes="| | shape |\n|---|---|\n| `params`, returned | a dict of tensors of any shapes, the same names |\n"
        "| `loss_fn(params)` | scalar |",
        body=code(steps, "grad(loss_fn)(theta)") + "\nreturn theta",
        right=(_adapt(steps), _adapt(steps, by_autograd)),
        wrong=(
            *wrong_steps(steps, _adapt),
            Wrong(
                "uphill",
                lambda loss_fn, params, lr, steps: uphill(loss_fn, params, -lr, steps),
                "the steps go uphill",
                "Subtract: `p - rate * g`.",
            ),
        ),
        hints=(
            "Write the plain loop first, then put in one line of the list after the other.",
            "`grad(loss_fn)(theta)` is a dict of gradients with the names of theta, and keeps the graph.",
            "Each twist is one dict comprehension: `g = {name: ... for name, x in g.items()}`.",
        ),
        cases=_adapt_cases,
        gradient=(1,),
    )


# ---------------------------------------------------------------------------------------------- 08.2 meta_loss


def _meta_loss(steps: Steps, share: float, slope: Callable = by_func, before: bool = False) -> Callable[..., Tensor]:
    """Returns an answer. before: it takes the support's part of the outer loss at the initialisation."""
    how = steps

    def answer(model: nn.Module, params: Params, episode: Episode, lr: float, steps: int) -> Tensor:
        def error(theta: Params, x: Tensor, y: Tensor) -> Tensor:
            return (functional_call(model, theta, (x,)) - y).square().mean()

        places = how.walk(slope(lambda p: error(p, episode.support_x, episode.support_y)), params, lr, steps)
        support = error(places[0 if before else -1], episode.support_x, episode.support_y)
        return error(places[-1], episode.query_x, episode.query_y) + share * support

    return answer


def meta_loss(draw: Draw) -> Variant:
    """Returns a variant of 08.2: draws two of five twists, and the support's share in the outer loss."""
    steps, share = drawn(draw, 2), draw.one(0.1, 0.2, 0.25, 0.5)
    return build(
        draw,
        title="meta_loss through a twisted inner loop",
        difficulty=4,
        signature="meta_loss(model: nn.Module, params: dict[str, Tensor], episode: Episode, lr: float, steps: int) -> Tensor",
        doc="Outer loss of one regression task after `steps` twisted inner steps. A scalar, differentiable in params.",
        task="Adapt `params` on the support by `steps` inner steps on the mean squared error, then return the outer "
        "loss. The meta-gradient "
        "through all steps, second derivatives included, is checked. `functional_call(model, theta, (x,))` runs the model.",
        twists=(
            *words_of(steps),
            f"the outer loss is the mean squared error on the query plus {share:g} times the one on the support, both "
            "at the adapted "
            "parameters",
        ),
        shapes="| | shape |\n|---|---|\n| `params` | a dict that fits `model` |\n| `episode.support_x`, "
        "`episode.support_y` | `[K, 1]` each |\n"
        "| `episode.query_x`, `episode.query_y` | `[Q, 1]` each |\n| returned | scalar |",
        body="def error(theta, x, y):\n    return F.mse_loss(functional_call(model, theta, (x,)), y)\n\n"
        "def support_error(theta):\n    return error(theta, episode.support_x, episode.support_y)\n\n"
        + code(steps, "grad(support_error)(theta)")
        + f"\nreturn error(theta, episode.query_x, episode.query_y) + {share:g} * support_error(theta)",
        right=(_meta_loss(steps, share), _meta_loss(steps, share, by_autograd)),
        wrong=(
            *wrong_steps(steps, lambda s: _meta_loss(s, share)),
            Wrong(
                "query only",
                _meta_loss(steps, 0.0),
                "the outer loss is that of the query alone",
                f"Add {share:g} times the support's error.",
            ),
            Wrong(
                "support before",
                _meta_loss(steps, share, before=True),
                "the support's part of the outer loss is taken before adapting",
                "Both errors are taken at the adapted parameters.",
            ),
        ),
        hints=(
            "Two functions of theta first: the error on the support, the error on the query.",
            "`grad(support_error)(theta)` is a dict of gradients that keeps the graph; no `.detach()`, no `no_grad`.",
            "The loop of exercise 07.3 with the list's lines in it, then `query_error(theta) + share * support_error(theta)`.",
        ),
        gradient=(1,),
    )
