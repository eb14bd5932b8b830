"""The command `evaluate`: accuracy of shipped, saved or untrained learners on test episodes."""

import argparse
import json
import sys
from pathlib import Path

from fsl_course import evaluation
from fsl_course._system.allocator import keep_memory
from fsl_course._system.devices import choose
from fsl_course.cli.data import load_data, one_group
from fsl_course.episodes import EpisodeSampler
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.baselines import baselines
from fsl_course.weights import checkpoints


def run(options: argparse.Namespace) -> int:
    """Prints one row for each learner: its accuracy and the 95 % interval. Returns the exit status 0."""
    keep_memory()
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
        split, options.way, options.shot, options.query, seed=options.seed, within_group=one_group(options)
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
                "within_group": options.within_group, "turn_tasks": options.turn_tasks, "inductive": not options.transductive,
            }  # fmt: skip
            print(json.dumps(row))
        else:
            print(f"  {name:20s} {result}")
    return 0


def _trained(options: argparse.Namespace) -> dict[str, tuple[FewShotLearner, str, str | None]]:
    """Returns, by the learner's name: the learner, the name of its weights, and the protocol of its training.

    The protocol is None for weights that were trained on other data than Omniglot.
    """
    if (path := _weights(options.method)) is not None:
        learner, about = checkpoints.load_learner(path)
        protocol = about.get("omniglot_protocol")
        return {path.stem: (learner, path.stem, protocol if protocol in ("alphabets", "random") else None)}
    which = (options.method, options.trained_on, options.way, options.shot)
    name = checkpoints.shipped_name(*which, variant=options.variant)
    protocol = {"omniglot": "random", "omniglot-alphabets": "alphabets"}.get(options.trained_on)
    return {options.method: (checkpoints.pretrained(*which, variant=options.variant), name, protocol)}


def _weights(method: str) -> Path | None:
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
        raise ValueError(
            f"the folder {path} should hold the weights of one finished run; it holds {names}. Name the file."
        )
    return found[0]
