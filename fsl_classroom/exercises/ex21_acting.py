"""Exercises of lesson 21: returns-to-go, DiCE, a step of Thompson sampling, a detector of stale trajectories, a baseline.

Cases: every exercise builds its own. DiCE is held to its first and second derivatives by properties, because its value never
moves with the log-probabilities. The detector 21.4 gets outer loops as arguments and must return True for the broken ones only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ---------------------------------------------------------------------------------------------- 21.1 returns-to-go


def returns_to_go(rewards: Tensor, discount: float) -> Tensor:
    """Returns the discounted sum of the rewards from each step on. [B, H] -> [B, H]."""
    found = rewards.clone()
    for t in reversed(range(rewards.shape[1] - 1)):
        found[:, t] = rewards[:, t] + discount * found[:, t + 1]
    return found


def _to_go_by_matrix(rewards: Tensor, discount: float) -> Tensor:
    steps = torch.arange(rewards.shape[1])
    ahead = steps[:, None] - steps  # [later, now]
    weight = torch.where(ahead >= 0, discount ** ahead.clamp_min(0).to(rewards.dtype), 0.0)
    return rewards @ weight


def _to_go_by_cumsum(rewards: Tensor, discount: float) -> Tensor:
    weight = discount ** torch.arange(rewards.shape[1], dtype=torch.float64)
    sums = (rewards.double() * weight).flip(1).cumsum(1).flip(1)
    return (sums / weight).to(rewards.dtype)


def _to_go_by_lists(rewards: Tensor, discount: float) -> Tensor:
    rows = []
    for row in rewards:
        total, sums = torch.zeros((), dtype=rewards.dtype), []
        for reward in row.flip(0):
            total = reward + discount * total
            sums.insert(0, total)
        rows.append(torch.stack(sums))
    return torch.stack(rows)


def _to_go_by_sums(rewards: Tensor, discount: float) -> Tensor:
    length = rewards.shape[1]
    columns = [sum(discount**k * rewards[:, t + k] for k in range(length - t)) for t in range(length)]
    return torch.stack(columns, dim=1)


def _weights(rewards: Tensor, discount: float) -> Tensor:
    return discount ** torch.arange(rewards.shape[1], dtype=rewards.dtype)


def _to_go_cases(generator: Generator) -> list[Case]:
    def case(says: str, rows: int, steps: int, discount: float, dtype: torch.dtype = torch.float32) -> Case:
        return Case(says, (torch.randn(rows, steps, generator=generator, dtype=torch.float64).to(dtype), discount))

    return [
        Case("the example on paper: rewards 1, 2, 4 and discount 0.5", (torch.tensor([[1.0, 2.0, 4.0]]), 0.5)),
        case("3 trajectories of 5 steps, discount 0.9", 3, 5, 0.9),
        case("no discount", 2, 4, 1.0),
        case("a single step", 4, 1, 0.9),
        case("4 trajectories of 4 steps, in float64", 4, 4, 0.99, torch.float64),
    ]


TO_GO = Exercise(
    id="21.1",
    title="Return-to-go",
    reference=returns_to_go,
    cases=_to_go_cases,
    right=(_to_go_by_matrix, _to_go_by_cumsum, _to_go_by_lists, _to_go_by_sums),
    wrong=(
        Wrong(
            "the past",
            lambda r, d: torch.stack(
                [sum(d ** (t - k) * r[:, k] for k in range(t + 1)) for t in range(r.shape[1])], dim=1
            ),
            "the rewards BEFORE each step are summed: an action cannot change the past",
            "From each step on: go through the steps backwards.",
            also=(
                lambda r, d: r.cumsum(1),
                lambda r, d: (r * _weights(r, d)).cumsum(1),
            ),
        ),
        Wrong(
            "no discount",
            lambda r, d: r.flip(1).cumsum(1).flip(1),
            "the rewards are summed without a discount",
            "A reward that comes k steps later counts `discount ** k`.",
        ),
        Wrong(
            "counted from the first step",
            lambda r, d: (r * _weights(r, d)).flip(1).cumsum(1).flip(1),
            "the discount is counted from the first step of the episode, not from the step that is looked at",
            "The reward of a step itself always has weight 1 in that step's return-to-go.",
        ),
        Wrong(
            "without the reward of the step itself",
            lambda r, d: returns_to_go(r, d) - r,
            "the step's own reward is missing",
            "Start each sum with the reward of the step itself.",
            also=(
                lambda r, d: (returns_to_go(r, d) - r) / d,
                lambda r, d: r.sum(1, keepdim=True) - r.cumsum(1),
            ),
        ),
        Wrong(
            "one discount too many",
            lambda r, d: d * returns_to_go(r, d),
            "the reward of the step itself is discounted already",
            "The step's own reward has weight 1: `reward + discount * total`.",
        ),
        Wrong(
            "the discount at the wrong place",
            lambda r, d: d * r.flip(1).cumsum(1).flip(1),
            "the discount multiplies the rewards once each, and not what comes later",
            "`total = reward + discount * total`.",
        ),
        Wrong(
            "a running average",
            lambda r, d: (1 - d) * returns_to_go(r, d),
            "the reward of each step is multiplied by 1 - discount, as in a running average",
            "A return is a sum: `total = reward + discount * total`.",
        ),
        Wrong(
            "a baseline is subtracted",
            lambda r, d: returns_to_go(r, d) - returns_to_go(r, d).mean(0),
            "a mean is subtracted from the returns, or they are normalised",
            "Return the returns-to-go themselves.",
            also=(
                lambda r, d: returns_to_go(r, d) - returns_to_go(r, d).mean(),
                lambda r, d: returns_to_go(r, d) - returns_to_go(r, d).mean(1, keepdim=True),
                lambda r, d: (returns_to_go(r, d) - returns_to_go(r, d).mean()) / (returns_to_go(r, d).std() + 1e-8),
            ),
        ),
        Wrong(
            "the first step is missing",
            lambda r, d: torch.cat([r[:, :1], returns_to_go(r, d)[:, 1:]], dim=1),
            "the loop ends before the first step, which keeps its own reward",
            "`reversed(range(H - 1))` ends with step 0; so does `range(H - 2, -1, -1)`.",
            also=(lambda r, d: torch.cat([torch.zeros_like(r[:, :1]), returns_to_go(r, d)[:, 1:]], dim=1),),
        ),
        Wrong(
            "the whole return everywhere",
            lambda r, d: returns_to_go(r, d)[:, :1].expand_as(r).clone(),
            "every step gets the return of the whole episode",
            "Each step gets what comes from it on.",
            also=(
                lambda r, d: r.sum(1, keepdim=True).expand_as(r).clone(),
                lambda r, d: returns_to_go(r, d)[:, 0],
                lambda r, d: r.sum(1),
            ),
        ),
        Wrong(
            "along the trajectories",
            lambda r, d: returns_to_go(r.T, d).T,
            "the sums run over the trajectories, axis 0, in place of the steps",
            "Steps are axis 1 of [B, H].",
            also=(lambda r, d: r.flip(0).cumsum(0).flip(0),),
        ),
        Wrong(
            "turned round",
            lambda r, d: returns_to_go(r, d).flip(1),
            "the sums come out in reversed order",
            "Turn the result round once more: `.flip(1)`, or `sums[::-1]`.",
            also=(lambda r, d: r.flip(1).cumsum(1),),
        ),
        Wrong(
            "the mean",
            lambda r, d: returns_to_go(r, d) / r.shape[1],
            "the sums are divided by a number of steps",
            "A return is a sum, not a mean.",
            also=(
                lambda r, d: returns_to_go(r, d) / torch.arange(r.shape[1], 0, -1).to(r.dtype),
                lambda r, d: returns_to_go(r, d).mean(1, keepdim=True).expand_as(r).clone(),
            ),
        ),
        Wrong(
            "the reward alone",
            lambda r, d: r.clone(),
            "each step gets its own reward, discounted or not, and nothing that follows",
            "Add what comes later, discounted.",
            also=(lambda r, d: r * _weights(r, d),),
        ),
        Wrong(
            "one step ahead only",
            lambda r, d: r + d * torch.cat([r[:, 1:], torch.zeros_like(r[:, :1])], dim=1),
            "only the next reward is added, and not all that follow",
            "Add the discounted return-to-go of the next step, not its reward: `reward + discount * total`.",
        ),
        Wrong(
            "the last step is missing",
            lambda r, d: torch.cat([returns_to_go(r[:, :-1], d), torch.zeros_like(r[:, :1])], dim=1),
            "the last reward never enters",
            "The last step's return-to-go is its own reward.",
            also=(lambda r, d: torch.cat([returns_to_go(r, d)[:, :-1], torch.zeros_like(r[:, :1])], dim=1),),
        ),
    ),
    hints=(
        "What is the return-to-go of the last step? And of the step before it, given that one?",
        "Go backwards: total = reward + discount * total.",
        "`for t in reversed(range(H - 1)): found[:, t] = rewards[:, t] + discount * found[:, t + 1]`, "
        "where `found = rewards.clone()`",
    ),
)

# ---------------------------------------------------------------------------------------------- 21.2 DiCE


def magic_box(x: Tensor) -> Tensor:
    """Returns exp(x - x without its graph)."""
    return (x - x.detach()).exp()


def dice_objective(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    """Returns the mean discounted return, each reward times the box of all actions up to it. [B, H] twice -> scalar."""
    weight = discount ** torch.arange(rewards.shape[1], dtype=rewards.dtype)
    return (magic_box(log_probs.cumsum(1)) * weight * rewards).sum(1).mean()


def _dice_by_loops(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    total = torch.zeros((), dtype=rewards.dtype)
    for b in range(rewards.shape[0]):
        so_far = torch.zeros((), dtype=rewards.dtype)
        for t in range(rewards.shape[1]):
            so_far = so_far + log_probs[b, t]
            total = total + discount**t * torch.exp(so_far - so_far.detach()) * rewards[b, t]
    return total / rewards.shape[0]


def _dice_by_products(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    box = magic_box(log_probs).cumprod(1)  # the box of a sum is the product of the boxes
    steps = torch.arange(rewards.shape[1])
    return torch.einsum("bt,bt,t->", box, rewards, discount ** steps.to(rewards.dtype)) / len(rewards)


def _dice_by_matrix(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    length = rewards.shape[1]
    up_to = torch.ones(length, length, dtype=rewards.dtype).triu()
    sums = log_probs @ up_to
    weight = torch.tensor([discount**t for t in range(length)], dtype=rewards.dtype)
    return ((sums - sums.detach()).exp() @ torch.diag(weight) * rewards).sum() / rewards.shape[0]


def _dice_by_ratio(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    sums = torch.cumsum(log_probs, dim=-1)
    ratio = sums.exp() / sums.exp().detach()
    gain = torch.zeros(len(rewards), dtype=rewards.dtype)
    for t in range(rewards.shape[-1]):
        gain = gain + ratio[:, t] * rewards[:, t] * discount**t
    return gain.mean()


def _drawn(seed: int = 3) -> tuple[Tensor, Tensor]:
    """Parameters [2, 3] of log-probabilities, and rewards [2, 3]."""
    generator = Generator().manual_seed(seed)
    theta, rewards = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)
    return theta, rewards


def _derivative(answer: Callable[..., Tensor], order: int) -> Tensor:
    """First or second derivatives of the objective by parameters, where log-probabilities are bent functions of them."""
    theta, rewards = _drawn()

    def value(x: Tensor) -> Tensor:
        return answer(-(x.square()) / 2 + x.roll(1, 0) / 3, rewards, 0.9)

    theta.requires_grad_()
    (first,) = torch.autograd.grad(value(theta), theta, create_graph=True, materialize_grads=True)
    if order == 1:
        return first.detach()
    if not first.requires_grad:
        return torch.zeros(6, 6, dtype=theta.dtype)
    rows = [
        torch.autograd.grad(f, theta, retain_graph=True, materialize_grads=True)[0].flatten() for f in first.flatten()
    ]
    return torch.stack(rows)


def _same_derivative(order: int) -> Callable[[Callable[..., Tensor], Callable[..., Tensor]], str | None]:
    word = {1: "first", 2: "second"}[order]

    def holds(answer: Callable[..., Tensor], reference: Callable[..., Tensor]) -> str | None:
        try:
            found = _derivative(answer, order)
        except RuntimeError as error:
            if "does not require grad" in str(error):
                return "no gradient flows back to the log-probabilities"
            raise
        wanted = _derivative(reference, order)
        if torch.allclose(found, wanted, rtol=1e-5, atol=1e-8):
            return None
        gap = float((found - wanted).abs().max())
        return f"the {word} derivatives differ from those of the expected return by up to {gap:.4g}"

    return holds


def _dice_cases(generator: Generator) -> list[Case]:
    def case(says: str, rows: int, steps: int, discount: float, dtype: torch.dtype = torch.float32) -> Case:
        drawn = torch.randn(2, rows, steps, generator=generator, dtype=torch.float64).to(dtype)
        return Case(says, (drawn[0], drawn[1], discount))

    return [
        Case("2 trajectories on paper", (torch.full((2, 2), -1.0), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 0.5)),
        case("3 trajectories of 4 steps", 3, 4, 0.9),
        case("a single step", 5, 1, 0.9),
        case("a single trajectory, in float64", 1, 6, 0.99, torch.float64),
    ]


def _per_step_box(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    return (magic_box(log_probs) * _weights(rewards, discount) * rewards).sum(1).mean()


def _whole_box(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    return (magic_box(log_probs.sum(1)) * (_weights(rewards, discount) * rewards).sum(1)).mean()


def _later_box(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    return (magic_box(log_probs.flip(1).cumsum(1).flip(1)) * _weights(rewards, discount) * rewards).sum(1).mean()


def _before_box(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    return (magic_box(log_probs.cumsum(1) - log_probs) * _weights(rewards, discount) * rewards).sum(1).mean()


def _plain_surrogate(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    return (log_probs.cumsum(1) * _weights(rewards, discount) * rewards).sum(1).mean()


def _first_order_only(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    """The value is right, and so is the first derivative: 1 + x - x.detach() in place of the exponential."""
    sums = log_probs.cumsum(1)
    return ((1 + sums - sums.detach()) * _weights(rewards, discount) * rewards).sum(1).mean()


DICE = Exercise(
    id="21.2",
    title="An objective whose derivatives are all right",
    reference=dice_objective,
    cases=_dice_cases,
    properties=(
        Property("its first derivatives are those of the expected return", _same_derivative(1)),
        Property("its second derivatives are those of the expected return", _same_derivative(2)),
    ),
    right=(_dice_by_loops, _dice_by_products, _dice_by_matrix, _dice_by_ratio),
    wrong=(
        Wrong(
            "the plain surrogate",
            _plain_surrogate,
            "log-probabilities multiply the rewards, as in the usual surrogate, where their magic box should",
            "Multiply each reward by `(x - x.detach()).exp()`, with x the sum of log-probabilities up to it.",
            also=(
                lambda p, r, d: (p * _weights(r, d) * r).sum(1).mean(),
                lambda p, r, d: (p.sum(1) * (_weights(r, d) * r).sum(1)).mean(),
                lambda p, r, d: (p * returns_to_go(r, d)).sum(1).mean(),
                lambda p, r, d: -(p * returns_to_go(r, d)).sum(1).mean(),
                lambda p, r, d: -_plain_surrogate(p, r, d),
                lambda p, r, d: (p.cumsum(1) * magic_box(p.cumsum(1)) * _weights(r, d) * r).sum(1).mean(),
            ),
        ),
        Wrong(
            "each action alone",
            _per_step_box,
            "a reward is multiplied by the box of its own action only: earlier actions get no credit for it",
            "Sum the log-probabilities up to each step first: `log_probs.cumsum(1)`.",
        ),
        Wrong(
            "the box of the whole episode",
            _whole_box,
            "every reward is multiplied by the box of the whole episode, later actions included: they cannot have caused it",
            "Up to each step: `log_probs.cumsum(1)`.",
            also=(_later_box,),
        ),
        Wrong(
            "up to the step before",
            _before_box,
            "the action of the step itself is missing in the box of its reward",
            "`log_probs.cumsum(1)` includes the step itself.",
        ),
        Wrong(
            "no discount",
            lambda p, r, d: dice_objective(p, r, 1.0),
            "the rewards are not discounted",
            "The reward of step t, counted from 0, has the weight `discount ** t`.",
        ),
        Wrong(
            "the discount starts at one",
            lambda p, r, d: d * dice_objective(p, r, d),
            "the first reward is discounted already",
            "Steps count from 0: the first reward has weight 1.",
        ),
        Wrong(
            "a sum over the trajectories",
            lambda p, r, d: dice_objective(p, r, d) * len(r),
            "the trajectories are summed and not averaged",
            "Sum over the steps, then take the mean over the trajectories.",
            also=(lambda p, r, d: (magic_box(p.cumsum(1)) * _weights(r, d) * r).sum(1),),
        ),
        Wrong(
            "a mean over the steps, too",
            lambda p, r, d: dice_objective(p, r, d) / r.shape[1],
            "the steps are averaged as well: `.mean()` over the whole tensor divides by H, too",
            "A return is a sum over the steps: `.sum(1).mean()`.",
        ),
        Wrong(
            "centred rewards",
            lambda p, r, d: (magic_box(p.cumsum(1)) * _weights(r, d) * (r - r.mean())).sum(1).mean(),
            "a mean is subtracted from the rewards, so the value is no longer the mean return",
            "Plain rewards here; how a baseline joins without moving the value is another matter.",
            also=(
                lambda p, r, d: (magic_box(p.cumsum(1)) * _weights(r, d) * (r - r.mean(1, keepdim=True))).sum(1).mean(),
            ),
        ),
        Wrong(
            "the axes are exchanged",
            lambda p, r, d: (magic_box(p.cumsum(1)) * _weights(r, d) * r).sum(0).mean(),
            "the trajectories are summed, and the steps are averaged",
            "The other way round: `.sum(1).mean()`.",
        ),
        Wrong(
            "the discount runs backwards",
            lambda p, r, d: (magic_box(p.cumsum(1)) * _weights(r, d).flip(0) * r).sum(1).mean(),
            "the last reward has the weight 1, and the first one is discounted most",
            "The reward of step t, counted from 0, has the weight `discount ** t`.",
        ),
        Wrong(
            "discounted log-probabilities",
            lambda p, r, d: (magic_box((p * _weights(r, d)).cumsum(1)) * _weights(r, d) * r).sum(1).mean(),
            "the log-probabilities are discounted, too",
            "Only rewards are discounted; the box holds the plain sum of log-probabilities.",
            also=(lambda p, r, d: (magic_box(d * p.cumsum(1)) * _weights(r, d) * r).sum(1).mean(),),
        ),
        Wrong(
            "averaged log-probabilities",
            lambda p, r, d: (
                (magic_box(p.cumsum(1) / torch.arange(1, p.shape[1] + 1).to(p.dtype)) * _weights(r, d) * r)
                .sum(1)
                .mean()
            ),
            "the box holds a mean of log-probabilities, or a product, where it needs their sum",
            "`log_probs.cumsum(1)`.",
            also=(
                lambda p, r, d: (magic_box(p.cumprod(1)) * _weights(r, d) * r).sum(1).mean(),
                lambda p, r, d: (magic_box(p.mean(1, keepdim=True)) * _weights(r, d) * r).sum(1).mean(),
            ),
        ),
        Wrong(
            "log-probabilities summed over the trajectories",
            lambda p, r, d: (magic_box(p.cumsum(0)) * _weights(r, d) * r).sum(1).mean(),
            "log-probabilities of different trajectories are added up: along axis 0, or over everything",
            "Each trajectory has a box of its own, and steps are axis 1: `log_probs.cumsum(1)`.",
            also=(
                lambda p, r, d: (magic_box(p.sum()) * _weights(r, d) * r).sum(1).mean(),
                lambda p, r, d: (magic_box(p.flatten().cumsum(0).view_as(p)) * _weights(r, d) * r).sum(1).mean(),
                lambda p, r, d: (magic_box(p.sum(0, keepdim=True)) * _weights(r, d) * r).sum(1).mean(),
            ),
        ),
        Wrong(
            "the box less one",
            lambda p, r, d: ((magic_box(p.cumsum(1)) - 1) * _weights(r, d) * r).sum(1).mean(),
            "the value is 0 and not the mean return: the exponential is missing, 1 is subtracted, or the rewards are centred",
            "The box itself, `(x - x.detach()).exp()`, multiplies the rewards as they are.",
            also=(
                lambda p, r, d: ((p.cumsum(1) - p.cumsum(1).detach()) * _weights(r, d) * r).sum(1).mean(),
                lambda p, r, d: (magic_box(p.cumsum(1)) * _weights(r, d) * (r - r.mean(0))).sum(1).mean(),
            ),
        ),
        Wrong(
            "a loss",
            lambda p, r, d: -dice_objective(p, r, d),
            "the sign is turned: this is a loss, and the exercise asks for what is to be climbed",
            "No minus: the value is the mean return itself.",
        ),
        Wrong(
            "returns-to-go inside",
            lambda p, r, d: (magic_box(p.cumsum(1)) * returns_to_go(r, d)).sum(1).mean(),
            "returns-to-go are multiplied where rewards should be: every later reward counts several times",
            "Plain rewards, each with its discount and its box.",
            also=(
                lambda p, r, d: (magic_box(p) * returns_to_go(r, d)).sum(1).mean(),
                lambda p, r, d: (magic_box(p.cumsum(1)) * _weights(r, d) * returns_to_go(r, d)).sum(1).mean(),
                lambda p, r, d: (magic_box(p) * _weights(r, d) * returns_to_go(r, d)).sum(1).mean(),
            ),
        ),
        Wrong(
            "nothing detached",
            lambda p, r, d: (p.cumsum(1).exp() * _weights(r, d) * r).sum(1).mean(),
            "the exponential is taken of the log-probabilities themselves, so the box is not worth 1",
            "`(x - x.detach()).exp()`",
            also=(lambda p, r, d: (p.exp() * _weights(r, d) * r).sum(1).mean(),),
        ),
        Wrong(
            "everything detached",
            lambda p, r, d: (_weights(r, d) * r).sum(1).mean() + 0 * p.sum(),
            "the derivatives vanish: the graph of the log-probabilities is cut off, or they do not enter",
            "Detach the second x only: `(x - x.detach()).exp()`.",
            also=(lambda p, r, d: ((p.detach() - p.detach()).cumsum(1).exp() * _weights(r, d) * r).sum(1).mean(),),
        ),
        Wrong(
            "no exponential",
            _first_order_only,
            "value and first derivatives are right and the second ones are not: the exponential is missing",
            "`(x - x.detach()).exp()`: the second derivative of exp is what keeps the score squared.",
        ),
        Wrong(
            "the wrong sign in the box",
            lambda p, r, d: ((p.detach() - p).cumsum(1).exp() * _weights(r, d) * r).sum(1).mean(),
            "the box is turned round: x.detach() - x sends every derivative downhill",
            "`(x - x.detach()).exp()`",
        ),
    ),
    hints=(
        "Which actions can have caused the reward of step t? Sum their log-probabilities.",
        "Each reward, times its discount, times the magic box of `log_probs.cumsum(1)`; sum the steps, average the trajectories.",
        "`x = log_probs.cumsum(1)`; `((x - x.detach()).exp() * discount ** torch.arange(H, dtype=rewards.dtype) * rewards)"
        ".sum(1).mean()`",
    ),
)

# ---------------------------------------------------------------------------------------------- 21.3 Thompson sampling

Beta = Callable[[Tensor, Tensor], Tensor]


def thompson_choice(wins: Tensor, losses: Tensor, beta: Beta) -> Tensor:
    """Returns the lever with the largest draw from its posterior Beta(wins + 1, losses + 1). [T, K] twice -> int64 [T]."""
    return beta(wins + 1, losses + 1).argmax(1)


def _choice_by_loops(wins: Tensor, losses: Tensor, beta: Beta) -> Tensor:
    chosen = []
    for won, lost in zip(wins, losses, strict=True):
        draws = [float(beta(w + 1, x + 1)) for w, x in zip(won, lost, strict=True)]
        chosen.append(max(range(len(draws)), key=draws.__getitem__))
    return torch.tensor(chosen)


def _choice_by_max(wins: Tensor, losses: Tensor, beta: Beta) -> Tensor:
    draws = beta(torch.ones_like(wins) + wins, torch.ones_like(losses) + losses)
    return draws.max(dim=-1).indices


def _choice_by_sorting(wins: Tensor, losses: Tensor, beta: Beta) -> Tensor:
    return beta(1 + wins, 1 + losses).argsort(dim=1, descending=True)[:, 0]


def _choice_by_rows(wins: Tensor, losses: Tensor, beta: Beta) -> Tensor:
    return torch.stack([torch.argmax(beta(w + 1.0, x + 1.0)) for w, x in zip(wins, losses, strict=True)])


def _choice_by_topk(wins: Tensor, losses: Tensor, beta: Beta) -> Tensor:
    return torch.topk(beta(wins.add(1), losses.add(1)), 1, dim=1)[1].squeeze(1)


def _stand_in(shift: float) -> Beta:
    """A stand-in for draws: a fixed function of both numbers, near the mean of the Beta and off it by some luck."""

    def beta(a: Tensor, b: Tensor) -> Tensor:
        a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
        spread = (a * b / ((a + b).square() * (a + b + 1)).clamp_min(1e-9)).clamp_min(0).sqrt()
        return a / (a + b).clamp_min(1e-9) + 1.5 * spread * torch.sin(37 * a + 11 * b + shift)

    return beta


def _thompson_cases(generator: Generator) -> list[Case]:
    def case(says: str, tasks: int, arms: int, most: int, shift: float) -> Case:
        wins, losses = torch.randint(0, most + 1, (2, tasks, arms), generator=generator).float()
        return Case(says, (wins, losses, _stand_in(shift)))

    return [
        case("6 bandits of 3 levers, a few pulls", 6, 3, 4, 0.0),
        case("20 bandits of 5 levers, many pulls", 20, 5, 30, 1.0),
        case("20 bandits, other luck", 20, 5, 6, 2.0),
        case("one bandit of 2 levers", 1, 2, 3, 0.5),
        Case("5 bandits of 5 levers, nothing pulled yet but one", (torch.eye(5), torch.zeros(5, 5), _stand_in(4.0))),
        Case(
            "levers that lost beside levers that were never pulled",
            (torch.zeros(3, 3), torch.tensor([[4.0, 0.0, 3.0], [0.0, 5.0, 2.0], [2.0, 6.0, 0.0]]), _stand_in(2.0)),
        ),
    ]


def _draws_once(answer: Callable[..., Tensor], reference: Callable[..., Tensor]) -> str | None:
    """The mean or the largest of several draws is no draw from the posterior, although the stand-in cannot tell."""
    drawn, stand_in = [], _stand_in(0.0)

    def beta(a: Tensor, b: Tensor) -> Tensor:
        found = stand_in(a, b)
        drawn.append(found.numel())
        return found

    answer(torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 1.0], [1.0, 2.0, 0.0]]), beta)
    return None if sum(drawn) == 6 else f"2 bandits of 3 levers took {sum(drawn)} draws in place of 6"


THOMPSON = Exercise(
    id="21.3",
    title="A step of Thompson sampling",
    reference=thompson_choice,
    cases=_thompson_cases,
    properties=(Property("each lever of each bandit is drawn for once", _draws_once),),
    right=(_choice_by_loops, _choice_by_max, _choice_by_sorting, _choice_by_rows, _choice_by_topk),
    wrong=(
        Wrong(
            "the mean in place of a draw",
            lambda w, x, beta: ((w + 1) / (w + x + 2)).argmax(1),
            "counts, shares of wins or posterior means are compared, and nothing is drawn: that rule is greedy",
            "Call `beta` and compare what it draws.",
            also=(
                lambda w, x, beta: (w / (w + x).clamp_min(1)).argmax(1),
                lambda w, x, beta: (w / (w + x)).argmax(1),
                lambda w, x, beta: w.argmax(1),
                lambda w, x, beta: (w - x).argmax(1),
            ),
        ),
        Wrong(
            "no prior",
            lambda w, x, beta: beta(w, x).argmax(1),
            "the prior is missing, or another one than Beta(1, 1)",
            "The even prior is Beta(1, 1): add 1 to both counts.",
            also=(
                lambda w, x, beta: beta(w.clamp_min(1), x.clamp_min(1)).argmax(1),
                lambda w, x, beta: beta(w + 1, x).argmax(1),
                lambda w, x, beta: beta(w, x + 1).argmax(1),
                *(lambda w, x, beta, e=e: beta(w + e, x + e).argmax(1) for e in (1e-6, 1e-3, 1e-2)),
                lambda w, x, beta: beta(w + 0.5, x + 0.5).argmax(1),
                lambda w, x, beta: beta(w + 2, x + 2).argmax(1),
            ),
        ),
        Wrong(
            "exchanged",
            lambda w, x, beta: beta(x + 1, w + 1).argmax(1),
            "wins and losses are exchanged: the lever that loses most is pulled",
            "The first number of a Beta counts the wins.",
        ),
        Wrong(
            "pulls in place of losses",
            lambda w, x, beta: beta(w + 1, w + x + 1).argmax(1),
            "the second number of the Beta counts all pulls, wins included",
            "Losses only: `losses + 1`.",
            also=(
                lambda w, x, beta: beta(w + 1, w + x + 2).argmax(1),
                lambda w, x, beta: beta(w + 1, w + x).argmax(1),
                lambda w, x, beta: beta(w + 1, (x - w).abs() + 1).argmax(1),
            ),
        ),
        Wrong(
            "the smallest draw",
            lambda w, x, beta: beta(w + 1, x + 1).argmin(1),
            "the smallest draw is chosen",
            "`argmax`, because a chance to win is drawn.",
        ),
        Wrong(
            "over the bandits",
            lambda w, x, beta: beta(w + 1, x + 1).argmax(0),
            "the largest draw is sought over the bandits, axis 0, or over everything",
            "Each row is a bandit: `argmax(1)`.",
            also=(lambda w, x, beta: beta(w + 1, x + 1).argmax(),),
        ),
        Wrong(
            "the draw itself",
            lambda w, x, beta: beta(w + 1, x + 1).max(1).values,
            "the draws are returned in place of the levers",
            "Return which lever has the largest draw: `argmax(1)`.",
            also=(lambda w, x, beta: beta(w + 1, x + 1),),
        ),
        Wrong(
            "one draw for all bandits",
            lambda w, x, beta: beta((w + 1).sum(0), (x + 1).sum(0)).argmax().expand(len(w)).clone(),
            "the counts of all bandits are thrown together",
            "Every bandit has levers of its own: keep the rows apart.",
            also=(lambda w, x, beta: beta(w[:1] + 1, x[:1] + 1).argmax(1).expand(len(w)).clone(),),
        ),
        Wrong(
            "one of the rows kept as a column",
            lambda w, x, beta: beta(w + 1, x + 1).argmax(1, keepdim=True),
            "the levers stand in a column [T, 1], or as one-hot rows",
            "Return [T]: no `keepdim`.",
            also=(
                lambda w, x, beta: torch.nn.functional.one_hot(beta(w + 1, x + 1).argmax(1), w.shape[1]),
                lambda w, x, beta: torch.nn.functional.one_hot(beta(w + 1, x + 1).argmax(1), w.shape[1]).float(),
            ),
        ),
        Wrong(
            "shares of wins",
            lambda w, x, beta: beta((w + 1) / (w + x + 2), (x + 1) / (w + x + 2)).argmax(1),
            "shares in place of counts go into the Beta: a lever pulled 100 times looks as unknown as one pulled twice",
            "Counts: `beta(wins + 1, losses + 1)`.",
            also=(
                lambda w, x, beta: beta(w / (w + x + 1) + 1, x / (w + x + 1) + 1).argmax(1),
                lambda w, x, beta: beta(w / (w + x).clamp_min(1) + 1, x / (w + x).clamp_min(1) + 1).argmax(1),
            ),
        ),
        Wrong(
            "untried levers apart",
            lambda w, x, beta: torch.where(
                ((w + x) == 0).any(1), ((w + x) == 0).int().argmax(1), beta(w + 1, x + 1).argmax(1)
            ),
            "levers that were never pulled are treated apart: they always go first, or never",
            "Their posterior is the prior, Beta(1, 1): draw for them as for the others.",
            also=(lambda w, x, beta: torch.where(w + x > 0, beta(w + 1, x + 1), -1.0).argmax(1),),
        ),
        Wrong(
            "several draws",
            lambda w, x, beta: torch.stack([beta(w + 1, x + 1) for _ in range(10)]).mean(0).argmax(1),
            "several draws are taken for each lever: their mean hardly explores, and their largest is no draw from the posterior",
            "One draw for each lever of each bandit.",
            also=tuple(
                lambda w, x, beta, k=k: torch.stack([beta(w + 1, x + 1) for _ in range(k)]).mean(0).argmax(1)
                for k in (2, 3, 5, 20, 50, 100)
            ),
        ),
        Wrong(
            "a bonus on top",
            lambda w, x, beta: (beta(w + 1, x + 1) + 1 / (w + x + 1)).argmax(1),
            "something is added to the draws, or multiplies them: a bonus, a mean or another draw",
            "Compare the draws as they are; their spread explores already.",
            also=(
                lambda w, x, beta: (beta(w + 1, x + 1) + (w + 1) / (w + x + 2)).argmax(1),
                lambda w, x, beta: (beta(w + 1, x + 1) * (w + 1) / (w + x + 2)).argmax(1),
                lambda w, x, beta: (beta(w + 1, x + 1) - beta(x + 1, w + 1)).argmax(1),
            ),
        ),
        Wrong(
            "a bound in place of a draw",
            lambda w, x, beta: (
                (w + 1) / (w + x + 2) + (2 * (w + x).sum(1, keepdim=True).clamp_min(1).log() / (w + x + 1)).sqrt()
            ).argmax(1),
            "a mean plus a bonus is compared, and nothing is drawn: that is a rule of upper bounds, such as UCB1",
            "Call `beta` and compare what it draws.",
            also=(
                lambda w, x, beta: (
                    (w + 1) / (w + x + 2) + ((w + 1) * (x + 1) / (w + x + 3)).sqrt() / (w + x + 2)
                ).argmax(1),
            ),
        ),
        Wrong(
            "counted from 1",
            lambda w, x, beta: beta(w + 1, x + 1).argmax(1) + 1,
            "the levers are counted from 1",
            "The first lever is 0: `argmax(1)` as it is.",
        ),
        Wrong(
            "draws of one's own",
            lambda w, x, beta: torch.distributions.Beta(w + 1, x + 1).sample().argmax(1),
            "the draws come from somewhere else than from the `beta` that is handed in",
            "Call `beta(wins + 1, losses + 1)`.",
        ),
    ),
    hints=(
        "What does an even prior know after 3 wins and 1 loss? Draw from that, for every lever.",
        "`beta(a, b)` works on whole tensors. a is wins + 1, b is losses + 1.",
        "`beta(wins + 1, losses + 1).argmax(1)`",
    ),
)

# ---------------------------------------------------------------------------------------------- 21.4 stale trajectories

Walk = Callable[[Tensor], Tensor]
Pair = Callable[[Tensor, Tensor], Tensor]


def _toy_walk(params: Tensor) -> Tensor:
    return torch.stack([params.sum(1), params[:, 0] ** 2], dim=1)


def _toy_step(params: Tensor, walked: Tensor) -> Tensor:
    return params + 0.3 * walked.sum(1, keepdim=True) + 0.5


def _toy_score(params: Tensor, walked: Tensor) -> Tensor:
    return (params**2).sum(1) + walked @ walked.new_tensor([1.0, 0.7])


def _sound(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    adapted = step(start, walk(start))
    return score(adapted, walk(adapted))


def exposes_stale(outer: Callable[..., Tensor], start: Tensor) -> bool:
    """Returns True if outer(start, walk, step, score) is not the score of the adapted parameters on their own trajectories."""
    found = outer(start, _toy_walk, _toy_step, _toy_score)
    return not torch.allclose(found, _sound(start, _toy_walk, _toy_step, _toy_score), rtol=1e-5, atol=1e-6)


def _exposes_with(walk: Walk, step: Pair, score: Pair, close: Callable[[Tensor, Tensor], bool]) -> Callable[..., bool]:
    def exposes(outer: Callable[..., Tensor], start: Tensor) -> bool:
        return not close(outer(start, walk, step, score), _sound(start, walk, step, score))

    return exposes


def _near(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def _exposes_by_numbers(outer: Callable[..., Tensor], start: Tensor) -> bool:
    """Linear toys: after a step from p, with trajectories 2p, the parameters are 5p + 1."""
    found = outer(start, lambda p: 2 * p, lambda p, w: p + 2 * w + 1, lambda p, w: (10 * p + w).sum(1))
    adapted = 5 * start + 1
    return not torch.allclose(found, (12 * adapted).sum(1), rtol=1e-5, atol=1e-6)


def _exposes_by_entries(outer: Callable[..., Tensor], start: Tensor) -> bool:
    def walk(p: Tensor) -> Tensor:
        return torch.cat([p, p.square().sum(1, keepdim=True)], 1)

    def score(p: Tensor, w: Tensor) -> Tensor:
        return p.sum(1) + 3 * w.sum(1)

    def step(p: Tensor, w: Tensor) -> Tensor:
        return 0.5 * p - 0.1 * w[:, -1:] + 0.2

    found = outer(start, walk, step, score)
    expected = []
    for row in start:
        p = step(row[None], walk(row[None]))
        expected.append(float(score(p, walk(p))))
    return any(abs(float(a) - e) > 1e-4 * (1 + abs(e)) for a, e in zip(found, expected, strict=True))


def _exposes_by_two_toys(outer: Callable[..., Tensor], start: Tensor) -> bool:
    one = _exposes_with(lambda p: p * 3, lambda p, w: p + w, lambda p, w: w.sum(1) + p.prod(1), _near)
    return bool(exposes_stale(outer, start) or one(outer, start))


def _in_turn(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    return torch.cat([_sound(row, walk, step, score) for row in start.split(1)])


def _backwards(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    return _sound(start.flip(0), walk, step, score).flip(0)


def _stale(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    walked = walk(start)
    return score(step(start, walked), walked)


def _some_stale(rows: slice) -> Callable[..., Tensor]:
    def outer(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
        before = walk(start)
        adapted = step(start, before)
        after = walk(adapted).clone()
        after[rows] = before[rows]
        return score(adapted, after)

    return outer


def _column_stale(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    before = walk(start)
    adapted = step(start, before)
    after = walk(adapted).clone()
    after[:, 0] = before[:, 0]
    return score(adapted, after)


def _blend(share: float) -> Callable[..., Tensor]:
    def outer(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
        before = walk(start)
        adapted = step(start, before)
        return score(adapted, share * before + (1 - share) * walk(adapted))

    return outer


def _swapped(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    adapted = step(start, walk(start))
    return score(adapted, walk(adapted).roll(1, 0))


def _rolled(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    return _sound(start, walk, step, score).roll(1, 0)


def _balanced(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    """The first task gains what the second loses: the mean stays."""
    found = _sound(start, walk, step, score)
    lost = found - _stale(start, walk, step, score)
    shift = torch.zeros_like(found)
    shift[0], shift[1:2] = lost[0], -lost[0]
    return found - shift


def _old_parameters(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    return score(start, walk(step(start, walk(start))))


def _before(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    return score(start, walk(start))


def _twice(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    walked = walk(start)
    adapted = step(step(start, walked), walked)
    return score(adapted, walk(adapted))


def _in_double(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    """A sound loop that reckons in float64: its rounding differs."""
    return _sound(start.double(), walk, step, score).to(start.dtype)


def _step_on_neighbours(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    adapted = step(start, walk(start).roll(1, 0))
    return score(adapted, walk(adapted))


def _last_not_adapted(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    adapted = step(start, walk(start)).clone()
    adapted[:, -1] = start[:, -1]
    return score(adapted, walk(adapted))


def _last_walked_stale(start: Tensor, walk: Walk, step: Pair, score: Pair) -> Tensor:
    adapted = step(start, walk(start))
    old = adapted.clone()
    old[:, -1] = start[:, -1]
    return score(adapted, walk(old))


def _stale_cases(generator: Generator) -> list[Case]:
    start = 0.5 * torch.randn(4, 3, generator=generator)
    double = 0.5 * torch.randn(3, 2, generator=generator, dtype=torch.float64)
    return [
        Case("a sound outer loop", (_sound, start)),
        Case("a sound one, task by task", (_in_turn, start)),
        Case("a sound one that takes the tasks in another order", (_backwards, start)),
        Case("the trajectories of the start", (_stale, start)),
        Case("the trajectories of the start, for the first task", (_some_stale(slice(0, 1)), start)),
        Case("the trajectories of the start, for the last task", (_some_stale(slice(3, 4)), start)),
        Case("one number of each trajectory comes from the start", (_column_stale, start)),
        Case("a thousandth of the old trajectories is mixed in", (_blend(1e-3), start)),
        Case("half of the old trajectories is mixed in", (_blend(0.5), start)),
        Case("every task is scored on its neighbour's trajectories", (_swapped, start)),
        Case("the scores come in another order", (_rolled, start)),
        Case("one task gains what another loses, so that the mean stays", (_balanced, start)),
        Case("the start is scored on the new trajectories", (_old_parameters, start)),
        Case("nothing is adapted", (_before, start)),
        Case("two steps on the same trajectories", (_twice, start)),
        Case("a sound one that reckons in float64 inside", (_in_double, start)),
        Case("every task takes its step on its neighbour's trajectories", (_step_on_neighbours, start)),
        Case("the trajectories of the start, for a task in the middle", (_some_stale(slice(1, 2)), start)),
        Case("the trajectories of the start, where all its numbers are negative", (_stale, -0.2 - start.abs())),
        Case("a ten-thousandth of the old trajectories is mixed in", (_blend(1e-4), start)),
        Case("the last parameter is not adapted", (_last_not_adapted, start)),
        Case("the last parameter of the new walk is that of the start", (_last_walked_stale, start)),
        Case("a sound one, in float64", (_sound, double)),
        Case("the trajectories of the start, in float64", (_stale, double)),
    ]


def _identity(params: Tensor, walked: Tensor) -> Tensor:
    return params


# toys as answers use them: bent ones, and straight ones as in the hint
TOYS: tuple[tuple[Walk, Pair, Pair], ...] = (
    (_toy_walk, _toy_step, _toy_score),
    (lambda p: 2 * p, lambda p, w: p + 2 * w + 1, lambda p, w: (10 * p + w).sum(1)),
    (lambda p: p * 3 + 1, lambda p, w: p - 0.5 * w + 2, lambda p, w: (p * 2 + w).sum(1)),
)


def _with_toys(close: Callable[[Tensor, Tensor], bool]) -> tuple[Callable[..., bool], ...]:
    """Returns an answer for each set of toys: it compares what it gets by close."""
    return tuple(_exposes_with(*toys, close) for toys in TOYS)


def _watches(outer: Callable[..., Tensor], start: Tensor) -> bool:
    """Looks at what score is given, not at what comes out."""
    given = []

    def score(params: Tensor, walked: Tensor) -> Tensor:
        given.append((params, walked))
        return _toy_score(params, walked)

    outer(start, _toy_walk, _toy_step, score)
    return any(not _near(walked, _toy_walk(params)) for params, walked in given)


STALE = Exercise(
    id="21.4",
    title="Bug hunt: whose trajectories?",
    reference=exposes_stale,
    cases=_stale_cases,
    right=(
        _exposes_by_numbers,
        _exposes_by_entries,
        _exposes_by_two_toys,
        _exposes_with(
            lambda p: torch.cat([p.sin(), p.cos()], 1),
            lambda p, w: p + w.sum(1, keepdim=True),
            lambda p, w: p.exp().sum(1) + (w * torch.arange(1.0, w.shape[1] + 1)).sum(1),
            _near,
        ),
    ),
    wrong=(
        Wrong(
            "a step that changes nothing",
            _exposes_with(_toy_walk, _identity, _toy_score, _near),
            "the step that is tried changes nothing: old and new trajectories are then the same",
            "Let `step` move the parameters of every task, e.g. `params + walked.sum(1, keepdim=True) + 1`.",
        ),
        Wrong(
            "a score without trajectories",
            _exposes_with(_toy_walk, _toy_step, lambda p, w: p.sum(1), _near),
            "the trajectories make no difference to the score that is tried: `score` or `walk` leaves something out",
            "Let `score` depend on parameters and trajectories, and `walk` on the parameters, e.g. `2 * params`.",
            also=(_exposes_with(lambda p: torch.ones_like(p), *TOYS[2][1:], _near),),
        ),
        Wrong(
            "a score of trajectories only",
            _exposes_with(_toy_walk, _toy_step, lambda p, w: w.sum(1), _near),
            "the score that is tried does not look at the parameters, or not at every number",
            "Let `score` depend on all numbers of the parameters and of the trajectories.",
            also=(
                _exposes_with(_toy_walk, _toy_step, lambda p, w: p.sum(1) + w[:, -1], _near),
                _exposes_with(*TOYS[2][:2], lambda p, w: p[:, 0] + w[:, 0], _near),
            ),
        ),
        Wrong(
            "a step without trajectories",
            _exposes_with(_toy_walk, lambda p, w: p + 1, _toy_score, _near),
            "the step that is tried does not look at the trajectories, so it may take those of a neighbour",
            "Let `step` depend on both, e.g. `params + 2 * walked + 1`.",
        ),
        Wrong(
            "the mean over the tasks",
            _with_toys(lambda a, b: bool(torch.isclose(a.mean(), b.mean(), rtol=1e-5, atol=1e-6)))[0],
            "only a mean, a sum or sorted scores are compared: what one task loses another may gain",
            "Compare task by task: `torch.allclose`.",
            also=(
                *_with_toys(lambda a, b: bool(torch.isclose(a.mean(), b.mean(), rtol=1e-5, atol=1e-6)))[1:],
                *_with_toys(lambda a, b: torch.allclose(a.sort().values, b.sort().values, rtol=1e-5, atol=1e-6))[:1],
            ),
        ),
        Wrong(
            "one task only",
            _exposes_with(_toy_walk, _toy_step, _toy_score, lambda a, b: _near(a[:1], b[:1])),
            "only one task is looked at",
            "Compare the scores of all tasks.",
            also=(
                _exposes_with(_toy_walk, _toy_step, _toy_score, lambda a, b: _near(a[-1:], b[-1:])),
                lambda outer, start: exposes_stale(outer, start[:1]),
            ),
        ),
        Wrong(
            "a start of one's own",
            lambda outer, start: exposes_stale(
                outer, 0.5 * torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
            ),
            "another start than the one that is given is tried, or only a part of it: a fault in a later task goes unnoticed",
            "Call `outer(start, ...)` with the start as it comes.",
        ),
        Wrong(
            "too generous",
            _exposes_with(*TOYS[0], lambda a, b: torch.allclose(a, b, atol=0.05, rtol=0.05)),
            "a small fault passes: the tolerance is wide, or the toys hardly change with what they are given",
            "`torch.allclose(a, b, rtol=1e-5, atol=1e-6)`, with toys whose step is large.",
            also=(_exposes_with(*TOYS[2], lambda a, b: torch.allclose(a, b, atol=1e-2)),),
        ),
        Wrong(
            "to the last digit",
            _exposes_with(*TOYS[0], torch.equal),
            "the scores are compared more exactly than float32 can hold them: rounding rings the alarm",
            "`torch.allclose` with a small tolerance.",
        ),
        Wrong(
            "every loop rings",
            lambda outer, start: True,
            "every loop rings, sound ones too: the score that is held against is not the sound one, the toys are random, or "
            "nothing is compared",
            "Compute `adapted = step(start, walk(start))` and `score(adapted, walk(adapted))`, and compare by `torch.allclose`.",
        ),
        Wrong(
            "no loop rings",
            lambda outer, start: False,
            "no loop rings: the toys give every loop the same score, or True is never returned",
            "Make toys that depend on all their inputs, and return True where the scores differ.",
        ),
        Wrong(
            "all tasks must be wrong",
            _exposes_with(
                _toy_walk, _toy_step, _toy_score, lambda a, b: bool(torch.isclose(a, b, rtol=1e-5, atol=1e-6).any())
            ),
            "the alarm waits until all tasks are wrong",
            "One wrong score is enough.",
            also=(_exposes_with(*TOYS[1], lambda a, b: bool(torch.isclose(a, b, rtol=1e-5, atol=1e-6).any())),),
        ),
        Wrong(
            "one sign only",
            _exposes_with(*TOYS[0], lambda a, b: bool((a - b).max() <= 1e-5)),
            "differences are not taken as absolute values: a score that is wrong in the other direction passes, or cancels",
            "`(found - right).abs().max()`, or `torch.allclose`.",
            also=(
                _exposes_with(*TOYS[0], lambda a, b: bool((b - a).max() <= 1e-5)),
                _exposes_with(*TOYS[1], lambda a, b: bool((a - b).max() <= 1e-4)),
                _exposes_with(*TOYS[2], lambda a, b: bool((a - b).max() <= 1e-5)),
                *(_exposes_with(*toys, lambda a, b: bool((a - b).sum() <= 1e-5)) for toys in (TOYS[0], TOYS[2])),
                _exposes_with(*TOYS[0], lambda a, b: bool((b - a).sum() <= 1e-5)),
            ),
        ),
        Wrong(
            "arguments are watched",
            _watches,
            "what `score` is given is looked at, and not what comes out: scores in another order, or of the start, pass",
            "Compare the scores that `outer` returns with the right ones.",
        ),
        Wrong(
            "only the bug of the text",
            lambda outer, start: _near(
                outer(start, _toy_walk, _toy_step, _toy_score), _stale(start, _toy_walk, _toy_step, _toy_score)
            ),
            "only one particular fault is recognised, where all tasks are stale",
            "Ask whether the scores are right, not whether they are wrong in one particular way.",
        ),
        Wrong(
            "calls are counted",
            lambda outer, start: _counts_walks(outer, start) != 2,
            "the calls of walk are counted: a sound loop may take the tasks one by one, and two calls may still be used wrongly",
            "Compare scores, not calls.",
            also=(
                lambda outer, start: _counts_walks(outer, start) < 2,
                lambda outer, start: _last_walk_is_stale(outer, start),
            ),
        ),
        Wrong(
            "it changed, so it is right",
            lambda outer, start: _near(
                outer(start, _toy_walk, _toy_step, _toy_score), _before(start, _toy_walk, _toy_step, _toy_score)
            ),
            "the score is compared with that of the start: it differs in every faulty loop that adapts at all",
            "Compute the score that a sound loop must give, and compare with that.",
        ),
        Wrong(
            "turned round",
            lambda outer, start: not exposes_stale(outer, start),
            "True and False have changed places",
            "True means: broken.",
        ),
        Wrong(
            "the right score is the stale one",
            lambda outer, start: (
                not _near(
                    outer(start, _toy_walk, _toy_step, _toy_score), _stale(start, _toy_walk, _toy_step, _toy_score)
                )
            ),
            "the score that is held against has the very bug: sound loops ring",
            "`adapted = step(start, walk(start))`, then `score(adapted, walk(adapted))`.",
            also=(
                lambda outer, start: (
                    not _near(
                        outer(start, _toy_walk, _toy_step, _toy_score), _before(start, _toy_walk, _toy_step, _toy_score)
                    )
                ),
                lambda outer, start: (
                    not _near(
                        outer(start, _toy_walk, _toy_step, _toy_score),
                        _old_parameters(start, _toy_walk, _toy_step, _toy_score),
                    )
                ),
            ),
        ),
    ),
    hints=(
        "You may hand in any walk, step and score. Which ones would make old and new trajectories give different scores?",
        "Make toys that depend on all their inputs, compute the score that is right, and compare.",
        "`walk = lambda p: 2 * p`, `step = lambda p, w: p + 2 * w + 1`, `score = lambda p, w: (10 * p + w).sum(1)`; "
        "`new = step(start, walk(start))`; `not torch.allclose(outer(start, walk, step, score), score(new, walk(new)))`",
    ),
)


def _counts_walks(outer: Callable[..., Tensor], start: Tensor) -> int:
    calls = []

    def walk(params: Tensor) -> Tensor:
        calls.append(params)
        return _toy_walk(params)

    outer(start, walk, _toy_step, _toy_score)
    return len(calls)


def _last_walk_is_stale(outer: Callable[..., Tensor], start: Tensor) -> bool:
    calls = []

    def walk(params: Tensor) -> Tensor:
        calls.append(params)
        return _toy_walk(params)

    outer(start, walk, _toy_step, _toy_score)
    return calls[-1].shape == start.shape and torch.allclose(calls[-1], start)


# ---------------------------------------------------------------------------------------------- 21.5 a baseline


def others_mean(to_go: Tensor) -> Tensor:
    """Returns for each trajectory the mean return-to-go of the others at the same step. [B, H], B at least 2 -> [B, H]."""
    return (to_go.sum(0, keepdim=True) - to_go) / (len(to_go) - 1)


def _others_by_loop(to_go: Tensor) -> Tensor:
    rows = range(len(to_go))
    return torch.stack([torch.stack([to_go[j] for j in rows if j != i]).mean(0) for i in rows])


def _others_by_matrix(to_go: Tensor) -> Tensor:
    count = len(to_go)
    weight = (torch.ones(count, count, dtype=to_go.dtype) - torch.eye(count, dtype=to_go.dtype)) / (count - 1)
    return weight @ to_go


def _others_by_masking(to_go: Tensor) -> Tensor:
    keep = ~torch.eye(len(to_go), dtype=torch.bool)
    return torch.stack([to_go[row].mean(0) for row in keep])


def _others_by_mean(to_go: Tensor) -> Tensor:
    count = to_go.shape[0]
    return to_go.mean(0) * count / (count - 1) - to_go / (count - 1)


def _others_cases(generator: Generator) -> list[Case]:
    def case(says: str, rows: int, steps: int, dtype: torch.dtype = torch.float32) -> Case:
        return Case(says, (torch.randn(rows, steps, generator=generator, dtype=torch.float64).to(dtype),))

    return [
        Case("3 trajectories of 2 steps, on paper", (torch.tensor([[1.0, 4.0], [3.0, 8.0], [8.0, 0.0]]),)),
        Case("3 trajectories, two of them with the same return", (torch.tensor([[1.0, 0.0], [1.0, 2.0], [3.0, 2.0]]),)),
        case("5 trajectories of 4 steps", 5, 4),
        case("2 trajectories", 2, 3),
        case("4 trajectories of 1 step", 4, 1),
        case("4 trajectories of 4 steps, in float64", 4, 4, torch.float64),
    ]


OTHERS = Exercise(
    id="21.5",
    title="A baseline that does not look at its own trajectory",
    reference=others_mean,
    cases=_others_cases,
    right=(_others_by_loop, _others_by_matrix, _others_by_masking, _others_by_mean),
    wrong=(
        Wrong(
            "the mean of all",
            lambda g: g.mean(0, keepdim=True).expand_as(g).clone(),
            "the trajectory itself is part of its mean: an action then moves the baseline that judges it",
            "Leave the row itself out: `(sum - own) / (B - 1)`.",
            also=(lambda g: g.mean(0, keepdim=True), lambda g: g.mean(0)),
        ),
        Wrong(
            "divided by all",
            lambda g: (g.sum(0) - g) / len(g),
            "the sum of the others is divided by another number than B - 1",
            "There are B - 1 others.",
            also=(lambda g: (g.sum(0) - g) / max(1, g.shape[1] - 1), lambda g: (g.sum(0) - g) / g.shape[1]),
        ),
        Wrong(
            "over the steps",
            lambda g: g.mean(1, keepdim=True).expand_as(g).clone(),
            "the mean runs over the steps of a trajectory",
            "Over the trajectories, axis 0, at the same step.",
            also=(lambda g: (g.sum(1, keepdim=True) - g) / max(1, g.shape[1] - 1), lambda g: g.mean(1)),
        ),
        Wrong(
            "its own return",
            lambda g: g.clone(),
            "the return of the trajectory itself is its baseline: nothing would be left to learn from",
            "Average the others.",
        ),
        Wrong(
            "the median",
            lambda g: g.median(0).values.expand_as(g).clone(),
            "a median is taken, not a mean",
            "The mean of the others.",
            also=(lambda g: torch.stack([torch.cat([g[:i], g[i + 1 :]]).median(0).values for i in range(len(g))]),),
        ),
        Wrong(
            "one number for everything",
            lambda g: g.mean().expand_as(g).clone(),
            "different steps are thrown together, although early steps have more ahead of them",
            "A mean for each step: over axis 0 only.",
            also=(
                lambda g: g.mean(),
                lambda g: (g.sum() - g) / (g.numel() - 1),
                lambda g: others_mean(g)[:, :1].expand_as(g).clone(),
                lambda g: others_mean(g).mean(1, keepdim=True).expand_as(g).clone(),
            ),
        ),
        Wrong(
            "the advantage",
            lambda g: g - (g.sum(0) - g) / (len(g) - 1),
            "return and baseline are subtracted from each other already",
            "Return the baseline itself.",
            also=(lambda g: g - g.mean(0), lambda g: others_mean(g) - g, lambda g: g.mean(0) - g),
        ),
        Wrong(
            "brackets",
            lambda g: g.sum(0) - g / (len(g) - 1),
            "the sum of all rows and the row itself are not divided by the same number",
            "`(to_go.sum(0) - to_go) / (B - 1)`: brackets round the difference.",
            also=(lambda g: g.mean(0) - g / (len(g) - 1), lambda g: g.sum(0) / (len(g) - 1) - g),
        ),
        Wrong(
            "the same row is left out",
            lambda g: ((g.sum(0) - g[0]) / (len(g) - 1)).expand_as(g).clone(),
            "the same trajectory is left out for all",
            "Each row leaves out itself.",
            also=(lambda g: ((g.sum(0) - g[-1]) / (len(g) - 1)).expand_as(g).clone(),),
        ),
        Wrong(
            "left out by value",
            lambda g: torch.stack([torch.stack([g[g[:, t] != x, t].mean() for t, x in enumerate(row)]) for row in g]),
            "rows are told apart by their values: others with the same return are left out, too",
            "Leave out row i by its position.",
            also=(lambda g: torch.stack([g[(g != row).all(1)].mean(0) for row in g]),),
        ),
        Wrong(
            "the next trajectory",
            lambda g: g.roll(1, 0),
            "one other trajectory serves as baseline, not the mean of all others",
            "Average all the others.",
            also=(lambda g: g.roll(-1, 0),),
        ),
        Wrong(
            "the sum",
            lambda g: g.sum(0) - g,
            "the others are summed and not averaged",
            "Divide by B - 1.",
            also=(lambda g: g.sum(0, keepdim=True).expand_as(g).clone(),),
        ),
        Wrong(
            "earlier trajectories only",
            lambda g: (g.cumsum(0) - g) / torch.arange(len(g)).clamp_min(1)[:, None].to(g.dtype),
            "only the trajectories above in the tensor count as others",
            "All other rows, whatever their order.",
        ),
    ),
    hints=(
        "The sum of all rows holds the sum of the others. What has to go?",
        "Sum over axis 0, subtract the row itself, divide by the number of others.",
        "`(to_go.sum(0, keepdim=True) - to_go) / (len(to_go) - 1)`",
    ),
)

EXERCISES = (TO_GO, DICE, THOMPSON, STALE, OTHERS)
