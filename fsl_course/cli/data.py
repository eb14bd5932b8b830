"""The pictures that --data and the options beside it name, and the episodes drawn from them."""

import argparse
import os
import sys
from pathlib import Path

from fsl_course import data
from fsl_course._system.nearest import did_you_mean
from fsl_course.cli.options import INVERT, OWN_DATA
from fsl_course.data import attributes
from fsl_course.episodes import LAKE_WAY, EpisodeSampler, LakeSampler, PictureSampler, PublishedRuns, SceneSampler


def load_data(options: argparse.Namespace, *, described: bool = False) -> data.ImageSet:
    """Loads the image set, and sets --size, --channels and --invert to what it has. A folder without splits is split 60/20/20.

    described: with descriptions of the classes, which glyphs and icons have
    Raises FileNotFoundError or NotADirectoryError where the data is not there, ValueError for options that go with other data.
    """
    _check_options(options)
    if options.data == "omniglot":
        if not (options.root or getattr(options, "runs", None) or os.environ.get("FSL_DATA")):
            raise FileNotFoundError(
                "where is Omniglot? Give --root DIR, or set the variable FSL_DATA: the folder that holds omniglot-py with "
                "images_background.zip and images_evaluation.zip. load_omniglot(DIR, download=True) fetches them."
            )
        options.protocol = options.protocol or "alphabets"
        lake = options.protocol == "lake"
        if getattr(options, "runs", None):
            source = data.load_lake_runs(options.runs)
        else:
            source = data.load_omniglot(options.root, protocol="alphabets" if lake else options.protocol)
    elif options.data in OWN_DATA:
        source = {"glyphs": data.load_glyphs, "icons": data.load_icons, "intents": data.load_intents}[options.data]()
    elif of_sentences(options):
        source = data.load_texts(options.data)
        source = data.split_classes(source) if source.splits is None else source
    else:
        if not Path(options.data).is_dir():
            raise NotADirectoryError(
                f"--data takes {', '.join(OWN_DATA)}, a folder or a file of sentences; {options.data!r} is none of these."
                f"{did_you_mean(options.data, OWN_DATA)}"
            )
        options.size, options.channels = options.size or 28, options.channels or 1
        invert = INVERT[options.invert or "auto"]
        source = data.load_folder(options.data, options.size, options.channels, invert=invert)
        source = data.split_classes(source) if source.splits is None else source
        options.invert = "yes" if source.inverted else "no"
    turned = options.rotations or options.turn_tasks
    if turned and isinstance(source, data.TextSet):
        raise ValueError("--rotations and --turn-tasks turn pictures; sentences have no angle: leave them out.")
    source = data.rotations_as_classes(source, turns_as_groups=options.turn_tasks) if turned else source
    return attributes.described(source) if described else source


def of_sentences(options: argparse.Namespace) -> bool:
    """Returns whether --data names sentences: the embedded intents, or a file of your own."""
    path = Path(options.data)
    return options.data == "intents" or (path.suffix in (".csv", ".json", ".jsonl") and path.is_file())


def _check_options(options: argparse.Namespace) -> None:
    """Raises ValueError for options that exclude each other, or that the data would ignore. Those of a preset may be ignored."""
    if getattr(options, "runs", None) and options.protocol != "lake":
        raise ValueError("--runs goes with --protocol lake: add it, or leave --runs out.")
    if options.turn_tasks and options.within_group:
        raise ValueError("--turn-tasks and --within-group exclude each other: leave one out.")
    usual = {"size": (None, 28), "channels": (None, 1), "invert": (None,)} if options.data in OWN_DATA else {}
    usual |= {"protocol": (None,)} if options.data != "omniglot" else {}
    for name, ignored in usual.items():
        chosen = getattr(options, "preset", None) is None or name in options.preset_changed
        if chosen and getattr(options, name) not in ignored:
            goes_with = "--data omniglot" if name == "protocol" else "pictures of your own, --data FOLDER"
            raise ValueError(f"--{name} goes with {goes_with}; --data {options.data} has none: leave it out.")


