# %% [markdown]
# # 09 MAML on pictures: three numbers to look at first
#
# You run MAML with a convolutional net, make its batch norm honest, learn what its trained head costs, and hold it against Prototypical Networks.
#
# Prerequisites: lessons 05 and 08. Planned time: 60 minutes.
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
# 1. **normalise** queries by the statistics of the support (09.1),
# 2. **diagnose** a learner by three numbers (09.2),
# 3. **run** a batch of tasks in flat memory (09.3),
# 4. **choose** the number of steps without the test (09.4),
# 5. **expose** classes that give their slots away (09.5).

# %% [markdown]
# ## A puzzle: move all weights, or none?
#
# MAML moves every weight of a net for each task. A Prototypical Network moves none. Both have the same encoder and meet the same novel classes, 5 at a time. Write down:
#
# - With one shot, does MAML win, does ProtoNet, or can nobody tell?
# - What are MAML's three numbers: accuracy on the [support](../lessons/GLOSSARY.md#support-set "支持集") before adaptation, on the support after, on the [queries](../lessons/GLOSSARY.md#query-set "查询集") after?

# %%
import inspect
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from functools import partial

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
from fsl_course.evaluation import mean_and_ci95
from fsl_course.figures import CHANCE, intervals, new, show, slot_style
from fsl_course.inner_loop.functional import call
from fsl_course.inner_loop.support_statistics import batch_statistics
from fsl_course.methods.baselines import baselines
from fsl_course.methods.maml import MAML, adapt, predict, support_loss, trainable
from fsl_course.nets import classifier, conv4

# %%
torch.manual_seed(0)
glyphs = load_glyphs()
train, val, test = glyphs.split("train"), glyphs.split("val"), glyphs.split("test")


# %%
def fresh(norm: str = "batch", width: int = 16) -> MAML:
    """An untrained learner with 5 ways; the same first weights every time."""
    torch.manual_seed(0)
    return MAML(classifier(conv4(width, norm), 5), lr=0.4, steps=3)


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
# The figure shows one novel one-shot task and the shipped weights: the probabilities of 25 queries, sorted by class, before the [inner loop](../lessons/GLOSSARY.md#inner-loop "内循环") and after each of its steps.

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
with torch.no_grad():
    seats = [relabel(task, (torch.arange(5) + by) % 5) for by in range(5)]
    start = trainable(shipped.model)
    hits = [predict(shipped.model, start, e).argmax(1) == e.query_y for e in seats]
shares = torch.stack(hits).double().mean(1)
print("before, in five seatings:", ", ".join(f"{share:.0%}" for share in shares))
print(f"their mean: {shares.mean():.0%}")
show(
    figure,
    "Four tables of 25 queries by 5 slots, dark where the probability is high. Before "
    "adaptation no class is at home in its slot. With the steps a darker staircase "
    f"appears: classes find their slots. {'; '.join(told)}.",
)

# %% [markdown]
# One step finds the slots. But why is so little right *before*, where you would expect 20 %? The net cannot know yet which class sits in which slot. Its fixed answer fits a seating or misses it, often for all queries of a class together.
#
# The average is 20 % all the same: move every class on by one slot, five times, and each query is right in exactly one seating.
#
# ## The maths
#
# The inner loop is that of lesson 07, now with [batch norm](../lessons/GLOSSARY.md#batch-normalisation "批归一化") in every block:
#
# $$\theta_{j+1} = \theta_j - \alpha \nabla \mathcal{L}_{\mathcal{S}}(\theta_j), \qquad j = 0, \dots, J - 1$$
#
# $$\hat z = \gamma \, \frac{z - \mu_{\mathcal{S}}}{\sqrt{\sigma^2_{\mathcal{S}} + \varepsilon}} + \beta$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $\theta_0 = \theta$, $\theta_J = \theta'$ | `params`, `adapted` | dict of tensors |
# | $\alpha$, $J$ | `lr`, `steps` | numbers |
# | $z$, $\hat z$ | `query`, returned | maps `[M, c, h, w]` |
# | $\mu_{\mathcal{S}}$, $\sigma^2_{\mathcal{S}}$ | `mean`, `variance` | one for each channel, from the *support* |
# | $\gamma$, $\beta$ | `weight`, `bias` of the layer | `[c]`, part of $\theta$ |
#
# Every step moves the weights, and with them the maps, so every task and every step has statistics of its own.

