"""The options of `feedback` and `gradebook`, in a module of their own so that --help does not load PyTorch."""

from __future__ import annotations

import argparse
from typing import Any

_LATE = (
    "late.toml holds:\n"
    "  due = 2026-11-30T18:00:00+01:00\n"
    "  grace_minutes = 15       # this much later is on time (default 0)\n"
    "  percent_per_day = 10     # of what all is worth, for every day begun\n"
    "  most_days = 5            # later than that: no points (default: no limit)\n"
    "times.csv has the columns student and handed_in, and due for those with a\n"
    "deadline of their own. The times of the files are not looked at: copying\n"
    "changes them, and students can set them."
)


def add_parsers(commands: Any) -> None:
    """Adds `feedback` and `gradebook` to the subcommands (what `add_subparsers` returned)."""
    feedback = _parser(
        commands,
        "feedback",
        "writes a page of feedback for every student, from the tables of grade",
        "example:\n  python -m fsl_classroom feedback submissions --title 'Week 3' --out feedback\n\n",
    )
    feedback.add_argument(
        "--out", metavar="FOLDER", help="folder for the pages (default: FOLDER-feedback beside FOLDER)"
    )
    gradebook = _parser(
        commands,
        "gradebook",
        "writes gradebooks for Moodle and Canvas, from the tables of grade",
        "example:\n  python -m fsl_classroom gradebook submissions --roster class.csv \\\n"
        "      --title 'Week 3' --moodle moodle.csv --canvas canvas.csv\n\n"
        "class.csv has one student a line: a column Student, or First name and Last\n"
        "name, and what the platform needs (Email address, ID number or Username; ID,\n"
        "SIS User ID, SIS Login ID and Section). What Moodle and Canvas export will do.\n\n",
    )
    gradebook.add_argument("--roster", metavar="FILE", required=True, help="CSV file: who is who on the platform")
    gradebook.add_argument("--moodle", metavar="FILE", help="write a file for Moodle's grade import")
    gradebook.add_argument("--canvas", metavar="FILE", help="write a file for the import of Canvas' gradebook")
    gradebook.add_argument(
        "--identify",
        choices=("email", "idnumber", "username"),
        help="what tells Moodle's users apart (default: the first that all have in the roster)",
    )


def _parser(commands: Any, name: str, says: str, epilog: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=says, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=epilog + _LATE
    )
    parser.add_argument("folder", metavar="FOLDER", help="the folder that was graded; it holds grades.csv")
    parser.add_argument("--title", metavar="TEXT", help="name of the assignment (default: the name of FOLDER)")
    parser.add_argument("--late", metavar="FILE", help="late policy (TOML, see below); needs --times")
    parser.add_argument("--times", metavar="FILE", help="CSV file: when each student handed in; needs --late")
    return parser
