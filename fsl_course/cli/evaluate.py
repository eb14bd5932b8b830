"""The command `evaluate`: accuracy of shipped, saved or untrained learners on test episodes."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from fsl_course import evaluation
from fsl_course._system.allocator import keep_memory
from fsl_course._system.devices import choose
from fsl_course.cli.data import episodes, lake, load_data, note, note_unlabelled, scenes
from fsl_course.cli.options import OWN_DATA
from fsl_course.data import ImageSet, TextSet
from fsl_course.data.assets import verified
from fsl_course.episodes import LAKE_RUNS, EpisodeSampler
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.baselines import baselines
from fsl_course.photographs import PIXELS, load_photographs
from fsl_course.weights import checkpoints
from fsl_course.weights.learners import SCENES, SENTENCES, SETTINGS, has_head, make, reads_descriptions

COMPARES = ("prototypical", "matching", "simple_shot")  # methods without weights besides those of their encoder


def run(options: argparse.Namespace) -> int:
    """Prints one row for each learner: its accuracy and the 95 % interval. Returns the exit status 0."""
    keep_memory()
    device = choose(options.device)
    name, learner, weights, about = (None, None, None, {}) if options.method == "baselines" else trained(options)
    if learner is None and (options.trained_on or options.variant or options.encoder or options.encoder_weights):
        raise ValueError("--trained-on, --variant and --encoder name weights; the baselines have none: leave them out.")
    options.data = options.data or _data_of(about, None if learner is None else weights_file(options.method))
    made = _take_form(options, about)
    source = load_data(options, described=learner is not None and learner.uses_attributes).to(device)
    split = source if options.split == "all" else source.split(options.split)
    if about.get("method") in SCENES:
        sampler = scenes(split, options)
    elif options.protocol == "lake":
        sampler = lake(split, options)
        options.episodes = options.episodes or (len(set(split.groups)) if options.runs else LAKE_RUNS)
    else:
        options.way = options.way or max(2, min(5, len(split)))
        sampler = episodes(split, options, most_queries=15)
    options.episodes = options.episodes or 600
    _warn_of_seen_classes(about, split, options)
    if learner is None and isinstance(source, TextSet):
        raise ValueError("the baselines look at pixels, and these are sentences: lesson 20 has TF-IDF for them.")
    found = baselines(in_channels=source.images.shape[2]) if learner is None else {name: learner.to(device)}
    if learner is not None:
        _check_fits(learner, made, sampler, options)
        note_unlabelled(name, learner.uses_unlabelled, options)
    if not options.json:
        print(f"{sampler!r}")
    for name, learner in found.items():
        how = {"metric": evaluation.metric_of(sampler), "transductive": options.transductive}
        result = evaluation.evaluate(learner.to(device), sampler, options.episodes, **how)
        if options.json:
            row = {
                "method": name, "weights": weights, "data": split.name,
                "protocol": options.protocol if options.data == "omniglot" else None, "rotations": options.rotations,
                "way": options.way, "shot": options.shot, "query": options.query,
                "unlabelled": options.unlabelled, "distractors": options.distractors,
                "mean": result.mean, "ci95": result.ci95, "episodes": options.episodes, "seed": options.seed,
                "within_group": options.within_group, "turn_tasks": options.turn_tasks, "inductive": not result.transductive,
            }  # fmt: skip
            print(json.dumps(row))
        else:
            print(f"  {name:20s} {result}")
    if not options.json and options.method != "baselines" and options.way:  # which have a row of their own for it
        print(f"  {'(chance)':20s} {1 / options.way:.2%}")
    return 0


def _data_of(about: dict[str, Any], path: Path | None) -> str:
    """Returns what the weights of a run were trained on: an embedded set, or the folder that the card beside them names.

    Other weights are tested on glyphs. Raises ValueError where the folder is not here.
    """
    if path is None and about.get("data") == "intents":
        return "intents"
    if path is None or "pictures" not in about:
        return about["data"] if path is not None and about.get("data") in OWN_DATA else "glyphs"
    try:
        folder = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["options"]["data"]
        if Path(folder).exists():
            return folder
    except (OSError, ValueError, KeyError, TypeError):
        folder = about.get("data")
    raise ValueError(f"{path.name} was trained on {folder}, which is no folder here: give --data FOLDER.")


def _take_form(options: argparse.Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """Sets the options that are not given to what the weights were trained on. Returns the settings of their learner.

    about: what the file of weights says of itself; {} for the baselines. Raises ValueError for weights of another kind of task.
    """
    made = SETTINGS | about.get("settings", {})
    if made.get("net") == "mlp":
        raise ValueError("these weights predict sine curves, which evaluate does not test: take weights for pictures.")
    ways = made.get("n_way", 5)
    if has_head(about.get("method", "")) and options.way not in (None, ways):
        raise ValueError(f"these weights have a head for {ways} classes: give --way {ways}, or leave --way out.")
    options.way = options.way or (ways if has_head(about.get("method", "")) else None)
    if options.data not in OWN_DATA:
        options.size, options.channels = options.size or made["size"], options.channels or made["in_channels"]
        options.invert = options.invert or inversion_of(about)
    protocol = about.get("omniglot_protocol")
    protocol = protocol if protocol in ("alphabets", "random") else None
    if options.data == "omniglot":
        options.protocol = options.protocol or protocol
        if protocol not in (None, "alphabets" if options.protocol == "lake" else options.protocol):
            note(
                f"these weights were trained on classes of the other protocol, --protocol {protocol}: "
                "classes of this test may have been among them."
            )
    return made


def inversion_of(about: dict[str, Any]) -> str:
    """Returns the --invert with which the weights saw the pictures of their folder: yes, no, or auto where they do not say."""
    form = about.get("pictures")
    inverted = form.get("inverted") if isinstance(form, dict) else None
    return ("yes" if inverted else "no") if isinstance(inverted, bool) else "auto"


def _warn_of_seen_classes(about: dict[str, Any], split: ImageSet, options: argparse.Namespace) -> None:
    """Prints a note where the weights were trained on classes of this test."""
    names = about.get("class_names")
    trained = names.get("train") if isinstance(names, dict) else None
    seen = [name for name in split.class_names if name in trained] if isinstance(trained, list) else []
    if seen or (about.get("data") == options.data in OWN_DATA and options.split in ("train", "all")):
        which = f"{len(seen)} of these {len(split)} classes, such as {seen[0]}," if seen else "classes of this test"
        note(f"the weights were trained on {which} so the accuracy flatters: --split test has classes never seen.")


def _check_fits(
    learner: FewShotLearner, made: dict[str, Any], sampler: EpisodeSampler, options: argparse.Namespace
) -> None:
    """Raises ValueError where the learner cannot take the pictures, found out by one episode."""
    texts, reads = isinstance(sampler.source, TextSet), made["encoder"] in SENTENCES
    if texts != reads:
        raise ValueError(
            f"these weights read {'sentences' if reads else 'pictures'}, and {sampler.source.name} holds "
            f"{'sentences' if texts else 'pictures'}: give {'--data intents or a .csv' if reads else 'other --data'}."
        )
    if texts:
        return
    channels, _, size = sampler.source.images.shape[2:]
    if (made["size"], made["in_channels"]) == (size, channels):
        return
    try:
        with evaluation.evaluation_mode(learner), torch.no_grad():
            learner(sampler[0].to(sampler.source.images.device))
    except (RuntimeError, ValueError) as error:
        own = options.data not in OWN_DATA
        cure = "leave --size and --channels out" if own else "give --data FOLDER: its pictures are brought to that form"
        raise ValueError(
            f"these weights take pictures of {made['size']} x {made['size']} pixels and {made['in_channels']} channel(s); "
            f"those of {sampler.source.name} have {size} x {size} and {channels}: {cure}."
        ) from error


def trained(options: argparse.Namespace) -> tuple[str, FewShotLearner, str, dict[str, Any]]:
    """Returns the learner's name, the learner, the name of its weights, and what their file says of itself."""
    if options.encoder == "resnet18":
        return _on_photographs(options)
    if options.encoder_weights:
        raise ValueError("--encoder-weights goes with --encoder resnet18: add it, or leave --encoder-weights out.")
    if (path := weights_file(options.method)) is not None:
        if options.trained_on or options.variant:
            raise ValueError("--trained-on and --variant name shipped weights, not those of a run: leave them out.")
        learner, about = checkpoints.load_learner(path)
        return path.stem, learner, path.stem, about
    same = getattr(options, "data", None) if reads_descriptions(options.method) else None
    trained_on = options.trained_on or same or _usual(options)
    which = (options.method, trained_on, options.way or 5, options.shot)
    name = checkpoints.shipped_name(*which, variant=options.variant)
    learner, about = checkpoints.load_learner(verified(f"checkpoints/{name}.safetensors"))
    protocol = {"omniglot": "random", "omniglot-alphabets": "alphabets"}.get(trained_on)
    return options.method, learner, name, about | {"omniglot_protocol": protocol}


