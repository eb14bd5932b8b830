"""Parts that several widgets share: small pictures that wrap on narrow pages, and controls with uncut names."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

from fsl_course import figures

Draw = Callable[[Axes], None]
WIDTH, HEIGHT = 3.9, 2.8  # inches of a panel: two fit side by side on a page, and they stack on a phone
TICKS = 5  # labels on an axis, approximately; each takes a millisecond to draw


def _margins(figure: Figure, width: float, height: float, columns: int = 1) -> None:
    """Sets fixed margins, because measuring the labels, as constrained layout does, takes longer than drawing."""
    whole = width * columns
    figure.subplots_adjust(
        left=0.62 / whole,
        right=1 - 0.12 / whole,
        bottom=0.5 / height,
        top=1 - 0.34 / height,
        wspace=0.8 / (width - 0.8),
    )


def _draw_on(axes: Axes, draw: Draw) -> None:
    draw(axes)
    # A fixed y, because otherwise matplotlib measures every label to place the title.
    axes.set_title(axes.get_title(), fontsize=10, y=1.02)
    axes.tick_params(labelsize=8)


def together(draws: Sequence[Draw], width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """Draws panels side by side in one figure. draws: a function of the axes for each panel; width, height: inches of a panel."""
    columns = len(draws)
    figure, grid = figures.new(width * columns, height, columns, squeeze=False, layout="none")
    _margins(figure, width, height, columns)
    for axes, draw in zip(grid[0], draws, strict=True):
        _draw_on(axes, draw)
    return figure


class LivePanel:
    """One panel of a widget, redrawn on every change.

    Its figure, axes and ticks are made once, because making them takes as long as drawing; only the artists are replaced.
    Use one panel for pictures of one kind: whatever one `draw` sets on the axes, such as a logarithmic scale, the next one
    must set too. place: the HTML widget that shows it; width, height: inches.
    """

    def __init__(self, place: ipywidgets.HTML, width: float = WIDTH, height: float = HEIGHT) -> None:
        self._place, self._shown = place, None
        with matplotlib.rc_context(figures.STYLE):  # without pyplot, which would keep the figure alive
            self._figure = Figure((width, height), layout="none")
            self._canvas = FigureCanvasAgg(self._figure)
            self._axes = self._figure.subplots()
        _margins(self._figure, width, height)
        self._axes.locator_params(nbins=TICKS)

    def show(self, draw: Draw, alt: str, state: object = None) -> None:
        """Draws unless alt text and state are the ones already shown. state: what the picture depends on; None always draws."""
        if state is not None and self._shown == (alt, state):
            return
        axes = self._axes
        for artist in (*axes.lines, *axes.collections, *axes.patches, *axes.texts):
            artist.remove()
        if axes.get_legend():
            axes.get_legend().remove()
        axes.containers.clear()  # bars, which the legend would list again
        axes.set_prop_cycle(None)  # starts again at the first colour
        axes.relim()  # forgets the limits of what was removed
        axes.autoscale()
        _draw_on(axes, draw)
        self._canvas.draw()
        self._place.value = image_tag(Image.fromarray(np.asarray(self._canvas.buffer_rgba())), alt)
        self._shown = (alt, state)


def image_tag(image: Image.Image, alt: str) -> str:
    """Returns a picture as an <img> with alt text, never wider than the page. Raises ValueError if the alt text is empty."""
    if not alt.strip():
        raise ValueError("every picture needs alt text: a sentence that says what can be seen in it.")
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1)  # fast; the larger file only goes to the local page
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(alt, quote=True)}" style="max-width:100%" src="data:image/png;base64,{data}">'


def log_scale(axes: Axes, *which: str) -> None:
    """Makes "x" or "y" logarithmic, with plain numbers at powers of ten, which are quick to draw and to read."""
    for name in which:
        axes.set(**{f"{name}scale": "log"})
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_minor_locator(NullLocator())
        axis.set_major_locator(LogLocator(numticks=TICKS))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def control(kind: type[ipywidgets.DOMWidget], description: str, **options: Any) -> Any:
    """Returns a control with its whole description visible, at most as wide as the page."""
    layout = {"width": "auto", "max_width": "100%", "margin": "2px 12px 2px 0"}
    if kind is ipywidgets.Button:
        return kind(description=description, layout=layout, **options)
    if issubclass(kind, (ipywidgets.IntSlider, ipywidgets.FloatSlider, ipywidgets.FloatLogSlider)):
        layout["width"] = "255px"
    return kind(description=description, style={"description_width": "initial"}, layout=layout, **options)


def view() -> ipywidgets.HTML:
    """Returns a place for a picture or a table, never wider than the page."""
    return ipywidgets.HTML(layout={"max_width": "100%", "margin": "2px 8px 2px 0", "flex": "0 1 auto"})


def wrapping(*children: ipywidgets.Widget) -> ipywidgets.Box:
    """Returns the children in a row that wraps at the edge of the page."""
    layout = {"display": "flex", "flex_flow": "row wrap", "align_items": "flex-start", "overflow": "visible"}
    return ipywidgets.Box(children, layout=layout)


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], height: int | None = None) -> str:
    """Returns an HTML table of plain text whose first column holds row headers. height: pixels above which it scrolls."""

    def cells(tag: str, values: Sequence[str], scope: str = "", more: str = "") -> str:
        return "".join(
            f'<{tag}{scope} style="padding:1px 10px 1px 0;text-align:left;vertical-align:top{more}">{html.escape(v)}</{tag}>'
            if v
            else "<td></td>"  # a screen reader would announce an empty header
            for v in values
        )

    body = "".join(
        f"<tr>{cells('th', row[:1], ' scope=row', ';white-space:nowrap')}{cells('td', row[1:])}</tr>" for row in rows
    )
    # The tabindex makes a box that scrolls reachable by keyboard.
    scroll = f'tabindex="0" style="max-height:{height}px;overflow:auto"' if height else 'style="overflow-x:auto"'
    return (
        f'<div {scroll}><table style="font-size:90%;line-height:1.4;border-spacing:0">'
        f'<caption style="text-align:left;font-weight:bold">{html.escape(caption)}</caption>'
        f"<tr>{cells('th', head, ' scope=col')}</tr>{body}</table></div>"
    )
