"""A drawing pad in the browser, and strokes rendered as pictures that look like the drawings of Glyphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

import anywidget
import torch
import traitlets
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

Strokes = list[list[list[float]]]

# These follow the drawings of Glyphs (tools/data/draw_glyphs.py). INK_SIDE and DOT are fractions of a side, PEN is pixels.
INK_SIDE = 0.566  # median of the longer side of a drawing, between centres of the pen
DOT = 0.06  # anything smaller on the pad is a dot and is not enlarged to a letter
PEN = 1.5  # width of the pen in a picture of 28 pixels
FINER = 9  # factor by which it is drawn larger, before it is blurred to a soft edge and sampled at the pixels' centres
GREYS = 5  # steps between grey levels: 0, 51, ... 255


def check_strokes(strokes: Any) -> Strokes:
    """Returns the strokes as lists of [x, y]. Raises ValueError with the number of the first malformed stroke.

    strokes: a list of strokes, each a list of at least one point [x, y], both in 0..1, y downwards. [] is an empty pad.
    """
    form = "strokes are a list of strokes, each a list of points [x, y] with both numbers in 0..1"
    if not _is_list(strokes):
        raise ValueError(f"{form}; got {type(strokes).__name__}.")
    for number, stroke in enumerate(strokes):
        if not _is_list(stroke) or not len(stroke):
            raise ValueError(f"{form}; stroke {number} is {_short(stroke)}: it needs at least one point.")
        for point in stroke:
            if not _is_list(point) or len(point) != 2 or not all(_inside(value) for value in point):
                raise ValueError(f"{form}; stroke {number} holds {_short(point)}.")
    return [[[float(x), float(y)] for x, y in stroke] for stroke in strokes]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _inside(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def rasterise(strokes: Any, size: int = 28) -> Tensor:
    """Renders strokes as a picture uint8 [1, size, size], ink 255 on 0; an empty pad gives all 0.

    strokes: see `check_strokes`; size: pixels of a side, at least 8. The drawing is centred and scaled to the size of Glyphs'
    drawings, with their pen, because the networks were trained on nothing else.
    """
    strokes = check_strokes(strokes)
    if isinstance(size, bool) or not isinstance(size, int) or size < 8:
        raise ValueError(f"size must be a whole number of pixels, at least 8; got {size!r}.")
    if not strokes:
        return torch.zeros(1, size, size, dtype=torch.uint8)
    points = torch.tensor([point for stroke in strokes for point in stroke], dtype=torch.float64)
    low, high = points.amin(0), points.amax(0)
    side = float((high - low).max())
    scale = INK_SIDE / side if side > DOT else 1.0
    width, edge = PEN * max(1.0, 0.55 * size / 28), 1.5 if size <= 32 else 1.0
    canvas = Image.new("L", (size * FINER, size * FINER), 0)
    draw, radius = ImageDraw.Draw(canvas), width * FINER / 2
    for stroke in strokes:
        placed = ((torch.tensor(stroke, dtype=torch.float64) - (low + high) / 2) * scale + 0.5) * (size * FINER)
        line = [
            (x, y) for x, y in (placed - 0.5).tolist()
        ]  # Pillow's coordinates start at the centre of the first pixel
        for start, end in pairwise(line):
            draw.line([start, end], fill=255, width=round(2 * radius))
        for x, y in line:  # makes ends and corners round; Pillow's boxes include their last pixel
            draw.ellipse([x - radius + 0.5, y - radius + 0.5, x + radius - 0.5, y + radius - 0.5], fill=255)
    soft = canvas.filter(ImageFilter.BoxBlur((edge * FINER - 1) / 2))
    small = soft.resize((size, size), Image.Resampling.NEAREST)
    ink = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(1, size, size)
    return (ink.float() * GREYS / 255).round().mul(255 // GREYS).to(torch.uint8)


class SketchPad(anywidget.AnyWidget):
    """A pad to draw on with mouse, pen, finger or keyboard. `strokes` changes once per stroke, when the pen is lifted.

    strokes: list of strokes, each a list of [x, y] in 0..1, y downwards; may also be set from Python
    label:   the purpose of the pad, for screen readers
    """

    _esm = Path(__file__).with_suffix(".js")
    strokes = traitlets.List([]).tag(sync=True)
    label = traitlets.Unicode("drawing pad").tag(sync=True)

    def __init__(self, label: str = "drawing pad", **options: Any) -> None:
        super().__init__(label=label, **options)
        self.add_class("fsl-sketch-pad")

    @traitlets.validate("strokes")
    def _checked(self, proposal: dict[str, Any]) -> Strokes:
        return check_strokes(proposal["value"])

    @property
    def empty(self) -> bool:
        """True if nothing is drawn."""
        return not self.strokes

    def image(self, size: int = 28) -> Tensor:
        """Returns the drawing, centred and scaled like Glyphs' drawings: uint8 [1, size, size], ink 255 on 0."""
        return rasterise(self.strokes, size)

    def clear(self) -> None:
        """Removes all strokes from the pad."""
        self.strokes = []
