"""The file of pen strokes, which trace_glyphs writes and draw_glyphs reads."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tools.data.glyphs.curves import nearest

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Letters:
    """M letters as pen strokes, in the precision of the file (1/255 of the letter's box).

    strokes:   M lists of strokes; a stroke is uint8 [n, 2], points (x, y) with y downwards, box 0..255
    codepoint: int32 [M], Unicode
    script:    str [M]
    split:     str [M], "train", "val" or "test"; one for all letters of a script
    size:      float32 [M], the longer side of the letter relative to the median of its script
    """

    strokes: list[list[Array]]
    codepoint: Array
    script: Array
    split: Array
    size: Array

    def __len__(self) -> int:
        """Returns the number of letters M."""
        return len(self.strokes)

    def select(self, positions: Sequence[int]) -> Letters:
        """Returns the letters at these positions, in this order."""
        rows = np.asarray(positions, dtype=int)
        strokes = [self.strokes[i] for i in rows]
        return Letters(strokes, self.codepoint[rows], self.script[rows], self.split[rows], self.size[rows])

    @property
    def names(self) -> list[str]:
        """The Unicode name of every letter, in lower case."""
        return [unicodedata.name(chr(code)).lower() for code in self.codepoint]


def to_bytes(stroke: Array) -> Array:
    """Converts a stroke in the box -0.5..0.5 to the precision of the file, uint8 [n, 2]."""
    return np.clip(nearest((stroke + 0.5) * 255), 0, 255).astype(np.uint8)


def to_unit_box(stroke: Array, dtype: type = np.float32) -> Array:
    """Converts a stroke of the file, uint8 [n, 2], to floating point [n, 2] in the box -0.5..0.5."""
    return stroke.astype(dtype) / dtype(255) - dtype(0.5)


def save_letters(path: Path, letters: Letters) -> None:
    """Writes letters as one npz file: all points in one array, with the offsets of strokes and of letters."""
    flat = [stroke for strokes in letters.strokes for stroke in strokes]
    np.savez_compressed(
        path,
        points=np.concatenate(flat),
        stroke_offsets=_offsets([len(stroke) for stroke in flat]),
        letter_offsets=_offsets([len(strokes) for strokes in letters.strokes]),
        codepoint=letters.codepoint.astype(np.int32),
        script=letters.script,
        split=letters.split,
        size=letters.size.astype(np.float32),
    )


def load_letters(path: Path) -> Letters:
    """Reads what save_letters wrote. Raises FileNotFoundError, which says what to do, if there is no such file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there are no strokes at {path}: make them with `python -m tools.data.trace_glyphs`.")
    with np.load(path) as file:
        data = dict(file)
    flat = np.split(data["points"], data["stroke_offsets"][1:-1])
    first = data["letter_offsets"]
    strokes = [flat[first[i] : first[i + 1]] for i in range(len(first) - 1)]
    return Letters(strokes, data["codepoint"], data["script"], data["split"], data["size"])


def _offsets(counts: list[int]) -> Array:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
