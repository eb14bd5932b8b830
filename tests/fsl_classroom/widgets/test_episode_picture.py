"""The picture of an episode holds every drawing in its row, and marks support and repeated queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import ImageColor

from fsl_classroom.widgets._episode_picture import BETWEEN, CELL, LEFT, TOP, WIDEST, episode_picture
from fsl_course.episodes import EpisodeSampler
from fsl_course.figures import SLOTS
from tests.conftest import toy_images


def _cells(way: int, shot: int, query: int, channels: int = 1, again: bool = False) -> np.ndarray:
    """Returns the picture of an episode whose drawings of class c have the grey value 20 c everywhere, uint8 [rows, width, 3]."""
    source = toy_images(channels=channels)
    sampler = EpisodeSampler(source, way, shot, query)
    images = source.images.flatten(0, 1)
    grey = torch.arange(len(images)) // source.images.shape[1] * 20
    flat = grey.to(torch.uint8)[:, None, None, None].expand_as(images)
    return np.asarray(episode_picture(flat, sampler.layout(0, 1), torch.full((way * query,), again)))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_row_shows_the_class_of_its_slot(channels: int) -> None:
    picture = _cells(4, 2, 3, channels)
    assert picture.shape == (TOP + 4 * CELL, LEFT + 5 * CELL + BETWEEN + 2, 3)
    classes = EpisodeSampler(toy_images(channels=channels), 4, 2, 3).layout(0, 1).classes[0].tolist()
    for slot, c in enumerate(classes):
        middles = picture[TOP + slot * CELL + CELL // 2 - 4, LEFT + CELL // 2 - 4 :: CELL][:5]
        assert (middles == (255 - 20 * c if channels == 1 else 20 * c)).all()


def test_support_has_its_slots_colour_and_a_repeated_query_a_dashed_frame() -> None:
    plain, twice = _cells(3, 1, 2), _cells(3, 1, 2, again=True)
    for slot in range(3):
        assert tuple(plain[TOP + slot * CELL + 20, LEFT]) == ImageColor.getrgb(SLOTS[slot])
    first_query = np.s_[TOP : TOP + CELL - 8, LEFT + CELL + BETWEEN - 1]
    assert (plain[first_query] == ImageColor.getrgb("#CCCCCC")).all()
    black = (twice[first_query] == 0).all(1)
    assert 0.4 < black.mean() < 0.9
    support = np.s_[:, : LEFT + CELL]
    assert (plain[support] == twice[support]).all()


def test_many_columns_become_narrow() -> None:
    picture = _cells(2, 4, 4)
    assert picture.shape[1] <= LEFT + WIDEST + BETWEEN + 2
    source = toy_images(classes=2, drawings=40)
    layout = EpisodeSampler(source, 2, 20, 20).layout(0, 1)
    wide = episode_picture(source.images.flatten(0, 1), layout, torch.zeros(40, dtype=torch.bool))
    assert wide.width <= LEFT + WIDEST + BETWEEN + 2
