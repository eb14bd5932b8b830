"""Turns a lesson script into the cells of its two notebooks. Executes nothing; the same lesson gives the same bytes.

`lessons/NN_name.py` (jupytext percent format) becomes `notebooks/NN_name.ipynb`, where the body of every exercise is a
stub, and `solutions/NN_name.ipynb`, which is complete. Both get a cell that installs the course on Colab. The student's
version also gets a cell with the buttons that save the learner's work: see `added_cells`.
"""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import jupytext
import nbformat
from nbformat import NotebookNode

from tools.notebooks.folding import figure_names, folded_metadata

STUDENT, SOLVED = "notebooks", "solutions"  # the two versions, named by their folders
BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
STUB = ("# YOUR CODE HERE", 'raise NotImplementedError("exercise {exercise} is not attempted yet")')
PLACEHOLDERS = ("repository", "branch", "binder", "colab", "lesson", "solution", "next")

# Google Colab starts every notebook on a machine that has PyTorch but not the course. Nothing else needs this cell.
COLAB_CELL = """\
# Google Colab needs this cell: it installs the course. Anywhere else it does nothing.
import sys
if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", 'install -q "fsl-course[widgets] @ git+{repository}@{branch}"')
    from google.colab import output
    output.enable_custom_widget_manager()"""
KEEP_TEXT = """\
## Keep your work

Working on Binder, or on a computer that is not yours? Save your answers to a file before you leave.
Next time, bring them back here."""
KEEP_CELL = """\
from fsl_classroom.widgets import WorkKeeper

WorkKeeper()"""
# The build and the tests of notebooks skip these cells: one works only on Colab, the other needs a reader who clicks.
NOT_RUN = ["skip-execution", "nbval-skip"]

# Leaves out the version of Python, because it would change with every machine.
_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}
# Lessons are plain Python. With its default jupytext would turn comments such as "# less than" into shell commands.
_FORMAT = {"extension": ".py", "format_name": "percent", "comment_magics": False}
_NAME = re.compile(r"\d\d_[a-z0-9_]+")
_EXERCISE = re.compile(r"^\s*# EXERCISE (\d\d\.\d+)\s*$")
_CHECK = re.compile(r"\bcheck\(\s*[\"'](\d\d\.\d+)[\"']")
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")


class BuildError(Exception):
    """Raised when a lesson cannot be built. The message says where, why and what to do."""


class Block(NamedTuple):
    """A solution in a cell: the indices of its two marker lines, its indentation, and the exercise it belongs to."""

    begin: int
    end: int
    indent: str
    exercise: str


def lesson_files(root: Path) -> list[Path]:
    """Returns all lessons in order. Raises BuildError if a file is not named NN_name.py or a number occurs twice."""
    files = sorted((root / "lessons").glob("*.py"))
    for file in files:
        if not _NAME.fullmatch(file.stem):
            raise BuildError(f"lessons/{file.name}: a lesson is named NN_name.py, e.g. 05_prototypical.py; rename it")
    for one, other in itertools.pairwise(files):
        if one.name[:2] == other.name[:2]:
            raise BuildError(f"lessons/{one.name} and lessons/{other.name} have the same number; rename one of them")
    return files


def read_cells(lesson: Path) -> list[NotebookNode]:
    """Returns the cells of a lesson script as jupytext reads them: cell_type, source, metadata."""
    cells = jupytext.reads(lesson.read_text(encoding="utf-8").strip(), fmt=_FORMAT).cells
    if not cells:
        raise BuildError(f"{lesson.name}: the lesson is empty; start it with a `# %% [markdown]` cell")
    return cells


