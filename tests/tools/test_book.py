"""tools/book.py: two lessons built into a small book, with every check of the whole one."""

import pytest

from tools import book, book_check, vendor
from tools.book import ROOT


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A book of lessons 00 and 05, without the API."""
    if lacking := vendor.missing(ROOT):
        pytest.skip(f"the book needs npm, or {' and '.join(lacking)} in .cache/npm; neither is there")
    folder = tmp_path_factory.mktemp("book")
    out = folder / "small"
    book.build(ROOT, out, work=folder / "work", only=("00", "05"))  # raises where Sphinx warns or a check finds a fault
    return out


def test_a_small_book_passes_every_check(small):
    assert book_check.faults(small) == []
    assert (small / "search.html").exists()


def test_a_lesson_has_stub_then_folded_solution(small):
    page = (small / "notebooks" / "05_prototypical.html").read_text(encoding="utf-8")
    assert page.index("YOUR CODE HERE") < page.index("Show the solution")
    assert page.count("Show the solution") == page.count("tag_exercise-stub")
    assert "../glossary.html#term-prototype" in page
    assert "../slides/05_prototypical.html" in page


def test_lessons_outside_the_book_link_to_the_repository(small):
    page = (small / "notebooks" / "05_prototypical.html").read_text(encoding="utf-8")
    assert "/blob/main/notebooks/06_relation.ipynb" in page


def test_formulas_and_slides_use_local_scripts(small):
    lesson = (small / "notebooks" / "05_prototypical.html").read_text(encoding="utf-8")
    slides = (small / "slides" / "05_prototypical.html").read_text(encoding="utf-8")
    assert "_static/mathjax/es5/tex-chtml-full.js" in lesson
    assert "../_static/reveal.js/dist/reveal.js" in slides
    assert list((small / "_static" / "mathjax" / "es5").rglob("*.woff"))


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(book.BookError, match="not empty"):
        book.build(ROOT, tmp_path, work=tmp_path / "work", only=("00",))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_readme_comes_without_what_the_landing_page_has():
    made = book.book_pages.Book(ROOT, [], {}, {})
    text = book._text(made, "README.md")
    assert text.startswith("# Install and use")
    assert "badge" not in text
    assert "## The lessons" not in text
    assert "## Start" in text


def test_a_page_may_end_with_a_line_to_write_on(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "sheet.md").write_text("# Sheet\n\nWhy?\n\n________\n")
    made = book.book_pages.Book(tmp_path, [], {}, {})
    assert book._text(made, "docs/sheet.md").endswith("<!-- end -->\n")  # a page that ends with a rule is a warning
