"""Fonts -> pen strokes: traces the letters of 50 scripts, drops look-alikes, writes data/glyphs_strokes.npz.

    python -m tools.data.trace_glyphs [--fonts FOLDER] [--out FILE]

Needs the fonts of Debian's package fonts-noto-core. The strokes are a derivative of the fonts and stay under the SIL Open Font
License 1.1. Takes about a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tools.data.glyphs.fonts import render_script
from tools.data.glyphs.letters import Letters, save_letters, to_bytes, to_unit_box
from tools.data.glyphs.lookalikes import select
from tools.data.glyphs.scripts import SCRIPTS, Script
from tools.data.glyphs.strokes import trace

FONTS = Path("/usr/share/fonts/truetype/noto")  # where Debian installs them
STROKES = Path(__file__).resolve().parents[2] / "data" / "glyphs_strokes.npz"
SIZES = (0.45, 2.2)  # letters much smaller or larger than their script's median are marks or ligatures, not letters


def trace_script(fonts: Path, script: Script) -> Letters:
    """Returns all letters of a script as pen strokes, look-alikes included. Raises FileNotFoundError if the font is missing."""
    strokes, codepoints, sizes = [], [], []
    for code, (mask, size) in render_script(fonts, script).items():
        traced = trace(mask) if SIZES[0] < size < SIZES[1] else None
        if traced is not None:
            strokes.append([to_bytes(stroke) for stroke in traced])
            codepoints.append(code)
            sizes.append(size)
    count = len(strokes)
    return Letters(
        strokes=strokes,
        codepoint=np.array(codepoints, np.int32),
        script=np.array([script.name] * count),
        split=np.array([script.split] * count),
        size=np.array(sizes, np.float32),
    )


def trace_all(fonts: Path, scripts: list[Script] = SCRIPTS) -> Letters:
    """Returns the letters of all scripts without look-alikes, in the order of the list."""
    parts = [trace_script(fonts, script) for script in scripts]
    letters = Letters(
        strokes=[strokes for part in parts for strokes in part.strokes],
        codepoint=np.concatenate([part.codepoint for part in parts]),
        script=np.concatenate([part.script for part in parts]),
        split=np.concatenate([part.split for part in parts]),
        size=np.concatenate([part.size for part in parts]),
    )
    # Letters are compared in the precision of the file, because that is what is kept of them.
    shapes = [[to_unit_box(stroke, np.float64) for stroke in strokes] for strokes in letters.strokes]
    return letters.select(select(shapes, letters.script, letters.split))


def main() -> None:
    """Runs the command line: traces, writes, and prints what was kept."""
    parser = argparse.ArgumentParser(description="Trace pen strokes from fonts.")
    parser.add_argument("--fonts", type=Path, default=FONTS, help="folder of the Noto fonts (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=STROKES, help="file to write (default: data/glyphs_strokes.npz)")
    options = parser.parse_args()
    letters = trace_all(options.fonts)
    save_letters(options.out, letters)
    for script in SCRIPTS:
        print(f"{script.name:20s} {script.split:6s} {(letters.script == script.name).sum():3d} letters")
    print(f"{len(letters)} letters in {options.out.name}, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
