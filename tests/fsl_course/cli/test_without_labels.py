"""`train unsupervised`: tasks of single pictures, no validation, and a card that says so."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from fsl_course.__main__ import main
from fsl_course.weights.checkpoints import load_file, load_learner
from tests.fsl_course.cli.runs import own_pictures, train_tiny


def test_train_says_that_it_used_no_labels_and_its_command_repeats_the_run(
    tmp_path: Path, few_episodes: None, capsys: pytest.CaptureFixture
):
    card = train_tiny("unsupervised", tmp_path / "a", "--set", "objective=nt_xent")
    assert card["labels"].startswith("none")
    assert card["validation"] == []
    assert "note: no validation, so the last weights are kept and not the best: that would use labels." in (
        capsys.readouterr().err
    )
    assert [(row["way"], row["shot"]) for row in card["test"]] == [(5, 1), (5, 5), (20, 1), (20, 5)]
    again = shlex.split(card["command"])
    assert main([*again[3:-1], str(tmp_path / "b"), "--quiet"]) == 0
    one, other = (load_file(tmp_path / folder / "unsupervised-glyphs.safetensors")[0] for folder in "ab")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    learner, about = load_learner(tmp_path / "a" / "unsupervised-glyphs.safetensors")
    assert learner.objective == "nt_xent"
    assert about["labels"] == card["labels"]
    assert main(["evaluate", str(tmp_path / "a"), "--episodes", "4"]) == 0


def test_unless_given_a_task_has_fifty_pictures_or_as_many_as_there_are(tmp_path: Path, few_episodes: None):
    data = own_pictures(tmp_path / "mine")
    words = ["train", "unsupervised", "--data", str(data), "--width", "4", "--steps", "1", "--quiet", "--out"]
    assert main([*words, str(tmp_path / "out")]) == 0
    command = (tmp_path / "out" / "unsupervised-mine.json").read_text()
    assert "--way 36 --shot 1 --query 3" in command  # 6 classes of 6 pictures to train on


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["--shot", "5"], "give --shot 1"),
        (["--unlabelled", "3"], "leave --unlabelled out"),
        (["--within-group"], "leave --within-group out"),
    ],
)
def test_what_needs_labels_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], cure: str):
    assert main(["train", "unsupervised", "--out", str(tmp_path), *words]) != 0
    assert f"unsupervised learns from single pictures, without labels: {cure}." in capsys.readouterr().err
