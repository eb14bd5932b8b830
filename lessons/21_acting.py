# %% [markdown]
# # 21 Acting: learn to act from a few tries
#
# Until now somebody showed you the answers. Here nobody does: you act, and all that comes back is a reward. You learn a policy that finds a hidden goal after one gradient step, and another one that learns while it plays, without any step.
#
# Prerequisites: lessons 07, 08 and 13. Planned time: 60 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** What does the outer loop of MAML minimise?
#
# <details><summary>Answer</summary>
#
# The loss of the queries *after* the inner loop, as a function of the parameters *before* it (lesson 08).
#
# </details>
#
# **2.** Where does an in-context learner keep what it learns about a task?
#
# <details><summary>Answer</summary>
#
# In its activations. Its weights stay as they are (lesson 13).
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **compute** what an action can still change (exercise 21.1),
# 2. **write** an objective whose first and second derivatives are right (exercise 21.2),
# 3. **explore** by drawing from a posterior (exercise 21.3),
# 4. **expose** an outer loop that looks at the wrong trajectories (exercise 21.4).

# %% [markdown]
# ## A puzzle: find the goal
#
# A point starts at the origin of the plane. A goal lies somewhere in the square from −0.5 to 0.5, and you cannot see it. After each move you hear how far away it still is. You may walk 20 times, 20 moves each, and then you have to walk well. Three ways:
#
# - **A**: stay near the origin, the best place if you know nothing,
# - **B**: start from a trained network and take one gradient step,
# - **C**: walk at random, remember the best place, and go there. Nothing is trained.
#
# Write down how you expect them to rank.

# %%
import inspect
import json

import torch
from torch import Generator, Tensor, nn

from fsl_classroom import check, progress
from fsl_course.data.assets import asset, verified
from fsl_course.data.worlds import Arm, Bandits, Navigation, angles_for, lengths_from
from fsl_course.evaluation import mean_and_ci95
from fsl_course.figures import QUERY, SUPPORT, new, show, slot_style
from fsl_course.methods import maml_rl as package
from fsl_course.methods.maml_rl import MAMLRL, GaussianPolicy, walk
from fsl_course.methods.recurrent_rl import RecurrentPolicy, actor_critic_loss
from fsl_course.weights.checkpoints import load_file

torch.manual_seed(0)


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def line(name: str, values: Tensor) -> None:
    """Prints mean and 95 % interval of one number for each task."""
    mean, half = mean_and_ci95(values.double())
    print(f"{name:42s} {mean:7.2f} ± {half:.2f}")


# %% [markdown]
# ## The idea in one picture
#
# A [policy](../lessons/GLOSSARY.md#policy "策略") is a rule that says, for each state, how likely each action is. What happens from start to end of one try is a [trajectory](../lessons/GLOSSARY.md#trajectory "轨迹"): states, actions, rewards. The sum of its rewards is its [return](../lessons/GLOSSARY.md#return "回报").
#
# MAML for acting has the two loops of lesson 08. Trajectories play the part of data. The support is what the policy lived through *before* the step. The query is what the *adapted* policy lives through.

# %% tags=["draws"]
figure, axes = new(8, 2.4)
words = ["start\nθ", "trajectories\nof θ", "adapted\nθ'"]
words += ["trajectories\nof θ'", "outer\nreturn"]
for i, word in enumerate(words):
    box = {"boxstyle": "round,pad=0.5", "fc": "white", "lw": 2}
    box["ec"] = SUPPORT if i == 1 else QUERY if i == 3 else "black"
    axes.text(2 * i, 0, word, bbox=box, ha="center", va="center")
    if i:
        arrow = {"arrowstyle": "->", "lw": 1.5}
        axes.annotate("", (2 * i - 0.72, 0), (2 * i - 1.25, 0), arrowprops=arrow)
back = {"arrowstyle": "->", "connectionstyle": "arc3,rad=0.25", "linestyle": "--"}
axes.annotate("", (0.2, 0.55), (8, 0.55), arrowprops=back)
axes.text(4, 1.65, "outer gradient, through the step", ha="center")
axes.set(xlim=(-1, 9), ylim=(-0.8, 2))
axes.axis("off")
show(
    figure,
    "Five boxes in a row: start, its trajectories, adapted parameters, their "
    "trajectories, outer return. A dashed arrow leads from there back to the start.",
)

# %% [markdown]
# Here are three moves in two worlds at once, by hand. Whatever you ask for, a coordinate changes by at most 0.1 in one move, and the reward is minus the distance to the goal.

# %% tags=["nbval-check-output"]
world = Navigation(torch.tensor([[0.3, 0.4], [0.0, -0.1]]), horizon=3)
state, rewards = world.start(1, seeded(0)), []
for move in ([0.1, 0.1], [0.1, 0.1], [5.0, 0.1]):
    state, reward = world.step(state, torch.tensor(move).expand(2, 1, 2), seeded(0))
    rewards.append(reward)
rewards = torch.stack(rewards, dim=2)  # [tasks, trajectories, steps]
print("end:", [round(v, 2) for v in state[0, 0].tolist()])
for task in range(2):
    print(f"task {task}: rewards", [round(v, 2) for v in rewards[task, 0].tolist()])

