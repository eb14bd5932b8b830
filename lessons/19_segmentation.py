# %% [markdown]
# # 19 Segmentation: where is it?
#
# Until now one picture held one letter. Now a scene holds three or four, somebody has marked one of them in one scene, and you find the same letter in other scenes: pixel by pixel, and with a box around it.
#
# Prerequisites: lessons 04 and 05. Planned time: 60 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** What is the prototype of a class, and which distance does a prototypical network use?
#
# <details><summary>Answer</summary>
#
# The mean of the embedded support pictures of the class, and the squared Euclidean distance (lesson 05).
#
# </details>
#
# **2.** Why does a cosine need a scale before a softmax?
#
# <details><summary>Answer</summary>
#
# Cosines lie between −1 and 1, so without a scale the softmax is nearly flat (lesson 04).
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **pool** features under a mask (exercise 19.1),
# 2. **segment** a scene by two prototypes (exercise 19.2),
# 3. **measure** masks so that small classes count (exercise 19.3),
# 4. **turn** a heat map into boxes (exercise 19.4),
# 5. **expose** a prototype that averages the wrong pixels (exercise 19.5).

# %% [markdown]
# ## A puzzle: any ink?
#
# A scene has one wanted letter among two or three others. The laziest answer marks *every* pixel that is bright, so it marks all letters. A score compares its mask with the true mask: the number of pixels in both, divided by the number of pixels in at least one. This is the [intersection over union](../lessons/GLOSSARY.md#intersection-over-union "交并比"), or IoU: 1 is perfect, 0 is worst.
#
# Write down: which IoU does "any ink" reach, on average? And does a network that was trained on letters beat it at once, if you apply it to every place of the scene?

# %%
import inspect
import json

import torch
import torch.nn.functional as F
from torch import Tensor

import fsl_course
from fsl_classroom import check, progress
from fsl_course import evaluate, fit, load_glyphs
from fsl_course.data.assets import asset
from fsl_course.data.scenes import boxes_of
from fsl_course.episodes import SceneSampler
from fsl_course.evaluation import mean_and_ci95
from fsl_course.figures import SLOTS, draw_image, new, show
from fsl_course.methods import dense as package

torch.manual_seed(0)
glyphs = load_glyphs()
scenes = SceneSampler(glyphs.split("test"), k_shot=1, n_query=2)
test = scenes.batch(0, 60)
learner = fsl_course.pretrained("dense", "glyphs")

# %% [markdown]
# `SceneSampler` puts letters on canvases of 64 by 64 pixels. Later letters cover earlier ones, and quarters of letters are strewn about as clutter. A [mask](../lessons/GLOSSARY.md#mask "掩码") is True on the *visible ink* of the wanted letter: neither between its strokes, nor where another letter covers it. Half of the queries, on average, hold the wanted letter twice. The test letters come from scripts that no training has seen.

# %% [markdown]
# ## The idea in one picture
#
# The next cell shows one task that goes well, with the answer of the net that the course ships. You will see failures later.

# %%
episode = test[2]
with torch.no_grad():
    answer = learner(episode).argmax(1) == 1  # logits [Q, 2, H, W], background first
print("support, mask:", list(episode.support_x.shape), list(episode.support_y.shape))
print("queries:", list(episode.query_x.shape), " answer:", list(answer.shape))


