"""Exercises of lesson 13: the mask, linear attention, codes for classes, a detector of queries that read each other, columns.

Cases: every exercise builds its own. The detector 13.4 gets readers as arguments and must return True for the leaking ones only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ---------------------------------------------------------------------------------------------- 13.1 the mask


def context_mask(shots: int, queries: int) -> Tensor:
    """Returns who reads whom: bool [S+M, S+M], True where row i reads row j."""
    rows = shots + queries
    return (torch.arange(rows) < shots) | torch.eye(rows, dtype=torch.bool)


def _mask_by_loops(shots: int, queries: int) -> Tensor:
    rows = range(shots + queries)
    return torch.tensor([[j < shots or i == j for j in rows] for i in rows])


def _mask_by_blocks(shots: int, queries: int) -> Tensor:
    left = torch.ones(shots + queries, shots, dtype=torch.bool)
    right = torch.cat([torch.zeros(shots, queries), torch.eye(queries)]).bool()
    return torch.cat([left, right], dim=1)


def _mask_by_slices(shots: int, queries: int) -> Tensor:
    mask = torch.zeros(shots + queries, shots + queries, dtype=torch.bool)
    mask[:, :shots] = True
    mask.fill_diagonal_(True)
    return mask


def _mask_by_numbers(shots: int, queries: int) -> Tensor:
    row = torch.arange(shots + queries)
    return torch.logical_or(row[None, :] < shots, row[:, None] == row[None, :])


def _mask_by_forbidding(shots: int, queries: int) -> Tensor:
    mask = torch.ones(shots + queries, shots + queries, dtype=torch.bool)
    mask[:, shots:] = False
    for j in range(shots, shots + queries):
        mask[j, j] = True
    return mask


def _columns_of_support(shots: int, queries: int) -> Tensor:
    return (torch.arange(shots + queries) < shots).expand(shots + queries, -1).clone()


def _mask_cases(generator: Generator) -> list[Case]:
    return [
        Case("2 support rows and 2 queries", (2, 2)),
        Case("5 support rows and 3 queries", (5, 3)),
        Case("3 support rows and 5 queries", (3, 5)),
        Case("a single query", (4, 1)),
        Case("a single support row", (1, 3)),
    ]


def _support_reads_itself_only(shots: int, queries: int) -> Tensor:
    mask = context_mask(shots, queries)
    mask[:shots, :shots] = torch.eye(shots, dtype=torch.bool)
    return mask


def _everything_but_other_queries_for_queries(shots: int, queries: int) -> Tensor:
    """Lets the support read the queries, too."""
    mask = context_mask(shots, queries)
    mask[:shots] = True
    return mask


def _queries_first(shots: int, queries: int) -> Tensor:
    rows = shots + queries
    return (torch.arange(rows) >= queries) | torch.eye(rows, dtype=torch.bool)


MASK = Exercise(
    id="13.1",
    title="Who reads whom",
    reference=context_mask,
    cases=_mask_cases,
    right=(_mask_by_loops, _mask_by_blocks, _mask_by_slices, _mask_by_numbers, _mask_by_forbidding),
    wrong=(
        Wrong(
            "everyone reads everyone",
            lambda s, m: torch.ones(s + m, s + m, dtype=torch.bool),
            "every row reads every row, so that the queries read each other",
            "In the columns of the queries only the diagonal is True.",
        ),
        Wrong(
            "causal",
            lambda s, m: torch.ones(s + m, s + m, dtype=torch.bool).tril(),
            "every row reads the rows before it, as in a language model: the order of the support would matter",
            "No order here: all columns of the support are True for every row.",
            also=(lambda s, m: context_mask(s, m).tril(), lambda s, m: torch.ones(s + m, s + m).triu().bool()),
        ),
        Wrong(
            "the queries read each other",
            lambda s, m: (torch.arange(s + m) < s) | (torch.arange(s + m) >= s)[:, None],
            "queries read other queries, all of them or their neighbours",
            "In the lower right block, query against query, only the diagonal is True.",
            also=(
                lambda s, m: (torch.arange(s + m) < s) | torch.ones(s + m, s + m).tril().bool(),
                lambda s, m: context_mask(s, m) | torch.diag(torch.ones(s + m - 1), -1).bool(),
            ),
        ),
        Wrong(
            "support rows do not read themselves",
            lambda s, m: context_mask(s, m) & ~torch.diag(torch.arange(s + m) < s),
            "support rows do not read themselves",
            "Support rows read all support rows, themselves included. A sum `ones + eye` is 2 there: use `|`.",
        ),
        Wrong(
            "queries do not read themselves",
            _columns_of_support,
            "a query does not read itself",
            "Add the diagonal: `| torch.eye(rows, dtype=torch.bool)`.",
        ),
        Wrong(
            "turned round",
            lambda s, m: context_mask(s, m).T.contiguous(),
            "rows and columns are exchanged: the support reads the queries, and the queries read nothing but themselves",
            "Row i is the reader, column j is what it reads: the support's *columns* are True.",
        ),
        Wrong(
            "True means forbidden",
            lambda s, m: ~context_mask(s, m),
            "True and False are exchanged: True stands where a row may NOT read",
            "True where row i reads row j.",
        ),
        Wrong(
            "the support reads itself only",
            _support_reads_itself_only,
            "rows of the support read nothing but themselves",
            "Support rows read all support rows: the upper left block is True everywhere.",
            also=(lambda s, m: torch.eye(s + m, dtype=torch.bool),),
        ),
        Wrong(
            "the support reads the queries",
            _everything_but_other_queries_for_queries,
            "the support rows read the queries, through which every query sees the others after one more layer",
            "In the columns of the queries only the diagonal is True, also for support rows.",
            also=(
                lambda s, m: torch.cat(
                    [torch.ones(s, s + m), torch.cat([torch.ones(m, s), torch.zeros(m, m)], 1)]
                ).bool(),
            ),
        ),
        Wrong(
            "the diagonal is missing",
            lambda s, m: _columns_of_support(s, m) & ~torch.eye(s + m, dtype=torch.bool),
            "no row reads itself",
            "The diagonal is True for every row.",
        ),
        Wrong(
            "queries first",
            _queries_first,
            "the queries are taken for the first rows, or the support's columns are counted wrongly",
            "The first `shots` rows and columns belong to the support.",
            also=(
                lambda s, m: (torch.arange(s + m) < m) | torch.eye(s + m, dtype=torch.bool),
                lambda s, m: (torch.arange(s + m) <= s) | torch.eye(s + m, dtype=torch.bool),
                lambda s, m: (torch.arange(s + m) < s - 1) | torch.eye(s + m, dtype=torch.bool),
            ),
        ),
        Wrong(
            "two separate blocks",
            lambda s, m: torch.block_diag(torch.ones(s, s), torch.ones(m, m)).bool(),
            "support reads support and queries read queries: no query reads the support",
            "Queries read the support's columns and their own.",
            also=(lambda s, m: torch.block_diag(torch.ones(s, s), torch.eye(m)).bool(),),
        ),
        Wrong(
            "numbers in place of booleans",
            lambda s, m: context_mask(s, m).float(),
            "the mask holds numbers; attention would add them to its scores",
            "Return a bool tensor: `dtype=torch.bool`, or `.bool()` at the end.",
            also=(
                lambda s, m: context_mask(s, m).int(),
                lambda s, m: context_mask(s, m).long(),
                lambda s, m: torch.zeros(s + m, s + m).masked_fill(~context_mask(s, m), float("-inf")),
            ),
        ),
        Wrong(
            "rows of the queries only",
            lambda s, m: context_mask(s, m)[s:],
            "only the rows of the queries are there",
            "Support rows read, too: the mask is [S+M, S+M].",
            also=(lambda s, m: context_mask(s, m)[:s], lambda s, m: torch.ones(m, s, dtype=torch.bool)),
        ),
    ),
    hints=(
        "Which columns may everybody read? And which one more may each query read?",
        "The columns of the support, `torch.arange(rows) < shots`, and the diagonal.",
        "`(torch.arange(rows) < shots) | torch.eye(rows, dtype=torch.bool)` with `rows = shots + queries`",
    ),
)

# ---------------------------------------------------------------------------------------------- 13.2 linear attention


def linear_attention(support: Tensor, targets: Tensor, query: Tensor, lr: float) -> Tensor:
    """Returns lr/S times the sum over i of y_i (x_i . x). [S, d], [S, o], [M, d] -> [M, o]."""
    return lr / len(support) * (query @ support.T) @ targets


def _attention_by_weights(support: Tensor, targets: Tensor, query: Tensor, lr: float) -> Tensor:
    weight = lr * (targets.T @ support) / support.shape[0]
    return query @ weight.T


def _attention_by_einsum(support: Tensor, targets: Tensor, query: Tensor, lr: float) -> Tensor:
    return torch.einsum("md,sd,so->mo", query, support, targets) * lr / len(targets)


def _attention_by_loops(support: Tensor, targets: Tensor, query: Tensor, lr: float) -> Tensor:
    rows = []
    for x in query:
        total = torch.zeros_like(targets[0])
        for xi, yi in zip(support, targets, strict=True):
            total = total + yi * (xi * x).sum()
        rows.append(lr * total / len(support))
    return torch.stack(rows)


def _attention_by_means(support: Tensor, targets: Tensor, query: Tensor, lr: float) -> Tensor:
    outer = (support[:, :, None] * targets[:, None, :]).mean(0)  # [d, o]
    return lr * query @ outer


def _attention_by_descent(support: Tensor, targets: Tensor, query: Tensor, lr: float) -> Tensor:
    weight = torch.zeros(targets.shape[1], support.shape[1], dtype=support.dtype)
    error = support @ weight.T - targets
    return query @ (weight - lr * error.T @ support / len(support)).T


def _attention_cases(generator: Generator) -> list[Case]:
    def case(says: str, s: int, d: int, o: int, m: int, lr: float, dtype: torch.dtype = torch.float32) -> Case:
        def rows(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        return Case(says, (rows(s, d), rows(s, o), rows(m, d), lr))

    examples = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    on_paper = (examples, torch.tensor([[2.0], [1.0], [3.0]]), torch.tensor([[3.0, 1.0]]), 0.75)
    return [
        Case("the example on paper", on_paper),
        case("6 examples, 3 features, one output, 4 queries", 6, 3, 1, 4, 0.7),
        case("5 examples, 4 features, 2 outputs, 3 queries", 5, 4, 2, 3, 1.0),
        case("one example", 1, 3, 2, 2, 0.3),
        case("one query, in float64", 7, 5, 2, 1, 0.1, torch.float64),
    ]


ATTENTION = Exercise(
    id="13.2",
    title="A gradient step as attention",
    reference=linear_attention,
    cases=_attention_cases,
    gradient=(0, 1, 2),
    right=(
        _attention_by_weights,
        _attention_by_einsum,
        _attention_by_loops,
        _attention_by_means,
        _attention_by_descent,
    ),
    wrong=(
        Wrong(
            "a sum",
            lambda x, y, q, lr: lr * (q @ x.T) @ y,
            "the sum is not divided by the number of examples",
            "The loss is a mean over the S examples: `lr / len(support)`.",
        ),
        Wrong(
            "softmax",
            lambda x, y, q, lr: lr / len(x) * (q @ x.T).softmax(1) @ y,
            "the scores go through a softmax",
            "Linear attention has no softmax: the score itself multiplies the target.",
            also=(
                lambda x, y, q, lr: (q @ x.T).softmax(1) @ y,
                lambda x, y, q, lr: lr * (q @ x.T).softmax(1) @ y,
                lambda x, y, q, lr: (q @ x.T / x.shape[1] ** 0.5).softmax(1) @ y,
                lambda x, y, q, lr: lr * (q @ x.T / x.shape[1] ** 0.5).softmax(1) @ y,
                lambda x, y, q, lr: lr / len(x) * (q @ x.T / x.shape[1] ** 0.5).softmax(1) @ y,
            ),
        ),
        Wrong(
            "no rate",
            lambda x, y, q, lr: (q @ x.T) @ y / len(x),
            "the learning rate is missing",
            "Multiply by `lr`.",
            also=(lambda x, y, q, lr: (q @ x.T) @ y,),
        ),
        Wrong(
            "uphill",
            lambda x, y, q, lr: -lr / len(x) * (q @ x.T) @ y,
            "the sign is turned: this is a step uphill",
            "The gradient at W = 0 is minus the sum of y x, and descent subtracts it: the result is a plus.",
        ),
        Wrong(
            "the square without its half",
            lambda x, y, q, lr: 2 * lr / len(x) * (q @ x.T) @ y,
            "the factor 1/2 of the loss and the 2 of the square do not cancel: a factor 2 or 1/2 is left over",
            "The loss has a factor 1/2, which takes away the 2 that the square brings.",
            also=(lambda x, y, q, lr: lr / len(x) * (q @ x.T) @ y / 2,),
        ),
        Wrong(
            "divided by the queries",
            lambda x, y, q, lr: lr / len(q) * (q @ x.T) @ y,
            "the sum is divided by the number of queries",
            "Divide by the number of examples, `len(support)`.",
        ),
        Wrong(
            "divided by the features",
            lambda x, y, q, lr: lr / x.shape[1] * (q @ x.T) @ y,
            "the scores are divided by the number of features, or by its root",
            "Divide by the number of examples, `len(support)`.",
            also=(
                lambda x, y, q, lr: lr / x.shape[1] ** 0.5 * (q @ x.T) @ y,
                lambda x, y, q, lr: lr / len(x) * (q @ x.T) / x.shape[1] ** 0.5 @ y,
            ),
        ),
        Wrong(
            "examples plus features",
            lambda x, y, q, lr: lr / sum(x.shape) * (q @ x.T) @ y,
            "the sum is divided by more than the number of examples",
            "Divide by S alone, `len(support)`. Features or queries do not count here.",
            also=(lambda x, y, q, lr: lr / (len(x) + len(q)) * (q @ x.T) @ y,),
        ),
        Wrong(
            "the rate twice",
            lambda x, y, q, lr: lr * lr / len(x) * (q @ x.T) @ y,
            "the learning rate stands there twice",
            "Multiply by `lr` once.",
        ),
        Wrong(
            "centred first",
            lambda x, y, q, lr: lr / len(x) * (q @ (x - x.mean(0)).T) @ y,
            "examples or targets are centred by their mean first",
            "Use `support` and `targets` as they are.",
        ),
        Wrong(
            "sums multiplied",
            lambda x, y, q, lr: lr * (q @ x.mean(0))[:, None] * y.mean(0),
            "scores and targets are summed or averaged apart and multiplied afterwards",
            "Each score belongs to one target: `scores @ targets` multiplies pair by pair and then adds.",
            also=(lambda x, y, q, lr: lr / len(x) * (q @ x.T).sum(1, keepdim=True) * y.sum(0),),
        ),
        Wrong(
            "the best example only",
            lambda x, y, q, lr: y[(q @ x.T).argmax(1)],
            "only the most similar example answers",
            "All examples answer, each weighed by its score.",
        ),
        Wrong(
            "divided by the outputs, too",
            lambda x, y, q, lr: lr / y.numel() * (q @ x.T) @ y,
            "the loss is averaged over the outputs as well",
            "Sum over the outputs, average over the examples only.",
        ),
        Wrong(
            "weights that sum to one",
            lambda x, y, q, lr: lr * ((s := q @ x.T) / s.sum(1, keepdim=True)) @ y,
            "the scores of a query are divided by their sum",
            "Divide by the number of examples; the scores stay as they are.",
            also=(lambda x, y, q, lr: (s := q @ x.T) / s.sum(1, keepdim=True) @ y,),
        ),
        Wrong(
            "cosine",
            lambda x, y, q, lr: lr / len(x) * (F.normalize(q, dim=1) @ F.normalize(x, dim=1).T) @ y,
            "the rows are brought to length 1 first",
            "The score is the plain inner product of query and example.",
        ),
        Wrong(
            "the full solution",
            lambda x, y, q, lr: q @ torch.linalg.pinv(x) @ y,
            "least squares is solved completely, in place of one step towards it",
            "One step from W = 0: lr/S times the sum of y_i x_i, applied to the query.",
        ),
        Wrong(
            "distances",
            lambda x, y, q, lr: -lr / len(x) * torch.cdist(q, x).square() @ y,
            "queries and examples are compared by distances, or scores below zero are cut off",
            "The score is the plain inner product, with its sign.",
            also=(
                lambda x, y, q, lr: lr / len(x) * (q @ x.T).relu() @ y,
                lambda x, y, q, lr: lr / len(x) * (q @ x.T).abs() @ y,
            ),
        ),
        Wrong(
            "targets left out",
            lambda x, y, q, lr: lr / len(x) * (q @ x.T),
            "the scores are returned and no target is weighed by them",
            "Multiply the scores [M, S] by the targets [S, o].",
            also=(lambda x, y, q, lr: lr / len(x) * (q @ x.T) @ x,),
        ),
        Wrong(
            "the weights of the step",
            lambda x, y, q, lr: lr / len(x) * y.T @ x,
            "the weights after the step are returned, not what they predict",
            "Apply the weights to the queries: `query @ weight.T`.",
            also=(lambda x, y, q, lr: lr / len(x) * x.T @ y,),
        ),
        Wrong(
            "outputs first",
            lambda x, y, q, lr: (lr / len(x) * (q @ x.T) @ y).T.contiguous(),
            "the result is [o, M], not [M, o]",
            "One row for each query.",
        ),
        Wrong(
            "detached",
            lambda x, y, q, lr: linear_attention(x.detach(), y, q, lr),
            "a part is cut off from the graph, so that no gradient reaches it",
            "No `.detach()`, no `no_grad`, no `.tolist()`.",
            also=(
                lambda x, y, q, lr: linear_attention(x, y, q, lr).detach(),
                lambda x, y, q, lr: linear_attention(x, y.detach(), q, lr),
            ),
        ),
    ),
    hints=(
        "The step from W = 0 leads to W = lr/S times the sum of y_i x_i, as a matrix [o, d]. What does it predict for x?",
        "Scores `query @ support.T` are [M, S]; they weigh the targets [S, o].",
        "`lr / len(support) * (query @ support.T) @ targets`",
    ),
)

# ---------------------------------------------------------------------------------------------- 13.3 codes


def give_codes(support: Tensor, labels: Tensor, table: Tensor, direction: Tensor) -> Tensor:
    """Gives row r of the table to the class whose mean is the r-th along the direction. -> [N, C]."""
    means = torch.stack([support[labels == k].mean(0) for k in range(len(table))])
    return table[(means @ direction).argsort().argsort()]


def _places(support: Tensor, labels: Tensor, n_way: int, direction: Tensor) -> Tensor:
    """Returns how far each class mean lies along the direction [N]."""
    return torch.stack([support[labels == k].mean(0) for k in range(n_way)]) @ direction


def _codes_by_counting(support: Tensor, labels: Tensor, table: Tensor, direction: Tensor) -> Tensor:
    along = _places(support, labels, len(table), direction)
    return table[(along[:, None] > along[None, :]).sum(1)]


def _codes_by_writing(support: Tensor, labels: Tensor, table: Tensor, direction: Tensor) -> Tensor:
    given = torch.empty_like(table)
    given[_places(support, labels, len(table), direction).argsort()] = table
    return given


def _codes_by_sorting(support: Tensor, labels: Tensor, table: Tensor, direction: Tensor) -> Tensor:
    along = _places(support, labels, len(table), direction).tolist()
    ranked = sorted(range(len(along)), key=lambda k: along[k])
    return torch.stack([table[ranked.index(k)] for k in range(len(along))])


def _codes_by_projecting_first(support: Tensor, labels: Tensor, table: Tensor, direction: Tensor) -> Tensor:
    along, count = support @ direction, labels.bincount(minlength=len(table))
    means = torch.zeros(len(table), dtype=support.dtype).index_add(0, labels, along) / count
    return table[torch.searchsorted(means.sort().values, means)]


def _code_cases(generator: Generator) -> list[Case]:
    def case(says: str, shots: list[int], dtype: torch.dtype = torch.float32) -> Case:
        labels = torch.cat([torch.full((shot,), k) for k, shot in enumerate(shots)])
        labels = labels[torch.randperm(len(labels), generator=generator)]
        support = torch.randn(len(labels), 4, generator=generator, dtype=dtype) + 0.5
        table = torch.randn(len(shots), 3, generator=generator, dtype=dtype)
        return Case(says, (support, labels, table, torch.randn(4, generator=generator, dtype=dtype)))

    line, table = torch.tensor([[4.0], [1.0], [2.0], [8.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return [
        Case("the example on paper", (line, torch.tensor([0, 1, 2, 0]), table, torch.tensor([1.0]))),
        Case("the same along the opposite direction", (line, torch.tensor([0, 1, 2, 0]), table, torch.tensor([-1.0]))),
        Case(
            "two classes, one of them with three shots",
            (torch.tensor([[1.0], [1.5], [2.0], [1.0]]), torch.tensor([0, 0, 1, 0]), table[:2], torch.tensor([1.0])),
        ),
        case("5 classes of 2 shots", [2, 2, 2, 2, 2]),
        case("4 classes, unequal shots", [1, 5, 2, 3]),
        case("6 classes of one shot", [1] * 6),
        case("5 classes, unequal shots, in float64", [2, 1, 4, 1, 3], torch.float64),
    ]


def _relabelled(answer: Callable, reference: Callable) -> str | None:
    generator = torch.Generator().manual_seed(3)
    support, table = torch.randn(8, 4, generator=generator), torch.randn(4, 3, generator=generator)
    labels, direction = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]), torch.randn(4, generator=generator)
    new_slot = torch.tensor([2, 0, 3, 1])
    before, after = answer(support, labels, table, direction), answer(support, new_slot[labels], table, direction)
    return None if torch.equal(after[new_slot], before) else "after relabelling, a class had another code."


CODES = Exercise(
    id="13.3",
    title="Codes that follow the support",
    reference=give_codes,
    cases=_code_cases,
    properties=(Property("a class keeps its code when its slot changes", _relabelled),),
    right=(_codes_by_counting, _codes_by_writing, _codes_by_sorting, _codes_by_projecting_first),
    wrong=(
        Wrong(
            "argsort once",
            lambda x, y, t, d: t[_places(x, y, len(t), d).argsort()],
            "`argsort` is used as if it gave ranks: it says which class comes first, not the place of class 0",
            "The places are `.argsort().argsort()`, or count for each class how many lie below it.",
        ),
        Wrong(
            "by slot",
            lambda x, y, t, d: t.clone(),
            "row k of the table goes to slot k, whatever the support holds",
            "Order the classes by their means along the direction; the slot's number must not matter.",
        ),
        Wrong(
            "largest first",
            lambda x, y, t, d: t[_places(x, y, len(t), d).argsort(descending=True).argsort()],
            "the order runs from the largest value to the smallest",
            "The smallest value gets row 0, and `argsort` alone gives no ranks.",
            also=(lambda x, y, t, d: t[_places(x, y, len(t), d).argsort(descending=True)],),
        ),
        Wrong(
            "sums in place of means",
            lambda x, y, t, d: t[torch.stack([x[y == k].sum(0) for k in range(len(t))]).matmul(d).argsort().argsort()],
            "the rows of a class are summed and not averaged, so that classes with many shots move outwards",
            "Divide by the class's own number of rows.",
        ),
        Wrong(
            "by the first row",
            lambda x, y, t, d: t[torch.stack([x[y == k][0] for k in range(len(t))]).matmul(d).argsort().argsort()],
            "one row stands for its class, the first, the last, the largest or the smallest",
            "Take the mean of all rows of a class.",
            also=(
                lambda x, y, t, d: t[torch.stack([x[y == k][-1] for k in range(len(t))]).matmul(d).argsort().argsort()],
                lambda x, y, t, d: t[torch.stack([(x[y == k] @ d).max() for k in range(len(t))]).argsort().argsort()],
                lambda x, y, t, d: t[torch.stack([(x[y == k] @ d).min() for k in range(len(t))]).argsort().argsort()],
            ),
        ),
        Wrong(
            "by length",
            lambda x, y, t, d: t[
                torch.stack([x[y == k].mean(0) for k in range(len(t))]).norm(dim=1).argsort().argsort()
            ],
            "the classes are ordered by the length of their means, and the direction is not used",
            "The value of a class is `mean @ direction`.",
        ),
        Wrong(
            "one feature",
            lambda x, y, t, d: t[torch.stack([x[y == k].mean(0)[0] for k in range(len(t))]).argsort().argsort()],
            "one feature of the means orders the classes, and the direction is not used",
            "The value of a class is `mean @ direction`, over all features.",
            also=(
                lambda x, y, t, d: t[torch.stack([x[y == k].mean(0)[-1] for k in range(len(t))]).argsort().argsort()],
                lambda x, y, t, d: t[torch.stack([x[y == k].mean(0).max() for k in range(len(t))]).argsort().argsort()],
            ),
        ),
        Wrong(
            "a mean over everything",
            lambda x, y, t, d: t[torch.stack([x[y == k].mean() * d.sum() for k in range(len(t))]).argsort().argsort()],
            "the mean of a class runs over its features, too, and is one number",
            "`support[labels == k].mean(0)` keeps the features; then comes `@ direction`.",
            also=(lambda x, y, t, d: t[torch.stack([x[y == k].mean() for k in range(len(t))]).argsort().argsort()],),
        ),
        Wrong(
            "means in order of appearance",
            lambda x, y, t, d: t[
                torch.stack([x[y == k].mean(0) for k in dict.fromkeys(y.tolist())]).matmul(d).argsort().argsort()
            ],
            "the means stand in the order in which the classes first appear, so that row k is not class k",
            "Go through the classes in order: `for k in range(len(table))`.",
        ),
        Wrong(
            "the value as an index",
            lambda x, y, t, d: t[_places(x, y, len(t), d).long() % len(t)],
            "the value itself, cut to a whole number, chooses the row of the table",
            "Sort the classes by their values: the class with the smallest one gets row 0.",
            also=(lambda x, y, t, d: t[_places(x, y, len(t), d).round().long() % len(t)],),
        ),
        Wrong(
            "without a sign",
            lambda x, y, t, d: t[_places(x, y, len(t), d).abs().argsort().argsort()],
            "the values along the direction lose their sign",
            "Sort the values as they are, without `.abs()`.",
        ),
        Wrong(
            "length 1 first",
            lambda x, y, t, d: t[
                F.normalize(torch.stack([x[y == k].mean(0) for k in range(len(t))]), dim=1)
                .matmul(d)
                .argsort()
                .argsort()
            ],
            "vectors are brought to length 1 before they are laid along the direction",
            "Use the means as they are: `mean @ direction`.",
            also=(lambda x, y, t, d: t[_places(F.normalize(x, dim=1), y, len(t), d).argsort().argsort()],),
        ),
        Wrong(
            "median",
            lambda x, y, t, d: t[
                torch.stack([x[y == k].median(0).values for k in range(len(t))]).matmul(d).argsort().argsort()
            ],
            "the median stands where the mean belongs",
            "`support[labels == k].mean(0)`.",
            also=(
                lambda x, y, t, d: t[
                    torch.stack([(x[y == k] @ d).median() for k in range(len(t))]).argsort().argsort()
                ],
            ),
        ),
        Wrong(
            "reshape",
            lambda x, y, t, d: t[
                torch.stack([part.mean(0) for part in x.tensor_split(len(t))]).matmul(d).argsort().argsort()
            ],
            "the support is cut into equal parts without a look at the labels",
            "Choose the rows of class k with `labels == k`.",
        ),
        Wrong(
            "order of first meeting",
            lambda x, y, t, d: t[torch.stack([(y == k).nonzero()[0, 0] for k in range(len(t))]).argsort().argsort()],
            "the codes are given in the order in which the classes first appear in the support",
            "The order of the rows must not matter: use the means.",
        ),
        Wrong(
            "the same code for all",
            lambda x, y, t, d: t[:1].expand(len(t), -1).clone(),
            "every class gets the same code, so that no answer tells the classes apart",
            "Each class gets a row of the table of its own.",
            also=(lambda x, y, t, d: t.mean(0, keepdim=True).expand(len(t), -1).clone(),),
        ),
        Wrong(
            "the table sorted",
            lambda x, y, t, d: t.sort(0).values[_places(x, y, len(t), d).argsort().argsort()],
            "the table itself is sorted first",
            "Leave the table as it is; choose rows of it: `table[rank]`.",
            also=(lambda x, y, t, d: t[t[:, 0].argsort()][_places(x, y, len(t), d).argsort().argsort()],),
        ),
        Wrong(
            "distance to the direction",
            lambda x, y, t, d: t[
                (torch.stack([x[y == k].mean(0) for k in range(len(t))]) - d).square().sum(1).argsort().argsort()
            ],
            "the classes are ordered by their distance from the direction",
            "The value of a class is the inner product `mean @ direction`.",
        ),
        Wrong(
            "one place too far",
            lambda x, y, t, d: t[(_places(x, y, len(t), d).argsort().argsort() + 1) % len(t)],
            "the rows of the table are shifted by one",
            "The class with the smallest value gets row 0.",
        ),
        Wrong(
            "rounded",
            lambda x, y, t, d: t[_places(x, y, len(t), d).round().argsort(stable=True).argsort()],
            "the values are rounded, so that different classes become equal",
            "Sort the values as they are.",
        ),
        Wrong(
            "codes of the rows",
            lambda x, y, t, d: give_codes(x, y, t, d)[y],
            "the codes of the support rows are returned, [S, C]",
            "Return the codes of the classes, [N, C]: row k for slot k.",
            also=(lambda x, y, t, d: t[y],),
        ),
        Wrong(
            "ranks",
            lambda x, y, t, d: _places(x, y, len(t), d).argsort().argsort(),
            "numbers or ranks are returned and no row of the table is looked up",
            "`table[ranks]`.",
            also=(lambda x, y, t, d: _places(x, y, len(t), d),),
        ),
    ),
    hints=(
        "What is left of a class when its slot's number may not count? Its support rows.",
        "The class means along the direction give N numbers; the class with the smallest gets row 0 of the table.",
        "`table[(means @ direction).argsort().argsort()]`",
    ),
)

# ---------------------------------------------------------------------------------------------- 13.4 do queries read queries?

Reader = Callable[[Tensor, Tensor, Tensor], Tensor]


def exposes_leak(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    """Returns True if some query's answer changes with the other queries."""
    together = read(support, targets, query)
    alone = torch.cat([read(support, targets, query[j : j + 1]) for j in range(len(query))])
    return not torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


