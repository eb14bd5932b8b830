"""What the commands `train` and `evaluate` do; `__main__` only reads the command line."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fsl_course import checkpoints, evaluation
from fsl_course.checkpoints import CheckpointError
from fsl_course.data import (
    ImageSet,
    load_folder,
    load_glyphs,
    load_icons,
    load_omniglot,
    rotations_as_classes,
    split_classes,
)
from fsl_course.episodes import EpisodeSampler
from fsl_course.files import replace_file
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.baselines import baselines
from fsl_course.training import fit

__all__ = ["CheckpointError", "evaluate", "train"]

# (way, shot) of the test rows in the card of every trained model, 15 queries a class; 600 episodes of seed 0
CARD_ROWS = ((5, 1), (5, 5), (20, 1), (20, 5))
CARD_EPISODES = 600


def load_data(options: argparse.Namespace) -> ImageSet:
    """The image set that --data and its companions name. A folder without train/val/test folders is split 60/20/20 by class."""
    if options.data == "omniglot":
        return load_omniglot(options.root, protocol=options.protocol, rotations=options.rotations)
    if options.data in ("glyphs", "icons"):
        source = load_glyphs() if options.data == "glyphs" else load_icons()
    else:
        if not Path(options.data).is_dir():
            raise NotADirectoryError(
                f"--data takes glyphs, icons, omniglot or a folder; {options.data!r} is no folder."
            )
        source = load_folder(options.data, size=options.size, channels=options.channels)
        if source.splits is None:
            source = split_classes(source)
    return rotations_as_classes(source) if options.rotations else source


def _own_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """What --set KEY=VALUE gives: a value is read as JSON (true, 10, null) or Python's True, False, None, or else as a word."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"--set takes KEY=VALUE, e.g. --set full_context=true; got {pair!r}.")
        try:
            found[key] = json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
        except json.JSONDecodeError:
            found[key] = value
    return found


def _data_name(options: argparse.Namespace) -> str:
    return options.data if options.data in ("glyphs", "icons", "omniglot") else Path(options.data).resolve().name


def _command(options: argparse.Namespace) -> str:
    """The command that repeats this run, with every setting written out."""
    words = ["python", "-m", "fsl_course", "train", options.method, "--data", options.data]
    for name in (
        "protocol",
        "way",
        "shot",
        "query",
        "steps",
        "tasks",
        "lr",
        "halve_every",
        "clip",
        "width",
        "norm",
        "seed",
    ):
        value = getattr(options, name)
        if value is not None and not (name == "protocol" and options.data != "omniglot"):
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--validate-every", str(options.validate_every)]
    words += [word for setting in options.set for word in ("--set", setting)]
    words += [f"--{n.replace('_', '-')}" for n in ("rotations", "within_group", "cosine") if getattr(options, n)]
    if options.data not in ("glyphs", "icons", "omniglot"):
        words += ["--size", str(options.size), "--channels", str(options.channels)]
    return shlex.join([*words, "--out", "DIR"])


