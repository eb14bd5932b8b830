# %% [markdown]
# # 03 Siamese networks: the same or different?
#
# Twins compare two pictures. You train them on pairs, find out why 95 % of pairs right may mean nothing, and name classes that the net has never seen.
#
# Prerequisites: lessons 00 and 01. Planned time: 60 minutes. The core is exercises 03.1 to 03.5; the starred ones are homework.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** What does guessing score in a 20-way episode?
#
# <details><summary>Answer</summary>
#
# One in twenty, 5 %. Every class has the same number of queries, so no habit helps.
#
# </details>
#
# **2.** Why do two methods meet the *same* episodes?
#
# <details><summary>Answer</summary>
#
# What makes an episode hard for both then cancels in the difference, and the interval of the difference is narrower.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **list** and **score** pairs (exercises 03.1, 03.2),
# 2. **balance** a loss over pairs (exercise 03.3),
# 3. **keep** gradients finite at distance zero (exercise 03.4),
# 4. **expose** a sampler of unfair pairs (exercise 03.5),
# 5. **write** Siamese networks from memory (exercise 03.9, homework).

# %% [markdown]
# ## A puzzle: 95 % of pairs
#
# A net says "same" or "different" about all pairs of drawings in 20-[way](../lessons/GLOSSARY.md#way "类别数") [episodes](../lessons/GLOSSARY.md#episode "情景") of unseen letters. It is right about 95 % of the pairs.
# How many [queries](../lessons/GLOSSARY.md#query-set "查询集") will it name rightly, 20-way 1-[shot](../lessons/GLOSSARY.md#shot "样本数")? Write down:
#
# - **A**: about 95 %,
# - **B**: about 36 %, because $0.95^{20} = 0.36$,
# - **C**: 5 %, [chance](../lessons/GLOSSARY.md#chance "随机水平"),
# - **D**: it cannot be told.

# %%
import inspect
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.patches import Circle
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
from fsl_course.evaluation import embed_all, mean_and_ci95
from fsl_course.figures import (
    CHANCE,
    QUERY,
    SLOTS,
    SUPPORT,
    draw_image,
    new,
    show,
    slot_style,
)
from fsl_course.methods import siamese as package
from fsl_course.methods.baselines import baselines, random_conv4
from fsl_course.methods.siamese import SiameseNetwork
from fsl_course.nets import conv4

torch.manual_seed(0)
glyphs = load_glyphs()
train, val, test = (glyphs.split(name) for name in ("train", "val", "test"))
# trained for longer than there is time for here
shipped = pretrained("siamese", "glyphs")

# %% [markdown]
# ## The idea in one picture
#
# A [Siamese network](../lessons/GLOSSARY.md#siamese-network "孪生网络") sends both pictures through one [encoder](../lessons/GLOSSARY.md#encoder "编码器") and compares the [embeddings](../lessons/GLOSSARY.md#embedding "嵌入"). Out comes $p$, the probability that both show one class. The net learns a comparison and no class, so it can meet unseen ones.
#
# Why do the twins share their weights? Because "same" is symmetric: swapping the two pictures must not change the answer. Shared weights guarantee it; two encoders would have to learn it.

# %% tags=["draws"]
letters = EpisodeSampler(test, n_way=8, k_shot=1, n_query=1, seed=4)[0]
tops = letters.support_x[letters.support_y.argsort()]
bottoms = letters.query_x[letters.query_y.argsort()]
bottoms[4:] = bottoms[[5, 6, 7, 4]]  # the last four meet a stranger
with torch.no_grad():
    odds = shipped.similarities(shipped.embed(tops), shipped.embed(bottoms)).diagonal()
figure, grid = new(8, 2.5, columns=8, rows=2)
for column, p in enumerate(odds.sigmoid().tolist()):
    draw_image(
        grid[0, column], tops[column], "same" if column < 4 else "different", SUPPORT
    )
    draw_image(grid[1, column], bottoms[column], "", QUERY)
    grid[1, column].set_xlabel(f"p = {p:.2f}", fontsize=9)
show(
    figure,
    "Eight pairs of novel letters, one above the other. The first four pairs show one "
    "letter twice, the last four two letters. Below each pair the net's probability "
    f"of the same class: {', '.join(f'{p:.2f}' for p in odds.sigmoid().tolist())}.",
)

# %% [markdown]
# ## The maths
#
# Koch et al. weigh the absolute difference of each feature. Their formula has no $b$; without it, two identical pictures would get the probability one half, because then all differences are 0.
#
# $$s(x, x') = \sum_j w_j \, |z_j - z'_j| + b, \qquad p(\text{same}) = \sigma(s) = \frac{1}{1 + e^{-s}}$$
#
# Solve the second formula for $s$ and you find $s = \log \frac{p}{1 - p}$, the [log-odds](../lessons/GLOSSARY.md#log-odds "对数几率"): 0 means fifty to fifty, and each further unit multiplies the odds $p / (1 - p)$ by $e$.
#
# | symbol | variable | shape |
# |---|---|---|
# | $z = f_\phi(x)$, $z'$ | `a`, `b`: rows of embeddings | `[M, D]`, `[S, D]` |
# | $w$, $b$ | `weight`, `bias`: learned | `[D]`, one number |
# | $s$ | `log_odds` | `[M, S]` |
# | $\sigma$ | `torch.sigmoid` | any |

# %% [markdown]
# ## Why a sum, and why negative weights?
#
# Suppose that the difference $\Delta_j$ of feature $j$ follows an exponential law, with mean $\mu_j$ in equal pairs and a larger mean $\nu_j$ in unequal ones, and that features are independent. Then Bayes' rule adds up logarithms:
#
# $$\log \frac{p}{1 - p} = \log \frac{\pi}{1 - \pi} + \sum_j \log \frac{e^{-\Delta_j / \mu_j} / \mu_j}{e^{-\Delta_j / \nu_j} / \nu_j} = b + \sum_j w_j \Delta_j, \qquad w_j = \frac{1}{\nu_j} - \frac{1}{\mu_j}$$
#
# So $w_j < 0$: a difference speaks against "same". And $b$ holds $\log \frac{\pi}{1 - \pi}$, so a net also learns *how frequent* equal pairs are. Real features depend on each other; therefore the weights are learned.
#
# | symbol | variable | shape |
# |---|---|---|
# | $\Delta_j = \lvert z_j - z'_j \rvert$ | `difference[..., j]` | `[M, S]` |
# | $\mu_j$, $\nu_j$ | not computed | numbers |
# | $\pi$, share of equal pairs | mean of `same` | one number |