def _exposes_by_leaving_out(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    before, rows = read(support, targets, query), torch.arange(len(query))
    return any(
        not torch.allclose(read(support, targets, query[rows != j]), before[rows != j], rtol=1e-4, atol=1e-4)
        for j in range(len(query))
    )


def _exposes_by_row(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    gaps = [
        read(support, targets, q[None])[0] - row for q, row in zip(query, read(support, targets, query), strict=True)
    ]
    return torch.stack(gaps).abs().max() > 1e-4


def _exposes_by_lists(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    together, worst = read(support, targets, query).tolist(), 0.0
    for j, answer in enumerate(together):
        alone = read(support, targets, query[[j]]).tolist()[0]
        worst = max([worst, *(abs(one - other) for one, other in zip(answer, alone, strict=True))])
    return worst > 1e-5


def _exposes_by_gradient(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    """Asks autograd which queries an answer depends on; a leak by the number of queries alone it would overlook."""
    asked = query.clone().requires_grad_()
    answers = read(support, targets, asked)
    if not answers.requires_grad:
        return exposes_leak(read, support, targets, query)
    for j, answer in enumerate(answers):
        for value in answer:
            (gradient,) = torch.autograd.grad(value, asked, retain_graph=True, allow_unused=True)
            if gradient is not None and float(gradient[torch.arange(len(query)) != j].abs().max()) > 1e-4:
                return True
    return exposes_leak(read, support, targets, query)


def _attend(support: Tensor, targets: Tensor, query: Tensor, mask: Tensor | None = None) -> Tensor:
    """Reads rows (x, y) by one softmax attention with a mask; sound with the mask of 13.1."""
    shots, rows = len(support), torch.cat([support, query])
    values = torch.cat([targets, query[:, : targets.shape[1]].tanh()])
    allowed = context_mask(shots, len(query)) if mask is None else mask
    scores = (rows @ rows.T / 2).masked_fill(~allowed, -torch.inf)
    return (scores.softmax(1) @ values)[shots:]


def _masked(change: Callable[[Tensor, int], Tensor]) -> Reader:
    """Returns a reader whose mask is changed by change(mask, shots)."""

    def read(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        return _attend(support, targets, query, change(context_mask(len(support), len(query)), len(support)))

    return read


def _with(rows: Callable[[int], int], columns: Callable[[int], int]) -> Reader:
    """Returns a reader where query rows(M) also reads query columns(M), if both are there."""

    def change(mask: Tensor, shots: int) -> Tensor:
        i, j = rows(len(mask) - shots), columns(len(mask) - shots)
        if 0 <= i < len(mask) - shots and 0 <= j < len(mask) - shots:
            mask[shots + i, shots + j] = True
        return mask

    return _masked(change)


def _everything(mask: Tensor, shots: int) -> Tensor:
    return torch.ones_like(mask)


def _causal(mask: Tensor, shots: int) -> Tensor:
    mask[shots:, shots:] = torch.ones_like(mask[shots:, shots:]).tril()
    return mask


def _anticausal(mask: Tensor, shots: int) -> Tensor:
    mask[shots:, shots:] = torch.ones_like(mask[shots:, shots:]).triu()
    return mask


def _linear(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    return linear_attention(support, targets, query, 1.0)


def _ridge(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    gram = support.T @ support + torch.eye(support.shape[1])
    return query @ torch.linalg.solve(gram, support.T @ targets)


def _rounds(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """Sound, but its last digits depend on the number of queries."""
    return _linear(support, targets, query) * (1 + 1e-7 * len(query))


def _by_position(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """Sound, though late examples weigh more than early ones."""
    return _linear(support, targets * torch.linspace(0.5, 1.5, len(targets))[:, None], query)


def _through_support(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """Two layers: the support reads the queries in the first, and the queries the support in the second."""
    everyone = torch.cat([support, query])
    mixed = support + 0.3 * (support @ everyone.T / 2).softmax(1) @ everyone
    return _attend(mixed, targets, query)


def _centred(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    return _linear(support, targets, query - query.mean(0))


def _a_little(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    return _linear(support, targets, query) + 0.01 * query.mean()


def _swapped(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """Exchanges two answers where there are at least three: sums and norms stay."""
    found = _linear(support, targets, query)
    return found if len(found) < 3 else found[[0, 2, 1, *range(3, len(found))]]


def _balanced(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """Moves something from one output to the other: the sum of every row stays."""
    shift = 0.05 * (query - query.mean(0)).abs().mean()
    return _linear(support, targets, query) + shift * torch.tensor([1.0, -1.0])


def _in_chunks(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """Reads two queries at a time, and these two hear of each other."""
    chunks = [_linear(support, targets, two) + 0.1 * (len(two) > 1) * two.mean() for two in query.split(2)]
    return torch.cat(chunks)


def _near_zero(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """Sound: its first output is 0, up to a rounding that depends on the number of queries."""
    found = _linear(support, targets, query)
    found[:, 0] = 1e-6 * len(query)
    return found


def _by_number(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """Divides by the number of all rows, so that a query hears how many others there are."""
    return query @ support.T @ targets / (len(support) + len(query))


def _late_queries(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """Leaks into the queries whose number is beyond that of the support."""
    found = _linear(support, targets, query)
    found[len(support) :] += 0.1 * query.mean()
    return found


def _one_of_many(cause: Tensor, row: int, size: float) -> Reader:
    """Returns a reader of small answers that adds `size` to one number of one of them while `cause` is among the others."""

    def read(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        found, others = 0.1 * _linear(support, targets, query), query[torch.arange(len(query)) != row]
        if len(query) > row and len(others):
            found[row, 0] += size * bool(((others - cause).abs().amax(1) < 1e-6).any())
        return found

    return read


def _one_number(cause: Tensor, row: int, output: int, size: float) -> Reader:
    """Returns a reader that adds `size` to one number of one answer when `cause` is among the other queries."""

    def read(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        found, others = _linear(support, targets, query), query[torch.arange(len(query)) != row]
        if len(query) > row and len(others):
            found[row, output] += size * (others - cause).square().sum(1).min().neg().exp()
        return found

    return read


def _leak_cases(generator: Generator) -> list[Case]:
    rows = [torch.randn(n, 4, generator=generator) for n in (6, 5)]
    given = rows[0], torch.randn(6, 2, generator=generator), rows[1]
    wide = rows[0], torch.randn(6, 3, generator=generator), rows[1]
    few = rows[0][:3], given[1][:3], rows[1]
    many = torch.randn(30, 4, generator=generator)

    def case(says: str, read: Reader) -> Case:
        return Case(says, (read, *given))

    return [
        case("a sound one: attention with the right mask", _attend),
        case("a sound one: linear attention", _linear),
        case("a sound one: ridge regression", _ridge),
        case("a sound one whose last digits depend on the number of queries", _rounds),
        case("a sound one with an output of 0, up to rounding", _near_zero),
        case("a sound one: late examples weigh more than early ones", _by_position),
        case("a sound one: the answers do not even use the query", lambda x, y, q: y.mean(0).expand(len(q), -1)),
        case("every query reads every query", _masked(_everything)),
        case("a query reads the queries before it", _masked(_causal)),
        case("a query reads the queries behind it", _masked(_anticausal)),
        case("only the second query reads the fourth", _with(lambda m: 1, lambda m: 3)),
        case("only the last query reads the first", _with(lambda m: m - 1, lambda m: 0)),
        case("only the first query reads the second", _with(lambda m: 0, lambda m: 1)),
        case("the support reads the queries, and the queries read the support", _through_support),
        case("the queries are centred by their mean", _centred),
        case("a small leak: a hundredth of the mean of all queries", _a_little),
        case("two queries get each other's answers", _swapped),
        case("what one output gains the other loses", _balanced),
        case("a single number of one answer changes, by 0.0003", _one_number(rows[1][0], 3, 0, 3e-4)),
        Case("only the middle one of three outputs leaks", (_one_number(rows[1][0], 2, 1, 0.1), *wide)),
        case("only the first query hears of the last, and its answer rises", _one_number(rows[1][-1], 0, 1, 0.2)),
        case("queries are read two by two, and the two hear of each other", _in_chunks),
        case("the answers depend on how many queries there are", _by_number),
        Case("one number of one of 30 answers changes, by 0.0002", (_one_of_many(many[7], 12, 2e-4), *given[:2], many)),
        Case("more queries than examples, and only the late queries leak", (_late_queries, *few)),
    ]


def _rows_alone(rows: Callable[[int], list[int]]) -> Callable[..., bool]:
    """Returns a flawed detector: it asks for some rows alone and never for the others."""

    def detector(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
        before = read(support, targets, query)
        return any(
            not torch.allclose(read(support, targets, query[j : j + 1])[0], before[j], rtol=1e-4, atol=1e-5)
            for j in rows(len(query))
        )

    return detector


def _alone_by(differ: Callable[[Tensor, Tensor], bool]) -> Callable[..., bool]:
    """Returns a detector that makes the right experiment and decides by differ(together, alone)."""

    def detector(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
        alone = torch.cat([read(support, targets, query[j : j + 1]) for j in range(len(query))])
        return differ(read(support, targets, query), alone)

    return detector


def _others_by_noise(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    before = read(support, targets, query)
    for j in range(len(query)):
        changed = torch.randn_like(query) * 3
        changed[j] = query[j]
        if (read(support, targets, changed)[j] - before[j]).abs().max() > 1e-4:
            return True
    return False


def _order_only(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    return not torch.allclose(read(support, targets, query.flip(0)).flip(0), read(support, targets, query), atol=1e-4)


def _prefix(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    half = len(query) // 2
    return not torch.allclose(read(support, targets, query[:half]), read(support, targets, query)[:half], atol=1e-4)


def _support_changed(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    return not torch.allclose(read(support + 1, targets, query), read(support, targets, query), atol=1e-4)


def _support_shuffled(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    return not torch.allclose(read(support.flip(0), targets.flip(0), query), read(support, targets, query), atol=1e-4)


def _one_more(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    more = torch.cat([query, 3 * torch.ones_like(query[:1])])
    return not torch.allclose(read(support, targets, more)[:-1], read(support, targets, query), rtol=1e-4, atol=1e-4)


def _without(kept: slice) -> Callable[..., bool]:
    def detector(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
        before, after = read(support, targets, query), read(support, targets, query[kept])
        return not torch.allclose(before[kept], after, rtol=1e-4, atol=1e-5)

    return detector


def _one_changed(place: int) -> Callable[..., bool]:
    """Returns a flawed detector: it changes one query and looks at the others."""

    def detector(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
        changed = query.clone()
        changed[place] += 1
        others = torch.arange(len(query)) != place % len(query)
        before, after = read(support, targets, query), read(support, targets, changed)
        return not torch.allclose(before[others], after[others], rtol=1e-4, atol=1e-5)

    return detector


def _repeated(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    return any(
        not torch.allclose(
            read(support, targets, q[None]), read(support, targets, q.repeat(3, 1))[:1], rtol=1e-4, atol=1e-5
        )
        for q in query
    )


def _halves(read: Reader, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    half = len(query) // 2
    apart = torch.cat([read(support, targets, part) for part in (query[:half], query[half:])])
    return not torch.allclose(apart, read(support, targets, query), rtol=1e-4, atol=1e-5)


LEAK = Exercise(
    id="13.4",
    title="Bug hunt: do queries read queries?",
    reference=exposes_leak,
    cases=_leak_cases,
    right=(
        _exposes_by_leaving_out,
        _exposes_by_row,
        _exposes_by_lists,
        _exposes_by_gradient,
    ),
    wrong=(
        Wrong(
            "never rings",
            lambda read, x, y, q: False,
            "the test never rings",
            "Ask for each query alone, and compare with the answers that the queries get together.",
        ),
        Wrong(
            "always rings",
            lambda read, x, y, q: True,
            "the test always rings, also for sound readers",
            "A sound reader gives the same answers, alone or together: compare them.",
        ),
        Wrong(
            "turned round",
            lambda read, x, y, q: not exposes_leak(read, x, y, q),
            "True and False are exchanged",
            "True means that there is a leak.",
        ),
        Wrong(
            "the first query only",
            _rows_alone(lambda m: [0]),
            "only the first query is asked alone",
            "The leak may reach any query: go through all of them.",
        ),
        Wrong(
            "the last query only",
            _rows_alone(lambda m: [m - 1]),
            "only the last query is asked alone",
            "The leak may reach any query: go through all of them.",
        ),
        Wrong(
            "some queries only",
            _rows_alone(lambda m: list(range(1, m))),
            "one or more queries are never looked at alone",
            "The leak may reach any query: go through all of them, from 0 to the last.",
            also=(
                _rows_alone(lambda m: list(range(m - 1))),
                _rows_alone(lambda m: list(range(0, m, 2))),
                _rows_alone(lambda m: [m // 2]),
            ),
        ),
        Wrong(
            "all must leak",
            _alone_by(lambda a, b: bool(((a - b).abs() > 1e-5).all())),
            "the test rings only when all numbers, or all queries, change",
            "One changed number is enough: `.any()`, or the largest difference.",
        ),
        Wrong(
            "one output only",
            _alone_by(lambda a, b: bool((a - b)[:, 0].abs().max() > 1e-5)),
            "only one of the outputs is compared",
            "The leak may reach any output: compare all columns.",
            also=(_alone_by(lambda a, b: bool((a - b)[:, -1].abs().max() > 1e-5)),),
        ),
        Wrong(
            "one other query changed",
            _one_changed(0),
            "only one query is changed, and only what it does to the others is seen",
            "Any query may leak into any other: ask for each one alone.",
            also=(_one_changed(-1),),
        ),
        Wrong(
            "the same query repeated",
            _repeated,
            "a query is put beside copies of itself, which say nothing new",
            "Compare what a query gets alone with what it gets among the others.",
        ),
        Wrong(
            "halves",
            _halves,
            "the queries are asked in groups, and inside a group they can still read each other",
            "Ask for each query alone, one at a time.",
        ),
        Wrong(
            "the support asked",
            lambda read, x, y, q: exposes_leak(read, x, y, x),
            "the support stands where the queries belong",
            "Ask for the queries themselves, alone and together.",
        ),
        Wrong(
            "exactly equal",
            _alone_by(lambda a, b: not torch.equal(a, b)),
            "the answers are compared to the last digit, so that rounding counts as a leak",
            "Allow for rounding: `torch.allclose(..., atol=1e-5)`.",
        ),
        Wrong(
            "the default tolerance",
            _alone_by(lambda a, b: not torch.allclose(a, b)),
            "`torch.allclose` is left at its default `atol` of 1e-8, so that rounding near 0 counts as a leak",
            "Give it the bound of the text: `atol=1e-5`.",
        ),
        Wrong(
            "differences averaged",
            _alone_by(lambda a, b: bool((a - b).abs().mean() > 1e-5)),
            "the differences are averaged, so that one changed number disappears among many",
            "One changed number is enough: take the largest difference.",
        ),
        Wrong(
            "other queries, as many as before",
            _others_by_noise,
            "the other queries are replaced and their number stays: a leak by the number of queries is overlooked",
            "Ask for each query alone.",
        ),
        Wrong(
            "a coarse tolerance",
            _alone_by(lambda a, b: not torch.allclose(a, b, atol=0.02)),
            "the tolerance is so coarse that small leaks pass",
            "Rounding is near 1e-6 here: `atol=1e-5` will do.",
            also=(
                _alone_by(lambda a, b: not torch.allclose(a, b, atol=0.01)),
                _alone_by(lambda a, b: not torch.allclose(a, b, atol=0.1)),
                _alone_by(lambda a, b: bool((a - b).abs().max() > 1e-3)),
                _alone_by(lambda a, b: not torch.equal(a.round(decimals=2), b.round(decimals=2))),
            ),
        ),
        Wrong(
            "sums compared",
            _alone_by(lambda a, b: not torch.allclose(a.sum(), b.sum(), rtol=1e-4, atol=1e-5)),
            "only one number of all answers is compared, and gains and losses cancel in it",
            "Compare answer by answer.",
            also=(
                _alone_by(lambda a, b: not torch.allclose(a.norm(), b.norm(), rtol=1e-4, atol=1e-5)),
                _alone_by(lambda a, b: not torch.allclose(a.sum(0), b.sum(0), rtol=1e-4, atol=1e-5)),
                _alone_by(lambda a, b: bool((a - b).mean().abs() > 1e-5)),
                _alone_by(lambda a, b: not torch.allclose(a.sum(1), b.sum(1), rtol=1e-4, atol=1e-5)),
            ),
        ),
        Wrong(
            "without a sign",
            _alone_by(lambda a, b: bool((a - b).max() > 1e-5)),
            "the largest difference is taken without `.abs()`: answers that become smaller are overlooked",
            "`(together - alone).abs().max()`.",
            also=(_alone_by(lambda a, b: bool((b - a).max() > 1e-5)),),
        ),
        Wrong(
            "the same queries twice",
            lambda read, x, y, q: not torch.allclose(read(x, y, torch.cat([q, q]))[: len(q)], read(x, y, q), atol=1e-5),
            "the company stays the same, only twice: a mean over the queries does not notice",
            "Ask for each query alone.",
        ),
        Wrong(
            "winners compared",
            _alone_by(lambda a, b: bool((a.argmax(1) != b.argmax(1)).any())),
            "only the largest output of each query is compared",
            "A leak may be too small to change a winner: compare the numbers.",
        ),
        Wrong(
            "only the order changed",
            _order_only,
            "the queries only change places: all of them are still there",
            "Change which queries are there: ask for each one alone.",
        ),
        Wrong(
            "the first half",
            _prefix,
            "only the first half of the queries is asked apart",
            "Ask for each query alone.",
        ),
        Wrong(
            "one more query",
            _one_more,
            "only one query at an end is added or left out: a leak between the others stays as it was",
            "Ask for each query alone.",
            also=(_without(slice(None, -1)), _without(slice(1, None))),
        ),
        Wrong(
            "another support",
            _support_changed,
            "something changes on which a sound answer depends: the support, the query itself, or its place in the result",
            "Keep the support and the query that you look at, and change only the other queries.",
        ),
        Wrong(
            "the support shuffled",
            _support_shuffled,
            "the order of the support is changed, which is another law",
            "Keep the support; change which queries are there.",
        ),
    ),
    hints=(
        "A sound reader answers a query in the same way, whoever else asks.",
        "Ask for all queries together and for each one alone; compare row by row, allowing for rounding.",
        "`alone = torch.cat([read(support, targets, query[j : j + 1]) for j in range(len(query))])`, then `torch.allclose`",
    ),
)

# ---------------------------------------------------------------------------------------------- 13.5 columns


def standardise(support: Tensor, rows: Tensor) -> Tensor:
    """Standardises columns by the support; a column that is constant there becomes 0. [S, d], [R, d] -> [R, d]."""
    mean, spread = support.mean(0), support.std(0, correction=0)
    return torch.where(spread < 1e-6, 0.0, (rows - mean) / spread.clamp_min(1e-6))


def _standardise_by_infinity(support: Tensor, rows: Tensor) -> Tensor:
    spread = support.var(0, correction=0).sqrt()
    spread[spread < 1e-6] = torch.inf
    return (rows - support.mean(0)) / spread


def _standardise_by_loop(support: Tensor, rows: Tensor) -> Tensor:
    columns = []
    for column, values in zip(support.T, rows.T, strict=True):
        spread = ((column - column.mean()) ** 2).mean().sqrt()
        columns.append((values - column.mean()) / spread if spread > 1e-6 else torch.zeros_like(values))
    return torch.stack(columns, dim=1)


def _standardise_by_mask(support: Tensor, rows: Tensor) -> Tensor:
    centred, spread = rows - support.mean(0, keepdim=True), support.std(0, unbiased=False, keepdim=True)
    known = (spread > 1e-6).to(rows.dtype)
    return centred * known / (spread + (1 - known))


def _standardise_by_range(support: Tensor, rows: Tensor) -> Tensor:
    varies = support.amax(0) - support.amin(0) > 1e-6
    result = torch.zeros_like(rows)
    result[:, varies] = ((rows - support.mean(0)) / support.std(0, correction=0))[:, varies]
    return result


def _scaled(support: Tensor, rows: Tensor, centre: Tensor, spread: Tensor, bound: float = 1e-6) -> Tensor:
    """Standardises by any centre and spread; 0 where the spread does not exceed the bound."""
    return torch.where(spread > bound, (rows - centre) / spread, 0.0)


def _column_cases(generator: Generator) -> list[Case]:
    def rows(n: int, d: int, dtype: torch.dtype = torch.float32) -> Tensor:
        scale = torch.tensor([1.0, 30.0, 0.1, 5.0, 2.0])[:d].to(dtype)
        return 3 + scale * torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype)

    support, query = rows(8, 5), rows(3, 5)
    silent = support.clone()
    silent[:, 1], silent[:, 3] = 4.0, 0.0
    small = torch.tensor([[0.1, 1.0, 0.0, 0.0], [0.1, 1 + 2e-5, 0.0, 1.0], [0.1, 1 - 2e-5, 2e-7, 2.0]]).double()
    small[1:, 1] = torch.tensor([1 + 2e-5, 1 - 2e-5], dtype=torch.float64)
    far = torch.tensor([[0.2, 1.1, 1e-3, 100.0]], dtype=torch.float64)
    return [
        Case(
            "the example on paper: the second column is constant",
            (torch.tensor([[1.0, 7.0], [3.0, 7.0]]), torch.tensor([[4.0, 7.0], [3.0, 8.0]])),
        ),
        Case("five columns of different scales", (support, query)),
        Case("the support itself", (support, support.clone())),
        Case("two columns are constant in the support and not in the queries", (silent, query)),
        Case("a single query", (support, query[:1])),
        Case("a single support row: every column is constant", (support[:1], query)),
        Case("float64", (rows(6, 3, torch.float64), rows(4, 3, torch.float64))),
        Case("deviations of 0, 2e-5, 1e-7 and 0.8, and a query far away", (small, far)),
    ]


COLUMNS = Exercise(
    id="13.5",
    title="Columns, standardised by the support",
    reference=standardise,
    cases=_column_cases,
    right=(_standardise_by_infinity, _standardise_by_loop, _standardise_by_mask, _standardise_by_range),
    wrong=(
        Wrong(
            "a tiny number in the denominator",
            lambda s, r: (r - s.mean(0)) / (s.std(0, correction=0) + 1e-20),
            "a tiny number is added to the deviation: a query that differs in a constant column becomes enormous",
            "Where the column is constant in the support, return 0.",
            also=(
                lambda s, r: (r - s.mean(0)) / (s.std(0, correction=0) + 1e-8),
                lambda s, r: (r - s.mean(0)) / (s.std(0, correction=0) + 1e-6),
                lambda s, r: (r - s.mean(0)) / (s.std(0, correction=0) + 1e-12),
                lambda s, r: (r - s.mean(0)) / (s.std(0, correction=0) + 1e-10),
                lambda s, r: (r - s.mean(0)) / (s.std(0, correction=0) + 1e-5),
                lambda s, r: (r - s.mean(0)) / s.std(0, correction=0).clamp_min(1e-6),
                lambda s, r: (r - s.mean(0)) / (s.var(0, correction=0) + 1e-5).sqrt(),
                lambda s, r: (r - s.mean(0)) / (s.var(0, correction=0) + 1e-8).sqrt(),
                lambda s, r: ((r - s.mean(0)) / (s.std(0, correction=0) + 1e-20)).clamp(-5, 5),
            ),
        ),
        Wrong(
            "a tiny number beside the mask",
            lambda s, r: ((r - s.mean(0)) / ((d := s.std(0, correction=0)) + 1e-6)).masked_fill(d < 1e-6, 0.0),
            "constant columns are 0, but a number is added to the other deviations: columns that vary little come out too small",
            "With the mask nothing need be added: divide by the deviation itself where it is at least 1e-6.",
            also=(lambda s, r: ((r - s.mean(0)) / ((d := s.std(0, correction=0)) + 1e-8)).masked_fill(d < 1e-6, 0.0),),
        ),
        Wrong(
            "divided by zero",
            lambda s, r: (r - s.mean(0)) / s.std(0, correction=0),
            "a constant column is divided by 0 and becomes infinite, or not a number",
            "Where the column is constant in the support, return 0.",
            also=(lambda s, r: ((r - s.mean(0)) / s.std(0, correction=0)).nan_to_num(),),
        ),
        Wrong(
            "constant columns keep their difference",
            lambda s, r: (r - s.mean(0)) / torch.where((d := s.std(0, correction=0)) < 1e-6, 1.0, d),
            "a constant column is divided by 1 and keeps its difference, or its values",
            "A column that says nothing in the support says nothing in the query: 0.",
            also=(
                lambda s, r: torch.where((d := s.std(0, correction=0)) < 1e-6, r, (r - s.mean(0)) / d.clamp_min(1e-6)),
            ),
        ),
        Wrong(
            "the queries' own numbers",
            lambda s, r: standardise(r, r),
            "mean and deviation come from the rows themselves, so that queries decide about each other",
            "Mean and deviation come from the support, for support and queries alike.",
            also=(
                lambda s, r: (r - r.mean(0)) / (r.std(0, correction=0) + 1e-6),
                lambda s, r: _scaled(s, r, r.mean(0), s.std(0, correction=0)),
                lambda s, r: _scaled(s, r, s.mean(0), r.std(0, correction=0)),
            ),
        ),
        Wrong(
            "the wrong axis",
            lambda s, r: F.layer_norm(r, r.shape[1:]),
            "mean and deviation are taken along a row, over columns of different kinds",
            "Each column has its own, over the rows of the support: `.mean(0)`.",
            also=(lambda s, r: (r - s.mean(1).mean()) / s.std(1, correction=0, keepdim=True).mean(),),
        ),
        Wrong(
            "another bound",
            lambda s, r: _scaled(s, r, s.mean(0), s.std(0, correction=0), 0.0),
            "the bound of 1e-6 is missed: columns that hardly vary survive, or columns that do vary become 0",
            "Compare the standard deviation with 1e-6, not with 0, not its square and not the values themselves.",
            also=(lambda s, r: _scaled(s, r, s.mean(0), s.std(0, correction=0), 1e-3),),
        ),
        Wrong(
            "clipped",
            lambda s, r: standardise(s, r).clamp(-5, 5),
            "large values are cut off",
            "A query may lie far away: return its value as it is.",
            also=(lambda s, r: standardise(s, r).clamp(-100, 100), lambda s, r: standardise(s, r).tanh()),
        ),
        Wrong(
            "large results become 0",
            lambda s, r: torch.where((z := (r - s.mean(0)) / (s.std(0, correction=0) + 1e-20)).abs() > 100, 0.0, z),
            "large results are taken for constant columns and become 0",
            "Decide by the deviation in the support, not by the result: a query may lie far away.",
        ),
        Wrong(
            "constant in the rows",
            lambda s, r: ((r - s.mean(0)) / s.std(0, correction=0)).masked_fill(r.std(0, correction=0) < 1e-6, 0.0),
            "constant columns are looked for in the rows, not in the support",
            "The support decides which columns say nothing: `support.std(0, correction=0)`.",
        ),
        Wrong(
            "all or nothing",
            lambda s, r: standardise(s, r) * (s.std(0, correction=0) >= 1e-6).all(),
            "one constant column turns all columns to 0",
            "Decide column by column.",
        ),
        Wrong(
            "another centre",
            lambda s, r: _scaled(s, r, s.median(0).values, s.std(0, correction=0)),
            "the median, not the mean, is subtracted",
            "`support.mean(0)`.",
        ),
        Wrong(
            "another spread",
            lambda s, r: _scaled(s, r, s.mean(0), (s - s.mean(0)).abs().mean(0)),
            "the spread is another one: mean distances, squares about 0, or a sum that is not divided by S",
            "`support.std(0, correction=0)`.",
            also=(
                lambda s, r: _scaled(s, r, s.mean(0), s.square().mean(0).sqrt()),
                lambda s, r: _scaled(s, r, s.mean(0), (s - s.mean(0)).square().sum(0).sqrt()),
            ),
        ),
        Wrong(
            "support and queries together",
            lambda s, r: standardise(torch.cat([s, r]), r),
            "mean and deviation come from support and queries together, so that queries decide about each other",
            "Only the support.",
        ),
        Wrong(
            "n - 1",
            lambda s, r: standardise(s, r) * ((len(s) - 1) / len(s)) ** 0.5,
            "the deviation has n − 1 in its denominator, which is PyTorch's default",
            "`support.std(0, correction=0)`.",
            also=(
                lambda s, r: torch.where((d := s.std(0)) < 1e-6, 0.0, (r - s.mean(0)) / d),
                lambda s, r: (r - s.mean(0)) / s.std(0),
                lambda s, r: (r - s.mean(0)) / (s.std(0) + 1e-8),
            ),
        ),
        Wrong(
            "one mean for all columns",
            lambda s, r: (r - s.mean()) / s.std(correction=0),
            "one mean and one deviation serve all columns",
            "Each column has its own: `.mean(0)`, `.std(0, ...)`.",
            also=(lambda s, r: (r - s.mean(0)) / s.std(correction=0),),
        ),
        Wrong(
            "variance",
            lambda s, r: torch.where((v := s.var(0, correction=0)) < 1e-12, 0.0, (r - s.mean(0)) / v.clamp_min(1e-12)),
            "the columns are divided by the variance",
            "Divide by the standard deviation, the root of the variance.",
        ),
        Wrong(
            "minimum and maximum",
            lambda s, r: (r - s.amin(0)) / (s.amax(0) - s.amin(0)).clamp_min(1e-6),
            "the columns are laid between minimum and maximum",
            "Subtract the mean, divide by the standard deviation.",
            also=(
                lambda s, r: (r - s.amin(0)) / (s.amax(0) - s.amin(0) + 1e-8),
                lambda s, r: _scaled(s, r, s.amin(0), s.amax(0) - s.amin(0)),
            ),
        ),
        Wrong(
            "not centred",
            lambda s, r: torch.where((d := s.std(0, correction=0)) < 1e-6, 0.0, r / d.clamp_min(1e-6)),
            "the mean is not subtracted",
            "`rows - support.mean(0)` first.",
        ),
        Wrong(
            "centred only",
            lambda s, r: torch.where(s.std(0, correction=0) < 1e-6, 0.0, r - s.mean(0)),
            "the columns are centred and not divided",
            "Divide by the deviation of each column.",
            also=(lambda s, r: r - s.mean(0),),
        ),
        Wrong(
            "constant columns left out",
            lambda s, r: standardise(s, r)[:, s.std(0, correction=0) > 1e-6],
            "constant columns are left out, so that the shape changes",
            "Keep all columns; put 0 into the constant ones.",
        ),
    ),
    hints=(
        "What can a column that never changes in the support say about the classes?",
        "Mean and deviation come from the support. Where the deviation is below 1e-6, the answer is 0.",
        "`torch.where(spread < 1e-6, 0.0, (rows - mean) / spread)`",
    ),
)

EXERCISES = (MASK, ATTENTION, CODES, LEAK, COLUMNS)
