"""Letters of a font as filled shapes."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tools.data.glyphs.scripts import Script

Array = np.ndarray

LONGER_SIDE = 144  # pixels of the rendered letter
MARGIN = 4
_TRIAL_SIZE = 200  # points at which the natural size of a letter is read off
_NO_CHARACTER = chr(0x10FFFD)  # private use: the font shows its "missing" box


def font_file(folder: Path, script: Script) -> Path:
    """The font of a script in a folder; FileNotFoundError with the cure where it is missing."""
    path = Path(folder) / script.font
    if not path.is_file():
        raise FileNotFoundError(
            f"the font {script.font} for {script.name} is not in {folder}: install Debian's package fonts-noto-core, "
            "or say with --fonts where its files lie."
        )
    return path


def render(font_path: Path, letter: str) -> tuple[Array, int] | None:
    """One letter, LONGER_SIDE pixels long: (bool [h, w], its longer side at _TRIAL_SIZE points); None for next to nothing."""
    left, top, right, bottom = _font(font_path, _TRIAL_SIZE).getbbox(letter)
    if min(right - left, bottom - top) < 4:
        return None
    natural = max(right - left, bottom - top)
    font = _font(font_path, int(_TRIAL_SIZE * LONGER_SIDE / natural))
    left, top, right, bottom = font.getbbox(letter)
    picture = Image.new("L", (right - left + 2 * MARGIN, bottom - top + 2 * MARGIN), 0)
    ImageDraw.Draw(picture).text((MARGIN - left, MARGIN - top), letter, font=font, fill=255)
    return np.array(picture) > 127, natural


def render_script(folder: Path, script: Script) -> dict[int, tuple[Array, float]]:
    """The letters of a script that its font has: code point -> (bool [h, w], size relative to the median)."""
    path = font_file(folder, script)
    missing = render(path, _NO_CHARACTER)
    shapes = {}
    for code in script.codepoints:
        is_letter = unicodedata.category(chr(code)).startswith("L")
        shape = render(path, chr(code)) if is_letter else None
        if shape is not None and (missing is None or not np.array_equal(shape[0], missing[0])):
            shapes[code] = shape
    median = float(np.median([natural for _, natural in shapes.values()]))
    return {code: (mask, natural / median) for code, (mask, natural) in shapes.items()}


def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    # The basic layout draws a letter by itself, without the joining forms of its script.
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
