"""Where a later lesson qualifies an earlier one, each names the other: nobody keeps a ranking that a later lesson has turned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.notebooks.cells import lesson_files

ROOT = Path(__file__).resolve().parents[2]
LESSONS = {path.name[:2]: path for path in lesson_files(ROOT)}
# (earlier, later): the later one turns a ranking, sets a limit, or finds another reason
QUALIFIED = (
    *(("02", later) for later in ("12", "16", "23", "24")),
    *(("04", later) for later in ("13", "22")),
    *(("05", later) for later in ("14", "15", "17", "18", "19", "22", "23", "24")),
    *(("06", "23"), ("07", "13"), ("08", "21"), ("10", "21"), ("12", "23"), ("16", "23")),
    *(("09", later) for later in ("17", "20", "22", "23")),
)


def prose(lesson: str) -> str:
    """The lesson without its prerequisites, without the table of lesson 00, and without a farewell, which name many lessons."""
    text = LESSONS[lesson].read_text(encoding="utf-8").partition("\n# %%")[2]
    return text.partition("ends here: what you can do now")[0]


def linked(lesson: str) -> set[str]:
    """Numbers of the lessons that the prose links to."""
    return set(re.findall(r"\]\(\.\./notebooks/(\d\d)_\w+\.ipynb\)", prose(lesson)))


def named(lesson: str) -> set[str]:
    """Numbers of the lessons that the prose links to or names, such as "lessons 04 and 05"."""
    words = re.findall(r"[Ll]essons? (\d\d(?:(?:, | and |, and )\d\d)*)", prose(lesson))
    return linked(lesson) | {number for found in words for number in re.findall(r"\d\d", found)}


@pytest.mark.parametrize(("earlier", "later"), QUALIFIED)
def test_an_earlier_lesson_links_to_the_one_that_qualifies_it_and_is_named_there(earlier, later):
    assert later in linked(earlier)
    assert earlier in named(later)


@pytest.mark.parametrize("lesson", [number for number in LESSONS if number != "00"])
def test_a_link_to_a_later_lesson_is_answered_there(lesson):
    after = {later for later in linked(lesson) if later > lesson}
    assert {later for later in after if lesson not in named(later)} == set()


@pytest.mark.parametrize("lesson", [number for number in LESSONS if "12" <= number <= "24"])
def test_lessons_of_parts_iii_and_iv_say_what_they_look_back_at(lesson):
    rows = re.findall(r"^# \| looks back \| (.+) \|$", prose(lesson), re.MULTILINE)
    assert len(rows) == 1
    assert re.findall(r"\]\(\.\./notebooks/(\d\d)_", rows[0])
    assert all(number < lesson for number in re.findall(r"\]\(\.\./notebooks/(\d\d)_", rows[0]))