# %% [markdown]
# ## By hand
#
# Take four support rows with two features: (0, 2), (2, 3), (2, 0), (4, 1). The first feature has mean 2 and variance (4 + 0 + 0 + 4)/4 = 2; the second 1.5 and 1.25.
#
# Query (3, 1) becomes $(1/\sqrt 2,\ -0.5/\sqrt{1.25})$, about (0.71, −0.45). Now you: what becomes of the query (2, 1)? And what, if it is normalised *by itself alone*?

# %% tags=["nbval-check-output"]
support = torch.tensor([[0.0, 2.0], [2.0, 3.0], [2.0, 0.0], [4.0, 1.0]])
query = torch.tensor([[2.0, 1.0], [3.0, 1.0]])
companies = {"the support": support, "both queries": query, "itself alone": query[:1]}
for who, rows in companies.items():
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
# Normalised by itself the query vanishes, because it is its own mean. Normalised with a companion it depends on the companion. Normalised by the support it does neither.
#
# ### Exercise 09.1  Queries by the support's statistics  (difficulty 2/5, 8 min)
#
# Normalise the queries with the mean and the *biased* variance (`correction=0`) of each channel over rows and pixels of the support. Leave $\gamma$ and $\beta$ out. `F.batch_norm` passes no gradient to statistics that it is given, so write the formula out.
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
# Support and queries pass the net together, and every batch norm takes the statistics of the *support's* maps. With your function this must agree with the package in float64. In *training* the package normalises queries by their own statistics, as the code of Finn et al. does; what that is worth at test time, you measure below.
#
# Two laws must hold as well. A support row asked as a query gets the logits of the support pass. And a query gets the same logits alone and in company.

# %%
torch.manual_seed(0)
net = classifier(conv4(8), 5).double().eval()
small = EpisodeSampler(test, n_way=5, k_shot=2, n_query=3, seed=1, dtype=torch.float64)[
    0
]
start = trainable(net)
adapted = adapt(support_loss(net, small), start, lr=0.4, steps=3, track=False)


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


print(inspect.getsource(predict))
print(
    "yours = the package's; a support row gets its own logits back; a query needs no "
    "company"
)

# %% [markdown]
# ## The triple that finds most bugs
#
# Three accuracies, averaged over tasks, tell you which part of MAML to look at.
#
# | number | healthy | else look for |
# |---|---|---|
# | support before | $1/N$, averaged over random [slots](../lessons/GLOSSARY.md#label-slot "标签槽位") | slots that are not random, leaks |
# | support after | near 1 | inner rate, frozen weights, lost gradients |
# | query after | above $1/N$, at most the second number | poor initialisation, batch norm, shuffled labels |
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
def three_numbers(learner: MAML, sampler: EpisodeSampler, tasks: int = 40) -> str:
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


at_first = three_numbers(fresh(), sampler)
print("untrained, width 16:", at_first)
print("shipped:            ", three_numbers(shipped, sampler, tasks=20))

# %% [markdown]
# Before adaptation *no* learner beats $1/N$, trained or not: random slots make it a die with $N$ sides. About one of 5 classes sits where the net guesses it: 20 %, with a standard deviation of 20. So the 95 % interval of 20 tasks is $20 \pm 9$ %, since $1.96 \cdot 20 / \sqrt{20} \approx 9$; of 40, $20 \pm 6$ %.
#
# The untrained net's 65 % *after* adaptation is no bug: from random weights three steps are too few. After six it is 98 % (12 tasks, not shown).
#
# ## An inner rate has units
#
# A rate belongs to a loss ([07.5](../notebooks/07_inner_loop.ipynb)). The authors' inner loss is $N$ times the mean. Predict: what are their rates, 0.4 at 5 ways and 0.1 at 20 ways, in units of a mean loss?

# %% tags=["nbval-check-output"]
mean_loss = support_loss(net, small)  # the mean over N*K rows
# theirs: summed over all N*K rows, divided by K
by_sum = adapt(lambda p: 5 * mean_loss(p), start, lr=0.4, steps=2, track=False)
by_mean = adapt(mean_loss, start, lr=2.0, steps=2, track=False)
assert all(torch.allclose(by_sum[name], by_mean[name], atol=1e-10) for name in start)
for n_way, rate in ((5, 0.4), (20, 0.1)):
    print(
        f"{n_way:2d} ways: {rate} on the summed loss = {n_way * rate:.1f} on the mean "
        "loss"
    )

