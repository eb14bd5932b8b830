"""The options of `train` and `evaluate`, and how the command line is read. Needs no PyTorch."""

from __future__ import annotations

import argparse
import math
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from fsl_course._system.nearest import did_you_mean
from fsl_course.cli.presets import PRESETS

MOST_SEED = 2**32 - 1
OWN_DATA = ("glyphs", "icons", "omniglot", "intents")
ENCODER_WEIGHTS = "file of the ResNet's weights (that of torchvision's folder)"
INVERT: dict[str, bool | str] = {"auto": "auto", "yes": True, "no": False}  # the values of --invert


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake in one line and ends with status 2. It leaves the lines of examples alone."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter} | settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message.rstrip('.')} (`{self.prog} --help` says more).\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Writes help or version, and fails where nobody can read it; argparse would end with status 0."""
        print(message, end="", file=file or sys.stderr, flush=True)


def _must(what: str, text: str, more: str = "") -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"must be {what}; got {text!r}{more and '.' + more}")


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Returns a reader of whole numbers from low to high."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise _must(f"a whole number {f'of at least {low}' if high is None else f'from {low} to {high}'}", text)
        return value

    return read


def named(text: str) -> str:
    """Reads the name of a file, folder or data set, which is never empty."""
    if not text.strip():
        raise _must("a name", text)
    return text


def above_zero(text: str) -> float:
    """Reads a number above 0 that float32 can hold."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1e30:
        raise _must("a number above 0 and at most 1e30", text)
    return value


def or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Returns the same reader, which also takes "none": that switches off a setting of a preset."""

    def read_or_none(text: str) -> Any:
        return None if text.lower() == "none" else read(text)

    return read_or_none


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """Returns a reader of these names. For another one, the error suggests the nearest."""

    def read(text: str) -> str:
        if text not in names:
            raise _must(f"one of {', '.join(names)}", text, did_you_mean(text, names))
        return text

    return read


