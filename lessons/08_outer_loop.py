# %% [markdown]
# # 08 The outer loop: differentiate through learning
#
# You write MAML with its true second-order gradient, prove it five ways, and catch the mistakes that tutorials hand on.
#
# Prerequisites: lessons 00 to 07. Planned time: 75 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** `adapt` returns new parameters. What happened to those that went in?
#
# <details><summary>Answer</summary>
#
# Nothing: they are never written to. So the result is a *function* of them, and a function can be differentiated.
#
# </details>
#
# **2.** What does `track=False` leave out, and when is that right?
#
# <details><summary>Answer</summary>
#
# The graph of the inner loop. Right at test time: adapted parameters are wanted there, not their derivative.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **derive** the meta-gradient by hand, over one step and over several (exercises 08.1, 08.4),
# 2. **build** `meta_loss` from `adapt` (exercise 08.2),
# 3. **check** a gradient by central differences and expose wrong outer steps (exercises 08.3, 08.5),
# 4. **write** MAML with second-order gradients from memory (exercise 08.7).

# %% [markdown]
# ## A puzzle: which way should the start go?
#
# A model has one number, $\theta = 1$. The support pulls it to 3; the query wants 5. Three inner rates, one step each:
#
# | case | A | B | C |
# |---|---|---|---|
# | lands | half way, on 2 | exactly on 3 | too far, on 4 |
#
# You may move the *start* a little, to lower the query loss *after* the step. Up, down, or no matter? Write down three answers.

# %%
import copy
import inspect
import time
import weakref
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian

from fsl_classroom import check, progress
from fsl_course import Episode, SinusoidSampler, compare, evaluate, fit
from fsl_course.figures import CHANCE, PROTOTYPE_MARKER, SLOTS, new, show, slot_style
from fsl_course.methods import maml as package
from fsl_course.methods.maml import MAML, adapt
from fsl_course.nets import mlp
from fsl_course.weights.checkpoints import card

torch.manual_seed(0)
Params = dict[str, Tensor]

# %% [markdown]
# ## The idea in one picture
#
# ![From one start θ each of three tasks takes two inner steps on its support and ends in a query loss; the outer loop sends the gradient of these losses back through the steps and moves θ](../docs/diagrams/loops.svg)
#
# The smallest model of sine curves has two parameters: $y = u \sin x + v \cos x$, a sine of any amplitude and phase. So a whole [inner loop](../lessons/GLOSSARY.md#inner-loop "内循环") is a path in the plane.
# The [outer loop](../lessons/GLOSSARY.md#outer-loop "外循环") moves the start of *all* paths.


