"""An answer in another process, as the judge in a lane sees it: a callable that sends arguments and receives results as data.

Requests and replies are messages of frames.py. The worker (apart.py) sends {"started": true}, then {"ready": {...}} or
{"broken": error}, and replies to

    {"do": "begin"}                               {}
    {"do": "end"}                                 {"spoils": [...], "notes": [...], "printed": text}
    {"do": "call", "call": number, "given":       {"result": ..., "after": arguments that were written into, or null,
     arguments, "grad": gradient mode}             "outputs": numbers of the tensors that a backward pass may start from}
    {"do": "backward", "call": number,            {"grads": [...]}
     "grads": [...]}

or with {"error": {...}}. Every reply has an "incident" besides: a rule that the answer broke. Nothing in a reply is trusted.
"""

from __future__ import annotations

import builtins
import inspect
import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsl_classroom.checking.elsewhere import Elsewhere, Reported
from fsl_classroom.checking.state import Changes
from fsl_classroom.checking.timelimit import TimeUp
from fsl_classroom.grading import codec, frames

CHANNEL = "The answer writes into the grader's channel: nothing that it says is believed."
_MOST_WORDS = 2000


class Lost(Exception):
    """Raised where the answer's process has ended or no longer follows the protocol."""


class Link:
    """The channel to an answer's process.

    is_lost:  whether nothing can be asked any more, also because a time limit interrupted a call
    is_gone:  whether the process has ended or does not follow the protocol
    words:    why, if that is known here
    incident: a rule that the answer broke, or ""
    """

    def __init__(self, channel: int, of_a_call: float = 60.0, of_all: float = 600.0) -> None:
        """Makes a link. of_a_call, of_all: seconds that the judge waits for one reply, and for all of them together."""
        self._channel = channel
        self._of_a_call, self._left = of_a_call, of_all
        self.is_lost = self.is_gone = False
        self.words = self.incident = ""

    def ready(self, seconds: float) -> dict[str, Any]:
        """Waits for the first message. Raises Lost if there is none in this time, or none that makes sense."""
        deadline = time.monotonic() + seconds
        if not select.select([self._channel], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise self.lost(f"No answer within {seconds:.0f} seconds: is there a loop that does not end?")
        return self._receive()[0]

    def ask(self, request: dict[str, Any], blob: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Sends a request and returns the reply. Raises Lost, or what the answer raised there."""
        if self.is_lost:
            raise Lost("the answer's process has ended")
        self.is_lost = True  # unless all goes well: a time limit may interrupt this anywhere
        try:
            frames.send(self._channel, request, blob, time.monotonic() + self._of_a_call)
        except TimeoutError:
            raise TimeUp from None
        except OSError:
            raise self.lost() from None
        reply, blob = self._receive()
        if "error" in reply:
            raise error_of(reply["error"])
        return reply, blob

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        self.is_lost = True
        started = time.monotonic()
        try:
            reply, blob = frames.receive(self._channel, started + min(self._of_a_call, self._left))
        except TimeoutError:
            raise TimeUp from None
        except (EOFError, OSError):
            raise self.lost() from None
        except frames.Garbled:
            raise self.garbled() from None
        finally:
            self._left -= time.monotonic() - started
        incident = reply.get("incident")
        if isinstance(incident, list) and incident:
            self.incident = self.incident or str(incident[0])[:_MOST_WORDS]
        self.is_lost = False
        return reply, blob

    def lost(self, words: str = "") -> Lost:
        """Notes that the process has ended, or why it is of no use, and returns the error to raise."""
        self.is_lost = self.is_gone = True
        self.words = self.words or words
        return Lost(words or "the answer's process has ended")

    def garbled(self) -> Lost:
        """Notes that a reply made no sense, and returns the error to raise."""
        return self.lost(CHANNEL)


def error_of(told: Any) -> BaseException:
    """Returns an exception of the same name and words as the one that the worker tells about, with the same builtin base."""
    told = told if isinstance(told, dict) else {}
    base = getattr(builtins, str(told.get("base")), None)
    if not (isinstance(base, type) and issubclass(base, BaseException)):
        base = Exception
    name = str(told.get("name"))
    kind = type(name if name.isidentifier() else "Exception", (Reported, base), {})
    error = kind.__new__(kind)
    error.message = str(told.get("message", ""))[:_MOST_WORDS]
    lines = told.get("lines")
    error.lines = tuple(str(line)[:_MOST_WORDS] for line in lines[:5]) if isinstance(lines, list) else ()
    return error


class Distant(Elsewhere):
    """The answer. parameters: (name, kind, has a default) of each, or None; twin: a function with its code, or None."""

    def __init__(self, link: Link, parameters: Any, twin: Callable[..., Any] | None) -> None:
        self._link = link
        self._calls = 0
        self.__name__ = "answer"
        if twin is not None:
            self.__wrapped__ = twin
        if parameters is not None:
            self.__signature__ = _signature(parameters)

    def begin(self) -> None:
        if not self._link.is_lost:
            with suppress(Exception, TimeUp):  # the judge hears of it at the next call
                self._link.ask({"do": "begin"})

    def end(self) -> tuple[Changes, str]:
        if self._link.is_lost:
            return Changes(), ""
        try:
            reply = self._link.ask({"do": "end"})[0]
        except (Exception, TimeUp):
            return Changes(), ""
        spoils, notes = ([str(words)[:200] for words in _listed(reply.get(key))] for key in ("spoils", "notes"))
        return Changes(spoils, notes), str(reply.get("printed", ""))[: 2 * _MOST_WORDS]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        packer = codec.Packer(strict=True)
        given = packer.pack((args, kwargs))
        inputs = [tensor for tensor in packer.tensors if tensor.requires_grad]
        self._calls += 1
        request = {"do": "call", "call": self._calls, "given": given, "grad": torch.is_grad_enabled()}
        reply, blob = self._link.ask(request, packer.blob())
        try:
            unpacker = codec.Unpacker(blob, packer.owners)
            self._join(unpacker, reply["outputs"], inputs)
            result = unpacker.unpack(reply["result"])
            after = None if reply["after"] is None else unpacker.unpack(reply["after"])
        except (frames.Garbled, LookupError, TypeError, ValueError, AttributeError, RuntimeError):
            raise self._link.garbled() from None
        if after is not None:
            _write_back((args, kwargs), after)
        return result

    def _join(self, unpacker: codec.Unpacker, numbers: list[int], inputs: Sequence[Tensor]) -> None:
        """Joins the outputs to the inputs, so that a backward pass here goes through the answer's process."""
        if inputs and numbers and torch.is_grad_enabled():
            outputs = _Through.apply(self._link, self._calls, [unpacker.tensors[number] for number in numbers], *inputs)
            for number, output in zip(numbers, outputs, strict=True):
                unpacker.tensors[number] = output


class _Through(torch.autograd.Function):
    """Takes a backward pass to the answer's process and back. There is no second derivative."""

    @staticmethod
    def forward(ctx: Any, link: Link, call: int, outputs: list[Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.link, ctx.call, ctx.shapes = link, call, [tensor.shape for tensor in inputs]
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        packer = codec.Packer(strict=True)
        request = {"do": "backward", "call": ctx.call, "grads": packer.pack(list(grads))}
        reply, blob = ctx.link.ask(request, packer.blob())
        try:
            found = codec.Unpacker(blob).unpack(reply["grads"])
            if [None if grad is None else grad.shape for grad in found] != [
                None if grad is None else shape for grad, shape in zip(found, ctx.shapes, strict=True)
            ]:
                raise frames.Garbled
        except (frames.Garbled, LookupError, TypeError, ValueError, AttributeError):
            raise ctx.link.garbled() from None
        return (None, None, None, *found)


def _listed(value: Any) -> list[Any]:
    return value[:20] if isinstance(value, list) else []


def _signature(parameters: Any) -> inspect.Signature:
    """Returns a signature with these parameters, whatever their defaults are. Raises frames.Garbled if they make none."""
    try:
        made = [
            inspect.Parameter(name, inspect._ParameterKind(kind), default=None if optional else inspect.Parameter.empty)
            for name, kind, optional in parameters
        ]
        return inspect.Signature(made)
    except (TypeError, ValueError):
        raise frames.Garbled("no parameters") from None


def _write_back(old: Any, new: Any) -> Any:
    """Makes the arguments `old` equal to `new`, in place wherever that is possible. Returns what to put in the place of `old`."""
    if old is new:  # it was not written into
        return old
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        with torch.no_grad():
            if old.shape == new.shape and old.dtype == new.dtype:
                if not torch.equal(old, new):
                    old.copy_(new)
            else:
                old.data = new.detach()
        return old
    if isinstance(old, torch.Generator) and isinstance(new, torch.Generator):
        old.set_state(new.get_state())
        return old
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray) and (old.shape, old.dtype) == (new.shape, new.dtype):
        old[...] = new
        return old
    if isinstance(old, list) and isinstance(new, list):
        old[:] = [_write_back(old[i], item) if i < len(old) else item for i, item in enumerate(new)]
        return old
    if isinstance(old, dict) and isinstance(new, dict):
        made = {key: _write_back(old[key], item) if key in old else item for key, item in new.items()}
        old.clear()
        old.update(made)
        return old
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        return tuple(_write_back(ours, theirs) for ours, theirs in zip(old, new, strict=True))
    if isinstance(old, set) and isinstance(new, set):
        old.clear()
        old.update(new)
        return old
    return new
