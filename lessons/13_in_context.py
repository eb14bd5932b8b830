# %% [markdown]
# # 13 In context: learning without an update
#
# A network reads examples with their answers and then answers a new question, while its weights stay as they are. You build one by hand out of a single gradient step, train it, and test it against the rules that it must beat.
#
# Prerequisites: lessons 04, 05, 07 and 12. Planned time: 55 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** What does one step of the inner loop change, and what stays after the task?
#
# <details><summary>Answer</summary>
#
# It changes a copy of the parameters, made for this task. Nothing stays: the next task starts from the same initialisation.
#
# </details>
#
# **2.** How does a matching network use attention?
#
# <details><summary>Answer</summary>
#
# A query is compared with every support picture. A softmax turns the similarities into weights, and the answer is the weighted mean of the labels.
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **write** the mask that says who reads whom (13.1), and **expose** a wrong one (13.4),
# 2. **derive** a gradient step as one layer of attention (13.2),
# 3. **give** classes codes so that slots carry no information (13.3),
# 4. **prepare** a table without letting queries or constant columns spoil it (13.5).

# %% [markdown]
# ## A puzzle: who needs fewer examples?
#
# Somebody draws a linear function of four numbers and shows you noisy values of it. The noise has a standard deviation of 1, as large as a typical weight. Three rules predict the function at new points:
#
# - **least squares** on the examples shown,
# - **[ridge](../lessons/GLOSSARY.md#ridge-regression "岭回归")**, least squares with a penalty of 1 on squared weights,
# - a **network with 200 frozen weights** that was trained on other linear functions.
#
# Write down the order of their errors after 8 examples and after 20.

# %%
import inspect
from dataclasses import replace

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Generator, Tensor, nn

from fsl_classroom import check, progress
from fsl_course import Episode, EpisodeSampler, fit, load_glyphs, pretrained
from fsl_course.episodes import linear_tasks, table_tasks
from fsl_course.episodes import standardise as standardise_clipped
from fsl_course.evaluation import embed_all, mean_and_ci95
from fsl_course.figures import QUERY, SUPPORT, new, show, slot_style
from fsl_course.methods import in_context as package
from fsl_course.methods.in_context import InContextLearner
from fsl_course.methods.prototypical import prototypes, squared_distances

torch.manual_seed(0)
proto = pretrained("prototypical", "glyphs")  # the encoder of lesson 05

# %% [markdown]
# ## The idea in one picture
#
# Each example becomes one row of numbers: its input $x_i$ beside its answer $y_i$. A query is a row as well, with zeros where its answer would stand.
# In a layer of [attention](../lessons/GLOSSARY.md#attention "注意力") every row reads other rows and adds something to itself. After the last layer the answer is read off the query's row.
#
# Learning from the [support](../lessons/GLOSSARY.md#support-set "支持集") by reading it, with weights that stay frozen, is called [in-context learning](../lessons/GLOSSARY.md#in-context-learning "上下文学习").
# Every query also keeps itself; the picture omits that loop.

# %% tags=["draws"]
figure, axes = new(7.5, 3)
middle = {"ha": "center", "va": "center"}
for i in range(3):
    box = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": SUPPORT, "lw": 2}
    axes.text(1.6 * i, 1.2, f"$x_{i + 1}$ | $y_{i + 1}$", bbox=box, **middle)
    for j in range(2):
        arrow = {"arrowstyle": "->", "color": QUERY, "lw": 1.4}
        axes.annotate("", (0.8 + 1.6 * j, 0.2), (1.6 * i, 0.98), arrowprops=arrow)
for j in range(2):
    box = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": QUERY, "lw": 2}
    axes.text(0.8 + 1.6 * j, 0, f"query {j + 1} | 0", bbox=box, **middle)
for left, right, rad in ((0, 1.6, 0.0), (1.6, 3.2, 0.0), (0, 3.2, -0.35)):
    style = f"arc3,rad={rad}"
    both = {"arrowstyle": "<->", "color": SUPPORT, "connectionstyle": style, "lw": 1.4}
    gap, up = (0.36, 1.2) if rad == 0 else (0.0, 1.42)
    axes.annotate("", (right - gap, up), (left + gap, up), arrowprops=both)
axes.text(3.9, 1.2, "support rows read each other", color=SUPPORT, va="center")
axes.text(3.9, 0.6, "every query reads the support", color=QUERY, va="center")
axes.text(3.9, 0, "no arrow between queries", va="center")
axes.set(xlim=(-0.6, 6.6), ylim=(-0.3, 2.1))
axes.axis("off")
show(
    figure,
    "Three boxes of support rows, each with an input and its answer, are joined by "
    "double arrows: they read each other. Arrows lead from each of them to two boxes "
    "of queries, whose answer is zero. No arrow joins the two queries.",
)

# %% [markdown]
# ### Exercise 13.1  Who reads whom  (difficulty 1/5, 4 min)
#
# Attention takes a table of permissions, the [mask](../lessons/GLOSSARY.md#attention-mask "注意力掩码"). Row $i$ of it is the reader, and column $j$ is `True` where row $i$ may read row $j$. The first `shots` rows are the support, the others the queries.
#
# Everyone reads the whole support. A query also reads itself, and no other query. Support rows read no query.
#
# | `shots` | `queries` | returned |
# |---|---|---|
# | $S$ | $M$ | bool `[S+M, S+M]` |


# %%
def context_mask(shots: int, queries: int) -> Tensor:
    """Who reads whom: bool [S+M, S+M], True where row i reads row j."""
    # BEGIN SOLUTION
    rows = shots + queries
    everyone_reads = torch.arange(rows) < shots  # the columns of the support
    return everyone_reads | torch.eye(rows, dtype=torch.bool)
    # END SOLUTION


