"""The command `feedback`: one HTML file for each student, which needs no network, no script and no other file."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from fsl_classroom import find
from fsl_classroom.checking.model import Exercise
from fsl_classroom.grading.expected import plain_name
from fsl_classroom.grading.gradebook import in_days, lateness_of
from fsl_classroom.grading.late import Lateness
from fsl_classroom.grading.report import NOT_ATTEMPTED, number
from fsl_classroom.grading.tables import Graded, Line, read_tables
from fsl_course._system.files import replace_file

_TEMPLATE = Path(__file__).with_name("feedback.html")
_LONGEST_NAME = 200  # bytes; file systems take 255
_WIDTH = 320  # of the bar, in pixels


def run(arguments: argparse.Namespace) -> int:
    """Writes the pages. Returns 0. Raises ValueError for tables, times or a policy that cannot be used."""
    folder = Path(arguments.folder)
    whole = folder.resolve()
    out = Path(arguments.out).expanduser() if arguments.out else whole.with_name(f"{whole.name}-feedback")
    if out.resolve() == whole or whole in out.resolve().parents:
        raise ValueError(
            f"--out {out} lies in {folder}, where `grade` would take it for a student. Choose another place."
        )
    students = read_tables(folder)
    lateness = lateness_of(students, arguments)
    title, names = arguments.title or whole.name, [one.student for one in students]
    for one, name in zip(students, file_names(names), strict=True):
        one.errors = for_the_student(one, names)
        replace_file(out / name, page(one, title, lateness).encode("utf-8", "replace"))
    print(f"{len(students)} pages in {out}", file=sys.stderr)
    return 0


def for_the_student(one: Graded, names: Sequence[str]) -> str:
    """Returns the errors of a student without the sentences that are for the teacher: those that name somebody else."""
    others = {plain_name(name) for name in names} - {plain_name(one.student), ""}
    sentences = [words for words in one.errors.split("; ") if "handed in with the seed" not in words]
    return "; ".join(words for words in sentences if not any(other in plain_name(words) for other in others))


def file_names(students: Sequence[str]) -> list[str]:
    """Returns a file name for each student that every system takes, and that no two share: "Ada Lovelace.html"."""
    taken: set[str] = set()
    names = []
    for student in students:
        plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", student).strip(" .") or "student"
        plain = plain.encode("utf-8", "replace")[:_LONGEST_NAME].decode("utf-8", "ignore")
        name, count = plain, 1
        while name.casefold() in taken:
            count += 1
            name = f"{plain}-{count}"
        taken.add(name.casefold())
        names.append(f"{name}.html")
    return names


def page(one: Graded, title: str, lateness: Lateness) -> str:
    """Returns one student's page: points, what the lateness costs, and for each exercise what was right, what not, and a hint."""
    left = lateness.left(one.student, one.points, one.worth)
    said = f"{number(left)} of {number(one.worth)} points"
    notes = []
    if days := lateness.of(one.student):
        off = number(round(one.points - left, 2))
        notes.append(f"Handed in {in_days(days)} late: {off} of {number(one.points)} points are taken off.")
    if one.errors:
        notes.append(f"About your files: {one.errors}.")
    right = sum(line.passed for line in one.lines)
    return _TEMPLATE.read_text(encoding="utf-8").format(
        student=escape(one.student),
        title=escape(title),
        points=escape(said),
        bar=_bar(left, one.worth, said),
        counted=f"{right} of {len(one.lines)} exercises are right.",
        notes="".join(f'<p class="note">{escape(words)}</p>\n' for words in notes),
        rows="".join(map(_row, one.lines)),
    )


def _bar(points: float, worth: float, says: str) -> str:
    """Returns a picture of the points. It says in words what it shows, so that colour and length are never the only sign."""
    filled = round(_WIDTH * points / worth) if worth else 0
    return (
        f'<svg role="img" aria-label="A bar that stands for {escape(says)}" width="{_WIDTH}" height="18" '
        f'viewBox="0 0 {_WIDTH} 18"><title>{escape(says)}</title>'
        f'<rect width="{_WIDTH}" height="18" fill="#fff" stroke="#222"/>'
        f'<rect width="{filled}" height="18" fill="#0072b2" stroke="#222"/></svg>'
    )


def _row(line: Line) -> str:
    exercise = _exercise(line)
    name = line.exercise + (f" (seed {line.seed})" if line.seed else "")
    title = exercise.title if exercise else ""
    untried = line.diagnosis.startswith(NOT_ATTEMPTED)
    mark, state = ("✓", "right") if line.passed else ("○", "not attempted") if untried else ("✗", "not right yet")
    words = []
    if not line.passed:
        if line.diagnosis != NOT_ATTEMPTED:
            words.append(f"<p>{escape(line.diagnosis)}</p>")
        if (line.tried or untried) and (hint := hint_for(exercise, line.diagnosis)):
            words.append(f'<p class="hint"><strong>Hint:</strong> {_code(hint)}</p>')
    return (
        f'<tr class="{state.split()[0]}"><th scope="row">{escape(name)}<br><span>{escape(title)}</span></th>'
        f'<td><span aria-hidden="true">{mark}</span> {state}</td>'
        f"<td>{''.join(words)}</td><td>{number(line.points)} of {number(line.worth)}</td></tr>\n"
    )


def _exercise(line: Line) -> Exercise | None:
    """Returns the exercise or its variant; None if this version of the course does not know it."""
    for name in ([f"{line.exercise}@{line.seed}"] if line.seed else []) + [line.exercise]:
        try:
            return find(name)
        except (LookupError, ValueError):
            continue
    return None


def hint_for(exercise: Exercise | None, diagnosis: str) -> str:
    """Returns the hint that belongs to a classic mistake, else the exercise's first hint, else ""."""
    if exercise is None:
        return ""
    for entry in exercise.wrong:
        if entry.diagnosis.rstrip(".") in diagnosis:
            return entry.hint
    return exercise.hints[0]


def _code(text: str) -> str:
    """Returns text as HTML, with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
