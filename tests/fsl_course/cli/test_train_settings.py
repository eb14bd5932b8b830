"""The command `train`: settings of the methods, heads, norms, and pictures of the user."""

from __future__ import annotations

import shlex

import pytest
import torch

from fsl_course.__main__ import main
from fsl_course.data import load_glyphs
from fsl_course.weights.checkpoints import load_file, load_learner
from fsl_course.weights.learners import SETTINGS, settings_of
from tests.fsl_course.cli.runs import own_pictures, train_head, train_tiny

HEADED = ["maml", "anil", "meta_sgd", "reptile", "meta_lstm"]


def test_set_reads_json_and_words_and_the_card_repeats_the_run(tmp_path, few_episodes):
    words = ["--set", "full_context=true", "--set", "scale=2.5", "--set", "similarity=euclidean"]
    card = train_tiny("matching", tmp_path / "a", *words)
    assert card["settings"] == {
        "width": 4, "norm": "batch", "halving": "pool", "in_channels": 1,
        "full_context": True, "scale": 2.5, "similarity": "euclidean",
    }  # fmt: skip
    assert " ".join(words) in card["command"]
    learner, _ = load_learner(tmp_path / "a" / "matching-glyphs.safetensors")
    assert (learner.full_context, learner.scale, learner.similarity) == (True, 2.5, "euclidean")
    again = shlex.split(card["command"])
    assert main([*again[3:-1], str(tmp_path / "b"), "--quiet"]) == 0
    one, other = (load_file(tmp_path / folder / "matching-glyphs.safetensors")[0] for folder in "ab")
    assert set(one) == set(other)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_set_takes_null_and_words_in_quotes(tmp_path, few_episodes):
    card = train_tiny("matching", tmp_path, "--set", "scale=null", "--set", 'similarity="cosine"')
    assert card["settings"]["scale"] is None
    assert card["settings"]["similarity"] == "cosine"
    assert load_learner(tmp_path / "matching-glyphs.safetensors")[0].scale == 10.0
    words = shlex.split(card["command"])
    assert words[words.index("scale=null") + 2] == 'similarity="cosine"'  # quotes survive the shell


@pytest.mark.parametrize(
    ("method", "setting", "attribute"),
    [("siamese", "objective=contrastive", "contrastive"), ("relation", "objective=cross_entropy", "cross_entropy")],
)
def test_set_chooses_the_objective(tmp_path, few_episodes, method, setting, attribute):
    card = train_tiny(method, tmp_path, "--set", setting)
    assert card["settings"]["objective"] == attribute
    assert load_learner(tmp_path / f"{method}-glyphs.safetensors")[0].objective == attribute


def test_transfer_gets_as_many_base_classes_as_it_trains_on(tmp_path, few_episodes):
    card = train_tiny("transfer", tmp_path, "--set", "head=cosine")
    n_base = len(load_glyphs().split("train"))
    assert card["settings"]["n_base"] == n_base
    assert card["settings"]["head"] == "cosine"
    assert "n_base" not in card["command"]
    learner, _ = load_learner(tmp_path / "transfer-glyphs.safetensors")
    assert learner.head.weight.shape == (n_base, 4)
    assert [(r["way"], r["shot"]) for r in card["test"]] == [(5, 1), (5, 5), (20, 1), (20, 5)]


@pytest.mark.parametrize("method", HEADED)
def test_a_method_with_a_head_names_its_way_and_shot(tmp_path, few_episodes, method):
    card = train_head(method, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{method}-glyphs-3w1s.{s}" for s in ("json", "safetensors")]
    assert [(row["way"], row["shot"], row["query"]) for row in card["test"]] == [(3, 1, 15)]
    assert (card["settings"]["n_way"], card["settings"]["inner_steps"]) == (3, 1)
    assert "--way 3 --shot 1" in card["command"]
    learner, about = load_learner(tmp_path / f"{method}-glyphs-3w1s.safetensors")
    assert learner.model.head.weight.shape[0] == 3
    assert about["settings"] == card["settings"]


def test_the_norm_is_the_one_asked_for_or_the_usual_one(tmp_path, few_episodes):
    usual = settings_of("maml", load_glyphs(), 3).get("norm", SETTINGS["norm"])
    for words, norm in (((), usual), (("--norm", "group"), "group"), (("--norm", "batch"), "batch")):
        out = tmp_path / "-".join(("run", *words))
        card = train_head("maml", out, *words)
        learner, _ = load_learner(out / "maml-glyphs-3w1s.safetensors")
        kinds = {"group": torch.nn.GroupNorm, "batch": torch.nn.BatchNorm2d}
        for name, kind in kinds.items():
            assert any(isinstance(m, kind) for m in learner.modules()) == (name == norm), (words, name)
        assert f"--norm {norm}" in card["command"] or not words
        assert card["settings"]["norm"] == norm


def test_the_command_in_the_card_of_a_head_makes_the_same_weights(tmp_path, few_episodes):
    card = train_head("meta_sgd", tmp_path / "a", "--set", "inner_lr=0.2", "--tasks", "2")
    assert main([*shlex.split(card["command"])[3:-1], str(tmp_path / "b"), "--quiet"]) == 0
    one, other = (load_file(tmp_path / folder / "meta_sgd-glyphs-3w1s.safetensors")[0] for folder in "ab")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_own_pictures_in_colour(tmp_path, few_episodes):
    folder = own_pictures(tmp_path / "mine")
    out = tmp_path / "out"
    assert main(["train", "prototypical", "--data", str(folder), "--channels", "3", "--size", "32", "--way", "3",
                 "--query", "2", "--steps", "2", "--width", "4", "--quiet", "--out", str(out)]) == 0  # fmt: skip
    learner, about = load_learner(out / "prototypical-mine.safetensors")
    assert about["settings"]["in_channels"] == 3
    assert learner.encoder.in_channels == 3


@pytest.mark.parametrize("words", [["siamese"], ["transfer"], ["relation"], ["matching", "--set", "full_context=True"]])
def test_every_method_takes_other_sizes(tmp_path, few_episodes, words):
    folder, out = own_pictures(tmp_path / "mine"), tmp_path / "run"
    method, *own = words
    assert main(["train", method, *own, "--data", str(folder), "--size", "32", "--way", "3", "--query", "2", "--steps", "1",
                 "--width", "4", "--quiet", "--out", str(out)]) == 0  # fmt: skip
    learner, about = load_learner(out / f"{method}-mine.safetensors")
    assert about["settings"]["size"] == 32
    assert learner.embed(torch.zeros(1, 1, 32, 32)).shape == (1, 4 * (64 if method == "relation" else 4))


def test_joined_validation_trains_on_more_classes_and_needs_some(tmp_path, few_episodes, monkeypatch, capsys):
    card = train_tiny("transfer", tmp_path / "a", "--join-validation")
    glyphs = load_glyphs()
    assert card["settings"]["n_base"] == len(glyphs.split("train")) + len(glyphs.split("val"))
    assert card["validation"] == []
    folder = own_pictures(tmp_path / "mine" / "train", 4)
    own_pictures(tmp_path / "mine" / "test", 2)
    for number, place in enumerate(sorted((tmp_path / "mine" / "test").iterdir())):
        place.rename(place.with_name(f"other{number}"))
    words = ["--data", str(folder.parent), "--way", "2", "--query", "2", "--out", str(tmp_path / "b")]
    assert main(["train", "prototypical", "--join-validation", *words]) == 1
    assert "--join-validation needs validation classes, and mine has none" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
