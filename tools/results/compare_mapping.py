"""Trains ProtoNet, ridge regression and the hypernetwork on the same episodes, three seeds each, for lesson 12.

    OMP_NUM_THREADS=1 python -m tools.results.compare_mapping

Writes data/mapping_comparison.json. Every encoder is tested twice: with its own map from support to classifier, and with the map
frozen at the prototypes. Takes a few minutes on one core. Call it again after an interruption: it keeps the rows that are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsl_course import EpisodeSampler, fit, load_glyphs
from fsl_course.data import ImageSet
from fsl_course.evaluation import embed_all
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.weights.learners import make, settings_of
from tools.results.rows import is_there, kept, write

OUT = Path(__file__).resolve().parents[2] / "data" / "mapping_comparison.json"
WIDTH = 32
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ProtoNet": ("prototypical", {}),
    "Ridge": ("ridge", {}),
    "Hypernetwork": ("hypernetwork", {}),
    "Hypernetwork + FiLM": ("hypernetwork", {"film": True}),
}
TRAIN = {"way": 20, "shot": 1, "query": 5}
TEST = ((5, 1), (5, 5), (20, 5))
TEST_QUERY = 15


def run(label: str, seed: int, source: ImageSet, steps: int, episodes: int) -> list[dict[str, Any]]:
    """Trains a fresh learner and returns its rows: with its own map, and with the map frozen at the prototypes."""
    method, settings = LEARNERS[label]
    torch.manual_seed(seed)
    learner = make(method, **settings_of(method, source), width=WIDTH, **settings)
    sampler = EpisodeSampler(source.split("train"), TRAIN["way"], TRAIN["shot"], TRAIN["query"], seed=seed)
    fit(learner, sampler, steps=steps, progress=False)
    parameters = sum(p.numel() for p in learner.parameters())
    learned = {name: round(getattr(learner, name), 4) for name in ("l2", "scale") if method == "ridge"}
    readers: dict[str, Any] = {label: learner}
    if method != "prototypical":
        readers[f"{label}, frozen"] = PrototypicalNetwork(learner.encoder)
    about = {"seed": seed, "parameters": parameters, "learned": learned}
    test = source.split("test")
    table = embed_all(learner, test.images.flatten(0, 1))  # once for all tests
    return [
        {"label": name, **about, "results": _counts(reader, table, test, episodes)} for name, reader in readers.items()
    ]


@torch.no_grad()
def _counts(reader: Any, table: Tensor, test: ImageSet, episodes: int) -> list[dict[str, Any]]:
    """Counts the right queries of every test episode. reader: has `score`; table: embeddings of all test pictures [C*n, D]."""
    results = []
    for way, shot in TEST:
        correct: list[int] = []
        for start in range(0, episodes, 50):
            drawn = EpisodeSampler(test, way, shot, TEST_QUERY).layout(start, min(50, episodes - start))
            logits = reader.score(table[drawn.support], drawn.support_y, table[drawn.query], way)
            correct += (logits.argmax(-1) == drawn.query_y).sum(-1).tolist()
        results.append({"way": way, "shot": shot, "query": TEST_QUERY, "correct": correct})
    return results


def main(argv: Sequence[str] | None = None, source: ImageSet | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="training episodes (200)")
    parser.add_argument("--episodes", type=int, default=300, help="test episodes of each kind (300)")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds 0, 1, ... (3)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    head = {
        "command": "OMP_NUM_THREADS=1 python -m tools.results.compare_mapping"
        f" --steps {options.steps} --episodes {options.episodes} --seeds {options.seeds}",
        "protocol": f"Glyphs, Conv4-{WIDTH}; test classes; inductive; test episodes of seed 0, the same for every row; `correct` "
        "counts the right queries of each episode; frozen: the same encoder, read by the nearest prototype; learned: lambda "
        "and scale of the ridge after training",
        "train": TRAIN | {"steps": options.steps},
        "episodes": options.episodes,
    }
    rows = kept(options.out, head)
    source = load_glyphs() if source is None else source
    for seed in range(options.seeds):
        for label in LEARNERS:
            if is_there(rows, label, seed):
                continue
            found = run(label, seed, source, options.steps, options.episodes)
            rows += found
            write(options.out, head, rows)
            for row in found:
                means = [sum(r["correct"]) / (options.episodes * r["way"] * r["query"]) for r in row["results"]]
                print(f"{row['label']:28s} seed {seed}  " + "  ".join(f"{m:.1%}" for m in means), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
