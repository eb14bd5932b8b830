# %% [markdown]
# # 26 Your own problem, honestly
#
# A template: it runs on a small example, and on your own pictures or sentences when you change `DATA` and rewrite `PROBLEM`. It chooses, tests once, and writes a report that you can defend. A paragraph marked *Example* speaks of the example only.
#
# Prerequisites: lessons 01, 02, 05 and 23. Planned time: 60 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** In few-shot learning, what do training and test not share?
#
# <details><summary>Answer</summary>
#
# Classes. A [split](../lessons/GLOSSARY.md#split "数据划分") divides the classes, not the pictures (lesson 01).
#
# </details>
#
# **2.** In lesson 23, which row made most of the gain of adapters vanish on icons?
#
# <details><summary>Answer</summary>
#
# A ridge head on the same frozen encoder.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **split** your own classes and set aside those that are too small (exercise 26.1),
# 2. **choose** a setting without touching the test, and the simplest one that will do (exercise 26.2),
# 3. **plan** how many episodes a comparison needs (exercise 26.3),
# 4. **report** one test with every row beside it (exercise 26.4),
# 5. **expose** leaks in anybody's report (exercise 26.5).

# %% [markdown]
# ## A puzzle: what is a trained net worth on your problem?
#
# New icons, five classes, five drawings of each. Write down an order, from best to worst:
#
# - **A**: the nearest class mean on a net trained on letters,
# - **B**: a ridge head on the same net,
# - **C**: a ridge head on raw pixels, no net at all,
# - **D**: a net trained from nothing on 23 icon classes,
# - **E**: the net of letters, trained further on these 23 classes.
#
# And a number: of many settings you keep the one that is best on the *test* classes. How many points too high is that?

# %%
import json
import math
import random
import tempfile
from collections import Counter
from copy import deepcopy
from pathlib import Path

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn

import fsl_course
from fsl_classroom import audit, check, progress
from fsl_course import (
    EpisodeSampler,
    FewShotClassifier,
    compare,
    evaluate,
    fit,
    load_folder,
    load_icons,
    load_texts,
)
from fsl_course.data import ImageSet, TextSet
from fsl_course.data.assets import asset
from fsl_course.data.imageset import as_input
from fsl_course.data.texts import decode
from fsl_course.evaluation import Result, mean_and_ci95
from fsl_course.figures import CHANCE, SLOTS, image_rows, new, show
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.baselines import Chance, random_conv4
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.ridge import RidgeRegression
from fsl_course.methods.simple_shot import SimpleShot
from fsl_course.nets import conv4, ngram_encoder

torch.manual_seed(0)
LEAST = 100  # episodes of every look

# %% [markdown]
# ## The way in one picture
#
# On the **training** classes weights are fitted. On the [validation classes](../lessons/GLOSSARY.md#validation-classes "验证类") settings are compared, as often as you like. The **test** classes are opened once, when everything is chosen. Every look at them is written into a [ledger](../lessons/GLOSSARY.md#ledger "评估台账"), a list that nobody edits.

# %% tags=["draws"]
figure, axes = new(8, 2.8)
axes.axis("off")
axes.set(xlim=(0, 1), ylim=(0, 1))
boxes = (
    (0.08, 0.5, CHANCE, "YOUR DATA\ntoo small classes\nare set aside"),
    (0.35, 0.85, SLOTS[0], "TRAINING CLASSES\nfit weights"),
    (0.35, 0.5, SLOTS[1], "VALIDATION CLASSES\ncompare settings, many looks"),
    (0.35, 0.15, SLOTS[2], "TEST CLASSES\none look"),
    (0.66, 0.67, SLOTS[1], "CHOICE\nsimplest within\nthe interval"),
    (0.91, 0.35, "black", "REPORT\nledger, intervals,\nfailures, limits"),
)
for x, y, colour, words in boxes:
    box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": colour}
    axes.text(x, y, words, bbox=box, ha="center", va="center", fontsize=8)
arrow = {"arrowstyle": "->", "color": "black"}
for start, end in (
    ((0.17, 0.56), (0.25, 0.82)),
    ((0.17, 0.5), (0.22, 0.5)),
    ((0.17, 0.44), (0.27, 0.18)),
    ((0.45, 0.82), (0.575, 0.72)),
    ((0.48, 0.54), (0.575, 0.62)),
    ((0.73, 0.58), (0.82, 0.45)),
    ((0.43, 0.15), (0.82, 0.28)),
):
    axes.annotate("", end, start, arrowprops=arrow)
show(
    figure,
    "A diagram of the workflow. Your data goes into three boxes: training classes, on "
    "which weights are fitted, validation classes, on which settings are compared in "
    "many looks, and test classes, for one look. Training and validation lead to the "
    "choice, the simplest setting within the interval. Choice and test lead to the "
    "report with ledger, intervals, failures and limits.",
)

# %% [markdown]
# ## 1 The problem, and the data
#
# Say in `PROBLEM` who asks and what an error costs; name your data in `DATA`:
#
# | `DATA` | what is read |
# |---|---|
# | `"example"` | 60 icons that ship with the course |
# | a folder | one folder of pictures for each class |
# | a `.csv` or `.jsonl` file | sentences, in columns `text` and `label` |
# | `"draw"` | what you draw and save on the pad below, at least six characters with three drawings or more |
#
# [Your own pictures](../docs/own-pictures.md) says more, also about photographs, which need another net. Pictures are read as **grey**, as the shipped nets need them: where colour tells classes apart, a row of coloured pixels is missing (`load_folder(path, channels=3)`). Take six classes at least, better fifteen, with three examples or more. Folders `train`, `val` and `test`, or a column `split`, stay as you made them.

# %%
DATA = "example"
PROBLEM = {
    "question": "Which of five new signs is this, after five drawings of each?",
    "data": "icons of the course, 28 x 28 grey pixels, unseen by any shipped net",
    "asked by": "whoever invents signs and will not train a net for each",
    "an error costs": "a second look",
}

# %%
if DATA == "draw":  # draw, press Save, and run on from here
    from IPython.display import display

    from fsl_classroom.widgets.teach_alphabet import TeachAlphabet

    display(TeachAlphabet())


