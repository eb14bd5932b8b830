"""Exercises of lesson 09: batch norm by the support, the triple check, tasks one by one, steps, leaking slots, groups, the head.

Cases: every exercise builds its own; 09.2 and 09.6 draw their episodes with `_points`. Functions among the arguments (learners,
losses, dealers) are pure, so answers may call them as often as they like.
"""

from __future__ import annotations

import weakref
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong
from fsl_course.episodes import Episode

# ---------------------------------------------------------------------------------------------- 09.1 queries by the support


def normalise_queries(support: Tensor, query: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalises queries by mean and biased variance of the support, channel by channel.

    support [S, c, h, w], query [M, c, h, w] -> [M, c, h, w]
    """
    mean = support.mean((0, 2, 3), keepdim=True)
    variance = support.var((0, 2, 3), correction=0, keepdim=True)
    return (query - mean) / (variance + eps).sqrt()


def _by_var_mean(support: Tensor, query: Tensor, eps: float = 1e-5) -> Tensor:
    variance, mean = torch.var_mean(support.transpose(0, 1).flatten(1), 1, correction=0)
    return (query - mean.view(1, -1, 1, 1)) * (variance + eps).rsqrt().view(1, -1, 1, 1)


def _by_channel(support: Tensor, query: Tensor, eps: float = 1e-5) -> Tensor:
    channels = []
    for j in range(support.shape[1]):
        seen = support[:, j]
        spread = ((seen - seen.mean()) ** 2).mean()
        channels.append((query[:, j] - seen.mean()) * (spread + eps) ** -0.5)
    return torch.stack(channels, 1)


def _by_layer(support: Tensor, query: Tensor, eps: float = 1e-5) -> Tensor:
    """Differences of two normalisations: (query - mean) is what the support's own pass does, shifted."""
    rows = torch.einsum("schw->c", support) / (support.numel() / support.shape[1])
    squares = torch.einsum("schw,schw->c", support, support) / (support.numel() / support.shape[1])
    scale = ((squares - rows.square()).clamp(min=0) + eps).pow(-0.5)
    return torch.einsum("mchw,c->mchw", query - rows[:, None, None], scale)


def _by_flat_channels(support: Tensor, query: Tensor, eps: float = 1e-5) -> Tensor:
    seen = support.movedim(1, -1).reshape(-1, support.shape[1])
    asked = query.movedim(1, -1)
    spread = (seen - seen.mean(0)).pow(2).sum(0) / len(seen)
    return ((asked - seen.mean(0)) / torch.sqrt(spread + eps)).movedim(-1, 1)


def _running(support: Tensor, query: Tensor, eps: float = 1e-5, momentum: float = 0.1) -> Tensor:
    mean = momentum * support.mean((0, 2, 3), keepdim=True)
    variance = 1 - momentum + momentum * support.var((0, 2, 3), keepdim=True)
    return (query - mean) / (variance + eps).sqrt()


def _by_module(support: Tensor, query: Tensor, eps: float = 1e-5) -> Tensor:
    layer = nn.BatchNorm2d(support.shape[1], eps=eps, affine=False).to(support.dtype)
    layer.train()(support)
    return layer.eval()(query)


def _by_statistics(
    seen: Callable[[Tensor, Tensor], Tensor] = lambda s, q: s,
    over: tuple[int, ...] = (0, 2, 3),
    correction: int = 0,
    spread: Callable[[Tensor, float], Tensor] = lambda variance, eps: (variance + eps).sqrt(),
) -> Callable[..., Tensor]:
    """Returns a flawed answer: statistics of other rows, over other axes, with another correction, or another divisor."""

    def answer(support: Tensor, query: Tensor, eps: float = 1e-5) -> Tensor:
        rows = seen(support, query)
        variance = rows.var(over, correction=correction, keepdim=True)
        return (query - rows.mean(over, keepdim=True)) / spread(variance, eps)

    return answer


def _normalise_cases(generator: Generator) -> list[Case]:
    paper = torch.tensor([[0.0, 2.0], [2.0, 3.0], [2.0, 0.0], [4.0, 1.0]])[..., None, None]
    asked = torch.tensor([[2.0, 1.0], [3.0, 1.0]])[..., None, None]
    support = 2 + 3 * torch.randn(5, 4, 3, 3, generator=generator)
    query = 1 + torch.randn(6, 4, 3, 3, generator=generator)
    dead, nearly = support.clone(), query.clone()
    dead[:, 1], nearly[:, 1] = 0.0, 0.001  # channel 1 is a ReLU that is off all over the support
    return [
        Case("the example on paper, as maps of one pixel", (paper, asked)),
        Case("5 support maps, 6 queries, 4 channels of 3 x 3", (support, query)),
        Case("one query", (support, query[:1])),
        Case("one support picture", (support[:1], query)),
        Case("a channel that is 0 all over the support", (dead, nearly)),
        Case("eps = 0.1", (support, query), {"eps": 0.1}),
        Case("float64", (support.double(), query.double())),
    ]


def _lonely(answer: Callable, reference: Callable) -> str | None:
    generator = torch.Generator().manual_seed(1)
    support, query = (torch.randn(n, 2, 3, 3, generator=generator) for n in (5, 4))
    gap = float((answer(support, query)[:1] - answer(support, query[:1])).abs().max())
    return f"alone, the first query changes by up to {gap:.2g}." if gap > 1e-4 else None


NORMALISE = Exercise(
    id="09.1",
    title="Queries by the support's statistics",
    reference=normalise_queries,
    cases=_normalise_cases,
    gradient=(0, 1),
    properties=(Property("a query comes out the same, alone or in company", _lonely),),
    right=(_by_var_mean, _by_channel, _by_layer, _by_flat_channels),
    wrong=(
        Wrong(
            "their own",
            _by_statistics(lambda s, q: q),
            "the queries are normalised by their own mean and variance: each one then sees the others",
            "Mean and variance come from `support` alone.",
        ),
        Wrong(
            "both together",
            _by_statistics(lambda s, q: torch.cat([s, q])),
            "support and queries are thrown together before the statistics are taken: a query still sees the others",
            "Leave the queries out of mean and variance.",
        ),
        Wrong(
            "each by itself",
            _by_statistics(lambda s, q: q, over=(2, 3)),
            "every query map is normalised by its own pixels: that is instance norm",
            "Mean and variance of a channel come from the whole support.",
        ),
        Wrong(
            "unbiased",
            _by_statistics(correction=1),
            "the variance is divided by n − 1: batch norm divides by n",
            "`correction=0` in `.var(...)`.",
        ),
        Wrong(
            "pixel by pixel",
            _by_statistics(over=(0,)),
            "every pixel has statistics of its own: the mean runs over the rows only",
            "Average over rows and both axes of the picture: `(0, 2, 3)`.",
        ),
        Wrong(
            "all channels at once",
            _by_statistics(over=(0, 1, 2, 3)),
            "one mean and one variance serve all channels",
            "A channel is a feature: average over axes 0, 2 and 3, and keep axis 1.",
        ),
        Wrong(
            "eps outside",
            _by_statistics(spread=lambda variance, eps: variance.sqrt() + eps),
            "eps is added to the standard deviation: batch norm adds it to the variance, under the root",
            "`(variance + eps).sqrt()`",
            also=(
                lambda support, query, eps=1e-5: (
                    (query - support.mean((0, 2, 3), keepdim=True))
                    / (support.std((0, 2, 3), correction=0, keepdim=True) + eps)
                ),
                _by_statistics(correction=1, spread=lambda variance, eps: variance.sqrt() + eps),
            ),
        ),
        Wrong(
            "running statistics",
            _running,
            "running statistics are used, which have moved a tenth of the way from 0 and 1 to those of the support",
            "Take mean and variance of `support` itself; nothing is remembered from before.",
            also=(
                lambda support, query, eps=1e-5: query / (1 + eps) ** 0.5,
                lambda support, query, eps=1e-5: _running(support, query, eps, 0.9),
                _by_module,
            ),
        ),
        Wrong(
            "queries' mean",
            lambda support, query, eps=1e-5: (
                (query - query.mean((0, 2, 3), keepdim=True))
                / (support.var((0, 2, 3), correction=0, keepdim=True) + eps).sqrt()
            ),
            "the mean comes from the queries, the variance from the support",
            "Both statistics come from `support`.",
        ),
        Wrong(
            "queries' variance",
            lambda support, query, eps=1e-5: (
                (query - support.mean((0, 2, 3), keepdim=True))
                / (query.var((0, 2, 3), correction=0, keepdim=True) + eps).sqrt()
            ),
            "the variance comes from the queries, the mean from the support",
            "Both statistics come from `support`.",
        ),
        Wrong(
            "support returned",
            lambda support, query, eps=1e-5: normalise_queries(support, support, eps),
            "the support is normalised and returned instead of the queries",
            "Subtract the support's mean from `query`.",
        ),
        Wrong(
            "no eps",
            _by_statistics(spread=lambda variance, eps: variance.sqrt()),
            "eps is missing: a channel that is dead on the support is divided by 0",
            "Add eps to the variance before the root.",
        ),
        Wrong(
            "no root",
            _by_statistics(spread=lambda variance, eps: variance + eps),
            "the maps are divided by the variance, not by its root",
            "`.sqrt()`.",
        ),
        Wrong(
            "not centred",
            lambda support, query, eps=1e-5: query / (support.var((0, 2, 3), correction=0, keepdim=True) + eps).sqrt(),
            "the support's mean is never taken off",
            "`query - mean` comes before the division.",
        ),
        Wrong(
            "variance within pictures",
            lambda support, query, eps=1e-5: (
                (query - support.mean((0, 2, 3), keepdim=True))
                / (support.var((2, 3), correction=0, keepdim=True).mean(0, keepdim=True) + eps).sqrt()
            ),
            "a variance is taken in every picture and these are averaged: how far the pictures lie apart is lost",
            "One variance over rows and pixels together: `.var((0, 2, 3), ...)`.",
        ),
        Wrong(
            "only centred",
            _by_statistics(spread=lambda variance, eps: torch.ones_like(variance)),
            "the mean is taken off and nothing is divided",
            "Divide by the root of variance + eps.",
        ),
        Wrong(
            "detached",
            lambda support, query, eps=1e-5: normalise_queries(support.detach(), query, eps),
            "the statistics are cut off from the graph: MAML differentiates through them too",
            "No `.detach()` and no `no_grad` around the support.",
        ),
    ),
    hints=(
        "Which pictures may a query's fate depend on? Itself, and the support.",
        "Mean and variance over axes 0, 2 and 3 of `support`, with `keepdim=True`, so that they broadcast to the queries.",
        "`variance = support.var((0, 2, 3), correction=0, keepdim=True)`, and `(query - mean) / (variance + eps).sqrt()`",
    ),
)

# ---------------------------------------------------------------------------------------------- 09.2 the triple check

Adapt = Callable[[Any, Episode], Any]
Predict = Callable[[Any, Episode, Tensor], Tensor]
Triple = tuple[float, float, float]


def _right(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).double().mean())


