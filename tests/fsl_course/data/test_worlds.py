"""Worlds to act in: their steps by hand, their draws, the arm's closed forms, and Gymnasium's own checker."""

import builtins

import pytest
import torch
from gymnasium.utils.env_checker import check_env

from fsl_course.data.worlds import Arm, Bandits, Navigation, angles_for, as_gymnasium, lengths_from


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_point_moves_by_at_most_a_tenth_and_is_rewarded_by_its_distance():
    world = Navigation(torch.tensor([[0.3, 0.4], [0.0, -0.1]], dtype=torch.float64))
    state = world.start(1, seeded())
    assert torch.equal(state, torch.zeros(2, 1, 2, dtype=torch.float64))
    state, reward = world.step(state, torch.tensor([[[0.5, 0.05]], [[0.0, -7.0]]], dtype=torch.float64), seeded())
    assert torch.allclose(state, torch.tensor([[[0.1, 0.05]], [[0.0, -0.1]]], dtype=torch.float64))
    assert torch.allclose(reward, torch.tensor([[-((0.2**2 + 0.35**2) ** 0.5)], [0.0]], dtype=torch.float64))


def test_draws_are_even_and_seeded():
    goals = Navigation.draw(4000, seeded()).goals
    assert float(goals.abs().max()) <= 0.5
    assert goals.mean(0).abs().max() < 0.02
    assert float(goals.var()) == pytest.approx(1 / 12, rel=0.05)
    assert torch.equal(Bandits.draw(3, seeded(1)).chances, Bandits.draw(3, seeded(1)).chances)
    lengths = Arm.draw(1000, seeded()).lengths
    assert float(lengths.min()) >= 0.3
    assert float(lengths.max()) <= 1


def test_levers_pay_by_their_chances_and_regret_counts_from_the_best():
    world = Bandits(torch.tensor([[0.2, 0.9], [1.0, 0.0]]))
    state = world.start(5000, seeded())
    _, reward = world.step(state, torch.tensor([[1], [0]]).expand(2, 5000), seeded())
    assert float(reward[0].mean()) == pytest.approx(0.9, abs=0.02)
    assert torch.equal(reward[1], torch.ones(5000))
    assert set(reward.unique().tolist()) == {0.0, 1.0}
    regret = world.regret(torch.tensor([[0, 1, 0], [1, 0, 0]]))
    assert torch.allclose(regret, torch.tensor([[0.7, 0.0, 0.7], [1.0, 0.0, 0.0]]))
    assert world.regret(torch.zeros(2, 4, 3, dtype=torch.int64)).shape == (2, 4, 3)


def test_a_stretched_arm_reaches_as_far_as_it_is_long():
    world = Arm(torch.tensor([[0.5, 0.25]], dtype=torch.float64))
    half = torch.pi / 2
    tips = world.tip(torch.tensor([[[0.0, 0.0], [half, 0.0], [0.0, half]]], dtype=torch.float64))
    assert torch.allclose(tips, torch.tensor([[[0.75, 0.0], [0.0, 0.75], [0.5, 0.25]]], dtype=torch.float64))


def test_lengths_follow_from_one_demonstration_and_angles_from_lengths():
    world = Arm(Arm.draw(50, seeded()).lengths.double())
    angles = world.postures(1, seeded())
    found = lengths_from(angles, world.tip(angles))
    assert torch.allclose(found, world.lengths, atol=1e-10)
    targets = world.tip(world.postures(20, seeded(1)))
    assert torch.allclose(world.tip(angles_for(found, targets)), targets, atol=1e-8)


def test_the_right_turn_brings_the_tip_to_its_target():
    world = Arm(Arm.draw(8, seeded()).lengths.double())
    state = world.start(6, seeded())
    for _ in range(world.horizon):
        turn = angles_for(world.lengths, state[..., 2:]) - state[..., :2]
        turn = torch.remainder(turn + torch.pi, 2 * torch.pi) - torch.pi  # the shorter way round
        state, reward = world.step(state, turn, seeded())
    assert float(reward.abs().max()) < 1e-8


@pytest.mark.parametrize("draw", [Navigation.draw, Bandits.draw, Arm.draw])
def test_gymnasium_accepts_every_world(draw):
    world = as_gymnasium(draw)
    check_env(world, skip_render_check=True)
    first, _ = world.reset(seed=3)
    ends = [world.step(world.action_space.sample())[3] for _ in range(world.world.horizon)]
    assert ends == [False] * (world.world.horizon - 1) + [True]
    assert first.tolist() == world.reset(seed=3)[0].tolist()


def test_the_wrapped_world_rewards_as_the_stack_does():
    world = as_gymnasium(Navigation.draw)
    world.reset(seed=0)
    goal = world.world.goals[0]
    place, reward, *_ = world.step([0.1, -0.1])
    assert place.tolist() == pytest.approx([0.1, -0.1])
    assert reward == pytest.approx(-float((goal - torch.tensor([0.1, -0.1])).norm()), abs=1e-6)


def test_a_missing_gymnasium_is_named_with_the_cure(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "gymnasium":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"fsl-course\[acting\]"):
        as_gymnasium(Navigation.draw)
