"""From nothing to 95 %: how long a prototypical network takes to learn Omniglot, each side in a process of its own.

The clock starts with the process and stops when the 5-way 1-shot accuracy on the same fixed validation episodes first reaches
95 %. Net, optimiser (Adam), rate, size of episodes and validation are the same; each side draws its own training episodes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from fsl_course.data import ImageSet, load_glyphs, load_omniglot
from fsl_course.episodes import EpisodeSampler
from tools.benchmark import measure, peers
from tools.benchmark.measure import Row, Settings
from tools.benchmark.sampling import write_files
from tools.benchmark.works import WORKS
from tools.results.half_point import original_drawings

# What both sides are told. every: steps between two validations, each on `episodes` episodes with `query` queries a class
PLAN = {"way": 20, "query": 5, "every": 100, "episodes": 200, "most": 3000, "target": 0.95, "seed": 0, "lr": 1e-3}
QUICK = {"way": 5, "query": 2, "every": 2, "episodes": 4, "most": 4, "target": 0.0, "seed": 0, "lr": 1e-3}


# The course's side: as in the paper; with distances divided by ten, so that a fresh net learns twice as fast; and in bfloat16.
# What counts is the time until a student has 95 %, so each way may use what the course offers; its row says what it used.
OURS: dict[str, Row] = {
    "scale 1 as in the paper": {"scale": 1.0, "bfloat16": False},
    "scale 0.1": {"scale": 0.1, "bfloat16": False},
    "scale 0.1, bfloat16": {"scale": 0.1, "bfloat16": True},
}


def write_omniglot(source: ImageSet, folder: Path) -> None:
    """Unpacks the background drawings, 105 x 105 pixels, and writes lists of the folders of training and validation classes."""
    wanted = {*source.split("train").class_names, *source.split("val").class_names}
    for name, drawings in original_drawings():
        if name in wanted:
            (folder / name).mkdir(parents=True)
            for number, ink in enumerate(drawings):  # one bit a pixel, ink black, as published
                Image.fromarray(~ink).save(folder / name / f"{number:02d}.png")
    for split in ("train", "val"):
        names = source.split(split).class_names
        specs = {"class_names": names, "class_roots": [str(folder / name) for name in names]}
        (folder / f"{split}.json").write_text(json.dumps(specs))


def write_glyphs(source: ImageSet, folder: Path) -> None:
    """Does the same for a quick try with a few glyphs."""
    for split in ("train", "val"):
        specs = write_files(source.split(split).select(range(6)), folder / split)
        specs.replace(folder / f"{split}.json")


def child(script: str, told: Row) -> Row:
    """Runs one side as `python -m tools.benchmark.SCRIPT`. Returns its last line of JSON with "seconds" from start to end.

    Raises RuntimeError with the end of its error output if it fails.
    """
    home = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH")) if p)}
    began = time.time()  # not a process's own counter: the other process reads the same clock
    done = subprocess.run(
        [sys.executable, "-m", f"tools.benchmark.{script}", json.dumps(told)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{script} ended with exit status {done.returncode}:\n{done.stderr[-2000:]}")
    said: Row = json.loads(done.stdout.splitlines()[-1])
    return said | {"seconds": said["ended"] - began}


def _fixed_episodes(validation: ImageSet, plan: Row) -> list[list[int]]:
    """Returns the validation episodes of the course's sampler as positions in easyfsl's data set."""
    layout = EpisodeSampler(validation, 5, 1, plan["query"], seed=plan["seed"]).layout(0, plan["episodes"])
    return peers.class_by_class(layout)


@peers.or_skipped
def time_to_95(settings: Settings) -> list[Row]:
    """Runs each side once: the course in each way of OURS, easyfsl as in its documentation."""
    library = peers.easyfsl()
    try:
        source = load_glyphs() if settings.quick else load_omniglot(protocol="alphabets")
    except FileNotFoundError as error:
        raise peers.Missing(str(error)) from error
    plan = QUICK if settings.quick else PLAN
    told = plan | {"threads": settings.threads or torch.get_num_threads(), "device": settings.device}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if settings.quick:
            write_glyphs(source, folder)
        else:
            write_omniglot(source, folder)
        validation = source.split("val").select(range(6)) if settings.quick else source.split("val")
        (folder / "episodes.json").write_text(json.dumps(_fixed_episodes(validation, plan)))
        at = told | {"folder": scratch, "quick": settings.quick}
        few = at | {"most": 2 if settings.quick else 15, "target": 2.0}

        def of_a_step(workers: int) -> float:
            tried = child("time_to_easyfsl", few | {"workers": workers})
            return tried["trained_s"] / tried["steps"]

        workers, _ = peers.faster_workers(of_a_step, settings.quick)
        theirs = child("time_to_easyfsl", at | {"workers": workers})
        found = {words: child("time_to_course", at | options) for words, options in OURS.items()}
    for name, side in {"easyfsl": theirs, **found}.items():
        if side["accuracy"] < plan["target"]:
            words = f"{name} did not reach {plan['target']:.0%} in {side['steps']} steps: {side['accuracy']:.1%}"
            return [{"work": "time-to-95", "peer": "easyfsl", "skipped": words}]
    setting = f"{plan['way']}-way 1-shot training, validated every {plan['every']} steps on {plan['episodes']} episodes"
    return [
        measure.row(
            "time-to-95", f"{setting}; course with {words}", "easyfsl", [ours["seconds"]], [theirs["seconds"]], settings,
            goal=WORKS["time-to-95"].goal,
            peer_version=library.version, agreement={"compared": "accuracy reached on the same validation episodes",
            "largest_difference": abs(ours["accuracy"] - theirs["accuracy"]), "limit": None},
            ours_detail=_detail(ours), peer_detail=_detail(theirs), workers=workers,
            peak_mb=ours["peak_mb"], peer_peak_mb=theirs["peak_mb"],
            note="the course reads its pictures from the zip without a cache; easyfsl reads unpacked files, which were "
            "written before; validation counts on both sides; easyfsl's distances are its own, not squared; it trains in "
            "float32",
        )
        for words, ours in found.items()
    ]  # fmt: skip


def _detail(side: Row) -> Row:
    return {
        "steps": side["steps"],
        "accuracy": side["accuracy"],
        "start_and_reading_s": side["seconds"] - (side["ended"] - side["ready"]),
        "seconds_per_step": side["trained_s"] / side["steps"],
    }
