"""Exercises of lesson 24: running class means, what a stream is judged by, the penalty of EWC, and a choice that saw the test.

Cases: every exercise builds its own. The detector 24.4 gets a rule of choice as an argument and must return True for the rules
that look at the test table.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

Params = dict[str, Tensor]

# ---------------------------------------------------------------------------------------------- 24.1 running means


def grow(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Takes a session in. means [C, D], counts [C], embeddings [S, D], labels [S] -> means [C', D], counts [C']."""
    new = max(0, int(labels.max()) + 1 - len(means))
    means, counts = F.pad(means, (0, 0, 0, new)), F.pad(counts, (0, new))  # copies
    for k in labels.unique():
        mine = embeddings[labels == k]
        counts[k] += len(mine)
        means[k] += (mine - means[k]).sum(0) / counts[k]
    return means, counts


def _grown_by_sums(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    total = max(len(means), int(labels.max()) + 1)
    old = torch.zeros(total, embeddings.shape[1], dtype=embeddings.dtype)
    old[: len(means)] = means
    before = torch.cat([counts, counts.new_zeros(total - len(counts))])
    after = before + torch.bincount(labels, minlength=total)
    sums = (old * before[:, None]).index_add(0, labels, embeddings)
    met = torch.bincount(labels, minlength=total)[:, None] > 0
    return torch.where(met, sums / after.clamp_min(1)[:, None], old), after


def _grown_one_by_one(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    rows, seen = [row.clone() for row in means], counts.tolist()
    while len(rows) <= int(labels.max()):
        rows.append(torch.zeros_like(embeddings[0]))
        seen.append(0)
    for z, k in zip(embeddings, labels.tolist(), strict=True):
        seen[k] += 1
        rows[k] = rows[k] + (z - rows[k]) / seen[k]
    return torch.stack(rows), torch.tensor(seen)


def _grown_by_weights(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    found, seen = [], []
    for k in range(max(len(means), int(labels.max()) + 1)):
        mine = embeddings[labels == k]
        n = int(counts[k]) if k < len(means) else 0
        if len(mine) == 0:
            found.append(means[k])
        elif n == 0:
            found.append(mine.mean(0))
        else:
            found.append(means[k] * (n / (n + len(mine))) + mine.mean(0) * (len(mine) / (n + len(mine))))
        seen.append(n + len(mine))
    return torch.stack(found), torch.tensor(seen)


def _grown_by_one_hot(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    total = max(len(means), int(labels.max()) + 1)
    member = F.one_hot(labels, total)
    old = torch.cat([means, embeddings.new_zeros(total - len(means), embeddings.shape[1])])
    after = torch.cat([counts, torch.zeros(total - len(counts), dtype=torch.int64)]) + member.sum(0)
    pull = member.to(embeddings).T @ embeddings - member.sum(0)[:, None] * old
    return old + pull / after.clamp_min(1)[:, None], after


def _with(step: Callable[[Tensor, Tensor, Tensor], Tensor], count: Callable[[Tensor, Tensor], Tensor]) -> Callable:
    """Returns a wrong answer: step(mean, count before, rows) -> mean, count(before, rows) -> count, for every class in labels."""

    def answer(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        new = max(0, int(labels.max()) + 1 - len(means))
        means, counts = F.pad(means, (0, 0, 0, new)), F.pad(counts, (0, new))
        for k in labels.unique():
            mine = embeddings[labels == k]
            means[k], counts[k] = step(means[k], counts[k], mine), count(counts[k], mine)
        return means, counts

    return answer


def _added(n: Tensor, rows: Tensor) -> Tensor:
    return n + len(rows)


def _right_step(mean: Tensor, n: Tensor, rows: Tensor) -> Tensor:
    return mean + (rows - mean).sum(0) / (n + len(rows))


def _in_place(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    for k in labels.unique():
        if k < len(means):
            mine = embeddings[labels == k]
            counts[k] += len(mine)
            means[k] += (mine - means[k]).sum(0) / counts[k]
    return (
        grow(means, counts, embeddings[labels >= len(means)], labels[labels >= len(means)])
        if bool((labels >= len(means)).any())
        else (means, counts)
    )


def _all_new(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Appends a row for every class of the session, also for those that are there."""
    kinds = labels.unique()
    rows = torch.stack([embeddings[labels == k].mean(0) for k in kinds])
    return torch.cat([means, rows]), torch.cat([counts, torch.stack([(labels == k).sum() for k in kinds])])


def _session_only(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    total = max(len(means), int(labels.max()) + 1)
    seen = labels.bincount(minlength=total)
    return embeddings.new_zeros(total, embeddings.shape[1]).index_add(0, labels, embeddings) / seen.clamp_min(1)[
        :, None
    ], seen


def _old_are_lost(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Divides sums that were never multiplied by the old counts."""
    total = max(len(means), int(labels.max()) + 1)
    old = torch.cat([means, embeddings.new_zeros(total - len(means), embeddings.shape[1])])
    after = torch.cat([counts, counts.new_zeros(total - len(counts))]) + labels.bincount(minlength=total)
    return old.index_add(0, labels, embeddings) / after.clamp_min(1)[:, None], after


def _one_by_one(step: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """Returns a wrong answer that takes picture after picture: step(mean, count before, row) -> mean."""

    def answer(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        means, counts = _with_room(means, counts, labels)
        for z, k in zip(embeddings, labels, strict=True):
            means[k] = step(means[k], counts[k], z)
            counts[k] += 1
        return means, counts

    return answer


def _with_room(
    means: Tensor, counts: Tensor, labels: Tensor, row: float = 0.0, count: int = 0
) -> tuple[Tensor, Tensor]:
    """Copies of means and counts with rows for new labels, filled with `row` and `count`."""
    new = max(0, int(labels.max()) + 1 - len(means))
    return F.pad(means, (0, 0, 0, new), value=row), F.pad(counts, (0, new), value=count)


def _then(change: Callable[[Tensor], Tensor]) -> Callable:
    """Returns a wrong answer: all is right, and then change(means)."""

    def answer(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        found, seen = grow(means, counts, embeddings, labels)
        return change(found), seen

    return answer


def _written_once(divisor: Callable[[Tensor, Tensor], Tensor], once: bool) -> Callable:
    """Returns a wrong answer that writes to [labels], where of several pictures of a class only one counts.

    divisor: (counts before, counts after) -> [C']; once: whether counts[labels] += 1 is written as well
    """

    def answer(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        means, before = _with_room(means, counts, labels)
        after = before + labels.bincount(minlength=len(means))
        means[labels] += (embeddings - means[labels]) / divisor(before, after)[labels][:, None]
        if once:
            before[labels] += 1
        return means, before if once else after

    return answer


def _known_stay(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    found, seen = grow(means, counts, embeddings, labels)
    return torch.cat([means, found[len(means) :]]), torch.cat([counts, seen[len(counts) :]])


def _in_order_of_appearance(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    found, seen = means.clone(), counts.clone()
    for z, k in zip(embeddings, labels.tolist(), strict=True):
        if k >= len(found):
            found, seen = torch.cat([found, z[None]]), torch.cat([seen, seen.new_ones(1)])
        else:
            seen[k] += 1
            found[k] += (z - found[k]) / seen[k]
    return found, seen


def _by_first_sight(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    kept = {k: (means[k], counts[k]) for k in range(len(means))}
    for k in labels.tolist():
        found, seen = grow(means, counts, embeddings, labels)
        kept[k] = found[k], seen[k]
    return torch.stack([m for m, _ in kept.values()]), torch.stack([n for _, n in kept.values()])


def _largest_of_the_session(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    total = int(labels.max()) + 1
    found, seen = torch.zeros(total, embeddings.shape[1]), torch.zeros(total, dtype=torch.int64)
    found[: len(means)], seen[: len(counts)] = means, counts
    return grow(found, seen, embeddings.float(), labels)


def _cropped(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    total = int(labels.max()) + 1
    return tuple(t[:total] for t in grow(means, counts, embeddings, labels))


def _one_new_class(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return grow(means, counts, embeddings, labels.clamp_max(len(means)))


def _in_place_without_new(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if int(labels.max()) >= len(means):
        return grow(means, counts, embeddings, labels)
    return _in_place(means, counts, embeddings, labels)


def _rows_for_all(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    found, seen = grow(means, counts, embeddings, labels)
    extra = len(means) + len(labels.unique()) - len(found)
    return F.pad(found, (0, 0, 0, extra)), F.pad(seen, (0, extra))


def _started_at_one(row: float) -> Callable:
    """Returns a wrong answer whose new rows start at `row` with a count of one."""

    def answer(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return grow(*_with_room(means, counts, labels, row, 1), embeddings, labels)

    return answer


def _divided_by(divisor: Callable[[Tensor, Tensor, Tensor], float], one_by_one: bool = False) -> Callable:
    """Returns a wrong answer whose steps are divided by divisor(counts before, counts now, labels), the same for all classes."""

    def answer(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        means, before = _with_room(means, counts, labels)
        now = before.clone()
        parts = (
            [[i] for i in range(len(labels))]
            if one_by_one
            else [(labels == k).nonzero()[:, 0] for k in labels.unique()]
        )
        for part in parts:
            k = labels[part][0]
            now[k] += len(part)
            means[k] = means[k] + (embeddings[part] - means[k]).sum(0) / divisor(before, now, labels)
        return means, now

    return answer


def _mean_of_nothing(means: Tensor, counts: Tensor, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    found, seen = grow(means, counts, embeddings, labels)
    absent = labels.bincount(minlength=len(found)) == 0
    return torch.where(absent[:, None], torch.nan, found), seen


def _grow_cases(generator: Generator) -> list[Case]:
    def case(says: str, old: list[int], labels: list[int], dtype: torch.dtype = torch.float32) -> Case:
        means = torch.randn(len(old), 3, generator=generator, dtype=dtype)
        rows = torch.randn(len(labels), 3, generator=generator, dtype=dtype)
        return Case(says, (means, torch.tensor(old, dtype=torch.int64), rows, torch.tensor(labels)))

    paper = (torch.tensor([[3.0]]), torch.tensor([2]), torch.tensor([[9.0], [4.0]]), torch.tensor([0, 1]))
    return [
        Case("the example on paper", paper),
        case("2 classes known, 2 new ones, in mixed order", [4, 2], [3, 2, 2, 3, 3]),
        case("further pictures of known classes only", [4, 2, 1], [2, 0, 2]),
        case("a new class, and more of an old one", [5, 3], [0, 2, 0, 2]),
        case("the first session", [], [1, 0, 1, 2]),
        case("one picture of a class with many", [7, 2], [0]),
        case("float64", [4, 2], [1, 2, 1], torch.float64),
    ]


def _untouched(answer: Callable, reference: Callable) -> str | None:
    generator = Generator().manual_seed(5)
    means, rows = torch.randn(4, 6, generator=generator), torch.randn(6, 6, generator=generator)
    found, _ = answer(means.clone(), torch.tensor([3, 7, 5, 11]), rows, torch.tensor([4, 4, 5, 5, 2, 2]))
    moved = [k for k in (0, 1, 3) if not torch.equal(found[k], means[k])]
    return f"{len(moved)} of three classes without new pictures changed in their last digits" if moved else None


GROW = Exercise(
    id="24.1",
    title="Running class means",
    reference=grow,
    cases=_grow_cases,
    properties=(Property("a class without new pictures keeps its mean bit for bit", _untouched),),
    right=(_grown_by_sums, _grown_one_by_one, _grown_by_weights, _grown_by_one_hot),
    wrong=(
        Wrong(
            "the session alone",
            _with(lambda m, n, rows: rows.mean(0), _added),
            "a known class takes the mean of the new pictures alone (dividing the step by their number does that, too)",
            "Divide by all pictures of the class, old and new: the count after the session.",
            also=(_with(lambda m, n, rows: rows.mean(0), lambda n, rows: torch.tensor(len(rows))), _session_only),
        ),
        Wrong(
            "half and half",
            _with(lambda m, n, rows: (m + rows.mean(0)) / 2 if n else rows.mean(0), _added),
            "old mean and new mean are averaged half and half, however many pictures stand behind each",
            "Weigh both by their numbers of pictures.",
            also=(_with(lambda m, n, rows: (m + rows.mean(0)) / 2, _added),),
        ),
        Wrong(
            "divided by the old count",
            _with(lambda m, n, rows: m + (rows - m).sum(0) / n.clamp_min(1), _added),
            "the step is divided by the number of pictures before the session",
            "Count the new pictures first: the divisor is the new count.",
            also=(
                _with(lambda m, n, rows: m + (rows - m).sum(0) / n, _added),
                _with(lambda m, n, rows: m + (rows - m).sum(0) / n if n else rows.mean(0), _added),
                _one_by_one(lambda m, n, z: m + (z - m) / n.clamp_min(1)),
                _one_by_one(lambda m, n, z: m + (z - m) / n),
            ),
        ),
        Wrong(
            "counted twice",
            _one_by_one(lambda m, n, z: m + (z - m) / (n + 2)),
            "the divisor is too large: new pictures are counted twice in it",
            "The divisor is the count with the new pictures in it, once.",
            also=(_with(lambda m, n, rows: m + (rows - m).sum(0) / (n + 2 * len(rows)), _added),),
        ),
        Wrong(
            "divided by pictures of all classes",
            _divided_by(lambda before, now, y: len(y)),
            "the step is divided by a number of pictures of all classes together",
            "Each class has a count of its own.",
            also=(
                _divided_by(lambda before, now, y: len(y), one_by_one=True),
                _divided_by(lambda before, now, y: int(now.sum())),
                _divided_by(lambda before, now, y: int(now.sum()), one_by_one=True),
                _divided_by(lambda before, now, y: int(before.sum()) + len(y)),
            ),
        ),
        Wrong(
            "the old mean taken away once",
            _with(lambda m, n, rows: m + (rows.sum(0) - m) / (n + len(rows)), _added),
            "the old mean is taken away from the sum of the new pictures only once",
            "Each new picture pulls: `(rows - mean).sum(0)` takes the mean away from every one.",
        ),
        Wrong(
            "weights exchanged",
            _with(lambda m, n, rows: (len(rows) * m + n * rows.mean(0)) / (n + len(rows)), _added),
            "the old mean is weighed by the number of new pictures, and the new mean by the old count",
            "Each mean is weighed by its own number of pictures.",
        ),
        Wrong(
            "written to [labels]",
            _written_once(lambda before, after: before + 1, once=True),
            "`[labels] = ...` or `[labels] += ...` writes a row once: where a label comes twice, one of its pictures is lost",
            "Loop over `labels.unique()`, or use `index_add` and `bincount`.",
            also=(
                _written_once(lambda before, after: after, once=False),
                _written_once(lambda before, after: before + 1, once=False),
                _written_once(lambda before, after: after, once=True),
            ),
        ),
        Wrong(
            "the mean of the differences",
            _with(lambda m, n, rows: m + (rows.mean(0) - m) / (n + len(rows)), _added),
            "the mean of the differences is divided by the count, where their sum belongs",
            "Each new picture pulls with 1 over the new count: sum the differences.",
            also=(_with(lambda m, n, rows: m + (rows.mean(0) - m) / (n + 1), _added),),
        ),
        Wrong(
            "the old mean counts as one picture",
            _with(
                lambda m, n, rows: torch.cat([m[None], rows]).mean(0) if n else rows.mean(0),
                _added,
            ),
            "the old mean counts as a single picture",
            "It stands for as many pictures as its count says.",
            also=(_with(lambda m, n, rows: torch.cat([m[None], rows]).mean(0), _added),),
        ),
        Wrong(
            "a fixed share",
            _with(lambda m, n, rows: 0.9 * m + 0.1 * rows.mean(0) if n else rows.mean(0), _added),
            "old and new mean are mixed by a fixed share, as in a moving average",
            "The share of the new pictures is their number over the new count.",
            also=(
                _with(lambda m, n, rows: 0.9 * m + 0.1 * rows.mean(0), _added),
                _with(lambda m, n, rows: 0.5 * m + 0.5 * rows.sum(0) if n else rows.mean(0), _added),
                _with(lambda m, n, rows: 0.99 * m + 0.01 * rows.mean(0) if n else rows.mean(0), _added),
                _one_by_one(lambda m, n, z: 0.9 * m + 0.1 * z if n else z),
                _one_by_one(lambda m, n, z: 0.9 * m + 0.1 * z),
                _one_by_one(lambda m, n, z: 0.5 * m + 0.5 * z if n else z),
                _one_by_one(lambda m, n, z: 0.99 * m + 0.01 * z if n else z),
            ),
        ),
        Wrong(
            "the mean of nothing",
            _mean_of_nothing,
            "the mean of no pictures is taken for classes that the session does not bring: that is not a number",
            "Leave classes without new pictures alone: loop over `labels.unique()`.",
        ),
        Wrong(
            "a row for each label of the session",
            lambda m, c, z, y: (
                F.pad(m, (0, 0, 0, len(y.unique()))),
                F.pad(c, (0, len(y.unique()))),
            ),
            "a row is added for every class of the session, also for those that are known",
            "Rows are missing only if the largest label is C or more: `int(labels.max()) + 1 - len(means)`.",
            also=(_rows_for_all,),
        ),
        Wrong(
            "sums",
            _with(lambda m, n, rows: m * n + rows.sum(0), _added),
            "sums come back in place of means",
            "Divide by the new count.",
            also=(_with(lambda m, n, rows: m + rows.sum(0), _added),),
        ),
        Wrong(
            "the old mean is not multiplied by its count",
            _with(lambda m, n, rows: (m + rows.sum(0)) / (n + len(rows)), _added),
            "the sum of the new pictures is added to the old mean, which is not a sum",
            "Multiply the old mean by the old count first.",
            also=(_old_are_lost,),
        ),
        Wrong(
            "counts unchanged",
            _with(_right_step, lambda n, rows: n),
            "the means are right, but the counts stay as they were: the next session will weigh wrongly",
            "Add the number of new pictures to the counts of their classes.",
        ),
        Wrong(
            "counts of the session",
            _with(_right_step, lambda n, rows: torch.tensor(len(rows))),
            "the means are right, but the counts hold the new pictures only",
            "Old count plus new pictures.",
        ),
        Wrong(
            "one for a class",
            _with(_right_step, lambda n, rows: n + 1),
            "the counts rise by one for each class and not for each picture",
            "Add the number of new pictures.",
            also=(
                _with(lambda m, n, rows: m + (rows.mean(0) - m) / (n + 1), lambda n, rows: n + 1),
                _with(lambda m, n, rows: m + (rows - m).sum(0) / (n + 1), lambda n, rows: n + 1),
            ),
        ),
        Wrong(
            "always new",
            _all_new,
            "every class of the session gets a new row, also a class that is known",
            "`labels` says which row a picture belongs to; only labels from C on are new.",
        ),
        Wrong(
            "the new class first",
            lambda m, c, z, y: tuple(t.flip(0) for t in grow(m, c, z, y)),
            "the rows are in reverse order",
            "Row k belongs to label k: new rows come last.",
        ),
        Wrong(
            "known classes only",
            lambda m, c, z, y: tuple(t[: len(m)] for t in grow(m, c, z, y)),
            "no rows are added for new classes",
            "Append zeros up to the largest label, then move them like all others.",
        ),
        Wrong(
            "known classes stay",
            _known_stay,
            "only new classes are taken in: further pictures of a known class do not move its mean",
            "`labels` may name known classes: their means move, too.",
        ),
        Wrong(
            "in order of appearance",
            _in_order_of_appearance,
            "rows are appended in the order in which the new labels appear, and not in that of their numbers",
            "Row k belongs to label k: append zeros up to the largest label first.",
            also=(_by_first_sight,),
        ),
        Wrong(
            "the session's largest label",
            _largest_of_the_session,
            "there are as many rows as the largest label of the session asks for: known classes above it do not fit in",
            "`max(len(means), int(labels.max()) + 1)` rows.",
            also=(_cropped,),
        ),
        Wrong(
            "one new class",
            _one_new_class,
            "all pictures of new classes together make one new class",
            "Each label from C on gets a row of its own.",
        ),
        Wrong(
            "each picture a class",
            lambda m, c, z, y: (torch.cat([m, z]), torch.cat([c, torch.ones_like(y)])),
            "each picture is appended as a class of its own",
            "`labels` says which pictures belong together.",
        ),
        Wrong(
            "new classes start at one",
            _started_at_one(0.0),
            "the count of a new class starts at 1, before it has any picture",
            "A new row starts with a count of 0.",
            also=(_started_at_one(1.0),),
        ),
        Wrong(
            "unit length",
            _then(lambda m: F.normalize(m, dim=1)),
            "the rows come back with unit length",
            "Equation (1) gives plain means: the cosine head normalises, prototypes do not.",
        ),
        Wrong(
            "float counts",
            lambda m, c, z, y: (grow(m, c, z, y)[0], grow(m, c, z, y)[1].to(z.dtype)),
            "the counts come back as floats",
            "Counts are whole numbers: int64, as they came.",
            also=(lambda m, c, z, y: (grow(m, c, z, y)[0], grow(m, c, z, y)[1].float()),),
        ),
        Wrong(
            "means only",
            lambda m, c, z, y: grow(m, c, z, y)[0],
            "only the means are returned",
            "Return both: `return means, counts`.",
        ),
        Wrong(
            "in place",
            _in_place,
            "the tensors that were passed in are written into",
            "Work on copies: `means.clone()`, or `F.pad`, which copies.",
            also=(_in_place_without_new,),
        ),
        Wrong(
            "multiplied and divided for all",
            lambda m, c, z, y: (
                F.pad(m * c[:, None], (0, 0, 0, max(0, int(y.max()) + 1 - len(m)))).index_add(0, y, z)
                / grow(m, c, z, y)[1][:, None],
                grow(m, c, z, y)[1],
            ),
            "every mean is multiplied by its count and divided again, even without new pictures: rounding changes last digits",
            "Touch the rows of the session's classes only.",
        ),
    ),
    hints=(
        "A mean and a count are all you need to go on: the old pictures themselves are gone.",
        "Append rows of zeros for new labels. Then, for each class of the session: add to the count, and move the mean by the "
        "sum of (row - mean) over the new count.",
        "`means[k] += (embeddings[labels == k] - means[k]).sum(0) / counts[k]`, after `counts[k] += ...`",
    ),
)

# ---------------------------------------------------------------------------------------------- 24.2 forgetting


def judge_stream(accuracy: Tensor) -> tuple[float, float]:
    """Returns (forgetting, harmonic mean) of accuracy [T + 1, T + 1], of which row t, column j is NaN for j > t."""
    last = accuracy[-1]
    earlier = accuracy[:-1, :-1].nan_to_num(-math.inf).amax(0)
    base, new = float(last[0]), float(last[1:].mean())
    return float((earlier - last[:-1]).mean()), 2 * base * new / (base + new) if base + new > 0 else 0.0


def _by_loops(accuracy: Tensor) -> tuple[float, float]:
    end, drops = len(accuracy) - 1, []
    for j in range(end):
        best = max(float(accuracy[t, j]) for t in range(j, end))
        drops.append(best - float(accuracy[end, j]))
    base, new = float(accuracy[end, 0]), sum(float(accuracy[end, j]) for j in range(1, end + 1)) / end
    return sum(drops) / end, 0.0 if base + new == 0 else 2 * base * new / (base + new)


def _by_numpy(accuracy: Tensor) -> tuple[float, float]:
    import numpy as np

    table = accuracy.double().numpy()
    drops = np.nanmax(table[:-1, :-1], axis=0) - table[-1, :-1]
    pair = np.array([table[-1, 0], table[-1, 1:].mean()])
    return float(drops.mean()), float(2 / (1 / pair).sum()) if bool((pair > 0).all()) else 0.0


def _by_mask(accuracy: Tensor) -> tuple[float, float]:
    known = accuracy.isnan().logical_not()
    best = torch.where(known, accuracy, -1.0)[:-1, :-1].max(0).values
    b, n = accuracy[-1, 0], accuracy[-1, 1:].mean()
    return (best - accuracy[-1, :-1]).mean().item(), (2 * b * n / (b + n).clamp_min(1e-12)).item()


def _by_products(accuracy: Tensor) -> tuple[float, float]:
    filled = torch.nan_to_num(accuracy, nan=-1.0)
    drop = torch.stack([filled[j:-1, j].max() - filled[-1, j] for j in range(len(filled) - 1)])
    both = torch.tensor([filled[-1, 0], filled[-1, 1:].mean()], dtype=torch.float64)
    return drop.mean().item(), float(both.prod() / both.mean()) if both.sum() > 0 else 0.0


def _drops(accuracy: Tensor, best: Callable[[Tensor], Tensor]) -> float:
    return float((best(accuracy) - accuracy[-1, :-1]).mean())


def _harmonic(accuracy: Tensor) -> float:
    return judge_stream(accuracy)[1]


def _forgetting(accuracy: Tensor) -> float:
    return judge_stream(accuracy)[0]


def _best_earlier(accuracy: Tensor) -> Tensor:
    return accuracy[:-1, :-1].nan_to_num(-math.inf).amax(0)


def _means(accuracy: Tensor) -> tuple[float, float]:
    return float(accuracy[-1, 0]), float(accuracy[-1, 1:].mean())


def _joined(base: Tensor, new: Tensor) -> float:
    """Returns the harmonic mean of two numbers, and 0 where both are 0."""
    return float(2 * base * new / (base + new)) if float(base + new) > 0 else 0.0


def _share(part: Tensor) -> float:
    """Returns the forgetting of a part of a table, and 0 where it has a single row."""
    return float(_best_earlier(part).sub(part[-1, :-1]).sum()) / max(len(part) - 1, 1) if len(part) > 1 else 0.0


def _written_into(accuracy: Tensor) -> tuple[float, float]:
    found = judge_stream(accuracy)
    accuracy[accuracy.isnan()] = 0.0
    return found


def _mean_of(join: Callable[[float, float], float]) -> Callable[[Tensor], tuple[float, float]]:
    return lambda a: (_forgetting(a), join(*_means(a)))


def _stream_cases(generator: Generator) -> list[Case]:
    def table(sessions: int, dtype: torch.dtype = torch.float32) -> Tensor:
        drawn = torch.rand(sessions + 1, sessions + 1, generator=generator, dtype=dtype)
        return torch.where(torch.ones_like(drawn).tril() > 0, drawn, torch.nan)

    paper = torch.tensor([[0.9, torch.nan, torch.nan], [0.6, 0.8, torch.nan], [0.3, 0.5, 0.7]])
    rises = torch.tensor([[0.5, torch.nan], [0.7, 0.2]])
    nothing = torch.tensor([[0.9, torch.nan], [0.0, 0.0]])
    back = torch.tensor([[0.5, torch.nan, torch.nan], [0.9, 0.4, torch.nan], [0.6, 0.8, 0.1]])
    return [
        Case("the example on paper", (paper,)),
        Case("three sessions after the base session", (table(3),)),
        Case("eight sessions", (table(8),)),
        Case("accuracy that rises: forgetting is below 0", (rises,)),
        Case("the best is not the first", (back,)),
        Case("all is forgotten, and nothing learned", (nothing,)),
        Case("float64", (table(4, torch.float64),)),
    ]


STREAM = Exercise(
    id="24.2",
    title="Forgetting and the harmonic mean",
    reference=judge_stream,
    cases=_stream_cases,
    right=(_by_loops, _by_numpy, _by_mask, _by_products),
    wrong=(
        Wrong(
            "the first instead of the best",
            lambda a: (_drops(a, lambda t: t.diagonal()[:-1]), _harmonic(a)),
            "forgetting is measured from the accuracy right after learning, and not from the best one",
            "Take the largest value in the column, of all rows before the last.",
        ),
        Wrong(
            "the last row may win",
            lambda a: (_drops(a, lambda t: t[:, :-1].nan_to_num(-math.inf).amax(0)), _harmonic(a)),
            "letters that are known better at the end count as 0: the final row is among those that the best one is taken from, "
            "or a drop below 0 is cut off",
            "Only earlier rows, `accuracy[:-1]`, and no clamp: forgetting may be negative.",
        ),
        Wrong(
            "the last session counts",
            lambda a: (_forgetting(a) * (len(a) - 1) / len(a), _harmonic(a)),
            "the average runs over T + 1 sessions: the last one counts, although nothing came after it",
            "Average over columns 0 to T-1.",
            also=(
                *(
                    lambda a, fill=fill: (float((a[:-1].nan_to_num(fill).amax(0) - a[-1]).mean()), _harmonic(a))
                    for fill in (0.0, -1.0, -math.inf)
                ),
                lambda a: (
                    float((a.nan_to_num(-math.inf).amax(0) - a[-1]).mean()),
                    _harmonic(a),
                ),
            ),
        ),
        Wrong(
            "only the row before",
            lambda a: (_drops(a, lambda t: t[-2, :-1]), _harmonic(a)),
            "only the row before the last is compared",
            "The best of *all* earlier rows.",
        ),
        Wrong(
            "without the base letters",
            lambda a: (_share(a[1:, 1:]), _harmonic(a)),
            "the base letters are left out of forgetting",
            "Columns 0 to T-1: the base letters are column 0.",
            also=(
                lambda a: (float((_best_earlier(a) - a[-1, :-1])[1:].mean()), _harmonic(a)),
                lambda a: (float((_best_earlier(a) - a[-1, :-1])[1:].sum()) / (len(a) - 1), _harmonic(a)),
                lambda a: (sum((_best_earlier(a) - a[-1, :-1])[1:].tolist()) / (len(a) - 2), _harmonic(a)),
            ),
        ),
        Wrong(
            "absolute",
            lambda a: (float((_best_earlier(a) - a[-1, :-1]).abs().mean()), _harmonic(a)),
            "the absolute value of the drops is taken: a gain counts as forgetting",
            "The plain difference: forgetting may be negative.",
            also=(lambda a: (abs(_forgetting(a)), _harmonic(a)),),
        ),
        Wrong(
            "the mean is cut off",
            lambda a: (max(0.0, _forgetting(a)), _harmonic(a)),
            "forgetting is cut off at 0",
            "It may be negative: later sessions can help earlier letters.",
        ),
        Wrong(
            "the median",
            lambda a: (float((_best_earlier(a) - a[-1, :-1]).median()), _harmonic(a)),
            "the median of the drops is taken",
            "Equation (3) has their mean.",
            also=(lambda a: (float((_best_earlier(a) - a[-1, :-1]).quantile(0.5)), _harmonic(a)),),
        ),
        Wrong(
            "one best for all",
            lambda a: (float(a[:-1].nan_to_num(0).max() - a[-1].mean()), _harmonic(a)),
            "one largest value of the whole table stands for the best of every column",
            "Each column has its own best: `.amax(0)`.",
            also=(
                lambda a: (float((a[:-1].nan_to_num(0).max() - a[-1, :-1]).mean()), _harmonic(a)),
                lambda a: (float(a[:-1].nan_to_num(0).max() - a[-1, 0]), _harmonic(a)),
            ),
        ),
        Wrong(
            "base letters only",
            lambda a: (float(_best_earlier(a)[0] - a[-1, 0]), _harmonic(a)),
            "forgetting is that of the base letters alone",
            "Average over all sessions but the last.",
        ),
        Wrong(
            "turned round",
            lambda a: (-_forgetting(a), _harmonic(a)),
            "the sign of forgetting is turned round",
            "Best earlier accuracy *minus* the final one.",
        ),
        Wrong(
            "a share of the best",
            lambda a: (
                float(((_best_earlier(a) - a[-1, :-1]) / _best_earlier(a)).mean()),
                _harmonic(a),
            ),
            "the drop is divided by the best accuracy",
            "Equation (3) has the plain difference.",
        ),
        Wrong(
            "the mean of the earlier ones",
            lambda a: (_drops(a, lambda t: t[:-1, :-1].nanmean(0)), _harmonic(a)),
            "the mean of the earlier accuracies is taken in place of the best",
            "`.amax(0)`: the best that was ever reached.",
        ),
        Wrong(
            "a sum",
            lambda a: (_forgetting(a) * (len(a) - 1), _harmonic(a)),
            "the drops are summed and not averaged",
            "Divide by their number.",
        ),
        Wrong(
            "the largest drop",
            lambda a: (float((_best_earlier(a) - a[-1, :-1]).max()), _harmonic(a)),
            "the largest drop is returned in place of the mean",
            "`.mean()` over the columns.",
        ),
        Wrong(
            "not a number",
            lambda a: (_drops(a, lambda t: t[:-1, :-1].amax(0)), _harmonic(a)),
            "NaN wins every `max`: the entries above the diagonal must be left out",
            "Replace NaN by minus infinity, or take column j from row j on.",
            also=(lambda a: (float((a[:-1].amax(0) - a[-1]).mean()), _harmonic(a)),),
        ),
        Wrong(
            "arithmetic",
            _mean_of(lambda b, n: (b + n) / 2),
            "base and new accuracy are averaged by the arithmetic mean: a method that knows no new letter gets half",
            "The harmonic mean: 2bn / (b + n).",
        ),
        Wrong(
            "the mean of all columns",
            lambda a: (_forgetting(a), float(a[-1].mean())),
            "the plain mean of the last row is returned in place of the harmonic mean",
            "Two numbers first, base and new; then 2bn / (b + n).",
        ),
        Wrong(
            "new accuracies summed",
            lambda a: (
                _forgetting(a),
                float(2 * a[-1, 0] * a[-1, 1:].sum() / a[-1].sum()) if float(a[-1].sum()) else 0.0,
            ),
            "the accuracies of the new sessions are summed and not averaged",
            "`.mean()` over columns 1 to T.",
        ),
        Wrong(
            "geometric",
            _mean_of(lambda b, n: (b * n) ** 0.5),
            "the geometric mean is taken",
            "The harmonic mean: 2bn / (b + n).",
        ),
        Wrong(
            "without the 2",
            _mean_of(lambda b, n: b * n / (b + n) if b + n else 0.0),
            "the 2 of the harmonic mean is missing",
            "2bn / (b + n): two equal numbers have themselves as their mean.",
        ),
        Wrong(
            "the last session is the new one",
            lambda a: (
                _forgetting(a),
                2 * float(a[-1, 0] * a[-1, -1] / (a[-1, 0] + a[-1, -1])) if float(a[-1, 0] + a[-1, -1]) else 0.0,
            ),
            "only the last session counts as new",
            "All sessions after the base session are new: average columns 1 to T.",
        ),
        Wrong(
            "all letters",
            lambda a: (
                _forgetting(a),
                2 * float(a[-1, 0] * a[-1].mean() / (a[-1, 0] + a[-1].mean())) if float(a[-1].sum()) else 0.0,
            ),
            "the base letters are counted among the new ones, too",
            "New letters are columns 1 to T.",
        ),
        Wrong(
            "harmonic mean of all columns",
            lambda a: (_forgetting(a), float(len(a) / (1 / a[-1]).sum())),
            "the harmonic mean runs over all sessions one by one",
            "Two numbers: the base accuracy, and the mean of the new sessions.",
        ),
        Wrong(
            "nought over nought",
            lambda a: (_forgetting(a), float((2 * a[-1, 0] * a[-1, 1:].mean()) / (a[-1, 0] + a[-1, 1:].mean()))),
            "the harmonic mean divides by 0 where nothing is known any more",
            "Return 0.0 where b + n is 0.",
            also=(_mean_of(lambda b, n: 2 * b * n / (b + n)),),
        ),
        Wrong(
            "the diagonal is the end",
            lambda a: (
                _forgetting(a),
                2 * float(a[0, 0] * a.diagonal()[1:].mean() / (a[0, 0] + a.diagonal()[1:].mean())),
            ),
            "an accuracy from right after learning is joined where the one at the end belongs",
            "Both numbers come from the last row.",
            also=(
                lambda a: (_forgetting(a), _joined(a[0, 0], a[-1, 1:].mean())),
                lambda a: (_forgetting(a), _joined(a[-1, 0], a.diagonal()[1:].mean())),
            ),
        ),
        Wrong(
            "the mean over time",
            lambda a: (_forgetting(a), _joined(a[:, 0].mean(), a[-1, 1:].mean())),
            "an accuracy is averaged over the sessions in which it was measured",
            "Both numbers are from the end: the last row.",
            also=(lambda a: (_forgetting(a), _joined(a[-1, 0], a[:, 1:].nanmean())),),
        ),
        Wrong(
            "tensors",
            lambda a: tuple(torch.tensor(value, dtype=a.dtype) for value in judge_stream(a)),
            "a tensor comes back where a Python float is asked for",
            "`float(...)` or `.item()`.",
            also=(
                lambda a: (torch.tensor(_forgetting(a), dtype=a.dtype), _harmonic(a)),
                lambda a: (_forgetting(a), torch.tensor(_harmonic(a), dtype=a.dtype)),
                lambda a: torch.tensor(judge_stream(a), dtype=a.dtype),
            ),
        ),
        Wrong(
            "rounded",
            lambda a: (round(_forgetting(a), 2), round(_harmonic(a), 2)),
            "the numbers are rounded",
            "Round where you print, not where you compute.",
            also=(lambda a: (round(_forgetting(a), 3), round(_harmonic(a), 3)),),
        ),
        Wrong(
            "written into",
            _written_into,
            "the table that was passed in is written into",
            "`nan_to_num` and `torch.where` make copies; `accuracy[mask] = ...` does not.",
        ),
        Wrong(
            "exchanged",
            lambda a: judge_stream(a)[::-1],
            "the two numbers have changed places",
            "Forgetting first, then the harmonic mean.",
        ),
        Wrong(
            "rows for columns",
            lambda a: (float((a[:-1, :-1].nan_to_num(-math.inf).amax(1) - a[-1, :-1]).mean()), _harmonic(a)),
            "the best of each row is taken: that compares different letters after one session",
            "Best of each *column*: the same letters after different sessions.",
        ),
    ),
    hints=(
        "Row: when; column: which letters. Which entries speak of the same letters at different times?",
        "Forgetting: the largest value of each column above the last row, minus the last row, averaged over all columns but the "
        "last. Harmonic mean: 2bn / (b + n) of the last row's first entry and of the mean of its others.",
        "`best = accuracy[:-1, :-1].nan_to_num(-1).amax(0)`; `float((best - accuracy[-1, :-1]).mean())`",
    ),
)

# ---------------------------------------------------------------------------------------------- 24.3 the penalty of EWC


def penalty(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    """Returns strength / 2 * sum_i F_i (theta_i - theta*_i)^2 over what the anchor knows, a scalar."""
    parts = [(fisher[name] * (params[name][: len(old)] - old).square()).sum() for name, old in anchor.items()]
    return strength / 2 * torch.stack(parts).sum()


def _penalty_by_loop(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    total = next(iter(params.values())).new_zeros(())
    for name in anchor:
        rows = anchor[name].shape[0]
        gap = params[name].narrow(0, 0, rows) - anchor[name]
        total = total + strength * 0.5 * (fisher[name] * gap * gap).sum()
    return total


def _penalty_in_a_row(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    now = torch.cat([params[k][: len(v)].flatten() for k, v in anchor.items()])
    was = torch.cat([v.flatten() for v in anchor.values()])
    weight = torch.cat([fisher[k].flatten() for k in anchor])
    return 0.5 * strength * torch.dot(weight, (now - was) ** 2)


def _penalty_by_padding(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    value = torch.zeros((), dtype=next(iter(params.values())).dtype)
    for name, old in anchor.items():
        gap = params[name][: old.shape[0]].sub(old).flatten()
        value = value + (gap @ (fisher[name].flatten() * gap))
    return value * strength / 2


def _penalty_by_roots(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    parts = ((fisher[k].sqrt() * (params[k][: len(a)] - a)).pow(2).sum() for k, a in anchor.items())
    return strength * sum(parts) / 2


def _summed(
    term: Callable[[Tensor, Tensor, Tensor], Tensor], factor: Callable[[float], float] = lambda s: s / 2
) -> Callable:
    """Returns a wrong answer: term(params, anchor, fisher) of each tensor, summed, times factor(strength)."""

    def answer(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
        parts = [term(params[k][: len(a)], a, fisher[k]) for k, a in anchor.items()]
        return factor(strength) * torch.stack(parts).sum()

    return answer


_FACTORS = (lambda s: s / 4, lambda s: s, lambda s: 0.5)


def _summed_uncut(term: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """Returns a wrong answer like that of `_summed` whose term gets the parameters with all their rows."""
    return lambda p, a, f, s: s / 2 * torch.stack([term(p[k], a[k], f[k]) for k in a]).sum()


def _square(p: Tensor, a: Tensor, f: Tensor) -> Tensor:
    return (f * (p - a).square()).sum()


def _tail_pulled_to_zero(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    """Fills the anchor up with zeros and the Fisher information with ones: new rows are pulled to 0."""
    parts = []
    for k, a in anchor.items():
        new = len(params[k]) - len(a)
        grown = [torch.cat([t, torch.full_like(params[k][:new], fill)]) for t, fill in ((a, 0.0), (fisher[k], 1.0))]
        parts.append((grown[1] * (params[k] - grown[0]).square()).sum())
    return strength / 2 * torch.stack(parts).sum()


def _last_rows(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    parts = [(fisher[k] * (params[k][-len(a) :] - a).square()).sum() for k, a in anchor.items()]
    return strength / 2 * torch.stack(parts).sum()


def _grown_left_out(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    same = [k for k, a in anchor.items() if params[k].shape == a.shape]
    return strength / 2 * sum(((fisher[k] * (params[k] - anchor[k]).square()).sum() for k in same), torch.zeros(()))


def _first_only(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    name = next(iter(anchor))
    return penalty(params, {name: anchor[name]}, fisher, strength)


def _last_only(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    name = list(anchor)[-1]
    return penalty(params, {name: anchor[name]}, fisher, strength)


def _by_place(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    places = zip(params.values(), anchor.values(), fisher.values(), strict=False)
    return strength / 2 * sum((f * (p[: len(a)] - a) ** 2).sum() for p, a, f in places)


def _fisher_by_place(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    places = zip(anchor.items(), fisher.values(), strict=False)
    return strength / 2 * sum((f * (params[k][: len(a)] - a) ** 2).sum() for (k, a), f in places)


def _names_of_params(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    return strength / 2 * sum((fisher[k] * (p[: len(anchor[k])] - anchor[k]) ** 2).sum() for k, p in params.items())


def _free_to_zero(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    free = sum((p**2).sum() for k, p in params.items() if k not in anchor)
    return penalty(params, anchor, fisher, strength) + strength / 2 * free


def _cut_in_place(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    for k, a in anchor.items():
        params[k].data = params[k].data[: len(a)]
    return penalty(params, anchor, fisher, strength)


def _entries_replaced(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    for k, a in anchor.items():
        params[k] = params[k][: len(a)]
    return penalty(params, anchor, fisher, strength)


def _without_graph(params: Params, anchor: Params, fisher: Params, strength: float) -> Tensor:
    total = 0.0
    for k, a in anchor.items():
        with torch.no_grad():
            gap = params[k][: len(a)] - a
        total = total + (fisher[k] * gap.square()).sum()
    return strength / 2 * total


def _ewc_cases(generator: Generator) -> list[Case]:
    def drawn(shapes: dict[str, tuple[int, ...]], new: int, strength: float, dtype: torch.dtype) -> tuple:
        anchor = {k: torch.randn(s, generator=generator, dtype=dtype) for k, s in shapes.items()}
        fisher = {k: torch.rand(s, generator=generator, dtype=dtype) for k, s in shapes.items()}
        params = {k: a + 0.5 * torch.randn(a.shape, generator=generator, dtype=dtype) for k, a in anchor.items()}
        if new:
            more = torch.randn((new, *shapes["head"][1:]), generator=generator, dtype=dtype)
            params["head"] = torch.cat([params["head"], more])
        return params, anchor, fisher, strength

    one = {"w": torch.tensor([1.5])}, {"w": torch.tensor([1.0])}, {"w": torch.tensor([4.0])}, 2.0
    shapes = {"conv": (2, 1, 3), "head": (3, 2)}
    at_rest = drawn(shapes, 0, 3.0, torch.float32)
    params, anchor, fisher, _ = drawn({"bias": (3,), **shapes}, 2, 2.0, torch.float32)
    mixed = {"head": params["head"], "bias": params["bias"], "conv": params["conv"]}
    more = mixed | {
        "batches": torch.tensor([7, 3])
    }  # whole numbers: the reference has no gradient through a free tensor
    return [
        Case("the example on paper", one),
        Case("a kernel and a head", drawn(shapes, 0, 3.0, torch.float32)),
        Case("a head that has grown by two rows", drawn(shapes, 2, 0.7, torch.float32)),
        Case("a head that has grown to more than double", drawn(shapes, 4, 10.0, torch.float32)),
        Case("at the anchor", (dict(at_rest[1]), at_rest[1], at_rest[2], 3.0)),
        Case("the names in another order", (mixed, anchor, dict(reversed(fisher.items())), 2.0)),
        Case("`params` has a name that the anchor lacks", (more, anchor, fisher, 2.0)),
        Case("float64", drawn(shapes, 1, 5.0, torch.float64)),
    ]


EWC = Exercise(
    id="24.3",
    title="The penalty of EWC",
    reference=penalty,
    cases=_ewc_cases,
    gradient=(0,),
    right=(_penalty_by_loop, _penalty_in_a_row, _penalty_by_padding, _penalty_by_roots),
    wrong=(
        Wrong(
            "without the half",
            _summed(_square, lambda s: s),
            "the 1/2 is missing, or stands twice",
            "`strength / 2` times the sum.",
            also=(_summed(_square, lambda s: s / 4), _summed(_square, lambda s: 2 * s)),
        ),
        Wrong(
            "without strength",
            _summed(_square, lambda s: 0.5),
            "the strength is left out",
            "Multiply by `strength / 2`.",
            also=(_summed(_square, lambda s: 1.0),),
        ),
        Wrong(
            "not squared",
            _summed(lambda p, a, f: (f * (p - a).abs()).sum()),
            "the differences are not squared",
            "`.square()`: the penalty is a parabola around the anchor.",
            also=(_summed(lambda p, a, f: (f * (p - a)).sum()),),
        ),
        Wrong(
            "without Fisher",
            _summed(lambda p, a, f: (p - a).square().sum()),
            "every weight counts the same: the Fisher information is left out",
            "Multiply each square by its own `fisher` entry.",
        ),
        Wrong(
            "Fisher inside the square",
            _summed(lambda p, a, f: (f * (p - a)).square().sum()),
            "the Fisher information is squared, too",
            "Square the difference first, then multiply.",
            also=tuple(_summed(lambda p, a, f: (f * (p - a)).square().sum(), factor) for factor in _FACTORS),
        ),
        Wrong(
            "square of the sum",
            _summed(lambda p, a, f: (f * (p - a)).sum().square()),
            "the differences are summed before they are squared: they cancel each other",
            "Square each difference, then sum.",
            also=(
                _summed(lambda p, a, f: (f * (p - a)).sum() ** 2 / f.sum()),
                _summed(lambda p, a, f: f.sum() * (p - a).sum().square()),
            ),
        ),
        Wrong(
            "means",
            _summed(lambda p, a, f: (f * (p - a).square()).mean()),
            "the squares are averaged over a tensor and not summed",
            "`.sum()`: a large tensor has more weights to hold.",
        ),
        Wrong(
            "a root at the end",
            _summed(lambda p, a, f: (f * (p - a).square()).sum().clamp_min(1e-30).sqrt()),
            "a root is taken of the sum of squares: that is a length, and not its square",
            "Sum the squares, and take no root.",
            also=(
                lambda p, a, f, s: penalty(p, a, f, s).clamp_min(1e-30).sqrt(),
                _summed(lambda p, a, f: (f * (p - a).square()).sum().sqrt()),
            ),
        ),
        Wrong(
            "a root, and squared again",
            _summed(lambda p, a, f: (f * (p - a).square()).sum().sqrt() ** 2),
            "a root is taken and squared again: at the anchor its gradient is not a number",
            "Sum the squares, and take no root.",
        ),
        Wrong(
            "strength squared",
            _summed(_square, lambda s: (s / 2) ** 2),
            "the strength is squared, too",
            "`strength / 2` times the sum, once.",
            also=(_summed(_square, lambda s: s**2 / 2),),
        ),
        Wrong(
            "divided by strength",
            _summed(_square, lambda s: 1 / (2 * s)),
            "the sum is divided by the strength",
            "Multiply by `strength / 2`: stronger springs cost more.",
            also=(_summed(_square, lambda s: 2 / s), _summed(_square, lambda s: 1 / s)),
        ),
        Wrong(
            "plus",
            _summed(lambda p, a, f: (f * (p + a).square()).sum()),
            "the anchor is added, and not taken away",
            "The difference `params - anchor` is squared.",
        ),
        Wrong(
            "anchor and Fisher exchanged",
            _summed(lambda p, a, f: (a * (p - f).square()).sum()),
            "anchor and Fisher information have changed places",
            "`fisher` is the stiffness, `anchor` the place where a spring is at rest.",
        ),
        Wrong(
            "by place",
            _by_place,
            "tensors are paired by their place in the dicts, and not by their names",
            "Loop over the names of `anchor`, and look each one up in the other dicts.",
            also=(_fisher_by_place,),
        ),
        Wrong(
            "the names of params",
            _names_of_params,
            "the loop runs over the names of `params`, and the anchor does not know all of them",
            "Loop over the names of `anchor`: what came later is free.",
        ),
        Wrong(
            "new names pulled to zero",
            _free_to_zero,
            "tensors that the anchor does not know are pulled to 0",
            "They are free: sum over the names of `anchor` only.",
        ),
        Wrong(
            "written into",
            _cut_in_place,
            "the dict that was passed in, or a tensor in it, is changed",
            "Cut a copy: `params[name][: len(old)]` without assigning it to `params`.",
            also=(_entries_replaced,),
        ),
        Wrong(
            "columns",
            _summed_uncut(lambda p, a, f: (f * (p[:, : a.shape[1]] - a).square()).sum()),
            "columns are cut, and not rows",
            "New classes are new *rows*: `params[name][: len(old)]`.",
        ),
        Wrong(
            "one entry in a list",
            lambda p, a, f, s: penalty(p, a, f, s).reshape(1),
            "a tensor with one entry comes back, and not a scalar",
            "`.sum()` of everything has shape []: no `reshape(1)`, no list around it.",
        ),
        Wrong(
            "pulled to zero",
            _summed(lambda p, a, f: (f * p.square()).sum()),
            "the weights are pulled to 0 and not to the anchor",
            "The difference `params - anchor` is squared.",
        ),
        Wrong(
            "new rows pulled to zero",
            _tail_pulled_to_zero,
            "the new rows of the head are pulled to 0, too",
            "Only the first `len(anchor[name])` rows are held; new rows are free.",
        ),
        Wrong(
            "the last rows",
            _last_rows,
            "the last rows of a grown head are compared with the anchor, and those belong to new classes",
            "The old rows come first: `params[name][: len(old)]`.",
        ),
        Wrong(
            "the grown head left out",
            _grown_left_out,
            "a tensor that has grown is left out altogether",
            "Its old rows are held: `params[name][: len(old)]`.",
        ),
        Wrong(
            "the first tensor only",
            _first_only,
            "only one tensor of the dict is held",
            "Sum over all names of the anchor.",
            also=(_last_only,),
        ),
        Wrong(
            "does not fit",
            lambda p, a, f, s: s / 2 * sum((f[k] * (p[k] - a[k]).square()).sum() for k in a),
            "tensors of different size are subtracted: a head that has grown has more rows than its anchor",
            "Compare the old rows: `params[name][: len(old)]`.",
        ),
        Wrong(
            "the sign",
            _summed(_square, lambda s: -s / 2),
            "the penalty has a minus: it drives the weights away from the anchor",
            "It is added to a loss that is minimised, so it must grow with the distance.",
        ),
        Wrong(
            "the root of Fisher",
            _summed(lambda p, a, f: (f.sqrt() * (p - a).square()).sum()),
            "the root of the Fisher information is taken, but the differences alone are squared",
            "Multiply the square by `fisher` itself.",
        ),
        Wrong(
            "averaged over the tensors",
            lambda p, a, f, s: penalty(p, a, f, s) / len(a),
            "the sum is divided by the number of tensors",
            "A sum over all weights of all tensors, and no mean.",
        ),
        Wrong(
            "one stiffness for a tensor",
            _summed(lambda p, a, f: f.mean() * (p - a).square().sum()),
            "all weights of a tensor get one stiffness, the mean or the sum of its Fisher information",
            "Each weight has an entry of its own: multiply entry by entry, then sum.",
            also=(_summed(lambda p, a, f: f.sum() * (p - a).square().sum()),),
        ),
        Wrong(
            "divided by Fisher",
            _summed(lambda p, a, f: ((p - a).square() / f).sum()),
            "the squares are divided by the Fisher information: what matters most would be held least",
            "Multiply.",
        ),
        Wrong(
            "without gradient",
            lambda p, a, f, s: penalty({k: v.detach() for k, v in p.items()}, a, f, s),
            "the penalty is cut off from the parameters",
            "No `.detach()`, no `.item()`, no `no_grad`, no `torch.tensor(...)`.",
            also=(
                lambda p, a, f, s: torch.tensor(float(penalty(p, a, f, s))),
                _without_graph,
            ),
        ),
        Wrong(
            "a number",
            lambda p, a, f, s: float(penalty(p, a, f, s)),
            "a Python number comes back, through which no gradient flows",
            "Return the tensor.",
        ),
        Wrong(
            "one for each tensor",
            lambda p, a, f, s: torch.stack([_square(p[k][: len(a[k])], a[k], f[k]) for k in a]) * s / 2,
            "one number for each tensor comes back",
            "Sum over the tensors, too.",
        ),
        Wrong(
            "the gradient",
            _summed(lambda p, a, f: (f * (p - a)).sum(), lambda s: s),
            "the gradient of the penalty is summed, and not the penalty itself",
            "Square the differences and multiply by strength / 2.",
        ),
    ),
    hints=(
        "Each weight hangs on a spring. Which entry says how stiff its spring is?",
        "For every name of the anchor: take the first rows of the parameter, as many as the anchor has; square the difference; "
        "multiply by `fisher[name]`; sum everything.",
        "`(fisher[name] * (params[name][: len(old)] - old).square()).sum()`",
    ),
)

# ---------------------------------------------------------------------------------------------- 24.4 a choice that saw the test


def exposes_choice(choose: Callable[[Tensor, Tensor], int], moments: int) -> bool:
    """Returns True if choose(validation, test) depends on test. Both tables are float [moments]."""
    generator = Generator().manual_seed(0)
    for level in (2, 5, 100):  # coarse tables have ties
        for _ in range(12):
            validation = torch.randint(level, (moments,), generator=generator) / level
            tests = [torch.zeros(moments), torch.ones(moments), *torch.eye(moments)]
            tests += [torch.rand(moments, generator=generator) for _ in range(4)]
            if len({int(choose(validation.clone(), test.clone())) for test in tests}) > 1:
                return True
    return False


def _exposes_by_nan(choose: Callable, moments: int) -> bool:
    """Compares random test tables with their reverse and with one peak, at validation tables with and without ties."""
    for seed in range(40):
        g = Generator().manual_seed(seed)
        validation = torch.rand(moments, generator=g).mul(1 + seed % 5).round() / 5
        first = int(choose(validation, torch.rand(moments, generator=g)))
        for peak in range(moments):
            test = torch.full((moments,), 0.2)
            test[peak] = 0.9
            if int(choose(validation, test)) != first:
                return True
    return False


def _exposes_by_many_pairs(choose: Callable, moments: int) -> bool:
    for seed in range(150):
        g = Generator().manual_seed(seed)
        validation = torch.full((moments,), 0.5) if seed % 3 == 0 else torch.rand(moments, generator=g)
        if seed % 3 == 1:
            validation = (validation * 3).round() / 3
        a, b = torch.rand(2, moments, generator=g)
        if choose(validation.clone(), a) != choose(validation.clone(), b):
            return True
    return False


def _exposes_by_permuting(choose: Callable, moments: int) -> bool:
    g = Generator().manual_seed(7)
    for trial in range(60):
        validation = torch.zeros(moments) if trial < 20 else torch.randint(3, (moments,), generator=g) / 3
        test = torch.linspace(0, 1, moments)
        answers = {int(choose(validation, test[torch.randperm(moments, generator=g)])) for _ in range(8)}
        if len(answers) != 1:
            return True
    return False


def _exposes_by_numpy(choose: Callable, moments: int) -> bool:
    import numpy as np

    rng, found = np.random.default_rng(0), False
    for k in range(100):
        validation = torch.tensor(rng.integers(0, 2 + k % 7, moments) / 8, dtype=torch.float32)
        answers = [choose(validation, torch.tensor(rng.random(moments), dtype=torch.float32)) for _ in range(5)]
        found |= any(int(a) != int(answers[0]) for a in answers[1:])
    return found


def _first_best(validation: Tensor, test: Tensor) -> int:
    return int(validation.argmax())


def _last_best(validation: Tensor, test: Tensor) -> int:
    return len(validation) - 1 - int(validation.flip(0).argmax())


def _patient(validation: Tensor, test: Tensor) -> int:
    """Stops as soon as two moments in a row have not been better."""
    values, best = validation.tolist(), 0
    for t in range(1, len(values)):
        if values[t] > values[best]:
            best = t
        elif t - best >= 2:
            break
    return best


def _smooth(validation: Tensor, test: Tensor) -> int:
    values = validation.tolist()
    padded = [values[0], *values, values[-1]]
    sums = [sum(padded[t : t + 3]) for t in range(len(values))]
    return sums.index(max(sums))


def _good_enough(validation: Tensor, test: Tensor) -> int:
    values = validation.tolist()
    return [value >= 0.95 * max(values) for value in values].index(True)


def _tie_by_test(validation: Tensor, test: Tensor) -> int:
    return int(torch.where(validation == validation.max(), test, -1.0).argmax())


def _only_where(part: slice) -> Callable:
    def choose(validation: Tensor, test: Tensor) -> int:
        score = validation.clone()
        score[part] = score[part] + test[part]
        return int(score.argmax())

    return choose


def _rejects(validation: Tensor, test: Tensor) -> int:
    """Takes the best of validation, unless the test is below its own mean there; then the last moment."""
    best = int(validation.argmax())
    return best if test[best] >= test.mean() else len(validation) - 1


def _waits_for(validation: Tensor, test: Tensor) -> int:
    """Stops at the first moment at which the test is above 0.6, or takes the best of validation."""
    above = (test > 0.6).nonzero()
    return int(above[0, 0]) if len(above) else int(validation.argmax())


def _by_order(validation: Tensor, test: Tensor) -> int:
    """The best validation among the later half in the order of the test."""
    order = test.argsort()[len(test) // 2 :]
    return int(order[validation[order].argmax()])


def _last_moves(validation: Tensor, test: Tensor) -> int:
    """Looks at the test only to decide between the best moment and the next one."""
    best = int(validation.argmax())
    after = min(best + 1, len(validation) - 1)
    return after if test[after] > test[best] else best


def _still_rising(validation: Tensor, test: Tensor) -> int:
    """Takes the best of the test where validation is best at its last moment and still rises, as if training should go on."""
    rises = validation[-1] > validation[-2] and validation[-1] >= validation.max()
    return int((test if rises else validation).argmax())


def _falls_in_the_end(validation: Tensor, test: Tensor) -> int:
    """Takes the best of both together where validation falls in the last moment."""
    return int((validation + test if validation[-1] < validation[-2] else validation).argmax())


def _logs_both(validation: Tensor, test: Tensor) -> int:
    """Writes both tables down, moment by moment, and chooses by validation."""
    log, kept, best = [], 0, -1.0
    for moment, (score, other) in enumerate(zip(validation.tolist(), test.tolist(), strict=True)):
        log.append((moment, score, other))
        if score > best:
            kept, best = moment, score
    return kept


def _centred(validation: Tensor, test: Tensor) -> int:
    return int((validation + test - test.mean()).argmax())


def _choice_cases(generator: Generator) -> list[Case]:
    sound = [
        ("a right one: the first best of validation", _first_best),
        ("a right one: the last best of validation", _last_best),
        ("a right one: it stops when validation no longer rises", _patient),
        ("a right one: validation smoothed over three moments", _smooth),
        ("a right one: always the last moment", lambda v, t: len(v) - 1),
        (
            "a right one: the first moment above 95 % of the best validation",
            _good_enough,
        ),
        ("a right one that answers with a tensor", lambda v, t: v.argmax()),
        ("a right one that writes both tables down, and chooses by validation", _logs_both),
    ]
    broken = [
        ("the best of the test", lambda v, t: int(t.argmax())),
        ("the best of the sum of both", lambda v, t: int((v + t).argmax())),
        ("the best of the sum, test centred", _centred),
        ("validation, and the test with a weight of one thousandth", lambda v, t: int((v + 1e-3 * t).argmax())),
        ("the test decides ties only", _tie_by_test),
        ("the test is looked at in the first moments only", _only_where(slice(0, 2))),
        ("the test is looked at in the last moment only", _only_where(slice(-1, None))),
        ("the best of validation is rejected where the test is poor", _rejects),
        ("training stops as soon as the test is good", _waits_for),
        ("the order of the test decides which moments take part", _by_order),
        ("the test decides between the best moment and the next", _last_moves),
        ("the worst of the test is avoided", lambda v, t: int((v - 10.0 * (t == t.min())).argmax())),
        ("the test is looked at only where validation is best at the last moment", _still_rising),
        ("the test is looked at only where validation falls in the end", _falls_in_the_end),
    ]
    return [
        *[Case(says, (rule, 6)) for says, rule in broken],
        *[Case(says, (rule, 6)) for says, rule in sound],
        Case("the best of the test, among ten moments", (broken[0][1], 10)),
        Case("a right one, among ten moments", (_first_best, 10)),
    ]


def _tried(tables: Callable[[int, Generator], tuple[Tensor, list[Tensor]]], times: int = 40) -> Callable:
    """Returns a detector: rings if the choice differs among the test tables that tables(moments, generator) gives."""

    def detector(choose: Callable, moments: int) -> bool:
        generator = Generator().manual_seed(3)
        for _ in range(times):
            validation, tests = tables(moments, generator)
            if len({int(choose(validation, test)) for test in tests}) > 1:
                return True
        return False

    return detector


def _changes(
    tables: Callable[[int], tuple[Tensor, list[Tensor]]], times: int = 100, least: int = 1, flat: int = 0
) -> Callable:
    """Returns a detector that draws as a reader would, from the global generator: rings if the choice changes often enough.

    tables: moments -> a validation table and the test tables to compare; least: at how many of them the choice must change;
    flat: pairs of test tables that are tried at a flat validation table, too
    """

    def detector(choose: Callable, moments: int) -> bool:
        changed = 0
        for _ in range(times):
            validation, tests = tables(moments)
            changed += len({int(choose(validation, test)) for test in tests}) > 1
            if changed >= least:
                return True
        even = torch.full((moments,), 0.5)
        changed += any(
            int(choose(even, torch.rand(moments))) != int(choose(even, torch.rand(moments))) for _ in range(flat)
        )
        return changed >= least

    return detector


def _draws(count: int) -> Callable[[int], tuple[Tensor, list[Tensor]]]:
    """Draws validation without ties, and `count` test tables."""
    return lambda n: (torch.rand(n), [torch.rand(n) for _ in range(count)])


def _rough(n: int) -> Tensor:
    """Validation with ties: values 0, 1/2 and 1."""
    return (torch.rand(n) * 2).round() / 2


def _thirds(n: int) -> Tensor:
    return torch.randint(0, 3, (n,)) / 3


def _one_draw(asks: Callable[[Callable, Tensor, Tensor], bool], times: int = 1, rough: bool = False) -> Callable:
    """Returns a detector that rings if asks(choose, validation, test) is true for one of some random pairs of tables."""

    def detector(choose: Callable, moments: int) -> bool:
        for _ in range(times):
            v, t = _rough(moments) if rough else torch.rand(moments), torch.rand(moments)
            if asks(choose, v, t):
                return True
        return False

    return detector


def _flat_and_one_random(choose: Callable, moments: int) -> bool:
    validations = torch.full((moments,), 0.5), torch.rand(moments)
    return any(len({int(choose(v, torch.rand(moments))) for _ in range(6)}) > 1 for v in validations)


def _one_hot_by_one_hot(choose: Callable, moments: int) -> bool:
    for m in range(moments):
        v, t = torch.rand(moments), torch.zeros(moments)
        t[m] = 1
        if int(choose(v, t)) != int(choose(v, torch.zeros(moments))):
            return True
    return False


def _by_identity(choose: Callable, moments: int) -> bool:
    pairs = [(_rough(moments), torch.rand(moments), torch.rand(moments)) for _ in range(60)]
    return any(choose(v, a) is not choose(v, b) for v, a, b in pairs)


def _raised_at_the_end(validation: Callable[[int], Tensor], place: int = -1) -> Callable:
    def detector(choose: Callable, moments: int) -> bool:
        for _ in range(60):
            v, t = validation(moments), torch.rand(moments)
            first = int(choose(v, t))
            t[place] = 1.0
            if int(choose(v, t)) != first:
                return True
        return False

    return detector


def _without_test(kinds: tuple[type[Exception], ...]) -> Callable:
    """Returns a detector that gives None in place of the test table and rings on the errors of some kinds."""

    def detector(choose: Callable, moments: int) -> bool:
        try:
            choose(torch.rand(moments), None)
        except kinds:
            return True
        return False

    return detector


def _in_the_source(*words: str) -> Callable:
    import inspect

    return lambda choose, n: any(word in inspect.getsource(choose) for word in words)


def _rand(moments: int, generator: Generator) -> Tensor:
    return torch.rand(moments, generator=generator)


def _spread(moments: int, generator: Generator) -> Tensor:
    """Validation whose best value stands far out: no tie, and no close second."""
    return torch.randperm(moments, generator=generator) / moments


def _compares_with(rule: Callable[[Tensor, Tensor], int], coarse: bool = True) -> Callable:
    """Returns a detector that rings where the choice is not that of one rule."""

    def detector(choose: Callable, moments: int) -> bool:
        g = Generator().manual_seed(1)
        tables = [torch.randint(4, (moments,), generator=g) / 4 if coarse else _rand(moments, g) for _ in range(30)]
        pairs = [(table, _rand(moments, g)) for table in tables]
        return any(int(choose(v, t)) != int(rule(v, t)) for v, t in pairs)

    return detector


def _equals_best_of_test(choose: Callable, moments: int) -> bool:
    g = Generator().manual_seed(1)
    pairs = [(_rand(moments, g), _rand(moments, g)) for _ in range(30)]
    return all(int(choose(v, t)) == int(t.argmax()) for v, t in pairs)


def _often_best_of_test(choose: Callable, moments: int) -> bool:
    g = Generator().manual_seed(1)
    pairs = [(_rand(moments, g), _rand(moments, g)) for _ in range(30)]
    return any(int(choose(v, t)) == int(t.argmax()) for v, t in pairs)


def _better_than_chance(choose: Callable, moments: int) -> bool:
    """Rings where the chosen moment has a test value above the mean, on average."""
    g = Generator().manual_seed(1)
    gains = []
    for _ in range(50):
        v, t = _rand(moments, g), _rand(moments, g)
        gains.append(float(t[int(choose(v, t))] - t.mean()))
    return sum(gains) / len(gains) > 0.1


def _moves_validation(choose: Callable, moments: int) -> bool:
    g = Generator().manual_seed(1)
    test = _rand(moments, g)
    return len({int(choose(_rand(moments, g), test)) for _ in range(20)}) > 1


CHOICE = Exercise(
    id="24.4",
    title="Bug hunt: who chose the moment?",
    reference=exposes_choice,
    cases=_choice_cases,
    right=(_exposes_by_nan, _exposes_by_many_pairs, _exposes_by_permuting, _exposes_by_numpy),
    wrong=(
        Wrong(
            "not the best of validation",
            _compares_with(_first_best),
            "a rule rings as soon as it does not take the best of validation: the last moment, or waiting, is honest, too",
            "Ask one thing: does the choice change when only the *test* table changes?",
            also=(
                _one_draw(lambda choose, v, t: int(choose(v, t)) != int(v.argmax())),
                _one_draw(lambda choose, v, t: int(choose(v, t)) != int(v.argmax()), times=100),
                _one_draw(lambda choose, v, t: int(choose(v, torch.zeros_like(t))) != int(v.argmax()), times=100),
                _one_draw(lambda choose, v, t: float(v[int(choose(v, t))]) < float(v.max()), times=100, rough=True),
                _compares_with(_last_best),
                _compares_with(_patient),
                _compares_with(_first_best, coarse=False),
            ),
        ),
        Wrong(
            "equal to the best of the test",
            _equals_best_of_test,
            "only a rule rings that always takes the best of the test: a rule that mixes both passes",
            "Change the test table alone, and see whether the choice changes.",
        ),
        Wrong(
            "sometimes the best of the test",
            _often_best_of_test,
            "the alarm rings as soon as the choice once falls on the best of the test, which an honest rule meets by luck",
            "Change the test table alone, and see whether the choice changes.",
            also=(_one_draw(lambda choose, v, t: int(choose(v, t)) == int(t.argmax())),),
        ),
        Wrong(
            "better than chance",
            _better_than_chance,
            "the alarm waits until the chosen moments are good on the test on average: rules that look a little pass",
            "One choice that changes with the test table is enough.",
        ),
        Wrong(
            "few tables",
            _tried(lambda n, g: (_rand(n, g), [_rand(n, g), _rand(n, g)]), times=1),
            "few tables are tried, or test tables that hardly differ, and a rule may give one answer for all of them by luck",
            "Try dozens of validation tables, with ties and without, and several independent test tables at each of them.",
            also=(
                _changes(_draws(2), times=1),
                _changes(lambda n: ((torch.rand(n) * 3).round() / 3, [torch.rand(n), torch.rand(n)]), times=1),
                _changes(lambda n: (_rough(n), [torch.rand(n), torch.rand(n)]), times=1),
                _changes(lambda n: (_thirds(n), [torch.rand(n), torch.rand(n)]), times=1),
                _changes(lambda n: (torch.rand(n), [(t := torch.rand(n)), t.flip(0)]), times=1),
                _changes(_draws(20), times=1),
                _one_hot_by_one_hot,
                _flat_and_one_random,
            ),
        ),
        Wrong(
            "no ties",
            _tried(lambda n, g: (_spread(n, g), [_rand(n, g) for _ in range(6)])),
            "the validation tables have no ties: a rule that looks at the test in doubt only passes",
            "Mix in validation tables with equal values: `torch.randint(3, (moments,)) / 3`.",
            also=(
                _changes(_draws(2)),
                _one_draw(lambda choose, v, t: int(choose(v, t)) != int(choose(v, torch.full_like(t, torch.nan)))),
                _tried(lambda n, g: (_spread(n, g), [_rand(n, g).mul(0.2) for _ in range(4)])),
                _tried(lambda n, g: (_rand(n, g) / 100, [_rand(n, g) for _ in range(4)])),
            ),
        ),
        Wrong(
            "constant tables",
            _tried(lambda n, g: (torch.randint(3, (n,), generator=g) / 3, [torch.zeros(n), torch.ones(n)])),
            "the test tables that are tried are constant: they prefer no moment",
            "Test tables with different values: `torch.rand(moments)`.",
        ),
        Wrong(
            "the same order",
            _tried(
                lambda n, g: (torch.randint(3, (n,), generator=g) / 3, [(t := _rand(n, g)), t / 2, 0.1 * t + 0.4]),
            ),
            "the test tables differ in size only, and their order stays: a rule that looks for the best one does not change",
            "Draw new tables, so that the best moment changes, too.",
            also=(_tried(lambda n, g: (torch.randint(3, (n,), generator=g) / 3, [(t := _rand(n, g)), t + 0.01])),),
        ),
        Wrong(
            "never",
            _tried(
                lambda n, g: (
                    torch.randint(3, (n,), generator=g) / 3,
                    [(t := _rand(n, g)), t + 1e-4 * (_rand(n, g) - 0.5)],
                )
            ),
            "no rule makes this alarm ring, not even the plain best of the test: it never meets two choices that differ",
            "Compare the choices at one validation table and two independent test tables, `torch.rand(moments)` twice.",
        ),
        Wrong(
            "only where it must",
            _changes(lambda n: (_thirds(n), [torch.rand(n), torch.rand(n)]), least=50),
            "the alarm waits until the choice changes at many tables: rules that look at the test now and then pass",
            "One validation table at which the choice changes is enough.",
            also=(
                _changes(_draws(5), times=20, least=20),
                _changes(lambda n: (_thirds(n), [torch.rand(n), torch.rand(n)]), least=30),
            ),
        ),
        Wrong(
            "close to validation",
            _changes(
                lambda n: ((v := (torch.rand(n) * 3).round() / 3), [v + 0.1 * torch.rand(n), v + 0.1 * torch.rand(n)])
            ),
            "the test tables lie close to validation: a rule that follows the test then chooses like an honest one",
            "Draw the test tables freely, so that they contradict validation.",
            also=(_changes(lambda n: ((v := torch.rand(n)), [v + 0.1 * torch.rand(n), v + 0.1 * torch.rand(n)])),),
        ),
        Wrong(
            "by identity",
            _by_identity,
            "choices are compared with `is`, which asks whether they are one object, and not whether they are equal",
            "Compare `int(a) != int(b)`: a rule may answer with a tensor.",
        ),
        Wrong(
            "without a test table",
            _without_test((TypeError,)),
            "a rule rings if it fails without a test table: reading that table is honest, as long as the choice does not change",
            "Give it test tables, and compare the choices.",
            also=(_without_test((Exception,)),),
        ),
        Wrong(
            "reads the source",
            _in_the_source("test["),
            "the alarm searches the text of the rule: a use of the test can be written in many ways, and some do no harm",
            "Run the rule on tables, and compare what it chooses.",
            also=(_in_the_source("test"),),
        ),
        Wrong(
            "validation is changed",
            _moves_validation,
            "the *validation* table differs between the choices that are compared: an honest choice depends on it",
            "Keep validation, and change the test.",
            also=(
                lambda choose, n: _moves_validation(lambda v, t: choose(v, v), n),
                _one_draw(lambda choose, v, t: int(choose(v, t)) != int(choose(t, v))),
                _one_draw(lambda choose, v, t: int(choose(v, t)) != int(choose(t, v)), times=100),
                _one_draw(
                    lambda choose, v, t: int(choose(v, t)) != int(choose(torch.rand(len(v)), torch.rand(len(v))))
                ),
            ),
        ),
        Wrong(
            "exchanged",
            lambda choose, n: exposes_choice(lambda t, v: choose(v, t), n),
            "the two tables have changed places in the call: the alarm asks whether the choice depends on validation",
            "`choose(validation, test)`.",
        ),
        Wrong(
            "turned round",
            lambda choose, n: not exposes_choice(choose, n),
            "True and False have changed places",
            "True means: the choice saw the test.",
        ),
        Wrong(
            "one peak",
            _tried(lambda n, g: (_rand(n, g), [torch.zeros(n), torch.eye(n)[0]])),
            "the test table changes in one moment only, always the same: a rule that looks elsewhere passes",
            "Change all moments.",
            also=(
                _raised_at_the_end(_rough),
                _raised_at_the_end(torch.rand),
                _raised_at_the_end(_rough, place=0),
                _tried(lambda n, g: (torch.randint(3, (n,), generator=g) / 3, [torch.zeros(n), torch.eye(n)[-1]])),
            ),
        ),
        Wrong(
            "flat validation only",
            _tried(lambda n, g: (torch.full((n,), 0.5), [_rand(n, g) for _ in range(6)]), times=1),
            "all validation tables that are tried are flat, or never fall: a rule that looks at the test elsewhere passes",
            "Mix: tables with ties and without, with the best moment anywhere.",
            also=(
                _changes(lambda n: (torch.rand(n).sort().values, [torch.rand(n), torch.rand(n)]), flat=50),
                _tried(lambda n, g: (torch.linspace(0, 1, n), [torch.linspace(0, 1, n), torch.linspace(1, 0, n)]), 1),
                _tried(lambda n, g: (torch.linspace(0.5, 0.9, n), [_rand(n, g), _rand(n, g)]), times=1),
                _tried(lambda n, g: (torch.zeros(n), [torch.zeros(n), torch.linspace(0, 1, n)]), times=1),
            ),
        ),
    ),
    hints=(
        "What must an honest choice not depend on? Which experiment shows that it does not?",
        "Keep a validation table, draw several test tables, and compare the choices. Do so for dozens of validation tables, some "
        "with equal values, because a rule may look at the test only in doubt, or only where validation still rises.",
        "`{int(choose(validation, torch.rand(moments))) for _ in range(10)}` must have one element, for every `validation`, "
        "such as `torch.randint(3, (moments,)) / 3`",
    ),
)

EXERCISES = (GROW, STREAM, EWC, CHOICE)
