"""What breaks ProtoNet, Matching, Ridge and MAML, and which centres resist: one table on Glyphs, for lesson 22.

    OMP_NUM_THREADS=1 python -m tools.results.compare_trust

Writes data/trust_comparison.json. Every row is one learner, one number of shots and one attack, on the same test episodes of the
shipped weights. Poison is made from 4 queries of each class; `own` counts right answers to these, `fresh` to 6 others of each
class, which no attack has seen. A fifth of the support is one picture of each class at 5 shots and two at 10; at 1 shot it is a
single picture, and "one of each" is all five. Learners "mean of ridge" and the like classify by that kind of centre on the
embeddings of that method's weights, and "unit mean of ridge" on embeddings of length one.
It takes twenty minutes on one quiet core. Call it again after an interruption: it keeps the rows that are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_course import EpisodeSampler, load_glyphs, pretrained
from fsl_course.data import ImageSet
from fsl_course.episodes import Episode
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.prototypical import PrototypicalNetwork, squared_distances
from fsl_course.trust.attacks import CENTRES, flipped, noisy, perturbed_queries, poisoned, robust_prototypes
from tools.results.rows import is_there, kept, write

OUT = Path(__file__).resolve().parents[2] / "data" / "trust_comparison.json"
METHODS, SHOTS, WAY = ("prototypical", "matching", "ridge", "maml"), (1, 5, 10), 5
CRAFT, FRESH = 4, 6  # queries of each class: with 10 shots they are all 20 drawings
SMALL, LARGE = 0.1, 0.3
ATTACKS = (
    "nothing", "one label flipped", "one picture inverted",
    f"noise {LARGE}, a fifth", f"PGD {LARGE}, a fifth", f"noise {SMALL}, all", f"PGD {SMALL}, all",
    f"noise {SMALL}, queries", f"PGD {SMALL}, queries",
)  # fmt: skip
EACH = (f"noise {LARGE}, one of each", f"PGD {LARGE}, one of each")  # at one shot; with more it is a fifth, or less
TRANSFER = f"PGD {LARGE}, a fifth, made for prototypical"
DEFENDED = ("nothing", "a fifth flipped", "one picture inverted", f"PGD {LARGE}, a fifth",
            f"PGD {LARGE}, a fifth, made for the mean")  # fmt: skip


class ByCentre(PrototypicalNetwork):
    """A prototypical network with another kind of centre, one of `CENTRES`; after "unit " on embeddings of length one."""

    def __init__(self, encoder: torch.nn.Module, kind: str) -> None:
        super().__init__(encoder)
        self.unit, self.kind = kind.startswith("unit "), kind.removeprefix("unit ")

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        if self.unit:  # squared distances are at most 4 then, so they are multiplied to make sure answers possible
            support, query = F.normalize(support, dim=1), F.normalize(query, dim=1)
        centres = robust_prototypes(support, labels, n_way, self.kind)
        return (-10.0 if self.unit else -1.0) * squared_distances(query, centres)


def halves(episode: Episode) -> tuple[Episode, Episode]:
    """Returns the task with the queries that an attack may use, and with those that judge it."""
    own = torch.zeros(len(episode.query_y), dtype=torch.bool)
    for k in range(episode.n_way):
        own[(episode.query_y == k).nonzero()[:CRAFT, 0]] = True
    first, second = (replace(episode, query_x=episode.query_x[m], query_y=episode.query_y[m]) for m in (own, ~own))
    return first, second


def a_fifth(episode: Episode) -> Tensor:
    """Returns a fifth of the support rows: the first of each class, or at one shot the first row."""
    shots = len(episode.support_y) // episode.n_way
    if shots == 1:
        return torch.tensor([0])
    return torch.cat([(episode.support_y == k).nonzero()[: shots // 5, 0] for k in range(episode.n_way)])


def attacked(attack: str, learner: FewShotLearner, episode: Episode, seed: int, maker: FewShotLearner) -> Episode:
    """Returns the task after the attack. maker: the learner for which poison is made."""
    craft, generator = halves(episode)[0], Generator().manual_seed(seed)
    kind, *where = attack.split(", ")
    every = where == ["all"] or (where == ["one of each"] and len(episode.support_y) == episode.n_way)
    rows = torch.arange(len(episode.support_y)) if every else a_fifth(episode)
    if kind == "nothing":
        return episode
    if kind.startswith("one"):
        rows = torch.randint(len(episode.support_y), (1,), generator=generator)
    if "flipped" in kind:
        return replace(episode, support_y=flipped(episode.support_y, rows, episode.n_way, generator))
    if "inverted" in kind:
        return replace(episode, support_x=episode.support_x.index_copy(0, rows, 1 - episode.support_x[rows]))
    epsilon = float(kind.split()[1])
    if where == ["queries"]:
        if kind.startswith("PGD"):
            return perturbed_queries(learner, episode, epsilon)
        every = torch.arange(len(episode.query_y))
        moved = noisy(replace(episode, support_x=episode.query_x), every, epsilon, generator)
        return replace(episode, query_x=moved.support_x)
    if kind.startswith("noise"):
        return noisy(episode, rows, epsilon, generator)
    return replace(episode, support_x=poisoned(maker, craft, rows, epsilon).support_x)


@torch.no_grad()
def right(learner: FewShotLearner, episode: Episode) -> int:
    """Counts right answers. A class whose only label was flipped away has no picture, so it wins no query."""
    present = episode.support_y.unique()
    if len(present) < episode.n_way and not hasattr(learner, "adapted"):
        slot = torch.full((episode.n_way,), -1)
        slot[present] = torch.arange(len(present))
        fewer = replace(episode, support_y=slot[episode.support_y], classes=episode.classes[present])
        return int((present[learner(fewer).argmax(1)] == episode.query_y).sum())
    return int((learner(episode).argmax(1) == episode.query_y).sum())


def learner_of(name: str, shots: int) -> FewShotLearner:
    """Returns the shipped learner of a name, e.g. "maml" or "median of ridge"; MAML's five-shot weights serve ten shots, too."""
    kind, _, method = name.rpartition(" of ")
    options = {"way": WAY, "shot": min(shots, 5)} if method == "maml" else {}
    learner = pretrained(method, "glyphs", **options)
    return (ByCentre(learner.encoder, kind) if kind else learner).eval()


