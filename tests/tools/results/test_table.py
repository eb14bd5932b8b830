"""Tables in Markdown that say what the files say."""

from __future__ import annotations

import re

import pytest

from fsl_course.cli import results
from tests.tools.results.test_files import folder, made_row, put  # noqa: F401 - a fixture
from tools.book import results as book
from tools.results import files, table
from tools.results.files import rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.fixture
def measured(folder, monkeypatch):  # noqa: F811
    """A folder that the tables read instead of data/results."""
    monkeypatch.setattr(files, "rows", lambda: rows(folder))
    monkeypatch.setattr(files, "benchmark", lambda: None)
    return folder


def test_the_full_table_sets_ours_beside_the_papers_way(measured):
    put(measured, *(
        made_row(label="MAML", method="maml", inductive=inductive, mean=mean, seed_means=[mean], query=query)
        for inductive, mean, query in ((True, 0.95, 15), (False, 0.97, 1))
    ))  # fmt: skip
    head, _, line = book.omniglot_tasks(None).split("\n\n")[1].replace("\N{NO-BREAK SPACE}", " ").split("\n")
    found = dict(zip(cells(head), cells(line), strict=True))
    assert found["paper"] == "98.7 ± 0.4, transductive"
    assert found["ours, the paper's way"] == r"97.0 ± 0.2\*"
    assert found["ours, inductive"] == "95.0 ± 0.2"
    assert "5-way 1-shot: trained on 8,000 tasks, the authors on 1,920,000." in book.omniglot_random(None)


def test_costs_are_one_line_a_training(measured):
    put(
        measured, made_row(label="MAML", method="maml"), made_row(label="MAML", method="maml", inductive=False, query=1)
    )
    head, _, line = table.costs("random").split("\n")
    found = dict(zip(cells(head), cells(line), strict=True))
    assert (found["tested on"], found["trained on"]) == ("5-way 1-shot", "60-way 1-shot")
    assert (found["updates × tasks"], found["the paper's"]) == ("8,000 × 1", "60,000 × 32")
    assert (found["training"], found["parameters"], found["seeds"]) == ("12 min", "111,680", "1")
    assert table.costs("alphabets") == ""


def test_a_method_without_paper_and_training_leaves_its_cells_empty(measured):
    put(
        measured,
        made_row(method="baselines", label="Chance", trained_on=None, trained=None, minutes=None, weights=None),
    )
    *_, line = book.omniglot_tasks(None).split("\n")
    label, paper, ours, inductive = cells(line)
    assert (label, paper, ours) == ("Chance", "", "")
    assert "Chance," not in book.omniglot_random(None)  # no reason is owed
    assert table.costs("random") == ""
    assert inductive.startswith("97.0")


def test_every_table_has_full_rows_and_stars_are_no_markup(measured):
    put(measured, made_row(), made_row(way=20))
    drawn = book.omniglot_random(None)
    assert r"97.0" in drawn
    assert not re.search(r"(?<!\\)\*", drawn)
    for block in re.findall(r"(?:^\|.*\|$\n?)+", drawn + "\n\n" + book.omniglot_tasks(None), re.M):
        assert len({len(cells(line)) for line in block.strip().split("\n")}) == 1


def test_the_book_shows_every_row_of_the_papers_protocol():
    drawn = book.omniglot_random(None)
    for row in files.rows():
        if row["protocol"] == "random":
            assert results.percent(row["mean"], row["ci95"]).replace(" ", "\N{NO-BREAK SPACE}") in drawn


def test_what_was_not_measured_is_not_mentioned(measured):
    (measured / "proto.json").unlink()
    assert table.short_table(files.rows()) == ""
    assert book.omniglot_tasks(None) == ""
    assert book.omniglot_sources(None) == ""
    assert "Not measured yet" in book.benchmark(None)


def test_times_of_the_benchmark(monkeypatch):
    row = {"work": "sampling-memory", "setting": "20-way", "peer": "easyfsl", "peer_version": "1.5.0", "ours_s": 0.00042,
           "peer_s": 0.0123, "ratio": 29.3, "goal": 20, "met": True, "threads": 2}  # fmt: skip
    story = {"about": {"command": "again", "torch": "2"}, "rows": [row, row | {"setting": "5-way", "goal": None}]}
    monkeypatch.setattr(files, "benchmark", lambda: story)
    drawn = book.benchmark(None).replace("\N{NO-BREAK SPACE}", " ")
    assert drawn.count("**sampling-memory**") == 2
    assert drawn.count("| easyfsl 1.5.0 | 420 µs | 12.3 ms | 29.3 |") == 2
    assert drawn.count("Goal: 20, met.") == 1
    assert "20-way, 2 threads" in drawn
    assert "again" in table.benchmark_about(story)


def test_a_quick_try_has_no_verdict_and_what_differs_is_told(monkeypatch):
    row = {
        "work": "evaluate-1000",
        "peer": "easyfsl",
        "ours_s": 1.0,
        "peer_s": 2.0,
        "ratio": 2.0,
        "goal": 10,
        "met": None,
    }
    story = {"rows": [row, row | {"note": "each picture once"}]}
    monkeypatch.setattr(files, "benchmark", lambda: story)
    assert "met" not in book.benchmark(None)
    assert table.benchmark_notes(story) == "- evaluate-1000, easyfsl: each picture once."


def test_commands_are_one_a_run(measured):
    put(measured, made_row(command="first"), made_row(way=20, command="second"))
    assert table.commands(files.rows()) == "```text\nfirst\n```"
