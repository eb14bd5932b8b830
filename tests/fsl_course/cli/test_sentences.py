"""The commands `train`, `evaluate` and `classify` with sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from fsl_course.__main__ import main

TINY = ["--way", "4", "--query", "2", "--width", "4", "--steps", "2", "--quiet"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Twelve classes of three sentences without a split."""
    file = tmp_path / "mine.csv"
    rows = [f"say {word} {n},{word}" for word in "abcdefghijkl" for n in range(3)]
    file.write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    return file


@pytest.mark.parametrize(("method", "encoder"), [("induction", "ngrams"), ("prototypical", "gru"), ("maml", "ngrams")])
def test_methods_learn_from_intents(tmp_path, few_episodes, capsys, method, encoder):
    assert main(["train", method, "--data", "intents", "--encoder", encoder, *TINY, "--out", str(tmp_path)]) == 0
    card = json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))
    assert card["settings"]["encoder"] == encoder
    assert f"--encoder {encoder}" in card["command"]
    assert main(["evaluate", str(tmp_path), "--episodes", "4", "--query", "3"]) == 0
    assert "intents/test" in capsys.readouterr().out


def test_sentences_of_your_own_are_split_and_named_by_their_file(own, tmp_path, few_episodes, capsys):
    words = [
        "train",
        "prototypical",
        "--data",
        str(own),
        "--way",
        "2",
        "--steps",
        "1",
        "--quiet",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(words) == 0
    assert (tmp_path / "run" / "prototypical-mine.safetensors").is_file()
    assert main(["evaluate", str(tmp_path / "run"), "--way", "2", "--episodes", "3"]) == 0
    assert "mine/test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "prototypical", "--data", "intents", "--rotations", "--out", "x"], "sentences have no angle"),
        (["train", "prototypical", "--data", "intents", "--bfloat16", "--out", "x"], "go with pictures"),
        (["train", "prototypical", "--encoder", "gru", "--out", "x"], "gru reads sentences: give --data intents"),
        (["train", "relation", "--data", "intents", "--out", "x"], "encoder must be one of conv4 for relation"),
        (["evaluate", "induction", "--data", "glyphs"], "these weights read sentences, and glyphs/test holds pictures"),
        (["evaluate", "matching", "--trained-on", "glyphs", "--data", "intents"], "these weights read pictures"),
        (["evaluate", "baselines", "--data", "intents"], "the baselines look at pixels"),
    ],
)
def test_what_does_not_go_together_is_said(words, message, capsys):
    assert main(words) != 0
    assert message in capsys.readouterr().err


def test_classify_names_sentences_by_a_file(tmp_path, capsys):
    file = tmp_path / "mine.csv"
    file.write_text(
        "text,label\nIs the train late?,late\nWater the roses,garden\nCut the lawn,garden\n", encoding="utf-8"
    )
    asked = ["How late is my train?", "Water the roses"]
    assert main(["classify", "prototypical", "--support", str(file), *asked, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["sentence"], row["name"]) for row in rows] == list(zip(asked, ["late", "garden"], strict=True))
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in rows)
    assert rows[1]["nearest"][0] == {
        "sentence": asked[1],
        "name": "garden",
        "index": 1,
        "distance": pytest.approx(0, abs=1e-2),
    }
    assert [near["distance"] for near in rows[0]["nearest"]] == sorted(n["distance"] for n in rows[0]["nearest"])
    assert main(["classify", "induction", "--support", str(file), *asked]) == 0
    assert "induction-intents: 2 classes, 3 examples" in capsys.readouterr().out


def test_classify_by_the_weights_of_a_run_that_has_a_head(tmp_path, own, few_episodes, capsys):
    words = ["train", "maml", "--data", "intents", *TINY, "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert main(["classify", str(tmp_path / "run"), "--support", str(own), "say a 1"]) != 0
    assert "has a head for 4 classes, and there are 12" in capsys.readouterr().err
    four = tmp_path / "four.csv"
    four.write_text("\n".join(own.read_text(encoding="utf-8").splitlines()[:13]), encoding="utf-8")
    assert main(["classify", str(tmp_path / "run"), "--support", str(four), "say a 1"]) == 0
    assert "maml-intents-4w1s: 4 classes, 12 examples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prototypical", "--html", "x.html", "a"], "--html goes with pictures"),
        (["prototypical", "--none-of-these", "--save", "x", "a"], "--none-of-these, --save goes with pictures"),
        (["prototypical", "--trained-on", "glyphs", "a"], "prototypical-glyphs reads pictures, and"),
        (["relation", "a"], "relation"),
    ],
)
def test_classify_says_what_does_not_fit_sentences(own, words, message, capsys):
    assert main(["classify", *words, "--support", str(own)]) != 0
    assert message in capsys.readouterr().err


def test_classify_refuses_pictures_for_weights_of_sentences(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (28, 28), 255).save(tmp_path / name / "1.png")
    assert main(["classify", "induction", "--support", str(tmp_path), str(tmp_path / "a" / "1.png")]) != 0
    assert "this learner reads sentences" in capsys.readouterr().err