def example() -> ImageSet:
    """60 icons. As in life not all is even: three classes have only 4 drawings."""
    icons = load_icons().split("test")
    counts = icons.counts.clone()
    counts[[5, 25, 45]] = 4
    names, groups = icons.class_names, icons.groups
    return ImageSet(icons.images, counts, names, groups, name="signs")


def load_own(data: str) -> ImageSet:
    """What DATA names: pictures as an ImageSet, sentences as a TextSet."""
    if data == "example":
        return example()
    path = Path("my_alphabet" if data == "draw" else data).expanduser()
    if data == "draw" and not path.is_dir():
        raise ValueError("draw on the pad and press Save, then run this cell again.")
    if path.is_file() or path.suffix in (".csv", ".jsonl"):
        return load_texts(path)
    seen = load_folder(path, channels=3).images
    if (seen.amax(2) - seen.amin(2)).float().mean() > 5:
        print("Your pictures are coloured. They are read as grey: no row sees colour.")
    return load_folder(path)


own = load_own(DATA)
TEXTS = isinstance(own, TextSet)
counts = dict(zip(own.class_names, own.counts.tolist(), strict=True))
print(own)
for name, count in list(counts.items())[:6]:
    print(f"{count:4d}  {name}")
print("smallest class:", min(counts.values()), " largest:", max(counts.values()))

# %% tags=["draws"]
some = own.select(range(min(len(own), 6)))
if TEXTS:
    figure, axes = new(7, 0.3 * len(some) + 0.4)
    axes.axis("off")
    for k, name in enumerate(some.class_names):
        axes.text(0, -k, f"{name}: {some.sentences[k][0]}", fontsize=9)
    axes.set(xlim=(0, 1), ylim=(-len(some), 1))
else:
    rows = [
        (n, p[:4] / 255) for n, p in zip(some.class_names, some.images, strict=True)
    ]
    figure = image_rows(rows)
show(
    figure,
    "The first examples of up to six classes of your data, a class in each row. In the "
    "example of the course they are icons, black on white.",
)

# %% [markdown]
# Look at your data first. A picture that lies in two folders, or twice in one, is a leak that no split will find for you.
#
# ## 2 Split by class
#
# An episode needs `shots + queries` examples of each class. The next cell takes five shots and up to ten queries, or fewer if fewer than nine classes have enough. A class with less is set aside; at the end it plays the newcomer. Of nine classes or fewer none is set aside.


