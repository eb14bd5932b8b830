"""Exercises of lesson 03: pairs, log-odds, two losses, two detectors, a pair sampler, semi-hard negatives, the whole method.

Cases: every exercise builds its own. The detectors 03.5 and 03.8 get implementations as arguments and must return True for the
broken ones only.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong
from fsl_classroom.exercises.encoders import small_encoder, teaches_encoder

# ---------------------------------------------------------------------------------------------- 03.1 all pairs

Pairs = tuple[Tensor, Tensor, Tensor]


def all_pairs(labels: Tensor) -> Pairs:
    """Returns every unordered pair of rows. labels [B] -> first [P], second [P], same bool [P]; P = B(B-1)/2."""
    first, second = torch.triu_indices(len(labels), len(labels), 1)
    return first, second, labels[first] == labels[second]


def _pairs_loop(labels: Tensor) -> Pairs:
    found = [(i, j) for i in range(len(labels)) for j in range(i + 1, len(labels))]
    first, second = torch.tensor(found).T
    return first, second, torch.tensor([bool(labels[i] == labels[j]) for i, j in found])


def _pairs_by_combinations(labels: Tensor) -> Pairs:
    first, second = torch.combinations(torch.arange(len(labels)), 2).unbind(1)
    return first, second, labels[first].eq(labels[second])


def _pairs_from_table(labels: Tensor) -> Pairs:
    """Takes the pairs from the other triangle of the table, because a pair has no order."""
    first, second = torch.ones(len(labels), len(labels)).tril(-1).nonzero().unbind(1)
    return first, second, labels[first] == labels[second]


def _pairs_by_itertools(labels: Tensor) -> Pairs:
    found = torch.tensor([*combinations(range(len(labels)), 2)])
    return found[:, 1], found[:, 0], (labels[found[:, 0]] - labels[found[:, 1]]) == 0


def _pairs_of_labels(labels: Tensor) -> Pairs:
    one, other = torch.combinations(labels, 2).unbind(1)
    return one, other, one == other


def _pairs_where(keep: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Pairs]:
    """Returns the pairs where the table keep(equal [B, B], difference of positions [B, B]) is True."""

    def pairs(labels: Tensor) -> Pairs:
        row = torch.arange(len(labels))
        first, second = keep(labels[:, None] == labels, row - row[:, None]).nonzero().unbind(1)
        return first, second, labels[first] == labels[second]

    return pairs


def _same_pairs(got: Pairs, expected: Pairs) -> str | None:
    """Compares pairs regardless of their order and of the order within a pair. Returns None if they agree, or what is wrong."""
    wanted = {(min(i, j), max(i, j)): bool(s) for i, j, s in zip(*(t.tolist() for t in expected), strict=True)}
    seen = [(min(i, j), max(i, j)) for i, j in zip(got[0].tolist(), got[1].tolist(), strict=True)]
    if len(set(seen)) < len(seen):
        return f"{len(seen) - len(set(seen))} of {len(seen)} pairs occur twice."
    if strange := [pair for pair in seen if pair not in wanted]:
        return f"Rows {strange[0]} are no pair of two different rows."
    wrong = [pair for pair, s in zip(seen, got[2].tolist(), strict=True) if s != wanted[pair]]
    return f"`same` is wrong for {len(wrong)} of {len(seen)} pairs, e.g. rows {wrong[0]}." if wrong else None


def _pair_cases(generator: Generator) -> list[Case]:
    return [
        Case("the example on paper", (torch.tensor([0, 1, 0, 1]),)),
        Case("3 classes, unequal shots, in mixed order", (torch.tensor([2, 0, 1, 2, 2, 0]),)),
        Case("5 classes of 4 pictures", (torch.arange(20)[torch.randperm(20, generator=generator)] % 5,)),
        Case("two pictures of one class", (torch.tensor([3, 3]),)),
        Case("one picture of each class", (torch.tensor([1, 0, 2]),)),
    ]


ALL_PAIRS = Exercise(
    id="03.1",
    title="All pairs",
    reference=all_pairs,
    cases=_pair_cases,
    same=_same_pairs,
    right=(_pairs_loop, _pairs_by_combinations, _pairs_from_table, _pairs_by_itertools),
    wrong=(
        Wrong(
            "labels in place of rows",
            _pairs_of_labels,
            "the labels of the two pictures are returned where their row numbers are asked for",
            "Pair the numbers 0 to B − 1; the labels only decide `same`.",
        ),
        Wrong(
            "last row forgotten",
            _pairs_where(lambda equal, gap: (gap > 0) & (torch.arange(len(gap)) < len(gap) - 1)),
            "the last picture is paired with nobody: a loop ends one row too early",
            "`range(i + 1, len(labels))` reaches the last row.",
        ),
        Wrong(
            "itself too",
            _pairs_where(lambda equal, gap: gap >= 0),
            "every picture is also paired with itself: B pairs too many, all of them easy",
            "`torch.triu_indices(B, B, 1)`: the 1 leaves out the diagonal.",
        ),
        Wrong(
            "both orders",
            _pairs_where(lambda equal, gap: gap != 0),
            "every pair is listed twice, as (i, j) and as (j, i)",
            "Keep first < second.",
        ),
        Wrong(
            "full table",
            _pairs_where(lambda equal, gap: gap == gap),
            "the whole table [B, B] is listed: every pair twice, and every picture with itself",
            "Keep first < second.",
        ),
        Wrong(
            "neighbours",
            _pairs_where(lambda equal, gap: gap == 1),
            "only neighbouring rows are paired",
            "Every row meets every later row.",
        ),
        Wrong(
            "neighbours left out",
            _pairs_where(lambda equal, gap: gap > 1),
            "neighbouring rows are never paired: the diagonal is left out, and the one beside it too",
            "`torch.triu_indices(B, B, 1)` leaves out the diagonal only.",
        ),
        Wrong(
            "equal pairs only",
            _pairs_where(lambda equal, gap: equal & (gap > 0)),
            "only pairs of one class are kept: there is nothing left to tell apart",
            "Keep all pairs; `same` says which are equal.",
        ),
        Wrong(
            "turned round",
            lambda labels: (*all_pairs(labels)[:2], ~all_pairs(labels)[2]),
            "`same` is True for pairs of two classes",
            "`labels[first] == labels[second]`.",
        ),
        Wrong(
            "rows compared",
            lambda labels: (*all_pairs(labels)[:2], torch.eq(*all_pairs(labels)[:2])),
            "the row numbers are compared in place of their labels: no pair is ever equal",
            "`labels[first] == labels[second]`.",
        ),
        Wrong(
            "numbers",
            lambda labels: (*all_pairs(labels)[:2], all_pairs(labels)[2].float()),
            "`same` holds numbers, 0 and 1, in place of False and True",
            "A comparison gives bool already: no `.float()` or `.long()` here.",
            also=(lambda labels: (*all_pairs(labels)[:2], all_pairs(labels)[2].long()),),
        ),
    ),
    hints=(
        "In a table of all rows against all rows, which part holds every pair once?",
        "`torch.triu_indices(B, B, 1)` lists the upper triangle without the diagonal.",
        "`first, second = torch.triu_indices(len(labels), len(labels), 1)`, then compare their labels.",
    ),
)

# ---------------------------------------------------------------------------------------------- 03.2 log-odds


def log_odds(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns sum_j weight_j |a_j - b_j| + bias for all rows. a [M, D], b [S, D], weight [D], bias scalar -> [M, S]."""
    return (a[:, None] - b).abs() @ weight + bias


