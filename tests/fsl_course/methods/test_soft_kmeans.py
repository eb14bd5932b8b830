"""Soft k-means: by hand, against a second implementation by loops, its laws, and that unlabelled pictures help."""

import math

import pytest
import scipy.stats
import torch

from fsl_course.data import load_glyphs
from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import compare, evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.soft_kmeans import WITH, Mask, SoftKMeans, refined, shares, statistics
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import card, pretrained
from tests.conftest import settled, toy_images
from tests.fsl_course.methods.laws import evaluating_twice_changes_nothing, judges_each_query_alone


def rows(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def episode() -> Episode:
    """4-way 2-shot in float64, with 3 unlabelled pictures of each class and of two others."""
    drawn = EpisodeSampler(toy_images(16, 12), 4, 2, 3, n_unlabelled=3, n_distractors=2, dtype=torch.float64)
    return drawn[0]


@pytest.fixture(params=WITH)
def learner(request: pytest.FixtureRequest, episode: Episode) -> SoftKMeans:
    torch.manual_seed(0)
    learner = SoftKMeans(conv4(8), request.param).double()
    if learner.mask is not None:
        torch.nn.init.normal_(learner.mask.last.weight, std=0.3)  # else all centres have the same border
    return settled(learner, episode)


@torch.no_grad()
def by_loops(learner: SoftKMeans, support, labels, query, n_way, unlabelled) -> torch.Tensor:
    """The method once more, number by number, without a function of the course."""
    centres = [
        sum(z for z, y in zip(support, labels, strict=True) if y == k) / (labels == k).sum() for k in range(n_way)
    ]
    distances = [[float(((u - c) ** 2).sum()) for c in centres] for u in unlabelled]
    borders = [(0.0, 0.0)] * n_way
    if learner.mask is not None:
        for k in range(n_way):
            column = [d[k] for d in distances]
            scaled = [d / (sum(column) / len(column)) for d in column]
            about = [min(scaled), max(scaled), scipy.stats.describe(scaled, ddof=0).variance,
                     scipy.stats.skew(scaled), scipy.stats.kurtosis(scaled, fisher=False)]  # fmt: skip
            hidden = [math.tanh(float(w @ torch.tensor(about).double() + b))
                      for w, b in zip(learner.mask.first.weight, learner.mask.first.bias, strict=True)]  # fmt: skip
            borders[k] = tuple(
                (learner.mask.last.weight @ torch.tensor(hidden).double() + learner.mask.last.bias).tolist()
            )
    moved = []
    for k, centre in enumerate(centres):
        total, count = centre * (labels == k).sum(), float((labels == k).sum())
        mean = sum(d[k] for d in distances) / len(distances)
        for u, d in zip(unlabelled, distances, strict=True):
            mass = [math.exp(-other) for other in d]
            if learner.distractors == "cluster":
                radius = math.exp(float(learner.log_radius))
                mass.append(math.exp(-float((u**2).sum()) / radius**2) / radius)
            weight = mass[k] / sum(mass)
            if learner.mask is not None:
                beta, gamma = borders[k]
                weight *= 1 / (1 + math.exp(gamma * (d[k] / mean - beta)))
            total, count = total + weight * u, count + weight
        moved.append(total / count)
    return torch.stack([torch.stack([-((q - c) ** 2).sum() for c in moved]) for q in query])


@pytest.mark.parametrize("way", WITH)
def test_it_agrees_with_a_second_implementation(way):
    torch.manual_seed(1)
    learner = SoftKMeans(torch.nn.Identity(), way).double()
    if way == "cluster":
        learner.log_radius.data.fill_(0.4)
    if way == "mask":
        torch.nn.init.normal_(learner.mask.last.weight, std=0.3)
    labels = torch.tensor([2, 0, 1, 1, 0, 2, 1])
    args = 0.7 * rows(0, 7, 3), labels, 0.7 * rows(1, 5, 3), 3, 0.7 * rows(2, 6, 3)
    assert torch.allclose(learner.score(*args), by_loops(learner, *args), atol=1e-10)


def test_by_hand_on_a_line():
    """Centres 0 and 4; a picture at 2 is halved, one at 0 stays with the first: (0 + 0 + 1) / 2.5 and (4 + 1) / 1.5."""
    support, labels, unlabelled = torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1]), torch.tensor([[2.0], [0.0]])
    weights = shares(torch.tensor([[4.0, 4.0], [0.0, 16.0]]))
    assert torch.allclose(weights, torch.tensor([[0.5, 0.5], [1.0, 0.0]]), atol=1e-6)
    assert torch.allclose(refined(support, labels, unlabelled, weights, 2), torch.tensor([[0.4], [10 / 3]]), atol=1e-5)


