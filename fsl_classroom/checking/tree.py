"""Copies arguments and finds the tensors in them: tensors, arrays, modules, and containers or dataclasses of these."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def is_record(value: Any) -> bool:
    """Returns True for an instance of a dataclass."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _copy_tensor(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _double_tensor(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return _copy_tensor(tensor)
    return tensor.detach().to(torch.float64, copy=True).requires_grad_(tensor.requires_grad)


def _rebuild(value: Any, on_tensor: Callable[[Tensor], Tensor], memo: dict[int, Any]) -> Any:
    """Returns the same structure with on_tensor(tensor) in place of every tensor. Shared parts stay shared in the copy.

    memo: id of a part -> its copy
    """
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
    except Exception:  # locks, open files and tensors with a history cannot be copied: the argument is shared
        return value


def clone(value: Any) -> Any:
    """Returns a copy that shares no memory with the value. Tensors keep requires_grad and lose their history."""
    return _rebuild(value, _copy_tensor, {})


def to_double(value: Any) -> Any:
    """Returns a copy with all floating-point tensors and modules in float64."""
    return _rebuild(value, _double_tensor, {})


def widened(expected: Any, got: Any) -> Any:
    """Returns `got` with float32 tensors made float64 where the expected ones are; `got` itself if there are none."""
    if isinstance(expected, Tensor) and type(got) in (Tensor, nn.Parameter):
        single = got.dtype == torch.float32 and expected.dtype == torch.float64
        return got.double() if single else got
    if isinstance(expected, Mapping) and type(got) is dict:
        made = {key: widened(expected[key], item) if key in expected else item for key, item in got.items()}
        return made if any(made[key] is not got[key] for key in got) else got
    if isinstance(expected, (list, tuple)) and type(got) in (list, tuple) and len(got) == len(expected):
        items = [widened(a, b) for a, b in zip(expected, got, strict=True)]
        return type(got)(items) if any(a is not b for a, b in zip(items, got, strict=True)) else got
    return got


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields (path, item) for the items of a container, mapping or dataclass, and nothing for other values.

    The items of a mapping come in the order of their keys' names, whatever order they were put in.
    """
    if isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", None)
        for index, item in enumerate(value):
            yield (f".{names[index]}" if names else f"[{index}]"), item
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield f"[{key!r:.40}]", value[key]
    elif is_record(value):
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                yield f".{field.name}", getattr(value, field.name)


def tensors(value: Any) -> list[tuple[str, Tensor]]:
    """Returns (path, tensor) for every tensor in the value, including parameters and buffers of modules."""
    if isinstance(value, Tensor):
        return [("", value)]
    if isinstance(value, nn.Module):
        return [(f".{name}", tensor) for name, tensor in value.state_dict(keep_vars=True).items()]
    if isinstance(value, np.ndarray):
        return [("", torch.as_tensor(value))] if value.dtype.kind in "fiub" else []
    return [(path + rest, tensor) for path, item in children(value) for rest, tensor in tensors(item)]


def float_tensors(value: Any) -> list[tuple[str, Tensor]]:
    """Returns (path, tensor) for every floating-point tensor in the value."""
    return [(path, tensor) for path, tensor in tensors(value) if tensor.is_floating_point()]
