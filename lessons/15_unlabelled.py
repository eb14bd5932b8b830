# %% [markdown]
# # 15 Unlabelled pictures: what nobody has named, and which to ask about
#
# Labels are dear and pictures are cheap. You let unnamed pictures move the prototypes, keep strangers out, watch guessed labels confirm themselves, and choose which few pictures deserve a question.
#
# Prerequisites: lessons 01 and 05. Planned time: 60 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** Which assumption turns squared distances into probabilities by a softmax?
#
# <details><summary>Answer</summary>
#
# Every class is a round Gaussian cloud of one common variance, and all classes are equally frequent. Bayes' rule gives the softmax (lesson 05).
#
# </details>
#
# **2.** What makes a method transductive?
#
# <details><summary>Answer</summary>
#
# A query's answer depends on the other queries. So the number that it reaches belongs to a whole set of queries, and that must be said beside it.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **compute** one step of soft k-means (exercises 15.1, 15.2),
# 2. **mask** pictures that belong to no class of the task (exercise 15.3),
# 3. **explain** how guessed labels confirm themselves, and what protects (quiz 2, mask of exercise 15.3),
# 4. **choose** the pictures to ask about (exercise 15.4),
# 5. **expose** a mask that counts twice (exercise 15.5).

# %% [markdown]
# ## A puzzle: help from a drawer?
#
# You have five new letters and one named drawing of each. A drawer holds more drawings, and nobody has named them. Three drawers are possible:
#
# - **A**: ten further drawings of each of your five letters,
# - **B**: the same, mixed with ten drawings of each of five *other* letters,
# - **C**: only the drawings of the other letters.
#
# Drawings of other letters are called [distractors](../lessons/GLOSSARY.md#distractor "干扰样本"), or strangers here. The plain method uses every picture in the drawer. Write down for A, B and C: does accuracy rise, fall, or stay?

# %%
import inspect

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

import fsl_course
from fsl_classroom import check, progress
from fsl_course import EpisodeSampler, compare, evaluate, fit, load_glyphs
from fsl_course.evaluation import embed_all, mean_and_ci95
from fsl_course.figures import CHANCE, PROTOTYPE_MARKER, SLOTS, new, show, slot_style
from fsl_course.methods import soft_kmeans as package
from fsl_course.methods.prototypical import (
    PrototypicalNetwork,
    prototypes,
    squared_distances,
)
from fsl_course.nets import conv4

torch.manual_seed(0)
glyphs = load_glyphs()
train, test = glyphs.split("train"), glyphs.split("test")

# %% [markdown]
# ## The idea in one picture
#
# One named drawing is a poor estimate of a class: it may lie at the edge of its cloud. Unnamed drawings show where the clouds are. So let each of them pull the nearest [prototype](../lessons/GLOSSARY.md#prototype "原型") a little, and the prototype moves from the edge towards the middle.
#
# The next cell makes up three clouds in the plane. Each has one named point, and twelve unnamed ones.

# %%
generator = torch.Generator().manual_seed(5)
middles = torch.tensor([[0.0, 0.0], [4.0, 0.5], [1.8, 3.6]])
named = middles + torch.tensor([[-1.2, 0.4], [0.9, 1.0], [0.2, 1.4]])
named_y = torch.arange(3)
unnamed = middles.repeat_interleave(12, 0)
unnamed = unnamed + 0.6 * torch.randn(36, 2, generator=generator)
# The package's `shares` takes the distances; yours, in exercise 15.1, computes them.
weights = package.shares(squared_distances(unnamed, named))
after = package.refined(named, named_y, unnamed, weights, 3)
for k in range(3):
    before_gap, after_gap = ((c[k] - middles[k]).norm() for c in (named, after))
    print(f"class {k}: distance to the middle {before_gap:.2f}, then {after_gap:.2f}")

# %% tags=["draws"]
figure, axes = new(7, 3.6)
axes.scatter(*unnamed.T, s=18, color=CHANCE, label="unnamed")
for k in range(3):
    axes.scatter(*named[k], s=60, label=f"named, class {k}", **slot_style(k))
    axes.scatter(
        *after[k],
        s=220,
        marker=PROTOTYPE_MARKER,
        color=SLOTS[k],
        edgecolor="black",
        label=f"refined centre, class {k}",
    )
    axes.annotate(
        "", after[k].tolist(), named[k].tolist(), arrowprops={"arrowstyle": "->"}
    )
axes.scatter(*middles.T, s=70, marker="+", color="black", label="true middle")
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
show(
    figure,
    "Three grey clouds of unnamed points, each with a black cross in its "
    "true middle. A coloured marker, the one named point of a "
    "class, lies at the edge of each cloud; an arrow leads from it to a star near the "
    "middle of the cloud, the refined centre.",
)

# %% [markdown]
# Every star lies nearer to the middle of its cloud than the named point from which it started. That is the whole method. When does it go wrong?

# %% [markdown]
# ## Why it should work
#
# In lesson 05 a class was a round Gaussian around $c_k$. A picture without a label comes from *some* class, so its density is a mixture: the mean of the $N$ densities. We want centres that make named and unnamed pictures likely. For an unnamed embedding $u_j$, the gradient of the mixture's log-density with respect to $c_k$ is, up to a factor,
#
# $$p_{jk}\,(u_j - c_k), \qquad p_{jk} = \frac{\exp(-\|u_j - c_k\|^2)}{\sum_{k'} \exp(-\|u_j - c_{k'}\|^2)} \tag{1}$$

