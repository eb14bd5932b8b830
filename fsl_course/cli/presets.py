"""The recipes of the papers, as values of the options of `python -m fsl_course train`. presets.toml holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Preset:
    """One recipe.

    method:  the name of the method's file
    options: what differs from the defaults of the command line, by option name, e.g. {"halve_every": 2000}; "set" holds a
             list of KEY=VALUE words; data=None means that the user must give --data
    source:  paper and section, or the authors' code
    note:    what the paper does and this recipe does not
    test:    the options of `python -m fsl_course evaluate DIR` that test the trained weights as the paper does
    """

    method: str
    options: dict[str, Any]
    source: str
    note: str = ""
    test: str = ""


def _read(path: Path) -> dict[str, Preset]:
    """Returns the presets of a TOML file by their names. TOML knows no None: there "none" stands for it."""
    try:
        import tomllib
    except ModuleNotFoundError:  # before Python 3.11: `doctor` must still be able to say that this Python is too old
        return {}
    found = {name: Preset(**preset) for name, preset in tomllib.loads(path.read_text(encoding="utf-8")).items()}
    for preset in found.values():
        if preset.options.get("data") == "none":
            preset.options["data"] = None
    return found


PRESETS = _read(Path(__file__).with_suffix(".toml"))
