"""The recipes of the papers, as values of the options of `python -m fsl_course train`. presets.toml holds them."""

from __future__ import annotations

from collections.abc import Mapping
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
    """

    method: str
    options: Mapping[str, Any]
    source: str
    note: str = ""


def _read(path: Path) -> dict[str, Preset]:
    """Returns the presets of a TOML file by their names. TOML knows no None: there "none" stands for it."""
    try:
        import tomllib
    except ModuleNotFoundError:  # before Python 3.11: `doctor` must still be able to say that this Python is too old
        return {}
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    own_data = {name: {"data": None} for name, preset in found.items() if preset["options"].get("data") == "none"}
    return {
        name: Preset(**{**preset, "options": preset["options"] | own_data.get(name, {})})
        for name, preset in found.items()
    }


PRESETS = _read(Path(__file__).with_suffix(".toml"))
