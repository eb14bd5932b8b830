# %% [markdown]
# # 16 Hallucination: examples that nobody drew
#
# One drawing of a letter is little. You make up more of them: by bending the drawing, by two networks that draw, and by borrowing the spread of other letters. Then you ask which of these made-up examples are worth anything.
#
# Prerequisites: lessons 02 and 05. Planned time: 60 minutes.
#
# - [Open on Binder]({{binder}}) · [Open on Colab]({{colab}})
# - [Solution]({{solution}})
# - [Next lesson]({{next}})

# %% [markdown]
# ## Recall
#
# **1.** Why does the prototype of one picture err more than that of five?
#
# <details><summary>Answer</summary>
#
# It is a mean. The squared error of a mean of K independent pictures is that of one picture, divided by K (lesson 05).
#
# </details>
#
# **2.** Why do two methods have to meet the same episodes?
#
# <details><summary>Answer</summary>
#
# Episodes differ more than methods do. On the same episodes their luck cancels in the paired difference (lesson 01).
#
# </details>
#
# ## Objectives
#
# After this lesson you can
#
# 1. **compute** the KL term of a variational autoencoder in nats (exercise 16.1),
# 2. **measure** whether a network draws one picture again and again (exercise 16.2),
# 3. **borrow** a Gaussian for a class seen once (exercise 16.3),
# 4. **expose** a covariance that is widened in the wrong place (exercise 16.4).

# %% [markdown]
# ## A puzzle: ten more examples
#
# You have one drawing of each of five new letters, and a good encoder. Now each class gets ten more examples, made in one of these ways:
#
# - **A**: the drawing is bent at random,
# - **B**: a network that has learned how drawings of *other* letters differ draws ten more,
# - **C**: ten real drawings by other hands.
#
# Write down: which of the three helps the nearest mean, which hurts it, and how near do A and B come to C?

# %%
import inspect
import json

import torch
import torch.nn.functional as F
from torch import Tensor

import fsl_course
from fsl_classroom import check, progress
from fsl_course import load_glyphs
from fsl_course.data.assets import asset, verified
from fsl_course.evaluation import embed_all, mean_and_ci95
from fsl_course.figures import new, show
from fsl_course.methods import hallucination as package
from fsl_course.methods.prototypical import squared_distances
from fsl_course.weights.checkpoints import load_file

torch.manual_seed(0)
glyphs = load_glyphs()
train, test = glyphs.split("train"), glyphs.split("test")
few = test.select(range(0, len(test), 4))  # every fourth test letter
encoder = fsl_course.pretrained("prototypical", "glyphs")

# %% [markdown]
# ## The idea in one picture
#
# A [warp](../lessons/GLOSSARY.md#warp "形变") bends the paper: at each point of a coarse net it says from where to read, and the points between follow smoothly. The letter stays the letter, or so we hope. The first column is the drawing, the others are warps of it, gentle ones above and strong ones below.


# %%
def picture(letter: int) -> Tensor:
    """The first drawing of a letter, [1, 1, 28, 28] in 0..1."""
    return few.images[letter, :1].float() / 255


generator = torch.Generator().manual_seed(1)
rows = []
for affine, elastic in ((0.06, 0.025), (0.12, 0.05)):
    for letter in (3, 40):
        flow = package.random_flow(8, generator, affine, elastic)
        bent = package.warp(picture(letter).expand(8, -1, -1, -1), flow)
        rows.append(torch.cat([picture(letter), bent]))


def sheet(rows: list[Tensor]):
    """A figure with rows of drawings [n, 1, 28, 28]; the first of each stands apart."""
    lines = []
    for row in rows:
        framed = F.pad(row[:, 0], (2, 2, 2, 2))
        framed = torch.cat([framed[:1], torch.zeros(1, 32, 32), framed[1:]])
        lines.append(framed.permute(1, 0, 2).flatten(1))
    whole = torch.cat(lines)
    figure, axes = new(whole.shape[1] / 46, whole.shape[0] / 46)
    axes.imshow(whole, cmap="gray_r", vmin=0, vmax=1)
    axes.axis("off")
    return figure


# %% tags=["draws"]
show(
    sheet(rows),
    "Four rows of letters. The first column holds real drawings; to their right stand "
    "eight warps of each, gently bent in the upper two rows and strongly in the lower.",
)

# %% [markdown]
# Gentle warps hardly leave the drawing, and strong ones sometimes stop being the letter. Somebody has to choose how strong, and that is knowledge from outside. The rest of the lesson asks where such knowledge could come from.

# %% [markdown]
# ## Why it should work
#
# Let $x$ be the [embedding](../lessons/GLOSSARY.md#embedding "嵌入") of one drawing, $c$ the true middle of its class, and $\sigma^2$ the mean of $\|x - c\|^2$. Alone, $x$ errs by $\sigma^2$. Now take two vectors $\mu_1, \mu_2$ that do not depend on $x$, and average all three:
#
# $$\mathbb{E}\,\Big\|\frac{\mu_1 + \mu_2 + x}{3} - c\Big\|^2 = \frac{\|\mu_1 + \mu_2 - 2c\|^2 + \sigma^2}{9} \tag{1}$$
#
# The cross term is gone because $x - c$ has mean zero. So the average is better whenever $\|\mu_1 + \mu_2 - 2c\|^2 < 8\sigma^2$.

