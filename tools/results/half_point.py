"""What the last half point of prototypical networks on Omniglot depends on: changes one thing at a time at equal pictures seen.

    FSL_DATA=FOLDER python -m tools.results.half_point                   # writes data/results/half_point.json
    FSL_DATA=FOLDER python -m tools.results.half_point --only nearest    # one variant; keeps the rows of the others

Careful re-runs of Snell et al. (2017) stay half a point below the paper. Each variant differs from the reference in one thing and
is compared with it on the same episodes. A stopped variant continues.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsl_course import EpisodeSampler, ImageSet, compare, evaluate, fit, load_omniglot, rotations_as_classes
from fsl_course._system.files import replace_file
from fsl_course.data.omniglot import characters, find_parts
from fsl_course.evaluation import Result
from fsl_course.weights.learners import make

ROOT = Path(__file__).resolve().parents[2]
OUT, STATES = ROOT / "data" / "results" / "half_point.json", ROOT / "runs" / "half_point"
TASKS, EPISODES = ((5, 1), (20, 1)), 1000
# name -> what differs from the reference
VARIANTS = {
    "reference": "60-way 1-shot with 5 queries, triangle filter, turns as classes, validation classes join, bfloat16",
    "nearest": "pictures shrunk by taking the nearest pixel, as the published code does, in training and test",
    "20-way": "20-way episodes, three times as many",
    "upright": "no turned classes in training",
    "without validation classes": "the 100 validation characters do not join the training",
    "float32": "convolutions in float32",
}


def pictures(variant: str) -> ImageSet:
    """Returns Omniglot by the protocol "random", with turned classes."""
    source = load_omniglot(protocol="random")
    if variant == "nearest":
        source = replace(source, images=nearest(np.stack([ink for _, ink in original_drawings()])))
    return rotations_as_classes(source)


def original_drawings() -> Iterator[tuple[str, np.ndarray]]:
    """Yields the published drawings: a character's name "Alphabet/character01" and bool [20, 105, 105], True where ink is.

    Order and errors are those of `load_omniglot`.
    """
    for part, path in find_parts().items():
        yield from characters(part, path)


def nearest(drawings: np.ndarray) -> torch.Tensor:
    """Shrinks drawings bool [C, 20, 105, 105] to uint8 [C, 20, 1, 28, 28] by taking the pixel under the middle of every cell."""
    places = ((np.arange(28) + 0.5) * drawings.shape[-1] / 28).astype(int)
    return torch.from_numpy(drawings[..., places[:, None], places].astype(np.uint8) * 255)[:, :, None]


def trained_on(source: ImageSet, variant: str) -> ImageSet:
    """Returns the classes that a variant trains on."""
    splits = ("train",) if variant == "without validation classes" else ("train", "val")
    classes = [i for i, split in enumerate(source.splits or ()) if split in splits]
    return source.select([i for i in classes if i % 4 == 0] if variant == "upright" else classes)


def measured(variant: str, steps: int) -> dict[tuple[int, int], Result]:
    """Trains a variant and returns its results by (way, shot), measured on the same episodes as the others."""
    source = pictures(variant)
    way, updates = (20, 3 * steps) if variant == "20-way" else (60, steps)
    torch.manual_seed(0)
    learner = make("prototypical")
    sampler = EpisodeSampler(trained_on(source, variant), way, 1, 5, seed=0)
    state = STATES / f"{variant.replace(' ', '_')}.state.safetensors"
    fit(learner, sampler, steps=updates, cosine=True, bfloat16=variant != "float32", checkpoint=state, save_every=500)
    test = source.split("test")
    return {task: evaluate(learner, EpisodeSampler(test, *task, 15, seed=0), EPISODES) for task in TASKS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help="updates of 360 pictures (1500)")
    parser.add_argument("--only", choices=VARIANTS, help="one variant besides the reference")
    options = parser.parse_args()
    head: dict[str, Any] = {
        "command": f"python -m tools.results.half_point --steps {options.steps}",
        "protocol": f"{options.steps} updates, Adam 0.001 to 0 along a cosine, seed 0; random split with turned classes, "
        f"{EPISODES} test episodes of seed 0 with 15 queries a class, inductive; differences over the same episodes",
        "torch": torch.__version__,
    }
    kept = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {"rows": []}
    rows = {row["variant"]: row for row in kept["rows"] if kept["command"] == head["command"]}
    reference = measured("reference", options.steps)
    for variant in VARIANTS if options.only is None else ("reference", options.only):
        found = reference if variant == "reference" else measured(variant, options.steps)
        cells = []
        for (way, shot), result in found.items():
            cell = {"way": way, "shot": shot, "mean": result.mean, "ci95": result.ci95}
            if variant != "reference":
                # All are tested on the same drawings in the same episodes. One variant shrinks them with another filter: its
                # episodes have another key, which `compare` would refuse.
                same = replace(reference[way, shot], episodes_key=result.episodes_key)
                difference = compare(result, same)
                cell |= {"difference": difference.mean, "difference_ci95": difference.ci95}
            cells.append(cell)
        rows[variant] = {"variant": variant, "words": VARIANTS[variant], "cells": cells}
        ordered = [rows[name] for name in VARIANTS if name in rows]
        replace_file(OUT, (json.dumps(head | {"rows": ordered}, indent=1) + "\n").encode())
        print(variant, *(f"{c['way']}-way {c['mean']:.2%}, {c.get('difference', 0):+.2%}" for c in cells), flush=True)


if __name__ == "__main__":
    main()
