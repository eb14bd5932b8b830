"""Image sets, each loaded as one `ImageSet`.

imageset  the tensor of all pictures, and splits, rotations and random splits of it
glyphs    embedded: letters of 50 scripts
icons     embedded: everyday ideas, each drawn by 20 designers
omniglot  the real Omniglot, from its published files
folder    your own pictures, one folder for each class
assets    finds, checks and loads the embedded files
"""

from fsl_course.data.folder import load_folder
from fsl_course.data.glyphs import load_glyphs
from fsl_course.data.icons import load_icons
from fsl_course.data.imageset import SPLITS, ImageSet, rotations_as_classes, split_classes
from fsl_course.data.omniglot import load_omniglot

__all__ = [
    "SPLITS",
    "ImageSet",
    "load_folder",
    "load_glyphs",
    "load_icons",
    "load_omniglot",
    "rotations_as_classes",
    "split_classes",
]
