# %% [markdown]
# # 10 Cheaper MAML: what may be left out
#
# You drop the second derivative, then the queries, then most of the inner loop, and measure what each of them was worth.
#
# Prerequisites: lessons 00 to 09. Planned time: 60 minutes.
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
# 2. **use** a displacement as a gradient (10.2),
# 3. **learn** inner rates, and confine the inner loop (10.3, 10.4),
# 4. **expose** a wrong displacement by a closed form (10.5).

# %% [markdown]
# ## A puzzle: two valleys
#
# One parameter, two tasks: a steep valley with its bottom at 0, a wide one with its bottom at 1. An inner step goes 80 % of the way in the steep one, 20 % in the wide one.
#
# Joint training rests at 0.2. Where do MAML, its first-order version and Reptile rest?
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
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_classroom import check, progress
from fsl_course import Episode, SinusoidSampler, compare, evaluate, fit
from fsl_course.data.assets import asset
from fsl_course.evaluation import mean_and_ci95
from fsl_course.figures import CHANCE, SLOTS, new, show, slot_style
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

# %% [markdown]
# ## The idea in one picture
#
# One start, two tasks. The [inner loop](../lessons/GLOSSARY.md#inner-loop "内循环") brings both down. Before it the steep valley has the larger loss, after it the wide one.

# %%
steepness, bottom, rate = torch.tensor([4.0, 1.0]), torch.tensor([0.0, 1.0]), 0.2
places = torch.linspace(-0.4, 1.6, 201)
figure, axis = new(7.5, 3)
for task, name in enumerate(("steep valley", "wide valley")):
    h, b = float(steepness[task]), float(bottom[task])
    style = slot_style(task)
    axis.plot(
        places,
        h / 2 * (places - b) ** 2,
        color=style["color"],
        linestyle=("-", "--")[task],
        label=name,
    )
    start, end = 0.5, 0.5 - rate * h * (0.5 - b)
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
# For one inner step, the outer gradient of MAML and of its [first-order approximation](../lessons/GLOSSARY.md#first-order-approximation "一阶近似"), FOMAML; below, Reptile's update.
#
# $$\nabla_{\text{MAML}} = (I - \alpha H)\, g, \qquad \nabla_{\text{FOMAML}} = g, \qquad g = \nabla \mathcal{L}_\mathcal{Q}(\theta')$$
#
# $$\theta \leftarrow \theta + \varepsilon \, \frac{1}{T} \sum_{t=1}^{T} (\theta_t - \theta)$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $\theta$, $\theta_t$ | `theta`, where the inner loop on task $t$ ends | `[D]`: all $D$ parameters; or a dictionary |
# | $\alpha$ | `lr`; in Meta-SGD `rates` | a number; a tensor like $\theta$ |
# | $H$ | never computed | `[D, D]`, Hessian of the support loss |
# | $g$ | `query_gradient(theta)` | `[D]` |
# | $\varepsilon$ | `epsilon` | outer rate |
# | $T$, $L$ | `len(gradients)`, `steps` | tasks; inner steps |

# %% [markdown]
# ## By hand
#
# A valley is $\tfrac{h}{2}(\theta - b)^2$ with gradient $h(\theta - b)$ and Hessian $h$. A step leaves $1 - \alpha h$ of the distance. So each method weighs a valley by its own factor of $(\theta - b)$:
#
# | method | factor | steep, $h = 4$ | wide, $h = 1$ |
# |---|---|---|---|
# | joint training | $h$ | 4 | 1 |
# | FOMAML | $h(1 - \alpha h)$ | you | you |
# | MAML | $h(1 - \alpha h)^2$ | you | you |
# | Reptile, $L$ steps | $1 - (1 - \alpha h)^L$ | you | you |
#
# With $\alpha = 0.2$ fill in the table. The resting place is wide / (steep + wide).


# %% tags=["nbval-check-output"]
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


# %% tags=["nbval-check-output"]
for name, factor in factors(rate, 1).items():
    print(
        f"{name:8s} one step    steep {factor[0]:.2f}  wide {factor[1]:.2f}  rests at "
        f"{rest(factor):.2f}"
    )
