"""Files of measured rows: whole, within bounds, recomputable, and clear about what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import fsl_course
from fsl_course.cli.results import measured, name_of
from fsl_course.evaluation import mean_and_ci95
from tools.results.files import benchmark, folder_of_results, papers, rows, table, transfer_rows, write_table

METHODS = Path(fsl_course.__file__).parent / "methods"


def made_row(**changes: Any) -> dict[str, Any]:
    """A row that passes every check."""
    return {
        "method": "prototypical", "label": "Prototypical", "variant": "", "data": "omniglot", "trained_on": "omniglot",
        "protocol": "random", "way": 5, "shot": 1, "query": 15, "mean": 0.97, "ci95": 0.002, "seeds": 1, "seed_numbers": [0],
        "seed_means": [0.97], "episodes": 1000, "inductive": True, "turns": "classes", "minutes": 12.5, "parameters": 111680,
        "command": "x",
        "trained": {"way": 60, "shot": 1, "query": 5, "steps": 8000, "tasks": 1}, "weights": "prototypical-glyphs.safetensors",
    } | changes  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with the papers' numbers and one run."""
    shutil.copy(folder_of_results() / "papers.json", tmp_path)
    (tmp_path / "reasons.json").write_text("{}")
    (tmp_path / "proto.json").write_text(json.dumps({"rows": [made_row()]}))
    return tmp_path


def put(folder: Path, *found: dict[str, Any], name: str = "proto") -> None:
    (folder / f"{name}.json").write_text(json.dumps({"rows": found}))


def test_the_shipped_table_is_the_one_that_the_files_give():
    assert (folder_of_results() / "table.json").read_bytes() == table(), "run `python -m tools.results table`"


def test_the_table_holds_every_row_without_its_counts(folder):
    put(folder, made_row(correct={"75": 1000}), made_row(shot=5))
    put(folder, made_row(trained_on="glyphs"), name="transfer")
    write_table(folder)
    wanted = [{name: value for name, value in row.items() if name != "correct"} for row in rows(folder)]
    assert measured(folder=folder) == wanted
    assert measured(transfer=True, folder=folder) == transfer_rows(folder)


def test_the_shipped_rows_are_whole_and_of_methods_that_exist():
    found = rows()
    assert {"Chance", "Pixels, cosine", "Random Conv4"} <= {row["label"] for row in found}
    assert {row["protocol"] for row in found} == {"random", "alphabets"}
    for row in [*found, *transfer_rows()]:
        assert (METHODS / f"{row['method']}.py").is_file()
        assert row["episodes"] == 1000
        assert row["seeds"] == len(row["seed_numbers"])
        assert row["command"].startswith("python -m fsl_course ")
        assert 0 < row["mean"] < 1


def test_mean_and_interval_follow_from_the_counts():
    for row in [*rows(), *transfer_rows()]:
        right = torch.tensor([int(count) for count, times in row["correct"].items() for _ in range(times)])
        assert len(right) == row["episodes"]
        mean, half = mean_and_ci95(right.double() / (row["seeds"] * row["way"] * row["query"]))
        assert mean == pytest.approx(row["mean"], abs=1e-12)
        assert half == pytest.approx(row["ci95"], abs=1e-12)


def test_chance_guesses_one_in_n():
    for row in rows():
        if row["label"] == "Chance":
            assert abs(row["mean"] - 1 / row["way"]) < 2 * row["ci95"]


def test_transfer_never_counts_as_a_main_row(folder):
    assert all(row["data"] != row["trained_on"] for row in transfer_rows())
    put(folder, made_row(data="glyphs", protocol="scripts"), name="stray")
    with pytest.raises(ValueError, match="stray.json holds a row with"):
        rows(folder)


def test_a_row_stands_beside_its_papers_number(folder):
    (row,) = rows(folder)
    assert row["paper"]["number"] == 0.988
    assert row["paper"]["inductive"] is True
    assert "Snell" in row["paper"]["source"]
    assert (row["short"], row["why"], row["run"]) == (True, "not known", "proto")
    put(folder, made_row(mean=0.987, seed_means=[0.987]))
    assert rows(folder)[0]["short"] is False  # within the interval
    put(folder, made_row(protocol="alphabets"))
    assert rows(folder)[0]["paper"] is None  # the papers did not measure that


def test_reasons_are_those_of_the_task_the_run_or_the_budget(folder):
    (folder / "reasons.json").write_text(json.dumps({"proto": {"all": "small", "5w5s": "tiny"}}))
    put(folder, made_row(), made_row(shot=5))
    assert [row["why"] for row in rows(folder)] == ["small", "tiny"]
    (folder / "reasons.json").write_text("{}")
    put(folder, made_row(label="MAML", method="maml", inductive=False, query=1))
    assert rows(folder)[0]["why"] == "trained on 8,000 tasks, the authors on 1,920,000"


