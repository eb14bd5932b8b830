"""Guards inside the worker while an answer runs. What the scan of its code (rules.py) cannot see is caught here.

They are honest about their reach: they run in the same process as the answer. See docs/grading.md, "What remains".
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

from fsl_classroom.grading import doors, rules

FILE = "<answer "  # the file name of every piece of an answer's code begins like this
_CALLED_EVENTS = """
    gc. ctypes. sys._getframe sys._current_frames sys.addaudithook sys.settrace sys.setprofile exec compile code.__new__
    function.__new__ cpython. marshal. pickle.find_class
"""
_OUTSIDE_EVENTS = "socket. subprocess. os.system os.exec os.spawn os.posix_spawn os.fork os.kill pty."
_FILE_EVENTS = """
    os.remove os.rename os.rmdir os.mkdir os.link os.symlink os.chmod os.chown os.truncate shutil.
"""
_CALLED, _OUTSIDE, _FILES = (tuple(e.split()) for e in (_CALLED_EVENTS, _OUTSIDE_EVENTS, _FILE_EVENTS))
_ATTRIBUTE = "object.__getattr__"
_WATCHED_NAMES = """
    torch torch.nn torch.nn.functional torch.linalg torch.autograd torch.func torch.random numpy math builtins
    inspect functools operator time signal copy dataclasses numbers re
"""
_WATCHED = _WATCHED_NAMES.split()
_PLAIN = (Counter, OrderedDict, defaultdict, types.MappingProxyType, torch.Size, torch.nn.Parameter)
_CONTENT = (torch.Tensor, np.ndarray, np.generic, Number, str, bytes, Mapping, list, tuple, set, frozenset)


class Incidents:
    """What an answer was caught at. It stays noted when the answer swallows the error that it got."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def refuse(self, words: str) -> PermissionError:
        """Note it; the error to raise in the answer."""
        self.words.append(words)
        return PermissionError(words)


class Forged(TypeError):
    """A result of the answer's own making stands where a tensor or a number is due."""


_plain_import = builtins.__import__  # doors.py puts a guarded one in its place


def learner_builtins(exercise: str, incidents: Incidents) -> dict[str, Any]:
    """The builtins for an answer's code: without those that make or show code, with guarded imports and attributes."""
    own = dict(vars(builtins))

    def guarded_import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        root = name.partition(".")[0]
        if level:  # relative to a package that the answer would have to name as its own
            raise incidents.refuse(rules.imports_reference("." * level + name))
        wanted = [f"{name}.{item}" for item in fromlist or ()] or [name]
        for dotted in wanted:
            if not rules.may_import(dotted, exercise):
                raise incidents.refuse(rules.imports_reference(dotted))
            harmless = rules.LIMITED.get(root, "free")
            if harmless is None:
                raise incidents.refuse(rules.looks_into_checker(dotted))
        module = _plain_import(name, globals, locals, fromlist, level)
        for item in fromlist or ():
            if rules.is_closed(getattr(module, item, None)):
                raise incidents.refuse(rules.looks_into_checker(f"{name}.{item}"))
        return module

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def checked(thing: Any, name: Any, *rest: Any) -> Any:
            name = str.__str__(name) if isinstance(name, str) else name  # a str of its own kind may lie when compared
            if name in rules.ATTRIBUTES:
                raise incidents.refuse(rules.looks_into_checker(name))
            if (
                function is not getattr
                and isinstance(thing, type)
                and type.__getattribute__(thing, "__module__") != "__main__"
            ):
                raise incidents.refuse(rules.looks_into_checker(f"patches {thing.__name__}.{name}"))
            if isinstance(thing, types.ModuleType):
                dotted = f"{thing.__name__}.{name}"
                if name == "__dict__":
                    raise incidents.refuse(rules.looks_into_checker(dotted))
                if function is not getattr:
                    raise incidents.refuse(rules.looks_into_checker(f"patches {dotted}"))
                harmless = rules.LIMITED.get(thing.__name__.partition(".")[0], "free")
                if harmless != "free" and (harmless is None or name not in harmless):
                    raise incidents.refuse(rules.looks_into_checker(dotted))
                if not rules.may_use(dotted, exercise):
                    raise incidents.refuse(rules.imports_reference(dotted))
            found = function(thing, name, *rest)
            if rules.is_closed(found):
                raise incidents.refuse(rules.looks_into_checker(found.__name__))
            return found

        return checked

    def refused(name: str) -> Callable[..., Any]:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise incidents.refuse(rules.looks_into_checker(name))

        return refuse

    own |= {name: refused(name) for name in ("eval", "exec", "compile", "globals", "breakpoint")}
    own |= {name: guarded(getattr(builtins, name)) for name in ("getattr", "setattr", "delattr")}

    def guarded_vars(*things: Any) -> dict[str, Any]:
        if not things or isinstance(things[0], (types.ModuleType, types.FunctionType)):
            raise incidents.refuse(rules.looks_into_checker("vars"))
        return vars(things[0])

    own["vars"] = guarded_vars
    own |= {"__import__": guarded_import, "display": print}  # Jupyter has display
    return own


