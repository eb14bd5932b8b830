# %% [markdown]
# # 01 Episodes: deal fair tasks and measure honestly
#
# You write the sampler on which every later lesson stands, catch three leaks, and learn when a difference between two methods counts.
#
# Prerequisites: [lesson 00](../notebooks/00_start.ipynb). Planned time: 90 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** Which two sets does an episode hold, and from which may a learner learn?
#
# <details><summary>Answer</summary>
#
# It holds a support set with labels, from which the learner may learn, and a query set, on which it is judged. A query's label is never shown to the learner.
#
# </details>
#
# **2.** Why was one episode not enough to judge the classifier of lesson 00?
#
# <details><summary>Answer</summary>
#
# Its letters may happen to be easy or hard. Only the mean over hundreds of episodes, with an interval, says how good the method is.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **turn** class ids into label slots (exercise 01.1),
# 2. **draw** episodes without leaks and without a loop (exercises 01.2, 01.3),
# 3. **compute** an interval and the episodes it needs (exercises 01.4, 01.6),
# 4. **show** what stopping at the first separation does (exercise 01.7),
# 5. **write** a test for leaked splits, and say how likely it is to ring (exercise 01.5, which comes last).

# %% [markdown]
# ## A puzzle: the blind player
#
# A game has 64 classes with the ids 0 to 63. Each round picks 5 at random, **sorts** them by id and numbers them 0 to 4.
# A player that has watched many rounds sees no picture. It is told one of the five ids and must say the number of that class.
#
# Write down how often it is right: 20 %, 35 %, 50 % or 80 %? And if the five are numbered in random order?

# %%
import inspect
import math
from dataclasses import replace

import torch
from scipy.special import stdtrit
from torch import Tensor

from fsl_classroom import check, progress
from fsl_course import Episode, EpisodeSampler, ImageSet, compare, evaluate, load_glyphs
from fsl_course.evaluation import mean_and_ci95
from fsl_course.figures import (
    CHANCE,
    SLOTS,
    episode_grid,
    image_rows,
    intervals,
    new,
    show,
    slot_style,
)
from fsl_course.methods.baselines import PixelNearestNeighbour, baselines

torch.manual_seed(0)
glyphs = load_glyphs()
train, test = glyphs.split("train"), glyphs.split("test")

# %% [markdown]
# ## The idea in one picture
#
# An [episode](../lessons/GLOSSARY.md#episode "情景") is one small [task](../lessons/GLOSSARY.md#task "任务"):
# $N$ classes (the [way](../lessons/GLOSSARY.md#way "类别数")) sit in [label slots](../lessons/GLOSSARY.md#label-slot "标签槽位") 0 to $N-1$.
# The framed [support set](../lessons/GLOSSARY.md#support-set "支持集") holds $K$ pictures of each class (the [shot](../lessons/GLOSSARY.md#shot "样本数"));
# the pictures of the [query set](../lessons/GLOSSARY.md#query-set "查询集") are to be named. The learner gets the rows shuffled, as the printed slots show.

# %%
episode = EpisodeSampler(test, n_way=4, k_shot=2, n_query=3, seed=5)[0]
show(
    episode_grid(episode, names=test.class_names),
    "A 4-way 2-shot episode with 3 queries for each class. Four rows, one for each "
    "slot: two framed support drawings on the left, three query drawings of the same "
    "class on the right.",
)
print("support", tuple(episode.support_x.shape), "slots", episode.support_y.tolist())
print("query  ", tuple(episode.query_x.shape), "slots", episode.query_y.tolist())

# %% [markdown]
# ## Base classes and novel classes
#
# A learner practises on [base classes](../lessons/GLOSSARY.md#base-classes "基类") and is judged on [novel classes](../lessons/GLOSSARY.md#novel-classes "新类").
# So a [split](../lessons/GLOSSARY.md#split "数据划分") divides the *classes*, never the drawings of a class. Here it divides whole alphabets, because their letters share a style. The third part, `val`, serves for choices such as when to stop training.

# %%
for name in ("train", "val", "test"):
    part = glyphs.split(name)
    print(f"{name:5s} {len(part):4d} classes in {len(set(part.groups)):2d} alphabets")
rows = [(f"base\n{train.groups[c]}", train.images[c : c + 8, 0]) for c in (0, 200)]
rows += [(f"novel\n{test.groups[c]}", test.images[c : c + 8, 0]) for c in (0, 100)]
show(
    image_rows(rows),
    "Two rows of letters from training alphabets and two rows from test alphabets; no "
    "letter is shared.",
)

# %% [markdown]
# ## Why episodes?
#
# The test deals small tasks with new classes, so a learner that was trained to name 916 fixed letters has practised something else. Vinyals et al. (2016) therefore practise under the conditions of the test, on many small tasks. That is [meta-learning](../lessons/GLOSSARY.md#meta-learning "元学习"), and lesson 02 challenges it: does it beat ordinary training?
#
# An episode is two sets, and its accuracy $a_e$ is the share of queries whose predicted label $\hat y$ is right:
#
# $$\mathcal{S} = \{(x_i, y_i)\}_{i=1}^{NK}, \qquad \mathcal{Q} = \{(x_j, y_j)\}_{j=1}^{NQ}$$
#
# $$a_e = \frac{1}{NQ} \sum_{(x, y) \in \mathcal{Q}} [\hat y(x; \mathcal{S}) = y]$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $N$, $K$, $Q$ | `n_way`, `k_shot`, `n_query` | whole numbers |
# | $\mathcal{S}$ | `support_x`, `support_y` | `[N*K, 1, 28, 28]`, `[N*K]` |
# | $\mathcal{Q}$ | `query_x`, `query_y` | `[N*Q, 1, 28, 28]`, `[N*Q]` |
# | $y$, $\hat y$ | `query_y`, `predicted` | `[N*Q]`, slots $0 \dots N-1$ |
# | $a_e$ | `per_episode[e]` | accuracy of episode $e$, a fraction; the bracket is 1 where it holds, else 0 |

# %% [markdown]
# ## By hand
#
# Take points for pictures, and let the nearest support point decide. Class 17 has (1, 1) and (2, 1), and class 4 has (5, 4) and (4, 5).
# The query (3, 2) belongs to class 4. Its squared distances to the four points are 5, 2, 8 and 10, so the second point wins, which is a mistake.
#
# Now swap the slots of the two classes. Do the predictions change? Does the accuracy?

