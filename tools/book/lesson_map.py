"""The learning path as a picture: all lessons below each other in their parts, and lines from each to those that need it.

The lines come from the prerequisites that the lessons name. What a needed lesson needs itself is not drawn again.
"""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

from fsl_course.figures import SLOTS
from tools.book.drawing import INK, arrow, box, tint, words
from tools.notebooks.cells import lesson_files
from tools.notebooks.parts import PARTS, part_of

ROOT = Path(__file__).resolve().parents[2]
Needs = dict[str, tuple[str, ...]]  # lesson number -> numbers of the lessons that it needs
Edge = tuple[str, str]  # (needed, needing)
_TITLE = re.compile(r"^# # \d\d ([^:,\n]+)", re.M)  # up to a colon or a comma
_NEEDS = re.compile(r"^# Prerequisites: (.+?)\. Planned", re.M)
_PITCH, _BOX, _GAP = 0.36, 0.25, 0.16  # inches: from row to row, height of a box, more between parts
_LEFT, _RIGHT, _LABEL = 2.02, 4.78, 4.99  # x: the boxes' sides, the middle of the parts' names
_LANE, _TURN = 0.27, 0.08  # from lane to lane, radius of a bend
_COLOURS = (
    SLOTS[0],
    "#B34E00",
    "#00664B",
    "#8A3F6B",
    INK,
    "#7A6000",
)  # of the lanes: dark, so that thin lines are seen


def titles(root: Path = ROOT) -> dict[str, str]:
    """Returns the short title of every lesson, by number, in order."""
    return {path.name[:2]: _TITLE.search(path.read_text(encoding="utf-8"))[1] for path in lesson_files(root)}


def needed(prose: str) -> tuple[str, ...]:
    """Returns the lessons that a line of prerequisites names: "lessons 02 and 05 to 07; lesson 03 helps" -> 02 05 06 07."""
    found: list[str] = []
    line = re.sub(r"\]\([^)]*\)", "]", prose.partition(";")[0])
    for first, last in re.findall(r"\b(\d\d)\b(?: to (\d\d)\b)?", line):
        found += [f"{number:02d}" for number in range(int(first), int(last or first) + 1)]
    return tuple(found)


def prerequisites(root: Path = ROOT) -> Needs:
    """Returns what each lesson needs, read from its first cell."""
    lines = {path.name[:2]: _NEEDS.search(path.read_text(encoding="utf-8"))[1] for path in lesson_files(root)}
    return {number: needed(line) for number, line in lines.items()}


def all_needed(number: str, needs: Needs) -> set[str]:
    """Returns every lesson that must come before this one: what it needs, what that needs, and so on."""
    found, waiting = set(), list(needs[number])
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += needs[one]
    return found


def edges(needs: Needs) -> list[Edge]:
    """Returns the lines to draw: a need is left out where another need of the same lesson implies it."""
    drawn = []
    for number, wanted in needs.items():
        implied = set().union(*(all_needed(one, needs) for one in wanted))
        drawn += [(one, number) for one in sorted(set(wanted) - implied)]
    return drawn


def lanes(drawn: list[Edge], order: list[str]) -> dict[str, int]:
    """Returns a lane, 0 beside the boxes, for every lesson with a line past its neighbour. No two lines share a lane's row."""
    place = {number: row for row, number in enumerate(order)}
    ends: dict[str, int] = {}
    for start, end in drawn:
        if place[end] - place[start] > 1:
            ends[start] = max(ends.get(start, 0), place[end])
    taken: list[list[tuple[int, int]]] = []
    found = {}
    for start in sorted(ends, key=lambda number: (ends[number] - place[number], number)):
        mine = (place[start], ends[start])
        free = (lane for lane, rows in enumerate(taken) if all(mine[1] < a or b < mine[0] for a, b in rows))
        found[start] = next(free, len(taken))
        if found[start] == len(taken):
            taken.append([])
        taken[found[start]].append(mine)
    return found


