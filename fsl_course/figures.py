"""The palette, the markers and the figures that lessons share.

The colours are Okabe and Ito's, which colour-blind readers can tell apart; every role also has its own marker.
`show` puts a figure on a page as a picture with alt text.
"""

import base64
import html
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from fsl_course.episodes import Episode

# the colours and markers of slot 0, 1, ...
SLOTS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000"]
SLOT_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "h"]
SUPPORT, QUERY, PROTOTYPE, CHANCE = "#0072B2", "#D55E00", "#000000", "#767676"
SUPPORT_MARKER, QUERY_MARKER, PROTOTYPE_MARKER = "o", "^", "*"
STYLE = {
    "figure.dpi": 100,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def slot_style(slot: int) -> dict[str, str]:
    """Returns colour and marker of a label slot, as keyword arguments for scatter and plot."""
    return {"color": SLOTS[slot % len(SLOTS)], "marker": SLOT_MARKERS[slot % len(SLOT_MARKERS)]}


def new(width: float = 7.0, height: float = 3.0, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Makes a figure in the course's style, and its axes. width, height: inches of the whole figure."""
    with matplotlib.rc_context(STYLE):
        return plt.subplots(rows, columns, figsize=(width, height), **options)


def to_html(figure: Figure, alt: str) -> str:
    """Returns the figure as an <img> with alt text, byte-identical for identical drawings."""
    if not alt.strip():
        raise ValueError("every figure needs alt text: a sentence that says what can be seen in it.")
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=100, facecolor="white", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(alt, quote=True)}" style="max-width:100%" src="data:image/png;base64,{data}">'


def in_notebook() -> bool:
    """Returns True if the code runs in a Jupyter kernel, which has imported IPython."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def show(figure: Figure, alt: str) -> None:
    """Shows a figure with alt text in a notebook and closes it. In a plain script it only closes it."""
    picture = to_html(figure, alt)
    plt.close(figure)
    if in_notebook():
        from IPython.display import HTML, display

        display(HTML(picture))


def _as_picture(image: Tensor) -> np.ndarray:
    """Converts a picture [c, H, W] (uint8 or float in [0, 1]) to [H, W] or [H, W, 3] for imshow, grey ink dark on white."""
    picture = image.detach().cpu().to(torch.float32) / (255 if image.dtype == torch.uint8 else 1)
    return (1 - picture[0]).numpy() if picture.shape[0] == 1 else picture.permute(1, 2, 0).numpy()


def draw_image(axes: Axes, image: Tensor, title: str = "", edge: str | None = None) -> None:
    """Draws one picture [c, H, W] on the axes, without ticks. edge: colour of a thick frame."""
    axes.imshow(_as_picture(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    if title:
        axes.set_title(title, fontsize=8)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(edge or "#CCCCCC")
        spine.set_linewidth(2.5 if edge else 0.8)


def image_rows(rows: Sequence[tuple[str, Tensor]], *, size: float = 0.75) -> Figure:
    """Draws rows of pictures, each with a label on its left. rows: (label, pictures [B, c, H, W]); size: inches of a picture."""
    columns = max(len(pictures) for _, pictures in rows)
    figure, grid = new(1.4 + size * columns, size * len(rows) + 0.1, columns, len(rows), squeeze=False)
    for axes_row, (label, pictures) in zip(grid, rows, strict=True):
        for axes in axes_row:
            axes.axis("off")
        for axes, picture in zip(axes_row, pictures, strict=False):
            axes.axis("on")
            draw_image(axes, picture)
        axes_row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def episode_grid(episode: Episode, *, queries: int = 5, names: Sequence[str] | None = None) -> Figure:
    """Draws one task: a row for each slot, support on the left, queries on the right. names: class names of the source.

    Frames have the colour of the slot. The titles say support or query, so colour is never the only sign.
    """
    shots = int(episode.support_y.bincount().max())  # of the widest row, because shots may differ by class
    queries = min(queries, int(episode.query_y.bincount().max()))
    columns, n_way = shots + queries, episode.n_way
    figure, grid = new(1.6 + 0.8 * columns, 0.85 * n_way + 0.3, columns, n_way, squeeze=False)
    for slot, row in enumerate(grid):
        left = episode.support_x[episode.support_y == slot]
        right = episode.query_x[episode.query_y == slot][:queries]
        for axes in (*row[len(left) : shots], *row[shots + len(right) :]):
            axes.axis("off")
        for axes, picture in zip(row, left, strict=False):
            draw_image(axes, picture, "support" if slot == 0 else "", SLOTS[slot % len(SLOTS)])
        for axes, picture in zip(row[shots:], right, strict=False):
            draw_image(axes, picture, "query" if slot == 0 else "")
        label = f"slot {slot}" + (f"\n{names[int(episode.classes[slot])]}" if names else "")
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return figure


def training_curve(
    loss: Sequence[float],
    accuracy: Sequence[float] = (),
    validation: Sequence[tuple[int, float, float]] = (),
    *,
    chance: float | None = None,
    steps: int | None = None,
) -> Figure:
    """Draws the loss on the left, accuracy with the chance line on the right. validation: (step, mean, ci95) as in History."""

    def smooth(values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        window = max(1, len(values) // 40)
        usable = np.asarray(values, dtype=float)[: len(values) // window * window].reshape(-1, window)
        return (np.arange(len(usable)) + 0.5) * window, usable.mean(1)

    with_accuracy = chance is not None
    figure, axes = new(8, 2.8, 2 if with_accuracy else 1, squeeze=False)
    axes = axes[0]
    axes[0].plot(*smooth(loss), color=SLOTS[0])
    axes[0].set(xlabel="step", ylabel="training loss", xlim=(0, steps or max(1, len(loss))))
    target = axes[1] if with_accuracy else axes[0]
    if with_accuracy:
        if len(accuracy):
            target.plot(*smooth(accuracy), color=SLOTS[0], label="training episodes")
        target.axhline(chance, color=CHANCE, linestyle="--", label=f"chance {chance:.0%}")
        target.set(xlabel="step", ylabel="accuracy", ylim=(0, 1.02), xlim=(0, steps or max(1, len(loss))))
    if validation:
        at, mean, half = zip(*validation, strict=True)
        target.errorbar(at, mean, yerr=half, color=SLOTS[1], marker="^", capsize=3, label="validation, 95 % interval")
    if with_accuracy or validation:
        target.legend(fontsize=8, loc="best")
    return figure


def intervals(
    rows: Mapping[str, tuple[float, float]], *, chance: float | None = None, xlabel: str = "accuracy"
) -> Figure:
    """Draws means with 95 % intervals, one row per method, the best at the top. rows: name -> (mean, ci95)."""
    ordered = sorted(rows.items(), key=lambda item: item[1][0])
    figure, axes = new(7, 0.42 * len(rows) + 1.0)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    plain = {"fontsize": 8, "textcoords": "offset points", "bbox": box}
    if chance is not None:
        axes.set_xlim(0, 1.05)
        axes.axvline(chance, color=CHANCE, linestyle="--")
        axes.annotate(f"chance {chance:.0%}", (chance, len(rows) - 0.6), (5, 0), color=CHANCE, **plain)
    for place, (_, (mean, half)) in enumerate(ordered):
        axes.errorbar(mean, place, xerr=half, color=SLOTS[0], marker="o", capsize=4)
        axes.annotate(f"{mean:.1%} ± {half:.1%}", (mean, place), (0, 7), ha="center", **plain)
    axes.set(yticks=range(len(rows)), yticklabels=[name for name, _ in ordered], xlabel=xlabel)
    axes.set_ylim(-0.6, len(rows) - 0.2)
    return figure


def points_2d(
    axes: Axes,
    support: Tensor,
    labels: Tensor,
    *,
    centres: Tensor | None = None,
    query: Tensor | None = None,
    regions: Any = None,
) -> list[Line2D]:
    """Draws a task in the plane and returns legend handles. support [S, 2], labels [S], centres [N, 2], query [M, 2].

    regions: a function from points [P, 2] to logits [P, N]; the plane is shaded by the winning class
    """
    everything = torch.cat([p for p in (support, centres, query) if p is not None])
    low, high = everything.amin(0) - 1, everything.amax(0) + 1
    if regions is not None:
        columns, rows = (torch.linspace(float(low[i]), float(high[i]), 200) for i in range(2))
        x, y = torch.meshgrid(columns, rows, indexing="xy")
        winner = regions(torch.stack([x.flatten(), y.flatten()], 1).to(support.dtype)).argmax(1).reshape(x.shape)
        colours = matplotlib.colors.ListedColormap(SLOTS[: int(labels.max()) + 1])
        shading = {"cmap": colours, "alpha": 0.15, "shading": "nearest", "vmin": -0.5, "vmax": int(labels.max()) + 0.5}
        axes.pcolormesh(x.numpy(), y.numpy(), winner.numpy(), **shading)
    handles, star = [], {"marker": PROTOTYPE_MARKER, "edgecolor": "black"}
    for slot in range(int(labels.max()) + 1):
        mine = support[labels == slot]
        handles.append(axes.scatter(*mine.T.numpy(), s=45, label=f"support, class {slot}", **slot_style(slot)))
        if centres is not None:
            axes.scatter(*centres[slot].numpy(), s=260, color=SLOTS[slot % len(SLOTS)], **star)
    if centres is not None:
        handles.append(axes.scatter([], [], s=150, color="white", label="prototype", **star))
    if query is not None:
        handles.append(axes.scatter(*query.T.numpy(), s=70, marker="X", color="black", label="query"))
    axes.set(xlim=(float(low[0]), float(high[0])), ylim=(float(low[1]), float(high[1])), aspect="equal")
    return handles
