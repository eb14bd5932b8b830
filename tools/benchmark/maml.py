"""MAML's meta-gradient: this course against a loop over tasks that clones the model and adapts the clone.

The loop is written in the style of learn2learn. The real learn2learn and higher take part if a source checkout is given: their
packages need, or are compiled for, older Python versions than this course's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fsl_course._system.allocator import keep_memory
from fsl_course.data import load_glyphs
from fsl_course.episodes import Episode, EpisodeSampler, SinusoidSampler
from fsl_course.inner_loop.functional import supervised_loss
from fsl_course.methods.maml import MAML
from fsl_course.nets import classifier, conv4, mlp
from tools.benchmark import checkouts, measure, peers
from tools.benchmark.measure import COURSE, Row, Settings
from tools.benchmark.works import WORKS

RATE = 0.01
CLONES = "clone and adapt"
GPU_GOAL = 8  # of maml-conv4 on a GPU
Gradient = Callable[[], list[Tensor]]


def model_and_tasks(net: str, tasks: int, dtype: torch.dtype, device: str = "cpu") -> tuple[nn.Module, Episode]:
    """Returns a fresh net and tasks for it: sine curves of 10 + 10 points, or 5-way 1-shot glyphs with 15 queries a class."""
    torch.manual_seed(0)
    if net == "mlp":
        return mlp().to(device, dtype), SinusoidSampler(10, 10, dtype=dtype).batch(0, tasks).to(device)
    sampler = EpisodeSampler(load_glyphs().split("train"), 5, 1, 15, dtype=dtype)
    model = classifier(conv4(norm=net), 5, features=64)
    return model.to(device, dtype), sampler.batch(0, tasks).to(device)


def as_others_write_it(model: nn.Module) -> nn.Module:
    """Returns the same function with the same weights in the layout of `peers.usual_conv4`. Returns an MLP unchanged."""
    if not hasattr(model, "encoder"):
        return model
    usual = nn.Sequential(*peers.usual_conv4(norm=model.encoder.norm), nn.Linear(64, model.head.out_features))
    first = next(model.parameters())
    return peers.with_weights_of(usual.to(first.device, first.dtype), model)


def cloned(module: nn.Module) -> nn.Module:
    """Copies the module tree. Its parameters are clones in the graph, so gradients of the copy reach the original."""
    copy = module.__new__(type(module))
    copy.__dict__ = module.__dict__ | {
        "_parameters": {name: None if p is None else p.clone() for name, p in module._parameters.items()},
        "_buffers": dict(module._buffers),
        "_modules": {name: cloned(child) for name, child in module._modules.items()},
    }
    return copy


def descend(module: nn.Module, gradients: dict[Tensor, Tensor]) -> None:
    """Replaces each parameter p by p - RATE * gradient in the graph."""
    for name, p in module._parameters.items():
        if p is not None:
            module._parameters[name] = p - RATE * gradients[p]
    for child in module._modules.values():
        descend(child, gradients)


def clone_and_adapt(model: nn.Module, episodes: Episode, steps: int) -> list[Tensor]:
    """Computes the peer's meta-gradient: clones the module for one task after the other; backward adds up the gradients."""
    model.zero_grad()
    for episode in episodes:
        learner = cloned(model)
        for _ in range(steps):
            params = list(learner.parameters())
            loss = supervised_loss(learner(episode.support_x), episode.support_y)
            gradients = torch.autograd.grad(loss, params, create_graph=True)
            descend(learner, dict(zip(params, gradients, strict=True)))
        supervised_loss(learner(episode.query_x), episode.query_y).backward()
    return [p.grad / len(episodes) for p in model.parameters()]


def course(model: nn.Module, episodes: Episode, steps: int) -> list[Tensor]:
    """Computes this course's meta-gradient by MAML.training_step, as `fit` calls it."""
    model.zero_grad()
    MAML(model, RATE, steps).training_step(episodes).backward()
    return [p.grad for p in model.parameters()]


def racers(
    net: str, tasks: int, steps: int, others: dict[str, Any], dtype: torch.dtype, device: str = "cpu"
) -> dict[str, Gradient]:
    """Returns functions by name, which compute the meta-gradient of the same tasks and weights. others: `checkouts.found`."""
    model, episodes = model_and_tasks(net, tasks, dtype, device)
    peer = as_others_write_it(model_and_tasks(net, tasks, dtype, device)[0])
    found: dict[str, Gradient] = {
        COURSE: lambda: course(model, episodes, steps),
        CLONES: lambda: clone_and_adapt(peer, episodes, steps),
    }
    for name, other in others.items():
        found[name] = lambda other=other: other.gradient(peer, episodes, steps, RATE)
    return found


def agreement(net: str, steps: int, others: dict[str, Any], device: str = "cpu") -> Row:
    """Checks that all meta-gradients of two tasks agree in float64, on the timed device: MAML computes differently on a GPU."""
    runs = racers(
        net, 2, steps, others, torch.float64, "cpu" if device.startswith("mps") else device
    )  # mps: no float64
    results = {name: [g.clone() for g in run()] for name, run in runs.items()}
    worst = max(measure.largest_difference(results[COURSE], g) for name, g in results.items() if name != COURSE)
    return measure.agree("meta-gradient of 2 tasks in float64", worst, 1e-8)


def _race(
    work: str, net: str, tasks: int, steps: int, settings: Settings, goal: float | None, repeats: int
) -> list[Row]:
    keep_memory()
    tasks = 2 if settings.quick else tasks
    what = "sine curves, 10 + 10 points" if net == "mlp" else "tasks of glyphs, 5-way 1-shot, 15 queries a class"
    setting = f"{tasks} {what}, {steps} inner step{'s' * (steps > 1)}"
    others = checkouts.found(settings)
    agreed = agreement(net, steps, others, settings.device)
    runs = racers(net, tasks, steps, others, torch.float32, settings.device)
    sides = {name: measure.stopwatch(run, settings.device) for name, run in runs.items()}
    seconds = measure.race(sides, settings.rounds(repeats))
    return [
        measure.row(
            work, setting, peer, seconds[COURSE], seconds[peer], settings, goal=goal, agreement=agreed,
            peer_version=others[peer].version if peer in others else None,
        )
        for peer in seconds
        if peer != COURSE
    ]  # fmt: skip


def maml_sine_25(settings: Settings) -> list[Row]:
    """The small MLP of the sine curves, 25 tasks, 5 inner steps."""
    return _race("maml-sine-25", "mlp", 25, 5, settings, WORKS["maml-sine-25"].goal, 15)


def maml_sine_100(settings: Settings) -> list[Row]:
    """The small MLP of the sine curves, 100 tasks, 5 inner steps."""
    return _race("maml-sine-100", "mlp", 100, 5, settings, WORKS["maml-sine-100"].goal, 9)


def maml_conv4(settings: Settings) -> list[Row]:
    """Conv4 with batch norm, 5-way 1-shot, 15 queries a class, 4 tasks; one inner step, and five."""
    goal = WORKS["maml-conv4"].goal if torch.device(settings.device).type == "cpu" else GPU_GOAL
    one = _race("maml-conv4", "batch", 4, 1, settings, goal, 9)
    return one if settings.quick else one + _race("maml-conv4", "batch", 4, 5, settings, None, 9)
