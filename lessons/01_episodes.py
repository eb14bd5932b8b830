# %% [markdown]
# # 01 Episodes: deal fair tasks and measure honestly
#
# You write the sampler on which every later lesson stands, catch three leaks, and learn when a difference between two methods counts.
#
# Prerequisites: [lesson 00](../notebooks/00_start.ipynb). Planned time: 60 minutes.
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
# The support set, with labels, to learn from; the query set, to be judged on. A query's label is never shown to the learner.
#
# </details>
#
# **2.** Why was one episode not enough to judge the classifier of lesson 00?
#
# <details><summary>Answer</summary>
#
# Its letters may happen to be easy or hard. The mean over hundreds of episodes, with an interval, says how good the method is.
#
# </details>

# %% [markdown]
# ## Objectives
#
# After this lesson you can
#
# 1. **turn** class ids into label slots (exercise 01.1),
# 2. **draw** episodes without leaks and without a loop (exercises 01.2, 01.3),
# 3. **compute** an interval and the episodes it needs (exercises 01.4, 01.6),
# 4. **write** a test that exposes leaked splits (exercise 01.5).

# %% [markdown]
# ## A puzzle: the blind player
#
# A game has 64 classes. Each round picks 5 at random, **sorts** them by class id and numbers them 0 to 4.
# A player sees no picture: it is told one class id and must name its number. It has watched many rounds before.
#
# Write down how often it is right: 20 %, 35 %, 50 % or 80 %? And if the order is random instead of sorted?

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
# $N$ classes ([way](../lessons/GLOSSARY.md#way "类别数")) in [label slots](../lessons/GLOSSARY.md#label-slot "标签槽位") 0 to $N-1$.
# Left the [support set](../lessons/GLOSSARY.md#support-set "支持集"), $K$ pictures for each class ([shot](../lessons/GLOSSARY.md#shot "样本数"));
# right the [query set](../lessons/GLOSSARY.md#query-set "查询集"), to be named.

# %%
episode = EpisodeSampler(test, n_way=4, k_shot=2, n_query=3, seed=5)[0]

# %%
show(
    episode_grid(episode, names=test.class_names),
    "A 4-way 2-shot episode with 3 queries for each class. Four rows, one for each "
    "slot: two framed support drawings on the left, three query drawings of the same "
    "class on the right.",
)
# rows come shuffled
print("support", tuple(episode.support_x.shape), "slots", episode.support_y.tolist())
print("query  ", tuple(episode.query_x.shape), "slots", episode.query_y.tolist())

# %% [markdown]
# ## Base classes and novel classes
#
# A learner practises on [base classes](../lessons/GLOSSARY.md#base-classes "基类") and is judged on [novel classes](../lessons/GLOSSARY.md#novel-classes "新类").
# So a [split](../lessons/GLOSSARY.md#split "数据划分") divides the *classes*, never the drawings of a class. Here whole alphabets stay together.

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
# Train under the conditions of the test (Vinyals et al. 2016): practice comes as many small tasks, too. That is [meta-learning](../lessons/GLOSSARY.md#meta-learning "元学习").
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
# Points instead of pictures; the nearest support point decides. Class 17 has (1, 1) and (2, 1), class 4 has (5, 4) and (4, 5).
# The query (3, 2) belongs to class 4. Its squared distances are 5, 2, 8, 10: the second wins, a mistake.
#
# Swap the slots of the two classes: do the predictions change? Does the accuracy?

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
# ### Exercise 01.1  From class ids to label slots  (difficulty 1/5, 5 min)
#
# For each id, return the position at which it stands in `classes`. A loop is fine.
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
# Choose by number; pictures come later. `torch.randperm(6, generator=generator)` is one shuffle of 0 to 5.
# Hand `generator` to *every* random call: its [seed](../lessons/GLOSSARY.md#seed "随机种子") then fixes the episode.
#
# | return | shape | whole numbers |
# |---|---|---|
# | `classes` | `[N]` | below `n_classes`, distinct, in random order |
# | `support` | `[N, K]` | below `n_drawings`; row $i$ belongs to `classes[i]` |
# | `query` | `[N, Q]` | likewise; no drawing of a class twice, in support and query together |
#
# Each class draws its own drawings.


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
# All pictures lie in `images` `[C, n, 1, 28, 28]`: $C$ classes, $n$ drawings of each. Join the first two axes: drawing $d$ of class $c$ is row $c \cdot n + d$.
# An [index gather](../lessons/GLOSSARY.md#gather "索引收集") reads many rows at once, for any number of episodes.


