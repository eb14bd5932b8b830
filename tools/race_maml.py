"""MAML's meta-gradient: this course against a clone-and-adapt loop in the style of learn2learn, side by side in one run.

    python -m tools.race_maml                          # writes data/maml_speed.json
    python -m tools.race_maml --learn2learn FOLDER     # also races the real one, from a source checkout
    python -m tools.race_maml --profile                # where the time of a Conv4 step goes

Before anything is timed, all gradients must agree in float64. Times are medians of interleaved repeats; what counts is their
ratio. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fsl_course import EpisodeSampler, SinusoidSampler, load_glyphs
from fsl_course.episodes import Episode
from fsl_course.files import replace_file
from fsl_course.methods.base import supervised_loss
from fsl_course.methods.maml import MAML
from fsl_course.nets import classifier, conv4, mlp

OUT = Path(__file__).resolve().parent.parent / "data" / "maml_speed.json"
# name -> net, tasks, inner steps, repeats
ROWS: dict[str, tuple[str, int, int, int]] = {
    "sine MLP, 25 tasks, 5 steps": ("mlp", 25, 5, 15),
    "sine MLP, 100 tasks, 5 steps": ("mlp", 100, 5, 9),
    "Conv4 batch norm, 4 tasks, 1 step": ("batch", 4, 1, 9),
    "Conv4 batch norm, 4 tasks, 5 steps": ("batch", 4, 5, 9),
    "Conv4 group norm, 4 tasks, 1 step": ("group", 4, 1, 9),
    "Conv4 group norm, 4 tasks, 5 steps": ("group", 4, 5, 9),
}
RATE = 0.01
Gradient = Callable[[], list[Tensor]]


def model_and_tasks(net: str, tasks: int, dtype: torch.dtype) -> tuple[nn.Module, Episode]:
    """A fresh net and its tasks: sine curves of 10 + 10 points, or 5-way 1-shot glyphs with 15 queries a class."""
    torch.manual_seed(0)
    if net == "mlp":
        return mlp().to(dtype), SinusoidSampler(10, 10, dtype=dtype).batch(0, tasks)
    sampler = EpisodeSampler(load_glyphs().split("train"), 5, 1, 15, dtype=dtype)
    return classifier(conv4(norm=net), 5, features=64).to(dtype), sampler.batch(0, tasks)


def as_others_write_it(model: nn.Module) -> nn.Module:
    """The same function and weights as others lay it out: convolution, norm, ReLU, pooling; channels before rows of pixels."""
    if not hasattr(model, "encoder"):
        return model
    layers = list(model.encoder.layers)
    swapped = [layer for i in range(0, len(layers), 4) for layer in (*layers[i : i + 2], layers[i + 3], layers[i + 2])]
    return nn.Sequential(*swapped, nn.Flatten(), model.head).to(memory_format=torch.contiguous_format)


def cloned(module: nn.Module) -> nn.Module:
    """A copy of the module tree whose parameters are clones in the graph: gradients of the copy reach the original."""
    copy = module.__new__(type(module))
    copy.__dict__ = module.__dict__ | {
        "_parameters": {name: None if p is None else p.clone() for name, p in module._parameters.items()},
        "_buffers": dict(module._buffers),
        "_modules": {name: cloned(child) for name, child in module._modules.items()},
    }
    return copy


def descend(module: nn.Module, gradients: dict[Tensor, Tensor]) -> None:
    """Replaces each parameter by p - RATE * gradient, again in the graph."""
    for name, p in module._parameters.items():
        if p is not None:
            module._parameters[name] = p - RATE * gradients[p]
    for child in module._modules.values():
        descend(child, gradients)


def clone_and_adapt(model: nn.Module, episodes: Episode, steps: int) -> list[Tensor]:
    """The peer: one task after the other, a clone of the module each, gradients added up by backward."""
    model.zero_grad()
    for episode in episodes:
        learner = cloned(model)
        for _ in range(steps):
            params = list(learner.parameters())
            loss = supervised_loss(learner(episode.support_x), episode.support_y)
            gradients = torch.autograd.grad(loss, params, create_graph=True)
            descend(learner, dict(zip(params, gradients, strict=True)))
        supervised_loss(learner(episode.query_x), episode.query_y).backward()
    return [p.grad / len(episodes) for p in model.parameters()]


def learn2learn_from(folder: Path) -> Any:
    """The MAML class of a source checkout. Its compiled parts, which MAML does not need, are left out."""
    if not (folder / "learn2learn" / "algorithms" / "maml.py").is_file():
        raise FileNotFoundError(
            f"{folder} holds no learn2learn/algorithms/maml.py: name the root of a source checkout."
        )
    for name in ("learn2learn", "learn2learn.algorithms"):  # their __init__ would import the compiled parts
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = package
    from learn2learn.algorithms.maml import MAML as Real

    return Real


def real_learn2learn(real: Any, model: nn.Module, episodes: Episode, steps: int) -> list[Tensor]:
    """The training loop of learn2learn's examples around its own clone() and adapt()."""
    model.zero_grad()
    maml = real(model, lr=RATE)
    for episode in episodes:
        learner = maml.clone()
        for _ in range(steps):
            learner.adapt(supervised_loss(learner(episode.support_x), episode.support_y))
        supervised_loss(learner(episode.query_x), episode.query_y).backward()
    return [p.grad / len(episodes) for p in model.parameters()]


