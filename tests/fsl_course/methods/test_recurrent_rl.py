"""A recurrent policy: its memory outlives episodes and not tasks, its estimates are those of plain loops, and it learns."""

import numpy as np
import pytest
import torch

from fsl_course.data.worlds import Bandits
from fsl_course.methods.recurrent_rl import RecurrentPolicy, actor_critic_loss, advantages, thompson


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def replayed(policy: RecurrentPolicy, played: dict[str, torch.Tensor], horizon: int, forget: bool = False):
    """Log-probabilities of the actions, by an own loop that feeds the same history. forget: memory set back every episode."""
    rows, steps = played["action"].shape
    memory, last = torch.zeros(rows, policy.hidden), torch.zeros(rows, 2 * policy.actions + 1)
    found = []
    for t in range(steps):
        if forget and t % horizon == 0:
            memory = torch.zeros_like(memory)
        memory = policy.cell(torch.cat([torch.ones(rows, 1), last], 1), memory)
        action, reward = played["action"][:, t], played["reward"][:, t]
        found.append(policy.actor(memory).log_softmax(1)[torch.arange(rows), action])
        last = torch.zeros_like(last)
        last[torch.arange(rows), action] = 1
        last[torch.arange(rows), policy.actions + action] = reward
        last[:, -1] = float((t + 1) % horizon == 0)
    return torch.stack(found, 1)


def test_memory_survives_episodes_and_starts_anew_with_a_task():
    torch.manual_seed(0)
    policy, world = RecurrentPolicy(actions=3, hidden=8), Bandits.draw(6, seeded(), arms=3, horizon=4)
    played = policy.play(world, seeded(1), episodes=3)
    assert played["action"].shape == (6, 12)
    assert torch.allclose(replayed(policy, played, 4), played["log_prob"], atol=1e-6)
    forgetful = replayed(policy, played, 4, forget=True)
    assert torch.allclose(forgetful[:, :4], played["log_prob"][:, :4], atol=1e-6)
    assert not torch.allclose(forgetful[:, 4:], played["log_prob"][:, 4:], atol=1e-3)
    again = policy.play(world, seeded(1), episodes=3)  # a second task begins with an empty memory
    assert torch.equal(again["action"], played["action"])


def test_tasks_do_not_mix():
    torch.manual_seed(0)
    policy = RecurrentPolicy(actions=3, hidden=8)
    played = policy.play(Bandits.draw(5, seeded(), arms=3, horizon=7), seeded(1))
    order = torch.tensor([3, 0, 4, 1, 2])
    turned = replayed(policy, {name: part[order] for name, part in played.items()}, 7)
    assert torch.allclose(turned, played["log_prob"][order], atol=1e-6)


def test_advantages_are_those_of_a_loop_and_of_the_plain_return():
    rewards, values = torch.randn(2, 3, 6, generator=seeded(), dtype=torch.float64)
    found = advantages(rewards, values, 0.9, 0.7)
    for row in range(3):
        total = 0.0
        for t in reversed(range(6)):
            after = values[row, t + 1] if t < 5 else 0.0
            total = rewards[row, t] + 0.9 * after - values[row, t] + 0.9 * 0.7 * total
            assert torch.allclose(found[row, t], total)
    # with trace 1 all values but the first one cancel
    to_go = torch.stack([sum(0.9**k * rewards[:, t + k] for k in range(6 - t)) for t in range(6)], 1)
    assert torch.allclose(advantages(rewards, values, 0.9, 1.0), to_go - values)


def test_the_loss_passes_gradcheck_in_log_probabilities_and_entropy():
    rewards, values, log_prob, entropy = torch.randn(4, 3, 5, generator=seeded(), dtype=torch.float64)

    def loss(log_prob, entropy):
        return actor_critic_loss({"value": values, "log_prob": log_prob, "entropy": entropy}, rewards)

    assert torch.autograd.gradcheck(loss, (log_prob.requires_grad_(), entropy.requires_grad_()))


def test_the_critic_is_pulled_towards_what_followed():
    rewards = torch.ones(2, 4, dtype=torch.float64) + torch.arange(2.0)[:, None]
    values = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    played = {"value": values, "log_prob": torch.zeros(2, 4), "entropy": torch.zeros(2, 4)}
    (gradient,) = torch.autograd.grad(actor_critic_loss(played, rewards), values)
    assert bool((gradient < 0).all())  # all rewards are positive, so every value must rise


def numpy_thompson(chances: np.ndarray, horizon: int, seed: int) -> float:
    """Mean regret of an independent Thompson sampler, one bandit at a time."""
    draw, total = np.random.default_rng(seed), 0.0
    for row in chances:
        won, lost = np.ones_like(row), np.ones_like(row)
        for _ in range(horizon):
            lever = int(draw.beta(won, lost).argmax())
            paid = draw.random() < row[lever]
            won[lever] += paid
            lost[lever] += not paid
            total += row.max() - row[lever]
    return total / len(chances)


def test_thompson_sampling_is_that_of_numpy():
    world = Bandits.draw(1000, seeded(), arms=3, horizon=25)
    found = world.regret(thompson(world, seeded(1))).sum(1)
    expected = numpy_thompson(world.chances.double().numpy(), 25, 0)
    assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / 1000**0.5 * 2**0.5)
    assert float(found.mean()) < 0.7 * float(world.regret(torch.zeros(1000, 25, dtype=torch.int64)).sum(1).mean())


def test_a_recurrent_policy_learns_to_repeat_what_paid():
    """Two levers, one of which always pays and the other never: after the first pull everything is known."""
    torch.manual_seed(0)
    policy, generator = RecurrentPolicy(actions=2, hidden=16), seeded()
    optimiser = torch.optim.Adam(policy.parameters(), 1e-2)
    chances = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(64, 1)
    world = Bandits(chances, horizon=6)
    for _ in range(80):
        played = policy.play(world, generator)
        optimiser.zero_grad()
        actor_critic_loss(played, -world.regret(played["action"]), 0.9, 0.3).backward()
        optimiser.step()
    regret = world.regret(policy.play(world, generator)["action"]).sum(1).mean()
    assert float(regret) < 0.8  # at random 3, and 0.5 is the least that is possible
