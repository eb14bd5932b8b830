"""The method that segments scenes, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsl_course.__main__ import main
from fsl_course.weights.checkpoints import load_learner


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen classes of five drawings: bars at random."""
    root, random = tmp_path_factory.mktemp("letters"), np.random.default_rng(0)
    for name in range(15):
        (root / f"class {name}").mkdir()
        for number in range(5):
            picture = np.zeros((28, 28), np.uint8)
            picture[:, name + 5 : name + 8] = random.integers(200, 255)
            Image.fromarray(picture).save(root / f"class {name}" / f"{number}.png")
    return root


def test_train_evaluate_and_classify(letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch):
    monkeypatch.setattr("fsl_course.cli.train.CARD_EPISODES", 3)
    out = str(tmp_path / "run")
    words = ["--steps", "2", "--out", out, "--quiet"]
    assert main(["train", "dense", "--data", str(letters), *words]) == 0
    card = json.loads(next(Path(out).glob("*.json")).read_text(encoding="utf-8"))
    assert [(row["way"], row["shot"]) for row in card["test"]] == [(1, 1)]
    assert "need two classes of 9 grey drawings" in card["test_left_out"][0]
    assert "--way" not in card["command"]
    learner, _ = load_learner(next(Path(out).glob("*.safetensors")))
    assert learner.encoder.frozen
    capsys.readouterr()
    assert main(["evaluate", out, "--data", "glyphs", "--episodes", "2"]) == 0
    told = capsys.readouterr().out
    assert "miou 0." in told
    assert "chance" not in told
    assert main(["classify", out, "--support", str(letters), str(letters / "class 1" / "1.png")]) == 1
    assert "names no picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [(["--way", "5"], "finds one class in scenes: leave --way out"), (["--width", "8"], "of a net of width 64")],
)
def test_options_that_do_not_fit(more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["train", "dense", "--out", str(tmp_path), "--steps", "1", *more]) == 1
    assert message in capsys.readouterr().err
