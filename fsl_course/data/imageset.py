"""The form of every image source: one uint8 tensor of classes by drawings, and names for the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """C classes with up to n drawings each, all in one tensor, so that an episode is one gather by index.

    images:      uint8 [C, n, c, H, W]; drawings show ink as 255 on 0
    counts:      int64 [C]; how many of the n drawings of a class are real; the rest, in uneven folders, is never sampled
    class_names: C names
    groups:      C names of groups (alphabet, theme, folder), one for each class
    splits:      C names out of "train", "val", "test", or None if the source has no splits of its own
    name:        the name of the source in messages and on the command line
    inverted:    True if the pictures are the negatives of their files, False if not, None if there are no files of your own
    attributes:  float [C, A], a description of each class for zero-shot learning, or None; `data.attributes.described` adds one
    """

    images: Tensor
    counts: Tensor
    class_names: list[str]
    groups: list[str]
    splits: list[str] | None = None
    name: str = "images"
    inverted: bool | None = None
    attributes: Tensor | None = None
    axes: ClassVar[str] = "[C, n, c, H, W]"
    advice: ClassVar[str] = "Multiply pictures in [0, 1] by 255 and convert with .to(torch.uint8)."

    def __post_init__(self) -> None:
        for field in ("images", "counts"):
            if not isinstance(value := getattr(self, field), Tensor):
                raise TypeError(f"{field} must be a tensor; got {type(value).__name__}: take torch.as_tensor(...).")
        if self.images.dtype != torch.uint8 or self.images.dim() != self.axes.count(",") + 1:
            raise ValueError(
                f"images must be uint8 {self.axes}; got {self.images.dtype} {list(self.images.shape)}. {self.advice}"
            )
        classes, drawings = self.images.shape[:2]
        if self.counts.dtype != torch.int64 or self.counts.shape != (classes,):
            raise ValueError(f"counts must be int64 [{classes}]; got {self.counts.dtype} {list(self.counts.shape)}.")
        if classes and not (int(self.counts.min()) >= 1 and int(self.counts.max()) <= drawings):
            raise ValueError(
                f"counts must lie in 1..{drawings} (the second axis of images); "
                f"got {int(self.counts.min())}..{int(self.counts.max())}."
            )
        for field, values in (("class_names", self.class_names), ("groups", self.groups), ("splits", self.splits)):
            if values is not None and len(values) != classes:
                raise ValueError(f"{field} must have one entry for each of the {classes} classes; got {len(values)}.")
        if self.attributes is not None and (self.attributes.dim() != 2 or len(self.attributes) != classes):
            raise ValueError(f"attributes must be [{classes}, A]; got {list(self.attributes.shape)}.")
        if unknown := set(self.splits or ()) - set(SPLITS):
            raise ValueError(f"splits may only be {', '.join(SPLITS)}; got {', '.join(sorted(unknown))}.")

    def __len__(self) -> int:
        """The number of classes C."""
        return self.images.shape[0]

    def __repr__(self) -> str:
        classes, drawings, channels, height, width = self.images.shape
        return (
            f"ImageSet({self.name}: {classes} classes in {len(set(self.groups))} groups, "
            f"up to {drawings} drawings each, {channels}x{height}x{width})"
        )

    def select(self, classes: Sequence[int] | Tensor) -> ImageSet:
        """Returns the classes at these positions, in this order. classes: int64 [M] or a list of M positions -> M classes.

        Raises TypeError for anything except whole numbers, also for a mask, and IndexError for positions outside 0..C-1.
        """
        index = torch.as_tensor(classes).flatten()
        if len(index) and (index.dtype == torch.bool or index.is_floating_point()):
            raise TypeError(
                f"select takes class positions, whole numbers; got {index.dtype}. "
                "Positions out of a mask: mask.nonzero().flatten()."
            )
        index = index.to(torch.int64)
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(self)):
            low, high = int(index.min()), int(index.max())
            raise IndexError(f"class positions must lie in 0..{len(self) - 1}; got {low}..{high}.")
        rows = index.tolist()
        return replace(
            self,
            images=self.images[index.to(self.images.device)],
            counts=self.counts[index.to(self.counts.device)],
            class_names=[self.class_names[i] for i in rows],
            groups=[self.groups[i] for i in rows],
            splits=None if self.splits is None else [self.splits[i] for i in rows],
            attributes=None if self.attributes is None else self.attributes[index.to(self.attributes.device)],
        )

    def split(self, name: str) -> ImageSet:
        """Returns the classes of "train", "val" or "test". Splits share no class (and, if the data card says so, no group)."""
        if name not in SPLITS:
            raise ValueError(f"there is no split {name!r}: choose one of {', '.join(SPLITS)}.")
        if self.splits is None:
            raise ValueError(f"{self.name} has no splits of its own: make them with split_classes(source, seed=0).")
        rows = [i for i, s in enumerate(self.splits) if s == name]
        if not rows:
            there = ", ".join(sorted(set(self.splits)))
            raise ValueError(f"{self.name} has no class in split {name!r}: it holds {there}.")
        return replace(self.select(rows), name=f"{self.name}/{name}")

    def to(self, device: str | torch.device) -> ImageSet:
        """Returns the same set with its pictures on another device, where episodes are then gathered."""
        attributes = None if self.attributes is None else self.attributes.to(device)
        return replace(self, images=self.images.to(device), attributes=attributes)


def as_input(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns what an encoder reads: pictures uint8 [B, c, H, W] as numbers in [0, 1], sentences uint8 [B, L] as int64 bytes."""
    return rows.long() if rows.dim() == 2 else rows.to(dtype).div_(255)


