"""Variants of lesson 05: prototypes with a prior, and distances with a dead zone."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_classroom.checking.model import Wrong
from fsl_classroom.variants.build import Draw, Variant, build

# ---------------------------------------------------------------------------------------------- 05.1 prototypes


def _prototypes(prior: float, centre: str, unit: str) -> Callable[..., Tensor]:
    """Returns an answer that pulls class means to a centre.

    centre: "rows" or "means"
    unit:   when rows or prototypes are brought to length 1: "before", "after" or "never"
    """

    def answer(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
        rows = F.normalize(embeddings, dim=1) if unit == "before" else embeddings
        member = (labels[:, None] == torch.arange(n_way)).to(rows.dtype)  # [S, N]
        count = member.sum(0)[:, None]
        total = member.T @ rows
        grand = rows.mean(0) if centre == "rows" else (total / count).mean(0)
        made = (total + prior * grand) / (count + prior)
        return F.normalize(made, dim=1) if unit == "after" else made

    return answer


def _prototypes_loop(prior: float, centre: str, unit: str) -> Callable[..., Tensor]:
    def answer(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
        length = embeddings.norm(dim=1, keepdim=True)
        rows = embeddings / length if unit == "before" else embeddings
        means = [rows[labels == k].mean(0) for k in range(n_way)]
        grand = rows.mean(0) if centre == "rows" else sum(means) / n_way
        made = []
        for k, mean in enumerate(means):
            share = prior / (prior + int((labels == k).sum()))
            pulled = (1 - share) * mean + share * grand
            made.append(pulled / pulled.norm() if unit == "after" else pulled)
        return torch.stack(made)

    return answer


def _wrong_prototypes(prior: float, centre: str, unit: str, where: str) -> tuple[Wrong, ...]:
    """Returns the classic mistakes in 05.1. where: the centre g in words."""
    other_centre, other_unit = {"rows": "means", "means": "rows"}[centre], {"before": "after", "after": "before"}[unit]
    return (
        Wrong(
            "no prior",
            _prototypes(0.0, centre, unit),
            "the plain class means are taken: the imagined shots are left out",
            "Add m·g to the sum of a class and m to its count.",
        ),
        Wrong(
            "other centre",
            _prototypes(prior, other_centre, unit),
            f"the centre is not {where}",
            "With unequal shots the mean of all rows and the mean of the class means differ.",
        ),
        Wrong(
            "other length",
            _prototypes(prior, centre, other_unit),
            f"lengths are taken out {other_unit} the mean, not {unit} it",
            "Mean and normalisation do not commute: look at the order in the list.",
        ),
        Wrong(
            "no length",
            _prototypes(prior, centre, "never"),
            "nothing is brought to length 1",
            "`F.normalize(x, dim=1)` brings every row to length 1.",
        ),
    )


def prototypes(draw: Draw) -> Variant:
    """Returns a variant of 05.1: draws the shots of the prior, its centre, and what is brought to length 1."""
    prior, centre, unit = draw.one(0.5, 1.5, 2.0, 3.0, 4.0), draw.one("rows", "means"), draw.one("before", "after")
    where = {"rows": "the mean of all support rows", "means": "the mean of the N class means"}[centre]
    first = "rows = F.normalize(embeddings, dim=1)" if unit == "before" else "rows = embeddings"
    grand = "rows.mean(0)" if centre == "rows" else "means.mean(0)"
    last = "made" if unit == "before" else "F.normalize(made, dim=1)"
    return build(
        draw,
        title="Prototypes with a prior",
        difficulty=2,
        signature="prototypes(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor",
        doc="Class means pulled to a common centre. embeddings [S, D], labels [S] in 0..n_way-1 -> [n_way, D].",
        task="Return a prototype for each class, row $k$ for slot $k$. With $n_k$ shots of class $k$, their mean "
        "$\\bar z_k$, a common "
        "centre $g$ and $m$ imagined shots lying at $g$:\n\n$$c_k = \\frac{n_k \\bar z_k + m g}{n_k + m}$$",
        twists=(
            f"m = {prior:g} imagined shots",
            f"g is {where}",
            "every support row is brought to length 1 before anything else"
            if unit == "before"
            else "every finished prototype is brought to length 1, and the rows are left as they are",
        ),
        shapes="| | shape |\n|---|---|\n| `embeddings`, no row is zero | `[S, D]` |\n| `labels`, every slot at least once, any "
        "order, unequal shots | `[S]`, 0 to `n_way - 1` |\n| returned | `[n_way, D]` |",
        body=f"""
            {first}
            means = torch.stack([rows[labels == k].mean(0) for k in range(n_way)])
            shots = torch.stack([(labels == k).sum() for k in range(n_way)])[:, None]
            centre = {grand}
            made = (shots * means + {prior:g} * centre) / (shots + {prior:g})
            return {last}
        """,
        right=(_prototypes(prior, centre, unit), _prototypes_loop(prior, centre, unit)),
        wrong=_wrong_prototypes(prior, centre, unit, where),
        hints=(
            "The prior acts like m more rows of every class, all lying at g.",
            "Means by `embeddings[labels == k].mean(0)`, shots by `(labels == k).sum()`; then the formula.",
            "`(shots * means + m * centre) / (shots + m)` with `shots` [N, 1]; mind where the length is taken out.",
        ),
        gradient=(0,),
    )


# ---------------------------------------------------------------------------------------------- 05.2 distances

_FEATURES = {"even": "slice(0, None, 2)", "odd": "slice(1, None, 2)", "first": "slice(0, 1)", "last": "slice(-1, None)"}
_FEATURE_WORDS = {
    "even": "features 0, 2, 4, ...",
    "odd": "features 1, 3, 5, ...",
    "first": "feature 0",
    "last": "the last feature",
}


def _distances(weight: float, which: str, dead: float, slack: bool = True) -> Callable[..., Tensor]:
    """Returns an answer with a dead zone and weights. slack=False: differences beyond the zone count in full."""

    def answer(query: Tensor, centres: Tensor) -> Tensor:
        gap = (query[:, None] - centres).abs()
        gap = (gap - dead).clamp_min(0) if slack else torch.where(gap > dead, gap, 0.0)
        chosen = torch.arange(query.shape[1])[_slice(which)]
        weights = torch.ones(query.shape[1], dtype=query.dtype).index_fill(0, chosen, weight)
        return (gap.square() * weights).sum(-1)

    return answer


def _slice(which: str) -> slice:
    return {"even": slice(0, None, 2), "odd": slice(1, None, 2), "first": slice(0, 1), "last": slice(-1, None)}[which]


def _distances_loop(weight: float, which: str, dead: float) -> Callable[..., Tensor]:
    def answer(query: Tensor, centres: Tensor) -> Tensor:
        columns = []
        for centre in centres:
            difference = query - centre
            left = F.softshrink(difference, dead) ** 2  # softshrink is the dead zone and keeps the sign
            columns.append(left.sum(1) + (weight - 1) * left[:, _slice(which)].sum(1))
        return torch.stack(columns, 1)

    return answer


def _wrong_distances(weight: float, which: str, dead: float) -> tuple[Wrong, ...]:
    """Returns the classic mistakes in 05.2."""
    opposite = {"even": "odd", "odd": "even", "first": "last", "last": "first"}[which]
    return (
        Wrong(
            "no dead zone",
            _distances(weight, which, 0.0),
            "small differences count: the dead zone is left out",
            "`(gap.abs() - e).clamp_min(0)` before the square.",
        ),
        Wrong(
            "no weights",
            _distances(1.0, which, dead),
            "all features count the same",
            "Multiply the squares by w, one number for each feature, before the sum.",
        ),
        Wrong(
            "other features",
            _distances(weight, opposite, dead),
            f"w stands at {_FEATURE_WORDS[opposite]}",
            "Features are counted from 0.",
        ),
        Wrong(
            "weight inside the square",
            _distances(weight**2, which, dead),
            "w is squared: it is multiplied to the difference, not to its square",
            "First the square, then the weight.",
        ),
        Wrong(
            "hard threshold",
            _distances(weight, which, dead, slack=False),
            "differences below e are dropped, but the others keep their full length",
            "Beyond the zone count what is beyond it: |z − c| − e.",
        ),
    )


def distances(draw: Draw) -> Variant:
    """Returns a variant of 05.2: draws a weight, the features that it applies to, and the dead zone."""
    weight, which = draw.one(0.5, 2.0, 3.0, 5.0), draw.one(*_FEATURES)
    dead = draw.one(0.05, 0.1, 0.15, 0.2, 0.3)
    return build(
        draw,
        title="Squared distances with a dead zone",
        difficulty=2,
        signature="squared_distances(query: Tensor, centres: Tensor) -> Tensor",
        doc="Weighted squared distances with a dead zone. query [M, D], centres [N, D] -> [M, N].",
        task="Return the distances of all queries to all prototypes, without a loop over queries. Small differences "
        "are noise and "
        "count nothing, and some features count more or less than others:\n\n"
        "$$d(z, c) = \\sum_j w_j \\, \\max(|z_j - c_j| - e, 0)^2$$",
        twists=(f"the dead zone is e = {dead:g}", f"w = {weight:g} for {_FEATURE_WORDS[which]}, w = 1 for the others"),
        shapes="| `query` | `centres` | returned |\n|---|---|---|\n| `[M, D]` | `[N, D]` | `[M, N]` |",
        body=f"""
            gap = ((query[:, None] - centres).abs() - {dead:g}).clamp_min(0)  # [M, N, D]
            weights = torch.ones_like(query[0])
            weights[{_FEATURES[which]}] = {weight:g}
            return (weights * gap.square()).sum(-1)
        """,
        right=(_distances(weight, which, dead), _distances_loop(weight, which, dead)),
        wrong=_wrong_distances(weight, which, dead),
        hints=(
            "Work on the table [M, N, D] of differences; everything happens feature by feature before the sum.",
            "Three steps: `.abs()` less e, `.clamp_min(0)`, `.square()`; then weights [D] and the sum over the last axis.",
            "`(weights * ((query[:, None] - centres).abs() - e).clamp_min(0).square()).sum(-1)`",
        ),
        gradient=(0, 1),
    )
