"""Measures what the results table shows: every cell of a run, and shipped weights on the other data set."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fsl_course._system.allocator import keep_memory
from fsl_course.cli.results import USUAL_TURNS
from fsl_course.data import ImageSet, load_glyphs, load_omniglot, rotations_as_classes
from fsl_course.data.assets import sha256
from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import embed_all, evaluate, mean_and_ci95
from fsl_course.methods.base import ComparesEmbeddings, FewShotLearner
from fsl_course.methods.baselines import baselines
from fsl_course.weights.checkpoints import load_learner
from fsl_course.weights.learners import has_head
from tools.results.files import papers
from tools.results.rows import key_of, write
from tools.results.runs import ALL_CELLS, LABELS, RUNS, Cell, Label, Run
from tools.results.trained import (
    CHECKPOINTS,
    RESULTS,
    RunError,
    card_of,
    data_arguments,
    not_trained,
    training_of,
    weights_of,
    words_of,
)

EPISODES, TEST_SEED, TEST_QUERY = 1000, 0, 15
DRAWINGS = 20  # of an Omniglot character


class CellTest(NamedTuple):
    """One test of a cell.

    query:        per class
    transductive: batch norm sees all queries of an episode together
    turns:        "classes": turned characters are classes of their own; "none": all stand upright; "tasks": each task is turned
                  as a whole by one angle
    unlabelled:   per class
    """

    way: int
    shot: int
    query: int
    transductive: bool = False
    turns: str = "none"
    unlabelled: int = 0


@dataclass(frozen=True)
class Shipped:
    """Shipped weights with their card, and the cells in which they are tested on the data set that they were not trained on."""

    weights: Path
    label: Label
    card: dict[str, Any]
    cells: Sequence[Cell]


class Remembered(FewShotLearner):
    """A learner that compares embeddings, with the embeddings of a whole split computed once and looked up for every cell."""

    def __init__(self, learner: ComparesEmbeddings, split: ImageSet) -> None:
        super().__init__()
        self.learner, pictures = learner, split.images.flatten(0, 1)
        self.transductive, self.uses_unlabelled = learner.transductive, learner.uses_unlabelled
        self.table = embed_all(learner, pictures)
        self.place = {picture.numpy().tobytes(): at for at, picture in enumerate(pictures)}

    def embed(self, x: Tensor) -> Tensor:
        """Looks up the embeddings [B, D] of pictures of the split [B, c, H, W]."""
        return self.table[[self.place[picture.numpy().tobytes()] for picture in (x * 255).round().to(torch.uint8)]]

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int, *unlabelled: Tensor) -> Tensor:
        """Returns what the wrapped learner returns for these embeddings."""
        return self.learner.score(support, labels, query, n_way, *unlabelled)


def _remembered(learner: FewShotLearner, split: ImageSet) -> FewShotLearner:
    """Returns the learner with its embeddings remembered, or as it is if it does not compare embeddings."""
    return Remembered(learner, split) if isinstance(learner, ComparesEmbeddings) else learner


@cache
def test_split(data: str, protocol: str, turns: str) -> ImageSet:
    """Returns the classes that the test tasks of the table are drawn from. turns: see `CellTest`."""
    if data == "glyphs":
        return load_glyphs().split("test")
    split = load_omniglot(protocol=protocol).split("test")
    return split if turns == "none" else rotations_as_classes(split, turns_as_groups=turns == "tasks")


def measure(learners: Sequence[FewShotLearner], split: ImageSet, cell: CellTest, *, episodes: int) -> dict[str, Any]:
    """Returns the numbers of a row: the mean over the learners (seeds) on the same episodes and its interval, as fractions.

    correct: a histogram: number of right queries of an episode, added over the seeds -> number of such episodes
    sha256:  of these numbers in the order of the episodes; tells a repetition from a coincidence of the means
    """
    way, shot, query, transductive, turns, unlabelled = cell
    sampler = EpisodeSampler(
        split, way, shot, query, seed=TEST_SEED, within_group=turns == "tasks", n_unlabelled=unlabelled
    )
    began = time.monotonic()
    found = [evaluate(learner, sampler, episodes, transductive=transductive) for learner in learners]
    right = torch.stack([(one.per_episode * way * query).round().to(torch.int64) for one in found]).sum(0)
    mean, half = mean_and_ci95(right.double() / (len(learners) * way * query))
    return {
        "way": way, "shot": shot, "query": query, "mean": mean, "ci95": half, "seed_means": [one.mean for one in found],
        "episodes": episodes, "test_seed": TEST_SEED, "inductive": not found[0].transductive, "turns": turns,
        "evaluate_seconds": round(time.monotonic() - began, 1),
        "correct": {str(count): times for count, times in sorted(Counter(right.tolist()).items())},
        "sha256": hashlib.sha256(",".join(map(str, right.tolist())).encode()).hexdigest(),
    }  # fmt: skip


def settings_of_cells(run: Run, label: str) -> list[CellTest]:
    """Returns the tests of all cells: each inductive with 15 queries a class, and also as the paper did it where that differs."""
    entries = [e for e in papers(RESULTS)["papers"] if e["label"] == label and run.protocol == "random"]
    found = []
    for way, shot in run.cells:
        key, usual = key_of({"way": way, "shot": shot}), USUAL_TURNS.get(run.protocol, "none")
        asked = [entry for entry in entries if key in entry["percent"]]
        left = min(TEST_QUERY, DRAWINGS - shot - run.unlabelled)
        tests = [CellTest(way, shot, left, False, usual, run.unlabelled)]
        tests += [CellTest(way, shot, e["queries"].get(key, TEST_QUERY), not e["inductive"], e["turns"]) for e in asked]
        found += dict.fromkeys(tests)
    return found


def evaluate_run(run: Run, *, episodes: int = EPISODES, results: Path = RESULTS) -> Path:
    """Measures every cell of a run and writes results/NAME.json. Raises RunError if the run is not trained."""
    keep_memory()
    began = time.monotonic()
    if run.method == "baselines":
        about = {"trained_on": None, "seed_numbers": [0], "trained": None, "minutes": None, "weights": None}
        first = f"python -m fsl_course evaluate {run.method}"
        learners = {
            Label("baselines", name[0].upper() + name[1:], name): [learner] for name, learner in baselines().items()
        }
    else:
        weights = [weights_of(run, seed) for seed in run.seeds]
        if None in weights:
            raise not_trained(run)
        cards = [card_of(path, run) for path in weights]
        about, first = _training(run, cards), _repeats(run, cards[0])
        learners = {Label(run.method, run.label, run.variant): [load_learner(path)[0] for path in weights]}
    found: list[dict[str, Any]] = []
    for label, mine in learners.items():
        cells = settings_of_cells(run, label.label)
        splits = {cell.turns: test_split(run.data, run.protocol, cell.turns) for cell in cells}
        quick = {turns: [_remembered(learner, split) for learner in mine] for turns, split in splits.items()}
        for cell in cells:
            seen = mine if cell.transductive else quick[cell.turns]
            numbers = measure(seen, splits[cell.turns], cell, episodes=episodes)
            command = (
                f"{first} {data_arguments(run, cell.turns)} --way {cell.way} --shot {cell.shot} --query {cell.query} "
                f"--episodes {episodes} --seed {TEST_SEED}"
                + (" --transductive" if cell.transductive else "")
                + (f" --unlabelled {cell.unlabelled}" if cell.unlabelled else "")
            )
            found.append({
                **asdict(label), "data": run.data, "protocol": run.protocol, **about, "seeds": len(mine), **numbers,
                "parameters": sum(p.numel() for p in mine[0].parameters()), "command": command,
            })  # fmt: skip
            _say(found[-1])
    path = results / f"{run.name}.json"
    head = {"command": f"python -m tools.results evaluate {run.name}", "seconds": round(time.monotonic() - began)}
    write(path, head | {"torch": torch.__version__, "threads": torch.get_num_threads()}, found)
    return path


def _training(run: Run, cards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns what a row says about the training. Raises RunError if a head does not have as many outputs as a cell has ways."""
    how = training_of(cards[0]["command"])
    if has_head(run.method) and (other := [cell for cell in run.cells if cell[0] != how["way"]]):
        raise RunError(f"{run.name} has a head of {how['way']} outputs: its cells cannot be {other}.")
    return {
        "trained_on": run.data, "seed_numbers": list(run.seeds), "trained": how,
        "minutes": round(sum(card["minutes"] for card in cards) / len(cards), 1),
        "weights": f"{run.ships}.safetensors" if run.ships else None,
    }  # fmt: skip


