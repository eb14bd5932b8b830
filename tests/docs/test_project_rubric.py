"""The rubric for projects in the notebook of lesson 26: eight criteria, 100 points, four falling levels each."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.test_teaching import tables

RUBRIC = Path(__file__).resolve().parents[2] / "docs" / "teaching" / "rubric.md"
CRITERIA = ("Problem", "Split", "Baselines", "Choosing", "One test", "Report", "Failures", "Claims")


def test_the_project_rubric_has_a_hundred_points_and_falling_levels():
    text = RUBRIC.read_text(encoding="utf-8").partition("## A project in the notebook of lesson 26")[2]
    header, *rows = tables(text)[0]
    assert header[:2] == ["criterion", "points"]
    assert tuple(row[0] for row in rows) == CRITERIA
    assert sum(int(row[1]) for row in rows) == 100
    for row in rows:
        levels = [re.match(r"(\d+): .{10,}", cell) for cell in row[2:]]
        points = [int(level[1]) for level in levels]
        assert points == sorted(set(points), reverse=True)
        assert (len(points), points[0]) == (4, int(row[1]))
