"""The tables of the results page, from the files that the measuring commands wrote into `data/`."""

from __future__ import annotations

import json
from typing import Any

from fsl_course.cli import results
from tools.book.pages import Book, accuracies, duration, percent, shipped, table, unbroken
from tools.results import files
from tools.results import table as tables


def _read(book: Book, name: str) -> dict[str, Any]:
    return json.loads((book.root / "data" / name).read_text(encoding="utf-8"))


def _notes(story: dict[str, Any]) -> str:
    """Returns protocol and command, to stand under a table."""
    protocol = f"Protocol: {story['protocol']}.\n\n" if "protocol" in story else ""
    return f"{protocol}Command:\n\n```text\n{story['command']}\n```"


def over_seeds(runs: list[list[int]], queries: int) -> tuple[float, float]:
    """Returns the mean accuracy and the half width of its 95 % interval over episodes.

    runs: the right queries of E episodes, a list for each seed; queries: how many an episode has
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
    """Returns the accuracy of all shipped classifiers, in every setting on their cards."""
    found = [card for card in shipped(book) if accuracies(card)]
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
    """Returns the mean squared error on sine curves by inner steps: MAML, pretraining, and the paper's numbers."""
    card = next(card for card in shipped(book) if card["data"] == "sinusoids")
    steps, paper = sorted({line["steps"] for line in card["test"]}), files.papers()["sinusoids"]
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
    """Returns the accuracy of all metric methods, trained alike, in each setting: mean over seeds and (each seed)."""
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
    """Returns accuracy, as mean over seeds and (each seed), and cost of an update for MAML and its cheaper relatives."""
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


def lake(book: Book) -> str:
    """Returns the errors in Lake's one-shot test: in the published runs, and in runs drawn anew or by halves."""
    story = _read(book, "lake_comparison.json")
    kinds = ("published", "drawn", "first eight people", "published letters", "published people")
    rows = [[row["label"], *(percent(1 - row[k], row[f"{k}_ci95"]) for k in kinds)] for row in story["rows"]]
    ways = (
        "20 published runs",
        "drawn anew",
        "anew, first eight people",
        "their letters, other people",
        "their people, other letters",
    )
    head = " | ".join(("method", *ways))
    return f"{table(head, rows)}\n\n{_notes(story)}"


def omniglot_random(book: Book) -> str:
    """Returns all methods on Omniglot as the papers split it, with the papers' numbers and, below, why ours are lower."""
    return tables.short_table(_of("random"))


def omniglot_tasks(book: Book) -> str:
    """Returns a table for each task of the papers' split: the paper's number, ours measured the same way, and ours inductive."""
    found = _of("random")
    tasks = sorted({(row["way"], row["shot"], row["episodes"]) for row in found})
    return "\n\n".join(
        f"**{way}-way {shot}-shot, {episodes:,} episodes**\n\n{_task(found, way, shot)}"
        for way, shot, episodes in tasks
    )


def _task(found: list[results.Row], way: int, shot: int) -> str:
    groups: dict[str, list[results.Row]] = {}
    for row in found:
        if (row["way"], row["shot"]) == (way, shot):
            groups.setdefault(row["label"], []).append(row)
    rows = []
    for label, group in groups.items():
        inductive = next((_ours(row) for row in group if row["inductive"] and row["turns"] == "classes"), "")
        same = [row for row in group if results.is_comparable(row)]
        rows += [[label, _theirs(row), _ours(row) + (r"\*" if row["short"] else ""), inductive] for row in same]
        if not same:
            rows.append([label, _theirs(group[0]), "", inductive])
    return table("method | paper | ours, the paper's way | ours, inductive", rows)


def _theirs(row: results.Row) -> str:
    """Returns the paper's number and how it was measured, or "" if there is none."""
    if not (paper := row["paper"]):
        return ""
    how = "inductive" if paper["inductive"] else "transductive"
    how += "" if paper["turns"] == results.USUAL_TURNS["random"] else f", {results.TURN_WORDS[paper['turns']]}"
    return f"{unbroken(results.percent(paper['number'], paper['ci95']))}, {how}"


def _ours(row: results.Row) -> str:
    return unbroken(results.percent(row["mean"], row["ci95"]))


def omniglot_costs(book: Book) -> str:
    """Returns what every training of the papers' split took, beside the paper's budget."""
    return tables.costs("random")


def omniglot_sources(book: Book) -> str:
    """Returns how each paper measured its number, and where in the paper it is: a list, because the words are long."""
    measured = {row["label"] for row in files.rows()}
    entries = [entry for entry in files.papers()["papers"] if entry["label"] in measured]
    return "\n".join(f"- **{entry['label']}** ({entry['source']}): {entry['protocol']}." for entry in entries)


