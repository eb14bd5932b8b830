"""The comparison behind lesson 12: what a run writes, that a stopped one goes on, and that the committed file is whole."""

import json

import pytest
import torch

from fsl_course import EpisodeSampler, evaluate, fit
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.weights.learners import make
from tests.conftest import toy_images
from tools.results import compare_mapping


@pytest.fixture
def small(monkeypatch):
    """Toys instead of Glyphs, two methods, few ways."""
    kept = {k: compare_mapping.LEARNERS[k] for k in ("ProtoNet", "Ridge")}
    monkeypatch.setattr(compare_mapping, "LEARNERS", kept)
    monkeypatch.setattr(compare_mapping, "TRAIN", {"way": 5, "shot": 1, "query": 2})
    monkeypatch.setattr(compare_mapping, "TEST", ((3, 1),))
    monkeypatch.setattr(compare_mapping, "TEST_QUERY", 2)
    return toy_images(24)


def test_rows_repeat_what_fit_and_evaluate_give(small, tmp_path):
    out = tmp_path / "rows.json"
    compare_mapping.main(["--steps", "2", "--episodes", "4", "--seeds", "1", "--out", str(out)], small)
    rows = json.loads(out.read_text())["rows"]
    assert [row["label"] for row in rows] == ["ProtoNet", "Ridge", "Ridge, frozen"]
    torch.manual_seed(0)
    learner = make("ridge", width=compare_mapping.WIDTH)
    fit(learner, EpisodeSampler(small.split("train"), 5, 1, 2, seed=0), steps=2, progress=False)
    for row, tested in zip(rows[1:], (learner, PrototypicalNetwork(learner.encoder)), strict=True):
        found = evaluate(tested, EpisodeSampler(small.split("test"), 3, 1, 2), 4)
        assert row["results"][0]["correct"] == (found.per_episode * 6).round().int().tolist()
        assert row["learned"] == {
            "l2": pytest.approx(learner.l2, abs=1e-4),
            "scale": pytest.approx(learner.scale, abs=1e-4),
        }


def test_a_stopped_run_goes_on_and_other_settings_are_refused(small, tmp_path, monkeypatch):
    out, made = tmp_path / "rows.json", []
    real = compare_mapping.run
    monkeypatch.setattr(
        compare_mapping, "run", lambda label, seed, *rest: made.append((label, seed)) or real(label, seed, *rest)
    )
    arguments = ["--steps", "1", "--episodes", "2", "--out", str(out)]
    compare_mapping.main([*arguments, "--seeds", "1"], small)
    compare_mapping.main([*arguments, "--seeds", "2"], small)
    assert made == [("ProtoNet", 0), ("Ridge", 0), ("ProtoNet", 1), ("Ridge", 1)]
    with pytest.raises(SystemExit, match="other settings"):
        compare_mapping.main(["--steps", "2", "--episodes", "2", "--out", str(out)], small)


def test_the_committed_file_is_whole():
    about = json.loads(compare_mapping.OUT.read_text(encoding="utf-8"))
    assert "--steps 200 --episodes 300 --seeds 3" in about["command"]
    frozen = {f"{label}, frozen" for label in compare_mapping.LEARNERS} - {"ProtoNet, frozen"}
    expected = {(label, seed) for label in {*compare_mapping.LEARNERS} | frozen for seed in range(3)}
    assert {(row["label"], row["seed"]) for row in about["rows"]} == expected
    for row in about["rows"]:
        assert tuple((r["way"], r["shot"]) for r in row["results"]) == compare_mapping.TEST
        for result in row["results"]:
            assert len(result["correct"]) == about["episodes"]
            assert all(0 <= right <= result["way"] * result["query"] for right in result["correct"])
