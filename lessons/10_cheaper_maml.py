# %% [markdown]
# # 10 Cheaper MAML: what may be left out
#
# You drop the second derivative, then the queries, then most of the inner loop, and measure what each of them was worth.
#
# Prerequisites: lessons 08 and 09. Planned time: 60 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** What is MAML's outer gradient after one inner step?
#
# <details><summary>Answer</summary>
#
# $(I - \alpha H)\,g$: the query gradient $g$ at $\theta'$, multiplied by one minus the rate times the Hessian $H$ of the support loss. The Hessian comes from differentiating through the inner step.
#
# </details>
#
# **2.** Two methods differ by two points. When do you believe it?
#
# <details><summary>Answer</summary>
#
# When the paired interval over the same episodes leaves out 0, and other training seeds agree.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **drop** the second derivative and say what that costs (10.1),
# 2. **use** a displacement as a gradient, and say what its steps gain (10.2, 10.7),
# 3. **learn** inner rates, and confine the inner loop (10.3, 10.4),
# 4. **expose** a wrong displacement by a closed form (10.5).

# %% [markdown]
# ## A puzzle: two valleys
#
# One parameter, two tasks: a steep valley with its bottom at 0, and a wide one with its bottom at 1. An inner step goes 80 % of the way to the bottom in the steep valley, but only 20 % in the wide one. Four methods look for a shared start:
#
# | method | what it does |
# |---|---|
# | joint training | lowers the mean loss *before* any inner step; it rests at 0.2 |
# | MAML | lowers the mean loss *after* one inner step |
# | first-order MAML | does so without the second derivative |
# | Reptile | takes one inner step in each valley, and moves the start towards the ends of these steps |
#
# Where do the last three rest?
#
# - **A**: all at 0.2,
# - **B**: all in one place, nearer to 1,
# - **C**: in different places.
#
# Write it down.

# %%
import inspect
import json
import statistics
import time
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_classroom import check, progress
from fsl_course import Episode, SinusoidSampler, compare, evaluate, fit
from fsl_course.data.assets import asset
from fsl_course.evaluation import mean_and_ci95
from fsl_course.figures import CHANCE, new, show, slot_style
from fsl_course.inner_loop.task_batches import tensors_of
from fsl_course.methods import maml as package
from fsl_course.methods.anil import ANIL
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import MAML
from fsl_course.methods.meta_sgd import MetaSGD
from fsl_course.methods.reptile import Reptile
from fsl_course.nets import mlp

torch.manual_seed(0)
Params, Gradient = dict[str, Tensor], Callable[[Tensor], Tensor]
METHODS = ("MAML", "FOMAML", "ANIL", "Meta-SGD", "Reptile")
look = {name: slot_style(slot) for slot, name in enumerate(METHODS)}
look["joint"] = {"color": CHANCE, "marker": "X"}  # one colour a method, all lesson
look["ProtoNet"] = slot_style(7)

# %% [markdown]
# ## The idea in one picture
#
# Two tasks share one start. The [inner loop](../lessons/GLOSSARY.md#inner-loop "内循环") goes downhill in both. Before it the steep valley has the larger loss; after it the wide one has, because the step there was short. So a method that judges *after* the step listens more to the wide valley.

# %%
places = torch.linspace(-0.4, 1.6, 201)
figure, axis = new(7.5, 3)
for task, (name, h, b) in enumerate((("steep valley", 4, 0), ("wide valley", 1, 1))):
    style = slot_style((5, 7)[task])
    axis.plot(
        places,
        h / 2 * (places - b) ** 2,
        color=style["color"],
        linestyle=("-", "--")[task],
        label=name,
    )
    start, end = 0.5, 0.5 - 0.2 * h * (0.5 - b)
    axis.scatter(
        [start, end], [h / 2 * (start - b) ** 2, h / 2 * (end - b) ** 2], s=50, **style
    )
    axis.annotate(
        "",
        (end, h / 2 * (end - b) ** 2),
        (start, h / 2 * (start - b) ** 2),
        arrowprops={"arrowstyle": "->", "color": style["color"], "linewidth": 2},
    )
axis.axvline(0.5, color=CHANCE, linestyle=":", label="shared start")
axis.set(xlabel="parameter", ylabel="loss", ylim=(-0.05, 1.2))
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
show(
    figure,
    "Loss of two tasks over one parameter: a steep valley with its bottom at 0 and a "
    "wide one at 1. From the shared start 0.5 one step leads to 0.1 in the steep "
    "valley, close to its bottom, and to 0.6 in the wide one, still far from its "
    "own.",
)

# %% [markdown]
# ## The maths
#
# For one inner step, these are the outer gradients of MAML and of its [first-order approximation](../lessons/GLOSSARY.md#first-order-approximation "一阶近似"), FOMAML. Below them stands Reptile's update, where $\theta_\tau$ is the place to which the inner loop on task $\tau$ leads.
#
# $$\nabla_{\text{MAML}} = (I - \alpha H)\, g, \qquad \nabla_{\text{FOMAML}} = g, \qquad g = \nabla \mathcal{L}_\mathcal{Q}(\theta')$$
#
# $$\theta \leftarrow \theta + \varepsilon \, \frac{1}{T} \sum_{\tau=1}^{T} (\theta_\tau - \theta)$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $\theta$ | `theta` | `[P]`: all $P$ parameters; or a dictionary |
# | $\theta'$ | `adapted` | like $\theta$: the place after the inner step |
# | $\theta_\tau$ | `end` | like $\theta$: where the inner loop on task $\tau$ ends |
# | $\alpha$ | `lr`; in Meta-SGD `rates` | a number; a tensor like $\theta$ |
# | $H$ | never computed | `[P, P]`, Hessian of the support loss |
# | $g$ | `query_gradient(adapted)` | `[P]` |
# | $\varepsilon$ | `epsilon` | a number, the outer rate |
# | $T$, $J$ | `len(gradients)`, `steps` | tasks; inner steps |

# %% [markdown]
# ## By hand
#
# A valley is the loss $\tfrac{h}{2}(\theta - b)^2$. Its gradient is $h(\theta - b)$, its Hessian $h$, and support and query share it. An inner step multiplies the distance $\theta - b$ by $1 - \alpha h$, so FOMAML's gradient, taken there, is $h(1 - \alpha h)(\theta - b)$. MAML multiplies it by $1 - \alpha h$ once more. After $J$ steps $(1 - \alpha h)^J$ of the distance is left, so Reptile's displacement $\theta - \theta_\tau$ is the rest, $1 - (1 - \alpha h)^J$ of it. Every method thus pulls by $\theta - b$ times a factor of its own:
#
# | method | factor | steep, $h = 4$ | wide, $h = 1$ |
# |---|---|---|---|
# | joint training | $h$ | 4 | 1 |
# | FOMAML | $h(1 - \alpha h)$ | you | you |
# | MAML | $h(1 - \alpha h)^2$ | you | you |
# | Reptile, $J$ steps | $1 - (1 - \alpha h)^J$ | you | you |
#
# Take $\alpha = 0.2$ and, for Reptile, $J = 1$, and fill in the table. The pulls cancel where $\theta$ is the wide factor over the sum of both, because the bottoms are 0 and 1. What both factors share, such as $\varepsilon$, moves no resting place.


