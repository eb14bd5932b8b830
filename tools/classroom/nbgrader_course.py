"""An nbgrader course out of the lessons.

    python -m tools.classroom.nbgrader_course --out build/nbgrader                    all lessons
    python -m tools.classroom.nbgrader_course --out build/nbgrader 01 05 --seed 7     two lessons, an assignment of variants
    python -m tools.classroom.nbgrader_course --out build/nbgrader --release          the students' versions too

Every exercise becomes a solution cell, followed by a locked test cell worth its difficulty in points. The test calls `require`,
which never falls back on the reference. The lesson's own `check` comes after the test, so that the rest of the lesson works for
everyone.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsl_classroom import assignments
from fsl_classroom.assignments import code_cell, statement, text_cell, to_bytes
from fsl_course._system.files import replace_file
from tools.notebooks.cells import BuildError, fill, lesson_files, placeholder, read_cells, solution_blocks

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"  # what nbgrader looks for
TEST = """\
# {points}. A fresh copy of the test judges your function, never a stand-in for it.
import importlib

from fsl_classroom.checking import require as _require

importlib.reload(_require).require("{exercise}", {name})"""
HEADER = """\
**Before you hand in**: restart the kernel, run all cells, and save. Write only in cells that say `YOUR CODE HERE`; you may add
cells.

