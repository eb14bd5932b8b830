"""Worlds to act in, many at once: a point that looks for its goal, bandits, and an arm whose lengths nobody tells.

A world is a stack of T tasks (len). `start` gives the states of B trajectories of each [T, B, S], `step` takes actions [T, B, A]
and returns the next states and the rewards [T, B]. All of them move together: the only loop is over time. What differs from task
to task (goal, chances, lengths) is never part of the state: who acts must find it out. `as_gymnasium` makes one task a world of
Gymnasium, the format of the libraries of reinforcement learning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Generator, Tensor

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True, eq=False)
class Navigation:
    """A point starts at the origin of the plane and is rewarded by minus its distance to a goal that it cannot see.

    The task of Finn et al. 2017, section 5.3: an action is a move, each of its numbers cut to -0.1..0.1.
    """

    goals: Tensor  # [T, 2]
    horizon: int = 20
    state_size: ClassVar[int] = 2
    longest: ClassVar[float] = 0.1

    @classmethod
    def draw(cls, tasks: int, generator: Generator, horizon: int = 20) -> Navigation:
        """Draws goals evenly from the square -0.5..0.5."""
        return cls(torch.rand(tasks, 2, generator=generator) - 0.5, horizon)

    def __len__(self) -> int:
        return len(self.goals)

    def start(self, trajectories: int, generator: Generator) -> Tensor:
        """Every trajectory begins at the origin: [T, B, 2]."""
        return self.goals.new_zeros(len(self), trajectories, 2)

    def step(self, state: Tensor, action: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Moves the points, and rewards them by minus the distance that is left."""
        state = state + action.clamp(-self.longest, self.longest)
        return state, -(state - self.goals[:, None]).norm(dim=-1)


