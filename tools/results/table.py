"""The results as Markdown for README and book: accuracy beside the papers' numbers, transfer, times beside other libraries'.

    python -m tools.results.table       prints all tables

Every number comes from data/results/. What was not measured does not appear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fsl_course.cli import results
from fsl_course.cli.results_files import Row, key_of, task_of

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


def _paper(row: Row | None) -> str:
    """Returns the paper's number and how it was measured, or '' if there is none."""
    paper = row["paper"] if row else None
    if paper is None:
        return ""
    how = "inductive" if paper["inductive"] else "transductive"
    return f"{_whole(results.percent(paper['number'], paper['ci95']))}, {how}"


def full_table(found: Sequence[Row], way: int, shot: int) -> str:
    """Returns the table of one task: the paper's number, ours the paper's way, ours inductive, why ours is below the paper's."""
    pairs: dict[str, dict[bool, Row]] = {}
    for row in found:
        if (row["way"], row["shot"]) == (way, shot):
            pairs.setdefault(row["label"], {})[row["inductive"]] = row
    lines = []
    for label, pair in pairs.items():
        ours = {inductive: _whole(results.percent(row["mean"], row["ci95"])) for inductive, row in pair.items()}
        same = [row for row in pair.values() if row["paper"] and row["paper"]["inductive"] == row["inductive"]]
        paper = _paper(next(iter([*same, *pair.values()])))
        like = ours[same[0]["inductive"]] if same else ""
        lines.append([label, paper, like, ours.get(True, ""), same[0]["why"] if same else ""])
    return markdown(["method", "paper", "ours, the paper's way", "ours, inductive", "why below the paper"], lines)


def full_tables(protocol: str) -> str:
    """Returns a table for every task of a protocol."""
    found = [row for row in results.rows() if row["protocol"] == protocol]
    tasks: dict[tuple[int, int], int] = {(row["way"], row["shot"]): row["episodes"] for row in found}
    return "\n\n".join(
        f"**{way}-way {shot}-shot, {tasks[way, shot]:,} episodes**\n\n{full_table(found, way, shot)}"
        for way, shot in sorted(tasks)
    )


def costs(protocol: str) -> str:
    """Returns a table of what every training of a protocol took, beside the paper's budget if it gives one."""
    mine: dict[str, list[Row]] = {}
    for row in results.rows():
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


def sources() -> str:
    """Returns a table of how each paper measured its number, and where in the paper it is."""
    measured = {row["label"] for row in results.rows()}
    lines = [
        [entry["label"], entry["protocol"], entry["source"]]
        for entry in results.papers()["papers"]
        if entry["label"] in measured
    ]
    return markdown(["method", "how the paper measured", "source"], lines) if lines else ""


def commands(found: Sequence[Row]) -> str:
    """Returns, for each run, a command that repeats it from the start. Its other rows differ only in way, shot and query."""
    first: dict[str, str] = {}
    for row in found:
        first.setdefault(row.get("run", row["label"] + key_of(row)), row["command"])
    return "```text\n" + "\n".join(first.values()) + "\n```" if first else ""


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size or unit == "µs":
            return f"{value / size:.3g}{NBSP}{unit}"
    return ""


def benchmark_table(story: dict[str, Any] | None, *, goals_only: bool = False) -> str:
    """Returns the times beside other libraries' on the same work, or "" if nothing was measured. goals_only: rows with a goal."""
    lines = []
    for row in (story or {}).get("rows", []):
        aimed = row.get("goal") is not None and row.get("met") is not None  # a quick try has a goal but no verdict
        if goals_only and not aimed:
            continue
        share = row["work"] == "conv4-matmul-share"
        goal = f"{row['goal']:g}, {'met' if row['met'] else 'not met'}" if aimed else ""
        peer = " ".join(str(part) for part in (row["peer"], row.get("peer_version")) if part)
        ratio = f"{row['ratio']:.2f} of its rate" if share else f"{row['ratio']:.3g}"
        cells = [
            row["work"],
            row.get("setting", ""),
            peer,
            _seconds(row["ours_s"]),
            _seconds(row["peer_s"]),
            ratio,
            goal,
        ]
        lines.append([*cells, str(row.get("threads", ""))])
    head = ["work", "setting", "against", "ours", "theirs", "times faster", "goal", "threads"]
    return markdown(head, lines) if lines else ""


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


def readme_results() -> str:
    """Returns README's table, of the papers' protocol, and how to repeat it; "" if nothing was measured."""
    found = [row for row in results.rows() if row["protocol"] == "random"]
    if not found:
        return ""
    repeat = "`python -m fsl_course results --json` prints every row with the command that repeats it."
    title = f"{results.PROTOCOL_WORDS['random']}; {found[0]['episodes']:,} test episodes."
    return f"{title}\n\n{short_table(found)}\n- {repeat}"


def readme_benchmark() -> str:
    """Returns README's table of times; "" if nothing was measured."""
    story = results.benchmark()
    drawn = benchmark_table(story, goals_only=True)
    if not drawn or not story:
        return ""
    differ = "What differs between the sides stands on the page of [results](book/results.md)."
    return f"{drawn}\n\n`{story['about']['command']}` measures them again. {differ}"


def main() -> None:
    parts = [readme_results(), *(draw(name) for name in results.PROTOCOLS for draw in (full_tables, costs)), sources()]
    parts += [short_table(results.transfer_rows()), benchmark_table(results.benchmark())]
    print("\n\n".join(part for part in parts if part))


if __name__ == "__main__":
    main()
