"""Exercises of lesson 11: preprocessing, the cell update and its gates, one coordinate-wise step, truncation, two detectors.

Cases: every exercise builds its own. The detectors 11.6 and 11.7 get implementations as arguments and must return True for the
broken ones only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import grad

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ---------------------------------------------------------------------------------------------- 11.1 preprocess


def preprocess(x: Tensor, p: float = 10.0) -> Tensor:
    """Returns (ln|x| / p, sign x) where |x| >= exp(-p), else (-1, exp(p) x). x [...] -> [..., 2]."""
    large = x.abs() >= math.exp(-p)
    size = torch.where(large, x.abs().clamp_min(math.exp(-p)).log() / p, -torch.ones_like(x))
    return torch.stack([size, torch.where(large, x.sign(), math.exp(p) * x)], dim=-1)


def _preprocess_by_clamps(x: Tensor, p: float = 10.0) -> Tensor:
    return torch.stack(
        [(x.abs().clamp_min(math.exp(-p)).log() / p).clamp_min(-1), (math.exp(p) * x).clamp(-1, 1)], dim=-1
    )


def _preprocess_loop(x: Tensor, p: float = 10.0) -> Tensor:
    rows = []
    for v in x.reshape(-1).tolist():
        small = abs(v) < math.exp(-p)
        rows.append([-1.0, math.exp(p) * v] if small else [math.log(abs(v)) / p, math.copysign(1.0, v)])
    return torch.tensor(rows, dtype=x.dtype).view(*x.shape, 2)


def _preprocess_indexed(x: Tensor, p: float = 10.0) -> Tensor:
    """Fills the table where the numbers are large, then where they are tiny; its constants are float32."""
    edge = torch.exp(torch.tensor(-p))
    table, tiny = torch.empty(*x.shape, 2, dtype=x.dtype), x.abs() < edge
    table[~tiny] = torch.stack([x[~tiny].abs().log() / p, x[~tiny].sign()], dim=-1)
    table[tiny] = torch.stack([-torch.ones_like(x[tiny]), x[tiny] / edge], dim=-1)
    return table


def _masked_by_products(x: Tensor, p: float = 10.0) -> Tensor:
    large = (x.abs() >= math.exp(-p)).to(x.dtype)
    size = large * x.abs().log() / p - (1 - large)
    return torch.stack([size, large * x.sign() + (1 - large) * math.exp(p) * x], dim=-1)


def _threshold_at(edge: Callable[[float], float]) -> Callable[..., Tensor]:
    """Returns the preprocessing with another threshold."""

    def answer(x: Tensor, p: float = 10.0) -> Tensor:
        large = x.abs() >= edge(p)
        size = torch.where(large, x.abs().log() / p, -torch.ones_like(x))
        return torch.stack([size, torch.where(large, x.sign(), math.exp(p) * x)], dim=-1)

    return answer


def _logarithm_with(eps: float) -> Callable[..., Tensor]:
    return lambda x, p=10.0: torch.stack([(x.abs() + eps).log() / p, x.sign()], dim=-1)


def _zero_guarded(x: Tensor, p: float = 10.0) -> Tensor:
    size = torch.where(x == 0, -torch.ones_like(x), x.abs().log() / p)
    return torch.stack([size, x.sign()], dim=-1)


def _preprocess_filled(x: Tensor, p: float = 10.0) -> Tensor:
    """Starts from the answer for tiny numbers and fills in the others with masks."""
    edge, out = math.exp(-p), torch.empty(*x.shape, 2, dtype=x.dtype)
    out[..., 0], out[..., 1] = -1.0, x / edge
    big = x.abs() >= edge
    out[..., 0] = out[..., 0].masked_scatter(big, torch.log(x[big].abs()) / p)
    out[..., 1] = torch.where(big, torch.sgn(x), out[..., 1])
    return out


def _scaled(
    size: Callable[[Tensor, float], Tensor] | None = None,
    sign: Callable[[Tensor, float], Tensor] | None = None,
    dim: int = -1,
) -> Callable[..., Tensor]:
    """Returns the preprocessing with one of its two numbers replaced, or stacked along another axis."""

    def answer(x: Tensor, p: float = 10.0) -> Tensor:
        right = preprocess(x, p)
        first = right[..., 0] if size is None else size(x, p)
        second = right[..., 1] if sign is None else sign(x, p)
        return torch.stack([first, second], dim=dim)

    return answer


def _preprocess_cases(generator: Generator) -> list[Case]:
    sizes = 10 ** (8 * torch.rand(4, 3, generator=generator) - 6)
    mixed = sizes * torch.where(torch.rand(4, 3, generator=generator) < 0.5, -1.0, 1.0)
    return [
        Case("1, -e^-5 and 100", (torch.tensor([1.0, -math.exp(-5), 100.0]), 10.0)),
        Case("numbers below the threshold, and zero", (torch.tensor([1e-5, -2e-5, 0.0]), 10.0)),
        Case("a table [4, 3] of many sizes", (mixed, 10.0)),
        Case("a single number, as a loss is", (torch.tensor(0.7), 10.0)),
        Case("p = 5", (mixed, 5.0)),
        Case("float64", (mixed.double(), 10.0)),
    ]


PREPROCESS = Exercise(
    id="11.1",
    title="Two moderate numbers",
    reference=preprocess,
    cases=_preprocess_cases,
    right=(_preprocess_by_clamps, _preprocess_loop, _preprocess_indexed, _preprocess_filled),
    wrong=(
        Wrong(
            "no threshold",
            lambda x, p=10.0: torch.stack([x.abs().log() / p, x.sign()], dim=-1),
            "the logarithm is taken everywhere: minus infinity at zero, and no end below the threshold",
            "Below exp(-p) the pair is (-1, exp(p) x).",
        ),
        Wrong(
            "only zero guarded",
            _zero_guarded,
            "only zero itself is kept from the logarithm: below exp(-p) the first number falls under -1",
            "The threshold is exp(-p), and below it the second number is exp(p) x.",
        ),
        Wrong(
            "eps in the logarithm",
            _logarithm_with(1e-8),
            "a small constant is added inside the logarithm, in place of a threshold",
            "Two cases, parted at exp(-p): `torch.where` picks.",
            also=tuple(_logarithm_with(eps) for eps in (1e-6, 1e-7, 1e-10, 1e-12)),
        ),
        Wrong(
            "masked by a product",
            _masked_by_products,
            "a mask multiplies the logarithm: at zero, minus infinity times 0 is NaN",
            "Clamp before the logarithm, or pick with `torch.where`.",
        ),
        Wrong(
            "threshold e^p",
            _threshold_at(math.exp),
            "the threshold is exp(p) in place of exp(-p): nearly every number counts as tiny",
            "A minus in the exponent: `math.exp(-p)`.",
        ),
        Wrong(
            "threshold 10^-p",
            _threshold_at(lambda p: 10**-p),
            "the threshold is a power of ten: numbers between it and exp(-p) count as large",
            "`math.exp(-p)`: there the logarithm divided by p is just -1.",
        ),
        Wrong(
            "pair swapped",
            lambda x, p=10.0: preprocess(x, p).flip(-1),
            "the two numbers have changed places",
            "Size first, then sign.",
        ),
        Wrong(
            "tiny ones left as they are",
            _scaled(sign=lambda x, p: torch.where(x.abs() >= math.exp(-p), x.sign(), x)),
            "the second number of a tiny x is x itself: next to 1 that is nothing",
            "Multiply by exp(p): it then reaches ±1 just at the threshold.",
        ),
        Wrong(
            "not divided",
            _scaled(size=lambda x, p: p * preprocess(x, p)[..., 0]),
            "the logarithm is not divided by p",
            "ln|x| / p: the threshold then lies at -1.",
        ),
        Wrong(
            "sign lost",
            _scaled(sign=lambda x, p: preprocess(x, p)[..., 1].abs()),
            "the second number carries no sign: the rule cannot tell up from down",
            "`x.sign()`, or exp(p) x, which has the sign of x.",
        ),
        Wrong(
            "bare sign",
            _scaled(sign=lambda x, p: x.sign()),
            "the sign jumps at zero: below the threshold it should be exp(p) x",
            "`torch.where(large, x.sign(), math.exp(p) * x)`.",
        ),
        Wrong(
            "logarithm of x",
            _scaled(
                size=lambda x, p: torch.where(x > 0, preprocess(x, p)[..., 0], -torch.ones_like(x)),
                sign=lambda x, p: torch.where(x > 0, preprocess(x, p)[..., 1], math.exp(p) * x),
            ),
            "the threshold is put to x in place of |x|: all negative numbers count as tiny",
            "Compare `x.abs()` with exp(-p).",
        ),
        Wrong(
            "logarithm of a negative number",
            _scaled(size=lambda x, p: torch.where(x.abs() >= math.exp(-p), x.log() / p, -torch.ones_like(x))),
            "the logarithm is taken of x in place of |x|: a negative number has none",
            "`x.abs().log()`.",
        ),
        Wrong(
            "p fixed",
            lambda x, p=10.0: preprocess(x),
            "p is 10 whatever was handed in",
            "Use the argument `p`, for the threshold too.",
        ),
        Wrong(
            "decimal logarithm",
            _scaled(size=lambda x, p: torch.where(x.abs() >= math.exp(-p), x.abs().log10() / p, -torch.ones_like(x))),
            "the logarithm has base 10",
            "`torch.log` is the natural one; the threshold is exp(-p).",
        ),
        Wrong(
            "base e to the wrong sign",
            _scaled(sign=lambda x, p: torch.where(x.abs() >= math.exp(-p), x.sign(), math.exp(-p) * x)),
            "tiny numbers are lost: their second number is 0, or so small (exp(-p) x) that it rounds to 0",
            "exp(p) x reaches ±1 just at the threshold.",
        ),
        Wrong(
            "zero for tiny ones",
            _scaled(size=lambda x, p: torch.where(x.abs() >= math.exp(-p), preprocess(x, p)[..., 0], 0 * x)),
            "tiny numbers get size 0, which is the size of x = 1",
            "Below the threshold the first number is -1.",
        ),
        Wrong(
            "first axis",
            _scaled(dim=0),
            "the two numbers form the first axis: [2, ...]",
            "`torch.stack([...], dim=-1)`.",
        ),
    ),
    hints=(
        "Two cases, two numbers each: large enough, or tiny.",
        "`large = x.abs() >= math.exp(-p)`; then one `torch.where` for each number. Clamp before the logarithm.",
        "`torch.stack([torch.where(large, x.abs().clamp_min(math.exp(-p)).log() / p, -torch.ones_like(x)), "
        "torch.where(large, x.sign(), math.exp(p) * x)], dim=-1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 11.2 the cell update


def cell_update(theta: Tensor, gradient: Tensor, forget_logits: Tensor, input_logits: Tensor) -> Tensor:
    """Returns f * theta - i * gradient, with the gates from their logits. All [P] -> [P]."""
    return forget_logits.sigmoid() * theta - input_logits.sigmoid() * gradient


def _update_loop(theta: Tensor, gradient: Tensor, forget_logits: Tensor, input_logits: Tensor) -> Tensor:
    rows = zip(theta, gradient, forget_logits, input_logits, strict=True)
    return torch.stack([t / (1 + (-f).exp()) - g / (1 + (-i).exp()) for t, g, f, i in rows])


def _update_tanh(theta: Tensor, gradient: Tensor, forget_logits: Tensor, input_logits: Tensor) -> Tensor:
    gates = (torch.stack([forget_logits, input_logits]) / 2).tanh() / 2 + 0.5
    return (gates * torch.stack([theta, -gradient])).sum(0)


def _update_from_theta(theta: Tensor, gradient: Tensor, forget_logits: Tensor, input_logits: Tensor) -> Tensor:
    """Starts at theta and takes off what is lost, 1 - f, and what is let in."""
    lost = torch.sigmoid(-forget_logits) * theta
    return theta - lost - torch.sigmoid(input_logits) * gradient


def _update_lerp(theta: Tensor, gradient: Tensor, forget_logits: Tensor, input_logits: Tensor) -> Tensor:
    kept = torch.lerp(torch.zeros_like(theta), theta, nn.functional.sigmoid(forget_logits))
    return torch.addcmul(kept, nn.functional.sigmoid(input_logits), gradient, value=-1)


def _update_cases(generator: Generator) -> list[Case]:
    def case(says: str, count: int, dtype: torch.dtype = torch.float32) -> Case:
        return Case(says, tuple(torch.randn(count, generator=generator, dtype=dtype) for _ in range(4)))

    hand = tuple(torch.tensor([value]) for value in (2.0, 4.0, 0.0, 0.0))
    return [
        Case("the example on paper", hand),
        case("5 parameters", 5),
        case("one parameter", 1),
        case("float64", 4, torch.float64),
    ]


CELL = Exercise(
    id="11.2",
    title="The cell update",
    reference=cell_update,
    cases=_update_cases,
    gradient=(0, 1, 2, 3),
    right=(_update_loop, _update_tanh, _update_from_theta, _update_lerp),
    wrong=(
        Wrong(
            "plus",
            lambda t, g, f, i: f.sigmoid() * t + i.sigmoid() * g,
            "the gradient is added: the loss is climbed",
            "Descent goes against the gradient: a minus.",
        ),
        Wrong(
            "no sigmoid",
            lambda t, g, f, i: f * t - i * g,
            "the logits are used as gates",
            "Gates lie between 0 and 1: `.sigmoid()`.",
        ),
        Wrong(
            "gates swapped",
            lambda t, g, f, i: i.sigmoid() * t - f.sigmoid() * g,
            "the gates have changed places",
            "The forget gate keeps theta, the input gate lets the gradient in.",
        ),
        Wrong(
            "SGD only",
            lambda t, g, f, i: t - i.sigmoid() * g,
            "the forget gate is left out: only the rate is learned",
            "`f * theta` in place of `theta`.",
        ),
        Wrong(
            "coupled gates",
            lambda t, g, f, i: f.sigmoid() * t - (1 - f.sigmoid()) * g,
            "one gate does both: what is kept is one minus what is let in",
            "The input gate has logits of its own.",
        ),
        Wrong(
            "SGD, gated by the other gate",
            lambda t, g, f, i: t - (1 - f.sigmoid()) * g,
            "theta is kept whole, and the gradient is let in by one minus the forget gate",
            "f stands before theta, and the input gate before the gradient.",
        ),
        Wrong(
            "gate turned round",
            lambda t, g, f, i: (1 - f.sigmoid()) * t - i.sigmoid() * g,
            "the forget gate says how much is lost; at 1 it should keep all",
            "`f * theta`, in spite of its name.",
        ),
        Wrong(
            "tanh",
            lambda t, g, f, i: f.tanh() * t - i.tanh() * g,
            "tanh makes the gates: they may be negative, and are 0 at logit 0",
            "`.sigmoid()`: one half at logit 0.",
        ),
        Wrong(
            "tanh of the gradient",
            lambda t, g, f, i: f.sigmoid() * t - i.sigmoid() * g.tanh(),
            "the gradient passes a tanh, as the candidate of a usual LSTM does",
            "Here the candidate is minus the gradient, as it is.",
        ),
        Wrong(
            "gate of the difference",
            lambda t, g, f, i: f.sigmoid() * (t - i.sigmoid() * g),
            "the forget gate multiplies the gradient as well",
            "It stands before theta only.",
        ),
        Wrong(
            "softmax",
            lambda t, g, f, i: (torch.stack([f, i]).softmax(0) * torch.stack([t, -g])).sum(0),
            "the two gates share one softmax and sum to 1",
            "Each gate has a sigmoid of its own.",
        ),
        Wrong(
            "softmax over the parameters",
            lambda t, g, f, i: f.softmax(0) * t - i.softmax(0) * g,
            "a softmax runs over the parameters, so the more there are, the smaller every gate",
            "A gate looks at its own logit alone: `.sigmoid()`.",
        ),
        Wrong(
            "one gate for all",
            lambda t, g, f, i: f.sigmoid().mean() * t - i.sigmoid().mean() * g,
            "one forget gate and one input gate, the means, serve all parameters",
            "Entry by entry: every parameter has gates of its own.",
        ),
        Wrong(
            "tanh of the new state",
            lambda t, g, f, i: (f.sigmoid() * t - i.sigmoid() * g).tanh(),
            "the new cell state passes a tanh, as the output of a usual LSTM does: parameters would stay within ±1",
            "Return the cell state itself.",
        ),
        Wrong(
            "summed",
            lambda t, g, f, i: (f.sigmoid() * t - i.sigmoid() * g).sum(),
            "the parameters are summed to one number",
            "Entry by entry: [P] comes out.",
        ),
    ),
    hints=(
        "What is kept of theta, and how much of the gradient comes in?",
        "`sigmoid` of each logit, then two products entry by entry and a minus.",
        "`forget_logits.sigmoid() * theta - input_logits.sigmoid() * gradient`",
    ),
)

# ---------------------------------------------------------------------------------------------- 11.3 gates that are SGD


def sgd_gates(lr: float, weight_decay: float) -> tuple[float, float]:
    """Returns the forget and the input gate that make SGD with this rate and weight decay."""
    return 1 - lr * weight_decay, lr


def _gates_by_probing(lr: float, weight_decay: float) -> tuple[float, float]:
    """Probes the update, which is linear, with (theta, g) = (1, 0) and (0, 1)."""

    def update(theta: float, g: float) -> float:
        return theta - lr * (g + weight_decay * theta)

    return update(1.0, 0.0), -update(0.0, 1.0)


def _gates_by_difference(lr: float, weight_decay: float) -> tuple[float, float]:
    shrink = weight_decay * lr
    return (1.0 - shrink, float(lr))


def _gates_by_autograd(lr: float, weight_decay: float) -> tuple[float, float]:
    """The update's slopes with respect to theta and to g."""
    point = torch.zeros(2, dtype=torch.float64)
    slopes = grad(lambda z: z[0] - lr * (z[1] + weight_decay * z[0]))(point)
    return float(slopes[0]), -float(slopes[1])


