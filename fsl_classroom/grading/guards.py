"""Guards that run in the worker beside an answer. They catch what the scan of its code (rules.py) cannot see.

They share a process with the answer, which limits what they can promise: see docs/grading.md, "What remains".
"""

from __future__ import annotations

import builtins
import functools
import importlib
import os
import sys
import types
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsl_classroom.checking import timelimit
from fsl_classroom.grading import doors, rules

FILE = "<answer "  # the file names of all code objects of an answer begin like this
_CALLED_EVENTS = """
    gc. ctypes. sys._getframe sys._current_frames sys.addaudithook sys.settrace sys.setprofile exec compile code.__new__
    function.__new__ cpython. marshal. pickle.find_class
"""
_OUTSIDE_EVENTS = "socket. subprocess. os.system os.exec os.spawn os.posix_spawn os.fork os.kill pty."
_FILE_EVENTS = """
    os.remove os.rename os.rmdir os.mkdir os.link os.symlink os.chmod os.chown os.truncate shutil.
"""
_CALLED, _OUTSIDE, _FILES = (tuple(e.split()) for e in (_CALLED_EVENTS, _OUTSIDE_EVENTS, _FILE_EVENTS))
_TRACING = ("sys.settrace", "sys.setprofile")
_ATTRIBUTE = "object.__getattr__"
_WATCHED_NAMES = """
    torch torch.nn torch.nn.functional torch.linalg torch.autograd torch.func torch.random numpy math builtins
    inspect functools operator time signal copy dataclasses numbers re
"""
WATCHED = _WATCHED_NAMES.split()
_PLAIN = (Counter, OrderedDict, defaultdict, types.MappingProxyType, torch.Size, torch.nn.Parameter)
_CONTENT = (torch.Tensor, np.ndarray, np.generic, Number, str, bytes, Mapping, list, tuple, set, frozenset)


class Incidents:
    """The rules that an answer broke. They stay on record if the answer swallows the error that it got."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def refuse(self, words: str) -> PermissionError:
        """Records the diagnosis and returns the error to raise in the answer."""
        self.words.append(words)
        return PermissionError(words)


class Forged(TypeError):
    """Raised when an answer returns an object of its own class in place of a tensor or a number."""


def hide(packages: tuple[str, ...]) -> None:
    """Removes packages from sys.modules and from their parents, so that no answer finds them by name."""
    for name in [n for n in sys.modules if rules.lies_in(n, *packages)]:
        module = sys.modules.pop(name)
        parent, _, child = name.rpartition(".")
        if vars(sys.modules.get(parent, builtins)).get(child) is module:
            delattr(sys.modules[parent], child)
    sys.modules.pop("logging.config", None)  # it imports by name and has kept the unguarded import
    sys.meta_path.insert(0, _Blocker(packages))


class _Blocker:
    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if rules.lies_in(name, *self._packages):
            raise ModuleNotFoundError(f"{name} is not at hand while an answer is tried", name=name)


def watch(scratch: Path, incidents: Incidents) -> Callable[[], None]:
    """Installs an audit hook for the rest of this process. It checks what an answer does and what libraries do for it.

    Also shuts the doors of doors.py. Returns the function that opens the import doors again.
    """
    here = str(scratch)
    busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy or not event.startswith((*_CALLED, _ATTRIBUTE, *_OUTSIDE, *_FILES, "open")):
            return
        if event in _TRACING and timelimit.time_is_up():
            return  # Python itself removes the time limit's trace function when that has raised, in the name of the answer's line
        busy = True
        try:
            frame = sys._getframe(1)
            direct = frame.f_code.co_filename.startswith(FILE)
            behind = direct or _answer_behind(frame)
            passes = direct or not behind or doors.passes(event, arguments, frame)
        finally:
            busy = False
        if direct and event.startswith(_CALLED):
            raise incidents.refuse(rules.looks_into_checker(event))
        if direct and event == _ATTRIBUTE and arguments[1] in rules.ATTRIBUTES:
            raise incidents.refuse(rules.looks_into_checker(arguments[1]))
        if not passes:
            raise incidents.refuse(rules.looks_into_checker(event))
        if behind and event.startswith(_OUTSIDE):
            raise incidents.refuse(f"This answer reaches out of its process ({event}): an answer only computes.")
        if behind and (event == "open" or event.startswith(_FILES)):
            path = os.path.abspath(os.fsdecode(arguments[0])) if isinstance(arguments[0], (str, bytes, Path)) else here
            writes = event != "open" or _writes(arguments)
            if path.startswith(doors.HERE) and not path.startswith(doors.DATA):
                raise incidents.refuse(rules.looks_into_checker(f"reads {Path(path).name}"))
            if writes and path != os.devnull and not path.startswith(here):
                raise incidents.refuse(f"This answer changes files outside its own folder ({event}).")

    doors.freeze(incidents.refuse, _answer_behind, WATCHED)
    undo = doors.guard_imports(incidents.refuse, _answer_behind)
    sys.addaudithook(hook)
    return undo


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def _answer_behind(frame: types.FrameType | None) -> bool:
    """Returns True if an answer's code is on the stack, unless an import or a traceback that reads source lines is above it."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib") or name.endswith(("linecache.py", "tokenize.py", "inspect.py")):
            return False
        if name.startswith(FILE):
            return True
        frame = frame.f_back
    return False


