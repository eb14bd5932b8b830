"""Glyphs, the embedded dataset: 1,529 letters of 50 scripts, 20 drawings each. Its card is data/glyphs.md."""

from __future__ import annotations

import numpy as np
import torch

from fsl_course.data.assets import verified
from fsl_course.data.imageset import ImageSet


def load_glyphs() -> ImageSet:
    """The embedded letters, offline: images uint8 [1529, 20, 1, 28, 28], ink 255 on 0, one group for each script.

    Splits share no script: 30 scripts for training, 7 for validation, 13 for test. Class names are the letters' Unicode
    names in lower case. Raises FileNotFoundError where the file is missing and ValueError where it is damaged.
    """
    with np.load(verified("glyphs.npz")) as file:
        images = torch.from_numpy(file["images"]).unsqueeze(2)
        names, scripts, splits = (file[key].tolist() for key in ("name", "script", "split"))
    classes, drawings = images.shape[:2]
    return ImageSet(
        images=images,
        counts=torch.full((classes,), drawings, dtype=torch.int64),
        class_names=names,
        groups=scripts,
        splits=splits,
        name="glyphs",
    )
