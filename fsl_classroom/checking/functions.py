"""Notices functions of libraries and of the course that an answer replaces or deletes, and puts them back."""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Mapping
from functools import lru_cache
from operator import is_
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

_OWNERS: dict[str, Any] = {
    "torch": torch,
    "torch.Tensor": torch.Tensor,
    "torch.nn": torch.nn,
    "torch.nn.Module": torch.nn.Module,
    "torch.nn.functional": torch.nn.functional,
    "torch.linalg": torch.linalg,
    "torch.autograd": torch.autograd,
    "torch.func": torch.func,
    "numpy": np,
    "numpy.linalg": np.linalg,
    "math": math,
    "builtins": builtins,
}
_COURSE = ("fsl_course", "fsl_classroom")
_FOLLOWS_A_SETTING = {"torch.Storage"}  # PyTorch sets it with the default dtype
_TORCH = str(Path(torch.__file__).parent)
Functions = Mapping[str, tuple[Any, dict[str, Any]]]


def functions() -> Functions:
    """Returns name -> (owner, its attributes) for the modules and classes whose functions count, as they are now."""
    owners = _owners(len(sys.modules), sys.modules.get("fsl_classroom"))
    return {name: (owner, dict(vars(owner))) for name, owner in owners}


@lru_cache(maxsize=2)
def _owners(count: int, classroom: ModuleType | None) -> tuple[tuple[str, Any], ...]:
    """Returns (name, owner) for all owners. The arguments tell the states of sys.modules apart, which is slow to search."""
    ours = [
        (name, module)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in _COURSE and isinstance(module, ModuleType)
    ]
    return *_OWNERS.items(), *ours


def put_back(before: Functions) -> list[str]:
    """Puts functions and classes back that were replaced or deleted since `functions` returned. Returns their names.

    Attributes that were added stay. So do functions that PyTorch replaces by others of its own when parts of it are first used.
    """
    found = []
    for name, (owner, attributes) in before.items():
        now = vars(owner)
        if len(now) == len(attributes) and all(map(is_, now.values(), attributes.values())):
            continue  # as nearly always
        for key, value in attributes.items():
            if now.get(key) is value or not callable(value) or _is_of_torch(now.get(key)):
                continue
            if (full := f"{name}.{key}") not in _FOLLOWS_A_SETTING:
                setattr(owner, key, value)
                found.append(full)
        if isinstance(owner, type):  # a method that hides an inherited one
            for key in [
                key for key in now if key not in attributes and any(key in vars(base) for base in owner.__mro__[1:])
            ]:
                delattr(owner, key)
                found.append(f"{name}.{key}")
    return found


def _is_of_torch(value: Any) -> bool:
    code = getattr(value, "__code__", None)
    return code is not None and str(code.co_filename).startswith(_TORCH)
