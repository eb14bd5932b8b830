"""Letters that look alike: one shape must not be two classes, least of all in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tools.data.glyphs.curves import length, nearest, resample

Array = np.ndarray
Strokes = list[Array]  # each float [n, 2] in the box -0.5..0.5

MAX_PER_SCRIPT = 32  # letters kept of one script
LEAST_INK = 0.5  # total stroke length below which a letter is nothing but dots
# The distance (see look_alike) below which two letters count as the same: within a script, within a split, across splits.
SAME_SCRIPT, SAME_SPLIT, OTHER_SPLIT = 0.055, 0.065, 0.075

DOT, SERIF = 0.06, 0.16  # strokes up to DOT long are dots, others up to SERIF long are serifs
GRID = 32  # cells along a side of the grid on which two letters are compared
POINT_SPACING = 0.015


def look_alike(letters: Sequence[Strokes]) -> Array:
    """Returns how different every two of M letters look: float32 [M, M], symmetric, 0 for the same shape.

    The distance is the sum of a mean and of a soft maximum of the distances from the points of one letter to the other (chamfer
    and Hausdorff), each taken in the worse of the two directions. The result is the smallest of four comparisons: with and
    without serifs, with the letter's own proportions and with half evened-out ones. Below about 0.05 two letters are the same to
    the eye, above about 0.09 they differ.
    """
    smallest = np.full((len(letters), len(letters)), np.inf, np.float32)
    for shapes in (letters, [_without_serifs(strokes) for strokes in letters]):
        for evenness in (1.0, 0.5):
            distance, ink = _fields(shapes, evenness)
            mean = ink @ distance.T
            largest = (ink @ (distance.T**4)) ** 0.25
            np.minimum(smallest, np.maximum(mean, mean.T) + np.maximum(largest, largest.T), out=smallest)
    return smallest


def select(letters: Sequence[Strokes], script: Array, split: Array) -> list[int]:
    """Returns the positions of the letters to keep: greedily, in the given order, each that looks like none kept before.

    script, split: str [M]. At most MAX_PER_SCRIPT letters of a script are kept. The test is strictest across splits.
    """
    distance = look_alike(letters)
    kept: list[int] = []
    count: Counter[str] = Counter()
    for i, strokes in enumerate(letters):
        if sum(length(stroke) for stroke in strokes) < LEAST_INK or count[script[i]] >= MAX_PER_SCRIPT:
            continue
        within_split = np.where(script[kept] == script[i], SAME_SCRIPT, SAME_SPLIT)
        needed = np.where(split[kept] == split[i], within_split, OTHER_SPLIT)
        if (distance[i, kept] < needed).any():
            continue
        kept.append(i)
        count[script[i]] += 1
    return kept


def _without_serifs(strokes: Strokes) -> Strokes:
    lengths = [length(stroke) for stroke in strokes]
    if not any(size > SERIF for size in lengths):
        return strokes
    return [stroke for stroke, size in zip(strokes, lengths, strict=True) if size < DOT or size > SERIF]


def _fields(letters: Sequence[Strokes], evenness: float) -> tuple[Array, Array]:
    """Returns two pictures of every letter on a grid of G = GRID * GRID cells, both float32 [M, G].

    The first holds the distance of each cell from the letter, the second the share of the letter's ink in the cell. The sides of
    the letter are raised to the power of `evenness`: 1 keeps its proportions.
    """
    rows, columns = np.mgrid[:GRID, :GRID]
    centres = (np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5) / GRID - 0.5
    distance = np.zeros((len(letters), GRID * GRID), np.float32)
    ink = np.zeros_like(distance)
    for i, strokes in enumerate(letters):
        points = np.concatenate([resample(s, int(nearest(length(s) / POINT_SPACING))) for s in strokes])
        low, high = points.min(axis=0), points.max(axis=0)
        sides = np.maximum(high - low, 0.15)
        points = (points - (low + high) / 2) * sides**evenness / sides
        points *= 0.8 / (sides**evenness).max()
        distance[i] = np.sqrt(((centres[:, None] - points) ** 2).sum(axis=-1).min(axis=1))
        column, row = np.clip(((points + 0.5) * GRID).astype(int), 0, GRID - 1).T
        np.add.at(ink[i], row * GRID + column, 1)
        ink[i] /= ink[i].sum()
    return distance, ink