# %% [markdown]
# The same moves bring the first point nearer to its goal and the second one away from its own. The states are the same, the rewards differ: only they tell the tasks apart.
#
# ### Exercise 21.1  Return-to-go  (difficulty 1/5, 5 min)
#
# An action cannot change the past. So credit for the action of step $t$ is the [return-to-go](../lessons/GLOSSARY.md#return "回报"), the discounted sum of the rewards from $t$ on: $R_t = r_t + \gamma r_{t+1} + \gamma^2 r_{t+2} + \dots$ With rewards 1, 2, 4 and $\gamma = 0.5$ it is 3, 4, 4.
#
# | `rewards` | `discount` | returned |
# |---|---|---|
# | `[B, H]`: B trajectories, H steps | $\gamma$, a float above 0 | `[B, H]`, same dtype |


# %%
def returns_to_go(rewards: Tensor, discount: float) -> Tensor:
    """Discounted sum of the rewards from each step on. [B, H] -> [B, H]."""
    # BEGIN SOLUTION
    found = rewards.clone()
    for t in reversed(range(rewards.shape[1] - 1)):
        found[:, t] = rewards[:, t] + discount * found[:, t + 1]
    return found
    # END SOLUTION


returns_to_go = check("21.1", returns_to_go)

# %% [markdown]
# ## Why it should work: a gradient without a teacher
#
# Let $p_\theta(\tau)$ be the chance of a trajectory and $R(\tau)$ its return. You want to climb $J(\theta) = \mathbb{E}[R]$. The derivative of a probability is the probability times the derivative of its logarithm, so
#
# $$\nabla J(\theta) = \mathbb{E}\big[\nabla \log p_\theta(\tau) \, R(\tau)\big] \tag{1}$$
#
# This is the [policy gradient](../lessons/GLOSSARY.md#policy-gradient "策略梯度"). It asks for no derivative of the world: act, and make what went well likelier. Once more, by the product rule:
#
# $$\nabla^2 J(\theta) = \mathbb{E}\big[\big(\nabla^2 \log p_\theta + \nabla \log p_\theta \nabla \log p_\theta^\top\big) R\big] \tag{2}$$

# %% [markdown]
# MAML needs both, because its outer gradient differentiates the inner step. The usual code makes a surrogate, the mean of $\log p_\theta(\tau) R(\tau)$, with $R$ as a fixed number. Its first derivative is (1). Its second derivative has only the first part of (2).
#
# | symbol | variable | shape |
# |---|---|---|
# | $\log p_\theta(a_t)$ | `log_probs` | `[B, H]`, of stacked tasks `[T, B, H]` |
# | $r_t$, $R_t$ | `rewards`, `returns_to_go(...)` | as above |
# | $\gamma$, $\alpha$ | `discount`, `lr` | floats |
# | $\theta'$ | `params` after `step` | dict of `[T, ...]` |

# %% [markdown]
# ## By hand: one action
#
# The smallest world has one step. The action is $a = \theta + s\,\epsilon$ with $\epsilon \sim N(0, 1)$, the reward $-(a - g)^2$. On average $J(\theta) = -(\theta - g)^2 - s^2$, so $J' = -2(\theta - g)$ and $J'' = -2$.
#
# What does the surrogate say? $\log p$ of a Gaussian has the second derivative $-1/s^2$ everywhere. Times the mean reward this is $-J/s^2$. At $\theta = 0$, $g = 1$, $s = 0.5$ that is $1.25 / 0.25 = 5$: not only the size but the *sign* is wrong.

# %% [markdown]
# ### Exercise 21.2  An objective whose derivatives are all right  (difficulty 3/5, 8 min)
#
# [DiCE](../lessons/GLOSSARY.md#dice "DiCE 估计量") (Foerster et al. 2018) mends this by a *magic box*: $\square(x) = \exp(x - \bar x)$, where $\bar x$ is $x$ cut off from the graph, `x.detach()`. Its value is 1, and it differentiates like a ratio of probabilities.
#
# Multiply each reward $r_t$ by $\gamma^t$ (with $t$ from 0) and by the box of the sum of the log-probabilities of all actions up to and including $t$. Sum over the steps and average over the trajectories.
#
# | `log_probs`, `rewards` | `discount` | returned |
# |---|---|---|
# | `[B, H]` each | $\gamma$ | scalar tensor: the mean return, to be climbed |


