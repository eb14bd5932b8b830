"""The command line: python -m fsl_course train / evaluate / classify / export / results / doctor."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import fsl_course
from fsl_course._system import threads
from fsl_course._system.interrupts import gentle_interrupt
from fsl_course.cli import classify, doctor, export, options, results
from fsl_course.cli.terminal import run_command


def _parser() -> tuple[options.Parser, argparse._SubParsersAction]:
    parser = options.Parser(
        prog="python -m fsl_course",
        description="Few-shot learning: train and evaluate the methods of the course,\n"
        "name pictures of your own, and check an installation.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m fsl_course doctor\n  python -m fsl_course train --preset glyphs-quick --out runs/quick\n"
        "  python -m fsl_course evaluate runs/quick\n"
        "  python -m fsl_course classify runs/quick --support FOLDER new.png\n"
        "`python -m fsl_course COMMAND --help` says more about each.",
    )
    parser.add_argument("--version", action="version", version=f"fsl_course {fsl_course.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser(
        "doctor",
        help="says what is right and wrong with this installation (exit status 0 or 1)",
        epilog="example: python -m fsl_course doctor",
    )
    options.add_train(commands)
    options.add_evaluate(commands)
    classify.add_parser(commands)
    export.add_parser(commands)
    results.add_parser(commands)
    return parser, commands


def _run(arguments: argparse.Namespace) -> int:
    """Runs one command. PyTorch is imported only by the commands that need it, so that the others work without it."""
    if arguments.command == "doctor":
        return doctor.run()
    if arguments.command == "results":
        return results.run(arguments)
    threads.prepare()
    try:
        with gentle_interrupt() as asked:  # NumPy and PyTorch break when their import is interrupted
            from fsl_course.cli import evaluate, train

        if asked.is_set():
            raise KeyboardInterrupt
        command = {"train": train, "evaluate": evaluate, "classify": classify, "export": export}[arguments.command]
        return command.run(arguments)
    except KeyboardInterrupt:  # outside the training loop, which handles Ctrl-C itself
        again = ["The same command goes on from what was saved last."] if arguments.command == "train" else []
        raise KeyboardInterrupt(*again) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status (see `fsl_course.cli.terminal.run_command`)."""
    return run_command(*_parser(), argv, _run)


if __name__ == "__main__":
    sys.exit(main())
