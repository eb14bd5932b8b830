"""What is written beside weights: every setting of a run, and the command that repeats it."""

import argparse
import shlex
from typing import Any

import torch

import fsl_course
from fsl_course.cli.data import data_name
from fsl_course.cli.options import OWN_DATA

# (way, shot) of the test rows in the card of every trained model, with 15 queries a class and 600 episodes of seed 0.
CARD_ROWS = ((5, 1), (5, 5), (20, 1), (20, 5))
CARD_EPISODES = 600

_VALUES = (
    "protocol", "way", "shot", "query", "steps", "tasks", "lr", "halve_every", "clip", "width", "norm", "halving", "seed",
)  # fmt: skip
_FLAGS = ("rotations", "turn_tasks", "within_group", "join_validation", "cosine", "bfloat16")
# Places and views, which change no weight.
_NOT_SETTINGS = ("command", "out", "root", "quiet", "list_presets", "preset", "preset_changed")


def command(options: argparse.Namespace) -> str:
    """Returns the command that repeats this run, with every setting written out, whether it came from a preset or not."""
    words = ["python", "-m", "fsl_course", "train", options.method, "--data", options.data]
    for name in _VALUES:
        value = getattr(options, name)
        if value is not None and not (name == "protocol" and options.data != "omniglot"):
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--validate-every", str(options.validate_every)]
    words += [word for setting in options.set for word in ("--set", setting)]
    words += [f"--{name.replace('_', '-')}" for name in _FLAGS if getattr(options, name)]
    if options.data not in OWN_DATA:
        words += ["--size", str(options.size), "--channels", str(options.channels)]
    if options.device != "auto":
        words += ["--device", options.device]
    return shlex.join([*words, "--out", "DIR"])


def about(options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns what the weights file itself says: how to load it, and what it was trained on, to test it on other classes."""
    found = {"method": options.method, "settings": settings, "data": data_name(options)}
    return found | ({"omniglot_protocol": options.protocol} if options.data == "omniglot" else {})


def settings_card(options: argparse.Namespace, settings: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Returns everything that a run depends on. It is written at the start, and becomes the first part of the card."""
    every = {name: value for name, value in sorted(vars(options).items()) if name not in _NOT_SETTINGS}
    return about(options, settings) | {
        "command": command(options), "preset": options.preset, "preset_changed": options.preset_changed, "options": every,
        "seed": options.seed, "device": str(device), "torch": torch.__version__, "fsl_course": fsl_course.__version__,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
