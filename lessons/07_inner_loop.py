# %% [markdown]
# # 07 The inner loop: a start from which one step is enough
#
# You write gradient descent as an expression, fit a sine curve from ten points in one step, and learn what an initialisation is.
#
# Prerequisites: lessons 00 to 06. Planned time: 60 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** What does fine-tuning start from?
#
# <details><summary>Answer</summary>
#
# From pretrained weights, the same for every task. A loop that goes on from the last task's weights was the bug of lesson 02.
#
# </details>
#
# **2.** Which number has the smallest mean squared distance to a set of numbers?
#
# <details><summary>Answer</summary>
#
# Their mean (lesson 05). Today the same holds at every $x$ for a set of *curves*.
#
# </details>
#
# ## Objectives
#
# You can
#
# 1. **run** a net with parameters from outside (07.1),
# 2. **write** an inner loop that keeps its graph (07.2, 07.3, 07.8),
# 3. **translate** a rate between losses, and bound it (07.4, 07.7),
# 4. **derive** what pretraining on all tasks learns (07.5),
# 5. **expose** a loop that adapts nothing (07.6).

# %% [markdown]
# ## A puzzle: two equal curves
#
# Two nets of one size. Before they see a new [task](../lessons/GLOSSARY.md#task "任务"), both draw nearly the same curve. Each takes *one* gradient step, on the same ten points, at the same rate.
#
# - **A**: the curves stay nearly equal: same function, same points.
# - **B**: one fits far better than the other.
#
# Write down A or B, and why.

# %%
import inspect
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fsl_classroom import check, progress
from fsl_course import Episode, SinusoidSampler, compare, evaluate, fit, pretrained
from fsl_course.figures import CHANCE, PROTOTYPE, SLOTS, SUPPORT, new, show, slot_style
from fsl_course.inner_loop.functional import call
from fsl_course.methods import maml as package
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import MAML
from fsl_course.nets import mlp
from fsl_course.weights.checkpoints import card

torch.manual_seed(0)
# an initialisation trained by MAML; how, is lesson 08
learned = pretrained("maml", "sinusoids")
Params = dict[str, Tensor]

# %% [markdown]
# ## Refresher, ten minutes: gradients as values
#
# All four right? Skip to "The idea in one picture".
#
# 1. After `g = torch.autograd.grad(loss, w)`: what is `g`, and what is in `w.grad`?
# 2. A gradient "does not require grad". What was missing?
# 3. `w = w - 0.1 * g` or `w -= 0.1 * g`: what differs?
# 4. How does a module run with other weights?
#
# <details><summary>Answers</summary>
#
# 1: a tuple with one tensor; `w.grad` stays as it was, usually `None`. 2: `create_graph=True`. 3: the first makes a new tensor that remembers where it came from;
# the second overwrites the old one, and PyTorch refuses it for a parameter outside `no_grad`. 4: `torch.func.functional_call(net, params, (x,))`.
#
# </details>
#
# A tensor knows where it came from by its [computation graph](../lessons/GLOSSARY.md#computation-graph "计算图"). `create_graph=True` gives gradients one.

# %%
w = torch.tensor(3.0, requires_grad=True)
loss = w**3
(slope,) = torch.autograd.grad(loss, w, create_graph=True)  # a tuple, hence the comma
# of the gradient; the graph is used once more below
(bend,) = torch.autograd.grad(slope, w, retain_graph=True)
print(f"slope 3w² = {slope:.0f}, bend 6w = {bend:.0f}, w.grad = {w.grad}")
moved = w - 0.1 * slope  # an expression: a new tensor with a history, w is untouched
print("d moved / d w = 1 - 0.1 * 6w =", f"{torch.autograd.grad(moved, w)[0]:.1f}")
(constant,) = torch.autograd.grad(w**3, w)
try:
    torch.autograd.grad(constant, w)
except RuntimeError as error:
    print("without create_graph:", str(error).split(" and ")[0])

# %%
# Names to tensors: a dictionary is a point in parameter space,
# and functional_call evaluates the net at that point.
net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
params = dict(net.named_parameters())
for name, p in params.items():
    print(f"{name:9s} {list(p.shape)}")
x = torch.tensor([[1.0], [2.0]])
ones = {name: torch.ones_like(p) for name, p in params.items()}
before = net(x)
print("at the point 'all ones':", functional_call(net, ones, (x,)).flatten().tolist())
assert torch.equal(net(x), before)  # the net itself has not moved

# %% [markdown]
# ## The idea in one picture
#
# Every task is a sine curve of its own amplitude $a$ (0.1 to 5) and phase $p$ (0 to π). Its [support](../lessons/GLOSSARY.md#support-set "支持集") is ten points: a
# [regression](../lessons/GLOSSARY.md#regression "回归") task. One start, three tasks, one gradient step each.

# %%
curves = SinusoidSampler(10, 100, seed=1)  # training curves are those of seed 0
grid = torch.linspace(-5, 5, 201)[:, None]
amplitude, phase = curves.curves(0, 300)


def truth(task: int) -> Tensor:
    """The task's whole curve on the grid, [201, 1]."""
    return amplitude[task] * torch.sin(grid - phase[task])


