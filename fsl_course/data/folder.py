"""Image sets from your own pictures, one folder for each class."""

import warnings
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from fsl_course.data.imageset import SPLITS, ImageSet

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class _Class(NamedTuple):
    name: str
    group: str
    split: str | None
    pictures: list[Path]


def load_folder(path: str | Path, size: int = 28, channels: int = 1, *, invert: bool | str = "auto") -> ImageSet:
    """Loads every PNG, JPEG and WebP file below path: images uint8 [C, n, channels, size, size], n the largest class.

    Layouts, all read in sorted order (hidden files and files of other kinds are skipped):
        path/class/picture.png                   the group of a class is the name of its parent folder, here path
        path/group/class/picture.png             class names are then "group/class"
        path/{train,val,test}/...                either of the two inside each; these folders become the splits

    A picture is turned upright (EXIF), converted to grey (channels=1) or RGB (channels=3), scaled to fit into the square without
    distortion, and padded with its background, the median of its outermost pixels. Transparent parts become white, or black if
    the visible part is light on average, so that no drawing vanishes in its background. Only the first frame of an animation
    is read.

    invert: "auto" turns a grey picture into its negative if its background is lighter than mid-grey, because ink is light on
            dark everywhere in this course; colour pictures (channels=3) are not inverted. True: all; False: none.

    Raises FileNotFoundError or ValueError, which name the folder or file and say what to do: no folder, no class or only one, a
    class with fewer than two pictures (one for support, one for query), pictures that belong to no class, a class in two
    splits, a picture that is damaged or too large to be decoded safely, wrong arguments.
    """
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, 1 or more: the side of the square; got {size!r}.")
    if channels not in (1, 3) or isinstance(channels, bool):
        raise ValueError(f"channels must be 1 (grey) or 3 (colour); got {channels!r}.")
    if invert not in (True, False, "auto"):
        raise ValueError(f'invert must be True, False or "auto"; got {invert!r}.')
    root = Path(path).expanduser().resolve()
    classes = _find_splits(root)

    longest = max(len(entry.pictures) for entry in classes)
    images = np.zeros((len(classes), longest, channels, size, size), dtype=np.uint8)
    places = [(c, k, file) for c, entry in enumerate(classes) for k, file in enumerate(entry.pictures)]
    for c, k, file in tqdm(places, desc=f"reading {root.name}", unit=" pictures", delay=2, leave=False):
        images[c, k] = _read(file, size, channels, invert)
    return ImageSet(
        images=torch.from_numpy(images),
        counts=torch.tensor([len(entry.pictures) for entry in classes]),
        class_names=[entry.name for entry in classes],
        groups=[entry.group for entry in classes],
        splits=None if classes[0].split is None else [str(entry.split) for entry in classes],
        name=root.name,
    )


# --- which folder is which ---


def _visible(folder: Path) -> list[Path]:
    """Returns the visible contents of a folder by name, because the order of the disk differs between machines."""
    hidden = (".", "__MACOSX")
    return sorted(
        (entry for entry in folder.iterdir() if not entry.name.startswith(hidden)), key=lambda entry: entry.name
    )


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.is_dir()]


def _pictures(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.suffix.lower() in SUFFIXES and entry.is_file()]


def _find_splits(root: Path) -> list[_Class]:
    """Returns the classes of all splits, or those of root itself if it has no splits."""
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {root}: load_folder needs a folder with one folder per class.")
    if not root.is_dir():
        raise ValueError(
            f"{root} is a file: load_folder needs a folder with one folder per class (unpack an archive first)."
        )
    folders = _folders(root)
    splits = [folder for name in SPLITS for folder in folders if folder.name == name and not _pictures(folder)]
    if not splits:
        return _find_classes(root, None)
    if others := [folder.name for folder in folders if folder not in splits]:
        raise ValueError(
            f"{root} holds the split {splits[0].name} and beside it {', '.join(others)}: either all folders are splits, "
            f"called {', '.join(SPLITS)}, or none is. Rename or move the others."
        )
    if loose := _pictures(root):
        raise ValueError(f"{loose[0]} belongs to no class: move it into a class folder of one of the splits.")
    classes = [entry for split in splits for entry in _find_classes(split, split.name)]
    seen: dict[str, str | None] = {}
    for entry in classes:
        if entry.name in seen:
            raise ValueError(
                f"the class {entry.name} of {root} is in {seen[entry.name]} and in {entry.split}: in few-shot learning the "
                "splits share no class, because a test asks for classes never seen. Put all its pictures into one split."
            )
        seen[entry.name] = entry.split
    return classes


