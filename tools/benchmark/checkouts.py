"""learn2learn and higher from source checkouts: their packages do not install with the Python versions of this course."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.inner_loop.functional import supervised_loss
from tools.benchmark.measure import Settings


class Checkout(NamedTuple):
    """A library loaded from a checkout.

    gradient: (model, tasks, inner steps, rate) -> the meta-gradient, in the order of the model's parameters
    """

    gradient: Callable[[nn.Module, Episode, int, float], list[Tensor]]
    version: str | None


def _version(*files: Path) -> str | None:
    """Returns the first version number that one of the files assigns, or None."""
    for file in files:
        if file.is_file() and (match := re.search(r"version\w*\s*=\s*[\"']([\d.]+)", file.read_text("utf-8"))):
            return match.group(1)
    return None


def learn2learn(folder: Path) -> Checkout:
    """Loads the MAML class of a checkout without the library's compiled parts, which MAML does not need."""
    if not (folder / "learn2learn" / "algorithms" / "maml.py").is_file():
        raise FileNotFoundError(
            f"{folder} holds no learn2learn/algorithms/maml.py: name the root of a source checkout."
        )
    for name in (
        "learn2learn",
        "learn2learn.algorithms",
    ):  # stands in for the real __init__, which imports the compiled parts
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = package
    from learn2learn.algorithms.maml import MAML

    def gradient(model: nn.Module, episodes: Episode, steps: int, rate: float) -> list[Tensor]:
        model.zero_grad()
        maml = MAML(model, lr=rate)
        for episode in episodes:
            learner = maml.clone()
            for _ in range(steps):
                learner.adapt(supervised_loss(learner(episode.support_x), episode.support_y))
            supervised_loss(learner(episode.query_x), episode.query_y).backward()
        return [p.grad / len(episodes) for p in model.parameters()]

    return Checkout(gradient, _version(folder / "learn2learn" / "_version.py", folder / "setup.py"))


def higher(folder: Path) -> Checkout:
    """Loads higher's inner-loop context. The initial weights stay in the graph: the default, a copy, would cut them off."""
    if not (folder / "higher" / "__init__.py").is_file():
        raise FileNotFoundError(f"{folder} holds no higher/__init__.py: name the root of a source checkout.")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    from higher import innerloop_ctx

    def gradient(model: nn.Module, episodes: Episode, steps: int, rate: float) -> list[Tensor]:
        model.zero_grad()
        optimiser = torch.optim.SGD(model.parameters(), lr=rate)
        for episode in episodes:
            with innerloop_ctx(model, optimiser, copy_initial_weights=False) as (learner, inner):
                for _ in range(steps):
                    inner.step(supervised_loss(learner(episode.support_x), episode.support_y))
                supervised_loss(learner(episode.query_x), episode.query_y).backward()
        return [p.grad / len(episodes) for p in model.parameters()]

    return Checkout(gradient, _version(folder / "setup.py", folder / "higher" / "__init__.py"))


def found(settings: Settings) -> dict[str, Checkout]:
    """Loads the checkouts that the command line names. Raises FileNotFoundError if a folder holds something else."""
    given = {"learn2learn": (learn2learn, settings.learn2learn), "higher": (higher, settings.higher)}
    return {name: load(Path(folder)) for name, (load, folder) in given.items() if folder}
