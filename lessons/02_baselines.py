# %% [markdown]
# # 02 Baselines: copy features before you learn to learn
#
# You watch a net fail on five pictures, copy features from other letters instead, and find out when even pixels win.
#
# Prerequisites: lessons 00 and 01. Planned time: 60 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** A split divides classes, not drawings. Why?
#
# <details><summary>Answer</summary>
#
# Otherwise the learner has met the test classes in training, and the test says nothing about novel classes.
#
# </details>
#
# **2.** Two intervals overlap. Are the methods equally good?
#
# <details><summary>Answer</summary>
#
# That does not follow. Look at the paired difference on the same episodes: what makes an episode hard for both cancels.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **turn** episodes into a pretraining batch (02.1),
# 2. **write** classifiers for copied features (02.2, 02.3),
# 3. **derive** a step of a linear head (02.4),
# 4. **expose** a learner that remembers earlier episodes (02.5).

# %% [markdown]
# ## A puzzle: five pictures, 110,000 weights
#
# Five unseen letters, one labelled picture each. Three players name new drawings; guessing scores 20 %. Write down three accuracies.
#
# | player | |
# |---|---|
# | A | trains a fresh net on the five pictures until it names them all |
# | B | learns nothing: the nearest labelled picture wins, pixel by pixel |
# | C | has a net that learned to name *other* letters, and compares its [embeddings](../lessons/GLOSSARY.md#embedding "嵌入") |

# %%
import copy
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from fsl_classroom import check, progress
from fsl_course import (
    Episode,
    EpisodeSampler,
    compare,
    evaluate,
    fit,
    load_folder,
    load_glyphs,
    load_icons,
    pretrained,
)
from fsl_course.evaluation import Result, embed_all, mean_and_ci95
from fsl_course.figures import (
    CHANCE,
    SLOTS,
    draw_image,
    image_rows,
    intervals,
    new,
    show,
    slot_style,
)
from fsl_course.methods import transfer as package
from fsl_course.methods.baselines import PixelNearestNeighbour, random_conv4
from fsl_course.methods.transfer import FineTuneAll, TransferNetwork
from fsl_course.nets import conv4
from fsl_course.photographs import photograph_encoder

# %%
torch.manual_seed(0)
threads = torch.get_num_threads()
glyphs = load_glyphs()
train, val, test = (glyphs.split(name) for name in ("train", "val", "test"))
one_shot = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=7)

# %% [markdown]
# ## Player A: train from scratch
#
# `FineTuneAll` trains a copy of an [encoder](../lessons/GLOSSARY.md#encoder "编码器") and a new [head](../lessons/GLOSSARY.md#head "分类头"), one output for each slot, on the
# [support](../lessons/GLOSSARY.md#support-set "支持集") alone. Here the encoder is fresh. Watch support and [query](../lessons/GLOSSARY.md#query-set "查询集") over 20 episodes.

# %%
# with five pictures at a time a second thread would mostly wait
torch.set_num_threads(1)
fresh = conv4().eval()  # a random start, the same for every episode
print(f"{sum(p.numel() for p in fresh.parameters()):,} weights, 5 labelled pictures")
scratch, shown = FineTuneAll(fresh, steps=50), [0, 1, 2, 3, 5, 8, 12, 20, 30, 40, 50]
# support and query, episode by episode
curves = torch.zeros(2, 20, len(shown), dtype=torch.float64)
for i in range(20):
    task = one_shot[i]
    for step, weights in enumerate(scratch.adapt(task.support_x, task.support_y, 5)):
        if step in shown:
            with torch.no_grad():
                parts = [
                    scratch.predict(weights, x).argmax(1)
                    for x in (task.support_x, task.query_x)
                ]
            right = [
                p == y
                for p, y in zip(parts, (task.support_y, task.query_y), strict=True)
            ]
            curves[:, i, shown.index(step)] = torch.tensor(
                [r.double().mean() for r in right], dtype=torch.float64
            )
torch.set_num_threads(threads)
mean = curves.mean(1)  # [2, 11]
told = f"after 50 steps support {mean[0, -1]:.0%}, query {mean[1, -1]:.0%}"
print(told)

# %%
figure, axis = new(7.5, 2.8)
axis.plot(shown, curves[1].T, color=SLOTS[1], alpha=0.15, linewidth=1)
for slot, name in enumerate(("support", "query")):
    axis.plot(shown, mean[slot], label=f"{name}, mean", **slot_style(slot))
axis.axhline(0.2, color=CHANCE, linestyle="--", label="chance 20%")
axis.set(xlabel="gradient steps on the support", ylabel="accuracy", ylim=(0, 1.03))
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
show(
    figure,
    "Accuracy over 50 steps, mean of 20 episodes, with a thin line for the queries of "
    "each. The support soon reaches 100 %, the queries level off far below it: "
    f"{told}.",
)

# %% [markdown]
# That is [overfitting](../lessons/GLOSSARY.md#overfitting "过拟合"): five pictures right, about half of the new drawings wrong, and nothing left to learn from.
#
# ## The idea in one picture: copy the features
#
# [Transfer learning](../lessons/GLOSSARY.md#transfer-learning "迁移学习"): [pretrain](../lessons/GLOSSARY.md#pretraining "预训练") an encoder on the [base classes](../lessons/GLOSSARY.md#base-classes "基类"), freeze it, fit a small new head to each task.

