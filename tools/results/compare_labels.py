"""What are unlabelled pictures worth? Encoders trained with many labels, few and none, three seeds each, for lesson 17.

    OMP_NUM_THREADS=1 python -m tools.results.compare_labels

Writes data/labels_comparison.json. Every training takes the same number of steps of 100 pictures: 50 pictures and a warped copy
of each without labels, 20-way 1-shot 4-query episodes with labels. Takes a few minutes on one quiet core. Call it again after an
interruption: it keeps the rows that are there, and the weights in --work.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_course import EpisodeSampler, evaluate, fit, load_glyphs
from fsl_course.data import ImageSet
from fsl_course.episodes import Episode, PictureSampler, nameless, warped
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.baselines import PixelNearestNeighbour
from fsl_course.methods.prototypical import PrototypicalNetwork, squared_distances
from fsl_course.weights.checkpoints import load_file as load
from fsl_course.weights.checkpoints import load_weights, save_file
from fsl_course.weights.learners import make
from tools.results.rows import is_there, kept, write

OUT = Path(__file__).resolve().parents[2] / "data" / "labels_comparison.json"
WIDTH, PICTURES = 16, 100
LETTERS = (5, 10, 20, 50, 100, 916)
FEW = 20  # letters with labels in the three steps of Hu et al. 2022
WARPS: dict[str, tuple[float, dict[str, float]]] = {
    "no labels": (1.0, {}),
    "warp off": (0.0, {}),
    "without shift": (1.0, {"SHIFT": 0.0}),
    "without bend": (1.0, {"BEND": 0.0}),
    "without turn, shear and stretch": (1.0, {"TURN": 0.0, "SHEAR": 0.0, "SCALE": 0.0}),
}
TUNE_STEPS, TUNE_RATE, TUNE_COPIES, TUNE_EPISODES = 5, 0.0005, 4, 50


class Apart(PictureSampler):
    """The tasks of PictureSampler without collisions: labels see to it that the pictures show different letters."""

    def _draw(self, index: int) -> tuple[Tensor, ...]:
        drawn = EpisodeSampler(self.source, self.n_way, 1, self.n_query, seed=self.seed).layout(index, 1)
        place = drawn.support[0]
        support = self.source.images.flatten(0, 1)[place].to(self.dtype) / 255
        copies = warped(support.repeat(self.n_query, 1, 1, 1), Generator().manual_seed(index), self.strength)
        slots = torch.arange(self.n_way)
        return support, slots, copies, slots.repeat(self.n_query), place


def letters(source: ImageSet, count: int, seed: int) -> ImageSet:
    """Returns `count` letters of the source, drawn at random."""
    order = torch.randperm(len(source), generator=Generator().manual_seed(seed))
    return source.select(order[:count])


def episodes(source: ImageSet, seed: int) -> EpisodeSampler:
    """Returns labelled 1-shot episodes of 100 pictures, 20-way or with all the classes that there are."""
    way = min(20, len(source), PICTURES // 2)
    return EpisodeSampler(source, way, 1, min(PICTURES // way, int(source.counts.min())) - 1, seed=seed)


class Run:
    """One seed: makes each learner when it is asked for, and keeps its weights in a folder."""

    def __init__(self, source: ImageSet, seed: int, steps: int, work: Path) -> None:
        self.train, self.seed, self.steps, self.work = source.split("train"), seed, steps, work

    def fitted(self, label: str, method: str, sampler: Callable[[], Any], start: str = "", **settings: Any) -> Any:
        """Trains a learner, or takes its weights from the folder. start: the label of a learner whose encoder it begins with."""
        torch.manual_seed(self.seed)
        learner = make(method, width=WIDTH, **settings)
        path = self.work / f"{label.replace(' ', '_').replace(',', '')}-{self.seed}.safetensors"
        if path.exists():
            load_weights(learner, load(path)[0], path)
            return learner.eval()
        if start:
            learner.encoder.load_state_dict(self.made(start).encoder.state_dict())
        if fit(learner, sampler(), steps=self.steps, progress=False).interrupted:
            raise SystemExit(130)  # no row and no weights of half a training
        self.work.mkdir(parents=True, exist_ok=True)
        save_file(path, dict(learner.state_dict()), {"label": label, "seed": self.seed})
        return learner.eval()

    def made(self, label: str) -> FewShotLearner:
        """Returns the trained learner of a row."""
        way, seed, train = min(50, self.train.images.shape[:2].numel() // 2), self.seed, self.train
        if label == "pixels":
            return PixelNearestNeighbour()
        if label == "random":
            torch.manual_seed(seed)
            return make("prototypical", width=WIDTH).eval()
        if label in WARPS:
            strength, changed = WARPS[label]
            with patch.multiple(nameless, **changed) if changed else patch.object(nameless, "TURN", nameless.TURN):
                drawn = PictureSampler(train, way, 1, seed=seed, strength=strength)
                return self.fitted(label, "unsupervised", lambda: drawn)
        if label == "no collisions":
            return self.fitted(label, "unsupervised", lambda: Apart(train, min(way, len(train)), 1, seed=seed))
        if label == "NT-Xent":
            about = {"objective": "nt_xent", "temperature": 0.2}
            return self.fitted(label, "unsupervised", lambda: PictureSampler(train, way, 1, seed=seed), **about)
        count = int(label.split()[-2])
        start = "no labels" if label.startswith("no labels, then") else ""
        return self.fitted(label, "prototypical", lambda: episodes(letters(train, count, seed), seed), start)


def tuned(learner: FewShotLearner, episode: Episode, seed: int) -> FewShotLearner:
    """Fine-tunes a copy on one task (Hu et al. 2022): warped copies of the support have to find their prototypes."""
    net, generator = copy.deepcopy(learner.encoder).eval(), Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(net.parameters(), TUNE_RATE, momentum=0.9)
    for _ in range(TUNE_STEPS):
        copies = warped(episode.support_x.repeat(TUNE_COPIES, 1, 1, 1), generator)
        centres, queries = net(episode.support_x)[episode.support_y.argsort()], net(copies)
        loss = F.cross_entropy(-squared_distances(queries, centres), episode.support_y.repeat(TUNE_COPIES))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return PrototypicalNetwork(net)


def counts(learner: FewShotLearner, sampler: EpisodeSampler, tasks: int, tune: bool = False) -> list[int]:
    """Counts the right queries of every test episode; 1 shot."""
    if not tune:
        asked = sampler.n_way * sampler.n_query
        return (evaluate(learner, sampler, tasks).per_episode * asked).round().int().tolist()
    found = []
    for index, episode in enumerate(sampler.batch(0, tasks)):
        with torch.no_grad():
            logits = tuned_logits(learner, episode, index)
        found.append(int((logits.argmax(1) == episode.query_y).sum()))
    return found


def tuned_logits(learner: FewShotLearner, episode: Episode, index: int) -> Tensor:
    """Returns the logits of a learner that was fine-tuned on this task."""
    with torch.enable_grad():
        fresh = tuned(learner, episode, index)
    return fresh.eval()(episode)


def labels_of_rows() -> list[list[tuple[str, bool]]]:
    """Returns the main rows and the others: the label of a learner, and whether it is fine-tuned on every test task."""
    then = f"no labels, then {FEW} letters"
    plain = ["pixels", "random", "no labels", "warp off", *(f"{n} letters" for n in LETTERS), then, "no collisions"]
    tune = [("no labels", True), (then, True), (f"{FEW} letters", True)]
    more = ["NT-Xent", *[w for w in WARPS if w.startswith("without")]]
    return [[(label, False) for label in plain] + tune, [(label, False) for label in more]]


def main(argv: Sequence[str] | None = None, source: ImageSet | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=80, help="training steps (80)")
    parser.add_argument("--episodes", type=int, default=300, help="test episodes (300)")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds 0, 1, ... (3)")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=Path("runs/labels"), help="folder for the weights (runs/labels)")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    head = {
        "command": "OMP_NUM_THREADS=1 python -m tools.results.compare_labels"
        f" --steps {options.steps} --episodes {options.episodes} --seeds {options.seeds}",
        "protocol": f"Glyphs, Conv4-{WIDTH}, {PICTURES} pictures a step; every fourth test letter; inductive; "
        "5-way 1-shot, 15 queries a class; test episodes of seed 0, the same for every row, the first "
        f"{TUNE_EPISODES} for what is tuned; `correct` counts the right queries of each episode",
        "train": {"steps": options.steps, "pictures": PICTURES},
        "episodes": options.episodes,
    }
    rows = kept(options.out, head)
    source = load_glyphs() if source is None else source
    letters_of_test = source.split("test")
    some = letters_of_test.select(range(0, len(letters_of_test), 4 if len(letters_of_test) > 20 else 1))
    test = EpisodeSampler(some, 5, 1, 15 if source.images.shape[1] >= 16 else 3)
    wanted = [(seed, *row) for part in labels_of_rows() for seed in range(options.seeds) for row in part]
    for seed, label, tune in wanted:
        name = f"{label}, tuned" if tune else label
        if is_there(rows, name, seed) or (seed and label == "pixels"):
            continue
        learner = Run(source, seed, options.steps, options.work).made(label)
        tasks = min(TUNE_EPISODES, options.episodes) if tune else options.episodes
        rows.append({"label": name, "seed": seed, "correct": counts(learner, test, tasks, tune)})
        write(options.out, head, rows)
        asked = tasks * test.n_way * test.n_query
        print(f"{name:36s} seed {seed}  {sum(rows[-1]['correct']) / asked:.1%}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