# %% [markdown]
# This is the whole bargain: $\mu_1$ and $\mu_2$ lower the noise and add a bias. A warp is another case. It is made of $x$ and repeats its noise, so it can help only by what somebody knows about letters: you, who choose how to bend, or a network that saw other letters.
#
# | symbol | variable | shape |
# |---|---|---|
# | $x$, $\mu_c$, $\Sigma_c$ | `x`, `means[c]`, `covariances[c]` | `[D]`, `[D]`, `[D, D]` |
# | ref, $x$ as pictures | `reference`, `x` | `[B, 1, 28, 28]` |
# | $z$ | `z` | `[B, 16]` |
# | $m$, $\log s^2$ | `mean`, `log_variance` | `[B, 16]` |
# | $\alpha$ | `alpha` | float |

# %% [markdown]
# ## A network that draws
#
# The train scripts hold twenty drawings of each letter. So we can learn how two drawings of one letter differ, and apply that to a letter seen once. Call one drawing the reference, ref, and the other $x$. A conditional [variational autoencoder](../lessons/GLOSSARY.md#variational-autoencoder "变分自编码器") (VAE) has two halves:
#
# - the reader $q(z \mid x, \text{ref})$ sees both and says in 16 numbers, with an uncertainty, what was done to ref;
# - the drawer $p(x \mid z, \text{ref})$ draws from ref and these numbers.
#
# Our drawer turns ref and $z$ into a warp. It learns *which* bends hands make, and it cannot add a stroke.

# %% [markdown]
# How likely is $x$ given ref? That is an integral over all $z$, and its logarithm has a lower bound:
#
# $$\log p(x \mid \text{ref}) \ge \mathbb{E}_{q}\big[\log p(x \mid z, \text{ref})\big] - \mathrm{KL}\big(q(z \mid x, \text{ref}) \,\|\, \mathcal{N}(0, I)\big) \tag{2}$$
#
# A nat is the unit of information when logarithms are natural. The first term, with its sign turned round, is the reconstruction: each pixel is a coin, and the term counts, in nats, how surprising the drawing $x$ is. The second is the [KL divergence](../lessons/GLOSSARY.md#kl-divergence "KL 散度"): the nats that $z$ tells about $x$. For a Gaussian with mean $m_i$ and variance $s_i^2$ in each coordinate it is
#
# $$\mathrm{KL} = \tfrac12 \sum_i \big(m_i^2 + s_i^2 - \log s_i^2 - 1\big) \tag{3}$$

# %% [markdown]
# ## By hand
#
# A row has mean $(1, 0)$ and log variance $(0, -2)$.
#
# | coordinate | $m^2$ | $s^2$ | $-\log s^2$ | half of (the sum minus 1) |
# |---|---|---|---|---|
# | first | 1 | 1 | 0 | (1 + 1 + 0 − 1)/2 = 0.5 |
# | second | 0 | 0.135 | 2 | (0 + 0.135 + 2 − 1)/2 = 0.568 |
#
# Together they cost 1.068 nats. The first coordinate pays because its mean is not 0, the second because it is narrow. A row with mean 0 and variance 1 costs nothing, and it tells nothing.

# %% [markdown]
# ### Exercise 16.1  The KL term  (difficulty 1/5, 5 min)
#
# Return equation (3) for every row.
#
# | `mean` | `log_variance` | returned |
# |---|---|---|
# | `[B, Z]` | `[B, Z]`, the natural logarithm of the variance | `[B]`, nats |


