"""What a reader touches: widgets for notebooks, each with a static twin for readers without a kernel.

    EpisodeExplorer()         deal episodes and look for leaks
    TeachAlphabet()           draw letters of your own; every method names the next one
    PrototypeBoard()          drag support points, decision regions follow
    InnerLoopStepper()        one inner step at a time, from two starts
    OuterLoopMicroscope()     one parameter, two tasks: true and first-order slope
    SketchPad()               draw; .image() is a picture as the networks know them
    WorkKeeper()              save your answers to a file, bring them back elsewhere

The names are imported on first use: everything else in the package works without ipywidgets and anywidget.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "EpisodeExplorer": "episode_explorer",
    "InnerLoopStepper": "inner_loop_stepper",
    "OuterLoopMicroscope": "outer_loop_microscope",
    "PrototypeBoard": "prototype_board",
    "SketchPad": "sketch_pad",
    "TeachAlphabet": "teach_alphabet",
    "WorkKeeper": "work_keeper",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name in ("anywidget", "ipywidgets", "traitlets", "IPython"):
            raise ModuleNotFoundError(
                f"the widgets need the package {error.name}, which is not installed: pip install ipywidgets anywidget",
                name=error.name,
            ) from None
        raise


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