def notebook(root: Path, lesson: Path, version: str) -> NotebookNode:
    """Returns one version (STUDENT or SOLVED) of a lesson as a notebook without outputs.

    Cell ids are the lesson's number and the cell's position ("05-012"). Tags and other cell metadata are kept; a cell that only
    draws is folded, see `folding`.
    """
    made = nbformat.v4.new_notebook(metadata=_METADATA)
    cells = read_cells(lesson)
    rewrite = student_source if version == STUDENT else solved_source
    figures: set[str] = set()  # what the cells so far have imported for drawing
    for position, cell in enumerate(cells, start=1):
        id = f"{lesson.name[:2]}-{position:03d}"
        metadata = {key: value for key, value in cell.metadata.items() if key != "lines_to_next_cell"}
        if cell.cell_type == "code":
            source = rewrite(cell.source, f"{lesson.name}, cell {id}")
            figures |= figure_names(source)
            metadata = folded_metadata(metadata, source, figures)
            made.cells.append(nbformat.v4.new_code_cell(source, id=id, metadata=metadata))
        elif cell.cell_type == "markdown":
            source = fill(cell.source, root, lesson, f"{lesson.name}, cell {id}")
            made.cells.append(nbformat.v4.new_markdown_cell(source, id=id, metadata=metadata))
        else:
            raise BuildError(f"{lesson.name}, cell {id}: only markdown and code cells are built, not {cell.cell_type}")
    first, last = added_cells(root, lesson, version)
    made.cells[1:1] = first
    made.cells += last
    return made


def added_cells(root: Path, lesson: Path, version: str) -> tuple[list[NotebookNode], list[NotebookNode]]:
    """Returns the cells that the build adds after the title, and those it adds at the end. Their ids are words ("05-colab")."""
    number, where = lesson.name[:2], f"{lesson.name}, added cells"
    install = COLAB_CELL.format(**{name: placeholder(name, root, lesson, where) for name in ("repository", "branch")})
    first = [nbformat.v4.new_code_cell(install, id=f"{number}-colab", metadata={"tags": NOT_RUN})]
    if version != STUDENT:
        return first, []
    text = nbformat.v4.new_markdown_cell(KEEP_TEXT, id=f"{number}-keep-text")
    return first, [text, nbformat.v4.new_code_cell(KEEP_CELL, id=f"{number}-keep", metadata={"tags": NOT_RUN})]


def is_added(cell: NotebookNode) -> bool:
    """Returns True if the build added this cell, see `added_cells`."""
    return re.fullmatch(r"\d\d-[a-z-]+", cell.get("id", "")) is not None


def student_source(source: str, where: str) -> str:
    """Returns a code cell with a stub in place of every solution. where: the cell's name for errors."""
    lines = source.split("\n")
    for block in reversed(solution_blocks(source, where)):
        stub = [block.indent + line.format(exercise=block.exercise) for line in STUB]
        lines[block.begin : block.end + 1] = stub
    student = "\n".join(line for line in lines if not _EXERCISE.match(line))
    _parse(student, f"{where}, student version")
    return student


def solved_source(source: str, where: str) -> str:
    """Returns a code cell without the marker lines."""
    blocks = solution_blocks(source, where)
    markers = {line for block in blocks for line in (block.begin, block.end)}
    kept = [line for i, line in enumerate(source.split("\n")) if i not in markers and not _EXERCISE.match(line)]
    return "\n".join(kept)


def solution_blocks(source: str, where: str) -> list[Block]:
    """Returns the solutions of a code cell in order. Raises BuildError if a mark is misplaced, misspelt or unpaired."""
    tree = _parse(source, where)
    lines = source.split("\n")
    blocks: list[Block] = []
    begin: int | None = None
    for i, line in enumerate(lines):
        mark = line.strip()
        if mark == BEGIN:
            if begin is not None:
                raise BuildError(f"{where}: a second `{BEGIN}` before `{END}`; close the first one")
            begin = i
        elif mark == END:
            if begin is None:
                raise BuildError(f"{where}: `{END}` without `{BEGIN}` before it")
            blocks.append(_block(lines, tree, begin, i, where))
            begin = None
        elif re.match(r"#\W*(begin|end)\W+solution", mark, re.IGNORECASE):
            raise BuildError(f"{where}: `{mark}` looks like a mark but is none; write `{BEGIN}` and `{END}` exactly")
    if begin is not None:
        raise BuildError(f"{where}: `{BEGIN}` without `{END}` after it")
    return blocks


