"""The format of the embedded image sets: one npz file with images and, for each class, a name, a group and a split."""

from __future__ import annotations

import numpy as np
import torch

from fsl_course.data.assets import verified
from fsl_course.data.imageset import ImageSet


def load_embedded(name: str, group: str) -> ImageSet:
    """Returns the image set of data/NAME.npz; `group` names the array that holds the group of each class.

    Raises FileNotFoundError if the file is missing and ValueError if it is damaged.
    """
    with np.load(verified(f"{name}.npz")) as file:
        images = torch.from_numpy(file["images"]).unsqueeze(2)
        names, groups, splits = (file[key].tolist() for key in ("name", group, "split"))
    classes, drawings = images.shape[:2]
    return ImageSet(
        images=images,
        counts=torch.full((classes,), drawings, dtype=torch.int64),
        class_names=names,
        groups=groups,
        splits=splits,
        name=name,
    )