# %%
figure, axis = new(8.6, 2.9)
axis.set(xlim=(0, 8.6), ylim=(0, 2.9), xticks=[], yticks=[], frame_on=False)
rows = (
    (
        2.2,
        "once",
        train.images[[3, 90, 400, 800], 0],
        "encoder,\ntrained",
        "head:\n916 base classes",
        SLOTS[0],
    ),
    (
        0.6,
        "every\ntask",
        test.images[[5, 80, 200, 300], 0],
        "encoder,\nfrozen",
        "new head:\n5 novel classes",
        SLOTS[1],
    ),
)
for height, when, pictures, encoder_text, head_text, colour in rows:
    axis.text(0, height, when, fontweight="bold", va="center")
    for place, picture in enumerate(pictures):
        inset = axis.inset_axes(
            (0.9 + 0.66 * place, height - 0.3, 0.6, 0.6), transform=axis.transData
        )
        draw_image(inset, picture)
    for middle, text, filled in (
        (5.0, encoder_text, "#E4E4E4"),
        (7.5, head_text, "white"),
    ):
        box = {
            "boxstyle": "round,pad=0.6",
            "facecolor": filled,
            "edgecolor": colour,
            "linewidth": 2,
        }
        axis.text(middle, height, text, ha="center", va="center", fontsize=9, bbox=box)
    for start, end in ((3.65, 4.3), (5.7, 6.35)):
        axis.annotate(
            "", (end, height), (start, height), arrowprops={"arrowstyle": "->"}
        )
axis.annotate(
    "", (5.0, 1.05), (5.0, 1.75), arrowprops={"arrowstyle": "->", "linestyle": "--"}
)
axis.text(5.1, 1.4, "copy the weights", va="center", fontsize=9)
show(
    figure,
    "Two rows. Once: base letters pass an encoder that is trained, and a head for 916 "
    "base classes. For every task: novel letters pass the same encoder, copied and "
    "frozen, and a new head for five novel classes.",
)

# %% [markdown]
# ## The maths
#
# Pretraining is plain [cross-entropy](../lessons/GLOSSARY.md#cross-entropy "交叉熵") (CE) over $C$ base classes. A task's head may be linear too, or compare directions by [cosine](../lessons/GLOSSARY.md#cosine-similarity "余弦相似度"):
#
# $$\mathcal{L}(\phi, W, b) = \frac{1}{B} \sum_{i=1}^{B} \mathrm{CE}(W f_\phi(x_i) + b, \; y_i), \qquad y_i \in \{0, \dots, C-1\}$$
#
# $$p(y = k \mid x) = \frac{\exp(s \cos(f_\phi(x), w_k))}{\sum_{k'} \exp(s \cos(f_\phi(x), w_{k'}))}$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $z = f_\phi(x)$ | `z`, `support`, `query` | embeddings `[B, D]`, `[S, D]`, `[M, D]` |
# | $W$, $b$ | `weight`, `bias` | `[C, D]`, `[C]`; of a task `[N, D]`, `[N]` |
# | $w_k$ | `weight[k]`, `centres[k]` | `[D]` |
# | $s$ | `log_scale.exp()` | one number, the scale |

# %% [markdown]
# ## By hand
#
# Make rows unit length, then average:
#
# | class | support | unit rows | mean |
# |---|---|---|---|
# | 0 | (0, 5), (3, 4) | (0, 1), (0.6, 0.8) | (0.3, 0.9) |
# | 1 | (4, 3), (10, 0) | (0.8, 0.6), (1, 0) | (0.9, 0.3) |
#
# Query (6, 8) has direction (0.6, 0.8). Inner products 0.90 and 0.78; both means are $\sqrt{0.9}$ long: cosines 0.949 and 0.822.
# Now you: query (0.8, 0.6). Which class wins by cosine? By distance to the raw means (1.5, 4.5) and (7, 1.5)?

# %% tags=["nbval-check-output"]
# rows come shuffled
support = torch.tensor([[0.0, 5.0], [4.0, 3.0], [3.0, 4.0], [10.0, 0.0]])
support_y = torch.tensor([0, 1, 0, 1])
query = torch.tensor([[6.0, 8.0], [0.8, 0.6]])
unit_means = torch.tensor([[0.3, 0.9], [0.9, 0.3]])
raw_means = torch.tensor([[1.5, 4.5], [7.0, 1.5]])
cosines = torch.stack(
    [q @ unit_means.T / (q.norm() * unit_means.norm(dim=1)) for q in query]
)
for q, row in zip(query, cosines, strict=True):
    distances = (q - raw_means).square().sum(1)
    sharp = [f"{float((s * row).softmax(0).max()):.2f}" for s in (1, 10)]
    print(
        f"query {[round(v, 1) for v in q.tolist()]}: cosines "
        f"{[round(c, 3) for c in row.tolist()]}, class {int(row.argmax())} wins"
    )
    print(
        f"   by distance class {int(distances.argmin())}; probability of the winner "
        f"{sharp[0]}, with scale 10 {sharp[1]}"
    )

# %% [markdown]
# Distance punishes short rows, cosine sees directions only. But its [logits](../lessons/GLOSSARY.md#logits "对数几率") lie within −1 and 1: without a scale the probabilities stay near each other.
#
# ### Exercise 02.1  From slots back to base classes  (difficulty 1/5, 4 min)
#
# Pretraining wants *class numbers*, episodes carry slots. Return the class of every picture, episode after episode.
#
# | | shape | example |
# |---|---|---|
# | `classes`: who sits in which slot | `[T, N]` | (17, 4), (8, 17) |
# | `slots`, whole numbers below $N$ | `[T, S]` | (0, 1, 1), (1, 0, 0) |
# | returned | `[T*S]` | 17, 4, 4, 17, 8, 8 |


# %%
def base_targets(classes: Tensor, slots: Tensor) -> Tensor:
    """Class numbers of all pictures of T episodes.
    classes int64 [T, N], slots int64 [T, S] -> int64 [T*S].
    """
    # BEGIN SOLUTION
    looked_up = classes.gather(1, slots)  # [T, S], row by row
    return looked_up.flatten()
    # END SOLUTION


base_targets = check("02.1", base_targets)

