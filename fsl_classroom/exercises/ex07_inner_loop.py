"""Exercises of lesson 07: functional calls, the inner step and loop, the mean curve, rates, a detector, the loop from memory.

Cases: 07.2 and 07.3 share their losses (`_by_hand`, `_curved`) and starts; all others build their own, with nets from `_seeded`
in 07.1, 07.6 and 07.8. The detector 07.6 gets loops as arguments and must return True for those that adapt nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial, reduce
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong
from fsl_course.nets import mlp

Params = dict[str, Tensor]
Loss = Callable[[Params], Tensor]

# ---------------------------------------------------------------------------------------------- 07.1 run with parameters


def run_with(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    """Returns the model's outputs on x [B, ...] with these parameters in place of its own."""
    return functional_call(model, params, (x,))


def _run_unwrapped(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    return torch.func.functional_call(model, dict(params), x)


def _run_swapped(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    """Puts the tensors into the modules for the duration of the call."""
    kept: dict[str, Tensor | None] = {}
    try:
        for name, value in params.items():
            place = model.get_submodule(name.rpartition(".")[0])._parameters
            kept[name], place[name.rpartition(".")[2]] = place[name.rpartition(".")[2]], value
        return model(x)
    finally:
        for name, value in kept.items():
            model.get_submodule(name.rpartition(".")[0])._parameters[name.rpartition(".")[2]] = value


def _run_copied(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    copied = deepcopy(model)
    copied.load_state_dict(params)
    return copied(x)


def _run_loaded(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    model.load_state_dict(params)
    return model(x)


def _run_by_position(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    names = [name for name, _ in model.named_parameters()]
    return functional_call(model, dict(zip(names, params.values(), strict=True)), (x,))


def _run_part(kept: Callable[[str], bool]) -> Callable[..., Tensor]:
    """Returns an answer that hands over only the tensors whose name is kept."""
    return lambda model, params, x: functional_call(model, {n: p for n, p in params.items() if kept(n)}, (x,))


def _run_without_graph(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    with torch.no_grad():
        return functional_call(model, params, (x,))


def _run_written_by_position(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    for p, new in zip(model.parameters(), params.values(), strict=True):
        p.data = new.data
    return model(x)


def _run_put_back(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    kept = deepcopy(model.state_dict())
    model.load_state_dict(params)
    outputs = model(x)
    model.load_state_dict(kept)
    return outputs


def _run_rows(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    return torch.cat([functional_call(model, params, (row[None],)) for row in x])


def _run_replaced(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    """Takes the parameters out of a copy and puts the tensors in their places as plain attributes."""
    net = deepcopy(model)
    for name, p in params.items():
        module, attribute = net.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        delattr(module, attribute)
        setattr(module, attribute, p)
    return net(x)


def _seeded(generator: Generator, model: nn.Module) -> nn.Module:
    """Fills the model's parameters from the generator and returns the model."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.7 * torch.randn(p.shape, generator=generator))
    return model


def _others(generator: Generator, model: nn.Module) -> Params:
    """Draws parameters that fit the model but are not its own."""
    return {
        name: (0.7 * torch.randn(p.shape, generator=generator)).requires_grad_() for name, p in model.named_parameters()
    }


def _run_cases(generator: Generator) -> list[Case]:
    def case(says: str, model: nn.Module, x: Tensor, backwards: bool = False) -> Case:
        model = _seeded(generator, model)
        params = _others(generator, model)
        return Case(says, (model, dict(reversed(params.items())) if backwards else params, x))

    small = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3))
    numbers, pictures = torch.randn(6, 2, generator=generator), torch.rand(2, 1, 5, 5, generator=generator)
    plane = case("the same names in another order", nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)), numbers)
    model, params, x = plane.args
    return [
        case("a small regressor, 6 rows", nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), numbers),
        case("one row", nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), numbers[:1]),
        case("a convolutional net, 2 pictures", small, pictures),
        Case(plane.says, (model, dict(reversed(params.items())), x)),
        case(
            "a net with batch norm in evaluation mode, whose buffers are no parameters",
            nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1)).eval(),
            numbers,
        ),
    ]


RUN = Exercise(
    id="07.1",
    title="Run with these parameters",
    reference=run_with,
    cases=_run_cases,
    gradient=(1, 2),
    right=(_run_unwrapped, _run_swapped, _run_rows, _run_replaced),
    wrong=(
        Wrong(
            "its own",
            lambda model, params, x: model(x),
            "the model answers with its own parameters: `params` is never read, or is stored where the layers do not look, as by "
            "`setattr` under a name with a dot",
            "`functional_call` takes the model, the dictionary and the arguments.",
        ),
        Wrong(
            "loaded",
            _run_loaded,
            "the values are loaded into the model: the caller's model is changed, and the copies know nothing of `params`",
            "Call the model *with* the parameters, `functional_call(model, params, (x,))`, and leave it as it is.",
            also=(_run_written_by_position,),
        ),
        Wrong(
            "copied or detached",
            _run_copied,
            "the values are right, but copied, detached or used under no_grad: no gradient flows back to `params`",
            "`functional_call` uses the very tensors of the dictionary.",
            also=(_run_without_graph,),
        ),
        Wrong(
            "loaded and put back",
            _run_put_back,
            "the values are loaded into the model and the old ones put back afterwards: no gradient survives that",
            "`functional_call(model, params, (x,))` lends the model other tensors for one call, and nothing is written.",
        ),
        Wrong(
            "keywords",
            lambda model, params, x: model(x, **params),
            "the parameters are handed to the module as keywords; a module takes inputs only",
            "`functional_call(model, params, (x,))` puts them in their places for one call.",
        ),
        Wrong(
            "rows as arguments",
            lambda model, params, x: functional_call(model, params, tuple(x)),
            "the rows of x become separate arguments",
            "The arguments are a tuple of one tensor: `(x,)`, with the comma.",
            also=(lambda model, params, x: functional_call(model, params, *x),),
        ),
        Wrong(
            "by position",
            _run_by_position,
            "the tensors are put in place by position, not by name",
            "A dictionary is read by its names: hand it over as it is.",
        ),
        Wrong(
            "weights only",
            _run_part(lambda name: name.endswith("weight")),
            "only some of the tensors are replaced; the others are still the model's own",
            "Hand over the whole dictionary.",
            also=(_run_part(lambda name: name.endswith("bias")), _run_part(lambda name: name.startswith("0"))),
        ),
        Wrong(
            "a list",
            lambda model, params, x: functional_call(model, list(params.values()), (x,)),
            "`functional_call` is given a list of tensors, which has no names",
            "Hand over the dictionary `params` itself.",
        ),
        Wrong(
            "strict",
            lambda model, params, x: functional_call(model, params, (x,), strict=True),
            "`strict=True` asks for every tensor of the module, its buffers too, and `params` holds parameters only",
            "Leave `strict` out: what the dictionary does not name stays the module's own.",
        ),
        Wrong(
            "arguments change places",
            lambda model, params, x: functional_call(model, x, params),
            "the parameters and the inputs change places in the call",
            "The order is model, dictionary, arguments: `functional_call(model, params, (x,))`.",
        ),
        Wrong(
            "flattened",
            lambda model, params, x: run_with(model, params, x).flatten(),
            "the outputs are flattened",
            "Return what the model returns.",
            also=(lambda model, params, x: run_with(model, params, x).squeeze(-1),),
        ),
    ),
    hints=(
        "The refresher ends with the function that you need.",
        "It takes the model, the dictionary, and a tuple of the model's arguments.",
        "`return functional_call(model, params, (x,))`",
    ),
)

# ---------------------------------------------------------------------------------------------- 07.2 one inner step


def inner_step(loss_fn: Loss, params: Params, lr: float) -> Params:
    """Returns theta - lr * gradient as a new dictionary that keeps its graph."""
    gradients = torch.autograd.grad(loss_fn(params), list(params.values()), create_graph=True)
    return {name: p - lr * g for (name, p), g in zip(params.items(), gradients, strict=True)}


def _step_func(loss_fn: Loss, params: Params, lr: float) -> Params:
    gradients = grad(loss_fn)(params)
    return {name: params[name] - lr * gradients[name] for name in params}


def _step_sorted(loss_fn: Loss, params: Params, lr: float) -> Params:
    """Goes through the names in another order than the dictionary's."""
    names = sorted(params, reverse=True)
    gradients = torch.autograd.grad(loss_fn(params), [params[n] for n in names], create_graph=True)
    return {name: params[name] - lr * g for name, g in zip(names, gradients, strict=True)}


def _step_jacobian(loss_fn: Loss, params: Params, lr: float) -> Params:
    gradients = torch.func.jacrev(loss_fn)(params)
    return {name: torch.add(p, gradients[name], alpha=-lr) for name, p in params.items()}


def _step_by_name(loss_fn: Loss, params: Params, lr: float) -> Params:
    loss, moved = loss_fn(params), {}
    for name in params:
        (g,) = torch.autograd.grad(loss, params[name], create_graph=True)
        moved[name] = params[name].sub(g, alpha=lr)
    return moved


def _gradients(loss_fn: Loss, params: Params, *, graph: bool = True) -> Params:
    found = torch.autograd.grad(loss_fn(params), list(params.values()), create_graph=graph)
    return dict(zip(params, found, strict=True))


def _stepped(move: Callable[[Tensor, Tensor, float], Tensor], *, graph: bool = True) -> Callable[..., Params]:
    """Returns a step by the rule move(parameter, gradient, lr)."""

    def step(loss_fn: Loss, params: Params, lr: float) -> Params:
        gradients = _gradients(loss_fn, params, graph=graph)
        return {name: move(p, gradients[name], lr) for name, p in params.items()}

    return step


def _step_in_place(loss_fn: Loss, params: Params, lr: float) -> Params:
    gradients = _gradients(loss_fn, params, graph=False)
    with torch.no_grad():
        for name, p in params.items():
            p -= lr * gradients[name]
    return params


def _step_in_the_dict(loss_fn: Loss, params: Params, lr: float) -> Params:
    params.update(inner_step(loss_fn, params, lr))
    return params


def _step_on_leaves(loss_fn: Loss, params: Params, lr: float) -> Params:
    for p, g in zip(params.values(), _gradients(loss_fn, params).values(), strict=True):
        p -= lr * g
    return params


def _step_one_after_the_other(loss_fn: Loss, params: Params, lr: float) -> Params:
    theta = dict(params)
    for name in params:
        theta[name] = theta[name] - lr * torch.autograd.grad(loss_fn(theta), theta[name], create_graph=True)[0]
    return theta


def _step_backward(loss_fn: Loss, params: Params, lr: float) -> Params:
    loss_fn(params).backward()
    return {name: p - lr * p.grad for name, p in params.items() if p.grad is not None}


def _step_backward_with_graph(loss_fn: Loss, params: Params, lr: float) -> Params:
    loss_fn(params).backward(create_graph=True)
    return {name: p - lr * p.grad for name, p in params.items() if p.grad is not None}


def _step_sgd(loss_fn: Loss, params: Params, lr: float) -> Params:
    optimiser = torch.optim.SGD(params.values(), lr)
    loss_fn(params).backward()
    optimiser.step()
    return params


def _step_of_a_dict(loss_fn: Loss, params: Params, lr: float) -> Params:
    gradients = torch.autograd.grad(loss_fn(params), params, create_graph=True)
    return {name: p - lr * g for (name, p), g in zip(params.items(), gradients, strict=True)}


def _step_mixed_up(loss_fn: Loss, params: Params, lr: float) -> Params:
    gradients = torch.autograd.grad(loss_fn(params), list(params.values()), create_graph=True)
    return {name: params[name] - lr * g for name, g in zip(sorted(params), gradients, strict=True)}


def _step_shared_out(loss_fn: Loss, params: Params, lr: float) -> Params:
    return inner_step(loss_fn, params, lr / len(params))


def _step_of_length_lr(loss_fn: Loss, params: Params, lr: float) -> Params:
    """Divides by the norm of all gradients together."""
    gradients = _gradients(loss_fn, params)
    size = torch.cat([g.flatten() for g in gradients.values()]).norm()
    return {name: p - lr * gradients[name] / size for name, p in params.items()}


def _step_first_gradient(loss_fn: Loss, params: Params, lr: float) -> Params:
    gradients = torch.autograd.grad(loss_fn(params), list(params.values()), create_graph=True)
    return {name: p - lr * gradients[0] for name, p in params.items()}


def _by_hand(params: Params) -> Tensor:
    """Returns the loss of the example on paper: points (1, 3) and (2, 4), prediction w * x."""
    w = params["weight"]
    return ((w - 3) ** 2 + (2 * w - 4) ** 2) / 2


def _line(params: Params) -> Tensor:
    x = torch.tensor([-2.0, -1.0, 0.5, 3.0], dtype=torch.float64).to(params["weight"].dtype)
    return (params["weight"] * x + params["bias"] - x.square() + 1).square().mean()


def _curved(params: Params) -> Tensor:
    """Returns the loss of a net with one hidden layer on 5 points, which is not quadratic."""
    x = torch.linspace(-1, 1, 5, dtype=torch.float64).to(params["0.weight"].dtype)[:, None]
    hidden = torch.tanh(F.linear(x, params["0.weight"], params["0.bias"]))
    return (F.linear(hidden, params["2.weight"], params["2.bias"]) - torch.sin(3 * x)).square().mean()


def _point() -> Params:
    return {"weight": torch.zeros((), requires_grad=True)}


def _line_params(generator: Generator) -> Params:
    return {name: torch.randn((), generator=generator).requires_grad_() for name in ("weight", "bias")}


def _net_params(generator: Generator, dtype: torch.dtype = torch.float32) -> Params:
    shapes = {"0.weight": (3, 1), "0.bias": (3,), "2.weight": (1, 3), "2.bias": (1,)}
    return {name: torch.randn(s, generator=generator).to(dtype).requires_grad_() for name, s in shapes.items()}


def _step_cases(generator: Generator) -> list[Case]:
    return [
        Case("the example on paper: from 0 to 1.1", (_by_hand, _point(), 0.1)),
        Case("a line, weight and bias", (_line, _line_params(generator), 0.05)),
        Case("a small net", (_curved, _net_params(generator), 0.3)),
        Case("float64", (_curved, _net_params(generator, torch.float64), 0.3)),
    ]


def _leaves_grad_alone(answer: Callable, reference: Callable) -> str | None:
    params = _line_params(torch.Generator().manual_seed(2))
    answer(_line, params, 0.05)
    touched = [name for name, p in params.items() if p.grad is not None]
    return f"afterwards .grad is filled in {' and '.join(touched)}. Is there a backward()?" if touched else None


STEP = Exercise(
    id="07.2",
    title="One inner step",
    reference=inner_step,
    cases=_step_cases,
    gradient=(1,),
    properties=(Property("the step leaves .grad of the parameters alone", _leaves_grad_alone),),
    right=(_step_func, _step_by_name, _step_sorted, _step_jacobian),
    wrong=(
        Wrong(
            "uphill",
            _stepped(lambda p, g, lr: p + lr * g),
            "the step goes uphill: a plus stands where the minus belongs",
            "The loss falls against its gradient: `p - lr * g`.",
        ),
        Wrong(
            "constant gradients",
            _stepped(lambda p, g, lr: p - lr * g, graph=False),
            "the gradients come out as constants: the result does not know that they depend on the parameters",
            "`torch.autograd.grad(..., create_graph=True)` keeps the graph of the gradient itself.",
        ),
        Wrong(
            "backward",
            _step_backward,
            "`backward()` is called: it fills .grad, and these gradients are constants",
            "`torch.autograd.grad(loss, list(params.values()), create_graph=True)` returns them and touches nothing.",
        ),
        Wrong(
            "backward with a graph",
            _step_backward_with_graph,
            "`backward(create_graph=True)` is called: the step is right, but .grad of the parameters is filled on the way",
            "`torch.autograd.grad(...)` returns the gradients as values and leaves .grad alone.",
        ),
        Wrong(
            "only the gradient keeps its graph",
            _stepped(lambda p, g, lr: p.detach() - lr * g),
            "the old parameter is detached, and only its gradient keeps a graph",
            "Take `p` itself: theta' hangs on theta in both places, `p - lr * g`.",
        ),
        Wrong(
            "cut off",
            _stepped(lambda p, g, lr: (p - lr * g).detach()),
            "the new parameters are cut off from the old ones (.detach(), .data or no_grad)",
            "Leave the expression `p - lr * g` as it is: it carries the graph.",
        ),
        Wrong(
            "in place",
            _step_in_place,
            "the parameters themselves are changed, as an optimiser does it",
            "Build a new dictionary: `{name: p - lr * g ...}`. The initialisation must survive for the next task.",
            also=(_step_sgd,),
        ),
        Wrong(
            "in place, refused",
            _step_on_leaves,
            "`p -= ...` writes into a parameter that requires grad, which PyTorch refuses",
            "`p - lr * g` makes a new tensor; put it into a new dictionary.",
        ),
        Wrong(
            "in the caller's dictionary",
            _step_in_the_dict,
            "the new tensors are put into the caller's dictionary",
            "Build a new dictionary: `{name: p - lr * g ...}`.",
        ),
        Wrong(
            "no rate",
            _stepped(lambda p, g, lr: p - g),
            "the learning rate is forgotten",
            "Multiply the gradient by `lr`.",
        ),
        Wrong(
            "rate twice",
            _stepped(lambda p, g, lr: p - lr * lr * g),
            "the learning rate is multiplied in twice",
            "Once is enough: `p - lr * g`.",
        ),
        Wrong(
            "size thrown away",
            _stepped(lambda p, g, lr: p - lr * g / g.norm()),
            "the gradient is divided by its size, or only its sign is kept: every step is then equally long",
            "The plain gradient: where the loss is flat, the step is short.",
            also=(
                _stepped(lambda p, g, lr: p - lr * g.sign()),
                _step_of_length_lr,
            ),
        ),
        Wrong(
            "shared out",
            _step_shared_out,
            "the step is divided by the number of tensors",
            "Every tensor moves by `lr` times its whole gradient.",
        ),
        Wrong(
            "gradient of a dictionary",
            _step_of_a_dict,
            "`torch.autograd.grad` is given the dictionary; it wants tensors, in a list or tuple",
            "`list(params.values())` gives it the tensors, in the dictionary's order.",
        ),
        Wrong(
            "mixed up",
            _step_mixed_up,
            "names and gradients do not belong together: a tensor moves by the gradient of another",
            "Walk through `params.items()` and the gradients side by side, in one and the same order.",
            also=(_step_first_gradient,),
        ),
        Wrong(
            "one after the other",
            _step_one_after_the_other,
            "each parameter moves before the gradient of the next is taken",
            "Take all gradients at the same place: one call of autograd.grad for the whole list.",
        ),
        Wrong(
            "biases left behind",
            lambda loss_fn, params, lr: {
                name: new if name.endswith("weight") else params[name]
                for name, new in inner_step(loss_fn, params, lr).items()
            },
            "only the weights move and the biases stay behind",
            "Go through all of `params.items()`.",
        ),
        Wrong(
            "a list",
            lambda loss_fn, params, lr: list(inner_step(loss_fn, params, lr).values()),
            "a list of tensors is returned and the names are lost",
            "Return a dictionary with the same names.",
        ),
        Wrong(
            "the gradients",
            _stepped(lambda p, g, lr: lr * g),
            "the step itself is returned, not where it leads",
            "Subtract it from the old parameter.",
        ),
    ),
    hints=(
        "Three parts: the loss, its gradients, a dictionary of new tensors.",
        "`torch.autograd.grad(loss, list(params.values()), create_graph=True)` gives the gradients in the same order.",
        "`return {name: p - lr * g for (name, p), g in zip(params.items(), gradients)}`",
    ),
)

# ---------------------------------------------------------------------------------------------- 07.3 adapt


def adapt(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    """Takes `steps` inner steps in a row."""
    theta = dict(params)
    for _ in range(steps):
        theta = inner_step(loss_fn, theta, lr)
    return theta


def _adapt_func(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    theta = params
    for _ in range(steps):
        gradients = grad(loss_fn)(theta)
        theta = {name: p - lr * gradients[name] for name, p in theta.items()}
    return theta


def _adapt_recursive(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    return params if steps == 0 else _adapt_recursive(loss_fn, _step_by_name(loss_fn, params, lr), lr, steps - 1)


def _adapt_by(step: Callable[[Loss, Params, float], Params]) -> Callable[..., Params]:
    """Returns the loop with another inner step."""

    def loop(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
        theta = dict(params)
        for _ in range(steps):
            theta = step(loss_fn, theta, lr)
        return theta

    return loop


def _adapt_from_the_start(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    theta = dict(params)
    for _ in range(steps):
        gradients = _gradients(loss_fn, params)
        theta = {name: p - lr * gradients[name] for name, p in theta.items()}
    return theta


def _adapt_restarting(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    theta = dict(params)
    for _ in range(steps):
        theta = inner_step(loss_fn, params, lr)
    return theta


def _adapt_in_the_dict(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    for _ in range(steps):
        for name, new in inner_step(loss_fn, params, lr).items():
            params[name] = new
    return params


def _adapt_from_a_copy(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    return adapt(loss_fn, {name: p.detach().clone().requires_grad_() for name, p in params.items()}, lr, steps)


def _adapt_returning_early(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params | None:
    theta = params
    for _ in range(steps):
        theta = inner_step(loss_fn, theta, lr)
        return theta
    return None


def _adapt_unbound(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    for _ in range(steps):
        theta = inner_step(loss_fn, params, lr)
    return theta


def _adapt_dropped(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    theta = dict(params)
    for _ in range(steps):
        inner_step(loss_fn, theta, lr)
    return theta


def _adapt_last_step_only(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    """Keeps the graph of the last step and cuts those before it."""
    theta = dict(params)
    for step in range(steps):
        if step:
            theta = {name: p.detach().requires_grad_() for name, p in theta.items()}
        theta = inner_step(loss_fn, theta, lr)
    return theta


def _adapt_keeping_the_best(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    theta = best = dict(params)
    lowest = math.inf
    for _ in range(steps):
        theta = inner_step(loss_fn, theta, lr)
        if float(loss_fn(theta)) < lowest:
            best, lowest = theta, float(loss_fn(theta))
    return best


def _adapt_never_rising(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    stages = [adapt(loss_fn, params, lr, count) for count in range(steps + 1)]
    return min(stages, key=lambda theta: float(loss_fn(theta)))


def _adapt_with_momentum(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    theta, speed = dict(params), {name: torch.zeros_like(p) for name, p in params.items()}
    for _ in range(steps):
        gradients = _gradients(loss_fn, theta)
        speed = {name: 0.9 * speed[name] + gradients[name] for name in theta}
        theta = {name: p - lr * speed[name] for name, p in theta.items()}
    return theta


def _adapt_slowing(rate: Callable[[float, int], float]) -> Callable[..., Params]:
    """Returns the loop with the rate rate(lr, step), step = 0, 1, ..."""

    def loop(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
        theta = dict(params)
        for step in range(steps):
            theta = inner_step(loss_fn, theta, rate(lr, step))
        return theta

    return loop


def _adapt_lists(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    names, values = list(params), list(params.values())
    for _ in range(steps):
        gradients = torch.autograd.grad(loss_fn(dict(zip(names, values, strict=True))), values, create_graph=True)
        values = [p - lr * g for p, g in zip(values, gradients, strict=True)]
    return dict(zip(names, values, strict=True))


def _adapt_folded(loss_fn: Loss, params: Params, lr: float, steps: int) -> Params:
    return reduce(lambda theta, _: _step_sorted(loss_fn, theta, lr), range(steps), params)


def _adapt_cases(generator: Generator) -> list[Case]:
    return [
        Case("the example on paper, 3 steps", (_by_hand, _point(), 0.1, 3)),
        Case("a line, 5 steps", (_line, _line_params(generator), 0.05, 5)),
        Case("no step at all", (_line, _line_params(generator), 0.05, 0)),
        Case("a small net, one step", (_curved, _net_params(generator), 0.3, 1)),
        Case("a small net, 3 steps, float64", (_curved, _net_params(generator, torch.float64), 0.3, 3)),
        Case("a rate so large that the loss rises", (_by_hand, _point(), 0.5, 3)),
    ]


ADAPT = Exercise(
    id="07.3",
    title="The inner loop",
    reference=adapt,
    cases=_adapt_cases,
    gradient=(1,),
    right=(_adapt_func, _adapt_recursive, _adapt_lists, _adapt_folded),
    wrong=(
        Wrong(
            "always from the start",
            _adapt_from_the_start,
            "every gradient is taken at the initialisation: one direction, walked several times",
            "Take each gradient where the last step has led: `inner_step(loss_fn, theta, lr)`.",
        ),
        Wrong(
            "restarting",
            _adapt_restarting,
            "there is one step, however many are asked for: a round starts again at `params`, or `return` stands inside the loop",
            "Feed the result of a step into the next one, and return after the loop.",
            also=(_adapt_unbound, _adapt_returning_early),
        ),
        Wrong(
            "dropped",
            _adapt_dropped,
            "the result of a step is never kept, so nothing moves",
            "`inner_step` returns a new dictionary: bind it, `theta = inner_step(loss_fn, theta, lr)`.",
        ),
        Wrong(
            "one too many",
            lambda loss_fn, params, lr, steps: adapt(loss_fn, params, lr, steps + 1),
            "there is one step more than asked for",
            "`for _ in range(steps)` runs exactly `steps` times; with 0 nothing moves.",
        ),
        Wrong(
            "one too few",
            lambda loss_fn, params, lr, steps: adapt(loss_fn, params, lr, max(steps - 1, 0)),
            "there is one step less than asked for",
            "`for _ in range(steps)` runs exactly `steps` times.",
        ),
        Wrong(
            "constant gradients",
            _adapt_by(_stepped(lambda p, g, lr: p - lr * g, graph=False)),
            "the gradients are constants: the result has a gradient in `params`, but not the true one",
            "`create_graph=True`, in every step. Or use your `inner_step`.",
        ),
        Wrong(
            "cut at every step",
            _adapt_by(_stepped(lambda p, g, lr: (p - lr * g).detach().requires_grad_())),
            "the graph is cut between steps (.detach(), .data): the result no longer hangs on `params`",
            "Leave the expression as it is; the next step can start from a tensor with a history.",
            also=(_adapt_last_step_only,),
        ),
        Wrong(
            "a detached copy",
            _adapt_from_a_copy,
            "the loop starts from a detached copy: the result no longer hangs on `params`",
            "`theta = dict(params)` is enough: a new dictionary, the same tensors, and nothing writes into them.",
        ),
        Wrong(
            "in place",
            _adapt_by(_step_in_place),
            "the initialisation itself is moved, as an optimiser does it",
            "New tensors in a new dictionary, step by step.",
        ),
        Wrong(
            "in the caller's dictionary",
            _adapt_in_the_dict,
            "the new tensors are put into the caller's dictionary",
            "Start with `theta = dict(params)`, or bind the result of each step to a name of your own.",
        ),
        Wrong(
            "shared rate",
            lambda loss_fn, params, lr, steps: adapt(loss_fn, params, lr / max(steps, 1), steps),
            "the rate is divided by the number of steps",
            "Every step has the full rate.",
        ),
        Wrong(
            "uphill",
            _adapt_by(_stepped(lambda p, g, lr: p + lr * g)),
            "the steps go uphill",
            "`p - lr * g`.",
        ),
        Wrong(
            "best stage",
            _adapt_keeping_the_best,
            "the stage with the lowest loss is kept, not the last one: with a large rate the loss may rise",
            "Return what the last step gives, whatever its loss.",
            also=(_adapt_never_rising,),
        ),
        Wrong(
            "momentum",
            _adapt_with_momentum,
            "a step keeps part of the steps before it (momentum)",
            "Plain gradient descent: each step is `lr` times the gradient of its own place.",
        ),
        Wrong(
            "falling rate",
            _adapt_slowing(lambda lr, step: lr / (step + 1)),
            "the rate falls, or grows, from step to step",
            "Every step has the full rate.",
            also=(_adapt_slowing(lambda lr, step: lr * 0.9**step), _adapt_slowing(lambda lr, step: lr * (step + 1))),
        ),
        Wrong(
            "size thrown away",
            _adapt_by(_stepped(lambda p, g, lr: p - lr * g / g.norm())),
            "the gradient is divided by its size, or only its sign is kept: every step is then equally long",
            "The plain gradient: where the loss is flat, the step is short.",
            also=(_adapt_by(_stepped(lambda p, g, lr: p - lr * g.sign())), _adapt_by(_step_of_length_lr)),
        ),
        Wrong(
            "shared out",
            _adapt_by(_step_shared_out),
            "every step is divided by the number of tensors",
            "Every tensor moves by `lr` times its whole gradient.",
        ),
        Wrong(
            "all stages",
            lambda loss_fn, params, lr, steps: [adapt(loss_fn, params, lr, s) for s in range(steps + 1)],
            "all stages are returned in a list",
            "Return the parameters after the last step.",
        ),
        Wrong(
            "a list",
            lambda loss_fn, params, lr, steps: list(adapt(loss_fn, params, lr, steps).values()),
            "a list of tensors is returned and the names are lost",
            "Return a dictionary with the same names.",
        ),
    ),
    hints=(
        "A loop around your `inner_step`. What does the second round start from?",
        "`theta = dict(params)`, then replace `theta` by the result of a step, `steps` times.",
        "`for _ in range(steps): theta = inner_step(loss_fn, theta, lr)`, then `return theta`",
    ),
)

# ---------------------------------------------------------------------------------------------- 07.4 the mean curve


def mean_curve(x: Tensor, low: float, high: float) -> Tensor:
    """Returns the mean of a sin(x - p), a uniform in [low, high], p uniform in [0, pi]. x [B, 1] -> [B, 1]."""
    return -(low + high) / 2 * (2 / math.pi) * torch.cos(x)


def _mean_from_ends(x: Tensor, low: float, high: float) -> Tensor:
    return (torch.cos(x - math.pi) - torch.cos(x)) / math.pi * (low + high) / 2


def _mean_by_quadrature(x: Tensor, low: float, high: float) -> Tensor:
    """Averages over the midpoints of 4000 phases, at the mean amplitude."""
    phases = (torch.arange(4000, dtype=torch.float64) + 0.5) * math.pi / 4000
    curves = (low + high) / 2 * torch.sin(x.double()[..., None] - phases)
    return curves.mean(-1).to(x.dtype)


def _mean_of_complex(x: Tensor, low: float, high: float) -> Tensor:
    """Takes the mean of e^(i(x - p)) over p, which is e^(ix) 2/(i pi), and its imaginary part."""
    return (low + high) / 2 * (torch.exp(1j * x) * complex(0, -2 / math.pi)).imag


def _mean_by_trapezoids(x: Tensor, low: float, high: float) -> Tensor:
    phases = torch.linspace(0, math.pi, 4001, dtype=torch.float64)
    mean = torch.trapezoid(torch.sin(x.double() - phases), phases, dim=-1) / math.pi
    return ((low + high) / 2 * mean)[:, None].to(x.dtype)


def _mean_of_grid(points: int) -> Callable[[Tensor, float, float], Tensor]:
    """Returns an answer that averages over evenly spaced phases, both ends included."""

    def answer(x: Tensor, low: float, high: float) -> Tensor:
        return (low + high) / 2 * torch.sin(x - torch.linspace(0, math.pi, points)).mean(1, keepdim=True)

    return answer


def _mean_cases(generator: Generator) -> list[Case]:
    x = 10 * torch.rand(9, 1, generator=generator) - 5
    return [
        Case("amplitudes 0.1 to 5, 9 inputs", (x, 0.1, 5.0)),
        Case("every amplitude 1", (x, 1.0, 1.0)),
        Case("amplitudes 2 to 3, one input", (x[:1], 2.0, 3.0)),
        Case("at x = 0", (torch.zeros(1, 1), 0.1, 5.0)),
    ]


MEAN = Exercise(
    id="07.4",
    title="The mean of all curves",
    reference=mean_curve,
    cases=_mean_cases,
    right=(_mean_from_ends, _mean_by_quadrature, _mean_of_complex, _mean_by_trapezoids),
    wrong=(
        Wrong(
            "zero",
            lambda x, low, high: torch.zeros_like(x),
            "the curves cancel: so they would, if phases went all the way round, 0 to 2π; or a sign in the integral is turned",
            "Phases stop at π. The integral of sin(x − p) over p from 0 to π is cos(x − π) − cos(x).",
        ),
        Wrong(
            "sign",
            lambda x, low, high: -mean_curve(x, low, high),
            "the sign is turned: the derivative of cos(x − p) with respect to p is +sin(x − p)",
            "At x = 0 every curve is −a sin p, never above zero.",
        ),
        Wrong(
            "the curve in the middle",
            lambda x, low, high: -(low + high) / 2 * torch.cos(x),
            "the curve of the mean phase is taken, not the mean of the curves: 2/π is missing",
            "Averaging curves that are shifted against each other flattens them. Integrate over p.",
        ),
        Wrong(
            "integral, not mean",
            lambda x, low, high: -(low + high) * torch.cos(x),
            "the integral over the phases is not divided by the length of the range, π",
            "A mean over [0, π] is the integral divided by π.",
        ),
        Wrong(
            "one over pi",
            lambda x, low, high: -(low + high) / 2 / math.pi * torch.cos(x),
            "1/π stands where 2/π belongs",
            "cos(x − π) − cos(x) is −2 cos x.",
        ),
        Wrong(
            "integral of the amplitude",
            lambda x, low, high: -(high**2 - low**2) / math.pi * torch.cos(x),
            "the integral over the amplitudes is not divided by the length of their range",
            "The mean of a uniform number in [low, high] is (low + high)/2.",
        ),
        Wrong(
            "half the range",
            lambda x, low, high: -(high - low) / math.pi * torch.cos(x),
            "half the width of the amplitude's range stands for its mean",
            "The mean of a uniform number in [low, high] is (low + high)/2.",
        ),
        Wrong(
            "not halved",
            lambda x, low, high: -2 * (low + high) / math.pi * torch.cos(x),
            "low and high are added and not halved",
            "The mean of a uniform number in [low, high] is (low + high)/2.",
        ),
        Wrong(
            "one end of the range",
            lambda x, low, high: -2 * high / math.pi * torch.cos(x),
            "only one end of the amplitude's range is used",
            "The mean of a uniform number in [low, high] is (low + high)/2.",
            also=(
                lambda x, low, high: -high / math.pi * torch.cos(x),
                lambda x, low, high: -2 * low / math.pi * torch.cos(x),
            ),
        ),
        Wrong(
            "for one range",
            lambda x, low, high: -1.62 * torch.cos(x),
            "the number for amplitudes from 0.1 to 5 is returned for every range",
            "Compute the factor from `low` and `high`.",
            also=(
                lambda x, low, high: -5.1 / math.pi * torch.cos(x),
                lambda x, low, high: -1.623 * torch.cos(x),
            ),
        ),
        Wrong(
            "pi rounded",
            lambda x, low, high: -(low + high) / 3.14 * torch.cos(x),
            "π is rounded to a few digits",
            "`math.pi` has all of them.",
            also=(lambda x, low, high: -(low + high) / 3.142 * torch.cos(x),),
        ),
        Wrong(
            "coarse",
            _mean_of_grid(101),
            "the mean over the phases is taken on a grid: near, but not the integral, because both ends count fully",
            "The integral has a closed form: cos(x − p) is an antiderivative of sin(x − p) with respect to p.",
            also=tuple(_mean_of_grid(points) for points in (50, 100, 200, 500, 1000)),
        ),
        Wrong(
            "flattened",
            lambda x, low, high: mean_curve(x, low, high).flatten(),
            "the values are right and the shape is lost",
            "[B, 1] goes in and [B, 1] comes out.",
            also=(lambda x, low, high: mean_curve(x, low, high)[None],),
        ),
        Wrong(
            "a sine",
            lambda x, low, high: (low + high) / math.pi * torch.sin(x),
            "a sine stands where the integral of the sine, a cosine, belongs",
            "cos(x − p) is what gives sin(x − p) when you differentiate it with respect to p.",
            also=(lambda x, low, high: -(low + high) / math.pi * torch.sin(x),),
        ),
        Wrong(
            "amplitude forgotten",
            lambda x, low, high: -2 / math.pi * torch.cos(x),
            "the mean amplitude is forgotten",
            "Amplitude and phase are drawn independently: multiply by (low + high)/2.",
        ),
    ),
    hints=(
        "Amplitude and phase are independent: the mean amplitude times the mean of sin(x − p).",
        "The mean over p in [0, π] is 1/π times the integral; cos(x − p) is the antiderivative in p.",
        "(cos(x − π) − cos x)/π = −(2/π) cos x; times (low + high)/2.",
    ),
)

# ---------------------------------------------------------------------------------------------- 07.5 the rate behind a loss


def rate_for_mean(lr: float, n_way: int, k_shot: int, reduction: str) -> float:
    """Returns the rate that gives the same step with the mean over the N*K support rows."""
    rows = n_way * k_shot
    return lr * rows / {"mean": rows, "sum": 1, "per shot": k_shot}[reduction]


def _rate_cases_of_words(lr: float, n_way: int, k_shot: int, reduction: str) -> float:
    if reduction == "sum":
        return lr * n_way * k_shot
    return lr * n_way if reduction == "per shot" else lr


def _rate_measured(lr: float, n_way: int, k_shot: int, reduction: str) -> float:
    """Computes the rate from the gradients of both losses on rows of equal loss."""
    row = torch.ones((), dtype=torch.float64, requires_grad=True)
    rows = row.expand(n_way * k_shot)
    loss = {"mean": rows.mean(), "sum": rows.sum(), "per shot": rows.sum() / k_shot}[reduction]
    theirs, mean = (torch.autograd.grad(value, row, retain_graph=True)[0] for value in (loss, rows.mean()))
    return lr * float(theirs / mean)


def _rate_by_match(lr: float, n_way: int, k_shot: int, reduction: str) -> float:
    match reduction:
        case "mean":
            factor = 1
        case "sum":
            factor = k_shot * n_way
        case "per shot":
            factor = n_way
    return factor * lr


def _rate_of_words(lr: float, n_way: int, k_shot: int, reduction: str) -> float:
    words = reduction.split()
    return lr * n_way * k_shot / (k_shot if len(words) > 1 else n_way * k_shot if words == ["mean"] else 1)


def _rate_no_branch(lr: float, n_way: int, k_shot: int, reduction: str) -> float | None:
    if reduction == "mean":
        return lr
    if reduction == "sum":
        return lr * n_way * k_shot
    return None


def _rate_by(mean: Callable, total: Callable, per_shot: Callable) -> Callable[..., float]:
    """Returns an answer that multiplies lr by a factor of (N, K) for each reduction."""
    factors = {"mean": mean, "sum": total, "per shot": per_shot}
    return lambda lr, n_way, k_shot, reduction: lr * factors[reduction](n_way, k_shot)


def _rate_cases(generator: Generator) -> list[Case]:
    return [
        Case("0.1, 5-way 2-shot, mean", (0.1, 5, 2, "mean")),
        Case("0.1, 5-way 2-shot, sum", (0.1, 5, 2, "sum")),
        Case("0.4, 5-way 1-shot, per shot", (0.4, 5, 1, "per shot")),
        Case("0.1, 20-way 5-shot, per shot", (0.1, 20, 5, "per shot")),
        Case("0.02, 3-way 7-shot, sum", (0.02, 3, 7, "sum")),
        Case("0.00123, 3-way 4-shot, per shot", (0.00123, 3, 4, "per shot")),
        Case("0.00123, 3-way 3-shot, mean", (0.00123, 3, 3, "mean")),
    ]


RATE = Exercise(
    id="07.5",
    title="The rate behind a loss",
    reference=rate_for_mean,
    cases=_rate_cases,
    right=(_rate_cases_of_words, _rate_measured, _rate_of_words, _rate_by_match),
    wrong=(
        Wrong(
            "as printed",
            _rate_by(lambda n, k: 1, lambda n, k: 1, lambda n, k: 1),
            "the rate is taken over as printed, whatever the loss",
            "A sum over R rows has a gradient R times that of the mean.",
        ),
        Wrong(
            "the wrong way round",
            _rate_by(lambda n, k: 1, lambda n, k: 1 / (n * k), lambda n, k: 1 / n),
            "the rate is divided where it must be multiplied",
            "The mean has the smaller gradient, so it needs the larger rate for the same step.",
            also=(_rate_by(lambda n, k: 1, lambda n, k: n * k, lambda n, k: 1 / n),),
        ),
        Wrong(
            "per shot like a sum",
            _rate_by(lambda n, k: 1, lambda n, k: n * k, lambda n, k: n * k),
            "the division by K is forgotten",
            "The sum of N*K rows divided by K: N times the mean.",
        ),
        Wrong(
            "per shot like a mean",
            _rate_by(lambda n, k: 1, lambda n, k: n * k, lambda n, k: 1),
            "the loss per shot leaves the rate as it is: dividing by K is taken for the mean, or no branch knows this word",
            'The sum of N*K rows divided by K is N times the mean. The word is "per shot", with a space.',
        ),
        Wrong(
            "no branch",
            _rate_no_branch,
            "no branch knows one of the three words",
            'The three words are "mean", "sum" and "per shot", with a space.',
            also=(lambda lr, n_way, k_shot, reduction: lr * {"mean": 1, "sum": n_way * k_shot}[reduction],),
        ),
        Wrong(
            "per shot times K",
            _rate_by(lambda n, k: 1, lambda n, k: n * k, lambda n, k: k),
            "N and K change places for the loss per shot",
            "The sum of N*K rows divided by K: N times the mean.",
        ),
        Wrong(
            "divided by K",
            _rate_by(lambda n, k: 1, lambda n, k: n * k, lambda n, k: 1 / k),
            "their division by K is counted, but not their sum over N*K rows",
            "The sum of N*K rows divided by K: N times the mean.",
        ),
        Wrong(
            "a sum counts classes",
            _rate_by(lambda n, k: 1, lambda n, k: n, lambda n, k: n),
            "a sum is counted with N terms, or with K; it has N*K",
            "Every support row is a term: N*K of them.",
            also=(
                _rate_by(lambda n, k: 1, lambda n, k: k, lambda n, k: n),
                _rate_by(lambda n, k: 1, lambda n, k: n, lambda n, k: n / k),
            ),
        ),
        Wrong(
            "always per shot",
            _rate_by(lambda n, k: n, lambda n, k: n, lambda n, k: n),
            "every loss gets the factor N, which belongs to the loss per shot only",
            "Three losses, three factors: how many times the mean is each?",
        ),
        Wrong(
            "always a sum",
            _rate_by(lambda n, k: n * k, lambda n, k: n * k, lambda n, k: n * k),
            "every loss gets the factor N*K, which belongs to the sum only",
            "Three losses, three factors: how many times the mean is each?",
        ),
        Wrong(
            "the divisor",
            _rate_by(lambda n, k: n * k, lambda n, k: 1, lambda n, k: k),
            "the rate is multiplied by what the loss is divided by",
            "The sum is N*K times the mean; a loss divided by d is N*K/d times the mean.",
        ),
        Wrong(
            "for a sum",
            _rate_by(lambda n, k: 1 / (n * k), lambda n, k: 1, lambda n, k: 1 / k),
            "the rate comes out that would fit a *summed* loss",
            "Your loss is the mean: a mean needs no change, and a sum of N*K rows needs the factor N*K.",
        ),
        Wrong(
            "rounded",
            lambda lr, n_way, k_shot, reduction: round(rate_for_mean(lr, n_way, k_shot, reduction), 2),
            "the rate is rounded to a few decimals, which makes another rate of a small one",
            "Return the number as it comes; round it when you print it.",
            also=(
                lambda lr, n_way, k_shot, reduction: round(rate_for_mean(lr, n_way, k_shot, reduction), 3),
                lambda lr, n_way, k_shot, reduction: round(rate_for_mean(lr, n_way, k_shot, reduction), 1),
            ),
        ),
        Wrong(
            "a mean as a sum",
            _rate_by(lambda n, k: n * k, lambda n, k: n * k, lambda n, k: n),
            "the rate of a mean is changed too",
            "A mean is already what is asked for.",
        ),
    ),
    hints=(
        "How many times the mean is the loss in question? Its gradient is as many times that of the mean.",
        "A step is rate times gradient. Larger gradient in their code: larger rate in yours.",
        "Factor 1 for the mean, N*K for the sum, N for the sum divided by K.",
    ),
)

# ---------------------------------------------------------------------------------------------- 07.6 does anything move?

Loop = Callable[[nn.Module, Tensor, Tensor, float, int], Params]


def exposes_idle(implementation: Loop, model: nn.Module, x: Tensor, y: Tensor, lr: float) -> bool:
    """Returns True if the first or the second step moves no parameter at all."""
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    one, two = (implementation(model, x, y, lr, steps) for steps in (1, 2))

    def rests(a: Params, b: Params) -> bool:
        return all(torch.equal(a[name], b[name]) for name in start)

    return rests(start, one) or rests(one, two)


def _flat(params: Params, model: nn.Module) -> Tensor:
    return torch.cat([params[name].detach().flatten() for name, _ in model.named_parameters()])


def _idle_by_counting(implementation: Loop, model: nn.Module, x: Tensor, y: Tensor, lr: float) -> bool:
    stages = [dict(model.named_parameters()), *(implementation(model, x, y, lr, steps) for steps in (1, 2))]
    moved = [sum(int((b[n] != a[n]).sum()) for n in a) for a, b in pairwise(stages)]
    return min(moved) == 0


def _idle_by_vector(implementation: Loop, model: nn.Module, x: Tensor, y: Tensor, lr: float) -> bool:
    flat = [nn.utils.parameters_to_vector(list(model.parameters())).detach().clone()]
    flat += [_flat(implementation(model, x, y, lr, steps), model) for steps in (1, 2)]
    return not ((flat[0] != flat[1]).any() and (flat[1] != flat[2]).any())


def _idle_by_sizes(implementation: Loop, model: nn.Module, x: Tensor, y: Tensor, lr: float) -> bool:
    """Adds up the sizes of all moves."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for steps in (1, 2):
        after = implementation(model, x, y, lr, steps)
        if sum(float((after[name] - before[name]).abs().sum()) for name in before) == 0:
            return True
        before = after
    return False


def _idle_by_tensor(implementation: Loop, model: nn.Module, x: Tensor, y: Tensor, lr: float) -> Tensor:
    stages = [_flat(dict(model.named_parameters()), model)]
    stages += [_flat(implementation(model, x, y, lr, steps), model) for steps in (1, 2)]
    return (torch.stack(stages).diff(dim=0) == 0).all(1).any()


def _loop_right(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Params:
    return adapt(lambda p: F.mse_loss(functional_call(model, p, (x,)), y), dict(model.named_parameters()), lr, steps)


def _loop_detached(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Params:
    return {name: p.detach() for name, p in _loop_right(model, x, y, lr, steps).items()}


def _loop_generator(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Params:
    """Has the bug: computing the gradients exhausts the generator `named`, so that the update loop does nothing."""
    adapted = dict(model.named_parameters())
    for _ in range(steps):
        named = model.named_parameters()
        loss = F.mse_loss(functional_call(model, adapted, (x,)), y)
        gradients = torch.autograd.grad(loss, [adapted[name] for name, _ in named])
        for (name, _), g in zip(named, gradients, strict=False):
            adapted[name] = adapted[name] - lr * g
    return adapted


def _loop_generator_copied(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Params:
    return {name: p.detach().clone() for name, p in _loop_generator(model, x, y, lr, steps).items()}


def _loop_generator_outside(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Params:
    """Makes the generator before the loop, so that only the first step works."""
    named, adapted = model.named_parameters(), dict(model.named_parameters())
    for _ in range(steps):
        loss = F.mse_loss(functional_call(model, adapted, (x,)), y)
        gradients = torch.autograd.grad(loss, list(adapted.values()))
        for (name, _), g in zip(named, gradients, strict=False):
            adapted[name] = adapted[name] - lr * g
    return adapted


def _loop_not_stored(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Params:
    """Adapts nothing either: binds the new tensors to a local name and drops them."""
    adapted = dict(model.named_parameters())
    for _ in range(steps):
        loss = F.mse_loss(functional_call(model, adapted, (x,)), y)
        for p, g in zip(adapted.values(), torch.autograd.grad(loss, list(adapted.values())), strict=True):
            p = p - lr * g
    return adapted


def _loop_late(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Params:
    """Has a bug: counts from 1 to below `steps`, so that one step is none."""
    return _loop_right(model, x, y, lr, max(steps - 1, 0))


def _loop_whole_rate(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Params:
    """Has a bug: cuts the rate down to a whole number."""
    return _loop_right(model, x, y, int(lr), steps)


def _loop_at_least_one(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Params:
    """Moves at 1 step and at 2, and at 0 steps too."""
    return _loop_right(model, x, y, lr, max(steps, 1))


def _loop_of(moves: Callable[[str], bool]) -> Loop:
    """Returns a loop that adapts only the tensors with the right name and returns all."""

    def loop(model: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Params:
        adapted = dict(model.named_parameters())
        for _ in range(steps):
            loss = F.mse_loss(functional_call(model, adapted, (x,)), y)
            gradients = _gradients(lambda p, loss=loss: loss, {n: p for n, p in adapted.items() if moves(n)})
            adapted |= {name: adapted[name] - lr * g for name, g in gradients.items()}
        return adapted

    return loop


def _stages(implementation: Loop, model: nn.Module, x: Tensor, y: Tensor, lr: float) -> list[Params]:
    return [dict(model.named_parameters()), *(implementation(model, x, y, lr, steps) for steps in (1, 2))]


def _idle_compared(
    rests: Callable[[Tensor, Tensor], bool],
    over: Callable = all,
    *,
    pairs: tuple[tuple[int, int], ...] = ((0, 1), (1, 2)),
    either: Callable = any,
) -> Callable[..., bool]:
    """Returns a detector that decides by rests(before, after), over all tensors or any, for these pairs of 0, 1 and 2 steps."""

    def detector(implementation: Loop, model: nn.Module, x: Tensor, y: Tensor, lr: float) -> bool:
        stages = _stages(implementation, model, x, y, lr)
        return either([bool(over([rests(stages[a][n], stages[b][n]) for n in stages[0]])) for a, b in pairs])

    return detector


def _idle_by_number(number: Callable[[nn.Module, Params, Tensor, Tensor], Tensor]) -> Callable[..., bool]:
    """Returns a detector that compares one number, or a few, before and after each step, instead of the parameters."""

    def detector(implementation: Loop, model: nn.Module, x: Tensor, y: Tensor, lr: float) -> bool:
        found = [number(model, stage, x, y) for stage in _stages(implementation, model, x, y, lr)]
        return any(torch.equal(a, b) for a, b in pairwise(found))

    return detector


def _idle_by_model(implementation: Loop, model: nn.Module, x: Tensor, y: Tensor, lr: float) -> bool:
    before = [p.detach().clone() for p in model.parameters()]
    implementation(model, x, y, lr, 2)
    return all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def _loss_of(model: nn.Module, params: Params, x: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(functional_call(model, params, (x,)), y)


def _idle_by_loss(implementation: Loop, model: nn.Module, x: Tensor, y: Tensor, lr: float) -> bool:
    losses = [float(_loss_of(model, stage, x, y)) for stage in _stages(implementation, model, x, y, lr)]
    return not losses[0] > losses[1] > losses[2]


def _idle_from_none(implementation: Loop, model: nn.Module, x: Tensor, y: Tensor, lr: float) -> bool:
    stages = [implementation(model, x, y, lr, steps) for steps in range(3)]
    return any(all(torch.equal(a[n], b[n]) for n in a) for a, b in pairwise(stages))


def _dead_layer(generator: Generator) -> nn.Module:
    """Returns a net whose hidden units are off everywhere, so that only the last bias has a gradient."""
    model = _seeded(generator, mlp((1, 3, 1)))
    with torch.no_grad():
        model[0].bias.fill_(-50.0)
    return model


def _quiet(generator: Generator) -> nn.Module:
    """Returns a net with biases of zero, which show a move of 1e-9 that its outputs, near 1, do not show."""
    model = _seeded(generator, nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)))
    with torch.no_grad():
        model[0].bias.zero_()
        model[2].bias.zero_()
    return model


def _swapping() -> nn.Module:
    """Returns a net of two weights that a step at rate 0.5 turns into each other, on the row (1, -1) with target 0."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -0.5]]))
    return model


def _idle_cases(generator: Generator) -> list[Case]:
    x = 4 * torch.rand(6, 1, generator=generator) - 2
    y, net = torch.sin(x), _seeded(generator, nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)))
    row, zero = torch.tensor([[1.0, -1.0]]), torch.zeros(1, 1)
    return [
        Case("a right loop", (_loop_right, net, x, y, 0.05)),
        Case("a right loop that returns plain values", (_loop_detached, net, x, y, 0.05)),
        Case("a right loop with a rate so large that the loss rises", (_loop_right, net, x, y, 5.0)),
        Case("a right loop on a net with dead units", (_loop_right, _dead_layer(generator), x, y, 0.05)),
        Case("a loop that moves the first layer only", (_loop_of(lambda name: name[0] == "0"), net, x, y, 0.05)),
        Case("a loop that moves the last bias only", (_loop_of(lambda name: name == "2.bias"), net, x, y, 0.05)),
        Case("a right loop with a rate of 1e-5", (_loop_right, net, x, y, 1e-5)),
        Case("a right loop with a rate of 1e-9", (_loop_right, _quiet(generator), x, y, 1e-9)),
        Case("the same in float64", (_loop_right, deepcopy(net).double(), x.double(), y.double(), 1e-9)),
        Case("two weights that move against each other", (_loop_right, _swapping(), row, zero, 0.2)),
        Case("two weights that change places in every step", (_loop_right, _swapping(), row, zero, 0.5)),
        Case("a loop that takes one step even when told to take none", (_loop_at_least_one, net, x, y, 0.05)),
        Case("a generator that is used twice", (_loop_generator, net, x, y, 0.05)),
        Case("the same with a large rate, and copies returned", (_loop_generator_copied, net, x, y, 5.0)),
        Case("new tensors that nobody keeps", (_loop_not_stored, net, x, y, 0.05)),
        Case("a generator that lasts for one step", (_loop_generator_outside, net, x, y, 0.05)),
        Case("a loop that takes one step less than it is told", (_loop_late, net, x, y, 0.05)),
        Case("a rate that is cut down to a whole number", (_loop_whole_rate, net, x, y, 0.05)),
        Case("the same at a rate of 1: it moves", (_loop_whole_rate, net, x, y, 1.0)),
        Case("a first step that only turns two signs", (_loop_right, _swapping(), row, zero + 0.5, 1.0)),
    ]


IDLE = Exercise(
    id="07.6",
    title="Bug hunt: does anything move?",
    reference=exposes_idle,
    cases=_idle_cases,
    right=(_idle_by_counting, _idle_by_vector, _idle_by_sizes, _idle_by_tensor),
    wrong=(
        Wrong(
            "the model's own",
            _idle_by_model,
            "every loop is called idle, as it happens when the model's own parameters are compared before and after: a right "
            "loop leaves them alone",
            "Compare what the implementation *returns* with where it started.",
        ),
        Wrong(
            "first step only",
            _idle_compared(torch.equal, pairs=((0, 1),)),
            "a loop whose first step moves and whose second does not is called sound",
            "Look at the second step too: what one step returns, and what two return.",
        ),
        Wrong(
            "second step only",
            _idle_compared(torch.equal, pairs=((1, 2),)),
            "the first step is never looked at: from the model's own parameters to what one step returns",
            "Two comparisons: the model with 1 step, and 1 step with 2.",
        ),
        Wrong(
            "start against the end",
            _idle_compared(torch.equal, pairs=((0, 2),)),
            "only the start and the end are compared: a loop that walks there and back seems idle, and one idle step goes unseen",
            "Two comparisons, one for each step.",
        ),
        Wrong(
            "both steps",
            _idle_compared(torch.equal, either=all),
            "the alarm needs two idle steps; one is enough",
            "True if the first step *or* the second moves nothing.",
        ),
        Wrong(
            "from steps=0",
            _idle_from_none,
            "the start is taken from a call with `steps=0`, which trusts the very loop that is on trial",
            "The first step starts from the model's own parameters: `dict(model.named_parameters())`.",
        ),
        Wrong(
            "a rate of its own",
            lambda implementation, model, x, y, lr: exposes_idle(implementation, model, x, y, 1.0),
            "the implementation is called with another rate than the one given",
            "Hand `lr` on: a loop can be idle at one rate and not at another.",
            also=(lambda implementation, model, x, y, lr: exposes_idle(implementation, model, x, y, 0.1),),
        ),
        Wrong(
            "falling loss",
            _idle_by_loss,
            "a falling loss is asked for: with a large rate a loop can move and the loss rise",
            "Compare parameters, not losses.",
        ),
        Wrong(
            "outputs",
            _idle_by_number(lambda model, params, x, y: functional_call(model, params, (x,))),
            "outputs or losses are compared: they can stay the same, to the last digit, while parameters move",
            "Compare the parameters themselves.",
            also=(_idle_by_number(_loss_of),),
        ),
        Wrong(
            "with a tolerance",
            _idle_compared(lambda a, b: torch.allclose(a, b, atol=1e-3)),
            "a small step counts as none",
            "A parameter that moved at all differs in some digit; a comparison with a tolerance does not see it.",
            also=(_idle_compared(torch.allclose),),
        ),
        Wrong(
            "every tensor must move",
            _idle_compared(torch.equal, any),
            "a single tensor that rests sounds the alarm; behind dead units, for one, a gradient is zero as it should be",
            "The loop is idle when *all* tensors rest.",
        ),
        Wrong(
            "one tensor",
            _idle_compared(torch.equal, lambda rests: rests[-1]),
            "one tensor, or one kind of tensors, speaks for all: a loop may move the others only",
            "Go through all names.",
            also=(_idle_compared(torch.equal, lambda rests: rests[0]),),
        ),
        Wrong(
            "sums",
            _idle_by_number(lambda model, params, x, y: torch.stack([p.sum() for p in params.values()]).sum()),
            "sums or norms of the parameters are compared: moves can cancel in a sum, and a norm can stay",
            "Compare number by number.",
            also=(
                _idle_by_number(lambda model, params, x, y: torch.stack([p.norm() for p in params.values()])),
                _idle_by_number(lambda model, params, x, y: torch.stack([p.mean() for p in params.values()])),
                _idle_by_number(lambda model, params, x, y: torch.cat([p.flatten() for p in params.values()]).norm()),
            ),
        ),
        Wrong(
            "turned round",
            lambda implementation, model, x, y, lr: not exposes_idle(implementation, model, x, y, lr),
            "the answer is turned round: True stands where the loop works",
            "True means that the bug is there.",
        ),
        Wrong(
            "dictionaries",
            lambda implementation, model, x, y, lr: (
                dict(model.named_parameters()) == implementation(model, x, y, lr, 1)
                or implementation(model, x, y, lr, 1) == implementation(model, x, y, lr, 2)
            ),
            "two dictionaries of tensors are compared by `==`, which cannot say yes or no for a tensor of several numbers",
            "Go through the names and compare tensor with tensor: one bool for each.",
        ),
        Wrong(
            "objects",
            _idle_compared(lambda a, b: a is b),
            "objects are compared, not values: two calls need not return the same ones",
            "`torch.equal(a, b)` compares values.",
        ),
    ),
    hints=(
        "What does a working loop return that an idle one does not? And after one more step?",
        "Compare the model's parameters with the result of 1 step, and that with the result of 2 steps.",
        "`rests = lambda a, b: all(torch.equal(a[n], b[n]) for n in a)`; return `rests(start, one) or rests(one, two)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 07.7 the largest rate


def largest_rate(features: Tensor) -> float:
    """Returns 2 over the largest eigenvalue of the Hessian 2 F'F / K of the mean squared error. features [K, P]."""
    hessian = 2 * features.T @ features / len(features)
    return float(2 / torch.linalg.eigvalsh(hessian)[-1])


def _rate_by_singular_values(features: Tensor) -> float:
    return len(features) / float(torch.linalg.svdvals(features)[0]) ** 2


def _rate_by_autograd(features: Tensor) -> float:
    hessian = torch.autograd.functional.hessian(
        lambda theta: (features @ theta).square().mean(), torch.zeros(features.shape[1], dtype=features.dtype)
    )
    return 2 / float(torch.linalg.eigvalsh(hessian).max())


def _stability_cases(generator: Generator) -> list[Case]:
    x = 10 * torch.rand(10, generator=generator, dtype=torch.float64) - 5
    return [
        Case("the example on paper: 0.4", (torch.tensor([[1.0], [2.0]], dtype=torch.float64),)),
        Case("sine and cosine on 10 points", (torch.stack([x.sin(), x.cos()], 1),)),
        Case("7 points, 3 features", (torch.randn(7, 3, generator=generator, dtype=torch.float64),)),
        Case("float32", (torch.randn(20, 2, generator=generator),)),
    ]


def _with_eigenvalue(rate: Callable[[Tensor, int], Tensor], scale: float = 2.0) -> Callable[[Tensor], float]:
    """Returns an answer rate(eigenvalues in rising order, K) for the Hessian scale F'F / K."""
    return lambda features: float(
        rate(torch.linalg.eigvalsh(scale * features.T @ features / len(features)), len(features))
    )


def _with_hessian(rate: Callable[[Tensor], Tensor]) -> Callable[[Tensor], float]:
    """Returns an answer rate(Hessian)."""
    return lambda features: float(rate(2 * features.T @ features / len(features)))


def _rate_by_power(features: Tensor) -> float:
    """Multiplies a vector by the Hessian until it points along the steepest direction."""
    direction = torch.linspace(1, 2, features.shape[1], dtype=features.dtype)
    for _ in range(500):
        direction = features.T @ (features @ direction)
        direction = direction / direction.norm()
    return len(features) / float((features @ direction).square().sum())


def _rate_by_norm(features: Tensor) -> float:
    """The spectral norm of F'F is its largest eigenvalue."""
    return len(features) / torch.linalg.matrix_norm(features.mT @ features, ord=2).item()


LARGEST = Exercise(
    id="07.7",
    title="The largest rate",
    reference=largest_rate,
    cases=_stability_cases,
    tolerance=1e-4,
    right=(_rate_by_singular_values, _rate_by_autograd, _rate_by_power, _rate_by_norm),
    wrong=(
        Wrong(
            "of a sum",
            _with_eigenvalue(lambda e, k: 2 / (e[-1] * k)),
            "the Hessian is that of the sum, not of the mean",
            "Divide by K: the loss is a mean.",
        ),
        Wrong(
            "bare product",
            lambda features: 2 / float(torch.linalg.eigvalsh(features.T @ features)[-1]),
            "F'F itself stands for the Hessian, without 2 / K",
            "The loss is a mean of squares: H = 2 F'F / K.",
        ),
        Wrong(
            "divided by P",
            lambda features: 2 / float(torch.linalg.eigvalsh(2 * features.T @ features / features.shape[1])[-1]),
            "the sum is divided by the number of features, not of rows",
            "K is the number of rows: `len(features)`.",
        ),
        Wrong(
            "no 2 in the Hessian",
            _with_eigenvalue(lambda e, k: 2 / e[-1], 1.0),
            "the square's own 2 is missing in the Hessian",
            "The second derivative of a square is 2: H = 2 F'F / K.",
        ),
        Wrong(
            "straight to the optimum",
            _with_eigenvalue(lambda e, k: 1 / e[-1]),
            "1/h is returned: the rate that lands on the optimum, not the one that starts to leave it",
            "The factor 1 − α h must stay above −1.",
        ),
        Wrong(
            "smallest",
            _with_eigenvalue(lambda e, k: 2 / e[0]),
            "the flattest direction is asked, but the steepest one breaks first",
            "Take the largest eigenvalue.",
        ),
        Wrong(
            "trace",
            _with_eigenvalue(lambda e, k: 2 / e.sum()),
            "all eigenvalues are added up",
            "Every direction shrinks by its own factor: only the largest eigenvalue decides.",
        ),
        Wrong(
            "another size",
            _with_hessian(lambda hessian: 2 / hessian.norm()),
            "another measure of the Hessian's size stands for its largest eigenvalue: its norm, its largest entry, or a mean",
            "`torch.linalg.eigvalsh(hessian)[-1]` is the largest eigenvalue.",
            also=(
                _with_hessian(lambda hessian: 2 / hessian.max()),
                _with_hessian(lambda hessian: 2 / hessian.diagonal().mean()),
            ),
        ),
        Wrong(
            "curvature, not rate",
            _with_eigenvalue(lambda e, k: e[-1]),
            "the eigenvalue itself is returned, or half of it: a curvature, not a rate",
            "The factor 1 − α h reaches −1 at α = 2 / h.",
            also=(_with_eigenvalue(lambda e, k: e[-1] / 2),),
        ),
        Wrong(
            "singular value",
            _with_eigenvalue(lambda e, k: 2 / (e[-1] * k / 2).sqrt()),
            "a singular value of the features stands for an eigenvalue of the Hessian",
            "Square it, times 2, divided by K.",
        ),
    ),
    hints=(
        "In one dimension the distance to the optimum is multiplied by 1 − α h in every step.",
        "It must lie between −1 and 1 for the largest eigenvalue h of H = 2 F'F / K, F the features.",
        "`return float(2 / torch.linalg.eigvalsh(2 * features.T @ features / len(features))[-1])`",
    ),
)

# ---------------------------------------------------------------------------------------------- 07.8 from memory


def fit_and_predict(
    model: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, lr: float, steps: int
) -> Tensor:
    """Returns query predictions after the inner loop on the support."""
    theta = adapt(
        lambda p: F.mse_loss(functional_call(model, p, (support_x,)), support_y),
        dict(model.named_parameters()),
        lr,
        steps,
    )
    return functional_call(model, theta, (query_x,))


def _memory_func(
    model: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, lr: float, steps: int
) -> Tensor:
    theta = dict(model.named_parameters())
    for _ in range(steps):
        slopes = grad(lambda p: (functional_call(model, p, (support_x,)) - support_y).square().mean())(theta)
        theta = {name: theta[name] - lr * slopes[name] for name in theta}
    return functional_call(model, theta, (query_x,))


def _memory_lists(
    model: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, lr: float, steps: int
) -> Tensor:
    names, values = zip(*model.named_parameters(), strict=True)
    for _ in range(steps):
        outputs = functional_call(model, dict(zip(names, values, strict=True)), (support_x,))
        slopes = torch.autograd.grad(F.mse_loss(outputs, support_y), values, create_graph=True)
        values = tuple(v - lr * s for v, s in zip(values, slopes, strict=True))
    return functional_call(model, dict(zip(names, values, strict=True)), (query_x,))


def _memory_by(
    loop: Callable[..., Params] = adapt,
    loss: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
    on_support: bool = False,
    last: Callable[[Tensor], Tensor] = lambda outputs: outputs,
) -> Callable[..., Tensor]:
    """Returns the method with another loop, another loss, predictions for the wrong rows, or a change of the result."""

    def method(
        model: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, lr: float, steps: int
    ) -> Tensor:
        params = dict(model.named_parameters())
        theta = loop(lambda p: loss(functional_call(model, p, (support_x,)), support_y), params, lr, steps)
        return last(functional_call(model, theta, (support_x if on_support else query_x,)))

    return method


def _memory_recursive(
    model: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, lr: float, steps: int
) -> Tensor:
    def error(theta: Params) -> Tensor:
        return nn.MSELoss()(functional_call(model, theta, (support_x,)), support_y)

    def after(theta: Params, left: int) -> Params:
        return theta if left == 0 else after(_step_jacobian(error, theta, lr), left - 1)

    return functional_call(model, after(dict(model.named_parameters()), steps), query_x)


def _memory_by_name(
    model: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, lr: float, steps: int
) -> Tensor:
    predict = partial(functional_call, model)
    theta = {name: p for name, p in model.named_parameters()}  # noqa: C416
    for _ in range(steps):
        theta = _step_by_name(lambda p: (support_y - predict(p, support_x)).pow(2).sum() / len(support_y), theta, lr)
    return predict(theta, query_x)


def _memory_sgd(*, copied: bool) -> Callable[..., Tensor]:
    def method(
        model: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, lr: float, steps: int
    ) -> Tensor:
        net = deepcopy(model) if copied else model
        optimiser = torch.optim.SGD(net.parameters(), lr)
        for _ in range(steps):
            optimiser.zero_grad()
            F.mse_loss(net(support_x), support_y).backward()
            optimiser.step()
        return net(query_x)

    return method


def _memory_cases(generator: Generator) -> list[Case]:
    def case(says: str, points: int, queries: int, steps: int) -> Case:
        model = _seeded(generator, nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)))
        x = 4 * torch.rand(points + queries, 1, generator=generator) - 2
        return Case(says, (model, x[:points], torch.sin(2 * x[:points]), x[points:], 0.1, steps))

    return [
        case("6 points, 4 queries, 3 steps", 6, 4, 3),
        case("5 points, 5 queries, one step", 5, 5, 1),
        case("3 points, one query, 2 steps", 3, 1, 2),
    ]


MEMORY = Exercise(
    id="07.8",
    title="The inner loop from memory",
    reference=fit_and_predict,
    cases=_memory_cases,
    gradient=(0, 3),
    right=(_memory_func, _memory_lists, _memory_recursive, _memory_by_name),
    wrong=(
        Wrong(
            "no adaptation",
            lambda model, support_x, support_y, query_x, lr, steps: model(query_x),
            "the predictions are the model's own: the support is not used, the adapted parameters are not used, or nothing moved",
            "First the inner loop on the support, then a call with its result. Did any parameter move?",
        ),
        Wrong(
            "optimiser on the model",
            _memory_sgd(copied=False),
            "an optimiser moves the model itself: the next task would start from this one's weights",
            "Parameters as a dictionary, steps as expressions.",
        ),
        Wrong(
            "optimiser on a copy",
            _memory_sgd(copied=True),
            "the predictions are right, but nothing ties them to the initialisation: a copy is trained, or the graph is cut",
            "`theta = {name: p - lr * g}` keeps the graph; a copy, .detach() and .data cut it.",
            also=(_memory_by(last=Tensor.detach),),
        ),
        Wrong(
            "constant gradients",
            _memory_by(_adapt_by(_stepped(lambda p, g, lr: p - lr * g, graph=False))),
            "the gradients of the inner loop are constants: `create_graph=True` is missing, or .data, .detach() or no_grad cuts "
            "what it keeps",
            "`torch.autograd.grad(..., create_graph=True)`, and use its results as they are.",
        ),
        Wrong(
            "summed loss",
            _memory_by(loss=lambda a, b: F.mse_loss(a, b, reduction="sum")),
            "the squared errors are summed: the rate is multiplied by the number of points",
            "Take the mean.",
        ),
        Wrong(
            "halved loss",
            _memory_by(loss=lambda a, b: F.mse_loss(a, b) / 2),
            "the loss is halved, and with it every step",
            "The plain mean of the squared errors: `F.mse_loss`.",
        ),
        Wrong(
            "another loss",
            _memory_by(loss=F.l1_loss),
            "another loss than the mean squared error is descended",
            "`F.mse_loss(outputs, support_y)`.",
            also=(_memory_by(loss=F.smooth_l1_loss), _memory_by(loss=lambda a, b: F.mse_loss(a, b).sqrt())),
        ),
        Wrong(
            "every output with every target",
            _memory_by(loss=lambda a, b: (a - b.flatten()).square().mean()),
            "[K, 1] minus [K] is broadcast to [K, K]: every output is compared with every target",
            "Keep both at [K, 1].",
        ),
        Wrong(
            "always from the start",
            _memory_by(_adapt_from_the_start),
            "every gradient is taken at the model's own parameters",
            "Call the model with the *moved* parameters in every round: `functional_call(model, theta, (support_x,))`.",
        ),
        Wrong(
            "one too many",
            _memory_by(lambda loss_fn, params, lr, steps: adapt(loss_fn, params, lr, steps + 1)),
            "there is one step too many, or one too few",
            "`for _ in range(steps)` runs exactly `steps` times.",
            also=(_memory_by(lambda loss_fn, params, lr, steps: adapt(loss_fn, params, lr, steps - 1)),),
        ),
        Wrong(
            "no rate",
            _memory_by(_adapt_by(_stepped(lambda p, g, lr: p - g))),
            "the learning rate is forgotten",
            "`p - lr * g`.",
        ),
        Wrong(
            "flattened",
            _memory_by(last=Tensor.flatten),
            "the predictions are flattened",
            "Return what the model returns, [Q, 1].",
        ),
        Wrong(
            "predictions for the support",
            _memory_by(on_support=True),
            "the support is predicted, not the queries",
            "The last call is on `query_x`.",
        ),
        Wrong(
            "one step",
            _memory_by(lambda loss_fn, params, lr, steps: inner_step(loss_fn, params, lr)),
            "there is one step, whatever was asked for",
            "`for _ in range(steps)`.",
        ),
        Wrong(
            "uphill",
            _memory_by(_adapt_by(_stepped(lambda p, g, lr: p + lr * g))),
            "the steps go uphill",
            "`p - lr * g`.",
        ),
    ),
    hints=(
        "A dictionary of parameters, a loop of steps on the support, one call on the queries.",
        "In each round: `functional_call` on the support, mean squared error, `autograd.grad(..., create_graph=True)`.",
        "Start: `theta = dict(model.named_parameters())`. End: `return functional_call(model, theta, (query_x,))`",
    ),
)

EXERCISES = (RUN, STEP, ADAPT, MEAN, RATE, IDLE, LARGEST, MEMORY)
