"""Draws the four diagrams of the course: metric methods, the two loops of MAML, the package, and the learning path.

python -m tools.book.diagrams          draws all of them anew into docs/diagrams, and renews their alt texts

The drawings are SVG files that come out byte-identical with the pinned Matplotlib. Each is 5.2 inches wide with text of at
least 13 points, so that the text still has 9 points where a telephone shows the drawing 350 pixels wide.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle

from fsl_course import figures
from tools.book import lesson_map
from tools.book.drawing import INK, LINE, SOFT, WIDTH, arrow, box, tint, words
from tools.notebooks.cells import lesson_files

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "docs/diagrams"
_BACK = "#B34E00"  # gradients: the vermilion of the course, darker, and dashed
_STYLE = {
    "svg.hashsalt": "fsl-course",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavusans",
}


class Diagram(NamedTuple):
    """One drawing: its alt text, its height in inches, and the function that draws it on axes of WIDTH by height inches."""

    alt: str
    height: float
    draw: Callable[[Axes], None]


def figure(name: str) -> Figure:
    """Returns the drawing `name` of DIAGRAMS as a figure on white paper. The caller closes it."""
    diagram = DIAGRAMS[name]
    with matplotlib.rc_context(_STYLE):
        drawn = plt.figure(figsize=(WIDTH, diagram.height), facecolor="white")
        axes = drawn.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, diagram.height))
        axes.axis("off")
        diagram.draw(axes)
    return drawn


def save(name: str, path: Path) -> None:
    """Writes the drawing `name` to an SVG file without date and version, so that equal drawings have equal bytes."""
    drawn = figure(name)
    with matplotlib.rc_context(_STYLE):
        drawn.savefig(path, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    plt.close(drawn)
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"[ \t]+$", "", text, flags=re.M), encoding="utf-8", newline="\n")


def markdown(name: str, folder: str = "..") -> str:
    """Returns the image line of a drawing, with its alt text. folder: the way from the page to the root of the repository."""
    return f"![{DIAGRAMS[name].alt}]({folder}/{FOLDER}/{name}.svg)"


# ------------------------------------------------------------------------------------------------ metric methods

_CLASSES = (57, 0, 172)  # of the test split of Glyphs
_POINTS = (((0.40, 1.96), (0.84, 2.36)), ((1.42, 2.18), (1.90, 1.84)), ((0.52, 0.62), (1.16, 0.46)))  # of the support
_QUERY = (1.30, 1.42)
_PLANE = (2.98, 0.98)  # its lower left corner


def _metric(axes: Axes) -> None:
    """Draws support and query on their way through one encoder; the query gets the class of the nearest class mean."""
    from fsl_course.data import load_glyphs

    pictures = load_glyphs().split("test").images[list(_CLASSES), :3, 0].numpy()
    words(axes, 0.79, 4.0, "support", weight="bold")
    for slot, (one, other, _) in enumerate(pictures):
        y = 3.22 - 0.68 * slot
        _picture(axes, 0.17, y, one, figures.SLOTS[slot])
        _picture(axes, 0.85, y, other, figures.SLOTS[slot])
    _picture(axes, 0.51, 0.98, pictures[1, 2], INK)
    words(axes, 0.79, 0.76, "query", weight="bold")
    arrow(axes, (1.55, 2.86), (1.9, 2.66))
    arrow(axes, (1.22, 1.3), (1.9, 1.98), bend=0.12)
    trapezium = [(1.96, 1.5), (1.96, 3.2), (2.6, 2.86), (2.6, 1.84)]
    axes.add_patch(Polygon(trapezium, facecolor="#EFEFEF", edgecolor=INK, linewidth=1.4))
    words(axes, 2.28, 2.35, "encoder", rotation=90)
    arrow(axes, (2.66, 2.35), (2.93, 2.35))
    words(axes, 4.03, 4.0, "embeddings", weight="bold")
    _plane(axes)
    axes.scatter(3.12, 0.66, s=200, marker=figures.PROTOTYPE_MARKER, color="white", edgecolor=INK, linewidth=1.4)
    words(axes, 3.3, 0.66, "mean of a class", ha="left")
    axes.plot([2.99, 3.24], [0.3, 0.3], color=INK, linewidth=2.6)
    words(axes, 3.3, 0.3, "nearest: the answer", ha="left")


def _picture(axes: Axes, x: float, y: float, picture: np.ndarray, edge: str) -> None:
    """Draws a picture [H, W] of uint8 ink as an outline in a frame of 0.58 inches."""
    side, margin = 0.58, 0.0
    axes.add_patch(Rectangle((x, y), side, side, facecolor="white", edgecolor=edge, linewidth=2.4))
    at = np.linspace(margin, side - margin, len(picture))
    axes.contourf(x + at, y + at[::-1], picture / 255, levels=[0.45, 1.01], colors=[INK])


def _plane(axes: Axes) -> None:
    """Draws the space of embeddings: support points in the colour and marker of their class, class means as stars, the query."""
    axes.add_patch(Rectangle(_PLANE, 2.1, 2.82, facecolor="#FAFAFA", edgecolor=LINE))
    points = np.array(_POINTS) + _PLANE
    means, query = points.mean(1), np.array(_QUERY) + _PLANE
    nearest = int(((means - query) ** 2).sum(1).argmin())
    for slot, mean in enumerate(means):
        style = figures.slot_style(slot)
        line = {"linestyle": "-", "linewidth": 2.6} if slot == nearest else {"linestyle": ":", "linewidth": 1.5}
        axes.plot(*zip(query, mean, strict=True), color=INK, **line)
        axes.plot(*points[slot].T, color=style["color"], linewidth=1.2, alpha=0.6)
        axes.scatter(*points[slot].T, s=65, zorder=3, **style)
        axes.scatter(*mean, s=260, marker=figures.PROTOTYPE_MARKER, color=style["color"], edgecolor=INK, zorder=4)
    axes.scatter(*query, s=120, marker="X", color=INK, zorder=5)
    words(axes, query[0] + 0.14, query[1] - 0.12, "query", ha="left")


# ------------------------------------------------------------------------------------------- inner and outer loop

_TASKS = (
    (3.56, figures.SLOTS[0]),
    (2.44, figures.SLOTS[2]),
    (1.32, figures.SLOTS[3]),
)  # height and colour of each task
_THETA, _STEPS, _LOSS = (
    (0.52, 2.36),
    (2.08, 3.1),
    4.46,
)  # the start, and the x of the weights after each step and of the loss


def _loops(axes: Axes) -> None:
    """Draws every task's steps from the shared start to its own weights, and the gradient of its query loss on the way back."""
    words(axes, 2.59, 4.66, "inner loop", weight="bold")
    words(axes, 2.59, 4.4, "steps on the support")
    words(axes, _LOSS, 4.66, "query", weight="bold")
    words(axes, _LOSS, 4.4, "loss")
    for number, (middle, colour) in enumerate(_TASKS, start=1):
        y = middle - 0.08
        box(axes, 1.24, middle - 0.5, 3.84, 1.0, face=tint(colour, 0.12), edge=colour)
        words(axes, 2.59, middle + 0.35, f"task {number}")
        nodes = [(x, y) for x in _STEPS]
        _there_and_back(axes, _THETA, nodes[0], (0.42, 0.29))
        _there_and_back(axes, nodes[0], nodes[1], (0.29, 0.29))
        _there_and_back(axes, nodes[1], (_LOSS, y), (0.29, 0.49))
        for primes, at in zip((r"\prime", r"\prime\prime"), nodes, strict=True):
            _node(axes, at, rf"$\theta_{number}^{{\,{primes}}}$", colour)
        box(axes, _LOSS - 0.46, y - 0.29, 0.92, 0.58, face="white", edge=colour)
        words(axes, _LOSS, y, rf"$L_{number}(\theta_{number}^{{\,\prime\prime}})$")
    _node(axes, _THETA, r"$\theta$", INK, radius=0.36, size=20)
    words(axes, _THETA[0], _THETA[1] + 0.6, "start", weight="bold")
    words(axes, 0.14, 0.54, "outer loop", weight="bold", ha="left")
    words(axes, 1.3, 0.54, "gradient back through the steps,", ha="left", color=_BACK)
    step = r"$\theta \leftarrow \theta - \beta\,\nabla_{\!\theta}\,(L_1 + L_2 + L_3)/3$"
    words(axes, 1.3, 0.22, step, ha="left")


