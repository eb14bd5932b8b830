"""Runs an answer in a process that holds no exercise, no judge and no method of the course: the worker's side.

The judge is in the lane (distant.py). It sends arguments and receives results, arguments that were written into, printed text and
gradients, all as data (codec.py). What an answer does to this process cannot reach a comparison.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import os
import pkgutil
import sys
from collections import OrderedDict
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor

from fsl_classroom.checking.sandbox import Capture, code_of, error_words
from fsl_classroom.checking.state import preserved
from fsl_classroom.grading import codec, doors, frames, guards, rules, worker
from fsl_classroom.grading.supervisor import Room

# What an answer may load of the course while it is tried: what exercises are about, and nothing that solves them.
_OPEN = tuple(f"{rules.COURSE}.{room}" for room in ("_system", "data", "nets", "episodes", "figures"))
_SAMPLING = (f"{rules.COURSE}.episodes",)  # solves exercises of lesson 01
_INTERVALS = tuple(
    f"{rules.COURSE}.{room}" for room in ("evaluation", "inner_loop", "methods.base")
)  # lessons 06 and 26 build on the interval of lesson 01
_WITH_INTERVALS = ("06.6", "26.2", "26.4")
_KEPT = 16  # calls whose graphs stay for a backward pass


def open_modules(exercise: str) -> tuple[str, ...]:
    """Returns the rooms and modules of fsl_course that an answer to this exercise may load."""
    if exercise[:2] <= "01":
        return tuple(name for name in _OPEN if name not in _SAMPLING)
    return _OPEN + _INTERVALS if exercise in _WITH_INTERVALS else _OPEN


def warm_up() -> None:
    """Imports what answers use, once for all workers, and leaves no threads running, because a fork loses them."""
    torch.set_num_threads(1)
    for name in (*guards.WATCHED, "scipy.special", "scipy.stats", "torch.nn.utils", "asyncio"):
        importlib.import_module(name)
    doors.compile_nothing()
    rules.table()
    ones = torch.ones(2, requires_grad=True)
    torch.autograd.grad(ones.square().sum(), ones)
    torch.func.hessian(lambda x: x.square().sum())(torch.ones(2))
    torch.func.vmap(torch.sin)(torch.ones(2))
    with preserved(Capture()):
        codec.Unpacker(codec.Packer().blob())


def work(channel: int, room: Room) -> None:
    """Receives a job, runs the code of the answer and serves the judge's calls until it has enough. Runs in the worker."""
    try:
        worker.leave_nothing_open(channel, room)
        job = worker.receive_job(channel)
        _load(job)
        incidents = guards.Incidents()
        space = worker.namespace(job, incidents)
        worker.confine(room)
        guards.hide((rules.CLASSROOM,))
        guards.watch(room.scratch, incidents)
        with suppress(EOFError, OSError):
            Server(channel, incidents).serve(job, space)
    finally:
        os._exit(0)  # so that no finaliser, thread or exit handler of the answer runs


def _load(job: worker.Job) -> None:
    """Imports the modules of the course that the answer asks for, as far as it may, because later no file of it can be read."""
    allowed = open_modules(job.exercise)
    sys.meta_path.insert(0, _Closed(allowed))
    for name in job.modules:
        room = next((room for room in allowed if rules.lies_in(name, room)), None)
        if room is not None:
            with suppress(ImportError):
                module = importlib.import_module(room)
                for inner in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{room}."):
                    importlib.import_module(inner.name)
    rules.allowed(job.exercise)  # fills its cache


class _Closed:
    """Finds no module of the course but the open ones. (`guards.hide` does the same for the classroom.)"""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = allowed

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        leads_there = any(rules.lies_in(room, name) for room in self._allowed)  # the package of an open module
        if rules.lies_in(name, rules.COURSE) and not leads_there and not rules.lies_in(name, *self._allowed):
            raise ModuleNotFoundError(f"{name} is not at hand while this exercise is judged", name=name)