def test_statistics_are_those_of_scipy_and_finite_for_a_single_picture():
    normalised = rows(3, 9, 2).abs()
    found = statistics(normalised)
    for k, column in enumerate(normalised.T.numpy()):
        wanted = [
            column.min(),
            column.max(),
            column.var(),
            scipy.stats.skew(column),
            scipy.stats.kurtosis(column, fisher=False),
        ]
        assert found[k].tolist() == pytest.approx(wanted, abs=1e-9)
    assert statistics(torch.ones(1, 2)).isfinite().all()
    assert Mask()(torch.zeros(3, 2)).isfinite().all()  # all pictures lie on the centres


def test_an_untrained_mask_cuts_at_half_the_mean_distance():
    distances = torch.tensor([[0.0], [1.0], [3.0], [4.0]])  # over their mean: 0, 0.5, 1.5, 2
    assert Mask()(distances)[:, 0].tolist() == pytest.approx(
        [1 / (1 + math.exp(10 * (d - 0.5))) for d in (0, 0.5, 1.5, 2)]
    )


def test_without_unlabelled_pictures_it_is_a_prototypical_network(learner, episode):
    plain = PrototypicalNetwork(learner.encoder)
    labels, n_way = episode.support_y, episode.n_way
    without = Episode(episode.support_x, labels, episode.query_x, episode.query_y, episode.classes)
    assert torch.equal(learner(without), plain(without))
    empty = Episode(*without._each(lambda t: t).__dict__.values())
    object.__setattr__(empty, "unlabelled_x", episode.unlabelled_x[:0])
    assert torch.allclose(learner(empty), plain(without), atol=1e-12)
    support, query = learner.embed(episode.support_x), learner.embed(episode.query_x)
    assert torch.equal(learner.score(support, labels, query, n_way), plain.score(support, labels, query, n_way))
    assert not torch.allclose(learner(episode), plain(episode), atol=1e-3)  # and with them it is another


def changed(episode: Episode, **parts: torch.Tensor) -> Episode:
    names = ("support_x", "support_y", "query_x", "query_y", "classes", "unlabelled_x")
    return Episode(**{name: parts.get(name, getattr(episode, name)) for name in names})


def test_laws_of_order_and_slots(learner, episode):
    logits, generator = learner(episode), torch.Generator().manual_seed(0)
    new_slot = torch.tensor([3, 0, 2, 1])
    moved = learner(changed(episode, support_y=new_slot[episode.support_y]))
    assert torch.allclose(moved[:, new_slot], logits, atol=1e-9)
    order = torch.randperm(8, generator=generator)
    shuffled = changed(episode, support_x=episode.support_x[order], support_y=episode.support_y[order])
    assert torch.allclose(learner(shuffled), logits, atol=1e-9)
    pool = changed(episode, unlabelled_x=episode.unlabelled_x[torch.randperm(18, generator=generator)])
    assert torch.allclose(learner(pool), logits, atol=1e-9)
    order = torch.randperm(12, generator=generator)
    assert torch.allclose(learner(changed(episode, query_x=episode.query_x[order])), logits[order], atol=1e-9)
    few = changed(episode, query_x=episode.query_x[:1], query_y=episode.query_y[:1])
    assert torch.allclose(learner(few), logits[:1], atol=1e-9)
    judges_each_query_alone(learner, changed(episode, unlabelled_x=None))


