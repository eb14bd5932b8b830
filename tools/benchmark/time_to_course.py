"""The course's side of time-to-95, a process of its own: a plain `fit`, continued until validation reaches the target."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    told = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FSL_CACHE"] = scratch  # an empty cache: the pictures are read and shrunk anew
        _train(told, Path(scratch, "run.safetensors"))


def _train(told: dict, state: Path) -> None:
    import torch

    from fsl_course import EpisodeSampler, evaluate, fit, load_glyphs, load_omniglot
    from fsl_course._system.allocator import keep_memory
    from fsl_course.methods.prototypical import PrototypicalNetwork
    from fsl_course.nets import conv4
    from tools.benchmark.report import report

    keep_memory()
    torch.set_num_threads(told["threads"])
    torch.manual_seed(told["seed"])
    source = load_glyphs() if told["quick"] else load_omniglot(protocol="alphabets")
    parts = [source.split(name) for name in ("train", "val")]
    if told["quick"]:
        parts = [part.select(range(6)) for part in parts]
    train, validation = (part.to(told["device"]) for part in parts)
    learner = PrototypicalNetwork(conv4(), scale=told["scale"]).to(told["device"])
    sampler = EpisodeSampler(train, told["way"], 1, told["query"], seed=told["seed"])
    asked = EpisodeSampler(validation, 5, 1, told["query"], seed=told["seed"])
    began, trained = time.time(), 0.0
    for steps in range(told["every"], told["most"] + 1, told["every"]):
        piece = time.time()
        # asked for more steps, `fit` continues from the checkpoint
        fit(
            learner, sampler, steps=steps, lr=told["lr"], bfloat16=told["bfloat16"], checkpoint=state, progress=False,
            save_every=told["most"],
        )  # fmt: skip
        trained += time.time() - piece
        accuracy = evaluate(learner, asked, told["episodes"]).mean
        if accuracy >= told["target"]:
            break
    report(began, steps, accuracy, trained)


if __name__ == "__main__":
    main()
