"""What a class needs around the reference package: exercises that check themselves, widgets, assignments, grading.

    prototypes = check("05.1", prototypes)   # returns your function if it is right, otherwise the reference
    hint("05.1")                             # prints the next of three hints
    progress()                               # prints what you have solved so far
    export_results("results.json")           # writes the same to a file for a teacher
    require("05.1", prototypes)              # for test cells: raises an AssertionError with the diagnosis if it is wrong
    check("05.1@7", prototypes)              # checks a variant of 05.1, with requirements drawn from seed 7
    audit(report)                            # says where the report of a project leaks (lesson 26)

Rooms, from the ground up (imports run downwards only; ``fsl_course`` never imports this package):

1. ``checking``                   the engine behind ``check``, which depends on no exercise
2. ``exercises``                  the exercises of lesson NN in ``exNN_name.py``; CONTRIBUTING.md shows how to write one
3. ``variants``                   exercises with requirements drawn from a seed, for graded work
4. ``widgets``, ``grading``, ``assignments``
5. ``python -m fsl_classroom``    the commands ``grade`` and ``assignment``

The names in ``__all__`` are imported on first use, so that the command line starts without loading PyTorch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Case": "checking.model",
    "Exercise": "checking.model",
    "Property": "checking.model",
    "Wrong": "checking.model",
    "all_exercises": "checking.catalogue",
    "audit": "checking.project",
    "check": "checking.check",
    "exercises_with_variants": "checking.catalogue",
    "export_results": "checking.progress",
    "find": "checking.catalogue",
    "hint": "checking.progress",
    "progress": "checking.progress",
    "require": "checking.require",
    "restore_work": "checking.work",
    "saved_work": "checking.work",
    "verify": "checking.verify",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
