"""Episodes with a deliberate leak, and two players that exploit it without seeing a picture (lesson 01)."""

from __future__ import annotations

from dataclasses import replace

import torch

from fsl_course.episodes import EpisodeSampler, Layout

DEALS = {
    "deal fairly": "fair",
    "a drawing is in support and query": "repeat",
    "slots keep the class order": "sorted",
    "classes sorted, queries not shuffled": "in order",
}


def deal(layout: Layout, how: str) -> Layout:
    """Returns the same episodes with a leak. how: "fair", "repeat", "sorted" or "in order", see DEALS; layout: T episodes.

    "repeat" takes support and queries from the top of one shuffle, so the first min(K, Q) queries of every class are its
    support drawings. "sorted" gives low class ids low slots. "in order" does the same and also deals the rows slot by slot.
    """
    if how == "fair":
        return layout
    if how == "repeat":
        n_way = layout.classes.shape[1]
        by_slot = [
            labels.argsort(dim=1, stable=True).unflatten(1, (n_way, -1))
            for labels in (layout.support_y, layout.query_y)
        ]
        both = min(rows.shape[2] for rows in by_slot)
        from_support, to_query = (rows[..., :both].flatten(1) for rows in by_slot)
        return replace(layout, query=layout.query.scatter(1, to_query, layout.support.gather(1, from_support)))
    if how not in ("sorted", "in order"):
        raise ValueError(f"how must be one of {', '.join(DEALS.values())}; got {how!r}.")
    classes, order = layout.classes.sort(dim=1)
    new_slot = order.argsort(dim=1)
    labels = [new_slot.gather(1, old) for old in (layout.support_y, layout.query_y)]
    rows = [layout.support, layout.query]
    if how == "in order":
        orders = [y.argsort(dim=1, stable=True) for y in labels]
        rows, labels = ([t.gather(1, o) for t, o in zip(ts, orders, strict=True)] for ts in (rows, labels))
    nothing = rows[0][:, :0]  # no unlabelled drawings
    return Layout(rows[0], labels[0], rows[1], labels[1], classes, nothing, nothing)


def blind_players(sampler: EpisodeSampler, layout: Layout) -> tuple[float, float]:
    """Returns the accuracy of two players that see no picture: one knows a query's class id, the other its row number.

    Both spread what they are told evenly over the slots: they guess slot c N // C for id c of C classes (of its alphabet, if
    episodes are drawn within alphabets), and slot i N // M for row i of M. Without a leak both are right 1/N of the time.
    """
    n_way, rows = layout.classes.shape[1], layout.query_y.shape[1]
    rank, pool = torch.arange(len(sampler.source)), torch.full((len(sampler.source),), len(sampler.source))
    if sampler.within_group:
        groups = sampler.source.groups
        for name in set(groups):
            mine = torch.tensor([i for i, group in enumerate(groups) if group == name])
            rank[mine], pool[mine] = torch.arange(len(mine)), len(mine)
    asked = layout.classes.gather(1, layout.query_y)  # [T, M]
    by_id = rank[asked] * n_way // pool[asked] == layout.query_y
    by_row = torch.arange(rows) * n_way // rows == layout.query_y
    return float(by_id.double().mean()), float(by_row.double().mean())