# %% [markdown]
# So an unnamed picture pulls like a named one, weakened by its **share** $p_{jk}$, the probability that it belongs to class $k$. Hold the shares fixed and ask where all pulls cancel. That is at a mean with weights:
#
# $$\tilde c_k = \frac{\sum_{i:\, y_i = k} z_i + \sum_j p_{jk}\, u_j}{K + \sum_j p_{jk}} \tag{2}$$
#
# Computing shares and then means, again and again, is the [EM algorithm](../lessons/GLOSSARY.md#em-algorithm "EM 算法") for Gaussian mixtures, also called [soft k-means](../lessons/GLOSSARY.md#soft-k-means "软 k 均值"). We take *one* step; below you see what more steps do.
#
# | symbol | variable | shape |
# |---|---|---|
# | $z_i$, $y_i$ | `support`, `labels` | `[S, D]`, `[S]` |
# | $u_j$ | `unlabelled` | `[U, D]` |
# | $p_{jk}$ | `weights` | `[U, N]` |
# | $\tilde c_k$ | refined centres | `[N, D]` |
# | $N$; $K$ | `n_way`; shots of class $k$ | numbers |

# %% [markdown]
# ## By hand
#
# Two classes on a line. Class 0 has the named picture 0, class 1 the named picture 4, and two pictures have no name: 2 and 0.
#
# | unnamed | squared distances | shares |
# |---|---|---|
# | 2 | 4 and 4 | 1/2 and 1/2 |
# | 0 | 0 and 16 | 1 and 0, nearly |
#
# The new centre of class 0 is $(0 + \tfrac12 \cdot 2 + 1 \cdot 0) / (1 + \tfrac12 + 1) = 0.4$. Now you: where does the centre of class 1 go?

# %% tags=["nbval-check-output"]
support, labels = torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1])
unlabelled = torch.tensor([[2.0], [0.0]])
above, below = [0.0, 4.0], [1.0, 1.0]  # the named pictures, with weight 1
for u in unlabelled[:, 0].tolist():
    mass = torch.tensor([-((u - c) ** 2) for c in (0.0, 4.0)]).exp()
    for k in range(2):
        above[k] += float(mass[k] / mass.sum()) * u
        below[k] += float(mass[k] / mass.sum())
by_hand = [a / b for a, b in zip(above, below)]
print("new centres:", [round(c, 2) for c in by_hand])

# %% [markdown]
# The centre of class 1 moves from 4 to 5/1.5, about 3.33: it gets half a picture, which lies at 2.

# %% [markdown]
# ### Exercise 15.1  Shares  (difficulty 1/5, 4 min)
#
# Return the share of every unlabelled picture in every class, equation (1). A picture that is far from all centres must have shares, too, that sum to one.
#
# | `unlabelled` | `centres` | returned |
# |---|---|---|
# | `[U, D]` | `[N, D]` | `[U, N]`, rows sum to one |
#
# A squared distance is the sum of the squared differences.


# %%
def shares(unlabelled: Tensor, centres: Tensor) -> Tensor:
    """Shares of pictures in classes. unlabelled [U, D], centres [N, D] -> [U, N]."""
    # BEGIN SOLUTION
    apart = unlabelled[:, None] - centres  # [U, N, D]
    return (-apart.square().sum(2)).softmax(1)
    # END SOLUTION


shares = check("15.1", shares)

# %% [markdown]
# ### Exercise 15.2  Refined centres  (difficulty 2/5, 7 min)
#
# Return the centres of equation (2). `weights[j, k]` says how much picture $j$ counts for class $k$; its rows need not sum to one, because a mask will lower them later. Shots may differ from class to class, every class has at least one, and the pool may be empty.
#
# | `support`, `labels` | `unlabelled` | `weights` | returned |
# |---|---|---|---|
# | `[S, D]`, `[S]` | `[U, D]` | `[U, N]` | `[n_way, D]` |
#
# The support rows of a class have weight 1. `F.one_hot(labels, n_way)` says which they are. Build it in the dtype of `support`.


# %%
def refine(
    support: Tensor, labels: Tensor, unlabelled: Tensor, weights: Tensor, n_way: int
) -> Tensor:
    """Weighted means of support and unlabelled rows -> [n_way, D]."""
    # BEGIN SOLUTION
    member = F.one_hot(labels, n_way).to(support.dtype)  # [S, N]
    total = member.T @ support + weights.T @ unlabelled
    return total / (member.sum(0) + weights.sum(0))[:, None]
    # END SOLUTION


refine = check("15.2", refine)

# %% tags=["nbval-check-output"]
# 1. The loop on paper and the matrix products agree.
vectorised = refine(support, labels, unlabelled, shares(unlabelled, support), 2)
assert torch.allclose(vectorised[:, 0], torch.tensor(by_hand), atol=1e-5)
# 2. An empty pool leaves a prototypical network.
nobody = torch.zeros(0, 2)
empty = refine(named, named_y, nobody, shares(nobody, named), 3)
assert torch.allclose(empty, prototypes(named, named_y, 3))
# 3. The pool has no order.
turned = unnamed.flip(0)
again = refine(named, named_y, turned, shares(turned, named), 3)
assert torch.allclose(again, after, atol=1e-5)


# 4. The gradient passes through shares and means, in float64.
def step(z: Tensor, u: Tensor) -> Tensor:
    return refine(z, labels, u, shares(u, prototypes(z, labels, 2)), 2)


pair = [t.double().requires_grad_() for t in (support, unlabelled + 0.5)]
assert torch.autograd.gradcheck(step, pair)
print("loop, empty pool, order and gradient: four laws hold")

# %% [markdown]
# ## Does it help? Drawer A
#
# Now real letters. The encoder is the [ProtoNet](../notebooks/05_prototypical.ipynb) that the course ships; it has never seen the test letters, and nothing is trained here. All pictures are embedded once.
#
# `deal` draws tasks with a drawer. `unlabelled_y` holds the truth about the drawer (−1 for a stranger); it stays with us, for marking, and no method sees it.

