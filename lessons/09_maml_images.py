# %% [markdown]
# # 09 MAML on pictures: three numbers that find most bugs
#
# You run MAML with a convolutional net, make its batch norm honest, and hold it against Prototypical Networks.
#
# Prerequisites: lessons 00 to 08. Planned time: 60 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** Which loss does the [outer loop](../lessons/GLOSSARY.md#outer-loop "外循环") minimise, at which parameters?
#
# <details><summary>Answer</summary>
#
# The query loss, at the adapted parameters $\theta'$; its gradient goes through the inner loop to the initialisation $\theta$.
#
# </details>
#
# **2.** When does batch norm let a query see the other queries?
#
# <details><summary>Answer</summary>
#
# When it uses the query batch's statistics, as in training mode.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **normalise** queries by the support (09.1),
# 2. **diagnose** by three numbers (09.2),
# 3. **run** tasks in flat memory (09.3),
# 4. **choose** steps without the test (09.4),
# 5. **expose** telltale slots (09.5).

# %% [markdown]
# ## A puzzle: move all weights, or none?
#
# MAML moves every weight of a net for each task. A Prototypical Network moves none. Same encoder, same novel classes, 5 ways. Write down:
#
# - one shot: does MAML win, does ProtoNet, or can nobody tell?
# - MAML's three numbers: accuracy on the [support](../lessons/GLOSSARY.md#support-set "支持集") before adaptation, on the support after, on the [queries](../lessons/GLOSSARY.md#query-set "查询集") after.

# %%
import inspect
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_classroom import check, progress
from fsl_course import (
    Episode,
    EpisodeSampler,
    compare,
    evaluate,
    fit,
    load_glyphs,
    pretrained,
)
from fsl_course.episodes import SinusoidSampler
from fsl_course.evaluation import mean_and_ci95
from fsl_course.figures import CHANCE, intervals, new, show, slot_style
from fsl_course.inner_loop.functional import call
from fsl_course.inner_loop.support_statistics import batch_statistics
from fsl_course.methods.baselines import baselines
from fsl_course.methods.maml import MAML, adapt, predict, support_loss, trainable
from fsl_course.nets import classifier, conv4, mlp

torch.manual_seed(0)
glyphs = load_glyphs()
train, val, test = glyphs.split("train"), glyphs.split("val"), glyphs.split("test")


# %%
def fresh(norm: str = "batch", width: int = 16) -> MAML:
    """An untrained learner: 5 ways, inner rate 0.4, 3 steps.
    The same first weights every time.
    """
    torch.manual_seed(0)
    return MAML(classifier(conv4(width, norm), 5), lr=0.4, steps=3)


# %%
def relabel(task: Episode, slots: Tensor) -> Episode:
    """The same task; slot j holds what was in slot slots[j]."""
    new = slots.argsort()  # of every old slot
    return replace(
        task,
        support_y=new[task.support_y],
        query_y=new[task.query_y],
        classes=task.classes[slots],
    )


# %% [markdown]
# ## The idea in one picture
#
# The model is a Conv4 with a [head](../lessons/GLOSSARY.md#head "分类头") of five outputs, `classifier(conv4(), 5)`.
# Shipped weights, one novel task, one shot: the probabilities of 25 queries, sorted by class, before and during the [inner loop](../lessons/GLOSSARY.md#inner-loop "内循环").

# %%
shipped = pretrained("maml", "glyphs", 5, 1)
task = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=3)[0]
order = task.query_y.argsort(stable=True)

# %% tags=["draws"]
params, told = trainable(shipped.model), []
figure, axes = new(8, 3.2, columns=4, sharey=True)
for step, axis in enumerate(axes):
    with torch.no_grad():
        logits = predict(shipped.model, params, task)[order]  # [25, 5]
        params = adapt(
            support_loss(shipped.model, task),
            params,
            lr=shipped.lr,
            steps=1,
            track=False,
        )
    right = float((logits.argmax(1) == task.query_y[order]).double().mean())
    told.append(f"{'before' if step == 0 else f'step {step}'}: {right:.0%} right")
    picture = axis.imshow(
        logits.softmax(1), vmin=0, vmax=1, aspect="auto", cmap="Blues"
    )
    axis.set_title(told[-1], fontsize=9)
    axis.set(xlabel="slot", xticks=range(5), yticks=range(2, 25, 5))
    axis.grid(False)
axes[0].set(ylabel="queries of class", yticklabels=range(5))
figure.colorbar(picture, ax=axes, label="probability")
print("; ".join(told))
show(
    figure,
    "Four tables of 25 queries by 5 slots, dark where the probability is high. Before "
    "adaptation no class is at home in its slot. With the steps a darker staircase "
    f"appears: classes find their slots. {'; '.join(told)}.",
)

# %% [markdown]
# ## The maths
#
# The inner loop of lesson 07, now with [batch norm](../lessons/GLOSSARY.md#batch-normalisation "批归一化") in every block:
#
# $$\theta_{i+1} = \theta_i - \alpha \nabla_{\theta_i} \mathcal{L}_{\mathcal{S}}(\theta_i), \qquad i = 0, \dots, L - 1$$
#
# $$\hat z = \gamma \, \frac{z - \mu_{\mathcal{S}}}{\sqrt{\sigma^2_{\mathcal{S}} + \varepsilon}} + \beta$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $\theta_0 = \theta$, $\theta_L = \theta'$ | `params`, `adapted` | dict of tensors |
# | $\alpha$, $L$ | `lr`, `steps` | numbers |
# | $z$, $\hat z$ | `query`, returned | maps `[M, c, h, w]` |
# | $\mu_{\mathcal{S}}$, $\sigma^2_{\mathcal{S}}$ | `mean`, `variance` | one for each channel, from the *support* |
# | $\gamma$, $\beta$ | `weight`, `bias` of the layer | `[c]`, part of $\theta$ |
#
# Every task, and every step, has statistics of its own.