# %% tags=["draws"]
figure, axes = new(9, 2.6, columns=3, sharey=True)
for axis, task in zip(axes, (17, 6, 21)):
    episode = curves[task]
    loss_fn = package.support_loss(learned.model, episode)
    one = package.adapt(
        loss_fn, dict(learned.model.named_parameters()), lr=0.01, steps=1
    )
    axis.plot(grid, truth(task), color="black", linewidth=1, label="the task")
    axis.plot(
        grid, learned.model(grid).detach(), color=CHANCE, linestyle="--", label="start"
    )
    axis.plot(
        grid,
        call(learned.model, one, grid).detach(),
        color=SLOTS[1],
        linestyle="-.",
        label="after one step",
    )
    axis.scatter(
        episode.support_x,
        episode.support_y,
        color=SUPPORT,
        s=18,
        zorder=3,
        label="support",
    )
    axis.set(xlabel="x", title=f"a = {amplitude[task]:.1f}, p = {phase[task]:.1f}")
axes[2].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
show(
    figure,
    "Three sine tasks with ten support points each. The dashed start is the same curve "
    "in all three panels. After one gradient step the dash-dotted curve lies close to "
    "each task's own sine.",
)

# %% [markdown]
# ## The maths
#
# The [inner loop](../lessons/GLOSSARY.md#inner-loop "内循环") is plain gradient descent on the support; one step is
#
# $$\theta' = \theta - \alpha \, \nabla_\theta \mathcal{L}_\mathcal{S}(\theta)$$
#
# $$\mathcal{L}_\mathcal{S}(\theta) = \frac{1}{K} \sum_{(x, y) \in \mathcal{S}} \big(f_\theta(x) - y\big)^2$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $\theta$ | `params` | dictionary of tensors: the [initialisation](../lessons/GLOSSARY.md#initialisation "初始化") |
# | $\theta'$ | `theta`, `adapted` | dictionary of the same shapes |
# | $\alpha$ | `lr` | one number: the learning rate of the inner loop, "the rate" for short |
# | $\mathcal{S}$ | `support_x`, `support_y` | `[K, 1]` each |
# | $f_\theta(x)$ | `run_with(net, params, x)`, yours in 07.1 | `[K, 1]` |
# | $\mathcal{L}_\mathcal{S}$ | `loss_fn(params)` | scalar: a function of *parameters* |
# | $K$ | `k_shot` | number of support points |

# %% [markdown]
# ## By hand
#
# One parameter, prediction $wx$, support (1, 3) and (2, 4):
#
# $$\mathcal{L}_\mathcal{S}(w) = \tfrac{1}{2}\big[(w - 3)^2 + (2w - 4)^2\big], \qquad \frac{d\mathcal{L}_\mathcal{S}}{dw} = 5w - 11$$
#
# From $w = 0$ with $\alpha = 0.1$: one step leads to 1.1. Do two more on paper. Where does it end?

# %% tags=["nbval-check-output"]
w = 0.0
for step in range(1, 4):
    slope = ((w - 3) * 1 + (2 * w - 4) * 2) * 2 / 2  # the loop over rows, written out
    w = w - 0.1 * slope
    print(
        f"step {step}: slope {slope:6.2f}, w = {w:.3f}, still {2.2 - w:.3f} from 11/5"
    )
print("each step leaves 1 - 0.1 * 5 = 0.5 of the distance")

# %% [markdown]
# ### Exercise 07.1  Run with these parameters  (difficulty 1/5, 3 min)
#
# Return the model's output on `x` with `params` in place of its own parameters. The model stays as it is; gradient flows to `params`.
#
# | `model` | `params` | `x` | returned |
# |---|---|---|---|
# | any module | its names, other tensors | `[B, ...]` | the model's output |


# %%
def run_with(model: nn.Module, params: Params, x: Tensor) -> Tensor:
    """The model's output on x [B, ...] with these parameters in place of its own."""
    # BEGIN SOLUTION
    return functional_call(model, params, (x,))
    # END SOLUTION


run_with = check("07.1", run_with)

# %% [markdown]
# ### Short hunt: weights as keywords
#
# Some articles write inner loops for images like this. Read as far as `except`: what is the cure?

# %%
layer, pictures = nn.Conv2d(1, 2, 3), torch.rand(4, 1, 8, 8)
fast = {name: p - 0.1 for name, p in layer.named_parameters()}  # "fast weights"
try:
    layer(pictures, weight=fast["weight"], bias=fast["bias"])
except TypeError as error:
    print("TypeError:", error)
cured = run_with(layer, fast, pictures)
assert torch.allclose(
    cured, F.conv2d(pictures, fast["weight"], fast["bias"]), atol=1e-6
)
print("cured:", tuple(cured.shape))

# %% [markdown]
# A module is called with inputs only. `functional_call` lends it other weights, at any depth.
#
# ### Exercise 07.2  One inner step  (difficulty 2/5, 6 min)
#
# `loss_fn` takes a dictionary and returns a scalar. Return a *new* dictionary $\theta - \alpha \nabla \mathcal{L}_\mathcal{S}$ with the same names. All tensors of `params` require grad.
#
# Its graph must lead back to `params`, *through the gradient too*. Change nothing in place.


# %%
def inner_step(
    loss_fn: Callable[[Params], Tensor], params: Params, lr: float
) -> Params:
    """One gradient step.
    loss_fn: params -> scalar; params: name -> tensor -> a new dictionary like params.
    """
    # BEGIN SOLUTION
    gradients = torch.autograd.grad(
        loss_fn(params), list(params.values()), create_graph=True
    )
    return {name: p - lr * g for (name, p), g in zip(params.items(), gradients)}
    # END SOLUTION


