"""The verdicts of all trained methods on a query, given a handful of drawings, with reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fsl_classroom.widgets.alphabets import Alphabet
from fsl_course.episodes import Episode
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import predict
from fsl_course.weights.checkpoints import pretrained

COMPARING = ("prototypical", "siamese", "matching", "relation", "transfer")  # these work with any number of ways
TITLES = {
    "prototypical": "Prototypical network",
    "siamese": "Siamese network",
    "matching": "Matching network",
    "relation": "Relation network",
    "transfer": "Transfer (frozen features)",
    "maml": "MAML",
}
WAY = 5  # number of ways of the shipped MAML weights
_SHARE, _SCORE, _COSINE = "share (all sum to 1)", "score of each pair (0 to 1)", "cosine (-1 to 1)"


@dataclass(frozen=True)
class Verdict:
    """The verdict of one method on one query.

    values:    one for each character; the largest is the guess. measure: what the values measure
    reason:    the reason in one sentence
    attention: for a Matching network, (slot, number of the drawing, weight), the largest weights first
    """

    method: str
    values: tuple[float, ...]
    measure: str
    reason: str
    attention: tuple[tuple[int, int, float], ...] = ()

    @property
    def guess(self) -> int:
        """The slot with the largest value."""
        return max(range(len(self.values)), key=self.values.__getitem__)


class Judges:
    """The trained methods, loaded at first use. Each of them embeds each drawing once."""

    def __init__(self) -> None:
        self._learners: dict[str, FewShotLearner] = {}
        self._embedded: dict[str, dict[bytes, Tensor]] = {method: {} for method in COMPARING}
        self._adapted: tuple[tuple, dict[str, Tensor]] | None = None  # MAML's parameters for the last drawings

    @property
    def ready(self) -> bool:
        """True if the networks are loaded."""
        return bool(self._learners)

    def load(self) -> None:
        """Loads the shipped weights; later calls do nothing."""
        if not self.ready:
            learners = {method: pretrained(method, "glyphs") for method in COMPARING}
            self._learners = learners | {f"maml {k}": pretrained("maml", "glyphs", WAY, k) for k in (1, 5)}

    @torch.no_grad()
    def judge(self, alphabet: Alphabet, query: Tensor) -> tuple[dict[str, Verdict], dict[str, str]]:
        """Judges a query. alphabet: two characters or more, each with drawings; query: uint8 [1, 28, 28].

        -> verdicts by method, and reasons by method for methods that cannot judge yet. Shots may differ between characters.
        """
        self.load()
        names = list(alphabet)
        drawings = [drawing for shots in alphabet.values() for drawing in shots]
        labels = torch.tensor([slot for slot, shots in enumerate(alphabet.values()) for _ in shots])
        verdicts = {method: self._compare(method, names, drawings, labels, query) for method in COMPARING}
        if len(names) == WAY:
            return verdicts | {"maml": self._adapt(drawings, labels, query)}, {}
        change = f"add {WAY - len(names)}" if len(names) < WAY else f"take away {len(names) - WAY}"
        waits = f"waits: its head was trained for {WAY} characters and you have {len(names)} with drawings; {change}."
        return verdicts, {"maml": waits}

    def _embeddings(self, method: str, pictures: Sequence[Tensor]) -> Tensor:
        """Embeds pictures -> [B, D]. Keeps only the embeddings of this call for the next one."""
        known, keys = self._embedded[method], [picture.numpy().tobytes() for picture in pictures]
        fresh = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in known}
        if fresh:
            made = self._learners[method].embed(_batch(list(fresh.values())))
            known = known | dict(zip(fresh, made, strict=True))
        self._embedded[method] = {key: known[key] for key in keys}
        return torch.stack([known[key] for key in keys])

    def _compare(self, method: str, names: list[str], drawings: list[Tensor], labels: Tensor, query: Tensor) -> Verdict:
        learner, rows = self._learners[method], self._embeddings(method, [*drawings, query])
        support, asked = rows[:-1], rows[-1:]
        logits = learner.score(support, labels, asked, len(names))[0]
        attention: tuple[tuple[int, int, float], ...] = ()
        if method == "prototypical":
            values, measure = logits.softmax(0), _SHARE
            reason = f"Squared distance to the nearest prototypes: {_best(names, -logits, '{:.1f}', smallest=True)}."
        elif method == "matching":
            values, measure = logits.exp(), _SHARE
            weights = learner.similarities(support, asked).softmax(-1)[0]
            first = [int((labels == slot).nonzero()[0]) for slot in range(len(names))]
            order = weights.argsort(descending=True, stable=True)[:3].tolist()
            attention = tuple((int(labels[i]), i - first[int(labels[i])], float(weights[i])) for i in order)
            looked = ", ".join(f"drawing {number + 1} of {names[slot]} {w:.2f}" for slot, number, w in attention)
            reason = f"Attention goes to {looked}."
        elif method == "transfer":
            values, measure = logits, _COSINE
            reason = f"Cosine to the mean features of each character: {_best(names, logits, '{:.2f}')}."
        else:
            values, measure = logits.sigmoid(), _SCORE
            what = "Log-odds of “the same character”" if method == "siamese" else "Relation logits"
            how = "mean over its drawings" if method == "siamese" else "the whole comparison is learned"
            reason = f"{what}, {how}: {_best(names, logits, '{:+.1f}')}."
        return Verdict(method, tuple(values.tolist()), measure, reason, attention)

    def _adapt(self, drawings: list[Tensor], labels: Tensor, query: Tensor) -> Verdict:
        shots = labels.bincount().tolist()
        trained = 1 if sum(shots) / len(shots) < 3 else 5
        learner = self._learners[f"maml {trained}"]
        episode = Episode(_batch(drawings), labels, _batch([query]), torch.zeros(1).long(), torch.arange(WAY))
        key = (trained, tuple(labels.tolist()), *(drawing.numpy().tobytes() for drawing in drawings))
        if self._adapted is None or self._adapted[0] != key:
            self._adapted = key, learner.adapted(episode)
        values = predict(learner.model, self._adapted[1], episode)[0].softmax(0)
        steps = learner.steps if learner.test_steps is None else learner.test_steps
        reason = (
            f"{steps} gradient steps on your drawings change the whole network. Its start was trained for {WAY} "
            f"characters with {_drawings(trained)} each"
        )
        fits = all(shot == trained for shot in shots)
        reason += "." if fits else "; yours have other numbers of drawings: these are the nearest weights."
        return Verdict("maml", tuple(values.tolist()), _SHARE, reason)


def _batch(pictures: list[Tensor]) -> Tensor:
    """Stacks pictures uint8 [1, 28, 28] -> float [B, 1, 28, 28] in [0, 1]."""
    return torch.stack(pictures).float().div(255)


def _drawings(count: int) -> str:
    return "1 drawing" if count == 1 else f"{count} drawings"


def _best(names: list[str], values: Tensor, form: str, smallest: bool = False) -> str:
    order = values.argsort(descending=not smallest, stable=True)[:3].tolist()
    return ", ".join(f"{names[i]} {form.format(float(values[i]))}" for i in order)
