"""The weights of a finished run are not overwritten by a run with other settings."""

from __future__ import annotations

import json

from fsl_course.__main__ import main
from tests.fsl_course.cli.runs import train_tiny

WEIGHTS, CARD = "prototypical-glyphs.safetensors", "prototypical-glyphs.json"


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path, capsys, few_episodes):
    train_tiny("prototypical", tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in (WEIGHTS, CARD)}
    capsys.readouterr()
    other = ["--way", "5", "--query", "2", "--width", "4", "--steps", "3", "--validate-every", "2", "--lr", "0.5"]
    assert main(["train", "prototypical", *other, "--quiet", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"{WEIGHTS} is a finished run with other settings (" in said
    assert "--lr: 0.001 there, 0.5 now; --steps: 2 there, 3 now" in said
    assert "Name another folder with --out" in said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_same_settings_may_run_again(tmp_path, few_episodes):
    train_tiny("prototypical", tmp_path)
    weights = (tmp_path / WEIGHTS).read_bytes()
    train_tiny("prototypical", tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == weights


def test_weights_without_a_card_are_not_overwritten(tmp_path, capsys, few_episodes):
    train_tiny("prototypical", tmp_path)
    for content in (None, "{half", json.dumps({"options": 3}), json.dumps([])):
        (tmp_path / CARD).unlink(missing_ok=True)
        if content is not None:
            (tmp_path / CARD).write_text(content)
        weights = (tmp_path / WEIGHTS).read_bytes()
        words = ["--way", "5", "--query", "2", "--width", "4", "--steps", "2", "--quiet"]
        assert main(["train", "prototypical", *words, "--out", str(tmp_path)]) == 1
        assert "its card does not say how it was made" in capsys.readouterr().err
        assert (tmp_path / WEIGHTS).read_bytes() == weights