# %%
def dice_objective(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    """Mean discounted return, differentiable as often as you like. -> scalar."""
    # BEGIN SOLUTION
    so_far = log_probs.cumsum(1)
    box = (so_far - so_far.detach()).exp()
    weight = discount ** torch.arange(rewards.shape[1], dtype=rewards.dtype)
    return (box * weight * rewards).sum(1).mean()
    # END SOLUTION


dice_objective = check("21.2", dice_objective)

# %% [markdown]
# Now test it on the one action. Nothing is drawn at random: five nodes with weights (a Gauss-Hermite rule) give the mean over a Gaussian exactly for such polynomials. Each node is a trajectory of one step.


# %%
def derivatives(objective, theta: float, goal: float, s: float) -> list[float]:
    """First and second derivative of the objective's mean over the actions."""
    nodes = torch.tensor([-2.856970, -1.355626, 0.0, 1.355626, 2.856970])
    weights = torch.tensor([0.011257, 0.222076, 0.533333, 0.222076, 0.011257])
    x = torch.tensor(theta, requires_grad=True)
    actions = (x + s * nodes).detach()
    log_p = torch.distributions.Normal(x, s).log_prob(actions)
    rewards = -((actions - goal) ** 2)
    parts = [objective(p.view(1, 1), r.view(1, 1), 1.0) for p, r in zip(log_p, rewards)]
    value = (weights * torch.stack(parts)).sum()
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    return [first.item(), torch.autograd.grad(first, x)[0].item()]


def surrogate(log_probs: Tensor, rewards: Tensor, discount: float) -> Tensor:
    """The usual one: log-probability times return-to-go, as fixed numbers."""
    return (log_probs * returns_to_go(rewards, discount)).sum(1).mean()


for name, objective in (("magic box", dice_objective), ("surrogate", surrogate)):
    first, second = derivatives(objective, 0.0, 1.0, 0.5)
    print(f"{name}: first derivative {first:.2f}, second {second:.2f}")
a, b = derivatives(dice_objective, 0.0, 1.0, 0.5)
assert abs(a - 2) < 1e-3
assert abs(b + 2) < 1e-3

# %% [markdown]
# Both climb in the right direction. Only the box knows that the hill bends down: $-2$, where the surrogate says $+5$. Subtract a baseline equal to the mean reward, and the surrogate says 0 instead, here the same as first-order MAML. So its second derivative is an accident of where rewards have their zero.

# %% [markdown]
# ## Meet the package
#
# The package stacks T tasks, each with parameters of its own, and walks all trajectories of all tasks at once. Its objective subtracts a [baseline](../lessons/GLOSSARY.md#return-baseline "回报基线"), which lowers the noise: the mean return of the *other* trajectories (exercise 21.5 ★). With a single trajectory there are no others, and both objectives agree.

# %%
print(inspect.getsource(package.MAMLRL.meta_loss))
log_probs, some = torch.randn(2, 1, 7, generator=seeded(1), dtype=torch.float64)
ours = dice_objective(log_probs, some, 0.9)
assert torch.allclose(package.dice(log_probs[None], some[None], 0.9)[0], ours)
print("one trajectory: the package and you agree,", round(float(ours), 4))

# %% [markdown]
# Five actions: copy the start for each task, walk, step, walk *again*, score. It must obey a law: for one step and one Gaussian action its outer gradient is $-2(1 - 2\alpha)^2(\theta - g)$. The tests of the package check that to 1e-8, and the surrogate fails by more than 30 %.

# %% [markdown]
# ## Train for real: the plane
#
# Each step draws 20 goals and walks 20 trajectories before and 20 after an inner step with $\alpha = 0.1$. The policy is a tanh net with 4,484 numbers. Compare with standing still at the origin, whose mean return is about $-7.65$: by symmetry nothing that ignores the goal does better on average.


# %%
def train(steps: int, seed: int) -> MAMLRL:
    """A start for one inner step, trained on random goals; prints the return."""
    torch.manual_seed(seed)
    learner, generator = MAMLRL(GaussianPolicy()), seeded(seed)
    optimiser = torch.optim.Adam(learner.parameters(), 3e-3)
    for step in range(1, steps + 1):
        loss = learner.meta_loss(Navigation.draw(20, generator), generator)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimiser.step()
        if step % 15 == 0:
            print(f"step {step}: return after one inner step {-loss.item():.2f}")
    return learner


fresh = train(45, seed=0)

# %% [markdown]
# The return overtakes standing still within these 45 steps (one seed). The shipped weights took 200 such steps. From here on you use those, so that the numbers below do not hang on a short training. (The printed return is discounted by 0.99 per step; the ones below are not.)

# %%
shipped = MAMLRL(GaussianPolicy())
weights = verified("checkpoints/maml_rl-navigation.safetensors")
shipped.policy.load_state_dict(load_file(weights)[0])
generator = seeded(1000)
goals = Navigation.draw(200, generator)
stages = shipped.adapt(goals, 3, generator)  # parameters before, after 1, 2, 3 steps
walked = [walk(goals, shipped.policy, params, 20, generator) for params in stages]
maml = [part.rewards.sum(-1).mean(1) for part in walked]  # [200] each

# %% tags=["draws"]
diagonals = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])
corners = (goals.goals @ diagonals.T).argmax(0).tolist()  # four goals far apart
figure, axes = new(7.5, 3.4, columns=2)
for place, stage, title in ((0, 0, "before adaptation"), (1, 1, "after one step")):
    one = axes[place]
    for i, task in enumerate(corners):
        style = slot_style(i)
        goal = goals.goals[task]
        for b in range(5):
            path = walked[stage].states[task, b]
            one.plot(path[:, 0], path[:, 1], color=style["color"], lw=0.9, alpha=0.7)
        one.plot(goal[0], goal[1], color=style["color"], marker=style["marker"], ms=11)
    one.plot(0, 0, "k+", ms=10)
    one.set(title=title, xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), aspect="equal")
    one.set(xlabel="x (marks: goals, +: origin)", ylabel="y")