# %% [markdown]
# ## By hand
#
# Support rows (0, 2), (2, 3), (2, 0), (4, 1): two features. The first has mean 2 and variance (4 + 0 + 0 + 4)/4 = 2; the second 1.5 and 1.25.
#
# Query (3, 1) becomes $(1/\sqrt 2,\ -0.5/\sqrt{1.25})$, about (0.71, −0.45). Now you: query (2, 1). And normalised *by itself alone*?

# %% tags=["nbval-check-output"]
support = torch.tensor([[0.0, 2.0], [2.0, 3.0], [2.0, 0.0], [4.0, 1.0]])
query = torch.tensor([[2.0, 1.0], [3.0, 1.0]])
for who, rows in (
    ("the support", support),
    ("both queries", query),
    ("itself alone", query[:1]),
):
    mean = [sum(column) / len(rows) for column in rows.T.tolist()]
    variance = [
        sum((v - m) ** 2 for v in column) / len(rows)
        for column, m in zip(rows.T.tolist(), mean)
    ]
    z = [
        (v - m) / (s + 1e-5) ** 0.5
        for v, m, s in zip(query[0].tolist(), mean, variance)
    ]
    print(f"query (2, 1) by {who:12s}: ({z[0]:5.2f}, {z[1]:5.2f})")

# %% [markdown]
# Alone, it vanishes. With a companion, it depends on the companion. By the support, neither.
#
# ### Exercise 09.1  Queries by the support's statistics  (difficulty 2/5, 8 min)
#
# Normalise the queries: mean and *biased* variance (`correction=0`) of each channel over rows and pixels of the support. Leave $\gamma$ and $\beta$ out. `F.batch_norm` passes no gradient to given statistics: write it out.
#
# | `support` | `query` | returned |
# |---|---|---|
# | `[S, c, h, w]` | `[M, c, h, w]` | `[M, c, h, w]` |


# %%
def normalise_queries(support: Tensor, query: Tensor, eps: float = 1e-5) -> Tensor:
    """Queries by mean and biased variance of the support, channel by channel.
    [S, c, h, w], [M, c, h, w] -> [M, c, h, w].
    """
    # BEGIN SOLUTION
    mean = support.mean((0, 2, 3), keepdim=True)
    variance = support.var((0, 2, 3), correction=0, keepdim=True)
    return (query - mean) / (variance + eps).sqrt()
    # END SOLUTION


normalise_queries = check("09.1", normalise_queries)

# %% tags=["nbval-check-output"]
# A loop over channels, your function, and PyTorch's layer on the support itself:
# all agree.
generator = torch.Generator().manual_seed(0)
maps = torch.randn(5, 3, 4, 4, generator=generator)
asked = torch.randn(7, 3, 4, 4, generator=generator)
looped = torch.zeros(7, 3, 4, 4)
for channel in range(3):
    seen = maps[:, channel].flatten()
    centred = asked[:, channel] - seen.sum() / len(seen)
    looped[:, channel] = centred / (((seen - seen.mean()) ** 2).mean() + 1e-5) ** 0.5
assert torch.allclose(normalise_queries(maps, asked), looped, atol=1e-5)
assert torch.allclose(
    normalise_queries(maps, maps), nn.BatchNorm2d(3).train()(maps), atol=1e-5
)
print("loop, your function and nn.BatchNorm2d agree")

# %% [markdown]
# ## Meet the package, and two laws
#
# Support and queries travel through the net together: every batch norm takes the *support's* maps. Written out, it must agree with the package, in float64.
#
# Law 1: a support row, asked as a query, gets the logits of the support pass. Law 2: a query is judged alone.

# %%
torch.manual_seed(0)
net = classifier(conv4(8), 5).double().eval()
small = EpisodeSampler(test, n_way=5, k_shot=2, n_query=3, seed=1, dtype=torch.float64)[
    0
]
start = trainable(net)
adapted = adapt(support_loss(net, small), start, lr=0.4, steps=3, track=False)


# %%
def together(
    layers: nn.Module, support: Tensor, query: Tensor
) -> tuple[Tensor, Tensor]:
    """Support [S, ...] and queries [M, ...] through the layers,
    both normalised by the support.
    """
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            gamma, beta = layer.weight.view(1, -1, 1, 1), layer.bias.view(1, -1, 1, 1)
            query, support = (
                normalise_queries(support, maps) * gamma + beta
                for maps in (query, support)
            )
        else:
            support, query = layer(support), layer(query)
    return support, query


# %%
with torch.no_grad():
    written_out = together(
        [*net.encoder.layers, nn.Flatten(), net.head], small.support_x, small.query_x
    )[1]
    assert torch.allclose(written_out, predict(net, start, small), atol=1e-10)
    with batch_statistics(net):
        support_pass = call(net, adapted, small.support_x)
    again = predict(
        net, adapted, replace(small, query_x=small.support_x, query_y=small.support_y)
    )
    assert torch.allclose(again, support_pass, atol=1e-10)  # law 1
    alone = torch.cat(
        [predict(net, adapted, replace(small, query_x=x[None])) for x in small.query_x]
    )
    assert torch.allclose(alone, predict(net, adapted, small), atol=1e-10)  # law 2

# %%
print(inspect.getsource(predict))
print(
    "yours = the package's; a support row gets its own logits back; a query needs no "
    "company"
)