def _find_classes(root: Path, split: str | None) -> list[_Class]:
    """Returns the classes one or two levels below root, each with its pictures: at least two classes of at least two pictures."""
    if loose := _pictures(root):
        raise ValueError(f"{loose[0]} belongs to no class: put the pictures of each class into a folder of their own.")
    classes = []
    for folder in _folders(root):
        inner = _folders(folder)
        if inner and (loose := _pictures(folder)):
            raise ValueError(
                f"{loose[0]} lies beside the folder {inner[0].name}: a class holds pictures only, a group folders only."
            )
        for place in inner or [folder]:
            if deeper := _folders(place):
                raise ValueError(
                    f"{deeper[0]} lies too deep: classes are one or two levels below {root} (class, or group/class)."
                )
            classes.append(
                _Class(place.relative_to(root).as_posix(), place.parent.name, split, _checked_pictures(place))
            )
    if len(classes) < 2:
        found = f"only one class, {classes[0].name}" if classes else "no class folders"
        raise ValueError(
            f"{root} holds {found}: few-shot tasks need at least two classes, each in a folder of its own."
        )
    return classes


def _checked_pictures(folder: Path) -> list[Path]:
    pictures = _pictures(folder)
    if not pictures:
        others = [entry.name for entry in _visible(folder)]
        raise ValueError(
            f"the class folder {folder} holds no pictures ({', '.join(SUFFIXES)})"
            + (f", only files of other kinds such as {others[0]}" if others else "")
            + ": put some in, or remove the folder."
        )
    if len(pictures) < 2:
        raise ValueError(
            f"the class folder {folder} holds one picture, {pictures[0].name}: too few. "
            "A class needs at least two, one for support and one for query."
        )
    return pictures


# --- one picture ---


def _read(file: Path, size: int, channels: int, invert: bool | str) -> np.ndarray:
    """Reads one file -> uint8 [channels, size, size]."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # an error, not only a warning
            with Image.open(file) as opened:
                picture = _flat(ImageOps.exif_transpose(opened)).convert("L" if channels == 1 else "RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{file} has too many pixels to be decoded safely ({error}): save a smaller copy.") from error
    except Exception as error:  # decoders raise almost any exception on a damaged file
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{file} cannot be read as a picture ({reason}): replace it, or take it out of the folder."
        ) from error
    square, background = _square(picture, size)
    negative = channels == 1 and int(background[0]) > 127 if invert == "auto" else invert
    return 255 - square if negative else square


def _flat(picture: Image.Image) -> Image.Image:
    """Returns the picture with 8 bits per channel and without transparency."""
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255 instead of scaling
        values = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    alpha = np.asarray(picture.getchannel("A"), dtype=np.float64)
    grey = np.asarray(picture.convert("RGB").convert("L"), dtype=np.float64)
    paper = 0 if (grey * alpha).sum() > 127.5 * alpha.sum() else 255
    return Image.alpha_composite(Image.new("RGBA", picture.size, (paper, paper, paper, 255)), picture)


def _square(picture: Image.Image, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Fits a grey or RGB picture into the middle of a square: uint8 [c, size, size], and its background uint8 [c]."""
    pixels = np.atleast_3d(np.asarray(picture))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border, axis=0).astype(np.uint8)
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    # HAMMING averages over an area, as for the 28x28 Omniglot; BILINEAR enlarges smoothly
    small = picture.resize((width, height), Image.Resampling.HAMMING if scale < 1 else Image.Resampling.BILINEAR)
    square = np.empty((size, size, len(background)), dtype=np.uint8)
    square[:] = background
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = np.atleast_3d(np.asarray(small))
    return square.transpose(2, 0, 1), background
