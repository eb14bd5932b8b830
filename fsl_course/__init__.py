"""Few-shot learning and meta-learning: the reference package of the course.

Floors, from the ground up (imports run downwards only):

1. ``data``, ``nets``, ``files`` image sets as one uint8 tensor; Conv4 and MLP; writing a file whole or not at all.
   Beside them what knows nothing of learning: ``allocator``, ``devices``, ``interrupts``, ``locks``, ``nearest``
2. ``episodes``                  N-way K-shot tasks out of an image set
3. ``methods``, ``figures``      one file per algorithm; pictures of episodes and embeddings
4. ``training`` (with ``run_state``, ``distributed``), ``evaluation``, ``checkpoints``, ``results``, ``exercises``, ``widgets``
5. ``python -m fsl_course``      the command line (``options``, ``presets``, ``cards``); ``benchmark``, ``grading``

The names below are imported on first use, so that ``python -m fsl_course doctor`` can still speak when PyTorch is missing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Episode": "episodes",
    "EpisodeSampler": "episodes",
    "SinusoidSampler": "episodes",
    "ImageSet": "data",
    "load_folder": "data",
    "load_glyphs": "data",
    "load_icons": "data",
    "load_omniglot": "data",
    "rotations_as_classes": "data",
    "compare": "evaluation",
    "evaluate": "evaluation",
    "fit": "training",
    "pretrained": "checkpoints",
    "check": "exercises",
    "hint": "exercises",
    "progress": "exercises",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
