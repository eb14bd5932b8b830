"""Measures how much too high a number is when the best of many settings is picked on the test classes, for lesson 26.

    OMP_NUM_THREADS=1 python -m tools.results.compare_selection

Writes data/selection_comparison.json. Three disjoint sets of icon classes are drawn again and again: V to choose on, A to test
on, B as the new classes that a user will bring. A setting is picked by its accuracy on A, or on V. What A says of it minus what
B says of it, minus the same difference averaged over all settings (A may be easier than B), is the optimism of that pick: 0 on
average for a setting that was picked without looking at A.

Two families of settings. "seeds": Conv4s with random weights and the nearest class mean, which differ in nothing but their seed.
"grid": pixels and eight shipped encoders of letters, each with five heads. No encoder has met an icon. Each of three seeds has
random networks, draws of classes and orders of settings of its own. It takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_course import EpisodeSampler, ImageSet, load_icons, pretrained
from fsl_course._system.allocator import keep_memory
from fsl_course.evaluation import embed_all
from fsl_course.methods.base import class_means
from fsl_course.methods.baselines import random_conv4
from fsl_course.methods.prototypical import squared_distances
from fsl_course.methods.ridge import ridge_head
from tools.results.rows import write

OUT = Path(__file__).resolve().parents[2] / "data" / "selection_comparison.json"
ENCODERS = (
    "transfer", "prototypical", "siamese", "matching", "ridge", "soft_kmeans", "hypernetwork", "unsupervised",
)  # fmt: skip
HEADS = ("mean", "unit length", "ridge 0.1", "ridge 1", "ridge 10")
WAY = SHOT = N_QUERY = 5
SETTINGS = (4, 16, 45)  # how many are compared
FAMILIES = ("seeds", "grid")
PLAN = ((10, 20), (10, 200), (40, 20), (40, 200))  # classes in each set, episodes on V and A
Picks = dict[str, list[float]]


def tables(images: ImageSet, family: str, seed: int, count: int) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, embeddings [C*n, D]) of every picture, by each encoder of a family. count: of the networks of "seeds"."""
    rows = images.images.flatten(0, 1)
    if family == "seeds":
        for number in range(count):
            yield f"seed {number}", embed_all(random_conv4(1000 * seed + number), rows)
        return
    yield "pixels", rows.flatten(1).float() / 255
    for name in ENCODERS:
        yield name, embed_all(pretrained(name, "glyphs").eval(), rows)


def accuracies(table: Tensor, head: str, sampler: EpisodeSampler, classes: Tensor, episodes: int) -> Tensor:
    """Returns the accuracy of each episode, float64 [E]. table [C*n, D]; the sampler draws from these classes of it."""
    drawn, drawings = sampler.layout(0, episodes), sampler.source.images.shape[1]
    place = (classes[:, None] * drawings + torch.arange(drawings)).flatten()
    support, query = table[place[drawn.support]], table[place[drawn.query]]
    if head.startswith("ridge"):
        weight, bias = ridge_head(support, drawn.support_y, WAY, float(head.split()[1]))
        scores = query @ weight.mT + bias.unsqueeze(-2)
    else:
        if head == "unit length":
            support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
        scores = -squared_distances(query, class_means(support, drawn.support_y, WAY))
    return (scores.argmax(-1) == drawn.query_y).double().mean(-1)


def optimism(tried: Tensor, fresh: Tensor, pick: int) -> float:
    """Returns by how many points the tested number of a pick is too high. tried, fresh: mean accuracies [M] on A and on B."""
    return 100 * float((tried[pick] - fresh[pick]) - (tried - fresh).mean())


def settings_of(images: ImageSet, family: str, seed: int) -> list[tuple[Tensor, str]]:
    """Returns the settings of a family, (embeddings, head), in no order of merit."""
    heads = ("mean",) if family == "seeds" else HEADS
    return [(table, head) for _, table in tables(images, family, seed, SETTINGS[-1]) for head in heads]


def measure(
    images: ImageSet, settings: Sequence[tuple[Tensor, str]], seed: int, classes: int, episodes: int, draws: int
) -> dict[str, Picks]:
    """Returns by number of settings the optimism of each draw, where the test classes A made the pick, and where V did."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Picks] = {str(m): {"test": [], "validation": []} for m in SETTINGS if m <= len(settings)}
    for draw in range(draws):
        parts = torch.randperm(len(images), generator=generator)[: 3 * classes].view(3, classes)
        order = torch.randperm(len(settings), generator=generator).tolist()
        samplers = [EpisodeSampler(images.select(part), WAY, SHOT, N_QUERY, seed=draw) for part in parts]
        chosen, tried, fresh = (
            torch.stack([accuracies(*settings[i], sampler, part, e).mean() for i in order])
            for sampler, part, e in zip(samplers, parts, (episodes, episodes, max(episodes, 100)), strict=True)
        )
        for count, picks in found.items():
            v, a, b = (shares[: int(count)] for shares in (chosen, tried, fresh))
            picks["test"].append(round(optimism(a, b, int(a.argmax())), 3))
            picks["validation"].append(round(optimism(a, b, int(v.argmax())), 3))
    return found


def run(seeds: Sequence[int], draws: int, out: Path = OUT) -> None:
    """Measures every row of PLAN with every seed, and writes the file after each."""
    keep_memory()
    images, need = load_icons(), SHOT + N_QUERY
    images = replace(images, images=images.images[:, :need], counts=images.counts.clamp_max(need))
    command = "OMP_NUM_THREADS=1 python -m tools.results.compare_selection"
    head = {"command": command, "way": WAY, "shot": SHOT, "n_query": N_QUERY, "draws": draws}
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for family in FAMILIES:
            settings = settings_of(images, family, seed)
            for classes, episodes in PLAN:
                points = measure(images, settings, seed, classes, episodes, draws)
                rows.append(
                    {"family": family, "seed": seed, "classes": classes, "episodes": episodes, "points": points}
                )
                write(out, head, rows)
                print(family, seed, classes, episodes, flush=True)


def main() -> None:
    """Reads the command line and runs."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.results.compare_selection", description=str(__doc__).split("\n", 1)[0]
    )
    parser.add_argument("--draws", type=int, default=30, help="of class sets, with each seed (30)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    run(given.seeds, given.draws, given.out)


if __name__ == "__main__":
    main()