for steps in (5, 100):
    print(
        f"Reptile  {steps:3d} steps   rests at "
        f"{rest(factors(rate, steps)['Reptile']):.2f}"
    )

# %% tags=["nbval-check-output"]
theta = 0.5
for _ in range(500):  # the loop: one task after the other, the outer step written out
    pull = 0.0
    for h, b in ((4, 0), (1, 1)):
        adapted = theta - rate * h * (theta - b)
        pull += (1 - rate * h) * h * (adapted - b) / 2
    theta -= 0.5 * pull
assert abs(theta - rest(factors(rate, 1)["MAML"])) < 1e-4
print("the loop and the closed form agree: C")

# %% [markdown]
# **C.** The cheap versions do not find MAML's start less exactly: they look for *another* one. In a large net one start may suit all methods, so measure.
#
# ### Exercise 10.1  The first-order gradient  (difficulty 1/5, 5 min)
#
# FOMAML's outer gradient of one task: take `steps` inner steps down the support loss, return the query gradient at the end. `theta` stays as it is.
#
# | `support_gradient`, `query_gradient` | `theta` | `lr`, `steps` | returned |
# |---|---|---|---|
# | functions from `[D]` to `[D]` | `[D]` | a number; 0, 1, ... | `[D]` |


# %%
def first_order_gradient(
    support_gradient: Gradient,
    query_gradient: Gradient,
    theta: Tensor,
    lr: float,
    steps: int,
) -> Tensor:
    """FOMAML's outer gradient of one task. Gradients: [D] -> [D]; theta [D] -> [D]."""
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
# Predict: halve the inner rate. What happens to FOMAML's error?

# %%
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
tasks = SinusoidSampler(5, 5, seed=4, dtype=torch.float64).batch(0, 8)


def outer_gradient(learner: FewShotLearner) -> Tensor:
    """The gradient that `fit` would hand to the optimiser,
    in the net's parameters, as one vector.
    """
    loss = learner.train().training_step(tasks)
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]
    )


# %%
rates, errors = [0.02, 0.01, 0.005, 0.0025, 0.00125], {}
for steps in (1, 5):
    for lr in rates:
        exact = outer_gradient(MAML(net, lr, steps))
        error = (
            outer_gradient(MAML(net, lr, steps, first_order=True)) - exact
        ).norm() / exact.norm()
        errors.setdefault(steps, []).append(float(error))
    halved = [a / b for a, b in zip(errors[steps], errors[steps][1:])]
    print(
        f"{steps} inner steps: relative error",
        ", ".join(f"{e:.3f}" for e in errors[steps]),
    )
    print(
        "   error at one rate / at half of it:", ", ".join(f"{q:.2f}" for q in halved)
    )
assert abs(halved[-1] - 2) < 0.2  # it vanishes linearly with the rate ...
assert errors[1][-1] > 1e-4  # ... and is not zero

# %% [markdown]
# Half the rate, half the error: $(I - \alpha H)g - g = -\alpha H g$. The error is a term left out. It grows with the rate, the curvature and the number of steps.

# %% tags=["draws"]
figure, axes = new(9.5, 3, columns=2)
for slot, steps in enumerate((1, 5)):
    axes[0].loglog(
        rates,
        errors[steps],
        label=f"{steps} inner step{'s' * (steps > 1)}",
        **slot_style(slot),
    )
axes[0].loglog(
    rates,
    [errors[1][-1] * r / rates[-1] for r in rates],
    color=CHANCE,
    linestyle=":",
    label="linear",
)
axes[0].minorticks_off()
axes[0].set(
    xlabel="inner rate",
    ylabel="relative error",
    title="FOMAML's outer gradient",
    xticks=rates,
    xticklabels=rates,
)
axes[0].legend(fontsize=8)
span = torch.linspace(0.005, 0.245, 25).tolist()
for slot, name in enumerate(("joint", "FOMAML", "MAML", "Reptile")):
    label = "Reptile, 5 steps" if name == "Reptile" else name
    axes[1].plot(
        span,
        [rest(factors(lr, 5)[name]) for lr in span],
        markevery=4,
        label=label,
        **slot_style(slot),
    )
