"""The page try.html: draw a thing once, and the shipped network finds it again. No kernel and no network are needed.

python -m tools.book.try_page FOLDER                            writes the page alone into a folder; `make book` makes it, too
python -m tools.book.try_page FOLDER --picture docs/try.png     also looks at it in Chromium, for README.md

The texts, styles and scripts lie in tools/book/try. A page that is opened from a folder may fetch nothing, so what is not text
goes into script files as base64: the encoder as `python -m fsl_course export` writes it, and ONNX Runtime, which npm fetches.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import logging
import shutil
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tools.book import vendor

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).parent / "try"
METHOD = "prototypical"
_SCRIPTS = ("paper.js", "net.js", "engines.js", "try.js", "try.css")
_RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")  # of onnxruntime-web/dist: the smallest pair
# Five letters of a script that no training has seen, as Glyphs and the page name them, and which of them lies on the pad.
_LETTERS = {f"tamil letter {name}": f"Tamil {name}" for name in ("ka", "tta", "ma", "ya", "ra")}
_ON_THE_PAD = 2
_COLOURS = 48  # of the picture


class TryPageError(Exception):
    """The page to try could not be made. The message says what to do."""


def write(root: Path, out: Path) -> None:
    """Writes out/try.html and out/_static/try. Raises TryPageError or VendorError, each with what to do."""
    static = out / "_static" / "try"
    static.mkdir(parents=True, exist_ok=True)
    for name in _SCRIPTS:
        shutil.copyfile(SOURCE / name, static / name)
    (static / "pad.js").write_text(pad(root), encoding="utf-8")
    (static / "examples.js").write_text(_assigned("examples", examples(root)), encoding="utf-8")
    (static / "model.js").write_text(_assigned("model", _base64(encoder())), encoding="utf-8")
    dist = vendor.fetch(root) / "onnxruntime-web" / "dist"
    code, wasm = ((dist / name).read_bytes() for name in _RUNTIME)
    runtime = {"code": _base64(code), "wasm": _base64(gzip.compress(wasm, 9, mtime=0))}
    (static / "runtime.js").write_text(_assigned("runtime", runtime), encoding="utf-8")
    icon = out / "_static" / "icon.svg"
    if not icon.exists():
        shutil.copyfile(root / "book" / "_static" / "icon.svg", icon)
    page = (SOURCE / "try.html").read_text(encoding="utf-8")
    heavy = static / "runtime.js"
    light = len(page) + sum(path.stat().st_size for path in static.iterdir() if path != heavy)
    asked = json.loads((root / "book" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    filled = {
        "plain": f"{light / 1e6:.1f}",
        "runtime": f"{heavy.stat().st_size / 1e6:.1f}",
        "version": asked["onnxruntime-web"],
    }
    for name, value in filled.items():
        page = page.replace(f"{{{name}}}", value)
    (out / "try.html").write_text(page, encoding="utf-8")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _assigned(name: str, value: Any) -> str:
    return f"(globalThis.fsl ??= {{}}).{name} = {json.dumps(value, separators=(',', ':'))};\n"


def pad(root: Path) -> str:
    """Returns the notebook's drawing pad as a plain script, because a page opened from a folder cannot load modules."""
    source = (root / "fsl_classroom" / "widgets" / "sketch_pad.js").read_text(encoding="utf-8")
    before, mark, after = source.partition("export default { render };")
    if not mark or after.strip():
        raise TryPageError(
            "sketch_pad.js no longer ends with `export default { render };`: adapt tools/book/try_page.py."
        )
    return f"(() => {{\n{before}(globalThis.fsl ??= {{}}).pad = render;\n}})();\n"


def encoder() -> bytes:
    """Returns the encoder of the shipped weights as ONNX. Raises TryPageError if it cannot be exported."""
    from fsl_course.__main__ import main as fsl_course

    logging.getLogger("onnx_ir").setLevel(logging.WARNING)  # Sphinx lets everything else through
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        with redirect_stdout(said), redirect_stderr(said):
            status = fsl_course(["export", METHOD, "--out", str(path)])
        if status:
            raise TryPageError(f"The encoder of {METHOD} could not be exported:\n{said.getvalue().strip()}")
        return path.read_bytes()


def examples(root: Path) -> dict[str, Any]:
    """Returns what the page can start with: {"things": ..., "letters": ...}, each with characters and the drawing on the pad."""
    things = json.loads((SOURCE / "things.json").read_text(encoding="utf-8"))
    return {"things": things, "letters": letters(root)}


def letters(root: Path) -> dict[str, Any]:
    """Returns the pen strokes of _LETTERS, and one of them in another hand."""
    names = np.load(root / "data" / "glyphs.npz")["name"].tolist()
    drawn = np.load(root / "data" / "glyphs_strokes.npz")
    points, strokes, starts = drawn["points"] / 255, drawn["stroke_offsets"], drawn["letter_offsets"]
    found = []
    for name, label in _LETTERS.items():
        place = names.index(name)
        ends = strokes[starts[place] : starts[place + 1] + 1]
        found.append({"name": label, "strokes": [points[a:b].round(3).tolist() for a, b in pairwise(ends)]})
    slanted = [[[round(0.8 * x + 0.2 * (1 - y), 3), y] for x, y in stroke] for stroke in found[_ON_THE_PAD]["strokes"]]
    return {"characters": found, "query": slanted}


def picture(page: Path, to: Path) -> None:
    """Writes what the page shows at first into a small PNG. Raises TryPageError where there is no Chromium."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    from tools.setup.chromium import find

    if (chromium := find()) is None:
        raise TryPageError(
            "There is no Chromium to look at the page with: `python -m tools.setup.chromium` installs it."
        )
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": 1000, "height": 1200}, color_scheme="light")
        opened.goto(page.resolve().as_uri())
        opened.evaluate("fsl.page.ready")
        opened.add_style_tag(content=".why, .steps { display: none; }")  # a picture in README.md shows the game alone
        box = opened.locator("#board").bounding_box()
        clip = {"x": box["x"] - 8, "y": box["y"] - 8, "width": box["width"] + 16, "height": box["height"] + 16}
        seen = Image.open(io.BytesIO(opened.screenshot(clip=clip)))
        browser.close()
    seen.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(to, optimize=True)


def main() -> int:
    """Runs the command line. Returns 1, after a message, if the page cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--picture", type=Path, metavar="FILE")
    options = parser.parse_args()
    try:
        write(ROOT, options.folder)
        if options.picture:
            picture(options.folder / "try.html", options.picture)
    except (TryPageError, vendor.VendorError) as error:
        print(error, file=sys.stderr)
        return 1
    print(options.folder / "try.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
