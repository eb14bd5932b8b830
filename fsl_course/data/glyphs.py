"""Glyphs, the embedded dataset: 1,529 letters of 50 scripts, 20 drawings each. Its card is data/glyphs.md."""

from fsl_course.data.assets import load_embedded
from fsl_course.data.imageset import ImageSet


def load_glyphs() -> ImageSet:
    """Loads the embedded letters, offline: images uint8 [1529, 20, 1, 28, 28], ink 255 on 0, one group for each script.

    Splits share no script: 30 scripts for training, 7 for validation, 13 for test. Class names are the letters' Unicode
    names in lower case. Raises FileNotFoundError if the file is missing and ValueError if it is damaged.
    """
    return load_embedded("glyphs", group="script")
