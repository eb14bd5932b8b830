"""An episode as one picture, assembled from arrays because hundreds of matplotlib axes or frames would take seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fsl_course.episodes import Layout
from fsl_course.figures import SLOTS

CELL, WIDEST = 60, 760  # maximal pixels: of a drawing with its margin, and of all columns together
LEFT, TOP, BETWEEN = 58, 24, 6  # pixels: for the slots' names, for the headings, and between support and queries
FRAME, PLAIN, THICK = "#CCCCCC", 1, 3


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Returns the font of the other figures, which comes with matplotlib."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def _tiles(pictures: Tensor, cell: int) -> Image.Image:
    """Arranges drawings uint8 [N, C, c, H, W] in a grid of cells with white margins below and on the right; ink is dark."""
    rows, columns, channels, height, width = pictures.shape
    pad = [max(1, round(side / 7)) for side in (height, width)]
    canvas = np.full((rows, height + pad[0], columns, width + pad[1], channels), 255, dtype=np.uint8)
    shown = pictures.permute(0, 3, 1, 4, 2).numpy()
    canvas[:, :height, :, :width] = 255 - shown if channels == 1 else shown
    flat = canvas.reshape(rows * (height + pad[0]), columns * (width + pad[1]), channels)
    grid = Image.fromarray(flat.squeeze(-1) if channels == 1 else flat)
    return grid.resize((columns * cell, rows * cell), Image.Resampling.BICUBIC).convert("RGB")


def _dashes(size: int) -> Image.Image:
    """Returns a dashed frame as a mask."""
    on = np.arange(size) % 9 < 6
    ring = np.zeros((size, size), dtype=bool)
    ring[:THICK] = ring[-THICK:] = on
    ring[:, :THICK] |= on[:, None]
    ring[:, -THICK:] |= on[:, None]
    return Image.fromarray(ring.astype(np.uint8) * 255)


def _badge(size: int) -> Image.Image:
    """Returns the sign 2× in a box, about half as large as a drawing of this size and at most 17 pixels."""
    side = max(9, min(17, size // 2))
    badge = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(badge)
    pen.rectangle((0, 0, side - 1, side - 1), outline="black")
    pen.text((side / 2, side / 2), "2×", fill="black", font=_font(max(6, side * 2 // 3)), anchor="mm")
    return badge


def episode_picture(images: Tensor, layout: Layout, again: Tensor) -> Image.Image:
    """Draws episode 0 of the layout, a row for each slot: support on the left in the slot's colour, then the queries.

    images: uint8 [P, c, H, W], indexed by the layout's positions; again: bool [N*Q], queries that get a dashed frame and 2×
    """
    n_way = layout.classes.shape[1]
    by_slot = [y[0].argsort(stable=True).view(n_way, -1) for y in (layout.support_y, layout.query_y)]
    support, query = layout.support[0][by_slot[0]], layout.query[0][by_slot[1]]
    shots, columns = support.shape[1], support.shape[1] + query.shape[1]
    cell = min(CELL, WIDEST // columns)
    size = cell - max(2, round(cell / 8))
    starts = torch.arange(columns) * cell + LEFT + (torch.arange(columns) >= shots) * BETWEEN
    picture = Image.new("RGB", (LEFT + columns * cell + BETWEEN + 2, TOP + n_way * cell), "white")
    picture.paste(_tiles(images[support], cell), (LEFT, TOP))
    picture.paste(_tiles(images[query], cell), (LEFT + shots * cell + BETWEEN, TOP))
    pen, dashes, badge = ImageDraw.Draw(picture), _dashes(size + 2), _badge(size)
    for slot, twice in enumerate(again[by_slot[1]].tolist()):
        y = TOP + slot * cell
        pen.text((LEFT - 8, y + size / 2), f"slot {slot}", fill="black", font=_font(11), anchor="rm")
        for column, x in enumerate(starts.tolist()):
            edges = (x - 1, y - 1, x + size, y + size)
            if column < shots:
                pen.rectangle(edges, outline=SLOTS[slot % len(SLOTS)], width=THICK)
            elif twice[column - shots]:
                picture.paste("black", edges[:2], dashes)
                picture.paste(badge, (x + size - badge.width, y))
            else:
                pen.rectangle(edges, outline=FRAME, width=PLAIN)
    for x, word in ((LEFT - 1, "support"), (int(starts[shots]) - 1, "queries")):
        pen.text((x, TOP - 6), word, fill="black", font=_font(12), anchor="ls")
    return picture
