"""Exercises of lesson 17: collisions, the loss without labels, NT-Xent, and a detector of warps that change the class.

Cases: every exercise builds its own. The detector 17.4 gets a warp as an argument and must return True for the broken ones only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ---------------------------------------------------------------------------------------------- 17.1 collisions


def collision(letters: int, drawings: int, pictures: int) -> float:
    """Returns the probability that two of the pictures, drawn without replacement, show the same letter."""
    apart, total = 1.0, letters * drawings
    for drawn in range(pictures):
        apart *= (total - drawn * drawings) / (total - drawn)
    return 1 - apart


def _collision_by_counting(letters: int, drawings: int, pictures: int) -> float:
    apart = math.comb(letters, pictures) * drawings**pictures
    return 1 - apart / math.comb(letters * drawings, pictures)


def _collision_by_fractions(letters: int, drawings: int, pictures: int) -> float:
    apart = Fraction(1)
    for i in range(pictures):
        apart *= Fraction(max(0, (letters - i) * drawings), letters * drawings - i)
    return float(1 - apart)


def _collision_with_torch(letters: int, drawings: int, pictures: int) -> float:
    i = torch.arange(pictures, dtype=torch.float64)
    met = (i * (drawings - 1) / (letters * drawings - i)).clamp(max=1)
    return float(1 - (1 - met).prod())


def _collision_step_by_step(letters: int, drawings: int, pictures: int) -> float:
    """Adds up the probabilities that the first meeting happens at picture 2, 3, ..."""
    found, apart = 0.0, 1.0
    for i in range(1, pictures):
        meets = min(1.0, i * (drawings - 1) / (letters * drawings - i))
        found += apart * meets
        apart *= 1 - meets
    return found


def _collision_by_logarithms(letters: int, drawings: int, pictures: int) -> float:
    if pictures > letters:
        return 1.0
    total = letters * drawings
    return -math.expm1(
        sum(math.log(drawings * (letters - i)) - math.log(total - i) for i in range(pictures)) if pictures else 0.0
    )


def _birthday(letters: int, drawings: int, pictures: int) -> float:
    return 1 - math.prod(max(letters - i, 0) / letters for i in range(pictures))


def _pairs(letters: int, drawings: int, pictures: int) -> float:
    return math.comb(pictures, 2) * (drawings - 1) / (letters * drawings - 1)


def _product(letters: int, drawings: int, steps: range, above: Callable, below: Callable) -> float:
    return 1 - math.prod(max(above(i), 0) / max(below(i), 1) for i in steps)


def _same_as_the_first(letters: int, drawings: int, pictures: int) -> float:
    return 1 - (1 - (drawings - 1) / (letters * drawings - 1)) ** max(pictures - 1, 0)


def _independent_pairs(letters: int, drawings: int, pictures: int) -> float:
    return 1 - (1 - (drawings - 1) / (letters * drawings - 1)) ** math.comb(pictures, 2)


def _guarded(answer: Callable[[int, int, int], float]) -> Callable[[int, int, int], float]:
    """The same answer with the sentence of the text: 1 with more pictures than letters."""
    return lambda c, n, k: 1.0 if k > c else answer(c, n, k)


def _also_guarded(*mistakes: Wrong) -> tuple[Wrong, ...]:
    """Adds the guarded answer to all that do not give 1 by themselves where a collision is certain."""
    found = []
    for wrong in mistakes:
        open_ones = [f for f in (wrong.answer, *wrong.also) if f(3, 4, 5) not in (0.0, 1.0)]
        found.append(replace(wrong, also=(*wrong.also, *map(_guarded, open_ones))))
    return tuple(found)


def _exactly_one_pair(c: int, n: int, k: int) -> float:
    return c * math.comb(n, 2) * math.comb(c - 1, k - 2) * n ** (k - 2) / math.comb(c * n, k) if k > 1 else 0.0


def _collision_cases(_: Generator) -> list[Case]:
    return [
        Case("2 letters of 2 drawings, 2 pictures: one third", (2, 2, 2)),
        Case("10 letters of 4 drawings, 3 pictures", (10, 4, 3)),
        Case("20 pictures of the training letters", (916, 20, 20)),
        Case("50 pictures of the training letters", (916, 20, 50)),
        Case("a single picture meets nobody", (916, 20, 1)),
        Case("one drawing of each letter: nobody meets", (6, 1, 4)),
        Case("more pictures than letters: somebody must meet", (3, 4, 5)),
        Case("one letter only", (1, 5, 2)),
    ]


COLLISION = Exercise(
    id="17.1",
    title="Collisions",
    reference=collision,
    cases=_collision_cases,
    right=(
        _collision_by_counting,
        _collision_by_fractions,
        _collision_with_torch,
        _collision_step_by_step,
        _collision_by_logarithms,
    ),
    wrong=_also_guarded(
        Wrong(
            "with replacement",
            _birthday,
            "every picture draws its letter anew, as birthdays do: nothing is taken off below the line",
            "Drawings that are drawn are gone: 19 of the 18,319 others show the same letter, not one in 916.",
            also=(
                lambda c, n, k: 1 - math.exp(-k * (k - 1) / (2 * c)),
                lambda c, n, k: 1 - math.exp(-k * k / (2 * c)),
                lambda c, n, k: 1 - (1 - 1 / c) ** math.comb(k, 2),
                lambda c, n, k: math.comb(k, 2) / c,
                lambda c, n, k: min(1.0, math.comb(k, 2) / c),
            ),
        ),
        Wrong(
            "the other probability",
            lambda c, n, k: 1 - collision(c, n, k),
            "the probability that all letters differ is returned",
            "One minus it.",
            also=(lambda c, n, k: math.prod((c - i) / c for i in range(k)),),
        ),
        Wrong(
            "expected pairs",
            _pairs,
            "the probabilities of all pairs are added up: that is the expected number of equal pairs, and it can exceed 1",
            "Multiply the probabilities that each picture meets none of those before it, and take one minus that.",
            also=(
                lambda c, n, k: min(1.0, _pairs(c, n, k)),
                lambda c, n, k: sum(i * (n - 1) / max(c * n - i, 1) for i in range(k)),
                lambda c, n, k: min(1.0, sum(i * (n - 1) / max(c * n - i, 1) for i in range(k))),
            ),
        ),
        Wrong(
            "pairs as if independent",
            _independent_pairs,
            "the pairs are treated as if they were independent of each other: a good approximation, but not exact",
            "Draw one picture after the other: given that all before differ, how likely is the next one new?",
            also=(lambda c, n, k: 1 - math.exp(-_pairs(c, n, k)),),
        ),
        Wrong(
            "as the first",
            _same_as_the_first,
            "the pictures are compared with one picture only, or one with the rest: the others may meet each other, too",
            "Picture i must differ from all i pictures before it.",
            also=(
                lambda c, n, k: (k - 1) * (n - 1) / (c * n - 1) if k else 0.0,
                lambda c, n, k: 1 - (1 - 1 / c) ** (k - 1),
            ),
        ),
        Wrong(
            "one step too many",
            lambda c, n, k: collision(c, n, k + 1),
            "one picture too many is drawn",
            "The factors run over i = 0 .. pictures - 1.",
        ),
        Wrong(
            "one step too few",
            lambda c, n, k: collision(c, n, k - 1),
            "one picture too few is drawn",
            "The factors run over i = 0 .. pictures - 1.",
        ),
        Wrong(
            "only the picture itself is gone",
            lambda c, n, k: _product(c, n, range(k), lambda i: c * n - i, lambda i: c * n),
            "above the line only the drawn picture itself is taken off: the other drawings of its letter count as new",
            "A drawn letter takes all its drawings with it: total - i * drawings are new.",
        ),
        Wrong(
            "one less above the line",
            lambda c, n, k: _product(c, n, range(k), lambda i: c * n - i * (n - 1), lambda i: c * n - i),
            "above the line the letters drawn so far lose one drawing too few",
            "A drawn letter takes all its drawings with it: total - i * drawings are new.",
            also=(lambda c, n, k: _product(c, n, range(k), lambda i: c * n - i * (n - 1), lambda i: c * n),),
        ),
        Wrong(
            "letters and drawings exchanged",
            lambda c, n, k: collision(n, c, k),
            "letters and drawings have changed places",
            "`letters` classes of `drawings` pictures each.",
        ),
        Wrong(
            "in percent",
            lambda c, n, k: 100 * collision(c, n, k),
            "the probability is given in percent",
            "A probability lies between 0 and 1.",
        ),
        Wrong(
            "a single pair",
            lambda c, n, k: (n - 1) / (c * n - 1),
            "it is the probability of one pair, whatever the number of pictures",
            "All pairs may meet: multiply over the pictures.",
            also=(lambda c, n, k: 1 / c,),
        ),
        Wrong(
            "exactly one pair",
            _exactly_one_pair,
            "only tasks with exactly one equal pair are counted, and not those with two pairs, or three drawings of a letter",
            "At least two: one minus the probability that all differ.",
        ),
        Wrong(
            "no choice of drawings",
            lambda c, n, k: 1 - math.comb(c, k) / math.comb(c * n, k),
            "above the line the letters are chosen, but not which of its drawings each of them shows",
            "Every letter shows one of its `drawings`: a factor of drawings ** pictures.",
        ),
        Wrong(
            "one, too, with as many pictures as letters",
            lambda c, n, k: 1.0 if k >= c else collision(c, n, k),
            "with as many pictures as letters they may still all differ, and 1 is returned",
            "It is 1 with *more* pictures than letters.",
        ),
        Wrong(
            "the guard says 0",
            lambda c, n, k: 0.0 if k > c else collision(c, n, k),
            "with more pictures than letters 0 is returned, though two must show the same",
            "It is 1 there.",
        ),
        Wrong(
            "rounded",
            lambda c, n, k: round(collision(c, n, k), 2),
            "the probability is rounded",
            "Return it as it is.",
            also=(lambda c, n, k: round(collision(c, n, k), 3), lambda c, n, k: round(collision(c, n, k), 4)),
        ),
    ),
    hints=(
        "Ask for the opposite: how likely is it that all letters differ?",
        "Draw one picture after the other. When i different letters are drawn, i * drawings pictures show one of them, and i "
        "pictures are gone.",
        "Multiply `(total - i * drawings) / (total - i)` over `i in range(pictures)`, and return one minus that.",
    ),
)

# ---------------------------------------------------------------------------------------------- 17.2 the loss without labels


def copies_loss(pictures: Tensor, copies: Tensor) -> Tensor:
    """Returns the mean cross-entropy of finding each copy's picture. pictures [N, D], copies [N, Q, D] -> scalar."""
    n, q, _ = copies.shape
    scores = -(copies.flatten(0, 1)[:, None] - pictures).square().sum(-1)  # [N*Q, N]
    return F.cross_entropy(scores, torch.arange(n, device=pictures.device).repeat_interleave(q))


