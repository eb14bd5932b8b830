"""Reads and checks the files of measured rows in data/results, adds the papers' numbers, and joins all into one table.

`python -m tools.results evaluate` writes one file for each run. Beside them lie papers.json (what the papers print), reasons.json
(why a number lies below its paper's), transfer.json (weights tested on the other data set), benchmark.json (times against other
libraries) and half_point.json (what prototypical networks lose when one thing is taken away). From the runs, transfer.json, the
papers and the reasons `python -m tools.results table` makes table.json, the one file that `python -m fsl_course results` prints.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from fsl_course._system.files import replace_file
from fsl_course.cli.results import PROTOCOLS, Row, is_comparable, task_of
from fsl_course.data.assets import asset
from tools.results.rows import key_of, row_lines

# In the order of the lessons.
METHODS = (
    "baselines", "transfer", "simple_shot", "siamese", "matching", "prototypical", "relation",
    "maml", "reptile", "anil", "meta_sgd", "meta_lstm", "ridge", "hypernetwork", "in_context", "soft_kmeans",
    "graph", "label_propagation", "unsupervised", "induction", "zero_shot", "dense", "adapters",
)  # fmt: skip
_NOT_RUNS = ("papers", "reasons", "transfer", "benchmark", "half_point", "table")
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "method": str, "label": str, "variant": str, "data": str, "trained_on": (str, type(None)), "protocol": str, "way": int,
    "shot": int, "query": int, "mean": float, "ci95": float, "seeds": int, "seed_numbers": list, "seed_means": list,
    "episodes": int, "inductive": bool, "turns": str, "trained": (dict, type(None)), "minutes": (float, type(None)),
    "parameters": int, "command": str, "weights": (str, type(None)),
}  # fmt: skip


def folder_of_results() -> Path:
    """Returns the folder data/results of this checkout or installed package. Raises FileNotFoundError where it is missing."""
    return asset("results/papers.json").parent


def _read(path: Path) -> dict[str, Any]:
    cure = f"Restore it with `git checkout -- data/results/{path.name}`, or reinstall the package."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"the results file {path} is missing. {cure}") from None
    except ValueError as error:  # broken JSON, or no UTF-8
        raise ValueError(f"the results file {path} is damaged ({error}). {cure}") from error
    if not isinstance(found, dict):
        raise ValueError(f"the results file {path} is damaged (it holds no JSON object). {cure}")
    return found


def _fault(row: Any) -> str | None:
    """Returns what is wrong with a row, or None if nothing is."""
    if not isinstance(row, dict):
        return "is no JSON object"
    for name, kind in _FIELDS.items():
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if type(row.get(name)) not in kinds or name not in row:  # a bool is no whole number here
            return f"has {name}={row.get(name)!r}, needs {' or '.join(k.__name__ for k in kinds)}"
    for name, low, high in (
        ("mean", 0, 1), ("ci95", 0, 0.5), ("way", 2, 1000), ("shot", 1, 1000), ("query", 1, 1000), ("episodes", 2, 10**9),
        ("parameters", 0, 10**12), ("seeds", 1, 1000),
    ):  # fmt: skip
        if not low <= row[name] <= high:
            return f"has {name}={row[name]}, which must lie in {low}..{high}"
    if not row["seeds"] == len(set(row["seed_numbers"])) == len(row["seed_means"]):
        return f"has seeds={row['seeds']}, but seed_numbers={row['seed_numbers']} and seed_means={row['seed_means']}"
    if not math.isclose(row["mean"], sum(row["seed_means"]) / row["seeds"], abs_tol=1e-9):
        return f"has mean={row['mean']}, which is not the mean of seed_means={row['seed_means']}"
    return None


def _rows_in(path: Path) -> list[Row]:
    found = _read(path).get("rows")
    if not isinstance(found, list):
        raise ValueError(f'the results file {path} is damaged: it has no list "rows".')
    for number, row in enumerate(found, 1):
        if fault := _fault(row):
            raise ValueError(f"row {number} of the results file {path} {fault}. Restore the file or evaluate again.")
    return found


def papers(folder: Path | None = None) -> dict[str, Any]:
    """Returns the content of papers.json: {"papers": entries by label and protocol, "sinusoids": ...}."""
    return _read((folder or folder_of_results()) / "papers.json")


def _paper_of(row: Row, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the paper's number for a row of the papers' protocol, or None. Prefers one that was measured alike."""
    key = key_of(row)
    mine = [e for e in entries if e["label"] == row["label"] and key in e["percent"] and row["protocol"] == "random"]
    if not mine:
        return None
    entry = max(
        mine, key=lambda e: (e["inductive"] == row["inductive"], e["turns"] == row["turns"])
    )  # the first of the best
    half = entry["ci95"].get(key)
    return {
        "number": round(entry["percent"][key] / 100, 6), "ci95": None if half is None else round(half / 100, 6),
        "inductive": entry["inductive"], "turns": entry["turns"], "protocol": entry["protocol"], "source": entry["source"],
        "budget": entry["budget"].get(f"{row['way']}-way"),
    }  # fmt: skip


