"""Doors of other libraries, shut in the worker: the course's modules by name, and changes to PyTorch that are taken back in time.

Libraries import what a text names, evaluate texts and read attributes by name. The scan of an answer's code does not see that.
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

# the folders of both packages, wherever each is installed
HERE = tuple(str(Path(package.__path__[0]).resolve()) + os.sep for package in (fsl_classroom, fsl_course))
_MAY_EVALUATE = ("collections/__init__.py", "/dataclasses.py", "/enum.py")  # named tuples and dataclasses are made so
_MAY_READ_GLOBALS = ("/typing.py", "/functools.py", "/dataclasses.py")
_TORCH = str(Path(torch.__file__).parent) + os.sep
_MAY_BE_LOADED = {"numpy", "torch", "collections"}
_FLAGS_AT, _IMMUTABLE = 168, 1 << 8  # tp_flags in a type object of 64-bit CPython; Py_TPFLAGS_IMMUTABLETYPE


def passes(event: str, arguments: tuple[Any, ...], frame: types.FrameType) -> bool:
    """May a library, in the frame given, do this while an answer stands behind it? event, arguments: as in sys.audit."""
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
    """torch.compile gives the function as it is: its results are the same, and a worker has no compiler."""

    def plain(model: Any = None, **options: Any) -> Any:
        return (lambda function: function) if model is None else model

    torch.compile = plain


def guard_imports(refuse: Callable[[str], Exception], behind: Callable[[Any], bool]) -> Callable[[], None]:
    """The course's modules are imported by the course and, through its own guard, by the answer; by no library. Returns the undo.

    refuse: notes the words and gives the error to raise
    behind: does an answer stand behind this frame?
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
    """PyTorch's classes take no new attributes, and the modules named take none from an answer, not even for a moment."""

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
    for owner in (torch.Tensor, torch.nn.Parameter):  # libraries change torch.nn.Module: `patched` looks at it
        flags = ctypes.c_ulong.from_address(id(owner) + _FLAGS_AT)
        if flags.value == owner.__flags__:  # not so in another Python: `patched` remains
            flags.value |= _IMMUTABLE
