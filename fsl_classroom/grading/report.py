"""The two tables: grades.csv has a row for each student and exercise, grades-summary.csv one for each student."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = ("student", "exercise", "passed", "diagnosis", "seed", "points", "worth", "judged")
SUMMARY = ("student", "passed", "exercises", "attempted", "notebooks", "errors", "points", "worth")
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # change the direction of text, so that it reads differently
NOT_ATTEMPTED = "not attempted"


@dataclass
class Record:
    """The results of one student.

    student:   the name of the student's folder
    verdicts:  exercise id (without a seed) -> (passed, diagnosis); the diagnosis of a right answer is ""
    lessons:   those that were handed in
    notebooks: how many files were handed in
    errors:    what is wrong with the files, one sentence each
    unread:    lesson -> the reason why its notebook could not be read
    seeds:     exercise id -> the seed of the variant that was judged, "7"; "" for an exercise without variants
    judged:    exercise id -> "apart" if the answer ran in a process without the reference and the judge, "together" if it had to
               share theirs, "" if nothing ran
    folder:    where the notebooks are; None for a student who handed in nothing
    """

    student: str
    verdicts: dict[str, tuple[bool, str]] = field(default_factory=dict)
    lessons: set[str] = field(default_factory=set)
    notebooks: int = 0
    errors: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    seeds: dict[str, str] = field(default_factory=dict)
    judged: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def add(
        self,
        verdicts: Mapping[str, tuple[bool, str]],
        seeds: Mapping[str, str] | None = None,
        judged: Mapping[str, str] | None = None,
    ) -> None:
        """Adds the verdicts of one notebook. Of two for one exercise the better counts: passed, wrong, not attempted."""
        for exercise, (passed, diagnosis) in verdicts.items():
            old = self.verdicts.get(exercise)
            if old is None or passed or (not old[0] and old[1] == NOT_ATTEMPTED):
                self.verdicts[exercise] = passed, diagnosis
                self.seeds[exercise] = (seeds or {}).get(exercise, "")
                self.judged[exercise] = (judged or {}).get(exercise, "")

    def verdict(self, exercise: str) -> tuple[bool, str]:
        """Returns (passed, diagnosis) of any exercise, also of one that was not handed in."""
        return self.verdicts.get(exercise, (False, _missing(self, exercise)))


@dataclass(frozen=True)
class Results:
    """Everything that a run of `grade` found: what tables, feedback and gradebooks are made from.

    folder:    the class's folder, into which the tables go
    records:   one for each student, by name
    exercises: the ids that count, in the order of the course: the assignment's, or all of the lessons that were handed in
    points:    exercise id -> what it is worth; an exercise that is not named is worth 1
    """

    folder: Path
    records: list[Record]
    exercises: list[str]
    points: Mapping[str, float] = field(default_factory=dict)

    def worth(self, exercise: str) -> float:
        """Returns the points that a right answer gets."""
        return self.points.get(exercise, 1.0)

    def earned(self, record: Record, exercise: str) -> float:
        """Returns the points that a student got for one exercise: all or none."""
        return self.worth(exercise) if record.verdict(exercise)[0] else 0.0

    def total(self, record: Record) -> float:
        """Returns the points that a student got for all exercises that count."""
        return sum(self.earned(record, exercise) for exercise in self.exercises)

    def most(self) -> float:
        """Returns the points of a student who got everything right."""
        return sum(map(self.worth, self.exercises))


def rows(results: Results) -> list[tuple[str, ...]]:
    """Returns the rows of grades.csv, one for every student and exercise, in the order of COLUMNS."""
    made = []
    for record in results.records:
        for exercise in results.exercises:
            passed, diagnosis = record.verdict(exercise)
            points, worth = number(results.earned(record, exercise)), number(results.worth(exercise))
            head = record.student, exercise, "true" if passed else "false", "" if passed else diagnosis
            made.append((*head, record.seeds.get(exercise, ""), points, worth, record.judged.get(exercise, "")))
    return made


def number(points: float) -> str:
    """Returns points as text: 2.0 -> "2", 0.1 + 0.2 -> "0.3"."""
    return f"{points:.10g}"


def _missing(record: Record, exercise: str) -> str:
    words = record.unread.get(exercise[:2])
    return f"{NOT_ATTEMPTED} ({words})" if words else NOT_ATTEMPTED


def summary(results: Results) -> list[tuple[str, ...]]:
    """Returns the rows of grades-summary.csv, one for every student, in the order of SUMMARY."""
    made = []
    for record in results.records:
        verdicts = [record.verdicts.get(exercise, (False, NOT_ATTEMPTED)) for exercise in results.exercises]
        passed = sum(passed for passed, _ in verdicts)
        tried = sum(words != NOT_ATTEMPTED for _, words in verdicts)
        counts = passed, len(verdicts), tried, record.notebooks
        points = number(results.total(record)), number(results.most())
        made.append((record.student, *map(str, counts), "; ".join(record.errors), *points))
    return made


def table(columns: tuple[str, ...], lines: list[tuple[str, ...]]) -> bytes:
    """Returns a CSV file in UTF-8, with every field made safe by `defused`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([tuple(map(defused, line)) for line in lines])
    return text.getvalue().encode("utf-8", errors="replace")


def defused(text: str) -> str:
    """Returns the text on one line, without characters that control or redirect it, and quoted if it looks like a formula."""
    line = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in _TURNS else c for c in text)
    return f"'{line}" if line.lstrip().startswith(("=", "+", "-", "@")) else line
