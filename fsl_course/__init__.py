"""Few-shot learning and meta-learning: the reference package of the course.

Floors, from the ground up (imports run downwards only):

0. ``_system``                   files written whole, locks, interrupts, devices: what knows nothing of learning
1. ``data``, ``nets``            image sets as one uint8 tensor; Conv4 and MLP; ``photographs``: a ResNet
2. ``episodes``                  N-way K-shot tasks drawn from an image set
3. ``inner_loop``, ``figures``   what methods with an inner loop share; pictures of episodes and results
4. ``methods``                   one paper a file
5. ``evaluation``, ``weights``   accuracies with intervals; shipped and saved weights, learners by name
6. ``classifier``, ``support``   what is in this picture?; what a learner has read; ``trust``: why, how sure, what breaks it
7. ``training``                  the training loop, and what makes a long run survive
8. ``cli``, ``__main__``         the command line, ``python -m fsl_course``

The names below are imported on first use, so that ``python -m fsl_course doctor`` can still speak when PyTorch is missing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Episode": "episodes",
    "EpisodeSampler": "episodes",
    "SinusoidSampler": "episodes",
    "FewShotClassifier": "classifier",
    "ImageSet": "data",
    "load_folder": "data",
    "load_glyphs": "data",
    "load_icons": "data",
    "load_intents": "data",
    "load_omniglot": "data",
    "load_texts": "data",
    "rotations_as_classes": "data",
    "compare": "evaluation",
    "evaluate": "evaluation",
    "fit": "training.loop",
    "pretrained": "weights.checkpoints",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
