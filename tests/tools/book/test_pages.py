"""tools/pages.py, results.py and api.py: pages that are made from elsewhere."""

import json
import re

import pytest

from tools.book import api, pages, results
from tools.book.build import ROOT
from tools.book.lessons import lessons


@pytest.fixture(scope="module")
def book():
    pages = {one.notebook: one.notebook for one in lessons(ROOT)}
    settings = {"repository": "https://github.com/a/b", "branch": "main"}
    return pages.Book(ROOT, lessons(ROOT), pages, settings)


@pytest.mark.parametrize("name", sorted(pages.PARTS | results.PARTS))
def test_every_part_is_used_and_every_table_has_full_rows(book, name):
    made = (pages.PARTS | results.PARTS)[name](book)
    used = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("*.md"))
    assert f"<!-- {name} -->" in used
    for block in re.findall(r"(?:^\|.*\|$\n?)+", made, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().split("\n")}) == 1


def test_an_unknown_part_is_an_error(book):
    with pytest.raises(pages.PageError, match="unknown part <!-- sum -->"):
        pages.filled("<!-- sum -->", book, "book/a.md", {"total": lambda book: "7"})
    assert pages.filled("a <!-- total -->", book, "book/a.md", {"total": lambda book: "7"}) == "a 7"


def test_every_method_has_a_class_and_a_lesson(book):
    rows = pages.methods(book).split("\n")[2:]
    assert len(rows) >= 10
    for row in rows:
        _, method, learners, paper, taught, _, _ = (cell.strip() for cell in row.split("|"))
        assert method
        assert learners, row
        assert re.search(r"\d{4}$", paper), row
        assert taught, row


def test_short_paths_name_lessons_that_exist_and_add_up(book):
    numbers = {one.number for one in book.lessons}
    assert all(set(chosen) <= numbers for _, chosen, _ in pages.PATHS)
    row = next(line for line in pages.short_paths(book).split("\n") if "An evening" in line)
    minutes = sum(int(one.planned.split()[0]) for one in book.lessons if one.number in ("00", "05"))
    assert f"{minutes // 60} h {minutes % 60:02d} min" in row


def test_results_say_what_their_files_say(book):
    card = json.loads((ROOT / "data" / "checkpoints" / "prototypical-glyphs.json").read_text(encoding="utf-8"))
    first = card["test"][0]
    assert pages.percent(first["mean"], first["ci95"]) in results.cards(book)
    assert card["command"] in results.cards(book)
    assert results.over_seeds([[10, 20], [20, 30]], 40)[0] == pytest.approx(0.5)


def test_public_modules_only():
    found = api.modules(ROOT)
    assert found["fsl_course/methods/maml.py"] == "fsl_course.methods.maml"
    assert found["fsl_course/data/__init__.py"] == "fsl_course.data"
    assert not any("/_" in path.removesuffix("__init__.py") or "/ex05_" in path for path in found)


def test_a_package_names_where_its_names_live():
    page = api.page("fsl_course.data", {"fsl_course.data", "fsl_course.data.glyphs"})
    assert ":py:obj:`load_glyphs <fsl_course.data.glyphs.load_glyphs>`" in page
    assert ":members:" in api.page("fsl_course.nets", {"fsl_course.nets"})
