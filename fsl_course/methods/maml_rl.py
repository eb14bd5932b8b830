"""MAML by policy gradients (Finn et al. 2017, section 4.3, algorithm 3), with DiCE (Foerster et al. 2018) for its gradients.

An inner step climbs the return that the policy's own trajectories estimate; the outer step climbs the return of trajectories that
the ADAPTED policies walk. The inner gradient must be differentiated once more. The usual surrogate, log-probability times return,
has the right gradient and the wrong second derivative. A magic box has the value 1 and all derivatives right.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, vmap

from fsl_course.data.worlds import World
from fsl_course.inner_loop.functional import Params


class GaussianPolicy(nn.Module):
    """Draws actions around the output of a small tanh net, with a learned spread that is the same in all states."""

    def __init__(self, states: int = 2, actions: int = 2, hidden: int = 64, scale: float = 0.1) -> None:
        super().__init__()
        sizes = [(states, hidden), (hidden, hidden)]
        layers = [layer for a, b in sizes for layer in (nn.Linear(a, b), nn.Tanh())]
        self.net = nn.Sequential(*layers, nn.Linear(hidden, actions))
        self.log_spread = nn.Parameter(torch.zeros(actions))
        self.scale = scale  # the size of a usual action

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """States [..., S] -> mean [..., A] and standard deviation [A] of the action."""
        return self.scale * self.net(states), self.scale * self.log_spread.exp()


class Trajectories(NamedTuple):
    """What B episodes of each of T tasks were."""

    states: Tensor  # [T, B, H, S]
    actions: Tensor  # [T, B, H, A]
    rewards: Tensor  # [T, B, H]


def expand(policy: nn.Module, tasks: int) -> Params:
    """Gives each task its own copy of the parameters: [T, ...]. Gradients flow back to the policy's own."""
    return {name: p.expand(tasks, *p.shape) for name, p in policy.named_parameters()}


def act(policy: nn.Module, params: Params, states: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the actions of T policies. states [T, ..., S] -> [T, ..., A], [T, A]."""
    return vmap(lambda own, x: functional_call(policy, own, (x,)))(params, states)


@torch.no_grad()
def walk(world: World, policy: nn.Module, params: Params, trajectories: int, generator: Generator) -> Trajectories:
    """Lets each task's policy act for one episode in B trajectories."""
    state, seen = world.start(trajectories, generator), []
    for _ in range(world.horizon):
        mean, spread = act(policy, params, state)
        action = mean + spread[:, None] * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        after, reward = world.step(state, action, generator)
        seen.append((state, action, reward))
        state = after
    return Trajectories(*(torch.stack(part, dim=2) for part in zip(*seen, strict=True)))


def log_probability(policy: nn.Module, params: Params, walked: Trajectories) -> Tensor:
    """Log-density of every action under the policies with these parameters -> [T, B, H]."""
    mean, spread = act(policy, params, walked.states)
    spread = spread[:, None, None]
    return torch.distributions.Normal(mean, spread).log_prob(walked.actions).sum(-1)


def returns_to_go(rewards: Tensor, discount: float) -> Tensor:
    """Discounted sum of the rewards from each step on. [..., H] -> [..., H]."""
    total, sums = torch.zeros_like(rewards[..., 0]), []
    for reward in rewards.flip(-1).unbind(-1):
        total = reward + discount * total
        sums.append(total)
    return torch.stack(sums[::-1], dim=-1)


def magic_box(x: Tensor) -> Tensor:
    """exp(x - x without its graph): the value is 1, and every derivative is that of a probability ratio (equation 4)."""
    return (x - x.detach()).exp()


def baseline(rewards: Tensor, discount: float) -> Tensor:
    """For each trajectory the mean return-to-go of the OTHERS, step by step, so that no action meets itself. [T, B, H]."""
    to_go = returns_to_go(rewards, discount)
    return (to_go.sum(1, keepdim=True) - to_go) / max(1, rewards.shape[1] - 1)


def dice(log_probs: Tensor, rewards: Tensor, discount: float = 0.99) -> Tensor:
    """DiCE's objective with a baseline (Foerster et al. 2018, equations 5 and 8): [T, B, H] -> the return of each task [T].

    A reward is multiplied by the box of all actions up to it. A baseline joins with weight 1 - box, which is 0 on average at
    every order of derivatives.
    """
    weight = discount ** torch.arange(rewards.shape[-1], dtype=rewards.dtype)
    level = weight * baseline(rewards, discount)
    gains = magic_box(log_probs.cumsum(-1)) * weight * rewards + (1 - magic_box(log_probs)) * level
    return gains.sum(-1).mean(-1)


def surrogate(log_probs: Tensor, rewards: Tensor, discount: float = 0.99) -> Tensor:
    """The usual surrogate: log-probability times advantage. Right first derivative, wrong second one. [T, B, H] -> [T]."""
    weight = discount ** torch.arange(rewards.shape[-1], dtype=rewards.dtype)
    advantage = returns_to_go(rewards, discount) - baseline(rewards, discount)
    return (log_probs * weight * advantage).sum(-1).mean(-1)


class MAMLRL(nn.Module):
    """A policy whose parameters are a good place to start from: some steps up a task's return make it good at that task."""

    def __init__(
        self, policy: nn.Module, lr: float = 0.1, trajectories: int = 20, first_order: bool = False, by=dice
    ) -> None:
        super().__init__()
        self.policy, self.lr, self.trajectories, self.first_order, self.by = policy, lr, trajectories, first_order, by

    def step(self, params: Params, walked: Trajectories, graph: bool = False) -> Params:
        """One inner step up the return of each task (equation 1). graph=True keeps what the outer gradient needs."""
        value = self.by(log_probability(self.policy, params, walked), walked.rewards).sum()
        found = torch.autograd.grad(value, list(params.values()), create_graph=graph and not self.first_order)
        return {name: p + self.lr * g for (name, p), g in zip(params.items(), found, strict=True)}

    def adapt(self, world: World, steps: int, generator: Generator) -> list[Params]:
        """Parameters before adaptation and after 1 .. steps steps, each from new trajectories. Needs no outer graph."""
        params = {n: p.detach().clone().requires_grad_() for n, p in expand(self.policy, len(world)).items()}
        found = [params]
        for _ in range(steps):
            params = self.step(params, walk(world, self.policy, params, self.trajectories, generator))
            params = {name: p.detach().requires_grad_() for name, p in params.items()}
            found.append(params)
        return found

    def meta_loss(self, world: World, generator: Generator) -> Tensor:
        """Minus the return of the policies after one step, on trajectories that these policies walk (algorithm 3)."""
        params = expand(self.policy, len(world))
        params = self.step(params, walk(world, self.policy, params, self.trajectories, generator), graph=True)
        after = walk(world, self.policy, params, self.trajectories, generator)
        return -self.by(log_probability(self.policy, params, after), after.rewards).mean()
