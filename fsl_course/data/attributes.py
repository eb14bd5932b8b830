"""Descriptions of the classes of Glyphs and Icons, for zero-shot learning. Their card is data/attributes.md."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fsl_course.data.assets import verified
from fsl_course.data.imageset import ImageSet

DESCRIBED = ("glyphs", "icons")  # the embedded sets whose classes have descriptions


def load_attributes(data: str) -> tuple[Tensor, list[str], list[str]]:
    """Returns values float32 [C, A], C names of classes and A names of attributes of "glyphs" or "icons".

    A letter has zeros and ones: what its pen strokes and its Unicode name say. An icon has the vector of its name, made by a
    sentence encoder and reduced to 64 numbers. Raises ValueError for other data, and if the file is damaged.
    """
    if data not in DESCRIBED:
        raise ValueError(f"there are descriptions of the classes of {' and '.join(DESCRIBED)}; got {data!r:.60}.")
    with np.load(verified(f"{data}_attributes.npz")) as file:
        return torch.from_numpy(file["values"]).float(), file["classes"].tolist(), file["names"].tolist()


def described(source: ImageSet) -> ImageSet:
    """Returns the same set with source.attributes float32 [C, A], found by the names of its classes.

    Raises ValueError for a set whose classes have no descriptions: other data, or turned letters, of which most words are false.
    """
    values, classes, _ = load_attributes(source.name.split("/")[0].split("+")[0])
    row = {name: i for i, name in enumerate(classes)}
    if missing := [name for name in source.class_names if name not in row]:
        raise ValueError(f"{source.name} has classes without a description, such as {missing[0]!r}.")
    rows = torch.tensor([row[name] for name in source.class_names], dtype=torch.int64)
    return replace(source, attributes=values[rows].to(source.images.device))


def misdescribed(source: ImageSet, seed: int = 0) -> ImageSet:
    """Returns the same set with the descriptions shuffled over its classes: the control in which they are no longer true.

    A class may get its own back by chance, one in C of them on average. Raises ValueError for a set without descriptions.
    """
    if source.attributes is None:
        raise ValueError(f"{source.name} has no descriptions to shuffle: take described(source) first.")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    return replace(source, attributes=source.attributes[order.to(source.attributes.device)])
