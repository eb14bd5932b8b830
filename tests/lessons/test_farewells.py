"""Every part of the course ends with a farewell that names its lessons, what each showed, and where the course goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.notebooks.cells import lesson_files, read_cells
from tools.notebooks.parts import PARTS, Part

ROOT = Path(__file__).resolve().parents[2]
LESSONS = {path.name[:2]: path for path in lesson_files(ROOT)}
ENDED = [
    part for part in PARTS if part.last in LESSONS and part is not PARTS[-1]
]  # the last part has a form of its own


def farewell(part: Part) -> str:
    """The last cell of the part's last lesson."""
    return read_cells(LESSONS[part.last])[-1].source


@pytest.mark.parametrize("part", ENDED, ids=lambda part: part.number)
def test_the_farewell_has_a_row_for_each_lesson_of_the_part_and_a_number_from_it(part):
    text = farewell(part)
    assert text.startswith(f"## Part {part.number} ends here: what you can do now\n")
    rows = re.findall(r"^\| \[?(\d\d)\]?(?:\(\.\./notebooks/(\w+)\.ipynb\))? \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert [number for number, *_ in rows] == [number for number in LESSONS if part.holds(number)]
    for number, stem, able, shown in rows:
        assert stem == ("" if number == part.last else LESSONS[number].stem)
        assert len(able.split()) > 2
        assert re.search(r"\d|half|three|seven|four|two", shown), shown


@pytest.mark.parametrize("part", ENDED, ids=lambda part: part.number)
def test_the_farewell_leads_to_the_next_part(part):
    following = PARTS[PARTS.index(part) + 1]
    linked = re.search(rf"\[[Pp]art {following.number}\]\(\.\./notebooks/(\w+)\.ipynb\)", farewell(part))
    assert linked[1] == LESSONS[following.first].stem


@pytest.mark.parametrize("part", ENDED, ids=lambda part: part.number)
def test_numbers_with_an_interval_stand_in_the_lesson_that_they_are_told_of(part):
    """As printed, or in points where the lesson prints a percentage: 5.80% ± 1.90% is told as 5.8 ± 1.9."""
    for number, shown in re.findall(r"^\| \[?(\d\d)\b.* \| (.+) \|$", farewell(part), re.MULTILINE):
        lesson = LESSONS[number].read_text(encoding="utf-8")
        solved = (ROOT / "solutions" / f"{LESSONS[number].stem}.ipynb").read_text(encoding="utf-8")
        printed = lesson.partition("ends here: what you can do now")[0] + solved.partition("ends here: what you can")[0]
        pairs = re.findall(r"(\d+(?:\.\d+)?)%? (?:±|\\u00b1) (\d+(?:\.\d+)?)", printed)
        for mean, half in re.findall(r"(\d+(?:\.\d+)?) ± (\d+(?:\.\d+)?)", shown):
            places = len(mean.partition(".")[2])
            rounded = {(f"{float(m):.{places}f}", f"{float(h):.{places}f}") for m, h in pairs}
            assert (mean, half) in rounded, f"lesson {number}: {mean} ± {half}"
