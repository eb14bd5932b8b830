"""Imports torchvision only when it is needed, and works around one known conflict between its builds and those of PyTorch."""

import importlib
import sys
from types import ModuleType

import torch

_MISMATCH = "operator torchvision::nms does not exist"
_kept_alive: list[torch.library.Library] = []  # PyTorch withdraws the schemas when their Library is collected


def import_torchvision() -> ModuleType:
    """Returns the module torchvision, which only some parts of the course need. Raises ImportError, with the cure, if it fails.

    A torchvision built for CUDA cannot load its compiled operators next to a PyTorch built for the CPU. Nothing in this course
    calls them. On exactly that error, this function declares their schemas without code and imports once more: datasets, models
    and transforms then work, and a call of the operators themselves still fails with a clear message.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise ImportError(f"torchvision is installed, but its import fails: {error}.") from error
        raise ImportError(
            "this needs torchvision, which is not installed: install the version that belongs to your PyTorch "
            f"({torch.__version__}) with `pip install torchvision`, and start again."
        ) from error
    except RuntimeError as error:
        if _MISMATCH not in str(error):
            raise ImportError(f"torchvision is installed, but its import fails: {error}") from error
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept_alive.append(library)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # remove what is half imported
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"torchvision does not fit PyTorch {torch.__version__} ({error}): install the two versions that belong together."
        ) from error