# %% tags=["nbval-check-output"]
support = torch.tensor([[1.0, 1.0], [2.0, 1.0], [5.0, 4.0], [4.0, 5.0]])
query = torch.tensor([[2.0, 2.0], [4.0, 3.0], [3.0, 2.0]])  # of classes 17, 4, 4
for classes in ([17, 4], [4, 17]):
    support_y = torch.tensor([classes.index(c) for c in (17, 17, 4, 4)])
    query_y = torch.tensor([classes.index(c) for c in (17, 4, 4)])
    nearest = (query[:, None] - support).square().sum(2).argmin(1)
    predicted = support_y[nearest]
    hits = int((predicted == query_y).sum())
    print(
        f"slots of classes {classes}: predicted {predicted.tolist()}, truth "
        f"{query_y.tolist()}, right {hits} of 3"
    )

# %% [markdown]
# The predicted slots change, because a slot is only a name. The accuracy stays at two of three, because the truth is renamed with them. So slots may be dealt at random without harm to a learner that compares.
#
# ### Exercise 01.1  From class ids to label slots  (difficulty 1/5, 5 min)
#
# An episode knows its classes by id, a learner by slot. For each id, return the position at which it stands in `classes`. A loop is fine.
#
# | | shape | example |
# |---|---|---|
# | `class_ids` | `[M]` | 4, 17, 17, 4 |
# | `classes`: who sits in slot 0, 1, ... | `[N]` | 17, 4 |
# | returned: slots, whole numbers | `[M]` | 1, 0, 0, 1 |


# %%
def to_slots(class_ids: Tensor, classes: Tensor) -> Tensor:
    """Label slots.
    class_ids int64 [M], every one of them in classes int64 [N] -> int64 [M] in 0..N-1.
    """
    # BEGIN SOLUTION
    table = class_ids[:, None] == classes  # [M, N], one True in each row
    return table.int().argmax(1)
    # END SOLUTION


to_slots = check("01.1", to_slots)

# %% [markdown]
# ### Exercise 01.2  Draw one episode  (difficulty 2/5, 8 min)
#
# Deal the *numbers* of classes and drawings. `torch.randperm(6, generator=generator)` is one shuffle of 0 to 5.
# Hand `generator` to *every* random call, because its [seed](../lessons/GLOSSARY.md#seed "随机种子") then fixes the episode.
#
# | return | shape | whole numbers |
# |---|---|---|
# | `classes` | `[N]` | below `n_classes`, distinct, in random order |
# | `support` | `[N, K]` | below `n_drawings`; row $i$ belongs to the $i$-th chosen class, `classes[i]` |
# | `query` | `[N, Q]` | below `n_drawings`, of the same classes; no drawing of a class is dealt twice, in support and query together |
#
# **Every choice must be equally likely**: every set of classes, in every order, and for each class on its own every set of drawings. `check` deals hundreds of episodes and counts.