# %% [markdown]
# ## By hand
#
# Take $w = (-1, -2)$ and $b = 3$. Compare the query (1, 1) with each [support](../lessons/GLOSSARY.md#support-set "支持集") picture. The class with the larger *mean* log-odds wins.
#
# | class | support | log-odds | mean |
# |---|---|---|---|
# | 0 | (0, 1), (2, 1) | 3 − 1 = 2, 3 − 1 = 2 | 2 |
# | 1 | (3, 3), (5, 1) | 3 − 2 − 4 = −3, 3 − 4 = −1 | −2 |
#
# Class 0 wins. Why average log-odds? Evidence adds up in them, whereas probabilities flatten: −5 and −15 both give nearly 0. And a mean, unlike a sum, does not grow with the shots.
#
# Now you: which class wins for the query (3, 1), of class 1?

# %% tags=["nbval-check-output"]
# rows come shuffled
support = torch.tensor([[0.0, 1.0], [3.0, 3.0], [2.0, 1.0], [5.0, 1.0]])
support_y = torch.tensor([0, 1, 0, 1])
query, query_y = torch.tensor([[1.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1])
weight, bias = torch.tensor([-1.0, -2.0]), torch.tensor(3.0)
for point, k in zip(query.tolist(), query_y.tolist()):
    odds = [3 - abs(point[0] - x) - 2 * abs(point[1] - y) for x, y in support.tolist()]
    means = [(odds[0] + odds[2]) / 2, (odds[1] + odds[3]) / 2]
    print(f"query {point}, class {k}: log-odds {odds}, means {means}")
print(
    "probabilities of log-odds 2, 0, -1, -3:",
    torch.tensor([2.0, 0.0, -1.0, -3.0]).sigmoid().numpy().round(2),
)
negative = int((shipped.weight < 0).sum())
print(f"shipped net: {negative} of {len(shipped.weight)} weights are negative")

# %% [markdown]
# For the query (3, 1), class 0 wins by 1 to 0, although class 1 is right: a mistake. The derivation has the sign right: in the shipped net, every weight is negative.
#
# ### Exercise 03.1  All pairs  (difficulty 1/5, 5 min)
#
# List every [pair](../lessons/GLOSSARY.md#pair "样本对") of two different rows once, in any order. The labels 0, 1, 0, 1 give six pairs, of which two are equal.
#
# | | shape |
# |---|---|
# | `labels` | `[B]` |
# | returned: `first`, `second`, row numbers | int64 `[P]` each, $P = B(B-1)/2$ |
# | returned: `same`, True where the labels agree | bool `[P]` |


# %%
def all_pairs(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair of two rows once.
    labels [B] -> first int64 [P], second int64 [P], same bool [P].
    """
    # BEGIN SOLUTION
    first, second = torch.triu_indices(len(labels), len(labels), 1)
    return first, second, labels[first] == labels[second]
    # END SOLUTION


all_pairs = check("03.1", all_pairs)
for n_way in (2, 5, 20):
    _, _, same = all_pairs(torch.arange(n_way).repeat_interleave(6))
    share = float(same.double().mean())
    print(
        f"{n_way:2d} ways: {len(same):4d} pairs, {int(same.sum()):3d} equal, "
        f"{share:5.1%}; ",
        end="",
    )
    print(f'"different" is right in {1 - share:.1%}')

# %% [markdown]
# ## The trap: nearly all pairs are different
#
# With six drawings of each letter, only 4 % of the pairs are equal at 20 ways: a [class imbalance](../lessons/GLOSSARY.md#class-imbalance "类别不平衡"). A lazy net that always answers "different" is right about the other 96 %, and it names nothing.
#
# ### Exercise 03.2  Log-odds of a pair  (difficulty 2/5, 6 min)
#
# Return $s$ for *every row of `a` with every row of `b`*, without a loop. `a[:, None]` is `[M, 1, D]`.
#
# | `a` | `b` | `weight` | `bias` | returned |
# |---|---|---|---|---|
# | `[M, D]` | `[S, D]` | `[D]` | one number | `[M, S]` |


# %%
def log_odds(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Log-odds of "same class".
    a [M, D], b [S, D], weight [D], bias a scalar -> [M, S].
    """
    # BEGIN SOLUTION
    difference = (a[:, None] - b).abs()  # [M, S, D]
    return difference @ weight + bias
    # END SOLUTION


log_odds = check("03.2", log_odds)
# one pair at a time
loop = [
    [sum(weight * (one - other).abs()) + bias for other in support] for one in query
]
table = log_odds(query, support, weight, bias)
assert torch.allclose(table, torch.tensor(loop))
# no first and no second twin
assert torch.allclose(table, log_odds(support, query, weight, bias).T)
# [M, N]
scores = torch.stack([table[:, support_y == k].mean(1) for k in range(2)], dim=1)
print(
    "scores",
    scores.tolist(),
    "predicted",
    scores.argmax(1).tolist(),
    "truth",
    query_y.tolist(),
)

# %% [markdown]
# Your table agrees with the loop, and repeats the mistake found by hand.
#
# ### Exercise 03.3  A loss that is balanced  (difficulty 2/5, 6 min)
#
# The [binary cross-entropy](../lessons/GLOSSARY.md#binary-cross-entropy "二元交叉熵") of a pair is $-\log p$ if the pair is equal, and $-\log(1 - p)$ if not. Give both kinds half the say:
#
# $$\mathcal{L} = \frac{1}{2} \operatorname*{mean}_{\text{equal}} \bigl(-\log \sigma(s)\bigr) + \frac{1}{2} \operatorname*{mean}_{\text{unequal}} \bigl(-\log(1 - \sigma(s))\bigr)$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $s$ | `log_odds` | `[P]` |
# | equal, unequal | `same`, `~same` | bool `[P]` |
# | $\mathcal{L}$ | returned | one number |
#
# It must be right, and still pull, at log-odds of ±200, where a sigmoid has become 0 or 1. `F.binary_cross_entropy_with_logits(..., reduction="none")` takes log-odds and copes.


# %%
def pair_loss(log_odds: Tensor, same: Tensor) -> Tensor:
    """Half the mean loss of equal pairs plus half that of unequal ones.
    log_odds [P], same bool [P] -> scalar.
    """
    # BEGIN SOLUTION
    losses = F.binary_cross_entropy_with_logits(
        log_odds, same.to(log_odds.dtype), reduction="none"
    )
    return 0.5 * losses[same].mean() + 0.5 * losses[~same].mean()
    # END SOLUTION


pair_loss = check("03.3", pair_loss)

# %%
lazy = torch.full((7140,), -6.0)
same = all_pairs(torch.arange(20).repeat_interleave(6))[2]
plain = F.binary_cross_entropy_with_logits(lazy, same.float())
print(
    f'always "different": plain mean {plain:.2f}, balanced'
    f" {pair_loss(lazy, same):.2f}; a coin scores 0.69"
)
inputs = [t.double().requires_grad_() for t in (query, support, weight, bias)]
truth = query_y[:, None] == support_y
assert torch.autograd.gradcheck(
    lambda *t: pair_loss(log_odds(*t).flatten(), truth.flatten()), inputs
)

# %% [markdown]
# By the plain mean a lazy net costs 0.25, less than a coin, so training would be content with it. Balanced, it costs 3.00.
#
# ## Distance zero
#
# Other losses want a true distance, hence a square root, whose slope at zero is infinite. Distance zero does occur: one picture twice, two blank ones, a collapse of all embeddings. Predict each gradient there.

# %% tags=["nbval-check-output"]
ways_at_zero = {
    "bare square root": lambda a, b: (a - b).square().sum(1).sqrt(),
    "guarded by torch.where": lambda a, b: torch.where(
        (a == b).all(1), 0.0, (a - b).square().sum(1).sqrt()
    ),
    "F.pairwise_distance": F.pairwise_distance,
    "torch.cdist": lambda a, b: torch.cdist(a, b).diagonal(),
    "root of clamp_min(1e-12)": (
        lambda a, b: (a - b).square().sum(1).clamp_min(1e-12).sqrt()
    ),
    "absolute differences": lambda a, b: (a - b).abs().sum(1),
}
for name, distance in ways_at_zero.items():
    a = torch.tensor([[1.0, 2.0]], requires_grad=True)
    value = distance(a, torch.tensor([[1.0, 2.0]]))
    value.backward()
    print(
        f"{name:25s} distance {value.item():.1e}   gradient "
        f"{[round(g, 2) for g in a.grad[0].tolist()]}"
    )

# %% [markdown]
# All values are fine, but two gradients are NaN, because the chain rule multiplies infinity by zero. `torch.where` drops the value of a branch, but not its gradient. One such pair ruins *every* weight. `F.pairwise_distance` adds a millionth to each difference, so it pushes in an arbitrary direction; the others return 0, a legal slope at a kink.
#
# ## Two other losses
#
# The [contrastive](../lessons/GLOSSARY.md#contrastive-loss "对比损失") loss, and the [triplet](../lessons/GLOSSARY.md#triplet-loss "三元组损失") loss for an anchor $a$, a positive $p$ of its class, a negative $n$ of another:
#
# $$\ell = \frac{1}{2} d^2 \;\text{(equal)}, \qquad \ell = \frac{1}{2} \max(0, m - d)^2 \;\text{(unequal)}$$
#
# $$\ell_{\text{triplet}} = \max\bigl(0,\; d(a, p)^2 - d(a, n)^2 + m\bigr)$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $d = \Vert z - z' \Vert$ | `distance` | `[P]` |
# | $m$, [margin](../lessons/GLOSSARY.md#margin "间隔") | `margin` | one number |
# | $\ell$ | `losses` | `[P]` |

# %% tags=["draws"]
x = torch.linspace(0, 9, 181)
curves = [
    ("weighted L1, bias 4", F.softplus(x - 4), F.softplus(4 - x)),
    ("contrastive, margin 5", x.square() / 2, (5 - x).clamp_min(0).square() / 2),
]
figure, axes = new(9, 3.1, columns=3)
for axis, (title, equal, unequal) in zip(axes, curves):
    axis.plot(x, equal, markevery=30, label="equal pair", **slot_style(0))
    axis.plot(x, unequal, markevery=30, label="unequal pair", **slot_style(1))
    axis.set(title=title, xlabel="distance", ylabel="loss", ylim=(0, 13))
    axis.legend(fontsize=8, loc="center right")
for radius, style in ((1.0, "-"), (1.6, "--")):  # d(a, p), and the edge of the margin
    axes[2].add_patch(Circle((0, 0), radius, fill=False, linestyle=style))
places = {
    "anchor": (0, 0),
    "positive": (0.8, 0.6),
    "hard": (-0.6, -0.3),
    "semi-hard": (-0.9, 0.9),
    "easy": (1.5, -1.5),
}
plain = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
for slot, (name, place) in enumerate(places.items()):
    axes[2].scatter(*place, s=60, zorder=3, **slot_style(slot))
    axes[2].annotate(
        name,
        place,
        (0, 8),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        bbox=plain,
    )
axes[2].set(
    title="three kinds of negatives",
    xlim=(-2.1, 2.1),
    ylim=(-2, 2.1),
    aspect="equal",
    xticks=[],
    yticks=[],
)
show(
    figure,
    "Left and middle: loss against distance. For equal pairs it rises; for unequal "
    "pairs it falls, to near 0 for the weighted L1 and to exactly 0 at the margin for "
    "the contrastive loss. Right: an anchor in two circles, the inner one through its "
    "positive, the dashed one a margin farther. A hard negative lies inside the inner "
    "circle, a semi-hard one between, an easy one outside.",
)

# %% [markdown]
# An *easy* negative lies more than the margin farther than the positive: it costs nothing. A *hard* one lies nearer than the positive; with the hardest, training can collapse (03.7 ★). A [semi-hard](../lessons/GLOSSARY.md#semi-hard-negative "半难负样本") one lies between.
#
# ### Exercise 03.4  Contrastive losses, safe at zero  (difficulty 3/5, 8 min)
#
# Row $i$ of `a` and row $i$ of `b` make one pair. Return the contrastive loss of each pair. Its gradient must be finite where the two rows agree.
#
# | `a`, `b` | `same` | `margin` | returned |
# |---|---|---|---|
# | `[P, D]` | bool `[P]` | one number | `[P]` |


# %%
def contrastive_losses(a: Tensor, b: Tensor, same: Tensor, margin: float) -> Tensor:
    """Contrastive losses of pairs of rows. a, b [P, D], same bool [P] -> [P]."""
    # BEGIN SOLUTION
    squared = (a - b).square().sum(1)
    distance = squared.clamp_min(1e-12).sqrt()
    push = (margin - distance).clamp_min(0).square()
    return 0.5 * torch.where(same, squared, push)
    # END SOLUTION


contrastive_losses = check("03.4", contrastive_losses)

# %% [markdown]
# ## Meet the package
#
# The next cell compares your functions with the package's on random input, then prints its source. `class_means(...)` averages the log-odds of each class.

# %%
generator = torch.Generator().manual_seed(3)
left = torch.randn(9, 16, generator=generator)
right = torch.randn(7, 16, generator=generator)
w, b = torch.randn(16, generator=generator), torch.tensor(0.5)
assert torch.allclose(
    log_odds(left, right, w, b), package.weighted_l1(left, right, w) + b, atol=1e-5
)
same = torch.arange(7) % 2 == 0
distance = package.euclidean_distances(left[:7], right).diagonal()
theirs = package.contrastive_losses(distance, same, margin=6.0)
assert torch.allclose(contrastive_losses(left[:7], right, same, 6.0), theirs, atol=1e-4)
for method in (SiameseNetwork.similarities, SiameseNetwork.score, SiameseNetwork.loss):
    print(inspect.getsource(method))

# %% [markdown]
# ## Train for real
#
# Every step sees 120 pictures of 20 classes, hence 7140 pairs, of which 300 are equal. The net starts at $b = 4$ and $w_j = -8/D$, because Adam, at `fit`'s default rate, moves a number by only about 0.001 a step: from 0, the bias would need thousands of steps. The accuracy panel shows validation only: naming, in 20-way episodes of the [validation split](../lessons/GLOSSARY.md#split "数据划分").

# %%
practice = EpisodeSampler(train, n_way=20, k_shot=1, n_query=5, seed=1)
torch.manual_seed(1)
fresh = SiameseNetwork(conv4(32)).eval()  # the same start, kept as it is
torch.manual_seed(1)
nets = {"bce": SiameseNetwork(conv4(32))}
validation = EpisodeSampler(val, n_way=20, k_shot=1, n_query=2, seed=5)
usual = {"steps": 120, "validation": validation, "validate_every": 60}
usual["validation_episodes"] = 30
learned = fit(nets["bce"], practice, **usual)
print(
    f"loss {learned.loss[0]:.2f} at the start, {sum(learned.loss[-20:]) / 20:.2f} at "
    "the end; a coin scores 0.69"
)

# %% [markdown]
# ## One threshold, or all of them: the ROC curve
#
# Deciding whether two pictures show one class is [verification](../lessons/GLOSSARY.md#verification "验证"). A verifier says "same" above a threshold. Lower it, and equal pairs are found (*hits*), but unequal ones taken for equal (*false alarms*). The [ROC curve](../lessons/GLOSSARY.md#roc-curve "ROC 曲线") draws hits against false alarms, for all thresholds.


# %%
def roc(scores: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """False alarms and hits, both rising from 0 to 1. scores [P], same bool [P]."""
    order = scores.argsort(descending=True)
    ranked, equal = scores[order], same[order].double()
    # tied scores share one threshold
    ends = torch.cat([ranked.diff() != 0, torch.tensor([True])])
    start = torch.zeros(1, dtype=torch.float64)
    hits = torch.cat([start, equal.cumsum(0)[ends] / equal.sum()])
    alarms = torch.cat([start, (1 - equal).cumsum(0)[ends] / (1 - equal).sum()])
    return alarms, hits


# %% [markdown]
# ## One number without a threshold: the AUC
#
# The area under the ROC curve, the [AUC](../lessons/GLOSSARY.md#auc "曲线下面积"), answers a question that needs no threshold: how often does a random equal pair outscore a random unequal one? One half means that the scores say nothing.
#
# On paper: equal pairs score 4 and 2, unequal ones 3 and 1. Of the four comparisons only 2 against 3 is lost, so the AUC is 3/4.


# %%
def auc(scores: Tensor, same: Tensor) -> float:
    """Area below the ROC curve. scores [P], same bool [P]."""
    alarms, hits = roc(scores, same)
    return float(torch.trapezoid(hits, alarms))


truth = torch.tensor([True, True, False, False])
print("3 of 4 comparisons won:", auc(torch.tensor([4.0, 2.0, 3.0, 1.0]), truth))
assert auc(torch.zeros(4), truth) == 0.5  # one answer for all says nothing

# %% [markdown]
# ## One threshold that favours nobody: the equal error rate
#
# Somewhere on the curve equal pairs are missed as often as unequal pairs raise an alarm. This share is the [equal error rate](../lessons/GLOSSARY.md#equal-error-rate "等错误率"); it is 50 % for a coin. Now let four nets take an exam on pairs of unseen letters.


# %%
def equal_error(scores: Tensor, same: Tensor) -> float:
    """The false alarms where they equal the misses."""
    alarms, hits = roc(scores, same)
    return float(np.interp(1.0, alarms + hits, alarms))


# %%
exam = EpisodeSampler(test, n_way=20, k_shot=1, n_query=5, seed=9).batch(0, 12)


@torch.no_grad()
def verify(net: SiameseNetwork) -> tuple[Tensor, Tensor]:
    """Scores [P] of all pairs of the exam, and whether they are equal."""
    found = []
    for episode in exam:
        z = net.embed(torch.cat([episode.support_x, episode.query_x]))
        first, second, same = all_pairs(torch.cat([episode.support_y, episode.query_y]))
        found.append((net.similarities(z, z)[first, second], same))
    scores, same = (torch.cat(parts) for parts in zip(*found))
    return scores, same


# %%
exams = {
    "untrained": verify(fresh),
    "trained here": verify(nets["bce"]),
    "shipped": verify(shipped),
}
exams = {
    'always "different"': (
        torch.full_like(exams["shipped"][0], -1.0),
        exams["shipped"][1],
    ),
    **exams,
}
print(f"{'':20s}accuracy  hits   false alarms   AUC   equal error rate")
for name, (scores, same) in exams.items():
    yes = scores > 0
    area, error = auc(scores, same), equal_error(scores, same)
    print(
        f"{name:20s}{(yes == same).double().mean():7.1%}"
        f"{yes[same].double().mean():8.1%}",
        end="",
    )
    print(f"{yes[~same].double().mean():12.1%}{area:10.3f}{error:14.1%}")

# %% tags=["draws"]
figure, axes = new(8.5, 3.2, columns=2)
scores, same = exams["shipped"]
for slot, (kind, name) in enumerate(((same, "equal pairs"), (~same, "unequal pairs"))):
    axes[0].hist(
        scores[kind].clamp(-15, 6),
        bins=60,
        density=True,
        alpha=0.6,
        color=SLOTS[slot],
        label=name,
    )
axes[0].axvline(0, color="black", linestyle=":", label="threshold 0")
axes[0].set(title="shipped net", xlabel="log-odds", ylabel="density")
axes[0].legend(fontsize=8, loc="upper left")
told = []
for slot, (name, (scores, same)) in enumerate(exams.items()):
    alarms, hits = roc(scores, same)
    area, error = auc(scores, same), equal_error(scores, same)
    axes[1].plot(
        alarms,
        hits,
        color=SLOTS[slot],
        linestyle=("--", ":", "-.", "-")[slot],
        label=f"{name}, AUC {area:.3f}",
    )
    axes[1].scatter(error, 1 - error, zorder=3, **slot_style(slot))
    told.append(f"{name} {area:.3f}")
axes[1].set(title="marks: equal error rate", xlabel="false alarms", ylabel="hits")
axes[1].legend(fontsize=8, loc="lower right")
show(
    figure,
    "Left: the shipped net's log-odds; equal pairs lie mostly right of the threshold "
    "0, unequal pairs mostly left of it. Right: ROC curves with their equal error "
    "rates; the better the net, the nearer to the upper left corner. AUC: "
    f"{', '.join(told)}.",
)

# %% [markdown]
# Compare the first row with the last: nearly the same accuracy, but one finds no equal pair, the other most. (The untrained net answers "same" always, because it starts at $b = 4$.) Accuracy depends on the threshold and on the mix of pairs, the AUC on neither.
#
# ## Evaluate honestly
#
# Now the nets name. The class with the larger mean log-odds wins, and the [baselines](../lessons/GLOSSARY.md#baseline "基线") meet the same episodes.

# %%
games = {
    "5-way 1-shot": EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=7),
    "5-way 5-shot": EpisodeSampler(test, n_way=5, k_shot=5, n_query=5, seed=7),
    "20-way 1-shot": EpisodeSampler(test, n_way=20, k_shot=1, n_query=3, seed=7),
}
count = {"5-way 1-shot": 250, "5-way 5-shot": 120, "20-way 1-shot": 80}
learners = {
    name: b for name, b in baselines().items() if name in ("chance", "pixels, cosine")
}
learners["random features"] = random_conv4(0, width=32)
learners |= {"siamese, trained here": nets["bce"], "siamese, shipped": shipped}
results = {}
print(f"{'':24s}" + "".join(f"{game:18s}" for game in games))
for name, learner in learners.items():
    results[name] = {
        game: evaluate(learner, sampler, count[game]) for game, sampler in games.items()
    }
    print(
        f"{name:24s}"
        + "".join(f"{r.mean:6.1%} ± {r.ci95:4.1%}     " for r in results[name].values())
    )
gain = compare(
    results["siamese, trained here"]["5-way 1-shot"],
    results["random features"]["5-way 1-shot"],
)
print("5-way 1-shot, trained here minus random features:", gain)

# %% [markdown]
# At 20 ways the short training more than doubles the accuracy of untrained features; the paired interval, at 5 ways, leaves out zero by far.
#
# **The puzzle: D.** Two nets with about 95 % of pairs right stand above. The lazy one can only guess names, 5 % (C); the shipped one names about 86 %. Not B: naming needs no threshold, the right class must only *outscore* the others.
#
# *Not covered* by [intervals](../lessons/GLOSSARY.md#confidence-interval "置信区间"): other seeds, other alphabets.
#
# ## Contrastive and triplet loss
#
# Start, episodes and steps are the same, but the contrastive net compares plain embeddings, margin 10; the triplet net scales embeddings to length 1, margin 0.2. Predict: does any [paired](../lessons/GLOSSARY.md#paired-comparison "配对比较") interval leave out zero?

# %%
for objective in ("contrastive", "triplet"):
    print(f"training with the {objective} loss")
    torch.manual_seed(1)
    nets[objective] = SiameseNetwork(conv4(32), objective=objective)
    fit(nets[objective], practice, **usual)
for name, net in nets.items():
    pairs = verify(net)
    print(f"{name:12s} AUC {auc(*pairs):.3f}, equal error {equal_error(*pairs):.1%}")
for game in ("5-way 1-shot", "20-way 1-shot"):
    found = {
        name: evaluate(net, games[game], count[game]) for name, net in nets.items()
    }
    print(game, ", ".join(f"{name} {r.mean:.1%}" for name, r in found.items()))
    for name in ("contrastive", "triplet"):
        print(f"   {name} minus bce: {compare(found[name], found['bce'])}")

# %% [markdown]
# At 20 ways both intervals leave out zero: the triplet *net* names best, the contrastive net worst. That proves little about *losses*: normalisation and distance differ too, margins are untuned, each net had one seed.
#
# The idea lives on. Modern contrastive learning, such as SimCLR, keeps the twins and lets a picture find its partner among all pictures of a batch, by a softmax over similarities.

# %% [markdown]
# ## From pairs to names
#
# One comparison is won with probability AUC. Naming takes $N - 1$ wins; is accuracy AUC$^{N-1}$? It would be, if comparisons were independent. They are not, even if all *strangers* (wrong classes) are drawn independently, because they meet the same score $s$ of the right class. Let $F(s)$ be the share of strangers' scores below $s$. *Given* $s$, the query is named rightly with probability $F(s)^{N-1}$. Average over queries:
#
# $$\text{accuracy} = \mathbb{E}\bigl[F(s)^{N-1}\bigr] \;\ge\; \mathbb{E}\bigl[F(s)\bigr]^{N-1} = \text{AUC}^{N-1}$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $s$ | `right` | one number for each query |
# | $F(s)$ | `share` | the same |

# %% [markdown]
# The inequality is [Jensen's](../lessons/GLOSSARY.md#jensen-inequality "琴生不等式"): $u^{N-1}$ is convex, so the mean of its values is at least its value at the mean. Both agree only if all queries have the same $F(s)$.
#
# On paper: half of the queries have $F = 1$, half have $F = 0.9$. The AUC is 0.95, and $0.95^{19} = 0.38$. But one half never fails, and the other succeeds with $0.9^{19} = 0.14$: accuracy is $(1 + 0.14) / 2 = 0.57$. Failures gather in few queries.

# %%
chance_of_a_win = torch.tensor([1.0, 0.9]).repeat(20_000)
wins = torch.rand(40_000, 19, generator=generator) < chance_of_a_win[:, None]
print(f"simulated, on paper 0.57: {wins.all(1).double().mean():.2f}")

# %%
net = nets["bce"]
table = embed_all(net, test.images.flatten(0, 1))  # every test picture once: [8160, 32]
letter = torch.arange(len(table)) // test.images.shape[1]  # class of each picture
drawn = EpisodeSampler(test, 20, 1, 4, seed=11).layout(0, 100)
place = drawn.support_y.argsort(1).gather(1, drawn.query_y)  # row of the right class
asked, partner = drawn.query.flatten(), drawn.support.gather(1, place).flatten()
with torch.no_grad():
    right = net.similarities(table[asked, None], table[partner, None]).flatten()
    # every eighth picture as a rival: other pairs than the exam's, so another AUC
    others = net.similarities(table[asked], table[::8])  # [8000, 1020]
stranger = letter[asked, None] != letter[::8]
pool = others[stranger][::100].sort().values  # scores of strangers, of all queries
share = torch.searchsorted(pool, right).double() / len(pool)
own = ((others < right[:, None]) & stranger).double().sum(1) / stranger.sum(1)
print(f"AUC {share.mean():.3f}; the unluckiest 10 % of the queries beat", end=" ")
print(f"{share.quantile(0.1):.0%} of the strangers or fewer, half beat", end=" ")
print(f"{share.median():.1%} or more")

# %% [markdown]
# ## Explore: three curves and the truth
#
# Predict, look, then change `k_shot` and run both cells again.
#
# 1. How much of the gap to AUC$^{N-1}$ does $\mathbb{E}[F(s)^{N-1}]$ close, and what closes the rest?
# 2. Where do five shots help most: few ways or many?
# 3. Averaging the shots or trusting the best: which wins?
#
# <details><summary>Answers</summary>
#
# 1: at 20 ways AUC$^{19}$ predicts little more than 40 %, one $F$ for all queries about 66 %, and some 68 % are measured. So the shared score explains most of the gap. The small rest: queries do not meet the same strangers. A letter that resembles many others has strong rivals in every comparison, a peculiar one has weak ones, so failures gather once more; with an $F$ of its own for each query, the prediction is right to about one point.
# 2: many ways, where most is left to gain: about 13 points at 20 ways against 3 at 2 ways.
# 3: nearly alike. Both met the same episodes, so read the paired differences: none is much larger than one point. Only at 10 ways did the interval leave out 0 here, in favour of the best shot.
#
# </details>

# %%
k_shot, ways = 5, (2, 5, 10, 20)


@torch.no_grad()
def named_rightly(n_way: int, shots: int, best: bool = False) -> Tensor:
    """Accuracy of each of 100 episodes."""
    drawn = EpisodeSampler(test, n_way, shots, 4, seed=11).layout(0, 100)
    odds = net.similarities(table[drawn.query], table[drawn.support])  # [100, M, S]
    mine = F.one_hot(drawn.support_y, n_way).bool()[:, None]  # [100, 1, S, N]
    apart = odds[..., None].masked_fill(~mine, -torch.inf if best else 0.0)
    scores = apart.amax(2) if best else apart.sum(2)  # equal shots: sums rank as means
    return (scores.argmax(-1) == drawn.query_y).double().mean(-1)


found = {
    "1 shot": [named_rightly(n, 1) for n in ways],
    f"{k_shot} shots, averaged": [named_rightly(n, k_shot) for n in ways],
    f"{k_shot} shots, the best": [named_rightly(n, k_shot, best=True) for n in ways],
}
measured = {name: [mean_and_ci95(a) for a in parts] for name, parts in found.items()}
averaged, best = list(found.values())[1:]
measured["  best minus averaged"] = [
    mean_and_ci95(b - a) for a, b in zip(averaged, best)
]
predicted = {
    "AUC to the N − 1": [float(share.mean() ** (n - 1)) for n in ways],
    "one F for all": [float((share ** (n - 1)).mean()) for n in ways],
    "an F for each query": [float((own ** (n - 1)).mean()) for n in ways],
}
print(f"{'':22s}" + "".join(f"{n:8d} ways   " for n in ways))
for name, values in predicted.items():
    print(f"{name:22s}" + "".join(f"{value:8.1%}        " for value in values))
for name, pairs in measured.items():
    print(f"{name:22s}" + "".join(f"{m:8.1%} ± {h:4.1%} " for m, h in pairs))

# %% tags=["draws"]
figure, axis = new(7, 3.2)
for slot, (name, pairs) in enumerate(list(measured.items())[:3]):
    means, halves = zip(*pairs)
    label = f"measured, {name}"
    axis.errorbar(ways, means, yerr=halves, capsize=3, label=label, **slot_style(slot))
for style, (name, values) in zip((":", "--", "-."), predicted.items()):
    axis.plot(ways, values, color="black", linestyle=style, label=f"1 shot, {name}")
axis.plot(ways, [1 / n for n in ways], color=CHANCE, linestyle="--", label="chance")
axis.set(xlabel="ways N", ylabel="accuracy", xticks=ways, ylim=(0, 1.03))
axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
told = "; ".join(f"{name} {values[-1]:.0%}" for name, values in predicted.items())
show(
    figure,
    "Accuracy against ways. The measured curve for one shot lies far above AUC to the "
    "N − 1, somewhat above the prediction with one F for all, and next to the one with "
    f"an F for each query. {k_shot} shots lie above one shot. At 20 ways: {told}; "
    f"measured {measured['1 shot'][-1][0]:.0%}.",
)

# %% [markdown]
# ## Bug hunt
#
# Koch et al. train on drawn pairs. So does a colleague: 200 pairs from each of your episodes, and the plain mean of their losses. The report is splendid: over 90 % of the pairs right, a tiny loss. But the app, which names letters, disappoints.

# %%
Draw = Callable[[Tensor, int, torch.Generator], tuple[Tensor, Tensor]]


class DrawnPairs(SiameseNetwork):
    """Learns from pairs that draw(labels, count, generator) picks out of an episode."""

    def __init__(self, draw: Draw) -> None:
        super().__init__(conv4(32))
        self.draw, self.generator, self.right = (
            draw,
            torch.Generator().manual_seed(0),
            [],
        )

    def loss(self, episode: Episode) -> Tensor:
        labels = torch.cat([episode.support_y, episode.query_y])
        z = self.embed(torch.cat([episode.support_x, episode.query_x]))
        first, second = self.draw(labels, 200, self.generator)
        odds = self.similarities(z, z)[first, second]
        same = labels[first] == labels[second]
        self.right.append(float(((odds > 0) == same).double().mean()))
        return F.binary_cross_entropy_with_logits(odds, same.to(odds.dtype))


# %%
def colleague(
    labels: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` pairs of rows. labels int64 [B] -> first, second int64 [count]."""
    first = torch.randint(len(labels), (count,), generator=generator)
    second = torch.randint(len(labels), (count,), generator=generator)
    return first, second


torch.manual_seed(1)
unfair = DrawnPairs(colleague)
history = fit(unfair, practice, **usual)
scores, same = verify(unfair)

# %%
print(
    f"report: {sum(unfair.right[-20:]) / 20:.1%} of training pairs right, loss "
    f"{sum(history.loss[-20:]) / 20:.2f}"
)
print(
    f"new letters: {((scores > 0) == same).double().mean():.1%} of pairs right,",
    end=" ",
)
print(f"but only {(scores[same] > 0).double().mean():.0%} of the equal ones found")
named = {"unfair": evaluate(unfair, games["5-way 1-shot"], 250)}
print(
    f"naming, 5-way 1-shot: {named['unfair'].mean:.1%}; yours "
    f"{results['siamese, trained here']['5-way 1-shot'].mean:.1%}"
)

# %% [markdown]
# 96 % of the pairs are right, as for a lazy net, and most equal pairs are missed. Look at `colleague` for two minutes. What is unfair? Find two things.
#
# ### Exercise 03.5  Bug hunt: are the pairs fair?  (difficulty 3/5, 8 min)
#
# Write the test that would have warned your colleague. `draw(labels, count, generator)` returns two vectors of row numbers; let it draw 2000 pairs, with a `torch.Generator()` of yours. Return `True` when
#
# - the share of equal pairs lies outside 0.4 to 0.6, or
# - any picture is paired with itself.


# %%
def exposes_pairs(draw: Draw, labels: Tensor) -> bool:
    """True when a sampler's pairs are unfair.
    draw: (labels, count, generator) -> first, second int64 [count].
    """
    # BEGIN SOLUTION
    first, second = draw(labels, 2000, torch.Generator().manual_seed(0))
    share = float((labels[first] == labels[second]).double().mean())
    itself = bool((first == second).any())
    return not 0.4 <= share <= 0.6 or itself
    # END SOLUTION


exposes_pairs = check("03.5", exposes_pairs)
labels = torch.arange(20).repeat_interleave(6)
print("the colleague's pairs are unfair:", exposes_pairs(colleague, labels))

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# Both rows are drawn at random, so only one pair in 20 is equal, and one equal pair in six is a picture with itself. For such a pair every difference is 0, so the encoder learns nothing from it.
# "Different" is nearly always right, the loss is small from the start, and only about 8 of 200 pairs show what two drawings of one letter have in common.
#
# </details>
#
# The cure: half and half, and never a picture with itself. Here the package draws; in 03.6 ★ you write it.


# %%
def fair(
    labels: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The cure, in the form that your test takes."""
    return package.sample_pairs(labels, count, generator)[:2]


assert exposes_pairs(colleague, labels)
assert not exposes_pairs(fair, labels)
torch.manual_seed(1)
cured = DrawnPairs(fair)
fit(cured, practice, **usual)
print(f"report: {sum(cured.right[-20:]) / 20:.1%} of training pairs right")
for name, net in (("unfair", unfair), ("cured", cured)):
    scores, same = verify(net)
    print(
        f"{name:6s} on new letters: {((scores > 0) == same).double().mean():.1%} of "
        "pairs right,",
        end=" ",
    )
    print(
        f"{(scores[same] > 0).double().mean():.0%} of the equal ones found, AUC "
        f"{auc(scores, same):.3f}"
    )
named["cured"] = evaluate(cured, games["5-way 1-shot"], 250)
print(
    "naming, 5-way 1-shot: "
    + ", ".join(f"{name} {result.mean:.1%}" for name, result in named.items())
)
print("cured minus unfair:", compare(named["cured"], named["unfair"]))

# %% [markdown]
# The cured net has *fewer* pairs right and names better. Did the cure repair the threshold or the ranking? Log-odds contain $\log \frac{\pi}{1 - \pi}$, and the colleague's pairs were 5 equal to 114 unequal: add $\log(114/5) = 3.1$ to the bias. As a second trial, keep the imbalance, but learn from *all* 7140 pairs of an episode. Predict hits, AUC and naming for each.

# %%
rare = float(np.log(114 / 5))  # each row: 114 strangers, 5 of its own class
scores, same = verify(unfair)
for name, shift in (("unfair", 0.0), ("unfair, bias + 3.1", rare)):
    yes = scores + shift > 0
    print(
        f"{name:19s} {yes[same].double().mean():4.0%} of the equal ones found,", end=""
    )
    print(f" {yes[~same].double().mean():4.0%} false alarms,", end=" ")
    print(f"AUC {auc(scores + shift, same):.3f}")
torch.manual_seed(1)
every = DrawnPairs(lambda labels, count, generator: all_pairs(labels)[:2])
fit(every, practice, **usual)
scores, same = verify(every)
print(
    f"all pairs, plain mean: {(scores[same] > 0).double().mean():.0%} of the", end=" "
)
print(f"equal ones found, AUC {auc(scores, same):.3f}")
named["every"] = evaluate(every, games["5-way 1-shot"], 250)
print(f"naming, 5-way 1-shot: {named['every'].mean:.1%}")
balanced = results["siamese, trained here"]["5-way 1-shot"]
print("balanced minus plain, all pairs:", compare(balanced, named["every"]))
print("plain, all pairs, minus unfair:", compare(named["every"], named["unfair"]))

# %% [markdown]
# The shifted bias repairs the *threshold*: hits rise from few to most. But a number added to all scores changes no ranking, so AUC and naming stay as bad. The last net learned from the same imbalance, yet it ranks and names about like your balanced one. So imbalance alone costs the threshold. What costs the ranking is how few *equal* pairs a step shows: 8 for the colleague, 100 for the cured net, 300 for yours. With your loss, 8 equal and all unequal pairs name about 75 %, all equal and 192 unequal ones about 85 %.

# %% [markdown]
# ## Quiz
#
# **1. AUC 0.98, accuracy 60 %. What is wrong?**
# (a) the embedding, (b) the threshold, (c) the AUC
#
# <details><summary>Answer</summary>
#
# (b). The ranking is excellent, against (a): move the threshold. (c) is no contradiction: the AUC knows no threshold.
#
# </details>
#
# **2. You add 5 to the trained bias. What changes?**
# (a) verification, (b) naming, (c) both
#
# <details><summary>Answer</summary>
#
# (a). More pairs pass the threshold 0. All scores of a query rise alike, so the winner stays, against (b) and (c).
#
# </details>
#
# **3. Two blank pictures meet a bare root. What happens?**
# (a) nothing, (b) NaN weights, (c) an error
#
# <details><summary>Answer</summary>
#
# (b). The loss is finite, but its gradient is infinity times zero, against (a). PyTorch raises nothing, against (c); `fit` does look, and stops.
#
# </details>
#
# **4. Why not the hardest negative?**
# (a) slow, (b) collapse, (c) zero loss
#
# <details><summary>Answer</summary>
#
# (b). A negative nearer than the positive is most cheaply served by moving everything to one point, where the loss is just the margin. (a): it costs the same search. (c) is true of easy negatives.
#
# </details>
#
# **5. Two nets have AUC 0.95. For A, every query beats 95 % of the strangers; for B, half of the queries beat all and half beat 90 %. Which names better at 20 ways?**
# (a) A, (b) B, (c) both alike
#
# <details><summary>Answer</summary>
#
# (b). A names $0.95^{19} = 38$ %, B 57 %, as worked out above: B's failures gather in few queries. (a) and (c) forget that the mean of the power exceeds the power of the mean.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | method | one encoder, weighted absolute differences, a sigmoid; trained on pairs |
# | naming | average the log-odds of each class, take the largest |
# | measure | AUC and equal error rate for pairs, accuracy for names |
# | from pairs to names | $\mathbb{E}[F(s)^{N-1}]$, at least AUC$^{N-1}$ |
# | rare equal pairs | shift the threshold by the log of the ratio; too few equal pairs a step spoil the ranking |
# | later | pairs of sentences: [20](../notebooks/20_words.ipynb) |
#
# Pitfalls: the accuracy of pairs; few equal pairs; a bare root at zero. The net learns from pairs, but is tested on episodes: the [next lesson]({{next}}) trains on what it tests.
#
# ## References
#
# | source | for |
# |---|---|
# | Koch, Zemel and Salakhutdinov (2015), *Siamese Neural Networks for One-shot Image Recognition* | section 3.1: weighted L1 and sigmoid; 3.2: the loss |
# | Hadsell, Chopra and LeCun (2006), *Dimensionality Reduction by Learning an Invariant Mapping* | equation 4: contrastive loss; there $Y = 0$ means equal |
# | Schroff, Kalenichenko and Philbin (2015), *FaceNet* | equation 3: triplet loss; 4 and section 3.2: semi-hard negatives |
# | Chen, Kornblith, Norouzi and Hinton (2020), *A Simple Framework for Contrastive Learning of Visual Representations* | SimCLR, the twins of today |

# %% [markdown]
# ### Exercise 03.6 ★  A balanced pair sampler  (difficulty 3/5, 8 min)
#
# Return `count` (even) pairs, in any order, exactly half of them equal. No row meets itself. Every possible pair can come, also twice. A class may have a single picture. Hand `generator` to every random call.
#
# `table.nonzero()` lists the positions `[P, 2]` where a table is True.


# %%
def draw_pairs(
    labels: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Half equal, half unequal pairs.
    labels int64 [B], count even -> first, second int64 [count].
    """
    # BEGIN SOLUTION
    equal, drawn = labels[:, None] == labels, []
    for table in (equal & ~torch.eye(len(labels), dtype=torch.bool), ~equal):
        pool = table.nonzero()
        drawn.append(pool[torch.randint(len(pool), (count // 2,), generator=generator)])
    return torch.cat(drawn).unbind(1)
    # END SOLUTION


draw_pairs = check("03.6", draw_pairs)
print("your pairs are unfair:", exposes_pairs(draw_pairs, labels))

# %% [markdown]
# ### Exercise 03.7 ★  Semi-hard negatives  (difficulty 3/5, 8 min)
#
# For each anchor return its negative: the *nearest stranger farther than the positive* (strictly); where there is none, the farthest stranger. No margin is needed: a triplet beyond it costs nothing anyway.
#
# | | shape |
# |---|---|
# | `to_positive`: squared distance to the positive | `[P]` |
# | `to_all`: squared distances to every picture | `[P, B]` |
# | `stranger`: True for pictures of other classes | bool `[P, B]` |
# | returned: rows | int64 `[P]` |


# %%
def semi_hard(to_positive: Tensor, to_all: Tensor, stranger: Tensor) -> Tensor:
    """Rows of the semi-hard negatives.
    to_positive [P], to_all [P, B], stranger bool [P, B] -> int64 [P].
    """
    # BEGIN SOLUTION
    farther = stranger & (to_all > to_positive[:, None])
    nearest = to_all.masked_fill(~farther, torch.inf).argmin(1)
    farthest = to_all.masked_fill(~stranger, -torch.inf).argmax(1)
    return torch.where(farther.any(1), nearest, farthest)
    # END SOLUTION


semi_hard = check("03.7", semi_hard)
z = F.normalize(torch.randn(12, 4, generator=generator), dim=1)
names = torch.arange(12) % 4
squared = (z[:, None] - z).square().sum(2)
anchor, positive, negative = package.semi_hard_negatives(squared, names)
assert torch.equal(
    semi_hard(
        squared[anchor, positive], squared[anchor], names[anchor][:, None] != names
    ),
    negative,
)


# %%
class Hardest(SiameseNetwork):
    """Triplets with the nearest stranger as the negative, however near."""

    def loss(self, episode: Episode) -> Tensor:
        labels = torch.cat([episode.support_y, episode.query_y])
        z = self.embed(torch.cat([episode.support_x, episode.query_x]))
        squared = package.euclidean_distances(z, z).square()
        equal = labels[:, None] == labels
        nearest = squared.masked_fill(equal, torch.inf).amin(1)[:, None]  # [B, 1]
        losses = (squared - nearest + self.margin).clamp_min(0)
        return losses[equal & ~torch.eye(len(z), dtype=torch.bool)].mean()


torch.manual_seed(1)
hardest = Hardest(conv4(32), objective="triplet")
history = fit(hardest, practice, **usual)
for name, net in (("semi-hard", nets["triplet"]), ("hardest", hardest)):
    scores, same = verify(net)
    print(f"{name:9s} mean squared distance of two letters", end=" ")
    print(f"{scores[~same].square().mean():.3f}, AUC {auc(scores, same):.3f}", end=", ")
    print(f"5-way 1-shot {evaluate(net, games['5-way 1-shot'], 250).mean:.1%}")
print(f"loss with the hardest negatives: {sum(history.loss[-20:]) / 20:.3f}")

# %% [markdown]
# With the hardest negatives the embeddings collapse: letters nearly coincide, and the loss stands at 0.20, the margin. Semi-hard negatives avoid this trap.
#
# ### Exercise 03.8 ★  NaN hunt  (difficulty 3/5, 8 min)
#
# The symptom: a long training ends in NaN, although every *value* that you print is fine. `distance(a, b)` takes `[P, D]` twice and returns `[P]`.
# Return `True` when the gradient with respect to `a`, or to `b`, is not finite at equal rows. A finite gradient of any size is fine.


# %%
def exposes_nan(distance: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """True when gradients at distance zero are not finite.
    distance: a [P, D], b [P, D] -> [P].
    """
    # BEGIN SOLUTION
    a = torch.tensor([[1.0, 2.0], [0.0, 1.0]], requires_grad=True)
    b = torch.tensor([[1.0, 2.0], [2.0, 0.0]], requires_grad=True)
    slopes = torch.autograd.grad(distance(a, b).sum(), (a, b))
    return not all(bool(slope.isfinite().all()) for slope in slopes)
    # END SOLUTION


exposes_nan = check("03.8", exposes_nan)
print({name: exposes_nan(distance) for name, distance in ways_at_zero.items()})

# %% [markdown]
# The two distances with NaN are exposed, and no sound one is.
#
# ### Exercise 03.9 ★  Siamese networks from memory  (difficulty 3/5, 10 min)
#
# Close the cells above. From pictures, compute scores `[M, N]`, the mean log-odds of each class, and the balanced loss over all pairs of support and query pictures together. `encoder` turns `[B, c, H, W]` into `[B, D]`. Shots may be unequal, and some pairs surely wrong: log-odds of ±200 again.


# %%
def siamese(
    encoder: nn.Module,
    weight: Tensor,
    bias: Tensor,
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    n_way: int,
) -> tuple[Tensor, Tensor]:
    """Pictures and labels of an episode, weight [D],
    bias scalar -> scores [M, n_way], loss (a scalar).
    """
    # BEGIN SOLUTION
    shots, labels = len(support_x), torch.cat([support_y, query_y])
    z = encoder(torch.cat([support_x, query_x]))
    table = (z[:, None] - z).abs() @ weight + bias
    asked = table[shots:, :shots]
    by_class = [asked[:, support_y == k].mean(1) for k in range(n_way)]
    scores = torch.stack(by_class, dim=1)
    first, second = torch.triu_indices(len(z), len(z), 1)
    odds, same = table[first, second], labels[first] == labels[second]
    return (
        scores,
        (F.softplus(-odds[same]).mean() + F.softplus(odds[~same]).mean()) / 2,
    )
    # END SOLUTION


siamese = check("03.9", siamese)
episode, net = games["5-way 1-shot"][0], nets["bce"]
with torch.no_grad():
    inputs = episode.support_x, episode.support_y, episode.query_x, episode.query_y, 5
    scores, loss = siamese(net.encoder, net.weight, net.bias, *inputs)
    assert torch.allclose(scores, net(episode), atol=1e-3)
    assert torch.allclose(loss, net.loss(episode), atol=1e-3)
print("your function and the trained package's net agree")
progress("03")