class Server:
    """Serves the judge: see `distant.Distant` for the requests and replies."""

    def __init__(self, channel: int, incidents: guards.Incidents) -> None:
        self._channel = channel
        self._incidents = incidents
        self._graphs: OrderedDict[int, tuple[list[Tensor], list[Tensor]]] = OrderedDict()
        self._step: ExitStack | None = None
        self._out = Capture()
        self._changes: Any = None

    def serve(self, job: worker.Job, space: dict[str, Any]) -> None:
        """Makes the answer, tells the judge about it, and replies to requests until the judge has gone."""
        self._send({"started": True})
        try:
            self._function = worker.function_of(job, space)
        except BaseException as error:  # the code may raise anything
            self._send({"broken": _reported(error, lambda: None)})
            return
        self.answer(self._function)

    def answer(self, function: Any) -> None:
        """Tells the judge about a function, and replies to requests until the judge has gone."""
        self._function = function
        self._send({"ready": _described(function)})
        while True:
            request, blob = frames.receive(self._channel)
            reply = {"begin": self._begin, "end": self._end, "call": self._call, "backward": self._backward}[
                request["do"]
            ]
            message, packer = reply(request, blob)
            try:
                self._send(message, packer.blob() if packer else b"")
            except ValueError as error:
                self._send({"error": _reported(error, self._function)})

    def _send(self, message: dict[str, Any], blob: bytes = b"") -> None:
        frames.send(self._channel, message | {"incident": self._incidents.words[:1]}, blob)

    def _begin(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], None]:
        self._step, self._out = ExitStack(), Capture()
        self._changes = self._step.enter_context(preserved(self._out))
        return {}, None

    def _end(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], None]:
        if self._step is not None:
            self._step.close()
            self._step = None
        return {"spoils": self._changes.spoils, "notes": self._changes.notes, "printed": self._out.text()}, None

    def _call(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], codec.Packer | None]:
        with ExitStack() as stack:
            if self._step is None:
                stack.enter_context(preserved(Capture()))
            if request["grad"] != torch.is_grad_enabled():
                stack.enter_context(torch.set_grad_enabled(request["grad"]))
            try:
                given = codec.Unpacker(blob)
                args, kwargs = given.unpack(request["given"])
                before = [tensor.detach().clone() for tensor in given.tensors]
                result = self._function(*args, **kwargs)
                packer = codec.Packer()
                made = packer.pack(result)
                outputs = [tensor for tensor in packer.tensors if tensor.requires_grad]
                numbers = [number for number, tensor in enumerate(packer.tensors) if tensor.requires_grad]
                after = _written(request["given"], given, before, (args, kwargs), packer)
            except BaseException as error:  # the answer may raise anything
                return {"error": _reported(error, self._function)}, None
        self._graphs[request["call"]] = outputs, [tensor for tensor in given.tensors if tensor.requires_grad]
        if len(self._graphs) > _KEPT:
            self._graphs.popitem(last=False)
        return {"result": made, "after": after, "outputs": numbers}, packer

    def _backward(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], codec.Packer | None]:
        try:
            outputs, inputs = self._graphs[request["call"]]
            grads = codec.Unpacker(blob).unpack(request["grads"])
            pairs = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if grad is not None]
            heads, grads = [output for output, _ in pairs], [grad for _, grad in pairs]
            found = torch.autograd.grad(heads, inputs, grads, retain_graph=True, allow_unused=True)
            packer = codec.Packer()
            return {"grads": packer.pack(list(found))}, packer
        except BaseException as error:  # a backward pass of the answer's own may raise anything
            return {"error": _reported(error, self._function)}, None


def _written(sent: Any, given: codec.Unpacker, before: list[Tensor], now: Any, packer: codec.Packer) -> Any:
    """Returns the arguments as they are after a call, or None if the answer wrote into none of them.

    sent:   their structure as the judge sent it; given: what it was unpacked with; before: its tensors before the call
    packer: packs what has changed
    """
    owners = [given.generators.get(number, tensor) for number, tensor in enumerate(given.tensors)]
    states = [given.generators[n].get_state() if n in given.generators else t for n, t in enumerate(given.tensors)]
    same = {
        id(owner): number
        for number, owner in enumerate(owners)
        if states[number].shape == before[number].shape and torch.equal(states[number].detach(), before[number])
    }
    again = codec.Packer()
    if len(same) == len(owners) and again.pack(now) == sent:
        return None
    packer.known = same
    return packer.pack(now)


def _described(function: Any) -> dict[str, Any]:
    """Returns what the judge wants to know about an answer before it calls it."""
    if not callable(function):
        packer = codec.Packer()
        try:
            return {"value": packer.pack(function) if not isinstance(function, Tensor) else {"thing": "Tensor"}}
        except codec.Unsendable:
            return {"value": {"thing": type(function).__name__}}
    told: dict[str, Any] = {"waits": inspect.iscoroutinefunction(function)}
    with suppress(TypeError, ValueError):
        parameters = inspect.signature(function).parameters.values()
        told["parameters"] = [[p.name, int(p.kind), p.default is not p.empty] for p in parameters]
    with suppress(Exception):  # what looks like a function may raise anything when it is looked at
        code = code_of(function)
        if code is not None:
            told["code"] = [code.co_filename, code.co_firstlineno, code.co_name]
    return told


def _reported(error: BaseException, function: Any) -> dict[str, Any]:
    """Returns an exception as data."""
    base = next((kind for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind), Exception)
    try:
        message = str(error)[:2000]
    except BaseException:  # an exception of the answer's own class may fail to give its message
        message = ""
    try:
        lines = [line[:2000] for line in error_words(error, function)]
    except BaseException:
        lines = [f"{type(error).__name__}."]
    return {"name": type(error).__name__[:100], "base": base.__name__, "message": message, "lines": lines}
