"""Describes values in words, and says what turns one kind of value into another."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_DIGITS = 6  # of a float; more only where two floats would look the same
_ITEMS = 1000  # of a list that are looked at
_CASTS = {torch.int64: ".long()", torch.float32: ".float()", torch.float64: ".double()", torch.bool: ".bool()"}


def describe(value: Any, digits: int = _DIGITS) -> str:
    """Returns a value in a few words, at most one line: "a float32 tensor of shape [5, 8]"."""
    if isinstance(value, Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device}"
        name = str(value.dtype).removeprefix("torch.")
        return f"{'an' if name[0] in 'iu' else 'a'} {name} tensor of shape {list(value.shape)}{where}"
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} NumPy array of shape {list(value.shape)}"
    if value is None:
        return "None"
    if value is Ellipsis:
        return "... (Ellipsis)"
    if isinstance(value, (np.number, np.bool_)):
        return f"the NumPy {value.dtype} {_number(value, digits)}"
    if isinstance(value, (bool, int, float, complex)):
        return f"the {type(value).__name__} {_number(value, digits)}"
    if isinstance(value, str):
        text = repr(value)
        return f"the {type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
    if inspect.isgenerator(value):
        return "a generator (the function contains `yield`; hand the result back with `return`)"
    if isinstance(value, (list, tuple, set, frozenset, Mapping)):
        return f"a {type(value).__name__} of {len(value)} item{'s' * (len(value) != 1)}"
    if inspect.isroutine(value):
        return "a function"
    name = type(value).__name__
    return f"an object of type {name[:60]}"


def printable(text: str) -> str:
    """Returns the text with lone surrogates such as "\\ud800", which no file and no screen can take, written as their escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def describe_both(expected: Any, got: Any) -> tuple[str, str]:
    """Returns two values in words, with as many digits of floats as are needed to tell them apart."""
    digits = _digits(expected, got) if _is_number(expected) and _is_number(got) else _DIGITS
    return describe(expected, digits), describe(got, digits)


def number_pair(expected: Any, got: Any) -> tuple[str, str]:
    """Returns two numbers without their types, with six significant digits or as many as are needed to tell them apart."""
    digits = _digits(expected, got)
    return _number(expected, digits), _number(got, digits)


def _first(items: Any) -> list[Any]:
    """Returns the first items of a list or tuple, which may have millions: they say what kind of list it is."""
    return list(items[:_ITEMS])


def _holds_tensors(items: Any) -> bool:
    return any(isinstance(item, Tensor) for item in _first(items))


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex, np.number, np.bool_))


def _is_measured(value: Any) -> bool:
    """Whether it is one float, alone or in a tensor or an array."""
    if isinstance(value, Tensor):
        return value.is_floating_point() and value.numel() == 1
    return isinstance(value, (float, np.floating)) or (
        isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind == "f"
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, (numbers.Integral, np.bool_))


def _number(value: Any, digits: int) -> str:
    if not _is_whole(value):
        return f"{value:.{digits}g}"
    return str(value) if isinstance(value, (bool, np.bool_)) or abs(int(value)) < 10**20 else "a huge number"


def _digits(expected: Any, got: Any) -> int:
    if expected == got or expected != expected or (_is_whole(expected) and _is_whole(got)):
        return _DIGITS
    return next((d for d in range(_DIGITS, 17) if _number(expected, d) != _number(got, d)), 17)


def advice(expected: Any, got: Any) -> str:
    """Returns a space and a sentence about how to convert a value of the wrong type to the right one, or ""."""
    if got is None:
        return " Is a `return` missing?"
    if isinstance(expected, Mapping) and isinstance(got, (tuple, list)) and _holds_tensors(got):
        return " dict(zip(names, tensors)) makes a dict of several tensors, such as those of torch.autograd.grad."
    if isinstance(got, tuple) and len(got) == 1:
        return " A comma after the returned value makes a tuple of it; torch.autograd.grad returns one, too."
    if isinstance(expected, numbers.Number):
        return _to_number(expected, got)
    if isinstance(expected, Tensor):
        return _to_tensor(expected, got)
    if isinstance(expected, np.ndarray):
        if isinstance(got, Tensor):
            return " .detach().numpy() makes an array of a tensor."
        return " np.array(...) makes an array of it." if isinstance(got, (list, tuple)) or _is_number(got) else ""
    if (
        isinstance(expected, (list, tuple))
        and isinstance(got, (Tensor, np.ndarray))
        and all(map(_is_number, _first(expected)))
    ):
        return " .tolist() makes a list of it."
    return ""


def _to_number(expected: Any, got: Any) -> str:
    if isinstance(expected, (bool, np.bool_)) and _is_measured(got):
        return " A float is no verdict yet: a comparison with a limit, as in x > 1e-4, gives a bool."
    if isinstance(got, (Tensor, np.ndarray)) and int(np.prod(got.shape)) == 1:
        what = "a tensor" if isinstance(got, Tensor) else "an array"
        kind = type(expected).__name__
        cast = f", and so does {kind}(...)" if kind in ("bool", "int", "float") else ""
        return f" .item() turns {what} of one element into a number{cast}."
    if _is_number(got) and got == expected:  # then only the type is wrong
        kind = "bool" if isinstance(expected, (bool, np.bool_)) else "int" if _is_whole(expected) else "float"
        return f" {kind}(...) turns it into {'an' if kind == 'int' else 'a'} {kind}."
    return ""


def _to_tensor(expected: Tensor, got: Any) -> str:
    if isinstance(got, np.ndarray):
        return " torch.from_numpy(...) makes a tensor of it."
    if isinstance(got, (list, tuple)) and _holds_tensors(got):
        fits = expected.ndim > 0 and len(got) == len(expected)
        return " torch.stack(...) makes one tensor of several." if fits else ""
    if _is_number(got) and expected.ndim == 0 and expected.is_floating_point():
        return " Leave .item() or float(...) away if one made it: a tensor keeps its gradient. torch.tensor(...) makes a new one."
    if isinstance(got, (list, tuple)) or _is_number(got):
        return " torch.tensor(...) makes a tensor of it."
    return ""


def dtype_advice(expected: Any, got: Any) -> str:
    """Returns a space and a sentence about how to convert a tensor to the right dtype, or ""."""
    if not isinstance(expected, Tensor) or not isinstance(got, Tensor):
        return ""
    if (
        expected.is_floating_point() and got.is_floating_point()
    ):  # advice to write .double() would break the float32 cases
        return " Keep the dtype of the arguments: x.to(y.dtype) converts, dtype=y.dtype makes a new tensor fit."
    name = str(expected.dtype).removeprefix("torch.")
    return f" {_CASTS.get(expected.dtype, f'.to({expected.dtype})')} turns it into {name}."
