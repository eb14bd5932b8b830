"""The command `classify` for sentences: names them by the labelled sentences of a file."""

import argparse
import json

import torch

from fsl_course.cli import evaluate
from fsl_course.data.texts import encode, load_texts
from fsl_course.support import read_support
from fsl_course.weights.learners import reads_sentences

_OF_PICTURES = ("invert", "none_of_these", "html", "save", "encoder", "encoder_weights")


def run(options: argparse.Namespace) -> int:
    """Prints a name for every sentence, and the three nearest examples. Returns the exit status 0."""
    if extra := [f"--{name.replace('_', '-')}" for name in _OF_PICTURES if getattr(options, name)]:
        raise ValueError(f"{', '.join(extra)} goes with pictures; {options.support} holds sentences: leave it out.")
    examples = load_texts(options.support)
    texts = [text for row in examples.sentences for text in row]
    labels = torch.arange(len(examples)).repeat_interleave(examples.counts)
    options.data, options.way, options.shot = "intents", len(examples), int(examples.counts.min())
    learner, weights = evaluate.trained(options)[1:3]
    if not reads_sentences(learner):
        raise ValueError(
            f"{weights} reads pictures, and {options.support} holds sentences: take e.g. prototypical-intents."
        )
    support, asked = read_support(learner, encode(texts), labels, len(examples)), encode(options.pictures)
    shares = support.scores(asked).softmax(-1)
    far = torch.cdist(support.features(asked), support.own_features)
    if not options.json:
        print(f"{weights}: {len(examples)} classes, {len(texts)} examples")
    for text, row, gaps in zip(options.pictures, shares, far, strict=True):
        near = [
            {"sentence": texts[i], "name": examples.class_names[labels[i]], "index": i, "distance": float(gaps[i])}
            for i in gaps.argsort(stable=True)[:3].tolist()
        ]
        found = dict(zip(examples.class_names, row.tolist(), strict=True))
        likely = sorted(found, key=lambda name: -found[name])[:3]
        if options.json:
            answer = {"sentence": text, "name": likely[0], "weights": weights, "probabilities": found, "nearest": near}
            print(json.dumps(answer))
        else:
            print(f"{text}: {likely[0]}\n    " + ", ".join(f"{name} {found[name]:.1%}" for name in likely))
            print("    nearest: " + ", ".join(f"{n['name']}/{n['sentence']} ({n['distance']:.3g})" for n in near))
    return 0
