"""In-context learners of lesson 13: on made-up tables, and on the embeddings of shipped ProtoNet weights.

    OMP_NUM_THREADS=1 python -m tools.results.train_in_context tables
    OMP_NUM_THREADS=1 python -m tools.results.train_in_context glyphs

Each writes data/checkpoints/in_context-NAME.safetensors and its card, whose "test" rows hold what the weights reach. On Glyphs
the encoder is that of prototypical-glyphs and stays as it is: only the transformer learns, from pictures embedded once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from fsl_course import EpisodeSampler, evaluate, load_glyphs, pretrained
from fsl_course._system.files import replace_file
from fsl_course.episodes import Episode, table_tasks
from fsl_course.evaluation import embed_all, evaluation_mode, mean_and_ci95
from fsl_course.methods.in_context import InContextLearner
from fsl_course.weights.checkpoints import save_learner
from fsl_course.weights.learners import make

OUT = Path(__file__).resolve().parents[2] / "data" / "checkpoints"
WIDTH = 16  # columns of a table, at most
STEPS = {"tables": 5000, "glyphs": 2000}
RATE = {"tables": 2e-3, "glyphs": 1e-3}
SETTINGS: dict[str, dict[str, Any]] = {"tables": {"features": WIDTH}, "glyphs": {"in_channels": 1}}


def number(low: int, high: int, generator: Generator) -> int:
    """Draws a whole number from low to high."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def tables(generator: Generator) -> Iterator[Episode]:
    """Yields steps of 16 tables with 2 to 10 classes, 1 to 10 shots (at most 60 rows) and 2 to WIDTH columns."""
    while True:
        n_way, features = number(2, 10, generator), number(2, WIDTH, generator)
        shots = number(1, min(10, 60 // n_way), generator)
        yield table_tasks(16, n_way, shots, 2, features, WIDTH, generator)


def embedded_glyphs(learner: InContextLearner) -> Callable[[Generator], Iterator[Episode]]:
    """Gives the learner the encoder of prototypical-glyphs, and returns a source of steps of 8 tasks on its embeddings."""
    learner.encoder.load_state_dict(pretrained("prototypical", "glyphs").encoder.state_dict())
    source = load_glyphs().split("train")
    table = embed_all(learner, source.images.flatten(0, 1))

    def episodes(generator: Generator) -> Iterator[Episode]:
        start = 0
        while True:
            way, shot = number(5, 20, generator), (1, 1, 5)[number(0, 2, generator)]
            drawn = EpisodeSampler(source, way, shot, 3).layout(start, 8)
            start += 8
            yield Episode(table[drawn.support], drawn.support_y, table[drawn.query], drawn.query_y, drawn.classes)

    return episodes


def train(learner: InContextLearner, episodes: Iterator[Episode], steps: int, rate: float) -> None:
    """Minimises the loss of the transformer by Adam; the rate rises over a tenth of the steps and then falls along a cosine."""
    encoder = learner.encoder
    learner.encoder = torch.nn.Identity()  # the episodes are embedded already
    parameters = [p for p in learner.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, rate)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        loss = learner.training_step(next(episodes))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        plan.step()
        if step % max(1, steps // 20) == 0:
            print(f"step {step} of {steps}: loss {float(loss.detach()):.3f}", flush=True)
    learner.encoder = encoder


@torch.no_grad()
def test_tables(learner: InContextLearner, tasks: int) -> list[dict[str, Any]]:
    """Measures the accuracy on made-up tables of another seed."""
    rows = []
    for way, shot in ((3, 5), (10, 5)):
        task = table_tasks(tasks, way, shot, 5, 8, WIDTH, Generator().manual_seed(1))
        logits = learner.score(task.support_x, task.support_y, task.query_x, way)
        mean, ci95 = mean_and_ci95((logits.argmax(-1) == task.query_y).double().mean(-1))
        rows.append({"way": way, "shot": shot, "mean": mean, "ci95": ci95})
    return rows


def test_glyphs(learner: InContextLearner, episodes: int) -> list[dict[str, Any]]:
    """Measures the accuracy on test classes."""
    source, rows = load_glyphs().split("test"), []
    for way, shot in ((5, 1), (5, 5), (20, 1), (20, 5)):
        result = evaluate(learner, EpisodeSampler(source, way, shot, 15), episodes)
        rows.append({"way": way, "shot": shot, "query": 15, "mean": result.mean, "ci95": result.ci95})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=STEPS)
    parser.add_argument("--steps", type=int, help="updates")
    parser.add_argument("--episodes", type=int, default=600, help="test tasks (600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    name, steps = options.data, options.steps or STEPS[options.data]
    torch.manual_seed(options.seed)
    learner = make("in_context", **SETTINGS[name])
    source = tables if name == "tables" else embedded_glyphs(learner)
    began = time.perf_counter()
    train(learner, source(Generator().manual_seed(options.seed)), steps, RATE[name])
    card: dict[str, Any] = {"method": "in_context", "settings": SETTINGS[name], "data": name}
    save_learner(options.out / f"in_context-{name}.safetensors", learner, card)
    test = test_tables if name == "tables" else test_glyphs
    with evaluation_mode(learner):
        found = test(learner, options.episodes)
    card |= {
        "command": f"python -m tools.results.train_in_context {name} --steps {steps} --seed {options.seed}",
        "seed": options.seed,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in learner.parameters()),
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "protocol": f"{options.episodes} tasks of other seeds or test classes; mean, half width of the 95 % interval",
        "test": found,
    }
    replace_file(options.out / f"in_context-{name}.json", (json.dumps(card, indent=2) + "\n").encode())
    for row in found:
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})


if __name__ == "__main__":
    main()
