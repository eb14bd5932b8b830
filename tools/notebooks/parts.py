"""The four parts of the course, in the one place that README, book and teaching plans take them from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """A part of the course: the lessons `first` to `last`, both included, named by their two digits.

    number: a Roman numeral; promise: one sentence for readers. Not every lesson of a part need exist yet.
    """

    number: str
    title: str
    first: str
    last: str
    promise: str

    def holds(self, lesson: str) -> bool:
        """Returns True if the lesson with this number ("05") belongs to the part."""
        return self.first <= lesson <= self.last


PARTS: tuple[Part, ...] = (
    Part("I", "See", "00", "06", "You recognise classes that no training has seen, by comparing pictures."),
    Part("II", "Adapt", "07", "11", "You learn an initialisation, or an optimiser, that adapts in a few steps."),
    Part("III", "Beyond", "12", "18", "You solve a task in one formula, in context, or without labels."),
    Part(
        "IV", "Elsewhere", "19", "26", "You take the methods from pictures of letters to other data, and to your own."
    ),
)


def part_of(lesson: str) -> Part:
    """Returns the part of the lesson with this number ("05"). Raises ValueError if no part holds it."""
    for part in PARTS:
        if part.holds(lesson):
            return part
    raise ValueError(f"no part holds lesson {lesson!r}; lessons are numbered {PARTS[0].first} to {PARTS[-1].last}")


def planned_minutes(lesson: Path) -> int:
    """Returns the minutes that the title cell of a lesson plans. Raises ValueError if it names none."""
    title_cell = lesson.read_text(encoding="utf-8").strip().partition("\n# %%")[0]
    if found := re.search(r"Planned time: (\d+) minutes", title_cell):
        return int(found[1])
    raise ValueError(f"{lesson.name}: the first cell must say the planned time, e.g. `Planned time: 60 minutes`")
