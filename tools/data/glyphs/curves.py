"""Polylines: length, even spacing, smoothing. A line is a float array [n, 2]."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def arc_lengths(line: Array) -> Array:
    """Returns the length of a line [n, 2] up to each of its points: [n], starting with 0."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])


def length(line: Array) -> float:
    """Returns the length of a line [n, 2] in the units of its points."""
    return float(arc_lengths(line)[-1])


def resample(line: Array, pieces: int) -> Array:
    """Cuts a line [n, 2] into equally long pieces, at least one. Returns their ends [pieces + 1, 2]."""
    way = arc_lengths(line)
    stops = np.linspace(0, way[-1], max(pieces, 1) + 1)
    return np.stack([np.interp(stops, way, line[:, axis]) for axis in (0, 1)], axis=1)


def smooth(line: Array, sigma: float, radius: int) -> Array:
    """Smooths a line [n, 2] by a Gaussian along it. sigma and radius are in points; the kernel is cut at `radius`.

    Ends do not move, and a closed line stays closed. Lines of fewer than four points are returned unchanged.
    """
    if radius < 1 or len(line) < 4:
        return line
    closed = np.allclose(line[0], line[-1])
    if closed:
        ring = line[:-1]
        padded = ring[np.arange(-radius, len(ring) + radius) % len(ring)]
    else:
        radius = min(radius, len(line) - 1)
        # The line is continued by its point reflection at both ends, so that the smoothed line passes through them.
        before = 2 * line[0] - line[1 : radius + 1][::-1]
        after = 2 * line[-1] - line[-radius - 1 : -1][::-1]
        padded = np.concatenate([before, line, after])
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    # Sums in a fixed order, because the last bits of np.convolve depend on the processor.
    count = len(padded) - 2 * radius
    smoothed = sum(weight * padded[i : i + count] for i, weight in enumerate(kernel))
    return np.concatenate([smoothed, smoothed[:1]]) if closed else smoothed


def nearest(values: Array | float) -> Array:
    """Rounds to whole numbers after dropping the last bits, so that every machine rounds a half the same way."""
    return np.rint(np.round(values, 6))