def test_an_inductive_row_is_not_called_short_of_a_transductive_number(folder):
    put(folder, *(made_row(label="MAML", method="maml", inductive=inductive) for inductive in (True, False)))
    honest, flattered = rows(folder)
    assert (honest["inductive"], honest["short"], honest["why"]) == (True, False, "")
    assert honest["paper"]["inductive"] is False
    assert flattered["short"] is True


def test_reptile_has_a_number_for_each_kind_of_batch_norm(folder):
    both = {"label": "Reptile", "method": "reptile", "turns": "none"}
    put(
        folder,
        *(made_row(**both, inductive=inductive) for inductive in (True, False)),
        made_row(**both | {"turns": "classes"}),
    )
    found = {(row["inductive"], row["turns"]): row for row in rows(folder)}
    assert found[True, "none"]["paper"]["number"] == 0.9539
    assert found[False, "none"]["paper"]["number"] == 0.9768
    assert [found[True, turns]["short"] for turns in ("none", "classes")] == [False, False]


def test_a_row_of_turned_classes_is_not_compared_with_a_paper_that_tests_upright(folder):
    low = {"label": "Reptile", "method": "reptile", "mean": 0.5, "seed_means": [0.5]}
    put(folder, made_row(**low), made_row(**low, turns="none"))
    found = {row["turns"]: row for row in rows(folder)}
    assert (found["classes"]["short"], found["none"]["short"]) == (False, True)
    names = {turns: name_of(row) for turns, row in found.items()}
    assert names == {"classes": "Reptile", "none": "Reptile, upright"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": 97.0, "seed_means": [97.0]}, "mean=97.0, which must lie in 0..1"),
        ({"mean": float("nan")}, "mean=nan"),
        ({"ci95": -0.1}, "ci95=-0.1"),
        ({"way": True}, "way=True, needs int"),
        ({"episodes": 1}, "episodes=1"),
        ({"inductive": 1}, "inductive=1, needs bool"),
        ({"seeds": 2}, "seeds=2, but seed_numbers"),
        ({"seed_means": [0.5]}, "is not the mean of seed_means"),
        ({"command": None}, "command=None, needs str"),
    ],
)
def test_a_wrong_row_is_named_with_its_file_and_fault(folder, change, words):
    put(folder, made_row(shot=5), made_row(**change))
    with pytest.raises(ValueError, match="row 2 of the results file .*proto.json") as caught:
        rows(folder)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"rows": [', "is damaged"),
        ("[]", "holds no JSON object"),
        ("{}", 'no list "rows"'),
        ('{"rows": [3]}', "row 1"),
    ],
)
def test_a_damaged_file_is_named(folder, content, words):
    (folder / "proto.json").write_text(content)
    with pytest.raises(ValueError, match="proto.json") as caught:
        rows(folder)
    assert words in str(caught.value)


def test_what_the_other_tools_write_there_is_no_run(folder):
    from tools.results import half_point

    (folder / half_point.OUT.name).write_text('{"rows": [{"variant": "reference", "cells": []}]}')
    assert [row["run"] for row in rows(folder)] == ["proto"]


def test_a_missing_file_is_named_with_a_cure(folder):
    (folder / "reasons.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"reasons.json is missing. Restore it with `git checkout"):
        rows(folder)


def test_one_cell_measured_by_two_runs_is_refused(folder):
    put(folder, made_row(), name="again")
    with pytest.raises(ValueError, match="two files of .* hold Prototypical, random, 5-way 1-shot"):
        rows(folder)


def test_rows_are_sorted_and_know_whether_their_weights_ship(folder):
    put(folder, made_row(protocol="alphabets"), made_row(way=20), made_row(weights="not-there.safetensors"))
    found = rows(folder)
    assert [(row["protocol"], row["way"]) for row in found] == [("random", 5), ("random", 20), ("alphabets", 5)]
    assert [row["weights"] for row in found] == [None, *["prototypical-glyphs.safetensors"] * 2]


def test_papers_give_percent_for_tasks_and_queries_where_batch_norm_saw_them():
    for entry in papers()["papers"]:
        assert all(50 < number <= 100 for number in entry["percent"].values())
        assert set(entry["ci95"]) <= set(entry["percent"]) <= {"5w1s", "5w5s", "20w1s", "20w5s"}
        assert entry["source"]
        assert entry["protocol"]
        assert set(entry["queries"]) == (set() if entry["inductive"] else set(entry["percent"]))
        assert entry["turns"] in ("classes", "none", "tasks")


def test_no_benchmark_is_no_error(folder):
    assert benchmark(folder) is None
    (folder / "benchmark.json").write_text('{"rows": []}')
    assert benchmark(folder) == {"rows": []}