# %%
class SineCosine(nn.Module):
    """y = u sin x + v cos x. x [B, 1] -> [B, 1], in float64."""

    def __init__(self, u: float = 0.5, v: float = 0.5) -> None:
        super().__init__()
        self.uv = nn.Parameter(torch.tensor([u, v], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return features(x) @ self.uv[:, None]


# %%
def features(x: Tensor) -> Tensor:
    """[B, 1] -> sine and cosine [B, 2]."""
    return torch.cat([x.sin(), x.cos()], dim=1)


sines = SinusoidSampler(5, 10, seed=22, dtype=torch.float64)
amplitude, phase = sines.curves(0, 3)
# a sin(x - p), written out
optima = torch.stack([amplitude * phase.cos(), -amplitude * phase.sin()], dim=1)

# %%
net, tasks = SineCosine(), sines.batch(0, 3)
start = dict(net.named_parameters())
paths, pulls = [], []
for task in tasks:
    # params -> mean squared error on the support
    support = package.support_loss(net, task)
    path = torch.stack(
        [adapt(support, start, lr=0.25, steps=j, track=False)["uv"] for j in range(16)]
    )
    outer = partial(
        package.meta_loss, net, episode=task, lr=0.25, steps=1, loss_fn=F.mse_loss
    )
    paths.append(path)
    pulls.append(-grad(outer)(start)["uv"].detach())  # you write this gradient below
mean = torch.stack(pulls).mean(0)

# %%
figure, axis = new(7.5, 4.2)
for slot, (path, pull, goal) in enumerate(zip(paths, pulls, optima)):
    axis.plot(
        *path.T,
        markersize=4,
        linewidth=1,
        label=f"task {slot}, 15 inner steps",
        **slot_style(slot),
    )
    axis.scatter(
        *goal, s=110, marker="X", color=SLOTS[slot], edgecolor="black", zorder=3
    )
    axis.annotate(
        "",
        start["uv"].tolist() + 0.4 * pull.numpy(),
        start["uv"].tolist(),
        arrowprops={
            "arrowstyle": "->",
            "color": SLOTS[slot],
            "linestyle": "--",
            "linewidth": 2,
        },
    )
axis.annotate(
    "",
    start["uv"].tolist() + 0.4 * mean.numpy(),
    start["uv"].tolist(),
    arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 2.5},
)
axis.scatter(
    *start["uv"].tolist(),
    s=200,
    marker=PROTOTYPE_MARKER,
    color="black",
    zorder=4,
    label="start (u, v)",
)
axis.scatter(
    [], [], s=80, marker="X", color="white", edgecolor="black", label="a task's optimum"
)
axis.plot([], [], color="black", linewidth=2.5, label="minus the meta-gradient")
axis.plot([], [], color=CHANCE, linestyle="--", label="each task's share of it")
axis.set(xlabel="u", ylabel="v")
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
show(
    figure,
    "The plane of u and v. From one start, a black star, three dotted paths lead "
    "towards three optima, marked by crosses. Dashed arrows show where each task "
    "wants the start to go; the thick black arrow, minus the meta-gradient, is their "
    "mean.",
)

# %% [markdown]
# ## The maths
#
# Support and query of a task give two losses of the parameters. One inner step, and the *meta-loss*, which the outer loop minimises over many tasks:
#
# $$\theta' = \theta - \alpha\, \nabla \mathcal{L}_\mathcal{S}(\theta), \qquad \min_\theta\; \mathcal{L}_\mathcal{Q}(\theta')$$
#
# The chain rule gives the [meta-gradient](../lessons/GLOSSARY.md#meta-gradient "元梯度"):
#
# $$\frac{d\, \mathcal{L}_\mathcal{Q}(\theta')}{d\theta} = \Big(\frac{\partial \theta'}{\partial \theta}\Big)^{\!\top} \nabla \mathcal{L}_\mathcal{Q}(\theta') = (I - \alpha H)^\top\, \nabla \mathcal{L}_\mathcal{Q}(\theta')$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $\theta$, $\theta'$ | `params`, `adapted` | dict of tensors, $P$ numbers in all |
# | $\mathcal{L}_\mathcal{S}$, $\mathcal{L}_\mathcal{Q}$ | `loss_support`, `loss_query` | params to scalar |
# | $\nabla \mathcal{L}$ | `grad(loss)(params)` | like `params` |
# | $H$ | `hessian(loss_support)(theta)` | `[P, P]`, at $\theta$ |
# | $\alpha$ | `lr` | one number |
#
# $H$, the [Hessian](../lessons/GLOSSARY.md#hessian "黑塞矩阵"), holds the second derivatives of the support loss: *second order*.
# *First-order MAML* leaves $\alpha H$ out, a [first-order approximation](../lessons/GLOSSARY.md#first-order-approximation "一阶近似").

# %% [markdown]
# ## By hand
#
# Two parabolas, $\mathcal{L}_\mathcal{S} = \frac{a}{2}(\theta - s)^2$ and $\mathcal{L}_\mathcal{Q} = \frac{b}{2}(\theta - q)^2$. Case A: $\theta = 1$, $\alpha = 0.25$, $a = b = 2$, $s = 3$, $q = 5$.
#
# | step | formula | number |
# |---|---|---|
# | inner gradient | $a(\theta - s)$ | −4 |
# | adapted | $\theta' = \theta - \alpha\, a(\theta - s)$ | 2 |
# | query gradient | $b(\theta' - q)$ | −6 |
# | how $\theta'$ follows $\theta$ | $1 - \alpha a$ | 0.5 |
# | meta-gradient | product of the last two | −3 |
#
# ### Exercise 08.1  The meta-gradient of one parameter  (difficulty 1/5, 5 min)
#
# Return the meta-gradient for any six numbers, without autograd. Below the check: the three cases; dashed, the first-order slope.


# %%
def one_parameter(
    theta: float, lr: float, a: float, s: float, b: float, q: float
) -> float:
    """Slope of b/2 (theta' - q)^2 in theta,
    where theta' is one step of rate lr down a/2 (theta - s)^2.
    """
    # BEGIN SOLUTION
    adapted = theta - lr * a * (theta - s)
    follows = 1 - lr * a  # d theta' / d theta
    return follows * b * (adapted - q)
    # END SOLUTION


one_parameter = check("08.1", one_parameter)

# %% tags=["nbval-check-output"]
places = torch.linspace(-1, 5, 121)
figure, axes = new(8, 2.8, columns=3, sharey=True)
for axis, name, rate in zip(axes, "ABC", (0.25, 0.5, 0.75)):
    lands, at_1 = places - rate * 2 * (places - 3), 1 - rate * 2 * (1 - 3)
    true, first = one_parameter(1.0, rate, 2.0, 3.0, 2.0, 5.0), 2 * (at_1 - 5)
    here = (at_1 - 5) ** 2
    axis.plot(
        places, (lands - 5) ** 2, color=SLOTS[0], label="query loss after the step"
    )
    axis.plot(
        [0, 2],
        [here - first, here + first],
        color=SLOTS[1],
        linestyle="--",
        label="first-order slope",
    )
    axis.scatter([1], [here], color="black", zorder=3)
    axis.set(title=f"{name}: lands on {at_1:.0f}", xlabel="start", ylim=(-1, 20))
    print(
        f"{name}: step lands on {at_1:.0f}, meta-gradient {true + 0:+.1f}, first-order "
        f"{first:+.1f}"
    )
axes[2].legend(fontsize=8, loc="upper left")
show(
    figure,
    "Query loss after the step against the start, for three inner rates. A: it falls "
    "at the start 1. B: it is flat everywhere. C: it rises. The dashed first-order "
    "slope falls in all three.",
)

# %% [markdown]
# <details><summary>The puzzle, answered</summary>
#
# A: up. B: *no matter*: every start lands on 3. C: **down**, for the step jumps over the support's optimum, and a lower start lands higher.
# The first-order gradient says *up* three times. When $\alpha a$ is small it errs little. How much in a net? You will measure it.
#
# </details>
#
# ## A quadratic task
#
# With `features` $\Phi$ the model is $\Phi\theta$, and the formula needs no autograd:
#
# $$H = \tfrac{2}{K}\, \Phi_\mathcal{S}^\top \Phi_\mathcal{S}, \qquad \nabla \mathcal{L}_\mathcal{Q}(\theta') = \tfrac{2}{Q}\, \Phi_\mathcal{Q}^\top (\Phi_\mathcal{Q}\, \theta' - y_\mathcal{Q})$$

# %% tags=["nbval-check-output"]
task, lr = tasks[0], 0.25
theta = start["uv"].detach()
phi_s, phi_q = features(task.support_x), features(task.query_x)  # [5, 2] and [10, 2]
H = 2 / len(phi_s) * phi_s.T @ phi_s
slope = 2 / len(phi_s) * phi_s.T @ (phi_s @ theta - task.support_y[:, 0])
adapted = theta - lr * slope
query_slope = 2 / len(phi_q) * phi_q.T @ (phi_q @ adapted - task.query_y[:, 0])
by_hand = (torch.eye(2) - lr * H).T @ query_slope
print(
    "I - lr H     ",
    [[round(x, 4) for x in row] for row in (torch.eye(2) - lr * H).tolist()],
)
print("meta-gradient", [round(x, 6) for x in by_hand.tolist()])

# %% [markdown]
# ### Exercise 08.2  meta_loss  (difficulty 2/5, 8 min)
#
# Now for *any* model. Return the [mean squared error](../lessons/GLOSSARY.md#mean-squared-error "均方误差") on the [query](../lessons/GLOSSARY.md#query-set "查询集") after `steps` inner steps on the [support](../lessons/GLOSSARY.md#support-set "支持集"), starting from `params`.
#
# | you have | |
# |---|---|
# | `episode.support_x`, `support_y` | `[K, 1]` each |
# | `episode.query_x`, `query_y` | `[Q, 1]` each |
# | `adapt(loss, params, lr=..., steps=...)` | `loss(params)` to scalar, a mean; new params |
# | `functional_call(model, params, (x,))` | `model(x)` with `params` in place of its own weights |


# %%
def meta_loss(
    model: nn.Module, params: Params, episode: Episode, lr: float, steps: int
) -> Tensor:
    """Query loss after the inner loop on the support,
    a scalar, differentiable in params.
    """

    # BEGIN SOLUTION
    def support_loss(theta: Params) -> Tensor:
        return F.mse_loss(
            functional_call(model, theta, (episode.support_x,)), episode.support_y
        )

    fast = adapt(support_loss, params, lr=lr, steps=steps)
    return F.mse_loss(functional_call(model, fast, (episode.query_x,)), episode.query_y)
    # END SOLUTION


meta_loss = check("08.2", meta_loss)


# %%
def error(net: nn.Module, params: Params, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of the net with these parameters
    in place of its own, a scalar.
    """
    return F.mse_loss(functional_call(net, params, (x,)), y)


def losses_of(net: nn.Module, task: Episode) -> tuple[Callable, Callable]:
    """Support and query loss of a task, as functions of parameters."""
    rows = (task.support_x, task.support_y), (task.query_x, task.query_y)
    return tuple(partial(error, net, x=x, y=y) for x, y in rows)


loss_support, loss_query = losses_of(net, task)
before, after = loss_query(start).item(), meta_loss(net, start, task, 0.25, 1).item()
print(f"query loss before the step {before:.3f}, after it {after:.3f}")

# %% [markdown]
# ### Exercise 08.3  Central differences  (difficulty 2/5, 8 min)
#
# [Central differences](../lessons/GLOSSARY.md#central-differences "中心差分") are a witness that knows nothing of autograd. For every single number $\theta_i$ ($e_i$ moves it alone):
#
# $$\frac{\mathcal{L}(\theta + \varepsilon\, e_i) - \mathcal{L}(\theta - \varepsilon\, e_i)}{2\, \varepsilon}$$
#
# Leave `params` as it is, and work in float64: in float32 rounding drowns the tiny differences.
#
# | | |
# |---|---|
# | `params` | dict of tensors of any shape |
# | `loss(params)` | scalar |
# | returned | dict of the same names and shapes |


# %%
def central_differences(
    loss: Callable[[Params], Tensor], params: Params, eps: float
) -> Params:
    """Slopes of loss in every number of params, measured by calling it.
    Returns a dict like params.
    """
    # BEGIN SOLUTION
    found = {name: torch.zeros_like(value) for name, value in params.items()}
    for name, value in params.items():
        for i in range(value.numel()):
            move = eps * F.one_hot(torch.tensor(i), value.numel()).to(value).view(
                value.shape
            )
            rise = loss({**params, name: value + move}) - loss(
                {**params, name: value - move}
            )
            found[name].view(-1)[i] = rise.detach() / (2 * eps)
    return found
    # END SOLUTION


central_differences = check("08.3", central_differences)

# %% [markdown]
# ## One number, five ways
#
# In float64. The second way never builds $H$: a [Hessian-vector product](../lessons/GLOSSARY.md#hessian-vector-product "黑塞向量积") costs a few gradients, however large $P$ is. The last row is *expected* to disagree.

# %%
params = {"uv": theta}
leaf = {"uv": theta.clone().requires_grad_()}
# keeps how it was made
inner_slope = torch.autograd.grad(loss_support(leaf), leaf["uv"], create_graph=True)[0]
stepped = {"uv": leaf["uv"] - lr * inner_slope}
Hv = torch.autograd.functional.hvp(
    lambda uv: loss_support({"uv": uv}), theta, query_slope
)[1]
ways = {
    "by hand, (I - lr H) g": by_hand,
    "Hessian-vector product": query_slope - lr * Hv,
    "autograd, create_graph=True": torch.autograd.grad(loss_query(stepped), leaf["uv"])[
        0
    ],
    "torch.func.grad of meta_loss": grad(lambda p: meta_loss(net, p, task, lr, 1))(
        params
    )["uv"],
    "central differences": central_differences(
        lambda p: meta_loss(net, p, task, lr, 1), params, 1e-5
    )["uv"],
    "first order: no create_graph": grad(loss_query)({"uv": stepped["uv"].detach()})[
        "uv"
    ],
}
print(f"{'':30s}{'d/du':>14s}{'d/dv':>14s}   largest difference from the first row")
for name, found in ways.items():
    gap = float((found - by_hand).abs().max())
    print(f"{name:30s}{found[0]:14.9f}{found[1]:14.9f}   {gap:.0e}")
gaps = [float((found - by_hand).abs().max()) for found in ways.values()]
assert max(gaps[:4]) < 1e-12
assert gaps[4] < 1e-8 < 1e-3 < gaps[5]

# %% [markdown]
# One law, then: *an implementation must agree with central differences of the true meta-loss*. A gradient that merely exists proves nothing.
#
# ## How wrong is first order?
#
# It leaves out $-\alpha H \nabla \mathcal{L}_\mathcal{Q}(\theta')$. Predict: how does its error grow with the rate, and with the steps? (On logarithmic axes, error $\propto \alpha$ is a line of slope 1.)

# %%
torch.manual_seed(3)
small = mlp((1, 16, 1)).double()
weights = {name: p.detach() for name, p in small.named_parameters()}
curve = SinusoidSampler(10, 10, seed=2, dtype=torch.float64)[0]


def first_order_error(lr: float, steps: int) -> float:
    """Length of the difference of both meta-gradients over
    the length of the true one.
    """
    loss = partial(
        package.meta_loss, small, episode=curve, lr=lr, steps=steps, loss_fn=F.mse_loss
    )
    both = [
        grad(partial(loss, first_order=first))(weights).values()
        for first in (False, True)
    ]
    found = [torch.cat([slope.flatten() for slope in slopes]) for slopes in both]
    return float((found[0] - found[1]).norm() / found[0].norm())


# %%
rates, counts = torch.logspace(-5, -1.5, 8).tolist(), list(range(11))
by_rate = [first_order_error(a, 1) for a in rates]
by_steps = [first_order_error(0.01, j) for j in counts]
logs = torch.tensor([rates[:5], by_rate[:5]], dtype=torch.float64).log10()
slope = float(
    ((logs[0] - logs[0].mean()) * (logs[1] - logs[1].mean())).sum()
    / (logs[0] - logs[0].mean()).square().sum()
)
print(f"slope of the line, over the five smallest rates: {slope:.3f}")
print(
    "error after 0, 1, 5, 10 steps of rate 0.01:",
    ", ".join(f"{by_steps[j]:.0%}" for j in (0, 1, 5, 10)),
)

# %%
figure, axes = new(8, 2.9, columns=2)
axes[0].loglog(rates, by_rate, **slot_style(0))
axes[1].plot(counts, by_steps, **slot_style(1))
axes[0].set(title="one step", xlabel="inner rate", ylabel="relative error")
axes[1].set(title="inner rate 0.01", xlabel="inner steps", ylim=(0, None))
show(
    figure,
    "Relative error of the first-order meta-gradient. Left, against the inner rate on "
    f"logarithmic axes: a line of slope {slope:.2f}. Right, against the steps at rate "
    f"0.01: from 0 to {by_steps[-1]:.0%} after ten.",
)

# %% [markdown]
# First order errs in proportion to the rate. At a tiny rate it passes for right.
#
# ## Several inner steps
#
# Each step brings a factor. With $J$ steps, $\theta_0 = \theta$ and $H_j$ the Hessian at $\theta_j$:
#
# $$\frac{d\, \mathcal{L}_\mathcal{Q}(\theta_J)}{d\theta} = (I - \alpha H_0)(I - \alpha H_1) \cdots (I - \alpha H_{J-1})\, \nabla \mathcal{L}_\mathcal{Q}(\theta_J)$$
#
# The gradient travels back: the factor of the *last* step acts first. Each $H$ is symmetric: no transpose.
#
# | symbol | variable | shape |
# |---|---|---|
# | $J$ | `steps` | int |
# | $\theta_j$, $H_j$ | `theta`, `hessians[j]` | `[P]`, `[P, P]` |
#
# ### Exercise 08.4  Through several steps  (difficulty 3/5, 10 min)
#
# Write that product: step forwards, keep each Hessian; carry the query gradient back. With `first_order=True` apply no factor.
#
# | | |
# |---|---|
# | `loss_support`, `loss_query` | functions of `theta` `[P]`, to scalar |
# | `grad(loss)(theta)`, `hessian(loss)(theta)` | `[P]`, `[P, P]` |
# | returned | `[P]` |


# %%
def product_gradient(
    loss_support, loss_query, theta: Tensor, lr: float, steps: int, first_order: bool
) -> Tensor:
    """Meta-gradient after several steps as a product of I - lr H. theta [P] -> [P]."""
    # BEGIN SOLUTION
    hessians = []
    for _ in range(steps):
        # at the place where this step starts
        hessians.append(hessian(loss_support)(theta))
        theta = theta - lr * grad(loss_support)(theta)
    back = grad(loss_query)(theta)
    for matrix in [] if first_order else hessians[::-1]:
        back = back - lr * matrix @ back
    return back
    # END SOLUTION


product_gradient = check("08.4", product_gradient)


# %%
def wave(v: Tensor, x: Tensor) -> Tensor:
    """A sine that learns amplitude, frequency and phase:
    no quadratic any more. v [3].
    """
    return v[0] * (v[1] * x + v[2]).sin()


# %%
support, query = (
    lambda v: F.mse_loss(wave(v, curve.support_x), curve.support_y),
    lambda v: F.mse_loss(wave(v, curve.query_x), curve.query_y),
)
v = torch.tensor([1.0, 1.2, 0.3], dtype=torch.float64)
true = grad(
    lambda p: query(adapt(lambda q: support(q["v"]), p, lr=0.05, steps=4)["v"])
)({"v": v})["v"]
for name, first_order in (("product of factors", False), ("first order", True)):
    gap = float(
        (product_gradient(support, query, v, 0.05, 4, first_order) - true).abs().max()
    )
    print(f"{name:20s} largest difference from autograd {gap:.0e}")

# %% [markdown]
# ## Explore: what the factors do
#
# In a direction of curvature $h$, $J$ steps multiply the gradient by $(1 - \alpha h)^J$ (left). Right: gradients of length 1, carried back through a 2-D quadratic. Predict, then change `lr`. Below, move a start between two tasks and compare its two slopes.
#
# | | |
# |---|---|
# | 1 | For which $\alpha h$ does the start stop mattering after one step? |
# | 2 | When does the sign flip with every step? |
# | 3 | When does the meta-gradient blow up? |
#
# <details><summary>Answers</summary>
#
# 1: $\alpha h = 1$, the factor is 0: case B of the puzzle. 2: $\alpha h > 1$: the step jumps over the optimum; below 2 it still comes nearer.
# 3: $\alpha h > 2$: the inner loop itself diverges, and its derivative with it. On a hilltop, $h < 0$, the factor is above 1 too. Flat directions, $h$ near 0, keep the factor 1: there first order is right.
#
# </details>

# %%
from fsl_classroom.widgets import OuterLoopMicroscope

lr = 1.0
curvatures = torch.tensor([0.4, 2.2])
turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
H = turn @ curvatures.diag() @ turn.T  # flat along (0.8, 0.6), steep along (-0.6, 0.8)
angle = torch.linspace(0, 6.2832, 100)
circle = torch.stack([angle.cos(), angle.sin()])  # [2, 100]
figure, axes = new(8, 3.6, columns=2)
for slot, h in enumerate((0.1, 0.6, 1.5, 2.1)):
    axes[0].plot(
        range(9),
        [(1 - lr * h) ** j for j in range(9)],
        label=f"curvature {h}",
        **slot_style(slot),
    )
for slot, steps in enumerate((0, 1, 2, 4)):
    factor = torch.linalg.matrix_power(torch.eye(2) - lr * H, steps)
    axes[1].plot(
        *(factor @ circle), label=f"{steps} steps", markevery=25, **slot_style(slot)
    )
axes[0].set(title="factor in one direction", xlabel="inner steps", ylim=(-2.4, 2.6))
axes[1].set(title="a circle of gradients", aspect="equal")
for axis, place in zip(axes, ("upper left", "upper right")):
    axis.legend(fontsize=7, loc=place, ncols=2 if axis is axes[0] else 1)
told = ", ".join(
    f"{1 - lr * h:+.1f} for curvature {h:.1f}" for h in curvatures.tolist()
)
print("factors of one step on the right:", told)
show(
    figure,
    f"Inner rate {lr}. Left: powers of the factor for four curvatures against the "
    "steps. Right: a circle of gradients becomes an ellipse after 1, 2 and 4 steps; "
    f"factors of one step {told}.",
)
OuterLoopMicroscope()

# %% [markdown]
# ## What the graph costs
#
# To differentiate a step, autograd keeps tensors. `saved_tensors_hooks` hands you each. Predict how they grow with the steps, second and first order.


# %%
class Kept:
    """One tensor that a graph holds on to."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def inner_loop(net: nn.Module, task: Episode, count: int, create_graph: bool) -> Tensor:
    """Query loss after so many steps of rate 0.01, by torch.autograd."""
    fast = dict(net.named_parameters())
    for _ in range(count):
        loss = error(net, fast, task.support_x, task.support_y)
        slopes = torch.autograd.grad(
            loss, list(fast.values()), create_graph=create_graph
        )
        fast = {name: w - 0.01 * g for (name, w), g in zip(fast.items(), slopes)}
    return error(net, fast, task.query_x, task.query_y)


# %%
def kilobytes(net: nn.Module, task: Episode, steps: int, create_graph: bool) -> float:
    """What the graph of the meta-loss keeps, every stretch of memory counted once."""
    alive = weakref.WeakSet()

    def pack(tensor: Tensor) -> Kept:
        kept = Kept(tensor.detach())
        alive.add(kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        # as long as it lives, so does its graph
        loss = inner_loop(net, task, steps, create_graph)
    memory = {
        k.tensor.untyped_storage().data_ptr(): k.tensor.untyped_storage().nbytes()
        for k in alive
    }
    return sum(memory.values()) / 1024 if loss.requires_grad else 0.0


# %%
torch.manual_seed(0)
regressor, task10 = mlp(), SinusoidSampler(10, 10)[0]
figure, axis = new(6.5, 2.8)
told = []
for slot, (name, second) in enumerate((("second order", True), ("first order", False))):
    used = [kilobytes(regressor, task10, steps, second) for steps in range(11)]
    axis.plot(range(11), used, label=name, **slot_style(slot))
    told.append(
        f"{name} {used[1]:.0f} after 1 step, {used[5]:.0f} after 5, {used[10]:.0f} "
        "after 10"
    )
axis.set(xlabel="inner steps", ylabel="KiB kept by the graph", ylim=(0, None))
axis.legend(fontsize=8)
print("KiB kept:", "; ".join(told))
for steps in (1, 5):
    spent = {True: 0.0, False: 0.0}
    for _ in range(40):
        for second in spent:
            began = time.perf_counter()
            inner_loop(regressor, task10, steps, second).backward()
            spent[second] += time.perf_counter() - began
    print(
        f"{steps} inner steps: second order takes about "
        f"{spent[True] / spent[False]:.1f} times as long"
    )
show(figure, f"Memory kept by the graph against inner steps: {'; '.join(told)} KiB.")

# %% [markdown]
# Second order keeps every step, first order forgets each at once. At test time nothing needs the graph: `track=False`.
#
# ## Meet the package
#
# Your function against the package's, then its source.

# %%
for steps in (0, 1, 3):
    mine = meta_loss(small, weights, curve, 0.05, steps)
    theirs = package.meta_loss(
        small, weights, curve, lr=0.05, steps=steps, loss_fn=F.mse_loss
    )
    assert torch.allclose(mine, theirs)
print(inspect.getsource(package.meta_loss))
print(inspect.getsource(MAML.training_step))

# %% [markdown]
# ## Train for real
#
# One net, the same curves and updates, 25 curves in each [meta-batch](../lessons/GLOSSARY.md#meta-batch "元批次"). Only the outer gradient differs: second order, first order, or no inner loop: [pretraining](../lessons/GLOSSARY.md#pretraining "预训练") on all curves.
#
# ## Evaluate honestly
#
# New curves, 0 to 10 steps, 95 % [intervals](../lessons/GLOSSARY.md#confidence-interval "置信区间"). Before you look: which learner is best after 0 steps?

# %%
settings = {
    "MAML": {"steps": 1},
    "first-order MAML": {"steps": 1, "first_order": True},
    "pretraining": {"steps": 0},
}
learners, smooth = {}, {}
for name, how in settings.items():
    print(f"training {name}")
    torch.manual_seed(0)  # all start from the same weights
    learners[name] = MAML(mlp(), 0.01, **how)
    history = fit(learners[name], SinusoidSampler(10, 10, seed=0), steps=2000, tasks=25)
    smooth[name] = sum(history.loss[-200:]) / 200
print(", ".join(f"{name}: query loss {value:.2f}" for name, value in smooth.items()))

# %%
results: dict = {}
figure, axes = new(8, 3.2, columns=2, sharey=True)
for axis, k_shot in zip(axes, (5, 10)):
    unseen = SinusoidSampler(k_shot, 50, seed=1)
    for slot, (name, learner) in enumerate(learners.items()):
        for steps in (0, 1, 5, 10):
            learner.test_steps = steps
            results[name, k_shot, steps] = evaluate(
                learner, unseen, episodes=150, metric="mse"
            )
        found = [results[name, k_shot, steps] for steps in (0, 1, 5, 10)]
        # so that intervals do not hide each other
        shifted = [steps + 0.15 * slot for steps in (0, 1, 5, 10)]
        axis.errorbar(
            shifted,
            [r.mean for r in found],
            [r.ci95 for r in found],
            capsize=3,
            label=name,
            **slot_style(slot),
        )
        print(
            f"{k_shot:2d} points, {name:17s}"
            + "  ".join(f"{r.mean:.2f} ± {r.ci95:.2f}" for r in found)
        )
    axis.set(title=f"{k_shot} support points", xlabel="inner steps", ylim=(0, None))
axes[0].set_ylabel("mean squared error")
axes[1].legend(fontsize=8)
told = "; ".join(
    f"{n}, {k} points: {results[n, k, 0].mean:.1f} then {results[n, k, 10].mean:.1f}"
    for n, k, s in results
    if s == 0
)
show(
    figure,
    "Error on new curves after 0, 1, 5 and 10 inner steps, with 95 % intervals. From "
    f"0 to 10 steps: {told}.",
)

# %%
for other in ("first-order MAML", "pretraining"):
    for k_shot in (5, 10):
        for steps in (0, 1, 10):
            paired = compare(
                results["MAML", k_shot, steps], results[other, k_shot, steps]
            )
            word = "better" if paired.mean < 0 else "worse"
            verdict = f"MAML is {word}" if paired.separated else "not separated"
            print(
                f"MAML minus {other:17s}{k_shot:2d} points, {steps:2d} steps: "
                f"{paired.mean:+.2f} ± {paired.ci95:.2f}, {verdict}"
            )

# %% [markdown]
# Read the [paired](../lessons/GLOSSARY.md#paired-comparison "配对比较") lines: pretraining minimises the error *before* any step, MAML the error after one. *Not covered*: other seeds, rates and budgets. The full budget, 70,000 updates, beside the paper's table, which has 5 points only:

# %% tags=["nbval-check-output"]
rows = {
    (r["learner"], r["shot"], r["steps"]): r for r in card("maml", "sinusoids")["test"]
}
paper = {
    "maml": {1: 0.67, 5: 0.38, 10: 0.35},
    "pretraining": {1: 2.41, 5: 2.23, 10: 2.19},
}
print("mean squared error  5 points          paper   10 points")
for learner, printed in paper.items():
    for steps in (0, 1, 5, 10):
        five, ten = rows[learner, 5, steps], rows[learner, 10, steps]
        print(
            f"{learner:12s}{steps:3d} steps{five['mse']:6.2f} ± {five['ci95']:.2f}"
            f"{printed.get(steps, '-'):>14}{ten['mse']:9.2f} ± {ten['ci95']:.2f}"
        )

# %% [markdown]
# ## Bug hunt
#
# The symptom: six outer steps run, return a loss, and that loss often falls. Not one is MAML's. Spot what you can before you test.

# %%
ALPHA = 0.4


def sgd(net: nn.Module, loss: Tensor, rate: float) -> float:
    """One outer step down this loss."""
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


# %%
def step_a(net: nn.Module, tasks: Episode, rate: float) -> float:
    total = 0.0
    for task in tasks:
        fast = copy.deepcopy(net)
        inner = torch.optim.SGD(fast.parameters(), lr=ALPHA)
        F.mse_loss(fast(task.support_x), task.support_y).backward()
        inner.step()
        total = total + F.mse_loss(fast(task.query_x), task.query_y) / len(tasks)
    return sgd(net, total, rate)


def step_b(net: nn.Module, tasks: Episode, rate: float) -> float:
    total, params = 0.0, dict(net.named_parameters())
    for task in tasks:
        loss = error(net, params, task.support_x, task.support_y)
        slopes = torch.autograd.grad(loss, list(params.values()))
        fast = {name: w - ALPHA * g for (name, w), g in zip(params.items(), slopes)}
        total = total + error(net, fast, task.query_x, task.query_y) / len(tasks)
    return sgd(net, total, rate)


# %%
def step_c(net: nn.Module, tasks: Episode, rate: float) -> float:
    total, names = 0.0, [name for name, _ in net.named_parameters()]
    for task in tasks:
        weights = net.parameters()
        loss = F.mse_loss(net(task.support_x), task.support_y)
        slopes = torch.autograd.grad(loss, weights, create_graph=True)
        fast = [w - ALPHA * g for w, g in zip(weights, slopes)]
        total = total + error(
            net, dict(zip(names, fast)), task.query_x, task.query_y
        ) / len(tasks)
    return sgd(net, total, rate)


def adapted_once(net: nn.Module, params: Params, task: Episode) -> Params:
    """One inner step that keeps its graph. This one is right."""
    loss = error(net, params, task.support_x, task.support_y)
    slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    return {name: w - ALPHA * g for (name, w), g in zip(params.items(), slopes)}


# %%
def step_d(net: nn.Module, tasks: Episode, rate: float) -> float:
    params = dict(net.named_parameters())
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    losses = [
        error(net, adapted_once(net, params, task), task.query_x, task.query_y)
        for task in tasks
    ]
    loss = torch.stack(losses).mean()
    optimizer.zero_grad()
    loss.backward()
    for p in net.parameters():
        p.data -= rate * p.grad
    optimizer.step()
    return loss.item()


# %%
def step_e(net: nn.Module, tasks: Episode, rate: float) -> float:
    total, fast = 0.0, dict(net.named_parameters())
    for task in tasks:
        fast = adapted_once(net, fast, task)
        total = total + error(net, fast, task.query_x, task.query_y) / len(tasks)
    return sgd(net, total, rate)


# %%
def step_f(net: nn.Module, tasks: Episode, rate: float) -> float:
    total, params = 0.0, dict(net.named_parameters())
    for task in tasks:
        adapted_once(net, params, task)
        total = total + F.mse_loss(net(task.query_x), task.query_y) / len(tasks)
    return sgd(net, total, rate)


def true_meta_loss(params: Params) -> Tensor:
    """What all of them claim to minimise:
    the mean over the tasks, from your own meta_loss.
    """
    return torch.stack(
        [meta_loss(SineCosine(), params, task, ALPHA, 1) for task in tasks]
    ).mean()


# %%
def right(net: nn.Module, tasks: Episode, rate: float) -> float:
    return sgd(net, true_meta_loss(dict(net.named_parameters())), rate)


# two support points leave much to the start
tasks = SinusoidSampler(2, 10, seed=7, dtype=torch.float64).batch(0, 4)
steps = {
    "a": step_a,
    "b": step_b,
    "c": step_c,
    "d": step_d,
    "e": step_e,
    "f": step_f,
    "right": right,
}
print("        reported loss: first, 40th     true meta-loss after 40 steps, 200 steps")
for name, step in steps.items():
    trained, seen, truth = SineCosine(), [], []
    for _ in range(200):
        seen.append(step(trained, tasks, 0.1))
        truth.append(true_meta_loss(dict(trained.named_parameters())).item())
    print(f"{name:8s}{seen[0]:14.3f}{seen[39]:8.3f}{truth[39]:25.3f}{truth[199]:11.3f}")

# %% [markdown]
# ### Exercise 08.5  Bug hunt: is this the meta-gradient?  (difficulty 3/5, 12 min)
#
# One test exposes them all. `outer_step(net)` takes one SGD step of rate `outer_lr`, in place: it *took for the gradient* (before − after) / `outer_lr`.
# Return `True` when that differs from the central differences of `true_loss(params)` in any number.
#
# | you need | |
# |---|---|
# | `copy.deepcopy(net)` | step a copy: the caller keeps the net |
# | `central_differences(true_loss, before, 1e-5)` | the truth; `before`: clones of the net's parameters |
# | `torch.allclose(a, b, rtol=1e-4, atol=1e-6)` | equal but for rounding |


# %%
def exposes_step(
    outer_step: Callable, net: nn.Module, true_loss: Callable, outer_lr: float
) -> bool:
    """True when outer_step(net) does not go down the gradient
    of true_loss(params) by outer_lr times it.
    """
    # BEGIN SOLUTION
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    truth = central_differences(true_loss, before, 1e-5)
    trial = copy.deepcopy(net)
    outer_step(trial)
    took = {
        name: (before[name] - p.detach()) / outer_lr
        for name, p in trial.named_parameters()
    }
    return not all(
        torch.allclose(took[name], truth[name], rtol=1e-4, atol=1e-6) for name in truth
    )
    # END SOLUTION


exposes_step = check("08.5", exposes_step)


# %% tags=["nbval-check-output"]
def verdicts(steps: dict[str, Callable]) -> dict[str, bool]:
    """Prints what each step took for the gradient, and your verdict."""
    truth = central_differences(true_meta_loss, start, 1e-5)["uv"]
    print(f"{'true gradient':24s}{truth[0]:9.4f}{truth[1]:9.4f}")
    found = {}
    for name, step in steps.items():
        step(trial := SineCosine(), tasks, 0.05)
        took = ((start["uv"] - trial.uv) / 0.05).tolist()
        found[name] = exposes_step(
            partial(step, tasks=tasks, rate=0.05), SineCosine(), true_meta_loss, 0.05
        )
        print(
            f"{name:24s}{took[0]:9.4f}{took[1]:9.4f}   "
            f"{'WRONG' if found[name] else 'right'}"
        )
    return found


assert verdicts(steps) == {name: name != "right" for name in steps}

# %% [markdown]
# <details><summary>The six bugs, after you have looked for them</summary>
#
# - **a** A deep copy has new leaves: `.grad` of the original stays `None`, and the optimizer skips it. The net never moves.
# - **b** No `create_graph=True`: first-order MAML under another name.
# - **c** `net.parameters()` is a [generator](../lessons/GLOSSARY.md#python-generator "生成器"). `autograd.grad` has used it up, `zip` finds nothing, the dict is empty: no inner step.
# - **d** The update is made by hand and then by the optimizer: right direction, twice the way.
# - **e** `fast` is never put back: task 2 starts from task 1's weights. Permute the tasks, and the loss changes.
# - **f** The query loss is asked of `net`, not of `fast`: the inner loop runs for nothing. It takes the same step as c.
#
# </details>
#
# d has the right *direction*, and its loss falls. Only the numbers tell.
#
# ### Three more from the wild
#
# Through the same check. The second stops with an error; its popular cure, `retain_graph=True`, is silent and wrong.


# %%
def on_itself(net: nn.Module, tasks: Episode, rate: float) -> float:
    for task in tasks:
        # the start itself drifts
        loss = sgd(net, F.mse_loss(net(task.support_x), task.support_y), ALPHA)
    return loss


# %%
def twice(net: nn.Module, tasks: Episode, rate: float, retain: bool = True) -> float:
    loss, params = true_meta_loss(dict(net.named_parameters())), list(net.parameters())
    for p, slope in zip(params, torch.autograd.grad(loss, params, retain_graph=retain)):
        p.data -= rate * slope
    return sgd(net, loss, rate)  # a second step, for the same loss


def on_support(net: nn.Module, tasks: Episode, rate: float) -> float:
    params = dict(net.named_parameters())
    losses = [
        error(net, adapted_once(net, params, task), task.support_x, task.support_y)
        for task in tasks
    ]
    return sgd(net, torch.stack(losses).mean(), rate)


# %%
try:
    twice(SineCosine(), tasks, 0.05, retain=False)
except RuntimeError as stop:
    print(f"twice: {str(stop)[:60]}...\n")
gallery = {
    "steps the net itself": on_itself,
    "twice, graph retained": twice,
    "support loss outside": on_support,
}
assert all(verdicts(gallery).values())

# %% [markdown]
# ## Quiz
#
# **1. A test says `assert grad.norm() > 0`, to prove second order. What does it prove?**
# (a) second order, (b) a gradient arrives, (c) `create_graph` was set
#
# <details><summary>Answer</summary>
#
# (b). First-order MAML passes it as well, against (a) and (c): the identity in $I - \alpha H$ brings one.
#
# </details>
#
# **2. The inner rate is halved. The relative error of first order, one step,**
# (a) stays, (b) halves, (c) falls to a quarter
#
# <details><summary>Answer</summary>
#
# (b), as long as the rate is small: you measured slope 1. Slope 0 would be (a), slope 2 would be (c).
#
# </details>
#
# **3. Along one direction the support loss is flat. There the meta-gradient is**
# (a) zero, (b) the query gradient, (c) undefined
#
# <details><summary>Answer</summary>
#
# (b). $h = 0$ gives the factor 1: the start passes through unchanged. Zero, (a), needs $\alpha h = 1$. Nothing is divided, against (c).
#
# </details>

# %% [markdown]
# **4. From 5 to 10 inner steps, what second order keeps in memory**
# (a) stays, (b) about doubles, (c) quadruples
#
# <details><summary>Answer</summary>
#
# (b). Each step adds its own tensors. (a) is first order. For (c), steps would have to keep each other's tensors; each keeps its own.
#
# </details>
#
# **5. The training loss falls for 1000 updates. So the meta-gradient is right?**
# (a) yes, (b) no, (c) yes, if the loss is a query loss
#
# <details><summary>Answer</summary>
#
# (b). A double step, a missing Hessian, even the plain query gradient go downhill too. Against (a) and (c): compare with central differences, once, on a tiny net.
#
# </details>
#
# ## Summary
#
# | remember | |
# |---|---|
# | meta-gradient | $(I - \alpha H)^\top \nabla \mathcal{L}_\mathcal{Q}(\theta')$; several steps: a product, last step first |
# | first order | leaves $H$ out; error grows with the rate and the steps |
# | proof | central differences of the true meta-loss, float64, tiny net |
# | cost | memory grows with the steps |
# | pitfalls | copies cut the graph; generators run dry; one start for all tasks; the query judges |
#
# Now close the book: 08.7. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Finn, Abbeel and Levine (2017), *Model-Agnostic Meta-Learning* | section 2.2, equation 1 and algorithm 1: the outer update; section 5.1: sine curves; 5.2: first order |
# | Pearlmutter (1994), *Fast Exact Multiplication by the Hessian* | Hessian-vector products |
# | Nichol, Achiam and Schulman (2018), *On First-Order Meta-Learning Algorithms* | what first order keeps |

# %% [markdown]
# ### Exercise 08.6 ★  The Hessian times a vector  (difficulty 3/5, 10 min)
#
# A Hessian has $P^2$ numbers: too many. Return $Hv$ without it, exactly: differences of gradients drown in float32. `loss` takes the dict `params`; `vector` and the result are dicts like it.
#
# One way: the gradient of one number, $\langle \nabla \mathcal{L}, v \rangle$, with $v$ held fixed.


# %%
def hessian_vector(loss: Callable, params: Params, vector: Params) -> Params:
    """H v for the Hessian of loss at params. Dicts of equal names and shapes."""

    # BEGIN SOLUTION
    def along(p: Params) -> Tensor:
        slope = grad(loss)(p)
        return torch.stack([(slope[name] * vector[name]).sum() for name in p]).sum()

    return grad(along)(params)
    # END SOLUTION


hessian_vector = check("08.6", hessian_vector)

# %% [markdown]
# ### Exercise 08.7  Closed book: MAML's gradient from memory  (difficulty 4/5, 12 min)
#
# Close everything above. With torch alone, and nothing from the package, return the true second-order meta-gradient after `steps` inner steps.
#
# | | |
# |---|---|
# | `loss_support`, `loss_query` | functions of a dict of parameters, to scalar |
# | `params` | name to tensor, without `requires_grad`; do not write into it |
# | returned | a dict like `params` |
# | tools | `torch.autograd.grad` or `torch.func.grad` |


# %%
def maml_gradient(
    loss_support: Callable, loss_query: Callable, params: Params, lr: float, steps: int
) -> Params:
    """Second-order meta-gradient after some inner steps. Returns a dict like params."""

    # BEGIN SOLUTION
    def after_learning(begin: Params) -> Tensor:
        here = dict(begin)
        for _ in range(steps):
            downhill = torch.func.grad(loss_support)(here)
            here = {name: here[name] - lr * downhill[name] for name in here}
        return loss_query(here)

    return torch.func.grad(after_learning)(params)
    # END SOLUTION


maml_gradient = check("08.7", maml_gradient)
mine = maml_gradient(*losses_of(small, curve), weights, 0.05, 4)
theirs = grad(
    lambda p: package.meta_loss(small, p, curve, lr=0.05, steps=4, loss_fn=F.mse_loss)
)(weights)
assert all(torch.allclose(mine[name], theirs[name]) for name in theirs)
print("your function and the package agree on a net, over 4 steps, to second order")
progress("08")