context_mask = check("13.1", context_mask)
print(context_mask(2, 2).int())

# %% [markdown]
# The two left columns hold ones, because everyone reads both support rows. In the lower right corner only the diagonal is 1: a query sees itself and no other query. So each query is judged alone, as in every honest test of this course.

# %% [markdown]
# ## Why it should work: a gradient step is attention
#
# Take the simplest learner, $\hat y = Wx$, and the simplest inner loop: one step of gradient descent from $W = 0$ on the loss of the support.
#
# $$\mathcal{L}_\mathcal{S}(W) = \frac{1}{2S} \sum_{i=1}^{S} \|W x_i - y_i\|^2, \qquad \nabla \mathcal{L}_\mathcal{S}(0) = -\frac{1}{S} \sum_{i=1}^{S} y_i x_i^\top$$
#
# Now let the stepped $W = -\alpha \nabla \mathcal{L}_\mathcal{S}(0)$ predict a query $x$:
#
# $$\hat y = \frac{\alpha}{S} \sum_{i=1}^{S} y_i \, (x_i \cdot x)$$

# %% [markdown]
# The query $x$ is compared with every $x_i$ by an inner product, and the answers $y_i$ are added with these weights. That is attention, only without a softmax: [linear attention](../lessons/GLOSSARY.md#linear-attention "线性注意力"). So a layer that compares and adds can do what a learner does that computes gradients (von Oswald et al. 2023).
#
# | symbol | variable | shape |
# |---|---|---|
# | $x_i$, $y_i$ | `support`, `targets` | `[S, d]`, `[S, o]` |
# | $x$, $\hat y$ | `query`, returned | `[M, d]`, `[M, o]` |
# | $\alpha$ | `lr` | one number |
# | $W$ | `weight` | `[o, d]` |
# | $S$ | `len(support)` | number of examples |

# %% [markdown]
# ## By hand
#
# Three examples: $x_1 = (1, 0)$ with $y_1 = 2$, $x_2 = (0, 2)$ with $y_2 = 1$, and $x_3 = (1, 1)$ with $y_3 = 3$. The query is $(3, 1)$ and $\alpha = 0.75$. Its inner products are 3, 2 and 4, so $\hat y = \frac{0.75}{3}(2 \cdot 3 + 1 \cdot 2 + 3 \cdot 4) = 5$. What are the weights $W$ after the step, and do they predict the same?

# %% tags=["nbval-check-output"]
support = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
targets = torch.tensor([[2.0], [1.0], [3.0]], dtype=torch.float64)
query = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
weight = torch.zeros(1, 2, dtype=torch.float64)
for x, y in zip(support, targets):  # the gradient, one example at a time
    weight += 0.75 / 3 * torch.outer(y, x)
print("W after one step", weight.tolist(), "predicts", (query @ weight.T).item())

# %% [markdown]
# ### Exercise 13.2  A gradient step as attention  (difficulty 2/5, 6 min)
#
# Return $\hat y$ for all queries, written as attention: scores of queries against examples first, then targets weighed by scores. It needs neither a loop nor autograd.
#
# | `support` | `targets` | `query` | `lr` | returned |
# |---|---|---|---|---|
# | `[S, d]` | `[S, o]` | `[M, d]` | $\alpha$ | `[M, o]` |


# %%
def linear_attention(
    support: Tensor, targets: Tensor, query: Tensor, lr: float
) -> Tensor:
    """lr/S times the sum over i of y_i (x_i . x). [S, d], [S, o], [M, d] -> [M, o]."""
    # BEGIN SOLUTION
    scores = query @ support.T  # [M, S]
    return lr / len(support) * scores @ targets
    # END SOLUTION


linear_attention = check("13.2", linear_attention)

# %% [markdown]
# Now hold it to autograd, in float64, on random examples with two outputs. The loss is the one above, with its factor of one half (lesson 07 had none), and its gradient comes from PyTorch, not from your derivation.

# %% tags=["nbval-check-output"]
generator = Generator().manual_seed(0)
x, y, q = (
    torch.randn(*shape, generator=generator, dtype=torch.float64)
    for shape in ((9, 4), (9, 2), (5, 4))
)
weight = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
loss = 0.5 * (x @ weight.T - y).square().sum(1).mean()
stepped = (weight - 0.3 * torch.autograd.grad(loss, weight)[0]).detach()
gap = (linear_attention(x, y, q, 0.3) - q @ stepped.T).abs().max()
assert gap < 1e-12
order = torch.randperm(9, generator=generator)
moved = (linear_attention(x[order], y[order], q, 0.3) - q @ stepped.T).abs().max()
assert moved < 1e-12
print("one layer equals one gradient step, in any order of the support, to 1e-12")

# %% [markdown]
# ## From one step to a reader that can be trained
#
# A real layer gets whole rows $e = (x, y)$, not inputs and answers apart. Two matrices pick what it needs: $A$ says which numbers of two rows are compared, and $B$ says what is added.
#
# $$e_j \leftarrow e_j + \frac{1}{S + d} \sum_{i=1}^{S} B e_i \, (e_i^\top A \, e_j)$$
#
# By hand, $A$ has ones on the diagonal of the $x$ part, and $B$ has $-\alpha$ in the corner of $y$. Then every support row's $y_i$ becomes what the step has left unexplained, target minus prediction (lesson 07's residual with its sign turned), and a query's $0$ becomes minus its prediction. The gradient at the new $W$ is the same sum with these differences in place of $y_i$, so the next layer does the next step.

