"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): 1,623 handwritten characters of 50 alphabets, 20 drawings each.

The drawings are shrunk once from 105x105 bits to 28x28 grey values by a triangle filter (in Pillow and torchvision: bilinear
with antialiasing, torchvision's default), and kept in a cache.

Why a triangle? Pillow resizes pictures of one bit per pixel by nearest neighbour whatever filter it is given, so the published
code of MAML and of prototypical networks sees ragged strokes. Comparing pixels works best after the triangle (48.5 % 5-way
1-shot; area averages 47.1, nearest 43.7). It is computed in whole numbers: the same bytes with every Pillow on every machine.
"""

import hashlib
import io
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from fsl_course._system.files import replace_file
from fsl_course._system.torchvision_guard import import_torchvision
from fsl_course.data.imageset import ImageSet, rotations_as_classes, split_classes

# The five smallest background alphabets (14, 14, 16, 17 and 20 characters), as chosen by Meta-Dataset (Triantafillou et al.
# 2020): validation takes only 81 of 964 characters from training, and the three related syllabics stay in one split.
VALIDATION_ALPHABETS = (
    "Alphabet_of_the_Magi",
    "Blackfoot_(Canadian_Aboriginal_Syllabics)",
    "Inuktitut_(Canadian_Aboriginal_Syllabics)",
    "Ojibwe_(Canadian_Aboriginal_Syllabics)",
    "Tagalog",
)
PROTOCOLS = ("alphabets", "random")
SOURCE = "https://github.com/brendenlake/omniglot, folder python"


class _Part(NamedTuple):
    alphabets: int
    characters: int
    sha256: str  # of names and 105x105 bits in sorted order, so that a zip packed anew still passes


_PARTS = {
    "images_background": _Part(30, 964, "8604df40adc8e4ff79e99980d28e709a2dff63a0001562373c000dc08f25f9fa"),
    "images_evaluation": _Part(20, 659, "59c96741ae5daf300ee45bfe15fe0496fe9ed562f1b3b7fbb2b83a311188bdc4"),
}
_DRAWINGS, _SIDE, _SIZE = 20, 105, 28


def load_omniglot(
    root: str | Path | None = None, *, protocol: str = "alphabets", rotations: bool = False, download: bool = False
) -> ImageSet:
    """Loads Omniglot as one tensor: images uint8 [1623, 20, 1, 28, 28], ink 255 on 0; groups are the alphabets.

    root:      the folder that holds omniglot-py/images_background(.zip) and omniglot-py/images_evaluation(.zip), zipped or
               unpacked (the zip is read if both exist), or omniglot-py itself; None: the environment variable FSL_DATA
    protocol:  "alphabets": the background alphabets for training, except the five of VALIDATION_ALPHABETS; the evaluation
               alphabets for test. "random": 1100 / 100 / 423 characters from a seeded shuffle of the sorted list of all 1,623
               names, so one alphabet has characters in several splits, as in Vinyals et al. 2016
    rotations: makes every character turned by 90, 180 and 270 degrees a class of its own: 6,492 classes
    download:  fetches missing files through torchvision into root

    The first call writes a cache to the folder FSL_CACHE (default ~/.cache/fsl_course). Raises FileNotFoundError if root or a
    part of it is missing, ValueError for another file than the published one, ImportError or ConnectionError for a download.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"there is no protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}.")
    parts = find_parts(root, download)
    cache = _cache_file()
    found = _read_cache(cache)
    if found is None:
        found = _build(parts)
        _write_cache(cache, *found)
    images, names = found
    groups = [name.split("/")[0] for name in names]
    background = _PARTS["images_background"].characters
    splits = ["val" if group in VALIDATION_ALPHABETS else "train" for group in groups[:background]]
    source = ImageSet(
        images=images,
        counts=torch.full((len(names),), _DRAWINGS),
        class_names=names,
        groups=groups,
        splits=splits + ["test"] * (len(names) - background),
        name="omniglot",
    )
    if protocol == "random":
        source = split_classes(source, fractions=(1100 / 1623, 100 / 1623, 423 / 1623), seed=0)
    return rotations_as_classes(source) if rotations else source


