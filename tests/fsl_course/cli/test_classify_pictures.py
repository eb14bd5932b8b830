"""The command `classify` on pictures that are damaged, negatives of the examples, or photographs."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image, ImageOps

from fsl_course.__main__ import main
from fsl_course.classifier import FewShotClassifier
from fsl_course.photographs import load_photographs
from fsl_course.weights.learners import make
from tests.fsl_course.test_classifier import drawing


def test_a_damaged_picture_is_named_and_the_others_get_their_names(drawn, capsys):
    (drawn / "new" / "broken.png").write_bytes(b"no picture")
    names = ["classify", "prototypical", "--support", "mine", "new", "--json"]
    assert main(names) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3
    assert "note: left out: new/broken.png cannot be read as a picture" in printed.err


def test_negatives_of_the_examples_are_told_of(drawn, capsys):
    for file in (drawn / "new").iterdir():
        ImageOps.invert(Image.open(file)).save(file)
    drawing("ring", 2).save("new/right.png")
    command = ["classify", "prototypical", "--support", "mine", "new", "--json"]
    assert main(command) == 0
    assert "note: 3 of 4 pictures have a dark background, and the examples a light one" in capsys.readouterr().err
    assert main([*command, "--invert", "yes"]) == 0  # whoever decides, knows
    assert capsys.readouterr().err == ""


def test_photographs_need_no_training(drawn, resnet, capsys):
    ready = ["--encoder", "resnet18", "--encoder-weights", str(resnet)]
    assert main(["classify", "simple_shot", *ready, "--support", "mine", "new", "--json", "--save", "kept"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["weights"] for row in rows] == ["simple_shot on ResNet-18"] * 3
    clf = FewShotClassifier.load("kept")
    assert clf.support_images_.shape[1:] == (3, 112, 112)
    learner = make("simple_shot", encoder="resnet18", in_channels=3, size=112)
    load_photographs(learner.encoder, resnet)
    pictures = [str(picture) for picture in sorted((drawn / "new").iterdir())]
    shares = (
        FewShotClassifier(learner).fit(clf.sources_, [clf.classes_[i] for i in clf.labels_]).predict_proba(pictures)
    )
    found = torch.tensor([list(row["probabilities"].values()) for row in rows])
    assert torch.allclose(found, shares, atol=1e-5)
    assert main(["evaluate", "matching", *ready, "--data", "mine", "--split", "all", "--episodes", "3"]) == 0
    printed = capsys.readouterr()
    assert "3-way 1-shot, 1 queries per class" in printed.out
    assert "(chance)             33.33%" in printed.out
    assert "1 queries for each class, because" in printed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["classify", "siamese", "--encoder", "resnet18", "--support", "mine", "new"],
            "is for prototypical, matching, simple",
        ),
        (
            ["classify", "prototypical", "--encoder-weights", "x", "--support", "mine", "new"],
            "goes with --encoder resnet18",
        ),
        (
            ["classify", "prototypical", "--encoder", "resnet18", "--encoder-weights", "x", "--support", "mine", "new"],
            "45 MB) are not at x. With a network, this fetches them once",
        ),
    ],
)
def test_photographs_that_do_not_fit_are_refused_in_words(words, message, drawn, capsys):
    assert main(words) == 1
    assert message in capsys.readouterr().err