axes[1].axvline(rate, color=CHANCE, linestyle=":")
axes[1].set(
    xlabel="inner rate", ylabel="resting place", ylim=(0, 1.03), title="two valleys"
)
axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
show(
    figure,
    "Left: relative error of FOMAML's outer gradient against the inner rate on "
    "logarithmic axes; with 1 step it falls in line with the rate, with 5 steps it is "
    "larger and nears that slope where the rate is small. Right: resting places in "
    "the two valleys against the rate. All start near 0.2; joint training stays "
    "there, Reptile rises towards the middle, FOMAML and, faster, MAML climb "
    "towards 1.",
)

# %% [markdown]
# ## Reptile: the way you went is the gradient
#
# Train on a task as usual, then move the start a little towards the end. The way $\theta - \theta_t$ serves as a [pseudo-gradient](../lessons/GLOSSARY.md#pseudo-gradient "伪梯度"). No queries, no graph.
#
# *Serial*: one task, one move. *Batched*: the mean over tasks that all start from the same $\theta$.
#
# ### Exercise 10.2  Reptile's direction  (difficulty 2/5, 7 min)
#
# Return what an optimiser should *subtract*: the mean over tasks of $\theta - \theta_t$, where $\theta_t$ is reached by `steps` inner steps from `theta`. `theta` itself must not change.
#
# | `gradients` | `theta` | `lr`, `steps` | returned |
# |---|---|---|---|
# | a list of $T$ functions `[D]` to `[D]` | `[D]` | a number; 1, 2, ... | `[D]` |


# %%
def reptile_direction(
    gradients: list[Gradient], theta: Tensor, lr: float, steps: int
) -> Tensor:
    """Mean over tasks of theta - theta_task.
    gradients: T functions [D] -> [D]; theta [D] -> [D].
    """
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
# 1. The closed form: after L steps a valley has let go of (1 - alpha h)^L
# of the distance.
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
serial = batched = torch.tensor([1.5])
for turn in range(2000):
    serial = serial - 0.02 * reptile_direction([valleys[turn % 2]], serial, rate, 5)
    batched = batched - 0.02 * reptile_direction(valleys, batched, rate, 5)
print(f"serial rests at {float(serial):.2f}, batched at {float(batched):.2f}")

# %% [markdown]
# What do more steps gain? Take two on different rows of a task; $g_i$, $H_i$ belong to these rows, at the start. The second step follows about $g_2 - \alpha H_2 g_1$. Averaged over the draw of rows, its last term pulls towards starts where the two gradients *agree*. MAML's outer gradient has such a term, too:
#
# $$\mathbb{E}[H_2 g_1] = \tfrac{1}{2} \nabla\, \mathbb{E}[g_1 \cdot g_2]$$

# %% [markdown]
# ## Meta-SGD: learn the rates
#
# This one spends more: every parameter gets a learned rate, *sign included*. Twice the parameters.
#
# ### Exercise 10.3  Meta-SGD's step  (difficulty 1/5, 3 min)
#
# Return the parameters after one step with these rates, element by element. The outer loop must be able to learn `params` *and* `rates`.
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
# Does an inner step find new features, or only a new use for those that are there ([feature reuse](../lessons/GLOSSARY.md#feature-reuse "特征复用"))? ANIL bets on the second. Only the [head](../lessons/GLOSSARY.md#head "分类头") adapts. The [body](../lessons/GLOSSARY.md#body "主干") learns in the outer loop; a training picture passes it once.

