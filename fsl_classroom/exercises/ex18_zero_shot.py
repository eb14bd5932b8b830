"""Exercises of lesson 18: agreeing descriptions, DAP, ESZSL, seen against unseen classes, and a detector of searches that forget.

Cases: every exercise builds its own. The detector 18.5 gets an implementation as an argument and must return True for the broken
ones only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Wrong

# ---------------------------------------------------------------------------------------------- 18.1 agreement


def agreement(predicted: Tensor, attributes: Tensor) -> Tensor:
    """Returns the share of attributes on which picture and description agree. [M, A], [N, A] of 0 and 1 -> [M, N]."""
    return (predicted[:, None] == attributes).to(predicted.dtype).mean(2)


def _agreement_by_products(predicted: Tensor, attributes: Tensor) -> Tensor:
    both = predicted @ attributes.T + (1 - predicted) @ (1 - attributes).T
    return both / predicted.shape[1]


def _agreement_by_distance(predicted: Tensor, attributes: Tensor) -> Tensor:
    return 1 - torch.stack([(row - attributes).abs().mean(1) for row in predicted])


def _agreement_by_loops(predicted: Tensor, attributes: Tensor) -> Tensor:
    found = torch.zeros(len(predicted), len(attributes), dtype=predicted.dtype)
    for m, row in enumerate(predicted.tolist()):
        for k, words in enumerate(attributes.tolist()):
            found[m, k] = sum(a == b for a, b in zip(row, words, strict=True)) / len(row)
    return found


def _agreement_by_signs(predicted: Tensor, attributes: Tensor) -> Tensor:
    signs = torch.einsum("ma,na->mn", 2 * predicted - 1, 2 * attributes - 1)
    return (signs / predicted.shape[1] + 1) / 2


def _agreement_cases(generator: Generator) -> list[Case]:
    def bits(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return (torch.rand(rows, columns, generator=generator) < 0.45).to(dtype)

    paper = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    return [
        Case("the example on paper: yes, no, yes against two descriptions", paper),
        Case("5 pictures, 4 classes, 7 attributes", (bits(5, 7), bits(4, 7))),
        Case("as many pictures as classes and attributes", (bits(4, 4), bits(4, 4))),
        Case("one class", (bits(3, 6), bits(1, 6))),
        Case("float64", (bits(3, 5, torch.float64), bits(2, 5, torch.float64))),
    ]


AGREEMENT = Exercise(
    id="18.1",
    title="Agreement",
    reference=agreement,
    cases=_agreement_cases,
    right=(_agreement_by_products, _agreement_by_distance, _agreement_by_loops, _agreement_by_signs),
    wrong=(
        Wrong(
            "common yes only",
            lambda p, a: p @ a.T / p.shape[1],
            "only attributes that hold for both are counted: two that both lack agree as well",
            "Count where both are 1 and where both are 0.",
            also=(
                lambda p, a: p @ a.T,
                lambda p, a: p @ a.T / a.sum(1).clamp_min(1),
                lambda p, a: p @ a.T / p.sum(1, keepdim=True).clamp_min(1),
                lambda p, a: p @ a.T / a.sum(1),
                lambda p, a: F.normalize(p, dim=1) @ F.normalize(a, dim=1).T,
            ),
        ),
        Wrong(
            "counts",
            lambda p, a: (p[:, None] == a).to(p.dtype).sum(2),
            "the number of agreeing attributes is returned, not their share",
            "Divide by the number of attributes, or take the mean.",
            also=(lambda p, a: (p[:, None] == a).sum(2),),
        ),
        Wrong(
            "disagreement",
            lambda p, a: (p[:, None] != a).to(p.dtype).mean(2),
            "the share of attributes that differ is returned",
            "`==` in place of `!=`, or one minus the share.",
            also=(lambda p, a: -(p[:, None] - a).abs().mean(2), lambda p, a: (p[:, None] - a).abs().sum(2)),
        ),
        Wrong(
            "transposed",
            lambda p, a: agreement(p, a).T,
            "rows and columns are exchanged",
            "One row for each picture, one column for each class: [M, N].",
        ),
        Wrong(
            "mean over the classes",
            lambda p, a: (p[:, None] == a).to(p.dtype).mean(1),
            "the mean runs over the classes, not over the attributes",
            "[M, N, A]: the attributes are the last axis.",
            also=(lambda p, a: (p[:, None] == a).to(p.dtype).mean(0),),
        ),
        Wrong(
            "all or nothing",
            lambda p, a: (p[:, None] == a).all(2).to(p.dtype),
            "only a class that agrees in every attribute scores",
            "Count how many agree: `.mean(2)` in place of `.all(2)`.",
        ),
        Wrong(
            "signs not shifted",
            lambda p, a: (2 * p - 1) @ (2 * a - 1).T / p.shape[1],
            "agreements minus disagreements are returned, from -1 to 1",
            "With s from -1 to 1, the share that agrees is (s + 1) / 2.",
            also=(lambda p, a: (2 * p - 1) @ (2 * a - 1).T,),
        ),
        Wrong(
            "the best class",
            lambda p, a: agreement(p, a).argmax(1),
            "the best class is returned, not the shares",
            "Return the whole table [M, N].",
            also=(lambda p, a: agreement(p, a).max(1).values,),
        ),
        Wrong(
            "divided by the classes",
            lambda p, a: (p[:, None] == a).to(p.dtype).sum(2) / len(a),
            "the number that agree is divided by the number of classes or pictures",
            "Divide by the number of attributes, `predicted.shape[1]`.",
            also=(lambda p, a: (p[:, None] == a).to(p.dtype).sum(2) / len(p),),
        ),
        Wrong(
            "percent",
            lambda p, a: 100 * agreement(p, a),
            "the share is in percent",
            "A fraction from 0 to 1.",
        ),
        Wrong(
            "over those that either has",
            lambda p, a: p @ a.T / ((p[:, None] + a) > 0).to(p.dtype).sum(2).clamp_min(1),
            "common attributes are divided by those that either has: attributes that both lack are left out",
            "Count where both say the same, yes or no, and divide by all attributes.",
        ),
        Wrong(
            "either",
            lambda p, a: ((p[:, None] + a) > 0).to(p.dtype).mean(2),
            "an attribute counts where picture or description has it",
            "It counts where both say the same.",
        ),
        Wrong(
            "common no only",
            lambda p, a: (1 - p) @ (1 - a).T / p.shape[1],
            "only attributes that both lack are counted",
            "Count where both are 1 and where both are 0.",
        ),
        Wrong(
            "softmax",
            lambda p, a: agreement(p, a).softmax(1),
            "the shares of a picture are made to sum to one over the classes",
            "The share itself is asked for.",
            also=(lambda p, a: agreement(p, a) / agreement(p, a).sum(1, keepdim=True),),
        ),
        Wrong(
            "attributes not turned round",
            lambda p, a: (p @ a.T + (1 - p) @ a.T) / p.shape[1],
            "the second product takes `attributes` where it should take `1 - attributes`: the picture then drops out",
            "Both lack an attribute where 1 - predicted and 1 - attributes are 1.",
            also=(lambda p, a: (p @ a.T + p @ (1 - a).T) / p.shape[1],),
        ),
        Wrong(
            "Euclidean distance",
            lambda p, a: 1 - torch.cdist(p, a) / p.shape[1],
            "the distance is Euclidean: its root no longer counts attributes",
            "The sum of |predicted - attributes| counts those that differ: `torch.cdist(..., p=1)`.",
            also=(
                lambda p, a: 1 - torch.cdist(p, a) / p.shape[1] ** 0.5,
                lambda p, a: 1 - torch.cdist(p, a),
            ),
        ),
    ),
    hints=(
        "For one picture and one class: on how many attributes do they say the same?",
        "`predicted[:, None] == attributes` has shape [M, N, A]. Then a mean over the attributes.",
        "`(predicted[:, None] == attributes).float().mean(2)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 18.2 DAP


def dap(probability: Tensor, attributes: Tensor, prior: Tensor) -> Tensor:
    """Returns the log of prod_a p(a_k | x) / p(a_k). [M, A], [N, A] of 0 and 1, [A] -> [M, N]."""
    holds = probability.log() - prior.log()
    lacks = (1 - probability).log() - (1 - prior).log()
    return holds @ attributes.T + lacks @ (1 - attributes).T


def _dap_by_loops(probability: Tensor, attributes: Tensor, prior: Tensor) -> Tensor:
    table = []
    for p in probability:
        row: list[Tensor] = []
        for words in attributes:
            total = torch.zeros((), dtype=p.dtype)
            for a in range(len(words)):
                total = total + (torch.log(p[a] / prior[a]) if words[a] else torch.log((1 - p[a]) / (1 - prior[a])))
            row.append(total)
        table.append(torch.stack(row))
    return torch.stack(table)


def _dap_by_where(probability: Tensor, attributes: Tensor, prior: Tensor) -> Tensor:
    p, there = probability[:, None], attributes.bool()
    return (torch.where(there, p, 1 - p).log() - torch.where(there, prior, 1 - prior).log()).sum(2)


def _dap_by_odds(probability: Tensor, attributes: Tensor, prior: Tensor) -> Tensor:
    odds = probability.logit() - prior.logit()
    rest = ((1 - probability) / (1 - prior)).log().sum(1, keepdim=True)
    return odds @ attributes.T + rest


def _dap_by_powers(probability: Tensor, attributes: Tensor, prior: Tensor) -> Tensor:
    p, a = probability.unsqueeze(1), attributes.unsqueeze(0)
    return torch.einsum("mna->mn", a * (p / prior).log() + (1 - a) * ((1 - p) / (1 - prior)).log())


def _dap_cases(generator: Generator) -> list[Case]:
    def drawn(m: int, n: int, a: int) -> tuple[Tensor, Tensor, Tensor]:
        numbers = 0.05 + 0.9 * torch.rand(m + 1, a, generator=generator)
        return numbers[:m], (torch.rand(n, a, generator=generator) < 0.5).float(), numbers[m]

    paper = torch.tensor([[0.9, 0.2]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.5, 0.1])
    usual, square, many, bold = drawn(4, 3, 5), drawn(3, 3, 3), drawn(2, 3, 200), drawn(3, 4, 6)
    edge = torch.tensor([5e-4, 0.9995, 0.3, 2e-4, 0.6, 0.9998])
    bold = torch.stack([edge, edge.flip(0), edge.roll(2)]), bold[1], edge.roll(1)
    sure = many[0].clamp(max=0.3) * 0.2, torch.ones(3, 200) - many[1] * (torch.arange(200) < 40), many[2]
    return [
        Case("the example on paper", paper),
        Case("4 pictures, 3 classes, 5 attributes", usual),
        Case("as many pictures as classes and attributes", square),
        Case("one picture", (usual[0][:1], *usual[1:])),
        Case("200 attributes, most of them unlikely, so that a product is too small for a number", sure),
        Case("probabilities and priors close to 0 and 1", bold),
        Case("float64", tuple(t.double() for t in usual)),
    ]


def _product(p: Tensor, a: Tensor) -> Tensor:
    return p[:, None] ** a * (1 - p[:, None]) ** (1 - a)


def _padded(p: Tensor, a: Tensor, q: Tensor, e: float) -> Tensor:
    """The scores with a small number added inside each logarithm."""
    return ((p + e).log() - (q + e).log()) @ a.T + ((1 - p + e).log() - (1 - q + e).log()) @ (1 - a).T


def _dap_in_numbers(probability: Tensor, attributes: Tensor, prior: Tensor) -> Tensor:
    """Plain numbers: no gradient is asked for."""
    table = torch.zeros(len(probability), len(attributes))
    for m, k in itertools.product(range(len(probability)), range(len(attributes))):
        for p, a, q in zip(probability[m].tolist(), attributes[k].tolist(), prior.tolist(), strict=True):
            table[m, k] += math.log(p / q) if a == 1 else math.log((1 - p) / (1 - q))
    return table.to(probability.dtype)


def _dap_by_entropies(probability: Tensor, attributes: Tensor, prior: Tensor) -> Tensor:
    shape = (len(probability), *attributes.shape)
    said = attributes.expand(shape)
    of = lambda p: F.binary_cross_entropy(p.expand(shape), said, reduction="none").sum(2)  # noqa: E731
    return of(prior) - of(probability[:, None])


DAP = Exercise(
    id="18.2",
    title="Direct attribute prediction",
    reference=dap,
    cases=_dap_cases,
    right=(_dap_by_loops, _dap_by_where, _dap_by_odds, _dap_by_powers, _dap_in_numbers, _dap_by_entropies),
    wrong=(
        Wrong(
            "no prior",
            lambda p, a, q: p.log() @ a.T + (1 - p).log() @ (1 - a).T,
            "the prior is missing: an attribute that nearly every class has counts like a rare one",
            "Divide each probability by how often that value occurs: subtract its logarithm.",
            also=(lambda p, a, q: _product(p, a).prod(2).log(), lambda p, a, q: _product(p, a).prod(2)),
        ),
        Wrong(
            "present attributes only",
            lambda p, a, q: (p.log() - q.log()) @ a.T,
            "only attributes that the class has are counted; those that it lacks say something, too",
            "Add the terms with 1 - p and 1 - prior where the description says 0.",
            also=(
                lambda p, a, q: p.log() @ a.T,
                lambda p, a, q: ((p / q)[:, None] * a).sum(2),
                lambda p, a, q: ((p / q)[:, None] ** a).prod(2).log(),
                lambda p, a, q: p.logit() @ a.T,
            ),
        ),
        Wrong(
            "one prior for both values",
            lambda p, a, q: (p.log() - q.log()) @ a.T + ((1 - p).log() - q.log()) @ (1 - a).T,
            "a missing attribute is divided by how often it is present",
            "Where the description says 0, the prior is 1 - prior.",
            also=(lambda p, a, q: (_product(p, a) / q).prod(2).log(),),
        ),
        Wrong(
            "prior multiplied",
            lambda p, a, q: (p.log() + q.log()) @ a.T + ((1 - p).log() + (1 - q).log()) @ (1 - a).T,
            "the prior is multiplied in, not divided out",
            "Minus the logarithm of the prior.",
            also=(lambda p, a, q: dap(q.expand_as(p), a, 0 * q + 0.5) + _product(p, a).log().sum(2),),
        ),
        Wrong(
            "prior of present ones only",
            lambda p, a, q: (p.log() - q.log()) @ a.T + (1 - p).log() @ (1 - a).T,
            "only attributes that the class has are divided by a prior",
            "Where the description says 0, divide 1 - p by 1 - prior.",
        ),
        Wrong(
            "sum of probabilities",
            lambda p, a, q: p @ a.T + (1 - p) @ (1 - a).T,
            "probabilities are added where they should be multiplied",
            "A product, so the sum of logarithms.",
        ),
        Wrong(
            "upside down",
            lambda p, a, q: -dap(p, a, q),
            "numerator and denominator have changed places: the best class scores lowest",
            "The probability stands above, the prior below.",
        ),
        Wrong(
            "mean",
            lambda p, a, q: dap(p, a, q) / p.shape[1],
            "the logarithms are averaged and not summed",
            "The logarithm of a product is a sum.",
        ),
        Wrong(
            "product",
            lambda p, a, q: (_product(p, a) / _product(q[None], a)).prod(2),
            "the product is returned, not its logarithm",
            "Sum the logarithms.",
            also=(lambda p, a, q: (_product(p, a) / _product(q[None], a)).sum(2),),
        ),
        Wrong(
            "logarithm of a product",
            lambda p, a, q: (_product(p, a) / _product(q[None], a)).prod(2).log(),
            "all factors are multiplied first: of 200 small ones the product rounds to 0, and its logarithm is minus infinity",
            "Take the logarithm of each factor, then sum.",
            also=(
                lambda p, a, q: _product(p, a).prod(2).log() - _product(q[None], a).prod(2).log(),
                lambda p, a, q: (_product(p, a) / _product(q[None], a)).prod(2).clamp_min(1e-38).log(),
            ),
        ),
        Wrong(
            "missing ones subtracted",
            lambda p, a, q: (p.log() - q.log()) @ a.T - ((1 - p).log() - (1 - q).log()) @ (1 - a).T,
            "the terms of missing attributes are subtracted",
            "Both kinds of terms are added.",
            also=(lambda p, a, q: (p.log() - q.log()) @ (2 * a - 1).T,),
        ),
        Wrong(
            "p for both values",
            lambda p, a, q: ((p / q).log().sum(1, keepdim=True)).expand(-1, len(a)).clone(),
            "the description is not looked at: every class gets the same score",
            "Where the description says 0, take 1 - p.",
            also=(lambda p, a, q: (p.log() - q.log()) @ a.T + (p.log() - (1 - q).log()) @ (1 - a).T,),
        ),
        Wrong(
            "descriptions turned round",
            lambda p, a, q: dap(p, 1 - a, q),
            "0 and 1 of the descriptions have changed places",
            "1 means that the class has the attribute: take p there.",
        ),
        Wrong(
            "softmax",
            lambda p, a, q: dap(p, a, q).softmax(1),
            "a softmax is taken over the classes",
            "The logarithms themselves are asked for.",
            also=(lambda p, a, q: dap(p, a, q).log_softmax(1),),
        ),
        Wrong(
            "transposed",
            lambda p, a, q: dap(p, a, q).T,
            "rows and columns are exchanged",
            "One row for each picture, one column for each class: [M, N].",
        ),
        Wrong(
            "sigmoid again",
            lambda p, a, q: dap(p.sigmoid(), a, q),
            "the probabilities pass through a sigmoid, as if they were log-odds",
            "`probability` is one already.",
        ),
        Wrong(
            "hard decisions",
            lambda p, a, q: dap((p > 0.5).to(p.dtype).clamp(1e-6, 1 - 1e-6), a, q),
            "each attribute is first decided, so doubt no longer counts",
            "Use the probabilities as they are.",
            also=(
                lambda p, a, q: ((p > 0.5).to(p.dtype)[:, None] == a).to(p.dtype).mean(2),
                lambda p, a, q: dap((p > 0.5).float().clamp(1e-6, 1 - 1e-6), a, q),
                lambda p, a, q: dap((p > 0.5).to(p.dtype), a, q),
            ),
        ),
        Wrong(
            "other logarithm",
            lambda p, a, q: dap(p, a, q) / torch.log(torch.tensor(2.0, dtype=p.dtype)),
            "the logarithm has another base",
            "`torch.log` is the natural logarithm.",
            also=(lambda p, a, q: dap(p, a, q) / torch.log(torch.tensor(10.0, dtype=p.dtype)),),
        ),
        Wrong(
            "prior of missing ones only",
            lambda p, a, q: p.log() @ a.T + ((1 - p).log() - (1 - q).log()) @ (1 - a).T,
            "only attributes that the class lacks are divided by a prior",
            "Where the description says 1, divide p by the prior.",
        ),
        Wrong(
            "common terms left out",
            lambda p, a, q: (p.logit() - q.logit()) @ a.T,
            "terms that all classes share are left out: the order of the classes is right, the logarithm of (1) is not",
            "Add the sum of log((1 - p) / (1 - prior)) over all attributes.",
        ),
        Wrong(
            "prior of the classes at hand",
            lambda p, a, q: dap(p, a, a.mean(0).clamp(0.01, 0.99)),
            "the prior is computed from the descriptions that are scored",
            "Use the argument `prior`: it comes from the training classes.",
            also=(lambda p, a, q: dap(p, a, a.mean(0)), lambda p, a, q: dap(p, a, a.mean(0).clamp(1e-6, 1 - 1e-6))),
        ),
        Wrong(
            "ratio of logarithms",
            lambda p, a, q: (p.log() / q.log()) @ a.T + ((1 - p).log() / (1 - q).log()) @ (1 - a).T,
            "logarithms are divided by each other",
            "The logarithm of a ratio is a difference: log p - log prior.",
        ),
        Wrong(
            "logarithm of a sum",
            lambda p, a, q: ((p / q) @ a.T + ((1 - p) / (1 - q)) @ (1 - a).T).log(),
            "the ratios are added, and the logarithm is taken of their sum",
            "The logarithm of each ratio first, then the sum.",
        ),
        Wrong(
            "log1p of the ratio",
            lambda p, a, q: torch.log1p(p / q) @ a.T + torch.log1p((1 - p) / (1 - q)) @ (1 - a).T,
            "1 is added to each ratio before its logarithm",
            "`torch.log`, or `log1p(-p)` for log(1 - p).",
            also=(lambda p, a, q: (p.log1p() - q.log1p()) @ a.T + ((1 - p).log1p() - (1 - q).log1p()) @ (1 - a).T,),
        ),
        Wrong(
            "a small number added",
            lambda p, a, q: _padded(p, a, q, 1e-3),
            "a small number is added inside the logarithms, so that all scores are a little off",
            "Probabilities lie strictly between 0 and 1: their logarithms are finite.",
            also=(
                *(lambda p, a, q, e=e: _padded(p, a, q, e) for e in (1e-2, 1e-4, 1e-5, 1e-6)),
                *(
                    lambda p, a, q, e=e: (p / q + e).log() @ a.T + ((1 - p) / (1 - q) + e).log() @ (1 - a).T
                    for e in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
                ),
            ),
        ),
        Wrong(
            "clamped",
            lambda p, a, q: dap(p.clamp(0.01, 0.99), a, q.clamp(0.01, 0.99)),
            "probabilities or priors are clamped, so that sure ones count too little",
            "Take them as they are: they lie strictly between 0 and 1.",
            also=(
                *(lambda p, a, q, e=e: dap(p.clamp(e, 1 - e), a, q.clamp(e, 1 - e)) for e in (0.1, 0.05, 1e-3)),
                *(lambda p, a, q, e=e: dap(p.clamp(e, 1 - e), a, q) for e in (0.1, 0.05, 0.01, 1e-3)),
                *(lambda p, a, q, e=e: dap(p, a, q.clamp(e, 1 - e)) for e in (0.1, 0.05, 0.01, 1e-3)),
            ),
        ),
    ),
    hints=(
        "The logarithm turns the product into a sum, one term for each attribute. What is the term where the description says 0?",
        "Two tables of terms [M, A]: one for attributes that hold, one for those that do not. A matrix product with "
        "`attributes.T`, or with `1 - attributes.T`, sums the right ones.",
        "`(p.log() - prior.log()) @ attributes.T + ((1 - p).log() - (1 - prior).log()) @ (1 - attributes).T`",
    ),
)

# ---------------------------------------------------------------------------------------------- 18.3 ESZSL


def eszsl(x: Tensor, targets: Tensor, attributes: Tensor, gamma: float, lam: float) -> Tensor:
    """Returns V = (Xt X + gamma I)^-1 Xt Y S (St S + lam I)^-1. x [M, D], targets [M, N], attributes [N, A] -> [D, A]."""
    left = x.T @ x + gamma * torch.eye(x.shape[1], dtype=x.dtype)
    right = attributes.T @ attributes + lam * torch.eye(attributes.shape[1], dtype=x.dtype)
    return torch.linalg.solve(right, torch.linalg.solve(left, x.T @ targets @ attributes).T).T


def _eszsl_by_inverses(x: Tensor, targets: Tensor, attributes: Tensor, gamma: float, lam: float) -> Tensor:
    left = torch.linalg.inv(x.T @ x + torch.diag(torch.full((x.shape[1],), gamma, dtype=x.dtype)))
    right = (attributes.T @ attributes + lam * torch.eye(attributes.shape[1]).to(x.dtype)).inverse()
    return left @ (x.T @ (targets @ attributes)) @ right


def _eszsl_by_cholesky(x: Tensor, targets: Tensor, attributes: Tensor, gamma: float, lam: float) -> Tensor:
    a = torch.linalg.cholesky(x.T @ x + gamma * torch.eye(x.shape[1], dtype=x.dtype))
    b = torch.linalg.cholesky(attributes.T @ attributes + lam * torch.eye(attributes.shape[1], dtype=x.dtype))
    half = torch.cholesky_solve(x.T @ targets @ attributes, a)
    return torch.cholesky_solve(half.T, b).T


def _eszsl_by_eigenvectors(x: Tensor, targets: Tensor, attributes: Tensor, gamma: float, lam: float) -> Tensor:
    e, u = torch.linalg.eigh(x.T @ x)
    f, w = torch.linalg.eigh(attributes.T @ attributes)
    middle = u.T @ x.T @ targets @ attributes @ w
    return u @ (middle / ((e + gamma)[:, None] * (f + lam))) @ w.T


def _eszsl_by_kronecker(x: Tensor, targets: Tensor, attributes: Tensor, gamma: float, lam: float) -> Tensor:
    left = x.T @ x + gamma * torch.eye(x.shape[1], dtype=x.dtype)
    right = attributes.T @ attributes + lam * torch.eye(attributes.shape[1], dtype=x.dtype)
    long = torch.linalg.solve(torch.kron(left, right), (x.T @ targets @ attributes).reshape(-1))
    return long.reshape(x.shape[1], attributes.shape[1])


def _eye(n: int, like: Tensor) -> Tensor:
    return torch.eye(n, dtype=like.dtype)


def _parts(x: Tensor, y: Tensor, s: Tensor, gamma: float, lam: float, right: bool = True) -> Tensor:
    """The formula with the parts that are given."""
    left = torch.linalg.solve(x.T @ x + gamma * _eye(x.shape[1], x), x.T @ y @ s)
    return left @ torch.linalg.inv(s.T @ s + lam * _eye(s.shape[1], x)) if right else left


def _inverses(x: Tensor, y: Tensor, s: Tensor, gamma: float, lam: float) -> Tensor:
    """The formula by two inverses, whose complaints about a singular matrix differ from those of solve."""
    left = torch.linalg.inv(x.T @ x + gamma * _eye(x.shape[1], x))
    return left @ x.T @ y @ s @ torch.linalg.inv(s.T @ s + lam * _eye(s.shape[1], x))


def _parts_cut(x: Tensor, y: Tensor, s: Tensor, gamma: float, lam: float, *, left: bool, right: bool) -> Tensor:
    """The formula with one matrix, or both, cut off from the graph."""
    a, b = x.T @ x + gamma * _eye(x.shape[1], x), s.T @ s + lam * _eye(s.shape[1], x)
    half = torch.linalg.solve(a.detach() if left else a, x.T @ y @ s)
    return half @ torch.linalg.inv(b.detach() if right else b)


def _ridge(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    return torch.linalg.solve(x.T @ x + penalty * _eye(x.shape[1], x), x.T @ y)


def _one_system(x: Tensor, y: Tensor, s: Tensor, penalty: float) -> Tensor:
    """One large system with a single constant on its diagonal."""
    large = torch.kron((x.T @ x).contiguous(), (s.T @ s).contiguous())
    long = torch.linalg.solve(large + penalty * _eye(len(large), x), (x.T @ y @ s).reshape(-1))
    return long.reshape(x.shape[1], s.shape[1])


def _eszsl_by_two_ridges(x: Tensor, targets: Tensor, attributes: Tensor, gamma: float, lam: float) -> Tensor:
    """Ridge regression on the pictures, and then one on the descriptions."""
    return _ridge(attributes, _ridge(x, targets, gamma).T, lam).T


def _eszsl_cases(generator: Generator) -> list[Case]:
    def drawn(m: int, d: int, n: int, a: int) -> tuple[Tensor, Tensor, Tensor]:
        labels = torch.randint(n, (m,), generator=generator)
        targets = 2 * F.one_hot(labels, n).float() - 1
        return torch.randn(m, d, generator=generator), targets, torch.randn(n, a, generator=generator)

    usual, square, few = drawn(12, 3, 5, 4), drawn(9, 3, 3, 3), drawn(6, 2, 4, 2)
    paper = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.tensor([[1.0], [0.0]])
    return [
        Case("the example on paper", (*paper, 1.0, 1.0)),
        Case("12 pictures, 3 features, 5 classes, 4 attributes", (*usual, 0.5, 2.0)),
        Case("as many features as classes and attributes", (*square, 3.0, 0.7)),
        Case("one and the same constant for both", (*few, 1.5, 1.5)),
        Case("float64", (*(t.double() for t in usual), 0.5, 2.0)),
    ]


ESZSL = Exercise(
    id="18.3",
    title="A bilinear map in closed form",
    reference=eszsl,
    cases=_eszsl_cases,
    gradient=(0, 2),
    tolerance=1e-4,
    right=(_eszsl_by_inverses, _eszsl_by_cholesky, _eszsl_by_eigenvectors, _eszsl_by_kronecker, _eszsl_by_two_ridges),
    wrong=(
        Wrong(
            "constants exchanged",
            lambda x, y, s, g, lam: eszsl(x, y, s, lam, g),
            "gamma and lambda have changed places",
            "gamma stands beside the pictures, lambda beside the descriptions.",
        ),
        Wrong(
            "no right factor",
            lambda x, y, s, g, lam: _parts(x, y, s, g, lam, right=False),
            "the right factor, the inverse beside the descriptions, is missing",
            "Multiply from the right by the inverse of St S + lambda I.",
        ),
        Wrong(
            "no left factor",
            lambda x, y, s, g, lam: x.T @ y @ s @ torch.linalg.inv(s.T @ s + lam * _eye(s.shape[1], x)),
            "the left factor, the inverse beside the pictures, is missing",
            "Multiply from the left by the inverse of Xt X + gamma I.",
        ),
        Wrong(
            "no inverse",
            lambda x, y, s, g, lam: (
                (x.T @ x + g * _eye(x.shape[1], x)) @ x.T @ y @ s @ (s.T @ s + lam * _eye(s.shape[1], x))
            ),
            "the factors are multiplied as they are, without the inverse",
            "Solve with them: `torch.linalg.solve`.",
            also=(lambda x, y, s, g, lam: x.T @ y @ s,),
        ),
        Wrong(
            "minus",
            lambda x, y, s, g, lam: eszsl(x, y, s, -g, -lam),
            "the constants are subtracted from the diagonal",
            "`+ gamma * torch.eye(D)`: adding keeps the matrices invertible.",
            also=(
                lambda x, y, s, g, lam: eszsl(x, y, s, -g, lam),
                lambda x, y, s, g, lam: eszsl(x, y, s, g, -lam),
                lambda x, y, s, g, lam: _inverses(x, y, s, -g, -lam),
                lambda x, y, s, g, lam: _inverses(x, y, s, g, -lam),
            ),
        ),
        Wrong(
            "no constants",
            lambda x, y, s, g, lam: eszsl(x, y, s, 0.0, 0.0),
            "the constants are left out: this is least squares without any penalty",
            "Add gamma and lambda on the diagonals before you solve.",
        ),
        Wrong(
            "lambda left out",
            lambda x, y, s, g, lam: eszsl(x, y, s, g, 0.0),
            "lambda is left out: only the side of the pictures is penalised",
            "Add lambda on the diagonal of St S.",
        ),
        Wrong(
            "gamma left out",
            lambda x, y, s, g, lam: eszsl(x, y, s, 0.0, lam),
            "gamma is left out: only the side of the descriptions is penalised",
            "Add gamma on the diagonal of Xt X.",
        ),
        Wrong(
            "descriptions left out",
            lambda x, y, s, g, lam: _ridge(x, y, g),
            "the descriptions are left out: this is ridge regression to the training classes alone",
            "The middle is Xt Y S, and a second inverse stands on its right.",
        ),
        Wrong(
            "one over each entry",
            lambda x, y, s, g, lam: _parts(x, y, s, g, lam, False) @ (1 / (s.T @ s + lam * _eye(s.shape[1], x))),
            "each entry of a matrix is inverted on its own: that is not the inverse of the matrix",
            "`torch.linalg.inv`, or `torch.linalg.solve`.",
            also=(
                lambda x, y, s, g, lam: (
                    (1 / (x.T @ x + g * _eye(x.shape[1], x)))
                    @ (x.T @ y @ s)
                    @ (1 / (s.T @ s + lam * _eye(s.shape[1], x)))
                ),
            ),
        ),
        Wrong(
            "constants outside the inverse",
            lambda x, y, s, g, lam: (
                (torch.linalg.pinv(x.T @ x) + g * _eye(x.shape[1], x))
                @ (x.T @ y @ s)
                @ (torch.linalg.pinv(s.T @ s) + lam * _eye(s.shape[1], x))
            ),
            "the constants are added after the inverse is taken",
            "Add them first, then invert or solve.",
        ),
        Wrong(
            "one penalty on the whole",
            lambda x, y, s, g, lam: _one_system(x, y, s, g * lam),
            "one constant stands on the diagonal of the large system, not gamma and lambda in the two factors",
            "Add gamma to Xt X and lambda to St S.",
            also=(lambda x, y, s, g, lam: _one_system(x, y, s, g + lam),),
        ),
        Wrong(
            "both constants on the left",
            lambda x, y, s, g, lam: torch.linalg.solve(x.T @ x + (g + lam) * _eye(x.shape[1], x), x.T @ y @ s),
            "both constants stand beside the pictures, and the right factor is missing",
            "lambda belongs to St S, whose inverse stands on the right.",
            also=(lambda x, y, s, g, lam: torch.linalg.solve(x.T @ x + g * lam * _eye(x.shape[1], x), x.T @ y @ s),),
        ),
        Wrong(
            "added everywhere",
            lambda x, y, s, g, lam: torch.linalg.pinv(x.T @ x + g) @ x.T @ y @ s @ torch.linalg.pinv(s.T @ s + lam),
            "the constants are added to every entry of the matrices, not to the diagonal",
            "`gamma * torch.eye(D)`.",
        ),
        Wrong(
            "transposed",
            lambda x, y, s, g, lam: eszsl(x, y, s, g, lam).T,
            "the map is turned: one row for each attribute",
            "[D, A]: one row for each feature.",
        ),
        Wrong(
            "classifiers",
            lambda x, y, s, g, lam: eszsl(x, y, s, g, lam) @ s.T,
            "the map is multiplied with the descriptions: these are the weights of the training classes alone, [D, N]",
            "Return V; new descriptions are put in later.",
        ),
        Wrong(
            "scores",
            lambda x, y, s, g, lam: x @ eszsl(x, y, s, g, lam) @ s.T,
            "the scores of the training pictures are returned",
            "Return the map V, [D, A].",
        ),
        Wrong(
            "targets forgotten",
            lambda x, y, s, g, lam: eszsl(x, F.one_hot(y.argmax(1), y.shape[1]).to(x.dtype), s, g, lam),
            "the targets -1 are replaced by 0",
            "Use `targets` as they come.",
            also=(lambda x, y, s, g, lam: _parts(x, F.one_hot(y.argmax(1), y.shape[1]).to(x.dtype), s, g, lam, False),),
        ),
        Wrong(
            "constants squared",
            lambda x, y, s, g, lam: eszsl(x, y, s, g * g, lam * lam),
            "the constants are squared or scaled",
            "They stand on the diagonals as they are.",
            also=(
                lambda x, y, s, g, lam: eszsl(x, y, s, g * len(x), lam * len(s)),
                lambda x, y, s, g, lam: eszsl(x, y, s, g / 2, lam / 2),
                lambda x, y, s, g, lam: eszsl(x, y, s, 1.0, 1.0),
            ),
        ),
        Wrong(
            "averages",
            lambda x, y, s, g, lam: eszsl(x / len(x) ** 0.5, y / len(x) ** 0.5, s, g, lam),
            "sums over the pictures are divided by their number, so the constants weigh more",
            "Xt X and Xt Y are sums.",
            also=(
                lambda x, y, s, g, lam: eszsl(x, y, s, g * len(x), lam * len(s)) * len(x) * len(s),
                lambda x, y, s, g, lam: eszsl(x, y, s, g * len(x), lam) * len(x),
            ),
        ),
        Wrong(
            "centred",
            lambda x, y, s, gamma, lam: eszsl(x - x.mean(0), y, s, gamma, lam),
            "features or descriptions are centred first",
            "Use `x` and `attributes` as they come.",
            also=(
                lambda x, y, s, gamma, lam: eszsl(x, y, s - s.mean(0), gamma, lam),
                lambda x, y, s, gamma, lam: eszsl(x - x.mean(0), y, s - s.mean(0), gamma, lam),
            ),
        ),
        Wrong(
            "wrong sign",
            lambda x, y, s, gamma, lam: -eszsl(x, y, s, gamma, lam),
            "the map has the wrong sign",
            "The target of a picture's own class is 1.",
        ),
        Wrong(
            "right factor not inverted",
            lambda x, y, s, gamma, lam: _parts(x, y, s, gamma, lam, False) @ (s.T @ s + lam * _eye(s.shape[1], x)),
            "one of the two factors is multiplied as it is, without its inverse",
            "Both factors are inverses.",
            also=(
                lambda x, y, s, gamma, lam: (
                    (x.T @ x + gamma * _eye(x.shape[1], x))
                    @ x.T
                    @ y
                    @ s
                    @ torch.linalg.inv(s.T @ s + lam * _eye(s.shape[1], x))
                ),
            ),
        ),
        Wrong(
            "one constant for both",
            lambda x, y, s, g, lam: eszsl(x, y, s, g, g),
            "one constant stands on both diagonals",
            "gamma beside the pictures, lambda beside the descriptions.",
            also=(lambda x, y, s, g, lam: eszsl(x, y, s, lam, lam),),
        ),
        Wrong(
            "without gradient",
            lambda x, y, s, g, lam: eszsl(x.detach(), y, s.detach(), g, lam),
            "the map is cut off from the graph",
            "No `.detach()` and no `no_grad`.",
            also=(
                lambda x, y, s, g, lam: eszsl(x.detach(), y, s, g, lam),
                lambda x, y, s, g, lam: eszsl(x, y, s.detach(), g, lam),
            ),
        ),
        Wrong(
            "a factor without gradient",
            lambda x, y, s, g, lam: _parts_cut(x, y, s, g, lam, left=True, right=True),
            "the matrix that is inverted is cut off from the graph: gradient flows through Xt Y S only",
            "No `.detach()`, and no `no_grad` around Xt X or St S.",
            also=(
                lambda x, y, s, g, lam: _parts_cut(x, y, s, g, lam, left=True, right=False),
                lambda x, y, s, g, lam: _parts_cut(x, y, s, g, lam, left=False, right=True),
            ),
        ),
    ),
    hints=(
        "Build the formula from the inside: first Xt Y S, then one solve from the left, then one from the right.",
        "`torch.linalg.solve(left, middle)` gives left^-1 middle. For the right side transpose: (middle right^-1)t is "
        "right^-1 middlet, because right is symmetric.",
        "`half = torch.linalg.solve(x.T @ x + gamma * torch.eye(D), x.T @ targets @ attributes)`, then "
        "`half @ torch.linalg.inv(attributes.T @ attributes + lam * torch.eye(A))`",
    ),
)

# ---------------------------------------------------------------------------------------------- 18.4 seen against unseen


def generalised(scores: Tensor, labels: Tensor, seen: Tensor, constant: float) -> Tensor:
    """Returns accuracy per class on seen and on unseen classes, and their harmonic mean, float32 [3]."""
    answers = (scores - constant * seen.to(scores.dtype)).argmax(1)
    found = []
    for group in (True, False):
        classes = [k for k in labels.unique().tolist() if bool(seen[k]) == group]
        found.append(sum(float((answers[labels == k] == k).float().mean()) for k in classes) / len(classes))
    a, b = found
    return torch.tensor([a, b, 2 * a * b / (a + b) if a + b else 0.0])


def _generalised_by_counts(scores: Tensor, labels: Tensor, seen: Tensor, constant: float) -> Tensor:
    n = scores.shape[1]
    shifted = torch.where(seen, scores - constant, scores)
    right = (shifted.argmax(1) == labels).float()
    count = labels.bincount(minlength=n)
    share = torch.zeros(n).index_add(0, labels, right) / count.clamp_min(1)
    a, b = (share[mask & (count > 0)].mean() for mask in (seen, ~seen))
    return torch.stack([a, b, 2 * a * b / (a + b).clamp_min(1e-12)])


def _generalised_by_one_hot(scores: Tensor, labels: Tensor, seen: Tensor, constant: float) -> Tensor:
    member = F.one_hot(labels, len(seen)).float()
    answers = F.one_hot((scores + constant * (~seen).to(scores.dtype)).argmax(1), len(seen)).float()
    total, right = member.sum(0), (member * answers).sum(0)
    met = total > 0
    per_class = right[met] / total[met]
    a, b = per_class[seen[met]].mean(), per_class[~seen[met]].mean()
    h = torch.zeros(()) if float(a) == 0 or float(b) == 0 else 2 / (1 / a + 1 / b)
    return torch.stack([a, b, h])


def _generalised_by_loops(scores: Tensor, labels: Tensor, seen: Tensor, constant: float) -> Tensor:
    tally: dict[int, list[int]] = {}
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        lowered = [value - constant if bool(s) else value for value, s in zip(row, seen, strict=True)]
        tally.setdefault(label, []).append(int(lowered.index(max(lowered)) == label))
    mean = {k: sum(v) / len(v) for k, v in tally.items()}
    a, b = ([m for k, m in mean.items() if bool(seen[k]) is want] for want in (True, False))
    a, b = sum(a) / len(a), sum(b) / len(b)
    return torch.tensor([a, b, 0.0 if a + b == 0 else 2 * a * b / (a + b)], dtype=torch.float32)


def _generalised_by_weights(scores: Tensor, labels: Tensor, seen: Tensor, constant: float) -> Tensor:
    lowered = scores.clone()
    lowered[:, seen] -= constant
    weight = 1 / labels.bincount(minlength=scores.shape[1])[labels].float()
    right, mine = (lowered.argmax(1) == labels).float() * weight, seen[labels]
    a, b = right[mine].sum() / weight[mine].sum(), right[~mine].sum() / weight[~mine].sum()
    return torch.stack([a, b, (2 * a * b / (a + b)).nan_to_num(0.0)])


def _gzsl(scores: Tensor, labels: Tensor, seen: Tensor, constant: float, *, how: str = "lower", mean: str = "class",
          join: str = "harmonic") -> Tensor:  # fmt: skip
    """The reference with parts that may be wrong."""
    shift = constant * seen.to(scores.dtype)
    lowered = {
        "lower": scores - shift, "raise": scores + shift, "none": scores,
        "times": scores * (1 - shift), "over": scores / (1 + shift),
        "by the constant": torch.where(seen, scores * constant, scores),
    }[how]  # fmt: skip
    answers, found = lowered.argmax(1), []
    for group in (seen, ~seen):
        mine = group[labels]
        if mean == "apart":
            answers = lowered.masked_fill(~group, -torch.inf).argmax(1)
        right = (answers == labels)[mine].float()
        if mean == "picture":
            found.append(float(right.mean()))
        elif mean == "share":
            found.append(float((answers == labels)[mine].float().sum() / len(labels)))
        elif mean == "every class":
            classes = group.nonzero()[:, 0].tolist()
            found.append(sum(float((answers[labels == k] == k).float().sum()) / max(1, int((labels == k).sum()))
                             for k in classes) / len(classes))  # fmt: skip
        elif mean == "answers":
            chosen = [k for k in answers.unique().tolist() if bool(group[k])]
            found.append(sum(float((labels[answers == k] == k).float().mean()) for k in chosen) / max(1, len(chosen)))
        elif mean == "side":
            found.append(float((group[answers] == group[labels])[mine].float().mean()))
        else:
            classes = labels[mine].unique().tolist()
            found.append(sum(float((answers[labels == k] == k).float().mean()) for k in classes) / len(classes))
    a, b = found
    h = {
        "harmonic": 2 * a * b / (a + b) if a + b else 0.0, "mean": (a + b) / 2, "root": (a * b) ** 0.5, "least": min(a, b),
        "half": a * b / (a + b) if a + b else 0.0, "nan": float(torch.tensor(2 * a * b) / torch.tensor(a + b)),
        "product": a * b, "sum": 2 * a * b / (a + b) if a and b else a + b,
        "mean at zero": 2 * a * b / (a + b) if a and b else (a + b) / 2, "padded": 2 * a * b / (a + b + 1e-2),
        "padded more": 2 * a * b / (a + b + 1), "padded less": 2 * a * b / (a + b + 1e-3),
    }[join]  # fmt: skip
    if mean == "class of all":
        each = [float((answers[labels == k] == k).float().mean()) for k in labels.unique().tolist()]
        h = len(each) / sum(1 / value for value in each) if min(each) else 0.0
    return torch.tensor([a, b, h])


def _overall(scores: Tensor, labels: Tensor, seen: Tensor, constant: float) -> Tensor:
    answers = (scores - constant * seen.to(scores.dtype)).argmax(1)
    return (answers == labels).float().mean()[None]


def _all_zero(found: Tensor) -> Tensor:
    return found if float(found[0] * found[1]) else torch.zeros(3)


def _harmonic(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a, b, (2 * a * b / (a + b)).nan_to_num(0.0)])


def _first_are_seen(scores: Tensor, labels: Tensor, seen: Tensor, constant: float) -> Tensor:
    """Lowers the right classes, but sorts pictures by whether the label is below the number of seen classes."""
    answers = (scores - constant * seen.to(scores.dtype)).argmax(1)
    met = labels.unique()
    each = torch.stack([(answers[labels == k] == k).float().mean() for k in met])
    first = met < seen.sum()
    return _harmonic(each[first].mean(), each[~first].mean())


def _split_by_answers(
    scores: Tensor, labels: Tensor, seen: Tensor, constant: float, *, per_class: bool = False
) -> Tensor:
    """Sorts pictures by the side of the answer."""
    answers = (scores - constant * seen.to(scores.dtype)).argmax(1)
    right, found = (answers == labels).float(), []
    for group in (seen[answers], ~seen[answers]):
        rows = [group & (labels == k) for k in labels[group].unique()] if per_class else [group]
        means = [right[row].mean() for row in rows if row.any()]
        found.append(torch.stack(means).mean() if means else torch.zeros(()))
    return _harmonic(*found)


def _winner_lowered(scores: Tensor, labels: Tensor, seen: Tensor, constant: float) -> Tensor:
    top, best = scores.max(1)
    lowered = scores.scatter(1, best[:, None], (top - constant * seen[best].to(scores.dtype))[:, None])
    return _gzsl(lowered, labels, seen, 0.0)


def _generalised_cases(generator: Generator) -> list[Case]:
    def drawn(counts: list[int], seen: list[int], strength: float) -> tuple[Tensor, Tensor, Tensor]:
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        labels = labels[torch.randperm(len(labels), generator=generator)]
        scores = torch.randn(len(labels), len(counts), generator=generator)
        known = torch.tensor(seen, dtype=torch.bool)
        return scores + strength * F.one_hot(labels, len(counts)) + 1.2 * known, labels, known

    paper = torch.tensor([[3.0, 1.0], [3.0, 2.5], [2.0, 1.8]]), torch.tensor([0, 1, 1]), torch.tensor([True, False])
    usual = drawn([1, 6, 3, 2, 9, 4], [1, 1, 0, 1, 0, 0], 1.5)
    absent = drawn([4, 0, 2, 5, 0, 3], [1, 1, 0, 0, 0, 1], 1.5)
    lost = torch.eye(4).roll(1, 1) * 5, torch.arange(4), torch.tensor([True, False, True, False])
    ahead = usual[0] + 9 * usual[2].float(), *usual[1:]
    return [
        Case("the example on paper", (*paper, 1.0)),
        Case("6 classes with 1 to 9 pictures, constant 0.6", (*usual, 0.6)),
        Case("the same with constant 0", (*usual, 0.0)),
        Case("the same with constant 1.5", (*usual, 1.5)),
        Case("two classes without a picture", (*absent, 0.8)),
        Case("every answer wrong", (*lost, 0.1)),
        Case("6 classes, constant -0.4", (*usual, -0.4)),
        Case("seen classes far ahead: no picture of an unseen class is right", (*ahead, 0.5)),
        Case("a constant so large that no picture of a seen class is right", (*usual, 20.0)),
        Case("float64", (usual[0].double(), *usual[1:], 0.6)),
    ]


GENERALISED = Exercise(
    id="18.4",
    title="Seen against unseen",
    reference=generalised,
    cases=_generalised_cases,
    right=(_generalised_by_counts, _generalised_by_one_hot, _generalised_by_loops, _generalised_by_weights),
    wrong=(
        Wrong(
            "raised",
            lambda *args: _gzsl(*args, how="raise"),
            "the constant is added to the seen classes, which win too often already",
            "Subtract it from the scores of the seen classes.",
        ),
        Wrong(
            "constant unused",
            lambda *args: _gzsl(*args, how="none"),
            "the constant changes nothing: it is not used, or subtracted from all classes alike",
            "Subtract it where `seen` is True.",
        ),
        Wrong(
            "mean over the pictures",
            lambda *args: _gzsl(*args, mean="picture"),
            "the accuracies are means over pictures: a class with many pictures counts more",
            "First the accuracy of each class, then the mean over the classes.",
        ),
        Wrong(
            "empty classes count",
            lambda *args: _gzsl(*args, mean="every class"),
            "classes without a picture count as if all their answers were wrong",
            "Average over the classes that occur in `labels`.",
        ),
        Wrong(
            "apart",
            lambda *args: _gzsl(*args, mean="apart"),
            "seen and unseen classes do not compete: each picture chooses only among the classes of its own side",
            "One argmax over all classes.",
        ),
        Wrong(
            "plain mean",
            lambda *args: _gzsl(*args, join="mean"),
            "the third number is the plain mean: 90 % and 0 % would give 45 %",
            "Harmonic: 2ab / (a + b).",
        ),
        Wrong(
            "geometric mean",
            lambda *args: _gzsl(*args, join="root"),
            "the third number is the root of the product: that is the geometric mean",
            "Harmonic: 2ab / (a + b).",
        ),
        Wrong(
            "the smaller",
            lambda *args: _gzsl(*args, join="least"),
            "the third number is the smaller of the two",
            "Harmonic: 2ab / (a + b), which lies between the two.",
        ),
        Wrong(
            "the product of both",
            lambda *args: _gzsl(*args, join="product"),
            "the third number is the product of the two",
            "Harmonic: 2ab / (a + b).",
        ),
        Wrong(
            "a number in the denominator",
            lambda *args: _gzsl(*args, join="padded"),
            "a number is added to the denominator 2ab / (a + b): it lowers the mean wherever it is not tiny",
            "Ask whether a + b is 0, or add at most 1e-9.",
            also=(lambda *args: _gzsl(*args, join="padded more"), lambda *args: _gzsl(*args, join="padded less")),
        ),
        Wrong(
            "one zero makes all zero",
            lambda *args: _all_zero(_gzsl(*args)),
            "one accuracy of zero sets all three numbers to zero: the other accuracy is lost",
            "Only the harmonic mean is 0 then.",
        ),
        Wrong(
            "the sum where one is zero",
            lambda *args: _gzsl(*args, join="sum"),
            "where one accuracy is zero, the other is returned for the harmonic mean",
            "2ab / (a + b) is 0 where either is 0.",
            also=(lambda *args: _gzsl(*args, join="mean at zero"),),
        ),
        Wrong(
            "negative constants",
            lambda scores, labels, seen, constant: _gzsl(scores, labels, seen, abs(constant)),
            "a negative constant is treated like a positive one, or like 0",
            "Subtract it as it is: a negative one favours the seen classes.",
            also=(lambda scores, labels, seen, constant: _gzsl(scores, labels, seen, max(constant, 0.0)),),
        ),
        Wrong(
            "mean over pictures in the third number",
            lambda *args: torch.cat([_gzsl(*args)[:2], _gzsl(*args, mean="picture")[2:]]),
            "the harmonic mean is taken of accuracies over pictures, not of the first two numbers",
            "2ab / (a + b) of the two accuracies per class.",
        ),
        Wrong(
            "harmonic over all classes",
            lambda *args: _gzsl(*args, mean="class of all"),
            "the harmonic mean runs over all classes, so a single class without a right answer makes it 0",
            "It is a mean of two numbers, the accuracies of the two sides.",
        ),
        Wrong(
            "seen classes come first",
            lambda scores, labels, seen, constant: _gzsl(
                scores, labels, torch.arange(len(seen)) < seen.sum(), constant
            ),
            "the seen classes are taken to come first: `seen` may be True anywhere",
            "Use `seen` as a mask: `seen[labels]`, `scores[:, seen]`.",
            also=(_first_are_seen,),
        ),
        Wrong(
            "split by the answers",
            _split_by_answers,
            "pictures are sorted by whether the chosen class is seen, not by whether the true one is",
            "`seen[labels]` tells the side of a picture.",
            also=(lambda *args: _split_by_answers(*args, per_class=True),),
        ),
        Wrong(
            "the winner lowered",
            _winner_lowered,
            "only the score of the best class is lowered, not of all seen ones",
            "Lower every seen class, then take the argmax.",
        ),
        Wrong(
            "softmax first",
            lambda scores, labels, seen, constant: _gzsl(scores.softmax(1), labels, seen, constant),
            "the scores pass through a softmax before the constant is subtracted",
            "Subtract it from the scores as they come.",
        ),
        Wrong(
            "constant scaled",
            lambda scores, labels, seen, constant: _gzsl(scores, labels, seen, constant * float(scores.std())),
            "the constant is multiplied by something, such as the spread of the scores",
            "Subtract it as it is.",
            also=(lambda scores, labels, seen, constant: _gzsl(scores, labels, seen, 2 * constant),),
        ),
        Wrong(
            "no factor two",
            lambda *args: _gzsl(*args, join="half"),
            "the factor 2 of the harmonic mean is missing",
            "2ab / (a + b): of two equal numbers it is that number.",
        ),
        Wrong(
            "not a number",
            lambda *args: _gzsl(*args, join="nan"),
            "two accuracies of zero give 0/0",
            "Return 0 where both are 0.",
        ),
        Wrong(
            "seen and unseen exchanged",
            lambda scores, labels, seen, constant: _gzsl(scores, labels, ~seen, constant),
            "True and False of `seen` are exchanged throughout",
            "`seen` is True for the classes of training: these are lowered, and come first.",
        ),
        Wrong(
            "pictures, and 0/0",
            lambda *args: _gzsl(*args, mean="picture", join="nan"),
            "the accuracies are means over pictures, and two zeros give 0/0",
            "First the accuracy of each class, then the mean over classes; and 0 where both are 0.",
        ),
        Wrong(
            "all pictures in one",
            lambda *args: torch.cat([_gzsl(*args)[:2], _overall(*args)]),
            "the third number is the accuracy over all pictures",
            "Harmonic mean of the first two: 2ab / (a + b).",
        ),
        Wrong(
            "exchanged",
            lambda *args: _gzsl(*args)[[1, 0, 2]],
            "the unseen classes stand first",
            "The order is seen, unseen, harmonic mean.",
        ),
        Wrong(
            "shares of all pictures",
            lambda *args: _gzsl(*args, mean="share"),
            "right answers are divided by the number of all pictures, of both sides",
            "Divide within each class.",
        ),
        Wrong(
            "precision",
            lambda *args: _gzsl(*args, mean="answers"),
            "answers are grouped by the class that was chosen, not by the true class",
            "Group by `labels`.",
        ),
        Wrong(
            "the side only",
            lambda *args: _gzsl(*args, mean="side"),
            "an answer counts as right if it lies on the right side, seen or unseen",
            "The class itself must be right.",
        ),
        Wrong(
            "percent",
            lambda *args: 100 * _gzsl(*args),
            "the numbers are in percent",
            "Fractions from 0 to 1.",
        ),
        Wrong(
            "multiplied",
            lambda *args: _gzsl(*args, how="times"),
            "scores are multiplied or divided, not lowered",
            "Subtract the constant.",
            also=(lambda *args: _gzsl(*args, how="over"), lambda *args: _gzsl(*args, how="by the constant")),
        ),
        Wrong(
            "best alone",
            lambda *args: _gzsl(*args)[2],
            "only the harmonic mean is returned",
            "Return three numbers.",
            also=(lambda *args: _gzsl(*args)[:2],),
        ),
    ),
    hints=(
        "One argmax over all classes decides. Only the scores of the seen classes are lowered before it.",
        "For every class that occurs in `labels`: which share of its pictures is right? Then one mean over the seen classes and "
        "one over the unseen ones.",
        "`answers = (scores - constant * seen.float()).argmax(1)`; for class k: `(answers[labels == k] == k).float().mean()`",
    ),
)

# ---------------------------------------------------------------------------------------------- 18.5 a search that forgets

Search = Callable[[Callable[[float, float], float], list[float], list[float]], tuple[float, float]]
GAMMAS, LAMBDAS = [0.1, 1.0, 10.0], [0.2, 2.0, 20.0, 200.0]


def _lookup(table: list[list[float]], gammas: list[float], lambdas: list[float]) -> Callable[[float, float], float]:
    return lambda gamma, lam: table[gammas.index(gamma)][lambdas.index(lam)]


def _peaked(i: int, j: int, size: float = 1.0, rows: int = 3, columns: int = 4, seed: int = 0) -> list[list[float]]:
    """A table of random scores whose largest entry stands at (i, j)."""
    table = 0.9 * torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    table[i, j] = 1.0
    return (size * table).tolist()


def exposes_search(search: Search) -> bool:
    """Returns True where search(score, gammas, lambdas) does not return the pair with the largest score."""
    for size, i, j in itertools.product((1.0, 1e-4), range(3), range(4)):
        score = _lookup(_peaked(i, j, size, seed=4 * i + j), GAMMAS, LAMBDAS)
        if tuple(search(score, GAMMAS, LAMBDAS)) != (GAMMAS[i], LAMBDAS[j]):
            return True
    return False


def _exposes_by_random_tables(search: Search) -> bool:
    generator = torch.Generator().manual_seed(5)
    for _ in range(60):
        table = torch.randn(3, 4, generator=generator).double() * 1e-3
        best = int(table.argmax())
        found = search(_lookup(table.tolist(), GAMMAS, LAMBDAS), GAMMAS, LAMBDAS)
        if (float(found[0]), float(found[1])) != (GAMMAS[best // 4], LAMBDAS[best % 4]):
            return True
    return False


def _exposes_by_score(search: Search) -> bool:
    """The score of what is returned must be the largest there is."""
    for seed in range(40):
        scores = torch.rand(12, generator=torch.Generator().manual_seed(seed)) * (1e-4 if seed % 2 else 1.0)
        table = scores.view(3, 4).tolist()
        score = _lookup(table, GAMMAS, LAMBDAS)
        found = search(score, GAMMAS, LAMBDAS)
        if found[0] not in GAMMAS or found[1] not in LAMBDAS or score(*found) < max(map(max, table)):
            return True
    return False


def _exposes_by_permutations(search: Search) -> bool:
    gammas, lambdas = [3.0, 1.0], [5.0, 7.0, 9.0]
    for size in (1.0, 1e-5):
        for order in itertools.permutations([size * k for k in range(6)]):
            table = {pair: value for pair, value in zip(itertools.product(gammas, lambdas), order, strict=True)}  # noqa: C416
            if search(lambda g, lam, t=table: t[g, lam], gammas, lambdas) != max(table, key=table.get):
                return True
    return False


def _exposes_by_smooth_hills(search: Search) -> bool:
    grid = [float(k) for k in range(1, 6)]
    for scale, a, b in itertools.product((1.0, 1e-4), grid, grid):
        hills = {
            (g, lam): scale * (math.sin(3 * g + 5 * lam + a * b) - 9 * ((g, lam) != (a, b)))
            for g in grid
            for lam in grid
        }
        if search(lambda g, lam, t=hills: t[g, lam], grid, grid) != (a, b):
            return True
    return False


def _exposes_by_sizes(search: Search) -> bool:
    """Lists of one to four numbers, and scores with small differences."""
    generator = torch.Generator().manual_seed(3)
    for n, m in itertools.product(range(1, 5), repeat=2):
        gammas, lambdas = [float(k) for k in range(n)], [k + 0.5 for k in range(m)]
        for _ in range(15):
            table = dict(
                zip(
                    itertools.product(gammas, lambdas), torch.randperm(n * m, generator=generator).tolist(), strict=True
                )
            )
            if search(lambda g, lam, t=table: 1e-6 * t[g, lam], gammas, lambdas) != max(table, key=table.get):
                return True
    return False


def _by_loops(score: Callable, gammas: list[float], lambdas: list[float]) -> tuple[float, float]:
    best, found = None, None
    for gamma in gammas:
        for lam in lambdas:
            value = score(gamma, lam)
            if best is None or value > best:
                best, found = value, (gamma, lam)
    return found


def _by_max(score: Callable, gammas: list[float], lambdas: list[float]) -> tuple[float, float]:
    return max(itertools.product(gammas, lambdas), key=lambda pair: score(*pair))


def _by_argmax(score: Callable, gammas: list[float], lambdas: list[float]) -> tuple[float, float]:
    table = torch.tensor([[score(g, lam) for lam in lambdas] for g in gammas], dtype=torch.float64)
    place = int(table.argmax())
    return gammas[place // len(lambdas)], lambdas[place % len(lambdas)]


def _backwards(score: Callable, gammas: list[float], lambdas: list[float]) -> tuple[float, float]:
    """Visits the grid from the end, and the other constant first."""
    return max(((g, lam) for lam in reversed(lambdas) for g in reversed(gammas)), key=lambda pair: score(*pair))


def _twice(score: Callable, gammas: list[float], lambdas: list[float]) -> tuple[float, float]:
    """Looks for the best score first, and then for the pair that has it."""
    pairs = list(itertools.product(gammas, lambdas))
    best = max(score(*pair) for pair in pairs)
    return next(pair for pair in pairs if score(*pair) == best)


def _looped(keep: Callable[[float, float, float], bool], what: str = "pair") -> Search:
    """A search with the best score so far, a rule when a new one is better, and something that is returned."""

    def search(score: Callable, gammas: list[float], lambdas: list[float]) -> tuple[float, float]:
        best, previous, found = float("-inf"), float("-inf"), (gammas[0], lambdas[0])
        for gamma in gammas:
            for lam in lambdas:
                value = score(gamma, lam)
                if keep(value, best, previous):
                    best, found = value, (gamma, lam)
                previous = value
        return {
            "pair": found, "last": (gamma, lam), "last lambda": (found[0], lam), "last gamma": (gamma, found[1]),
            "turned": found[::-1],
        }[what]  # fmt: skip

    return search


def _better(value: float, best: float, previous: float) -> bool:
    return value > best


def _only(rows: slice, columns: slice = slice(None)) -> Search:
    """A search in a part of the grid; a list of one stays whole."""
    return lambda score, gammas, lambdas: _by_max(score, gammas[rows] or gammas, lambdas[columns] or lambdas)


def _one_after_the_other(score: Callable, gammas: list[float], lambdas: list[float]) -> tuple[float, float]:
    """The best lambda for the first gamma, then the best gamma for this lambda."""
    lam = max(lambdas, key=lambda lam: score(gammas[0], lam))
    return max(gammas, key=lambda g: score(g, lam)), lam


def _best_of_the_last_row(score: Callable, gammas: list[float], lambdas: list[float]) -> tuple[float, float]:
    """The best score is forgotten whenever gamma changes."""
    for gamma in gammas:
        found = (gamma, max(lambdas, key=lambda lam: score(gamma, lam)))
    return found


def _gives_up(score: Callable, gammas: list[float], lambdas: list[float]) -> tuple[float, float]:
    """Ends at the first score that falls."""
    best, found = float("-inf"), (gammas[0], lambdas[0])
    for pair in itertools.product(gammas, lambdas):
        value = score(*pair)
        if value < best:
            return found
        best, found = value, pair
    return found


def _search_cases(_: Generator) -> list[Case]:
    tries = [
        ("a right one, by two loops", _by_loops),
        ("a right one, by max over all pairs", _by_max),
        ("a right one, by argmax in a table", _by_argmax),
        ("a right one that visits the pairs from the end", _backwards),
        ("a right one that asks for every score twice", _twice),
        ("the last pair is returned", _looped(_better, "last")),
        ("the best gamma comes with the last lambda", _looped(_better, "last lambda")),
        ("the best lambda comes with the last gamma", _looped(_better, "last gamma")),
        ("gamma and lambda are returned in the wrong order", _looped(_better, "turned")),
        ("a score counts as better if it exceeds the one before", _looped(lambda value, best, before: value > before)),
        ("gains below 0.001 are ignored", _looped(lambda value, best, before: value > best + 1e-3)),
        ("the pair with the smallest score", lambda s, g, lam: _by_max(lambda a, b: -s(a, b), g, lam)),
        ("the first pair", lambda s, g, lam: (g[0], lam[0])),
        ("the last gamma is never tried", _only(slice(0, -1))),
        ("the first lambda is never tried", _only(slice(None), slice(1, None))),
        ("the best is forgotten whenever gamma changes", _best_of_the_last_row),
        ("the search ends at the first score that falls", _gives_up),
        ("first lambda is chosen, then gamma", _one_after_the_other),
    ]
    return [Case(says, (search,)) for says, search in tries]


def _tries(*tables: tuple[int, int], size: float = 1.0, same: Callable | None = None) -> Callable:
    """A detector that tries these peaks only, and compares in its own way."""
    same = same or (lambda found, wanted: tuple(found) == wanted)

    def detector(search: Search) -> bool:
        for i, j in tables:
            score = _lookup(_peaked(i, j, size, seed=4 * i + j), GAMMAS, LAMBDAS)
            if not same(search(score, GAMMAS, LAMBDAS), (GAMMAS[i], LAMBDAS[j])):
                return True
        return False

    return detector


_ALL = tuple(itertools.product(range(3), range(4)))


def _judged(same: Callable) -> Callable:
    """A detector that tries all peaks in both sizes, and compares in its own way."""
    return lambda search: _tries(*_ALL, same=same)(search) or _tries(*_ALL, size=1e-4, same=same)(search)


def _one_hot(
    *gains: float,
    places: tuple[tuple[int, int], ...] | None = None,
    grids: tuple[list[float], list[float]] | None = None,
    good: Callable | None = None,
    join: Callable = any,
) -> Callable:
    """A detector whose scores are all equal but one, which is larger."""
    gammas, lambdas = grids or (GAMMAS, LAMBDAS)
    good = good or (lambda found, wanted: tuple(found) == wanted)
    chosen = places or tuple(itertools.product(range(len(gammas)), range(len(lambdas))))

    def detector(search: Search) -> bool:
        def goes_wrong(gain: float, i: int, j: int) -> bool:
            best = gammas[i], lambdas[j]
            return not good(search(lambda g, lam: gain * float((g, lam) == best), gammas, lambdas), best)

        return bool(join(goes_wrong(gain, i, j) for gain in gains for i, j in chosen))

    return detector


def _tables_and(extra: Callable[[Search], bool]) -> Callable:
    """A sound detector, and one more thing that is asked for."""
    return lambda search: exposes_search(search) or extra(search)


def _counted(search: Search) -> bool:
    """Rings where the number of calls is not that of the pairs."""
    return _calls(search, GAMMAS, LAMBDAS) != len(GAMMAS) * len(LAMBDAS)


def _calls(search: Search, gammas: list[float], lambdas: list[float]) -> int:
    calls = []
    search(lambda g, lam: calls.append((g, lam)) or g * lam, gammas, lambdas)
    return len(calls)


def _in_order(search: Search) -> bool:
    calls = []
    found = search(lambda g, lam: calls.append((g, lam)) or -abs(g - 1) - abs(lam - 2), GAMMAS, LAMBDAS)
    return tuple(found) != (1.0, 2.0) or calls != list(itertools.product(GAMMAS, LAMBDAS))


def _reversed(search: Search) -> bool:
    """The same search on lists that are turned round."""
    score = _lookup(_peaked(1, 1), GAMMAS, LAMBDAS)
    return search(score, GAMMAS, LAMBDAS) != search(score, GAMMAS[::-1], LAMBDAS[::-1])


def _reversed_hill(search: Search) -> bool:
    def hill(g: float, lam: float) -> float:
        return -abs(g - 2) - abs(lam - 5)

    found = search(hill, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    return tuple(found) != tuple(search(hill, [3.0, 2.0, 1.0], [6.0, 5.0, 4.0]))


def _smallest(search: Search) -> bool:
    for seed in range(30):
        table = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed)).tolist()
        score = _lookup(table, GAMMAS, LAMBDAS)
        if tuple(search(score, GAMMAS, LAMBDAS)) != _by_max(lambda g, lam, f=score: -f(g, lam), GAMMAS, LAMBDAS):
            return True
    return False


def _far_from_good(search: Search) -> bool:
    """One hill; the score of the answer is held against a fixed limit."""
    grid = [10.0**k for k in range(6)]

    def score(g: float, lam: float) -> float:
        return 0.2 - 1e-4 * abs(g - 100) - 1e-3 * abs(lam - 10)

    return score(*search(score, grid, grid)) < 0.1


def _square(search: Search) -> bool:
    """One grid for both constants, and scores that do not tell them apart."""
    grid = [0.1, 1.0, 10.0]
    return any(
        tuple(search(lambda g, lam, c=c, s=s: -s * (abs(g - c) + abs(lam - c)), grid, grid)) != (c, c)
        for c in grid
        for s in (1.0, 1e-6)
    )


def _constant(search: Search) -> bool:
    return tuple(search(lambda g, lam: 0.5, GAMMAS, LAMBDAS)) != (GAMMAS[0], LAMBDAS[0])


def _rising_only(search: Search) -> bool:
    """Scores that only rise, and scores that only fall, along the grid."""
    order = {pair: 1e-4 * k for k, pair in enumerate(itertools.product(GAMMAS, LAMBDAS))}
    up = search(lambda g, lam: order[g, lam], GAMMAS, LAMBDAS)
    down = search(lambda g, lam: -order[g, lam], GAMMAS, LAMBDAS)
    return (tuple(up), tuple(down)) != ((10.0, 200.0), (0.1, 0.2))


def _square_steep(search: Search) -> bool:
    """As _square, with large differences only."""
    grid = [1.0, 2.0, 3.0, 4.0]
    return any(tuple(search(lambda g, lam, c=c: -abs(g - c) - abs(lam - c), grid, grid)) != (c, c) for c in grid)


def _hill(search: Search) -> bool:
    """Scores without a second hill: the best place of one constant does not depend on the other."""
    for i, j in _ALL:
        for size in (1.0, 1e-5):

            def score(g: float, lam: float, i: int = i, j: int = j, size: float = size) -> float:
                return -size * (abs(GAMMAS.index(g) - i) + abs(LAMBDAS.index(lam) - j))

            if tuple(search(score, GAMMAS, LAMBDAS)) != (GAMMAS[i], LAMBDAS[j]):
                return True
    return False


SEARCH = Exercise(
    id="18.5",
    title="Bug hunt: a search that forgets",
    reference=exposes_search,
    cases=_search_cases,
    right=(
        _exposes_by_random_tables,
        _exposes_by_score,
        _exposes_by_permutations,
        _exposes_by_smooth_hills,
        _exposes_by_sizes,
    ),
    wrong=(
        Wrong(
            "the best comes last",
            _tries((2, 3)),
            "the best pair of the scores that are tried stands at the end of the grid, where loop variables stop as well",
            "Put the best pair into every place of the grid, one after the other.",
            also=(
                lambda search: search(lambda g, lam: g + lam, GAMMAS, LAMBDAS) != (10.0, 200.0),
                lambda search: search(lambda g, lam: g + lam, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) != (3.0, 3.0),
            ),
        ),
        Wrong(
            "one place only",
            _tries((1, 1)),
            "the best pair stands in too few places (a `return` inside the loop ends with the first): other faults pass",
            "Put the best pair into every place of the grid, one after the other, among scores that rise and fall.",
            also=(
                lambda search: search(lambda g, lam: -g - lam, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) != (1.0, 1.0),
                _one_hot(1.0, places=((0, 0),)),
                _one_hot(1.0, places=((1, 1),)),
                _rising_only,
                _tries((0, 0)),
                _tries((1, 2)),
                _tries((1, 0)),
                _tries((0, 3)),
                _tries((2, 0)),
                _tries((1, 3)),
                _tries((2, 1)),
            ),
        ),
        Wrong(
            "large differences only",
            _tries(*_ALL),
            "all scores that are tried differ much: a search that ignores small gains passes",
            "Try scores that differ by less than a thousandth, too.",
        ),
        Wrong(
            "gamma only",
            _judged(lambda found, wanted: found[0] == wanted[0]),
            "only one of the two constants is looked at",
            "Compare the whole pair.",
            also=(
                _judged(lambda found, wanted: found[1] == wanted[1]),
                _one_hot(1.0, good=lambda found, wanted: found[0] == wanted[0]),
                _one_hot(1.0, good=lambda found, wanted: found[1] == wanted[1]),
                _one_hot(1.0, 1e-6, good=lambda found, wanted: found[0] == wanted[0]),
                _one_hot(1.0, 1e-6, good=lambda found, wanted: found[1] == wanted[1]),
            ),
        ),
        Wrong(
            "sums",
            _judged(lambda found, wanted: abs(sum(found) - sum(wanted)) < 1e-9),
            "sums, products or sorted values of the pair are compared: exchanged constants pass",
            "Compare gamma with gamma and lambda with lambda.",
        ),
        Wrong(
            "one peak on a plain",
            _one_hot(1.0, 1e-4, 1e-8),
            "all scores but one are equal: a search that compares with the score before, or stops where scores fall, passes",
            "Let the other scores rise and fall, too: random ones do.",
            also=(_one_hot(1.0),),
        ),
        Wrong(
            "every try must go wrong",
            _one_hot(1.0, join=all),
            "it rings only if all tries go wrong: most broken searches get some right",
            "One wrong answer is enough: `any`, or `return True` at the first.",
            also=(lambda search: all(_tries(place)(search) for place in _ALL[:-1]),),
        ),
        Wrong(
            "both constants must be wrong",
            _judged(lambda found, wanted: found[0] == wanted[0] or found[1] == wanted[1]),
            "a pair counts as wrong only if gamma and lambda are both wrong",
            "One of them is enough: `or` in place of `and`, or compare the pairs.",
            also=(_one_hot(1.0, good=lambda found, wanted: found[0] == wanted[0] or found[1] == wanted[1]),),
        ),
        Wrong(
            "calls counted",
            _tables_and(_counted),
            "the calls are counted, or their order is asked for: a right search may visit pairs in any order, and twice",
            "Look at the pair that is returned, not at the calls.",
            also=(
                _counted,
                _in_order,
                _tables_and(_in_order),
                lambda search: _calls(search, [1.0, 2.0, 3.0], [4.0, 5.0]) != 6,
            ),
        ),
        Wrong(
            "the smallest score",
            _smallest,
            "the pair with the smallest score is taken for the right answer",
            "The largest score is the best.",
        ),
        Wrong(
            "compared with itself",
            _reversed,
            "the search is compared with itself on other lists: one that makes the same fault twice passes",
            "Compare with the best pair, which you know.",
            also=(_reversed_hill,),
        ),
        Wrong(
            "good enough",
            _far_from_good,
            "the score of the answer is held against a fixed limit: a pair that is good and not the best passes",
            "Compare with the largest score of all pairs.",
        ),
        Wrong(
            "a list of one",
            _one_hot(1.0, 1e-6, grids=([1.0, 2.0, 3.0], [5.0])),
            "one list has a single element: faults in that constant cannot show",
            "Give both lists several elements.",
            also=(_one_hot(1.0, 1e-6, grids=([5.0], [1.0, 2.0, 3.0])),),
        ),
        Wrong(
            "one grid for both",
            _square,
            "gamma and lambda have the same grid, and the best pair lies on its diagonal: exchanged constants pass",
            "Take two different lists, and put the best pair anywhere.",
            also=(_square_steep,),
        ),
        Wrong(
            "all equal",
            _constant,
            "a certain pair is asked for although scores are equal: any of the best pairs is then a right answer",
            "Give the pairs different scores, so that only one answer is right.",
            also=(
                lambda search: tuple(search(lambda g, lam: 0.0, GAMMAS, LAMBDAS)) == (GAMMAS[-1], LAMBDAS[-1]),
                _tables_and(_constant),
                _tables_and(lambda search: tuple(search(lambda g, lam: 0.5, GAMMAS, LAMBDAS)) != (10.0, 200.0)),
                lambda search: _one_hot(1.0, 1e-6)(search) or _constant(search),
            ),
        ),
        Wrong(
            "in the grid",
            lambda search: (lambda f: f[0] not in GAMMAS or f[1] not in LAMBDAS)(
                search(_lookup(_peaked(1, 1), GAMMAS, LAMBDAS), GAMMAS, LAMBDAS)
            ),
            "only membership in the grid is asked for: every wrong pair of the grid passes",
            "The pair must be the one with the largest score.",
        ),
        Wrong(
            "the last pair only",
            lambda search: (
                tuple(search(_lookup(_peaked(1, 1), GAMMAS, LAMBDAS), GAMMAS, LAMBDAS)) == (GAMMAS[-1], LAMBDAS[-1])
            ),
            "only this one fault is recognised: other wrong pairs pass",
            "Ask whether the answer is right, not whether it is wrong in one particular way.",
            also=(
                lambda search: any(
                    tuple(search(_lookup(_peaked(i, j), GAMMAS, LAMBDAS), GAMMAS, LAMBDAS)) == (GAMMAS[-1], LAMBDAS[-1])
                    for i, j in _ALL[:-1]
                ),
                lambda search: search(lambda g, lam: -g - lam, GAMMAS, LAMBDAS) == (GAMMAS[-1], LAMBDAS[-1]),
            ),
        ),
        Wrong(
            "turned round",
            lambda search: not exposes_search(search),
            "True and False have changed places",
            "True means: broken.",
            also=(lambda search: not _one_hot(1.0)(search), lambda search: not _one_hot(1.0, 1e-6)(search)),
        ),
        Wrong(
            "hills only",
            _hill,
            "the scores form one smooth hill: a search that fixes one constant first, or stops when scores fall, still climbs it",
            "Use random scores.",
        ),
        Wrong(
            "never",
            lambda search: False,
            "the answer is False for every search: nothing that is tried can ring",
            "Call `search` with scores whose best pair you know.",
        ),
        Wrong(
            "always",
            lambda search: True,
            "the answer is True for every search",
            "A right search must pass.",
        ),
    ),
    hints=(
        "You may invent the score. For which scores do you know the best pair beforehand?",
        "Build a table of scores with one largest entry, let `search` find it, and move that entry through the whole grid. Small "
        "differences between scores count, too.",
        "`search(lambda g, lam: table[g, lam], gammas, lambdas) != max(table, key=table.get)`, for many random tables",
    ),
)

EXERCISES = (AGREEMENT, DAP, ESZSL, GENERALISED, SEARCH)
