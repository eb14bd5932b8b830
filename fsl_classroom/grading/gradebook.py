"""The command `gradebook`: the grades as files that Moodle and Canvas import.

Moodle: Grades > Import > CSV file. The teacher says in a preview which column identifies the student ("Map from", "Map to"), and
which ones are the grade and its feedback. A line with an unknown student stops the whole import, and one without an identifier
gets the grade of the line before it, so there is neither here.
Canvas: Grades > Import. Student, ID, SIS User ID, SIS Login ID and Section come first, in this order; then one column for each
assignment. A line "Points Possible" says what it is worth. Canvas takes no comments from such a file.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fsl_classroom.grading.late import Lateness, read_lateness
from fsl_classroom.grading.report import defused, number
from fsl_classroom.grading.roster import Person, matched, read_roster
from fsl_classroom.grading.tables import Graded, read_tables
from fsl_course._system.files import replace_file

IDENTIFIERS = {"email": "Email address", "idnumber": "ID number", "username": "Username"}
_MOODLE_MOST = 100  # what a grade may be in Moodle unless its administrator allows more
_LONGEST = 300  # characters of one diagnosis


def run(arguments: argparse.Namespace) -> int:
    """Writes the files that were asked for. Returns 0, or 1 if students are missing in them. Raises ValueError for bad input."""
    if not arguments.moodle and not arguments.canvas:
        raise ValueError("say where to write: --moodle FILE, --canvas FILE, or both.")
    folder, roster = Path(arguments.folder), Path(arguments.roster)
    students = read_tables(folder)
    lateness = lateness_of(students, arguments)
    people, lost = matched([one.student for one in students], read_roster(roster), roster)
    if not people:
        raise ValueError(f"no student of {folder / 'grades.csv'} is in {roster}: {'; '.join(lost[:3])}.")
    title = arguments.title or folder.resolve().name
    there = [one for one in students if one.student in people]
    files: list[tuple[str, bytes]] = []
    if arguments.moodle:
        files.append((arguments.moodle, moodle(there, people, title, lateness, arguments.identify, roster)))
    if arguments.canvas:
        files.append((arguments.canvas, canvas(there, people, title, lateness)))
    for name, content in files:  # after all of them could be made
        replace_file(Path(name).expanduser(), content)
        print(f"{name}: {len(there)} students, {number(max(one.worth for one in there))} points possible.")
    if arguments.moodle and max(one.worth for one in there) > _MOODLE_MOST:
        print(
            f"note: Moodle refuses grades above {_MOODLE_MOST} unless its administrator allows them.", file=sys.stderr
        )
    for words in lost:
        print(f"error: {words}, and has no line in the gradebook.", file=sys.stderr)
    return 1 if lost else 0


def lateness_of(students: Sequence[Graded], arguments: argparse.Namespace) -> Lateness:
    """Returns the lateness of those who got points; for the others it changes nothing."""
    policy, times = (Path(name) if name else None for name in (arguments.late, arguments.times))
    return read_lateness(policy, times, [one.student for one in students if one.points > 0])


def moodle(
    students: Sequence[Graded],
    people: Mapping[str, Person],
    title: str,
    lateness: Lateness,
    identify: str | None,
    roster: Path,
) -> bytes:
    """Returns the file for Moodle: an identifier, the name (to be ignored), the grade and its feedback.

    identify: "email", "idnumber" or "username"; None takes the first of them that every student has in the list
    Raises ValueError if there is none, or if two students have the same.
    """
    candidates = [identify] if identify else list(IDENTIFIERS)
    whole = [field for field in candidates if all(people[one.student].fields[field] for one in students)]
    if not whole:
        field = candidates[0]
        without = [one.student for one in students if not people[one.student].fields[field]]
        raise ValueError(
            f"{roster} has no {IDENTIFIERS[field]} for {', '.join(without[:5])}. Moodle needs one for every student: "
            "complete the list, or choose another column with --identify."
        )
    owners: dict[str, str] = {}
    for one in students:
        if (owner := owners.setdefault(key := people[one.student].fields[whole[0]], one.student)) != one.student:
            raise ValueError(f"{owner} and {one.student} have the same {IDENTIFIERS[whole[0]]} in {roster}: {key}.")
    rows: list[tuple[str, ...]] = [(IDENTIFIERS[whole[0]], "Student", title, f"{title} feedback")]
    for one in students:
        person = people[one.student]
        left = number(lateness.left(one.student, one.points, one.worth))
        rows.append((person.fields[whole[0]], defused(person.name or one.student), left, feedback_line(one, lateness)))
    return _csv(rows)


def canvas(students: Sequence[Graded], people: Mapping[str, Person], title: str, lateness: Lateness) -> bytes:
    """Returns the file for Canvas, as its own export has it. title: the assignment's, with its number if Canvas shows one."""
    fields = ("id", "sis_user_id", "sis_login_id", "section")
    rows: list[tuple[str, ...]] = [("Student", "ID", "SIS User ID", "SIS Login ID", "Section", title)]
    rows.append(("    Points Possible", "", "", "", "", number(max(one.worth for one in students))))
    for one in students:
        person = people[one.student]
        left = number(lateness.left(one.student, one.points, one.worth))
        rows.append((person.name or one.student, *(person.fields[field] for field in fields), left))
    return _csv(rows)


def feedback_line(one: Graded, lateness: Lateness) -> str:
    """Returns the feedback in one line, without characters that Moodle would read as HTML."""
    left = lateness.left(one.student, one.points, one.worth)
    parts = [f"{number(left)} of {number(one.worth)} points."]
    if days := lateness.of(one.student):
        parts.append(f"Handed in {in_days(days)} late: {number(round(one.points - left, 2))} points off.")
    for line in one.lines:
        words = "right" if line.passed else line.diagnosis.rstrip(".") or "not right"
        words = words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"
        parts.append(f"{line.exercise}: {words}.")
    return defused(" ".join(parts)).replace("<", "‹").replace(">", "›")


def in_days(days: int) -> str:
    """Returns "1 day" or "3 days"."""
    return f"{days} day{'s' * (days != 1)}"


def _csv(rows: Sequence[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode("utf-8", "replace")
