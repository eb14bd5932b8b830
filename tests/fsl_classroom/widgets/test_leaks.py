"""Leaky deals keep every label right and leak what their name says; the blind players find it."""

from __future__ import annotations

import pytest
import torch

from fsl_classroom.widgets._leaks import blind_players, deal
from fsl_course.data import ImageSet
from fsl_course.episodes import EpisodeSampler
from tests.conftest import toy_images


@pytest.mark.parametrize(("shot", "query"), [(1, 3), (3, 2)])
def test_repeat_puts_support_drawings_among_the_queries(toys: ImageSet, shot: int, query: int) -> None:
    fair = EpisodeSampler(toys, 4, shot, query).layout(0, 20)
    leaky = deal(fair, "repeat")
    again = (leaky.query[:, :, None] == leaky.support[:, None, :]).any(2)
    assert (again.sum(1) == 4 * min(shot, query)).all()
    classes = leaky.query // toys.images.shape[1]
    assert torch.equal(classes, leaky.classes.gather(1, leaky.query_y))  # every picture still has its own label
    assert torch.equal(leaky.query_y, fair.query_y)


@pytest.mark.parametrize("how", ["sorted", "in order"])
def test_sorted_deals_keep_labels_and_order_classes(toys: ImageSet, how: str) -> None:
    fair = EpisodeSampler(toys, 5, 2, 3).layout(0, 20)
    leaky = deal(fair, how)
    assert (leaky.classes.diff(dim=1) > 0).all()
    for rows, labels in ((leaky.support, leaky.support_y), (leaky.query, leaky.query_y)):
        assert torch.equal(rows // toys.images.shape[1], leaky.classes.gather(1, labels))
    in_order = bool((leaky.query_y.diff(dim=1) >= 0).all())
    assert in_order == (how == "in order")
    assert torch.equal(leaky.query.sort(1).values, fair.query.sort(1).values)  # the same drawings


def test_an_unknown_deal_is_an_error(toys: ImageSet) -> None:
    with pytest.raises(ValueError, match="how must be one of"):
        deal(EpisodeSampler(toys, 5, 1, 1).layout(0, 1), "unfair")


@pytest.mark.parametrize("within", [False, True])
def test_blind_players_find_their_leak_and_only_theirs(within: bool) -> None:
    source = toy_images(classes=40, groups=2)
    sampler = EpisodeSampler(source, 5, 1, 3, within_group=within)
    fair = sampler.layout(0, 256)
    by_id, by_row = blind_players(sampler, fair)
    assert abs(by_id - 0.2) < 0.04
    assert abs(by_row - 0.2) < 0.04
    by_id, by_row = blind_players(sampler, deal(fair, "sorted"))
    assert by_id > 0.4
    assert abs(by_row - 0.2) < 0.04
    by_id, by_row = blind_players(sampler, deal(fair, "in order"))
    assert by_id > 0.4
    assert by_row == 1.0
