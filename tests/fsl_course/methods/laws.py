"""Laws that every method which compares embeddings keeps; each function asserts one."""

from __future__ import annotations

import torch

from fsl_course.data import ImageSet
from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import FewShotLearner
from tests.conftest import permute_support, relabel


def judges_each_query_alone(learner: FewShotLearner, episode: Episode) -> None:
    """In evaluation mode; in training mode it does not, where batch norm sees all queries (not asserted here)."""
    other = other_queries(episode)
    single = Episode(episode.support_x, episode.support_y, other.query_x[:1], episode.query_y[:1], episode.classes)
    assert torch.allclose(learner(episode)[0], learner(other)[0], atol=1e-12)
    assert torch.allclose(learner(episode)[0], learner(single)[0], atol=1e-12)


def order_and_slots_do_not_matter(learner: FewShotLearner, episode: Episode) -> None:
    """Relabelling the five slots permutes the logits; the order of the ten support rows changes nothing."""
    logits, new_slot = learner(episode), torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(learner(relabel(episode, new_slot))[:, new_slot], logits, atol=1e-10)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(episode, order)), logits, atol=1e-10)


def stacked_tasks_equal_single_tasks(learner: FewShotLearner, source: ImageSet, atol: float) -> None:
    """`score` of stacked tasks gives what forward gives task by task, in float64."""
    batch = EpisodeSampler(source, 4, 2, 3, dtype=torch.float64).batch(0, 3)
    single = torch.stack([learner(e) for e in batch])
    embedded = [learner.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in (batch.support_x, batch.query_x)]
    assert torch.allclose(single, learner.score(embedded[0], batch.support_y, embedded[1], 4), atol=atol)


def other_queries(episode: Episode) -> Episode:
    """The same episode with every query but the first one changed."""
    changed = episode.query_x.clone()
    changed[1:] = changed[1:].flip(0) * 0.3
    return Episode(episode.support_x, episode.support_y, changed, episode.query_y, episode.classes)


def evaluating_twice_changes_nothing(learner: FewShotLearner, source: ImageSet, episodes: int) -> None:
    """evaluate gives the same twice, leaves mode, weights and running statistics alone, and agrees with forward."""
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    sampler = EpisodeSampler(source, 4, 1, 3)
    first, second = (evaluate(learner, sampler, episodes).per_episode for _ in range(2))
    assert torch.equal(first, second)
    assert learner.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())
    learner.eval()
    by_forward = [(learner(e).argmax(1) == e.query_y).double().mean() for e in sampler.batch(0, episodes)]
    assert torch.equal(first, torch.stack(by_forward))
