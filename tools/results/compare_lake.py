"""Measures shipped weights on Lake's one-shot test, and why runs drawn anew are harder than the published ones.

    python -m tools.results.compare_lake DIR

DIR is the folder that the authors' all_runs.zip unpacks into; Omniglot is read from the folder that FSL_DATA names. Takes three
minutes on one core and writes data/lake_comparison.json. Each row is tested on the published runs and on runs drawn in four ways:
anew, from the first eight people of every alphabet, with the letters of a published run and other people, and with the people of
a published run and other letters.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsl_course import evaluate, load_omniglot, pretrained
from fsl_course.data import ImageSet, load_lake_runs
from fsl_course.episodes import LAKE_RUNS, LakeSampler, PublishedRuns
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.baselines import baselines
from tools.results.rows import write

OUT = Path(__file__).resolve().parents[2] / "data" / "lake_comparison.json"
DATA = "omniglot-alphabets"
FIRST = 8  # all people of the published runs are among the first eight of their alphabet
LEARNERS = {
    "Prototypical": ("prototypical", None), "Matching": ("matching", None), "Matching + FCE": ("matching", "full_context"),
    "Relation": ("relation", None), "Siamese": ("siamese", None), "SimpleShot": ("simple_shot", None),
    "Transfer": ("transfer", None),
}  # fmt: skip


def origin(runs: ImageSet, letters: ImageSet) -> Tensor:
    """Finds every published drawing among the letters -> int64 [R*20, 2, 2]: letter and person.

    Raises ValueError if one is not there.
    """
    known = {picture.numpy().tobytes(): at for at, picture in enumerate(letters.images.flatten(0, 1))}
    try:
        at = torch.tensor([known[picture.numpy().tobytes()] for picture in runs.images.flatten(0, 1)])
    except KeyError:
        raise ValueError(
            "a published drawing is not among Omniglot's evaluation alphabets: are both files whole?"
        ) from None
    people = letters.images.shape[1]
    return torch.stack([at // people, at % people], dim=1).view(len(runs), 2, 2)


def drawn(runs: ImageSet, letters: ImageSet) -> dict[str, ImageSet]:
    """Returns the sets from which runs are drawn: all, published letters, published people, and the first eight people."""
    found = origin(runs, letters)
    same_letters = replace(letters.select(found[:, 0, 0]), groups=runs.groups)
    pictures, groups, chosen = [], [], []
    for run in dict.fromkeys(runs.groups):
        mine = found[[i for i, group in enumerate(runs.groups) if group == run]]
        alphabet = letters.groups[int(mine[0, 0, 0])]
        (first,), (second,) = (mine[:, part, 1].unique().tolist() for part in (0, 1))
        members = [i for i, group in enumerate(letters.groups) if group == alphabet]
        pictures.append(letters.images[members][:, [first, second]])
        groups += [run] * len(members)
        chosen += members
    same_people = replace(
        letters.select(torch.tensor(chosen)),
        images=torch.cat(pictures),
        counts=torch.full((len(chosen),), 2),
        groups=groups,
    )
    early = replace(letters, images=letters.images[:, :FIRST].contiguous(), counts=torch.full((len(letters),), FIRST))
    kinds = {"drawn": letters, "published letters": same_letters, "published people": same_people}
    return kinds | {"first eight people": early}


def row(label: str, learner: FewShotLearner, runs: ImageSet, sets: dict[str, ImageSet], tasks: int) -> dict[str, Any]:
    """Measures one learner: right answers of each published run, and mean and interval over the drawn ones."""
    published = evaluate(learner, PublishedRuns(runs), LAKE_RUNS)
    found: dict[str, Any] = {
        "label": label, "published": published.mean, "published_ci95": published.ci95,
        "correct": (published.per_episode * 20).round().int().tolist(),
    }  # fmt: skip
    for name, source in sets.items():
        result = evaluate(learner, LakeSampler(source), tasks)
        found |= {name: result.mean, f"{name}_ci95": result.ci95}
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, metavar="DIR", help="holds run01, run02, ...")
    parser.add_argument("--tasks", type=int, default=1000, help="drawn runs of each kind (1000)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    runs, letters = load_lake_runs(options.runs), load_omniglot(protocol="alphabets").split("test")
    sets, rows = drawn(runs, letters), []
    known = {label: pretrained(method, DATA, variant=variant) for label, (method, variant) in LEARNERS.items()}
    known |= {name[0].upper() + name[1:]: learner for name, learner in baselines().items() if name.startswith("pixels")}
    head = {
        "command": f"python -m tools.results.compare_lake DIR --tasks {options.tasks}",
        "protocol": "Omniglot's evaluation alphabets, upright; 20-way 1-shot within an alphabet, one query a class; support by "
        "one person, queries by another; inductive; weights trained on the background alphabets, turned letters as classes",
        "tasks": options.tasks,
    }
    for label, learner in known.items():
        rows.append(row(label, learner, runs, sets, options.tasks))
        write(options.out, head, rows)
        print(
            label, {name: round(value, 3) for name, value in rows[-1].items() if isinstance(value, float)}, flush=True
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
