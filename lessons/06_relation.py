# %% [markdown]
# # 06 Relation networks: learn the comparison itself
#
# You let a network decide how alike two pictures are, learn what a famous 99.6 % means, and compare all metric methods.
#
# Prerequisites: lessons 00 to 05. Planned time: 60 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** Why is a prototype a *mean*?
#
# <details><summary>Answer</summary>
#
# The mean has the smallest total squared distance to its class. The same holds for every Bregman divergence; for a comparison that is learned, nobody promises it.
#
# </details>
#
# **2.** What does a forgotten `.eval()` change?
#
# <details><summary>Answer</summary>
#
# Batch norm then uses the statistics of whatever comes in together: a query sees the others.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **score** pairs of feature maps (06.1, 06.2),
# 2. **split** a convolution over pairs (06.3),
# 3. **measure** how well a score separates (06.4),
# 4. **expose** a score that grows with the shots (06.5),
# 5. **decide** which differences survive (06.6).

# %% [markdown]
# ## A puzzle: can a learned comparison lose?
#
# Lesson 05 compares by a fixed distance. A small network can imitate distances, and learn more. Same training episodes, novel classes, 20 ways, 1 shot:
#
# - **A**: the fixed distance leads,
# - **B**: the learned comparison leads,
# - **C**: nothing outlives other episodes and seeds.
#
# On Omniglot, papers print 98.8 % for the fixed one, 99.6 % for the learned one. Does that settle it? Write both down.

# %%
import inspect
import json
from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_classroom import check, progress
from fsl_course import EpisodeSampler, compare, evaluate, fit, load_glyphs, pretrained
from fsl_course.data.assets import asset
from fsl_course.evaluation import embed_all, mean_and_ci95
from fsl_course.figures import (
    CHANCE,
    SLOTS,
    draw_image,
    intervals,
    new,
    show,
    slot_style,
)
from fsl_course.methods.base import class_means
from fsl_course.methods.baselines import baselines
from fsl_course.methods.prototypical import squared_distances
from fsl_course.methods.relation import RelationModule, RelationNetwork

torch.manual_seed(0)
glyphs = load_glyphs()
train, test = glyphs.split("train"), glyphs.split("test")

# %% [markdown]
# ## The idea in one picture
#
# The encoder leaves its output as [feature maps](../lessons/GLOSSARY.md#feature-map "特征图"): small pictures, one for each filter.
# A second net, the [relation module](../lessons/GLOSSARY.md#relation-module "关系模块"), takes the maps of a class and a query
# and answers with a [relation score](../lessons/GLOSSARY.md#relation-score "关系得分"), from 0 (strangers) to 1 (same class).

# %%
net = pretrained("relation", "glyphs")
episode = EpisodeSampler(test, n_way=4, k_shot=1, n_query=1, seed=8)[0]
with torch.no_grad():
    # [4, 4], query k is of class k
    scores = net(episode).sigmoid()[episode.query_y.argsort()]
columns = episode.support_x[episode.support_y.argsort()]
rows = episode.query_x[episode.query_y.argsort()]

# %% tags=["draws"]
figure, grid = new(4.6, 4.4, columns=5, rows=5)
for k in range(4):
    draw_image(grid[0, k + 1], columns[k], "class" if k == 0 else "")
    draw_image(grid[k + 1, 0], rows[k], "query" if k == 0 else "")
    for j in range(4):
        cell, score = grid[j + 1, k + 1], float(scores[j, k])
        draw_image(
            cell, torch.full((1, 1, 1), 0.7 * score), edge=SLOTS[1] if j == k else None
        )
        cell.text(
            0,
            0,
            f"{score:.2f}",
            ha="center",
            va="center",
            color="white" if score > 0.7 else "black",
        )
grid[0, 0].axis("off")
ahead = int((scores.argmax(1) == torch.arange(4)).sum())
show(
    figure,
    "A table of relation scores: four class drawings above, four query drawings on "
    "the left, a grey box with a score for each pair, dark where it is high. The "
    f"pairs of one class lie on the framed diagonal; {ahead} of 4 rows have their "
    "highest score there.",
)

# %% [markdown]
# ## The maths
#
# $$r_{jk} = \sigma\big(g_\psi([c_k, z_j])\big), \qquad c_k = \frac{1}{|\mathcal{S}_k|} \sum_{(x, y) \in \mathcal{S}_k} f_\phi(x), \qquad z_j = f_\phi(x_j)$$
#
# $$\mathcal{L} = \frac{1}{MN} \sum_{j=1}^{M} \sum_{k=1}^{N} \big(r_{jk} - [y_j = k]\big)^2$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $f_\phi$ | `encoder` | `[B, 1, 28, 28]` to maps `[B, width, h, w]`, here `[B, 64, 7, 7]` |
# | $c_k$ | `classes[k]` | `[width, h, w]`, the class map |
# | $z_j$ | `query[j]` | `[width, h, w]` |
# | $[c_k, z_j]$ | `pairs[j, k]` | `[2*width, h, w]`, channels behind each other |
# | $g_\psi$ | `relation` | `[B, 2*width, h, w]` to [logits](../lessons/GLOSSARY.md#logits "对数几率") `[B, 1]` |
# | $\sigma$, $r_{jk}$ | `scores = logits.sigmoid()` | `[M, N]` |
# | $[y_j = k]$ | `target` | `[M, N]`, 1 where it holds, else 0 |

