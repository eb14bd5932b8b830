"""The command `assignment`: writes notebooks of seeded variants, and the solved ones for the teacher.

python -m fsl_classroom assignment --seed 7 --lessons 05 07 --out FOLDER
python -m fsl_classroom assignment --seed 7 --students names.txt --out FOLDER
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsl_course._system.files import replace_file
from fsl_course.cli.terminal import in_words

PLAN, PLAN_FORMAT = "assignment.json", "fsl-course assignment 1"  # fsl_classroom/grading/expected.py reads it
MOST_SEED = 999_999_999  # nine digits, as in an exercise's id
_LONGEST_NAME = 200  # bytes; file systems allow 255 for a whole file name
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
INSTRUCTIONS = """\
Each exercise is one of the course with its own requirements, drawn for this notebook: read the list in every task, the public
solution does not fit. Write your code in the place of the line `raise NotImplementedError(...)` and run the cell: `check` says
what is right and what is not, and `hint("{first}")` helps. Change neither the names of the functions nor the ids in `check`.
A cell left as it is counts as not attempted.

Run the first code cell first. Before you hand in, restart the kernel, run all cells, and save."""
CLOSING = """\
## Done?

Restart the kernel, run all cells, look for ✓ under every exercise, save, and hand in this file under its own name."""


def add_parser(commands: Any) -> None:
    """Adds `assignment` to the subcommands of `python -m fsl_classroom` (what `add_subparsers` returned)."""
    parser = commands.add_parser(
        "assignment",
        help="writes a notebook of seeded variants of exercises, and its solution for the teacher",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m fsl_classroom assignment --seed 7 --lessons 05 07 --out week3\n"
        "  python -m fsl_classroom assignment --seed 7 --exercises 05.1 07.3 \\\n"
        "      --students names.txt --out week3\n"
        "names.txt has one student per line; every student gets different requirements.",
    )
    parser.add_argument("--seed", type=int, required=True, help=f"0 to {MOST_SEED}; the same seed gives the same work")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--lessons", nargs="+", default=[], metavar="NN", help="all variants of these lessons, e.g. 05 07"
    )
    which.add_argument(
        "--exercises", nargs="+", default=[], metavar="ID", help="variants of these exercises, e.g. 05.1 07.3"
    )
    parser.add_argument("--students", metavar="FILE", help="file with one name per line; writes a notebook for each")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder for the notebooks")
    parser.add_argument("--force", action="store_true", help="overwrite notebooks that exist already")


def run(arguments: argparse.Namespace) -> int:
    """Writes the notebooks. Returns exit status 0, or 1 after printing to stderr what is wrong; then it writes nothing."""
    try:
        files = notebooks(arguments.seed, choose(arguments.lessons, arguments.exercises), arguments.students)
        folder = Path(arguments.out).expanduser()
        present = [name for name in files if (folder / name).exists()]
        if present and not arguments.force:
            raise ValueError(f"{folder} has {_few(present)} already. Choose another folder, or overwrite with --force.")
        for name, content in files.items():
            replace_file(folder / name, content)
    except (LookupError, ValueError, OSError) as error:
        print(f"error: {error.args[0] if isinstance(error, LookupError) else in_words(error)}", file=sys.stderr)
        return 1
    handed = [name for name in files if name.startswith("assignment-")]
    print(f"{folder}: {_few(handed)} to hand out.")
    print(f"For the teacher only: {_few([name for name in files if name not in handed])}.")
    return 0


def choose(lessons: Sequence[str], exercises: Sequence[str]) -> list[str]:
    """Returns the ids of the chosen exercises in the order of the course; all that have variants if nothing is chosen.

    Raises LookupError for a lesson or an exercise without variants and names those that have some.
    """
    from fsl_classroom import exercises_with_variants

    known = exercises_with_variants()
    if unknown := [e for e in exercises if e not in known]:
        raise LookupError(f"no variants of exercise {', '.join(unknown)}. There are some of {', '.join(known)}.")
    taught = sorted({e[:2] for e in known})
    if unknown := [lesson for lesson in lessons if lesson not in taught]:
        raise LookupError(f"no variants in lesson {', '.join(unknown)}. There are some in {', '.join(taught)}.")
    return [e for e in known if (not exercises or e in exercises) and (not lessons or e[:2] in lessons)]


def notebooks(seed: int, ids: Sequence[str], students: str | Path | None = None) -> dict[str, bytes]:
    """Returns file name -> content: assignment-7.ipynb and solved-7.ipynb, or a pair for each student in a file of names.

    Adds assignment.json, from which `grade --assignment` learns the exercises and seeds, and with students seeds.csv (student,
    seed, file), which says the same to a teacher. Writes nothing. Raises ValueError for a seed out of range and for names
    that would give the same file name.
    """
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"--seed takes 0 to {MOST_SEED}; got {seed}.")
    plan: dict[str, Any] = {"format": PLAN_FORMAT, "exercises": list(ids), "seed": seed, "students": None}
    if students is None:
        pair = notebook(seed, ids), notebook(seed, ids, solved=True)
        made = {f"assignment-{seed}.ipynb": to_bytes(pair[0]), f"solved-{seed}.ipynb": to_bytes(pair[1])}
        return {**made, PLAN: to_bytes(plan)}
    found: dict[str, bytes] = {}
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("student", "seed", "file"))
    plan["students"] = {}
    for name in read_names(students):
        plan["students"][name] = student_seed(seed, name)
        own, file = student_seed(seed, name), f"assignment-{_slug(name)}.ipynb"
        found[file] = to_bytes(notebook(own, ids, student=name))
        found[f"solved-{own}.ipynb"] = to_bytes(notebook(own, ids, student=name, solved=True))
        rows.writerow((name, own, file))
    return {**found, "seeds.csv": table.getvalue().encode(), PLAN: to_bytes(plan)}


def student_seed(seed: int, name: str) -> int:
    """Returns the seed of one student, which is the same for the same seed and name on every machine."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8]) % (MOST_SEED + 1)