# %% [markdown]
# ### Exercise 10.4  ANIL's split  (difficulty 2/5, 6 min)
#
# Return the parameters after a step that moves the submodule `head` alone. Names are paths: `head.weight` lies in `head`, `header.weight` does not. The head `""` is the whole model.
#
# The body's tensors go through as they are, graph included.
#
# | `params`, `gradients` | `lr` | `head` | returned |
# |---|---|---|---|
# | dictionaries, same names | a number | a path such as `"net.out"` | a new dictionary, all names |


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
#   # ANIL: the head is the model, features are its pictures
# - adapt(support_loss(model, episode), trainable(model), ...)
# + adapt(support_loss(head, features), trainable(head), ...)
#
#   # Reptile: no graph, and a displacement for a gradient
# - loss = query_loss(adapt(..., track=True)); loss.backward()
# + displacement = theta - adapt(..., track=False)
# ```
#
# Your functions against the package, and its three identities:

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

# %% tags=["nbval-check-output"]
exact = outer_gradient(MAML(net, 0.05, 3))
assert torch.allclose(outer_gradient(MetaSGD(net, 0.05, 3)), exact)
print("Meta-SGD with one constant rate = MAML")
assert torch.allclose(outer_gradient(ANIL(net, 0.05, 3, head="")), exact)
assert not torch.allclose(outer_gradient(ANIL(net, 0.05, 3)), exact)
print("ANIL with the whole net as head = MAML")
on_support = torch.stack(
    [F.mse_loss(net(task.support_x), task.support_y) for task in tasks]
).mean()
sgd = torch.cat(
    [g.flatten() for g in torch.autograd.grad(on_support, list(net.parameters()))]
)
assert torch.allclose(outer_gradient(Reptile(net, 0.05, 1)), 0.05 * sgd)
print("Reptile with one plain step = the inner rate times an SGD step on the support")
print(inspect.getsource(MetaSGD.adapted))

# %% [markdown]
# ## Train for real
#
# Sine curves as in lesson 07: 300 updates of 25 tasks, with 20 points a task for every method. One inner and one outer rate for all, from a short trial.
#
# | | inner steps | points of a task |
# |---|---|---|
# | Reptile | 5, of 10 points each | 20 support |
# | all others | 1 | 10 support, 10 query |

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
# ## Evaluate honestly
#
# New curves, ten support points, each learner with its steps of training. Differences are [paired](../lessons/GLOSSARY.md#paired-comparison "配对比较"), curve by curve. Lower is better.
#
# Baseline: MAML's start, without any inner step.

# %%
found = {
    name: evaluate(learner, test, 300, metric="mse") for name, learner in family.items()
}
family["MAML"].test_steps = 0
found["MAML's start"] = evaluate(family["MAML"], test, 300, metric="mse")
family["MAML"].test_steps = None
for name, result in found.items():
    print(f"{name:13s} mean squared error {result.mean:.3f} ± {result.ci95:.3f}")
    if name != "MAML":
        print(f"{'':13s} minus MAML: {compare(result, found['MAML'])}")

# %%
figure, axis = new(7, 2.6)
ordered = sorted(found, key=lambda name: -found[name].mean)
for place, name in enumerate(ordered):
    axis.errorbar(
        found[name].mean,
        place,
        xerr=found[name].ci95,
        color=SLOTS[0],
        marker="o",
        capsize=4,
    )
axis.set(
    yticks=range(len(ordered)),
    yticklabels=ordered,
    xlabel="mean squared error on new curves",
    xlim=(0, None),
)
told = ", ".join(f"{name} {found[name].mean:.2f}" for name in reversed(ordered))
show(
    figure,
    "Mean squared error with 95 % intervals over 300 new sine curves, best at the "
    f"top: {told}.",
)

# %% [markdown]
# One seed, one small budget: this orders *these* runs, not methods. What did an update cost? All take turns, so a busy machine slows them alike; yours will differ a little.

# %%
ratios = {name: [] for name in family}
for turn in range(11):
    clock = {}
    for name, learner in family.items():
        episodes = points[name].batch(turn * TASKS, TASKS)
        began = time.process_time()
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
# ## Explore
#
# 1. Which learners gain from *more* test steps than they were trained with, and which break? Predict, then run.
# 2. Which learned rates of Meta-SGD are negative?
# 3. Give MAML's trained net to ANIL: does its head alone suffice?