def hide(packages: tuple[str, ...]) -> None:
    """Removes packages from sys.modules and from their parents, so that no answer finds them by name."""
    for name in [n for n in sys.modules if rules.lies_in(n, *packages)]:
        module = sys.modules.pop(name)
        parent, _, child = name.rpartition(".")
        if vars(sys.modules.get(parent, builtins)).get(child) is module:
            delattr(sys.modules[parent], child)
    sys.modules.pop("logging.config", None)  # it imports what a text names, and kept the unguarded import
    sys.meta_path.insert(0, _Blocker(packages))


class _Blocker:
    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if rules.lies_in(name, *self._packages):
            raise ModuleNotFoundError(f"{name} is not at hand while an answer is tried", name=name)


def watch(scratch: Path, incidents: Incidents) -> Callable[[], None]:
    """An audit hook for the rest of this process: what answers' code calls is looked at, and what libraries do for it.

    Returns what opens the doors again that doors.py shuts.
    """
    here = str(scratch)
    busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy or not event.startswith((*_CALLED, _ATTRIBUTE, *_OUTSIDE, *_FILES, "open")):
            return
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
            if path.startswith(doors.HERE):
                raise incidents.refuse(rules.looks_into_checker(f"reads {Path(path).name}"))
            if writes and path != os.devnull and not path.startswith(here):
                raise incidents.refuse(f"This answer changes files outside its own folder ({event}).")

    doors.freeze(incidents.refuse, _answer_behind, _WATCHED)
    undo = doors.guard_imports(incidents.refuse, _answer_behind)
    sys.addaudithook(hook)
    return undo


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def _answer_behind(frame: types.FrameType | None) -> bool:
    """Does an answer's code stand behind this call, other than by an import or a traceback's look for source lines?"""
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
    """What every function and class is as yet: dotted name -> identity. A lane asks before it forks its first worker."""
    return _identities()


def _identities() -> dict[str, int]:
    """What every function and class of torch, numpy and the course is at this moment: dotted name -> identity."""
    seen: dict[str, int] = {}
    ours = dict.fromkeys(name for name in sys.modules if rules.lies_in(name, rules.COURSE, rules.CLASSROOM))
    for name in [*_WATCHED, *ours]:
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
    """The first name that is no longer what it was. modules: those that are hidden from sys.modules by now."""
    hidden = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(hidden)
    try:
        now = _identities()
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
    return next((name.rstrip(".") for name, identity in before.items() if now.get(name) != identity), None)


def honest(answer: Callable[..., Any]) -> Callable[..., Any]:
    """The answer, whose results (and those of functions it returns) are refused where they could lie about themselves."""
    if not callable(answer):
        return answer

    @functools.wraps(answer)
    def tried(*args: Any, **kwargs: Any) -> Any:
        return _plain(answer(*args, **kwargs), 0)

    return tried


def _plain(value: Any, depth: int) -> Any:
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
    """Does this type come from the module that it names? A named tuple of the answer's own is a tuple like any other."""
    if tuple in kind.__bases__ and hasattr(kind, "_fields"):
        return not {"__eq__", "__iter__", "__len__", "__getitem__", "__ne__", "__getattribute__"} & set(vars(kind))
    if kind.__module__ == "__main__":
        return False
    thing: Any = sys.modules.get(kind.__module__) or importlib.import_module(kind.__module__)
    for name in kind.__qualname__.split("."):
        thing = getattr(thing, name, None)
    return thing is kind
