"""A module as a function of its parameters: those of one task, or T tasks at once, each with parameters of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.dropout import _DropoutNd

from fsl_course.methods.support_statistics import norms_for_vmap

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


def own_copies(params: Params, tasks: int) -> Params:
    """Every parameter once for each task, [tasks, ...]: views, whose gradients add up in the parameter."""
    return {name: p.expand(tasks, *p.shape) for name, p in params.items()}


def _is_plain_mlp(model: nn.Module, params: Params) -> bool:
    """True for an nn.Sequential of linear layers and ReLUs whose parameters are all among params."""
    layers = list(model) if type(model) is nn.Sequential else [model]
    kinds = all(type(layer) in (nn.Linear, nn.ReLU) for layer in layers)
    return kinds and len(layers) > 1 and set(params) == {name for name, _ in model.named_parameters()}


def call_stacked(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    """`call` for T tasks at once. params: name -> [T, ...]; x: [T, B, ...] -> outputs [T, B, ...].

    A plain MLP is written out as batched matrix products, which takes half the time of what vmap makes of it.
    """
    if not _is_plain_mlp(model, params):
        with norms_for_vmap(model):
            return vmap(lambda own, rows: call(model, own, rows))(params, x)
    for name, layer in model.named_children():
        if isinstance(layer, nn.ReLU):
            x = x.relu()
        else:
            weight = params[f"{name}.weight"].mT
            x = x @ weight if layer.bias is None else torch.baddbmm(params[f"{name}.bias"].unsqueeze(1), x, weight)
    return x