# %% [markdown]
# ### Exercise 02.2  Nearest class mean by cosine  (difficulty 2/5, 7 min)
#
# The first classifier trains nothing. Make support rows unit length (`F.normalize(x, dim=1)` survives rows of zeros), average them class by class, return every query's cosine with every mean.
# Any order of rows, any shots.
#
# | `support` | `labels` | `query` | returned |
# |---|---|---|---|
# | `[S, D]` | `[S]`, every slot at least once | `[M, D]` | `[M, n_way]` |


# %%
def centroid_logits(
    support: Tensor, labels: Tensor, query: Tensor, n_way: int
) -> Tensor:
    """Cosines of queries with the class means of unit rows.
    support [S, D], labels [S], query [M, D] -> [M, n_way].
    """
    # BEGIN SOLUTION
    rows = F.normalize(support, dim=1)
    means = [rows[labels == k].mean(0) for k in range(n_way)]
    return F.normalize(query, dim=1) @ F.normalize(torch.stack(means), dim=1).T
    # END SOLUTION


centroid_logits = check("02.2", centroid_logits)

# %% [markdown]
# ## From a loop to a matrix product
#
# Membership is a table of zeros and ones, `[S, N]`. Its transpose times the unit rows sums every class at once. No division by the shots: sum and mean have the same direction.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(3)
# shots 2, 2 and 4
many = torch.randn(8, 5, generator=generator)
labels = torch.tensor([2, 0, 1, 2, 2, 1, 0, 2])
queries = torch.randn(6, 5, generator=generator)
unit = F.normalize(many, dim=1)
loop = torch.zeros(6, 3)
for m, q in enumerate(queries):  # one query and one class at a time
    for k in range(3):
        total = sum(row for row, y in zip(unit, labels.tolist(), strict=True) if y == k)
        loop[m, k] = q @ total / (q.norm() * total.norm())
member = F.one_hot(labels, 3).float()  # [S, N]
vectorised = F.normalize(queries, dim=1) @ F.normalize(member.T @ unit, dim=1).T
assert torch.allclose(loop, vectorised, atol=1e-6)
assert torch.allclose(centroid_logits(many, labels, queries, 3), vectorised, atol=1e-6)
assert torch.allclose(
    centroid_logits(many * 100, labels, queries * 0.01, 3), vectorised, atol=1e-6
)  # lengths do not matter
print("loop, matrix product and your function agree, whatever the lengths")

# %% [markdown]
# ### Exercise 02.3  A cosine classifier with a learned scale  (difficulty 2/5, 5 min)
#
# The second classifier learns directions *and* scale (Baseline++, Chen et al. 2019). A scale must stay positive, so its logarithm is learned: the scale is `log_scale.exp()`.
# Return scale times cosine; gradient must reach all three arguments.
#
# | `z` | `weight` | `log_scale` | returned |
# |---|---|---|---|
# | `[B, D]` | `[N, D]` | tensor with one number, `[]` | `[B, N]` |


# %%
def cosine_head(z: Tensor, weight: Tensor, log_scale: Tensor) -> Tensor:
    """exp(log_scale) times cosines. z [B, D], weight [N, D], log_scale [] -> [B, N]."""
    # BEGIN SOLUTION
    cosines = F.normalize(z, dim=1) @ F.normalize(weight, dim=1).T
    return log_scale.exp() * cosines
    # END SOLUTION


cosine_head = check("02.3", cosine_head)

