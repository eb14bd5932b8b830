"""tools/book/lessons.py: the page of a lesson."""

import nbformat
import pytest

from tools.book.build import ROOT
from tools.book.lessons import Lesson, LessonError, first_cell, lessons, page
from tools.book.links import Links

LESSON = Lesson("05", "A lesson", "05_lesson", "You learn.", "lesson 00", "60 min", "9 s", "300 MB")


def notebook(body, ids=("05-001", "05-002", "05-colab")):
    cells = [
        nbformat.v4.new_markdown_cell(
            "# 05 A lesson\n\n- [Solution](../solutions/05_lesson.ipynb)\n- [Next](05_lesson.ipynb)", id=ids[0]
        ),
        nbformat.v4.new_code_cell(f"def f():\n    {body}", id=ids[1], metadata={"tags": ["nbval-check-output"]}),
        nbformat.v4.new_code_cell("import sys", id=ids[2]),
    ]
    cells[1].outputs = [nbformat.v4.new_output("stream", text="right\n")]
    return nbformat.v4.new_notebook(cells=cells)


def made(tmp_path, student, solved):
    for path, content in ((LESSON.notebook, student), (LESSON.solution, solved)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        nbformat.write(content, tmp_path / path)
    pages = {LESSON.notebook: LESSON.notebook, LESSON.solution: LESSON.notebook}
    return page(tmp_path, LESSON, Links(tmp_path, pages, "https://example.org"))


def test_a_stub_stands_before_its_solution(tmp_path):
    cells = made(tmp_path, notebook("raise NotImplementedError"), notebook("return 1")).cells
    assert [cell.id for cell in cells] == ["05-001", "05-002-stub", "05-002"]  # without the cell that the build added
    stub, solution = cells[1:]
    assert "NotImplementedError" in stub.source
    assert stub.outputs == []
    assert solution.metadata["tags"] == ["nbval-check-output", "hide-input"]
    assert solution.metadata["mystnb"]["code_prompt_show"] == "Show the solution"
    assert solution.outputs[0].text == "right\n"


def test_a_cell_without_solution_stands_once(tmp_path):
    cells = made(tmp_path, notebook("return 1"), notebook("return 1")).cells
    assert [cell.id for cell in cells] == ["05-001", "05-002"]
    assert cells[1].metadata["tags"] == ["nbval-check-output"]


def test_a_cell_that_only_draws_says_what_is_folded(tmp_path):
    both = [notebook("return 1"), notebook("return 1")]
    for one in both:
        one.cells[1].metadata["tags"] = ["hide-input"]
    cells = made(tmp_path, *both).cells
    assert cells[1].metadata["tags"] == ["hide-input"]
    assert cells[1].metadata["mystnb"]["code_prompt_show"] == "Show the code of this picture"


def test_notebooks_that_do_not_pair_up_are_refused(tmp_path):
    with pytest.raises(LessonError, match="build them again"):
        made(tmp_path, notebook("return 1"), notebook("return 1", ids=("05-001", "05-003", "05-colab")))


def test_the_first_cell_links_to_slides_and_tells_what_was_measured():
    text = first_cell("# 05 A\n\n- [Solution](x)\n- [Next](y)", LESSON)
    assert "[Solution]" not in text
    assert "../slides/05_lesson.html" in text
    assert "9 s and 300 MB" in text


def test_every_lesson_of_the_course_is_found_once():
    found = lessons(ROOT)
    assert [one.stem for one in found] == sorted(path.stem for path in (ROOT / "lessons").glob("*.py"))
    assert all(one.planned.endswith(" min") and one.needs and one.promise.endswith(".") for one in found)


def test_a_lesson_that_was_never_measured_is_named_with_the_cure(tmp_path):
    (tmp_path / "lessons").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lesson_times.json").write_text("{}")
    (tmp_path / "lessons" / "05_new.py").write_text(
        "# %% [markdown]\n# # 05 New\n#\n# You learn it.\n#\n# Prerequisites: lesson 00. Planned time: 60 minutes.\n"
    )
    with pytest.raises(LessonError, match=r"05_new\.py has no measured time .*build 05 --measure"):
        lessons(tmp_path)
