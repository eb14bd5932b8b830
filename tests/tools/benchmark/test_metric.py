from types import SimpleNamespace

import pytest
import torch

from fsl_course.episodes import EpisodeSampler
from tests.conftest import toy_images
from tools.benchmark import metric, peers
from tools.benchmark.measure import Disagreement, Settings

QUICK = Settings(quick=True)


def test_evaluating_gives_the_same_accuracy_in_every_episode(stand_in):
    (row,) = metric.evaluate_1000(QUICK)
    assert row["agreement"]["largest_difference"] <= 5e-4
    assert 0.2 < row["accuracy"] <= 1
    assert row["repeats"] == 2


@pytest.mark.parametrize("repeats", [3, 60, 1001])
def test_the_repeats_share_all_episodes_out(stand_in, monkeypatch, repeats):
    """Parts that are rounded up would be used up before the last of 60 repeats."""
    sizes = []

    def perfect(learner, sampler, episodes):
        return SimpleNamespace(per_episode=torch.ones(episodes, dtype=torch.float64), mean=1.0)

    monkeypatch.setattr(metric, "evaluate", perfect)
    monkeypatch.setattr(peers.easyfsl(), "evaluate", lambda *_, **__: 1.0)
    monkeypatch.setattr(peers, "loader", lambda dataset, positions, *_: sizes.append(len(positions)))
    (row,) = metric.evaluate_1000(Settings(repeats=repeats))
    assert row["repeats"] == min(repeats, 100)
    assert sum(sizes[-row["repeats"] :]) == 1000
    assert min(sizes) > 0


def test_evaluating_other_weights_is_not_timed(stand_in, monkeypatch):
    right = peers.encoders

    def other(device, dtype, weights=None):
        ours, theirs = right(device, dtype, weights)
        with torch.no_grad():
            theirs[0].weight.neg_()
        return ours, theirs

    monkeypatch.setattr(peers, "encoders", other)
    with pytest.raises(Disagreement, match="accuracy of each"):
        metric.evaluate_1000(QUICK)


def test_loss_and_gradient_agree_with_squared_distances_and_not_without(stand_in):
    plain = peers.easyfsl().PrototypicalNetworks
    sampler = EpisodeSampler(toy_images(), 5, 1, 2, dtype=torch.float64)
    assert metric.step_agreement(peers.squared(plain), sampler)["largest_difference"] < 1e-9
    with pytest.raises(Disagreement, match="loss and gradient"):
        metric.step_agreement(plain, sampler)


def test_steps_have_two_rows_and_one_goal(stand_in):
    rows = metric.prototypical_step(QUICK)
    assert [row["goal"] for row in rows] == [1.6, None]
    assert all(row["ours_s"] > 0 and row["peer_s"] > 0 for row in rows)


@pytest.mark.parametrize("work", [metric.evaluate_1000, metric.prototypical_step])
def test_both_works_need_easyfsl_and_say_so(missing, work):
    (row,) = work(QUICK)
    assert "needs easyfsl" in row["skipped"]