def triple_check(start: Any, adapt: Adapt, predict: Predict, episodes: list[Episode]) -> Triple:
    """Returns support accuracy before and after adaptation, and query accuracy after it, each a mean over the episodes."""
    before, fitted, solved = [], [], []
    for episode in episodes:
        adapted = adapt(start, episode)
        before.append(_right(predict(start, episode, episode.support_x), episode.support_y))
        fitted.append(_right(predict(adapted, episode, episode.support_x), episode.support_y))
        solved.append(_right(predict(adapted, episode, episode.query_x), episode.query_y))
    return tuple(sum(found) / len(episodes) for found in (before, fitted, solved))


def _triple_of(found: Callable[[Any, Adapt, Predict, Episode], Triple], scale: float = 1.0) -> Callable[..., Triple]:
    """Returns an answer that averages found(start, adapt, predict, episode) over the episodes."""

    def answer(start: Any, adapt: Adapt, predict: Predict, episodes: list[Episode]) -> Triple:
        rows = torch.tensor([found(start, adapt, predict, e) for e in episodes], dtype=torch.float64)
        return tuple((scale * rows.mean(0)).tolist())

    return answer


def _three(start: Any, adapt: Adapt, predict: Predict, e: Episode) -> Triple:
    after = adapt(start, e)
    return (
        _right(predict(start, e, e.support_x), e.support_y),
        _right(predict(after, e, e.support_x), e.support_y),
        _right(predict(after, e, e.query_x), e.query_y),
    )


def _three_recursively(start: Any, adapt: Adapt, predict: Predict, episodes: list[Episode]) -> Triple:
    totals = [0.0, 0.0, 0.0]
    for e in episodes:
        questions = ((start, e.support_x, e.support_y), (None, e.support_x, e.support_y), (None, e.query_x, e.query_y))
        for place, (weights, x, y) in enumerate(questions):
            logits = predict(adapt(start, e) if weights is None else weights, e, x)
            totals[place] += int((logits.max(1).indices == y).sum()) / len(y)
    return tuple(total / len(episodes) for total in totals)


def _three_by_stages(start: Any, adapt: Adapt, predict: Predict, episodes: list[Episode]) -> Triple:
    learned = [adapt(start, e) for e in episodes]

    def mean(weights: list, part: str) -> float:
        shares = []
        for w, e in zip(weights, episodes, strict=True):
            x, y = getattr(e, f"{part}_x"), getattr(e, f"{part}_y")
            shares.append(
                sum(int(k) == int(label) for k, label in zip(predict(w, e, x).argmax(-1), y, strict=True)) / len(y)
            )
        return sum(shares) / len(shares)

    return mean([start] * len(episodes), "support"), mean(learned, "support"), mean(learned, "query")


def _three_in_numpy(start: Any, adapt: Adapt, predict: Predict, episodes: list[Episode]) -> Triple:
    rows = []
    for e in episodes:
        after = adapt(start, e)
        asked = ((start, e.support_x, e.support_y), (after, e.support_x, e.support_y), (after, e.query_x, e.query_y))
        rows.append([(predict(w, e, x).argmax(1) == y).numpy().mean() for w, x, y in asked])
    return tuple(float(sum(column) / len(rows)) for column in zip(*rows, strict=True))


def _drifting(start: Any, adapt: Adapt, predict: Predict, episodes: list[Episode]) -> Triple:
    rows = []
    for e in episodes:
        before = _right(predict(start, e, e.support_x), e.support_y)
        start = adapt(start, e)
        after = [_right(predict(start, e, x), y) for x, y in ((e.support_x, e.support_y), (e.query_x, e.query_y))]
        rows.append([before, *after])
    return tuple(torch.tensor(rows, dtype=torch.float64).mean(0).tolist())


def _drifting_weights(start: Any, adapt: Adapt, predict: Predict, episodes: list[Episode]) -> Triple:
    """Asks `start` before adaptation, but adapts what the last task left."""
    weights, rows = start, []
    for e in episodes:
        weights = adapt(weights, e)
        asked = (
            (start, e.support_x, e.support_y),
            (weights, e.support_x, e.support_y),
            (weights, e.query_x, e.query_y),
        )
        rows.append([_right(predict(w, e, x), y) for w, x, y in asked])
    return tuple(torch.tensor(rows, dtype=torch.float64).mean(0).tolist())


def _losses(start: Any, adapt: Adapt, predict: Predict, e: Episode) -> Triple:
    after = adapt(start, e)
    asked = ((start, e.support_x, e.support_y), (after, e.support_x, e.support_y), (after, e.query_x, e.query_y))
    return tuple(float(F.cross_entropy(predict(w, e, x), y)) for w, x, y in asked)


def _pooled(start: Any, adapt: Adapt, predict: Predict, episodes: list[Episode]) -> Triple:
    hits, rows = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for e in episodes:
        count = torch.tensor([len(e.support_y), len(e.support_y), len(e.query_y)])
        hits += torch.tensor(_three(start, adapt, predict, e), dtype=torch.float64) * count
        rows += count
    return tuple((hits / rows).tolist())


def _on_queries(start: Any, adapt: Adapt, predict: Predict, e: Episode) -> Triple:
    cheat = adapt(start, replace(e, support_x=e.query_x, support_y=e.query_y))
    return _three(start, lambda *_: cheat, predict, e)


def _linear_adapt(weights: Tensor, episode: Episode) -> Tensor:
    """Takes two gradient steps with a linear classifier [D, N] on the support."""
    target = F.one_hot(episode.support_y, weights.shape[1]).to(weights.dtype)
    for _ in range(2):
        slope = episode.support_x.T @ ((episode.support_x @ weights).softmax(1) - target) / len(target)
        weights = weights - 0.7 * slope
    return weights


def _linear_predict(weights: Tensor, episode: Episode, x: Tensor) -> Tensor:
    return (x - 0.3 * episode.support_x.mean(0)) @ weights


def _points(generator: Generator, n_way: int, shots: int, queries: int, noise: float = 0.9) -> Episode:
    """Draws an episode of points in four dimensions around random class centres."""
    centres = 1.5 * torch.randn(n_way, 4, generator=generator)
    parts = []
    for each in (shots, queries):
        labels = torch.arange(n_way).repeat_interleave(each)
        labels = labels[torch.randperm(len(labels), generator=generator)]
        parts += [centres[labels] + noise * torch.randn(len(labels), 4, generator=generator), labels]
    return Episode(*parts, torch.randperm(20, generator=generator)[:n_way])


def _triple_cases(generator: Generator) -> list[Case]:
    start = torch.randn(4, 3, generator=generator)
    several = [_points(generator, 3, 2, queries) for queries in (1, 4, 6, 2, 5)]
    uneven = [_points(generator, 3, shots, 4) for shots in (1, 3, 2)]

    def case(says: str, episodes: list[Episode]) -> Case:
        return Case(says, (start, _linear_adapt, _linear_predict, episodes))

    return [
        case("a linear classifier, 5 tasks with different numbers of queries", several),
        case("3 tasks with different shots", uneven),
        case("one task", several[2:3]),
    ]