def _block(lines: list[str], tree: ast.Module, begin: int, end: int, where: str) -> Block:
    """Returns the solution between two marks. Raises BuildError unless it is code within a function, indented like its marks."""
    body = [i for i in range(begin + 1, end) if lines[i].strip()]
    if not body:
        raise BuildError(f"{where}: there is no code between `{BEGIN}` and `{END}`")
    indent = _indent(lines[begin])
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    # ast counts lines from 1, so line begin (from 0) is after the def line when lineno <= begin
    if not any(f.lineno <= begin and body[-1] + 1 <= f.end_lineno and f.col_offset < len(indent) for f in functions):
        raise BuildError(
            f"{where}: the code between `{BEGIN}` and `{END}` is not the body of a function. An exercise is a function "
            "whose body lies between the marks; put this code into one"
        )
    if not indent == _indent(lines[body[0]]) == _indent(lines[end]):
        raise BuildError(f"{where}: indent `{BEGIN}` and `{END}` like the code between them")
    return Block(begin, end, indent, _exercise_of(lines, begin, end, where))


def _exercise_of(lines: list[str], begin: int, end: int, where: str) -> str:
    """Returns the id that the next check("05.1", ...) names, or else the one of the nearest `# EXERCISE 05.1` above."""
    if after := _CHECK.search("\n".join(lines[end:])):
        return after[1]
    for line in reversed(lines[:begin]):
        if above := _EXERCISE.match(line):
            return above[1]
    raise BuildError(
        f'{where}: which exercise is this? Call check("05.1", ...) after the solution in the same cell, '
        "or write `# EXERCISE 05.1` above the function"
    )


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _parse(source: str, where: str) -> ast.Module:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise BuildError(f"{where}: not plain Python, line {error.lineno}: {error.msg}") from None
    if not tree.body:
        raise BuildError(f"{where}: a code cell without code; remove it, or make it a text cell")
    return tree


def fill(source: str, root: Path, lesson: Path, where: str) -> str:
    """Returns a text cell with its {{placeholders}} filled in from pyproject.toml and the lesson's place in the course."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in PLACEHOLDERS:
            known = ", ".join(f"{{{{{name}}}}}" for name in PLACEHOLDERS)
            raise BuildError(f"{where}: unknown placeholder {match[0]}; known are {known}. In a formula write {{ {{")
        return placeholder(match[1], root, lesson, where)

    return _PLACEHOLDER.sub(value, source)


def placeholder(name: str, root: Path, lesson: Path, where: str) -> str:
    """Returns what one of PLACEHOLDERS stands for in a lesson. Relative links work from notebooks/ and from solutions/."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["fsl_course"]
    repository, branch = settings["repository"].rstrip("/").removesuffix(".git"), settings["branch"]
    if name in ("binder", "colab"):
        on_github = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", repository)
        if not on_github:
            raise BuildError(
                f"{where}: {{{{{name}}}}} needs a repository on https://github.com/, but pyproject.toml "
                f"[tool.fsl_course] says {repository}. Change it there, or remove the link"
            )
        path = f"{STUDENT}/{lesson.stem}.ipynb"
        if name == "binder":
            return f"https://mybinder.org/v2/gh/{on_github[1]}/{branch}?urlpath=lab/tree/{path}"
        return f"https://colab.research.google.com/github/{on_github[1]}/blob/{branch}/{path}"
    if name == "next":
        following = [file for file in lesson_files(root) if file.name > lesson.name]
        return f"../{STUDENT}/{following[0].stem}.ipynb" if following else "../README.md"
    return {
        "repository": repository,
        "branch": branch,
        "lesson": lesson.stem,
        "solution": f"../{SOLVED}/{lesson.stem}.ipynb",
    }[name]