inner_step = check("07.2", inner_step)

# %% tags=["nbval-check-output"]
support_x, support_y = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]])
start = {"w": torch.zeros((), requires_grad=True)}


def row_loss(params: Params, row: int) -> Tensor:
    return ((params["w"] * support_x[row] - support_y[row]) ** 2).sum()


# a step for each row alone
by_rows = [inner_step(lambda p, i=i: row_loss(p, i), start, 0.1)["w"] for i in range(2)]
whole = inner_step(lambda p: F.mse_loss(p["w"] * support_x, support_y), start, 0.1)["w"]
print(
    f"row by row {[round(w.item(), 2) for w in by_rows]}, all rows at once {whole:.2f}"
)
# the step on the mean loss is the mean of the steps
assert torch.allclose(torch.stack(by_rows).mean(), whole)
print(
    "d w' / d w =",
    f"{torch.autograd.grad(whole, start['w'])[0]:.1f}",
    "= 1 - 0.1 * 5: the graph is there",
)

# %% [markdown]
# ### Exercise 07.3  The inner loop  (difficulty 2/5, 6 min)
#
# Write `adapt`: `steps` inner steps, each from where the last one led. With `steps=0` return the parameters as they came. Never write into `params`: the next task starts there too.
#
# | `loss_fn` | `params` | `lr` | `steps` | returned |
# |---|---|---|---|---|
# | params to scalar | name to tensor | number | 0, 1, ... | dictionary like `params` |


# %%
def adapt(
    loss_fn: Callable[[Params], Tensor], params: Params, lr: float, steps: int
) -> Params:
    """The inner loop: steps times theta - lr * gradient.
    The result is differentiable in params.
    """
    # BEGIN SOLUTION
    theta = dict(params)
    for _ in range(steps):
        theta = inner_step(loss_fn, theta, lr)
    return theta
    # END SOLUTION


adapt = check("07.3", adapt)

# %%
small = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)).double()
begin = {
    name: p.detach().clone().requires_grad_() for name, p in small.named_parameters()
}
xs = torch.linspace(-2, 2, 6, dtype=torch.float64)[:, None]
ys = torch.sin(xs)


def loss_on(rows: Tensor | slice) -> Callable[[Params], Tensor]:
    return lambda p: F.mse_loss(run_with(small, p, xs[rows]), ys[rows])


def same(a: Params, b: Params) -> bool:
    return all(torch.allclose(a[name], b[name], atol=1e-12) for name in a)


# %%
three = adapt(loss_on(slice(None)), begin, 0.1, 3)
# 1. Three steps are two steps and one more. 2. A support has no order.
# 3. Each point twice: nothing changes.
assert same(
    three,
    adapt(loss_on(slice(None)), adapt(loss_on(slice(None)), begin, 0.1, 2), 0.1, 1),
)
assert same(three, adapt(loss_on(torch.tensor([3, 1, 5, 0, 2, 4])), begin, 0.1, 3))
assert same(three, adapt(loss_on(torch.arange(6).repeat(2)), begin, 0.1, 3))
# 4. The gradient through all three steps: against central differences.
assert torch.autograd.gradcheck(
    lambda w: adapt(loss_on(slice(None)), begin | {"0.weight": w}, 0.1, 3)["2.bias"],
    begin["0.weight"],
)
print("composition, order, doubling, gradient: four laws hold")

# %% [markdown]
# ## Sum or mean?
#
# Law 3 holds because the inner loss is a *mean*. On paper: the sum has slope $10w - 22$, and one step lands on 2.2 by luck. With each point twice it steps to 4.4, back to 0, for ever.
#
# A sum over $R$ rows is a mean with the rate $R\alpha$.


# %%
def query_error(net: nn.Module, params: Params, episode: Episode) -> Tensor:
    """Mean squared error on a task's queries, a number without graph."""
    return F.mse_loss(run_with(net, params, episode.query_x), episode.query_y).detach()


# %%
shots = (2, 5, 10, 20, 40)
figure, axis = new(7, 2.8)
for slot, reduction in enumerate(("mean", "sum")):
    found = []
    for k_shot in shots:
        errors = []
        for episode in SinusoidSampler(k_shot, 100, seed=1).batch(0, 60):
            loss_fn = package.support_loss(
                learned.model, episode, partial(F.mse_loss, reduction=reduction)
            )
            theta = adapt(loss_fn, dict(learned.model.named_parameters()), 0.01, 1)
            errors.append(query_error(learned.model, theta, episode))
        found.append(float(torch.stack(errors).mean()))
    axis.plot(
        shots, found, label=f"{reduction} of the squared errors", **slot_style(slot)
    )
    print(
        f"{reduction:4s} "
        + ", ".join(f"{k} points {value:.3g}" for k, value in zip(shots, found))
    )
axis.set(
    xlabel="support points K",
    ylabel="squared error",
    xscale="log",
    yscale="log",
    xticks=shots,
    xticklabels=shots,
)
axis.minorticks_off()
axis.legend(fontsize=8)
show(
    figure,
    "Mean squared error on the queries after one step at rate 0.01 against the number "
    "of support points, both axes logarithmic. With the mean loss more points help. "
    "With the sum the error grows with every point added.",
)

