"""Exercises of lesson 12: ridge regression, its bias, a hypernetwork, a detector of heads that feel a shift, the dual form.

Cases: `_task` draws embeddings with labels in mixed order. The detector 12.4 gets functions (support, labels, query, n_way) ->
logits as arguments, and must return True for those whose probabilities change when all embeddings move by the same vector.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ---------------------------------------------------------------------------------------------- 12.1 ridge regression


def ridge_weights(rows: Tensor, targets: Tensor, l2: float) -> Tensor:
    """Returns the minimiser of |rows W - targets|^2 + l2 |W|^2. rows [S, D], targets [S, N] -> [D, N]."""
    left = rows.T @ rows + l2 * torch.eye(rows.shape[1], dtype=rows.dtype)
    return torch.linalg.solve(left, rows.T @ targets)


def _dual_weights(rows: Tensor, targets: Tensor, l2: float) -> Tensor:
    return rows.T @ torch.linalg.solve(rows @ rows.T + l2 * torch.eye(len(rows), dtype=rows.dtype), targets)


def _weights_by_inverse(rows: Tensor, targets: Tensor, l2: float) -> Tensor:
    return torch.inverse(rows.mT.mm(rows) + torch.diag(rows.new_full((rows.shape[1],), l2))) @ rows.mT @ targets


def _weights_by_more_rows(rows: Tensor, targets: Tensor, l2: float) -> Tensor:
    """Adds one row for each feature, sqrt(l2) long, whose target is zero: plain least squares then shrinks the weights."""
    longer = torch.cat([rows, l2**0.5 * torch.eye(rows.shape[1], dtype=rows.dtype)])
    return torch.linalg.lstsq(longer, torch.cat([targets, targets.new_zeros(rows.shape[1], targets.shape[1])])).solution


def _weights_by_svd(rows: Tensor, targets: Tensor, l2: float) -> Tensor:
    u, s, vh = torch.linalg.svd(rows, full_matrices=False)
    return vh.T @ ((s / (s**2 + l2))[:, None] * (u.T @ targets))


def _weights_column_by_column(rows: Tensor, targets: Tensor, l2: float) -> Tensor:
    factor = torch.linalg.cholesky(rows.T @ rows + l2 * torch.eye(rows.shape[1], dtype=rows.dtype))
    columns = [torch.cholesky_solve((rows.T @ column)[:, None], factor)[:, 0] for column in targets.T]
    return torch.stack(columns, 1)


def _solved(
    left: Callable[[Tensor, float], Tensor], right: Callable[[Tensor, Tensor], Tensor] = lambda x, y: x.T @ y
) -> Callable[[Tensor, Tensor, float], Tensor]:
    return lambda rows, targets, l2: torch.linalg.solve(left(rows, l2), right(rows, targets))


def _eye(rows: Tensor) -> Tensor:
    return torch.eye(rows.shape[1], dtype=rows.dtype)


def _weights_by_steps(steps: int, rate: float) -> Callable[[Tensor, Tensor, float], Tensor]:
    def weights(rows: Tensor, targets: Tensor, l2: float) -> Tensor:
        found = torch.zeros(rows.shape[1], targets.shape[1], dtype=rows.dtype)
        for _ in range(steps):
            found = found - rate * (rows.T @ (rows @ found - targets) + l2 * found)
        return found

    return weights


def _weight_cases(generator: Generator) -> list[Case]:
    def case(says: str, rows: int, features: int, columns: int, l2: float, dtype: torch.dtype = torch.float32) -> Case:
        x = torch.randn(rows, features, generator=generator, dtype=dtype)
        return Case(says, (x, torch.randn(rows, columns, generator=generator, dtype=dtype), l2))

    on_paper = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    return [
        Case("the example on paper: two rows, two features, lambda 1", (on_paper, torch.eye(2), 1.0)),
        case("3 rows, 6 features, lambda 2", 3, 6, 2, 2.0),
        case("9 rows, 4 features, lambda 0.5", 9, 4, 3, 0.5),
        case("as many rows as features, lambda 3", 5, 5, 5, 3.0),
        case("one row, a strong penalty", 1, 4, 2, 40.0),
        case("7 rows, 5 features, in float64", 7, 5, 3, 0.25, torch.float64),
    ]


WEIGHTS = Exercise(
    id="12.1",
    title="Ridge regression",
    reference=ridge_weights,
    cases=_weight_cases,
    gradient=(0, 1),
    tolerance=1e-4,
    right=(_dual_weights, _weights_by_inverse, _weights_by_more_rows, _weights_by_svd, _weights_column_by_column),
    wrong=(
        Wrong(
            "no penalty",
            lambda x, y, l2: torch.linalg.pinv(x) @ y,
            "the penalty is left out: plain least squares",
            "Add `l2` on the diagonal of X'X before you solve.",
            also=(
                _solved(lambda x, l2: x.T @ x),
                _solved(lambda x, l2: x.T @ x + 1e-6 * _eye(x)),
            ),
        ),
        Wrong(
            "minus",
            _solved(lambda x, l2: x.T @ x - l2 * _eye(x)),
            "the penalty is subtracted, which rewards long weights",
            "The gradient of the penalty is `+ 2 l2 W`, so `l2` is added on the diagonal.",
        ),
        Wrong(
            "on every entry",
            _solved(lambda x, l2: x.T @ x + l2),
            "`l2` is added to every entry of the matrix, not to its diagonal alone",
            "`l2 * torch.eye(D)`: a number added to a matrix goes everywhere.",
        ),
        Wrong(
            "identity without lambda",
            _solved(lambda x, l2: x.T @ x + _eye(x)),
            "the identity is added as it is: `l2` is never used",
            "Multiply the identity by `l2`.",
        ),
        Wrong(
            "squared or rooted",
            _solved(lambda x, l2: x.T @ x + l2**2 * _eye(x)),
            "the square, the root or the reciprocal of `l2` stands on the diagonal",
            "`l2` itself: it multiplies the squared weights in the loss.",
            also=(
                _solved(lambda x, l2: x.T @ x + l2**0.5 * _eye(x)),
                _solved(lambda x, l2: x.T @ x + _eye(x) / l2),
            ),
        ),
        Wrong(
            "mean of the squares",
            _solved(lambda x, l2: x.T @ x + len(x) * l2 * _eye(x)),
            "the squared errors are averaged over the rows, so the penalty weighs S times as much",
            "The loss of this exercise is a *sum* over the rows: no division by S.",
            also=(_solved(lambda x, l2: x.T @ x / len(x) + l2 * _eye(x)),),
        ),
        Wrong(
            "penalty over S",
            lambda x, y, l2: ridge_weights(x, y, l2 / len(x)),
            "the penalty is divided by the number of rows",
            "Neither the errors nor the penalty is averaged: `l2` as it is.",
        ),
        Wrong(
            "centred",
            lambda x, y, l2: ridge_weights(x - x.mean(0), y - y.mean(0), l2),
            "rows and targets are centred, as for a bias",
            "There is no bias in this exercise: fit the rows as they are.",
        ),
        Wrong(
            "half or double",
            _solved(lambda x, l2: x.T @ x + 2 * l2 * _eye(x)),
            "the factor 2 of the gradient is kept on one side only, so the penalty is doubled or halved",
            "Both gradients have a factor 2, and it cancels: X'X W + l2 W = X'Y.",
            also=(_solved(lambda x, l2: x.T @ x + l2 / 2 * _eye(x)), lambda x, y, l2: 2 * ridge_weights(x, y, l2)),
        ),
        Wrong(
            "transposed",
            lambda x, y, l2: ridge_weights(x, y, l2).T,
            "the result is transposed: one row for each output",
            "Return [D, N]: `rows @ W` must give [S, N].",
        ),
        Wrong(
            "dual coefficients",
            lambda x, y, l2: torch.linalg.solve(x @ x.T + l2 * torch.eye(len(x), dtype=x.dtype), y),
            "the dual system is solved and its S coefficients are returned as they are: one for each row, not for each feature",
            "Multiply by X' in front: W = X'(XX' + l2 I)^-1 Y.",
        ),
        Wrong(
            "fitted values",
            lambda x, y, l2: x @ ridge_weights(x, y, l2),
            "the fitted values of the rows are returned, not the weights",
            "Stop at W [D, N].",
        ),
        Wrong(
            "no solve",
            lambda x, y, l2: x.T @ y / l2,
            "nothing is solved: X'Y is only scaled or shrunk",
            "`torch.linalg.solve(A, B)` with A = X'X + l2 I and B = X'Y.",
            also=(
                lambda x, y, l2: x.T @ y,
                lambda x, y, l2: x.T @ y / (1 + l2),
                lambda x, y, l2: (x.T @ x + l2 * _eye(x)) @ (x.T @ y),
            ),
        ),
        Wrong(
            "reciprocals",
            lambda x, y, l2: (x.T @ x + l2 * _eye(x)).reciprocal() @ x.T @ y,
            "every entry is inverted by itself: the reciprocal of a matrix's entries is not its inverse",
            "`torch.linalg.solve(A, B)` solves A W = B.",
        ),
        Wrong(
            "diagonal only",
            lambda x, y, l2: (x.T @ y) / (x.square().sum(0) + l2)[:, None],
            "only the diagonal of X'X is kept: each feature is fitted as if it were alone",
            "Solve with the whole matrix, `torch.linalg.solve(A, B)`.",
        ),
        Wrong(
            "steps that end too early",
            _weights_by_steps(100, 0.01),
            "the weights are reached by gradient steps, and these end before they have arrived",
            "No steps are needed: `torch.linalg.solve` gives the minimum at once.",
            also=(
                *(_weights_by_steps(steps, 0.01) for steps in (10, 20, 30, 50, 200)),
                _weights_by_steps(100, 0.001),
            ),
        ),
        Wrong(
            "without the targets",
            lambda x, y, l2: torch.linalg.solve(x.T @ x + l2 * _eye(x), x.T),
            "the targets are never used: this is what they are to be multiplied by",
            "The right side is X'Y, `rows.T @ targets`.",
        ),
        Wrong(
            "no penalty when wide",
            lambda x, y, l2: x.T @ torch.linalg.solve(x @ x.T, y) if len(x) < x.shape[1] else ridge_weights(x, y, l2),
            "the penalty is left out where there are fewer rows than features",
            "The dual form needs it, too: W = X'(XX' + l2 I)^-1 Y.",
            also=(
                lambda x, y, l2: (
                    x.T @ torch.linalg.solve(x @ x.T, y) if len(x) <= x.shape[1] else ridge_weights(x, y, l2)
                ),
            ),
        ),
        Wrong(
            "identity of the wrong size",
            lambda x, y, l2: torch.linalg.solve(x.T @ x + l2 * torch.eye(len(x), dtype=x.dtype), x.T @ y),
            "the identity has S rows where X'X has D, or X and X' have changed places",
            "rows.T @ rows is [D, D], so take `torch.eye(rows.shape[1])`.",
            also=(
                lambda x, y, l2: torch.linalg.solve(x @ x.T + l2 * torch.eye(len(x), dtype=x.dtype), x.T @ y),
                lambda x, y, l2: torch.linalg.solve(x @ x.T + l2 * _eye(x), x @ y),
            ),
        ),
        Wrong(
            "column of ones",
            lambda x, y, l2: ridge_weights(torch.cat([x, torch.ones_like(x[:, :1])], 1), y, l2),
            "a column of ones is appended to the rows, as for a bias, so there is a row of weights too many",
            "There is no bias in this exercise: fit the rows as they are.",
        ),
        Wrong(
            "shrunk afterwards",
            lambda x, y, l2: torch.linalg.pinv(x) @ y / (1 + l2),
            "least squares is solved without the penalty, and its weights are shrunk afterwards",
            "The penalty belongs inside: on the diagonal of the matrix that is inverted.",
        ),
        Wrong(
            "detached",
            lambda x, y, l2: ridge_weights(x.detach(), y, l2),
            "the rows are cut off from the graph, whole or in part: the encoder could not learn through the solve",
            "No `.detach()`, no `no_grad`: `torch.linalg.solve` has a gradient.",
            also=(lambda x, y, l2: torch.inverse(x.T @ x + l2 * _eye(x)).detach() @ x.T @ y,),
        ),
    ),
    hints=(
        "Set the gradient of the loss with respect to W to zero: X'(X W - Y) + l2 W = 0.",
        "Bring W to one side: (X'X + l2 I) W = X'Y, and let `torch.linalg.solve` do the rest.",
        "`torch.linalg.solve(rows.T @ rows + l2 * torch.eye(D, dtype=rows.dtype), rows.T @ targets)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 12.2 the bias

Head = tuple[Tensor, Tensor]


def _one_hot(labels: Tensor, n_way: int, like: Tensor) -> Tensor:
    return F.one_hot(labels, n_way).to(like.dtype)


def ridge_head(support: Tensor, labels: Tensor, n_way: int, l2: float) -> Head:
    """Returns weight [n_way, D] and an unpenalised bias [n_way] that fit the one-hot labels."""
    targets = _one_hot(labels, n_way, support)
    centre, share = support.mean(0), targets.mean(0)
    weight = ridge_weights(support - centre, targets - share, l2)
    return weight.T, share - centre @ weight


def _head_by_ones(penalised: bool) -> Callable[[Tensor, Tensor, int, float], Head]:
    """Solves with a column of ones; the penalty spares it or does not."""

    def head(support: Tensor, labels: Tensor, n_way: int, l2: float) -> Head:
        rows = torch.cat([support, torch.ones_like(support[:, :1])], 1)
        penalty = rows.new_full((rows.shape[1],), l2)
        if not penalised:
            penalty = torch.cat([penalty[:-1], penalty.new_zeros(1)])
        solved = torch.linalg.solve(rows.T @ rows + penalty.diag(), rows.T @ _one_hot(labels, n_way, rows))
        return solved[:-1].T, solved[-1]

    return head


def _head_by_dual(support: Tensor, labels: Tensor, n_way: int, l2: float) -> Head:
    centred = support - support.mean(0, keepdim=True)
    targets = (labels[:, None] == torch.arange(n_way)).to(support.dtype)
    products = centred @ centred.T + l2 * torch.eye(len(support), dtype=support.dtype)
    weight = torch.linalg.inv(products).mm(targets).T @ centred
    return weight, targets.mean(0) - weight @ support.mean(0)


def _head_class_by_class(support: Tensor, labels: Tensor, n_way: int, l2: float) -> Head:
    left = support.T @ support - len(support) * torch.outer(support.mean(0), support.mean(0))
    weights, biases = [], []
    for k in range(n_way):
        target = (labels == k).to(support.dtype)
        right = support.T @ target - target.sum() * support.mean(0)
        weights.append(torch.linalg.solve(left + l2 * torch.eye(len(left), dtype=left.dtype), right))
        biases.append((target - support @ weights[-1]).mean())  # whatever is left over on average
    return torch.stack(weights), torch.stack(biases)


def _head_by_projection(support: Tensor, labels: Tensor, n_way: int, l2: float) -> Head:
    size = len(support)
    centring = torch.eye(size, dtype=support.dtype) - 1 / size
    targets = _one_hot(labels, n_way, support)
    weight = _dual_weights(centring @ support, centring @ targets, l2)
    return weight.T, (targets - support @ weight).mean(0)


def _flawed_head(
    rows: Callable[[Tensor, Tensor], Tensor] = lambda z, y: z - z.mean(0),
    targets: Callable[[Tensor], Tensor] = lambda t: t,
    bias: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda z, t, w: t.mean(0) - z.mean(0) @ w,
) -> Callable[[Tensor, Tensor, int, float], Head]:
    """Returns a head with one part exchanged: the rows that are fitted, what they are fitted to, or the bias."""

    def head(support: Tensor, labels: Tensor, n_way: int, l2: float) -> Head:
        found = targets(_one_hot(labels, n_way, support))
        weight = ridge_weights(rows(support, labels), found, l2)
        return weight.T, bias(support, found, weight)

    return head


def _class_means(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([support[labels == k].mean(0) for k in range(n_way)])


def _means_or_zero(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Returns class means, and zeros for a class without a picture."""
    member = _one_hot(labels, n_way, support)
    return member.T @ support / member.sum(0).clamp(min=1)[:, None]


