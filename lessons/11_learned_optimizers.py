# %% [markdown]
# # 11 Learned optimisers: an LSTM writes the update
#
# SGD is a rule that somebody wrote. You replace it by a small network, train it by gradient, and find out what it has learned.
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
# Step in place, or cut the graph: the new parameters must stay a function of the initialisation.
#
# </details>
#
# **2.** What does Meta-SGD learn besides the initialisation?
#
# <details><summary>Answer</summary>
#
# A rate for every parameter. The rates are fixed numbers: they do not look at the gradient, nor at what happened before.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **prepare** gradients for a network (exercise 11.1),
# 2. **read** an LSTM's cell update as gradient descent (exercises 11.2, 11.3),
# 3. **write** one step of a coordinate-wise rule (exercise 11.4),
# 4. **explain** what a truncated unroll cuts (exercise 11.5),
# 5. **expose** a memory that leaks between tasks (exercise 11.6).

# %% [markdown]
# ## A puzzle: who takes over?
#
# A network learns to minimise random quadratics. SGD, momentum and Adam get their best rate from a grid. Then all run 100 steps on new quadratics:
#
# | game | quadratics |
# |---|---|
# | A | of the same family |
# | B | those of A, every matrix and target divided by 10: the minimum stays where it was |
#
# Write down for A and for B: who ends lowest? Nobody is tuned again.

# %%
import inspect
from copy import deepcopy

import torch
from torch import Tensor, nn

from fsl_classroom import check, progress
from fsl_course import Episode, EpisodeSampler, compare, evaluate, fit, load_glyphs
from fsl_course.figures import SLOTS, intervals, new, show, slot_style
from fsl_course.methods import meta_lstm as package
from fsl_course.methods.maml import MAML, adapt, support_loss, trainable
from fsl_course.methods.meta_lstm import MetaLSTM
from fsl_course.nets import classifier, conv4

glyphs = load_glyphs()
train, val, test = (glyphs.split(name) for name in ("train", "val", "test"))

# %% [markdown]
# ## The idea in one picture
#
# A [learned optimiser](../lessons/GLOSSARY.md#learned-optimiser "学习型优化器") is a network that reads a gradient and writes a step. It works [coordinate-wise](../lessons/GLOSSARY.md#coordinate-wise "逐坐标"): all parameters share its few weights, each has its own memory.

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
# Gradients of one net may be 100 or 0.0001. A network that reads both needs numbers of moderate size. So send two: how large, and which sign.
#
# $$\text{preprocess}(x) = \begin{cases} (\ln|x| / p,\; \operatorname{sign} x) & |x| \ge e^{-p} \\ (-1,\; e^{p} x) & |x| < e^{-p} \end{cases}$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $x$ | `x` | `[...]`, gradients or a loss |
# | $p$ | `p` | one number, 10 as a rule |
# | $\text{preprocess}(x)$ | `preprocess(x)` | `[..., 2]` |
#
# By hand, $p = 10$: $x = -e^{-5}$ gives $(-0.5, -1)$; $x = 0$ gives $(-1, 0)$.

# %% [markdown]
# ### Exercise 11.1  Two moderate numbers  (difficulty 1/5, 6 min)
#
# Write it for a tensor of any shape; the two numbers form a new last axis. Mind $x = 0$: no infinity may come out.
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
# As Andrychowicz et al. did: draw a matrix $A$ and a target $b$, minimise $\|A\theta - b\|^2$ over 10 numbers. The [LSTM](../lessons/GLOSSARY.md#lstm "长短期记忆网络") reads the gradient, and its output is *added*:
#
# $$\theta_t = \theta_{t-1} + u_\omega(g_t, s_{t-1})$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $\theta_t$ | `theta` | `[tasks, 10]` |
# | $g_t$ | `gradient(theta, task)` | `[tasks, 10]`, gradient at $\theta_{t-1}$, read as a constant |
# | $s_t$ | `state` | two `[tasks * 10, 20]`, hidden and cell state: a memory for each coordinate |
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


# %%
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
        rows = preprocess(g.detach()).flatten(0, -2)
        state = self.cell(rows, state)
        return self.out(state[0]).view(g.shape), state


