"""A widget on descriptions: say which attributes a letter should have, and see which unseen letters answer (lesson 18)."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from fsl_classroom.widgets._panels import control, image_tag, together, view, wrapping
from fsl_classroom.widgets._twin import WithTwin, status
from fsl_course.data import load_glyphs
from fsl_course.data.attributes import described, load_attributes
from fsl_course.evaluation import embed_all
from fsl_course.weights.checkpoints import pretrained

SHOWN, DRAWINGS = 8, 2  # letters that are shown; drawings of a letter that are scored
OFFERED = (
    "has a loop", "loop in the lower half", "two strokes or more", "three strokes or more", "five free ends or more",
    "free end top left", "free end bottom right", "straight", "winding", "wide", "tall", "name begins with a vowel",
)  # fmt: skip


class AttributeBoard(WithTwin):
    """Boxes for attributes, and the unseen letters that fit best by the shipped `zero_shot` weights.

    A ticked attribute is 1 in the description; the others have the mean of the training letters, which says nothing of them.
    Letters are ranked by how much better they fit than the average description does.
    """

    def __init__(self, ticked: tuple[str, ...] = ("has a loop", "wide")) -> None:
        super().__init__()
        self.add_class("fsl-attribute-board")
        glyphs = described(load_glyphs())
        self.names, self.letters = load_attributes("glyphs")[2], glyphs.split("test")
        self.usual = glyphs.split("train").attributes.mean(0)
        self.learner = pretrained("zero_shot", "glyphs")
        images = self.letters.images[:, :DRAWINGS]
        self.embedded = embed_all(self.learner, images.flatten(0, 1)).unflatten(0, images.shape[:2])
        self.boxes = {name: control(ipywidgets.Checkbox, name, value=name in ticked, indent=False) for name in OFFERED}
        self._view, self._status = view(), ipywidgets.HTML()
        self.children = [wrapping(*self.boxes.values()), self._view, self._status]
        for box in self.boxes.values():
            box.observe(self._update, "value")
        self._update()

    def asked(self) -> list[str]:
        """Returns the names of the ticked attributes."""
        return [name for name, box in self.boxes.items() if box.value]

    @torch.no_grad()
    def best(self) -> Tensor:
        """Returns the letters that fit best, int64 [8], best first."""
        description = self.usual.clone()
        description[[self.names.index(name) for name in self.asked()]] = 1.0
        query = self.embedded.flatten(0, 1)
        both = torch.stack([description, self.usual])  # how much better than an average letter
        scores = self.learner.score(query[:0], torch.zeros(0, dtype=torch.int64), query, 2, both)
        return (scores[:, 0] - scores[:, 1]).view(len(self.letters), DRAWINGS).mean(1).topk(SHOWN).indices

    def _picture(self) -> np.ndarray:
        """Returns the letters in one row, dark on light, uint8 [28, 8*28]."""
        return np.concatenate([255 - self.letters.images[k, 0, 0].numpy() for k in self.best().tolist()], axis=1)

    def words(self) -> str:
        """Returns what was asked for, and of how many letters shown it is true."""
        rows = self.letters.attributes[self.best()]
        parts = [f"{name}: true of {int(rows[:, self.names.index(name)].sum())}" for name in self.asked()]
        return f"Of {SHOWN} unseen letters that fit best, {'; '.join(parts)}." if parts else "Nothing is asked for yet."

    def _update(self, _: Any = None) -> None:
        large = Image.fromarray(self._picture()).resize((SHOWN * 70, 70))
        words = self.words()  # asks the net, so only once
        self._view.value = image_tag(large, f"A row of {SHOWN} letters. {words}")
        self._status.value = status(words)

    def _draw(self, axes: Axes) -> None:
        axes.imshow(self._picture(), cmap="gray")
        axes.set(title=", ".join(self.asked()) or "nothing asked for", xticks=[], yticks=[])
        axes.grid(False)

    def twin(self) -> tuple[Figure, str]:
        """Returns the row of letters as a picture, and its words as alt text."""
        return together([self._draw], 7.0, 1.6), f"A row of {SHOWN} letters. {self.words()}"