# %% [markdown]
# ### Exercise 07.4  The rate behind a loss  (difficulty 2/5, 5 min)
#
# Papers print $\alpha$, code decides what it means. The MAML authors' classification code divides each row's loss by $K$ and lets the gradient *sum* all $N \cdot K$ rows.
#
# Return the rate that makes the same step with the *mean* over the rows.
#
# | `reduction` | their loss over $N \cdot K$ rows |
# |---|---|
# | `"mean"` | the mean |
# | `"sum"` | the sum |
# | `"per shot"` | the sum divided by $K$ |


# %%
def rate_for_mean(lr: float, n_way: int, k_shot: int, reduction: str) -> float:
    """The inner rate for a mean loss that equals lr with the given reduction
    ("mean", "sum" or "per shot").
    """
    # BEGIN SOLUTION
    rows = n_way * k_shot
    divided_by = {"mean": rows, "sum": 1, "per shot": k_shot}[reduction]
    return lr * rows / divided_by
    # END SOLUTION


rate_for_mean = check("07.4", rate_for_mean)
for data, lr, n_way in (
    ("Omniglot 5-way", 0.4, 5),
    ("Omniglot 20-way", 0.1, 20),
    ("miniImageNet 5-way", 0.01, 5),
):
    print(
        f"{data:18s} printed {lr:4.2f}, for a mean "
        f"{rate_for_mean(lr, n_way, 1, 'per shot'):.2f}"
    )

# %% [markdown]
# Several ports keep the printed rate and take the mean: steps 5 or 20 times shorter.
#
# ## Meet the package
#
# Its `adapt` does what yours does, by `grad`, so that `vmap` can run all tasks at once. `track=False` keeps no graph: enough at test time. `first_order` waits for lesson 10.

# %%
stacked, params = curves.batch(0, 25), dict(learned.model.named_parameters())


def one_step(x: Tensor, y: Tensor) -> Params:
    """One task's support [K, 1], [K, 1]
    -> parameters after one step, by the package.
    """
    return package.adapt(
        lambda p: F.mse_loss(run_with(learned.model, p, x), y), params, lr=0.01, steps=1
    )


# every tensor with a leading [25]
together = torch.func.vmap(one_step)(stacked.support_x, stacked.support_y)
for task, episode in enumerate(stacked):  # the loop, with your adapt
    yours = adapt(package.support_loss(learned.model, episode), params, 0.01, 1)
    assert all(
        torch.allclose(yours[name], together[name][task], atol=1e-5) for name in params
    )
print("your loop over 25 tasks and one vmap agree\n")
print(inspect.getsource(package.adapt))

# %% [markdown]
# ## What can one net for all sines learn?
#
# [Pretraining](../lessons/GLOSSARY.md#pretraining "预训练") fits one net to all tasks. At an input $x$ it meets many targets $y$ and has one answer:
#
# $$\mathbb{E}\big[(f(x) - y)^2\big] = \big(f(x) - \bar y(x)\big)^2 + \operatorname{Var}(y), \qquad \bar y(x) = \mathbb{E}[y]$$
#
# Only the first term can be made small: the mean curve $\bar y$ is best.
#
# ### Exercise 07.5  The mean of all curves  (difficulty 3/5, 8 min)
#
# Amplitude $a$ is uniform in [`low`, `high`], phase $p$ uniform in $[0, \pi]$, independent of each other. Work out on paper
#
# $$\bar y(x) = \mathbb{E}[a] \cdot \frac{1}{\pi} \int_0^{\pi} \sin(x - p) \, dp$$
#
# and return it. First guess: is it zero?
#
# | `x` | `low`, `high` | returned |
# |---|---|---|
# | `[B, 1]` | numbers | `[B, 1]` |


# %%
def mean_curve(x: Tensor, low: float, high: float) -> Tensor:
    """The mean of a sin(x - p): a uniform in [low, high],
    p uniform in [0, pi]. x [B, 1] -> [B, 1].
    """
    # BEGIN SOLUTION
    # the integral is cos(x - pi) - cos(x) = -2 cos(x)
    return -(low + high) / 2 * 2 / math.pi * torch.cos(x)
    # END SOLUTION


mean_curve = check("07.5", mean_curve)
many_a, many_p = SinusoidSampler(seed=5).curves(0, 5000)
sampled = (many_a[:, None] * torch.sin(grid.T - many_p[:, None])).mean(0)  # [201]
print(
    "largest gap to the mean of 5000 sampled curves: "
    f"{(sampled - mean_curve(grid, 0.1, 5.0)[:, 0]).abs().max():.2f}"
)
# E[a²]; the mean of sin²(x - p) over half a turn of p is 1/2 at every x
square = (5**3 - 0.1**3) / (3 * 4.9)
floor = square / 2 - float(mean_curve(grid, 0.1, 5.0).square().mean())
print(f"so no single curve comes below a squared error of about {floor:.2f}")

# %% [markdown]
# ## Train for real
#
# Pretraining on all sines is MAML without inner steps. Watch the loss fall to the floor.

# %%
torch.manual_seed(1)
everything = MAML(mlp(), 0.01, 0)  # 0 inner steps in training
history = fit(everything, SinusoidSampler(10, 10, seed=0), steps=1500, tasks=25)
print(
    f"loss at first {history.loss[0]:.2f}, of the last 200 updates "
    f"{sum(history.loss[-200:]) / 200:.2f}, floor {floor:.2f}"
)
with torch.no_grad():
    drawn = {"pretraining": everything.model(grid), "MAML's start": learned.model(grid)}
