"""The command `results`: measured accuracies beside the papers' numbers, as a table or one JSON object a line.

data/results/table.json holds the rows. `python -m tools.results` measures them. Each row holds the command that repeats it.
"""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fsl_course._system.nearest import did_you_mean

Row = dict[str, Any]
Grid = tuple[list[str], list[list[str]]]  # the cells of the header, and those of every line
PROTOCOLS = ("random", "alphabets")
# How the test turns characters: each turn is a class, not at all, or all of a task by one angle.
USUAL_TURNS = {"random": "classes"}  # "none" in all other protocols
TURN_WORDS = {"classes": "turned classes", "none": "upright", "tasks": "turned tasks"}
PROTOCOL_WORDS = {
    "random": "Omniglot, characters split at random; turned characters are classes of their own unless a row says otherwise",
    "alphabets": "Omniglot, tested upright on the 20 evaluation alphabets, trained on others with rotations as classes",
    "transfer": "Weights tested on the other data set",
}


def measured(*, transfer: bool = False, folder: Path | None = None) -> list[Row]:
    """Returns every measured row on Omniglot, sorted by protocol, method and task. folder: data/results unless given.

    A row holds method (its file's name), label, variant, data, protocol, turns (of the test: "classes", "none" or "tasks"), way,
    shot, query, mean, ci95 (fractions; half width of the 95 % interval over episodes), seeds (how many trainings), seed_numbers,
    seed_means, episodes, inductive, trained (way, shot, query, steps, tasks of the training, or None), minutes (of a training),
    parameters, command, weights (None: not shipped), paper (number, ci95, inductive, turns, protocol, source, budget, or None),
    short (below the paper) and why.

    transfer: return the rows of weights tested on the other data set, Glyphs -> Omniglot and back, instead.
    Raises FileNotFoundError or ValueError, with a cure, if the file is missing or damaged.
    """
    from fsl_course.data.assets import asset  # imported here because it loads PyTorch, which `--help` does not need

    path = asset("results/table.json") if folder is None else folder / "table.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["transfer" if transfer else "rows"]
    except (ValueError, TypeError, KeyError) as error:
        cure = "Restore it with `git checkout -- data/results/table.json`, or reinstall the package."
        raise ValueError(f"the results file {path} is damaged ({error}). {cure}") from error


def task_of(row: Row) -> str:
    """Returns a task's name in tables: 5-way 1-shot."""
    return f"{row['way']}-way {row['shot']}-shot"


def _nothing(what: str, given: Any, known: Iterable[Any]) -> ValueError:
    names = sorted({str(one) for one in known}, key=lambda name: (len(name), name) if name.isdigit() else (0, name))
    there_is = "there are " + ", ".join(f'"{name}"' if "," in name else name for name in names)
    return ValueError(f"there are no results with {what} {given!r}: {there_is}.{did_you_mean(given, names)}")


def chosen(found: Sequence[Row], **wanted: Any) -> list[Row]:
    """Returns the rows with the wanted method (or label), protocol, way and shot; None takes all.

    Raises ValueError where nothing is left, and names the nearest value that exists, or where nothing was measured.
    """
    if not found:
        raise ValueError("nothing was measured yet: python -m tools.results --help says how to measure.")
    left = list(found)
    for name, value in wanted.items():
        if value is None:
            continue
        columns = ("method", "label") if name == "method" else (name,)
        if not any(row[column] == value for row in left for column in columns):
            raise _nothing(name, value, (row[column] for row in left for column in columns))
        left = [row for row in left if value in [row[column] for column in columns]]
    return left


def percent(mean: float, half: float | None) -> str:
    """Formats fractions in percent, e.g. "97.5 ± 0.3"."""
    return f"{100 * mean:.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def name_of(row: Row) -> str:
    """Returns a row's name in tables: its label, other data that it was trained on, whether it is transductive, its seeds."""
    name = row["label"]
    name += f", trained on {row['trained_on']}" if row["trained_on"] not in (None, row["data"]) else ""
    name += "" if row["inductive"] else ", transductive"
    name += "" if row["turns"] == USUAL_TURNS.get(row["protocol"], "none") else f", {TURN_WORDS[row['turns']]}"
    return name + (f" ({row['seeds']} seeds)" if row["seeds"] > 1 else "")


def cell(row: Row) -> str:
    """Formats accuracy and interval in %, then in brackets the paper's number for the same protocol; * where that is higher."""
    text = percent(row["mean"], row["ci95"]) + ("*" if row["short"] else "")
    return text + (f" ({percent(row['paper']['number'], None)})" if is_comparable(row) else "")


def is_comparable(row: Row) -> bool:
    """Returns True where the paper has a number for this row, measured with the same kind of batch norm and of turns."""
    return bool(row["paper"]) and all(row["paper"][name] == row[name] for name in ("inductive", "turns"))


