# %% [markdown]
# # 00 Start: recognise a letter that you have seen once
#
# You build a classifier for letters of alphabets that its network was never trained on, from **one** drawing of each letter.
#
# Prerequisites: Python, PyTorch tensors, what a neural network is. Planned time: 45 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Objectives
#
# After this lesson you can
#
# 1. **say** what few-shot learning is for and read an episode (quiz),
# 2. **measure** the accuracy of predictions, your own included (exercise 00.1),
# 3. **write** a nearest-neighbour classifier on embeddings (exercise 00.2),
# 4. **judge** it on many episodes against honest baselines (exercise 00.3),
# 5. **use** `check`, `hint` and `progress` (exercises 00.1 to 00.3).

# %% [markdown]
# ## A puzzle: you are the learner
#
# Run the cells down to the pictures. You see five letters that you most likely cannot read, one drawing of each, and ten more drawings of the same letters.
# For each of the ten, decide which of the five it is, and enter your answers in the cell below the pictures. A network plays against you later.

# %%
import torch
from torch import Tensor

from fsl_classroom import check, hint, progress
from fsl_course import EpisodeSampler, compare, evaluate, load_glyphs, pretrained
from fsl_course.figures import (
    draw_image,
    episode_grid,
    intervals,
    new,
    show,
    slot_style,
)
from fsl_course.methods.baselines import baselines

torch.manual_seed(0)
glyphs = load_glyphs()
print(glyphs)  # a group is an alphabet, a class one of its letters

# %%
test = glyphs.split("test")
episode = EpisodeSampler(test, n_way=5, k_shot=1, n_query=2, seed=11)[0]

# %%
figure, grid = new(8, 2.1, columns=10, rows=2)
for place, axes in enumerate(grid[0]):
    axes.axis("off")
    if place < 5:
        axes.axis("on")
        row = int((episode.support_y == place).nonzero()[0])
        draw_image(axes, episode.support_x[row], f"letter {place}", edge="#0072B2")
for number, axes in enumerate(grid[1]):
    draw_image(axes, episode.query_x[number], f"query {number}")
show(
    figure,
    "Top: five letters numbered 0 to 4, one drawing of each. Bottom: ten more drawings "
    "of the same letters in mixed order.",
)

# %%
# replace each None by a number from 0 to 4: your answers for query 0, 1, ..., 9
my_answers = [None, None, None, None, None, None, None, None, None, None]

# %% [markdown]
# Do not look up the truth yet: you will mark your answers with a function that you write yourself. If the notebook came with stored outputs, cover the one under "A working classifier", which prints the truth.
#
# You could do this after one example of each letter. An ordinary classifier cannot, because these letters are not among the classes that it was trained to name.

# %% [markdown]
# ## What few-shot learning is for
#
# An ordinary classifier usually needs hundreds of examples of every class, and it knows only the classes that it was trained on.
# But think of a rare disease, a new product, a dialect or your own handwriting: there, examples are few, and new classes keep coming.
#
# [Few-shot learning](../lessons/GLOSSARY.md#few-shot-learning "少样本学习") asks for a classifier of *new* classes from a handful of examples of each.
# [Meta-learning](../lessons/GLOSSARY.md#meta-learning "元学习") is one way to get there: a learner practises on many small tasks, so that the next task is easy for it.

# %% [markdown]
# ## The idea in one picture
#
# The problem comes in [episodes](../lessons/GLOSSARY.md#episode "情景"), and the puzzle was one. The [support set](../lessons/GLOSSARY.md#support-set "支持集") holds the labelled examples that you may learn from;
# the [query set](../lessons/GLOSSARY.md#query-set "查询集") holds the pictures that you must name.
# The number of classes is the [way](../lessons/GLOSSARY.md#way "类别数"), and the number of examples of each is the [shot](../lessons/GLOSSARY.md#shot "样本数"), so the puzzle was *5-way 1-shot*.

# %%
picture = EpisodeSampler(test, n_way=5, k_shot=1, n_query=5, seed=3)[0]

# %%
show(
    episode_grid(picture, names=test.class_names),
    "A 5-way 1-shot episode: five rows, one for each class. The first picture of a row "
    "is the support drawing, framed in the colour of its slot; the five to its right "
    "are queries of the same class.",
)

# %% [markdown]
# The rows are sorted here so that you can compare the drawings. A learner gets them shuffled, and it is told no names: within one episode the classes carry the numbers 0 to 4,
# their [label slots](../lessons/GLOSSARY.md#label-slot "标签槽位"). Slot 2 is another letter in the next episode, so a learner cannot know slot 2 by heart; it has to compare.
#
# The next cell shows what a learner receives. The query labels are hidden here, because you have not marked your answers yet.