show(
    figure,
    "Paths of a point towards four goals, five paths each. Before adaptation the paths "
    "tangle around the origin; after one step each bundle runs towards its own goal "
    "and strolls there, somewhat short of the goal.",
)

# %% [markdown]
# Large marks are goals. Before the step all tasks share one policy, which strolls about the origin: that is how it finds out where rewards grow. After the step each bundle runs towards its own mark and strolls part-way. These four goals lie in the corners, and one step stops short of them. Nobody wrote "run, then stay": the start was trained so that one gradient changes the net in this way.

# %% [markdown]
# Move the goal, and take up to three steps. How do the walks change where the goal is near the origin?

# %%
from fsl_classroom.widgets import GoalWalk

GoalWalk()

# %% [markdown]
# ## Evaluate honestly
#
# Now the rows that may make the gain vanish. The third way of the puzzle uses the same budget, 20 random walks of 20 moves, and then goes to the best place it has seen. A fourth one walks a single time.


# %%
def go_to(places: Tensor) -> Tensor:
    """Returns of walking straight to a place [200, 2], and staying there -> [200]."""
    state, total = goals.start(1, seeded(0)), 0.0
    for _ in range(goals.horizon):
        state, reward = goals.step(state, places[:, None] - state, seeded(0))
        total = total + reward[:, 0]
    return total


def best_seen(walks: int, seed: int) -> Tensor:
    """The place with the highest reward on some random walks [200, 2]."""
    state, generator, seen = goals.start(walks, seeded(seed)), seeded(seed), []
    for _ in range(goals.horizon):
        move = 0.1 * torch.randn(state.shape, generator=generator)
        state, reward = goals.step(state, move, generator)
        seen.append(torch.cat([state, reward[..., None]], -1))
    places = torch.stack(seen, 2).flatten(1, 2)  # [200, walks * 20, 3]
    best = places[..., 2].argmax(1)
    return places[torch.arange(len(best)), best, :2]


# %%
calm = {**stages[1], "log_spread": stages[1]["log_spread"] - 20}  # no noise is left
quiet = walk(goals, shipped.policy, calm, 1, seeded(9)).rewards.sum(-1).mean(1)
rows = {
    "A: stand still": -goals.horizon * goals.goals.norm(dim=1),
    "the trained start, no step": maml[0],
    "B: one step": maml[1],
    "B, its last walks without noise": quiet,
    "two steps": maml[2],
    "three steps": maml[3],
    "C: 20 random walks, then the best place": go_to(best_seen(20, 0)),
    "1 random walk, then the best place": go_to(best_seen(1, 0)),
    "told the goal": go_to(goals.goals),
}
for name, values in rows.items():
    line(name, values)
print("\npaired differences on the same 200 goals")
line("B minus A", rows["B: one step"] - rows["A: stand still"])
one_walk = rows["1 random walk, then the best place"]
line("B minus C", rows["B: one step"] - rows["C: 20 random walks, then the best place"])
line("B minus 1 random walk", rows["B: one step"] - one_walk)
line("B without noise minus B", quiet - rows["B: one step"])

# %% [markdown]
# The puzzle: one step of gradient beats every policy that ignores the goal, far outside the interval. But C wins by about 2.2, with no training at all; being told the goal would bring another 0.9. The advantage of C may be knowledge: rewards belong to places, and it knows how to walk to a place. The network knew neither and learned both. B also adds noise to its moves to the end, and C does not: that accounts for 0.74 of the gap. Of the ways that use rewards, only a single random walk is worse than B. So the honest claim is "B learned to use rewards", not "B explores well". Its [exploration](../lessons/GLOSSARY.md#exploration "探索") is noise around a point.

# %% [markdown]
# Is it the second derivative that helps? Three trainings each with DiCE, without second derivatives, and with the plain surrogate (which subtracts the baseline, unlike yours above), from `python -m tools.results.compare_acting`:

# %%
story = json.loads(asset("acting_comparison.json").read_text(encoding="utf-8"))
found = {(r["label"], r["seed"]): r for r in story["rows"]}
kinds = {"dice": "DiCE", "first_order": "first order", "plain": "plain surrogate"}
returns = {k: torch.tensor([found[k, s]["returns"] for s in range(3)]) for k in kinds}
for kind, name in kinds.items():
    means = returns[kind].mean(2)  # [seed, step]
    for step in (1, 3):
        three = ", ".join(f"{v:.2f}" for v in means[:, step])
        print(f"{name:16s} after {step} step(s), three seeds: {three}")
for kind in ("first_order", "plain"):
    for step in (1, 3):
        gap = (returns["dice"] - returns[kind])[:, step]
        parts = [mean_and_ci95(one.double()) for one in gap]
        text = "; ".join(f"{m:+.2f} ± {h:.2f}" for m, h in parts)
        print(f"DiCE minus {kinds[kind]}, step {step}: {text}")