mean = mean_curve(grid, 0.1, 5.0)
figure, axis = new(7, 2.8)
axis.plot(grid, mean, color=PROTOTYPE, linewidth=1, label="mean curve, −1.62 cos x")
for slot, (name, curve) in enumerate(drawn.items()):
    axis.plot(
        grid,
        curve,
        markevery=20,
        label=name,
        linestyle=("--", "-.")[slot],
        **slot_style(slot),
    )
axis.set(xlabel="x", ylabel="y")
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
gap = {
    name: float((curve - mean).square().mean().sqrt()) for name, curve in drawn.items()
}
apart = float((drawn["pretraining"] - drawn["MAML's start"]).square().mean().sqrt())
told = (
    "typical gap to the mean curve: "
    f"{', '.join(f'{name} {value:.2f}' for name, value in gap.items())}; to each "
    f"other {apart:.2f}"
)
print(told)
show(
    figure,
    "Three curves that nearly coincide, a cosine upside down: the mean curve, the "
    f"pretrained net, and MAML's start; {told}.",
)

# %% [markdown]
# These are the puzzle's two nets. A third start: random weights.
#
# ## Evaluate honestly
#
# The same 200 new curves for all. [Baselines](../lessons/GLOSSARY.md#baseline "基线"): zero, the mean curve, the nearest support point's value. Predict the order after ten steps.

# %%
torch.manual_seed(1)
starts = {"random": MAML(mlp(), 0.01, 1), "pretraining": everything, "MAML": learned}


class Rule(FewShotLearner):
    """A baseline without parameters: a function of the episode."""

    def __init__(self, rule: Callable[[Episode], Tensor]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, episode: Episode) -> Tensor:
        return self.rule(episode)


# %%
rules = {
    "always zero": lambda e: torch.zeros_like(e.query_y),
    "mean curve": lambda e: mean_curve(e.query_x, 0.1, 5.0),
    "nearest point": lambda e: e.support_y[(e.query_x - e.support_x.T).abs().argmin(1)],
}
for name, rule in rules.items():
    print(f"{name:14s}{evaluate(Rule(rule), curves, 200, metric='mse')}")
results = {}
print("inner steps            0               1               5               10")
for name, learner in starts.items():
    for steps in (0, 1, 5, 10):
        learner.test_steps = steps
        results[name, steps] = evaluate(learner, curves, 200, metric="mse")
    print(
        f"{name:14s}"
        + "".join(
            f"{results[name, s].mean:8.2f} ± {results[name, s].ci95:.2f} "
            for s in (0, 1, 5, 10)
        )
    )
for steps in (0, 1, 10):
    print(
        f"inner steps {steps}: pretraining minus MAML, "
        f"{compare(results['pretraining', steps], results['MAML', steps])}"
    )

# %%
figure, axes = new(9, 2.9, columns=3, sharey=True)
episode, told = curves[17], []
for axis, (name, learner) in zip(axes, starts.items()):
    begin, errors = dict(learner.model.named_parameters()), []
    loss_fn = package.support_loss(learner.model, episode)
    axis.plot(grid, truth(17), color="black", linewidth=1, label="the task")
    for slot, steps in enumerate((0, 1, 5, 10)):
        theta = adapt(loss_fn, begin, 0.01, steps)
        fitted = run_with(learner.model, theta, grid).detach()
        style = {
            "color": (CHANCE, SLOTS[4], SLOTS[1], SLOTS[3])[slot],
            "linestyle": (":", "--", "-.", "-")[slot],
        }
        axis.plot(grid, fitted, label=f"{steps} step{'s' * (steps != 1)}", **style)
        errors.append(f"{float((fitted - truth(17)).square().mean()):.2f}")
    axis.scatter(
        episode.support_x,
        episode.support_y,
        color=SUPPORT,
        s=18,
        zorder=3,
        label="support",
    )
    axis.set(title=name, xlabel="x")
    told.append(f"{name} {', '.join(errors)}")
axes[2].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
print("squared error on this curve after 0, 1, 5, 10 steps:", "; ".join(told))
show(
    figure,
    "One sine task fitted from three starts, before and after 1, 5 and 10 steps. "
    "Squared errors after 0, 1, 5, 10 steps: " + "; ".join(told) + ".",
)

# %%
rows = {
    (row["learner"], row["shot"], row["steps"]): row
    for row in card("maml", "sinusoids")["test"]
}
paper = {"maml": (0.67, 0.38, 0.35), "pretraining": (2.41, 2.23, 2.19)}
for learner, printed in paper.items():
    for shot in (5, 10):
        cells = [
            f"{rows[learner, shot, s]['mse']:.2f} ± "
            f"{rows[learner, shot, s]['ci95']:.2f}"
            for s in (1, 5, 10)
        ]
        theirs = (
            f"   paper {', '.join(f'{value:.2f}' for value in printed)}"
            if shot == 5
            else ""
        )
        print(
            f"{learner:12s}{shot:3d} points, 1, 5, 10 steps: {', '.join(cells)}{theirs}"
        )

# %% [markdown]
# **The puzzle.** B. Read the paired differences: before the step, and after it.
#
# *Unfair*: 1500 updates against MAML's 70,000. The shipped card's lines: 70,000 for both, beside the paper. One run each: similar numbers, no more.
#
# ## What is an initialisation?
#
# Take a model with two parameters. Parameter space is a plane:
#
# $$f_\theta(x) = \theta_1 \sin x + \theta_2 \cos x$$
#
# $$a \sin(x - p) = a \cos p \, \sin x - a \sin p \, \cos x$$
#
# So a task's optimum is $(a \cos p, \, -a \sin p)$. Predict: where is the mean of all optima?
#
# | symbol | variable | shape |
# |---|---|---|
# | $\theta = (\theta_1, \theta_2)$ | `params["theta"]` | `[2]` |


