"""Explains the errors that torch raises most often, in one plain sentence each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# (pattern of the message, the sentence). {0}, {1} ... stand for the groups of the pattern. The first that matches is used.
_KINDS = (
    (
        r'"bincount\w*" not implemented|used as indices must be|index\w* tensor of type LongTensor|valid indices \(got'
        r"|[Ee]xpected dtype int32.*for index|target dtype to be Long|argument #\d 'indices'.*types: Long",
        "Indices and labels must be whole numbers: .long() turns a tensor into int64.",
    ),
    (
        r"mean\(\): could not infer output dtype|only supports? floating|Expected a floating point"
        r"|not implemented for '(?:Long|Int|Short|Char|Byte|Bool)'",
        "Integers and bools cannot be used here: turn them into floating-point numbers first, .double() or .float().",
    ),
    (
        r"m1 and m2 to have the same dtype|expected scalar type \w+ but found",
        "Both sides must have the same dtype: a.to(b.dtype) converts one of them.",
    ),
    (r"out of bounds for (?:dimension|axis) \d+ with size 0\b", "It is empty: was nothing selected?"),
    (
        r"out of bounds for (?:dimension|axis) (\d+) with size (\d+)",
        "Indices start at 0: dimension {0} has {1} entries, so the last index is one less.",
    ),
    (
        r"index out of range",
        "Indices start at 0: the last one is one less than the number of entries.",
    ),
    (
        r"Target -?\d+ is out of bounds|Class values must be smaller",
        "Labels start at 0: the largest is one less than the number of classes.",
    ),
)
_SHAPES = (
    (
        r"shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)",
        "A matrix product needs as many columns on the left as rows on the right; they are {0} and {1}.",
    ),
    (
        r"first two dimensions of batch2|size mismatch, got input|inconsistent tensor size",
        "In a product the dimensions that meet must be equally long.",
    ),
    (
        r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\) at non-singleton dimension (\d+)",
        "Shapes are lined up from the right; sizes that meet must be equal or 1. In dimension {2} they are {0} and {1}.",
    ),
    (
        r"expanded size of the tensor \((\d+)\) must match the existing size \((\d+)\)",
        "Only a dimension of size 1 can be stretched: size {1} does not become {0}.",
    ),
)


def explain(message: str, source: str = "", variables: Mapping[str, Any] | None = None) -> str:
    """Returns a sentence for the message of an exception, or "" if there is none.

    If shapes do not fit, it adds the shapes of the tensors in `variables` that the line `source` names.
    """
    for pattern, sentence in _KINDS:
        if found := re.search(pattern, message):
            return sentence.format(*found.groups())
    for pattern, sentence in _SHAPES:
        if found := re.search(pattern, message):
            return sentence.format(*found.groups()) + _shapes(source, variables or {})
    return ""


def _shapes(source: str, variables: Mapping[str, Any]) -> str:
    names = dict.fromkeys(re.findall(r"[^\W\d]\w*", source))
    held = {name: variables[name] for name in names if isinstance(variables.get(name), Tensor)}
    shapes = [f"{name} {list(tensor.shape)}" for name, tensor in held.items()]
    return f" Shapes: {', '.join(shapes[:5])}." if shapes else ""
