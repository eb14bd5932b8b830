"""Trains the MAML family on the same number of tasks, two seeds each, and writes data/maml_comparison.json for lesson 10.

    OMP_NUM_THREADS=1 python -m tools.results.compare_maml

Takes about half an hour on one core. Call it again after an interruption: it keeps the rows that are there. Every call measures
the time of a training step anew at its end, so call it once more on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
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
from tools.results.rows import is_there, refuse_other_settings, write

OUT = Path(__file__).resolve().parents[2] / "data" / "maml_comparison.json"
WAY, SHOT, TEST_QUERY = 5, 1, 15
NET = {"width": 32, "norm": "batch"}
TASKS = 4  # of an update
INNER = {"inner_lr": 0.4, "inner_steps": 3}
FIRST = {**INNER, "first_order": True}
# What each row is trained with: method and settings of `make`; shots and queries of a training task; Adam's rate in the outer
# loop. The rates come from short trials on validation classes (100 to 150 updates). FOMAML has two rows because its error is
# large at MAML's inner rate.
GIVEN: dict[str, dict[str, Any]] = {
    "MAML": {"method": "maml", "settings": INNER, "shot": 1, "query": 5, "lr": 3e-3},
    "ANIL": {"method": "anil", "settings": INNER, "shot": 1, "query": 5, "lr": 3e-3},
    "FOMAML": {"method": "maml", "settings": {**FIRST, "inner_lr": 0.1}, "shot": 1, "query": 5, "lr": 3e-3},
    "FOMAML at 0.4": {"method": "maml", "settings": FIRST, "shot": 1, "query": 5, "lr": 3e-3},
    "Meta-SGD": {"method": "meta_sgd", "settings": INNER, "shot": 1, "query": 5, "lr": 3e-3},
    "Reptile": {
        "method": "reptile",
        "settings": {"inner_lr": 0.1, "inner_steps": 5, "batch": 10, "test_steps": 20},
        "shot": 5,
        "query": 1,
        "lr": 1e-3,
    },
    "ProtoNet": {"method": "prototypical", "settings": {}, "shot": 1, "query": 5, "lr": 3e-3},
}


def fresh(label: str, source: ImageSet) -> FewShotLearner:
    """Returns an untrained learner for this row."""
    given = GIVEN[label]
    return make(given["method"], **settings_of(given["method"], source, WAY), **NET, **given["settings"])


def train_sampler(label: str, source: ImageSet, seed: int) -> EpisodeSampler:
    """Returns the sampler of this row's training tasks."""
    given = GIVEN[label]
    return EpisodeSampler(source.split("train"), WAY, given["shot"], given["query"], seed=seed)


def run(label: str, seed: int, source: ImageSet, steps: int, episodes: int) -> dict[str, Any]:
    """Measures a row: trains a fresh learner for `steps` updates, then counts the right queries of each test episode."""
    torch.manual_seed(seed)
    learner = fresh(label, source)
    began = time.process_time()
    fit(learner, train_sampler(label, source, seed), steps=steps, tasks=TASKS, lr=GIVEN[label]["lr"], progress=False)
    seconds = time.process_time() - began
    found = evaluate(learner, EpisodeSampler(source.split("test"), WAY, SHOT, TEST_QUERY), episodes)
    correct = (found.per_episode * WAY * TEST_QUERY).round().int().tolist()
    parameters = sum(p.numel() for p in learner.parameters())
    about = {"label": label, "seed": seed, "parameters": parameters, "train_seconds": round(seconds, 2)}
    return about | {"correct": correct}


def step_ratios(source: ImageSet, repeats: int) -> dict[str, float]:
    """Returns the CPU time of an update of each row divided by MAML's: the median over rounds in which all rows take turns."""
    learners = {}
    for label in GIVEN:
        learner = fresh(label, source).train()
        sampler = train_sampler(label, source, 0)
        learners[label] = learner, sampler, torch.optim.Adam(learner.parameters(), lr=GIVEN[label]["lr"])
    ratios: dict[str, list[float]] = {label: [] for label in learners}
    for index in range(repeats + 1):  # the first round warms up
        seconds = {}
        for label, (learner, sampler, solver) in learners.items():
            episodes = sampler.batch(index * TASKS, TASKS)
            began = time.process_time()
            loss = learner.training_step(episodes)
            solver.zero_grad()
            loss.backward()
            solver.step()
            seconds[label] = time.process_time() - began
        for label in learners:
            if index:
                ratios[label].append(seconds[label] / seconds["MAML"])
    return {label: round(statistics.median(values), 3) for label, values in ratios.items()}


def main(argv: Sequence[str] | None = None, source: ImageSet | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help=f"updates of {TASKS} training tasks each (600)")
    parser.add_argument("--episodes", type=int, default=300, help="test episodes (300)")
    parser.add_argument("--seeds", type=int, default=2, help="training seeds 0, 1, ... (2)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds for the time of a step (15)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    head = {
        "command": "OMP_NUM_THREADS=1 python -m tools.results.compare_maml"
        f" --steps {options.steps} --episodes {options.episodes} --seeds {options.seeds}",
        "protocol": f"Glyphs, {WAY}-way {SHOT}-shot, {TEST_QUERY} queries a class; test classes; inductive; test episodes "
        "of seed 0, the same for every row; `correct` counts the right queries of each episode; train_seconds: CPU seconds of "
        "training, one thread; step_ratio: CPU time of an update against MAML's, rows in turn, median of "
        f"{options.repeats} rounds",
        "rates": "from short trials on validation classes, 100 to 150 updates, one seed (MAML at 0.1, 0.4, 1.0: 77, 76, "
        "45 %); FOMAML has a row with its own and one with MAML's",
        "train": {"way": WAY, "steps": options.steps, "tasks": TASKS, **NET},
        "test": {"way": WAY, "shot": SHOT, "query": TEST_QUERY, "episodes": options.episodes},
        "given": GIVEN,
    }
    rows, kept = [], {}
    if options.out.exists():
        there = json.loads(options.out.read_text(encoding="utf-8"))
        rows, kept = there["rows"], {"step_ratio": there["step_ratio"]} if "step_ratio" in there else {}
        trained = {row["label"] for row in rows}
        same = all(there[k] == head[k] for k in ("train", "test"))
        if not same or any(there["given"].get(label) != GIVEN[label] for label in trained):
            raise refuse_other_settings(options.out)
    source = load_glyphs() if source is None else source
    for seed in range(options.seeds):
        for label in GIVEN:
            if is_there(rows, label, seed):
                continue
            rows.append(run(label, seed, source, options.steps, options.episodes))
            write(options.out, head | kept, rows)
            mean = sum(rows[-1]["correct"]) / (options.episodes * WAY * TEST_QUERY)
            print(f"{label:14s} seed {seed}  {mean:.1%}  {rows[-1]['train_seconds']:.0f} CPU s", flush=True)
    write(options.out, head | {"step_ratio": step_ratios(source, options.repeats)}, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
