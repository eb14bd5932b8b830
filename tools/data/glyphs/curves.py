"""Polylines: length, even spacing, smoothing. A line is a float array [n, 2]."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def arc_lengths(line: Array) -> Array:
    """The way along a line up to each of its points. line [n, 2] -> [n], starting with 0."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])


def length(line: Array) -> float:
    """The length of a line [n, 2], in the units of its points."""
    return float(arc_lengths(line)[-1])


def resample(line: Array, pieces: int) -> Array:
    """A line [n, 2] cut into equally long pieces -> [pieces + 1, 2]; at least one piece."""
    way = arc_lengths(line)
    stops = np.linspace(0, way[-1], max(pieces, 1) + 1)
    return np.stack([np.interp(stops, way, line[:, axis]) for axis in (0, 1)], axis=1)


def smooth(line: Array, sigma: float, radius: int) -> Array:
    """Gaussian smoothing along a line [n, 2], sigma and radius in points; the kernel is cut at `radius`.

    Ends stay where they are, a closed line stays closed. Lines of fewer than four points come back as they are.
    """
    if radius < 1 or len(line) < 4:
        return line
    closed = np.allclose(line[0], line[-1])
    if closed:
        ring = line[:-1]
        padded = ring[np.arange(-radius, len(ring) + radius) % len(ring)]
    else:
        radius = min(radius, len(line) - 1)
        # Point reflection at both ends: the smoothed line then passes through them.
        before = 2 * line[0] - line[1 : radius + 1][::-1]
        after = 2 * line[-1] - line[-radius - 1 : -1][::-1]
        padded = np.concatenate([before, line, after])
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    # Summed in a fixed order: np.convolve's last bits depend on the processor.
    count = len(padded) - 2 * radius
    smoothed = sum(weight * padded[i : i + count] for i, weight in enumerate(kernel))
    return np.concatenate([smoothed, smoothed[:1]]) if closed else smoothed


def nearest(values: Array | float) -> Array:
    """Round to whole numbers, blind to the last bits, so that a half is rounded the same way on every machine."""
    return np.rint(np.round(values, 6))
