"""What the commands `train` and `evaluate` do; `__main__` and `options` only read the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from fsl_course import evaluation
from fsl_course._system.devices import choose
from fsl_course._system.files import replace_file
from fsl_course._system.locks import only_run
from fsl_course._system.nearest import did_you_mean
from fsl_course.cli import cards
from fsl_course.cli.cards import CARD_EPISODES, CARD_ROWS, data_name
from fsl_course.cli.options import OWN_DATA
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
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.baselines import baselines
from fsl_course.training import distributed
from fsl_course.training.loop import History, fit
from fsl_course.weights import checkpoints, learners
from fsl_course.weights.checkpoints import CheckpointError

__all__ = ["CheckpointError", "evaluate", "train"]


def load_data(options: argparse.Namespace) -> ImageSet:
    """The image set that --data and its companions name. A folder without train/val/test folders is split 60/20/20 by class."""
    if options.data == "omniglot":
        if not (options.root or os.environ.get("FSL_DATA")):
            raise FileNotFoundError(
                "where is Omniglot? Give --root DIR, or set the variable FSL_DATA: the folder that holds omniglot-py with "
                "images_background.zip and images_evaluation.zip. load_omniglot(DIR, download=True) fetches them."
            )
        return load_omniglot(options.root, protocol=options.protocol or "alphabets", rotations=options.rotations)
    if options.data in OWN_DATA:
        source = load_glyphs() if options.data == "glyphs" else load_icons()
    else:
        if not Path(options.data).is_dir():
            raise NotADirectoryError(
                f"--data takes {', '.join(OWN_DATA)} or a folder; {options.data!r} is no folder."
                f"{did_you_mean(options.data, OWN_DATA)}"
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


def _check_own(own: dict[str, Any], source: ImageSet, options: argparse.Namespace) -> None:
    """ValueError where --set contradicts the pictures or the episodes, before a file is written."""
    channels, size = source.images.shape[2], source.images.shape[-1]
    there_is = {"in_channels": channels, "size": size, "n_way": options.way, "net": "conv4"}
    for name, value in own.items():
        if value != there_is.get(name, value):
            raise ValueError(
                f"{name}={value} does not go with these episodes, which are {options.way}-way, of pictures of {size} x {size} "
                f"pixels and {channels} channel(s): leave --set {name} out."
            )


def train(options: argparse.Namespace) -> int:
    """Trains, validates on the validation classes, tests once, writes DIR/METHOD-DATA.safetensors and its card (.json).

    While it runs, and until it ends, DIR holds its state, its settings and a lock. See docs/commands.md.
    """
    if options.method == "baselines":
        raise ValueError("the baselines have nothing to train: use `python -m fsl_course evaluate baselines`.")
    learners.check_method(options.method)
    headed = learners.has_head(options.method)
    if options.bfloat16 and headed:
        raise ValueError(f"--bfloat16 is for methods that embed; {options.method} adapts its weights: leave it out.")
    own, device = _own_settings(options.set), choose(options.device)
    source = load_data(options).to(device)
    classes = _training_classes(source, options)
    within = {"within_group": options.within_group}
    sampler = EpisodeSampler(classes, options.way, options.shot, options.query, seed=options.seed, **within)
    settings = {"width": options.width, "norm": options.norm, "halving": options.halving}
    settings |= learners.settings_of(options.method, source, options.way)
    settings |= ({"n_base": len(classes)} if "n_base" in settings else {}) | own
    torch.manual_seed(options.seed)
    learner = learners.make(options.method, **settings).to(device)
    _check_own(own, source, options)
    name = f"{options.method}-{data_name(options)}"
    name += f"-{options.way}w{options.shot}s" if headed else ""
    weights = Path(options.out) / f"{name}.safetensors"
    card = cards.settings_card(options, settings, device)
    with ExitStack() as lock:
        with distributed.processes() as group:
            if group.first:  # the first of several processes writes, tests and prints for all
                lock.enter_context(only_run(weights.with_suffix(".lock")))
            history = _fitted(learner, sampler, source, options, weights, card)
        if history.interrupted or not group.first:
            return 130 if history.interrupted else 0
        checkpoints.save_learner(weights, learner, cards.about(options, settings))
        card |= {
            "parameters": sum(p.numel() for p in learner.parameters()), "minutes": round(history.seconds / 60, 1),
            "best_step": history.best_step, "validation": [list(row) for row in history.validation[-1:]],
            "protocol": f"inductive; test classes; 15 queries a class, {CARD_EPISODES} episodes of seed 0; mean, half width of "
            "the 95 % interval as fractions",
            "test": _test_rows(learner, source, options),
        }  # fmt: skip
        checkpoints.save_json(weights.with_suffix(".json"), card)
        print(f"{weights} and its card {weights.with_suffix('.json').name}:")
        for row in card["test"]:
            print(f"  {row['way']}-way {row['shot']}-shot  {row['mean']:.2%} ± {row['ci95']:.2%}")
        # last: until here, the same command would have gone on from them
        weights.with_suffix(".settings.json").unlink(missing_ok=True)
        weights.with_suffix(".state.safetensors").unlink(missing_ok=True)
    return 0


def _training_classes(source: ImageSet, options: argparse.Namespace) -> ImageSet:
    if not options.join_validation:
        return source.split("train")
    if "val" not in (source.splits or ()):
        raise ValueError(f"--join-validation needs validation classes, and {source.name} has none: leave it out.")
    return source.select([i for i, split in enumerate(source.splits) if split in ("train", "val")])


def _fitted(
    learner: FewShotLearner,
    sampler: EpisodeSampler,
    source: ImageSet,
    options: argparse.Namespace,
    weights: Path,
    card: dict[str, Any],
) -> History:
    """Trains, with the settings of the run beside its state."""
    settings, state = weights.with_suffix(".settings.json"), weights.with_suffix(".state.safetensors")
    first = distributed.current().first
    before = settings.read_bytes() if first and settings.exists() else None
    if first:
        _check_same_learner(card, before, state)
        checkpoints.save_json(settings, card)
    try:
        return fit(
            learner, sampler, steps=options.steps, tasks=options.tasks, lr=options.lr, clip=options.clip,
            halve_every=options.halve_every, cosine=options.cosine, bfloat16=options.bfloat16,
            validation=None if options.join_validation else _validation(source, options),
            validate_every=options.validate_every, checkpoint=state, progress=not options.quiet,
        )  # fmt: skip
    except (
        CheckpointError,
        ValueError,
    ):  # e.g. the state belongs to a run with other settings: those still describe it
        with suppress(OSError):
            if before is not None:
                replace_file(settings, before)
            elif first and not state.exists():
                settings.unlink()
        raise


def _check_same_learner(card: dict[str, Any], before: bytes | None, state: Path) -> None:
    """CheckpointError where the learner differs from that of the state in a way that its weights do not show, e.g. in halving."""
    try:
        there = json.loads(before or b"{}")["settings"]
        usual = learners.SETTINGS | learners.OWN_SETTINGS.get(card["method"], {})
        there, now = usual | there, usual | card["settings"]
    except (ValueError, KeyError, TypeError):
        return  # no settings, or none that can be read: `fit` compares what the state itself knows
    if there == now or not state.exists():
        return
    if checkpoints.load_file(state)[1].get("done") == 0:
        state.unlink()  # no step is lost
        return
    changed = sorted(name for name in there.keys() | now.keys() if there.get(name) != now.get(name))
    lines = "; ".join(f"{name}: {there.get(name)!r} there, {now.get(name)!r} now" for name in changed)
    raise CheckpointError(
        f"{state} belongs to a run with other settings ({lines}). Take the same settings to go on; "
        "to start anew, delete it or name another place."
    )


def _validation(source: ImageSet, options: argparse.Namespace) -> EpisodeSampler | None:
    """5-way episodes (fewer ways where there are fewer classes; a trained head: its ways) of the training shot.

    None where there is no validation split, or one that is too small.
    """
    if "val" not in (source.splits or ()):
        return None
    split = source.split("val")
    query = min(5, int(split.counts.min()) - options.shot)
    way = options.way if learners.has_head(options.method) else min(5, len(split))
    if not 2 <= way <= len(split) or query < 1:
        return None
    return EpisodeSampler(split, way, options.shot, query, seed=options.seed)


def _test_rows(learner: FewShotLearner, source: ImageSet, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Accuracy of the CARD_ROWS that the test split is large enough for; a trained head: of its way and shot."""
    if "test" not in (source.splits or ()):
        return []
    split, rows = source.split("test"), []
    for way, shot in [(options.way, options.shot)] if learners.has_head(options.method) else CARD_ROWS:
        query = min(15, int(split.counts.min()) - shot)
        if len(split) >= way and query >= 1:
            result = evaluation.evaluate(learner, EpisodeSampler(split, way, shot, query), CARD_EPISODES)
            rows.append({"way": way, "shot": shot, "query": query, "mean": result.mean, "ci95": result.ci95})
    return rows