# %%
print(
    "support pictures",
    tuple(episode.support_x.shape),
    " labels",
    episode.support_y.tolist(),
)
print("query pictures  ", tuple(episode.query_x.shape))
print(
    "grey values from", float(episode.query_x.min()), "to", float(episode.query_x.max())
)

# %% [markdown]
# ## How the classifier works
#
# ![Two support pictures of each of three classes and one query go through the same encoder and become points; the query gets the class whose mean is nearest to it](../docs/diagrams/metric.svg)
#
# An [encoder](../lessons/GLOSSARY.md#encoder "编码器") $f_\phi$, a network with weights $\phi$, turns a picture into a vector $z$, its [embedding](../lessons/GLOSSARY.md#embedding "嵌入").
# It was trained so that pictures of one letter land close together, whichever letter it is. If this holds for new letters, too, then the nearest support *picture* gives a query its label $\hat y$. (The drawing compares with the *mean* of each class, the rule of lesson 05. With one picture of each class the two rules agree.)
#
# $$\hat y = y_{i^*}, \qquad i^* = \arg\min_i \lVert f_\phi(x) - f_\phi(x_i) \rVert^2$$

# %% [markdown]
# | symbol | variable | shape |
# |---|---|---|
# | $N$, $K$, $Q$ | `n_way`, `k_shot`, `n_query` | whole numbers |
# | $x_i$, $y_i$ | `support_x`, `support_y` | `[N*K, 1, 28, 28]`, `[N*K]` |
# | $x$ | `query_x` | `[N*Q, 1, 28, 28]` |
# | $f_\phi(x_i)$ | `support` | `[N*K, D]`, here $D = 64$ numbers in an embedding |
# | $f_\phi(x)$ | `query` | `[N*Q, D]` |
# | $\hat y$ | `predicted` | `[N*Q]` |

# %% [markdown]
# ## By hand
#
# Take $D = 2$ and two classes with two support embeddings each: class 0 lies at (0, 0) and (0, 2), class 1 at (4, 0) and (6, 2).
# A query lands on (3, 2). Its squared distances are 9 + 4 = 13, 9 + 0 = 9, 1 + 4 = 5 and 9 + 0 = 9.
# The third is the smallest, and it belongs to class 1, so the query is named 1.

# %%
support = torch.tensor([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [6.0, 2.0]])
labels = torch.tensor([0, 0, 1, 1])
query = torch.tensor([3.0, 2.0])
distances = []
for z in support:
    distances.append(float(((query - z) ** 2).sum()))
print("one at a time:", distances)
print("all at once:  ", (query - support).square().sum(1).tolist())
assert distances == (query - support).square().sum(1).tolist()

# %% [markdown]
# ## How exercises work
#
# Replace the line `raise NotImplementedError(...)` by your own code and run the cell. `check` tries your function on several inputs,
# says in words what is wrong, and hands back a working version, so that the lesson goes on whether your answer is right or not.
#
# If you are stuck, `hint("00.1")` gives a nudge, the second call a stronger one, and the third almost the code.
# `progress("00")` shows what is right so far, and `progress()` does so for all lessons. Nothing leaves your computer.

# %%
hint("00.1", 1)

# %% [markdown]
# ### Exercise 00.1  Accuracy  (difficulty 1/5, 3 min)
#
# Write the function that marks the puzzle: which fraction of the predictions is right? `predicted` and `labels` are whole numbers of shape `[M]`.
# Return a Python float between 0 and 1. For example, predictions 0, 1, 1, 2 against labels 0, 1, 2, 2 give 0.75, because three of four agree.


