# %% [markdown]
# # 22 Trust: why this answer, how sure, and what breaks it
#
# A learner that needs five pictures depends on each of them. You compute what one picture does to an answer, check whether "90 % sure" is true, let the learner say "none of these", break it with a wrong label and a poisoned picture, and defend it without training.
#
# Prerequisites: lessons 04, 05, 09 and 12. Planned time: 60 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** Which point minimises the sum of *squared* distances to the support pictures of a class?
#
# <details><summary>Answer</summary>
#
# Their mean, the prototype (lesson 05).
#
# </details>
#
# **2.** Through which steps does the outer gradient of MAML pass?
#
# <details><summary>Answer</summary>
#
# Through all inner steps on the support (lesson 08). So an attacker can follow it into the support's *pictures*, too.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **compute** what every support picture does to an answer (exercise 22.1),
# 2. **measure** whether a confidence is true (exercise 22.2),
# 3. **write** a step of an attack that keeps its budget (exercise 22.3),
# 4. **expose** a robustness that is only a hidden gradient (exercise 22.4).

# %% [markdown]
# ## A puzzle: one bad picture
#
# You have five drawings of each of five new letters. Somebody spoils the support; the queries stay clean.
#
# - **A**: one of the 25 drawings gets a wrong label,
# - **B**: one of the 25 drawings is scanned inverted: white ink on black paper,
# - **C**: in one drawing of each letter, every pixel may move by 0.3, chosen by somebody who knows the network.
#
# Write down how many points of accuracy A, B and C cost a ProtoNet; then again for *one* drawing of each letter, where C may change all five.

# %%
import inspect
import json

import torch
import torch.nn.functional as F
from torch import Tensor

import fsl_course
from fsl_classroom import check, progress
from fsl_classroom.widgets import SupportBoard
from fsl_course import EpisodeSampler, fit, load_glyphs, load_icons
from fsl_course.data.assets import asset
from fsl_course.evaluation import embed_all, mean_and_ci95
from fsl_course.figures import (
    CHANCE,
    PROTOTYPE_MARKER,
    SLOTS,
    image_rows,
    new,
    show,
    slot_style,
)
from fsl_course.methods.prototypical import (
    PrototypicalNetwork,
    prototypes,
    squared_distances,
)
from fsl_course.nets import conv4
from fsl_course.trust import attacks, calibration, influence

torch.manual_seed(0)
glyphs = load_glyphs()
train, val, test = (glyphs.split(name) for name in ("train", "val", "test"))
names = ("prototypical", "matching", "ridge")
learners = {name: fsl_course.pretrained(name, "glyphs").eval() for name in names}
few = test.select(range(0, len(test), 2))  # every second test letter
tables = {
    name: embed_all(net, few.images.flatten(0, 1)) for name, net in learners.items()
}

# %% [markdown]
# ## The idea in one picture
#
# An answer is made of support pictures, so you can ask each picture what it does: take it away and look again. The change is its [influence](../lessons/GLOSSARY.md#influence "影响"). The next cell makes up two classes in the plane; one picture of class 1 has been labelled 0 by mistake.

# %%
generator = torch.Generator().manual_seed(3)
middles = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
points = middles.repeat_interleave(4, 0) + 0.6 * torch.randn(8, 2, generator=generator)
points[3] = torch.tensor([5.0, 1.2])  # looks like class 1
flipped_y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
centres = prototypes(points, flipped_y, 2)
without = influence.prototypes_without_each(points, flipped_y, 2)
for i in range(4):
    moved = (without[i] - centres[0]).norm()
    print(f"without picture {i} prototype 0 moves by {moved:.2f}")

# %% tags=["draws"]
figure, axes = new(7, 3)
for k in range(2):
    mine = points[flipped_y == k]
    axes.scatter(*mine.T, s=50, label=f"labelled {k}", **slot_style(k))
    axes.scatter(
        *centres[k],
        s=220,
        marker=PROTOTYPE_MARKER,
        color=SLOTS[k],
        edgecolor="black",
        label=f"prototype {k}",
    )
axes.scatter(
    *points[3], s=220, facecolor="none", edgecolor="black", label="wrong label"
)
axes.annotate(
    "", without[3].tolist(), centres[0].tolist(), arrowprops={"arrowstyle": "->"}
)
axes.axvline(float(centres[:, 0].mean()), color=CHANCE, linestyle="--")
healed = float((without[3][0] + centres[1][0]) / 2)
axes.axvline(healed, color="black", linestyle=":")
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
show(
    figure,
    "Two groups of points. One point of the left class, circled, lies in the right "
    "group and has drawn the left prototype, a star, to the right. An arrow leads from "
    "the star to where it lies without that point, and the border between the classes "
    "moves left with it, from the dashed to the dotted line.",
)

# %% [markdown]
# One picture moves the prototype most, and the border goes with it, from the dashed line to the dotted one.
#
# ## Why it should work
#
# Fitting again without each picture is free here, because a prototype is a mean. The sum of a class is $K c_k$; take one row out, and $K - 1$ are left:
#
# $$c_k^{-i} = \frac{K c_k - z_i}{K - 1} = c_k + \frac{c_k - z_i}{K - 1} \tag{1}$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $z_i$, $y_i$ | `embeddings`, `labels` | `[S, D]`, `[S]` |
# | $c_k$, $K$ | prototype and shots of class $k$ | `[D]`, a number |
# | $c_k^{-i}$ | `without_each(...)[i]`, for $k = y_i$ | `[D]` |

# %% [markdown]
# By equation (1) more shots help: the change falls like $1/(K-1)$. But *nothing bounds it*: a picture far enough away moves a mean as far as it likes.
#
# On paper: class 0 has pictures at 0, 2 and 9, class 1 at 4 and 7. Without the 9, prototype 0 moves from 11/3 to 1. Without the 4, prototype 1 is at 7.

# %% [markdown]
# ### Exercise 22.1  Prototypes without each picture  (difficulty 1/5, 5 min)
#
# Return, for every support row, the mean of the *other* rows of its class, equation (1). Shots may differ from class to class, every class has at least two rows, and rows come in any order.
#
# | `embeddings` | `labels` | `n_way` | returned |
# |---|---|---|---|
# | `[S, D]` | `[S]`, int64 | int | `[S, D]`, row $i$ for row $i$ |
#
# For rows 0, 4, 2, 9, 7 with labels 0, 1, 0, 0, 1 it is 5.5, 7, 4.5, 1, 4.


