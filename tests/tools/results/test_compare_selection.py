"""The measurement of optimism behind lesson 26: its parts, its unbiasedness by a simulation, and the committed table."""

import json

import pytest
import torch

from fsl_course.data.assets import asset
from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate, mean_and_ci95
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.ridge import RidgeRegression
from tests.conftest import toy_images
from tools.results import compare_selection as compare


def test_accuracies_agree_with_evaluate(monkeypatch):
    images = toy_images()
    monkeypatch.setattr(compare, "WAY", 3)
    table = images.images.flatten(0, 1).flatten(1).float() / 255
    part = torch.tensor([4, 1, 2, 0])
    sampler = EpisodeSampler(images.select(part), 3, 2, 2, seed=5)
    learners = {"mean": PrototypicalNetwork(torch.nn.Flatten()), "ridge 10": RidgeRegression(torch.nn.Flatten(), 10.0)}
    for head, learner in learners.items():
        ours = compare.accuracies(table, head, sampler, part, 8)
        assert torch.allclose(ours, evaluate(learner, sampler, 8).per_episode)


def test_optimism_is_positive_for_the_best_of_equal_settings_and_nought_for_a_pick_that_did_not_look():
    generator = torch.Generator().manual_seed(0)
    level, picked, blind = torch.tensor([0.02, -0.02]), [], []
    for _ in range(400):
        tried, fresh = 0.7 + level[:, None] + 0.01 * torch.randn(2, 16, generator=generator)
        picked.append(compare.optimism(tried, fresh, int(tried.argmax())))
        blind.append(compare.optimism(tried, fresh, 3))
    high, half = mean_and_ci95(torch.tensor(picked))
    assert high == pytest.approx(1.77, abs=3 * half)
    mean, half = mean_and_ci95(torch.tensor(blind))
    assert abs(mean) < 2 * half


def test_the_committed_table_says_what_the_lesson_says():
    story = json.loads(asset("selection_comparison.json").read_text(encoding="utf-8"))
    found = {(r["family"], r["seed"], r["classes"], r["episodes"]): r["points"] for r in story["rows"]}
    assert len(found) == len(story["rows"]) == len(compare.FAMILIES) * len(compare.PLAN) * 3
    for family in compare.FAMILIES:
        for classes, episodes in compare.PLAN:
            for who in ("test", "validation"):
                draws = [found[family, seed, classes, episodes]["45"][who] for seed in range(3)]
                assert [len(one) for one in draws] == [story["draws"]] * 3
                gap, half = mean_and_ci95(torch.tensor(draws).flatten())
                assert (gap > half) == (who == "test")
                assert who == "test" or gap > -half
