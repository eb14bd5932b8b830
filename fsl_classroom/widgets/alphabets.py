"""An alphabet of one's own: what a drawing is, an example, and folders of PNGs as `load_folder` reads them."""

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
_NAMES = "alphabet.json"  # names as they were typed: a folder cannot carry all of them
_FOLDER, _DRAWING = re.compile(r"\d\d-.*"), re.compile(r"\d+\.png")


def _folder_name(position: int, name: str) -> str:
    """The number first: it keeps the order, and keeps apart what some disks do not ("a" and "A") or forbid ("CON", "..")."""
    plain = re.sub(r"[^\w-]", "_", name)[:30]
    return f"{position + 1:02d}-{plain}"


def save_alphabet(alphabet: Alphabet, folder: str | Path) -> Path:
    """Writes the characters that have drawings to a folder, whole or not at all; returns the folder.

    folder/01-A/0.png, folder/01-A/1.png, folder/02-B/0.png, ... ink white on black. `load_folder(folder)` reads it where
    there are two characters or more with two drawings or more each, as it needs support and query of every class.

    An alphabet saved there before is replaced. ValueError: nothing to save, or the folder holds anything else.
    OSError: disk full, folder that may not be written to; what was there before is untouched.
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
        shutil.rmtree(fresh, ignore_errors=True)  # there only when something went wrong
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
    """The first thing in the folder that no saved alphabet has; empty where there is none."""
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
    """What `save_alphabet` wrote; also any folder with one folder of 28x28 PNGs for each character.

    FileNotFoundError or ValueError, which name the folder or file and say what to do.
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
    """The names as they were typed; those of the folders where the list of them is missing or belongs to something else."""
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
    """A picture uint8 [1, 28, 28] (tensor or array), or strokes, as a drawing with ink; ValueError for anything else."""
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
    """A character's name without blanks around it; ValueError where it is empty or too long."""
    name = " ".join(str(name).split())
    if not 1 <= len(name) <= MAX_NAME:
        raise ValueError(f"a name has 1 to {MAX_NAME} letters; got {name!r}.")
    return name


def checked_alphabet(alphabet: Alphabet) -> Alphabet:
    """The alphabet with its names checked; ValueError where it is too large, or holds a blank drawing."""
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
    """A 5-way 2-shot task of the test split: the alphabet A to E, a query, the name that is right, and the script."""
    source = load_glyphs().split("test")
    layout = EpisodeSampler(source, 5, 2, 1, seed=0, within_group=True).layout(seed, 1)
    pictures = source.images.flatten(0, 1)
    alphabet: Alphabet = {letter: [] for letter in LETTERS[:5]}
    for position, slot in zip(layout.support[0].tolist(), layout.support_y[0].tolist(), strict=True):
        alphabet[LETTERS[slot]].append(pictures[position].clone())
    answer = LETTERS[int(layout.query_y[0, 0])]
    return alphabet, pictures[int(layout.query[0, 0])].clone(), answer, source.groups[int(layout.classes[0, 0])]