def _weights(method: str) -> Path | None:
    """The weights that a file name, or the folder of a finished run, stands for; None for the name of a method."""
    path = Path(method)
    if path.suffix == ".safetensors":
        return path
    if not path.is_dir() and path.name == method:  # a method's name has no slash
        return None
    if not path.is_dir():
        raise ValueError(f"there is no folder {method}: give the folder or the .safetensors file that `train` made.")
    found = sorted(f for f in path.glob("*.safetensors") if not f.stem.endswith(".state"))
    if len(found) != 1:
        names = ", ".join(f.name for f in found) or "none"
        if not found and any(path.glob("*.state.safetensors")):
            raise ValueError(f"the run in {path} is not finished: the command that began it goes on with it.")
        raise ValueError(
            f"the folder {path} should hold the weights of one finished run; it holds {names}. Name the file."
        )
    return found[0]


def _trained(options: argparse.Namespace) -> dict[str, tuple[FewShotLearner, str, str | None]]:
    """The learner by name, the name of its weights, and the Omniglot protocol they were trained under (None: other data)."""
    if (path := _weights(options.method)) is not None:
        learner, about = checkpoints.load_learner(path)
        protocol = about.get("omniglot_protocol")
        return {path.stem: (learner, path.stem, protocol if protocol in ("alphabets", "random") else None)}
    which = (options.method, options.trained_on, options.way, options.shot)
    name = checkpoints.shipped_name(*which, variant=options.variant)
    protocol = {"omniglot": "random", "omniglot-alphabets": "alphabets"}.get(options.trained_on)
    return {options.method: (checkpoints.pretrained(*which, variant=options.variant), name, protocol)}


