"""The command `train`: trains a method, and writes its weights and their card."""

import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch

from fsl_course import evaluation
from fsl_course._system.devices import choose
from fsl_course._system.files import replace_file
from fsl_course._system.locks import only_run
from fsl_course.cli import cards
from fsl_course.cli.cards import CARD_EPISODES, CARD_ROWS
from fsl_course.cli.data import data_name, episodes, load_data, nameless, note, note_unlabelled, of_sentences, scenes
from fsl_course.cli.options import OWN_DATA
from fsl_course.data import ImageSet
from fsl_course.episodes import EpisodeSampler, SceneSampler
from fsl_course.methods.base import FewShotLearner
from fsl_course.photographs import PIXELS, load_photographs
from fsl_course.training import distributed
from fsl_course.training.loop import History, fit
from fsl_course.weights import checkpoints, learners
from fsl_course.weights.checkpoints import CheckpointError

_FEW = 5  # times the ways of a task: with fewer training classes, a method that adapts overfits within minutes


def run(options: argparse.Namespace) -> int:
    """Trains, validates on the validation classes, tests once, writes DIR/METHOD-DATA.safetensors and its card (.json).

    Until it is finished, DIR holds its state and its settings, and while it runs a lock; see docs/commands.md. Returns an exit
    status: 0, or 130 for a run that Ctrl-C stopped.
    """
    if options.method == "baselines":
        raise ValueError("the baselines have nothing to train: use `python -m fsl_course evaluate baselines`.")
    learners.check_method(options.method)
    headed = learners.has_head(options.method)
    if options.bfloat16 and headed:
        raise ValueError(f"--bfloat16 is for methods that embed; {options.method} adapts its weights: leave it out.")
    own, device, photographs = own_settings(options.set), choose(options.device), _photographs(options)
    source = load_data(options, described=learners.reads_descriptions(options.method)).to(device)
    classes = _training_classes(source, options)
    labels = options.method not in learners.WITHOUT_LABELS
    if options.method in learners.SCENES:
        sampler = scenes(classes, options)
    else:
        sampler = episodes(classes, options, most_queries=5) if labels else nameless(classes, options)
    settings = {"width": options.width, "norm": options.norm, "halving": options.halving}
    settings |= learners.settings_of(options.method, source, options.way) | photographs
    # a head over the base classes would teach a frozen encoder nothing
    settings |= ({"n_base": 0 if photographs.get("frozen") else len(classes)} if "n_base" in settings else {}) | own
    _check_own(own, source, options)
    torch.manual_seed(options.seed)
    learner = learners.make(options.method, **settings).to(device)
    if photographs.get("encoder") == "resnet18":
        load_photographs(learner.encoder, options.encoder_weights)
    if options.method in learners.SCENES:
        learner.encoder.start_from(checkpoints.pretrained("prototypical", "glyphs").encoder)
    name = f"{options.method}-{data_name(options)}"
    name += f"-{options.way}w{options.shot}s" if headed else ""
    weights = Path(options.out) / f"{name}.safetensors"
    card = cards.settings_card(options, settings, device, source)
    with ExitStack() as lock:
        with distributed.processes() as group:
            if group.first:  # the first of several processes writes, tests and prints for all
                lock.enter_context(only_run(weights.with_suffix(".lock")))
                cards.check_not_finished(weights, card)
                _say_what_to_expect(learner, classes, source, options)
            if any(p.requires_grad and p.numel() for p in learner.parameters()):
                history = _fitted(learner, sampler, source, options, weights, card)
            else:
                history = History()
                with torch.no_grad():
                    learner.eval().after_training(sampler)
        if history.interrupted or not group.first:
            return 130 if history.interrupted else 0
        checkpoints.save_learner(weights, learner, cards.about(options, settings, source))
        _write_card(weights, card, learner, history, _test_rows(learner, source, options))
        # Removed last, because until here the same command can continue from them.
        weights.with_suffix(".settings.json").unlink(missing_ok=True)
        weights.with_suffix(".state.safetensors").unlink(missing_ok=True)
    return 0


