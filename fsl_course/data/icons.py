"""Icons, the second embedded dataset: 300 everyday ideas, each drawn by 20 icon designers. Its card is data/icons.md."""

from __future__ import annotations

import numpy as np
import torch

from fsl_course.data.assets import verified
from fsl_course.data.imageset import ImageSet


def load_icons() -> ImageSet:
    """The embedded icons, offline: images uint8 [300, 20, 1, 28, 28], ink 255 on 0, one group for each theme.

    Splits share no class: 180 classes for training, 60 for validation, 60 for test; a theme may occur in all three. Class
    names are words ("alarm clock"). Raises FileNotFoundError where the file is missing and ValueError where it is damaged.
    """
    with np.load(verified("icons.npz")) as file:
        images = torch.from_numpy(file["images"]).unsqueeze(2)
        names, themes, splits = (file[key].tolist() for key in ("name", "theme", "split"))
    classes, drawings = images.shape[:2]
    return ImageSet(
        images=images,
        counts=torch.full((classes,), drawings, dtype=torch.int64),
        class_names=names,
        groups=themes,
        splits=splits,
        name="icons",
    )