# %%
def painted(scene: Tensor, mask: Tensor, color: str) -> Tensor:
    """A grey scene [1, H, W] with the pixels of a mask in a colour -> [3, H, W]."""
    rgb = torch.tensor([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return torch.where(mask, rgb[:, None, None], scene.expand(3, -1, -1))


def drawn(tasks: list, titles: list[str]):
    """One row a task: the marked support, a query, its truth, and an answer."""
    figure, grid = new(7.2, 1.9 * len(tasks), columns=4, rows=len(tasks), squeeze=False)
    for row, (task, found), title in zip(grid, tasks, titles):
        query = task.query_x[0]
        cells = [
            (
                painted(task.support_x[0], task.support_y[0], SLOTS[4]),
                "support and mask",
            ),
            (query, "query"),
            (painted(query, task.query_y[0], SLOTS[4]), "truth"),
            (painted(query, found[0], SLOTS[0]), title),
        ]
        for axis, (picture, words) in zip(row, cells):
            axis.imshow(
                picture.permute(1, 2, 0).squeeze(-1), cmap="gray", vmin=0, vmax=1
            )
            axis.set_title(words, fontsize=9)
            axis.axis("off")
    return figure


# %% tags=["draws"]
show(
    drawn([(episode, answer)], ["answer"]),
    "Four scenes side by side: the support with the wanted letter in orange, a query, "
    "the query with the true mask in orange, and the query with the net's answer in "
    "blue.",
)

# %% [markdown]
# The method is lesson 05 at every pixel. The encoder turns a scene into a map of features. The mean of the features under the mask is the [prototype](../lessons/GLOSSARY.md#prototype "原型") of the letter, and the mean of those outside is the prototype of the background. Every place of a query then goes to the prototype that it resembles more.

# %% [markdown]
# ## Why it should work
#
# In lesson 05 a class was a cloud of embeddings around its mean. Here every *pixel* is an example, and the mask is its label. With $z_{kp}$ the feature of pixel $p$ in shot $k$, after the map is enlarged to the mask, and $m_{kp}$ its mask, 0 or 1,
#
# $$c = \frac1K \sum_k \frac{\sum_p m_{kp}\, z_{kp}}{\sum_p m_{kp} + 10^{-5}} \tag{1}$$
#
# The small number keeps a shot with an empty mask from dividing by zero. This is [masked average pooling](../lessons/GLOSSARY.md#masked-average-pooling "掩码平均池化").

# %% [markdown]
# A feature has a direction and a length. PANet (Wang et al. 2019) compares directions only, scaled by $\alpha = 20$, so the length has no say. With $n = 0$ for background and $n = 1$ for the letter,
#
# $$\ell_{pn} = \alpha \cos(z_p, c_n) \tag{2}$$
#
# | symbol | variable | shape |
# |---|---|---|
# | $z$ | `features` | `[K, D, h, w]` |
# | $m$ | `masks`, bool | `[K, H, W]` |
# | $c_n$ | `prototypes` | `[N, D]` |
# | $\alpha$ | `scale` | number |
# | $\ell$ | logits | `[B, N, h, w]` |
#
# A map has fewer places than the mask has pixels: `h` and `w` are half of `H` and `W` in our net.

# %% [markdown]
# ## By hand
#
# Take a map of 2 by 2 places with one feature: 1, 2 in the first row and 3, 4 in the second. The mask is True on the diagonal, so the prototype is (1 + 4)/2 = 2.5. For equation (2), take the feature (3, 4) and the prototype (1, 0): the cosine is 3/5, and with scale 20 the logit is 12.

# %% tags=["nbval-check-output"]
features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
masks = torch.tensor([[[True, False], [False, True]]])
total, count = 0.0, 0
for row in range(2):
    for column in range(2):
        if masks[0, row, column]:
            total, count = total + float(features[0, 0, row, column]), count + 1
print("prototype:", total / count)
print(
    "logit:", round(20 * float(F.cosine_similarity(Tensor([3, 4]), Tensor([1, 0]), 0)))
)

# %% [markdown]
# Both numbers are the ones on paper.

# %% [markdown]
# ### Exercise 19.1  Masked average pooling  (difficulty 2/5, 8 min)
#
# Return the prototype of equation (1). `features` is float and `masks` is bool. Enlarge the features to the size of the masks with `F.interpolate(..., mode="bilinear", align_corners=False)`. Average inside each shot, dividing by the number of True pixels plus 1e-5, then take the mean over the shots. An empty mask gives zeros for its shot.
#
# | `features` | `masks` | returned |
# |---|---|---|
# | `[K, D, h, w]` | `[K, H, W]`, bool | `[D]`, in the dtype of `features` |


# %%
def masked_average(features: Tensor, masks: Tensor) -> Tensor:
    """Prototype under the masks. features [K, D, h, w], masks [K, H, W] -> [D]."""
    # BEGIN SOLUTION
    size = masks.shape[-2:]
    large = F.interpolate(features, size, mode="bilinear", align_corners=False)
    weight = masks.to(features.dtype)[:, None]  # [K, 1, H, W]
    sums = (large * weight).sum((2, 3))  # [K, D]
    return (sums / (weight.sum((2, 3)) + 1e-5)).mean(0)
    # END SOLUTION


masked_average = check("19.1", masked_average)

# %% [markdown]
# ### Exercise 19.2  Every place against two prototypes  (difficulty 2/5, 6 min)
#
# Return the logits of equation (2): `scale` times the cosine of every place with every prototype. No feature and no prototype is zero. Do not enlarge anything here, and take no softmax.
#
# | `features` | `prototypes` | `scale` | returned |
# |---|---|---|---|
# | `[B, D, h, w]` | `[N, D]` | float | `[B, N, h, w]` |


# %%
def compare_places(features: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """Logits of every place. [B, D, h, w], [N, D] -> [B, N, h, w]."""
    # BEGIN SOLUTION
    places = F.normalize(features, dim=1)
    return scale * torch.einsum("bdhw,nd->bnhw", places, F.normalize(prototypes, dim=1))
    # END SOLUTION


compare_places = check("19.2", compare_places)

# %% tags=["nbval-check-output"]
# 1. The loop on paper and your function agree.
assert abs(float(masked_average(features, masks)) - total / count) < 1e-4
# 2. A feature ten times as long has the same logits.
maps, two = torch.randn(1, 6, 4, 4), torch.randn(2, 6)
assert torch.allclose(
    compare_places(maps, two, 20.0), compare_places(10 * maps, two, 20.0), atol=1e-4
)
# 3. The order of the shots does not matter.
shots, marks = torch.randn(3, 6, 4, 4), torch.rand(3, 8, 8) < 0.3
assert torch.allclose(
    masked_average(shots, marks), masked_average(shots.flip(0), marks.flip(0))
)


# 4. The gradient passes through both, in float64.
def both_ways(z: Tensor, q: Tensor) -> Tensor:
    found = [masked_average(z, m) for m in (~marks, marks)]
    return compare_places(q, torch.stack(found), 2.0)


pair = [t.double().requires_grad_() for t in (shots, maps)]
assert torch.autograd.gradcheck(both_ways, pair)
print("loop, length, order and gradient: four laws hold")

# %% [markdown]
# ## Measure masks
#
# How good are the masks of many tasks? Three numbers go by the same name, mean IoU or "mIoU":
#
# | name | sums pixels over | then averages over |
# |---|---|---|
# | pooled | all tasks | nothing |
# | per class | the tasks of a class | classes |
# | per episode | the queries of a task | tasks |
#
# Pooling lets large letters decide. Papers report the number per class. `evaluate` gives the number per episode, because paired intervals need one number per task.

# %% [markdown]
# ### Exercise 19.3  Mean IoU over classes  (difficulty 2/5, 7 min)
#
# Return the number per class as a Python float. `answers[e]` and `truths[e]` are the masks of picture `e`, and `classes[e]` is the number of its class. For every class that occurs, add the pixels in both masks over its pictures, add the pixels in at least one, and divide. A class whose second number is 0 counts as 1, because nothing was there and nothing was found.
#
# On paper: in one picture of class 7 the masks share 1 pixel of 4, and in another 1 of 1, so the class has 2/5. Class 2 is perfect, with 4 pixels of 4, so the mean is 0.7.
#
# | `answers`, `truths` | `classes` | returned |
# |---|---|---|
# | `[E, H, W]`, bool | `[E]`, int64 | float |


# %%
def mean_iou(answers: Tensor, truths: Tensor, classes: Tensor) -> float:
    """Mean over classes of intersection over union. [E, H, W] twice, [E] -> float."""
    # BEGIN SOLUTION
    found = []
    for c in classes.unique():
        a, t = answers[classes == c], truths[classes == c]
        union = int((a | t).sum())
        found.append(int((a & t).sum()) / union if union else 1.0)
    return sum(found) / len(found)
    # END SOLUTION


mean_iou = check("19.3", mean_iou)


# %%
def three_numbers(answers: Tensor) -> tuple[float, float, float]:
    """Pooled, per class, per episode. answers: bool [T, Q, H, W] for the test tasks."""
    truths, names = test.query_y, test.classes.expand(-1, answers.shape[1]).flatten()
    pooled = (answers & truths).sum() / (answers | truths).sum()
    each = [float(package.iou(a, t)) for a, t in zip(answers, truths)]
    by_class = mean_iou(answers.flatten(0, 1), truths.flatten(0, 1), names)
    return float(pooled), by_class, sum(each) / len(each)


def answers_of(net) -> Tensor:
    """The masks of all test queries, bool [T, Q, H, W]."""
    with torch.no_grad():
        return torch.stack([net.eval()(task).argmax(1) == 1 for task in test])


ink = test.query_x[:, :, 0] > 0.42
masks_of = {"any ink": ink, "the shipped net": answers_of(learner)}
print(f"{'':18s}{'pooled':>9s}{'per class':>11s}{'per episode':>13s}")
for name, found in masks_of.items():
    print(f"{name:18s}" + "{:9.3f}{:11.3f}{:13.3f}".format(*three_numbers(found)))
area = test.query_y.flatten(1).sum(1)
for name, found in masks_of.items():
    each = torch.stack([package.iou(a, t) for a, t in zip(found, test.query_y)])
    small, large = each[area < area.median()], each[area >= area.median()]
    print(f"{name}: small letters {small.mean():.3f}, large ones {large.mean():.3f}")

# %% [markdown]
# Any ink reaches an IoU of about a third: the first answer to the puzzle. The three columns lie close together here. In the example on paper they part: pooled, its masks share 6 of 9 pixels, which is 0.67 and not 0.7. In the last two lines the net scores higher where more ink is wanted. Any ink does so too, although it knows no letters, so these lines do not show that large letters are recognised better.

# %% [markdown]
# ## Meet the package
#
# `DensePrototypes` does what you wrote, so your two functions must give its logits.

# %%
with torch.no_grad():
    support, query = learner.features(episode)
    mine = torch.stack(
        [masked_average(support, m) for m in (~episode.support_y, episode.support_y)]
    )
    logits = compare_places(query, mine, 20.0)
    logits = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(logits, learner(episode), atol=1e-3)
print("features of a scene:", list(support.shape[1:]))
print(inspect.getsource(package.DensePrototypes.alignment))

# %% [markdown]
# PANet's first loss is the cross-entropy of the query's logits with the true masks. `alignment` is its second loss, the way back (the paper's equation 6). The *predicted* masks of the queries make prototypes, and these must segment the support. Where nothing is predicted the loss is 0. No gradient flows through the masks, because `argmax` has none. You can write this loss in exercise 19.6 ★.

# %% [markdown]
# ## Train for real
#
# PANet starts from a network trained on photographs. Our encoder starts from the first three blocks of the shipped ProtoNet, which stay frozen. The cell below trains the last block, which begins with random numbers. It also prepares three rows that are never trained on scenes: an encoder that is random throughout, the maps of the ProtoNet's three blocks as they are, and our encoder before its training ("random head").

# %%
torch.manual_seed(0)
short = package.DensePrototypes(package.DenseEncoder(64, frozen=True))
protonet = fsl_course.pretrained("prototypical", "glyphs").encoder
short.encoder.start_from(protonet)
untrained = {
    "random encoder": package.DenseEncoder(64),
    "ProtoNet's maps": protonet.layers[:12],  # three blocks of four layers
    "random head": short.encoder,
}
for name, encoder in untrained.items():
    masks_of[name] = answers_of(package.DensePrototypes(encoder))
practice = SceneSampler(glyphs.split("train"), seed=0)
history = fit(short, practice, steps=40, tasks=2, lr=2e-3)
masks_of["40 steps"] = answers_of(short)

# %% [markdown]
# ## Evaluate honestly
#
# All rows judge the same 60 tasks, so their differences are paired.


# %%
def per_episode(found: Tensor) -> Tensor:
    pairs = zip(found, test.query_y)
    return torch.stack([package.iou(a, t) for a, t in pairs]).double()


five = SceneSampler(glyphs.split("test"), k_shot=5, n_query=2)
base = per_episode(ink)
masks_of["the net, ink only"] = masks_of["the shipped net"] & ink
print(f"{'':18s}IoU, 95 % interval     minus any ink")
for name, found in masks_of.items():
    value, half = mean_and_ci95(per_episode(found))
    more, width = mean_and_ci95(per_episode(found) - base)
    print(f"{name:18s}{value:.3f} ± {half:.3f}    {more:+.3f} ± {width:.3f}")
print("the shipped net, 5 shots:", evaluate(learner, five, 30, metric="miou"))

# %% [markdown]
# The second answer to the puzzle is no: the rows without training on scenes are far below any ink. We do not know why random blocks score higher than blocks that know letters. Nor do 40 steps suffice to beat **the row that makes the gain vanish**, any ink. The shipped net beats it, and the interval leaves out 0. It may not be claimed that these masks are good: at an IoU of about 0.4, wrong and missed pixels outnumber the right ones. The row *ink only* keeps the ink of the net's answer, and lies higher. Five shots reach 0.45, on other tasks; the intervals overlap.

# %% [markdown]
# ## Look at failures
#
# The next figure shows the two tasks with the highest score of the sixty, and the two with the lowest.

# %%
order = each.argsort(descending=True).tolist()
chosen = [*order[:2], *order[-2:]]
print("IoU of the four tasks:", [round(float(each[i]), 2) for i in chosen])

# %% tags=["draws"]
figure = drawn(
    [(test[i], masks_of["the shipped net"][i]) for i in chosen],
    [f"answer, IoU {each[i]:.2f}" for i in chosen],
)
show(
    figure,
    "Four rows of support, query, truth and answer. In the first two rows the answer "
    "covers the true letter. In the last two it misses most of it.",
)

# %% [markdown]
# Where it fails, it marks strokes of *other* letters, or nothing. It also fills gaps and edges. Each score counts both queries of the task, of which one is drawn.

# %% [markdown]
# ## Does every part help?
#
# A named command trained three versions with three seeds each, for 200 steps of two tasks, and kept the score of every test task. `without background` compares the letter's cosine with a fixed threshold of 1/2 in place of a prototype.

# %%
story = json.loads(asset("scenes_comparison.json").read_text(encoding="utf-8"))
print(story["command"])
print("test tasks after a short training:", story["episodes"])
rows = {(r["label"], r["seed"]): torch.tensor(r["iou"]).double() for r in story["rows"]}
for label in ("PANet", "without alignment", "without background"):
    means = [float(rows[label, seed].mean()) for seed in range(3)]
    print(f"{label:20s}", "  ".join(f"{m:.3f}" for m in means), end="")
    gaps = torch.stack([rows[label, s] - rows["PANet", s] for s in range(3)]).mean(0)
    more, width = mean_and_ci95(gaps)
    print(f"   minus PANet: {more:+.3f} ± {width:.3f}" if label != "PANet" else "")

# %% [markdown]
# The last column pairs the test tasks, averaged over the three seeds. The alignment loss makes no difference that the interval can tell from 0. The fixed threshold is *better* than a background prototype here, by about three hundredths, with every seed. We do not know why; one guess is that a single prototype must stand for paper and for all other letters. After this short training the full method is about where any ink was above. Whether the order changes after long training is *not answered here*.

# %% [markdown]
# ## How long must it train?
#
# The command also trained three recipes for longer, with three seeds each, and counted the seconds of the processor. The second recipe is that of the shipped net. Predict which of them beat any ink.

# %%
by_ink = rows["any ink", 0]
print(f"{len(by_ink)} test tasks, any ink {by_ink.mean():.3f}; by seed, minus any ink:")
for label in dict.fromkeys(r["label"] for r in story["rows"] if "seconds" in r):
    used = [r["seconds"] for r in story["rows"] if r["label"] == label]
    print(f"{label}: {min(used):.0f} to {max(used):.0f} seconds of one core")
    for seed in range(3):
        more, width = mean_and_ci95(rows[label, seed] - by_ink)
        print(f"    seed {seed}: {more:+.3f} ± {width:.3f}")

# %% [markdown]
# All three recipes beat any ink with each of the three seeds, and no interval includes 0. On our machine the second takes about a minute of one core, and the first half of that. The last, without a background prototype, takes less than a third. It also has another rate and fewer tasks, so these rows do not say why it learns faster. You can run it with `python -m fsl_course train --preset glyphs-quick-scenes --out DIR`.

# %% [markdown]
# ## The fold trap
#
# Papers split the classes of a data set into four folds, train on three, test on the fourth, and report the mean of all four. Some tables show only the first fold. Here the net stays the same, and the 13 test scripts make four folds. Predict: how far apart are they?

# %%
letters = glyphs.split("test")
scripts = sorted(set(letters.groups))
folds = []
for fold in range(4):
    own = [i for i, g in enumerate(letters.groups) if scripts.index(g) % 4 == fold]
    result = evaluate(learner, SceneSampler(letters.select(own)), 150, metric="miou")
    folds.append(result.mean)
    print(f"fold {fold}: {len(own):3d} letters  {result.mean:.3f} ± {result.ci95:.3f}")
print(f"mean of four {sum(folds) / 4:.3f}, from {min(folds):.3f} to {max(folds):.3f}")

# %% [markdown]
# The intervals overlap, so on these scripts this net shows no difference between folds. You could not know that without measuring it. On photographs PANet has about 42 per cent on fold 0 and 48.1 in the mean of four. Whoever sets the first number of one method beside the second number of another compares classes, not methods.

# %% [markdown]
# ## From a heat map to boxes
#
# A [bounding box](../lessons/GLOSSARY.md#bounding-box "边界框") is left, top, right, bottom in pixels; right and bottom lie just outside. The probability of "letter" at every pixel is a heat map. To find boxes, slide a window of the support's box over it, take the mean heat inside as the score, and keep the best windows. Neighbouring windows overlap, so all but the best must go: [non-maximum suppression](../lessons/GLOSSARY.md#non-maximum-suppression "非极大值抑制").

# %% [markdown]
# ### Exercise 19.4  Non-maximum suppression  (difficulty 3/5, 10 min)
#
# Return the positions of the boxes that stay, best first. Go through the boxes by falling score. A box stays if its IoU with every box *kept so far* is at most the threshold. A box that is gone removes nobody. Scores are all different and may be negative. There may be no box at all: then return an empty int64 tensor.
#
# The IoU of two boxes is the area of their overlap over the area that they cover together, and 0 for boxes apart; `box_iou` computes it. On paper, the boxes (0, 0, 10, 10) and (0, 0, 10, 8) have IoU 80/100.
#
# | `boxes` | `scores` | `threshold` | returned |
# |---|---|---|---|
# | `[M, 4]`, float | `[M]`, float | float | positions, int64 `[kept]` |


# %%
def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes. [A, 4], [B, 4] -> [A, B]."""
    low = torch.maximum(a[:, None, :2], b[:, :2])
    high = torch.minimum(a[:, None, 2:], b[:, 2:])
    both = (high - low).clamp_min(0).prod(2)
    sizes = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return both / (sizes[0][:, None] + sizes[1] - both)


# EXERCISE 19.4
def keep_best(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Positions of the boxes that stay, best first. [M, 4], [M] -> [kept]."""
    # BEGIN SOLUTION
    overlap, kept = box_iou(boxes, boxes), []
    for i in scores.argsort(descending=True).tolist():
        if bool((overlap[i, kept] <= threshold).all()):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)
    # END SOLUTION


keep_best = check("19.4", keep_best)

# %% [markdown]
# ## How good are the boxes?
#
# Go down the list of all boxes by score. A box is right if its IoU with a true box that is not yet found is at least 0.5. Precision is the share of right ones so far, and recall is the share of the true boxes that have been found. [Average precision](../lessons/GLOSSARY.md#average-precision "平均精度") is the area under precision over recall. By hand: of two boxes, the one with the lower score is right. When it is found, one box of two is right, so precision is 1/2 at full recall.


# %%
def detect(heat: Tensor, box: Tensor, most: int = 200) -> tuple[Tensor, Tensor]:
    """Boxes [kept, 4] and scores from a heat map [H, W], of the size of one box [4]."""
    high, wide = int(box[3] - box[1]), int(box[2] - box[0])
    means = F.avg_pool2d(heat[None, None], (high, wide), 1)[0, 0]
    scores, place = means.flatten().topk(min(most, means.numel()))
    top, left = place // means.shape[1], place % means.shape[1]
    boxes = torch.stack([left, top, left + wide, top + high], 1).float()
    kept = keep_best(boxes, scores, 0.1)
    return boxes[kept], scores[kept]


def average_precision(found: list, truths: list) -> float:
    """Area under precision over recall, all points, IoU at least 0.5."""
    rows, total = [], sum(len(t) for t in truths)
    for (boxes, scores), truth in zip(found, truths):
        free = torch.ones(len(truth), dtype=torch.bool)
        for box, score in zip(boxes, scores):  # best first
            overlap = box_iou(box[None], truth)[0] * free
            hit = float(overlap.max()) >= 0.5
            free[overlap.argmax()] &= not hit  # a true box is found once
            rows.append((float(score), hit))
    hits = torch.tensor([h for _, h in sorted(rows, key=lambda r: -r[0])]).double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    best_from_here = precision.flip(0).cummax(0).values.flip(0)
    return float((best_from_here * hits).sum() / total)


# %% tags=["nbval-check-output"]
one = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
far = torch.tensor([[30.0, 30.0, 40.0, 40.0]])
both = (torch.cat([far, one]), torch.tensor([0.9, 0.8]))
print("the right box second:", average_precision([both], [one]))
print("the right box first: ", average_precision([(one, torch.tensor([0.9]))], [one]))

# %% [markdown]
# The function gives the 1/2 that you found by hand. Now take all test scenes.

# %%
found = {"any ink": [], "the shipped net": []}
truths = []
with torch.no_grad():
    for task in test:
        heat = learner(task).softmax(1)[:, 1]
        window = boxes_of(task.support_y[0])
        for q in range(2):
            truths.append(task.boxes[q][task.boxes[q, :, 0] >= 0].float())
            found["the shipped net"].append(detect(heat[q], window))
            bright = (task.query_x[q, 0] > 0.42).float()
            found["any ink"].append(detect(bright, window))
for name, boxes in found.items():
    precision = average_precision(boxes, truths)
    print(f"{name:18s} average precision at IoU .5: {precision:.3f}")

# %% tags=["draws"]
figure, axes = new(7.2, 2, columns=4)
for axis, q in zip(axes, (0, 1, 6, 7)):
    draw_image(axis, test.query_x.flatten(0, 1)[q])
    truth_boxes = [(b, SLOTS[4], "--") for b in truths[q]]
    boxes, scores = found["the shipped net"][q]
    for box, color, style in truth_boxes + [(b, SLOTS[0], "-") for b in boxes[:2]]:
        x, y, right, bottom = (float(v) - 0.5 for v in box)
        lines = ([x, right, right, x, x], [y, y, bottom, bottom, y])
        axis.plot(*lines, color=color, linestyle=style, linewidth=2)
show(
    figure,
    "Four scenes. Dashed orange boxes lie around the wanted letters, solid blue ones "
    "are the two best windows of the heat map; some agree and some do not.",
)

# %% [markdown]
# The same heat map gives boxes without any further training. The windows have the size of the *support's* box, so it will miss a letter of a very different size. Still, boxes more than double the rival's precision, where masks gained less than a tenth. An interval for average precision needs resampling of whole scenes. We leave it out, so each line is one number on one draw of tasks.

# %% [markdown]
# ## Explore
#
# Predict the answers, then run the next cell. Only the first question uses the net, as it is.
#
# 1. Icons are filled shapes, and the net has seen letters only. Does it still beat any ink?
# 2. Does the threshold for "ink" matter, or did we choose a bad rival?
# 3. What happens to "any ink" with the truth's help: ink inside the true box?
#
# <details><summary>Answers</summary>
#
# 1: That is not shown, because the interval of the difference includes 0. 2: A lower threshold lets paper in and is worse, and the highest one is slightly worse, too. So the rival was not badly chosen. 3: The last line is what you get when somebody tells you the places. It is far above everything else, so what is missing is *which* letter to mark.
#
# </details>

# %%
icons = SceneSampler(fsl_course.load_icons().split("test")).batch(0, 30)
with torch.no_grad():
    net = torch.stack(
        [package.iou(learner(t).argmax(1) == 1, t.query_y) for t in icons]
    )
rule = torch.stack([package.iou(t.query_x[:, 0] > 0.42, t.query_y) for t in icons])
more, width = mean_and_ci95((net - rule).double())
print(
    f"icons: net {net.mean():.3f}, any ink {rule.mean():.3f}, {more:+.3f} ± {width:.3f}"
)
for threshold in (0.3, 0.36, 0.42, 0.48):
    value = per_episode(test.query_x[:, :, 0] > threshold).mean()
    print(f"any ink above {threshold:.2f}: {value:.3f}")
inside = torch.zeros_like(test.query_y)
for t, q, b in (test.boxes[..., 0] >= 0).nonzero().tolist():
    x, y, right, bottom = test.boxes[t, q, b].tolist()
    inside[t, q, y:bottom, x:right] = True
print(f"ink inside the true boxes: {per_episode(ink & inside).mean():.3f}")

# %% [markdown]
# ## Bug hunt
#
# The symptom: with thin letters the prototype is far from the mean under the mask, and sometimes it is exactly zero. Nothing raises an error. Look at the code before you read on.


# %%
def prototype(features: Tensor, masks: Tensor) -> Tensor:
    """Mean feature under the masks, in the fast way: on the small map."""
    size = features.shape[-2:]
    small = F.interpolate(masks[:, None].float(), size, mode="nearest")
    sums = (features * small).sum((2, 3))
    return (sums / (small.sum((2, 3)) + 1e-5)).mean(0)


coarse = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
stroke = torch.zeros(1, 64, 64, dtype=torch.bool)
stroke[0, 10:50, 21:23] = True  # two pixels wide
print("prototype of a thin stroke:", prototype(coarse, stroke).tolist())
with torch.no_grad():
    z, _ = learner.features(episode)
    gap = prototype(z, episode.support_y) - masked_average(z, episode.support_y)
print(f"a letter, largest difference from 19.1: {gap.abs().max():.3f}")

# %% [markdown]
# ### Exercise 19.5  Bug hunt: whose mean is it?  (difficulty 3/5, 8 min)
#
# Write the test that rings. `average(features, masks)` should return the prototype of exercise 19.1. Return `True` when it does not, and `False` when it does, but for rounding. A fault may be small (a thousandth, up or down), and it may touch one shot or one feature only. Inputs are float32 `[K, D, h, w]` and bool `[K, H, W]`, with `H` a multiple of `h`; no shot has an empty mask. You choose what you try, and `masked_average` is at hand.
#
# | `average` | returned |
# |---|---|
# | function of `features` and `masks` | bool |


# %%
def exposes_average(average) -> bool:
    """True when average(features, masks) is not the mean under the full masks."""
    # BEGIN SOLUTION
    for seed in range(6):
        source = torch.Generator().manual_seed(seed)
        features = torch.randn(3, 5, 4, 4, generator=source)
        masks = torch.rand(3, 32, 32, generator=source) < 0.01
        for shot in range(3):
            masks[shot, 3, 1 : 4 + 8 * shot] = True  # thin, of different lengths
        expected = masked_average(features, masks)
        if not torch.allclose(average(features, masks), expected, rtol=1e-4, atol=1e-5):
            return True
    return False
    # END SOLUTION


exposes_average = check("19.5", exposes_average)
print("the code above is broken:", exposes_average(prototype))

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# The mask is shrunk to the map by `mode="nearest"`, which keeps one pixel in sixty-four. A stroke of two pixels falls between the samples. PANet's own code enlarges the *features* to the mask instead; exercise 19.1 does the same.
#
# </details>

# %%
assert exposes_average(prototype)
assert not exposes_average(masked_average)
print("cured:", [round(v, 2) for v in masked_average(coarse, stroke).tolist()])

# %% [markdown]
# ## Quiz
#
# **1. Why are the features enlarged to the mask, and not the mask shrunk?**
# (a) it is faster, (b) thin masks vanish on a coarse map, (c) cosines need it
#
# <details><summary>Answer</summary>
#
# (b), as the bug hunt shows. Against (a): it is slower. Against (c): a cosine compares two rows of features of any map.
#
# </details>
#
# **2. A background prototype needs no extra labels. What is it?**
# (a) the mean of the features outside the mask, (b) a vector of zeros, (c) the mean of all other classes' prototypes
#
# <details><summary>Answer</summary>
#
# (a). Paper and other letters share it. Against (b): a zero vector has no direction. Against (c): other classes are not marked.
#
# </details>
#
# **3. Which number lets large objects decide?**
# (a) pooled, (b) per class, (c) per episode
#
# <details><summary>Answer</summary>
#
# (a) divides once, after all pixels are summed. (b) and (c) divide first, so that every class or task counts alike.
#
# </details>

# %% [markdown]
# **4. A method has 0.41 on fold 0, another 0.40 on the mean of four folds. Which is better?**
# (a) the first, (b) the second, (c) nobody knows
#
# <details><summary>Answer</summary>
#
# (c). Folds hold different classes, so the two numbers are of different tasks, against (a) and (b).
#
# </details>
#
# **5. Non-maximum suppression at threshold 0.1 leaves which pairs of boxes?**
# (a) those with IoU above 0.1, (b) those with IoU of at most 0.1, (c) one box a scene
#
# <details><summary>Answer</summary>
#
# (b): no two kept boxes overlap more. (a) is what it removes. Against (c): a scene may hold two letters apart from each other.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | method | mean features inside and outside the mask; each place goes to the more similar one |
# | rival | any ink is the object |
# | measure | say whether IoU is pooled, per class or per episode |
# | trap | fold 0 is not the mean of four |
# | boxes | window of the heat map, then non-maximum suppression |
# | looks back | [05](../notebooks/05_prototypical.ipynb) at every pixel; the scale of a cosine from [04](../notebooks/04_matching.ipynb) |
#
# Pitfalls: a mask shrunk by nearest; one fold for all; one draw of tasks. Pictures of your own, with masks, are read by `fsl_course.data.scenes.load_masks`. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Wang et al. (2019), *PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment* | equations 1 to 3: prototypes and cosines; 6: alignment |
# | Snell, Swersky and Zemel (2017), *Prototypical Networks for Few-shot Learning* | prototypes |

# %% [markdown]
# ## The way back ★
#
# A query with several wanted letters has a *way* for each: one marked support for every letter, one channel of logits for every letter, and channel 0 for the background.

# %% [markdown]
# ### Exercise 19.6 ★  The way back  (difficulty 3/5, 10 min)
#
# Return PANet's alignment loss for `W` ways. The predicted mask of a channel holds the places where this channel has the largest logit. For every way, make two prototypes from the *queries* with `masked_average`: of the predicted background (channel 0 alone), and of the way's predicted mask. Compare the way's own support with them at `scale`, enlarge the logits to its masks (bilinear, `align_corners=False`), and take the plain cross-entropy. A way that is predicted nowhere adds 0. Divide the sum by `W`.
#
# | `support`, `masks` | `query` | `logits` | returned |
# |---|---|---|---|
# | `[W, K, D, h, w]`, bool `[W, K, S, S]` | `[Q, D, h, w]` | `[Q, 1 + W, S, S]` | scalar tensor |


# %%
def alignment_loss(
    support: Tensor, masks: Tensor, query: Tensor, logits: Tensor, scale: float
) -> Tensor:
    """The loss of the way back, a scalar; way w has channel w + 1 of the logits."""
    # BEGIN SOLUTION
    found, loss = logits.argmax(1), logits.new_zeros(())
    for way, (maps, truth) in enumerate(zip(support, masks), 1):
        if (found == way).any():
            pair = [masked_average(query, found == channel) for channel in (0, way)]
            back = compare_places(maps, torch.stack(pair), scale)
            size = truth.shape[-2:]
            back = F.interpolate(back, size, mode="bilinear", align_corners=False)
            loss = loss + F.cross_entropy(back, truth.long())
    return loss / len(support)
    # END SOLUTION


alignment_loss = check("19.6", alignment_loss)
plain = package.DensePrototypes(learner.encoder, weight=1.0).eval()
with torch.no_grad():
    z, q = plain.features(episode)
    theirs = plain.alignment(z, episode.support_y, q, plain(episode))
    yours = alignment_loss(z[None], episode.support_y[None], q, plain(episode), 20.0)
print(f"one way, your loss {yours:.3f} and the package's {theirs:.3f}")

# %%
progress("19")