# %% tags=["nbval-check-output"]
# the steep valley, the wide one; and the inner rate
steepness, bottom, rate = torch.tensor([4.0, 1.0]), torch.tensor([0.0, 1.0]), 0.2


def factors(lr: float, steps: int) -> dict[str, Tensor]:
    """Method -> its factors of (theta - bottom), [2]."""
    left = 1 - lr * steepness  # what a step leaves of the distance
    return {
        "joint": steepness,
        "FOMAML": steepness * left,
        "MAML": steepness * left**2,
        "Reptile": 1 - left**steps,
    }


def rest(factor: Tensor) -> float:
    """Where the pulls of the tasks cancel."""
    return float((factor * bottom).sum() / factor.sum())


def mean_loss(start: float, steps: int) -> float:
    """Mean loss of the two valleys after some inner steps."""
    distance = (1 - rate * steepness) ** steps * (start - bottom)
    return float((steepness / 2 * distance**2).mean())


# %% tags=["nbval-check-output"]
print("                   steep  wide   rests at   mean loss before, after one step")
for name, factor in factors(rate, 1).items():
    place = rest(factor)
    print(
        f"{name:8s} one step  {factor[0]:5.2f} {factor[1]:5.2f} {place:10.2f}"
        f"{mean_loss(place, 0):14.3f}{mean_loss(place, 1):8.3f}"
    )
for steps in (5, 100):
    place = rest(factors(rate, steps)["Reptile"])
    print(
        f"Reptile  {steps:3d} steps {place:22.2f}"
        f"{mean_loss(place, 0):14.3f}{mean_loss(place, 1):8.3f}"
    )
theta = 0.5
for _ in range(500):  # the loop: one task after the other, the outer step written out
    pull = 0.0
    for h, b in ((4, 0), (1, 1)):
        adapted = theta - rate * h * (theta - b)
        pull += (1 - rate * h) * h * (adapted - b) / 2
    theta -= 0.5 * pull
assert abs(theta - rest(factors(rate, 1)["MAML"])) < 1e-4
print(f"MAML written as a loop rests at {theta:.2f}, as the closed form says")

# %% [markdown]
# **The puzzle's answer is C.** FOMAML rests at 0.50, MAML at 0.80, and Reptile with one step at 0.20, like joint training. The cheap versions do not find MAML's start less exactly: they look for *another* one.
#
# The last column says what this is worth: after one step the mean loss is 0.104 from 0.2, 0.050 from 0.5 and 0.032 from 0.8. MAML's start is the best after the step and the worst before it, because it spends its loss where one step wins it back.

# %% [markdown]
# ### Exercise 10.1  The first-order gradient  (difficulty 1/5, 5 min)
#
# Write FOMAML's outer gradient of one task: take `steps` inner steps down the support loss, and return the query gradient at the end. `theta` itself must not change.
#
# | `support_gradient`, `query_gradient` | `theta` | `lr`, `steps` | returned |
# |---|---|---|---|
# | functions from `[P]` to `[P]` | `[P]` | a number; 0, 1, ... | `[P]` |


# %%
def first_order_gradient(
    support_gradient: Gradient,
    query_gradient: Gradient,
    theta: Tensor,
    lr: float,
    steps: int,
) -> Tensor:
    """FOMAML's outer gradient of one task. Gradients: [P] -> [P]; theta [P] -> [P]."""
    # BEGIN SOLUTION
    place = theta
    for _ in range(steps):
        place = place - lr * support_gradient(place)
    return query_gradient(place)
    # END SOLUTION


first_order_gradient = check("10.1", first_order_gradient)

# %% [markdown]
# In the package, `first_order=True` makes the inner gradients count as constants:
#
# ```diff
# - gradients = grad(scalar_loss)(theta)
# + with torch.no_grad():
# +     gradients = grad(scalar_loss)(theta)
#   theta = {name: value - rates[name] * gradients[name] for name, value in theta.items()}
# ```
#
# The term left out is $-\alpha H g$, so FOMAML's error grows with the rate, as lesson 08 measured. The picture shows, on the left, where the methods rest at every inner rate; on the right, with the same marks, the losses there at rate 0.2. Near 0.25 one step reaches the steep valley's bottom. Then only the wide one pulls, and MAML and FOMAML end near 1.

# %% tags=["draws"]
figure, axes = new(9.5, 3, columns=2)
span = torch.linspace(0.005, 0.245, 25).tolist()
for name in ("joint", "FOMAML", "MAML", "Reptile"):
    label = {"joint": "joint training", "Reptile": "Reptile, 5 steps"}.get(name, name)
    axes[0].plot(
        span,
        [rest(factors(lr, 5)[name]) for lr in span],
        markevery=4,
        label=label,
        **look[name],
    )
    place = rest(factors(rate, 5)[name])
    axes[1].scatter(place, mean_loss(place, 1), s=60, zorder=3, **look[name])
axes[0].axvline(rate, color=CHANCE, linestyle=":")
axes[0].set(xlabel="inner rate", ylabel="resting place", ylim=(0, 1.03))
starts = torch.linspace(0, 1, 101).tolist()
for steps, line in ((0, "--"), (1, "-")):
    axes[1].plot(
        starts,
        [mean_loss(start, steps) for start in starts],
        color="black",
        linestyle=line,
        linewidth=1,
        label=("before the inner step", "after it")[steps],
    )
axes[1].set(
    xlabel="start", ylabel="mean loss of the valleys", ylim=(0, 0.4), title="rate 0.2"
)
axes[1].legend(fontsize=8, loc="upper center")
axes[0].legend(fontsize=8, loc="upper left")
show(
    figure,
    "Left: resting places in the two valleys against the inner rate. All leave 0.2; "
    "joint training stays there, FOMAML rises, MAML rises about twice as fast, and "
    "Reptile with 5 steps sets out as steeply as MAML but bends towards one half. "
    "Right: mean loss over the start at rate 0.2, before and after one inner step; "
    "the first is lowest at 0.2, the second at 0.8. Marks at the four resting places "
    "show that MAML's has the lowest loss after the step.",
)

# %% [markdown]
# ## Reptile: the way you went is the gradient
#
# Train on a task, then move the start a little towards the end. The way $\theta - \theta_\tau$ serves as a [pseudo-gradient](../lessons/GLOSSARY.md#pseudo-gradient "伪梯度"). Reptile needs no queries, and no graph through the inner loop.
#
# The *serial* form moves the start after every task. The *batched* form averages the ways of several tasks that begin at the same $\theta$.
#
# ### Exercise 10.2  Reptile's direction  (difficulty 2/5, 7 min)
#
# Return what an optimiser should *subtract*: the mean over tasks of $\theta - \theta_\tau$, where $\theta_\tau$, the `end`, is reached by `steps` inner steps from `theta`. `theta` itself must not change.
#
# | `gradients` | `theta` | `lr`, `steps` | returned |
# |---|---|---|---|
# | a list of $T$ functions `[P]` to `[P]` | `[P]` | a number; 1, 2, ... | `[P]` |


