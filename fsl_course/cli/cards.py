"""What is written beside weights: every setting of a run, and the command that repeats it. A finished run is not overwritten."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import torch

import fsl_course
from fsl_course.cli.data import data_name
from fsl_course.cli.options import OWN_DATA
from fsl_course.data import SPLITS, ImageSet
from fsl_course.weights.checkpoints import CheckpointError
from fsl_course.weights.learners import WITHOUT_LABELS

# (way, shot) of the test rows in the card of every trained model, with 15 queries a class and 600 episodes of seed 0.
CARD_ROWS = ((5, 1), (5, 5), (20, 1), (20, 5))
CARD_EPISODES = 600

_VALUES = (
    "protocol", "way", "shot", "query", "steps", "tasks", "lr", "halve_every", "clip", "width", "norm", "halving", "seed",
    "encoder", "size", "channels", "invert",
)  # fmt: skip
_OF_A_FOLDER = ("size", "channels", "invert")
_FLAGS = ("rotations", "turn_tasks", "within_group", "join_validation", "cosine", "bfloat16", "train_encoder")
# Places and views, which change no weight.
_NOT_SETTINGS = ("command", "out", "root", "quiet", "list_presets", "preset", "preset_changed", "encoder_weights")
_SAME_WEIGHTS = ("device", "root")  # options with which the same command gives the same weights


def command(options: argparse.Namespace) -> str:
    """Returns the command that repeats this run, with every setting written out, whether it came from a preset or not."""
    words = ["python", "-m", "fsl_course", "train", options.method, "--data", options.data]
    ignored = _OF_A_FOLDER if options.data in OWN_DATA else ()  # a preset may hold them
    ignored += () if options.data == "omniglot" else ("protocol",)
    for name in _VALUES:
        if (value := getattr(options, name)) is not None and name not in ignored:
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--validate-every", str(options.validate_every)]
    for name in ("unlabelled", "distractors"):  # after the others, and only where asked for
        words += [f"--{name}", str(getattr(options, name))] if getattr(options, name) else []
    words += [word for setting in options.set for word in ("--set", setting)]
    words += [f"--{name.replace('_', '-')}" for name in _FLAGS if getattr(options, name)]
    if options.encoder_weights:
        words += ["--encoder-weights", "FILE"]
    if options.device != "auto":
        words += ["--device", options.device]
    return shlex.join([*words, "--out", "DIR"])


def about(options: argparse.Namespace, settings: dict[str, Any], source: ImageSet) -> dict[str, Any]:
    """Returns what the weights file itself says: how to load it, and what it was trained on, to test it on other classes.

    Of a folder: how its pictures were prepared, and its classes by split. Embedded data are known by their name.
    """
    found = {"method": options.method, "settings": settings, "data": data_name(options)}
    if options.method in WITHOUT_LABELS:
        none = "none: pictures are drawn irrespective of class, and nothing is validated; only the test uses labels"
        found["labels"] = none
    if options.data == "omniglot":
        found["omniglot_protocol"] = options.protocol
    if options.data not in OWN_DATA:
        normal = "[0, 1], then ImageNet's mean and deviation" if options.encoder == "resnet18" else "[0, 1]"
        form = {"size": options.size, "channels": options.channels, "inverted": source.inverted, "range": normal}
        names = {split: source.split(split).class_names for split in SPLITS if split in (source.splits or ())}
        found |= {"pictures": form, "class_names": names}
    return found


def settings_card(
    options: argparse.Namespace, settings: dict[str, Any], device: torch.device, source: ImageSet
) -> dict[str, Any]:
    """Returns everything that a run depends on. It is written at the start, and becomes the first part of the card."""
    every = {name: value for name, value in sorted(vars(options).items()) if name not in _NOT_SETTINGS}
    return about(options, settings, source) | {
        "command": command(options), "preset": options.preset, "preset_changed": options.preset_changed, "options": every,
        "seed": options.seed, "device": str(device), "torch": torch.__version__, "fsl_course": fsl_course.__version__,
        "threads": torch.get_num_threads(),
    }  # fmt: skip


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
        words = f"{weights} is there already, and its card does not say how it was made ({error!s:.100})"
        raise CheckpointError(f"{words}. {place}") from error
    if changed := sorted(name for name in common if there[name] != now[name]):
        lines = "; ".join(f"--{name.replace('_', '-')}: {there[name]!r} there, {now[name]!r} now" for name in changed)
        raise CheckpointError(f"{weights} is a finished run with other settings ({lines}). {place}")
