"""Prototypical networks beside easyfsl's: testing one on many episodes, and one training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fsl_course._system.allocator import keep_memory
from fsl_course.data import ImageSet
from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.weights.checkpoints import pretrained
from tools.benchmark import measure, peers
from tools.benchmark.measure import COURSE, Row, Settings, Side
from tools.benchmark.works import WORKS

STEPS = ((60, 1, 5, WORKS["prototypical-step"].goal), (20, 5, 5, None))  # way, shot, queries a class, goal


@dataclass(frozen=True)
class _Sides:
    """Both sides of evaluate-1000, with the same weights: the course's learner and sampler, easyfsl's accuracy.

    accuracy: (episodes as lists of positions, processes that load data) -> easyfsl's accuracy over all their queries
    """

    learner: FewShotLearner
    sampler: EpisodeSampler
    accuracy: Callable[[list[list[int]], int], float]


def _sides(library: Any, source: ImageSet, weights: nn.Module, dtype: torch.dtype, device: str) -> _Sides:
    mine, theirs = peers.encoders(device, dtype, weights)
    sampler = EpisodeSampler(source.to(device), 5, 1, 15, dtype=dtype)
    dataset, network = peers.Pictures(source, dtype), library.PrototypicalNetworks(theirs)
    collate = library.TaskSampler(dataset, 5, 1, 15, n_tasks=1)

    def accuracy(positions: list[list[int]], workers: int) -> float:
        batches = peers.loader(dataset, positions, collate, workers, device)
        return library.evaluate(network, batches, device=device, use_tqdm=False)

    return _Sides(PrototypicalNetwork(mine).eval(), sampler, accuracy)


def _agreement_by_episode(sides: _Sides, episodes: int) -> Row:
    """Checks that both sides have the same accuracy in each episode. Needs float64, where rounding decides no tie."""
    positions = peers.class_by_class(sides.sampler.layout(0, episodes))
    theirs = torch.tensor([sides.accuracy([one], 0) for one in positions], dtype=torch.float64)
    difference = (theirs - evaluate(sides.learner, sides.sampler, episodes).per_episode).abs().max()
    return measure.agree(f"accuracy of each of {episodes} episodes in float64", float(difference), 1e-12)


class _InParts:
    """easyfsl's side: each repeat tests another part of the episodes, because its time grows evenly with their number."""

    def __init__(self, sides: _Sides, episodes: int, repeats: int) -> None:
        self.accuracy, self.episodes, self.repeats = sides.accuracy, episodes, repeats
        self.positions = peers.class_by_class(sides.sampler.layout(0, episodes))
        self.correct: dict[int, float] = {}  # repeat -> its accuracies, added up over its episodes

    def side(self, workers: int) -> Side:
        """Returns the side with this many loading processes. Its seconds are those of all episodes."""

        def seconds(number: int) -> float:
            part = max(number, 1)  # the round that warms up takes the first part too
            low, high = self.episodes * (part - 1) // self.repeats, self.episodes * part // self.repeats
            began = time.perf_counter()
            accuracy = self.accuracy(self.positions[low:high], workers)
            took = time.perf_counter() - began
            if number:
                self.correct[number] = accuracy * (high - low)
            return took / (high - low) * self.episodes

        return seconds


@peers.or_skipped
def evaluate_1000(settings: Settings) -> list[Row]:
    """Tests the shipped network on 1000 episodes of test classes, 5-way 1-shot, 15 queries a class, the same for both sides."""
    keep_memory()
    library = peers.easyfsl()
    episodes, repeats = (6, 2) if settings.quick else (1000, min(settings.rounds(5), 100))
    weights, source = pretrained("prototypical", "glyphs").encoder, measure.pictures(settings, "test")
    agreed = _agreement_by_episode(_sides(library, source, weights, torch.float64, "cpu"), 3 if settings.quick else 40)
    sides = _sides(library, source, weights, torch.float32, settings.device)
    learner, sampler, parts = sides.learner, sides.sampler, _InParts(sides, episodes, repeats)
    sides.accuracy(parts.positions[:2], 0)  # so that the process's first call does not count for the first try
    workers, about = peers.faster_workers(lambda w: parts.side(w)(0), settings.quick)
    ours = measure.stopwatch(lambda: evaluate(learner, sampler, episodes), settings.device)
    seconds = measure.race({COURSE: ours, "easyfsl": parts.side(workers)}, repeats)
    mean = evaluate(learner, sampler, episodes).mean
    # In float32 rounding may decide a tie either way, for a few of the queries and not more.
    difference = abs(sum(parts.correct.values()) / episodes - mean)
    agreed |= measure.agree("accuracy of all episodes in float32", difference, 5e-4) | {
        "compared": f"{agreed['compared']}: {agreed['largest_difference']:.0e}; accuracy of all {episodes} in float32"
    }
    return [
        measure.row(
            "evaluate-1000", f"{episodes} episodes, 5-way 1-shot, 15 queries a class, {source.name}", "easyfsl",
            seconds[COURSE], seconds["easyfsl"], settings, agreement=agreed, peer_version=library.version, accuracy=mean,
            **about,
            note=f"easyfsl is timed on {episodes // repeats} other episodes in each repeat, all {episodes} together; the course "
            "on all in each. easyfsl embeds the pictures of every episode, the course each picture once for all episodes",
        )
    ]  # fmt: skip


