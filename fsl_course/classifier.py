"""What is this picture? Any learner as a classifier by the conventions of scikit-learn: fit, predict, predict_proba, classes_."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.special import stdtrit
from torch import Tensor, nn

from fsl_course.data.pictures import Picture, Pictures, check_form, is_negative, listed, square_picture
from fsl_course.methods.base import FewShotLearner, check_labels
from fsl_course.support import read_support
from fsl_course.weights.checkpoints import CheckpointError, load_file, load_learner, load_weights, save_file
from fsl_course.weights.learners import SETTINGS, make, reads_sentences

_PARAMETERS = ("learner", "size", "channels", "invert", "threshold")
_IMAGES, _LABELS = "support/images", "support/labels"  # beside a learner's weights, whose names have no slash


class Neighbour(NamedTuple):
    """A support picture near a query: its class, its number in the order of `fit`, and its distance."""

    name: str
    index: int
    distance: float


class FewShotClassifier:
    """Names pictures by the few examples that `fit` is given.

    learner:   any FewShotLearner; it is never changed. Methods that compare embeddings serve any number of classes and shots,
               methods that adapt a head the number of classes that it was made for, in slots sorted by name
    size, channels: of the pictures that the learner takes. None: those it was made with; for a learner made by hand the
               channels of its first convolution, and the size of the first square tensor, or else 28
    invert:    "auto" looks at the support once: if most of its pictures are dark on light, they and all queries become their
               negatives (grey ones only). True: all; False: none. "auto" leaves tensors alone, which samplers give as they are
    threshold: the lowest best score (see `decision_function`) with which a picture still gets a name; `calibrate` finds one.
               None: every picture gets a name

    Pictures are a list of paths, PIL images, arrays [H, W] or [H, W, 3] and tensors [c, H, W], also mixed, or one tensor or array
    [S, c, H, W]: uint8, or floats in [0, 1], kept with 8 bits. They are brought to the size as `load_folder` does.

    After `fit`: classes_ (the names, sorted), threshold_, inverted_, support_images_ uint8 [S, c, H, W], labels_ int64 [S]
    (positions in classes_), support_features_ [S, D] (see `features`) and sources_ (S paths, None for pictures in memory).
    A learner that is trained further needs `fit` again.
    """

    def __init__(
        self,
        learner: FewShotLearner,
        *,
        size: int | None = None,
        channels: int | None = None,
        invert: bool | str = "auto",
        threshold: float | None = None,
    ) -> None:
        self.learner, self.size, self.channels = learner, size, channels
        self.invert, self.threshold = invert, threshold

    def __repr__(self) -> str:
        fitted = hasattr(self, "classes_")
        read = f"{len(self.labels_)} pictures of {', '.join(self.classes_)}" if fitted else "not fitted"
        return f"FewShotClassifier({type(self.learner).__name__}: {read})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Returns the arguments of the constructor, as scikit-learn's clone needs them."""
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **params: Any) -> FewShotClassifier:
        """Sets arguments of the constructor, which the next `fit` uses. Returns the classifier."""
        if unknown := [name for name in params if name not in _PARAMETERS]:
            raise ValueError(f"there is no parameter {unknown[0]!r}: choose from {', '.join(_PARAMETERS)}.")
        vars(self).update(params)
        return self

    def fit(self, pictures: Pictures, names: Sequence[str]) -> FewShotClassifier:
        """Reads the support: S pictures and their S names, at least two different ones; shots may differ. Returns the classifier.

        Raises TypeError, ValueError or FileNotFoundError for what it cannot use.
        """
        vars(self).pop("classes_", None)  # a fit that fails leaves nothing half fitted
        if not isinstance(self.learner, FewShotLearner):
            kind = type(self.learner).__name__
            raise TypeError(f'learner must be a FewShotLearner, e.g. pretrained("prototypical", "glyphs"); got {kind}.')
        if reads_sentences(self.learner):
            raise ValueError(
                "this learner reads sentences, and FewShotClassifier names pictures: call its score (lesson 20)."
            )
        pictures, names = listed(pictures), _checked_names(names)
        if len(pictures) != len(names):
            raise ValueError(f"fit needs a name for each picture; got {len(pictures)} pictures and {len(names)} names.")
        if len(classes := sorted(set(names))) < 2:
            raise ValueError(f"fit needs pictures of at least two classes; got {', '.join(classes) or 'none'}.")
        form = _form_of(self.learner, pictures, self.size, self.channels)
        check_form(*form, self.invert)
        self._form, self._auto = form, self.invert == "auto"
        images, inverted = self._images(pictures, self.invert)
        memory = (Tensor, np.ndarray, Image.Image)
        self.sources_ = [None if isinstance(picture, memory) else str(picture) for picture in pictures]
        self.threshold_, self.inverted_ = self.threshold, inverted
        return self._read(images, torch.tensor([classes.index(name) for name in names]), classes)

    def _read(self, images: Tensor, labels: Tensor, classes: list[str]) -> FewShotClassifier:
        self._support = read_support(self.learner, images, labels, len(classes))
        self.support_images_, self.labels_, self.classes_ = images, labels, classes
        return self

    def _images(self, pictures: list[Picture], invert: bool | str) -> tuple[Tensor, bool]:
        """Brings pictures into the learner's form -> uint8 [n, c, size, size], and whether they were inverted."""
        found = []
        for number, picture in enumerate(pictures):
            try:
                found.append(square_picture(picture, *self._form))
            except (ValueError, TypeError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"picture {number + 1} of {len(pictures)}: {error}") from error
        stays = [self._auto and isinstance(picture, Tensor) for picture in pictures]
        grounds = [ground for (_, ground), stay in zip(found, stays, strict=True) if not stay]
        negative = is_negative(grounds, self._form[1], invert)
        turned = [255 - p if negative and not stay else p for (p, _), stay in zip(found, stays, strict=True)]
        return torch.from_numpy(np.stack(turned)), negative

    def pictures(self, pictures: Pictures) -> Tensor:
        """Returns queries as the learner sees them: in the form of the support, inverted as it was, uint8 [M, c, H, W]."""
        if not hasattr(self, "classes_"):
            raise ValueError("this classifier has seen no pictures yet: call fit(pictures, names) first.")
        pictures = listed(pictures)
        return self._images(pictures, self.inverted_)[0] if pictures else self.support_images_[:0]

    def decision_function(self, pictures: Pictures) -> Tensor:
        """Returns the learner's own scores [M, N], columns as in classes_. Raises ValueError if one is not finite.

        A transductive learner judges those of a call together.
        """
        images = self.pictures(pictures)
        return _finite(self._support.scores(images)) if len(images) else torch.zeros(0, len(self.classes_))

    def predict_proba(self, pictures: Pictures) -> Tensor:
        """Returns the softmax of the scores [M, N]. Log-odds and distances soon say 0.99, and cosines never say much."""
        return self.decision_function(pictures).softmax(-1)

    def predict(self, pictures: Pictures) -> list[str | None]:
        """Returns M names: the largest score wins, of equal ones the first in classes_. None for scores below threshold_."""
        return self.names_of(self.decision_function(pictures))

    def names_of(self, scores: Tensor) -> list[str | None]:
        """Returns the names that `predict` gives for these scores [M, N] of decision_function."""
        best, column = scores.max(-1)
        least = -math.inf if self.threshold_ is None else self.threshold_
        pairs = zip(best.tolist(), column.tolist(), strict=True)
        return [self.classes_[i] if score >= least else None for score, i in pairs]

    def score(self, pictures: Pictures, names: Sequence[str]) -> float:
        """Returns the share of pictures that get their name."""
        found = self.predict(pictures)
        if not found or len(found) != len(names):
            raise ValueError(f"score needs a name for each picture; got {len(found)} pictures and {len(names)} names.")
        return sum(name == right for name, right in zip(found, names, strict=True)) / len(found)

    def calibrate(self, share: float = 0.05, pictures: Pictures | None = None) -> FewShotClassifier:
        """Sets threshold_, so that `predict` answers None for pictures of none of the classes. Returns the classifier.

        share:    of new pictures of these classes that may get None: threshold_ is the lower end of the prediction interval of
                  one more best score, by Student's t. On glyphs, 5 % became 3 to 11 % with two pictures of three to five classes
        pictures: held-out ones of these classes. None: every support picture, judged by the others; each class needs two
        """
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
            raise ValueError(f"share is a fraction between 0 and 1, e.g. 0.05; got {share!r}.")
        scores = self.decision_function([] if pictures is None else pictures)
        if pictures is None:
            shots = zip(self.classes_, self.labels_.bincount().tolist(), strict=True)
            if single := [name for name, count in shots if count < 2]:
                raise ValueError(
                    "to find out what is none of these, each support picture is judged by the others, so every class needs "
                    f"at least two. There is only one of {', '.join(single)}: add pictures, or pass held-out ones."
                )
            scores = _finite(self._support.left_out())
        if (count := len(scores)) < 2:
            raise ValueError(f"calibrate needs at least two held-out pictures of these classes; got {count}.")
        best = scores.max(-1).values.double()
        reach = float(stdtrit(count - 1, share)) * math.sqrt(1 + 1 / count)
        self.threshold_ = float(best.mean() + reach * best.std())
        return self

    def features(self, pictures: Pictures) -> Tensor:
        """Returns what `nearest` compares [M, D]: embeddings, or the input of an adapted last layer, or else pixels."""
        images = self.pictures(pictures)
        return self._support.features(images) if len(images) else self.support_features_[:0]

    @property
    def support_features_(self) -> Tensor:
        """The features of the support [S, D], in the order of `fit`."""
        return self._support.own_features

    def nearest(self, pictures: Pictures, count: int = 3) -> list[list[Neighbour]]:
        """Returns the `count` nearest support pictures of each picture, by Euclidean distance of `features`, nearest first."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"count is a whole number of at least 1; got {count!r}.")
        exact = "donot_use_mm_for_euclid_dist"  # the fast way is wrong by up to 1e-3 for equal pictures
        far = torch.cdist(self.features(pictures), self.support_features_, compute_mode=exact)
        distances, rows = (t[:, :count].tolist() for t in far.sort(dim=-1, stable=True))
        names = [self.classes_[label] for label in self.labels_.tolist()]
        return [
            [Neighbour(names[i], i, d) for i, d in zip(*near, strict=True)]
            for near in zip(rows, distances, strict=True)
        ]

    def save(self, path: str | Path, *, method: str | None = None, settings: dict[str, Any] | None = None) -> None:
        """Writes learner, support, names and threshold_ to one file (safetensors, no pickle).

        method, settings: what `learners.make` makes the learner from; needed only for one that was made by hand
        Raises ValueError if a learner made from them with the same weights gives other scores.
        """
        self.pictures([])
        made = self.learner.made_from if method is None else {"method": method, "settings": settings or {}}
        if made is None:
            raise ValueError(
                'this learner was made by hand: say what makes it again, e.g. save(path, method="prototypical", '
                'settings={"width": 64}), the arguments of fsl_course.weights.learners.make.'
            )
        weights, twin = dict(self.learner.state_dict()), make(made["method"], **made["settings"])
        load_weights(twin, weights, path)
        twin = twin.to(self._support.images.device)
        again = read_support(twin, self.support_images_, self.labels_, len(self.classes_))
        before, after = (support.scores(self.support_images_) for support in (self._support, again))
        if not torch.allclose(before, after, rtol=1e-3, atol=1e-3 * float(before.std())):
            raise ValueError(
                f"{made['method']} with {made['settings']} and these weights scores otherwise than this classifier: "
                "fit again after training, or give the settings that the learner has now."
            )
        fitted = {"classes": self.classes_, "sources": self.sources_, "threshold": self.threshold_}
        about = made | fitted | {"inverted": self.inverted_, "auto": self._auto, "form": self._form}
        save_file(path, weights | {_IMAGES: self.support_images_, _LABELS: self.labels_}, about)

    @classmethod
    def load(cls, path: str | Path) -> FewShotClassifier:
        """Returns a fitted classifier from a file of `save`. Executes nothing. Raises CheckpointError for other files."""
        learner, about = load_learner(path)
        tensors = load_file(path)[0]
        if _IMAGES not in tensors:
            raise CheckpointError(f"{path} holds a learner without support: make FewShotClassifier(learner).")
        try:
            form, classes, inverted = about["form"], about["classes"], about["inverted"]
            invert = "auto" if about["auto"] else inverted
            threshold = None if about["threshold"] is None else float(about["threshold"])
            found = cls(learner, size=form[0], channels=form[1], invert=invert, threshold=threshold)
            images, labels = tensors[_IMAGES], tensors[_LABELS]
            check_form(*form, inverted)
            check_labels(labels, len(classes))
            if classes != sorted(set(_checked_names(classes))) or images.dtype != torch.uint8:
                raise ValueError("names or pictures have another form")
            if list(images.shape) != [len(labels), form[1], *form[:1] * 2] or len(about["sources"]) != len(labels):
                raise ValueError("the numbers of pictures, names and paths differ")
            found._form, found._auto, found.inverted_ = tuple(form), invert == "auto", inverted
            found.threshold_, found.sources_ = found.threshold, list(about["sources"])
            return found._read(images, labels, classes)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise CheckpointError(f"the support in {path} is damaged ({error}): save the classifier again.") from error


def _checked_names(names: Sequence[str]) -> list[str]:
    names = [names] if isinstance(names, str) else list(names)
    if odd := [name for name in names if not isinstance(name, str) or not name]:
        raise ValueError(f"names are strings of at least one letter; got {odd[0]!r}. Take str(name) for numbers.")
    return [str(name) for name in names]  # NumPy has strings of its own


def _form_of(
    learner: FewShotLearner, pictures: list[Picture], size: int | None, channels: int | None
) -> tuple[int, int]:
    """Returns size and channels of the pictures that a learner takes; see FewShotClassifier."""
    convolutions = [module.in_channels for module in learner.modules() if isinstance(module, nn.Conv2d)]
    squares = [p.shape for p in pictures if isinstance(p, Tensor) and p.dim() == 3 and p.shape[1] == p.shape[2]]
    first = squares[0] if squares else (1, SETTINGS["size"])
    usual = {"size": first[-1], "in_channels": (convolutions or first)[0]}
    if learner.made_from is not None:
        usual = SETTINGS | learner.made_from["settings"]
    return usual["size"] if size is None else size, usual["in_channels"] if channels is None else channels


def _finite(scores: Tensor) -> Tensor:
    if not bool(scores.isfinite().all()):
        raise ValueError("the learner's scores are not finite: its training diverged, or its weights are damaged.")
    return scores
