"""Strokes to pixels, with NumPy alone."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def raster(strokes: list[Array], pen: float, pixels: int = 28, blur: float = 1.0) -> Array:
    """Draws strokes as a picture: float32 [pixels, pixels], ink 1 on 0.

    strokes: each [n, 2] as (x, y) in -0.5..0.5, the frame of the picture. pen, blur: the width of the pen and of its
    soft edge, in pixels. The value of a pixel follows from the exact distance of its centre to the nearest segment.
    """
    rows, columns = np.mgrid[:pixels, :pixels]
    column, row = (axis.reshape(-1, 1).astype(np.float32) + 0.5 for axis in (columns, rows))
    starts = np.concatenate([line[:-1] for line in strokes]).astype(np.float32)
    ends = np.concatenate([line[1:] for line in strokes]).astype(np.float32)
    starts, ends = (starts + 0.5) * pixels, (ends + 0.5) * pixels
    along = ends - starts
    x, y = (
        column - starts[:, 0],
        row - starts[:, 1],
    )  # from each segment's start to each pixel: [pixels * pixels, segments]
    squared = (along * along).sum(axis=1) + 1e-9  # a segment may be a single point
    part = np.clip((x * along[:, 0] + y * along[:, 1]) / squared, 0, 1)
    x, y = x - part * along[:, 0], y - part * along[:, 1]
    distance = np.sqrt((x * x + y * y).min(axis=1))
    ink = np.clip((pen / 2 + blur / 2 - distance) / blur, 0, 1) * min(1.0, pen / blur)
    return ink.reshape(pixels, pixels).astype(np.float32)


def grey_levels(picture: Array, levels: int = 6) -> Array:
    """Converts ink in 0..1 to uint8 of the same shape with few grey levels (6: 0, 51, ... 255), which make small files."""
    return (np.round(picture * (levels - 1)) * (255 / (levels - 1))).astype(np.uint8)