# %% [markdown]
# After the one step that all were trained for, first order lies ahead of DiCE in all three trainings, by about 0.3 and outside the interval. After three steps DiCE leads the plain surrogate in two of three, and first order in two of three. The plain surrogate, too, leads at one step in two of three. So a right second derivative did *not* make the one step better here.
#
# Why? Noise is the first suspect. The command drew 30 outer gradients at each start that DiCE trained, 20 goals and 20 trajectories each:

# %%
print("spread of single outer gradients, and length of their mean, three starts")
for kind, name in kinds.items():
    parts = [found[f"gradient, {kind}", s] for s in range(3)]
    text = "; ".join(f"{g['spread']:.1f} ({g['mean']:.1f})" for g in parts)
    print(f"{name:16s} {text}")

# %% [markdown]
# DiCE's gradients lie about 31 from their mean, those of first order about 1.3. So a single step of DiCE is nearly all noise; at the end of training, even a mean of 30 drowns in it: with what noise gives taken off, its length is 0.0. Whether that decides, trainings with more trajectories would show; we have not run them. What you may claim: the box is right in expectation, and here the cheap version did better at the step that it was trained for.

# %% [markdown]
# ## Learning without a step: RL²
#
# A [bandit](../lessons/GLOSSARY.md#bandit "多臂老虎机") has K levers. Each pays 1 with a chance of its own, which nobody tells you. Whoever always pulls what has paid so far may miss the best lever; whoever tries everything wastes pulls. What you lose against always pulling the best lever is the [regret](../lessons/GLOSSARY.md#regret "遗憾").
#
# RL² (Duan et al. 2016) is lesson 13 for acting: a recurrent net sees its last action and reward, and its memory does the learning. The memory lives through all episodes of a task. Only a new task resets it. (Here a task is one episode.) The weights stay.

# %% [markdown]
# ### Exercise 21.3  A step of Thompson sampling  (difficulty 2/5, 6 min)
#
# First a rule from 1933, the yardstick. [Thompson sampling](../lessons/GLOSSARY.md#thompson-sampling "汤普森采样") starts from an even prior over each chance, Beta(1, 1). After some wins and losses the posterior is Beta(wins + 1, losses + 1). At each pull it *draws* a chance for each lever from its posterior and pulls the lever with the largest draw.
#
# `beta(a, b)` draws from Beta distributions, one number for each entry of the tensors `a` and `b`. Call it; bring no random numbers of your own.
#
# | `wins`, `losses` | `beta` | returned |
# |---|---|---|
# | float `[T, K]`: T bandits, K levers | function of two tensors | int64 `[T]`: the lever of each bandit |


# %%
def thompson_choice(wins: Tensor, losses: Tensor, beta) -> Tensor:
    """The lever with the largest draw from its posterior. -> int64 [T]."""
    # BEGIN SOLUTION
    return beta(wins + 1, losses + 1).argmax(1)
    # END SOLUTION


thompson_choice = check("21.3", thompson_choice)

# %% [markdown]
# The next cell plays 2,000 bandits of 5 levers for 20 pulls. Four rules meet Thompson: any lever; UCB1 (Auer et al. 2002), which adds a bonus for levers seldom pulled; *greedy*, the lever with the highest posterior mean; and *bold*, the highest posterior mean plus one standard deviation.


# %%
def play(choose, world: Bandits, seed: int) -> Tensor:
    """Regret of a rule choose(wins, losses, generator) on every bandit [T]."""
    generator, state = seeded(seed), world.start(1, seeded(seed))
    wins, losses, total = (torch.zeros_like(world.chances) for _ in range(3))
    for _ in range(world.horizon):
        action = choose(wins, losses, generator)[:, None]
        state, reward = world.step(state, action, generator)
        wins = wins.scatter_add(1, action, reward)
        losses = losses.scatter_add(1, action, 1 - reward)
        total = total + world.regret(action)
    return total[:, 0]


def thompson(wins: Tensor, losses: Tensor, generator: Generator) -> Tensor:
    def beta(a: Tensor, b: Tensor) -> Tensor:
        gammas = torch._standard_gamma(torch.stack([a, b]), generator=generator)
        return gammas[0] / gammas.sum(0)

    return thompson_choice(wins, losses, beta)


# %%
def bold(wins: Tensor, losses: Tensor, generator: Generator) -> Tensor:
    a, b = wins + 1, losses + 1
    luck = 1e-3 * torch.rand(wins.shape, generator=generator)  # breaks ties
    return (a / (a + b) + (a * b / (a + b + 1)).sqrt() / (a + b) + luck).argmax(1)


def anything(wins: Tensor, losses: Tensor, generator: Generator) -> Tensor:
    return torch.rand(wins.shape, generator=generator).argmax(1)


def greedy(wins: Tensor, losses: Tensor, generator: Generator) -> Tensor:
    luck = 1e-3 * torch.rand(wins.shape, generator=generator)  # breaks ties
    return ((wins + 1) / (wins + losses + 2) + luck).argmax(1)