# %% [markdown]
# Both are 2.0. `adapt` expects a mean, and the shipped nets were trained with 0.4 of a mean loss: a fifth of the authors' step. The test must use the unit of the training.
#
# ## From one task to a batch
#
# ### Exercise 09.3  One task after the other  (difficulty 3/5, 8 min)
#
# Return the gradient of the *mean* loss of a [meta-batch](../lessons/GLOSSARY.md#meta-batch "元批次"), holding one task's graph at a time: when the next graph is built, nothing of the last one may still be in memory. The parameters require a gradient.
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
# [vmap](../lessons/GLOSSARY.md#vmap "向量化映射") runs all tasks at once. For vmap the package writes batch norm out, as you did. What happens with *raw* vmap, over PyTorch's own batch norm? Predict: is its loss the same, and is its gradient? Central differences decide.


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
# The losses agree to ten digits, and the slope of raw vmap (the gradient times one random direction) is wrong by far: PyTorch 2.13's batch norm loses part of the second derivative under vmap.
#
# vmap runs Python once for all tasks, which pays for small nets. The loop saves memory. Predict: how many times the bytes of one task do 8 tasks hold, in one graph and in your `accumulate`?


# %%
pictures = EpisodeSampler(train, n_way=5, k_shot=1, n_query=5, seed=1)


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
figure, axis = new(6, 2.8)
least = memory["one task after the other"][0]
for slot, (name, held) in enumerate(memory.items()):
    axis.plot(counts, [h / least for h in held], label=name, **slot_style(slot))
axis.set(
    xlabel="tasks T", ylabel="bytes held, one task = 1", xticks=counts, ylim=(0, None)
)
axis.legend(fontsize=8)
grown = {name: held[-1] / held[0] for name, held in memory.items()}
print(
    "bytes held, 8 tasks against 1:",
    ", ".join(f"{name} {g:.1f} times" for name, g in grown.items()),
)
show(
    figure,
    "Bytes held against tasks; one graph for all tasks grows "
    f"{grown['all tasks, one graph']:.1f} times from 1 to 8 tasks, one task after the "
    "other stays flat.",
)

# %% [markdown]
# The memory of one graph grows in proportion to the tasks; your loop's does not grow at all. On a CPU the package loops over convolutional nets, and takes vmap for other small ones.
#
# ## Train for real
#
# Train a net of width 16 for 64 updates, with a rate of 0.4 and 3 inner steps. Predict which of the three numbers moves.

# %%
yours = fresh()
seen = fit(yours, pictures, steps=64, tasks=4, lr=3e-3).accuracy
found = torch.tensor(seen).view(-1, 8).mean(1)  # means of 8 updates
figure, axis = new(7, 2.8)
axis.plot(torch.arange(8) * 8 + 4, found, label="batch norm", **slot_style(0))
axis.axhline(0.2, color=CHANCE, linestyle="--", label="chance")
axis.set(xlabel="update, 4 tasks each", ylabel="query accuracy", ylim=(0, 1.02))
print("untrained:", at_first)
print("trained:  ", three_numbers(yours, sampler))
show(
    figure,
    "Query accuracy of training tasks, means of 8 updates, from "
    f"{found[0]:.0%} at first to {found[-1]:.0%} at last. Chance is 20 %.",
)

# %% [markdown]
# Training must not move the first number: 26 % is the edge of $20 \pm 6$ %. The second rises, because three steps now suffice to fit five pictures. *Learning to learn* shows in the third.
#
# ## The flattery of company
#
# Published MAML numbers normalise a task's queries together, which is [transductive](../lessons/GLOSSARY.md#transductive "直推式"). `evaluate` is [inductive](../lessons/GLOSSARY.md#inductive "归纳式") unless asked. Predict the gap.

# %%
queries = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=9).batch(0, 60)
yours.eval()


def share_right(params, task: Episode) -> Tensor:
    """Share of the task's queries that are right, a scalar."""
    return (
        (predict(yours.model, params, task).argmax(1) == task.query_y).double().mean()
    )


