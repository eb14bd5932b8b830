# %% [markdown]
# # 11 Learned optimisers: an LSTM writes the update
#
# SGD is a rule that somebody wrote. You replace it by a small network, train that network, and find out what it has learned and when it is worth having.
#
# Prerequisites: lessons 07 to 10. Planned time: 65 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** MAML's outer gradient passes through the inner loop. What must the inner loop not do?
#
# <details><summary>Answer</summary>
#
# It must not write into the parameters or cut the graph: the new parameters must remain a function of the initialisation.
#
# </details>
#
# **2.** What does Meta-SGD learn besides the initialisation?
#
# <details><summary>Answer</summary>
#
# A rate for every parameter. The rates are fixed: they look neither at the gradient nor at earlier steps.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **prepare** gradients for a network (11.1),
# 2. **read** an LSTM's cell update as gradient descent (11.2, 11.3),
# 3. **write** one step of a coordinate-wise rule (11.4),
# 4. **explain** what a truncated unroll cuts, and when that does harm (11.5),
# 5. **expose** a memory that leaks between tasks (11.6).

# %% [markdown]
# ## A puzzle: who takes over?
#
# A network learns to minimise random quadratics. SGD, momentum and Adam get their best rate from a grid. Then all four run 100 steps on quadratics that none of them has met:
#
# | game | quadratics |
# |---|---|
# | A | of the same family |
# | B | those of A, with every matrix and every target divided by 10: the minimum stays where it was |
#
# Between A and B nobody is tuned or trained again. Write down for each game: who is lowest at step 100, and who on average over all steps?

# %%
import copy
import inspect

import torch
from torch import Tensor, nn

from fsl_classroom import check, progress
from fsl_course import Episode, EpisodeSampler, compare, evaluate, fit, load_glyphs
from fsl_course.evaluation import mean_and_ci95
from fsl_course.figures import SLOTS, intervals, new, show, slot_style
from fsl_course.methods import meta_lstm as package
from fsl_course.methods.maml import MAML, adapt, support_loss, trainable
from fsl_course.methods.meta_lstm import MetaLSTM
from fsl_course.nets import classifier, conv4

train, val, test = (load_glyphs().split(name) for name in ("train", "val", "test"))

# %% [markdown]
# ## The idea in one picture
#
# A [learned optimiser](../lessons/GLOSSARY.md#learned-optimiser "学习型优化器") is a network that reads a gradient and writes a step. It works [coordinate-wise](../lessons/GLOSSARY.md#coordinate-wise "逐坐标"): one small network serves all parameters, but every parameter has its own memory.

# %%
figure, axis = new(8, 2.6)
axis.set(xlim=(0, 10), ylim=(0, 3.4), xticks=[], yticks=[])
axis.grid(False)
for spine in axis.spines.values():
    spine.set_visible(False)
box = {"boxstyle": "round,pad=0.35", "facecolor": "white"}
for place, name in enumerate(("parameter 1", "parameter 2", "parameter 3")):
    height = 2.5 - place
    axis.text(
        0.9,
        height,
        name,
        ha="center",
        va="center",
        bbox={**box, "edgecolor": SLOTS[place]},
    )
    axis.text(
        5.0,
        height,
        "the rule, same weights",
        ha="center",
        va="center",
        bbox={**box, "edgecolor": "black"},
    )
    axis.text(
        8.9,
        height,
        "its step",
        ha="center",
        va="center",
        bbox={**box, "edgecolor": SLOTS[place]},
    )
    for start, end in ((1.9, 3.5), (6.5, 8.2)):
        axis.annotate(
            "",
            (end, height),
            (start, height),
            arrowprops={"arrowstyle": "->", "color": SLOTS[place]},
        )
    loop = {
        "arrowstyle": "->",
        "linestyle": "--",
        "color": SLOTS[place],
        "connectionstyle": "arc3,rad=-0.6",
    }
    axis.annotate("", (5.7, height + 0.22), (4.3, height + 0.22), arrowprops=loop)
    axis.text(2.7, height + 0.12, "gradient", ha="center", fontsize=8)
    axis.text(6.35, height + 0.3, "own memory", ha="center", fontsize=8)
show(
    figure,
    "Three rows, one for each parameter. In each the gradient goes into a box named "
    "the rule, same weights, and a step comes out. A dashed loop over each box says "
    "own memory.",
)

# %% [markdown]
# ## Why not feed the gradient as it is?
#
# Gradients of one net may be 100 in one layer and 0.0001 in another. A network cannot read both, because its weights suit one size. A logarithm turns factors into differences, but it has no sign and falls without end near 0. So you send two numbers, how large and which sign, and treat tiny gradients apart:
#
# $$\text{preprocess}(x) = \begin{cases} (\ln|x| / p,\; \operatorname{sign} x) & |x| \ge e^{-p} \\ (-1,\; e^{p} x) & |x| < e^{-p} \end{cases}$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $x$ | `x` | `[...]`, gradients or a loss |
# | $p$ | `p` | one number, here 10 |
# | $\text{preprocess}(x)$ | `preprocess(x)` | `[..., 2]` |
#
# By hand, $p = 10$: $x = -e^{-5}$ gives $(-0.5, -1)$, and $x = 0$ gives $(-1, 0)$.

# %% [markdown]
# ### Exercise 11.1  Two moderate numbers  (difficulty 1/5, 6 min)
#
# Write `preprocess` for a tensor of any shape. The two numbers form a new last axis. Mind $x = 0$: no infinity may come out, and no NaN.
# `torch.where` picks between two tensors, entry by entry, *after* both were computed.
#
# | `x` | `p` | returned |
# |---|---|---|
# | `[...]` | one number | `[..., 2]` |


# %%
def preprocess(x: Tensor, p: float = 10.0) -> Tensor:
    """(ln|x| / p, sign x) where |x| >= exp(-p),
    else (-1, exp(p) x). x [...] -> [..., 2].
    """
    # BEGIN SOLUTION
    edge = torch.tensor(-p, dtype=x.dtype).exp()
    size = torch.where(
        x.abs() >= edge, x.abs().clamp_min(edge).log() / p, -torch.ones_like(x)
    )
    sign = torch.where(x.abs() >= edge, x.sign(), x / edge)
    return torch.stack([size, sign], dim=-1)
    # END SOLUTION


preprocess = check("11.1", preprocess)

# %% tags=["draws"]
x = torch.cat([-(10 ** torch.linspace(1, -7, 200)), 10 ** torch.linspace(-7, 1, 200)])
numbers = preprocess(x)
figure, axes = new(8, 2.6, columns=2)
for axis, column, title in zip(
    axes, (0, 1), ("first number: size", "second number: sign")
):
    axis.plot(x[200:], numbers[200:, column], color=SLOTS[0], label="x > 0")
    axis.plot(
        x[200:],
        numbers[:200, column].flip(0),
        color=SLOTS[1],
        linestyle="--",
        label="x < 0",
    )
    axis.axvline(
        float(torch.tensor(-10.0).exp()),
        color="#767676",
        linestyle=":",
        label="threshold",
    )
    axis.set(xscale="log", xlabel="|x|", title=title, ylim=(-1.1, 1.1))
