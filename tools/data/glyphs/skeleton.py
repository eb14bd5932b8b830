"""Filled shapes to one-pixel skeletons. Masks are bool [height, width]."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def _neighbours(mask: Array) -> list[Array]:
    """Returns the eight neighbours of every pixel, clockwise from the north: N NE E SE S SW W NW."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    offsets = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    return [padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in offsets]


def thin(mask: Array) -> Array:
    """Returns the skeleton of a mask, bool [h, w], by the parallel thinning of Zhang and Suen (1984)."""
    shape = mask.astype(np.uint8)
    removed = True
    while removed:
        removed = False
        for first_pass in (True, False):
            around = _neighbours(shape)
            north, east, south, west = around[0::2]
            filled = sum(n.astype(np.int16) for n in around)
            # How often the ring around a pixel goes from empty to filled; if once, removing the pixel cuts no line.
            rises = sum(((around[i] == 0) & (around[(i + 1) % 8] == 1)).astype(np.int16) for i in range(8))
            if first_pass:
                on_this_side = (north * east * south == 0) & (east * south * west == 0)
            else:
                on_this_side = (north * east * west == 0) & (north * south * west == 0)
            border = (shape == 1) & (filled >= 2) & (filled <= 6) & (rises == 1) & on_this_side
            if border.any():
                shape[border] = 0
                removed = True
    return shape.astype(bool)


def depth(mask: Array) -> Array:
    """Returns the distance of every pixel of a mask bool [h, w] to the background, in pixels: float32 [h, w].

    Counts erosions by four and by eight neighbours in turn, which comes close to the Euclidean distance. On the skeleton this is
    half the width of the pen.
    """
    result = np.zeros(mask.shape, np.float32)
    rest = mask.astype(bool)
    diagonals = False
    while rest.any():
        result += rest
        around = _neighbours(rest)
        eroded = rest & np.logical_and.reduce(around[0::2])
        if diagonals:
            eroded &= np.logical_and.reduce(around[1::2])
        rest = eroded
        diagonals = not diagonals
    return result