def read_names(path: str | Path) -> list[str]:
    """Reads one name per line and skips empty lines. Raises ValueError if there are none, or if two would share a file."""
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as a text file in UTF-8.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}).") from None
    names = [" ".join(line.split()) for line in lines if line.strip()]
    if not names:
        raise ValueError(f"{path} holds no names: write one student a line.")
    seen: dict[str, str] = {}
    for name in names:
        slug = _slug(name).casefold()
        if len(slug.encode()) > _LONGEST_NAME:
            raise ValueError(f"{name[:40]!r}... in {path} is too long for a file name: {len(name)} letters.")
        if not slug.strip("-"):
            raise ValueError(f"{name!r} in {path} makes no file name: it needs a letter or a digit.")
        if slug in seen:
            raise ValueError(f"{seen[slug]!r} and {name!r} in {path} would get the same file: tell them apart.")
        seen[slug] = name
    return names


def notebook(seed: int, ids: Sequence[str], *, student: str = "", solved: bool = False) -> dict[str, Any]:
    """Returns an assignment as notebook JSON (format 4.5): the student's version or the solved one."""
    from fsl_classroom import find
    from fsl_classroom.variants import IMPORTS

    title = f"# Assignment {seed}" + (f" for {student}" if student else "") + (" (solved)" if solved else "")
    cells = [
        text_cell("title", f"{title}\n\n{INSTRUCTIONS.format(first=f'{ids[0]}@{seed}')}"),
        code_cell("set-up", IMPORTS),
    ]
    for exercise_id in ids:
        made = find(f"{exercise_id}@{seed}")
        key = exercise_id.replace(".", "-")
        inside = None if solved else stub(made.id)
        checked = f'{made.name} = check("{made.id}", {made.name})'
        cells.append(text_cell(f"{key}-task", statement(made)))
        cells.append(code_cell(f"{key}-answer", f"{made.written(inside)}\n\n\n{checked}"))
    cells.append(text_cell("closing", CLOSING))
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def statement(made: Any) -> str:
    """Returns the task of a variant with its heading, in Markdown."""
    return f"## Exercise {made.id}  {made.title}  (difficulty {made.difficulty}/5)\n\n{made.statement}"


def stub(exercise_id: str) -> str:
    """Returns the indented lines that replace the body of an exercise's function."""
    return f'    # YOUR CODE HERE\n    raise NotImplementedError("exercise {exercise_id} is not attempted yet")'


def text_cell(key: str, source: str) -> dict[str, Any]:
    """Returns a Markdown cell. key: its id in the notebook."""
    return {"cell_type": "markdown", "id": key, "metadata": {}, "source": source}


def code_cell(key: str, source: str) -> dict[str, Any]:
    """Returns a code cell that was not run. key: its id in the notebook."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": key,
        "metadata": {},
        "outputs": [],
        "source": source,
    }


def to_bytes(made: dict[str, Any]) -> bytes:
    """Returns a notebook, or the plan of an assignment, as the bytes of its JSON file."""
    return (json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _slug(name: str) -> str:
    """Returns a name as part of a file name: letters and digits of any script, and a dash for everything else."""
    return re.sub(r"[^\w]+", "-", name).strip("-")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} and {len(names) - 2} more"