def grid(found: Sequence[Row]) -> Grid:
    """Arranges rows in one line for each method and one column for each task."""
    tasks = list(dict.fromkeys(task_of(row) for row in sorted(found, key=lambda row: (row["way"], row["shot"]))))
    lines: dict[str, dict[str, str]] = {}
    for row in found:
        lines.setdefault(name_of(row), {})[task_of(row)] = cell(row)
    return ["method", *tasks], [[name, *(cells.get(task, "") for task in tasks)] for name, cells in lines.items()]


def notes(found: Sequence[Row]) -> list[str]:
    """Returns the sentences to print under a table: how to read it, and why a number lies below its paper's."""
    said = ["Accuracy in % ± half width of its 95 % interval over episodes."]
    if any(is_comparable(row) for row in found):
        said.append("In brackets what the paper prints; * where that lies above our interval.")
    if any(not row["inductive"] for row in found):
        said.append("Transductive: batch norm saw all queries of an episode at once, as in the paper.")
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in found:
        if row["short"]:
            reasons.setdefault((name_of(row), row["why"]), []).append(task_of(row))
    said += [f"* {name}, {', '.join(tasks)}: {why}." for (name, why), tasks in reasons.items()]
    return said


def _as_text(title: str, head: list[str], lines: list[list[str]], below: list[str]) -> str:
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    padded = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in [head, *lines]]
    drawn = ["  ".join(line).rstrip() for line in padded]
    return "\n".join([title, "", drawn[0], "-" * len(drawn[0]), *drawn[1:], "", *below])


def _as_html(title: str, head: list[str], lines: list[list[str]], below: list[str]) -> str:
    def line(first: str, tag: str, cells: list[str]) -> str:
        rest = "".join(f"<{tag}>{html.escape(text)}</{tag.split()[0]}>" for text in cells[1:])
        return f'<tr><th scope="{first}" style="text-align:left">{html.escape(cells[0])}</th>{rest}</tr>'

    header, body = line("col", 'th scope="col"', head), "".join(line("row", "td", cells) for cells in lines)
    drawn = f"<table><caption>{html.escape(title)}</caption><thead>{header}</thead><tbody>{body}</tbody></table>"
    return drawn + "".join(f"<p>{html.escape(text)}</p>" for text in below)


def table(
    protocol: str | None = "random",
    *,
    transfer: bool = False,
    as_html: bool = False,
    folder: Path | None = None,
    **wanted: Any,
) -> str:
    """Draws the measured rows that `chosen` chooses as a table with notes below: plain text, or HTML for a notebook.

    protocol: None draws one table for each. transfer: the rows of weights tested on the other data set, of any protocol
    wanted: method (or label), way and shot
    """
    found = measured(transfer=transfer, folder=folder)
    found = chosen(found, protocol=None if transfer else protocol, **wanted)
    if protocol is None and not transfer:  # in one table, a line could not hold the numbers of both protocols
        wanted |= {"as_html": as_html, "folder": folder}
        protocols = dict.fromkeys(row["protocol"] for row in found)
        return ("" if as_html else "\n\n").join(table(one, **wanted) for one in protocols)
    title = PROTOCOL_WORDS.get("transfer" if transfer else protocol or "", "Omniglot")
    title += f"; {' or '.join(sorted({str(row['episodes']) for row in found}))} test episodes"
    return (_as_html if as_html else _as_text)(title, *grid(found), notes(found))


def add_parser(commands: Any) -> None:
    """Adds the command `results`."""
    parser = commands.add_parser(
        "results",
        help="prints what was measured on Omniglot, beside the papers' numbers",
        epilog="examples:\n  python -m fsl_course results\n  python -m fsl_course results --method prototypical --json\n"
        "  python -m fsl_course results --protocol alphabets --way 20\n  python -m fsl_course results --transfer",
    )
    parser.add_argument("--method", help="only this method, by its file's name or its name in the table")
    parser.add_argument("--protocol", help=f"only this split of Omniglot: {' or '.join(PROTOCOLS)}")
    parser.add_argument("--way", type=int, help="only tasks of so many classes")
    parser.add_argument("--shot", type=int, help="only tasks with so many support drawings a class")
    parser.add_argument("--transfer", action="store_true", help="weights tested on the other data set instead")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, with everything that is known")


def run(options: argparse.Namespace) -> int:
    """Prints the rows and returns the exit status 0. Raises ValueError or FileNotFoundError as `measured` does."""
    wanted = {name: getattr(options, name) for name in ("method", "protocol", "way", "shot")}
    found = chosen(measured(transfer=options.transfer), **wanted)
    if options.json:
        for row in found:
            print(json.dumps(row))
        return 0
    print(table(**wanted, transfer=options.transfer))
    return 0