def _there_and_back(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], radii: tuple[float, float], apart: float = 0.1
) -> None:
    """Draws two arrows beside each other: the step from `start` to `end`, and the gradient back.

    radii: inches kept free at the two ends; apart: inches of each arrow from the line between the ends
    """
    a, b = np.array(start), np.array(end)
    along = (b - a) / np.linalg.norm(b - a)
    aside = apart * np.array([-along[1], along[0]])
    tail, head = (np.sqrt(radius**2 - apart**2) * along for radius in radii)
    arrow(axes, tuple(a + tail + aside), tuple(b - head + aside))
    arrow(axes, tuple(b - head - aside), tuple(a + tail - aside), color=_BACK, linestyle=(0, (3.2, 1.6)))


def _node(axes: Axes, at: tuple[float, float], name: str, edge: str, *, radius: float = 0.27, size: float = 15) -> None:
    axes.add_patch(Circle(at, radius, facecolor="white", edgecolor=edge, linewidth=1.8, zorder=3))
    words(axes, *at, name, fontsize=size, zorder=4)


# ---------------------------------------------------------------------------------------------------- the package


_FLOORS = {  # the first name of each floor in pyproject.toml, and what the floor holds
    "cli": "the command line",
    "training": "the loop; runs that survive",
    "classifier": "what is this, and why?",
    "evaluation": "intervals, trained weights",
    "methods": "one paper, one file",
    "inner_loop": "functional steps, pictures",
    "episodes": "few-shot tasks",
    "data": "what is learned from, encoders",
    "_system": "files, locks, devices",
}


