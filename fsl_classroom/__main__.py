"""The teacher's command line: python -m fsl_classroom assignment / grade / feedback / gradebook."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import fsl_course
from fsl_classroom import assignments
from fsl_classroom.grading import after_options
from fsl_classroom.grading import options as grading_options
from fsl_course._system import threads
from fsl_course.cli.options import Parser
from fsl_course.cli.terminal import run_command


def _parser() -> tuple[Parser, argparse._SubParsersAction]:
    parser = Parser(
        prog="python -m fsl_classroom",
        description="For teachers: writes assignments with different requirements for every student,\n"
        "grades what students hand in, and writes feedback and gradebooks.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m fsl_classroom assignment --seed 7 --out homework\n"
        "  python -m fsl_classroom grade submissions\n`python -m fsl_classroom COMMAND --help` says more about each.",
    )
    parser.add_argument("--version", action="version", version=f"fsl_classroom {fsl_course.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    grading_options.add_parser(commands)
    after_options.add_parsers(commands)
    assignments.add_parser(commands)
    return parser, commands


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "grade":
        threads.prepare()
        from fsl_classroom.grading import grade  # loads PyTorch, which the other command and --help do without

        return grade.run(arguments)
    if arguments.command == "feedback":
        from fsl_classroom.grading import feedback  # loads PyTorch, too, with the exercises and their hints

        return feedback.run(arguments)
    if arguments.command == "gradebook":
        from fsl_classroom.grading import gradebook

        return gradebook.run(arguments)
    return assignments.run(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status (see `fsl_course.cli.terminal.run_command`)."""
    return run_command(*_parser(), argv, _run)


if __name__ == "__main__":
    sys.exit(main())