@dataclass(frozen=True, eq=False)
class Bandits:
    """K levers, each of which pays 1 with a chance of its own, else 0. The state is empty but for a constant 1."""

    chances: Tensor  # [T, K]
    horizon: int = 100
    state_size: ClassVar[int] = 1

    @classmethod
    def draw(cls, tasks: int, generator: Generator, arms: int = 5, horizon: int = 100) -> Bandits:
        """Draws every chance evenly from 0..1."""
        return cls(torch.rand(tasks, arms, generator=generator), horizon)

    def __len__(self) -> int:
        return len(self.chances)

    def start(self, trajectories: int, generator: Generator) -> Tensor:
        """Nothing to see: ones [T, B, 1]."""
        return self.chances.new_ones(len(self), trajectories, 1)

    def step(self, state: Tensor, action: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Pulls lever action [T, B] of each bandit. Draws rewards 0 or 1."""
        luck = torch.rand(action.shape, generator=generator).to(self.chances)
        return state, (luck < self.chances.gather(1, action)).to(self.chances.dtype)

    def regret(self, action: Tensor) -> Tensor:
        """What each pull falls short of the best lever, on average. action [T, ...] -> [T, ...]."""
        chosen = self.chances.gather(1, action.flatten(1)).view(action.shape)
        return self.chances.amax(1).view(-1, *[1] * (action.dim() - 1)) - chosen


@dataclass(frozen=True, eq=False)
class Arm:
    """An arm of two joints in the plane shall bring its tip to a target; its lengths differ from task to task.

    The state holds the two joint angles and the target; an action turns the joints, by at most 0.5 each.
    """

    lengths: Tensor  # [T, 2]
    horizon: int = 20
    state_size: ClassVar[int] = 4
    longest: ClassVar[float] = 0.5

    @classmethod
    def draw(cls, tasks: int, generator: Generator, horizon: int = 20) -> Arm:
        """Draws both lengths evenly from 0.3..1."""
        return cls(0.3 + 0.7 * torch.rand(tasks, 2, generator=generator), horizon)

    def __len__(self) -> int:
        return len(self.lengths)

    def tip(self, angles: Tensor) -> Tensor:
        """Where the tip is. Joint angles [T, B, 2], the second relative to the first link -> places [T, B, 2]."""
        return (directions(angles) * self.lengths[:, None, None]).sum(-1)

    def postures(self, count: int, generator: Generator) -> Tensor:
        """Draws joint angles [T, count, 2]: the first 0..pi/2, the elbow bent by 0.3..2.6, so that the tip tells both."""
        drawn = torch.rand(len(self), count, 2, generator=generator).to(self.lengths)
        return drawn * drawn.new_tensor([torch.pi / 2, 2.3]) + drawn.new_tensor([0.0, 0.3])

    def start(self, trajectories: int, generator: Generator) -> Tensor:
        """Angles of a posture, and the tip's place in another one as target: [T, B, 4]."""
        angles = self.postures(trajectories, generator)
        return torch.cat([angles, self.tip(self.postures(trajectories, generator))], -1)

    def step(self, state: Tensor, action: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Turns the joints. The reward is minus the distance between tip and target, in lengths of the arm."""
        angles = state[..., :2] + action.clamp(-self.longest, self.longest)
        gap = (self.tip(angles) - state[..., 2:]).norm(dim=-1) / self.lengths.sum(1, keepdim=True)
        return torch.cat([angles, state[..., 2:]], -1), -gap


World = Navigation | Bandits | Arm


def directions(angles: Tensor) -> Tensor:
    """Unit vectors along both links. angles [..., 2] -> [..., 2, 2]; column j times length j, summed, is the tip."""
    along = angles.cumsum(-1)
    return torch.stack([along.cos(), along.sin()], dim=-2)


def lengths_from(angles: Tensor, tips: Tensor) -> Tensor:
    """Least squares for an arm's lengths, which enter the tip's place linearly. [T, B, 2] twice -> [T, 2]."""
    rows, places = directions(angles).flatten(1, 2), tips.flatten(1).unsqueeze(-1)
    return torch.linalg.lstsq(rows, places).solution.squeeze(-1)


def angles_for(lengths: Tensor, targets: Tensor) -> Tensor:
    """Joint angles that bring the tip to the targets, by the law of cosines; the elbow bends to one side.

    lengths [T, 2], targets [T, B, 2] -> [T, B, 2]. A target out of reach is approached with a straight or folded arm.
    """
    first, second = lengths[:, None].unbind(-1)
    bend = (targets.square().sum(-1) - first**2 - second**2) / (2 * first * second)
    elbow = bend.clamp(-1, 1).arccos()
    across, along = second * elbow.sin(), first + second * elbow.cos()
    return torch.stack([torch.atan2(targets[..., 1], targets[..., 0]) - torch.atan2(across, along), elbow], dim=-1)


def as_gymnasium(draw: Callable[[int, Generator], Any]) -> gymnasium.Env:
    """Makes a world of Gymnasium of one task, e.g. as_gymnasium(Navigation.draw). Every `reset` draws a new task.

    Gymnasium is the extra "acting". Raises ModuleNotFoundError, with what to install, if it is missing.
    """
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'gymnasium is not installed: run  pip install "fsl-course[acting]"  (or: pip install gymnasium).'
        ) from error
    import numpy as np

    class OneTask(gymnasium.Env):
        """One task of a world: observations are float32 [S], and episodes are cut at the horizon."""

        def __init__(self) -> None:
            self.world = draw(1, Generator().manual_seed(0))
            self.observation_space = gymnasium.spaces.Box(-20, 20, (self.world.state_size,), np.float32)
            if isinstance(self.world, Bandits):
                self.action_space = gymnasium.spaces.Discrete(self.world.chances.shape[1])
            else:
                self.action_space = gymnasium.spaces.Box(-self.world.longest, self.world.longest, (2,), np.float32)

        def _observation(self) -> np.ndarray:
            return self.state[0, 0].numpy().astype(np.float32)  # a copy

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
            super().reset(seed=seed)
            self.generator = Generator().manual_seed(int(self.np_random.integers(2**31)))
            self.world = draw(1, self.generator)
            self.state, self.steps = self.world.start(1, self.generator), 0
            return self._observation(), {}

        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
            self.state, reward = self.world.step(self.state, torch.as_tensor(action)[None, None], self.generator)
            self.steps += 1
            return self._observation(), float(reward), False, self.steps >= self.world.horizon, {}

    return OneTask()
