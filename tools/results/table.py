"""The results as Markdown, for README and book: accuracies beside the papers' numbers, what each training cost, commands.

Every number comes from data/results/. What was not measured does not appear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fsl_course.cli import results
from fsl_course.cli.results import Row, task_of
from tools.results import files
from tools.results.rows import key_of

NBSP = "\N{NO-BREAK SPACE}"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown. A line must not have more cells than the header."""
    escaped = [[text.replace("|", r"\|").replace("*", r"\*") for text in line] for line in [head, *lines]]
    drawn = [f"| {' | '.join(line)} |" for line in escaped]
    return "\n".join([drawn[0], "|" + "---|" * len(head), *drawn[1:]])


def _whole(text: str) -> str:
    """Keeps a number and its interval on one line."""
    return text.replace(" ± ", f"{NBSP}±{NBSP}")


def _listed(notes: Sequence[str]) -> str:
    return "\n".join(f"- {text.replace('*', chr(92) + '*')}" for text in notes)


def short_table(found: Sequence[Row]) -> str:
    """Returns a table with a line for each method and a column for each task, and the notes below it."""
    if not found:
        return ""
    head, lines = results.grid(found)
    drawn = markdown(head, [[line[0], *map(_whole, line[1:])] for line in lines])
    return f"{drawn}\n\n{_listed(results.notes(found))}"


def costs(protocol: str) -> str:
    """Returns a table of what every training of a protocol took, beside the paper's budget if it gives one."""
    mine: dict[str, list[Row]] = {}
    for row in files.rows():
        if row["protocol"] == protocol and row["trained"]:
            mine.setdefault(row["run"], []).append(row)
    lines = []
    for found in mine.values():
        row, tasks = found[0], dict.fromkeys(map(task_of, found))
        budgets = [row["paper"]["budget"] for row in found if row["paper"] and row["paper"]["budget"]]
        paper = f"{budgets[0][0]:,} × {budgets[0][1]}" if budgets else ""
        trained = f"{row['trained']['way']}-way {row['trained']['shot']}-shot"
        cells = [
            row["label"],
            ", ".join(tasks),
            trained,
            f"{row['trained']['steps']:,} × {row['trained']['tasks']}",
            paper,
        ]
        lines.append([*cells, f"{row['minutes']:.0f} min", f"{row['parameters']:,}", str(row["seeds"])])
    head = ["method", "tested on", "trained on", "updates × tasks", "the paper's", "training", "parameters", "seeds"]
    return markdown(head, lines) if lines else ""


def commands(found: Sequence[Row]) -> str:
    """Returns, for each run, a command that repeats it from the start. Its other rows differ only in way, shot and query."""
    first: dict[str, str] = {}
    for row in found:
        first.setdefault(row.get("run", row["label"] + key_of(row)), row["command"])
    return "```text\n" + "\n".join(first.values()) + "\n```" if first else ""


def benchmark_notes(story: dict[str, Any]) -> str:
    """Returns a list of the rows' notes: where the two sides still differ."""
    said = dict.fromkeys(f"{row['work']}, {row['peer']}: {row['note']}." for row in story["rows"] if row.get("note"))
    return _listed(list(said))


def benchmark_about(story: dict[str, Any]) -> str:
    """Returns the machine and the command of the benchmark."""
    about = story.get("about", {})
    words = [f"{name} {about[name]}" for name in ("python", "torch") if name in about]
    where = ", ".join([*([about["processor"]] if "processor" in about else []), *words])
    return f"{where}\n\n```text\n{about.get('command', 'python -m tools.benchmark')}\n```"
