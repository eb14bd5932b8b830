"""Policy gradients of policy gradients: against closed forms, whole enumerations, and a point that learns to find its goal."""

import numpy as np
import pytest
import torch

from fsl_course.data.worlds import Navigation
from fsl_course.methods.maml_rl import (
    MAMLRL,
    GaussianPolicy,
    Trajectories,
    act,
    dice,
    expand,
    log_probability,
    magic_box,
    returns_to_go,
    surrogate,
    walk,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def meta_gradient(objective, theta: float, goal: float, spread: float, lr: float) -> float:
    """d/dtheta of the return after one inner step, where a ~ N(theta, spread^2) is rewarded by -(a - goal)^2.

    The mean over actions is a Gauss-Hermite sum of 5 points, which is exact for polynomials of this degree. Each point is a
    task of its own with one trajectory of one step, so that the objective gives the value of each.
    """
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(5))
    weights = weights / weights.sum()

    def value(mean):
        actions = (mean + spread * nodes).detach()
        log_probs = torch.distributions.Normal(mean, spread).log_prob(actions)
        return (weights * objective(log_probs[:, None, None], -((actions - goal) ** 2)[:, None, None], 1.0)).sum()

    start = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    (inner,) = torch.autograd.grad(value(start), start, create_graph=True)
    (outer,) = torch.autograd.grad(value(start + lr * inner), start)
    return float(outer)


@pytest.mark.parametrize(("theta", "goal", "spread", "lr"), [(0.3, 1.0, 0.5, 0.1), (-2.0, 0.5, 1.3, 0.2)])
def test_dice_has_the_meta_gradient_of_the_closed_form_and_the_plain_surrogate_has_not(theta, goal, spread, lr):
    """J(theta) = -(theta - g)^2 - s^2 sends theta to theta' with theta' - g = (1 - 2 lr)(theta - g)."""
    exact = -2 * (1 - 2 * lr) ** 2 * (theta - goal)
    assert meta_gradient(dice, theta, goal, spread, lr) == pytest.approx(exact, abs=1e-8)
    # without the box the second derivative is -J / s^2 in place of -2
    wrong = -2 * (1 - 2 * lr) * (theta - goal) * (1 + lr * ((theta - goal) ** 2 + spread**2) / spread**2)
    assert meta_gradient(surrogate, theta, goal, spread, lr) == pytest.approx(wrong, abs=1e-8)
    assert abs(wrong - exact) > 0.3 * abs(exact)


def test_the_first_derivative_of_the_surrogate_is_right():
    log_probs = torch.randn(2, 5, 4, generator=seeded(), dtype=torch.float64, requires_grad=True)
    rewards = torch.randn(2, 5, 4, generator=seeded(1), dtype=torch.float64)
    with_box, without = (torch.autograd.grad(f(log_probs, rewards, 0.9).sum(), log_probs)[0] for f in (dice, surrogate))
    assert torch.allclose(with_box, without, atol=1e-12)


def test_dice_is_the_mean_discounted_return():
    rewards = torch.randn(3, 4, 6, generator=seeded(), dtype=torch.float64)
    value = dice(torch.randn(3, 4, 6, generator=seeded(1), dtype=torch.float64), rewards, 0.9)
    assert torch.allclose(value, returns_to_go(rewards, 0.9)[..., 0].mean(1))


def test_the_baseline_biases_neither_first_nor_second_derivatives():
    """Two trajectories of two coin tosses: all 16 outcomes are enumerated, so that the mean is exact."""
    outcomes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4).view(16, 2, 2)
    pays = torch.tensor(
        [[1.0, -0.5], [3.0, 2.0]], dtype=torch.float64
    )  # of (toss, next toss): what the second step pays
    rewards = torch.stack([2 * outcomes[..., 0], pays[outcomes[..., 0].long(), outcomes[..., 1].long()]], dim=-1)
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def log_probs(x):
        return torch.distributions.Bernoulli(logits=x).log_prob(outcomes)

    chance = log_probs(theta).sum((1, 2)).exp()
    exact = (chance * returns_to_go(rewards, 1.0)[..., 0].mean(1)).sum()
    found = (chance.detach() * dice(log_probs(theta), rewards, 1.0)).sum()
    for _ in range(2):
        exact, found = (torch.autograd.grad(v, theta, create_graph=True)[0] for v in (exact, found))
        assert float((exact - found).detach().abs()) < 1e-12


def test_returns_to_go_by_hand():
    found = returns_to_go(torch.tensor([[1.0, 2.0, 4.0]]), 0.5)
    assert found.tolist() == [[3.0, 4.0, 4.0]]