# %%
def shape_of(sizes: list[int]) -> tuple[int, int]:
    """Shots and queries for which at least nine classes (or all) have enough."""
    ninth = sorted(sizes, reverse=True)[min(len(sizes), 9) - 1]
    shots = max(1, min(5, ninth // 2))
    return shots, max(1, min(10, ninth - shots))


shots, queries = shape_of(list(counts.values()))
if shots + queries < 3:
    raise ValueError("two examples of a class are too few: give every class three.")
print(f"{shots} shots and {queries} queries: {shots + queries} examples of every class")

# %% [markdown]
# ### Exercise 26.1  Split by class  (difficulty 1/5, 6 min)
#
# `counts` says how many examples each class has. Set aside every class with fewer than `least`. Sort the names of the other M, then shuffle them with the method `shuffle` of `random.Random(seed)`. The first `round(fractions[0] * M)` names are for training, the next `round(fractions[1] * M)` for validation, and *all others* for the test. Return four sorted lists.
#
# | `counts` | `least`, `seed` | `fractions` | returned |
# |---|---|---|---|
# | dict name -> int | ints | 3 floats with sum 1 | dict of the lists `"train"`, `"val"`, `"test"`, `"aside"` |
#
# On paper: eight classes, of which one is too small, and fractions 0.4, 0.3, 0.3. Then M is 7, and 3, 2 and 2 classes come out.


# %%
def split_by_class(
    counts: dict[str, int], least: int, fractions: tuple[float, float, float], seed: int
) -> dict[str, list[str]]:
    """Classes for training, validation and test, and those set aside, sorted."""
    # BEGIN SOLUTION
    names = sorted(name for name, count in counts.items() if count >= least)
    random.Random(seed).shuffle(names)
    a, more = (round(share * len(names)) for share in fractions[:2])
    parts = {"train": names[:a], "val": names[a : a + more], "test": names[a + more :]}
    parts["aside"] = [name for name in counts if counts[name] < least]
    return {part: sorted(found) for part, found in parts.items()}
    # END SOLUTION


split_by_class = check("26.1", split_by_class)

# %%
split = split_by_class(counts, shots + queries, (0.4, 0.3, 0.3), seed=0)
if own.splits:  # folders train, val and test, or a column split
    by_name = dict(zip(own.class_names, own.splits, strict=True))
    usable = [name for name in own.class_names if name not in split["aside"]]
    split |= {
        p: [n for n in usable if by_name[n] == p] for p in ("train", "val", "test")
    }
place = {name: i for i, name in enumerate(own.class_names)}
if min(len(split[part]) for part in ("train", "val", "test")) < 2:
    raise ValueError("each part needs two classes: take six classes or more.")
train, val, test = (
    own.select([place[name] for name in split[part]])
    for part in ("train", "val", "test")
)
ways = min(5, len(val), len(test))
for part, names in split.items():
    told = ", ".join(names[:4]) + ", ..." * (len(names) > 4)
    print(f"{part:6s}{len(names):3d}  {told}")
print(f"episodes: {ways} ways, {shots} shots, {queries} queries")
least = min(counts[name] for name in split["test"])
each = math.comb(least, shots) * math.comb(least - shots, queries)
if (different := math.comb(len(test), ways) * each**ways) < LEAST:
    print(f"only {different} different test episodes: intervals will be too narrow")
ours = set(split["train"]), set(split["val"]), set(split["test"])
assert not ours[0] & (ours[1] | ours[2])
assert not ours[1] & ours[2]
assert sum(map(len, ours)) + len(split["aside"]) == len(own)

# %% [markdown]
# ## 3 Baselines first
#
# A setting is a **reader**, which turns an example into a vector, and a **head**, which answers from the support. Two readers are trained on nothing: pixels (for sentences the TF-IDF of lesson 20) and a random net. Five heads:
#
# | head | lesson |
# |---|---|
# | nearest class mean | 05 |
# | centred by the mean of the training classes, unit length (SimpleShot) | 02 |
# | ridge with penalty 1, 10 or 100 | 12 |


# %%
class Words(nn.Module):
    """TF-IDF of runs of 2 to 4 letters; its weights count training sentences."""

    def __init__(self, source: TextSet) -> None:
        super().__init__()
        self.rare = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True
        )
        self.rare.fit([sentence for row in source.sentences for sentence in row])

    def forward(self, codes: Tensor) -> Tensor:
        found = self.rare.transform([decode(row) for row in codes])
        return torch.from_numpy(found.toarray()).float()


def heads(name: str, reader: nn.Module) -> dict[str, FewShotLearner]:
    """The five settings of a reader by name, simplest first."""
    two = as_input(train.images[0, :2], torch.float32)
    with torch.no_grad():
        centred = SimpleShot(reader, 0, features=reader(two).shape[1])
        centred.after_training(EpisodeSampler(train, 2, 1, 1))
    found: dict[str, FewShotLearner] = {"mean": PrototypicalNetwork(reader)}
    found["centred"] = centred
    found |= {f"ridge {l2:g}": RidgeRegression(reader, l2) for l2 in (1.0, 10.0, 100.0)}
    return {f"{name}, {head}": learner.eval() for head, learner in found.items()}


# %% [markdown]
# Every evaluation goes through one function, which writes into the ledger *before* anybody sees the number.

# %%
ledger: list[dict] = []
SOURCES = {"choose": val, "test": test}


def look(setting: str, purpose: str, episodes: int) -> Result:
    """Evaluates a setting for a purpose, "choose" or "test", and records it."""
    source = SOURCES[purpose]
    sampler = EpisodeSampler(source, ways, shots, queries, seed=1)
    found = evaluate(settings[setting], sampler, episodes)
    entry = {"setting": setting, "purpose": purpose, "classes": source.class_names}
    entry |= {"episodes": episodes, "mean": found.mean, "half": found.ci95}
    ledger.append(entry)
    return found


# %%
untrained = ngram_encoder() if TEXTS else random_conv4(0).encoder
simple = Words(train) if TEXTS else nn.Flatten()
settings: dict[str, FewShotLearner] = {"chance": Chance()}
settings |= heads("words" if TEXTS else "pixels", simple)
settings |= heads("random net", untrained.eval())
tried = {name: look(name, "choose", 200) for name in settings}
for name, found in tried.items():
    print(f"{name:20s}{found.mean:7.1%} ± {found.ci95:.1%}")

# %% [markdown]
# *Example.* Pixels with a ridge head are right in 85 %, without any training: that is the row to beat. A loop over episodes must agree with `evaluate`, and the order of the support must not matter.

# %%
sampler = EpisodeSampler(val, ways, shots, queries, seed=1)
first = next(name for name in settings if name.endswith("ridge 10"))
learner = settings[first]
for index in range(3):
    task = sampler[index]
    with torch.no_grad():
        logits = learner(task)
    right = (logits.argmax(1) == task.query_y).double().mean()
    assert abs(right - tried[first].per_episode[index]) < 1e-9
    order = torch.randperm(len(task.support_y))
    z, q = learner.embed(task.support_x[order]), learner.embed(task.query_x)
    turned = learner.score(z, task.support_y[order], q, ways)
    assert torch.allclose(turned, logits, atol=1e-3)
print("a loop agrees with evaluate, and the order of the support does not matter")

# %% [markdown]
# ## 4 Nets: ready-made, your own, and both
#
# Three more readers. **ready-made** is the shipped ProtoNet of letters (for sentences: of intents). **own** is a small net trained from nothing on your training classes. **further** starts from the ready-made one and goes on with them. Fine-tuning for every single task is left out because it takes long; on icons it led ridge heads by two to five points (lesson 23).

# %%
shipped = fsl_course.pretrained("prototypical", "intents" if TEXTS else "glyphs")


def trained(learner: FewShotLearner, seed: int, lr: float) -> FewShotLearner:
    """The learner after 50 steps on tasks of the training classes."""
    torch.manual_seed(seed)
    deal = EpisodeSampler(train, min(10, len(train)), shots, min(queries, 5), seed=seed)
    fit(learner, deal, steps=50, lr=lr)
    return learner.eval()


fresh = ngram_encoder() if TEXTS else conv4(32, in_channels=train.images.shape[2])
small = PrototypicalNetwork(fresh, *(("cosine", 10.0) if TEXTS else ()))
scratch = trained(small, 0, 1e-3)
further = trained(deepcopy(shipped), 0, 3e-4)
for name, net in (("ready-made", shipped), ("own", scratch), ("further", further)):
    more = heads(name, net.encoder.eval())
    settings |= more
    tried |= {setting: look(setting, "choose", 200) for setting in more}
names = [name for name in settings if name != "chance"]  # simplest first
print("validation classes       mean  centred  ridge 1       10      100")
for k in range(0, len(names), 5):
    row = [tried[name].mean for name in names[k : k + 5]]
    print(f"{names[k].split(',')[0]:20s}" + "".join(f"{share:9.1%}" for share in row))

# %% [markdown]
# *Example.* The ready-made net with its usual head, the nearest mean, is about twelve points *behind* the best pixels; with a ridge head it is level with them. The net from nothing stays below both. Only further training is ahead. Twenty-five settings, and nobody has looked at the test.
#
# ## 5 Why the best of many is too good
#
# Let M settings be *equally* good, with true accuracy $\mu$. Each measured mean is off by its own noise, with standard error $\sigma/\sqrt{E}$ over E episodes. The largest of M such numbers is, on average, too high by an [optimism](../lessons/GLOSSARY.md#optimism "乐观偏差"):
#
# $$\mathbb E \max_m \bar a_m \approx \mu + e(M)\,\frac{\sigma}{\sqrt E} \tag{1}$$
#
# where $e(M)$ is the mean of the largest of M standard normal numbers.

# %% [markdown]
# | symbol | variable | shape |
# |---|---|---|
# | $M$, $E$ | number of settings, of episodes | whole numbers |
# | $\bar a_m$ | `accuracies.mean(1)` | `[M]` |
# | $\sigma$ | standard deviation over episodes | number |
# | $e(M)$ | `largest` | number |
# | $h$ | `half`, a half width | number |
#
# ## By hand
#
# With $\sigma = 0.1$ and 100 episodes the standard error is one point. For M = 25, $e(M)$ is about 2: the best of 25 equal settings shows *two points* that do not exist.

# %%
draws = torch.randn(20000, 45, generator=torch.Generator().manual_seed(0))
print("settings  e(M)   points too high: 20 episodes   200 episodes")
for m in (1, 4, 16, 25, 45):
    largest = draws[:, :m].amax(1).mean()
    high = [100 * largest * 0.1 / e**0.5 for e in (20, 200)]
    print(f"{m:8d}{largest:6.2f}{high[0]:22.1f}{high[1]:15.1f}")

# %% [markdown]
# Ten times the episodes divide the excess by about three. Is it enough to evaluate for long? The command below drew three disjoint sets of icon classes, again and again: V to choose on, A to test on, B for a user's new classes. "seeds" are random nets that differ only in their seed, "grid" 45 real settings: nine readers, five heads.

# %%
story = json.loads(asset("selection_comparison.json").read_text(encoding="utf-8"))
print(story["command"])
print("\npoints too high, the best of 45       picked on A        picked on V")


def points(family: str, classes: int, episodes: int, settings: int, who: str) -> Tensor:
    """Optimism of every draw, all three seeds together."""
    asked = (family, classes, episodes)
    rows = [
        row["points"][str(settings)][who]
        for row in story["rows"]
        if (row["family"], row["classes"], row["episodes"]) == asked
    ]
    return torch.tensor(rows).flatten()


for family in ("seeds", "grid"):
    for classes in (10, 40):
        for episodes in (20, 200):
            told = f"{family:6s}{classes:3d} classes, {episodes:3d} episodes"
            for who in ("test", "validation"):
                gap, half = mean_and_ci95(points(family, classes, episodes, 45, who))
                told += f"{f'{gap:+.1f} ± {half:.1f}':>19s}"
            print(told)

# %% [markdown]
# **Picked on V**, the number is right on average: every interval holds 0. **Picked on A**, it is too high in every row, for the real settings by 0.7 to 2.6 points: the puzzle's second answer.
#
# **Ten times the episodes** hardly help the seeds on 10 classes: 3.8 points are left of 4.4, where (1) promises a fall by two thirds. With 40 classes 1.4 are left. So much of the luck sits in the *classes* and their few drawings, and (1) knows only episodes.

# %% [markdown]
# ### Exercise 26.2  Choose  (difficulty 3/5, 8 min)
#
# On validation classes, too, the best of many is lucky. A sober rule: take the *simplest* setting that cannot be told from the best one.
#
# `accuracies` [M, E] holds M settings on the same E episodes, simplest first. The best row is the one with the largest mean; of equal ones, the first. Return the index of the first row for which the 95 % interval of "best minus this row", paired by episode, holds 0: `mean_and_ci95(difference)` gives its mean and half width, and the edge of the interval belongs to it.
#
# | `accuracies` | returned |
# |---|---|
# | float64 `[M, E]`, E ≥ 2 | int |


# %%
def choose(accuracies: Tensor) -> int:
    """Index of the simplest setting within the paired interval of the best."""
    # BEGIN SOLUTION
    best = accuracies[accuracies.mean(1).argmax()]
    for index, row in enumerate(accuracies):
        gap, half = mean_and_ci95(best - row)
        if gap <= half:
            return index
    raise AssertionError("the best row itself is always good enough")
    # END SOLUTION


choose = check("26.2", choose)
table = torch.stack([tried[name].per_episode for name in names])
best = names[int(table.mean(1).argmax())]
chosen = names[choose(table)]
print(f"best:   {best}, {tried[best].mean:.1%}")
print(f"chosen: {chosen}, {tried[chosen].mean:.1%}")
print("best minus chosen:", compare(tried[best], tried[chosen]))
for count in (10, 30, 100):  # what fewer episodes would have chosen
    print(f"with {count:3d} episodes: {names[choose(table[:, :count])]}")

# %% [markdown]
# *Example.* Best and chosen agree. With fewer episodes the interval is wider, and the rule falls back: with 10 on pixels and the nearest mean, with 30 on the lighter head. A small E favours simple settings: fix it *before* you look.
#
# ## 6 How many episodes?
#
# A 95 % interval has the half width $h = 1.96\,\sigma/\sqrt{E}$ when there are many episodes. Solve for E:
#
# $$E = \left(\frac{1.96\,\sigma}{h}\right)^2 \tag{2}$$
#
# ### Exercise 26.3  How many episodes?  (difficulty 2/5, 4 min)
#
# `pilot` [P] holds accuracies of a few episodes. Return the smallest whole number E with which the half width is at most `half`, by (2). Take the standard deviation with P − 1. The answer is never below 2.
#
# | `pilot` | `half` | returned |
# |---|---|---|
# | float64 `[P]` | float | int |
#
# On paper: a deviation of 0.1 and $h = 0.01$ give 384.16, so 385 episodes.


# %%
def episodes_needed(pilot: Tensor, half: float) -> int:
    """The smallest number of episodes for a half width of at most `half`."""
    # BEGIN SOLUTION
    sigma = float(pilot.std(correction=1))
    return max(2, math.ceil((1.96 * sigma / half) ** 2))
    # END SOLUTION


episodes_needed = check("26.3", episodes_needed)
need = episodes_needed(tried[chosen].per_episode, 0.01)
episodes = max(LEAST, min(need, 1000))
print(f"for ± 1 point: {need} episodes")

# %% [markdown]
# More episodes never replace more classes: the interval covers the choice of episodes from *these* classes, nothing else.
#
# ## 7 Test once
#
# Before you look, declare what will be tested: the chosen setting, and the rows that could make its gain vanish. Among them must be the best one that needs **no training**, be it pixels, words or a random net. All are picked on validation classes.

# %%
random_net = [name for name in names if name.startswith("random net")]
plain = [n for n in names if n.startswith(("words", "pixels"))] + random_net
ready = [name for name in names if name.startswith("ready-made")]
grown = [name for name in names if name.startswith("own")]


def best_of(group: list[str]) -> str:
    """The setting of a group with the highest mean on validation classes."""
    return max(group, key=lambda name: tried[name].mean)


rows = [chosen, "chance", plain[0], best_of(plain), best_of(random_net)]
declared = list(dict.fromkeys([*rows, ready[0], best_of(ready), best_of(grown)]))
tested = {name: look(name, "test", episodes) for name in declared}
print(f"{'test classes, once':24s}{'accuracy':>16s}{'chosen minus it':>18s}")
for name, found in tested.items():
    gap = compare(tested[chosen], found)
    told = (
        f"{100 * gap.mean:+.1f} ± {100 * gap.ci95:.1f}"
        if found is not tested[chosen]
        else ""
    )
    print(f"{name:24s}{f'{found.mean:.1%} ± {found.ci95:.1%}':>16s}{told:>18s}")

# %% [markdown]
# *Example.* The chosen setting is right in about 89 %, and ahead of every declared row, with intervals far above 0. Against pixels with the *nearest mean* the gain is eight points, with a ridge head six. A weak baseline flatters.
#
# ## The row that makes the gain vanish
#
# And the ready-made net? With the ridge head it gains fourteen points over its usual head. Who would not report that?

# %%
ridge, usual, pixels, new_net = best_of(ready), ready[0], best_of(plain), best_of(grown)
for one, other in ((ridge, usual), (ridge, pixels), (pixels, new_net)):
    if one == other:
        continue  # the usual head is the best one
    gap = compare(tested[one], tested[other])
    print(f"{one} minus {other}: {100 * gap.mean:+.1f} ± {100 * gap.ci95:.1f} points")

# %% [markdown]
# *Example.* **Against pixels with the same head the gain has vanished**: the interval holds 0. By itself the net of letters adds nothing here; trained further, it leads.
#
# The puzzle: E first, A far behind, and B, C and D within two points of each other.

# %% [markdown]
# One seed of training is one throw. Two more are compared on *validation* classes, so that the test stays closed.

# %%
head = chosen.split(", ")[1]
rival = tried[best_of(plain)]
print(f"further, {head}, minus {best_of(plain)}: points, paired, validation classes")
for seed in range(3):
    name = f"further, {head}"
    if seed:
        net = trained(deepcopy(shipped), seed, 3e-4)
        name = f"further (seed {seed}), {head}"
        settings[name] = heads(f"further (seed {seed})", net.encoder)[name]
        tried[name] = look(name, "choose", 200)
    gap = compare(tried[name], rival)
    print(f"seed {seed}: {100 * gap.mean:+.1f} ± {100 * gap.ci95:.1f}")

# %% [markdown]
# *Example.* Three gains of about four points, each with its interval above 0: not the luck of one seed.
#
# ## 8 Show the failures
#
# A mean hides *which* answers are wrong. Count for every pair of test classes how often one was taken for the other. These are episodes of the one test; nothing is chosen after it.


# %%
def named(learner: FewShotLearner, support: Tensor, labels: Tensor, query: Tensor):
    """Slots [M] of the queries, given support rows with labels; rows are uint8."""
    with torch.no_grad():
        z, q = (learner.embed(as_input(x, torch.float32)) for x in (support, query))
        return learner.score(z, labels, q, int(labels.max()) + 1).argmax(1)


drawn = EpisodeSampler(test, ways, shots, queries, seed=1).layout(0, LEAST)
flat = test.images.flatten(0, 1)
wrong: Counter = Counter()
shown: dict[tuple[str, str], int] = {}
for s, y, q, truth, classes in zip(
    drawn.support, drawn.support_y, drawn.query, drawn.query_y, drawn.classes
):
    answer = named(settings[chosen], flat[s], y, flat[q])
    for i in (answer != truth).nonzero().flatten().tolist():
        pair = tuple(test.class_names[classes[k]] for k in (truth[i], answer[i]))
        wrong[pair] += 1
        shown.setdefault(pair, int(q[i]))
failures = [(*pair, count) for pair, count in wrong.most_common(5)]
print(f"{wrong.total()} wrong answers in {drawn.query_y.numel()}")
for true, got, count in failures:
    print(f"{count:4d}  {true} -> {got}")

# %% tags=["draws"]
if TEXTS:
    figure, axes = new(7, 2)
    axes.axis("off")
    for k, (true, got, _) in enumerate(failures):
        axes.text(0, -k, f"{decode(flat[shown[true, got]])}  -> {got}", fontsize=9)
    axes.set(xlim=(0, 1), ylim=(-5, 1))
else:
    rows = []
    for true, got, _ in failures:
        one, other = (test.images[test.class_names.index(n), :5] for n in (true, got))
        same = (one == flat[shown[true, got]]).flatten(1).all(1)
        one, other = one[~same][:4], other[:4]
        rows.append(
            (
                f"{true}\n-> {got}",
                torch.cat([flat[shown[true, got]][None], one, other]) / 255,
            )
        )
    figure = image_rows(rows, size=0.65)
show(
    figure,
    "The five pairs that are confused most often. Each row has a misnamed example, "
    "up to four others of its true class, then four of the class that it was taken "
    "for. In the example of the course a hospital is taken for an image, a medal for a "
    "map pin.",
)

# %% [markdown]
# *Example.* The misnamed medal and the map pins share a round head; the misnamed hospital has no frame as the images have. Why they are confused was not tested.
#
# ## 9 The report card
#
# What stays is a [report card](../lessons/GLOSSARY.md#report-card "报告卡") that nobody has to believe: it holds the ledger, the accuracy, and the difference to *every* row that was tested. A gain that survives only against weak rows must show it.

# %% [markdown]
# ### Exercise 26.4  The report card  (difficulty 2/5, 6 min)
#
# `tested` maps the name of each tested setting to its accuracies on the same E test episodes; `chosen` is one of the names. `mean_and_ci95` gives means and half widths. Return a dict:
#
# | key | value |
# |---|---|
# | `"accuracy"`, `"half"` | mean of the chosen setting and its half width |
# | `"gains"` | for every *other* name: (mean, half width) of "chosen minus it", paired |
# | `"vanishes"` | the names, in the order of `tested`, against which there is no gain: the interval holds 0, or all of it lies below |
#
# | `tested` | `chosen` | returned |
# |---|---|---|
# | dict name -> float64 `[E]` | str | dict |


# %%
def report_card(tested: dict[str, Tensor], chosen: str) -> dict:
    """Accuracy of the chosen setting, its gains, and where the gain vanishes."""
    # BEGIN SOLUTION
    accuracy, half = mean_and_ci95(tested[chosen])
    gains = {
        name: mean_and_ci95(tested[chosen] - shares)
        for name, shares in tested.items()
        if name != chosen
    }
    vanishes = [name for name, (gain, width) in gains.items() if gain <= width]
    return {"accuracy": accuracy, "half": half, "gains": gains, "vanishes": vanishes}
    # END SOLUTION


report_card = check("26.4", report_card)

# %%
card = report_card({n: found.per_episode for n, found in tested.items()}, chosen)
report = {"problem": PROBLEM, "ways": ways, "shots": shots, "queries": queries}
report |= split | {"ledger": ledger, "least": LEAST, "declared": declared}
report |= {"chosen": chosen} | card | {"failures": failures}
report["not claimed"] = [
    "that these numbers hold for other classes than those of this kind",
    "that a larger net, other shots or other pictures would keep the order",
    "that the interval covers the choice of classes, drawings or training seed",
]
choices = [entry for entry in ledger if entry["purpose"] == "choose"]
print(f"{PROBLEM['question']}\n{ways} ways, {shots} shots")
print(f"{len(choices)} looks at {len(val)} validation classes")
print(f"{len(ledger) - len(choices)} rows on {len(test)} test classes, declared before")
print(f"chosen: {chosen}, {card['accuracy']:.1%} ± {card['half']:.1%}")
for name, (gain, half) in card["gains"].items():
    print(f"  {100 * gain:+6.1f} ± {100 * half:.1f} points against {name}")
print("no gain against:", ", ".join(card["vanishes"]) or "none of these rows")
for sentence in report["not claimed"]:
    print("not claimed:", sentence)

# %% [markdown]
# *Example.* The list of rows without a gain is empty, and not because the rows are weak. The ± speaks of episodes only: under Explore an untrained row moves by four points when other classes are drawn. Write this spread on your card, too.
#
# Does the report stand? `audit` reads it as a stranger would: overlapping classes, choices on test classes, second looks, undeclared rows, too few episodes, no row without training.

# %%
found = audit(report)

# %% [markdown]
# ## 10 Name something new, and take it home
#
# The classes set aside now play the newcomers. All but one example of each is the support; the last one is asked for. If none was set aside, test classes stand in.

# %%
guests = split["aside"] if len(split["aside"]) > 1 else split["test"][:3]
guests = [name for name in guests if counts[name] > 1]
rows = [own.images[place[name], : counts[name]] for name in guests]
support = torch.cat([row[:-1] for row in rows])
labels = torch.cat([torch.full((len(r) - 1,), k) for k, r in enumerate(rows)])
query = torch.stack([row[-1] for row in rows])
for name, slot in zip(guests, named(settings[chosen], support, labels, query)):
    print(f"{name:20s} is called {guests[slot]}")

# %% [markdown]
# For pictures the package has `FewShotClassifier`, which also takes paths: `clf.predict(["new/1.png"])`. Its file holds weights and examples.

# %%
METHODS = {"mean": "prototypical", "centred": "simple_shot", "ridge": "ridge"}
clf = FewShotClassifier(settings[chosen])
if TEXTS or chosen.startswith(("pixels", "random")):
    print("nothing to export: keep the examples and the name of the setting.")
else:
    clf.fit(support, [guests[k] for k in labels])
    names_by_loop = [guests[k] for k in named(settings[chosen], support, labels, query)]
    assert clf.predict(query) == names_by_loop
    method, *penalty = chosen.split(", ")[1].split()
    made = {"width": 64 if "own" not in chosen else 32}
    made |= {"l2": float(penalty[0])} if penalty else {}
    with tempfile.TemporaryDirectory() as folder:  # name a folder of yours
        file = Path(folder) / "signs.safetensors"
        clf.save(file, method=METHODS[method], settings=made)
        again = FewShotClassifier.load(file)
        print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB, {again}")
    assert again.predict(query) == names_by_loop
    print("loaded again, it gives the same names:", *again.predict(query), sep="\n  ")

# %% [markdown]
# *Example.* Two of three newcomers are named right; that proves only that the tool runs. Save into a folder of yours, and `python -m fsl_course classify signs.safetensors new` names a folder of pictures; `python -m fsl_course export` writes the encoder for use without PyTorch ([commands](../docs/commands.md)).

# %% [markdown]
# ## Explore
#
# The report is closed, so now you may play. Predict the answers, then run the next cell.
#
# 1. Of 4 seeds in place of 45, on 10 classes and 200 episodes: how many points too high is the best?
# 2. Split the same data with eight other seeds. How far does the accuracy of *one* untrained setting move, and what did its interval say?
# 3. With *one* shot, on validation classes: do pixels with a ridge head still keep up with the ready-made net?
#
# <details><summary>Answers</summary>
#
# 1: about 2 points, after 3.2 for 16 and 3.8 for 45 seeds: the first few looks cost most. 2: from 81.8 to 85.8 %, four points, while each interval says ± 1.5: it does not cover the choice of classes. 3: more than that: pixels are five points ahead.
#
# </details>

# %%
for settings_tried in (4, 16, 45):
    gap, half = mean_and_ci95(points("seeds", 10, 200, settings_tried, "test"))
    print(f"best of {settings_tried:2d} seeds: {gap:+.1f} ± {half:.1f} points")
moved = []
for seed in range(1, 9):
    other = split_by_class(counts, shots + queries, (0.4, 0.3, 0.3), seed)["test"]
    part = own.select([place[name] for name in other])
    deal = EpisodeSampler(part, min(ways, len(part)), shots, queries)
    moved.append(evaluate(settings[best_of(plain)], deal, 100))
report["over splits"] = shares = [found.mean for found in moved]
print(f"{best_of(plain)}: {min(shares):.1%} to {max(shares):.1%} in 8 splits,", end=" ")
print(f"intervals of ± {sum(found.ci95 for found in moved) / 8:.1%}")
one = EpisodeSampler(val, ways, 1, queries)
pair = [evaluate(settings[name], one, 200) for name in (best_of(plain), best_of(ready))]
print(f"one shot: {pair[0].mean:.1%} and {pair[1].mean:.1%};", compare(*pair))

# %% [markdown]
# ## Bug hunt
#
# The symptom: a team trains its net for eight more epochs, watches `val`, and keeps the weights that it likes best. Their readme says what `val` said. On other tasks of the same classes these weights are worse. Look at the code before you read on.


# %%
def val_of(net: FewShotLearner, tasks: int, log: list[dict]) -> float:
    """Accuracy on classes that no training has seen."""
    unseen = test
    sampler = EpisodeSampler(unseen, ways, shots, queries, seed=len(log))
    entry = {"setting": f"epoch {len(log) + 1}", "purpose": "choose"}
    log.append(entry | {"classes": unseen.class_names, "episodes": tasks})
    return evaluate(net, sampler, tasks).mean


def train_and_keep(epochs: int, log: list[dict], watch=val_of):
    """The weights of the epoch with the best accuracy, and that accuracy."""
    torch.manual_seed(0)
    learner, best, kept = deepcopy(further), -1.0, None
    for epoch in range(epochs):
        n = min(10, len(train)), shots, min(queries, 2)
        deal = EpisodeSampler(train, *n, seed=10 + epoch)
        fit(learner, deal, steps=4, lr=1e-4, progress=False)
        accuracy = watch(learner, 10, log)
        if accuracy > best:
            best, kept = accuracy, deepcopy(learner)
    return kept.eval(), best


log: list[dict] = []
kept, promised = train_and_keep(8, log)
more = EpisodeSampler(test, ways, shots, queries, seed=100)
print(f"the readme says        {promised:.1%}")
print(f"on 400 other tasks     {evaluate(kept, more, 400)}")

# %% [markdown]
# ### Exercise 26.5  Bug hunt: leaks in a report  (difficulty 4/5, 10 min)
#
# Write the reader that finds leaks in anybody's report. Two names mean the same class if they agree after `.strip().lower()`. Return a list of these codes, in this order, each at most once, and an empty list for a sound report:
#
# | code | when |
# |---|---|
# | `"overlap"` | a class is in two of `train`, `val`, `test` |
# | `"chosen on test"` | an entry with the purpose `"choose"` has a test class among its classes |
# | `"tested twice"` | a setting has more than one entry with the purpose `"test"` |
# | `"few episodes"` | an entry, of either purpose, has fewer episodes than `least` |

# %% [markdown]
# The report is a dict:
#
# | key | value |
# |---|---|
# | `"train"`, `"val"`, `"test"` | lists of names of classes; one may be empty |
# | `"ledger"` | a list of dicts with `"setting"`, `"purpose"`, `"classes"` (names) and `"episodes"` |
# | `"least"` | int |
#
# A class that stands twice in *one* list is no overlap. A setting may be looked at on validation classes as often as one likes. Other keys may be there.


# %%
def leaks(report: dict) -> list[str]:
    """Codes of what is wrong with a report, in a fixed order; [] if nothing is."""

    # BEGIN SOLUTION
    def same(names):
        return {name.strip().lower() for name in names}

    parts = [same(report[part]) for part in ("train", "val", "test")]
    looks = report["ledger"]
    choices = [look for look in looks if look["purpose"] == "choose"]
    tests = [look["setting"] for look in looks if look["purpose"] == "test"]
    wrong = {
        "overlap": len(set.union(*parts)) < sum(map(len, parts)),
        "chosen on test": any(same(look["classes"]) & parts[2] for look in choices),
        "tested twice": len(set(tests)) < len(tests),
        "few episodes": any(look["episodes"] < report["least"] for look in looks),
    }
    return [code for code, found in wrong.items() if found]
    # END SOLUTION


leaks = check("26.5", leaks)
log_of_team = log
theirs = {**split, "ledger": log_of_team, "least": LEAST}
print("their report:", leaks(theirs))
print("your report: ", leaks(report))

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# `val_of` is named after validation and looks at the *test* classes, epoch after epoch. The fall alone proves no leak: with ten *validation* tasks each time the promise falls, too (next cell; the intervals overlap). Ten tasks are noisy. The leak is worse: the 400 tasks are of the same test classes, and no class is left on which nothing was chosen. In the public code of the delta-encoder (Schwartz et al. 2018) the method `val` scores the tasks of the unseen classes after every epoch, keeps the weights with the highest score and returns that score. The code of CEC (Zhang et al. 2021) keeps the epoch of its base session that is best on the test pictures.
#
# </details>


# %%
def val_of_cured(net: FewShotLearner, tasks: int, log: list[dict]) -> float:
    """Accuracy on validation classes; the test stays closed."""
    sampler = EpisodeSampler(val, ways, shots, queries, seed=len(log))
    entry = {"setting": f"epoch {len(log) + 1}", "purpose": "choose"}
    log.append(entry | {"classes": val.class_names, "episodes": tasks})
    return evaluate(net, sampler, tasks).mean


for told, watch, part in (("test", val_of, test), ("validation", val_of_cured, val)):
    falls, looks = [], []  # a longer list of looks deals other tasks
    for _ in range(5):
        net, said = train_and_keep(8, looks, watch)
        deal = EpisodeSampler(part, ways, shots, queries, seed=100)
        falls.append(100 * (said - evaluate(net, deal, 100).mean))
    fall, half = mean_and_ci95(torch.tensor(falls))
    print(f"watching {told:10s}: promise minus other tasks {fall:+.1f} ± {half:.1f}")

log = []
val_of_cured(kept, LEAST, log)
assert leaks(theirs) == ["chosen on test", "few episodes"]
assert leaks({**split, "ledger": log, "least": LEAST}) == []
print("with validation classes and enough tasks:", leaks({**theirs, "ledger": log}))
print("what audit says of the team's report:")
found = audit({**report, "ledger": log_of_team, "chosen": "epoch 8"})

# %% [markdown]
# ## Quiz
#
# **1. A class of yours has 6 drawings; an episode needs 5 shots and 10 queries. What now?**
# (a) copy drawings until there are 15, (b) set the class aside, (c) put it into training
#
# <details><summary>Answer</summary>
#
# (b), or take fewer queries for all. Against (a): copies among support and queries are a leak. Against (c): the sampler needs 15 there, too.
#
# </details>
#
# **2. Twenty settings are equally good, and the standard error is half a point. About how much too high is the best?**
# (a) not at all, (b) one point, (c) ten points
#
# <details><summary>Answer</summary>
#
# (b): $e(20)$ is about 1.9, times 0.5. Against (a): the largest of several noisy numbers is too high. Against (c): that would be twenty standard errors.
#
# </details>

# %% [markdown]
# **3. You picked the best of 45 seeds on ten test classes. Does ten times the number of episodes cure the number?**
# (a) hardly, (b) yes, wholly, (c) it makes it worse
#
# <details><summary>Answer</summary>
#
# (a): 3.8 points are left of 4.4. Against (b): episodes are drawn from the same ten classes again and again. Against (c): the noise of episodes does shrink.
#
# </details>
#
# **4. The chosen net gains 20 points over the ready-made net with the nearest mean. Which row do you ask for first?**
# (a) a larger net, (b) a setting that needs no training, with the best head, (c) chance
#
# <details><summary>Answer</summary>
#
# (b): of 20 points six were left. (a) is another project. Against (c): everything beats chance.
#
# </details>
#
# **5. After the test you have a better idea. What is honest?**
# (a) test it on the same classes, and report the better number, (b) report the first number, and test the idea on new classes, (c) test it and keep silent if it loses
#
# <details><summary>Answer</summary>
#
# (b). Against (a) and (c): that is choosing on the test, by hand.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | split | by class; too small is set aside; nobody is in two parts |
# | first | chance, pixels or words, with a good head |
# | choose | on validation classes, the simplest within the paired interval |
# | best of many | too high by $e(M)\,\sigma/\sqrt{E}$, and more when classes are few |
# | test | once, with declared rows |
# | report | ledger, gains over every row, failures, limits |
# | looks back | baselines of [02](../notebooks/02_baselines.ipynb); a head on a frozen net in [23](../notebooks/23_shift.ipynb); a base session chosen on the test in [24](../notebooks/24_continual.ipynb) |
#
# Pitfalls: a function called `val` that reads the test; a reserve of settings tried "only once more"; a weak head for the baseline; an interval that is read as if it covered other classes. [Next]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Schwartz et al. (2018), *Delta-encoder: an effective sample synthesis method for few-shot object recognition* | the bug hunt (public code) |
# | Zhang et al. (2021), *Few-Shot Incremental Learning with Continually Evolved Classifiers* (CEC) | the bug hunt (public code) |
# | Cawley and Talbot (2010), *On Over-fitting in Model Selection and Subsequent Selection Bias in Performance Evaluation* | choosing on the test |
# | Musgrave, Belongie and Lim (2020), *A Metric Learning Reality Check* | test sets used for choosing, and gains that shrink |
# | Wang et al. (2019), *SimpleShot* | centred features |

# %%
progress("26")

# %% [markdown]
# ## The course ends here: the row that made the gain vanish
#
# One question went through all lessons. Here are its answers.
#
# | lesson | the gain | the row beside it |
# |---|---|---|
# | [02](../notebooks/02_baselines.ipynb) | meta-learning over a trained net that is only reused | at five shots nothing separates them |
# | [06](../notebooks/06_relation.ipynb) | a learned comparison, 0.9 points at 20 ways | three training seeds: ± 3.0, not settled |
# | [09](../notebooks/09_maml_images.ipynb) | queries judged together | tasks whose queries are not balanced |
# | [11](../notebooks/11_learned_optimizers.ipynb) | a learned rule, 19 points over a guessed rate | SGD at its best rate, 4 points ahead |
# | [12](../notebooks/12_mapping.ipynb) | a solve with a penalty | the nearest mean on an encoder that was trained for it |
# | [13](../notebooks/13_in_context.ipynb) | a network that reads the support | ridge, and the nearest mean on the same embeddings |
# | [14](../notebooks/14_graphs.ipynb) | labels that flow between queries | uneven queries |
# | [15](../notebooks/15_unlabelled.ipynb) | pictures without a name | pictures that belong to no class of the task |
# | [16](../notebooks/16_hallucination.ipynb) | invented examples | a good encoder without them |
# | [17](../notebooks/17_without_labels.ipynb) | training without labels | the same training without a warp |
# | [18](../notebooks/18_zero_shot.ipynb) | names from descriptions | descriptions shuffled over the classes |
# | [19](../notebooks/19_segmentation.ipynb) | masks after 40 steps | any ink is the object; longer training beats it |
# | [20](../notebooks/20_words.ipynb) | training on pairs of sentences | the nearest mean on the same vectors |
# | [21](../notebooks/21_acting.ipynb) | a policy that adapts in one step | walking to the best place seen, ahead by 2.2 |
# | [22](../notebooks/22_trust.ipynb) | a calibrated temperature | another domain |
# | [23](../notebooks/23_shift.ipynb) | adapters, ten points and more on icons | a ridge head on the frozen encoder, which finds most of them |
# | [24](../notebooks/24_continual.ipynb) | training on, session after session | the frozen encoder with its class means |
# | [25](../notebooks/25_deployment.ipynb) | a small net that a large one taught | the same temperature without a teacher; ten times the steps |
# | 26 | a ready-made net with a good head, 14 points | raw pixels with the same head |

# %% [markdown]
# **What you can do now.** You can take classes that no net has seen, a few examples of each, and say how well they can be told apart, how sure that is, and what would prove you wrong. You wrote the methods yourself.
#
# **What you were never shown.** Large nets, photographs, thousands of classes, data of people. Whether the order of the methods holds there, these lessons cannot tell.
#
# **The field beyond** mostly starts from one large pretrained net, and asks for a prompt, a linear head or a few adapted weights. The questions stay: who saw the test classes, who chose, which row is missing? Farewell, and write down what you find, also when it is nothing.
