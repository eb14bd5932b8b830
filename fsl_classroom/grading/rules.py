"""The rules for answers, checked on their code before anything runs: no use of the reference, no look into the checker.

While an answer runs, the worker enforces the same rules (guards.py, answer_builtins.py). From `fsl_course` an answer may use only
what its lesson imports by name before the exercise (allowed_imports.json, written by tools/classroom/allowed_imports.py). From
`fsl_classroom` it may use nothing.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from fsl_classroom.grading.slices import PACKAGES, Answer

COURSE, CLASSROOM = PACKAGES
# Modules that show or change running code, each with its harmless names; None if it has none.
_CLOSED = """
    __main__ _ctypes _frozen_importlib _imp ast bdb builtins code codeop copyreg cProfile ctypes dis doctest faulthandler gc
    imp importlib linecache marshal mock pdb pickle pkgutil profile pydoc pytest runpy site symtable sysconfig
    tokenize trace tracemalloc zipimport _pickle _testcapi _testinternalcapi dill cloudpickle cffi
"""
LIMITED: dict[str, set[str] | None] = dict.fromkeys(_CLOSED.split())
LIMITED["inspect"] = {"signature", "Signature", "Parameter", "isfunction", "isclass", "iscallable", "ismethod"}
LIMITED["sys"] = {"maxsize", "float_info", "int_info", "version", "version_info", "stdout", "stderr", "byteorder"}
LIMITED["sys"] |= {"setrecursionlimit", "getrecursionlimit", "exit", "platform", "getsizeof", "intern"}
LIMITED["string"] = {"ascii_letters", "ascii_lowercase", "ascii_uppercase", "digits", "hexdigits", "punctuation"}
LIMITED["string"] |= {"Template", "capwords", "octdigits", "printable", "whitespace"}
LIMITED["types"] = {"SimpleNamespace", "MappingProxyType", "GeneratorType"}
LIMITED["IPython"] = {"display", "HTML", "Image", "Markdown", "clear_output"}
LIMITED["gc"] = {"collect", "enable", "disable", "isenabled"}
LIMITED["timeit"] = {"default_timer"}
LIMITED["traceback"] = {"print_exc", "format_exc", "print_exception", "format_exception"}
_TELLING = """
    __globals__ __closure__ __code__ __subclasses__ __builtins__ __getattribute__ __loader__ __spec__ __func__ __self__
    __defaults__ __kwdefaults__ __wrapped__ __reduce__ __reduce_ex__ __import__ __bases__ __mro__ __base__ __weakref__
    _getframe _current_frames f_back f_globals f_locals f_builtins f_code gi_frame cr_frame ag_frame gi_code tb_frame tb_next
    co_consts co_code cell_contents func_globals settrace setprofile addaudithook walk_stack currentframe
    mro __traceback__ __context__ __cause__ _os _sys attrgetter methodcaller _create_fn _exec_with_source
"""
ATTRIBUTES = set(_TELLING.split())
# Modules that other modules hold as attributes, such as os.sys.
_DOORS = {"sys", "builtins", "importlib", "inspect", "ctypes", "gc", "marshal", "pickle", "linecache"}
NAMES = {"eval", "exec", "compile", "__import__", "globals", "breakpoint", "__builtins__", "__loader__", "__spec__"}
_IN_TEXT = re.compile(
    r"__(globals|closure|code|subclasses|builtins|getattribute|loader|import|wrapped|mro|bases)__"
    r"|_getframe|f_back|f_globals|tb_frame|gi_frame|sys\.modules"
)
_TABLE = Path(__file__).with_name("allowed_imports.json")


@cache
def table() -> dict[str, dict[str, dict[str, str]]]:
    """Returns lesson -> its own imports and the names of its exercises' functions, from allowed_imports.json."""
    return json.loads(_TABLE.read_text(encoding="utf-8"))


def function_names() -> dict[str, str]:
    """Returns exercise id -> the name of its function in the lesson."""
    return {id: name for lesson in table().values() for id, name in lesson["functions"].items()}


@cache
def allowed(exercise: str) -> frozenset[str]:
    """Returns the dotted names of fsl_course that an answer to this exercise may use, under every path that leads to them."""
    lesson = table().get(exercise[:2], {"functions": {}, "imports": {}})
    order = list(lesson["functions"])
    here = order.index(exercise) if exercise in order else len(order)
    names = {name for name, first in lesson["imports"].items() if order.index(first) <= here}
    things = [resolve(name) for name in names]
    for module in [m for n, m in sorted(sys.modules.items()) if lies_in(n, COURSE)]:
        for name, value in list(vars(module).items()):
            # Only what can be called: constants such as small numbers are the same object by chance.
            if callable(value) and any(value is thing for thing in things):
                names.add(f"{module.__name__}.{name}")
    return frozenset(names)


def resolve(dotted: str) -> Any:
    """Returns the object behind "package.module.name", or None if no imported module has it."""
    head, _, tail = dotted.rpartition(".")
    if dotted in sys.modules:
        return sys.modules[dotted]
    try:
        return getattr(sys.modules.get(head), tail, None) if head else None
    except ImportError:  # a package imports some names on first use, and the worker may hide their module
        return None


def lies_in(dotted: str, *packages: str) -> bool:
    """Returns True if a dotted name is one of the packages or lies in one: "a.b" lies in "a", "ab" does not."""
    return any(dotted == package or dotted.startswith(f"{package}.") for package in packages)