# %% [markdown]
# ## The triple that finds most bugs
#
# | number | healthy | else look for |
# |---|---|---|
# | support before | $1/N$, averaged over random [slots](../lessons/GLOSSARY.md#label-slot "标签槽位") | slots that are not random, leaks |
# | support after | near 1 | inner rate, frozen weights, lost gradients |
# | query after | between | poor initialisation, batch norm, shuffled labels |
#
# ### Exercise 09.2  The triple check  (difficulty 2/5, 10 min)
#
# Return the three accuracies, each first taken per task, then averaged over the tasks.
#
# | given | from | to |
# |---|---|---|
# | `adapt(start, episode)` | weights, one task | adapted weights |
# | `predict(weights, episode, x)` | weights, task, rows `[B, ...]` | logits `[B, N]` |


# %%
def triple_check(
    start, adapt, predict, episodes: list[Episode]
) -> tuple[float, float, float]:
    """Support accuracy before adaptation, support accuracy after, query accuracy after:
    means over the episodes.
    """
    # BEGIN SOLUTION
    rows = []
    for episode in episodes:
        adapted = adapt(start, episode)
        before = (
            predict(start, episode, episode.support_x).argmax(1) == episode.support_y
        )
        after = (
            predict(adapted, episode, episode.support_x).argmax(1) == episode.support_y
        )
        solved = predict(adapted, episode, episode.query_x).argmax(1) == episode.query_y
        rows.append([float(hits.double().mean()) for hits in (before, after, solved)])
    return tuple(sum(column) / len(rows) for column in zip(*rows))
    # END SOLUTION


triple_check = check("09.2", triple_check)

# %%
sampler = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=7)


@torch.no_grad()
def three_numbers(learner: MAML, sampler: EpisodeSampler, tasks: int = 60) -> str:
    """The triple of a learner in evaluation mode, in words."""
    model = learner.eval().model
    # it starts from the learner's own weights
    adapted = lambda weights, task: learner.adapted(task)  # noqa: E731
    judged = lambda weights, task, x: predict(  # noqa: E731
        model, weights, replace(task, query_x=x)
    )
    found = triple_check(
        trainable(model), adapted, judged, list(sampler.batch(0, tasks))
    )
    return "support before {:.0%}, support after {:.0%}, query after {:.0%}".format(
        *found
    )


print("untrained, width 16:", three_numbers(fresh(), sampler))
print("shipped:            ", three_numbers(shipped, sampler, tasks=40))

# %% [markdown]
# Before adaptation *no* learner beats $1/N$, trained or not: random slots make it a die with $N$ sides. Only chance moves it.
#
# ## An inner rate has units
#
# The authors' inner loss is $N$ times the mean. Predict: what is its rate 0.4, at 5 ways, in units of a mean loss? And 0.1 at 20 ways?

# %% tags=["nbval-check-output"]
mean_loss = support_loss(net, small)  # the mean over N*K rows
# summed over N rows, divided by K
by_sum = adapt(lambda p: 5 * mean_loss(p), start, lr=0.4, steps=2, track=False)
by_mean = adapt(mean_loss, start, lr=2.0, steps=2, track=False)
assert all(torch.allclose(by_sum[name], by_mean[name], atol=1e-10) for name in start)
for n_way, rate in ((5, 0.4), (20, 0.1)):
    print(
        f"{n_way:2d} ways: {rate} on the summed loss = {n_way * rate:.1f} on the mean "
        "loss"
    )

# %% [markdown]
# A port that keeps 0.4 but averages steps a fifth as far. `adapt` expects means: the shipped nets were trained so, with 0.4.
#
# ## From one task to a batch
#
# ### Exercise 09.3  One task after the other  (difficulty 3/5, 8 min)
#
# Return the gradient of the *mean* loss of a [meta-batch](../lessons/GLOSSARY.md#meta-batch "元批次"), holding one task's graph at a time.
#
# | you have | |
# |---|---|
# | `loss_fn(params, task)` | one task's loss, a scalar |
# | `params`, `tasks` | dict of tensors; list of tasks |
# | `torch.autograd.grad(loss, list(params.values()))` | a tuple of gradients |
#
# Returned: a dict, name to gradient.


# %%
def accumulate(loss_fn, params: dict[str, Tensor], tasks: list) -> dict[str, Tensor]:
    """Gradient of the mean loss, one task after the other.
    loss_fn(params, task) -> scalar. Returns name -> gradient.
    """
    # BEGIN SOLUTION
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    for task in tasks:
        gradients = torch.autograd.grad(loss_fn(params, task), list(params.values()))
        for name, gradient in zip(params, gradients):
            total[name] = total[name] + gradient
    return {name: t / len(tasks) for name, t in total.items()}
    # END SOLUTION


accumulate = check("09.3", accumulate)

# %%
four = EpisodeSampler(
    train, n_way=5, k_shot=1, n_query=2, seed=2, dtype=torch.float64
).batch(0, 4)


def flat_gradient(learner: MAML, loss: Tensor) -> Tensor:
    """Gradient of a loss with respect to all parameters, one after the other: [P]."""
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(learner.parameters()))]
    )


