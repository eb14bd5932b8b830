"""Exercises of lesson 02: base classes, class means by cosine, a learned scale, a step of a head, memory, imprinting, the probe.

Cases: every exercise builds its own; 02.2 and 02.6 draw their support rows with `_rows`. The detector 02.5 gets predictors as
arguments. They keep their state in closures; `_Fresh` makes them anew for every answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong
from fsl_course.episodes import Episode

# ---------------------------------------------------------------------------------------------- 02.1 slots to base classes


def base_targets(classes: Tensor, slots: Tensor) -> Tensor:
    """Returns the base classes of all pictures of T episodes. classes int64 [T, N], slots int64 [T, S] -> int64 [T*S]."""
    return classes.gather(1, slots).flatten()


def _targets_loop(classes: Tensor, slots: Tensor) -> Tensor:
    return torch.tensor([int(classes[t, slot]) for t, row in enumerate(slots.tolist()) for slot in row])


def _targets_by_row_number(classes: Tensor, slots: Tensor) -> Tensor:
    first = torch.arange(len(classes))[:, None] * classes.shape[1]
    return classes.flatten()[slots + first].reshape(-1)


def _targets_stacked(classes: Tensor, slots: Tensor) -> Tensor:
    return torch.cat([own[row] for own, row in zip(classes, slots, strict=True)])


def _targets_one_hot(classes: Tensor, slots: Tensor) -> Tensor:
    return torch.einsum("tsn,tn->ts", F.one_hot(slots, classes.shape[1]), classes).reshape(-1)


def _target_cases(generator: Generator) -> list[Case]:
    def case(says: str, tasks: int, n_way: int, pictures: int) -> Case:
        classes = torch.rand(tasks, 50, generator=generator).topk(n_way, dim=1).indices
        slots = torch.randint(n_way, (tasks, pictures), generator=generator)
        return Case(says, (classes, slots))

    example = (torch.tensor([[17, 4], [8, 17]]), torch.tensor([[0, 1, 1], [1, 0, 0]]))
    return [
        Case("the example: two episodes of three pictures", example),
        case("4 episodes, 5-way, 15 pictures each", 4, 5, 15),
        case("one episode", 1, 3, 6),
        case("more episodes than classes in each", 6, 2, 4),
    ]


TARGETS = Exercise(
    id="02.1",
    title="From slots back to base classes",
    reference=base_targets,
    cases=_target_cases,
    right=(_targets_loop, _targets_by_row_number, _targets_stacked, _targets_one_hot),
    wrong=(
        Wrong(
            "slots as classes",
            lambda classes, slots: slots.flatten(),
            "the slots themselves are returned: slot 0 then means another letter in every episode, and there is nothing to learn",
            "Look each slot up in the episode's own row of `classes`.",
        ),
        Wrong(
            "classes of the first episode",
            lambda classes, slots: classes[0][slots].flatten(),
            "every slot is looked up in the first episode's classes",
            "Row t of `slots` belongs to row t of `classes`: `classes.gather(1, slots)` keeps them together.",
        ),
        Wrong(
            "classes of the last episode",
            lambda classes, slots: classes[-1][slots].flatten(),
            "every slot is looked up in the last episode's classes, as in a loop that overwrites its result",
            "Collect a row for each episode.",
        ),
        Wrong(
            "every row with every row",
            lambda classes, slots: classes[:, slots].flatten(),
            "`classes[:, slots]` looks up all slots in *every* episode's classes: T times too many numbers",
            "Row t of `slots` belongs to row t of `classes`: `classes.gather(1, slots)` keeps them together.",
        ),
        Wrong(
            "gathered along the episodes",
            lambda classes, slots: classes.gather(0, slots).flatten(),
            "the slots are used as numbers of episodes: `gather` along dim 0",
            "A slot is a place in its episode's row: `classes.gather(1, slots)`.",
        ),
        Wrong(
            "not flattened",
            lambda classes, slots: classes.gather(1, slots),
            "the episodes are still apart: [T, S]",
            "`.flatten()` joins them into one batch, [T*S].",
        ),
        Wrong(
            "pictures first",
            lambda classes, slots: classes.gather(1, slots).T.flatten(),
            "the first pictures of all episodes come first: the order of the pictures is another one",
            "Flatten without transposing: first all pictures of episode 0, then those of episode 1.",
        ),
        Wrong(
            "sorted classes",
            lambda classes, slots: classes.sort(1).values.gather(1, slots).flatten(),
            "the classes are sorted before the slots are looked up",
            "Slots are a random permutation: leave `classes` as it is.",
        ),
        Wrong(
            "numbered afresh",
            lambda classes, slots: classes.gather(1, slots).unique(return_inverse=True)[1].flatten(),
            "the classes of this batch are numbered afresh from 0: the same letter has another number in the next batch",
            "Return the class numbers themselves: output k of the head is class k of the source, always.",
        ),
        Wrong(
            "episodes kept apart",
            lambda classes, slots: (classes + 1000 * torch.arange(len(classes))[:, None]).gather(1, slots).flatten(),
            "a class that occurs in two episodes gets two numbers",
            "The head has one output for each class of the source, whichever episode a picture comes from.",
        ),
    ),
    hints=(
        "Which letter sits in slot 1 of episode t? The answer stands in row t of `classes`.",
        "`classes.gather(1, slots)` looks up slots row by row: [T, S].",
        "`return classes.gather(1, slots).flatten()`",
    ),
)

# ---------------------------------------------------------------------------------------------- 02.2 nearest mean by cosine


def centroid_logits(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Returns cosines of queries with class means of unit rows. support [S, D], labels [S], query [M, D] -> [M, n_way]."""
    rows = F.normalize(support, dim=1)
    centres = torch.stack([rows[labels == k].mean(0) for k in range(n_way)])
    return F.normalize(query, dim=1) @ F.normalize(centres, dim=1).T