def episodes(classes: data.ImageSet, options: argparse.Namespace, most_queries: int) -> EpisodeSampler:
    """Returns the sampler that the options describe. Unless given, --query is most_queries and --way 20, or what fits.

    Raises ValueError, in the words of the options, where there are too few classes or pictures.
    """
    there, least, shot = len(classes), int(classes.counts.min()), options.shot + options.unlabelled
    if options.distractors and not options.unlabelled:
        raise ValueError("--distractors goes with --unlabelled: give the number of drawings without a label, too.")
    options.way = options.way or max(2, min(20, there))
    if options.way > there:
        more = ", --split all" if getattr(options, "split", "all") != "all" else ""
        cure = f"give --way {there}{more}" if there > 1 else f"give{more.lstrip(',')} a folder with more"
        name = f"--way {options.way} needs {options.way} classes, and {classes.name}"
        raise ValueError(f"{name} has {there}: {cure}, or add classes.")
    if (drawn := options.way + options.distractors) > there:
        asked = f"--way {options.way} and --distractors {options.distractors} need {drawn} classes"
        raise ValueError(f"{asked}, and {classes.name} has {there}: take fewer of either.")
    if options.query is None:
        options.query = max(1, min(most_queries, least - shot))
        if shot < least < shot + most_queries and least < int(classes.counts.max()):
            note(
                f"{options.query} queries for each class, because {classes.class_names[int(classes.counts.argmin())]} has only "
                f"{least} pictures."
            )
    if shot + options.query > least:
        short = classes.class_names[int(classes.counts.argmin())]
        asked = [f"--shot {options.shot}", *[f"--unlabelled {options.unlabelled}"] * (options.unlabelled > 0)]
        less = " and --unlabelled" * (options.unlabelled > 0)
        fits = f"give --query {least - shot}" if least > shot else f"give a --shot{less} below {least}"
        raise ValueError(
            f"{', '.join(asked)} and --query {options.query} need {shot + options.query} pictures of every class, "
            f"and {short} of {classes.name} has {least}: {fits}, or add pictures."
        )
    largest = max(classes.groups.count(group) for group in set(classes.groups))
    if one_group(options) and drawn > largest:
        more = f" and --distractors {options.distractors}" if options.distractors else ""
        there_is = f"the largest group of {classes.name} has {largest} classes"
        raise ValueError(f"--way {options.way}{more} from one group: {there_is}.")
    return EpisodeSampler(
        classes, options.way, options.shot, options.query, seed=options.seed, within_group=one_group(options),
        n_unlabelled=options.unlabelled, n_distractors=options.distractors,
    )  # fmt: skip


def lake(classes: data.ImageSet, options: argparse.Namespace) -> LakeSampler:
    """Returns the runs of Lake's one-shot test. Raises ValueError for options that it fixes."""
    fixed = {"way": LAKE_WAY, "shot": 1, "query": 1}
    asked = [name for name, value in fixed.items() if getattr(options, name) not in (None, value)]
    if asked:
        raise ValueError(f"--protocol lake is {LAKE_WAY}-way 1-shot with one query a class: leave --{asked[0]} out.")
    if other := [
        n for n in ("rotations", "turn_tasks", "unlabelled", "distractors", "transductive") if getattr(options, n)
    ]:
        raise ValueError(
            f"--protocol lake draws upright letters and judges each alone: leave --{other[0].replace('_', '-')} out."
        )
    for name, value in fixed.items():
        setattr(options, name, value)
    return (PublishedRuns if options.runs else LakeSampler)(classes, seed=options.seed)


def scenes(classes: data.ImageSet, options: argparse.Namespace) -> SceneSampler:
    """Returns tasks of segmentation. Unless given, --query is 2. Raises ValueError for options of other tasks."""
    if asked := [n for n in ("way", "unlabelled", "distractors", "within_group", "turn_tasks") if getattr(options, n)]:
        raise ValueError(f"{options.method} finds one class in scenes: leave --{asked[0].replace('_', '-')} out.")
    options.query = options.query or 2
    return SceneSampler(classes, options.shot, options.query, seed=options.seed)


def nameless(classes: data.ImageSet, options: argparse.Namespace) -> PictureSampler:
    """Returns tasks that use no label. Unless given, --way is 50 and --query 3. Raises ValueError for what needs labels."""
    asked = {"shot 1": options.shot == 1} | {name: not getattr(options, name) for name in ("unlabelled", "distractors")}
    asked |= {"within-group": not options.within_group, "turn-tasks": not options.turn_tasks}
    if wrong := [name for name, fine in asked.items() if not fine]:
        cure = "give --shot 1" if wrong[0] == "shot 1" else f"leave --{wrong[0]} out"
        raise ValueError(f"{options.method} learns from single pictures, without labels: {cure}.")
    options.way, options.query = options.way or min(50, int(classes.counts.sum())), options.query or 3
    return PictureSampler(classes, options.way, options.query, seed=options.seed)


def note_unlabelled(method: str, uses: bool, options: argparse.Namespace) -> None:
    """Prints a note where a method and the unlabelled pictures do not go together. uses: whether the method learns from them."""
    if uses and not options.unlabelled:
        note(f"without --unlabelled pictures {method} is the same as prototypical.")
    elif options.unlabelled and not uses:
        note(f"{method} makes no use of --unlabelled pictures.")


def note(text: str) -> None:
    """Prints a remark beside the output."""
    print(f"note: {text}", file=sys.stderr)


def one_group(options: argparse.Namespace) -> bool:
    """Returns whether the classes of an episode come from one group: an alphabet, or with --turn-tasks a turn."""
    return options.within_group or options.turn_tasks


def data_name(options: argparse.Namespace) -> str:
    """Returns what file names call the data: the name of an embedded set, or the last part of a path."""
    if options.data in OWN_DATA:
        return options.data
    path = Path(options.data).resolve()
    return path.stem if of_sentences(options) else path.name