# %%
def reptile_direction(gradients: list, theta: Tensor, lr: float, steps: int) -> Tensor:
    """Mean of theta - theta_tau. T functions [P] -> [P], theta [P] -> [P]."""
    # BEGIN SOLUTION
    ways = []
    for gradient in gradients:
        end = theta
        for _ in range(steps):
            end = end - lr * gradient(end)
        ways.append(theta - end)
    return torch.stack(ways).mean(0)
    # END SOLUTION


reptile_direction = check("10.2", reptile_direction)

# %% tags=["nbval-check-output"]
valleys = [lambda t: 4.0 * t, lambda t: t - 1.0]
# 1. The closed form: after J steps (1 - alpha h)^J of the distance is left,
# and the displacement is the rest.
for steps in (1, 3, 10):
    found = reptile_direction(valleys, torch.tensor([0.5]), rate, steps)
    closed = factors(rate, steps)["Reptile"]
    assert torch.allclose(found, (closed * (0.5 - bottom)).mean())
    print(f"{steps} inner steps: direction {float(found):+.4f}")
# 2. One plain step is an SGD step on the tasks, times the inner rate:
# the first identity of this lesson.
joint = torch.stack([gradient(torch.tensor([0.5])) for gradient in valleys]).mean(0)
assert torch.allclose(
    reptile_direction(valleys, torch.tensor([0.5]), rate, 1), rate * joint
)
# 3. Serial: the tasks in turn, a move after each. Batched: both from the same start.
serial, batched, epsilon = torch.tensor([1.5]), torch.tensor([1.5]), 0.02
for turn in range(2000):
    before = serial
    way = reptile_direction([valleys[turn % 2]], serial, rate, 5)
    serial = serial - epsilon * way
    batched = batched - epsilon * reptile_direction(valleys, batched, rate, 5)
print(
    f"serial goes back and forth between {float(before):.3f} and {float(serial):.3f}, "
    f"batched rests at {float(batched):.3f}"
)

# %% [markdown]
# At 0.5 the direction shrinks with more steps: the two walks then end at 0 and at 1, and 0.5 is their middle. The serial form never rests, because each valley in turn pulls it to its own side.
#
# One step is joint training. What do more steps gain?

# %% [markdown]
# ## Why it works: the pull towards agreement
#
# Draw rows twice from one task. At the start $\theta$ the two draws have gradients $g_1$, $g_2$ and Hessians $H_1$, $H_2$. Step on the first draw, then ask the second for its gradient. By Taylor's theorem it is
#
# $$g_2(\theta - \alpha g_1) = g_2 - \alpha H_2\, g_1 + O(\alpha^2).$$
#
# FOMAML returns just this, with the second draw as queries. MAML multiplies it by $I - \alpha H_1$, which adds $-\alpha H_1 g_2$. Reptile steps on one draw, then on the other, so its displacement over $\alpha$ is $g_1 + g_2(\theta - \alpha g_1)$. Average over tasks and draws: because their order is chance, $g_1$ and $g_2$ share a mean $G$, and $H_1 g_2$ and $H_2 g_1$ share a mean $A$:
#
# | method | one task, to first order in $\alpha$ | mean |
# |---|---|---|
# | joint training | $g_1$ | $G$ |
# | FOMAML | $g_2 - \alpha H_2 g_1$ | $G - \alpha A$ |
# | MAML | $g_2 - \alpha H_2 g_1 - \alpha H_1 g_2$ | $G - 2\alpha A$ |
# | Reptile / $\alpha$ | $g_1 + g_2 - \alpha H_2 g_1$ | $2G - \alpha A$ |

# %% [markdown]
# What does $A$ want? By the product rule, the gradient of $g_1 \cdot g_2$ with respect to $\theta$ is $H_1 g_2 + H_2 g_1$. So
#
# $$A = \mathbb{E}[H_2\, g_1] = \tfrac{1}{2}\, \nabla\, \mathbb{E}[g_1 \cdot g_2].$$
#
# An optimiser subtracts the outer gradient. So it moves *against* $G$, which lowers the loss, and *along* $A$, which raises $g_1 \cdot g_2$. This product is large where the draws agree, so that a step on some rows helps the others, and where gradients are *long*, so that a step gains much. In the valleys both draws are one, so only the length counts.
#
# Check the table on a net of 25 parameters.

# %%
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
tasks = SinusoidSampler(5, 5, seed=4, dtype=torch.float64).batch(0, 8)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


def outer_gradient(learner: FewShotLearner, episodes: Episode = tasks) -> Tensor:
    """The gradient that `fit` would hand to the optimiser, with respect
    to the net's parameters, as one vector.
    """
    # Reptile has no graph: its loss is built so that the gradient is the displacement
    loss = learner.train().training_step(episodes)
    return flat(torch.autograd.grad(loss, list(net.parameters())))


# Both orders of the two draws: support and query change places.
one, two = (tasks.support_x, tasks.support_y), (tasks.query_x, tasks.query_y)
orders = Episode(
    *(torch.cat([a, b]) for a, b in zip(one + two, two + one)),
    classes=torch.cat([tasks.classes, tasks.classes]),
)
in_a_row = Episode(  # for Reptile: first one draw, then the other
    torch.cat([orders.support_x, orders.query_x], 1),
    torch.cat([orders.support_y, orders.query_y], 1),
    orders.query_x,
    orders.query_y,
    orders.classes,
)


# %%
def losses_of(pair: Episode) -> list[Callable[[Tensor], Tensor]]:
    """The losses of a task's two draws, as functions of the vector [P]."""
    named = dict(net.named_parameters())

    def loss(vector: Tensor, x: Tensor, y: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in named.values()])
        params = {n: v.view_as(p) for v, (n, p) in zip(parts, named.items())}
        return F.mse_loss(torch.func.functional_call(net, params, (x,)), y)

    return [
        lambda v: loss(v, pair.support_x, pair.support_y),
        lambda v: loss(v, pair.query_x, pair.query_y),
    ]


vector = flat(net.parameters()).detach()
G, A = torch.zeros_like(vector), torch.zeros_like(vector)
for pair in orders:
    first, second = losses_of(pair)
    g_first = torch.func.grad(first)(vector)
    G += g_first / len(orders)
    A += torch.func.hessian(second)(vector) @ g_first / len(orders)
cosine = float(G @ A / G.norm() / A.norm())
print(f"length of G {G.norm():.1f}, of A {A.norm():.1f}; their cosine {cosine:.2f}")

