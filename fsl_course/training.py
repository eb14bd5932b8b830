"""The training loop over episodes: validation, best weights, schedule, clipping, and runs that survive being stopped."""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsl_course.checkpoints import CheckpointError, layouts_like, load_file, load_weights, save_file
from fsl_course.episodes import Episode, EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.live import LiveProgress
from fsl_course.methods.base import FewShotLearner


@dataclass
class History:
    """What happened, step by step.

    loss:        of every step
    accuracy:    on the queries of every step (classification methods whose loss calls forward; otherwise empty)
    validation:  (steps done, mean, ci95), accuracy or mean squared error
    best_step:   steps done when validation was best; None without validation
    interrupted: True when Ctrl-C (or the stop button) ended the run early
    seconds:     time spent in this and earlier parts of the run
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    validation: list[tuple[int, float, float]] = field(default_factory=list)
    best_step: int | None = None
    interrupted: bool = False
    seconds: float = 0.0


def learning_rate(step: int, *, lr: float, steps: int, halve_every: int | None, cosine: bool) -> float:
    """The rate of step 0, 1, ...: constant, halved every so many steps, or a cosine from lr to 0 over all steps."""
    if cosine:
        return lr * 0.5 * (1 + math.cos(math.pi * step / steps))
    return lr * 0.5 ** (step // halve_every) if halve_every else lr


@contextmanager
def _gentle_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets an event, so that the step under way is finished; a second Ctrl-C interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals reach the main thread only
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(signum: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _query_accuracy(learner: FewShotLearner) -> Iterator[list[float]]:
    """Collects the accuracy of every forward(episode) on class labels while the block runs."""
    seen: list[float] = []

    def record(module: FewShotLearner, args: tuple, logits: Tensor) -> None:
        if args and isinstance(args[0], Episode) and not args[0].query_y.is_floating_point():
            seen.append(float((logits.detach().argmax(-1) == args[0].query_y).cpu().double().mean()))

    hook = learner.register_forward_hook(record)
    try:
        yield seen
    finally:
        hook.remove()


@torch.no_grad()
def _put_back(learner: FewShotLearner, buffers: list[tuple[Tensor, Tensor]]) -> None:
    """Undoes what a forward pass did to the running statistics, and ends the training mode."""
    for buffer, before in buffers:
        buffer.copy_(before)
    learner.eval()


def _named(learner: FewShotLearner) -> str:
    """A learner's class and plain settings, e.g. SiameseNetwork(margin=10.0, objective='bce'). Runs go on with the same only."""
    plain = {k: v for k, v in vars(learner).items() if not k.startswith("_") and k != "training"}
    plain = {k: v for k, v in sorted(plain.items()) if v is None or isinstance(v, (bool, int, float, str))}
    return f"{type(learner).__name__}({', '.join(f'{k}={v!r}' for k, v in plain.items())})"


class _Run:
    """The state of one run: everything that a killed run needs to go on bit for bit."""

    def __init__(self, learner: FewShotLearner, optimiser: torch.optim.Optimizer, settings: dict[str, Any]) -> None:
        self.learner, self.optimiser, self.settings = learner, optimiser, settings
        self.history, self.done = History(), 0
        self.best: dict[str, Tensor] = {}

    def keep_best(self) -> None:
        """Copies: a state_dict alone would go on changing with the weights (trap S1)."""
        self.best = {name: tensor.detach().clone() for name, tensor in self.learner.state_dict().items()}

    def save(self, path: Path) -> None:
        tensors = {f"model.{k}": t for k, t in self.learner.state_dict().items()}
        tensors |= {f"best.{k}": t for k, t in self.best.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items() if v is not None}
        tensors["rng"] = torch.get_rng_state()
        save_file(path, tensors, {"settings": self.settings, "done": self.done, "history": asdict(self.history)})

    def load(self, path: Path) -> None:
        tensors, about = load_file(path)
        found = about.get("settings", {})
        changed = [k for k in self.settings if k != "steps" and found.get(k) != self.settings[k]]
        if about.get("done", 0) > self.settings["steps"]:
            raise CheckpointError(
                f"{path} has {about['done']} steps behind it, more than the {self.settings['steps']} asked for. "
                "Ask for at least as many, or name another checkpoint file to start anew."
            )
        if self.settings["cosine"] and found.get("steps") != self.settings["steps"]:
            changed.append("steps")
        if changed:
            lines = "; ".join(f"{k}: {found.get(k)!r} there, {self.settings[k]!r} now" for k in changed)
            raise CheckpointError(
                f"{path} belongs to a run with other settings ({lines}). Take the same settings to go on, "
                "or name another checkpoint file to start anew."
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            if part in parts:
                parts[part][rest] = tensor
        load_weights(self.learner, parts["model"], path)
        self._load_optimiser(parts["optimiser"])
        self.best = parts["best"]
        self.done = about["done"]
        history = about["history"]
        history["validation"] = [tuple(v) for v in history["validation"]]
        self.history = History(**history)
        self.history.interrupted = False
        torch.set_rng_state(tensors["rng"])

    def _load_optimiser(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        for name, tensor in tensors.items():
            index, _, key = name.partition(".")
            target = parameters[int(index)]
            same_shape = tensor.shape == target.shape
            state.setdefault(int(index), {})[key] = layouts_like(tensor, target) if same_shape else tensor
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})


