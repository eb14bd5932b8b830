"""What several tests share: small image sets made on the spot, and threads kept to one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest
import torch

from fsl_course.data import ImageSet
from fsl_course.episodes import Episode, EpisodeSampler

pytest.register_assert_rewrite("tests.fsl_course.methods.laws")  # a broken law shows its numbers, as in a test file


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run side by side; more threads than cores only make them slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def loops_closed() -> Iterator[None]:
    """For tests that run notebooks: nbclient leaves its event loop open, and whichever test runs at its collection would fail."""
    yield
    for found in gc.get_objects():
        if issubclass(type(found), asyncio.BaseEventLoop) and not found.is_running():
            found.close()


def toy_images(
    classes: int = 12,
    drawings: int = 8,
    size: int = 28,
    channels: int = 1,
    groups: int = 3,
    noise: int = 60,
    seed: int = 0,
) -> ImageSet:
    """Classes that can be learned: each has a random pattern of its own, its drawings add noise."""
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.randint(0, 196, (classes, 1, channels, size // 4, size // 4), generator=generator)
    pattern = pattern.repeat_interleave(4, -1).repeat_interleave(4, -2)
    dust = torch.randint(0, noise, (classes, drawings, channels, size, size), generator=generator)
    splits = [("train", "train", "val", "test")[i % 4] for i in range(classes)]
    return ImageSet(
        (pattern + dust).clamp(0, 255).to(torch.uint8),
        torch.full((classes,), drawings),
        [f"class {i}" for i in range(classes)],
        [f"group {i % groups}" for i in range(classes)],
        splits,
        "toy",
    )


@pytest.fixture
def toys() -> ImageSet:
    return toy_images()


@pytest.fixture
def task(toys: ImageSet) -> Episode:
    """A 5-way 2-shot episode with 3 queries a class."""
    return EpisodeSampler(toys, 5, 2, 3)[0]


@pytest.fixture
def precise(task: Episode) -> Episode:
    """The same episode in float64."""
    return task.to(torch.float64)


def permute_support(episode: Episode, order: torch.Tensor) -> Episode:
    return Episode(
        episode.support_x[order], episode.support_y[order], episode.query_x, episode.query_y, episode.classes
    )


def relabel(episode: Episode, new_slot: torch.Tensor) -> Episode:
    """Slot k becomes new_slot[k]."""
    classes = torch.empty_like(episode.classes)
    classes[new_slot] = episode.classes
    return Episode(episode.support_x, new_slot[episode.support_y], episode.query_x, new_slot[episode.query_y], classes)


def settled(net: torch.nn.Module, episode: Episode) -> torch.nn.Module:
    """A learner or an encoder in evaluation mode, with the running statistics of an episode.

    With fresh ones all embeddings are nearly equal, and every law would hold.
    """
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one pass is enough
    with torch.no_grad():
        getattr(net.train(), "embed", net)(torch.cat([episode.support_x, episode.query_x]))
    return net.eval()