# %%
rates, weights = [0.04, 0.02, 0.01, 0.005, 0.0025], {}
print("inner rate    FOMAML   MAML   Reptile")
for lr in rates:  # Reptile: 2 steps on 5 rows each, so one draw after the other
    missing = {
        "FOMAML": G - outer_gradient(MAML(net, lr, 1, first_order=True), orders),
        "MAML": G - outer_gradient(MAML(net, lr, 1), orders),
        "Reptile": 2 * G - outer_gradient(Reptile(net, lr, 2, batch=5), in_a_row) / lr,
    }
    for name, gap in missing.items():  # how many times alpha A is it?
        weights.setdefault(name, []).append(float(gap @ A / (lr * A @ A)))
    print(f"{lr:10.4f}" + "".join(f"{w[-1]:9.3f}" for w in weights.values()))
for name, expected in {"FOMAML": 1, "MAML": 2, "Reptile": 1}.items():
    assert abs(weights[name][-1] - expected) < 0.03
    leftover = missing[name] / lr - expected * A
    assert leftover.norm() < 0.03 * A.norm()  # the direction is right as well

# %% [markdown]
# The columns say how many times $\alpha A$ is missing from $G$ (from $2G$ for Reptile). They go to 1, 2 and 1 as the rate falls, so the table holds. $A$ points nearly as $G$ does (cosine 0.89), so the two moves oppose each other: as in the valleys, MAML pays with loss before the step for a gain in it.
#
# Per unit of $G$ the pull is $\alpha$ for FOMAML, $2\alpha$ for MAML, $\alpha / 2$ for two-step Reptile. With $J$ steps on fresh draws, each pair of steps takes off one $\alpha A$. So Reptile's mean over $\alpha$ is $J G - \tfrac{J(J-1)}{2} \alpha A$: per unit of $G$ five steps pull by $2\alpha$, as MAML does; in the valleys both curves leave 0.2 together.

# %% [markdown]
# ## Meta-SGD: learn the rates
#
# Meta-SGD spends more: it learns a rate for every parameter, *sign included*, with the start.
#
# ### Exercise 10.3  Meta-SGD's step  (difficulty 1/5, 3 min)
#
# Return the parameters after one step with these rates, element by element. The outer loop must be able to learn `params` *and* `rates`. The three dictionaries have the same names, but each may list them in an order of its own.
#
# | `params`, `gradients`, `rates` | returned |
# |---|---|
# | dictionaries, same names and shapes | a new dictionary like `params` |


# %%
def meta_sgd_step(params: Params, gradients: Params, rates: Params) -> Params:
    """One inner step with a rate for every number.
    Dictionaries of the same names and shapes -> a new one.
    """
    # BEGIN SOLUTION
    moved = {}
    for name, value in params.items():
        moved[name] = value - rates[name] * gradients[name]
    return moved
    # END SOLUTION


meta_sgd_step = check("10.3", meta_sgd_step)

# %% [markdown]
# ## ANIL: almost no inner loop
#
# Does an inner step find new features, or only a new use for those that are there ([feature reuse](../lessons/GLOSSARY.md#feature-reuse "特征复用"))? ANIL bets on the second. Only the [head](../lessons/GLOSSARY.md#head "分类头") takes inner steps. The [body](../lessons/GLOSSARY.md#body "主干") learns in the outer loop alone, so each picture passes through it once, however many steps follow.

# %% [markdown]
# ### Exercise 10.4  ANIL's split  (difficulty 2/5, 6 min)
#
# Return the parameters after a step that moves the submodule `head` alone. Names are paths: `head.weight` lies in `head`, but `header.weight` does not. The head `""` is the whole model.
#
# The body's tensors go through as they are. Everything keeps its graph, `gradients` too.
#
# | `params`, `gradients` | `lr` | `head` | returned |
# |---|---|---|---|
# | dictionaries, same names in any order | a number | a path such as `"net.out"` | a new dictionary, all names |


# %%
def anil_step(params: Params, gradients: Params, lr: float, head: str) -> Params:
    """A step of the submodule `head` alone; "" is the whole model.
    Dictionaries -> a new one with all names.
    """
    # BEGIN SOLUTION
    moved = dict(params)
    for name in params:
        if head == "" or name.startswith(head + "."):
            moved[name] = params[name] - lr * gradients[name]
    return moved
    # END SOLUTION


anil_step = check("10.4", anil_step)

# %% [markdown]
# ## Meet the package
#
# Each method differs from `MAML` by a few lines:
#
# ```diff
#   # Meta-SGD: a parameter for every parameter
# + self.rates = nn.ParameterList(torch.full_like(p, lr) for p in trainable(model).values())
# - adapt(loss, trainable(model), lr=lr, steps=steps)
# + adapt(loss, trainable(model), lr=named_rates, steps=steps)
#
#   # ANIL: the head is the model, and the body's features are its inputs
# - adapt(support_loss(model, episode), trainable(model), ...)
# + adapt(support_loss(head, features), trainable(head), ...)
#
#   # Reptile: no graph, and a displacement for a gradient
# - loss = query_loss(adapt(..., track=True)); loss.backward()
# + displacement = theta - adapt(..., track=False)
# ```
#
# Now your functions meet the package, and the package three identities.

# %% tags=["nbval-check-output"]
params = {name: p.detach() for name, p in net.named_parameters()}
task_loss = package.support_loss(net, tasks[0])
slopes = torch.func.grad(task_loss)(params)
signed = {name: 0.1 * torch.randn_like(p) for name, p in params.items()}
for mine, theirs in (
    (
        meta_sgd_step(params, slopes, signed),
        package.adapt(task_loss, params, lr=signed, steps=1),
    ),
    (
        anil_step(params, slopes, 0.1, ""),
        package.adapt(task_loss, params, lr=0.1, steps=1),
    ),
):
    assert all(torch.allclose(mine[name], theirs[name]) for name in params)
exact = outer_gradient(MAML(net, 0.05, 3))
assert torch.allclose(outer_gradient(MetaSGD(net, 0.05, 3))[: len(exact)], exact)
print("Meta-SGD with one constant rate = MAML")
assert torch.allclose(outer_gradient(ANIL(net, 0.05, 3, head="")), exact)
assert not torch.allclose(outer_gradient(ANIL(net, 0.05, 3)), exact)
print("ANIL with the whole net as head = MAML")
on_support = torch.stack(
    [F.mse_loss(net(task.support_x), task.support_y) for task in tasks]
).mean()
sgd = flat(torch.autograd.grad(on_support, list(net.parameters())))
assert torch.allclose(outer_gradient(Reptile(net, 0.05, 1)), 0.05 * sgd)
print("Reptile with one plain step = the inner rate times an SGD step on the support")
print(inspect.getsource(MetaSGD.adapted))

# %% [markdown]
# ## Train for real
#
# The tasks are sine curves as in lesson 07. Every method gets 300 updates of 25 tasks, 20 points a task, the same start and the same inner and outer rate, 0.03 and 0.003.
#
# | | inner steps in training | points of a task | Adam, the outer optimiser, receives |
# |---|---|---|---|
# | Reptile | 5, of 10 points each, because with one it would be joint training | 20 support | the mean of $\theta - \theta_\tau$ in place of a gradient; its rate stands for $\varepsilon$ |
# | all others | 1 | 10 support, 10 query | their outer gradient |

# %%
UPDATES, TASKS, test = 300, 25, SinusoidSampler(10, 10, seed=99)


