"""The comparison of domains behind lesson 23: its pictures, its learners, and the committed table."""

import json

import pytest
import torch

from fsl_course.data.assets import asset
from fsl_course.episodes import EpisodeSampler
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from tests.conftest import toy_images
from tools.results import compare_shift as compare


def test_digits_keep_twenty_pictures_of_each_class_out_of_the_episodes():
    source, others = compare.digits()
    assert source.images.shape[0] == 10
    assert others.shape == (200, 1, 28, 28)
    assert source.counts.tolist() == [158, 162, 157, 163, 161, 162, 161, 159, 154, 160]
    flat = source.images[0, : source.counts[0]].float().flatten(1) / 255
    assert float(torch.cdist(others[:20].flatten(1), flat).min()) > 0.02


def test_statistics_of_the_queries_are_transductive_and_those_of_the_support_are_not():
    torch.manual_seed(0)
    encoder, episode = conv4(4).eval(), EpisodeSampler(toy_images(), 5, 1, 3)[0]
    single = type(episode)(
        episode.support_x, episode.support_y, episode.query_x[:1], episode.query_y[:1], episode.classes
    )
    for queries, alone in ((False, True), (True, False)):
        learner = compare.FromSupport(encoder, queries).eval()
        assert learner.transductive is queries
        assert torch.allclose(learner(single)[0], learner(episode)[0], atol=1e-4) is alone


def test_normalised_rows_have_unit_length_around_the_mean():
    net = PrototypicalNetwork(conv4(4)).eval()
    rows = compare.Normalised(net, torch.ones(4)).embed(torch.rand(3, 1, 28, 28))
    assert torch.allclose(rows.norm(dim=1), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("label", compare.FITTED)
def test_a_fitted_row_is_judged_after_several_steps(label, monkeypatch):
    monkeypatch.setattr(compare, "STEPS", (0, 1))
    monkeypatch.setattr(compare, "N_QUERY", 2)
    found = compare.fitted(label, EpisodeSampler(toy_images(), 5, 1, 2), 2)
    assert found["steps"] == (0, 1)
    assert [len(column) for column in found["correct"]] == [2, 2]


def test_the_committed_table_is_whole():
    table = json.loads(asset("shift_comparison.json").read_text(encoding="utf-8"))
    rows = {(r["label"], r["seed"], r["domain"]) for r in table["rows"]}
    places = {domain for _, _, domain in rows}
    assert places == {"letters", "icons", "digits", "things", "omniglot"}
    assert len(rows) == len(table["rows"])
    near = (*compare.FITTED, *compare.HEADS, *compare.BEHIND, *compare.SMALL)
    for label in (*compare.SHIPPED, "simple_shot", "pixels", "random", *near):
        there = set(compare.NEAR_AND_FAR) if label in near else places
        assert {domain for name, _, domain in rows if name == label} == there
    assert all((label, seed, p) in rows for label in compare.TRAINED for seed in range(3) for p in places)
    assert all((label, s, p) in rows for label in compare.SMALL for s in range(3) for p in compare.NEAR_AND_FAR)


def test_encoders_of_the_rows_differ_as_their_labels_say():
    domain = compare.digits()
    weights = {}
    for label in ("heads, prototypical", "heads, transfer", "heads, means of the domain"):
        net = compare.changed(label, 0, domain, 1)
        weights[label] = next(net.parameters())[0, 0, 0, 0].item(), next(net.buffers())[0].item()
    own, other, means = weights.values()
    assert own[0] == means[0] != other[0]
    assert own[1] != means[1]
