"""tools/book/pages.py, results.py and api.py: pages that are made from elsewhere."""

import json
import re

import pytest

from tools.book import api, lesson_map, pages, results
from tools.book.build import ROOT
from tools.book.lessons import lessons
from tools.results import files


@pytest.fixture(scope="module")
def book():
    paths = {one.notebook: one.notebook for one in lessons(ROOT)}
    settings = {"repository": "https://github.com/a/b", "branch": "main"}
    return pages.Book(ROOT, lessons(ROOT), paths, settings, tuple(api.modules(ROOT)))


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
        _, names, paper, taught, _ = (cell.strip() for cell in row.split("|"))
        method, learners = names.split("<br>")
        assert method
        assert learners, row
        assert re.search(r"\d{4}$", paper), row
        assert taught, row


def test_short_paths_name_lessons_that_exist_and_add_up(book):
    numbers, needs = {one.number for one in book.lessons}, lesson_map.prerequisites()
    assert all(set(chosen) <= numbers for _, chosen, _ in pages.PATHS)
    for name, chosen, words in pages.PATHS:
        left_out = {one for number in chosen for one in lesson_map.all_needed(number, needs)} - set(chosen)
        assert not left_out or name == "An evening" or "left out" in words, (name, left_out)
    row = next(line for line in pages.short_paths(book).split("\n") if "An evening" in line)
    minutes = sum(int(one.planned.split()[0]) for one in book.lessons if one.number in ("00", "05"))
    assert f"{minutes // 60} h {minutes % 60:02d} min" in row


def test_results_say_what_their_files_say(book):
    card = json.loads((ROOT / "data" / "checkpoints" / "prototypical-glyphs.json").read_text(encoding="utf-8"))
    first = card["test"][0]
    assert pages.percent(first["mean"], first["ci95"]) in results.cards(book)
    assert card["command"] in results.cards(book)
    assert results.over_seeds([[10, 20], [20, 30]], 40)[0] == pytest.approx(0.5)


def test_every_shipped_weight_has_a_line(book):
    rows = pages.weights(book).split("\n")[2:]
    cards = sorted(path.stem for path in (ROOT / "data" / "checkpoints").glob("*.json"))
    assert sorted(re.match(r"\| \[([\w-]+)\]", row)[1] for row in rows) == cards


def test_lessons_are_listed_under_their_part(book):
    listed = pages.lesson_list(book)
    headings = re.findall(r"^### (\w+) (.+)$", listed, re.M)
    assert headings[:2] == [("I", "See"), ("II", "Adapt")]
    assert listed.index("../notebooks/06_relation.ipynb") < listed.index("### II") < listed.index("07_inner_loop")
    assert all(one.promise in listed for one in book.lessons)


def test_numbers_below_a_papers_have_their_reason_on_the_page(book):
    tasks, notes = results.omniglot_tasks(book), results.omniglot_random(book)
    for row in files.rows():
        if row["protocol"] == "random":
            shown = results.results.percent(row["mean"], row["ci95"]).replace(" ± ", f"{pages.NBSP}±{pages.NBSP}")
            assert shown in tasks
            if row["short"]:
                assert f"{shown}\\*" in tasks
                assert row["why"] in notes


def test_the_benchmark_keeps_goals_and_verdicts(book):
    story, drawn = files.benchmark(), results.benchmark(book)
    for row in story["rows"]:
        assert f"**{row['work']}**: {row['setting']}" in drawn
        if row["goal"] is not None:
            assert f"Goal: {row['goal']:g}, {'met' if row['met'] else 'not met'}." in drawn


def test_public_modules_only():
    found = {module.path: module for module in api.modules(ROOT)}
    assert found["fsl_course/methods/maml.py"].name == "fsl_course.methods.maml"
    assert found["fsl_course/methods/maml.py"].page == "api/fsl_course.methods.md#maml"
    assert found["fsl_course/data/__init__.py"].page == "api/fsl_course.data.md"
    assert not any("/_" in path.removesuffix("__init__.py") or "/ex05_" in path for path in found)
    assert all((ROOT / path).is_file() for path in found)


def test_the_api_has_at_most_twenty_pages_each_with_its_reason():
    assert len(api.PUBLIC) <= 20
    assert all(room.reason for room in api.PUBLIC)
    assert not [room.name for room in api.PUBLIC if re.search(r"_system|\.cli|grading", room.name)]
    front = api.index(api.modules(ROOT))
    assert all(f"| {room.reason} |" in front for room in api.PUBLIC)


def test_a_package_names_where_its_names_live():
    found = api.modules(ROOT)
    rooms = {room.name: room for room in api.PUBLIC}
    assert ":py:obj:`load_glyphs <fsl_course.data.assets.load_glyphs>`" in api.page(rooms["fsl_course"], found)
    assert ".. autofunction:: fsl_course.data.assets.load_glyphs" in api.page(rooms["fsl_course.data"], found)
    assert ":members:" in api.page(rooms["fsl_course.nets"], found)
    assert "## `maml`" in api.page(rooms["fsl_course.methods"], found)
