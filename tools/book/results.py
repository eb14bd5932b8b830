"""The tables of the results page, from the files that the measuring commands have written into `data/`."""

from __future__ import annotations

import json
from typing import Any

from fsl_course.cli import results
from tools.book.pages import Book, percent, shipped, table
from tools.results import table as tables


def _read(book: Book, name: str) -> dict[str, Any]:
    return json.loads((book.root / "data" / name).read_text(encoding="utf-8"))


def _notes(story: dict[str, Any]) -> str:
    """Protocol and command under a table."""
    protocol = f"Protocol: {story['protocol']}.\n\n" if "protocol" in story else ""
    return f"{protocol}Command:\n\n```text\n{story['command']}\n```"


def over_seeds(runs: list[list[int]], queries: int) -> tuple[float, float]:
    """Mean accuracy and half width of its 95 % interval over episodes. runs: right queries, a list [E] for each seed.

    An episode counts with its mean over the seeds, so the interval speaks about episodes, not about seeds.
    """
    import torch

    from fsl_course.evaluation import mean_and_ci95

    return mean_and_ci95(torch.tensor(runs, dtype=torch.float64).mean(0) / queries)


def _accuracy(runs: list[list[int]], queries: int) -> str:
    means = [100 * sum(run) / len(run) / queries for run in runs]
    seeds = ", ".join(f"{mean:.1f}" for mean in means)
    return f"{percent(*over_seeds(runs, queries))} ({seeds})"


def cards(book: Book) -> str:
    """Accuracy of all shipped classifiers, in every setting on their cards."""
    found = [card for card in shipped(book) if "mean" in card["test"][0]]
    settings = sorted({(line["way"], line["shot"]) for card in found for line in card["test"]})
    rows = []
    for card in found:
        lines = {(line["way"], line["shot"]): percent(line["mean"], line["ci95"]) for line in card["test"]}
        link = f"[{card['file']}](../data/checkpoints/{card['file']}.json)"
        rows.append([link, *(lines.get(setting, "") for setting in settings), f"{card['parameters']:,}"])
    head = " | ".join(["weights", *(f"{way}-way {shot}-shot" for way, shot in settings), "parameters"])
    protocols = "\n".join(f"- {words}" for words in dict.fromkeys(card["protocol"] for card in found))
    commands = "\n".join(dict.fromkeys(card["command"] for card in found))
    return f"{table(head, rows)}\n\nProtocol:\n\n{protocols}\n\nCommands:\n\n```text\n{commands}\n```"


def sinusoids(book: Book) -> str:
    """Mean squared error on sine curves after some inner steps: MAML against pretraining, and the paper's numbers."""
    card = next(card for card in shipped(book) if card["data"] == "sinusoids")
    steps, paper = sorted({line["steps"] for line in card["test"]}), results.papers()["sinusoids"]
    rows = []
    for learner, shot in dict.fromkeys((line["learner"], line["shot"]) for line in card["test"]):
        lines = {line["steps"]: line for line in card["test"] if (line["learner"], line["shot"]) == (learner, shot)}
        errors = [
            f"{lines[step]['mse']:.2f}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{lines[step]['ci95']:.2f}" for step in steps
        ]
        rows.append([learner, str(shot), *errors])
        if shot == paper["shot"] and (there := paper["mse"].get(learner)):
            printed = [f"{there[str(step)]:.2f}" if str(step) in there else "" for step in steps]
            rows.append([f"{learner}, {paper['source']}", str(shot), *printed])
    head = " | ".join(["learner", "points", *(f"{step} steps" if step != 1 else "1 step" for step in steps)])
    return f"{table(head, rows)}\n\n{_notes(card)}"


def metric_comparison(book: Book) -> str:
    """All metric methods, trained alike: accuracy in each setting, mean over seeds and (each seed)."""
    story = _read(book, "metric_comparison.json")
    settings = [(one["way"], one["shot"], one["query"]) for one in story["rows"][0]["results"]]
    rows = []
    for label in dict.fromkeys(row["label"] for row in story["rows"]):
        mine = [row for row in story["rows"] if row["label"] == label]
        cells = [
            _accuracy([row["results"][at]["correct"] for row in mine], way * query)
            for at, (way, _, query) in enumerate(settings)
        ]
        rows.append([label, *cells, f"{mine[0]['parameters']:,}", f"{mine[0]['train_seconds']:.0f} s"])
    head = " | ".join(["method", *(f"{way}-way {shot}-shot" for way, shot, _ in settings), "parameters", "training"])
    return f"{table(head, rows)}\n\n{_notes(story)}"


