"""What trains and compares the acting of lesson 21: repeatable, resumable, and the committed table and weights are whole."""

import json

import pytest
import torch

from fsl_course.data.assets import asset
from fsl_course.data.worlds import Arm
from fsl_course.methods.maml_rl import GaussianPolicy
from fsl_course.methods.recurrent_rl import RecurrentPolicy
from fsl_course.weights.checkpoints import load_file
from tools.results import acting_arm
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
        "--draws",
        "2",
        "--arms",
        "6",
        "--weights",
        str(tmp_path),
        "--out",
        str(tmp_path / "x.json"),
    ]
    compare.main([*words, "--seeds", "1"])
    before = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [row["label"] for row in before] == [*acting.WAYS, "RL^2", *compare.GRADIENTS, *compare.ARMS]
    compare.main([*words, "--seeds", "1"])
    assert json.loads((tmp_path / "x.json").read_text())["rows"] == before


def test_an_imitator_learns_arms_and_its_steps_help():
    learner, untrained = acting_arm.imitator(0, 60, 3), acting_arm.imitator(0, 1, 3)
    arms = Arm.draw(50, torch.Generator().manual_seed(9))
    given = acting_arm.demonstrations(arms, torch.Generator().manual_seed(8), 0.0)
    after, before = (acting_arm.missed(arms, made(given), given.query_x)[0] for made in (learner, untrained))
    learner.steps = 0
    assert after < 0.8 * before
    assert after < acting_arm.missed(arms, learner(given), given.query_x)[0]


def test_noise_blurs_the_support_only_and_right_angles_miss_nothing():
    arms = Arm.draw(4, torch.Generator().manual_seed(0))
    given = acting_arm.demonstrations(arms, torch.Generator().manual_seed(1), 0.05)
    assert acting_arm.missed(arms, given.query_y, given.query_x) == [0.0, 0.0]
    assert 0.01 < float((arms.tip(given.support_y) - given.support_x).std()) < 0.1


def test_a_spread_is_that_of_its_draws(monkeypatch):
    """Gradients that are 1 in one draw and 3 in the next: variance 2 for each of the 4,484 numbers, mean 2."""
    values = iter([1.0, 3.0])

    class Learner:
        policy = GaussianPolicy()

        def parameters(self):
            return self.policy.parameters()

        def meta_loss(self, world, generator):
            value = next(values)
            return sum(value * p.sum() for p in self.parameters())

    monkeypatch.setattr(compare, "learner_of", lambda way: Learner())
    found = compare.of_gradients("dice", GaussianPolicy().state_dict(), 2)
    count = sum(p.numel() for p in GaussianPolicy().parameters())
    assert found["spread"] == pytest.approx((2 * count) ** 0.5, abs=1e-3)
    assert found["mean"] == pytest.approx((4 * count - count) ** 0.5, abs=1e-3)


def test_the_committed_table_is_whole():
    table = json.loads(asset("acting_comparison.json").read_text(encoding="utf-8"))
    rows = {(row["label"], row["seed"]): row for row in table["rows"]}
    labels = (*acting.WAYS, "RL^2", *compare.GRADIENTS, *compare.ARMS)
    assert set(rows) == {(label, seed) for label in labels for seed in range(3)}
    for (label, seed), row in rows.items():
        if label == "RL^2":
            assert row["regret"][0] < 1.25 * row["thompson"][0]
        elif label in acting.WAYS:
            assert [len(part) for part in row["returns"]] == [200] * 4
        elif label == "arm, MAML by imitation":  # within a tenth of the arm's length after five demonstrations
            assert sum(row["noisy"]) < 10
            assert sum(row["exact"]) < rows["arm, one net for all", seed]["exact"][0]
