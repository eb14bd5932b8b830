"""A skeleton as a graph: junctions and ends are nodes, the lines between them are edges. Positions are (row, column)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.data.glyphs.curves import length

Array = np.ndarray
Pixel = tuple[int, int]

SPUR = 1.5  # a side branch shorter than this many half widths of the pen is an artefact of thinning
BRIDGE = 1.6  # two junctions nearer than this many half widths are one crossing that thinning has split


@dataclass
class Edge:
    """A line [n, 2] between two nodes: ends[0] sits at line[0], ends[1] at line[-1]."""

    ends: list[Pixel]
    line: Array

    def leaving(self, side: int) -> Array:
        """Returns the line in the direction away from the node at this side, 0 or 1."""
        return self.line if side == 0 else self.line[::-1]


class SkeletonGraph:
    """Nodes (name -> position) and edges (number -> Edge) of a skeleton; a node is named after the pixel it came from.

    skeleton: bool [h, w]; depth: float [h, w], the distance to the background (see skeleton.py).
    """

    def __init__(self, skeleton: Array, depth: Array) -> None:
        self.depth = depth
        self.nodes: dict[Pixel, Array] = {}
        self.edges: dict[int, Edge] = {}
        self._next = 0
        self._build(_adjacency(skeleton))
        on_lines = [depth[row, column] for edge in self.edges.values() for row, column in edge.line.astype(int)]
        self.half_width = float(np.median(on_lines)) if on_lines else 1.0

    def ends_at(self, node: Pixel) -> list[tuple[int, int]]:
        """Returns the edge ends that meet in a node as (edge number, side 0 or 1). A loop counts with both its ends."""
        return [(number, side) for number, edge in self.edges.items() for side in (0, 1) if edge.ends[side] == node]

    def degree(self, node: Pixel) -> int:
        """Returns how many edge ends meet in a node; 0 for a dot."""
        return len(self.ends_at(node))

    def clean(self) -> None:
        """Removes what thinning added: spurs, and short bridges inside crossings. Changes the graph in place."""
        while (spur := self._shortest_spur()) is not None:
            number, leaf = spur
            del self.edges[number], self.nodes[leaf]
            self._dissolve_passages()
        while (bridge := self._shortest_bridge()) is not None:
            self._contract(bridge)
        self._dissolve_passages()

    def _build(self, adjacent: dict[Pixel, list[Pixel]]) -> None:
        nodes = sorted(pixel for pixel, near in adjacent.items() if len(near) != 2)
        is_node = set(nodes)
        self.nodes = {pixel: np.array(pixel, float) for pixel in nodes}
        walked: set[tuple[Pixel, Pixel]] = set()
        used = set(nodes)
        for node in nodes:
            for second in adjacent[node]:
                if (node, second) in walked:
                    continue
                path = _walk(node, second, adjacent, is_node)
                walked.update([(path[0], path[1]), (path[-1], path[-2])])
                used.update(path)
                self._add(path)
        for pixel in sorted(adjacent):  # rings are left; each gets a node at its first pixel
            if pixel not in used:
                path = _walk(pixel, adjacent[pixel][0], adjacent, {pixel})
                used.update(path)
                self.nodes[pixel] = np.array(pixel, float)
                self._add(path)

    def _add(self, path: list[Pixel]) -> None:
        self._insert(Edge([path[0], path[-1]], np.array(path, float)))

    def _insert(self, edge: Edge) -> None:
        self.edges[self._next] = edge
        self._next += 1

    def _dissolve_passages(self) -> None:
        """Joins the two edges at every node that is neither an end nor a junction."""
        for node in list(self.nodes):
            ends = self.ends_at(node)
            if len(ends) != 2 or ends[0][0] == ends[1][0]:
                continue
            (first, first_side), (second, second_side) = ends
            a, b = self.edges.pop(first), self.edges.pop(second)
            line = np.concatenate([a.leaving(1 - first_side), b.leaving(second_side)[1:]])
            self._insert(Edge([a.ends[1 - first_side], b.ends[1 - second_side]], line))
            del self.nodes[node]

    def _shortest_spur(self) -> tuple[int, Pixel] | None:
        """Returns the shortest spur as (edge number, its free end), or None if there is none."""
        spurs = []
        for number, edge in self.edges.items():
            degrees = [self.degree(node) for node in edge.ends]
            if 1 not in degrees or max(degrees) < 3:
                continue
            free = degrees.index(1)
            size = length(edge.line)
            if size < SPUR * max(self._depth_at(edge.ends[1 - free]), self.half_width):
                spurs.append((size, number, edge.ends[free]))
        return min(spurs)[1:] if spurs else None

    def _shortest_bridge(self) -> int | None:
        """Returns the number of the shortest edge between two junctions of one crossing, or None if there is none."""
        bridges = []
        for number, edge in self.edges.items():
            a, b = edge.ends
            if a != b and self.degree(a) >= 3 and self.degree(b) >= 3:
                bridges.append((length(edge.line), number))
        size, number = min(bridges, default=(np.inf, -1))
        return number if size < BRIDGE * self.half_width else None

    def _contract(self, number: int) -> None:
        """Replaces an edge and its two nodes by one node in their middle."""
        a, b = self.edges.pop(number).ends
        middle = (self.nodes[a] + self.nodes.pop(b)) / 2
        self.nodes[a] = middle
        for edge in self.edges.values():
            edge.ends = [a if node == b else node for node in edge.ends]
            if edge.ends[0] == a:
                edge.line = np.concatenate([middle[None], edge.line])
            if edge.ends[1] == a:
                edge.line = np.concatenate([edge.line, middle[None]])

    def _depth_at(self, node: Pixel) -> float:
        row, column = np.clip(np.rint(self.nodes[node]).astype(int), 0, np.array(self.depth.shape) - 1)
        return float(self.depth[row, column])


def _adjacency(skeleton: Array) -> dict[Pixel, list[Pixel]]:
    """Returns the neighbours of every skeleton pixel. A diagonal neighbour counts only if no two straight steps lead to it."""
    pixels = {(int(row), int(column)) for row, column in np.argwhere(skeleton)}
    adjacent = {}
    for row, column in sorted(pixels):
        straight = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        near = [pixel for pixel in straight if pixel in pixels]
        for dy, dx in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            around_the_corner = (row + dy, column) in pixels or (row, column + dx) in pixels
            if (row + dy, column + dx) in pixels and not around_the_corner:
                near.append((row + dy, column + dx))
        adjacent[row, column] = near
    return adjacent


def _walk(start: Pixel, second: Pixel, adjacent: dict[Pixel, list[Pixel]], stops: set[Pixel]) -> list[Pixel]:
    """Returns the path from start through second to the next pixel in stops."""
    path = [start, second]
    while path[-1] not in stops:
        path.append(next(pixel for pixel in adjacent[path[-1]] if pixel != path[-2]))
    return path
