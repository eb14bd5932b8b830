"""A lesson's page in the web book: the solved notebook with its outputs, and before every solution the learner's stub.

Nothing runs here. Both notebooks come from one lesson, so their cells pair up one to one.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from tools.book.links import Links
from tools.book.readme import lesson_table
from tools.notebooks.cells import SOLVED, STUDENT, is_added

_ROW = re.compile(
    r"^\| \[(?P<number>\d\d) (?P<title>.+?)\]\(notebooks/(?P<stem>\w+)\.ipynb\).*? \| (?P<rest>.+) \|$", re.M
)


class LessonError(Exception):
    """The two notebooks of a lesson do not fit together. The message says where and what to do."""


class Lesson(NamedTuple):
    """One lesson as the course's table has it. needs, planned, seconds, memory are words such as "60 min"."""

    number: str
    title: str
    stem: str
    promise: str
    needs: str
    planned: str
    seconds: str
    memory: str

    @property
    def notebook(self) -> str:
        """Path of the student's notebook in the repository."""
        return f"{STUDENT}/{self.stem}.ipynb"

    @property
    def solution(self) -> str:
        """Path of the solved notebook in the repository."""
        return f"{SOLVED}/{self.stem}.ipynb"


def lessons(root: Path) -> list[Lesson]:
    """All lessons in their order: the rows of the README's table, and what each one asks for."""
    found = []
    for row in _ROW.finditer(lesson_table(root)):
        text = (root / "lessons" / f"{row['stem']}.py").read_text(encoding="utf-8")
        needs = re.search(r"Prerequisites: (.+?)\. Planned", text)
        if not needs:
            raise LessonError(f"lessons/{row['stem']}.py: the first cell names no `Prerequisites: ... . Planned time`")
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", needs[1])
        found.append(Lesson(row["number"], row["title"], row["stem"], *_promise(row["rest"], words)))
    return found


def _promise(rest: str, needs: str) -> tuple[str, str, str, str, str]:
    promise, planned, seconds, memory = rest.rsplit(" | ", 3)
    return promise, needs, planned, seconds, memory


def page(root: Path, lesson: Lesson, links: Links) -> NotebookNode:
    """The lesson's page: every cell of the solved notebook, and a stub before each cell that holds a solution."""
    student, solved = (nbformat.read(root / path, as_version=4) for path in (lesson.notebook, lesson.solution))
    made = nbformat.v4.new_notebook(metadata=copy.deepcopy(solved.metadata))
    made.metadata.pop("widgets", None)
    for cell, stub in pairs(lesson, student, solved):
        if cell.cell_type == "markdown":
            text = cell.source if made.cells else first_cell(cell.source, lesson)
            made.cells.append({**cell, "source": links.for_sphinx(text, lesson.notebook)})
        elif stub is None:
            made.cells.append(copy.deepcopy(cell))
        else:
            made.cells += [stub_cell(cell, stub), solution_cell(cell)]
    made.cells = [nbformat.from_dict(cell) for cell in made.cells]
    return made


def pairs(lesson: Lesson, student: NotebookNode, solved: NotebookNode) -> list[tuple[NotebookNode, str | None]]:
    """Each cell of the solved notebook with the learner's version of it, None where both are the same.

    Cells that the build has added are left out: they only serve where the notebook is run.
    """
    stubs, cells = ([cell for cell in notebook.cells if not is_added(cell)] for notebook in (student, solved))
    if [cell.id for cell in stubs] != [cell.id for cell in cells]:
        raise LessonError(
            f"{lesson.notebook} and {lesson.solution} have different cells; build them again: "
            f"python -m tools.notebooks.build {lesson.number}"
        )
    return [
        (right, None if right.source == left.source else left.source) for left, right in zip(stubs, cells, strict=True)
    ]


def first_cell(text: str, lesson: Lesson) -> str:
    """The first cell with links that make sense in the book: solutions are on the page, slides beside it."""
    shown = f'- <a href="../slides/{lesson.stem}.html">Slides for teaching</a>'
    lines = [line for line in text.split("\n") if not re.match(r"- \[Solution\]", line)]
    measured = (
        f"Solved, this notebook runs in {lesson.seconds} and {lesson.memory} of memory. "
        "Every solution is folded away under its exercise; outputs are those of the solved notebook."
    )
    return "\n".join([*lines, shown, "", measured])


def stub_cell(cell: NotebookNode, stub: str) -> NotebookNode:
    """What the learner finds. It has no output: those that are shown belong to the solution."""
    made = nbformat.v4.new_code_cell(stub, id=f"{cell.id}-stub")
    made.metadata["tags"] = ["exercise-stub"]
    return made


def solution_cell(cell: NotebookNode) -> NotebookNode:
    """The solved cell, its code folded away and its outputs in sight."""
    made = copy.deepcopy(cell)
    made.metadata["tags"] = [*made.metadata.get("tags", []), "hide-input"]
    made.metadata["mystnb"] = {"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
    return made