# %% [markdown]
# | symbol | variable | shape |
# |---|---|---|
# | $e_j$ | `seen`, `asked` | rows `[S, d+1]`, `[M, d+1]` |
# | $A$, $B$ | `compare`, `add` | `[layers, d+1, d+1]` |
#
# Why $S + d$? For random examples, $\sum_i x_i x_i^\top$ stretches no direction by much more than $(\sqrt{S} + \sqrt{d})^2 \le 2(S + d)$, so a step of $0.5 / (S + d)$ seldom overshoots.
#
# Four such layers are the network of the puzzle, and all of $A$ and $B$ can be trained. So the lines below are learned by *linear* attention, not by a usual transformer with a softmax. One that we trained for 21 minutes (not shown) still trailed least squares from 10 examples on.


# %%
class LinearReader(nn.Module):
    """Layers of linear attention that start as steps of gradient descent."""

    def __init__(self, features: int, layers: int = 4, lr: float = 0.5) -> None:
        super().__init__()
        size, x = features + 1, range(features)
        compare, add = torch.zeros(2, layers, size, size)
        compare[:, x, x] = 1.0
        add[:, -1, -1] = -lr
        self.compare, self.add = nn.Parameter(compare), nn.Parameter(add)

    def forward(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """[..., S, d], [..., S, 1], [..., M, d] -> predictions [..., M, 1]."""
        seen = torch.cat([support, targets], -1)
        asked = torch.cat([query, torch.zeros_like(query[..., :1])], -1)
        for compare, add in zip(self.compare, self.add):
            keys, values = seen @ compare, seen @ add.T / sum(support.shape[-2:])
            seen, asked = (rows + rows @ keys.mT @ values for rows in (seen, asked))
        return -asked[..., -1:]


# %% tags=["nbval-check-output"]
reader = LinearReader(4).double()
weight = torch.zeros(1, 4, dtype=torch.float64)
for _ in range(4):  # the same learner as a loop of gradient steps
    weight = weight - 0.5 * (x @ weight.T - y[:, :1]).T @ x / (9 + 4)
gap = (reader(x, y[:, :1], q) - q @ weight.T).abs().max()
assert gap < 1e-12
print("four untrained layers equal four gradient steps, to 1e-12")
print("weights that can be trained:", sum(p.numel() for p in reader.parameters()))

# %% [markdown]
# ## Train for real: lines
#
# Every step draws 64 new linear functions and shows 2 to 20 examples of each. The loss is the squared error at new points, against the true function without noise: so 0 is perfect, and a rule that always says 0 scores 4, the variance of the functions (four weights of variance 1). That is the chance line here.


# %%
def train(seed: int, steps: int = 240) -> LinearReader:
    """A reader trained on linear functions; prints its errors at 8 examples."""
    reader, generator = LinearReader(4), Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(reader.parameters(), 1e-2)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        shots = int(torch.randint(2, 21, (), generator=generator))
        task = linear_tasks(64, shots, 4, 4, 1.0, generator)
        found = reader(task.support_x, task.support_y, task.query_x)
        loss = F.mse_loss(found, task.query_y)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimiser.step()
        plan.step()
        if step % 80 == 79:
            now = errors(reader, 8)
            share = now.sort().values[-5:].sum() / now.sum()
            print(
                f"seed {seed}, step {step + 1:3d}: mean error {now.mean():6.2f}, "
                f"median {now.median():.2f}, five worst {share:3.0%} of the sum "
                "(always 0: mean 4.00)"
            )
    return reader


@torch.no_grad()
def errors(rule, shots: int, noise: float = 1.0) -> Tensor:
    """Squared error of each of 1000 test functions [1000]."""
    task = linear_tasks(1000, shots, 10, 4, noise, Generator().manual_seed(100))
    found = rule(task.support_x, task.support_y, task.query_x)
    return (found - task.query_y).square().mean((1, 2))


readers = [train(seed) for seed in range(3)]

# %% [markdown]
# In the end the error at 8 examples hardly moves. On the way a mean may leap while the median stays: then a handful of the 1000 functions gets absurd answers. At step 80 of seed 1 the five worst functions make nine tenths of the error, otherwise about one twentieth. The likely cause: inner products of long examples multiply from layer to layer, and no softmax bounds them.

# %% [markdown]
# Now the whole curve. It leaves out 4 examples: with as many examples as weights, least squares meets the [interpolation threshold](../lessons/GLOSSARY.md#interpolation-threshold "插值阈值") of lesson 12, and its error is far off the scale.
#
# The rate 0.5 of the start is not tuned, so steps at 0.7 stand beside it, the best of 0.5, 0.7, 0.8 and 0.9 at 8 examples.
#
# For weights of variance 1 and noise of variance 1, ridge with penalty 1 is the mean of the Bayesian posterior (lesson 05 had Bayes' rule for classes): no rule can have a smaller expected error.


# %%
def least_squares(x: Tensor, y: Tensor, q: Tensor) -> Tensor:
    """The shortest solution of least squares, then its predictions."""
    return q @ torch.linalg.pinv(x) @ y


def ridge(x: Tensor, y: Tensor, q: Tensor) -> Tensor:
    """Least squares with a penalty of 1 on squared weights."""
    return q @ torch.linalg.solve(x.mT @ x + torch.eye(x.shape[-1]), x.mT @ y)


rules = {
    "4 steps, rate 0.5": LinearReader(4),
    "4 steps, rate 0.7": LinearReader(4, lr=0.7),
    "least squares": least_squares,
    "ridge": ridge,
    "trained reader": readers[0],
}
shown = (2, 6, 8, 10, 12, 16, 20)
curves = {
    name: [float(errors(rule, s).mean()) for s in shown] for name, rule in rules.items()
}
print(f"{'examples':18s}", *(f"{s:5d}" for s in shown))
for name, curve in curves.items():
    print(f"{name:18s}", *(f"{e:5.2f}" for e in curve))

# %% tags=["draws"]
figure, axes = new(7, 3)
for slot, (name, curve) in enumerate(curves.items()):
    style = slot_style(slot)
    axes.plot(shown[1:], curve[1:], label=name, **style)
    axes.plot(shown[:1], curve[:1], **style)  # no line from 2 to 6: a peak lies there
axes.axhline(4, color="#767676", ls=":", label="always 0")
axes.set(xlabel="examples shown", ylabel="squared error", ylim=(0, 4.4), xticks=shown)
axes.legend(fontsize=8)
show(
    figure,
    "Squared error against the number of examples for five rules. Four steps at "
    "rate 0.5 fall slowly, at 0.7 faster. Least squares falls from 6 examples on. "
    "No line joins 2 and 6 examples, because least squares has a peak at 4. "
    "Ridge lies lowest, and the trained reader lies almost on it.",
)

# %%
for shots in (8, 14, 20):
    for name in ("4 steps, rate 0.7", "least squares", "ridge"):
        other = errors(rules[name], shots)
        told = []
        for reader in readers:
            mean, half = mean_and_ci95(errors(reader, shots) - other)
            told.append(f"{mean:+.3f} ± {half:.3f}")
        print(f"{shots:2d} examples, reader minus {name:17s}:", ", ".join(told))

# %% [markdown]
# The columns are three training seeds, and each interval is over 1000 paired functions. So the answer to the puzzle is: after 8 examples ridge, then the reader, then least squares, by a wide gap. After 20 examples reader and least squares are not told apart, and ridge still leads by a little.
#
# The rate alone explains half of what training gained over the start at 8 examples, and three quarters at 20. The reader stays ahead of steps at 0.7 all the same.

# %% [markdown]
# The row that makes the gain vanish is ridge. The reader never beats it: all nine intervals against ridge lie above 0. It learned from its training functions how large weights and noise usually are, a [prior](../lessons/GLOSSARY.md#prior "先验"), and ridge was *told* both.
#
# What may not be claimed: that it would do as well on functions from elsewhere. You will try that under "Explore".


# %%
@torch.no_grad()
def diagonals(matrices: Tensor) -> Tensor:
    """The same matrices with zeros off their diagonals."""
    return torch.diag_embed(matrices.diagonal(dim1=-2, dim2=-1))


for seed, reader in enumerate(readers):
    bare, plain = LinearReader(4), LinearReader(4)
    bare.compare.data, bare.add.data = diagonals(reader.compare), diagonals(reader.add)
    plain.compare.data, plain.add.data = bare.compare.data, bare.add.data.clone()
    plain.add.data[:, range(4), range(4)] = 0.0  # the inputs stay as they are
    print(f"seed {seed}, layers 1 to 4")
    for name, part in (
        ("A, inputs", reader.compare.diagonal(dim1=1, dim2=2)[:, :4].mean(1)),
        ("B, answer", reader.add[:, -1, -1]),
        ("B, inputs", reader.add.diagonal(dim1=1, dim2=2)[:, :4].mean(1)),
    ):
        print(f"  {name}", *(f"{number:5.2f}" for number in part.tolist()))
    for name, rule in (
        ("as trained", reader),
        ("only the diagonals", bare),
        ("and inputs of B at zero", plain),
    ):
        now = errors(rule, 8)
        told = f"median {now.median():.2f}, above 4: {(now > 4).double().mean():5.1%}"
        print(f"  error at 8 examples, {name:24s} {told}")

# %% [markdown]
# What did training learn? Hardly more than the diagonals: with everything else at zero the errors stay as they are. On them, the steps grew beyond the 0.5 of the start. And $B$ now changes the *inputs*, too, by a small negative number: every row loses a little of what it shares with the support, so directions in which the support is long are shortened. After the last layer nobody reads the inputs, so no gradient reaches this part: 0.00.

# %% [markdown]
# Without this part the error explodes for about one function in ten, beyond the 4 of always saying 0; the median rises by about a third. Likely the long steps then overshoot. Readers trained *with* this part at zero (three seeds, not shown) erred by 0.92 and 0.94, about as steps at 0.7 do; the third leapt. So the lead over such steps comes from this part. Von Oswald et al. found it in their trained layers.

# %% [markdown]
# ## Classes: answers become codes
#
# A class has no number as its answer, only a slot, and slots are arbitrary. So each class gets a [label code](../lessons/GLOSSARY.md#label-code "标签编码"), a random vector. The row of a support picture holds its embedding and its class's code; the query's answer is compared with all codes, and the inner products are the logits. In training the codes are drawn anew for every episode: nothing can be learned about a code, only how to use codes.

# %% [markdown]
# In a test the answer should not depend on a random draw, so the codes come from one fixed table. Who gets which row of it? If slot 0 got row 0, then relabelling the slots could change the predictions. So the support decides: its class means are sorted along a fixed direction.

# %% [markdown]
# ### Exercise 13.3  Codes that follow the support  (difficulty 3/5, 8 min)
#
# Compute `mean @ direction` for every class. The class with the smallest number gets row 0 of `table`, the next one row 1, and so on. Return the codes with row $k$ for slot $k$.
# On paper: means 6, 1 and 2 get rows 2, 0 and 1.
#
# | `support` | `labels` | `table` | `direction` | returned |
# |---|---|---|---|---|
# | `[S, D]` | `[S]` | `[N, C]` | `[D]` | `[N, C]` |


# %%
def give_codes(
    support: Tensor, labels: Tensor, table: Tensor, direction: Tensor
) -> Tensor:
    """Row r of the table goes to the class whose mean is the r-th along direction."""
    # BEGIN SOLUTION
    means = torch.stack([support[labels == k].mean(0) for k in range(len(table))])
    along = means @ direction  # [N]
    rank = (along[:, None] > along[None, :]).sum(1)  # how many lie below
    return table[rank]
    # END SOLUTION


give_codes = check("13.3", give_codes)

# %% [markdown]
# ## Meet the package
#
# `InContextLearner` is a [transformer](../lessons/GLOSSARY.md#transformer "变换器"): attention with a softmax, and after each attention a small net for every row. Its two central methods follow. `read` runs blocks of usual attention under your mask. `score` puts codes in and compares answers with codes.

# %%
labels = torch.arange(9) % 3
direction = package.draw_codes(1, 4, seed=1)[0]  # `code_order` draws it with seed 1
table = package.draw_codes(3, 24, seed=0)
ranked = table[package.code_order(x, labels, 3)]
for mine, theirs in (
    (context_mask(3, 4), package.context_mask(3, 4)),
    (give_codes(x, labels, table, direction), ranked),
    (linear_attention(x, y, q, 0.3), package.linear_attention(x, y, q, 0.3)),
):
    assert torch.allclose(mine, theirs)
print(inspect.getsource(InContextLearner.read))
print(inspect.getsource(InContextLearner.score))

# %% [markdown]
# Now the pictures. To save time, a frozen [encoder](../lessons/GLOSSARY.md#encoder "编码器") from lesson 05 embeds them once, and only the transformer is trained.


# %%
def embedded(split: str, classes: int) -> tuple[EpisodeSampler, Tensor]:
    """10-way sampler over some classes of a split, and all embeddings [C*10, D]."""
    source = load_glyphs().split(split)
    few = replace(
        source,
        images=source.images[:classes, :10],
        counts=source.counts[:classes].clamp(max=10),
        class_names=source.class_names[:classes],
        groups=source.groups[:classes],
        splits=source.splits[:classes],
    )
    return few, embed_all(proto, few.images.flatten(0, 1))


class Embedded:
    """Episodes whose pictures are embedded already; the interface of a sampler."""

    def __init__(self, sampler: EpisodeSampler, table: Tensor) -> None:
        self.sampler, self.table = sampler, table
        self.n_way, self.key = sampler.n_way, sampler.key

    def batch(self, start: int, tasks: int) -> Episode:
        """Stacked episodes with embeddings [T, S, D] in place of pictures."""
        drawn = self.sampler.layout(start, tasks)
        rows = [self.table[drawn.support], self.table[drawn.query]]
        return Episode(rows[0], drawn.support_y, rows[1], drawn.query_y, drawn.classes)


train_glyphs, train_table = embedded("train", 250)
test_glyphs, test_table = embedded("test", 200)

# %%
lessons = Embedded(EpisodeSampler(train_glyphs, 10, 1, 5), train_table)
torch.manual_seed(0)
quick = InContextLearner(nn.Identity(), features=64)
for block in quick.blocks:  # queries and keys, which start equal, start small as well
    block.query_key_value.weight.data[: 2 * quick.tokens] *= 0.35
history = fit(quick, lessons, steps=160, tasks=8)
early, late = sum(history.loss[:25]) / 25, sum(history.loss[-25:]) / 25
print(f"loss of guessing among 10 classes {torch.tensor(10.0).log():.2f}")
print(f"first 25 steps {early:.2f}, last 25 steps {late:.2f}")

# %% [markdown]
# At first the loss stands on a plateau near that of guessing, and the accuracy near the chance line. Then both leave it together.
#
# <details><summary>A side road: how long does the plateau last?</summary>
#
# It depends on the start. The package lets queries and keys start with *equal* weights, so rows read from similar rows before anything is learned. The next cell trains a control with independent keys of the same size and all else alike: after 160 steps it is still on the plateau. With each of three more seeds the order was the same.
#
# Size matters, too. The package starts at full size, the cell above at a third of it; at full size one equal start of four was still on the plateau after 160 steps. Longer training may well get every start going; that was not tried here.
#
# </details>

# %%
torch.manual_seed(0)
control = InContextLearner(nn.Identity(), features=64)
for block in control.blocks:
    queries, keys, _ = block.query_key_value.weight.data.chunk(3)
    nn.init.orthogonal_(keys, gain=2.0)  # independent keys of the same size,
    keys[:, -control.codes :] = 0  # with the same zeros for the codes
    queries *= 0.35
    keys *= 0.35
stuck = fit(control, lessons, steps=160, tasks=8, progress=False)
early, late = sum(stuck.loss[:25]) / 25, sum(stuck.loss[-25:]) / 25
print(f"independent keys: first 25 steps {early:.2f}, last 25 steps {late:.2f}")

# %% [markdown]
# ## Evaluate honestly
#
# The shipped weights were trained longer and on more: 2,000 steps, all training classes, tasks of 5 to 20 classes with 1 or 5 shots, and a rate that rises and falls. ProtoNet uses the *same* embeddings, so it is the plain row: the nearest class mean.


# %%
@torch.no_grad()
def accuracies(score, shot: int, episodes: int = 200) -> Tensor:
    """Accuracy of each 5-way test episode [E]; score as in the package."""
    found, sampler = [], EpisodeSampler(test_glyphs, 5, shot, 5, seed=7)
    for start in range(0, episodes, 50):
        e = Embedded(sampler, test_table).batch(start, 50)
        logits = score(e.support_x, e.support_y, e.query_x, 5)
        found.append((logits.argmax(-1) == e.query_y).double().mean(-1))
    return torch.cat(found)


shipped = pretrained("in_context", "glyphs")
scorers = {
    "chance": lambda x, y, q, n: torch.rand(*q.shape[:-1], n),
    "in context, 160 steps": quick.eval().score,
    "in context, shipped": shipped.score,
    "nearest mean": proto.score,
}
measured = {(n, k): accuracies(s, k) for n, s in scorers.items() for k in (1, 5)}
for name in scorers:
    told = [
        "{:6.2%} ± {:.2%}".format(*mean_and_ci95(measured[name, k])) for k in (1, 5)
    ]
    print(f"{name:22s} 5-way 1-shot {told[0]}, 5-shot {told[1]}")
for k in (1, 5):
    gap = measured["in context, shipped", k] - measured["nearest mean", k]
    mean, half = mean_and_ci95(gap)
    print(f"shipped minus nearest mean, {k}-shot: {mean:+.2%} ± {half:.2%} (paired)")

# %% [markdown]
# Both transformers read unseen classes. The shipped one lies within a point of the nearest mean; yours, after 160 steps, is more than ten points below it. So the gain over the plain row vanishes entirely: on embeddings that were *trained* for the nearest mean, the nearest mean is hard to beat. What may not be claimed is that reading in context is useless. It says that here it has nothing to add.
#
# Do the laws of slots and order hold? And what if another table of codes had been drawn?

# %%
episode = Embedded(EpisodeSampler(test_glyphs, 5, 2, 5, seed=3), test_table)
task = episode.batch(0, 50)
new_slot = torch.tensor([3, 0, 4, 1, 2])
with torch.no_grad():
    logits = shipped.score(task.support_x, task.support_y, task.query_x, 5)
    moved = shipped.score(task.support_x, new_slot[task.support_y], task.query_x, 5)
    other_codes = package.draw_codes(5, 24, seed=5).float().expand(50, -1, -1)
    redrawn = shipped.score(
        task.support_x, task.support_y, task.query_x, 5, other_codes
    )
    turned = shipped.score(
        task.support_x.flip(1), task.support_y.flip(1), task.query_x, 5
    )
for what, other in (
    ("new slots", moved[..., new_slot]),
    ("another order of the support", turned),
    ("another table of codes", redrawn),
):
    same = (other.argmax(-1) == logits.argmax(-1)).double().mean()
    print(f"predictions that survive {what:29s} {same:.1%}")

# %% [markdown]
# New slots change nothing, because the codes follow the support. Another order of the support changes nothing, because rows have no positions. Another table changes about one prediction in a hundred: the net is nearly indifferent to codes, but nothing forces it to be entirely so. Some systems therefore average over several draws.

# %% [markdown]
# ## Tables: train on made-up data, test on real data
#
# If reading can be learned, the training tasks need not be real. A [prior-data fitted network](../lessons/GLOSSARY.md#prior-data-fitted-network "先验数据拟合网络") (PFN) trains on tables that a program makes up, the *prior*, and then reads a real table once (Müller et al. 2022). The next cell shows our prior in full.

# %%
print(inspect.getsource(table_tasks))

# %% [markdown]
# The shipped weights `in_context-tables` saw such tables only, of 2 to 16 columns and 2 to 10 classes. The real ones are scikit-learn's iris (4 columns, 3 classes), wine (13 columns, 3 classes) and digits. Digits have 64 pixels, too many, so we average blocks of 2 by 2 pixels to 16 columns and keep all 10 classes.
# Each split shows 5 rows of every class; 30 other rows are the queries. Columns are standardised by the shown rows and clipped to ±5, for all rules.

# %%
digits = load_digits()
blocks = digits.data.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
iris, wine = load_iris(), load_wine()
tables = {
    "iris": (iris.data, iris.target),
    "wine": (wine.data, wine.target),
    "digits": (blocks, digits.target),
}
pfn = pretrained("in_context", "tables")


def split_of(name: str, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """5 shown rows of each class and 30 queries, standardised: x, y, q, q's labels."""
    rows, y = (torch.from_numpy(part) for part in tables[name])
    order = torch.randperm(len(y), generator=Generator().manual_seed(seed))
    shown = torch.cat([order[y[order] == k][:5] for k in range(int(y.max()) + 1)])
    asked = order[~torch.isin(order, shown)][:30]
    x = rows[shown].float()
    q = standardise_clipped(x, rows[asked].float())
    return standardise_clipped(x, x), y[shown].long(), q, y[asked].long()


# %%
@torch.no_grad()
def judge(name: str, seed: int) -> list[float]:
    """Accuracy of four rules on one split."""
    x, y, q, right = split_of(name, seed)
    n_way = int(y.max()) + 1
    wide = [F.pad(rows, (0, 16 - rows.shape[1])) for rows in (x, q)]
    logistic = LogisticRegression(max_iter=200).fit(x.numpy(), y.numpy())
    neighbour = KNeighborsClassifier(1).fit(x.numpy(), y.numpy())
    found = [
        pfn.score(wide[0], y, wide[1], n_way).argmax(1),
        torch.from_numpy(logistic.predict(q.numpy())),
        torch.from_numpy(neighbour.predict(q.numpy())),
        squared_distances(q, prototypes(x, y, n_way)).argmin(1),
    ]
    return [float((answer == right).double().mean()) for answer in found]


names = ("made-up tables only", "logistic regression", "nearest row", "nearest mean")
results = {t: torch.tensor([judge(t, seed) for seed in range(40)]) for t in tables}
for table, found in results.items():
    print(f"{table}, 40 splits")
    for column, name in enumerate(names):
        mean, half = mean_and_ci95(found[:, column])
        gap, gap_half = mean_and_ci95(found[:, 0] - found[:, column])
        paired = f"PFN minus this {gap:+.1%} ± {gap_half:.1%}" if column else ""
        print(f"  {name:20s} {mean:.1%} ± {half:.1%}   {paired}")

# %% tags=["draws"]
figure, axes = new(8, 2.8)
for column, name in enumerate(names):
    pairs = [mean_and_ci95(found[:, column]) for found in results.values()]
    means, halves = zip(*pairs)
    style = slot_style(column) | {"linestyle": ""}
    at = [place + 0.12 * (column - 1.5) for place in range(3)]
    axes.errorbar(at, means, yerr=halves, capsize=3, label=name, **style)
axes.set(xticks=range(3), xticklabels=list(results), ylabel="accuracy")
axes.legend(fontsize=8)
show(
    figure,
    "Accuracy of four rules on iris, wine and digits, with 95 % intervals; the printed "
    "lines give the same numbers.",
)

# %% [markdown]
# A network that has never seen a real table classifies flowers, wines and digits far above chance, by one pass through frozen weights. The paired lines are sober: it lies ahead of the nearest row on wine, behind all three rules on iris, and behind logistic regression and the nearest mean on digits. On every table some plain rule does as well.

# %% [markdown]
# We do not know why. Its prior may be too poor, or its training too short: after 1,500 steps in place of 5,000 (one run, not shown) iris was lower by about 5 points, digits the same.
#
# The intervals cover the choice of rows, not of data sets: a claim about "tables" needs many more than three.

# %% [markdown]
# **Where language models stand.** A [language model](../lessons/GLOSSARY.md#language-model "语言模型") that reads three examples in its prompt also learns in context, and the same mechanism is possible in it. But nobody designed its tasks, and the order of the examples in the prompt matters. Whether it runs something like gradient descent inside is an open question: this lesson shows that a layer *can*, not that theirs *do*.

# %% [markdown]
# ## Explore
#
# Guess first, then run the cell.
#
# 1. The readers saw at most 20 examples. How do they do with 40 or 80?
# 2. They saw noise of 1. What if there is none?
# 3. And what if the noise is 3?

# %%
print("examples, noise   least squares   ridge(1)   reader")
for shots, noise in ((20, 1.0), (40, 1.0), (80, 1.0), (12, 0.0), (12, 3.0)):
    row = [float(errors(r, shots, noise).mean()) for r in (least_squares, ridge)]
    row.append(float(errors(readers[0], shots, noise).mean()))
    print(f"{shots:6d} {noise:9.1f}  {row[0]:11.3f} {row[1]:12.3f} {row[2]:9.3f}")

# %% [markdown]
# <details><summary>Answers</summary>
#
# 1: the error of least squares goes on falling, about as fast as one over the number of examples. The reader's also falls, but it stays above: four steps trained for at most 20 examples leave a remainder.
# 2: least squares is then exact. The reader is not, and neither is ridge with penalty 1: both expect noise and hold back. Four layers are a second reason: two readers that we trained without noise erred by about 0.06 here, much less but not 0 (a third one leapt).
# 3: now the prior expects too little noise. Reader and ridge still do better than least squares, which trusts every number.
#
# </details>
#
# ## Bug hunt
#
# The symptom: a team reads five queries at a time and reports an accuracy. In the app, users ask one query at a time, and some answers differ from those in the report, with the same weights and the same support. Look at the code before you read on.

# %%
net = shipped


@torch.no_grad()
def read(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """Support [S, D], codes [S, C], queries [M, D] -> answers [M, C]."""
    shots, queries = len(support), len(query)
    told = torch.cat([targets, targets.new_zeros(queries, net.codes)])
    rows = net.read_x(net.norm(torch.cat([support, query])))
    rows = torch.cat([rows, told], dim=1)
    mask = torch.ones(shots + queries, shots + queries, dtype=torch.bool)
    for block in net.blocks:
        rows = block(rows, mask)
    return net.answer(rows[shots:])  # for classes `read_y` does nothing: left out


# %%
one = task[0]
codes = package.draw_codes(5, net.codes, seed=0).float()
told, asked = codes[one.support_y], one.query_x[:5]
together = read(one.support_x, told, asked)
alone = torch.cat([read(one.support_x, told, q[None]) for q in asked])
print(f"largest difference of an answer: {(together - alone).abs().max():.2f}")

# %% [markdown]
# ### Exercise 13.4  Bug hunt: do queries read queries?  (difficulty 3/5, 8 min)
#
# Write the test that rings. `read(support, targets, query)` returns answers `[M, o]`. Return `True` when the answer to *any* query depends on the other queries: on which they are, or on how many. The dependence may be small, and it may reach one number of one answer only. Differences below 1e-5 are rounding, also in an answer near 0.
#
# | `read` | `support` | `targets` | `query` | returned |
# |---|---|---|---|---|
# | function | `[S, D]` | `[S, o]` | `[M, D]` | bool |


# %%
def exposes_leak(read, support: Tensor, targets: Tensor, query: Tensor) -> bool:
    """True when some query's answer depends on the other queries."""
    # BEGIN SOLUTION
    everyone = read(support, targets, query)
    by_itself = [read(support, targets, query[j : j + 1]) for j in range(len(query))]
    return not torch.allclose(everyone, torch.cat(by_itself), rtol=1e-4, atol=1e-5)
    # END SOLUTION


exposes_leak = check("13.4", exposes_leak)
print("the team's reader leaks:", exposes_leak(read, one.support_x, told, asked))

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# The mask is all ones. Queries read queries, and support rows read queries as well, so a query hears of the others in two ways. Nothing crashes.
#
# </details>
#
# A real project had the question on its desk: TabPFN's pull request 775 (February 2026, "Automatic Batching option in predict() functions") proposed a switch, because test rows may attend to each other within a batch, so that predictions vary with the batch size.
#
# Here the cure is the mask of exercise 13.1: one line.


# %%
@torch.no_grad()
def cured(support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
    """As above, with the mask of exercise 13.1."""
    shots, queries = len(support), len(query)
    told = torch.cat([targets, targets.new_zeros(queries, net.codes)])
    rows = net.read_x(net.norm(torch.cat([support, query])))
    rows = torch.cat([rows, told], dim=1)
    for block in net.blocks:
        rows = block(rows, context_mask(shots, queries))
    return net.answer(rows[shots:])


assert exposes_leak(read, one.support_x, told, asked)
assert not exposes_leak(cured, one.support_x, told, asked)
packaged = shipped.read(one.support_x, told, asked)
assert torch.allclose(cured(one.support_x, told, asked), packaged, atol=1e-4)
print("cured: each query is answered alone, and as in the package")

# %% [markdown]
# ## Quiz
#
# **1. What changes in an in-context learner while it reads a new task?**
# (a) its weights, (b) the rows inside it, (c) nothing
#
# <details><summary>Answer</summary>
#
# (b). Every layer adds to the rows. Against (a): the weights are frozen. Against (c): without a change of rows all tasks would get the same answer.
#
# </details>
#
# **2. Which part of usual attention is missing in linear attention?**
# (a) the inner product, (b) the softmax, (c) the values
#
# <details><summary>Answer</summary>
#
# (b). Scores multiply the values as they are. Inner products (a) and values (c), here the targets, are both there.
#
# </details>
#
# **3. Why are label codes drawn anew in every training episode?**
# (a) so that nothing can be learned about a slot, (b) to save memory, (c) because codes must be orthogonal
#
# <details><summary>Answer</summary>
#
# (a). A fixed code for slot 0 could collect knowledge about slot 0. (b) Drawing costs memory instead. (c) Random codes are only nearly orthogonal, and that suffices.
#
# </details>

# %% [markdown]
# **4. The reader beats least squares at 8 examples. What explains it?**
# (a) it has more weights, (b) a prior learned from other functions, (c) it was trained on the test functions
#
# <details><summary>Answer</summary>
#
# (b). Ridge, which is told the prior, does at least as well. Against (a): ridge has no trained weight at all. Against (c): test functions come from another seed.
#
# </details>
#
# **5. A PFN is tested on iris. Which of its weights were trained on iris?**
# (a) all, (b) the last layer, (c) none
#
# <details><summary>Answer</summary>
#
# (c). All weights come from made-up tables, so neither (a) nor (b): iris is only read.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | idea | rows (input, answer) go in; the query's row comes out with an answer; no weight moves |
# | why | one layer of linear attention is one gradient step, exactly |
# | lines | 200 trained weights come close to ridge, which knows the prior |
# | classes | random codes; who gets which follows from the support |
# | vanishing rows | ridge on the same points, the nearest mean on the same embeddings |
# | looks back | attention of [04](../notebooks/04_matching.ipynb), with learned values; a step of [07](../notebooks/07_inner_loop.ipynb), as a layer; ridge of [12](../notebooks/12_mapping.ipynb), as the row to beat |
#
# Pitfalls: a mask through which queries read each other; an answer that depends on the order of the support; a claim beyond the prior; a constant column (13.5 ★). [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Garg et al. (2022), *What Can Transformers Learn In-Context?* | linear functions in context |
# | von Oswald et al. (2023), *Transformers Learn In-Context by Gradient Descent* | proposition 1: one layer, one step |
# | Müller et al. (2022), *Transformers Can Do Bayesian Inference* | the prior-data fitted network |
# | PriorLabs/TabPFN, pull request 775 (2026) | a switch for test rows that read each other |
# | Fifty et al. (2024), *Context-Aware Meta-Learning* | fixed label codes on a frozen encoder |

# %% [markdown]
# ### Exercise 13.5 ★  Columns, standardised by the support  (difficulty 3/5, 7 min)
#
# The symptom, from nanoTabPFN's public code: columns are divided by their standard deviation plus 1e-20. A column that is constant in the support then turns a query that differs there into a gigantic number. The next line of that code clips to ±100, so the net reads 100, from a column that says nothing.
#
# Return `rows` with the support's column means subtracted, divided by the support's standard deviations (with $S$ in the denominator, `correction=0`). Where a deviation is below 1e-6, the column becomes 0, whatever the rows hold.
#
# | `support` | `rows` | returned |
# |---|---|---|
# | `[S, d]` | `[R, d]` | `[R, d]` |


# %%
def standardise(support: Tensor, rows: Tensor) -> Tensor:
    """Columns by mean and deviation of the support. [S, d], [R, d] -> [R, d]."""
    # BEGIN SOLUTION
    mean, spread = support.mean(0), support.std(0, correction=0)
    known = spread >= 1e-6  # columns that vary in the support
    return torch.where(known, (rows - mean) / spread.clamp_min(1e-6), 0.0)
    # END SOLUTION


standardise = check("13.5", standardise)
seen = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
strange = torch.tensor([[4.0, 8.0]])
tiny = (strange - seen.mean(0)) / (seen.std(0, correction=0) + 1e-20)
print("with 1e-20:", tiny.tolist())
print("yours:     ", standardise(seen, strange).tolist())
progress("13")