TRIPLE = Exercise(
    id="09.2",
    title="The triple check",
    reference=triple_check,
    cases=_triple_cases,
    right=(_triple_of(_three), _three_recursively, _three_by_stages, _three_in_numpy),
    wrong=(
        Wrong(
            "queries before",
            _triple_of(lambda s, a, p, e: (_right(p(s, e, e.query_x), e.query_y), *_three(s, a, p, e)[1:])),
            "the first number is the accuracy on the *queries* before adaptation",
            "The first two numbers are about the same rows: the support.",
        ),
        Wrong(
            "adapted before",
            _triple_of(lambda s, a, p, e: (_three(s, a, p, e)[1], *_three(s, a, p, e)[1:])),
            "the first number is taken after adaptation",
            "`predict(start, ...)`: before adaptation means with the weights that every task starts from.",
        ),
        Wrong(
            "support twice",
            _triple_of(lambda s, a, p, e: (*_three(s, a, p, e)[:2], _three(s, a, p, e)[1])),
            "the third number is about the support again: it says how well the net memorises, not what it can do",
            "The third number needs `query_x` and `query_y`.",
        ),
        Wrong(
            "queries unadapted",
            _triple_of(lambda s, a, p, e: (*_three(s, a, p, e)[:2], _right(p(s, e, e.query_x), e.query_y))),
            "the queries are judged with the weights before adaptation",
            "`predict(adapted, episode, episode.query_x)`.",
        ),
        Wrong(
            "adapted to the queries",
            _triple_of(_on_queries),
            "the inner loop is run on the queries: their labels are the answer",
            "`adapt(start, episode)` with the episode as it is.",
        ),
        Wrong(
            "drifting start",
            _drifting,
            "every task starts from where the task before it ended",
            "Keep `start` as it is: adapted weights get a name of their own.",
            also=(_drifting_weights,),
        ),
        Wrong(
            "pooled",
            _pooled,
            "the rows of all tasks are pooled: a task with many queries counts more",
            "One accuracy for each task, then the mean over the tasks.",
        ),
        Wrong(
            "first task",
            lambda start, adapt, predict, episodes: _three(start, adapt, predict, episodes[0]),
            "only the first task is judged: the function returns from inside its loop",
            "Collect the accuracies of all tasks, then average.",
        ),
        Wrong(
            "adapted once",
            lambda start, adapt, predict, episodes: _triple_of(
                lambda s, a, p, e: _three(s, lambda *_: adapt(start, episodes[0]), p, e)
            )(start, adapt, predict, episodes),
            "the weights adapted to the first task serve all tasks",
            "Every task starts from `start` and has adapted weights of its own.",
            also=(
                lambda start, adapt, predict, episodes: _triple_of(
                    lambda s, a, p, e: _three(s, lambda *_: adapt(start, episodes[-1]), p, e)
                )(start, adapt, predict, episodes),
            ),
        ),
        Wrong(
            "errors",
            lambda start, adapt, predict, episodes: tuple(
                1 - share for share in _triple_of(_three)(start, adapt, predict, episodes)
            ),
            "the shares of *wrong* answers are returned",
            "Accuracy counts the rows where `argmax(1)` equals the label.",
        ),
        Wrong(
            "losses",
            _triple_of(_losses),
            "cross-entropies are returned, not accuracies",
            "`predict(...).argmax(1) == labels`, then the mean.",
        ),
        Wrong(
            "never adapted",
            _triple_of(lambda s, a, p, e: _three(s, lambda w, task: w, p, e)),
            "all three numbers are taken with the weights of the start: nothing is ever adapted",
            "Keep what `adapt(start, episode)` returns, and predict with it: it leaves `start` as it is.",
        ),
        Wrong(
            "support and queries exchanged",
            _triple_of(lambda s, a, p, e: tuple(_three(s, a, p, e)[i] for i in (0, 2, 1))),
            "the second and the third number have changed places",
            "Return support before, support after, query after.",
        ),
        Wrong(
            "two steps of adaptation",
            _triple_of(lambda s, a, p, e: _three(s, lambda w, task: a(a(w, task), task), p, e)),
            "the adaptation runs twice before the last two numbers are taken",
            "Call `adapt(start, episode)` once for each task and keep what it returns.",
            also=(
                _triple_of(
                    lambda s, a, p, e: (*_three(s, a, p, e)[:2], _right(p(a(a(s, e), e), e, e.query_x), e.query_y))
                ),
            ),
        ),
        Wrong(
            "last task",
            lambda start, adapt, predict, episodes: _three(start, adapt, predict, episodes[-1]),
            "only the last task is left: the numbers are overwritten in the loop",
            "Collect the accuracies of all tasks, then average.",
        ),
        Wrong(
            "sums",
            lambda start, adapt, predict, episodes: tuple(
                torch.tensor([_three(start, adapt, predict, e) for e in episodes], dtype=torch.float64).sum(0).tolist()
            ),
            "the accuracies are summed over the tasks and never divided",
            "Divide by `len(episodes)`.",
        ),
        Wrong(
            "per cent",
            _triple_of(_three, 100.0),
            "the numbers are per cent: between 0 and 100",
            "An accuracy is a fraction here: leave the factor 100 out.",
        ),
        Wrong(
            "other order",
            _triple_of(lambda s, a, p, e: tuple(_three(s, a, p, e)[i] for i in (1, 0, 2))),
            "before and after have changed places",
            "Return support before, support after, query after.",
        ),
    ),
    hints=(
        "Three questions: two sets of weights, two sets of rows. Which of the four pairs is left out?",
        "Inside a loop over tasks: `adapted = adapt(start, episode)`, then three times `predict(...).argmax(1) == labels`.",
        "`predict(start, episode, episode.support_x)`, the same with `adapted`, then `adapted` with `query_x`; average each.",
    ),
)

# ---------------------------------------------------------------------------------------------- 09.3 one task after the other

Loss = Callable[[dict[str, Tensor], Any], Tensor]


def accumulate(loss_fn: Loss, params: dict[str, Tensor], tasks: list) -> dict[str, Tensor]:
    """Returns the gradient of the mean loss (name -> gradient), one task after the other. loss_fn(params, task) -> scalar."""
    sums = {name: torch.zeros_like(p) for name, p in params.items()}
    for task in tasks:
        gradients = torch.autograd.grad(loss_fn(params, task), list(params.values()))
        sums = {name: sums[name] + g for name, g in zip(params, gradients, strict=True)}
    return {name: total / len(tasks) for name, total in sums.items()}


def _by_backward(loss_fn: Loss, params: dict[str, Tensor], tasks: list) -> dict[str, Tensor]:
    leaves = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
    for task in tasks:
        (loss_fn(leaves, task) / len(tasks)).backward()
    return {name: p.grad for name, p in leaves.items()}


def _by_func(loss_fn: Loss, params: dict[str, Tensor], tasks: list) -> dict[str, Tensor]:
    plain = {name: p.detach() for name, p in params.items()}  # or the gradients would carry graphs of their own
    found = [torch.func.grad(loss_fn)(plain, task) for task in tasks]
    return {name: torch.stack([g[name] for g in found]).mean(0) for name in params}


def _by_running_mean(loss_fn: Loss, params: dict[str, Tensor], tasks: list) -> dict[str, Tensor]:
    names = sorted(params, reverse=True)
    mean = None
    for count, task in enumerate(tasks, 1):
        loss = loss_fn(params, task)
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [params[name] for name in names])])
        mean = flat if mean is None else mean + (flat - mean) / count
    parts = mean.split([params[name].numel() for name in names])
    return {name: part.view_as(params[name]) for name, part in zip(names, parts, strict=True)}


def _by_leaf_copies(loss_fn: Loss, params: dict[str, Tensor], tasks: list) -> dict[str, Tensor]:
    found = []
    for task in tasks:
        leaves = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        loss_fn(leaves, task).backward()
        found.append({name: p.grad for name, p in leaves.items()})
    return {name: sum(g[name] for g in found) / len(tasks) for name in params}


def _by_backward_in_place(loss_fn: Loss, params: dict[str, Tensor], tasks: list) -> dict[str, Tensor]:
    for task in tasks:
        (loss_fn(params, task) / len(tasks)).backward()
    return {name: p.grad for name, p in params.items()}


def _of_one_loss(total: Callable[[list[Tensor]], Tensor]) -> Callable[..., dict[str, Tensor]]:
    """Returns an answer that builds one loss from those of all tasks."""

    def answer(loss_fn: Loss, params: dict[str, Tensor], tasks: list) -> dict[str, Tensor]:
        loss = total([loss_fn(params, task) for task in tasks])
        return dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))

    return answer


def _combined(combine: Callable[[Tensor, int], Tensor]) -> Callable[..., dict[str, Tensor]]:
    """Returns an answer that combines the gradients [T, ...] of the tasks by combine(gradients, T)."""

    def answer(loss_fn: Loss, params: dict[str, Tensor], tasks: list) -> dict[str, Tensor]:
        found = [torch.autograd.grad(loss_fn(params, task), list(params.values())) for task in tasks]
        return {
            name: combine(torch.stack(g), len(tasks)) for name, g in zip(params, zip(*found, strict=True), strict=True)
        }

    return answer


def _stepping(loss_fn: Loss, params: dict[str, Tensor], tasks: list) -> dict[str, Tensor]:
    moved, sums = dict(params), {name: torch.zeros_like(p) for name, p in params.items()}
    for task in tasks:
        gradients = torch.autograd.grad(loss_fn(moved, task), list(moved.values()))
        sums = {name: sums[name] + g / len(tasks) for name, g in zip(params, gradients, strict=True)}
        moved = {
            name: (p - 0.1 * g).detach().requires_grad_() for (name, p), g in zip(moved.items(), gradients, strict=True)
        }
    return sums


def _running_halves(gradients: Tensor, zero: bool = False) -> Tensor:
    mean = gradients[0] / 2 if zero else gradients[0]
    for g in gradients[1:]:
        mean = (mean + g) / 2
    return mean


def _with(detached: bool = False, keep: bool = False, named: bool = False, **options: bool) -> Callable:
    """Returns an answer that gives options to autograd.grad, and may keep losses, name them, or detach its sums at the end."""

    def answer(loss_fn: Loss, params: dict[str, Tensor], tasks: list) -> dict[str, Tensor]:
        sums, kept, loss = {name: torch.zeros_like(p) for name, p in params.items()}, [], None
        for task in tasks:
            if not named:
                loss = None
            loss = loss_fn(params, task)
            kept += [loss] if keep else []
            gradients = torch.autograd.grad(loss, list(params.values()), **options)
            sums = {name: sums[name] + g for name, g in zip(params, gradients, strict=True)}
        return {name: (t.detach() if detached else t) / len(tasks) for name, t in sums.items()}

    return answer


def _fit(params: dict[str, Tensor], task: tuple[Tensor, Tensor]) -> Tensor:
    """Returns the squared error of a small network."""
    x, y = task
    return ((x @ params["in"] + params["bias"]).tanh() @ params["out"] - y).square().mean()


def _small_net(generator: Generator) -> dict[str, Tensor]:
    shapes = {"in": (3, 4), "bias": (4,), "out": (4, 2)}
    return {name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in shapes.items()}


def _accumulate_cases(generator: Generator) -> list[Case]:
    def tasks(*rows: int) -> list[tuple[Tensor, Tensor]]:
        return [(torch.randn(n, 3, generator=generator), torch.randn(n, 2, generator=generator)) for n in rows]

    params, several = _small_net(generator), tasks(2, 5, 1, 3)
    double = {name: p.detach().double().requires_grad_() for name, p in params.items()}
    return [
        Case("4 tasks with different numbers of rows", (_fit, params, several)),
        Case("one task", (_fit, params, several[:1])),
        Case("7 tasks", (_fit, params, tasks(*[2] * 7))),
        Case("float64", (_fit, double, [(x.double(), y.double()) for x, y in several])),
    ]