# %%
for norm in ("group", "batch"):
    torch.manual_seed(0)
    learner = (
        MAML(classifier(conv4(8, norm), 5), lr=0.4, steps=2, vmap=False)
        .double()
        .train()
    )
    yours = accumulate(
        lambda p, task, of=learner: of.loss(task),
        dict(learner.named_parameters()),
        list(four),
    )
    loop = flat_gradient(learner, learner.training_step(four))
    learner.vmap = True
    by_vmap = flat_gradient(learner, learner.training_step(four))
    assert torch.allclose(
        loop, torch.cat([g.flatten() for g in yours.values()]), rtol=0, atol=1e-10
    )
    assert torch.allclose(loop, by_vmap, rtol=0, atol=1e-10)
    print(
        f"{norm} norm: yours = the package's loop = its vmap, to 1e-10 in float64, for "
        f"{len(loop)} numbers"
    )

# %% [markdown]
# [vmap](../lessons/GLOSSARY.md#vmap "向量化映射") runs all tasks at once. For it the package writes batch norm out, as you did. And *raw* vmap, over PyTorch's own? Predict: same loss, same gradient? Central differences decide.


# %%
def raw_vmap(learner: MAML) -> Tensor:
    """Mean loss of the four tasks by torch.func.vmap and nothing else,
    a scalar with a graph.
    """
    tensors = four.support_x, four.support_y, four.query_x, four.query_y, four.classes
    return torch.func.vmap(lambda *task: learner.loss(Episode(*task)))(*tensors).mean()


found = {
    "loop": loop,
    "package's vmap": by_vmap,
    "raw vmap": flat_gradient(learner, raw_vmap(learner)),
}
with torch.no_grad():
    print(
        f"losses: package's vmap {learner.training_step(four):.10f}, raw vmap "
        f"{raw_vmap(learner):.10f}"
    )
    weights = torch.cat([p.flatten() for p in learner.parameters()])
    direction = F.normalize(
        torch.randn(len(weights), generator=generator, dtype=torch.float64), dim=0
    )
    ends = []
    for side in (1e-6, -1e-6):
        nn.utils.vector_to_parameters(weights + side * direction, learner.parameters())
        ends.append(float(learner.training_step(four)))
central = (ends[0] - ends[1]) / 2e-6
slopes = ", ".join(f"{name} {g @ direction:.7f}" for name, g in found.items())
print(f"slopes: {slopes}, central differences {central:.7f}")
assert abs(float(by_vmap @ direction) - central) < 1e-6
wrong = float((loop - found["raw vmap"]).abs().max()) > 1e-8
print(
    "raw vmap's gradient through batch norm is",
    "WRONG, silently" if wrong else "right in this PyTorch",
)

# %% [markdown]
# PyTorch 2.13's batch norm loses part of the second derivative under vmap; the loss shows nothing.
#
# vmap pays Python once. But weights of its own for each task make a convolution a grouped one, slow on CPUs.
#
# Predict: how many times faster is vmap for 16 tasks, on the sine net, on Conv4? Whose memory grows?


# %%
def seconds(learner: MAML, batch: Episode) -> float:
    """Time of one meta-gradient."""
    began = time.perf_counter()
    learner.training_step(batch).backward()
    return time.perf_counter() - began


pictures = EpisodeSampler(train, n_way=5, k_shot=1, n_query=5, seed=1)
nets = {"sine MLP": (mlp(), SinusoidSampler(seed=1), 0.01, (1, 4, 16, 64))}
nets |= {
    f"Conv4, width {w}": (classifier(conv4(w, "group"), 5), pictures, 0.4, (1, 4, 16))
    for w in (16, 32)
}
speed = {}  # name -> {tasks: time of the loop / time of vmap}
for name, (model, source, rate, counts) in nets.items():
    learner, speed[name] = MAML(model, rate, steps=1), {}
    for tasks in counts:
        times = {False: [], True: []}
        for _ in range(3):
            for at_once in times:  # in turns, so that a busy moment hits both
                learner.vmap = at_once
                times[at_once].append(seconds(learner, source.batch(0, tasks)))
        speed[name][tasks] = median(times[False]) / median(times[True])


# %%
class Kept:
    """A tensor that a graph keeps for its backward pass.
    `most`: the largest number of bytes kept at one time.
    """

    users, now, most = Counter(), 0, 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, storage = tensor.detach(), tensor.untyped_storage()
        self.key, self.bytes = storage.data_ptr(), storage.nbytes()
        Kept.users[self.key] += 1
        # several nodes may share one tensor
        Kept.now += self.bytes if Kept.users[self.key] == 1 else 0
        Kept.most = max(Kept.most, Kept.now)

    def __del__(self) -> None:
        Kept.users[self.key] -= 1
        Kept.now -= self.bytes if Kept.users[self.key] == 0 else 0


# %%
def one_step_loss(params: dict[str, Tensor], task: Episode) -> Tensor:
    """Query loss after one step.
    By autograd.grad: the hooks below cannot look into torch.func.
    """
    with batch_statistics(model):
        first = F.cross_entropy(call(model, params, task.support_x), task.support_y)
        slopes = torch.autograd.grad(first, list(params.values()), create_graph=True)
        moved = {
            name: p - 0.4 * slope for (name, p), slope in zip(params.items(), slopes)
        }
        return F.cross_entropy(call(model, moved, task.query_x), task.query_y)


# %%
model, counts = classifier(conv4(8, "group"), 5), (1, 2, 4, 8)
memory = {"all tasks, one graph": [], "one task after the other": []}
for tasks in counts:
    batch, params = [pictures[i] for i in range(tasks)], dict(model.named_parameters())
    for name, held in memory.items():
        Kept.most = Kept.now
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            if name.startswith("all"):
                torch.stack(
                    [one_step_loss(params, task) for task in batch]
                ).mean().backward()
            else:
                accumulate(one_step_loss, params, batch)
        held.append(Kept.most)

