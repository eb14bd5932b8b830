"""The comparison behind lesson 19: a stopped run goes on, and the committed file is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fsl_course.evaluation import mean_and_ci95
from tests.conftest import toy_images
from tools.results import compare_scenes


def test_a_stopped_run_goes_on_and_other_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compare_scenes, "LEARNERS", {"PANet": {}, "without alignment": {"align": 0.0}})
    monkeypatch.setattr(compare_scenes, "LONGER", {"longer": ({}, {"steps": 1, "tasks": 1, "lr": 1e-3})})
    out, toys = tmp_path / "rows.json", toy_images(12, 8)
    arguments = ["--steps", "1", "--episodes", "2", "--many", "3", "--out", str(out)]
    compare_scenes.main([*arguments, "--seeds", "1"], toys)
    first = json.loads(out.read_text(encoding="utf-8"))["rows"]
    compare_scenes.main([*arguments, "--seeds", "2"], toys)
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert rows[: len(first)] == first
    assert [(row["label"], row["seed"]) for row in first] == [
        ("PANet", 0), ("without alignment", 0), ("longer", 0), ("any ink", 0), ("ProtoNet's maps", 0), ("random encoder", 0),
    ]  # fmt: skip
    new = ["PANet", "without alignment", "longer", "random encoder"]
    assert [(row["label"], row["seed"]) for row in rows[len(first) :]] == [(label, 1) for label in new]
    short = ("PANet", "without alignment")
    assert all(len(row["iou"]) == (2 if row["label"] in short else 3) for row in rows)
    assert all(("seconds" in row) == (row["label"] == "longer") for row in rows)
    with pytest.raises(SystemExit, match="other settings"):
        compare_scenes.main(["--steps", "2", "--episodes", "2", "--out", str(out)], toys)


def test_the_committed_file_is_whole():
    about = json.loads(compare_scenes.OUT.read_text(encoding="utf-8"))
    assert "--steps 200 --episodes 150 --many 300 --seeds 3" in about["command"]
    short = {(label, seed) for label in compare_scenes.LEARNERS for seed in range(3)}
    others = {(label, seed) for label in compare_scenes.LONGER for seed in range(3)}
    others |= {(label, seed) for label, seeds in compare_scenes.UNTRAINED.items() for seed in range(seeds)}
    assert {(row["label"], row["seed"]) for row in about["rows"]} == short | others
    assert all(min(row["iou"]) >= 0 and max(row["iou"]) <= 1 for row in about["rows"])
    for row in about["rows"]:
        assert len(row["iou"]) == (150 if (row["label"], row["seed"]) in short else 300)


def test_longer_training_beats_any_ink_outside_the_interval():
    rows = json.loads(compare_scenes.OUT.read_text(encoding="utf-8"))["rows"]
    by = {(row["label"], row["seed"]): torch.tensor(row["iou"]).double() for row in rows}
    for seed in range(3):
        for label in compare_scenes.LONGER:
            more, width = mean_and_ci95(by[label, seed] - by["any ink", 0])
            assert more - width > 0
