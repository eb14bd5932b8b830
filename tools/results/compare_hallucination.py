"""Compares ways to make up examples on the same test episodes of Glyphs, for lesson 16.

    OMP_NUM_THREADS=1 python -m tools.results.compare_hallucination

Writes data/hallucination_comparison.json: every source adds its examples to the same support sets, and the same two readers
judge the same queries. Trained sources have three seeds. "sheet" holds how true and how varied their drawings are. A label
without a prefix is measured on embeddings of the shipped ProtoNet, "transfer: ..." on those of the shipped network that learned
to tell the training letters apart, and "pixels: ..." on raw pixels, averaged in blocks of two by two. It takes up to half an
hour; call it again after an interruption: it keeps the rows that are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor

from fsl_course import EpisodeSampler, load_glyphs, pretrained
from fsl_course.data import ImageSet
from fsl_course.data.assets import verified
from fsl_course.evaluation import embed_all
from fsl_course.methods.hallucination import (
    DeltaEncoder,
    Drawer,
    DrawingVAE,
    calibrated,
    class_statistics,
    imagine,
    random_flow,
    tukey,
    warp,
)
from fsl_course.methods.prototypical import prototypes, squared_distances
from fsl_course.weights.checkpoints import load_file
from tools.data.draw_glyphs import draw_letters
from tools.data.glyphs.letters import load_letters
from tools.results.rows import is_there, kept, write
from tools.results.train_hallucination import file_name
from tools.results.train_hallucination import main as train_hallucination

OUT = Path(__file__).resolve().parents[2] / "data" / "hallucination_comparison.json"
WEIGHTS = Path(__file__).resolve().parents[2] / "runs" / "hallucination"
TESTS = ((5, 1, 9, 10), (5, 5, 5, 2), (20, 1, 9, 10))  # ways, shots, queries, made-up examples for each support picture
IMAGINED = 750  # examples that calibration draws for each class at 5 ways
NEW_HANDS = 77  # seed of hands that drew nothing in the data set
DRAWN = ("warps", "warps, half as strong", "one warp, copied", "strokes of the letter itself", "VAE", "GAN")
REAL = ("real drawings", "one real drawing, copied")
SEEDED = ("VAE", "GAN", "deltas, z of 1", "deltas, z of 16")
EVERY_ENTRY = "calibration, alpha in every entry"  # the slip of the bug hunt
CALIBRATIONS = {  # Tukey's power of the task's embeddings, and of the base classes
    "calibration": (0.5, 0.5),
    "calibration, base not rooted": (0.5, 1.0),
    "calibration, nothing rooted": (1.0, 1.0),
    EVERY_ENTRY: (0.5, 0.5),
}


class World:
    """What every source shares: letters and their embeddings.

    encoder: method of the shipped weights, or "pixels"; weights: folder of the drawers.
    """

    def __init__(self, encoder: str, episodes: int, weights: Path, source: ImageSet | None = None) -> None:
        self.weights = weights
        self.glyphs = load_glyphs() if source is None else source
        self.learner, self.episodes = None if encoder == "pixels" else pretrained(encoder, "glyphs"), episodes
        self.test, self.train = self.glyphs.split("test"), self.glyphs.split("train")
        self.pictures = self.test.images.flatten(0, 1)
        self.table = self.features(self.pictures)
        self.base = self.features(self.train.images.flatten(0, 1)).unflatten(0, (len(self.train), -1))

    def features(self, pictures: Tensor) -> Tensor:
        """Embeds pictures uint8 [B, 1, 28, 28] -> [B, D]."""
        if self.learner is None:
            return F.avg_pool2d(pictures.float() / 255, 2).flatten(1)
        return embed_all(self.learner, pictures)

    def embed(self, drawings: Tensor) -> Tensor:
        """Embeds drawings [..., 1, 28, 28] in 0..1, in the grey levels of a file -> [..., D]."""
        found = self.features((drawings.flatten(0, -4) * 255).round().to(torch.uint8))
        return found.unflatten(0, drawings.shape[:-3])


def drawings(name: str, seed: int, world: World) -> Callable[[Tensor, int], Tensor]:
    """Returns a function (places [R] of test pictures, count) -> drawings [R, count, 1, 28, 28] in 0..1."""
    generator = Generator().manual_seed(seed)
    if "warp" in name:
        strength, same = 0.5 if "half" in name else 1.0, name.startswith("one")

        def bend(places: Tensor, count: int) -> Tensor:
            pictures = world.pictures[places].float().div(255).repeat_interleave(1 if same else count, 0)
            bent = warp(pictures, strength * random_flow(len(pictures), generator)).unflatten(0, (len(places), -1))
            return bent.expand(-1, count, -1, -1, -1)

        return bend
    if name == "strokes of the letter itself":
        made = redrawn(world.glyphs)
        return lambda places, count: made[places // 20, :count].float() / 255
    drawer = trained_drawer(name, seed, world.weights)

    @torch.no_grad()
    def draw(places: Tensor, count: int) -> Tensor:
        return drawer.draw(world.pictures[places].float() / 255, count, generator)

    return draw


@cache
def trained_drawer(name: str, seed: int, folder: Path) -> Drawer:
    """Loads the drawer of the VAE or the GAN from the folder, or trains it first, by the command of train_hallucination."""
    path = folder / file_name(name.lower(), seed)
    if not path.exists():
        train_hallucination([name.lower(), "--seed", str(seed), "--out", str(folder)])
    net = DrawingVAE() if name == "VAE" else Drawer()
    net.load_state_dict(load_file(path)[0])
    net.eval()
    return net.drawer if isinstance(net, DrawingVAE) else net


@cache
def redrawn(glyphs: ImageSet) -> Tensor:
    """Lets 10 new hands draw every test letter from its pen strokes: uint8 [C, 10, 1, 28, 28]."""
    letters = load_letters(verified("glyphs_strokes.npz"))
    rows = np.flatnonzero(letters.split == "test").tolist()
    return torch.from_numpy(draw_letters(letters.select(rows), hands=10, seed=NEW_HANDS)).unsqueeze(2)


def deltas(world: World, latent: int, seed: int, steps: int = 2000) -> Callable[[Tensor, int], Tensor]:
    """Trains a delta-encoder on training letters. Returns (support [R, D], count) -> [R, count, D]."""
    torch.manual_seed(seed)
    generator, base = Generator().manual_seed(seed), world.base
    net = DeltaEncoder(base.shape[-1], latent)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)

    def some(count: int) -> tuple[Tensor, Tensor]:
        letter, first = (torch.randint(n, (count,), generator=generator) for n in base.shape[:2])
        second = (first + torch.randint(1, base.shape[1], (count,), generator=generator)) % base.shape[1]
        return base[letter, first], base[letter, second]

    for _ in range(steps):
        x, reference = some(128)
        loss = (net(reference, net.delta(x, reference)) - x).abs().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    @torch.no_grad()
    def add(support: Tensor, count: int) -> Tensor:
        x, reference = some(len(support) * count)
        return net(support.repeat_interleave(count, 0), net.delta(x, reference)).unflatten(0, (len(support), count))

    return add


def gaussians(world: World, label: str) -> Callable[[Tensor, int], Tensor]:
    """Returns (support [R, D] after Tukey's power, count) -> imagined [R, count, D]. label: one of CALIBRATIONS."""
    means, covariances = class_statistics(tukey(world.base, CALIBRATIONS[label][1]))
    generator = Generator().manual_seed(0)
    # The slip leaves directions flat, and a Cholesky factor needs a little in each.
    diagonal, everywhere = (1e-4, 0.21) if label == EVERY_ENTRY else (0.21, 0.0)

    def add(support: Tensor, count: int) -> Tensor:
        mean, covariance = calibrated(support, means, covariances, alpha=diagonal)
        return imagine(mean, covariance + everywhere, count, generator)

    return add


def judge(support: Tensor, labels: Tensor, query: Tensor, way: int, reader: str) -> Tensor:
    """Answers of a reader. support [S, D], labels [S], query [M, D] -> [M]."""
    if reader == "nearest mean":
        return squared_distances(query, prototypes(support, labels, way)).argmin(1)
    fitted = LogisticRegression(max_iter=100, tol=1e-2).fit(support.numpy(), labels.numpy())
    return torch.from_numpy(fitted.predict(query.numpy()))


def run(label: str, seed: int, world: World) -> list[dict[str, Any]]:
    """Counts the right answers of one source in every test and episode."""
    power = CALIBRATIONS.get(label, (0.5 if label == "Tukey alone" else 1.0,))[0]
    make: Callable[[Tensor, int], Tensor] | None = None
    if label in CALIBRATIONS:
        make = gaussians(world, label)
    elif label.startswith("deltas"):
        make = deltas(world, int(label.split()[-1]), seed)
    draw = drawings(label, seed, world) if label in DRAWN else None
    table, results = tukey(world.table, power), []
    for way, shot, query, extra in TESTS:
        episodes = world.episodes if way == 5 else world.episodes // 4
        drawn = EpisodeSampler(world.test, way, shot, query, n_unlabelled=shot * extra).layout(0, episodes)
        readers = ("nearest mean", "logistic") if way == 5 else ("nearest mean",)
        correct: dict[str, list[int]] = {reader: [] for reader in readers}
        for places, labels, asked, truth, more, more_y in zip(
            drawn.support,
            drawn.support_y,
            drawn.query,
            drawn.query_y,
            drawn.unlabelled,
            drawn.unlabelled_y,
            strict=True,
        ):
            count = IMAGINED // shot if label in CALIBRATIONS else extra
            rows, names = [table[places]], [labels]
            if make is not None or draw is not None:
                made = world.embed(draw(places, count)) if draw is not None else make(table[places], count)  # type: ignore[misc]
                rows.append(made.flatten(0, 1))
                names.append(labels.repeat_interleave(count))
            elif label in REAL:
                first = torch.stack([more[more_y == slot][0] for slot in more_y])
                rows.append(table[more if label == "real drawings" else first])
                names.append(more_y)
            for reader in readers:
                found = judge(torch.cat(rows), torch.cat(names), table[asked], way, reader)
                correct[reader].append(int((found == truth).sum()))
        results += [{"way": way, "shot": shot, "query": query, "reader": r, "correct": c} for r, c in correct.items()]
    return results


def sheet(label: str, seed: int, world: World) -> dict[str, float]:
    """How true and how varied ten drawings of every test letter are, in the embedding.

    named: the share whose nearest class, of all test letters, is their own (class means of ten real drawings); spread: the mean
    distance of two drawings of one letter; from_reference: the mean distance to the drawing they were made from.
    """
    letters = torch.arange(len(world.test))
    real = world.table.unflatten(0, (len(letters), -1))
    found = real[:, :10] if label == "real drawings" else None
    made = world.embed(drawings(label, seed, world)(letters * 20, 10)) if found is None else found
    nearest = squared_distances(made.flatten(0, 1), real[:, 10:].mean(1)).argmin(1)
    apart = torch.stack([torch.pdist(rows).mean() for rows in made]).mean()
    away = (made - real[:, :1]).norm(dim=-1)[:, 1:].mean()  # the first real drawing is the reference itself
    named = (nearest == letters.repeat_interleave(10)).float().mean()
    return {"named": round(named.item(), 4), "spread": round(apart.item(), 3), "from_reference": round(away.item(), 3)}


EVERYWHERE = (
    "none", "Tukey alone", "real drawings", "warps", "warps, half as strong", "VAE", "deltas, z of 1",
    "calibration", "calibration, base not rooted", "calibration, nothing rooted",
)  # fmt: skip
LABELS = {
    "prototypical": (
        *EVERYWHERE, EVERY_ENTRY, "deltas, z of 16", "GAN",
        "strokes of the letter itself", "one warp, copied", "one real drawing, copied",
    ),
    "transfer": EVERYWHERE,
    "pixels": EVERYWHERE,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=120, help="test episodes at 5 ways; a quarter at 20 (120)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of trained sources (3)")
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="folder of drawers; those that are missing are trained"
    )
    parser.add_argument("--only", nargs="*", default=[], help="labels to measure (all)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    head = {
        "command": "OMP_NUM_THREADS=1 python -m tools.results.compare_hallucination"
        f" --episodes {options.episodes} --seeds {options.seeds}",
        "protocol": "Glyphs, test letters, inductive; the same episodes in every row; `correct` counts right queries",
        "made": [dict(zip(("way", "shot", "query", "each"), test, strict=True)) for test in TESTS],
        "episodes": options.episodes,
    }
    rows = kept(options.out, head, same=("episodes",))
    for encoder, labels in LABELS.items():
        world = World(encoder, options.episodes, options.weights)
        for label in [label for label in labels if not options.only or label in options.only]:
            for seed in range(options.seeds if label in SEEDED else 1):
                name = label if encoder == "prototypical" else f"{encoder}: {label}"
                if is_there(rows, name, seed):
                    continue
                row: dict[str, Any] = {"label": name, "seed": seed, "results": run(label, seed, world)}
                if encoder == "prototypical" and label in ("real drawings", *DRAWN):
                    row["sheet"] = sheet(label, seed, world)
                rows.append(row)
                write(options.out, head, rows)
                means = [sum(r["correct"]) / (len(r["correct"]) * r["way"] * r["query"]) for r in row["results"]]
                print(
                    f"{name:38s} seed {seed}  " + "  ".join(f"{m:.1%}" for m in means), row.get("sheet", ""), flush=True
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
