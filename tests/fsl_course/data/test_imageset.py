"""The one form of every image source: its checks, its selections, its splits."""

import dataclasses

import numpy as np
import pytest
import torch

from fsl_course.data.imageset import SPLITS, ImageSet, rotations_as_classes, split_classes
from fsl_course.episodes import EpisodeSampler


def make(classes=6, drawings=3, channels=1, height=4, width=4, splits=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (classes, drawings, channels, height, width), generator=generator, dtype=torch.uint8)
    return ImageSet(
        images=images,
        counts=torch.arange(classes) % drawings + 1,
        class_names=[f"class{c:02d}" for c in range(classes)],
        groups=[f"group{c % 2}" for c in range(classes)],
        splits=splits,
        name="made",
    )


SIX = ["train", "val", "train", "test", "val", "train"]


def test_length_and_words():
    source = make()
    assert len(source) == 6
    assert repr(source) == "ImageSet(made: 6 classes in 2 groups, up to 3 drawings each, 1x4x4)"


def test_an_image_set_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().name = "other"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": torch.zeros(6, 3, 1, 4, 4)}, "images must be uint8.*got torch.float32"),
        (
            {"images": torch.zeros(6, 3, 4, 4, dtype=torch.uint8)},
            r"images must be uint8 \[C, n, c, H, W\].*\[6, 3, 4, 4\]",
        ),
        ({"counts": torch.ones(6)}, r"counts must be int64 \[6\]; got torch.float32"),
        ({"counts": torch.ones(5, dtype=torch.int64)}, r"counts must be int64 \[6\]"),
        ({"counts": torch.tensor([0, 1, 1, 1, 1, 1])}, r"counts must lie in 1..3.*got 0..1"),
        ({"counts": torch.tensor([4, 1, 1, 1, 1, 1])}, r"counts must lie in 1..3.*got 1..4"),
        ({"class_names": ["a"]}, "class_names must have one entry for each of the 6 classes; got 1"),
        ({"groups": ["a"] * 7}, "groups must have one entry.*got 7"),
        ({"splits": ["train"] * 5}, "splits must have one entry.*got 5"),
        ({"splits": ["train"] * 5 + ["valid"]}, "splits may only be train, val, test; got valid"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(make(), **change)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_select_takes_classes_in_the_order_asked_for(as_tensor):
    source = make(splits=SIX)
    rows = [4, 0, 3]
    chosen = source.select(torch.tensor(rows) if as_tensor else rows)
    assert torch.equal(chosen.images, source.images[rows])
    assert chosen.counts.tolist() == source.counts[rows].tolist()
    assert chosen.class_names == ["class04", "class00", "class03"]
    assert chosen.groups == ["group0", "group0", "group1"]
    assert chosen.splits == ["val", "train", "test"]


@pytest.mark.parametrize("row", [-1, 6])
def test_select_refuses_positions_outside(row):
    with pytest.raises(IndexError, match=r"positions must lie in 0..5; got"):
        make().select([0, row])


@pytest.mark.parametrize("mask", [[True] * 6, torch.ones(6, dtype=torch.bool), [0.7]])
def test_select_takes_no_mask_for_positions(mask):
    with pytest.raises(TypeError, match=r"class positions, whole numbers.*mask\.nonzero\(\)"):
        make().select(mask)


def test_select_of_nothing_is_an_empty_set():
    assert len(make().select([])) == 0


def test_the_splits_are_disjoint_and_together_everything():
    source = make(splits=SIX)
    parts = {name: source.split(name) for name in SPLITS}
    assert parts["train"].class_names == ["class00", "class02", "class05"]
    assert parts["val"].name == "made/val"
    assert sorted(name for part in parts.values() for name in part.class_names) == source.class_names


def test_split_says_what_is_wrong():
    with pytest.raises(ValueError, match="no split 'valid': choose one of train, val, test"):
        make(splits=SIX).split("valid")
    with pytest.raises(ValueError, match=r"made has no splits of its own: make them with split_classes"):
        make().split("train")
    with pytest.raises(ValueError, match="made has no class in split 'val': it holds test, train"):
        make(splits=["train", "test"] * 3).split("val")


def test_to_moves_the_pictures_and_keeps_the_rest():
    source = make(splits=SIX)
    moved = source.to("meta")
    assert moved.images.device.type == "meta"
    assert source.images.device.type == "cpu"
    assert moved.class_names == source.class_names
    assert moved.splits == source.splits


# --- rotations ---


def test_every_turn_is_a_class_of_its_own_in_the_split_and_group_of_its_class():
    source = make(splits=SIX)
    turned = rotations_as_classes(source)
    assert len(turned) == 24
    for k in range(6):
        for r in range(4):
            expected = np.rot90(source.images[k].numpy(), r, axes=(-2, -1))  # numpy turns counter-clockwise too
            assert np.array_equal(turned.images[4 * k + r].numpy(), expected)
            assert turned.counts[4 * k + r] == source.counts[k]
            assert turned.class_names[4 * k + r] == f"class{k:02d} @{90 * r}"
            assert turned.groups[4 * k + r] == source.groups[k]
            assert turned.splits[4 * k + r] == SIX[k]


def test_a_turn_is_the_same_for_all_drawings_of_a_class():
    picture = torch.zeros(1, 1, 1, 2, 2, dtype=torch.uint8)
    picture[..., 0, 0] = 255
    source = ImageSet(picture.expand(1, 5, 1, 2, 2).clone(), torch.tensor([5]), ["corner"], ["g"])
    turned = rotations_as_classes(source).images
    assert torch.equal(turned, turned[:, :1].expand_as(turned))
    assert turned[1, 0, 0].tolist() == [[0, 0], [255, 0]]  # a quarter turn to the left


def test_turning_leaves_the_source_alone_and_works_without_splits():
    source = make()
    before = source.images.clone()
    assert rotations_as_classes(source).splits is None
    assert torch.equal(source.images, before)


def test_pictures_that_are_not_square_cannot_be_turned():
    with pytest.raises(ValueError, match=r"only square pictures.*got 4x5"):
        rotations_as_classes(make(width=5))


# --- splits drawn at random ---


def test_split_classes_gives_the_fractions_asked_for():
    source = split_classes(make(classes=20), fractions=(0.5, 0.2, 0.3))
    assert [source.splits.count(name) for name in SPLITS] == [10, 4, 6]


def test_split_classes_is_a_function_of_the_seed():
    source = make(classes=30)
    assert split_classes(source, seed=3).splits == split_classes(source, seed=3).splits
    assert split_classes(source, seed=3).splits != split_classes(source, seed=4).splits


def test_split_classes_does_not_depend_on_the_order_of_the_classes():
    source = make(classes=30)
    other = source.select(torch.randperm(30, generator=torch.Generator().manual_seed(1)))
    where = [dict(zip(s.class_names, split_classes(s).splits, strict=True)) for s in (source, other)]
    assert where[0] == where[1]


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.2, 0.0)])
def test_split_classes_refuses_fractions_that_are_none(fractions):
    with pytest.raises(ValueError, match="fractions of train, val and test must be non-negative and sum to 1"):
        split_classes(make(), fractions=fractions)


def test_turns_may_be_the_groups_so_that_a_task_is_turned_as_a_whole():
    source = make(splits=SIX)
    turned = rotations_as_classes(source, turns_as_groups=True)
    assert turned.groups == ["@0", "@90", "@180", "@270"] * 6
    assert torch.equal(turned.images, rotations_as_classes(source).images)
    long = turned.select((turned.counts >= 2).nonzero().flatten().tolist())
    sampler = EpisodeSampler(long, 3, 1, 1, within_group=True)
    turns = [{long.groups[int(label)] for label in sampler[i].classes} for i in range(30)]
    assert all(len(turn) == 1 for turn in turns)
    assert set.union(*turns) == {"@0", "@90", "@180", "@270"}


def test_a_list_in_place_of_a_tensor_is_explained():
    images = torch.zeros(1, 2, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"counts must be a tensor; got list: take torch.as_tensor"):
        ImageSet(images, [2], ["a"], ["g"])
    with pytest.raises(TypeError, match="images must be a tensor; got ndarray"):
        ImageSet(images.numpy(), torch.tensor([2]), ["a"], ["g"])