class _Watched(torch.autograd.Function):
    """An identity that keeps a tensor for its backward pass and counts how many of these tensors are alive."""

    @staticmethod
    def forward(maps: Tensor, log: SimpleNamespace) -> Tensor:
        kept = maps.clone()
        log.kept.append(weakref.ref(kept.untyped_storage()))
        log.alive.append(sum(storage() is not None for storage in log.kept))
        log.used_by_then = log.used
        return kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.log = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        ctx.log.used += 1
        ctx.log.recorded |= torch.is_grad_enabled()
        return slope + 0 * kept, None


def _one_graph_at_a_time(answer: Callable, reference: Callable) -> str | None:
    generator = torch.Generator().manual_seed(2)
    log = SimpleNamespace(
        kept=[], alive=[], used=0, used_by_then=0, recorded=False
    )  # no dict: torch.func would copy it
    params = _small_net(generator)
    tasks = [(torch.randn(2, 3, generator=generator), torch.randn(2, 2, generator=generator)) for _ in range(4)]

    def loss_fn(p: dict[str, Tensor], task: tuple[Tensor, Tensor]) -> Tensor:
        x, y = task
        hidden = _Watched.apply((x @ p["in"] + p["bias"]).tanh(), log)
        return (hidden @ p["out"] - y).square().mean()

    answer(loss_fn, params, tasks)
    most = max(log.alive, default=0)
    if most <= 1:
        return None
    if not log.used_by_then:
        why = "no gradient was taken before the last graph was built"
    elif log.recorded:
        why = "each gradient was taken with a graph of its own, which holds on to the task's graph"
    else:
        why = "the gradients were taken, and the graphs were kept"
    return f"The tensors of {most} graphs of 4 tasks were in memory at once: {why}."


def _twice_the_same(answer: Callable, reference: Callable) -> str | None:
    generator = torch.Generator().manual_seed(3)
    params = _small_net(generator)
    tasks = [(torch.randn(2, 3, generator=generator), torch.randn(2, 2, generator=generator)) for _ in range(3)]
    first, second = ({name: g.clone() for name, g in answer(_fit, params, tasks).items()} for _ in range(2))
    if all(torch.allclose(first[name], second[name], atol=1e-5) for name in params):
        return None
    return "Called twice with the same parameters and tasks, it returned two different gradients."


ACCUMULATE = Exercise(
    id="09.3",
    title="One task after the other",
    reference=accumulate,
    cases=_accumulate_cases,
    properties=(
        Property("a task's graph is used up before the next one is built", _one_graph_at_a_time),
        Property("a second call returns the same", _twice_the_same),
    ),
    right=(_by_backward, _by_func, _by_running_mean, _by_leaf_copies),
    wrong=(
        Wrong(
            "create_graph",
            _with(create_graph=True, detached=True),
            "the gradient gets a graph of its own, by `create_graph=True` or by `torch.func.grad` of parameters that require one",
            "Nobody differentiates this gradient again: leave `create_graph` out; detach parameters for `torch.func.grad`.",
        ),
        Wrong(
            "retain_graph",
            _with(retain_graph=True, keep=True),
            "`retain_graph=True` keeps the graph after its gradient is taken, and a list holds on to the losses",
            "Leave `retain_graph` out, and keep gradients or plain numbers, no losses.",
        ),
        Wrong(
            "retain_graph, one loss",
            _with(retain_graph=True, named=True),
            "`retain_graph=True` keeps a task's graph until the next loss takes its name: two graphs are alive at once",
            "Leave `retain_graph` out: a graph is needed once.",
        ),
        Wrong(
            "one big graph",
            _of_one_loss(lambda losses: torch.stack(losses).mean()),
            "the losses of all tasks are collected before the gradient is taken: right numbers, but all graphs live at once",
            "Take the gradient of a task's loss inside the loop; keep the gradient, not the loss.",
        ),
        Wrong(
            "big graph, summed",
            _of_one_loss(sum),
            "the losses of all tasks are summed up first: all graphs live at once, and nothing is divided",
            "Take the gradient inside the loop, and divide by the number of tasks at the end.",
        ),
        Wrong(
            "sum",
            _combined(lambda g, count: g.sum(0)),
            "the gradients are summed and never divided: the step grows with the number of tasks",
            "Divide by `len(tasks)`: the objective is the *mean* loss.",
        ),
        Wrong(
            "last task",
            _combined(lambda g, count: g[-1]),
            "only the last task's gradient is left: each overwrites the one before",
            "Add to what is there.",
        ),
        Wrong(
            "last task, divided",
            _combined(lambda g, count: g[-1] / count),
            "only the last task's gradient is left, divided by the number of tasks, as when gradients are zeroed in the loop",
            "Set the sums to zero once, before the loop.",
        ),
        Wrong(
            "running halves",
            _combined(lambda g, count: _running_halves(g)),
            "old mean and new gradient are averaged half and half: the last tasks weigh most",
            "Sum first, divide once at the end.",
            also=(_combined(lambda g, count: _running_halves(g, zero=True)),),
        ),
        Wrong(
            "first task",
            _combined(lambda g, count: g[0]),
            "only the first task's gradient is there: the function returns from inside its loop",
            "Return after the loop.",
            also=(_combined(lambda g, count: g[0] / count),),
        ),
        Wrong(
            "divided in the loop",
            _combined(lambda g, count: sum(x / count ** (count - i) for i, x in enumerate(g))),
            "the sums are divided inside the loop, once for every task",
            "Divide once, after the loop.",
        ),
        Wrong(
            "divided by parameters",
            lambda loss_fn, params, tasks: {
                name: g * len(tasks) / len(params) for name, g in accumulate(loss_fn, params, tasks).items()
            },
            "the sum is divided by the number of parameter tensors",
            "Divide by `len(tasks)`.",
        ),
        Wrong(
            "turned sign",
            _combined(lambda g, count: -g.mean(0)),
            "the sign is turned: what comes out points downhill",
            "Return the gradient; the optimiser takes the minus sign.",
        ),
        Wrong(
            "divided by rows",
            lambda loss_fn, params, tasks: {
                name: g * len(tasks) / sum(len(x) for x, _ in tasks)
                for name, g in accumulate(loss_fn, params, tasks).items()
            },
            "the sum is divided by the number of rows of all tasks",
            "Divide by the number of tasks: each loss is already a mean over its rows.",
        ),
        Wrong(
            "a step after each task",
            _stepping,
            "the parameters take a step after each task: later gradients belong to other parameters",
            "All gradients are taken at the same `params`; the step comes after the loop.",
        ),
        Wrong(
            "backward",
            _by_backward_in_place,
            "`.backward()` collects in the `.grad` of the parameters given: the next call starts from what this one left",
            "`torch.autograd.grad` returns the gradients and leaves `.grad` alone.",
        ),
        Wrong(
            "list",
            lambda loss_fn, params, tasks: list(accumulate(loss_fn, params, tasks).values()),
            "a list of gradients is returned: the names are lost",
            "`dict(zip(params, gradients))`.",
        ),
    ),
    hints=(
        "The gradient of a mean is the mean of the gradients.",
        "`torch.autograd.grad(loss_fn(params, task), list(params.values()))` gives one task's gradients, in that order.",
        "Start with `torch.zeros_like(p)` for each name, add the gradients in the loop, divide by `len(tasks)` after it.",
    ),
)

# ---------------------------------------------------------------------------------------------- 09.4 how many steps


def choose_steps(steps: list[int], validation: Tensor, test: Tensor) -> tuple[int, float]:
    """Returns the number of steps with the best mean validation accuracy (the fewest at a tie), and its mean test accuracy.

    validation [n, E_val], test [n, E_test]: a row for each of the n numbers of steps
    """
    means = validation.mean(1)
    best = min((i for i in range(len(steps)) if means[i] == means.max()), key=lambda i: steps[i])
    return steps[best], float(test[best].mean())


def _by_sorting(steps: list[int], validation: Tensor, test: Tensor) -> tuple[int, float]:
    order = sorted(range(len(steps)), key=lambda i: (-float(validation[i].mean()), steps[i]))
    return steps[order[0]], test[order[0]].mean().item()


def _by_walking(steps: list[int], validation: Tensor, test: Tensor) -> tuple[int, float]:
    chosen, best = 0, -1.0
    for i in sorted(range(len(steps)), key=lambda i: steps[i]):
        if (mean := float(validation[i].mean())) > best:
            chosen, best = i, mean
    return steps[chosen], float(test[chosen].mean())


def _by_table(steps: list[int], validation: Tensor, test: Tensor) -> tuple[int, float]:
    table = dict(zip(steps, zip(validation.mean(1).tolist(), test.mean(1).tolist(), strict=True), strict=True))
    number = max(sorted(table), key=lambda number: table[number][0])  # max keeps the first of equals
    return number, table[number][1]


def _by_mask(steps: list[int], validation: Tensor, test: Tensor) -> tuple[int, float]:
    means, numbers = validation.mean(1), torch.tensor(steps)
    fewest = numbers[means == means.max()].min()
    return int(fewest), float((test.mean(1) * (numbers == fewest)).sum())


def _first_drop(steps: list[int], validation: Tensor, test: Tensor) -> tuple[int, float]:
    order, means = sorted(range(len(steps)), key=lambda i: steps[i]), validation.mean(1)
    best = order[0]
    for i in order[1:]:
        if means[i] <= means[best]:
            break
        best = i
    return steps[best], float(test[best].mean())


def _one_standard_error(steps: list[int], validation: Tensor, test: Tensor) -> tuple[int, float]:
    means = validation.mean(1)
    top = int(means.argmax())
    margin = validation[top].std() / validation.shape[1] ** 0.5
    near = [i for i in range(len(steps)) if means[i] >= means[top] - margin]
    best = min(near, key=lambda i: steps[i])
    return steps[best], float(test[best].mean())


def _at_row(choose: Callable[[Tensor], int]) -> Callable[..., tuple[int, float]]:
    """Returns an answer that takes the row choose(validation), whatever else ties with it."""

    def answer(steps: list[int], validation: Tensor, test: Tensor) -> tuple[int, float]:
        row = choose(validation)
        return steps[row], float(test[row].mean())

    return answer


