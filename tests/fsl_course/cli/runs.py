"""Short trainings through the command line, for the tests of the commands."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image

from fsl_course.__main__ import main


def train_tiny(method: str, out: Path, *words: str) -> dict:
    """Two steps of a tiny network on glyphs -> the card."""
    assert main(["train", method, "--way", "5", "--query", "2", "--width", "4", "--steps", "2", "--validate-every", "2",
                 "--quiet", "--out", str(out), *words]) == 0  # fmt: skip
    return json.loads((out / f"{method}-glyphs.json").read_text())


def train_head(method: str, out: Path, *words: str) -> dict:
    """One 3-way 1-shot step -> the card."""
    assert main(["train", method, "--way", "3", "--shot", "1", "--query", "2", "--width", "4", "--steps", "1", "--quiet",
                 "--set", "inner_steps=1", "--out", str(out), *words]) == 0  # fmt: skip
    return json.loads((out / f"{method}-glyphs-3w1s.json").read_text())


def own_pictures(folder: Path, classes: int = 10) -> Path:
    generator = torch.Generator().manual_seed(0)
    for c in range(classes):
        (folder / f"class{c}").mkdir(parents=True)
        for n in range(6):
            picture = Image.fromarray(
                torch.randint(0, 255, (20, 30, 3), dtype=torch.uint8, generator=generator).numpy()
            )
            picture.save(folder / f"class{c}" / f"{n}.png")
    return folder
