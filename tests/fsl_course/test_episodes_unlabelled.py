"""Episodes with pictures that nobody has named: who is drawn, who is not, and what stays the same."""

import pytest
import torch

from fsl_course.data import ImageSet, load_glyphs
from fsl_course.episodes import EpisodeSampler
from fsl_course.inner_loop.task_batches import tensors_of


@pytest.fixture(scope="module")
def glyphs() -> ImageSet:
    return load_glyphs().split("train")


def sampler(source: ImageSet, **more: int) -> EpisodeSampler:
    return EpisodeSampler(source, 4, 2, 3, seed=5, **more)


def test_without_unlabelled_pictures_there_are_none(glyphs: ImageSet):
    episodes = sampler(glyphs).batch(0, 3)
    assert episodes.unlabelled_x is None
    assert episodes[1].unlabelled_x is None
    assert episodes.to(torch.float64).unlabelled_x is None
    assert len(tensors_of(episodes)) == 5


def test_shapes_single_and_stacked(glyphs: ImageSet):
    drawn = sampler(glyphs, n_unlabelled=3, n_distractors=2)
    episodes = drawn.batch(7, 2)
    assert episodes.unlabelled_x.shape == (2, (4 + 2) * 3, 1, 28, 28)
    assert episodes.unlabelled_x.dtype == torch.float32
    assert torch.equal(drawn[8].unlabelled_x, episodes[1].unlabelled_x)
    assert episodes.to(torch.float64).unlabelled_x.dtype == torch.float64
    assert len(tensors_of(episodes)) == 6


def test_support_and_query_stay_the_same(glyphs: ImageSet):
    plain = sampler(glyphs).batch(0, 40)
    for more in ({"n_unlabelled": 3}, {"n_unlabelled": 3, "n_distractors": 2}):
        other = sampler(glyphs, **more).batch(0, 40)
        for name in ("support_x", "support_y", "query_x", "query_y", "classes"):
            assert torch.equal(getattr(plain, name), getattr(other, name)), (name, more)


def test_no_drawing_appears_twice_in_an_episode(glyphs: ImageSet):
    layout = sampler(glyphs, n_unlabelled=3, n_distractors=2).layout(0, 60)
    everything = torch.cat([layout.support, layout.query, layout.unlabelled], dim=1)
    assert all(len(set(row)) == len(row) for row in everything.tolist())


def test_the_truth_about_unlabelled_pictures(glyphs: ImageSet):
    drawn = sampler(glyphs, n_unlabelled=3, n_distractors=2)
    layout = drawn.layout(0, 60)
    class_of = layout.unlabelled // glyphs.images.shape[1]
    named = layout.unlabelled_y >= 0
    assert torch.equal(class_of[named], layout.classes.gather(1, layout.unlabelled_y.clamp_min(0))[named])
    for classes, own, truth in zip(
        class_of.tolist(), layout.classes.tolist(), layout.unlabelled_y.tolist(), strict=True
    ):
        assert sorted(truth) == sorted([-1] * 6 + [0, 1, 2, 3] * 3)
        strangers = [c for c, slot in zip(classes, truth, strict=True) if slot == -1]
        assert not set(strangers) & set(own)
        assert sorted(map(strangers.count, set(strangers))) == [3, 3]
    # in random order: the first of them is a distractor in about a third of the episodes
    assert 0.1 < (layout.unlabelled_y[:, 0] == -1).double().mean() < 0.6


def test_distractors_come_from_the_group_too(glyphs: ImageSet):
    drawn = EpisodeSampler(glyphs, 3, 1, 1, within_group=True, n_unlabelled=2, n_distractors=2)
    layout = drawn.layout(0, 50)
    group = [sorted(set(glyphs.groups)).index(g) for g in glyphs.groups]
    groups = torch.tensor(group)[torch.cat([layout.support, layout.unlabelled], 1) // glyphs.images.shape[1]]
    assert bool((groups == groups[:, :1]).all())


def test_short_classes_never_give_a_drawing_that_is_not_there(glyphs: ImageSet):
    counts = torch.full_like(glyphs.counts, 8)
    uneven = ImageSet(glyphs.images, counts, glyphs.class_names, glyphs.groups)
    layout = sampler(uneven, n_unlabelled=3, n_distractors=2).layout(0, 60)
    everything = torch.cat([layout.support, layout.query, layout.unlabelled], dim=1)
    assert int((everything % glyphs.images.shape[1]).max()) == 7


def test_the_key_names_them_and_plain_keys_are_as_before(glyphs: ImageSet):
    assert "unlabelled" not in sampler(glyphs).key
    assert "3 unlabelled per class, 2 distractor classes" in sampler(glyphs, n_unlabelled=3, n_distractors=2).key


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"n_unlabelled": -1}, "n_unlabelled must be a whole number of at least 0; got -1"),
        ({"n_distractors": 2}, "n_distractors=2 classes add n_unlabelled pictures each, and n_unlabelled is 0"),
        ({"n_unlabelled": 1, "n_distractors": 10_000}, "and 10000 classes of distractors; .* Take fewer distractors"),
        ({"n_unlabelled": 900}, "k_shot=2, n_query=3 and n_unlabelled=900 need 905 drawings of every class"),
    ],
)
def test_errors_say_what_was_given(glyphs: ImageSet, more: dict, words: str):
    with pytest.raises(ValueError, match=words):
        sampler(glyphs, **more)
