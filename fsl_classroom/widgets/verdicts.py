"""The verdicts of all trained methods on a query, given a handful of drawings, with reasons."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fsl_classroom.widgets.alphabets import Alphabet
from fsl_course import FewShotClassifier
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
    """The trained methods, loaded at first use. Each of them reads the drawings once, and again only after they have changed."""

    def __init__(self) -> None:
        self._classifiers: dict[str, FewShotClassifier] = {}
        self._read: dict[str, tuple[list[str], Tensor]] = {}  # the drawings that each has read, with their slots

    @property
    def ready(self) -> bool:
        """True if the networks are loaded."""
        return bool(self._classifiers)

    def load(self) -> None:
        """Loads the shipped weights; later calls do nothing."""
        if not self.ready:
            learners = {method: pretrained(method, "glyphs") for method in COMPARING}
            learners |= {f"maml {k}": pretrained("maml", "glyphs", WAY, k) for k in (1, 5)}
            self._classifiers = {name: FewShotClassifier(learner) for name, learner in learners.items()}

    @torch.no_grad()
    def judge(self, alphabet: Alphabet, query: Tensor) -> tuple[dict[str, Verdict], dict[str, str]]:
        """Judges a query. alphabet: two characters or more, each with drawings; query: uint8 [1, 28, 28].

        -> verdicts by method, and reasons by method for methods that cannot judge yet. Shots may differ between characters.
        """
        self.load()
        names = list(alphabet)
        drawings = torch.stack([drawing for shots in alphabet.values() for drawing in shots])
        slots = [f"{slot:02}" for slot, shots in enumerate(alphabet.values()) for _ in shots]  # classes keep this order
        verdicts = {
            method: _compare(method, names, self._taught(method, drawings, slots), query) for method in COMPARING
        }
        if len(names) == WAY:
            shots = [len(shots) for shots in alphabet.values()]
            trained = 1 if sum(shots) / WAY < 3 else 5
            taught = self._taught(f"maml {trained}", drawings, slots)
            return verdicts | {"maml": _adapted(taught, trained, shots, query)}, {}
        change = f"add {WAY - len(names)}" if len(names) < WAY else f"take away {len(names) - WAY}"
        waits = f"waits: its head was trained for {WAY} characters and you have {len(names)} with drawings; {change}."
        return verdicts, {"maml": waits}

    def _taught(self, name: str, drawings: Tensor, slots: list[str]) -> FewShotClassifier:
        """Returns a classifier that has read these drawings. drawings: uint8 [S, 1, 28, 28]; slots: S names."""
        read = self._read.get(name)
        if read is None or read[0] != slots or not torch.equal(read[1], drawings):
            self._classifiers[name].fit(drawings, slots)
            self._read[name] = slots, drawings
        return self._classifiers[name]


def _compare(method: str, names: list[str], taught: FewShotClassifier, query: Tensor) -> Verdict:
    """Returns the verdict of a method that compares embeddings, with its reason."""
    logits = taught.decision_function(query[None])[0]
    attention: tuple[tuple[int, int, float], ...] = ()
    if method == "prototypical":
        values, measure = logits.softmax(0), _SHARE
        reason = f"Squared distance to the nearest prototypes: {_best(names, -logits, '{:.1f}', smallest=True)}."
    elif method == "matching":
        values, measure = logits.exp(), _SHARE
        similarities = taught.learner.similarities(taught.support_features_, taught.features(query[None]))
        attention = _largest(similarities.softmax(-1)[0], taught.labels_)
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


def _largest(weights: Tensor, labels: Tensor) -> tuple[tuple[int, int, float], ...]:
    """Returns the three largest weights [S] as (slot, number of the drawing, weight). labels: [S], sorted."""
    order = weights.argsort(descending=True, stable=True)[:3].tolist()
    first = [int((labels == slot).nonzero()[0]) for slot in labels.unique().tolist()]
    return tuple((int(labels[i]), i - first[int(labels[i])], float(weights[i])) for i in order)


def _adapted(taught: FewShotClassifier, trained: int, shots: list[int], query: Tensor) -> Verdict:
    """Returns MAML's verdict. trained: the drawings of each character that its start was trained for; shots: those there are."""
    values, learner = taught.predict_proba(query[None])[0], taught.learner
    steps = learner.steps if learner.test_steps is None else learner.test_steps
    reason = (
        f"{steps} gradient steps on your drawings change the whole network. Its start was trained for {WAY} "
        f"characters with {_drawings(trained)} each"
    )
    fits = all(shot == trained for shot in shots)
    reason += "." if fits else "; yours have other numbers of drawings: these are the nearest weights."
    return Verdict("maml", tuple(values.tolist()), _SHARE, reason)


def _drawings(count: int) -> str:
    return "1 drawing" if count == 1 else f"{count} drawings"


def _best(names: list[str], values: Tensor, form: str, smallest: bool = False) -> str:
    order = values.argsort(descending=not smallest, stable=True)[:3].tolist()
    return ", ".join(f"{names[i]} {form.format(float(values[i]))}" for i in order)
