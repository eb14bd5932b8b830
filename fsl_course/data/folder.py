"""Image sets from your own pictures, one folder for each class."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from fsl_course.data.imageset import SPLITS, ImageSet
from fsl_course.data.pictures import SUFFIXES, check_form, is_negative, square_picture

_NOT_MISSED = ("thumbs.db", "desktop.ini")  # what systems put beside pictures by themselves
_MOST_PADDING = 2**33  # bytes of pictures from where a folder that is mostly padding is refused


class _Class(NamedTuple):
    name: str
    group: str
    split: str | None
    pictures: list[Path]
    left_out: list[Path]


def load_folder(path: str | Path, size: int = 28, channels: int = 1, *, invert: bool | str = "auto") -> ImageSet:
    """Loads every PNG, JPEG and WebP file below path: images uint8 [C, n, channels, size, size], n the largest class.

    Layouts, all read in sorted order:
        path/class/picture.png                   the group of a class is the name of its parent folder, here path
        path/group/class/picture.png             class names are then "group/class"
        path/{train,val,test}/...                either of the two inside each; these folders become the splits
    Hidden files are skipped. Files of other kinds in a class folder are left out, and a warning names them.

    A picture is turned upright (EXIF), converted to grey (channels=1) or RGB (channels=3), scaled to fit into the square without
    distortion, and padded with its background, the median of its outermost pixels. Transparent parts become white, or black if
    the visible part is light on average. Only the first frame of an animation is read.

    invert: "auto" decides once for the whole set: grey pictures become their negatives if most backgrounds are lighter than
            mid-grey, because ink is light on dark everywhere in this course; colour pictures (channels=3) stay as they are.
            True: all; False: none. The field `inverted` of the result says what was done.

    Raises FileNotFoundError or ValueError, which name the folder or file and say what to do: no folder, fewer than two classes,
    fewer than two pictures in one, pictures that belong to no class, a class in two splits, a picture that is damaged or too
    large to be decoded safely, one class so large that the others' padding takes the memory, wrong arguments.
    """
    check_form(size, channels, invert)
    root = Path(path).expanduser().resolve()
    classes = class_folders(root)
    images = _room_for(classes, channels * size * size).reshape(len(classes), -1, channels, size, size)
    places = [(c, k, file) for c, entry in enumerate(classes) for k, file in enumerate(entry.pictures)]
    backgrounds = []
    for c, k, file in tqdm(places, desc=f"reading {root.name}", unit=" pictures", delay=2, leave=False, disable=None):
        images[c, k], background = square_picture(file, size, channels)
        backgrounds.append(background)
    counts = [len(entry.pictures) for entry in classes]
    negative = is_negative(backgrounds, channels, invert)
    for pictures, count in zip(images, counts, strict=True) if negative else ():
        np.subtract(255, pictures[:count], out=pictures[:count])  # the padding stays 0
    return ImageSet(
        images=torch.from_numpy(images),
        counts=torch.tensor(counts),
        class_names=[entry.name for entry in classes],
        groups=[entry.group for entry in classes],
        splits=None if classes[0].split is None else [str(entry.split) for entry in classes],
        name=root.name,
        inverted=negative,
    )


def _room_for(classes: list[_Class], numbers: int) -> np.ndarray:
    """Returns zeros uint8 [C, n * numbers], n the size of the largest class. Raises ValueError where that is too much memory."""
    counts = [len(entry.pictures) for entry in classes]
    longest, usual = max(counts), sorted(counts)[len(counts) // 2]
    room = len(classes) * longest * numbers
    try:
        if room > _MOST_PADDING and room > 2 * sum(counts) * numbers:
            raise MemoryError
        return np.zeros((len(classes), longest * numbers), dtype=np.uint8)
    except (MemoryError, ValueError):  # NumPy raises ValueError beyond the address space
        big = classes[counts.index(longest)].name
        raise ValueError(
            f"the class {big} has {longest} pictures, half of the {len(classes)} classes at most {usual}. Every class takes the "
            f"room of the largest, {room / 1e9:.1f} GB in all: take pictures out of {big}, or choose a smaller size."
        ) from None


def _name_left_out(files: list[Path], root: Path) -> None:
    """Warns of files in class folders that are not read."""
    if files:
        names = ", ".join(file.relative_to(root).as_posix() for file in files[:3]) + ", ..." * (len(files) > 3)
        warnings.warn(
            f"{len(files)} file{'s' * (len(files) > 1)} of {root.name} left out ({names}): only regular files that end in "
            f"{', '.join(SUFFIXES)} are read as pictures.",
            stacklevel=4,
        )


# --- which folder is which ---


def class_folders(root: Path, least: int = 2) -> list[_Class]:
    """Returns the classes below root as `load_folder` finds them, with the names and paths of their pictures.

    least: pictures that every class needs. Raises what `load_folder` raises, and warns of files that are left out.
    """
    classes = _find_splits(root, least)
    _name_left_out([file for entry in classes for file in entry.left_out], root)
    return classes


def _visible(folder: Path) -> list[Path]:
    """Returns the visible contents of a folder by name, because the order of the disk differs between machines."""
    seen = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    return sorted(seen, key=lambda entry: entry.name)


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.is_dir()]


def pictures_in(folder: Path) -> list[Path]:
    """Returns the visible pictures of a folder by name, none of its folders."""
    return [entry for entry in _visible(folder) if entry.suffix.lower() in SUFFIXES and entry.is_file()]


def _find_splits(root: Path, least: int) -> list[_Class]:
    """Returns the classes of all splits, or those of root itself if it has no splits."""
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {root}: load_folder needs a folder with one folder per class.")
    if not root.is_dir():
        raise ValueError(f"{root} is a file: load_folder needs a folder with one folder per class: unpack it.")
    folders = _folders(root)
    splits = [folder for name in SPLITS for folder in folders if folder.name == name and not pictures_in(folder)]
    if not splits:
        return _find_classes(root, None, least)
    if others := [folder.name for folder in folders if folder not in splits]:
        raise ValueError(
            f"{root} holds the split {splits[0].name} and beside it {', '.join(others)}: either all folders are splits, "
            f"called {', '.join(SPLITS)}, or none is. Rename or move the others."
        )
    if loose := pictures_in(root):
        raise ValueError(f"{loose[0]} belongs to no class: move it into a class folder of one of the splits.")
    classes = [entry for split in splits for entry in _find_classes(split, split.name, least)]
    seen: dict[str, _Class] = {}
    for entry in classes:
        if (other := seen.setdefault(entry.name, entry)) is not entry:
            raise ValueError(
                f"the class {entry.name} of {root} is in {other.split} and in {entry.split}: in few-shot learning the splits "
                "share no class, because a test asks for classes never seen. Put all its pictures into one split."
            )
    return classes


def _find_classes(root: Path, split: str | None, least: int) -> list[_Class]:
    """Returns the classes one or two levels below root, each with its pictures: at least two classes."""
    if loose := pictures_in(root):
        raise ValueError(f"{loose[0]} belongs to no class: put the pictures of each class into a folder of their own.")
    classes = []
    for folder in _folders(root):
        inner = _folders(folder)
        if inner and (loose := pictures_in(folder)):
            words = "a class holds pictures only, a group folders only."
            raise ValueError(f"{loose[0]} lies beside the folder {inner[0].name}: {words}")
        for place in inner or [folder]:
            if deeper := _folders(place):
                raise ValueError(f"{deeper[0]} lies too deep: classes are one or two levels below {root}.")
            name, pictures = place.relative_to(root).as_posix(), _checked_pictures(place, least)
            others = [e for e in _visible(place) if e not in pictures and e.name.lower() not in _NOT_MISSED]
            classes.append(_Class(name, place.parent.name, split, pictures, others))
    if len(classes) < 2:
        found = f"only one class, {classes[0].name}" if classes else "no class folders"
        raise ValueError(f"{root} holds {found}: few-shot tasks need at least two classes, each in its folder.")
    return classes


def _checked_pictures(folder: Path, least: int) -> list[Path]:
    pictures = pictures_in(folder)
    if not pictures:
        others = [entry.name for entry in _visible(folder)]
        raise ValueError(
            f"the class folder {folder} holds no pictures ({', '.join(SUFFIXES)})"
            + (f", only files of other kinds such as {others[0]}" if others else "")
            + ": put some in, or remove the folder."
        )
    if len(pictures) < least:
        raise ValueError(
            f"the class folder {folder} holds one picture, {pictures[0].name}: too few. "
            "A class needs at least two, one for support and one for query."
        )
    return pictures