def course(model: nn.Module, episodes: Episode, steps: int) -> list[Tensor]:
    """This course: MAML.training_step as `fit` calls it."""
    model.zero_grad()
    MAML(model, RATE, steps).training_step(episodes).backward()
    return [p.grad for p in model.parameters()]


def racers(net: str, tasks: int, steps: int, real: Any, dtype: torch.dtype) -> dict[str, Gradient]:
    """Name -> a function that computes the meta-gradient of the same tasks from the same weights."""
    model, episodes = model_and_tasks(net, tasks, dtype)
    peer = as_others_write_it(model_and_tasks(net, tasks, dtype)[0])
    found: dict[str, Gradient] = {
        "course": lambda: course(model, episodes, steps),
        "clone and adapt": lambda: clone_and_adapt(peer, episodes, steps),
    }
    if real is not None:
        found["learn2learn"] = lambda: real_learn2learn(real, peer, episodes, steps)
    return found


def largest_difference(net: str, steps: int, real: Any) -> float:
    """The largest difference between any two meta-gradients in float64, relative to the largest entry."""
    results = [torch.cat([g.flatten() for g in run()]) for run in racers(net, 2, steps, real, torch.float64).values()]
    scale = results[0].abs().max()
    return max(float((other - results[0]).abs().max() / scale) for other in results[1:])


def race(net: str, tasks: int, steps: int, repeats: int, real: Any) -> dict[str, Any]:
    """One row: the largest difference of the gradients, then median seconds of interleaved repeats and their ratios."""
    difference = largest_difference(net, steps, real)
    if difference > 1e-8:
        raise AssertionError(
            f"the gradients differ by {difference:.1e} in float64: times would compare different things."
        )
    runs = racers(net, tasks, steps, real, torch.float32)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(values, seconds["course"], strict=True))
        for name, values in seconds.items()
        if name != "course"
    }
    return {"seconds": medians, "times_faster": ratios, "largest_difference": difference, "repeats": repeats}


def profile(norm: str, steps: int) -> str:
    """Where one task's time goes on one thread: operations by their own time."""
    torch.set_num_threads(1)
    run = racers(norm, 1, steps, None, torch.float32)["course"]
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as recorded:
        for _ in range(5):
            run()
    table = recorded.key_averages(group_by_input_shape=True)
    return table.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learn2learn", type=Path, metavar="FOLDER", help="root of a source checkout of learn2learn")
    parser.add_argument("--rows", default="", help="only rows whose name holds this text")
    parser.add_argument("--repeats", type=int, help="repeats of every row (9 to 15)")
    parser.add_argument("--profile", action="store_true", help="print where the time of a Conv4 step goes, and stop")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    if options.profile:
        print(profile("batch", 1))
        return
    real = None if options.learn2learn is None else learn2learn_from(options.learn2learn)
    rows = {}
    for name, (net, tasks, steps, repeats) in ROWS.items():
        if options.rows in name:
            rows[name] = race(net, tasks, steps, options.repeats or repeats, real)
            faster = ", ".join(f"{ratio:.2f} times {peer}" for peer, ratio in rows[name]["times_faster"].items())
            print(f"{name:36s} {1e3 * rows[name]['seconds']['course']:8.1f} ms   as fast as {faster}")
    about = {"command": "python -m tools.race_maml", "threads": torch.get_num_threads(), "torch": torch.__version__}
    replace_file(options.out, (json.dumps(about | {"rows": rows}, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