def _write_card(
    weights: Path, card: dict[str, Any], learner: FewShotLearner, history: History, tests: tuple[list, list]
) -> None:
    """Writes the card beside the weights, and prints its tests. tests: what `_test_rows` returned."""
    rows, left_out = tests
    card |= {
        "parameters": sum(p.numel() for p in learner.parameters()), "minutes": round(history.seconds / 60, 1),
        "best_step": history.best_step, "validation": [list(row) for row in history.validation[-1:]],
        "protocol": f"{'transductive' if learner.transductive else 'inductive'}; test classes; 15 queries a class, or what fits; "
        f"{CARD_EPISODES} episodes of seed 0; mean, half width of the 95 % interval as fractions",
        "test": rows, "test_left_out": left_out,
    }  # fmt: skip
    checkpoints.save_json(weights.with_suffix(".json"), card)
    print(f"{weights} and its card {weights.with_suffix('.json').name}:")
    for row in rows:
        print(f"  {row['way']}-way {row['shot']}-shot  {row['mean']:.2%} ± {row['ci95']:.2%}")
    for line in left_out:
        print(f"  {line}")


def own_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Reads the values of --set KEY=VALUE: JSON (true, 10, null), Python's True, False and None, or else a word.

    Raises ValueError where = or the key is missing.
    """
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
    """Raises ValueError where --set contradicts the pictures or the episodes, before a file is written."""
    channels, size = source.images.shape[2], source.images.shape[-1]
    there_is = {"in_channels": channels, "size": size, "n_way": options.way, "net": "conv4"}
    if {"encoder", "frozen"} & set(own):
        raise ValueError("--set takes neither encoder nor frozen: give --encoder resnet18, or --train-encoder, too.")
    for name, value in own.items():
        if name in there_is and value != there_is[name]:
            raise ValueError(
                f"{name}={value} does not go with these episodes, which are {options.way}-way, of pictures of {size} x {size} "
                f"pixels and {channels} channel(s): leave --set {name} out."
            )


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
    """Trains the learner. The settings of the run lie beside its state from the start."""
    settings, state = weights.with_suffix(".settings.json"), weights.with_suffix(".state.safetensors")
    first = distributed.current().first
    before = settings.read_bytes() if first and settings.exists() else None
    if first:
        checkpoints.save_json(settings, card)
    validation = None if options.join_validation else _validation(source, options)
    try:
        return fit(
            learner, sampler, steps=options.steps, tasks=options.tasks, lr=options.lr, clip=options.clip,
            halve_every=options.halve_every, cosine=options.cosine, bfloat16=options.bfloat16,
            validation=None if isinstance(validation, str) else validation,
            validate_every=options.validate_every, checkpoint=state, progress=not options.quiet,
        )  # fmt: skip
    except FloatingPointError as error:
        raise FloatingPointError(
            str(error).replace("smaller lr", "smaller --lr").replace("clip=1.0", "--clip 1.0")
        ) from None
    except (CheckpointError, ValueError):
        # The state may belong to a run with other settings. Those settings still describe it, so they are restored.
        with suppress(OSError):
            if before is not None:
                replace_file(settings, before)
            elif first and not state.exists():
                settings.unlink()
        raise


def _episodes(
    source: ImageSet, split: str, way: int, shot: int, most_queries: int, options: argparse.Namespace, seed: int = 0
) -> EpisodeSampler | str:
    """Returns episodes of a split with the unlabelled pictures asked for, or why there are none: its classes do not suffice."""
    if options.method in learners.SCENES:
        try:
            return SceneSampler(source.split(split), shot, 2, seed=seed)
        except ValueError as error:
            return str(error).rstrip(".")
    there, unlabelled, distractors = (source.splits or []).count(split), options.unlabelled, options.distractors
    if way < 2 or way + distractors > there:
        return f"the {split} split has {there} class{'es' * (there != 1)}"
    classes = source.split(split)
    query = min(most_queries, int(classes.counts.min()) - shot - unlabelled)
    if query < 1:
        return f"{classes.class_names[int(classes.counts.argmin())]} has {int(classes.counts.min())} pictures"
    return EpisodeSampler(classes, way, shot, query, seed=seed, n_unlabelled=unlabelled, n_distractors=distractors)


def _validation(source: ImageSet, options: argparse.Namespace) -> EpisodeSampler | str:
    """Returns episodes of the training shot, 5-way where there are enough classes; a trained head keeps its ways."""
    if options.method in learners.WITHOUT_LABELS:
        return "that would use labels"
    way = options.way if learners.has_head(options.method) else min(5, (source.splits or []).count("val"))
    return _episodes(source, "val", way, options.shot, 5, options, options.seed)


def _test_rows(
    learner: FewShotLearner, source: ImageSet, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measures the CARD_ROWS that the test split is large enough for; a trained head is tested with its way and shot.

    Returns the rows, and a line for each test that was left out, with the reason.
    """
    rows, left_out = [], []
    more = {name: value for name in ("unlabelled", "distractors") if (value := getattr(options, name))}
    tests = [(options.way, options.shot)] if learners.has_head(options.method) else CARD_ROWS
    for way, shot in CARD_ROWS[:2] if options.method in learners.SCENES else tests:
        sampler = _episodes(source, "test", way, shot, 15, options)
        if isinstance(sampler, str):
            left_out.append(f"{way}-way {shot}-shot left out: {sampler}")
            continue
        result = evaluation.evaluate(learner, sampler, CARD_EPISODES, metric=evaluation.metric_of(sampler))
        row = {"way": sampler.n_way, "shot": shot, "query": sampler.n_query} | more
        rows.append(row | {"mean": result.mean, "ci95": result.ci95})
    return rows, left_out