# %%
counts, curves = (0, 1, 2, 3, 5, 10), {}
figure, axis = new(7.5, 3.2)
for slot, (name, learner) in enumerate(family.items()):
    errors = []
    for learner.test_steps in counts:  # the loop variable is the attribute
        errors.append(evaluate(learner, test, 100, metric="mse").mean)
    learner.test_steps = None
    # too large and not a number: on the upper edge
    curves[name] = [e if e < 20 else 20.0 for e in errors]
    axis.plot(counts, curves[name], label=name, **slot_style(slot))
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

# %% [markdown]
# A rate that suits one step from the start need not suit the place where that step ends. Learned rates were fitted to one number of steps.

# %%
learned = family["Meta-SGD"].named_rates()
figure, axes = new(9, 2.4, columns=3, sharey=True)
negative = {}
for axis, layer in zip(axes, ("0", "2", "4")):
    values = torch.cat(
        [
            r.detach().flatten()
            for name, r in learned.items()
            if name.startswith(f"{layer}.")
        ]
    )
    negative[layer] = float((values < 0).double().mean())
    axis.hist(values.clamp(-0.2, 0.3), bins=40, color=SLOTS[0], density=True)
    axis.axvline(0.03, color=SLOTS[1], linestyle="--", label="all began here")
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set(
        xlabel="rate, cut at -0.2 and 0.3",
        title=f"layer {layer}: {negative[layer]:.0%} negative",
        xlim=(-0.22, 0.32),
    )
axes[0].set(ylabel="density")
axes[2].legend(fontsize=8, loc="upper right")
told = ", ".join(f"layer {layer} {share:.0%}" for layer, share in negative.items())
show(
    figure,
    "Histograms of Meta-SGD's learned rates for three layers. All began at 0.03. "
    f"Share of negative rates: {told}.",
)
print("negative rates:", told)

# %%
head_only = ANIL(family["MAML"].model, 0.03, 1)  # MAML's weights, ANIL's inner loop
result = evaluate(head_only, test, 300, metric="mse")
print(f"MAML's net, all of it adapts: {found['MAML'].mean:.3f}")
print(
    f"MAML's net, head alone:       {result.mean:.3f}; minus all: "
    f"{compare(result, found['MAML'])}"
)
print(f"ANIL's net, trained so:       {found['ANIL'].mean:.3f}")

