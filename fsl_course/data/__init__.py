"""Image sets, each loaded as one `ImageSet`: embedded ones (glyphs, icons), the real Omniglot, and your own folders."""

from fsl_course.data.assets import load_glyphs, load_icons
from fsl_course.data.folder import load_folder
from fsl_course.data.imageset import SPLITS, ImageSet, rotations_as_classes, split_classes
from fsl_course.data.omniglot import load_omniglot

__all__ = [
    "SPLITS", "ImageSet", "load_folder", "load_glyphs", "load_icons", "load_omniglot", "rotations_as_classes", "split_classes",
]  # fmt: skip
