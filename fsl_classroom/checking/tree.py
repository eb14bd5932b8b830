"""Copies of arguments and the tensors inside them: tensors, arrays, modules, and containers or dataclasses of these."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def is_record(value: Any) -> bool:
    """Is this an instance of a dataclass?"""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _copy_tensor(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _double_tensor(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return _copy_tensor(tensor)
    return tensor.detach().to(torch.float64, copy=True).requires_grad_(tensor.requires_grad)


def _rebuild(value: Any, on_tensor: Callable[[Tensor], Tensor], memo: dict[int, Any]) -> Any:
    """The same structure with every tensor replaced by on_tensor(tensor). What occurs twice occurs twice in the copy."""
    if id(value) in memo:
        return memo[id(value)]
    again = lambda item: _rebuild(item, on_tensor, memo)  # noqa: E731
    made: Any
    if type(value) in (Tensor, nn.Parameter):
        made = on_tensor(value)
    elif isinstance(value, torch.Generator):
        made = torch.Generator(device=value.device)
        made.set_state(value.get_state())
    elif isinstance(value, nn.Module):
        made = _deep(value)
        if on_tensor is _double_tensor:
            made = made.double()
    elif type(value) in (list, set, frozenset):
        made = type(value)(again(item) for item in value)
    elif isinstance(value, tuple):
        items = [again(item) for item in value]
        made = type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    elif isinstance(value, dict):
        made = copy.copy(value)
        made.update((key, again(item)) for key, item in value.items())
    elif is_record(value):
        made = copy.copy(value)
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                object.__setattr__(made, field.name, again(getattr(value, field.name)))
    else:
        made = _deep(value)
    memo[id(value)] = made
    return made


def _deep(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # locks, open files, tensors with a history: such an argument is shared, not copied
        return value


def clone(value: Any) -> Any:
    """A copy that shares no memory with the value. Tensors keep requires_grad and lose their history."""
    return _rebuild(value, _copy_tensor, {})


def to_double(value: Any) -> Any:
    """A copy with every floating-point tensor and module in float64."""
    return _rebuild(value, _double_tensor, {})


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """(path, item) for the items of a container, mapping or dataclass; nothing for everything else."""
    if isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", None)
        for index, item in enumerate(value):
            yield (f".{names[index]}" if names else f"[{index}]"), item
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield f"[{key!r:.40}]", item
    elif is_record(value):
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                yield f".{field.name}", getattr(value, field.name)


def tensors(value: Any) -> list[tuple[str, Tensor]]:
    """(path, tensor) for every tensor in the value, parameters and buffers of modules included."""
    if isinstance(value, Tensor):
        return [("", value)]
    if isinstance(value, nn.Module):
        return [(f".{name}", tensor) for name, tensor in value.state_dict(keep_vars=True).items()]
    if isinstance(value, np.ndarray):
        return [("", torch.as_tensor(value))] if value.dtype.kind in "fiub" else []
    return [(path + rest, tensor) for path, item in children(value) for rest, tensor in tensors(item)]


def float_tensors(value: Any) -> list[tuple[str, Tensor]]:
    """(path, tensor) for every floating-point tensor in the value."""
    return [(path, tensor) for path, tensor in tensors(value) if tensor.is_floating_point()]
