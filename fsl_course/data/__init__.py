"""Image sets, each loaded as one `ImageSet`: embedded ones (glyphs, icons), the real Omniglot, your own folders; and texts."""

from fsl_course.data.assets import load_glyphs, load_icons
from fsl_course.data.folder import load_folder
from fsl_course.data.imageset import SPLITS, ImageSet, rotations_as_classes, split_classes
from fsl_course.data.omniglot import load_lake_runs, load_omniglot
from fsl_course.data.texts import TextSet, load_intents, load_texts

__all__ = [
    "SPLITS", "ImageSet", "TextSet", "load_folder", "load_glyphs", "load_icons", "load_intents",
    "load_lake_runs", "load_omniglot", "load_texts",
    "rotations_as_classes", "split_classes",
]  # fmt: skip
