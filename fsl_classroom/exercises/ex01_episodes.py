"""Exercises of lesson 01: label slots, drawing episodes, confidence intervals, leaked splits.

Cases: every exercise builds its own. Samplers (01.2) are judged by laws (legal episodes, repeatability, random slots), because
right samplers may draw different numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from scipy.special import stdtrit
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong
from fsl_course.data.imageset import SPLITS, ImageSet
from fsl_course.episodes import EpisodeSampler

# ---------------------------------------------------------------------------------------------- 01.1 label slots


def to_slots(class_ids: Tensor, classes: Tensor) -> Tensor:
    """Returns the position of each id in `classes`."""
    return (class_ids[:, None] == classes).int().argmax(1)


def _to_slots_loop(class_ids: Tensor, classes: Tensor) -> Tensor:
    seat = {int(c): slot for slot, c in enumerate(classes)}
    return torch.tensor([seat[int(c)] for c in class_ids], dtype=torch.int64)


def _to_slots_lookup(class_ids: Tensor, classes: Tensor) -> Tensor:
    table = torch.zeros(int(classes.max()) + 1, dtype=torch.int64)
    table[classes] = torch.arange(len(classes))
    return table[class_ids]


def _to_slots_first_met(class_ids: Tensor, classes: Tensor) -> Tensor:
    met = list(dict.fromkeys(class_ids.tolist()))
    return torch.tensor([met.index(c) for c in class_ids.tolist()], dtype=torch.int64)


def _slot_cases(generator: Generator) -> list[Case]:
    def case(says: str, n_way: int, count: int) -> Case:
        classes = torch.randperm(200, generator=generator)[:n_way]
        return Case(says, (classes[torch.randint(n_way, (count,), generator=generator)], classes))

    return [
        Case("the example of the text", (torch.tensor([4, 17, 17, 4]), torch.tensor([17, 4]))),
        case("5 classes, 25 rows", 5, 25),
        case("20 classes, 8 rows: most classes have no row", 20, 8),
        case("one query only", 5, 1),
    ]


SLOTS = Exercise(
    id="01.1",
    title="From class ids to label slots",
    reference=to_slots,
    cases=_slot_cases,
    right=(_to_slots_loop, _to_slots_lookup, lambda ids, classes: torch.nonzero(ids[:, None] == classes)[:, 1]),
    wrong=(
        Wrong(
            "sorted classes",
            lambda ids, classes: torch.searchsorted(classes.sort().values, ids),
            "slots are handed out in the order of the sorted class ids",
            "`classes` already says which class sits in slot 0, 1, ...: keep its order.",
        ),
        Wrong(
            "search without sorting",
            lambda ids, classes: torch.searchsorted(classes, ids),
            "`classes` is searched as if it were sorted",
            "`searchsorted` needs rising numbers. Compare every id with every entry of `classes`.",
        ),
        Wrong(
            "unique",
            lambda ids, classes: ids.unique(return_inverse=True)[1],
            "slots are made from the ids that happen to occur, without looking at `classes`",
            "Compare every id with every entry of `classes`; the place of the match is the slot.",
        ),
        Wrong(
            "order of first meeting",
            _to_slots_first_met,
            "the class that is met first gets slot 0",
            "The order of the rows says nothing. Look each id up in `classes`.",
        ),
        Wrong(
            "class ids",
            lambda ids, classes: ids.clone(),
            "the class ids are returned as they came",
            "A label lies in 0..N-1: return the position inside `classes`, not the id.",
        ),
        Wrong(
            "argmax over the rows",
            lambda ids, classes: (ids[:, None] == classes).int().argmax(0),
            "the comparison table [M, N] is searched along its rows axis: one answer for each class",
            "One answer for each id is wanted: argmax over the second axis.",
        ),
        Wrong(
            "mask, not position",
            lambda ids, classes: (ids[:, None] == classes).to(torch.int64),
            "the comparison table itself is returned: one-hot rows [M, N]",
            "The slot is the position of the 1 in each row: `.int().argmax(1)`.",
        ),
    ),
    hints=(
        "On paper: for the id 17, run a finger along `classes` until it points at 17. How far did it go?",
        "`class_ids[:, None] == classes` is a table [M, N] with exactly one True in each row.",
        "Turn the table to integers with `.int()` and take `.argmax(1)`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 01.2 one episode


def draw_episode(
    n_classes: int, n_drawings: int, n_way: int, k_shot: int, n_query: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws one episode: classes [N], support drawings [N, K], query drawings [N, Q]."""
    classes = torch.randperm(n_classes, generator=generator)[:n_way]
    orders = [torch.randperm(n_drawings, generator=generator)[: k_shot + n_query] for _ in range(n_way)]
    picked = torch.stack(orders)
    return classes, picked[:, :k_shot], picked[:, k_shot:]


