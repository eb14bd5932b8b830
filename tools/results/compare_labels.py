"""What are unlabelled pictures worth? Encoders trained with many labels, few and none, three seeds each, for lesson 17.

    OMP_NUM_THREADS=1 python -m tools.results.compare_labels

Writes data/labels_comparison.json. Every training takes the same number of steps of 100 pictures: without labels 50 pictures and
a warped copy of each; 20-way 1-shot 4-query episodes of labelled letters or of clusters; for MAML ten tasks of five pictures and
a copy of each. Rows "twice as long" take twice the steps; so do those that build on a net without labels. Takes a quarter of an
hour on one quiet core. Call it again after an interruption: it keeps the rows that are there, and the weights in --work.
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
from sklearn.cluster import KMeans
from torch import Generator, Tensor

from fsl_course import EpisodeSampler, evaluate, fit, load_glyphs
from fsl_course.data import ImageSet
from fsl_course.episodes import Episode, PictureSampler, nameless, warped
from fsl_course.evaluation import embed_all
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
CLUSTERS = 500  # a round number, set before any run; there are 916 letters, and no label was looked at to choose it
INNER_STEPS = 3  # of MAML
TWICE = ", twice as long"
WARPS: dict[str, tuple[float, dict[str, float]]] = {
    "no labels": (1.0, {}),
    "warp off": (0.0, {}),
    "quarter of the warp": (0.25, {}),
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


class Warped(EpisodeSampler):
    """Labelled episodes of which every picture is warped."""

    def batch(self, start: int, tasks: int) -> Episode:
        drawn = super().batch(start, tasks)
        for t in range(tasks):
            generator = Generator().manual_seed(start + t)
            for pictures in (drawn.support_x, drawn.query_x):
                pictures[t] = warped(pictures[t], generator)
        return drawn


def clusters(source: ImageSet, embeddings: Tensor, count: int, least: int, seed: int) -> ImageSet:
    """Returns the clusters that k-means finds among all pictures as classes (Hsu et al. 2019), without the smallest.

    least: pictures that a cluster must have; embeddings: [M, D], of source.images.flatten(0, 1)
    """
    found = torch.from_numpy(KMeans(count, n_init=1, random_state=seed).fit_predict(embeddings.numpy()))
    parts = [part for k in range(count) if len(part := (found == k).nonzero()[:, 0]) >= least]
    images = torch.nn.utils.rnn.pad_sequence([source.images.flatten(0, 1)[part] for part in parts], batch_first=True)
    names = [f"cluster {k}" for k in range(len(parts))]
    return ImageSet(images, torch.tensor([len(part) for part in parts]), names, names, name="clusters")


def letters(source: ImageSet, count: int, seed: int) -> ImageSet:
    """Returns `count` letters of the source, drawn at random."""
    order = torch.randperm(len(source), generator=Generator().manual_seed(seed))
    return source.select(order[:count])


def episodes(source: ImageSet, seed: int, kind: type[EpisodeSampler] = EpisodeSampler) -> EpisodeSampler:
    """Returns labelled 1-shot episodes of 100 pictures, 20-way or with all the classes that there are."""
    way = min(20, len(source), PICTURES // 2)
    return kind(source, way, 1, min(PICTURES // way, int(source.counts.min())) - 1, seed=seed)


class Run:
    """One seed: makes each learner when it is asked for, and keeps its weights in a folder."""

    def __init__(self, source: ImageSet, seed: int, steps: int, work: Path) -> None:
        self.train, self.seed, self.steps, self.work = source.split("train"), seed, steps, work

    def fitted(
        self, label: str, method: str, sampler: Callable[[], Any], start: str = "", tasks: int = 1, **settings: Any
    ) -> Any:
        """Trains a learner, or takes its weights from the folder. start: the label of a learner whose encoder it begins with."""
        torch.manual_seed(self.seed)
        learner = make(method, width=WIDTH, **settings)
        path = self.work / f"{label.replace(' ', '_').replace(',', '')}-{self.seed}.safetensors"
        if path.exists():
            load_weights(learner, load(path)[0], path)
            return learner.eval()
        if start:
            learner.encoder.load_state_dict(self.made(start).encoder.state_dict())
        steps = self.steps * (2 if label.endswith(TWICE) else 1)
        if fit(learner, sampler(), steps=steps, tasks=tasks, progress=False).interrupted:
            raise SystemExit(
                f"Stopped within {label}, seed {self.seed}. Call this again: it goes on with the rows that are missing."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(path, learner.state_dict(), {})
        return learner.eval()

    def clusters(self) -> EpisodeSampler:
        """Returns episodes of the classes that the embeddings without labels propose."""
        heap = self.train.images.flatten(0, 1)
        least = PICTURES // min(20, CLUSTERS)  # pictures of a class in an episode
        classes = clusters(self.train, embed_all(self.made("no labels"), heap), CLUSTERS, least, self.seed)
        return episodes(classes, self.seed)

    def nameless(self, label: str, way: int) -> FewShotLearner:
        """Returns the trained learner of a row with tasks of single pictures."""
        seed, train, plain = self.seed, self.train, label.removesuffix(TWICE)
        if plain == "UMTRA":
            drawn = PictureSampler(train, 5, 1, seed=seed)
            return self.fitted(label, "maml", lambda: drawn, tasks=PICTURES // 10, inner_steps=INNER_STEPS)
        if plain == "no collisions":
            return self.fitted(label, "unsupervised", lambda: Apart(train, min(way, len(train)), 1, seed=seed))
        if plain == "NT-Xent":
            about = {"objective": "nt_xent", "temperature": 0.2}
            return self.fitted(label, "unsupervised", lambda: PictureSampler(train, way, 1, seed=seed), **about)
        strength, changed = WARPS[plain]
        with patch.multiple(nameless, **changed) if changed else patch.object(nameless, "TURN", nameless.TURN):
            drawn = PictureSampler(train, way, 1, seed=seed, strength=strength)
            return self.fitted(label, "unsupervised", lambda: drawn)

    def made(self, label: str) -> FewShotLearner:
        """Returns the trained learner of a row."""
        way, seed, train = min(50, self.train.images.shape[:2].numel() // 2), self.seed, self.train
        if label == "pixels":
            return PixelNearestNeighbour()
        if label in ("random", "random, MAML"):
            torch.manual_seed(seed)
            about = {"inner_steps": INNER_STEPS} if label.endswith("MAML") else {}
            return make("maml" if about else "prototypical", width=WIDTH, **about).eval()
        if label == "CACTUs":
            return self.fitted(label, "prototypical", self.clusters)
        if "letters" not in label:
            return self.nameless(label, way)
        kind = Warped if label.endswith(", warped") else EpisodeSampler
        count = int(label.split(" letters")[0].split()[-1])
        start = "no labels" if label.startswith("no labels, then") else ""
        return self.fitted(label, "prototypical", lambda: episodes(letters(train, count, seed), seed, kind), start)


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
    last = ["CACTUs", "quarter of the warp", f"{FEW} letters, warped", "UMTRA", "random, MAML"]
    last += [f"no labels{TWICE}", f"{FEW} letters{TWICE}"]
    return [
        [(label, False) for label in plain] + tune,
        [(label, False) for label in more],
        [(label, False) for label in last],
    ]


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