with torch.no_grad():
    adapted_to = [yours.adapted(task) for task in queries]  # once for both protocols
    alone = torch.stack([share_right(p, t) for p, t in zip(adapted_to, queries)])
    with batch_statistics(yours.model):  # as evaluate(..., transductive=True) does
        company = torch.stack([share_right(p, t) for p, t in zip(adapted_to, queries)])
print(f"inductive {alone.mean():.1%}, transductive {company.mean():.1%}")
mean, half = mean_and_ci95(company - alone)
print(f"gain, paired over 60 tasks: {100 * mean:+.1f} ± {100 * half:.1f} points")

grouped = fresh("group")
found = [
    evaluate(grouped, sampler, 5, transductive=way).per_episode for way in (False, True)
]
assert torch.equal(*found)
print("group norm: both agree, because no query sees another")

# %% [markdown]
# The gain is about as large as its interval. Where would it come from? The queries are *balanced* over the classes. So their mean is what all classes share, and subtracting it leaves what tells them apart. If so, the gain must vanish with the balance. Ask the same 25 queries five at a time: one of each class, five at random, five of one class. Predict all three.


# %%
gains = {"one of each class": [], "five at random": [], "five of one class": []}
for task, params, before in zip(queries, adapted_to, alone):
    by_class = task.query_y.argsort(stable=True).view(5, 5)
    shuffled = torch.randperm(25, generator=generator).view(5, 5)
    for name, groups in zip(gains, (by_class.T, shuffled, by_class)):
        rows = [(task.query_x[part], task.query_y[part]) for part in groups]
        parts = [replace(task, query_x=x, query_y=y) for x, y in rows]
        with torch.no_grad(), batch_statistics(yours.model):
            after = torch.stack([share_right(params, part) for part in parts]).mean()
        gains[name].append(after - before)
print("company of          accuracy minus that by the support's statistics")
for name, found in gains.items():
    mean, half = mean_and_ci95(torch.stack(found))
    print(f"{name:18s} {100 * mean:+.1f} ± {100 * half:.1f} points")

# %% [markdown]
# Balanced company helps, random company does not, and five of one class do great harm: their mean *is* the class, and it is subtracted. So batch statistics carry each class's share into every answer. Name your protocol.
#
# [Group norm](../lessons/GLOSSARY.md#group-normalisation "组归一化") normalises each picture by itself, so it avoids the question.
#
# ## How many steps at test time?
#
# Your net was trained with 3 steps. May the test take more, and who chooses the number?


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


steps = [0, 1, 2, 3, 5, 8, 12, 16]
on_val, on_test = (
    accuracy_by_steps(yours, source, steps, tasks=24, lr=0.4) for source in (val, test)
)
print("steps      ", "".join(f"{number:7d}" for number in steps))
for name, table in (("validation", on_val), ("test", on_test)):
    print(f"{name:11s}", "".join(f"{row.mean():7.1%}" for row in table))

# %% [markdown]
# Both rows still rise beyond the 3 steps of training. From about 12 steps on they are flat, and on a flat curve *luck* decides which entry is the largest, so validation and test need not agree.

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
mean, half = mean_and_ci95(on_test[steps.index(number)] - on_test[steps.index(3)])
print(
    f"{number} (validation's choice) minus 3 (training), paired on test: "
    f"{100 * mean:+.1f} ± {100 * half:.1f} points"
)
best = int(on_test.mean(1).argmax())
print(f"the test would choose {steps[best]} steps: {on_test[best].mean():.1%}")
excess = []
for _ in range(1000):  # choose on 10 test tasks, then read the other 14
    tasks = torch.randperm(24, generator=generator)
    row = int(on_test[:, tasks[:10]].mean(1).argmax())
    excess.append(on_test[row, tasks[:10]].mean() - on_test[row, tasks[10:]].mean())
print(f"chosen and read on the same 10 tasks: {100 * sum(excess) / 1000:+.1f} points")

# %% [markdown]
# More steps than in training help by more than the interval, as Ye and Chao (2022) find, too.
#
# The number that wins a choice contains its own luck. Whoever chooses on ten test tasks and reports the same ten is too good on average. Here few rows compete, so the excess is nothing; 16 was the longest tried.

