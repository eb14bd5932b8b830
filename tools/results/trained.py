"""What is known of a run's training: where its weights lie, how they were trained, and whether that agrees with the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.results.runs import Run

ROOT = Path(__file__).resolve().parents[2]
RUNS_FOLDER, RESULTS, CHECKPOINTS = ROOT / "runs", ROOT / "data" / "results", ROOT / "data" / "checkpoints"


class RunError(Exception):
    """A run cannot be trained, evaluated or shipped. The message says why and what to do."""


def not_trained(run: Run) -> RunError:
    """The error to raise for a run that has no weights yet."""
    return RunError(f"{run.name} is not trained: python -m tools.results train {run.name}")


_TURNS = {"classes": " --rotations", "none": "", "tasks": " --turn-tasks"}


def data_arguments(run: Run, turns: str = "classes") -> str:
    """Returns --data and what belongs to it. turns: see `CellTest`; Omniglot trains with turned classes."""
    return (
        f"--data {run.data}" if run.data != "omniglot" else f"--data omniglot --protocol {run.protocol}{_TURNS[turns]}"
    )


def folder_of(run: Run, seed: int) -> Path:
    """Returns runs/NAME for the first seed of a run, and runs/NAME-seedSEED for the others."""
    return RUNS_FOLDER / (run.name if seed == run.seeds[0] else f"{run.name}-seed{seed}")


def weights_of(run: Run, seed: int) -> Path | None:
    """Returns the weights in runs/, else the shipped ones (first seed only), else None. Weights need a card beside them.

    Raises RunError if the folder of the run holds several weights.
    """
    found = [f for f in folder_of(run, seed).glob("*.safetensors") if not f.stem.endswith(".state")]
    if len(found) > 1:
        raise RunError(f"{folder_of(run, seed)} holds several weights: leave those of {run.name} only.")
    if not found and run.ships and seed == run.seeds[0]:
        found = [f for f in [CHECKPOINTS / f"{run.ships}.safetensors"] if f.is_file()]
    return found[0] if found and found[0].with_suffix(".json").is_file() else None


def words_of(command: str) -> dict[str, str]:
    """Returns the options of a command line, name -> value; the value of a flag is ''. --set KEY=VALUE has the name "set KEY"."""
    words, found = command.split(), {}
    for at, word in enumerate(words):
        if word.startswith("--"):
            value = words[at + 1] if at + 1 < len(words) and not words[at + 1].startswith("--") else ""
            name, value = ("set " + value).split("=", 1) if word == "--set" else (word, value)
            found[name] = value
    return found


def training_of(command: str) -> dict[str, int]:
    """Returns way, shot, query, steps and tasks of a training from its command line."""
    words = words_of(command)
    return {name: int(words[f"--{name}"]) for name in ("way", "shot", "query", "steps", "tasks")}


def card_of(weights: Path, run: Run) -> dict[str, Any]:
    """Returns the card beside the weights. Raises RunError if it describes another training than the run does."""
    card = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    wanted, there = words_of(f"{data_arguments(run)} {run.arguments}"), words_of(card["command"])
    other = [f"{name} {value}".strip() for name, value in wanted.items() if not _alike(there.get(name), value)]
    other += [
        f"no {name}" for name, value in there.items() if name.startswith("--") and not value and name not in wanted
    ]
    if other or card["method"] != run.method:
        raise RunError(
            f"{weights} was not trained as {run.name} says ({', '.join(other)}); its card has: {card['command']}"
        )
    return card


def _alike(one: str | None, other: str) -> bool:
    """Returns True for the same word, and for the same number written in two ways."""
    try:
        return one is not None and (one == other or float(one) == float(other))
    except ValueError:
        return False