def ucb1(wins: Tensor, losses: Tensor, generator: Generator) -> Tensor:
    pulls = wins + losses
    known = pulls.sum(1, keepdim=True).clamp_min(1).log()
    bonus = (2 * known / pulls.clamp_min(1)).sqrt()
    return torch.where(pulls > 0, wins / pulls.clamp_min(1) + bonus, 9.0).argmax(1)


levers = Bandits.draw(2000, seeded(1000), horizon=20)
rules = {"anything": anything, "UCB1": ucb1, "greedy": greedy, "bold": bold}
rules["Thompson"] = thompson
regrets = {name: play(rule, levers, 1) for name, rule in rules.items()}
for name, values in regrets.items():
    line(name, values)

# %% [markdown]
# UCB1 and Thompson explore more than 20 pulls can pay back. Greedy does better than both. It explores, too, without meaning to: an untried lever has a posterior mean of one half, and a lever that lost falls below that. (If pulls never end and later rewards are discounted, the best rule is known: pull the lever with the largest *Gittins index*, Gittins 1979.)

# %% [markdown]
# ## Train for real: levers
#
# The loss is that of an [actor-critic](../lessons/GLOSSARY.md#actor-critic "演员-评论家"): the policy gradient of (1), with a baseline that the net predicts itself. In training the reward is minus the regret, which only the maker of the bandits knows; while it plays, the net sees nothing but its own wins.


# %%
def train_levers(steps: int, seed: int) -> RecurrentPolicy:
    """An RL2 policy after a short training on bandits; prints its regret."""
    torch.manual_seed(seed)
    policy, generator = RecurrentPolicy(), seeded(seed)
    optimiser = torch.optim.Adam(policy.parameters(), 5e-3)
    for step in range(1, steps + 1):
        world = Bandits.draw(256, generator, horizon=20)
        played = policy.play(world, generator)
        goal, bonus = -world.regret(played["action"]), 0.1 * (1 - step / steps)
        loss = actor_critic_loss(played, goal, 0.9, 0.3, bonus)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
        if step % 30 == 0:
            print(f"step {step}: regret {-float(goal.sum(1).mean()):.2f}")
    return policy


young = train_levers(90, seed=0)

# %%
rl2 = RecurrentPolicy()
weights = verified("checkpoints/recurrent_rl-bandits.safetensors")
rl2.load_state_dict(load_file(weights)[0])


@torch.no_grad()
def regret_of(policy: RecurrentPolicy, world: Bandits, seed: int) -> Tensor:
    """Regret of a recurrent policy on every bandit [T]."""
    return world.regret(policy.play(world, seeded(seed))["action"]).sum(1)


regrets["RL2, 90 steps"] = regret_of(young, levers, 1)
regrets["RL2, shipped"] = regret_of(rl2, levers, 1)
for name in ("RL2, 90 steps", "RL2, shipped"):
    line(name, regrets[name])
print("\npaired differences on the same 2000 bandits")
for name in ("Thompson", "greedy", "bold"):
    line(f"RL2 minus {name}", regrets["RL2, shipped"] - regrets[name])
print("\nthree other trainings, 300 steps each, from the recorded table")
for seed in range(3):
    row = found["RL^2", seed]
    (own, a), (gap, b) = row["regret"], row["difference"]
    print(f"seed {seed}: {own:.2f} ± {a:.2f}, minus Thompson {gap:+.2f} ± {b:.2f}")

# %% [markdown]
# Ninety steps are only the beginning. The shipped policy, 800 steps, loses about 2.7 in 20 pulls, two thirds of what Thompson sampling loses. The interval of its difference to greedy contains 0, and bold is ahead by about 0.2. So a memory of 48 numbers has learned a rule as good as greedy from its regret; whether it explores on purpose, regret cannot tell.

# %% [markdown]
# The recorded trainings stop after 300 steps and look only about ten pulls ahead (their discount is 0.9). They end near Thompson, at 1.0 to 1.13 times its regret. The shipped weights add 500 far-sighted steps (discount 0.99, larger batches, other rates), with one seed; we have not separated the causes.

# %% [markdown]
# ## An arm from a few demonstrations
#
# An arm has two links of unknown lengths $\ell_1, \ell_2$. Somebody shows it postures: joint angles $q$ and where the tip was. With angles known, the tip is *linear* in the lengths:
#
# $$\text{tip} = \ell_1 \begin{pmatrix}\cos q_1 \\ \sin q_1\end{pmatrix} + \ell_2 \begin{pmatrix}\cos(q_1 + q_2) \\ \sin(q_1 + q_2)\end{pmatrix} \tag{3}$$
#
# So the few shots are a least squares problem with two unknowns, and one demonstration gives two equations. No gradient step, no meta-training: where you know the form of the world, write it down. To reach a target, turn (3) round with the lengths that you found.


# %%
arms = Arm.draw(500, seeded(3))
targets = arms.tip(arms.postures(20, seeded(4)))


def miss(lengths: Tensor) -> Tensor:
    """How far the tip ends from its targets, in lengths of the arm -> [500]."""
    gap = arms.tip(angles_for(lengths, targets)) - targets
    return gap.norm(dim=-1).mean(1) / arms.lengths.sum(1)