def _ranked(steps: list[int], test: Tensor, key: Callable[[int], Any]) -> tuple[int, float]:
    best = max(range(len(steps)), key=key)
    return steps[best], float(test[best].mean())


def _votes(validation: Tensor, test: Tensor) -> Tensor:
    return validation.argmax(0).bincount(minlength=len(validation)).float()


def _chosen(
    score: Callable[[Tensor, Tensor], Tensor] = lambda v, t: v.mean(1),
    report: Callable[[Tensor, Tensor, int], Tensor] = lambda v, t, i: t[i].mean(),
    tie: int = 1,
    name: Callable[[list[int], int], int] = lambda steps, i: steps[i],
) -> Callable[..., tuple[int, float]]:
    """Returns a flawed answer: it scores, reports, breaks ties or names the chosen number of steps in another way."""

    def answer(steps: list[int], validation: Tensor, test: Tensor) -> tuple[int, float]:
        scores = score(validation, test)
        best = min((i for i in range(len(steps)) if scores[i] == scores.max()), key=lambda i: tie * steps[i])
        return name(steps, best), float(report(validation, test, best))

    return answer


def _steps_cases(generator: Generator) -> list[Case]:
    def table(means: list[float], episodes: int) -> Tensor:
        noise = 0.1 * torch.randn(len(means), episodes, generator=generator)
        return (torch.tensor(means)[:, None] + noise).clamp(0, 1)

    rising, falling = [0.20, 0.60, 0.75, 0.70], [0.20, 0.50, 0.55, 0.72]
    tied = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.75, 0.5, 0.75, 1.0], [1.0, 0.75, 0.75, 0.5], [0.75, 0.75, 0.75, 0.5]])
    lucky = torch.tensor([[0.6, 0.6, 0.6], [1.0, 0.2, 0.3]])
    skewed = torch.tensor(  # the best mean, the best median, the most episodes won
        [
            [0.80, 0.80, 0.80, 0.80, 0.80, 0.80, 0.80],
            [0.85, 0.85, 0.85, 0.85, 0.20, 0.20, 0.20],
            [0.10, 0.10, 0.95, 0.95, 0.95, 0.10, 0.10],
        ]
    )
    close = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.6, 0.8, 0.6, 0.8], [0.603, 0.803, 0.603, 0.803]])
    dip = table([0.2, 0.6, 0.5, 0.8], 20)
    return [
        Case("validation and test disagree", ([0, 1, 3, 10], table(rising, 30), table(falling, 30))),
        Case("the steps come in no order", ([5, 1, 0, 3], table([0.7, 0.5, 0.2, 0.8], 20), table(rising, 25))),
        Case("one lucky episode", ([2, 4], lucky, table([0.5, 0.6], 12))),
        Case("one row wins most episodes, another has the best mean", ([5, 2, 1], skewed, table([0.6, 0.7, 0.8], 9))),
        Case("two rows lie close together", ([0, 3, 8], close, table([0.2, 0.7, 0.6], 9))),
        Case("the curve dips and rises again", ([0, 1, 3, 5], dip, table(rising, 9))),
        Case("a tie between 1 and 3 steps", ([0, 3, 1, 5], tied, table([0.2, 0.8, 0.7, 0.6], 9))),
        Case("a tie between 1 and 2 steps", ([0, 1, 2], tied[:3], table([0.2, 0.7, 0.8], 9))),
        Case("a tie between 4 and 2 steps", ([4, 2], tied[1:3], table([0.7, 0.8], 9))),
        Case("one candidate, float64", ([3], table([0.7], 8).double(), table([0.6], 8).double())),
    ]