def sine_net() -> nn.Module:
    torch.manual_seed(0)  # all start from the same weights
    return mlp()


# %%
family = {
    "MAML": MAML(sine_net(), 0.03, 1),
    "FOMAML": MAML(sine_net(), 0.03, 1, first_order=True),
    "ANIL": ANIL(sine_net(), 0.03, 1),
    "Meta-SGD": MetaSGD(sine_net(), 0.03, 1),
    "Reptile": Reptile(sine_net(), 0.03, 5, batch=10),
}
points = {
    name: (
        SinusoidSampler(20, 1, seed=0)
        if name == "Reptile"
        else SinusoidSampler(10, 10, seed=0)
    )
    for name in family
}

# %%
for name, learner in family.items():
    history = fit(
        learner,
        points[name],
        steps=UPDATES,
        tasks=TASKS,
        lr=3e-3,
        progress=name == "MAML",
    )
    print(
        f"{name:9s} training loss over the last 20 updates "
        f"{statistics.mean(history.loss[-20:]):.2f}"
    )

# %% [markdown]
# These losses do not compare: Reptile's is taken after five steps and on other points.
#
# ## Evaluate honestly
#
# The test has new curves, ten support points each. Differences are [paired](../lessons/GLOSSARY.md#paired-comparison "配对比较"), curve by curve, and lower is better. Every learner is tested with one step and with five, whatever it was trained with. The baseline is MAML's start without a step.

# %%
found = {}
for name, learner in family.items():
    for learner.test_steps in (1, 5):  # the loop variable is the attribute
        result = evaluate(learner, test, 300, metric="mse")
        found[name, learner.test_steps] = result
    learner.test_steps = None

# %%
family["MAML"].test_steps = 0
start = evaluate(family["MAML"], test, 300, metric="mse")
family["MAML"].test_steps = None
print(f"MAML's start, no step: mean squared error {start.mean:.2f} ± {start.ci95:.2f}")
for steps in (1, 5):
    print(f"\n{steps} test step{'s' * (steps > 1)}")
    for name in METHODS:
        result, base = found[name, steps], found["MAML", steps]
        if not result.mean < 100:
            print(f"  {name:9s} diverges")
            continue
        gap = f"   minus MAML: {compare(result, base)}" if name != "MAML" else ""
        print(f"  {name:9s} {result.mean:.2f} ± {result.ci95:.2f}{gap}")

# %% [markdown]
# | test steps | against MAML with as many |
# |---|---|
# | 1 | Meta-SGD far ahead, ANIL not separated, Reptile about 0.1 behind, FOMAML clearly behind |
# | 5 | Reptile 0.15 ahead, FOMAML behind; ANIL not separated (its interval is as wide as its mean; a few curves that blow up would explain it); Meta-SGD diverges, and a likely cause is that its rates were learned for one step |
#
# Compare MAML's one step with Reptile's five, as in training, and Reptile would seem to lead by 0.4.
#
# One seed, one budget, one rate for all: this orders *these* runs, not methods. With seeds 1 and 2 in `sine_net` and the training samplers, Reptile stood level with MAML after one step and led after five. What did an update cost?

# %%
ratios = {name: [] for name in family}
for turn in range(11):
    clock = {}
    for name, learner in family.items():
        episodes, began = points[name].batch(turn * TASKS, TASKS), time.process_time()
        learner.train().training_step(episodes).backward()
        clock[name] = time.process_time() - began
        learner.zero_grad()
        learner.eval()
    for name in family:
        ratios[name].append(clock[name] / clock["MAML"])
print(
    "an update, MAML = 1:",
    ", ".join(f"{name} {statistics.median(r[1:]):.1f}" for name, r in ratios.items()),
)

# %% [markdown]
# Here only FOMAML is cheap: Reptile takes five inner steps, and ANIL finds little to save in three small layers.
#
# ## Explore
#
# Predict, then run:
#
# | | look at | question |
# |---|---|---|
# | 1 | more test steps | which learners gain from more than they were trained with, and which break? |
# | 2 | Meta-SGD's rates, which all began at 0.03 | which have become negative, and which have not moved? |
# | 3 | MAML's trained net with ANIL's inner loop | does its head alone suffice? |

# %% tags=["draws"]
counts, curves = (0, 1, 2, 3, 5, 10), {}
figure, axis = new(7.5, 3.2)
for name, learner in family.items():
    errors = []
    for learner.test_steps in counts:
        known = found.get((name, learner.test_steps))
        if known is None:
            errors.append(evaluate(learner, test, 100, metric="mse").mean)
        else:  # the first 100 of the 300 curves above
            errors.append(float(known.per_episode[:100].mean()))
    learner.test_steps = None
    # too large and not a number: on the upper edge
    curves[name] = [e if e < 20 else 20.0 for e in errors]
    axis.plot(counts, curves[name], label=name, **look[name])
axis.set(
    xlabel="inner steps in the test",
    ylabel="mean squared error",
    yscale="log",
    ylim=(0.1, 23),
    xticks=counts,
)
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
broken = [name for name, errors in curves.items() if errors[-1] >= 20]
gains = [name for name, errors in curves.items() if errors[-1] < errors[1]]
words = (
    f"10 steps are better than 1 for: {', '.join(gains) or 'none'}. They end at 20 or "
    f"above: {', '.join(broken) or 'none'}."
)
print(words)
show(
    figure,
    "Mean squared error of five learners against the number of inner steps in the "
    f"test, on a logarithmic axis that ends at 20. {words}",
)

# %% tags=["draws"]
learned = family["Meta-SGD"].named_rates()
figure, axes = new(9, 2.4, columns=3, sharey=True)
negative, unmoved = {}, {}
for axis, layer in zip(axes, ("0", "2", "4")):
    values = flat(
        r.detach() for name, r in learned.items() if name.startswith(f"{layer}.")
    )
    negative[layer] = float((values < 0).double().mean())
    unmoved[layer] = float((values == 0.03).double().mean())
    axis.hist(values.clamp(-0.2, 0.3), bins=40, color=look["Meta-SGD"]["color"])
    axis.axvline(0.03, color="black", linestyle="--", label="all began here")
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set(
        xlabel="rate, cut at -0.2 and 0.3",
        title=f"layer {layer}: {negative[layer]:.0%} negative",
        xlim=(-0.22, 0.32),
        yscale="log",
    )
axes[0].set(ylabel="rates")
axes[2].legend(fontsize=8, loc="upper right")
told = ", ".join(f"layer {layer} {share:.0%}" for layer, share in negative.items())
still = ", ".join(f"layer {layer} {share:.0%}" for layer, share in unmoved.items())
show(
    figure,
    "Histograms of Meta-SGD's learned rates for three layers, counts on a logarithmic "
    f"axis. All began at 0.03. Negative: {told}. Exactly where they began: {still}.",
)

