"""A lesson's page in the web book: the solved notebook with its outputs, and before every solution the learner's stub.

Nothing runs here. Both notebooks come from one lesson, so their cells pair up one to one.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from tools.book.links import Links
from tools.notebooks.cells import SOLVED, STUDENT, is_added, lesson_files
from tools.notebooks.parts import PARTS, Part, planned_minutes

FOLDED = "hide-input"  # the tag of a cell whose code the book folds away
_TITLE = re.compile(r"^# # (?P<number>\d\d) (?P<title>.+)$", re.M)
_PROMISE = re.compile(r"^# # .+\n#\n((?:# [^#\n-].*\n)+)", re.M)
_NEEDS = re.compile(r"Prerequisites: (.+?)\. Planned", re.S)


class LessonError(Exception):
    """A lesson cannot be shown. The message says what its first cell lacks, or where its two notebooks do not pair up."""


class Lesson(NamedTuple):
    """A lesson as its first cell describes it. needs, planned, seconds and memory are words such as "60 min"."""

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
    """Returns all lessons in order, with what their first cells say and data/lesson_times.json measured.

    Raises LessonError for a first cell without title, promise, prerequisites or planned minutes, and for one never measured.
    """
    times = json.loads((root / "data" / "lesson_times.json").read_text(encoding="utf-8"))
    found = []
    for path in lesson_files(root):
        text = path.read_text(encoding="utf-8").partition("\n# %%")[0]
        title, promise, needs = (pattern.search(text) for pattern in (_TITLE, _PROMISE, _NEEDS))
        try:
            minutes = planned_minutes(path)
        except ValueError:
            minutes = 0
        if not (title and promise and needs and minutes):
            raise LessonError(
                f"{path.name}: the first cell needs a title `# NN Title`, a promise, and a line "
                "`Prerequisites: ... . Planned time: 60 minutes.`"
            )
        words = " ".join(line[2:] for line in promise[1].splitlines())
        needed = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", needs[1])
        if path.stem not in times:
            cure = f"build it once with `python -m tools.notebooks.build {path.name[:2]} --measure`"
            raise LessonError(f"{path.name} has no measured time in data/lesson_times.json: {cure}.")
        measured = times[path.stem]
        seconds, memory = f"{measured['seconds']:.0f} s", f"{measured['peak_mb']:.0f} MB"
        facts = (needed, f"{minutes} min", seconds, memory)
        found.append(Lesson(title["number"], title["title"], path.stem, words, *facts))
    return found


def by_part(found: list[Lesson]) -> list[tuple[Part, list[Lesson]]]:
    """Returns the parts of the course that have lessons, each with its lessons in order."""
    groups = [(part, [one for one in found if part.holds(one.number)]) for part in PARTS]
    return [(part, mine) for part, mine in groups if mine]


def page(root: Path, lesson: Lesson, links: Links) -> NotebookNode:
    """Returns the lesson's page: every cell of the solved notebook, and a stub before each cell that holds a solution."""
    student, solved = (nbformat.read(root / path, as_version=4) for path in (lesson.notebook, lesson.solution))
    made = nbformat.v4.new_notebook(metadata=copy.deepcopy(solved.metadata))
    made.metadata.pop("widgets", None)
    for cell, stub in pairs(lesson, student, solved):
        if cell.cell_type == "markdown":
            text = cell.source if made.cells else first_cell(cell.source, lesson)
            made.cells.append({**cell, "source": links.for_sphinx(text, lesson.notebook)})
        elif stub is None:
            made.cells.append(shown_cell(cell))
        else:
            made.cells += [stub_cell(cell, stub), solution_cell(cell)]
    made.cells = [nbformat.from_dict(cell) for cell in made.cells]
    return made


def pairs(lesson: Lesson, student: NotebookNode, solved: NotebookNode) -> list[tuple[NotebookNode, str | None]]:
    """Returns each cell of the solved notebook with the source of the learner's version, or None where both are the same.

    Cells that the build has added are left out, because they serve only where the notebook is run. Raises LessonError if the
    two notebooks do not come from the same lesson.
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
    """Returns the first cell with the links of the book: solutions are on the same page, and slides are added."""
    shown = f'- <a href="../slides/{lesson.stem}.html">Slides for teaching</a>'
    lines = [line for line in text.split("\n") if not re.match(r"- \[Solution\]", line)]
    measured = (
        f"Solved, this notebook runs in {lesson.seconds} and {lesson.memory} of memory. "
        "Every solution is folded away under its exercise; outputs are those of the solved notebook."
    )
    return "\n".join([*lines, shown, "", measured])


def shown_cell(cell: NotebookNode) -> NotebookNode:
    """Returns a cell that is the same for learners. If the build has folded it, because it only draws, the fold says so."""
    made = copy.deepcopy(cell)
    if FOLDED in made.metadata.get("tags", []):
        made.metadata["mystnb"] = {
            "code_prompt_show": "Show the code of this picture",
            "code_prompt_hide": "Hide the code",
        }
    return made


def stub_cell(cell: NotebookNode, stub: str) -> NotebookNode:
    """Returns what the learner finds, without outputs, because those belong to the solution."""
    made = nbformat.v4.new_code_cell(stub, id=f"{cell.id}-stub")
    made.metadata["tags"] = ["exercise-stub"]
    return made


def solution_cell(cell: NotebookNode) -> NotebookNode:
    """Returns the solved cell with its code folded away and its outputs in sight."""
    made = copy.deepcopy(cell)
    made.metadata["tags"] = list(dict.fromkeys([*made.metadata.get("tags", []), FOLDED]))
    made.metadata["mystnb"] = {"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
    return made
