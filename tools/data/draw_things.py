"""Draws a folder of coloured things, a stand-in for photographs of your own: `python -m tools.data.draw_things FOLDER`.

Each class is one design (outline, two colours, pattern, spots for eyes), drawn from the seed. Its pictures differ in place, size,
turn, light, colour of the lamp and background, as photographs of one thing do. Nothing is downloaded, and nothing is committed:
the same seed draws the same folder again. With 36 classes of 20 pictures of 64 x 64 pixels it holds 8 MB.
"""

import argparse
import colorsys
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from fsl_course.cli.options import Parser, whole
from fsl_course.cli.terminal import exit_status

PATTERNS = ("plain", "stripes", "rings", "checks", "dots")
FINE = 3  # pixels drawn for one pixel kept, in both directions


@dataclass(frozen=True)
class Design:
    """What the pictures of one class share. Radii of the outline: 1 + depth * cos(lobes * angle), then squeezed by `flat`."""

    lobes: int
    depth: float
    flat: float
    hues: tuple[float, float]
    pattern: str
    pitch: float
    eyes: int


def designs(classes: int, rng: np.random.Generator) -> list[Design]:
    """Draws as many designs. Colours repeat among them, so that colour alone does not tell the classes apart."""
    hues = rng.permutation(np.linspace(0, 1, 7)[:-1])
    return [
        Design(
            lobes=int(rng.integers(2, 9)),
            depth=float(rng.uniform(0.05, 0.35)),
            flat=float(rng.uniform(0.55, 1.0)),
            hues=tuple(map(float, rng.choice(hues, 2, replace=False))),
            pattern=PATTERNS[n % len(PATTERNS)],
            pitch=float(rng.uniform(4, 9)),
            eyes=int(rng.integers(0, 4)),
        )
        for n in range(classes)
    ]


def picture(design: Design, size: int, rng: np.random.Generator) -> Image.Image:
    """Draws one picture of a design, size x size pixels."""
    side = size * FINE
    rows, columns = np.mgrid[0:side, 0:side] / side * 2 - 1
    scale, turn, (top, left) = rng.uniform(0.5, 0.8), rng.uniform(-0.9, 0.9), rng.uniform(-0.25, 0.25, 2)
    y, x = (rows - top) / scale, (columns - left) / scale
    y, x = (np.cos(turn) * y - np.sin(turn) * x) / design.flat, np.sin(turn) * y + np.cos(turn) * x
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    inside = radius < (1 + design.depth * np.cos(design.lobes * angle)) / (1 + design.depth)
    canvas = _background(rows, columns, rng)
    first, second = (_colour(hue, rng) for hue in design.hues)
    canvas[inside] = first
    canvas[inside & _pattern(design, x, y, radius)] = second
    for n in range(design.eyes):
        eye = np.hypot(x - 0.45 * (n - (design.eyes - 1) / 2), y + 0.35)
        canvas[eye < 0.14] = (245, 245, 245)
        canvas[eye < 0.07] = (15, 15, 25)
    light = 1 + rng.uniform(0, 0.5) * (rows * np.sin(way := rng.uniform(0, 6.3)) + columns * np.cos(way)) * 0.7
    canvas = canvas * light[..., None] * rng.uniform(0.75, 1.1) * rng.uniform(0.88, 1.12, 3)  # sun, shade and lamp
    drawn = Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BOX)
    grain = rng.normal(0, 5, (size, size, 3))
    soft = np.asarray(drawn.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7))), dtype=np.float64)
    return Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8))


def _colour(hue: float, rng: np.random.Generator) -> np.ndarray:
    """Returns a colour of about this hue, 0..255."""
    mixed = colorsys.hsv_to_rgb((hue + rng.normal(0, 0.02)) % 1, rng.uniform(0.55, 0.9), rng.uniform(0.65, 0.95))
    return 255 * np.array(mixed)


def _pattern(design: Design, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Returns where the second colour goes, bool like x."""
    p = design.pitch
    return {
        "plain": np.zeros_like(x, dtype=bool),
        "stripes": np.sin(p * x) > 0,
        "rings": np.sin(1.5 * p * radius) > 0,
        "checks": (np.sin(p * x) > 0) ^ (np.sin(p * y) > 0),
        "dots": np.sin(p * x) * np.sin(p * y) > 0.45,
    }[design.pattern]


def _background(rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws a ground that fades from one colour to another, with a few blobs on it: float [side, side, 3]."""
    way = rng.uniform(0, 6.3)
    share = ((rows * np.sin(way) + columns * np.cos(way) + 1.5) / 3)[..., None]
    ground = share * rng.uniform(30, 235, 3) + (1 - share) * rng.uniform(30, 235, 3)
    for _ in range(rng.integers(2, 7)):
        top, left = rng.uniform(-1, 1, 2)
        ground[np.hypot((rows - top) * rng.uniform(0.5, 2), columns - left) < rng.uniform(0.08, 0.4)] = rng.uniform(
            20, 240, 3
        )
    return ground


def write(folder: Path, classes: int, pictures: int, size: int, seed: int, test: int = 0) -> None:
    """Writes a folder for each class, with as many PNG files. Raises FileExistsError for a folder that holds something.

    test: how many of the classes, the last ones, lie in folder/test, and the others in folder/train; 0: all in folder
    """
    if not 0 <= test < classes:
        raise ValueError(f"--test is below --classes, {classes}; got {test}.")
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds files already: name a new folder.")
    for number, design in enumerate(designs(classes, np.random.default_rng(seed))):
        split = "" if not test else "test" if number >= classes - test else "train"
        place = folder / split / f"thing{number:02d}"
        place.mkdir(parents=True)
        for n in range(pictures):
            picture(design, size, np.random.default_rng((seed, number, n))).save(place / f"{n:02d}.png")


def parser() -> argparse.ArgumentParser:
    """Returns the reader of the command line."""
    found = Parser(prog="python -m tools.data.draw_things", description=__doc__.split(":", 1)[0] + ".")
    found.add_argument("folder", type=Path, help="a new folder")
    for name, low, usual in (("classes", 2, 36), ("pictures", 2, 20), ("size", 16, 64), ("seed", 0, 0), ("test", 0, 0)):
        found.add_argument(f"--{name}", type=whole(low), default=usual, help=f"({usual})")
    return found


def run() -> int:
    """Draws the folder. Returns exit status 0."""
    given = parser().parse_args()
    write(given.folder, given.classes, given.pictures, given.size, given.seed, given.test)
    print(f"{given.folder}: {given.classes} classes of {given.pictures} pictures, {given.size} x {given.size} pixels.")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(run))