def _head_around(
    centre: Callable[[Tensor, Tensor, int], Tensor],
) -> Callable[[Tensor, Tensor, int, float], Head]:
    """Returns a head that is centred at a point of another kind."""

    def head(support: Tensor, labels: Tensor, n_way: int, l2: float) -> Head:
        targets, point = _one_hot(labels, n_way, support), centre(support, labels, n_way)
        weight = ridge_weights(support - point, targets - targets.mean(0), l2)
        return weight.T, targets.mean(0) - point @ weight

    return head


def _standardised_and_back(support: Tensor, labels: Tensor, n_way: int, l2: float) -> Head:
    """Fits rows in units of their standard deviation, and turns the weights back into the units of the queries."""
    centre, unit, targets = support.mean(0), support.std(0) + 1e-8, _one_hot(labels, n_way, support)
    weight = ridge_weights((support - centre) / unit, targets - targets.mean(0), l2) / unit[:, None]
    return weight.T, targets.mean(0) - centre @ weight


def _by_position(support: Tensor, labels: Tensor, n_way: int, l2: float) -> Head:
    return ridge_head(support, torch.arange(len(labels)) * n_way // len(labels), n_way, l2)


def _prototype_head(support: Tensor, labels: Tensor, n_way: int, l2: float) -> Head:
    centres = _class_means(support, labels, n_way)
    return 2 * centres, -centres.square().sum(1)


def _task(generator: Generator, shots: list[int], features: int = 5) -> tuple[Tensor, Tensor, int]:
    """Draws embeddings [S, D] that lie far from the origin, with shots[k] rows of class k in mixed order."""
    labels = torch.arange(len(shots)).repeat_interleave(torch.tensor(shots))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    return torch.randn(len(labels), features, generator=generator) + 1.5, labels, len(shots)


def _head_cases(generator: Generator) -> list[Case]:
    paper = (torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]), 2, 2.0)
    unequal = _task(generator, [1, 4, 2], 4)
    return [
        Case("the example on paper: the rows 1 and 3", paper),
        Case("3 classes of 2 shots, 5 features, rows in mixed order", (*_task(generator, [2, 2, 2]), 1.0)),
        Case("unequal shots: 1, 4 and 2", (*unequal, 0.5)),
        Case("more rows than features", (*_task(generator, [4, 5], 3), 2.0)),
        Case("one shot each", (*_task(generator, [1, 1, 1, 1], 6), 3.0)),
        Case("float64", (unequal[0].double(), *unequal[1:], 0.5)),
    ]


def _moves_with_the_rows(answer: Callable, reference: Callable) -> str | None:
    support, labels, n_way = _task(torch.Generator().manual_seed(3), [2, 3, 2])
    move = torch.tensor([3.0, -2.0, 0.5, 1.0, -4.0])
    (weight, bias), (moved, other) = answer(support, labels, n_way, 1.0), answer(support + move, labels, n_way, 1.0)
    gap = float((support @ weight.T + bias - (support + move) @ moved.T - other).abs().max())
    return f"after all rows had moved by the same vector, an output changed by {gap:.2g}." if gap > 1e-3 else None


def _one_class_more(answer: Callable, reference: Callable) -> str | None:
    support, labels, n_way = _task(torch.Generator().manual_seed(4), [2, 3])
    expected, got = (f(support, labels, n_way + 1, 1.0) for f in (reference, answer))
    for name, ours, theirs in zip(("weights", "bias"), expected, got, strict=True):
        if tuple(ours.shape) != tuple(theirs.shape):
            return f"the {name} came out as {list(theirs.shape)} in place of {list(ours.shape)}."
        if not float((ours - theirs).abs().max()) <= 1e-3:  # a mean over no picture is not a number
            return f"the {name} of such a task are not those of ridge regression."
    return None


