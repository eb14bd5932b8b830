"""Compares what knows words only by their letters with what was trained before, on the same episodes, for lesson 20.

    OMP_NUM_THREADS=1 python -m tools.results.compare_words

Writes data/words_comparison.json. Trained rows are trained on the 40 training intents, three seeds each, and tested on the 18
test intents. With FSL_DATA, or ../shared beside the checkout, they are tested on CLINC150 and BANKING77, too (folder texts; of
each class 40 sentences of the training part; nothing is trained on these). Rows of MiniLM there need its vectors: --vectors
names a folder with clinc150.npz and banking77.npz, which tools.data.sentence_vectors makes of the files that --export writes.
Call it again after an interruption: it keeps the rows that are there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fsl_course import EpisodeSampler, evaluate, fit, load_intents
from fsl_course.data.assets import verified
from fsl_course.data.texts import COLUMNS, TextSet, text_set
from fsl_course.evaluation import embed_all
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import ngram_encoder
from fsl_course.weights.learners import make
from tools.results.rows import is_there, kept, write
from tools.results.words_rows import QUERY, WAY, correct, flat, nearest_mean, plain_rows, tfidf

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "data" / "words_comparison.json"
REAL = ("clinc150", "banking77")
EACH = 40  # sentences of a class of the real data
SHOTS = (1, 5)
HALF_QUERY = 5  # of the ten sentences that a half of an intent has, five may be the support
COSINE = {"distance": "cosine", "scale": 10.0}
# label: method, settings, and where they differ from the usual (10-way 5-shot, rate 0.001) the training tasks and the rate
TRAINED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ProtoNet, n-grams": ("prototypical", {"encoder": "ngrams", **COSINE}, {}),
    "Matching, n-grams": ("matching", {"encoder": "ngrams", "scale": 10.0}, {}),
    "Induction, n-grams": ("induction", {"encoder": "ngrams", "width": 40, "objective": "cross_entropy"}, {}),
    "MAML, n-grams": (
        "maml",
        {"encoder": "ngrams", "inner_lr": 1.0, "inner_steps": 3, "first_order": True},
        {"way": 5, "shot": 1},
    ),
    "ProtoNet, n-grams and MLP": ("prototypical", {"encoder": "ngrams and mlp", **COSINE}, {}),
    "ProtoNet, GRU": ("prototypical", {"encoder": "gru", "width": 32, **COSINE}, {"shot": 2, "lr": 3e-3}),
}


def texts_folder() -> Path | None:
    """Returns the folder with CLINC150 and BANKING77, or None: $FSL_DATA/texts, or ../shared/texts beside the checkout."""
    places = [Path(os.environ["FSL_DATA"]) / "texts"] if os.environ.get("FSL_DATA") else []
    return next((p for p in [*places, ROOT.parent / "shared" / "texts"] if p.is_dir()), None)


def real_rows(name: str, folder: Path) -> list[tuple[str, str, str, str]]:
    """Returns (text, label, group, split) of EACH sentences of every class, the first ones of the training part."""
    if name == "clinc150":
        domains = json.loads((folder / name / "domains.json").read_text(encoding="utf-8"))
        group = {intent: domain for domain, intents in domains.items() for intent in intents}
        found = json.loads((folder / name / "data_full.json").read_text(encoding="utf-8"))["train"]
    else:
        with open(folder / name / "train.csv", encoding="utf-8", newline="") as file:
            found = [(row["text"], row["category"]) for row in csv.DictReader(file)]
        group = {}
    seen: dict[str, int] = {}
    rows = []
    for text, label in found:
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= EACH:
            rows.append((" ".join(text.split()), label, group.get(label, name), "test"))
    return rows


def export(folder: Path, out: Path) -> None:
    """Writes the sentences of the real data as CSV files for load_texts and tools.data.sentence_vectors."""
    out.mkdir(parents=True, exist_ok=True)
    for name in REAL:
        with open(out / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([COLUMNS, *real_rows(name, folder)])


def learner_of(label: str) -> FewShotLearner:
    """Returns the untrained learner of a row. One with an MLP has a hidden layer of 256 ReLUs over the n-grams."""
    method, settings, _ = TRAINED[label]
    if settings["encoder"] == "ngrams and mlp":
        encoder = nn.Sequential(ngram_encoder(256), nn.ReLU(), nn.Linear(256, 128))
        return PrototypicalNetwork(encoder, settings["distance"], settings["scale"])
    return make(method, **settings)


def trained(label: str, seed: int, train: TextSet, val: TextSet, steps: int) -> FewShotLearner:
    """Trains a fresh learner by the tasks of its row, and keeps the best of four validations."""
    torch.manual_seed(seed)
    learner, tasks = learner_of(label), TRAINED[label][2]
    sampler = EpisodeSampler(train, tasks.get("way", 10), tasks.get("shot", 5), 5, seed=seed)
    fit(
        learner, sampler, steps=steps, lr=tasks.get("lr", 1e-3), progress=False,
        validation=EpisodeSampler(val, 5, tasks.get("shot", 5), 5), validate_every=max(steps // 4, 1),
        validation_episodes=50,
    )  # fmt: skip
    return learner


def memory_rows(seed: int, base: TextSet, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains a ProtoNet on every other sentence of the training intents, and tests it on three things, beside two controls.

    The three: the sentences of the training, the other sentences of the same intents, and the test intents. The controls, a
    ProtoNet before its training and TF-IDF of the training sentences, say how hard the three are for one who learned nothing.
    """
    train, test = base.split("train"), base.split("test")
    seen, other = (
        replace(train, images=train.images[:, first::2], counts=(train.counts + 1 - first) // 2) for first in (0, 1)
    )
    label = "ProtoNet, n-grams"
    torch.manual_seed(seed)
    encoders = {"untrained": learner_of(label), "trained": trained(label, seed, seen, base.split("val"), options.steps)}
    found = []
    for where, source in {"its sentences": seen, "others of its intents": other, "unseen domains": test}.items():
        tables = {n: embed_all(e, source.images.flatten(0, 1)) for n, e in encoders.items()}
        guesses = {n: nearest_mean(table) for n, table in tables.items()}
        guesses["TF-IDF"] = tfidf(source, [s for s in flat(seen) if s], "mean")
        for name, guess in guesses.items():
            results = correct(guess, source, options.episodes, SHOTS, HALF_QUERY)
            found.append({"label": f"{name}, {where}", "data": "memory", "seed": seed, "results": results})
    return found


def trained_rows(
    label: str, seed: int, sources: dict[str, TextSet], base: TextSet, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Trains a learner on the training intents and tests it on every source. A method with a head: on intents only."""
    method = TRAINED[label][0]
    learner = trained(label, seed, base.split("train"), base.split("val"), options.steps)
    found = []
    for name, source in sources.items():
        if method == "maml" and name != "intents":
            continue
        if method == "maml":
            results = []
            for shot in SHOTS:
                per = evaluate(learner, EpisodeSampler(source, WAY, shot, QUERY), options.episodes).per_episode
                counts = (per * WAY * QUERY).round().int().tolist()
                results.append({"way": WAY, "shot": shot, "query": QUERY, "correct": counts})
        else:
            table = embed_all(learner, source.images.flatten(0, 1))
            with torch.no_grad():
                results = correct(
                    lambda s, y, q, t=table: learner.score(t[s], y, t[q], WAY).argmax(1), source, options.episodes
                )
        found.append({"label": label, "data": name, "seed": seed, "results": results})
    return found


def main(argv: Sequence[str] | None = None, folder: Path | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="training episodes (200)")
    parser.add_argument("--episodes", type=int, default=300, help="test episodes of each kind (300)")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds 0, 1, ... (3)")
    parser.add_argument("--vectors", type=Path, help="folder with MiniLM's vectors of the real data")
    parser.add_argument("--export", type=Path, metavar="DIR", help="only writes the real data as CSV")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    folder = folder or texts_folder()
    if options.export:
        export(folder, options.export)
        return 0
    head = {
        "command": f"OMP_NUM_THREADS=1 python -m tools.results.compare_words --steps {options.steps}"
        f" --episodes {options.episodes} --seeds {options.seeds}",
        "protocol": f"5-way, {QUERY} queries a class, inductive; test episodes of seed 0, the same for every row; `correct` "
        "counts the right queries of each episode; trained rows saw the training intents only, best of four validations; "
        f"memory: trained on every other sentence of the training intents, {HALF_QUERY} queries a class",
        "train": {"steps": options.steps},
        "episodes": options.episodes,
    }
    rows, base = kept(options.out, head), load_intents()
    sources, vectors = {"intents": base.split("test")}, {}
    every = np.load(verified("intents_minilm.npz"))["vectors"].reshape(len(base), -1, 384)
    vectors["intents"] = every[[i for i, s in enumerate(base.splits or []) if s == "test"]].reshape(-1, 384)
    if folder is not None:
        for name in REAL:
            sources[name] = text_set(real_rows(name, folder), name)
            if options.vectors:
                vectors[name] = np.load(options.vectors / f"{name}.npz")["vectors"]
    for name, source in sources.items():
        for label, (guess, shots) in plain_rows(source, base.split("train"), vectors.get(name)).items():
            if not any(row["label"] == label and row["data"] == name for row in rows):
                results = correct(guess, source, options.episodes, shots)
                _keep([{"label": label, "data": name, "seed": 0, "results": results}], rows, head, options)
    for seed in range(options.seeds):
        if not any(row["data"] == "memory" and row["seed"] == seed for row in rows):
            _keep(memory_rows(seed, base, options), rows, head, options)
        for label in TRAINED:
            if not is_there(rows, label, seed):
                _keep(trained_rows(label, seed, sources, base, options), rows, head, options)
    return 0


def _keep(
    found: list[dict[str, Any]], rows: list[dict[str, Any]], head: dict[str, Any], options: argparse.Namespace
) -> None:
    """Adds rows to the file, and prints their accuracies."""
    rows += found
    write(options.out, head, rows)
    for row in found:
        means = [
            f"{r['way']}w{r['shot']}s {np.mean(r['correct']) / (r['way'] * r['query']):.1%}" for r in row["results"]
        ]
        print(f"{row['data']:10s} {row['label']:42s} seed {row['seed']}  " + "  ".join(means), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