def _log_odds_loop(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.stack([((a - row).abs() * weight).sum(1) + bias for row in b], dim=1)


def _log_odds_cdist(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    plus, minus = weight.clamp_min(0), (-weight).clamp_min(0)
    return torch.cdist(a * plus, b * plus, p=1) - torch.cdist(a * minus, b * minus, p=1) + bias


def _log_odds_linear(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    difference = torch.abs(a.unsqueeze(1) - b.unsqueeze(0))
    return F.linear(difference, weight[None], bias[None]).squeeze(-1)


def _log_odds_filled(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Fills a float32 table entry by entry, whatever the inputs are."""
    table = torch.zeros(len(a), len(b))
    for m in range(len(a)):
        for s in range(len(b)):
            table[m, s] = torch.dot(weight, torch.abs(a[m] - b[s])) + bias
    return table


def _log_odds_repeated(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    one, other = a.repeat_interleave(len(b), 0), b.repeat(len(a), 1)
    larger, smaller = torch.maximum(one, other), torch.minimum(one, other)
    return (torch.einsum("pd,d->p", larger - smaller, weight) + bias).reshape(len(a), len(b))


def _log_odds_cases(generator: Generator) -> list[Case]:
    def draw(rows: int, others: int, features: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sizes = (rows, features), (others, features), (features,), ()
        return tuple(torch.randn(size, generator=generator) for size in sizes)

    query, support = torch.tensor([[1.0, 1.0], [3.0, 1.0]]), torch.tensor([[0.0, 1.0], [3.0, 3.0], [2.0, 1.0]])
    return [
        Case("the example on paper", (query, support, torch.tensor([-1.0, -2.0]), torch.tensor(3.0))),
        Case("7 queries, 3 support pictures, weights of both signs", draw(7, 3)),
        Case("one query", draw(1, 4)),
        Case("as many queries as support pictures as features", draw(4, 4, 4)),
        Case("float64", tuple(t.double() for t in draw(3, 2))),
    ]


def _odds(body: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Returns a wrong answer: body(differences [M, S, D], weight, bias)."""
    return lambda a, b, weight, bias: body(a[:, None] - b, weight, bias)


LOG_ODDS = Exercise(
    id="03.2",
    title="Log-odds of a pair",
    reference=log_odds,
    cases=_log_odds_cases,
    gradient=(0, 1, 2, 3),
    right=(_log_odds_loop, _log_odds_cdist, _log_odds_linear, _log_odds_filled, _log_odds_repeated),
    wrong=(
        Wrong(
            "no absolute value",
            _odds(lambda d, w, b: (d * w).sum(-1) + b),
            "the differences keep their sign, so that plus and minus cancel and the order of the two pictures matters",
            "`.abs()` on the difference, before the weights.",
        ),
        Wrong(
            "weights inside",
            _odds(lambda d, w, b: (d * w).abs().sum(-1) + b),
            "the absolute value is taken after the weights: their sign is lost, and a distance can only raise the odds",
            "Absolute difference first, times the weight then.",
        ),
        Wrong(
            "minus once more",
            _odds(lambda d, w, b: b - d.abs() @ w),
            "the weighted sum is subtracted from the bias, though the minus sign sits in the weights already",
            "Add: `difference @ weight + bias`. Trained weights are negative by themselves.",
        ),
        Wrong(
            "Euclidean distance",
            _odds(lambda d, w, b: (d.square() * w.abs()).sum(-1).add(1e-12).sqrt() + b),
            "a Euclidean distance is taken: squares, their sum, a root",
            "`.abs()` in place of squares, and no root.",
            also=(
                _odds(lambda d, w, b: b - (d.square() * w.abs()).sum(-1).add(1e-12).sqrt()),
                _odds(lambda d, w, b: d.square().sum(-1).add(1e-12).sqrt() + b),
                lambda a, b, weight, bias: torch.cdist(a, b) * weight.sum() + bias,
                _odds(lambda d, w, b: (d * w).square().sum(-1).add(1e-12).sqrt() + b),
            ),
        ),
        Wrong(
            "dot product",
            lambda a, b, weight, bias: (a * weight) @ b.T + bias,
            "the embeddings are multiplied with each other: that is a similarity by dot product, not a distance",
            "Subtract: `a[:, None] - b`.",
        ),
        Wrong(
            "one weight for all",
            _odds(lambda d, w, b: d.abs().sum(-1) * w.sum() + b),
            "the differences are summed before they meet their weights, so every feature gets the same one",
            "Each |a_j − b_j| has its own weight_j: `difference @ weight`.",
            also=(_odds(lambda d, w, b: d.abs().sum(-1) * w.mean() + b),),
        ),
        Wrong(
            "absolute value of the sum",
            _odds(lambda d, w, b: (d * w).sum(-1).abs() + b),
            "the sum is taken before the absolute value",
            "Absolute value of every single difference, then the weighted sum.",
            also=(_odds(lambda d, w, b: ((d * w).sum(-1) + b).abs()),),
        ),
        Wrong(
            "squares",
            _odds(lambda d, w, b: (d.square() * w).sum(-1) + b),
            "the differences are squared",
            "`.abs()` in place of `.square()`.",
            also=(_odds(lambda d, w, b: b - (d.square() * w).sum(-1)), _odds(lambda d, w, b: d.square().sum(-1) + b)),
        ),
        Wrong(
            "no bias",
            _odds(lambda d, w, b: (d.abs() * w).sum(-1)),
            "the bias is left out: two identical pictures get log-odds 0, a probability of one half",
            "Add `bias` once, at the end.",
        ),
        Wrong(
            "a bias for each feature",
            _odds(lambda d, w, b: (d.abs() * w + b).sum(-1)),
            "the bias is added before the sum, D times",
            "Sum over the features first, add `bias` then.",
        ),
        Wrong(
            "no weights",
            _odds(lambda d, w, b: b - d.abs().sum(-1)),
            "every feature counts the same: the weights are not used",
            "Multiply each |a_j − b_j| by weight_j.",
            also=(_odds(lambda d, w, b: d.abs().sum(-1) + b), _odds(lambda d, w, b: b - d.abs().mean(-1))),
        ),
        Wrong(
            "mean",
            _odds(lambda d, w, b: (d.abs() * w).mean(-1) + b),
            "the features are averaged, which divides every distance by D",
            "`.sum(-1)`.",
        ),
        Wrong(
            "probabilities",
            _odds(lambda d, w, b: torch.sigmoid((d.abs() * w).sum(-1) + b)),
            "the sigmoid is taken already here",
            "Return log-odds; the loss takes the sigmoid, together with the logarithm.",
        ),
        Wrong(
            "transposed",
            lambda a, b, weight, bias: log_odds(b, a, weight, bias),
            "the table is transposed: [S, M]",
            "A row for each row of `a`: `a[:, None] - b`.",
        ),
        Wrong(
            "detached",
            lambda a, b, weight, bias: log_odds(a, b.detach(), weight, bias),
            "the second picture is cut off from the graph: only one of the twins learns",
            "Both pictures pass the same encoder, and gradient flows through both.",
        ),
    ),
    hints=(
        "One table [M, S]: a row for each row of a, a column for each row of b.",
        "`(a[:, None] - b).abs()` is [M, S, D]; its product with `weight` sums over D.",
        "`(a[:, None] - b).abs() @ weight + bias`",
    ),
)

# ---------------------------------------------------------------------------------------------- 03.3 the balanced loss


def pair_loss(log_odds: Tensor, same: Tensor) -> Tensor:
    """Returns half the mean cross-entropy of equal pairs plus half that of unequal ones. [P], bool [P] -> scalar."""
    losses = F.binary_cross_entropy_with_logits(log_odds, same.to(log_odds.dtype), reduction="none")
    return 0.5 * losses[same].mean() + 0.5 * losses[~same].mean()


def _pair_loss_softplus(log_odds: Tensor, same: Tensor) -> Tensor:
    return (F.softplus(-log_odds[same]).mean() + F.softplus(log_odds[~same]).mean()) / 2


def _pair_loss_weights(log_odds: Tensor, same: Tensor) -> Tensor:
    target = same.to(log_odds.dtype)
    weight = torch.where(same, 0.5 / target.sum(), 0.5 / (1 - target).sum())
    return F.binary_cross_entropy_with_logits(log_odds, target, weight=weight, reduction="sum")


def _pair_loss_logsigmoid(log_odds: Tensor, same: Tensor) -> Tensor:
    sign = same.to(log_odds.dtype) * 2 - 1
    losses = -F.logsigmoid(sign * log_odds)
    return losses[same].sum() / same.sum() / 2 + losses[~same].sum() / (~same).sum() / 2


def _pair_loss_float32(log_odds: Tensor, same: Tensor) -> Tensor:
    equal = F.binary_cross_entropy_with_logits(log_odds[same], torch.ones(int(same.sum())))
    unequal = F.binary_cross_entropy_with_logits(log_odds[~same], same[~same].float())
    return torch.stack([equal, unequal]).mean()


def _pair_loss_loop(log_odds: Tensor, same: Tensor) -> Tensor:
    zero = torch.tensor(0.0)
    kinds: dict[bool, list[Tensor]] = {True: [], False: []}
    for s, equal in zip(log_odds, same.tolist(), strict=True):
        kinds[equal].append(torch.logaddexp(zero, -s if equal else s))
    return sum(sum(kind) / len(kind) for kind in kinds.values()) / 2


def _pair_loss_by_hand(log_odds: Tensor, same: Tensor) -> Tensor:
    t = same.float()
    losses = log_odds.clamp(min=0) - log_odds * t + torch.log1p(torch.exp(-log_odds.abs()))
    return 0.5 * (t @ losses) / t.sum() + 0.5 * ((1 - t) @ losses) / (1 - t).sum()


def _pair_loss_cases(generator: Generator) -> list[Case]:
    def draw(equal: int, unequal: int) -> tuple[Tensor, Tensor]:
        same = torch.tensor([True] * equal + [False] * unequal)
        return 3 * torch.randn(equal + unequal, generator=generator), same[
            torch.randperm(len(same), generator=generator)
        ]

    paper = torch.tensor([2.0, -1.0, 1.0, 0.5]), torch.tensor([True, False, False, False])
    return [
        Case("four pairs, one of them equal", paper),
        Case("3 equal and 9 unequal pairs, mixed", draw(3, 9)),
        Case("more equal pairs than unequal ones", draw(6, 2)),
        Case("one pair of each kind", draw(1, 1)),
    ]


def _surely_wrong() -> tuple[Tensor, Tensor]:
    return torch.tensor([-200.0, 200.0], requires_grad=True), torch.tensor([True, False])


def _survives_certainty(answer: Callable, reference: Callable) -> str | None:
    log_odds, same = _surely_wrong()
    loss = float(answer(log_odds, same))
    if abs(loss - 200) < 1e-2:
        return None
    kinds = ((loss != loss, "NaN"), (loss == float("inf"), "infinity"), (90 < loss < 110, "the 100 of a cut logarithm"))
    told = next((words for holds, words in kinds if holds), "too little" if loss < 200 else "too much")
    return f"two pairs that are surely wrong cost {told}: {loss:.4g}; the true loss is 200."


def _pulls_when_certain(answer: Callable, reference: Callable) -> str | None:
    log_odds, same = _surely_wrong()
    loss = answer(log_odds, same)
    slope = torch.autograd.grad(loss, log_odds)[0] if loss.requires_grad else torch.zeros(2)
    if bool((slope - torch.tensor([-0.5, 0.5])).abs().max() < 1e-3):
        return None
    return f"its gradient is {[round(g, 3) for g in slope.tolist()]}, not [-0.5, 0.5]: the worst pairs teach nothing."


def _loss_slopes(answer: Callable, reference: Callable) -> str | None:
    """Returns None if the gradient agrees with the reference's. In float32, so that `same.float()` is as good as any."""
    points = [args.args for args in _pair_loss_cases(Generator().manual_seed(4))[1:3]]
    for log_odds, same in points:
        found = []
        for method in (answer, reference):
            leaf = log_odds.clone().requires_grad_()
            loss = method(leaf, same)
            if not loss.requires_grad:
                return "no gradient flows back to the log-odds. Look for a count, .item(), .detach() or no_grad."
            found.append(torch.autograd.grad(loss, leaf)[0])
        if (gap := float((found[0] - found[1]).abs().max())) > 1e-4:
            return f"the gradient is off by up to {gap:.2g}."
    return None


def _from_losses(tail: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns a wrong answer that differs in its last step, tail(losses [P], same [P])."""

    def loss(log_odds: Tensor, same: Tensor) -> Tensor:
        target = same.to(log_odds.dtype)
        return tail(F.binary_cross_entropy_with_logits(log_odds, target, reduction="none"), same)

    return loss


def _log_of_sigmoid(log_odds: Tensor, same: Tensor) -> Tensor:
    p = torch.sigmoid(log_odds)
    return -0.5 * p[same].log().mean() - 0.5 * (1 - p[~same]).log().mean()


def _bce_of_sigmoid(keep: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(log_odds: Tensor, same: Tensor) -> Tensor:
        p = keep(torch.sigmoid(log_odds))
        losses = F.binary_cross_entropy(p, same.to(p.dtype), reduction="none")
        return 0.5 * losses[same].mean() + 0.5 * losses[~same].mean()

    return loss


def _pos_weight(log_odds: Tensor, same: Tensor) -> Tensor:
    ratio = (~same).sum() / same.sum()
    return F.binary_cross_entropy_with_logits(log_odds, same.to(log_odds.dtype), pos_weight=ratio)


PAIR_LOSS = Exercise(
    id="03.3",
    title="A loss that is balanced",
    reference=pair_loss,
    cases=_pair_loss_cases,
    properties=(
        Property("the gradient is that of the formula", _loss_slopes),
        Property("pairs that are surely wrong, at log-odds of -200 and 200, cost 200", _survives_certainty),
        Property("pairs that are surely wrong are pulled back", _pulls_when_certain),
    ),
    right=(
        _pair_loss_softplus,
        _pair_loss_weights,
        _pair_loss_logsigmoid,
        _pair_loss_float32,
        _pair_loss_loop,
        _pair_loss_by_hand,
    ),
    wrong=(
        Wrong(
            "plain mean",
            _from_losses(lambda losses, same: losses.mean()),
            "all pairs weigh the same: the many unequal pairs drown the few equal ones",
            "Average equal and unequal pairs apart, then take half of each mean.",
        ),
        Wrong(
            "masked, then averaged over all",
            _from_losses(lambda losses, same: 0.5 * (losses * same).mean() + 0.5 * (losses * ~same).mean()),
            "each kind's sum is divided by the number of *all* pairs: together that is half the plain mean, not balanced",
            "`losses[same].mean()` divides by the number of equal pairs; a masked product keeps zeros in the mean.",
            also=(_from_losses(lambda losses, same: (losses * same).mean() + (losses * ~same).mean() * 0.5),),
        ),
        Wrong(
            "weighed by the wrong share",
            _from_losses(
                lambda losses, same: (
                    (~same).to(losses.dtype).mean() * losses[same].mean()
                    + same.to(losses.dtype).mean() * losses[~same].mean()
                )
            ),
            "each mean is weighed by the share of the other kind, where both should weigh one half",
            "`0.5 * losses[same].mean() + 0.5 * losses[~same].mean()`.",
        ),
        Wrong(
            "two means added",
            _from_losses(lambda losses, same: losses[same].mean() + losses[~same].mean()),
            "the two means are added without the halves: twice the loss",
            "Half of each mean.",
        ),
        Wrong(
            "sum",
            _from_losses(lambda losses, same: 0.5 * losses[same].sum() + 0.5 * losses[~same].sum()),
            "the pairs of each kind are summed and not averaged",
            "`.mean()` in place of `.sum()`.",
            also=(
                _from_losses(lambda losses, same: losses[same].sum() + losses[~same].sum()),
                _from_losses(lambda losses, same: 0.5 * losses[same].sum() + 0.5 * losses[~same].mean()),
            ),
        ),
        Wrong(
            "pos_weight",
            _pos_weight,
            "`pos_weight` balances the two kinds, but divides by the number of all pairs",
            "Average each kind by itself, then take half of each mean.",
        ),
        Wrong(
            "labels turned round",
            lambda log_odds, same: pair_loss(-log_odds, same),
            "equal pairs are pushed towards log-odds of minus infinity",
            "The target of an equal pair is 1: `same.to(log_odds.dtype)`.",
        ),
        Wrong(
            "minus forgotten",
            lambda log_odds, same: -pair_loss(log_odds, same),
            "the minus is missing: the mean of log p is returned, and training would make it ever more negative",
            "−log p and −log(1 − p): a loss is positive.",
        ),
        Wrong(
            "log p for both kinds",
            lambda log_odds, same: F.softplus(-log_odds[same]).mean() / 2 + F.softplus(-log_odds[~same]).mean() / 2,
            'unequal pairs pay −log p as well: every pair is drawn towards "same"',
            "An unequal pair pays −log(1 − p): its target is 0.",
        ),
        Wrong(
            "squared error",
            lambda log_odds, same: (
                (torch.sigmoid(log_odds[same]) - 1).square().mean() / 2
                + torch.sigmoid(log_odds[~same]).square().mean() / 2
            ),
            "probabilities are compared by squared error, which hardly pulls at a pair that is surely wrong",
            "The formula asks for −log p and −log(1 − p).",
        ),
        Wrong(
            "equal pairs only",
            _from_losses(lambda losses, same: losses[same].mean()),
            'unequal pairs do not count: a net that always answers "same" would win',
            "Half the mean over `same`, half the mean over `~same`.",
            also=(_from_losses(lambda losses, same: 0.5 * losses[same].mean()),),
        ),
        Wrong(
            "log of sigmoid",
            _log_of_sigmoid,
            "the logarithm is taken of a number out of range: a sigmoid that is exactly 0, or an exponential that overflows",
            "`F.binary_cross_entropy_with_logits` does both at once and stays finite.",
        ),
        Wrong(
            "cross-entropy of probabilities",
            _bce_of_sigmoid(lambda p: p),
            "`F.binary_cross_entropy` sees a sigmoid that has become exactly 0: it cuts the logarithm off at −100, and the "
            "gradient dies",
            "Hand the log-odds to `F.binary_cross_entropy_with_logits`.",
        ),
        Wrong(
            "clamped probabilities",
            _bce_of_sigmoid(lambda p: p.clamp(1e-6, 1 - 1e-6)),
            "probabilities are kept away from 0 by a clamp or a small number: the worst pairs cost too little and teach nothing",
            "`F.binary_cross_entropy_with_logits` takes log-odds and needs no clamp.",
            also=(
                _bce_of_sigmoid(lambda p: p.clamp(1e-7, 1 - 1e-7)),
                lambda log_odds, same: (
                    -(torch.sigmoid(log_odds[same]) + 1e-8).log().mean() / 2
                    - (1 - torch.sigmoid(log_odds[~same]) + 1e-8).log().mean() / 2
                ),
            ),
        ),
        Wrong(
            "sigmoid twice",
            lambda log_odds, same: pair_loss(torch.sigmoid(log_odds), same),
            "probabilities go into a function that takes the sigmoid again",
            "Hand it the log-odds as they are.",
        ),
        Wrong(
            "balanced accuracy",
            lambda log_odds, same: (
                0.5 * (log_odds[same] <= 0).to(log_odds.dtype).mean()
                + 0.5 * (log_odds[~same] > 0).to(log_odds.dtype).mean()
            ),
            "mistakes are counted: a count has no gradient",
            "Use the cross-entropy of each pair.",
        ),
    ),
    hints=(
        "What would the mean over 95 unequal pairs and 5 equal ones listen to?",
        '`F.binary_cross_entropy_with_logits(..., reduction="none")` gives one loss for each pair.',
        "`0.5 * losses[same].mean() + 0.5 * losses[~same].mean()`",
    ),
)

# ---------------------------------------------------------------------------------------------- 03.4 contrastive, safe at zero


def contrastive_losses(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
    """Returns d^2 / 2 for equal pairs and max(0, margin - d)^2 / 2 for unequal ones. a, b [P, D], same bool [P] -> [P]."""
    squared = (a - b).square().sum(1)
    distance = squared.clamp_min(1e-12).sqrt()  # clamp_min has gradient 0 below 1e-12, so none is infinite
    return 0.5 * torch.where(same, squared, (margin - distance).clamp_min(0).square())


def _contrastive_norm(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
    distance = torch.linalg.vector_norm(a - b, dim=1)  # has gradient 0 at distance 0
    return torch.where(same, distance**2, F.relu(margin - distance) ** 2) / 2


def _contrastive_epsilon(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
    squared, y = (a - b).square().sum(1), same.to(a.dtype)
    return 0.5 * y * squared + 0.5 * (1 - y) * (margin - (squared + 1e-12).sqrt()).clamp_min(0).square()


def _contrastive_pairwise(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
    distance = F.pairwise_distance(a, b)
    return 0.5 * torch.where(same, distance.square(), (margin - distance).clamp_min(0).square())


def _contrastive_double_where(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
    squared = (a - b).square().sum(1)
    inside = torch.where(squared > 0, squared, 1.0)  # no zero reaches the root
    distance = torch.where(squared > 0, inside.sqrt(), 0.0)
    return 0.5 * torch.where(same, squared, (margin - distance).clamp_min(0).square())


def _contrastive_loop(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
    losses = torch.zeros(len(a))
    for i in range(len(a)):
        if same[i]:
            losses[i] = ((a[i] - b[i]) ** 2).sum() / 2
        else:
            losses[i] = max(margin - torch.dist(a[i], b[i]), torch.tensor(0.0)) ** 2 / 2
    return losses


def _contrastive_cdist(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
    distance = torch.cdist(a, b).diagonal()
    return (same * distance.pow(2) + ~same * torch.relu(margin - distance).pow(2)).mul(0.5)


def _contrastive_cases(generator: Generator) -> list[Case]:
    def draw(count: int, margin: float, features: int = 4) -> tuple[Tensor, Tensor, Tensor, float]:
        a, b = (torch.randn(count, features, generator=generator) for _ in range(2))
        return a, b, torch.rand(count, generator=generator) < 0.5, margin

    a = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    b = torch.tensor([[3.0, 4.0], [3.0, 4.0], [1.0, 4.0]])
    paper = (a, b, torch.tensor([True, False, False]), 4.0)
    return [
        Case("three pairs at distances 5, 5 and 3, margin 4", paper),
        Case("12 pairs, margin 3", draw(12, 3.0)),
        Case("as many pairs as features, margin 2", draw(4, 2.0)),
        Case("one unequal pair", (a[2:], b[2:], torch.tensor([False]), 10.0)),
        Case(
            "pairs nearer than 1, margin 2", (a, a + torch.tensor([0.3, 0.4]), torch.tensor([True, False, False]), 2.0)
        ),
        Case("float64", tuple(t.double() if i < 2 else t for i, t in enumerate(draw(6, 3.0)))),
        Case(
            "two unequal pairs, one on one point, one at distance 0.05; margin 2",
            (a[:2], torch.tensor([[0.0, 0.0], [0.03, 0.04]]), torch.tensor([False, False]), 2.0),
        ),
    ]


def _finite_at_zero(kind: bool) -> Callable[[Callable, Callable], str | None]:
    def holds(answer: Callable, reference: Callable) -> str | None:
        a = torch.tensor([[1.0, 2.0], [0.0, 1.0]], requires_grad=True)
        b = torch.tensor([[1.0, 2.0], [2.0, 0.0]])  # both pictures of the first pair are the same
        losses = answer(a, b, torch.tensor([kind, not kind]), 3.0)
        if not losses.requires_grad:
            return "no gradient flows at all."
        slope = torch.autograd.grad(losses.sum(), a)[0]
        return None if slope.isfinite().all() else f"its gradient is {slope[0].tolist()}."

    return holds


def _slopes_agree(answer: Callable, reference: Callable) -> str | None:
    """Returns None if the gradient of the sum agrees with the reference's in float64, or what is wrong.

    The tolerance admits F.pairwise_distance, which moves every distance by about 1e-6.
    """
    generator = torch.Generator().manual_seed(3)
    points = [torch.randn(8, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    same = torch.arange(8) % 2 == 0
    found = []
    for method in (answer, reference):
        losses = method(*points, same, 3.0)
        if not losses.requires_grad:
            return "no gradient flows back to the embeddings. Is there a detach or a no_grad?"
        slopes = torch.autograd.grad(losses.sum(), points, allow_unused=True)
        if any(slope is None for slope in slopes):
            return "gradient reaches only one of the two pictures."
        found.append(torch.stack(slopes))
    gap = float((found[0] - found[1]).abs().max())
    return None if gap < 1e-4 else f"the gradient of the sum is off by up to {gap:.2g}."


def _near(got: Tensor, expected: Tensor) -> str | None:
    gap = float((got - expected).abs().max())
    return None if gap < 1e-4 * (1 + float(expected.abs().max())) else f"Losses are off by up to {gap:.3g}."


def _contrastive(
    pull: Callable[[Tensor, Tensor], Tensor] = lambda d, m: d.square(),
    push: Callable[[Tensor, Tensor], Tensor] = lambda d, m: (m - d).clamp_min(0).square(),
    half: float = 0.5,
    distance: Callable[[Tensor], Tensor] = lambda squared: squared.clamp_min(1e-12).sqrt(),
) -> Callable[..., Tensor]:
    """Returns the loss with one part replaced."""

    def losses(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
        d = distance((a - b).square().sum(1))
        return half * torch.where(same, pull(d, margin), push(d, margin))

    return losses


def _contrastive_of(measure: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Returns the loss with measure(differences [P, D]) in place of the distance."""

    def losses(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
        d = measure(a - b)
        return 0.5 * torch.where(same, d.square(), (margin - d).clamp_min(0).square())

    return losses


def _contrastive_by_index(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
    squared = (a - b).square().sum(1)
    pushed = (margin - squared[~same].sqrt()).clamp_min(0).square()
    return 0.5 * squared.masked_fill(~same, 0.0).masked_scatter(~same, pushed)


CONTRASTIVE = Exercise(
    id="03.4",
    title="Contrastive losses, safe at zero",
    reference=contrastive_losses,
    cases=_contrastive_cases,
    same=_near,
    properties=(
        Property("the gradient is finite where an equal pair has distance zero", _finite_at_zero(True)),
        Property("the gradient is finite where an unequal pair has distance zero", _finite_at_zero(False)),
        Property("the gradient is that of the formula", _slopes_agree),
    ),
    right=(
        _contrastive_norm,
        _contrastive_epsilon,
        _contrastive_pairwise,
        _contrastive_double_where,
        _contrastive_loop,
        _contrastive_cdist,
    ),
    wrong=(
        Wrong(
            "bare square root",
            _contrastive(distance=lambda squared: squared.sqrt()),
            "a bare square root meets a distance of zero: infinity times zero is NaN, in a branch that `torch.where` drops too",
            "`.clamp_min(1e-12)` before `.sqrt()`.",
        ),
        Wrong(
            "absolute differences",
            _contrastive_of(lambda d: d.abs().sum(1)),
            "absolute differences are summed, as in the weighted L1 of before: this loss wants the Euclidean distance",
            "Square the differences, sum them, take the root.",
            also=(_contrastive_of(lambda d: d.abs().mean(1)),),
        ),
        Wrong(
            "mean over the features",
            _contrastive_of(lambda d: d.square().mean(1).clamp_min(1e-12).sqrt()),
            "the squared differences are averaged over the features: every squared distance is divided by D",
            "`.square().sum(1)`.",
        ),
        Wrong(
            "root forgotten",
            _contrastive_of(lambda d: d.square().sum(1)),
            "the squared distance is used as if it were the distance: equal pairs pay its square once more",
            "The distance is the root of the sum of squares.",
        ),
        Wrong(
            "root for unequal pairs only",
            _contrastive_by_index,
            "the root is taken for unequal pairs only: two drawings of different classes can meet in one point too",
            "`.clamp_min(1e-12)` before `.sqrt()` covers both kinds.",
        ),
        Wrong(
            "equal is zero",
            lambda a, b, same, margin: contrastive_losses(a, b, ~same, margin),
            "equal pairs are pushed apart and unequal ones pulled together; in the paper's equation 4, Y = 0 means equal",
            "Here `same` is True for equal pairs: they get half d².",
        ),
        Wrong(
            "margin on the square",
            _contrastive(push=lambda d, m: (m - d.square()).clamp_min(0)),
            "the margin is compared with the squared distance, as in the triplet loss",
            "max(0, margin − d)²: subtract the distance, then square.",
            also=(
                _contrastive(push=lambda d, m: (m - d.square()).clamp_min(0).square()),
                _contrastive(push=lambda d, m: (m * m - d.square()).clamp_min(0)),
            ),
        ),
        Wrong(
            "hinge turned round",
            _contrastive(push=lambda d, m: (d - m).clamp_min(0).square()),
            "the hinge is turned round: unequal pairs pay when they are *farther* than the margin",
            "max(0, margin − d): near unequal pairs pay.",
        ),
        Wrong(
            "no hinge",
            _contrastive(push=lambda d, m: (m - d).square()),
            "unequal pairs beyond the margin are pulled back to it",
            "`.clamp_min(0)` before the square.",
        ),
        Wrong(
            "hinge not squared",
            _contrastive(push=lambda d, m: (m - d).clamp_min(0)),
            "the hinge of unequal pairs is not squared",
            "`(margin - distance).clamp_min(0).square()`.",
        ),
        Wrong(
            "distance not squared",
            _contrastive(pull=lambda d, m: d),
            "equal pairs pay their distance, not its square",
            "Half of the *squared* distance.",
        ),
        Wrong(
            "no half",
            _contrastive(half=1.0),
            "the factor one half is missing",
            "Multiply both kinds by 0.5.",
            also=(
                _contrastive(pull=lambda d, m: 2 * d.square()),
                _contrastive(push=lambda d, m: 2 * (m - d).clamp_min(0).square()),
            ),
        ),
        Wrong(
            "another margin",
            _contrastive(push=lambda d, m: (1 - d).clamp_min(0).square()),
            "`margin` is not used: unequal pairs pay as if it were 1",
            "`(margin - distance).clamp_min(0).square()`.",
            also=(_contrastive(push=lambda d, m: (1 - d).clamp_min(0)),),
        ),
        Wrong(
            "no push on one point",
            lambda a, b, same, margin: contrastive_losses(a, b, same | (a == b).all(1), margin),
            "an unequal pair whose pictures lie on one point costs nothing, though it must pay most of all",
            "Guard the root and nothing else: at distance zero an unequal pair pays half the margin's square.",
        ),
        Wrong(
            "floor too high",
            _contrastive(distance=lambda squared: squared.clamp_min(1e-2).sqrt()),
            "a number under the root is so large that it changes the distance of near pairs",
            "`.clamp_min(1e-12)` is enough.",
            also=(
                _contrastive(distance=lambda squared: squared.clamp_min(1e-3).sqrt()),
                _contrastive(distance=lambda squared: (squared + 1e-2).sqrt()),
                _contrastive(distance=lambda squared: (squared + 1e-3).sqrt()),
                _contrastive(distance=lambda squared: (squared + 1e-6).sqrt()),
            ),
        ),
        Wrong(
            "no push",
            _contrastive(push=lambda d, m: 0 * d),
            "unequal pairs cost nothing: all embeddings may fall onto one point",
            "An unequal pair nearer than the margin must pay.",
        ),
        Wrong(
            "mean",
            lambda a, b, same, margin: contrastive_losses(a, b, same, margin).mean(),
            "the pairs are averaged already here",
            "Return one loss for each pair, [P]: equal and unequal ones are weighed later.",
            also=(lambda a, b, same, margin: contrastive_losses(a, b, same, margin).sum(),),
        ),
        Wrong(
            "detached",
            lambda a, b, same, margin: contrastive_losses(a, b.detach(), same, margin),
            "only one picture of a pair gets gradient",
            "No detach: the twins share their weights, and both learn.",
        ),
    ),
    hints=(
        "Equal pairs need no root at all. Unequal pairs need one: what is its slope at zero?",
        "`squared.clamp_min(1e-12).sqrt()` is finite at zero, and so is its gradient.",
        "`0.5 * torch.where(same, squared, (margin - distance).clamp_min(0).square())`",
    ),
)

# ---------------------------------------------------------------------------------------------- 03.5 are the pairs fair?

Draw = Callable[[Tensor, int, Generator], tuple[Tensor, Tensor]]


def exposes_pairs(draw: Draw, labels: Tensor) -> bool:
    """Returns True if the share of equal pairs is far from one half, or if a picture is paired with itself."""
    first, second = draw(labels, 2000, torch.Generator().manual_seed(0))
    share = float((labels[first] == labels[second]).double().mean())
    return not 0.4 <= share <= 0.6 or bool((first == second).any())


def _exposes_over_calls(draw: Draw, labels: Tensor) -> bool:
    generator, equal, pairs = torch.Generator().manual_seed(7), 0, 0
    for _ in range(20):
        first, second = draw(labels, 100, generator)
        if bool(first.eq(second).sum() > 0):
            return True
        equal, pairs = equal + int((labels[first] == labels[second]).sum()), pairs + len(first)
    return abs(equal / pairs - 0.5) > 0.1


def _exposes_by_counting(draw: Draw, labels: Tensor) -> bool:
    first, second = (rows.tolist() for rows in draw(labels, 1500, torch.Generator().manual_seed(1)))
    if any(i == j for i, j in zip(first, second, strict=True)):
        return True
    equal = sum(int(labels[i] == labels[j]) for i, j in zip(first, second, strict=True))
    return equal < 600 or equal > 900


def _exposes_in_one_line(draw: Draw, labels: Tensor) -> Tensor:
    i, j = draw(labels, 2000, torch.Generator())
    return (labels[i].eq(labels[j]).float().mean() - 0.5).abs().gt(0.1) | i.eq(j).any()


def _exposes_by_table(draw: Draw, labels: Tensor) -> bool:
    """Counts the pairs in a table [B, B], and looks at its diagonal."""
    first, second = draw(labels, 3000, torch.Generator().manual_seed(3))
    table = torch.zeros(len(labels), len(labels)).index_put((first, second), torch.ones(3000), accumulate=True)
    share = table[labels[:, None] == labels].sum().item() / 3000
    return table.trace().item() > 0 or not abs(share - 0.5) <= 0.1


def _detector(
    verdict: Callable[[float, Tensor, Tensor], bool], count: int = 2000, seed: int = 0
) -> Callable[[Draw, Tensor], bool]:
    """Returns a detector that decides by verdict(share of equal pairs, first, second)."""

    def exposes(draw: Draw, labels: Tensor) -> bool:
        first, second = draw(labels, count, torch.Generator().manual_seed(seed))
        return bool(verdict(float((labels[first] == labels[second]).double().mean()), first, second))

    return exposes


def _pool(labels: Tensor, *, equal: bool, itself: bool = False) -> Tensor:
    """Returns all ordered pairs [P, 2] of equal or of unequal labels. itself: with the pairs of a row with itself."""
    table = (labels[:, None] == labels) == equal
    return (table if itself else table & ~torch.eye(len(labels), dtype=torch.bool)).nonzero()


def _take(pool: Tensor, count: int, generator: Generator) -> Tensor:
    return pool[torch.randint(len(pool), (count,), generator=generator)]


def draw_pairs(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draws as many equal as unequal pairs, no picture with itself. labels [B], count even -> first, second [count]."""
    half = count // 2
    pairs = [_take(_pool(labels, equal=kind), half, generator) for kind in (True, False)]
    first, second = torch.cat(pairs).unbind(1)
    return first, second


def _draw_by_coin(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Flips a coin for every pair, so that equal and unequal pairs are balanced on average only."""
    one, two = (_take(_pool(labels, equal=kind), count, generator) for kind in (True, False))
    coin = torch.rand(count, generator=generator) < 0.5
    first, second = torch.where(coin[:, None], one, two).unbind(1)
    return first, second


def _draw_random(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    first, second = torch.randint(len(labels), (2, count), generator=generator)
    return first, second


def _draw_distinct(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    first, step = (torch.randint(low, len(labels), (count,), generator=generator) for low in (0, 1))
    return first, (first + step) % len(labels)


def _draw_mixed(share: float, *, itself: bool = False) -> Draw:
    """Returns a sampler with a given share of equal pairs. itself: an equal partner may be the picture itself."""

    def draw(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        equal = round(share * count)
        one = _take(_pool(labels, equal=True, itself=itself), equal, generator)
        two = _take(_pool(labels, equal=False), count - equal, generator)
        first, second = torch.cat([one, two]).unbind(1)
        return first, second

    return draw


def _draw_itself(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    first, second = draw_pairs(labels, count, generator)
    return first, torch.where(torch.arange(count) < count // 2, first, second)


def _draw_not_excluded(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draws the unequal half from all pairs of different rows: with 20 classes this hardly shows, with two it does."""
    equal = _take(_pool(labels, equal=True), count // 2, generator)
    rest = torch.stack(_draw_distinct(labels, count - count // 2, generator), dim=1)
    first, second = torch.cat([equal, rest]).unbind(1)
    return first, second


def _draw_rarely_itself(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Pairs a picture with itself about once in 250 pairs."""
    first, second = draw_pairs(labels, count, generator)
    return first, torch.where(torch.rand(count, generator=generator) < 0.004, first, second)


def _draw_lonely_itself(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draws a class, then two of its pictures; the only picture of a class meets itself."""
    equal = _pool(labels, equal=True)
    alone = (labels.bincount()[labels] == 1).nonzero()
    pool = torch.cat([equal, alone.expand(-1, 2).repeat(3, 1)])
    pairs = torch.cat([_take(pool, count // 2, generator), _take(_pool(labels, equal=False), count // 2, generator)])
    first, second = pairs[torch.randperm(len(pairs), generator=generator)].unbind(1)
    return first, second


def _draw_shuffled(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """The sound sampler in another order; it insists on a generator."""
    generator.get_state()
    order = torch.randperm(count, generator=generator)
    first, second = draw_pairs(labels, count, generator)
    return first[order], second[order]


def _fair_cases(generator: Generator) -> list[Case]:
    def labels(ways: int, each: int) -> Tensor:
        rows = torch.arange(ways * each) % ways
        return rows[torch.randperm(len(rows), generator=generator)]

    twenty, two = labels(20, 6), labels(2, 5)
    uneven = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
    return [
        Case("a right one: half and half", (draw_pairs, twenty)),
        Case("a right one: half and half, classes of unequal size", (draw_pairs, uneven)),
        Case("a right one: half and half, shuffled; it needs a generator", (_draw_shuffled, twenty)),
        Case("a right one: a coin decides for every pair", (_draw_by_coin, twenty)),
        Case("a right one: a coin, two classes", (_draw_by_coin, two)),
        Case("a right one by your rule: 43 % of the pairs are equal", (_draw_mixed(0.43), twenty)),
        Case("a right one by your rule: 57 % of the pairs are equal", (_draw_mixed(0.57), twenty)),
        Case("two rows at random, 20 classes", (_draw_random, twenty)),
        Case("two different rows at random, 20 classes", (_draw_distinct, twenty)),
        Case("nine equal pairs in ten", (_draw_mixed(0.9), twenty)),
        Case("35 % of the pairs are equal", (_draw_mixed(0.35), twenty)),
        Case("65 % of the pairs are equal", (_draw_mixed(0.65), twenty)),
        Case("the unequal half is drawn from all pairs, two classes", (_draw_not_excluded, two)),
        Case("equal partners drawn with the picture itself among them", (_draw_mixed(0.5, itself=True), twenty)),
        Case("a picture meets itself about once in 250 pairs", (_draw_rarely_itself, twenty)),
        Case("only the one picture of a small class meets itself", (_draw_lonely_itself, uneven)),
        Case("every equal pair is one picture twice", (_draw_itself, twenty)),
        Case("all pairs are one picture twice", (lambda y, n, g: (_draw_random(y, n, g)[0],) * 2, two)),
    ]


def _exposes_own_labels(draw: Draw, labels: Tensor) -> bool:
    return exposes_pairs(draw, torch.arange(20).repeat_interleave(6))


def _exposes_without_generator(draw: Draw, labels: Tensor) -> bool:
    first, second = draw(labels, 2000, None)
    share = float((labels[first] == labels[second]).double().mean())
    return not 0.4 <= share <= 0.6 or bool((first == second).any())


FAIR = Exercise(
    id="03.5",
    title="Bug hunt: are the pairs fair?",
    reference=exposes_pairs,
    cases=_fair_cases,
    right=(_exposes_over_calls, _exposes_by_counting, _exposes_in_one_line, _exposes_by_table),
    wrong=(
        Wrong(
            "share only",
            _detector(lambda share, i, j: not 0.4 <= share <= 0.6),
            "only the share of equal pairs decides: one picture paired with itself slips through as an equal pair",
            "One such pair is one too many: `(first == second).any()`, not `.all()`.",
        ),
        Wrong(
            "itself only",
            _detector(lambda share, i, j: (i == j).any()),
            "only pictures paired with themselves are looked for: the share of equal pairs may be anything",
            "Compare `labels[first]` with `labels[second]` and take the mean.",
        ),
        Wrong(
            "too few only",
            _detector(lambda share, i, j: share < 0.4 or (i == j).any()),
            "only too few equal pairs ring: too many are as bad",
            "The share must lie between 0.4 and 0.6.",
        ),
        Wrong(
            "too many only",
            _detector(lambda share, i, j: share > 0.6 or (i == j).any()),
            "only too many equal pairs ring: too few are as bad, and far more common",
            "The share must lie between 0.4 and 0.6.",
        ),
        Wrong(
            "narrow limits",
            _detector(lambda share, i, j: not 0.45 <= share <= 0.55 or (i == j).any()),
            "the limits are narrower than 0.4 and 0.6: a share of 43 % rings",
            "Allow 0.4 to 0.6.",
        ),
        Wrong(
            "wide limits",
            _detector(lambda share, i, j: not 0.3 <= share <= 0.7 or (i == j).any()),
            "the limits are wider than 0.4 and 0.6: a share of 35 % passes",
            "Allow 0.4 to 0.6 and no more.",
            also=(_detector(lambda share, i, j: not 0.2 <= share <= 0.8 or (i == j).any()),),
        ),
        Wrong(
            "a few with itself allowed",
            _detector(lambda share, i, j: not 0.4 <= share <= 0.6 or (i == j).double().mean() > 0.01),
            "a few pictures may meet themselves before it rings",
            "One such pair is one too many: `(first == second).any()`.",
        ),
        Wrong(
            "own labels",
            _exposes_own_labels,
            "the labels that are handed in are not used: a sampler may be fair for your labels and unfair for these",
            "Hand `labels` to `draw`, and look up the labels of its rows there.",
        ),
        Wrong(
            "no generator",
            _exposes_without_generator,
            "None is handed in as the generator, and some samplers need one",
            "`torch.Generator().manual_seed(0)`.",
        ),
        Wrong(
            "exactly one half",
            _detector(lambda share, i, j: share != 0.5 or (i == j).any()),
            "the share must be one half exactly: a sampler that tosses a coin for every pair is refused",
            "Allow 0.4 to 0.6.",
        ),
        Wrong(
            "both at once",
            _detector(lambda share, i, j: not 0.4 <= share <= 0.6 and (i == j).any()),
            "both faults must come together",
            "Either is enough: `or`.",
            also=(_detector(lambda share, i, j: share < 0.4 or (share > 0.6 and (i == j).any())),),
        ),
        Wrong(
            "turned round",
            lambda draw, labels: not exposes_pairs(draw, labels),
            "the answer is turned round: True stands for a fair sampler",
            "True means: this one is broken.",
        ),
        Wrong(
            "row numbers",
            _detector(lambda share, i, j: not 0.4 <= float((i == j).double().mean()) <= 0.6),
            "row numbers are compared in place of labels: two drawings of one class count as unequal",
            "`labels[first] == labels[second]`.",
        ),
    ),
    hints=(
        "Let it draw many pairs and count. Which two counts would give it away?",
        "`first, second = draw(labels, 2000, torch.Generator().manual_seed(0))`; then the share of equal labels, and equal rows.",
        "`return not 0.4 <= share <= 0.6 or bool((first == second).any())`",
    ),
)

# ---------------------------------------------------------------------------------------------- 03.6 a balanced sampler


def _draw_by_loop(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draws an anchor and then an unequal or an equal partner in turn; draws again if an anchor has no such partner."""
    found: list[tuple[int, int]] = []
    rows = torch.arange(len(labels))
    while len(found) < count:
        i = int(torch.randint(len(labels), (1,), generator=generator))
        equal = labels == labels[i]
        partners = rows[equal & (rows != i)] if len(found) % 2 else rows[~equal]
        if len(partners):
            found.append((i, int(partners[torch.randint(len(partners), (1,), generator=generator)])))
    first, second = torch.tensor(found).T
    return first, second


def _draw_by_class(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draws equal pairs as two rows of a random class, and unequal ones as a row each of two different classes."""
    rows = {int(k): (labels == k).nonzero().flatten() for k in labels.unique()}
    large = [k for k, members in rows.items() if len(members) > 1]
    found = []
    for n in range(count):
        if n < count // 2:
            members = rows[large[int(torch.randint(len(large), (1,), generator=generator))]]
            found.append(members[torch.randperm(len(members), generator=generator)[:2]])
        else:
            two = torch.randperm(len(rows), generator=generator)[:2].tolist()
            chosen = [rows[list(rows)[k]] for k in two]
            found.append(torch.stack([m[torch.randint(len(m), (1,), generator=generator)][0] for m in chosen]))
    first, second = torch.stack(found).unbind(1)
    return first, second


def _draw_by_weights(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draws positions of the flattened table, with weights; then shuffles."""
    side = len(labels)
    equal = (labels[:, None] == labels).float()
    weights = torch.stack([(equal - torch.eye(side)).flatten(), (1 - equal).flatten()])
    places = torch.multinomial(weights, count // 2, replacement=True, generator=generator).flatten()
    places = places[torch.randperm(count, generator=generator)]
    return places // side, places % side


def _draw_by_scores(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Gives all pairs a random score, once for each drawn pair, and takes the highest of its kind."""
    low, high = torch.triu_indices(len(labels), len(labels), 1)
    kind = (torch.arange(count) % 2 == 0)[:, None]
    scores = torch.rand(count, len(low), generator=generator)
    best = torch.where((labels[low] == labels[high]) == kind, scores, -1.0).argmax(1)
    return low[best], high[best]


def _draw_narrow(near: Callable[[Tensor, Tensor], Tensor]) -> Draw:
    """Returns a sampler whose equal pairs come only from where the table near(labels, rows of equal pairs [P, 2]) is True."""

    def equal(labels: Tensor, count: int, generator: Generator) -> Tensor:
        pool = _pool(labels, equal=True)
        return _take(pool[near(labels, pool)], count, generator)

    return _draw_with(equal=equal)


def _rank(labels: Tensor) -> Tensor:
    """Returns for each row which picture of its class it is, from 0. [B] -> [B]."""
    return ((labels[:, None] == labels).tril(-1)).sum(1)


def _draw_short(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draws rows one too low, so that the last picture never comes."""
    return draw_pairs(labels[:-1], count, generator)


def _draw_with(
    equal: Callable[[Tensor, int, Generator], Tensor] = lambda y, n, g: _take(_pool(y, equal=True), n, g),
    unequal: Callable[[Tensor, int, Generator], Tensor] = lambda y, n, g: _take(_pool(y, equal=False), n, g),
    own: Callable[[Generator], Generator | None] = lambda g: g,
) -> Draw:
    """Returns a sampler with one part replaced: its equal pairs [n, 2], its unequal pairs [n, 2], or its generator."""

    def draw(labels: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        chance = own(generator)
        pairs = torch.cat([equal(labels, count // 2, chance), unequal(labels, count // 2, chance)])
        first, second = pairs.unbind(1)
        return first, second

    return draw


_MIXED = torch.tensor([3, 0, 1, 0, 2, 2, 1, 0, 4, 4, 1])  # class 3 has one picture


def _rows_returned(answer: Callable, reference: Callable) -> str | None:
    """Says whether numbers come that are no rows, such as labels, which are larger here than any row."""
    rows = torch.cat(answer(torch.arange(12) % 3 + 100, 20, torch.Generator().manual_seed(4)))
    return None if int(rows.max()) < 12 else f"of 12 pictures, row {int(rows.max())} is asked for."


def _balanced(answer: Callable, reference: Callable) -> str | None:
    """Says whether the number of equal pairs is off by a little in some calls only, in one direction, or altogether."""
    counts = []
    for seed, labels in enumerate((_MIXED, _MIXED, _MIXED, torch.tensor([0, 1, 1, 0]))):
        first, second = answer(labels, 60, torch.Generator().manual_seed(seed))
        counts.append(int((labels[first] == labels[second]).sum()))
    if counts == [30] * 4:
        return None
    told, mean = (
        f"of 60 pairs in four calls, {', '.join(map(str, counts))} are equal; 30 are wanted in each",
        sum(counts) / 4,
    )
    if counts == [60] * 4:
        return f"every pair is equal: {told}."
    if counts == [0] * 4:
        return f"no pair is equal: {told}."
    if len(set(counts)) == 1:
        return f"always the same number of equal pairs, but {'too few' if mean < 30 else 'too many'}: {told}."
    if min(counts) < 30 < max(counts) and 24 <= mean <= 36:
        return f"half of them only on average: {told}."
    return f"{'too few equal pairs' if mean < 30 else 'too many equal pairs'}: {told}."


def _never_itself(answer: Callable, reference: Callable) -> str | None:
    first, second = answer(_MIXED, 400, torch.Generator().manual_seed(1))
    itself = int((first == second).sum())
    if not itself:
        return None
    if itself == int((_MIXED[first] == _MIXED[second]).sum()):
        return f"every equal pair is one picture with itself: {itself} of 400 pairs."
    return f"now and then a picture meets itself: {itself} of 400 pairs."


def _generator_decides(answer: Callable, reference: Callable) -> str | None:
    runs = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(2)
        runs.append([torch.stack(answer(_MIXED, 40, generator)) for _ in range(2)])
    if any(not torch.equal(a, b) for a, b in zip(*runs, strict=True)):
        return (
            "Two generators with the same seed gave different pairs. Hand `generator=generator` to every random call."
        )
    return "Two calls in a row with one generator gave the same pairs." if torch.equal(*runs[0]) else None


def _seen_pairs(answer: Callable) -> set[tuple[int, int]]:
    first, second = answer(_MIXED, 1200, torch.Generator().manual_seed(3))
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return {*zip(low.tolist(), high.tolist(), strict=True)}


def _take_part(kind: bool) -> Callable[[Callable, Callable], str | None]:
    """Returns a law: every equal (or unequal) pair can come. It names what is missing: classes, pictures, or pairs."""
    word = "equal" if kind else "unequal"

    def holds(answer: Callable, reference: Callable) -> str | None:
        seen = _seen_pairs(answer)
        wanted = {p for p in combinations(range(len(_MIXED)), 2) if bool(_MIXED[p[0]] == _MIXED[p[1]]) is kind}
        found = seen & wanted
        if found == wanted or not found:  # without any such pair, the law of the halves speaks
            return None
        classes, rows = ({int(f(i)) for p in wanted - found for i in p} for f in (lambda i: _MIXED[i], lambda i: i))
        came, met = {int(_MIXED[i]) for p in found for i in p}, {i for p in found for i in p}
        if missing := classes - came:
            return f"{len(missing)} classes never come in an {word} pair, in 1200 draws."
        if missing := rows - met:
            return f"{len(missing)} pictures never come in an {word} pair, though every class does."
        if set.intersection(*map(set, found)):
            return f"one and the same picture is in every {word} pair."
        return (
            f"{len(wanted - found)} of the {len(wanted)} possible {word} pairs never come, though every picture does."
        )

    return holds


def _sampler_cases(generator: Generator) -> list[Case]:
    def fresh() -> Generator:
        return torch.Generator().manual_seed(int(torch.randint(2**31, (1,), generator=generator)))

    return [
        Case("5 classes of 4 pictures, 20 pairs", (torch.arange(20) % 5, 20, fresh())),
        Case("a class with one picture, more pairs than pictures", (_MIXED, 50, fresh())),
        Case("two classes of two pictures, two pairs", (torch.tensor([1, 0, 0, 1]), 2, fresh())),
    ]


SAMPLER = Exercise(
    id="03.6",
    title="A balanced pair sampler",
    reference=draw_pairs,
    cases=_sampler_cases,
    same=lambda got, expected: None,  # any fair pairs are right: shapes are checked before, everything else by laws
    properties=(
        Property("the numbers are rows", _rows_returned),
        Property("exactly half of the pairs are equal", _balanced),
        Property("no picture is paired with itself", _never_itself),
        Property("the generator alone decides", _generator_decides),
        Property("every equal pair can come", _take_part(True)),
        Property("every unequal pair can come", _take_part(False)),
    ),
    right=(_draw_by_loop, _draw_by_class, _draw_by_weights, _draw_by_scores),
    wrong=(
        Wrong(
            "two rows at random",
            _draw_random,
            "both rows are drawn at random: with N classes only about one pair in N is equal",
            "Draw half of the pairs from the list of equal pairs, half from the list of unequal ones.",
        ),
        Wrong(
            "two different rows at random",
            _draw_distinct,
            "two different rows are drawn at random: no picture meets itself, but only about one pair in N is equal",
            "Draw half of the pairs from the list of equal pairs, half from the list of unequal ones.",
        ),
        Wrong(
            "a coin for every pair",
            _draw_by_coin,
            "chance decides for every pair whether it is equal: half of them are only on average",
            "Draw `count // 2` of the one kind and `count // 2` of the other.",
        ),
        Wrong(
            "itself among them",
            _draw_with(equal=lambda y, n, g: _take(_pool(y, equal=True, itself=True), n, g)),
            "the diagonal of the table counts as equal: now and then a picture meets itself",
            "`equal & (row[:, None] != row)`: two different rows.",
        ),
        Wrong(
            "always itself",
            _draw_with(equal=lambda y, n, g: torch.randint(len(y), (n, 1), generator=g).expand(n, 2)),
            "every equal pair is one picture with itself",
            "An equal pair is two *different* drawings of one class.",
        ),
        Wrong(
            "unequal not excluded",
            _draw_with(unequal=lambda y, n, g: torch.stack(_draw_distinct(y, n, g), 1)),
            "the unequal half is drawn at random: some of its pairs are equal after all",
            "Draw them from `~equal`.",
        ),
        Wrong(
            "one class only",
            _draw_with(equal=lambda y, n, g: _take(_pool(y, equal=True)[:2], n, g)),
            "equal pairs come from some classes only",
            "Draw from all equal pairs: every class must have its turn.",
        ),
        Wrong(
            "some pictures of a class only",
            _draw_narrow(lambda y, pool: (_rank(y)[pool] < 2).all(1)),
            "every class takes part, but only with some of its pictures, such as the first two",
            "Draw from all equal pairs: every drawing of a class must have its turn.",
        ),
        Wrong(
            "neighbours of a class",
            _draw_narrow(lambda y, pool: (_rank(y)[pool[:, 0]] - _rank(y)[pool[:, 1]]).abs() == 1),
            "every picture takes part, but only with some partners of its class, such as its neighbour",
            "Any two drawings of a class make an equal pair.",
        ),
        Wrong(
            "last picture forgotten",
            _draw_short,
            "a range ends one too early, so that a picture never comes",
            "`torch.randint(n, ...)` draws from 0 to n − 1: its end is left out already.",
        ),
        Wrong(
            "labels in place of rows",
            lambda y, n, g: tuple(y[rows] for rows in draw_pairs(y, n, g)),
            "the labels of the two pictures are returned where their row numbers are asked for",
            "Return positions, as `nonzero()` gives them; a label is no row.",
        ),
        Wrong(
            "unequal to the next class only",
            _draw_with(unequal=lambda y, n, g: _take((y[:, None] == (y + 1) % (y.max() + 1)).nonzero(), n, g)),
            "some unequal pairs can never come: strangers of one other class only, or an index that ends too early in the list",
            "Draw from the whole list of unequal pairs: `torch.randint(len(pool), ...)` with the length of that list.",
        ),
        Wrong(
            "unequal to the first row",
            _draw_with(unequal=lambda y, n, g: _take(_pool(y, equal=False)[: int((y != y[0]).sum())], n, g)),
            "all unequal pairs hold the same picture, such as the first one",
            "Draw both pictures of an unequal pair.",
        ),
        Wrong(
            "global chance",
            _draw_with(own=lambda g: None),
            "the random calls do not use the generator that was handed in",
            "Write `generator=generator` in every random call.",
        ),
        Wrong(
            "seeded inside",
            _draw_with(own=lambda g: torch.Generator().manual_seed(0)),
            "the pairs do not depend on the generator: nothing is drawn at all, or another generator is seeded inside",
            "Hand the generator that you are given to every random call, as it is.",
        ),
        Wrong(
            "equal pairs only",
            _draw_with(unequal=lambda y, n, g: _take(_pool(y, equal=True), n, g)),
            "all pairs are equal",
            "The other half comes from `~equal`.",
        ),
        Wrong(
            "another share",
            _draw_mixed(0.25),
            "the share of equal pairs is fixed, but it is not one half",
            "`count // 2` pairs of each kind.",
            also=(_draw_mixed(0.75),),
        ),
        Wrong(
            "unequal pairs only",
            _draw_with(equal=lambda y, n, g: _take(_pool(y, equal=False), n, g)),
            "no pair is equal: nothing teaches what the drawings of a class have in common",
            "The one half comes from `equal`, without its diagonal.",
        ),
    ),
    hints=(
        "Write down all equal pairs and all unequal ones; then draw from the two lists.",
        "`equal = labels[:, None] == labels` is a table [B, B]; `.nonzero()` lists its pairs. Leave out the diagonal.",
        "`pool[torch.randint(len(pool), (count // 2,), generator=generator)]` for both pools, then `torch.cat`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 03.7 semi-hard negatives


def semi_hard(to_positive: Tensor, to_all: Tensor, stranger: Tensor) -> Tensor:
    """Returns the nearest stranger that is farther than the positive, or the farthest stranger if there is none.

    to_positive [P], to_all [P, B], stranger bool [P, B] -> positions [P]
    """
    farther = stranger & (to_all > to_positive[:, None])
    nearest = to_all.masked_fill(~farther, torch.inf).argmin(1)
    farthest = to_all.masked_fill(~stranger, -torch.inf).argmax(1)
    return torch.where(farther.any(1), nearest, farthest)


def _semi_hard_loop(to_positive: Tensor, to_all: Tensor, stranger: Tensor) -> Tensor:
    found = []
    for limit, row, other in zip(to_positive, to_all, stranger, strict=True):
        candidates = sorted((float(row[j]), j) for j in other.nonzero().flatten().tolist())
        beyond = [j for distance, j in candidates if distance > float(limit)]
        found.append(beyond[0] if beyond else candidates[-1][1])
    return torch.tensor(found)


def _semi_hard_sorted(to_positive: Tensor, to_all: Tensor, stranger: Tensor) -> Tensor:
    order = to_all.argsort(1)
    allowed, ranked = stranger.gather(1, order), to_all.gather(1, order)
    farther = allowed & (ranked > to_positive[:, None])
    last = to_all.shape[1] - 1 - allowed.flip(1).int().argmax(1)
    place = torch.where(farther.any(1), farther.int().argmax(1), last)
    return order.gather(1, place[:, None])[:, 0]


def _semi_hard_shifted(to_positive: Tensor, to_all: Tensor, stranger: Tensor) -> Tensor:
    """Moves the strangers that are too near behind all others, the farthest of them first."""
    far = to_all.max() + 1
    rank = torch.where(to_all > to_positive.unsqueeze(-1), to_all, 2 * far - to_all)
    rank[~stranger] = float("inf")
    return rank.min(dim=1).indices


def _semi_hard_by_key(to_positive: Tensor, to_all: Tensor, stranger: Tensor) -> Tensor:
    """Takes for each anchor the smallest key: (too near?, distance, which counts backwards if it is too near)."""

    def negative(p: int) -> int:
        gaps = {j: float(to_all[p, j] - to_positive[p]) for j in stranger[p].nonzero()[:, 0].tolist()}
        return min(gaps, key=lambda j: (gaps[j] <= 0, abs(gaps[j]) if gaps[j] <= 0 else gaps[j]))

    return torch.tensor([negative(p) for p in range(len(to_positive))])


def _semi_hard_cases(generator: Generator) -> list[Case]:
    def draw(ways: int, each: int) -> tuple[Tensor, Tensor, Tensor]:
        labels = torch.arange(ways * each) % ways
        z = torch.randn(len(labels), 3, generator=generator)
        squared = torch.cdist(z, z).square()
        equal = labels[:, None] == labels
        anchor, positive = (equal & ~torch.eye(len(labels), dtype=torch.bool)).nonzero().unbind(1)
        return squared[anchor, positive], squared[anchor], ~equal[anchor]

    paper = torch.tensor([[0.0, 4.0, 1.0, 5.0, 9.0, 4.5], [4.0, 0.0, 2.0, 1.0, 3.0, 3.5]])
    tie = torch.tensor([[0.0, 4.0, 4.0, 5.0, 9.0, 4.5], [4.0, 0.0, 2.0, 4.0, 3.0, 3.5]])
    stranger = torch.tensor([[False, False, True, True, True, False]]).expand(2, 6)
    return [
        Case(
            "two anchors on paper; the second has no stranger beyond its positive",
            (torch.full((2,), 4.0), paper, stranger),
        ),
        Case("a stranger exactly as far as the positive: it is not farther", (torch.full((2,), 4.0), tie, stranger)),
        Case("4 classes of 3", draw(4, 3)),
        Case("2 classes of 5: often no stranger is farther", draw(2, 5)),
        Case("float64", tuple(t.double() if t.is_floating_point() else t for t in draw(3, 3))),
        Case(
            "all embeddings on one point, and one stranger",
            (torch.zeros(1), torch.zeros(1, 4), torch.tensor([[False, False, True, False]])),
        ),
    ]


def _semi_hard_at_least(to_positive: Tensor, to_all: Tensor, stranger: Tensor) -> Tensor:
    far = stranger & (to_all >= to_positive[:, None])
    nearest = to_all.masked_fill(~far, torch.inf).argmin(1)
    return torch.where(far.any(1), nearest, to_all.masked_fill(~stranger, -torch.inf).argmax(1))


def _semi_hard_flipped(to_positive: Tensor, to_all: Tensor, stranger: Tensor) -> Tensor:
    near = stranger & (to_all < to_positive[:, None])
    nearest = to_all.masked_fill(~near, torch.inf).argmin(1)
    return torch.where(near.any(1), nearest, to_all.masked_fill(~stranger, -torch.inf).argmax(1))


def _semi_hard_next_nearer(to_positive: Tensor, to_all: Tensor, stranger: Tensor) -> Tensor:
    near = stranger & (to_all < to_positive[:, None])
    farthest = to_all.masked_fill(~near, -torch.inf).argmax(1)
    return torch.where(near.any(1), farthest, to_all.masked_fill(~stranger, torch.inf).argmin(1))


def _mined(pick: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Returns a wrong answer: pick(distances, stranger, farther), each [P, B]."""

    def negatives(to_positive: Tensor, to_all: Tensor, stranger: Tensor) -> Tensor:
        return pick(to_all, stranger, stranger & (to_all > to_positive[:, None]))

    return negatives


SEMI_HARD = Exercise(
    id="03.7",
    title="Semi-hard negatives",
    reference=semi_hard,
    cases=_semi_hard_cases,
    right=(_semi_hard_loop, _semi_hard_sorted, _semi_hard_shifted, _semi_hard_by_key),
    wrong=(
        Wrong(
            "hardest",
            _mined(lambda d, s, far: d.masked_fill(~s, torch.inf).argmin(1)),
            "the nearest stranger is taken, however near: the hardest negative, with which training can collapse",
            "Only strangers *farther than the positive* count.",
        ),
        Wrong(
            "farthest",
            _mined(lambda d, s, far: d.masked_fill(~s, -torch.inf).argmax(1)),
            "the farthest stranger is taken always: nearly every triplet is easy and teaches nothing",
            "The nearest of those farther than the positive; the farthest only where there is none.",
        ),
        Wrong(
            "row 0 where there is none",
            _mined(lambda d, s, far: d.masked_fill(~far, torch.inf).argmin(1)),
            "where no stranger is farther, all entries are infinite and `argmin` returns row 0, of whatever class",
            "`torch.where(farther.any(1), nearest, farthest)`.",
        ),
        Wrong(
            "farthest picture where there is none",
            _mined(lambda d, s, far: torch.where(far.any(1), d.masked_fill(~far, torch.inf).argmin(1), d.argmax(1))),
            "where no stranger is farther, the farthest picture of *any* class is taken, the anchor's own class too",
            "Look for the farthest among the strangers: `to_all.masked_fill(~stranger, -torch.inf).argmax(1)`.",
        ),
        Wrong(
            "not strictly farther",
            _semi_hard_at_least,
            "a stranger exactly as far as the positive counts as farther",
            "`>`, not `>=`.",
        ),
        Wrong(
            "hardest where there is none",
            _mined(
                lambda d, s, far: torch.where(
                    far.any(1), d.masked_fill(~far, torch.inf).argmin(1), d.masked_fill(~s, torch.inf).argmin(1)
                )
            ),
            "where no stranger is farther, the nearest one is taken",
            "Take the farthest stranger there: the mildest of the hard ones.",
        ),
        Wrong(
            "own class too",
            lambda p, d, s: semi_hard(p, d, d > 0),
            "`stranger` is not used: pictures of the anchor's own class are taken as negatives",
            "A negative must be a stranger: `stranger & (to_all > to_positive[:, None])`.",
            also=(lambda p, d, s: d.masked_fill(d <= p[:, None], torch.inf).argmin(1),),
        ),
        Wrong(
            "nearer than the positive",
            _mined(
                lambda d, s, far: torch.where(
                    (s & ~far).any(1),
                    d.masked_fill(~(s & ~far), -torch.inf).argmax(1),
                    d.masked_fill(~s, torch.inf).argmin(1),
                )
            ),
            "the comparison is turned round: the strangers nearer than the positive are searched",
            "`to_all > to_positive[:, None]`.",
            also=(_semi_hard_flipped, _semi_hard_next_nearer),
        ),
        Wrong(
            "distances times a mask",
            _mined(lambda d, s, far: (d * far).argmin(1)),
            "the distances are multiplied by a mask: what is crossed out becomes 0, which is a distance too",
            "`masked_fill` with inf puts it out of reach of `argmin`, with -inf out of reach of `argmax`.",
            also=(
                _mined(
                    lambda d, s, far: torch.where(
                        far.any(1), d.masked_fill(~far, torch.inf).argmin(1), (d * s).argmax(1)
                    )
                ),
                _mined(lambda d, s, far: torch.where(far.any(1), (d * far).argmin(1), (d * s).argmax(1))),
                _mined(
                    lambda d, s, far: torch.where(
                        far.any(1), (d * far).argmin(1), d.masked_fill(~s, -torch.inf).argmax(1)
                    )
                ),
            ),
        ),
        Wrong(
            "first in the row",
            _mined(
                lambda d, s, far: torch.where(far.any(1), far.int().argmax(1), d.masked_fill(~s, -torch.inf).argmax(1))
            ),
            "the *first* stranger of the row that is farther is taken, not the nearest of them",
            "`argmin` over the distances, `to_all.masked_fill(~farther, torch.inf)`, not over the mask.",
            also=(_mined(lambda d, s, far: far.int().argmax(1)),),
        ),
        Wrong(
            "distances",
            lambda p, d, s: d.gather(1, semi_hard(p, d, s)[:, None])[:, 0],
            "the distance of the negative is returned, not its row",
            "`argmin` and `argmax` give rows; `min` and `max` give distances.",
        ),
        Wrong(
            "rows among the strangers",
            lambda p, d, s: s.cumsum(1).gather(1, semi_hard(p, d, s)[:, None])[:, 0] - 1,
            "the rows are counted among the strangers, or among the candidates, not among all pictures",
            "Masking keeps the numbering, `to_all.masked_fill(~farther, torch.inf)`; selecting does not.",
        ),
    ),
    hints=(
        "Cross out what may not be chosen: friends, and strangers too near. What is left, by distance?",
        "`to_all.masked_fill(~farther, torch.inf).argmin(1)` finds the nearest of what is allowed.",
        "`torch.where(farther.any(1), nearest, farthest)`, with `farthest` among all strangers.",
    ),
)

# ---------------------------------------------------------------------------------------------- 03.8 NaN hunt

Distance = Callable[[Tensor, Tensor], Tensor]


def exposes_nan(distance: Distance) -> bool:
    """Returns True if the gradient at two equal rows is not finite. distance: a [P, D], b [P, D] -> [P]."""
    a = torch.tensor([[1.0, 2.0], [0.0, 1.0]], requires_grad=True)
    b = torch.tensor([[1.0, 2.0], [2.0, 0.0]], requires_grad=True)
    slopes = torch.autograd.grad(distance(a, b).sum(), (a, b))
    return not all(bool(slope.isfinite().all()) for slope in slopes)


def _exposes_nan_backward(distance: Distance) -> bool:
    a = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    b = a.detach().clone().requires_grad_()
    distance(a, b).mean().backward()
    return bool((~a.grad.isfinite()).any() | (~b.grad.isfinite()).any())


def _exposes_nan_each(distance: Distance) -> bool:
    for side in (0, 1):
        rows = [torch.ones(1, 5), torch.ones(1, 5)]
        rows[side].requires_grad_()
        (slope,) = torch.autograd.grad(distance(*rows)[0], rows[side])
        if torch.isnan(slope).any() or torch.isinf(slope).any():
            return True
    return False


def _exposes_nan_in_sum(distance: Distance) -> Tensor:
    """Sums both gradients: what is not finite stays so in a sum."""
    both = torch.zeros(2, 1, 3, dtype=torch.float64, requires_grad=True)
    distance(both[0], both[1]).backward(torch.ones(1, dtype=torch.float64))
    return ~(both.grad * 0).sum().eq(0)


def _exposes_nan_functional(distance: Distance) -> bool:
    x = torch.arange(6.0).view(2, 3)
    slopes = torch.func.grad(lambda a, b: distance(a, b).sum(), argnums=(0, 1))(x, x.clone())
    return not torch.cat(slopes).isfinite().all().item()


def _nan_detector_all_numbers(distance: Distance) -> bool:
    """A flawed detector: rings only where every number of one of the two gradients is broken."""
    a, b = (torch.ones(2, 3, requires_grad=True) for _ in range(2))
    return any(bool((~slope.isfinite()).all()) for slope in torch.autograd.grad(distance(a, b).sum(), (a, b)))


def _nan_detector_both(judge: Callable[[Tensor, Tensor], bool]) -> Callable[[Distance], bool]:
    """Returns a flawed detector that decides by judge(gradient in a, gradient in b) at a pair of equal rows."""

    def exposes(distance: Distance) -> bool:
        a = torch.tensor([[1.0, 2.0], [0.0, 1.0]], requires_grad=True)
        b = torch.tensor([[1.0, 2.0], [2.0, 0.0]], requires_grad=True)
        return bool(judge(*torch.autograd.grad(distance(a, b).sum(), (a, b))))

    return exposes


def _nan_detector(judge: Callable[[Tensor, Tensor], bool], *, meet: bool = True) -> Callable[[Distance], bool]:
    """Returns a flawed detector that decides by judge(distances, gradient in a). meet: whether two rows coincide."""

    def exposes(distance: Distance) -> bool:
        a = torch.tensor([[1.0, 2.0], [0.0, 1.0]], requires_grad=True)
        b = torch.tensor([[1.0 if meet else 3.0, 2.0], [2.0, 0.0]])
        found = distance(a, b)
        return bool(judge(found, torch.autograd.grad(found.sum(), a)[0]))

    return exposes


def _guarded(a: Tensor, b: Tensor) -> Tensor:
    squared = (a - b).square().sum(1)
    return torch.where(squared > 0, squared.sqrt(), 0.0)


class _Broken(torch.autograd.Function):
    """The right distance, whose gradient is broken at equal rows, in the first picture (side 0), the second, or both.

    It also works under `torch.func`, which asks for a `setup_context` of its own.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor, sides: tuple[int, ...], bad: float, one: bool) -> Tensor:
        return torch.linalg.vector_norm(a - b, dim=1)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        a, b, ctx.sides, ctx.bad, ctx.one = inputs
        ctx.save_for_backward(a, b)

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        length = torch.linalg.vector_norm(a - b, dim=1, keepdim=True)
        unit = slope[:, None] * (a - b) / length.clamp_min(1e-12)
        slopes = [unit, -unit]
        sound = (length > 0) | (ctx.one & (torch.arange(a.shape[1]) > 0))
        for side in ctx.sides:
            slopes[side] = torch.where(sound, slopes[side], ctx.bad * (-1) ** side)
        return *slopes, None, None, None


def _broken_in(*sides: int, bad: float, one: bool = False) -> Distance:
    """Returns a distance with a broken gradient. one: only in the first coordinate."""
    return lambda a, b: _Broken.apply(a, b, sides, bad, one)


def _nan_cases(generator: Generator) -> list[Case]:
    def root(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(1).sqrt()

    def clamped(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(1).clamp_min(1e-12).sqrt()

    def too_late(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(1).sqrt().clamp_min(1e-6)

    def epsilon(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(1).add(1e-12).sqrt()

    def lost_epsilon(a: Tensor, b: Tensor) -> Tensor:
        return (a - b + 1e-200).square().sum(1).sqrt()

    def masked(a: Tensor, b: Tensor) -> Tensor:
        return clamped(a, b) + (0 * (a - b)).square().sum(1).sqrt()

    def quotient(a: Tensor, b: Tensor) -> Tensor:
        squared = (a - b).square().sum(1)
        return squared / squared.sqrt()

    return [
        Case("a right one: the root is clamped inside", (clamped,)),
        Case("a right one: a tiny number under the root", (epsilon,)),
        Case("a right one: F.pairwise_distance, finite but not zero", (lambda a, b: F.pairwise_distance(a, b),)),
        Case(
            "a right one: in a small unit, with a gradient of some thousands",
            (lambda a, b: 1e4 * F.pairwise_distance(a, b),),
        ),
        Case("a right one: the norm of the difference", (lambda a, b: torch.linalg.vector_norm(a - b, dim=1),)),
        Case("a right one: the squared distance", (lambda a, b: (a - b).square().sum(1),)),
        Case("a bare square root", (root,)),
        Case("a square root, guarded by torch.where", (_guarded,)),
        Case("a square root, clamped afterwards", (too_late,)),
        Case("a tiny number that its square loses", (lost_epsilon,)),
        Case("the square divided by the root", (quotient,)),
        Case("a second root, of features that a mask sets to zero: broken at every pair", (masked,)),
        Case("only the second picture's gradient is NaN", (_broken_in(1, bad=float("nan")),)),
        Case("only the first picture's gradient is NaN", (_broken_in(0, bad=float("nan")),)),
        Case("only the second picture's gradient is infinite", (_broken_in(1, bad=float("inf")),)),
        Case("both gradients are infinite, with opposite signs", (_broken_in(0, 1, bad=float("inf")),)),
        Case("only the first picture's gradient is infinite", (_broken_in(0, bad=float("inf")),)),
        Case("one number of each gradient is NaN", (_broken_in(0, 1, bad=float("nan"), one=True),)),
    ]


NAN = Exercise(
    id="03.8",
    title="NaN hunt",
    reference=exposes_nan,
    cases=_nan_cases,
    right=(_exposes_nan_backward, _exposes_nan_each, _exposes_nan_in_sum, _exposes_nan_functional),
    wrong=(
        Wrong(
            "value only",
            _nan_detector(lambda found, slope: not found.isfinite().all()),
            "only the distances are looked at: at zero they are fine, their gradient is not",
            "`torch.autograd.grad(distance(a, b).sum(), (a, b))`.",
        ),
        Wrong(
            "no equal rows",
            _nan_detector(lambda found, slope: not slope.isfinite().all(), meet=False),
            "no two rows are equal, or those that are not must break too: the trouble sits at distance zero only",
            "Give one row of `b` the values of the same row of `a`; one number that is not finite is enough to ring.",
        ),
        Wrong(
            "every number must break",
            _nan_detector_all_numbers,
            "every number of a gradient must be broken before it rings",
            "One is enough: `not slope.isfinite().all()`.",
        ),
        Wrong(
            "first picture only",
            _nan_detector(lambda found, slope: not slope.isfinite().all()),
            "only the gradient with respect to `a` is looked at",
            "Both pictures pass the encoder: look at the gradients in `a` and in `b`.",
        ),
        Wrong(
            "second picture only",
            _nan_detector_both(lambda a, b: not b.isfinite().all()),
            "only the gradient with respect to `b` is looked at",
            "Both pictures pass the encoder: look at the gradients with respect to `a` and to `b`.",
        ),
        Wrong(
            "both must break",
            _nan_detector_both(lambda a, b: not (a.isfinite().all() or b.isfinite().all())),
            "both gradients must be broken before it rings",
            "Either is enough: `or`.",
        ),
        Wrong(
            "large gradients",
            _nan_detector_both(lambda a, b: not (a.abs().max() < 1e3 and b.abs().max() < 1e3)),
            "a large gradient rings, though it is finite",
            "Ask `isfinite`, whatever the size.",
        ),
        Wrong(
            "NaN in the sum of both gradients",
            _nan_detector_both(lambda a, b: (a + b).isnan().any()),
            "NaN is looked for in the sum of the two gradients: infinite ones show there only when they cancel",
            "Look at each gradient by itself, with `isfinite`.",
        ),
        Wrong(
            "NaN in either",
            _nan_detector_both(lambda a, b: a.isnan().any() or b.isnan().any()),
            "both gradients are looked at, but only for NaN: an infinite one ends a training just as well",
            "`isfinite` is False for both.",
        ),
        Wrong(
            "zero demanded",
            _nan_detector(lambda found, slope: not (slope[0] == 0).all()),
            "a gradient other than zero rings: `F.pairwise_distance` gives a finite one and harms nobody",
            "Ask whether it is finite, not whether it is zero.",
            also=(_nan_detector_both(lambda a, b: (a[0] != 0).any() or (b[0] != 0).any()),),
        ),
        Wrong(
            "infinite only",
            _nan_detector(lambda found, slope: slope.isinf().any()),
            "infinite entries are looked for: infinity times zero is NaN, which is not infinite",
            "`isfinite` is False for both.",
            also=(_nan_detector_both(lambda a, b: a.isinf().any() or b.isinf().any()),),
        ),
        Wrong(
            "turned round",
            lambda distance: not exposes_nan(distance),
            "the answer is turned round: True stands where all is well",
            "True means: this one breaks.",
        ),
        Wrong(
            "NaN only",
            _nan_detector(lambda found, slope: slope.isnan().any()),
            "only NaN is looked for: an infinite gradient ends a training just as well",
            "`isfinite` is False for both.",
        ),
    ),
    hints=(
        "Where does a square root have an infinite slope? Go there.",
        "Make `a` and `b` with `requires_grad=True` and one equal row; ask for both gradients.",
        "`slopes = torch.autograd.grad(distance(a, b).sum(), (a, b))`; `return not all(s.isfinite().all() for s in slopes)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 03.9 from memory


def siamese(
    encoder: nn.Module, weight: Tensor, bias: Tensor, support_x: Tensor, support_y: Tensor,
    query_x: Tensor, query_y: Tensor, n_way: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Returns the scores [M, N] of the queries, and the balanced loss over all pairs of pictures."""
    shots, z = len(support_x), encoder(torch.cat([support_x, query_x]))
    table = log_odds(z, z, weight, bias)
    scores = torch.stack([table[shots:, :shots][:, support_y == k].mean(1) for k in range(n_way)], dim=1)
    first, second, same = all_pairs(torch.cat([support_y, query_y]))
    return scores, pair_loss(table[first, second], same)


def _siamese_apart(
    encoder: nn.Module, weight: Tensor, bias: Tensor, support_x: Tensor, support_y: Tensor,
    query_x: Tensor, query_y: Tensor, n_way: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    support, query = encoder(support_x), encoder(query_x)
    member = F.one_hot(support_y, n_way).to(support.dtype)
    scores = _log_odds_loop(query, support, weight, bias) @ member / member.sum(0)
    z, labels = torch.cat([support, query]), torch.cat([support_y, query_y])
    first, second, same = _pairs_by_combinations(labels)
    return scores, _pair_loss_softplus((z[first] - z[second]).abs() @ weight + bias, same)


def _siamese_table(
    encoder: nn.Module, weight: Tensor, bias: Tensor, support_x: Tensor, support_y: Tensor,
    query_x: Tensor, query_y: Tensor, n_way: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Uses the whole table without its diagonal: every pair counts twice, which does not change the means."""
    shots, z, y = len(support_x), encoder(torch.cat([support_x, query_x])), torch.cat([support_y, query_y])
    table, off = _log_odds_cdist(z, z, weight, bias), ~torch.eye(len(z), dtype=torch.bool)
    scores = table.new_zeros(len(query_x), n_way).index_add(1, support_y, table[shots:, :shots])
    return scores / support_y.bincount(minlength=n_way), pair_loss(table[off], (y[:, None] == y)[off])


def _siamese_by_sums(
    encoder: nn.Module, weight: Tensor, bias: Tensor, support_x: Tensor, support_y: Tensor,
    query_x: Tensor, query_y: Tensor, n_way: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Weighs the losses of all pairs at once, each kind by one over twice its number."""
    z, y = encoder(torch.cat((query_x, support_x))), torch.cat((query_y, support_y))
    table = F.linear((z.unsqueeze(0) - z.unsqueeze(1)).abs(), weight[None]).squeeze(-1) + bias
    first, second = torch.combinations(torch.arange(len(z)), 2).T
    target = y[first].eq(y[second]).to(z.dtype)
    share = target / target.sum() + (1 - target) / (1 - target).sum()
    losses = F.binary_cross_entropy_with_logits(table[first, second], target, reduction="none")
    member = (support_y == torch.arange(n_way)[:, None]).to(z.dtype)
    asked = table[: len(query_y), len(query_y) :]
    return torch.einsum("ms,ns->mn", asked, member / member.sum(1, keepdim=True)), losses @ share / 2


def _siamese_in_loops(
    encoder: nn.Module, weight: Tensor, bias: Tensor, support_x: Tensor, support_y: Tensor,
    query_x: Tensor, query_y: Tensor, n_way: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    support, query = encoder(support_x), encoder(query_x)

    def odds(one: Tensor, other: Tensor) -> Tensor:
        return torch.dot(weight, (one - other).abs()) + bias

    rows = [[z for z, y in zip(support, support_y.tolist(), strict=True) if y == k] for k in range(n_way)]
    scores = torch.stack([torch.stack([torch.stack([odds(q, z) for z in of]).mean() for of in rows]) for q in query])
    losses: dict[bool, list[Tensor]] = {True: [], False: []}
    everyone = [*zip([*support, *query], [*support_y.tolist(), *query_y.tolist()], strict=True)]
    for (one, y), (other, k) in combinations(everyone, 2):
        losses[y == k].append(-F.logsigmoid(odds(one, other) if y == k else -odds(one, other)))
    return scores, sum(torch.stack(kind).mean() for kind in losses.values()) / 2


def _flawed(
    *,
    embed: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]] = lambda f, s, q: (f(s), f(q)),
    odds: Callable[..., Tensor] = log_odds,
    average: Callable[[Tensor], Tensor] = lambda rows: rows.mean(1),
    rows_of: Callable[[Tensor, int], Tensor] = lambda y, k: y == k,
    loss: Callable[[Tensor, Tensor], Tensor] = pair_loss,
    tail: Callable[[Tensor], Tensor] = lambda scores: scores,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns the method with one part replaced."""

    def method(
        encoder: nn.Module, weight: Tensor, bias: Tensor, support_x: Tensor, support_y: Tensor,
        query_x: Tensor, query_y: Tensor, n_way: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        support, query = embed(encoder, support_x, query_x)
        z = torch.cat([support, query])
        table = odds(query, support, weight, bias)
        scores = torch.stack([average(table[:, rows_of(support_y, k)]) for k in range(n_way)], dim=1)
        first, second, same = all_pairs(torch.cat([support_y, query_y]))
        return tail(scores), loss(odds(z, z, weight, bias)[first, second], same)

    return method


def _siamese_prototypes(
    encoder: nn.Module, weight: Tensor, bias: Tensor, support_x: Tensor, support_y: Tensor,
    query_x: Tensor, query_y: Tensor, n_way: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    _, loss = siamese(encoder, weight, bias, support_x, support_y, query_x, query_y, n_way)
    z = encoder(support_x)
    means = torch.stack([z[support_y == k].mean(0) for k in range(n_way)])
    return log_odds(encoder(query_x), means, weight, bias), loss


def _siamese_reshaped(
    encoder: nn.Module, weight: Tensor, bias: Tensor, support_x: Tensor, support_y: Tensor,
    query_x: Tensor, query_y: Tensor, n_way: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    _, loss = siamese(encoder, weight, bias, support_x, support_y, query_x, query_y, n_way)
    return log_odds(encoder(query_x), encoder(support_x), weight, bias).view(len(query_x), n_way, -1).mean(2), loss


def _siamese_cross(
    encoder: nn.Module, weight: Tensor, bias: Tensor, support_x: Tensor, support_y: Tensor,
    query_x: Tensor, query_y: Tensor, n_way: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    scores, _ = siamese(encoder, weight, bias, support_x, support_y, query_x, query_y, n_way)
    table = log_odds(encoder(query_x), encoder(support_x), weight, bias)
    return scores, pair_loss(table.flatten(), (query_y[:, None] == support_y).flatten())


def _siamese_softmax(
    encoder: nn.Module, weight: Tensor, bias: Tensor, support_x: Tensor, support_y: Tensor,
    query_x: Tensor, query_y: Tensor, n_way: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    scores, _ = siamese(encoder, weight, bias, support_x, support_y, query_x, query_y, n_way)
    return scores, F.cross_entropy(scores, query_y)


def _siamese_diagonal(
    encoder: nn.Module, weight: Tensor, bias: Tensor, support_x: Tensor, support_y: Tensor,
    query_x: Tensor, query_y: Tensor, n_way: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    scores, _ = siamese(encoder, weight, bias, support_x, support_y, query_x, query_y, n_way)
    z, y = encoder(torch.cat([support_x, query_x])), torch.cat([support_y, query_y])
    return scores, pair_loss(log_odds(z, z, weight, bias).flatten(), (y[:, None] == y).flatten())


def _memory_cases(generator: Generator) -> list[Case]:
    def case(says: str, shots: list[int], queries: int, certain: bool = False) -> Case:
        support_y = torch.cat([torch.full((shot,), k) for k, shot in enumerate(shots)])
        support_y = support_y[torch.randperm(len(support_y), generator=generator)]
        pictures = torch.rand(len(support_y) + queries, 1, 4, 4, generator=generator)
        query_y = torch.randint(len(shots), (queries,), generator=generator)
        weight, bias = 3 * torch.randn(5, generator=generator), torch.randn((), generator=generator)
        weight = -300 * weight.abs() if certain else weight
        support_x, query_x = pictures[: len(support_y)], pictures[len(support_y) :]
        return Case(says, (small_encoder(generator), weight, bias, support_x, support_y, query_x, query_y, len(shots)))

    return [
        case("5-way 2-shot, 10 queries, rows shuffled", [2] * 5, 10),
        case("unequal shots: 1, 4 and 2", [1, 4, 2], 6),
        case("one query", [1, 1, 1], 1),
        case("as many queries as classes", [3, 3, 3], 3),
        case("weights so large that many pairs are surely wrong", [2, 2, 2], 4, certain=True),
    ]


MEMORY = Exercise(
    id="03.9",
    title="Siamese networks from memory",
    reference=siamese,
    cases=_memory_cases,
    properties=(Property("the loss teaches the encoder through both pictures", teaches_encoder(_memory_cases)),),
    right=(_siamese_apart, _siamese_table, _siamese_by_sums, _siamese_in_loops),
    wrong=(
        Wrong(
            "embeddings averaged",
            _siamese_prototypes,
            "the support embeddings of a class are averaged before they are compared: another method",
            "Compare the query with every support picture, then average the log-odds of each class.",
        ),
        Wrong(
            "best shot",
            _flawed(average=lambda rows: rows.amax(1)),
            "the most similar support picture speaks for its class",
            "Average over all shots of the class.",
        ),
        Wrong(
            "sum of the shots",
            _flawed(average=lambda rows: rows.sum(1)),
            "the shots are summed: a class with more of them gets another scale",
            "`.mean(1)` over the columns of a class.",
        ),
        Wrong(
            "sorted rows assumed",
            _flawed(rows_of=lambda y, k: y.sort().values == k),
            "the support is taken to be sorted by label",
            "Choose the columns of class k with `support_y == k`.",
            also=(_siamese_reshaped,),
        ),
        Wrong(
            "probabilities",
            _flawed(tail=torch.sigmoid),
            "probabilities are returned as scores",
            "Return the mean log-odds.",
            also=(_flawed(tail=lambda scores: scores.softmax(1)),),
        ),
        Wrong(
            "mean of the probabilities",
            _flawed(average=lambda rows: rows.sigmoid().mean(1)),
            "the shots' probabilities are averaged, not their log-odds: −5 and −15 both count as nearly 0",
            "Take the mean of the log-odds, without a sigmoid.",
            also=(_flawed(average=lambda rows: rows.sigmoid().mean(1).logit()),),
        ),
        Wrong(
            "plain mean",
            _flawed(loss=lambda s, same: F.binary_cross_entropy_with_logits(s, same.to(s.dtype))),
            "all pairs weigh the same, and nearly all of them are unequal",
            "Half the mean over equal pairs plus half the mean over unequal ones.",
        ),
        Wrong(
            "logarithm of the sigmoid",
            _flawed(loss=_log_of_sigmoid),
            "the logarithm is taken of a number out of range, 0 or infinity: pairs that are surely wrong cost infinity",
            "`F.softplus(-s)` or `F.binary_cross_entropy_with_logits`, as in 03.3.",
        ),
        Wrong(
            "cross-entropy of probabilities",
            _flawed(loss=_bce_of_sigmoid(lambda p: p)),
            "the cross-entropy sees probabilities, which are cut off where a pair is surely wrong",
            "`F.softplus(-s)` or `F.binary_cross_entropy_with_logits`, as in 03.3.",
            also=(_flawed(loss=_bce_of_sigmoid(lambda p: p.clamp(1e-6, 1 - 1e-6))),),
        ),
        Wrong(
            "labels turned round",
            _flawed(loss=lambda s, same: pair_loss(s, ~same)),
            "equal pairs are pushed apart: the target of an equal pair is 1",
            "−log σ(s) where the labels agree.",
        ),
        Wrong(
            "squares",
            _flawed(odds=lambda a, b, w, bias: (a[:, None] - b).square() @ w + bias),
            "the differences are squared",
            "`.abs()` in place of `.square()`.",
        ),
        Wrong(
            "two means added",
            _flawed(loss=lambda s, same: 2 * pair_loss(s, same)),
            "the two means are added without the halves: twice the loss",
            "Half of each mean.",
        ),
        Wrong(
            "no bias",
            _flawed(odds=lambda a, b, w, bias: (a[:, None] - b).abs() @ w),
            "the bias is left out",
            "Add `bias` to every log-odds.",
            also=(
                lambda *given: (siamese(*given)[0] - given[2], siamese(*given)[1]),
                lambda *given: (siamese(*given)[0], siamese(given[0], given[1], 0 * given[2], *given[3:])[1]),
            ),
        ),
        Wrong(
            "query against support only",
            _siamese_cross,
            "the loss sees only pairs of a query with a support picture",
            "All pairs of all pictures of the episode: support and query together.",
        ),
        Wrong(
            "softmax over the classes",
            _siamese_softmax,
            "the loss is a cross-entropy over the classes of the episode: that is what later methods do",
            "This method learns from pairs alone: equal or not.",
        ),
        Wrong(
            "diagonal",
            _siamese_diagonal,
            "every picture is also paired with itself",
            "Leave out the diagonal: `torch.triu_indices(B, B, 1)`.",
        ),
        Wrong(
            "signed differences",
            _flawed(odds=lambda a, b, w, bias: (a[:, None] - b) @ w + bias),
            "the differences keep their sign",
            "`.abs()` before the weights.",
        ),
        Wrong(
            "one twin learns",
            _flawed(embed=lambda f, s, q: (f(s).detach(), f(q))),
            "the support is embedded without gradient",
            "The twins are one encoder: no detach and no no_grad.",
        ),
    ),
    hints=(
        "Embed everything once. One table of log-odds serves the scores and the loss.",
        "Scores: mean of the columns with `support_y == k`. Loss: all pairs above the diagonal, balanced.",
        "`table = (z[:, None] - z).abs() @ weight + bias`; scores from `table[S:, :S]`, pairs from `triu_indices`.",
    ),
)

EXERCISES = (ALL_PAIRS, LOG_ODDS, PAIR_LOSS, CONTRASTIVE, FAIR, SAMPLER, SEMI_HARD, NAN, MEMORY)
