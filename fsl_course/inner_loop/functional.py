"""A module as a function of its parameters: those of one task, or T tasks at once, each with parameters of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.dropout import _DropoutNd

from fsl_course.inner_loop.support_statistics import norms_for_vmap

Params = dict[str, Tensor]


def trainable(model: nn.Module) -> Params:
    """The parameters that are adapted and learned: all of them but the frozen (requires_grad=False). Tied ones appear once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def call(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    """model(x) with these parameters in place of its own. Parameters and buffers of the model stay as they are."""
    for module in model.modules():
        if isinstance(module, _DropoutNd) and module.training and module.p > 0:
            raise ValueError(
                f"{type(module).__name__}(p={module.p}) makes the inner loss a game of chance without a seed: "
                "take it out of the model, set its p to 0, or put it into evaluation mode."
            )
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return functional_call(model, {**buffers, **params}, (x,))


def grad(f: Callable[[Params], Tensor]) -> Callable[[Params], Params]:
    """The gradient of a scalar function of parameters, as a function: torch.func.grad, in half its time for small nets.

    torch.func wraps every tensor anew at every operation, so that transforms may be nested. Outside of any, plain autograd does
    the same: the graph of the gradient is kept where gradients are enabled. Not so in torch.inference_mode(), where plain
    autograd records nothing and every gradient would be 0.
    """

    def gradient(params: Params) -> Params:
        keep = torch.is_grad_enabled()
        by_transform = torch._C._are_functorch_transforms_active() or torch.is_inference_mode_enabled()
        if by_transform or (keep and not all(p.requires_grad for p in params.values())):
            return torch.func.grad(f)(params)
        with torch.enable_grad():
            # views: f may hold the same tensors in another role, which the gradient with respect to params leaves out
            own = {name: p.view_as(p) if keep else p.detach().requires_grad_() for name, p in params.items()}
            value = f(own)
            if not value.requires_grad:
                return {name: torch.zeros_like(p) for name, p in params.items()}
            found = torch.autograd.grad(value, list(own.values()), create_graph=keep, materialize_grads=True)
        return dict(zip(params, found, strict=True))

    return gradient


def supervised_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """A scalar: mean cross-entropy for class labels (logits [B, N], int64 [B]), mean squared error for float targets [B, d]."""
    return F.mse_loss(outputs, targets) if targets.is_floating_point() else F.cross_entropy(outputs, targets)


def with_gradient(value: Tensor, tensors: Iterable[Tensor], gradients: Iterable[Tensor | None]) -> Tensor:
    """A scalar with this value whose gradient with respect to the tensors is `gradients`: for gradients that are not autograd's.

    The value itself is not differentiated. A gradient of None leaves its tensor out.
    """
    pull = sum(
        ((t * g.detach()).sum() for t, g in zip(tensors, gradients, strict=True) if g is not None), value.new_zeros(())
    )
    return value.detach() + (pull - pull.detach())


def own_copies(params: Params, tasks: int) -> Params:
    """Every parameter once for each task, [tasks, ...]: views, whose gradients add up in the parameter."""
    return {name: p.expand(tasks, *p.shape) for name, p in params.items()}


def _is_plain_mlp(model: nn.Module, params: Params) -> bool:
    """True for an nn.Sequential of linear layers and ReLUs, without hooks or tied weights, whose parameters are all in params."""
    layers = list(model) if type(model) is nn.Sequential else [model]
    kinds = all(type(layer) in (nn.Linear, nn.ReLU) for layer in layers)
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return kinds and not hooked and len(layers) > 1 and set(params) == own


def call_stacked(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    """`call` for T tasks at once. params: name -> [T, ...]; x: [T, B, ...] -> outputs [T, B, ...].

    A plain MLP is written out as batched matrix products, which takes half the time of what vmap makes of it.
    """
    if not _is_plain_mlp(model, params):
        with norms_for_vmap(model):
            return vmap(lambda own, rows: call(model, own, rows))(params, x)
    for name, layer in model._modules.items():  # named_children leaves out a layer that it has seen
        if isinstance(layer, nn.ReLU):
            x = x.relu()
        else:
            weight = params[f"{name}.weight"].mT
            x = x @ weight if layer.bias is None else torch.baddbmm(params[f"{name}.bias"].unsqueeze(1), x, weight)
    return x
