"""The comparison behind lesson 06: what a run writes, that a stopped one goes on, and that the committed file is whole."""

import json

import pytest
import torch

from fsl_course import EpisodeSampler, evaluate, fit
from fsl_course.weights.learners import make
from tests.conftest import toy_images
from tools.results import compare_metric


@pytest.fixture
def small(monkeypatch):
    """Toys instead of Glyphs, two methods, few ways."""
    monkeypatch.setattr(
        compare_metric, "LEARNERS", {k: compare_metric.LEARNERS[k] for k in ("Transfer", "Prototypical")}
    )
    monkeypatch.setattr(compare_metric, "TRAIN", {"way": 5, "shot": 1, "query": 2})
    monkeypatch.setattr(compare_metric, "TEST", ((3, 1),))
    monkeypatch.setattr(compare_metric, "TEST_QUERY", 2)
    return toy_images(24)


def test_a_row_repeats_what_fit_and_evaluate_give(small, tmp_path):
    out = tmp_path / "rows.json"
    compare_metric.main(["--steps", "2", "--episodes", "4", "--seeds", "1", "--repeats", "3", "--out", str(out)], small)
    row = json.loads(out.read_text())["rows"][1]
    torch.manual_seed(0)
    learner = make("prototypical")
    fit(learner, EpisodeSampler(small.split("train"), 5, 1, 2, seed=0), steps=2, progress=False)
    found = evaluate(learner, EpisodeSampler(small.split("test"), 3, 1, 2), 4)
    assert row["label"] == "Prototypical"
    assert row["train_seconds"] > 0
    assert row["parameters"] == sum(p.numel() for p in learner.parameters())
    assert row["results"][0]["correct"] == (found.per_episode * 6).round().int().tolist()


def test_a_stopped_run_goes_on_and_other_settings_are_refused(small, tmp_path, monkeypatch):
    out, made = tmp_path / "rows.json", []
    real = compare_metric.run
    monkeypatch.setattr(
        compare_metric, "run", lambda label, seed, *rest: made.append((label, seed)) or real(label, seed, *rest)
    )
    arguments = ["--steps", "1", "--episodes", "2", "--repeats", "1", "--out", str(out)]
    compare_metric.main([*arguments, "--seeds", "1"], small)
    compare_metric.main([*arguments, "--seeds", "2"], small)
    assert made == [("Transfer", 0), ("Prototypical", 0), ("Transfer", 1), ("Prototypical", 1)]
    before = out.read_bytes()
    with pytest.raises(SystemExit, match="other settings"):
        compare_metric.main(["--steps", "2", "--episodes", "2", "--out", str(out)], small)
    assert out.read_bytes() == before


def test_the_committed_file_is_whole():
    about = json.loads(compare_metric.OUT.read_text(encoding="utf-8"))
    assert {(row["label"], row["seed"]) for row in about["rows"]} == {
        (n, s) for n in compare_metric.LEARNERS for s in range(3)
    }
    for row in about["rows"]:
        assert row["train_seconds"] > 0
        assert tuple((r["way"], r["shot"]) for r in row["results"]) == compare_metric.TEST
        for result in row["results"]:
            assert len(result["correct"]) == about["episodes"]
            assert all(0 <= right <= result["way"] * result["query"] for right in result["correct"])