def train(options: argparse.Namespace) -> int:
    """Trains, validates on the validation classes, tests once, writes DIR/METHOD-DATA.safetensors and its card (.json)."""
    if options.method == "baselines":
        raise ValueError("the baselines have nothing to train: use `python -m fsl_course evaluate baselines`.")
    source, folder = load_data(options), Path(options.out)
    headed = checkpoints.has_head(options.method)
    name = f"{options.method}-{_data_name(options)}" + (f"-{options.way}w{options.shot}s" if headed else "")
    settings = {"width": options.width, "norm": options.norm}
    settings |= checkpoints.settings_of(options.method, source, options.way) | _own_settings(options.set)
    torch.manual_seed(options.seed)
    learner = checkpoints.make(options.method, **settings)
    within = {"within_group": options.within_group}
    sampler = EpisodeSampler(
        source.split("train"), options.way, options.shot, options.query, seed=options.seed, **within
    )
    validation = _validation(source, options)
    state = folder / f"{name}.state.safetensors"
    history = fit(
        learner, sampler, steps=options.steps, tasks=options.tasks, lr=options.lr, clip=options.clip,
        halve_every=options.halve_every, cosine=options.cosine, validation=validation,
        validate_every=options.validate_every, checkpoint=state, progress=not options.quiet,
    )  # fmt: skip
    if history.interrupted:
        return 130
    about = {"method": options.method, "settings": settings, "data": _data_name(options)}
    weights = folder / f"{name}.safetensors"
    checkpoints.save_learner(weights, learner, about)
    card = about | {
        "command": _command(options), "seed": options.seed, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in learner.parameters()), "minutes": round(history.seconds / 60, 1),
        "best_step": history.best_step, "validation": [list(row) for row in history.validation[-1:]],
        "protocol": f"inductive; test classes; 15 queries a class, {CARD_EPISODES} episodes of seed 0; mean, half width of the "
        "95 % interval as fractions",
        "test": _test_rows(learner, source, options),
    }  # fmt: skip
    replace_file(weights.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
    state.unlink()
    print(f"{weights} and its card {weights.with_suffix('.json').name}:")
    for row in card["test"]:
        print(f"  {row['way']}-way {row['shot']}-shot  {row['mean']:.2%} ± {row['ci95']:.2%}")
    return 0


def _validation(source: ImageSet, options: argparse.Namespace) -> EpisodeSampler | None:
    """5-way episodes (fewer ways where there are fewer classes; a trained head: its ways) of the training shot.

    None where there is no validation split, or one that is too small.
    """
    if "val" not in (source.splits or ()):
        return None
    split = source.split("val")
    query = min(5, int(split.counts.min()) - options.shot)
    way = options.way if checkpoints.has_head(options.method) else min(5, len(split))
    if not 2 <= way <= len(split) or query < 1:
        return None
    return EpisodeSampler(split, way, options.shot, query, seed=options.seed)


def _test_rows(learner: FewShotLearner, source: ImageSet, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Accuracy of the CARD_ROWS that the test split is large enough for; a trained head: of its way and shot."""
    if "test" not in (source.splits or ()):
        return []
    split, rows = source.split("test"), []
    for way, shot in [(options.way, options.shot)] if checkpoints.has_head(options.method) else CARD_ROWS:
        query = min(15, int(split.counts.min()) - shot)
        if len(split) >= way and query >= 1:
            result = evaluation.evaluate(learner, EpisodeSampler(split, way, shot, query), CARD_EPISODES)
            rows.append({"way": way, "shot": shot, "query": query, "mean": result.mean, "ci95": result.ci95})
    return rows


def _weights(method: str) -> Path | None:
    """The weights that a file name, or the folder of a finished run, stands for; None for the name of a method."""
    path = Path(method)
    if path.suffix == ".safetensors" or not path.is_dir():
        return path if path.suffix == ".safetensors" else None
    found = sorted(f for f in path.glob("*.safetensors") if not f.stem.endswith(".state"))
    if len(found) != 1:
        names = ", ".join(f.name for f in found) or "none"
        raise ValueError(
            f"the folder {path} should hold the weights of one finished run; it holds {names}. Name the file."
        )
    return found[0]


def evaluate(options: argparse.Namespace) -> int:
    """Prints one row a learner: accuracy and its 95 % interval."""
    source = load_data(options)
    channels = source.images.shape[2]
    if options.method == "baselines":
        learners = baselines(in_channels=channels)
    elif (path := _weights(options.method)) is not None:
        learners = {path.stem: checkpoints.load_learner(path)[0]}
    else:
        head = (options.way, options.shot) if checkpoints.has_head(options.method) else ()
        learners = {options.method: checkpoints.pretrained(options.method, options.trained_on, *head)}
    split = source if options.split == "all" else source.split(options.split)
    sampler = EpisodeSampler(
        split, options.way, options.shot, options.query, seed=options.seed, within_group=options.within_group
    )
    if not options.json:
        print(f"{sampler!r}")
    for name, learner in learners.items():
        result = evaluation.evaluate(learner, sampler, options.episodes, transductive=options.transductive)
        if options.json:
            row = {
                "method": name, "data": split.name, "way": options.way, "shot": options.shot, "query": options.query,
                "mean": result.mean, "ci95": result.ci95, "episodes": options.episodes, "seed": options.seed,
                "within_group": options.within_group, "inductive": not options.transductive,
            }  # fmt: skip
            print(json.dumps(row))
        else:
            print(f"  {name:20s} {result}")
    return 0