def rotations_as_classes(source: ImageSet, *, turns_as_groups: bool = False) -> ImageSet:
    """Turns every class by 0, 90, 180 and 270 degrees and makes each turn a class: C -> 4C classes (Santoro et al. 2016).

    turns_as_groups: makes the four turns the groups, so that an EpisodeSampler with within_group=True draws all classes of a
    task with one turn: a task is turned as a whole, as in the code of Sung et al. 2018

    All pictures of a class turn together, and the new classes stay in the split of the old one. Pictures must be square.
    Descriptions are left out, because they are not true of a turned class.
    Class k of the source, turned by 90*r degrees counter-clockwise, becomes class 4*k + r.
    """
    height, width = source.images.shape[-2:]
    if height != width:
        raise ValueError(f"only square pictures can be turned into classes; got {height}x{width}.")
    turned = torch.stack([torch.rot90(source.images, r, (-2, -1)) for r in range(4)], dim=1)
    return ImageSet(
        images=turned.flatten(0, 1),
        counts=source.counts.repeat_interleave(4),
        class_names=[f"{name} @{90 * r}" for name in source.class_names for r in range(4)],
        groups=[f"@{90 * r}" if turns_as_groups else group for group in source.groups for r in range(4)],
        splits=None if source.splits is None else [s for s in source.splits for _ in range(4)],
        name=f"{source.name}+rotations",
        inverted=source.inverted,
    )


def split_classes(
    source: ImageSet, *, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int = 0
) -> ImageSet:
    """Returns the same set with its classes split at random. fractions: of train, val and test. A pure function of the seed.

    The classes are sorted by group and name first, so that the split does not depend on the order in which a disk lists them.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions of train, val and test must be non-negative and sum to 1; got {fractions}.")
    order = sorted(range(len(source)), key=lambda i: (source.groups[i], source.class_names[i]))
    shuffled = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed)).tolist()
    first, second = round(fractions[0] * len(order)), round((fractions[0] + fractions[1]) * len(order))
    splits = [""] * len(order)
    for rank, position in enumerate(shuffled):
        splits[order[position]] = SPLITS[(rank >= first) + (rank >= second)]
    return replace(source, splits=splits)