# %%
def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Fraction of right predictions.
    predicted int64 [M], labels int64 [M] -> float in [0, 1].
    """
    # BEGIN SOLUTION
    hits = predicted == labels
    return hits.double().mean().item()
    # END SOLUTION


accuracy = check("00.1", accuracy)

# %% [markdown]
# Now mark yourself with it. If you have not filled in `my_answers` above, do it now and run this cell again.

# %%
if None in my_answers:
    print("my_answers is not filled in yet")
else:
    mine = torch.tensor(my_answers)
    print(f"you are right in {accuracy(mine, episode.query_y):.0%} of your ten answers")

# %% [markdown]
# ### Exercise 00.2  The nearest support picture  (difficulty 2/5, 8 min)
#
# Each query gets the label of the support embedding that is nearest to it in squared Euclidean distance.
# `query` is `[M, D]`, `support` is `[S, D]`, and `labels` is `[S]`; return whole numbers `[M]`. A loop over the queries is fine.


# %%
def nearest(query: Tensor, support: Tensor, labels: Tensor) -> Tensor:
    """Label of the nearest support row.
    query [M, D], support [S, D], labels int64 [S] -> int64 [M].
    """
    # BEGIN SOLUTION
    gaps = query[:, None, :] - support[None, :, :]
    return labels[gaps.square().sum(2).argmin(1)]
    # END SOLUTION


nearest = check("00.2", nearest)

# %% [markdown]
# If an answer is wrong, `check` holds it against a catalogue of classic mistakes and says *which* one it looks like.
# Once it is right, the rest of the lesson runs on your own function.

# %% [markdown]
# ## A working classifier
#
# `pretrained` loads an encoder that was trained on 30 alphabets; lesson 05 shows how. The 13 test alphabets, from which the puzzle comes, were locked away.
# So both of you see these letters for the first time.

# %%
encoder = pretrained("prototypical", "glyphs").encoder
with torch.no_grad():
    support, query = encoder(episode.support_x), encoder(episode.query_x)
predicted = nearest(query, support, episode.support_y)
print("embeddings  ", tuple(support.shape), tuple(query.shape))
print("predicted   ", predicted.tolist())
print("truth       ", episode.query_y.tolist())
print("accuracy    ", accuracy(predicted, episode.query_y))

# %% [markdown]
# The encoder names all ten right. How do the letters lie in its space? An embedding has 64 numbers, which nobody can draw. So the next cell projects the five support points and the ten queries onto the plane in which they spread most,
# and connects each query with the support point that is nearest in all 64 dimensions.

# %%
everything = torch.cat([support, query])
centred = everything - everything.mean(0)
_, spread, directions = torch.linalg.svd(centred, full_matrices=False)
flat = centred @ directions[:2].T  # [15, 2]: the two directions of largest spread
kept = float(spread[:2].square().sum() / spread.square().sum())
print(f"the plane keeps {kept:.0%} of the spread")

# %%
figure, axes = new(7, 4)
for row, z in enumerate(flat[5:]):
    z_near = flat[(query[row] - support).square().sum(1).argmin()]
    axes.plot(*zip(z.tolist(), z_near.tolist(), strict=True), color="0.6", zorder=0)
for slot in range(5):
    own = flat[:5][episode.support_y == slot], flat[5:][episode.query_y == slot]
    for points, size in zip(own, (160, 40), strict=True):
        axes.scatter(
            *points.T, s=size, edgecolors="black", linewidths=0.7, **slot_style(slot)
        )
    axes.annotate(
        f"letter {slot}", own[0][0].tolist(), (9, 6), textcoords="offset points"
    )
axes.set(
    xlabel="direction of largest spread",
    ylabel="second direction",
    title="Large: support. Small: queries, with a line to the nearest support",
)
axes.margins(0.15)
show(
    figure,
    "Five large markers, the support points of letters 0 to 4, lie far apart. The two "
    "queries of each letter, small markers of the same colour and shape, lie near "
    "their support point, and a line leads there.",
)

# %% [markdown]
# Every query lies near the support point of its own letter, although the encoder was never trained on any of the five. That is the whole idea of the metric methods of part I: learn a space in which "near" means "the same class", and keep using it when the classes are new.

# %% [markdown]
# ## Where it errs
#
# One episode flatters. In the episode with `seed=13` the same encoder gets two of ten wrong. Look at what it mixed up before you blame it.

# %%
hard = EpisodeSampler(test, n_way=5, k_shot=1, n_query=2, seed=13)[0]
with torch.no_grad():
    support, query = encoder(hard.support_x), encoder(hard.query_x)
said = nearest(query, support, hard.support_y)
print("accuracy    ", accuracy(said, hard.query_y))
distances = (query[:, None] - support).square().sum(2)  # [10, 5]
wrong = (said != hard.query_y).nonzero()[:, 0].tolist()

# %%
figure, grid = new(5.4, 2.1 * len(wrong) + 0.2, columns=3, rows=len(wrong))
told = []
for number, axes in zip(wrong, grid.reshape(-1, 3), strict=True):
    draw_image(axes[0], hard.query_x[number], f"query {number}")
    for axis, slot, name in (
        (axes[1], said[number], "nearest"),
        (axes[2], hard.query_y[number], "true letter"),
    ):
        row = int((hard.support_y == slot).nonzero()[0])
        far = float(distances[number, row])
        draw_image(axis, hard.support_x[row], f"{name}, {far:.1f}", edge="#0072B2")
        told.append(f"query {number}, {name} at {far:.1f}")
show(
    figure,
    "The wrongly named queries of seed 13, each beside the support drawing that was "
    f"nearest and the one of its own letter: squared distances {'; '.join(told)}.",
)

# %% [markdown]
# The number above a support drawing is its squared distance to the query. Both wrong queries belong to one letter, whose only support drawing came out narrow, while they are wide. You might have erred, too. A second drawing of each letter would give them another chance to find a near one.

# %% [markdown]
# ## Meet the package
#
# ![The floors of fsl_course: _system at the ground, then data and nets, episodes, inner_loop and figures, methods, evaluation and weights, classifier and trust, training, and cli at the top. fsl_classroom stands on it; lessons use both](../docs/diagrams/package.svg)
#
# `fsl_course` packs both steps, encoding and comparing, into one *learner*. It turns an episode into [logits](../lessons/GLOSSARY.md#logits "对数几率"), one score for each query and slot.
# With one shot the highest score belongs to the nearest support picture, so its predictions must agree with yours. The next cell counts in how many of 20 episodes they do.

# %%
learner = pretrained("prototypical", "glyphs")
sampler = EpisodeSampler(test, n_way=5, k_shot=1, n_query=15, seed=0)
same, total = 0, 0
with torch.no_grad():
    for index in range(20):
        task = sampler[index]
        yours = nearest(encoder(task.query_x), encoder(task.support_x), task.support_y)
        same += int((learner(task).argmax(1) == yours).sum())
        total += len(yours)
print(f"{same} of {total} predictions agree")
assert same >= total - 2  # a near tie may be rounded either way

# %% [markdown]
# ## Is that good? Many episodes and baselines
#
# One episode says little, because its letters may be easy. So you average over hundreds and show an interval, the ± that lesson 01 explains. And a number needs company, so four [baselines](../lessons/GLOSSARY.md#baseline "基线") meet the same episodes:
#
# - *chance* guesses;
# - *pixels, Euclidean* takes the nearest support picture, pixel by pixel;
# - *pixels, cosine* does so by the [cosine](../lessons/GLOSSARY.md#cosine-similarity "余弦相似度"), which compares the directions of two vectors and ignores how long they are;
# - *random Conv4* is the network of our encoder (four blocks of convolution) with random weights.

# %%
results = {
    name: evaluate(baseline, sampler, episodes=300)
    for name, baseline in baselines().items()
}
results["trained encoder"] = evaluate(learner, sampler, episodes=300)
for name, result in results.items():
    print(f"{name:18s} {result}")

# %%
figure = intervals(
    {name: (r.mean, r.ci95) for name, r in results.items()}, chance=1 / 5
)
rows = ", ".join(f"{name} {r.mean:.0%}" for name, r in results.items())
show(
    figure,
    f"Accuracy with 95 % intervals on 300 test episodes, 5-way 1-shot: {rows}. The "
    "dashed line is chance, 20 %.",
)

# %% [markdown]
# Guessing is right once in five, which is [chance](../lessons/GLOSSARY.md#chance "随机水平"). Pixels reach about one half without having learned anything, and a network with random weights a few points more. Training lifts the same network above 97 %, although all that it learned comes from *other* alphabets.
#
# Every query was judged on its own ([inductive](../lessons/GLOSSARY.md#inductive "归纳式")). You may *not* claim as much for photographs or for real handwriting, because these drawings come from [virtual hands](../data/glyphs.md): a program writes every letter 20 times, each time as a hand with its own slant and size would.

# %% [markdown]
# ### Exercise 00.3  Better by how much?  (difficulty 2/5, 5 min)
#
# The trained encoder and the pixels met the same episodes, so you can compare them episode by episode. `a` and `b` hold the accuracy of each episode, shape `[E]`.
# Return two floats: the mean of the difference `a - b`, and the fraction of all episodes in which `a` is strictly better.


# %%
def better(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Mean of a - b, and share of episodes with a > b. a, b float [E] -> two floats."""
    # BEGIN SOLUTION
    gain = (a - b).mean()
    wins = (a > b).double().mean()
    return gain.item(), wins.item()
    # END SOLUTION


