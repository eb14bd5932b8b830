"""Notices and restores global state that an answer may change."""

from __future__ import annotations

import builtins
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

# The seed of the global generators in every call, so that an answer that draws from them draws the same numbers each time.
_SEED = 0x5EED_0FF5


@dataclass(frozen=True)
class _Setting:
    """One piece of global state. spoils: whether a change of it would alter what later cells compute."""

    says: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    spoils: bool = False


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_environment(saved: dict[str, str]) -> None:
    for name in set(_environment()) - set(saved):
        del os.environ[name]
    os.environ.update(saved)


def _environment() -> dict[str, str]:
    """Returns the environment without the variables that PyTorch itself sets when torch.func is first used."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR_")}


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""


def _go_to(folder: str) -> None:
    if folder:
        os.chdir(folder)


def _set_path(saved: list[str]) -> None:
    sys.path[:] = saved


def _filters() -> list[Any]:
    """Returns the filters of warnings without those that a library adds for warnings of its own when it is first imported."""
    return [one for one in warnings.filters if one[2].__module__ in ("builtins", "__main__")]


def _set_filters(saved: list[Any]) -> None:
    own = _filters()
    others = [one for one in warnings.filters if one not in own]
    warnings.resetwarnings()  # also clears the cache that Python keeps of the filters
    warnings.filters[:] = [*others, *saved]


def _signals() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


def _set_signals(saved: dict[int, Any]) -> None:
    if threading.current_thread() is threading.main_thread():  # Python lets no other thread set them
        for number, handler in saved.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


_SETTINGS = (
    _Setting("the default dtype of PyTorch", torch.get_default_dtype, torch.set_default_dtype, spoils=True),
    _Setting("the default device of PyTorch", torch.get_default_device, _set_default_device, spoils=True),
    _Setting("the gradient mode of PyTorch", torch.is_grad_enabled, torch.set_grad_enabled, spoils=True),
    _Setting(
        "PyTorch's switch for deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda saved: torch.use_deterministic_algorithms(saved[0], warn_only=saved[1]),
    ),
    _Setting("PyTorch's anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    _Setting("PyTorch's number of threads", torch.get_num_threads, torch.set_num_threads),
    _Setting("NumPy's handling of floating-point errors", np.geterr, lambda saved: np.seterr(**saved)),
    _Setting("NumPy's print options", np.get_printoptions, lambda saved: np.set_printoptions(**saved)),
    _Setting("the environment variables", _environment, _set_environment),
    _Setting("the working folder", _working_folder, _go_to),
    _Setting("Python's recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    _Setting("the filters of warnings", _filters, _set_filters),
    _Setting("sys.path", lambda: list(sys.path), _set_path),
    _Setting("the signal handlers", _signals, _set_signals),
)


@dataclass
class Changes:
    """What an answer changed. spoils: faults of the answer; notes: harmless, but the learner should know."""

    spoils: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextmanager
def preserved(out: Any) -> Iterator[Changes]:
    """Restores all global state at the end of the block. Sends printing and warnings to `out`.

    Yields the Changes, which are complete only after the block. Drawing from a global generator does not count as a change;
    seeding one is a note.
    """
    changes = Changes()
    seeded: set[str] = set()
    saved = [(setting, setting.read()) for setting in _SETTINGS]
    # An answer that draws from a global generator of NumPy uses these legacy functions.
    random_states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    python_seed, numpy_seed = random.seed, np.random.seed
    replaced = [(sys, name, getattr(sys, name)) for name in ("stdin", "stdout", "stderr", "breakpointhook")]
    replaced += [(builtins, "input", builtins.input), (warnings, "showwarning", warnings.showwarning)]
    replaced += [(random, "seed", python_seed), (np.random, "seed", numpy_seed)]

    python_seed(_SEED)
    numpy_seed(_SEED)
    torch.default_generator.manual_seed(_SEED)
    sys.stdin, sys.stdout, sys.stderr, sys.breakpointhook = None, out, out, lambda *args, **kwargs: None
    builtins.input = _no_input
    warnings.showwarning = lambda message, category, *rest: out.write(f"{category.__name__}: {message}\n")
    random.seed = _noting(python_seed, seeded, "Python's")
    np.random.seed = _noting(numpy_seed, seeded, "NumPy's")
    try:
        yield changes
    finally:
        for owner, name, value in replaced:
            setattr(owner, name, value)
        if torch.initial_seed() != _SEED:
            seeded.add("PyTorch's")
        random.setstate(random_states[0])
        np.random.set_state(random_states[1])  # noqa: NPY002
        torch.default_generator.set_state(random_states[2])
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
        changes.notes += [f"{whose} global random seed" for whose in sorted(seeded)]
        for setting, before in saved:
            if setting.read() != before:
                (changes.spoils if setting.spoils else changes.notes).append(setting.says)
                with suppress(OSError):  # the working folder may have been deleted
                    setting.write(before)


def _no_input(prompt: object = "") -> str:
    raise EOFError("input() has nobody to ask while an answer is checked")


def _noting(seed: Callable[..., None], seeded: set[str], whose: str) -> Callable[..., None]:
    def noting(*args: Any, **kwargs: Any) -> None:
        seeded.add(whose)
        seed(*args, **kwargs)

    return noting
