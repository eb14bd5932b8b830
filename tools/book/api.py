"""The pages of the API reference: one for each public module of the package, written for Sphinx's autodoc."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

_EXERCISE_FILES = "ex[0-9][0-9]_*.py"  # catalogues of exercises, with their solutions: no API


def modules(root: Path) -> dict[str, str]:
    """Public modules: repository path -> dotted name. Private ones and catalogues of exercises are left out."""
    found = {}
    for path in sorted((root / "fsl_course").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if path.match(_EXERCISE_FILES) or any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        found[path.relative_to(root).as_posix()] = ".".join(part for part in parts if part != "__init__")
    return found


def page(name: str, public: set[str]) -> str:
    """The page of one module. public: the dotted names of all modules that have a page."""
    lines = [f"# `{name}`", "", "```{eval-rst}", f".. automodule:: {name}"]
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):  # a package: its names live elsewhere
        lines += ["   :no-members:", ""]
        for item in getattr(module, "__all__", []):
            home = getattr(getattr(module, item), "__module__", name)
            kind = _kind(getattr(module, item))
            if home in public and home != name:
                lines.append(f"* :py:obj:`{item} <{home}.{item}>` of ``{home}``")
            elif kind:
                lines += ["", f".. auto{kind}:: {name}.{item}", *(["   :members:"] if kind == "class" else []), ""]
    else:
        lines.append("   :members:")
    return "\n".join([*lines, "```", ""])


def _kind(item: object) -> str:
    if isinstance(item, type):
        return "class"
    return "function" if callable(item) else ""  # a constant is listed by the module that holds it


def index(root: Path, found: dict[str, str]) -> str:
    """The table of all modules with the first sentence of each docstring, and the navigation."""
    rows = []
    for path, name in found.items():
        words = (ast.get_docstring(ast.parse((root / path).read_text(encoding="utf-8"))) or "").split("\n")[0]
        rows.append(f"| [`{name}`](/api/{name}.md) | {words.replace('``', '`').replace('|', chr(92) + '|')} |")
    tree = "\n".join(f"{name} <{name}>" for name in found.values())
    return "\n".join(
        [
            "# The package `fsl_course`",
            "",
            "Made from the docstrings. Shapes stand in brackets: `[S, D]` is a tensor of S rows and D columns;",
            "the letters are those of the [notation](/notation.md).",
            "",
            "| module | what it holds |",
            "|---|---|",
            *rows,
            "",
            "```{toctree}",
            ":hidden:",
            "",
            tree,
            "```",
            "",
        ]
    )