# %%
def plane_loss(episode: Episode) -> Callable[[Params], Tensor]:
    """Mean squared error of theta_1 sin x + theta_2 cos x on a task's support."""
    # [K, 2]
    features = torch.cat([episode.support_x.sin(), episode.support_x.cos()], 1)
    return lambda p: F.mse_loss(features @ p["theta"], episode.support_y[:, 0])


origin, walks = torch.tensor([1.0, 2.5]), []
for slot, task in enumerate((17, 21, 39, 33)):
    theta, path = {"theta": origin.clone().requires_grad_()}, [origin]
    for _ in range(8):
        theta = inner_step(plane_loss(curves[task]), theta, 0.2)
        path.append(theta["theta"].detach())
    optimum = amplitude[task] * torch.stack([phase[task].cos(), -phase[task].sin()])
    walks.append((torch.stack(path), optimum))
    print(
        f"task {slot}: distance to its optimum {(origin - optimum).norm():.2f}, after "
        f"8 steps {(path[-1] - optimum).norm():.2f}"
    )

# %% tags=["draws"]
figure, axis = new(6.6, 3.9)
turn = torch.linspace(-math.pi, 0, 100)
axis.fill(
    5 * turn.cos(),
    5 * turn.sin(),
    color=CHANCE,
    alpha=0.12,
    label="optima of all tasks",
)
for slot, (path, optimum) in enumerate(walks):
    axis.plot(*path.T, markersize=4, linewidth=1, **slot_style(slot))
    axis.scatter(
        *optimum,
        s=90,
        edgecolor="black",
        zorder=3,
        label=f"optimum of task {slot}",
        **slot_style(slot),
    )
axis.scatter(
    *origin, s=200, marker="*", color="black", zorder=4, label="initialisation"
)
axis.scatter(
    0,
    -2.55 * 2 / math.pi,
    s=90,
    marker="X",
    color="black",
    zorder=4,
    label="mean of all optima",
)
axis.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$", aspect="equal")
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
show(
    figure,
    "The plane of the two parameters. From one star, the initialisation, four paths of "
    "eight steps run towards the optima of four tasks, which lie in a shaded lower "
    "half disc of radius 5. A cross marks the mean of all optima, at (0, −1.62).",
)

# %% [markdown]
# The mean of the optima is the mean curve: $0 \cdot \sin x - 1.62 \cos x$.
#
# In this plane a curve has *one* place: the puzzle's answer would be A. In a net many places draw one curve. An exact twin, for a ReLU lets $c > 0$ through:
#
# $$\frac{1}{c} \operatorname{ReLU}(c \, z) = \operatorname{ReLU}(z)$$


# %%
def twin(net: nn.Module, c: float) -> Params:
    """The same function at another place:
    first layer times c, second layer's weight divided by c.
    """
    factors = {"0.weight": c, "0.bias": c, "2.weight": 1 / c}
    return {
        name: (p.detach() * factors.get(name, 1.0)).requires_grad_()
        for name, p in net.named_parameters()
    }


episode = curves[17]
loss_fn = package.support_loss(learned.model, episode)
for c in (1.0, 2.0, 0.5):
    place = twin(learned.model, c)
    theta = adapt(loss_fn, place, 0.01, 1)
    before, after = (query_error(learned.model, p, episode) for p in (place, theta))
    print(f"c = {c:.1f}: squared error before {before:.4f}, after one step {after:.4f}")

# %% [markdown]
# An initialisation is a *place*, not a curve: what counts is where gradients lead from there. Pretraining judges a place by its curve, MAML by the curves after the step.
#
# ## Explore
#
# Predict, then change `rate` below. Then step by hand.
#
# 1. Can rescaling turn the pretrained net into MAML's start?
# 2. Where does MAML's valley go when you double the rate? Why there?
# 3. Is 0.01 fair to pretraining? Try 0.0025.
#
# <details><summary>Answers</summary>
#
# A twin is the same net with other rates in its layers. The first layer is $c$ times as large and its gradient $c$ times as small: relative to its size it moves as if at rate $\alpha / c^2$,
# the second layer's weights at $\alpha c^2$. 1: compare the two lowest values that the cell prints. 2: to the right, near $\sqrt 2$: there $\alpha / c^2$ is what the first layer was trained for.
# 3: 0.01 is MAML's rate. Smaller ones suit this pretrained net better; see how far it gets.
#
# </details>

# %%
from fsl_classroom.widgets import InnerLoopStepper

