import pytest
import torch

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.baselines import Chance, PixelNearestNeighbour, baselines, random_conv4
from tests.conftest import permute_support, relabel, toy_images


@pytest.mark.parametrize(("metric", "winner"), [("euclidean", 0), ("cosine", 1)])
def test_nearest_pixels_by_hand(metric, winner):
    """Query (2, 2): (1, 2) of class 0 is nearer, (9, 9) of class 1 has the same direction."""
    pictures = torch.tensor([[1.0, 2.0], [9.0, 9.0], [-5.0, 0.0]]).reshape(3, 1, 1, 2)
    query = torch.tensor([[2.0, 2.0]]).reshape(1, 1, 1, 2)
    episode = Episode(pictures, torch.tensor([0, 1, 0]), query, torch.tensor([0]), torch.tensor([4, 7]))
    logits = PixelNearestNeighbour(metric)(episode)
    assert logits.shape == (1, 2)
    assert logits.argmax(1).item() == winner
    if metric == "euclidean":
        assert logits.tolist() == [[-1.0, -98.0]]  # the best row of class 0, not the mean of both


def test_nearest_pixels_equal_loops_over_stacked_tasks_with_unequal_shots():
    generator = torch.Generator().manual_seed(0)
    support, query = torch.randn(2, 6, 4, generator=generator), torch.randn(2, 5, 4, generator=generator)
    labels = torch.tensor([[0, 2, 1, 2, 2, 0], [1, 1, 0, 2, 0, 1]])
    logits = PixelNearestNeighbour("euclidean").score(support, labels, query, 3)
    for t in range(2):
        for m in range(5):
            for k in range(3):
                nearest = (support[t][labels[t] == k] - query[t, m]).square().sum(1).min()
                assert logits[t, m, k].item() == pytest.approx(-nearest.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["pixels, Euclidean", "pixels, cosine", "random Conv4"])
def test_laws(task, name):
    learner = baselines()[name]
    logits, new_slot = learner(task), torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(learner(relabel(task, new_slot))[:, new_slot], logits, atol=1e-4)
    assert torch.allclose(learner(permute_support(task, torch.arange(9, -1, -1))), logits, atol=1e-4)


def test_chance_is_one_in_n_and_repeats_itself(toys):
    for way in (2, 5):
        sampler = EpisodeSampler(toys, way, 1, 3)
        result = evaluate(Chance(), sampler, 1500)
        assert abs(result.mean - 1 / way) < 2 * result.ci95
        assert torch.equal(result.per_episode, evaluate(Chance(), sampler, 1500).per_episode)


def test_random_features_depend_on_the_seed_only_and_leave_the_global_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, two, other = random_conv4(3, 8), random_conv4(3, 8), random_conv4(4, 8)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_pixels_beat_chance_where_classes_look_alike():
    sampler = EpisodeSampler(toy_images(noise=30), 5, 1, 3)
    assert evaluate(PixelNearestNeighbour(), sampler, 50).mean > 0.9


def test_wrong_metric_is_explained():
    with pytest.raises(ValueError, match='"euclidean" or "cosine"'):
        PixelNearestNeighbour("manhattan")


def test_random_features_come_in_evaluation_mode_and_guesses_differ_between_episodes(toys):
    assert not any(module.training for module in random_conv4(0, 8).modules())
    sampler = EpisodeSampler(toys, 5, 1, 3)
    first, second = (Chance()(sampler[index]) for index in (0, 1))
    assert not torch.equal(first, second)