def run(name: str, shots: int, attack: str, episodes: int, source: ImageSet) -> dict[str, Any]:
    """Counts right answers to the queries that made the poison and to fresh ones, in every episode."""
    learner = learner_of(name, shots)
    maker = learner
    if attack.endswith("made for prototypical"):
        maker = learner_of("prototypical", shots)
    elif attack.endswith("made for the mean"):
        maker = learner_of(f"mean of {name.rpartition(' of ')[2]}", shots)
    sampler, found = EpisodeSampler(source, WAY, shots, CRAFT + FRESH, seed=3), {"own": [], "fresh": []}
    for i in range(episodes):
        for key, part in zip(found, halves(attacked(attack, learner, sampler[i], i, maker)), strict=True):
            found[key].append(right(learner, part))
    return found


def rows_to_measure(only: Sequence[str]) -> list[tuple[str, int, str]]:
    """Returns learner, shots and attack of every row. Kinds of centre are compared at five shots."""
    todo = [(name, k, attack) for name in METHODS for k in SHOTS for attack in ATTACKS]
    todo += [(name, 1, attack) for name in METHODS for attack in EACH]
    todo += [(name, 5, TRANSFER) for name in METHODS[1:]]
    kinds = (*CENTRES, "unit mean", "unit geometric")
    todo += [(f"{kind} of {m}", 5, attack) for m in METHODS[:3] for kind in kinds for attack in DEFENDED]
    slow = [row for row in todo if row[0] == "maml"]
    todo = [row for row in todo if row[0] != "maml" and not (row[0].startswith("mean of") and row[2] == DEFENDED[-1])]
    return [row for row in todo + slow if not only or row[0] in only]


def main(argv: Sequence[str] | None = None, source: ImageSet | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=60, help="test episodes; a third of them for MAML (60)")
    parser.add_argument("--only", nargs="*", default=[], help="learners to measure (all)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    head = {
        "command": f"OMP_NUM_THREADS=1 python -m tools.results.compare_trust --episodes {options.episodes}",
        "protocol": "Glyphs, test letters, 5-way, shipped weights, inductive; 10 steps of PGD; the same episodes in every row",
        "queries": {"own": WAY * CRAFT, "fresh": WAY * FRESH},
        "episodes": options.episodes,
    }
    rows = kept(options.out, head, same=("episodes",))
    test = (load_glyphs() if source is None else source).split("test")
    for name, shots, attack in rows_to_measure(options.only):
        label = f"{name}, {shots} shots: {attack}"
        if is_there(rows, label, 0):
            continue
        count = options.episodes // (3 if name == "maml" else 1)
        found = run(name, shots, attack, count, test)
        about = {"label": label, "seed": 0, "learner": name, "shots": shots, "attack": attack}
        rows.append({**about, **found})
        write(options.out, head, rows)
        own, fresh = (sum(found[key]) / (count * head["queries"][key]) for key in found)
        print(f"{label:75s}{own:7.1%}{fresh:7.1%}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
