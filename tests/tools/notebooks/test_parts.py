"""Every lesson has one part, and every part its place in the course."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tools.notebooks.cells import lesson_files
from tools.notebooks.parts import PARTS, part_of, planned_minutes

ROOT = Path(__file__).resolve().parents[3]


def test_the_parts_follow_each_other_without_a_gap():
    assert [part.number for part in PARTS] == ["I", "II", "III", "IV"]
    assert PARTS[0].first == "00"
    assert all(int(after.first) == int(before.last) + 1 for before, after in pairwise(PARTS))
    assert all(part.first <= part.last and part.title and part.promise.endswith(".") for part in PARTS)


def test_every_lesson_finds_its_part():
    found = {file.stem[:2]: part_of(file.stem[:2]).number for file in lesson_files(ROOT)}
    assert {found["00"], found["06"]} == {"I"}
    assert {found["07"], found["11"]} == {"II"}
    assert [part_of(lesson).title for lesson in ("12", "18", "19", "26")] == [
        "Beyond",
        "Beyond",
        "Elsewhere",
        "Elsewhere",
    ]
    with pytest.raises(ValueError, match="no part holds lesson '27'; lessons are numbered 00 to 26"):
        part_of("27")


def test_the_title_cell_says_the_planned_minutes(tmp_path: Path):
    assert {file.stem[:2]: planned_minutes(file) for file in lesson_files(ROOT)}["08"] == 75
    lesson = tmp_path / "05_means.py"
    lesson.write_text("# %% [markdown]\n# # 05 Means\n# %% [markdown]\n# Planned time: 60 minutes.\n")
    with pytest.raises(ValueError, match=r"05_means\.py: the first cell must say the planned time"):
        planned_minutes(lesson)