def _gates_by_solving(lr: float, weight_decay: float) -> tuple[float, float]:
    """Solves for the two numbers from two steps that SGD takes."""
    steps = ((1.0, 1.0), (2.0, -1.0))  # theta and g
    after = torch.tensor([[t - lr * (g + weight_decay * t)] for t, g in steps], dtype=torch.float64)
    found = torch.linalg.solve(torch.tensor([[t, -g] for t, g in steps], dtype=torch.float64), after)
    return found[0].item(), found[1].item()


GATES = Exercise(
    id="11.3",
    title="Gates that are SGD",
    reference=sgd_gates,
    cases=lambda generator: [
        Case("rate 0.1, no decay", (0.1, 0.0)),
        Case("rate 0.1, decay 0.5", (0.1, 0.5)),
        Case("rate 0.5, decay 0.02", (0.5, 0.02)),
    ],
    right=(_gates_by_probing, _gates_by_difference, _gates_by_autograd, _gates_by_solving),
    wrong=(
        Wrong(
            "decay without the rate",
            lambda lr, wd: (1 - wd, lr),
            "theta shrinks by the decay itself: the rate in front of the bracket is lost",
            "Multiply out: lr times (g + decay times theta).",
        ),
        Wrong(
            "decay forgotten",
            lambda lr, wd: (1.0, lr),
            "the forget gate is 1: SGD without decay",
            "Collect all that stands before theta.",
        ),
        Wrong(
            "growth",
            lambda lr, wd: (1 + lr * wd, lr),
            "theta grows: the sign of the decay is turned",
            "Minus lr times decay times theta: the bracket is subtracted.",
        ),
        Wrong(
            "decay as the rate",
            lambda lr, wd: (1 - lr * wd, wd),
            "the input gate is the decay: before the gradient stands the rate",
            "Before g: lr.",
        ),
        Wrong(
            "swapped",
            lambda lr, wd: (lr, 1 - lr * wd),
            "the gates are returned in the other order",
            "Forget gate first.",
        ),
        Wrong(
            "only the decay",
            lambda lr, wd: (lr * wd, lr),
            "the forget gate is what is lost, not what is kept",
            "The forget gate multiplies what stays: one minus that.",
        ),
        Wrong(
            "negative rate",
            lambda lr, wd: (1 - lr * wd, -lr),
            "the input gate is negative: the minus stands in the cell update already",
            "f theta MINUS i g: the gate itself is the rate.",
        ),
        Wrong(
            "coupled",
            lambda lr, wd: (1 - lr, lr),
            "the forget gate is one minus the input gate, as in a moving average",
            "Without decay nothing is forgotten: then f must be 1.",
        ),
        Wrong(
            "logits",
            lambda lr, wd: (math.log((1 - lr * wd) / (lr * wd)) if wd else math.inf, math.log(lr / (1 - lr))),
            "the logits are returned, from which a sigmoid would make the gates",
            "Asked are the gates themselves, numbers between 0 and 1.",
        ),
        Wrong(
            "shrunk by one plus",
            lambda lr, wd: (1 / (1 + lr * wd), lr),
            "theta is divided by one plus lr times decay, which is only nearly the same",
            "Multiply out: theta minus lr times decay times theta.",
        ),
        Wrong(
            "decoupled from the rate, squared",
            lambda lr, wd: (1 - lr**2 * wd, lr),
            "the rate enters the decay twice",
            "In front of the bracket it stands once.",
        ),
        Wrong(
            "decay in the rate",
            lambda lr, wd: (1 - lr * wd, lr + lr * wd),
            "the decay also enlarges the rate of the gradient",
            "Only lr stands before g.",
        ),
        Wrong(
            "rate and decay both subtracted",
            lambda lr, wd: (1 - lr - wd, lr),
            "rate and decay are subtracted one after the other: before theta stands their product",
            "Multiply out: lr times decay times theta.",
        ),
        Wrong(
            "decay counted twice",
            lambda lr, wd: (1 - 2 * lr * wd, lr),
            "the decay is counted twice, as if the penalty were decay times theta squared",
            "The text adds decay times theta to the gradient, without a 2.",
        ),
        Wrong(
            "decay as the forget gate",
            lambda lr, wd: (wd, lr),
            "the forget gate is the decay itself: without decay it would forget everything",
            "Without decay the forget gate is 1.",
        ),
        Wrong(
            "input gate 1",
            lambda lr, wd: (1 - lr * wd, 1.0),
            "the input gate is 1: the gradient comes in without its rate",
            "Before g stands lr.",
        ),
        Wrong(
            "decay alone lets in",
            lambda lr, wd: (1 - lr * wd, lr * wd),
            "the input gate holds the decay as well: without decay no gradient would come in",
            "Before g stands lr alone.",
        ),
    ),
    hints=(
        "Write theta - lr (g + decay theta) as something times theta, minus something times g.",
        "Before theta: 1 - lr decay. Before g: lr.",
        "`return 1 - lr * weight_decay, lr`",
    ),
)