def _scores(pictures: Tensor, copies: Tensor) -> Tensor:
    """[N, Q, N]"""
    return -(copies[:, :, None] - pictures).square().sum(-1)


def _by_logarithms(pictures: Tensor, copies: Tensor) -> Tensor:
    return -_scores(pictures, copies).log_softmax(-1).diagonal(dim1=0, dim2=2).mean()


def _copy_by_copy(pictures: Tensor, copies: Tensor) -> Tensor:
    losses = []
    for i in range(len(copies)):
        for copy in copies[i]:
            apart = torch.stack([((copy - p) ** 2).sum() for p in pictures])
            losses.append(apart[i] + torch.logsumexp(-apart, 0))
    return torch.stack(losses).mean()


def _one_round_of_copies_at_a_time(pictures: Tensor, copies: Tensor) -> Tensor:
    label = torch.arange(len(pictures))
    rounds = [F.cross_entropy(-(c[:, None] - pictures).pow(2).sum(2), label) for c in copies.unbind(1)]
    return sum(rounds) / len(rounds)


def _multiplied_out(pictures: Tensor, copies: Tensor) -> Tensor:
    q = copies.transpose(0, 1).reshape(-1, copies.shape[-1])
    scores = 2 * q @ pictures.T - pictures.square().sum(1)
    return F.cross_entropy(scores, torch.arange(len(pictures)).repeat(copies.shape[1]))


def _as_classes_of_a_loss(pictures: Tensor, copies: Tensor) -> Tensor:
    scores = _scores(pictures, copies).movedim(2, 1)  # [N, classes, Q]
    return F.cross_entropy(scores, torch.arange(len(pictures))[:, None].expand(-1, copies.shape[1]))


