"""Exercises of lesson 01: label slots, drawing episodes, confidence intervals, leaked splits, peeking.

Cases: every exercise builds its own. Samplers (01.2) are judged by laws (legal episodes, repeatability, random slots), because
right samplers may draw different numbers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from types import FrameType

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong
from fsl_course.data.imageset import SPLITS, ImageSet
from fsl_course.episodes import EpisodeSampler
from fsl_course.episodes.sampler import Layout

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


def _to_slots_in_place(class_ids: Tensor, classes: Tensor) -> Tensor:
    found = class_ids.clone()
    for slot, c in enumerate(classes):
        found[found == c] = slot
    return found


def _to_slots_masks(class_ids: Tensor, classes: Tensor) -> Tensor:
    found = torch.zeros_like(class_ids)
    for slot, c in enumerate(classes):
        found[class_ids == c] = slot
    return found


def _to_slots_sorted(class_ids: Tensor, classes: Tensor) -> Tensor:
    order = classes.argsort()
    return order[torch.searchsorted(classes[order], class_ids)]


def _tensor_keys(class_ids: Tensor, classes: Tensor) -> Tensor:
    seat = {c: slot for slot, c in enumerate(classes)}
    return torch.tensor([seat[c] for c in class_ids])


def _slot_cases(generator: Generator) -> list[Case]:
    def case(says: str, n_way: int, count: int) -> Case:
        classes = torch.randperm(200, generator=generator)[:n_way]
        return Case(says, (classes[torch.randint(n_way, (count,), generator=generator)], classes))

    return [
        Case("the example of the text", (torch.tensor([4, 17, 17, 4]), torch.tensor([17, 4]))),
        case("5 classes, 25 rows", 5, 25),
        case("20 classes, 8 rows: most classes have no row", 20, 8),
        case("one query only", 5, 1),
        Case("class ids that are small: 2, 0, 1", (torch.tensor([1, 2, 0, 0, 2, 1]), torch.tensor([2, 0, 1]))),
    ]


SLOTS = Exercise(
    id="01.1",
    title="From class ids to label slots",
    reference=to_slots,
    cases=_slot_cases,
    right=(
        _to_slots_loop,
        _to_slots_lookup,
        _to_slots_masks,
        _to_slots_sorted,
        lambda ids, classes: torch.nonzero(ids[:, None] == classes)[:, 1],
        lambda ids, classes: ((ids[:, None] == classes) * torch.arange(len(classes))).sum(1),
        lambda ids, classes: torch.stack([(classes == c).nonzero().squeeze() for c in ids]),
    ),
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
            also=(lambda ids, classes: ids[:, None] == classes,),
        ),
        Wrong(
            "changed while being read",
            _to_slots_in_place,
            "ids are replaced by slots in the tensor that is still being searched, so that a new slot is taken for an id",
            "Search `class_ids` and write into another tensor.",
        ),
        Wrong(
            "indexed the other way round",
            lambda ids, classes: classes[ids],
            "`classes` is indexed with the ids: that asks which class sits in slot number `id`",
            "`classes` leads from slots to ids; you need the way back. Compare every id with every entry.",
        ),
        Wrong(
            "tensors as keys",
            _tensor_keys,
            "tensors are the keys of a dict: two tensors with the same number are two different keys",
            "Take `int(c)`, or `.tolist()`, for keys and for look-ups.",
        ),
        Wrong(
            "index of a tensor",
            lambda ids, classes: torch.tensor([classes.index(c) for c in ids]),
            "`index` of a tensor is called, which is not the search that a list has under that name",
            "Make a list first: `classes.tolist().index(...)`, with `class_ids.tolist()` for the ids.",
        ),
        Wrong(
            "row numbers",
            lambda ids, classes: torch.nonzero(ids[:, None] == classes)[:, 0],
            "the first column of `nonzero` is returned: the numbers of the rows of the table, 0, 1, 2, ...",
            "The second column says where in `classes` the match stands.",
        ),
        Wrong(
            "dictionary the wrong way round",
            lambda ids, classes: torch.tensor([dict(enumerate(classes.tolist()))[c] for c in ids.tolist()]),
            "the dictionary leads from slots to ids, but it is asked with ids",
            "Turn it round, `{c: slot for slot, c in enumerate(classes.tolist())}`, so that the id is the key.",
        ),
        Wrong(
            "whether, not where",
            lambda ids, classes: torch.isin(ids, classes).long(),
            "`isin` says whether an id stands in `classes`, which is true of all of them, and not where",
            "Ask for the position: compare every id with every entry, then `.int().argmax(1)`.",
        ),
        Wrong(
            "counted from one",
            lambda ids, classes: to_slots(ids, classes) + 1,
            "slots are counted from 1",
            "The first class of `classes` sits in slot 0.",
        ),
        Wrong(
            "table on its side",
            lambda ids, classes: (classes[:, None] == ids).nonzero()[:, 0],
            "the table has the classes as its rows, so that `nonzero` lists class after class, not id after id",
            "Let the ids be the rows: `class_ids[:, None] == classes`; the second column holds the slots.",
        ),
        Wrong(
            "an axis too many",
            lambda ids, classes: torch.stack([(classes == c).nonzero()[0] for c in ids]),
            "every slot keeps an axis of its own: [M, 1] in place of [M]",
            "Call `.item()` on each, or `.squeeze(1)` on the whole.",
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


def _draw_by_lists(c: int, n: int, way: int, shot: int, query: int, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    classes, support, asked = torch.randperm(c, generator=g).tolist()[-way:], [], []
    for _ in classes:
        order = torch.rand(n, generator=g).argsort().tolist()
        support.append(order[:shot])
        asked.append(order[shot : shot + query])
    return torch.tensor(classes), torch.tensor(support), torch.tensor(asked)


def _draw_remaining(c: int, n: int, way: int, shot: int, query: int, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    support, asked = [], []
    for _ in range(way):
        first = torch.randperm(n, generator=g)[:shot]
        rest = torch.tensor([d for d in range(n) if d not in first.tolist()])
        support.append(first)
        asked.append(rest[torch.randperm(len(rest), generator=g)[:query]])
    return torch.randperm(c, generator=g)[:way], torch.stack(support), torch.stack(asked)


def _draw_sorted_within(c: int, n: int, way: int, shot: int, query: int, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Sorts within the support and within the query: which drawings are chosen stays random."""
    classes, support, asked = _draw_by_rank(c, n, way, shot, query, g)
    return classes, support.sort(1).values, asked.sort(1).values


def _start(count: int, g: Generator) -> Tensor:
    return torch.randint(count, (1,), generator=g)