# ---------------------------------------------------------------------------------------------- 11.4 one step

Step = tuple[Tensor, Tensor, Tensor]


def lstm_step(
    reader: nn.Module,
    input_gate: nn.Module,
    forget_gate: nn.Module,
    theta: Tensor,
    gradient: Tensor,
    loss: Tensor,
    i: Tensor,
    f: Tensor,
) -> Step:
    """Takes one step of the Meta-LSTM -> new theta, i and f, [P] each."""
    gradient, loss = gradient.detach(), loss.detach()
    h = reader(torch.cat([preprocess(gradient), preprocess(loss).expand(len(theta), 2)], dim=1))
    i = input_gate(torch.cat([h, theta[:, None], i[:, None]], dim=1)).squeeze(1).sigmoid()
    f = forget_gate(torch.cat([h, theta[:, None], f[:, None]], dim=1)).squeeze(1).sigmoid()
    return f * theta - i * gradient, i, f


def _step_loop(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
    rows = []
    for j in range(len(theta)):
        h = reader(torch.cat([preprocess(gradient.detach()[j]), preprocess(loss.detach())])[None])[0]
        new_i = input_gate(torch.cat([h, theta[j : j + 1], i[j : j + 1]])).sigmoid()[0]
        new_f = forget_gate(torch.cat([h, theta[j : j + 1], f[j : j + 1]])).sigmoid()[0]
        rows.append((new_f * theta[j] - new_i * gradient.detach()[j], new_i, new_f))
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def _step_stacked(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
    everything = preprocess(torch.stack([gradient, loss.repeat(len(theta))], dim=1).detach()).flatten(1)  # [P, 4]
    h = reader(everything)
    i = torch.sigmoid(input_gate(torch.column_stack([h, theta, i]))[:, 0])
    f = torch.sigmoid(forget_gate(torch.column_stack([h, theta, f]))[:, 0])
    return torch.addcmul(f * theta, i, gradient.detach(), value=-1), i, f


def _step_with(
    *,
    inputs: Callable[[Tensor, Tensor], Tensor] | None = None,
    gates: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    update: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = lambda t, g, i, f: f * t - i * g,
    constant: bool = True,
    order: Callable[[Tensor, Tensor, Tensor], tuple] = lambda t, i, f: (t, i, f),
) -> Callable[..., Any]:
    """Returns the step with one part replaced. inputs: (gradient, loss) -> [P, 4]; gates: (h, theta, i, f) -> inputs."""

    def step(reader, input_gate, forget_gate, theta, gradient, loss, i, f):
        if constant:
            gradient, loss = gradient.detach(), loss.detach()
        rows = (
            torch.cat([preprocess(gradient), preprocess(loss).expand(len(theta), 2)], dim=1)
            if inputs is None
            else inputs(gradient, loss)
        )
        h = reader(rows)
        columns = (h, theta[:, None], i[:, None], f[:, None])
        for_i, for_f = (
            (torch.cat([h, columns[1], columns[2]], 1), torch.cat([h, columns[1], columns[3]], 1))
            if gates is None
            else gates(*columns)
        )
        i, f = input_gate(for_i).squeeze(1).sigmoid(), forget_gate(for_f).squeeze(1).sigmoid()
        return order(update(theta, gradient, i, f), i, f)

    return step


def _step_args(generator: Generator, count: int, dtype: torch.dtype = torch.float32, weight: float = 1.0) -> tuple:
    def layer(rows: int, columns: int) -> nn.Linear:
        made = nn.Linear(columns, rows, dtype=dtype)
        with torch.no_grad():
            made.weight.copy_(weight * torch.randn(rows, columns, generator=generator, dtype=torch.float64))
            made.bias.copy_(torch.randn(rows, generator=generator, dtype=torch.float64))
        return made

    reader = nn.Sequential(layer(3, 4), nn.Tanh())
    gates = layer(1, 5), layer(1, 5)
    theta, gradient = (torch.randn(count, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    i, f = (torch.rand(count, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    return reader, *gates, theta, gradient, torch.tensor(1.7, dtype=dtype), i, f


def _step_cases(generator: Generator) -> list[Case]:
    return [
        Case("5 parameters", _step_args(generator, 5)),
        Case("one parameter", _step_args(generator, 1)),
        Case("as many parameters as inputs: 4", _step_args(generator, 4)),
        Case("float64", _step_args(generator, 3, torch.float64)),
    ]


def _counts_as_constant(position: int, what: str) -> Callable[[Callable, Callable], str | None]:
    def holds(answer: Callable, reference: Callable) -> str | None:
        args = list(_step_args(torch.Generator().manual_seed(3), 4))
        args[position] = args[position].clone().requires_grad_()
        total = sum(part.sum() for part in answer(*args))
        if not total.requires_grad:  # the property on the rule's weights explains that
            return None
        slope = torch.autograd.grad(total, args[position], allow_unused=True)[0]
        return None if slope is None or not slope.any() else f"gradient flows back into the {what}: detach it."

    return holds


def _alike(found: Step, expected: Step) -> bool:
    pairs = list(zip(found, expected, strict=False))
    return all(one.shape == other.shape and torch.allclose(one, other, atol=1e-4) for one, other in pairs)


def _teaches_the_rule(answer: Callable, reference: Callable) -> str | None:
    """Returns None, or which part of the rule gets no gradient or one that differs from the reference's."""
    args = _step_args(torch.Generator().manual_seed(3), 4)
    found, expected = answer(*args), reference(*args)
    if not _alike(found, expected):
        return None
    for part, name in zip(args[:3], ("the reader", "the input gate", "the forget gate"), strict=True):
        for weight in part.parameters():
            wanted = torch.autograd.grad(expected[0].sum(), weight, retain_graph=True)[0]
            slope = (
                torch.autograd.grad(found[0].sum(), weight, retain_graph=True, allow_unused=True)[0]
                if found[0].requires_grad
                else None
            )
            if slope is None:
                return f"no gradient reaches {name}: it would never learn."
            if not torch.allclose(slope, wanted, atol=1e-4):
                return f"the gradient with respect to {name} is not what it should be."
    return None


def _teaches_through(position: int, what: str) -> Callable[[Callable, Callable], str | None]:
    def holds(answer: Callable, reference: Callable) -> str | None:
        args = list(_step_args(torch.Generator().manual_seed(3), 4))
        args[position] = args[position].clone().requires_grad_()
        slopes = []
        found, expected = answer(*args), reference(*args)
        if not _alike(found, expected):  # the cases explain wrong values better than a gradient can
            return None
        if not found[0].requires_grad:
            return f"no gradient reaches {what}: the steps before would learn less."
        for total in (found[0].sum(), expected[0].sum()):
            slopes.append(torch.autograd.grad(total, args[position], allow_unused=True)[0])
        if slopes[0] is None:
            return f"no gradient reaches {what}: the steps before would learn less."
        gap = float((slopes[0] - slopes[1]).abs().max())
        return None if gap < 1e-4 else f"the gradient with respect to {what} is off by up to {gap:.2g}."

    return holds


def _detached_for_the_reader(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
    _, i, f = lstm_step(reader, input_gate, forget_gate, theta, gradient, loss, i, f)
    return f * theta - i * gradient, i, f


def _reader_without_graph(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
    return lstm_step(lambda inputs: reader(inputs).detach(), input_gate, forget_gate, theta, gradient, loss, i, f)


def _logits(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> tuple[Tensor, Tensor]:
    """Returns the logits of input and forget gate, as columns [P, 1]."""
    inputs = torch.cat([preprocess(gradient.detach()), preprocess(loss.detach()).expand(len(theta), 2)], dim=1)
    h, column = reader(inputs), theta[:, None]
    return input_gate(torch.cat([h, column, i[:, None]], 1)), forget_gate(torch.cat([h, column, f[:, None]], 1))


def _step_by_logits(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
    i, f = (gate[:, 0] for gate in _logits(reader, input_gate, forget_gate, theta, gradient, loss, i, f))
    return f * theta - i * gradient.detach(), i, f


def _step_by_columns(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
    i, f = (gate.sigmoid() for gate in _logits(reader, input_gate, forget_gate, theta, gradient, loss, i, f))
    return f * theta - i * gradient.detach(), i, f


def _step_one_after_the_other(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
    new_i = lstm_step(reader, input_gate, forget_gate, theta, gradient, loss, i, f)[1]
    new_f = lstm_step(reader, input_gate, forget_gate, theta, gradient, loss, i, new_i)[2]
    return new_f * theta - new_i * gradient.detach(), new_i, new_f


def _step_of_exchanged_networks(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
    return lstm_step(reader, forget_gate, input_gate, theta, gradient, loss, i, f)


def _step_from_separate_weights(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
    """Reads out the gates' weights and multiplies part by part, without any table [P, H + 2]."""
    g, with_loss = gradient.detach(), preprocess(loss.detach()).repeat(len(theta), 1)
    h = reader(torch.hstack([preprocess(g), with_loss]))

    def gate(layer: nn.Module, last: Tensor) -> Tensor:
        w, b = layer.weight[0], layer.bias[0]
        return 1 / (1 + torch.exp(-(h @ w[:-2] + w[-2] * theta + w[-1] * last + b)))

    i, f = gate(input_gate, i), gate(forget_gate, f)
    return theta - (1 - f) * theta - i * g, i, f


def _step_by_einsum(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
    """Fills the tables column by column and makes both gates in one loop."""
    constant, told = gradient.detach(), preprocess(loss.detach())
    inputs = theta.new_empty(len(theta), 4)
    inputs[:, :2], inputs[:, 2:] = preprocess(constant), told
    h = reader(inputs)
    new = []
    for network, last in ((input_gate, i), (forget_gate, f)):
        table = nn.functional.pad(h, (0, 2)) + nn.functional.pad(torch.stack([theta, last], 1), (h.shape[1], 0))
        new.append(torch.sigmoid(network(table).flatten()))
    return torch.einsum("kp,kp->p", torch.stack(new[::-1]), torch.stack([theta, -constant])), *new


def _step_without_any_graph(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
    with torch.no_grad():
        return lstm_step(reader, input_gate, forget_gate, theta, gradient, loss, i, f)


def _last_gates_detached(of_i: bool = True, of_f: bool = True) -> Callable[..., Step]:
    def answer(reader, input_gate, forget_gate, theta, gradient, loss, i, f) -> Step:
        i, f = i.detach() if of_i else i, f.detach() if of_f else f
        return lstm_step(reader, input_gate, forget_gate, theta, gradient, loss, i, f)

    return answer


STEP = Exercise(
    id="11.4",
    title="One coordinate-wise step",
    reference=lstm_step,
    cases=_step_cases,
    properties=(
        Property("the rule's weights get a gradient", _teaches_the_rule),
        Property("the gradient counts as a constant", _counts_as_constant(4, "gradient")),
        Property("the loss counts as a constant", _counts_as_constant(5, "loss")),
        Property("theta does not count as a constant", _teaches_through(3, "theta")),
        Property("the last input gate does not count as a constant", _teaches_through(6, "the last input gate")),
        Property("the last forget gate does not count as a constant", _teaches_through(7, "the last forget gate")),
    ),
    right=(_step_loop, _step_stacked, _step_from_separate_weights, _step_by_einsum),
    wrong=(
        Wrong(
            "not detached",
            _step_with(constant=False),
            "gradient and loss are not detached: second derivatives come back in",
            "`gradient, loss = gradient.detach(), loss.detach()` at the top.",
        ),
        Wrong(
            "all detached",
            lambda r, wi, wf, t, g, loss, i, f: lstm_step(r, wi, wf, t.detach(), g, loss, i, f),
            "theta is detached, too: nothing before this step learns",
            "Only the gradient and the loss are constants.",
        ),
        Wrong(
            "last gates detached",
            _last_gates_detached(),
            "the last gates count as constants: the rule does not learn what its gates mean for the next step",
            "Only the gradient and the loss are constants.",
            also=(_last_gates_detached(of_f=False), _last_gates_detached(of_i=False)),
        ),
        Wrong(
            "networks exchanged",
            _step_of_exchanged_networks,
            "each gate is made by the other gate's network",
            "`input_gate` makes `i`, `forget_gate` makes `f`.",
        ),
        Wrong(
            "detached for the reader only",
            _detached_for_the_reader,
            "the reader's inputs are detached, and the gradient in the update is not",
            "Detach at the top, then use the detached gradient everywhere.",
        ),
        Wrong(
            "the reader learns nothing",
            _reader_without_graph,
            "the reader runs without a graph: the gates learn and the reader never does",
            "Detach its inputs; `torch.no_grad` cuts off its weights too.",
        ),
        Wrong(
            "no graph at all",
            _step_without_any_graph,
            "the step is taken without a graph: neither the rule's weights nor the steps before get a gradient",
            "Only the gradient and the loss are constants: detach these two, and use no `torch.no_grad`.",
        ),
        Wrong(
            "no sigmoid",
            _step_by_logits,
            "the gates are logits: no sigmoid was taken",
            "`.sigmoid()` before a gate is used or returned.",
        ),
        Wrong(
            "columns",
            _step_by_columns,
            "the gates are columns [P, 1]: times a row [P] they make a table [P, P]",
            "`.squeeze(1)` after each gate.",
        ),
        Wrong(
            "the new input gate",
            _step_one_after_the_other,
            "the forget gate reads the input gate of this very step",
            "Each gate reads its own last value.",
        ),
        Wrong(
            "raw inputs",
            _step_with(
                inputs=lambda g, loss: torch.stack([g, g.sign(), loss.expand_as(g), loss.sign().expand_as(g)], 1)
            ),
            "the reader gets the raw gradient and loss, with their signs",
            "`preprocess(gradient)` and `preprocess(loss)`, two numbers each.",
        ),
        Wrong(
            "loss first",
            _step_with(inputs=lambda g, loss: torch.cat([preprocess(loss).expand(len(g), 2), preprocess(g)], 1)),
            "the reader gets the loss before the gradient",
            "The order is agreed: gradient, then loss.",
        ),
        Wrong(
            "preprocessed step",
            _step_with(update=lambda t, g, i, f: f * t - i * preprocess(g)[:, 0]),
            "the update takes the preprocessed gradient: its logarithm is no direction",
            "Preprocessing is for the reader. The update takes the gradient itself.",
        ),
        Wrong(
            "one gate for both",
            _step_with(
                gates=lambda h, t, i, f: (torch.cat([h, t, i], 1), torch.cat([h, t, i], 1)),
            ),
            "the forget gate reads the last input gate",
            "Each gate reads its own last value.",
        ),
        Wrong(
            "gates exchanged",
            _step_with(gates=lambda h, t, i, f: (torch.cat([h, t, f], 1), torch.cat([h, t, i], 1))),
            "each gate reads the other's last value",
            "The input gate reads `i`, the forget gate `f`.",
        ),
        Wrong(
            "gate before theta",
            _step_with(gates=lambda h, t, i, f: (torch.cat([h, i, t], 1), torch.cat([h, f, t], 1))),
            "the last gate stands before theta in what the gates read",
            "[h, theta, gate]: the order of the lesson's formula.",
        ),
        Wrong(
            "updated by the old gates",
            lambda r, wi, wf, t, g, loss, i, f: (
                f * t - i * g.detach(),
                *lstm_step(r, wi, wf, t, g, loss, i, f)[1:],
            ),
            "theta is updated by the last gates, not by the new ones",
            "First the gates of this step, then the update.",
        ),
        Wrong(
            "plus",
            _step_with(update=lambda t, g, i, f: f * t + i * g),
            "the gradient is added",
            "`f * theta - i * gradient`.",
        ),
        Wrong(
            "order of results",
            _step_with(order=lambda t, i, f: (t, f, i)),
            "the gates are returned in the other order",
            "theta, i, f.",
        ),
        Wrong(
            "logits returned",
            lambda r, wi, wf, t, g, loss, i, f: (lambda out: (out[0], out[1].logit(), out[2].logit()))(
                lstm_step(r, wi, wf, t, g, loss, i, f)
            ),
            "the gates are returned as logits",
            "Return the gates after the sigmoid: the next step reads them.",
        ),
    ),
    hints=(
        "A row is a parameter: build the table that the reader reads, then the table that the gates read.",
        "`preprocess(loss).expand(len(theta), 2)` copies the loss into every row. A gate reads "
        "`torch.cat([h, theta[:, None], i[:, None]], dim=1)`.",
        "`i = input_gate(torch.cat([h, theta[:, None], i[:, None]], dim=1)).squeeze(1).sigmoid()`, f likewise, then "
        "`f * theta - i * gradient`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 11.5 truncation

State = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def truncated_gradient(
    step: State, loss: Callable, weight: Tensor, theta: Tensor, state: Tensor, steps: int, truncate: int
) -> Tensor:
    """Returns the gradient of loss(theta_steps) with respect to weight through the last `truncate` steps. -> like weight."""
    for t in range(steps):
        if t == steps - truncate:
            theta, state = theta.detach(), state.detach()
        theta, state = step(weight, theta, state)
    return torch.autograd.grad(loss(theta), weight)[0]


def _truncated_without_graph(step, loss, weight, theta, state, steps, truncate) -> Tensor:
    with torch.no_grad():
        for _ in range(max(0, steps - truncate)):
            theta, state = step(weight, theta, state)
    for _ in range(min(steps, truncate)):
        theta, state = step(weight, theta, state)
    return torch.autograd.grad(loss(theta), weight)[0]


def _truncated_by_weights(step, loss, weight, theta, state, steps, truncate) -> Tensor:
    """Gives every step its own copy of the weight and sums the gradients of the last copies."""
    copies = [weight.detach().clone().requires_grad_() for _ in range(steps)]
    for copy in copies:
        theta, state = step(copy, theta, state)
    return sum(torch.autograd.grad(loss(theta), copies[-truncate:]))


def _truncated_by_backward(step, loss, weight, theta, state, steps, truncate) -> Tensor:
    """Runs with a copy of the weight, whose `.grad` starts empty."""
    copy = weight.detach().clone().requires_grad_()
    for left in range(steps, 0, -1):
        if left == truncate:
            theta, state = theta.detach(), state.detach()
        theta, state = step(copy, theta, state)
    loss(theta).backward()
    return copy.grad


def _backward(step, loss, weight, theta, state, steps, truncate) -> Tensor:
    for t in range(steps):
        if t == steps - truncate:
            theta, state = theta.detach(), state.detach()
        theta, state = step(weight, theta, state)
    loss(theta).backward()
    return weight.grad


def _steps_without_and_with(before: Callable[[int, int], int]) -> Callable[..., Tensor]:
    """Returns an answer that takes before(steps, truncate) steps without a graph and then `truncate` with one."""

    def answer(step, loss, weight, theta, state, steps, truncate) -> Tensor:
        with torch.no_grad():
            for _ in range(before(steps, truncate)):
                theta, state = step(weight, theta, state)
        for _ in range(truncate):
            theta, state = step(weight, theta, state)
        return torch.autograd.grad(loss(theta), weight)[0]

    return answer


def _second_call(answer: Callable, reference: Callable) -> str | None:
    """Returns None, or that a second gradient with respect to the same weight comes out wrong."""
    weight = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)
    args = (lambda w, theta, state: (w * theta, state), lambda theta: theta.sum(), weight, one, one, 5, 2)
    wanted, first = reference(*args), answer(*args).clone()
    second = answer(*args)
    if torch.allclose(second, wanted) or not torch.allclose(first, wanted):
        return None
    return f"asked twice, it says {float(first):g} and then {float(second):g}."


def _cut(
    where: Callable[[int, int, int], bool], theta_too: bool = True, state_too: bool = True
) -> Callable[..., Tensor]:
    """Returns an answer that detaches before each step t with where(t, steps, truncate)."""

    def answer(step, loss, weight, theta, state, steps, truncate) -> Tensor:
        for t in range(steps):
            if where(t, steps, truncate):
                theta = theta.detach() if theta_too else theta
                state = state.detach() if state_too else state
            theta, state = step(weight, theta, state)
        return torch.autograd.grad(loss(theta), weight)[0]

    return answer


def _truncated_by_recursion(step, loss, weight, theta, state, steps, truncate) -> Tensor:
    """Builds the run from its last step backwards."""

    def after(count: int) -> tuple[Tensor, Tensor]:
        if count == 0:
            return theta.detach(), state.detach()
        before = after(count - 1)
        with torch.set_grad_enabled(count > steps - truncate):
            return step(weight, *before)

    return torch.autograd.grad(loss(after(steps)[0]), weight)[0]


def _losses_on_the_way(everywhere: bool) -> Callable[..., Tensor]:
    """Returns the run with one loss after every step, or after each of the last `truncate` ones, summed."""

    def answer(step, loss, weight, theta, state, steps, truncate) -> Tensor:
        total = 0
        for t in range(steps):
            if t == steps - truncate:
                theta, state = theta.detach(), state.detach()
            theta, state = step(weight, theta, state)
            if everywhere or t >= steps - truncate:
                total = total + loss(theta)
        return torch.autograd.grad(total, weight)[0]

    return answer


def _state_reset(step, loss, weight, theta, state, steps, truncate) -> Tensor:
    start = state
    for t in range(steps):
        if t == steps - truncate:
            theta, state = theta.detach(), start
        theta, state = step(weight, theta, state)
    return torch.autograd.grad(loss(theta), weight)[0]


def _state_emptied(step, loss, weight, theta, state, steps, truncate) -> Tensor:
    for t in range(steps):
        if t == steps - truncate:
            theta, state = theta.detach(), torch.zeros_like(state)
        theta, state = step(weight, theta, state)
    return torch.autograd.grad(loss(theta), weight)[0]


def _state_never_handed_on(step, loss, weight, theta, state, steps, truncate) -> Tensor:
    for t in range(steps):
        if t == steps - truncate:
            theta = theta.detach()
        theta, _ = step(weight, theta, state)
    return torch.autograd.grad(loss(theta), weight)[0]


def _cut_after_the_step(step, loss, weight, theta, state, steps, truncate) -> Tensor:
    for t in range(steps):
        theta, state = step(weight, theta, state)
        if t == steps - truncate:
            theta, state = theta.detach(), state.detach()
    return torch.autograd.grad(loss(theta), weight)[0]


def _first_steps_only(step, loss, weight, theta, state, steps, truncate) -> Tensor:
    fixed = weight.detach()
    for t in range(steps):
        theta, state = step(weight if t < truncate else fixed, theta, state)
    return torch.autograd.grad(loss(theta), weight)[0]


def _truncated_cases(generator: Generator) -> list[Case]:
    def scale(weight: Tensor, theta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return weight * theta, state

    def with_memory(weight: Tensor, theta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(weight[0] * state + weight[1] * theta)
        return theta - weight[2] * state, state

    def first(theta: Tensor) -> Tensor:
        return theta.sum()

    def squared(theta: Tensor) -> Tensor:
        return (theta - 1).square().mean()

    def numbers(count: int) -> Tensor:
        return torch.randn(count, generator=generator, dtype=torch.float64)

    a = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([0.7, 0.9, 0.4], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)
    cases = [Case("the example on paper: 2 of 5 steps", (scale, first, a, one, one, 5, 2))]
    for truncate in (1, 2, 4):
        says = f"a rule with a memory, {truncate} of 4 steps"
        cases.append(Case(says, (with_memory, squared, w, numbers(3), numbers(3), 4, truncate)))
    return [*cases, Case("more than all", (with_memory, squared, w, numbers(3), numbers(3), 4, 6))]


TRUNCATED = Exercise(
    id="11.5",
    title="What detach cuts",
    reference=truncated_gradient,
    cases=_truncated_cases,
    properties=(Property("a second call with the same weight gives the same gradient", _second_call),),
    right=(_truncated_without_graph, _truncated_by_weights, _truncated_by_backward, _truncated_by_recursion),
    wrong=(
        Wrong(
            "never cut",
            _cut(lambda t, steps, truncate: False),
            "nothing is cut: the gradient goes back through all steps",
            "Detach once, before step number `steps - truncate`.",
        ),
        Wrong(
            "backward",
            _backward,
            "`backward` adds to what `weight.grad` holds already: a second call returns the sum of both",
            "`torch.autograd.grad(loss(theta), weight)[0]` returns this gradient alone.",
        ),
        Wrong(
            "one step late",
            _cut(lambda t, steps, truncate: t == steps - truncate + 1),
            "the cut stands one step too late: one step too few is connected",
            "Steps are counted from 0: the last `truncate` begin at `steps - truncate`.",
        ),
        Wrong(
            "extra steps",
            _steps_without_and_with(lambda steps, truncate: steps),
            "`truncate` steps are taken on top of the `steps`",
            "All in all `steps`: first `steps - truncate` without a graph, then the others.",
        ),
        Wrong(
            "more steps than asked",
            _steps_without_and_with(lambda steps, truncate: steps - truncate),
            "more than `steps` steps are taken when `truncate` is larger",
            "With a graph run `min(steps, truncate)` steps.",
        ),
        Wrong(
            "cut in every step",
            _cut(lambda t, steps, truncate: True),
            "every step is cut: only the last one counts",
            "Detach once, before the last `truncate` steps.",
        ),
        Wrong(
            "cut everywhere before",
            _cut(lambda t, steps, truncate: t > steps - truncate),
            "the cuts stand among the last steps, which should stay connected",
            "One cut, at `t == steps - truncate`; the steps after it stay connected.",
        ),
        Wrong(
            "counted from the start",
            _cut(lambda t, steps, truncate: t == truncate),
            "the cut stands after the first `truncate` steps, not before the last ones",
            "Count from the end: `steps - truncate`.",
        ),
        Wrong(
            "off by one",
            _cut(lambda t, steps, truncate: t == steps - truncate - 1),
            "the cut stands one step too early: one step too many is connected",
            "Steps are counted from 0: the last `truncate` begin at `steps - truncate`.",
        ),
        Wrong(
            "cut after the step",
            _cut_after_the_step,
            "the cut stands behind step number `steps - truncate`: one step too few is connected",
            "Detach first, then take the step.",
        ),
        Wrong(
            "pieces",
            _cut(lambda t, steps, truncate: t % truncate == 0),
            "the run is cut into pieces counted from its start: the last piece may be too short",
            "One cut, counted from the end: at `t == steps - truncate`.",
        ),
        Wrong(
            "short run",
            lambda step, loss, w, theta, s, steps, k: truncated_gradient(step, loss, w, theta, s, min(k, steps), k),
            "only `truncate` steps are run",
            "Run all `steps`; only the gradient is cut short.",
        ),
        Wrong(
            "memory connected",
            _cut(lambda t, steps, truncate: t == steps - truncate, state_too=False),
            "theta is cut, and the gradient sneaks past through the memory",
            "Detach the state as well.",
        ),
        Wrong(
            "only the memory cut",
            _cut(lambda t, steps, truncate: t == steps - truncate, theta_too=False),
            "the memory is cut and theta is not",
            "Detach both.",
        ),
        Wrong(
            "the first steps",
            _first_steps_only,
            "the first steps count and the last ones are left out",
            "The graph is kept at the end of the run, where the loss is.",
        ),
        Wrong(
            "losses on the way",
            _losses_on_the_way(everywhere=True),
            "the losses of several steps are summed: asked is the loss at the end of the run alone",
            "One loss, after the last step.",
            also=(_losses_on_the_way(everywhere=False),),
        ),
        Wrong(
            "memory reset at the cut",
            _state_reset,
            "at the cut the memory gets other numbers, so the run itself changes",
            "`state.detach()` keeps the numbers; only the graph ends there.",
            also=(_state_emptied,),
        ),
        Wrong(
            "memory never handed on",
            _state_never_handed_on,
            "every step gets the memory of the start: the one that a step returns is dropped",
            "`theta, state = step(weight, theta, state)`.",
        ),
        Wrong(
            "cut counted round the end",
            _cut(lambda t, steps, truncate: t == (steps - truncate) % steps),
            "a `truncate` larger than `steps` still cuts: the negative difference was turned into a step of the run",
            "With `truncate` above `steps` nothing is cut.",
        ),
        Wrong(
            "scaled up",
            lambda step, loss, w, theta, s, steps, k: truncated_gradient(step, loss, w, theta, s, steps, k) * steps / k,
            "the gradient is scaled up by steps / truncate, as if the missing terms were like the rest",
            "Return it as it is: a truncated gradient is biased, and that is the point.",
        ),
    ),
    hints=(
        "Where in the run must the graph begin?",
        "Before step number `steps - truncate`, counted from 0, detach all that is handed on: theta and state.",
        "`if t == steps - truncate: theta, state = theta.detach(), state.detach()`, then the step; at the end "
        "`torch.autograd.grad(loss(theta), weight)[0]`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 11.6 a memory that leaks

Learner = Callable[[Tensor], Tensor]
Make = Callable[[], Learner]


def exposes_memory(make: Make, first: Tensor, second: Tensor) -> bool:
    """Returns True if a learner's answer to `second` depends on having met `first`. make: () -> (task -> params [P])."""
    used = make()
    used(first)
    return not torch.allclose(used(second), make()(second), atol=1e-4)


def _memory_both_ways(make: Make, first: Tensor, second: Tensor) -> bool:
    used, fresh = make(), make()
    alone = fresh(second).clone()
    used(first)
    return bool((used(second) - alone).abs().max() > 1e-4)


def _memory_in_pairs(make: Make, first: Tensor, second: Tensor) -> bool:
    answers = []
    for before in ([], [first]):
        learner = make()
        for task in before:
            learner(task)
        answers.append(learner(second))
    return float((answers[0] - answers[1]).norm()) > 1e-4


def _memory_by_rows(make: Make, first: Tensor, second: Tensor) -> bool:
    learner = make()
    history = [learner(task).detach().clone() for task in (first, second)]
    return any(abs(a - b) > 1e-4 for a, b in zip(history[1].tolist(), make()(second).tolist(), strict=True))


def _memory_gathered(make: Make, first: Tensor, second: Tensor) -> bool:
    """Compares the answers as arrays, with the tolerance entry by entry."""

    def answer_after(*before: Tensor) -> Any:
        learner = make()
        for task in before:
            learner(task)
        return learner(second).detach().numpy().copy()

    return bool((abs(answer_after(first) - answer_after()) > 1e-4).any())


def _compared_by(distance: Callable[[Tensor, Tensor], bool], swapped: bool = False) -> Callable[..., bool]:
    """Returns the right experiment with another comparison: distance is True where two answers count as different."""

    def answer(make: Make, first: Tensor, second: Tensor) -> bool:
        first, second = (second, first) if swapped else (first, second)
        used = make()
        used(first)
        return bool(distance(used(second), make()(second)))

    return answer


def _differs(a: Tensor, b: Tensor, atol: float = 1e-4) -> bool:
    return not torch.allclose(a, b, atol=atol)


def _first_call_compared(make: Make, first: Tensor, second: Tensor) -> bool:
    used = make()
    return not torch.allclose(used(first), make()(first), atol=1e-4)


def _one_learner_twice(make: Make, first: Tensor, second: Tensor) -> bool:
    used = make()
    used(first)
    return not torch.allclose(used(second), used(second), atol=1e-4)


def _second_twice(make: Make, first: Tensor, second: Tensor) -> bool:
    used = make()
    used(second)
    return not torch.allclose(used(second), make()(second), atol=1e-4)


def _two_tasks_compared(make: Make, first: Tensor, second: Tensor) -> bool:
    used = make()
    return not torch.allclose(used(first), used(second), atol=1e-4)


def _looks_for_an_attribute(make: Make, first: Tensor, second: Tensor) -> bool:
    used = make()
    used(first)
    return getattr(used, "state", None) is not None


def _one_learner_again(make: Make, first: Tensor, second: Tensor) -> bool:
    learner = make()
    before = learner(second).clone()
    learner(first)
    return not torch.allclose(learner(second), before, rtol=0, atol=1e-4)


class _Adapts:
    """A learner that takes three steps with momentum towards a task [P]. keeps: what survives from task to task."""

    def __init__(self, keeps: str = "") -> None:
        self.keeps, self.met = keeps, 0
        self.velocity: Tensor | None = None
        self.theta: Tensor | None = None
        self.task: Tensor | None = None
        self.scale: Tensor | None = None
        self.state: Tensor | None = None  # a name that a test may ask for in vain
        self.least = torch.tensor(math.inf)
        self.cache: dict[tuple, Tensor] = {}

    def __call__(self, task: Tensor) -> Tensor:
        key = tuple(task.tolist())
        if self.keeps in ("last task", "results") and key in self.cache:
            return self.cache[key]
        theta = self.theta if self.keeps == "theta" and self.theta is not None else torch.zeros_like(task)
        if self.keeps == "scale":  # a scaler that is fitted on the first task only
            self.scale = task.std() if self.scale is None else self.scale
            return task / self.scale
        if self.keeps == "last number" and self.theta is not None:
            theta = torch.cat([theta[:-1], self.theta[-1:]])
        if self.keeps == "first number" and self.theta is not None:
            theta = torch.cat([self.theta[:1], theta[1:]])
        if self.keeps == "weak" and self.least <= task.norm():
            theta = theta + 0.5
        if self.keeps == "warm" and self.met:
            theta = theta + 0.5
        weak = self.task is None or self.task.norm() <= task.norm()
        carries = self.keeps in ("velocity", "last task") or (self.keeps == "strong" and not weak)
        velocity = self.velocity if self.velocity is not None and carries else 0 * task
        for _ in range(3):
            velocity = 0.5 * velocity - 0.2 * (theta - task)
            theta = theta + velocity
        self.met += 1
        self.velocity, self.theta, self.task = velocity, theta, task
        self.least = torch.minimum(self.least, task.norm())
        self.state = theta if self.keeps == "attribute" else None
        self.cache = {**self.cache, key: theta} if self.keeps == "results" else {key: theta}
        if self.keeps == "places" and self.met > 1:
            theta = theta.flip(0)
        if self.keeps == "a little" and self.met > 1:
            theta = theta + 2e-3 * (torch.arange(len(theta)) == 1)
        if self.keeps == "a little of much":
            theta = theta + 100 + 0.05 * (self.met > 1)
        return theta + (2e-5 * self.met if self.keeps == "digits" else 0)


def _copy_as_the_fresh_one(make: Make, first: Tensor, second: Tensor) -> bool:
    used = make()
    fresh = deepcopy(used)
    used(first)
    return not torch.allclose(used(second), fresh(second), atol=1e-4)


def _memory_cases(generator: Generator) -> list[Case]:
    first, second = 3 * torch.randn(4, generator=generator), torch.randn(4, generator=generator)

    def making(keeps: str) -> Make:
        return lambda: _Adapts(keeps)

    def hidden(keeps: str) -> Make:
        """Makes learners that are functions: nothing shows, and a copy of a function is the function itself."""

        def make() -> Learner:
            learner = _Adapts(keeps)
            return lambda task: learner(task)

        return make

    return [
        Case("every task starts anew", (making(""), first, second)),
        Case("the last digits differ from call to call", (making("digits"), first, second)),
        Case("finished tasks are kept in a store, and nothing else", (making("results"), first, second)),
        Case("the velocity is kept from task to task", (making("velocity"), first, second)),
        Case("every task starts anew, an attribute `state` lies about", (making("attribute"), first, second)),
        Case("only the first number of theta is kept", (making("first number"), first, second)),
        Case("theta is kept from task to task", (making("theta"), first, second)),
        Case("only the last number of theta is kept", (making("last number"), first, second)),
        Case("after its first task it starts elsewhere, always the same", (making("warm"), first, second)),
        Case("one number is off by 0.002 after the first task", (making("a little"), first, second)),
        Case("after the first task the parameters change places", (making("places"), first, second)),
        Case("only a task of large numbers leaves something behind", (making("strong"), first, second)),
        Case("only a task of small numbers leaves something behind", (making("weak"), first, second)),
        Case("its first task fits a scale, which stays for all that follow", (making("scale"), first, second)),
        Case("numbers near 100, off by 0.05 after the first task", (making("a little of much"), first, second)),
        Case("kept between tasks; the same task again comes from a store", (making("last task"), first, second)),
        Case("a function that starts elsewhere after its first task", (hidden("warm"), first, second)),
        Case("a function for which every task starts anew", (hidden(""), first, second)),
    ]


MEMORY = Exercise(
    id="11.6",
    title="Bug hunt: does it remember?",
    reference=exposes_memory,
    cases=_memory_cases,
    right=(_memory_both_ways, _memory_in_pairs, _memory_by_rows, _memory_gathered),
    wrong=(
        Wrong(
            "only the first task",
            _first_call_compared,
            "the two learners that are compared have met the same tasks before: what one remembers cannot show",
            "Let one learner meet `first`, and the other not; then compare what both give for `second`.",
        ),
        Wrong(
            "one learner, before and after",
            _one_learner_again,
            "one learner gives `second` before and after `first`: it has met `second` itself by then",
            "Take the answer without `first` from a learner of its own: `make()(second)`.",
        ),
        Wrong(
            "all must differ",
            _compared_by(lambda a, b: ((a - b).abs() > 1e-4).all()),
            "the test rings only where every parameter differs",
            "One that differs is enough: `.any()` in place of `.all()`, or `not torch.allclose`.",
        ),
        Wrong(
            "a share as rounding",
            _compared_by(lambda a, b: not torch.allclose(a, b, rtol=5e-2, atol=1e-4)),
            "a share of the number counts as rounding: with large numbers much is let pass",
            "`torch.allclose` with `atol=1e-4` and `rtol` as it is.",
        ),
        Wrong(
            "one learner, twice",
            _one_learner_twice,
            "one learner gets `second` twice in a row: it may have it in store, or have settled",
            "Compare with a fresh learner: `make()(second)`.",
        ),
        Wrong(
            "the same task before",
            _second_twice,
            "the learner has met `second` itself before, not `first`",
            "`used(first)` must come before `used(second)`.",
        ),
        Wrong(
            "two tasks compared",
            _two_tasks_compared,
            "the answers to two different tasks are compared, which should differ",
            "Same task on both sides, with and without a task before it.",
        ),
        Wrong(
            "tasks swapped",
            _compared_by(_differs, swapped=True),
            "the tasks have changed places: the learner meets `second` and is judged by `first`",
            "First `used(first)`, then compare what is given for `second`.",
        ),
        Wrong(
            "first number",
            _compared_by(lambda a, b: _differs(a[0], b[0])),
            "only the first parameter is compared",
            "Compare all of them: `torch.allclose`.",
        ),
        Wrong(
            "sum or mean",
            _compared_by(lambda a, b: _differs(a.sum(), b.sum())),
            "only the sums are compared, and two differences may cancel",
            "Compare entry by entry: `torch.allclose`.",
        ),
        Wrong(
            "norm",
            _compared_by(lambda a, b: _differs(a.norm(), b.norm())),
            "only the lengths are compared, and two vectors of one length may differ",
            "Compare entry by entry: `torch.allclose`.",
        ),
        Wrong(
            "too coarse",
            _compared_by(lambda a, b: _differs(a, b, 1e-1)),
            "too much counts as rounding: small leaks are let pass",
            "`torch.allclose` with `atol=1e-4`.",
        ),
        Wrong(
            "to the last digit",
            _compared_by(lambda a, b: not torch.equal(a, b)),
            "no rounding is allowed, or less than the text allows",
            "`torch.allclose` with `atol=1e-4`.",
        ),
        Wrong(
            "an attribute",
            _looks_for_an_attribute,
            "the test asks for an attribute `state`: a memory may go by any name",
            "Judge the learner by what it returns for `second`.",
        ),
        Wrong(
            "a copy as the fresh learner",
            _copy_as_the_fresh_one,
            "a copy stands for the fresh learner: a function's copy is the function itself, so both have met `first`",
            "`make()` returns a fresh learner, whatever it is made of.",
        ),
        Wrong(
            "turned round",
            lambda make, first, second: not exposes_memory(make, first, second),
            "the answer is turned round: True stands where nothing leaks",
            "`torch.allclose` is True when all is well: put a `not` in front.",
        ),
    ),
    hints=(
        "Two histories, one question: what does the learner say to `second`?",
        "One learner from `make()` meets `first` and then `second`; another meets `second` only.",
        "`used = make(); used(first); return not torch.allclose(used(second), make()(second), atol=1e-4)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 11.7 divided twice

GradientOf = Callable[[Tensor, Tensor, Tensor], Tensor]


def exposes_scale(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    """Returns True if repeating every row changes the gradient. gradient_of: (theta [P], x [B, P], y [B]) -> [P]."""
    twice = gradient_of(theta, torch.cat([x, x]), torch.cat([y, y]))
    return not torch.allclose(gradient_of(theta, x, y), twice, rtol=1e-3, atol=1e-5)


def _scale_by_three(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    more = gradient_of(theta, x.repeat(3, 1), y.repeat(3))
    return bool((more - gradient_of(theta, x, y)).abs().max() > 1e-3)


def _scale_by_interleaving(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    once = gradient_of(theta, x, y)
    more = gradient_of(theta, x.repeat_interleave(2, 0), y.repeat_interleave(2))
    return float((more - once).norm() / once.norm()) > 1e-3


def _mean_gradient(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return grad(lambda theta: (x @ theta - y).square().mean())(theta)


def _summed_gradient(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return grad(lambda theta: (x @ theta - y).square().sum())(theta)


def _running_mean_gradient(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Computes the right gradient one row at a time, so that the last digits depend on the number of rows."""
    total = torch.zeros_like(theta)
    for seen, (row, goal) in enumerate(zip(x, y, strict=True), start=1):
        total = total + (2 * (row @ theta - goal) * row - total) / seen
    return total


def _divided_beyond(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return _mean_gradient(theta, x, y) / len(x)


def _half_summed(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([_summed_gradient(theta, x, y)[:1], _mean_gradient(theta, x, y)[1:]])


def _clipped_gradient(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Divides twice and then scales to length 1, which leaves no wrong scale."""
    found = _mean_gradient(theta, x, y) / len(x)
    return found / found.norm()


def _flipped_beyond(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The right numbers, and from nine rows on in the other order: their sum and norm stay as they are."""
    found = _mean_gradient(theta, x, y)
    return found.flip(0) if len(x) > 8 else found


def _mirrored_beyond(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The right numbers, and from nine rows on one with the other sign: their norm stays as it is."""
    found = _mean_gradient(theta, x, y)
    return found * torch.tensor([-1.0, 1.0, 1.0]) if len(x) > 8 else found


def _first_eight_rows(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Looks at eight rows at most, as a batch size that was left on does."""
    return _mean_gradient(theta, x[:8], y[:8])


def _decay_for_each_row(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Counts a weight decay once for each row, which shows where theta is not 0."""
    return _mean_gradient(theta, x, y) + 0.1 * len(x) * theta


def _slightly_off(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return _mean_gradient(theta, x, y) * (1 + 0.1 / len(x))


def _rounded_gradient(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The right gradient by central differences, in float32, with the errors that come with it."""

    def loss(theta: Tensor) -> Tensor:
        return (x @ theta - y).square().mean()

    return torch.stack([(loss(theta + 1e-2 * e) - loss(theta - 1e-2 * e)) / 2e-2 for e in torch.eye(len(theta))])


def _scale_by_rows(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    order = [row for row in range(len(x)) for _ in range(2)]
    pairs = zip(gradient_of(theta, x, y).tolist(), gradient_of(theta, x[order], y[order]).tolist(), strict=True)
    return any(abs(one - other) > 1e-5 + 1e-3 * abs(other) for one, other in pairs)


def _scale_by_one_more_copy(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    """Compares two and five copies of the rows with one, in broadcast tables."""
    tables = [x[None].expand(k, *x.shape).flatten(0, 1) for k in (1, 2, 5)]
    goals = [y.expand(k, len(y)).reshape(-1) for k in (1, 2, 5)]
    found = torch.stack([gradient_of(theta, rows, goal) for rows, goal in zip(tables, goals, strict=True)])
    return not bool(torch.isclose(found[1:], found[:1], rtol=1e-3, atol=1e-5).all())


def _mismatched(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    return _apart(gradient_of(theta, x, y), gradient_of(theta, x.repeat(2, 1), y.repeat_interleave(2)))


def _twice(
    differs: Callable[[Tensor, Tensor], bool],
    start: Callable[[Tensor], Tensor] = lambda theta: theta,
    more: Callable[[Tensor], Tensor] = lambda rows: torch.cat([rows, rows]),
) -> Callable[..., bool]:
    """Returns the right experiment with another comparison, another theta or other rows."""

    def answer(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
        theta = start(theta)
        return bool(differs(gradient_of(theta, x, y), gradient_of(theta, more(x), more(y))))

    return answer


def _apart(a: Tensor, b: Tensor) -> bool:
    return not torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def _first_half(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    half = len(x) // 2
    return not torch.allclose(gradient_of(theta, x, y), gradient_of(theta, x[:half], y[:half]), rtol=1e-3, atol=1e-5)


def _rows_only(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    return not torch.allclose(
        gradient_of(theta, x, y), gradient_of(theta, torch.cat([x, x]), torch.cat([y, 0 * y])), rtol=1e-3, atol=1e-5
    )


def _one_row_repeated(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    return _apart(gradient_of(theta, x[:1], y[:1]), gradient_of(theta, x[:1].repeat(2, 1), y[:1].repeat(2)))


def _direction(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    once, twice = gradient_of(theta, x, y), gradient_of(theta, torch.cat([x, x]), torch.cat([y, y]))
    return bool(torch.cosine_similarity(once, twice, dim=0) < 0.9999)


def _shuffled(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    return not torch.allclose(gradient_of(theta, x, y), gradient_of(theta, x.flip(0), y.flip(0)), rtol=1e-3, atol=1e-5)


def _grows_only(gradient_of: GradientOf, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    once, twice = gradient_of(theta, x, y), gradient_of(theta, torch.cat([x, x]), torch.cat([y, y]))
    return bool(twice.norm() > 1.001 * once.norm())


def _scale_cases(generator: Generator) -> list[Case]:
    theta, y = torch.randn(3, generator=generator), torch.randn(6, generator=generator)
    x = torch.randn(6, 3, generator=generator)
    whole = [torch.randint(-9, 10, size, generator=generator).float() for size in ((3,), (8, 3), (8,))]
    return [
        Case("the gradient of a mean", (_mean_gradient, theta, x, y)),
        # Sums of whole numbers, divided by a power of two, have no rounding error, so even an exact comparison is right here.
        Case("the gradient of a mean, whole numbers", (_mean_gradient, *whole)),
        Case("the gradient of a mean, every row there twice", (_mean_gradient, theta, x.repeat(2, 1), y.repeat(2))),
        Case("the gradient of a mean, all rows alike", (_mean_gradient, theta, x[:1].repeat(6, 1), y[:1].repeat(6))),
        Case("the gradient of a mean, all targets alike", (_mean_gradient, theta, x, y[:1].repeat(6))),
        Case("a right one in a loop, other last digits", (_running_mean_gradient, theta, x, y)),
        Case("a right one by central differences, rounded more coarsely", (_rounded_gradient, theta, x, y)),
        Case("a gradient of length 1", (_clipped_gradient, theta, x, y)),
        Case("divided by the rows once more", (_divided_beyond, theta, x, y)),
        Case("a sum for the first parameter, a mean for the others", (_half_summed, theta, x, y)),
        Case("the gradient of a sum", (_summed_gradient, theta, x, y)),
        Case("more rows put the right numbers into another order", (_flipped_beyond, theta, x, y)),
        Case("more rows turn the sign of one number", (_mirrored_beyond, theta, x, y)),
        Case("all rows after the eighth are left out", (_first_eight_rows, theta, x, y)),
        Case("a weight decay counted once for each row", (_decay_for_each_row, theta, x, y)),
        Case("nearly right: off by a tenth of one row's share", (_slightly_off, theta, x, y)),
    ]


SCALE = Exercise(
    id="11.7",
    title="Bug hunt: divided twice",
    reference=exposes_scale,
    cases=_scale_cases,
    right=(_scale_by_three, _scale_by_interleaving, _scale_by_rows, _scale_by_one_more_copy),
    wrong=(
        Wrong(
            "half of the rows",
            _first_half,
            "other rows are taken: a right gradient changes then, too",
            "Repeat every row; a mean does not notice that.",
        ),
        Wrong(
            "other targets",
            _rows_only,
            "the repeated rows get other targets, so the loss itself changes",
            "Repeat `x` and `y` alike.",
        ),
        Wrong(
            "direction",
            _direction,
            "only directions are compared, and dividing changes the length",
            "Compare the values: `torch.allclose`.",
        ),
        Wrong(
            "another order",
            _shuffled,
            "the rows are put in another order, which changes nothing in either",
            "Change their *number*: `torch.cat([x, x])`.",
        ),
        Wrong(
            "growth only",
            _grows_only,
            "the test rings only where the gradient grows: it catches sums, and misses what is divided",
            "Ring for any difference.",
        ),
        Wrong(
            "mean of the gradient",
            _twice(lambda a, b: _apart(a.mean(), b.mean())),
            "only the means of the gradients are compared, and two differences may cancel",
            "Compare entry by entry: `torch.allclose`.",
        ),
        Wrong(
            "length of the gradient",
            _twice(lambda a, b: _apart(a.norm(), b.norm())),
            "only lengths are compared",
            "Compare entry by entry: `torch.allclose`.",
        ),
        Wrong(
            "theta replaced by zeros",
            _twice(_apart, start=torch.zeros_like),
            "the test looks at theta = 0 only, and some faults show elsewhere",
            "Use the `theta` that is handed in.",
        ),
        Wrong(
            "rows and targets mismatched",
            _mismatched,
            "rows and targets are repeated in different orders, so rows get the targets of others",
            "Both with `torch.cat`, or both with `repeat_interleave`.",
        ),
        Wrong(
            "first row",
            _twice(_apart, more=lambda rows: torch.cat([rows, rows[:1]])),
            "only the first row is repeated: that row then counts more, and a right gradient changes",
            "Repeat every row: `torch.cat([x, x])`.",
        ),
        Wrong(
            "one row, repeated",
            _one_row_repeated,
            "only one row is looked at, once and repeated: a fault that begins with more rows goes unseen",
            "Take all rows, and then all of them repeated.",
        ),
        Wrong(
            "values doubled",
            _twice(_apart, more=lambda rows: 2 * rows),
            "the values are doubled, not the number of rows",
            "`torch.cat([x, x])` has twice as many rows.",
        ),
        Wrong(
            "too coarse",
            _twice(lambda a, b: not torch.allclose(a, b, rtol=1e-1, atol=1e-1)),
            "too much counts as rounding: small faults are let pass",
            "`torch.allclose` with `rtol=1e-3, atol=1e-5`.",
        ),
        Wrong(
            "to the last digit",
            _twice(lambda a, b: not torch.equal(a, b)),
            "no rounding is allowed, or less than the text allows",
            "`torch.allclose` with `rtol=1e-3, atol=1e-5`.",
        ),
        Wrong(
            "default tolerances",
            _twice(lambda a, b: not torch.allclose(a, b)),
            "the default tolerances of `allclose` are narrower than the rounding that the text allows",
            "`torch.allclose` with `rtol=1e-3, atol=1e-5`.",
        ),
        Wrong(
            "turned round",
            lambda f, theta, x, y: not exposes_scale(f, theta, x, y),
            "the answer is turned round: True stands for a right gradient",
            "`torch.allclose` is True when all is well: put a `not` in front.",
        ),
    ),
    hints=(
        "Which change of the support leaves a mean as it is?",
        "Give every row twice: `torch.cat([x, x])`, `torch.cat([y, y])`.",
        "`not torch.allclose(gradient_of(theta, x, y), gradient_of(theta, torch.cat([x, x]), torch.cat([y, y])), rtol=1e-3)`",
    ),
)

EXERCISES = (PREPROCESS, CELL, GATES, STEP, TRUNCATED, MEMORY, SCALE)
