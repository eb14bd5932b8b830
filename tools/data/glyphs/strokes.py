"""Filled shapes to pen strokes: the skeleton as a clean graph, whose edges are joined at junctions where they go straight on."""

from __future__ import annotations

import numpy as np

from tools.data.glyphs.curves import length, nearest, resample, smooth
from tools.data.glyphs.graph import Edge, SkeletonGraph
from tools.data.glyphs.skeleton import depth, thin

Array = np.ndarray
End = tuple[int, int]  # (edge number, side)

POINT_SPACING = 6.0  # pixels between the points of a finished stroke
STRAIGHT_ON = -0.6  # cosine between two edges that leave a junction, below which the pen goes from one into the other
DOT = 0.8  # a stroke shorter than this many half widths of the pen is a dot
DOT_ARM = np.array([0.0, 2.0])  # a dot is stored as a stroke of four pixels
SMALLEST = 10  # pixels; shapes smaller than this are not traced


def trace(mask: Array) -> list[Array] | None:
    """Traces a filled shape bool [h, w]. Returns its strokes, each float [n, 2] as (x, y), or None if it is too small.

    The longer side of the box around all strokes is 1 long and the box is centred on 0. y grows downwards.
    """
    graph = SkeletonGraph(thin(mask), depth(mask))
    graph.clean()
    strokes = []
    for line in _chains(graph):
        if length(line) < DOT * graph.half_width:
            strokes.append(_dot(line.mean(axis=0)))
        else:
            sigma = max(1.5, 0.5 * graph.half_width)
            line = smooth(line, sigma, radius=int(3 * sigma))
            strokes.append(resample(line, int(nearest(length(line) / POINT_SPACING))))
    strokes += [_dot(position) for node, position in graph.nodes.items() if graph.degree(node) == 0]
    if not strokes:
        return None
    points = np.concatenate(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    side = (high - low).max()
    if side < SMALLEST:
        return None
    return [((stroke - (low + high) / 2) / side)[:, ::-1] for stroke in strokes]


def _dot(centre: Array) -> Array:
    return np.array([centre - DOT_ARM, centre + DOT_ARM])


def _chains(graph: SkeletonGraph) -> list[Array]:
    """Joins edges to strokes. A stroke starts at an edge end that has no partner; a ring starts anywhere."""
    partner = _partners(graph)
    ends = [(number, side) for number in graph.edges for side in (0, 1)]
    starts = [end for end in ends if end not in partner] + [(number, 0) for number in graph.edges]
    chains, used = [], set()
    for start in starts:
        pieces: list[Array] = []
        end: End | None = start
        while end is not None and end[0] not in used:
            number, side = end
            used.add(number)
            line = graph.edges[number].leaving(side)
            pieces.append(line[1:] if pieces else line)
            end = partner.get((number, 1 - side))
        if pieces:
            chains.append(np.concatenate(pieces))
    return chains


def _partners(graph: SkeletonGraph) -> dict[End, End]:
    """Returns the edge end into which the pen goes on from each end. The straightest pairs of a junction are formed first."""
    partner: dict[End, End] = {}
    for node in graph.nodes:
        ends = graph.ends_at(node)
        directions = [_direction(graph.edges[number], side, graph.half_width) for number, side in ends]
        candidates = []
        for i in range(len(ends)):
            for j in range(i + 1, len(ends)):
                same_edge = ends[i][0] == ends[j][0]
                if same_edge and len(ends) > 2:
                    continue
                # Rounded, so that the order of the edges, and not the last bits, decides a symmetric junction.
                cosine = round(float((directions[i] * directions[j]).sum()), 9)
                if cosine < STRAIGHT_ON or len(ends) == 2:
                    candidates.append((cosine, i, j))
        for _, i, j in sorted(candidates):
            if ends[i] not in partner and ends[j] not in partner:
                partner[ends[i]], partner[ends[j]] = ends[j], ends[i]
    return partner


def _direction(edge: Edge, side: int, half_width: float) -> Array:
    """Returns the unit vector in which an edge leaves its node, measured outside the blurred junction."""
    line = edge.leaving(side)
    step = line[min(len(line) - 1, max(6, int(2.5 * half_width)))] - line[0]
    return step / (np.hypot(*step) + 1e-9)
