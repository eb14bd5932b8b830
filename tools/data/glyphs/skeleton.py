"""Filled shapes to one-pixel skeletons. Masks are bool [height, width]."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def _neighbours(mask: Array) -> list[Array]:
    """The eight neighbours of every pixel, clockwise from the north: N NE E SE S SW W NW."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    offsets = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    return [padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in offsets]


def thin(mask: Array) -> Array:
    """The skeleton of a mask by the parallel thinning of Zhang and Suen (1984). bool [h, w] -> bool [h, w]."""
    shape = mask.astype(np.uint8)
    removed = True
    while removed:
        removed = False
        for first_pass in (True, False):
            around = _neighbours(shape)
            north, east, south, west = around[0::2]
            filled = sum(n.astype(np.int16) for n in around)
            # How often the ring around a pixel goes from empty to filled: 1 means that removing it cuts nothing.
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
    """The distance of every pixel to the background, in pixels. bool [h, w] -> float32 [h, w].

    Counted by erosions that look at four and at eight neighbours in turn, which comes close to the Euclidean distance.
    On the skeleton this is half the width of the pen.
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
