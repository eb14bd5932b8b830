"""Variants of lesson 01: the layout of episodes, the interval of a mean."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.special import stdtrit
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Wrong
from fsl_classroom.variants.build import Draw, Variant, build, percent

# ---------------------------------------------------------------------------------------------- 01.3 a batch of episodes


def _batch(skip: int, turn: int, low: bool, query_from_end: bool = True) -> Callable[..., tuple[Tensor, ...]]:
    def answer(class_scores: Tensor, drawing_scores: Tensor, k_shot: int, n_query: int) -> tuple[Tensor, ...]:
        n_way = drawing_scores.shape[1]
        classes = class_scores.argsort(dim=1, descending=True)[:, :n_way].roll(turn, 1)
        order = drawing_scores.argsort(dim=2, descending=not low)[..., skip:]
        query = order[..., -n_query:] if query_from_end else order[..., k_shot : k_shot + n_query]
        return classes, order[..., :k_shot], query

    return answer


def _batch_index(skip: int, turn: int, low: bool) -> Callable[..., tuple[Tensor, ...]]:
    def answer(class_scores: Tensor, drawing_scores: Tensor, k_shot: int, n_query: int) -> tuple[Tensor, ...]:
        n_way, count = drawing_scores.shape[1:]
        rank = (torch.arange(n_way) - turn) % n_way  # the rank of the class in slot 0, 1, ...
        ranking = (drawing_scores if low else -drawing_scores).sort(dim=2).indices
        support = ranking.narrow(2, skip, k_shot)
        return class_scores.sort(dim=1, descending=True).indices[:, rank], support, ranking[:, :, count - n_query :]

    return answer


def _batch_cases(generator: Generator) -> list[Case]:
    def case(says: str, t: int, c: int, n_way: int, n: int, k: int, q: int, dtype: torch.dtype = torch.float32) -> Case:
        scores = [torch.rand(*shape, generator=generator, dtype=dtype) for shape in ((t, c), (t, n_way, n))]
        return Case(says, (*scores, k, q))

    return [
        case("6 tasks, 5-way 1-shot, 3 queries", 6, 30, 5, 12, 1, 3),
        case("a single task, 4-way 5-shot", 1, 9, 4, 20, 5, 1),
        case("every class is used", 4, 4, 4, 10, 3, 2),
        case("float64 scores", 5, 16, 5, 11, 2, 2, torch.float64),
    ]


def batch(draw: Draw) -> Variant:
    """Returns a variant of 01.3: draws how many drawings are left out, the shift of slots, and where the support lies."""
    skip, turn, low = draw.one(1, 2, 3, 4), draw.one(1, 2, 3), draw.one(True, False)
    end = "lowest" if low else "highest"
    return build(
        draw,
        title="Episodes in another layout",
        difficulty=3,
        signature="draw_batch(class_scores: Tensor, drawing_scores: Tensor, k_shot: int, n_query: int) -> tuple[Tensor, ...]",
        doc="T episodes at once. scores [T, C], [T, N, n] -> classes [T, N], support [T, N, K], query [T, N, Q].",
        task="Turn random scores into T episodes, without a loop over tasks. The N classes with the highest scores "
        "take part; rank 0 is "
        "the highest. A class ranks its own drawings by their scores.",
        twists=(
            f"the class of rank r sits in slot (r + {turn}) mod N",
            f"the {skip} drawings with the {end} scores of a class are left out; the K next "
            f"{'lowest' if low else 'highest'} are its "
            f"support, in {'rising' if low else 'falling'} order of score",
            "the query is the Q drawings at the other end of that ranking, in the order of the ranking",
        ),
        shapes="| | shape |\n|---|---|\n| `class_scores`, `drawing_scores` | `[T, C]`, `[T, N, n]`, no ties, "
        f"n at least K + Q + {skip} |\n| returned: numbers of classes, of support and query drawings | `[T, N]`, `[T, "
        "N, K]`, `[T, N, Q]` |",
        body=f"""
            n_way = drawing_scores.shape[1]
            classes = class_scores.argsort(dim=1, descending=True)[:, :n_way].roll({turn}, dims=1)
            ranking = drawing_scores.argsort(dim=2{"" if low else ", descending=True"})
            return classes, ranking[..., {skip} : {skip} + k_shot], ranking[..., -n_query:]
        """,
        right=(_batch(skip, turn, low), _batch_index(skip, turn, low)),
        wrong=(
            Wrong("nothing left out", _batch(0, turn, low), "no drawing is left out", f"Start at position {skip}."),
            Wrong("slots not turned", _batch(skip, 0, low), "rank r sits in slot r", "`.roll` turns a row of classes."),
            Wrong(
                "turned the other way",
                _batch(skip, -turn, low),
                "the slots are turned the other way",
                f"Rank 0 belongs in slot {turn} (where N is larger than {turn}).",
            ),
            Wrong(
                "other end",
                _batch(skip, turn, not low),
                "the drawings are ranked the other way round",
                f"The ranking starts with the {end} score.",
            ),
            Wrong(
                "query behind the support",
                _batch(skip, turn, low, query_from_end=False),
                "the query follows the support",
                "The query comes from the other end: `[..., -n_query:]`.",
            ),
        ),
        hints=(
            "One argsort for the classes, one for the drawings; the rest is slicing.",
            "`x.roll(r, dims=1)` moves what stands at place 0 to place r.",
            f"`ranking[..., {skip} : {skip} + k_shot]` and `ranking[..., -n_query:]`",
        ),
        cases=_batch_cases,
    )


# ---------------------------------------------------------------------------------------------- 01.4 interval


def _interval(level: float, block: int, skip: int) -> Callable[[Tensor], tuple[float, float]]:
    def answer(values: Tensor) -> tuple[float, float]:
        kept = values[skip:].double()
        groups = kept[: len(kept) // block * block].reshape(-1, block).mean(1)
        quantile = stdtrit(len(groups) - 1, (1 + level) / 2)
        return 100 * float(groups.mean()), 100 * float(quantile * groups.std() / len(groups) ** 0.5)

    return answer


def _interval_loop(level: float, block: int, skip: int) -> Callable[[Tensor], tuple[float, float]]:
    def answer(values: Tensor) -> tuple[float, float]:
        numbers, means = values.tolist()[skip:], []
        while len(numbers) >= block:
            means.append(sum(numbers[:block]) / block)
            numbers = numbers[block:]
        count, mean = len(means), sum(means) / len(means)
        error = math.sqrt(sum((m - mean) ** 2 for m in means) / (count - 1) / count)
        return 100 * mean, 100 * float(stdtrit(count - 1, 1 - (1 - level) / 2)) * error

    return answer


def _interval_cases(generator: Generator) -> list[Case]:
    def case(says: str, episodes: int, dtype: torch.dtype) -> Case:
        level = torch.rand(episodes, 1, generator=generator, dtype=torch.float64) * 0.4 + 0.3
        hits = torch.rand(episodes, 25, generator=generator, dtype=torch.float64) < level
        return Case(says, (hits.to(dtype).mean(1),))

    return [
        case("24 episodes", 24, torch.float64),
        case("601 episodes: some are left over", 601, torch.float64),
        case("43 episodes in float32", 43, torch.float32),
    ]


def interval(draw: Draw) -> Variant:
    """Returns a variant of 01.4: draws the level, the size of a group of episodes, and the length of the warm-up."""
    level, block, skip = draw.one(0.8, 0.9, 0.98, 0.99, 0.999), draw.one(2, 3, 4, 5), draw.one(1, 2, 3, 4)
    return build(
        draw,
        title=f"Mean and half width of its {percent(level)} interval",
        difficulty=3,
        signature="mean_and_half_width(values: Tensor) -> tuple[float, float]",
        doc="Mean and half width of its interval, in percentage points. Accuracies [E], fractions -> two floats.",
        task="Neighbouring episodes share an alphabet, so that they are not independent; groups of them are. Average "
        "within groups and "
        "treat the G group means as the sample:\n\n$$\\bar a \\pm t_{p, G-1} \\frac{s}{\\sqrt{G}}$$\n\n"
        "`stdtrit(df, p)` is the p-quantile of Student's t; $s$ has $G - 1$ below the fraction bar.",
        twists=(
            f"the first {skip} accuracies are a warm-up and dropped",
            f"{block} episodes that follow each other are a group; those left over at the end are dropped",
            f"the interval holds the truth in {percent(level)} of all cases (two-sided)",
            "mean and half width are returned in percentage points",
        ),
        shapes="| `values` | returned |\n|---|---|\n| `[E]`, fractions | mean and half width, two floats |",
        body=f"""
            values = values[{skip}:]
            groups = values[: len(values) // {block} * {block}].reshape(-1, {block}).mean(1)
            count = len(groups)
            half = stdtrit(count - 1, {(1 + level) / 2:g}) * float(groups.std()) / math.sqrt(count)
            return 100 * float(groups.mean()), 100 * float(half)
        """,
        right=(_interval(level, block, skip), _interval_loop(level, block, skip)),
        wrong=(
            Wrong(
                "no groups", _interval(level, 1, skip), "every episode counts by itself", "Average the groups first."
            ),
            Wrong("with the warm-up", _interval(level, block, 0), "the warm-up is not dropped", f"`values[{skip}:]`."),
            Wrong(
                "95 %",
                _interval(0.95, block, skip),
                "the level is 95 %",
                f"Two-sided {percent(level)}: what lies above is half of the rest.",
            ),
            Wrong(
                "one-sided",
                _interval(2 * level - 1, block, skip),
                "the quantile of the level itself is taken: that is one-sided",
                "Half of what is left over lies on each side: p = (1 + level) / 2.",
            ),
            Wrong(
                "fractions",
                lambda values: tuple(x / 100 for x in _interval(level, block, skip)(values)),
                "fractions are returned, not percentage points",
                "Multiply both by 100.",
            ),
        ),
        hints=(
            "The public exercise on a shorter sample: the group means.",
            f"`.reshape(-1, {block}).mean(1)` once the length is a multiple of {block}.",
            f"`stdtrit(G - 1, {(1 + level) / 2:g}) * groups.std() / math.sqrt(G)`",
        ),
        cases=_interval_cases,
    )