# %% [markdown]
# Coordinate-wise means that a batch row is a coordinate. First as a loop over the coordinates, each with its own state, then at once.
#
# Then a law: rename the coordinates, and the steps are renamed with them.

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
untrained, (task, theta) = Rule(), quadratics(1, seed=5)
looped, at_once, states, state = theta.clone(), theta.clone(), [None] * 10, None
for _ in range(3):
    g = gradient(looped, task)
    for j in range(10):
        step, states[j] = untrained(g[:, j : j + 1], states[j])
        looped[:, j] += step.detach()[0]
    step, state = untrained(gradient(at_once, task), state)
    at_once = at_once + step.detach()
assert torch.allclose(looped, at_once, atol=1e-5)
order = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
assert torch.allclose(
    untrained(g[:, order], None)[0], untrained(g, None)[0][:, order], atol=1e-6
)

# %% tags=["nbval-check-output"]
print("loop and batch agree; the order of the coordinates does not matter")
print(
    "weights of the rule:",
    sum(p.numel() for p in untrained.parameters()),
    "for nets of any size",
)

# %% [markdown]
# ## Truncated unrolling
#
# To train the rule, run it, average the values on the way, go back through the run: a graph of 100 steps.
# [Truncated unrolling](../lessons/GLOSSARY.md#truncated-unrolling "截断展开") cuts it into pieces. After each, the rule is updated, $\theta$ *and the memory* are detached, and the run goes on.


# %%
def run(rule: Rule, theta: Tensor, task: tuple[Tensor, Tensor], steps: int, state=None):
    """steps updates -> theta [tasks, 10], state, values [steps, tasks]."""
    values = []
    for _ in range(steps):
        step, state = rule(gradient(theta, task), state)
        theta = theta + step
        values.append(value(theta, task))
    return theta, state, torch.stack(values)