def guessed(shots: int, noise: float) -> Tensor:
    """Lengths from demonstrations whose tips are seen with some noise [500, 2]."""
    angles = arms.postures(shots, seeded(5))
    blur = noise * torch.randn(angles.shape, generator=seeded(6))
    return lengths_from(angles, arms.tip(angles) + blur)


print("mean distance to the target, in per cent of the arm's length")
line("mean lengths, no demonstration", 100 * miss(torch.full((500, 2), 0.65)))
for noise in (0.0, 0.05):
    for shots in (1, 5):
        missed = 100 * miss(guessed(shots, noise))
        line(f"{shots} demonstration(s), noise {noise}", missed)

# %% [markdown]
# Without noise one demonstration is exact. With noise of 0.05 the miss is about 6 per cent of the arm after one and about 2 per cent after five, against 18 for an arm of average lengths. The honest price: equation (3) was told, not learned.

# %% [markdown]
# And if nobody tells you (3)? A small net can turn a place into joint angles. The command above trained it as MAML does, with five inner steps on five demonstrations of an arm (imitation), and also as one net for all arms.

# %%
print("after 5 demonstrations, noise 0 / 0.05; three trainings, in per cent")
for label in ("MAML by imitation", "MAML before its steps", "one net for all"):
    three = [found[f"arm, {label}", seed] for seed in range(3)]
    text = ", ".join(f"{r['exact'][0]:.1f} / {r['noisy'][0]:.1f}" for r in three)
    print(f"{label:42s} {text}")

# %% [markdown]
# MAML by imitation misses by less than 6 per cent, with noise by little more: within a tenth of the arm's length. Its start, before the steps, misses by 19, and one net for all arms by 15. So here adaptation is learned, and the told equation is still better.

# %% [markdown]
# ## Explore
#
# Guess first, then run the cell.
#
# 1. What does RL² lose when its memory is wiped after 10 of 20 pulls?
# 2. It was trained on tasks of 20 pulls. How does it do over 100, beside greedy and Thompson?
# 3. How good is one inner step from 5 trajectories in place of 20?

# %%
half, long = (Bandits(levers.chances, horizon) for horizon in (10, 100))
line("20 pulls, memory wiped", regret_of(rl2, half, 3) + regret_of(rl2, half, 4))
line("100 pulls, RL2", regret_of(rl2, long, 2))
line("100 pulls, greedy", play(greedy, long, 2))
line("100 pulls, Thompson", play(thompson, long, 2))
few = MAMLRL(shipped.policy, trajectories=5)
after = few.adapt(goals, 1, seeded(7))[1]
again = walk(goals, few.policy, after, 20, seeded(8))
line("one step from 5 trajectories", again.rewards.sum(-1).mean(1))

# %% [markdown]
# <details><summary>Answers</summary>
#
# 1: the regret rises from about 2.7 to about 3.7, because everything has to be found out twice. It stays far below 6.8, the regret of pulling anything: ten pulls suffice to learn much.
# 2: it keeps up with Thompson, whose interval it overlaps, though it never saw more than 20 pulls. Greedy is a little ahead.
# 3: about $-4.7$ in place of $-3.65$. The gradient of five trajectories is noisier, and the step follows the noise. It still beats standing still.
#
# </details>
#
# ## Bug hunt
#
# The symptom: the outer return rises nicely, step after step. On new goals, though, the adapted policy walks no better than the start. The code trains as you did above, with the magic box, and nothing crashes. Look at it before you read on.


# %%
def outer(start, walk, step, score):
    """The outer loop's score of each task. walk(params), step(params, walked)."""
    walked = walk(start)
    adapted = step(start, walked)
    return score(adapted, walked)


# %% [markdown]
# ### Exercise 21.4  Bug hunt: whose trajectories?  (difficulty 3/5, 9 min)
#
# Write the test that rings. `outer(start, walk, step, score)` should return the score of the *adapted* parameters on the trajectories that the adapted parameters walk. Return `True` when it does anything else, for any task, and however small the fault; differences below 1e-5 are rounding.
#
# You hand in toys for `walk`, `step` and `score`, plain functions of tensors without randomness. Each treats every row (task) by itself, for any number of rows: a sound `outer` may take the tasks one by one. Let the steps be large, so that small faults show.
#
# | what | shape |
# |---|---|
# | `start` | parameters `[T, P]`, T and P at least 2 |
# | `walk(params)` | "trajectories" `[T, W]`, for a W that you choose |
# | `step(params, walked)`, `score(params, walked)` | `[T, P]`, `[T]` |
# | returned | bool |


# %%
def exposes_stale(outer, start: Tensor) -> bool:
    """True when outer does not score the adapted policy on its own trajectories."""

    # BEGIN SOLUTION
    def toy_walk(params: Tensor) -> Tensor:
        return 2 * params

    def toy_step(params: Tensor, walked: Tensor) -> Tensor:
        return params + 2 * walked + 1

    def toy_score(params: Tensor, walked: Tensor) -> Tensor:
        return (10 * params + walked).sum(1)

    adapted = toy_step(start, toy_walk(start))
    right = toy_score(adapted, toy_walk(adapted))
    found = outer(start, toy_walk, toy_step, toy_score)
    return not torch.allclose(found, right, rtol=1e-5, atol=1e-6)
    # END SOLUTION