# %% [markdown]
# ## By hand
#
# The class means of lesson 05, (1, 1) and (3, 2), as maps of one pixel with two channels. The module, set by hand: logit = 1.5 − the sum of absolute differences.
#
# | query | logit with class 0 | with class 1 |
# |---|---|---|
# | (2, 1), class 0 | 1.5 − 1 = 0.5 | 1.5 − 2 = −0.5 |
# | (3, 1), class 1 | you | you |
#
# With $\sigma(0.5) \approx 0.622$ and $\sigma(-0.5) \approx 0.378$, compute the [mean squared error](../lessons/GLOSSARY.md#mean-squared-error "均方误差").

# %% tags=["nbval-check-output"]
support = torch.tensor([[0.0, 2.0], [2.0, 3.0], [2.0, 0.0], [4.0, 1.0]])
support_y = torch.tensor([0, 1, 0, 1])
query, query_y = torch.tensor([[2.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1])
# rows: query − class and class − query, for each of the two channels;
# columns: class, class, query, query
weight = torch.tensor([[-1.0, 0, 1, 0], [0, -1, 0, 1], [1, 0, -1, 0], [0, 1, 0, -1]])
by_hand = torch.zeros(2, 2)
for j in range(2):
    for k in range(2):
        pair = torch.cat([support[support_y == k].mean(0), query[j]])  # [4]
        by_hand[j, k] = 1.5 - (weight @ pair).relu().sum()  # relu(a) + relu(-a) = |a|
print("logits", by_hand.tolist())
print("scores", [[round(s, 2) for s in row] for row in by_hand.sigmoid().tolist()])
errors = (by_hand.sigmoid() - torch.eye(2)) ** 2
print(f"loss   {errors.mean():.3f}")

# %% [markdown]
# One layer, a ReLU and a sum already imitate a distance.
#
# ### Exercise 06.1  All pairs  (difficulty 1/5, 5 min)
#
# Every query meets every class, the channels of the class first. For two maps `torch.cat` joins along axis 0. Loops are fine; stacking twice makes the table.
#
# | `classes` | `query` | returned |
# |---|---|---|
# | `[N, width, h, w]` | `[M, width, h, w]` | `[M, N, 2*width, h, w]` |


# %%
def all_pairs(classes: Tensor, query: Tensor) -> Tensor:
    """Class maps [N, width, h, w] and query maps [M, width, h, w] -> pairs
    [M, N, 2*width, h, w], class first.
    """
    # BEGIN SOLUTION
    table = []
    for q in query:
        table.append(torch.stack([torch.cat([c, q]) for c in classes]))
    return torch.stack(table)
    # END SOLUTION


all_pairs = check("06.1", all_pairs)

# %% tags=["nbval-check-output"]
# From two loops to a view: `expand` repeats along a new axis without copying,
# and one `torch.cat` does the rest.
generator = torch.Generator().manual_seed(0)
classes_5 = torch.randn(5, 3, 4, 4, generator=generator)
queries_7 = torch.randn(7, 3, 4, 4, generator=generator)
looped = torch.zeros(7, 5, 6, 4, 4)
for j in range(7):
    for k in range(5):
        looped[j, k, :3], looped[j, k, 3:] = classes_5[k], queries_7[j]
stretched = classes_5.expand(7, 5, 3, 4, 4), queries_7[:, None].expand(7, 5, 3, 4, 4)
vectorised = torch.cat(stretched, dim=2)
assert torch.equal(looped, vectorised)
assert torch.equal(all_pairs(classes_5, queries_7), vectorised)
print("loops, expand and your function agree:", tuple(vectorised.shape))

# %% [markdown]
# ### Exercise 06.2  The loss on scores  (difficulty 2/5, 6 min)
#
# A regression: the right class should score 1, the others 0. Return the mean squared error of the scores over all $M \cdot N$ pairs.
#
# | you need | |
# |---|---|
# | `F.one_hot(query_y, N)` | targets, as whole numbers; give it `N`, for a class may have no query |
# | `.to(logits.dtype)` | converts them |
#
# | `logits` | `query_y` | returned |
# |---|---|---|
# | `[M, N]` | `[M]` | one number |


# %%
def relation_loss(logits: Tensor, query_y: Tensor) -> Tensor:
    """Mean squared error of the scores against 1 and 0.
    logits [M, N], query_y [M] in 0..N-1 -> scalar.
    """
    # BEGIN SOLUTION
    target = F.one_hot(query_y, logits.shape[1]).to(logits.dtype)
    error = logits.sigmoid() - target
    return error.square().mean()
    # END SOLUTION


relation_loss = check("06.2", relation_loss)

# %% tags=["nbval-check-output"]
print(f"on paper 0.143, yours {relation_loss(by_hand, query_y):.3f}")
# 1. The gradient is right: against central differences, in float64.
probe = by_hand.double().requires_grad_()
assert torch.autograd.gradcheck(lambda logits: relation_loss(logits, query_y), probe)
# 2. A support set has no order; 3. slots are names: swap them, and the columns swap.
torch.manual_seed(0)
fresh = RelationNetwork(width=4).double().eval()  # untrained: laws hold for any weights
maps = torch.randn(6, 196, generator=generator).double()
asked = torch.randn(3, 196, generator=generator).double()
labels, order = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([4, 2, 5, 0, 3, 1])
logits = fresh.score(maps, labels, asked, 3)
assert torch.allclose(fresh.score(maps[order], labels[order], asked, 3), logits)
assert torch.allclose(fresh.score(maps, 2 - labels, asked, 3).flip(1), logits)
print("gradient, order and slots: three laws hold")

# %% [markdown]
# ## What squared error does to learning
#
# In a 20-way episode 19 of 20 pairs want a 0. How strongly does the *right* pair, still low at $r$, pull its logit up? With squared error by $2r(1-r)^2$; with
# [cross-entropy](../lessons/GLOSSARY.md#cross-entropy "交叉熵") by $1-p$, $p$ its softmax probability (drawn at $p = r$). Predict: which learns faster at first?

# %%
logit = torch.linspace(-6, 6, 241, requires_grad=True)
score = logit.sigmoid()
# constant factors aside: Adam does not see them
pull = -torch.autograd.grad(((score - 1) ** 2).sum(), logit)[0]
score = score.detach()
assert torch.allclose(pull, 2 * score * (1 - score) ** 2, atol=1e-6)

# %%
figure, axis = new(7, 2.8)
axis.plot(score, pull, markevery=24, label="squared error", **slot_style(0))
axis.plot(score, 1 - score, markevery=24, label="cross-entropy", **slot_style(1))
axis.axvline(1 / 20, color=CHANCE, linestyle="--", label="1/20: always the same answer")
axis.set(xlabel="score of the right class", ylabel="pull on its logit", ylim=(0, 1.03))
axis.legend(fontsize=8)
for n_way in (5, 20):
    same, r = (n_way - 1) / n_way**2, 1 / n_way
    print(
        f"{n_way:2d} ways: scores all 1/{n_way} cost {same:.4f}, scores all 0 cost "
        f"{r:.4f};"
    )
    print(
        f"         the right pair pulls with {2 * r * (1 - r) ** 2:.2f} (squared "
        f"error), {1 - r:.2f} (cross-entropy)"
    )
show(
    figure,
    "Pull on the right class's logit against its score. Cross-entropy is a straight "
    "line falling from 1 to 0. Squared error starts at 0, is highest (0.3) at a score "
    "of one third and falls to 0. At the dashed line, one twentieth, it is 0.09 "
    "against 0.95.",
)

# %% [markdown]
# So "always no" is comfortable for the squared error: little to lose, little pull. Adam would not mind
# a constant factor; this pull *vanishes* with the score.
#
# ## The speed trick
#
# The first layer of $g_\psi$ is a convolution: linear, a sum over input channels. So it splits:
#
# $$W * [c_k, z_j] + b = (W_c * c_k + b) + W_q * z_j$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $W = [W_c, W_q]$ | `weight` | `[F, 2*width, 3, 3]`, $F$ filters |
# | $b$ | `bias` | `[F]` |

# %% [markdown]
# ### Exercise 06.3  The split convolution  (difficulty 3/5, 8 min)
#
# Return the convolution of all pairs (`padding=1`) from $N + M$ convolved maps instead of $N \cdot M$. Cut `weight` along its *input* channels. A new axis, as in 05.2, adds every query to every class.
#
# | you need | |
# |---|---|
# | `F.conv2d(x, weight, bias, padding=1)` | convolution; without `bias` as well |
#
# | `classes` | `query` | `weight`, `bias` | returned |
# |---|---|---|---|
# | `[N, width, h, w]` | `[M, width, h, w]` | `[F, 2*width, 3, 3]`, `[F]` | `[M, N, F, h, w]` |


# %%
def split_convolution(
    classes: Tensor, query: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Convolution of all concatenated pairs.
    [N, width, h, w], [M, width, h, w], [F, 2*width, 3, 3], [F] -> [M, N, F, h, w].
    """
    # BEGIN SOLUTION
    of_class, of_query = weight.chunk(2, dim=1)
    left = F.conv2d(classes, of_class, bias, padding=1)  # [N, F, h, w]
    right = F.conv2d(query, of_query, padding=1)  # [M, F, h, w]
    return right[:, None] + left
    # END SOLUTION


split_convolution = check("06.3", split_convolution)

# %%
layer = nn.Conv2d(6, 8, 3, padding=1).double()
left, right = classes_5.double(), queries_7.double()
whole = layer(all_pairs(left, right).flatten(0, 1)).unflatten(0, (7, 5))
split = split_convolution(left, right, layer.weight, layer.bias)
assert torch.allclose(whole, split, atol=1e-12)
print(
    "equal but for rounding in float64: largest difference below 1e-12 in",
    tuple(split.shape),
)
for n_way, queries in ((5, 75), (20, 300)):
    pairs, parts = n_way * queries, n_way + queries
    print(
        f"{n_way}-way, {queries} queries: {pairs} maps of 2*width channels, or {parts} "
        "of width:",
        end=" ",
    )
    print(f"{2 * pairs / parts:.0f} times less work in this layer")

# %% [markdown]
# The identity ends at the first ReLU. What follows runs for each pair: a relation network stays slower than a distance.
#
# ## Meet the package
#
# Your functions against the package's.

# %%
module = RelationModule(width=4, size=8).double().eval()
classes_6 = torch.randn(6, 4, 8, 8, generator=generator)
queries_3 = torch.randn(3, 4, 8, 8, generator=generator)
classes_6, queries_3 = classes_6.double(), queries_3.double()
with torch.no_grad():
    theirs = module(classes_6, queries_3)  # [3, 6]
    yours = module.head(
        module.rest(module.first(all_pairs(classes_6, queries_3).flatten(0, 1)))
    ).view(3, 6)
    # `first` is the first convolution, `rest` and `head` what follows
    assert torch.allclose(yours, theirs)
    # swap the roles: no distance, not symmetric
    assert not torch.allclose(theirs, module(queries_3, classes_6).T)
small = EpisodeSampler(test, n_way=3, k_shot=2, n_query=2, seed=0, dtype=torch.float64)[
    0
]
assert torch.allclose(relation_loss(fresh(small), small.query_y), fresh.loss(small))
print(inspect.getsource(RelationModule.forward))
print(inspect.getsource(RelationNetwork.loss))

# %% [markdown]
# ## Train for real
#
# Two relation networks, same first weights, same 20-way episodes: one with the paper's squared error, one with cross-entropy.
# Look for the plateau at [chance](../lessons/GLOSSARY.md#chance "随机水平").

# %%
nets, shown = {}, {}
for name, objective in (("squared error", "mse"), ("cross-entropy", "cross_entropy")):
    print(f"training with {name}")
    torch.manual_seed(1)
    nets[name] = RelationNetwork(width=32, objective=objective)
    history = fit(nets[name], EpisodeSampler(train, 20, 1, 5, seed=1), steps=120)
    shown[name] = sum(history.accuracy[-20:]) / 20
print(
    ", ".join(
        f"{name}: {value:.0%} at the end of training" for name, value in shown.items()
    )
)

# %% [markdown]
# ## Evaluate honestly
#
# [Novel classes](../lessons/GLOSSARY.md#novel-classes "新类"), [inductive](../lessons/GLOSSARY.md#inductive "归纳式"). A new [baseline](../lessons/GLOSSARY.md#baseline "基线"): an *untrained*
# relation network. Random features with a distance were far above chance. And a random comparison? Predict.

# %%
sampler = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=7)
torch.manual_seed(1)
learners = {"untrained relation network": RelationNetwork(width=32).eval()}
learners |= {name: b for name, b in baselines().items() if name != "pixels, Euclidean"}
learners |= {f"trained with {name}": trained for name, trained in nets.items()}
results = {
    name: evaluate(learner, sampler, episodes=200) for name, learner in learners.items()
}
difference = compare(
    results["trained with cross-entropy"], results["trained with squared error"]
)
print(f"cross-entropy minus squared error, same episodes: {difference}")
guess = compare(results["untrained relation network"], results["chance"])
print(f"untrained minus chance: {guess}")

# %%
rows = {name: (found.mean, found.ci95) for name, found in results.items()}
told = ", ".join(f"{name} {mean:.0%}" for name, (mean, _) in rows.items())
show(
    intervals(rows, chance=0.2),
    f"5-way 1-shot accuracy with 95 % intervals, 200 episodes: {told}. Dashed line: "
    "chance.",
)

# %% [markdown]
# A distance knows before any training that near means alike; a relation module must learn even that.
#
# The [paired](../lessons/GLOSSARY.md#paired-comparison "配对比较") difference speaks for this small budget and one seed. Squared error leaves its plateau in time: it trained the shipped net.

# %% [markdown]
# ## What does 99.6 mean?
#
# The authors' test code never calls `.eval()`: [batch norm](../lessons/GLOSSARY.md#batch-normalisation "批归一化") sees the test batch, in 1-shot *one query of each class*.
# That is [transductive](../lessons/GLOSSARY.md#transductive "直推式"). A reader reports about 90 % with `.eval()`.
# But the code sets `momentum=1`: running statistics remember the last batch only. Measure all three.

# %%
# one query of each class
balanced = EpisodeSampler(test, n_way=5, k_shot=1, n_query=1, seed=9)
for name, learner in (
    ("shipped net", net),
    ("your net, cross-entropy", nets["cross-entropy"]),
):
    honest = evaluate(learner, balanced, episodes=400)
    flattered = evaluate(learner, balanced, episodes=400, transductive=True)
    gap = compare(flattered, honest)
    verdict = (
        "flatters" if gap.separated and gap.mean > 0 else "does not flatter measurably"
    )
    print(f"{name}: inductive {honest.mean:.1%}, transductive {flattered.mean:.1%}")
    print(f"   {gap}: the test batch {verdict}")
forgetful = deepcopy(net).train()
for part in forgetful.modules():
    if isinstance(part, nn.BatchNorm2d):
        part.momentum = 1.0  # forget everything but the batch that comes next
with torch.no_grad():
    # the "last training batch"
    forgetful(EpisodeSampler(train, n_way=5, k_shot=1, n_query=19, seed=3)[0])
usual, last = (
    evaluate(learner, balanced, episodes=400) for learner in (net, forgetful)
)
print(f"shipped net with one batch's running statistics: inductive {last.mean:.1%}")
print(f"   {compare(last, usual)}")

# %% [markdown]
# So, by that code, 99.6 % is transductive on balanced queries, and 90 % rests on one batch's statistics; 98.8 % is inductive. Three protocols settle *nothing* about learned and fixed comparisons.
#
# <details><summary>Why can a test batch flatter, and what decides by how much?</summary>
#
# Its mean and variance tell what this task's pictures look like, all classes in equal parts. Every query is normalised with knowledge of the others: an unlabelled hint. A net whose running statistics fit the test anyway gains little; one with poor statistics gains much. So measure it for the net at hand, and on other data do not expect the gap printed above.
#
# </details>
#
# ### Exercise 06.4  AUC  (difficulty 2/5, 5 min)
#
# Scores of any scale have an order. [AUC](../lessons/GLOSSARY.md#auc "曲线下面积"): the probability that a random right pair scores above a random wrong one, ties as one half. Return a `float`.
#
# | `right` | `wrong` | returned |
# |---|---|---|
# | `[P]` | `[Q]` | 0.5 for a coin, 1.0 for perfect order |
#
# On paper: 0.9, 0.4 against 0.1, 0.4, 0.8 win 4.5 of 6.


# %%
def auc(right: Tensor, wrong: Tensor) -> float:
    """How often a right pair's score [P] lies above a wrong pair's [Q],
    ties one half -> float in 0..1.
    """
    # BEGIN SOLUTION
    wins = (right[:, None] > wrong).double()  # [P, Q]
    ties = (right[:, None] == wrong).double()
    return float((wins + 0.5 * ties).mean())
    # END SOLUTION


auc = check("06.4", auc)

# %% [markdown]
# ## Learned similarity against distance
#
# The same maps, two judges: relation logit, and squared Euclidean distance. Had the module merely learned that distance, all points would lie on one falling curve.

# %%
# every test picture once, [8160, 64*7*7]
table = embed_all(net, test.images.flatten(0, 1))


@torch.no_grad()
def two_judges(
    n_way: int, k_shot: int, tasks: int, within_group: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Relation logits and minus squared distances of the same maps, and which pairs are
    right; each [tasks, M, n_way].
    """
    drawn = EpisodeSampler(
        test, n_way, k_shot, 5, seed=4, within_group=within_group
    ).layout(0, tasks)
    support, labels, query = table[drawn.support], drawn.support_y, table[drawn.query]
    distances = squared_distances(query, class_means(support, labels, n_way))
    return (
        net.score(support, labels, query, n_way),
        -distances,
        F.one_hot(drawn.query_y, n_way).bool(),
    )


logits, nearness, same = two_judges(n_way=20, k_shot=1, tasks=5)
areas = [auc(judge[same], judge[~same]) for judge in (logits, nearness)]
# every sixth wrong pair: enough for the eye
kept = torch.arange(int((~same).sum())) % 6 == 0
words = f"AUC of the relation score {areas[0]:.3f}, of the distance {areas[1]:.3f}"
print(words, "for", int(same.sum()), "right and", int((~same).sum()), "wrong pairs")

# %%
figure, axis = new(7, 3.6)
axis.scatter(
    -nearness[~same][kept],
    logits[~same][kept],
    s=14,
    marker="x",
    color=SLOTS[1],
    label="wrong class",
    alpha=0.6,
)
axis.scatter(
    -nearness[same],
    logits[same],
    s=14,
    marker="o",
    color=SLOTS[0],
    label="right class",
    alpha=0.6,
)
axis.axhline(0, color=CHANCE, linestyle="--", label="score one half")
axis.set(xlabel="squared Euclidean distance of the maps", ylabel="relation logit")
axis.legend(fontsize=8, loc="upper right")
show(
    figure,
    "Relation logit against squared distance for pairs of 20-way episodes. Right "
    "pairs (blue dots) lie mostly high and to the left, wrong pairs (orange crosses) "
    "mostly low, over a wide range of distances. The cloud is broad, not a curve. "
    f"{words}.",
)

# %% [markdown]
# These maps were trained *for* the module, never for a distance.
#
# ## Explore
#
# Predict, look, then change `n_way` to 20.
#
# 1. More ways lower the accuracy. And the AUC?
# 2. Which judge gains more from five shots?
# 3. Which suffers more within one alphabet?
#
# <details><summary>Answers</summary>
#
# 1: the AUC hardly moves. It asks about one right and one wrong pair, however many classes compete. 2 and 3: compare the printed numbers; a judge near 1 has little left to gain.
#
# </details>

# %%
n_way = 5
conditions = {
    "1 shot": (1, False),
    "5 shots": (5, False),
    "1 shot, one alphabet": (1, True),
}
figure, axes = new(8, 2.4, columns=2, sharey=True)
told = []
for place, (condition, (k_shot, within)) in enumerate(conditions.items()):
    *judges, same = two_judges(n_way, k_shot, tasks=300 // n_way, within_group=within)
    for slot, (name, judge) in enumerate(zip(("relation score", "distance"), judges)):
        right = float((judge.argmax(-1) == same.int().argmax(-1)).double().mean())
        # task by task against all wrong pairs: the same number as at once,
        # in a fraction of the memory
        parts = [auc(part[hit], judge[~same]) for part, hit in zip(judge, same)]
        found = sum(parts) / len(parts), right
        for axis, value in zip(axes, found):
            axis.plot(
                value,
                place,
                linestyle="",
                markersize=8,
                label=name if place == 0 else None,
                **slot_style(slot),
            )
        told.append(f"{condition}, {name}: AUC {found[0]:.3f}, accuracy {found[1]:.1%}")
axes[0].set(xlabel="AUC", yticks=range(3), yticklabels=conditions, ylim=(2.5, -0.5))
axes[1].set(xlabel=f"accuracy, {n_way} ways")
axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
print("\n".join(told))
show(
    figure,
    "Two judges on the same maps under three conditions, AUC on the left and "
    f"{n_way}-way accuracy on the right. {'; '.join(told)}.",
)

# %% [markdown]
# ## Bug hunt
#
# More shots should help. The symptom: in this net, trained with one, they do not. Its weights are fine.


# %%
def served(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Relation logits. support [S, D], labels [S], query [M, D]: maps as rows, as
    `embed` gives them -> [M, n_way].
    """
    classes = torch.zeros(n_way, *net.maps)
    for row, k in zip(support.unflatten(1, net.maps), labels.tolist()):
        classes[k] += row
    with torch.no_grad():
        return net.relation(classes, query.unflatten(1, net.maps))


def accuracy(score: Callable, k_shot: int, tasks: int = 60) -> Tensor:
    """Accuracies [tasks] in 5-way episodes."""
    drawn, right = EpisodeSampler(test, 5, k_shot, 5, seed=11).layout(0, tasks), []
    for s, labels, q, truth in zip(
        drawn.support, drawn.support_y, drawn.query, drawn.query_y
    ):
        right.append(
            (score(table[s], labels, table[q], 5).argmax(1) == truth).double().mean()
        )
    return torch.stack(right)


for k_shot in (1, 2, 5):
    print(f"{k_shot} shot{'s' * (k_shot > 1)}: {accuracy(served, k_shot).mean():.1%}")

# %% [markdown]
# ### Exercise 06.5  Bug hunt: does a score grow with the shots?  (difficulty 3/5, 10 min)
#
# Show every support row twice: no news, so no score may move. Return `True` when *any* does.
#
# `score(support, labels, query, n_way)` returns `[M, n_way]`. Rounding does not count: `torch.allclose(a, b, rtol=1e-3, atol=1e-4)`.
#
# | `support` | `labels` | `query` | returned |
# |---|---|---|---|
# | `[S, D]` | `[S]` | `[M, D]` | `True` or `False` |


# %%
def exposes_sum(
    score, support: Tensor, labels: Tensor, query: Tensor, n_way: int
) -> bool:
    """True when showing every support row twice changes a score.
    score: (support, labels, query, n_way) -> [M, n_way].
    """
    # BEGIN SOLUTION
    once = score(support, labels, query, n_way)
    doubled, names = torch.cat([support, support]), torch.cat([labels, labels])
    twice = score(doubled, names, query, n_way)
    return not torch.allclose(once, twice, rtol=1e-3, atol=1e-4)
    # END SOLUTION


exposes_sum = check("06.5", exposes_sum)
drawn = EpisodeSampler(test, 5, 2, 3, seed=12).layout(0, 1)
example = table[drawn.support[0]], drawn.support_y[0], table[drawn.query[0]], 5
print("the served code grows with the shots:", exposes_sum(served, *example))

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# `classes[k] += row` adds the maps of a class and never divides. With one shot a sum *is* the mean, so training and the first test see nothing. With five shots every class map is about five times as large: the relation module has never met such numbers.
#
# </details>
#
# The paper itself sums: harmless while training and test share one $K$. The cure: one switch on the same weights, `net.shots`.

# %%
shots, curves, told = (1, 2, 5, 10), {}, []
figure, axis = new(7, 2.8)
for slot, pooling in enumerate(("mean", "sum")):
    net.shots = pooling
    # your test, before and after
    assert exposes_sum(net.score, *example) == (pooling == "sum")
    found = [accuracy(net.score, k_shot, tasks=100) for k_shot in shots]
    curves[pooling] = found
    means, halves = zip(*(mean_and_ci95(values) for values in found))
    axis.errorbar(
        shots,
        means,
        yerr=halves,
        capsize=3,
        label=f"{pooling} of the shots",
        **slot_style(slot),
    )
    told.append(f"{pooling} " + ", ".join(f"{mean:.1%}" for mean in means))
net.shots = "mean"  # as it was
axis.axhline(0.2, color=CHANCE, linestyle="--", label="chance")
axis.set(
    xlabel="shots K in the test (trained with 1)",
    ylabel="accuracy",
    xticks=shots,
    ylim=(0, 1.03),
)
axis.legend(fontsize=8)
mean, half = mean_and_ci95(curves["mean"][2] - curves["sum"][2])
print(
    "\n".join(told),
    f"\n5 shots, mean minus sum on the same weights and episodes: {mean:+.1%} ± "
    f"{half:.1%}",
)
show(
    figure,
    "Accuracy against shots with 95 % intervals, 5 ways, one set of weights: "
    f"{'; '.join(told)} for {shots} shots.",
)

# %% [markdown]
# ## Closing comparison
#
# Six methods, one budget: the same 20-way 1-shot episodes, three training [seeds](../lessons/GLOSSARY.md#seed "随机种子"), the same test episodes. A file holds their right answers in each.
#
# Fifteen pairs: if nothing differed, 95 % intervals alone would raise $15 \times 0.05$ false alarms on average. So other seeds must agree.

# %% [markdown]
# ### Exercise 06.6  Which differences survive?  (difficulty 3/5, 8 min)
#
# `differences` `[seeds, E]`: method a minus method b. Return `True` when both hold:
#
# - averaged over the *seeds*, its 95 % [interval](../lessons/GLOSSARY.md#confidence-interval "置信区间") over the episodes leaves out 0;
# - every seed's mean has the same sign.
#
# A clear *worse* survives, too. Three seeds agree by luck one time in four: no proof.
#
# | you need | |
# |---|---|
# | `mean_and_ci95(values)` | values `[E]` -> mean, half width of the interval |


# %%
def survives(differences: Tensor) -> bool:
    """Whether a difference outlives episodes and seeds.
    differences [seeds, E], paired -> True or False.
    """
    # BEGIN SOLUTION
    mean, half = mean_and_ci95(differences.mean(0))
    of_seeds = differences.mean(1)  # [seeds]
    same_sign = bool((of_seeds * mean > 0).all())
    return abs(mean) > half and same_sign
    # END SOLUTION


survives = check("06.6", survives)

# %%
story = json.loads(asset("metric_comparison.json").read_text(encoding="utf-8"))
settings = [(5, 1), (5, 5), (20, 1)]
labels = list(dict.fromkeys(row["label"] for row in story["rows"]))
of = {
    label: sorted(
        (r for r in story["rows"] if r["label"] == label), key=lambda r: r["seed"]
    )
    for label in labels
}
right = {  # (label, way, shot) -> accuracies [seeds, E]
    (label, r["way"], r["shot"]): torch.stack(
        [
            torch.tensor(row["results"][i]["correct"]).double()
            / (r["way"] * r["query"])
            for row in of[label]
        ]
    )
    for label in labels
    for i, r in enumerate(of[label][0]["results"])
}
clock = {
    label: sum(row["train_seconds"] for row in of[label]) / len(of[label])
    for label in labels
}
size = {label: of[label][0]["parameters"] for label in labels}

# %%
print(
    f"{story['train']['steps']} training episodes, {len(of[labels[0]])} seeds, "
    f"{story['episodes']} test episodes, inductive"
)
print(
    f"{'':16s}{'5w1s':>16s}{'5w5s':>16s}{'20w1s':>16s}"
    f"{'parameters':>12s}{'training time':>15s}"
)
for label in labels:
    found = [mean_and_ci95(right[label, *setting].mean(0)) for setting in settings]
    cells = "".join(f"{mean:9.1%} ± {half:.1%}" for mean, half in found)
    print(
        f"{label:16s}{cells}{size[label]:12,d}"
        f"{clock[label] / clock['Prototypical']:13.1f} x"
    )
print(
    "Transfer: nearest class mean. Training time: against Prototypical, counted on one "
    "processor core"
)

# %%
# what the picture shows: change to (5, 1) or (5, 5), and run the next cell, too
way, shot = 20, 1
ordered = sorted(labels, key=lambda label: -right[label, way, shot].mean())
# the better one first
pairs = [(a, b) for i, a in enumerate(ordered) for b in ordered[i + 1 :]]
gaps = [right[a, way, shot] - right[b, way, shot] for a, b in pairs]
held = [f"{a} over {b}" for (a, b), gap in zip(pairs, gaps) if survives(gap)]

# %% tags=["draws"]
figure, axes = new(9.5, 4.6, columns=2, gridspec_kw={"width_ratios": [1, 1.15]})
for slot, label in enumerate(labels):
    each = right[label, way, shot].mean(1)
    time = clock[label] / clock["Prototypical"]
    axes[0].scatter(
        [time] * len(each),
        each,
        s=45,
        label=f"{label}, {size[label] / 1000:.0f}k",
        **slot_style(slot),
    )
axes[0].set(
    xlabel="training time, Prototypical = 1",
    ylabel=f"{way}-way {shot}-shot accuracy, one mark a seed",
    xlim=(0, None),
)
axes[0].legend(
    fontsize=7,
    ncols=2,
    loc="upper center",
    bbox_to_anchor=(0.5, -0.18),
    title="method, parameters",
    title_fontsize=8,
)
for place, gap in enumerate(gaps):
    mean, half = mean_and_ci95(gap.mean(0))
    style = (
        {"color": SLOTS[0], "marker": "o"}
        if survives(gap)
        else {"color": CHANCE, "marker": "x"}
    )
    axes[1].errorbar(100 * mean, place, xerr=100 * half, capsize=3, **style)
axes[1].axvline(0, color="black", linewidth=0.8)
axes[1].set(yticks=range(len(pairs)), xlabel="difference in points, 95 % interval")
axes[1].set_title("dot: survives   cross: does not", fontsize=9)
axes[1].set_yticklabels([f"{a} − {b}" for a, b in pairs], fontsize=7)
axes[1].invert_yaxis()
show(
    figure,
    f"Left: {way}-way {shot}-shot accuracy of six methods against training time, one "
    "mark for each of three seeds. Right: the difference of each of the 15 pairs "
    f"with its interval. {len(held)} survive: {'; '.join(held) or 'none'}.",
)

# %%
for way_, shot_ in settings:
    pairs = [
        (a, b)
        for a in labels
        for b in labels
        if right[a, way_, shot_].mean() > right[b, way_, shot_].mean()
    ]
    held = [
        f"{a} > {b}"
        for a, b in pairs
        if survives(right[a, way_, shot_] - right[b, way_, shot_])
    ]
    print(
        f"{way_}-way {shot_}-shot: {len(held)} of {len(pairs)} differences survive: "
        f"{', '.join(held) or 'none'}"
    )
print("\nThe puzzle, learned minus fixed comparison:")
for way_, shot_ in settings:
    gaps = right["Relation", way_, shot_] - right["Prototypical", way_, shot_]
    mean, half = mean_and_ci95(gaps.mean(0))
    seeds = ", ".join(f"{value:+.1%}" for value in gaps.mean(1).tolist())
    answer = (
        ("B: learned" if mean > 0 else "A: fixed")
        if survives(gaps)
        else "C: no difference survives"
    )
    print(
        f"{way_}-way {shot_}-shot: {mean:+.1%} ± {half:.1%}, seeds {seeds} -> {answer}"
    )

# %% [markdown]
# **The puzzle.** To *represent* every comparison is not to *find* the best: a fixed distance is a strong hint without training. So learning *can* lose; the lines above say whether it does here. `Relation` learns by squared error: its gap mixes loss and comparison.
#
# *Not covered*: photographs, larger nets, tuned learning rates. Longer training: the shipped nets, 3,000 episodes of 30 ways, but one seed.

# %%
sampler = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=0)
final = {
    name: evaluate(pretrained(name, "glyphs"), sampler, episodes=300)
    for name in ("siamese", "matching", "prototypical", "relation")
}
for name, found in final.items():
    print(f"{name:13s}{found}")
best = max(final, key=lambda name: final[name].mean)
for name in final:
    if name != best:
        print(f"{best} minus {name}: {compare(final[best], final[name])}")

# %%
told = ", ".join(f"{name} {found.mean:.1%}" for name, found in final.items())
show(
    intervals(
        {name: (found.mean, found.ci95) for name, found in final.items()},
        xlabel="5-way 1-shot accuracy",
    ),
    "5-way 1-shot accuracy of the four shipped nets with 95 % intervals, 300 "
    f"episodes: {told}.",
)

# %% [markdown]
# ## Quiz
#
# **1. Does the relation module's *second* convolution split as well?**
# (a) yes, (b) no, (c) with one shot only
#
# <details><summary>Answer</summary>
#
# (b). Between them lie batch norm, ReLU and pooling: the ReLU of a sum is not the sum of ReLUs, against (a). The number of shots plays no part, against (c).
#
# </details>
#
# **2. One query scores 0.9, 0.8 and 0.1. A bug?**
# (a) yes: the sum is not 1, (b) no, (c) yes: two are above one half
#
# <details><summary>Answer</summary>
#
# (b). Every pair is judged by itself through a sigmoid; no softmax ties them together, against (a). Two high scores mean two likely classes, against (c). The highest wins.
#
# </details>
#
# **3. Trained with *sums* of five shots, tested with *means* of five. The accuracy?**
# (a) better, (b) the same, (c) worse
#
# <details><summary>Answer</summary>
#
# (c), most likely. It learned on maps of five-fold size; a mean is a scale that it has never met. A mean is right where training used means, or single shots. So neither (a) nor (b): switch before training, not after.
#
# </details>

# %% [markdown]
# **4. "98.8 against 99.6: learned comparisons win."**
# (a) right, (b) not comparable, (c) the reverse is proven
#
# <details><summary>Answer</summary>
#
# (b). One number is inductive, the other transductive on balanced queries: (a) compares protocols. Nothing is proven the other way either, against (c).
#
# </details>
#
# **5. Ten steps of squared error, 20 ways, all scores near 0. What first?**
# (a) wait, or change the loss, (b) suspect the labels, (c) raise the ways
#
# <details><summary>Answer</summary>
#
# (a). "Always no" is the plateau you plotted: little to lose, little pull. (b) is worth a look if it never ends, as random labels look the same. (c) makes it worse: still more zeros for each one.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | method | maps, class mean, concatenate, convolve, sigmoid |
# | loss | squared error on 0 and 1 leaves chance slowly; cross-entropy faster |
# | speed | only the first convolution splits |
# | compare | same protocol, same episodes, several seeds |
#
# Pitfalls: sums over shots; a missing `.eval()`; two protocols in one table. From memory: 06.7 ★.
#
# Six methods, one idea: embed and compare. Next, a network *changes its weights* for each task. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Sung et al. (2018), *Learning to Compare: Relation Network for Few-Shot Learning* | equation 1: score of a pair; 2: squared error; section 3.2: sums over shots; table 1: 99.6 on Omniglot, 5-way 1-shot |
# | The authors' code, `omniglot_test_one_shot.py`, and issue 48 there | no `.eval()`, one query of each class in 1-shot tests, `momentum=1`; about 90 reported with `.eval()` |
# | Snell, Swersky and Zemel (2017), *Prototypical Networks for Few-shot Learning* | table 1: 98.8 on Omniglot, 5-way 1-shot |
# | Chen et al. (2019), *A Closer Look at Few-shot Classification* | metric methods in one code base |

# %% [markdown]
# ### Exercise 06.7 ★  Relation network from memory  (difficulty 4/5, 12 min)
#
# Write the whole method with torch alone: from pictures to *scores* `[M, n_way]` and the squared-error loss, as a tuple. Shots may be unequal: take means.
#
# | given | from | to |
# |---|---|---|
# | `encoder` | pictures `[B, c, H, W]` | maps `[B, width, h, w]` |
# | `relation` | pairs `[B, 2*width, h, w]`, class first | logits `[B, 1]` |


# %%
def relation_network(
    encoder: nn.Module,
    relation: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
) -> tuple[Tensor, Tensor]:
    """Pictures and labels of an episode
    -> relation scores [M, n_way], loss (a scalar).
    """
    # BEGIN SOLUTION
    support, query = encoder(support_x), encoder(query_x)
    classes = torch.stack([support[support_y == k].mean(0) for k in range(n_way)])
    left = classes.repeat(len(query), 1, 1, 1)  # classes run fast
    right = query.repeat_interleave(n_way, 0)  # queries run slowly
    scores = relation(torch.cat([left, right], dim=1)).view(len(query), n_way).sigmoid()
    return scores, F.mse_loss(scores, F.one_hot(query_y, n_way).to(scores.dtype))
    # END SOLUTION


relation_network = check("06.7", relation_network)
episode = sampler[0]
with torch.no_grad():
    whole = nn.Sequential(net.relation.first, net.relation.rest, net.relation.head)
    mine, _ = relation_network(
        net.encoder,
        whole,
        episode.support_x,
        episode.support_y,
        episode.query_x,
        episode.query_y,
        5,
    )
    assert torch.allclose(mine, net(episode).sigmoid(), atol=1e-3)
print("your function and the package's trained net agree")
progress("06")