def load_lake_runs(folder: str | Path) -> ImageSet:
    """Loads the published runs of Lake's one-shot test: images uint8 [R*20, 2, 1, 28, 28], the training and the test drawing.

    folder: holds run01, run02, ..., each with class_labels.txt, training and test, as all_runs.zip of the authors unpacks
    The groups are the runs, all classes are of the split "test". Raises FileNotFoundError where nothing or a file is missing,
    ValueError for a run that is no list of 20 pairs or a file that is no drawing.
    """
    root = Path(folder).expanduser()
    images, names = [], []
    for run in sorted(path.parent for path in root.glob("run*/class_labels.txt")):
        pairs = [
            line.split() for line in (run / "class_labels.txt").read_text(encoding="utf-8").splitlines() if line.strip()
        ]
        if len(pairs) != 20 or any(len(pair) != 2 for pair in pairs) or len({trained for _, trained in pairs}) != 20:
            raise ValueError(f"{run / 'class_labels.txt'} should pair 20 test drawings with 20 training drawings.")
        for test, trained in sorted(pairs, key=lambda pair: pair[1]):
            files = [root / PurePosixPath(name) for name in (trained, test)]
            images.append(_shrink(np.stack([_ink(file.read_bytes(), str(file)) for file in files])))
            names.append(f"{run.name}/{PurePosixPath(trained).stem}")
    if not images:
        raise FileNotFoundError(
            f"{root} holds no run01/class_labels.txt: name the folder that all_runs.zip unpacks into."
        )
    return ImageSet(
        images=torch.from_numpy(np.stack(images)[:, :, None]),
        counts=torch.full((len(names),), 2),
        class_names=names,
        groups=[name.split("/")[0] for name in names],
        splits=["test"] * len(names),
        name="omniglot runs",
    )


def find_parts(root: str | Path | None = None, download: bool = False) -> dict[str, Path]:
    """Returns the zip or the unpacked folder of each part. Arguments and errors are those of `load_omniglot`."""
    given = root if root is not None else os.environ.get("FSL_DATA")
    if not given:
        raise FileNotFoundError(
            "where is Omniglot? Give load_omniglot a root, or set the environment variable FSL_DATA: the folder that holds "
            "(or, with download=True, shall hold) omniglot-py/images_background.zip and omniglot-py/images_evaluation.zip."
        )
    root, found = Path(given).expanduser().resolve(), {}
    for part in _PARTS:
        homes = (root / "omniglot-py", root)
        candidates = [home / f"{part}.zip" for home in homes] + [home / part for home in homes]
        found[part] = next((path for path in candidates if path.is_file() or path.is_dir()), None)
    missing = [part for part, path in found.items() if path is None]
    if missing and download:
        _download(root, missing)
        return find_parts(root)
    if missing:
        raise FileNotFoundError(
            f"{root} holds no {' and no '.join(f'{part}.zip' for part in missing)}, neither there nor in its folder omniglot-py, "
            f"zipped or unpacked. Name another root (or FSL_DATA), get the files from {SOURCE}, or pass download=True."
        )
    return found


def _download(root: Path, parts: list[str]) -> None:
    """Downloads the zips of these parts into a scratch folder and moves them into place only when all are complete."""
    torchvision = import_torchvision()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as scratch:
        try:
            for part in parts:
                torchvision.datasets.Omniglot(scratch, background=part == "images_background", download=True)
        except (OSError, RuntimeError) as error:  # no network, or a file that fails torchvision's checksum
            raise ConnectionError(
                f"Omniglot could not be downloaded ({error}), and nothing of it was kept. Try again with a network, or "
                f"bring {' and '.join(f'{part}.zip' for part in parts)} from {SOURCE} into {root / 'omniglot-py'}."
            ) from error
        home = root if root.name == "omniglot-py" else root / "omniglot-py"
        home.mkdir(exist_ok=True)
        for part in parts:
            os.replace(Path(scratch, "omniglot-py", f"{part}.zip"), home / f"{part}.zip")


def _build(parts: dict[str, Path]) -> tuple[Tensor, list[str]]:
    """Decodes, checks and shrinks every drawing: images uint8 [C, 20, 1, 28, 28] and the C names, background first."""
    images, names = [], []
    total = _DRAWINGS * sum(part.characters for part in _PARTS.values())
    with tqdm(desc="Omniglot to 28x28 (once)", unit=" drawings", total=total, delay=1, leave=False) as bar:
        for part, path in parts.items():
            digest = hashlib.sha256()
            for name, ink in characters(part, path):
                digest.update(name.encode() + b"\0" + np.packbits(ink).tobytes())
                images.append(_shrink(ink))
                names.append(name)
                bar.update(_DRAWINGS)
            if digest.hexdigest() != _PARTS[part].sha256:
                raise ValueError(
                    f"{path} has as many alphabets, characters and drawings as it should, but other names or pixels than the "
                    f"published Omniglot: SHA-256 {digest.hexdigest()[:12]}..., expected {_PARTS[part].sha256[:12]}.... "
                    f"Delete it and get it again from {SOURCE}."
                )
    return torch.from_numpy(np.stack(images)[:, :, None]), names


