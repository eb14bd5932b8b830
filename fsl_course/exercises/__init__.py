"""Exercises with instant checks.

    prototypes = check("05.1", prototypes)   # the answer when it is right, the reference otherwise
    hint("05.1")                             # the next of three hints
    progress()                               # what is right so far
    export_results("results.json")           # the same for a teacher
    require("05.1", prototypes)              # for test cells: silence, or an AssertionError with the diagnosis
    check("05.1@7", prototypes)              # a variant of 05.1 with requirements drawn from seed 7; variants() lists them

The exercises of lesson NN lie in ``exNN_name.py`` as a tuple ``EXERCISES``; there is no list to maintain.
How to write one stands in CONTRIBUTING.md, "Add an exercise".
"""

from ._catalogue import all_exercises, find, variants
from ._check import check
from ._model import Case, Exercise, Property, Wrong
from ._progress import export_results, hint, progress
from ._require import require
from ._verify import verify
from ._work import restore_work, saved_work

__all__ = [
    "Case",
    "Exercise",
    "Property",
    "Wrong",
    "all_exercises",
    "check",
    "export_results",
    "find",
    "hint",
    "progress",
    "require",
    "restore_work",
    "saved_work",
    "variants",
    "verify",
]