# %% [markdown]
# ## Evaluate honestly
#
# Now compare the shipped nets on novel classes, inductively, on the same episodes and with [baselines](../lessons/GLOSSARY.md#baseline "基线") beside them. MAML has weights for each shot; ProtoNet has one set. Every MAML takes the 3 steps of its training, although yours would gain from more.

# %%
results = {}
for k_shot, episodes in ((1, 40), (5, 20)):
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
    features = found["random Conv4"]
    print(f"   MAML minus random features: {compare(found['MAML'], features)}")
    if k_shot == 1:
        above = compare(found["your MAML, width 16"], features)
        print(f"   your MAML minus random features: {above}")
    winner = "MAML wins" if gap.mean > 0 else "ProtoNet wins"
    verdict = winner if gap.separated else "nobody can tell"
    print(f"   the puzzle, these nets and episodes: {verdict}")

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
# The puzzle's answer: ProtoNet wins at one shot and at five, beyond the intervals, without moving a weight. MAML's numbers were chance, 100 % and about 90 %. Your own net beats random features by 4.6 ± 4.2 points.
#
# *Not covered* by [paired](../lessons/GLOSSARY.md#paired-comparison "配对比较") intervals: ProtoNet learned from 30-way tasks, MAML from 5-way ones, each with one seed.
#
# ## The price of a trained head
#
# Metric methods obey a law: if you relabel the slots, the logits are permuted and nothing else happens. A trained head has five *different* rows, so five different starting points. Predict: with permuted slots, does a task get the same classes? And with every row replaced by the mean row?