def _usual(options: argparse.Namespace) -> str:
    """Returns what shipped weights of a method were trained on, unless the command says otherwise."""
    sentences = options.method == "induction" or getattr(options, "data", None) == "intents"
    return "intents" if sentences else "glyphs"


def weights_file(method: str) -> Path | None:
    """Returns the weights that a file name or the folder of a finished run stands for, or None for the name of a method.

    Raises ValueError for a folder that is missing, holds an unfinished run, or holds several weights.
    """
    path = Path(method)
    if path.suffix == ".safetensors":
        return path
    if not path.is_dir() and path.name == method:  # a method's name has no slash
        return None
    if not path.is_dir():
        raise ValueError(f"there is no folder {method}: give the folder or the .safetensors file that `train` made.")
    found = sorted(f for f in path.glob("*.safetensors") if not f.stem.endswith(".state"))
    if len(found) != 1:
        if not found and any(path.glob("*.state.safetensors")):
            raise ValueError(f"the run in {path} is not finished: the command that began it goes on with it.")
        names = ", ".join(f.name for f in found) or "none"
        raise ValueError(f"{path} should hold the weights of one finished run; it holds {names}. Name the file.")
    return found[0]


def _on_photographs(options: argparse.Namespace) -> tuple[str, FewShotLearner, str, dict[str, Any]]:
    """Returns what `trained` does, for a method without weights of its own on the ResNet that was trained on photographs."""
    if options.method not in COMPARES:
        raise ValueError(
            f"--encoder resnet18 without training is for {', '.join(COMPARES)}, which compare embeddings by a fixed formula; "
            f"{options.method!r} is none of these. `train METHOD --encoder resnet18` makes weights of others."
        )
    if options.trained_on or options.variant:
        raise ValueError("--trained-on and --variant name shipped weights; --encoder resnet18 takes none.")
    learner = make(options.method, encoder="resnet18", in_channels=3, size=PIXELS)
    load_photographs(learner.encoder, options.encoder_weights)
    return options.method, learner, f"{options.method} on ResNet-18", dict(learner.made_from or {})