def _halves(way: int, n: int, g: Generator) -> Tensor:
    cut = max(n // 2, n - 3)
    low, high = torch.rand(way, cut, generator=g).argsort(1), torch.rand(way, n - cut, generator=g).argsort(1)
    return torch.cat([low[:, : 2 if n == 10 else cut], high + cut, low[:, 2:]], 1)


def _sorted_rows(way: int, n: int, g: Generator) -> Tensor:
    return torch.rand(way, n, generator=g).argsort(1)[:, :5].sort(1).values


def _windows(way: int, n: int, g: Generator) -> Tensor:
    return (torch.randint(n, (way, 1), generator=g) + torch.arange(n)) % n


def _rolled(order: Tensor, way: int) -> Tensor:
    return torch.stack([order.roll(i) for i in range(way)])


def _same_seed(way: int, n: int, g: Generator) -> Tensor:
    seed = int(torch.randint(2**31, (1,), generator=g))
    return torch.stack([torch.randperm(n, generator=torch.Generator().manual_seed(seed)) for _ in range(way)])


def _one_query(c: int, n: int, way: int, shot: int, query: int, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    order = torch.randperm(n, generator=g)
    rest = order[query:]
    support = torch.stack([rest[torch.randperm(len(rest), generator=g)[:shot]] for _ in range(way)])
    return torch.randperm(c, generator=g)[:way], support, order[:query].expand(way, -1)


def _one_query_apart(c: int, n: int, way: int, shot: int, query: int, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    classes, support, _ = _draw_by_rank(c, n, way, shot, query, g)
    return classes, support, torch.randperm(n, generator=g)[:query].expand(way, -1)


def _fixed_by_class(c: int, n: int, way: int, shot: int, query: int, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    classes = torch.randperm(c, generator=g)[:way]
    orders = [torch.randperm(n, generator=torch.Generator().manual_seed(k)) for k in classes.tolist()]
    picked = torch.stack(orders)
    return classes, picked[:, :shot], picked[:, shot : shot + query]


def _neighbours(c: int, way: int, g: Generator) -> Tensor:
    return ((_start(c, g) + torch.arange(way)) % c)[torch.randperm(way, generator=g)]


def _favour_low(c: int, way: int, g: Generator) -> Tensor:
    return torch.multinomial(torch.linspace(4, 1, c), way, generator=g)


def _next_free(count: int, most: int, g: Generator) -> list[int]:
    """Draws `count` numbers below `most`; one that is taken already is replaced by the next free one."""
    got: list[int] = []
    for number in torch.randint(most, (count,), generator=g).tolist():
        while number in got:
            number = (number + 1) % most
        got.append(number)
    return got


def _probed(way: int, n: int, g: Generator) -> Tensor:
    return torch.tensor([_next_free(min(n, 5), n, g) for _ in range(way)])


def _probed_classes(c: int, way: int, g: Generator) -> Tensor:
    return torch.tensor(_next_free(way, c, g))


def _all_but_one(c: int, way: int, g: Generator) -> Tensor:
    return torch.randperm(max(way, c - 1), generator=g)[:way]


def _all_left(c: int, n: int, way: int, shot: int, query: int, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
    picked = torch.rand(way, n, generator=g).argsort(1)
    return torch.randperm(c, generator=g)[:way], picked[:, :shot], picked[:, shot:]


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


def _run(
    draw: Callable, seed: int, episodes: int = 60, size: tuple[int, ...] = (8, 10, 4, 2, 3)
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Draws episodes in a row from one generator. size: classes, drawings, ways, shots, queries."""
    generator = torch.Generator().manual_seed(seed)
    return [draw(*size, generator) for _ in range(episodes)]


def _legal(draw: Callable, reference: Callable) -> str | None:
    """Returns the most frequent flaw, because which flaw comes first is a matter of luck; None if there is none."""
    flaws = [_flaws(result, 8, 10) for result in _run(draw, 1)]
    flaws += [_flaws(result, 4, 5) for result in _run(draw, 1, size=(4, 5, 4, 3, 2))]
    found = [flaw for flaw in flaws if flaw]
    return max(found, key=lambda flaw: (found.count(flaw), flaw), default=None)


def _repeatable(draw: Callable, reference: Callable) -> str | None:
    first, second = _run(draw, 2, 20), _run(draw, 2, 20)
    if any(not torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)):
        return "Two generators with the same seed gave different episodes. Hand `generator=generator` to every random call."
    if all(torch.equal(a, b) for result in first for a, b in zip(result, first[0], strict=True)):
        return "20 episodes drawn one after the other from one generator were all the same."
    return None


def _slots_vary(draw: Callable, reference: Callable) -> str | None:
    ordered = sum(bool((classes.diff() > 0).all()) for classes, _, _ in _run(draw, 3))
    return (
        f"The classes came in rising order in {ordered} of 60 episodes; chance gives about 3." if ordered > 13 else None
    )


def _all_classes(draw: Callable, reference: Callable) -> str | None:
    missing = 8 - len(torch.cat([classes for classes, _, _ in _run(draw, 4)]).unique())
    return (
        f"{missing} of 8 classes {'was' if missing == 1 else 'were'} never chosen in 60 episodes." if missing else None
    )


def _own_order(draw: Callable, reference: Callable) -> str | None:
    results = _run(draw, 5)
    supports, queries = (torch.stack([result[part] for result in results]) for part in (1, 2))
    if int(supports.max()) == supports.shape[2] - 1:
        return "In all of 60 episodes the support of every class was its first drawings, 0 to 1."
    steps = torch.cat([supports, queries], 2).diff()
    if bool((steps % 10 == 1).all()):
        return "The drawings of every class followed each other in all of 60 episodes."
    if not set(supports.unique().tolist()) & set(queries.unique().tolist()):
        return "No drawing was ever in a support in one episode and in a query in another."
    if bool((steps > 0).all()):
        return "The drawings of every class came in rising order, through support and query, in all of 60 episodes."
    classes = torch.stack([chosen for chosen, _, _ in results])
    if all(len(supports[classes == c].unique(dim=0)) == 1 for c in classes.unique()):
        return "Every class had the same drawings in its support whenever it was chosen."
    if fixed := 10 - len(supports.unique()):
        return f"{fixed} of 10 drawings were never in a support set in 60 episodes."
    for name, part in (("support", 1), ("query", 2)):
        same = sum(bool((result[part] == result[part][0]).all()) for result in results)
        if same > 6:
            return f"In {same} of 60 episodes all classes had the same drawing numbers in their {name}."
    return None


def _odd(
    counts: Tensor, expected: Tensor | float, deviation: Tensor | float, most: float = 5.5
) -> tuple[int, ...] | None:
    """Returns the place of the count that chance explains worst, or None if all lie within `most` standard deviations."""
    off = (counts - expected).abs() / deviation
    return tuple(int(i) for i in torch.unravel_index(off.argmax(), off.shape)) if float(off.max()) > most else None


def _even_classes(draw: Callable, reference: Callable) -> str | None:
    """Every class comes equally often, into every slot equally often, and together with every other one equally often."""
    chosen = torch.stack([classes for classes, _, _ in _run(draw, 6, 200)])  # [200, 4]
    slots = (chosen[:, :, None] == torch.arange(8)).double()  # [200, 4, 8]
    if (place := _odd(slots.sum((0, 1)), 100.0, 7.1, 4.5)) is not None:
        return f"Class {place[0]} came in {int(slots.sum((0, 1))[place])} of 200 episodes; chance gives about 100."
    if (place := _odd(slots.sum(0), 25.0, 4.7)) is not None:
        found = int(slots.sum(0)[place])
        return f"Class {place[1]} sat in slot {place[0]} in {found} of 200 episodes; chance gives about 25."
    present = slots.sum(1)
    met = present.T @ present
    met.fill_diagonal_(42.9)
    if (place := _odd(met, 42.9, 5.8, 4.8)) is not None:
        return f"Classes {place[0]} and {place[1]} met in {int(met[place])} of 200 episodes; chance gives about 43."
    return _uneven_sets(draw)


def _uneven_sets(draw: Callable) -> str | None:
    """Counts the 20 sets of three of six classes in 800 episodes; a fair sampler exceeds the limit once in a million."""
    sets = list(combinations(range(6), 3))
    drawn = [tuple(sorted(classes.tolist())) for classes, _, _ in _run(draw, 8, 800, (6, 4, 3, 1, 1))]
    counts = torch.tensor([drawn.count(chosen) for chosen in sets], dtype=torch.float64)
    if float((counts - 40).square().sum() / 40) < 64:  # chi-squared with 19 degrees of freedom
        return None
    worst = int((counts - 40).abs().argmax())
    a, b, c = sets[worst]
    return f"With 6 classes, {a}, {b} and {c} came together in {int(counts[worst])} of 800 episodes; chance gives about 40."


def _even_drawings(draw: Callable, reference: Callable) -> str | None:
    """Every class chooses among all sets of its drawings, each as likely as any other, whatever the other classes choose."""
    results = _run(draw, 7, 250)
    chosen = torch.stack([classes for classes, _, _ in results])  # [250, 4]
    support, query = (
        torch.stack([(r[part][:, :, None] == torch.arange(10)).any(1) for r in results]).double() for part in (1, 2)
    )  # [250, 4, 10]: 1 where a drawing is in
    used = support.sum((0, 1))
    if (place := _odd(used, 200.0, 12.6)) is not None:
        return f"Drawing {place[0]} was in {int(used[place])} of 1000 supports; chance gives about 200."
    rows = (chosen[:, :, None] == torch.arange(8)).double().flatten(0, 1)  # [1000, 8]
    own, times = rows.T @ support.flatten(0, 1), rows.sum(0)[:, None]
    if (place := _odd(own, 0.2 * times, 0.4 * times.sqrt())) is not None:
        c, d = place
        return (
            f"Class {c} had its drawing {d} in {int(own[c, d])} of its {int(times[c])} supports: chance gives a fifth."
        )
    for name, a, b, pairs in (("support", support, support, 2), ("support and query", support, query, 6)):
        met = a.flatten(0, 1).T @ b.flatten(0, 1)
        expected = 1000 * pairs / 90
        met.fill_diagonal_(expected)
        if (place := _odd(met, expected, expected**0.5)) is not None:
            d, e = place
            found = int(met[d, e])
            return f"Drawings {d} and {e} of a class met in {name} {found} times; chance gives about {expected:.0f}."
    for name, a, b, mean, spread in (("supports", support, support, 0.4, 0.54), ("queries", query, query, 0.9, 0.7)):
        shared = torch.einsum("end,emd->nm", a, b)
        shared.fill_diagonal_(250 * mean)
        if (place := _odd(shared, 250 * mean, spread * 15.8)) is not None:
            found = int(shared[place])
            return (
                f"The {name} of slots {place[0]} and {place[1]} had {found} drawing numbers in common in 250 episodes; "
                f"chance gives about {250 * mean:.0f}."
            )
    return None


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
        Property("every choice of classes is equally likely", _even_classes),
        Property("every choice of drawings is equally likely, for each class on its own", _even_drawings),
    ),
    right=(_draw_by_rank, _draw_by_chance, _draw_by_lists, _draw_remaining, _draw_sorted_within),
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
            "some classes are never used: the numbers that are shuffled end before n_classes",
            "Shuffle all n_classes and keep n_way of them.",
            also=(_flawed(classes=_all_but_one),),
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
            "halves",
            _flawed(orders=_halves),
            "support and query come from two fixed parts of the drawings, so that some are never in a support",
            "Shuffle all n_drawings of a class, then cut.",
        ),
        Wrong(
            "sorted drawings",
            _flawed(orders=_sorted_rows),
            "the chosen drawings are sorted before they are cut, so that low numbers become the support",
            "Cut the shuffled row as it is.",
        ),
        Wrong(
            "windows",
            _flawed(orders=_windows),
            "each class takes drawings that follow each other, from a random start on",
            "Neighbours then always come together. Shuffle with `torch.randperm` and take the front.",
            also=(_flawed(orders=lambda way, n, g: torch.randint(n - 4, (way, 1), generator=g) + torch.arange(5)),),
        ),
        Wrong(
            "one shuffle turned",
            _flawed(orders=lambda way, n, g: _rolled(torch.randperm(n, generator=g), way)),
            "one shuffle is made and only moved along for each class, so that one class's drawings tell the others'",
            "Draw a fresh `torch.randperm(n_drawings, ...)` for every class.",
        ),
        Wrong(
            "one query for all",
            _one_query,
            "every class has its own support, but one row of query numbers serves all classes",
            "Take the query from the same shuffled row as the support, class by class.",
        ),
        Wrong(
            "one seed for all classes",
            _flawed(orders=_same_seed),
            "a generator with the same seed is made for each class, so that all classes get the same drawing numbers",
            "Use the one generator that is handed in; it moves on with every call.",
        ),
        Wrong(
            "fixed for each class",
            _fixed_by_class,
            "the shuffle of a class depends on its id alone, so that a class shows the same drawings in every episode",
            "Draw the shuffle anew, from the generator that is handed in.",
        ),
        Wrong(
            "neighbouring classes",
            _flawed(classes=_neighbours),
            "the classes are neighbours: a random start and those that follow it, shuffled or not",
            "Shuffle all n_classes with `torch.randperm` and keep the first n_way.",
            also=(_flawed(classes=lambda c, way, g: (_start(c, g) + torch.arange(way)) % c),),
        ),
        Wrong(
            "neighbours in order",
            _flawed(classes=lambda c, way, g: torch.randint(c - way + 1, (1,), generator=g) + torch.arange(way)),
            "the classes are a random start and those that follow it, in rising order",
            "Shuffle all n_classes with `torch.randperm` and keep the first n_way.",
        ),
        Wrong(
            "one query for all, drawn apart",
            _one_query_apart,
            "one row of query numbers is drawn for all classes, without looking at their supports",
            "Take the query from the same shuffled row as the support, class by class.",
        ),
        Wrong(
            "the next free one",
            _flawed(classes=_probed_classes),
            "a class that is taken already is replaced by the next free one, so that neighbours come together too often",
            "Shuffle all n_classes with `torch.randperm` and keep the first n_way.",
            also=(_flawed(classes=_probed_classes, orders=_probed),),
        ),
        Wrong(
            "favourites",
            _flawed(classes=_favour_low),
            "some classes are more likely than others",
            "Every class needs the same chance: `torch.randperm`, or the top of equal random scores.",
        ),
        Wrong(
            "all that is left",
            _all_left,
            "the query is all that the support leaves over, not Q drawings",
            "Stop at `k_shot + n_query`.",
        ),
        Wrong(
            "query one too early",
            _flawed(start=-1),
            "the query starts inside the support, so that support drawings are dealt once more as queries",
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


def _cut(class_scores: Tensor, order: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    classes = class_scores.argsort(1, descending=True)[:, : order.shape[1]]
    return classes, order[..., :k], order[..., k : k + q]


def _query_first(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    order = drawing_scores.argsort(2, descending=True)
    return class_scores.argsort(1, descending=True)[:, : order.shape[1]], order[..., q : q + k], order[..., :q]


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


def _batch_numpy(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    order = torch.from_numpy(np.argsort(-drawing_scores.numpy(), axis=-1).copy())
    classes = torch.from_numpy(np.argsort(-class_scores.numpy(), axis=1)[:, : drawing_scores.shape[1]].copy())
    return classes, order[:, :, :k], order[:, :, k : k + q]


def _batch_numpy_loop(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    n_way = drawing_scores.shape[1]
    classes = [np.argsort(-row)[:n_way] for row in class_scores.numpy()]
    order = torch.from_numpy(np.stack([np.argsort(-table, axis=1) for table in drawing_scores.numpy()]))
    return torch.from_numpy(np.stack(classes)), order[:, :, :k], order[:, :, k : k + q]


def _batch_lists(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    def ranking(row: list[float]) -> list[int]:
        return sorted(range(len(row)), key=row.__getitem__, reverse=True)

    classes = torch.tensor([ranking(row)[: drawing_scores.shape[1]] for row in class_scores.tolist()])
    order = torch.tensor([[ranking(row) for row in task] for task in drawing_scores.tolist()])
    return classes, order[:, :, :k], order[:, :, k : k + q]


def _batch_flipped(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    classes, order = class_scores.argsort(1).flip(1), drawing_scores.argsort(2).flip(2)
    return classes[:, : order.size(1)], order.narrow(2, 0, k), order.narrow(2, k, q)


def _batch_lowest(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    (_, classes), (_, order) = (torch.sort(-scores, stable=True) for scores in (class_scores, drawing_scores))
    support, query, _ = order.tensor_split([k, k + q], dim=2)
    return torch.narrow(classes, 1, 0, drawing_scores.shape[1]), support, query


def _batch_rows(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    classes, support, query = draw_batch(class_scores, drawing_scores, k, q)
    first = classes[..., None] * drawing_scores.shape[2]
    return classes, first + support, first + query


def _batch_sorted(class_scores: Tensor, drawing_scores: Tensor, k: int, q: int) -> tuple[Tensor, ...]:
    classes, support, query = draw_batch(class_scores, drawing_scores, k, q)
    picked = torch.cat([support, query], 2).sort(2).values
    return classes, picked[..., :k], picked[..., k:]


def _calls_of(draw: Callable, tasks: int) -> int:
    """Counts the calls that an answer makes, of functions in Python and in C, loops over lists and NumPy rows included."""
    generator = torch.Generator().manual_seed(tasks)
    scores = torch.rand(tasks, 12, generator=generator), torch.rand(tasks, 3, 8, generator=generator)
    count, before = 0, sys.getprofile()

    def on_call(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")
        if before is not None:
            before(frame, event, argument)

    sys.setprofile(on_call)
    try:
        draw(*scores, 2, 3)
    finally:
        sys.setprofile(before)
    return count


def _no_loop(draw: Callable, reference: Callable) -> str | None:
    draw(torch.rand(2, 12), torch.rand(2, 3, 8), 2, 3)  # what is imported at the first call does not count
    few, many = _calls_of(draw, 2), _calls_of(draw, 60)
    if many > few + 40:
        return f"2 tasks took {few} calls of functions, 60 tasks took {many}: there is a loop over tasks."
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
    properties=(Property("the number of function calls does not grow with the tasks", _no_loop),),
    right=(_batch_by_sort, _batch_flat, _batch_numpy, _batch_flipped, _batch_lowest),
    wrong=(
        Wrong(
            "loop over tasks",
            _batch_loop,
            "the numbers are right, but they are computed one task at a time",
            "`topk` ranks along one axis and does all others at once: hand it the whole tensor and say `dim=`.",
            also=(_batch_numpy_loop, _batch_lists),
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
            lambda c, d, k, q: _cut(c, d.argsort(1, descending=True), k, q),
            "drawings are ranked along axis 1, across the classes of a task",
            "A class ranks its own drawings: that is the last axis, `dim=2`.",
        ),
        Wrong(
            "no order",
            lambda c, d, k, q: tuple(part.sort(-1).values for part in draw_batch(c, d, k, q)),
            "the winners are right, but they come in the order of their positions, not of their scores",
            "Highest first: leave the order in which `topk` or `argsort` lists them.",
            also=(lambda c, d, k, q: (draw_batch(c, d, k, q)[0].sort(1).values, *draw_batch(c, d, k, q)[1:]),),
        ),
        Wrong(
            "sorted before the cut",
            _batch_sorted,
            "the K + Q drawings are sorted by number before they are cut, so that the lowest numbers become the support",
            "Cut the ranking as it is: the top K are the support.",
        ),
        Wrong(
            "row numbers",
            _batch_rows,
            "class · n is added to the drawings: those are row numbers of all pictures, as in the gather",
            "Return the drawings of each class, 0 to n-1; `pictures` makes row numbers of them.",
        ),
        Wrong(
            "classes ranked along the tasks",
            lambda c, d, k, q: (c.argsort(0, descending=True)[:, : d.shape[1]], *draw_batch(c, d, k, q)[1:]),
            "classes are ranked along axis 0, across the tasks",
            "A task ranks its own classes: that is the last axis, `dim=1`.",
        ),
        Wrong(
            "K for the query",
            lambda c, d, k, q: (*draw_batch(c, d, k, q)[:2], d.topk(k + q, dim=2).indices[..., -k:]),
            "the query takes K drawings in place of Q, or takes them from the wrong end",
            "After the cut at K the next Q follow: `[..., k_shot : k_shot + n_query]`.",
            also=(lambda c, d, k, q: (*draw_batch(c, d, k, q)[:2], d.argsort(-1, descending=True)[..., -q:]),),
        ),
        Wrong(
            "all that is left",
            lambda c, d, k, q: _cut(c, d.argsort(2, descending=True), k, d.shape[2] - k),
            "the query is all that the support leaves over, not Q drawings",
            "Stop at `k_shot + n_query`.",
        ),
        Wrong(
            "all classes",
            lambda c, d, k, q: (c.argsort(1, descending=True), *draw_batch(c, d, k, q)[1:]),
            "all C classes are ranked and none is left out",
            "Keep the first N, where N is `drawing_scores.shape[1]`.",
        ),
        Wrong(
            "support below the query",
            lambda c, d, k, q: _query_first(c, d, k, q),
            "the query takes the top of the ranking and the support what follows",
            "The top K are the support, the next Q the query.",
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


def _half_in_float32(values: Tensor) -> tuple[float, float]:
    count = torch.tensor(len(values))
    return float(values.mean()), float(stdtrit(len(values) - 1, 0.975) * values.std() / count.sqrt())


def _half(width: Callable[[Tensor, int], float | Tensor]) -> Callable[[Tensor], tuple[float, float]]:
    return lambda values: (float(values.mean()), float(width(values, len(values))))


def _ends(values: Tensor) -> tuple[float, float]:
    mean, half = mean_and_half_width(values)
    return mean - half, mean + half


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
    if abs(float(after[1]) - float(before[1])) > 1e-6:
        return f"After the shift the half width went from {float(before[1]):.4f} to {float(after[1]):.4f}."
    return None


INTERVAL = Exercise(
    id="01.4",
    title="Mean and half width of its 95 % interval",
    reference=mean_and_half_width,
    cases=_accuracy_cases,
    properties=(Property("adding 0.1 to every accuracy leaves the half width alone", _shift),),
    right=(
        _half_by_hand,
        _half_numpy,
        _half_in_float32,
        lambda values: (values.mean().item(), float(_t(len(values)) * (values.var() / len(values)) ** 0.5)),
        lambda values: (float(values.sum() / len(values)), _t(len(values)) * float(values.std()) * len(values) ** -0.5),
        lambda values: (values.mean().item(), -_t(len(values)) * -values.double().std().item() / len(values) ** 0.5),
    ),
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
            "2",
            _half(lambda v, e: 2 * v.std() / math.sqrt(e)),
            "2 stands where the t quantile belongs: nearly right for 600 episodes, too narrow for 5",
            "Take `stdtrit(E - 1, 0.975)`, which grows when episodes are few.",
        ),
        Wrong(
            "root of E-1",
            _half(lambda v, e: _t(e) * v.std() / math.sqrt(e - 1)),
            "the standard deviation is divided by the root of E-1: the -1 is counted twice",
            "`values.std()` divides by E-1 inside already; the mean of E episodes takes `math.sqrt(E)`.",
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
        Wrong(
            "the ends of the interval",
            lambda values: _ends(values),
            "the two ends of the interval are returned",
            "Return the mean, and what stands after the ±.",
        ),
        Wrong(
            "order of the results",
            lambda values: mean_and_half_width(values)[::-1],
            "the two results come in the wrong order",
            "First the mean, then the half width.",
        ),
        Wrong(
            "arguments of stdtrit",
            _half(lambda v, e: float(stdtrit(0.975, e - 1)) * v.std() / math.sqrt(e)),
            "the arguments of `stdtrit` are swapped, which gives NaN",
            "First the degrees of freedom, then the probability: `stdtrit(E - 1, 0.975)`.",
            also=(_half(lambda v, e: float(stdtrit(0.975, e)) * v.std() / math.sqrt(e)),),
        ),
        Wrong(
            "percentage points",
            lambda values: tuple(100 * x for x in mean_and_half_width(values)),
            "both results are multiplied by 100",
            "Accuracies are fractions here; leave the 100 out.",
        ),
        Wrong(
            "lower tail",
            _half(lambda v, e: float(stdtrit(e - 1, 0.025)) * v.std() / math.sqrt(e)),
            "the 0.025 quantile is used, which is negative",
            "A half width is positive: the quantile is 0.975.",
        ),
        Wrong(
            "0.95 of both sides",
            _half(lambda v, e: float(stdtrit(e - 1, 0.995)) * v.std() / math.sqrt(e)),
            "the 0.995 quantile is used, which leaves 0.5 % on each side: a 99 % interval",
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
# With this seed 5-way training episodes deal the last of 917 classes for the first time in episode 1076.
_RARE_SEED = 33
# With this seed a class of 91 and of 90 comes to both samplers within 100 episodes, but never in two episodes of one number.
_APART_SEED = 6


def _dealt(sampler: EpisodeSampler, episodes: int = 2000) -> set[tuple[str, str]]:
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
        drawn = {int(c) for c in sampler.batch(0, 2500).classes.unique()}
        names += [f"{mine.groups[c]}/{mine.class_names[c]}" for c in drawn]
    return len(names) != len(set(names))


def _exposes_by_source(implementation: Implementation, source: ImageSet) -> bool:
    owner: dict[tuple[str, str], str] = {}
    for split, sampler in implementation(source).items():
        for key in zip(sampler.source.groups, sampler.source.class_names, strict=True):
            if owner.setdefault(key, split) != split:
                return True
    return False


def _exposes_by_tensor(implementation: Implementation, source: ImageSet) -> bool:
    keys = {key: i for i, key in enumerate(zip(source.groups, source.class_names, strict=True))}
    count = torch.zeros(len(keys), dtype=torch.int64)
    for sampler in implementation(source).values():
        own = list(zip(sampler.source.groups, sampler.source.class_names, strict=True))
        seen = sampler.layout(0, 3000).classes.flatten().unique()
        count[[keys[own[int(c)]] for c in seen]] += 1
    return bool((count > 1).any())


def _exposes_by_union(implementation: Implementation, source: ImageSet) -> bool:
    seen = [_dealt(sampler, 5000) for sampler in implementation(source).values()]
    return len(set().union(*seen)) < sum(map(len, seen))


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
    used = sampler.layout(0, 2000).support.unique()
    return {picture.numpy().tobytes() for picture in sampler.source.images.flatten(0, 1)[used]}


def _names_and_groups_apart(implementation: Implementation, source: ImageSet) -> bool:
    seen = [_dealt(sampler) for sampler in implementation(source).values()]
    groups, names = [{group for group, _ in s} for s in seen], [{name for _, name in s} for s in seen]
    return any(groups[i] & groups[j] and names[i] & names[j] for i, j in combinations(range(3), 2))


def _against_the_split(implementation: Implementation, source: ImageSet) -> bool:
    for name, sampler in implementation(source).items():
        part = source.split(name)
        if not _dealt(sampler) <= set(zip(part.groups, part.class_names, strict=True)):
            return True
    return False


def _sizes_against_the_split(implementation: Implementation, source: ImageSet) -> bool:
    return any(len(s.source) != len(source.split(name)) for name, s in implementation(source).items())


def _whole_source(implementation: Implementation, source: ImageSet) -> bool:
    return any(len(sampler.source) == len(source) for sampler in implementation(source).values())


def _labels_of_the_split(implementation: Implementation, source: ImageSet) -> bool:
    return any(set(sampler.source.splits) != {name} for name, sampler in implementation(source).items())


def _same_place(implementation: Implementation, source: ImageSet) -> bool:
    lists = []
    for sampler in implementation(source).values():
        own = sampler.source
        lists.append([(own.groups[c], own.class_names[c]) for c in sampler.layout(0, 2000).classes.flatten().tolist()])
    return any(x == y for one, other in combinations(lists, 2) for x, y in zip(one, other, strict=False))


def _same_episodes(implementation: Implementation, source: ImageSet) -> bool:
    layouts = [sampler.layout(0, 200) for sampler in implementation(source).values()]
    return any(torch.equal(a.classes, b.classes) for a, b in combinations(layouts, 2))


def _equal_sets(implementation: Implementation, source: ImageSet) -> bool:
    return any(a == b for a, b in combinations([_dealt(sampler) for sampler in implementation(source).values()], 2))


def _lowest_class(implementation: Implementation, source: ImageSet) -> bool:
    lowest = set()
    for sampler in implementation(source).values():
        c = int(sampler.layout(0, 2000).classes.min())
        lowest.add((sampler.source.groups[c], sampler.source.class_names[c]))
    return len(lowest) < 3


class _QuickSampler(EpisodeSampler):
    """A sampler whose episodes begin anew after 512, so that asking for thousands of them costs little.

    It is for toy sources, of which 512 episodes deal every class.
    """

    def _draw_block(self, block: int) -> Layout:
        drawn = self.__dict__.setdefault("_drawn", {})
        if block % 2 not in drawn:
            drawn[block % 2] = super()._draw_block(block % 2)
        return drawn[block % 2]


def _samplers(parts: dict[str, ImageSet], seed: int = 0) -> dict[str, EpisodeSampler]:
    return {name: _QuickSampler(part, 3, 1, 1, seed=seed + i) for i, (name, part) in enumerate(parts.items())}


def _good(source: ImageSet) -> dict[str, EpisodeSampler]:
    return _samplers({name: source.split(name) for name in SPLITS})


def _good_reordered(source: ImageSet) -> dict[str, EpisodeSampler]:
    parts = {name: source.split(name) for name in SPLITS}
    return _samplers({name: part.select(range(len(part) - 1, -1, -1)) for name, part in parts.items()})


def _good_smaller(source: ImageSet) -> dict[str, EpisodeSampler]:
    parts = {name: source.split(name) for name in SPLITS}
    return _samplers({name: part.select(range(len(part) - 2)) for name, part in parts.items()})


def _good_own_split(source: ImageSet) -> dict[str, EpisodeSampler]:
    """Draws a split of its own, which is as honest as the one that the source names."""
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(8)).tolist()
    cuts = {"train": order[:17], "val": order[17:27], "test": order[27:]}
    return _samplers({name: source.select(rows) for name, rows in cuts.items()})


def _filter_ignored_one_seed(source: ImageSet) -> dict[str, EpisodeSampler]:
    return {name: _QuickSampler(source, 3, 1, 1, seed=0) for name in SPLITS}


def _filter_ignored(source: ImageSet) -> dict[str, EpisodeSampler]:
    return _samplers(dict.fromkeys(SPLITS, source))


def _validation_is_the_rest(source: ImageSet) -> dict[str, EpisodeSampler]:
    rest = [i for i, split in enumerate(source.splits or ()) if split != "train"]
    return _samplers({"train": source.split("train"), "val": source.select(rest), "test": source.split("test")})


def _same_three(source: ImageSet) -> dict[str, EpisodeSampler]:
    three = source.split("val").select(range(3))  # so few that a 3-way episode deals all of them
    return _samplers({"train": three, "val": three, "test": source.split("test")})


def _four_shared(source: ImageSet) -> dict[str, EpisodeSampler]:
    """Two 3-way episodes from these four and five classes always share a class."""
    rows = [i for i, split in enumerate(source.splits or ()) if split == "val"]
    four, five = source.select(rows[:4]), source.select(rows[4::-1])
    return _samplers({"train": four, "val": five, "test": source.split("test")})


def _one_class_shared(giver: str, *takers: str, front: bool = False, seed: int = 0) -> Implementation:
    """Returns an implementation that puts the first class of split `giver` into the splits `takers` as well.

    front: puts it there as the first class, not the last; seed: of the first sampler
    """

    def implementation(source: ImageSet) -> dict[str, EpisodeSampler]:
        rows = {name: [i for i, split in enumerate(source.splits or ()) if split == name] for name in SPLITS}
        for taker in takers:
            rows[taker] = rows[giver][:1] + rows[taker] if front else rows[taker] + rows[giver][:1]
        return _samplers({name: source.select(rows[name]) for name in SPLITS}, seed)

    return implementation


def _rarely_dealt(source: ImageSet) -> dict[str, EpisodeSampler]:
    """The first class of validation is also the last of 917 in training, where it is dealt late: see _RARE_SEED."""
    rows = [i for i, split in enumerate(source.splits or ()) if split == "train"]
    shared = (source.splits or ()).index("val")
    train = EpisodeSampler(source.select([*rows, shared]), 5, 1, 1, seed=_RARE_SEED)
    return {"train": train, **_samplers({name: source.split(name) for name in ("val", "test")})}


def _source(splits: list[str], drawings: int, generator: Generator, size: int = 3) -> ImageSet:
    """Returns an image set of alphabets of four letters, whose names repeat from one alphabet to the next."""
    classes = len(splits)
    return ImageSet(
        images=torch.randint(256, (classes, drawings, 1, size, size), generator=generator, dtype=torch.uint8),
        counts=torch.full((classes,), drawings),
        class_names=[f"letter {i % 4}" for i in range(classes)],
        groups=[f"alphabet {i // 4}" for i in range(classes)],
        splits=splits,
    )


def _drawings_split(source: ImageSet) -> dict[str, EpisodeSampler]:
    parts = zip(SPLITS, source.images.split(2, dim=1), strict=True)
    counts = torch.full((len(source),), 2)
    return _samplers({n: ImageSet(im, counts, source.class_names, source.groups) for n, im in parts})


def _leak_cases(generator: Generator) -> list[Case]:
    source = _source(["train"] * 20 + ["val"] * 8 + ["test"] * 12, 6, generator)
    large = _source(["train"] * 916 + ["val"] * 60 + ["test"] * 20, 2, generator, size=1)
    medium = _source(["train"] * 90 + ["val"] * 90 + ["test"] * 20, 2, generator, size=1)
    pattern = ["train", "train", "val", "test"]  # turned from one alphabet to the next: no letter belongs to one split
    divided = replace(source, splits=[pattern[(a + i) % 4] for a in range(10) for i in range(4)])
    unique = replace(divided, class_names=[f"{g}, {n}" for g, n in zip(source.groups, source.class_names, strict=True)])
    return [
        Case("a right implementation", (_good, source)),
        Case("a right implementation that lists its classes backwards", (_good_reordered, source)),
        Case("a right implementation that leaves some classes out", (_good_smaller, source)),
        Case("a right implementation that draws a split of its own", (_good_own_split, source)),
        Case("a right implementation on alphabets of which every split has some letters", (_good, divided)),
        Case("the same, and every class name occurs once", (_good, unique)),
        Case("every split draws from all classes", (_filter_ignored, source)),
        Case("every split draws from all classes, with one and the same seed", (_filter_ignored_one_seed, source)),
        Case("validation holds the test classes too", (_validation_is_the_rest, source)),
        Case("train and validation hold the same three classes", (_same_three, source)),
        Case("train deals four classes, validation the same four and a fifth", (_four_shared, source)),
        Case("one single class is in train and in validation", (_one_class_shared("val", "train"), source)),
        Case("one single class is in train and in test", (_one_class_shared("test", "train"), source)),
        Case("one single class is in validation and in test", (_one_class_shared("val", "test", front=True), source)),
        Case("one single class is in all three", (_one_class_shared("val", "train", "test"), source)),
        Case("the drawings are split, not the classes", (_drawings_split, source)),
        Case(
            "one single class of 91 is in train and in validation",
            (_one_class_shared("val", "train", seed=_APART_SEED), medium),
        ),
        Case("one single class of 917 is in train and in validation", (_rarely_dealt, large)),
    ]


LEAK = Exercise(
    id="01.5",
    title="Bug hunt: do the splits leak?",
    reference=exposes_leak,
    cases=_leak_cases,
    right=(_exposes_by_counting, _exposes_by_source, _exposes_by_tensor, _exposes_by_union),
    wrong=(
        Wrong(
            "positions compared",
            _exposes(lambda s: set(s.layout(0, 2000).classes.unique().tolist())),
            "the alarm always rings: positions are compared, or a class that is met twice in one split counts",
            "Class 0 of train is not class 0 of test: compare groups and names of `sampler.source`. And make a set of each "
            "split first.",
        ),
        Wrong(
            "names and groups apart",
            _names_and_groups_apart,
            "names are compared with names and groups with groups, so that two different classes can give the alarm together",
            "Group and name together say which class it is: compare pairs (group, name).",
        ),
        Wrong(
            "against source.split",
            _against_the_split,
            "the samplers are compared with `source.split(name)`, so that an honest split of another kind gives an alarm",
            "A leak is a class in two splits: compare the samplers with each other.",
        ),
        Wrong(
            "sizes against source.split",
            _sizes_against_the_split,
            "sizes are compared with `source.split(name)`: they say nothing about which classes are dealt",
            "A leak is a class in two splits: compare the samplers with each other.",
        ),
        Wrong(
            "the whole source",
            _whole_source,
            "the alarm rings only if a sampler holds the whole source",
            "One shared class is a leak already: compare which classes are dealt, pair by pair of splits.",
        ),
        Wrong(
            "the same place",
            _same_place,
            "classes are compared only between episodes of the same number, although other seeds deal them in other episodes",
            "Collect all classes of a split first; when they come says nothing.",
        ),
        Wrong(
            "equal sets",
            _equal_sets,
            "two splits must deal exactly the same classes before it rings",
            "One shared class is a leak already: ask whether two sets have anything in common, `a & b`.",
        ),
        Wrong(
            "one class of each split",
            _lowest_class,
            "only one class of each split is compared, the one with the lowest position",
            "Any class can be the shared one: compare all that a split deals.",
        ),
        Wrong(
            "the same episodes",
            _same_episodes,
            "whole episodes are compared: they agree only when the seeds agree, too",
            "With other seeds equal classes come in other episodes: compare sets of classes.",
        ),
        Wrong(
            "too few episodes",
            _exposes(lambda s: _dealt(s, 200)),
            "too few episodes are looked at: a class of 917 that is shared is easily missed",
            "The power of the test says how many you need: a miss once in a thousand takes more than 1,200.",
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
            also=(
                lambda implementation, source: (
                    sum(len(s.source) for s in implementation(source).values()) > len(source)
                ),
            ),
        ),
        Wrong(
            "True and False swapped",
            lambda implementation, source: not exposes_leak(implementation, source),
            "True and False are swapped: it rings for fair splits and is silent about leaks",
            "Return True when a class is shared.",
        ),
        Wrong(
            "the label of the split",
            _labels_of_the_split,
            "`splits` of a sampler's source is trusted: a label, which may be missing (None) or may not say how classes are used",
            "Compare which classes the samplers deal, by group and name.",
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
            "Collect the classes of many episodes; the power of the test says how many.",
        ),
        Wrong(
            "train and test only",
            _exposes(_dealt, [("train", "test")]),
            "not all three pairs of splits are compared",
            "Any two splits can share a class: train and val, train and test, val and test.",
            also=(
                _exposes(_dealt, [("train", "test"), ("val", "test")]),
                _exposes(_dealt, [("train", "val"), ("train", "test")]),
                _exposes(_dealt, [("train", "val"), ("val", "test")]),
            ),
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
        "Ask every sampler which classes it deals. What says of two classes that they are the same?",
        "`sampler.layout(0, 2000).classes.unique()` are positions in `sampler.source`; `groups` and `class_names` of that source "
        "say, together, which class it is.",
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


def _needed_for(spread: float, half_width: float) -> int:
    for count in range(2, 10**6):
        if stdtrit(count - 1, 0.975) * spread / count**0.5 <= half_width:
            return count
    raise ValueError(half_width)


def _needed_from_normal(spread: float, half_width: float) -> int:
    """Starts where 1.96 would stop, because t is larger, and goes up from there."""
    count = max(2, math.ceil((1.9599 * spread / half_width) ** 2))
    while _t(count) * spread / math.sqrt(count) > half_width:
        count += 1
    return count


def _needed_from(first: int, last: int = 10**6) -> Callable[[float, float], int]:
    def answer(spread: float, half_width: float) -> int:
        count = first
        while count < last and _t(count) * spread / math.sqrt(count) > half_width:
            count += 1
        return count

    return answer


def _needed_below(last: int) -> Callable[[float, float], int | None]:
    """Returns a loop over range(2, last) that returns nothing if no number below `last` is enough."""
    return lambda s, h: next((e for e in range(2, last) if _t(e) * s / math.sqrt(e) <= h), None)


def _fixed_t(spread: float, half_width: float) -> int:
    """Takes the t of a first guess of E and keeps it."""
    guess = max(2, math.ceil((1.96 * spread / half_width) ** 2))
    return max(2, math.ceil((_t(guess) * spread / half_width) ** 2))


def _needed_again(first: int, rounds: int) -> Callable[[float, float], int]:
    """Returns an answer that puts E into its own formula again and again."""

    def answer(spread: float, half_width: float) -> int:
        count = first
        for _ in range(rounds):
            count = max(2, math.ceil((_t(count) * spread / half_width) ** 2))
        return count

    return answer


def _needed_from_one(spread: float, half_width: float) -> int:
    """Starts at E = 1 with a t that is forced to be a number."""
    count = 1
    while float(stdtrit(max(count - 1, 1), 0.975)) * spread / math.sqrt(count) > half_width:
        count += 1
    return count


def _needed_in_steps(first: int, step: Callable[[int], int]) -> Callable[[float, float], int]:
    def answer(spread: float, half_width: float) -> int:
        count = first
        while _t(count) * spread / math.sqrt(count) > half_width:
            count = step(count)
        return count

    return answer


NEEDED = Exercise(
    id="01.6",
    title="How many episodes do you need?",
    reference=episodes_needed,
    cases=lambda generator: [
        Case("a spread of 0.12, half width 0.01", (0.12, 0.01)),
        Case("a small spread: 0.02, half width 0.02", (0.02, 0.02)),
        Case("a spread of 0.1, half width 0.05", (0.1, 0.05)),
        Case("a spread of 0.0801, half width 0.0035", (0.0801, 0.0035)),
        Case("two episodes are enough: a spread of 0.005, half width 0.05", (0.005, 0.05)),
        Case("a spread of 0.11, half width 0.0021", (0.11, 0.0021)),
        Case("two episodes are enough: a spread of 0.003, half width 0.05", (0.003, 0.05)),
        Case("three episodes are enough: a spread of 0.005, half width 0.02", (0.005, 0.02)),
        Case("four episodes are enough: a spread of 0.009, half width 0.02", (0.009, 0.02)),
    ],
    right=(_needed_by_halving, _needed_table, _needed_for, _needed_from_normal),
    wrong=(
        Wrong(
            "1.96",
            lambda s, h: math.ceil((1.96 * s / h) ** 2),
            "1.96 stands for t, which is larger when episodes are few",
            "t depends on E: try E = 2, 3, ... until the half width is small enough.",
            also=(
                lambda s, h: max(2, math.ceil((1.96 * s / h) ** 2)),
                lambda s, h: math.ceil((1.959964 * s / h) ** 2),
                lambda s, h: max(2, math.ceil((1.959964 * s / h) ** 2)),
            ),
        ),
        Wrong(
            "1.96, not rounded up",
            lambda s, h: int((1.96 * s / h) ** 2),
            "1.96 stands for t, and the number is not rounded up",
            "t depends on E: try E = 2, 3, ... until the half width is small enough.",
            also=(
                lambda s, h: round((1.96 * s / h) ** 2),
                lambda s, h: max(2, int((1.96 * s / h) ** 2)),
                lambda s, h: max(2, round((1.96 * s / h) ** 2)),
            ),
        ),
        Wrong(
            "one correction",
            _fixed_t,
            "t is taken for the E that 1.96 gives and is then kept, although the new E has another t",
            "For every E that you try, compute its own t: E = 2, 3, ...",
        ),
        Wrong(
            "formula into itself",
            _needed_again(100, 20),
            "E is put into its own formula again and again, which can swing back and forth and never meet the smallest E",
            "Try E = 2, 3, ... in turn and stop at the first that is good enough.",
            also=(_needed_again(2, 20),),
        ),
        Wrong(
            "large steps",
            _needed_in_steps(2, lambda e: 2 * e),
            "the search moves in steps larger than 1, so that it jumps over the smallest E",
            "Go up by 1, or search back between the last two that you tried.",
            also=(_needed_in_steps(10, lambda e: e + 10), _needed_in_steps(2, lambda e: e + 10)),
        ),
        Wrong(
            "root of E-1",
            lambda s, h: next(e for e in range(2, 10**6) if _t(e) * s / math.sqrt(e - 1) <= h),
            "the spread is divided by the root of E-1",
            "The standard error of a mean of E episodes is s/√E; E-1 belongs into `stdtrit` only.",
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
            "the search starts at E = 1, for which there is no t: with 0 degrees of freedom it is not a number",
            "Start at E = 2: one episode says nothing about the spread.",
            also=(_needed_from_one,),
        ),
        Wrong(
            "starts too late",
            _needed_from(3),
            "the search starts above E = 2, so that a very small spread gets too many episodes",
            "Start at E = 2.",
            also=(_needed_from(5), _needed_from(7), _needed_from(10)),
        ),
        Wrong(
            "gives up early",
            _needed_from(2, 2999),
            "the search ends at a fixed number, although more episodes may be needed",
            "Go on until the half width is small enough, however long it takes.",
            also=(
                _needed_from(2, 999),
                _needed_from(2, 1000),
                _needed_from(2, 5000),
                _needed_from(2, 10_000),
                _needed_below(1000),
                _needed_below(10_000),
            ),
        ),
        Wrong(
            "E degrees of freedom",
            lambda s, h: next(e for e in range(2, 10**6) if float(stdtrit(e, 0.975)) * s / math.sqrt(e) <= h),
            "t has E degrees of freedom instead of E-1",
            "Write `stdtrit(E - 1, 0.975)`.",
        ),
        Wrong(
            "no square",
            lambda s, h: math.ceil(1.96 * s / h),
            "the ratio is not squared",
            "Half width falls with √E: half of it costs four times the episodes.",
            also=(lambda s, h: max(2, math.ceil(1.96 * s / h)),),
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
            also=(lambda s, h: max(2, math.ceil((s / h) ** 2)),),
        ),
        Wrong(
            "one-sided quantile",
            lambda s, h: next(e for e in range(2, 10**6) if float(stdtrit(e - 1, 0.95)) * s / math.sqrt(e) <= h),
            "the 0.95 quantile is used, which leaves 5 % on each side: a 90 % interval",
            "2.5 % on each side: the quantile is 0.975.",
        ),
        Wrong(
            "divided by E",
            lambda s, h: next(e for e in range(2, 10**6) if _t(e) * s / e <= h),
            "the spread is divided by E, not by its square root",
            "Write `math.sqrt(E)`: four times the episodes halve the interval.",
        ),
    ),
    hints=(
        "Half width falls when E grows: the first E that is good enough is the answer.",
        "Start at E = 2 and go up while t(E-1) · spread / √E is still larger than the wish.",
        "`while stdtrit(count - 1, 0.975) * spread / math.sqrt(count) > half_width: count += 1`",
    ),
)

# ---------------------------------------------------------------------------------------------- 01.7 peeking


def stops_at(differences: Tensor, looks: list[int]) -> int:
    """Returns the first of `looks` at which the interval of the first e differences leaves out 0; 0 if none does."""
    for count in looks:
        mean, half = mean_and_half_width(differences[:count])
        if abs(mean) > half:
            return count
    return 0


def _stops_vectorised(differences: Tensor, looks: list[int]) -> int:
    count = torch.arange(1, len(differences) + 1)
    mean = differences.cumsum(0) / count
    variance = (differences.square().cumsum(0) - count * mean.square()) / (count - 1).clamp_min(1)
    at = torch.tensor(looks)
    factor = torch.from_numpy(stdtrit(at.numpy() - 1.0, 0.975))
    apart = mean[at - 1].abs() > factor * (variance[at - 1] / at).sqrt()
    return looks[int(apart.int().argmax())] if apart.any() else 0


def _stops_next(differences: Tensor, looks: list[int]) -> int:
    def apart(values: Tensor) -> bool:
        return abs(float(values.mean())) / float(values.std()) * len(values) ** 0.5 > _t(len(values))

    return next((count for count in looks if apart(differences[:count])), 0)


def _stops_by_ends(differences: Tensor, looks: list[int]) -> int:
    found = []
    for count in looks:
        low, high = _ends(differences[:count])
        if low > 0 or high < 0:
            found.append(count)
    return min(found, default=0)


def _peeks(apart: Callable[[Tensor], bool], pick: Callable[[list[int], list[int]], int] | None = None) -> Callable:
    """Returns a peeker. apart: says of the first e differences whether to stop; pick: chooses from the looks that would stop."""

    def answer(differences: Tensor, looks: list[int]) -> int:
        found = [count for count in looks if apart(differences[:count])]
        return pick(found, looks) if pick else (found[0] if found else 0)

    return answer


def _apart(values: Tensor) -> bool:
    mean, half = mean_and_half_width(values)
    return abs(mean) > half


def _after_the_look(differences: Tensor, looks: list[int]) -> int:
    return next((count for count in looks if _apart(differences[count:])), 0)


def _strict(values: Tensor, looks: int) -> bool:
    """Separated at the level of Bonferroni."""
    factor = float(stdtrit(len(values) - 1, 1 - 0.025 / looks))
    return abs(float(values.mean())) > factor * _error(values)


def _error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values))


def _peek_cases(generator: Generator) -> list[Case]:
    def draw(count: int, mean: float) -> Tensor:
        return torch.randn(count, generator=generator, dtype=torch.float64) * 0.1 + mean

    few = torch.tensor([0.1, -0.2, 0.3, 0.0, 0.5, 0.4, 0.3, 0.5, 0.4, 0.6], dtype=torch.float64)
    fades = torch.cat([draw(30, 0.2), draw(60, -0.3), draw(60, 0.0)])
    late = torch.cat([draw(40, 0.0), draw(80, 0.1)])
    narrow = (
        0.1 * torch.randn(40, generator=torch.Generator().manual_seed(12)).double()
    )  # separates at 10 if s divides by E
    return [
        Case("the example of the text", (few, [2, 4, 6, 8, 10])),
        Case("a clear difference: the first look is enough", (draw(40, 1.0), [10, 20, 30, 40])),
        Case("a difference that is there first and fades later", (fades, [20, 60, 90, 150])),
        Case("a difference below 0", (-late, [10, 20, 60, 120])),
        Case("no difference, two looks", (torch.tensor([0.1, -0.1, 0.2, -0.2], dtype=torch.float64), [2, 4])),
        Case("only the last look separates", (late, [10, 120])),
        Case("more differences than looks use", (late, [10, 20])),
        Case("a mean just inside its interval at the second look", (narrow, [5, 10, 20, 40])),
        *[Case(f"no true difference, drawing {i}", (draw(60, 0.0), list(range(3, 61, 3)))) for i in range(8)],
    ]


PEEK = Exercise(
    id="01.7",
    title="The impatient evaluator",
    reference=stops_at,
    cases=_peek_cases,
    right=(_stops_vectorised, _stops_next, _stops_by_ends, _peeks(_apart)),
    wrong=(
        Wrong(
            "the last look only",
            lambda d, looks: looks[-1] if _apart(d[: looks[-1]]) else 0,
            "only the last look counts: nobody peeks",
            "Go through the looks in order, and stop at the first that separates.",
        ),
        Wrong(
            "the last separated look",
            _peeks(_apart, lambda found, looks: found[-1] if found else 0),
            "the last look that separates is returned, not the first",
            "Return as soon as a look separates.",
        ),
        Wrong(
            "number of the look",
            _peeks(_apart, lambda found, looks: looks.index(found[0]) if found else 0),
            "the number of the look is returned, not the number of episodes",
            "Return the entry of `looks` itself.",
            also=(_peeks(_apart, lambda found, looks: looks.index(found[0]) + 1 if found else 0),),
        ),
        Wrong(
            "never stops",
            _peeks(_apart, lambda found, looks: found[0] if found else looks[-1]),
            "the last look is returned when no look separates",
            "Return 0 then.",
        ),
        Wrong(
            "-1 for never",
            _peeks(_apart, lambda found, looks: found[0] if found else -1),
            "-1 is returned when no look separates",
            "Return 0 then.",
        ),
        Wrong(
            "return inside the loop",
            lambda d, looks: looks[0] if _apart(d[: looks[0]]) else 0,
            "only the first look is taken: `return 0` stands inside the loop, or only `looks[0]` is used",
            "Go through all of `looks`; `return 0` belongs below the loop.",
        ),
        Wrong(
            "turned round",
            _peeks(lambda v: not _apart(v)),
            "it stops where the interval contains 0",
            "Separated means that 0 is outside: the mean is farther from 0 than the half width.",
        ),
        Wrong(
            "one direction",
            _peeks(lambda v: mean_and_half_width(v)[0] > mean_and_half_width(v)[1]),
            "only positive differences count",
            "A difference below 0 separates as well: take `abs(mean)`.",
        ),
        Wrong(
            "the other direction",
            _peeks(lambda v: mean_and_half_width(v)[0] < -mean_and_half_width(v)[1]),
            "only negative differences count",
            "A difference above 0 separates as well: take `abs(mean)`.",
        ),
        Wrong(
            "Bonferroni",
            lambda d, looks: _peeks(lambda v: _strict(v, len(looks)))(d, looks),
            "the level is divided by the number of looks: that is Bonferroni, the cure, which she does not use",
            "She takes the plain 95 % interval at every look: your function of exercise 01.4.",
        ),
        Wrong(
            "every episode",
            lambda d, looks: next((e for e in range(2, len(d) + 1) if _apart(d[:e])), 0),
            "it looks after every episode, not only at those that `looks` lists",
            "Write `for e in looks:`.",
        ),
        Wrong(
            "all the differences",
            lambda d, looks: looks[0] if _apart(d) else 0,
            "every look sees all differences, those of later episodes too",
            "At a look of e episodes only `differences[:e]` are known.",
        ),
        Wrong(
            "one standard error",
            _peeks(lambda v: abs(float(v.mean())) > _error(v)),
            "one standard error stands where the half width belongs",
            "Use your function of exercise 01.4.",
        ),
        Wrong(
            "1.96",
            _peeks(lambda v: abs(float(v.mean())) > 1.96 * _error(v)),
            "1.96 stands where the t quantile belongs, which stops too early when episodes are few",
            "Use your function of exercise 01.4.",
        ),
        Wrong(
            "standard deviation",
            _peeks(lambda v: abs(float(v.mean())) > _t(len(v)) * float(v.std())),
            "the division by sqrt(e) is missing",
            "Use your function of exercise 01.4.",
        ),
        Wrong(
            "divisor E",
            _peeks(lambda v: abs(float(v.mean())) > _t(len(v)) * float(v.std(correction=0)) / math.sqrt(len(v))),
            "the standard deviation divides by e, not by e-1, which makes the interval too narrow",
            "Use your function of exercise 01.4.",
        ),
        Wrong(
            "one-sided quantile",
            _peeks(lambda v: abs(float(v.mean())) > float(stdtrit(len(v) - 1, 0.95)) * _error(v)),
            "the 0.95 quantile is used: the interval is one of 90 %",
            "Use your function of exercise 01.4: 2.5 % on each side is the 0.975 quantile.",
        ),
        Wrong(
            "half width without its minus",
            lambda d, looks: looks[0],
            "it stops at the first look, whatever it sees, as it does if the limit below 0 lacks its minus: `mean < half`",
            "Compare with the half width on both sides: `mean > half or mean < -half`, in short `abs(mean) > half`.",
        ),
        Wrong(
            "absolute differences",
            _peeks(lambda v: _apart(v.abs())),
            "the differences lose their sign before they are averaged, so that gains and losses do not cancel",
            "Average the differences first, then take `abs` of the mean.",
            also=(_peeks(lambda v: float(v.abs().mean()) > mean_and_half_width(v)[1]),),
        ),
        Wrong(
            "what comes after the look",
            _after_the_look,
            "a look sees the differences from e on, those that come later",
            "`differences[:e]` are the first e.",
            also=(lambda d, looks: next((e for e in looks if len(d) > e + 1 and _apart(d[e:])), 0),),
        ),
        Wrong(
            "any mean above 0",
            _peeks(lambda v: abs(float(v.mean())) > 0),
            "it stops as soon as the mean is not 0, without an interval",
            "Compare the mean with the half width.",
        ),
        Wrong(
            "one episode too many",
            lambda d, looks: next((e for e in looks if _apart(d[: e + 1])), 0),
            "a look of e episodes sees e + 1",
            "`differences[:e]` are the first e.",
        ),
        Wrong(
            "blocks",
            lambda d, looks: next(
                (e for b, e in zip([0, *looks], looks, strict=False) if e - b > 1 and _apart(d[b:e])), 0
            ),
            "every look sees only the episodes that are new since the look before",
            "A look of e episodes sees all of the first e: `differences[:e]`.",
        ),
        Wrong(
            "a truth value",
            lambda d, looks: any(_apart(d[:e]) for e in looks),
            "True or False is returned, not the number of episodes",
            "Return the look at which it stops, and 0 if it never does.",
        ),
    ),
    hints=(
        "Play the impatient evaluator: what does she know after the first look, and when does she stop?",
        "For each e in `looks` take your 01.4 of `differences[:e]`. 0 lies outside when abs(mean) is above the half width.",
        "`for e in looks:` `mean, half = mean_and_half_width(differences[:e])`; `if abs(mean) > half: return e`; after the loop "
        "`return 0`.",
    ),
)

EXERCISES = (SLOTS, EPISODE, BATCH, INTERVAL, LEAK, NEEDED, PEEK)
