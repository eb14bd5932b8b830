"""Finds the cells of a lesson that only draw. The build folds them, so that ideas stay on the screen and plotting does not.

A cell stays open if it computes more than the arrangement of a picture and of the words about it, asserts, or defines a function.
Where this rule cannot know, the lesson says so: `# %% tags=["draws"]` folds a cell, `# %% tags=["open"]` keeps it open.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

DRAWS, OPEN = "draws", "open"  # the tags by which a lesson overrides the rule
FOLDED_TAG = "hide-input"  # what the book reads; JupyterLab reads jupyter.source_hidden
FIGURES = "fsl_course.figures"
# Functions and methods that arrange numbers and words on their way into a picture, whatever they are called on.
_BUILTINS = frozenset(
    {"abs", "bool", "dict", "enumerate", "float", "int", "len", "list", "map", "max", "min", "print"}
    | {"range", "reversed", "round", "set", "sorted", "str", "sum", "tuple", "zip"}
)
_METHODS = frozenset(
    {"append", "argmax", "clamp", "detach", "double", "expand", "flatten", "float", "format", "get", "index"}
    | {"int", "item", "items", "join", "keys", "max", "mean", "min", "nonzero", "numpy", "permute", "replace"}
    | {"repeat_interleave", "reshape", "size", "sort", "split", "squeeze", "startswith", "std", "strip", "sum"}
    | {"tolist", "unsqueeze", "update", "values", "view"}
)
_TORCH = frozenset({"arange", "cat", "full", "linspace", "meshgrid", "ones", "stack", "tensor", "zeros"})


def figure_names(source: str) -> set[str]:
    """Returns the names that a code cell imports from `fsl_course.figures`."""
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports if node.module == FIGURES for alias in node.names}


def is_folded(source: str, tags: Iterable[str], figures: set[str]) -> bool:
    """Returns True if the build folds a code cell. figures: the names that its lesson has imported for drawing."""
    return DRAWS in tags or (OPEN not in tags and only_draws(source, figures))


def folded_metadata(metadata: dict, source: str, figures: set[str]) -> dict:
    """Returns the metadata of a code cell, with the fold for JupyterLab and the book if the cell only draws."""
    tags = metadata.get("tags", [])
    if not is_folded(source, tags, figures):
        return metadata
    return {**metadata, "jupyter": {"source_hidden": True}, "tags": [*tags, FOLDED_TAG]}


def only_draws(source: str, figures: set[str]) -> bool:
    """Returns True if a code cell shows a figure and every one of its statements leads to one."""
    cell = _Cell(figures)
    return all(cell.arranges(statement) for statement in ast.parse(source).body) and cell.shows


class _Cell:
    """Walks the statements of a cell in order and remembers which names hold a figure, its axes, or parts of them."""

    def __init__(self, figures: set[str]) -> None:
        self.figures, self.shows = figures, False
        self.drawn = {"new"} & figures  # names whose methods draw; `new` returns a figure and its axes

    def arranges(self, statement: ast.stmt) -> bool:
        """Returns True if a statement draws, or arranges numbers and words for a picture."""
        match statement:
            case ast.Expr(value=value) | ast.AugAssign(value=value):
                return self._allows(value)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._note(target, value)
                return self._allows(value)
            case ast.For(target=target, iter=items, body=body):
                self._note(target, items)
                return self._allows(items) and all(map(self.arranges, body))
            case ast.If(test=test, body=body, orelse=orelse):
                return self._allows(test) and all(map(self.arranges, [*body, *orelse]))
        return False

    def _note(self, target: ast.expr, value: ast.expr) -> None:
        """Remembers the target of an assignment or a loop if its value is part of a picture."""
        match target, value:
            case ast.Tuple(elts=names), ast.Call(func=ast.Name(id="zip"), args=values):
                for one, other in zip(names, values, strict=False):
                    self._note(one, other)
            case ast.Tuple(elts=[_, one]), ast.Call(func=ast.Name(id="enumerate"), args=[values, *_]):
                self._note(one, values)
            case _:
                if _names([value]) & self.drawn:
                    self.drawn |= _names([target])

    def _allows(self, value: ast.expr) -> bool:
        """Returns True if every call within an expression draws or arranges."""
        calls = [node for node in ast.walk(value) if isinstance(node, ast.Call)]
        return all(map(self._allows_call, calls))

    def _allows_call(self, call: ast.Call) -> bool:
        match call.func:
            case ast.Name(id=name):
                self.shows |= name == "show" and name in self.figures
                return name in self.figures | _BUILTINS
            case ast.Attribute(value=ast.Name(id="torch"), attr=name):
                return name in _TORCH
            case ast.Attribute(value=owner, attr=name):
                return name in _METHODS or bool(_names([owner]) & self.drawn)
        return False


def _names(expressions: Iterable[ast.expr]) -> set[str]:
    return {node.id for expression in expressions for node in ast.walk(expression) if isinstance(node, ast.Name)}