# %%
few = test.select(range(0, len(test), 2))  # every second test letter
encoder = fsl_course.pretrained("prototypical", "glyphs")
table = embed_all(encoder, few.images.flatten(0, 1))


def deal(n_way: int, per_class: int, strangers: int, tasks: int = 300, shots: int = 1):
    """Many tasks: their layout, and embeddings of support, queries and drawer."""
    sampler = EpisodeSampler(
        few, n_way, shots, 5, n_unlabelled=per_class, n_distractors=strangers
    )
    drawn = sampler.layout(0, tasks)
    return drawn, *(table[i] for i in (drawn.support, drawn.query, drawn.unlabelled))


shown, *_ = deal(5, 10, 5, tasks=1)
print("drawer B:", shown.unlabelled_y[0].add(1).bincount().tolist(), "pictures:")
print("   strangers, and then those of slots 0 to 4")


# %%
def gain(weigh, drawn, support, query, pool, steps=1) -> tuple[Tensor, Tensor]:
    """Accuracies [tasks] of the prototypes and of the refined centres."""
    found = []
    for s, s_y, q, q_y, u in zip(support, drawn.support_y, query, drawn.query_y, pool):
        start = prototypes(s, s_y, len(drawn.classes[0]))
        moved = start
        for _ in range(steps):
            moved = refine(s, s_y, u, weigh(u, moved), len(start))
        found.append(
            [
                float((squared_distances(q, c).argmin(1) == q_y).double().mean())
                for c in (start, moved)
            ]
        )
    return tuple(torch.tensor(found, dtype=torch.float64).T)


def report(name: str, weigh, tasks) -> None:
    """Prints the accuracy with the drawer, and the paired difference from without."""
    before, moved = gain(weigh, *tasks)
    change, half = mean_and_ci95(moved - before)
    print(f"{name:28s}{moved.mean():6.1%}   {100 * change:+6.2f} ± {100 * half:.2f}")


# %%
drawers = {"A: own letters": deal(5, 10, 0), "B: own and strangers": deal(5, 10, 5)}
drawn, support_z, query_z, pool = drawers["B: own and strangers"]
foreign = pool[drawn.unlabelled_y < 0].view(len(pool), -1, pool.shape[-1])
drawers["C: strangers only"] = (drawn, support_z, query_z, foreign)

before, _ = gain(shares, *drawers["A: own letters"])
print(f"{'':28s}accuracy   points more than without, 95 % interval")
print(f"{'no drawer':28s}{before.mean():6.1%}")
for name, tasks in drawers.items():
    report(name, shares, tasks)

# %% [markdown]
# **The puzzle.** Drawer A helps: accuracy rises by almost two points, more than half of what was still wrong, and the paired interval leaves out 0. Drawer B does nothing that the interval can tell from 0: what the own drawings win, the strangers lose. Drawer C costs about twelve points. The rows share their support and queries.
#
# Why does C cost so much? Shares sum to one. A stranger, however far away, is shared out among five classes to which it does not belong, and pulls their centres away. One named picture stands against about ten strangers.

# %% [markdown]
# ## Keep strangers out
#
# A picture may count only if it is near enough. "Near" depends on the encoder, so divide each class's distances by their mean over the drawer, and multiply every share by a soft mask:
#
# $$m_{jk} = \sigma\big(-\gamma_k\,(\tilde d_{jk} - \beta_k)\big), \qquad \tilde d_{jk} = \frac{\|u_j - c_k\|^2}{\tfrac1U \sum_{j'} \|u_{j'} - c_k\|^2} \tag{3}$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $\tilde d_{jk}$ | distances over their mean | `[U, N]` |
# | $\beta_k$ | `beta`, the border, where the mask is 1/2 | `[N]` |
# | $\gamma_k$ | `gamma`, the steepness | `[N]` |
# | $m_{jk}$ | the mask | `[U, N]`, from 0 to 1 |

# %% [markdown]
# On paper: distances 1, 3 and 8 have mean 4, so $\tilde d$ is 1/4, 3/4 and 2. With $\beta = 1/2$ and $\gamma = 4$ the mask is $\sigma(1)$, $\sigma(-1)$ and $\sigma(-6)$: about 0.73, 0.27 and 0.002.

# %% [markdown]
# ### Exercise 15.3  The mask  (difficulty 2/5, 5 min)
#
# Return the mask $m_{jk}$ of equation (3). Every class has a border and a steepness of its own, and a mean over the pictures of its own. A steep border, $\gamma_k = 200$, must give numbers, too.
#
# | `distances` | `beta` | `gamma` | returned |
# |---|---|---|---|
# | `[U, N]`, squared | `[N]` | `[N]` | `[U, N]` |