# %%
figure, axes = new(9, 3, columns=2)
for slot, (name, ratios) in enumerate(speed.items()):
    axes[0].plot(list(ratios), list(ratios.values()), label=name, **slot_style(slot))
    faster = [tasks for tasks, ratio in ratios.items() if ratio > 1]
    print(
        f"{name}: vmap was faster at {', '.join(map(str, faster)) or 'none'} of "
        f"{', '.join(map(str, ratios))} tasks"
    )
axes[0].axhline(1, color=CHANCE, linestyle="--", label="equal")
axes[0].set(
    xscale="log", yscale="log", xlabel="tasks T", ylabel="time of loop / time of vmap"
)
axes[0].set_xticks([1, 4, 16, 64], labels=["1", "4", "16", "64"])
axes[0].legend(fontsize=8)
least = memory["one task after the other"][0]
for slot, (name, held) in enumerate(memory.items()):
    axes[1].plot(counts, [h / least for h in held], label=name, **slot_style(slot))
axes[1].set(
    xlabel="tasks T", ylabel="bytes held, one task = 1", xticks=counts, ylim=(0, None)
)
axes[1].legend(fontsize=8)
grown = {name: held[-1] / held[0] for name, held in memory.items()}
print(
    "bytes held, 8 tasks against 1:",
    ", ".join(f"{name} {g:.1f} times" for name, g in grown.items()),
)
best = {name: max(ratios.values()) for name, ratios in speed.items()}
show(
    figure,
    "Left: time of the loop divided by the time of vmap against tasks, on logarithmic "
    "axes, with a dashed line where both are equal; the highest points: "
    f"{', '.join(f'{name} {b:.1f}' for name, b in best.items())}. Right: bytes held "
    "against tasks; one graph for all tasks grows "
    f"{grown['all tasks, one graph']:.1f} times from 1 to 8 tasks, one task after the "
    "other stays flat.",
)

# %% [markdown]
# The package takes vmap for small nets; for convolutions on a CPU, the loop in flat memory.
#
# ## Train for real
#
# Two learners of width 16, same first weights, same tasks: batch norm and [group norm](../lessons/GLOSSARY.md#group-normalisation "组归一化"). Group norm needs no care. Predict: what does it cost?

# %%
(figure, axis), learners, ends = new(7, 2.8), {"untrained": fresh()}, []
for slot, name in enumerate(("batch norm", "group norm")):
    learners[name] = fresh(name.split()[0])
    found = (
        torch.tensor(fit(learners[name], pictures, steps=64, tasks=4, lr=3e-3).accuracy)
        .view(-1, 8)
        .mean(1)
    )
    # means of 8 updates
    axis.plot(torch.arange(8) * 8 + 4, found, label=name, **slot_style(slot))
    ends.append(f"{name} {found[0]:.0%} to {found[-1]:.0%}")
axis.axhline(0.2, color=CHANCE, linestyle="--", label="chance")
axis.set(xlabel="update, 4 tasks each", ylabel="query accuracy", ylim=(0, 1.02))
axis.legend(fontsize=8)
for name, learner in learners.items():
    print(f"{name:11s}", three_numbers(learner, sampler))
show(
    figure,
    "Query accuracy of training tasks, means of 8 updates, from first to last: "
    f"{'; '.join(ends)}. Chance is 20 %.",
)

# %% [markdown]
# Training must not move the first number. The second needs little training: memorising five pictures is easy. *Learning to learn* shows in the third.
#
# ## The flattery of company
#
# Published MAML numbers normalise a task's queries together: [transductive](../lessons/GLOSSARY.md#transductive "直推式"). `evaluate` is [inductive](../lessons/GLOSSARY.md#inductive "归纳式") unless asked. Predict the gap.

# %%
for n_query, episodes in ((1, 100), (5, 60)):
    queries = EpisodeSampler(test, n_way=5, k_shot=1, n_query=n_query, seed=9)
    yours = learners["batch norm"]
    honest, flattered = (
        evaluate(yours, queries, episodes, transductive=way) for way in (False, True)
    )
    print(
        f"{n_query} of each class: inductive {honest.mean:.1%}, transductive "
        f"{flattered.mean:.1%}"
    )
    print(f"   {compare(flattered, honest)}")
honest, flattered = (
    evaluate(learners["group norm"], queries, 10, transductive=way)
    for way in (False, True)
)
assert torch.equal(honest.per_episode, flattered.per_episode)
print("group norm: no query sees another, ever")

# %% [markdown]
# A batch balanced over the classes is a hint. Whichever protocol you report, name it.
#
# ## How many steps at test time?
#
# Trained with 3 steps, tested with more? Who chooses?


# %%
@torch.no_grad()
def accuracy_by_steps(
    learner: MAML, source, steps: list[int], tasks: int, lr: float, k_shot: int = 1
) -> Tensor:
    """Query accuracies [len(steps), tasks] after so many steps (rising numbers) from
    one run of the inner loop.
    """
    found = []
    for task in EpisodeSampler(
        source, n_way=5, k_shot=k_shot, n_query=5, seed=13
    ).batch(0, tasks):
        params, done, row = trainable(learner.model), 0, []
        for number in steps:
            loss = support_loss(learner.model, task)
            params = adapt(loss, params, lr=lr, steps=number - done, track=False)
            done = number
            hits = predict(learner.model, params, task).argmax(1) == task.query_y
            row.append(hits.double().mean())
        found.append(torch.stack(row))
    return torch.stack(found, 1)


# %%
steps = [0, 1, 2, 3, 5, 8]
on_val, on_test = (
    accuracy_by_steps(yours, source, steps, tasks=45, lr=0.4) for source in (val, test)
)
for name, table in (("validation", on_val), ("test", on_test)):
    print(
        f"{name:11s}",
        ", ".join(
            f"{number} steps {row.mean():.1%}" for number, row in zip(steps, table)
        ),
    )

