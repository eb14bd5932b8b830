"""Tasks without labels: pure functions of (seed, index) that classes cannot touch, and warps by an explicit generator."""

import pytest
import torch

from fsl_course.data import ImageSet
from fsl_course.episodes import PictureSampler, warped
from tests.conftest import toy_images


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_task_holds_pictures_of_the_source_and_warped_copies_in_the_slots_of_their_pictures():
    source = toy_images(10, 6)
    task = PictureSampler(source, 8, 3)[5]
    assert task.support_x.shape == (8, 1, 28, 28)
    assert task.query_x.shape == (24, 1, 28, 28)
    assert task.support_y.tolist() == list(range(8))
    assert task.query_y.bincount().tolist() == [3] * 8
    assert task.query_y.tolist() != sorted(task.query_y.tolist())
    assert len(task.classes.unique()) == 8
    assert torch.equal(task.support_x, source.images.flatten(0, 1)[task.classes] / 255)
    same = PictureSampler(source, 8, 3, strength=0)[5]
    assert torch.equal(same.query_x, same.support_x[same.query_y])
    gap = (task.query_x - task.support_x[task.query_y]).flatten(1).norm(dim=1)
    assert gap.min() > 0.1


def test_a_task_is_a_pure_function_of_seed_and_index():
    source = toy_images(10, 6)
    sampler = PictureSampler(source, 8, 2, seed=3)
    batch = sampler.batch(2, 3)
    for index in (4, 2, 3):
        one, other = PictureSampler(source, 8, 2, seed=3)[index], batch[index - 2]
        for name in ("support_x", "query_x", "query_y", "classes"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    assert not torch.equal(sampler[0].classes, sampler[1].classes)
    assert not torch.equal(sampler[0].classes, PictureSampler(source, 8, 2, seed=4)[0].classes)


def test_the_classes_of_the_source_play_no_part():
    source = toy_images(10, 6)
    moved = source.images.flatten(0, 1)[torch.randperm(60, generator=generator())].unflatten(0, (20, 3))
    names = [str(k) for k in range(20)]
    other = ImageSet(moved, torch.full((20,), 3), names, names, name=source.name)
    mine, theirs = PictureSampler(source, 8, 2), PictureSampler(other, 8, 2)
    assert mine.key == theirs.key
    assert torch.equal(mine[7].query_x, theirs[7].query_x)
    changed = ImageSet(255 - moved, other.counts, names, names, name=source.name)
    assert PictureSampler(changed, 8, 2).key != mine.key


def test_places_without_a_picture_are_never_drawn():
    images = torch.zeros(3, 4, 1, 28, 28, dtype=torch.uint8)
    images[0, 0], images[1, :2], images[2] = 10, 20, 30
    names = ["a", "b", "c"]
    sampler = PictureSampler(ImageSet(images, torch.tensor([1, 2, 4]), names, names), 7, 1)
    assert sorted(sampler[0].classes.tolist()) == [0, 4, 5, 8, 9, 10, 11]
    with pytest.raises(ValueError, match="n_way=8 needs as many pictures; images has 7"):
        PictureSampler(sampler.source, 8, 1)


def test_warps_come_from_the_generator_and_keep_what_they_must():
    pictures = toy_images(4, 5).images.flatten(0, 1).double() / 255
    before = torch.get_rng_state()
    first, again, other = (warped(pictures, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert (first.dtype, first.shape) == (torch.float64, pictures.shape)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(warped(pictures, generator(), 0), pictures)
    gaps = [float((warped(pictures, generator(), s) - pictures).norm()) for s in (0.01, 0.2, 1.0)]
    assert gaps[0] < gaps[1] < gaps[2]
    square = torch.zeros(64, 1, 28, 28)
    square[..., 8:20, 8:20] = 1
    ink = warped(square, generator(3)).sum((1, 2))  # [64, 28], by column
    centre = (ink * torch.arange(28)).sum(1) / ink.sum(1)
    assert abs(float(centre.mean()) - 13.5) < 0.6  # no direction is preferred
    assert float(centre.std()) > 0.5
