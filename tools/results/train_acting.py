"""Trains what acts in lesson 21: a policy to start from (MAML) in the plane, and a recurrent policy (RL^2) at the levers.

    OMP_NUM_THREADS=1 python -m tools.results.train_acting navigation
    OMP_NUM_THREADS=1 python -m tools.results.train_acting bandits

Each writes data/checkpoints/maml_rl-navigation.safetensors or recurrent_rl-bandits.safetensors with a card, in one to three
minutes on one quiet core. --way first_order and --way plain are ablations of the policy; another --seed changes the file's name.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from fsl_course._system.files import replace_file
from fsl_course.data.worlds import Bandits, Navigation
from fsl_course.evaluation import mean_and_ci95
from fsl_course.methods.maml_rl import MAMLRL, GaussianPolicy, dice, surrogate, walk
from fsl_course.methods.recurrent_rl import RecurrentPolicy, actor_critic_loss, thompson
from fsl_course.weights.checkpoints import save_file

OUT = Path(__file__).resolve().parents[2] / "data" / "checkpoints"
WAYS = ("dice", "first_order", "plain")
METHOD = {"navigation": "maml_rl", "bandits": "recurrent_rl"}
STEPS = {"navigation": 200, "bandits": 800}
NEAR = {"tasks": 512, "rate": 5e-3, "entropy": 0.1, "trace": 0.3, "discount": 0.9}
FAR = {"tasks": 1024, "rate": 3e-3, "entropy": 0.05, "trace": 0.9, "discount": 0.99}
NEAR_STEPS = 300  # of the steps at the levers: first a near-sighted reward, because it is easier to trace to its cause


def learner_of(way: str) -> MAMLRL:
    """Makes the untrained learner: with DiCE, without second derivatives, or with the plain surrogate."""
    return MAMLRL(GaussianPolicy(), first_order=way == "first_order", by=surrogate if way == "plain" else dice)


def train_navigation(seed: int, steps: int, way: str = "dice") -> MAMLRL:
    """Climbs the return after one inner step by Adam, on 20 goals with 20 trajectories at each step; the rate falls to 0."""
    torch.manual_seed(seed)
    learner, generator = learner_of(way), Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(learner.parameters(), 3e-3)
    plan = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for step in range(steps):
        update(learner, optimiser, loss := learner.meta_loss(Navigation.draw(20, generator), generator))
        plan.step()
        report(step, steps, loss)
    return learner


def train_bandits(seed: int, steps: int) -> RecurrentPolicy:
    """Trains by actor-critic on minus the regret over 20 pulls: first near-sighted, then far-sighted."""
    torch.manual_seed(seed)
    policy, generator = RecurrentPolicy(), Generator().manual_seed(seed)
    first = min(NEAR_STEPS, steps)
    for stage, count in ((NEAR, first), (FAR, steps - first)):
        optimiser = torch.optim.Adam(policy.parameters(), stage["rate"])
        for step in range(count):
            left = 1 - step / count
            optimiser.param_groups[0]["lr"] = stage["rate"] * (0.1 + 0.9 * left)
            world = Bandits.draw(int(stage["tasks"]), generator, horizon=20)
            played = policy.play(world, generator)
            goal = -world.regret(played["action"])
            loss = actor_critic_loss(played, goal, stage["discount"], stage["trace"], left * stage["entropy"])
            update(policy, optimiser, loss)
            report(step, count, -goal.sum(1).mean())
    return policy


def update(net: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the loss, with the gradient's norm cut to 1."""
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimiser.step()


def report(step: int, steps: int, value: Tensor) -> None:
    """Prints the value ten times in all."""
    if (step + 1) % max(1, steps // 10) == 0:
        print(f"step {step + 1}: {float(value.detach()):.3f}", flush=True)


@torch.no_grad()
def regrets(policy: RecurrentPolicy, horizon: int, tasks: int = 2000) -> dict[str, list[float]]:
    """Mean regret and half width of its interval, of the policy and of Thompson sampling, on the same test bandits."""
    world = Bandits.draw(tasks, Generator().manual_seed(1000), horizon=horizon)
    acted = policy.play(world, Generator().manual_seed(1))["action"], thompson(world, Generator().manual_seed(2))
    return {
        name: [round(float(v), 3) for v in mean_and_ci95(world.regret(actions).sum(1).double())]
        for name, actions in zip(("RL^2", "Thompson sampling"), acted, strict=True)
    }


def returns_of(learner: MAMLRL, steps: int = 3, tasks: int = 200) -> list[Tensor]:
    """Returns of test goals before adaptation and after each step: steps + 1 tensors [tasks]."""
    generator = Generator().manual_seed(1000)
    world = Navigation.draw(tasks, generator)
    found = learner.adapt(world, steps, generator)
    return [walk(world, learner.policy, params, 20, generator).rewards.sum(-1).mean(1) for params in found]


def file_name(data: str, seed: int, way: str = "dice") -> str:
    """Returns the name of the file. Seed 0 with DiCE ships; the others serve comparisons."""
    return f"{METHOD[data]}-{data}{f'-{way}' if way != 'dice' else ''}{f'-seed{seed}' if seed else ''}.safetensors"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=METHOD)
    parser.add_argument("--steps", type=int, help=f"updates ({STEPS})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--way", choices=WAYS, default="dice")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    steps, began = options.steps or STEPS[options.data], time.process_time()
    if options.data == "navigation":
        trained: nn.Module = train_navigation(options.seed, steps, options.way)
    else:
        trained = train_bandits(options.seed, steps)
    minutes = round((time.process_time() - began) / 60, 1)
    net = trained.policy if isinstance(trained, MAMLRL) else trained
    more = f" --way {options.way}" if options.way != "dice" else ""
    card: dict[str, Any] = {
        "method": METHOD[options.data],
        "class": type(net).__name__,
        "data": options.data,
        "command": f"python -m tools.results.train_acting {options.data} --steps {steps} --seed {options.seed}{more}",
        "seed": options.seed,
        "torch": torch.__version__,
        "threads": 1,
        "parameters": sum(p.numel() for p in net.parameters()),
        "minutes": minutes,
    }
    if isinstance(trained, MAMLRL):
        card["protocol"] = (
            "return on 200 other goals before and after 1, 2, 3 steps: mean, half width of the 95 % interval"
        )
        card["test"] = [[round(v, 3) for v in mean_and_ci95(r.double())] for r in returns_of(trained)]
    else:
        card["protocol"] = "regret over the horizon on 2000 other bandits: mean, half width of the 95 % interval"
        card["test"] = {str(horizon): regrets(trained, horizon) for horizon in (20, 100)}
    path = options.out / file_name(options.data, options.seed, options.way)
    save_file(path, net.state_dict(), card)
    replace_file(path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