# %% [markdown]
# ### Exercise 09.4  How many steps?  (difficulty 2/5, 6 min)
#
# Return a tuple: the number of steps with the best mean *validation* accuracy (a tie: the fewest), and the mean *test* accuracy there, as a `float`.
#
# | `steps` | `validation` | `test` | returned |
# |---|---|---|---|
# | list of `n` numbers, in any order | `[n, E_val]` | `[n, E_test]` | `(int, float)` |


# %%
def choose_steps(
    steps: list[int], validation: Tensor, test: Tensor
) -> tuple[int, float]:
    """Steps with the best mean validation accuracy (a tie: fewest), and the mean test
    accuracy there. [n, E_val], [n, E_test].
    """
    # BEGIN SOLUTION
    means = validation.mean(1)
    best = [row for row in range(len(steps)) if means[row] == means.max()]
    row = min(best, key=lambda row: steps[row])
    return steps[row], float(test[row].mean())
    # END SOLUTION


choose_steps = check("09.4", choose_steps)

# %%
number, accuracy = choose_steps(steps, on_val, on_test)
print(f"validation chooses {number} steps: {accuracy:.1%} on test, an honest number")
print(
    f"the best entry of the test row is {on_test.mean(1).max():.1%}: a number chosen "
    "by its own luck"
)

# %% [markdown]
# ## Evaluate honestly
#
# Shipped nets, novel classes, inductive, the same episodes, [baselines](../lessons/GLOSSARY.md#baseline "基线") beside. MAML has weights for one shot and weights for five; ProtoNet has one set for both.

# %%
results = {}
for k_shot, episodes in ((1, 80), (5, 50)):
    mixed = EpisodeSampler(test, n_way=5, k_shot=k_shot, n_query=5, seed=17)
    field = {name: b for name, b in baselines().items() if name != "pixels, Euclidean"}
    field |= {"your MAML, width 16": yours} if k_shot == 1 else {}
    field |= {
        "ProtoNet": pretrained("prototypical", "glyphs"),
        "MAML": pretrained("maml", "glyphs", 5, k_shot),
    }
    results[k_shot] = found = {
        name: evaluate(learner, mixed, episodes) for name, learner in field.items()
    }
    print(
        f"{k_shot}-shot: "
        + ", ".join(f"{name} {r.mean:.1%}" for name, r in found.items())
    )
    gap = compare(found["MAML"], found["ProtoNet"])
    print(f"   MAML minus ProtoNet: {gap}")
    print(
        "   MAML minus random features: "
        f"{compare(found['MAML'], found['random Conv4'])}"
    )
    verdict = (
        ("MAML wins" if gap.mean > 0 else "ProtoNet wins")
        if gap.separated
        else "nobody can tell"
    )
    print(f"   the puzzle, these nets and episodes: {verdict}")

# %%
rows = {
    f"{name}, {k}-shot": (r.mean, r.ci95)
    for k, found in results.items()
    for name, r in found.items()
}
rows = {name: row for name, row in rows.items() if not name.startswith("chance")}
told = ", ".join(f"{name} {mean:.0%}" for name, (mean, _) in rows.items())
show(
    intervals(rows, chance=0.2),
    f"5-way accuracy with 95 % intervals, inductive: {told}. Dashed: chance.",
)

# %% [markdown]
# *Not covered* by these [paired](../lessons/GLOSSARY.md#paired-comparison "配对比较") intervals: ProtoNet learned from 30-way tasks, MAML from 5-way ones, each with one seed.
#
# ## Slots are no longer mere names
#
# Metric methods obey a law: relabelled slots permute the logits, nothing else. A trained head has five *different* rows. Predict: does the same task with permuted slots give the same classes?

# %%
for name, learner in {
    "ProtoNet": pretrained("prototypical", "glyphs"),
    "your MAML": yours,
}.items():
    changed = []
    for task in EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=23).batch(0, 8):
        with torch.no_grad():
            before = task.classes[learner(task).argmax(1)]
            for _ in range(6):
                other = relabel(task, torch.randperm(5, generator=generator))
                after = other.classes[learner(other).argmax(1)]
                changed.append((after != before).double().mean())
    assert name != "ProtoNet" or sum(changed) == 0  # the law
    print(f"{name}: another class for {sum(changed) / len(changed):.1%} of the queries")

# %% [markdown]
# The price of a trained head: random slots make it *fair on average*, not invariant. Permute its rows along: 09.7 ★.
#
# ## Explore
#
# Predict, look, then set `k_shot = 5`.
#
# 1. Does a rate of 0.1 need more steps?
# 2. What does 1.6, four times the rate of training, do?
# 3. Where would you stop without a validation split?
#
# <details><summary>Answers</summary>
#
# 1: shorter steps usually need more of them; does your curve? 2: look; too long a step overshoots. 3: at the steps of training: the only number that training knows.
#
# </details>

# %%
k_shot, rates, steps = 1, (0.1, 0.4, 1.6), [0, 1, 2, 3, 5, 8]
(figure, axis), told = new(7, 2.8), []
for slot, rate in enumerate(rates):
    table = accuracy_by_steps(yours, val, steps, tasks=25, lr=rate, k_shot=k_shot)
    means, halves = zip(*(mean_and_ci95(row) for row in table))
    axis.errorbar(
        steps,
        means,
        yerr=halves,
        capsize=3,
        label=f"inner rate {rate}",
        **slot_style(slot),
    )
    told.append(f"rate {rate}: " + ", ".join(f"{mean:.0%}" for mean in means))
