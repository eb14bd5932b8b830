"""tools/book/lesson_map.py: the lines of the learning path are the prerequisites of the lessons, and each ends at its box."""

from __future__ import annotations

import itertools
import re

import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from tools.book import diagrams, lesson_map
from tools.notebooks.cells import lesson_files

NEEDS = {
    "00": (),
    "01": ("00",),
    "02": ("01",),
    "03": ("01", "00"),
    "04": ("02", "00", "03"),
    "05": ("02", "04"),
}


def follow(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """All pairs (before, after) that a walk along the arrows joins."""
    found = set(arrows)
    while more := {(a, d) for (a, b), (c, d) in itertools.product(found, found) if b == c} - found:
        found |= more
    return found


def named() -> set[tuple[str, str]]:
    """(needed, needing) as the lessons' first cells name them, read number by number."""
    pairs = set()
    for path in lesson_files(diagrams.ROOT):
        line = next(one for one in path.read_text(encoding="utf-8").splitlines() if one.startswith("# Prerequisites: "))
        words = re.split(r"[\s,\[\].]+", line.partition(". Planned")[0].partition("](")[0].partition(";")[0])
        for place, word in enumerate(words):
            if re.fullmatch(r"\d\d", word):
                upto = words[place + 2] if words[place + 1 : place + 2] == ["to"] else word
                pairs |= {(f"{number:02d}", path.name[:2]) for number in range(int(word), int(upto) + 1)}
    return pairs


def committed() -> set[tuple[str, str]]:
    """(from, to) of every arrow in the committed drawing."""
    text = (diagrams.ROOT / diagrams.FOLDER / "path.svg").read_text(encoding="utf-8")
    return set(re.findall(r'id="needs-(\d\d)-(\d\d)"', text))


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ("Python, PyTorch tensors, what a neural network is", ()),
        ("[lesson 00](../notebooks/00_start.ipynb)", ("00",)),
        ("lessons 00 and 01; lesson 03 helps", ("00", "01")),
        ("lessons 02, 05 and 08", ("02", "05", "08")),
        ("lessons 08 to 11", ("08", "09", "10", "11")),
        ("lessons 01, 04 to 06 and 12", ("01", "04", "05", "06", "12")),
    ],
)
def test_prerequisites_are_read_as_they_are_written(words, numbers):
    assert lesson_map.needed(words) == numbers


def test_what_another_need_implies_is_not_drawn_again():
    drawn = lesson_map.edges(NEEDS)
    assert set(drawn) == {("00", "01"), ("01", "02"), ("01", "03"), ("02", "04"), ("03", "04"), ("04", "05")}
    assert len(drawn) == 6
    assert lesson_map.all_needed("05", NEEDS) == {"00", "01", "02", "03", "04"}


def test_the_committed_arrows_lead_to_the_lessons_that_the_first_cells_name_and_to_no_other():
    assert follow(committed()) == follow(named())
    for arrow in committed():
        assert follow(committed() - {arrow}) != follow(named()), f"{arrow} says nothing new"


def test_every_lesson_but_the_first_needs_an_earlier_one():
    needing = {end for _, end in named()}
    assert needing == {path.name[:2] for path in lesson_files(diagrams.ROOT)[1:]}
    assert all(start < end for start, end in named())


def test_lines_in_one_lane_never_meet_and_all_lanes_are_on_the_paper():
    order = list(lesson_map.titles())
    drawn = lesson_map.edges(lesson_map.prerequisites())
    lanes = lesson_map.lanes(drawn, order)
    assert set(lanes) == {start for start, end in drawn if order.index(end) > order.index(start) + 1}
    last = {start: max(end for one, end in drawn if one == start) for start in lanes}
    for one, other in itertools.combinations(sorted(lanes), 2):
        assert lanes[one] != lanes[other] or last[one] < other, (one, other)
    assert min(lesson_map.lane_x(lane) for lane in lanes.values()) > 0.1


def test_every_arrow_ends_in_the_row_of_its_lesson():
    figure = diagrams.figure("path")
    axes = figure.axes[0]
    rows = {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_text().isdigit()}
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == len(committed())
    for arrow in arrows:
        _, start, end = arrow.get_gid().split("-")
        tip = max(arrow._posA_posB, key=lambda point: (point[0], -point[1]))
        nearest = min(rows, key=lambda number: abs(rows[number] - tip[1]))
        assert nearest == end, f"{start} to {end} ends at {nearest}"
    plt.close(figure)


def test_every_title_fits_into_its_box():
    figure = diagrams.figure("path")
    figure.canvas.draw()
    axes = figure.axes[0]
    boxes = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    assert len(boxes) == len(lesson_map.titles())
    for title in lesson_map.titles().values():
        text = next(text for text in axes.texts if text.get_text() == title).get_window_extent()
        box = min(boxes, key=lambda box: abs(box.y0 + box.y1 - text.y0 - text.y1))
        assert box.x0 < text.x0 < text.x1 < box.x1, title
    plt.close(figure)


def test_the_alternative_text_says_where_a_learner_may_turn_off():
    words = lesson_map.alt({"00": (), "06": ("00",), "07": ("06",), "12": ("07",), "14": ("06",), "24": ("00",)})
    assert words.startswith("Lessons 00 to 24")
    assert words.endswith("go on to 07, 14 or 24")


def test_lessons_and_pages_show_the_drawings_with_their_alternative_texts():
    shown = {}
    root = diagrams.ROOT
    for path in (*(root / "lessons").glob("[0-9][0-9]_*.py"), *(root / "book").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        assert diagrams.refreshed(text) == text, f"{path.name}: run `python -m tools.book.diagrams`"
        shown[path.name] = re.findall(r"\(\.\./docs/diagrams/(\w+)\.svg\)", text)
    assert {"metric", "package", "path"} <= set(shown["00_start.py"])
    assert shown["path.md"] == ["path"]
    stale = "![old](../docs/diagrams/path.svg) and ![kept](../docs/other.svg)"
    assert diagrams.refreshed(stale) == f"{diagrams.markdown('path')} and ![kept](../docs/other.svg)"