# %%
def draw_episode(
    n_classes: int,
    n_drawings: int,
    n_way: int,
    k_shot: int,
    n_query: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """One episode by number -> classes int64 [N], support int64 [N, K], query int64
    [N, Q] (drawings of class classes[i]).
    """
    # BEGIN SOLUTION
    classes = torch.randperm(n_classes, generator=generator)[:n_way]
    shuffled = [torch.randperm(n_drawings, generator=generator) for _ in range(n_way)]
    drawings = torch.stack(shuffled)[:, : k_shot + n_query]
    return classes, drawings[:, :k_shot], drawings[:, k_shot:]
    # END SOLUTION


draw_episode = check("01.2", draw_episode)

# %% [markdown]
# ## From a loop to an index gather
#
# All pictures lie in `images` `[C, n, 1, 28, 28]`, with $C$ classes and $n$ drawings of each. If you join the first two axes, drawing $d$ of class $c$ becomes row $c \cdot n + d$.
# An [index gather](../lessons/GLOSSARY.md#gather "索引收集") then reads many rows at once, for one episode or for a hundred.


# %% tags=["nbval-check-output"]
def pictures_loop(source: ImageSet, classes: Tensor, drawings: Tensor) -> Tensor:
    """classes [N], drawings [N, K] -> float [N*K, 1, 28, 28], one picture at a time."""
    found = []
    for row, c in enumerate(classes.tolist()):
        for d in drawings[row].tolist():
            found.append(source.images[c, d].float() / 255)
    return torch.stack(found)


def pictures(source: ImageSet, classes: Tensor, drawings: Tensor) -> Tensor:
    """classes [..., N], drawings [..., N, K]
    -> float [..., N*K, 1, 28, 28], in one gather.
    """
    rows = classes[..., None] * source.images.shape[1] + drawings
    return source.images.flatten(0, 1)[rows.flatten(-2)].float() / 255


classes, support, query = draw_episode(
    len(test), 20, 5, 2, 3, torch.Generator().manual_seed(1)
)
assert torch.equal(
    pictures_loop(test, classes, support), pictures(test, classes, support)
)
print("loop and gather agree:", tuple(pictures(test, classes, support).shape))

# %% [markdown]
# ### Exercise 01.3  Draw many episodes without a loop  (difficulty 3/5, 8 min)
#
# To make thousands of choices at once, give every item a random score, rank the scores and take the top. This is as fair as a shuffle, because the scores are independent draws from one distribution, so every order of them is equally likely.
#
# | scores of 4 classes | positions, highest first | top 2 |
# |---|---|---|
# | 0.61, 0.38, 0.64, 0.47 | 2, 0, 3, 1 | 2, 0 |
#
# For $T$ episodes take `classes` `[T, N]` from `class_scores` `[T, C]`, where $N$ is `drawing_scores.shape[1]`. From `drawing_scores` `[T, N, n]` take `support` `[T, N, K]`, the top $K$ of each row, and `query` `[T, N, Q]`, the next $Q$. Highest first; `torch.topk` or `torch.argsort` ranks all rows in one call.


# %%
def draw_batch(
    class_scores: Tensor, drawing_scores: Tensor, k_shot: int, n_query: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [T, C] and [T, N, n] -> classes int64 [T, N], support int64 [T, N, K],
    query int64 [T, N, Q]. No loop over T.
    """
    # BEGIN SOLUTION
    n_way = drawing_scores.shape[1]
    classes = class_scores.topk(n_way, dim=1).indices
    drawings = drawing_scores.topk(k_shot + n_query, dim=2).indices
    return classes, drawings[:, :, :k_shot], drawings[:, :, k_shot:]
    # END SOLUTION


draw_batch = check("01.3", draw_batch)
generator = torch.Generator().manual_seed(3)
class_scores = torch.rand(100, len(test), generator=generator)
classes, support, query = draw_batch(
    class_scores, torch.rand(100, 5, 20, generator=generator), 1, 5
)
print(
    "100 episodes: support",
    tuple(pictures(test, classes, support).shape),
    "query",
    tuple(query.shape),
)

# %% [markdown]
# ## Meet the package
#
# `EpisodeSampler` ranks, takes the top and gathers, as you did; it also shuffles the rows. In its heart, `rank` scores the classes of `BLOCK = 256` episodes, then drawings; `real` says which exist. (Distractors wait for lesson 15.)

# %%
source_code = inspect.getsource(EpisodeSampler._draw_block)
start, end = (
    source_code.index("        drawn = rank"),
    source_code.index("        label ="),
)
print(source_code[start:end])
drawings = inspect.getsource(EpisodeSampler._drawings)
print(drawings[drawings.index("        rank =") :])

# %% [markdown]
# You need four things of it:
#
# | write | get |
# |---|---|
# | `EpisodeSampler(source, n_way, k_shot, n_query, seed=0)` | a sampler over the classes of `source` |
# | `sampler[i]` | episode $i$ with its pictures |
# | `sampler.batch(i, T)` | the $T$ episodes from $i$ on, stacked along a leading axis `[T]` |
# | `sampler.layout(i, T)` | the same without pictures: row numbers in `source.images.flatten(0, 1)`, slots, classes |
#
# An episode is a *pure function of (seed, index)*: episode 7 is the same alone or in a batch, today or after a crash. So methods can meet the very same episodes. The next cell checks `to_slots`, too: a row number divided by $n$ is a class id.

# %%
sampler = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=0)
alone, batch = sampler[7], sampler.batch(0, 10)
other = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=1)
assert torch.equal(alone.query_x, batch[7].query_x)
assert not torch.equal(alone.query_x, other[7].query_x)
print("episode 7: the same alone and in a batch, another with another seed")

layout, n = sampler.layout(7, 1), test.images.shape[1]
assert torch.equal(to_slots(layout.support[0] // n, layout.classes[0]), alone.support_y)
print("your slots agree with the package's:", alone.support_y.tolist())

# %% [markdown]
# ## Label slots: the blind player, measured
#
# The player of the puzzle counts over 20,000 rounds in which slot each class sat. In 20,000 new rounds it then names, for each id, the slot in which that class sat most often.


# %%
def blind_player(
    sort: bool, n_classes: int = 64, n_way: int = 5, rounds: int = 20_000
) -> tuple[float, Tensor]:
    """Accuracy of a player that knows class ids only,
    and how often [C, N] each class sat in each slot.
    """
    scores = torch.rand(
        2 * rounds, n_classes, generator=torch.Generator().manual_seed(0)
    )
    classes = scores.topk(n_way, dim=1).indices
    if sort:
        classes = classes.sort(dim=1).values  # a fixed rule: low id, low slot
    watched, played = classes[:rounds], classes[rounds:]
    slots = torch.arange(n_way).expand(rounds, n_way)
    counts = torch.bincount(
        (watched * n_way + slots).flatten(), minlength=n_classes * n_way
    ).view(n_classes, n_way)
    usual = counts.argmax(dim=1)  # [C]
    return float((usual[played] == slots).double().mean()), counts / counts.sum(
        1, keepdim=True
    )


# %% tags=["draws"]
figure, axes = new(8, 2.8, columns=2, sharey=True)
for axis, name in zip(axes, ("sorted", "random"), strict=True):
    right, share = blind_player(sort=name == "sorted")
    ends, middle = float(share[0].max()), float(share[31].max())
    print(f"{name}: the blind player is right in {right:.1%} of its answers;")
    print(f"   its best slot holds id 0 in {ends:.0%}, id 31 in {middle:.0%} of rounds")
    for slot in range(5):
        axis.plot(
            share[:, slot],
            markevery=9,
            markersize=5,
            label=f"slot {slot}",
            **slot_style(slot),
        )
    axis.set(
        title=f"{name} order: blind player {right:.0%}",
        xlabel="class id",
        ylim=(0, 1.05),
    )
axes[0].set_ylabel("how often the class sat there")
axes[1].legend(fontsize=8, ncols=2)
show(
    figure,
    "How often each of 64 classes sat in each of 5 slots. Left, sorted: every slot has "
    "its own hill of class ids, so the id gives the slot away. Right, random: all "
    "curves lie flat near one fifth.",
)

# %% [markdown]
# The answer is 50 %: with sorted slots about half of all answers are right, without a picture. Random slots leave [chance](../lessons/GLOSSARY.md#chance "随机水平"), $1/N$, which is 20 %.
#
# <details><summary>Why not 20 %, 35 % or 80 %?</summary>
#
# 20 % would mean that an id says nothing, which holds for random slots. An id at the end gives itself away entirely: id 0 is the lowest of any five, so it always sits in slot 0. An id in the middle says much less: the best guess for 31 is right in 38 %. Averaged over all ids this gives about one half.
#
# </details>
#
# A network with one output for each slot can learn such a habit, and it is worthless on novel classes. A learner that only *compares* cannot: if you permute the slots, its scores move along, as the next cell checks for the pixels.

# %%
# the class of the support picture with the largest cosine, pixel by pixel
pixels = PixelNearestNeighbour("cosine")
# slot 0 becomes slot 3, slot 1 becomes slot 0, ...
permutation = torch.tensor([3, 0, 4, 1, 2])
before = sampler[0]
after = replace(
    before, support_y=permutation[before.support_y], query_y=permutation[before.query_y]
)
assert torch.equal(pixels(after)[:, permutation], pixels(before))
accuracies = [
    float((pixels(e).argmax(1) == e.query_y).double().mean()) for e in (before, after)
]
assert accuracies[0] == accuracies[1]
print(f"accuracy before {accuracies[0]:.2f}, after {accuracies[1]:.2f}")

# %% [markdown]
# ## Leaks, and the test that catches each
#
# A [leak](../lessons/GLOSSARY.md#leak "数据泄漏") is any way in which the answer reaches the learner other than through the support set.
#
# | leak | the test |
# |---|---|
# | a drawing is in support *and* query | no row number occurs in both |
# | a class sits in a predictable slot | the blind player scores $1/N$ |
# | a class is dealt in two splits | the bug hunt below |
#
# What does the first one cost? The careless dealer below keeps the support of a fair episode, 5 of 20 drawings of each class, and draws its queries from all 20. The pixels name 75 % of fair queries. What do you predict for careless ones?


# %%
def careless(index: int) -> Episode:
    """A fair episode whose queries are drawn again, regardless of its support."""
    honest, generator = fair[index], torch.Generator().manual_seed(index)
    drawn = torch.randint(20, (5, 5), generator=generator)
    return replace(
        honest,
        query_x=pictures(test, honest.classes, drawn),
        query_y=torch.arange(5).repeat_interleave(5),
    )


fair = EpisodeSampler(test, n_way=5, k_shot=5, n_query=5, seed=0)
scores = {}
for name, deal in (("careless", careless), ("fair", fair.__getitem__)):
    hits = [
        (pixels(e).argmax(1) == e.query_y).double().mean()
        for e in map(deal, range(300))
    ]
    scores[name] = torch.stack(hits)
    print(f"{name:8s} pixels score {float(scores[name].mean()):.1%}")
extra, half = mean_and_ci95(scores["careless"] - scores["fair"])
print(f"careless minus fair, on the same 300 supports: {extra:+.1%} ± {half:.1%}")
layout = fair.layout(0, 300)  # row numbers: support [300, 25], query [300, 25]
shared = (layout.support[:, :, None] == layout.query[:, None, :]).any()
print("the fair sampler deals a drawing twice:", bool(shared))

# %% [markdown]
# <details><summary>The prediction</summary>
#
# A careless query is one of the 5 support drawings of its class with probability 5/20. Such a query has itself as its nearest neighbour, so it is always right; the others are as hard as before. That makes 0.25 + 0.75 × 75 % = 81.25 %.
#
# </details>
#
# The measured value is close to that, although nothing was learned better: the learner only *recognised* a quarter of the pictures.

# %% [markdown]
# ## How sure is a mean?
#
# Single episodes differ widely, but their mean is steadier. A [confidence interval](../lessons/GLOSSARY.md#confidence-interval "置信区间") $\bar a \pm h$ says how steady. A mean of $E$ independent episodes has the variance $\sigma^2 / E$, which $s^2 / E$ estimates, and $t$ turns its root, the [standard error](../lessons/GLOSSARY.md#standard-error "标准误"), into a half width:
#
# $$h = t_{0.975,\,E-1} \, \frac{s}{\sqrt{E}}, \qquad s^2 = \frac{1}{E-1} \sum_{e=1}^{E} (a_e - \bar a)^2$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $E$ | `len(values)` | number of episodes |
# | $a_e$, $\bar a$ | `values`, `values.mean()` | `[E]`, one number |
# | $s$ | `values.std()` | standard deviation (divides by $E-1$); $s / \sqrt{E}$ is one standard error |
# | $t_{0.975,\,E-1}$ | `stdtrit(E - 1, 0.975)` | Student's t quantile, near 1.96 for large $E$; 0.975 leaves 2.5 % outside on each side |
# | $h$ | `half` | half width: 95 % of such intervals hold the true mean, the one over all possible episodes |

# %%
result = evaluate(pixels, sampler, episodes=600)
accuracy = result.per_episode  # [600]
low, high = float(accuracy.min()), float(accuracy.max())
figure, axis = new(7, 2.6)
axis.hist(100 * accuracy.numpy(), bins=torch.arange(-2, 104, 4).numpy(), color=SLOTS[0])
axis.axvline(100 * result.mean, color="black", label=f"mean {result.mean:.1%}")
axis.axvline(20, color=CHANCE, linestyle="--", label="chance 20 %")
axis.set(xlabel="accuracy of one episode (25 queries), in %", ylabel="episodes")
axis.legend(fontsize=8)
show(
    figure,
    f"Histogram of 600 accuracies of single episodes: from {low:.0%} to {high:.0%}, "
    f"mean {result.mean:.1%}; chance is 20 %.",
)

# %% [markdown]
# ### Exercise 01.4  The half width  (difficulty 2/5, 6 min)
#
# Return two Python floats: the mean of `values` `[E]`, and the half width $h$ of its 95 % interval. `stdtrit` and `math` are imported.


# %%
def mean_and_half_width(values: Tensor) -> tuple[float, float]:
    """Mean and half width of the 95 % t interval.
    values float [E], E >= 2 -> two floats.
    """
    # BEGIN SOLUTION
    count = len(values)
    standard_error = float(values.std()) / math.sqrt(count)
    return float(values.mean()), float(stdtrit(count - 1, 0.975)) * standard_error
    # END SOLUTION


mean_and_half_width = check("01.4", mean_and_half_width)
mine, theirs = mean_and_half_width(accuracy), mean_and_ci95(accuracy)
assert all(map(lambda x, y: math.isclose(x, y, rel_tol=1e-5), mine, theirs))
print("yours and the package's agree:", result)

# %% [markdown]
# The *standard deviation* $s$ says how much episodes differ, and more episodes do not make it smaller.
# The *half width* $h$ says how well you know the mean, and four times the episodes halve it.

# %% tags=["draws"]
counts = [5, 10, 20, 40, 80, 150, 300, 600]
deviations = [100 * float(accuracy[:e].std()) for e in counts]
halves = [100 * mean_and_half_width(accuracy[:e])[1] for e in counts]
figure, axis = new(7, 2.8)
axis.plot(
    counts,
    deviations,
    color=SLOTS[1],
    marker="^",
    label="standard deviation of episodes",
)
axis.plot(
    counts, halves, color=SLOTS[0], marker="o", label="half width of the 95 % interval"
)
axis.set(
    xscale="log",
    xlabel="episodes E",
    ylabel="percentage points",
    xticks=counts,
    xticklabels=counts,
    ylim=(0, None),
)
axis.minorticks_off()
axis.legend(fontsize=8)
show(
    figure,
    "Against the number of episodes: the standard deviation stays near "
    f"{deviations[-1]:.0f} points; the half width falls from {halves[0]:.0f} points "
    f"with 5 episodes to {halves[-1]:.1f} with 600.",
)

# %% [markdown]
# ## Does a 95 % interval keep its promise?
#
# Pretend that these 600 accuracies are the whole world, so that the true mean is known. Then play a study of $E$ episodes 4,000 times and count the intervals that contain the truth.
# Three half widths compete: with t, with 1.96 for t, and one standard error. Which fall clearly short of 95 % when $E$ is 5?
#
# <details><summary>Answer: open it after the table</summary>
#
# Two of them do. One standard error covers about two thirds, whatever $E$ is. And 1.96 is right only when the standard deviation is known; five episodes tell it badly, which t makes up for.
# With 200 episodes the two factors are nearly equal. So always say what stands after the ±.
#
# </details>

# %%
generator = torch.Generator().manual_seed(4)
truth = float(accuracy.mean())
print("episodes   t interval   1.96 for t   one standard error")
for count in (5, 20, 200):
    # [4000, E]
    studies = accuracy[torch.randint(600, (4000, count), generator=generator)]
    miss, error = (studies.mean(1) - truth).abs(), studies.std(1) / math.sqrt(count)
    factors = (float(stdtrit(count - 1, 0.975)), 1.96, 1.0)
    print(
        f"{count:8d}   "
        + "   ".join(
            f"{float((miss <= f * error).double().mean()):10.1%}" for f in factors
        )
    )
# 50 studies of 30 episodes
studies = accuracy[torch.randint(600, (50, 30), generator=generator)]
means, halves = map(torch.tensor, zip(*map(mean_and_half_width, studies), strict=True))
outside = (means - truth).abs() > halves

# %%
figure, axis = new(8, 2.6)
for miss, colour, marker, label in (
    (False, SLOTS[0], "o", "contains it"),
    (True, SLOTS[1], "X", "misses it"),
):
    at = (outside == miss).nonzero()[:, 0]
    axis.errorbar(
        at,
        means[at],
        yerr=halves[at],
        color=colour,
        marker=marker,
        linestyle="",
        markersize=5,
        label=label,
    )
axis.axhline(truth, color="black", linewidth=1, label="true mean")
axis.set(
    xlabel="study",
    ylabel="mean accuracy (fraction)",
    ylim=(None, float((means + halves).max()) + 0.05),
)
axis.legend(fontsize=8, ncols=3, loc="upper right")
show(
    figure,
    f"Fifty studies of 30 episodes with 95 % intervals; {int(outside.sum())} of 50 "
    "miss the true mean.",
)

# %% [markdown]
# ## Evaluate honestly: baselines, in pairs
#
# Whatever you train later must beat these [baselines](../lessons/GLOSSARY.md#baseline "基线") on the same episodes.
# A [paired comparison](../lessons/GLOSSARY.md#paired-comparison "配对比较") takes the difference within each episode, because what makes an episode hard for both then cancels. With the correlation $\rho$ of the two accuracies,
#
# $$s_{a-b}^2 = s_a^2 + s_b^2 - 2 \rho \, s_a s_b$$
#
# With equal spreads the unpaired half width is $1 / \sqrt{1 - \rho}$ times the paired one.
#
# <details><summary>Why?</summary>
#
# With $s_b = s_a$ the paired variance is $2 s_a^2 - 2 \rho \, s_a^2 = 2 s_a^2 (1 - \rho)$. On different episodes the last term is 0, which leaves $2 s_a^2$. The ratio of the two is $1 / (1 - \rho)$; half widths go with its root.
#
# </details>

# %%
results = {
    name: evaluate(learner, fair, episodes=800) for name, learner in baselines().items()
}
listed = ", ".join(f"{name} {found.mean:.0%}" for name, found in results.items())
print("guessing:", results["chance"])
shown = {
    name: (found.mean, found.ci95)
    for name, found in results.items()
    if name != "chance"
}
show(
    intervals(shown, chance=1 / 5),
    f"Accuracy with 95 % intervals, 5-way 5-shot, 800 episodes: {listed}. The dashed "
    "line is chance, 20 %.",
)
a, b = results["pixels, cosine"], results["pixels, Euclidean"]
print("cosine minus Euclidean, paired:", compare(a, b))
for name, other in (("Euclidean", b), ("random Conv4", results["random Conv4"])):
    apart = math.hypot(a.ci95, other.ci95)  # if they had met different episodes
    rho = float(torch.stack([a.per_episode, other.per_episode]).corrcoef()[0, 1])
    wider = apart / compare(a, other).ci95
    print(
        f"cosine and {name}: correlation {rho:.2f}; unpaired {wider:.1f} times as wide"
    )

# %% [markdown]
# The two pixel methods find the same episodes hard, so pairing helps them most. The random Conv4 has other features and another rule (the nearest class mean); its correlation with the pixels is smaller, and so is the gain.
#
# ## How many episodes separate two methods?
#
# Random features beat the pixels with one shot (lesson 00); with five the two come close. The intervals cover the choice of episodes only, not other alphabets, other pictures, or another draw of the random weights.

# %% tags=["draws"]
one, two = results["random Conv4"].per_episode, results["pixels, cosine"].per_episode
counts = [20, 40, 80, 150, 300, 500, 800]
gap, paired = map(
    torch.tensor,
    zip(*(mean_and_half_width((one - two)[:e]) for e in counts), strict=True),
)
unpaired = torch.tensor(
    [math.hypot(*(mean_and_half_width(v[:e])[1] for v in (one, two))) for e in counts]
)
figure, axis = new(8, 3)
for half, label, colour in (
    (unpaired, "unpaired", "#F6DDA6"),
    (paired, "paired", SLOTS[5]),
):
    low, high = 100 * (gap - half), 100 * (gap + half)
    axis.fill_between(counts, low, high, color=colour, label=label)
axis.plot(
    counts, 100 * gap, color="black", marker="o", markersize=4, label="difference"
)
axis.axhline(0, color=CHANCE, linestyle="--")
axis.set(
    xscale="log",
    xlabel="episodes E",
    ylabel="Conv4 minus pixels, points",
    xticks=counts,
    xticklabels=counts,
)
axis.minorticks_off()
axis.legend(fontsize=8, ncols=3)
last = compare(results["random Conv4"], results["pixels, cosine"])
show(
    figure,
    "The difference against the number of episodes, inside two bands; the paired one "
    f"is narrower. {last}",
)
print(last)

# %% [markdown]
# With all 800 episodes the interval contains 0. Say that the two are *not separated*, never that they are *equal*. How many episodes would separate them?
#
# ### Exercise 01.6  How many episodes do you need?  (difficulty 3/5, 6 min)
#
# Episodes (or differences) have the standard deviation `spread`. Return the smallest whole number $E \ge 2$ for which the half width is at most `half_width`.
# Mind that $t$ depends on $E$, too. For example, 0.12 and 0.01 give 556.


# %%
def episodes_needed(spread: float, half_width: float) -> int:
    """Smallest E >= 2 with t(0.975, E-1) * spread / sqrt(E) <= half_width."""
    # BEGIN SOLUTION
    count = 2
    while float(stdtrit(count - 1, 0.975)) * spread / math.sqrt(count) > half_width:
        count += 1
    return count
    # END SOLUTION


episodes_needed = check("01.6", episodes_needed)
spread, seen = float((one - two).std()), abs(float((one - two).mean()))
print(f"the differences spread by {spread:.1%}; their mean so far is {seen:.2%}")
for wish in (0.01, 0.005, seen):
    print(f"± {wish:.2%} needs {episodes_needed(spread, wish):6d} episodes")

# %% [markdown]
# A difference as small as this one needs many thousands of episodes. Do not plan with the mean seen so far, as the last line does, because its interval contains 0. Decide which difference matters to you, compute $E$, and evaluate once.
#
# ## Why once? The impatient evaluator
#
# [Optional stopping](../lessons/GLOSSARY.md#optional-stopping "选择性停止") means to look every 20 episodes and to stop as soon as the interval leaves out 0. To measure what it does, flip the sign of each real difference by a coin, so that the two methods are equal for certain. Whoever now stops raises a *false alarm*. One look does so in 5 % of studies. Guess: how often do 40?

# %% [markdown]
# ### Exercise 01.7  The impatient evaluator  (difficulty 2/5, 6 min)
#
# `differences` `[E]` come episode by episode, and she looks after as many of them as `looks` lists, in rising order. Return the first look $e$ at which the 95 % interval of the first $e$ differences leaves out 0, on either side, and 0 if she never stops. Use your `mean_and_half_width`.
#
# Example: for the differences 0.1, -0.2, 0.3, 0.0, 0.5, 0.4, 0.3, 0.5, 0.4, 0.6 and looks at 2, 4, 6, 8 and 10 she stops at 8.


# %%
def stops_at(differences: Tensor, looks: list[int]) -> int:
    """The look at which an impatient evaluator stops, 0 if she never does.
    differences float [E], looks: rising numbers from 2 to E.
    """
    # BEGIN SOLUTION
    for seen_so_far in looks:
        middle, half_width = mean_and_half_width(differences[:seen_so_far])
        if abs(middle) > half_width:
            return seen_so_far
    return 0
    # END SOLUTION


stops_at = check("01.7", stops_at)
generator = torch.Generator().manual_seed(0)
shape = (4000, 800)  # studies, episodes
gaps = (one - two)[torch.randint(800, shape, generator=generator)]
gaps = gaps * (2 * torch.randint(2, shape, generator=generator) - 1)
every_20 = list(range(20, 801, 20))
stops = torch.tensor([stops_at(study, every_20) for study in gaps[:200]])
print(f"impatient: {float((stops > 0).double().mean()):.0%} of 200 studies stop")
once = torch.tensor([stops_at(study, [800]) for study in gaps[:200]])
print(
    f"patient:   {float((once > 0).double().mean()):.0%} of 200 studies find anything"
)

# %% [markdown]
# About three in ten impatient evaluators announce a difference that does not exist. With 40 independent looks it would be $1 - 0.95^{40}$, or 87 %. But looks share their episodes. Let $S_e$ be the sum of the first $e$ differences, with variance $e s^2$. For $e < f$ the part of $S_f$ after episode $e$ is independent of $S_e$, so their covariance is $e s^2$, and
#
# $$\operatorname{corr}\left(\frac{S_e}{s\sqrt{e}}, \frac{S_f}{s\sqrt{f}}\right) = \frac{e s^2}{s\sqrt{e} \; s\sqrt{f}} = \sqrt{e / f}$$

# %% [markdown]
# | symbol | variable | shape |
# |---|---|---|
# | $e$, $f$ | `looks` | two numbers of episodes, $e < f$ |
# | $S_e$ | `sums[:, e - 1]` | sum of the first $e$ differences of a study |
# | $s$ | `spread` | standard deviation of one difference |
#
# Looks at 780 and 800 episodes are nearly one: their correlation is 0.99. A look at *twice* the episodes has 0.71, which leaves room for new luck, however many episodes there are by then. So more episodes do not protect an impatient evaluator; fewer or stricter looks do. [Bonferroni](../lessons/GLOSSARY.md#bonferroni-correction "邦费罗尼校正") allows each of $k$ looks only 5 % / $k$; together they then raise at most 5 % false alarms.

# %%
E = torch.arange(1, 801)
sums, squares = (
    gaps.cumsum(1),
    gaps.square().cumsum(1),
)  # [4000, 800], all looks at once
variance = (squares - sums.square() / E) / (E - 1).clamp_min(1)
ratio = sums.abs() / (E * variance).sqrt()  # mean over standard error
steps, alarms = (800, 400, 200, 80, 40, 20), {"5 % at each look": [], "Bonferroni": []}
for step in steps:
    looks = torch.arange(step, 801, step)
    for name, level in (("5 % at each look", 0.05), ("Bonferroni", 0.05 / len(looks))):
        limit = torch.tensor(stdtrit(looks.numpy() - 1, 1 - level / 2))
        alarm = (ratio[:, looks - 1] > limit).any(1)
        alarms[name].append(100 * float(alarm.double().mean()))
    print(
        f"{len(looks):3d} looks:", *(f"{n} {a[-1]:4.1f} %  " for n, a in alarms.items())
    )
limit = torch.tensor(stdtrit(torch.tensor(every_20).numpy() - 1, 0.975))
stopped = (ratio[:200, torch.tensor(every_20) - 1] > limit).any(1)
assert torch.equal(stopped, stops > 0)  # all at once, or look by look

# %% tags=["draws"]
figure, axes = new(8, 3, columns=2)
for study in range(12):
    seen_mean = 100 * sums[study] / E
    end = int(stops[study]) or 800
    colour = SLOTS[1] if stops[study] else "0.7"
    axes[0].plot(E[19:end], seen_mean[19:end], color=colour, linewidth=1)
    if stops[study]:
        axes[0].plot(end, seen_mean[end - 1], marker="X", color=SLOTS[1])
tube = 196 * float(gaps.std()) / E[19:].sqrt()
for side in (tube, -tube):
    axes[0].plot(E[19:], side, color="black", linestyle="--", linewidth=1)
axes[0].set(xlabel="episodes", ylabel="mean difference, points", title="12 studies")
number = [800 // step for step in steps]
for (name, rate), slot in zip(alarms.items(), (1, 0), strict=True):
    axes[1].plot(number, rate, label=name, **slot_style(slot))
axes[1].axhline(5, color=CHANCE, linestyle="--")
axes[1].set(
    xscale="log",
    xlabel="looks",
    ylabel="false alarms, %",
    xticks=number,
    xticklabels=number,
    ylim=(0, None),
)
axes[1].minorticks_off()
axes[1].legend(fontsize=8)
rates = ", ".join(f"{rate:.0f}" for rate in alarms["5 % at each look"])
show(
    figure,
    "Left: the mean differences of twelve studies of two equal methods wander inside "
    "and across a narrowing dashed tube; those whose own interval leaves out 0 "
    f"at a look end there with a cross. Right: false alarms in per cent with {number} "
    f"looks: {rates} if each look uses 5 %, never above about 5 with Bonferroni.",
)

# %% [markdown]
# The dashed tube is $\pm 1.96 \, s / \sqrt{e}$ with the $s$ of all studies together.
#
# <details><summary>Why can a cross lie inside the tube?</summary>
#
# Each study decides by its own $s$ and by $t$, not by the tube. If its first episodes happen to differ little, its own interval is narrower than the tube and leaves out 0 sooner.
#
# </details>
#
# One look raises about 5 % false alarms, and every doubling of the looks adds to that. Bonferroni stays within 5 %, but it is stricter than needed when looks overlap. The cheap cure is exercise 01.6: fix $E$, then look once. Seeds and settings count, too: to try several and report the best is to look several times.

# %% [markdown]
# ## Explore
#
# Predict first; then change one number below and run the cell.
#
# 1. Chance falls as $1/N$. Does accuracy fall as fast?
# 2. Episodes from one alphabet (`within_group=True`) are harder. Does `k_shot = 5` close the gap?
# 3. Mixed and one-alphabet episodes cannot be paired, so the half width of their difference is $\sqrt{h_1^2 + h_2^2}$. With `episodes = 20`, at which ways does the interval leave out 0?
#
# <details><summary>Answers</summary>
#
# 1: no. Accuracy divided by chance grows with the ways, from 1.4 to 5.8 for mixed alphabets. 2: no. From 5 ways on the gap grows, and at 20 ways it doubles; at 2 ways, 3.3 ± 3.5 points with one shot and 5.6 ± 2.9 with five cannot be told apart.
# 3: at 5, 10 and 20 ways; at 2 ways the difference is 2 points with a half width of 11.
#
# </details>

# %%
k_shot, episodes, ways = 1, 200, (2, 5, 10, 20)
figure, axis = new(7, 3)
told, both = [], []
for label, within_group, slot in (
    ("mixed alphabets", False, 0),
    ("one alphabet", True, 1),
):
    found = []
    for way in ways:
        tasks = EpisodeSampler(test, way, k_shot, 5, seed=3, within_group=within_group)
        found.append(evaluate(pixels, tasks, episodes))
    axis.errorbar(
        ways,
        [r.mean for r in found],
        yerr=[r.ci95 for r in found],
        capsize=3,
        label=label,
        **slot_style(slot),
    )
    told.append(f"{label} " + ", ".join(f"{r.mean:.0%}" for r in found))
    both.append(found)
axis.plot(ways, [1 / way for way in ways], color=CHANCE, linestyle="--", label="chance")
axis.set(xlabel="ways N", ylabel="accuracy (fraction)", xticks=ways, ylim=(0, 1))
for way, mixed, alike in zip(ways, *both, strict=True):
    half = math.hypot(mixed.ci95, alike.ci95)
    gained = mixed.mean - alike.mean
    print(f"{way:2d} ways: mixed minus one alphabet {gained:+.1%} ± {half:.1%}")
axis.legend(fontsize=8)
show(
    figure,
    f"Pixel accuracy for {ways} ways, {k_shot} shot, with 95 % intervals: "
    f"{'; '.join(told)}. Chance falls as 1/N.",
)

# %% [markdown]
# Choose a leak under *deal*, find it in the pictures, and see which player profits from it. Two of the players never see a picture.

# %%
from fsl_classroom.widgets import EpisodeExplorer

EpisodeExplorer()

# %% [markdown]
# ## Bug hunt
#
# The symptom: the pixels score the same on all three splits, to the last digit. Nothing crashes, and the printed class counts are right.
# The mistake is real: `omniglot_benchmark.py` of the library learn2learn has it since commit 8c75077 (2021); its first version, 24e3662, filtered correctly.
#
# Before you read on: what could make three different splits score the same?


# %%
def benchmark(source: ImageSet, talk: bool = False) -> dict[str, EpisodeSampler]:
    """A 5-way 1-shot sampler for each split."""
    samplers = {}
    for name in ("train", "val", "test"):
        part = source.split(name)
        if talk:
            print(f"{name}: {len(part)} classes")
        samplers[name] = EpisodeSampler(source, n_way=5, k_shot=1, n_query=5, seed=0)
    return samplers


for name, suspect in benchmark(glyphs, talk=True).items():
    print(f"{name:5s} {evaluate(pixels, suspect, episodes=200)}")

# %% [markdown]
# ## How likely is a test to ring?
#
# A test for the third leak looks at dealt episodes and rings when a class appears in two splits. Suppose that a single class has slipped from validation into training. The [power](../lessons/GLOSSARY.md#test-power "检验功效") of the test is the probability that it then rings. An episode deals $N$ of $C$ classes, so it misses a given one with probability $1 - N/C$, and $E$ independent episodes all miss it with $(1 - N/C)^E$. The test rings if both splits, with $C_1$ and $C_2$ classes, show the class:
#
# $$\text{power} = \left(1 - (1 - N/C_1)^E\right) \left(1 - (1 - N/C_2)^E\right)$$
#
# Guess before you run the next cell: with 200 episodes of each split, how often does the test ring?

# %%
val, splits = glyphs.split("val"), list(glyphs.splits)
rows = [c for c in range(len(glyphs)) if splits[c] == "train"]
leaky = glyphs.select([*rows, splits.index("val")])  # one class too many


def power(episodes: int, n_way: int = 5) -> float:
    """Probability that E episodes of each split show the one shared class."""
    return math.prod(1 - (1 - n_way / len(s)) ** episodes for s in (leaky, val))


rung = torch.zeros(1024)  # in how many of 100 studies it has rung after E episodes
for seed in range(100):
    shown = torch.ones(1024, dtype=torch.bool)
    for source, c in ((leaky, len(leaky) - 1), (val, 0)):
        seeded = EpisodeSampler(source, 5, 1, 5, seed=2 * seed + (source is val))
        dealt = (seeded.layout(0, 1024).classes == c).any(1)
        shown &= dealt.cumsum(0) > 0
    rung += shown
print("episodes   power   rung in 100 studies")
for count in (50, 100, 200, 500, 1000):
    print(f"{count:8d}   {power(count):5.1%}   {int(rung[count - 1]):3d}")
assert abs(float(rung[199]) / 100 - power(200)) < 0.2

# %% tags=["draws"]
figure, axis = new(7, 2.8)
reach = torch.arange(10, 2001, 10)
axis.plot(
    reach,
    [100 * power(int(e)) for e in reach],
    color="black",
    label="power by the formula",
)
at = torch.tensor([20, 50, 100, 200, 350, 500, 700, 1000])
axis.errorbar(
    at,
    rung[at - 1],
    yerr=2 * (rung[at - 1] * (100 - rung[at - 1]) / 100).sqrt(),
    color=SLOTS[0],
    marker="o",
    linestyle="",
    label="100 studies, ± 2 standard errors",
)
enough = math.ceil(math.log(0.001) / math.log(1 - 5 / len(leaky)))
axis.axvline(enough, color=SLOTS[1], linestyle="--", label=f"{enough:,} episodes")
axis.set(
    xscale="log",
    xlabel="episodes of each split",
    ylabel="the test rings, %",
    xticks=(10, 50, 200, 500, 1000, 2000),
    xticklabels=(10, 50, 200, 500, 1000, 2000),
    ylim=(0, 105),
)
axis.minorticks_off()
axis.legend(fontsize=8)
show(
    figure,
    "How often a test rings if one class of 917 is shared, against the episodes that "
    f"it looks at: {power(200):.0%} with 200, {power(500):.0%} with 500, "
    f"{power(1000):.1%} with 1,000. The measured points lie near the curve. From "
    f"{enough:,} episodes on a miss is rarer than one in a thousand.",
)

# %% [markdown]
# With 200 episodes the test stays silent in about one case of three, although the leak is there. So its silence says little before you know its power. All points share 100 studies and err together. A miss in less than one of a thousand needs $E \ge \ln 0.001 / \ln (1 - 5/917)$, the dashed line.
#
# <details><summary>Why only the first factor?</summary>
#
# The validation split has 205 classes, so 1,264 episodes miss one of them with probability $(1 - 5/205)^{1264}$, which is less than one in $10^{13}$. So only the first factor matters.
#
# </details>
#
# ### Exercise 01.5  Bug hunt: do the splits leak?  (difficulty 3/5, 10 min)
#
# `implementation(source)` returns samplers for `"train"`, `"val"` and `"test"`.
# Return `True` when any class is *dealt* in two of them, even if with other drawings, else `False`. Look at so many episodes that a single shared class of 917 is missed less than once in a thousand tries.
#
# | you need | what it holds |
# |---|---|
# | `sampler.layout(0, E).classes` | `[E, N]`, positions in `sampler.source`, which numbers its classes in its own way |
# | `sampler.source.groups[c]`, `.class_names[c]` | alphabet and name of class `c`; names repeat from one alphabet to another |


# %%
def exposes_leak(implementation, source: ImageSet) -> bool:
    """True when a class is dealt in two splits. implementation(source): samplers."""
    # BEGIN SOLUTION
    owner = {}
    for name, sampler in implementation(source).items():
        own = sampler.source
        for c in sampler.layout(0, 2000).classes.unique().tolist():
            if owner.setdefault((own.groups[c], own.class_names[c]), name) != name:
                return True
    return False
    # END SOLUTION


exposes_leak = check("01.5", exposes_leak)
print("the benchmark leaks:", exposes_leak(benchmark, glyphs))

# %% [markdown]
# <details><summary>The bug, after you have found it</summary>
#
# `part` is made, counted and printed, but it is never used: the sampler gets `source`, which holds all classes. Because the seeds are equal, too, the three samplers even deal the same episodes, and this is why the accuracies agree. With three seeds the symptom would be gone, not the leak.
# A network that is trained on such episodes has met its test classes.
#
# Comparing the sources without dealing is right, too, and misses nothing, because a sampler can deal every class of its source.
#
# </details>
#
# Here is the cure, held to your test. The three accuracies now differ, because three different sets of classes are dealt:


# %%
def mended(source: ImageSet) -> dict[str, EpisodeSampler]:
    """A 5-way 1-shot sampler for each split, over the classes of that split only."""
    return {
        name: EpisodeSampler(source.split(name), 5, 1, 5, seed=0)
        for name in ("train", "val", "test")
    }


assert exposes_leak(benchmark, glyphs)
assert not exposes_leak(mended, glyphs)
for name, honest in mended(glyphs).items():
    print(f"{name:5s} {evaluate(pixels, honest, episodes=200)}")
progress("01")

# %% [markdown]
# ## Quiz
#
# **1. Slots are handed out in the order of class names. Whom does this mislead most?**
# (a) pixels, (b) a network with an output for each slot, (c) chance
#
# <details><summary>Answer</summary>
#
# (b). It can learn which slot a class usually has and scores well in training without comparing anything. (a) only compares with the support: permuting slots changes nothing for it, as you checked. (c) guesses.
#
# </details>
#
# **2. 600 episodes gave 50 % ± 1 %. What does ± 1 % say?**
# (a) 95 % of episodes lie within 49 to 51 %, (b) such intervals contain the true mean in about 95 % of studies, (c) training again gives 49 to 51 %
#
# <details><summary>Answer</summary>
#
# (b). (a) speaks of single episodes; those spread far wider, see the histogram. (c) speaks of another training seed, about which test episodes know nothing.
#
# </details>
#
# **3. To halve the ± 1 % of question 2 you need**
# (a) 850, (b) 1,200, (c) 2,400 episodes
#
# <details><summary>Answer</summary>
#
# (c). The half width falls with the square root of $E$, so half of it costs four times the episodes. (a) takes √2 times, (b) twice as many; they shrink it only to about 84 % and 71 %.
#
# </details>

# %% [markdown]
# **4. Two methods got 50 % ± 1 % and 51 % ± 1 % on the same episodes. Separated?**
# (a) no, the intervals overlap, (b) yes, 51 is more, (c) look at the paired difference
#
# <details><summary>Answer</summary>
#
# (c). The same episodes move both means together, so the difference is known better than either. (a) overlap of separate intervals does not decide it. (b) ignores the luck of the episodes.
#
# </details>
#
# **5. 14 drawings of each class go to training, 6 to testing. What is wrong?**
# (a) nothing, (b) test classes are base classes, (c) support and query share drawings
#
# <details><summary>Answer</summary>
#
# (b). The learner met every test class in training, so the test says nothing about novel classes. (a) no picture is shared, true, but a split must divide classes. (c) is another leak; it need not occur here.
#
# </details>
#
# **6. A study looks every 50 episodes and stops at the first separated result. What is wrong with its 95 %?**
# (a) nothing, each interval keeps its promise, (b) more than 5 % of such studies find what is not there, (c) the intervals are too wide
#
# <details><summary>Answer</summary>
#
# (b). Every look is another chance for luck to cross the line. (a) is true of one interval that was chosen beforehand, not of the one that looks best. (c) their width is right for a single look; for many looks they are too narrow.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | episode | $N$ classes in random slots, $K$ support and $Q$ query drawings of each, none shared |
# | sampler | a pure function of (seed, index): rank random scores, take the top, gather |
# | result | mean ± t interval over hundreds of episodes, baselines beside it, methods compared in pairs |
# | plan | choose $E$ from the spread of the differences, then look once |
# | test | say how likely it is to ring before you believe its silence |
#
# The pitfalls are sorted slots; splits of drawings; a filter that is made and not used; a standard deviation sold as an interval; a look too many. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Vinyals et al. (2016), *Matching Networks for One Shot Learning*, sections 2.2 and 4 | train as you test; the N-way K-shot protocol |
# | Ravi and Larochelle (2017), *Optimization as a Model for Few-Shot Learning* | splits of classes for training, validation and test |
# | Chen et al. (2019), *A Closer Look at Few-shot Classification* | baselines in one code base |
# | Armitage, McPherson and Rowe (1969), *Repeated Significance Tests on Accumulating Data* | what repeated looks do to 5 % |
# | *Oops, I Sampled it Again* (2024), arXiv 2409.02850 | what an interval over re-sampled episodes leaves out; paired tests |
