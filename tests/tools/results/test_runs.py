"""The lines of RUNS: whole, without contradictions, and those that the files of rows belong to."""

from __future__ import annotations

from fsl_course.weights.learners import MAKERS, has_head
from tools.results.files import papers, rows
from tools.results.runs import LABELS, RUNS


def test_every_run_names_a_method_and_a_task_once():
    assert len({run.name for run in RUNS}) == len(RUNS)
    cells = [(run.label, run.protocol, cell) for run in RUNS if run.label for cell in run.cells]
    assert len(set(cells)) == len(cells), "two runs fill one cell"
    ships = [run.ships for run in RUNS if run.ships]
    assert len(set(ships)) == len(ships)
    for run in RUNS:
        assert run.method in MAKERS or run.method == "baselines"
        assert run.protocol in ("random", "alphabets")
        assert run.protocol in run.name
        assert not has_head(run.method) or len({way for way, _ in run.cells}) == 1


def test_every_method_has_a_name_in_the_table():
    plain = [label.method for label in LABELS.values() if not label.variant]
    assert sorted(plain) == sorted([*MAKERS, "baselines"])
    assert {label.label for label in LABELS.values()} >= {entry["label"] for entry in papers()["papers"]}


def test_files_of_rows_belong_to_runs():
    assert {row["run"] for row in rows()} <= {run.name for run in RUNS}
    for row in rows():
        run = next(run for run in RUNS if run.name == row["run"])
        assert (row["method"], row["protocol"]) == (run.method, run.protocol)
        assert (row["way"], row["shot"]) in run.cells
