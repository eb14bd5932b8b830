"""Tasks of segmentation: a pure function of seed and index, whose masks, boxes and classes agree."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from fsl_course.data.scenes import boxes_of
from fsl_course.episodes import SceneEpisode, SceneSampler
from tests.conftest import toy_images

TOYS = toy_images(12, 12)


def test_an_episode_is_a_pure_function_of_seed_and_index():
    sampler = SceneSampler(TOYS, 2, 3, seed=5)
    batch = sampler.batch(254, 4)  # across two blocks
    again = SceneSampler(TOYS, 2, 3, seed=5)
    for number, episode in enumerate(batch):
        for field in fields(SceneEpisode):
            if (value := getattr(episode, field.name)) is not None:
                assert torch.equal(value, getattr(again[254 + number], field.name)), field.name
    assert not torch.equal(batch.query_x, SceneSampler(TOYS, 2, 3, seed=6).batch(254, 4).query_x)


def test_shapes_and_kinds():
    episode = SceneSampler(TOYS, 2, 3)[0]
    assert (episode.support_x.shape, episode.support_y.shape) == ((2, 1, 64, 64), (2, 64, 64))
    assert (episode.query_x.shape, episode.query_y.shape, episode.boxes.shape) == (
        (3, 1, 64, 64),
        (3, 64, 64),
        (3, 2, 4),
    )
    assert (episode.query_y.dtype, episode.n_way) == (torch.bool, 1)
    assert float(episode.query_x.min()) >= 0
    assert float(episode.query_x.max()) <= 1
    assert SceneSampler(TOYS, 1, 1, dtype=torch.float64)[0].query_x.dtype == torch.float64


def test_the_wanted_class_is_in_every_scene_and_sometimes_twice():
    batch = SceneSampler(TOYS, 1, 2).batch(0, 100)
    assert bool(batch.support_y.any((-2, -1)).all())
    assert bool(batch.query_y.any((-2, -1)).all())
    twice = (batch.boxes[:, :, 1, 0] >= 0).double().mean()
    assert 0.4 < float(twice) < 0.6
    assert len(batch.classes.unique()) == 12


def test_boxes_lie_around_the_mask():
    batch = SceneSampler(TOYS, 1, 2).batch(0, 50)
    there = batch.boxes[..., 0] >= 0
    assert bool(there[..., 0].all())
    for corner, join in ((0, "amin"), (1, "amin"), (2, "amax"), (3, "amax")):
        value = batch.boxes[..., corner].masked_fill(~there, 99 if join == "amin" else -1)
        assert torch.equal(getattr(value, join)(-1), boxes_of(batch.query_y)[..., corner])


def test_wanted_ink_is_ink_of_the_wanted_class():
    """With one class drawn in white and the others as blanks, the mask is what is white."""
    blank = toy_images(3, 12)
    images = torch.zeros_like(blank.images)
    images[1] = 255
    source = type(blank)(images, blank.counts, blank.class_names, blank.groups)
    sampler = SceneSampler(source, 1, 2)
    for episode in sampler.batch(0, 30):
        if int(episode.classes) == 1:
            assert bool((episode.query_x[:, 0][episode.query_y] > 0.3).all())
        else:
            assert not bool(episode.query_y.any())


def test_a_source_that_is_too_small_is_refused_in_words():
    with pytest.raises(ValueError, match="k_shot=5 and n_query=4 need two classes of 13 grey drawings"):
        SceneSampler(TOYS, 5, 4)
    with pytest.raises(ValueError, match="in 3 channel"):
        SceneSampler(toy_images(12, 12, channels=3))
    assert "2 marked, 3 to segment" in repr(SceneSampler(TOYS, 2, 3))
