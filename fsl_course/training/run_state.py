"""The state of a training run, from which a killed run goes on bit for bit: weights, optimiser, history, random numbers."""

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from fsl_course.episodes import EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import evaluate, metric_of
from fsl_course.methods.base import FewShotLearner
from fsl_course.training.distributed import Processes
from fsl_course.weights.checkpoints import CheckpointError, layouts_like, load_file, load_weights, save_file
from fsl_course.weights.learners import OWN_SETTINGS, SETTINGS

_ANEW = "to start anew, delete it or name another place."
_GO_ON = f"Take the same settings to go on; {_ANEW}"


@dataclass
class History:
    """What happened in a run, step by step.

    loss:        of every step
    accuracy:    on the queries of every step, for classification methods whose loss calls forward; otherwise empty
    validation:  (steps done, mean, ci95), accuracy or mean squared error
    best_step:   steps done when validation was best; None without validation
    interrupted: True when Ctrl-C (or the stop button) ended the run early
    seconds:     time spent in this and earlier parts of the run
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    validation: list[tuple[int, float, float]] = field(default_factory=list)
    best_step: int | None = None
    interrupted: bool = False
    seconds: float = 0.0


def named(learner: FewShotLearner) -> str:
    """Returns a learner's class and plain settings, e.g. "SiameseNetwork(margin=10.0, objective='bce')". A run keeps to them."""
    plain = {k: v for k, v in vars(learner).items() if not k.startswith("_") and k != "training"}
    plain = {k: v for k, v in sorted(plain.items()) if v is None or isinstance(v, (bool, int, float, str))}
    return f"{type(learner).__name__}({', '.join(f'{k}={v!r}' for k, v in plain.items())})"


def _whole(about: dict[str, Any]) -> bool:
    """Returns True if the metadata of a saved state has the form in which `save` wrote it."""

    def numbers(values: Any) -> bool:
        return isinstance(values, (list, tuple)) and all(type(value) in (int, float) for value in values)

    settings, done, history = (about.get(name) for name in ("settings", "done", "history"))
    if not isinstance(settings, dict) or type(done) is not int or not isinstance(history, dict):
        return False
    if set(history) != {each.name for each in fields(History)}:
        return False
    best, rows, losses = history["best_step"], history["validation"], history["loss"]
    single = [history["seconds"], 0 if best is None else best]
    lists = all(map(numbers, (losses, history["accuracy"], single))) and isinstance(rows, list)
    return lists and len(losses) == done and all(numbers(row) and len(row) == 3 for row in rows)