axis.axhline(0.2, color=CHANCE, linestyle="--", label="chance")
axis.axvline(3, color=CHANCE, linestyle=":", label="steps in training")
axis.set(xlabel="inner steps", ylabel="validation accuracy", xticks=steps, ylim=(0, 1))
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
print("\n".join(told))
show(
    figure,
    f"Validation accuracy, {k_shot} shot, 95 % intervals, at inner steps {steps}: "
    f"{'; '.join(told)}.",
)

# %% [markdown]
# ## Bug hunt
#
# The symptom: a net *without* an inner loop, `steps=0`, cannot know a task's slots. It must score 20 %. After training through this sampler it does not.


# %%
class FromIds(EpisodeSampler):
    """The same tasks; labels are made from the ids of the classes."""

    def batch(self, start: int, tasks: int) -> Episode:
        """Episodes start .. start+tasks-1, stacked."""
        dealt = super().batch(start, tasks)
        rows = torch.arange(tasks)[:, None]
        ids = torch.cat(
            [dealt.classes[rows, dealt.support_y], dealt.classes[rows, dealt.query_y]],
            1,
        )
        found = [task_ids.unique(return_inverse=True) for task_ids in ids]
        labels = torch.stack([labels for _, labels in found])  # [T, N*K + N*Q]
        shots = dealt.support_y.shape[1]
        classes = torch.stack([names for names, _ in found])
        return replace(
            dealt,
            support_y=labels[:, :shots],
            query_y=labels[:, shots:],
            classes=classes,
        )


# %%
torch.manual_seed(0)
blind = MAML(classifier(conv4(16), 5), lr=0.4, steps=0)
dealt = FromIds(train, n_way=5, k_shot=1, n_query=5, seed=1)
fit(blind, dealt, steps=120, tasks=4, lr=3e-3)
for name, dealer, source in (
    ("training classes, this sampler", FromIds, train),
    ("training classes, the course's sampler", EpisodeSampler, train),
    ("novel classes, this sampler", FromIds, test),
):
    dealt = dealer(source, n_way=5, k_shot=1, n_query=5, seed=5)
    print(f"{name:39s}{evaluate(blind, dealt, episodes=150)}")

# %% [markdown]
# ### Exercise 09.5  Bug hunt: does a class give its slot away?  (difficulty 4/5, 12 min)
#
# `deal(index)` returns the classes of episode `index`, `[N]`: entry `j` is the id of the class in slot `j`. Return `True` when a class's id helps to guess its slot.
#
# Play the cheat: from the first half of the `episodes` remember each class's usual slot; guess in the second half. Leave luck a margin: 0.05 over $1/N$.


# %%
def exposes_slots(deal, episodes: int) -> bool:
    """True when a class's id helps to guess its slot.
    deal: index -> classes int64 [N], for index 0 .. episodes-1.
    """
    # BEGIN SOLUTION
    habits, hits = {}, []
    for index in range(episodes):
        for slot, name in enumerate(deal(index).tolist()):
            if index < episodes // 2:
                habits.setdefault(name, Counter())[slot] += 1
            elif name in habits:
                hits.append(habits[name].most_common(1)[0][0] == slot)
    return sum(hits) / len(hits) > 1 / len(deal(0)) + 0.05
    # END SOLUTION


exposes_slots = check("09.5", exposes_slots)

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# `unique` returns its values sorted. So the class with the smallest id always sits in slot 0: a net that recognises a *training* class knows its slot without any support. It need not learn to adapt, and on novel classes the knowledge is worthless.
#
# </details>
#
# The cure: a fresh random permutation for each task, and your test beside it.


# %%
class Cured(FromIds):
    """The same labels, then a random permutation of the slots in every task,
    fixed by the task's number.
    """

    def batch(self, start: int, tasks: int) -> Episode:
        """Episodes start .. start+tasks-1, stacked."""
        dealt, seeds = super().batch(start, tasks), range(start, start + tasks)
        chance = [
            torch.Generator().manual_seed(1000 * self.seed + seed) for seed in seeds
        ]
        # [T, N], of every old slot
        new = torch.stack([torch.randperm(self.n_way, generator=own) for own in chance])
        labels = {
            name: new.gather(1, getattr(dealt, name))
            for name in ("support_y", "query_y")
        }
        return replace(dealt, **labels, classes=dealt.classes.gather(1, new.argsort(1)))


# %%
for dealer in (FromIds, Cured):
    dealt = dealer(train, n_way=5, k_shot=1, n_query=1, seed=2).batch(0, 800).classes
    rings = exposes_slots(lambda index, dealt=dealt: dealt[index], 800)
    assert rings == (dealer is FromIds)
    print(f"{dealer.__name__}: gives slots away: {rings}")
again = evaluate(
    blind, Cured(train, n_way=5, k_shot=1, n_query=5, seed=5), episodes=150
)
print(f"the same net, training classes, cured slots: {again}")