def floors(root: Path = ROOT) -> list[list[str]]:
    """Returns the floors of `fsl_course` from the top down, each with its modules and rooms, read from pyproject.toml."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(one["layers"] for one in settings["contracts"] if one.get("containers") == ["fsl_course"])
    return [re.split(r"\s*[:|]\s*", layer) for layer in layers if layer != "__main__"]


def _package(axes: Axes) -> None:
    """Draws the floors of the reference package, the classroom on top of them, and the lessons, which use both, beside them."""
    left, right, high, blue, orange, green = 0.12, 3.94, 0.56, *(figures.SLOTS[slot] for slot in (0, 1, 2))
    stack = list(reversed(floors()))
    for place, names in enumerate(stack):
        y = 0.12 + place * high
        box(axes, left, y, right - left, high - 0.07, face=tint(blue, 0.08 + 0.03 * place), edge=blue, line=1.2)
        words(axes, left + 0.13, y + 0.35, " · ".join(names), ha="left", weight="bold")
        words(axes, left + 0.13, y + 0.13, _FLOORS[names[0]], ha="left")
    top = 0.12 + len(stack) * high
    words(axes, left + 0.02, top + 0.16, "fsl_course", ha="left", weight="bold", color=blue, fontsize=14)
    words(axes, right - 0.02, top + 0.16, "imports run downwards", ha="right", color=SOFT, style="italic")
    box(axes, left, top + 0.48, right - left, 0.78, face=tint(orange), edge=orange)
    words(axes, left + 0.13, top + 1.03, "checking, exercises, variants,", ha="left")
    words(axes, left + 0.13, top + 0.73, "widgets, grading, assignments", ha="left")
    words(axes, left + 0.02, top + 1.43, "fsl_classroom", ha="left", weight="bold", color=_BACK, fontsize=14)
    box(axes, 4.28, 0.12, 0.8, top + 1.14, face=tint(green), edge=green)
    words(axes, 4.68, (top + 1.38) / 2, "lessons and notebooks", weight="bold", rotation=90)
    for y in (top + 0.87, top / 2 + 0.03):
        arrow(axes, (4.26, y), (right + 0.04, y))


DIAGRAMS = {
    "metric": Diagram(
        "Two support pictures of each of three classes and one query go through the same encoder and become points; "
        "the query gets the class whose mean is nearest to it",
        4.2,
        _metric,
    ),
    "loops": Diagram(
        "From one start θ each of three tasks takes two inner steps on its support and ends in a query loss; "
        "the outer loop sends the gradient of these losses back through the steps and moves θ",
        4.84,
        _loops,
    ),
    "package": Diagram(
        "The floors of fsl_course: _system at the ground, then data and nets, episodes, inner_loop and figures, methods, "
        "evaluation and weights, classifier and trust, training, and cli at the top. fsl_classroom stands on it; lessons "
        "use both",
        6.81,
        _package,
    ),
    "path": Diagram(
        lesson_map.alt(lesson_map.prerequisites()), lesson_map.height(list(lesson_map.titles())), lesson_map.draw
    ),
}


def refreshed(text: str) -> str:
    """Returns a text in which every drawing of DIAGRAMS has its alt text of today."""
    shown = rf"!\[[^\]]*\](?=\(\.\./{FOLDER}/(\w+)\.svg\))"
    return re.sub(shown, lambda match: f"![{DIAGRAMS[match[1]].alt}]", text)


def main() -> None:
    """Draws every diagram into docs/diagrams, and renews the alt texts in lessons and pages that show one."""
    (ROOT / FOLDER).mkdir(exist_ok=True)
    for name in DIAGRAMS:
        save(name, ROOT / FOLDER / f"{name}.svg")
    for path in (*lesson_files(ROOT), *sorted((ROOT / "book").glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        if (new := refreshed(text)) != text:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
