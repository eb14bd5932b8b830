"""Icons, the second embedded dataset: 300 everyday ideas, each drawn by 20 icon designers. Its card is data/icons.md."""

from fsl_course.data.assets import load_embedded
from fsl_course.data.imageset import ImageSet


def load_icons() -> ImageSet:
    """Loads the embedded icons, offline: images uint8 [300, 20, 1, 28, 28], ink 255 on 0, one group for each theme.

    Splits share no class: 180 classes for training, 60 for validation, 60 for test; a theme may occur in all three. Class
    names are words ("alarm clock"). Raises FileNotFoundError if the file is missing and ValueError if it is damaged.
    """
    return load_embedded("icons", group="theme")
