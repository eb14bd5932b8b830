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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from fsl_course import EpisodeSampler, evaluate, fit, load_intents
from fsl_course.data.assets import verified
from fsl_course.data.texts import COLUMNS, TextSet, text_set
from fsl_course.evaluation import embed_all
from fsl_course.weights.learners import make
from tools.results.rows import is_there, kept, write

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "data" / "words_comparison.json"
REAL = ("clinc150", "banking77")
EACH = 40  # sentences of a class of the real data
TEST, TEST_QUERY = ((5, 1), (5, 5)), 10
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
    "ProtoNet, GRU": ("prototypical", {"encoder": "gru", "width": 32, **COSINE}, {"shot": 2, "lr": 3e-3}),
}
Row = Callable[[Tensor, Tensor, Tensor], Tensor]  # support positions, labels, query positions -> slots


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


def correct(guess: Row, source: TextSet, episodes: int, shots: Sequence[int] = (1, 5)) -> list[dict[str, Any]]:
    """Counts the right queries of every test episode. guess: a Row."""
    results = []
    for way, shot in [task for task in TEST if task[1] in shots]:
        drawn = EpisodeSampler(source, way, shot, TEST_QUERY).layout(0, episodes)
        parts = zip(drawn.support, drawn.support_y, drawn.query, drawn.query_y, strict=True)
        counts = [int((guess(s, s_y, q) == q_y).sum()) for s, s_y, q, q_y in parts]
        results.append({"way": way, "shot": shot, "query": TEST_QUERY, "correct": counts})
    return results


def nearest_mean(table: np.ndarray | Tensor) -> Row:
    """Returns the row that takes the class mean with the largest cosine. table: [C*n, D]."""
    rows = F.normalize(torch.as_tensor(np.asarray(table), dtype=torch.float32), dim=-1)

    def guess(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        means = F.one_hot(labels).T.float() @ rows[support]
        return (rows[query] @ F.normalize(means, dim=-1).T).argmax(1)

    return guess


def tfidf(source: TextSet, fitted_on: Sequence[str] | None, head: str) -> Row:
    """Returns a row of TF-IDF. fitted_on: sentences that give the weights of words; None: the support of each task alone."""
    sentences = _flat(source)
    words = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    table = None if fitted_on is None else words.fit(fitted_on).transform(sentences).toarray()

    def guess(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        if table is None:
            words.fit([sentences[i] for i in support])
            s, q = (words.transform([sentences[i] for i in part]).toarray() for part in (support, query))
        else:
            s, q = table[support], table[query]
        if head == "logistic":
            return torch.from_numpy(LogisticRegression(C=10).fit(s, labels.numpy()).predict(q))
        both = nearest_mean(np.concatenate([s, q]))
        return both(torch.arange(len(s)), labels, torch.arange(len(s), len(s) + len(q)))

    return guess


def with_pairs(table: np.ndarray, steps: int = 50) -> Row:
    """Returns SetFit in small (Tunstall et al. 2022) over frozen vectors: a linear map by pairs, then logistic regression.

    The real one fine-tunes the sentence encoder; here only a map [D, D] that starts at the identity is trained.
    """
    rows = torch.as_tensor(table, dtype=torch.float32)

    def guess(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        z, same = rows[support], (labels[:, None] == labels).float()
        first, second = torch.triu_indices(len(z), len(z), 1)
        matrix = nn.Parameter(torch.eye(z.shape[1]))
        optimiser = torch.optim.Adam([matrix], lr=1e-3)
        for _ in range(steps):
            moved = F.normalize(z @ matrix, dim=-1)
            loss = ((moved[first] * moved[second]).sum(-1) - same[first, second]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            s, q = (F.normalize(part @ matrix, dim=-1).numpy() for part in (z, rows[query]))
        return torch.from_numpy(LogisticRegression(C=10).fit(s, labels.numpy()).predict(q))

    return guess


def _flat(source: TextSet) -> list[str]:
    most = source.images.shape[1]
    return [s for row in source.sentences for s in [*row, *[""] * (most - len(row))]]


def plain_rows(source: TextSet, base: TextSet, vectors: np.ndarray | None) -> dict[str, tuple[Row, tuple[int, ...]]]:
    """Returns the rows that need no training, each with the shots for which it is there."""
    train = [s for row in base.sentences for s in row]
    found: dict[str, tuple[Row, tuple[int, ...]]] = {
        "TF-IDF of the support, nearest mean": (tfidf(source, None, "mean"), (1, 5)),
        "TF-IDF of training intents, nearest mean": (tfidf(source, train, "mean"), (1, 5)),
        "TF-IDF of training intents, logistic": (tfidf(source, train, "logistic"), (1, 5)),
    }
    if vectors is not None:
        found["MiniLM, nearest mean"] = nearest_mean(vectors), (1, 5)
        found["MiniLM, pairs and logistic"] = with_pairs(vectors), (5,)
    return found


def trained_rows(
    label: str, seed: int, sources: dict[str, TextSet], base: TextSet, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Trains a fresh learner on the training intents and tests it on every source. A method with a head: on intents only."""
    method, settings, tasks = TRAINED[label]
    torch.manual_seed(seed)
    learner = make(method, **settings)
    sampler = EpisodeSampler(base.split("train"), tasks.get("way", 10), tasks.get("shot", 5), 5, seed=seed)
    validation = EpisodeSampler(base.split("val"), 5, tasks.get("shot", 5), 5)
    fit(
        learner, sampler, steps=options.steps, lr=tasks.get("lr", 1e-3), validation=validation,
        validate_every=max(options.steps // 4, 1), validation_episodes=50, progress=False,
    )  # fmt: skip
    found = []
    for name, source in sources.items():
        if method == "maml" and name != "intents":
            continue
        if method == "maml":
            results = []
            for way, shot in TEST:
                per = evaluate(learner, EpisodeSampler(source, way, shot, TEST_QUERY), options.episodes).per_episode
                counts = (per * way * TEST_QUERY).round().int().tolist()
                results.append({"way": way, "shot": shot, "query": TEST_QUERY, "correct": counts})
        else:
            table = embed_all(learner, source.images.flatten(0, 1))
            with torch.no_grad():
                results = correct(
                    lambda s, y, q, t=table: learner.score(t[s], y, t[q], 5).argmax(1), source, options.episodes
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
        "protocol": f"5-way, {TEST_QUERY} queries a class, inductive; test episodes of seed 0, the same for every row; `correct` "
        "counts the right queries of each episode; trained rows saw the training intents only, best of four validations",
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
                _keep(
                    [
                        {
                            "label": label,
                            "data": name,
                            "seed": 0,
                            "results": correct(guess, source, options.episodes, shots),
                        }
                    ],
                    rows,
                    head,
                    options,
                )
    for seed in range(options.seeds):
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
