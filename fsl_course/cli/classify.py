"""The command `classify`: names pictures (or sentences) by examples, and says which examples are nearest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsl_course.cli.options import INVERT, add_weights, named, one_of

if TYPE_CHECKING:  # PyTorch is imported by the functions, because the help works without it
    from fsl_course.classifier import FewShotClassifier


def add_parser(commands: Any) -> None:
    """Adds the command `classify`."""
    classify = commands.add_parser(
        "classify",
        help="names pictures by a folder of examples, or sentences by a file of them",
        epilog="examples:\n  python -m fsl_course classify prototypical --support mine new1.png new2.png\n"
        "  python -m fsl_course classify runs/mine --support mine new --html page.html\n"
        "  python -m fsl_course classify runs/mine --support mine new --none-of-these\n"
        "  python -m fsl_course classify simple_shot --encoder resnet18 \\\n"
        "      --support photos new\n"
        "  python -m fsl_course classify prototypical --support my.csv 'how late?'\n"
        "docs/commands.md says more.",
    )
    which = "a method with shipped weights, the folder or .safetensors file that train made, or a file of --save"
    invert = "make negatives of all pictures or of none: auto, yes or no (that of the weights, else auto: if most "
    invert += "examples are dark on light)"
    classify.add_argument("method", metavar="WEIGHTS", type=named, help=which)
    classify.add_argument(
        "pictures", metavar="PICTURE", nargs="+", type=named, help="pictures, folders of them, or sentences"
    )
    classify.add_argument(
        "--support", metavar="FOLDER", type=named, help="the examples: one folder for each class, or a .csv"
    )
    add_weights(classify)
    classify.add_argument("--invert", type=one_of(tuple(INVERT)), help=invert)
    classify.add_argument("--none-of-these", action="store_true", help="pictures that are like no class get no name")
    classify.add_argument("--json", action="store_true", help="one JSON object a line instead of text")
    classify.add_argument("--html", metavar="FILE", type=named, help="also write a page with all pictures")
    classify.add_argument("--save", metavar="FILE", type=named, help="also write weights and examples to one file")
    classify.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... or mps (auto)")


def run(options: argparse.Namespace) -> int:
    """Prints a name for every picture. Returns the exit status: 0, or 1 if some of them cannot be read."""
    from fsl_course.cli import classify_sentences
    from fsl_course.cli.data import note

    if options.support and Path(options.support).suffix in (".csv", ".jsonl", ".json"):
        return classify_sentences.run(options)
    classifier, weights = _fitted(options)
    if options.none_of_these:
        classifier.calibrate()
    given = _pictures(options.pictures)
    pictures, negatives = _readable(classifier, given)
    rows = answers(classifier, pictures, weights)
    if negatives and options.invert is None:
        ground, other = ("dark", "light") if classifier.inverted_ else ("light", "dark")
        note(
            f"{negatives} of {len(pictures)} pictures have a {ground} background, and the examples a {other} one: to this "
            "network they are negatives of each other. Make them alike."
        )
    if options.save:
        classifier.save(options.save)
        note(f"weights and examples are in {options.save}.")
    if options.html:
        from fsl_course.cli.classify_page import write_page

        write_page(Path(options.html), classifier, rows)
        note(f"the page is {options.html}.")
    if not options.json:
        shots = classifier.labels_.bincount().tolist()
        few = str(min(shots)) if min(shots) == max(shots) else f"{min(shots)} to {max(shots)}"
        print(f"{weights}: {len(shots)} classes, examples of each: {few}{', inverted' * classifier.inverted_}")
    for row in rows:
        print(json.dumps(row) if options.json else _text(row))
    return 0 if len(pictures) == len(given) else 1


def answers(classifier: FewShotClassifier, pictures: list[str], weights: str) -> list[dict[str, Any]]:
    """Returns one row for each picture: its name or None, the probability of every class, and the three nearest examples."""
    scores = classifier.decision_function(pictures)  # once for both: every call reads and judges the pictures anew
    asked = classifier.names_of(scores), scores.softmax(-1).tolist(), classifier.nearest(pictures)
    return [
        {
            "picture": picture,
            "name": name,
            "weights": weights,
            "probabilities": dict(zip(classifier.classes_, shares, strict=True)),
            "nearest": [{"picture": classifier.sources_[n.index], **n._asdict()} for n in near],
        }
        for picture, name, shares, near in zip(pictures, *asked, strict=True)
    ]


def _readable(classifier: FewShotClassifier, pictures: list[str]) -> tuple[list[str], int]:
    """Returns the pictures that can be read, and how many of them are negatives of what the examples are like.

    Prints a note for every picture that cannot be read. Raises ValueError if there is no other.
    """
    from fsl_course.cli.data import note
    from fsl_course.data.pictures import is_negative, square_picture

    channels, size = classifier.support_images_.shape[1:3]
    read, negatives = [], 0
    for picture in pictures:
        try:
            background = square_picture(picture, size, channels)[1]
        except (ValueError, OSError) as error:
            if len(pictures) == 1:
                raise
            note(f"left out: {error}")
            continue
        read.append(picture)
        negatives += channels == 1 and is_negative([background], 1, "auto") != classifier.inverted_
    if not read:
        raise ValueError(f"none of the {len(pictures)} pictures can be read.")
    return read, negatives


def _text(row: dict[str, Any]) -> str:
    likely = sorted(row["probabilities"].items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in likely)
    near = ", ".join(f"{n['name']}/{Path(n['picture'] or '?').name} ({n['distance']:.3g})" for n in row["nearest"])
    return f"{row['picture']}: {row['name'] or 'none of these'}\n    {shares}\n    nearest: {near}"


def _fitted(options: argparse.Namespace) -> tuple[FewShotClassifier, str]:
    """Returns a classifier that has read the examples, and the name of its weights."""
    from fsl_course._system.devices import choose
    from fsl_course.classifier import FewShotClassifier
    from fsl_course.cli import evaluate
    from fsl_course.data.folder import class_folders
    from fsl_course.weights.checkpoints import shipped
    from fsl_course.weights.learners import has_head

    if options.support is None:
        usual = dict.fromkeys(("trained_on", "variant", "encoder", "encoder_weights", "invert")) | {"device": "auto"}
        if extra := [f"--{name.replace('_', '-')}" for name, value in usual.items() if getattr(options, name) != value]:
            raise ValueError(f"{', '.join(extra)} goes with --support FOLDER: give it, or leave {extra[0]} out.")
        if (path := evaluate.weights_file(options.method)) is None:
            raise ValueError("--support is missing: name a folder that holds one folder of pictures for each class.")
        return FewShotClassifier.load(path), path.stem
    if not (root := Path(options.support).expanduser().resolve()).is_dir():
        raise ValueError(f"--support takes a folder with one folder for each class; {options.support} is no folder.")
    try:
        classes = class_folders(root, least=1)
    except ValueError as error:
        raise ValueError(f"--support: {error}") from error
    pairs = [(picture, entry.name) for entry in classes for picture in entry.pictures]
    options.way, options.shot = len(classes), 1 if len(pairs) < 3 * len(classes) else 5  # the nearer of those shipped
    try:
        _, learner, weights, about = evaluate.trained(options)
    except ValueError as error:
        own = [name for name in shipped() if name.startswith(f"{options.method}-{options.trained_on or 'glyphs'}-")]
        if not has_head(options.method) or not own:
            raise
        raise ValueError(
            f"{options.method} serves as many classes as its weights were made for, and --support {options.support} has "
            f"{options.way}: there is {', '.join(own)}. Or take a method that serves any number, such as prototypical."
        ) from error
    invert = INVERT[options.invert or evaluate.inversion_of(about)]
    return FewShotClassifier(learner.to(choose(options.device)), invert=invert).fit(*zip(*pairs, strict=True)), weights


def _pictures(given: list[str]) -> list[str]:
    """Returns the pictures to be named; a folder stands for those in it."""
    from fsl_course.data.folder import pictures_in

    found = [[str(picture) for picture in pictures_in(Path(p))] if Path(p).is_dir() else [p] for p in given]
    if [] in found:
        raise ValueError(f"the folder {given[found.index([])]} holds no pictures (PNG, JPEG or WebP).")
    return [picture for pictures in found for picture in pictures]
