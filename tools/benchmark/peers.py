"""What the other libraries are given: a data set, the same net in their order of layers, and their own classes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fsl_course._system.torchvision_guard import import_torchvision
from fsl_course.data import ImageSet
from fsl_course.episodes import Layout
from fsl_course.nets import conv4

NEEDED = "needs easyfsl, which is not installed: pip install 'fsl-course[benchmark]' (or pip install easyfsl==1.5.0)"
# processes that load data, both tried, the faster one races; Linux forks them, elsewhere each would import everything anew
WORKERS = (0, 2) if sys.platform.startswith("linux") else (0,)


class _TakesDataSource:
    """easyfsl 1.5.0 calls Sampler.__init__(data_source=None); newer PyTorch knows no such argument. Here it ends."""

    def __init__(self, data_source: Any = None) -> None:
        super().__init__()


class Missing(ImportError):
    """A peer that is not installed. The message says how to get it."""


def easyfsl() -> SimpleNamespace:
    """easyfsl's version, TaskSampler, PrototypicalNetworks, evaluate and EasySet. Raises Missing with the cure."""
    try:
        import_torchvision()  # easyfsl imports it: a build that does not fit is mended first
        import easyfsl as package
        from easyfsl.datasets import EasySet
        from easyfsl.methods import PrototypicalNetworks
        from easyfsl.samplers import TaskSampler
        from easyfsl.utils import evaluate
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "easyfsl":
            raise Missing(NEEDED) from error
        raise Missing(f"easyfsl is there, but not what it needs ({error}): {NEEDED.partition(': ')[2]}") from error
    except ImportError as error:
        raise Missing(f"needs easyfsl, whose import fails: {error}") from error
    return SimpleNamespace(
        version=package.__version__,
        TaskSampler=type("TaskSampler", (TaskSampler, _TakesDataSource), {}),
        PrototypicalNetworks=PrototypicalNetworks,
        evaluate=evaluate,
        EasySet=EasySet,
    )


def or_skipped(work: Callable[[Any], list[dict[str, Any]]]) -> Callable[[Any], list[dict[str, Any]]]:
    """A work that cannot be done without its peer: where that is missing, one row that says why."""

    @wraps(work)
    def tried(settings: Any) -> list[dict[str, Any]]:
        try:
            return work(settings)
        except Missing as error:
            return [{"work": work.__name__.replace("_", "-"), "peer": "easyfsl", "skipped": str(error)}]

    return tried


def faster_workers(seconds: Callable[[int], float], quick: bool) -> tuple[int, dict[str, Any]]:
    """How many processes that load data are faster here, and the fields of a row that say so. seconds: of so many of them."""
    tried = {workers: seconds(workers) for workers in (WORKERS[:1] if quick else WORKERS)}
    best = min(tried, key=tried.__getitem__)
    return best, {"workers": best, "workers_tried_s": {str(w): s for w, s in tried.items()}}


def squared(base: type[nn.Module]) -> type[nn.Module]:
    """easyfsl's prototypical network with squared distances, as in the paper; its own are not squared."""

    class Squared(base):  # type: ignore[misc, valid-type]
        def l2_distance_to_prototypes(self, samples: Tensor) -> Tensor:
            return -torch.cdist(samples, self.prototypes).square()

    return Squared


class Pictures(Dataset):
    """One picture after the other out of the tensor of an image set, as easyfsl wants it: (float [c, H, W] in [0, 1], label)."""

    def __init__(self, source: ImageSet, dtype: torch.dtype = torch.float32) -> None:
        classes, drawings = source.images.shape[:2]
        if int(source.counts.min()) < drawings:
            raise ValueError(f"{source.name} has classes of unequal size, which Pictures does not know.")
        self.images, self.dtype = source.images.flatten(0, 1).cpu(), dtype
        self.labels = [label for label in range(classes) for _ in range(drawings)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.images[item].to(self.dtype).div_(255), self.labels[item]

    def get_labels(self) -> list[int]:
        return self.labels


def class_by_class(layout: Layout) -> list[list[int]]:
    """The positions of each episode in the order that easyfsl's collate function expects: class by class, support first."""
    ways = layout.classes.shape[1]
    parts = []
    for position, label in ((layout.support, layout.support_y), (layout.query, layout.query_y)):
        parts.append(position.gather(1, label.argsort(dim=1, stable=True)).unflatten(1, (ways, -1)))
    return torch.cat(parts, dim=2).flatten(1).tolist()


def loader(
    dataset: Any, batches: Iterable[Sequence[int]], sampler: Any, workers: int, device: str = "cpu"
) -> DataLoader:
    """The episodes of `batches` (a TaskSampler, or lists of positions), put together by easyfsl's own collate function."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        pin_memory=device.startswith("cuda"),
        collate_fn=sampler.episodic_collate_fn,
    )


def usual_conv4(width: int = 64, norm: str = "batch", in_channels: int = 1) -> nn.Sequential:
    """Conv4 as others write it: convolution, norm, ReLU, pooling; channels first. [B, c, 28, 28] -> [B, width]."""
    layers: list[nn.Module] = []
    for channels in (in_channels, width, width, width):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(min(8, width), width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten())


def with_weights_of(net: nn.Module, source: nn.Module) -> nn.Module:
    """net with the weights and statistics of source, which must have tensors of the same shapes in the same order."""
    values = source.state_dict().values()
    net.load_state_dict({n: v.contiguous() for n, v in zip(net.state_dict(), values, strict=True)})
    return net


def encoders(device: str, dtype: torch.dtype, weights: nn.Module | None = None) -> tuple[nn.Module, nn.Module]:
    """The course's Conv4 and the usual one, with the same weights: those given, or fresh ones of seed 0."""
    torch.manual_seed(0)
    ours = conv4()
    if weights is not None:
        ours.load_state_dict(weights.state_dict())
    theirs = with_weights_of(usual_conv4(), ours)
    return ours.to(device, dtype), theirs.to(device, dtype)
