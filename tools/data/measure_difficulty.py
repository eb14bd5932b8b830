"""How hard Glyphs is compared with the real Omniglot: measures the table of data/glyphs.md and writes it there.

    python -m tools.data.measure_difficulty --root FOLDER_OF_OMNIGLOT

Treats both sets alike: trains on all background classes (Omniglot's 30 background alphabets; Glyphs' train scripts) and tests on
episodes from alphabets that no training has seen. Takes about 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from fsl_course import EpisodeSampler, ImageSet, evaluate, fit, load_glyphs, load_omniglot
from fsl_course._system.allocator import keep_memory
from fsl_course.evaluation import Result
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.baselines import PixelNearestNeighbour, random_conv4
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4

CARD = Path(__file__).resolve().parents[2] / "data" / "glyphs.md"
BEGIN, END = "<!-- difficulty table -->", "<!-- /difficulty table -->"
COLUMNS = [(5, False), (5, True), (20, False), (20, True)]  # (way, all classes from one alphabet)
EPISODES, SEED = 600, 0
STAGES = (300, 1000)  # training episodes after which ProtoNet is tested


def background(omniglot: ImageSet) -> ImageSet:
    """Returns all 30 background alphabets: training and validation classes of the "alphabets" protocol together."""
    rows = [i for i, split in enumerate(omniglot.splits) if split != "test"]
    return replace(omniglot.select(rows), name="omniglot/background")


def columns(learner: FewShotLearner, test: ImageSet) -> list[Result]:
    """Tests a learner: 1-shot, 15 queries a class. Returns one result for each of COLUMNS."""
    return [
        evaluate(learner, EpisodeSampler(test, way, 1, 15, seed=SEED, within_group=within), EPISODES)
        for way, within in COLUMNS
    ]


def measure(train: ImageSet, test: ImageSet) -> Iterator[tuple[str, list[Result]]]:
    """Yields the rows of one data set: name and results."""
    yield "pixels, cosine", columns(PixelNearestNeighbour("cosine"), test)
    yield "random Conv4-64", columns(random_conv4(SEED), test)
    torch.manual_seed(SEED)
    learner = PrototypicalNetwork(conv4())
    sampler = EpisodeSampler(train, 20, 1, 5, seed=SEED)
    with tempfile.TemporaryDirectory() as folder:
        for steps in STAGES:  # the second stage continues from the first one's checkpoint
            fit(learner, sampler, steps=steps, checkpoint=Path(folder) / "run.safetensors")
            yield f"ProtoNet, {steps} episodes", columns(learner, test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="where the real Omniglot lies (else the variable FSL_DATA)")
    options = parser.parse_args()
    keep_memory()
    omniglot, glyphs = load_omniglot(options.root), load_glyphs()
    both = zip(
        measure(background(omniglot), omniglot.split("test")),
        measure(glyphs.split("train"), glyphs.split("test")),
        strict=True,
    )
    head = [f"{way}-way {'within alphabet' if within else 'mixed'}" for way, within in COLUMNS]
    lines = ["| 1-shot accuracy %, Omniglot / Glyphs | " + " | ".join(head) + " |", "|---|" + "---|" * len(COLUMNS)]
    for (name, real), (_, ours) in both:
        cells = [
            f"{100 * a.mean:.1f} ± {100 * a.ci95:.1f} / {100 * b.mean:.1f} ± {100 * b.ci95:.1f}"
            for a, b in zip(real, ours, strict=True)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    text = CARD.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{CARD.name} has no place for the table: it needs the lines {BEGIN} and {END}.")
    before, rest = text.split(BEGIN)
    CARD.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
