import math
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsl_course.data import ImageSet
from fsl_course.episodes import BLOCK, Episode, EpisodeSampler, SinusoidSampler
from tests.conftest import toy_images


def marked(classes: int, drawings: int, counts: list[int] | None = None, groups: list[str] | None = None) -> ImageSet:
    """Every picture tells who it is: pixel 0 holds its class, pixel 1 its drawing."""
    images = torch.zeros(classes, drawings, 1, 1, 2, dtype=torch.uint8)
    images[..., 0] = torch.arange(classes)[:, None, None, None]
    images[..., 1] = torch.arange(drawings)[None, :, None, None]
    return ImageSet(
        images,
        torch.tensor(counts or [drawings] * classes),
        [f"c{i}" for i in range(classes)],
        groups or ["g"] * classes,
        name="marked",
    )


def identity(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures [B, 1, 1, 2] -> (class, drawing) [B, 2]."""
    return (pictures.flatten(1) * 255).round().long()


sizes = {
    "n_way": st.integers(1, 6),
    "k_shot": st.integers(1, 4),
    "n_query": st.integers(1, 4),
    "seed": st.integers(0, 2**40),
    "index": st.integers(0, 3 * BLOCK),
    "spare": st.integers(0, 3),
}


@settings(max_examples=60, deadline=None)
@given(**sizes)
def test_every_episode_is_balanced_disjoint_and_true_to_its_classes(n_way, k_shot, n_query, seed, index, spare):
    source = marked(n_way + spare, k_shot + n_query + spare)
    episode = EpisodeSampler(source, n_way, k_shot, n_query, seed=seed)[index]
    assert episode.classes.unique().numel() == n_way == episode.n_way
    assert torch.equal(episode.support_y.bincount(minlength=n_way), torch.full((n_way,), k_shot))
    assert torch.equal(episode.query_y.bincount(minlength=n_way), torch.full((n_way,), n_query))
    support, query = identity(episode.support_x), identity(episode.query_x)
    assert torch.equal(support[:, 0], episode.classes[episode.support_y])
    assert torch.equal(query[:, 0], episode.classes[episode.query_y])
    everything = torch.cat([support, query])
    assert len(everything.unique(dim=0)) == n_way * (k_shot + n_query)  # no drawing twice


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**40), start=st.integers(0, 2 * BLOCK), tasks=st.integers(1, 40))
def test_a_batch_holds_exactly_its_episodes_whatever_came_before(seed, start, tasks):
    source = marked(7, 6)
    sampler = EpisodeSampler(source, 3, 1, 2, seed=seed)
    batch = sampler.batch(start, tasks)
    assert len(batch) == tasks
    for offset in {0, tasks // 2, tasks - 1}:
        alone = EpisodeSampler(source, 3, 1, 2, seed=seed)[start + offset]
        for field in ("support_x", "support_y", "query_x", "query_y", "classes"):
            assert torch.equal(getattr(batch, field)[offset], getattr(alone, field))


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(3, 9), min_size=3, max_size=6), seed=st.integers(0, 1000))
def test_padding_of_uneven_classes_is_never_sampled(counts, seed):
    sampler = EpisodeSampler(marked(len(counts), 9, counts), 3, 1, 2, seed=seed)
    batch = sampler.batch(0, 30)
    seen = identity(torch.cat([batch.support_x, batch.query_x], dim=1).flatten(0, 1))
    assert bool((seen[:, 1] < torch.tensor(counts)[seen[:, 0]]).all())


def test_slots_classes_drawings_and_order_are_uniform():
    batch = EpisodeSampler(marked(5, 4), 5, 1, 3, seed=3).batch(0, 4000)
    share = torch.stack([(batch.classes == c).double().mean(0) for c in range(5)])
    assert (
        share - 0.2
    ).abs().max() < 0.03  # a fixed class-to-slot map would give 0 and 1; 0.03 is over 4 standard errors
    drawing = identity(batch.support_x.flatten(0, 1))[:, 1].bincount() / 20_000
    assert (drawing - 0.25).abs().max() < 0.02
    first = batch.query_y[:, 0].bincount(minlength=5) / 4000
    assert (first - 0.2).abs().max() < 0.03  # queries do not come sorted by slot
    assert (batch.support_y[:, 0].bincount(minlength=5) / 4000 - 0.2).abs().max() < 0.03


def test_who_knows_only_class_ids_scores_chance():
    batch = EpisodeSampler(marked(20, 4), 5, 1, 3, seed=5).batch(0, 2000)
    usual = (
        batch.classes.argsort(1).argsort(1)
    ).double()  # rank of each class id among the episode's: the best fixed guess
    right = torch.stack([(usual[:, k] == k).double().mean() for k in range(5)]).mean()
    assert abs(float(right) - 0.2) < 0.02


def test_within_group_draws_one_group_and_large_groups_equally_often():
    groups = ["small"] * 2 + ["middle"] * 4 + ["large"] * 10
    sampler = EpisodeSampler(marked(16, 4, groups=groups), 4, 1, 1, within_group=True)  # "middle" just fits
    classes = sampler.batch(0, 3000).classes
    names = [[groups[c] for c in row] for row in classes.tolist()]
    assert all(len(set(row)) == 1 for row in names)
    share = sum(row[0] == "middle" for row in names) / 3000
    assert {row[0] for row in names} == {"middle", "large"}
    assert abs(share - 0.5) < 0.04


def test_seeds_and_indices_give_different_episodes():
    source = marked(50, 20)
    a, b = EpisodeSampler(source, 5, 1, 1, seed=0), EpisodeSampler(source, 5, 1, 1, seed=1)
    assert not torch.equal(a.batch(0, 50).classes, b.batch(0, 50).classes)
    assert len(a.batch(0, 300).classes.unique(dim=0)) > 290
    assert not torch.equal(a[0].classes, a[BLOCK].classes)  # neighbouring blocks do not repeat


def test_large_seeds_and_indices_are_streams_of_their_own():
    source = marked(50, 20)
    small, large = EpisodeSampler(source, 5, 1, 1), EpisodeSampler(source, 5, 1, 1, seed=2**32)
    assert not torch.equal(large.batch(0, 50).classes, small.batch(BLOCK, 50).classes)
    huge = EpisodeSampler(source, 5, 1, 1, seed=2**63)
    assert torch.equal(huge[2**40].support_x, EpisodeSampler(source, 5, 1, 1, seed=2**63)[2**40].support_x)
    assert not torch.equal(huge.batch(2**40, 50).classes, huge.batch(0, 50).classes)


def test_threads_that_share_a_sampler_get_the_right_episodes():
    shared, wrong = EpisodeSampler(marked(20, 4), 5, 1, 1), []
    right = [EpisodeSampler(marked(20, 4), 5, 1, 1)[BLOCK * i].classes for i in range(4)]

    def read(first: int) -> None:
        for i in range(first, first + 200):
            if not torch.equal(shared[BLOCK * (i % 4)].classes, right[i % 4]):
                wrong.append(i)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert wrong == []


def test_the_key_tells_sources_of_one_name_and_ranges_apart(toys):
    keys = {EpisodeSampler(toys.select(rows), 3, 1, 2).key for rows in (range(6), range(6, 12), range(5, -1, -1))}
    assert len(keys) == 3
    assert EpisodeSampler(toys, 3, 1, 2).key == EpisodeSampler(toy_images(), 3, 1, 2, dtype=torch.float64).key
    assert SinusoidSampler(amplitude=(1, 1)).key != SinusoidSampler(amplitude=(5, 5)).key


def test_pictures_are_floats_in_0_1_and_float64_agrees_with_float32(toys):
    low, high = EpisodeSampler(toys, 3, 1, 2), EpisodeSampler(toys, 3, 1, 2, dtype=torch.float64)
    assert low[0].support_x.dtype == torch.float32
    assert high[0].support_x.dtype == torch.float64
    assert low[0].query_x.shape == (6, 1, 28, 28)
    assert 0 <= float(low[0].query_x.min()) < float(low[0].query_x.max()) <= 1
    assert torch.allclose(low[0].query_x.double(), high[0].query_x, atol=1e-7)
    assert low[0].to(torch.float64).support_y.dtype == torch.int64
    position = low.layout(0, 1).support[0, 0]
    assert torch.equal(low[0].support_x[0], toys.images.flatten(0, 1)[position].float() / 255)


def test_stacked_and_single_episodes_know_which_they_are(toys):
    sampler = EpisodeSampler(toys, 3, 1, 2)
    batch = sampler.batch(0, 4)
    assert batch.stacked
    assert [e.n_way for e in batch] == [3] * 4
    one = batch[0]
    first = one.support_y == 0  # n_way is read off the classes, not off the labels that happen to be there
    assert Episode(one.support_x[first], one.support_y[first], one.query_x, one.query_y, one.classes).n_way == 3
    with pytest.raises(IndexError, match="task 4 of 4"):
        batch[4]
    with pytest.raises(TypeError, match="single task"):
        len(sampler[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_way": 13}, "13-way episode needs 13 classes; toy has 12. Take n_way <= 12"),
        ({"k_shot": 5, "n_query": 6}, "need 11 drawings of every class.*'class 0' has 8.*at most n_query=3"),
        ({"k_shot": 8}, "k_shot \\+ n_query <= 8 fits"),
        ({"within_group": True}, "needs a group of at least 5 classes; the largest of the 3 groups of toy has 4"),
        ({"n_way": 0}, "n_way must be a whole number of at least 1; got 0"),
        ({"k_shot": 1.5}, "k_shot must be a whole number"),
        ({"n_query": True}, "n_query must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ({"dtype": torch.uint8}, "floating-point"),
    ],
)
def test_errors_say_what_was_asked_what_there_is_and_what_fits(toys, arguments, message):
    with pytest.raises(ValueError, match=message):
        EpisodeSampler(toys, **({"n_way": 5, "k_shot": 1, "n_query": 3} | arguments))


@pytest.mark.parametrize(("start", "tasks"), [(-1, 1), (0, 0)])
def test_a_batch_outside_the_episodes_is_refused(toys, start, tasks):
    for sampler in (EpisodeSampler(toys, 2, 1, 1), SinusoidSampler()):
        with pytest.raises(ValueError, match="start >= 0 and tasks >= 1"):
            sampler.batch(start, tasks)
        with pytest.raises(TypeError, match="whole numbers; got start=1.5"):
            sampler[1.5]


def test_sinusoids_are_the_curves_they_say_and_stay_in_range():
    sampler = SinusoidSampler(10, 5, seed=2, dtype=torch.float64)
    batch, (amplitude, phase) = sampler.batch(0, 500), sampler.curves(0, 500)
    assert batch.support_x.shape == (500, 10, 1)
    assert batch.query_y.shape == (500, 5, 1)
    assert batch.classes.shape == (500, 0)
    expected = amplitude[:, None, None] * torch.sin(batch.query_x - phase[:, None, None])
    assert torch.allclose(batch.query_y, expected)
    assert 0.1 <= amplitude.min() < 0.3 < 4.8 < amplitude.max() <= 5
    assert 0 <= phase.min() < 0.1 < math.pi - 0.1 < phase.max() <= math.pi
    assert batch.support_x.abs().max() <= 5
    alone = sampler[300]
    assert isinstance(alone, Episode)
    assert torch.equal(alone.support_y, batch.support_y[300])


def test_the_mean_sine_curve_is_a_scaled_cosine_not_zero():
    """E[a sin(x - p)] over p in [0, pi] is -(2/pi) E[a] cos(x)."""
    sampler = SinusoidSampler(1, 1, dtype=torch.float64)
    amplitude, phase = sampler.curves(0, 40_000)
    for x in (-2.0, 0.0, 1.0):
        assert float((amplitude * torch.sin(x - phase)).mean()) == pytest.approx(
            -2 / math.pi * 2.55 * math.cos(x), abs=0.05
        )


def test_sinusoid_ranges_are_checked():
    with pytest.raises(ValueError, match="amplitude must be a range"):
        SinusoidSampler(amplitude=(5, 1))


def test_toy_images_are_what_other_tests_think():
    assert len(toy_images().split("test")) == 3


def test_a_sampler_is_endless_and_says_so(toys):
    for sampler in (EpisodeSampler(toys, 2, 1, 1), SinusoidSampler()):
        with pytest.raises(TypeError, match="not iterable"):
            iter(sampler)


@pytest.mark.parametrize("source", [None, "glyphs", torch.zeros(3, 2, 1, 28, 28)])
def test_a_source_that_is_no_image_set_is_explained(source):
    with pytest.raises(TypeError, match=r"source must be an ImageSet, such as load_glyphs\(\)"):
        EpisodeSampler(source, 2, 1, 1)


def test_a_dtype_by_its_name_is_explained(toys):
    for make in (lambda dtype: EpisodeSampler(toys, 2, 1, 1, dtype=dtype), lambda dtype: SinusoidSampler(dtype=dtype)):
        with pytest.raises(TypeError, match="dtype must be a type of PyTorch such as torch.float32; got 'float32'"):
            make("float32")
        with pytest.raises(ValueError, match="dtype must be a floating-point type"):
            make(torch.int64)


def test_more_episodes_than_memory_holds_are_refused_at_once(toys):
    for sampler in (EpisodeSampler(toys, 2, 1, 1), SinusoidSampler()):
        with pytest.raises(ValueError, match="at most 1000000 episodes can be asked for at once; got 1000000000"):
            sampler.batch(0, 10**9)
    with pytest.raises(ValueError, match="1000000 episodes hold 75 GB of pictures: ask for fewer at once"):
        EpisodeSampler(toys, 4, 1, 5).batch(0, 10**6)