def _steps(learner: FewShotLearner, theirs: nn.Module, batch: Any) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Returns two functions: the training loss of an episode as `fit` and as easyfsl's training loop compute it."""
    episode = batch[0]

    def course() -> Tensor:
        return learner.training_step(batch)

    def easyfsl() -> Tensor:
        theirs.process_support_set(episode.support_x, episode.support_y)
        return F.cross_entropy(theirs(episode.query_x), episode.query_y)

    return course, easyfsl


def _settled(encoder: nn.Module, pictures: Tensor) -> None:
    """Sets the running statistics of batch norm to those of these pictures. With fresh ones all embeddings are nearly equal."""
    norms = [module for module in encoder.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        encoder.train()(pictures)
    encoder.eval()


def step_agreement(network: type[nn.Module], sampler: EpisodeSampler) -> Row:
    """Checks that loss and gradient agree in float64.

    Batch norm uses running statistics here, with which both sides are the same function. In training the course normalises
    support and queries together and easyfsl each by itself; the amount of work is the same.
    """
    batch = sampler.batch(0, 1)
    mine, net = peers.encoders("cpu", torch.float64)
    _settled(mine, torch.cat([batch.support_x[0], batch.query_x[0]]))
    learner, theirs = PrototypicalNetwork(mine), network(peers.with_weights_of(net, mine).eval())
    losses, gradients = [], []
    for loss_of, module in zip(_steps(learner, theirs, batch), (learner, theirs), strict=True):
        loss = loss_of()
        losses.append([loss])
        gradients.append(torch.autograd.grad(loss, list(module.parameters())))
    difference = max(measure.largest_difference(*losses), measure.largest_difference(*gradients))
    return measure.agree("loss and gradient in float64, batch norm on running statistics", difference, 1e-8)


def _updates(loss_of: Callable[[], Tensor], module: nn.Module) -> Callable[[], None]:
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)

    def update() -> None:
        loss = loss_of()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return update


@peers.or_skipped
def prototypical_step(settings: Settings) -> list[Row]:
    """Times forward, loss, backward and Adam on an episode in float32. easyfsl gets squared distances and the usual Conv4."""
    library = peers.easyfsl()
    network, rows, source = peers.squared(library.PrototypicalNetworks), [], measure.pictures(settings, "train")
    repeats, races = settings.rounds(9), []
    for way, shot, query, goal in STEPS:
        if settings.quick:
            way = 5
        sampler = EpisodeSampler(source, way, shot, query, dtype=torch.float64)
        agreed = step_agreement(network, sampler)
        mine, net = peers.encoders(settings.device, torch.float32)
        learner, theirs = PrototypicalNetwork(mine).train(), network(net).train()
        batch = sampler.batch(0, 1).to(torch.float32).to(settings.device)
        course, easyfsl = _steps(learner, theirs, batch)
        sides = {
            COURSE: measure.stopwatch(_updates(course, learner), settings.device),
            "easyfsl": measure.stopwatch(_updates(easyfsl, theirs), settings.device),
        }
        races.append((f"{way}-way {shot}-shot, {query} queries a class, {source.name}", goal, agreed, sides))
    # The allocator cannot be told to stop keeping memory, so all races run without that first.
    before = [measure.race(sides, max(2, repeats // 3)) for *_, sides in races]
    kept = keep_memory()
    for (setting, goal, agreed, sides), without in zip(races, before, strict=True):
        seconds = measure.race(sides, repeats)
        here = statistics.median(seconds[COURSE])
        alone = {
            "keep_memory_brings": statistics.median(without[COURSE]) / here,
            "ratio_to_peer_without_keep_memory": statistics.median(without["easyfsl"]) / here,
        }
        rows.append(
            measure.row(
                "prototypical-step", setting, "easyfsl", seconds[COURSE], seconds["easyfsl"], settings, goal=goal,
                agreement=agreed, peer_version=library.version, **(alone if kept else {}),
                note="float32; easyfsl with squared distances, as in the paper; both keep freed memory (keep_memory). In "
                "training batch norm sees support and queries together in the course, one after the other in easyfsl",
            )
        )  # fmt: skip
    return rows