def _is_short(row: Row) -> bool:
    """Returns True if the paper's number, measured alike, lies above this row's interval."""
    return is_comparable(row) and row["paper"]["number"] > row["mean"] + row["ci95"]


def _reason(row: Row, reasons: dict[str, dict[str, str]]) -> str:
    """Returns why a row lies below its paper: what reasons.json says of its run and task, or else a shorter training."""
    if not row["short"]:
        return ""
    said = reasons.get(row["run"], {})
    if text := said.get(key_of(row)) or said.get("all"):
        return text
    budget, trained = row["paper"]["budget"], row["trained"]
    if budget and trained and trained["steps"] * trained["tasks"] < budget[0] * budget[1]:
        return f"trained on {trained['steps'] * trained['tasks']:,} tasks, the authors on {budget[0] * budget[1]:,}"
    return "not known"


def _order(row: Row) -> tuple:
    ordered = (("protocol", PROTOCOLS), ("method", METHODS))
    places = [names.index(row[key]) if row[key] in names else len(names) for key, names in ordered]
    return *places, row["label"], row["way"], row["shot"], not row["inductive"], row["turns"]


def _shipped(weights: str | None) -> str | None:
    try:
        return weights and asset(f"checkpoints/{weights}").name
    except FileNotFoundError:
        return None  # trained, but these weights do not ship


def rows(folder: Path | None = None) -> list[Row]:
    """Returns every measured row on Omniglot, sorted by protocol, method and task. folder: data/results unless given.

    `fsl_course.cli.results.measured` says what a row holds.

    Raises FileNotFoundError or ValueError, which name file, row and cure, where a file is missing or damaged.
    """
    folder = folder or folder_of_results()
    entries, reasons, found = papers(folder)["papers"], _read(folder / "reasons.json"), []
    for path in sorted(folder.glob("*.json")):
        if path.stem in _NOT_RUNS:
            continue
        for row in _rows_in(path):
            what = (row["data"], row["trained_on"] or "omniglot", row["protocol"])
            if what not in [("omniglot", "omniglot", protocol) for protocol in PROTOCOLS]:
                raise ValueError(
                    f"{path} holds a row with (data, trained_on, protocol) = {what}: it belongs elsewhere."
                )
            row = {**row, "run": path.stem, "weights": _shipped(row["weights"]), "paper": _paper_of(row, entries)}
            row["short"] = _is_short(row)
            found.append({**row, "why": _reason(row, reasons)})
    seen: set[tuple] = set()
    for row in found:
        what = (row["label"], row["protocol"], task_of(row), row["inductive"], row["turns"])
        if what in seen:
            raise ValueError(f"two files of {folder} hold {', '.join(what[:3])}; one is {row['run']}.json: delete one.")
        seen.add(what)
    return sorted(found, key=_order)


def transfer_rows(folder: Path | None = None) -> list[Row]:
    """Returns rows of weights tested on the other data set, Glyphs -> Omniglot and back, or none if none were measured.

    They are like those of `rows`; `trained_on` names the data of the training.
    """
    path = (folder or folder_of_results()) / "transfer.json"
    found = _rows_in(path) if path.is_file() else []
    found = [{**row, "weights": _shipped(row["weights"]), "paper": None, "short": False, "why": ""} for row in found]
    return sorted(found, key=lambda row: (row["trained_on"] != "glyphs", *_order(row)))


def benchmark(folder: Path | None = None) -> dict[str, Any] | None:
    """Returns what `python -m tools.benchmark --out` measured, {about, rows, scaling}, or None if nothing was."""
    path = (folder or folder_of_results()) / "benchmark.json"
    return _read(path) if path.is_file() else None


def table(folder: Path | None = None) -> bytes:
    """Returns the content of table.json: all rows of `rows` and `transfer_rows`, without the counts of right answers."""
    parts = {"rows": rows(folder), "transfer": transfer_rows(folder)}
    drawn = (
        f' "{name}": [\n{row_lines([{k: v for k, v in row.items() if k != "correct"} for row in found])}\n ]'
        for name, found in parts.items()
    )
    return ("{\n" + ",\n".join(drawn) + "\n}\n").encode()


def write_table(folder: Path | None = None) -> None:
    """Writes table.json. Raises as `rows` does."""
    folder = folder or folder_of_results()
    replace_file(folder / "table.json", table(folder))