def test_the_box_is_one_and_its_derivatives_are_those_of_a_ratio():
    x = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    box = magic_box(2 * x)
    assert box.tolist() == [1.0, 1.0]
    (first,) = torch.autograd.grad(box.sum(), x, create_graph=True)
    assert first.tolist() == [2.0, 2.0]
    assert torch.autograd.grad(first.sum(), x)[0].tolist() == [4.0, 4.0]


def test_stacked_policies_act_as_each_alone_and_log_probabilities_are_those_of_torch():
    torch.manual_seed(0)
    policy = GaussianPolicy(hidden=8).double()
    params = {
        n: p + 0.1 * torch.randn(3, *p.shape, generator=seeded(), dtype=p.dtype) for n, p in policy.named_parameters()
    }
    states = torch.randn(3, 4, 5, 2, generator=seeded(1), dtype=torch.float64)
    actions = 0.1 * torch.randn(3, 4, 5, 2, generator=seeded(2), dtype=torch.float64)
    found = log_probability(policy, params, Trajectories(states, actions, actions[..., 0]))
    for task in range(3):
        alone = {n: p[task] for n, p in params.items()}
        mean, spread = torch.func.functional_call(policy, alone, (states[task],))
        assert torch.allclose(act(policy, params, states)[0][task], mean)
        expected = torch.distributions.MultivariateNormal(mean, torch.diag(spread**2)).log_prob(actions[task])
        assert torch.allclose(found[task], expected)


def test_the_meta_gradient_is_that_of_central_differences_on_fixed_trajectories():
    """Boxes are held at the parameters where the trajectories were walked, as DiCE means it: ratios of probabilities."""
    torch.manual_seed(0)
    policy, world = GaussianPolicy(hidden=3).double(), Navigation(torch.tensor([[0.3, -0.2]], dtype=torch.float64), 3)
    learner = MAMLRL(policy, lr=0.05, trajectories=4)
    start = expand(policy, 1)
    walked = walk(world, policy, start, 4, seeded())
    before = log_probability(policy, start, walked).detach()

    def ratio_objective(params):
        box = (log_probability(policy, params, walked) - before).cumsum(-1).exp()
        return (box * walked.rewards).sum(-1).mean(-1).sum()

    def boxed(params):
        box = magic_box(log_probability(policy, params, walked).cumsum(-1))
        return (box * walked.rewards).sum(-1).mean(-1).sum()

    def hessian(f, name):
        return torch.autograd.functional.hessian(lambda p: f({**start, name: p}), start[name].detach())

    for name in start:
        assert torch.allclose(hessian(ratio_objective, name), hessian(boxed, name), atol=1e-10)
    assert learner.meta_loss(world, seeded()).requires_grad


def test_walking_is_seeded_and_tasks_do_not_mix():
    torch.manual_seed(0)
    policy, world = GaussianPolicy(hidden=8), Navigation.draw(3, seeded())
    walked = walk(world, policy, expand(policy, 3), 5, seeded(1))
    assert walked.states.shape == (3, 5, 20, 2)
    assert walked.rewards.shape == (3, 5, 20)
    assert torch.equal(walked.actions, walk(world, policy, expand(policy, 3), 5, seeded(1)).actions)
    learner, order = MAMLRL(policy), torch.tensor([2, 0, 1])
    params = {name: p.detach().requires_grad_() for name, p in expand(policy, 3).items()}
    stepped = learner.step(params, walked)
    turned = learner.step(params, Trajectories(*(part[order] for part in walked)))
    assert all(torch.allclose(stepped[name][order], turned[name], atol=1e-6) for name in params)


def test_first_order_drops_a_part_of_the_gradient():
    found = []
    for first_order in (False, True):
        torch.manual_seed(0)
        learner = MAMLRL(GaussianPolicy(hidden=8), trajectories=10, first_order=first_order)
        learner.meta_loss(Navigation.draw(4, seeded()), seeded(1)).backward()
        found.append(torch.cat([p.grad.flatten() for p in learner.parameters()]))
    assert not torch.allclose(*found, rtol=0.01)


def test_a_point_learns_to_go_where_one_step_sends_it():
    torch.manual_seed(0)
    learner, generator = MAMLRL(GaussianPolicy(hidden=16), trajectories=10), seeded()
    optimiser = torch.optim.Adam(learner.parameters(), 1e-2)
    for _ in range(50):
        optimiser.zero_grad()
        learner.meta_loss(Navigation.draw(15, generator, horizon=10), generator).backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimiser.step()
    world = Navigation.draw(100, seeded(7), horizon=10)
    before, after = (
        walk(world, learner.policy, params, 20, generator).rewards.sum(-1).mean()
        for params in learner.adapt(world, 1, generator)
    )
    still = -world.horizon * world.goals.norm(dim=1).mean()  # the best that a policy can do that knows no goal
    assert before < still + 0.3
    assert after > still + 0.4
