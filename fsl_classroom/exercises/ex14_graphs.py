"""Exercises of lesson 14: edges, labels that flow, a layer of messages, a detector of order, nearest neighbours.

The detector 14.4 gets implementations as arguments and must return True if their answers depend on the order of the queries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ---------------------------------------------------------------------------------------------- 14.1 edges


def edge_weights(nodes: Tensor, s: float) -> Tensor:
    """Returns exp(-d^2 / (2 s^2)) with a zero diagonal. nodes [V, D] -> [V, V]."""
    squares = (nodes[:, None] - nodes).square().sum(-1)
    itself = torch.eye(len(nodes), dtype=torch.bool)
    return (-squares / (2 * s**2)).exp().masked_fill(itself, 0)


def _edges_from_cdist(nodes: Tensor, s: float) -> Tensor:
    far = torch.cdist(nodes, nodes, compute_mode="donot_use_mm_for_euclid_dist")
    weights = torch.exp(-((far / s) ** 2) / 2)
    return weights - torch.diag(torch.diag(weights))


def _edges_in_loops(nodes: Tensor, s: float) -> Tensor:
    rows = []
    for i, a in enumerate(nodes):
        row = [
            torch.exp(-((a - b) ** 2).sum() / (2 * s * s)) if i != j else nodes.new_zeros(())
            for j, b in enumerate(nodes)
        ]
        rows.append(torch.stack(row))
    return torch.stack(rows)


def _edges_written_out(nodes: Tensor, s: float) -> Tensor:
    gram = nodes @ nodes.T
    squares = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    return (-squares / (2 * s**2)).exp() * (1 - torch.eye(len(nodes), dtype=nodes.dtype))


def _edges_filled(nodes: Tensor, s: float) -> Tensor:
    difference = nodes.unsqueeze(0) - nodes.unsqueeze(1)
    weights = torch.exp(-0.5 * torch.einsum("ijd,ijd->ij", difference, difference) / s**2)
    return weights.clone().fill_diagonal_(0.0)


def _edges_filled_in_place(nodes: Tensor, s: float) -> Tensor:
    return (-_square(nodes[:, None] - nodes) / (2 * s**2)).exp().fill_diagonal_(0.0)


def _edges_of(
    power: Callable[[Tensor], Tensor], scale: Callable[[float], float], keep: bool = False, factor: float = -1.0
) -> Callable[[Tensor, float], Tensor]:
    """Returns faulty weights: exp(factor * power(differences) / scale(s)), with the diagonal if keep."""

    def weights(nodes: Tensor, s: float) -> Tensor:
        found = (factor * power(nodes[:, None] - nodes) / scale(s)).exp()
        return found if keep else found * (1 - torch.eye(len(nodes), dtype=nodes.dtype))

    return weights


def _square(difference: Tensor) -> Tensor:
    return difference.square().sum(-1)


def _right_scale(s: float) -> float:
    return 2 * s**2


def _edge_cases(generator: Generator) -> list[Case]:
    nodes = torch.randn(7, 3, generator=generator)
    return [
        Case("the example on paper", (torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]]), 1.0)),
        Case("7 nodes, 3 features, s = 0.8", (nodes, 0.8)),
        Case("two nodes at one place, which an edge of weight 1 joins", (nodes[[0, 0, 1]], 1.7)),
        Case("a single feature, s = 3", (nodes[:, :1].contiguous(), 3.0)),
        Case("float64", (nodes.double(), 0.8)),
    ]


def _without_length(vectors: Tensor) -> Tensor:
    return (vectors.square().sum(-1) + 1e-30).sqrt()


EDGES = Exercise(
    id="14.1",
    title="Edges",
    reference=edge_weights,
    cases=_edge_cases,
    gradient=(0,),
    right=(_edges_from_cdist, _edges_in_loops, _edges_written_out, _edges_filled),
    wrong=(
        Wrong(
            "edges to itself",
            _edges_of(_square, _right_scale, keep=True),
            "the diagonal stays 1: every node has an edge to itself",
            "Put zeros on the diagonal, e.g. with `masked_fill` and `torch.eye`.",
        ),
        Wrong(
            "filled in place",
            _edges_filled_in_place,
            "the diagonal is overwritten in place: the values are right, but `exp` needs its old results for the gradient",
            "`masked_fill` without the underscore, or `.clone()` first.",
        ),
        Wrong(
            "no factor 2",
            _edges_of(_square, lambda s: s**2),
            "the squared distance is divided by s^2 only",
            "Divide by `2 * s**2`.",
            also=(_edges_of(_square, lambda s: s**2, keep=True),),
        ),
        Wrong(
            "s not squared",
            _edges_of(_square, lambda s: 2 * s),
            "the width s is not squared",
            "Divide by `2 * s**2`.",
            also=(_edges_of(_square, lambda s: s), _edges_of(_square, lambda s: 2 * s, keep=True)),
        ),
        Wrong(
            "s forgotten",
            _edges_of(_square, lambda s: 2.0),
            "the width s is not used",
            "Divide by `2 * s**2`.",
            also=(_edges_of(_square, lambda s: 1.0), _edges_of(_square, lambda s: 2.0, keep=True)),
        ),
        Wrong(
            "divided the wrong way",
            lambda z, s: (
                edge_weights(z, s) if s == 1 else _edges_of(lambda d: _square(d) * s**2 / 2, lambda s: 1.0)(z, s)
            ),
            "`/ 2 * s**2` divides by 2 and multiplies by s^2",
            "Brackets: `/ (2 * s**2)`.",
            also=(lambda z, s: _edges_of(lambda d: _square(d) * s**2 / 2, lambda s: 1.0, keep=True)(z, s),),
        ),
        Wrong(
            "2 squared, too",
            _edges_of(_square, lambda s: (2 * s) ** 2),
            "the 2 is squared along with s: the distance is divided by 4 s^2",
            "`2 * s**2`: only s is squared.",
            also=(_edges_of(_square, lambda s: (2 * s) ** 2, keep=True),),
        ),
        Wrong(
            "upper half",
            lambda z, s: edge_weights(z, s).triu(1),
            "only the upper half of the table is kept: an edge leads both ways",
            "Zeros belong on the diagonal alone.",
            also=(lambda z, s: edge_weights(z, s).tril(-1),),
        ),
        Wrong(
            "unit embeddings",
            lambda z, s: edge_weights(F.normalize(z, dim=1), s),
            "the embeddings are scaled to length one first",
            "Use the nodes as they are.",
        ),
        Wrong(
            "density",
            lambda z, s: edge_weights(z, s) / (s * (2 * torch.pi) ** 0.5),
            "the weights are divided by s sqrt(2 pi), as a normal density would be",
            "An edge of length 0 has weight 1: no factor in front.",
        ),
        Wrong(
            "root at zero",
            lambda z, s: (
                (-(_square(z[:, None] - z).sqrt() ** 2) / (2 * s**2))
                .exp()
                .masked_fill(torch.eye(len(z), dtype=torch.bool), 0)
            ),
            "a root is taken and squared again: the root of 0 has an infinite gradient, which becomes NaN",
            "Sum the squares and take no root.",
        ),
        Wrong(
            "distance not squared",
            _edges_of(_without_length, _right_scale),
            "the distance is not squared",
            "Sum the squared differences, and take no root.",
            also=(_edges_of(_without_length, lambda s: s), _edges_of(_without_length, _right_scale, keep=True)),
        ),
        Wrong(
            "city blocks",
            _edges_of(lambda d: d.abs().sum(-1), _right_scale),
            "absolute differences are summed: the city-block distance",
            "`.square()` in place of `.abs()`.",
            also=(lambda z, s: _edges_of(lambda d: d.abs().sum(-1).square(), _right_scale)(z, s),),
        ),
        Wrong(
            "mean of squares",
            _edges_of(lambda d: d.square().mean(-1), _right_scale),
            "the squares are averaged over the features",
            "`.sum(-1)`, not `.mean(-1)`.",
            also=(_edges_of(lambda d: d.square().mean(-1), _right_scale, keep=True),),
        ),
        Wrong(
            "no minus",
            _edges_of(_square, _right_scale, factor=1.0),
            "the minus in the exponent is missing: far nodes get the heaviest edges",
            "`exp(-...)`: near nodes weigh most.",
            also=(_edges_of(_square, _right_scale, keep=True, factor=1.0),),
        ),
        Wrong(
            "no exponential",
            lambda z, s: -_square(z[:, None] - z) / (2 * s**2),
            "the exponent is returned, without the exponential",
            "Take `.exp()`, then put zeros on the diagonal.",
            also=(lambda z, s: _square(z[:, None] - z), lambda z, s: _square(z[:, None] - z) / (2 * s**2)),
        ),
        Wrong(
            "rows that sum to one",
            lambda z, s: edge_weights(z, s) / edge_weights(z, s).sum(1, keepdim=True),
            "each row is divided by its sum, or goes through a softmax: the edges are no longer symmetric",
            "Return the weights as they are; exercise 14.2 normalises them.",
            also=(lambda z, s: (-_square(z[:, None] - z) / (2 * s**2)).softmax(-1),),
        ),
        Wrong(
            "one norm for all",
            lambda z, s: (
                (-(_without_length((z[:, None] - z).flatten()) ** 2) / (2 * s**2)).exp()
                * (1 - torch.eye(len(z), dtype=z.dtype))
            ),
            "one norm of all differences together is taken, so that every edge has the same weight",
            "Sum over the features only: `.square().sum(-1)`, or `torch.norm(..., dim=-1)`.",
        ),
        Wrong(
            "cut off from the graph",
            lambda z, s: edge_weights(z.detach(), s),
            "the weights are cut off from the embeddings: an encoder would learn nothing through them",
            "No `.detach()`, no `no_grad`: gradient flows through the edges.",
        ),
    ),
    hints=(
        "Two steps: all squared distances, then the formula. What may never have an edge to itself?",
        "`nodes[:, None] - nodes` is [V, V, D]. Square, sum over the features, divide by `2 * s**2`, minus, exponential.",
        "`weights = (-squares / (2 * s**2)).exp()`, then `weights.masked_fill(torch.eye(len(nodes), dtype=torch.bool), 0)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 14.2 flowing labels


def flow_labels(weights: Tensor, given: Tensor, alpha: float) -> Tensor:
    """Returns (I - alpha S)^-1 Y with S = D^-1/2 W D^-1/2. weights [V, V], given [V, N] -> [V, N]."""
    root = weights.sum(1).rsqrt()
    flow = root[:, None] * weights * root
    return torch.linalg.solve(torch.eye(len(weights), dtype=weights.dtype) - alpha * flow, given)


def _flow_by_inverse(weights: Tensor, given: Tensor, alpha: float) -> Tensor:
    scale = torch.diag(weights.sum(1) ** -0.5)
    return torch.inverse(torch.eye(len(weights), dtype=weights.dtype) - alpha * (scale @ weights @ scale)) @ given


def _flow_step_by_step(weights: Tensor, given: Tensor, alpha: float) -> Tensor:
    degree = weights.sum(0)
    flow = weights / (degree[:, None] * degree[None]).sqrt()
    state = given
    for _ in range(400):
        state = alpha * flow @ state + given
    return state


def _flow_of_paths(weights: Tensor, given: Tensor, alpha: float) -> Tensor:
    """Adds paths of 0, 1, 2, ... edges."""
    degree = weights.sum(1, keepdim=True)
    flow = weights / degree.sqrt() / degree.T.sqrt()
    total, term = given, given
    for _ in range(300):
        term = alpha * (flow @ term)
        total = total + term
    return total


def _flow_unscaled(weights: Tensor, given: Tensor, alpha: float) -> Tensor:
    """(D - alpha W)^-1, with the square roots put outside."""
    degree = weights.sum(1)
    inner = torch.linalg.solve(torch.diag(degree) - alpha * weights, degree.sqrt()[:, None] * given)
    return degree.sqrt()[:, None] * inner


def _symmetric(weights: Tensor) -> Tensor:
    root = weights.sum(1).rsqrt()
    return root[:, None] * weights * root


def _resolvent(
    of: Callable[[Tensor], Tensor], given_of: Callable[[Tensor], Tensor] = lambda y: y
) -> Callable[[Tensor, Tensor, float], Tensor]:
    def found(weights: Tensor, given: Tensor, alpha: float) -> Tensor:
        identity = torch.eye(len(weights), dtype=weights.dtype)
        return torch.linalg.solve(identity - alpha * of(weights), given_of(given))

    return found


def _padded(extra: float) -> Callable[[Tensor, Tensor, float], Tensor]:
    """Returns the formula with a number added to every degree."""
    return _resolvent(lambda w: w * (w.sum(1) + extra).rsqrt()[:, None] * (w.sum(1) + extra).rsqrt())


def _after(steps: int, factor: bool = False) -> Callable[[Tensor, Tensor, float], Tensor]:
    """Returns `steps` steps of the iteration; factor: with (1 - alpha) before Y."""

    def found(weights: Tensor, given: Tensor, alpha: float) -> Tensor:
        state, flow = given, _symmetric(weights)
        for _ in range(steps):
            state = alpha * flow @ state + (1 - alpha if factor else 1) * given
        return state

    return found


def _without_alpha(weights: Tensor, given: Tensor, alpha: float) -> Tensor:
    scale = torch.diag(weights.sum(1) ** -0.5)
    return torch.linalg.solve(torch.eye(len(weights), dtype=weights.dtype) - scale @ weights @ scale, given)


def _flow_cases(generator: Generator) -> list[Case]:
    def graph(nodes: int, known: int, n_way: int) -> tuple[Tensor, Tensor]:
        weights = torch.rand(nodes, nodes, generator=generator)
        weights = (weights + weights.T) / 2 * (1 - torch.eye(nodes))
        given = torch.zeros(nodes, n_way)
        given[torch.arange(known), torch.arange(known) % n_way] = 1
        return weights, given

    path = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    weights, given = graph(8, 3, 3)
    return [
        Case("the path of three nodes on paper", (path, torch.tensor([[1.0], [0.0], [0.0]]), 0.5)),
        Case("8 nodes, 3 of them labelled, alpha = 0.9", (weights, given, 0.9)),
        Case("12 nodes, two classes, unequal shots", (*graph(12, 5, 2), 0.7)),
        Case("alpha = 0: nothing flows", (weights, given, 0.0)),
        Case("float64", (weights.double(), given.double(), 0.9)),
    ]


def _edges_learn(answer: Callable, reference: Callable) -> str | None:
    """The gradient of symmetric weights, because the degrees may be sums of rows or of columns."""
    generator = torch.Generator().manual_seed(4)
    half, given = torch.rand(5, 5, generator=generator), torch.eye(5)[:, :2]

    def gradient(function: Callable) -> Tensor | None:
        leaf = half.clone().requires_grad_()
        weights = (leaf + leaf.T) * (1 - torch.eye(5))
        found = function(weights, given, 0.6)
        if not found.requires_grad:
            return None
        return torch.autograd.grad((found * torch.arange(10.0).view(5, 2)).sum(), leaf, allow_unused=True)[0]

    mine, right = gradient(answer), gradient(reference)
    if mine is None:
        return "no gradient reaches the edges."
    gap = float((mine - right).abs().max() / right.abs().max())
    return f"the gradient of the edges is off by a share of {gap:.2g}." if gap > 1e-3 else None


FLOW = Exercise(
    id="14.2",
    title="Labels that flow",
    reference=flow_labels,
    cases=_flow_cases,
    gradient=(1,),
    properties=(Property("the edges learn, too", _edges_learn),),
    right=(_flow_by_inverse, _flow_step_by_step, _flow_of_paths, _flow_unscaled),
    wrong=(
        Wrong(
            "rows that sum to one",
            _resolvent(lambda w: w / w.sum(1, keepdim=True)),
            "W is divided by the degrees on one side only, D^-1 W or W D^-1: that matrix is not symmetric",
            "Divide W_ij by the roots of both degrees: `root[:, None] * weights * root`.",
            also=(_resolvent(lambda w: w / w.sum(0, keepdim=True)),),
        ),
        Wrong(
            "softmax of the weights",
            _resolvent(lambda w: w.softmax(1)),
            "W goes through a softmax, which gives weight to edges that do not exist",
            "Divide W_ij by the roots of both degrees: `root[:, None] * weights * root`.",
            also=(_resolvent(lambda w: w.softmax(0)),),
        ),
        Wrong(
            "one number for all",
            _resolvent(lambda w: w / w.sum()),
            "W is divided by a single number, its sum, mean or largest weight, not by the degrees of its nodes",
            "Each W_ij is divided by the roots of its own two degrees.",
            also=(
                _resolvent(lambda w: w / w.max()),
                _resolvent(lambda w: w / w.mean()),
                _resolvent(lambda w: w / w.norm()),
            ),
        ),
        Wrong(
            "edges to itself",
            _resolvent(lambda w: _symmetric(w + torch.eye(len(w), dtype=w.dtype))),
            "every node gets an edge to itself before W is normalised",
            "Use W as it is: its diagonal is 0.",
        ),
        Wrong(
            "edges counted",
            _resolvent(lambda w: (w > 0).sum(1).to(w.dtype).rsqrt()[:, None] * w * (w > 0).sum(1).to(w.dtype).rsqrt()),
            "the degree counts a node's edges, without their weights",
            "The degree is the sum of a row of W.",
        ),
        Wrong(
            "labels put back",
            lambda w, y, a: torch.where(y.sum(1, keepdim=True) > 0, y, flow_labels(w, y, a)),
            "the labelled nodes are set back to their labels at the end",
            "Return F as it is, labelled nodes and all.",
        ),
        Wrong(
            "alpha at the wrong matrix",
            lambda w, y, a: torch.linalg.solve(a * torch.eye(len(w), dtype=w.dtype) - _symmetric(w), y),
            "alpha multiplies the identity, not S",
            "`eye - alpha * S`.",
        ),
        Wrong(
            "1 for the identity",
            lambda w, y, a: torch.linalg.solve(1 - a * _symmetric(w), y),
            "1 - alpha S subtracts from a table full of ones, not from the identity",
            "`torch.eye(len(weights), dtype=weights.dtype) - alpha * S`.",
        ),
        Wrong(
            "alpha outside the brackets",
            lambda w, y, a: torch.linalg.solve((1 - a) * (torch.eye(len(w), dtype=w.dtype) - _symmetric(w)), y),
            "alpha stands outside the brackets: (1 - alpha)(I - S) has no inverse, because I - S has none",
            "`eye - alpha * S`: alpha multiplies S only.",
            also=(
                lambda w, y, a: torch.linalg.inv((1 - a) * (torch.eye(len(w), dtype=w.dtype) - _symmetric(w))) @ y,
                lambda w, y, a: torch.linalg.solve(torch.eye(len(w), dtype=w.dtype) - _symmetric(w), y) / (1 - a),
            ),
        ),
        Wrong(
            "degrees padded",
            _padded(1e-2),
            "a number is added to the degrees, which changes S",
            "Every node has an edge, so no degree is 0: use the row sums as they are.",
            also=(_padded(1e-3), _padded(1e-1), _padded(1.0)),
        ),
        Wrong(
            "logarithm",
            lambda w, y, a: flow_labels(w, y, a).log(),
            "the logarithm of the result is returned",
            "Return F as it is; the package takes the logarithm later.",
        ),
        Wrong(
            "mu for alpha",
            lambda w, y, a: flow_labels(w, y, 1 / (1 + a)),
            "alpha is turned into 1 / (1 + alpha), as if it were mu",
            "The argument is alpha already.",
        ),
        Wrong(
            "not normalised",
            _resolvent(lambda w: w),
            "W is used as it is, without dividing by the degrees",
            "S = D^-1/2 W D^-1/2, where D holds the row sums of W.",
        ),
        Wrong(
            "degrees without root",
            _resolvent(lambda w: w / w.sum(1, keepdim=True) / w.sum(1)),
            "W is divided by the degrees of both nodes, not by their roots",
            "The exponent is -1/2 on either side: `.rsqrt()` of the row sums.",
        ),
        Wrong(
            "multiplied by the roots",
            _resolvent(lambda w: w.sum(1).sqrt()[:, None] * w * w.sum(1).sqrt()),
            "W is multiplied by the roots of the degrees",
            "D^-1/2 has a minus in its exponent: divide.",
        ),
        Wrong(
            "one side only",
            _resolvent(lambda w: w.sum(1).rsqrt()[:, None] * w),
            "only one side of W is divided by the root of the degree",
            "`root[:, None] * weights * root` scales rows and columns.",
            also=(_resolvent(lambda w: w * w.sum(1).rsqrt()),),
        ),
        Wrong(
            "times 1 - alpha",
            lambda w, y, a: (1 - a) * flow_labels(w, y, a),
            "the result carries a factor (1 - alpha): the limit of the iteration, not the formula asked for",
            "Return (I - alpha S)^-1 Y, without a factor.",
        ),
        Wrong(
            "one step",
            lambda w, y, a: y + a * _symmetric(w) @ y,
            "labels flow along one edge only (or none, or a few): this is the beginning of the sum, not its limit",
            "Solve (I - alpha S) F = Y, or add many more terms.",
            also=(_after(2), _after(3), _after(5), _after(10), _after(20), lambda w, y, a: a * _symmetric(w) @ y),
        ),
        Wrong(
            "labels in the flow only",
            lambda w, y, a: torch.linalg.matrix_power(a * _symmetric(w), 50) @ y,
            "the labels are given once at the start and not again: they fade away",
            "Each round adds the given labels anew: F <- alpha S F + Y.",
            also=(
                lambda w, y, a: torch.linalg.matrix_power(a * _symmetric(w), 100) @ y,
                lambda w, y, a: torch.linalg.matrix_power(a * _symmetric(w), 10) @ y,
                lambda w, y, a: torch.linalg.matrix_power(a * _symmetric(w), 20) @ y,
                lambda w, y, a: torch.linalg.matrix_power(a * _symmetric(w), 30) @ y,
                lambda w, y, a: torch.linalg.matrix_power(_symmetric(w), 50) @ y,
            ),
        ),
        Wrong(
            "stars for at-signs",
            lambda w, y, a: y * 1.0,
            "the matrices are multiplied number by number, `diag * weights * diag`, which leaves no edge: nothing flows",
            "Matrices are multiplied by `@`; or scale rows and columns by `root[:, None] * weights * root`.",
        ),
        Wrong(
            "alpha left out",
            _without_alpha,
            "I - S is solved, without alpha: that matrix is singular, because labels would flow for ever",
            "Subtract `alpha * S`.",
        ),
        Wrong(
            "not inverted",
            lambda w, y, a: (torch.eye(len(w), dtype=w.dtype) - a * _symmetric(w)) @ y,
            "Y is multiplied by I - alpha S, not by its inverse",
            "`torch.linalg.solve(matrix, given)` applies the inverse.",
        ),
        Wrong(
            "plus",
            lambda w, y, a: torch.linalg.solve(torch.eye(len(w), dtype=w.dtype) + a * _symmetric(w), y),
            "the sign is wrong: I + alpha S",
            "I - alpha S: the limit F satisfies F = alpha S F + Y.",
        ),
        Wrong(
            "every number inverted",
            lambda w, y, a: (1 / (torch.eye(len(w), dtype=w.dtype) - a * _symmetric(w) + 1e-9)) @ y,
            "every number of the matrix is inverted by itself: `1 / matrix` or `matrix ** -1`",
            "The inverse of a matrix is `torch.linalg.inv`; better is `torch.linalg.solve`.",
            also=(lambda w, y, a: (torch.eye(len(w), dtype=w.dtype) - a * _symmetric(w)) ** -1 @ y,),
        ),
        Wrong(
            "alpha forgotten",
            lambda w, y, a: flow_labels(w, y, 0.9 if a else 0.5),
            "alpha is not the argument's, but a number of your own",
            "Use the argument `alpha`.",
            also=(lambda w, y, a: flow_labels(w, y, 0.99), lambda w, y, a: flow_labels(w, y, 0.5)),
        ),
        Wrong(
            "normalised answers",
            lambda w, y, a: flow_labels(w, y, a) / flow_labels(w, y, a).sum(1, keepdim=True),
            "each row of the result is divided by its sum, or goes through a softmax",
            "Return F as it is.",
            also=(lambda w, y, a: flow_labels(w, y, a).softmax(1),),
        ),
        Wrong(
            "winners",
            lambda w, y, a: flow_labels(w, y, a).argmax(1),
            "the winning class of each node is returned, not what has flowed to it",
            "Return all of F, [V, N].",
        ),
        Wrong(
            "detached",
            lambda w, y, a: flow_labels(w.detach(), y, a),
            "the edges are cut off from the graph: an encoder would learn nothing through them",
            "No `.detach()`, no `no_grad`.",
        ),
    ),
    hints=(
        "Three lines: the degrees, the normalised matrix S, and one system of linear equations.",
        "S_ij = W_ij / sqrt(d_i d_j). F satisfies F = alpha S F + Y: bring F to one side.",
        "`root = weights.sum(1).rsqrt()`, `S = root[:, None] * weights * root`, then `torch.linalg.solve(eye - alpha * S, Y)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 14.3 messages


def message_layer(nodes: Tensor, scores: Tensor, w_others: Tensor, w_own: Tensor) -> Tensor:
    """Returns [x, relu(A x W1 + x W2)], A the softmax of the scores over the others. -> [V, U + H]."""
    itself = torch.eye(len(nodes), dtype=torch.bool)
    edges = scores.masked_fill(itself, -torch.inf).softmax(1)
    return torch.cat([nodes, torch.relu(edges @ nodes @ w_others + nodes @ w_own)], dim=1)


def _messages_in_a_loop(nodes: Tensor, scores: Tensor, w_others: Tensor, w_own: Tensor) -> Tensor:
    rows = []
    for i in range(len(nodes)):
        others = [j for j in range(len(nodes)) if j != i]
        share = scores[i, others].softmax(0)
        heard = (share[:, None] * nodes[others]).sum(0)
        rows.append(torch.cat([nodes[i], (heard @ w_others + nodes[i] @ w_own).clamp_min(0)]))
    return torch.stack(rows)


def _messages_by_exponentials(nodes: Tensor, scores: Tensor, w_others: Tensor, w_own: Tensor) -> Tensor:
    heavy = (scores - scores.amax(1, keepdim=True)).exp() * (1 - torch.eye(len(nodes), dtype=nodes.dtype))
    edges = heavy / heavy.sum(1, keepdim=True)
    new = torch.cat([edges @ nodes, nodes], 1) @ torch.cat([w_others, w_own])
    return torch.hstack([nodes, F.relu(new)])


def _messages_sent_first(nodes: Tensor, scores: Tensor, w_others: Tensor, w_own: Tensor) -> Tensor:
    hidden = scores.clone()
    hidden[range(len(nodes)), range(len(nodes))] = float("-inf")
    heard = torch.einsum("ij,jh->ih", F.softmax(hidden, dim=-1), nodes @ w_others)
    return torch.cat((nodes, torch.maximum(heard + nodes @ w_own, torch.zeros_like(heard))), dim=-1)


def _messages_renormalised(nodes: Tensor, scores: Tensor, w_others: Tensor, w_own: Tensor) -> Tensor:
    edges = scores.softmax(1)
    edges = edges - torch.diag(edges.diagonal())
    edges = edges / edges.sum(1, keepdim=True)
    return torch.cat([nodes, F.relu(edges @ (nodes @ w_others) + nodes @ w_own)], 1)


def _listening(scores: Tensor) -> Tensor:
    return scores.masked_fill(torch.eye(len(scores), dtype=torch.bool), -torch.inf).softmax(1)


Parts = Callable[[Tensor, Tensor], Tensor]


def _layer_of(
    edges: Callable[[Tensor], Tensor] = _listening,
    join: Parts = lambda x, new: torch.cat([x, torch.relu(new)], 1),
    new_of: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = lambda a, x, w1, w2: a @ x @ w1 + x @ w2,
) -> Callable[..., Tensor]:
    """Returns the layer with one part replaced."""

    def layer(nodes: Tensor, scores: Tensor, w_others: Tensor, w_own: Tensor) -> Tensor:
        return join(nodes, new_of(edges(scores), nodes, w_others, w_own))

    return layer


def _message_cases(generator: Generator) -> list[Case]:
    def case(says: str, nodes: int, features: int, hidden: int, dtype: torch.dtype = torch.float32) -> Case:
        shapes = ((nodes, features), (nodes, nodes), (features, hidden), (features, hidden))
        return Case(says, tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes))

    return [
        case("5 nodes, 4 features, 3 new ones", 5, 4, 3),
        case("2 nodes: each listens to the other only", 2, 3, 4),
        case("as many new features as old ones", 6, 4, 4),
        case("as many nodes as features", 4, 4, 2),
        case("float64", 5, 4, 3, torch.float64),
    ]


def _nodes_in_another_order(answer: Callable, reference: Callable) -> str | None:
    generator = torch.Generator().manual_seed(2)
    shapes = ((6, 3), (6, 6), (3, 2), (3, 2))
    nodes, scores, one, two = (torch.randn(shape, generator=generator) for shape in shapes)
    order = torch.randperm(6, generator=generator)
    gap = (answer(nodes[order], scores[order][:, order], one, two) - answer(nodes, scores, one, two)[order]).abs().max()
    return f"nodes in another order changed a row by {float(gap):.2g}." if float(gap) > 1e-4 else None


MESSAGES = Exercise(
    id="14.3",
    title="A layer of messages",
    reference=message_layer,
    cases=_message_cases,
    gradient=(0, 1, 2, 3),
    properties=(Property("permuting the nodes permutes the rows", _nodes_in_another_order),),
    right=(_messages_in_a_loop, _messages_by_exponentials, _messages_sent_first, _messages_renormalised),
    wrong=(
        Wrong(
            "a node listens to itself",
            _layer_of(lambda s: s.softmax(1)),
            "the diagonal takes part in the softmax: each node listens to itself, too",
            "Set the diagonal to minus infinity before the softmax.",
        ),
        Wrong(
            "zero before the softmax",
            _layer_of(lambda s: s.masked_fill(torch.eye(len(s), dtype=torch.bool), 0).softmax(1)),
            "the diagonal is set to 0 before the softmax, which makes exp(0) = 1 of it",
            "`-torch.inf` in place of 0: exp(-inf) is 0.",
        ),
        Wrong(
            "zero after the softmax",
            _layer_of(lambda s: s.softmax(1).masked_fill(torch.eye(len(s), dtype=torch.bool), 0)),
            "the diagonal is removed after the softmax: the rows no longer sum to one",
            "Mask before the softmax, with `-torch.inf`; or divide by the row's sum afterwards.",
        ),
        Wrong(
            "softmax over the wrong axis",
            _layer_of(lambda s: s.masked_fill(torch.eye(len(s), dtype=torch.bool), -torch.inf).softmax(0)),
            "the softmax runs down the columns: what a node *sends* sums to one, not what it hears",
            "Row i says to whom node i listens: `.softmax(1)`.",
            also=(_layer_of(lambda s: s.softmax(0)),),
        ),
        Wrong(
            "edges turned round",
            _layer_of(lambda s: _listening(s).T),
            "the edges are transposed: a node hears those that listen to it",
            "`edges @ nodes`, without a transpose.",
            also=(_layer_of(lambda s: _listening(s.T)),),
        ),
        Wrong(
            "no softmax",
            _layer_of(lambda s: s.masked_fill(torch.eye(len(s), dtype=torch.bool), 0)),
            "the scores are used as edges, without a softmax",
            "A = softmax of each row, without the diagonal.",
            also=(
                _layer_of(lambda s: s),
                _layer_of(lambda s: s.sigmoid()),
                _layer_of(lambda s: s.sigmoid() * (1 - torch.eye(len(s), dtype=s.dtype))),
            ),
        ),
        Wrong(
            "divided by sums",
            _layer_of(
                lambda s: (
                    s.masked_fill(torch.eye(len(s), dtype=torch.bool), 0)
                    / s.masked_fill(torch.eye(len(s), dtype=torch.bool), 0).sum(1, keepdim=True)
                )
            ),
            "the scores are divided by their row's sum: shares may be negative, since a score may be",
            "The softmax takes `exp` first: `.softmax(1)`.",
            also=(_layer_of(lambda s: s / s.sum(1, keepdim=True)),),
        ),
        Wrong(
            "itself turned down",
            _layer_of(lambda s: (s - torch.eye(len(s), dtype=s.dtype)).softmax(1)),
            "a number is subtracted on the diagonal: the node still listens to itself, only less",
            "Only minus infinity becomes a share of 0.",
            also=(_layer_of(lambda s: (s - 10 * torch.eye(len(s), dtype=s.dtype)).softmax(1)),),
        ),
        Wrong(
            "everybody alike",
            _layer_of(lambda s: (1 - torch.eye(len(s), dtype=s.dtype)) / (len(s) - 1) + 0 * s),
            "all others are heard alike: the scores are not used",
            "Row i of A is the softmax of row i of the scores.",
        ),
        Wrong(
            "one softmax for all",
            _layer_of(
                lambda s: (
                    s.masked_fill(torch.eye(len(s), dtype=torch.bool), -torch.inf).flatten().softmax(0).view(s.shape)
                )
            ),
            "one softmax runs over the whole table, so that the rows do not sum to one",
            "`.softmax(1)`: each row by itself.",
            also=(_layer_of(lambda s: s.flatten().softmax(0).view(s.shape)),),
        ),
        Wrong(
            "scores turned round",
            _layer_of(lambda s: _listening(-s)),
            "the sign of the scores is turned: a low score is heard most",
            "A high score means: listen.",
        ),
        Wrong(
            "plus infinity",
            _layer_of(lambda s: s.masked_fill(torch.eye(len(s), dtype=torch.bool), torch.inf).softmax(1)),
            "infinity on the diagonal (plus infinity, or 0 times infinity beside it) makes every share NaN",
            "`scores.masked_fill(itself, -torch.inf)`.",
        ),
        Wrong(
            "itself on top",
            _layer_of(lambda s: _listening(s) + torch.eye(len(s), dtype=s.dtype)),
            "the node itself is added to what it hears",
            "A has zeros on its diagonal; x W2 is the node's own part.",
        ),
        Wrong(
            "the loudest only",
            _layer_of(lambda s: F.one_hot(_listening(s).argmax(1), len(s)).to(s) + 0 * s),
            "each node hears only the neighbour of the highest score",
            "The softmax gives everybody a share.",
        ),
        Wrong(
            "nodes not kept",
            _layer_of(join=lambda x, new: torch.relu(new)),
            "only the new features are returned: the node forgets its embedding and its label",
            "`torch.cat([nodes, new], dim=1)`: x is kept in front.",
        ),
        Wrong(
            "new features first",
            _layer_of(join=lambda x, new: torch.cat([torch.relu(new), x], 1)),
            "the new features stand in front of the old ones",
            "`[x, new]`: the old ones first.",
        ),
        Wrong(
            "no relu",
            _layer_of(join=lambda x, new: torch.cat([x, new], 1)),
            "the relu is missing",
            "`torch.relu` of the sum.",
        ),
        Wrong(
            "another bend",
            _layer_of(join=lambda x, new: torch.cat([x, F.leaky_relu(new)], 1)),
            "another function than relu is taken: leaky ReLU, GELU, ELU or a sigmoid",
            "`torch.relu` of the sum.",
            also=tuple(
                _layer_of(join=partial(lambda bend, x, new: torch.cat([x, bend(new)], 1), bend))
                for bend in (F.gelu, F.elu, torch.sigmoid, torch.tanh)
            ),
        ),
        Wrong(
            "only to itself",
            _layer_of(lambda s: torch.eye(len(s), dtype=s.dtype) + 0 * s),
            "the mask is turned round: everybody but the node itself is silenced",
            "`torch.eye` marks the node itself: mask where it is True, not where it is False.",
        ),
        Wrong(
            "own part sent along",
            _layer_of(new_of=lambda a, x, w1, w2: a @ (x @ w1 + x @ w2)),
            "x W2 goes along the edges, too: the node hears what the others say of themselves",
            "`edges @ nodes @ w_others + nodes @ w_own`: only the first part is heard.",
        ),
        Wrong(
            "half a relu",
            _layer_of(
                join=lambda x, new: torch.cat([x, new], 1),
                new_of=lambda a, x, w1, w2: torch.relu(a @ x @ w1) + x @ w2,
            ),
            "only one of the two parts goes through the relu",
            "Add first, then one relu.",
            also=(
                _layer_of(
                    join=lambda x, new: torch.cat([x, new], 1),
                    new_of=lambda a, x, w1, w2: a @ x @ w1 + torch.relu(x @ w2),
                ),
            ),
        ),
        Wrong(
            "relu of everything",
            _layer_of(join=lambda x, new: torch.relu(torch.cat([x, new], 1))),
            "the relu also cuts the old features",
            "relu only what is new, then concatenate.",
        ),
        Wrong(
            "two relus",
            _layer_of(
                join=lambda x, new: torch.cat([x, new], 1),
                new_of=lambda a, x, w1, w2: torch.relu(a @ x @ w1) + torch.relu(x @ w2),
            ),
            "each part has a relu of its own, and the parts are added afterwards",
            "Add first, then one relu.",
        ),
        Wrong(
            "weights exchanged",
            _layer_of(new_of=lambda a, x, w1, w2: a @ x @ w2 + x @ w1),
            "the two weight matrices are exchanged",
            "`w_others` belongs to what is heard, `w_own` to the node itself.",
        ),
        Wrong(
            "others only",
            _layer_of(new_of=lambda a, x, w1, w2: a @ x @ w1),
            "the node's own part x W2 is missing",
            "Add `nodes @ w_own`.",
        ),
        Wrong(
            "itself only",
            _layer_of(new_of=lambda a, x, w1, w2: x @ w1 + x @ w2),
            "the edges are not used: nobody hears anybody",
            "`edges @ nodes @ w_others`.",
            also=(_layer_of(new_of=lambda a, x, w1, w2: x @ w2),),
        ),
        Wrong(
            "added to the node",
            _layer_of(join=lambda x, new: x + torch.relu(new) if x.shape == new.shape else torch.relu(new)),
            "the new features are added to the old ones, not concatenated",
            "`torch.cat([nodes, new], dim=1)` is [V, U + H].",
        ),
    ),
    hints=(
        "Who listens to whom? Row i of the scores belongs to listener i, and nobody listens to himself.",
        "Mask the diagonal with `-torch.inf`, softmax over dim 1, then `edges @ nodes @ w_others + nodes @ w_own`.",
        "`torch.cat([nodes, torch.relu(edges @ nodes @ w_others + nodes @ w_own)], dim=1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 14.4 the order of the queries

Judge = Callable[[Tensor, Tensor, Tensor, int], Tensor]
ORDERS = 20


def order_matters(judge: Judge, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    """Returns True if the answers do not move with the queries in one of many orders."""
    before = judge(support, labels, query, n_way)
    generator = torch.Generator().manual_seed(0)
    for _ in range(ORDERS):
        order = torch.randperm(len(query), generator=generator)
        if not torch.allclose(judge(support, labels, query[order], n_way), before[order], atol=1e-4):
            return True
    return False


def _matters_put_back(judge: Judge, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    """Puts the answers back in their places."""
    expected = judge(support, labels, query, n_way)
    gaps = []
    for seed in range(20):
        order = torch.rand(len(query), generator=torch.Generator().manual_seed(seed)).argsort()
        gaps.append(float((judge(support, labels, query[order], n_way)[order.argsort()] - expected).abs().max()))
    return max(gaps) > 1e-4


def _matters_by_exchanging_pairs(judge: Judge, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    before = judge(support, labels, query, n_way)
    for i in range(len(query)):
        for j in range(i):
            order = list(range(len(query)))
            order[i], order[j] = j, i
            if ((judge(support, labels, query[order], n_way) - before[order]).abs() > 1e-4).any():
                return True
    return _matters_put_back(judge, support, labels, query, n_way)


def _matters_by_any(judge: Judge, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    before, found = judge(support, labels, query, n_way), []
    for _ in range(25):
        order = torch.randperm(len(query))
        found.append((judge(support, labels, query[order], n_way) - before[order]).norm() > 1e-4)
    return torch.stack(found).any()


def _distance_scores(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    centres = torch.stack([support[labels == k].mean(0) for k in range(n_way)])
    return -(query[:, None] - centres).square().sum(-1)


def _propagated(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Sound and transductive: label propagation over support and queries."""
    given = F.pad(F.one_hot(labels, n_way).to(support.dtype), (0, 0, 0, len(query)))
    return flow_labels(edge_weights(torch.cat([support, query]), 1.5), given, 0.8)[len(support) :]