# %% [markdown]
# ## Cost against accuracy, on pictures
#
# Glyphs, 5-way 1-shot, Conv4 of width 32, *two* training seeds, which is few. Every row saw as many training tasks, of 30 pictures each. The inner rates of ANIL and Meta-SGD are MAML's. A file counts the right queries of each test episode. Each row was given:

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
for slot, label in enumerate(labels):
    mean, half = mean_and_ci95(right[label].mean(0))
    axis.errorbar(
        story["step_ratio"][label],
        mean,
        yerr=half,
        capsize=3,
        label=label,
        markersize=8,
        linestyle="none",
        **slot_style(slot),
    )
    axis.scatter(
        [story["step_ratio"][label]] * len(right[label]),
        right[label].mean(1),
        s=14,
        facecolor="none",
        edgecolor=SLOTS[slot],
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
# Compare the two rows of FOMAML: its own inner rate, and MAML's larger one, which leaves out more of the gradient. Would each alone have told the same story?
#
# *Not covered*: photographs, longer training, careful tuning.

# %% [markdown]
# ## Bug hunt: it learns with five steps, not with one
#
# **Symptom.** This direction follows a published code base. On the two valleys it seems to work with five inner steps. With one, nothing is ever learned. No error, no warning.


# %%
def served(
    support_gradient: Gradient,
    query_gradient: Gradient,
    theta: Tensor,
    lr: float,
    steps: int,
) -> Tensor:
    """Reptile's direction for one task, theta [D] -> [D]."""
    history = []
    for _ in range(steps):
        history.append(theta)
        theta = theta - lr * support_gradient(theta)
    return history[0] - history[-1]


# %%
for steps in (5, 1):
    place = torch.tensor([1.5])
    for _ in range(2000):
        place = place - 0.02 * torch.stack(
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
# Return `True` when an implementation is *wrong*: signs are turned, ends read too early, the *query* loss is walked. On one loss you know the truth: in a 1-D valley the displacement is $\big(1 - (1 - \alpha h)^L\big)(\theta - b)$.
#
# | you choose | you call | rounding does not count |
# |---|---|---|
# | `theta` `[1]`, both gradients, `lr`, `steps` | `direction(support_gradient, query_gradient, theta, lr, steps)`, returns `[1]` | `torch.allclose(a, b, rtol=1e-3, atol=1e-4)` |


# %%
def exposes_displacement(direction: Callable) -> bool:
    """True when an implementation of Reptile's direction for one task is wrong."""
    # BEGIN SOLUTION
    h, b, lr, theta = 2.0, 1.0, 0.15, torch.tensor([4.0])
    for steps in (1, 2, 5):
        closed = (1 - (1 - lr * h) ** steps) * (theta - b)
        found = direction(
            lambda t: h * (t - b), lambda t: h * (t + 3.0), theta.clone(), lr, steps
        )
        if not torch.allclose(found, closed, rtol=1e-3, atol=1e-4):
            return True
    return False
    # END SOLUTION


exposes_displacement = check("10.5", exposes_displacement)
print("the served code is wrong:", exposes_displacement(served))

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# `history` is filled *before* the step: its last entry is one step short of the end. With five steps four are counted, and the start learns, to a slightly wrong place. With one step, start and "end" are the same tensor.
#
# A published code base read its history in this way, and let the inner loop walk on the query rows besides. With large nets and many steps neither need show in the accuracy.
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


# %% tags=["nbval-check-output"]
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
# (b). Its gradient is the *query* gradient at $\theta'$. Without queries one would ask the support, which the last inner step has just fitted: against (a). The number of steps plays no part, against (c). Reptile is the one that does without.
#
# </details>
#
# **2. Reptile with one plain inner step on all support rows. What is it?**
# (a) FOMAML, (b) joint training, (c) MAML with a small rate
#
# <details><summary>Answer</summary>
#
# (b). The displacement is the rate times the support gradient at the start. FOMAML asks at the *end* of the step, and other rows, against (a); MAML too, with a second derivative besides, against (c).
#
# </details>
#
# **3. A learned rate of Meta-SGD is negative. Broken?**
# (a) yes, clamp it, (b) no, (c) yes, the outer rate is too large
#
# <details><summary>Answer</summary>
#
# (b). The outer loop judges only what the step brings for the *queries*. To move one parameter up its support loss may help there, together with all others. Clamping, (a), gives another method. (c): nothing in a sign speaks of the outer rate.
#
# </details>

# %% [markdown]
# **4. Where does ANIL save most?**
# (a) with many inner steps and a deep body, (b) with one linear layer, (c) at test time only
#
# <details><summary>Answer</summary>
#
# (a). In training the body runs once for each picture, however many steps the head takes. With a single layer the head *is* the net, and ANIL is MAML: (b) saves nothing. Training saves as well, against (c).
#
# </details>
#
# **5. "Our first-order version loses 20 points to MAML, so second derivatives matter." What do you ask first?**
# (a) which inner rate, and was it tuned, (b) which GPU, (c) nothing: the numbers speak
#
# <details><summary>Answer</summary>
#
# (a). The error grows with the rate: at MAML's favourite rate MAML plays at home. Each method deserves its own, and other seeds. (b) changes seconds, not points. (c) forgets both.
#
# </details>

# %% [markdown]
# ## Summary
#
# | method | leaves out or adds | identity to test it by |
# |---|---|---|
# | FOMAML | the factor $I - \alpha H$ | error falls linearly with $\alpha$ |
# | Reptile | queries and graph | one step = rate × SGD on the task |
# | Meta-SGD | adds a signed rate for each parameter | constant rates = MAML |
# | ANIL | the body's inner loop | head `""` = MAML |
#
# Pitfalls: an end read too early; a turned sign; learned rates with other step counts; one method's rates for all.
#
# From memory: what does each method leave out of MAML's update, or add? Next, the inner loop itself is learned. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Finn, Abbeel and Levine (2017), *Model-Agnostic Meta-Learning* | section 5.2: first-order version |
# | Nichol, Achiam and Schulman (2018), *On First-Order Meta-Learning Algorithms* | algorithms 1 and 2; section 5: the expansion |
# | Li, Zhou, Chen and Li (2017), *Meta-SGD* | equation 2: learned rates and signs |
# | Raghu, Raghu, Bengio and Vinyals (2020), *Rapid Learning or Feature Reuse?* | section 4: ANIL |
# | Antoniou, Edwards and Storkey (2019), *How to train your MAML* | multi-step loss, rates for each layer and step |

# %% [markdown]
# ### Exercise 10.6 ★  MAML++: a loss after every step  (difficulty 4/5, 12 min)
#
# MAML++ asks the queries after *every* inner step, and learns a rate for each step. Return $\sum_i w_i\, \mathcal{L}_\mathcal{Q}(\theta_i)$, where $\theta_i$ is reached by $i$ steps and step $i$ has rate $\alpha_i$. `torch.func.grad(loss)(theta)` gives a gradient with a graph.
#
# | `support_loss`, `query_loss` | `theta` | `rates`, `weights` | returned |
# |---|---|---|---|
# | functions `[D]` to scalar | `[D]` | `[L]` | scalar |


# %%
def multi_step_loss(
    support_loss: Callable,
    query_loss: Callable,
    theta: Tensor,
    rates: Tensor,
    weights: Tensor,
) -> Tensor:
    """Weighted query losses after each inner step.
    theta [D], rates [L], weights [L] -> scalar.
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
# For a net: `adapt(..., steps=1)`, called step by step, with a learned rate for each step and tensor. The paper shifts weight to the last step during training; here it stays.


# %%
class PlusPlus(FewShotLearner):
    """MAML with a learned rate for each step and tensor,
    and a loss after every step.
    """

    def __init__(self, model: nn.Module, lr: float, weights: list[float]) -> None:
        super().__init__()
        self.model, self.weights, self.names = (
            model,
            weights,
            list(package.trainable(model)),
        )
        self.rates = nn.Parameter(torch.full((len(weights), len(self.names)), lr))

    def after_each_step(self, episode: Episode) -> list[Params]:
        loss = package.support_loss(self.model, episode)
        theta = package.trainable(self.model)
        places = []
        for rates in self.rates:
            theta = package.adapt(loss, theta, lr=dict(zip(self.names, rates)), steps=1)
            places.append(theta)
        return places

    def forward(self, episode: Episode) -> Tensor:
        return package.predict(self.model, self.after_each_step(episode)[-1], episode)

    def training_step(self, episodes: Episode) -> Tensor:
        def loss(*tensors: Tensor) -> Tensor:
            episode = Episode(*tensors)
            predictions = [
                package.predict(self.model, p, episode)
                for p in self.after_each_step(episode)
            ]
            return sum(
                w * F.mse_loss(p, episode.query_y)
                for w, p in zip(self.weights, predictions)
            )

        return torch.func.vmap(loss)(*tensors_of(episodes)).mean()


# %%
extra = {
    "MAML, 3 steps": MAML(sine_net(), 0.03, 3),
    "MAML++": PlusPlus(sine_net(), 0.03, [0.2, 0.3, 0.5]),
}
results = {}
for name, learner in extra.items():
    fit(
        learner,
        SinusoidSampler(10, 10, seed=0),
        steps=UPDATES,
        tasks=TASKS,
        lr=3e-3,
        progress=False,
    )
    results[name] = evaluate(learner, test, 300, metric="mse")
    print(f"{name:14s} {results[name]}")
print(
    "MAML++ minus MAML, 3 steps:", compare(results["MAML++"], results["MAML, 3 steps"])
)
print(
    "mean rate of each step:",
    ", ".join(f"{r:.3f}" for r in extra["MAML++"].rates.mean(1).tolist()),
)
progress("10")
