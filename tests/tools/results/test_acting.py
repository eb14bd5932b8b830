"""What trains and compares the acting of lesson 21: repeatable, resumable, and the committed table and weights are whole."""

import json

import pytest
import torch

from fsl_course.data.assets import asset
from fsl_course.methods.maml_rl import GaussianPolicy
from fsl_course.methods.recurrent_rl import RecurrentPolicy
from fsl_course.weights.checkpoints import load_file
from tools.results import compare_acting as compare
from tools.results import train_acting as acting


def test_training_gives_the_same_weights_twice():
    first, second = (acting.train_navigation(3, 2) for _ in range(2))
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("data", "net"), [("navigation", GaussianPolicy), ("bandits", RecurrentPolicy)])
def test_shipped_weights_fit_their_class(data, net):
    tensors, about = load_file(asset(f"checkpoints/{acting.file_name(data, 0)}"))
    assert about["class"] == net.__name__
    made = net()
    made.load_state_dict(tensors)
    assert about["parameters"] == sum(p.numel() for p in made.parameters())


def test_the_cards_keep_the_goals_of_the_lesson():
    plane = json.loads(asset("checkpoints/maml_rl-navigation.json").read_text(encoding="utf-8"))["test"]
    assert plane[1][0] - plane[1][1] > -7.6 + 0.5  # one step beats standing still, outside the intervals
    levers = json.loads(asset("checkpoints/recurrent_rl-bandits.json").read_text(encoding="utf-8"))["test"]
    assert all(row["RL^2"][0] < 1.25 * row["Thompson sampling"][0] for row in levers.values())


def test_a_stopped_comparison_goes_on_and_keeps_its_rows(tmp_path):
    words = [
        "--steps",
        "1",
        "--tasks",
        "4",
        "--bandits",
        "8",
        "--weights",
        str(tmp_path),
        "--out",
        str(tmp_path / "x.json"),
    ]
    compare.main([*words, "--seeds", "1"])
    before = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [row["label"] for row in before] == [*acting.WAYS, "RL^2"]
    compare.main([*words, "--seeds", "1"])
    assert json.loads((tmp_path / "x.json").read_text())["rows"] == before


def test_the_committed_table_is_whole():
    table = json.loads(asset("acting_comparison.json").read_text(encoding="utf-8"))
    rows = {(row["label"], row["seed"]): row for row in table["rows"]}
    assert set(rows) == {(label, seed) for label in (*acting.WAYS, "RL^2") for seed in range(3)}
    for (label, _), row in rows.items():
        if label == "RL^2":
            assert row["regret"][0] < 1.25 * row["thompson"][0]
        else:
            assert [len(part) for part in row["returns"]] == [200] * 4
