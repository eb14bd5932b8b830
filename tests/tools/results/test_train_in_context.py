"""The tool that makes the in-context weights of lesson 13: tiny runs, and what the shipped weights promise."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Generator

from fsl_course import pretrained
from fsl_course.episodes import table_tasks
from fsl_course.weights.checkpoints import card, load_file, load_learner
from tools.results import train_in_context


def run(monkeypatch: pytest.MonkeyPatch, out: Path) -> dict:
    monkeypatch.setattr(sys, "argv", ["train", "tables", "--steps", "2", "--episodes", "3", "--out", str(out)])
    train_in_context.main()
    return json.loads((out / "in_context-tables.json").read_text())


def test_weights_and_card_of_a_run_and_the_same_again(monkeypatch, tmp_path):
    found = run(monkeypatch, tmp_path / "a")
    assert found["command"] == "python -m tools.results.train_in_context tables --steps 2 --seed 0"
    assert [(row["way"], row["shot"]) for row in found["test"]] == [(3, 5), (10, 5)]
    learner, about = load_learner(tmp_path / "a" / "in_context-tables.safetensors")
    assert about == {key: found[key] for key in ("method", "settings", "data")}
    assert learner.features == 16
    run(monkeypatch, tmp_path / "b")
    one, other = (load_file(tmp_path / folder / "in_context-tables.safetensors")[0] for folder in "ab")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_steps_of_tables_fit_the_learner():
    steps = train_in_context.tables(Generator().manual_seed(0))
    for _ in range(5):
        task = next(steps)
        assert task.support_x.shape[0] == 16
        assert task.support_x.shape[2] == train_in_context.WIDTH
        assert 2 <= task.n_way <= 10


def test_the_shipped_tables_keep_their_promise():
    task = table_tasks(200, 3, 5, 5, 8, 16, Generator().manual_seed(5))
    with torch.no_grad():
        logits = pretrained("in_context", "tables").score(task.support_x, task.support_y, task.query_x, 3)
    row = next(row for row in card("in_context", "tables")["test"] if row["way"] == 3)
    assert (logits.argmax(-1) == task.query_y).double().mean() == pytest.approx(row["mean"], abs=0.05)
