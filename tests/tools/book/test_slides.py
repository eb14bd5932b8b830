"""tools/book/slides.py: which parts of a lesson become slides."""

import itertools

import nbformat
import pytest

from tools.book.slides import sections, shortened, slides

NUMBER = itertools.count(1)
PICTURE = '<img alt="A curve" src="data:image/png;base64,AAAA">'


def code(source="x = 1", tags=(), html=None):
    cell = nbformat.v4.new_code_cell(source, id=f"05-{next(NUMBER):03d}", metadata={"tags": list(tags)})
    if html:
        cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": html, "text/plain": "x"})]
    return cell


def text(source, tags=()):
    return nbformat.v4.new_markdown_cell(source, id=f"05-{next(NUMBER):03d}", metadata={"tags": list(tags)})


def made(*cells):
    return slides(nbformat.v4.new_notebook(cells=list(cells)))


def test_headings_start_slides_and_pictures_follow():
    found = made(text("# A\n\nShort."), text("## B\n\nIdea."), code(html=f"<div>{PICTURE}</div>"), code("print(1)"))
    assert [(one.title, one.text, one.pictures) for one in found] == [
        ("A", "Short.", []),
        ("B", "Idea.", []),
        ("B", "", [PICTURE]),
    ]
    assert all(one.code == "" for one in found)


def test_answers_long_text_and_references_are_left_out():
    answer = "<details><summary>Answer</summary>\n\nIt is 42.\n\n</details>"
    found = made(text(f"## Recall\n\n**1.** Why?\n\n{answer}\n\n" + "word " * 60), text("## References\n\nA paper."))
    assert [(one.title, one.text) for one in found] == [("Recall", "**1.** Why?")]


def test_every_question_of_a_quiz_has_its_slide():
    found = made(text("## Quiz\n\n**1. One?**\n(a) x\n\n**2. Two?**\n(b) y"))
    assert [one.text for one in found] == ["**1. One?**\n(a) x", "**2. Two?**\n(b) y"]


def test_tags_go_before_the_rule():
    long = "word " * 60
    found = made(text(f"## A\n\n{long}", ["slide"]), code("y = 2", ["slide"]), text("## B", ["skip-slide"]))
    assert [(one.title, one.text.strip(), one.code) for one in found] == [("A", long.strip(), ""), ("A", "", "y = 2")]
    assert made(code(tags=["skip-slide"], html=PICTURE)) == []


def test_code_that_only_draws_is_left_out_even_of_a_cell_that_is_kept_whole():
    found = made(text("## A"), code("y = 2", ["slide", "hide-input"], html=PICTURE))
    assert [(one.code, one.pictures) for one in found] == [("", []), ("", [PICTURE])]


@pytest.mark.parametrize(
    "kept", ["$$\n" + "x + " * 60 + "y\n$$", "| a | b |\n|---|---|\n" + "| c | d |\n" * 20, "Short."]
)
def test_equations_and_tables_are_kept_whole(kept):
    assert shortened(f"{kept.strip()}\n\n{'word ' * 60}") == kept.strip()


def test_links_away_are_left_out():
    assert shortened("Words.\n\n- [Binder](https://example.org) · [Colab](x)\n- [Next](y)") == "Words."


def test_a_cell_is_cut_at_its_headings():
    assert sections("before\n\n## A\n\none\n\n### B\n\ntwo") == [("", "before"), ("A", "one"), ("B", "two")]
