"""The tables of the results page, from the files that the measuring commands have written into `data/`."""

from __future__ import annotations

import json
from typing import Any

from tools.book_pages import Book, percent, shipped, table


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
    """Mean squared error on sine curves after some inner steps: MAML against pretraining."""
    card = next(card for card in shipped(book) if card["data"] == "sinusoids")
    steps = sorted({line["steps"] for line in card["test"]})
    rows = []
    for learner, shot in dict.fromkeys((line["learner"], line["shot"]) for line in card["test"]):
        lines = {line["steps"]: line for line in card["test"] if (line["learner"], line["shot"]) == (learner, shot)}
        errors = [
            f"{lines[step]['mse']:.2f}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{lines[step]['ci95']:.2f}" for step in steps
        ]
        rows.append([learner, str(shot), *errors])
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


def maml_speed(book: Book) -> str:
    """One outer gradient, timed against other ways of writing it."""
    story = _read(book, "maml_speed.json")
    first = next(iter(story["rows"].values()))
    others = list(first["times_faster"])
    rows = [
        [
            label,
            *(f"{1000 * row['seconds'][name]:.1f}\N{NO-BREAK SPACE}ms" for name in row["seconds"]),
            *(f"{row['times_faster'][other]:.1f}" for other in others),
            f"{row['largest_difference']:.0e}",
        ]
        for label, row in story["rows"].items()
    ]
    head = " | ".join(
        [
            "task",
            *first["seconds"],
            *(f"times faster than {other}" for other in others),
            "largest difference of gradients",
        ]
    )
    where = f"{story['threads']} threads, PyTorch {story['torch']}; medians"
    return f"{table(head, rows)}\n\n{_notes({**story, 'protocol': where})}"


PARTS = {
    "cards": cards,
    "sinusoids": sinusoids,
    "metric_comparison": metric_comparison,
    "maml_comparison": maml_comparison,
    "maml_speed": maml_speed,
}
