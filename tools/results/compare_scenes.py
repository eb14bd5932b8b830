"""Trains dense prototypes in several ways on the same scenes, three seeds each, for lesson 19.

    OMP_NUM_THREADS=1 python -m tools.results.compare_scenes

Writes data/scenes_comparison.json: the intersection over union of every test episode, and the seconds of the processor (user and
system) that a longer training took. Takes some minutes on one core.
Call it again after an interruption: it keeps the rows that are there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fsl_course import evaluate, fit, load_glyphs, pretrained
from fsl_course.data import ImageSet
from fsl_course.episodes import SceneSampler
from fsl_course.methods.dense import DensePrototypes, iou
from fsl_course.weights.learners import make
from tools.results.rows import is_there, kept, write

OUT = Path(__file__).resolve().parents[2] / "data" / "scenes_comparison.json"
LEARNERS: dict[str, dict[str, Any]] = {
    "PANet": {},
    "without alignment": {"align": 0.0},
    "without background": {"background": False},
}
# how long it takes to beat any ink: settings of the learner, and of fit
LONGER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "PANet, 400 steps of 4": ({}, {"steps": 400, "tasks": 4, "lr": 2e-3}),
    "PANet, 800 steps of 4": ({}, {"steps": 800, "tasks": 4, "lr": 2e-3}),
    "without background, 400 steps of 2": ({"background": False}, {"steps": 400, "tasks": 2, "lr": 5e-3}),
}
UNTRAINED = {"any ink": 1, "ProtoNet's maps": 1, "random encoder": 3}  # and how many seeds make a difference, at most
INK = 0.42  # the grey value above which a pixel is ink


def trained(own: dict[str, Any], seed: int, source: ImageSet, **options: Any) -> DensePrototypes:
    """Trains a fresh learner on the frozen blocks of the shipped ProtoNet."""
    torch.manual_seed(seed)
    learner = make("dense", **own)
    learner.encoder.start_from(pretrained("prototypical", "glyphs").encoder)
    fit(learner, SceneSampler(source.split("train"), seed=seed), cosine=True, progress=False, **options)
    return learner


def scores(learner: DensePrototypes, source: ImageSet, episodes: int) -> list[float]:
    """Returns the intersection over union of every test episode."""
    found = evaluate(learner, SceneSampler(source.split("test")), episodes, metric="miou")
    return [round(value, 4) for value in found.per_episode.tolist()]


def run(label: str, seed: int, source: ImageSet, steps: int, episodes: int) -> dict[str, Any]:
    """Trains a fresh learner for a short while, and returns its row."""
    learner = trained(LEARNERS[label], seed, source, steps=steps, tasks=2, lr=2e-3)
    return {"label": label, "seed": seed, "iou": scores(learner, source, episodes)}


def run_longer(label: str, seed: int, source: ImageSet, episodes: int) -> dict[str, Any]:
    """Trains a fresh learner for as long as it takes, and returns its row."""
    own, options = LONGER[label]
    begun = time.process_time()
    learner = trained(own, seed, source, **options)
    seconds = time.process_time() - begun
    return {"label": label, "seed": seed, "seconds": round(seconds, 1), "iou": scores(learner, source, episodes)}


def run_untrained(label: str, seed: int, source: ImageSet, episodes: int) -> dict[str, Any]:
    """Returns the row of something that has never been trained on scenes; the seed is that of a random encoder."""
    if label == "any ink":
        tasks = SceneSampler(source.split("test")).batch(0, episodes)
        found = [round(float(iou(q[:, 0] > INK, y)), 4) for q, y in zip(tasks.query_x, tasks.query_y, strict=True)]
        return {"label": label, "seed": seed, "iou": found}
    torch.manual_seed(seed)
    learner = make("dense")
    if label == "ProtoNet's maps":
        learner = DensePrototypes(pretrained("prototypical", "glyphs").encoder.layers[:12])  # three blocks of four
    return {"label": label, "seed": seed, "iou": scores(learner.eval(), source, episodes)}


def main(argv: Sequence[str] | None = None, source: ImageSet | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="steps of two tasks (200)")
    parser.add_argument("--episodes", type=int, default=150, help="test episodes after a short training (150)")
    parser.add_argument("--many", type=int, default=300, help="test episodes of the rows beside it (300)")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds 0, 1, ... (3)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    head = {
        "command": "OMP_NUM_THREADS=1 python -m tools.results.compare_scenes"
        f" --steps {options.steps} --episodes {options.episodes} --many {options.many} --seeds {options.seeds}",
        "protocol": "scenes of Glyphs; 1 marked scene, 2 to segment; test letters; episodes of seed 0, the same for every row; "
        "iou of every episode, its two queries counted together; seconds of the processor for the training, user and system",
        "steps": options.steps,
        "episodes": options.episodes,
        "many": options.many,
    }
    rows = kept(options.out, head, same=("steps", "episodes", "many"))
    source = load_glyphs() if source is None else source
    short = [
        (label, seed, run, (options.steps, options.episodes)) for seed in range(options.seeds) for label in LEARNERS
    ]
    others = [(label, seed, run_longer, (options.many,)) for seed in range(options.seeds) for label in LONGER]
    others += [
        (label, seed, run_untrained, (options.many,))
        for label, seeds in UNTRAINED.items()
        for seed in range(min(seeds, options.seeds))
    ]
    for label, seed, how, numbers in short + others:
        if not is_there(rows, label, seed):
            rows.append(how(label, seed, source, *numbers))
            write(options.out, head, rows)
            print(f"{label:35s} seed {seed}  {sum(rows[-1]['iou']) / len(rows[-1]['iou']):.4f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
