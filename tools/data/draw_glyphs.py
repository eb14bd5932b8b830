"""Pen strokes -> drawings: lets 20 virtual hands write every letter and writes data/glyphs.npz.

    python -m tools.data.draw_glyphs [--pixels 84] [--hands 20] [--seed 20] [--out FILE]

Needs NumPy alone and is deterministic: every drawing has its own random stream, seeded by the seed, the letter and the hand, so a
letter looks the same whichever others are drawn with it. Takes about half a minute at 28x28.
"""

from __future__ import annotations

import argparse
import hashlib
import zlib
from pathlib import Path

import numpy as np

from tools.data.glyphs.hands import Hand, draw, random_hand
from tools.data.glyphs.letters import Letters, load_letters, to_unit_box
from tools.data.glyphs.raster import grey_levels, raster

Array = np.ndarray

DATA = Path(__file__).resolve().parents[2] / "data"
HANDS, PIXELS, SEED = 20, 28, 20
SCRIPT_SIZE = 0.12  # standard deviation of the log of a script's size
LETTER_SIZE = 1.2  # exponent of a letter's size within its script
_STYLE, _LETTER, _SIZE = 0, 1, 2  # what a random stream is for


def draw_letters(letters: Letters, *, hands: int = HANDS, pixels: int = PIXELS, seed: int = SEED) -> Array:
    """Draws M letters by the hands of their scripts. Returns uint8 [M, hands, pixels, pixels], ink 255 on 0, 6 grey levels.

    Raises ValueError for less than one hand or eight pixels.
    """
    if hands < 1 or pixels < 8:
        raise ValueError(f"at least 1 hand and 8 pixels are needed; got hands={hands}, pixels={pixels}.")
    pictures = np.zeros((len(letters), hands, pixels, pixels), np.uint8)
    styles = {name: _script_style(name, hands, seed) for name in np.unique(letters.script).tolist()}
    blur = 1.5 if pixels <= 32 else 1.0
    for i, strokes in enumerate(letters.strokes):
        shape = [to_unit_box(stroke) for stroke in strokes]
        script_size, script_hands = styles[str(letters.script[i])]
        size = script_size * float(letters.size[i]) ** LETTER_SIZE
        for h, hand in enumerate(script_hands):
            rng = np.random.default_rng([seed, _LETTER, int(letters.codepoint[i]), h])
            # A pen grows with the picture, but less than in proportion, and is never thinner than at 28 pixels.
            pen = hand.pen * max(1.0, 0.55 * pixels / 28)
            pictures[i, h] = grey_levels(raster(draw(shape, hand, rng, size), pen, pixels, blur))
    return pictures


def save_images(path: Path, letters: Letters, pictures: Array) -> None:
    """Writes drawings uint8 [M, hands, h, w] with script, split, codepoint and name of their letters as one npz file."""
    np.savez_compressed(
        path,
        images=pictures,
        script=letters.script,
        split=letters.split,
        codepoint=letters.codepoint,
        name=np.array(letters.names),
    )


def _script_style(name: str, hands: int, seed: int) -> tuple[float, list[Hand]]:
    """Returns the size of a script and its hands. People write one script larger than another."""
    key = zlib.crc32(name.encode())
    size = float(np.exp(np.random.default_rng([seed, _SIZE, key]).normal(0, SCRIPT_SIZE)))
    return size, [random_hand(np.random.default_rng([seed, _STYLE, key, h])) for h in range(hands)]


def main() -> None:
    """Runs the command line: draws, writes, and prints what was made."""
    parser = argparse.ArgumentParser(description="Draw letters from pen strokes.")
    parser.add_argument("--strokes", type=Path, default=DATA / "glyphs_strokes.npz", help="file of trace_glyphs.py")
    parser.add_argument(
        "--out", type=Path, default=DATA / "glyphs.npz", help="file to write (default: data/glyphs.npz)"
    )
    parser.add_argument("--hands", type=int, default=HANDS, help="drawings of every letter (default: %(default)s)")
    parser.add_argument("--pixels", type=int, default=PIXELS, help="side of a picture (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of all chance (default: %(default)s)")
    options = parser.parse_args()
    letters = load_letters(options.strokes)
    pictures = draw_letters(letters, hands=options.hands, pixels=options.pixels, seed=options.seed)
    save_images(options.out, letters, pictures)
    print(f"{list(pictures.shape)} in {options.out.name}, {options.out.stat().st_size} bytes")
    print(f"SHA-256 of the pixels: {hashlib.sha256(pictures.tobytes()).hexdigest()}")


if __name__ == "__main__":
    main()