# %%
def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) of every row. [B, Z] twice -> [B]."""
    # BEGIN SOLUTION
    variance = log_variance.exp()
    return 0.5 * (mean.square() + variance - log_variance - 1).sum(1)
    # END SOLUTION


kl = check("16.1", kl)

# %%
# 1. The paper, and a loop over the entries.
paper = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, -2.0]])
print(f"on paper: {float(kl(*paper)):.3f} nats")
mean, log_variance = torch.randn(2, 5, 3, dtype=torch.float64)
loop = torch.zeros(5, dtype=torch.float64)
for b in range(5):
    for i in range(3):
        m, s2 = mean[b, i], log_variance[b, i].exp()
        loop[b] += (m**2 + s2 - s2.log() - 1) / 2
assert torch.allclose(kl(mean, log_variance).double(), loop, atol=1e-5)
# 2. The definition: the mean of log q - log p over draws from q.
q = torch.distributions.Normal(mean, (log_variance / 2).exp())
z = q.sample((100_000,))
drawn = q.log_prob(z) - torch.distributions.Normal(0.0, 1.0).log_prob(z)
assert torch.allclose(drawn.sum(2).mean(0), loop, rtol=0.05)
# 3. The gradient, and the package.
pair = [t.requires_grad_() for t in (mean, log_variance)]
assert torch.autograd.gradcheck(kl, pair, eps=1e-2, atol=1e-2)
assert torch.allclose(package.kl_to_prior(mean, log_variance), loop)
print("loop, 100,000 draws, gradient and package agree")

# %% [markdown]
# ## Meet the package, and train for real
#
# `DrawingVAE` holds both halves. Its method `terms` returns the two parts of equation (2). The chances of the coins are a blurred copy of the drawing, and how much to blur is learned.
#
# You train it for 100 steps on pairs of training letters. There is no chance level here; compare with a KL of 0, where $z$ is not used.

# %%
print(inspect.getsource(package.DrawingVAE.terms))


def pairs(images: Tensor, count: int, generator) -> tuple[Tensor, Tensor]:
    """Two different drawings of each of `count` random letters, in 0..1."""
    letter = torch.randint(len(images), (count,), generator=generator)
    first = torch.randint(20, (count,), generator=generator)
    second = (first + torch.randint(1, 20, (count,), generator=generator)) % 20
    return images[letter, first].float() / 255, images[letter, second].float() / 255


def bound(vae, x: Tensor, reference: Tensor, generator) -> tuple[Tensor, Tensor]:
    """Reconstruction and KL, means over the batch, in nats."""
    noise = torch.randn(len(x), vae.drawer.latent, generator=generator)
    return tuple(part.mean() for part in vae.terms(x, reference, noise))


torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)
vae = package.DrawingVAE()
optimiser = torch.optim.Adam(vae.parameters(), 3e-3)
for step in range(1, 101):
    coins, nats = bound(vae, *pairs(train.images, 32, generator), generator)
    optimiser.zero_grad()
    (coins + nats).backward()
    optimiser.step()
    if step % 20 == 0:
        print(
            f"step {step:3d}: reconstruction {coins.item():5.0f}, KL {nats.item():5.2f}"
        )

# %% [markdown]
# The reconstruction goes up and down from one step to the next, because every step sees other letters. The KL grows: the drawer begins to use $z$. That costs nats; training pays them only where it saves more in the reconstruction.
#
# A hundred steps are too few. The course ships a VAE that `python -m tools.results.train_hallucination vae` trained for a thousand.


# %%
def stored(name: str):
    """A shipped network: "vae", a DrawingVAE, or "gan", a Drawer."""
    net = package.DrawingVAE() if name == "vae" else package.Drawer()
    path = verified(f"checkpoints/hallucination-glyphs-{name}.safetensors")
    net.load_state_dict(load_file(path)[0])
    return net.eval()


shipped = stored("vae")
generator = torch.Generator().manual_seed(3)
unseen = pairs(few.images, 500, generator)
with torch.no_grad():
    for name, net, training in (
        ("100 steps", vae, False),
        ("shipped", shipped, False),
        ("100 steps, batch norm as in training", vae, True),
    ):
        coins, nats = bound(net.train(training), *unseen, generator)
        print(f"{name:37s} unseen letters: {coins:.0f} + {nats:.1f} nats")
letters = (3, 12, 31, 40, 55, 70, 88)
with torch.no_grad():
    rows = [
        torch.cat([picture(k), shipped.drawer.draw(picture(k), 9, generator)[0]])
        for k in letters
    ]

# %% tags=["draws"]
show(
    sheet(rows),
    "Seven letters of unseen scripts in the first column, and nine drawings by the VAE "
    "to the right of each. They differ in size, slant and proportion, and nearly all "
    "can be read as the same letter; a few are smeared.",
)

# %% [markdown]
# The shipped VAE needs fewer nats in all. Why 5.9 here for your net, after 3.47 at step 100? The last line shows most of it: in `eval` mode, batch norm uses running means, not those of the batch.
#
# Nobody drew the letters on the sheet. They differ in size, slant and proportion, as real drawings do, and most can be read. A few are smeared where the net folds over itself. And each has exactly the strokes of its reference.

# %% [markdown]
# ## The same drawer as a GAN
#
# A [generative adversarial network](../lessons/GLOSSARY.md#gan "生成对抗网络") (GAN) needs no likelihood. A critic $C$ sees a picture and ref, and says whether the picture is real or drawn. The drawer $G$ learns to fool it. We keep the drawer and change what trains it. In turns, two losses of Goodfellow et al. (2014) are lowered, with $\mathrm{sp}(u) = \log(1 + e^u)$:
#
# $$L_C = \mathrm{sp}\big(-C(x, \text{ref})\big) + \mathrm{sp}\big(C(G(\text{ref}, z), \text{ref})\big), \qquad L_G = \mathrm{sp}\big(-C(G(\text{ref}, z), \text{ref})\big)$$

# %% [markdown]
# In theory the best drawer has all the variety of the data. On the way there nothing enforces it: the critic looks at one drawing at a time, and the same convincing drawing fools it for now. If that happens, it is called [mode collapse](../lessons/GLOSSARY.md#mode-collapse "模式崩溃").

# %% tags=["draws"]
forger = stored("gan")
with torch.no_grad():
    rows = [
        torch.cat([picture(k), forger.draw(picture(k), 9, generator)[0]])
        for k in letters
    ]
show(
    sheet(rows),
    "The same seven letters, and nine drawings by the GAN to the right of each. The "
    "nine drawings of a row are all but identical.",
)

# %% [markdown]
# Nine draws of $z$, and the same drawing nine times. The eye sees it here; a number must see it in a log.
#
# ### Exercise 16.2  How varied?  (difficulty 2/5, 6 min)
#
# Return for every letter the mean distance (plain, not squared) of two *different* drawings of it. Two drawings may be equal: they are a pair, with distance 0.
#
# On paper: three drawings at (0, 0), (3, 4) and (0, 0). The pairs have distances 5, 0 and 5, and their mean is 10/3.
#
# | `embeddings` | returned |
# |---|---|
# | `[L, n, D]`: n drawings of each of L letters | `[L]` |


# %%
def spread(embeddings: Tensor) -> Tensor:
    """Mean distance of two different drawings of each letter. [L, n, D] -> [L]."""
    # BEGIN SOLUTION
    n = embeddings.shape[1]
    apart = (embeddings[:, :, None] - embeddings[:, None]).norm(dim=-1)
    return apart.sum((1, 2)) / (n * (n - 1))
    # END SOLUTION


spread = check("16.2", spread)

# %% [markdown]
# Variety alone is easy: a scribble has it. So a second number stands beside it: the share of drawings that are *named right*. The middle of a letter is the mean embedding of ten other real drawings, and its own must be the nearest of all 102.
#
# Then we average the one drawing with five made-up ones, as a prototype would, and ask: how far is this mean from its middle (*error*), and how far apart are the means of two letters (*gap*, also squared)? A classifier needs a small error beside a large gap.


# %%
def embed(drawings: Tensor) -> Tensor:
    """Embeds drawings [L, n, 1, 28, 28] in 0..1 -> [L, n, D]."""
    pixels = (drawings.flatten(0, 1) * 255).round().to(torch.uint8)
    return embed_all(encoder, pixels).unflatten(0, drawings.shape[:2])


real = embed(few.images.float() / 255)  # [L, 20, D]
base = embed(train.select(range(0, len(train), 8)).images.float() / 255)
middles = real[:, 10:].mean(1)
references = few.images[:, 0].float() / 255


def named(made: Tensor) -> Tensor:
    """Share of embeddings [L, n, D] whose nearest middle is that of their letter."""
    nearest = squared_distances(made.flatten(0, 1), middles).argmin(1)
    return (nearest.view(made.shape[:2]) == torch.arange(len(made))[:, None]).float()


generator = torch.Generator().manual_seed(5)
many = references.repeat_interleave(5, 0)
made = {"real drawings": real[:, 1:6]}
for name, size in (("gentle warps", 0.5), ("strong warps", 1.0)):
    flow = package.random_flow(len(many), generator, 0.12 * size, 0.05 * size)
    made[name] = embed(package.warp(many, flow).unflatten(0, (-1, 5)))
with torch.no_grad():
    made["VAE"] = embed(shipped.drawer.draw(references, 5, generator))
    made["GAN"] = embed(forger.draw(references, 5, generator))
print(f"{'':15s}spread   named right   error    gap   error / gap")
for name, rows in {"none": real[:, :1], **made}.items():
    six = torch.cat([real[:, :1], rows[:, -5:]], 1).mean(1)
    far = (six - middles).square().sum(1).mean()
    gap = torch.pdist(six).square().mean()
    wide = f"{spread(rows).mean():6.2f}" if len(rows[0]) > 1 else "     -"
    told = f"{name:15s}{wide}   {named(rows).mean():11.1%}   {far:5.2f}  {gap:5.1f}"
    print(f"{told}   {far / gap:11.3f}")

# %% [markdown]
# **Collapse** is a number now: the GAN's spread is a small part of that of real drawings.

# %% [markdown]
# **The VAE** is nearly as varied as the hands that drew the letters, but far fewer of its drawings are named right, about as few as of strong warps.
#
# Now read the last three columns. Bending does bring the mean a little nearer to the middle: the error falls. But the gap falls more: by 4.5 even with real drawings, whose means lose noise, and by 6 to 9 with bent ones. The ratio therefore grows, least with gentle warps. Real drawings cut the error to a quarter and keep most of the gap.

# %% [markdown]
# ## Deltas between embeddings
#
# Why draw at all? The classifier sees embeddings only. The delta-encoder (Schwartz et al., 2018) works on these: $z = E(x, \text{ref})$ says how $x$ differs from ref, and $D(\text{ref}, z)$ adds that to any other ref. It has no KL term and no prior, so nothing says how $z$ is spread. For a new letter, $z$ is therefore taken from random *pairs of a training letter*, never from $\mathcal{N}(0, I)$. The next cells try both, with one number in $z$ and with sixteen, three times each. Predict which is best.


# %%
def base_pairs(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Embeddings of two different drawings of each of `count` training letters."""
    letter = torch.randint(len(base), (count,), generator=generator)
    a = torch.randint(20, (count,), generator=generator)
    b = (a + torch.randint(1, 20, (count,), generator=generator)) % 20
    return base[letter, a], base[letter, b]


