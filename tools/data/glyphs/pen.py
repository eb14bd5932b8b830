"""What can be counted and measured on the pen strokes of a letter: strokes, loops, free ends, directions, symmetry."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from tools.data.glyphs.letters import to_unit_box

Array = np.ndarray

PIXELS, MARGIN = 128, 16  # of the picture in which loops and pieces are counted
DOT = 0.12  # a stroke shorter than this part of the letter's box is a dot
TOUCH = 0.045  # an end this near to other ink touches it
SMALLEST_LOOP = 0.002  # of the box's area; smaller holes are accidents of the tracing


@dataclass(frozen=True, eq=False)
class Pen:
    """One letter, in the box -0.5..0.5 with y downwards.

    strokes, pieces, dots, touches: counts; touches: ends that lie on other ink, and crossings
    loops, ends: centres of the enclosed areas and places of the free ends, lists of (x, y)
    upright, level, slanted: parts of the length in these directions; length: of all strokes, in sides of the box
    turning: angle in radians by which the pen turns in all; aspect: width over height
    mirrored: how far the letter covers its mirror image, left-right and top-bottom, 0..1; centre: of the ink, (x, y)
    middle: part of the ink in the middle ninth of the letter
    """

    strokes: int
    pieces: int
    dots: int
    touches: int
    loops: list[tuple[float, float]]
    ends: list[tuple[float, float]]
    upright: float
    level: float
    slanted: float
    length: float
    turning: float
    aspect: float
    mirrored: tuple[float, float]
    centre: tuple[float, float]
    middle: float

    @classmethod
    def of(cls, strokes: list[Array]) -> Pen:
        """Measures a letter. strokes: those of the file, uint8 [n, 2]."""
        lines = [to_unit_box(stroke, np.float64) for stroke in strokes]
        long = [line for line in lines if _length(line) >= DOT]
        ink = _picture(lines, 5)
        free, touching = _ends(long)
        steps = np.concatenate([np.diff(line, axis=0) for line in long] or [np.zeros((1, 2))])
        sizes = np.hypot(*steps.T)
        angle = np.degrees(np.arctan2(np.abs(steps[:, 1]), np.abs(steps[:, 0])))  # 0 level, 90 upright
        total = max(float(sizes.sum()), 1e-9)
        low, high = (f(np.concatenate(lines), axis=0) for f in (np.min, np.max))
        width, height = np.maximum(high - low, 0.05)
        ys, xs = np.nonzero(ink)
        centre = [(v.mean() - PIXELS / 2) / (PIXELS - 2 * MARGIN) for v in (xs, ys)]
        inner = (np.abs(xs - PIXELS / 2) < (PIXELS - 2 * MARGIN) / 6) & (
            np.abs(ys - PIXELS / 2) < (PIXELS - 2 * MARGIN) / 6
        )
        return cls(
            strokes=len(long), pieces=ndimage.label(ink, np.ones((3, 3)))[1], dots=len(lines) - len(long),
            touches=touching + _crossings(long), loops=_loops(_picture(lines, 3)), ends=free,
            upright=float(sizes[angle > 70].sum()) / total, level=float(sizes[angle < 20].sum()) / total,
            slanted=float(sizes[(angle >= 25) & (angle <= 65)].sum()) / total, length=total,
            turning=sum(_turning(line) for line in long), aspect=float(width / height),
            mirrored=(_alike(lines, 0, low, high), _alike(lines, 1, low, high)), centre=(centre[0], centre[1]),
            middle=float(inner.mean()),
        )  # fmt: skip


def _length(line: Array) -> float:
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def _picture(lines: list[Array], width: int) -> Array:
    """Draws polylines in the box -0.5..0.5 -> bool [128, 128]."""
    picture = Image.new("1", (PIXELS, PIXELS))
    pen = ImageDraw.Draw(picture)
    for line in lines:
        points = (line * (PIXELS - 2 * MARGIN) + PIXELS / 2).tolist()
        pen.line([tuple(p) for p in points], fill=1, width=width, joint="curve")
    return np.array(picture)


def _loops(ink: Array) -> list[tuple[float, float]]:
    """Returns the centres of the areas that ink encloses."""
    area, count = ndimage.label(~ink)
    side, found = PIXELS - 2 * MARGIN, []
    for number in range(1, count + 1):
        ys, xs = np.nonzero(area == number)
        if number != area[0, 0] and len(ys) >= SMALLEST_LOOP * side**2:
            found.append((float((xs.mean() - PIXELS / 2) / side), float((ys.mean() - PIXELS / 2) / side)))
    return found


def _ends(lines: list[Array]) -> tuple[list[tuple[float, float]], int]:
    """Returns where a pen stroke ends freely, and how many ends lie on other ink."""
    free, touching = [], 0
    for number, line in enumerate(lines):
        others = [other for k, other in enumerate(lines) if k != number]
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
        for end, far in ((0, along > 3 * TOUCH), (-1, along < along[-1] - 3 * TOUCH)):
            near = [o for o in [*others, line[far]] if len(o) and _distance(line[end], o) < TOUCH]
            touching += bool(near)
            if not near:
                free.append((float(line[end][0]), float(line[end][1])))
    return free, touching


def _distance(point: Array, line: Array) -> float:
    """Returns the distance of a point from a polyline [n, 2]."""
    if len(line) < 2:
        return float(np.hypot(*(line[0] - point)))
    start, step = line[:-1], np.diff(line, axis=0)
    at = np.clip(((point - start) * step).sum(1) / np.maximum((step**2).sum(1), 1e-12), 0, 1)
    return float(np.hypot(*(start + at[:, None] * step - point).T).min())


def _crossings(lines: list[Array]) -> int:
    """Counts places where one stroke runs across another, away from the ends of both."""
    count = 0
    for k, one in enumerate(lines):
        for other in lines[:k]:
            hits = [p for a, b in pairwise(one) for p in _hits(a, b, other)]
            ends = np.stack([one[0], one[-1], other[0], other[-1]])
            hits = [p for p in hits if np.hypot(*(ends - p).T).min() > TOUCH]
            count += len({tuple(np.round(p / (3 * TOUCH)).tolist()) for p in hits})
    return count


def _hits(a: Array, b: Array, line: Array) -> list[Array]:
    """Returns where the segment a-b meets a polyline."""
    d, start, step = b - a, line[:-1], np.diff(line, axis=0)
    across = d[0] * step[:, 1] - d[1] * step[:, 0]
    across = np.where(np.abs(across) < 1e-12, np.inf, across)
    gap = start - a
    t = (gap[:, 0] * step[:, 1] - gap[:, 1] * step[:, 0]) / across
    u = (gap[:, 0] * d[1] - gap[:, 1] * d[0]) / across
    meets = (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1) & np.isfinite(across)
    return [a + s * d for s in t[meets]]


def _turning(line: Array) -> float:
    steps = np.diff(line, axis=0)
    angle = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    return float(np.abs(np.diff(angle)).sum())


def _alike(lines: list[Array], axis: int, low: Array, high: Array) -> float:
    """Returns the ink that a letter shares with its mirror image, over all ink of both; thick lines forgive small shifts."""
    middle = (low + high) / 2
    mirrored = [np.where(np.arange(2) == axis, 2 * middle - line, line) for line in lines]
    one, other = _picture(lines, 9), _picture(mirrored, 9)
    return float((one & other).sum() / (one | other).sum())
