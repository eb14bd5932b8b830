"""The command line: python -m fsl_course doctor / train / evaluate / grade / assignment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fsl_course import assignments, doctor
from fsl_course.grading import options as grading_options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fsl_course",
        description="Few-shot learning: train and evaluate the methods of the course, and check an installation.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="says what is right and wrong with this installation (exit status 0 or 1)")

    train = commands.add_parser(
        "train",
        help="trains a method and writes its weights and card",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m fsl_course train prototypical --data glyphs --way 20 --shot 1 --query 5 "
        "--steps 1000 --out runs/proto\nA run that was stopped goes on when the same command is given again.",
    )
    train.add_argument("method", help="the name of the method's file, e.g. prototypical")
    _add_data(train)
    train.add_argument("--way", type=int, default=20, help="classes in a training episode (20)")
    train.add_argument("--shot", type=int, default=1, help="support drawings for each class (1)")
    train.add_argument("--query", type=int, default=5, help="queries for each class (5)")
    train.add_argument("--steps", type=int, default=1000, help="updates (1000)")
    train.add_argument("--tasks", type=int, default=1, help="episodes in an update (1)")
    train.add_argument("--lr", type=float, default=1e-3, help="Adam's learning rate (0.001)")
    train.add_argument("--halve-every", type=int, metavar="STEPS", help="halve the rate every so many steps")
    train.add_argument("--cosine", action="store_true", help="take the rate to 0 along a cosine")
    train.add_argument("--clip", type=float, metavar="NORM", help="largest allowed gradient norm")
    train.add_argument("--width", type=int, default=64, help="filters of Conv4 (64)")
    train.add_argument("--norm", choices=("batch", "group", "none"), default="batch")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the method itself, e.g. full_context=true for matching; repeat it for more",
    )
    train.add_argument("--validate-every", type=int, default=100, metavar="STEPS")
    train.add_argument("--seed", type=int, default=0, help="fixes weights and episodes (0)")
    train.add_argument("--out", required=True, metavar="DIR", help="folder for weights, card and the state of the run")
    train.add_argument("--quiet", action="store_true", help="no progress bar")

    evaluate = commands.add_parser(
        "evaluate",
        help="accuracy with its 95 %% interval on test episodes",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m fsl_course evaluate prototypical --data glyphs --way 5 --shot 1\n"
        "  python -m fsl_course evaluate runs/proto --data icons\n"
        "  python -m fsl_course evaluate baselines --data omniglot --root DIR",
    )
    evaluate.add_argument(
        "method", help='a method with shipped weights, "baselines", or the folder or .safetensors file that train made'
    )
    _add_data(evaluate)
    evaluate.add_argument("--trained-on", default="glyphs", help="which shipped weights of the method (glyphs)")
    evaluate.add_argument("--split", choices=("train", "val", "test", "all"), default="test")
    evaluate.add_argument("--way", type=int, default=5)
    evaluate.add_argument("--shot", type=int, default=1)
    evaluate.add_argument("--query", type=int, default=15)
    evaluate.add_argument("--episodes", type=int, default=600)
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument(
        "--transductive", action="store_true", help="batch norm may see all queries at once (flatters)"
    )
    evaluate.add_argument("--json", action="store_true", help="one JSON object a line instead of text")
    grading_options.add_parser(commands)
    assignments.add_parser(commands)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", default="glyphs", help="glyphs, icons, omniglot, or a folder with one folder per class (glyphs)"
    )
    parser.add_argument("--root", help="where the real Omniglot lies (else the variable FSL_DATA)")
    parser.add_argument("--protocol", choices=("alphabets", "random"), default="alphabets", help="Omniglot's split")
    parser.add_argument("--rotations", action="store_true", help="turns by 90 degrees as classes of their own")
    parser.add_argument("--size", type=int, default=28, help="pixels of your own pictures (28)")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1, help="of your own pictures (1)")
    parser.add_argument("--within-group", action="store_true", help="all classes of an episode from one alphabet")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Exit status 0, 1 (something is wrong, said in words), 2 (unreadable command line) or 130 (Ctrl-C)."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "doctor":
        return doctor.run()
    from fsl_course import commands  # needs PyTorch, which doctor must be able to miss

    try:
        if arguments.command == "assignment":
            return assignments.run(arguments)
        if arguments.command == "grade":
            from fsl_course.grading import grade

            return grade.run(arguments)
        return {"train": commands.train, "evaluate": commands.evaluate}[arguments.command](arguments)
    except (ValueError, OSError, FloatingPointError, commands.CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # Ctrl-C anywhere but in the training loop, which ends in its own way
        print("Stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
