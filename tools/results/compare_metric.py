"""Trains every metric method on the same episodes, three seeds each, and writes data/metric_comparison.json for lesson 06.

    OMP_NUM_THREADS=1 python -m tools.results.compare_metric

Takes three quarters of an hour on one core. Call it again after an interruption: it keeps the rows that are there. Every call
measures the time of a training step anew at its end, so call it once more on a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fsl_course import EpisodeSampler, evaluate, fit, load_glyphs
from fsl_course.data import ImageSet
from fsl_course.methods.base import FewShotLearner
from fsl_course.weights.learners import make, settings_of
from tools.results.rows import is_there, kept, write

OUT = Path(__file__).resolve().parents[2] / "data" / "metric_comparison.json"
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Transfer": ("transfer", {}),
    "Siamese": ("siamese", {}),
    "Matching": ("matching", {}),
    "Matching + FCE": ("matching", {"full_context": True}),
    "Prototypical": ("prototypical", {}),
    "Relation": ("relation", {}),
}
TRAIN = {"way": 20, "shot": 1, "query": 5}
TEST = ((5, 1), (5, 5), (20, 1))
TEST_QUERY = 15


def fresh(label: str, source: ImageSet) -> FewShotLearner:
    """Returns an untrained learner for this row."""
    method, settings = LEARNERS[label]
    return make(method, **settings_of(method, source), **settings)


def run(label: str, seed: int, source: ImageSet, steps: int, episodes: int) -> dict[str, Any]:
    """Measures a row: trains a fresh learner on `steps` episodes of this seed and counts its right queries per test episode."""
    train, test = source.split("train"), source.split("test")
    torch.manual_seed(seed)
    learner = fresh(label, source)
    sampler = EpisodeSampler(train, TRAIN["way"], TRAIN["shot"], TRAIN["query"], seed=seed)
    fit(learner, sampler, steps=steps, progress=False)
    results = []
    for way, shot in TEST:
        found = evaluate(learner, EpisodeSampler(test, way, shot, TEST_QUERY), episodes)
        correct = (found.per_episode * way * TEST_QUERY).round().int().tolist()
        results.append({"way": way, "shot": shot, "query": TEST_QUERY, "correct": correct})
    parameters = sum(p.numel() for p in learner.parameters())
    method, settings = LEARNERS[label]
    about = {"label": label, "method": method, "settings": settings, "seed": seed, "parameters": parameters}
    return about | {"results": results}


def step_seconds(source: ImageSet, repeats: int) -> dict[str, float]:
    """Returns the median CPU seconds of a training step of each method. They take turns, so that a slow spell affects all."""
    train = source.split("train")
    sampler, learners = EpisodeSampler(train, TRAIN["way"], TRAIN["shot"], TRAIN["query"]), {}
    for label in LEARNERS:
        learner = fresh(label, source).train()
        learners[label] = learner, torch.optim.Adam(learner.parameters())
    seconds: dict[str, list[float]] = {label: [] for label in learners}
    for index in range(repeats):
        for label, (learner, solver) in learners.items():
            began = time.process_time()
            loss = learner.training_step(sampler.batch(index, 1))
            solver.zero_grad()
            loss.backward()
            solver.step()
            seconds[label].append(time.process_time() - began)
    return {label: statistics.median(values) for label, values in seconds.items()}


def main(argv: Sequence[str] | None = None, source: ImageSet | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="training episodes (600)")
    parser.add_argument("--episodes", type=int, default=600, help="test episodes of each kind (600)")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds 0, 1, ... (3)")
    parser.add_argument("--repeats", type=int, default=21, help="steps of each method for the time of a step (21)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    head = {
        "command": "OMP_NUM_THREADS=1 python -m tools.results.compare_metric"
        f" --steps {options.steps} --episodes {options.episodes} --seeds {options.seeds}",
        "protocol": "Glyphs; test classes; inductive; test episodes of seed 0, the same for every row; "
        "`correct` counts the right queries of each episode; train_seconds: steps times the median CPU seconds of a step, one "
        f"thread, methods in turn, {options.repeats} steps each",
        "train": TRAIN | {"steps": options.steps},
        "episodes": options.episodes,
    }
    rows = kept(options.out, head)
    source = load_glyphs() if source is None else source
    for seed in range(options.seeds):
        for label in LEARNERS:
            if is_there(rows, label, seed):
                continue
            rows.append(run(label, seed, source, options.steps, options.episodes))
            write(options.out, head, rows)
            means = [sum(r["correct"]) / (options.episodes * r["way"] * r["query"]) for r in rows[-1]["results"]]
            print(f"{label:16s} seed {seed}  " + "  ".join(f"{m:.1%}" for m in means), flush=True)
    clock = step_seconds(source, options.repeats)
    for row in rows:
        row["train_seconds"] = round(options.steps * clock[row["label"]], 3)
    write(options.out, head, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
