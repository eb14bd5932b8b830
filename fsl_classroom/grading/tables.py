"""Reads the two tables of `grade` again, for feedback and gradebooks. The teacher may have corrected them by hand."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_NEEDED = ("student", "exercise", "passed", "diagnosis", "points", "worth")


@dataclass(frozen=True)
class Line:
    """One row of grades.csv. seed: of the variant, or ""; tried: whether the answer ran, and was not refused unseen."""

    exercise: str
    passed: bool
    diagnosis: str
    seed: str
    points: float
    worth: float
    tried: bool = True


@dataclass
class Graded:
    """What one student got. student: the name of the folder; errors: what was wrong with the files, or ""."""

    student: str
    lines: list[Line] = field(default_factory=list)
    errors: str = ""

    @property
    def points(self) -> float:
        """Returns the points of all exercises together, before any deduction."""
        return sum(line.points for line in self.lines)

    @property
    def worth(self) -> float:
        """Returns the points that everything right would give."""
        return sum(line.worth for line in self.lines)


def read_tables(folder: Path) -> list[Graded]:
    """Returns every student of FOLDER/grades.csv in its order, with the errors of FOLDER/grades-summary.csv if that is there.

    Raises ValueError, with the line, for a table that is missing, lacks a column or holds something else than points.
    """
    path = folder / "grades.csv"
    if not path.is_file():
        raise ValueError(f"there is no {path}. First run: python -m fsl_classroom grade {folder}")
    found: dict[str, Graded] = {}
    for number, row in enumerate(read_csv(path, _NEEDED), start=2):
        student = _shown(row["student"])
        line = Line(
            exercise=row["exercise"].strip(),
            passed=_truth(row["passed"], f"{path}, line {number}"),
            diagnosis=_shown(row["diagnosis"]),
            seed=row.get("seed", "").strip(),
            points=_points(row["points"], f"{path}, line {number}"),
            worth=_points(row["worth"], f"{path}, line {number}"),
            tried=bool(row.get("judged", "?").strip()),
        )
        found.setdefault(student, Graded(student)).lines.append(line)
    summary = folder / "grades-summary.csv"
    if summary.is_file():
        for row in read_csv(summary, ("student", "errors")):
            found.setdefault(_shown(row["student"]), Graded(_shown(row["student"]))).errors = _shown(row["errors"])
    return list(found.values())


def read_csv(path: Path, needed: Iterable[str] = ()) -> list[dict[str, str]]:
    """Returns the rows of a CSV file in UTF-8 with commas, semicolons or tabs, as header -> text; "" for a short row.

    Raises ValueError for a file that is missing or no such table, and where a needed column is not there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}).") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not in UTF-8. Save it again as CSV UTF-8.") from None
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file ({error}).") from None
    header = [name.strip() for name in rows[0]] if rows else []
    if missing := [name for name in needed if name not in header]:
        raise ValueError(f"{path} has no column {', '.join(missing)}. It has: {', '.join(header) or 'none'}.")
    wide = len(header)
    return [dict(zip(header, [*row, *[""] * wide][:wide], strict=True)) for row in rows[1:] if any(map(str.strip, row))]


def _shown(text: str) -> str:
    """Returns a field without the apostrophe that keeps spreadsheets from taking it for a formula."""
    return text[1:] if text.startswith("'") and text[1:].lstrip().startswith(("=", "+", "-", "@")) else text


def _truth(text: str, where: str) -> bool:
    if text.strip().casefold() not in ("true", "false"):
        raise ValueError(f"{where}: passed is true or false, and not {text!r}.")
    return text.strip().casefold() == "true"


def _points(text: str, where: str) -> float:
    try:
        points = float(text.strip().replace(",", "."))
    except ValueError:
        points = math.nan
    if not 0 <= points < math.inf:
        raise ValueError(f"{where}: points are numbers from 0 on, and not {text!r}.")
    return points
