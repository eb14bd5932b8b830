"""Rows of lesson 21 for the arm: MAML by imitation, its start, one net for all arms, and least squares for the lengths.

A demonstration is a posture: where the tip was, and the joint angles that brought it there. MAML's net maps a place to angles and
takes its inner steps on the demonstrations of one arm. Every row is judged by how far the tip ends from new targets.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from fsl_course.data.worlds import Arm, angles_for, lengths_from
from fsl_course.episodes import Episode
from fsl_course.evaluation import mean_and_ci95
from fsl_course.methods.maml import MAML
from fsl_course.nets import mlp

DEMONSTRATIONS, TARGETS, NOISE = 5, 20, 0.05
STEPS, INNER_RATE, INNER_STEPS = 2000, 0.1, 5


def demonstrations(arms: Arm, generator: Generator, noise: float) -> Episode:
    """Postures as T stacked regression tasks: places [T, K, 2] -> angles [T, K, 2]. Noise blurs the support's places only."""
    shown, asked = arms.postures(DEMONSTRATIONS, generator), arms.postures(TARGETS, generator)
    blur = noise * torch.randn(shown.shape, generator=generator)
    nothing = torch.zeros(len(arms), 0, dtype=torch.int64)
    return Episode(arms.tip(shown) + blur, shown, arms.tip(asked), asked, nothing)


def imitator(seed: int, steps: int, inner_steps: int) -> MAML:
    """Trains a start on drawn arms, 25 at each step; the rate falls to 0. With no inner step it is one net for all arms."""
    torch.manual_seed(seed)
    learner, generator = MAML(mlp([2, 64, 64, 2]), lr=INNER_RATE, steps=inner_steps), Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(learner.parameters(), 1e-3)
    plan = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(steps):
        loss = learner.training_step(demonstrations(Arm.draw(25, generator), generator, NOISE))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimiser.step()
        plan.step()
    return learner


@torch.no_grad()
def missed(arms: Arm, angles: Tensor, targets: Tensor) -> list[float]:
    """Mean distance between tip and target in per cent of the arm's length, and half width of its interval over the arms."""
    gap = (arms.tip(angles) - targets).norm(dim=-1).mean(1) / arms.lengths.sum(1)
    return [round(100 * float(v), 3) for v in mean_and_ci95(gap.double())]


@torch.no_grad()
def arm_rows(seed: int, steps: int | None, tasks: int) -> dict[str, dict[str, list[float]]]:
    """Misses of each row on the same test arms and targets, with exact and with noisy demonstrations."""
    with torch.enable_grad():
        maml, one = (imitator(seed, steps or STEPS, inner) for inner in (INNER_STEPS, 0))
    arms = Arm.draw(tasks, Generator().manual_seed(3))
    found: dict[str, dict[str, list[float]]] = {}
    for name, noise in (("exact", 0.0), ("noisy", NOISE)):
        given = demonstrations(arms, Generator().manual_seed(4), noise)
        lengths = lengths_from(given.support_y, given.support_x)
        maml.test_steps = None
        answers = {"arm, MAML by imitation": maml.eval()(given), "arm, one net for all": one.eval()(given)}
        maml.test_steps = 0
        answers["arm, MAML before its steps"] = maml(given)
        answers["arm, least squares"] = angles_for(lengths, given.query_x)
        for label, angles in answers.items():
            found.setdefault(label, {})[name] = missed(arms, angles, given.query_x)
    return found