def height(order: list[str]) -> float:
    """Returns the height in inches of the picture of these lessons."""
    return 0.2 + _PITCH * len(order) + _GAP * (len({part_of(number) for number in order}) - 1)


def alt(needs: Needs) -> str:
    """Returns the alternative text: where a learner may turn off."""
    first = PARTS[0]
    early = [n for n in needs if not first.holds(n) and all(first.holds(one) for one in all_needed(n, needs))]
    return (
        f"Lessons {min(needs)} to {max(needs)} in four parts, with arrows from each lesson to those that need it. "
        f"After part I you may go on to {', '.join(early[:-1])} or {early[-1]}"
    )


def draw(axes: Axes, root: Path = ROOT) -> None:
    """Draws the lessons as boxes, the parts as names beside them, and the needs as lines that run in lanes on the left."""
    names, drawn = titles(root), edges(prerequisites(root))
    order = list(names)
    rows = _rows(order)
    for number, title in names.items():
        colour = SLOTS[PARTS.index(part_of(number))]
        box(axes, _LEFT, rows[number] - _BOX / 2, _RIGHT - _LEFT, _BOX, face=tint(colour), edge=colour)
        words(axes, _LEFT + 0.08, rows[number] - 0.01, number, ha="left", weight="bold")
        words(axes, _LEFT + 0.4, rows[number] - 0.01, title, ha="left")
    for part in PARTS:
        ys = [rows[number] for number in order if part.holds(number)]
        if ys:
            words(axes, _LABEL, sum(ys) / len(ys), f"{part.number} {part.title}", weight="bold", rotation=270)
    lane = lanes(drawn, order)
    for start, end in drawn:
        if order.index(end) - order.index(start) == 1:
            x = _LEFT + 0.2
            arrow(axes, (x, rows[start] - _BOX / 2), (x, rows[end] + _BOX / 2), linewidth=1.4, gid=mark(start, end))
    for end in order:
        into = [start for start, one in drawn if one == end and order.index(end) - order.index(start) > 1]
        for place, start in enumerate(sorted(into, key=lane.get)):
            ys = rows[start] - 0.09, rows[end] + 0.08 - 0.065 * place
            _line(axes, lane[start], *ys, mark(start, end))


def _rows(order: list[str]) -> dict[str, float]:
    """Returns the y of every lesson, from the top down, with a gap between parts."""
    parts = [PARTS.index(part_of(number)) for number in order]
    top = height(order) - 0.1 - _PITCH / 2
    return {number: top - _PITCH * row - _GAP * (parts[row] - parts[0]) for row, number in enumerate(order)}


def mark(start: str, end: str) -> str:
    """Returns the id that the arrow from one lesson to another has in the SVG file."""
    return f"needs-{start}-{end}"


def _line(axes: Axes, lane: int, above: float, below: float, gid: str) -> None:
    """Draws a line from the box at the height `above`, out to its lane, down, and to the box at the height `below`.

    Where it crosses another lane, it runs over it on a white ribbon, so that nobody takes the crossing for a fork.
    """
    x, look = lane_x(lane), {"color": _COLOURS[lane % len(_COLOURS)], "linewidth": 1.4}
    points = [(x + _TURN, above), (x, above), (x, above - _TURN), (x, below + _TURN), (x, below), (x + _TURN, below)]
    codes = [Outline.MOVETO, Outline.CURVE3, Outline.CURVE3, Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    bend = PathPatch(Outline(points, codes), facecolor="none", edgecolor=look["color"], linewidth=1.4, capstyle="butt")
    axes.add_patch(bend)
    for y in (above, below):
        axes.plot([x + _TURN, _LEFT], [y, y], color="white", linewidth=4.5, zorder=1.5, solid_capstyle="butt")
    axes.plot([x + _TURN, _LEFT], [above, above], zorder=2, solid_capstyle="butt", **look)
    arrow(axes, (x + _TURN, below), (_LEFT, below), zorder=2, gid=gid, **look)


def lane_x(lane: int) -> float:
    """Returns where a lane runs, in inches from the left side."""
    return _LEFT - 0.2 - _LANE * lane