# %%
def soft_mask(distances: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """How far each picture counts for each class. distances [U, N] -> [U, N]."""
    # BEGIN SOLUTION
    normalised = distances / distances.mean(0)
    return torch.sigmoid(-gamma * (normalised - beta))
    # END SOLUTION


soft_mask = check("15.3", soft_mask)

# %%
beta, gamma = torch.full((5,), 0.5), torch.full((5,), 10.0)


def masked(unlabelled: Tensor, centres: Tensor, border: Tensor = beta) -> Tensor:
    """Shares times mask, with one border and steepness for all classes."""
    found = squared_distances(unlabelled, centres)
    return shares(unlabelled, centres) * soft_mask(found, border, gamma)


def one_scale(unlabelled: Tensor, centres: Tensor) -> Tensor:
    """As masked, but all distances are divided by 24, about their mean in drawer B."""
    normalised = squared_distances(unlabelled, centres) / 24
    return shares(unlabelled, centres) * torch.sigmoid(-10 * (normalised - 0.5))


# %%
print(f"{'mask: beta 0.5, gamma 10':28s}accuracy   points more than without")
for name, tasks in drawers.items():
    report(name, masked, tasks)
# The weights, 1 or 0, that somebody would give who knows all names.
names = ((t[:, None] == torch.arange(5)).float() for t in drawn.unlabelled_y)
report("B, all names told", lambda u, c: next(names), drawers["B: own and strangers"])
print("the border moved:")
for border in (0.3, 0.7):
    for name, tasks in drawers.items():
        moved_to = torch.full((5,), border)
        report(f"{border}, {name}", lambda u, c, b=moved_to: masked(u, c, b), tasks)
print("distances over 24 in place of the mean of each class:")
for name, tasks in drawers.items():
    report(name, one_scale, tasks)

# %% [markdown]
# The mask keeps nearly all of the gain in B, where the plain method has none; and in A it costs nothing that shows. The row with all names told is the ceiling.
#
# **The row that makes the gain vanish** is C. Where no picture of the drawer belongs to the task, even the mask loses two to three points. What may not be claimed: that more unlabelled data is safe to add.

# %% [markdown]
# Moving the border from 0.3 to 0.7 hardly changes A and B, but C loses less than one point at 0.3 and about five at 0.7. The package starts with 0.5 and 10; drawers like A and B would not tell you that a lower border is safer.
#
# Is it the division by the mean that helps? The last rows divide by one number instead, and nearly the same comes out. So on this encoder the division buys no accuracy worth naming. It saves you the search for that number; the small nets below use the border 0.5, too.

# %% [markdown]
# ## Where the border lies
#
# The next picture shows the normalised distance of every picture in drawer B to the nearest centre, and the mask over it.

# %%
own, other = [], []
for s, s_y, u, truth in zip(support_z, drawn.support_y, pool, drawn.unlabelled_y):
    found = squared_distances(u, prototypes(s, s_y, 5))
    nearest = (found / found.mean(0)).gather(1, found.argmin(1, keepdim=True))[:, 0]
    own.append(nearest[truth >= 0])
    other.append(nearest[truth < 0])
own, other = torch.cat(own), torch.cat(other)
for name, part in (("own", own), ("strangers", other)):
    print(f"{name:10s} below the border of 0.5: {(part < 0.5).double().mean():.0%}")

# %% tags=["draws"]
figure, axes = new(7, 2.8)
bins = torch.linspace(0, 1.6, 33).numpy()
axes.hist(own.numpy(), bins, alpha=0.6, color=SLOTS[0], label="own letters")
axes.hist(other.numpy(), bins, alpha=0.6, color=SLOTS[1], hatch="//", label="strangers")
line = torch.linspace(0, 1.6, 100)
right = axes.twinx()
right.plot(line, torch.sigmoid(-10 * (line - 0.5)), color="black", label="mask")
right.set(ylabel="mask", ylim=(0, 1.05))
right.grid(False)
axes.set(xlabel="distance to the nearest centre, over the mean", ylabel="pictures")
handles = [axis.get_legend_handles_labels() for axis in (axes, right)]
axes.legend(*(a + b for a, b in zip(*handles)), fontsize=8, loc="center right")
show(
    figure,
    "Two histograms of normalised distance. Own letters lie mostly below 0.5, "
    "strangers mostly above it, and they overlap between 0.3 and 0.8. The mask, a "
    "black curve, falls from 1 to 0 and passes one half at 0.5.",
)

# %% [markdown]
# Nearly all own letters lie below the border, and about one stranger in seven. No border parts them fully.

# %% [markdown]
# ## Meet the package
#
# `SoftKMeans(encoder, distractors=...)` knows "none", "cluster" and "mask". Its mask learns: a small network reads five statistics of the normalised distances (minimum, maximum, variance, skewness, kurtosis) and writes $\beta_k$ and $\gamma_k$. Before training it writes 0.5 and 10, the numbers that you used.

# %%
mine, theirs = masked, package.SoftKMeans(encoder.encoder, "mask")
with torch.no_grad():
    start = prototypes(support_z[0], drawn.support_y[0], 5)
    assert torch.allclose(
        mine(pool[0], start), theirs.weights(pool[0], start), atol=1e-5
    )
print(inspect.getsource(package.SoftKMeans.weights))
print(inspect.getsource(package.Mask.forward))

# %% [markdown]
# ## Train for real
#
# Should the encoder *know* in training that there will be a drawer? Two small nets start from the same weights and see the same labelled pictures. One is a ProtoNet; the other trains through soft k-means with a mask, with five unlabelled drawings of each letter and of five strangers in every episode. Predict which is better in drawer B. [Chance](../lessons/GLOSSARY.md#chance "随机水平") is 20 %.

# %%
episodes = EpisodeSampler(train, 5, 1, 5, seed=1, n_unlabelled=5, n_distractors=5)
nets = {}
for name, kind in (
    ("ProtoNet", PrototypicalNetwork),
    ("soft k-means", lambda encoder: package.SoftKMeans(encoder, "mask")),
):
    print(f"training {name}")
    torch.manual_seed(1)
    nets[name] = kind(conv4(32))
    fit(nets[name], episodes, steps=60)

# %%
quarter = test.select(range(0, len(test), 4))
judged = EpisodeSampler(quarter, 5, 1, 5, seed=7, n_unlabelled=10, n_distractors=5)
proto, soft = nets["ProtoNet"], nets["soft k-means"]
rows = {
    "ProtoNet, no drawer": proto,
    "ProtoNet, mask in the test": package.SoftKMeans(proto.encoder, "mask"),
    "soft k-means, no drawer": PrototypicalNetwork(soft.encoder),
    "soft k-means": soft,
    "soft k-means, mask untrained": package.SoftKMeans(soft.encoder, "mask"),
}
scores = {name: evaluate(net, judged, episodes=200) for name, net in rows.items()}
for name, score in scores.items():
    print(f"{name:28s}{score.mean:6.1%} ± {score.ci95:.1%}")
for a, b in (
    ("ProtoNet, mask in the test", "ProtoNet, no drawer"),
    ("soft k-means", "ProtoNet, mask in the test"),
    ("soft k-means, mask untrained", "ProtoNet, mask in the test"),
    ("soft k-means", "soft k-means, mask untrained"),
):
    print(f"{a} minus {b}:\n   {compare(scores[a], scores[b])}")

# %% [markdown]
# The second row is the fair rival: the *same* ProtoNet, trained without any drawer, gets the mask only in the test. That alone gains several points, and the interval leaves out 0.
#
# The net that trained with a drawer does not beat it, with its learned mask or with the same untrained one (third difference); here it lies a little behind. In three runs of 120 steps with other seeds, not shown, every interval contained 0. The last interval contains 0: the learned mask is not shown to matter. At this budget the gain comes from *using* the drawer in the test, not from training with one.
#
# *Not answered here:* long training. These nets are far from finished.

# %% [markdown]
# ## Guessed labels that confirm themselves
#
# A tempting scheme is [self-training](../lessons/GLOSSARY.md#self-training "自训练"): give every unnamed picture the label of its nearest centre, a [pseudo-label](../lessons/GLOSSARY.md#pseudo-label "伪标签"), compute means as if labels were true, and repeat. Each round looks more certain than the one before. Is it more right? Predict, for drawers A and B: how do the accuracy of the pseudo-labels and the confidence in *wrong* ones change over six rounds?

# %%
kinds = ("pseudo-labels right", "queries right", "confidence", "confidence where wrong")
rounds = {}
for name in ("A: own letters", "B: own and strangers"):
    dealt, s, q, u = drawers[name]
    mine = dealt.unlabelled_y >= 0  # strangers have no right label at all
    one_hot, both = F.one_hot(dealt.support_y, 5).float(), torch.cat([s, u], dim=1)
    centres = one_hot.mT @ s  # one shot: the class mean is that row
    rounds[name], certain, hits = [], [], []
    for _ in range(7):
        sure, label = (-squared_distances(u, centres)).softmax(-1).max(-1)
        certain.append(sure)
        hit, wrong = (label == dealt.unlabelled_y)[mine], sure[mine]
        hits.append(hit)
        queries = squared_distances(q, centres).argmin(-1) == dealt.query_y
        rounds[name].append(
            [float(x.double().mean()) for x in (hit, queries, sure, wrong[~hit])]
        )
        member = torch.cat([one_hot, F.one_hot(label, 5)], dim=1)  # as if true
        centres = (member.mT @ both) / member.sum(1)[..., None]
    print(f"{name}: {', '.join(kinds)}")
    for number in (0, 1, 3, 6):
        told = "   ".join(f"{value:6.1%}" for value in rounds[name][number])
        print(f"   round {number}   {told}")
    ends = [float(certain[number][mine][~hit].mean()) for number in (0, 6)]
    print("   wrong at the end: confidence in round 0 and 6:", end=" ")
    print(" and ".join(f"{value:.1%}" for value in ends))
    lost, won = (hits[0] & ~hit).double().mean(), (~hits[0] & hit).double().mean()
    print(f"   right in round 0 and wrong in 6: {lost:.1%}, the other way: {won:.1%}")

# %% tags=["draws"]
figure, axes = new(8, 2.8, columns=2, sharey=True)
for axis, (name, values) in zip(axes, rounds.items()):
    for slot, (kind, line) in enumerate(zip(kinds, zip(*values))):
        axis.plot(range(7), line, label=kind, **slot_style(slot))
    axis.set(title=name, xlabel="round", ylim=(0.75, 1.0))
axes[0].legend(fontsize=8, loc=(0.35, 0.42))
show(
    figure,
    "Two panels over six rounds. In drawer A the pseudo-labels and the queries rise in "
    "two rounds and then stay; the confidence in wrong labels rises slowly. In drawer "
    "B both accuracies fall from round to round, while the confidence rises, and the "
    "confidence in wrong labels climbs from below 0.8 to about 0.95.",
)

# %% [markdown]
# In A the first rounds help, and then nothing changes. The right column rises only because the doubtful errors have been mended: the pictures that are wrong at the end are no surer than in round 0.
#
# In B the confidence climbs, too, to about 98 %, while the pseudo-labels of the own letters and the queries lose three to four points. Most pictures that are wrong at the end were right in round 0: the rounds made these errors and then believed them. **Confidence is no evidence here**: the model marks its own work. So hold a few named pictures back and measure the pseudo-labels.

# %% [markdown]
# Would soft shares have been safer? Predict, then run the next cell. It takes one step and six, with soft shares, with hard labels, and with shares and mask.


# %%
def hard(unlabelled: Tensor, centres: Tensor) -> Tensor:
    """Every picture goes wholly to the nearest class."""
    return F.one_hot(squared_distances(unlabelled, centres).argmin(1), 5).float()


print("points more than no drawer       soft           hard           masked")
for name in ("A: own letters", "B: own and strangers"):
    for steps in (1, 6):
        told = []
        for weights_of in (shares, hard, masked):
            before, moved = gain(weights_of, *drawers[name], steps)
            change, half = mean_and_ci95(moved - before)
            told.append(f"{100 * change:+5.1f} ± {100 * half:.1f}")
        print(f"{name:22s}{steps} step(s)", "   ".join(told))


def apart_by_truth(own, strangers):
    """Weights by two rules, for six steps a task. Only we, who mark, can do this."""
    truths = (t[:, None] >= 0 for t in drawn.unlabelled_y for _ in range(6))
    return lambda u, c: torch.where(next(truths), own(u, c), strangers(u, c))


print("B, six steps: points more than hard for all")
tasks = drawers["B: own and strangers"]
_, all_hard = gain(hard, *tasks, 6)
for name, own, strangers in (
    ("soft for all", shares, shares),
    ("soft for own drawings only", shares, hard),
    ("soft for strangers only", hard, shares),
):
    _, moved = gain(apart_by_truth(own, strangers), *tasks, 6)
    change, half = mean_and_ci95(moved - all_hard)
    print(f"   {name:28s}{100 * change:+5.1f} ± {100 * half:.1f}")

# %% [markdown]
# In A six steps are as good as one. In B one step does no harm, and six cost four to seven points. With the mask B still gains after six steps, but less than after one. So softness does not protect; in B few steps and the mask do, but in C not even one unmasked step is safe.
#
# Why is soft worse? Not because strangers pull at several centres: softness for them alone costs about half a point at most, and softness for own drawings alone costs nearly all. Likely, a centre that strangers have drawn away shares in its neighbours' drawings. Two other draws, not shown, agree.

# %% [markdown]
# ## Which picture to ask about
#
# Now somebody will name a few pictures for you, and you choose them. That is [active learning](../lessons/GLOSSARY.md#active-learning "主动学习"). A pool holds ten drawings of each of ten letters, none named. Strategies:
#
# | strategy | asks about |
# |---|---|
# | random | any picture |
# | margin | the picture whose two nearest prototypes are almost equally near |
# | k-centre | the picture farthest from all that are named |
# | typical | the densest picture of each of as many clusters as there are questions |
#
# Margin trusts a model, and at the start there hardly is one. Predict the winner with ten questions, and with forty.

# %% [markdown]
# ### Exercise 15.4  Typicality  (difficulty 2/5, 6 min)
#
# Return the typicality of every picture: one over the *mean* distance (plain, not squared) to its `neighbours` nearest *other* pictures.
#
# On paper: pictures at 0, 1, 3 and 7 on a line, two neighbours. The picture at 1 has distances 1 and 2 to its nearest two, their mean is 1.5, and its typicality is 2/3. For the picture at 7 it is 1/5.
#
# | `pool` | `neighbours` | returned |
# |---|---|---|
# | `[U, D]` | int, below U | `[U]` |


# %%
def typicality(pool: Tensor, neighbours: int) -> Tensor:
    """One over the mean distance to the nearest other pictures. [U, D] -> [U]."""
    # BEGIN SOLUTION
    distances = torch.cdist(pool, pool)
    nearest = distances.sort(1).values[:, 1 : neighbours + 1]
    return 1 / nearest.mean(1)
    # END SOLUTION


typicality = check("15.4", typicality)


# %%
def by_cluster(pool: Tensor, budget: int, seed: int, choose) -> list[int]:
    """Clusters the pool into `budget` parts, and chooses one picture of each."""
    parts = KMeans(budget, n_init=1, random_state=seed).fit_predict(pool.numpy())
    groups = [(torch.tensor(parts) == k).nonzero()[:, 0] for k in range(budget)]
    return [int(g[choose(pool[g])]) if len(g) > 1 else int(g[0]) for g in groups]


def densest(part: Tensor) -> int:
    return int(typicality(part, min(5, len(part) - 1)).argmax())


def next_by_margin(pool: Tensor, truth: Tensor, asked: list[int]) -> int:
    classes, slots = truth[asked].unique(return_inverse=True)
    if len(classes) < 2:  # no second prototype: the farthest picture
        return next_by_distance(pool, truth, asked)
    means = prototypes(pool[asked], slots, len(classes))
    best = (-squared_distances(pool, means)).softmax(1).topk(2).values
    gaps = best[:, 0] - best[:, 1]
    gaps[asked] = 2.0  # never the same picture twice
    return int(gaps.argmin())


def next_by_distance(pool: Tensor, truth: Tensor, asked: list[int]) -> int:
    return int(torch.cdist(pool, pool[asked]).amin(1).argmax())


# %%
budgets, pools = (5, 10, 20, 40), 50
ten, _, ten_q, ten_u = deal(10, 10, 0, tasks=pools)
measured = {}


def note(name: str, budget: int, asked: list[int], task: int) -> None:
    """Stores accuracy, how many letters are named, and the accuracy on these."""
    classes, slots = ten.unlabelled_y[task][asked].unique(return_inverse=True)
    means = prototypes(ten_u[task][asked], slots, len(classes))
    answer = classes[squared_distances(ten_q[task], means).argmin(1)]
    right = (answer == ten.query_y[task]).double()
    met = right[torch.isin(ten.query_y[task], classes)]
    row = [float(right.mean()), len(classes), float(met.mean())]
    measured.setdefault((name, budget), []).append(row)


for task in range(pools):
    heap, truth = ten_u[task], ten.unlabelled_y[task]
    generator = torch.Generator().manual_seed(task)
    order = torch.randperm(len(heap), generator=generator).tolist()
    asked = {"margin": order[:1], "k-centre": order[:1]}  # the same first picture
    for _ in range(max(budgets) - 1):
        for name, choose in (
            ("margin", next_by_margin),
            ("k-centre", next_by_distance),
        ):
            asked[name] = [*asked[name], choose(heap, truth, asked[name])]
    for budget in budgets:
        note("random", budget, order[:budget], task)
        for name, chosen in asked.items():
            note(name, budget, chosen[:budget], task)
        note("typical", budget, by_cluster(heap, budget, task, densest), task)
        first = by_cluster(heap, budget, task, lambda part: 0)
        note("any of a cluster", budget, first, task)

# %%
strategies = ("random", "margin", "k-centre", "any of a cluster", "typical")
curves = {}
for budget in budgets:
    print(
        f"{budget} questions    accuracy, letters met, accuracy on these, "
        "points more than random"
    )
    base = torch.tensor(measured["random", budget], dtype=torch.float64)[:, 0]
    for name in strategies:
        found = torch.tensor(measured[name, budget], dtype=torch.float64)
        mean, half = curves[name, budget] = mean_and_ci95(found[:, 0])
        more, width = mean_and_ci95(found[:, 0] - base) if name != "random" else (0, 0)
        print(
            f"   {name:17s}{mean:6.1%} ± {half:.1%}   {found[:, 1].mean():4.1f}   "
            f"{found[:, 2].mean():6.1%}   {100 * more:+5.1f} ± {100 * width:.1f}"
        )
    parts = (measured[name, budget] for name in ("typical", "any of a cluster"))
    typical, some = (torch.tensor(p, dtype=torch.float64)[:, 0] for p in parts)
    more, width = mean_and_ci95(typical - some)
    print(f"   typical minus any of a cluster: {100 * more:+.1f} ± {100 * width:.1f}")

# %% tags=["draws"]
figure, axes = new(7, 3)
for slot, name in enumerate(strategies):
    means, halves = zip(*(curves[name, budget] for budget in budgets))
    axes.errorbar(
        budgets, means, yerr=halves, capsize=3, label=name, **slot_style(slot)
    )
axes.axhline(0.1, color=CHANCE, linestyle="--")
axes.set(xlabel="questions", ylabel="accuracy on 10 letters", xticks=budgets)
axes.legend(fontsize=8)
show(
    figure,
    "Accuracy against the number of questions for five strategies, with 95 % intervals "
    "over 50 pools. Typical is on top at 5, 10 and 20 questions; random is far below "
    "until 20; at 40 questions all meet near the top. Dashed: chance.",
)

# %% [markdown]
# With ten questions, typical pictures lead, three points ahead of any picture of a cluster, and margin lies between random and k-centre. This is what Hacohen et al. (2022) report for tiny budgets: ask about typical pictures first. The columns say why. On the letters that it has met, every strategy is nearly always right. They differ in how many letters they meet, and a letter that is not met cannot be answered.

# %% [markdown]
# The row "any of a cluster" takes the same clusters, but not their densest picture. It shows that most comes from spreading the questions; typicality adds about three points at ten. Ten clusters for ten letters is a favourable case: in use, nobody tells you the number of classes. With forty questions **the gain all but vanishes**: one point is left, because random questions have met nearly all letters, too.

# %% [markdown]
# ## Explore
#
# Predict the answers, then run the next cell.
#
# 1. Ren et al. also try one more *cluster* for strangers, with its centre at 0 and a learned radius. What happens at radius 1, with this encoder? And at radius 3?
# 2. Is a drawer worth more at 20 ways than at 5?
# 3. And with five shots in place of one?
#
# <details><summary>Answers</summary>
#
# 1: at radius 1 it does nothing. An embedding's squared length is about 90, so the cluster at 0 gets the mass $e^{-90}$, less than any class. No gradient reaches the radius, either, so training does not free it (in 200 steps of training, not shown, it stayed at 1.000). At radius 3 its mass is like that of a class, and it works about as well as the mask; C still loses one to two points. 2: yes, at 20 ways more is wrong to begin with. 3: no. Five shots find the middle of a cloud on their own, so the drawer adds next to nothing.
#
# </details>

# %%
cluster = package.SoftKMeans(encoder.encoder, "cluster")
print(f"squared length of an embedding: {table.square().sum(1).mean():.0f} on average")
with torch.no_grad():
    for radius in (1.0, 3.0):
        cluster.log_radius.fill_(torch.tensor(radius).log())
        for name, tasks in drawers.items():
            report(f"radius {radius:.0f}, {name}", cluster.weights, tasks)
for n_way, shots in ((20, 1), (5, 5), (20, 5)):
    tasks = deal(n_way, 10, 0, tasks=100, shots=shots)
    report(f"A: {n_way} ways, {shots} shot(s)", shares, tasks)

# %% [markdown]
# ## Bug hunt
#
# The symptom: a log prints the mask, so that users see how far a picture counts. One picture lies exactly on the border of its only class: the log says 0.5. The named picture lies at 0, and this one at 2, so the centre should move to $(0 + 0.5 \cdot 2)/(1 + 0.5)$, which is 2/3. It moves to 0.4. The accuracies look fine. Look at the code before you read on.


# %%
def assign(distances: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Shares the pictures out under a mask. [U, N], [U, N] -> [U, N], and the mask."""
    probability = (-distances).softmax(1)
    return probability * mask, mask


def weigh(distances: Tensor, mask: Tensor) -> Tensor:
    """How much each picture counts for each class -> [U, N]."""
    assigned, mask = assign(distances, mask)
    print_mask(mask)
    return assigned * mask


def print_mask(mask: Tensor) -> None:
    if mask.numel() == 1:
        print("log: the picture counts", round(float(mask), 2))


border = weigh(torch.tensor([[4.0]]), torch.tensor([[0.5]]))
one_class = torch.tensor([0])
moved = refine(torch.zeros(1, 1), one_class, torch.full((1, 1), 2.0), border, 1)
print(f"the centre moves to {float(moved):.2f}")

# %% [markdown]
# ### Exercise 15.5  Bug hunt: how often does the mask count?  (difficulty 3/5, 8 min)
#
# Write the test that rings. `weigh(distances, mask)` returns weights `[U, N]`. Return `True` when they are *not* the share of each picture times its mask, entry by entry, and `False` when they are, but for rounding. A fault may be small, and it may touch a single picture or class.
#
# | `weigh` | `distances` | returned |
# |---|---|---|
# | function of `[U, N]` and `[U, N]` | `[U, N]`, squared | bool |
#
# You choose the masks that you try.


# %%
def exposes_mask(weigh, distances: Tensor) -> bool:
    """True when weigh(distances, mask) is not share times mask."""
    # BEGIN SOLUTION
    share = (-distances).softmax(1)
    for seed in range(8):
        source = torch.Generator().manual_seed(seed)
        mask = torch.rand(distances.shape, generator=source, dtype=distances.dtype)
        found = weigh(distances, mask)
        if not torch.allclose(found, share * mask, rtol=1e-4, atol=1e-6):
            return True
    return False
    # END SOLUTION


exposes_mask = check("15.5", exposes_mask)
apart = squared_distances(unnamed[:6], named) / 4  # so that shares are not all 0 or 1
print("the code above is broken:", exposes_mask(weigh, apart))

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# `assign` multiplies by the mask, and so does `weigh`. Every picture counts with the *square* of its mask: a quarter on the border. The public code of Ren et al. has this line twice, once in `assign_cluster_soft_mask` and once in its caller.
#
# </details>

# %% [markdown]
# A mask of zeros and ones would never have shown it, because these are their own squares. The next cell repeats the three drawers with the square. Accuracy hardly moves in A and B, and C even praises the bug: a squared mask lets less in. No accuracy rings the alarm; what the mask *says* is false.


# %%
def cured(distances: Tensor, mask: Tensor) -> Tensor:
    """Shares times mask, once."""
    assigned, _ = assign(distances, mask)
    return assigned


assert exposes_mask(weigh, apart)
assert not exposes_mask(cured, apart)


def squared(unlabelled: Tensor, centres: Tensor) -> Tensor:
    found = squared_distances(unlabelled, centres)
    return weigh(found, soft_mask(found, beta, gamma))


print(f"{'':28s}accuracy   points more than without")
for name, tasks in drawers.items():
    report(f"once,  {name}", masked, tasks)
    report(f"twice, {name}", squared, tasks)

# %% [markdown]
# ## Quiz
#
# **1. A drawer holds no picture of the task's classes. What does plain soft k-means do?**
# (a) nothing, (b) it moves every centre towards strangers, (c) it finds new classes
#
# <details><summary>Answer</summary>
#
# (b). Shares sum to one, so each stranger counts as one whole picture. Against (a): only a mask or a cluster of strangers lets a picture count for nothing. Against (c): the number of classes is fixed.
#
# </details>
#
# **2. The mean confidence of pseudo-labels rises from 90 to 98 %. What do you know?**
# (a) they got better, (b) they got worse, (c) neither
#
# <details><summary>Answer</summary>
#
# (c). Confidence rose in drawer A, where labels got better, and in drawer B, where they got worse. So neither (a) nor (b) follows. The model marks its own work.
#
# </details>
#
# **3. A class has 5 shots, and unlabelled pictures with weights 0.5, 0.5 and 1. By what is its sum divided?**
# (a) 8, (b) 2, (c) 7
#
# <details><summary>Answer</summary>
#
# (c): five shots and a weight of 2 in all. (a) counts every unlabelled picture in full. (b) forgets the shots.
#
# </details>

# %% [markdown]
# **4. You use the queries of an episode as its unlabelled pictures. What have you built?**
# (a) the same method, (b) a transductive method, (c) a leak of labels
#
# <details><summary>Answer</summary>
#
# (b). A query now moves the centres that judge it and the others. It may be wanted, but must be said. Against (a): this lesson's queries are other pictures than the drawer. Against (c): their labels are not used.
#
# </details>
#
# **5. You may ask for ten names among ten unknown letters. Why not by margin?**
# (a) it is too slow, (b) it trusts a model that has met few letters, (c) it asks twice about a picture
#
# <details><summary>Answer</summary>
#
# (b). It looks for doubt between the letters that it knows. With ten questions it meets more letters than random (8.4 against 6.8), but k-centre, which trusts no model, meets 9.2. Against (a): it computes a few distances. Against (c): asked pictures are left out.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | method | shares by a softmax, then means with weights: one step of EM |
# | law | no unlabelled picture: a prototypical network |
# | strangers | shares sum to one, so mask by relative distance |
# | gain turns to loss | when all unlabelled pictures are strangers |
# | pseudo-labels | measure their accuracy; confidence rises either way |
# | tiny budget | ask about one typical picture of every cluster |
# | looks back | the clouds of [05](../notebooks/05_prototypical.ipynb), now with pictures that nobody named |
#
# Pitfalls: a pool that is the query set; a mask that counts twice; one seed; a rival that does not get the pool. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Ren et al. (2018), *Meta-Learning for Semi-Supervised Few-Shot Classification* | section 3.1.1: soft k-means; 3.1.2: a cluster for distractors; 3.1.3: the mask |
# | Snell, Swersky and Zemel (2017), *Prototypical Networks for Few-shot Learning* | where the prototypes come from |
# | Hacohen, Dekel and Weinshall (2022), *Active Learning on a Budget* | typical pictures for small budgets, uncertain ones for large |

# %%
progress("15")
