"""Finds the embedded data and weights, checks that they are intact, and loads the embedded image sets."""

import hashlib
import json
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch

from fsl_course.data.imageset import ImageSet

_IN_WHEEL = Path(__file__).resolve().parent.parent / "assets"  # an installed package carries data/ here
_IN_CHECKOUT = Path(__file__).resolve().parent.parent.parent / "data"
# what no lesson loads, and the wheel therefore does not carry: as in pyproject.toml, which builds it
REPOSITORY_ONLY = (
    "checkpoints/*-omniglot-alphabets*.safetensors",
    "checkpoints/*-omniglot-first_order-*.safetensors",
    "checkpoints/*-omniglot-full_context.safetensors",
)


def asset(name: str) -> Path:
    """Returns the path of an embedded file, e.g. asset("glyphs.npz"). Raises FileNotFoundError if it is missing."""
    for root in (_IN_WHEEL, _IN_CHECKOUT):
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(
        f"the embedded file {name} is missing from {_IN_CHECKOUT} (a checkout) and {_IN_WHEEL} (an installed package): "
        "the installation is incomplete. Clone the repository again, or reinstall the package."
    )


def left_out(name: str) -> bool:
    """Returns True if name is an embedded file that the repository holds and the installed package does not."""
    if any((root / name).is_file() for root in (_IN_WHEEL, _IN_CHECKOUT)):
        return False
    listed = name in json.loads(asset("checksums.json").read_text(encoding="utf-8"))
    return listed and any(fnmatch(name, pattern) for pattern in REPOSITORY_ONLY)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified(name: str) -> Path:
    """Returns the path of an embedded file. Raises ValueError unless its SHA-256 is the one in data/checksums.json."""
    path = asset(name)
    expected = json.loads(asset("checksums.json").read_text(encoding="utf-8")).get(name)
    if expected is None:
        raise ValueError(f"{name} is not listed in data/checksums.json: run `python -m tools.data.checksums`.")
    if (found := sha256(path)) != expected:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., expected {expected[:12]}.... "
            f"Restore it with `git checkout -- data/{name}`, or reinstall the package."
        )
    return path


def load_embedded(name: str, group: str) -> ImageSet:
    """Returns the image set of data/NAME.npz: images and, for each class, a name, a split and a group, from the array `group`.

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


def load_glyphs() -> ImageSet:
    """Loads the letters of 50 scripts, offline: images uint8 [1529, 20, 1, 28, 28], ink 255 on 0, one group for each script.

    Splits share no script: 30 scripts for training, 7 for validation, 13 for test. Class names are the letters' Unicode
    names in lower case. Raises FileNotFoundError if the file is missing and ValueError if it is damaged.
    """
    return load_embedded("glyphs", group="script")


def load_icons() -> ImageSet:
    """Loads ideas, each drawn by 20 designers: images uint8 [300, 20, 1, 28, 28], ink 255 on 0, one group for each theme.

    Splits share no class: 180 classes for training, 60 for validation, 60 for test; a theme may occur in all three. Class
    names are words ("alarm clock"). Raises FileNotFoundError if the file is missing and ValueError if it is damaged.
    """
    return load_embedded("icons", group="theme")
