"""The options of `grade`, in a module of their own so that --help does not load PyTorch."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Adds `grade` to the subcommands (what `add_subparsers` returned)."""
    parser = commands.add_parser(
        "grade",
        help="grades students' notebooks, each answer in a confined process",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Reads FOLDER/STUDENT/*.ipynb, tests every answer with the checks of its exercise\n"
        "and writes FOLDER/grades.csv and FOLDER/grades-summary.csv.",
        epilog="examples:\n  python -m fsl_classroom grade submissions --jobs 4\n"
        "  python -m fsl_classroom grade submissions --assignment week3\n\n"
        "What protects this machine: every answer runs in a process of its own. The\n"
        "process has limits on time and memory, no network, and no other processes. It\n"
        "can read only Python's own files and write only to one empty folder (Landlock\n"
        "and seccomp: Linux 6.2 or newer, x86_64 or aarch64). On other systems the\n"
        "command refuses to grade unless you add --unconfined. docs/grading.md says\n"
        "more, also about what this does not protect from.\n"
        "Exit status: 0, even if submissions are broken or hostile; 1 if FOLDER has no\nstudents.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="holds one folder for each student, with notebooks in it")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--assignment",
        metavar="DIR",
        help="what the command `assignment` wrote: only its exercises count, each with the student's own seed; a file\n"
        'points.toml in it says what they are worth, a line such as "05.1" = 2 each (default 1)',
    )
    which.add_argument(
        "--lessons", metavar="NN", nargs="+", help="only these lessons, e.g. 05 07 (default: all that were handed in)"
    )
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="for all answers of one notebook together (default 120)"
    )
    parser.add_argument(
        "--memory", type=int, default=1024, metavar="MB", help="for one answer, besides PyTorch (default 1024)"
    )
    parser.add_argument(
        "--jobs", type=int, default=None, help="notebooks graded at the same time (default: the number of cores)"
    )
    parser.add_argument(
        "--unconfined",
        action="store_true",
        help="grade without Landlock and seccomp: answers can do whatever you can do",
    )
    parser.add_argument("--json", action="store_true", help="also print the rows, one JSON object per line")
