"""The training loop over episodes: validation, best weights, schedule, clipping, and runs that survive being stopped."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from fsl_course._system.allocator import keep_memory
from fsl_course._system.interrupts import gentle_interrupt
from fsl_course.episodes import Episode, EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.inner_loop.support_statistics import replaced
from fsl_course.methods.base import FewShotLearner
from fsl_course.training import distributed
from fsl_course.training.live import LiveProgress
from fsl_course.training.run_state import History, RunState, named
from fsl_course.weights.checkpoints import CheckpointError, load_weights

__all__ = ["History", "fit", "learning_rate"]

_SAVE_SECONDS = 300.0  # a slow run is saved at least this often, whatever save_every says
_SAVE_SHARE = (
    10  # a fast run trains this many times as long as it saves: its history grows, up to 0.2 s for 60 000 steps
)


def learning_rate(step: int, *, lr: float, steps: int, halve_every: int | None, cosine: bool) -> float:
    """The rate of step 0, 1, ...: constant, halved every so many steps, or a cosine from lr to 0 over all steps."""
    if cosine:
        return lr * 0.5 * (1 + math.cos(math.pi * step / steps))
    return lr * 0.5 ** (step // halve_every) if halve_every else lr


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


def _embedding_networks(learner: FewShotLearner) -> list[nn.Module]:
    """The networks that bfloat16=True speaks of: the encoder, and the relation module where there is one."""
    networks = [net for name in ("encoder", "relation") if (net := getattr(learner, name, None)) is not None]
    if not networks:
        raise ValueError(
            f"bfloat16 is for methods with an encoder; {type(learner).__name__} adapts its weights, which needs float32."
        )
    return networks


@contextmanager
def _in_bfloat16(learner: FewShotLearner) -> Iterator[None]:
    """Embeddings (and relations) are computed with the convolutions in bfloat16, all that follows in float32 as before.

    Weights, their gradients and the statistics of batch norm stay float32.
    """

    usual = {net: net.forward for net in _embedding_networks(learner)}

    def lowered(net: nn.Module, *inputs: Tensor) -> Tensor:
        with torch.autocast(inputs[0].device.type, torch.bfloat16):
            return usual[net](*inputs).float()

    with replaced(list(usual), lowered):
        yield


@torch.no_grad()
def _put_back(learner: FewShotLearner, buffers: list[tuple[Tensor, Tensor]]) -> None:
    """Undoes what a forward pass did to the running statistics, and ends the training mode."""
    for buffer, before in buffers:
        buffer.copy_(before)
    learner.eval()


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
    lr:          Adam's rate; halve_every halves it every so many steps (Snell et al. 2017 train so), cosine takes it to 0
    bfloat16:    compute embeddings with convolutions in bfloat16: 1.6 times faster where the processor knows it
    clip:        largest allowed norm of the whole gradient, or None
    validation:  a sampler over validation classes, asked every validate_every steps and at the end; the best weights seen
                 are put back at the end
    checkpoint:  a file that is written at the start, every save_every steps (or 5 minutes; less often where that would take a
                 tenth of the time) and at the end; if it exists, the run goes on from it and ends with the same weights, bit
                 for bit, as a run that was never stopped (same machine, threads and versions; a run that is lengthened keeps
                 the validation made at its old end)
    progress:    a bar in a terminal, a live curve with the chance line in a notebook

    Works on the device of the learner's parameters; batches are moved there, wherever the sampler's pictures are.

    Ctrl-C or SIGTERM ends the run after the step under way: the learner keeps its last weights, the checkpoint is written, and
    the returned history says interrupted=True. A second Ctrl-C stops at once.

    Inside `distributed.processes()` each process takes its share of the tasks of every step, for a training_step that is the
    mean over its tasks: all processes hold the same weights, those of one process up to rounding. How many there are is no
    setting of the run: it may go on with another number. The first alone validates, saves and shows progress.

    Raises ValueError for settings that cannot work; CheckpointError where the checkpoint belongs to another run, is damaged or
    cannot be written (at the start and at the end; in between it is a warning); FloatingPointError where loss or gradient is no
    longer finite: the learner then holds the weights and running statistics before that step, in evaluation mode;
    ConnectionError where another process of the run has ended: likewise, and the checkpoint is written.
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
    if bfloat16:
        _embedding_networks(learner)  # an error here, not after the data of a step are drawn
    group = distributed.current()
    group.check(learner, tasks)
    regression = isinstance(sampler, SinusoidSampler)
    metric, chance = ("mse", None) if regression else ("accuracy", 1 / sampler.n_way)
    settings = {
        "steps": steps, "tasks": tasks, "lr": lr, "weight_decay": weight_decay, "clip": clip, "halve_every": halve_every,
        "cosine": cosine, "sampler": sampler.key, "validation": None if validation is None else validation.key,
        "validate_every": validate_every, "validation_episodes": validation_episodes, "learner": named(learner),
    } | ({"bfloat16": True} if bfloat16 else {})  # fmt: skip
    keep_memory()
    run = RunState(learner, torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay), settings)
    path = Path(checkpoint) if checkpoint is not None and group.first else None
    if path is not None and path.exists():
        run.resume(path)
    run.spread(group)
    saved = began = time.monotonic()
    cost, earlier = 0.0, run.history.seconds

    def save(*, last: bool) -> bool:
        """True where a file was written."""
        nonlocal saved, cost
        start = time.monotonic()
        run.history.seconds = earlier + start - began
        if path is None:
            return False
        written = True
        try:
            run.save(path)
        except CheckpointError as error:
            if last:
                raise
            written = False
            warnings.warn(f"{error} Training goes on without it.", stacklevel=2)
        saved = time.monotonic()
        cost = saved - start
        return written

    with (
        gentle_interrupt() as interrupted,
        _query_accuracy(learner) as seen,
        LiveProgress(steps, run.done, chance, quiet=not (progress and group.first)) as live,
    ):
        if run.done == 0:
            save(last=True)  # a folder that cannot be written to must show before the training, not after it
        history, buffers = run.history, []
        stop = interrupted.is_set() and group.size == 1
        try:
            while run.done < steps and not stop:
                learner.train()
                buffers = [(buffer, buffer.clone()) for buffer in learner.buffers()]
                seen.clear()
                for options in run.optimiser.param_groups:
                    options["lr"] = learning_rate(run.done, lr=lr, steps=steps, halve_every=halve_every, cosine=cosine)
                with _in_bfloat16(learner) if bfloat16 else nullcontext():
                    episodes = sampler.batch(*group.share(run.done * tasks, tasks))
                    loss = learner.training_step(episodes.to(run.device))
                run.optimiser.zero_grad()
                loss.backward()
                # fsum is exact: tasks may end in any order
                numbers = [loss.item() / group.size, math.fsum(seen), len(seen), interrupted.is_set()]
                if group.size > 1:
                    numbers = group.combine(learner, buffers, numbers)
                value, right, counted, asked = numbers
                norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip).item()
                # a finite loss can have a gradient that is not, e.g. a bare square root at 0
                for name, number in (("loss", value), ("norm of the gradient", norm)):
                    if not math.isfinite(number):
                        raise FloatingPointError(
                            f"the {name} became {number} at step {run.done}: try a smaller lr (now {lr}) or clip=1.0. "
                            "The learner holds the weights before this step."
                        )
                run.optimiser.step()
                run.done, buffers = run.done + 1, []
                history.loss.append(value)
                if counted:
                    history.accuracy.append(right / counted)
                if validation is not None and (run.done % validate_every == 0 or run.done == steps):
                    if group.first:
                        run.validated(evaluate(learner, validation, validation_episodes, metric=metric))
                    group.wait()
                live.update(run.done, history.loss, history.accuracy, history.validation)
                since = time.monotonic() - saved
                if (run.done % save_every == 0 and since > _SAVE_SHARE * cost) or since > _SAVE_SECONDS:
                    save(last=False)
                # processes stop after the same step: the one that all of them have heard of
                stop = interrupted.is_set() if group.size == 1 else asked > 0
        except (FloatingPointError, ConnectionError) as error:
            _put_back(learner, buffers)
            if isinstance(error, ConnectionError):
                written = save(last=False)
                where = f" The state after step {run.done} is in {path}: start again to go on." if written else ""
                raise ConnectionError(f"{error}{where}") from error
            raise
        live.finish(run.done, history.loss, history.accuracy, history.validation)
    history.interrupted = stopped = stop and run.done < steps
    save(last=True)
    run.spread(group)  # validation and the best weights are known to the first process only
    run.history.interrupted = stopped
    if stopped and group.first:
        where = (
            f"The state is in {path}: the same call goes on from there." if path else "The learner keeps its weights."
        )
        print(f"Stopped after step {run.done} of {steps}. {where}")
    elif run.best and not stopped:
        load_weights(learner, run.best, path or "memory")
    learner.eval()
    return run.history
