"""One training run on several processes, which torchrun starts on one machine or many.

Each process takes its share of a step's tasks. Gradients and running statistics are combined as if one process had done them all.
"""

import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from fsl_course.methods.base import FewShotLearner

# How long to wait for another process: within a step, because a machine that vanished sends no error; and while the first process
# validates alone. A process that dies is noticed at once in both cases.
_A_STEP, _A_VALIDATION = timedelta(minutes=10), timedelta(days=2)

Copies = Sequence[tuple[Tensor, Tensor]]  # each buffer of a learner with a copy from before the step


@contextmanager
def _reachable() -> Iterator[None]:
    """Raises ConnectionError instead of the RuntimeError about sockets that PyTorch raises when another process has gone."""
    try:
        yield
    except RuntimeError as error:
        # the message without PyTorch's file and advice
        reason = re.sub(r"^\[\S*\]\s*", "", str(error)).split("\n")[0].split(". ")[0]
        raise ConnectionError(f"another process of this run has ended or cannot be reached ({reason}).") from error


@dataclass(frozen=True)
class Processes:
    """The processes of a run: the number of this one and how many there are. One process alone is Processes()."""

    rank: int = 0
    size: int = 1
    patient: Any = None  # a second group for long waits, always over the CPU

    @property
    def first(self) -> bool:
        """True for the one process that validates, writes and prints."""
        return self.rank == 0

    def check(self, learner: FewShotLearner, tasks: int) -> None:
        """Raises ValueError if the tasks of a step cannot be shared, or if sharing them would change the result."""
        if self.size == 1:
            return
        if tasks % self.size:
            cure = f"take tasks={self.size * -(-tasks // self.size)} (on the command line --tasks)"
            raise ValueError(f"tasks={tasks} cannot be shared evenly among {self.size} processes: {cure}.")
        if learner.joins_tasks and any(isinstance(m, _BatchNorm) for m in learner.modules()):
            raise ValueError(
                "pretraining normalises the pictures of all tasks of a step together, so with batch norm they cannot be "
                'shared among processes: train with one process, or with norm="group".'
            )

    def share(self, start: int, tasks: int) -> tuple[int, int]:
        """Returns which of the episodes start .. start+tasks-1 are for this process: the first one, and how many."""
        count = tasks // self.size
        return start + self.rank * count, count

    def wait(self) -> None:
        """Waits until all processes have come here, however long it takes. Raises ConnectionError if one has ended."""
        if self.size > 1:
            with _reachable():
                dist.barrier(group=self.patient)

    def from_first(self, content: bytes) -> bytes:
        """Returns the bytes that the first process passes, in every process. What the others pass is ignored."""
        length = torch.tensor([len(content)])
        with _reachable():
            dist.broadcast(length, 0, group=self.patient)
            found = torch.frombuffer(bytearray(content if self.first else int(length)), dtype=torch.uint8)
            dist.broadcast(found, 0, group=self.patient)
        return found.numpy().tobytes()

    @torch.no_grad()
    def combine(self, learner: FewShotLearner, buffers: Copies, numbers: Sequence[float]) -> list[float]:
        """Combines the processes after backward by one message, and returns the sums of `numbers` over the processes.

        Gradients become their mean over the processes (none where no process has one), running statistics those of all tasks in
        order.
        """
        if self.size == 1:
            return list(numbers)
        parameters = [p for p in learner.parameters() if p.requires_grad]
        statistics = _statistics(learner, buffers, self)
        extra = [*numbers, *(float(p.grad is not None) for p in parameters)]
        parts = [torch.tensor(extra, dtype=parameters[0].dtype, device=parameters[0].device)]
        parts += [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        parts += [own for _, _, own in statistics]
        bucket = torch.cat([part.flatten() for part in parts])
        with _reachable():
            dist.all_reduce(bucket)
            sums = [s.view(p.shape) for s, p in zip(bucket.split([p.numel() for p in parts]), parts, strict=True)]
            found = sums[0].tolist()  # on a GPU the wait is here
        for parameter, total, present in zip(parameters, sums[1:], found[len(numbers) :], strict=False):
            if present:
                mean = torch.empty_like(parameter).copy_(total / self.size)
                parameter.grad = mean if parameter.grad is None else parameter.grad.copy_(mean)
        for (buffer, kept, _), total in zip(statistics, sums[1 + len(parameters) :], strict=True):
            buffer.copy_(kept + total)
        return found[: len(numbers)]


def _statistics(learner: FewShotLearner, buffers: Copies, group: Processes) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Returns every buffer that changed, with what it keeps of its value before, and what this process adds to that.

    Running statistics r are those after the tasks of all processes, one after the other, each of which does r <- (1-m) r + m s.
    L tasks move r to (1-m)^L r + S. Every process knows its own S, which the tasks of the processes after it shrink further.
    Other buffers become their mean over the processes if they are floating-point numbers, and are left alone otherwise.
    """
    before, found, done = {id(buffer): old for buffer, old in buffers}, [], set()
    for norm in learner.modules():
        if not isinstance(norm, _BatchNorm) or norm.num_batches_tracked is None or norm.momentum is None:
            continue
        counter = norm.num_batches_tracked
        batches = int(counter - before[id(counter)])
        counter.add_(batches * (group.size - 1))
        kept = (1 - norm.momentum) ** batches
        for buffer in (norm.running_mean, norm.running_var):
            old = before[id(buffer)]
            own = (buffer - kept * old) * kept ** (group.size - 1 - group.rank)
            found.append((buffer, kept**group.size * old, own))
        done |= {id(counter), id(norm.running_mean), id(norm.running_var)}
    others = [b for b, _ in buffers if id(b) not in done and b.is_floating_point()]
    return found + [(b, torch.zeros_like(b), b / group.size) for b in others]


_present = Processes()  # a global, as PyTorch has one default group for each process


def current() -> Processes:
    """Returns the processes among which `fit` shares its tasks: those of the `processes()` block around it, or this one alone."""
    if _present.size == 1 and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise ValueError("start the group of processes with `with training.distributed.processes():` around fit.")
    return _present


@contextmanager
def processes() -> Iterator[Processes]:
    """Joins the group of processes that torchrun started, for the time of the block. Without torchrun, yields one process alone.

    Tensors on a CPU travel by gloo, those on a GPU by nccl. Raises ValueError if one of torchrun's variables is missing,
    ConnectionError if other processes do not come or leave before the end.
    """
    global _present
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes()
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        asked = f"WORLD_SIZE={size} asks for {size} processes"
        raise ValueError(f"{asked}, but {', '.join(missing)} is not set: start them with torchrun.")
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        with _reachable():
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_A_STEP)
            patient = dist.new_group(backend="gloo", timeout=_A_VALIDATION)
        _present = Processes(dist.get_rank(), size, patient)
        yield _present
        _present.wait()  # the first process hosts the meeting point of all, so it must not leave before the others
    except ConnectionError:
        if threading.current_thread() is threading.main_thread():
            # if one process dies, torchrun asks the others to end; they end by themselves, and must be able to say why
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    finally:
        _present = Processes()
        if dist.is_initialized():
            dist.destroy_process_group()