class _ListPresets(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        print(presets_text(), end="", flush=True)
        parser.exit()


def presets_text() -> str:
    """Returns every preset with its method, source, settings and what it leaves out, for a terminal."""
    paragraph = textwrap.TextWrapper(79, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
    lines = []
    for name, preset in PRESETS.items():
        words = [f"{k}={v}" for k, v in preset.options.items() if k != "set" and v is not None]
        words += preset.options.get("set", ())
        test = preset.test and f"The paper's test: evaluate DIR {preset.test}"
        lines += paragraph.wrap(f"{name}: {preset.method}. {preset.source[0].upper()}{preset.source[1:]}.")
        lines += [line for text in (" ".join(words), preset.note, test) for line in paragraph.wrap(f"    {text}")]
    return "\n".join(lines) + "\n"


def add_train(commands: Any) -> None:
    """Adds the command `train`."""
    train = commands.add_parser(
        "train",
        help="trains a method and writes its weights and card",
        epilog="examples:\n"
        "  python -m fsl_course train --preset glyphs-quick --out runs/quick\n"
        "  python -m fsl_course train prototypical --data glyphs --way 20 --steps 1000 \\\n"
        "      --out runs/proto\n"
        "  python -m fsl_course train --preset snell-omniglot --root DIR --steps 8000 \\\n"
        "      --out runs/snell\n"
        "  python -m fsl_course train matching --data FOLDER --set full_context=true \\\n"
        "      --out runs/mine\n"
        "To continue a stopped run, give the same command again.\n"
        "docs/commands.md says more.",
    )
    presets = one_of(tuple(PRESETS))
    train.add_argument("method", nargs="?", help="the name of the method's file, e.g. prototypical")
    train.add_argument("--preset", type=presets, metavar="NAME", help="a paper's settings; options given besides win")
    train.add_argument("--list-presets", action=_ListPresets, nargs=0, help="the presets with their sources")
    _add_episodes(train, protocol="alphabets", way=20, query=5)
    _add_optimisation(train)
    encoders = one_of(("conv4", "resnet18", "ngrams", "gru"))
    photographs = (
        "what embeds: conv4; resnet18, trained on photographs and frozen; sentences: ngrams, gru (conv4, ngrams)"
    )
    train.add_argument("--encoder", type=encoders, default="conv4", help=photographs)
    train.add_argument("--encoder-weights", type=named, metavar="FILE", help=ENCODER_WEIGHTS)
    train.add_argument("--train-encoder", action="store_true", help="train the ResNet too, instead of freezing it")
    norms, halvings = one_of(("batch", "group", "none")), one_of(("pool", "stride"))
    train.add_argument("--width", type=whole(1, 1024), default=64, help="filters of Conv4 (64)")
    train.add_argument("--norm", type=norms, default="batch", help="batch, group or none (batch)")
    train.add_argument("--halving", type=halvings, default="pool", help="how Conv4 halves its maps: pool, stride")
    own = "a setting of the method itself, e.g. full_context=true for matching; repeat it for more"
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=own)
    train.add_argument("--seed", type=whole(0, MOST_SEED), default=0, help="fixes weights and episodes (0)")
    out = "folder for weights, card and the state of the run"
    train.add_argument("--out", type=named, required=True, metavar="DIR", help=out)
    train.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_optimisation(train: argparse.ArgumentParser) -> None:
    """Adds the options that say how, how long and on what the weights are updated."""
    flag = argparse.BooleanOptionalAction
    halving = "halve the rate every so many steps, or none"
    joined = "train on the validation classes too, without validation, as papers do for their last model"
    train.add_argument("--steps", type=whole(1), default=1000, help="updates (1000)")
    train.add_argument("--tasks", type=whole(1, 10_000), default=1, help="episodes in an update (1)")
    train.add_argument("--lr", type=above_zero, default=1e-3, help="Adam's learning rate (0.001)")
    train.add_argument("--halve-every", type=or_none(whole(1)), metavar="STEPS", help=halving)
    train.add_argument("--cosine", action=flag, default=False, help="take the rate to 0 along a cosine")
    train.add_argument("--clip", type=or_none(above_zero), metavar="NORM", help="largest gradient norm, or none")
    train.add_argument("--bfloat16", action=flag, default=False, help="embed with convolutions in bfloat16 (faster)")
    train.add_argument("--join-validation", action=flag, default=False, help=joined)
    train.add_argument("--validate-every", type=whole(1), default=100, metavar="STEPS", help="(100)")


def add_evaluate(commands: Any) -> None:
    """Adds the command `evaluate`."""
    evaluate = commands.add_parser(
        "evaluate",
        help="accuracy with its 95 %% interval on test episodes",
        epilog="examples:\n  python -m fsl_course evaluate prototypical --data glyphs --way 5 --shot 1\n"
        "  python -m fsl_course evaluate runs/proto --data icons --split all\n"
        "  python -m fsl_course evaluate baselines --data omniglot --root DIR --json\n"
        "docs/commands.md says more.",
    )
    which = 'a method with shipped weights, "baselines", or the folder or .safetensors file that train made'
    splits, flatters = one_of(("train", "val", "test", "all")), "batch norm may see all queries at once (flatters)"
    evaluate.add_argument("method", help=which)
    _add_episodes(evaluate, protocol=None, way=None, query=15)
    add_weights(evaluate)
    evaluate.add_argument("--split", type=splits, default="test", help="train, val, test or all (test)")
    evaluate.add_argument("--episodes", type=whole(2, 1_000_000), help="(600; 20 runs for lake)")
    evaluate.add_argument("--runs", metavar="DIR", type=named, help="the published runs of lake, unpacked (else drawn)")
    evaluate.add_argument("--seed", type=whole(0, MOST_SEED), default=0, help="fixes the episodes (0)")
    evaluate.add_argument("--transductive", action="store_true", help=flatters)
    evaluate.add_argument("--json", action="store_true", help="one JSON object a line instead of text")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose among shipped weights, or take a method without its own on the network for photographs."""
    parser.add_argument("--trained-on", help="which shipped weights of the method (glyphs)")
    parser.add_argument("--variant", help="of the shipped weights, e.g. full_context of matching")
    ready = "no weights of the method: its formula on resnet18, trained on photographs"
    parser.add_argument("--encoder", type=one_of(("resnet18",)), help=ready)
    parser.add_argument("--encoder-weights", type=named, metavar="FILE", help=ENCODER_WEIGHTS)


def _add_episodes(parser: argparse.ArgumentParser, *, protocol: str | None, way: int | None, query: int) -> None:
    """Adds the options of the data and of the episodes drawn from it, with the command's own defaults."""
    flag = argparse.BooleanOptionalAction
    usual = "glyphs" if way else None
    data = "glyphs, icons, omniglot, intents, a folder with one folder per class, or sentences in a .csv"
    data += f" ({usual or 'that of the weights, else glyphs'})"
    lake = "" if way else ", or lake, his one-shot test"
    split = f"Omniglot's split: alphabets or random{lake} ({protocol or 'that of the weights, else alphabets'})"
    protocols = one_of(("alphabets", "random") if way else ("alphabets", "random", "lake"))
    parser.add_argument("--data", type=named, default=usual, help=data)
    parser.add_argument("--root", metavar="DIR", help="where the real Omniglot lies (else the variable FSL_DATA)")
    parser.add_argument("--protocol", type=protocols, help=split)
    parser.add_argument("--rotations", action=flag, default=False, help="turns by 90 degrees as classes of their own")
    parser.add_argument("--turn-tasks", action=flag, default=False, help="turns each whole task by one such angle")
    form = "of your own pictures (" + ("28 and 1; 112 and 3 for resnet18)" if way else "those of the weights)")
    negative = "make negatives of your own pictures, all or none: auto, yes or no (auto: if most are dark on light)"
    parser.add_argument("--size", type=whole(16, 1024), help=f"pixels {form}")
    parser.add_argument("--channels", type=int, choices=(1, 3), help=form)
    parser.add_argument("--invert", type=one_of(tuple(INVERT)), help=negative)
    parser.add_argument("--within-group", action=flag, default=False, help="all classes of a task from one alphabet")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... or mps (auto)")
    ways = f"{way}, or what fits" if way else "5, what fits, or those of a trained head"
    parser.add_argument("--way", type=whole(2, 10_000), help=f"classes in an episode ({ways})")
    parser.add_argument("--shot", type=whole(1, 10_000), default=1, help="support drawings for each class (1)")
    parser.add_argument("--query", type=whole(1, 10_000), help=f"queries for each class ({query}, or what fits)")
    nameless, strangers = "drawings without a label for each class (0)", "further classes with as many of these (0)"
    parser.add_argument("--unlabelled", type=whole(0, 10_000), default=0, help=nameless)
    parser.add_argument("--distractors", type=whole(0, 10_000), default=0, help=strangers)


def read(parser: Parser, commands: Any, argv: Sequence[str]) -> argparse.Namespace:
    """Reads and checks the command line. commands: what `add_subparsers` returned.

    Options that are given win over the settings of a preset, and these over the defaults. Ends the process with one line and
    status 2 where something is wrong.
    """
    if argv and not argv[0].startswith("-") and argv[0] not in commands.choices:
        there_is, near = ", ".join(commands.choices), did_you_mean(argv[0], commands.choices)
        parser.error(f"there is no command {argv[0]!r}: choose one of {there_is}.{near}")
    given, extra = parser.parse_known_args(argv)
    if given.command is None:
        return given
    command = commands.choices[given.command]
    if extra:
        options = re.findall(r"--[a-z][\w-]*", command.format_help())
        command.error(f"there is no option {extra[0]!r} here.{did_you_mean(extra[0], options)}")
    if given.command != "train":
        return given
    given.preset_changed = {}
    if given.preset is not None:
        preset = PRESETS[given.preset]
        if given.method not in (None, preset.method):
            command.error(f"the preset {given.preset} trains {preset.method}, not {given.method}: leave either out")
        command.set_defaults(method=preset.method, **preset.options)
        given = parser.parse_args(argv)
        plain = vars(parser.parse_args(["train", f"--preset={given.preset}", f"--out={given.out}"]))
        plain |= {"root": given.root, "quiet": given.quiet}  # which change no result
        given.preset_changed = {name: value for name, value in vars(given).items() if value != plain[name]}
    if given.method is None:
        command.error("which method? Give its name, e.g. `train prototypical`, or --preset NAME")
    if given.data is None:
        command.error(f"the preset {given.preset} needs --data FOLDER, a folder with train, val and test in it")
    if given.cosine and given.halve_every is not None:
        command.error("--cosine and --halve-every exclude each other: add --halve-every none, or --no-cosine")
    return given