@functools.cache
def integrity() -> dict[str, int]:
    """Returns `_identities()` as of its first call. A lane calls it before it forks its first worker."""
    return _identities()


def _identities() -> dict[str, int]:
    """Returns dotted name -> identity for every function and class of torch, numpy and both packages, as of now."""
    seen: dict[str, int] = {}
    ours = dict.fromkeys(name for name in sys.modules if rules.lies_in(name, rules.COURSE, rules.CLASSROOM))
    for name in [*WATCHED, *ours]:
        for key, value in list(vars(sys.modules[name]).items()):
            if callable(value):
                seen[f"{name}.{key}"] = id(value)
                if isinstance(value, types.FunctionType) and name in ours:
                    seen[f"{name}.{key}."] = hash(
                        (id(value.__code__), id(value.__defaults__), id(value.__kwdefaults__))
                    )
    for owner in (torch.Tensor, torch.nn.Module, torch.Generator):
        seen |= {f"torch.{owner.__name__}.{key}": id(value) for key, value in vars(owner).items() if callable(value)}
    return seen


def patched(before: dict[str, int], modules: Mapping[str, types.ModuleType]) -> str | None:
    """Returns the first name whose object is no longer the one of `before`, or None if an answer replaced nothing.

    modules: name -> module for those that `hide` has removed from sys.modules
    """
    hidden = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(hidden)
    try:
        now = _identities()
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
    return next((name.rstrip(".") for name, identity in before.items() if now.get(name) != identity), None)


def honest(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps an answer so that it raises Forged if a result could lie about itself. Covers functions that it returns, too."""
    if not callable(answer):
        return answer

    @functools.wraps(answer)
    def tried(*args: Any, **kwargs: Any) -> Any:
        return _plain(answer(*args, **kwargs), 0)

    return tried


def _plain(value: Any, depth: int) -> Any:
    """Returns the value with its functions wrapped by `honest`. Raises Forged for types of the answer's own making."""
    kind = type(value)
    if depth > 20 or kind in (bool, int, float, complex, str, bytes, type(None), torch.Tensor, np.ndarray):
        return value
    if kind is types.FunctionType:
        return honest(value)
    if isinstance(value, _CONTENT) and kind not in _PLAIN and not _is_genuine(kind):
        raise Forged(
            f"the result holds an object of a type of your own, {kind.__name__}: return plain tensors and numbers"
        )
    if kind is list:
        return [_plain(item, depth + 1) for item in value]
    if kind is tuple:
        return tuple(_plain(item, depth + 1) for item in value)
    if kind is dict:
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    if hasattr(kind, "__dataclass_fields__"):
        for name in kind.__dataclass_fields__:
            _plain(object.__getattribute__(value, name), depth + 1)
    return value


def _is_genuine(kind: type) -> bool:
    """Returns True if a type comes from the module that it names. Named tuples that compare like tuples count as well."""
    if tuple in kind.__bases__ and hasattr(kind, "_fields"):
        return not {"__eq__", "__iter__", "__len__", "__getitem__", "__ne__", "__getattribute__"} & set(vars(kind))
    if kind.__module__ == "__main__":
        return False
    thing: Any = sys.modules.get(kind.__module__) or importlib.import_module(kind.__module__)
    for name in kind.__qualname__.split("."):
        thing = getattr(thing, name, None)
    return thing is kind
