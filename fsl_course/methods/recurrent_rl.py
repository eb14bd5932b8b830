"""RL^2: a recurrent net that learns to learn (Duan et al. 2016). Its weights stay; what it learns of a task is its state.

At every step the net sees what is there, its last action, the reward for it, and whether an episode just ended. Its state
survives the episodes of a task, and only a new task sets it back. An advantage actor-critic (Mnih et al. 2016) trains it to
collect reward over the whole task, so that it learns when to explore.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fsl_course.data.worlds import Bandits
from fsl_course.methods.maml_rl import returns_to_go


class RecurrentPolicy(nn.Module):
    """A GRU cell that reads (state of the world, last action, its reward, end of episode) and scores the next actions."""

    def __init__(self, states: int = 1, actions: int = 5, hidden: int = 48) -> None:
        super().__init__()
        self.actions, self.hidden = actions, hidden
        self.cell = nn.GRUCell(states + 2 * actions + 1, hidden)
        self.actor, self.critic = nn.Linear(hidden, actions), nn.Linear(hidden, 1)

    def begin(self, rows: int) -> tuple[Tensor, Tensor]:
        """What a new task starts from: memory [R, hidden] and a report of nothing [R, 2 * actions + 1], all zeros."""
        zeros = self.actor.weight.new_zeros
        return zeros(rows, self.hidden), zeros(rows, 2 * self.actions + 1)

    def forward(self, memory: Tensor, last: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step. memory [R, hidden], last [R, 2 * actions + 1], states [R, S] -> memory, logits [R, actions], value [R]."""
        memory = self.cell(torch.cat([states, last], dim=-1), memory)
        return memory, self.actor(memory), self.critic(memory).squeeze(-1)

    def happened(self, action: Tensor, reward: Tensor, ended: Tensor) -> Tensor:
        """Reports int64 action [R], reward [R] and bool ended [R] to the next step -> [R, 2 * actions + 1].

        The reward stands at the place of its action, because whoever reads the two apart must first learn to multiply.
        """
        which = F.one_hot(action, self.actions).to(reward)
        return torch.cat([which, which * reward[:, None], ended[:, None].to(reward)], dim=-1)

    def play(self, world: Bandits, generator: Generator, episodes: int = 1) -> dict[str, Tensor]:
        """Acts once in every task for some episodes, without a reset between them -> each [T, episodes * horizon].

        "action", "reward"; "log_prob" of the action, "entropy" and "value" carry gradients.
        """
        (memory, last), seen = self.begin(len(world)), []
        for _ in range(episodes):
            state = world.start(1, generator)
            for t in range(world.horizon):
                memory, logits, value = self(memory, last, state[:, 0])
                log_p = logits.log_softmax(-1)
                action = torch.multinomial(log_p.detach().exp(), 1, generator=generator)
                state, reward = world.step(state, action, generator)
                ended = torch.full_like(action[:, 0], t == world.horizon - 1, dtype=torch.bool)
                last = self.happened(action[:, 0], reward[:, 0], ended)
                chosen, entropy = log_p.gather(1, action)[:, 0], -(log_p.exp() * log_p).sum(-1)
                seen.append((action[:, 0], reward[:, 0], chosen, entropy, value))
        names = ("action", "reward", "log_prob", "entropy", "value")
        return {name: torch.stack(part, dim=1) for name, part in zip(names, zip(*seen, strict=True), strict=True)}


def advantages(rewards: Tensor, values: Tensor, discount: float, trace: float) -> Tensor:
    """Generalised advantage estimates: discounted sums of one-step surprises (Schulman et al. 2016, equation 16). [R, H]."""
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    return returns_to_go(rewards + discount * after - values, discount * trace)


def actor_critic_loss(
    played: dict[str, Tensor], rewards: Tensor, discount: float = 0.99, trace: float = 0.9, entropy: float = 0.01
) -> Tensor:
    """Actor, critic and a bonus for entropy (Mnih et al. 2016, section 4). rewards [R, H]: what is to be collected -> scalar.

    Training may reward with minus the regret, which only the maker of the world knows: the best policy stays the best.
    """
    values = played["value"]
    advantage = advantages(rewards, values.detach(), discount, trace)
    unit = (
        advantage.std() + 1e-6
    )  # rewards may have any size: without a unit the critic's gradient would drown the actor's
    critic = ((advantage + values.detach() - values) / unit).square().mean()
    advantage = (advantage - advantage.mean()) / unit
    return -(played["log_prob"] * advantage).mean() + 0.5 * critic - entropy * played["entropy"].mean()


@torch.no_grad()
def thompson(world: Bandits, generator: Generator) -> Tensor:
    """Thompson sampling with a Beta(1, 1) prior: draws every lever's chance from its posterior, pulls the largest -> [T, H]."""
    won, lost = torch.ones_like(world.chances), torch.ones_like(world.chances)
    state, actions = world.start(1, generator), []
    for _ in range(world.horizon):
        gamma = torch._standard_gamma(torch.stack([won, lost]), generator=generator)
        action = (gamma[0] / gamma.sum(0)).argmax(1, keepdim=True)
        state, reward = world.step(state, action, generator)
        won.scatter_add_(1, action, reward)
        lost.scatter_add_(1, action, 1 - reward)
        actions.append(action)
    return torch.cat(actions, dim=1)