# %%
body = family["Meta-SGD"].model
silent = (body[:4](torch.linspace(-5, 5, 1001)[:, None]) == 0).all(0)
at_rest = (learned["2.weight"] == 0.03).double().mean(1)  # a row: what one unit reads
print("negative rates:", told)
print("exactly at 0.03:", still)
print(
    f"of layer 2's weights into its {int(silent.sum())} silent units: "
    f"{at_rest[silent].mean():.0%}; into all others: {at_rest[~silent].mean():.0%}"
)

# %%
head_only = ANIL(family["MAML"].model, 0.03, 1)  # MAML's weights, ANIL's inner loop
result, whole = evaluate(head_only, test, 300, metric="mse"), found["MAML", 1]
print(f"MAML's net, all of it adapts: {whole.mean:.2f}")
print(
    f"MAML's net, head alone:       {result.mean:.2f}; minus all: "
    f"{compare(result, whole)}"
)
print(f"ANIL's net, trained so:       {found['ANIL', 1].mean:.2f}")
share = (start.mean - result.mean) / (start.mean - whole.mean)
print(f"the head's share of what the step gains: {share:.0%}")

# %% [markdown]
# <details><summary>Answers</summary>
#
# **1.** MAML, FOMAML and Reptile are better after ten steps than after one. ANIL and Meta-SGD break. At five steps ANIL's interval above was as wide as its mean: a few curves blow up while most do well, and among the 100 curves of the figure they weigh more than among the 300 of the table. Meta-SGD does as well with two steps as with one, but its rates were learned for one, and a third step already harms. In a valley, a rate above $2/h$ overshoots farther with every step, and a negative rate, repeated, climbs on.
#
# **2.** About half of the first layer's rates are negative, and fewer in the later layers. The spike at 0.03 holds rates that never moved. A rate learns only where the inner gradient is not zero, and a weight into a ReLU unit that never fires has none: most weights into silent units are still at 0.03, but few of those into firing ones. The weights into silent units that did move belong to units that fired for some updates and then fell silent.
#
# **3.** The step lowers MAML's error from 2.71 to about 1.23, and the head alone to 1.62. So the head brings about three quarters of the gain in this run, but with seeds 1 and 2 it was 44 and 43 %. Two of three seeds thus say "less than half": a net trained as MAML uses its body's step too. A net that was trained as ANIL manages without, and is not separated from MAML.
#
# </details>
#
# ## Cost against accuracy, on pictures
#
# Glyphs, 5-way 1-shot, Conv4 of width 32, only *two* training seeds. Every row saw equally many training tasks of 30 pictures each. ANIL and Meta-SGD run at MAML's inner rate.
#
# | Reptile | because |
# |---|---|
# | trains with five shots | with one, every inner step would see the same rows |
# | takes 20 test steps | its authors, too, test with more steps than they train |
# | draws one query per class | only its training curve reads it; no update does |

# %%
story = json.loads(asset("maml_comparison.json").read_text(encoding="utf-8"))
labels = list(dict.fromkeys(row["label"] for row in story["rows"]))
print(
    f"{story['train']['steps']} updates of {story['train']['tasks']} tasks for "
    "every row"
)
print(
    f"{'':14s}{'shots':>6s}{'queries':>9s}{'inner rate':>12s}{'inner steps':>13s}"
    f"{'test steps':>12s}{'outer rate':>12s}"
)
for label in labels:
    given = story["given"][label]
    own = given["settings"]
    inner = [
        own.get("inner_lr", "-"),
        own.get("inner_steps", "-"),
        own.get("test_steps", own.get("inner_steps", "-")),
    ]
    cells = "".join(
        f"{value!s:>{w}s}"
        for value, w in zip(
            [given["shot"], given["query"], *inner, given["lr"]], (6, 9, 12, 13, 12, 12)
        )
    )
    print(f"{label:14s}{cells}")

# %%
possible = story["test"]["way"] * story["test"]["query"]
right = {  # accuracies [seeds, E]
    label: (
        torch.tensor(
            [row["correct"] for row in story["rows"] if row["label"] == label]
        ).double()
        / possible
    )
    for label in labels
}
size = {row["label"]: row["parameters"] for row in story["rows"]}
seconds = {
    label: statistics.mean(
        r["train_seconds"] for r in story["rows"] if r["label"] == label
    )
    for label in labels
}
cost = {label: seconds[label] / seconds["MAML"] for label in labels}

# %%
print(
    f"{story['test']['episodes']} test episodes, inductive; minus MAML: paired over "
    "episodes, then each seed alone"
)
print(
    f"{'':14s}{'accuracy':>15s}{'parameters':>12s}{'update':>8s}{'training':>10s}   "
    "minus MAML"
)
for label in labels:
    mean, half = mean_and_ci95(right[label].mean(0))
    gaps = right[label] - right["MAML"]
    gap, width = mean_and_ci95(gaps.mean(0)) if label != "MAML" else (0.0, 0.0)
    survives = abs(gap) > width and bool((gaps.mean(1) * gap > 0).all())
    line = (
        f"{label:14s}{mean:9.1%} ± {half:.1%}{size[label]:12,d}"
        f"{story['step_ratio'][label]:7.2f}x{cost[label]:9.2f}x"
    )
    seeds = ", ".join(f"{value:+.1%}" for value in gaps.mean(1).tolist())
    print(
        line
        + (
            ""
            if label == "MAML"
            else f"   {gap:+.1%} ± {width:.1%} ({seeds}){' *' if survives else ''}"
        )
    )
print(
    "* the interval leaves out 0 and both seeds agree in sign. Update, training: CPU "
    "time against MAML's"
)

# %% tags=["draws"]
figure, axis = new(7.5, 3.4)
for label in labels:
    mean, half = mean_and_ci95(right[label].mean(0))
    style = look[label.removesuffix(" at 0.4")]
    hollow = {"markerfacecolor": "white"} if label.endswith("0.4") else {}
    axis.errorbar(
        story["step_ratio"][label],
        mean,
        yerr=half,
        capsize=3,
        label=label,
        markersize=8,
        linestyle="none",
        **style,
        **hollow,
    )
    axis.scatter(
        [story["step_ratio"][label]] * len(right[label]),
        right[label].mean(1),
        s=14,
        facecolor="none",
        edgecolor=style["color"],
    )
axis.set(
    xlabel="CPU time of an update, MAML = 1",
    ylabel="5-way 1-shot accuracy",
    xlim=(0, None),
)
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
told = ", ".join(
    f"{label} {right[label].mean():.1%} at {story['step_ratio'][label]:.2f}"
    for label in labels
)
show(
    figure,
    "Accuracy with 95 % intervals over the episodes against the CPU time of an "
    f"update, MAML = 1; small rings are the two seeds. Accuracy at cost: {told}.",
)

# %% [markdown]
# **The headline: ProtoNet beats the whole family.** It is 3.8 ± 0.6 points above MAML at 0.18 of the cost. Within the family, ANIL keeps all but two points for a quarter of the cost, Reptile loses 3.9 ± 0.6 at 0.72, and Meta-SGD is not separated.
#
# FOMAML loses 15 points at MAML's rate, and 5 at 0.1, chosen on validation classes. *Not covered*: photographs, longer training, tuning of every row.

