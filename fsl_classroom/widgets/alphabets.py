"""Alphabets that learners draw: checks of drawings and names, an example, and folders of PNGs that `load_folder` reads."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fsl_classroom.widgets.sketch_pad import rasterise
from fsl_course.data import load_glyphs
from fsl_course.episodes import EpisodeSampler

Alphabet = dict[str, list[Tensor]]  # name of a character -> its drawings, uint8 [1, 28, 28], ink 255 on 0

SIDE = 28
MAX_CHARACTERS, MAX_DRAWINGS, MAX_NAME = 10, 5, 20
LETTERS = "ABCDEFGHIJ"
_NAMES = "alphabet.json"  # the names as typed, because not every name can be a folder's name
_FOLDER, _DRAWING = re.compile(r"\d\d-.*"), re.compile(r"\d+\.png")


def _folder_name(position: int, name: str) -> str:
    """Returns a folder name that begins with the number.

    The number keeps the order, and it separates names that some disks confuse ("a" and "A") or forbid ("CON", "..").
    """
    plain = re.sub(r"[^\w-]", "_", name)[:30]
    return f"{position + 1:02d}-{plain}"


def save_alphabet(alphabet: Alphabet, folder: str | Path) -> Path:
    """Writes the characters that have drawings to a folder, whole or not at all; returns the folder.

    folder/01-A/0.png, folder/01-A/1.png, folder/02-B/0.png, ... ink white on black. `load_folder(folder)` can read it if it
    has at least two characters with at least two drawings each, because every class needs support and query.

    Replaces an alphabet that was saved there before. Raises ValueError if there is nothing to save, or if the folder holds
    anything but a saved alphabet. Raises OSError, and leaves everything there untouched, if the disk is full or the folder
    is not writable.
    """
    alphabet = {name: drawings for name, drawings in alphabet.items() if drawings}
    folder = Path(folder).expanduser().resolve()
    if not alphabet:
        raise ValueError("there is nothing to save yet: add a drawing first.")
    if other := _foreign(folder):
        raise ValueError(
            f"{folder} holds something that is no saved alphabet ({other}): nothing was written. Name a new folder."
        )
    mark = uuid.uuid4().hex[:8]
    fresh, old = (folder.with_name(f".{folder.name}-{mark}-{word}") for word in ("new", "old"))
    try:
        _write(alphabet, fresh)
        if folder.exists():
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as error:
        raise OSError(
            f"could not write {folder} ({error.strerror or error}). What was there before is untouched, and your drawings "
            "are still here. Free some disk space, or name a folder that you may write to."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # exists only if something went wrong
    shutil.rmtree(old, ignore_errors=True)
    return folder


def _write(alphabet: Alphabet, folder: Path) -> None:
    folder.mkdir(parents=True)
    for position, (name, drawings) in enumerate(alphabet.items()):
        place = folder / _folder_name(position, name)
        place.mkdir()
        for number, drawing in enumerate(drawings):
            Image.fromarray(drawing[0].numpy()).save(place / f"{number}.png")
    (folder / _NAMES).write_text(json.dumps({"names": list(alphabet)}, ensure_ascii=False), encoding="utf-8")


def _foreign(folder: Path) -> str:
    """Returns the first entry of the folder that does not belong to a saved alphabet, or "" if there is none."""
    if not folder.exists():
        return ""
    if not folder.is_dir():
        return "it is a file"
    entries = sorted(folder.iterdir())
    if entries and not (folder / _NAMES).is_file():
        return entries[0].name
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink() and _FOLDER.fullmatch(entry.name):
            if others := [inner.name for inner in sorted(entry.iterdir()) if not _DRAWING.fullmatch(inner.name)]:
                return f"{entry.name}/{others[0]}"
        elif entry.name != _NAMES:
            return entry.name
    return ""


def load_alphabet(folder: str | Path) -> Alphabet:
    """Reads what `save_alphabet` wrote, or any folder with one folder of 28x28 PNGs for each character.

    Raises FileNotFoundError or ValueError with a message that names the folder or file and says what to do.
    """
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: save an alphabet first, or name another folder.")
    places = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    found = {p: sorted(p.glob("*.png"), key=lambda file: (len(file.name), file.name)) for p in places}
    found = {place: files for place, files in found.items() if files}
    if not found:
        raise ValueError(f"{folder} holds no folders with PNG pictures: an alphabet has one for each character.")
    names = _names(folder, list(found))
    return {name: [_read(file) for file in files] for name, files in zip(names, found.values(), strict=True)}


def _names(folder: Path, places: list[Path]) -> list[str]:
    """Returns the names as typed, or the names of the folders if the list of names is missing or does not fit."""
    try:
        names = json.loads((folder / _NAMES).read_text(encoding="utf-8"))["names"]
        fits = len(set(names)) == len(places) and all(isinstance(name, str) for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        fits = False
    return names if fits else [place.name for place in places]


def _read(file: Path) -> Tensor:
    try:
        with Image.open(file) as opened:
            pixels = np.array(opened.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as a picture ({error}): replace it or take it out.") from error
    if pixels.shape != (SIDE, SIDE):
        raise ValueError(
            f"{file} is {pixels.shape[1]}x{pixels.shape[0]} pixels; an alphabet has {SIDE}x{SIDE}. "
            "For pictures of any size there is load_folder."
        )
    return torch.from_numpy(pixels)[None]


def drawing_of(source: Any) -> Tensor:
    """Returns a drawing from a picture uint8 [1, 28, 28] (tensor or array) or from strokes.

    Raises ValueError if it is neither, or if it has no ink.
    """
    if isinstance(source, (Tensor, np.ndarray)):
        picture = torch.as_tensor(source).detach().cpu()
        if picture.dtype != torch.uint8 or picture.shape != (1, SIDE, SIDE):
            raise ValueError(
                f"a drawing is uint8 [1, {SIDE}, {SIDE}], ink 255 on 0; got {picture.dtype} {list(picture.shape)}."
            )
        picture = picture.clone()
    else:
        picture = rasterise(source, SIDE)
    if not picture.any():
        raise ValueError("there is nothing on the pad: draw something first.")
    return picture


def checked_name(name: str) -> str:
    """Returns a character's name without superfluous blanks. Raises ValueError if it is empty or too long."""
    name = " ".join(str(name).split())
    if not 1 <= len(name) <= MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} letters; got {name!r}.")
    return name