def maml_comparison(book: Book) -> str:
    """MAML and its cheaper relatives: accuracy, mean over seeds and (each seed), and cost of an update."""
    story = _read(book, "maml_comparison.json")
    queries = story["test"]["way"] * story["test"]["query"]
    rows = []
    for label, ratio in story["step_ratio"].items():
        mine = [row for row in story["rows"] if row["label"] == label]
        rate = story["given"][label]["settings"].get("inner_lr", "")
        accuracy = _accuracy([row["correct"] for row in mine], queries)
        rows.append([label, str(rate), accuracy, f"{ratio:.2f}", f"{mine[0]['parameters']:,}"])
    return (
        f"{table('method | inner rate | accuracy | time of an update, MAML = 1 | parameters', rows)}\n\n{_notes(story)}"
    )


def omniglot_random(book: Book) -> str:
    """Omniglot as the papers split it: our numbers beside theirs, one table a task, and how the papers measured."""
    return f"{tables.full_tables('random')}\n\n{tables.costs('random')}\n\n{tables.sources()}"


def omniglot_alphabets(book: Book) -> str:
    """Omniglot split by alphabets."""
    return f"{tables.short_table(_of('alphabets'))}\n\n{tables.costs('alphabets')}"


def omniglot_commands(book: Book) -> str:
    """What repeats each run from nothing."""
    return tables.commands([row for protocol in results.PROTOCOLS for row in _of(protocol)])


def half_point(book: Book) -> str:
    """What prototypical networks lose when one thing is taken away."""
    if not (book.root / "data" / "results" / "half_point.json").is_file():
        return "Not measured yet."
    story = _read(book, "results/half_point.json")
    rows = []
    for row in story["rows"]:
        gaps = [f"{percent(cell['mean'], cell['ci95'])}" for cell in row["cells"]]
        for at, cell in enumerate(row["cells"]):
            if "difference" in cell:
                gaps[at] += f" ({100 * cell['difference']:+.2f} ± {100 * cell['difference_ci95']:.2f})"
        rows.append([row["variant"], row["words"], *gaps])
    tasks = [f"{cell['way']}-way {cell['shot']}-shot" for cell in story["rows"][0]["cells"]]
    return f"{table(' | '.join(['variant', 'what differs', *tasks]), rows)}\n\n{_notes(story)}"


def transfer(book: Book) -> str:
    """Weights tested on the other data set."""
    found = results.transfer_rows()
    if not found:
        return "Not measured yet."
    about = _read(book, "results/transfer.json")
    return f"{tables.short_table(found)}\n\n{about['about']}\n\n{_notes({'command': about['command']})}"


def benchmark(book: Book) -> str:
    """The course's times against other libraries on the same work, and what a training step costs as tasks grow."""
    story = results.benchmark()
    if story is None:
        return "Not measured yet: `python -m tools.benchmark` measures your machine."
    parts = (tables.benchmark_table, tables.benchmark_notes, tables.benchmark_about)
    drawn = "\n\n".join(text for text in (part(story) for part in parts) if text)
    if not story.get("scaling"):
        return drawn
    from fsl_course import figures
    from tools.benchmark import scaling

    return f"{drawn}\n\n{figures.to_html(*scaling.figure(story['scaling']))}"


def _of(protocol: str) -> list[results.Row]:
    return [row for row in results.rows() if row["protocol"] == protocol]


PARTS = {
    "cards": cards,
    "sinusoids": sinusoids,
    "metric_comparison": metric_comparison,
    "maml_comparison": maml_comparison,
    "omniglot_random": omniglot_random,
    "omniglot_alphabets": omniglot_alphabets,
    "omniglot_commands": omniglot_commands,
    "half_point": half_point,
    "transfer": transfer,
    "benchmark": benchmark,
}
