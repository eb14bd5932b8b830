"""Notices and restores global state that an answer may change."""

from __future__ import annotations

import builtins
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fsl_classroom.checking.functions import functions, put_back
from fsl_classroom.checking.settings import SETTINGS
from fsl_classroom.checking.timelimit import DEEPEST

# The seed of the global generators in every call, so that an answer that draws from them draws the same numbers each time.
_SEED = 0x5EED_0FF5


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
    known = functions()
    saved = [(setting, setting.read()) for setting in SETTINGS]
    # An answer that draws from a global generator of NumPy uses these legacy functions.
    random_states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    python_seed, numpy_seed = random.seed, np.random.seed
    replaced = [(sys, name, getattr(sys, name)) for name in ("stdin", "stdout", "stderr", "breakpointhook")]
    replaced += [(builtins, "input", builtins.input), (warnings, "showwarning", warnings.showwarning)]
    replaced += [(random, "seed", python_seed), (np.random, "seed", numpy_seed)]
    replaced += [(sys, "setrecursionlimit", sys.setrecursionlimit)]

    python_seed(_SEED)
    numpy_seed(_SEED)
    torch.default_generator.manual_seed(_SEED)
    sys.stdin, sys.stdout, sys.stderr, sys.breakpointhook = None, out, out, lambda *args, **kwargs: None
    builtins.input = _no_input
    warnings.showwarning = lambda message, category, *rest: out.write(f"{category.__name__}: {message}\n")
    random.seed = _noting(python_seed, seeded, "Python's")
    np.random.seed = _noting(numpy_seed, seeded, "NumPy's")
    sys.setrecursionlimit = _bounded(sys.setrecursionlimit)
    try:
        yield changes
    finally:
        for owner, name, value in replaced:
            setattr(owner, name, value)
        changes.spoils += put_back(known)
        for setting, before in saved:
            if setting.read() != before:
                (changes.spoils if setting.spoils else changes.notes).append(setting.says)
                with suppress(OSError):  # the working folder may have been deleted
                    setting.write(before)
        if torch.initial_seed() != _SEED:
            seeded.add("PyTorch's")
        random.setstate(random_states[0])
        np.random.set_state(random_states[1])  # noqa: NPY002
        torch.default_generator.set_state(random_states[2])
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
        changes.notes += [f"{whose} global random seed" for whose in sorted(seeded)]


def _no_input(prompt: object = "") -> str:
    raise EOFError("input() has nobody to ask while an answer is checked")


def _bounded(set_limit: Callable[[int], None]) -> Callable[[int], None]:
    """Returns a function that sets the recursion limit to DEEPEST at most: deeper calls take long to unwind, and all memory."""
    return lambda limit, /: set_limit(min(limit, DEEPEST))


def _noting(seed: Callable[..., None], seeded: set[str], whose: str) -> Callable[..., None]:
    def noting(*args: Any, **kwargs: Any) -> None:
        seeded.add(whose)
        seed(*args, **kwargs)

    return noting