exposes_stale = check("21.4", exposes_stale)
print("the code above is broken:", exposes_stale(outer, torch.randn(3, 2)))

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# The adapted policy is scored on the trajectories of the *start*: nobody walked again. The gradient favours old good actions, and where the adapted policy would go never enters.
#
# </details>
#
# Which stretch of the trajectories enters the outer loss is easily off by one: in Ray's RLlib, pull request 13835 (2021, "Pytorch MAML fix for more than two workers with discrete actions") corrects the index that picks the last inner step's observations. Here the cure is one more walk.


# %%
def cured(start, walk, step, score):
    adapted = step(start, walk(start))
    return score(adapted, walk(adapted))


assert exposes_stale(outer, torch.randn(3, 2))
assert not exposes_stale(cured, torch.randn(3, 2))
print("cured: the adapted policy is judged by what it does")

# %% [markdown]
# ## Quiz
#
# **1. Why does the plain surrogate mislead MAML in expectation, and not ordinary policy gradients?**
# (a) its first derivative is wrong, (b) only its second derivative is wrong, (c) it is noisier
#
# <details><summary>Answer</summary>
#
# (b). Ordinary policy gradients need one derivative. Against (a): the first derivative is (1). Against (c): noise is no error of the mean.
#
# </details>
#
# **2. What is the value of DiCE's objective?**
# (a) 1, (b) the mean return, (c) 0
#
# <details><summary>Answer</summary>
#
# (b). Each box is worth 1 (which is not the whole objective, against (a)) and multiplies a reward. (c) would hold for a sum that subtracts the mean return.
#
# </details>
#
# **3. An RL² policy begins the second episode of the same task. What happens to its memory?**
# (a) it is set to zero, (b) it stays, (c) its weights are trained
#
# <details><summary>Answer</summary>
#
# (b). Otherwise nothing learned in episode one would help. (a) belongs to a new task. (c) Weights rest after training.
#
# </details>

# %% [markdown]
# **4. Thompson sampling pulls a lever with 1 win and 1 loss more often than one with 50 and 50. Why?**
# (a) its mean is higher, (b) its draws spread more, (c) it prefers new levers by a bonus
#
# <details><summary>Answer</summary>
#
# (b). Both means are one half, against (a). Wide draws are sometimes very high. (c) describes UCB1.
#
# </details>
#
# **5. C beat B in the plane. What does C know that B had to learn?**
# (a) in which corner of the square goals lie, (b) that a place has its reward and can be walked to, (c) how much less later rewards count
#
# <details><summary>Answer</summary>
#
# (b). In a world where that does not hold, C is lost. (a) Nobody knows the goal. (c) The discount plays no part in C.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | data | trajectories: the support from the start, the query from the adapted policy |
# | derivatives | the magic box has all of them right; the surrogate only the first |
# | RL² | memory learns, weights rest; reset at a new task only |
# | vanishing rows | best place seen; Thompson and greedy; least squares for the arm, beside MAML by imitation |
# | exploration | in B it is noise around a point; RL² learns a rule as good as greedy |
# | looks back | the loops of [08](../notebooks/08_outer_loop.ipynb); in [10](../notebooks/10_cheaper_maml.ipynb) first order lost, here it led after one step; the memory of [13](../notebooks/13_in_context.ipynb) |
#
# Pitfalls: an outer loss on old trajectories; a baseline that contains its own trajectory; a claim of exploration where noise did the work. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Finn et al. (2017), *Model-Agnostic Meta-Learning*, algorithm 3 | the two loops, the plane |
# | Foerster et al. (2018), *DiCE*, equations 4, 5 and 8 | the magic box |
# | Duan et al. (2016), *RL²* | memory as learner |
# | Auer et al. (2002), *Finite-time Analysis of the Multiarmed Bandit Problem* | UCB1 |
# | Thompson (1933) | draws from a posterior |
# | Gittins (1979), *Bandit Processes and Dynamic Allocation Indices* | the best rule with discounted, endless pulls |
# | ray-project/ray, pull request 13835 | an index of trajectories |

# %% [markdown]
# ### Exercise 21.5 ★  A baseline that does not look at its own trajectory  (difficulty 2/5, 5 min)
#
# A baseline may be anything that does not depend on the action it judges. Return for each trajectory and step the mean return-to-go of the *other* trajectories at that step.
#
# | `to_go` | returned |
# |---|---|
# | `[B, H]`, B at least 2 | `[B, H]` |


# %%
def others_mean(to_go: Tensor) -> Tensor:
    """Mean of the other rows at each step. [B, H] -> [B, H]."""
    # BEGIN SOLUTION
    return (to_go.sum(0, keepdim=True) - to_go) / (len(to_go) - 1)
    # END SOLUTION


others_mean = check("21.5", others_mean)
to_go = package.returns_to_go(walked[0].rewards[0], 0.99)
apart = (to_go - others_mean(to_go)).var() / to_go.var()
print(f"variance that the baseline leaves: {apart:.2f} of what was there")
progress("21")
