"""What can be done with a run besides measuring it: train it, ship its weights, and say how far it is."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools.results import trained
from tools.results.files import rows
from tools.results.rows import key_of
from tools.results.runs import RUNS, Run
from tools.results.trained import RunError, card_of, data_arguments, folder_of, not_trained, weights_of

if TYPE_CHECKING:  # PyTorch is imported by the functions
    from fsl_course.methods.base import FewShotLearner

LARGEST = 1_000_000  # bytes of shipped weights


def train(run: Run) -> int:
    """Trains, through the command line, every seed that is not trained yet. Returns the exit status."""
    from fsl_course.__main__ import main as command_line

    for seed in run.seeds:
        if (weights := weights_of(run, seed)) is not None:
            card_of(weights, run)
            print(f"{run.name}, seed {seed}: {weights} is there.")
            continue
        words = f"train {run.method} {data_arguments(run)} {run.arguments} --seed {seed} --out".split()
        if status := command_line([*words, str(folder_of(run, seed))]):
            return status
    return 0


def ship(run: Run) -> None:
    """Copies weights and card of the first seed into data/checkpoints. Raises RunError if they are missing or too large."""
    if not run.ships:
        raise RunError(f"{run.name} does not ship: give its line in RUNS a name for its weights.")
    weights = weights_of(run, run.seeds[0])
    if weights is None:
        raise not_trained(run)
    card_of(weights, run)
    target = trained.CHECKPOINTS / f"{run.ships}.safetensors"
    if weights != target:
        with (
            tempfile.TemporaryDirectory() as scratch
        ):  # so that the shipped weights stay until the new ones are complete
            made = Path(scratch) / target.name
            shutil.copyfile(weights, made)
            shutil.copyfile(weights.with_suffix(".json"), made.with_suffix(".json"))
            _trim(made)
            if (size := made.stat().st_size) > LARGEST:
                raise RunError(f"{weights} has {size / 1e6:.2f} MB; at most {LARGEST / 1e6:.0f} MB ship.")
            for file in (made, made.with_suffix(".json")):
                shutil.copyfile(file, trained.CHECKPOINTS / file.name)
    print(f"{target}: now run python -m tools.data.checksums")


def _trim(weights: Path) -> None:
    """Leaves the head over the base classes out of the weights of plain classification; the card says so."""
    from fsl_course.weights import checkpoints, learners

    learner, about = checkpoints.load_learner(weights)
    if "n_base" not in learners.OWN_SETTINGS.get(about["method"], {}):
        return
    about["settings"] = about["settings"] | {"n_base": 0}
    checkpoints.save_learner(weights, without_base_head(learner), about)
    card = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    note = "shipped without the head over the base classes, which new tasks do not use"
    checkpoints.save_json(weights.with_suffix(".json"), card | {"settings": about["settings"], "note": note})


def without_base_head(learner: FewShotLearner) -> FewShotLearner:
    """Returns a copy of a learner of plain classification for new tasks: its head holds a megabyte with thousands of classes."""
    from fsl_course.weights import learners

    bare = learners.make(learner.made_from["method"], **learner.made_from["settings"] | {"n_base": 0})
    kept = {name: tensor for name, tensor in learner.state_dict().items() if not name.startswith("head.")}
    bare.load_state_dict(bare.state_dict() | kept)
    return bare.eval()


def status() -> str:
    """Returns a line for each run: trained, evaluated, shipped, and its cells that stay below their paper without a reason."""
    measured, lines = rows(trained.RESULTS), [f"{'run':26s}trained  evaluated  shipped"]
    for run in RUNS:
        has_weights = "-" if run.method == "baselines" else _yes(all(weights_of(run, seed) for seed in run.seeds))
        shipped = "-" if not run.ships else _yes((trained.CHECKPOINTS / f"{run.ships}.safetensors").is_file())
        evaluated = _yes((trained.RESULTS / f"{run.name}.json").is_file())
        open_cells = [key_of(row) for row in measured if row["run"] == run.name and row["why"] == "not known"]
        words = f"  give reasons.json a reason for {', '.join(open_cells)}" if open_cells else ""
        lines.append(f"{run.name:26s}{has_weights:9s}{evaluated:11s}{shipped}{words}")
    return "\n".join(lines)


def _yes(true: bool) -> str:
    return "yes" if true else "no"
