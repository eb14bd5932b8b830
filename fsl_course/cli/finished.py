"""A finished run is not overwritten by a run with other settings."""

import json
from pathlib import Path
from typing import Any

from fsl_course.weights.checkpoints import CheckpointError

_SAME_WEIGHTS = ("device", "root")  # options with which the same command gives the same weights


def check_not_finished(weights: Path, card: dict[str, Any]) -> None:
    """Lets a run begin whose weights are not there yet, or whose settings are those of the run that wrote them.

    weights: where the run will write its weights; card: what it will write beside them, with all options
    Raises CheckpointError where the weights of a run with other settings would be lost.
    """
    if not weights.exists() or weights.with_suffix(".state.safetensors").exists():
        return  # nothing is there, or a run that can continue and compares its settings itself
    place = f"Name another folder with --out, or move {weights.name} and its card away first."
    try:
        there = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))["options"]
        now = json.loads(json.dumps(card["options"]))
        common = [name for name in there.keys() & now.keys() if name not in _SAME_WEIGHTS]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{weights} is there already, and its card does not say how it was made ({error!s:.100}). {place}"
        ) from error
    if changed := sorted(name for name in common if there[name] != now[name]):
        lines = "; ".join(f"--{name.replace('_', '-')}: {there[name]!r} there, {now[name]!r} now" for name in changed)
        raise CheckpointError(f"{weights} is a finished run with other settings ({lines}). {place}")