def _damaged(path: Path | str, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is no whole state of a run ({what}). Delete it to start again, or restore a copy.")


def _shapes(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


class RunState:
    """The state of one run: everything that a killed run needs to go on bit for bit."""

    def __init__(self, learner: FewShotLearner, optimiser: torch.optim.Optimizer, settings: dict[str, Any]) -> None:
        self.learner, self.optimiser = learner, optimiser
        self.settings = settings | {"made": (learner.made_from or {}).get("settings", {})}
        self.history, self.done = History(), 0
        self.best: dict[str, Tensor] = {}
        self.device = next(learner.parameters()).device

    def add_step(self, loss: float, accuracy: float | None) -> None:
        """Counts a step and appends its numbers to the history. accuracy: None if the step calls no forward on class labels."""
        self.done += 1
        self.history.loss.append(loss)
        if accuracy is not None:
            self.history.accuracy.append(accuracy)

    def validate(self, sampler: EpisodeSampler | SinusoidSampler, episodes: int, group: Processes) -> None:
        """Evaluates the learner in the first process, and keeps its weights if they are the best so far. The others wait."""
        if group.first:
            metric, history = metric_of(sampler), self.history
            result = evaluate(self.learner, sampler, episodes, metric=metric)
            history.validation.append((self.done, result.mean, result.ci95))
            means = [-mean if metric == "mse" else mean for _, mean, _ in history.validation]
            if means[-1] > max(means[:-1], default=-math.inf):
                history.best_step = self.done
                # copies, because a state_dict goes on changing with the weights
                self.best = {name: tensor.detach().clone() for name, tensor in self.learner.state_dict().items()}
        group.wait()

    def save(self, path: Path) -> None:
        """Writes the whole state to a file: tensors, and JSON-able metadata. Raises CheckpointError if that fails."""
        tensors = {f"model.{k}": t for k, t in self.learner.state_dict().items()}
        tensors |= {f"best.{k}": t for k, t in self.best.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items() if v is not None}
        tensors["rng"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        about = {"settings": self.settings, "done": self.done, "history": asdict(self.history)}
        save_file(path, tensors, about)

    def resume(self, path: Path) -> None:
        """Goes on from a file. Ignores the file of another run if no step of it is done, because the next save replaces it."""
        try:
            self.load(path)
        except CheckpointError:
            if load_file(path)[1].get("done") != 0:
                raise

    def load(self, path: Path) -> None:
        """Loads a file of `save`. Raises CheckpointError, and leaves this run as it was, if the file does not fit."""
        tensors, about = load_file(path)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            if part in parts:
                parts[part][rest] = tensor
        if not _whole(about):
            raise _damaged(path, "settings, steps or history are missing or of another form")
        found, mine = self._flat(about["settings"]), self._flat(self.settings)
        changed = [k for k in {**found, **mine} if k != "steps" and found.get(k) != mine.get(k)]
        if about["done"] > self.settings["steps"]:
            asked = f"more than the {self.settings['steps']} asked for. Ask for at least as many; {_ANEW}"
            raise CheckpointError(f"{path} has {about['done']} steps behind it, {asked}")
        if self.settings["cosine"] and found.get("steps") != self.settings["steps"]:
            changed.append("steps")
        if changed:
            lines = "; ".join(f"{k}: {found.get(k)!r} there, {mine.get(k)!r} now" for k in changed)
            raise CheckpointError(f"{path} belongs to a run with other settings ({lines}). {_GO_ON}")
        there, now = _shapes(parts["model"]), _shapes(self.learner.state_dict())
        if differ := sorted(name for name in there.keys() | now.keys() if there.get(name) != now.get(name)):
            name = differ[0]
            shapes = f"{name:.80} is {there.get(name)} there, {now.get(name)} now"
            raise CheckpointError(f"the weights in {path} do not fit this learner: {shapes}. {_GO_ON}")
        if wrong := self._unfit(parts, about["done"], tensors.get("rng")):
            raise _damaged(path, wrong)
        load_weights(self.learner, parts["model"], path)
        self._load_optimiser(parts["optimiser"])
        self.best = parts["best"]
        self.done = about["done"]
        history = about["history"]
        history["validation"] = [tuple(v) for v in history["validation"]]
        self.history = History(**history)
        self.history.interrupted = False
        torch.set_rng_state(tensors["rng"])
        if self.device.type == "cuda" and "cuda_rng" in tensors:  # missing if the run was on a processor before
            torch.cuda.set_rng_state(tensors["cuda_rng"], self.device)

    def _flat(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Returns the settings of a run, and beside them all those of its learner, of which some do not show in its weights."""
        method = (self.learner.made_from or {}).get("method", "")
        made = settings.get("made", self.settings["made"])  # an older state does not tell
        others = {name: value for name, value in settings.items() if name != "made"}
        return SETTINGS | OWN_SETTINGS.get(method, {}) | made | others

    def _unfit(self, parts: dict[str, dict[str, Tensor]], done: int, rng: Tensor | None) -> str:
        """Returns what else than the weights of a saved state cannot be used, or "" if all can."""
        if rng is None or rng.dtype != torch.uint8 or rng.shape != torch.get_rng_state().shape:
            return "the state of the random numbers is missing or not one"
        if parts["best"] and _shapes(parts["best"]) != _shapes(parts["model"]):
            return "the best weights are not like the last ones"
        if bool(parts["optimiser"]) != (done > 0):
            return f"after {done} steps its optimiser remembers {len(parts['optimiser'])} tensors"
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        expected: dict[str, list[int] | None] = {}
        for index in {name.partition(".")[0] for name in parts["optimiser"]}:
            shape = list(parameters[int(index)].shape) if index.isdecimal() and int(index) < len(parameters) else None
            expected |= {f"{index}.step": [], f"{index}.exp_avg": shape, f"{index}.exp_avg_sq": shape}
        if _shapes(parts["optimiser"]) != expected:
            return "what the optimiser remembers does not fit the weights"
        return ""

    def _load_optimiser(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        for name, tensor in tensors.items():
            index, _, key = name.partition(".")
            target = parameters[int(index)]
            # Adam counts its steps on the CPU, wherever the weights are
            same_shape = tensor.shape == target.shape and key != "step"
            state.setdefault(int(index), {})[key] = layouts_like(tensor, target) if same_shape else tensor
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})

    def spread(self, group: Processes) -> None:
        """Gives every process the state of the first. Raises CheckpointError in a process that has other settings."""
        if group.size == 1:
            return
        with TemporaryDirectory() as folder:  # a file, because its format executes no code when it is read
            path = Path(folder) / "state-of-the-first-process.safetensors"
            if group.first:
                self.save(path)
            content = group.from_first(path.read_bytes() if group.first else b"")
            if not group.first:
                path.write_bytes(content)
                self.load(path)
