"""MAML and pretraining on sine curves at the paper's budget (Finn et al. 2017, section 5.1): weights, card and table.

    OMP_NUM_THREADS=1 python -m tools.results.train_sine

Writes data/checkpoints/maml-sinusoids.safetensors and its card. The card's "test" rows hold the mean squared error after 0, 1, 5
and 10 inner steps on 5 and on 10 points, for MAML and for one net trained on all curves at once. A stopped run continues.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from fsl_course import SinusoidSampler, evaluate, fit
from fsl_course._system.files import replace_file
from fsl_course.methods.base import FewShotLearner
from fsl_course.weights.checkpoints import save_learner
from fsl_course.weights.learners import make

OUT = Path(__file__).resolve().parents[2] / "data" / "checkpoints"
SHOTS, STEPS = (5, 10), (0, 1, 5, 10)
QUERY = 100  # test points of a curve


def rows(learner: FewShotLearner, name: str, episodes: int) -> list[dict[str, Any]]:
    """Returns a learner's mean squared error on the test curves, one row for each number of points and of inner steps."""
    found = []
    for shot in SHOTS:
        sampler = SinusoidSampler(shot, QUERY, seed=1)  # training curves are those of seed 0
        for steps in STEPS:
            learner.test_steps = steps
            result = evaluate(learner, sampler, episodes, metric="mse")
            found.append({"learner": name, "shot": shot, "steps": steps, "mse": result.mean, "ci95": result.ci95})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=70_000, help="updates (70000, as in the paper)")
    parser.add_argument("--episodes", type=int, default=600, help="test curves (600)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    card: dict[str, Any] = {
        "method": "maml",
        "settings": {"net": "mlp", "inner_lr": 0.01, "inner_steps": 1},
        "data": "sinusoids",
        "command": f"python -m tools.results.train_sine --steps {options.steps} --episodes {options.episodes}",
        "seed": 0,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "training": f"{options.steps} updates of 25 curves, 10 support and 10 query points, Adam 0.001; pretraining: the same "
        "curves and points without an inner loop",
        "protocol": f"{options.episodes} curves of seed 1, {QUERY} query points each; mean squared error, half width of the 95 % "
        "interval; inner rate 0.01",
        "test": [],
    }
    # Without inner steps, every curve's queries train one net: this is pretraining on all curves at once.
    for name, inner_steps in (("maml", 1), ("pretraining", 0)):
        torch.manual_seed(0)
        learner = make("maml", **card["settings"] | {"inner_steps": inner_steps})
        state = options.out / f"{name}-sinusoids.state.safetensors"
        sampler = SinusoidSampler(10, 10, seed=0)
        history = fit(learner, sampler, steps=options.steps, tasks=25, checkpoint=state, save_every=5000)
        if history.interrupted:
            return
        if name == "maml":
            card["minutes"] = round(history.seconds / 60, 1)
            about = {key: card[key] for key in ("method", "settings", "data")}
            save_learner(options.out / "maml-sinusoids.safetensors", learner, about)
        card["test"] += rows(learner, name, options.episodes)
        state.unlink()
    replace_file(options.out / "maml-sinusoids.json", (json.dumps(card, indent=2) + "\n").encode())
    for row in card["test"]:
        print(
            f"{row['learner']:12s} {row['shot']:2d} points, {row['steps']:2d} steps: {row['mse']:.3f} ± {row['ci95']:.3f}"
        )


if __name__ == "__main__":
    main()