axes[1].legend(fontsize=8, loc="center right")
show(
    figure,
    "Both numbers against the size of x, from 0.0000001 to 10 on a logarithmic axis. "
    "Size: minus one up to the threshold at 0.000045, then a straight rise. Sign: "
    "from zero out to plus or minus one at the threshold, then constant. No jumps.",
)

# %% [markdown]
# ## Warm-up: a rule for quadratics
#
# Andrychowicz et al. drew a matrix $A$ and a target $b$ and minimised $\|A\theta - b\|^2$ over 10 numbers. Their rule was a two-layer [LSTM](../lessons/GLOSSARY.md#lstm "长短期记忆网络") on raw gradients; yours has one layer and reads preprocessed ones. Its output is *added*, so the rule must find out which way is downhill:
#
# $$\theta_j = \theta_{j-1} + u_\omega(g_j, s_{j-1})$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $\theta_j$ | `theta` | `[tasks, 10]`, the parameters after $j$ steps |
# | $g_j$ | `gradient(theta, task)` | `[tasks, 10]`, the gradient at $\theta_{j-1}$, read as a constant |
# | $s_j$ | `state` | two `[tasks * 10, 20]`, what the LSTM carries along: a memory for each coordinate |
# | $u_\omega$ | `rule` | an LSTM with weights $\omega$ |


