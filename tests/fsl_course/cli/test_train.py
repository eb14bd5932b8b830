"""The command `train`: the same weights again, what lies in the folder, and going on after a stop."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from fsl_course.__main__ import main
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.weights.checkpoints import load_file
from tests.fsl_course.cli.runs import train_tiny

QUICK = ["--way", "5", "--query", "3", "--width", "8", "--validate-every", "4", "--quiet"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "prototypical-glyphs.safetensors")[0]


def test_train_then_evaluate(tmp_path, capsys, few_episodes):
    assert main(["train", "prototypical", "--steps", "8", "--out", str(tmp_path), *QUICK]) == 0
    out = capsys.readouterr().out
    assert "5-way 1-shot" in out
    assert "20-way 5-shot" in out
    card = json.loads((tmp_path / "prototypical-glyphs.json").read_text())
    assert card["settings"] == {"width": 8, "norm": "batch", "halving": "pool", "in_channels": 1}
    assert [(r["way"], r["shot"]) for r in card["test"]] == [(5, 1), (5, 5), (20, 1), (20, 5)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prototypical-glyphs.json", "prototypical-glyphs.safetensors"]

    file = str(tmp_path / "prototypical-glyphs.safetensors")
    assert main(["evaluate", file, "--episodes", "4", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["mean"] == pytest.approx(card["test"][0]["mean"])  # the same episodes
    assert row["inductive"] is True
    assert (row["way"], row["shot"], row["episodes"], row["data"]) == (5, 1, 4, "glyphs/test")
    assert main(["evaluate", str(tmp_path), "--episodes", "4", "--json"]) == 0  # the folder stands for its weights
    assert json.loads(capsys.readouterr().out) == row
    (tmp_path / "other.safetensors").write_bytes(b"")
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "it holds other.safetensors, prototypical-glyphs.safetensors. Name the file." in capsys.readouterr().err


def test_the_command_in_the_card_makes_the_same_weights(tmp_path, few_episodes):
    first, second = tmp_path / "a", tmp_path / "b"
    assert (
        main(
            ["train", "prototypical", "--steps", "5", "--seed", "3", "--halve-every", "2", "--out", str(first), *QUICK]
        )
        == 0
    )
    words = json.loads((first / "prototypical-glyphs.json").read_text())["command"].split()
    assert words[:3] == ["python", "-m", "fsl_course"]
    assert main([*words[3:-1], str(second), "--quiet"]) == 0
    assert all(torch.equal(t, weights(second)[k]) for k, t in weights(first).items())


def test_a_run_stopped_by_ctrl_c_goes_on_with_the_same_command(tmp_path, capsys, monkeypatch, few_episodes):
    def run(folder: Path) -> int:
        return main(["train", "prototypical", "--steps", "8", "--out", str(folder), *QUICK])

    step = PrototypicalNetwork.training_step
    calls = []

    def pressed_at_step_3(self, episodes):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, episodes)

    with monkeypatch.context() as patch:
        patch.setattr(PrototypicalNetwork, "training_step", pressed_at_step_3)
        assert run(tmp_path / "a") == 130
    assert "Stopped after step 3 of 8" in capsys.readouterr().out
    kept = ["prototypical-glyphs.settings.json", "prototypical-glyphs.state.safetensors"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == kept
    assert run(tmp_path / "a") == 0
    assert run(tmp_path / "b") == 0
    one, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(t, other[k]) for k, t in one.items())


def test_a_finished_run_leaves_one_json_with_every_setting(tmp_path, few_episodes):
    card = train_tiny("prototypical", tmp_path, "--seed", "7", "--lr", "0.002")
    assert sorted(p.suffixes for p in tmp_path.iterdir()) == [[".json"], [".safetensors"]]
    assert (card["seed"], card["device"], card["preset"], card["torch"]) == (7, "cpu", None, torch.__version__)
    assert (card["options"]["lr"], card["options"]["way"], card["options"]["rotations"]) == (0.002, 5, False)
    assert not {"out", "root", "quiet"} & set(card["options"])  # places and views, which change no weight
    for option in (
        "protocol",
        "halve_every",
        "clip",
        "width",
        "norm",
        "halving",
        "bfloat16",
        "join_validation",
        "size",
    ):
        assert option in card["options"]


def test_the_settings_lie_beside_the_state_from_the_start(tmp_path, monkeypatch, few_episodes):
    seen = {}

    def look(*args, **kwargs):
        seen.update(json.loads((tmp_path / "prototypical-glyphs.settings.json").read_text()))
        raise KeyboardInterrupt

    monkeypatch.setattr("fsl_course.cli.train.fit", look)
    assert main(["train", "prototypical", "--out", str(tmp_path), *QUICK]) == 130
    assert seen["options"]["query"] == 3
    assert seen["command"].startswith("python -m fsl_course train prototypical")


def test_settings_of_a_refused_run_do_not_replace_those_of_the_state(tmp_path, monkeypatch, capsys, few_episodes):
    words = ["train", "prototypical", "--steps", "2", "--out", str(tmp_path), *QUICK]
    with monkeypatch.context() as patch:
        patch.setattr("fsl_course.cli.train.checkpoints.save_learner", _pressed)
        assert main(words) == 130
    settings = tmp_path / "prototypical-glyphs.settings.json"
    before = settings.read_bytes()
    assert main([*words, "--lr", "0.5"]) == 1
    assert "belongs to a run with other settings (lr: 0.001 there, 0.5 now)" in capsys.readouterr().err
    assert settings.read_bytes() == before


def _pressed(*args, **kwargs):
    raise KeyboardInterrupt