# %% [markdown]
# ## Bug hunt: it learns with five steps, not with one
#
# **Symptom.** The function below should return Reptile's direction. On the two valleys it seems to work with five inner steps. With one, nothing is ever learned, and no error says so.


# %%
def served(
    support_gradient: Gradient,
    query_gradient: Gradient,
    theta: Tensor,
    lr: float,
    steps: int,
) -> Tensor:
    """Reptile's direction for one task, theta [P] -> [P]."""
    history = []
    for _ in range(steps):
        history.append(theta)
        theta = theta - lr * support_gradient(theta)
    return history[0] - history[-1]


# %%
for steps in (5, 1):
    place = torch.tensor([1.5])
    for _ in range(2000):
        place = place - epsilon * torch.stack(
            [served(g, g, place, rate, steps) for g in valleys]
        ).mean(0)
    expected = rest(factors(rate, steps)["Reptile"])
    print(
        f"{steps} inner steps: from 1.50 to {float(place):.2f}, closed form "
        f"{expected:.2f}"
    )

# %% [markdown]
# ### Exercise 10.5  Bug hunt: is the displacement right?  (difficulty 3/5, 10 min)
#
# Write the test that rings: return `True` when an implementation of Reptile's direction for one task is *wrong*. The faults differ in kind and in size. A sound one never calls `query_gradient`. On one loss you know the truth without walking: in a 1-D valley the displacement is $\big(1 - (1 - \alpha h)^J\big)(\theta - b)$. With $P$ parameters you can test $P$ valleys at once, each with its own $h$ and $b$.
#
# | you choose | you call | rounding does not count |
# |---|---|---|
# | `theta` `[P]`, both gradients `[P]` to `[P]`, `lr`, `steps` | `direction(support_gradient, query_gradient, theta, lr, steps)`, returns `[P]` | `torch.allclose(a, b, rtol=1e-4, atol=1e-5)` |


# %%
def exposes_displacement(direction: Callable) -> bool:
    """True when an implementation of Reptile's direction for one task is wrong."""
    # BEGIN SOLUTION
    h, b, theta = torch.tensor([[2.0, 0.5, 1.0], [1.0, -2.0, 0.0], [4.0, 1.0, -1.5]])
    walked, other, lr = (lambda t: h * (t - b)), (lambda t: h * (t + 3.0)), 0.15
    for steps in (1, 2, 5):
        closed = (1 - (1 - lr * h) ** steps) * (theta - b)
        found = direction(walked, other, theta.clone(), lr, steps)
        if not torch.allclose(found, closed, rtol=1e-4, atol=1e-5):
            return True
    return False
    # END SOLUTION


exposes_displacement = check("10.5", exposes_displacement)

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# `history` is filled *before* the step, so its last entry is one step short of the end. With five steps four are counted, and the start learns, but comes to rest at 0.37 instead of 0.40. With one step, start and "end" are the same tensor, and the displacement is zero.
#
# The bug is real. [GBML](https://github.com/sungyubkim/GBML/blob/master/gbml/reptile.py), a collection of gradient-based meta-learners, reads `fmodel.parameters(time=step)` after its inner loop, where `step` is the last index: one too few, since time 0 is the start. Its table has 43.4 % for Reptile on mini-ImageNet, 5-way 1-shot, where the paper has 47.07 %; we do not know how much of that is the missing step. Its inner loop also draws its rows from the queries, perhaps on purpose, since Reptile trains with more shots than it is tested with.
#
# </details>


# %% tags=["nbval-check-output"]
def mended(
    support_gradient: Gradient,
    query_gradient: Gradient,
    theta: Tensor,
    lr: float,
    steps: int,
) -> Tensor:
    history = [theta]
    for _ in range(steps):
        history.append(history[-1] - lr * support_gradient(history[-1]))
    return history[0] - history[-1]


def turned(*arguments) -> Tensor:
    return -mended(*arguments)


def on_queries(support_gradient: Gradient, query_gradient: Gradient, *others) -> Tensor:
    return mended(query_gradient, query_gradient, *others)


for name, direction in {
    "served": served,
    "turned": turned,
    "on queries": on_queries,
    "mended": mended,
}.items():
    print(f"{name:11s} wrong: {exposes_displacement(direction)}")
assert not exposes_displacement(mended)

# %% [markdown]
# ## Quiz
#
# **1. FOMAML ignores the second derivative. Does it still need the queries?**
# (a) no, (b) yes, (c) only with several steps
#
# <details><summary>Answer</summary>
#
# (b). Its gradient is the *query* gradient at $\theta'$. Without queries you would ask the support, which the last inner step has just fitted: this speaks against (a). The number of steps plays no part, so (c) is wrong.
#
# </details>
#
# **2. Reptile with one plain inner step on all support rows. What is it?**
# (a) FOMAML, (b) joint training, (c) MAML with a small rate
#
# <details><summary>Answer</summary>
#
# (b). The displacement is the rate times the support gradient at the start. FOMAML, (a), asks at the *end* of the step, and other rows. So does MAML, (c), with a second derivative besides.
#
# </details>
#
# **3. To first order in $\alpha$, MAML's mean outer gradient is $G - 2\alpha A$ and FOMAML's is $G - \alpha A$. What does FOMAML lose?**
# (a) all of the pull towards agreement, (b) half of it, (c) nothing, since $\alpha$ is small
#
# <details><summary>Answer</summary>
#
# (b). Moving the query gradient to the end of the step already brings one $\alpha A$, so (a) is wrong; the second derivative brings the other. A small $\alpha$ makes both terms small, but their ratio stays, which speaks against (c).
#
# </details>

# %% [markdown]
# **4. A learned rate of Meta-SGD is negative. Broken?**
# (a) yes, clamp it, (b) no, (c) yes, the outer rate is too large
#
# <details><summary>Answer</summary>
#
# (b). The outer loop judges only what the whole step brings for the *queries*. Moving one parameter up its support loss may help there, together with all others. Clamping, (a), gives another method. A sign says nothing about the outer rate, so (c) does not follow.
#
# </details>
#
# **5. Where does ANIL save most?**
# (a) with many inner steps and a deep body, (b) with one linear layer, (c) at test time only
#
# <details><summary>Answer</summary>
#
# (a). The body's features are computed once, however many steps the head takes. With a single layer the head *is* the net and ANIL is MAML, so (b) saves nothing. Training saves as well, which rules out (c).
#
# </details>
#
# **6. "Our first-order version loses 20 points to MAML, so second derivatives matter." What do you ask first?**
# (a) which inner rate, and was it tuned, (b) which GPU, (c) nothing: the numbers speak
#
# <details><summary>Answer</summary>
#
# (a). FOMAML's error grows with the rate, so at MAML's favourite rate MAML plays at home. Each method deserves its own rate, and other seeds. A GPU, (b), changes seconds, not points. (c) forgets both.
#
# </details>