def _repeats(run: Run, card: dict[str, Any]) -> str:
    """Returns the command that trains the run into runs/NAME and starts its evaluation; the options of the test follow it."""
    return f"{card['command'].removesuffix('DIR')}runs/{run.name} && python -m fsl_course evaluate runs/{run.name}"


def _say(row: dict[str, Any]) -> None:
    how = ("inductive" if row["inductive"] else "transductive") + f", turns: {row['turns']}"
    task = f"{row['way']:2d}-way {row['shot']}-shot, {how}, on {row['data']}"
    print(f"{row['label']:20s} {task}: {row['mean']:.2%} ± {row['ci95']:.2%} ({row['evaluate_seconds']} s)", flush=True)


def measure_transfer(*, episodes: int = EPISODES, results: Path = RESULTS) -> Path:
    """Tests Glyphs' shipped weights on Omniglot's evaluation alphabets, and Omniglot's on Glyphs' test scripts.

    Writes results/transfer.json after every row. Rows that are already there and belong to the same weights are kept.
    """
    keep_memory()
    path = results / "transfer.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    head = {
        "about": "Nothing was trained for these: weights of one data set, tested on the other. Omniglot: the 20 evaluation "
        "alphabets, upright; Glyphs: its test scripts. Cyrillic stands among the scripts that Glyphs trains on, and an older "
        "form of it among Omniglot's evaluation alphabets.",
        "command": "python -m tools.results transfer",
        "torch": torch.__version__,
    }
    found: list[dict[str, Any]] = []
    for shipped in _to_transfer():
        digest, learner = sha256(shipped.weights), None
        for way, shot in shipped.cells:
            same = {"weights_sha256": digest, "way": way, "shot": shot, "episodes": episodes}
            row = next((row for row in kept if all(row.get(name) == value for name, value in same.items())), None)
            if row is None:
                split = test_split(*_other_data(shipped), "none")
                learner = learner or _remembered(load_learner(shipped.weights)[0], split)
                row = _transfer_row(shipped, learner, split, same)
                _say(row)
                write(path, head, [*found, row, *(one for one in kept if one not in found)])
            found.append(row)
    write(path, head, found)  # leaves out rows of weights that no longer ship
    return path