# %% tags=["nbval-check-output"]
z, y = many.double().requires_grad_(), labels
weight = torch.randn(3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
log_scale = torch.tensor(10.0, dtype=torch.float64).log().requires_grad_()
# 1. The gradient is right: against central differences, in float64.
assert torch.autograd.gradcheck(
    lambda *a: F.cross_entropy(cosine_head(*a), y), (z, weight, log_scale)
)
# 2. A longer weight row changes nothing.
assert torch.allclose(
    cosine_head(z, 7 * weight, log_scale), cosine_head(z, weight, log_scale)
)
# 3. So the gradient of a row has no part along the row: it can only turn it.
slope = torch.autograd.grad(
    F.cross_entropy(cosine_head(z, weight, log_scale), y), weight
)[0]
print(
    "inner products of rows and their gradients:",
    [abs(round(v, 6)) for v in (slope * weight).sum(1).tolist()],
)
print("gradient, length and direction: three laws hold")

# %% [markdown]
# ### Exercise 02.4  One step of a linear head  (difficulty 3/5, 9 min)
#
# The third is a linear head, trained on the support. With $p_i$ the [softmax](../lessons/GLOSSARY.md#softmax "softmax 归一化") of row $i$, and $e_{y_i}$ its label as zeros and one 1:
#
# $$\frac{\partial \mathcal{L}}{\partial W} = \frac{1}{S} \sum_{i=1}^{S} (p_i - e_{y_i})\, z_i^\top, \qquad \frac{\partial \mathcal{L}}{\partial b} = \frac{1}{S} \sum_{i=1}^{S} (p_i - e_{y_i})$$
#
# Return the head after one step downhill of size `lr`, as new tensors.
#
# | `weight` | `bias` | `z` | `labels` | returned |
# |---|---|---|---|---|
# | `[N, D]` | `[N]` | `[S, D]` | `[S]` | new `weight`, new `bias` |


# %%
def head_step(
    weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, lr: float
) -> tuple[Tensor, Tensor]:
    """One gradient step on the mean cross-entropy.
    weight [N, D], bias [N], z [S, D], labels [S] -> weight, bias.
    """
    # BEGIN SOLUTION
    probabilities = (z @ weight.T + bias).softmax(1)  # [S, N]
    error = probabilities - F.one_hot(labels, len(bias)).to(z)
    return weight - lr * error.T @ z / len(z), bias - lr * error.mean(0)
    # END SOLUTION


head_step = check("02.4", head_step)

# %% [markdown]
# ## Meet the package
#
# `fit_linear` repeats your step, from zeros. `fit_probe` adds a penalty and goes to the minimum: a [linear probe](../lessons/GLOSSARY.md#linear-probe "线性探针").
# `fit_cosine` moves your cosine head, from the class means.

# %%
head = torch.zeros(3, 5), torch.zeros(3)
for _ in range(100):
    head = head_step(*head, unit, labels, lr=0.1)
theirs = package.fit_linear(unit, labels, 3, steps=100, lr=0.1)
assert all(
    torch.allclose(mine, other, atol=1e-5)
    for mine, other in zip(head, theirs, strict=True)
)
network = TransferNetwork(nn.Flatten(), n_base=3, classifier="centroid", features=5)
assert torch.allclose(
    network.score(many, labels, queries, 3),
    centroid_logits(many, labels, queries, 3),
    atol=1e-6,
)
# no step: the class means
started = package.fit_cosine(many, labels, 3, scale=10.0, steps=0)
assert torch.allclose(
    cosine_head(queries, started, torch.tensor(0.0)),
    centroid_logits(many, labels, queries, 3),
    atol=1e-6,
)
print(
    "100 of your steps are the package's fit_linear; its cosine head starts at your "
    "class means\n"
)
print(inspect.getsource(TransferNetwork.score))

# %% [markdown]
# ## Train for real
#
# Pretraining is classification: `training_step` takes all pictures of an episode, with class numbers as you made them. A linear head (Baseline) and a cosine head (Baseline++), on every fourth base letter.
# Accuracy: class means on [novel](../lessons/GLOSSARY.md#novel-classes "新类") validation letters, 20-way.

# %%
few, briefly = train.select(range(0, len(train), 4)), {}
practice = EpisodeSampler(few, 20, 1, 5, seed=1)
trial = EpisodeSampler(val, 20, 1, 5, seed=3)
options = {
    "steps": 160,
    "lr": 3e-3,
    "validation": trial,
    "validate_every": 80,
    "validation_episodes": 20,
}
for head_name in ("linear", "cosine"):
    print(f"pretraining with a {head_name} head on {len(few)} base classes")
    torch.manual_seed(1)
    briefly[head_name] = TransferNetwork(conv4(32), n_base=len(few), head=head_name)
    fit(briefly[head_name], practice, **options)
scale = float(briefly["cosine"].head.log_scale.detach().exp())
print(f"the cosine head began with scale 10 and ends with {scale:.1f}")
learners = {"never trained": random_conv4(1, width=32)} | {
    f"{name} head": net for name, net in briefly.items()
}
for name, learner in learners.items():
    print(f"{name:14s} {evaluate(learner, one_shot, episodes=100)}")

# %%
# your functions inside the package's training step
stack, net = practice.batch(0, 2), briefly["cosine"]
pictures = torch.cat([stack.support_x, stack.query_x], dim=1).flatten(0, 1)
targets = base_targets(
    stack.classes, torch.cat([stack.support_y, stack.query_y], dim=1)
)
with torch.no_grad():
    mine = F.cross_entropy(
        cosine_head(net.embed(pictures), net.head.weight, net.head.log_scale), targets
    )
    assert torch.allclose(mine, net.training_step(stack), atol=1e-4)
print(
    "your loss of a pretraining batch is the package's:",
    tuple(pictures.shape),
    "->",
    targets[:5].tolist(),
    "...",
)

# %% [markdown]
# A plain baseline that many papers leave out is SimpleShot (Wang et al. 2019). It takes the features of the linear head, subtracts the mean embedding of all base letters, scales every vector to length one, and names the nearest class mean.
# At one shot that is your `centroid_logits` after one subtraction. Is the subtraction worth anything here?

# %%
from fsl_course.methods.simple_shot import SimpleShot

plain = briefly["linear"]
centred = SimpleShot(plain.encoder, n_base=0).eval()  # needs no head any more
with torch.no_grad():
    centred.after_training(practice)  # embeds all 229 base letters, keeps their mean
as_they_are = evaluate(plain, one_shot, episodes=400)
with_mean = evaluate(centred, one_shot, episodes=400)
print("as they are:", as_they_are)
print("centred:    ", with_mean)
print("centred minus as they are:", compare(with_mean, as_they_are))

# %% [markdown]
# Not for this net: it costs about one point. That is one training seed, and a net that trained for 160 steps, so it says nothing about SimpleShot elsewhere.
# The paper reports gains, with larger nets on photographs. A trick from a paper is worth what it brings on *your* data; on Omniglot it has a row of its own in the [results](../book/results.md).

# %% [markdown]
# ## The shipped nets, and a fair choice
#
# Two shipped nets saw 3,000 batches of 180 pictures of the 916 base letters: one pretrained as above, one [meta-learned](../lessons/GLOSSARY.md#meta-learning "元学习"), the net of lesson 05.
#
# Which classifier for which? Choosing by test accuracy would flatter: choose on *validation* letters.

# %%
features, meta = pretrained("transfer", "glyphs"), pretrained("prototypical", "glyphs")
nets = {"copied features": features, "meta-learned": meta}
heads = {"squared distance": meta.score}  # the rule of lesson 05: nearest class mean
for name in package.CLASSIFIERS:
    twin = copy.copy(features)  # the same weights, another classifier
    twin.classifier = name
    heads[name] = twin.score


def judge(
    score: Callable, table: Tensor, sampler: EpisodeSampler, episodes: int = 400
) -> Result:
    """What evaluate does, for pictures that are embedded already.
    table: [C*n, D], a row for each drawing.
    """
    drawn = sampler.layout(0, episodes)
    logits = score(
        table[drawn.support], drawn.support_y, table[drawn.query], sampler.n_way
    )
    right = (logits.argmax(-1) == drawn.query_y).double().mean(-1)
    return Result(
        *mean_and_ci95(right),
        right,
        "accuracy",
        False,
        f"{sampler.key}, episodes 0..{episodes - 1}",
    )


# %%
chosen = {}
for net_name, net in nets.items():
    table = embed_all(net, val.images.flatten(0, 1))
    for shot in (1, 5):
        sampler = EpisodeSampler(val, 5, shot, 5, seed=5)
        found = {
            name: judge(score, table, sampler).mean for name, score in heads.items()
        }
        best = chosen[net_name, shot] = max(found, key=found.get)
        print(
            f"{net_name}, {shot} shot: "
            + ", ".join(f"{name} {mean:.1%}" for name, mean in found.items())
        )
        print(f"   chosen: {best}")

# %% [markdown]
# ## Evaluate honestly: what to do with features
#
# Test letters, every row on the same episodes. [Fine-tuning](../lessons/GLOSSARY.md#fine-tuning "微调") *all* weights is slow: 20 episodes at one shot, in pairs with class means on just those.
# Predict: all 111,680 pretrained weights free to move. Better or worse than frozen?

# %%
flat = test.images.flatten(0, 1)  # [8160, 1, 28, 28]
tables = {
    name: embed_all(net, flat)
    for name, net in (*nets.items(), ("random", random_conv4()))
}
tables["pixels"] = flat.flatten(1).float() / 255
pixels = PixelNearestNeighbour("cosine")
players = {
    f"copied, {name}": (heads[name], "copied features") for name in package.CLASSIFIERS
}
players |= {
    "random features, centroid": (heads["centroid"], "random"),
    "pixels, cosine": (pixels.score, "pixels"),
}
five_shot = EpisodeSampler(test, n_way=5, k_shot=5, n_query=5, seed=7)

# %%
print(f"{'':27s}1 shot          5 shots")
results = {}
for name, (score, table) in players.items():
    results[name], more = (
        judge(score, tables[table], sampler) for sampler in (one_shot, five_shot)
    )
    print(
        f"{name:26s} {results[name].mean:.1%} ± {results[name].ci95:.1%}   "
        f"{more.mean:.1%} ± {more.ci95:.1%}"
    )

# %%
torch.set_num_threads(1)
tuned = evaluate(FineTuneAll(features.encoder, steps=50), one_shot, episodes=20)
torch.set_num_threads(threads)
frozen = judge(heads["centroid"], tables["copied features"], one_shot, episodes=20)
copying = judge(pixels.score, tables["pixels"], one_shot, episodes=20)
last = curves[1, :, -1]  # player A, from scratch
alone = Result(*mean_and_ci95(last), last, "accuracy", False, copying.episodes_key)
print("all fine-tuned minus frozen:", compare(tuned, frozen))
print("from scratch minus pixels:  ", compare(alone, copying))

# %%
rows = {
    **results,
    "copied, all fine-tuned (20 episodes)": tuned,
    "from scratch (20 episodes)": alone,
}
rows = {name: (found.mean, found.ci95) for name, found in rows.items()}
told = ", ".join(f"{name} {mean:.0%}" for name, (mean, _) in rows.items())
show(
    intervals(rows, chance=0.2),
    f"5-way 1-shot accuracy on test letters with 95 % intervals: {told}. Dashed: "
    "chance.",
)

# %% [markdown]
# **The puzzle.** A and B end near one half; C is far ahead, with any small head. Fine-tuning all weights, at this rate, is worse: they bend to five pictures.
#
# ## The real question: does learning to learn beat good features?
#
# Same architecture, letters and number of training pictures; each with the classifier that validation chose. Will the gap grow or shrink with shots?

# %%
settings = {"5-way 1-shot": (5, 1), "5-way 5-shot": (5, 5), "20-way 1-shot": (20, 1)}
figure, axis = new(7.5, 2.6)
told = []
for place, (name, (n_way, shot)) in enumerate(settings.items()):
    sampler, pair = EpisodeSampler(test, n_way, shot, 5, seed=7), {}
    for slot, net_name in enumerate(nets):
        head_name = chosen[net_name, shot]
        pair[net_name] = judge(heads[head_name], tables[net_name], sampler)
        found = pair[net_name]
        axis.errorbar(
            found.mean,
            place + 0.15 * (0.5 - slot),
            xerr=found.ci95,
            capsize=4,
            linestyle="",
            label=None if place else net_name,
            **slot_style(slot),
        )
        print(f"{name}, {net_name}, {head_name}: {found.mean:.1%} ± {found.ci95:.1%}")
        told.append(f"{name}, {net_name} {found.mean:.1%}")
    print(
        "   meta-learned minus copied:",
        compare(pair["meta-learned"], pair["copied features"]),
    )
axis.set(yticks=range(3), yticklabels=settings, xlabel="accuracy", ylim=(2.5, -0.5))
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
show(
    figure,
    f"Accuracy of both nets with 95 % intervals in three settings: {'; '.join(told)}.",
)

# %% [markdown]
# At one shot learning to learn is ahead; at five the two are not separated. *You may not claim more*: one training seed, one small net, one data set. On photographs, larger nets pretrained plainly have kept up (Chen et al. 2019; Tian et al. 2020).
#
# ## Domain shift: icons
#
# Both nets know handwriting only. Now 300 icons: alarm clocks, umbrellas, planes. Order them: copied, meta-learned, random features, pixels.

# %%
icons = load_icons()
for source in (test, icons):
    print(
        f"{source.name}: {float(source.images.float().mean() / 255):.0%} of a picture "
        "is ink"
    )
flat = icons.images.flatten(0, 1)  # [6000, 1, 28, 28]
icon_tables = {
    name: embed_all(net, flat)
    for name, net in (*nets.items(), ("random", random_conv4()))
}
icon_tables["pixels"] = flat.flatten(1).float() / 255
players = {f"{name}, centroid": (heads["centroid"], name) for name in (*nets, "random")}
players["copied features, cosine head"] = heads["cosine"], "copied features"
players |= {
    "pixels, cosine head": (heads["cosine"], "pixels"),
    "pixels, nearest": (pixels.score, "pixels"),
}
for shot in (5, 1):
    sampler = EpisodeSampler(icons, 5, shot, 5, seed=7)
    found = {
        name: judge(score, icon_tables[table], sampler, 300)
        for name, (score, table) in players.items()
    }
    print(f"{shot} shot, and pixels minus the row, paired")
    for name, row in found.items():
        gap = compare(found["pixels, nearest"], row)
        minus = f"{gap.mean:+.1%} ± {gap.ci95:.1%}" if name != "pixels, nearest" else ""
        print(f"   {name:29s} {row.mean:.1%} ± {row.ci95:.1%}   {minus}")

# %%
rows = {name: (row.mean, row.ci95) for name, row in found.items()}
told = ", ".join(f"{name} {mean:.0%}" for name, (mean, _) in rows.items())
show(
    intervals(rows, chance=0.2),
    f"5-way 1-shot accuracy on icons with 95 % intervals: {told}. Dashed: chance.",
)

# %% [markdown]
# [Domain shift](../lessons/GLOSSARY.md#domain-shift "域偏移"): a net learns what tells *its* classes apart and learns to overlook the rest. Letters are thin strokes; icons are centred shapes with filled areas, which pixels compare directly. The meta-learned net even trails random features.
# At five shots a fitted head finds what features still hold.
#
# ## Features from photographs
#
# ResNet-18 was trained on a million photographs. Where its weights are missing, the cell says so and goes on.

# %%
few_icons = EpisodeSampler(icons, 5, 1, 2, seed=7)
try:
    photographs = TransferNetwork(photograph_encoder(), n_base=1, features=512)
except (ImportError, FileNotFoundError) as word:
    print("not here, and nothing below needs it:", word)
else:
    seen = evaluate(photographs, few_icons, episodes=40)
    beside = evaluate(pixels, few_icons, episodes=40)
    print("photographs, nearest class mean:", seen)
    print("minus pixels:", compare(seen, beside))

# %% [markdown]
# ## Your own pictures
#
# `load_folder` reads one folder for each class. Six pictures of each of five shapes, drawn here, stand in for yours; size, place and colour vary.
# Grey fits the shipped net. Colour at 84×84 takes the Conv4 of the miniImageNet papers, $64 \times 5 \times 5 = 1600$ features, untrained here: training needs base classes in colour.

# %%
shapes = {
    "triangle": (3, 0.5),
    "square": (4, 0.71),
    "disc": (30, 1),
    "star": (5, 0.4),
    "spark": (4, 0.3),
}
dice = np.random.default_rng(2)
with tempfile.TemporaryDirectory() as place:
    folder = Path(place) / "shapes"
    for name, (corners, inner) in shapes.items():
        (folder / name).mkdir(parents=True)
        for number in range(6):
            picture = Image.new("RGB", (100, 100), "white")
            colour = tuple(int(v) for v in dice.integers(0, 170, 3))
            radius, turn, x, y = dice.uniform((20, -0.3, 38, 38), (34, 0.3, 62, 62))
            # outer and inner corners by turns
            angle = np.pi * np.arange(2 * corners) / corners + turn
            length = radius * np.where(np.arange(2 * corners) % 2, inner, 1)
            points = zip(
                x + length * np.sin(angle), y - length * np.cos(angle), strict=True
            )
            ImageDraw.Draw(picture).polygon(list(points), fill=colour)
            picture.save(folder / name / f"{number}.png")
    grey = load_folder(folder, size=28)
    coloured = load_folder(folder, size=84, channels=3)

# %%
wide = TransferNetwork(conv4(in_channels=3), n_base=5, features=1600).eval()
for source, net in ((grey, features), (coloured, wide)):
    with torch.no_grad():
        print(
            source,
            "-> embeddings",
            tuple(net.embed(source.images[:, 0].float() / 255).shape),
        )
    for name, learner in (("pixels", pixels), ("features", net)):
        found = evaluate(
            learner,
            EpisodeSampler(source, n_way=5, k_shot=1, n_query=5, seed=1),
            episodes=100,
        )
        print(f"   {name:9s} {found.mean:.1%} ± {found.ci95:.1%}")

# %%
show(
    image_rows(
        [(name, coloured.images[k]) for k, name in enumerate(coloured.class_names)]
    ),
    "Five rows of six coloured shapes of different size, turn and place: disc, spark, "
    "square, star, triangle.",
)

# %% [markdown]
# All episodes deal the same 30 pictures: the intervals say nothing about others.
#
# ## Explore
#
# Predict, then change the first line.
#
# 1. Which head gains most from shots on icons?
# 2. With `test, tables`: which heads differ?
# 3. Why are all heads so close at one shot?
#
# <details><summary>Answers</summary>
#
# 1: the cosine head. Its scale of 10 lets 100 steps turn the class directions a good way; the linear head, with the same steps, stays near the class means.
# 2: hardly any: where the features fit, the classes lie apart already. Pixels fall far behind.
# 3: with one row for each class there is nothing to average or to weigh: every head ends near the support rows themselves.
#
# </details>

# %%
# or: test, tables, (1, 2, 5, 10)
source, table_of, shots = icons, icon_tables, (1, 2, 5, 10)
figure, axis = new(7.5, 3)
told = []
for slot, name in enumerate((*package.CLASSIFIERS, "pixels")):
    score = pixels.score if name == "pixels" else heads[name]
    table = table_of["pixels" if name == "pixels" else "copied features"]
    found = [
        judge(score, table, EpisodeSampler(source, 5, k, 5, seed=11), episodes=200)
        for k in shots
    ]
    axis.errorbar(
        shots,
        [r.mean for r in found],
        yerr=[r.ci95 for r in found],
        capsize=3,
        label=name,
        **slot_style(slot),
    )
    told.append(f"{name} " + ", ".join(f"{r.mean:.0%}" for r in found))
axis.set(xlabel="shots K", ylabel="accuracy", xticks=shots)
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
print("\n".join(told))
show(
    figure,
    f"5-way accuracy against {shots} shots on {source.name}, with 95 % intervals: "
    f"{'; '.join(told)}.",
)

# %% [markdown]
# ## Bug hunt
#
# The symptom: a colleague fine-tunes the same net, same rate, same 20 steps. Her first episode agrees with ours; her average is far lower, and changes when the episodes come backwards.

# %%
shared = copy.deepcopy(features.encoder)  # our weights stay as they are


def colleague(episode: Episode) -> Tensor:
    """Fine-tunes encoder and a new head on the support
    -> logits of the queries [M, N].
    """
    head = nn.Linear(64, episode.n_way)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    solver = torch.optim.Adam([*shared.parameters(), *head.parameters()], lr=1e-3)
    for _ in range(20):
        solver.zero_grad()
        F.cross_entropy(head(shared(episode.support_x)), episode.support_y).backward()
        solver.step()
    with torch.no_grad():
        return head(shared(episode.query_x))


# %%
def accuracies(predict: Callable, order: range) -> Tensor:
    """Accuracy of every episode, in the order in which they are asked. -> [E]"""
    right = [
        (predict(one_shot[i]).argmax(1) == one_shot[i].query_y).double().mean()
        for i in order
    ]
    return torch.stack(right)


# %%
torch.set_num_threads(1)
ours = accuracies(FineTuneAll(features.encoder, steps=20), range(20))
hers = accuracies(colleague, range(20))
shared.load_state_dict(features.encoder.state_dict())
backwards = accuracies(colleague, range(19, -1, -1))
print(
    f"episode 0: ours {ours[0]:.0%}, hers {hers[0]:.0%}, hers when it comes last "
    f"{backwards[-1]:.0%}"
)
print(
    f"20 episodes: ours {ours.mean():.1%}, hers {hers.mean():.1%}, hers backwards "
    f"{backwards.mean():.1%}"
)

# %% [markdown]
# ### Exercise 02.5  Bug hunt: does an episode remember the one before?  (difficulty 3/5, 10 min)
#
# Write the test first. Return `True` when asking for `second` in between changes the logits of `first`, else `False`. It must ring even where the same episode twice in a row shows nothing.
#
# | you need | |
# |---|---|
# | `predict(episode)` | logits `[M, N]` |
# | `torch.allclose(a, b, rtol=1e-3, atol=1e-4)` | equal but for rounding |


# %%
def exposes_memory(predict, first: Episode, second: Episode) -> bool:
    """True when predicting `second` changes the logits of `first`.
    predict: Episode -> logits [M, N].
    """
    # BEGIN SOLUTION
    before = predict(first)
    predict(second)
    after = predict(first)
    return not torch.allclose(before, after, rtol=1e-3, atol=1e-4)
    # END SOLUTION


exposes_memory = check("02.5", exposes_memory)
print(
    "the colleague's code remembers:",
    exposes_memory(colleague, one_shot[0], one_shot[1]),
)

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# Every call makes a new head, but trains the one `shared` encoder in place. Episode 1 starts from episode 0's weights, and so on: after 20 episodes it has been bent to 100 pictures of other letters.
# Loops like this stand in many tutorials; in a well-known library a call of the fine-tuning method changes its own class prototypes (easyfsl, `methods/finetune.py`).
#
# </details>
#
# The cure: fresh weights for every episode. The package trains a copy.

# %%
shared.load_state_dict(features.encoder.state_dict())
print(
    *[
        line.strip()
        for line in inspect.getsource(FineTuneAll.adapt).splitlines()
        if "detach().clone()" in line
    ]
)


# %%
def cured(episode: Episode) -> Tensor:
    """The colleague's function, each time with fresh weights."""
    shared.load_state_dict(features.encoder.state_dict())
    return colleague(episode)


assert exposes_memory(colleague, one_shot[0], one_shot[1])
assert not exposes_memory(cured, one_shot[0], one_shot[1])
assert not exposes_memory(
    FineTuneAll(features.encoder, steps=20), one_shot[0], one_shot[1]
)
forwards, backwards = accuracies(cured, range(4)), accuracies(cured, range(3, -1, -1))
torch.set_num_threads(threads)
assert torch.equal(forwards, backwards.flip(0))
print("cured: four episodes forwards and backwards give the same accuracies")

# %% [markdown]
# ## Quiz
#
# **1. From scratch, all five support pictures are right. What follows?**
# (a) the features are good, (b) little, (c) the rate was too high
#
# <details><summary>Answer</summary>
#
# (b). 110,000 weights can separate five pictures in countless ways, most of them useless for new drawings. (a) the query curve says no. (c) any rate that trains gets there; another rate does not add pictures.
#
# </details>
#
# **2. Embeddings become ten times as long. Which logits change?**
# (a) class means by cosine, (b) a linear head, (c) both
#
# <details><summary>Answer</summary>
#
# (b). Its logits grow with the length, and so do its gradients: the rate no longer fits. (a) sees directions only, which also rules out (c). The package normalises before its linear heads for this reason.
#
# </details>
#
# **3. Someone takes the best of four heads by test accuracy. Wrong?**
# (a) no, (b) yes: it flatters, (c) yes: the interval is too wide
#
# <details><summary>Answer</summary>
#
# (b). The best of four has partly been lucky on these very episodes. Choose on validation classes. (a) overlooks that luck. (c) the interval does not know about the choice; if anything it is too narrow.
#
# </details>

# %% [markdown]
# **4. On icons, pixels beat a net trained on letters. What follows?**
# (a) the net is broken, (b) pixels are the better method, (c) letters and icons want different features
#
# <details><summary>Answer</summary>
#
# (c). On letters the same net is far ahead, against (a); so (b) holds for one domain and few shots only.
#
# </details>
#
# **5. At one shot the meta-learned net won, paired interval without 0. You may say:**
# (a) meta-learning beats transfer, (b) these weights beat those on such episodes, (c) another seed would agree
#
# <details><summary>Answer</summary>
#
# (b). The interval covers the choice of episodes. (a) needs more nets, data sets and recipes, (c) more training seeds.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | from scratch | fits the support, learns nothing: pixels do as well |
# | copied features | pretrain on base classes, freeze, class means by cosine: the baseline to beat |
# | any claim | same episodes, head chosen on validation classes, pixels and random features beside it |
#
# Pitfalls: fine-tuning everything on five pictures; weights shared between episodes; numbers carried to another domain. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Chen et al. (2019), *A Closer Look at Few-shot Classification*, sections 3.1 and 3.2 | Baseline, Baseline++; domain shift in section 4 |
# | Qi et al. (2018), *Low-Shot Learning with Imprinted Weights* | class means as weights of a cosine head |
# | Tian et al. (2020), *Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?* | pretraining and a linear probe against meta-learning |

# %% [markdown]
# ### Exercise 02.6 ★  Imprinted weights  (difficulty 2/5, 6 min)
#
# An extra: let a head name old classes *and* new ones, without training ([imprinting](../lessons/GLOSSARY.md#imprinting "权重印记")). Below the $C$ old rows put the $N$ means of the unit support rows; return all rows with unit length.
#
# <details><summary>Why the old letters fare as they do: open it after you have run the cell</summary>
#
# The rows of a head that was trained by inner products make smaller cosines than class means do: the new classes swallow everything. Imprint onto a head that was trained by cosine, or let means stand for the old classes, too.
# The old drawings took part in pretraining, so the numbers of the old letters flatter.
#
# </details>
#
# | `weight` | `support` | `labels` | returned |
# |---|---|---|---|
# | `[C, D]` | `[S, D]` | `[S]`, slots 0 to `n_way - 1` | `[C + n_way, D]` |


# %%
def imprint(weight: Tensor, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """A cosine head grown by n_way classes.
    weight [C, D], support [S, D], labels [S] -> unit rows [C+n_way, D].
    """
    # BEGIN SOLUTION
    rows = F.normalize(support, dim=1)
    means = torch.stack([rows[labels == k].mean(0) for k in range(n_way)])
    return F.normalize(torch.cat([weight, means]), dim=1)
    # END SOLUTION


imprint = check("02.6", imprint)
# 115 old letters: five drawings for a mean, two to be asked about
some = torch.arange(0, 916, 8)
drawings = embed_all(features, train.images[some, :7].flatten(0, 1)).view(
    len(some), 7, 64
)
asked = F.normalize(drawings[:, 5:].flatten(0, 1), dim=1)
truth = torch.arange(len(some)).repeat_interleave(2)
means = F.normalize(drawings[:, :5], dim=2).mean(1)
drawn = EpisodeSampler(test, 5, 5, 5, seed=3).layout(0, 40)
z = tables["copied features"]
for name, old in (
    ("rows of the linear head", features.head.weight.detach()[some]),
    ("class means", means),
):
    hits = []
    for e in range(40):
        grown = imprint(old, z[drawn.support[e]], drawn.support_y[e], 5)  # [120, 64]
        new_right = (F.normalize(z[drawn.query[e]], dim=1) @ grown.T).argmax(1) == len(
            old
        ) + drawn.query_y[e]
        logits = asked @ grown.T
        pair = logits[:, : len(old)].argmax(1) == truth, logits.argmax(1) == truth
        hits.append(torch.stack([h.float().mean() for h in (*pair, new_right)]))
    before, after, new_right = torch.stack(hits).mean(0).tolist()
    print(
        f"old rows are {name}: old letters {before:.0%} before, {after:.0%} after; new "
        f"ones {new_right:.0%}"
    )

# %% [markdown]
# ### Exercise 02.7 ★  The probe's objective  (difficulty 2/5, 6 min)
#
# On few pictures cross-entropy has no minimum: the weights grow for ever. A penalty gives it exactly one. With $\mathcal{L}$ the mean cross-entropy of `z` `[S, D]` and $\lambda$ = `l2`, return
#
# $$\mathcal{L}(W, b) + \tfrac{\lambda}{2} \left(\|W\|^2 + \|b\|^2\right)$$


# %%
def probe_objective(
    weight: Tensor, bias: Tensor, z: Tensor, labels: Tensor, l2: float
) -> Tensor:
    """Mean cross-entropy + l2/2 (|W|^2 + |b|^2).
    weight [N, D], bias [N], z [S, D], labels [S] -> scalar.
    """
    # BEGIN SOLUTION
    squares = weight.square().sum() + bias.square().sum()
    return F.cross_entropy(z @ weight.T + bias, labels) + l2 / 2 * squares
    # END SOLUTION


probe_objective = check("02.7", probe_objective)

# %%
solved = [t.requires_grad_() for t in package.fit_probe(unit, labels, 3, l2=0.01)]
slopes = torch.autograd.grad(probe_objective(*solved, unit, labels, 0.01), solved)
print(
    "steepest slope where the package stops: "
    f"{max(float(s.abs().max()) for s in slopes):.6f}"
)
for l2 in (1.0, 0.1, 0.01, 0.001):
    w, b = package.fit_probe(unit, labels, 3, l2=l2)
    print(
        f"l2 {l2:5.3f}: length of the weights {float(w.norm()):6.2f}, loss "
        f"{float(probe_objective(w, b, unit, labels, 0)):.3f}"
    )
progress("02")