def test_stacked_tasks_equal_single_tasks_and_evaluate_agrees_with_forward(learner):
    drawn = EpisodeSampler(toy_images(16, 12), 4, 2, 3, n_unlabelled=3, n_distractors=2, dtype=torch.float64)
    batch = drawn.batch(0, 3)
    parts = (batch.support_x, batch.query_x, batch.unlabelled_x)
    support, query, unlabelled = (learner.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in parts)
    together = learner.score(support, batch.support_y, query, 4, unlabelled)
    assert torch.allclose(together, torch.stack([learner(e) for e in batch]), atol=1e-9)
    by_forward = [(learner(e).argmax(1) == e.query_y).double().mean() for e in drawn.batch(0, 20)]
    assert torch.equal(evaluate(learner, drawn, 20).per_episode, torch.stack(by_forward))
    evaluating_twice_changes_nothing(learner.float().train(), toy_images(), 4)


@pytest.mark.parametrize("way", WITH)
def test_gradient_agrees_with_finite_differences(way):
    torch.manual_seed(2)
    learner = SoftKMeans(torch.nn.Identity(), way).double()
    if way == "mask":
        torch.nn.init.normal_(learner.mask.last.weight, std=0.3)
    labels = torch.tensor([0, 1, 2, 0])
    inputs = [(0.7 * rows(seed, n, 3)).requires_grad_() for seed, n in ((4, 4), (5, 3), (6, 6))]

    def logits(support: torch.Tensor, query: torch.Tensor, unlabelled: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return learner.score(support, labels, query, 3, unlabelled)

    assert torch.autograd.gradcheck(logits, (*inputs, *learner.parameters()), atol=1e-6)


def test_a_mask_and_a_cluster_keep_a_stranger_out():
    centres = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    stranger, friend = torch.tensor([[-1.0, -1.0]]), torch.tensor([[3.0, 0.5]])
    pool = torch.cat([stranger, friend, friend.flip(1)])
    found = {way: SoftKMeans(torch.nn.Identity(), way).weights(pool, centres).sum(1) for way in WITH}
    assert torch.allclose(found["none"], torch.ones(3))
    for way in ("cluster", "mask"):
        assert found[way][0] < 0.01
        assert found[way][1:].min() > 0.8


def test_unlabelled_pictures_help_after_seconds_of_training():
    source = toy_images(80, 14, noise=300)
    torch.manual_seed(0)
    learner = SoftKMeans(conv4(16), "mask")
    train = EpisodeSampler(source.split("train"), 5, 1, 3, n_unlabelled=4, n_distractors=2)
    test = EpisodeSampler(source.split("test"), 5, 1, 3, seed=9, n_unlabelled=8, n_distractors=2)
    before = evaluate(learner, test, 60)
    fit(learner, train, steps=60, progress=False)
    after = evaluate(learner, test, 60)
    assert after.mean > before.mean + 0.1
    gain = compare(after, evaluate(PrototypicalNetwork(learner.encoder), test, 60))
    assert gain.mean > gain.ci95


def test_shipped_weights_reach_the_number_on_their_card():
    row = card("soft_kmeans", "glyphs")["test"][0]
    deal = {"n_unlabelled": row["unlabelled"], "n_distractors": row["distractors"]}
    sampler = EpisodeSampler(load_glyphs().split("test"), row["way"], row["shot"], row["query"], **deal)
    result = evaluate(pretrained("soft_kmeans", "glyphs"), sampler, 100)
    assert abs(result.mean - row["mean"]) < 2 * result.ci95


def test_wrong_settings_are_explained_and_evaluate_embeds_each_picture_once():
    with pytest.raises(ValueError, match="one of none, cluster, mask; got 'both'"):
        SoftKMeans(conv4(8), "both")
    assert isinstance(SoftKMeans(conv4(8)), ComparesEmbeddings)
