"""The training loop over episodes. The files beside it hold what it calls: saving, several processes, bfloat16, live curves."""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fsl_course._system.allocator import keep_memory
from fsl_course._system.interrupts import gentle_interrupt
from fsl_course.episodes import EpisodeSampler, SinusoidSampler
from fsl_course.episodes._blocks import check_whole
from fsl_course.evaluation import check_kinds, metric_of
from fsl_course.methods.base import FewShotLearner
from fsl_course.training import distributed
from fsl_course.training.live import LiveProgress
from fsl_course.training.run_state import History, RunState, named
from fsl_course.training.saving import Saver
from fsl_course.training.step import embedding_networks, in_bfloat16, query_accuracies, undone_on_failure
from fsl_course.weights.checkpoints import load_weights

__all__ = ["History", "fit", "learning_rate"]


def learning_rate(step: int, lr: float, steps: int, halve_every: int | None, cosine: bool) -> float:
    """Returns the rate of step 0, 1, ...: constant, halved every so many steps, or a cosine from lr to 0 over all steps."""
    if cosine:
        return lr * 0.5 * (1 + math.cos(math.pi * step / steps))
    return lr * 0.5 ** (step // halve_every) if halve_every else lr


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
    bfloat16: bool = False,
    validation: EpisodeSampler | SinusoidSampler | None = None,
    validate_every: int = 100,
    validation_episodes: int = 100,
    checkpoint: str | Path | None = None,
    save_every: int = 100,
    progress: bool = True,
) -> History:
    """Trains a learner in place with Adam on episodes 0, 1, 2, ... of a sampler, `tasks` of them a step.

    steps:       updates in all; a resumed run goes on to this number
    lr:          Adam's rate; halve_every halves it every so many steps (as in Snell et al. 2017), cosine takes it to 0
    bfloat16:    computes embeddings with convolutions in bfloat16: 1.6 times faster on processors that support it
    clip:        largest allowed norm of the whole gradient, or None
    validation:  a sampler over validation classes, evaluated every validate_every steps and at the end; the learner ends with
                 the weights that were best on it
    checkpoint:  a file that is written at the start, every save_every steps (or 5 minutes; less often if that would take a
                 tenth of the time) and at the end. If the file exists, the run goes on from it and ends with the same weights,
                 bit for bit, as a run that was never stopped (same machine, threads and versions; a run that is lengthened
                 keeps the validation made at its old end)
    progress:    a bar in a terminal, a live curve with the chance line in a notebook

    Works on the device of the learner's parameters. A complete run ends with `learner.after_training(sampler)`. Ctrl-C or SIGTERM
    ends the run after the current step: the learner keeps its last weights, the checkpoint is written, and the returned history
    says interrupted=True. A second Ctrl-C stops at once.

    Inside `distributed.processes()` each process takes its share of the tasks of every step. This needs a training_step that is
    the mean over its tasks. A run may go on with another number of processes. Only the first validates, saves and shows progress.

    Raises ValueError for settings that cannot work; CheckpointError if the checkpoint belongs to another run, is damaged or
    cannot be written (at the start and at the end; in between this is a warning); FloatingPointError if the loss or the gradient
    is no longer finite, and ConnectionError if another process has ended: the learner is then as it was before that step.
    """
    check_kinds(learner, sampler)
    settings = {
        "steps": steps, "tasks": tasks, "lr": lr, "weight_decay": weight_decay, "clip": clip, "halve_every": halve_every,
        "cosine": cosine, "sampler": sampler.key, "validation": None if validation is None else validation.key,
        "validate_every": validate_every, "validation_episodes": validation_episodes, "learner": named(learner),
    } | ({"bfloat16": True} if bfloat16 else {})  # fmt: skip
    group = distributed.current()
    parameters = _checked(learner, settings, save_every, group)
    keep_memory()
    optimiser = torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)
    run = RunState(learner, optimiser, settings)
    saver = Saver(run, checkpoint if group.first else None, save_every)
    chance = 1 / sampler.n_way if metric_of(sampler) == "accuracy" else None
    asked = 0.0
    with (
        gentle_interrupt() as interrupted,  # first, so that it also covers the save after a lost connection
        saver.begun(group) as history,
        LiveProgress(steps, run.done, chance, quiet=not (progress and group.first)) as live,
    ):
        # several processes stop after the same step: the one in which all hear that one of them was asked to
        while run.done < steps and not (asked if group.size > 1 else interrupted.is_set()):
            optimiser.param_groups[0]["lr"] = learning_rate(run.done, lr, steps, halve_every, cosine)
            with undone_on_failure(learner.train()) as buffers, query_accuracies(learner) as seen:
                with in_bfloat16(learner) if bfloat16 else nullcontext():
                    episodes = sampler.batch(*group.share(run.done * tasks, tasks))
                    loss = learner.training_step(episodes.to(run.device))
                optimiser.zero_grad()
                loss.backward()
                # fsum is exact: tasks may end in any order
                numbers = [loss.item() / group.size, math.fsum(seen), len(seen), interrupted.is_set()]
                value, right, counted, asked = group.combine(learner, buffers, numbers)
                norm = torch.nn.utils.clip_grad_norm_(parameters, clip or math.inf).item()
                _check_finite({"loss": value, "norm of the gradient": norm}, run.done, lr)
                optimiser.step()
            run.add_step(value, right / counted if counted else None)
            if validation is not None and (run.done % validate_every == 0 or run.done == steps):
                run.validate(validation, validation_episodes, group)
            live.update(run.done, history.loss, history.accuracy, history.validation)
            saver.after_step()
        live.finish(run.done, history.loss, history.accuracy, history.validation)
    return _finish(run, saver, group, sampler)