def evaluate(options: argparse.Namespace) -> int:
    """Prints one row a learner: accuracy and its 95 % interval."""
    device = choose(options.device)
    found = {} if options.method == "baselines" else _trained(options)
    protocols = {protocol for _, _, protocol in found.values()} - {None}
    options.protocol = options.protocol or min(protocols, default="alphabets")
    if options.data == "omniglot" and protocols - {options.protocol}:
        print(
            f"note: these weights were trained on classes of the other protocol, --protocol {min(protocols)}: "
            "classes of this test may have been among them.",
            file=sys.stderr,
        )
    source = load_data(options).to(device)
    split = source if options.split == "all" else source.split(options.split)
    sampler = EpisodeSampler(
        split, options.way, options.shot, options.query, seed=options.seed, within_group=options.within_group
    )
    for name, learner in baselines(in_channels=source.images.shape[2]).items() if not found else ():
        found[name] = (learner, None, None)
    if not options.json:
        print(f"{sampler!r}")
    for name, (learner, weights, _) in found.items():
        result = evaluation.evaluate(learner.to(device), sampler, options.episodes, transductive=options.transductive)
        if options.json:
            row = {
                "method": name, "weights": weights, "data": split.name,
                "protocol": options.protocol if options.data == "omniglot" else None, "rotations": options.rotations,
                "way": options.way, "shot": options.shot, "query": options.query,
                "mean": result.mean, "ci95": result.ci95, "episodes": options.episodes, "seed": options.seed,
                "within_group": options.within_group, "inductive": not options.transductive,
            }  # fmt: skip
            print(json.dumps(row))
        else:
            print(f"  {name:20s} {result}")
    return 0
