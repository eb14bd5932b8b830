"""Trains, evaluates and ships what the results table shows. Every run is one line of RUNS in tools/results/runs.py.

    python -m tools.results status               what is trained, evaluated and shipped
    python -m tools.results train NAME...        trains into runs/NAME; a stopped run continues
    python -m tools.results evaluate NAME...     writes data/results/NAME.json
    python -m tools.results transfer             tests Glyphs -> Omniglot and back: writes data/results/transfer.json
    python -m tools.results table                joins all measured rows into data/results/table.json, as evaluate and transfer do
    python -m tools.results ship NAME...         copies weights and card into data/checkpoints

Omniglot is read from the folder that the variable FSL_DATA names.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fsl_course._system.nearest import did_you_mean
from tools.results import actions
from tools.results.runs import RUNS, Run
from tools.results.trained import RunError


def _named(names: Sequence[str]) -> list[Run]:
    """Returns the runs of these names. Raises RunError, which suggests the nearest name, for an unknown one."""
    known = {run.name: run for run in RUNS}
    for name in names:
        if name not in known:
            raise RunError(f"there is no run {name!r}: there are {', '.join(known)}.{did_you_mean(name, known)}")
    return [known[name] for name in names]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns 1, after a message, if a run cannot be done, and the training's status if that stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("status", "train", "evaluate", "transfer", "table", "ship"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="runs, by their names in RUNS")
    options = parser.parse_args(argv)
    try:
        if (options.action in ("train", "evaluate", "ship")) != bool(options.names):
            raise RunError(f"{options.action} takes {'names of runs' if not options.names else 'no names'}.")
        chosen = _named(options.names)
        if options.action == "status":
            print(actions.status())
        elif options.action == "train":
            return next((code for code in map(actions.train, chosen) if code), 0)
        elif options.action == "ship":
            for run in chosen:
                actions.ship(run)
        else:
            from tools.results import files, measure  # loads PyTorch, which --help need not wait for

            if options.action == "transfer":
                measure.measure_transfer()
            for run in chosen:
                print(measure.evaluate_run(run))
            files.write_table()
    except (RunError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
