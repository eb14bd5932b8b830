"""Cradles: processes that fork a worker for every answer and never see an answer themselves.

A cradle learns only how much a worker may use. What the worker runs reaches it after the fork, through a channel of its own, so
that no worker inherits the work of another student. Every lane has two of them:

- in the one for answers that are judged apart, neither an exercise nor the judge nor a method of the course was ever imported;
- in the one for exercises that take functions or modules, everything was, because the judge has to call them beside the answer.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from fsl_classroom.grading import confinement, supervisor
from fsl_classroom.grading.supervisor import Room

Work = Callable[[int, Room], None]


def serve(control: socket.socket, scratch: Path, confined: bool, work: Work) -> None:
    """Forks a worker for every order until the lane has gone.

    An order is {"seconds": ..., "memory": ...} with the file handle of the worker's channel. After it the lane sends one byte as
    soon as it needs the worker no longer, and gets back {"words": why it ended}.

    scratch: a folder to be made; work: as in `supervisor.try_answer`
    """
    confinement.die_with_parent()
    confinement.adopt_orphans()
    scratch.mkdir(parents=True)
    landlock = confinement.ruleset(scratch) if confined else -1
    gc.collect()
    gc.freeze()  # because a collection in a worker would touch, and so copy, all memory that it shares with the cradle
    supervisor.base_memory()
    with suppress(OSError):  # the lane has gone
        while True:
            message, handles, *_ = socket.recv_fds(control, 4096, 1)
            if not message:
                return
            order = json.loads(message)
            room = Room(order["seconds"], order["memory"], scratch, landlock)
            words = supervisor.try_answer(work, handles[0], room, control)
            if not control.recv(1):
                return
            control.sendall(json.dumps({"words": words}).encode() + b"\n")


class Cradle:
    """The lane's side of a cradle."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._file = control.makefile("rb")

    def order(self, seconds: float, memory: int) -> int:
        """Starts a worker and returns the file handle of the channel to it. seconds, memory: as in `supervisor.Room`."""
        ours, theirs = socket.socketpair()
        socket.send_fds(self._control, [json.dumps({"seconds": seconds, "memory": memory}).encode()], [theirs.fileno()])
        theirs.close()
        return ours.detach()

    def end(self, channel: int) -> str:
        """Ends the worker and returns why it had ended already, or ""."""
        os.close(channel)
        self._control.sendall(b"e")
        return str(json.loads(self._file.readline())["words"])


def fork(control: socket.socket, others: Sequence[socket.socket], scratch: Path, confined: bool, work: Work) -> None:
    """Forks a cradle off this process. control: its end; others: sockets that it must not hold."""
    if os.fork() == 0:
        try:
            for other in others:
                other.close()
            serve(control, scratch, confined, work)
        finally:
            sys.stderr.flush()
            os._exit(0)


def main() -> None:
    """Forks the cradles for answers that are judged apart. Arguments: a scratch folder, 1 or 0 (confined), file handles."""
    from fsl_classroom.grading import apart  # imports PyTorch, but no exercise and no judge

    confinement.die_with_parent()
    scratch, confined = Path(sys.argv[1]), sys.argv[2] == "1"
    controls = [socket.socket(fileno=int(number)) for number in sys.argv[3:]]
    apart.warm_up()
    for number, control in enumerate(controls):
        others = [other for other in controls if other is not control]
        fork(control, others, scratch / f"apart {number}", confined, apart.work)
    for control in controls:
        control.close()
    with suppress(ChildProcessError):
        while True:
            os.wait()
