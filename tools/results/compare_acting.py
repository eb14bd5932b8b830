"""Compares ways to act on the same test tasks, three trainings each, for lesson 21.

    OMP_NUM_THREADS=1 python -m tools.results.compare_acting

Writes data/acting_comparison.json. A row of the plane holds the returns of 200 goals before adaptation and after 1, 2 and 3
steps; a row of the levers the mean regret over 2000 bandits, and its paired difference to Thompson sampling. A row of the arm
holds how far the tip ends from its targets, after exact and after noisy demonstrations (acting_arm.py). A row of a gradient says
how far single outer gradients lie from their mean. Weights that are not there are trained first, into runs/acting. Call it again
after an interruption: it keeps the rows that are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from fsl_course.data.worlds import Bandits, Navigation
from fsl_course.evaluation import mean_and_ci95
from fsl_course.methods.recurrent_rl import RecurrentPolicy, thompson
from fsl_course.weights.checkpoints import load_file
from tools.results.acting_arm import arm_rows
from tools.results.rows import is_there, kept, write
from tools.results.train_acting import NEAR_STEPS, WAYS, file_name, learner_of, returns_of
from tools.results.train_acting import main as train_acting

OUT = Path(__file__).resolve().parents[2] / "data" / "acting_comparison.json"
GRADIENTS = tuple(f"gradient, {way}" for way in WAYS)
ARMS = tuple(
    f"arm, {name}" for name in ("MAML by imitation", "one net for all", "MAML before its steps", "least squares")
)
WEIGHTS = Path(__file__).resolve().parents[2] / "runs" / "acting"


def trained(data: str, seed: int, way: str, folder: Path, steps: int | None) -> dict[str, torch.Tensor]:
    """Loads the weights of a training from the folder, or trains them first, by the command of train_acting."""
    path = folder / file_name(data, seed, way)
    if not path.exists():
        words = [data, "--seed", str(seed), "--way", way, "--out", str(folder)]
        train_acting(words + (["--steps", str(steps)] if steps else []))
    return load_file(path)[0]


def in_the_plane(way: str, weights: dict[str, torch.Tensor], tasks: int) -> dict[str, Any]:
    """Returns of every test goal before adaptation and after 1, 2, 3 steps."""
    learner = learner_of(way)
    learner.policy.load_state_dict(weights)
    return {"returns": [[round(float(v), 3) for v in part] for part in returns_of(learner, tasks=tasks)]}


def of_gradients(way: str, weights: dict[str, torch.Tensor], draws: int) -> dict[str, float]:
    """Spread of the outer gradient at the start with these weights: root of the summed variances over draws, and the mean's norm.

    Every way draws the same goals, 20 at a time, and 20 trajectories for each, as in training. The norm of the mean is made
    unbiased by taking off what the spread adds to it; it is 0 where the mean drowns in the spread.
    """
    learner = learner_of(way)
    learner.policy.load_state_dict(weights)
    drawn = []
    for draw in range(draws):
        generator = Generator().manual_seed(draw)
        loss = learner.meta_loss(Navigation.draw(20, generator), generator)
        drawn.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(learner.parameters()))]))
    gradients = torch.stack(drawn).double()
    variance = gradients.var(0).sum()
    mean = (gradients.mean(0).square().sum() - variance / draws).clamp_min(0).sqrt()
    return {"spread": round(float(variance.sqrt()), 3), "mean": round(float(mean), 3)}


@torch.no_grad()
def at_the_levers(weights: dict[str, torch.Tensor], tasks: int) -> dict[str, Any]:
    """Regret over 20 pulls: of the policy, of Thompson sampling, and their paired difference; means and half intervals."""
    policy = RecurrentPolicy()
    policy.load_state_dict(weights)
    world = Bandits.draw(tasks, Generator().manual_seed(1000), horizon=20)
    acted = policy.play(world, Generator().manual_seed(1))["action"], thompson(world, Generator().manual_seed(2))
    own, other = (world.regret(actions).sum(1).double() for actions in acted)
    parts = {"regret": own, "thompson": other, "difference": own - other}
    return {name: [round(float(v), 3) for v in mean_and_ci95(part)] for name, part in parts.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="updates of each training, for a rehearsal")
    parser.add_argument("--tasks", type=int, default=200, help="test goals (200)")
    parser.add_argument("--bandits", type=int, default=2000, help="test bandits (2000)")
    parser.add_argument("--draws", type=int, default=30, help="outer gradients of each way (30)")
    parser.add_argument("--arms", type=int, default=500, help="test arms (500)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    command = "python -m tools.results.compare_acting"
    head = {"command": command, "train": options.steps, "tasks": options.tasks, "bandits": options.bandits}
    rows = kept(options.out, head, ("train", "tasks", "bandits"))
    for label in (*WAYS, "RL^2"):
        for seed in range(options.seeds):
            if is_there(rows, label, seed):
                continue
            if label == "RL^2":
                weights = trained("bandits", seed, "dice", options.weights, options.steps or NEAR_STEPS)
                row = at_the_levers(weights, options.bandits)
            else:
                row = in_the_plane(
                    label, trained("navigation", seed, label, options.weights, options.steps), options.tasks
                )
            rows.append({"label": label, "seed": seed, **row})
            write(options.out, head, rows)
            print(label, seed, row.get("regret", [sum(r) / len(r) for r in row.get("returns", [[0]])]), flush=True)
    for seed in range(options.seeds):
        more: dict[str, dict[str, Any]] = {}
        if not is_there(rows, GRADIENTS[-1], seed):
            weights = trained("navigation", seed, "dice", options.weights, options.steps)
            more = {f"gradient, {way}": of_gradients(way, weights, options.draws) for way in WAYS}
        if not is_there(rows, ARMS[-1], seed):
            more |= arm_rows(seed, options.steps, options.arms)
        rows += [{"label": label, "seed": seed, **row} for label, row in more.items()]
        write(options.out, head, rows)
        for label, row in more.items():
            print(label, seed, row, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
