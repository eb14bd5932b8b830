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


def test_classify_names_pictures_only(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (28, 28), 255).save(tmp_path / name / "1.png")
    assert main(["classify", "induction", "--support", str(tmp_path), str(tmp_path / "a" / "1.png")]) != 0
    assert "this learner reads sentences" in capsys.readouterr().err