better = check("00.3", better)

# %%
a, b = results["trained encoder"], results["pixels, cosine"]
gain, wins = better(a.per_episode, b.per_episode)
print(f"trained against pixels: {100 * gain:+.1f} points, better in {wins:.0%} of them")
print(compare(a, b))
print("random Conv4 against pixels:", compare(results["random Conv4"], b))

# %% [markdown]
# The second line gives the same mean difference with its interval, which leaves out 0 by far. The third line says that even random weights beat the pixels here, because that interval leaves out 0 as well. Lesson 01 shows what such an interval promises, and how it can be abused.

# %% [markdown]
# ## Explore
#
# Predict the answer first; then change one number in the next cell and run it.
#
# 1. More ways: what happens to chance, and to the trained encoder?
# 2. More shots: who gains most, the pixels or the encoder?
# 3. All letters from one alphabet (`within_group=True`): easier or harder?
#
# <details><summary>Answers</summary>
#
# 1: with 20 ways chance falls from 10 % to 5 %, the trained encoder only from 95 % to 91 %.
# 2: the pixels. With 5 shots they rise by about 20 points; the encoder, near the top already, by four.
# 3: harder. Letters of one alphabet look alike: the encoder falls to 84 %, pixels (cosine) to about 30 %.
#
# </details>