HEAD = Exercise(
    id="12.2",
    title="A bias that costs nothing",
    reference=ridge_head,
    cases=_head_cases,
    gradient=(0,),
    tolerance=1e-4,
    properties=(
        Property("moving all rows by the same vector changes no output", _moves_with_the_rows),
        Property("the last class may have no picture, and still gets its row", _one_class_more),
    ),
    right=(_head_by_ones(penalised=False), _head_by_dual, _head_class_by_class, _head_by_projection),
    wrong=(
        Wrong(
            "penalised bias",
            _head_by_ones(penalised=True),
            "the bias is the weight of a column of ones, and the penalty shrinks it with the others",
            "Subtract the means before the solve; or leave the last entry of the diagonal at 0.",
        ),
        Wrong(
            "no bias",
            _flawed_head(rows=lambda z, y: z, bias=lambda z, t, w: torch.zeros_like(t[0])),
            "there is no bias at all: the rows are fitted as they lie and the bias is zero",
            "Subtract the means before the solve, and let the bias bring them back.",
        ),
        Wrong(
            "bias zero",
            _flawed_head(bias=lambda z, t, w: torch.zeros_like(t[0])),
            "the weights are those of centred rows, but the bias is zero: nothing brings the means back",
            "bias = mean of the targets - mean of the rows @ W.",
        ),
        Wrong(
            "share only",
            _flawed_head(bias=lambda z, t, w: t.mean(0)),
            "the bias is the mean of the targets alone: right for centred queries, but these come as they are",
            "Take off what the weights make of the mean: `- centre @ weight`.",
        ),
        Wrong(
            "equal shares",
            _flawed_head(bias=lambda z, t, w: 1 / t.shape[1] - z.mean(0) @ w),
            "1/N stands for the mean of the targets, which is right only when the shots are equal",
            "`targets.mean(0)` knows how many pictures each class has.",
        ),
        Wrong(
            "penalty times S",
            lambda z, y, n, l2: ridge_head(z, y, n, l2 * len(z)),
            "the penalty is multiplied or divided by the number of rows",
            "Pass `l2` on as it is.",
            also=(lambda z, y, n, l2: ridge_head(z, y, n, l2 / len(z)),),
        ),
        Wrong(
            "standardised",
            lambda z, y, n, l2: ridge_head((z - z.mean(0)) / (z.std(0) + 1e-6), y, n, l2),
            "the features are divided by their standard deviation, so the penalty counts each of them in a unit of its own",
            "Subtract the mean, and no more.",
            also=(
                lambda z, y, n, l2: ridge_head(z / (z.std(0) + 1e-6), y, n, l2),
                _flawed_head(rows=lambda z, y: (z - z.mean(0)) / (z.std(0) + 1e-8)),
                lambda z, y, n, l2: _standardised_and_back(z, y, n, l2),
            ),
        ),
        Wrong(
            "bias of prototypes",
            lambda z, y, n, l2: (ridge_head(z, y, n, l2)[0], _prototype_head(z, y, n, l2)[1]),
            "the bias is minus a squared length, as in a prototypical network, beside the weights of a solve",
            "The bias follows from the weights: mean of the targets - mean of the rows @ W.",
            also=(_flawed_head(bias=lambda z, t, w: -w.square().sum(0)),),
        ),
        Wrong(
            "share forgotten",
            _flawed_head(bias=lambda z, t, w: -z.mean(0) @ w),
            "the mean of the targets is missing from the bias",
            "bias = mean of the targets - mean of the rows @ W.",
        ),
        Wrong(
            "plus",
            _flawed_head(bias=lambda z, t, w: t.mean(0) + z.mean(0) @ w),
            "the sign before `centre @ weight` is turned round",
            "The output at the mean of the rows must be the mean of the targets: W'centre + bias = share.",
        ),
        Wrong(
            "uncentred weights",
            _flawed_head(rows=lambda z, y: z),
            "the rows are fitted as they lie, and only the bias knows of the means",
            "Subtract the mean of the rows *before* the solve.",
        ),
        Wrong(
            "centred by prototypes",
            lambda z, y, n, l2: _flawed_head(
                rows=lambda z, y: z - _class_means(z, y, n).mean(0),
                bias=lambda z, t, w: t.mean(0) - _class_means(z, y, n).mean(0) @ w,
            )(z, y, n, l2),
            "the mean of the class means is subtracted, which is another point when the shots differ",
            "The best bias belongs to the mean over all rows: `support.mean(0)`.",
            also=(
                lambda z, y, n, l2: _flawed_head(
                    rows=lambda z, y: z - _class_means(z, y, n).mean(0),
                    targets=lambda t: t - 1 / n,
                    bias=lambda z, t, w: 1 / n - _class_means(z, y, n).mean(0) @ w,
                )(z, y, n, l2),
                _head_around(lambda z, y, n: _means_or_zero(z, y, n).mean(0)),
            ),
        ),
        Wrong(
            "targets centred only",
            lambda z, y, n, l2: _flawed_head(
                rows=lambda z, y: z,
                targets=lambda t: t - t.mean(0),
                bias=lambda z, t, w: _one_hot(y, n, z).mean(0) - z.mean(0) @ w,
            )(z, y, n, l2),
            "the targets are centred and the rows are not",
            "Subtract the mean of the rows, too: it is the one that matters.",
        ),
        Wrong(
            "wrong axis",
            _flawed_head(rows=lambda z, y: z - z.mean(1, keepdim=True)),
            "the mean of each row over its features is subtracted, not the mean of the rows",
            "`support.mean(0)`: one number for each feature.",
            also=(
                _flawed_head(rows=lambda z, y: z - z.mean(1, keepdim=True), targets=lambda t: t - 1 / t.shape[1]),
                lambda z, y, n, l2: _flawed_head(
                    rows=lambda z, y: z - z.mean(1, keepdim=True),
                    targets=lambda t: t - 1 / n,
                    bias=lambda z, t, w: _one_hot(y, n, z).mean(0) - z.mean(0) @ w,
                )(z, y, n, l2),
            ),
        ),
        Wrong(
            "one mean for all features",
            _flawed_head(rows=lambda z, y: z - z.mean()),
            "a single number, the mean of all entries, is subtracted from every feature",
            "`support.mean(0)`: one number for each feature.",
            also=(
                _flawed_head(rows=lambda z, y: z - z.mean(), bias=lambda z, t, w: t.mean(0) - z.mean() * w.sum(0)),
                _flawed_head(
                    rows=lambda z, y: z - z.mean(),
                    targets=lambda t: t - t.mean(),
                    bias=lambda z, t, w: 1 / t.shape[1] - z.mean() * w.sum(0),
                ),
            ),
        ),
        Wrong(
            "each class its own mean",
            lambda z, y, n, l2: _flawed_head(
                bias=lambda z, t, w: t.mean(0) - (w.T * _class_means(z, y, n)).sum(1),
            )(z, y, n, l2),
            "every bias is made at the mean of its own class: it belongs to the mean of all rows",
            "bias = mean of the targets - mean of the rows @ W, for all classes.",
        ),
        Wrong(
            "classes counted from the labels",
            lambda z, y, n, l2: ridge_head(z, y, int(y.max()) + 1, l2),
            "the number of classes is taken from the labels, and `n_way` is not used: a last class without a picture is lost",
            "`F.one_hot(labels, n_way)`.",
        ),
        Wrong(
            "by position",
            _by_position,
            "the labels are not read: the first rows are taken for class 0, the next for class 1",
            "`F.one_hot(labels, n_way)` says which row belongs to which class.",
            also=(
                lambda z, y, n, l2: ridge_head(z, torch.arange(len(y)) % n, n, l2),
                lambda z, y, n, l2: ridge_head(z, y.sort().values, n, l2),
            ),
        ),
        Wrong(
            "plus and minus one",
            _flawed_head(targets=lambda t: 2 * t - 1),
            "the targets are +1 and -1, so every output is twice as large, minus 1",
            "One-hot targets are 1 and 0.",
        ),
        Wrong(
            "transposed",
            lambda z, y, n, l2: (ridge_head(z, y, n, l2)[0].T, ridge_head(z, y, n, l2)[1]),
            "the weights are returned as [D, N]",
            "One row for each class: `weight.T`.",
        ),
        Wrong(
            "turned order",
            lambda z, y, n, l2: ridge_head(z, y, n, l2)[::-1],
            "the bias comes first and the weights second",
            "Return the tuple (weight, bias).",
        ),
        Wrong(
            "class means fitted",
            lambda z, y, n, l2: ridge_head(_class_means(z, y, n), torch.arange(n), n, l2),
            "the class means are fitted in place of the rows",
            "Every support row is an equation of its own.",
        ),
        Wrong(
            "prototypes",
            _prototype_head,
            "this is the head of a prototypical network: nothing is solved",
            "Call `ridge_weights` on centred rows and centred one-hot targets.",
        ),
        Wrong(
            "detached",
            lambda z, y, n, l2: ridge_head(z.detach(), y, n, l2),
            "the support is cut off from the graph, whole or in part: the encoder learns nothing, or less than it could",
            "No `.detach()`, no `no_grad`.",
            also=(_head_around(lambda z, y, n: z.mean(0).detach()),),
        ),
    ),
    hints=(
        "Which bias is best for given weights? The one that makes the average error zero.",
        "So it moves the mean of the rows onto the mean of the targets: solve for centred rows, then put the means back.",
        "`W = ridge_weights(support - centre, targets - share, l2); return W.T, share - centre @ W`",
    ),
)

# ---------------------------------------------------------------------------------------------- 12.3 a hypernetwork


def written_head(support: Tensor, labels: Tensor, n_way: int, inner: Tensor, outer: Tensor) -> Head:
    """Returns the prototypes' head plus what a small set network writes. inner [D, H], outer [H, D + 1]."""
    centres = _class_means(support, labels, n_way)
    written = _class_means((support @ inner).relu(), labels, n_way) @ outer
    return 2 * centres + written[:, :-1], written[:, -1] - centres.square().sum(1)


def _written_by_one_hot(support: Tensor, labels: Tensor, n_way: int, inner: Tensor, outer: Tensor) -> Head:
    share = F.one_hot(labels, n_way).to(support.dtype)
    share = share / share.sum(0)  # [S, N], columns sum to one
    centres, codes = share.T @ support, share.T @ F.relu(support @ inner)
    weight, bias = (codes @ outer).split([support.shape[1], 1], dim=1)
    return weight + 2 * centres, bias[:, 0] - torch.einsum("nd,nd->n", centres, centres)


