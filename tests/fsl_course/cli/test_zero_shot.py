"""The commands `train` and `evaluate` with a method that knows classes by their descriptions."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fsl_course.__main__ import main
from tests.fsl_course.cli.runs import train_tiny


def test_train_and_evaluate_take_the_descriptions_of_the_data(
    tmp_path: Path, few_episodes: None, capsys: pytest.CaptureFixture
):
    card = train_tiny("zero_shot", tmp_path, "--set", "head=towers")
    assert card["settings"]["n_attributes"] == 36
    assert main(["evaluate", str(tmp_path), "--episodes", "10", "--query", "3"]) == 0
    assert "zero_shot-glyphs" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path), "--data", "icons", "--episodes", "10", "--query", "3"]) != 0
    assert "reads descriptions of 36 numbers, and these classes have those of 64" in capsys.readouterr().err
    assert main(["classify", str(tmp_path), "--support", str(tmp_path), "x.png"]) != 0


def test_data_without_descriptions_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = ["train", "zero_shot", "--way", "5", "--steps", "1", "--rotations", "--out", str(tmp_path)]
    assert main(words) != 0
    assert "has classes without a description" in capsys.readouterr().err


def test_classify_says_that_pictures_alone_carry_no_description(tmp_path: Path, capsys: pytest.CaptureFixture):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (28, 28), 255).save(tmp_path / name / "1.png")
    words = ["classify", "zero_shot", "--support", str(tmp_path), str(tmp_path / "a" / "1.png")]
    assert main(words) != 0
    assert "knows classes by their descriptions" in capsys.readouterr().err
