"""A model as a function of its parameters: its outputs, its loss on a task's support, its predictions of the queries.

All for one task, or for T stacked tasks at once, each with parameters of its own. Besides: gradients as functions, and scalars
with a given gradient.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.dropout import _DropoutNd

from fsl_course.episodes import Episode
from fsl_course.inner_loop.second_derivatives import cheap_second_derivatives
from fsl_course.inner_loop.support_statistics import batch_statistics, norms_for_vmap, query_statistics

Params = dict[str, Tensor]
LossFn = Callable[[Tensor, Tensor], Tensor]


def trainable(model: nn.Module) -> Params:
    """Returns the parameters that are adapted and learned, all but the frozen (requires_grad=False). Tied ones appear once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def call(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    """Returns model(x) with these parameters in place of its own. The parameters and buffers of the model stay as they are."""
    for module in model.modules():
        if isinstance(module, _DropoutNd) and module.training and module.p > 0:
            raise ValueError(
                f"{type(module).__name__}(p={module.p}) makes the inner loss a game of chance without a seed: "
                "take it out of the model, set its p to 0, or put it into evaluation mode."
            )
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return call_with(model, {**buffers, **params}, x)


def call_with(model: nn.Module, tensors: Params, x: Tensor) -> Tensor:
    """Returns model(x) with these tensors in place of its parameters and buffers; a tied one is named once, by its first name.

    functional_call alone would put back wrong tensors where one layer occurs twice, because it exchanges them under both names.
    """
    first: dict[int, str] = {}
    for prefix, module in model.named_modules():  # each layer once
        for name, own in [*module._parameters.items(), *module._buffers.items()]:
            place = f"{prefix}.{name}" if prefix else name
            if own is not None and (tied := first.setdefault(id(own), place)) in tensors:
                tensors = tensors if tied == place else {**tensors, place: tensors[tied]}
    return functional_call(model, tensors, (x,), tie_weights=False)


def grad(f: Callable[[Params], Tensor]) -> Callable[[Params], Params]:
    """Returns the gradient of a scalar function of parameters as a function: torch.func.grad, in half the time for small nets.

    Outside of any transform, plain autograd gives the same, and keeps the graph of the gradient where gradients are enabled. In
    torch.inference_mode() it records nothing, so torch.func.grad is used there.
    """

    def gradient(params: Params) -> Params:
        keep = torch.is_grad_enabled()
        by_transform = torch._C._are_functorch_transforms_active() or torch.is_inference_mode_enabled()
        if by_transform or (keep and not all(p.requires_grad for p in params.values())):
            return torch.func.grad(f)(params)
        with torch.enable_grad():
            # views, because f may use the same tensors in another role, which is no part of the gradient of params
            own = {name: p.view_as(p) if keep else p.detach().requires_grad_() for name, p in params.items()}
            value = f(own)
            if not value.requires_grad:
                return {name: torch.zeros_like(p) for name, p in params.items()}
            found = torch.autograd.grad(value, list(own.values()), create_graph=keep, materialize_grads=True)
        return dict(zip(params, found, strict=True))

    return gradient


def supervised_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross-entropy of logits [B, N] and labels int64 [B], or the mean squared error of float targets [B, d]."""
    return F.mse_loss(outputs, targets) if targets.is_floating_point() else F.cross_entropy(outputs, targets)


def with_gradient(value: Tensor, tensors: Iterable[Tensor], gradients: Iterable[Tensor | None]) -> Tensor:
    """Returns a scalar that has this value, and `gradients` as its gradient with respect to the tensors.

    For gradients that do not come from autograd. The value itself is not differentiated. None leaves a tensor out.
    """
    pairs = zip(tensors, gradients, strict=True)
    pull = sum(((t * g.detach()).sum() for t, g in pairs if g is not None), value.new_zeros(()))
    return value.detach() + (pull - pull.detach())


def own_copies(params: Params, tasks: int) -> Params:
    """Returns every parameter once for each task, [tasks, ...], as views: their gradients add up in the parameter."""
    return {name: p.expand(tasks, *p.shape) for name, p in params.items()}


def _is_plain_mlp(model: nn.Module, params: Params) -> bool:
    """Returns True for linear layers and ReLUs in sequence, without hooks and tied weights, with all parameters in params."""
    layers = list(model) if type(model) is nn.Sequential else [model]
    kinds = all(type(layer) in (nn.Linear, nn.ReLU) for layer in layers)
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return kinds and not hooked and len(layers) > 1 and set(params) == own


def call_stacked(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    """Does what `call` does for T tasks at once. params: name -> [T, ...]; x: [T, B, ...] -> outputs [T, B, ...].

    A plain MLP is computed by batched matrix products, in half the time that it takes under vmap.
    """
    if not _is_plain_mlp(model, params):
        with norms_for_vmap(model):
            return vmap(lambda own, rows: call(model, own, rows))(params, x)
    for name, layer in model._modules.items():  # named_children would leave out a layer that occurs twice
        if isinstance(layer, nn.ReLU):
            x = x.relu()
        else:
            weight = params[f"{name}.weight"].mT
            x = x @ weight if layer.bias is None else torch.baddbmm(params[f"{name}.bias"].unsqueeze(1), x, weight)
    return x


def _check_ways(outputs: Tensor, episode: Episode) -> Tensor:
    """Returns the outputs unchanged. Raises ValueError if the model has not as many of them as the episode has classes."""
    if not episode.support_y.is_floating_point() and outputs.shape[-1] != episode.n_way:
        raise ValueError(
            f"the model has {outputs.shape[-1]} outputs and the episode {episode.n_way} classes: a method with a fixed "
            "head takes the number of ways that it was made for."
        )
    return outputs


def support_loss(model: nn.Module, episode: Episode, loss_fn: LossFn = supervised_loss) -> Callable[[Params], Tensor]:
    """Returns a function: params -> loss of one task on its support, a scalar. Batch norm uses the statistics of the support.

    For T stacked tasks, with params [T, ...], the sum of their losses: the gradient of each task's params is its own.
    Made under torch.no_grad(), it expects that nobody asks for second derivatives: they stay right, and are slower.
    """
    ready = cheap_second_derivatives if torch.is_grad_enabled() else nullcontext  # first ones alone are faster without

    def loss(params: Params) -> Tensor:
        with batch_statistics(model), ready(model):
            run = call_stacked if episode.stacked else call
            outputs = _check_ways(run(model, params, episode.support_x), episode)
        if not episode.stacked:
            return loss_fn(outputs, episode.support_y)
        return len(episode) * loss_fn(outputs.flatten(0, 1), episode.support_y.flatten(0, 1))

    return loss


def predict(model: nn.Module, params: Params, episode: Episode) -> Tensor:
    """Query outputs [N*Q, N] of one task under these (adapted) parameters; [T, N*Q, N] of T stacked tasks and params [T, ...].

    In evaluation mode batch norm normalises the queries by the statistics of the support, so each is judged on its own; in
    training mode by their own, as in the paper's code.
    """
    run = call_stacked if episode.stacked else call
    with query_statistics(model, lambda: run(model, params, episode.support_x)):
        return _check_ways(run(model, params, episode.query_x), episode)
