import copy
from collections.abc import Callable

import pytest
import torch

from fsl_course.episodes import EpisodeSampler
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import CheckpointError, load_file, save_file
from tests.conftest import toy_images


def learner(width: int = 2) -> PrototypicalNetwork:
    torch.manual_seed(0)
    return PrototypicalNetwork(conv4(width))


def run(module: PrototypicalNetwork, path, steps: int, **settings) -> None:
    images = toy_images(classes=6, drawings=4)
    sampler = EpisodeSampler(images, 2, 1, 1)
    fit(
        module,
        sampler,
        steps=steps,
        validation=sampler,
        validation_episodes=2,
        checkpoint=path,
        progress=False,
        **settings,
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> tuple[dict[str, torch.Tensor], dict]:
    path = tmp_path_factory.mktemp("state") / "run.safetensors"
    run(learner(), path, 2)
    return load_file(path)


def without(name: str) -> Callable:
    return lambda tensors, about: tensors.pop(name)


def tensor(name: str, value: torch.Tensor) -> Callable:
    return lambda tensors, about: tensors.update({name: value})


def word(name: str, value: object) -> Callable:
    return lambda tensors, about: about.update({name: value})


def past(name: str, value: object) -> Callable:
    return lambda tensors, about: about["history"].update({name: value})


BEST = "best.encoder.layers.0.weight"
DAMAGE = {
    "no random numbers": without("rng"),
    "short random numbers": tensor("rng", torch.zeros(10, dtype=torch.uint8)),
    "random numbers of another kind": tensor("rng", torch.zeros(5056)),
    "no moment": without("optimiser.0.exp_avg"),
    "moment of another shape": tensor("optimiser.0.exp_avg", torch.zeros(7)),
    "moment of no parameter": tensor("optimiser.999.exp_avg", torch.zeros(7)),
    "moment before the first": tensor("optimiser.-1.exp_avg", torch.zeros(7)),
    "moment without a number": tensor("optimiser.x.exp_avg", torch.zeros(7)),
    "no optimiser": lambda tensors, about: [tensors.pop(n) for n in list(tensors) if n.startswith("optimiser.")],
    "a best weight is missing": without(BEST),
    "a best weight of another shape": tensor(BEST, torch.zeros(7)),
    "no steps": lambda tensors, about: about.pop("done"),
    "steps in words": word("done", "2"),
    "half a step": word("done", 1.5),
    "steps below 0": word("done", -2),
    "fewer steps than losses": word("done", 1),
    "no settings": word("settings", None),
    "settings in a list": word("settings", [1]),
    "no history": word("history", None),
    "a history of something else": past("more", 1),
    "losses in words": past("loss", "ab"),
    "validation of numbers": past("validation", [1, 2]),
    "validation with too little": past("validation", [[1, 2]]),
    "time in words": past("seconds", "long"),
    "best step in words": past("best_step", "last"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_or_hostile_state_is_refused_before_anything_is_changed(what, state, tmp_path):
    tensors, about = dict(state[0]), copy.deepcopy(state[1])
    DAMAGE[what](tensors, about)
    path, module = tmp_path / "run.safetensors", learner()
    save_file(path, tensors, about)
    written, chance = path.read_bytes(), torch.get_rng_state()
    with pytest.raises(CheckpointError, match=r"is no whole state of a run \(.*\)\. Delete it to start again"):
        run(module, path, 3)
    assert path.read_bytes() == written
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(t, module.state_dict()[name]) for name, t in learner().state_dict().items())


def test_the_state_as_it_was_is_accepted(state, tmp_path):
    save_file(tmp_path / "run.safetensors", *state)
    run(learner(), tmp_path / "run.safetensors", 3)


def test_weights_of_another_network_leave_the_learner_as_it_was(state, tmp_path):
    save_file(tmp_path / "run.safetensors", *state)
    module = learner(width=3)
    with pytest.raises(CheckpointError, match=r"do not fit this learner: .* there, .* now\. Take the same settings"):
        run(module, tmp_path / "run.safetensors", 3)
    assert all(torch.equal(t, module.state_dict()[name]) for name, t in learner(width=3).state_dict().items())


def test_a_state_without_a_step_is_replaced_by_another_run_and_one_with_steps_is_not(tmp_path):
    path, module = tmp_path / "run.safetensors", learner()
    torch.nn.init.constant_(module.encoder.layers[0].weight, torch.nan)
    with pytest.raises(FloatingPointError):
        run(module, path, 2, lr=0.5)
    assert load_file(path)[1]["done"] == 0
    once = learner()
    run(once, None, 2)
    run(again := learner(), path, 2)
    assert all(torch.equal(t, once.state_dict()[name]) for name, t in again.state_dict().items())
    with pytest.raises(CheckpointError, match="other settings .lr: 0.001 there, 0.5 now.*to start anew, delete it"):
        run(learner(), path, 2, lr=0.5)
