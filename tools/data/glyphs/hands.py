"""How a person writes a letter: 20 virtual hands for every script, and accidents in every drawing.

Points are (x, y) with y downwards, in a box -0.5..0.5; lengths are fractions of that box. The numbers below are tuned so that the
drawings are as hard to classify as the real Omniglot's at 28x28 (see data/glyphs.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tools.data.glyphs.curves import length, resample, smooth

Array = np.ndarray
Strokes = list[Array]

# Accidents of a single stroke; all but ROUND are scaled by LOOSE and by the hand's own looseness.
LOOSE = 1.1
MOVE, TURN, STRETCH = 0.035, 0.1, 0.1  # shift; rotation in radians; log of the scale
WOBBLE, WOBBLE_LENGTH = 0.02, 0.55  # a smooth drift off the line, and the length over which it changes
OVERSHOOT = 0.04  # how far an end overshoots or stops short
GAP = 0.04  # how far a ring fails to close
SERIF, SERIF_SKIPPED = 0.12, 0.5  # length below which a stroke is a serif; how often serifs are left out
ROUND = 1.0  # how much corners get round
WARP = 0.03  # a smooth bend of the whole letter
DOT = 0.06  # strokes shorter than this are dots

# The habits of a hand: standard deviations, unless noted otherwise.
HAND_SLANT, HAND_TURN, HAND_ASPECT, HAND_LOOSE, HAND_POSITION = 0.09, 0.03, 0.06, 0.3, 0.022
HAND_SIZE = (-0.57, 0.10)  # mean and deviation of the log of a letter's longer side
HAND_PEN = (1.5, 0.03)  # median of the pen's width in pixels at 28x28, deviation of its log

# How one drawing differs from the hand's habit: standard deviations.
SLANT, ROTATION, ASPECT, SIZE, POSITION = 0.06, 0.05, 0.05, 0.08, 0.038

POINT_SPACING = 0.03
LARGEST, FRAME = 0.94, 0.98  # the largest longer side of a letter; the part of the picture that it stays within


@dataclass(frozen=True)
class Hand:
    """A virtual hand: the habits that all its drawings share.

    slant: shear; rotation: radians; aspect: width over height; size: of the longer side; position: [2], off the centre;
    loose: factor of all accidents; round: smoothing of corners; pen: width in pixels at 28x28
    """

    slant: float
    rotation: float
    aspect: float
    size: float
    position: Array
    loose: float
    round: float
    pen: float


def random_hand(rng: np.random.Generator) -> Hand:
    """Draws a hand at random."""
    return Hand(
        slant=rng.normal(0, HAND_SLANT),
        rotation=rng.normal(0, HAND_TURN),
        aspect=np.exp(rng.normal(0, HAND_ASPECT)),
        size=np.exp(rng.normal(*HAND_SIZE)),
        position=rng.normal(0, HAND_POSITION, 2),
        loose=np.exp(rng.normal(0, HAND_LOOSE)),
        round=abs(rng.normal(0, ROUND)),
        pen=np.exp(rng.normal(np.log(HAND_PEN[0]), HAND_PEN[1])),
    )


def draw(strokes: Strokes, hand: Hand, rng: np.random.Generator, size: float = 1.0) -> Strokes:
    """Draws a letter once by a hand. Returns the strokes, each [n, 2] in -0.5..0.5, moved, bent, sized and placed.

    size: the letter's size relative to others; the hand's size is multiplied by it.
    """
    loose = LOOSE * hand.loose
    warp = _Warp(rng, loose)
    drawn = []
    for stroke in strokes:
        reach = length(stroke)
        if reach < DOT:
            line = _draw_dot(stroke, rng, loose)
        elif reach < SERIF and len(strokes) > 2 and rng.random() < SERIF_SKIPPED:
            continue
        else:
            line = _draw_line(stroke, hand, rng, loose)
        drawn.append(line + warp(line))
    return _place(drawn or strokes, hand, rng, size)


class _Warp:
    """A smooth random displacement of the plane: for each axis a sum of four plane waves."""

    def __init__(self, rng: np.random.Generator, loose: float) -> None:
        # Only the first of the two rows is used. Both are drawn because the data depend on the generator's stream.
        self.amplitude = rng.normal(size=(2, 2, 4))[:, 0] * loose * WARP
        self.phase = rng.uniform(0, 2 * np.pi, (2, 4))
        self.frequency = rng.normal(0, 2.2, (2, 4, 2))

    def __call__(self, points: Array) -> Array:
        """Returns the displacements [n, 2] of points [n, 2]."""
        waves = np.sin(np.einsum("nd,awd->naw", points, self.frequency) + self.phase)
        return (waves * self.amplitude).sum(axis=-1)


def _draw_dot(stroke: Array, rng: np.random.Generator, loose: float) -> Array:
    """Replaces a dot by a dash of random length and direction."""
    radius, angle = rng.uniform(0.01, 0.05), rng.uniform(0, np.pi)
    arm = np.array([np.cos(angle), np.sin(angle)]) * radius
    centre = stroke.mean(axis=0)
    return np.stack([centre - arm, centre + arm]) + rng.normal(0, loose * MOVE, 2)


def _draw_line(stroke: Array, hand: Hand, rng: np.random.Generator, loose: float) -> Array:
    """Rounds, moves, turns and stretches a stroke, makes it wobble, and shifts its ends."""
    line = resample(stroke, math.ceil(length(stroke) / POINT_SPACING))
    sigma = 0.6 + 2.0 * loose * hand.round
    line = smooth(line, sigma, radius=math.ceil(3 * sigma))
    closed = np.allclose(line[0], line[-1], atol=0.02)
    centre = line.mean(axis=0)
    angle = rng.normal(0, loose * TURN)
    scale = np.exp(rng.normal(0, loose * STRETCH, 2))
    line = (line - centre) * scale @ _rotation(angle).T + centre + rng.normal(0, loose * MOVE, 2)
    short = min(1.0, 0.35 + length(stroke) / 1.5)  # short strokes wobble less
    line = line + _smooth_noise(rng, len(line), WOBBLE_LENGTH / POINT_SPACING) * loose * WOBBLE * short
    if closed:
        along = np.linspace(0, 1, len(line))[:, None]
        return line + along * (rng.normal(0, loose * GAP, 2) + (line[0] - line[-1]) * rng.uniform(0.3, 1))
    for _ in range(2):  # changes the front and reverses the line: the first end, then the last one
        line = _move_front(line, rng.normal(0, loose * OVERSHOOT))[::-1]
    return line


def _move_front(line: Array, by: float) -> Array:
    """Lets a line start earlier (by > 0, straight on) or later (by < 0; at most a quarter of it is cut off)."""
    if by > 0 and len(line) > 3:
        direction = line[0] - line[3]
        start = line[0] + direction / (np.hypot(*direction) + 1e-9) * by
        return np.concatenate([start[None], line])
    if by < 0 and len(line) > 8:
        return line[min(int(-by / POINT_SPACING), len(line) // 4) :]
    return line


def _place(strokes: Strokes, hand: Hand, rng: np.random.Generator, size: float) -> Strokes:
    """Gives the whole letter its slant, proportions, rotation, size and position, within the frame."""
    rotation = hand.rotation + rng.normal(0, ROTATION)
    slant = hand.slant + rng.normal(0, SLANT)
    aspect = hand.aspect * np.exp(rng.normal(0, ASPECT))
    shear = np.array([[1, -slant], [0, 1]])
    matrix = _rotation(rotation) @ shear @ np.diag([np.sqrt(aspect), 1 / np.sqrt(aspect)])
    strokes = [line @ matrix.T for line in strokes]
    points = np.concatenate(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    longer = (high - low).max()
    target = min(hand.size * size * np.exp(rng.normal(0, SIZE)), LARGEST)
    room = 0.5 * np.maximum(FRAME - (high - low) / longer * target, 0)
    position = np.clip(hand.position + rng.normal(0, POSITION, 2), -room, room)
    return [(line - (low + high) / 2) / longer * target + position for line in strokes]


def _rotation(angle: float) -> Array:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _smooth_noise(rng: np.random.Generator, count: int, correlation: float) -> Array:
    """Returns noise [count, 2] that changes over `correlation` points: random values with smooth steps between them."""
    knots = rng.normal(size=(max(4, math.ceil(count / correlation) + 3), 2))
    at = np.linspace(0.5, len(knots) - 1.5, count)
    left = np.clip(at.astype(int), 0, len(knots) - 2)
    part = (at - left)[:, None]
    part = part * part * (3 - 2 * part)
    return knots[left] * (1 - part) + knots[left + 1] * part