# %%
def levelled(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same parameters; every row of the head is the mean of its rows."""
    rows = {name: params[name] for name in ("head.weight", "head.bias")}
    return params | {
        name: row.mean(0, keepdim=True).expand_as(row) for name, row in rows.items()
    }


levelled_maml = deepcopy(shipped)
levelled_maml.model.load_state_dict(levelled(trainable(shipped.model)), strict=False)
field = {
    "ProtoNet": pretrained("prototypical", "glyphs"),
    "shipped MAML": shipped,
    "shipped MAML, mean row": levelled_maml,
}

# %%
right = {name: [] for name in field}  # accuracy of 6 labellings of 6 tasks
for name, learner in field.items():
    changed, deal = [], torch.Generator().manual_seed(1)
    for task in EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=23).batch(0, 6):
        with torch.no_grad():
            labellings = [
                relabel(task, torch.randperm(5, generator=deal)) for _ in "123456"
            ]
            answers = [e.classes[learner.eval()(e).argmax(1)] for e in labellings]
        truth = task.classes[task.query_y]
        right[name].append([float((a == truth).double().mean()) for a in answers])
        changed += [(a != answers[0]).double().mean() for a in answers[1:]]
    assert name != "ProtoNet" or sum(changed) == 0  # the law
    print(
        f"{name:23s}another class for {sum(changed) / len(changed):.1%} of the queries"
    )


figure, axis = new(7, 2.8)
for slot, name in enumerate(("shipped MAML", "shipped MAML, mean row")):
    xs = [number + 0.2 * slot for number, row in enumerate(right[name]) for _ in row]
    ys = [value for row in right[name] for value in row]
    axis.plot(xs, ys, label=name, **(slot_style(slot) | {"linestyle": "none"}))
axis.set(xlabel="task", ylabel="accuracy", xticks=range(6))
axis.legend(fontsize=8)
widest = max(max(row) - min(row) for row in right["shipped MAML"])
show(
    figure,
    "Accuracy of six labellings for each of six tasks. With the trained head the six "
    f"dots of a task lie up to {widest:.0%} apart; with the mean row they coincide.",
)

# %% [markdown]
# Random slots make a trained head *fair on average*, not invariant. With the mean row $\bar w$, only the support tells the slots apart, so the law holds. What does the first step do? All logits are equal, so $p = 1/N$. With $z_i$ the features of row $i$, $e_{y_i}$ its one-hot label, $c_k$ the prototypes and $\bar c$ their mean,
#
# $$\nabla_{w_k} \mathcal{L}_{\mathcal{S}} = \frac{1}{NK} \sum_i \left(\tfrac{1}{N} - e_{y_i,k}\right) z_i = \tfrac{1}{N} (\bar c - c_k)$$
#
# $$w_k \leftarrow \bar w + \tfrac{\alpha}{N} (c_k - \bar c)$$
#
# All logits share $\bar w^{\!\top} z$: the inner product of $z$ with the centred prototype decides, where a distance would add $-\lVert c_k \rVert^2 / 2$. And the encoder? A feature's gradient is $\sum_k (p_k - e_{y,k})\, \bar w = 0$: it does not move. Nor does a bias: its gradient is $1/N$ minus its class's share of the rows, so 0. From the mean row, MAML's first step builds a prototype classifier.

# %%
level, loss = levelled(start), support_loss(net, small)
first = adapt(loss, level, lr=0.4, steps=1, track=False)
with torch.no_grad(), batch_statistics(net):
    z = net.encoder(small.support_x).flatten(1)  # [N*K, D]
centres = torch.stack([z[small.support_y == k].mean(0) for k in range(5)])
built = level["head.weight"] + 0.4 / 5 * (centres - centres.mean(0))
assert torch.allclose(first["head.weight"], built, atol=1e-10)
unmoved = [
    name for name in level if torch.allclose(first[name], level[name], atol=1e-12)
]
print("moved by the first step:", ", ".join(sorted(set(level) - set(unmoved))))

slots = torch.tensor([3, 0, 4, 1, 2])
other = relabel(small, slots)
three, moved = (
    predict(net, adapt(support_loss(net, e), level, lr=0.4, steps=3, track=False), e)
    for e in (small, other)
)
assert torch.allclose(moved, three[:, slots], atol=1e-8)
print("mean row, slots permuted, 3 steps: the logits are permuted, nothing else")

mixed = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=17)
found = evaluate(levelled_maml, mixed, 40)
print(f"trained rows {results[1]['MAML'].mean:.1%}, mean row {found.mean:.1%}")
print(compare(found, results[1]["MAML"]))

# %% [markdown]
# The assertion passes: the first step leaves the encoder still. The mean row is invariant, and its loss of 0.4 points lies well inside the interval. Ye and Chao (2022) *train* a single row, copied $N$ times: UNICORN-MAML. You can also permute the rows along with the slots: 09.7 ★.

# %% [markdown]
# ## Explore
#
# Predict, look, then set `k_shot = 5`.
#
# 1. Does a rate of 0.1 need more steps?
# 2. What does 1.6, four times the rate of training, do?
# 3. Where would you stop without a validation split?
# 4. Do five shots gain from more steps, too?
#
# <details><summary>Answers</summary>
#
# 1: Yes: each step is a quarter as long, and after 8 steps the curve still rises and is near that of 0.4 after 5. 2: It overshoots: the accuracy stays far below that of 0.4 after every step. 3: At the steps of training, because this is the only number that training knows; here that would give accuracy away. 4: At 0.1 yes, to about 79 % after 8 steps; at 0.4 it wavers around 70 % from the third step on (with `tasks=12`; the cell takes 8).
#
# </details>

# %%
k_shot, rates, steps = 1, (0.1, 0.4, 1.6), [0, 1, 2, 3, 5, 8]
(figure, axis), told = new(7, 2.8), []
for slot, rate in enumerate(rates):
    table = accuracy_by_steps(yours, val, steps, tasks=8, lr=rate, k_shot=k_shot)
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
# The symptom: a net *without* an inner loop, `steps=0`, never sees the support's *labels*, so it cannot know a task's slots and must score 20 %. After training through the sampler below it scores more, on training classes. Look for the reason.


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
    print(f"{name:39s}{evaluate(blind, dealt, episodes=100)}")

# %% [markdown]
# ### Exercise 09.5  Bug hunt: does a class give its slot away?  (difficulty 4/5, 12 min)
#
# `deal(index)` returns the classes of episode `index`, `[N]`: entry `j` is the id of the class in slot `j`. Return `True` when a class's id helps to guess its slot. A leak may touch some classes or some episodes only.
#
# One way is to play the cheat, who has seen some episodes and guesses slots in others. Leave luck a margin: return `True` if the share of right guesses, over all guessed episodes, exceeds $1/N + 0.05$.


# %%
def exposes_slots(deal, episodes: int) -> bool:
    """True when ids help to guess slots. deal: index 0 .. episodes-1 -> int64 [N]."""
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
# `unique` returns its values sorted. So the class with the smallest id always sits in slot 0, and a net that recognises a *training* class can guess its slot without any support. It need not learn to adapt. On novel classes it still guesses by looks. By accident that fits the order of ids a little more or less often than chance: the next cell flips the slots, and with them the side.
#
# </details>
#
# Yin et al. (2020) call this [memorisation](../lessons/GLOSSARY.md#memorisation-of-tasks "任务记忆"): one function solves all training tasks. The cure is to make tasks [mutually exclusive](../lessons/GLOSSARY.md#mutually-exclusive-tasks "互斥任务"). If the same class is slot 0 in one task and slot 3 in the next, only the support can tell. A fresh random permutation for each task does this.


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


for dealer in (FromIds, Cured):
    dealt = dealer(train, n_way=5, k_shot=1, n_query=1, seed=2).batch(0, 800).classes
    rings = exposes_slots(lambda index, dealt=dealt: dealt[index], 800)
    assert rings == (dealer is FromIds)
    print(f"{dealer.__name__}: gives slots away: {rings}")
again = evaluate(
    blind, Cured(train, n_way=5, k_shot=1, n_query=5, seed=5), episodes=100
)
print(f"the same net, training classes, cured slots: {again}")
with torch.no_grad():
    turned = deepcopy(blind)  # with its slots in the opposite order
    for rows in turned.model.head.parameters():
        rows.copy_(rows.flip(0))
again = evaluate(turned, FromIds(test, n_way=5, k_shot=1, n_query=5, seed=5), 100)
print(f"novel classes, the first sampler, slots turned round: {again}")

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
# (b), most likely: training exists to find an initialisation that generalises. The inner loop fits the support, against (a). Wrong support labels (c) would push the queries to chance.
#
# </details>
#
# **3. [Running statistics](../lessons/GLOSSARY.md#running-statistics "移动统计量") in the test: why not?**
# (a) slow, (b) from other weights and tasks, (c) they leak queries
#
# <details><summary>Answer</summary>
#
# (b). Every inner step moves the weights, and with them the maps. They are the cheapest, against (a), and know no query, against (c).
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
# | triple | $1/N$; near 1; above $1/N$, at most the second |
# | trained head | fair on average; the mean row is invariant, and its first step builds prototypes |
# | rate | in units of a mean loss |
# | tasks | loop: flat memory; vmap: small nets |
# | random slots | make tasks mutually exclusive: nothing to memorise |
# | later | tasks without labels: [17](../notebooks/17_without_labels.ipynb); sentences: [20](../notebooks/20_words.ipynb); poison through the inner steps: [22](../notebooks/22_trust.ipynb); on icons with five shots MAML is among the first: [23](../notebooks/23_shift.ipynb) |
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
# | Yin et al. (2020), *Meta-Learning without Memorization* | memorisation, mutually exclusive tasks |
# | Ye and Chao (2022), *How to Train Your MAML to Excel in Few-Shot Classification* | permuted slots, one row for all slots, many steps |

# %% [markdown]
# ### Exercise 09.6 ★  Queries in groups  (difficulty 2/5, 6 min)
#
# Ask the queries in groups of `rows` consecutive rows, the last group may be smaller. Return the accuracy over all queries. `predict(episode)` returns logits `[M, N]`; `replace(episode, query_x=..., query_y=...)` changes the queries.


# %%
def grouped_accuracy(predict, episode: Episode, rows: int) -> float:
    """Accuracy when `rows` queries are asked at a time. predict: Episode -> [M, N]."""
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
sizes, found = (1, 5, 20), []
for task in EpisodeSampler(test, n_way=5, k_shot=1, n_query=4, seed=29).batch(0, 20):
    with torch.no_grad():
        judge = partial(predict, yours.model, yours.adapted(task))
        alone = grouped_accuracy(judge, task, 20)
        with batch_statistics(yours.model):
            found.append([alone] + [grouped_accuracy(judge, task, n) for n in sizes])
alone, *company = torch.tensor(found).mean(0).tolist()
print(f"by the support's statistics: {alone:.0%}, whatever the groups")
for rows, accuracy in zip(sizes, company):
    print(f"groups of {rows:2d}, by their own statistics: {accuracy:.0%}")

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
        0, 25
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
three, five = map(torch.stack, found.values())
mean, half = mean_and_ci95(three - five)
print(f"3 rows minus 5 rows, paired: {100 * mean:+.1f} ± {100 * half:.1f} points")
progress("09")
