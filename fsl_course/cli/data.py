"""The pictures that --data and the options beside it name."""

import argparse
import os
from pathlib import Path

from fsl_course import data
from fsl_course._system.nearest import did_you_mean
from fsl_course.cli.options import OWN_DATA


def load_data(options: argparse.Namespace) -> data.ImageSet:
    """Loads the image set. A folder without train, val and test folders is split 60/20/20 by class.

    Raises FileNotFoundError or NotADirectoryError where the data is not there.
    """
    if options.data == "omniglot":
        if not (options.root or os.environ.get("FSL_DATA")):
            raise FileNotFoundError(
                "where is Omniglot? Give --root DIR, or set the variable FSL_DATA: the folder that holds omniglot-py with "
                "images_background.zip and images_evaluation.zip. load_omniglot(DIR, download=True) fetches them."
            )
        source = data.load_omniglot(options.root, protocol=options.protocol or "alphabets")
    elif options.data in OWN_DATA:
        source = data.load_glyphs() if options.data == "glyphs" else data.load_icons()
    else:
        if not Path(options.data).is_dir():
            raise NotADirectoryError(
                f"--data takes {', '.join(OWN_DATA)} or a folder; {options.data!r} is no folder."
                f"{did_you_mean(options.data, OWN_DATA)}"
            )
        source = data.load_folder(options.data, size=options.size, channels=options.channels)
        source = data.split_classes(source) if source.splits is None else source
    if options.turn_tasks and options.within_group:
        raise ValueError("--turn-tasks and --within-group exclude each other: leave one out.")
    turned = options.rotations or options.turn_tasks
    return data.rotations_as_classes(source, turns_as_groups=options.turn_tasks) if turned else source


def one_group(options: argparse.Namespace) -> bool:
    """Returns whether the classes of an episode come from one group: an alphabet, or with --turn-tasks a turn."""
    return options.within_group or options.turn_tasks


def data_name(options: argparse.Namespace) -> str:
    """Returns what file names call the data: the name of an embedded set, or the last part of a folder's path."""
    return options.data if options.data in OWN_DATA else Path(options.data).resolve().name