def _evened_out(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Sound and transductive: every class gets the same total."""
    shares = _distance_scores(support, labels, query, n_way).softmax(1)
    return shares / shares.sum(0)


def _rounded_by_order(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Sound: a sum over the queries in their order rounds differently in float32."""
    total = torch.zeros(query.shape[1])
    for row in query:
        total = total + row * 1.0001
    return _distance_scores(support, labels, query - 1e-3 * total / len(query), n_way)


def _block_prior(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """The fault of the lesson: queries of one stretch of the batch are taken for one class."""
    weights = edge_weights(torch.cat([support, query]), 1.5)
    block = torch.arange(len(query)) * n_way // len(query)
    same = torch.ones_like(weights)
    same[len(support) :, len(support) :] = (block[:, None] == block).to(weights.dtype)
    given = F.pad(F.one_hot(labels, n_way).to(support.dtype), (0, 0, 0, len(query)))
    return flow_labels(weights * same + 1e-6, given, 0.8)[len(support) :]


def _with_bonus(bonus: Callable[[Tensor, int], Tensor]) -> Judge:
    """Adds bonus(queries, n_way) [M, N] to sound scores."""

    def judge(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        return _distance_scores(support, labels, query, n_way) + bonus(query, n_way)

    return judge


def _at(row: int, column: int, size: float) -> Callable[[Tensor, int], Tensor]:
    def bonus(query: Tensor, n_way: int) -> Tensor:
        found = torch.zeros(len(query), n_way, dtype=query.dtype)
        found[row, column] = size
        return found

    return bonus


def _small_everywhere(query: Tensor, n_way: int) -> Tensor:
    """1e-3 in all, rising with the place."""
    return torch.linspace(0, 1e-3 * len(query), len(query), dtype=query.dtype)[:, None].expand(-1, n_way)


def _mirrored(query: Tensor, n_way: int) -> Tensor:
    """The same from either end, so that turning the batch round shows nothing."""
    place = torch.arange(len(query), dtype=query.dtype)
    return torch.minimum(place, place.flip(0))[:, None] * torch.tensor([0.1] + [0.0] * (n_way - 1), dtype=query.dtype)


def _mixed_with_next(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Cancels in every sum over the queries, and rolling the batch shows nothing: each row borrows from the next, in a ring."""
    found = _distance_scores(support, labels, query, n_way)
    return found + 0.2 * (found.roll(-1, 0) - found)


def _centred(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Sound: scores less their mean over the queries. The scores are small, and rounding is large beside them."""
    found = 100 + 0.01 * _distance_scores(support, labels, query, n_way)
    return found - found.mean(0)


def _borrows_from_both(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """A ring that neither rolling nor turning the batch round shows."""
    found = _distance_scores(support, labels, query, n_way)
    return found + 0.01 * (found.roll(1, 0) + found.roll(-1, 0))


def _higher_at_first(given: Tensor) -> Judge:
    """Higher scores in the order of `given` only, so that every other order lowers them."""

    def judge(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        found = _distance_scores(support, labels, query, n_way)
        return found + 0.01 * torch.equal(query[:, 0].argsort(), given[:, 0].argsort())

    return judge


def _last_row_sometimes(given: Tensor) -> Judge:
    """The last answer moves with the last two queries' order, and is right in the order of `given`."""
    sign = 1.0 if given[-1, 0] < given[-2, 0] else -1.0

    def judge(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        push = torch.zeros(len(query), 1, dtype=query.dtype)
        push[-1:] = 0.01 * bool((sign * query[-1:, 0] > sign * query[-2:-1, 0]).any())  # also for a single query
        return _distance_scores(support, labels, query, n_way) + push

    return judge


def _one_picture(given: Tensor, picture: int, places: tuple[int, ...]) -> Judge:
    """Only the answer to one picture is off, and only where it stands in one of these places."""

    def judge(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        found = _distance_scores(support, labels, query, n_way)
        here = (query == given[picture]).all(1) & torch.isin(torch.arange(len(query)), torch.tensor(places))
        return found + 0.5 * here[:, None] * torch.eye(n_way, dtype=query.dtype)[0]

    return judge


def _first_row_turned(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """In the first place the scores of the classes change places: sum, norm and largest score of the row stay."""
    found = _distance_scores(support, labels, query, n_way)
    return torch.cat([found[:1].roll(1, 1), found[1:]])


def _answers_moved_on(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Sorts the answers by their first score: the same set of rows, so that sums and norms agree."""
    found = _distance_scores(support, labels, query, n_way)
    return found[found[:, 0].argsort()]


def _running_mean(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    so_far = query.cumsum(0) / torch.arange(1, len(query) + 1, dtype=query.dtype)[:, None]
    return _distance_scores(support, labels, query - 0.3 * so_far, n_way)


def _sometimes(rank: int) -> Judge:
    """Wrong only where the query of this rank (by its norm) stands in the first half of the batch."""

    def judge(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        found = _distance_scores(support, labels, query, n_way)
        place = int(query.square().sum(1).argsort()[rank % len(query)])
        return found + 0.5 * (place < len(query) // 2) * torch.eye(n_way, dtype=query.dtype)[0]

    return judge


def _order_cases(generator: Generator) -> list[Case]:
    labels = torch.tensor([2, 0, 1, 1, 0, 2])
    corners = 3 * torch.randn(3, 4, generator=generator)
    support = corners[labels] + torch.randn(6, 4, generator=generator)
    query = corners[torch.arange(9) // 3] + torch.randn(9, 4, generator=generator)  # in class order
    second_half = query.square().sum(1).argsort()
    late = [rank for rank in range(9) if int(second_half[rank]) >= 4][:4]  # not seen in the order that is given
    task = (support, labels, query, 3)
    many = corners[torch.arange(24) // 8] + torch.randn(24, 4, generator=generator)
    return [
        Case("a sound one: nearest class mean", (_distance_scores, *task)),
        Case("a sound one: label propagation, where each answer depends on the other queries", (_propagated, *task)),
        Case("a sound one that gives every class the same total", (_evened_out, *task)),
        Case("a sound one that rounds differently in another order", (_rounded_by_order, *task)),
        Case("a stretch of the batch is taken for one class", (_block_prior, *task)),
        Case("only the last query's answer depends on its place", (_with_bonus(_at(-1, 0, 1.0)), *task)),
        Case("only the first query's answer for one class, by 0.005", (_with_bonus(_at(0, 2, 5e-3)), *task)),
        Case("a small push that grows along the batch", (_with_bonus(_small_everywhere), *task)),
        Case("a push that is the same from either end of the batch", (_with_bonus(_mirrored), *task)),
        Case("each answer borrows from the next one, in a ring", (_mixed_with_next, *task)),
        Case("the right answers, handed to the wrong queries", (_answers_moved_on, *task)),
        Case("each query is judged against the mean of those before it", (_running_mean, *task)),
        *[Case("a fault that shows in some orders only", (_sometimes(rank), *task)) for rank in late],
        Case("one answer of 24, for one class, by 0.003", (_with_bonus(_at(0, 0, 3e-3)), support, labels, many, 3)),
        Case("scores that are higher in the given order than in any other", (_higher_at_first(query), *task)),
        Case("only the last answer, and only in some orders", (_last_row_sometimes(query), *task)),
        Case("a sound one whose scores lie round zero, where rounding shows", (_centred, *task)),
        Case("each answer borrows from both its neighbours, in a ring", (_borrows_from_both, *task)),
        Case("in the first place the scores of the classes are exchanged", (_first_row_turned, *task)),
        *[
            Case("one picture's answer alone, where the picture stands in certain places", (faulty, *task))
            for faulty in (
                _one_picture(query, 4, (1, 3, 5, 7)),
                _one_picture(query, 4, (2, 3, 5, 6)),
                _one_picture(query, 0, (1, 2, 6, 7)),
            )
        ],
    ]


def _by_orders(orders: Callable[[int], list[Tensor]], differ: Callable[[Tensor, Tensor], bool]) -> Callable[..., bool]:
    """Returns a detector that tries these orders and compares in this way."""

    def found(judge: Judge, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
        before = judge(support, labels, query, n_way)
        return any(differ(judge(support, labels, query[o], n_way), before[o]) for o in orders(len(query)))

    return found


def _apart(a: Tensor, b: Tensor, atol: float = 1e-4) -> bool:
    return not torch.allclose(a, b, atol=atol)


def _many(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randperm(count, generator=generator) for _ in range(20)]


def _class_order(judge: Judge, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    before = judge(support, labels, query, n_way)
    order = before.argmax(1).argsort()
    return _apart(judge(support, labels, query[order], n_way), before[order])


def _one_query(row: int, orders: int = 15) -> Callable[..., bool]:
    """Puts the answers back in their places and compares those to one query."""

    def found(judge: Judge, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
        before, generator = judge(support, labels, query, n_way), torch.Generator().manual_seed(5)
        for _ in range(orders):
            order = torch.randperm(len(query), generator=generator)
            if _apart(judge(support, labels, query[order], n_way)[order.argsort()][row], before[row]):
                return True
        return False

    return found


def _in_halves(judge: Judge, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    half = len(query) // 2
    parts = [judge(support, labels, part, n_way) for part in (query[:half], query[half:])]
    return _apart(torch.cat(parts), judge(support, labels, query, n_way))


def _every_order(seed: int, orders: int) -> Callable[..., bool]:
    """Rings only if each of some random orders tells."""

    def found(judge: Judge, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
        before, generator = judge(support, labels, query, n_way), torch.Generator().manual_seed(seed)
        drawn = [torch.randperm(len(query), generator=generator) for _ in range(orders)]
        return all(_apart(judge(support, labels, query[o], n_way), before[o]) for o in drawn)

    return found


def _answers_not_moved(judge: Judge, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    before = judge(support, labels, query, n_way)
    return any(_apart(judge(support, labels, query[o], n_way), before) for o in _many(len(query)))


def _asked_alone(judge: Judge, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> bool:
    together = judge(support, labels, query, n_way)
    return any(_apart(judge(support, labels, query[i : i + 1], n_way)[0], together[i]) for i in range(len(query)))


ORDER = Exercise(
    id="14.4",
    title="Does the order of the queries matter?",
    reference=order_matters,
    cases=_order_cases,
    right=(_matters_put_back, _matters_by_exchanging_pairs, _matters_by_any, _by_orders(_many, _apart)),
    wrong=(
        Wrong(
            "never rings",
            lambda *args: False,
            "the test never rings",
            "Compare the answers for `query[order]` with `before[order]`.",
        ),
        Wrong(
            "always rings",
            lambda *args: True,
            "the test always rings",
            "A sound one must pass: answers to `query[p]` belong to `before[p]`. `after[p]` against `before` moves them twice.",
        ),
        Wrong(
            "answers not moved along",
            _answers_not_moved,
            "the answers in the new order are compared with those in the old one: a sound implementation rings, too",
            "Query `order[i]` now stands at place i: compare with `before[order]`.",
        ),
        Wrong(
            "queries asked one by one",
            _asked_alone,
            "each query is asked alone: that rings for every transductive method, though its answers may move with the queries",
            "Keep all queries in the batch, and change nothing but their order.",
            also=(
                _in_halves,
                lambda judge, s, y, q, n: _apart(judge(s, y, q[:-1], n), judge(s, y, q, n)[:-1]),
                lambda judge, s, y, q, n: _apart(judge(s, y, q[: len(q) // 2], n), judge(s, y, q, n)[: len(q) // 2]),
            ),
        ),
        Wrong(
            "turned round",
            _by_orders(lambda count: [torch.arange(count).flip(0)], _apart),
            "the batch is only turned round: what is the same from either end stays hidden",
            "Use `torch.randperm`, and many orders.",
        ),
        Wrong(
            "rolled",
            _by_orders(lambda count: [torch.arange(count).roll(i) for i in range(1, count)], _apart),
            "the batch is only rolled or turned round: a fault that runs along a ring stays hidden",
            "Use `torch.randperm`, and many orders.",
            also=(
                _by_orders(lambda count: [torch.arange(count).roll(1)], _apart),
                _by_orders(
                    lambda count: [
                        torch.arange(count).flip(0),
                        *(torch.arange(count).roll(i) for i in range(1, count)),
                    ],
                    _apart,
                ),
            ),
        ),
        Wrong(
            "one order",
            _by_orders(lambda count: _many(count)[:1], _apart),
            "a single order is tried, in which some faults do not show",
            "Draw 20 orders, and ring if one of them tells.",
            also=(
                *(
                    _by_orders(
                        partial(
                            lambda seed, count: [torch.randperm(count, generator=torch.Generator().manual_seed(seed))],
                            seed,
                        ),
                        _apart,
                    )
                    for seed in (0, 42, 2)
                ),
                _by_orders(lambda count: [torch.tensor([1, 0, *range(2, count)])], _apart),
                _class_order,
            ),
        ),
        Wrong(
            "winners only",
            _by_orders(_many, lambda a, b: bool((a.argmax(1) != b.argmax(1)).any())),
            "only the winning classes are compared: a fault that moves scores without changing a winner stays hidden",
            "Compare the scores themselves, with `torch.allclose`.",
        ),
        Wrong(
            "sums compared",
            _by_orders(_many, lambda a, b: abs(float(a.sum() - b.sum())) > 1e-3),
            "sums, means or norms are compared: answers that change places leave them alone",
            "Compare row by row: `torch.allclose(after, before[order])`.",
            also=(
                _by_orders(_many, lambda a, b: abs(float(a.norm() - b.norm())) > 1e-3),
                _by_orders(_many, lambda a, b: float((a - b).sum()) > 1e-4),
            ),
        ),
        Wrong(
            "rows boiled down",
            _by_orders(_many, lambda a, b: _apart(a.sum(1), b.sum(1))),
            "each answer is boiled down to one number, its sum or its largest score, before it is compared",
            "Compare all scores of a row: classes may have exchanged theirs.",
            also=(_by_orders(_many, lambda a, b: _apart(a.amax(1), b.amax(1))),),
        ),
        Wrong(
            "shares compared",
            _by_orders(_many, lambda a, b: _apart(a.softmax(1), b.softmax(1))),
            "a softmax is taken before the comparison: a push that raises all classes alike stays hidden",
            "Compare the scores themselves.",
        ),
        Wrong(
            "too strict",
            _by_orders(_many, lambda a, b: not torch.equal(a, b)),
            "the answers must be equal to the last bit, or nearly so: a sum in another order rounds differently",
            "`torch.allclose(..., atol=1e-4)`: its own tolerance is 1e-8 near zero.",
            also=(_by_orders(_many, lambda a, b: not torch.allclose(a, b)),),
        ),
        Wrong(
            "mean difference",
            _by_orders(_many, lambda a, b: float((a - b).abs().mean()) > 1e-4),
            "the differences are averaged: one small fault among many answers is diluted",
            "Take the largest difference, `.abs().max()`.",
            also=(_by_orders(_many, lambda a, b: float((a - b).square().mean()) > 1e-4),),
        ),
        Wrong(
            "no absolute value",
            _by_orders(_many, lambda a, b: float((a - b).max()) > 1e-4),
            "differences are compared with their sign: a score that falls stays hidden",
            "`.abs()` before `.max()`.",
            also=(_by_orders(_many, lambda a, b: float((b - a).max()) > 1e-4),),
        ),
        Wrong(
            "first row only",
            _by_orders(_many, lambda a, b: _apart(a[0], b[0])),
            "only one query's answer is compared, or only one place",
            "Compare all rows: a fault may sit in one.",
            also=(
                _by_orders(_many, lambda a, b: _apart(a[-1], b[-1])),
                _one_query(0),
            ),
        ),
        Wrong(
            "all rows must tell",
            _by_orders(_many, lambda a, b: bool(((a - b).abs().amax(1) > 1e-4).all())),
            "the test rings only if every row (or every score) has changed",
            "One row that tells is enough: `any`, not `all`.",
            also=(_by_orders(_many, lambda a, b: bool(((a - b).abs() > 1e-4).all())),),
        ),
        Wrong(
            "too lax",
            _by_orders(_many, lambda a, b: float((a - b).abs().max()) > 0.05),
            "the tolerance is so wide that a small fault passes",
            "`atol=1e-4` is far above rounding, and below the smallest fault; leave `rtol` as it is.",
            also=(
                _by_orders(_many, lambda a, b: not torch.allclose(a, b, rtol=1e-2, atol=1e-4)),
                _by_orders(_many, lambda a, b: float((a - b).abs().max()) > 0.01),
            ),
        ),
        Wrong(
            "turned verdict",
            lambda *args: not order_matters(*args),
            "True and False are exchanged",
            "Return True if the order matters: that is the fault.",
        ),
        Wrong(
            "all orders must tell",
            lambda judge, s, y, q, n: all(_apart(judge(s, y, q[o], n), judge(s, y, q, n)[o]) for o in _many(len(q))),
            "the test rings only if every order tells",
            "One order that tells is enough: `any`, not `all`.",
            also=(_every_order(0, 5),),
        ),
    ),
    hints=(
        "The queries of a task are a set. What must happen to the answers if the queries change places?",
        "`order = torch.randperm(len(query))`. Answers for `query[order]` are `before[order]`. One order may hide a fault.",
        "For 20 orders: `after = judge(..., query[order], n_way)`; True if not `torch.allclose(after, before[order], atol=1e-4)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 14.5 nearest neighbours


def nearest_edges(weights: Tensor, k: int) -> Tensor:
    """Returns weights without the edges that are among the k heaviest of neither end. [V, V] -> [V, V]."""
    top = weights.topk(k, dim=1).indices
    kept = torch.zeros_like(weights, dtype=torch.bool).scatter(1, top, True)
    return weights * (kept | kept.T)


def _nearest_in_a_loop(weights: Tensor, k: int) -> Tensor:
    kept = torch.zeros_like(weights)
    for i, row in enumerate(weights):
        for j in row.argsort(descending=True)[:k].tolist():
            kept[i, j] = kept[j, i] = 1
    return weights * kept


def _nearest_by_threshold(weights: Tensor, k: int) -> Tensor:
    least = weights.sort(dim=1, descending=True).values[:, k - 1 : k]
    kept = weights >= least
    return torch.where(kept | kept.T, weights, torch.zeros_like(weights))


def _nearest_by_maximum(weights: Tensor, k: int) -> Tensor:
    kept = torch.zeros_like(weights).scatter_(1, weights.topk(k).indices, 1.0)
    return torch.maximum(kept, kept.T) * weights


def _nearest_by_rank(weights: Tensor, k: int) -> Tensor:
    rank = weights.argsort(1, descending=True).argsort(1)
    return weights.masked_fill(~((rank < k) | (k > rank.T)), 0)


def _kept(weights: Tensor, k: int, largest: bool = True) -> Tensor:
    return torch.zeros_like(weights).scatter(1, weights.topk(k, dim=1, largest=largest).indices, 1.0)


def _nearest_of_weights(weights: Tensor, k: int) -> Tensor:
    values, places = weights.topk(k)
    kept = torch.zeros_like(weights).scatter(1, places, values)
    return torch.maximum(kept, kept.T)


def _nearest_in_numpy(weights: Tensor, k: int) -> Tensor:
    table = weights.numpy()
    kept = table >= -np.sort(-table, axis=1)[:, k - 1 : k]
    return torch.from_numpy(np.where(kept | kept.T, table, 0).astype(table.dtype))


def _nearest_erased(weights: Tensor, k: int) -> Tensor:
    found = torch.zeros_like(weights)
    for i, row in enumerate(weights):
        found[i] = 0
        for j in row.topk(k).indices.tolist():
            found[i, j] = found[j, i] = row[j]
    return found


def _either(weights: Tensor, places: Tensor) -> Tensor:
    kept = torch.zeros_like(weights, dtype=torch.bool).scatter(1, places, True)
    return kept | kept.T


def _kth(weights: Tensor, k: int) -> Tensor:
    return weights.sort(dim=1, descending=True).values[:, k - 1 : k]


def _nearest_cases(generator: Generator) -> list[Case]:
    def graph(nodes: int) -> Tensor:
        return edge_weights(torch.randn(nodes, 2, generator=generator), 1.0)

    line = edge_weights(torch.tensor([[0.0], [1.0], [2.5], [4.5]]), 1.0)
    weights = graph(8)
    return [
        Case("four nodes on a line, k = 1", (line, 1)),
        Case("8 nodes, k = 2", (weights, 2)),
        Case("8 nodes, k = 4", (weights, 4)),
        Case("all other nodes are neighbours", (weights, 7)),
        Case("float64", (graph(6).double(), 2)),
    ]


NEAREST = Exercise(
    id="14.5",
    title="Nearest neighbours",
    reference=nearest_edges,
    cases=_nearest_cases,
    right=(
        _nearest_in_a_loop,
        _nearest_by_threshold,
        _nearest_by_maximum,
        _nearest_by_rank,
        _nearest_of_weights,
        _nearest_in_numpy,
    ),
    wrong=(
        Wrong(
            "not symmetric",
            lambda w, k: w * _kept(w, k),
            "an edge stays in one direction only",
            "Keep W_ij if j is a neighbour of i *or* i is one of j: `kept | kept.T`.",
            also=(lambda w, k: w * _kept(w, k).T,),
        ),
        Wrong(
            "both ends",
            lambda w, k: w * _kept(w, k) * _kept(w, k).T,
            "an edge stays only if both ends choose it: some nodes may lose all their edges",
            "One end is enough: or, not and.",
        ),
        Wrong(
            "halved",
            lambda w, k: (w * _kept(w, k) + (w * _kept(w, k)).T) / 2,
            "the table is averaged with its transpose: an edge that one end chose has half its weight",
            "Join the masks, not the weights.",
        ),
        Wrong(
            "added",
            lambda w, k: w * _kept(w, k) + (w * _kept(w, k)).T,
            "the table is added to its transpose: an edge that both ends chose counts twice",
            "Join the masks with `|`, then multiply.",
        ),
        Wrong(
            "farthest",
            lambda w, k: w * torch.maximum(_kept(w, k, False), _kept(w, k, False).T),
            "the lightest edges stay: the farthest nodes",
            "A heavy edge means near: take the largest weights.",
        ),
        Wrong(
            "one neighbour too few",
            lambda w, k: w * torch.maximum(_kept(w, k - 1), _kept(w, k - 1).T) if k > 1 else torch.zeros_like(w),
            "each node keeps k - 1 edges: the node itself was counted, or `>` leaves the k-th one out",
            "The diagonal is 0 and never among the heaviest, so take k, or `>=`.",
            also=(lambda w, k: w * _either(w, w.topk(max(k - 1, 1)).indices),),
        ),
        Wrong(
            "one neighbour too many",
            lambda w, k: w * torch.maximum(_kept(w, min(k + 1, len(w))), _kept(w, min(k + 1, len(w))).T),
            "each node keeps k + 1 edges",
            "The diagonal is 0 already: take k, not k + 1.",
        ),
        Wrong(
            "mask returned",
            lambda w, k: torch.maximum(_kept(w, k), _kept(w, k).T),
            "zeros and ones are returned, not the weights",
            "Multiply the weights by the mask.",
            also=(lambda w, k: torch.maximum(_kept(w, k), _kept(w, k).T).bool(),),
        ),
        Wrong(
            "heaviest of all",
            lambda w, k: w * (w >= w.flatten().topk(min(k * len(w), w.numel())).values[-1]),
            "the heaviest edges of the whole table stay: some nodes may lose all theirs",
            "`topk(k, dim=1)`: k edges for every node.",
            also=(lambda w, k: w * (w >= w.flatten().topk(k).values[-1]),),
        ),
        Wrong(
            "first one skipped",
            lambda w, k: w * _either(w, w.argsort(1, descending=True)[:, 1 : k + 1]),
            "the heaviest edge is skipped, as if it were the node itself",
            "The diagonal is 0 and comes last: take the first k.",
        ),
        Wrong(
            "a number of your own",
            lambda w, k: w * _either(w, w.topk(3).indices),
            "k is not the argument's, but a number of your own",
            "`weights.topk(k, dim=1)`.",
            also=(lambda w, k: w * _either(w, w.topk(2).indices), lambda w, k: w * _either(w, w.topk(1).indices)),
        ),
        Wrong(
            "scattered down the columns",
            lambda w, k: (
                w
                * torch.maximum(
                    torch.zeros_like(w).scatter(0, w.topk(k).indices, 1.0),
                    torch.zeros_like(w).scatter(0, w.topk(k).indices, 1.0).T,
                )
            ),
            "`scatter(0, ...)` reads the places as rows: it marks the first k columns only",
            "`topk` looked along dim 1, so `scatter(1, top, True)`.",
        ),
        Wrong(
            "above the mean",
            lambda w, k: w * ((w > w.mean(1, keepdim=True)) | (w > w.mean(1, keepdim=True)).T),
            "edges above a mean stay: k is not used",
            "Take the k heaviest of each row.",
            also=(lambda w, k: w * (w > w.mean()),),
        ),
        Wrong(
            "normalised afterwards",
            lambda w, k: nearest_edges(w, k) / nearest_edges(w, k).sum(1, keepdim=True),
            "the rows are divided by their sums",
            "Return the weights as they are.",
        ),
        Wrong(
            "mask turned round",
            lambda w, k: w * (torch.maximum(_kept(w, k), _kept(w, k).T) == 0),
            "the heaviest edges are removed and the others stay",
            "Multiply by the mask of what stays.",
        ),
        Wrong(
            "one end, not both",
            lambda w, k: w * (_kept(w, k) != _kept(w, k).T),
            "`^` keeps an edge only if exactly one end chooses it",
            "`|` keeps it if one end or both do.",
        ),
        Wrong(
            "upper half",
            lambda w, k: nearest_edges(w, k).triu(),
            "only the upper half of the table is returned: an edge leads both ways",
            "Return the whole symmetric table.",
        ),
        Wrong(
            "edges erased again",
            _nearest_erased,
            "each row is emptied when its turn comes, which erases edges that earlier nodes chose",
            "Empty the table once, before the loop.",
        ),
        Wrong(
            "nothing removed",
            lambda w, k: w * 1.0,
            "all edges stay",
            "Only the k heaviest edges of each node stay.",
        ),
    ),
    hints=(
        "A row of W holds the edges of one node. Which of its entries stay, and which stay for the other end's sake?",
        "`weights.topk(k, dim=1).indices`, then a table of True at these places, joined with its transpose by `|`.",
        "`kept = torch.zeros_like(weights, dtype=torch.bool).scatter(1, top, True)`, then `weights * (kept | kept.T)`",
    ),
)

EXERCISES = (EDGES, FLOW, MESSAGES, ORDER, NEAREST)