A test cell is silent when the function above it is right, and says what is wrong otherwise. In a lesson the cell after it lets
the rest run with the reference in place of a function that is not right yet; that gives no points."""
CONFIG = '''\
"""Settings of nbgrader for this course. Run nbgrader in this folder."""

import os
from pathlib import Path

c = get_config()  # noqa: F821  nbgrader defines it

c.CourseDirectory.course_id = "fsl-course"
c.IncludeHeaderFooter.header = "source/header.ipynb"
# The words by which a test knows a cell that nobody has touched.
c.ClearSolutions.code_stub = {
    "python": '# YOUR CODE HERE\\nraise NotImplementedError("this exercise is not attempted yet")'
}
c.Execute.timeout = 600  # seconds a cell: some train a network
# Lessons record progress when they run. Grading must not touch the teacher's own.
os.environ["FSL_PROGRESS"] = str(Path(__file__).resolve().parent / "progress-of-grading.json")
'''
_POINTS = re.compile(r"^#+ Exercise (\d\d\.\d+)\b.*\(difficulty (\d)/5", re.MULTILINE)


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Runs the command line. Returns the exit status: 0, or 1 after a message that says what is wrong."""
    parser = argparse.ArgumentParser(description="Make an nbgrader course out of the lessons.")
    parser.add_argument("lessons", nargs="*", metavar="NN", help="numbers of lessons, e.g. 05 (default: all)")
    parser.add_argument("--seed", type=int, action="append", default=[], help="add an assignment of seeded variants")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the course's folder; gradebook and work stay")
    parser.add_argument("--release", action="store_true", help="make the students' versions as well (runs nbgrader)")
    options = parser.parse_args(arguments)
    out = Path(options.out).resolve()
    try:
        made = course(root, options.lessons, options.seed)
        for name, content in made.items():
            replace_file(out / name, content)
    except (BuildError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    names = [Path(name).stem for name in made if name.count("/") == 2]
    print(f"{out}: {', '.join(names)}")
    # nbgrader calls alembic by its name, which must be on the path even if the environment is not activated.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    for name in names if options.release else []:
        command = [sys.executable, "-m", "nbgrader", "generate_assignment", name, "--force"]
        if status := subprocess.run(command, cwd=out, env={**os.environ, "PATH": path}, check=False).returncode:
            print(f"error: nbgrader could not release {name} (exit status {status}).", file=sys.stderr)
            return 1
    return 0


def course(root: Path, lessons: Sequence[str] = (), seeds: Sequence[int] = ()) -> dict[str, bytes]:
    """Returns the files of the course: path inside its folder -> content.

    Raises BuildError for an unknown lesson and for a lesson whose cells nbgrader cannot grade.
    """
    files = {file.name[:2]: file for file in lesson_files(root)}
    if unknown := [number for number in lessons if number not in files]:
        raise BuildError(f"no lesson {', '.join(unknown)}; there are {', '.join(files) or 'none'}")
    header = {**_empty(), "cells": [text_cell("header", HEADER)]}
    made = {"nbgrader_config.py": CONFIG.encode(), "source/header.ipynb": to_bytes(header)}
    for number, file in files.items():
        if not lessons or number in lessons:
            made[f"source/{file.stem}/{file.stem}.ipynb"] = to_bytes(lesson_notebook(root, file))
    for seed in seeds:
        made[f"source/assignment_{seed}/assignment_{seed}.ipynb"] = to_bytes(assignment_notebook(seed))
    return made


def lesson_notebook(root: Path, lesson: Path) -> dict[str, Any]:
    """Returns the teacher's version of a lesson as notebook JSON."""
    cells: list[dict[str, Any]] = []
    points: dict[str, int] = {}
    for position, cell in enumerate(read_cells(lesson), start=1):
        key = f"{lesson.name[:2]}-{position:03d}"
        where = f"{lesson.name}, cell {key}"
        if cell.cell_type == "markdown":
            points |= {exercise: int(found) for exercise, found in _POINTS.findall(cell.source)}
            cells.append(text_cell(key, lesson_text(cell.source, root, lesson, where)))
        elif solution_blocks(cell.source, where):
            answer, exercise, name, rest = split(cell.source, where)
            if exercise not in points:
                raise BuildError(
                    f'{where}: no text above says "Exercise {exercise} ... (difficulty n/5": how many points?'
                )
            cells += graded(key, exercise, name, answer, points[exercise])
            cells.append(_locked(code_cell(f"{key}-go-on", rest), f"go-on-{exercise}"))
        else:
            cells.append(code_cell(key, cell.source))
    return {**_empty(), "cells": cells}


def assignment_notebook(seed: int) -> dict[str, Any]:
    """Returns the teacher's version of an assignment, with all variants of a seed, as notebook JSON."""
    from fsl_classroom import find
    from fsl_classroom.variants import IMPORTS

    cells = [
        text_cell("title", f"# Assignment {seed}\n\nExercises of the course with other requirements: read the lists."),
        _locked(code_cell("set-up", IMPORTS), "set-up"),
    ]
    for exercise in assignments.choose([], []):
        made = find(f"{exercise}@{seed}")
        key = exercise.replace(".", "-")
        cells.append(text_cell(f"{key}-task", statement(made)))
        marked = made.written(f"    {BEGIN}\n{made.body}\n    {END}")
        cells += graded(key, made.id, made.name, marked, made.difficulty)
    return {**_empty(), "cells": cells}


def split(source: str, where: str) -> tuple[str, str, str, str]:
    """Cuts an exercise cell at its check. Returns the function with nbgrader's marks, the exercise's id, the function's name, and
    the cell from `check` on. Raises BuildError unless the cell has exactly one check.
    """
    lines = source.split("\n")
    for block in solution_blocks(source, where):
        lines[block.begin], lines[block.end] = block.indent + BEGIN, block.indent + END
    checks = [(node, call) for node in ast.parse(source).body if (call := _check_call(node))]
    if len(checks) != 1:
        raise BuildError(f"{where}: an exercise cell needs one `name = check(id, name)`; this one has {len(checks)}")
    node, call = checks[0]
    answer = "\n".join(lines[: node.lineno - 1]).rstrip()
    return answer, call.args[0].value, ast.unparse(call.args[1]), "\n".join(lines[node.lineno - 1 :])


def _check_call(node: ast.stmt) -> ast.Call | None:
    """Returns the call in `name = check("05.1", name)` or `check("05.1", name)`, or None for any other statement."""
    call = node.value if isinstance(node, ast.Assign | ast.Expr) else None
    if (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "check"
        and len(call.args) == 2
    ):
        return call if isinstance(call.args[0], ast.Constant) else None
    return None


def graded(key: str, exercise: str, name: str, answer: str, points: int) -> list[dict[str, Any]]:
    """Returns the two cells of an exercise: the one for the answer and the locked test after it.

    The test comes before the lesson's `check`, after which the name may stand for the reference instead of the answer.
    """
    test = TEST.format(points=f"{points} point{'s' * (points > 1)}", exercise=exercise, name=name)
    return [
        _marked(code_cell(key, answer), f"answer-{exercise}", solution=True),
        _marked(code_cell(f"{key}-test", test), f"test-{exercise}", grade=True, locked=True, points=points),
    ]


def lesson_text(source: str, root: Path, lesson: Path, where: str) -> str:
    """Returns a text cell without links to Binder, Colab and the solution; links into the repository become public addresses."""
    kept = "\n".join(line for line in source.split("\n") if not re.match(r"- \[.*\{\{", line))
    repository, branch = (placeholder(name, root, lesson, where) for name in ("repository", "branch"))
    return fill(kept, root, lesson, where).replace("](../", f"]({repository}/blob/{branch}/")


def _locked(cell: dict[str, Any], grade_id: str) -> dict[str, Any]:
    """Marks a cell as locked: nbgrader restores its source before it grades."""
    return _marked(cell, grade_id, locked=True)


def _marked(cell: dict[str, Any], grade_id: str, **kind: Any) -> dict[str, Any]:
    about = {"grade": False, "locked": False, "solution": False, "task": False, "schema_version": 3, **kind}
    grade_id = re.sub(r"\W", "-", grade_id)  # nbgrader takes letters, digits, - and _
    return {**cell, "metadata": {"nbgrader": {**about, "grade_id": grade_id}}}


def _empty() -> dict[str, Any]:
    return {"cells": [], "metadata": assignments.METADATA, "nbformat": 4, "nbformat_minor": 5}


if __name__ == "__main__":
    sys.exit(main())