# %%
def quadratics(tasks: int, seed: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Tasks (A [tasks, 10, 10], b [tasks, 10]) and starting points [tasks, 10]."""
    draw = torch.Generator().manual_seed(seed)
    matrices = torch.randn(tasks, 10, 10, generator=draw)
    targets = torch.randn(tasks, 10, generator=draw)
    return (matrices, targets), torch.randn(tasks, 10, generator=draw)


def residual(theta: Tensor, task: tuple[Tensor, Tensor]) -> Tensor:
    return (task[0] @ theta[..., None])[..., 0] - task[1]


def value(theta: Tensor, task: tuple[Tensor, Tensor]) -> Tensor:
    """|A theta - b|^2 of every task: [tasks]."""
    return residual(theta, task).square().sum(-1)


@torch.no_grad()  # a constant for the rule
def gradient(theta: Tensor, task: tuple[Tensor, Tensor]) -> Tensor:
    """2 A^T (A theta - b): [tasks, 10]."""
    return 2 * (task[0].mT @ residual(theta, task)[..., None])[..., 0]


# %%
class Rule(nn.Module):
    def __init__(self, hidden: int = 20) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(2, hidden), nn.Linear(hidden, 1)
        with torch.no_grad():  # an untrained rule should take small steps
            self.out.weight.mul_(0.01)
            self.out.bias.zero_()

    def forward(
        self, g: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        # every coordinate of every task is a row: [tasks * 10, 2]
        rows = package.preprocess(g.detach()).flatten(0, -2)
        state = self.cell(rows, state)
        return self.out(state[0]).view(g.shape), state


# %% [markdown]
# The rule calls the package's `preprocess`, which agrees with yours up to rounding. Even rounding changes what training finds, as you will see.
#
# Each row of the LSTM's batch is one coordinate of one task. The next cell loops over the coordinates, then takes all at once.
#
# No coordinate sees another, so a law follows: rename the coordinates, and the steps are renamed with them.

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
untrained, (task, theta) = Rule(), quadratics(1, seed=5)
looped, at_once, states, state = theta.clone(), theta.clone(), [None] * 10, None
for _ in range(3):
    g = gradient(looped, task)
    for k in range(10):
        step, states[k] = untrained(g[:, k : k + 1], states[k])
        looped[:, k] += step.detach()[0]
    step, state = untrained(gradient(at_once, task), state)
    at_once = at_once + step.detach()
assert torch.allclose(looped, at_once, atol=1e-5)
order = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
assert torch.allclose(
    untrained(g[:, order], None)[0], untrained(g, None)[0][:, order], atol=1e-6
)
print("loop and batch agree; the order of the coordinates does not matter")
print(
    "weights of the rule:",
    sum(p.numel() for p in untrained.parameters()),
    "for nets of any size",
)

# %% [markdown]
# ## Truncated unrolling
#
# To train the rule, you run it for 100 steps, average the values $\|A\theta_j - b\|^2$ on the way, and take the gradient with respect to $\omega$. Autograd must then remember 100 steps for one update.
# [Truncated unrolling](../lessons/GLOSSARY.md#truncated-unrolling "截断展开") cuts the run into pieces. After each, the rule is updated, $\theta$ *and the memory* are detached, and the run goes on. Autograd then stores one piece, but no gradient crosses a cut. Andrychowicz et al. cut every 20 steps, you every 10.


# %%
def run(rule: Rule, theta: Tensor, task, steps: int, state=None, cut: int = 0):
    """steps updates -> theta [tasks, 10], state, values [steps, tasks].
    cut: detach after every so many steps; 0 for never.
    """
    values = []
    for j in range(steps):
        if cut and j % cut == 0 and state is not None:
            theta, state = theta.detach(), tuple(s.detach() for s in state)
        step, state = rule(gradient(theta, task), state)
        theta = theta + step
        values.append(value(theta, task))
    return theta, state, torch.stack(values)


def train_rule(
    unroll: int, updates: int, cut: int = 0, seed: int = 0, kept: dict | None = None
) -> Rule:
    """Trains on runs of 100 steps, with one update after every `unroll` steps.
    kept: if given, receives a copy of the rule after 200 updates.
    """
    torch.manual_seed(seed)
    rule = Rule()
    optimiser = torch.optim.Adam(rule.parameters(), lr=1e-2)
    for update in range(updates):
        number, piece = divmod(update, 100 // unroll)
        if piece == 0:  # a new run: new tasks, empty memory
            (task, theta), state = quadratics(16, 10_000 * seed + 1000 + number), None
        theta, state, values = run(rule, theta, task, unroll, state, cut)
        optimiser.zero_grad()
        values.mean().backward()
        nn.utils.clip_grad_norm_(rule.parameters(), 1.0)
        optimiser.step()
        theta, state = theta.detach(), tuple(s.detach() for s in state)  # the cut
        if kept is not None and update == 199:
            kept[200] = copy.deepcopy(rule).requires_grad_(False)
    return rule.requires_grad_(False)


early = {}  # the same rule after 200 updates, for later
learned = train_rule(unroll=10, updates=600, kept=early)

# %% [markdown]
# ### Against tuned rules
#
# Every hand-written rule gets the rate that does best on *other* quadratics. The measure is what the learned rule was trained for: the mean value over 100 steps. B's values are shown times 100.
#
# | columns of the output | say |
# |---|---|
# | `step 100` | the rule's mean value over 128 tasks at the last step |
# | `average` | its mean over all 100 steps as well |
# | `learned minus it` | the learned rule's value minus the number to the left, paired over the tasks, with the 95 % interval |


# %%
def by_hand(
    kind: str, lr: float, theta: Tensor, task: tuple[Tensor, Tensor], steps: int
) -> Tensor:
    """A PyTorch optimiser on all tasks at once -> values [steps, tasks]."""
    theta = theta.clone().requires_grad_()
    makers = {
        "SGD": torch.optim.SGD,
        "momentum": torch.optim.SGD,
        "Adam": torch.optim.Adam,
    }
    optimiser = makers[kind](
        [theta], lr=lr, **({"momentum": 0.9} if kind == "momentum" else {})
    )
    values = []
    for _ in range(steps):
        theta.grad = gradient(theta.detach(), task)
        optimiser.step()
        values.append(value(theta.detach(), task))
    return torch.stack(values)


rates, task, theta = {}, *quadratics(128, seed=6)
for kind in ("SGD", "momentum", "Adam"):
    grid = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    scores = {lr: float(by_hand(kind, lr, theta, task, 100).mean()) for lr in grid}
    # NaN is not equal to itself
    rates[kind] = min((score, lr) for lr, score in scores.items() if score == score)[1]
print("best rates:", rates)


# %%
def paired(ours: Tensor, theirs: Tensor) -> str:
    """Mean difference of two rows of values [tasks], paired by task."""
    mean, half = mean_and_ci95(ours - theirs)
    return f"{mean:+7.2f} ± {half:.2f}"


(matrices, targets), theta = quadratics(128, seed=7)
shown, told = {}, []
for name, shrink in (("A: the same family", 1.0), ("B: divided by 10", 0.1)):
    task = (shrink * matrices, shrink * targets)
    curves = {kind: by_hand(kind, lr, theta, task, 100) for kind, lr in rates.items()}
    curves["learned"] = run(learned, theta, task, 100)[2]
    curves = {kind: v / shrink**2 for kind, v in curves.items()}  # one scale
    shown[name] = {kind: values.mean(1) for kind, values in curves.items()}
    print(f"{name:20s}step 100 learned minus it   average learned minus it")
    last, mean = curves["learned"][-1], curves["learned"].mean(0)
    for kind, v in curves.items():
        gaps = paired(last, v[-1]), paired(mean, v.mean(0))
        gaps = ("", "") if kind == "learned" else gaps
        print(f"  {kind:18s}{v[-1].mean():8.2f}{gaps[0]:>17s}", end=" ")
        print(f"{v.mean():9.2f}{gaps[1]:>17s}".rstrip())
    told.append(f"{name}, at the end: ")
    told[-1] += ", ".join(f"{kind} {v[-1].mean():.2f}" for kind, v in curves.items())

# %%
figure, axes = new(8.5, 3.2, columns=2)
for axis, (name, curves) in zip(axes, shown.items()):
    for slot, (kind, values) in enumerate(curves.items()):
        axis.plot(range(1, 101), values, markevery=12, label=kind, **slot_style(slot))
    axis.set(title=name, xlabel="step", yscale="log")
low = min(axis.get_ylim()[0] for axis in axes)
high = max(axis.get_ylim()[1] for axis in axes)
for axis in axes:
    axis.set_ylim(low, high)
axes[0].set_ylabel("mean value (B: times 100)")
axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
show(
    figure,
    "Value against step on a logarithmic axis, mean over 128 new quadratics, for SGD, "
    f"momentum, Adam and the learned rule. {'; '.join(told)}.",
)

# %% [markdown]
# **The puzzle, A.** On average the learned rule wins by far, and every interval leaves out 0: its first steps are large and right. At step 100 it is lowest, but only just. The intervals cover the draw of tasks, not the luck of training: how low does the rule end when it is trained again?
#
# | value at step 100 | seed 0 | seed 1 | seed 2 |
# |---|---|---|---|
# | `train_rule(10, 600, seed=...)` | 0.36, as shown | 0.43 | 0.57 |
# | the same, with a `preprocess` that differs in its last digits alone | 0.60 | 0.34 | 0.49 |
#
# Last digits matter because each update starts where the one before ended, so a tiny difference grows. Momentum's 0.40 lies between all these values, so this training has not won the end.

# %% [markdown]
# **The puzzle, B.** Adam is lowest at both: it divides the gradients' size away. The steps of SGD and momentum shrink a hundredfold. The learned rule is second, but well above Adam: probably because it met such gradients mostly near a minimum.

# %% [markdown]
# ## The Meta-LSTM: parameters as a cell state
#
# An LSTM's memory, its [cell state](../lessons/GLOSSARY.md#cell-state "细胞状态"), follows $c_j = f_j \odot c_{j-1} + i_j \odot \tilde c_j$: a forget [gate](../lessons/GLOSSARY.md#gate "门控") $f_j$ says what is kept, an input gate $i_j$ what of the candidate $\tilde c_j$ is let in. Ravi and Larochelle saw gradient descent in it: they let $c_j = \theta_j$ and $\tilde c_j = -g_j$. First gradient descent, then theirs:
#
# $$\theta_j = \theta_{j-1} - \alpha\, g_j$$
#
# $$\theta_j = f_j \odot \theta_{j-1} - i_j \odot g_j$$
#
# So the input gate is a rate and the forget gate a shrinkage. The start $\theta_0$ is learned, as in MAML.
#
# | symbol | variable | shape |
# |---|---|---|
# | $\theta_j$ | `theta` | `[P]`, all $P$ parameters of the net in a row |
# | $g_j$ | `gradient` | `[P]` |
# | $f_j$, $i_j$ | `f`, `i` | `[P]`, between 0 and 1 |
# | $\odot$ | `*`, entry by entry | `[P]` |
#
# ### Exercise 11.2  The cell update  (difficulty 1/5, 4 min)
#
# Gates are made from logits: $\sigma(x) = 1/(1 + e^{-x})$. Return the next cell state.
# By hand: $\theta = 2$, $g = 4$, both logits 0. Then $0.5 \cdot 2 - 0.5 \cdot 4 = -1$.
#
# | `theta`, `gradient`, `forget_logits`, `input_logits` | returned |
# |---|---|
# | `[P]` each | `[P]` |


# %%
def cell_update(
    theta: Tensor, gradient: Tensor, forget_logits: Tensor, input_logits: Tensor
) -> Tensor:
    """f * theta - i * gradient, the gates from their logits. All [P] -> [P]."""
    # BEGIN SOLUTION
    f, i = forget_logits.sigmoid(), input_logits.sigmoid()
    return f * theta - i * gradient
    # END SOLUTION


cell_update = check("11.2", cell_update)

# %% [markdown]
# ### Exercise 11.3  Gates that are SGD  (difficulty 2/5, 5 min)
#
# SGD with [weight decay](../lessons/GLOSSARY.md#weight-decay "权重衰减") adds $\lambda\theta$ to the gradient, so its step leads to $\theta - \alpha(g + \lambda\theta)$. Which gate *values* (not logits) give exactly that? Collect what stands before $\theta$ and what stands before $g$.
#
# | `lr` | `weight_decay` | returned |
# |---|---|---|
# | $\alpha$ | $\lambda$ | `(f, i)`, two numbers |


# %%
def sgd_gates(lr: float, weight_decay: float) -> tuple[float, float]:
    """Forget and input gate of SGD with this rate and weight decay."""
    # BEGIN SOLUTION
    return 1 - lr * weight_decay, lr
    # END SOLUTION


sgd_gates = check("11.3", sgd_gates)

# %% [markdown]
# ## Who sets the gates?
#
# An ordinary LSTM, the *reader*, reads the preprocessed gradient and loss and returns $h_j$, a row for each parameter. A gate is a logistic regression on three things: $h_j$, the parameter, and the value that this same gate had in the step before.
#
# $$i_j = \sigma(w_I^\top [h_j, \theta_{j-1}, i_{j-1}] + b_I)$$
#
# $$f_j = \sigma(w_F^\top [h_j, \theta_{j-1}, f_{j-1}] + b_F)$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $h_j$ | `h` | `[P, H]`, $H$ the reader's width |
# | $[\cdot, \cdot]$ | `torch.cat(..., dim=1)` | `[P, H + 2]` |
# | $w_I$, $b_I$, $w_F$, $b_F$ | `input_gate`, `forget_gate` | `nn.Linear(H + 2, 1)` each |
#
# **A price.** The sigmoid keeps each rate between 0 and 1; in lesson 10 some of Meta-SGD's were negative.

# %% [markdown]
# ### Exercise 11.4  One coordinate-wise step  (difficulty 3/5, 10 min)
#
# $g_j$ depends on $\theta_{j-1}$, and so on the rule's weights. The paper ignores that, as FOMAML does, and calls it [gradient independence](../lessons/GLOSSARY.md#gradient-independence "梯度独立").
#
# Write one step. The reader's input is `[preprocess(gradient), preprocess(loss)]`, `[P, 4]`: the loss is one number and goes into every row. Detach `gradient` and `loss` everywhere; the meta-gradient flows through `theta`, `i` and `f`.
#
# | argument | |
# |---|---|
# | `reader(inputs [P, 4])` | returns `h [P, H]` |
# | `input_gate`, `forget_gate` | `[P, H + 2]` to logits `[P, 1]` |
# | `theta`, `gradient`, `i`, `f` | `[P]`; `i`, `f` are the last gates |
# | `loss` | a scalar |
# | returned | `(theta, i, f)`, `[P]` each |


# %%
def lstm_step(
    reader,
    input_gate,
    forget_gate,
    theta: Tensor,
    gradient: Tensor,
    loss: Tensor,
    i: Tensor,
    f: Tensor,
):
    """One step of the Meta-LSTM -> new theta, i and f, [P] each."""
    # BEGIN SOLUTION
    gradient, loss = gradient.detach(), loss.detach()
    # [P, 4]
    inputs = torch.cat(
        [preprocess(gradient), preprocess(loss).expand(len(theta), 2)], dim=1
    )
    h = reader(inputs)
    i = (
        input_gate(torch.cat([h, theta[:, None], i[:, None]], dim=1))
        .squeeze(1)
        .sigmoid()
    )
    f = (
        forget_gate(torch.cat([h, theta[:, None], f[:, None]], dim=1))
        .squeeze(1)
        .sigmoid()
    )
    return f * theta - i * gradient, i, f
    # END SOLUTION


lstm_step = check("11.4", lstm_step)

# %% [markdown]
# ## Meet the package
#
# `MetaLSTM` writes your step out in a loop. Its reader is an LSTM with a `state`, and before step 1 the *previous* gates are set to $i = f = 0$. If you force all gates to $f = 1$ and $i = 0.1$, it must agree with lesson 07's `adapt`.

# %%
episodes = EpisodeSampler(train, n_way=5, k_shot=1, n_query=5, seed=1)


def net(seed: int = 0, width: int = 12) -> nn.Module:
    torch.manual_seed(seed)
    return classifier(conv4(width), 5)


forced = MetaLSTM(net(), steps=3, lr=0.1).double()
with torch.no_grad():
    for gate, logit in (
        (forced.input_gate, torch.tensor(0.1, dtype=torch.float64).logit()),
        (forced.forget_gate, 50),
    ):
        gate.weight.zero_()
        gate.bias.fill_(logit)
episode = episodes[0].to(torch.float64)
sgd = adapt(
    support_loss(forced.model, episode),
    trainable(forced.model),
    lr=0.1,
    steps=3,
    track=False,
)
gap = max(
    float((p.detach() - sgd[name]).abs().max())
    for name, p in forced.adapted(episode).items()
)
assert gap < 1e-10
assert torch.allclose(preprocess(theta), package.preprocess(theta), atol=1e-6)
print("with forced gates the Meta-LSTM is SGD: every parameter agrees")
print(inspect.getsource(MetaLSTM.adapted))

# %% [markdown]
# ### A gradient that is not the slope
#
# What does gradient independence cost? The meta-gradient is the query loss's gradient with respect to the rule's weights; here you look at one of them, the input gate's bias. Compare it with central differences, which leave nothing out. After *one* step both agree, because $g_1$ depends on no gate. But $g_2$ depends on the gates of step 1.

# %%
small = MetaLSTM(nn.Linear(2, 1), steps=1, lr=0.3).double()
draw = torch.Generator().manual_seed(2)
x = torch.randn(6, 2, generator=draw).double()
y = torch.randn(6, 1, generator=draw).double()
points = Episode(x[:4], y[:4], x[4:], y[4:], torch.zeros(0, dtype=torch.int64))
bias, values = small.input_gate.bias, [0.0, 0.0, 0.0]
for steps in (1, 2, 5):
    small.steps = steps
    claimed = float(torch.autograd.grad(small.loss(points), bias)[0])
    for k, shift in enumerate((1e-5, -2e-5, 1e-5)):  # up, down and back
        bias.data += shift
        values[k] = float(small.loss(points).detach())
    slope = (values[0] - values[1]) / 2e-5
    print(f"{steps} steps: meta-gradient {claimed:+.4f}, true slope {slope:+.4f}")
    assert steps > 1 or abs(claimed - slope) < 1e-6

# %% [markdown]
# The sign is right, but after two steps the meta-gradient is 2.5 times too large, after five 3.6 times. A larger gate in step 1 leaves a smaller gradient for step 2, which takes part of the effect back; this part is missing. If every slope were too large by one factor, Adam would divide it away; if factors differ, the update goes elsewhere. Whether that harms we have not measured.
#
# ## What the cut costs
#
# The next cell cuts 40 steps of the trained rule into pieces and sums their gradients. How far is the sum from the full gradient ($g$ is a constant in both), and how many numbers does autograd keep for a piece?

# %%
rule = learned.requires_grad_(True)
task, start = quadratics(64, seed=8)


def cut_gradient(unroll: int, steps: int = 40) -> tuple[Tensor, int]:
    """Gradient of the summed values with respect to the rule's weights,
    cut into pieces; numbers kept for one piece.
    """
    total, kept, theta, state = 0, [], start, None
    for _ in range(steps // unroll):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t.numel()) or t, lambda t: t
        ):
            theta, state, values = run(rule, theta, task, unroll, state)
            parts = torch.autograd.grad(values.sum(), list(rule.parameters()))
        total = total + torch.cat([part.flatten() for part in parts])
        theta, state = theta.detach(), tuple(s.detach() for s in state)
    return total, sum(kept)


cuts = {length: cut_gradient(length) for length in (1, 2, 5, 10, 20, 40)}
learned.requires_grad_(False)
full, most = cuts[40]
for length, (g, kept) in cuts.items():
    error = float((g - full).norm() / full.norm())
    cosine = float(torch.cosine_similarity(g, full, dim=0))
    print(
        f"pieces of {length:2d}: error {error:.2f}, cosine {cosine:.2f}, "
        f"kept {kept / most:.1%}"
    )
    # what is kept grows with the length
    assert abs(kept * 40 / length / most - 1) < 0.2

# %% [markdown]
# What is kept grows in proportion to the length. The sum errs in size and direction (an error above 1 is worse than no gradient). For this rule two pieces bring the cosine down to about 0.6. Over three trainings, each at ten moments, that was the exception:
#
# | pieces of | cosine with the full gradient |
# |---|---|
# | 1 step | from -0.5 to 1 |
# | 20 steps | about 0.97 or more in 27 of 30 cases; lowest for the rule shown |
#
# You buy memory with a wrong gradient. What harm does that do?
#
# By hand: $\theta_j = a\,\theta_{j-1}$, $\theta_0 = 1$, $a = 2$, five steps. The derivative of $\theta_5 = a^5$ is $5a^4 = 80$, one $a^4 = 16$ for each step. Back through two steps, 32 is left.
#
# ### Exercise 11.5  What detach cuts  (difficulty 3/5, 8 min)
#
# Take `steps` steps. Return the gradient of `loss(theta)` with respect to `weight`, back through the *last* `truncate` steps only. A step also hands on `state`, its memory, which carries gradients as `theta` does.
#
# | argument | |
# |---|---|
# | `step(weight, theta, state)` | returns the next `(theta, state)` |
# | `weight`, `theta`, `state` | tensors; `weight` requires a gradient |
# | `truncate` | 1 or more; more than `steps` means all |
# | returned | like `weight`; a second call returns the same |


# %%
def truncated_gradient(
    step, loss, weight: Tensor, theta: Tensor, state: Tensor, steps: int, truncate: int
) -> Tensor:
    """Gradient with respect to weight, through the last `truncate` steps."""
    # BEGIN SOLUTION
    for t in range(steps):
        if t == steps - truncate:
            theta, state = theta.detach(), state.detach()
        theta, state = step(weight, theta, state)
    return torch.autograd.grad(loss(theta), weight)[0]
    # END SOLUTION


truncated_gradient = check("11.5", truncated_gradient)

# %% tags=["nbval-check-output"]
a = torch.tensor(2.0, requires_grad=True)
for truncate in (1, 2, 5):
    slope = truncated_gradient(
        lambda a, theta, state: (a * theta, state),
        lambda theta: theta,
        a,
        torch.tensor(1.0),
        a.detach(),
        5,
        truncate,
    )
    print(
        f"back through {truncate} of 5 steps: {float(slope):.0f}, by hand {truncate} * "
        f"2^4 = {truncate * 16}"
    )

# %% [markdown]
# ## Are short pieces greedy?
#
# A piece of one step rewards the value right after that step, and nothing later. So one expects a [greedy](../lessons/GLOSSARY.md#greedy "贪心") rule, which gains at once and loses later. Test that: three rules are trained on the same 2,000 steps. The first is your rule after 200 of its 600 updates.
#
# | rule | updated | gradient cut |
# |---|---|---|
# | long | every 10 steps | every 10 steps |
# | long, cut | every 10 steps | every step |
# | short | every step | every step |
#
# The first two differ in the cut alone, the last two in the updates. Predict the order at step 100.

# %%
trained = {
    "long": early[200],
    "long, cut": train_rule(unroll=10, updates=200, cut=1),
    "short": train_rule(unroll=1, updates=2000),
}
task, start = quadratics(128, seed=7)
arms = {name: run(rule, start, task, 300)[2] for name, rule in trained.items()}
for name, values in arms.items():
    means = ", ".join(f"{values[j - 1].mean():.2f} at step {j}" for j in (10, 100, 300))
    print(
        f"{name:9s} {means}; at step 100 minus long",
        paired(values[99], arms["long"][99]),
    )

# %% [markdown]
# No trace of greed: both rules cut at every step lead at step 10, at 100 and far beyond their training, at 300. The table has the value at step 100 for 6,000 steps of training (600 in the last row) and other seeds (`train_rule(10, 600, cut=1, seed=2)` repeats one of them):
#
# | updated every | cut every | seed 0 | seed 1 | seed 2 |
# |---|---|---|---|---|
# | 50 | 50 | 1.32 | 0.85 | 1.84 |
# | 50 | 1 | 0.52 | 0.67 | 0.42 |
# | 10 | 10 | 0.36 (other rounding: 0.60) | 0.43 (0.34) | 0.57 (0.49) |
# | 10 | 1 | 0.42 | 0.57 | 0.44 |
# | 1 | 1 | 0.22 | 0.23 | 0.22 |
# | 1, for 600 steps only | 1 | 0.46 | 0.46 | 0.40 |
#
# Rows 1 and 2, and 3 and 4, differ in the cut alone: at 50 steps it helps, at 10 its lead above does not last. Rows 2, 4 and 5 share the cut: the most updates win. The last row has as many updates as row 4, and is level with it.

# %% [markdown]
# Why does the cut do no harm? Take the early rule, `long`, and move its weights against a gradient, by a length of 0.01 or 0.1. How does the mean value of 40 steps change?

# %%
task, start = quadratics(64, seed=8)


def nudged(rule: Rule, cut: int, size: float) -> str:
    """What a step of this size against a gradient does to the mean of 40 values."""
    weights = list(rule.requires_grad_(True).parameters())
    before = run(rule, start, task, 40, cut=cut)[2].mean(0)
    slopes = torch.autograd.grad(before.mean(), weights)
    length = torch.cat([slope.flatten() for slope in slopes]).norm()
    rule.requires_grad_(False)
    for weight, slope in zip(weights, slopes):
        weight -= size * slope / length
    after = run(rule, start, task, 40)[2].mean(0)
    for weight, slope in zip(weights, slopes):  # and back
        weight += size * slope / length
    return paired(after, before.detach())


print("length of the step:           0.01              0.1")
for name, cut in (("never", 0), ("every 10 steps", 10), ("every step", 1)):
    moves = [nudged(early[200], cut, size) for size in (0.01, 0.1)]
    print(f"gradient cut {name:14s}", "   ".join(moves))

# %% [markdown]
# A step of 0.01 changes little. One of 0.1 against the uncut gradient *raises* the value, by 5.9. Cut every 10 steps it still raises it; cut at every step it lowers it by 0.9. The early rule of seed 1 (`train_rule(10, 200, seed=1)`) gave +2.4, +2.0 and -0.5.
#
# So the gradient cut at every step was no worse for the first rule at 0.01, and the only safe one for both at 0.1: through many steps the value is rugged, and its slope holds only nearby. Metz et al. (2019) describe such a landscape.

# %% [markdown]
# ## When greed is punished
#
# Wu et al. found greed harmful, with *noise*. Take coordinates of curvature $h$, value $\tfrac12 \sum h\theta^2$. Each gradient is $h(\theta - \varepsilon)$, with a fresh random $\varepsilon$ of variance $\sigma^2$. One step of rate $\alpha$ turns $e = \mathbb{E}[\theta^2]$ into
#
# $$e' = (1 - \alpha h)^2 e + \alpha^2 h^2 \sigma^2$$
#
# The greedy rate minimises $\tfrac12\sum h e'$ now. Set the derivative with respect to $\alpha$ to 0:
#
# $$\alpha = \sum h^2 e \,\big/ \sum h^3 (e + \sigma^2)$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $h$, $e$ | `h`, `e` | `[10]` |
# | $\sigma^2$ | `noise` | one number |
#
# Once steep coordinates hold only noise, they keep the denominator large. So the rate falls, and flat coordinates starve.

# %%
h = torch.logspace(0, -2, 10, dtype=torch.float64)


def greedy_rate(e: Tensor, noise: float) -> float:
    return float((h**2 * e).sum() / (h**3 * (e + noise)).sum())


def expected(noise: float, rate: float | None = None, steps: int = 300) -> list[float]:
    """Expected values after each step, at a fixed rate or (None) the greedy ones."""
    e, values = torch.ones_like(h), []
    for _ in range(steps):
        alpha = greedy_rate(e, noise) if rate is None else rate
        e = (1 - alpha * h) ** 2 * e + alpha**2 * h**2 * noise
        values.append(float((h * e).sum() / 2))
    return values


best = greedy_rate(torch.ones_like(h), 0.01)  # no rate nearby does better in one step
assert expected(0.01, best, 1) <= min(
    expected(0.01, best + d, 1) for d in (-0.01, 0.01)
)
fixed = [float(rate) for rate in torch.logspace(-2, 0.29, 60)]
toy = {}
for noise in (0.0, 0.01):
    patient = min((expected(noise, rate) for rate in fixed), key=lambda v: v[-1])
    toy[noise] = {"greedy": expected(noise), "best fixed rate": patient}
    for name, v in toy[noise].items():
        print(
            f"noise {noise:4.2f}  {name:16s} {v[9]:.1e} at step 10, {v[-1]:.1e} at 300"
        )

# %% tags=["draws"]
figure, axes = new(8.5, 2.8, columns=2)
for axis, (noise, curves) in zip(axes, toy.items()):
    for slot, (name, values) in enumerate(curves.items()):
        axis.plot(range(1, 301), values, markevery=40, label=name, **slot_style(slot))
    axis.set(
        title=f"noise {noise}",
        xlabel="step",
        yscale="log",
        xscale="log",
        ylim=(1e-8, 2),
    )
axes[0].set_ylabel("expected value")
axes[0].legend(fontsize=8)
show(
    figure,
    "Expected value against step, both axes logarithmic. Without noise the greedy "
    "rates and the best fixed rate end together near 3e-8. With noise the greedy "
    "rates lead at first, are overtaken, and end nearly three times as high.",
)

# %% [markdown]
# Without noise, greed ends level with the best fixed rate. With noise it leads at step 10 and is 2.8 times as high at step 300. New support rows in each inner step move the bottom, and so act as this noise. Your quadratics have none.
#
# ## Train for real
#
# 5-way 1-shot Glyphs, width 12, three inner steps, the same random start and 100 tasks for all:
#
# | learner | learns | input gate or rate | outer rate | gradients clipped at |
# |---|---|---|---|---|
# | Meta-LSTM, all | start and rule | begins at 0.1 | 0.003 | 0.25 |
# | Meta-LSTM, rule only | the rule; `truncate=2` cuts off the start | begins at 0.01, too small on purpose | 0.01 | 0.25 |
# | MAML | the start | 0.1 | 0.003 | |
#
# Predict: will the rule find out that its rate is too small?

# %%
print("Meta-LSTM, all")
both = MetaLSTM(net(), steps=3, lr=0.1)
history = fit(both, episodes, steps=50, tasks=2, lr=3e-3, clip=0.25)

# %%
print("MAML")
maml = MAML(net(), lr=0.1, steps=3)
history = fit(maml, episodes, steps=50, tasks=2, lr=3e-3)

# %%
print("Meta-LSTM, rule only")
rule_only = MetaLSTM(net(), steps=3, lr=0.01, truncate=2)
history = fit(rule_only, episodes, steps=50, tasks=2, lr=1e-2, clip=0.25)
moved = [
    float((a - b).detach().abs().max())
    for a, b in zip(rule_only.model.parameters(), net().parameters())
]
assert max(moved) == 0  # the random initialisation is untouched
print("largest change of the initialisation:", max(moved))

# %% [markdown]
# ## Evaluate honestly
#
# Which part does the work, the start or the rule? You try each start with the rule that was learned for it, and with SGD at its best rate on *validation* classes. Every learner judges every query [on its own](../lessons/GLOSSARY.md#inductive "归纳式").

# %%
tuning = EpisodeSampler(val, n_way=5, k_shot=1, n_query=5, seed=3)
grid = (0.03, 0.1, 0.2, 0.4)
learners = {}
starts = (("random", net(), rule_only), ("learned", both.model, both))
for start, model, learned_rule in starts:
    scores = {lr: evaluate(MAML(model, lr, 3), tuning, episodes=15).mean for lr in grid}
    best = max(scores, key=scores.get)
    shown = {lr: f"{score:.0%}" for lr, score in scores.items()}
    print(f"{start} start: SGD by rate {shown} -> {best}")
    learners[f"{start} start, SGD"] = MAML(model, best, 3)
    learners[f"{start} start, learned rule"] = learned_rule
# where the input gate of "rule only" began
learners["random start, SGD at 0.01"] = MAML(net(), 0.01, 3)
learners["MAML, its own start and rate"] = maml

# %%
exam = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=7)
results = {
    name: evaluate(learner, exam, episodes=50) for name, learner in learners.items()
}
for name, result in results.items():
    print(f"{name:30s} {result.mean:6.1%} ± {result.ci95:.1%}")
pairs = {
    "what the rule found out": (
        "random start, learned rule",
        "random start, SGD at 0.01",
    ),
    "the rule, from a random start": (
        "random start, learned rule",
        "random start, SGD",
    ),
    "the rule, from the learned start": (
        "learned start, learned rule",
        "learned start, SGD",
    ),
    "the start, under SGD": ("learned start, SGD", "random start, SGD"),
    "Meta-LSTM minus MAML": (
        "learned start, learned rule",
        "MAML, its own start and rate",
    ),
}
print()
for question, (one, other) in pairs.items():
    print(f"{question:33s} {compare(results[one], results[other])}")
rows = {name: (result.mean, result.ci95) for name, result in results.items()}
told = ", ".join(f"{name} {mean:.0%}" for name, (mean, _) in rows.items())
show(
    intervals(rows, chance=0.2),
    f"5-way 1-shot accuracy with 95 % intervals: {told}. Dashed: chance.",
)

# %% [markdown]
# **The verdict.** The rule did find out that its rate was too small: it is 19 ± 3 points better than SGD at 0.01. But it loses to SGD's best rate, from the random start by 4 ± 3 and from the learned one by 5 ± 3, and MAML is 8 ± 4 ahead of the whole Meta-LSTM. The start is worth 11 ± 4. The table has more starts (an entry each), and a wider net trained longer:
#
# | start | net, updates | learned rule minus SGD at its best rate |
# |---|---|---|
# | random | as shown | −3.9 ± 3.4 |
# | random | width 16, 100 updates | −5.5 ± 3.5; −2.7 ± 3.8; +0.3 ± 3.3 |
# | learned | as shown | −4.7 ± 3.0 |
# | learned | width 16, 100 updates | +0.2 ± 1.8; −0.3 ± 2.2 |
#
# With more training it draws level at best: in none of these comparisons does it beat a tuned rate. A likely reason: a grid reads off one number; the rule must find it through noisy meta-gradients.

# %% [markdown]
# <details><summary>What followed</summary>
#
# VeLO (Metz et al. 2022) was trained for about four thousand TPU-months; its authors report that it beats Adam at its best rate. Rezk et al. (2023) tried it on another benchmark and found it neither faster nor better: game B at scale. In few-shot learning the learned *start* stayed.
#
# </details>
#
# ## What do the gates say?
#
# Listen to the gates during adaptation. A fixed rate would be one flat line without a band.


# %%
@torch.no_grad()
def listen(learner: MetaLSTM, gate: nn.Module, episode: Episode) -> Tensor:
    """The gate's values while the learner adapts: [steps, P]."""
    seen = []
    hook = gate.register_forward_hook(
        lambda module, args, logits: seen.append(logits.sigmoid().flatten())
    )
    learner.adapted(episode)
    hook.remove()
    return torch.stack(seen)


# %% tags=["draws"]
figure, axes = new(9.5, 3, columns=2)
told = []
for slot, (name, learner, start) in enumerate(
    (("all", both, 0.1), ("rule only", rule_only, 0.01))
):
    for axis, gate in zip(axes, (learner.input_gate, learner.forget_gate)):
        spread = torch.tensor([0.1, 0.5, 0.9])
        # a number for each inner step
        low, middle, high = listen(learner, gate, exam[0]).quantile(spread, dim=1)
        axis.plot((1, 2, 3), middle, label=f"{name}: median", **slot_style(slot))
        axis.fill_between((1, 2, 3), low, high, alpha=0.2, color=SLOTS[slot])
        told.append(
            f"{name}, {'input' if axis is axes[0] else 'forget'} gate "
            f"{', '.join(f'{m:.3f}' for m in middle)}"
        )
    axes[0].axhline(
        start, color=SLOTS[slot], linestyle=":", label=f"{name}: before training"
    )
for axis, title in zip(
    axes, ("input gate: the rate", "forget gate: 1 keeps everything")
):
    axis.set(title=title, xlabel="inner step", xticks=(1, 2, 3))
axes[0].set_yscale("log")
axes[1].legend(
    *axes[0].get_legend_handles_labels(),
    fontsize=8,
    loc="center left",
    bbox_to_anchor=(1.0, 0.5),
)
print("\n".join(told))
show(
    figure,
    "Median gates over all parameters at inner steps 1 to 3, with bands from the 10 % "
    "to the 90 % quantile, for both Meta-LSTMs, and dotted lines where the input "
    f"gates began. Medians: {'; '.join(told)}.",
)

# %% [markdown]
# **Input gates.** The rule that began at 0.01 opened its gate to about 0.2, twice SGD's best rate, and is more careful in the first step. The wider net of the table, trained longer, opened it to about 0.4 with three seeds, and narrowed it in the last step. With a learned start it rises from 0.17 to 0.27.
#
# **Forget gates.** All medians lie within half a hundredth of 1, so next to nothing is forgotten: the rule is SGD whose rates change mainly with the step.

# %% [markdown]
# ## Explore
#
# Predict, then change the first line of the cell below.
#
# | change | question |
# |---|---|
# | `horizon` to 1000 | the rule was trained for 100 steps: does it go on falling? |
# | `shrink` to 3 or 0.3 | which side does it survive? |
# | `rule` to `train_rule(1, 6000)` | the same 60 runs in pieces of one step: whose printed value is lower? |
#
# <details><summary>Answers</summary>
#
# 1: usually, though nothing in its training taught it to. Of three trainings two went on falling up to step 1,000 (from 0.47 to 0.32, from 0.53 to 0.32) and one rose a little, from 0.64 to 0.69.
# 2: preprocessing turns a factor into a shift of the first number, as long as the gradient is not tiny. With 0.3 the shift is -0.24, about half of game B's -0.46, and does less harm: the rule survives, at step 100 a little higher than before. With 3 the gradients grow ninefold while the right step stays: SGD diverges, and the learned rule ends between 1.5 and 70, depending on its training.
# 3: the rule trained on single steps, as "Are short pieces greedy?" has shown. It has had ten times the updates.
#
# </details>

# %%
horizon, shrink, rule = 300, 1.0, learned
(matrices, targets), theta = quadratics(64, seed=9)
task = (shrink * matrices, shrink * targets)
figure, axis = new(7, 2.8)
curves = {
    "SGD": by_hand("SGD", rates["SGD"], theta, task, horizon),
    "learned": run(rule, theta, task, horizon)[2],
}
told = []
for slot, (name, values) in zip((0, 3), curves.items()):
    means = values.mean(1) / shrink**2
    axis.plot(
        range(1, horizon + 1), means, markevery=25, label=name, **slot_style(slot)
    )
    told.append(
        f"{name}: {means[99]:.3f} at step 100, {means[-1]:.3f} at step {horizon}"
    )
axis.axvline(100, color="#767676", linestyle="--", label="trained up to here")
axis.set(xlabel="step", ylabel="mean value", yscale="log")
axis.legend(fontsize=8)
print("\n".join(told))
show(
    figure,
    f"Value against step beyond the trained horizon, logarithmic. {'; '.join(told)}.",
)

# %% [markdown]
# ## Bug hunt
#
# The symptom: a demo adapts to one task after another. The first result is always right, and so is every task that is run alone. In a row, the results depend on the order.


# %%
class Demo:
    """Adapts 10 numbers to a quadratic with the learned rule,
    20 steps: demo(task) -> theta [10].
    """

    def __init__(self) -> None:
        self.state = None

    def __call__(self, task: tuple[Tensor, Tensor]) -> Tensor:
        theta = torch.zeros(1, 10)
        for _ in range(20):
            step, self.state = learned(gradient(theta, task), self.state)
            theta = theta + step
        return theta[0]


first, second = (quadratics(1, seed=seed)[0] for seed in (31, 27))
demo, alone = Demo(), Demo()
demo(first)
print(f"task 2 after task 1: value {float(value(demo(second), second)):.3f}")
print(f"task 2 alone:        value {float(value(alone(second), second)):.3f}")

# %% [markdown]
# ### Exercise 11.6  Bug hunt: does it remember?  (difficulty 3/5, 8 min)
#
# Write the test. `make()` returns a fresh learner, and a learner maps a task to parameters `[P]`. Return `True` when having met `first` changes what a learner gives for `second`, else `False`. It must work for learners that you cannot look into. Differences up to `atol=1e-4` are rounding.


# %%
def exposes_memory(make, first, second) -> bool:
    """True when a learner's answer to `second` depends on having met `first`.
    make: () -> (task -> params [P]).
    """
    # BEGIN SOLUTION
    used = make()
    used(first)
    return not torch.allclose(used(second), make()(second), atol=1e-4)
    # END SOLUTION


exposes_memory = check("11.6", exposes_memory)
print("the demo remembers:", exposes_memory(Demo, first, second))

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# The LSTM's state lives in `self` and is never emptied, so task 2 starts with the memory of task 1, and only the first task starts clean.
# In a few-shot test this is a [leak](../lessons/GLOSSARY.md#leak "数据泄漏"): an episode must not know the one before.
#
# </details>
#
# The cure is an empty memory for each task. The next cell holds it, and the package, to your test.


# %%
class Cured(Demo):
    def __call__(self, task: tuple[Tensor, Tensor]) -> Tensor:
        self.state = None
        return super().__call__(task)


def package_learner():
    return lambda task: torch.cat([p.flatten() for p in both.adapted(task).values()])


assert exposes_memory(Demo, first, second)
assert not exposes_memory(Cured, first, second)
assert not exposes_memory(package_learner, exam[0], exam[1])
print("cured; MetaLSTM starts every task with an empty memory, too")

# %% [markdown]
# ## Quiz
#
# **1. The forget gate is 0.99 in every step, the input gate 0.1. What is it?**
# (a) SGD with momentum, (b) SGD with weight decay, (c) Adam
#
# <details><summary>Answer</summary>
#
# (b). $1 - \alpha\lambda = 0.99$ with $\alpha = 0.1$: a decay of 0.1. Against (a): momentum keeps old *gradients*, not old parameters. Against (c): nothing is divided by the gradient's size.
#
# </details>
#
# **2. A rule was trained on nets of 50 weights and is now used on one of 5000. What has another size there?**
# (a) its weights, (b) its memory, (c) the output for one coordinate
#
# <details><summary>Answer</summary>
#
# (b). Each coordinate has a memory, so there are 5000 rows. (a) stays, because all coordinates share one set of weights. (c) stays one number.
#
# </details>
#
# **3. `truncate` is 1 of 5 steps. What still learns in `MetaLSTM`?**
# (a) the initialisation, (b) the gates, (c) both
#
# <details><summary>Answer</summary>
#
# (b), through the last step. The cut stands between $\theta_0$ and the loss, so (a) gets no gradient, and (c) is out with it.
#
# </details>
#
# **4. A report compares a learned rule with SGD of rate 0.01. Ask first**
# (a) how many seeds, (b) whether 0.01 is SGD's best, (c) the width of the LSTM
#
# <details><summary>Answer</summary>
#
# (b). Beating an untuned baseline shows little: here it would have been 19 points. (a) comes next, and (c) hardly matters.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | rule | one small LSTM for all coordinates, each with its own memory |
# | Meta-LSTM | $\theta_j = f_j \odot \theta_{j-1} - i_j \odot g_j$; $f = 1$, $i = \alpha$ is SGD |
# | cut | what is remembered grows with the length; greedy *rates* lose under noise, short pieces did no harm without it |
# | verdict | at this budget a learned start is worth much, and a learned rule no more than a tuned rate |
#
# Pitfalls: a state that outlives its task; raw gradients; a baseline with a guessed rate; a loss divided twice (11.7 ★). [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Andrychowicz et al. (2016), *Learning to learn by gradient descent by gradient descent* | equation 3: the rule and its loss; section 2.1: coordinate-wise LSTM; section 3.1: quadratics; appendix A: preprocessing |
# | Ravi and Larochelle (2017), *Optimization as a Model for Few-Shot Learning* | equations 1 and 2: SGD and the cell update; section 3: gates, sharing and preprocessing (3.2), gradient independence |
# | Wu et al. (2018), *Understanding Short-Horizon Bias in Stochastic Meta-Optimization* | the noisy quadratic, and greedy rates |
# | Metz et al. (2019), *Understanding and correcting pathologies in the training of learned optimizers* | bias of truncated unrolls |
# | Metz et al. (2022), *VeLO: Training Versatile Learned Optimizers by Scaling Up*; Rezk et al. (2023), *Is Scaling Learned Optimizers Worth It?* | a learned optimiser at scale, and a second opinion |

# %% [markdown]
# ### Exercise 11.7 ★  Bug hunt: divided twice  (difficulty 3/5, 6 min)
#
# The symptom: a ported learner adapts well at 1 shot and hardly at 10. Its loss is a mean, and the gradient is divided by the number of rows once more.
#
# Write the test. `gradient_of(theta, x, y)` should return the gradient `[P]` of a mean over rows. Return `True` when it changes as every row is *repeated*. Differences within `rtol=1e-3, atol=1e-5` are rounding.


# %%
def divided_twice(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Meant to be the gradient of the mean squared error.
    theta [P], x [B, P], y [B] -> [P].
    """
    mean_gradient = torch.func.grad(lambda theta: (x @ theta - y).square().mean())(
        theta
    )
    return mean_gradient / len(x)


def exposes_scale(gradient_of, theta: Tensor, x: Tensor, y: Tensor) -> bool:
    """True when repeating every row changes the gradient.
    gradient_of: (theta [P], x [B, P], y [B]) -> [P].
    """
    # BEGIN SOLUTION
    once = gradient_of(theta, x, y)
    twice = gradient_of(theta, torch.cat([x, x]), torch.cat([y, y]))
    return not torch.allclose(once, twice, rtol=1e-3, atol=1e-5)
    # END SOLUTION


exposes_scale = check("11.7", exposes_scale)

# %% [markdown]
# ### Which method when?
#
# | you have | take | because |
# |---|---|---|
# | a few pictures of each new class, little time | ProtoNet (05) | one pass and no inner loop; in lesson 10 it beat every variant of MAML |
# | no training classes, but a good encoder | a mean or linear head (02) | nothing to meta-train |
# | tasks that differ in their *outputs*, such as curves | MAML (08, 09) | a distance between pictures has nothing to say |
# | MAML's job, less time on pictures | FOMAML, Reptile, ANIL (10) | no second derivatives, or a head only; one to six points were the price |
# | one family of problems, solved again and again | a learned optimiser (11) | it pays where its training distribution holds |
#
# The next cell compares the methods on the real Omniglot, Meta-LSTM excepted.

# %%
rows, goals = torch.randn(10, 3, generator=draw), torch.randn(10, generator=draw)
print(
    "the port divides twice:", exposes_scale(divided_twice, torch.zeros(3), rows, goals)
)
progress("11")

# Where the methods of both parts stand on the real Omniglot;
# `python -m fsl_course results --json` says how to repeat a number
from IPython.display import HTML

from fsl_course.cli.results import table

HTML(table("random", as_html=True))

# %% [markdown]
# ## Part II ends here: what you can do now
#
# | lesson | you can now | what came out |
# |---|---|---|
# | [07](../notebooks/07_inner_loop.ipynb) | adapt a net by steps that stay differentiable | after one step MAML's error is 2.68 ± 0.45 below that of pretraining |
# | [08](../notebooks/08_outer_loop.ipynb) | derive MAML's gradient and prove it five ways | after one step, second order is ahead of first order by 0.1 to 0.3 |
# | [09](../notebooks/09_maml_images.ipynb) | run MAML on pictures, with honest batch norm | ProtoNet is 5.8 ± 1.9 points ahead at one shot and 3.0 ± 2.6 at five, without moving a weight |
# | [10](../notebooks/10_cheaper_maml.ipynb) | pay less: no second derivative, or a head only | ProtoNet is 3.8 ± 0.6 points above MAML at 0.18 of the cost |
# | 11 | write an optimiser that is itself learned | 19 ± 3 points better than SGD at a guessed rate, 4 ± 3 worse than SGD at its best; the start is worth 11 ± 4 |
#
# A start can be learned, and on curves it pays; on letters a distance did more for less. [Part III](../notebooks/12_mapping.ipynb) asks whether you need the loop at all. You have differentiated through learning itself, on paper and in code: be a little proud of that.
