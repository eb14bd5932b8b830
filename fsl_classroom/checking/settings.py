"""The pieces of global state that an answer may change: how to read each of them and how to put it back."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fsl_classroom.checking import torch_stacks


@dataclass(frozen=True)
class Setting:
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


SETTINGS = (
    # first what every later call of PyTorch goes through, also those that put the rest back
    Setting(
        "a mode of PyTorch (TorchFunctionMode or TorchDispatchMode)", torch_stacks.modes, torch_stacks.set_modes, True
    ),
    Setting("a transform of torch.func", torch_stacks.levels, torch_stacks.set_levels, spoils=True),
    Setting("PyTorch's inference mode", torch.is_inference_mode_enabled, torch_stacks.set_inference, spoils=True),
    Setting("PyTorch's autocast", torch_stacks.autocast, torch_stacks.set_autocast, spoils=True),
    Setting("the default dtype of PyTorch", torch.get_default_dtype, torch.set_default_dtype, spoils=True),
    Setting("the default device of PyTorch", torch.get_default_device, _set_default_device, spoils=True),
    Setting("the gradient mode of PyTorch", torch.is_grad_enabled, torch.set_grad_enabled, spoils=True),
    Setting(
        "PyTorch's switch for deterministic algorithms",
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda saved: torch.use_deterministic_algorithms(saved[0], warn_only=saved[1]),
    ),
    Setting(
        "PyTorch's precision of matrix products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
        spoils=True,
    ),
    Setting("PyTorch's anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    Setting("PyTorch's number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting("NumPy's handling of floating-point errors", np.geterr, lambda saved: np.seterr(**saved)),
    Setting("NumPy's print options", np.get_printoptions, lambda saved: np.set_printoptions(**saved)),
    Setting("the environment variables", _environment, _set_environment),
    Setting("the working folder", _working_folder, _go_to),
    Setting("Python's recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("the filters of warnings", _filters, _set_filters),
    Setting("sys.path", lambda: list(sys.path), _set_path),
    Setting("the signal handlers", _signals, _set_signals),
)
