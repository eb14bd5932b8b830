"""Descriptions of classes: they belong to the right class, travel with it, and say what is true."""

from dataclasses import replace

import pytest
import torch

from fsl_course.data import load_glyphs, load_icons, rotations_as_classes
from fsl_course.data.attributes import described, load_attributes, misdescribed
from fsl_course.episodes import EpisodeSampler
from fsl_course.inner_loop.task_batches import tensors_of
from tests.conftest import toy_images


@pytest.fixture(scope="module")
def glyphs():
    return described(load_glyphs())


def test_every_class_has_a_description_and_letters_zeros_and_ones(glyphs):
    values, classes, names = load_attributes("glyphs")
    assert classes == glyphs.class_names
    assert torch.equal(values, glyphs.attributes)
    assert set(values.unique().tolist()) == {0.0, 1.0}
    assert len(names) == len(set(names)) == values.shape[1] >= 12
    share = glyphs.split("train").attributes.mean(0)
    assert share.min() > 0.07
    assert share.max() < 0.93
    icons = described(load_icons())
    assert icons.attributes.shape == (300, 64)
    assert icons.attributes.isfinite().all()


def test_descriptions_say_what_is_true_of_letters_that_everybody_knows(glyphs):
    names = load_attributes("glyphs")[2]

    def words(letter: str) -> set[str]:
        row = glyphs.attributes[glyphs.class_names.index(f"latin capital letter {letter}")]
        return {name for name, value in zip(names, row.tolist(), strict=True) if value}

    assert {"left and right alike", "straight", "mostly upright lines", "capital", "three free ends or more"} <= words(
        "h"
    )
    assert {"has a loop", "free end bottom left"} <= words("p")
    assert "has a loop" not in words("c")
    assert {"much slants", "strokes touch or cross", "left and right alike"} <= words("x")
    assert "name begins with a vowel" in words("u")
    assert "left and right alike" not in words("f")


def test_icons_with_kindred_names_have_kindred_vectors():
    icons = described(load_icons())
    unit = torch.nn.functional.normalize(icons.attributes, dim=1)
    place = {name: i for i, name in enumerate(icons.class_names)}
    near = {w: [icons.class_names[i] for i in (unit @ unit[place[w]]).topk(4).indices] for w in ("clock", "cloud rain")}
    assert "alarm clock" in near["clock"]
    assert "cloud snow" in near["cloud rain"]


def test_they_travel_with_classes_and_into_episodes(glyphs):
    row = glyphs.class_names.index("thai character ko kai")
    test = glyphs.split("test")
    assert torch.equal(test.attributes[test.class_names.index("thai character ko kai")], glyphs.attributes[row])
    assert torch.equal(glyphs.select([row, 3]).to("cpu").attributes, glyphs.attributes[[row, 3]])
    batch = EpisodeSampler(test, 4, 1, 2).batch(0, 3)
    assert torch.equal(batch.attributes, test.attributes[batch.classes])
    assert torch.equal(batch[1].attributes, test.attributes[batch[1].classes])
    assert EpisodeSampler(test, 4, 1, 2, dtype=torch.float64)[0].attributes.dtype == torch.float64
    assert EpisodeSampler(load_glyphs(), 4, 1, 2)[0].attributes is None
    plain = EpisodeSampler(load_glyphs().split("test"), 4, 1, 2)
    assert torch.equal(plain.batch(0, 3).query_x, batch.query_x)
    assert rotations_as_classes(glyphs.select([0, 1])).attributes is None


def test_shuffling_moves_descriptions_and_nothing_else(glyphs):
    wrong = misdescribed(glyphs, seed=1)
    assert torch.equal(wrong.images, glyphs.images)
    assert torch.equal(wrong.attributes.sum(0), glyphs.attributes.sum(0))
    assert (wrong.attributes != glyphs.attributes).any(1).float().mean() > 0.9
    assert torch.equal(misdescribed(glyphs, seed=1).attributes, wrong.attributes)


def test_what_cannot_be_is_explained(glyphs):
    with pytest.raises(ValueError, match="classes of glyphs and icons; got 'toy'"):
        described(toy_images())
    with pytest.raises(ValueError, match="without a description, such as 'latin capital letter a @0'"):
        described(rotations_as_classes(load_glyphs()))
    with pytest.raises(ValueError, match="no descriptions to shuffle"):
        misdescribed(toy_images())
    with pytest.raises(ValueError, match=r"attributes must be \[2, A\]; got \[3, 4\]"):
        replace(toy_images(2), attributes=torch.zeros(3, 4))


def test_methods_with_an_inner_loop_do_not_see_them(glyphs):
    batch = EpisodeSampler(glyphs, 4, 1, 2).batch(0, 2)
    assert len(tensors_of(batch)) == 5
    assert not any(tensor is batch.attributes for tensor in tensors_of(batch))
