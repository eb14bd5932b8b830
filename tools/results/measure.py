"""Measures what the results table shows: every cell of a run, and weights on the other data set. `results_run` calls it."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsl_course.cli.results_files import key_of, papers
from fsl_course.data import ImageSet, load_glyphs, load_omniglot
from fsl_course.data.assets import sha256
from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import embed_all, evaluate, mean_and_ci95
from fsl_course.methods.base import ComparesEmbeddings, FewShotLearner, by_embeddings
from fsl_course.methods.baselines import baselines
from fsl_course.weights.checkpoints import load_learner
from fsl_course.weights.learners import has_head
from tools.results.rows import write
from tools.results.run import (
    ALL,
    CHECKPOINTS,
    LABELS,
    RESULTS,
    RUNS,
    Run,
    RunError,
    card_of,
    data_arguments,
    weights_of,
    words_of,
)

EPISODES, TEST_SEED, TEST_QUERY = 1000, 0, 15


@cache
def test_split(data: str, protocol: str) -> ImageSet:
    """The classes that the table's tasks are drawn from."""
    if data == "glyphs":
        return load_glyphs().split("test")
    return load_omniglot(protocol=protocol, rotations=protocol == "random").split("test")


class Remembered(FewShotLearner):
    """A learner that compares embeddings, with the embeddings of all pictures of one split: made once for all its cells."""

    def __init__(self, learner: ComparesEmbeddings, split: ImageSet) -> None:
        super().__init__()
        self.learner, pictures = learner, split.images.flatten(0, 1)
        self.table = embed_all(learner, pictures)
        self.place = {picture.numpy().tobytes(): at for at, picture in enumerate(pictures)}

    def embed(self, x: Tensor) -> Tensor:
        """Pictures of the split [B, c, H, W] -> embeddings [B, D], looked up."""
        return self.table[[self.place[picture.numpy().tobytes()] for picture in (x * 255).round().to(torch.uint8)]]

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """As the learner's own."""
        return self.learner.score(support, labels, query, n_way)

    def forward(self, episode: Episode) -> Tensor:
        """One task -> logits [N*Q, N]."""
        return by_embeddings(self, episode)


def _remembered(learner: FewShotLearner, split: ImageSet) -> FewShotLearner:
    return Remembered(learner, split) if isinstance(learner, ComparesEmbeddings) else learner


def measure(
    learners: Sequence[FewShotLearner], split: ImageSet, way: int, shot: int, query: int, **how: Any
) -> dict[str, Any]:
    """The numbers of a row: mean over the learners (seeds) and its interval over the same episodes, fractions.

    correct: how often so many queries of an episode, added over the seeds, were right; sha256: of these numbers episode by
    episode, so that a repetition can be told from a coincidence.
    """
    sampler, began = EpisodeSampler(split, way, shot, query, seed=TEST_SEED), time.monotonic()
    found = [evaluate(learner, sampler, how["episodes"], transductive=how["transductive"]) for learner in learners]
    right = torch.stack([(one.per_episode * way * query).round().to(torch.int64) for one in found]).sum(0)
    mean, half = mean_and_ci95(right.double() / (len(learners) * way * query))
    return {
        "way": way, "shot": shot, "query": query, "mean": mean, "ci95": half, "seed_means": [one.mean for one in found],
        "episodes": how["episodes"], "test_seed": TEST_SEED, "inductive": not how["transductive"],
        "evaluate_seconds": round(time.monotonic() - began, 1),
        "correct": {str(count): times for count, times in sorted(Counter(right.tolist()).items())},
        "sha256": hashlib.sha256(",".join(map(str, right.tolist())).encode()).hexdigest(),
    }  # fmt: skip


def settings_of_cells(run: Run, label: str) -> list[tuple[int, int, int, bool]]:
    """(way, shot, query, transductive) of every test: inductive with 15 queries a class, and as the paper did it otherwise."""
    entries = [e for e in papers(RESULTS)["papers"] if e["label"] == label and not e["inductive"]]
    found = []
    for way, shot in run.cells:
        found.append((way, shot, TEST_QUERY, False))
        key = key_of({"way": way, "shot": shot})
        found += [(way, shot, entry["queries"][key], True) for entry in entries if key in entry["queries"]]
    return found


