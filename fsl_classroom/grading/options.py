"""The options of `grade`. Apart from the rest, so that the command line speaks without PyTorch."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """`grade` and its options."""
    parser = commands.add_parser(
        "grade",
        help="grades notebooks that students handed in, each answer in a confined process",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Reads FOLDER/STUDENT/*.ipynb, tries every answer with its exercise's own checks\n"
        "and writes FOLDER/grades.csv (student, exercise, passed, diagnosis) and\nFOLDER/grades-summary.csv.",
        epilog="example:\n  python -m fsl_classroom grade submissions --jobs 4\n\n"
        "What protects this machine: every answer runs in a process of its own, with\n"
        "limits on time and memory, without network, without other processes, without a\n"
        "view of files other than Python's own, and with one empty folder to write to\n"
        "(Landlock and seccomp: Linux 6.2 or newer, x86_64 or aarch64). Elsewhere grading\n"
        "is refused unless --unconfined is given. docs/grading.md says more, also what it\n"
        "does not protect from.\n"
        "Exit status: 0, also when submissions are broken or hostile; 1 when FOLDER has\nno students.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="holds one folder for each student, with notebooks in it")
    parser.add_argument(
        "--lessons", metavar="NN", nargs="+", help="only these lessons, e.g. 05 07 (all that were handed in)"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="for all answers of one notebook together (120)")
    parser.add_argument("--memory", type=int, default=1024, metavar="MB", help="for one answer, besides PyTorch (1024)")
    parser.add_argument("--jobs", type=int, default=None, help="notebooks at the same time (the number of cores)")
    parser.add_argument(
        "--unconfined", action="store_true", help="grade without Landlock and seccomp: answers may do what you may do"
    )
    parser.add_argument("--json", action="store_true", help="also print the rows, one JSON object a line")
