"""The options --unlabelled and --distractors of `train` and `evaluate`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch

from fsl_course.__main__ import main
from fsl_course.weights.checkpoints import load_file, load_learner
from tests.fsl_course.cli.runs import train_tiny

ASKED = ["--unlabelled", "3", "--distractors", "2"]


def test_train_records_them_and_its_command_repeats_the_run(tmp_path: Path, few_episodes: None):
    card = train_tiny("soft_kmeans", tmp_path / "a", *ASKED, "--set", "distractors=mask")
    assert (card["options"]["unlabelled"], card["options"]["distractors"]) == (3, 2)
    assert "--unlabelled 3 --distractors 2" in card["command"]
    assert all((row["unlabelled"], row["distractors"]) == (3, 2) for row in card["test"])
    assert card["test"][1]["query"] == 20 - 5 - 3  # of 20 drawings, 5 are shots and 3 without a label
    again = shlex.split(card["command"])
    assert main([*again[3:-1], str(tmp_path / "b"), "--quiet"]) == 0
    one, other = (load_file(tmp_path / folder / "soft_kmeans-glyphs.safetensors")[0] for folder in "ab")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert load_learner(tmp_path / "a" / "soft_kmeans-glyphs.safetensors")[0].distractors == "mask"


def test_a_run_without_them_says_nothing_of_them(tmp_path: Path, few_episodes: None):
    card = train_tiny("prototypical", tmp_path)
    assert "unlabelled" not in card["command"]
    assert all("unlabelled" not in row for row in card["test"])


def test_evaluate_gives_them_to_the_method(tmp_path: Path, few_episodes: None, capsys: pytest.CaptureFixture):
    train_tiny("soft_kmeans", tmp_path, *ASKED)
    capsys.readouterr()
    words = ["evaluate", str(tmp_path), "--episodes", "20", "--query", "3", "--json"]
    rows = []
    for more in ([], ["--unlabelled", "8"]):
        assert main([*words, *more]) == 0
        out, err = capsys.readouterr()
        rows.append(json.loads(out))
        assert ("without --unlabelled pictures" in err) == (not more)
    assert [(row["unlabelled"], row["distractors"]) for row in rows] == [(0, 0), (8, 0)]
    assert rows[0]["mean"] != rows[1]["mean"]
    assert main(["evaluate", "baselines", "--episodes", "4", "--unlabelled", "2"]) == 0
    assert "2 unlabelled per class" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--distractors", "2"], "--distractors goes with --unlabelled"),
        (["--unlabelled", "20"], "--shot 1, --unlabelled 20 and --query 2 need 23 pictures of every class"),
        (["--unlabelled", "18"], "has 20: give --query 1, or add pictures"),
        (["--unlabelled", "2", "--distractors", "2000"], "--way 5 and --distractors 2000 need 2005 classes"),
        (
            ["--unlabelled", "2", "--distractors", "100", "--within-group"],
            "--way 5 and --distractors 100 from one group: the largest group of ",
        ),
    ],
)
def test_what_cannot_be_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str):
    for command in (["train", "soft_kmeans", "--out", str(tmp_path)], ["evaluate", "prototypical"]):
        assert main([*command, "--way", "5", "--query", "2", *words]) != 0
        assert message in capsys.readouterr().err


def test_a_method_that_makes_no_use_of_them_says_so(tmp_path: Path, few_episodes: None, capsys: pytest.CaptureFixture):
    train_tiny("prototypical", tmp_path, "--unlabelled", "2")
    assert "prototypical makes no use of --unlabelled pictures" in capsys.readouterr().err