STEPS = Exercise(
    id="09.4",
    title="How many steps?",
    reference=choose_steps,
    cases=_steps_cases,
    right=(_by_sorting, _by_walking, _by_table, _by_mask),
    wrong=(
        Wrong(
            "chosen on test",
            _chosen(lambda v, t: t.mean(1)),
            "the steps are chosen on the *test* split: the number reported is then the luckiest, not an honest one",
            "`validation` chooses, `test` is only read.",
        ),
        Wrong(
            "validation reported",
            _chosen(report=lambda v, t, i: v[i].mean()),
            "the accuracy returned is that of the validation split, by which the choice was made: too good",
            "Return the *test* accuracy at the chosen steps.",
        ),
        Wrong(
            "best of test reported",
            _chosen(report=lambda v, t, i: t.mean(1).max()),
            "the highest test accuracy is returned, whatever the chosen steps",
            "Read the test table in the chosen row only.",
        ),
        Wrong(
            "both tables",
            _chosen(lambda v, t: v.mean(1) + t.mean(1)),
            "validation and test choose together: the test still has a say",
            "Look at `validation` alone when you choose.",
            also=(_chosen(lambda v, t: torch.cat([v, t], 1).mean(1)),),
        ),
        Wrong(
            "row number",
            _chosen(name=lambda steps, i: i),
            "the number of the row is returned, not the number of steps",
            "`steps[row]`.",
        ),
        Wrong(
            "row number, first row",
            lambda steps, validation, test: (
                int(validation.mean(1).argmax()),
                float(test[int(validation.mean(1).argmax())].mean()),
            ),
            "the number of the row is returned, not the number of steps, and a tie goes to the row that comes first",
            "`steps[row]`, and among equals the fewest steps.",
        ),
        Wrong(
            "more steps",
            _chosen(tie=-1),
            "a tie goes to more steps: the same accuracy at a higher price",
            "Among equals take the fewest steps.",
        ),
        Wrong(
            "test breaks ties",
            lambda steps, validation, test: _ranked(
                steps, test, lambda i: (float(validation[i].mean()), float(test[i].mean()))
            ),
            "a tie goes to the row with the better *test* accuracy: the test still has a say",
            "Among equals take the fewest steps, whatever the test says.",
        ),
        Wrong(
            "rounded",
            lambda steps, validation, test: _ranked(
                steps, test, lambda i: (round(float(validation[i].mean()), 2), -steps[i])
            ),
            "the means are rounded before they are compared: rows that differ become equal",
            "Compare the means as they are; round only what you print.",
        ),
        Wrong(
            "steps sorted alone",
            lambda steps, validation, test: (
                sorted(steps)[int(validation.mean(1).argmax())],
                float(test[int(validation.mean(1).argmax())].mean()),
            ),
            "`steps` is sorted, but the rows of the tables are not: row i no longer belongs to entry i",
            "Leave `steps` in its order, or sort the rows with it.",
        ),
        Wrong(
            "luckiest test episode",
            _chosen(report=lambda v, t, i: t[i].max()),
            "the best single test episode is reported",
            "Report the mean over the test episodes.",
        ),
        Wrong(
            "first row",
            lambda steps, validation, test: (
                steps[int(validation.mean(1).argmax())],
                float(test[int(validation.mean(1).argmax())].mean()),
            ),
            "a tie goes to the row that comes first: rows come in any order",
            "Among equals take the smallest entry of `steps`.",
        ),
        Wrong(
            "last row",
            _at_row(lambda v: len(v) - 1 - int(v.mean(1).flip(0).argmax())),
            "a tie goes to the row that comes last: rows come in any order",
            "Among equals take the smallest entry of `steps`.",
        ),
        Wrong(
            "luckiest episode",
            _chosen(lambda v, t: v.max(1).values),
            "the best single episode decides",
            "Compare means over the episodes: `.mean(1)`.",
            also=(_at_row(lambda v: int(v.argmax()) // v.shape[1]),),
        ),
        Wrong(
            "median",
            _chosen(lambda v, t: v.median(1).values),
            "the median over the episodes decides, not the mean",
            "Compare means: `.mean(1)`.",
            also=(_at_row(lambda v: int(v.median(1).values.argmax())),),
        ),
        Wrong(
            "votes",
            _chosen(_votes),
            "every episode votes for its best number of steps, and the most votes win",
            "Compare means: `.mean(1)`.",
            also=(_at_row(lambda v: int(v.argmax(0).mode().values)),),
        ),
        Wrong(
            "one standard error",
            _one_standard_error,
            "the fewest steps within one standard error of the best are taken: a sensible rule, but another one",
            "Here the highest mean wins; the fewest steps count at a tie only.",
        ),
        Wrong(
            "first drop",
            _first_drop,
            "the search stops where the curve falls for the first time, or stays level",
            "Look at all rows before you choose.",
        ),
        Wrong(
            "worst",
            _chosen(lambda v, t: -v.mean(1)),
            "the *lowest* mean is chosen",
            "An accuracy is good when it is large: `max`, not `min`.",
        ),
        Wrong(
            "most steps",
            lambda steps, validation, test: (max(steps), float(test[steps.index(max(steps))].mean())),
            "the largest number of steps is taken unseen: more is not always better",
            "Let the validation table decide.",
        ),
    ),
    hints=(
        "One table chooses, the other reports.",
        "`validation.mean(1)` has a number for each row. Which rows reach its maximum? Which of them has the fewest steps?",
        "`best = min((i for i in range(len(steps)) if means[i] == means.max()), key=lambda i: steps[i])`",
    ),
)

# ---------------------------------------------------------------------------------------------- 09.5 slots that give classes away

Deal = Callable[[int], Tensor]


def _table(deal: Deal, numbers: range) -> Tensor:
    return torch.stack([deal(i) for i in numbers])


def _counts(classes: Tensor, size: int) -> Tensor:
    """Counts how often each class was in each slot. classes [E, N] -> [size, N]."""
    n_way = classes.shape[1]
    flat = classes * n_way + torch.arange(n_way)
    return flat.flatten().bincount(minlength=size * n_way).view(size, n_way)


def exposes_slots(deal: Deal, episodes: int) -> bool:
    """Returns True if class ids help to guess slots: takes each class's usual slot from one half and tests it on the other."""
    seen, new = _table(deal, range(episodes // 2)), _table(deal, range(episodes // 2, episodes))
    usual = _counts(seen, int(max(seen.max(), new.max())) + 1).argmax(1)
    n_way = new.shape[1]
    right = float((usual[new] == torch.arange(n_way)).double().mean())
    chance = 1 / n_way
    return right > chance + 4 * (chance * (1 - chance) / new.numel()) ** 0.5


def _by_chi_square(deal: Deal, episodes: int) -> bool:
    classes = _table(deal, range(episodes))
    counts = _counts(classes, int(classes.max()) + 1).double()
    counts = counts[counts.sum(1) > 0]
    expected = counts.sum(1, keepdim=True) / counts.shape[1]
    free = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    return bool(((counts - expected) ** 2 / expected).sum() > free + 6 * (2 * max(free, 1)) ** 0.5)


def _by_dictionary(deal: Deal, episodes: int) -> bool:
    habits: dict[int, list[int]] = {}
    for i in range(episodes // 2):
        for slot, k in enumerate(deal(i).tolist()):
            habits.setdefault(k, []).append(slot)
    usual = {k: max(set(slots), key=slots.count) for k, slots in habits.items()}
    hits = [usual.get(k) == s for i in range(episodes // 2, episodes) for s, k in enumerate(deal(i).tolist())]
    return sum(hits) / len(hits) > 1 / len(deal(0)) + 0.05


def _by_entropy(deal: Deal, episodes: int) -> bool:
    """Mutual information of class and slot against that of the same table with slots shuffled."""
    classes, generator = _table(deal, range(episodes)), torch.Generator().manual_seed(5)
    shuffled = classes.gather(1, torch.rand(classes.shape, generator=generator).argsort(1))

    def information(rows: Tensor) -> Tensor:
        joint = _counts(rows, int(classes.max()) + 1).double() / rows.numel()
        apart = joint.sum(1, keepdim=True) * joint.sum(0)
        return torch.where(joint > 0, joint * (joint / apart.clamp(min=1e-12)).log(), 0.0).sum()

    free = (len(classes.unique()) - 1) * (classes.shape[1] - 1)
    return bool(information(classes) > information(shuffled) + 8 * (2 * free) ** 0.5 / (2 * classes.numel()))


def _by_even_and_odd(deal: Deal, episodes: int) -> bool:
    seen: dict[tuple[int, int], int] = {}
    for i in range(0, episodes, 2):
        for pair in enumerate(deal(i).tolist()):
            seen[pair] = seen.get(pair, 0) + 1
    hits = total = 0
    for i in range(1, episodes, 2):
        row = deal(i).tolist()
        for slot, name in enumerate(row):
            counts = [seen.get((other, name), 0) for other in range(len(row))]
            hits += counts.index(max(counts)) == slot
            total += 1
    return hits / total - 1 / len(row) > 0.05


def _by_guesses(guess: Callable[[list[int], int], int]) -> Callable[[Deal, int], bool]:
    """Returns an answer that guesses by guess(slots where the class sat so far, N) in the second half."""

    def answer(deal: Deal, episodes: int) -> bool:
        habits: dict[int, list[int]] = {}
        hits = []
        for i in range(episodes):
            row = deal(i).tolist()
            for slot, name in enumerate(row):
                if i < episodes // 2:
                    habits.setdefault(name, []).append(slot)
                elif name in habits:
                    hits.append(guess(habits[name], len(row)) == slot)
        return sum(hits) / len(hits) > 1 / len(deal(0)) + 0.05

    return answer


def _by_habits(
    guess: Callable[[Counter], int], margin: float = 0.05, judged: int = 1, strangers: bool = True
) -> Callable[[Deal, int], bool]:
    """Returns an answer that counts slots in the first half and judges its guesses in the second, or in the first (judged 0).

    strangers: guesses are made for classes that the first half never met, too
    """

    def answer(deal: Deal, episodes: int) -> bool:
        habits: dict[int, Counter] = defaultdict(Counter)
        half = episodes // 2
        for i in range(half):
            for slot, name in enumerate(deal(i).tolist()):
                habits[name][slot] += 1
        asked = [pair for i in range(judged * half, (1 + judged) * half) for pair in enumerate(deal(i).tolist())]
        hits = [guess(habits[name]) == slot for slot, name in asked if strangers or name in habits]
        return sum(hits) / len(hits) > 1 / len(deal(0)) + margin

    return answer


def _favourite(slots: Counter) -> int:
    return slots.most_common(1)[0][0] if slots else -1


def _unmet(deal: Deal, episodes: int) -> bool:
    habits: dict[int, Counter] = {}
    for i in range(episodes // 2):
        for slot, name in enumerate(deal(i).tolist()):
            habits.setdefault(name, Counter())[slot] += 1
    asked = [pair for i in range(episodes // 2, episodes) for pair in enumerate(deal(i).tolist())]
    hits = [habits[name].most_common(1)[0][0] == slot for slot, name in asked]
    return sum(hits) / len(hits) > 1 / len(deal(0)) + 0.05


def _by_correlation(deal: Deal, episodes: int) -> bool:
    classes = _table(deal, range(episodes)).double()
    slots = torch.arange(classes.shape[1], dtype=torch.float64).expand_as(classes)
    pairs = torch.stack([classes.flatten(), slots.flatten()])
    return abs(float(pairs.corrcoef()[0, 1])) > 0.1


def _in_sample(deal: Deal, episodes: int) -> bool:
    classes = _table(deal, range(episodes))
    usual, n_way = _counts(classes, int(classes.max()) + 1).argmax(1), classes.shape[1]
    return float((usual[classes] == torch.arange(n_way)).double().mean()) > 1 / n_way + 0.05


def _one_slot_each(deal: Deal, episodes: int) -> bool:
    classes = _table(deal, range(episodes))
    return bool(((_counts(classes, int(classes.max()) + 1) > 0).sum(1) <= 1).all())


def _largest_share(deal: Deal, episodes: int) -> float:
    """Returns the share of its episodes that a class spends in its usual slot, for the class where it is largest."""
    classes = _table(deal, range(episodes))
    counts = _counts(classes, int(classes.max()) + 1)
    return float((counts.max(1).values / counts.sum(1).clamp(min=1)).max())


def _slots_equally_used(deal: Deal, episodes: int) -> bool:
    classes = _table(deal, range(episodes))
    used = torch.arange(classes.shape[1]).expand_as(classes).flatten().bincount()
    return bool((used != used[0]).any())


def _dealer(classes: Tensor) -> Deal:
    return lambda index: classes[index].clone()


def _random_classes(generator: Generator, source: int, n_way: int, episodes: int) -> Tensor:
    return torch.rand(episodes, source, generator=generator).argsort(1)[:, :n_way]


def _slots_cases(generator: Generator) -> list[Case]:
    episodes = 800

    def case(says: str, classes: Tensor) -> Case:
        return Case(says, (_dealer(classes), episodes))

    few, many = (_random_classes(generator, source, 5, episodes) for source in (20, 400))
    shuffled = torch.rand(episodes, 5, generator=generator).argsort(1)
    lowest_first = few.clone()
    lowest_first[:, 0], place = few.min(1).values, few.argmin(1)
    lowest_first[torch.arange(episodes), place] = torch.where(place == 0, few.min(1).values, few[:, 0])
    sometimes = torch.where(torch.rand(episodes, 1, generator=generator) < 0.5, few.sort(1).values, few)
    ups, downs = few.sort(1).values, few.sort(1, descending=True).values
    both = torch.where(torch.rand(episodes, 1, generator=generator) < 0.5, ups, downs)
    third = torch.where(torch.rand(episodes, 1, generator=generator) < 0.35, ups, few)
    by_hash = few.gather(1, (9 * few % 20).argsort(1))
    return [
        case("a right one: 20 classes, random slots", few),
        case("a right one: 400 classes, most of them met a few times only", many),
        case(
            "a right one: 1000 classes, some of which one half of the episodes never meets",
            _random_classes(generator, 1000, 5, episodes),
        ),
        case("a right one: 8 classes, 3 ways", _random_classes(generator, 8, 3, episodes)),
        case("a right one: the same 5 classes in every episode, random slots", shuffled),
        case("a right one: 30 classes, 2 ways", _random_classes(generator, 30, 2, episodes)),
        case("slots sorted by class", few.sort(1).values),
        case("slots sorted by class, 400 classes", many.sort(1).values),
        case("slots sorted backwards", few.sort(1, descending=True).values),
        case("slots in the order in which a hash table lists the classes", by_hash),
        case("half of the episodes are sorted", sometimes),
        case("every episode is sorted, up or down at random", both),
        case("35 % of the episodes are sorted", third),
        case("only the lowest class has a slot of its own, slot 0", lowest_first),
        case("every class has its own slot", shuffled.sort(1).values),
    ]


SLOTS = Exercise(
    id="09.5",
    title="Bug hunt: does a class give its slot away?",
    reference=exposes_slots,
    cases=_slots_cases,
    right=(_by_chi_square, _by_dictionary, _by_entropy, _by_even_and_odd),
    wrong=(
        Wrong(
            "same episodes",
            _in_sample,
            "the habits are learned and judged on the same episodes: by luck every rare class has a usual slot",
            "Learn on one half of the episodes, judge on the other.",
            also=(_by_habits(_favourite, judged=0),),
        ),
        Wrong(
            "no margin",
            lambda deal, episodes: _above_chance(deal, episodes, 0.0),
            "anything above 1/N rings: honest dealers lie above it half of the time",
            "Leave a margin of a few standard errors, e.g. 0.05.",
            also=(_by_habits(_favourite, margin=0.0, strangers=False),),
        ),
        Wrong(
            "large margin",
            lambda deal, episodes: _above_chance(deal, episodes, 0.3),
            "the margin is so wide that a leak of some points slips through",
            "Some standard errors are enough: about 0.05 with 800 episodes.",
        ),
        Wrong(
            "always sorted",
            lambda deal, episodes: bool((_table(deal, range(episodes)).diff(dim=1) > 0).all()),
            "only one bug is looked for: slots that are always sorted upwards",
            "Ask what matters: does the id of a class help to guess its slot? Learn each class's usual slot.",
            also=(
                lambda deal, episodes: (
                    float((_table(deal, range(episodes)).diff(dim=1) > 0).all(1).double().mean()) > 0.5
                ),
                lambda deal, episodes: (
                    float((_table(deal, range(episodes)).diff(dim=1) > 0).all(1).double().mean()) > 0.05
                ),
            ),
        ),
        Wrong(
            "one episode",
            lambda deal, episodes: bool((deal(0).diff() > 0).all()),
            "a single episode decides",
            "Look at all of them: a habit shows in many episodes only.",
        ),
        Wrong(
            "correlation",
            _by_correlation,
            "id and slot are only asked whether they rise together: other habits slip through",
            "Count for each class how often it sits in each slot.",
        ),
        Wrong(
            "one slot each",
            _one_slot_each,
            "it rings only where every class keeps one slot for ever",
            "A class that sits in slot 0 more often than 1/N gives itself away as well.",
        ),
        Wrong(
            "any class that keeps its slot",
            lambda deal, episodes: _largest_share(deal, episodes) == 1.0,
            "one class that never left its slot is enough to ring: a class that is met once or twice keeps it by luck",
            "Do not judge a habit by the episodes that showed it: guess in others, and count over all classes.",
        ),
        Wrong(
            "any class with a favourite",
            lambda deal, episodes: _largest_share(deal, episodes) > 1 / len(deal(0)) + 0.05,
            "the class with the strongest habit decides: among many classes one sits in some slot too often by luck",
            "Judge all classes together, on episodes that did not show the habit.",
        ),
        Wrong(
            "any sorted episode",
            lambda deal, episodes: bool((_table(deal, range(episodes)).diff(dim=1) > 0).all(1).any()),
            "one sorted episode is enough to ring: random slots come out sorted now and then",
            "Ask how often a class sits in the slot that is usual for it, over many episodes.",
        ),
        Wrong(
            "slots counted",
            _slots_equally_used,
            "either slots are counted without their classes, and every episode uses each slot once; or tensors serve as keys "
            "of a dictionary, and a tensor equals only itself there, so that no class is ever met again",
            "Count pairs, class and slot, and make whole numbers of the ids: `int(c)` or `.tolist()`.",
        ),
        Wrong(
            "class not met before",
            _unmet,
            "the answer breaks at a class that it has not met in the episodes from which it learned",
            "Leave such a class out of the count: `elif name in habits`.",
            also=(
                _by_habits(lambda slots: slots.most_common(1)[0][0]),
                _by_habits(lambda slots: max(slots, key=slots.get)),
            ),
        ),
        Wrong(
            "mean slot",
            _by_guesses(lambda slots, n_way: round(sum(slots) / len(slots))),
            "the mean of a class's slots is taken for its habit: one that sits in slots 0 and 4 has the mean 2",
            "Slots are names: count how often each one occurs, and take the most frequent.",
        ),
        Wrong(
            "last slot",
            _by_guesses(lambda slots, n_way: slots[-1]),
            "the slot where a class sat *last* is guessed: a weak habit drowns in the luck of one episode",
            "Count all the slots where a class sat, and take the most frequent.",
        ),
        Wrong(
            "turned round",
            lambda deal, episodes: not exposes_slots(deal, episodes),
            "the answer is turned round: True stands where nothing leaks",
            "Return True when the guesses are *better* than chance.",
        ),
    ),
    hints=(
        "Play the cheat: you see only ids, and guess slots. What would you remember about earlier episodes?",
        "Count in the first half how often each class sat in each slot; guess each class's usual slot in the second half.",
        "Compare the share of right guesses with 1/N plus a margin, e.g. `hits / guesses > 1 / n_way + 0.05`.",
    ),
)


def _above_chance(deal: Deal, episodes: int, margin: float) -> bool:
    seen, new = _table(deal, range(episodes // 2)), _table(deal, range(episodes // 2, episodes))
    usual = _counts(seen, int(max(seen.max(), new.max())) + 1).argmax(1)
    return float((usual[new] == torch.arange(new.shape[1])).double().mean()) > 1 / new.shape[1] + margin


# ---------------------------------------------------------------------------------------------- 09.6 queries in groups

Predictor = Callable[[Episode], Tensor]


def grouped_accuracy(predict: Predictor, episode: Episode, rows: int) -> float:
    """Returns the accuracy on queries in groups of `rows` consecutive rows; the last group may be smaller."""
    right = 0
    for x, y in zip(episode.query_x.split(rows), episode.query_y.split(rows), strict=True):
        right += int((predict(replace(episode, query_x=x, query_y=y)).argmax(1) == y).sum())
    return right / len(episode.query_y)


def _by_slices(predict: Predictor, episode: Episode, rows: int) -> float:
    logits = []
    for low in range(0, len(episode.query_x), rows):
        part = slice(low, low + rows)
        logits.append(predict(replace(episode, query_x=episode.query_x[part], query_y=episode.query_y[part])))
    return _right(torch.cat(logits), episode.query_y)


def _by_recursion(predict: Predictor, episode: Episode, rows: int) -> float:
    def hits(e: Episode) -> int:
        first = replace(e, query_x=e.query_x[:rows], query_y=e.query_y[:rows])
        rest = replace(e, query_x=e.query_x[rows:], query_y=e.query_y[rows:])
        here = int((predict(first).argmax(1) == first.query_y).sum())
        return here + (hits(rest) if len(rest.query_y) else 0)

    return hits(episode) / len(episode.query_y)


def _by_index(predict: Predictor, episode: Episode, rows: int) -> float:
    group = torch.arange(len(episode.query_y)) // rows
    right = torch.zeros(len(group), dtype=torch.bool)
    for number in group.unique():
        mine = group == number
        part = replace(episode, query_x=episode.query_x[mine], query_y=episode.query_y[mine])
        right[mine] = predict(part).argmax(1) == part.query_y
    return right.double().mean().item()


def _by_chunks(predict: Predictor, episode: Episode, rows: int) -> float:
    shares, total = 0.0, len(episode.query_y)
    low = 0
    while low < total:
        high = min(low + rows, total)
        part = replace(episode, query_x=episode.query_x[low:high], query_y=episode.query_y[low:high])
        shares += _right(predict(part), part.query_y) * (high - low) / total
        low = high
    return shares


def _in_groups(
    cut: Callable[[Tensor, int], Any] = lambda t, rows: t.split(rows),
    summary: Callable[[list[float], list[int]], float] = lambda hits, sizes: sum(hits) / sum(sizes),
) -> Callable[..., float]:
    """Returns a flawed answer that cuts groups or sums up hits in another way."""

    def answer(predict: Predictor, episode: Episode, rows: int) -> float:
        hits, sizes = [], []
        for x, y in zip(cut(episode.query_x, rows), cut(episode.query_y, rows), strict=True):
            hits.append(float((predict(replace(episode, query_x=x, query_y=y)).argmax(1) == y).sum()))
            sizes.append(len(y))
        return summary(hits, sizes)

    return answer


def _all_labels(predict: Predictor, episode: Episode, rows: int) -> float:
    hits = 0
    for x in episode.query_x.split(rows):
        group = replace(episode, query_x=x)
        hits += int((predict(group).argmax(1) == group.query_y).sum())
    return hits / len(episode.query_y)


def _first_labels(predict: Predictor, episode: Episode, rows: int) -> float:
    hits = 0
    for x in episode.query_x.split(rows):
        hits += int((predict(replace(episode, query_x=x)).argmax(1) == episode.query_y[: len(x)]).sum())
    return hits / len(episode.query_y)


def _full_groups(predict: Predictor, episode: Episode, rows: int) -> int:
    """Counts the right answers in the groups that are full."""
    groups = [slice(i * rows, (i + 1) * rows) for i in range(len(episode.query_y) // rows)]
    parts = [replace(episode, query_x=episode.query_x[g], query_y=episode.query_y[g]) for g in groups]
    return sum(int((predict(part).argmax(1) == part.query_y).sum()) for part in parts)


def _centred_by_company(episode: Episode) -> Tensor:
    """Predicts transductively on points: centres the queries by their own mean and the support by its own."""
    return _nearest_mean(replace(episode, support_x=_centred(episode.support_x), query_x=_centred(episode.query_x)))


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(0)


def _nearest_mean(episode: Episode) -> Tensor:
    labels = episode.support_y
    centres = torch.stack([episode.support_x[labels == k].mean(0) for k in range(episode.n_way)])
    return -(episode.query_x[:, None] - centres).square().sum(-1)


def _group_cases(generator: Generator) -> list[Case]:
    wide, small = _points(generator, 4, 2, 8, noise=0.7), _points(generator, 3, 1, 5, noise=0.7)
    return [
        Case("a transductive learner, 32 queries in groups of 4", (_centred_by_company, wide, 4)),
        Case("32 queries in groups of 5: the last one has 2", (_centred_by_company, wide, 5)),
        Case("one query at a time", (_centred_by_company, wide, 1)),
        Case("all at once", (_centred_by_company, wide, 32)),
        Case("groups larger than the episode", (_centred_by_company, small, 99)),
        Case("15 queries in groups of 4", (_centred_by_company, small, 4)),
        Case("15 queries in groups of 2", (_centred_by_company, small, 2)),
        Case("an inductive learner, groups of 7", (_nearest_mean, wide, 7)),
    ]


GROUPS = Exercise(
    id="09.6",
    title="Queries in groups",
    reference=grouped_accuracy,
    cases=_group_cases,
    right=(_by_slices, _by_recursion, _by_index, _by_chunks),
    wrong=(
        Wrong(
            "all at once",
            lambda predict, episode, rows: _right(predict(episode), episode.query_y),
            "all queries are asked for at once, whatever `rows` says",
            "Cut the queries into groups and call `predict` once for each.",
        ),
        Wrong(
            "one at a time",
            lambda predict, episode, rows: grouped_accuracy(predict, episode, 1),
            "every query is asked for alone, whatever `rows` says",
            "A group has `rows` queries.",
        ),
        Wrong(
            "rows groups",
            _in_groups(cut=lambda t, rows: t.chunk(rows)),
            "`rows` is taken for the number of groups",
            "`.split(rows)` makes groups of `rows` rows, `.chunk(rows)` makes that many groups.",
        ),
        Wrong(
            "last group dropped",
            _in_groups(cut=lambda t, rows: t[: max(len(t) // rows, 1) * rows].split(rows)),
            "a last group that is not full is left out",
            "The last group may be smaller: its queries count as well.",
            also=(
                lambda predict, episode, rows: _full_groups(predict, episode, rows) / len(episode.query_y),
                lambda predict, episode, rows: (
                    _full_groups(predict, episode, rows) / max(len(episode.query_y) // rows * rows, 1)
                ),
            ),
        ),
        Wrong(
            "mean of groups",
            _in_groups(summary=lambda hits, sizes: sum(h / s for h, s in zip(hits, sizes, strict=True)) / len(hits)),
            "the accuracies of the groups are averaged: a small last group counts too much",
            "Count right answers over all groups, then divide by the number of queries.",
        ),
        Wrong(
            "every rows-th",
            _in_groups(cut=lambda t, rows: [t[i :: max(len(t) // rows, 1)] for i in range(max(len(t) // rows, 1))]),
            "the groups are not consecutive rows but every so many-th",
            "The first group is rows 0 to `rows - 1`, and so on.",
            also=(
                _in_groups(cut=lambda t, rows: [t[i::rows] for i in range(min(rows, len(t)))]),
                _in_groups(cut=lambda t, rows: [t[i :: -(-len(t) // rows)] for i in range(-(-len(t) // rows))]),
            ),
        ),
        Wrong(
            "labels of all queries",
            _all_labels,
            "a group's answers are compared with the labels of *all* queries: only `query_x` was replaced",
            "Replace `query_y` as well, or compare with the labels of the group.",
        ),
        Wrong(
            "labels of the first group",
            _first_labels,
            "every group's answers are compared with the first labels: only `query_x` moves on",
            "Cut `query_y` at the same places as `query_x`.",
        ),
        Wrong(
            "sorted by class",
            lambda predict, episode, rows: grouped_accuracy(
                predict,
                replace(
                    episode,
                    query_x=episode.query_x[episode.query_y.argsort(stable=True)],
                    query_y=episode.query_y.sort().values,
                ),
                rows,
            ),
            "the queries are sorted by class before they are grouped: that uses the labels, and changes the company",
            "Leave the queries in their order.",
        ),
        Wrong(
            "first group",
            _in_groups(cut=lambda t, rows: [t[:rows]]),
            "only the first group is asked for",
            "Go on until no query is left.",
        ),
        Wrong(
            "last group",
            _in_groups(cut=lambda t, rows: t.split(rows)[-1:]),
            "only the last group is left: the accuracy is overwritten in the loop",
            "Add up the right answers of all groups.",
        ),
        Wrong(
            "count",
            _in_groups(summary=lambda hits, sizes: sum(hits)),
            "the number of right answers is returned, not their share",
            "Divide by the number of queries.",
        ),
    ),
    hints=(
        "What is asked together is what stands together in `query_x`.",
        "`episode.query_x.split(rows)` gives the groups; `replace(episode, query_x=x, query_y=y)` makes an episode of one.",
        "Sum `(predict(replace(...)).argmax(1) == y).sum()` over the groups and divide by `len(episode.query_y)`.",
    ),
)

# ---------------------------------------------------------------------------------------------- 09.7 slots taken from a head


def take_slots(params: dict[str, Tensor], slots: Tensor) -> dict[str, Tensor]:
    """Returns the parameters with rows `slots` of the head only. slots int64 [n] -> "head.weight" [n, D], "head.bias" [n]."""
    chosen = {name: params[name][slots] for name in ("head.weight", "head.bias")}
    return {**params, **chosen}


def _slots_by_name(params: dict[str, Tensor], slots: Tensor) -> dict[str, Tensor]:
    return {name: p.index_select(0, slots) if name.startswith("head.") else p for name, p in params.items()}


def _slots_by_loop(params: dict[str, Tensor], slots: Tensor) -> dict[str, Tensor]:
    new = dict(params)
    for name in ("head.weight", "head.bias"):
        new[name] = torch.stack([params[name][k] for k in slots.tolist()])
    return new


def _slots_by_one_hot(params: dict[str, Tensor], slots: Tensor) -> dict[str, Tensor]:
    weight, bias = params["head.weight"], params["head.bias"]
    pick = F.one_hot(slots, len(bias)).to(bias.dtype)
    return params | {"head.bias": pick @ bias, "head.weight": pick @ weight}


def _slots_by_copy(params: dict[str, Tensor], slots: Tensor) -> dict[str, Tensor]:
    new = {}
    for name in reversed(list(params)):
        module, _, _ = name.rpartition(".")
        new[name] = params[name].gather(0, _index(params[name], slots)) if module == "head" else params[name].clone()
    return new


def _index(tensor: Tensor, slots: Tensor) -> Tensor:
    return slots.view(-1, *[1] * (tensor.dim() - 1)).expand(-1, *tensor.shape[1:])


def _slots_in_place(params: dict[str, Tensor], slots: Tensor) -> dict[str, Tensor]:
    params["head.weight"], params["head.bias"] = params["head.weight"][slots], params["head.bias"][slots]
    return params


def _head_with(change: Callable[[Tensor, Tensor], Tensor], names: tuple[str, ...] = ("head.weight", "head.bias")):
    """Returns an answer that replaces the tensors `names` by change(tensor, slots)."""

    def answer(params: dict[str, Tensor], slots: Tensor) -> dict[str, Tensor]:
        return {name: change(p, slots) if name in names else p for name, p in params.items()}

    return answer


def _zeroed(tensor: Tensor, slots: Tensor) -> Tensor:
    kept = torch.zeros(len(tensor), dtype=tensor.dtype).index_fill(0, slots, 1.0)
    return tensor * kept.view(-1, *[1] * (tensor.dim() - 1))


def _slot_head_cases(generator: Generator) -> list[Case]:
    def params(n_way: int, features: int) -> dict[str, Tensor]:
        shapes = {
            "encoder.weight": (6, 6),
            "encoder.heads.weight": (n_way, 3),
            "header.bias": (n_way,),
            "head.weight": (n_way, features),
            "head.bias": (n_way,),
        }
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    five = params(5, 6)
    return [
        Case("3 of 5 slots", (five, torch.tensor([4, 0, 2]))),
        Case("all 5 in another order", (five, torch.tensor([2, 0, 1, 4, 3]))),
        Case("as many features as slots", (params(4, 4), torch.tensor([3, 1]))),
        Case("one slot", (five, torch.tensor([3]))),
        Case("float64", ({name: p.double() for name, p in five.items()}, torch.tensor([1, 3]))),
        Case("the head comes first", (dict(reversed(five.items())), torch.tensor([3, 0]))),
    ]


HEAD = Exercise(
    id="09.7",
    title="A head for fewer slots",
    reference=take_slots,
    cases=_slot_head_cases,
    gradient=(0,),
    right=(_slots_by_name, _slots_by_loop, _slots_by_one_hot, _slots_by_copy),
    wrong=(
        Wrong(
            "bias forgotten",
            _head_with(lambda t, slots: t[slots], ("head.weight",)),
            "the bias keeps all its slots",
            "`head.bias` has a number for each slot: choose there as well.",
        ),
        Wrong(
            "names that hold head",
            lambda params, slots: {name: p[slots] if "head" in name else p for name, p in params.items()},
            "every name with the letters `head` is taken for the head: other layers may be called so, too",
            'Ask for `"head.weight"` and `"head.bias"` by their whole names.',
            also=(lambda params, slots: {n: p[slots] if n.startswith("head") else p for n, p in params.items()},),
        ),
        Wrong(
            "last two entries",
            lambda params, slots: params | {name: params[name][slots] for name in list(params)[-2:]},
            "the last two entries of the dictionary are taken for the head, whatever their names",
            'Ask for `"head.weight"` and `"head.bias"` by their names.',
        ),
        Wrong(
            "weight forgotten",
            _head_with(lambda t, slots: t[slots], ("head.bias",)),
            "the weight keeps all its rows",
            "`head.weight` has a row for each slot: choose there as well.",
        ),
        Wrong(
            "first rows",
            _head_with(lambda t, slots: t[: len(slots)]),
            "the first rows are taken, whichever slots were asked for",
            "Index with `slots` itself: `[slots]`.",
        ),
        Wrong(
            "in rising order",
            _head_with(lambda t, slots: t[slots.sort().values]),
            "the chosen rows stand in rising order: row j is not slot `slots[j]`",
            "Keep the order of `slots`.",
        ),
        Wrong(
            "inverse",
            _head_with(lambda t, slots: t[slots.argsort()]),
            "the inverse permutation is taken",
            "Row j of the new head is row `slots[j]` of the old one: `[slots]`.",
        ),
        Wrong(
            "columns",
            _head_with(lambda t, slots: t[..., slots]),
            "features of the weight are chosen instead of slots",
            "Slots are the *rows* of a linear layer's weight.",
        ),
        Wrong(
            "others set to 0",
            _head_with(_zeroed),
            "the other rows are set to 0 and kept: a logit of 0 still competes",
            "The new head has `len(slots)` rows.",
        ),
        Wrong(
            "head only",
            lambda params, slots: {name: params[name][slots] for name in ("head.weight", "head.bias")},
            "the other parameters are missing",
            "Start from a copy: `{**params, ...}`.",
        ),
        Wrong(
            "written into",
            _slots_in_place,
            "the dictionary that came in is changed: the full head is lost for the next task",
            "Make a new dictionary: `{**params, ...}`.",
        ),
        Wrong(
            "detached",
            _head_with(lambda t, slots: t.detach()[slots]),
            "the head is cut off from the graph: it learns nothing",
            "No `.detach()`.",
        ),
    ),
    hints=(
        "What belongs to a slot? One row of the weight, one number of the bias.",
        "`params['head.weight'][slots]` picks rows, in the order of `slots`.",
        "`{**params, 'head.weight': params['head.weight'][slots], 'head.bias': params['head.bias'][slots]}`",
    ),
)

EXERCISES = (NORMALISE, TRIPLE, ACCUMULATE, STEPS, SLOTS, GROUPS, HEAD)
