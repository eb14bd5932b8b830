"""The comparison behind lesson 19: a stopped run goes on, and the committed file is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import toy_images
from tools.results import compare_scenes


def test_a_stopped_run_goes_on_and_other_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compare_scenes, "LEARNERS", {"PANet": {}, "without alignment": {"align": 0.0}})
    out, toys = tmp_path / "rows.json", toy_images(12, 8)
    arguments = ["--steps", "1", "--episodes", "2", "--out", str(out)]
    compare_scenes.main([*arguments, "--seeds", "1"], toys)
    first = json.loads(out.read_text(encoding="utf-8"))["rows"]
    compare_scenes.main([*arguments, "--seeds", "2"], toys)
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert rows[:2] == first
    assert [(row["label"], row["seed"]) for row in rows[2:]] == [("PANet", 1), ("without alignment", 1)]
    assert all(len(row["iou"]) == 2 for row in rows)
    with pytest.raises(SystemExit, match="other settings"):
        compare_scenes.main(["--steps", "2", "--episodes", "2", "--out", str(out)], toys)


def test_the_committed_file_is_whole():
    about = json.loads(compare_scenes.OUT.read_text(encoding="utf-8"))
    assert "--steps 200 --episodes 150 --seeds 3" in about["command"]
    expected = {(label, seed) for label in compare_scenes.LEARNERS for seed in range(3)}
    assert {(row["label"], row["seed"]) for row in about["rows"]} == expected
    assert all(len(row["iou"]) == 150 and min(row["iou"]) >= 0 and max(row["iou"]) <= 1 for row in about["rows"])
