"""Writes fsl_classroom/grading/allowed_imports.json: what the lessons themselves import from fsl_course, for `grade`.

    python -m tools.classroom.allowed_imports

An answer may use what its lesson imports by name before the check of its exercise, and nothing else of the package. The table
also keeps the name of each exercise's function, so that grading finds an answer whose check was deleted. It ships with the
package, because an installed package has no lessons. Run this whenever the imports or the exercises of a lesson change.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

from fsl_course._system.files import replace_file
from tools.notebooks.cells import lesson_files

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "fsl_classroom" / "grading" / "allowed_imports.json"


def allowed_imports(root: Path = ROOT) -> dict[str, dict[str, dict[str, str]]]:
    """Returns the table.

    lesson -> {"functions": exercise -> its function's name, "imports": dotted name -> first exercise that may use it}
    """
    table: dict[str, dict[str, dict[str, str]]] = {}
    for lesson in lesson_files(root):
        waiting: set[str] = set()
        functions: dict[str, str] = {}
        imports: dict[str, str] = {}
        for node in ast.parse(lesson.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fsl_course":
                waiting |= {f"{node.module}.{alias.name}" for alias in node.names}
            if found := _check(node):
                functions[found[0]] = found[1]
                imports |= {name: found[0] for name in sorted(waiting) if name not in imports and not _is_module(name)}
                waiting.clear()
        if functions:
            table[lesson.name[:2]] = {"functions": functions, "imports": imports}
    return table


def _check(node: ast.stmt) -> tuple[str, str] | None:
    """Returns (id, name) for `name = check("05.1", name)`, or None for any other statement."""
    call = getattr(node, "value", None)
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "check":
        return None
    id, answer = call.args
    return (id.value, answer.id) if isinstance(id, ast.Constant) and isinstance(answer, ast.Name) else None


def _is_module(dotted: str) -> bool:
    """Returns True for a module. The table has no modules, because through them a lesson shows the package's own solutions."""
    parent = importlib.util.find_spec(dotted.rpartition(".")[0])
    is_package = parent is not None and parent.submodule_search_locations is not None
    return is_package and importlib.util.find_spec(dotted) is not None


def content(root: Path = ROOT) -> bytes:
    """Returns the content of the file."""
    return (json.dumps(allowed_imports(root), indent=1) + "\n").encode()


if __name__ == "__main__":
    replace_file(TABLE, content())
    print(f"{len(allowed_imports())} lessons in {TABLE.name}")
