"""Prototypical networks: testing one on many episodes, and one training step; against easyfsl's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fsl_course._system.allocator import keep_memory
from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.weights.checkpoints import pretrained
from tools.benchmark import measure, peers
from tools.benchmark.measure import COURSE, Row, Settings, Side
from tools.benchmark.options import WORKS

STEPS = ((60, 1, 5, WORKS["prototypical-step"].goal), (20, 5, 5, None))  # way, shot, queries a class, goal


@peers.or_skipped
def evaluate_1000(settings: Settings) -> list[Row]:
    """1000 episodes, 5-way 1-shot, 15 queries a class, of the shipped network on test classes: the same episodes for both."""
    keep_memory()
    library = peers.easyfsl()
    episodes, repeats = (6, 2) if settings.quick else (1000, min(settings.rounds(5), 100))
    weights, source = pretrained("prototypical", "glyphs").encoder, measure.pictures(settings, "test")

    def sides(dtype: torch.dtype, device: str) -> tuple[FewShotLearner, EpisodeSampler, Callable[[Any, int], float]]:
        mine, theirs = peers.encoders(device, dtype, weights)
        sampler = EpisodeSampler(source.to(device), 5, 1, 15, dtype=dtype)
        dataset, network = peers.Pictures(source, dtype), library.PrototypicalNetworks(theirs)
        collate = library.TaskSampler(dataset, 5, 1, 15, n_tasks=1)

        def accuracy(positions: Any, workers: int) -> float:
            batches = peers.loader(dataset, positions, collate, workers, device)
            return library.evaluate(network, batches, device=device, use_tqdm=False)

        return PrototypicalNetwork(mine).eval(), sampler, accuracy

    # in float64, where no tie is decided by rounding, every episode must come out the same
    learner, sampler, accuracy = sides(torch.float64, "cpu")
    few = 3 if settings.quick else 40
    positions = peers.class_by_class(sampler.layout(0, few))
    per_episode = torch.tensor([accuracy([one], 0) for one in positions], dtype=torch.float64)
    difference = (per_episode - evaluate(learner, sampler, few).per_episode).abs().max()
    agreed = measure.agree(f"accuracy of each of {few} episodes in float64", float(difference), 1e-12)

    learner, sampler, accuracy = sides(torch.float32, settings.device)
    positions = peers.class_by_class(sampler.layout(0, episodes))
    found: dict[int, float] = {}

    def theirs(workers: int) -> Side:
        """A part of the episodes a round, since easyfsl's time grows evenly with their number; seconds of all of them."""

        def seconds(number: int) -> float:
            part = max(number, 1)  # the warm-up takes the first as well
            mine = positions[episodes * (part - 1) // repeats : episodes * part // repeats]
            began = time.perf_counter()
            correct = accuracy(mine, workers)
            took = time.perf_counter() - began
            if number:
                found[number] = correct * len(mine)
            return took / len(mine) * episodes

        return seconds

    accuracy(positions[:2], 0)  # what is new to the process must not count for the first of the tries
    workers, about = peers.faster_workers(lambda w: theirs(w)(0), settings.quick)
    ours = measure.stopwatch(lambda: evaluate(learner, sampler, episodes), settings.device)
    seconds = measure.race({COURSE: ours, "easyfsl": theirs(workers)}, repeats)
    mean = evaluate(learner, sampler, episodes).mean
    # rounding in float32 may decide a tie either way: a few of the queries, not more
    agreed |= measure.agree("accuracy of all episodes in float32", abs(sum(found.values()) / episodes - mean), 5e-4) | {
        "compared": f"{agreed['compared']}: {difference:.0e}; accuracy of all {episodes} in float32"
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
    """The training loss of the same episode, as `fit` and as easyfsl's training loop compute it."""
    episode = batch[0]

    def course() -> Tensor:
        return learner.training_step(batch)

    def easyfsl() -> Tensor:
        theirs.process_support_set(episode.support_x, episode.support_y)
        return F.cross_entropy(theirs(episode.query_x), episode.query_y)

    return course, easyfsl


def _settled(encoder: nn.Module, pictures: Tensor) -> None:
    """Running statistics of these pictures, used from now on. With fresh ones all embeddings are nearly equal."""
    norms = [module for module in encoder.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        encoder.train()(pictures)
    encoder.eval()


def step_agreement(network: type[nn.Module], sampler: EpisodeSampler) -> Row:
    """The same loss and gradient in float64.

    Batch norm runs on running statistics here, where both define the same function. In training the course normalises support
    and queries together, easyfsl each by itself; the work is the same.
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
    """Forward, loss, backward and Adam on one episode in float32: easyfsl's network with squared distances, Conv4 as usual."""
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
    # what the allocator keeps can never be given back: all races run without it first
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