def _draw_by_rank(c: int, n: int, way: int, shot: int, query: int, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    picked = torch.rand(way, n, generator=g).argsort(1)
    return torch.rand(c, generator=g).topk(way).indices, picked[:, :shot], picked[:, shot : shot + query]


def _draw_by_chance(c: int, n: int, way: int, shot: int, query: int, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    picked = torch.multinomial(torch.ones(way, n), shot + query, generator=g)
    return torch.multinomial(torch.ones(c), way, generator=g), picked[:, query:], picked[:, :query]


def _flawed(
    *,
    classes: Callable[[int, int, Generator], Tensor] = lambda c, way, g: torch.randperm(c, generator=g)[:way],
    orders: Callable[[int, int, Generator], Tensor] = lambda way, n, g: torch.rand(way, n, generator=g).argsort(1),
    again: bool = False,
    start: int = 0,
    own: Callable[[Generator], Generator | None] = lambda g: g,
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Returns a sampler with one flaw.

    classes: draws the classes; orders: draws an order of the drawings of each class; again: draws new orders for the query;
    start: shifts the start of the query; own: replaces the generator
    """

    def draw(c: int, n: int, way: int, shot: int, query: int, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
        g = own(g)
        chosen, first = classes(c, way, g), orders(way, n, g)
        low = 0 if again else shot + start
        return chosen, first[:, :shot], (orders(way, n, g) if again else first)[:, low : low + query]

    return draw


def _flaws(result: tuple[Tensor, Tensor, Tensor], n_classes: int, n_drawings: int) -> str | None:
    """Returns what is illegal about one drawn episode, or None."""
    classes, support, query = result
    if int(classes.min()) < 0 or int(classes.max()) >= n_classes:
        return (
            f"The class numbers reach from {int(classes.min())} to {int(classes.max())}; there are {n_classes} classes."
        )
    drawings = torch.cat([support, query], 1)
    if int(drawings.min()) < 0 or int(drawings.max()) >= n_drawings:
        low, high = int(drawings.min()), int(drawings.max())
        return f"The drawing numbers reach from {low} to {high}; a class has {n_drawings} drawings."
    if len(classes.unique()) < len(classes):
        return "A class was chosen twice in one episode: two slots hold the same class."
    if any(len(row.unique()) < len(row) for part in (support, query) for row in part):
        return "One class shows the same drawing twice in its support, or twice in its query."
    shared = [bool(set(s.tolist()) & set(q.tolist())) for s, q in zip(support, query, strict=True)]
    if any(shared):
        return f"{'Every class' if all(shared) else 'A class'} has a drawing in its support and in its query."
    return None


def _run(draw: Callable, seed: int, size: tuple[int, ...] = (8, 10, 4, 2, 3)) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Draws 120 episodes in a row from one generator. size: classes, drawings, ways, shots, queries."""
    generator = torch.Generator().manual_seed(seed)
    return [draw(*size, generator) for _ in range(120)]


def _legal(draw: Callable, reference: Callable) -> str | None:
    """Returns the most frequent flaw, because which flaw comes first is a matter of luck; None if there is none."""
    flaws = [_flaws(result, 8, 10) for result in _run(draw, 1)]
    flaws += [_flaws(result, 4, 5) for result in _run(draw, 1, (4, 5, 4, 3, 2))]
    found = [flaw for flaw in flaws if flaw]
    return max(found, key=lambda flaw: (found.count(flaw), flaw), default=None)


def _repeatable(draw: Callable, reference: Callable) -> str | None:
    first, second = _run(draw, 2), _run(draw, 2)
    if any(not torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)):
        return "Two generators with the same seed gave different episodes. Hand `generator=generator` to every random call."
    if all(torch.equal(a, b) for result in first for a, b in zip(result, first[0], strict=True)):
        return "120 episodes drawn one after the other from one generator were all the same."
    return None


def _slots_vary(draw: Callable, reference: Callable) -> str | None:
    ordered = sum(bool((classes.diff() > 0).all()) for classes, _, _ in _run(draw, 3))
    return (
        f"The classes came in rising order in {ordered} of 120 episodes; chance gives about 5."
        if ordered > 24
        else None
    )


def _all_classes(draw: Callable, reference: Callable) -> str | None:
    missing = 8 - len(torch.cat([classes for classes, _, _ in _run(draw, 4)]).unique())
    return f"{missing} of 8 classes were never chosen in 120 episodes." if missing else None


def _own_order(draw: Callable, reference: Callable) -> str | None:
    supports = [support for _, support, _ in _run(draw, 5)]
    if fixed := 10 - len(torch.cat(supports).unique()):
        return f"{fixed} of 10 drawings were never in a support set in 120 episodes."
    same = sum(bool((support == support[0]).all()) for support in supports)
    return (
        f"In {same} of 120 episodes all classes had the same drawing numbers in their support." if same > 12 else None
    )


def _draw_cases(generator: Generator) -> list[Case]:
    def fresh() -> Generator:
        return torch.Generator().manual_seed(int(torch.randint(2**31, (1,), generator=generator)))

    return [
        Case("20 classes of 12 drawings, 5-way 1-shot, 3 queries", (20, 12, 5, 1, 3, fresh())),
        Case("as many classes as ways, all drawings used", (4, 5, 4, 3, 2, fresh())),
        Case("2-way 5-shot, one query", (9, 20, 2, 5, 1, fresh())),
    ]


EPISODE = Exercise(
    id="01.2",
    title="Draw one episode",
    reference=draw_episode,
    cases=_draw_cases,
    same=lambda got, expected: None,  # any legal numbers are right: shapes are checked before, everything else by laws
    properties=(
        Property("classes and drawings are legal: in range, distinct, support and query disjoint", _legal),
        Property("the generator alone decides", _repeatable),
        Property("slots are random: classes come in every order", _slots_vary),
        Property("every class has its turn", _all_classes),
        Property("every class draws its own drawings", _own_order),
    ),
    right=(_draw_by_rank, _draw_by_chance),
    wrong=(
        Wrong(
            "two separate draws",
            _flawed(again=True),
            "support and query are drawn independently, so that now and then one drawing is in both",
            "Draw K + Q drawings of a class at once, then cut: the first K are support, the rest query.",
        ),
        Wrong(
            "classes with repeats",
            _flawed(classes=lambda c, way, g: torch.randint(c, (way,), generator=g)),
            "classes are drawn with replacement, so that two slots can hold the same class",
            "`torch.randperm(n_classes, generator=generator)[:n_way]` never repeats.",
        ),
        Wrong(
            "sorted classes",
            _flawed(classes=lambda c, way, g: torch.randperm(c, generator=g)[:way].sort().values),
            "the chosen classes are sorted, so that a low class id nearly always gets a low slot",
            "Leave the classes in the random order in which they were drawn.",
        ),
        Wrong(
            "always the first classes",
            _flawed(classes=lambda c, way, g: torch.randperm(way, generator=g)),
            "only the first N classes are ever used",
            "Shuffle all n_classes and keep n_way of them.",
        ),
        Wrong(
            "one order for all",
            _flawed(orders=lambda way, n, g: torch.randperm(n, generator=g).expand(way, n)),
            "one set of drawing numbers is drawn and used for every class",
            "Draw a fresh `torch.randperm(n_drawings, ...)` for every class.",
        ),
        Wrong(
            "the first drawings",
            _flawed(orders=lambda way, n, g: torch.arange(n).expand(way, n)),
            "the drawings are not shuffled: support is always the first K",
            "Shuffle the drawing numbers of every class before you cut.",
        ),
        Wrong(
            "query one too early",
            _flawed(start=-1),
            "the query starts at drawing K-1 of the shuffled row, which is the last support drawing",
            "Python counts from 0: support is `[:k_shot]`, query starts at `k_shot`.",
        ),
        Wrong(
            "global chance",
            _flawed(own=lambda g: None),
            "the random calls do not use the generator that was handed in",
            "Write `generator=generator` in every random call.",
        ),
        Wrong(
            "seeded inside",
            _flawed(own=lambda g: torch.Generator().manual_seed(0)),
            "a generator is seeded inside the function, so that every call gives the same episode",
            "Use the generator that is handed in, as it is.",
        ),
    ),
    hints=(
        "Choosing without repeats is shuffling and keeping the front.",
        "`torch.randperm(n, generator=generator)[:m]` chooses m of n. Once for the classes, then once for each class.",
        "For each class take `k_shot + n_query` drawings; `torch.stack` the rows; cut with `[:, :k_shot]` and `[:, k_shot:]`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 01.3 a batch of episodes


def draw_batch(class_scores: Tensor, drawing_scores: Tensor, k_shot: int, n_query: int) -> tuple[Tensor, ...]:
    """Takes the N classes with the highest scores, and of each the K best drawings for support and the next Q for query."""
    classes = class_scores.topk(drawing_scores.shape[1], dim=1).indices
    picked = drawing_scores.topk(k_shot + n_query, dim=2).indices
    return classes, picked[..., :k_shot], picked[..., k_shot:]


def _batch_by_sort(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    classes = class_scores.argsort(dim=-1, descending=True)[:, : drawing_scores.size(1)]
    picked = (-drawing_scores).argsort(dim=-1)
    return classes, picked[:, :, :k], picked[:, :, k : k + q]


def _batch_flat(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    def top(scores: Tensor, count: int) -> Tensor:
        return scores.flatten(0, -2).sort(dim=1, descending=True)[1][:, :count].unflatten(0, scores.shape[:-1])

    picked = top(drawing_scores, k + q)
    return top(class_scores, drawing_scores.shape[1]), *picked.split([k, q], dim=-1)


def _batch_loop(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    tasks = [draw_batch(c[None], d[None], k, q) for c, d in zip(class_scores, drawing_scores, strict=True)]
    return tuple(torch.cat(parts) for parts in zip(*tasks, strict=True))


def _batch_query_again(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    classes, support, _ = draw_batch(class_scores, drawing_scores, k, q)
    return classes, support, drawing_scores.topk(q, dim=2).indices


def _batch_values(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    picked = drawing_scores.topk(k + q, dim=2).values
    return class_scores.topk(drawing_scores.shape[1], dim=1).values, picked[..., :k], picked[..., k:]


def _batch_ranks(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    ranks = [s.argsort(-1, descending=True).argsort(-1) for s in (class_scores, drawing_scores)]
    return ranks[0][:, : drawing_scores.shape[1]], ranks[1][..., :k], ranks[1][..., k : k + q]


class _Calls(TorchFunctionMode):
    """Counts the calls of PyTorch functions."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Callable, types: Sequence, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        self.count += 1
        return func(*args, **(kwargs or {}))


def _calls_of(draw: Callable, tasks: int) -> int:
    generator = torch.Generator().manual_seed(tasks)
    scores = torch.rand(tasks, 12, generator=generator), torch.rand(tasks, 3, 8, generator=generator)
    with _Calls() as calls:
        draw(*scores, 2, 3)
    return calls.count


def _no_loop(draw: Callable, reference: Callable) -> str | None:
    few, many = _calls_of(draw, 2), _calls_of(draw, 40)
    if many > few:
        return f"2 tasks took {few} calls of PyTorch functions, 40 tasks took {many}: there is a loop over tasks."
    return None


def _batch_cases(generator: Generator) -> list[Case]:
    def case(says: str, t: int, c: int, n_way: int, n: int, k: int, q: int, dtype: torch.dtype = torch.float32) -> Case:
        scores = [torch.rand(*shape, generator=generator, dtype=dtype) for shape in ((t, c), (t, n_way, n))]
        return Case(says, (*scores, k, q))

    return [
        case("6 tasks, 5-way 1-shot, 3 queries", 6, 30, 5, 12, 1, 3),
        case("a single task", 1, 9, 2, 20, 5, 1),
        case("every class and every drawing is used", 4, 3, 3, 5, 3, 2),
        case("float64 scores", 5, 16, 4, 7, 2, 2, torch.float64),
    ]


BATCH = Exercise(
    id="01.3",
    title="Draw many episodes without a loop",
    reference=draw_batch,
    cases=_batch_cases,
    properties=(Property("the number of PyTorch calls does not grow with the tasks", _no_loop),),
    right=(_batch_by_sort, _batch_flat),
    wrong=(
        Wrong(
            "loop over tasks",
            _batch_loop,
            "the numbers are right, but they are computed one task at a time",
            "`topk` ranks along one axis and does all others at once: hand it the whole tensor and say `dim=`.",
        ),
        Wrong(
            "lowest scores",
            lambda c, d, k, q: draw_batch(-c, -d, k, q),
            "the lowest scores win",
            "`argsort` rises by default. Take `descending=True`, or `topk`.",
        ),
        Wrong(
            "query from the top again",
            _batch_query_again,
            "the query is the top of the ranking once more, so that it repeats the support",
            "Take the top K + Q once, then cut it in two.",
        ),
        Wrong(
            "scores, not positions",
            _batch_values,
            "the scores of the winners are returned, not their positions",
            "`topk` returns `(values, indices)`; you want `.indices`.",
        ),
        Wrong(
            "ranks",
            _batch_ranks,
            "each position gets its rank, which is the inverse of what is wanted",
            "One `argsort` lists the positions in order of score; a second one undoes that.",
        ),
        Wrong(
            "wrong axis",
            lambda c, d, k, q: draw_batch(c, torch.zeros_like(d) + d.argsort(1, descending=True), k, q),
            "drawings are ranked along axis 1, across the classes of a task",
            "A class ranks its own drawings: that is the last axis, `dim=2`.",
        ),
    ),
    hints=(
        "One row of random scores is one shuffle: sort it and read off the positions.",
        "`scores.topk(m, dim=-1).indices` gives the positions of the m largest, largest first, for all leading axes at once.",
        "N is `drawing_scores.shape[1]`. Take the top K + Q drawings and cut with `[..., :k_shot]` and `[..., k_shot:]`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 01.4 confidence interval


def _t(count: int) -> float:
    return float(stdtrit(count - 1, 0.975))


def mean_and_half_width(values: Tensor) -> tuple[float, float]:
    """Returns the mean and the half width t(0.975, E-1) * s / sqrt(E)."""
    count = len(values)
    return float(values.mean()), _t(count) * float(values.std()) / math.sqrt(count)


def _half_by_hand(values: Tensor) -> tuple[float, float]:
    numbers = values.tolist()
    mean = sum(numbers) / len(numbers)
    variance = sum((x - mean) ** 2 for x in numbers) / (len(numbers) - 1)
    return mean, _t(len(numbers)) * math.sqrt(variance / len(numbers))


def _half_numpy(values: Tensor) -> tuple[float, float]:
    numbers = values.double().numpy()
    return float(numbers.mean()), stdtrit(len(numbers) - 1, 0.975) * numbers.std(ddof=1) * len(numbers) ** -0.5


def _half(width: Callable[[Tensor, int], float | Tensor]) -> Callable[[Tensor], tuple[float, float]]:
    return lambda values: (float(values.mean()), float(width(values, len(values))))


def _accuracy_cases(generator: Generator) -> list[Case]:
    def case(says: str, episodes: int, dtype: torch.dtype) -> Case:
        level = torch.rand(episodes, 1, generator=generator, dtype=dtype) * 0.4 + 0.3
        hits = torch.rand(episodes, 25, generator=generator, dtype=dtype) < level
        return Case(says, (hits.to(dtype).mean(1),))

    return [
        case("5 episodes", 5, torch.float64),
        case("600 episodes", 600, torch.float64),
        case("40 episodes in float32", 40, torch.float32),
        Case("2 episodes", (torch.tensor([0.4, 0.8], dtype=torch.float64),)),
    ]


def _shift(answer: Callable, reference: Callable) -> str | None:
    values = torch.tensor([0.2, 0.4, 0.44, 0.6, 0.48], dtype=torch.float64)
    before, after = answer(values), answer(values + 0.1)
    if abs(float(after[1]) - float(before[1])) > 1e-9:
        return f"After the shift the half width went from {float(before[1]):.4f} to {float(after[1]):.4f}."
    return None


INTERVAL = Exercise(
    id="01.4",
    title="Mean and half width of its 95 % interval",
    reference=mean_and_half_width,
    cases=_accuracy_cases,
    properties=(Property("adding 0.1 to every accuracy leaves the half width alone", _shift),),
    right=(_half_by_hand, _half_numpy),
    wrong=(
        Wrong(
            "spread of the episodes",
            _half(lambda v, e: _t(e) * v.std()),
            "the division by sqrt(E) is missing: this is the spread of single episodes, not the doubt about their mean",
            "Divide the standard deviation by `math.sqrt(E)`.",
        ),
        Wrong(
            "standard deviation alone",
            _half(lambda v, e: v.std()),
            "the standard deviation is handed out as if it were the interval",
            "Multiply by the t quantile and divide by sqrt(E).",
        ),
        Wrong(
            "standard error",
            _half(lambda v, e: v.std() / math.sqrt(e)),
            "the t quantile is missing: this is one standard error, which covers about 68 %",
            "Multiply by `stdtrit(E - 1, 0.975)`.",
        ),
        Wrong(
            "1.96",
            _half(lambda v, e: 1.96 * v.std() / math.sqrt(e)),
            "1.96 stands where the t quantile belongs: fine for 600 episodes, too narrow for 5",
            "Take `stdtrit(E - 1, 0.975)`, which grows when episodes are few.",
        ),
        Wrong(
            "divisor E in the deviation",
            _half(lambda v, e: _t(e) * v.std(correction=0) / math.sqrt(e)),
            "the standard deviation divides by E, not by E-1",
            "`values.std()` divides by E-1 by itself; NumPy needs `ddof=1`.",
        ),
        Wrong(
            "E degrees of freedom",
            _half(lambda v, e: float(stdtrit(e, 0.975)) * v.std() / math.sqrt(e)),
            "t has E degrees of freedom instead of E-1",
            "Write `stdtrit(E - 1, 0.975)`.",
        ),
        Wrong(
            "variance",
            _half(lambda v, e: _t(e) * v.var() / math.sqrt(e)),
            "the variance stands where the standard deviation belongs",
            "Take `values.std()`, the square root of the variance.",
        ),
        Wrong(
            "divided by E",
            _half(lambda v, e: _t(e) * v.std() / e),
            "the standard deviation is divided by E, not by its square root",
            "Write `math.sqrt(E)`: four times the episodes halve the interval.",
        ),
        Wrong(
            "coin tosses",
            _half(lambda v, e: _t(e) * (v.mean() * (1 - v.mean()) / e).sqrt()),
            "every episode is treated as one coin toss with variance p(1-p)",
            "An episode gives a fraction. Measure how much the fractions differ: `values.std()`.",
        ),
        Wrong(
            "whole width",
            _half(lambda v, e: 2 * _t(e) * v.std() / math.sqrt(e)),
            "the whole width of the interval is returned",
            "Return what stands after the ±: half of it.",
        ),
        Wrong(
            "one-sided quantile",
            _half(lambda v, e: float(stdtrit(e - 1, 0.95)) * v.std() / math.sqrt(e)),
            "the 0.95 quantile is used, which leaves 5 % on each side: a 90 % interval",
            "2.5 % on each side: the quantile is 0.975.",
        ),
    ),
    hints=(
        "Three factors: how much episodes differ, how many there are, and a number near 2.",
        "h = t · s / √E, with s from `values.std()` and t from `stdtrit(E - 1, 0.975)`.",
        "`return float(values.mean()), float(stdtrit(count - 1, 0.975)) * float(values.std()) / math.sqrt(count)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 01.5 leaked splits

Implementation = Callable[[ImageSet], dict[str, EpisodeSampler]]


def _dealt(sampler: EpisodeSampler, episodes: int = 200) -> set[tuple[str, str]]:
    classes = sampler.layout(0, episodes).classes.unique().tolist()
    return {(sampler.source.groups[c], sampler.source.class_names[c]) for c in classes}


def exposes_leak(implementation: Implementation, source: ImageSet) -> bool:
    """Returns True if a class is dealt in two splits."""
    seen = [_dealt(sampler) for sampler in implementation(source).values()]
    return any(a & b for a, b in combinations(seen, 2))


def _exposes_by_counting(implementation: Implementation, source: ImageSet) -> bool:
    names: list[str] = []
    for sampler in implementation(source).values():
        mine = sampler.source
        drawn = {int(c) for c in sampler.batch(0, 150).classes.flatten()}
        names += [f"{mine.groups[c]}/{mine.class_names[c]}" for c in drawn]
    return len(names) != len(set(names))


def _exposes_by_source(implementation: Implementation, source: ImageSet) -> bool:
    owner: dict[tuple[str, str], str] = {}
    for split, sampler in implementation(source).items():
        for key in zip(sampler.source.groups, sampler.source.class_names, strict=True):
            if owner.setdefault(key, split) != split:
                return True
    return False


def _exposes(
    key: Callable[[EpisodeSampler], set], pairs: Sequence[tuple[str, str]] | None = None
) -> Callable[..., bool]:
    """Returns a detector that compares key(sampler) between splits. pairs: the pairs of splits to compare; None: all."""

    def detector(implementation: Implementation, source: ImageSet) -> bool:
        samplers = implementation(source)
        return any(key(samplers[a]) & key(samplers[b]) for a, b in pairs or tuple(combinations(SPLITS, 2)))

    return detector


def _in_all_three(implementation: Implementation, source: ImageSet) -> bool:
    return bool(set.intersection(*(_dealt(sampler) for sampler in implementation(source).values())))


def _pictures(sampler: EpisodeSampler) -> set[bytes]:
    used = sampler.layout(0, 200).support.unique()
    return {picture.numpy().tobytes() for picture in sampler.source.images.flatten(0, 1)[used]}


def _samplers(parts: dict[str, ImageSet]) -> dict[str, EpisodeSampler]:
    return {name: EpisodeSampler(part, 3, 1, 1, seed=i) for i, (name, part) in enumerate(parts.items())}


def _good(source: ImageSet) -> dict[str, EpisodeSampler]:
    return _samplers({name: source.split(name) for name in SPLITS})


def _good_reordered(source: ImageSet) -> dict[str, EpisodeSampler]:
    parts = {name: source.split(name) for name in SPLITS}
    return _samplers({name: part.select(range(len(part) - 1, -1, -1)) for name, part in parts.items()})


def _good_smaller(source: ImageSet) -> dict[str, EpisodeSampler]:
    parts = {name: source.split(name) for name in SPLITS}
    return _samplers({name: part.select(range(len(part) - 2)) for name, part in parts.items()})


def _filter_ignored(source: ImageSet) -> dict[str, EpisodeSampler]:
    return _samplers(dict.fromkeys(SPLITS, source))


def _validation_is_the_rest(source: ImageSet) -> dict[str, EpisodeSampler]:
    rest = [i for i, split in enumerate(source.splits or ()) if split != "train"]
    return _samplers({"train": source.split("train"), "val": source.select(rest), "test": source.split("test")})


def _same_three(source: ImageSet) -> dict[str, EpisodeSampler]:
    three = source.split("val").select(range(3))  # so few that a 3-way episode deals all of them
    return _samplers({"train": three, "val": three, "test": source.split("test")})


def _one_class_shared(between: str) -> Implementation:
    """Returns an implementation that puts the first class of split `between` into train as well."""

    def implementation(source: ImageSet) -> dict[str, EpisodeSampler]:
        rows = {name: [i for i, split in enumerate(source.splits or ()) if split == name] for name in SPLITS}
        rows["train"] = rows["train"] + rows[between][:1]
        return _samplers({name: source.select(rows[name]) for name in SPLITS})

    return implementation


def _drawings_split(source: ImageSet) -> dict[str, EpisodeSampler]:
    parts = zip(SPLITS, source.images.split(2, dim=1), strict=True)
    counts = torch.full((len(source),), 2)
    return _samplers({n: ImageSet(im, counts, source.class_names, source.groups) for n, im in parts})


def _leak_cases(generator: Generator) -> list[Case]:
    source = ImageSet(
        images=torch.randint(256, (40, 6, 1, 3, 3), generator=generator, dtype=torch.uint8),
        counts=torch.full((40,), 6),
        class_names=[f"letter {i}" for _ in range(10) for i in range(4)],
        groups=[f"alphabet {a}" for a in "ABCDEFGHIJ" for _ in range(4)],
        splits=["train"] * 20 + ["val"] * 8 + ["test"] * 12,
    )
    unique = replace(source, class_names=[f"{g}, {n}" for g, n in zip(source.groups, source.class_names, strict=True)])
    divided = replace(source, splits=["train", "train", "val", "test"] * 10)
    return [
        Case("a right implementation", (_good, source)),
        Case("a right implementation, and every class name occurs once", (_good, unique)),
        Case("a right implementation that lists its classes backwards", (_good_reordered, source)),
        Case("a right implementation that leaves some classes out", (_good_smaller, source)),
        Case("a right implementation on alphabets of which every split has some letters", (_good, divided)),
        Case("every split draws from all classes", (_filter_ignored, source)),
        Case("validation holds the test classes too", (_validation_is_the_rest, source)),
        Case("train and validation hold the same three classes", (_same_three, source)),
        Case("one single class is in train and in validation", (_one_class_shared("val"), source)),
        Case("one single class is in train and in test", (_one_class_shared("test"), source)),
        Case("the drawings are split, not the classes", (_drawings_split, source)),
    ]


LEAK = Exercise(
    id="01.5",
    title="Bug hunt: do the splits leak?",
    reference=exposes_leak,
    cases=_leak_cases,
    right=(_exposes_by_counting, _exposes_by_source),
    wrong=(
        Wrong(
            "positions compared",
            _exposes(lambda s: set(s.layout(0, 200).classes.unique().tolist())),
            "the alarm always rings: positions are compared, or a class that is met twice in one split counts",
            "Class 0 of train is not class 0 of test: compare groups and names. And make a set of each split first.",
        ),
        Wrong(
            "names without groups",
            _exposes(lambda s: {name for _, name in _dealt(s)}),
            'only class names are compared: "letter 1" of one alphabet is not "letter 1" of another',
            "Group and name together say which class it is: compare pairs.",
        ),
        Wrong(
            "groups without names",
            _exposes(lambda s: {group for group, _ in _dealt(s)}),
            "only groups are compared: an alphabet may be divided between splits while no class is in two",
            "Group and name together say which class it is: compare pairs.",
        ),
        Wrong(
            "sizes added",
            lambda implementation, source: sum(len(s.source) for s in implementation(source).values()) != len(source),
            "the sizes of the splits are added up, and a split may leave classes out",
            "Compare which classes are dealt, not how many there are.",
        ),
        Wrong(
            "in all three",
            _in_all_three,
            "an alarm needs a class in all three splits",
            "Two splits that share a class are a leak: compare pair by pair.",
        ),
        Wrong(
            "one episode",
            _exposes(lambda s: _dealt(s, 1)),
            "only one episode of each split is looked at: a leak of one class is nearly never in it",
            "Collect the classes of some hundred episodes.",
        ),
        Wrong(
            "train and test only",
            _exposes(_dealt, [("train", "test")]),
            "only train and test are compared",
            "Validation can leak as well: compare all three pairs.",
        ),
        Wrong(
            "same picture",
            _exposes(_pictures),
            "you look for the same picture in two splits: other drawings of the same class leak as well",
            "A split divides classes. Compare classes, not pictures.",
        ),
        Wrong(
            "never an alarm",
            lambda implementation, source: False,
            "the alarm never rings",
            "Look at the classes that `implementation(source)` deals; with other seeds, equal classes come in other episodes.",
        ),
    ),
    hints=(
        "Ask every sampler which classes it deals, by name. Then look for a name in two lists.",
        "`sampler.layout(0, 200).classes.unique()` are positions in `sampler.source`; its `groups` and `class_names` name them.",
        "Make a set of pairs (group, name) for each sampler; `a & b` of two sets must be empty for all three pairs of splits.",
    ),
)

# ---------------------------------------------------------------------------------------------- 01.6 episodes needed


def episodes_needed(spread: float, half_width: float) -> int:
    """Returns the smallest E >= 2 with t(0.975, E-1) * spread / sqrt(E) <= half_width."""
    count = 2
    while _t(count) * spread / math.sqrt(count) > half_width:
        count += 1
    return count


def _needed_by_halving(spread: float, half_width: float) -> int:
    low, high = 1, 2  # low is always too few; after the first loop high is enough
    while _t(high) * spread / math.sqrt(high) > half_width:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _t(middle) * spread / math.sqrt(middle) > half_width else (low, middle)
    return high


def _needed_table(spread: float, half_width: float) -> int:
    counts = torch.arange(2, 20_000, dtype=torch.float64)
    widths = torch.from_numpy(stdtrit((counts - 1).numpy(), 0.975)) * spread / counts.sqrt()
    return 2 + int((widths > half_width).sum())


NEEDED = Exercise(
    id="01.6",
    title="How many episodes do you need?",
    reference=episodes_needed,
    cases=lambda generator: [
        Case("a spread of 0.12, half width 0.01", (0.12, 0.01)),
        Case("a small spread: 0.02, half width 0.02", (0.02, 0.02)),
        Case("a spread of 0.1, half width 0.05", (0.1, 0.05)),
        Case("a spread of 0.0801, half width 0.0035", (0.0801, 0.0035)),
    ],
    right=(_needed_by_halving, _needed_table),
    wrong=(
        Wrong(
            "1.96",
            lambda s, h: math.ceil((1.96 * s / h) ** 2),
            "1.96 stands for t, which is larger when episodes are few",
            "t depends on E: try E = 2, 3, ... until the half width is small enough.",
        ),
        Wrong(
            "rounded down",
            lambda s, h: episodes_needed(s, h) - 1,
            "the result is one too small: its half width is still above the wish",
            "Return the first E at which t·s/√E is at most the wish.",
        ),
        Wrong(
            "one too many",
            lambda s, h: episodes_needed(s, h) + 1,
            "one episode too many is asked for",
            "Return E itself when the test succeeds, before adding 1.",
        ),
        Wrong(
            "stops at once",
            lambda s, h: 2,
            "the search stops at E = 2: its condition is turned round",
            "Go on while the half width is still *larger* than the wish.",
        ),
        Wrong(
            "starts at one",
            lambda s, h: 1,
            "the search starts at E = 1, where t is not a number and no comparison holds",
            "Start at E = 2: one episode says nothing about the spread.",
        ),
        Wrong(
            "no square",
            lambda s, h: math.ceil(1.96 * s / h),
            "the ratio is not squared",
            "Half width falls with √E: half of it costs four times the episodes.",
        ),
        Wrong(
            "whole width",
            lambda s, h: episodes_needed(s, h / 2),
            "the wish is taken for the whole width of the interval",
            "`half_width` is what stands after the ±.",
        ),
        Wrong(
            "standard error",
            lambda s, h: math.ceil((s / h) ** 2),
            "t is left out: one standard error is made small enough",
            "Multiply by `stdtrit(E - 1, 0.975)`.",
        ),
    ),
    hints=(
        "Half width falls when E grows: the first E that is good enough is the answer.",
        "Start at E = 2 and go up while t(E-1) · spread / √E is still larger than the wish.",
        "`while stdtrit(count - 1, 0.975) * spread / math.sqrt(count) > half_width: count += 1`",
    ),
)

EXERCISES = (SLOTS, EPISODE, BATCH, INTERVAL, LEAK, NEEDED)
