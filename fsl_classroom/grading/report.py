"""The two tables: grades.csv has a row for each student and exercise, grades-summary.csv one for each student."""

from __future__ import annotations

import csv
import io
import unicodedata
from dataclasses import dataclass, field

COLUMNS = ("student", "exercise", "passed", "diagnosis")
SUMMARY = ("student", "passed", "exercises", "attempted", "notebooks", "errors")
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # change the direction of text, so that it reads differently
NOT_ATTEMPTED = "not attempted"


@dataclass
class Record:
    """The results of one student.

    verdicts: exercise id -> (passed, diagnosis)
    lessons:  those that were handed in
    errors:   what is wrong with the files, one sentence each
    unread:   lesson -> the reason why its notebook could not be read
    """

    student: str
    verdicts: dict[str, tuple[bool, str]] = field(default_factory=dict)
    lessons: set[str] = field(default_factory=set)
    notebooks: int = 0
    errors: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)

    def add(self, verdicts: dict[str, tuple[bool, str]]) -> None:
        """Adds the verdicts of one notebook. Of two for one exercise the better counts: passed, wrong, not attempted."""
        for exercise, (passed, diagnosis) in verdicts.items():
            old = self.verdicts.get(exercise)
            if old is None or passed or (not old[0] and old[1] == NOT_ATTEMPTED):
                self.verdicts[exercise] = passed, diagnosis


def rows(records: list[Record], exercises: list[str]) -> list[tuple[str, str, str, str]]:
    """Returns the rows of grades.csv, one for every student and exercise."""
    made = []
    for record in records:
        for exercise in exercises:
            passed, diagnosis = record.verdicts.get(exercise, (False, _missing(record, exercise)))
            made.append((record.student, exercise, "true" if passed else "false", "" if passed else diagnosis))
    return made


def _missing(record: Record, exercise: str) -> str:
    words = record.unread.get(exercise[:2])
    return f"{NOT_ATTEMPTED} ({words})" if words else NOT_ATTEMPTED


def summary(records: list[Record], exercises: list[str]) -> list[tuple[str, ...]]:
    """Returns the rows of grades-summary.csv, one for every student."""
    made = []
    for record in records:
        passed = sum(record.verdicts.get(exercise, (False, ""))[0] for exercise in exercises)
        tried = sum(record.verdicts.get(exercise, (False, NOT_ATTEMPTED))[1] != NOT_ATTEMPTED for exercise in exercises)
        errors = "; ".join(record.errors)
        made.append((record.student, str(passed), str(len(exercises)), str(tried), str(record.notebooks), errors))
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