def evaluate_run(run: Run, *, episodes: int = EPISODES, results: Path = RESULTS) -> Path:
    """Measures every cell of a run and writes results/NAME.json. RunError where it is not trained."""
    began = time.monotonic()
    about: dict[str, Any] = {"trained_on": None, "seed_numbers": [0], "trained": None, "minutes": None, "weights": None}
    first, trained = f"python -m fsl_course evaluate {run.method}", {}
    if run.method == "baselines":
        learners = {(name[0].upper() + name[1:], name): [learner] for name, learner in baselines().items()}
    else:
        weights = [weights_of(run, seed) for seed in run.seeds]
        if None in weights:
            raise RunError(f"{run.name} is not trained: python -m tools.results.run train {run.name}")
        cards = [card_of(path, run) for path in weights]
        learners = {(run.label, run.variant): [load_learner(path)[0] for path in weights]}
        trained = words_of(cards[0]["command"])
        about = {
            "trained_on": run.data, "seed_numbers": list(run.seeds),
            "trained": {name: int(trained[f"--{name}"]) for name in ("way", "shot", "query", "steps", "tasks")},
            "minutes": round(sum(card["minutes"] for card in cards) / len(cards), 1),
            "weights": f"{run.ships}.safetensors" if run.ships else None,
        }  # fmt: skip
        first = (
            f"{cards[0]['command'].removesuffix('DIR')}runs/{run.name} && python -m fsl_course evaluate runs/{run.name}"
        )
    if run.method != "baselines" and has_head(run.method):
        other = [cell for cell in run.cells if cell[0] != int(trained["--way"])]
        if other:
            raise RunError(f"{run.name} has a head of {trained['--way']} outputs: its cells cannot be {other}.")
    split, found = test_split(run.data, run.protocol), []
    for (label, variant), mine in learners.items():
        quick = [_remembered(learner, split) for learner in mine]
        for way, shot, query, transductive in settings_of_cells(run, label):
            numbers = measure(
                mine if transductive else quick, split, way, shot, query, episodes=episodes, transductive=transductive
            )
            command = (
                f"{first} {data_arguments(run, test=True)} --way {way} --shot {shot} --query {query} "
                f"--episodes {episodes} --seed {TEST_SEED}" + (" --transductive" if transductive else "")
            )
            found.append({
                "method": run.method, "label": label, "variant": variant, "data": run.data, "protocol": run.protocol, **about,
                "seeds": len(mine), **numbers, "parameters": sum(p.numel() for p in mine[0].parameters()), "command": command,
            })  # fmt: skip
            _say(found[-1])
    path = results / f"{run.name}.json"
    head = {"command": f"python -m tools.results.run evaluate {run.name}", "seconds": round(time.monotonic() - began)}
    write(path, head | {"torch": torch.__version__, "threads": torch.get_num_threads()}, found)
    return path


def _say(row: dict[str, Any]) -> None:
    how = "inductive" if row["inductive"] else "transductive"
    task = f"{row['way']:2d}-way {row['shot']}-shot, {how}, on {row['data']}"
    print(f"{row['label']:20s} {task}: {row['mean']:.2%} ± {row['ci95']:.2%} ({row['evaluate_seconds']} s)", flush=True)


def measure_transfer(*, episodes: int = EPISODES, results: Path = RESULTS) -> Path:
    """Shipped weights of Glyphs on Omniglot's evaluation alphabets, those of Omniglot on Glyphs' test scripts.

    Writes results/transfer.json after every row; rows that are there, of the same weights, are kept.
    """
    path = results / "transfer.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    head = {
        "about": "Nothing was trained for these: weights of one data set, tested on the other. Omniglot: the 20 evaluation "
        "alphabets, upright; Glyphs: its test scripts. Cyrillic stands among the scripts that Glyphs trains on, and an older "
        "form of it among Omniglot's evaluation alphabets.",
        "command": "python -m tools.results.run transfer",
        "torch": torch.__version__,
    }
    found: list[dict[str, Any]] = []
    for weights, label, variant, about, cells in _to_transfer():
        data, protocol = ("omniglot", "alphabets") if about["data"] == "glyphs" else ("glyphs", "scripts")
        digest, method, split = sha256(weights), about["method"], test_split(data, protocol)
        words, quick = words_of(about["command"]), None
        trained = {name: int(words[f"--{name}"]) for name in ("way", "shot", "query", "steps", "tasks")}
        for way, shot in cells:
            same = {"weights_sha256": digest, "way": way, "shot": shot, "episodes": episodes}
            row = next((row for row in kept if all(row.get(name) == value for name, value in same.items())), None)
            if row is None:
                quick = quick or _remembered(load_learner(weights)[0], split)
                numbers = measure([quick], split, way, shot, TEST_QUERY, episodes=episodes, transductive=False)
                data_words = "--data glyphs" if data == "glyphs" else "--data omniglot --protocol alphabets"
                row = {
                    "method": method, "label": label, "variant": variant, "data": data, "protocol": protocol,
                    "trained_on": about["data"], "seeds": 1, "seed_numbers": [about["seed"]], "trained": trained,
                    "minutes": float(about["minutes"]), "weights": weights.name, **same, **numbers,
                    "parameters": about["parameters"],
                    "command": f"python -m fsl_course evaluate data/checkpoints/{weights.name} {data_words} --way {way} "
                    f"--shot {shot} --query {TEST_QUERY} --episodes {episodes} --seed {TEST_SEED}",
                }  # fmt: skip
                _say(row)
                write(path, head, [*found, row, *(one for one in kept if one not in found)])
            found.append(row)
    write(path, head, found)  # without the rows of weights that are no more
    return path


def _to_transfer() -> list[tuple[Path, str, str, dict[str, Any], Sequence[tuple[int, int]]]]:
    """Weights, label, variant, card, tasks of what is tested on the other data set; one model a label: that of one shot."""
    labels = {method: label for method, label, variant in LABELS.values() if not variant}
    found = []
    for path in sorted(CHECKPOINTS.glob("*-glyphs*.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        words = words_of(card["command"])
        cells = [(int(words["--way"]), int(words["--shot"]))] if has_head(card["method"]) else ALL
        found.append((path.with_suffix(".safetensors"), labels[card["method"]], "", card, cells))
    for run in RUNS:
        if run.protocol == "random" and run.ships and (CHECKPOINTS / f"{run.ships}.json").is_file():
            weights = CHECKPOINTS / f"{run.ships}.safetensors"
            card = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
            if has_head(run.method) or not any(
                one[1:3] == (run.label, run.variant) and one[3]["data"] == "omniglot" for one in found
            ):
                found.append((weights, run.label, run.variant, card, run.cells if has_head(run.method) else ALL))
    return found
