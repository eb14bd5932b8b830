"""The options of the benchmark. Loads no PyTorch, so that help and errors appear at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fsl_course._system.nearest import did_you_mean
from fsl_course.cli.options import Parser
from tools.benchmark.works import WORKS


def parser() -> Parser:
    """Returns the parser of `python -m tools.benchmark`."""
    works = "\n".join(f"  {name:20s} {work.words}" for name, work in WORKS.items())
    parser = Parser(
        prog="python -m tools.benchmark",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Times the same work done by this course and by others: in one process, in\n"
        "turns, after a check that both give the same result. Prints medians of the\n"
        "times and of their ratios. Works:\n" + works,
        epilog="examples:\n  python -m tools.benchmark --only prototypical-step --threads 2\n"
        "  python -m tools.benchmark --scaling --out data/results/benchmark.json\n"
        "easyfsl is a peer of five works and no part of the course:\n"
        "pip install 'fsl-course[benchmark]' brings it. Omniglot is taken where the\n"
        "variable FSL_DATA names its folder, otherwise glyphs. Run it on a quiet machine.",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="only this work; repeat it for more"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    parser.add_argument("--repeats", type=int, metavar="N", help="repeats of every timing (5 to 15, by work)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of PyTorch (as many as it takes by itself)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (auto)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes in one process: tries the code, measures nothing"
    )
    parser.add_argument("--scaling", action="store_true", help="also cost against ways, shots, tasks and inner steps")
    parser.add_argument("--out", metavar="FILE", help="also write about, rows and scaling into this JSON file")
    parser.add_argument("--learn2learn", metavar="FOLDER", help="also race learn2learn, from a source checkout")
    parser.add_argument("--higher", metavar="FOLDER", help="also race higher, from a source checkout")
    return parser


def chosen(names: Sequence[str]) -> list[str]:
    """Returns the works of these names, or all if there are none, in the order of WORKS. Raises ValueError if one is unknown."""
    for name in names:
        if name not in WORKS:
            raise ValueError(f"there is no work {name!r}.{did_you_mean(name, WORKS)} There are: {', '.join(WORKS)}.")
    return [name for name in WORKS if not names or name in names]


def run(options: argparse.Namespace) -> int:
    """Checks the options, loads PyTorch and runs the works. Returns exit status 1 if a work that was asked for cannot run."""
    names = chosen(options.only)
    for name in ("repeats", "threads"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1; got {value}.")
    from tools.benchmark import runner

    rows, scaling = runner.measured(options, names)
    print(runner.as_lines(rows) if options.json else runner.as_table(rows, scaling))
    if options.out:  # after the table, so that a file that cannot be written loses nothing
        runner.write(options, rows, scaling)
    skipped = [row for row in rows if "skipped" in row]
    for row in skipped:
        print(f"{row['work']}: {row['skipped']}", file=sys.stderr)
    return 1 if options.only and skipped else 0
