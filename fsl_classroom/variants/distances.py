"""Variants of lessons 02 and 03: class means by cosine, contrastive losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Wrong
from fsl_classroom.variants.build import Draw, Variant, build

# ---------------------------------------------------------------------------------------------- 02.2 cosine to class means


def _centroid(share: float, centre: str, scale: float, query_too: bool = True) -> Callable[..., Tensor]:
    def answer(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        member = F.one_hot(labels, n_way).to(support.dtype)
        means = member.T @ support / member.sum(0)[:, None]
        origin = share * (support if centre == "rows" else means).mean(0)
        unit = F.normalize(support - origin, dim=1)
        centres = F.normalize(member.T @ unit, dim=1)  # the length of a class mean does not matter
        return scale * F.normalize(query - origin * query_too, dim=1) @ centres.T

    return answer


def _centroid_loop(share: float, centre: str, scale: float) -> Callable[..., Tensor]:
    def answer(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        classes = [support[labels == k] for k in range(n_way)]
        middle = support.mean(0) if centre == "rows" else torch.stack([rows.mean(0) for rows in classes]).mean(0)
        columns = []
        for rows in classes:
            moved = rows - share * middle
            mean = (moved / moved.norm(dim=1, keepdim=True)).mean(0)
            columns.append(F.cosine_similarity(query - share * middle, mean[None], dim=1))
        return scale * torch.stack(columns, 1)

    return answer


def centroid(draw: Draw) -> Variant:
    """Returns a variant of 02.2: draws how far and where the origin moves, and the scale."""
    share, centre, scale = draw.one(0.25, 0.5, 0.75, 1.0), draw.one("rows", "means"), draw.one(4.0, 5.0, 8.0, 10.0)
    other = {"rows": "means", "means": "rows"}[centre]
    where = {"rows": "the mean of all support rows", "means": "the mean of the N class means of the raw support"}
    middle = (
        "support.mean(0)"
        if centre == "rows"
        else "torch.stack([support[labels == k].mean(0) for k in range(n_way)]).mean(0)"
    )
    return build(
        draw,
        title="Nearest class mean by cosine, from another origin",
        difficulty=2,
        signature="centroid_logits(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor",
        doc="Scaled cosines to class means. support [S, D], labels [S], query [M, D] -> [M, n_way].",
        task="First move the origin: subtract $b \\cdot g$ from every support row and every query. Then bring each "
        "moved row to length 1, "
        "take class means, bring them to length 1, and return $s$ times the cosine of each query with each of them.",
        twists=(f"g is {where[centre]}", f"b = {share:g}", f"the scale is s = {scale:g}"),
        shapes="| | shape |\n|---|---|\n| `support`, `query` | `[S, D]`, `[M, D]` |\n| `labels`, unequal shots | `[S]` |\n"
        "| returned | `[M, n_way]` |",
        body=f"""
            origin = {share:g} * {middle}
            rows = F.normalize(support - origin, dim=1)
            centres = torch.stack([rows[labels == k].mean(0) for k in range(n_way)])
            return {scale:g} * F.normalize(query - origin, dim=1) @ F.normalize(centres, dim=1).T
        """,
        right=(_centroid(share, centre, scale), _centroid_loop(share, centre, scale)),
        wrong=(
            Wrong("origin stays", _centroid(0.0, centre, scale), "the origin is not moved", "Subtract b·g first."),
            Wrong(
                "other origin",
                _centroid(share, other, scale),
                f"the origin moves to {where[other]}",
                "Shots are unequal: the two means differ.",
            ),
            Wrong("no scale", _centroid(share, centre, 1.0), "the cosines are not scaled", "Multiply by s at the end."),
            Wrong(
                "queries stay",
                _centroid(share, centre, scale, query_too=False),
                "the support is moved and the queries are not",
                "Support and queries must live in the same coordinates.",
            ),
        ),
        hints=(
            "The public exercise, in coordinates whose origin is b·g.",
            "Moved rows: `F.normalize(support - b * g, dim=1)`; the queries in the same way.",
            "`s * F.normalize(query - b * g, dim=1) @ F.normalize(centres, dim=1).T`",
        ),
        gradient=(0, 2),
    )


# ---------------------------------------------------------------------------------------------- 03.4 contrastive losses

_GAPS = {"city": "(a - b).abs().sum(1)", "largest": "(a - b).abs().amax(1)", "mean": "(a - b).abs().mean(1)"}
_GAP_WORDS = {
    "city": "the sum of the absolute differences (city block)",
    "largest": "the largest absolute difference",
    "mean": "the mean of the absolute differences",
}


def _contrastive(kind: str, pull: float, push: float, slack: float) -> Callable[..., Tensor]:
    def answer(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
        gap = (a - b).abs()
        gap = {"city": gap.sum(1), "largest": gap.amax(1), "mean": gap.mean(1), "euclid": gap.square().sum(1).sqrt()}[
            kind
        ]
        y = same.to(gap.dtype)
        return y * pull * (gap - slack).clamp_min(0) ** 2 + (1 - y) * push * (margin - gap).clamp_min(0) ** 2

    return answer


def _contrastive_loop(kind: str, pull: float, push: float, slack: float) -> Callable[..., Tensor]:
    def answer(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
        losses = []
        for x, y, equal in zip(a, b, same.tolist(), strict=True):
            gap = {"city": torch.sum, "largest": torch.max, "mean": torch.mean}[kind]((x - y).abs())
            losses.append(pull * F.relu(gap - slack).square() if equal else push * F.relu(margin - gap).square())
        return torch.stack(losses)

    return answer


def _contrastive_cases(generator: Generator) -> list[Case]:
    def case(says: str, count: int, margin: float, dtype: torch.dtype = torch.float32) -> Case:
        a, b = (torch.randn(count, 4, generator=generator).to(dtype) for _ in range(2))
        return Case(says, (a, b, torch.arange(count) % 3 == 0, margin))

    return [
        case("one equal pair", 1, 2.0),
        case("12 pairs, margin 3", 12, 3.0),
        case("9 pairs, margin 9", 9, 9.0),
        case("9 pairs, margin 9, float64", 9, 9.0, torch.float64),
    ]


def contrastive(draw: Draw) -> Variant:
    """Returns a variant of 03.4: draws the distance, both weights, and the slack of equal pairs."""
    kind, slack = draw.one(*_GAPS), draw.one(0.05, 0.1, 0.15, 0.2)
    pull, push = draw.one((1.0, 0.25), (0.25, 1.0), (1.0, 2.0), (2.0, 1.0), (1.5, 0.75))
    return build(
        draw,
        title="A contrastive loss with slack",
        difficulty=2,
        signature="contrastive_losses(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor",
        doc="Contrastive losses of P pairs. a, b [P, D], same bool [P] -> [P].",
        task="Return the loss of every pair of embeddings. Equal pairs are pulled together unless they are nearer "
        "than δ, unequal ones "
        "pushed beyond the margin $m$, and $d$ is a distance without a square root:\n\n"
        "$$L = \\alpha \\max(d - \\delta, 0)^2 \\ \\text{(equal)}, \\qquad L = \\beta \\max(m - d, 0)^2 \\ \\text{(unequal)}$$",
        twists=(
            f"d is {_GAP_WORDS[kind]} over the D features",
            f"α = {pull:g}, β = {push:g}",
            f"the slack is δ = {slack:g}",
        ),
        shapes="| | shape |\n|---|---|\n| `a`, `b` | `[P, D]` |\n| `same`, `margin` | bool `[P]`, a number |\n| "
        "returned | `[P]` |",
        body=f"""
            gap = {_GAPS[kind]}
            pulled = {pull:g} * (gap - {slack:g}).clamp_min(0).square()
            pushed = {push:g} * (margin - gap).clamp_min(0).square()
            return torch.where(same, pulled, pushed)
        """,
        right=(_contrastive(kind, pull, push, slack), _contrastive_loop(kind, pull, push, slack)),
        wrong=(
            Wrong(
                "Euclidean",
                _contrastive("euclid", pull, push, slack),
                "d is the Euclidean distance",
                "The list names another distance; no root is needed.",
            ),
            Wrong(
                "no slack", _contrastive(kind, pull, push, 0.0), "the slack δ is left out", "`(d - δ).clamp_min(0)`."
            ),
            Wrong(
                "weights exchanged",
                _contrastive(kind, push, pull, slack),
                "α and β are exchanged",
                "α belongs to the equal pairs.",
            ),
            Wrong(
                "roles exchanged",
                lambda a, b, same, margin: _contrastive(kind, pull, push, slack)(a, b, ~same, margin),
                "equal pairs are pushed apart and unequal ones pulled together",
                "`same` is True for pairs of one class.",
            ),
        ),
        hints=(
            "One distance for each pair, [P]; then two losses for every pair, of which one counts.",
            "`torch.where(same, pulled, pushed)` chooses pair by pair.",
            "`alpha * (d - delta).clamp_min(0).square()` and `beta * (margin - d).clamp_min(0).square()`",
        ),
        cases=_contrastive_cases,
        gradient=(0, 1),
    )