def _photographs(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings of --encoder resnet18, and its usual form of pictures; {} for Conv4. Raises ValueError as needed."""
    if of_sentences(options):
        if options.encoder == "resnet18" or options.bfloat16:
            raise ValueError(
                "--encoder resnet18 and --bfloat16 go with pictures: for sentences take --encoder ngrams or gru."
            )
        options.encoder = "ngrams" if options.encoder == "conv4" else options.encoder
        return {"encoder": options.encoder}
    if options.encoder in learners.SENTENCES:
        raise ValueError(f"--encoder {options.encoder} reads sentences: give --data intents or --data FILE.csv.")
    if options.encoder == "conv4":
        if options.encoder_weights or options.train_encoder:
            raise ValueError("--encoder-weights and --train-encoder go with --encoder resnet18: add it, or neither.")
        return {}
    if options.method not in learners.EMBEDS:
        there_is = ", ".join(learners.EMBEDS)
        raise ValueError(f"--encoder resnet18 is for {there_is}; {options.method} has a network of its own.")
    if options.data not in OWN_DATA:
        options.size, options.channels = options.size or PIXELS, options.channels or 3
    return {"encoder": "resnet18", "frozen": not options.train_encoder}


def _say_what_to_expect(
    learner: FewShotLearner, classes: ImageSet, source: ImageSet, options: argparse.Namespace
) -> None:
    """Prints notes on what the data and the settings make of the run."""
    if options.data not in OWN_DATA and not of_sentences(options):
        how = f"{options.size} x {options.size} pixels, {'colour' if options.channels == 3 else 'grey'}"
        how += ", inverted" if source.inverted else ", not inverted"
        note(f"own pictures are read in {how}: --size, --channels, --invert.")
    note_unlabelled(options.method, learner.uses_unlabelled, options)
    if not any(p.requires_grad and p.numel() for p in learner.parameters()):
        note(f"{options.method} on a frozen encoder has no weights to train: --steps has no effect.")
        return
    if learners.has_head(options.method) and len(classes) < _FEW * options.way:
        note(
            f"{len(classes)} training classes are few for {options.method}, which learns tasks by heart where it meets the same "
            f"ones again and again: have at least {_FEW * options.way}, add --rotations, or take prototypical."
        )
    if not options.join_validation and isinstance(why := _validation(source, options), str):
        note(f"no validation, so the last weights are kept and not the best: {why}.")
