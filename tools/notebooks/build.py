"""Builds the notebooks from the lessons, and checks that the committed ones agree with them.

    python -m tools.notebooks.build              all lessons: convert, execute, write
    python -m tools.notebooks.build 05 07        only these
    python -m tools.notebooks.build 05 --measure also write time and memory to data/lesson_times.json; for a quiet machine
    python -m tools.notebooks.build 05 --text    only text cells, tags or folds changed: keep the outputs, execute nothing
    python -m tools.notebooks.build --check      convert only, and fail with a diff where a committed notebook differs

A lesson that fails leaves the notebooks of its last build untouched. Measured times change with --measure only.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools.notebooks.cells import SOLVED, STUDENT, BuildError, is_added, lesson_files, notebook
from tools.notebooks.run import CORES, Run, execute, output_problems

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = (SOLVED, STUDENT)  # solved first: a mistake of the lesson itself shows there
MOST_SECONDS, MOST_CELL_SECONDS = 120, 60  # what the guide allows a lesson and a training cell


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Runs the command line. Returns the exit status: 0, or 1 after printing what is wrong."""
    parser = argparse.ArgumentParser(description="Build the notebooks from lessons/NN_name.py.")
    parser.add_argument("lessons", nargs="*", metavar="NN", help="numbers of lessons, e.g. 05 (default: all)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="execute nothing; fail where a committed notebook differs")
    mode.add_argument("--text", action="store_true", help="only text cells, tags or folds changed: keep the outputs")
    mode.add_argument("--measure", action="store_true", help="write time and memory to data/lesson_times.json")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=1, help="lessons at once (default: 1)")
    options = parser.parse_args(arguments)
    if options.measure and options.jobs > 1:
        parser.error("--measure runs one lesson at a time, because two slow each other down; leave out --jobs")
    try:
        lessons = select(root, options.lessons)
        if options.check:
            problems = [problem for lesson in lessons for problem in check(root, lesson)]
            problems += [] if options.lessons else orphans(root)
        elif options.text:
            problems = []
            for lesson in lessons:
                rewrite_text(root, lesson)
        else:
            problems = build_all(root, lessons, options.jobs, measure=options.measure)
    except BuildError as error:
        problems = [str(error)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{len(lessons)} lessons: {'notebooks agree' if options.check else 'notebooks written'}")
    return 1 if problems else 0


def select(root: Path, numbers: Sequence[str]) -> list[Path]:
    """Returns the lessons with these numbers ("05"), or all. Raises BuildError for a number without a lesson."""
    lessons = {file.name[:2]: file for file in lesson_files(root)}
    if unknown := [number for number in numbers if number not in lessons]:
        raise BuildError(f"no lesson {', '.join(unknown)}; there are {', '.join(lessons) or 'none'}")
    return [lessons[number] for number in sorted(set(numbers))] if numbers else list(lessons.values())


def build_all(root: Path, lessons: Sequence[Path], jobs: int, *, measure: bool = False) -> list[str]:
    """Builds every lesson, whether or not another one fails. Returns what failed. measure: write times and memory, too."""
    problems: list[str] = []
    measured: dict[str, dict[str, float]] = {}

    def one(lesson: Path) -> None:
        try:
            times = build(root, lesson)
        except BuildError as error:
            problems.append(str(error))
            return
        print(f"{lesson.stem}: " + ", ".join(f"{name} {value}" for name, value in times.items()), flush=True)
        if times["seconds"] > MOST_SECONDS or times["longest_cell_seconds"] > MOST_CELL_SECONDS:
            print(f"{lesson.stem}: slower than the guide allows ({MOST_SECONDS} s, {MOST_CELL_SECONDS} s a cell)")
        measured[lesson.stem] = times

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, lessons))
    if measure and measured:
        write_times(root, measured)
    return problems


def build(root: Path, lesson: Path) -> dict[str, float]:
    """Executes both versions of a lesson and writes them. Returns the lesson's entry for data/lesson_times.json.

    Raises BuildError with everything that is wrong with the first version that fails, and then writes nothing.
    """
    made: dict[str, NotebookNode] = {}
    runs: dict[str, Run] = {}
    for version in VERSIONS:
        name = f"{version}/{lesson.stem}"
        (root / version).mkdir(exist_ok=True)
        made[version] = notebook(root, lesson, version)
        runs[version] = execute(made[version], root / version, root, name)
        if problems := output_problems(made[version], root, name):
            raise BuildError("\n".join(problems))
    write_notebooks(root, lesson, made)
    return {
        "seconds": round(runs[SOLVED].seconds, 1),
        "student_seconds": round(runs[STUDENT].seconds, 1),
        "longest_cell_seconds": round(runs[SOLVED].longest_cell_seconds, 1),
        "peak_mb": max(run.peak_mb for run in runs.values()),
        "cores": CORES,
    }


