"""The command line: python -m fsl_course doctor / train / evaluate / results / benchmark / grade / assignment."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import fsl_course
from fsl_course import assignments, doctor, options, results
from fsl_course.benchmark import options as benchmark_options
from fsl_course.grading import options as grading_options


def _parser() -> tuple[options.Parser, argparse.Action]:
    parser = options.Parser(
        prog="python -m fsl_course",
        description="Few-shot learning: train and evaluate the methods of the course,\nand check an installation.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m fsl_course doctor\n  python -m fsl_course train --preset glyphs-quick --out runs/quick\n"
        "  python -m fsl_course evaluate runs/quick\n`python -m fsl_course COMMAND --help` says more about each.",
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
    results.add_parser(commands)
    benchmark_options.add_parser(commands)
    grading_options.add_parser(commands)
    assignments.add_parser(commands)
    return parser, commands


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C within the block is felt at its end: numpy and PyTorch fail in strange ways where their import is cut short."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if pressed.is_set():
        raise KeyboardInterrupt


def _run(arguments: argparse.Namespace) -> int:
    """Runs one command. What needs PyTorch is imported only where it is needed, so that the others can speak without it."""
    if arguments.command in ("train", "evaluate"):
        with _undisturbed():
            from fsl_course import commands

        return (commands.train if arguments.command == "train" else commands.evaluate)(arguments)
    if arguments.command == "grade":
        from fsl_course.grading import grade

        return grade.run(arguments)
    if arguments.command == "doctor":
        return doctor.run()
    return {"results": results, "benchmark": benchmark_options, "assignment": assignments}[arguments.command].run(
        arguments
    )


_NO_MEMORY = "the memory of this machine is too small for these settings."


def _in_words(error: Exception) -> str | None:
    """One line, or None for a RuntimeError of PyTorch that speaks of a mistake in this program."""
    if isinstance(error, RuntimeError):
        from fsl_course.checkpoints import CheckpointError

        if not isinstance(error, CheckpointError):  # PyTorch has no type of its own for a processor without memory
            return _NO_MEMORY if re.search("out of memory|allocate memory", str(error)) else None
    return re.sub(r"\s*\n\s*", " ", str(error)) or _NO_MEMORY


def _unread() -> int:
    """Whoever read the output has gone, e.g. `| head`: what is still in the buffer goes nowhere, without a word."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141  # as shells call an end by SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Exit status 0, 1 (something is wrong, said in words), 2 (unreadable command line), 130 (Ctrl-C) or 141 (output unread).
    """
    parser, commands = _parser()
    training = False
    try:
        arguments = options.read(parser, commands, sys.argv[1:] if argv is None else argv)
        if arguments.command is None:
            parser.print_help()
        training = arguments.command == "train"
        status = 0 if arguments.command is None else _run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        return _unread()
    except (ValueError, OSError, FloatingPointError, MemoryError, RuntimeError) as error:
        words = _in_words(error)
        if words is None:
            raise
        print(f"error: {words}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # Ctrl-C anywhere but in the training loop, which ends in its own way
        again = " The same command goes on from what was saved last." if training else ""
        print(f"Stopped.{again}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