rate, factors = 0.01, (0.4, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
tasks = list(curves.batch(0, 40))
figure, axis = new(7, 2.8)
for slot, (name, learner) in enumerate(list(starts.items())[1:]):
    found = []
    for c in factors:
        place, errors = twin(learner.model, c), []
        for episode in tasks:
            theta = adapt(package.support_loss(learner.model, episode), place, rate, 1)
            errors.append(query_error(learner.model, theta, episode))
        found.append(float(torch.stack(errors).mean()))
    axis.plot(factors, found, label=name, **slot_style(slot))
    print(
        f"{name:12s}"
        + ", ".join(f"c {c:.1f}: {value:.2f}" for c, value in zip(factors, found)),
        end="; ",
    )
    print(f"lowest {min(found):.2f} at c = {factors[found.index(min(found))]}")
axis.axhline(floor, color=CHANCE, linestyle="--", label="floor of a single curve")
axis.set(
    xlabel="scale c of the twin",
    ylabel="error after 1 step",
    xscale="log",
    yscale="log",
    xticks=factors,
    xticklabels=factors,
)
axis.minorticks_off()
axis.legend(fontsize=8)
show(
    figure,
    "Squared error after one step against the scale c of a twin that draws the same "
    "curve, for pretraining and for MAML's start, with the floor of a single curve as "
    "a dashed line. The same curve gives very different errors, depending on c.",
)
stepper = InnerLoopStepper()
stepper.take(3)
stepper

# %% [markdown]
# ## Bug hunt
#
# The symptom: no error, no warning. Ten steps are as good as none, to the last digit, at any rate.


# %%
def quick_adapt(net: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int) -> Params:
    adapted = dict(net.named_parameters())
    for _ in range(steps):
        params = net.named_parameters()
        loss = F.mse_loss(functional_call(net, adapted, (x,)), y)
        gradients = torch.autograd.grad(loss, [adapted[name] for name, _ in params])
        for (name, _), g in zip(params, gradients):
            adapted[name] = adapted[name] - lr * g
    return adapted


episode = curves[17]
for lr, steps in ((0.01, 0), (0.01, 1), (0.01, 10), (1.0, 10)):
    theta = quick_adapt(learned.model, episode.support_x, episode.support_y, lr, steps)
    print(
        f"rate {lr:4.2f}, {steps:2d} steps: squared error "
        f"{query_error(learned.model, theta, episode):.6f}"
    )

# %% [markdown]
# ### Exercise 07.6  Bug hunt: does anything move?  (difficulty 3/5, 8 min)
#
# `implementation(model, x, y, lr, steps)` returns adapted parameters; the model stays. Return `True` when a step moves *nothing*: the first, from the model's own parameters, or the second.
#
# Careful: a step may be tiny or raise the loss, and behind dead units some tensors rest by right.
#
# | you need | |
# |---|---|
# | `torch.equal(a, b)` | equal to the last digit |


# %%
def exposes_idle(
    implementation, model: nn.Module, x: Tensor, y: Tensor, lr: float
) -> bool:
    """True when step 1 or step 2 moves no parameter.
    implementation: (model, x, y, lr, steps) -> dict.
    """
    # BEGIN SOLUTION
    stages = [dict(model.named_parameters())]
    stages += [implementation(model, x, y, lr, steps) for steps in (1, 2)]
    moves = [
        any(not torch.equal(stages[i][name], stages[i + 1][name]) for name in stages[0])
        for i in (0, 1)
    ]
    return not all(moves)
    # END SOLUTION


exposes_idle = check("07.6", exposes_idle)
print(
    "quick_adapt is idle:",
    exposes_idle(
        quick_adapt, learned.model, episode.support_x, episode.support_y, 0.01
    ),
)

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# `named_parameters()` is a [generator](../lessons/GLOSSARY.md#python-generator "生成器"): it can be read once. The list of tensors reads it to its end. `zip` then finds it empty and stops
# at once, without a word: a shorter partner is no error for `zip`.
#
# </details>
#
# The cure: a `list` can be read twice. The alarm: `zip(..., strict=True)` complains.


# %%
def cured_adapt(
    net: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int, keep: type = list
) -> Params:
    adapted = dict(net.named_parameters())
    for _ in range(steps):
        params = keep(net.named_parameters())
        loss = F.mse_loss(functional_call(net, adapted, (x,)), y)
        gradients = torch.autograd.grad(loss, [adapted[name] for name, _ in params])
        for (name, _), g in zip(params, gradients, strict=True):
            adapted[name] = adapted[name] - lr * g
    return adapted


# %%
support = episode.support_x, episode.support_y
assert exposes_idle(quick_adapt, learned.model, *support, 0.01)  # before the cure
assert not exposes_idle(cured_adapt, learned.model, *support, 0.01)
theta = cured_adapt(learned.model, *support, 0.01, 10)
print(
    f"cured, 10 steps: squared error {query_error(learned.model, theta, episode):.6f}"
)
try:
    # the bug again, but a strict zip
    cured_adapt(learned.model, *support, 0.01, 1, keep=iter)
except ValueError as error:
    print("with strict=True the bug speaks:", error)

# %% [markdown]
# ### Short hunt: a training that is none
#
# A class `MAML(nn.Module)` is trained by `maml.train(task)`, or, when that complains, by `maml.train()` in a loop. Its loss stays flat. Why?

# %%
fresh = MAML(mlp(), 0.01, 1)
weights = {name: p.detach().clone() for name, p in fresh.named_parameters()}
try:
    fresh.train(curves[0])
except ValueError as error:
    print("ValueError:", error)
for _ in range(100):
    fresh.train()  # "an epoch"
moved = sum(not torch.equal(p, weights[name]) for name, p in fresh.named_parameters())
print(
    f"tensors moved by 100 calls of train(): {moved} of {len(weights)}; training mode: "
    f"{fresh.training}"
)

# %% [markdown]
# `nn.Module.train(mode)` switches modes and trains nothing; `fit(learner, sampler, ...)` does.
#
# ## Quiz
#
# **1. Two nets predict the same everywhere. After one equal step they**
# (a) still predict the same, (b) may differ, (c) have equal parameters
#
# <details><summary>Answer</summary>
#
# (b). The step follows the gradient at a *place*; many places draw one curve. (a) holds in the plane, where a curve has one place. (c): equal curves do not ask for equal parameters.
#
# </details>
#
# **2. You drop `create_graph=True` in `adapt`. The test error after ten steps**
# (a) stays, (b) rises, (c) becomes NaN
#
# <details><summary>Answer</summary>
#
# (a). Values are the same, against (b) and (c). What is lost is how the result depends on the start: lesson 08 lives on it.
#
# </details>

# %% [markdown]
# **3. With phases from 0 to 2π, pretraining learns**
# (a) −1.62 cos x, (b) some sine, (c) the zero line
#
# <details><summary>Answer</summary>
#
# (c). The integral over a whole turn is zero: every curve meets its opposite. (a) is the mean over half a turn. (b) would err more than zero does.
#
# </details>
#
# **4. Rate 0.1, loss summed over 25 rows. With the mean, the same step needs**
# (a) 2.5, (b) 0.1, (c) 0.004
#
# <details><summary>Answer</summary>
#
# (a). Their gradient is 25 times yours. (b) makes a step 25 times shorter. (c) divides where it should multiply.
#
# </details>
#
# **5. More support points, mean loss, same rate. The step**
# (a) grows, (b) shrinks, (c) gets less noisy
#
# <details><summary>Answer</summary>
#
# (c). A mean over more rows estimates the same gradient better. (a) is what a sum does. (b) would need a rate divided by the rows.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | inner loop | `{name: p - lr * g}`, a function of parameters |
# | graph | `create_graph=True`, new tensors, nothing in place |
# | rate | belongs to a *mean* loss; a sum multiplies it by the number of rows |
# | pretraining | learns the mean curve |
# | initialisation | a place with gradients, not a curve |
#
# Pitfalls: weights as keywords, generators read twice, `.train(task)`. Next: how MAML *finds* its place. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Finn, Abbeel and Levine (2017), *Model-Agnostic Meta-Learning* | section 2.2 (unnumbered) and algorithm 2: the inner step; equations 2 and 3: squared error and cross-entropy, written as sums; section 5.1: sine curves; appendix A: inner rates; appendix C: sine errors of MAML and pretraining |
# | their code, `utils.py` | mean for sine curves; row losses divided by $K$ for classification |

# %% [markdown]
# ### Exercise 07.7 ★  The largest rate  (difficulty 3/5, 8 min)
#
# On paper each step multiplied the distance to 2.2 by $1 - \alpha h$, with $h = 5$. Above which $\alpha$ does it grow?
#
# For a linear model with features $F$ and $\mathcal{L}_\mathcal{S} = \frac{1}{K}\|F\theta - y\|^2$, the matrix of second derivatives, the [Hessian](../lessons/GLOSSARY.md#hessian "黑塞矩阵"), is $H = \frac{2}{K} F^\top F$.
# Along each eigenvector, $h$ is its eigenvalue: the *largest* sets the limit. Return that $\alpha$. `torch.linalg.eigvalsh` sorts, smallest first.
#
# | `features` | returned |
# |---|---|
# | `[K, P]` | a Python number |


# %%
def largest_rate(features: Tensor) -> float:
    """The rate above which gradient descent on the mean squared error diverges.
    features [K, P] -> number.
    """
    # BEGIN SOLUTION
    hessian = 2 * features.T @ features / len(features)
    return 2 / float(torch.linalg.eigvalsh(hessian)[-1])
    # END SOLUTION


largest_rate = check("07.7", largest_rate)

# %%
features = torch.cat([episode.support_x.sin(), episode.support_x.cos()], 1)
limit = largest_rate(features)
for factor in (0.9, 1.1):
    theta = adapt(
        plane_loss(episode),
        {"theta": origin.clone().requires_grad_()},
        factor * limit,
        200,
    )
    print(
        f"{factor} times the limit {limit:.2f}, 200 steps: support loss "
        f"{plane_loss(episode)(theta):.3g}"
    )

# %% [markdown]
# ### Exercise 07.8 ★  The inner loop from memory  (difficulty 3/5, 8 min)
#
# Adapt the model's parameters to the support by mean squared error, then predict the queries. The model stays as it is; the result is differentiable in its parameters, through all steps.
#
# | `support_x`, `support_y` | `query_x` | returned |
# |---|---|---|
# | `[K, 1]`, `[K, 1]` | `[Q, 1]` | `[Q, 1]` |


# %%
def fit_and_predict(
    model: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    lr: float,
    steps: int,
) -> Tensor:
    """Predictions [Q, 1] for the queries after `steps` inner steps on the support."""
    # BEGIN SOLUTION
    theta = dict(model.named_parameters())
    for _step in range(steps):
        loss = F.mse_loss(functional_call(model, theta, (support_x,)), support_y)
        slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {name: p - lr * s for (name, p), s in zip(theta.items(), slopes)}
    return functional_call(model, theta, (query_x,))
    # END SOLUTION


fit_and_predict = check("07.8", fit_and_predict)
mine = fit_and_predict(learned.model, *support, episode.query_x, 0.01, 5)
learned.test_steps = 5
assert torch.allclose(mine, learned(episode), atol=1e-4)
print("your function and the package's MAML agree after 5 steps")
progress("07")