# %% tags=["nbval-check-output"]
def pictures_loop(source: ImageSet, classes: Tensor, drawings: Tensor) -> Tensor:
    """classes [N], drawings [N, K] -> float [N*K, 1, 28, 28], one picture at a time."""
    found = []
    for row, c in enumerate(classes.tolist()):
        for d in drawings[row].tolist():
            found.append(source.images[c, d].float() / 255)
    return torch.stack(found)


# %% tags=["nbval-check-output"]
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
# Rank random scores and take the top: that is a fair choice. A table of scores makes all choices at once.
#
# | scores of 4 classes | positions, highest first | top 2 |
# |---|---|---|
# | 0.61, 0.38, 0.64, 0.47 | 2, 0, 3, 1 | 2, 0 |
#
# For $T$ episodes at once: from `class_scores` `[T, C]` take `classes` `[T, N]`. From `drawing_scores` `[T, N, n]` take `support` `[T, N, K]`, the top $K$ of each row,
# and `query` `[T, N, Q]`, the next $Q$. Highest first; `torch.topk` or `torch.argsort` ranks all rows in one call.


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

# %%
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
# `EpisodeSampler` ranks scores, takes the top and gathers, as you did; it also shuffles the rows.
# An episode is a *pure function of (seed, index)*: episode 7 is the same alone or in a batch, today or after a crash.
# So methods can meet the same episodes, and parallel data loaders can be given different ones.

