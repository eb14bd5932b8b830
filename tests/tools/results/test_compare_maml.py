"""The comparison behind lesson 10: what a run writes, that a stopped one goes on, and that the committed file is whole."""

import json

import pytest
import torch

from fsl_course import EpisodeSampler, evaluate, fit
from fsl_course.weights.learners import make
from tests.conftest import toy_images
from tools.results import compare_maml


@pytest.fixture
def small(monkeypatch):
    """Toys instead of Glyphs, two rows, three ways, a small net."""
    given = {
        "MAML": {"method": "maml", "settings": {"inner_lr": 0.1, "inner_steps": 1}, "shot": 1, "query": 2, "lr": 1e-3},
        "Reptile": {
            "method": "reptile",
            "settings": {"inner_lr": 0.1, "inner_steps": 2, "batch": 3},
            "shot": 2,
            "query": 1,
            "lr": 1e-2,
        },
    }
    monkeypatch.setattr(compare_maml, "GIVEN", given)
    monkeypatch.setattr(compare_maml, "WAY", 3)
    monkeypatch.setattr(compare_maml, "TEST_QUERY", 2)
    monkeypatch.setattr(compare_maml, "NET", {"width": 4, "norm": "batch"})
    monkeypatch.setattr(compare_maml, "TASKS", 2)
    return toy_images(24)


def test_a_row_repeats_what_fit_and_evaluate_give(small, tmp_path):
    out = tmp_path / "rows.json"
    compare_maml.main(["--steps", "2", "--episodes", "4", "--seeds", "1", "--repeats", "1", "--out", str(out)], small)
    about = json.loads(out.read_text())
    row = about["rows"][1]
    torch.manual_seed(0)
    learner = make("reptile", width=4, norm="batch", n_way=3, inner_lr=0.1, inner_steps=2, batch=3)
    fit(
        learner,
        EpisodeSampler(small.split("train"), 3, 2, 1, seed=0),
        steps=2,
        tasks=2,
        lr=1e-2,
        progress=False,
    )
    found = evaluate(learner, EpisodeSampler(small.split("test"), 3, 1, 2), 4)
    assert row["label"] == "Reptile"
    assert row["train_seconds"] > 0
    assert row["parameters"] == sum(p.numel() for p in learner.parameters())
    assert row["correct"] == (found.per_episode * 6).round().int().tolist()
    assert about["step_ratio"]["MAML"] == 1
    assert about["step_ratio"]["Reptile"] > 0
    assert about["given"] == compare_maml.GIVEN


def test_a_stopped_run_goes_on_and_other_settings_are_refused(small, tmp_path, monkeypatch):
    out, made = tmp_path / "rows.json", []
    real = compare_maml.run
    monkeypatch.setattr(
        compare_maml, "run", lambda label, seed, *rest: made.append((label, seed)) or real(label, seed, *rest)
    )
    arguments = ["--steps", "1", "--episodes", "2", "--repeats", "1", "--out", str(out)]
    compare_maml.main([*arguments, "--seeds", "1"], small)
    compare_maml.main([*arguments, "--seeds", "2"], small)
    assert made == [("MAML", 0), ("Reptile", 0), ("MAML", 1), ("Reptile", 1)]
    before = out.read_bytes()
    with pytest.raises(SystemExit, match="other settings"):
        compare_maml.main(["--steps", "2", "--episodes", "2", "--out", str(out)], small)
    compare_maml.GIVEN["MAML"] |= {"lr": 0.5}
    with pytest.raises(SystemExit, match="other settings"):
        compare_maml.main([*arguments, "--seeds", "2"], small)
    assert out.read_bytes() == before


def test_every_row_sees_as_many_pictures_of_a_task_and_makes_its_learner():
    for label, given in compare_maml.GIVEN.items():
        assert given["shot"] + given["query"] == 6, label
        settings = {**compare_maml.NET, **given["settings"]}
        assert make(given["method"], **settings).training


def test_the_committed_file_is_whole():
    about = json.loads(compare_maml.OUT.read_text(encoding="utf-8"))
    assert {(row["label"], row["seed"]) for row in about["rows"]} == {
        (label, seed) for label in compare_maml.GIVEN for seed in range(2)
    }
    assert about["given"] == compare_maml.GIVEN
    assert set(about["step_ratio"]) == set(compare_maml.GIVEN)
    test = about["test"]
    for row in about["rows"]:
        assert row["train_seconds"] > 0
        assert len(row["correct"]) == test["episodes"]
        assert all(0 <= right <= test["way"] * test["query"] for right in row["correct"])
