"""What an assignment expects: its exercises, the seed of every student, and the points.

`python -m fsl_classroom assignment` writes assignment.json into its folder. A teacher may add points.toml.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsl_classroom.grading.submissions import Submission

PLAN, POINTS, FORMAT = "assignment.json", "points.toml", "fsl-course assignment 1"
_MOODLE = re.compile(r"_\d+_assignsubmission_(file|onlinetext)_?$")  # what Moodle appends to a name in its download


@dataclass(frozen=True)
class Assignment:
    """An assignment as it was handed out.

    exercises: ids without seeds, e.g. ("05.1", "07.3"), in the order of the course
    seed:      the seed of all students, if everybody got the same notebook
    students:  name -> seed, if everybody got their own; None otherwise
    points:    exercise id -> what it is worth; 1 for those that points.toml does not name
    """

    exercises: tuple[str, ...]
    seed: int
    students: dict[str, int] | None = None
    points: dict[str, float] = field(default_factory=dict)

    def seed_of(self, folder: str) -> int | None:
        """Returns the seed of the student whose folder has this name, or None if the assignment has no such student."""
        if self.students is None:
            return self.seed
        found = [seed for name, seed in self.students.items() if plain_name(name) == plain_name(folder)]
        return found[0] if len(found) == 1 else None

    def expects(self, folder: str) -> dict[str, str] | None:
        """Returns exercise id -> the id with the student's seed, {"05.1": "05.1@7"}; None for an unknown student."""
        seed = self.seed_of(folder)
        return None if seed is None else {exercise: f"{exercise}@{seed}" for exercise in self.exercises}

    def missing(self, submissions: Sequence[Submission]) -> list[str]:
        """Returns the names of the students who have no folder."""
        present = {plain_name(submission.student) for submission in submissions}
        return [name for name in self.students or () if plain_name(name) not in present]


def plain_name(name: str) -> str:
    """Returns a name for comparison: letters and digits alone, without case, accents composed, and without Moodle's ending."""
    plain = unicodedata.normalize("NFC", _MOODLE.sub("", name)).casefold()
    return re.sub(r"[\W_]+", "-", plain).strip("-")


def read_assignment(folder: Path) -> Assignment:
    """Reads assignment.json and points.toml of a folder. Raises ValueError with words for the teacher."""
    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {folder}. --assignment takes the folder that the command `assignment` wrote."
        )
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        again = "Run the same `assignment` command again with --force: it writes the same notebooks and this file"
        raise ValueError(f"{folder} has no {PLAN}, so its exercises and seeds are not known. {again}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{folder / PLAN} cannot be read ({error}). Write the assignment again with --force."
        ) from None
    if not _is_plan(plan):
        raise ValueError(f"{folder / PLAN} is not what `assignment` writes. Write the assignment again with --force.")
    exercises = tuple(plan["exercises"])
    return Assignment(exercises, plan["seed"], plan["students"], read_points(folder / POINTS, exercises))


def _is_plan(plan: Any) -> bool:
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        return False
    exercises, students = plan.get("exercises"), plan.get("students")
    seeds = [plan.get("seed"), *(students.values() if isinstance(students, dict) else ())]
    return (
        isinstance(exercises, list)
        and bool(exercises)
        and all(isinstance(exercise, str) and re.fullmatch(r"\d\d\.\d+", exercise) for exercise in exercises)
        and (students is None or isinstance(students, dict))
        and all(type(seed) is int and 0 <= seed <= 999_999_999 for seed in seeds)
    )


def read_points(path: Path, exercises: Sequence[str]) -> dict[str, float]:
    """Returns exercise id -> points from a file of lines such as `"05.1" = 2`; 1 where the file, or a line, is missing.

    Raises ValueError for a file that is no TOML, for an exercise that the assignment does not have, and for what is no number
    from 0 to 10,000.
    """
    points: dict[str, float] = dict.fromkeys(exercises, 1.0)
    if not path.exists():
        return points
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f'{path} cannot be read ({error}). A line looks like "05.1" = 2.') from None
    for exercise, worth in _entries(table):
        if exercise not in points:
            raise ValueError(f"{path} names {exercise}, which is not in the assignment: {', '.join(exercises)}.")
        if type(worth) not in (int, float) or not math.isfinite(worth) or not 0 <= worth <= 10_000:
            raise ValueError(f"{path} gives {exercise} {worth!r} points. A number from 0 to 10,000 is needed.")
        points[exercise] = float(worth)
    return points


def _entries(table: dict[str, Any]) -> list[tuple[str, Any]]:
    """Returns (exercise, points). TOML reads 05.1 without quotes as a table 05 with the key 1, which is meant the same."""
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        found += (
            [(f"{key}.{name}", worth) for name, worth in value.items()] if isinstance(value, dict) else [(key, value)]
        )
    return found
