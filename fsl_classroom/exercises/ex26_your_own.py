"""Exercises of lesson 26: a split by class, a sober choice, the number of episodes, a report card, leaks in a report.

Cases: every exercise builds its own. 26.5 faces sound reports of several kinds and reports with faults that are total, partial
(one class, one entry), small (one episode short) and hidden (a name in another spelling).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Wrong
from fsl_course.evaluation import mean_and_ci95

Split = dict[str, list[str]]
Fractions = tuple[float, float, float]

# ---------------------------------------------------------------------------------------------- 26.1 split by class


def split_by_class(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
    """Returns sorted lists of classes for train, val and test, and of those with fewer than `least` examples, aside."""
    names = sorted(name for name, count in counts.items() if count >= least)
    random.Random(seed).shuffle(names)
    a = round(fractions[0] * len(names))
    b = a + round(fractions[1] * len(names))
    parts = {"train": names[:a], "val": names[a:b], "test": names[b:]}
    parts["aside"] = [name for name in counts if counts[name] < least]
    return {part: sorted(found) for part, found in parts.items()}


def _split_by_pops(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
    left = [name for name in sorted(counts) if counts[name] >= least]
    random.Random(seed).shuffle(left)
    total, found = len(left), {"aside": sorted(set(counts) - set(left))}
    for part, fraction in zip(("train", "val"), fractions, strict=False):
        found[part] = sorted(left.pop(0) for _ in range(round(fraction * total)))
    return found | {"test": sorted(left)}


def _split_by_rank(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
    names = sorted(filter(lambda name: counts[name] >= least, counts))
    random.Random(seed).shuffle(names)
    sizes = [round(f * len(names)) for f in fractions[:2]]
    found: Split = {"train": [], "val": [], "test": [], "aside": []}
    for rank, name in enumerate(names):
        found["train" if rank < sizes[0] else "val" if rank < sum(sizes) else "test"].append(name)
    found["aside"] += [name for name, count in counts.items() if not count >= least]
    return {part: sorted(members) for part, members in found.items()}


def _split_by_iterator(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
    aside = {name for name, count in counts.items() if count < least}
    names = sorted(counts.keys() - aside)
    random.Random(seed).shuffle(names)
    order, m = iter(names), len(names)
    train = [next(order) for _ in range(round(fractions[0] * m))]
    val = [next(order) for _ in range(round(fractions[1] * m))]
    return {"aside": sorted(aside), "test": sorted(order), "val": sorted(val), "train": sorted(train)}


def _split_by_drawn(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
    small, large = [], []
    for name in sorted(counts):
        (small if counts[name] < least else large).append(name)
    generator = random.Random()
    generator.seed(seed)
    generator.shuffle(large)
    first, second = (round(f * len(large)) for f in fractions[:2])
    train, rest = large[:first], large[first:]
    return {"train": sorted(train), "val": sorted(rest[:second]), "test": sorted(rest[second:]), "aside": small}


def _splits(
    keep: Callable[[int, int], bool] = lambda count, least: count >= least,
    order: Callable[[list[str], int], list[str]] | None = None,
    sizes: Callable[[Fractions, int], tuple[int, int]] = lambda f, m: (round(f[0] * m), round(f[1] * m)),
    finish: Callable[[list[str]], list[str]] = sorted,
    change: Callable[[Split, list[str]], Split] = lambda parts, names: parts,
) -> Callable:
    """Returns a split with parts of it exchanged."""

    def shuffled(names: list[str], seed: int) -> list[str]:
        names = sorted(names)
        random.Random(seed).shuffle(names)
        return names

    def answer(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
        names = (order or shuffled)([name for name, count in counts.items() if keep(count, least)], seed)
        a, b = sizes(fractions, len(names))
        parts = {"train": names[:a], "val": names[a : a + b], "test": names[a + b :]}
        parts["aside"] = [name for name, count in counts.items() if not keep(count, least)]
        return {part: finish(found) for part, found in change(parts, names).items()}

    return answer


def _shuffled_as_they_come(names: list[str], seed: int) -> list[str]:
    names = list(names)
    random.Random(seed).shuffle(names)
    return names


def _of_all(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
    """Takes the fractions of all classes, those set aside included."""
    return _splits(sizes=lambda f, m: (round(f[0] * len(counts)), round(f[1] * len(counts))))(
        counts, least, fractions, seed
    )


def _by_size(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
    """Sorts the classes by their sizes before the shuffle."""
    return _splits(order=lambda names, seed: _shuffled_as_they_come(sorted(names, key=lambda n: counts[n]), seed))(
        counts, least, fractions, seed
    )


def _second_cut_from_the_start(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
    names = sorted(name for name in counts if counts[name] >= least)
    random.Random(seed).shuffle(names)
    a, b = (round(f * len(names)) for f in fractions[:2])
    parts = {"train": names[:a], "val": names[a:b], "test": names[b:], "aside": set(counts) - set(names)}
    return {part: sorted(found) for part, found in parts.items()}


def _filtered_late(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
    """Splits all classes and takes the small ones out afterwards."""
    parts = _splits(keep=lambda count, least: True)(counts, least, fractions, seed)
    aside = sorted(name for name, count in counts.items() if count < least)
    return {part: [name for name in found if name not in aside] for part, found in parts.items()} | {"aside": aside}


def _shuffled_with_small(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
    names = _shuffled_as_they_come(sorted(counts), seed)
    return _splits(order=lambda kept, seed: [name for name in names if name in kept])(counts, least, fractions, seed)


def _lost_rest(counts: dict[str, int], least: int, fractions: Fractions, seed: int) -> Split:
    parts = _splits(finish=list)(counts, least, fractions, seed)
    total = sum(len(parts[part]) for part in ("train", "val", "test"))
    parts["test"] = parts["test"][: round(fractions[2] * total)]
    return {part: sorted(found) for part, found in parts.items()}


def _with(**moved: str) -> Callable[[Split, list[str]], Split]:
    """Returns a change that takes parts from other parts, e.g. val="test", test="val"."""
    return lambda parts, names: parts | {part: parts[source] for part, source in moved.items()}


def _split_cases(generator: Generator) -> list[Case]:
    words = [
        "tree", "anchor", "bell", "moon", "cup", "star", "key", "fish", "Bus", "lamp", "ear", "ring", "dog", "ship", "hat",
        "nut", "pin", "sun", "van", "web", "yak", "zip", "oak", "ink", "jug",
    ]  # fmt: skip

    def drawn(total: int, small: int, least: int, fractions: Fractions, seed: int) -> tuple[Any, ...]:
        names = [words[i] for i in torch.randperm(len(words), generator=generator)[:total].tolist()]
        sizes = torch.randint(least, least + 9, (total,), generator=generator).tolist()
        sizes[total - 1] = least  # just enough
        for i in range(small):
            sizes[2 * i] = int(torch.randint(1, least, (1,), generator=generator))
        return dict(zip(names, sizes, strict=True)), least, fractions, seed

    usual = (0.4, 0.3, 0.3)
    return [
        Case("eight classes, one of them too small", drawn(8, 1, 10, usual, 0)),
        Case("11 classes, two of them too small, another seed", drawn(11, 2, 6, usual, 5)),
        Case("all classes are large enough", drawn(9, 0, 5, usual, 1)),
        Case("24 classes, most of them for training", drawn(24, 3, 15, (0.6, 0.2, 0.2), 2)),
        Case("no class for training", drawn(7, 1, 4, (0.0, 0.5, 0.5), 3)),
        Case("13 classes, three of them too small", drawn(13, 3, 8, (0.34, 0.33, 0.33), 11)),
    ]


SPLIT = Exercise(
    id="26.1",
    title="Split by class",
    reference=split_by_class,
    cases=_split_cases,
    right=(_split_by_pops, _split_by_rank, _split_by_iterator, _split_by_drawn),
    wrong=(
        Wrong(
            "nothing set aside",
            _splits(keep=lambda count, least: True),
            "classes with too few examples are split as well",
            "Only names with `counts[name] >= least` are split; the others belong to aside.",
        ),
        Wrong(
            "just enough is too few",
            _splits(keep=lambda count, least: count > least),
            "a class with exactly `least` examples is set aside",
            "Fewer than `least` is too few: keep `count >= least`.",
        ),
        Wrong(
            "too small is kept",
            _splits(keep=lambda count, least: count < least),
            "the classes that are too small are split, and the others set aside",
            "Keep `count >= least`.",
            also=(_splits(keep=lambda count, least: count <= least),),
        ),
        Wrong(
            "never sorted",
            _splits(order=_shuffled_as_they_come),
            "the names are shuffled in the order in which they come, so that the split depends on a disk",
            "Sort the names before the shuffle.",
            also=(
                _splits(order=lambda names, seed: _shuffled_as_they_come(sorted(names, reverse=True), seed)),
                _splits(order=lambda names, seed: _shuffled_as_they_come(sorted(names, key=str.lower), seed)),
                _by_size,
            ),
        ),
        Wrong(
            "never shuffled",
            _splits(order=lambda names, seed: sorted(names)),
            "the names are cut in alphabetical order, without a shuffle",
            "`random.Random(seed).shuffle(names)` after the sort; it changes the list in place.",
            also=(_splits(order=lambda names, seed: list(names)),),
        ),
        Wrong(
            "another shuffle",
            _splits(order=lambda names, seed: random.Random(seed).sample(sorted(names), len(names))),
            "another random order is taken than that of `random.Random(seed).shuffle`",
            "`names = sorted(...)`, then `random.Random(seed).shuffle(names)`.",
            also=(
                _splits(
                    order=lambda names, seed: [
                        sorted(names)[i]
                        for i in torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
                    ]
                ),
            ),
        ),
        Wrong(
            "one seed for all",
            _splits(order=lambda names, seed: _shuffled_as_they_come(sorted(names), 0)),
            "the seed is always the same, whatever is asked for",
            "`random.Random(seed)`.",
        ),
        Wrong(
            "rounded down",
            _splits(sizes=lambda f, m: (int(f[0] * m), int(f[1] * m))),
            "the sizes are rounded down",
            "`round(fractions[0] * M)`.",
            also=(_splits(sizes=lambda f, m: (int(f[0] * m), int((f[0] + f[1]) * m) - int(f[0] * m))),),
        ),
        Wrong(
            "rounded up",
            _splits(sizes=lambda f, m: (math.ceil(f[0] * m), math.ceil(f[1] * m))),
            "the sizes are rounded up",
            "`round(fractions[0] * M)`.",
        ),
        Wrong(
            "shuffled before the small ones go",
            _shuffled_with_small,
            "all names are shuffled, and the small classes leave only afterwards, so that the others come in another order",
            "Take the small classes out first; then sort and shuffle what is left.",
        ),
        Wrong(
            "borders rounded",
            _splits(sizes=lambda f, m: (round(f[0] * m), round((f[0] + f[1]) * m) - round(f[0] * m))),
            "the second *border* is rounded and not the number of validation classes",
            "`b = a + round(fractions[1] * M)`.",
        ),
        Wrong(
            "the rest is lost",
            _lost_rest,
            "the number of test classes is rounded, too, and what is left over gets lost or is missing",
            "The test takes *all others*: `names[b:]`.",
        ),
        Wrong(
            "fractions of all",
            _of_all,
            "the fractions are taken of all classes, those set aside included",
            "M is the number of the names that are left: `len(names)`.",
        ),
        Wrong(
            "set aside too late",
            _filtered_late,
            "all classes are shuffled and cut, and the small ones are taken out afterwards",
            "Take them out first; then sort, shuffle and cut.",
        ),
        Wrong(
            "val and test exchanged",
            _splits(change=_with(val="test", test="val")),
            "validation and test have changed places",
            "Training first, then validation, then the test.",
            also=(_splits(change=_with(train="test", test="train")),),
        ),
        Wrong(
            "validation from the start",
            _splits(change=lambda parts, names: parts | {"val": names[: len(parts["val"])]}),
            "the validation classes are cut from the start of the list again: they are training classes",
            "Begin where training ends: `names[a:b]`.",
            also=(_splits(change=lambda parts, names: parts | {"test": names[len(parts["train"]) :]}),),
        ),
        Wrong(
            "second cut from the start",
            _second_cut_from_the_start,
            "the second cut is counted from the start of the list and not from the first cut",
            "`b = a + round(fractions[1] * M)`.",
        ),
        Wrong(
            "shuffle returns nothing",
            lambda counts, least, fractions, seed: len(
                random.Random(seed).shuffle(sorted(name for name in counts if counts[name] >= least))  # type: ignore[arg-type]
            ),
            "the result of `shuffle` is kept, and that is None",
            "`shuffle` changes the list in place: keep the list, and call it on a line of its own.",
            also=(
                lambda counts, least, fractions, seed: random.Random(seed).shuffle(sorted(counts))[: len(counts)],  # type: ignore[index]
            ),
        ),
        Wrong(
            "one lost at a border",
            _splits(change=lambda parts, names: parts | {"val": parts["val"][1:]}),
            "a class at a border is in no part",
            "`names[:a]`, `names[a:b]`, `names[b:]`: a slice ends *before* its second number.",
            also=(_splits(change=lambda parts, names: parts | {"test": parts["test"][1:]}),),
        ),
        Wrong(
            "aside is thrown away",
            _splits(change=lambda parts, names: parts | {"aside": []}),
            "the classes that are too small are in no list",
            'List them under "aside".',
        ),
        Wrong(
            "aside joins a part",
            _splits(change=lambda parts, names: parts | {"train": parts["train"] + parts["aside"]}),
            "the classes that are too small stand under aside and in another list as well",
            "A class set aside is in no other list.",
            also=(
                _splits(change=lambda parts, names: parts | {"test": parts["test"] + parts["aside"]}),
                _splits(
                    change=lambda parts, names: parts | {"train": parts["train"] + parts["aside"], "aside": []},
                ),
                _splits(change=lambda parts, names: parts | {"test": parts["test"] + parts["aside"], "aside": []}),
            ),
        ),
        Wrong(
            "not sorted",
            _splits(finish=list),
            "a list comes in the order of the shuffle, or in that of `counts`, and is not sorted",
            "Return every list sorted.",
            also=(
                lambda counts, least, fractions, seed: (
                    _splits(finish=list)(counts, least, fractions, seed)
                    | {"aside": split_by_class(counts, least, fractions, seed)["aside"]}
                ),
                lambda counts, least, fractions, seed: (
                    split_by_class(counts, least, fractions, seed)
                    | {"aside": _splits(finish=list)(counts, least, fractions, seed)["aside"]}
                ),
            ),
        ),
        Wrong(
            "fixed fractions",
            lambda counts, least, fractions, seed: split_by_class(counts, least, (0.4, 0.3, 0.3), seed),
            "the fractions are always 0.4, 0.3 and 0.3",
            "Use `fractions`.",
        ),
        Wrong(
            "numbers of classes",
            lambda counts, least, fractions, seed: {
                part: [len(found)] for part, found in split_by_class(counts, least, fractions, seed).items()
            },
            "numbers of classes are returned and not their names",
            "Return lists of names.",
            also=(
                lambda counts, least, fractions, seed: {
                    part: len(found) for part, found in split_by_class(counts, least, fractions, seed).items()
                },
            ),
        ),
    ),
    hints=(
        "Which classes can deal an episode at all? And what must not decide who comes into the test?",
        "Filter, sort, shuffle with the seed, cut twice. The second cut lies `round(fractions[1] * M)` behind the first.",
        "`names = sorted(n for n, c in counts.items() if c >= least)`, `random.Random(seed).shuffle(names)`, "
        "`names[:a]`, `names[a:b]`, `names[b:]`",
    ),
)


# ---------------------------------------------------------------------------------------------- 26.2 choose


def choose(accuracies: Tensor) -> int:
    """Returns the index of the first row within the paired 95 % interval of the best one. accuracies [M, E]."""
    best = accuracies[accuracies.mean(1).argmax()]
    for index, row in enumerate(accuracies):
        gap, half = mean_and_ci95(best - row)
        if gap <= half:
            return index
    raise AssertionError("the best row itself is always good enough")


def _t_factor(count: int) -> float:
    """Returns half width / (deviation / root of count) of `mean_and_ci95`."""
    ramp = torch.arange(count, dtype=torch.float64)
    return mean_and_ci95(ramp)[1] / float(ramp.std(correction=1)) * math.sqrt(count)


def _choose_at_once(accuracies: Tensor) -> int:
    gap = accuracies[accuracies.mean(1).argmax()] - accuracies
    count = gap.shape[1]
    half = _t_factor(count) * gap.std(1, correction=1) / math.sqrt(count)
    return int((gap.mean(1) <= half).nonzero()[0])


def _choose_by_next(accuracies: Tensor) -> int:
    top = int(torch.argmax(accuracies.mean(dim=1)))
    return next(i for i in range(len(accuracies)) if _holds_zero(accuracies[top] - accuracies[i]))


def _holds_zero(gap: Tensor) -> bool:
    mean, half = mean_and_ci95(gap)
    return mean - half <= 0 <= mean + half


def _choose_from_below(accuracies: Tensor) -> int:
    means = [float(row.mean()) for row in accuracies]
    best, found = means.index(max(means)), 0
    while (
        mean_and_ci95(accuracies[best] - accuracies[found])[0] > mean_and_ci95(accuracies[best] - accuracies[found])[1]
    ):
        found += 1
    return found


def _choose_backwards(accuracies: Tensor) -> int:
    best, found = accuracies[accuracies.mean(1).max(0).indices], -1
    for index in reversed(range(accuracies.shape[0])):
        mean, half = mean_and_ci95(accuracies[index] - best)
        if mean + half >= 0:
            found = index
    return found


def _first(good: Callable[[Tensor, Tensor], bool], otherwise: int | None = None) -> Callable[[Tensor], int | None]:
    """Returns the choice of the first row for which good(best, row)."""

    def answer(accuracies: Tensor) -> int | None:
        best = accuracies[accuracies.mean(1).argmax()]
        return next((i for i, row in enumerate(accuracies) if good(best, row)), otherwise)

    return answer


def _last(accuracies: Tensor) -> int:
    best = accuracies[accuracies.mean(1).argmax()]
    return max(i for i, row in enumerate(accuracies) if _holds_zero(best - row))


def _first_after_first(accuracies: Tensor) -> int:
    """Climbs from the simplest row, and takes each that is clearly better than the one held."""
    held = 0
    for index, row in enumerate(accuracies):
        gap, half = mean_and_ci95(row - accuracies[held])
        if gap > half:
            held = index
    return held


def _deviation(gap: Tensor) -> float:
    return float(gap.std(correction=1))


def _choose_cases(generator: Generator) -> list[Case]:
    def drawn(means: Sequence[float], episodes: int, own: float, shared: float = 0.1) -> tuple[Tensor]:
        """Rows with these means; `shared` is the difficulty of the episodes, `own` the noise of each row."""
        level = shared * torch.randn(episodes, generator=generator, dtype=torch.float64)
        noise = own * torch.randn(len(means), episodes, generator=generator, dtype=torch.float64)
        level, noise = level - level.mean(), noise - noise.mean(1, keepdim=True)
        noise = own * noise / noise.std(1, keepdim=True)
        return (0.6 + torch.tensor(means, dtype=torch.float64)[:, None] + level + noise,)

    def behind(episodes: int, errors: float) -> tuple[Tensor]:
        """Three rows; the second is behind the third by so many standard errors of their difference."""
        first, best = drawn([0.0, 0.3], episodes, 0.04)[0]
        gap = torch.randn(episodes, generator=generator, dtype=torch.float64)
        gap = (gap - gap.mean()) / gap.std()
        return (torch.stack([first, best - 0.05 * (gap + errors / math.sqrt(episodes)), best]),)

    lucky = drawn([0.0, 0.1, 0.1], 40, 0.02)[0]
    lucky[0, 7] += 0.4
    equal = drawn([0.0, 0.1, 0.1], 20, 0.03)[0]
    equal[2] = equal[1]
    level = torch.arange(2, 10, dtype=torch.float64) / 16
    tied = torch.stack([level, level + 1 / 16, level[[7, 0, 5, 2, 6, 1, 4, 3]] + 1 / 16])
    return [
        Case("the second row cannot be told from the best, the fourth", drawn([0.0, 0.08, 0.02, 0.085], 50, 0.02)),
        Case("episodes differ much, rows little: only pairing sees the gap", drawn([0.0, 0.03, 0.06], 40, 0.02, 0.2)),
        Case("the best row is far ahead", drawn([0.0, 0.1, 0.3, 0.05], 30, 0.03)),
        Case("the simplest row is within the interval", drawn([0.095, 0.1, 0.05], 60, 0.05)),
        Case("six episodes: the interval is wide", drawn([0.0, 0.031, 0.0625, 0.07], 6, 0.03, 0.05)),
        Case("two rows are equal and best", (equal,)),
        Case("two different rows are equally good, and best", (tied,)),
        Case("the best row stands in the middle", drawn([0.02, 0.07, 0.08, 0.076, 0.03], 100, 0.03)),
        Case("the gap is one and a half standard errors", behind(100, 1.5)),
        Case("six episodes, and a gap of 2.2 standard errors: Student's t", behind(6, 2.2)),
        Case("a hundred episodes, and a gap of 1.97 standard errors", behind(100, 1.97)),
        Case("two rows of independent noise", drawn([0.0, 0.066, 0.1], 50, 0.1, 0.0)),
        Case("the worst row is not the first", drawn([0.05, 0.1, 0.0, 0.101], 50, 0.02)),
        Case("a poor row has the best single episode", (lucky,)),
        Case("a single row", drawn([0.3], 12, 0.05)),
        Case("accuracies of 5 episodes with a few queries", ((drawn([0.0, 0.2, 0.26], 5, 0.1)[0] * 10).round() / 10,)),
    ]


CHOOSE = Exercise(
    id="26.2",
    title="Choose",
    reference=choose,
    cases=_choose_cases,
    right=(_choose_at_once, _choose_by_next, _choose_from_below, _choose_backwards),
    wrong=(
        Wrong(
            "the best",
            lambda a: int(a.mean(1).argmax()),
            "the row with the highest mean is taken, however small its lead is",
            "Walk from the first row on, and stop at one that cannot be told from the best.",
        ),
        Wrong(
            "always the first",
            lambda a: 0,
            "the first row is taken every time: the difference is taken the wrong way round, or never compared",
            "`best - row`, and its mean must not exceed its half width.",
        ),
        Wrong(
            "overlapping intervals",
            _first(lambda b, r: mean_and_ci95(b)[0] - mean_and_ci95(b)[1] <= mean_and_ci95(r)[0] + mean_and_ci95(r)[1]),
            "the intervals of two rows are compared, and not the interval of their difference: they overlap far too often",
            "Pair by episode: `mean_and_ci95(best - row)`.",
            also=(
                _first(lambda b, r: b.mean() - r.mean() <= mean_and_ci95(b)[1]),
                _first(lambda b, r: b.mean() - r.mean() <= mean_and_ci95(r)[1]),
                _first(lambda b, r: b.mean() - r.mean() <= math.hypot(mean_and_ci95(b)[1], mean_and_ci95(r)[1])),
            ),
        ),
        Wrong(
            "one standard error",
            _first(lambda b, r: float((b - r).mean()) <= _deviation(b - r) / math.sqrt(len(r))),
            "one standard error stands where the half width of the 95 % interval belongs",
            "`gap, half = mean_and_ci95(best - row)`.",
            also=(_first(lambda b, r: float((b - r).mean()) <= _deviation(b) / math.sqrt(len(r))),),
        ),
        Wrong(
            "deviation",
            _first(lambda b, r: float((b - r).mean()) <= 1.96 * _deviation(b - r)),
            "the spread of single episodes is taken, never divided by the root of their number",
            "The half width of the *mean*: `mean_and_ci95`.",
            also=(
                _first(lambda b, r: float((b - r).mean()) <= _deviation(b - r)),
                _first(lambda b, r: float((b - r).mean()) <= 1.96 * _deviation(b)),
                _first(lambda b, r: float((b - r).mean()) <= _deviation(b)),
            ),
        ),
        Wrong(
            "normal factor",
            _first(lambda b, r: float((b - r).mean()) <= 1.96 * _deviation(b - r) / math.sqrt(len(r))),
            "1.96 is taken where a few episodes need Student's t",
            "`mean_and_ci95` knows the factor.",
            also=(_first(lambda b, r: float((b - r).mean()) <= 2 * _deviation(b - r) / math.sqrt(len(r))),),
        ),
        Wrong(
            "the most complex",
            _last,
            "the *last* row within the interval is taken: the most complex one",
            "Rows come simplest first: return the first index.",
        ),
        Wrong(
            "climbing",
            _first_after_first,
            "each row is compared with the one before it, or with the one held so far, and not with the best",
            "Find the best row first, and compare every row with it.",
            also=(
                lambda a: next(
                    (i for i in range(1, len(a)) if mean_and_ci95(a[i] - a[0])[0] > mean_and_ci95(a[i] - a[0])[1]), 0
                ),
                lambda a: max([i for i in range(1, len(a)) if not _holds_zero(a[i] - a[i - 1])], default=0),
            ),
        ),
        Wrong(
            "edge left out",
            _first(lambda b, r: mean_and_ci95(b - r)[0] < mean_and_ci95(b - r)[1]),
            "the edge of the interval is left out, so that the best row itself is not good enough",
            "`gap <= half`: the best row minus itself is 0 ± 0.",
            also=(
                _first(lambda b, r: mean_and_ci95(b - r)[0] < mean_and_ci95(b - r)[1], -1),
                _first(lambda b, r: mean_and_ci95(b - r)[0] < mean_and_ci95(b - r)[1], 0),
            ),
        ),
        Wrong(
            "clearly worse",
            _first(lambda b, r: not _holds_zero(b - r), 0),
            "the first row is taken whose difference does *not* hold 0",
            "Good enough is a row whose interval holds 0.",
            also=(
                _first(lambda b, r: not _holds_zero(b - r)),
                _first(lambda b, r: not _holds_zero(b - r), -1),
                lambda a: _first(lambda b, r: not _holds_zero(b - r), int(a.mean(1).argmax()))(a),
            ),
        ),
        Wrong(
            "the worst",
            lambda a: int(a.mean(1).argmin()),
            "the row with the lowest mean is taken for the best",
            "`accuracies.mean(1).argmax()`.",
        ),
        Wrong(
            "the last of equals",
            lambda a: next(
                i for i, r in enumerate(a) if _holds_zero(a[max(range(len(a)), key=lambda k: (a[k].mean(), k))] - r)
            ),
            "of several rows with the largest mean the last one is taken for the best",
            "`argmax` gives the first: `accuracies.mean(1).argmax()`.",
        ),
        Wrong(
            "averaged over the rows",
            lambda a: next(i for i, r in enumerate(a) if _holds_zero(a[int(a.mean(0).argmax()) % len(a)] - r)),
            "the accuracies are averaged over the settings, and an episode is taken for the best row",
            "Average over episodes, which are the columns: `accuracies.mean(1)`.",
            also=(lambda a: int(a.mean(0).argmax()),),
        ),
        Wrong(
            "most episodes won",
            lambda a: int(a.argmax(0).mode().values),
            "the row that wins most single episodes is taken",
            "Average over episodes first, and compare differences with their interval.",
        ),
        Wrong(
            "one lucky episode",
            lambda a: next(i for i, r in enumerate(a) if _holds_zero(a[a.amax(1).argmax()] - r)),
            "the best row is the one with the best single episode",
            "Average over episodes: `accuracies.mean(1)`.",
        ),
        Wrong(
            "an accuracy",
            lambda a: float(a[choose(a)].mean()),
            "the accuracy is returned and not the index",
            "Return the number of the row, an int.",
            also=(
                lambda a: a[choose(a)],
                lambda a: a[choose(a)].mean(),
                lambda a: float(a.mean(1).max()),
                lambda a: a.mean(1).max(),
            ),
        ),
        Wrong(
            "a tensor",
            lambda a: torch.tensor(choose(a)),
            "the index is returned as a tensor",
            "`int(...)` makes a number of it.",
        ),
        Wrong(
            "absolute differences",
            _first(lambda b, r: mean_and_ci95((b - r).abs())[0] <= mean_and_ci95((b - r).abs())[1]),
            "the differences lose their signs before they are averaged",
            "`mean_and_ci95(best - row)`: gains and losses must cancel.",
        ),
        Wrong(
            "from the end",
            lambda a: max(
                (
                    i + 1
                    for i, row in enumerate(a)
                    if not _holds_zero(a[a.mean(1).argmax()] - row) and i < a.mean(1).argmax()
                ),
                default=0,
            ),
            "the walk goes from the best row towards the first, and ends at the first row that is clearly worse",
            "A simpler row behind it may be good enough: walk from the first row on.",
            also=(
                lambda a: max(
                    (i + 1 for i, row in enumerate(a) if not _holds_zero(a[a.mean(1).argmax()] - row)), default=0
                ),
            ),
        ),
        Wrong(
            "without the best",
            lambda a: next(
                (i for i, r in enumerate(a) if i != a.mean(1).argmax() and _holds_zero(a[a.mean(1).argmax()] - r)),
                int(a.mean(1).argmax()),
            ),
            "the best row is left out of the walk, so that a row behind it is taken",
            "The best row may be the answer: it stands in the walk like all others.",
        ),
    ),
    hints=(
        "Which row is best on average? And which rows could be just as good, for all that these episodes tell?",
        "For every row, simplest first: the interval of `best - row`. The first one that holds 0 is the answer.",
        "`best = accuracies[accuracies.mean(1).argmax()]`, then for each row `gap, half = mean_and_ci95(best - row)` and "
        "`if gap <= half: return index`",
    ),
)


# ---------------------------------------------------------------------------------------------- 26.3 how many episodes


def episodes_needed(pilot: Tensor, half: float) -> int:
    """Returns the smallest number of episodes with a half width of at most `half`. pilot [P]: accuracies of a few episodes."""
    sigma = float(pilot.std(correction=1))
    return max(2, math.ceil((1.96 * sigma / half) ** 2))


def _needed_by_variance(pilot: Tensor, half: float) -> int:
    found = math.ceil(1.96**2 * pilot.var(correction=1).item() / half**2)
    return 2 if found < 2 else found


def _needed_by_numpy(pilot: Tensor, half: float) -> int:
    return int(max(2.0, -((-((1.96 * pilot.numpy().std(ddof=1) / half) ** 2)) // 1)))


def _needed_by_torch(pilot: Tensor, half: float) -> int:
    return int((1.96 * pilot.std() / half).square().ceil().clamp_min(2))


def _needed_by_hand(pilot: Tensor, half: float) -> int:
    values = pilot.tolist()
    mean = sum(values) / len(values)
    sigma = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    count = int((1.96 * sigma / half) ** 2)
    while count < 2 or 1.96 * sigma / math.sqrt(count) > half:
        count += 1
    return count


def _needed(
    sigma: Callable[[Tensor], Tensor] = lambda p: p.std(correction=1),
    factor: float = 1.96,
    least: float = 2,
    whole: Callable[[float], int] = math.ceil,
) -> Callable[[Tensor, float], int]:
    return lambda pilot, half: max(least, whole((factor * float(sigma(pilot)) / half) ** 2))


def _needed_cases(generator: Generator) -> list[Case]:
    def drawn(count: int, sigma: float, half: float, middle: float = 0.7) -> tuple[Tensor, float]:
        noise = torch.randn(count, generator=generator, dtype=torch.float64)
        return middle + sigma * (noise - noise.mean()) / noise.std(), half

    return [
        Case("the example on paper: a deviation of 0.1, half width 0.01", drawn(50, 0.1, 0.01)),
        Case("40 episodes, half width 0.02", drawn(40, 0.083, 0.02)),
        Case("8 episodes", drawn(8, 0.12, 0.015)),
        Case("a small deviation: fewer than the pilot", drawn(60, 0.021, 0.013)),
        Case("one point of a percent", drawn(30, 0.07, 0.0033, 0.9)),
        Case("a half width that one episode would do for", drawn(12, 0.05, 0.2)),
        Case("all episodes equal", (torch.full((5,), 0.8, dtype=torch.float64), 0.01)),
        Case("a deviation above the mean", drawn(15, 0.3, 0.05, 0.2)),
    ]


NEEDED = Exercise(
    id="26.3",
    title="How many episodes?",
    reference=episodes_needed,
    cases=_needed_cases,
    right=(_needed_by_variance, _needed_by_numpy, _needed_by_torch, _needed_by_hand),
    wrong=(
        Wrong(
            "not squared",
            lambda p, h: max(2, math.ceil(1.96 * float(p.std()) / h)),
            "the quotient is not squared: half the width needs *four* times the episodes",
            "E = (1.96 s / h)².",
            also=(
                lambda p, h: max(2, math.ceil(math.sqrt(1.96 * float(p.std()) / h))),
                lambda p, h: max(2, math.ceil(1.96 * float(p.std()) ** 2 / h**2)),
                lambda p, h: max(2, math.ceil(1.96**2 * float(p.std()) / h**2)),
                lambda p, h: max(2, math.ceil((1.96 * float(p.std())) ** 2 / h)),
                lambda p, h: max(2, math.ceil(1.96 * float(p.std()) / h**2)),
            ),
        ),
        Wrong(
            "rounded down",
            _needed(whole=int),
            "the number is rounded down, and the interval comes out a little too wide",
            "`math.ceil`.",
            also=(_needed(whole=round), _needed(whole=lambda x: int(x) + 2)),
        ),
        Wrong(
            "one without the other",
            _needed(sigma=lambda p: p.std(correction=0)),
            "the deviation is divided by P and not by P - 1",
            "`pilot.std(correction=1)`; NumPy divides by P unless you say `ddof=1`.",
        ),
        Wrong(
            "variance",
            _needed(sigma=lambda p: p.var(correction=1)),
            "the variance stands where the deviation belongs",
            "`pilot.std()`, or do not square it again.",
            also=(_needed(sigma=lambda p: p.var(correction=0)),),
        ),
        Wrong(
            "no factor",
            _needed(factor=1.0),
            "the factor 1.96 is missing, so that this is the number for one standard error",
            "A 95 % interval has the half width 1.96 s / √E.",
        ),
        Wrong(
            "another factor",
            _needed(factor=2.0),
            "another factor than 1.96 is taken",
            "Equation (2) has 1.96.",
            also=(
                _needed(factor=1.645),
                _needed(factor=1.64),
                _needed(factor=2.58),
                _needed(factor=2.576),
            ),
        ),
        Wrong(
            "whole width",
            _needed(factor=2 * 1.96),
            "`half` is taken for the whole width of the interval",
            "It is the half width, what stands behind the ±.",
            also=(_needed(factor=0.5 * 1.96),),
        ),
        Wrong(
            "already divided",
            _needed(sigma=lambda p: p.std() / len(p) ** 0.5),
            "the standard error of the pilot stands where the deviation of single episodes belongs",
            "Do not divide by the root of P: E takes that place.",
            also=(
                lambda p, h: max(2, math.ceil((mean_and_ci95(p)[1] / h) ** 2)),
                lambda p, h: max(2, math.ceil((1.96 * float(p.std()) / h) ** 2 * len(p))),
            ),
        ),
        Wrong(
            "the pilot's own",
            lambda p, h: max(2, math.ceil(len(p) * (mean_and_ci95(p)[1] / h) ** 2)),
            "the pilot's own half width, with its wider factor t, is stretched",
            "Take the factor 1.96 of equation (2).",
        ),
        Wrong(
            "no lower end",
            _needed(least=-math.inf),
            "the answer falls below 2 where the pilot varies little",
            "`max(2, ...)`: one episode has no interval.",
            also=(_needed(least=1),),
        ),
        Wrong(
            "never below the pilot",
            lambda p, h: max(len(p), episodes_needed(p, h)),
            "the answer is never below the number of pilot episodes",
            "The pilot only gives the deviation. The lower end is 2.",
            also=(lambda p, h: max(100, episodes_needed(p, h)), lambda p, h: max(30, episodes_needed(p, h))),
        ),
        Wrong(
            "those that are missing",
            lambda p, h: max(2, episodes_needed(p, h) - len(p)),
            "the pilot's episodes are subtracted",
            "Return the whole number of episodes.",
            also=(lambda p, h: episodes_needed(p, h) - len(p), lambda p, h: episodes_needed(p, h) + len(p)),
        ),
        Wrong(
            "coin",
            lambda p, h: max(2, math.ceil(1.96**2 * float(p.mean() * (1 - p.mean())) / h**2)),
            "the deviation of single answers, √(p(1 - p)), is taken and not that of episodes",
            "An episode's accuracy is a mean of many answers: measure its deviation with `pilot.std()`.",
            also=(lambda p, h: max(2, math.ceil(1.96**2 * 0.25 / h**2)),),
        ),
        Wrong(
            "the mean",
            _needed(sigma=lambda p: p.mean()),
            "the mean accuracy stands where the deviation belongs",
            "`pilot.std()`.",
            also=(lambda p, h: max(2, math.ceil((1.96 * float(p.std() / p.mean()) / h) ** 2)),),
        ),
        Wrong(
            "turned over",
            lambda p, h: max(2, math.ceil((h / (1.96 * float(p.std()) + 1e-12)) ** 2)),
            "the quotient is turned over: a smaller half width would need fewer episodes",
            "s stands above, h below.",
            also=(lambda p, h: max(2, math.ceil((1.96 * h / (float(p.std()) + 1e-12)) ** 2)),),
        ),
        Wrong(
            "no whole number",
            lambda p, h: torch.tensor(episodes_needed(p, h)),
            "a tensor or a fraction is returned",
            "Return an int: `math.ceil(...)` gives one.",
            also=(
                lambda p, h: torch.ceil((1.96 * p.std() / h) ** 2),
                lambda p, h: (1.96 * float(p.std()) / h) ** 2,
            ),
        ),
    ),
    hints=(
        "How does the half width shrink when the number of episodes grows fourfold?",
        "Solve h = 1.96 s / √E for E, and round up: a fraction of an episode does not exist.",
        "`max(2, math.ceil((1.96 * float(pilot.std()) / half) ** 2))`",
    ),
)


# ---------------------------------------------------------------------------------------------- 26.4 the report card

Card = dict[str, Any]


def report_card(tested: dict[str, Tensor], chosen: str) -> Card:
    """Returns accuracy and half width of the chosen setting, its paired gains, and the rows against which there is none."""
    accuracy, half = mean_and_ci95(tested[chosen])
    gains = {name: mean_and_ci95(tested[chosen] - shares) for name, shares in tested.items() if name != chosen}
    vanishes = [name for name, (gain, width) in gains.items() if gain <= width]
    return {"accuracy": accuracy, "half": half, "gains": gains, "vanishes": vanishes}


def _card_by_loop(tested: dict[str, Tensor], chosen: str) -> Card:
    card: Card = {"gains": {}, "vanishes": []}
    for name in tested:
        if name == chosen:
            card["accuracy"], card["half"] = mean_and_ci95(tested[name])
            continue
        gain, half = mean_and_ci95(tested[chosen] - tested[name])
        card["gains"][name] = [gain, half]
        if gain - half <= 0:
            card["vanishes"].append(name)
    return card


def _card_turned(tested: dict[str, Tensor], chosen: str) -> Card:
    others = {name: mean_and_ci95(shares - tested[chosen]) for name, shares in tested.items() if name != chosen}
    accuracy, half = mean_and_ci95(tested[chosen])
    return {
        "vanishes": [name for name, (lead, width) in others.items() if lead + width >= 0],
        "gains": {name: (-lead, width) for name, (lead, width) in others.items()},
        "half": half,
        "accuracy": accuracy,
    }


def _card_by_pop(tested: dict[str, Tensor], chosen: str) -> Card:
    left = dict(tested)
    ours = left.pop(chosen)
    pairs = [(name, mean_and_ci95(ours - theirs)) for name, theirs in left.items()]
    mean, width = mean_and_ci95(ours)
    return {
        "accuracy": mean,
        "half": width,
        "gains": dict(pairs),
        "vanishes": [name for name, pair in pairs if not pair[0] > pair[1]],
    }


def _card_at_once(tested: dict[str, Tensor], chosen: str) -> Card:
    names = [name for name in tested if name != chosen]
    stacked = torch.stack([tested[chosen] - tested[name] for name in names])
    factor = _t_factor(stacked.shape[1]) / math.sqrt(stacked.shape[1])
    mean, half = stacked.mean(1), factor * stacked.std(1, correction=1)
    gains = {name: (float(m), float(h)) for name, m, h in zip(names, mean, half, strict=True)}
    ours = mean_and_ci95(tested[chosen])
    empty = [name for name, (m, h) in gains.items() if m <= h]
    return {"accuracy": ours[0], "half": ours[1], "gains": gains, "vanishes": empty}


def _cards(
    interval: Callable[[Tensor], tuple[float, float]] = mean_and_ci95,
    paired: Callable[[Tensor, Tensor], tuple[float, float]] | None = None,
    gone: Callable[[float, float], bool] = lambda gain, half: gain <= half,
    own: Callable[[dict[str, Tensor], str], str] = lambda tested, chosen: chosen,
    change: Callable[[Card, dict[str, Tensor], str], Card] = lambda card, tested, chosen: {},
) -> Callable:
    """Returns a report card with parts exchanged. paired: of the chosen row and another one."""

    def answer(tested: dict[str, Tensor], chosen: str) -> Card:
        picked = own(tested, chosen)
        accuracy, half = interval(tested[picked])
        gap = paired or (lambda ours, theirs: interval(ours - theirs))
        gains = {name: gap(tested[picked], theirs) for name, theirs in tested.items() if name != picked}
        vanishes = [name for name, (gain, width) in gains.items() if gone(gain, width)]
        card = {"accuracy": accuracy, "half": half, "gains": gains, "vanishes": vanishes}
        return card | change(card, tested, chosen)

    return answer


def _scaled(factor: Callable[[int], float], correction: int = 1) -> Callable[[Tensor], tuple[float, float]]:
    """Returns an interval whose half width is factor(E) times the deviation of single episodes."""
    return lambda values: (float(values.mean()), factor(len(values)) * float(values.std(correction=correction)))


def _card_cases(generator: Generator) -> list[Case]:
    def drawn(means: dict[str, float], episodes: int, own: float, shared: float = 0.08) -> dict[str, Tensor]:
        level = shared * torch.randn(episodes, generator=generator, dtype=torch.float64)
        found = {}
        for name, mean in means.items():
            noise = torch.randn(episodes, generator=generator, dtype=torch.float64)
            found[name] = mean + level - level.mean() + own * (noise - noise.mean()) / noise.std()
        return found

    usual = {"net, ridge": 0.8, "chance": 0.2, "pixels, mean": 0.7, "pixels, ridge": 0.797, "net, mean": 0.72}
    equal = drawn({"b": 0.6, "a": 0.6, "c": 0.55}, 30, 0.03)
    equal["a"] = equal["b"]
    return [
        Case("five rows; the gain over one of them vanishes", (drawn(usual, 60, 0.03), "net, ridge")),
        Case(
            "the chosen row is the last one, and behind one row", (drawn({"z": 0.9, "y": 0.5, "x": 0.7}, 40, 0.04), "x")
        ),
        Case(
            "episodes differ much: only pairing sees the gain",
            (drawn({"a": 0.6, "b": 0.62, "c": 0.65}, 50, 0.02, 0.2), "c"),
        ),
        Case("two rows are equal", (equal, "b")),
        Case("six episodes", (drawn({"late": 0.6, "early": 0.66, "middle": 0.64}, 6, 0.03), "early")),
        Case("the gain is between one and two standard errors", (drawn({"a": 0.6, "b": 0.609}, 100, 0.04), "b")),
        Case("no gain against anything", (drawn({"c": 0.7, "z": 0.8, "a": 0.71, "m": 0.73}, 50, 0.05), "c")),
    ]


CARD = Exercise(
    id="26.4",
    title="The report card",
    reference=report_card,
    cases=_card_cases,
    right=(_card_by_loop, _card_turned, _card_by_pop, _card_at_once),
    wrong=(
        Wrong(
            "turned round",
            _cards(paired=lambda ours, theirs: mean_and_ci95(theirs - ours)),
            "the other row minus the chosen one is reported: gains have the wrong sign",
            "`tested[chosen] - shares`.",
            also=(
                _cards(
                    paired=lambda ours, theirs: mean_and_ci95(theirs - ours), gone=lambda gain, half: gain + half >= 0
                ),
                _cards(
                    paired=lambda ours, theirs: mean_and_ci95(theirs - ours), gone=lambda gain, half: abs(gain) <= half
                ),
            ),
        ),
        Wrong(
            "unpaired",
            _cards(
                paired=lambda ours, theirs: (
                    float(ours.mean() - theirs.mean()),
                    math.hypot(mean_and_ci95(ours)[1], mean_and_ci95(theirs)[1]),
                )
            ),
            "the half width of a gain is made from those of the two rows, without pairing",
            "Subtract episode by episode first: `mean_and_ci95(tested[chosen] - shares)`.",
            also=(
                _cards(
                    paired=lambda ours, theirs: (
                        float(ours.mean() - theirs.mean()),
                        mean_and_ci95(ours)[1] + mean_and_ci95(theirs)[1],
                    )
                ),
                _cards(paired=lambda ours, theirs: (float(ours.mean() - theirs.mean()), mean_and_ci95(ours)[1])),
                _cards(paired=lambda ours, theirs: (float(ours.mean() - theirs.mean()), mean_and_ci95(theirs)[1])),
                _cards(
                    paired=lambda ours, theirs: (
                        float(ours.mean() - theirs.mean()),
                        abs(mean_and_ci95(ours)[1] - mean_and_ci95(theirs)[1]),
                    )
                ),
            ),
        ),
        Wrong(
            "only intervals that hold 0",
            _cards(gone=lambda gain, half: abs(gain) <= half),
            "a row that is clearly *better* than the chosen one is left out of the list",
            "There is no gain, either, where the whole interval lies below 0: `gain <= half`.",
            also=(_cards(gone=lambda gain, half: gain - half < 0 < gain + half),),
        ),
        Wrong(
            "by the own interval",
            _cards(
                change=lambda card, tested, chosen: {
                    "vanishes": [name for name, (gain, _) in card["gains"].items() if gain <= card["half"]]
                }
            ),
            "the gain is held against the interval of the accuracy, and not against its own",
            "Each gain has a half width of its own: `gain <= half` of that pair.",
            also=(
                _cards(
                    change=lambda card, tested, chosen: {
                        "vanishes": [
                            name
                            for name in card["gains"]
                            if card["accuracy"] - card["half"] <= sum(mean_and_ci95(tested[name]))
                        ]
                    }
                ),
            ),
        ),
        Wrong(
            "only rows that are ahead",
            _cards(gone=lambda gain, half: gain <= 0),
            "a positive mean counts as a gain, whatever its interval says",
            "The interval must lie above 0: no gain where `gain <= half`.",
            also=(_cards(gone=lambda gain, half: gain < 0),),
        ),
        Wrong(
            "only clear losses",
            _cards(gone=lambda gain, half: gain + half <= 0),
            "only rows that are clearly *better* than the chosen one are listed, and an interval that holds 0 counts as a gain",
            "The interval must lie above 0: no gain where `gain <= half`.",
            also=(_cards(gone=lambda gain, half: gain < -half),),
        ),
        Wrong(
            "without sign",
            _cards(paired=lambda ours, theirs: (abs(mean_and_ci95(ours - theirs)[0]), mean_and_ci95(ours - theirs)[1])),
            "the gains have lost their signs, so that a loss reads like a gain",
            "`mean_and_ci95(tested[chosen] - shares)`, as it comes.",
        ),
        Wrong(
            "rows with a gain",
            _cards(gone=lambda gain, half: gain > half),
            "the rows over which there *is* a gain are listed",
            'Under "vanishes" stand those without one.',
            also=(_cards(gone=lambda gain, half: abs(gain) > half), _cards(gone=lambda gain, half: gain >= half)),
        ),
        Wrong(
            "edge left out",
            _cards(gone=lambda gain, half: gain < half),
            "a row that equals the chosen one is left out: its interval is 0 ± 0 and holds 0",
            "`gain <= half`.",
        ),
        Wrong(
            "the chosen among the others",
            _cards(
                change=lambda card, tested, chosen: {
                    "gains": {name: mean_and_ci95(tested[chosen] - shares) for name, shares in tested.items()},
                    "vanishes": [n for n, s in tested.items() if _holds_zero_or_below(tested[chosen] - s)],
                }
            ),
            "the chosen row is compared with itself and stands among the others",
            "Leave `chosen` out.",
            also=(
                _cards(
                    change=lambda card, tested, chosen: {
                        "gains": {name: mean_and_ci95(tested[chosen] - shares) for name, shares in tested.items()}
                    }
                ),
                _cards(
                    change=lambda card, tested, chosen: {
                        "vanishes": [n for n, s in tested.items() if _holds_zero_or_below(tested[chosen] - s)]
                    }
                ),
            ),
        ),
        Wrong(
            "the best and not the chosen",
            _cards(own=lambda tested, chosen: max(tested, key=lambda name: tested[name].mean())),
            "the row that is best on the test is reported in place of the chosen one: that is choosing on the test",
            "Report `chosen`, also where another row is ahead.",
            also=(
                _cards(own=lambda tested, chosen: next(iter(tested))),
                _cards(own=lambda tested, chosen: list(tested)[-1]),
                _cards(
                    change=lambda card, tested, chosen: dict(
                        zip(
                            ("accuracy", "half"),
                            mean_and_ci95(max(tested.values(), key=lambda shares: shares.mean())),
                            strict=True,
                        )
                    )
                ),
            ),
        ),
        Wrong(
            "another factor",
            _cards(interval=_scaled(lambda e: 1.96 / math.sqrt(e))),
            "1.96 is taken where a few episodes need Student's t",
            "`mean_and_ci95` knows the factor.",
            also=(
                _cards(interval=_scaled(lambda e: 1.96 / math.sqrt(e), 0)),
                _cards(interval=_scaled(lambda e: 2 / math.sqrt(e))),
            ),
        ),
        Wrong(
            "one standard error",
            _cards(interval=_scaled(lambda e: 1 / math.sqrt(e))),
            "one standard error stands where the half width of the 95 % interval belongs",
            "`mean_and_ci95(...)[1]`.",
            also=(_cards(interval=_scaled(lambda e: 1 / math.sqrt(e), 0)),),
        ),
        Wrong(
            "deviation",
            _cards(interval=_scaled(lambda e: 1.0)),
            "the spread of single episodes is taken for the half width of their mean",
            "`mean_and_ci95(...)[1]`.",
            also=(_cards(interval=_scaled(lambda e: 1.96)), _cards(interval=_scaled(lambda e: 1.0, 0))),
        ),
        Wrong(
            "whole width",
            _cards(interval=lambda values: (mean_and_ci95(values)[0], 2 * mean_and_ci95(values)[1])),
            "the whole width of the interval is given",
            "The half width, what stands behind the ±.",
        ),
        Wrong(
            "both ends",
            _cards(
                change=lambda card, tested, chosen: {
                    "gains": {n: (g - h, g + h) for n, (g, h) in card["gains"].items()}
                }
            ),
            "the two ends of the interval stand where mean and half width belong",
            "Keep the pair that `mean_and_ci95` returns.",
        ),
        Wrong(
            "in per cent",
            _cards(interval=lambda values: tuple(100 * number for number in mean_and_ci95(values))),
            "the numbers are given in per cent",
            "Return fractions.",
            also=(
                _cards(
                    change=lambda card, tested, chosen: {
                        "gains": {n: (100 * g, 100 * h) for n, (g, h) in card["gains"].items()}
                    }
                ),
            ),
        ),
        Wrong(
            "another order",
            _cards(change=lambda card, tested, chosen: {"vanishes": sorted(card["vanishes"])}),
            "the names under vanishes are not in the order of `tested`",
            "Go through `tested` once, and keep its order.",
            also=(
                _cards(change=lambda card, tested, chosen: {"vanishes": card["vanishes"][::-1]}),
                _cards(
                    change=lambda card, tested, chosen: {
                        "vanishes": sorted(card["vanishes"], key=lambda name: card["gains"][name][0])
                    }
                ),
            ),
        ),
        Wrong(
            "only the first",
            _cards(change=lambda card, tested, chosen: {"vanishes": card["vanishes"][:1]}),
            "only one of the rows without a gain is listed",
            "List all of them.",
            also=(_cards(change=lambda card, tested, chosen: {"vanishes": card["vanishes"][-1:]}),),
        ),
        Wrong(
            "numbers and no names",
            _cards(change=lambda card, tested, chosen: {"vanishes": len(card["vanishes"])}),
            "a number or a truth value stands under vanishes",
            "List the names.",
            also=(
                _cards(change=lambda card, tested, chosen: {"vanishes": bool(card["vanishes"])}),
                _cards(
                    change=lambda card, tested, chosen: {"vanishes": {n: card["gains"][n] for n in card["vanishes"]}}
                ),
                _cards(change=lambda card, tested, chosen: {"vanishes": set(card["vanishes"])}),
            ),
        ),
        Wrong(
            "gains without width",
            _cards(change=lambda card, tested, chosen: {"gains": {n: pair[0] for n, pair in card["gains"].items()}}),
            "a gain stands there without its half width",
            "Keep the pair that `mean_and_ci95` returns.",
        ),
    ),
    hints=(
        "What must be subtracted before the mean is taken, so that hard episodes cancel?",
        "`mean_and_ci95(tested[chosen] - shares)` for every other name. There is a gain only where the lower end lies above 0.",
        "`gains = {name: mean_and_ci95(tested[chosen] - s) for name, s in tested.items() if name != chosen}` and "
        "`[name for name, (gain, half) in gains.items() if gain <= half]`",
    ),
)


def _holds_zero_or_below(gap: Tensor) -> bool:
    mean, half = mean_and_ci95(gap)
    return mean <= half


# ---------------------------------------------------------------------------------------------- 26.5 leaks in a report

Report = dict[str, Any]
PARTS = ("train", "val", "test")
_PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))
CODES = ("overlap", "chosen on test", "tested twice", "few episodes")


def leaks(report: Report) -> list[str]:
    """Returns the codes of what is wrong with a report, in the order of CODES; [] if nothing is."""

    def same(names: Sequence[str]) -> set[str]:
        return {name.strip().lower() for name in names}

    parts = [same(report[part]) for part in PARTS]
    looks = report["ledger"]
    choices = [look for look in looks if look["purpose"] == "choose"]
    tests = [look["setting"] for look in looks if look["purpose"] == "test"]
    wrong = {
        "overlap": len(set.union(*parts)) < sum(map(len, parts)),
        "chosen on test": any(same(look["classes"]) & parts[2] for look in choices),
        "tested twice": len(set(tests)) < len(tests),
        "few episodes": any(look["episodes"] < report["least"] for look in looks),
    }
    return [code for code, found in wrong.items() if found]


def _leaks_by_loop(report: Report) -> list[str]:
    where: dict[str, set[str]] = {}
    for part in PARTS:
        for name in report[part]:
            where.setdefault(name.strip().lower(), set()).add(part)
    found, tested = set(), []
    if any(len(parts) > 1 for parts in where.values()):
        found.add("overlap")
    for entry in report["ledger"]:
        if entry["purpose"] == "choose":
            for name in entry["classes"]:
                if "test" in where.get(name.strip().lower(), ()):
                    found.add("chosen on test")
        elif entry["setting"] in tested:
            found.add("tested twice")
        else:
            tested.append(entry["setting"])
        if entry["episodes"] < report["least"]:
            found.add("few episodes")
    return [code for code in CODES if code in found]


def _leaks_by_counter(report: Report) -> list[str]:
    plain = {part: {name.lower().strip() for name in report[part]} for part in PARTS}
    parts = Counter(name for names in plain.values() for name in names)
    tests = Counter(e["setting"] for e in report["ledger"] if e["purpose"] == "test")
    seen = {n.lower().strip() for e in report["ledger"] if e["purpose"] == "choose" for n in e["classes"]}
    codes = []
    if max(parts.values(), default=0) > 1:
        codes.append("overlap")
    if not seen.isdisjoint(plain["test"]):
        codes.append("chosen on test")
    if max(tests.values(), default=0) > 1:
        codes.append("tested twice")
    if min((e["episodes"] for e in report["ledger"]), default=report["least"]) < report["least"]:
        codes.append("few episodes")
    return codes


def _leaks_by_pairs(report: Report) -> list[str]:
    train, val, test = ([name.strip().casefold() for name in report[part]] for part in PARTS)
    overlap = any(n in val or n in test for n in train) or any(n in test for n in val)
    ledger = report["ledger"]
    peeked = [n for e in ledger if e["purpose"] != "test" for n in e["classes"] if n.strip().casefold() in test]
    tests = sorted(e["setting"] for e in ledger if e["purpose"] == "test")
    twice = any(a == b for a, b in pairwise(tests))
    few = not all(e["episodes"] >= report["least"] for e in ledger)
    return [code for code, bad in zip(CODES, (overlap, bool(peeked), twice, few), strict=True) if bad]


def _leaks_by_cleaning(report: Report) -> list[str]:
    def clean(names: Sequence[str]) -> frozenset[str]:
        return frozenset(map(str.lower, map(str.strip, names)))

    train, val, test = clean(report["train"]), clean(report["val"]), clean(report["test"])
    result = []
    if train & val or train & test or val & test:
        result += ["overlap"]
    if [1 for e in report["ledger"] if e["purpose"] == "choose" and clean(e["classes"]).intersection(test)]:
        result += ["chosen on test"]
    names = [e["setting"] for e in report["ledger"] if e["purpose"] == "test"]
    if any(names.count(name) >= 2 for name in names):
        result += ["tested twice"]
    if sum(e["episodes"] < report["least"] for e in report["ledger"]):
        result += ["few episodes"]
    return result


def _plain(names: Sequence[str]) -> set[str]:
    return {name.strip().lower() for name in names}


def _overlaps(report: Report) -> bool:
    return "overlap" in leaks(report)


def _chooses(entry: Report) -> bool:
    return entry["purpose"] == "choose"


def _tests(entry: Report) -> bool:
    return entry["purpose"] == "test"


def _leaks_with(
    overlap: Callable[[Report], bool] = _overlaps,
    peeked: Callable[[Report], bool] = lambda r: any(
        _plain(e["classes"]) & _plain(r["test"]) for e in r["ledger"] if _chooses(e)
    ),
    twice: Callable[[Report], bool] = lambda r: "tested twice" in leaks(r),
    few: Callable[[Report], bool] = lambda r: any(e["episodes"] < r["least"] for e in r["ledger"]),
    finish: Callable[[list[str]], Any] = lambda codes: codes,
) -> Callable[[Report], Any]:
    """Returns a reader of reports with one of its four looks exchanged."""

    def answer(report: Report) -> Any:
        looks = (overlap(report), peeked(report), twice(report), few(report))
        return finish([code for code, bad in zip(CODES, looks, strict=True) if bad])

    return answer


def _spelt(clean: Callable[[str], str]) -> Callable[[Report], list[str]]:
    """Returns a reader that compares names after `clean`."""

    def same(names: Sequence[str]) -> set[str]:
        return {clean(name) for name in names}

    return _leaks_with(
        overlap=lambda r: len(set.union(*(same(r[p]) for p in PARTS))) < sum(len(same(r[p])) for p in PARTS),
        peeked=lambda r: any(same(e["classes"]) & same(r["test"]) for e in r["ledger"] if _chooses(e)),
    )


def _share(*pairs: tuple[str, str]) -> Callable[[Report], bool]:
    return lambda r: any(_plain(r[a]) & _plain(r[b]) for a, b in pairs)


def _settings(report: Report, purpose: str = "test") -> list[str]:
    return [e["setting"] for e in report["ledger"] if e["purpose"] == purpose]


def _for_every_entry(report: Report) -> list[str]:
    """Appends a code for every entry that breaks its rule."""
    found, seen = [code for code in leaks(report) if code == "overlap"], set()
    for entry in report["ledger"]:
        if _chooses(entry) and _plain(entry["classes"]) & _plain(report["test"]):
            found.append("chosen on test")
        if _tests(entry) and entry["setting"] in seen:
            found.append("tested twice")
        if _tests(entry):
            seen.add(entry["setting"])
        if entry["episodes"] < report["least"]:
            found.append("few episodes")
    return found


def _add(part: str, source: str, spell: Callable[[str], str] = str) -> Callable[[Report], Any]:
    return lambda r: r[part].append(spell(r[source][1]))


def _peek(spell: Callable[[str], str] = str, at: int = 2, first: bool = False) -> Callable[[Report], Any]:
    """Puts one test class last, or first, into the entry `at`, among validation classes."""
    return lambda r: r["ledger"][at]["classes"].insert(0 if first else 99, spell(r["test"][-1]))


def _looked(at: int, classes: Callable[[Report], list[str]]) -> Callable[[Report], Any]:
    return lambda r: r["ledger"][at].update(classes=classes(r))


def _short(at: int, by: int = 1) -> Callable[[Report], Any]:
    return lambda r: r["ledger"][at].update(episodes=r["least"] - by)


def _all_short(by: Callable[[int], int]) -> Callable[[Report], Any]:
    return lambda r: [entry.update(episodes=by(r["least"])) for entry in r["ledger"]]


def _both(*changes: Callable[[Report], Any]) -> Callable[[Report], Any]:
    return lambda r: [change(r) for change in changes]


def _odd(r: Report) -> None:
    r["test"][-1] = f" {r['test'][-1].upper()}"
    r["ledger"][1]["classes"].append(r["test"][-1])


def _by_training(r: Report) -> None:
    """Chooses on training classes, too, repeats a name within a list, and has other keys."""
    r["ledger"][1]["classes"] = list(r["train"])
    r["train"].append(r["train"][0].upper())
    r["ledger"][0]["classes"] = [r["val"][0]] * 2
    r["note"] = "test"


def _all_four(r: Report) -> None:
    r["train"], r["ledger"][1]["classes"] = list(r["test"]), list(r["test"])
    r["ledger"][0]["episodes"] = 2


def _whole_test(r: Report) -> None:
    for entry in r["ledger"]:
        entry["classes"] = list(r["test"])


def _halves(r: Report) -> None:
    """Two tests, of which each sees one half of the test classes."""
    r["ledger"][-2]["classes"], r["ledger"][-1]["classes"] = r["test"][::2], r["test"][1::2]


def _reports(generator: Generator) -> Callable[..., tuple[Report]]:
    """Returns a maker of sound reports; `change` spoils one."""
    words = ["anchor", "bell", "cup", "dog", "ear", "fish", "gate", "hat", "ink", "jug", "key", "lamp", "moon", "nut"]

    def report(
        train: int = 4,
        val: int = 4,
        change: Callable[[Report], Any] = lambda r: None,
        tests: Sequence[str] = ("net", "pixels"),
        more: Sequence[str] = (),
    ) -> tuple[Report]:
        names = [words[i] for i in torch.randperm(len(words), generator=generator).tolist()]
        parts = {"train": names[:train], "val": names[train : train + val], "test": names[train + val :]}
        least = int(torch.randint(50, 200, (1,), generator=generator))
        looks = [(s, "choose", "val") for s in ("net", "pixels", "big net", *more)]
        looks += [(s, "test", "test") for s in tests]
        ledger = [
            {"setting": s, "purpose": p, "classes": list(parts[c]), "episodes": least + 10 * k}
            for k, (s, p, c) in enumerate(looks)
        ]
        made = {**parts, "ledger": ledger, "least": least}
        change(made)
        return (made,)

    return report


def _leaks_cases(generator: Generator) -> list[Case]:
    report = _reports(generator)
    five = ("net", "pixels", "big net", "chance", "random")
    return [
        Case("a sound report", report()),
        Case("every class of the test stands in training, too", report(change=lambda r: r.update(train=list(r["test"])))),
        Case("a sound report without training classes, with many looks at validation", report(0, 6, more=("net", "net"))),
        Case("a sound report that also chooses on training classes, one of them listed twice", report(change=_by_training)),
        Case("all settings were compared on the test classes", report(change=_whole_test)),
        Case("a sound report with a single test", report(tests=("net",))),
        Case("a sound report of settings that were never chosen among", report(tests=("chance", "random net"))),
        Case("one entry was chosen on two test classes alone", report(change=_looked(1, lambda r: r["test"][:2]))),
        Case("one entry was chosen on the test classes, turned round", report(change=_looked(2, lambda r: r["test"][::-1]))),
        Case("one entry was chosen on validation and test classes", report(change=_looked(1, lambda r: r["val"] + r["test"]))),
        Case("one entry was chosen on exactly the test list", report(change=_looked(1, lambda r: list(r["test"])))),
        Case("a test class stands first among validation classes", report(change=_peek(at=1, first=True))),
        Case("one class is in all three lists", report(change=_both(_add("train", "test"), _add("val", "test")))),
        Case("one class is in validation and test", report(change=_add("test", "val"))),
        Case("one class is in training and validation", report(change=_add("train", "val"))),
        Case("one class is in training and test, in capitals", report(change=_add("train", "test", str.title))),
        Case("one class is in validation and test, with a blank", report(change=_add("val", "test", lambda n: f" {n}"))),
        Case("one entry was chosen on a single test class", report(change=_peek())),
        Case("the first entry chose on a test class, spelt with capitals", report(change=_peek(str.upper, 0))),
        Case("an entry chose on a test class, with a blank behind it", report(change=_peek(lambda n: n + " ", 1))),
        Case("an entry chose on a test class that is spelt oddly in both places", report(change=_odd)),
        Case("one setting was tested twice, with another between", report(tests=("net", "pixels", "net"))),
        Case("one setting was tested twice in a row", report(tests=("pixels", "net", "net"))),
        Case("a sound report with five tested settings", report(tests=five)),
        Case("a choice with one episode too few", report(change=_short(1))),
        Case("the last test with far too few episodes", report(change=_short(-1, 40))),
        Case("a test in the middle of the ledger is short", report(change=_short(-2), tests=five[1:4])),
        Case("every entry has a single episode", report(change=_all_short(lambda least: 1))),
        Case("every entry is a little short", report(change=_all_short(lambda least: least - 1))),
        Case("a class overlaps, and the first choice is short", report(change=_both(_add("train", "test"), _short(0)))),
        Case("everything at once", report(change=_all_four, tests=("net", "net"))),
        Case("chosen on the test and tested twice", report(change=_peek(at=1), tests=("net", "big net", "net", "net"))),
        Case("one setting was tested twice, on other test classes each time", report(change=_halves, tests=("net", "net"))),
    ]  # fmt: skip


LEAKS = Exercise(
    id="26.5",
    title="Bug hunt: leaks in a report",
    reference=leaks,
    cases=_leaks_cases,
    right=(_leaks_by_loop, _leaks_by_counter, _leaks_by_pairs, _leaks_by_cleaning),
    wrong=(
        Wrong(
            "never",
            lambda report: [],
            "no report is ever found wrong",
            "Look at the classes first: is one of them in two of the lists?",
        ),
        Wrong(
            "always",
            lambda report: list(CODES),
            "every report is found wrong in every way, sound ones as well",
            "Name a code only where its rule is broken.",
        ),
        Wrong(
            "spelling",
            _spelt(str),
            "names are compared letter by letter, so that capitals and blanks hide a class",
            "Compare `name.strip().lower()`, in the lists and in the ledger.",
            also=(_spelt(str.lower), _spelt(str.strip)),
        ),
        Wrong(
            "spelling in the ledger",
            _leaks_with(peeked=lambda r: any(set(e["classes"]) & set(r["test"]) for e in r["ledger"] if _chooses(e))),
            "names in the ledger are compared letter by letter",
            "Clean the names of the ledger, too.",
            also=(
                _leaks_with(
                    peeked=lambda r: any(set(e["classes"]) & _plain(r["test"]) for e in r["ledger"] if _chooses(e))
                ),
                _leaks_with(
                    peeked=lambda r: any(
                        {n.lower() for n in e["classes"]} & {n.lower() for n in r["test"]}
                        for e in r["ledger"]
                        if _chooses(e)
                    )
                ),
                _leaks_with(
                    peeked=lambda r: any(
                        {n.strip() for n in e["classes"]} & {n.strip() for n in r["test"]}
                        for e in r["ledger"]
                        if _chooses(e)
                    )
                ),
            ),
        ),
        Wrong(
            "spelling in the lists",
            _leaks_with(overlap=lambda r: any(set(r[a]) & set(r[b]) for a, b in _PAIRS)),
            "names in the three lists are compared letter by letter",
            "Clean the names of the lists, too: `name.strip().lower()`.",
            also=(
                _leaks_with(
                    overlap=lambda r: any({n.lower() for n in r[a]} & {n.lower() for n in r[b]} for a, b in _PAIRS)
                ),
                _leaks_with(
                    overlap=lambda r: any({n.strip() for n in r[a]} & {n.strip() for n in r[b]} for a, b in _PAIRS)
                ),
            ),
        ),
        Wrong(
            "only with the test",
            _leaks_with(overlap=_share(("train", "test"), ("val", "test"))),
            "at least one of the three pairs of lists is never compared",
            "Three lists have three pairs.",
            also=(
                _leaks_with(overlap=_share(("train", "test"))),
                _leaks_with(overlap=_share(("val", "test"))),
                _leaks_with(overlap=_share(("train", "val"), ("train", "test"))),
                _leaks_with(overlap=_share(("train", "val"), ("val", "test"))),
                _leaks_with(overlap=_share(("train", "val"))),
            ),
        ),
        Wrong(
            "in all three",
            _leaks_with(overlap=lambda r: bool(set.intersection(*(_plain(r[p]) for p in PARTS)))),
            "a class must be in all three lists before it counts",
            "Two lists are enough.",
        ),
        Wrong(
            "whole lists",
            _leaks_with(overlap=lambda r: any(_plain(r[a]) == _plain(r[b]) for a, b in _PAIRS)),
            "only lists that are equal, or contained in one another, count as an overlap",
            "One common class is enough: `a & b`.",
            also=(_leaks_with(overlap=lambda r: any(_plain(r[a]) <= _plain(r[b]) for a, b in _PAIRS)),),
        ),
        Wrong(
            "twice in one list",
            _leaks_with(
                overlap=lambda r: len({n.strip().lower() for p in PARTS for n in r[p]}) < sum(len(r[p]) for p in PARTS)
            ),
            "a class that stands twice in one list counts as an overlap",
            "Make a set of each list before you count.",
        ),
        Wrong(
            "all of them",
            _leaks_with(
                peeked=lambda r: any(_plain(e["classes"]) <= _plain(r["test"]) for e in r["ledger"] if _chooses(e))
            ),
            "an entry counts only if *all* its classes are test classes",
            "One test class among the classes is enough.",
            also=(
                _leaks_with(
                    peeked=lambda r: any(_plain(e["classes"]) == _plain(r["test"]) for e in r["ledger"] if _chooses(e))
                ),
                _leaks_with(peeked=lambda r: any(e["classes"] == r["test"] for e in r["ledger"] if _chooses(e))),
                _leaks_with(
                    peeked=lambda r: any(_plain(e["classes"]) >= _plain(r["test"]) for e in r["ledger"] if _chooses(e))
                ),
                _leaks_with(
                    peeked=lambda r: all(_plain(e["classes"]) & _plain(r["test"]) for e in r["ledger"] if _chooses(e))
                ),
            ),
        ),
        Wrong(
            "the first class",
            _leaks_with(
                peeked=lambda r: any(
                    e["classes"][0].strip().lower() in _plain(r["test"]) for e in r["ledger"] if _chooses(e)
                )
            ),
            "only the first class of an entry is looked at",
            "Look at every class.",
        ),
        Wrong(
            "one entry",
            _leaks_with(
                peeked=lambda r: bool(
                    _plain(next(e for e in r["ledger"] if _chooses(e))["classes"]) & _plain(r["test"])
                )
            ),
            "only one entry of the ledger is looked at",
            "Look at every entry with the purpose choose.",
            also=(
                _leaks_with(
                    peeked=lambda r: bool(
                        _plain([e for e in r["ledger"] if _chooses(e)][-1]["classes"]) & _plain(r["test"])
                    )
                ),
            ),
        ),
        Wrong(
            "the test itself",
            _leaks_with(peeked=lambda r: any(_plain(e["classes"]) & _plain(r["test"]) for e in r["ledger"])),
            "the test itself counts as a choice on test classes: sound reports ring",
            'Only entries with the purpose "choose".',
        ),
        Wrong(
            "anything but validation",
            _leaks_with(
                peeked=lambda r: any(_plain(e["classes"]) - _plain(r["val"]) for e in r["ledger"] if _chooses(e))
            ),
            "a choice on training classes counts as one on test classes",
            "Only classes of the test list are forbidden.",
            also=(
                _leaks_with(
                    peeked=lambda r: any(_plain(e["classes"]) != _plain(r["val"]) for e in r["ledger"] if _chooses(e))
                ),
            ),
        ),
        Wrong(
            "any setting twice",
            _leaks_with(twice=lambda r: len({e["setting"] for e in r["ledger"]}) < len(r["ledger"])),
            "a setting that was chosen and then tested counts as tested twice",
            'Count only entries with the purpose "test".',
            also=(_leaks_with(twice=lambda r: len(set(_settings(r, "choose"))) < len(_settings(r, "choose"))),),
        ),
        Wrong(
            "more than one test",
            _leaks_with(twice=lambda r: len(_settings(r)) > 1),
            "different settings in one test count as tested twice",
            "The same *setting* twice: compare the list with its set.",
            also=(_leaks_with(twice=lambda r: len(_settings(r)) > 2),),
        ),
        Wrong(
            "in a row",
            _leaks_with(twice=lambda r: any(a == b for a, b in pairwise(_settings(r)))),
            "a second test is seen only right behind the first",
            "The two entries may lie apart: `len(set(names)) < len(names)`.",
            also=(_leaks_with(twice=lambda r: _settings(r)[0] in _settings(r)[1:]),),
        ),
        Wrong(
            "just enough",
            _leaks_with(few=lambda r: any(e["episodes"] <= r["least"] for e in r["ledger"])),
            "exactly `least` episodes count as too few",
            "Fewer than `least`: `<`.",
        ),
        Wrong(
            "only the test's episodes",
            _leaks_with(few=lambda r: any(e["episodes"] < r["least"] for e in r["ledger"] if _tests(e))),
            "the episodes of one purpose only are counted",
            "The rule holds for entries of either purpose.",
            also=(
                _leaks_with(few=lambda r: any(e["episodes"] < r["least"] for e in r["ledger"] if _chooses(e))),
                _leaks_with(few=lambda r: r["ledger"][-1]["episodes"] < r["least"]),
                _leaks_with(few=lambda r: r["ledger"][0]["episodes"] < r["least"]),
            ),
        ),
        Wrong(
            "episodes together",
            _leaks_with(few=lambda r: sum(e["episodes"] for e in r["ledger"]) < r["least"]),
            "the episodes of all entries are added up, or averaged, before they are compared",
            "Every entry needs `least` episodes of its own.",
            also=(
                _leaks_with(few=lambda r: sum(e["episodes"] for e in r["ledger"]) / len(r["ledger"]) < r["least"]),
                _leaks_with(few=lambda r: all(e["episodes"] < r["least"] for e in r["ledger"])),
            ),
        ),
        Wrong(
            "a fixed least",
            _leaks_with(few=lambda r: any(e["episodes"] < 100 for e in r["ledger"])),
            "the smallest number of episodes is fixed",
            'Use `report["least"]`.',
        ),
        Wrong(
            "the first fault",
            _leaks_with(finish=lambda codes: codes[:1]),
            "the search ends at the first fault",
            "Collect all codes before you return.",
            also=(_leaks_with(finish=lambda codes: codes[-1:]),),
        ),
        Wrong(
            "again and again",
            _for_every_entry,
            "a code is named once for every entry that breaks its rule",
            "Name each code at most once: `any(...)`.",
            also=(lambda report: sorted(_for_every_entry(report), key=CODES.index),),
        ),
        Wrong(
            "another order",
            _leaks_with(finish=sorted),
            "the codes come in another order than that of the table",
            "Overlap, chosen on test, tested twice, few episodes.",
            also=(_leaks_with(finish=lambda codes: codes[::-1]),),
        ),
        Wrong(
            "a truth value",
            _leaks_with(finish=bool),
            "a truth value or a set is returned and not the list of codes",
            "Return a list of strings; an empty one for a sound report.",
            also=(
                _leaks_with(finish=set),
                _leaks_with(finish=lambda codes: not codes),
                _leaks_with(finish=lambda codes: codes or None),
                _leaks_with(finish=len),
                _leaks_with(finish=", ".join),
            ),
        ),
        Wrong(
            "turned round",
            _leaks_with(finish=lambda codes: [code for code in CODES if code not in codes]),
            "the rules that are kept are named, and not those that are broken",
            "An empty list means: nothing is wrong.",
        ),
        Wrong(
            "classes only",
            lambda report: [code for code in leaks(report) if code != "tested twice"],
            "one of the four codes is never named",
            "Go through the table of codes once more.",
            also=tuple(
                lambda report, left=left: [code for code in leaks(report) if code != left]
                for left in ("overlap", "chosen on test", "few episodes")
            ),
        ),
    ),
    hints=(
        "Who may be in two lists? And which entries of the ledger should never have met a test class?",
        "Clean every name first, and make sets. Then four questions, each one line with `any(...)` or a comparison of lengths.",
        "`same = lambda names: {n.strip().lower() for n in names}`; `same(report['train']) & same(report['val'])`; "
        "`any(same(e['classes']) & same(report['test']) for e in ledger if e['purpose'] == 'choose')`",
    ),
)

EXERCISES = (SPLIT, CHOOSE, NEEDED, CARD, LEAKS)