def fit(
    learner: FewShotLearner,
    sampler: EpisodeSampler | SinusoidSampler,
    *,
    steps: int,
    tasks: int = 1,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    clip: float | None = None,
    halve_every: int | None = None,
    cosine: bool = False,
    validation: EpisodeSampler | SinusoidSampler | None = None,
    validate_every: int = 100,
    validation_episodes: int = 100,
    checkpoint: str | Path | None = None,
    save_every: int = 100,
    progress: bool = True,
) -> History:
    """Trains a learner in place with Adam on episodes 0, 1, 2, ... of a sampler, `tasks` of them a step.

    steps:       updates in all; a resumed run goes on to this number
    lr:          Adam's rate; halve_every halves it every so many steps (Snell et al. 2017 train so), cosine takes it to 0
    clip:        largest allowed norm of the whole gradient, or None
    validation:  a sampler over validation classes, asked every validate_every steps and at the end; the best weights seen
                 are put back at the end
    checkpoint:  a file that is written at the start, every save_every steps and at the end; if it exists, the run goes on from
                 it and ends with the same weights, bit for bit, as a run that was never stopped (same machine, threads and
                 versions; a run that is lengthened keeps the validation made at its old end)
    progress:    a bar in a terminal, a live curve with the chance line in a notebook

    Ctrl-C ends the run after the step under way: the learner keeps its last weights, the checkpoint is written, and the
    returned history says interrupted=True. A second Ctrl-C stops at once.

    Raises ValueError for settings that cannot work; CheckpointError where the checkpoint belongs to another run, is damaged or
    cannot be written (at the start and at the end; in between it is a warning); FloatingPointError where loss or gradient is no
    longer finite: the learner then holds the weights and running statistics before that step, in evaluation mode.
    """
    if steps < 1 or tasks < 1 or validate_every < 1 or save_every < 1:
        raise ValueError(
            "steps, tasks, validate_every and save_every must be at least 1; "
            f"got {steps}, {tasks}, {validate_every}, {save_every}."
        )
    if halve_every is not None and (halve_every < 1 or cosine):
        raise ValueError("halve_every must be at least 1 and cannot be combined with cosine.")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be a gradient norm above 0, or None; got {clip}.")
    if validation is not None and validation_episodes < 2:
        raise ValueError(f"validation_episodes must be at least 2, for an interval; got {validation_episodes}.")
    parameters = [p for p in learner.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{type(learner).__name__} has no parameters to train.")
    regression = isinstance(sampler, SinusoidSampler)
    metric, chance = ("mse", None) if regression else ("accuracy", 1 / sampler.n_way)
    settings = {
        "steps": steps, "tasks": tasks, "lr": lr, "weight_decay": weight_decay, "clip": clip, "halve_every": halve_every,
        "cosine": cosine, "sampler": sampler.key, "validation": None if validation is None else validation.key,
        "validate_every": validate_every, "validation_episodes": validation_episodes, "learner": _named(learner),
    }  # fmt: skip
    run = _Run(learner, torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay), settings)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        run.load(path)
    history, began = run.history, time.monotonic()
    earlier = history.seconds

    def save(*, last: bool) -> None:
        if path is None:
            return
        history.seconds = earlier + time.monotonic() - began
        try:
            run.save(path)
        except CheckpointError as error:
            if last:
                raise
            warnings.warn(f"{error} Training goes on without it.", stacklevel=2)

    with (
        _gentle_interrupt() as interrupted,
        _query_accuracy(learner) as seen,
        LiveProgress(steps, run.done, chance, quiet=not progress) as live,
    ):
        if run.done == 0:
            save(last=True)  # a folder that cannot be written to must show before the training, not after it
        while run.done < steps and not interrupted.is_set():
            learner.train()
            buffers = [(buffer, buffer.clone()) for buffer in learner.buffers()]
            seen.clear()
            for group in run.optimiser.param_groups:
                group["lr"] = learning_rate(run.done, lr=lr, steps=steps, halve_every=halve_every, cosine=cosine)
            loss = learner.training_step(sampler.batch(run.done * tasks, tasks))
            run.optimiser.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
            # a finite loss can have a gradient that is not, e.g. a bare square root at 0
            for name, value in (("loss", loss), ("norm of the gradient", norm)):
                if not torch.isfinite(value):
                    _put_back(learner, buffers)
                    raise FloatingPointError(
                        f"the {name} became {value.item()} at step {run.done}: try a smaller lr (now {lr}) or clip=1.0. "
                        "The learner holds the weights before this step."
                    )
            run.optimiser.step()
            run.done += 1
            history.loss.append(loss.item())
            if seen:
                history.accuracy.append(math.fsum(seen) / len(seen))  # exact: tasks may end in any order
            if validation is not None and (run.done % validate_every == 0 or run.done == steps):
                result = evaluate(learner, validation, validation_episodes, metric=metric)
                history.validation.append((run.done, result.mean, result.ci95))
                means = [mean if metric == "accuracy" else -mean for _, mean, _ in history.validation]
                if means[-1] > max(means[:-1], default=-math.inf):
                    history.best_step = run.done
                    run.keep_best()
            live.update(run.done, history.loss, history.accuracy, history.validation)
            if run.done % save_every == 0:
                save(last=False)
        live.finish(run.done, history.loss, history.accuracy, history.validation)
    history.interrupted = interrupted.is_set() and run.done < steps
    history.seconds = earlier + time.monotonic() - began
    save(last=True)
    if history.interrupted:
        where = (
            f"The state is in {path}: the same call goes on from there." if path else "The learner keeps its weights."
        )
        print(f"Stopped after step {run.done} of {steps}. {where}")
    elif run.best:
        load_weights(learner, run.best, path or "memory")
    learner.eval()
    return history
