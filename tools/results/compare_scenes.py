"""Trains dense prototypes in three ways on the same scenes, three seeds each, for lesson 19.

    OMP_NUM_THREADS=1 python -m tools.results.compare_scenes

Writes data/scenes_comparison.json: the intersection over union of every test episode. Takes some minutes on one core.
Call it again after an interruption: it keeps the rows that are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fsl_course import evaluate, fit, load_glyphs, pretrained
from fsl_course.data import ImageSet
from fsl_course.episodes import SceneSampler
from fsl_course.weights.learners import make
from tools.results.rows import is_there, kept, write

OUT = Path(__file__).resolve().parents[2] / "data" / "scenes_comparison.json"
LEARNERS: dict[str, dict[str, Any]] = {
    "PANet": {},
    "without alignment": {"align": 0.0},
    "without background": {"background": False},
}


def run(label: str, seed: int, source: ImageSet, steps: int, episodes: int) -> dict[str, Any]:
    """Trains a fresh learner on the frozen blocks of the shipped ProtoNet, and returns its row."""
    torch.manual_seed(seed)
    learner = make("dense", **LEARNERS[label])
    learner.encoder.start_from(pretrained("prototypical", "glyphs").encoder)
    fit(
        learner,
        SceneSampler(source.split("train"), seed=seed),
        steps=steps,
        tasks=2,
        lr=2e-3,
        cosine=True,
        progress=False,
    )
    found = evaluate(learner, SceneSampler(source.split("test")), episodes, metric="miou")
    return {"label": label, "seed": seed, "iou": [round(value, 4) for value in found.per_episode.tolist()]}


def main(argv: Sequence[str] | None = None, source: ImageSet | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="steps of two tasks (200)")
    parser.add_argument("--episodes", type=int, default=150, help="test episodes (150)")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds 0, 1, ... (3)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    head = {
        "command": "OMP_NUM_THREADS=1 python -m tools.results.compare_scenes"
        f" --steps {options.steps} --episodes {options.episodes} --seeds {options.seeds}",
        "protocol": "scenes of Glyphs; 1 marked scene, 2 to segment; test letters; episodes of seed 0, the same for every row; "
        "iou of every episode, its two queries counted together",
        "steps": options.steps,
        "episodes": options.episodes,
    }
    rows = kept(options.out, head, same=("steps", "episodes"))
    source = load_glyphs() if source is None else source
    for seed in range(options.seeds):
        for label in LEARNERS:
            if not is_there(rows, label, seed):
                rows.append(run(label, seed, source, options.steps, options.episodes))
                write(options.out, head, rows)
                print(f"{label:22s} seed {seed}  {sum(rows[-1]['iou']) / options.episodes:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
