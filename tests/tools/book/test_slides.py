"""tools/book/slides.py: the written slides of a lesson, their limits, and the figures that they borrow."""

import itertools
import re
from pathlib import Path

import nbformat
import pytest

from tools.book.lessons import lessons
from tools.book.slides import FOLDER, MOST, SlidesError, figures, slides

ROOT = Path(__file__).resolve().parents[3]
NUMBER = itertools.count(1)
PICTURE = '<img alt="A curve" src="data:image/png;base64,AAAA">'
ONE = "## A mean is a prototype\n\nShort.\n\n{figure: Train, 2}\n\nNote: Say it\ntwice.\n"
LESSONS = {one.stem: one for one in lessons(ROOT)}


def code(*pictures):
    cell = nbformat.v4.new_code_cell("x = 1", id=f"05-{next(NUMBER):03d}")
    cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": one}) for one in pictures]
    return cell


def text(source):
    return nbformat.v4.new_markdown_cell(source, id=f"05-{next(NUMBER):03d}")


def test_a_slide_has_a_headline_a_text_figures_and_a_note():
    (found,) = slides(ONE, "here")
    assert found == ("A mean is a prototype", "Short.", [("Train", 2)], "Say it twice.")


def test_figures_are_found_below_their_heading():
    other = PICTURE.replace("curve", "map")
    cells = [text("# A\n\n## Train\n\nwords"), code(PICTURE), text("no heading"), code(other), text("## End"), code()]
    assert figures(nbformat.v4.new_notebook(cells=cells)) == {"Train": [PICTURE, other]}


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("", "has 0"),
        (ONE * (MOST + 1), f"has {MOST + 1}"),
        ("Words before.\n\n" + ONE, "begins with a headline"),
        ("## A headline\n\nno note\n", "note is missing"),
        ("## A headline\n\nwords\n\nNote:\n", "note is missing"),
    ],
)
def test_what_cannot_be_shown_is_named(written, says):
    with pytest.raises(SlidesError, match=says):
        slides(written, "here")


@pytest.mark.parametrize("stem", LESSONS)
def test_a_lesson_has_its_slides_one_message_each(stem):
    written = (ROOT / FOLDER / f"{stem}.md").read_text(encoding="utf-8")
    there = figures(nbformat.read(ROOT / LESSONS[stem].solution, as_version=4))
    found = slides(written, stem)
    assert len(found) >= 8
    assert len({one.title for one in found}) == len(found)
    for one in found:
        prose = re.sub(
            r"\$\$.*?\$\$", "", "\n".join(line for line in one.text.split("\n") if line[:1] != "|"), flags=re.S
        )
        assert len(one.title.split()) <= 14, one.title
        assert len(prose.split()) <= 45, (one.title, len(prose.split()))
        assert 10 <= len(one.note.split()) <= 110, (one.title, len(one.note.split()))
        for heading, number in one.figures:
            assert number <= len(there.get(heading, [])), (one.title, heading, sorted(there))
    assert any(one.figures for one in found)


def test_every_file_belongs_to_a_lesson():
    assert {path.stem for path in (ROOT / FOLDER).glob("*.md")} == set(LESSONS)
