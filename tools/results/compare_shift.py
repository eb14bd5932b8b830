"""Compares what is left of each method on other domains than the one it was trained on, for lesson 23.

    FSL_DATA=FOLDER OMP_NUM_THREADS=1 python -m tools.results.compare_shift

Writes data/shift_comparison.json. Every shipped method of Glyphs meets the same episodes of five domains: letters of Glyphs,
Omniglot (where FSL_DATA names its folder), icons, scikit-learn's digits, and coloured things of `tools.data.draw_things`, a
stand-in for pictures of your own. Rows about statistics and normalisation use unlabelled pictures that are in no episode. Rows
that are fitted to each task are measured on three of the domains and keep their right answers after several numbers of steps;
adapters meet two encoders, and two more rates. `shift_heads` adds rows with fitted heads, with means or variances alone, and
with a matrix behind three encoders. Three rows are trained here, with three seeds: on letters, on icons, and on both. It takes
an hour on a quiet machine; called again, it goes on with the rows that are missing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fsl_course import EpisodeSampler, evaluate, load_folder, load_glyphs, load_icons, load_omniglot, pretrained
from fsl_course.data import ImageSet
from fsl_course.episodes import Episode
from fsl_course.evaluation import embed_all
from fsl_course.methods.adapters import Adapters, with_statistics
from fsl_course.methods.base import FewShotLearner, class_means
from fsl_course.methods.baselines import PixelNearestNeighbour, random_conv4
from fsl_course.methods.prototypical import PrototypicalNetwork, cosine_similarities
from fsl_course.methods.transfer import FineTuneAll
from fsl_course.nets import conv4
from tools.data.draw_things import write as draw_things
from tools.results.rows import kept, write
from tools.results.shift_heads import BEHIND, HEADS, SMALL, behind, encoder_of, heads, with_part

OUT = Path(__file__).resolve().parents[2] / "data" / "shift_comparison.json"
SHIPPED = (
    "transfer", "siamese", "matching", "prototypical", "relation", "ridge", "hypernetwork", "soft_kmeans", "in_context",
    "unsupervised", "label_propagation", "maml", "graph",
)  # fmt: skip
STEPS = (0, 5, 10, 20)  # after which a fitted row is judged
NEAR_AND_FAR = ("letters", "icons", "digits")  # the domains of the fitted rows, which cost most
RATES = {"residual": 0.003, "film": 0.05, "all weights, new head": 1e-3}  # of Adam, in the fitted rows
FACTORS = {"rate / 3": 1 / 3, "rate x 3": 3.0}  # how much adapters depend on their rate
FITTED = (*RATES, *(f"{kind}, {what}" for kind in ("residual", "film") for what in ("transfer", *FACTORS)))
TRAINED = {"letters": ("glyphs",), "icons": ("icons",), "letters and icons": ("glyphs", "icons")}
N_QUERY = 5


class Domain(NamedTuple):
    """A domain: the classes that episodes are drawn from, and unlabelled pictures [B, 1, 28, 28] in 0..1 that are in none."""

    source: ImageSet
    others: Tensor


def _others(images: ImageSet, count: int = 200) -> Tensor:
    """Draws real pictures of a set without their labels, in 0..1."""
    real = images.images[torch.arange(images.images.shape[1]) < images.counts[:, None]]
    return real[torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:count]].float() / 255


def digits() -> Domain:
    """Makes scikit-learn's 8x8 digits, 28 x 28 pixels; the first 20 of each class are in no episode."""
    found = load_digits()
    rows = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    rows = (F.interpolate(rows, size=28, mode="bilinear") * 255).round().to(torch.uint8)
    parts = [rows[torch.from_numpy(found.target) == k] for k in range(10)]
    left = torch.nn.utils.rnn.pad_sequence([part[20:] for part in parts], batch_first=True)
    counts = torch.tensor([len(part) - 20 for part in parts])
    source = ImageSet(left, counts, [str(k) for k in range(10)], ["digits"] * 10, name="digits")
    return Domain(source, torch.cat([part[:20] for part in parts]).float() / 255)


def domains() -> Iterator[tuple[str, Domain]]:
    """Yields the domains by name; Omniglot only where FSL_DATA is set."""
    for name, images in (("letters", load_glyphs()), ("icons", load_icons())):
        yield name, Domain(images.split("test"), _others(images.split("train")))
    yield "digits", digits()
    with tempfile.TemporaryDirectory() as folder:
        draw_things(Path(folder) / "things", classes=36, pictures=20, size=64, seed=0)
        things = load_folder(Path(folder) / "things")
    yield "things", Domain(things.select(range(16, 36)), _others(things.select(range(16))))
    if os.environ.get("FSL_DATA"):
        omniglot = load_omniglot(protocol="alphabets")
        yield "omniglot", Domain(omniglot.split("test"), _others(omniglot.split("train")))


