"""The late policy: what work loses that was handed in after its deadline.

The times come from a table of the teacher, as a learning platform exports it. The times of the files say nothing: copying,
unpacking and syncing change them, and a student can set them.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fsl_classroom.grading.expected import plain_name
from fsl_classroom.grading.tables import read_csv

_KEYS = {"due", "grace_minutes", "percent_per_day", "most_days"}
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Policy:
    """What late.toml says.

    due:             the deadline
    grace_minutes:   work up to this much later is on time
    percent_per_day: of what the work is worth; it is taken off for every day that has begun after the deadline
    most_days:       work that is more days late gets no points; None: there is no such limit
    """

    due: datetime
    grace_minutes: float = 0.0
    percent_per_day: float = 0.0
    most_days: float | None = None

    def days_late(self, handed_in: datetime, due: datetime | None = None) -> int:
        """Returns the days that have begun since the deadline, 0 within the grace. due: the student's own deadline."""
        lateness = handed_in - (due or self.due)
        return 0 if lateness <= timedelta(minutes=self.grace_minutes) else math.ceil(lateness / _DAY)

    def left(self, points: float, worth: float, days: int) -> float:
        """Returns what is left of the points, at least 0, rounded to hundredths."""
        if self.most_days is not None and days > self.most_days:
            return 0.0
        return round(max(0.0, points - worth * days * self.percent_per_day / 100), 2)


@dataclass(frozen=True)
class Lateness:
    """The policy with the times of a class. days: name as `plain_name` writes it -> days late."""

    policy: Policy | None = None
    days: Mapping[str, int] = field(default_factory=dict)

    def of(self, student: str) -> int:
        """Returns the days that a student was late; 0 without a policy."""
        return self.days.get(plain_name(student), 0)

    def left(self, student: str, points: float, worth: float) -> float:
        """Returns the points that a student keeps."""
        return round(points, 2) if self.policy is None else self.policy.left(points, worth, self.of(student))


def read_policy(path: Path) -> Policy:
    """Reads late.toml. Raises ValueError, with what is wrong, for anything but the keys of `Policy`."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}).") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise ValueError(f"{path} is no TOML file ({error}).") from None
    if unknown := sorted(set(table) - _KEYS):
        raise ValueError(f"{path} has {', '.join(unknown)}. What can stand in it: {', '.join(sorted(_KEYS))}.")
    due = table.get("due")
    if not isinstance(due, datetime):
        raise ValueError(f"{path} needs a deadline with a time, such as due = 2026-11-30T18:00:00+01:00; got {due!r}.")
    numbers = {name: _number(table[name], name, path) for name in _KEYS - {"due"} if name in table}
    if numbers.get("percent_per_day", 0) > 100:
        raise ValueError(f"{path}: percent_per_day is at most 100; got {numbers['percent_per_day']:g}.")
    return Policy(due, **numbers)


def _number(value: Any, name: str, path: Path) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(f"{path}: {name} is a number from 0 on; got {value!r}.")
    return float(value)


def read_lateness(policy: Path | None, times: Path | None, students: list[str]) -> Lateness:
    """Reads the policy and the table of times: student, handed_in, and optionally due for a deadline of one's own.

    policy, times: files; both or none
    students:      the names of those who handed something in: each needs a time
    Raises ValueError where one of the files is missing or wrong, and where a student has no time or two of them.
    """
    if policy is None and times is None:
        return Lateness()
    if policy is None or times is None:
        raise ValueError(
            "--late FILE and --times FILE go together: the policy, and a table with the columns student and handed_in."
        )
    rules = read_policy(policy)
    days: dict[str, int] = {}
    for number, row in enumerate(read_csv(times, ("student", "handed_in")), start=2):
        name, where = plain_name(row["student"]), f"{times}, line {number}"
        if name in days:
            raise ValueError(f"{where}: {row['student']} has a time already. Keep the one that counts.")
        if row["handed_in"].strip():
            own = _time(row["due"], rules.due, where) if row.get("due", "").strip() else None
            days[name] = rules.days_late(_time(row["handed_in"], rules.due, where), own)
    if lost := [student for student in students if plain_name(student) not in days]:
        few = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise ValueError(f"{times} has no time for {few}. Write when they handed in, under the name of their folder.")
    return Lateness(rules, days)


def _time(text: str, due: datetime, where: str) -> datetime:
    """Returns a time of the table. It has an offset from UTC if the deadline has one, and none if that has none."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{where}: {text!r} is no time such as 2026-11-30T17:55:00+01:00.") from None
    if (found.tzinfo is None) != (due.tzinfo is None):
        raise ValueError(
            f"{where}: {text!r} and the deadline {due.isoformat()} cannot be compared: either both have an offset from UTC, "
            "such as +01:00, or none has."
        )
    return found
