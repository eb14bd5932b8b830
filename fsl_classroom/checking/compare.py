"""Compares two results and says in words where they differ."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsl_classroom.checking.describe import advice, describe_both, dtype_advice, number_pair
from fsl_classroom.checking.tree import children, float_tensors, is_record

# For float64, relative and absolute: a right answer may hold a constant or a table in float32, which is good to 6e-8.
DOUBLE = 1e-6


def compare(expected: Any, got: Any, tolerance: float, *, values: bool = True, path: str = "") -> str | None:
    """Returns None if `got` is as good as `expected`, else one or two sentences about the first difference.

    values=False compares only types, shapes, dtypes, devices, lengths and keys. Lists and tuples may replace each other, as may
    NumPy and Python numbers; a bool tensor without dimensions may stand for a bool; NaN equals NaN. The tolerance is both
    relative and absolute; integers must be equal.

    path: where the values are in the whole result, e.g. "[0].weight", for the sentences
    """
    where = f"At {path}: e" if path else "E"
    ours, theirs = describe_both(expected, got)
    differ = f"{where}xpected {ours}, got {theirs}."
    if isinstance(expected, (Tensor, np.ndarray)):
        kind = Tensor if isinstance(expected, Tensor) else np.ndarray
        if not isinstance(got, kind):
            return differ + advice(expected, got)
        return _compare_tensors(expected, got, tolerance, values, path, differ)
    if isinstance(expected, (numbers.Number, np.number, np.bool_)):
        return _compare_numbers(expected, got, tolerance, values, differ)
    if isinstance(expected, nn.Module):
        if not isinstance(got, nn.Module):
            return differ + advice(expected, got)
        if not values:
            return None
        if got.training != expected.training:
            modes = {True: "training", False: "evaluation"}
            return f"{where}xpected a module in {modes[expected.training]} mode, got {modes[got.training]} mode."
        return compare(dict(expected.state_dict()), dict(got.state_dict()), tolerance, path=path)
    if isinstance(expected, (list, tuple, Mapping)) or is_record(expected):
        return _compare_containers(expected, got, tolerance, values, path, differ)
    if callable(expected) or isinstance(expected, torch.Generator):  # the exercise's `same` compares what functions do
        same_kind = callable(got) if callable(expected) else isinstance(got, torch.Generator)
        return None if same_kind else differ + advice(expected, got)
    if type(got) is not type(expected):
        return differ + advice(expected, got)
    if not values or got is expected:
        return None
    if type(expected).__eq__ is object.__eq__:  # without an equality of its own, its attributes decide
        return compare(_held(expected), _held(got), tolerance, path=path)
    return None if bool(expected == got) else differ


def _held(value: Any) -> dict[str, Any]:
    """Returns the attributes of an object, with objects among them replaced by their type names: cycles cannot recurse."""
    plain = (Tensor, np.ndarray, numbers.Number, str, list, tuple, dict, nn.Module, type(None))
    return {k: v if isinstance(v, plain) else type(v).__name__ for k, v in getattr(value, "__dict__", {}).items()}


def as_bool(value: Any) -> bool | None:
    """Returns the value as a bool if it is one: of Python, of NumPy, or a bool tensor without dimensions. Else None."""
    if isinstance(value, Tensor) and value.dtype == torch.bool and value.ndim == 0:
        return bool(value)
    return bool(value) if isinstance(value, (bool, np.bool_)) else None


def _compare_numbers(expected: Any, got: Any, tolerance: float, values: bool, differ: str) -> str | None:
    ours, theirs = as_bool(expected), as_bool(got)
    if ours is not None and theirs is not None:
        return None if not values or ours == theirs else differ
    if not isinstance(got, (numbers.Number, np.number, np.bool_)):
        return differ + advice(expected, got)
    fraction_for_integer = isinstance(expected, numbers.Integral) and not isinstance(got, numbers.Integral)
    if ours is not None or theirs is not None or fraction_for_integer:
        return differ + advice(expected, got)
    if not values or expected == got or (expected != expected and got != got):
        return None
    allowed = tolerance * (1 + abs(expected))
    exact = isinstance(expected, numbers.Integral) or allowed == float("inf")  # every number is within infinity
    return differ if exact or not abs(expected - got) <= allowed else None


def _compare_containers(expected: Any, got: Any, tolerance: float, values: bool, path: str, differ: str) -> str | None:
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping):
            return differ + advice(expected, got)
        if missing := [key for key in expected if key not in got]:
            return f"{differ} Missing: {', '.join(repr(key)[:40] for key in missing[:5])}."
        if extra := [key for key in got if key not in expected]:
            return f"{differ} Not asked for: {', '.join(repr(key)[:40] for key in extra[:5])}."
        got = {key: got[key] for key in expected}  # the order of keys does not matter
    elif is_record(expected):
        if type(got).__name__ != type(expected).__name__:
            return differ + advice(expected, got)
    elif not isinstance(got, (list, tuple)) or len(got) != len(expected):
        return differ + ("" if isinstance(got, (list, tuple)) else advice(expected, got))
    for (step, ours), (_, theirs) in zip(children(expected), children(got), strict=True):
        if words := compare(ours, theirs, tolerance, values=values, path=path + step):
            return words
    return None


def _compare_tensors(
    expected: Tensor | np.ndarray, got: Tensor | np.ndarray, tolerance: float, values: bool, path: str, differ: str
) -> str | None:
    if tuple(expected.shape) != tuple(got.shape):
        flipped = expected.ndim == 2 and tuple(got.shape) == tuple(expected.shape[::-1])
        return differ + (" Is it transposed?" if flipped else "")
    if expected.dtype != got.dtype:
        return differ + dtype_advice(expected, got)
    if isinstance(expected, Tensor) and (expected.device != got.device or expected.layout != got.layout):
        return f"Expected a tensor on {expected.device} ({expected.layout}), got one on {got.device} ({got.layout})."
    if not values or 0 in expected.shape:
        return None
    if isinstance(expected, np.ndarray) and expected.dtype.kind not in "fiubc":
        return None if (expected == got).all() else differ
    ours = torch.as_tensor(expected).detach().cpu().to_dense()
    theirs = torch.as_tensor(got).detach().cpu().to_dense()
    if not ours.is_floating_point() and not ours.is_complex():
        wrong = ours != theirs
        return _first_difference(ours, theirs, wrong, path) if wrong.any() else None
    wide = torch.complex128 if ours.is_complex() else torch.float64
    a, b = ours.to(wide), theirs.to(wide)
    same = (a == b) | (a.isnan() & b.isnan())
    gap = (a - b).abs().masked_fill(same, 0.0)
    near = a.isfinite() & (gap <= tolerance * (1 + a.abs()))  # infinity would tolerate every value
    wrong = ~same & ~near
    if not wrong.any():
        return None
    return _largest_difference(ours, theirs, gap.masked_fill(~wrong, -1.0), wrong, path)


def _first_difference(ours: Tensor, theirs: Tensor, wrong: Tensor, path: str) -> str:
    """Says how many entries differ and shows the first. The size of a difference says little: integers may be labels."""
    place = int(wrong.flatten().to(torch.uint8).argmax())
    return f"{_how_many(wrong)}First differs at {_entry(ours, theirs, place, path)}"


def _largest_difference(ours: Tensor, theirs: Tensor, gap: Tensor, wrong: Tensor, path: str) -> str:
    """Says how many entries differ and shows the largest difference."""
    flat = torch.nan_to_num(gap, nan=torch.inf, posinf=torch.inf).flatten()
    place = int(flat.argmax())
    size = float(flat[place])
    largest = "At" if size == torch.inf else f"Largest difference {size:.3g} at"
    return f"{_how_many(wrong)}{largest} {_entry(ours, theirs, place, path)}"


def _how_many(wrong: Tensor) -> str:
    return f"{int(wrong.sum())} of {wrong.numel()} values differ. " if wrong.numel() > 1 else ""


def _entry(ours: Tensor, theirs: Tensor, place: int, path: str) -> str:
    """Says what was expected and what was got in one entry. place: its index in the flattened tensor."""
    index = [int(i) for i in torch.unravel_index(torch.tensor(place), ours.shape)]
    at = f"{path}{index}" if index else path or "the only entry"
    expected, got = number_pair(ours.flatten()[place].item(), theirs.flatten()[place].item())
    return f"{at}: expected {expected}, got {got}."


def tolerance_for(inputs: Any, single: float) -> float:
    """Returns at most DOUBLE if all float tensors among the inputs are float64 (and there is one), else `single`."""
    dtypes = {tensor.dtype for _, tensor in float_tensors(inputs)}
    return min(single, DOUBLE) if dtypes == {torch.float64} else single