def _written_in_loops(support: Tensor, labels: Tensor, n_way: int, inner: Tensor, outer: Tensor) -> Head:
    weights, biases = [], []
    for k in range(n_way):
        mine = [z for z, y in zip(support, labels.tolist(), strict=True) if y == k]
        centre = sum(mine) / len(mine)
        written = sum(torch.clamp(z @ inner, min=0) for z in mine) / len(mine) @ outer
        weights.append(2 * centre + written[: len(centre)])
        biases.append(written[len(centre)] - centre @ centre)
    return torch.stack(weights), torch.stack(biases)


def _written_by_index_add(support: Tensor, labels: Tensor, n_way: int, inner: Tensor, outer: Tensor) -> Head:
    both = torch.cat([support, torch.maximum(support @ inner, support.new_zeros(()))], 1)
    sums = both.new_zeros(n_way, both.shape[1]).index_add(0, labels, both)
    means = sums / labels.bincount(minlength=n_way)[:, None]
    centres, written = means[:, : support.shape[1]], means[:, support.shape[1] :] @ outer
    return written[:, :-1] + centres * 2, written[:, -1] - (centres**2).sum(-1)


def _written_before_the_mean(support: Tensor, labels: Tensor, n_way: int, inner: Tensor, outer: Tensor) -> Head:
    """Writes for every picture, then averages: the last layer is linear, so nothing changes."""
    per_row = torch.cat([2 * support, support.new_zeros(len(support), 1)], 1) + (support @ inner).relu() @ outer
    means = _class_means(per_row, labels, n_way)
    return means[:, :-1], means[:, -1] - _class_means(support, labels, n_way).pow(2).sum(1)


def _flawed_writer(
    codes: Callable[[Tensor, Tensor, int, Tensor], Tensor] = lambda z, y, n, a: _class_means((z @ a).relu(), y, n),
    head: Callable[[Tensor, Tensor], Head] = lambda c, u: (2 * c + u[:, :-1], u[:, -1] - c.square().sum(1)),
    means: Callable[[Tensor, Tensor, int], Tensor] = _class_means,
) -> Callable[[Tensor, Tensor, int, Tensor, Tensor], Head]:
    """Returns a hypernetwork with one part exchanged: the class codes, how the head is put together, or the prototypes."""
    return lambda z, y, n, inner, outer: head(means(z, y, n), codes(z, y, n, inner) @ outer)


