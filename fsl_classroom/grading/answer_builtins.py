"""The builtins that an answer's code sees in the worker: guarded imports and attributes, and nothing that makes code."""

from __future__ import annotations

import builtins
import functools
import types
from collections.abc import Callable
from typing import Any

from fsl_classroom.grading import rules
from fsl_classroom.grading.guards import Incidents

_plain_import = builtins.__import__  # kept, because doors.py replaces it with a guarded one


def learner_builtins(exercise: str, incidents: Incidents) -> dict[str, Any]:
    """Returns the builtins for an answer's code: nothing that makes or shows code, and guarded imports and attributes."""
    own = dict(vars(builtins))
    own |= {name: _refused(name, incidents) for name in ("eval", "exec", "compile", "globals", "breakpoint")}
    for function in (getattr, setattr, delattr):
        own[function.__name__] = _guarded_attribute(function, exercise, incidents)

    def guarded_vars(*things: Any) -> dict[str, Any]:
        if not things or isinstance(things[0], (types.ModuleType, types.FunctionType)):
            raise incidents.refuse(rules.looks_into_checker("vars"))
        return vars(things[0])

    own |= {"vars": guarded_vars, "__import__": _guarded_import(exercise, incidents)}
    own["display"] = print  # Jupyter defines `display`
    return own


def _refused(name: str, incidents: Incidents) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise incidents.refuse(rules.looks_into_checker(name))

    return refuse


def _guarded_import(exercise: str, incidents: Incidents) -> Callable[..., Any]:
    """Returns an `__import__` that refuses what the rules do not allow this exercise's answer to import."""

    def guarded_import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level:  # relative to a package: an answer has none of its own
            raise incidents.refuse(rules.imports_reference("." * level + name))
        root = name.partition(".")[0]
        wanted = [f"{name}.{item}" for item in fromlist or ()] or [name]
        for dotted in wanted:
            if not rules.may_import(dotted, exercise):
                raise incidents.refuse(rules.imports_reference(dotted))
            if rules.LIMITED.get(root, "free") is None:
                raise incidents.refuse(rules.looks_into_checker(dotted))
        module = _plain_import(name, globals, locals, fromlist, level)
        for item in fromlist or ():
            if rules.is_closed(getattr(module, item, None)):
                raise incidents.refuse(rules.looks_into_checker(f"{name}.{item}"))
        return module

    return guarded_import


def _guarded_attribute(function: Callable[..., Any], exercise: str, incidents: Incidents) -> Callable[..., Any]:
    """Returns `getattr`, `setattr` or `delattr` with the rules for attributes applied to its arguments and its result."""
    changes = function is not getattr

    @functools.wraps(function)
    def checked(thing: Any, name: Any, *rest: Any) -> Any:
        name = str.__str__(name) if isinstance(name, str) else name  # a subclass of str may lie when it is compared
        if name in rules.ATTRIBUTES:
            raise incidents.refuse(rules.looks_into_checker(name))
        if changes and isinstance(thing, type) and type.__getattribute__(thing, "__module__") != "__main__":
            raise incidents.refuse(rules.looks_into_checker(f"patches {thing.__name__}.{name}"))
        if isinstance(thing, types.ModuleType) and (words := _module_fault(thing, name, changes, exercise)):
            raise incidents.refuse(words)
        found = function(thing, name, *rest)
        if rules.is_closed(found):
            raise incidents.refuse(rules.looks_into_checker(found.__name__))
        return found

    return checked


def _module_fault(module: types.ModuleType, name: Any, changes: bool, exercise: str) -> str | None:
    """Returns the diagnosis for reading (or changing) an attribute of a module, or None if the rules allow it."""
    dotted = f"{module.__name__}.{name}"
    if name == "__dict__":
        return rules.looks_into_checker(dotted)
    if changes:
        return rules.looks_into_checker(f"patches {dotted}")
    harmless = rules.LIMITED.get(module.__name__.partition(".")[0], "free")
    if harmless != "free" and (harmless is None or name not in harmless):
        return rules.looks_into_checker(dotted)
    return None if rules.may_use(dotted, exercise) else rules.imports_reference(dotted)