def omniglot_alphabets(book: Book) -> str:
    """Returns the results on Omniglot split by alphabets, and what the trainings took."""
    return f"{tables.short_table(_of('alphabets'))}\n\n{tables.costs('alphabets')}"


def omniglot_commands(book: Book) -> str:
    """Returns a command for each run that repeats it from the start."""
    return tables.commands([row for protocol in results.PROTOCOLS for row in _of(protocol)])


def half_point(book: Book) -> str:
    """Returns what prototypical networks lose when one thing is taken away: a table of accuracies, and what each row changes."""
    if not (book.root / "data" / "results" / "half_point.json").is_file():
        return "Not measured yet."
    story = _read(book, "results/half_point.json")
    rows = []
    for row in story["rows"]:
        gaps = [f"{percent(cell['mean'], cell['ci95'])}" for cell in row["cells"]]
        for at, cell in enumerate(row["cells"]):
            if "difference" in cell:
                gaps[at] += unbroken(f" ({100 * cell['difference']:+.2f} ± {100 * cell['difference_ci95']:.2f})")
        rows.append([row["variant"], *gaps])
    words = "\n".join(f"- **{row['variant']}**: {row['words']}." for row in story["rows"])
    tasks = [f"{cell['way']}-way {cell['shot']}-shot" for cell in story["rows"][0]["cells"]]
    return f"{table(' | '.join(['variant', *tasks]), rows)}\n\n{words}\n\n{_notes(story)}"


def transfer(book: Book) -> str:
    """Returns the accuracy of weights on the data set that they were not trained on."""
    found = files.transfer_rows()
    if not found:
        return "Not measured yet."
    about = _read(book, "results/transfer.json")
    return f"{tables.short_table(found)}\n\n{about['about']}\n\n{_notes({'command': about['command']})}"


def benchmark(book: Book) -> str:
    """Returns the times beside other libraries on the same work, and what a training step costs as tasks grow."""
    story = files.benchmark()
    if story is None:
        return "Not measured yet: `python -m tools.benchmark` measures your machine."
    works = list(dict.fromkeys((row["work"], row.get("setting", "")) for row in story["rows"]))
    drawn = [_work([row for row in story["rows"] if (row["work"], row.get("setting", "")) == one]) for one in works]
    drawn += [text for text in (tables.benchmark_notes(story), tables.benchmark_about(story)) if text]
    if story.get("scaling"):
        from fsl_course import figures
        from tools.benchmark import scaling

        drawn.append(figures.to_html(*scaling.figure(story["scaling"])))
    return "\n\n".join(drawn)


def _work(rows: list[dict[str, Any]]) -> str:
    """Returns a work of the benchmark in one setting: what it is, the goal and whether it is met, and a line for each peer."""
    first = rows[0]
    aimed = first.get("goal") is not None and first.get("met") is not None  # a quick try has a goal but no verdict
    goal = f" Goal: {first['goal']:g}, {'met' if all(row['met'] for row in rows) else 'not met'}." if aimed else ""
    threads = f"{first['threads']} threads" if first.get("threads") else ""
    setting = ", ".join(text for text in (first.get("setting", ""), threads) if text)
    share = first["work"] == "conv4-matmul-share"
    lines = [
        [
            " ".join(str(part) for part in (row["peer"], row.get("peer_version")) if part),
            duration(row["ours_s"]),
            duration(row["peer_s"]),
            f"{row['ratio']:.2f} of its rate" if share else f"{row['ratio']:.3g}",
        ]
        for row in rows
    ]
    head = f"against | ours | theirs | {'share' if share else 'times faster'}"
    return f"**{first['work']}**: {setting}.{goal}\n\n{table(head, lines)}"


def _of(protocol: str) -> list[results.Row]:
    return [row for row in files.rows() if row["protocol"] == protocol]


PARTS = {
    "cards": cards,
    "sinusoids": sinusoids,
    "metric_comparison": metric_comparison,
    "maml_comparison": maml_comparison,
    "lake": lake,
    "omniglot_random": omniglot_random,
    "omniglot_tasks": omniglot_tasks,
    "omniglot_costs": omniglot_costs,
    "omniglot_sources": omniglot_sources,
    "omniglot_alphabets": omniglot_alphabets,
    "omniglot_commands": omniglot_commands,
    "half_point": half_point,
    "transfer": transfer,
    "benchmark": benchmark,
}