# %% [markdown]
# ## Summary
#
# | method | leaves out or adds | mean outer gradient, small $\alpha$ | identity to test it by |
# |---|---|---|---|
# | MAML | | $G - 2\alpha A$ | |
# | FOMAML | leaves out $I - \alpha H$ | $G - \alpha A$ | at rate 0 it equals MAML |
# | Reptile | leaves out queries and graph | $\alpha$ times $JG - \tfrac{J(J-1)}{2}\alpha A$ | one step = rate × SGD on the task |
# | Meta-SGD | adds a signed rate for each parameter | | constant rates = MAML |
# | ANIL | leaves out the body's inner loop | | head `""` = MAML |
# | later | in acting, first order led second order after one step: [21](../notebooks/21_acting.ipynb) | | |
#
# Pitfalls: an end read too early; a turned sign; learned rates with another number of steps; one method's rate, or its number of test steps, for all.
#
# From memory: what does each method leave out of MAML's update, or add? Next, the inner loop itself is learned. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Finn, Abbeel and Levine (2017), *Model-Agnostic Meta-Learning* | section 5.2: first-order version |
# | Nichol, Achiam and Schulman (2018), *On First-Order Meta-Learning Algorithms* | section 3: Reptile; section 5: the expansion |
# | Li, Zhou, Chen and Li (2017), *Meta-SGD* | learned rates and signs |
# | Raghu, Raghu, Bengio and Vinyals (2020), *Rapid Learning or Feature Reuse?* | section 4: ANIL |
# | Antoniou, Edwards and Storkey (2019), *How to train your MAML* | multi-step loss, rates for each layer and step |

# %% [markdown]
# ### Exercise 10.6 ★  MAML++: a loss after every step  (difficulty 4/5, 12 min)
#
# MAML++ asks the queries after *every* inner step. Return $\sum_j w_j\, \mathcal{L}_\mathcal{Q}(\theta_j)$ for $j = 1 \dots J$, where $\theta_j$ is reached by $j$ steps and step $j$ has the rate $\alpha_j$. The weights need not add up to 1, and the outer loop learns `theta` and `rates` through all steps. `torch.func.grad(loss)(theta)` gives a gradient with a graph.
#
# | `support_loss`, `query_loss` | `theta` | `rates`, `weights` | returned |
# |---|---|---|---|
# | functions `[P]` to scalar | `[P]` | `[J]` | scalar |


# %%
def multi_step_loss(
    support_loss: Callable,
    query_loss: Callable,
    theta: Tensor,
    rates: Tensor,
    weights: Tensor,
) -> Tensor:
    """Weighted query losses after each inner step.
    theta [P], rates [J], weights [J] -> scalar.
    """
    # BEGIN SOLUTION
    losses = []
    for rate_of_step in rates:
        theta = theta - rate_of_step * torch.func.grad(support_loss)(theta)
        losses.append(query_loss(theta))
    return (weights * torch.stack(losses)).sum()
    # END SOLUTION


multi_step_loss = check("10.6", multi_step_loss)

# %% [markdown]
# For a net, `adapt(..., steps=1)` is called step by step, with a learned rate for each step and tensor. The paper also *anneals* the weights $w_j$: at first all losses count alike, later only the last. Here the shift takes half the training.


# %%
class PlusPlus(FewShotLearner):
    """MAML with a learned rate for each step and tensor, and a loss after every step.
    annealed: the number of updates until only the last loss counts; 0: equal weights.
    """

    def __init__(self, model: nn.Module, lr: float, steps: int, annealed: int) -> None:
        super().__init__()
        self.model, self.annealed, self.updates = model, annealed, 0
        self.names = list(package.trainable(model))
        self.rates = nn.Parameter(torch.full((steps, len(self.names)), lr))

    def after_each_step(self, episode: Episode) -> list[Params]:
        loss = package.support_loss(self.model, episode)
        theta, places = package.trainable(self.model), []
        for rates in self.rates:
            theta = package.adapt(loss, theta, lr=dict(zip(self.names, rates)), steps=1)
            places.append(theta)
        return places

    def forward(self, episode: Episode) -> Tensor:
        return package.predict(self.model, self.after_each_step(episode)[-1], episode)

    def training_step(self, episodes: Episode) -> Tensor:
        steps = len(self.rates)
        late = min(1.0, self.updates / self.annealed) if self.annealed else 0.0
        weights = [(1 - late) / steps + late * (j == steps - 1) for j in range(steps)]
        self.updates += 1

        def loss(*tensors: Tensor) -> Tensor:
            episode = Episode(*tensors)
            places = self.after_each_step(episode)
            found = [package.predict(self.model, p, episode) for p in places]
            return sum(
                w * F.mse_loss(p, episode.query_y) for w, p in zip(weights, found)
            )

        return torch.func.vmap(loss)(*tensors_of(episodes)).mean()


# %%
extra = {
    "MAML, 3 steps": MAML(sine_net(), 0.03, 3),
    "MAML++, annealed": PlusPlus(sine_net(), 0.03, 3, annealed=UPDATES // 2),
}
results, source = {}, SinusoidSampler(10, 10, seed=0)
for name, learner in extra.items():
    fit(learner, source, steps=UPDATES, tasks=TASKS, lr=3e-3, progress=False)
    results[name] = evaluate(learner, test, 300, metric="mse")
    print(f"{name:17s} {results[name]}")
    if isinstance(learner, PlusPlus):
        print(
            "  minus MAML, 3 steps:", compare(results[name], results["MAML, 3 steps"])
        )

# %% [markdown]
# Annealed, MAML++ beats MAML with three steps: with seeds 0, 1 and 2 by 0.2 to 0.5. It also learns its rates, so this gain is not the extra losses' alone. Constant weights are a gamble: equal ones (`annealed=0`) won too, by 0.3, but weights of 0.2, 0.3 and 0.5 ended far worse than MAML with one seed. Even rounding matters: on one thread the annealed lead shrank by more than half.

# %% [markdown]
# ### Exercise 10.7 ★  The pull towards agreement  (difficulty 3/5, 8 min)
#
# Return $A$ for one task. `losses` are the losses of $M$ draws of its rows, as functions of the parameters, and $A$ is the mean of $H_j\, g_i$ over all ordered pairs of *different* draws. Hessians are allowed, but the product rule above tells you a way without any.
#
# | `losses` | `theta` | returned |
# |---|---|---|
# | a list of $M \geq 2$ functions `[P]` to scalar | `[P]` | `[P]` |


# %%
def agreement_pull(losses: list[Callable], theta: Tensor) -> Tensor:
    """A: mean of H_j g_i over pairs of different draws.
    losses: M functions [P] -> scalar; theta [P] -> [P].
    """
    # BEGIN SOLUTION

    def agreement(place: Tensor) -> Tensor:
        drawn = [torch.func.grad(loss)(place) for loss in losses]
        products = [a @ b for a in drawn for b in drawn if a is not b]
        return torch.stack(products).mean()

    return torch.func.grad(agreement)(theta) / 2
    # END SOLUTION


agreement_pull = check("10.7", agreement_pull)
pulls = [agreement_pull(losses_of(pair), vector) for pair in orders]
assert torch.allclose(torch.stack(pulls).mean(0), A)
print("your function finds the same A as the table")
progress("10")