# %%
# BLOCK: 256 at a time; real: drawings that exist
source_code = inspect.getsource(EpisodeSampler._draw_block)
print(
    source_code[
        source_code.index("        classes = rank.topk") : source_code.index(
            "        label ="
        )
    ]
)
sampler = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=0)
alone = sampler[7]
batch = sampler.batch(0, 10)  # episodes 0..9, stacked: a leading axis [10]
fresh = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=0).batch(5, 3)
assert torch.equal(alone.query_x, batch[7].query_x)
assert torch.equal(alone.query_x, fresh[2].query_x)
assert not torch.equal(alone.query_x, EpisodeSampler(test, 5, 1, 5, seed=1)[7].query_x)
# the row numbers behind episode 7
layout, n = sampler.layout(7, 1), test.images.shape[1]
# your exercise 01.1
assert torch.equal(to_slots(layout.support[0] // n, layout.classes[0]), alone.support_y)
print("episode 7 is the same in all three; your slots agree with the package's")

# %% [markdown]
# ## Label slots: the blind player, measured
#
# Back to the puzzle. The player counts over 20,000 rounds in which slot each class sat. In 20,000 new rounds it names the usual slot.


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


# %%
figure, axes = new(8, 2.8, columns=2, sharey=True)
for axis, name in zip(axes, ("sorted", "random"), strict=True):
    right, share = blind_player(sort=name == "sorted")
    print(
        f"slots in {name} order: the blind player is right in {right:.1%} of its "
        "answers"
    )
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
# With sorted slots half of all answers are right, without a picture. Random slots leave [chance](../lessons/GLOSSARY.md#chance "随机水平"), $1/N$.
#
# <details><summary>Why not 20 %, 35 % or 80 %?</summary>
#
# 20 % would mean that an id says nothing, as with random slots. 80 % holds for the outermost ids only, which are first or last nearly always.
# 35 % is near the ids in the middle, where the best guess is right in about 40 %. Averaged over all ids it is about one half.
#
# </details>
#
# A network with one output for each slot can learn such a habit; on novel classes it is worthless. A learner that only *compares* cannot: permute the slots, and its scores move along.

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
# What does the first cost? Here queries are drawn regardless of the support; 5 of 20 drawings lie there, so about a quarter repeat.


# %%
def careless(index: int, n_way: int = 5, k_shot: int = 5, n_query: int = 5) -> Episode:
    """An episode whose queries are drawn separately:
    some of them are support drawings.
    """
    generator = torch.Generator().manual_seed(index)
    classes, support, _ = draw_episode(len(test), 20, n_way, k_shot, 1, generator)
    query = torch.randint(20, (n_way, n_query), generator=generator)
    slots = torch.arange(n_way)
    support_y = slots.repeat_interleave(k_shot)
    query_y = slots.repeat_interleave(n_query)
    return Episode(
        pictures(test, classes, support),
        support_y,
        pictures(test, classes, query),
        query_y,
        classes,
    )


# %%
fair = EpisodeSampler(test, n_way=5, k_shot=5, n_query=5, seed=0)
for name, deal in (("careless", careless), ("fair", fair.__getitem__)):
    found = [
        (pixels(e).argmax(1) == e.query_y).double().mean()
        for e in map(deal, range(300))
    ]
    print(
        f"{name:8s} pixels score {float(torch.stack(found).mean()):.1%}"
    )  # the same learner: recognising, not learning
# row numbers of 300 episodes: support [300, 25], query [300, 25]
layout = fair.layout(0, 300)
# the test, one line
shared = (layout.support[:, :, None] == layout.query[:, None, :]).any()
print("the fair sampler deals a drawing twice:", bool(shared))

# %% [markdown]
# ## How sure is a mean?
#
# Single episodes differ widely; their mean is steadier. A [confidence interval](../lessons/GLOSSARY.md#confidence-interval "置信区间") $\bar a \pm h$ says how steady.
#
# $$h = t_{0.975,\,E-1} \, \frac{s}{\sqrt{E}}, \qquad s^2 = \frac{1}{E-1} \sum_{e=1}^{E} (a_e - \bar a)^2$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $E$ | `len(values)` | number of episodes |
# | $a_e$, $\bar a$ | `values`, `values.mean()` | `[E]`, one number |
# | $s$ | `values.std()` | standard deviation (divides by $E-1$); $s / \sqrt{E}$ is one *standard error* |
# | $t_{0.975,\,E-1}$ | `stdtrit(E - 1, 0.975)` | Student's t quantile, near 1.96 for large $E$ |
# | $h$ | `half` | half width: 95 % of such intervals hold the true mean, the one over all possible episodes |

# %%
result = evaluate(pixels, sampler, episodes=600)
accuracy = result.per_episode  # [600]
low, high = float(accuracy.min()), float(accuracy.max())

# %%
figure, axis = new(7, 2.6)
axis.hist(
    accuracy.numpy(), bins=torch.arange(-0.02, 1.04, 0.04).numpy(), color=SLOTS[0]
)
axis.axvline(result.mean, color="black", label=f"mean {result.mean:.1%}")
axis.axvline(0.2, color=CHANCE, linestyle="--", label="chance 20%")
axis.set(xlabel="accuracy of one episode (25 queries)", ylabel="episodes")
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
for mine, theirs in zip(
    mean_and_half_width(accuracy), mean_and_ci95(accuracy), strict=True
):
    assert math.isclose(mine, theirs)
print("yours and the package's agree:", result)

# %% [markdown]
# Two numbers are often mixed up. The *standard deviation* $s$ says how much episodes differ; more episodes do not make it smaller.
# The *half width* $h$ says how well you know the mean; four times the episodes halve it.

# %%
counts = [5, 10, 20, 40, 80, 150, 300, 600]
deviations = [float(accuracy[:e].std()) for e in counts]
halves = [mean_and_half_width(accuracy[:e])[1] for e in counts]

# %%
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
    xscale="log", xlabel="episodes E", xticks=counts, xticklabels=counts, ylim=(0, None)
)
axis.minorticks_off()
axis.legend(fontsize=8)
show(
    figure,
    "Against the number of episodes: the standard deviation stays near "
    f"{deviations[-1]:.2f}; the half width falls from {halves[0]:.2f} with 5 episodes "
    f"to {halves[-1]:.3f} with 600.",
)

# %% [markdown]
# ## Does a 95 % interval keep its promise?
#
# Pretend that these 600 accuracies are the whole world, so that the true mean is known. Play a study of $E$ episodes 4,000 times and count the intervals that contain the truth.
# Three half widths compete: with t, with 1.96 for t, one standard error. Which fall clearly short of 95 % when $E$ is 5?
#
# <details><summary>Answer: open it after the table</summary>
#
# Two of them. One standard error covers about two thirds, whatever $E$ is. And 1.96 is right only when the standard deviation is known; five episodes tell it badly, which t makes up for.
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
    ylabel="mean accuracy",
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
# No net is trained here, but whatever you train later must beat these [baselines](../lessons/GLOSSARY.md#baseline "基线") on the same episodes.
# A [paired comparison](../lessons/GLOSSARY.md#paired-comparison "配对比较") takes the difference within each episode: what makes an episode hard for both cancels.

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
# apart: if the two had met different episodes
difference, apart = compare(a, b), math.hypot(a.ci95, b.ci95)
print("cosine minus Euclidean, paired:", difference)
print(
    f"unpaired: half width {apart:.2%}, that is {apart / difference.ci95:.1f} times as "
    "wide"
)

# %% [markdown]
# ## How many episodes separate two methods?
#
# Random features and pixels come close. Watch their difference settle as episodes are added.
#
# The intervals cover the choice of episodes only: not other alphabets, other pictures, or another draw of the random weights.
# If the last one contains 0, say *not separated*, never *equal*.

# %%
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
    axis.fill_between(counts, gap - half, gap + half, color=colour, label=label)
axis.plot(counts, gap, color="black", marker="o", markersize=4, label="difference")
axis.axhline(0, color=CHANCE, linestyle="--")
axis.set(
    xscale="log",
    xlabel="episodes E",
    ylabel="Conv4 minus pixels",
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
print(last)  # when the interval contains 0, say "not separated", not "equal"

# %% [markdown]
# ## Explore
#
# Predict, then change one number below.
#
# 1. Chance falls as $1/N$. Does accuracy fall as fast?
# 2. One alphabet (`within_group=True`) is harder. Does `k_shot = 5` close the gap?
# 3. With `episodes = 20`, which conclusions survive?
#
# <details><summary>Answers</summary>
#
# 1: no. Accuracy divided by chance grows with the ways, from 1.4 to 5.8 for mixed alphabets. 2: no, the gap grows; at 20 ways it doubles. More shots help least where letters look alike.
# 3: the fall with more ways survives, and one alphabet stays harder from 5 ways on. At 2 ways the two intervals overlap almost wholly; with 200 episodes they overlapped, too.
#
# </details>

# %%
k_shot, episodes, ways = 1, 200, (2, 5, 10, 20)
figure, axis = new(7, 3)
told = []
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
axis.plot(ways, [1 / way for way in ways], color=CHANCE, linestyle="--", label="chance")
axis.set(xlabel="ways N", ylabel="accuracy of pixels, cosine", xticks=ways, ylim=(0, 1))
axis.legend(fontsize=8)
show(
    figure,
    f"Pixel accuracy for {ways} ways, {k_shot} shot, with 95 % intervals: "
    f"{'; '.join(told)}. Chance falls as 1/N.",
)

# %% [markdown]
# The explorer deals one episode after another. Choose a leak under *deal*, find it in the pictures, and see which player profits.
# Two players are blind: they never see a picture.

# %%
from fsl_classroom.widgets import EpisodeExplorer

EpisodeExplorer()

# %% [markdown]
# ## Bug hunt
#
# The symptom: someone evaluates the pixels on all three splits, and the accuracies agree to the last digit.
# A widely used library made this mistake in its Omniglot benchmark (learn2learn, `omniglot_benchmark.py`). Nothing crashes, and the printed class counts are right.


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
# ### Exercise 01.5  Bug hunt: do the splits leak?  (difficulty 3/5, 10 min)
#
# Do not mend it yet: write the test first. `implementation(source)` returns samplers for `"train"`, `"val"`, `"test"`.
# Return `True` when any class is *dealt* in two of them, even if with other drawings, else `False`.
#
# | you need | what it holds |
# |---|---|
# | `sampler.layout(0, 200).classes` | `[200, N]`, positions in `sampler.source`: its own numbering |
# | `sampler.source.groups[c]`, `.class_names[c]` | alphabet and name of class `c`; *both* are needed, names may repeat |


# %%
def exposes_leak(implementation, source: ImageSet) -> bool:
    """True when a class is dealt in two splits.
    implementation: ImageSet -> {"train" | "val" | "test": EpisodeSampler}.
    """
    # BEGIN SOLUTION
    owner = {}
    for name, sampler in implementation(source).items():
        own = sampler.source
        for c in sampler.layout(0, 200).classes.unique().tolist():
            if owner.setdefault((own.groups[c], own.class_names[c]), name) != name:
                return True
    return False
    # END SOLUTION


exposes_leak = check("01.5", exposes_leak)
print("the benchmark leaks:", exposes_leak(benchmark, glyphs))

# %% [markdown]
# <details><summary>The bug, after you have found it</summary>
#
# `part` is made, counted, printed, and never used: the sampler gets `source`, all classes. With equal seeds the three samplers even deal the same episodes.
# A net trained on such episodes has met its test classes.
#
# </details>
#
# The cure, held to your test:


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

# %% [markdown]
# **3. To halve the ± 1 % of question 2 you need**
# (a) 850, (b) 1,200, (c) 2,400 episodes
#
# <details><summary>Answer</summary>
#
# (c). The half width falls with the square root of $E$, so half of it costs four times the episodes. (a) takes √2 times, (b) twice as many; they shrink it only to about 84 % and 71 %.
#
# </details>
#
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

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | episode | $N$ classes in random slots, $K$ support and $Q$ query drawings of each, none shared |
# | sampler | a pure function of (seed, index): rank random scores, take the top, gather |
# | result | mean ± t interval over hundreds of episodes, baselines beside it, methods compared in pairs |
#
# Pitfalls: sorted slots; splits of drawings; a filter that is made and not used; one seed for all workers; a standard deviation sold as an interval. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Vinyals et al. (2016), *Matching Networks for One Shot Learning*, sections 2.2 and 4 | train as you test; the N-way K-shot protocol |
# | Ravi and Larochelle (2017), *Optimization as a Model for Few-Shot Learning* | splits of classes for training, validation and test |
# | Chen et al. (2019), *A Closer Look at Few-shot Classification* | baselines in one code base |
# | *Oops, I Sampled it Again* (2024), arXiv 2409.02850 | what an interval over re-sampled episodes leaves out; paired tests |

# %% [markdown]
# ### Exercise 01.6 ★  How many episodes do you need?  (difficulty 3/5, 6 min)
#
# An extra. Episodes have the standard deviation `spread`. Return the smallest whole number $E \ge 2$ for which the half width is at most `half_width`.
# Mind that $t$ depends on $E$, too. Example: 0.12 and 0.01 give 556.


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
for wish in (0.02, 0.01, 0.005):
    print(
        f"± {wish:.1%} for the pixels needs "
        f"{episodes_needed(float(accuracy.std()), wish)} episodes"
    )
progress("01")