def _checked(
    learner: FewShotLearner, s: dict[str, Any], save_every: int, group: distributed.Processes
) -> list[nn.Parameter]:
    """Returns the parameters to train. Raises ValueError for settings s that cannot work."""
    check_whole(1, steps=s["steps"], tasks=s["tasks"], validate_every=s["validate_every"], save_every=save_every)
    if s["halve_every"] is not None and (s["halve_every"] < 1 or s["cosine"]):
        raise ValueError("halve_every must be at least 1 and cannot be combined with cosine.")
    if s["clip"] is not None and not s["clip"] > 0:
        raise ValueError(f"clip must be a gradient norm above 0, or None; got {s['clip']}.")
    if s["validation"] is not None and s["validation_episodes"] < 2:
        raise ValueError(f"validation_episodes must be at least 2, for an interval; got {s['validation_episodes']}.")
    parameters = [p for p in learner.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{type(learner).__name__} has no parameters to train.")
    if "bfloat16" in s:
        embedding_networks(learner)  # raises its error here, not after the data of a step are drawn
    group.check(learner, s["tasks"])
    return parameters


def _check_finite(numbers: dict[str, float], step: int, lr: float) -> None:
    """Raises FloatingPointError, with advice, if a number is not finite: a finite loss may have a gradient that is not."""
    for name, number in numbers.items():
        if not math.isfinite(number):
            cure = f"try a smaller lr (now {lr}) or clip=1.0. The learner holds the weights before this step"
            raise FloatingPointError(f"the {name} became {number} at step {step}: {cure}.")


def _finish(
    run: RunState, saver: Saver, group: distributed.Processes, sampler: EpisodeSampler | SinusoidSampler
) -> History:
    """Saves a run that is complete or was stopped, and makes the learner ready for use. Returns the history."""
    stopped = run.done < run.settings["steps"]
    run.history.interrupted = stopped
    saver.save()
    run.spread(group)  # only the first process knows the validation and the best weights
    run.history.interrupted = stopped
    learner = run.learner.eval()
    if not stopped:
        if run.best:
            load_weights(learner, run.best, saver.path or "memory")
        with torch.no_grad():
            # after the last save, so that a run that goes on from the file is the same with or without this call; in every
            # process, which all hold the same weights here
            learner.after_training(sampler)
    elif group.first:
        where = f"The state is in {saver.path}: the same call goes on from there." if saver.path else ""
        print(f"Stopped after step {run.done} of {run.settings['steps']}. {where or 'The learner keeps its weights.'}")
    return run.history
