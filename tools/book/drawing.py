"""What all drawings of the course share: sizes, colours, words, arrows and boxes on axes that are measured in inches."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

WIDTH = 5.2  # inches
TEXT = 13  # points: the smallest text of a drawing
INK, SOFT, LINE = "#1A1A1A", "#555555", "#B0B0B0"


def words(axes: Axes, x: float, y: float, text: str, **options) -> None:
    """Writes a text around (x, y), or beside it where `ha` says so."""
    axes.text(x, y, text, **{"fontsize": TEXT, "color": INK, "ha": "center", "va": "center", **options})


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], *, bend: float = 0, **options) -> None:
    """Draws an arrow from start to end. bend: how far it leaves the straight line."""
    line = {"color": INK, "linewidth": 1.6, "arrowstyle": "-|>,head_length=5,head_width=3", "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **{**line, **options}))


def box(
    axes: Axes, x: float, y: float, width: float, height: float, *, face: str, edge: str, line: float = 1.4
) -> None:
    """Draws a box with round corners; (x, y) is its lower left one."""
    look = {"facecolor": face, "edgecolor": edge, "linewidth": line, "zorder": 0.5}
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.08", **look))


def tint(colour: str, share: float = 0.14) -> str:
    """Returns a colour mixed with white. share: how much of the colour stays."""
    mixed = 1 - share * (1 - np.array(matplotlib.colors.to_rgb(colour)))
    return matplotlib.colors.to_hex(mixed)