# %%
def without_each(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Mean of the other rows of each row's class. [S, D], [S] -> [S, D]."""
    # BEGIN SOLUTION
    member = F.one_hot(labels, n_way).to(embeddings.dtype)  # [S, N]
    total, count = member.T @ embeddings, member.sum(0)
    return (total[labels] - embeddings) / (count[labels] - 1)[:, None]
    # END SOLUTION


without_each = check("22.1", without_each)

# %% tags=["nbval-check-output"]
rows = torch.randn(9, 4, dtype=torch.float64)
labels = torch.tensor([0, 2, 1, 0, 1, 2, 2, 0, 1])
# 1. The closed form equals fitting again without each picture.
for i in range(9):
    keep = torch.arange(9) != i
    again = prototypes(rows[keep], labels[keep], 3)[labels[i]]
    assert torch.allclose(without_each(rows, labels, 3)[i], again, rtol=0, atol=1e-12)
# 2. The order of the support does not matter.
order = torch.randperm(9)
shuffled = without_each(rows[order], labels[order], 3)
assert torch.allclose(shuffled, without_each(rows, labels, 3)[order])
# 3. The gradient, in float64.
rows.requires_grad_()
assert torch.autograd.gradcheck(lambda z: without_each(z, labels, 3), rows)
print("closed form = fitting again, order, gradient: three laws hold")

# %% [markdown]
# ## A head that is fitted
#
# Ridge regression (lesson 12) has no means, yet it has a closed form, too. Its output is a weighted sum of the support's labels, $f(q) = \sum_i s_i(q)\, y_i$. Without picture $i$ the best fit is the one in which $y_i$ is replaced by what the others predict for it; with the residual $e_i = y_i - f(z_i)$ this gives
#
# $$f^{-i}(q) = f(q) - s_i(q)\, \frac{e_i}{1 - s_i(z_i)} \tag{2}$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $s_i(q)$ | `asked` in the package | `[M, S]` |
# | $e_i / (1 - s_i(z_i))$ | `change` in the package | `[S, N]` |

# %%
print(inspect.getsource(influence.ridge_without_each))
sampler = EpisodeSampler(few, 5, 5, 5, seed=1)
task, ridge = sampler[0], learners["ridge"]
with torch.no_grad():
    z, q = ridge.embed(task.support_x), ridge.embed(task.query_x)
    closed = influence.ridge_without_each(z, task.support_y, q, 5, ridge.log_l2.exp())
    fitted = influence.refitted_without_each(ridge, task)  # 25 fits
gap = (ridge.log_scale.exp() * closed - fitted).abs().max()
assert gap < 1e-3
print("25 fits and one formula agree")

# %% [markdown]
# `refitted_without_each` shows any learner the task once more without each picture. For MAML, which has no closed form, that is the only way.

# %% [markdown]
# ## Why this answer? Find the culprit
#
# In many tasks we flip one label at random. Where this spoils an answer that was right, we ask: whose absence helps most, that is, raises the right class most over the wrong winner? If influence explains the answer, it names the flipped picture. Predict how often, with three shots.


# %%
def layout(shots: int, tasks: int, queries: int = 10, seed: int = 0, n_way: int = 5):
    return EpisodeSampler(few, n_way, shots, queries, seed=seed).layout(0, tasks)


def culprits(shots: int, seed: int) -> Tensor:
    """For every answer that a flip has spoilt: 1 if influence names the flip."""
    drawn, table, hits = layout(shots, 200, seed=seed), tables["prototypical"], []
    for task in range(200):
        source = torch.Generator().manual_seed(task)
        z, q = table[drawn.support[task]], table[drawn.query[task]]
        y, truth = drawn.support_y[task], drawn.query_y[task]
        bad = torch.randint(5 * shots, (1,), generator=source)
        y_bad = attacks.flipped(y, bad, 5, source)
        before = squared_distances(q, prototypes(z, y, 5)).argmin(1)
        after = squared_distances(q, prototypes(z, y_bad, 5)).argmin(1)
        spoilt = (before == truth) & (after != truth)
        if spoilt.any():
            found = influence.prototype_scores_without_each(z, y_bad, q[spoilt], 5)
            right = found[:, torch.arange(spoilt.sum()), truth[spoilt]]
            wrong = found[:, torch.arange(spoilt.sum()), after[spoilt]]
            hits.append((right - wrong).argmax(0) == bad)
    return torch.cat(hits).double()


for shots in (3, 5):
    found = torch.cat([culprits(shots, seed) for seed in range(3)])
    guess = 1 / (5 * shots)
    print(f"{shots} shots: {len(found):3d} of 30,000 answers are spoilt,", end=" ")
    print(f"influence names the flip in {found.mean():.0%} (a guess: {guess:.0%})")

# %% [markdown]
# Influence names the flipped picture for most of the spoilt answers. A flip spoils few answers at all, with five shots fewer than with three: equation (1) divides by $K - 1$.

# %% [markdown]
# ## Three explanations that look alike
#
# "The answer is A because the query looks most like *this* picture" is the usual explanation. Attention (lesson 04) is another. Do they name the picture with the largest influence? For every query we take the support picture whose absence lowers the winner's lead most, and compare it with the picture of the largest cosine and with the nearest one.


# %%
def lead(scores: Tensor, winner: Tensor) -> Tensor:
    """Winner's score minus the best other. [..., M, N], [M] -> [..., M]."""
    at = winner.expand(scores.shape[:-1])[..., None]
    rest = scores.scatter(-1, at, -torch.inf).amax(-1)
    return scores.gather(-1, at)[..., 0] - rest


@torch.no_grad()
def scores_without(name: str, z: Tensor, y: Tensor, q: Tensor) -> Tensor:
    """Scores without each support picture -> [S, M, 5]."""
    if name == "prototypical":
        return influence.prototype_scores_without_each(z, y, q, 5)
    rest = ~torch.eye(len(z), dtype=torch.bool)
    return torch.stack([learners[name].score(z[k], y[k], q, 5) for k in rest])


drawn = layout(5, 60, queries=5)
print("picture with the largest influence =   largest cosine   nearest")
for name, net in learners.items():
    same = []
    for s, y, asked in zip(drawn.support, drawn.support_y, drawn.query):
        z, q = tables[name][s], tables[name][asked]
        with torch.no_grad():
            full = net.score(z, y, q, 5)
        winner = full.argmax(1)
        change = lead(full, winner) - lead(scores_without(name, z, y, q), winner)
        top = change.argmax(0)
        cosine = F.normalize(q, dim=1) @ F.normalize(z, dim=1).T
        nearest = squared_distances(q, z).argmin(1)
        same.append(
            [float((top == t).double().mean()) for t in (cosine.argmax(1), nearest)]
        )
    first, second = torch.tensor(same).mean(0)
    print(f"{name:35s}{first:14.0%}{second:13.0%}")

# %% [markdown]
# In a matching network the attention *is* the answer, so the picture with the largest attention (that is, cosine) has the largest influence nearly always. In a ProtoNet and in ridge regression it does not: there the nearest picture has it in two of five cases. That is far above a guess, 1 in 25, but no explanation.

# %% [markdown]
# ## Which ink? A test for saliency maps
#
# A [saliency map](../lessons/GLOSSARY.md#saliency-map "显著图") colours the pixels of a query by the gradient of the winner's lead. Test it: erase the fifth of the ink that it ranks first, and see how much of the lead is lost. Five rankings: chance, the ink itself (darkest first, no gradient), the gradient's size, gradient times ink (what a first-order expansion predicts for erasing), and *minus* that.


# %%
def leads_after_erasing(rank, count: int = 60) -> Tensor:
    """Share of the lead that is lost when the fifth of ink ranked first goes."""
    net, lost = learners["prototypical"], []
    for number, task in enumerate(sampler.batch(0, count)):
        z = net.embed(task.support_x).detach()
        x = task.query_x.clone().requires_grad_()
        scores = net.score(z, task.support_y, net.embed(x), 5)
        winner, source = scores.argmax(1), torch.Generator().manual_seed(number)
        before = lead(scores, winner)
        (slope,) = torch.autograd.grad(before.sum(), x)
        order = rank(slope, x.detach(), source).flatten(1)
        ink = (task.query_x > 0.1).flatten(1)
        order = order.masked_fill(~ink, -torch.inf).argsort(1, descending=True)
        first = order.argsort(1) < ink.sum(1, keepdim=True) / 5
        erased = task.query_x.masked_fill(first.view_as(x), 0)
        with torch.no_grad():
            after = lead(net.score(z, task.support_y, net.embed(erased), 5), winner)
        lost.append((before - after).sum() / before.sum())
    return torch.stack(lost).detach()


rankings = {
    "chance": lambda slope, x, source: torch.rand(x.shape, generator=source),
    "ink, no gradient": lambda slope, x, source: x,
    "size of the gradient": lambda slope, x, source: slope.abs(),
    "gradient times ink": lambda slope, x, source: slope * x,
    "minus that": lambda slope, x, source: -slope * x,
}
lost = {name: leads_after_erasing(rank) for name, rank in rankings.items()}
for name, share in lost.items():
    mean, half = mean_and_ci95(share)
    more, width = mean_and_ci95(share - lost["chance"])
    print(f"{name:22s}lead lost: {mean:4.0%} ± {half:.0%}", end="")
    print(f"   more than by chance: {100 * more:+3.0f} ± {100 * width:.0f} points")

# %% [markdown]
# Any fifth of the ink costs nearly half of the lead. The gradient's size beats chance by a few points, but the darkest ink, without a gradient, costs far more: *that* is the fair baseline. Gradient times ink beats it, too: about the whole lead is gone. Minus that costs less than chance, so the sign counts.

# %% [markdown]
# ## How sure?
#
# A learner returns probabilities. They are [calibrated](../lessons/GLOSSARY.md#calibration "校准") if, of all answers given with probability 0.8, four in five are right. The usual measure, the ECE, sorts answers into $B$ bins by [confidence](../lessons/GLOSSARY.md#confidence "置信度"), the largest probability, and averages the gaps (Guo et al. 2017):
#
# $$\mathrm{ECE} = \sum_b \frac{n_b}{M}\, \big|\mathrm{acc}_b - \mathrm{conf}_b\big| \tag{3}$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $n_b$, $M$ | answers in bin $b$, and in all | numbers |
# | $\mathrm{acc}_b$, $\mathrm{conf}_b$ | share of right answers, mean confidence | numbers |
#
# On paper: confidences 0.6, 0.7, 0.95 and 1, of which the second answer is wrong, in four bins. The bin from 0.5 to 0.75 has accuracy 1/2 and mean confidence 0.65, the bin above has 1 and 0.975. The error is $\tfrac24 \cdot 0.15 + \tfrac24 \cdot 0.025 = 0.0875$.

# %% [markdown]
# ### Exercise 22.2  Calibration error  (difficulty 2/5, 8 min)
#
# Return the expected calibration error, equation (3). Bins have equal width: bin $b$ holds $b/B <$ confidence $\le (b+1)/B$, for $b = 0$ to $B - 1$. So a confidence of exactly 1 belongs to the last bin. Empty bins count nothing. (DeepTab, issue 421, lost such answers; torchmetrics, issue 3510, gave them another bin.)
#
# | `probabilities` | `labels` | `bins` | returned |
# |---|---|---|---|
# | `[M, N]`, rows sum to one | `[M]`, int64 | int, $B$ | a tensor without dimensions, same dtype |


# %%
def calibration_error(probabilities: Tensor, labels: Tensor, bins: int) -> Tensor:
    """Mean gap of accuracy and confidence over bins. [M, N], [M] -> scalar."""
    # BEGIN SOLUTION
    confidence, answer = probabilities.max(1)
    right = (answer == labels).to(confidence.dtype)
    error = confidence.new_zeros(())
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        error = error + (right - confidence)[inside].sum().abs() / len(labels)
    return error
    # END SOLUTION


calibration_error = check("22.2", calibration_error)

# %% [markdown]
# The cure is one number: divide all logits by a [temperature](../lessons/GLOSSARY.md#temperature "温度系数") $T$, fitted on *validation* letters. It changes no answer, only how sure it is. We fit it for 5-way 1-shot tasks, and judge it there, at 20 ways, and on another domain, the icons of lesson 02. Predict: where does it help, and where does it harm?

# %%
icons = load_icons()
icon_tables = {
    n: embed_all(net, icons.images.flatten(0, 1)) for n, net in learners.items()
}


@torch.no_grad()
def judged(name: str, source, table: Tensor, n_way: int) -> tuple[Tensor, Tensor]:
    """Logits [M, N] and labels [M] of all queries of 300 one-shot tasks."""
    drawn = EpisodeSampler(source, n_way, 1, 5, seed=2).layout(0, 300)
    support, query = table[drawn.support], table[drawn.query]
    logits = learners[name].score(support, drawn.support_y, query, n_way)
    return logits.flatten(0, 1), drawn.query_y.flatten()


curves = {}
print("                               accuracy  confidence   ECE   ECE with T")
for name in ("prototypical", "matching"):
    held_out = embed_all(learners[name], val.images.flatten(0, 1))
    warm = calibration.fitted_temperature(*judged(name, val, held_out, 5))
    print(f"{name}: T = {warm:.2f}")
    for told, source, table, n_way in (
        ("5 ways", few, tables[name], 5),
        ("20 ways", few, tables[name], 20),
        ("icons, 5 ways", icons, icon_tables[name], 5),
    ):
        logits, truth = judged(name, source, table, n_way)
        right = (logits.argmax(1) == truth).double().mean()
        p = [(logits / t).softmax(1) for t in (1, warm)]
        before, after = (float(calibration_error(found, truth, 10)) for found in p)
        curves[name, told] = [calibration.reliability(found, truth) for found in p]
        print(f"   {told:27s}{right:8.1%}{p[0].amax(1).mean():11.1%}", end="")
        print(f"{before:8.1%}{after:10.1%}")

# %% tags=["draws"]
figure, axes = new(8, 3, columns=2, sharey=True)
for axis, name in zip(axes, ("prototypical", "matching")):
    for slot, told in enumerate(("20 ways", "icons, 5 ways")):
        for kind, line in zip(curves[name, told], ("-", ":")):
            some = kind[0] > 20
            label = f"{told}{', with T' if line == ':' else ''}"
            axis.plot(
                kind[1][some],
                kind[2][some],
                linestyle=line,
                label=label,
                **slot_style(slot),
            )
    axis.plot([0, 1], [0, 1], color=CHANCE, linestyle="--", label="calibrated")
    axis.set(title=name, xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
axes[0].set_ylabel("accuracy")
axes[0].legend(fontsize=8)
show(
    figure,
    "Two panels of accuracy against confidence. ProtoNet: the curve of 20 ways runs "
    "along the diagonal, that of icons far below it, and temperature hardly moves it. "
    "Matching: at 20 ways the curve lies above the diagonal and the temperature brings "
    "it there; on icons the temperature moves it below.",
)

# %% [markdown]
# The shipped matching network is not sure enough, and one temperature mends 20 ways, too. The ProtoNet hardly needs one on letters.
#
# **The row that makes the gain vanish** is the other domain. On icons the ProtoNet is right in little more than half of the cases and more than 90 % sure, with a temperature or without. For matching it makes the error *larger*. What may not be claimed: that a calibrated learner knows when it is out of its depth.

# %% [markdown]
# ## None of these
#
# The softmax must choose one of five letters, even for a sixth one. We want a score that is high for known queries and low for strangers. Its quality is the [AUROC](../lessons/GLOSSARY.md#auroc "ROC 曲线下面积"): how often a known query scores above a stranger. Three candidates: the largest probability, the largest logit (in a ProtoNet, minus the distance to the nearest prototype), and "nearness", which every encoder has: minus the distance to the nearest class mean at unit length. Predict the best one.


# %%
def nearness(support: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """Minus the distance to the nearest class mean, at unit length -> [T, M]."""
    z, a = (F.normalize(t, dim=-1) for t in (support, asked))
    means = torch.stack([prototypes(s, y, 5) for s, y in zip(z, labels)])
    return -squared_distances(a, means).amin(-1)


@torch.no_grad()
def known_above_strangers(name: str, shots: int) -> list[Tensor]:
    """The area under the ROC curve of each of 200 tasks, by three scores."""
    tasks = EpisodeSampler(few, 5, shots, 5, n_unlabelled=2, n_distractors=5)
    drawn, table = tasks.layout(0, 200), tables[name]
    known = drawn.unlabelled_y >= 0
    support, asked = table[drawn.support], table[drawn.unlabelled]
    out = learners[name].score(support, drawn.support_y, asked, 5)
    scores = (out.softmax(-1).amax(-1), out.amax(-1))
    scores += (nearness(support, drawn.support_y, asked),)
    return [
        torch.tensor([calibration.auroc(s[k], s[~k]) for s, k in zip(score, known)])
        for score in scores
    ]


print("area under the ROC curve  probability   logit   nearness   - probability")
for name in names:
    for shots in (1, 5):
        areas = known_above_strangers(name, shots)
        print(f"   {name + f', {shots} shot(s)':23s}", end="")
        print("".join(f"{area.mean():10.3f}" for area in areas), end="")
        more, half = mean_and_ci95(areas[2] - areas[0])
        print(f"{more:+13.3f} ± {half:.3f}")

# %% [markdown]
# Nearness beats the probability with every learner, and the intervals leave out 0. The softmax sees only *differences*: a stranger far from all five class means, but a little less far from one, may get a probability near 1. The largest logit is as good in the ProtoNet, where it is a distance; elsewhere it does not beat the probability: matching's logits are logarithms of probabilities, ridge's are outputs of a fit.

# %% [markdown]
# ## What breaks it: an attacker with a budget
#
# An attacker may move every pixel by at most $\varepsilon$, and pictures stay in $[0, 1]$. Within this budget he wants the loss $\mathcal{L}$ as high as possible. [PGD](../lessons/GLOSSARY.md#pgd "投影梯度法"), projected gradient ascent (Madry et al. 2018), steps along the gradient's *sign*, because each pixel has its own budget, and then puts every pixel back into it:
#
# $$x \leftarrow \Pi_\varepsilon\big(x + \eta\, \mathrm{sign}\, \nabla_x \mathcal{L}\big) \tag{4}$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $x$; $\Pi_\varepsilon$ | `x`; nearest picture within $\varepsilon$ of `start` and in $[0, 1]$ | `[B, 1, 28, 28]` |
# | $\eta$, $\varepsilon$ | `rate`, `epsilon` | numbers |

# %% [markdown]
# ### Exercise 22.3  A step of PGD  (difficulty 2/5, 6 min)
#
# Return the pictures after one step of equation (4). Step from `x`; the budget is counted from `start`. Where the gradient is 0, a pixel stays. Do not write into the arguments.
#
# | `x`, `start`, `gradient` | `rate`, `epsilon` | returned |
# |---|---|---|
# | `[B, ...]`, `start` in $[0, 1]$ | floats | `[B, ...]` |
#
# On paper, with rate 0.1 and $\varepsilon = 0.2$: a pixel that started at 0.1, stands at 0.25 and has gradient 3 goes to 0.3; one at its start 0.95 with gradient 2 goes to 1; one at its start 0.05 with gradient −5 goes to 0.


# %%
def ascent_step(
    x: Tensor, start: Tensor, gradient: Tensor, rate: float, epsilon: float
) -> Tensor:
    """One step of projected gradient ascent. [B, ...] three times -> [B, ...]."""
    # BEGIN SOLUTION
    moved = x + rate * gradient.sign()
    return moved.clamp(start - epsilon, start + epsilon).clamp(0, 1)
    # END SOLUTION


ascent_step = check("22.3", ascent_step)

# %% [markdown]
# ## Poison the support
#
# Whoever may hand in support pictures can [poison](../lessons/GLOSSARY.md#poison "投毒") them: they attack queries that he will never see (Oldewage et al. 2022). He takes queries of his own, and climbs *their* loss by changing support pictures. We let him change one picture of each letter, and judge by fresh queries.

# %%
net = learners["prototypical"]


def poison(
    pictures: Tensor, task, rows: Tensor, epsilon: float, steps: int = 10
) -> Tensor:
    """Changes these support rows so that the task's queries are misread."""
    with torch.no_grad():
        z, q = net.embed(pictures), net.embed(task.query_x)
    start = pictures[rows]
    x = start.clone()
    for _ in range(steps):
        x.requires_grad_()
        scores = net.score(z.index_copy(0, rows, net.embed(x)), task.support_y, q, 5)
        (slope,) = torch.autograd.grad(F.cross_entropy(scores, task.query_y), x)
        x = ascent_step(x.detach(), start, slope, epsilon / 4, epsilon)
    return pictures.index_copy(0, rows, x)


task = sampler[0]
one_each = torch.stack([(task.support_y == k).nonzero()[0, 0] for k in range(5)])
bad = poison(task.support_x, task, one_each, 0.3)
theirs = attacks.poisoned(net, task, one_each, 0.3)
assert torch.allclose(bad, theirs.support_x, atol=1e-5)
assert float((bad - task.support_x).abs().max()) <= 0.3 + 1e-6
noise = attacks.noisy(task, one_each, 0.3, torch.Generator().manual_seed(0)).support_x
print("your step inside the loop = the package's poison; the budget is kept")

# %% tags=["draws"]
kinds = (("as drawn", task.support_x), ("poison, 0.3", bad), ("noise, 0.3", noise))
figure = image_rows([(told, pictures[one_each]) for told, pictures in kinds])
show(
    figure,
    "Three rows of five letters: as drawn, poisoned, and with noise. Poison and noise "
    "look dirty, the noise more so, and every letter can still be read.",
)

# %% [markdown]
# The noise is even dirtier. The next table comes from `python -m tools.results.compare_trust`: 60 tasks for each row, 20 for MAML. "A fifth" means one picture of each letter at five shots, and a single picture at one shot, where "one of each" is all five.

# %%
story = json.loads(asset("trust_comparison.json").read_text(encoding="utf-8"))
recorded = {(r["learner"], r["shots"], r["attack"]): r for r in story["rows"]}


def shares(learner: str, shots: int, attack: str, which: str = "fresh") -> Tensor:
    """Accuracy of every task."""
    row = recorded[learner, shots, attack][which]
    return torch.tensor(row, dtype=torch.float64) / story["queries"][which]


def percent(learner: str, shots: int, attack: str, which: str = "fresh") -> str:
    mean, half = mean_and_ci95(shares(learner, shots, attack, which))
    return f"{100 * mean:5.1f} ± {100 * half:4.1f}"


ways = ("nothing", "one label flipped", "one picture inverted")
ways += ("noise 0.3, a fifth", "PGD 0.3, a fifth", "noise 0.1, all", "PGD 0.1, all")
ways += ("noise 0.1, queries", "PGD 0.1, queries")
each = ("noise 0.3, one of each", "PGD 0.3, one of each")
print("accuracy in %, fresh queries     ", end="")
print("".join(f"{name:>15s}" for name in (*names, "maml")))
for shots in (1, 5, 10):
    print(f"{shots} shot(s)")
    for attack in (*ways, *each) if shots == 1 else ways:
        line = "".join(
            f"{percent(name, shots, attack):>15s}" for name in (*names, "maml")
        )
        print(f"   {attack:30s}{line}")

# %% [markdown]
# **The puzzle.** At five shots A and B cost the ProtoNet less than a point (B costs other encoders 14 and more). C costs 8 points, and noise of the same size one: the aim does the harm. At one shot A costs 22 points and B 18, as if one letter were lost. C, with all five pictures ("one of each"), costs 71 points; noise alone costs 61 of them. With a *single* picture **the gain of aiming vanishes** for the ProtoNet: noise costs as much as poison.

# %% [markdown]
# If he may change *all* support pictures, a third of that budget, 0.1, costs every learner more than 20 points, and the same budget on the queries nearly everything. Ten shots do not protect. These are single networks: what may not be claimed is an order of the methods.

# %% [markdown]
# ## Judge an attack by queries that it has not seen
#
# The attacker also has a number for his own queries. Predict: is it higher or lower than that of fresh ones?

# %%
print("a fifth poisoned, 0.3, five shots: accuracy in %")
print("                 own queries   fresh queries   points lost: own, fresh")
for name in (*names, "maml"):
    pair = [percent(name, 5, "PGD 0.3, a fifth", which) for which in ("own", "fresh")]
    costs = [
        mean_and_ci95(
            shares(name, 5, "nothing", w) - shares(name, 5, "PGD 0.3, a fifth", w)
        )[0]
        for w in ("own", "fresh")
    ]
    print(f"{name:15s}{pair[0]:>14s}{pair[1]:>16s}", end="")
    print(f"{100 * costs[0]:14.1f}{100 * costs[1]:8.1f}")
print("poison made for the ProtoNet, judged by fresh queries of the others:")
for name in (*names[1:], "maml"):
    difference = shares(name, 5, "PGD 0.3, a fifth, made for prototypical")
    difference = difference - shares(name, 5, "noise 0.3, a fifth")
    mean, half = mean_and_ci95(difference)
    print(f"   {name:12s}{100 * mean:+6.1f} ± {100 * half:.1f} points against noise")

# %% [markdown]
# The poison looks stronger on the queries from which it was made: that is a training number, so report the fresh one. The last rows ask whether poison for one network harms another more than noise of the same size. Hardly: by less than a point, and for MAML the interval contains 0.

# %% [markdown]
# ## Defend without training
#
# A mean can be moved anywhere by one far row. Three centres cannot: the median of each feature, a mean without the largest and smallest values ("trimmed"), and the [geometric median](../lessons/GLOSSARY.md#geometric-median "几何中位数"), which minimises the sum of *plain* distances. What do they cost when nothing is wrong, and do they help when one of five drawings of a letter is inverted? The last column divides embeddings by their length.


# %%
inverted = {
    n: embed_all(net, 255 - few.images.flatten(0, 1)) for n, net in learners.items()
}


def accuracy(name: str, kind: str, spoilt: int, unit: bool, tasks: int = 100) -> Tensor:
    """Accuracy of each five-shot task; `spoilt` drawings of one letter are inverted."""
    drawn, found = layout(5, tasks, seed=3), []
    both = (t[name] for t in (tables, inverted))
    good, odd = (F.normalize(t, dim=1) if unit else t for t in both)
    for task in range(tasks):
        z, q = good[drawn.support[task]], good[drawn.query[task]]
        if spoilt:
            k = torch.randint(5, (1,), generator=torch.Generator().manual_seed(task))
            rows = (drawn.support_y[task] == k).nonzero()[:spoilt, 0]
            z = z.index_copy(0, rows, odd[drawn.support[task][rows]])
        centres = attacks.robust_prototypes(z, drawn.support_y[task], 5, kind)
        hit = squared_distances(q, centres).argmin(1) == drawn.query_y[task]
        found.append(float(hit.double().mean()))
    return torch.tensor(found, dtype=torch.float64)


print("points more than the mean, 95 % interval; in the first row its accuracy")
for name in names:
    longer = inverted[name].norm(dim=1).mean() / tables[name].norm(dim=1).mean()
    print(f"encoder of {name}: an inverted drawing is {longer:.1f} times as long")
    columns = (("nothing wrong", (0, False)), ("inverted", (1, False)))
    columns += (("inverted, unit length", (1, True)),)
    means = {told: accuracy(name, "mean", *how) for told, how in columns}
    line = "".join(f"{told}: {m.mean():.1%}   " for told, m in means.items())
    print("   mean      ", line)
    for kind in ("median", "trimmed", "geometric"):
        print(f"   {kind:10s}", end="")
        for told, how in columns:
            more, half = mean_and_ci95(accuracy(name, kind, *how) - means[told])
            print(f"{100 * more:+10.1f} ± {100 * half:.1f}    ", end="")
        print()

# %%
print("encoder of matching, m of the 5 drawings of one letter inverted: accuracy")
for unit in (False, True):
    for kind in attacks.CENTRES:
        print(f"   {('unit ' if unit else '') + kind:15s}", end="")
        for m in range(4):
            mean = accuracy("matching", kind, m, unit, tasks=60).mean()
            print(f"   m = {m}: {mean:.1%}", end="")
        print()

# %% [markdown]
# When nothing is wrong, robust centres cost at most a few tenths of a point. When a drawing is inverted, they win back nearly all on the encoders of matching and ridge, where it lies many times too far out. Is it the length? At length one **the gain of the defence vanishes** on these two: the mean itself survives.
#
# A centre *breaks down* when spoilt rows carry it away: the mean at one of five, the trimmed mean at two, since it drops one value at each end, both medians at three, a majority. There the mean at length one is the *best* centre.

# %% [markdown]
# ## A defence must be attacked, too
#
# The recorded rows below poison one picture of each letter, first made for the mean, and then made for the centre that defends. An attack that knows the defence is called adaptive. "Median of matching" means the matching network's encoder with medians in place of its attention; "unit" divides embeddings by their length first.

# %%
print("five shots, 0.3, fresh queries      made for the mean   made for this centre")
kinds = (*attacks.CENTRES, "unit mean", "unit geometric")
for name in names:
    for kind in kinds:
        aimed = percent(f"{kind} of {name}", 5, "PGD 0.3, a fifth")
        mean_only = "PGD 0.3, a fifth" + (
            ", made for the mean" if kind != "mean" else ""
        )
        first = percent(f"{kind} of {name}", 5, mean_only)
        print(f"   {kind + ' of ' + name:30s}{first:>20s}{aimed:>20s}")
    pair = [shares(f"{k} of {name}", 5, "PGD 0.3, a fifth") for k in kinds[-2:]]
    more, half = mean_and_ci95(pair[1] - pair[0])
    print(f"   unit geometric - unit mean: {100 * more:+.1f} ± {100 * half:.1f}")


# %%
def silent(kind: str, task) -> float:
    """Share of entries of the poisoned embeddings with gradient 0."""
    z, q = (learners["matching"].embed(x) for x in (task.support_x, task.query_x))
    z, q = z.detach().requires_grad_(), q.detach()
    centres = attacks.robust_prototypes(z, task.support_y, 5, kind)
    loss = F.cross_entropy(-squared_distances(q, centres), task.query_y)
    (slope,) = torch.autograd.grad(loss, z)
    first = torch.stack([(task.support_y == k).nonzero()[0, 0] for k in range(5)])
    return float((slope[first] == 0).double().mean())


print("entries of the poisoned embeddings without a gradient, encoder of matching")
for kind in attacks.CENTRES:
    share = sum(silent(kind, task) for task in sampler.batch(0, 10)) / 10
    print(f"   {kind:10s}{share:6.0%}")

# %% [markdown]
# "Mean of matching" falls below 50 %, while the matching network lost 2 points with the same encoder: its attention uses unit length. Robust centres win back most, as does unit length; both together beat unit length alone on two encoders.
#
# Report the worse column: for the unit mean of the ProtoNet it is the *first*: the adaptive attack was not the strongest. An attack can be half blind: under the median and the trimmed mean nearly all entries have no gradient, so do not call these two safe. Under the geometric median no more are silent than under the mean.

# %% [markdown]
# ## Train for real
#
# Do these findings need a long training? Train a small ProtoNet and ask it the same questions. Chance is 20 %.

# %%
torch.manual_seed(1)
small = PrototypicalNetwork(conv4(32))
fit(small, EpisodeSampler(train, 5, 1, 5, seed=1), steps=60)
small.eval()
learners["small"] = small
for source, store in ((few.images, tables), (255 - few.images, inverted)):
    store["small"] = embed_all(small, source.flatten(0, 1))
held_out = embed_all(small, val.images.flatten(0, 1))
warm = calibration.fitted_temperature(*judged("small", val, held_out, 5))
logits, truth = judged("small", few, tables["small"], 5)
hit = (logits.argmax(1) == truth).double().mean()
ece = [float(calibration_error((logits / t).softmax(1), truth, 10)) for t in (1, warm)]
print(f"accuracy {hit:.1%}, T = {warm:.1f}, ECE {ece[0]:.1%}, with T {ece[1]:.1%}")
clean, spoilt = (accuracy("small", "mean", bad, False) for bad in (0, 1))
cost, half = mean_and_ci95(clean - spoilt)
healed, width = mean_and_ci95(accuracy("small", "geometric", 1, False) - spoilt)
print(f"one inverted drawing costs {100 * cost:.1f} ± {100 * half:.1f} points,")
print(f"and the geometric median wins back {100 * healed:.1f} ± {100 * width:.1f}")

# %% [markdown]
# This is one training with one seed. A temperature above 1 means that it was too sure of validation letters; yet on test letters the ECE grew with it.

# %% [markdown]
# ## Explore
#
# Three letters, four support pictures each. Take a picture away with its menu, or give it another label.
#
# 1. Which single picture of A, when taken away, moves an answer most?
# 2. How many labels of A must you turn into B before an A is misread?
# 3. What happens to the probabilities when A has a single picture left?
#
# <details><summary>Answers</summary>
#
# 1: hardly any answer moves, because three pictures of A remain. Of all twelve, B4 moves a bar most. 2: one is never enough. Two are enough for one pair only, A1 and A2; with three it depends on which picture is left. 3: all answers stay right, but with A1 alone one bar falls to little more than a half, while with A2 alone none moves much.
#
# </details>

# %%
SupportBoard({0: "B", 5: "taken away"})

# %% [markdown]
# ## Bug hunt
#
# The symptom: a colleague says that his ProtoNet resists attacks. He multiplies all logits by 10, which changes no answer, and PGD on the queries then misleads far fewer of them. Look at his loss before you read on.


# %%
def his_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """What his attack climbs: minus the logarithm of the right probability -> [M]."""
    probability = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    return -probability.clamp(1e-7, 1 - 1e-7).log()  # no logarithm of 0


def attack_one(task, loss, scale: float) -> tuple[Tensor, Tensor]:
    """Which queries are right under attack, and which have no gradient at all."""
    z = net.embed(task.support_x).detach()

    def climb(x: Tensor) -> Tensor:
        logits = scale * net.score(z, task.support_y, net.embed(x), 5)
        return loss(logits, task.query_y).sum()

    x = task.query_x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(climb(x), x)
    with torch.no_grad():
        bad = net.embed(attacks.ascend(climb, task.query_x, 0.1))
        answer = net.score(z, task.support_y, bad, 5).argmax(1)
    return answer == task.query_y, (slope.flatten(1) == 0).all(1)


def under_attack(loss, scale: float) -> tuple[float, float]:
    found = [attack_one(task, loss, scale) for task in sampler.batch(0, 3)]
    right, still = (torch.cat(part).double().mean() for part in zip(*found))
    return float(right), float(still)


for scale in (1.0, 10.0):
    reached, still = under_attack(his_loss, scale)
    print(f"logits times {scale:2.0f}: accuracy under attack {reached:.0%}", end=", ")
    print(f"queries without a gradient: {still:.0%}")

# %% [markdown]
# ### Exercise 22.4  Bug hunt: does a loss hide its gradient?  (difficulty 3/5, 9 min)
#
# Write the test that rings. `loss(logits, labels)` returns one number for each query, `[M]`. Return `True` if the gradient of its sum with respect to the logits is *not* that of the [cross-entropy](../lessons/GLOSSARY.md#cross-entropy "交叉熵"), in any entry, and `False` if it is, but for rounding. Its *values* do not matter. An attack takes the sign of the gradient: a tiny number has a sign, too, and NaN has none, so NaN must ring.
#
# | `loss` | `logits`, `labels` | returned |
# |---|---|---|
# | function of `[M, N]` and `[M]` | `[M, N]` in float64, `[M]` | bool |
#
# Among the queries are sure and unsure answers, right and wrong ones. Numbers that rounding parts agree to a relative 1e-4; a fault changes some entry by at least a relative 2e-3.


# %%
def exposes_hiding(loss, logits: Tensor, labels: Tensor) -> bool:
    """True when the gradient of loss is not that of the cross-entropy."""

    # BEGIN SOLUTION
    def slope(f) -> Tensor:
        z = logits.clone().requires_grad_()
        return torch.autograd.grad(f(z, labels).sum(), z)[0]

    wanted = slope(lambda z, y: F.cross_entropy(z, y, reduction="none"))
    return not torch.allclose(slope(loss), wanted, rtol=1e-3, atol=0)
    # END SOLUTION


exposes_hiding = check("22.4", exposes_hiding)

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# `clamp` keeps the probability below $1 - 10^{-7}$, and the gradient of a clamped number is exactly 0. Every query that is answered with more than that stays as it was, and counts as "robust". Logits times 10 make more answers that sure. Nothing protects them: the attack is blind.
#
# </details>
#
# This is called [gradient masking](../lessons/GLOSSARY.md#gradient-masking "梯度掩蔽"). Carlini found it in DEEPSEC (issue 3: a loss that is not numerically stable). A user of the Adversarial Robustness Toolbox saw unchanged pictures and 77.6 % where another backend had 16.91 % (issue 367).


# %%
def cured(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy from logits, by log-softmax."""
    return F.cross_entropy(logits, labels, reduction="none")


logits = torch.randn(6, 5, dtype=torch.float64) + 20 * torch.eye(6, 5)
labels = torch.tensor([0, 1, 2, 3, 4, 0])
assert exposes_hiding(his_loss, logits.double(), labels)
assert not exposes_hiding(cured, logits.double(), labels)
for told, loss in (("cross-entropy", cured), ("difference", lambda z, y: -lead(z, y))):
    for scale in (1.0, 10.0):
        reached, still = under_attack(loss, scale)
        print(f"{told}, logits times {scale:2.0f}: accuracy {reached:.0%}", end=", ")
        print(f"queries without a gradient: {still:.0%}")

# %% [markdown]
# Without the clamp, every query of the plain ProtoNet has its gradient back. With logits times 10, most still have none: the other letters' probabilities round to 0 in float32. The third attack climbs the *difference* between the best wrong logit and the right one, which nothing rounds away, and the "robust" learner falls like the plain one. So count the queries without a gradient.

# %% [markdown]
# ## Quiz
#
# **1. A class has 5 shots. A picture lies at distance 8 from its prototype. How far does the prototype move without it?**
# (a) 8/5, (b) 2, (c) 8
#
# <details><summary>Answer</summary>
#
# (b): equation (1) divides by $K - 1 = 4$. (a) divides by $K$, as if the picture were still counted. (c) is its own distance.
#
# </details>
#
# **2. A poison lowers the accuracy on the attacker's queries from 98 to 89 %. What do you report?**
# (a) nine points, (b) the accuracy on queries that he did not use, (c) the loss that he climbed
#
# <details><summary>Answer</summary>
#
# (b). Fresh queries may lose far less, as the matching network does. (a) is a training number. (c) is his aim, not what users see.
#
# </details>
#
# **3. Your learner is calibrated on validation letters. A user draws icons. Is "95 % sure" true?**
# (a) yes, (b) nobody knows until it is measured there, (c) yes, if T was fitted
#
# <details><summary>Answer</summary>
#
# (b). On icons the ProtoNet was right in 57 %, and more than 90 % sure. Against (a) and (c): a temperature is true where it was fitted.
#
# </details>

# %% [markdown]
# **4. Why does the distance to the class means tell strangers from known letters better than the probability?**
# (a) it is in float64, (b) the softmax sees only differences between distances, (c) strangers have small distances
#
# <details><summary>Answer</summary>
#
# (b). A stranger far from all prototypes can still be nearer to one. Against (a): both come from the same numbers. Against (c): theirs are large.
#
# </details>
#
# **5. A defence halves the success of PGD, and accuracy does not change at all. What first?**
# (a) publish, (b) count queries with a zero gradient, (c) raise the number of steps
#
# <details><summary>Answer</summary>
#
# (b). A hidden gradient looks just like this. Against (a): nothing is shown yet. Against (c): more steps along a zero gradient stay where they are.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | influence | a mean without one row: $(K c - z)/(K - 1)$; ridge has a closed form, too |
# | nearest picture | often not the most influential one; in matching the one with the largest attention is |
# | saliency | erase the ink; compare with chance and with the darkest ink |
# | calibration | true where the temperature was fitted |
# | none of these | a distance to the class means, not the probability |
# | poison | score on fresh queries, beside noise and a flipped label |
# | defence | unit length, and a robust centre on top; both cost next to nothing here |
# | looks back | attention of [04](../notebooks/04_matching.ipynb) as an explanation; [05](../notebooks/05_prototypical.ipynb), sure and wrong on icons; [09](../notebooks/09_maml_images.ipynb), poisoned through its steps; ridge of [12](../notebooks/12_mapping.ipynb) |
#
# Pitfalls: attacks judged by their own queries; a gradient that is hidden; a defence that nobody attacked. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Oldewage, Bronskill and Turner (2022), *Adversarial Attacks are a Surprisingly Strong Baseline for Poisoning Few-Shot Meta-Learners* | poisoned support sets |
# | Madry et al. (2018), *Towards Deep Learning Models Resistant to Adversarial Attacks* | PGD |
# | Guo et al. (2017), *On Calibration of Modern Neural Networks* | equation 3: ECE; section 4.2: temperature |
# | Bertinetto et al. (2019), *Meta-learning with Differentiable Closed-form Solvers* | the ridge head |
# | Allen (1974), *The Relationship between Variable Selection and Data Augmentation and a Method for Prediction* | equation (2) |

# %% [markdown]
# ### Exercise 22.5 ★  Geometric median  (difficulty 2/5, 7 min)
#
# The geometric median minimises $\sum_i \|z_i - m\|$. Setting the gradient to zero gives a mean with weights $1 / \|z_i - m\|$, and Weiszfeld repeats it: start at the mean, compute the distances, take the weighted mean, `iterations` times. Count a distance below 1e-6 as 1e-6. With no iteration the mean is returned.
#
# On paper: rows 0, 1, 8 have the mean 3; the weights are 1/3, 1/2 and 1/5, and the first step leads to $2.1 / (31/30)$, about 2.03.
#
# | `rows` | `iterations` | returned |
# |---|---|---|
# | `[K, D]` | int, from 0 | `[D]` |


# %%
def geometric_median(rows: Tensor, iterations: int) -> Tensor:
    """The point after some steps of Weiszfeld's iteration. [K, D] -> [D]."""
    # BEGIN SOLUTION
    point = rows.mean(0)
    for _ in range(iterations):
        inverse = 1 / (rows - point).norm(dim=1).clamp_min(1e-6)
        point = (inverse[:, None] * rows).sum(0) / inverse.sum()
    return point
    # END SOLUTION


geometric_median = check("22.5", geometric_median)
assert torch.allclose(
    geometric_median(points[:4], 50), attacks.geometric_median(points[:4]), atol=1e-4
)

# %%
progress("22")