def write_notebooks(root: Path, lesson: Path, made: dict[str, NotebookNode]) -> None:
    """Writes both versions of a lesson, or none if one cannot be written."""
    whole = {root / version / f"{lesson.stem}.ipynb": nbformat.writes(made[version]) + "\n" for version in VERSIONS}
    _replace(whole)


def write_times(root: Path, measured: dict[str, dict[str, float]]) -> None:
    """Writes the entries of the lessons just built to data/lesson_times.json, and drops those of lessons that are gone."""
    path = root / "data" / "lesson_times.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    existing = {file.stem for file in lesson_files(root)}
    times = {name: entry for name, entry in (known | measured).items() if name in existing}
    path.parent.mkdir(exist_ok=True)
    _replace({path: json.dumps(times, indent=2, sort_keys=True) + "\n"})


def _replace(files: dict[Path, str]) -> None:
    """Writes every file under another name first, and moves them to their places when all are complete."""
    beside = {path: path.with_name(f".{path.name}.new") for path in files}
    try:
        for path, text in files.items():
            beside[path].write_text(text, encoding="utf-8", newline="\n")
        for path in files:
            os.replace(beside[path], path)
    finally:
        for new in beside.values():
            new.unlink(missing_ok=True)


def rewrite_text(root: Path, lesson: Path) -> None:
    """Writes both notebooks again with the outputs they have. Raises BuildError if the code of a cell changed."""
    made: dict[str, NotebookNode] = {}
    for version in VERSIONS:
        path = root / version / f"{lesson.stem}.ipynb"
        made[version] = notebook(root, lesson, version)
        old = _run_cells(_read(path)) if path.exists() else []
        new = _run_cells(made[version])
        if [cell.source for cell in old] != [cell.source for cell in new]:
            raise BuildError(f"{version}/{path.name}: code cells changed too; build {lesson.name[:2]} without --text")
        for before, after in zip(old, new, strict=True):
            after.outputs, after.execution_count = before.outputs, before.execution_count
    write_notebooks(root, lesson, made)


def check(root: Path, lesson: Path) -> Iterator[str]:
    """Yields what is wrong with the committed notebooks of a lesson, with a readable diff or the cell's name."""
    for version in VERSIONS:
        path = root / version / f"{lesson.stem}.ipynb"
        name = f"{version}/{path.name}"
        if not path.exists():
            yield f"{name} is missing; run `python -m tools.notebooks.build {lesson.name[:2]}`"
            continue
        committed, expected = _read(path), notebook(root, lesson, version)
        diff = difflib.unified_diff(
            _readable(committed),
            _readable(expected),
            f"{name} (committed)",
            f"{name} (from the lesson)",
            lineterm="",
            n=2,
        )
        if text := "\n".join(diff):
            yield f"{name} differs from lessons/{lesson.name}; build it again\n{text}"
        for cell in _code_cells(committed):
            if cell.execution_count is None and not is_added(cell):
                yield f"{name}, cell {cell.get('id')}: not executed"
        yield from output_problems(committed, root, name)


def orphans(root: Path) -> Iterator[str]:
    """Yields a problem for every notebook without a lesson."""
    names = {lesson.stem for lesson in lesson_files(root)}
    for version in VERSIONS:
        for path in sorted((root / version).glob("*.ipynb")):
            if path.stem not in names:
                yield f"{version}/{path.name} has no lesson lessons/{path.stem}.py; remove it"


def _read(path: Path) -> NotebookNode:
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def _code_cells(nb: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def _run_cells(nb: NotebookNode) -> list[NotebookNode]:
    """Returns the code cells that the build executes."""
    return [cell for cell in _code_cells(nb) if not is_added(cell)]


def _readable(nb: NotebookNode) -> list[str]:
    """Returns a notebook as lines for a diff: everything that the lesson determines, so no outputs."""
    lines = [f"format {nb.nbformat}.{nb.nbformat_minor}", json.dumps(nb.metadata, sort_keys=True)]
    for cell in nb.cells:
        lines.append(f"[{cell.get('id')}] {cell.cell_type} {json.dumps(cell.metadata, sort_keys=True)}")
        lines += cell.source.split("\n")
    return lines


if __name__ == "__main__":
    sys.exit(main())