# %% [markdown]
# ## Quiz
#
# **1. After long training: support before 20.4 %, 5 ways.**
# (a) train longer, (b) healthy, (c) raise the inner rate
#
# <details><summary>Answer</summary>
#
# (b). Random slots leave nothing to know before the support speaks. (a) must never move it. (c) acts on adaptation only, which has not happened yet.
#
# </details>
#
# **2. Support after 100 %, query after 45 %.**
# (a) inner loop broken, (b) poor initialisation, (c) wrong support labels
#
# <details><summary>Answer</summary>
#
# (b), most likely: training exists to find an initialisation that generalises. The inner loop does its work, against (a): it fits the support. Wrong support labels (c) would push the queries to chance.
#
# </details>
#
# **3. [Running statistics](../lessons/GLOSSARY.md#running-statistics "移动统计量") in the test: why not?**
# (a) slow, (b) from other weights and tasks, (c) they leak queries
#
# <details><summary>Answer</summary>
#
# (b). Every inner step moves the weights, and with them the maps. (a) is wrong: they are the cheapest. (c) too: they know no query of the test.
#
# </details>
#
# **4. Best on test: 8 steps; on validation: 3. Report**
# (a) test at 8, (b) test at 3, (c) validation at 3
#
# <details><summary>Answer</summary>
#
# (b). (a) lets the test choose; (c) is the number that won the choice, so it is too good.
#
# </details>
#

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | batch norm | statistics of the support; queries alone |
# | triple | $1/N$, near 1, between |
# | rate | in units of a mean loss |
# | tasks | loop: flat memory; vmap: small nets |
#
# Pitfalls: queries normalised together; sorted slots; steps chosen on test. Next: the same for less work. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Finn, Abbeel and Levine (2017), *Model-Agnostic Meta-Learning* | section 2.2: inner step; equation 1: meta-update; section 5.2: pictures |
# | The authors' code, `utils.py` (`xent`) | rows summed, divided by $K$ |
# | Nichol, Achiam and Schulman (2018), *On First-Order Meta-Learning Algorithms* | transduction through batch norm, and what it gains |
# | Antoniou, Edwards and Storkey (2019), *How to Train Your MAML* | batch norm in the inner loop |
# | Bronskill et al. (2020), *TaskNorm* | normalisation for meta-learning |
# | Yin et al. (2020), *Meta-Learning without Memorization* | tasks that need no support |

# %% [markdown]
# ### Exercise 09.6 ★  Queries in groups  (difficulty 2/5, 6 min)
#
# Ask the queries in groups of `rows` consecutive rows, the last group may be smaller. Return the accuracy over all queries. `predict(episode)` returns logits `[M, N]`; `replace(episode, query_x=..., query_y=...)` changes the queries.


# %%
def grouped_accuracy(predict, episode: Episode, rows: int) -> float:
    """Accuracy when the queries are asked in groups of `rows` consecutive rows.
    predict: Episode -> logits [M, N].
    """
    # BEGIN SOLUTION
    hits = 0
    for low in range(0, len(episode.query_y), rows):
        x, y = episode.query_x[low : low + rows], episode.query_y[low : low + rows]
        hits += int(
            (predict(replace(episode, query_x=x, query_y=y)).argmax(1) == y).sum()
        )
    return hits / len(episode.query_y)
    # END SOLUTION


grouped_accuracy = check("09.6", grouped_accuracy)

# %%
tasks = list(EpisodeSampler(test, n_way=5, k_shot=1, n_query=4, seed=29).batch(0, 20))
for rows in (1, 2, 5, 20):
    found = []
    for task in tasks:
        with torch.no_grad():
            judge = partial(predict, yours.model, yours.adapted(task))
            with batch_statistics(yours.model):
                company = grouped_accuracy(judge, task, rows)
            found.append([company, grouped_accuracy(judge, task, rows)])
    company, honest = torch.tensor(found).mean(0).tolist()
    print(
        f"groups of {rows:2d}: by their own statistics {company:.0%}, by the support's "
        f"{honest:.0%}"
    )

# %% [markdown]
# ### Exercise 09.7 ★  A head for fewer slots  (difficulty 2/5, 5 min)
#
# Return a *new* dict of parameters whose head has the rows `slots` only, in that order: `head.weight` `[N, D]` to `[n, D]`, `head.bias` `[N]` to `[n]`, all else as it was.
#
# It serves 3-way tasks, and it carries the head along when slots are permuted.


# %%
def take_slots(params: dict[str, Tensor], slots: Tensor) -> dict[str, Tensor]:
    """The same parameters with rows `slots` [n] of the head.
    "head.weight" [N, D] -> [n, D], "head.bias" [N] -> [n].
    """
    # BEGIN SOLUTION
    fewer = dict(params)
    for name in ("head.weight", "head.bias"):
        fewer[name] = params[name][slots]
    return fewer
    # END SOLUTION


take_slots = check("09.7", take_slots)

# %%
with torch.no_grad():  # the law of the slots, with the head carried along, in float64
    slots = torch.tensor([3, 0, 4, 1, 2])
    other = relabel(small, slots)
    moved = adapt(
        support_loss(net, other), take_slots(start, slots), lr=0.4, steps=3, track=False
    )
    assert torch.allclose(
        predict(net, moved, other), predict(net, adapted, small)[:, slots], atol=1e-8
    )
    found = {"3 rows of the head": [], "all 5 rows": []}
    for three in EpisodeSampler(test, n_way=3, k_shot=1, n_query=5, seed=31).batch(
        0, 40
    ):
        for name, rows in zip(found, (3, 5)):
            # N is the length of classes
            seen = replace(three, classes=torch.arange(rows))
            head = take_slots(trainable(yours.model), torch.arange(rows))
            few = adapt(
                support_loss(yours.model, seen), head, lr=0.4, steps=3, track=False
            )
            hits = predict(yours.model, few, seen).argmax(1) == three.query_y
            found[name].append(hits.double().mean())
print("slots permuted together with the head: the logits are permuted, nothing else")
print(
    "3-way tasks:",
    ", ".join(f"{name} {sum(a) / len(a):.1%}" for name, a in found.items()),
    "(chance 33 %)",
)
progress("09")