def _other_data(shipped: Shipped) -> tuple[str, str]:
    """Returns data set and protocol of the test."""
    return ("omniglot", "alphabets") if shipped.card["data"] == "glyphs" else ("glyphs", "scripts")


def _transfer_row(shipped: Shipped, learner: FewShotLearner, split: ImageSet, same: dict[str, Any]) -> dict[str, Any]:
    """Measures one cell. same: the fields that identify the row, with way, shot and episodes."""
    data, protocol = _other_data(shipped)
    card, (way, shot, episodes) = shipped.card, (same[name] for name in ("way", "shot", "episodes"))
    numbers = measure([learner], split, CellTest(way, shot, TEST_QUERY), episodes=episodes)
    data_words = "--data glyphs" if data == "glyphs" else "--data omniglot --protocol alphabets"
    return {
        **asdict(shipped.label), "data": data, "protocol": protocol, "trained_on": card["data"],
        "seeds": 1, "seed_numbers": [card["seed"]], "trained": training_of(card["command"]),
        "minutes": float(card["minutes"]), "weights": shipped.weights.name, **same, **numbers,
        "parameters": card["parameters"],
        "command": f"python -m fsl_course evaluate data/checkpoints/{shipped.weights.name} {data_words} --way {way} "
        f"--shot {shot} --query {TEST_QUERY} --episodes {episodes} --seed {TEST_SEED}",
    }  # fmt: skip


def _to_transfer() -> list[Shipped]:
    """Returns what is tested on the other data set. Of a label without a head only the first weights count: those of one shot."""
    labels = {label.method: label for label in LABELS.values() if not label.variant}
    found = []
    for path in sorted(CHECKPOINTS.glob("*-glyphs*.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        words = words_of(card["command"])
        cells = [(int(words["--way"]), int(words["--shot"]))] if has_head(card["method"]) else ALL_CELLS
        found.append(Shipped(path.with_suffix(".safetensors"), labels[card["method"]], card, cells))
    seen = set()
    for run in RUNS:
        path = CHECKPOINTS / f"{run.ships}.json"
        label = Label(run.method, run.label, run.variant)
        if run.protocol == "random" and run.ships and path.is_file() and (has_head(run.method) or label not in seen):
            seen.add(label)
            card = json.loads(path.read_text(encoding="utf-8"))
            cells = run.cells if has_head(run.method) else ALL_CELLS
            found.append(Shipped(path.with_suffix(".safetensors"), label, card, cells))
    return found