def _with(
    change: Callable[[Tensor, Tensor], Tensor],
    label: Callable[[int, int], Tensor] | None = None,
    reduction: str = "mean",
) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns an answer with other scores [N*Q, N], other labels or another reduction."""

    def answer(pictures: Tensor, copies: Tensor) -> Tensor:
        n, q, _ = copies.shape
        right = torch.arange(n).repeat_interleave(q) if label is None else label(n, q)
        return F.cross_entropy(change(copies.flatten(0, 1), pictures), right, reduction=reduction)

    return answer


def _apart(copies: Tensor, pictures: Tensor) -> Tensor:
    return (copies[:, None] - pictures).square().sum(-1)


def _copies_as_classes(pictures: Tensor, copies: Tensor) -> Tensor:
    """Every picture looks for its copies; the softmax runs over all copies."""
    scores = _scores(pictures, copies).flatten(0, 1).T.log_softmax(1)  # [N, N*Q]
    label = torch.arange(len(pictures)).repeat_interleave(copies.shape[1])
    return -scores[label, torch.arange(len(label))].mean()


def _loss_cases(generator: Generator) -> list[Case]:
    def drawn(n: int, q: int, d: int = 4) -> tuple[Tensor, Tensor]:
        pictures = torch.randn(n, d, generator=generator)
        return pictures, pictures[:, None] + 0.7 * torch.randn(n, q, d, generator=generator)

    line = torch.tensor([[0.0], [1.0]]), torch.tensor([[[0.0]], [[1.0]]])
    four = drawn(4, 3)
    return [
        Case("the example on paper: pictures at 0 and 1, copies in their places", line),
        Case("4 pictures, 3 copies of each", four),
        Case("3 pictures, 3 copies of each", drawn(3, 3)),
        Case("5 pictures, one copy of each", drawn(5, 1)),
        Case("2 pictures, 4 copies of each", drawn(2, 4)),
        Case("a single picture", drawn(1, 2)),
        Case("embeddings far apart", tuple(20 * part for part in four)),
        Case("float64", tuple(part.double() for part in four)),
    ]


COPIES = Exercise(
    id="17.2",
    title="The loss without labels",
    reference=copies_loss,
    cases=_loss_cases,
    gradient=(0, 1),
    right=(_by_logarithms, _copy_by_copy, _one_round_of_copies_at_a_time, _multiplied_out, _as_classes_of_a_loss),
    wrong=(
        Wrong(
            "labels in the wrong order",
            _with(lambda c, p: -_apart(c, p), lambda n, q: torch.arange(n).repeat(q)),
            "the rows run picture by picture, and the labels run 0, 1, ..., N-1 again and again",
            "`flatten(0, 1)` puts the Q copies of a picture beside each other: `repeat_interleave(Q)`.",
        ),
        Wrong(
            "no minus",
            _with(lambda c, p: _apart(c, p)),
            "distances go in without the minus: the farthest picture wins",
            "Logits are *minus* the squared distances.",
        ),
        Wrong(
            "not squared",
            _with(lambda c, p: -_apart(c, p).clamp_min(1e-12).sqrt()),
            "the distance is not squared",
            "Sum the squared differences, and take no root.",
        ),
        Wrong(
            "sum",
            _with(lambda c, p: -_apart(c, p), reduction="sum"),
            "the losses of the copies are added up and not averaged",
            "The mean over all N*Q copies.",
            also=(
                lambda p, c: copies_loss(p, c) * c.shape[1],
                lambda p, c: copies_loss(p, c) * c.shape[0],
            ),
        ),
        Wrong(
            "first copy only",
            lambda p, c: copies_loss(p, c[:, :1]),
            "only one copy of each picture is used",
            "All Q copies are queries.",
            also=(lambda p, c: copies_loss(p, c[:, -1:]),),
        ),
        Wrong(
            "mean of the copies",
            lambda p, c: copies_loss(p, c.mean(1, keepdim=True)),
            "the copies of a picture are averaged first, and their mean is the only query",
            "Every copy is a query of its own.",
        ),
        Wrong(
            "roles exchanged",
            lambda p, c: copies_loss(c.mean(1), p[:, None]),
            "the picture is the query, and the mean of its copies the prototype",
            "The picture is the support, its copies are the queries.",
            also=(_copies_as_classes, lambda p, c: copies_loss(c[:, 0], p[:, None])),
        ),
        Wrong(
            "copies compete",
            lambda p, c: -_scores(p, c).log_softmax(0).diagonal(dim1=0, dim2=2).mean(),
            "the softmax runs over the copies and not over the pictures",
            "A copy chooses among the N pictures: softmax over the pictures.",
            also=(lambda p, c: -_scores(p, c).log_softmax(1).diagonal(dim1=0, dim2=2).mean(),),
        ),
        Wrong(
            "softmax twice",
            _with(lambda c, p: (-_apart(c, p)).softmax(1)),
            "`cross_entropy` gets probabilities, and applies a second softmax",
            "It takes logits: minus the squared distances as they are.",
        ),
        Wrong(
            "no rivals",
            lambda p, c: (c - p[:, None]).square().sum(-1).mean(),
            "only the distance of a copy to its own picture counts: then all embeddings may fall together",
            "The copy has to find its picture among all N: cross-entropy.",
            also=(
                lambda p, c: (c - p[:, None]).square().mean(),
                lambda p, c: (c - p[:, None]).square().sum(),
            ),
        ),
        Wrong(
            "mean over the features",
            _with(lambda c, p: -(c[:, None] - p).square().mean(-1)),
            "the squares are averaged over the features",
            "`.sum(-1)` over the features.",
        ),
        Wrong(
            "cosine",
            _with(lambda c, p: F.normalize(c, dim=1) @ F.normalize(p, dim=1).T),
            "cosines or inner products stand where squared distances belong",
            "The loss of lesson 05: minus squared distances.",
            also=(
                _with(lambda c, p: c @ p.T),
                _with(lambda c, p: F.cosine_similarity(c[:, None], p, dim=2)),
                _with(lambda c, p: -_apart(F.normalize(c, dim=1), F.normalize(p, dim=1))),
            ),
        ),
        Wrong(
            "half the distance",
            _with(lambda c, p: -_apart(c, p) / 2),
            "the squared distances are multiplied or divided by a number",
            "Take them as they are.",
            also=(
                _with(lambda c, p: -_apart(c, p) / c.shape[1] ** 0.5),
                _with(lambda c, p: -_apart(c, p) * 2),
            ),
        ),
        Wrong(
            "city blocks",
            _with(lambda c, p: -(c[:, None] - p).abs().sum(-1)),
            "absolute differences are summed",
            "`.square()` in place of `.abs()`.",
        ),
        Wrong(
            "without the logarithm",
            lambda p, c: 1 - _scores(p, c).softmax(-1).diagonal(dim1=0, dim2=2).mean(),
            "the probability itself is averaged, or its logarithm is taken only after averaging",
            "The mean of minus the *logarithm* of each copy's probability.",
            also=(
                lambda p, c: -_scores(p, c).softmax(-1).diagonal(dim1=0, dim2=2).mean(),
                lambda p, c: -_scores(p, c).softmax(-1).diagonal(dim1=0, dim2=2).mean().log(),
            ),
        ),
        Wrong(
            "the right picture is no rival",
            lambda p, c: (
                (c - p[:, None]).square().sum(-1)
                + _scores(p, c).masked_fill(torch.eye(len(p), dtype=torch.bool)[:, None], -1e9).logsumexp(-1)
            ).mean(),
            "the own picture is left out below the line",
            "The softmax runs over all N pictures, the own one included.",
        ),
        Wrong(
            "accuracy",
            lambda p, c: (_scores(p, c).argmax(-1) == torch.arange(len(p))[:, None]).to(p.dtype).mean(),
            "the share of copies that find their picture is returned: it has no gradient",
            "`F.cross_entropy(logits, labels)`.",
            also=(lambda p, c: (_scores(p, c).argmax(-1) != torch.arange(len(p))[:, None]).to(p.dtype).mean(),),
        ),
        Wrong(
            "likelihood",
            lambda p, c: -copies_loss(p, c),
            "the sign is wrong: the log-likelihood is returned",
            "A loss falls as copies find their pictures.",
        ),
        Wrong(
            "not reduced",
            _with(lambda c, p: -_apart(c, p), reduction="none"),
            "one loss for each copy is returned",
            "Return their mean.",
        ),
        Wrong(
            "without gradient",
            lambda p, c: copies_loss(p.detach(), c),
            "part of the graph is cut off: pictures and copies pass through the same encoder, and both must move",
            "No `.detach()` and no `no_grad`.",
            also=(lambda p, c: copies_loss(p, c.detach()), lambda p, c: copies_loss(p.detach(), c.detach())),
        ),
    ),
    hints=(
        "It is the loss of lesson 05 with one shot: which tensor is the support, which the query, and what are the labels?",
        "Put the copies in rows, `copies.flatten(0, 1)`, and compute their squared distances to the N pictures. Row i*Q + q "
        "belongs to picture i.",
        "`F.cross_entropy(-(copies.flatten(0, 1)[:, None] - pictures).square().sum(-1), torch.arange(N).repeat_interleave(Q))`",
    ),
)

# ---------------------------------------------------------------------------------------------- 17.3 NT-Xent


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Returns the loss of SimCLR. first, second [B, D]: row i of both shows the same picture -> scalar, a mean over 2B rows."""
    rows = F.normalize(torch.cat([first, second]), dim=1)
    scores = rows @ rows.T / temperature
    scores = scores.masked_fill(torch.eye(len(rows), dtype=torch.bool, device=rows.device), -torch.inf)
    partner = torch.arange(len(rows), device=rows.device).roll(len(first))
    return F.cross_entropy(scores, partner)