def checked_alphabet(alphabet: Alphabet) -> Alphabet:
    """Returns the alphabet with checked names. Raises ValueError if it is too large, has a blank drawing, or two equal names."""
    longest = max(len(drawings) for drawings in alphabet.values())
    if len(alphabet) > MAX_CHARACTERS or longest > MAX_DRAWINGS:
        raise ValueError(
            f"this alphabet has {len(alphabet)} characters with up to {longest} drawings; there is room for "
            f"{MAX_CHARACTERS} with {MAX_DRAWINGS} each. Nothing was changed."
        )
    if blank := [name for name, drawings in alphabet.items() if not all(bool(d.any()) for d in drawings)]:
        raise ValueError(f"this alphabet has a blank drawing of {blank[0]}: remove it. Nothing was changed.")
    checked = {checked_name(name): drawings for name, drawings in alphabet.items()}
    if len(checked) < len(alphabet):
        raise ValueError(f"two names differ in blanks only: {', '.join(alphabet)}. Nothing was changed.")
    return checked


def example(seed: int = 0) -> tuple[Alphabet, Tensor, str, str]:
    """Returns a 5-way 2-shot task of the test split: the alphabet A to E, a query, the query's name, and the script."""
    source = load_glyphs().split("test")
    layout = EpisodeSampler(source, 5, 2, 1, seed=0, within_group=True).layout(seed, 1)
    pictures = source.images.flatten(0, 1)
    alphabet: Alphabet = {letter: [] for letter in LETTERS[:5]}
    for position, slot in zip(layout.support[0].tolist(), layout.support_y[0].tolist(), strict=True):
        alphabet[LETTERS[slot]].append(pictures[position].clone())
    answer = LETTERS[int(layout.query_y[0, 0])]
    return alphabet, pictures[int(layout.query[0, 0])].clone(), answer, source.groups[int(layout.classes[0, 0])]