class Normalised(FewShotLearner):
    """The nearest class mean of embeddings that are centred by a mean [D] and scaled to unit length, as in SimpleShot."""

    def __init__(self, learner: FewShotLearner, mean: Tensor) -> None:
        super().__init__()
        self.learner, self.mean = learner, mean

    def embed(self, x: Tensor) -> Tensor:
        """Pictures [B, c, H, W] -> rows of unit length [B, D]."""
        return F.normalize(self.learner.embed(x) - self.mean, dim=-1)

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> logits [..., M, n_way]."""
        return cosine_similarities(query, class_means(support, labels, n_way))


class FromSupport(FewShotLearner):
    """A prototypical network whose batch norms take the statistics of the task's support, or of its queries, too."""

    def __init__(self, encoder: nn.Module, queries: bool) -> None:
        super().__init__()
        self.encoder, self.transductive = encoder, queries

    def forward(self, episode: Episode) -> Tensor:
        """One task -> logits [N*Q, N]."""
        seen = torch.cat([episode.support_x, episode.query_x]) if self.transductive else episode.support_x
        return PrototypicalNetwork(with_statistics(self.encoder, seen)).eval()(episode)


def at_steps(label: str) -> Callable[[Episode, Tensor], list[Tensor]]:
    """Returns a function (task, its support rows to fit on) -> the answers [M] after each number of STEPS."""
    if label == "all weights, new head":
        net: Any = FineTuneAll(encoder_of("transfer"), STEPS[-1], RATES[label])
        return lambda e: [
            net.predict(p, e.query_x).argmax(1) for p in _some(net.adapt(e.support_x, e.support_y, e.n_way))
        ]
    kind, _, what = label.partition(", ")
    name = "transfer" if what == "transfer" else "prototypical"
    net = Adapters(encoder_of(name), kind, RATES[kind] * FACTORS.get(what, 1.0), STEPS[-1])
    return lambda e: [net.predict(p, e).argmax(1) for p in _some(net.adapt(e.support_x, e.support_y, e.n_way))]


def _some(states: Iterator[Any]) -> Iterator[Any]:
    return (state for step, state in enumerate(states) if step in STEPS)


@torch.no_grad()
def fitted(label: str, sampler: EpisodeSampler, episodes: int) -> dict[str, Any]:
    """Counts the right answers of a row that is fitted to each task, by number of steps."""
    answers = at_steps(label)
    found = [[int((a == e.query_y).sum()) for a in answers(e)] for e in sampler.batch(0, episodes)]
    return {"steps": STEPS, "correct": list(zip(*found, strict=True))}


