"""tools/book/build.py: a small book of two lessons, with every check of the whole one."""

import html
import re

import ipywidgets
import nbformat
import pytest
from ipywidgets.embed import dependency_state

from tools.book import build, check, diagrams, pages, vendor
from tools.book.build import ROOT


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A book of lessons 00 and 05, without the API."""
    if not vendor.available(ROOT):
        pytest.skip("the book needs npm, or its packages in .cache/npm; neither is there")
    folder = tmp_path_factory.mktemp("book")
    out = folder / "small"
    build.build(
        ROOT, out, work=folder / "work", only=("00", "05")
    )  # raises where Sphinx warns or a check finds a fault
    return out


def test_a_small_book_passes_every_check(small):
    assert check.faults(small) == []
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
    with pytest.raises(build.BookError, match="not empty"):
        build.build(ROOT, tmp_path, work=tmp_path / "work", only=("00",))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_landing_page_has_four_doors_and_the_drawings(small):
    page = (small / "index.html").read_text(encoding="utf-8")
    doors = re.findall(r'<div class="door docutils container">\s*<p><strong>(\w+)</strong>', page)
    assert doors == ["Try", "Learn", "Teach", "Use"]
    assert page.index('href="try.html"') < page.index("<strong>Learn</strong>")
    assert (small / "try.html").exists()
    for name in ("metric", "loops"):
        assert f"{name}.svg" in page
        assert html.escape(diagrams.DIAGRAMS[name].alt) in page
    assert "make lab" in page


def test_the_navigation_goes_by_part(small):
    page = (small / "index.html").read_text(encoding="utf-8")
    captions = re.findall(r'<span class="caption-text">([^<]+)</span>', page)
    assert captions == ["Learn", "I See", "Teach", "Use"]
    assert ">05 Prototypical networks</a>" in page


def test_answers_of_worksheets_are_reached_from_the_guide_only(small):
    answers = "protonet_answers.html"
    assert (small / "teaching" / "worksheets" / answers).exists()
    assert answers in (small / "teaching" / "README.html").read_text(encoding="utf-8")
    for page in ("index.html", "teaching/plans.html", "teaching/worksheets/protonet.html"):
        assert answers not in (small / page).read_text(encoding="utf-8")
    assert (
        "worksheets/protonet_answers" not in (small / "searchindex.js").read_text(encoding="utf-8").split('"terms"')[-1]
    )


def test_a_worksheet_has_lines_to_write_on(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "sheet.md").write_text("# Sheet\n\nWhy? ____ or\n\n________\n\n________\n")
    made = pages.Book(tmp_path, [], {}, {})
    text = build._text(made, "docs/sheet.md")
    assert (
        text.count('\n<hr class="write-on">\n') == 2
    )  # several rules together, or one at the end, are a warning of Sphinx
    assert "Why? ____ or" in text


def test_finished_pages_are_mended(small):
    """What Sphinx and the theme write, as `tools.book.access` expects it: a new version of either shows here."""
    lesson = (small / "notebooks" / "05_prototypical.html").read_text(encoding="utf-8")
    assert "Toggle hidden content" not in lesson
    assert not re.search(r'search-button-field[^>]*aria-label="Search"', lesson)
    assert '<div id="pst-primary-sidebar" role="region" aria-label=' in lesson
    assert "<th></th>" not in lesson
    assert "<th><p></p></th>" not in lesson
    assert '<th scope="col"' in lesson
    for page in ("glossary.html", "index.html"):
        text = (small / page).read_text(encoding="utf-8")
        assert not re.search(r"<summary>\s*<span[^>]*toctree-toggle", text)
    assert '<span lang="zh-Hans">支持集</span>' in (small / "glossary.html").read_text(encoding="utf-8")


def test_formulas_that_scroll_are_reached_by_keyboard(small):
    lesson = (small / "notebooks" / "05_prototypical.html").read_text(encoding="utf-8")
    assert "_static/course.js" in lesson
    assert (small / "_static" / "course.js").exists()


def test_a_page_with_stored_widgets_finds_the_manager_here(tmp_path):
    """A teacher's own notebook, saved with the state of a slider: nothing is fetched to show it."""
    if not vendor.available(ROOT):
        pytest.skip("the book needs npm, or its packages in .cache/npm; neither is there")
    slider = ipywidgets.IntSlider(value=42)
    state = {"version_major": 2, "version_minor": 0, "state": dependency_state([slider], drop_defaults=False)}
    view = {"model_id": slider.model_id, "version_major": 2, "version_minor": 0}
    shown = nbformat.v4.new_output(
        "display_data", {"application/vnd.jupyter.widget-view+json": view, "text/plain": "42"}
    )
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Slider"), nbformat.v4.new_code_cell("slider", outputs=[shown])],
        metadata={
            "language_info": {"name": "python"},
            "widgets": {"application/vnd.jupyter.widget-state+json": state},
        },
    )
    source, out = tmp_path / "work" / "source", tmp_path / "out"
    source.mkdir(parents=True)
    nbformat.write(notebook, source / "index.ipynb")
    vendor.copy_all(ROOT, tmp_path / "work" / "static")
    build._sphinx(ROOT, tmp_path / "work", out)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert slider.model_id in page
    for script in ("requirejs/require.js", "@jupyter-widgets/html-manager/dist/embed-amd.js"):
        assert f'src="_static/{script}' in page
        assert (out / "_static" / script).stat().st_size > 10_000
    assert not [fault for fault in check.faults(out) if "from elsewhere" in fault]