def _by_rows(written: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """Returns a hypernetwork that writes for every picture, by this function of support, inner and outer, then averages."""

    def head(support: Tensor, labels: Tensor, n_way: int, inner: Tensor, outer: Tensor) -> Head:
        centres, mean = (_class_means(rows, labels, n_way) for rows in (support, written(support, inner, outer)))
        return 2 * centres + mean[:, :-1], mean[:, -1] - centres.square().sum(1)

    return head


def _class_sums(rows: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([rows[labels == k].sum(0) for k in range(n_way)])


def _class_maxima(rows: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([rows[labels == k].amax(0) for k in range(n_way)])


def _last_written(support: Tensor, labels: Tensor, n_way: int, inner: Tensor, outer: Tensor) -> Head:
    """Lets every picture write into the row of its class, where the last one stays."""
    per_row = (support @ inner).relu() @ outer
    written = per_row.new_zeros(n_way, outer.shape[1]).index_put((labels,), per_row)
    centres = _class_means(support, labels, n_way)
    return 2 * centres + written[:, :-1], written[:, -1] - centres.square().sum(1)


def _reshaped(rows: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return rows[: len(rows) // n_way * n_way].reshape(n_way, -1, rows.shape[1]).mean(1)


def _writer_cases(generator: Generator) -> list[Case]:
    def case(says: str, shots: list[int], features: int, hidden: int) -> Case:
        support, labels, n_way = _task(generator, shots, features)
        inner, outer = (torch.randn(*s, generator=generator) for s in ((features, hidden), (hidden, features + 1)))
        return Case(says, (support - 1.0, labels, n_way, inner, outer))

    unequal = case("unequal shots: 1, 4 and 2", [1, 4, 2], 4, 5)
    support, labels, n_way, inner, outer = unequal.args
    paper = torch.tensor([[1.0, 1.0], [3.0, -1.0], [0.0, 2.0]])
    one, two = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0, 0.0, 2.0]])
    return [
        Case("the example on paper: one hidden number", (paper, torch.tensor([0, 0, 1]), 2, one, two)),
        case("3 classes of 2 shots, rows in mixed order", [2, 2, 2], 4, 6),
        unequal,
        case("one shot each", [1, 1, 1, 1], 3, 4),
        Case(
            "the last layer is zero: a prototypical network", (support, labels, n_way, inner, torch.zeros_like(outer))
        ),
        Case("float64", (support.double(), labels, n_way, inner.double(), outer.double())),
    ]


WRITER = Exercise(
    id="12.3",
    title="A hypernetwork",
    reference=written_head,
    cases=_writer_cases,
    gradient=(0, 3, 4),
    tolerance=1e-4,
    right=(_written_by_one_hot, _written_in_loops, _written_by_index_add, _written_before_the_mean),
    wrong=(
        Wrong(
            "relu of the mean",
            _flawed_writer(lambda z, y, n, a: (_class_means(z, y, n) @ a).relu()),
            "the pictures of a class are averaged before the ReLU: the code sees the prototype only",
            "ReLU first, for every picture, then the mean over the class.",
        ),
        Wrong(
            "sum of the codes",
            _flawed_writer(lambda z, y, n, a: _class_sums((z @ a).relu(), y, n)),
            "the codes of a class are summed, so more shots make a longer code",
            "Average them: `.mean(0)`.",
        ),
        Wrong(
            "one divisor for all",
            _flawed_writer(lambda z, y, n, a: _class_sums((z @ a).relu(), y, n) * n / len(z)),
            "the sums of the codes, or of codes and embeddings, are divided by the same number for all classes: S, or S / N",
            "Divide each class by its own number of pictures.",
            also=(
                _flawed_writer(lambda z, y, n, a: _class_sums((z @ a).relu(), y, n) / len(z)),
                _flawed_writer(
                    lambda z, y, n, a: _class_sums((z @ a).relu(), y, n) * n / len(z),
                    means=lambda z, y, n: _class_sums(z, y, n) * n / len(z),
                ),
                _flawed_writer(
                    lambda z, y, n, a: _class_sums((z @ a).relu(), y, n) / len(z),
                    means=lambda z, y, n: _class_sums(z, y, n) / len(z),
                ),
            ),
        ),
        Wrong(
            "last picture",
            lambda z, y, n, a, b: _flawed_writer(
                lambda z, y, n, a: torch.stack([(z @ a).relu()[y == k][-1] for k in range(n)])
            )(z, y, n, a, b),
            "each class keeps the code of its last picture only",
            "`codes[labels] = ...` overwrites; take the mean of all codes of the class.",
            also=(
                _flawed_writer(
                    lambda z, y, n, a: torch.zeros(n, a.shape[1], dtype=z.dtype).index_put((y,), (z @ a).relu())
                ),
                _last_written,
            ),
        ),
        Wrong(
            "in order of appearance",
            lambda z, y, n, a, b: written_head(
                z, torch.tensor([list(dict.fromkeys(y.tolist())).index(k) for k in y.tolist()]), n, a, b
            ),
            "the slots are numbered in the order in which their labels first appear",
            "Row k belongs to the label k.",
        ),
        Wrong(
            "largest code",
            _flawed_writer(lambda z, y, n, a: _class_maxima((z @ a).relu(), y, n)),
            "the largest value of each code is kept in place of the mean",
            "`.mean(0)` over the pictures of the class.",
        ),
        Wrong(
            "no relu",
            _flawed_writer(lambda z, y, n, a: _class_means(z @ a, y, n)),
            "there is no ReLU between the two layers, so both together are one linear layer",
            "`(support @ inner).relu()` before the mean.",
        ),
        Wrong(
            "relu at the end",
            lambda z, y, n, a, b: _flawed_writer(
                head=lambda c, u: (2 * c + u.relu()[:, :-1], u.relu()[:, -1] - (c * c).sum(1))
            )(z, y, n, a, b),
            "a ReLU follows the last layer, too: corrections could never be negative",
            "Only the first layer has a ReLU.",
            also=(_by_rows(lambda z, a, b: ((z @ a).relu() @ b).relu()),),
        ),
        Wrong(
            "relu after both layers",
            _by_rows(lambda z, a, b: (z @ a @ b).relu()),
            "the ReLU follows the second layer in place of the first",
            "`(support @ inner).relu() @ outer`.",
        ),
        Wrong(
            "another nonlinearity",
            _flawed_writer(lambda z, y, n, a: _class_means(torch.tanh(z @ a), y, n)),
            "another function stands in the place of the ReLU",
            "`.relu()`: what is below zero becomes zero, and the rest stays.",
            also=(
                _flawed_writer(lambda z, y, n, a: _class_means(torch.sigmoid(z @ a), y, n)),
                _flawed_writer(lambda z, y, n, a: _class_means(F.gelu(z @ a), y, n)),
            ),
        ),
        Wrong(
            "centred first",
            _flawed_writer(lambda z, y, n, a: _class_means(((z - z.mean(0)) @ a).relu(), y, n)),
            "the mean of the support is subtracted before the first layer, as in a ridge regression",
            "The codes are made of the embeddings as they are.",
        ),
        Wrong(
            "one prototype for all",
            _flawed_writer(means=lambda z, y, n: z.mean(0, keepdim=True).expand(n, -1)),
            "the prototype is the mean of the whole support",
            "Average within each class.",
        ),
        Wrong(
            "minus 2c",
            _flawed_writer(head=lambda c, u: (u[:, :-1] - 2 * c, u[:, -1] + c.square().sum(1))),
            "the signs of the prototypes' head are turned round: these are distances, not their negatives",
            "w = 2c and b = -|c|^2: the nearest prototype has the largest logit.",
            also=(_flawed_writer(head=lambda c, u: (u[:, :-1] - 2 * c, u[:, -1] - c.square().sum(1))),),
        ),
        Wrong(
            "mean of the squares",
            _flawed_writer(head=lambda c, u: (2 * c + u[:, :-1], u[:, -1] - c.square().mean(1))),
            "the squares of a prototype are averaged over the features, not summed",
            "`.sum(1)`: the squared length.",
        ),
        Wrong(
            "squares before the mean",
            lambda z, y, n, a, b: (
                written_head(z, y, n, a, b)[0],
                (_class_means((z @ a).relu(), y, n) @ b)[:, -1] - _class_means(z.square(), y, n).sum(1),
            ),
            "the squared lengths of the pictures are averaged: the bias needs the squared length of the mean",
            "First the prototype, then its square.",
        ),
        Wrong(
            "one code for all",
            _flawed_writer(lambda z, y, n, a: (z @ a).relu().mean(0, keepdim=True).expand(n, -1)),
            "all pictures are averaged into one code: every class gets the same correction",
            "Average within each class: `[labels == k].mean(0)`.",
        ),
        Wrong(
            "by position",
            lambda z, y, n, a, b: _flawed_writer(lambda z, y, n, a: _reshaped((z @ a).relu(), y, n), means=_reshaped)(
                z, y, n, a, b
            ),
            "the rows are cut into equal parts without a look at the labels",
            "Choose the rows of class k with `labels == k`.",
            also=(
                _flawed_writer(lambda z, y, n, a: _reshaped((z @ a).relu(), y, n)),
                lambda z, y, n, a, b: written_head(z, torch.arange(len(y)) * n // len(y), n, a, b),
                lambda z, y, n, a, b: written_head(z, y.sort().values, n, a, b),
            ),
        ),
        Wrong(
            "equal shots assumed",
            _flawed_writer(
                lambda z, y, n, a: _reshaped((z @ a).relu()[y.argsort(stable=True)], y, n),
                means=lambda z, y, n: _reshaped(z[y.argsort(stable=True)], y, n),
            ),
            "the rows are sorted by their labels and cut into equal parts, which are the classes only if all shots are equal",
            "Choose the rows of class k with `labels == k`, or divide by each class's own number of pictures.",
            also=(_flawed_writer(lambda z, y, n, a: _reshaped((z @ a).relu()[y.argsort(stable=True)], y, n)),),
        ),
        Wrong(
            "only the written part",
            _flawed_writer(head=lambda c, u: (u[:, :-1], u[:, -1])),
            "the prototypes are missing: with a last layer of zeros this head says nothing",
            "Add `2 * centres` to the weights and take the squared length off the bias.",
        ),
        Wrong(
            "only the prototypes",
            _flawed_writer(head=lambda c, u: (2 * c, -c.square().sum(1))),
            "nothing is written: this is the head of a prototypical network",
            "Add the first D written numbers to the weights, and the last one to the bias.",
        ),
        Wrong(
            "factor 2",
            _flawed_writer(head=lambda c, u: (c + u[:, :-1], u[:, -1] - c.square().sum(1))),
            "a factor is off beside the prototypes: w = 2c and b = -|c|^2 belong together",
            "Multiply out: -|z - c|^2 = -|z|^2 + 2 c'z - |c|^2.",
            also=(
                _flawed_writer(head=lambda c, u: (c + u[:, :-1], u[:, -1] - c.square().sum(1) / 2)),
                _flawed_writer(head=lambda c, u: (2 * c + u[:, :-1], u[:, -1] - c.square().sum(1) / 2)),
                _flawed_writer(head=lambda c, u: (2 * c + u[:, :-1], u[:, -1] - (2 * c).square().sum(1))),
            ),
        ),
        Wrong(
            "written part doubled",
            _flawed_writer(head=lambda c, u: (2 * (c + u[:, :-1]), u[:, -1] - c.square().sum(1))),
            "what is written counts twice",
            "Only the prototype is doubled: w = 2c + u.",
            also=(_flawed_writer(head=lambda c, u: (2 * (c + u[:, :-1]), 2 * u[:, -1] - c.square().sum(1))),),
        ),
        Wrong(
            "no written bias",
            _flawed_writer(head=lambda c, u: (2 * c + u[:, :-1], -c.square().sum(1))),
            "the last written number, v, is missing from the bias",
            "b = -|c|^2 + `written[:, -1]`.",
        ),
        Wrong(
            "plus",
            _flawed_writer(head=lambda c, u: (2 * c + u[:, :-1], u[:, -1] + c.square().sum(1))),
            "the squared length is added to the bias: the longest prototype wins",
            "b = -|c|^2 plus what is written.",
        ),
        Wrong(
            "bias without the square",
            _flawed_writer(head=lambda c, u: (2 * c + u[:, :-1], u[:, -1])),
            "the bias lacks -|c|^2",
            "A prototypical network's bias is minus the squared length of the prototype.",
            also=(_flawed_writer(head=lambda c, u: (2 * c + u[:, :-1], u[:, -1] - c.norm(dim=1))),),
        ),
        Wrong(
            "bias read first",
            _flawed_writer(head=lambda c, u: (2 * c + u[:, 1:], u[:, 0] - c.square().sum(1))),
            "the first written number is taken for the bias",
            "Columns 0 to D-1 belong to the weights, the last column to the bias.",
        ),
        Wrong(
            "a moved prototype",
            _flawed_writer(head=lambda c, u: (2 * c + u[:, :-1], u[:, -1] - (c + u[:, :-1] / 2).square().sum(1))),
            "the squared length is that of the corrected weights: this moves the prototype, and the bias is free no more",
            "The bias uses the squared length of the prototype itself.",
            also=(_flawed_writer(head=lambda c, u: (2 * (c + u[:, :-1]), u[:, -1] - (c + u[:, :-1]).square().sum(1))),),
        ),
        Wrong(
            "corrections subtracted",
            _flawed_writer(head=lambda c, u: (2 * c - u[:, :-1], -u[:, -1] - c.square().sum(1))),
            "what is written is subtracted, in the weights or in the bias",
            "Add it to the weights and to the bias.",
            also=(
                _flawed_writer(head=lambda c, u: (2 * c + u[:, :-1], -u[:, -1] - c.square().sum(1))),
                _flawed_writer(head=lambda c, u: (2 * c - u[:, :-1], u[:, -1] - c.square().sum(1))),
            ),
        ),
        Wrong(
            "bias as a column",
            _flawed_writer(head=lambda c, u: (2 * c + u[:, :-1], u[:, -1:] - c.square().sum(1, keepdim=True))),
            "the bias keeps an axis of length 1: [N, 1]",
            "`written[:, -1]` gives [N].",
        ),
        Wrong(
            "transposed or turned round",
            lambda z, y, n, a, b: written_head(z, y, n, a, b)[::-1],
            "the bias comes first and the weights second, or the weights are transposed",
            "Return the tuple (weight [N, D], bias [N]).",
            also=(lambda z, y, n, a, b: (written_head(z, y, n, a, b)[0].T, written_head(z, y, n, a, b)[1]),),
        ),
        Wrong(
            "detached",
            lambda z, y, n, a, b: written_head(z.detach(), y, n, a, b),
            "the support is cut off from the graph, whole or in part: the encoder learns less than it could",
            "No `.detach()`, no `no_grad`.",
            also=(
                _flawed_writer(lambda z, y, n, a: _class_means((z.detach() @ a).relu(), y, n)),
                _flawed_writer(means=lambda z, y, n: _class_means(z.detach(), y, n)),
                lambda z, y, n, a, b: written_head(z, y, n, a.detach(), b),
            ),
        ),
    ),
    hints=(
        "Two class means are needed: of the embeddings, and of the codes `(support @ inner).relu()`.",
        "The mean code of a class times `outer` gives D + 1 numbers: D go to the weights, the last to the bias.",
        "`written = codes @ outer; return 2 * centres + written[:, :-1], written[:, -1] - centres.square().sum(1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 12.4 a head that feels a shift

Classify = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def feels_a_shift(classify: Classify, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    """Returns True when moving all embeddings by the same vector changes a probability."""
    before = classify(support, labels, query, n_way).softmax(-1)
    for seed in range(5):
        move = torch.randn(support.shape[1], generator=torch.Generator().manual_seed(seed)).to(support.dtype)
        after = classify(support + move, labels, query + move, n_way).softmax(-1)
        if not torch.allclose(before, after, rtol=0, atol=1e-6):
            return True
    return False


def _compared(
    read: Callable[[Tensor], Tensor] = lambda v: v.log_softmax(-1),
    differ: Callable[[Tensor, Tensor], bool] = lambda a, b: bool((a - b).abs().max() > 1e-6),
    moves: Callable[[Tensor], list[Tensor]] | None = None,
    both: tuple[float, float] = (1.0, 1.0),
) -> Callable[[Classify, Tensor, Tensor, Tensor, int], bool]:
    """Returns a detector with parts exchanged: what is compared and how, the moves, and how far support and queries move."""

    def detector(classify: Classify, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
        before = read(classify(support, labels, query, n_way))
        generator = torch.Generator().manual_seed(7)
        vectors = [torch.randn(support.shape[1], generator=generator).to(support) for _ in range(5)]
        for move in vectors if moves is None else moves(support):
            after = read(classify(support + both[0] * move, labels, query + both[1] * move, n_way))
            if differ(before, after):
                return True
        return False

    return detector


def _shift_by_gaps(classify: Classify, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    """Compares differences of logits within a query, which is all that a softmax sees."""
    move = torch.linspace(-1, 2, support.shape[1], dtype=support.dtype).square() + 0.3
    first, second = (classify(support + s * move, labels, query + s * move, n_way) for s in (0.0, 1.0))
    gaps = [v - v.mean(1, keepdim=True) for v in (first, second)]
    return bool((gaps[0] - gaps[1]).abs().max() > 1e-6)


def _shift_one_feature_at_a_time(
    classify: Classify, support: Tensor, labels: Tensor, query: Tensor, n_way: int
) -> bool:
    before = classify(support, labels, query, n_way).softmax(1)
    for feature in range(support.shape[1]):
        s, q = support.clone(), query.clone()
        s[:, feature] += 2
        q[:, feature] += 2
        if not torch.allclose(classify(s, labels, q, n_way).softmax(1), before, atol=1e-7, rtol=1e-5):
            return True
    return False


def _shift_to_the_origin(classify: Classify, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    """Moves the mean of the support to the origin: one vector, and a general one."""
    centre = support.mean(0)
    found = [
        classify(z[0], labels, z[1], n_way).softmax(-1) for z in ((support, query), (support - centre, query - centre))
    ]
    return not torch.allclose(*found, atol=1e-6)


def _on_logits(weights: Callable[[Tensor, Tensor, int], Head]) -> Classify:
    def classify(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        weight, bias = weights(support, labels, n_way)
        return query @ weight.T + bias

    return classify


_sound_ridge = _on_logits(lambda z, y, n: ridge_head(z, y, n, 1.0))
_sound_linear = _on_logits(lambda z, y, n: _prototype_head(z, y, n, 1.0))
_penalised_ones = _on_logits(lambda z, y, n: _head_by_ones(penalised=True)(z, y, n, 1e-3))
_no_bias = _on_logits(lambda z, y, n: (ridge_weights(z, _one_hot(y, n, z), 1.0).T, z.new_zeros(n)))


def _sound_distances(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    return -(query[:, None] - _class_means(support, labels, n_way)).square().sum(-1)


def _sound_nearest(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    near = -torch.cdist(query, support, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.stack([near[:, labels == k].amax(1) for k in range(n_way)], 1)


def _cosines(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    return F.normalize(query, dim=1) @ F.normalize(_class_means(support, labels, n_way), dim=1).T


def _slightly(fault: Classify) -> Classify:
    """Returns a sound head with a little of a faulty one: no winner changes, and no probability by a hundredth."""
    return lambda z, y, q, n: _sound_ridge(z, y, q, n) + 1e-2 * fault(z, y, q, n).tanh()


def _one_class_without(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    logits, wrong = (f(support, labels, query, n_way) for f in (_sound_ridge, _no_bias))
    return torch.cat([logits[:, :-1], wrong[:, -1:]], 1)


def _one_query_without(marked: Tensor) -> Classify:
    """Returns a head with a small fault in one query, known by where it lies from the support's mean, alone or among others."""

    def classify(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        logits, wrong = (f(support, labels, query, n_way) for f in (_sound_ridge, _slightly(_no_bias)))
        chosen = (query - support.mean(0) - marked).abs().amax(1, keepdim=True) < 1e-5
        return torch.where(chosen, wrong, logits)

    return classify


def _new_pictures_only(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Is sound for a query that lies on a support picture, and has a small fault for all others."""
    gap = torch.cdist(query, support, compute_mode="donot_use_mm_for_euclid_dist").amin(1, keepdim=True)
    logits, wrong = (f(support, labels, query, n_way) for f in (_sound_ridge, _slightly(_no_bias)))
    return torch.where(gap < 1e-9, logits, wrong)


def _trading(change: list[list[float]]) -> Classify:
    """Returns a head in which classes trade probability by an amount that depends on where the embeddings lie."""

    def classify(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        probability = _sound_ridge(support, labels, query, n_way).softmax(-1)
        amount = torch.zeros_like(probability)
        amount[: len(change)] = torch.tensor(change[: len(query)]).to(support)
        return (probability + 1e-3 * (support.mean() / 2).tanh() * amount).log()

    return classify


def _losers_trade(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Returns logits whose winner keeps its probability, while the other classes trade by where the embeddings lie."""
    probability = _sound_ridge(support, labels, query, n_way).softmax(-1)
    amount = torch.zeros_like(probability).scatter(1, probability.argsort(1)[:, :1], -1.0)
    amount = amount.scatter(1, probability.argsort(1)[:, 1:2], 1.0)
    return (probability + 1e-3 * (support.mean() / 2).tanh() * amount).log()


def _digits(query: Tensor) -> Tensor:
    """Returns a number from -1 to 1 for each query that any move changes beyond recognition [M, 1]."""
    return (1e7 * query @ torch.arange(2, 2 + query.shape[1]).to(query).sqrt()).sin()[:, None]


def _by_digits(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Draws the winner of each query from the digits of its embedding."""
    return -9 * (torch.arange(n_way) - n_way * (_digits(query) + 1) / 2 + 0.5).abs()


def _temper_by_digits(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Multiplies sound logits by a factor from the digits of the query: no winner changes."""
    return (6 + 5 * _digits(query)) * _sound_ridge(support, labels, query, n_way)


def _slots_by_digits(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Lets classes exchange their logits by the digits of the query: sorted, the probabilities stay as they are."""
    steep = torch.arange(2, 2 + query.shape[1] * n_way).to(query).sqrt().view(-1, n_way)
    order = (1e7 * query @ steep).sin().argsort(1)  # one of N! orders: some query changes its order with any move
    return _sound_ridge(support, labels, query, n_way).gather(1, order)


def _a_temperature(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Multiplies sound logits by a factor that depends on where the support lies: no winner changes."""
    where = (support.mean(0) - 1.5).tanh()[torch.arange(len(query)) % support.shape[1]]
    return (6 + 5 * where)[:, None] * _sound_ridge(support, labels, query, n_way)


def _common_offset(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Adds the same number to all logits of the task: no probability changes."""
    return _sound_ridge(support, labels, query, n_way) + support.mean()


def _offset_of_the_query(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Adds to all logits of a query a number of its own: no probability changes."""
    return _sound_ridge(support, labels, query, n_way) + query.tanh().mean(1, keepdim=True)


def _rows_levelled(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Takes off each row's own mean, so that moving all features equally far changes nothing; then there is no bias."""
    support, query = (z - z.mean(1, keepdim=True) for z in (support, query))
    return _no_bias(support, labels, query, n_way)


def _all_centred_but(which: int) -> Classify:
    """Returns a head that centres every feature but one."""

    def classify(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        centre = support.mean(0) * (torch.arange(support.shape[1]) != which)
        return _no_bias(support - centre, labels, query - centre, n_way)

    return classify


def _query_left_behind(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    weight, _ = ridge_head(support, labels, n_way, 1.0)
    return query @ weight.T


def _by_the_first_row(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Centres by the first row if it is of class 0, otherwise not at all: the order of the support decides."""
    centre = support[0] if labels[0] == 0 else 0 * support[0]
    return _no_bias(support - centre, labels, query - centre, n_way)


def _shift_cases(generator: Generator) -> list[Case]:
    support, labels, n_way = _task(generator, [2, 3, 2])
    query = torch.randn(6, 5, generator=generator).double() + 1.5
    support = support.double()
    order = torch.cat([(labels != 0).nonzero()[:, 0], (labels == 0).nonzero()[:, 0]])
    last = (support[order], labels[order], query, n_way)  # a row of class 1 or 2 comes first
    given = (support, labels, query, n_way)
    far = (support + 1000, labels, query + 1000, n_way)
    first, final = (query[i] - support.mean(0) for i in (0, -1))
    names = ("first", "second", "third", "fourth", "last")
    return [
        Case("ridge regression with a free bias", (_sound_ridge, *given)),
        Case("minus squared distances to class means", (_sound_distances, *given)),
        Case("the same as a linear layer, w = 2c and b = -|c|^2", (_sound_linear, *given)),
        Case("minus the distance to the nearest support row", (_sound_nearest, *given)),
        Case("a sound head, and the same number added to all logits", (_common_offset, *given)),
        Case("a sound head, and a number for each query added to its logits", (_offset_of_the_query, *given)),
        Case("minus squared distances, for embeddings that lie far from the origin", (_sound_distances, *far)),
        Case("ridge regression whose bias is penalised a little", (_penalised_ones, *given)),
        Case("a little of a head without a bias", (_slightly(_no_bias), *given)),
        Case("a little of cosines to class means", (_slightly(_cosines), *given)),
        Case("a small fault in the last class", (_slightly(_one_class_without), *given)),
        Case("a small fault in the first query only", (_one_query_without(first), *given)),
        Case("a small fault in the last query only", (_one_query_without(final), *given)),
        Case("what one query gains another loses", (_trading([[1.0, -0.5, -0.5], [-1.0, 0.5, 0.5]]), *given)),
        Case("two classes trade, the first keeps its own", (_trading([[0.0, 1.0, -1.0]] * 6), *given)),
        Case("two classes trade, the last keeps its own", (_trading([[1.0, -1.0, 0.0]] * 6), *given)),
        Case("the classes that lose trade, the winner keeps its own", (_losers_trade, *given)),
        Case("winners drawn from the digits of the embeddings", (_by_digits, *given)),
        Case("a temperature drawn from the digits of the embeddings", (_temper_by_digits, *given)),
        Case("classes exchanged by the digits of the embeddings", (_slots_by_digits, *given)),
        Case("a temperature that depends on where the support lies", (_a_temperature, *given)),
        Case("a small fault that feels no move common to all features", (_slightly(_rows_levelled), *given)),
        *(
            Case(f"a small fault in the {name} feature only", (_slightly(_all_centred_but(i)), *given))
            for i, name in enumerate(names)
        ),
        Case("a small fault: queries that nobody centres", (_slightly(_query_left_behind), *given)),
        Case("a small fault where the first row is not of class 0", (_slightly(_by_the_first_row), *last)),
        Case("a small fault for queries that are no support pictures", (_new_pictures_only, *given)),
    ]


def _global(z: Tensor) -> list[Tensor]:
    """Draws one move as most learners do: from the global generator, in the dtype of the embeddings."""
    return [torch.randn(z.shape[1], dtype=z.dtype)]


def _unit_moves(z: Tensor) -> list[Tensor]:
    return list(torch.eye(z.shape[1], dtype=z.dtype))


def _all_changed(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() > 1e-6).all())


def _in_float32(f: Classify, z: Tensor, y: Tensor, q: Tensor, n: int) -> bool:
    return feels_a_shift(f, z.float(), y, q.float(), n)


def _every_move(
    detector_moves: Callable[[Tensor], list[Tensor]],
) -> Callable[[Classify, Tensor, Tensor, Tensor, int], bool]:
    """Returns a detector that rings only if each of its moves makes a difference."""

    def detector(classify: Classify, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
        each = [_compared(moves=lambda z, m=m: [m]) for m in detector_moves(support)]
        return all(one(classify, support, labels, query, n_way) for one in each)

    return detector


def _drawn(seed: int, scale: float = 1.0) -> Callable[[Tensor], list[Tensor]]:
    """Returns a way to draw one move, as many learners do."""
    return lambda z: [scale * torch.randn(z.shape[1], generator=torch.Generator().manual_seed(seed), dtype=z.dtype)]


def _without_feature(which: int) -> Callable[[Tensor], list[Tensor]]:
    return lambda z: [v * (torch.arange(len(v)) != which % len(v)) for v in _drawn(0, 2.0)(z)]


SHIFT = Exercise(
    id="12.4",
    title="Bug hunt: does a head feel a shift?",
    reference=feels_a_shift,
    cases=_shift_cases,
    right=(
        _compared(),
        _compared(read=lambda v: v.softmax(-1)),
        _shift_by_gaps,
        _shift_one_feature_at_a_time,
        _shift_to_the_origin,
    ),
    wrong=(
        Wrong(
            "raw logits",
            _compared(read=lambda v: v),
            "logits are compared as they are: a linear layer with w = 2c and b = -|c|^2 adds the same number to all classes of a "
            "query, which a softmax does not see",
            "Compare `.softmax(-1)` of both.",
        ),
        Wrong(
            "wrong axis",
            _compared(read=lambda v: v.softmax(0)),
            "what all queries share is taken off: a softmax over the classes takes off what all classes of a query share",
            "The classes are the last axis: `.softmax(-1)`.",
        ),
        Wrong(
            "winners",
            _compared(read=lambda v: v.argmax(-1).double()),
            "only the winning classes are compared: a small fault changes probabilities before it changes a winner",
            "Compare the probabilities, `.softmax(-1)`.",
            also=(_compared(read=lambda v: v.argmax(-1).double(), moves=_drawn(0, 100.0)),),
        ),
        Wrong(
            "largest probability",
            _compared(read=lambda v: v.softmax(-1).amax(-1)),
            "only the largest probability of each query is compared",
            "Compare the probabilities of all classes.",
        ),
        Wrong(
            "support only",
            _compared(both=(1.0, 0.0)),
            "only the support moves: even a sound head must feel that",
            "Move both by the same vector: `support + move` and `query + move`.",
        ),
        Wrong(
            "sound heads ring",
            _compared(both=(0.0, 1.0)),
            "even sound heads ring: support and queries do not move by one and the same vector, or no room is left for rounding",
            "Add the same `move` to both, multiply nothing, and compare with `torch.allclose` and `atol=1e-6`.",
        ),
        Wrong(
            "rounding",
            _compared(read=lambda v: v.softmax(-1), moves=_drawn(0, 1e6)),
            "rounding alone makes a sound head ring: the move is very long, the numbers are float32, or no difference is allowed",
            "Keep float64, move by a few units, and compare with `atol=1e-6`.",
            also=(
                _compared(moves=lambda z: [torch.full_like(z[0], 1e9)]),
                _compared(moves=_drawn(0, 1e9)),
                _in_float32,
                lambda f, z, y, q, n: _compared(read=lambda v: v.softmax(-1), moves=_global)(
                    f, z.float(), y, q.float(), n
                ),
            ),
        ),
        Wrong(
            "all features alike",
            _compared(moves=lambda z: [torch.ones_like(z[0])]),
            "every feature moves equally far: a head that levels each row by its own mean does not feel that",
            "Take a vector with different entries, `torch.randn(D)`.",
        ),
        Wrong(
            "a move without a mean",
            _compared(moves=lambda z: [v - v.mean() for v in _drawn(0)(z)]),
            "the entries of the move add up to zero: a fault that hangs on the mean of all features stays hidden",
            "Move by the vector as it is drawn.",
        ),
        Wrong(
            "one feature",
            _compared(moves=lambda z: [F.one_hot(torch.tensor(0), z.shape[1]).to(z)]),
            "only one feature moves: a fault in another one stays hidden",
            "Move all features, each by its own amount.",
            also=(_compared(moves=lambda z: [3 * F.one_hot(torch.tensor(z.shape[1] - 1), z.shape[1]).to(z)]),),
        ),
        Wrong(
            "a feature that stays",
            _compared(moves=_without_feature(0)),
            "one feature never moves: a fault in it stays hidden",
            "Every entry of the move must differ from zero.",
            also=(_compared(moves=_without_feature(1)), _compared(moves=_without_feature(-1))),
        ),
        Wrong(
            "means compared",
            _compared(read=lambda v: v.softmax(-1).mean(0)),
            "the mean over the queries is compared, in which faults cancel",
            "Compare entry by entry.",
        ),
        Wrong(
            "nothing can change",
            _compared(read=lambda v: v.softmax(-1).sum()),
            "what is compared cannot change: the move is zero, or all probabilities are added up or averaged",
            "Move by a vector that is not zero, and compare entry by entry.",
        ),
        Wrong(
            "one query or class",
            _compared(read=lambda v: v[0].softmax(-1)),
            "only one query, or one class, is compared",
            "Compare all of them.",
            also=(
                _compared(read=lambda v: v.softmax(-1)[:, 0]),
                _compared(read=lambda v: v[-1].softmax(-1)),
                _compared(read=lambda v: v.softmax(-1)[:, -1]),
                _compared(read=lambda v: v.softmax(-1)[1:]),
                _compared(read=lambda v: v[0].softmax(-1), moves=_global),
            ),
        ),
        Wrong(
            "support asked",
            lambda f, z, y, q, n: _compared()(f, z, y, z, n),
            "the support is asked about itself, and the queries are not",
            "`classify(support, labels, query, n_way)`.",
        ),
        Wrong(
            "all must change",
            _compared(read=lambda v: v.softmax(-1), differ=_all_changed),
            "all probabilities must change before it rings",
            "One that changes is enough: `.any()`, or the largest difference.",
            also=tuple(
                _compared(read=lambda v: v.softmax(-1), differ=_all_changed, moves=moves)
                for moves in (_drawn(0), _drawn(1), _global)
            ),
        ),
        Wrong(
            "too generous",
            _compared(read=lambda v: v.softmax(-1), differ=lambda a, b: not torch.allclose(a, b, atol=1e-2)),
            "the tolerance is so wide, or the move so small, that small faults pass; or the differences are squared, and small "
            "ones vanish",
            "The embeddings are float64: rounding stays far below `atol=1e-6`; and move by about one unit.",
            also=(
                _compared(
                    read=lambda v: v.softmax(-1),
                    differ=lambda a, b: not torch.allclose(a, b, atol=1e-2),
                    moves=_drawn(0),
                ),
                _compared(read=lambda v: v.softmax(-1), moves=_drawn(0, 1e-6)),
                _compared(read=lambda v: v.softmax(-1), moves=_drawn(0, 1e-3)),
                *(
                    _compared(
                        read=lambda v: v.softmax(-1),
                        differ=lambda a, b: bool((a - b).square().sum() > 1e-6),
                        moves=moves,
                    )
                    for moves in (None, _global)
                ),
            ),
        ),
        Wrong(
            "logits normalised",
            _compared(read=lambda v: F.normalize(v, dim=-1)),
            "logits are divided by their sum or their length: a number that is added to all classes of a query changes these "
            "quotients, though no probability",
            "Compare `.softmax(-1)` of both.",
        ),
        Wrong(
            "sorted",
            _compared(read=lambda v: v.softmax(-1).sort(-1).values),
            "each query's probabilities are sorted, or summed up in an entropy: two classes that exchange them leave no trace",
            "Compare class by class, as the logits come.",
        ),
        Wrong(
            "slots renamed",
            lambda f, z, y, q, n: (
                not torch.allclose(
                    f(z, y, q, n).softmax(-1), f(z, (y + 1) % n, q, n).roll(-1, 1).softmax(-1), rtol=0, atol=1e-6
                )
            ),
            "the slots are renamed and the embeddings stay where they are: another law is tested",
            "Leave the labels alone and move `support` and `query` by one vector.",
        ),
        Wrong(
            "each move must ring",
            _every_move(_unit_moves),
            "it rings only if each of several moves makes a difference: a fault in one feature is felt by some of them only",
            "One move that changes a probability is enough: `any`, not `all`.",
        ),
        Wrong(
            "turned round",
            lambda f, z, y, q, n: not feels_a_shift(f, z, y, q, n),
            "the answer is turned round: True stands where nothing changes",
            "`torch.allclose` is True when all is well: put a `not` in front.",
        ),
    ),
    hints=(
        "Ask twice: with the embeddings as they are, and with one vector added to every row.",
        "A softmax ignores a number that is added to all classes of a query, so compare probabilities.",
        "`move = torch.randn(D).to(support); classify(support + move, labels, query + move, n_way).softmax(-1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 12.5 the dual form


def ridge_from_products(products: Tensor, cross: Tensor, targets: Tensor, l2: float) -> Tensor:
    """Returns the predictions of ridge regression. products XX' [S, S], cross QX' [M, S], targets [S, N] -> [M, N]."""
    return cross @ torch.linalg.solve(products + l2 * torch.eye(len(products), dtype=products.dtype), targets)


def _products_by_inverse(products: Tensor, cross: Tensor, targets: Tensor, l2: float) -> Tensor:
    return cross @ torch.inverse(products + torch.diag(products.new_full((len(products),), l2))) @ targets


def _products_from_the_left(products: Tensor, cross: Tensor, targets: Tensor, l2: float) -> Tensor:
    """Solves for one row of weights over the support for each query, (K + l2 I) a = k, as in a Gaussian process."""
    return torch.linalg.solve(products + l2 * torch.eye(len(products), dtype=products.dtype), cross.T).T @ targets


def _products_by_cholesky(products: Tensor, cross: Tensor, targets: Tensor, l2: float) -> Tensor:
    factor = torch.linalg.cholesky(products + l2 * torch.eye(len(products), dtype=products.dtype))
    return torch.einsum("ms,sn->mn", cross, torch.cholesky_solve(targets, factor))


def _products_query_by_query(products: Tensor, cross: Tensor, targets: Tensor, l2: float) -> Tensor:
    left = products.clone()
    left.diagonal().add_(l2)
    coefficients = torch.linalg.solve(left, targets)
    return torch.stack([(row[:, None] * coefficients).sum(0) for row in cross])


def _product_cases(generator: Generator) -> list[Case]:
    def case(says: str, rows: int, queries: int, columns: int, l2: float, dtype: torch.dtype = torch.float32) -> Case:
        x, q = (torch.randn(n, 7, generator=generator, dtype=dtype) for n in (rows, queries))
        return Case(says, (x @ x.T, q @ x.T, torch.randn(rows, columns, generator=generator, dtype=dtype), l2))

    return [
        case("5 support rows, 3 queries, 2 outputs", 5, 3, 2, 1.0),
        case("one query", 4, 1, 3, 2.0),
        case("as many queries as rows", 4, 4, 4, 0.5),
        case("more rows than features", 9, 2, 3, 3.0),
        case("float64", 6, 4, 2, 0.5, torch.float64),
    ]


def _gradient_arrives(answer: Callable, reference: Callable) -> str | None:
    generator = torch.Generator().manual_seed(8)
    x, q = (torch.randn(rows, 7, generator=generator).double() for rows in (5, 3))
    y, weight = (torch.randn(rows, 2, generator=generator).double() for rows in (5, 3))
    slopes = []
    for function in (reference, answer):
        given = [t.clone().requires_grad_() for t in (x @ x.T, q @ x.T, y)]
        out = function(*given, 0.5)
        total = (out * weight).sum()
        found = torch.autograd.grad(total, given, allow_unused=True) if total.requires_grad else (None, None, None)
        # XX' is symmetric, and a Cholesky factor reads one half of it: so only the sum of both halves counts.
        slopes.append([s if i or s is None else s + s.T for i, s in enumerate(found)])
    names = ("products", "cross", "targets")
    stopped = [name for name, slope in zip(names, slopes[1], strict=True) if slope is None]
    if stopped:
        return f"no gradient flows back to {', '.join(stopped)}."
    for name, ours, theirs in zip(names, *slopes, strict=True):
        if not torch.allclose(ours, theirs.to(ours), rtol=1e-3, atol=1e-4):
            return f"the gradient with respect to {name} is another one."
    return None


PRODUCTS = Exercise(
    id="12.5",
    title="Inner products are enough",
    reference=ridge_from_products,
    cases=_product_cases,
    tolerance=1e-4,
    properties=(Property("gradient reaches products, cross and targets", _gradient_arrives),),
    right=(_products_by_inverse, _products_from_the_left, _products_by_cholesky, _products_query_by_query),
    wrong=(
        Wrong(
            "no solve",
            lambda k, c, y, l2: c @ y,
            "nothing is solved: every support row votes with its inner product",
            "Solve (XX' + l2 I) A = Y first, then multiply by `cross`.",
            also=(
                lambda k, c, y, l2: c @ y / l2,
                lambda k, c, y, l2: c @ y / (1 + l2),
                lambda k, c, y, l2: c / c.sum(1, keepdim=True) @ y,
                lambda k, c, y, l2: c @ y / (k.diagonal().mean() + l2),
            ),
        ),
        Wrong(
            "diagonal only",
            lambda k, c, y, l2: (c / (k.diagonal() + l2)) @ y,
            "only the diagonal of the matrix is used: every support row answers as if it were alone",
            "Solve with the whole matrix, `torch.linalg.solve(A, Y)`.",
        ),
        Wrong(
            "primal on products",
            lambda k, c, y, l2: c @ ridge_weights(k, y, l2),
            "the products are taken for rows of features and multiplied once more, as in exercise 12.1",
            "XX' is there already: solve (products + l2 I) A = Y.",
            also=(lambda k, c, y, l2: c @ k @ torch.linalg.solve(k + l2 * torch.eye(len(k), dtype=k.dtype), y),),
        ),
        Wrong(
            "targets centred",
            lambda k, c, y, l2: ridge_from_products(k, c, y - y.mean(0), l2) + y.mean(0),
            "the targets are centred, as for a bias",
            "There is no bias in this exercise.",
            also=(lambda k, c, y, l2: ridge_from_products(k, c, y - y.mean(0), l2),),
        ),
        Wrong(
            "kernel normalised",
            lambda k, c, y, l2: ridge_from_products(
                k / k.diagonal().sqrt() / k.diagonal().sqrt()[:, None], c / k.diagonal().sqrt(), y, l2
            ),
            "the products are divided by lengths, so cosines are solved",
            "Take the products as they are.",
        ),
        Wrong(
            "lambda elsewhere",
            lambda k, c, y, l2: (c + l2) @ torch.linalg.solve(k + l2 * torch.eye(len(k), dtype=k.dtype), y),
            "`l2` is added to `cross` or to the predictions",
            "`l2` stands on the diagonal of `products` and nowhere else.",
            also=(
                lambda k, c, y, l2: c @ torch.linalg.pinv(k) @ y + l2,
                lambda k, c, y, l2: c @ torch.linalg.inv(k) @ y + l2,
                lambda k, c, y, l2: ridge_from_products(k, c, y, l2) + l2,
                lambda k, c, y, l2: (c + l2) @ torch.linalg.pinv(k) @ y,
            ),
        ),
        Wrong(
            "no penalty",
            lambda k, c, y, l2: c @ torch.linalg.pinv(k) @ y,
            "the penalty is left out",
            "Add `l2` on the diagonal of `products`.",
            also=(lambda k, c, y, l2: c @ torch.linalg.solve(k + 1e-6 * torch.eye(len(k), dtype=k.dtype), y),),
        ),
        Wrong(
            "on every entry",
            lambda k, c, y, l2: c @ torch.linalg.solve(k + l2, y),
            "`l2` is added to every inner product, not to the diagonal alone",
            "`l2 * torch.eye(S)`.",
        ),
        Wrong(
            "minus",
            lambda k, c, y, l2: c @ torch.linalg.solve(k - l2 * torch.eye(len(k), dtype=k.dtype), y),
            "the penalty is subtracted",
            "`+ l2` on the diagonal.",
        ),
        Wrong(
            "multiplied by the matrix",
            lambda k, c, y, l2: c @ (k + l2 * torch.eye(len(k), dtype=k.dtype)) @ y,
            "the matrix is multiplied where its inverse is wanted",
            "`torch.linalg.solve(A, Y)`.",
        ),
        Wrong(
            "reciprocals",
            lambda k, c, y, l2: c @ (k + l2 * torch.eye(len(k), dtype=k.dtype)).reciprocal() @ y,
            "every entry is inverted by itself: the reciprocal of a matrix's entries is not its inverse",
            "`torch.linalg.solve(A, Y)`.",
        ),
        Wrong(
            "transposed",
            lambda k, c, y, l2: ridge_from_products(k, c, y, l2).T,
            "the result is transposed: one row for each output",
            "One row for each query: [M, N].",
        ),
        Wrong(
            "coefficients",
            lambda k, c, y, l2: torch.linalg.solve(k + l2 * torch.eye(len(k), dtype=k.dtype), y),
            "the coefficients of the support rows are returned: the queries are never asked",
            "Multiply by `cross` in front.",
        ),
        Wrong(
            "fitted values",
            lambda k, c, y, l2: k @ torch.linalg.solve(k + l2 * torch.eye(len(k), dtype=k.dtype), y),
            "the predictions are those of the support rows, not of the queries",
            "Multiply by `cross`, not by `products`.",
        ),
        Wrong(
            "doubled penalty",
            lambda k, c, y, l2: ridge_from_products(k, c, y, 2 * l2),
            "the penalty is doubled, halved, squared, or multiplied by the number of rows",
            "`l2` itself stands on the diagonal.",
            also=(
                lambda k, c, y, l2: ridge_from_products(k, c, y, l2 / 2),
                lambda k, c, y, l2: ridge_from_products(k, c, y, l2 * len(k)),
                lambda k, c, y, l2: ridge_from_products(k, c, y, l2**2),
                lambda k, c, y, l2: ridge_from_products(k, c, y, 1.0),
            ),
        ),
        Wrong(
            "attention",
            lambda k, c, y, l2: c.softmax(-1) @ y,
            "the inner products go through a softmax: attention over the support, as in lesson 04",
            "Ridge regression solves a linear system; there is no softmax.",
            also=(lambda k, c, y, l2: (c / l2).softmax(-1) @ y,),
        ),
        Wrong(
            "winners",
            lambda k, c, y, l2: F.one_hot(ridge_from_products(k, c, y, l2).argmax(1), y.shape[1]).to(y),
            "the winning class of each query is returned, not the outputs",
            "Return the outputs of the regression as they are, [M, N].",
            also=(lambda k, c, y, l2: ridge_from_products(k, c, y, l2).argmax(1),),
        ),
        Wrong(
            "averaged",
            lambda k, c, y, l2: ridge_from_products(k, c, y, l2) / len(k),
            "the predictions are divided by the number of rows",
            "Every row of the support adds its share: no division by S.",
        ),
        Wrong(
            "counted by the queries",
            lambda k, c, y, l2: c @ torch.linalg.solve(k + l2 * torch.eye(len(c), dtype=k.dtype), y),
            "the identity has M rows, or `cross` is transposed: queries and support have changed places",
            "`torch.eye(len(products))`, and `cross` [M, S] as it comes, in front.",
            also=(lambda k, c, y, l2: c.T @ torch.linalg.solve(k + l2 * torch.eye(len(k), dtype=k.dtype), y),),
        ),
        Wrong(
            "softmax at the end",
            lambda k, c, y, l2: ridge_from_products(k, c, y, l2).softmax(-1),
            "the predictions go through a softmax",
            "Return the outputs of the regression as they are.",
        ),
        Wrong(
            "detached",
            lambda k, c, y, l2: ridge_from_products(k, c.detach(), y, l2),
            "an argument, or the result, is cut off from the graph",
            "No `.detach()`, no `no_grad`, no NumPy: `torch.linalg.solve` has a gradient.",
            also=(
                lambda k, c, y, l2: ridge_from_products(k, c, y.detach(), l2),
                lambda k, c, y, l2: ridge_from_products(k.detach(), c, y, l2),
                lambda k, c, y, l2: ridge_from_products(k.detach(), c, y.detach(), l2),
                lambda k, c, y, l2: ridge_from_products(k, c, y, l2).detach(),
            ),
        ),
    ),
    hints=(
        "W = X'A with A = (XX' + l2 I)^-1 Y. What is Q W?",
        "Q W = Q X' A, and Q X' is `cross`.",
        "`cross @ torch.linalg.solve(products + l2 * torch.eye(S, dtype=products.dtype), targets)`",
    ),
)

EXERCISES = (WEIGHTS, HEAD, WRITER, SHIFT, PRODUCTS)
