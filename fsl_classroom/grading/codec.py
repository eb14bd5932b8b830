"""Sends values between the judge and an answer's process as data: structure as JSON, tensors as safetensors.

Reading a message builds plain values only. It imports nothing by name and runs nothing, whatever the other side has written: a
dataclass comes back as a stand-in with the same name and fields, and what cannot be sent comes back as a `Thing` that only has a
name. Both sides use this module, so it must hold nothing that an answer should not find.
"""

from __future__ import annotations

import base64
import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from fsl_classroom.grading.frames import Garbled

_MOST_ITEMS = 200_000  # in all containers of a message together
_DEEPEST = 60  # containers inside containers
_MOST_BITS = 4096  # of a whole number; Python itself refuses to print much longer ones
_STRUCTURE = (bool, str, float, type(None))  # sent as they are


class Unsendable(TypeError):
    """Raised for a value that is too large to be sent, and, by a strict Packer, for one that is no data."""


class Thing:
    """Stands for an object that cannot be sent, such as a function. kind: what it was, "function" or the name of its class."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Packer:
    """Turns values into a structure and tensors. The same tensor, or generator, stays one and the same on the other side.

    strict: raises Unsendable for what is no data, where it would otherwise become a `Thing`
    known:  id -> the number under which the other side knows a tensor or generator, which is then not sent again

    tensors, owners: what was packed so far, by number; the owner of a generator's state is the generator
    """

    def __init__(self, strict: bool = False, known: Mapping[int, int] | None = None) -> None:
        self.tensors: list[Tensor] = []
        self.owners: list[Any] = []
        self.known = known or {}
        self._numbers: dict[int, int] = {}
        self._strict = strict
        self._items = 0

    def blob(self) -> bytes:
        """Returns all tensors so far as the bytes of a safetensors file."""
        with torch.no_grad():
            plain = [tensor.detach().contiguous().clone() for tensor in self.tensors]
            return save({str(number): tensor.resolve_conj().resolve_neg() for number, tensor in enumerate(plain)})

    def pack(self, value: Any, depth: int = 0) -> Any:
        """Returns the structure of a value as JSON values."""
        kind = type(value)
        self._items += 1
        if depth > _DEEPEST or self._items > _MOST_ITEMS:
            raise Unsendable(
                "it is nested too deeply" if depth > _DEEPEST else f"it holds more than {_MOST_ITEMS} items"
            )
        if kind in _STRUCTURE:
            return value
        if isinstance(value, (bool, int)) and not isinstance(value, torch.SymInt):
            number = int.__index__(value)
            return {"int": hex(number)} if number.bit_length() <= _MOST_BITS else self._thing("a very large number")
        if isinstance(value, (str, float)):  # a class of the answer's own counts as what it is built on
            return str.__str__(value) if isinstance(value, str) else float.__float__(value)
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": base64.b64encode(value).decode()}
        if id(value) in self.known:
            return {"known": self.known[id(value)]}
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, (np.ndarray, np.generic)):
            return self._array(value)
        if isinstance(value, torch.Generator):
            return {"generator": self._number(value.get_state(), value)}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        return self._container(value, depth)

    def _container(self, value: Any, depth: int) -> Any:
        inner = lambda item: self.pack(item, depth + 1)  # noqa: E731
        if isinstance(value, (list, tuple)):
            items = [
                inner(item) for item in (list.__iter__(value) if isinstance(value, list) else tuple.__iter__(value))
            ]
            return {"list": items} if isinstance(value, list) else {"tuple": items}
        if isinstance(value, Mapping):
            return {"dict": [[inner(key), inner(item)] for key, item in value.items()]}
        if isinstance(value, (set, frozenset)):
            return {"frozenset" if isinstance(value, frozenset) else "set": sorted(map(inner, value), key=json.dumps)}
        if value is Ellipsis:
            return {"ellipsis": True}
        if dataclasses.is_dataclass(value) and not isinstance(value, type) and not self._strict:
            fields = [f.name for f in dataclasses.fields(value) if hasattr(value, f.name)]
            return {"record": type(value).__name__, "fields": [[name, inner(getattr(value, name))] for name in fields]}
        if isinstance(value, torch.nn.Module):
            return self._thing("module")
        if inspect.isgenerator(value):
            return self._thing("generator")
        return self._thing("function" if callable(value) else type(value).__name__)

    def _tensor(self, value: Tensor) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if value.is_meta:
                return {"meta": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_nested:
                return self._thing(f"{value.device.type} tensor of layout {value.layout}")
            return {"tensor": self._number(value, value), "grad": value.requires_grad}

    def _array(self, value: np.ndarray | np.generic) -> Any:
        if value.dtype.kind not in "fiubc":
            return self._thing(f"array of {value.dtype}")
        try:
            made = torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape).copy())
        except TypeError:  # a kind of numbers that PyTorch does not have
            return self._thing(f"array of {value.dtype}")
        return {"array" if isinstance(value, np.ndarray) else "scalar": self._number(made, made)}

    def _number(self, tensor: Tensor, owner: Any) -> int:
        if id(owner) not in self._numbers:
            self._numbers[id(owner)] = len(self.tensors)
            self.tensors.append(tensor)
            self.owners.append(owner)
        return self._numbers[id(owner)]

    def _thing(self, kind: str) -> Any:
        if self._strict:
            raise Unsendable(f"{kind} cannot be sent as data")
        return {"thing": kind[:200]}


class Unpacker:
    """Builds the values of a message. Raises Garbled where it is not what a `Packer` writes.

    known:   what the other side may name by its number instead of sending it
    tensors: those of the message, by number
    """

    def __init__(self, blob: bytes, known: Sequence[Any] = ()) -> None:
        try:
            named = load(blob) if blob else {}
            self.tensors = [named[str(number)] for number in range(len(named))]
        except Exception as error:  # whatever a damaged file makes safetensors raise
            raise Garbled(type(error).__name__) from None
        self.generators: dict[int, torch.Generator] = {}
        self._known = known

    def unpack(self, made: Any) -> Any:
        """Returns the value of a structure."""
        try:
            return self._value(made, 0)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
            raise Garbled(f"{type(error).__name__}: {error}") from None

    def _value(self, made: Any, depth: int) -> Any:
        if type(made) in _STRUCTURE:
            return made
        if type(made) is not dict or not made or depth > 2 * _DEEPEST:
            raise Garbled("no structure, or one that is nested too deeply")
        kind = next(iter(made))
        held = made[kind]
        if kind == "tensor":
            return self._tensor(held, made["grad"])
        if kind in _MAKE:
            return _MAKE[kind](held)
        if kind in _COLLECT:
            return _COLLECT[kind](self._value(item, depth + 1) for item in held)
        if kind == "dict":
            return {self._value(key, depth + 1): self._value(item, depth + 1) for key, item in held}
        if kind == "record":
            return _record(held, [(name, self._value(item, depth + 1)) for name, item in made["fields"]])
        if kind == "meta":
            return torch.empty(held, dtype=_dtype(made["dtype"]), device="meta")
        if kind == "generator":
            return self._generator(held)
        if kind == "known":
            return self._known[held]
        array = self.tensors[held].numpy()
        return {"array": array, "scalar": array[()]}[kind]

    def _tensor(self, number: int, grad: bool) -> Tensor:
        tensor = self.tensors[number]
        return tensor.requires_grad_(True) if grad and tensor.is_floating_point() else tensor

    def _generator(self, number: int) -> torch.Generator:
        if number not in self.generators:
            self.generators[number] = torch.Generator()
            self.generators[number].set_state(self.tensors[number])
        return self.generators[number]


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise Garbled(f"no dtype {name!r:.40}")
    return found


def _name(text: str) -> str:
    return text if re.fullmatch(r"[^\W\d]\w{0,99}", text) else "Thing"


def _record(name: str, fields: list[tuple[str, Any]]) -> Any:
    """Returns an instance of a new dataclass with this name and these fields."""
    names = [field for field, _ in fields]
    if len(names) > 1000 or any(_name(field) != field or field.startswith("__") for field in names):
        raise Garbled("no fields of a dataclass")
    kind = dataclasses.make_dataclass(_name(name), names, eq=False, init=False)
    made = kind()
    for field, value in fields:
        setattr(made, field, value)
    return made


def _thing(kind: str) -> Any:
    if kind == "function":
        return lambda *args, **kwargs: None
    if kind == "module":
        return torch.nn.Module()
    if kind == "generator":
        return (item for item in ())
    return type(_name(kind), (Thing,), {})(kind)


_MAKE: dict[str, Callable[[Any], Any]] = {
    "int": lambda held: int(held[:2000], 16),
    "complex": lambda held: complex(*held),
    "bytes": base64.b64decode,
    "dtype": _dtype,
    "ellipsis": lambda held: Ellipsis,
    "thing": _thing,
}
_COLLECT: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
