"""What the other libraries need for a fair comparison: a data set, the same net in their layout, and their own classes."""

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
# Numbers of loading processes to try; the faster one races. Only Linux forks them: elsewhere each would import everything anew.
WORKERS = (0, 2) if sys.platform.startswith("linux") else (0,)


class _TakesDataSource:
    """Takes the argument data_source, which easyfsl 1.5.0 passes to Sampler.__init__ and newer PyTorch no longer accepts."""

    def __init__(self, data_source: Any = None) -> None:
        super().__init__()


class Missing(ImportError):
    """A peer is not installed. The message says how to install it."""


def easyfsl() -> SimpleNamespace:
    """Returns easyfsl's version, TaskSampler, PrototypicalNetworks, evaluate and EasySet.

    Raises Missing, which says what to install, if easyfsl or something that it needs is not there.
    """
    try:
        import_torchvision()  # easyfsl imports torchvision, and a build that does not fit PyTorch must be handled before that
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
    """Decorates a work that needs easyfsl: if that is missing, the work returns one row that says why it was skipped."""

    @wraps(work)
    def tried(settings: Any) -> list[dict[str, Any]]:
        try:
            return work(settings)
        except Missing as error:
            return [{"work": work.__name__.replace("_", "-"), "peer": "easyfsl", "skipped": str(error)}]

    return tried


def faster_workers(seconds: Callable[[int], float], quick: bool) -> tuple[int, dict[str, Any]]:
    """Tries WORKERS and returns the fastest number of loading processes, and the fields of a row that report the tries.

    seconds: number of processes -> seconds that easyfsl takes with them
    quick:   tries only the first number
    """
    tried = {workers: seconds(workers) for workers in (WORKERS[:1] if quick else WORKERS)}
    best = min(tried, key=tried.__getitem__)
    return best, {"workers": best, "workers_tried_s": {str(w): s for w, s in tried.items()}}


def squared(base: type[nn.Module]) -> type[nn.Module]:
    """Returns easyfsl's prototypical network with squared distances, as in the paper. easyfsl's own are not squared."""

    class Squared(base):  # type: ignore[misc, valid-type]
        def l2_distance_to_prototypes(self, samples: Tensor) -> Tensor:
            return -torch.cdist(samples, self.prototypes).square()

    return Squared


class Pictures(Dataset):
    """The pictures of an image set one by one, as easyfsl expects a data set: (float [c, H, W] in [0, 1], label).

    Raises ValueError for classes of unequal size.
    """

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
    """Returns the positions of each episode in the order of easyfsl's collate function: class by class, support first."""
    ways = layout.classes.shape[1]
    parts = []
    for position, label in ((layout.support, layout.support_y), (layout.query, layout.query_y)):
        parts.append(position.gather(1, label.argsort(dim=1, stable=True)).unflatten(1, (ways, -1)))
    return torch.cat(parts, dim=2).flatten(1).tolist()


def loader(
    dataset: Any, batches: Iterable[Sequence[int]], sampler: Any, workers: int, device: str = "cpu"
) -> DataLoader:
    """Returns a loader of the episodes in `batches` (a TaskSampler or lists of positions), collated by easyfsl's function."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        pin_memory=device.startswith("cuda"),
        collate_fn=sampler.episodic_collate_fn,
    )


def usual_conv4(width: int = 64, norm: str = "batch", in_channels: int = 1) -> nn.Sequential:
    """Returns Conv4 as it is usually written: convolution, norm, ReLU, pooling; channels first. [B, c, 28, 28] -> [B, width]."""
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
    """Copies the weights and statistics of source into net. Both must have tensors of the same shapes in the same order."""
    values = source.state_dict().values()
    net.load_state_dict({n: v.contiguous() for n, v in zip(net.state_dict(), values, strict=True)})
    return net


def encoders(device: str, dtype: torch.dtype, weights: nn.Module | None = None) -> tuple[nn.Module, nn.Module]:
    """Returns the course's Conv4 and the usual one with the same weights: those given, or fresh ones of seed 0."""
    torch.manual_seed(0)
    ours = conv4()
    if weights is not None:
        ours.load_state_dict(weights.state_dict())
    theirs = with_weights_of(usual_conv4(), ours)
    return ours.to(device, dtype), theirs.to(device, dtype)
