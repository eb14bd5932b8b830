"""The command `evaluate`."""

from __future__ import annotations

import json
import os

import pytest

from fsl_course.__main__ import main
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from fsl_course.weights.checkpoints import save_learner
from tests.conftest import toy_images
from tests.fsl_course.cli.runs import train_head


def test_baselines_are_rows(capsys):
    assert main(["evaluate", "baselines", "--episodes", "20", "--query", "3", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["method"] for r in rows] == ["chance", "pixels, Euclidean", "pixels, cosine", "random Conv4"]
    assert all(0 < r["ci95"] < r["mean"] < 1 for r in rows)


def test_text_output_names_episodes_interval_and_protocol(capsys):
    assert main(["evaluate", "baselines", "--data", "icons", "--within-group", "--way", "2", "--query", "2",
                 "--split", "all", "--episodes", "5", "--transductive"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "icons: 2-way 1-shot, 2 queries per class, seed 0, within groups" in out
    assert out.count("95 % interval, transductive") == 4


def test_the_weights_of_a_head_are_evaluated_with_its_ways_and_refuse_others(tmp_path, few_episodes, capsys):
    card = train_head("maml", tmp_path)
    capsys.readouterr()
    words = ["--query", "15", "--episodes", "4", "--json"]
    assert main(["evaluate", str(tmp_path), *words]) == 0  # --way is that of the head
    row = json.loads(capsys.readouterr().out)
    assert row["mean"] == pytest.approx(card["test"][0]["mean"])
    assert (row["method"], row["way"], row["inductive"]) == ("maml-glyphs-3w1s", 3, True)
    for way in (2, 5):
        assert main(["evaluate", str(tmp_path), "--way", str(way), *words]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: these weights have a head for 3 classes: give --way 3, or leave --way out")
        assert "Traceback" not in error


def test_weights_are_tested_under_the_protocol_they_were_trained_under(tmp_path, few_episodes, monkeypatch, capsys):
    seen = []

    def load(root, *, protocol):
        seen.append(protocol)
        return toy_images(classes=40, drawings=20)

    monkeypatch.setattr("fsl_course.data.load_omniglot", load)
    words = ["--data", "omniglot", "--root", "anywhere"]
    assert main(["train", "prototypical", *words, "--protocol", "random", "--steps", "1", "--width", "4", "--way", "2",
                 "--query", "2", "--quiet", "--out", str(tmp_path)]) == 0  # fmt: skip
    test = ["evaluate", str(tmp_path), *words, "--episodes", "4", "--json"]
    capsys.readouterr()
    assert main(test) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["protocol"] == "random"
    assert err == ""
    assert main([*test, "--protocol", "alphabets"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["protocol"] == "alphabets"
    assert "were trained on classes of the other protocol, --protocol random" in err
    assert seen == ["random", "random", "alphabets"]


@pytest.mark.omniglot
def test_omniglot_on_the_command_line(capsys):
    if not os.environ.get("FSL_DATA"):
        pytest.skip("the real Omniglot is not here: set FSL_DATA to the folder that holds omniglot-py")
    assert main(["evaluate", "baselines", "--data", "omniglot", "--episodes", "20", "--json"]) == 0
    rows = {r["method"]: r for r in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["pixels, cosine"]["mean"] > rows["chance"]["mean"] + 0.1


@pytest.mark.parametrize("protocol", [["random"], 3, "foo", {"random": 1}])
def test_a_foreign_file_with_an_odd_protocol_is_as_one_with_none(protocol, tmp_path, capsys):
    learner, settings = PrototypicalNetwork(conv4(2)), {"width": 2}
    about = {"method": "prototypical", "settings": settings, "omniglot_protocol": protocol}
    save_learner(tmp_path / "w.safetensors", learner, about)
    assert main(["evaluate", str(tmp_path), "--episodes", "2", "--query", "1"]) == 0
    assert capsys.readouterr().err == ""