def train_deltas(latent: int, seed: int, steps: int = 300):
    """A delta-encoder whose z has `latent` numbers, and what is left of its loss."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = package.DeltaEncoder(base.shape[2], latent)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        x, reference = base_pairs(128, generator)
        wrong = (net(reference, net.delta(x, reference)) - x).abs().sum(1).mean()
        optimiser.zero_grad()
        wrong.backward()
        optimiser.step()
    return net, wrong.item()


ref = real[:, :1].expand(-1, 5, -1)
print("squared distances; the middle: of the mean of five made-up examples")
print("z of  seed  loss   z from    named right   to middle   to ref   to x")
for latent, seed in ((1, 0), (1, 1), (1, 2), (16, 0), (16, 1), (16, 2)):
    net, loss = train_deltas(latent, seed)
    generator = torch.Generator().manual_seed(6 + seed)
    x, other = (t.unflatten(0, (-1, 5)) for t in base_pairs(5 * len(few), generator))
    with torch.no_grad():
        z = net.delta(x, other)
        noise = torch.randn(z.shape, generator=generator)
        for name, code in (("pairs", z), ("N(0, I)", noise)):
            rows = net(ref, code)
            far = (rows.mean(1) - middles).square().sum(1).mean()
            to_ref, to_x = ((rows - t).square().sum(2).mean() for t in (ref, x))
            told = f"{latent:4d}  {seed:4d}  {loss:4.1f}   {name:8s}"
            told += f"{named(rows).mean():13.1%}   {far:9.2f}   {to_ref:6.1f}"
            print(f"{told}   {to_x:4.1f}" if name == "pairs" else told)

# %% [markdown]
# With sixteen numbers the loss is lower, and the made-up examples are *worse*. The last two columns say why. There $x$ is the drawing of a *training* letter from which $z$ was taken. With sixteen numbers the example lies nearer to that $x$ than to ref: $D$ follows $z$ and forgets ref. With one number it stays near ref. A delta must be too small to hold the target.

# %% [markdown]
# With sixteen numbers, names are lost wherever $z$ comes from, but $\mathcal{N}(0, I)$ puts the mean still farther away. All three seeds say so. With a single number they disagree.

# %% [markdown]
# ## Borrow a Gaussian
#
# The last idea needs no network. Yang et al. (2021) say: classes that look alike spread alike. So lend a new class the mean and the [covariance](../lessons/GLOSSARY.md#covariance "协方差") of the base classes nearest to its one picture $x$, after every feature $f \ge 0$ has been replaced by $\sqrt f$, Tukey's power, which makes skewed features more like a Gaussian. Call the $k$ nearest base classes $B(x)$. Then
#
# $$\mu' = \frac{x + \sum_{c \in B(x)} \mu_c}{k + 1}, \qquad \Sigma' = \frac1k \sum_{c \in B(x)} \Sigma_c + \alpha I \tag{4}$$
#
# Now 750 examples per class are drawn from $\mathcal{N}(\mu', \Sigma')$, and a logistic regression learns from them. With $k = 2$ the mean is that of equation (1).

# %% [markdown]
# On paper: $x = (0, 0)$, base means $(3, 0)$, $(0, 6)$ and $(9, 9)$, covariances $I$, $3I$ and $9I$, $k = 2$ and $\alpha = 0.5$. The two nearest are the first two. The mean is $(3, 6)/3 = (1, 2)$, and the covariance is $2I + 0.5\,I = 2.5\,I$.
#
# ### Exercise 16.3  A borrowed Gaussian  (difficulty 2/5, 8 min)
#
# Return $\mu'$ and $\Sigma'$ of equation (4) for one picture.
#
# | `x` | `means` | `covariances` | `nearest`, `alpha` | returned |
# |---|---|---|---|---|
# | `[D]` | `[C, D]` | `[C, D, D]` | int, float | `[D]` and `[D, D]` |


# %%
def calibrate(
    x: Tensor, means: Tensor, covariances: Tensor, nearest: int, alpha: float
) -> tuple[Tensor, Tensor]:
    """Mean [D] and covariance [D, D] that base classes lend to the picture x [D]."""
    # BEGIN SOLUTION
    near = (means - x).norm(dim=1).argsort()[:nearest]
    mean = (means[near].sum(0) + x) / (nearest + 1)
    wider = alpha * torch.eye(len(x), dtype=x.dtype)
    return mean, covariances[near].mean(0) + wider
    # END SOLUTION


calibrate = check("16.3", calibrate)

# %%
rooted = package.tukey(base)
statistics = package.class_statistics(rooted)
some = package.tukey(real[:6, 0])
together = package.calibrated(some, *statistics, nearest=2, alpha=0.21)
for k in range(6):  # the package works on all pictures at once
    for whole, one in zip(together, calibrate(some[k], *statistics, 2, 0.21)):
        assert torch.allclose(whole[k], one, atol=1e-4)
print("loop and package agree")
values = torch.linalg.eigvalsh(statistics[1][0])
print(f"directions in which a base letter varies: {(values > 1e-5).sum()} of 64")
values = torch.linalg.eigvalsh(together[1])
print(f"smallest eigenvalue after alpha: {values.min():.2f}")

# %% [markdown]
# Twenty drawings vary in at most nineteen directions, so the covariance of a base class is flat in all others, and nothing can be drawn from it by a Cholesky factor. $\alpha$ on the diagonal gives every direction a variance of at least $\alpha$.
#
# Does the borrowed mean come nearer to the truth, as equation (1) hopes? Here the base classes *are* chosen by $x$, so we measure.

# %%
pictures = package.tukey(real)
truth = pictures[:, 10:].mean(1)  # ten other drawings of the same letter
x = pictures[:, 0]
lent, _ = package.calibrated(x, *statistics)
near = torch.cdist(x, statistics[0]).topk(2, largest=False).indices
bias = (statistics[0][near].sum(1) - 2 * truth).square().sum(1)
noise = (x - truth).square().sum(1)
error = (lent - truth).square().sum(1).mean()
print(f"squared distance to the truth: x {noise.mean():.2f}, lent mean {error:.2f}")
print(f"bias {bias.mean():.1f} against 8 sigma^2 = {8 * noise.mean():.1f}; ", end="")
print(f"equation (1) predicts {(bias.mean() + noise.mean()) / 9:.2f}")
for name, rows in (("x", x), ("lent means", lent)):
    apart = torch.pdist(rows).square().mean()
    print(f"squared distance of two letters, by {name}: {apart:.1f}")
for name, means in (("rooted", statistics[0]), ("not rooted", base.mean(1))):
    lenders = torch.cdist(x, means).topk(2, largest=False).indices.unique()
    print(f"base {name}: {len(lenders)} base classes lend to {len(few)} letters")

# %% [markdown]
# The bargain holds: the bias is below $8\sigma^2$, and the lent mean lies nearer to the truth than $x$. Equation (1) predicts less, because $x$ chose its lenders and the cross term is not gone.
#
# But a classifier needs more than a small error. A lent mean keeps only a third of $x$, and similar letters borrow from the same classes. So the gap fell by about a third, the error by only a sixth.
#
# The last two lines compare a variant in which $x$ is rooted and the base classes are not. Then fewer classes lend to the same letters.

# %% [markdown]
# ## Evaluate honestly
#
# The command below measured every source on the same episodes of unseen scripts, 120 at 5 ways and 30 at 20. Trained sources have three seeds. Each source adds ten examples per class (calibration: 750), and the same two classifiers judge: the nearest mean, and logistic regression.
#
# In the strokes row, new hands redraw the letter's stored pen strokes. "Copied" means that one example is added ten times.

# %%
story = json.loads(asset("hallucination_comparison.json").read_text(encoding="utf-8"))
print(story["command"])
tests = {0: "5w1s, nearest mean", 1: "5w1s, logistic", 4: "20w1s, nearest mean"}
right: dict[str, list[list[Tensor]]] = {}  # label -> seeds -> tests -> accuracies [E]
for row in story["rows"]:
    shares = [
        torch.tensor(r["correct"]).double() / (r["way"] * r["query"])
        for r in row["results"]
    ]
    right.setdefault(row["label"], []).append(shares)


def against(label: str, other: str, place: int) -> str:
    """Mean over the seeds, and the paired difference in points."""
    accuracy = torch.stack([seed[place] for seed in right[label]]).mean(0)
    rival = torch.stack([seed[place] for seed in right[other]]).mean(0)
    gap, half = mean_and_ci95(100 * (accuracy - rival))
    return f"{accuracy.mean():6.1%} {gap:+5.1f} ± {half:.1f}"


print("\naccuracy, and points more than none, with paired 95 % intervals")
print(" " * 34 + "".join(f"{name:21s}" for name in tests.values()))
for label in [label for label in right if ":" not in label]:
    told = "   ".join(against(label, "none", place) for place in tests)
    print(f"{label:34s}{told}")

# %% [markdown]
# **The puzzle.** Real drawings (C) help: two points at 5 ways, seven at 20. Bent drawings (A) and the learned drawer (B) do not: where the interval leaves out 0, both lose, and gentle warps do least harm. So A and B come nowhere near C. The column error / gap told you why.

# %% [markdown]
# **The GAN** hurts the nearest mean most. Is that because its drawings are all alike? The two rows of copies say: not by that alone. One *real* drawing, added ten times, does not hurt; one strong warp, added ten times, costs far more than ten different warps. Copies hurt if they are wrong, because they all err in the same direction and outvote the real drawing.
#
# **Deltas** with sixteen numbers hurt, too; with one number they lose about half a point.

# %% [markdown]
# **Strokes of the letter itself** do as well as real drawings. But nobody who has one drawing has its strokes. The real drawings of Glyphs were made from the same strokes, so this row is a second ceiling.

# %% [markdown]
# **Calibration** loses here, and Tukey's power alone explains most of the loss: this encoder was trained for squared distances between embeddings *without* roots. With nothing rooted, calibration loses less, but it does not gain. With alpha in every entry, the bug below, hardly anything changes.

# %% [markdown]
# ## What survives on a weaker encoder?
#
# Deltas and calibration were published for encoders that leave more to win. So the same command measured two more: a network trained to tell the training letters apart ("transfer"), and no encoder at all: raw pixels, averaged in blocks of two by two. Predict what changes.

# %%
for place, test_name in ((0, "nearest mean"), (1, "logistic")):
    print(f"5w1s, {test_name}: accuracy, and points more than none")
    for encoder_name in ("transfer", "pixels"):
        for label in [k for k in right if k.startswith(encoder_name)]:
            none = f"{encoder_name}: none"
            print(f"  {label:40s}{against(label, none, place)}")
print("calibration against Tukey alone, 5w1s: nearest mean, logistic")
for start in ("", "transfer: ", "pixels: "):
    pair = start + "calibration", start + "Tukey alone"
    told = "   ".join(against(*pair, place) for place in (0, 1))
    print(f"  {start:40s}{told}")

# %% [markdown]
# **On raw pixels everything helps.** Warps, the VAE, deltas and calibration gain between 4 and 13 points, with intervals far from 0, and calibration gains much beyond Tukey's power alone. The warps that cost the good encoder half a point give pixels twelve. Most likely warps add the knowledge that a small bend leaves a letter what it is; the encoder has learned that.

# %% [markdown]
# A gain on a weak encoder says little about a strong one or on another domain ([lesson 23](../notebooks/23_shift.ipynb)). Real drawings gain most everywhere.
#
# **The transfer network** lies between, and near the good encoder. Of all made-up examples only deltas gain there: half a point for the nearest mean, and nothing for logistic regression. The intervals of warps and of the VAE hold 0. Calibration loses about a point against Tukey's power alone.

# %% [markdown]
# On photographs a user of the public code reports (its issue 3, 2000 tasks of five ways): at one shot 68.2 % with calibration, 64.6 % with Tukey's power alone, 59.1 % with neither. At five shots: 83.5, 83.1 and 81.5 %. **More than half of the gain at one shot is Tukey's.**

# %%
print("5-way 5-shot: accuracy, and points more than none; nearest mean, logistic")
for label in [label for label in right if ":" not in label]:
    print(f"{label:34s}{against(label, 'none', 2)}   {against(label, 'none', 3)}")
print("\nseeds of the trained sources, 5-way 1-shot, points more than none (mean)")
for label, seeds in right.items():
    if len(seeds) > 1:
        none = "none" if ":" not in label else label.split(":")[0] + ": none"
        gains = [100 * (seed[0] - right[none][0][0]).mean() for seed in seeds]
        print(f"{label:34s}" + " ".join(f"{gain:+.1f}" for gain in gains))

# %% [markdown]
# At five shots there is nothing left to win on the good encoder: even real drawings gain no more than their interval. The seeds of a trained source lie close together, but for those of the GAN.
#
# **What survives?** At one shot, real drawings, everywhere. Made-up examples gain much on raw pixels, half a point on the transfer network, and nothing clear on the best encoder.

# %% [markdown]
# *What may not be claimed:* that made-up examples never help a good encoder. These are letters, and at 5 ways there are only three points to win. Our drawer can only bend. Three seeds are few.

# %% [markdown]
# ## Explore
#
# Predict the answers, then run the next cell.
#
# 1. What does a VAE draw when $z$ is three times as large as in training?
# 2. Walk in $z$ from one drawing to another: are the drawings between them letters?
# 3. Calibration with one, two or ten nearest base classes: which mean lies nearest to the truth?
#
# <details><summary>Answers</summary>
#
# 1: torn, squeezed and folded letters. The drawer was trained on codes near 0 and has not seen such ones. 2: yes, here. Size and slant change step by step, and every drawing between is one. 3: two; one is only slightly worse, and ten are worse than both.
#
# </details>

# %%
with torch.no_grad():
    rows = []
    for size in (1.0, 3.0):
        z = size * torch.randn(9, 16, generator=torch.Generator().manual_seed(2))
        far = shipped.drawer(picture(40).expand(9, -1, -1, -1), z)
        rows.append(torch.cat([picture(40), far]))
    ends = torch.randn(2, 16, generator=torch.Generator().manual_seed(4))
    steps = torch.linspace(0, 1, 9)[:, None]
    walk = (1 - steps) * ends[0] + steps * ends[1]
    between = shipped.drawer(picture(40).expand(9, -1, -1, -1), walk)
    rows.append(torch.cat([picture(40), between]))
for k in (1, 2, 10):
    lent, _ = package.calibrated(x, *statistics, nearest=k)
    error = (lent - truth).square().sum(1).mean()
    print(f"{k:2d} nearest: squared distance {error:.2f}")

# %% tags=["draws"]
show(
    sheet(rows),
    "Three rows for one letter. Ordinary codes give readable drawings; codes three "
    "times as large give torn or folded ones; a walk between two codes changes size "
    "and slant step by step.",
)

# %% [markdown]
# ## Bug hunt
#
# The symptom: a team calibrates Gaussians and draws from them. In a plot of two features of the imagined examples, any two, all points lie along the diagonal: where one feature is large, all are. No base class looks like that. The mean of the points is as it should be. Look at the code before you read on.


# %%
def widen(covariance: Tensor, alpha: float) -> Tensor:
    """A covariance [D, D] that nothing can be flat in any more."""
    return covariance + alpha


def mean_correlation(covariance: Tensor) -> float:
    """Mean correlation of two different features."""
    scale = covariance.diagonal().clamp_min(1e-6).sqrt()
    table = covariance / scale / scale[:, None]
    return float((table.sum() - table.trace()) / (len(table) * (len(table) - 1)))


plain = package.calibrated(some[:1], *statistics, alpha=0.0)[1][0]
for name, c in (("lent", plain), ("after widen", widen(plain, 0.21))):
    print(f"{name:12s} mean correlation {mean_correlation(c):.2f}")

# %% [markdown]
# ### Exercise 16.4  Bug hunt: where does alpha go?  (difficulty 3/5, 8 min)
#
# Write the test that rings. `widen(covariance, alpha)` must return the covariance with `alpha` added to its diagonal and to nothing else, but for rounding. Return `True` when it does *not*. A fault may be small, and it may touch a single entry.
#
# | `widen` | `covariance` | returned |
# |---|---|---|
# | function of `[D, D]` and a float -> `[D, D]` | `[D, D]` | bool |
#
# You choose the values of alpha that you try.


# %%
def exposes_alpha(widen, covariance: Tensor) -> bool:
    """True when widen(covariance, alpha) is not alpha added to the diagonal."""
    # BEGIN SOLUTION
    for alpha in (0.0, 0.21, 1.7):
        right_one = covariance + alpha * torch.eye(len(covariance)).to(covariance)
        if not torch.allclose(widen(covariance, alpha), right_one, 1e-4, 1e-5):
            return True
    return False
    # END SOLUTION


exposes_alpha = check("16.4", exposes_alpha)
print("the code above is broken:", exposes_alpha(widen, plain))

# %% [markdown]
# <details><summary>The bug, after you have looked for it</summary>
#
# `covariance + alpha` adds $\alpha$ to *every* entry. The published code of Yang et al. has this line. It is $\alpha$ times the matrix of ones, which adds variance $\alpha\,(\sum_i v_i)^2$ along a direction $v$ of length 1: $64\,\alpha$ where all features rise together, and none where the $v_i$ sum to 0. That matrix has rank 1, and the mean of two base covariances has rank 38 at most. So at least 25 of 64 directions stay flat, and no Cholesky factor exists. NumPy's `multivariate_normal`, which the code uses, goes by singular values and draws all the same.
#
# </details>


# %%
def cured(covariance: Tensor, alpha: float) -> Tensor:
    """alpha on the diagonal only."""
    return covariance + alpha * torch.eye(len(covariance))


assert exposes_alpha(widen, plain)
assert not exposes_alpha(cured, plain)
for name, wider in (("every entry", widen), ("diagonal", cured)):
    low = torch.linalg.eigvalsh(wider(plain, 0.21)).min()
    info = int(torch.linalg.cholesky_ex(wider(plain, 0.21)).info)
    told = "exists" if info == 0 else "does not exist"
    start = f"alpha in {name:12s} smallest eigenvalue {low.abs():5.2f}"
    print(f"{start}, Cholesky factor {told}")

# %% [markdown]
# The mean of the imagined examples is the same with and without the bug, so a nearest mean cannot notice it. A plot or an eigenvalue does.

# %% [markdown]
# ## Quiz
#
# **1. The KL term of a trained VAE is 0.01 nats. What does that say?**
# (a) it fits well, (b) $z$ is all but unused, (c) the drawings are sharp
#
# <details><summary>Answer</summary>
#
# (b). The reader's answer hardly differs from the prior, so $z$ tells nothing. Against (a): the fit is the reconstruction. Against (c): sharpness is no part of it.
#
# </details>
#
# **2. A GAN's drawings are all named right, and their spread is 0. What do they add to a prototype?**
# (a) one more example, at best, (b) as many examples as there are, (c) nothing can be said
#
# <details><summary>Answer</summary>
#
# (a). All copies are one vector. They pull the mean towards it, however many there are. Against (b): equal examples bring no new information. Against (c): the spread says it.
#
# </details>
#
# **3. Why does the delta-encoder take $z$ from pairs of training classes?**
# (a) it is faster, (b) no term of its loss shapes $z$ like a Gaussian, (c) new classes have no $z$
#
# <details><summary>Answer</summary>
#
# (b). Only a KL term makes $z$ look like $\mathcal{N}(0, I)$. Against (a): drawing noise would be faster. Against (c): a pair of a new class has one, but we hold one picture.
#
# </details>

# %% [markdown]
# **4. $x = 6$ on a line, the nearest base means are 0 and 3. Where is the calibrated mean?**
# (a) 1.5, (b) 3, (c) 3.75
#
# <details><summary>Answer</summary>
#
# (b): (6 + 0 + 3)/3. (a) leaves out $x$. (c) gives $x$ half of the weight.
#
# </details>
#
# **5. A paper reports calibration against plain features. Which row is missing?**
# (a) Tukey's power alone, (b) more samples, (c) another seed of sampling
#
# <details><summary>Answer</summary>
#
# (a). The power changes the features before anything is calibrated, so it must get its own row. (b) and (c) are worth a look, but they do not part the two ideas.
#
# </details>

# %% [markdown]
# ## Summary
#
# | remember | |
# |---|---|
# | bargain | less noise for some bias, equation (1) |
# | VAE | reconstruction and KL, both in nats |
# | GAN | the critic sees one drawing at a time: measure spread *and* names |
# | deltas | from pairs of training classes |
# | calibration | mean of $k + 1$, covariance $+ \alpha I$, on the diagonal |
# | compare with | none, Tukey alone, as many real drawings |
# | looks back | the pixels of [02](../notebooks/02_baselines.ipynb), which gain by every invention |
#
# Pitfalls: a likeness judged by eye; negative features under a root; statistics of the base classes taken from the test; a gain that Tukey's power alone would give. [Next lesson]({{next}}).
#
# ## References
#
# | source | for |
# |---|---|
# | Kingma and Welling (2014), *Auto-Encoding Variational Bayes* | the bound; appendix B: equation (3) |
# | Sohn, Lee and Yan (2015), *Learning Structured Output Representation using Deep Conditional Generative Models* | the conditional VAE |
# | Goodfellow et al. (2014), *Generative Adversarial Nets* | the game of drawer and critic |
# | Schwartz et al. (2018), *Delta-encoder* | section 3.1: deltas between embeddings |
# | Yang, Liu and Xu (2021), *Free Lunch for Few-shot Learning: Distribution Calibration* | equations 3 to 6 |

# %%
progress("16")
