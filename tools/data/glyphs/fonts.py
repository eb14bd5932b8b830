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
_TRIAL_SIZE = 200  # points; size of the font at which the natural size of a letter is measured
_NO_CHARACTER = chr(0x10FFFD)  # a private code point, for which fonts show their "missing" box


def font_file(folder: Path, script: Script) -> Path:
    """Returns the font of a script in a folder. Raises FileNotFoundError, which says what to do, if it is missing."""
    path = Path(folder) / script.font
    if not path.is_file():
        raise FileNotFoundError(
            f"the font {script.font} for {script.name} is not in {folder}: install Debian's package fonts-noto-core, "
            "or say with --fonts where its files lie."
        )
    return path


def render(font_path: Path, letter: str) -> tuple[Array, int] | None:
    """Renders a letter with its longer side at LONGER_SIDE pixels.

    Returns (bool [h, w], its longer side in pixels at _TRIAL_SIZE points), or None if there is hardly anything to see.
    """
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
    """Returns the letters of a script that its font has: code point -> (bool [h, w], size relative to the median)."""
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
    # The basic layout draws the isolated form of a letter, without the joining forms of its script.
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