def _shrink(ink: np.ndarray) -> np.ndarray:
    """Applies the triangle filter: bool [n, 105, 105] -> uint8 [n, 28, 28], 255 if everything under the triangle is ink.

    Cell i is centred at 3.75 (i + 0.5), pixel j at j + 0.5, and the triangle reaches 3.75 pixels to each side. In units of 1/30
    its weights are the whole numbers 30 - |8j - 30i - 11|, so the sums are exact in float32.
    """
    cells, pixels = np.arange(_SIZE)[:, None], np.arange(_SIDE)[None]
    weights = np.maximum(0, 30 - np.abs(8 * pixels - 30 * cells - 11)).astype(np.float32)
    sums = (weights @ ink.astype(np.float32) @ weights.T).astype(np.int64)
    total = weights.sum(1).astype(np.int64)
    whole = total[:, None] * total[None]  # smaller at the edges, where the triangle reaches beyond the picture
    return ((510 * sums + whole) // (2 * whole)).astype(np.uint8)


def characters(part: str, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields every character of a part in sorted order: name "Alphabet/character01" and drawings, bool [20, 105, 105]."""
    with _opened(path) as (members, read):
        classes: dict[str, list[str]] = {}
        for member in sorted(members):
            classes.setdefault("/".join(PurePosixPath(member).parts[-3:-1]), []).append(member)
        _check_counts(part, path, classes)
        for name, drawings in classes.items():
            yield name, np.stack([_ink(read(member), f"{member} in {path}") for member in drawings])


@contextmanager
def _opened(path: Path):
    """Yields the PNG files in a zip or a folder, and a function that reads one of them."""

    def wanted(member: str) -> bool:
        parts = PurePosixPath(member).parts
        return len(parts) >= 3 and member.endswith(".png") and not any(p.startswith((".", "__MACOSX")) for p in parts)

    if path.is_dir():
        files = (file.relative_to(path.parent).as_posix() for file in path.glob("*/*/*.png"))
        yield list(filter(wanted, files)), lambda member: (path.parent / member).read_bytes()
        return
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            yield list(filter(wanted, archive.namelist())), archive.read
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(
            f"{path} is a damaged or half-downloaded zip ({error}). Delete it and get it again from {SOURCE}."
        ) from error


def _check_counts(part: str, path: Path, classes: dict[str, list[str]]) -> None:
    """Raises ValueError if a part has too few or too many files, before any drawing is decoded."""
    expected = _PARTS[part]
    cure = f"Delete it and get it again from {SOURCE}."
    if (alphabets := len({name.split("/")[0] for name in classes})) != expected.alphabets:
        raise ValueError(f"{path} holds {alphabets} alphabets, expected {expected.alphabets}. {cure}")
    if len(classes) != expected.characters:
        raise ValueError(f"{path} holds {len(classes)} characters, expected {expected.characters}. {cure}")
    for name, drawings in classes.items():
        if len(drawings) != _DRAWINGS:
            raise ValueError(f"{name} in {path} has {len(drawings)} drawings, expected {_DRAWINGS}. {cure}")


def _ink(data: bytes, where: str) -> np.ndarray:
    """Decodes one PNG file, black ink on white -> bool [105, 105], True where there is ink."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            # the published files have one bit per pixel and need no conversion
            white = np.asarray(picture) if picture.mode == "1" else np.asarray(picture.convert("L")) > 127
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{where} is not a readable picture ({error}). Get it again from {SOURCE}.") from error
    if white.shape != (_SIDE, _SIDE):
        size = f"{white.shape[1]}x{white.shape[0]}"
        raise ValueError(f"{where} has {size} pixels; the drawings of Omniglot have {_SIDE}x{_SIDE}.")
    return ~white


def _cache_file() -> Path:
    """Returns the cache file of the small drawings. Its name has a digest of the source, so other data get another file."""
    folder = os.environ.get("FSL_CACHE") or Path("~", ".cache", "fsl_course")
    content = hashlib.sha256("".join(part.sha256 for part in _PARTS.values()).encode()).hexdigest()
    return Path(folder) / f"omniglot-{_SIZE}-triangle-{content[:12]}.npz"


def _read_cache(path: Path) -> tuple[Tensor, list[str]] | None:
    """Returns the cached images and names, or None if there is no cache or (with a warning) if it is damaged."""
    try:
        with np.load(path.expanduser()) as file:  # whose format compares checksums
            return torch.from_numpy(file["images"]), file["names"].tolist()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        warnings.warn(f"the cache {path} is of no use ({error}): Omniglot is read anew.", stacklevel=3)
        return None


def _write_cache(path: Path, images: Tensor, names: list[str]) -> None:
    """Writes the cache. Only warns if that is impossible."""
    content = io.BytesIO()
    np.savez(content, images=images.numpy(), names=names)
    try:
        path = path.expanduser()
        replace_file(path, content.getvalue())
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        warnings.warn(f"no cache at {path} ({error}): Omniglot is read anew next time. Set FSL_CACHE.", stacklevel=3)