# %%
def train_rule(unroll: int, updates: int, horizon: int = 100) -> Rule:
    torch.manual_seed(0)
    rule = Rule()
    optimiser = torch.optim.Adam(rule.parameters(), lr=1e-2)
    pieces = horizon // unroll
    for update in range(updates):
        if update % pieces == 0:  # a new run: new tasks, empty memory
            (task, theta), state = quadratics(16, seed=1000 + update // pieces), None
        theta, state, values = run(rule, theta, task, unroll, state)
        optimiser.zero_grad()
        values.mean().backward()
        nn.utils.clip_grad_norm_(rule.parameters(), 1.0)
        optimiser.step()
        theta, state = theta.detach(), tuple(s.detach() for s in state)  # the cut
    return rule.requires_grad_(False)


learned = train_rule(unroll=10, updates=600)

# %% [markdown]
# ### Against tuned rules
#
# Every hand-written rule gets the best of its rates on *other* quadratics, by the same measure that the learned rule was trained for: the mean value over 100 steps.


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


# %%
rates, task, theta = {}, *quadratics(128, seed=6)
for kind in ("SGD", "momentum", "Adam"):
    grid = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    scores = {lr: float(by_hand(kind, lr, theta, task, 100).mean()) for lr in grid}
    # NaN is not equal to itself
    rates[kind] = min((score, lr) for lr, score in scores.items() if score == score)[1]
print("best rates:", rates)

# %%
(matrices, targets), theta = quadratics(128, seed=7)
shown, told = {}, []
for name, shrink in (("A: the same family", 1.0), ("B: divided by 10", 0.1)):
    task = (shrink * matrices, shrink * targets)
    curves = {kind: by_hand(kind, lr, theta, task, 100) for kind, lr in rates.items()}
    curves["learned"] = run(learned, theta, task, 100)[2]
    shown[name] = {k: values.mean(1) / shrink**2 for k, values in curves.items()}
    ends = {
        kind: float(values[-1].mean()) / shrink**2 for kind, values in curves.items()
    }
    areas = {kind: float(values.mean()) / shrink**2 for kind, values in curves.items()}
    told.append(
        f"{name}: lowest at the end {min(ends, key=ends.get)}, lowest on average "
        f"{min(areas, key=areas.get)}"
    )
    print(
        told[-1],
        "\n   at the end:",
        ", ".join(f"{kind} {end:.2f}" for kind, end in ends.items()),
    )
    print(
        "   on average:",
        ", ".join(f"{kind} {area:.2f}" for kind, area in areas.items()),
    )

# %%
figure, axes = new(8.5, 3.2, columns=2)
for axis, (name, curves) in zip(axes, shown.items()):
    for slot, (kind, values) in enumerate(curves.items()):
        axis.plot(range(1, 101), values, markevery=12, label=kind, **slot_style(slot))
    axis.set(title=name, xlabel="step", yscale="log")
axes[0].set_ylabel("mean value (B: times 100)")
axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
show(
    figure,
    "Value against step on a logarithmic axis, mean over 128 new quadratics, for SGD, "
    f"momentum, Adam and the learned rule. {'; '.join(told)}.",
)

# %% [markdown]
# **The puzzle.** The lines above say who won; without intervals, near ties are no verdict. The learned rule was trained for the *average* over A.
#
# B shrinks gradients a hundredfold. Adam divides the scale away; SGD's steps shrink with it. The learned rule met gradients that small mostly late, near a minimum: it is a model, with a training distribution.

# %% [markdown]
# ## The Meta-LSTM: parameters as a cell state
#
# An LSTM's [cell state](../lessons/GLOSSARY.md#cell-state "细胞状态") follows $c_t = f_t \odot c_{t-1} + i_t \odot \tilde c_t$. Ravi and Larochelle put in $c_t = \theta_t$, $\tilde c_t = -g_t$. Gradient descent, then theirs:
#
# $$\theta_t = \theta_{t-1} - \alpha\, g_t$$
#
# $$\theta_t = f_t \odot \theta_{t-1} - i_t \odot g_t$$
#
# The input [gate](../lessons/GLOSSARY.md#gate "门控") becomes the rate, the forget gate a shrinkage. The start $\theta_0$ is learned, as in MAML.
#
# | symbol | variable | shape |
# |---|---|---|
# | $\theta_t$ | `theta` | `[P]`, all $P$ parameters of the net in a row |
# | $g_t$ | `gradient` | `[P]` |
# | $f_t$, $i_t$ | `f`, `i` | `[P]`, between 0 and 1 |
# | $\odot$ | `*`, entry by entry | `[P]` |
#
# ### Exercise 11.2  The cell update  (difficulty 1/5, 4 min)
#
# Gates are made from logits: $\sigma(x) = 1/(1 + e^{-x})$. Return the next cell state.
# By hand: $\theta = 2$, $g = 4$, both logits 0. Both gates are one half, so $0.5 \cdot 2 - 0.5 \cdot 4 = -1$.
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
# SGD with [weight decay](../lessons/GLOSSARY.md#weight-decay "权重衰减") adds $\lambda\theta$ to the gradient: $\theta - \alpha(g + \lambda\theta)$. Which gate *values* give exactly that? Collect what stands before $\theta$ and before $g$.
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
# An ordinary LSTM, the *reader*, sees the preprocessed gradient and loss. Each gate sees its output, the parameter and the gate's last value:
#
# $$i_t = \sigma(w_I^\top [h_t, \theta_{t-1}, i_{t-1}] + b_I)$$
#
# $$f_t = \sigma(w_F^\top [h_t, \theta_{t-1}, f_{t-1}] + b_F)$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $h_t$ | `h`, what the reader makes of $g_t$ and the loss | `[P, H]` |
# | $[\cdot, \cdot]$ | `torch.cat(..., dim=1)` | `[P, H + 2]` |
# | $w_I$, $b_I$, $w_F$, $b_F$ | `input_gate`, `forget_gate` | `nn.Linear(H + 2, 1)` each |
#
# **Constants, by decision.** $g_t$ depends on $\theta_{t-1}$, hence on the rule's weights. The paper ignores that: gradients and losses count as constants, as in FOMAML. No second derivatives; but the meta-gradient is not the true slope.
# The assumption is called [gradient independence](../lessons/GLOSSARY.md#gradient-independence "梯度独立").

# %% [markdown]
# ### Exercise 11.4  One coordinate-wise step  (difficulty 3/5, 10 min)
#
# Write one step. Rows of the reader's input are `[preprocess(gradient), preprocess(loss)]`, `[P, 4]`: the loss is one number and goes into every row. Both count as constants, in the update too.
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
# `MetaLSTM` is a loop around your step. Force its gates to $f = 1$, $i = 0.1$: it must then be lesson 07's `adapt`, number by number, on a real episode and a real net.

# %%
episodes = EpisodeSampler(train, n_way=5, k_shot=1, n_query=5, seed=1)


def net(seed: int = 0, width: int = 16) -> nn.Module:
    torch.manual_seed(seed)
    return classifier(conv4(width), 5)


# %%
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
# Held against central differences, the meta-gradient misses what was held constant. After *one* step that is nothing: $g_1$ depends on no gate. From the second step on it counts: $g_2$ depends on the gates of step 1.

# %%
small = MetaLSTM(nn.Linear(2, 1), steps=1, lr=0.3).double()
draw = torch.Generator().manual_seed(2)
x = torch.randn(6, 2, generator=draw).double()
y = torch.randn(6, 1, generator=draw).double()
# a task by hand: four support points, two queries
points = Episode(x[:4], y[:4], x[4:], y[4:], torch.zeros(0, dtype=torch.int64))
for steps in (1, 2, 5):
    small.steps = steps
    claimed = torch.autograd.grad(small.loss(points), small.input_gate.bias)[0]
    up, down = deepcopy(small), deepcopy(small)
    with torch.no_grad():
        up.input_gate.bias += 1e-5
        down.input_gate.bias -= 1e-5
        slope = float(up.loss(points) - down.loss(points)) / 2e-5
    print(
        f"{steps} steps: meta-gradient {float(claimed):+.4f}, true slope {slope:+.4f}"
    )
    assert steps > 1 or abs(float(claimed) - slope) < 1e-6

# %% [markdown]
# ## What the cut costs
#
# The rule of the warm-up, 40 steps: cut the run into pieces and sum their gradients. Terms that cross a cut are missing.
#
# Two measures: how far is the sum from the gradient through all 40 steps, and how many numbers does autograd keep for a piece?

# %%
rule = deepcopy(learned).requires_grad_(True)
task, start = quadratics(64, seed=8)


def cut_gradient(unroll: int, steps: int = 40) -> tuple[Tensor, int]:
    """Gradient of the summed values in the rule's weights,
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


# %%
lengths = (1, 2, 5, 10, 20, 40)
cuts = {unroll: cut_gradient(unroll) for unroll in lengths}
full, most = cuts[40]
off = {
    unroll: float((g - full).norm() / full.norm()) for unroll, (g, _) in cuts.items()
}
angle = {
    unroll: float(torch.cosine_similarity(g, full, dim=0))
    for unroll, (g, _) in cuts.items()
}
told = "; ".join(
    f"{n}: error {off[n]:.2f}, cosine {angle[n]:.2f}, kept {kept / most:.1%}"
    for n, (_, kept) in cuts.items()
)
print(told.replace("; ", "\n"))
# memory grows with length
assert all(
    abs(kept * 40 / unroll / most - 1) < 0.2 for unroll, (_, kept) in cuts.items()
)

# %%
figure, axes = new(8, 2.8, columns=2)
axes[0].plot(lengths, list(off.values()), label="relative error", **slot_style(0))
axes[0].plot(
    lengths,
    list(angle.values()),
    label="cosine with the full gradient",
    **slot_style(1),
)
axes[0].axhline(0, color="#767676", linewidth=0.8)
axes[0].set(
    xlabel="length of a piece",
    title="bias of the gradient",
    xscale="log",
    xticks=lengths,
    xticklabels=lengths,
)
axes[1].plot(lengths, [kept / most for _, kept in cuts.values()], **slot_style(2))
axes[1].set(
    xlabel="length of a piece",
    title="numbers kept, share of the full run",
    ylim=(0, 1.05),
)
axes[0].minorticks_off()
axes[0].legend(fontsize=8)
show(
    figure,
    "By length of a piece, error and cosine against the full gradient, and the share "
    f"of numbers kept. {told}.",
)

# %% [markdown]
# The graph grows with the length. A cosine near 1: only the size is off. Lost is credit for steps that pay later: rules trained on short pieces are *greedy*.
#
# By hand: $\theta_t = a\,\theta_{t-1}$, $\theta_0 = 1$, $a = 2$, five steps. The slope of $\theta_5 = a^5$ is $5a^4 = 80$, one $a^4 = 16$ for each step. Through two steps, 32 is left.
#
# ### Exercise 11.5  What detach cuts  (difficulty 3/5, 8 min)
#
# Return the gradient of `loss(theta)` after `steps` steps in `weight`, back through the *last* `truncate` steps only. A step also hands on `state`, its memory.
#
# | argument | |
# |---|---|
# | `step(weight, theta, state)` | returns the next `(theta, state)` |
# | `weight`, `theta`, `state` | tensors; `weight` requires a gradient |
# | `truncate` | 1 or more; more than `steps` means all |
# | returned | like `weight` |


# %%
def truncated_gradient(
    step, loss, weight: Tensor, theta: Tensor, state: Tensor, steps: int, truncate: int
) -> Tensor:
    """Gradient of loss(theta_steps) in weight through the last `truncate` steps.
    -> like weight.
    """
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
# ## Train for real
#
# 5-way 1-shot Glyphs, three inner steps, the same random net and the same number of tasks:
#
# | learner | learns | input gate or rate |
# |---|---|---|
# | Meta-LSTM, all | start and rule | begins at 0.1 |
# | Meta-LSTM, rule only | the rule; `truncate=2` cuts off the start | begins at 0.01, too small on purpose |
# | MAML | the start | 0.1 |
#
# Predict: will the rule find out that its rate is too small?

# %%
print("Meta-LSTM, all")
both = MetaLSTM(net(), steps=3, lr=0.1)
history = fit(both, episodes, steps=100, tasks=2, lr=3e-3, clip=0.25)
print("MAML")
maml = MAML(net(), lr=0.1, steps=3)
history = fit(maml, episodes, steps=100, tasks=2, lr=3e-3)
print("Meta-LSTM, rule only")
rule_only = MetaLSTM(net(), steps=3, lr=0.01, truncate=2)
history = fit(rule_only, episodes, steps=100, tasks=2, lr=1e-2, clip=0.25)
moved = [
    float((a - b).detach().abs().max())
    for a, b in zip(rule_only.model.parameters(), net().parameters())
]
assert max(moved) == 0  # the random initialisation is untouched
print("largest change of the initialisation:", max(moved))

# %% [markdown]
# ## Evaluate honestly
#
# Which part does the work, start or rule? Try each start with the rule learned for it, and with SGD at its best rate on *validation* classes. Three steps everywhere, every query [on its own](../lessons/GLOSSARY.md#inductive "归纳式").

# %%
tuning = EpisodeSampler(val, n_way=5, k_shot=1, n_query=5, seed=3)
grid = (0.03, 0.1, 0.2, 0.4)
learners = {}
for start, model, learned_rule in (
    ("random", net(), rule_only),
    ("learned", both.model, both),
):
    scores = {lr: evaluate(MAML(model, lr, 3), tuning, episodes=30).mean for lr in grid}
    best = max(scores, key=scores.get)
    print(
        f"{start} start: SGD by rate",
        {lr: f"{score:.0%}" for lr, score in scores.items()},
        "->",
        best,
    )
    learners[f"{start} start, SGD"] = MAML(model, best, 3)
    learners[f"{start} start, learned rule"] = learned_rule
# where the input gate of "rule only" began
learners["random start, SGD at 0.01"] = MAML(net(), 0.01, 3)
learners["MAML, its own start and rate"] = maml

# %%
exam = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=7)
results = {
    name: evaluate(learner, exam, episodes=80) for name, learner in learners.items()
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

# %%
rows = {name: (result.mean, result.ci95) for name, result in results.items()}
told = ", ".join(f"{name} {mean:.0%}" for name, (mean, _) in rows.items())
show(
    intervals(rows, chance=0.2),
    f"5-way 1-shot accuracy with 95 % intervals: {told}. Dashed: chance.",
)

# %%
verdicts = {
    question: compare(results[one], results[other])
    for question, (one, other) in pairs.items()
}
found = verdicts["what the rule found out"]
print(
    "From a rate set too small, learning the rule changed accuracy by "
    f"{found.mean:+.1%} ± {found.ci95:.1%}."
)
for question in ("the rule, from a random start", "the rule, from the learned start"):
    d = verdicts[question]
    word = (
        "is not separated from"
        if not d.separated
        else "beats"
        if d.mean > 0
        else "loses to"
    )
    print(f"{question}: the learned rule {word} SGD of the best rate.")
gain = verdicts["the start, under SGD"]
print(f"A learned start is worth {gain.mean:+.1%} ± {gain.ci95:.1%} by itself.")
d = verdicts["Meta-LSTM minus MAML"]
word = (
    "are not separated"
    if not d.separated
    else "differ: " + ("Meta-LSTM" if d.mean > 0 else "MAML") + " is ahead"
)
print(f"At this budget Meta-LSTM and MAML {word}.")

# %% [markdown]
# *Not covered*: other training seeds, longer training (the paper took tens of thousands of episodes), larger nets, tuned outer rates, MAML's inner rate.
#
# ## What do the gates say?
#
# The gates during adaptation: a fixed rate would be one flat line without a band.


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


# %%
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
# ## Explore
#
# Predict, then change the cell's first line.
#
# | change | question |
# |---|---|
# | `horizon` | the rule was trained for 100 steps: does it go on falling? |
# | `shrink` to 3 or 0.3 | which side does it survive? |
# | `rule` to `train_rule(1, 6000)` | the same 60 runs in pieces of one step, not ten: is greed punished? |
#
# <details><summary>Answers</summary>
#
# 1: compare the two printed numbers. Nothing in its training taught it to stop, or to go on.
# 2: preprocessing makes of a factor a small shift of the first number. But the right *step* does not change at all, and nobody showed the rule such pairs. A `nan` or `inf` of SGD at 3 is divergence: its gradients grow ninefold.
# 3: pieces of one step never see what a step does to the next. The tasks are those of `learned`, but the rule gets ten times as many updates: if it still loses, not for lack of them.
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
# The symptom: a demo adapts to one task after another. The first is always right. Run alone, every task is right. In a row, results depend on the order.


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


# %%
first, second = (quadratics(1, seed=seed)[0] for seed in (31, 32))
demo, alone = Demo(), Demo()
demo(first)
print(f"task 2 after task 1: value {float(value(demo(second), second)):.3f}")
print(f"task 2 alone:        value {float(value(alone(second), second)):.3f}")

# %% [markdown]
# ### Exercise 11.6  Bug hunt: does it remember?  (difficulty 3/5, 8 min)
#
# Write the test. `make()` returns a fresh learner; a learner maps a task to parameters `[P]`. Return `True` when adapting to `first` changes what the *same* learner gives for `second`, else `False`. Rounding does not count: `torch.allclose(a, b, atol=1e-4)`.


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
# The LSTM's state lives in `self` and is never emptied: task 2 starts with the memory of task 1. Only the first task starts clean.
# In a few-shot test this is a [leak](../lessons/GLOSSARY.md#leak "数据泄漏"): an episode must not know the one before.
#
# </details>
#
# The cure: an empty memory for each task. Held to your test, and the package with it.


# %%
class Cured(Demo):
    def __call__(self, task: tuple[Tensor, Tensor]) -> Tensor:
        self.state = None
        return super().__call__(task)


def package_learner():
    return lambda episode: torch.cat(
        [p.detach().flatten() for p in both.adapted(episode).values()]
    )


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
# **2. A rule trained on nets of 50 weights shall train one of 5000. What must change?**
# (a) its weights' shapes, (b) its memory's, (c) nothing
#
# <details><summary>Answer</summary>
#
# (b). A memory for each coordinate, so 5000 rows. (a) stays: all coordinates share one set of weights. So (c) is nearly right, but not for the state.
#
# </details>

# %% [markdown]
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
# (b). Beating an untuned baseline shows little, with however many seeds. (a) comes next. (c) hardly matters for the claim.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | rule | one small LSTM for all coordinates, each with its own memory |
# | Meta-LSTM | $\theta_t = f_t \odot \theta_{t-1} - i_t \odot g_t$; $f = 1$, $i = \alpha$ is SGD |
# | cut | the graph kept grows with the length; short pieces are greedy |
#
# Pitfalls: a state that outlives its task; raw gradients; a baseline with a guessed rate; a loss divided twice (11.7 ★). [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Andrychowicz et al. (2016), *Learning to learn by gradient descent by gradient descent* | equation 3: the rule and its loss; section 2.1: coordinate-wise LSTM; section 3.1: quadratics; appendix A: preprocessing |
# | Ravi and Larochelle (2017), *Optimization as a Model for Few-Shot Learning* | equations 1 and 2: SGD and the cell update; section 3: gates, sharing, gradient independence |
# | Metz et al. (2019), *Understanding and correcting pathologies in the training of learned optimizers* | bias of truncated unrolls |

# %% [markdown]
# ### Exercise 11.7 ★  Bug hunt: divided twice  (difficulty 3/5, 6 min)
#
# The symptom: a ported learner adapts well at 1 shot and hardly at 10. Its loss is a mean, and the gradient is divided by the rows once more.
# `gradient_of(theta, x, y)` should return the gradient `[P]` of a mean. Return `True` when it changes as every row is *repeated*. `rtol=1e-3, atol=1e-5` is rounding.


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

# %%
rows, goals = torch.randn(10, 3, generator=draw), torch.randn(10, generator=draw)
print(
    "the port divides twice:", exposes_scale(divided_twice, torch.zeros(3), rows, goals)
)
progress("11")

# You have met them all. Where they stand on the real Omniglot;
# `python -m fsl_course results --json` says how to repeat a number
from IPython.display import HTML

from fsl_course.cli.results import table

HTML(table("random", as_html=True))