def may_use(dotted: str, exercise: str) -> bool:
    """Returns True if an answer may use this dotted name, as far as the two packages are concerned (LIMITED is separate)."""
    if lies_in(dotted, CLASSROOM):
        return False
    if not lies_in(dotted, COURSE):
        return True
    parts = dotted.split(".")
    return any(".".join(parts[:n]) in allowed(exercise) for n in range(2, len(parts) + 1))


def imports_reference(what: str) -> str:
    """Returns the diagnosis for an answer that uses the package in place of code of its own."""
    return f"This answer imports the reference ({what}): write the function yourself."


def looks_into_checker(what: str) -> str:
    """Returns the diagnosis for an answer that inspects or changes running code."""
    return f"This answer looks into the checker ({what}): an answer computes from its arguments alone."


def suspicion(answer: Answer) -> str | None:
    """Returns the diagnosis of an answer whose code breaks the rules, or None."""
    nodes = [node for _, statement in answer.statements for node in ast.walk(statement)]
    if answer.expression is not None:
        nodes += ast.walk(answer.expression)
    aliases = dict(_aliases(nodes))
    own = (
        {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
        | {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        | {n.arg for n in nodes if isinstance(n, ast.arg)}
    )
    inner = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}  # parts of a longer path
    documentation = {id(n.value) for n in nodes if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for node in nodes:
        if words := _import_fault(node, answer.exercise) or _use_fault(node, answer.exercise, aliases, inner):
            return words
        if isinstance(node, ast.Name) and node.id in NAMES and node.id not in own:
            return looks_into_checker(node.id)
        if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            return looks_into_checker(node.attr)
        if isinstance(node, ast.Attribute) and node.attr in _DOORS:
            return looks_into_checker(node.attr)
        if isinstance(node, ast.Attribute) and node.attr == "__dict__" and not _is_self(node.value):
            return looks_into_checker("__dict__")
        if isinstance(node, ast.MatchClass) and (found := (ATTRIBUTES | _DOORS) & set(node.kwd_attrs)):
            return looks_into_checker(min(found))
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
        if is_text and id(node) not in documentation and (seen := _IN_TEXT.search(str(node.value))):
            return looks_into_checker(seen[0])
        if words := _patches(node, aliases):
            return looks_into_checker(f"patches {words}")
    return None


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def is_closed(thing: Any) -> bool:
    """Returns True for a module that shows or changes running code."""
    return isinstance(thing, ModuleType) and LIMITED.get(thing.__name__.partition(".")[0], "free") != "free"


def _aliases(nodes: list[ast.AST]) -> Iterator[tuple[str, str]]:
    """Yields what names stand for after the imports, e.g. ("F", "torch.nn.functional")."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for a in node.names:
                yield (a.asname, a.name) if a.asname else (a.name.partition(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom):
            for a in node.names:
                yield a.asname or a.name, f"{node.module}.{a.name}"


def _import_fault(node: ast.AST, exercise: str) -> str | None:
    if isinstance(node, ast.Import):
        for a in node.names:
            if lies_in(a.name, CLASSROOM):
                return imports_reference(a.name)
            if LIMITED.get(a.name.partition(".")[0], "free") is None:
                return looks_into_checker(a.name)
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        for a in node.names:
            dotted = f"{module}.{a.name}"
            harmless = LIMITED.get(module.partition(".")[0], {a.name})
            if node.level or not may_import(dotted, exercise):
                return imports_reference(dotted)
            if harmless is None or a.name not in harmless or a.name in ATTRIBUTES or a.name in _DOORS:
                return looks_into_checker(dotted)
    return None


def may_import(dotted: str, exercise: str) -> bool:
    """Returns True if an answer may import this name.

    Every module of the course may be imported: the rules then check each use of its attributes.
    """
    return (lies_in(dotted, COURSE) and isinstance(resolve(dotted), ModuleType)) or may_use(dotted, exercise)


def _use_fault(node: ast.AST, exercise: str, aliases: dict[str, str], inner: set[int]) -> str | None:
    """Returns the diagnosis for a path such as package.prototypes that starts at an import and leads to a forbidden name."""
    if id(node) in inner or not isinstance(node, (ast.Attribute, ast.Name)):
        return None
    path: list[str] = []
    root: ast.AST = node
    while isinstance(root, ast.Attribute):
        path.insert(0, root.attr)
        root = root.value
    if not isinstance(root, ast.Name) or root.id not in aliases:
        return None
    dotted = ".".join([aliases[root.id], *path])
    if lies_in(dotted, COURSE, CLASSROOM) and path and path[-1].startswith("__"):
        return looks_into_checker(dotted)  # package.__file__ and the like
    if not may_use(dotted, exercise):
        return imports_reference(dotted)
    module, _, rest = dotted.partition(".")
    harmless = LIMITED.get(module, "free")
    if harmless != "free" and (harmless is None or rest.partition(".")[0] not in harmless):
        return looks_into_checker(dotted)
    return None


def _patches(node: ast.AST, aliases: dict[str, str]) -> str | None:
    """Returns the name that a node assigns to or deletes, if it belongs to an import: torch.allclose = f, del torch.equal."""
    target: ast.AST | None = None
    if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        target = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
        target = node.args[0] if node.args else None
    path: list[str] = [node.attr] if isinstance(node, ast.Attribute) else []
    while isinstance(target, ast.Attribute):
        path.insert(0, target.attr)
        target = target.value
    if isinstance(target, ast.Name) and target.id in aliases:
        return ".".join([aliases[target.id], *path])
    return None
