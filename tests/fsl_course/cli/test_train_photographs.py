"""`train --encoder resnet18`: features of photographs in place of Conv4, with weights that are never downloaded."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from fsl_course.__main__ import main
from fsl_course.weights.checkpoints import load_learner
from tests.fsl_course.cli.runs import own_pictures
from tests.fsl_course.cli.test_own_pictures import trained

pytestmark = pytest.mark.usefixtures("few_episodes")


@pytest.mark.parametrize("method", ["prototypical", "simple_shot"])
def test_a_frozen_encoder_of_photographs_needs_no_training_and_is_kept(tmp_path, resnet, capsys, method):
    words = ["--encoder", "resnet18", "--encoder-weights", str(resnet), "--size", "32"]
    run, card = trained(tmp_path, *words, data=own_pictures(tmp_path / "mine"), method=method)
    assert (
        f"note: {method} on a frozen encoder has no weights to train: --steps has no effect." in capsys.readouterr().err
    )
    learner, about = load_learner(run / f"{method}-mine.safetensors")
    assert (about["settings"]["encoder"], about["settings"]["frozen"]) == ("resnet18", True)
    assert about["pictures"]["channels"] == 3
    assert "--encoder resnet18" in card["command"]
    assert "--encoder-weights FILE" in card["command"]
    assert str(resnet) not in json.dumps(card)
    there = torch.load(resnet, weights_only=True)
    assert all(torch.equal(t, there[n]) for n, t in learner.encoder.resnet.state_dict().items())
    assert not learner.train().encoder.resnet.bn1.training
    assert method == "prototypical" or float(learner.mean.abs().max()) > 0
    assert (
        main(["evaluate", str(run), "--data", str(tmp_path / "mine"), "--way", "2", "--episodes", "3", "--json"]) == 0
    )
    assert 0 <= json.loads(capsys.readouterr().out.splitlines()[-1])["mean"] <= 1


def test_an_encoder_that_is_not_frozen_learns(tmp_path, resnet):
    words = [
        "--encoder",
        "resnet18",
        "--encoder-weights",
        str(resnet),
        "--train-encoder",
        "--size",
        "32",
        "--query",
        "1",
    ]
    run, _ = trained(tmp_path, *words, data=own_pictures(tmp_path / "mine"))
    learner, about = load_learner(run / "prototypical-mine.safetensors")
    assert about["settings"]["frozen"] is False
    assert not torch.equal(learner.encoder.resnet.conv1.weight, torch.load(resnet, weights_only=True)["conv1.weight"])


class NoNetwork:
    """Stands for torchvision's models."""

    resnet18 = torch.nn.Sequential


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["maml", "--encoder", "resnet18"],
            "--encoder resnet18 is for prototypical, matching, siamese, simple_shot, transfer",
        ),
        (["relation", "--encoder", "resnet18"], "relation has a network of its own"),
        (
            ["prototypical", "--set", "encoder=resnet18"],
            "--set takes neither encoder nor frozen: give --encoder resnet18",
        ),
        (["prototypical", "--train-encoder"], "--encoder-weights and --train-encoder go with --encoder resnet18"),
        (["prototypical", "--encoder-weights", "x.pth"], "go with --encoder resnet18: add it"),
        (["prototypical", "--encoder", "resnet18", "--encoder-weights", "gone.pth"], "are not at gone.pth"),
    ],
)
def test_where_an_encoder_does_not_go_is_said(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setattr("fsl_course.photographs.import_torchvision", lambda: SimpleNamespace(models=NoNetwork))
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words, "--out", "run"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_torchvision_the_cure_is_named(tmp_path, monkeypatch, capsys):
    def missing():
        raise ImportError("this needs torchvision, which is not installed: install the version")

    monkeypatch.setattr("fsl_course.photographs.import_torchvision", missing)
    assert main(["train", "prototypical", "--encoder", "resnet18", "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == "error: this needs torchvision, which is not installed: install the version\n"