def train(label: str, seed: int, steps: int) -> PrototypicalNetwork:
    """Trains a small prototypical network on the training classes of one domain, or of two in turns."""
    torch.manual_seed(seed)
    learner = PrototypicalNetwork(conv4(32))
    sources = {"glyphs": load_glyphs, "icons": load_icons}
    samplers = [EpisodeSampler(sources[name]().split("train"), 10, 1, 5, seed=seed) for name in TRAINED[label]]
    optimiser = torch.optim.Adam(learner.parameters(), 1e-3)
    for step in range(steps):
        loss = learner.training_step(samplers[step % len(samplers)].batch(step, 1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return learner.eval()


def learner_of(label: str, seed: int, way: int, shot: int, domain: Domain, steps: int) -> FewShotLearner:
    """Makes the learner of a row that is not fitted step by step."""
    if label in TRAINED:
        return trained(label, seed, steps)
    if label.startswith("pixels"):
        return PixelNearestNeighbour("cosine")
    if label == "random":
        return random_conv4(seed)
    if label.startswith("statistics"):
        encoder = pretrained("prototypical", "glyphs").eval().encoder
        if label.endswith("domain"):
            return PrototypicalNetwork(with_statistics(encoder, domain.others)).eval()
        return FromSupport(encoder, label.endswith("queries"))
    if label.startswith("normalised"):
        net = pretrained("prototypical", "glyphs").eval()
        home = _others(load_glyphs().split("train"), 2000)
        mean = {"length": torch.zeros(64), "letters": mean_of(net, home), "domain": mean_of(net, domain.others)}
        return Normalised(net, mean[label.rsplit(maxsplit=1)[-1]])
    if label == "simple_shot":
        net = pretrained("transfer", "glyphs").eval()
        return Normalised(net, mean_of(net, _others(load_glyphs().split("train"), 2000)))
    needs = label in ("maml", "graph")
    return pretrained(label, "glyphs", way, shot) if needs else pretrained(label, "glyphs")


def mean_of(learner: FewShotLearner, pictures: Tensor) -> Tensor:
    """Returns the mean embedding [D] of pictures in 0..1."""
    return embed_all(learner, (pictures * 255).round().to(torch.uint8)).mean(0)


@cache
def trained(label: str, seed: int, steps: int) -> PrototypicalNetwork:
    """Trains a row of TRAINED, once for all domains."""
    return train(label, seed, steps)


def changed(label: str, seed: int, domain: Domain, steps: int) -> nn.Module:
    """Makes the frozen encoder of a row of HEADS or SMALL, with a part of the domain's statistics where the label says so."""
    what = label.partition(", ")[2]
    if label in SMALL:
        encoder = trained("letters", seed, steps).encoder
    else:
        encoder = encoder_of("prototypical" if what.endswith("domain") else what)
    return with_part(encoder, domain.others, what.split()[0]) if what.endswith("domain") else encoder


def row(label: str, seed: int, name: str, domain: Domain, options: argparse.Namespace) -> dict[str, Any]:
    """Measures one row on one domain, with 1 and 5 shots."""
    results = []
    for shot in (1, 5):
        sampler = EpisodeSampler(domain.source, 5, shot, N_QUERY, seed=7)
        if label in FITTED:
            results.append({"shot": shot} | fitted(label, sampler, options.fitted))
            continue
        if label in (*HEADS, *SMALL):
            net = changed(label, seed, domain, options.steps)
            results.append(heads(net, domain.source, shot, options.episodes, N_QUERY, vote=label in HEADS[:3]))
            continue
        if label in BEHIND:
            name_of = label.partition(", ")[2]
            results.append(behind(name_of, domain.source, shot, options.fitted, N_QUERY, STEPS))
            continue
        found = evaluate(learner_of(label, seed, 5, shot, domain, options.steps), sampler, options.episodes)
        results.append({"shot": shot, "correct": (found.per_episode * 5 * N_QUERY).round().int().tolist()})
    return {"label": label, "seed": seed, "domain": name, "results": results}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=80, help="test episodes of a row (80)")
    parser.add_argument("--fitted", type=int, default=60, help="of rows that are fitted to each task (60)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of trained rows (3)")
    parser.add_argument("--steps", type=int, default=200, help="training steps of trained rows (200)")
    parser.add_argument("--only", nargs="*", default=[], help="labels to measure (all)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    made = f"--episodes {options.episodes} --fitted {options.fitted} --seeds {options.seeds} --steps {options.steps}"
    head = {
        "command": f"FSL_DATA=FOLDER OMP_NUM_THREADS=1 python -m tools.results.compare_shift {made}",
        "protocol": f"5 ways, {N_QUERY} queries a class, the same episodes in every row; `correct` counts right queries",
        "episodes": options.episodes,
        "fitted": options.fitted,
        "train": options.steps,
    }
    rows = kept(options.out, head, same=("episodes", "fitted", "train"))
    more = [*(f"statistics of the {s}" for s in ("support", "domain", "queries"))]
    more += [f"normalised by {m}" for m in ("length", "letters", "domain")]
    labels = [*FITTED, *more, *TRAINED, "pixels", "random", *SHIPPED, "simple_shot", *HEADS, *BEHIND, *SMALL]
    there = {(r["label"], r["seed"], r["domain"]) for r in rows}
    worlds = dict(domains())
    for label, name in product(labels, worlds):
        if label in (*FITTED, *HEADS, *BEHIND, *SMALL) and name not in NEAR_AND_FAR:
            continue
        for seed in range(options.seeds if label in (*TRAINED, *SMALL) else 1):
            if (label, seed, name) not in there and (not options.only or label in options.only):
                rows.append(row(label, seed, name, worlds[name], options))
                write(options.out, head, rows)
                print(label, seed, name, *map(_told, rows[-1]["results"]), flush=True)
    return 0


def _told(result: dict[str, Any]) -> str:
    columns = result["correct"] if "steps" in result else [result["correct"]]
    return " ".join(f"{sum(c) / (len(c) * 5 * N_QUERY):.1%}" for c in columns)


if __name__ == "__main__":
    raise SystemExit(main())