# %%
n_way, k_shot, within_group = 10, 1, False
harder = EpisodeSampler(
    test, n_way, k_shot, n_query=5, seed=1, within_group=within_group
)
rows = {
    name: evaluate(known, harder, episodes=100) for name, known in baselines().items()
}
rows["trained encoder"] = evaluate(learner, harder, episodes=100)
figure = intervals(
    {name: (r.mean, r.ci95) for name, r in rows.items()}, chance=1 / n_way
)
listed = ", ".join(f"{name} {r.mean:.0%}" for name, r in rows.items())
show(
    figure,
    f"Accuracy on 100 episodes, {n_way}-way {k_shot}-shot: {listed}. Chance is "
    f"{1 / n_way:.0%}.",
)

# %% [markdown]
# ## Teach it your own alphabet
#
# Draw two to ten characters of your own, one to five times each, and then one of them again. Every method says what it sees, and why. Nothing is trained while you draw.
#
# 1. Which method is the first to fail when you draw carelessly?
# 2. Does a second drawing of each character help?

# %%
from fsl_classroom.widgets import TeachAlphabet

TeachAlphabet()

# %% [markdown]
# ## What the course holds
#
# | lesson | you will be able to |
# |---|---|
# | 00 start | run a few-shot classifier and read an episode |
# | [01 episodes](../notebooks/01_episodes.ipynb) | write the sampler, catch leaks, report honest intervals |
# | [02 baselines](../notebooks/02_baselines.ipynb) | reuse a trained network, and ask whether meta-learning beats it |
# | [03 Siamese networks](../notebooks/03_siamese.ipynb) | train on pairs: same or different? |
# | [04 matching networks](../notebooks/04_matching.ipynb) | label a query by attention over the support |
# | [05 prototypical networks](../notebooks/05_prototypical.ipynb) | write, train and judge Prototypical Networks |
# | [06 relation networks](../notebooks/06_relation.ipynb) | learn the comparison itself; compare all metric methods |
# | [07 inner loop](../notebooks/07_inner_loop.ipynb) | adapt to a task by gradient steps that stay differentiable |
# | [08 outer loop](../notebooks/08_outer_loop.ipynb) | MAML's second-order gradient, derived and proved five ways |
# | [09 MAML on pictures](../notebooks/09_maml_images.ipynb) | batch norm in the inner loop; against prototypes |
# | [10 cheaper MAML](../notebooks/10_cheaper_maml.ipynb) | FOMAML, Reptile, Meta-SGD, ANIL: cost against accuracy |
# | [11 learned optimisers](../notebooks/11_learned_optimizers.ipynb) | an LSTM whose state is the network it trains |
# | [12 mapping](../notebooks/12_mapping.ipynb) | a classifier from one formula, or from a network that writes it |
# | [13 in context](../notebooks/13_in_context.ipynb) | a network reads the support and answers, without an update |
# | [14 graphs](../notebooks/14_graphs.ipynb) | let labels flow from query to query, and ask whether balance made the gain |
# | [15 unlabelled pictures](../notebooks/15_unlabelled.ipynb) | let pictures without a name move prototypes; choose which to ask about |
# | [16 hallucination](../notebooks/16_hallucination.ipynb) | add invented examples to a support, and ask whether they help |
# | [17 without labels](../notebooks/17_without_labels.ipynb) | train on pictures that nobody named, and say what they are worth in labels |
# | [18 zero-shot](../notebooks/18_zero_shot.ipynb) | classify letters that you know from a description only |
# | [19 segmentation](../notebooks/19_segmentation.ipynb) | mark in a scene what one marked example shows, and judge masks |
# | [20 words](../notebooks/20_words.ipynb) | the same learners on sentences, against shared letters |
# | [21 acting](../notebooks/21_acting.ipynb) | learn to act from a reward alone, in one step or in none |
# | [22 trust](../notebooks/22_trust.ipynb) | say why an answer came, how sure it is, and what breaks it |
# | [23 shift](../notebooks/23_shift.ipynb) | measure what is left of a method on another domain |
# | [24 continual](../notebooks/24_continual.ipynb) | add classes for months without forgetting the first |
# | [25 deployment](../notebooks/25_deployment.ipynb) | shrink an encoder, ship it as one file, and measure what was lost |
# | [26 your own](../notebooks/26_your_own.ipynb) | take pictures or sentences of your own to an honest report |
#
# You need not take them in order. The [learning path](../book/path.md) says what each lesson needs, and how to see the idea in an evening.
#
# <details><summary>Which lesson needs which: a picture</summary>
#
# ![Lessons 00 to 26 in four parts, with arrows from each lesson to those that need it. After part I you may go on to 07, 14, 15, 16, 19 or 24](../docs/diagrams/path.svg)
#
# An arrow leads to a lesson from each one that it needs.
#
# </details>

