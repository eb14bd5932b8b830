"""Shuts the doors that other libraries leave open to an answer, inside the worker.

Libraries import modules by name, evaluate text and read attributes by name, and the scan of an answer's code does not see that.
The doors also keep an answer from changing PyTorch for a moment and taking the change back before anybody looks.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fsl_classroom
import fsl_course
from fsl_classroom.grading import rules
from fsl_course.data import assets

# The folders of both packages, wherever each is installed. A wheel keeps the data, which answers may read, in one of them.
HERE = tuple(str(Path(package.__path__[0]).resolve()) + os.sep for package in (fsl_classroom, fsl_course))
DATA = str(assets.asset("glyphs.npz").parent.resolve()) + os.sep
_MAY_EVALUATE = ("collections/__init__.py", "/dataclasses.py", "/enum.py")  # they make their classes by exec
_MAY_READ_GLOBALS = ("/typing.py", "/functools.py", "/dataclasses.py")
_TORCH = str(Path(torch.__file__).parent) + os.sep
_MAY_BE_LOADED = {"numpy", "torch", "collections"}
_FLAGS_AT, _IMMUTABLE = 168, 1 << 8  # tp_flags in a type object of 64-bit CPython; Py_TPFLAGS_IMMUTABLETYPE


def passes(event: str, arguments: tuple[Any, ...], frame: types.FrameType) -> bool:
    """Returns True if the library in this frame may do this on behalf of an answer. event, arguments: as in sys.audit."""
    file = frame.f_code.co_filename
    if event == "exec":
        return file.endswith(_MAY_EVALUATE)
    if event == "pickle.find_class":
        return str(arguments[0]).partition(".")[0] in _MAY_BE_LOADED and "." not in str(arguments[1])
    if event == "object.__getattr__":
        is_telling = arguments[1] == "__globals__"
        return not is_telling or file.endswith(_MAY_READ_GLOBALS) or file.startswith((_TORCH, *HERE))
    return True


def compile_nothing() -> None:
    """Makes torch.compile return functions unchanged, because a worker has no compiler. The results are the same."""

    def plain(model: Any = None, **options: Any) -> Any:
        return (lambda function: function) if model is None else model

    torch.compile = plain


def guard_imports(refuse: Callable[[str], Exception], behind: Callable[[Any], bool]) -> Callable[[], None]:
    """Refuses imports of either package that a library makes on behalf of an answer. Returns the function that undoes this.

    Code of the packages themselves may import them, and answers have a guarded import of their own (guards.py).

    refuse: records the diagnosis and returns the error to raise
    behind: returns True if an answer's code is on the stack at a frame
    """
    plain, by_name = builtins.__import__, importlib.import_module

    def look(name: Any) -> None:
        frame = sys._getframe(2)
        ours = frame.f_code.co_filename.startswith(HERE)
        if rules.lies_in(str(name), rules.COURSE, rules.CLASSROOM) and not ours and behind(frame):
            raise refuse(rules.imports_reference(str(name)))

    def guarded_import(name: str, *rest: Any, **more: Any) -> Any:
        look(name)
        return plain(name, *rest, **more)

    def guarded_import_module(name: str, package: str | None = None) -> Any:
        look(name)
        return by_name(name, package)

    def undo() -> None:
        builtins.__import__, importlib.import_module = plain, by_name

    builtins.__import__, importlib.import_module = guarded_import, guarded_import_module
    return undo


def freeze(refuse: Callable[[str], Exception], behind: Callable[[Any], bool], names: list[str]) -> None:
    """Makes PyTorch's tensor classes immutable and keeps answers from setting attributes of the modules named.

    refuse, behind: as in `guard_imports`
    """

    class Frozen(types.ModuleType):
        def __setattr__(self, name: str, value: Any) -> None:
            if behind(sys._getframe(1)) and not isinstance(value, types.ModuleType):
                raise refuse(rules.looks_into_checker(f"patches {self.__name__}.{name}"))
            super().__setattr__(name, value)

        def __delattr__(self, name: str) -> None:
            if behind(sys._getframe(1)):
                raise refuse(rules.looks_into_checker(f"patches {self.__name__}.{name}"))
            super().__delattr__(name)

    for module in [sys.modules[name] for name in names]:
        if type(module) is types.ModuleType:
            module.__class__ = Frozen
    for owner in (torch.Tensor, torch.nn.Parameter):  # not torch.nn.Module, which libraries change: `patched` checks it
        flags = ctypes.c_ulong.from_address(id(owner) + _FLAGS_AT)
        if flags.value == owner.__flags__:  # another Python may keep its flags elsewhere; then only `patched` protects
            flags.value |= _IMMUTABLE
