"""Interactive widgets for the notebooks, each with a static twin for readers without a kernel.

    EpisodeExplorer()         deal episodes and look for leaks
    TeachAlphabet()           draw your own letters and see which one each method guesses
    PrototypeBoard()          drag support points and see the decision regions change
    InnerLoopStepper()        take one inner step at a time, from two starts
    OuterLoopMicroscope()     compare true and first-order slope for one parameter and two tasks
    LabelFlow()               let labels flow along a graph, with more or fewer edges
    GoalWalk()                set a goal, take inner steps, and watch a policy walk
    AttributeBoard()          describe a letter, and see which unseen ones answer
    SupportBoard()            take a support picture away or flip its label, and see the answers move
    SketchPad()               draw; .image() returns the drawing in the form the networks were trained on
    WorkKeeper()              save your answers to a file and restore them elsewhere

The names are imported on first use, so that the rest of the package works without ipywidgets and anywidget.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "AttributeBoard": "attribute_board",
    "EpisodeExplorer": "episode_explorer",
    "GoalWalk": "goal_walk",
    "InnerLoopStepper": "inner_loop_stepper",
    "LabelFlow": "label_flow",
    "OuterLoopMicroscope": "outer_loop_microscope",
    "PrototypeBoard": "prototype_board",
    "SketchPad": "sketch_pad",
    "SupportBoard": "support_board",
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