def _centroid_sums(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Uses sums instead of means, which point in the same direction."""
    member = F.one_hot(labels, n_way).to(support)
    centres = member.T @ F.normalize(support, dim=1)
    return F.cosine_similarity(query[:, None], centres[None], dim=2)


def _centroid_loop(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    def unit(row: Tensor) -> Tensor:
        return row / row.square().sum().sqrt().clamp_min(1e-8)

    columns = []
    for k in range(n_way):
        members = [unit(row) for row, y in zip(support, labels.tolist(), strict=True) if y == k]
        centre = unit(sum(members) / len(members))
        columns.append(torch.stack([unit(row) @ centre for row in query]))
    return torch.stack(columns, dim=1)


def _centroid(
    *, rows: bool = True, centres: bool = True, queries: bool = True, axis: int = 1
) -> Callable[[Tensor, Tensor, Tensor, int], Tensor]:
    """Returns `centroid_logits` without some of its three normalisations, or with all of them along another axis."""

    def unit(x: Tensor, wanted: bool) -> Tensor:
        return F.normalize(x, dim=axis) if wanted else x

    def answer(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        made = unit(support, rows)
        means = torch.stack([made[labels == k].mean(0) for k in range(n_way)])
        return unit(query, queries) @ unit(means, centres).T

    return answer


def _plus_tiny(x: Tensor) -> Tensor:
    """Makes rows unit length with a tiny number against division by zero."""
    return x / (x.norm(dim=1, keepdim=True) + 1e-8)


def _centroid_plus_tiny(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    with torch.no_grad():  # this classifier trains nothing
        sums = query.new_zeros(n_way, query.shape[1]).index_add(0, labels, _plus_tiny(support))
        return torch.einsum("md,nd->mn", _plus_tiny(query), _plus_tiny(sums))


def _centroid_scattered(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    rows, index = F.normalize(support, dim=1), labels[:, None].expand_as(support)
    centres = torch.zeros_like(rows[:1]).repeat(n_way, 1).scatter_reduce(0, index, rows, "mean", include_self=False)
    return torch.einsum("md,nd->mn", F.normalize(query, dim=1), F.normalize(centres, dim=1))


def _unit_table(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1)


def _class_means(rows: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([rows[labels == k].mean(0) for k in range(n_way)])


def _whole(x: Tensor) -> Tensor:
    """Divides a table by one length, that of all its numbers together."""
    return x / x.norm()


def _rows(
    generator: Generator, shots: list[int], queries: int, features: int = 5
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Draws support rows of very different lengths in random order, shots[k] of them of class k.

    -> support [S, features], labels [S], queries [queries, features], N
    """
    labels = torch.cat([torch.full((shot,), k) for k, shot in enumerate(shots)])
    labels = labels[torch.randperm(len(labels), generator=generator)]
    lengths = 10 ** torch.rand(len(labels), 1, generator=generator)
    support = lengths * torch.randn(len(labels), features, generator=generator)
    return support, labels, 10 * torch.randn(queries, features, generator=generator), len(shots)


def _centroid_cases(generator: Generator) -> list[Case]:
    support = torch.tensor([[0.0, 5.0], [4.0, 3.0], [3.0, 4.0], [10.0, 0.0]])
    query = torch.tensor([[6.0, 8.0], [0.8, 0.6]])
    unequal = _rows(generator, [1, 4, 2], 6)
    return [
        Case("the example on paper", (support, torch.tensor([0, 1, 0, 1]), query, 2)),
        Case("5 classes of 3 shots, rows shuffled", _rows(generator, [3] * 5, 10)),
        Case("one shot each", _rows(generator, [1, 1, 1, 1], 3)),
        Case("unequal shots: 1, 4 and 2", unequal),
        Case("one query", _rows(generator, [2, 2, 2], 1)),
        Case("float64", (unequal[0].double(), unequal[1], unequal[2].double(), unequal[3])),
    ]


def _length_is_free(answer: Callable, reference: Callable) -> str | None:
    support, labels, query, n_way = _rows(torch.Generator().manual_seed(2), [2, 3], 4)
    longer = support.clone()
    longer[1] *= 100
    gap = float((answer(longer, labels, query, n_way) - answer(support, labels, query, n_way)).abs().max())
    return f"one support row made 100 times as long moved a cosine by {gap:.2g}." if gap > 1e-4 else None


def _zeros_are_harmless(answer: Callable, reference: Callable) -> str | None:
    support = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    found = answer(support, torch.tensor([0, 1]), torch.zeros(1, 2), 2)
    return None if bool(found.isfinite().all()) else "an embedding of zeros, as dead ReLUs give, led to NaN."


CENTROID = Exercise(
    id="02.2",
    title="Nearest class mean by cosine",
    reference=centroid_logits,
    cases=_centroid_cases,
    properties=(
        Property("the length of a support row does not matter", _length_is_free),
        Property("an embedding of zeros gives finite logits", _zeros_are_harmless),
    ),
    right=(_centroid_sums, _centroid_loop, _centroid_plus_tiny, _centroid_scattered),
    wrong=(
        Wrong(
            "means of raw rows",
            _centroid(rows=False),
            "the support rows are averaged as they are: one long row outvotes the others of its class",
            "Make every support row unit length before you average.",
        ),
        Wrong(
            "turned sign",
            lambda s, y, q, n: -centroid_logits(s, y, q, n),
            "the sign is turned: the least similar class wins",
            "A cosine is large where directions agree. Leave the minus out.",
        ),
        Wrong(
            "winners",
            lambda s, y, q, n: centroid_logits(s, y, q, n).argmax(1),
            "the winning classes are returned, not the cosines",
            "Return the whole table `[M, n_way]`.",
        ),
        Wrong(
            "only the class means unit length",
            _centroid(rows=False, queries=False),
            "only the class means are made unit length",
            "Normalise three times: support rows, class means, queries.",
        ),
        Wrong(
            "one mean of all rows",
            lambda s, y, q, n: F.normalize(q, dim=1) @ F.normalize(s, dim=1).mean(0).expand(n, -1).T,
            "every class gets the mean of all support rows: nothing tells the classes apart",
            "`rows[labels == k].mean(0)` takes the rows of class k alone.",
        ),
        Wrong(
            "probabilities",
            lambda s, y, q, n: centroid_logits(s, y, q, n).softmax(1),
            "probabilities are returned, not cosines",
            "Leave the softmax to whoever needs it.",
        ),
        Wrong(
            "mean not unit length",
            _centroid(centres=False),
            "the class means are not made unit length again: a class whose rows disagree gets smaller logits",
            "A mean of unit rows is shorter than 1. Normalise it too.",
        ),
        Wrong(
            "query not unit length",
            _centroid(queries=False),
            "the queries are not made unit length: the winner is right, but the numbers are no cosines",
            "`F.normalize(query, dim=1)`.",
        ),
        Wrong(
            "inner products",
            _centroid(rows=False, centres=False, queries=False),
            "nothing is made unit length: these are inner products with the class means",
            "Normalise three times: support rows, class means, queries.",
        ),
        Wrong(
            "normalised over the rows",
            _centroid(axis=0),
            "every feature is normalised over the pictures: dim=0",
            "Each *row* becomes unit length: dim=1.",
            also=(lambda s, y, q, n: _unit_table(q) @ _unit_table(_class_means(F.normalize(s, dim=0), y, n)).T,),
        ),
        Wrong(
            "last picture",
            lambda s, y, q, n: _unit_table(q) @ s.new_zeros(n, s.shape[1]).index_copy(0, y, _unit_table(s)).T,
            "the last picture of a class stands for all of them: `table[labels] = rows` overwrites and does not add",
            "`rows[labels == k].mean(0)` averages the rows of class k.",
        ),
        Wrong(
            "bare norm",
            lambda s, y, q, n: (
                (q / q.norm(dim=1, keepdim=True))
                @ F.normalize(
                    torch.stack([(s / s.norm(dim=1, keepdim=True))[y == k].mean(0) for k in range(n)]), dim=1
                ).T
            ),
            "a row of zeros is divided by its length 0",
            "`F.normalize` guards against it.",
        ),
        Wrong(
            "divided by one length",
            lambda s, y, q, n: _whole(q) @ _whole(torch.stack([_whole(s)[y == k].mean(0) for k in range(n)])).T,
            "the whole table is divided by one length: `x.norm()` without `dim` is the length of all its numbers together",
            "Each *row* has a length of its own: `dim=1`.",
        ),
        Wrong(
            "reshape",
            lambda s, y, q, n: (
                F.normalize(q, dim=1) @ F.normalize(F.normalize(s, dim=1).view(n, -1, s.shape[1]).mean(1), dim=1).T
            ),
            "the rows are taken to be sorted by class, with equal shots",
            "Let `labels == k` say which rows belong to class k.",
        ),
        Wrong(
            "nearest single picture",
            lambda s, y, q, n: torch.stack(
                [(F.normalize(q, dim=1) @ F.normalize(s, dim=1)[y == k].T).amax(1) for k in range(n)], dim=1
            ),
            "the most similar single picture of a class decides, not the class mean",
            "Average the unit rows of a class first.",
        ),
        Wrong(
            "distances",
            lambda s, y, q, n: -((q[:, None] - torch.stack([s[y == k].mean(0) for k in range(n)])).square().sum(2)),
            "distances to the class means are returned, not cosines",
            "A cosine is the inner product of two unit vectors.",
            also=(
                lambda s, y, q, n: -torch.cdist(_unit_table(q), _class_means(_unit_table(s), y, n)),
                lambda s, y, q, n: -torch.cdist(_unit_table(q), _unit_table(_class_means(_unit_table(s), y, n))),
                lambda s, y, q, n: -torch.cdist(q, _class_means(s, y, n)),
            ),
        ),
        Wrong(
            "transposed",
            lambda s, y, q, n: centroid_logits(s, y, q, n).T.contiguous(),
            "the table is transposed: [N, M]",
            "A row for each query: `query @ centres.T`.",
        ),
    ),
    hints=(
        "A cosine looks at directions only. Which three things must have length 1?",
        "Normalise the support rows, average them class by class, normalise means and queries, multiply.",
        "`F.normalize(query, dim=1) @ F.normalize(centres, dim=1).T` with `centres` from the unit rows.",
    ),
)

# ---------------------------------------------------------------------------------------------- 02.3 a learned scale


def cosine_head(z: Tensor, weight: Tensor, log_scale: Tensor) -> Tensor:
    """Returns exp(log_scale) times cosines. z [B, D], weight [N, D], log_scale scalar tensor -> [B, N]."""
    return log_scale.exp() * F.normalize(z, dim=1) @ F.normalize(weight, dim=1).T


def _head_torch(z: Tensor, weight: Tensor, log_scale: Tensor) -> Tensor:
    return F.cosine_similarity(z[:, None], weight[None], dim=-1) * torch.exp(log_scale)


def _head_by_hand(z: Tensor, weight: Tensor, log_scale: Tensor) -> Tensor:
    lengths = z.norm(dim=1)[:, None] * weight.norm(dim=1)[None]
    return log_scale.exp() * (z @ weight.T) / lengths.clamp_min(1e-8)


def _head_plus_tiny(z: Tensor, weight: Tensor, log_scale: Tensor) -> Tensor:
    return torch.einsum("bd,nd->bn", _plus_tiny(z), _plus_tiny(weight)) * log_scale.exp()


def _head_linear(z: Tensor, weight: Tensor, log_scale: Tensor) -> Tensor:
    return F.linear(F.normalize(z) * log_scale.exp(), F.normalize(weight))


def _head_cases(generator: Generator) -> list[Case]:
    z, weight = 100 * torch.randn(6, 4, generator=generator), 300 * torch.randn(5, 4, generator=generator)
    example = (torch.tensor([[6.0, 8.0], [0.8, 0.6]]), torch.tensor([[0.3, 0.9], [0.9, 0.3]]), torch.tensor(10.0).log())
    return [
        Case("the example on paper, scale 10", example),
        Case("6 embeddings, 5 classes, scale 4", (z, weight, torch.tensor(4.0).log())),
        Case("a scale below 1: its logarithm is negative", (z, weight, torch.tensor(-0.7))),
        Case("one embedding", (z[:1], weight, torch.tensor(2.0))),
        Case("float64", (z.double(), weight.double(), torch.tensor(1.5, dtype=torch.float64))),
        Case("a large scale, 200", (z[:2], weight[:3], torch.tensor(200.0).log())),
    ]


def _zero_embedding(answer: Callable, reference: Callable) -> str | None:
    found = answer(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor(0.0))
    return None if bool(found.isfinite().all()) else "an embedding of zeros, as dead ReLUs give, led to NaN."


HEAD = Exercise(
    id="02.3",
    title="A cosine classifier with a learned scale",
    reference=cosine_head,
    cases=_head_cases,
    gradient=(0, 1, 2),
    properties=(Property("an embedding of zeros gives finite logits", _zero_embedding),),
    right=(_head_torch, _head_by_hand, _head_plus_tiny, _head_linear),
    wrong=(
        Wrong(
            "logarithm as scale",
            lambda z, w, s: s * F.normalize(z, dim=1) @ F.normalize(w, dim=1).T,
            "the logarithm itself multiplies: it may be negative, and then the least similar class wins",
            "The scale is `log_scale.exp()`.",
        ),
        Wrong(
            "divided",
            lambda z, w, s: (-s).exp() * F.normalize(z, dim=1) @ F.normalize(w, dim=1).T,
            "the cosines are divided by the scale: that is what a temperature does",
            "Multiply: a large scale makes the softmax sharp.",
        ),
        Wrong(
            "no scale",
            lambda z, w, s: F.normalize(z, dim=1) @ F.normalize(w, dim=1).T,
            "the scale is not used: no logit can exceed 1, and nothing can be learned about it",
            "Multiply the cosines by `log_scale.exp()`.",
        ),
        Wrong(
            "weights not normalised",
            lambda z, w, s: s.exp() * F.normalize(z, dim=1) @ w.T,
            "the weight rows keep their lengths: a class with a long row wins too often",
            "Normalise `weight` as well, every row of it.",
        ),
        Wrong(
            "embeddings not normalised",
            lambda z, w, s: s.exp() * z @ F.normalize(w, dim=1).T,
            "the embeddings keep their lengths, which then act as a scale of their own",
            "Normalise `z` as well, every row of it.",
        ),
        Wrong(
            "normalised over the rows",
            lambda z, w, s: s.exp() * F.normalize(z, dim=0) @ F.normalize(w, dim=0).T,
            "every feature is normalised over the rows: dim=0",
            "Each *row* becomes unit length: dim=1.",
            also=(
                lambda z, w, s: s.exp() * F.normalize(z, dim=1) @ F.normalize(w, dim=0).T,
                lambda z, w, s: s.exp() * F.normalize(z, dim=0) @ F.normalize(w, dim=1).T,
            ),
        ),
        Wrong(
            "scale cut off at 100",
            lambda z, w, s: cosine_head(z, w, s.clamp(max=math.log(100))),
            "the scale stops at 100, as CLIP's does",
            "`log_scale.exp()`, without a limit.",
        ),
        Wrong(
            "divided by one length",
            lambda z, w, s: s.exp() * _whole(z) @ _whole(w).T,
            "the whole table is divided by one length: `x.norm()` without `dim` is the length of all its numbers together",
            "Each *row* has a length of its own: `dim=1`.",
        ),
        Wrong(
            "inner products",
            lambda z, w, s: s.exp() * z @ w.T,
            "nothing is made unit length: these are inner products times the scale",
            "Normalise the rows of `z` and of `weight`.",
        ),
        Wrong(
            "softplus",
            lambda z, w, s: F.softplus(s) * F.normalize(z, dim=1) @ F.normalize(w, dim=1).T,
            "softplus makes the scale positive here, not the exponential",
            "The scale is `log_scale.exp()`, because its logarithm is learned.",
        ),
        Wrong(
            "scale fixed",
            lambda z, w, s: 10 * F.normalize(z, dim=1) @ F.normalize(w, dim=1).T,
            "a fixed 10 multiplies, whatever `log_scale` says",
            "Multiply by `log_scale.exp()`.",
        ),
        Wrong(
            "transposed",
            lambda z, w, s: cosine_head(z, w, s).T.contiguous(),
            "the table is transposed: [N, B]",
            "A row for each embedding.",
        ),
        Wrong(
            "everything cut off",
            lambda z, w, s: cosine_head(z.detach(), w.detach(), s.detach()),
            "all is computed without gradient, as under `no_grad`: nothing can be learned",
            "Leave out `no_grad` and `.detach()`.",
        ),
        Wrong(
            "scale added",
            lambda z, w, s: F.normalize(z, dim=1) @ F.normalize(w, dim=1).T + s.exp(),
            "the scale is added to the cosines: the softmax does not notice a number that is added to all logits",
            "Multiply the cosines by the scale.",
        ),
        Wrong(
            "scale inside the norm",
            lambda z, w, s: F.normalize(s.exp() * z, dim=1) @ F.normalize(w, dim=1).T,
            "the scale multiplies the rows before they are made unit length, and is divided out again",
            "Multiply the cosines, after both tables have unit rows.",
        ),
        Wrong(
            "scale cut off",
            lambda z, w, s: cosine_head(z, w, s.detach()),
            "the scale is cut off from the graph, as `.item()`, `float()` or `.detach()` do: it is never learned",
            "Use the tensor itself: `log_scale.exp()`.",
        ),
        Wrong(
            "softmax taken",
            lambda z, w, s: cosine_head(z, w, s).softmax(1),
            "probabilities are returned",
            "Return the logits: `F.cross_entropy` takes the softmax itself.",
        ),
        Wrong(
            "bare norm",
            lambda z, w, s: s.exp() * (z / z.norm(dim=1, keepdim=True)) @ F.normalize(w, dim=1).T,
            "a row of zeros is divided by its length 0",
            "`F.normalize` guards against it.",
        ),
    ),
    hints=(
        "Cosines first, then one number that multiplies them all.",
        "`F.normalize(z, dim=1) @ F.normalize(weight, dim=1).T` are the cosines; the scale is the exponential of `log_scale`.",
        "`log_scale.exp() * F.normalize(z, dim=1) @ F.normalize(weight, dim=1).T`",
    ),
)

# ---------------------------------------------------------------------------------------------- 02.4 one step of a head


def head_step(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    """Takes one gradient step on the mean cross-entropy. weight [N, D], bias [N], z [S, D], labels [S] -> new weight, bias."""
    error = (z @ weight.T + bias).softmax(1) - F.one_hot(labels, len(bias)).to(z)  # [S, N]
    return weight - lr * error.T @ z / len(z), bias - lr * error.mean(0)


def _step_autograd(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        w, b = weight.detach().clone().requires_grad_(), bias.detach().clone().requires_grad_()
        slopes = torch.autograd.grad(F.cross_entropy(z @ w.T + b, labels), (w, b))
    return weight - lr * slopes[0], bias - lr * slopes[1]


def _step_loop(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    new_weight, new_bias = weight.clone(), bias.clone()
    for row, y in zip(z, labels.tolist(), strict=True):
        share = torch.softmax(weight @ row + bias, dim=0)
        for k in range(len(bias)):
            error = share[k] - (1.0 if k == y else 0.0)
            new_weight[k] -= lr / len(z) * error * row
            new_bias[k] -= lr / len(z) * error
    return new_weight, new_bias


def _step(
    error: Callable[[Tensor, Tensor], Tensor] = lambda logits, truth: logits.softmax(1) - truth,
    divide: Callable[[Tensor, int, int], float] = lambda z, rows, classes: rows,
    factor: float = 1.0,
    move_bias: bool = True,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns `head_step` with another error, divisor or factor of the rate, or with a bias that stays."""

    def answer(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        wrong = error(z @ weight.T + bias, F.one_hot(labels, len(bias)).to(z))
        share = factor * lr / divide(z, len(z), len(bias))
        return weight - share * wrong.T @ z, bias - share * wrong.sum(0) * float(move_bias)

    return answer


def _step_in_place(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    new_weight, new_bias = head_step(weight, bias, z, labels, lr)
    return weight.copy_(new_weight), bias.copy_(new_bias)


def _step_bias_after(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    new_weight, _ = head_step(weight, bias, z, labels, lr)
    return new_weight, head_step(new_weight, bias, z, labels, lr)[1]


def _naive_softmax(logits: Tensor) -> Tensor:
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def _step_double_softmax(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        w, b = weight.detach().clone().requires_grad_(), bias.detach().clone().requires_grad_()
        slopes = torch.autograd.grad(F.cross_entropy((z @ w.T + b).softmax(1), labels), (w, b))
    return weight - lr * slopes[0], bias - lr * slopes[1]


def _step_narrow_truth(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    error = (z @ weight.T + bias).softmax(1) - F.one_hot(labels).to(z)
    return weight - lr * error.T @ z / len(z), bias - lr * error.mean(0)


def _step_solver(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    head = nn.Linear(z.shape[1], len(bias)).to(z)
    head.load_state_dict({"weight": weight, "bias": bias})
    with torch.enable_grad():
        F.cross_entropy(head(z), labels).backward()
    torch.optim.SGD(head.parameters(), lr=lr).step()
    return head.weight.detach(), head.bias.detach()


def _step_one_table(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    """Treats the biases as a last column of the weights, the weight of a feature that is always 1."""
    head, rows = torch.cat([weight, bias[:, None]], dim=1), torch.cat([z, z.new_ones(len(z), 1)], dim=1)
    error = (rows @ head.T).softmax(1)
    error[torch.arange(len(z)), labels] -= 1
    head = head - lr / len(z) * torch.einsum("sn,sd->nd", error, rows)
    return head[:, :-1], head[:, -1]


def _step_picture_by_picture(
    weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float
) -> tuple[Tensor, Tensor]:
    for row, y in zip(z, labels, strict=True):
        weight, bias = head_step(weight, bias, row[None], y[None], lr / len(z))
    return weight, bias


def _step_by_class_counts(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    error = (z @ weight.T + bias).softmax(1) - F.one_hot(labels, len(bias)).to(z)
    count = labels.bincount(minlength=len(bias)).clamp_min(1)
    return weight - lr * error.T @ z / count[:, None], bias - lr * error.sum(0) / count


def _step_cases(generator: Generator) -> list[Case]:
    def case(
        says: str, labels: list[int], n_way: int, features: int, lr: float, dtype: torch.dtype = torch.float32
    ) -> Case:
        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype)

        return Case(says, (draw(n_way, features), draw(n_way), draw(len(labels), features), torch.tensor(labels), lr))

    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    example = (torch.zeros(2, 2), torch.zeros(2), z, torch.tensor([0, 1]), 1.0)
    return [
        Case("the example: two unit rows, a head of zeros", example),
        case("5 classes, 2 shots, rows shuffled", [3, 0, 1, 4, 2, 2, 0, 4, 3, 1], 5, 4, 0.5),
        case("unequal shots", [0, 2, 2, 1, 2], 3, 3, 0.1),
        case("as many features as classes", [1, 0, 2, 3], 4, 4, 2.0),
        case("a class that has no row among these", [0, 2, 2, 1], 5, 3, 0.5),
        Case(
            "logits of 200, of which no exponential is finite in float32",
            (200 * torch.eye(3)[:, :2], torch.zeros(3), z, torch.tensor([1, 1]), 0.5),
        ),
        case("float64", [1, 0, 1], 2, 3, 0.3, torch.float64),
        Case(
            "logits 200, 100, 0 for one picture, −200, −200, 0 for another",
            (200 * torch.eye(3)[:, :2], torch.zeros(3), torch.tensor([[1.0, 0.5], [-1.0, -1.0]]), z[0].long(), 0.5),
        ),
    ]


STEP = Exercise(
    id="02.4",
    title="One step of a linear head",
    reference=head_step,
    cases=_step_cases,
    right=(_step_autograd, _step_loop, _step_solver, _step_one_table),
    wrong=(
        Wrong(
            "uphill",
            _step(factor=-1.0),
            "the step goes uphill: the right class becomes less likely",
            "Subtract lr times the gradient; the error is probability minus truth.",
        ),
        Wrong(
            "summed",
            _step(divide=lambda z, rows, classes: 1),
            "the gradients of the pictures are summed: the step grows with their number",
            "The loss is a mean: divide by S, for weights and biases.",
        ),
        Wrong(
            "weights summed, biases averaged",
            lambda w, b, z, y, lr: (head_step(w, b, z, y, lr * len(z))[0], head_step(w, b, z, y, lr)[1]),
            "the gradient of the weights is a sum over the pictures, that of the biases a mean",
            "Divide `error.T @ z` by S as well.",
        ),
        Wrong(
            "biases summed, weights averaged",
            lambda w, b, z, y, lr: (head_step(w, b, z, y, lr)[0], head_step(w, b, z, y, lr * len(z))[1]),
            "the gradient of the biases is a sum over the pictures, that of the weights a mean",
            "`error.mean(0)` for the biases.",
        ),
        Wrong(
            "divided by classes",
            _step(divide=lambda z, rows, classes: classes),
            "the gradient is divided by the number of classes, not by that of the pictures",
            "The loss is a mean over S pictures: divide by S.",
        ),
        Wrong(
            "divided by class counts",
            _step_by_class_counts,
            "each row's gradient is divided by the number of pictures of its own class",
            "The loss is a mean over all S pictures: divide every row by S.",
        ),
        Wrong(
            "one picture after the other",
            _step_picture_by_picture,
            "each picture moves the head before the next is looked at: S small steps, each from another head",
            "Take all errors from the head that was handed in, then move it once.",
            also=(lambda w, b, z, y, lr: _step_picture_by_picture(w, b, z, y, lr * len(z)),),
        ),
        Wrong(
            "sigmoid",
            _step(lambda logits, truth: logits.sigmoid() - truth),
            "a sigmoid of each logit takes the place of the softmax: the probabilities of a picture do not sum to 1",
            "`.softmax(1)`.",
        ),
        Wrong(
            "divided by rows and classes",
            _step(divide=lambda z, rows, classes: rows * classes),
            "the gradient is divided by the number of classes too",
            "Divide by S only: cross-entropy sums over the classes.",
        ),
        Wrong(
            "no softmax",
            _step(lambda logits, truth: logits - truth),
            "the logits themselves are compared with the truth: that is the gradient of a squared error",
            "Softmax first: probability minus truth.",
        ),
        Wrong(
            "truth not subtracted",
            _step(lambda logits, truth: logits.softmax(1)),
            "the probabilities alone serve as the error: every class is pushed away from every picture, the right one too",
            "The error is probability minus truth: subtract `F.one_hot(labels, N)`.",
        ),
        Wrong(
            "truth without probabilities",
            _step(lambda logits, truth: -truth),
            "the truth alone serves as the error: the step goes on with full force however sure the head is already",
            "The error is probability minus truth: add the softmax of the logits.",
        ),
        Wrong(
            "softmax before cross-entropy",
            _step_double_softmax,
            "probabilities go into `F.cross_entropy`, which takes the softmax again",
            "Hand it the logits.",
        ),
        Wrong(
            "softmax without a shift",
            _step(lambda logits, truth: _naive_softmax(logits) - truth),
            "exponentials of large logits are infinite, and infinity divided by infinity is NaN",
            "`.softmax(1)` subtracts the largest logit first, which changes no probability.",
        ),
        Wrong(
            "one maximum for the whole table",
            _step(lambda logits, truth: _naive_softmax(logits - logits.max()) - truth),
            "one maximum is subtracted from the whole table: a picture whose logits lie far below it gets zero divided by zero",
            "Every picture has a maximum of its own: `logits.amax(1, keepdim=True)`, or simply `.softmax(1)`.",
        ),
        Wrong(
            "logits cut off",
            _step(lambda logits, truth: _naive_softmax(logits.clamp(max=50)) - truth),
            "the logits are cut off at a limit before the exponential: two logits above it become equal",
            "`.softmax(1)` subtracts the largest logit first, which changes no probability.",
        ),
        Wrong(
            "no rate for the biases",
            lambda w, b, z, y, lr: (head_step(w, b, z, y, lr)[0], head_step(w, b, z, y, 1.0)[1]),
            "the step of the biases is not multiplied by `lr`",
            "`bias - lr * error.mean(0)`.",
        ),
        Wrong(
            "biases divided twice",
            lambda w, b, z, y, lr: (head_step(w, b, z, y, lr)[0], head_step(w, b, z, y, lr / len(z))[1]),
            "the error is divided by S and then averaged once more: the biases move S times too little",
            "Divide once: `error.mean(0)`, or `error.sum(0) / S`.",
        ),
        Wrong(
            "one-hot without N",
            _step_narrow_truth,
            "`F.one_hot(labels)` has only as many columns as the largest label needs",
            "`F.one_hot(labels, len(bias))`: one column for each class of the head.",
        ),
        Wrong(
            "bias left out of the logits",
            lambda w, b, z, y, lr: (head_step(w, 0 * b, z, y, lr)[0], b + head_step(w, 0 * b, z, y, lr)[1]),
            "the bias is left out of the logits: the probabilities are those of another head",
            "The logits are `z @ weight.T + bias`.",
        ),
        Wrong(
            "softmax over the pictures",
            _step(lambda logits, truth: logits.softmax(0) - truth),
            "the softmax runs over the pictures: dim=0",
            "Every picture has one probability for each class: `.softmax(1)`.",
        ),
        Wrong(
            "right class only",
            _step(lambda logits, truth: (logits.softmax(1) - 1) * truth),
            "only the row of the right class moves; the wrong classes are not pushed away",
            "The error has an entry for every class: probability minus truth, and truth is 0 for the wrong ones.",
        ),
        Wrong(
            "bias kept",
            _step(move_bias=False),
            "the biases stay where they are",
            "A bias is the weight of a feature that is always 1: its gradient is the mean error.",
        ),
        Wrong(
            "no rate",
            lambda w, b, z, y, lr: head_step(w, b, z, y, 1.0),
            "`lr` is not used",
            "Multiply the gradient by `lr`.",
        ),
        Wrong(
            "bias after weights",
            _step_bias_after,
            "the new weights are used already for the gradient of the biases: that is two steps, one after the other",
            "Compute the error once, from the old weights and biases.",
        ),
        Wrong(
            "in place",
            _step_in_place,
            "the head that was handed in is overwritten: whoever keeps it for the next task finds it trained",
            "Make new tensors: `weight - ...`, not `weight -= ...`.",
        ),
        Wrong(
            "gradient only",
            lambda w, b, z, y, lr: (w - head_step(w, b, z, y, 1.0)[0], b - head_step(w, b, z, y, 1.0)[1]),
            "the gradients are returned, not the head after the step",
            "Return `weight - lr * gradient`, and the same for the bias.",
        ),
    ),
    hints=(
        "For one picture, the slope of the loss in logit k is the probability of k, minus 1 if k is the right class.",
        "`error = softmax(logits) - one_hot`, [S, N]. Gradients: `error.T @ z / S` and, for the biases, `error.mean(0)`.",
        "`return weight - lr * error.T @ z / len(z), bias - lr * error.mean(0)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 02.5 does it remember?

Predict = Callable[[Episode], Tensor]


def exposes_memory(predict: Predict, first: Episode, second: Episode) -> bool:
    """Returns True if an episode's logits depend on an episode that was predicted before it."""
    before = predict(first)
    predict(second)
    return not torch.allclose(before, predict(first), rtol=1e-3, atol=1e-4)


def _memory_by_gap(predict: Predict, first: Episode, second: Episode) -> bool:
    seen = [predict(episode).clone() for episode in (first, second, first)]
    return float((seen[0] - seen[2]).abs().max()) > 1e-3


def _memory_both_ways(predict: Predict, first: Episode, second: Episode) -> bool:
    early = [predict(first), predict(second)]
    late = [predict(first), predict(second)]
    return any(not torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(early, late, strict=True))


def _memory_over_and_over(predict: Predict, first: Episode, second: Episode) -> bool:
    start = predict(first).numpy().copy()
    for _ in range(3):
        predict(second)
        if not np.allclose(start, predict(first).numpy(), rtol=1e-3, atol=1e-4):
            return True
    return False


def _memory_written_out(predict: Predict, first: Episode, second: Episode) -> bool:
    early = predict(first).tolist()
    predict(second)
    late = predict(first).tolist()
    pairs = [(x, y) for a, b in zip(early, late, strict=True) for x, y in zip(a, b, strict=True)]
    return any(abs(x - y) > 1e-4 + 1e-3 * abs(y) for x, y in pairs)


def _memory_judged_by(differ: Callable[[Tensor, Tensor], bool]) -> Callable[..., bool]:
    """Returns a detector that makes the right experiment and decides by differ(logits before, logits after)."""

    def detector(predict: Predict, first: Episode, second: Episode) -> bool:
        before = predict(first)
        predict(second)
        return differ(before, predict(first))

    return detector


def _memory_compared_late(predict: Predict, first: Episode, second: Episode) -> bool:
    predict(first)
    predict(second)
    after = predict(first)
    return not torch.allclose(after, predict(first), rtol=1e-3, atol=1e-4)


def _memory_stirred_before(predict: Predict, first: Episode, second: Episode) -> bool:
    predict(second)
    return exposes_memory(predict, first, second)


def _means(episode: Episode) -> Tensor:
    """Returns the class means of the support points [N, D]."""
    return torch.stack([episode.support_x[episode.support_y == k].mean(0) for k in range(episode.n_way)])


def _near(query: Tensor, centres: Tensor) -> Tensor:
    return -(query[:, None] - centres).square().sum(-1)


def _train(episode: Episode, weight: Tensor, steps: int = 5, lr: float = 0.3) -> Tensor:
    """Trains a linear head on the support, from weight [N, D] and a bias of zero. -> its new weight [N, D]"""
    bias = torch.zeros(len(weight))
    for _ in range(steps):
        weight, bias = head_step(weight, bias, episode.support_x, episode.support_y, lr)
    return weight


class _Fresh:
    """A predictor whose copies start afresh, so that no answer meets the memory of another."""

    def __init__(self, make: Callable[[], Predict]) -> None:
        self.make, self.predict = make, make()

    def __call__(self, episode: Episode) -> Tensor:
        return self.predict(episode)

    def __deepcopy__(self, memo: dict[int, object]) -> _Fresh:
        return _Fresh(self.make)


def _counts() -> Predict:
    """Returns a right predictor that counts its calls and never uses the count."""
    calls = [0]

    def predict(episode: Episode) -> Tensor:
        calls[0] += 1
        return _near(episode.query_x, _means(episode))

    return predict


def _trains_its_weights(in_place: bool) -> Predict:
    """Returns a predictor that fine-tunes a copy of its weights (right), or with in_place the weights themselves (broken)."""
    own = torch.linspace(-1, 1, 12).sin().view(3, 4)

    def predict(episode: Episode) -> Tensor:
        weight = _train(episode, own)
        if in_place:
            own.copy_(weight)
        return episode.query_x @ weight.T

    return predict


def _rounds_by_turns() -> Predict:
    """Returns a right predictor whose last digits change from call to call, as when a processor sums in another order."""
    calls = [0]

    def predict(episode: Episode) -> Tensor:
        calls[0] += 1
        return _near(episode.query_x, _means(episode)) * (1 + 3e-5 * (calls[0] % 3))

    return predict


def _remembers_what_it_saw() -> Predict:
    """Returns a right predictor that caches its results by the support and the queries."""
    kept: dict[tuple[float, ...], Tensor] = {}

    def predict(episode: Episode) -> Tensor:
        key = tuple(torch.cat([episode.support_x, episode.query_x]).flatten().tolist())
        if key not in kept:
            kept[key] = _near(episode.query_x, _means(episode))
        return kept[key].clone()

    return predict


def _head_goes_on() -> Predict:
    head = [torch.zeros(3, 4)]

    def predict(episode: Episode) -> Tensor:
        head[0] = _train(episode, head[0])
        return episode.query_x @ head[0].T

    return predict


def _momentum_goes_on() -> Predict:
    """Returns a broken predictor: its weights start afresh with each episode, but the momentum of its optimiser does not."""
    speed = [torch.zeros(3, 4)]

    def predict(episode: Episode) -> Tensor:
        weight = torch.zeros(3, 4)
        for _ in range(4):
            slope = weight - _train(episode, weight, steps=1, lr=1.0)
            speed[0] = 0.9 * speed[0] + slope
            weight = weight - 0.3 * speed[0]
        return episode.query_x @ weight.T

    return predict


def _averages_with_the_last() -> Predict:
    """Returns a broken predictor that averages its class means with those of the episode before.

    Predicting the same episode twice in a row does not show this.
    """
    last: list[Tensor] = []

    def predict(episode: Episode) -> Tensor:
        centres = _means(episode)
        before = last.pop() if last else centres
        last.append(centres)
        return _near(episode.query_x, 0.7 * centres + 0.3 * before)

    return predict


def _grows_sharper() -> Predict:
    """Returns a broken predictor that doubles the scale of its logits with every episode, which changes no prediction."""
    scale = [0.5]

    def predict(episode: Episode) -> Tensor:
        scale[0] *= 2
        return scale[0] * _near(episode.query_x, _means(episode))

    return predict


def _drifts_a_little() -> Predict:
    drift = [0.0]

    def predict(episode: Episode) -> Tensor:
        drift[0] += 0.01
        return _near(episode.query_x, _means(episode)) + drift[0] * F.one_hot(torch.tensor(0), 3)

    return predict


def _moves_on_at_a_change() -> Predict:
    """Returns a broken predictor whose logits move on whenever another episode follows: asking twice in a row shows nothing."""
    last, changes = [0.0], [0]

    def predict(episode: Episode) -> Tensor:
        key = float(episode.support_x.sum())
        changes[0] += key != last[0]
        last[0] = key
        return _near(episode.query_x, _means(episode)) + 0.1 * changes[0] * F.one_hot(torch.tensor(1), 3)

    return predict


def _learns_each_once() -> Predict:
    """Returns a broken predictor that trains its weights on every episode that it has not met: asking again changes nothing."""
    weight, met = [torch.zeros(3, 4)], []

    def predict(episode: Episode) -> Tensor:
        key = float(episode.support_x.sum())
        if key not in met:
            met.append(key)
            weight[0] = _train(episode, weight[0])
        return episode.query_x @ weight[0].T

    return predict


def _largest_length_so_far() -> Predict:
    """Returns a broken predictor that divides by the greatest length it ever met. Only a longer episode stirs it up."""
    greatest = [0.0]

    def predict(episode: Episode) -> Tensor:
        greatest[0] = max(greatest[0], float(episode.support_x.norm(dim=1).max()))
        return _near(episode.query_x / greatest[0], _means(episode) / greatest[0])

    return predict


def _after_another(spoil: Callable[[Tensor], Tensor]) -> Predict:
    """Returns a broken predictor that passes its logits through `spoil` where the call before was for another episode."""
    last: list[float] = []

    def predict(episode: Episode) -> Tensor:
        logits, key = _near(episode.query_x, _means(episode)), float(episode.support_x.sum())
        stirred = bool(last) and last[-1] != key
        last.append(key)
        return spoil(logits.clone()) if stirred else logits

    return predict


def _raise_all(logits: Tensor) -> Tensor:
    return logits + 0.5  # the softmax and the winners do not notice


def _swap_two_classes(logits: Tensor) -> Tensor:
    return logits[:, [1, 0, 2]]  # sum, mean and norm stay as they are


def _spoil_the_last_row(logits: Tensor) -> Tensor:
    logits[-1, 0] += 0.2
    return logits


def _give_and_take(logits: Tensor) -> Tensor:
    logits[1, 0] += 0.05
    logits[1, 2] -= 0.05  # every row keeps its sum
    return logits


def _memory_cases(generator: Generator) -> list[Case]:
    def points() -> Episode:
        labels = torch.arange(3).repeat_interleave(2)
        corners = torch.randn(3, 4, generator=generator)
        return Episode(
            support_x=corners[labels] + torch.randn(6, 4, generator=generator),
            support_y=labels,
            query_x=corners[labels] + torch.randn(6, 4, generator=generator),
            query_y=labels,
            classes=torch.tensor([4, 0, 9]),
        )

    def asks(says: str, make: Callable[[], Predict]) -> Case:
        return Case(says, (_Fresh(make), first, second))

    first, second = points(), points()
    second = replace(second, support_x=2 * second.support_x, query_x=2 * second.query_x[:4], query_y=second.query_y[:4])
    return [
        asks("a right one: it only counts its calls", _counts),
        asks("a right one: it trains a copy of its weights", lambda: _trains_its_weights(in_place=False)),
        asks("a right one whose last digits change from call to call", _rounds_by_turns),
        asks("a right one: it keeps results and finds them again", _remembers_what_it_saw),
        asks("it trains its own weights", lambda: _trains_its_weights(in_place=True)),
        asks("a function whose head goes on from episode to episode", _head_goes_on),
        asks("fresh weights, but the optimiser keeps its momentum", _momentum_goes_on),
        asks("class means averaged with those of the episode before", _averages_with_the_last),
        asks("logits that grow from episode to episode, with the same winners", _grows_sharper),
        asks("a drift too small to change a prediction", _drifts_a_little),
        asks("one logit that moves on whenever another episode follows", _moves_on_at_a_change),
        asks("weights that learn every episode once, and not again", _learns_each_once),
        asks("all divided by the greatest length met so far", _largest_length_so_far),
        asks("all logits raised by one number, which no softmax notices", lambda: _after_another(_raise_all)),
        asks("two classes swapped, which no sum and no norm notices", lambda: _after_another(_swap_two_classes)),
        asks("one logit of the last query changed", lambda: _after_another(_spoil_the_last_row)),
        asks("one logit up and one down by 0.05", lambda: _after_another(_give_and_take)),
    ]


MEMORY = Exercise(
    id="02.5",
    title="Bug hunt: does an episode remember the one before?",
    reference=exposes_memory,
    cases=_memory_cases,
    right=(_memory_by_gap, _memory_both_ways, _memory_over_and_over, _memory_written_out),
    wrong=(
        Wrong(
            "twice in a row",
            lambda predict, first, second: not torch.allclose(predict(first), predict(first), rtol=1e-3, atol=1e-4),
            "the same episode is asked twice in a row: what only another episode stirs up is missed",
            "Put `predict(second)` between the two.",
        ),
        Wrong(
            "second asked twice",
            lambda predict, first, second: not torch.allclose(predict(second), predict(second), rtol=1e-3, atol=1e-4),
            "the second episode is asked twice in a row: what only another episode stirs up is missed",
            "Ask for `first` before and after `second`.",
        ),
        Wrong(
            "second asked early",
            lambda predict, first, second: (
                predict(first) is None or not torch.allclose(predict(second), predict(second), rtol=1e-3, atol=1e-4)
            ),
            "the answers to `second` are compared, twice in a row: what only another episode stirs up is missed",
            "Keep the answer to `first` from before `second` was asked.",
        ),
        Wrong(
            "norms only",
            _memory_judged_by(lambda a, b: abs(float(a.norm() - b.norm())) > 1e-3),
            "the comparison is blind to order, as a norm or sorted logits are: two classes may change places",
            "Compare the tables entry by entry.",
        ),
        Wrong(
            "compared too late",
            _memory_compared_late,
            "both answers that are compared come after `second`: what it stirred up is in both of them",
            "Keep the answer to `first` from before `second` was asked.",
        ),
        Wrong(
            "second asked before",
            _memory_stirred_before,
            "`second` was asked already before the answer to `first` that is kept: what it stirred up is in both answers",
            "Begin with `first`, before `second` was ever asked.",
        ),
        Wrong(
            "every logit must move",
            _memory_judged_by(lambda a, b: bool((~torch.isclose(a, b, rtol=1e-3, atol=1e-4)).all())),
            "the alarm waits until *all* logits change: a memory may touch a few of them",
            "One logit that changes is enough: `any`, not `all`.",
        ),
        Wrong(
            "roles swapped",
            lambda predict, first, second: exposes_memory(predict, second, first),
            "the roles are swapped: it tests what `first` does to `second`, and a memory can work one way only",
            "The logits of `first` are compared, before and after `second`.",
        ),
        Wrong(
            "probabilities only",
            _memory_judged_by(lambda a, b: not torch.allclose(a.softmax(1), b.softmax(1), rtol=1e-3, atol=1e-4)),
            "the softmax is compared: it does not notice a number that is added to all logits of a query",
            "Compare the logits themselves.",
        ),
        Wrong(
            "sums only",
            _memory_judged_by(lambda a, b: not torch.allclose(a.sum(), b.sum(), rtol=1e-3, atol=1e-4)),
            "only the sum of all logits is compared: what goes up here and down there cancels",
            "Compare the tables entry by entry.",
        ),
        Wrong(
            "average gap",
            _memory_judged_by(lambda a, b: abs(float((a - b).mean())) > 1e-3),
            "the differences are averaged with their signs: what goes up here and down there cancels",
            "Take the largest absolute difference, or `torch.allclose`.",
        ),
        Wrong(
            "first query only",
            _memory_judged_by(lambda a, b: not torch.allclose(a[0], b[0], rtol=1e-3, atol=1e-4)),
            "only the first query is compared: a memory that shows in another row is missed",
            "Compare all rows.",
        ),
        Wrong(
            "two episodes compared",
            lambda predict, first, second: (
                not torch.allclose(predict(first)[:4], predict(second), rtol=1e-3, atol=1e-4)
            ),
            "the logits of two different episodes are compared: they always differ",
            "Compare `first` with itself, before and after `second`.",
        ),
        Wrong(
            "predictions only",
            _memory_judged_by(lambda a, b: not torch.equal(a.argmax(1), b.argmax(1))),
            "only the winning classes are compared: a memory that is small here slips through",
            "Compare the logits themselves.",
        ),
        Wrong(
            "exactly equal",
            _memory_judged_by(lambda a, b: not torch.equal(a, b)),
            "the logits are compared more strictly than asked for: rounding rings the alarm",
            "`torch.allclose` with `rtol=1e-3, atol=1e-4`; without them it allows a hundred-thousandth only.",
        ),
        Wrong(
            "wide tolerance",
            _memory_judged_by(lambda a, b: not torch.allclose(a, b, rtol=0.1, atol=0.1)),
            "the tolerance is so wide that a small memory passes",
            "`rtol=1e-3, atol=1e-4` lets rounding pass and nothing else.",
        ),
        Wrong(
            "turned round",
            lambda predict, first, second: not exposes_memory(predict, first, second),
            "the answer is turned round: True stands where nothing is remembered",
            "`torch.allclose` is True when all is well: put a `not` in front.",
        ),
    ),
    hints=(
        "An episode is a pure function of its number. What must a learner's answer to it be?",
        "Ask for `first`, then for `second`, then for `first` again.",
        "`before = predict(first); predict(second)`, and then compare `before` with `predict(first)` by `torch.allclose`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 02.6 imprinted weights


def imprint(weight: Tensor, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Extends a cosine head by N classes. weight [C, D], support [S, D], labels [S] -> unit rows [C+N, D]."""
    rows = F.normalize(support, dim=1)
    new = torch.stack([rows[labels == k].mean(0) for k in range(n_way)])
    return F.normalize(torch.cat([weight, new]), dim=1)


def _imprint_sums(weight: Tensor, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    sums = F.one_hot(labels, n_way).to(support).T @ F.normalize(support, dim=1)
    whole = torch.cat((weight, sums), dim=0)
    return whole / whole.norm(dim=1, keepdim=True)


def _imprint_filled(weight: Tensor, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    count = len(weight)
    grown = weight.new_empty(count + n_way, weight.shape[1])
    grown[:count] = F.normalize(weight, dim=1)
    for k in range(n_way):
        mean = F.normalize(support[labels == k], dim=1).mean(0)
        grown[count + k] = mean / mean.norm()
    return grown


def _imprint_plus_tiny(weight: Tensor, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    with torch.no_grad():  # imprinting trains nothing
        new = [_plus_tiny(support[labels == k]).mean(0, keepdim=True) for k in range(n_way)]
        return torch.cat([_plus_tiny(weight), *map(_plus_tiny, new)])


def _imprint_index_add(weight: Tensor, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    room = torch.cat([weight, weight.new_zeros(n_way, weight.shape[1])])
    return F.normalize(room.index_add(0, labels + len(weight), F.normalize(support)))


def _imprint_unfinished(weight: Tensor, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Puts the means of unit rows below the old rows and leaves all lengths as they are."""
    rows = F.normalize(support, dim=1)
    return torch.cat([weight, torch.stack([rows[labels == k].mean(0) for k in range(n_way)])])


def _imprint_first_met(weight: Tensor, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    rows = F.normalize(support, dim=1)
    return F.normalize(
        torch.cat([weight, torch.stack([rows[labels == k].mean(0) for k in dict.fromkeys(labels.tolist())])]), dim=1
    )


def _imprint_cases(generator: Generator) -> list[Case]:
    def case(says: str, base: int, shots: list[int], dtype: torch.dtype = torch.float32) -> Case:
        support, labels, _, n_way = _rows(generator, shots, 1, 4)
        return Case(says, ((3 * torch.randn(base, 4, generator=generator)).to(dtype), support.to(dtype), labels, n_way))

    example = torch.tensor([[0.0, 5.0], [4.0, 3.0], [3.0, 4.0], [10.0, 0.0]])
    return [
        Case(
            "one old class, the example on paper", (torch.tensor([[-2.0, 0.0]]), example, torch.tensor([0, 1, 0, 1]), 2)
        ),
        case("6 old classes, 3 new ones of 2 shots", 6, [2, 2, 2]),
        case("unequal shots: 1, 3 and 2", 4, [1, 3, 2]),
        case("one shot each", 3, [1, 1]),
        case("float64", 5, [2, 1, 2], torch.float64),
    ]


IMPRINT = Exercise(
    id="02.6",
    title="Imprinted weights",
    reference=imprint,
    cases=_imprint_cases,
    right=(_imprint_sums, _imprint_filled, _imprint_plus_tiny, _imprint_index_add),
    wrong=(
        Wrong(
            "new rows only",
            lambda w, s, y, n: imprint(w, s, y, n)[len(w) :],
            "only the new classes are returned: the head forgets the old ones",
            "`torch.cat([weight, new])`.",
        ),
        Wrong(
            "new rows first",
            lambda w, s, y, n: imprint(w, s, y, n).roll(n, 0),
            "the new rows come first, so that every old class gets another number",
            "Old rows first: class k of the old head must stay row k.",
        ),
        Wrong(
            "old rows as they are",
            lambda w, s, y, n: torch.cat([w, imprint(w, s, y, n)[len(w) :]]),
            "the old rows keep their lengths beside new rows of length 1",
            "Normalise the whole head at the end.",
        ),
        Wrong(
            "new rows not unit length",
            lambda w, s, y, n: torch.cat(
                [
                    F.normalize(w, dim=1),
                    torch.stack([F.normalize(s, dim=1)[y == k].mean(0) for k in range(n)]),
                ]
            ),
            "the new rows are means of unit rows, and such a mean is shorter than 1",
            "Normalise once more after averaging.",
        ),
        Wrong(
            "means of raw rows",
            lambda w, s, y, n: F.normalize(torch.cat([w, torch.stack([s[y == k].mean(0) for k in range(n)])]), dim=1),
            "the support rows are averaged as they are: one long row outvotes the others of its class",
            "Make every support row unit length before you average.",
        ),
        Wrong(
            "nothing unit length",
            lambda w, s, y, n: torch.cat([w, torch.stack([s[y == k].mean(0) for k in range(n)])]),
            "nothing is made unit length: neither the support rows nor the rows of the head",
            "Normalise the support rows before you average, and the whole head at the end.",
        ),
        Wrong(
            "one mean of all rows",
            lambda w, s, y, n: F.normalize(torch.cat([w, F.normalize(s, dim=1).mean(0).expand(n, -1)]), dim=1),
            "every new class gets the mean of all support rows: nothing tells the new classes apart",
            "`rows[labels == k].mean(0)` takes the rows of class k alone.",
        ),
        Wrong(
            "divided by one length",
            lambda w, s, y, n: _whole(torch.cat([w, imprint(w, s, y, n)[len(w) :]])),
            "the whole head is divided by one length: `x.norm()` without `dim` is the length of all its numbers together",
            "Each *row* has a length of its own: `dim=1`.",
            also=(lambda w, s, y, n: _whole(_imprint_unfinished(w, s, y, n)),),
        ),
        Wrong(
            "reshape",
            lambda w, s, y, n: F.normalize(
                torch.cat([w, F.normalize(s, dim=1).view(n, -1, s.shape[1]).mean(1)]), dim=1
            ),
            "the rows are taken to be sorted by class, with equal shots",
            "Let `labels == k` say which rows belong to class k.",
        ),
        Wrong(
            "not averaged",
            lambda w, s, y, n: F.normalize(torch.cat([w, s]), dim=1),
            "every support picture becomes a row of its own",
            "Average the unit rows of each class: `n_way` new rows.",
        ),
        Wrong(
            "lengths left as they are",
            _imprint_unfinished,
            "means of unit rows stand below the old rows, and no row of the head is made unit length",
            "Normalise the whole head at the end.",
        ),
        Wrong(
            "order of first meeting",
            _imprint_first_met,
            "the new classes stand in the order in which the support names them, not in that of their slots",
            "Go through `range(n_way)`: row C + k belongs to slot k.",
        ),
        Wrong(
            "order turned",
            lambda w, s, y, n: torch.cat([imprint(w, s, y, n)[: len(w)], imprint(w, s, y, n)[len(w) :].flip(0)]),
            "the new classes stand in the reverse order of their slots",
            "Row C + k belongs to slot k.",
        ),
        Wrong(
            "raw means as they are",
            lambda w, s, y, n: torch.cat([F.normalize(w, dim=1), torch.stack([s[y == k].mean(0) for k in range(n)])]),
            "the new rows are plain means of raw support rows",
            "Normalise the support rows before you average, and the whole head at the end.",
        ),
        Wrong(
            "first picture",
            lambda w, s, y, n: F.normalize(torch.cat([w, torch.stack([s[y == k][0] for k in range(n)])]), dim=1),
            "the first picture of a class stands for all of them",
            "Average the unit rows of the class.",
        ),
        Wrong(
            "last picture",
            lambda w, s, y, n: F.normalize(torch.cat([w, s.new_zeros(n, s.shape[1]).index_copy(0, y, s)]), dim=1),
            "the last picture of a class stands for all of them: `new[labels] = rows` overwrites and does not add",
            "Average the unit rows of the class.",
        ),
        Wrong(
            "normalised over the rows",
            lambda w, s, y, n: F.normalize(torch.cat([w, imprint(w, s, y, n)[len(w) :]]), dim=0),
            "the last normalisation runs over the classes: dim=0",
            "Each *row* becomes unit length: dim=1.",
            also=(lambda w, s, y, n: F.normalize(_imprint_unfinished(w, s, y, n), dim=0),),
        ),
    ),
    hints=(
        "A cosine head compares with directions. Which direction is a class with a handful of pictures?",
        "Unit rows, their mean for each class, old rows on top, and all rows made unit length.",
        "`return F.normalize(torch.cat([weight, new]), dim=1)` with `new` as the class means of unit rows.",
    ),
)

# ---------------------------------------------------------------------------------------------- 02.7 the probe's objective


def probe_objective(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, l2: float) -> Tensor:
    """Returns mean cross-entropy + l2 / 2 * (|W|^2 + |b|^2). weight [N, D], bias [N], z [S, D], labels [S] -> scalar."""
    penalty = weight.square().sum() + bias.square().sum()
    return F.cross_entropy(z @ weight.T + bias, labels) + 0.5 * l2 * penalty


def _probe_nll(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, l2: float) -> Tensor:
    share = F.linear(z, weight, bias).log_softmax(1)
    return F.nll_loss(share, labels) + l2 / 2 * (torch.sum(weight**2) + torch.sum(bias**2))


def _probe_by_hand(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, l2: float) -> Tensor:
    head = torch.cat([weight, bias[:, None]], dim=1)
    logits = torch.cat([z, z.new_ones(len(z), 1)], dim=1) @ head.T
    right = logits[torch.arange(len(z)), labels]
    return (logits.logsumexp(1) - right).mean() + l2 * (head * head).sum() / 2


def _probe_loop(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, l2: float) -> Tensor:
    total = z.new_zeros(())
    for row, y in zip(z, labels.tolist(), strict=True):
        logits = weight @ row + bias
        total = total - F.log_softmax(logits, dim=0)[y] / len(z)
    return total + 0.5 * l2 * (torch.trace(weight @ weight.T) + bias @ bias)


def _probe_gathered(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, l2: float) -> Tensor:
    shares = torch.log_softmax(torch.einsum("sd,nd->sn", z, weight) + bias, dim=-1)
    squares = torch.linalg.vector_norm(weight) ** 2 + torch.linalg.vector_norm(bias) ** 2
    return l2 * squares / 2 - shares.gather(1, labels[:, None]).mean()


def _probe(penalty: Callable[[Tensor, Tensor], Tensor], reduction: str = "mean") -> Callable[..., Tensor]:
    """Returns the objective with another penalty: cross-entropy + l2 * penalty(weight, bias)."""

    def answer(weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, l2: float) -> Tensor:
        return F.cross_entropy(z @ weight.T + bias, labels, reduction=reduction) + l2 * penalty(weight, bias)

    return answer


def _probe_cases(generator: Generator) -> list[Case]:
    def case(says: str, labels: list[int], n_way: int, l2: float, dtype: torch.dtype = torch.float32) -> Case:
        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype)

        return Case(says, (draw(n_way, 4), draw(n_way), draw(len(labels), 4), torch.tensor(labels), l2))

    return [
        case("3 classes, 2 shots", [2, 0, 1, 1, 0, 2], 3, 0.5),
        case("no penalty", [0, 1, 2], 3, 0.0),
        case("a large penalty", [1, 0], 2, 5.0),
        case("unequal shots", [0, 3, 3, 1, 2, 3], 4, 0.1),
        Case(
            "logits of 200, of which a softmax alone rounds to 0",
            (200 * torch.eye(2), torch.ones(2), torch.eye(2)[[0, 1, 0]], torch.tensor([0, 1, 1]), 0.1),
        ),
        case("float64", [1, 0, 2, 1], 3, 0.3, torch.float64),
    ]


PROBE = Exercise(
    id="02.7",
    title="The probe's objective",
    reference=probe_objective,
    cases=_probe_cases,
    gradient=(0, 1),
    right=(_probe_nll, _probe_by_hand, _probe_loop, _probe_gathered),
    wrong=(
        Wrong(
            "no half",
            _probe(lambda w, b: w.square().sum() + b.square().sum()),
            "the factor one half before the penalty is missing",
            "`l2 / 2 * (...)`: so the penalty's slope is l2 times the weight.",
        ),
        Wrong(
            "bias free",
            _probe(lambda w, b: w.square().sum() / 2),
            "the biases are left out of the penalty",
            "Add `bias.square().sum()`: then the minimum is unique.",
        ),
        Wrong(
            "not squared",
            _probe(lambda w, b: (w.norm() + b.norm()) / 2),
            "the lengths are taken, not their squares",
            "`.square().sum()`, without a square root.",
        ),
        Wrong(
            "mean of squares",
            _probe(lambda w, b: (w.square().mean() + b.square().mean()) / 2),
            "the squares are averaged",
            "`.sum()` over all weights.",
        ),
        Wrong(
            "rewarded",
            _probe(lambda w, b: -(w.square().sum() + b.square().sum()) / 2),
            "long weights are rewarded: there is no minimum at all",
            "Add the penalty.",
        ),
        Wrong(
            "summed",
            _probe(lambda w, b: (w.square().sum() + b.square().sum()) / 2, reduction="sum"),
            "the cross-entropy is summed over the support: with more shots the penalty weighs less",
            "Take the mean over the S rows.",
        ),
        Wrong(
            "no penalty",
            _probe(lambda w, b: 0 * w.sum()),
            "the penalty is missing: the loss then falls for ever as the weights grow",
            "Add `l2 / 2` times the sum of all squares.",
        ),
        Wrong(
            "square of the sum",
            _probe(lambda w, b: (w.norm() + b.norm()) ** 2 / 2),
            "the lengths are added before they are squared",
            "Square each, then add: `weight.square().sum() + bias.square().sum()`.",
        ),
        Wrong(
            "l2 squared",
            lambda w, b, z, y, l2: probe_objective(w, b, z, y, l2 * l2),
            "`l2` is squared too",
            "`l2 / 2` times the sum of squares.",
        ),
        Wrong(
            "log of softmax",
            lambda w, b, z, y, l2: (
                F.nll_loss((z @ w.T + b).softmax(1).log(), y) + l2 / 2 * (w.square().sum() + b.square().sum())
            ),
            "the logarithm is taken of a number out of range: a softmax that is exactly 0, or exponentials that overflow",
            "`F.cross_entropy` or `log_softmax` does both at once and stays finite.",
            also=(
                lambda w, b, z, y, l2: (
                    F.nll_loss(_naive_softmax(z @ w.T + b).log(), y) + l2 / 2 * (w.square().sum() + b.square().sum())
                ),
            ),
        ),
        Wrong(
            "penalty in the mean",
            _probe(lambda w, b: (w.square().sum() + b.square().sum()) / 2 / len(b)),
            "the penalty is divided by the number of classes",
            "Sum the squares of all weights and biases; divide by 2 alone.",
        ),
        Wrong(
            "absolute values",
            _probe(lambda w, b: (w.abs().sum() + b.abs().sum()) / 2),
            "absolute values are summed, not squares",
            "`.square().sum()`.",
        ),
        Wrong(
            "half on the weights only",
            _probe(lambda w, b: w.square().sum() / 2 + b.square().sum()),
            "one half stands before the squares of the weights, but not before those of the biases",
            "Put brackets round the sum: `l2 / 2 * (...)`.",
        ),
        Wrong(
            "bias left out of the logits",
            lambda w, b, z, y, l2: F.cross_entropy(z @ w.T, y) + l2 / 2 * (w.square().sum() + b.square().sum()),
            "the bias is left out of the logits, though it is in the penalty",
            "The logits are `z @ weight.T + bias`.",
        ),
        Wrong(
            "softmax twice",
            lambda w, b, z, y, l2: (
                probe_objective(w, b, z, y, l2)
                - F.cross_entropy(z @ w.T + b, y)
                + F.cross_entropy((z @ w.T + b).softmax(1), y)
            ),
            "probabilities go into `F.cross_entropy`, which takes the softmax again",
            "Hand it the logits.",
        ),
    ),
    hints=(
        "Two terms: how wrong the support is, and how long the weights are.",
        "`F.cross_entropy(z @ weight.T + bias, labels)` is the first; the second is l2 / 2 times the sum of all squares.",
        "`... + 0.5 * l2 * (weight.square().sum() + bias.square().sum())`",
    ),
)

EXERCISES = (TARGETS, CENTROID, HEAD, STEP, MEMORY, IMPRINT, PROBE)