# %% [markdown]
# ## Is your installation in order?
#
# The doctor looks at versions, data, memory and folders, and it says how to mend what is wrong.
# `doctor.run()` lists everything; in a terminal, type `python -m fsl_course doctor`.

# %%
from fsl_course.cli import doctor

status = doctor.run(brief=True)

# %% [markdown]
# ## Quiz
#
# **1. In a 5-way 2-shot episode with 3 queries for each class, how many pictures does the support set hold?**
# (a) 2, (b) 10, (c) 15, (d) 25
#
# <details><summary>Answer</summary>
#
# (b). 5 classes times 2 shots. (a) counts one class only. (c) is the query set, 5 times 3. (d) is support and query together.
#
# </details>
#
# **2. An encoder scores 96 % on test episodes of letters that were also in its training set. What does that show?**
# (a) it learns new letters from one example, (b) it knows its training letters, (c) nothing can be concluded at all
#
# <details><summary>Answer</summary>
#
# (b). Seen letters can be remembered, so (a) does not follow: few-shot accuracy needs novel classes. (c) goes too far; it did learn something.
#
# </details>

# %% [markdown]
# **3. Why does slot 2 mean another letter in every episode?**
# (a) to save memory, (b) so that no learner can connect a slot with a letter, (c) because letters are sorted by name
#
# <details><summary>Answer</summary>
#
# (b). Only the support set may tell which letter sits where. (a) the numbers cost the same. (c) a sorted order would *fix* the map, which leaks; lesson 01 measures it.
#
# </details>
#
# **4. A method scores 40 % in 20-way episodes. Good or bad?**
# (a) bad, below half, (b) eight times chance; compare it with baselines to know, (c) good, since 20-way is hard
#
# <details><summary>Answer</summary>
#
# (b). Chance is 5 %. (a) half is no yardstick when there are 20 answers. (c) pixels alone may reach it: only baselines on the same episodes decide.
#
# </details>

# %% [markdown]
# ## Summary
#
# - An episode has a support set to learn from and a query set to be judged on, with N ways and K shots.
# - To embed the pictures and to take the nearest is a working few-shot classifier in two functions.
# - A number means little without novel classes, many episodes, an interval and baselines.
#
# Pitfalls are to judge on training letters, to trust one lucky episode, and to print an accuracy without chance beside it. Next come [episodes, done right]({{next}}).

# %%
progress("00")

# %% [markdown]
# ## References
#
# - Lake, Salakhutdinov, Tenenbaum (2015), *Human-level concept learning through probabilistic program induction*, Science 350: people and machines on letters seen once.
# - Vinyals et al. (2016), *Matching Networks for One Shot Learning*, section 4: the N-way K-shot protocol.
# - Snell, Swersky, Zemel (2017), *Prototypical Networks for Few-shot Learning*, equation 2: how this encoder was trained.
# - The data: [card of Glyphs](../data/glyphs.md).