def _likeness(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Cosines over temperature of all 2B rows -> [2B, 2B]"""
    rows = F.normalize(torch.cat([first, second]), dim=1)
    return rows @ rows.T / temperature


def _partners(b: int) -> Tensor:
    return torch.cat([torch.arange(b, 2 * b), torch.arange(b)])


def _row_by_row(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    both, b = [*first, *second], len(first)
    losses = []
    for i, z in enumerate(both):
        own = F.cosine_similarity(z, both[(i + b) % (2 * b)], dim=0) / temperature
        rivals = [F.cosine_similarity(z, other, dim=0) / temperature for j, other in enumerate(both) if j != i]
        losses.append(torch.logsumexp(torch.stack(rivals), 0) - own)
    return torch.stack(losses).mean()


def _by_blocks(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    a, b = F.normalize(first, dim=1), F.normalize(second, dim=1)
    aa, ab, bb = a @ a.T / temperature, a @ b.T / temperature, b @ b.T / temperature
    never = torch.full((len(a),), -torch.inf, dtype=a.dtype)
    aa, bb = aa.diagonal_scatter(never), bb.diagonal_scatter(never)
    down = torch.logsumexp(torch.cat([ab, aa], 1), 1) + torch.logsumexp(torch.cat([ab.T, bb], 1), 1)
    return (down - 2 * ab.diagonal()).mean() / 2


def _with_exponentials(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    rows = F.normalize(torch.cat([first, second]), dim=1)
    mass = ((rows @ rows.T - 1) / temperature).exp() * (1 - torch.eye(len(rows), dtype=rows.dtype))
    right = ((F.normalize(first, dim=1) * F.normalize(second, dim=1)).sum(1) - 1) / temperature
    return (mass.sum(1).log() - right.repeat(2)).mean()


def _diagonal_removed(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    scores, b = _likeness(first, second, temperature), len(first)
    others = ~torch.eye(2 * b, dtype=torch.bool)
    kept, label = scores[others].view(2 * b, 2 * b - 1), F.one_hot(_partners(b), 2 * b)[others].view(2 * b, 2 * b - 1)
    return F.cross_entropy(kept, label.argmax(1))


def _masked(scores: Tensor, value: float = -torch.inf) -> Tensor:
    return scores.masked_fill(torch.eye(len(scores), dtype=torch.bool), value)


def _nt(
    scores: Callable[[Tensor, Tensor, float], Tensor],
    label: Callable[[int], Tensor] = _partners,
    reduction: str = "mean",
    mask: float | None = -torch.inf,
) -> Callable[[Tensor, Tensor, float], Tensor]:
    """Returns an answer with other scores [2B, 2B], other partners, another reduction or another mask."""

    def answer(first: Tensor, second: Tensor, temperature: float) -> Tensor:
        found = scores(first, second, temperature)
        found = found if mask is None else _masked(found, mask)
        return F.cross_entropy(found, label(len(first)), reduction=reduction)

    return answer


def _other_view_only(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    scores = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T / temperature
    return F.cross_entropy(scores, torch.arange(len(first)))


def _both_directions(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    return (_other_view_only(first, second, temperature) + _other_view_only(second, first, temperature)) / 2


def _half(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    b = len(first)
    return F.cross_entropy(_masked(_likeness(first, second, temperature))[:b], _partners(b)[:b])


def _partner_no_rival(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    b, scores = len(first), _masked(_likeness(first, second, temperature), -1e9)
    own = scores[torch.arange(2 * b), _partners(b)]
    rivals = scores.scatter(1, _partners(b)[:, None], -1e9)
    return (rivals.logsumexp(1) - own).mean()


def _raw(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    rows = torch.cat([first, second])
    return rows @ rows.T / temperature


def _nt_cases(generator: Generator) -> list[Case]:
    def drawn(b: int, d: int = 4) -> tuple[Tensor, Tensor]:
        first = torch.randn(b, d, generator=generator)
        return first, 1.3 * first + 0.8 * torch.randn(b, d, generator=generator)

    axes = torch.eye(2)
    five = drawn(5)
    return [
        Case("the example on paper: two pictures at right angles, temperature 1", (axes, axes, 1.0)),
        Case("5 pictures, temperature 0.5", (*five, 0.5)),
        Case("4 pictures, temperature 0.2", (*drawn(4), 0.2)),
        Case("2 pictures with longer embeddings, temperature 1", (*(3 * part for part in drawn(2)), 1.0)),
        Case("4 pictures, temperature 2", (*drawn(4, 3), 2.0)),
        Case("float64", (*(part.double() for part in five), 0.3)),
    ]


def _pictures_have_no_order(answer: Callable, reference: Callable) -> str | None:
    generator = Generator().manual_seed(1)
    first, second = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    order = torch.tensor([3, 0, 4, 1, 2])
    mine, other = answer(first, second, 0.5), answer(first[order], second[order], 0.5)
    if not torch.allclose(mine, other, atol=1e-5):
        return f"the loss was {float(mine):.4f}, and {float(other):.4f} with the pictures in another order."
    return None


NT_XENT = Exercise(
    id="17.3",
    title="NT-Xent",
    reference=nt_xent,
    cases=_nt_cases,
    gradient=(0, 1),
    properties=(Property("the order of the pictures does not matter", _pictures_have_no_order),),
    right=(_row_by_row, _by_blocks, _with_exponentials, _diagonal_removed),
    wrong=(
        Wrong(
            "itself as a rival",
            _nt(_likeness, mask=None),
            "every row is also compared with itself, and nothing is as like it",
            "Take the diagonal out of the softmax: `-inf` there.",
        ),
        Wrong(
            "zero on the diagonal",
            _nt(_likeness, mask=0.0),
            "the diagonal is set to 0, and `exp(0)` is 1: the row itself still counts below the line",
            "`-inf` on the diagonal, because `exp(-inf)` is 0.",
        ),
        Wrong(
            "other view only",
            _other_view_only,
            "the rivals of a row are taken from the other view only",
            "The 2B - 2 other rows of *both* views are rivals.",
            also=(
                _both_directions,
                lambda a, b, t: _other_view_only(b, a, t),
                lambda a, b, t: 2 * _both_directions(a, b, t),
            ),
        ),
        Wrong(
            "half of the rows",
            _half,
            "only the rows of one view look for their partners",
            "The mean runs over all 2B rows.",
            also=(lambda a, b, t: _half(b, a, t),),
        ),
        Wrong(
            "not normalised",
            _nt(_raw),
            "inner products are taken of embeddings as they are: their lengths come in",
            "A cosine: `F.normalize(..., dim=1)` first.",
        ),
        Wrong(
            "normalised by columns",
            _nt(
                lambda a, b, t: _raw(
                    F.normalize(torch.cat([a, b]), dim=0)[: len(a)], F.normalize(torch.cat([a, b]), dim=0)[len(a) :], t
                )
            ),
            "the features are scaled to unit length and not the embeddings",
            "`F.normalize(rows, dim=1)`.",
            also=(_nt(lambda a, b, t: _raw(F.normalize(a, dim=0), F.normalize(b, dim=0), t)),),
        ),
        Wrong(
            "times the temperature",
            _nt(lambda a, b, t: _likeness(a, b, 1 / t)),
            "the cosines are multiplied by the temperature",
            "Divide: a low temperature makes the softmax sharp.",
        ),
        Wrong(
            "no temperature",
            _nt(lambda a, b, t: _likeness(a, b, 1.0)),
            "the temperature that is given is not used",
            "Divide the cosines by `temperature`.",
            also=(_nt(lambda a, b, t: _likeness(a, b, 0.5)),),
        ),
        Wrong(
            "temperature on the loss",
            lambda a, b, t: nt_xent(a, b, 1.0) / t,
            "the temperature divides the loss and not the cosines",
            "It belongs inside the softmax.",
            also=(lambda a, b, t: nt_xent(a, b, 1.0) * t, lambda a, b, t: nt_xent(a, b, t) * t),
        ),
        Wrong(
            "itself as the partner",
            _nt(_likeness, lambda b: torch.arange(2 * b), mask=None),
            "the label of a row is the row itself",
            "The partner of row i is row i + B, and that of row i + B is row i.",
            also=(
                _nt(_likeness, lambda b: torch.arange(2 * b), mask=-1e9),
                _nt(_likeness, lambda b: torch.arange(2 * b)),
            ),
        ),
        Wrong(
            "neighbours as partners",
            _nt(_likeness, lambda b: torch.arange(2 * b).view(b, 2).flip(1).flatten()),
            "neighbouring rows are taken as partners, though all first views come before all second ones",
            "After `torch.cat([first, second])` the partner of row i is row i + B.",
            also=(_nt(_likeness, lambda b: torch.arange(2 * b).roll(1)),),
        ),
        Wrong(
            "labels of the first view twice",
            _nt(_likeness, lambda b: torch.arange(b).repeat(2)),
            "the labels 0 to B-1 stand twice: rows of the first view are labelled with themselves",
            "The labels are B, ..., 2B-1 and then 0, ..., B-1.",
            also=(
                _nt(_likeness, lambda b: torch.arange(b).repeat(2), mask=None),
                _nt(_likeness, lambda b: torch.arange(b).repeat(2), mask=-1e9),
            ),
        ),
        Wrong(
            "temperature squared",
            _nt(lambda a, b, t: _likeness(a, b, t * t)),
            "the temperature divides twice",
            "Divide the cosines once.",
        ),
        Wrong(
            "one length for all",
            _nt(lambda a, b, t: _raw(a / torch.cat([a, b]).norm(), b / torch.cat([a, b]).norm(), t)),
            "all rows are divided by one number, the norm of the whole table",
            "Every row by its own length: `F.normalize(rows, dim=1)`.",
            also=(_nt(lambda a, b, t: _raw(a / a.norm(), b / b.norm(), t)),),
        ),
        Wrong(
            "partner no rival",
            _partner_no_rival,
            "the partner is left out below the line",
            "The softmax runs over all 2B - 1 others, the partner included.",
        ),
        Wrong(
            "sum",
            _nt(_likeness, reduction="sum"),
            "the losses are added up",
            "The mean over the 2B rows.",
            also=(lambda a, b, t: 2 * nt_xent(a, b, t), lambda a, b, t: nt_xent(a, b, t) / 2),
        ),
        Wrong(
            "squared distances",
            _nt(lambda a, b, t: -torch.cat([a, b])[:, None].sub(torch.cat([a, b])).square().sum(-1) / t),
            "squared distances stand where cosines belong",
            "Rows of unit length, and their inner products.",
        ),
        Wrong(
            "minus",
            _nt(lambda a, b, t: -_likeness(a, b, t)),
            "the sign is wrong",
            "Alike means a large cosine, a large cosine a large logit; and a loss falls as partners are found.",
            also=(lambda a, b, t: -nt_xent(a, b, t),),
        ),
        Wrong(
            "softmax twice",
            lambda a, b, t: F.cross_entropy(_masked(_likeness(a, b, t)).softmax(1), _partners(len(a))),
            "`cross_entropy` gets probabilities, and applies a second softmax",
            "It takes logits.",
        ),
        Wrong(
            "no rivals",
            lambda a, b, t: 1 - F.cosine_similarity(a, b, dim=1).mean(),
            "only the cosine of the partners counts: then all embeddings may fall together",
            "Every row has to find its partner among the others: cross-entropy.",
            also=(
                lambda a, b, t: -F.cosine_similarity(a, b, dim=1).mean(),
                lambda a, b, t: -(F.cosine_similarity(a, b, dim=1) / t).mean(),
            ),
        ),
        Wrong(
            "without gradient",
            lambda a, b, t: nt_xent(a.detach(), b, t),
            "part of the graph is cut off: both views must move",
            "No `.detach()` and no `no_grad`.",
            also=(lambda a, b, t: nt_xent(a, b.detach(), t), lambda a, b, t: nt_xent(a.detach(), b.detach(), t)),
        ),
    ),
    hints=(
        "Put both views into one table of 2B rows. What is a row's label, and with whom must it not be compared?",
        "Cosines [2B, 2B] over the temperature, `-inf` on the diagonal, and a cross-entropy with label i + B or i - B for row i.",
        "`F.cross_entropy(scores.fill_diagonal_(-torch.inf), torch.arange(2 * B).roll(B))`",
    ),
)

# ---------------------------------------------------------------------------------------------- 17.4 warps that change classes


def _half_plane(count: int) -> Tensor:
    picture = torch.zeros(count, 1, 28, 28)
    picture[..., :, 2:12] = 1.0
    return picture


def exposes_turns(warp: Callable[[Tensor, Generator], Tensor]) -> bool:
    """Returns True when copies may be turned: in some of many calls a copy is most like another turn of its picture."""
    turns = torch.stack([_half_plane(1)[0].rot90(r, (-2, -1)).flatten() for r in range(4)])
    for seed in range(30):
        copies = warp(_half_plane(100), Generator().manual_seed(seed)).flatten(1)
        if bool(torch.cdist(copies, turns).argmin(1).any()):
            return True
    return False


def _exposes_by_the_middle_of_the_ink(warp: Callable[[Tensor, Generator], Tensor]) -> bool:
    """Ink on the left has to stay more to the left than up or down."""
    picture = torch.zeros(100, 1, 28, 28)
    picture[..., :10] = 1.0
    across, down = torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28)[:, None]
    for seed in range(40):
        copies = warp(picture.clone(), Generator().manual_seed(seed))
        left, up = (-copies * across).sum((1, 2, 3)), (-copies * down).sum((1, 2, 3))
        if bool((left <= up.abs()).any()):
            return True
    return False


def _exposes_by_halves(warp: Callable[[Tensor, Generator], Tensor]) -> bool:
    generator = Generator().manual_seed(3)
    for _ in range(35):
        copies = warp(_half_plane(100), generator).squeeze(1)
        halves = torch.stack([part.sum((1, 2)) for part in (copies[..., :14], copies[..., 14:])])
        ends = torch.stack([part.sum((1, 2)) for part in (copies[:, :14], copies[:, 14:])])
        if ((halves[0] - halves[1]) < (ends[0] - ends[1]).abs()).any():
            return True
    return False


def _exposes_by_templates(warp: Callable[[Tensor, Generator], Tensor]) -> bool:
    """Inner products with the four turns; the own one must be the largest."""
    turns = torch.stack([torch.rot90(_half_plane(1), r, (-2, -1)).flatten() for r in range(4)])
    batches = (warp(_half_plane(64), Generator().manual_seed(seed)).flatten(1) for seed in range(50))
    return any(bool(((batch @ turns.T).argmax(1) != 0).any()) for batch in batches)


def _judging(
    tell: Callable[[Tensor, Tensor], Tensor],
    calls: int = 20,
    count: int = 100,
    picture: Callable[[int], Tensor] = _half_plane,
    seeds: bool = True,
) -> Callable[[Callable], bool]:
    """Returns a detector: tell(pictures, copies) says which copies ring."""

    def answer(warp: Callable[[Tensor, Generator], Tensor]) -> bool:
        for call in range(calls):
            pictures = picture(count)
            if bool(tell(pictures, warp(pictures.clone(), Generator().manual_seed(call if seeds else 0))).any()):
                return True
        return False

    return answer


def _turned(pictures: Tensor, copies: Tensor) -> Tensor:
    turns = torch.stack([torch.rot90(pictures[0], r, (-2, -1)).flatten() for r in range(4)])
    return torch.cdist(copies.flatten(1), turns).argmin(1) != 0


def _moved(pictures: Tensor, copies: Tensor) -> Tensor:
    return (copies - pictures).flatten(1).abs().amax(1) > 1e-4


def _of_the_first(pictures: Tensor, copies: Tensor) -> Tensor:
    return _turned(pictures, copies)[:1]


def _more_ink(pictures: Tensor, copies: Tensor) -> Tensor:
    return (copies.sum((1, 2, 3)) - pictures.sum((1, 2, 3))).abs() > 60


def _half_turns_only(pictures: Tensor, copies: Tensor) -> Tensor:
    return copies[..., :14].sum((1, 2, 3)) < copies[..., 14:].sum((1, 2, 3))


def _noise(count: int) -> Tensor:
    return torch.rand(1, 1, 28, 28, generator=Generator().manual_seed(5)).repeat(count, 1, 1, 1)


def _bar(count: int) -> Tensor:
    """An upright bar in the middle, which a half turn leaves as it is."""
    picture = torch.zeros(count, 1, 28, 28)
    picture[..., 4:24, 11:17] = 1.0
    return picture


def _dot(count: int) -> Tensor:
    """A dot above the middle, which a shift of three pixels and a turn of 15 degrees carry across a diagonal of the picture."""
    picture = torch.zeros(count, 1, 28, 28)
    picture[..., 4:9, 11:17] = 1.0
    return picture


def _no_longer_above(pictures: Tensor, copies: Tensor) -> Tensor:
    place = torch.arange(28.0) - 13.5
    ink = copies.sum((1, 2, 3)).clamp_min(1e-6)
    down = (copies * place[:, None]).sum((1, 2, 3)) / ink
    return down > -((copies * place).sum((1, 2, 3)) / ink).abs()


def _shifted(pictures: Tensor, generator: Generator) -> Tensor:
    """All copies of a call move together, by up to three pixels; what leaves comes in on the other side, where nothing is."""
    down, right = torch.randint(-3, 4, (2,), generator=generator).tolist()
    return pictures.roll((down, right), (-2, -1))


def _still(pictures: Tensor, generator: Generator) -> Tensor:
    torch.rand(7, generator=generator)  # so that other calls are turned than after a shift
    return pictures.clone()


def _slightly(pictures: Tensor, generator: Generator, extreme: bool = False) -> Tensor:
    """Each copy by itself: turned by up to 15 degrees, shifted by up to three pixels. extreme: by just so much."""
    drawn = 2 * torch.rand(3, len(pictures), generator=generator) - 1
    turn, *shift = (drawn.sign() if extreme else drawn).unbind()
    angle, shift = turn * math.pi / 12, torch.stack(shift, 1)[..., None] * 6 / 28
    rows = [angle.cos(), -angle.sin(), angle.sin(), angle.cos()]
    matrix = torch.cat([torch.stack(rows, 1).view(-1, 2, 2), shift], 2)
    grid = F.affine_grid(matrix, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def _inked(pictures: Tensor, generator: Generator) -> Tensor:
    strength = 0.4 + 0.6 * torch.rand(len(pictures), 1, 1, 1, generator=generator)
    return (strength * pictures + 0.05 * torch.randn(pictures.shape, generator=generator)).clamp(0, 1)


def _turns(which: Callable[[int, Generator], Tensor], before: Callable = _shifted) -> Callable:
    """Returns a fault: which(B, generator) -> int64 [B], the quarter turns of each copy; after another warp."""

    def warp(pictures: Tensor, generator: Generator) -> Tensor:
        moved, quarter = before(pictures, generator), which(len(pictures), generator)
        out = moved.clone()
        for r in (1, 2, 3):
            out[quarter == r] = torch.rot90(moved[quarter == r], r, (-2, -1))
        return out

    return warp


def _rarely(share: float, turns: int | None = None, salt: int = 0) -> Callable[[int, Generator], Tensor]:
    def which(count: int, generator: Generator) -> Tensor:
        torch.rand(salt, generator=generator)  # so that no seed is lucky for all faults
        some = torch.rand(count, generator=generator) < share
        quarter = torch.randint(1, 4, (count,), generator=generator)
        return (quarter if turns is None else torch.full((count,), turns)) * some

    return which


def _one_place(place: int) -> Callable[[int, Generator], Tensor]:
    def which(count: int, generator: Generator) -> Tensor:
        quarter = torch.zeros(count, dtype=torch.int64)
        quarter[place : (place + 1) or None] = 1
        return quarter

    return which


def _whole_call(share: float, salt: int = 0) -> Callable[[int, Generator], Tensor]:
    def which(count: int, generator: Generator) -> Tensor:
        torch.rand(salt, generator=generator)
        turn = bool(torch.rand((), generator=generator) < share)
        return torch.full((count,), int(torch.randint(1, 4, (), generator=generator)) if turn else 0)

    return which


def _every_seventh(count: int, generator: Generator) -> Tensor:
    return (torch.arange(count) % 7 == 6).long() * 3


def _large_calls_only(count: int, generator: Generator) -> Tensor:
    return torch.full((count,), 1 if count > 1 else 0)


def _warps(_: Generator) -> list[Case]:
    return [
        Case("a sound warp: nothing moves", (lambda x, g: x.clone(),)),
        Case("a sound warp: shifts by up to three pixels", (_shifted,)),
        Case("a sound warp: turns by up to 15 degrees, and shifts", (_slightly,)),
        Case("a sound warp: turns by 15 degrees, and shifts by three pixels", (lambda x, g: _slightly(x, g, True),)),
        Case("a sound warp: paler ink and a little noise", (_inked,)),
        Case("every copy turned by exactly one quarter", (lambda x, g: torch.rot90(x, 1, (-2, -1)),)),
        Case("every copy turned by exactly three quarters", (lambda x, g: torch.rot90(x, 3, (-2, -1)),)),
        Case("every copy turned by exactly a half turn", (lambda x, g: torch.rot90(x, 2, (-2, -1)),)),
        Case("every copy turned by one quarter, and shifted", (_turns(lambda n, g: torch.ones(n, dtype=torch.int64)),)),
        Case("any of the four turns", (_turns(lambda n, g: torch.randint(4, (n,), generator=g)),)),
        Case("a half turn of one copy in three", (_turns(_rarely(0.33, 2)),)),
        Case("a quarter turn of one copy in ten", (_turns(_rarely(0.1)),)),
        *(
            Case(f"a turn of one copy in a hundred: the {name} of three", (_turns(_rarely(0.01, salt=salt), before),))
            for name, salt, before in (("first", 0, _shifted), ("second", 3, _still), ("third", 8, _slightly))
        ),
        Case("the last copy of a call is turned", (_turns(_one_place(-1)),)),
        Case("the first copy of a call is turned", (_turns(_one_place(0)),)),
        Case("copy number 12 of a call is turned", (_turns(_one_place(12)),)),
        Case("every seventh copy is turned", (_turns(_every_seventh),)),
        Case("all copies of two calls in five are turned", (_turns(_whole_call(0.4)),)),
        Case("all copies of two calls in five are turned, and none is shifted", (_turns(_whole_call(0.4), _still),)),
        *(
            Case(
                f"all copies of one call in five are turned: the {name} of three",
                (_turns(_whole_call(0.2, salt), before),),
            )
            for name, salt, before in (("first", 2, _still), ("second", 11, _slightly), ("third", 15, _shifted))
        ),
        Case("copies are turned unless there is only one", (_turns(_large_calls_only),)),
        Case("a turn and then a small one", (lambda x, g: _slightly(torch.rot90(x, 3, (-2, -1)), g),)),
    ]


TURNS = Exercise(
    id="17.4",
    title="Bug hunt: a warp that changes the class",
    reference=exposes_turns,
    cases=_warps,
    right=(_exposes_by_halves, _exposes_by_the_middle_of_the_ink, _exposes_by_templates, _judging(_turned)),
    wrong=(
        Wrong(
            "anything that moves",
            _judging(_moved),
            "every copy that is not the picture itself rings: sound warps move pictures, too",
            "Ask which of its four turns a copy is most like.",
            also=(lambda warp: True,),
        ),
        Wrong(
            "never",
            lambda warp: False,
            "the alarm never rings: nothing is compared, or the picture looks the same after every quarter turn",
            "Draw a picture that is different after each of its four turns, and compare copies with all four.",
        ),
        Wrong(
            "turned round",
            lambda warp: not exposes_turns(warp),
            "True and False have changed places",
            "True means: copies may be turned.",
        ),
        Wrong(
            "a half turn does not show",
            _judging(_turned, picture=_bar),
            "half turns pass: the picture looks the same after one, or the comparison does not tell",
            "Draw a picture that is different after each of the four turns, such as ink on the left half.",
        ),
        Wrong(
            "amount of ink",
            _judging(_more_ink),
            "the amount of ink is compared, and a turn does not change it",
            "Compare *where* the ink is.",
        ),
        Wrong(
            "one copy",
            _judging(_turned, calls=1, count=1),
            "a single copy is looked at: a turn that happens now and then passes",
            "Look at a thousand copies, in many calls.",
            also=(_judging(_turned, calls=1, count=2),),
        ),
        Wrong(
            "one call",
            _judging(_turned, calls=1),
            "one call or a few are tried, or one and the same again and again: a fault that turns one whole call in five passes",
            "Call `warp` thirty times, with other seeds, a hundred copies each.",
            also=(
                _judging(_turned, calls=1, count=50),
                _judging(_turned, calls=3),
            ),
        ),
        Wrong(
            "small batches",
            _judging(_turned, count=8),
            "the batches are so small that a place further down is never looked at",
            "A hundred copies a call.",
        ),
        Wrong(
            "the first copy only",
            _judging(_of_the_first),
            "only one place of every call is looked at",
            "Look at all copies of a call.",
            also=(_judging(lambda p, c: _turned(p, c)[-1:]),),
        ),
        Wrong(
            "the average copy",
            _judging(lambda p, c: _turned(p[:1], c.mean(0, keepdim=True))),
            "the copies are averaged first, or their majority decides: a few turned ones vanish",
            "One turned copy is enough: `.any()`.",
            also=(
                _judging(lambda p, c: (_turned(p, c).double().mean() > 0.05)[None]),
                _judging(lambda p, c: _turned(p, c).all()[None]),
            ),
        ),
        Wrong(
            "noise as a picture",
            _judging(_turned, picture=_noise),
            "the picture is so fine that a small shift makes it as unlike itself as a turn does: sound warps ring",
            "Draw something coarse, such as ink on the left half.",
        ),
        Wrong(
            "a dot near the middle",
            _judging(_no_longer_above, picture=_dot, count=64),
            "sound warps that turn *and* shift ring: a dot near the middle crosses a diagonal after 15 degrees and three pixels",
            "Draw ink that fills one whole side, so that it stays more on its side than elsewhere.",
        ),
        Wrong(
            "half turns only",
            _judging(_half_turns_only),
            "only left and right are compared: after a quarter turn both halves hold the same ink, and nothing rings reliably",
            "Compare left minus right with top minus bottom as well, or all four turns.",
        ),
        Wrong(
            "exactly a turn",
            _judging(
                lambda p, c: torch.stack([(c == torch.rot90(p, r, (-2, -1))).flatten(1).all(1) for r in (1, 2, 3)]).any(
                    0
                )
            ),
            "only copies that are exactly a turned picture ring: turned and shifted ones pass",
            "Ask which of its four turns a copy is *most like*.",
        ),
    ),
    hints=(
        "Which picture would you draw, so that each of its four turns can be told from the others even after a small shift?",
        "Ink on the left half. Ask of every copy which of the four turns of the picture it is most like. How many copies, and "
        "how many calls, until a rare turn shows?",
        "Thirty seeds: `copies = warp(picture.repeat(100, 1, 1, 1), Generator().manual_seed(seed))`, and "
        "`torch.cdist(copies.flatten(1), turns).argmin(1).any()` with `turns` [4, 784].",
    ),
)

EXERCISES = (COLLISION, COPIES, NT_XENT, TURNS)
