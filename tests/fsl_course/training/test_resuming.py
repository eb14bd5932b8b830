"""Runs that are killed, interrupted or lengthened go on bit for bit, and only with the same settings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fsl_course.episodes import EpisodeSampler
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.siamese import SiameseNetwork
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from fsl_course.training.run_state import RunState
from fsl_course.weights.checkpoints import CheckpointError, load_file
from tests.conftest import toy_images
from tests.fsl_course.training.toys import Recorder, learner, same, samplers, weights


def test_a_resumed_optimiser_has_the_memory_layout_of_its_weights(tmp_path, monkeypatch):
    """Convolution weights are channels-last; files are not. Elements must meet in the order of the run before."""
    train, _ = samplers()
    path, found, step = tmp_path / "run.safetensors", [], torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        found.extend((p.stride(), self.state[p]["exp_avg"].stride(), self.state[p]["exp_avg_sq"].stride())
                     for p in self.param_groups[0]["params"] if p in self.state)  # fmt: skip
        return step(self, *args, **kwargs)

    fit(learner(), train, steps=1, checkpoint=path, progress=False)
    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    fit(learner(), train, steps=2, checkpoint=path, progress=False)
    assert len(found) == len(list(learner().parameters()))
    assert all(own == first == second for own, first, second in found)


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from tests.fsl_course.training.toys import learner, samplers
from fsl_course.training.loop import fit
train, validation = samplers()
fit(learner(), train, steps=2000, lr=0.01, halve_every=20, validation=validation, validate_every=10,
    validation_episodes=10, checkpoint=sys.argv[1], save_every=7, progress=False)
"""


ROOT = Path(__file__).resolve().parents[3]


def start(checkpoint: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(checkpoint)], env=environment, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if checkpoint.exists() and load_file(checkpoint)[1]["done"]:  # the one written at the start does not count
            break
        time.sleep(0.02)
    return process


def go_on(module: PrototypicalNetwork, checkpoint: Path | None, steps: int):
    """The run of SCRIPT up to `steps`, from its checkpoint or from the beginning."""
    train, validation = samplers()
    return fit(module, train, steps=steps, lr=0.01, halve_every=20, validation=validation, validate_every=10,
               validation_episodes=10, checkpoint=checkpoint, save_every=7, progress=False)  # fmt: skip


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    process = start(checkpoint)
    time.sleep(0.3)
    process.kill()  # SIGKILL: nothing can be saved any more
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    done = load_file(checkpoint)[1]["done"]
    assert done >= 7
    assert done % 7 == 0
    whole, resumed = learner(), learner(seed=7)  # resumed starts from other weights: only the checkpoint may matter
    resumed_history = go_on(resumed, checkpoint, done + 9)
    history = go_on(whole, None, done + 9)
    assert same(weights(whole), weights(resumed))
    assert history.loss == resumed_history.loss
    assert history.validation == resumed_history.validation
    last = [load_file(checkpoint)[0], tmp_path / "whole.safetensors"]
    go_on(learner(), last[1], done + 9)
    assert same(last[0], load_file(last[1])[0])  # last weights, best weights, optimiser and random state


def test_ctrl_c_finishes_the_step_and_keeps_the_last_state(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    process = start(checkpoint)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Stopped after step" in output
    assert "the same call goes on from there" in output
    _, about = load_file(checkpoint)
    assert about["history"]["interrupted"] is True
    assert about["done"] == len(about["history"]["loss"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])  # Ctrl-C; a job scheduler
def test_an_interrupted_run_keeps_weights_in_memory_and_says_so(capsys, number):
    train, _ = samplers()
    module, before, calls = learner(), signal.getsignal(number), []

    def press(*args):
        calls.append(args)
        if len(calls) == 3:
            os.kill(os.getpid(), number)

    module.register_forward_pre_hook(press)
    history = fit(module, train, steps=100_000, progress=False)
    assert history.interrupted
    assert len(history.loss) == 3  # the step under way is finished
    assert "The learner keeps its weights" in capsys.readouterr().out
    again = learner()
    fit(again, train, steps=len(history.loss), progress=False)
    assert same(weights(module), weights(again))
    assert signal.getsignal(number) is before


class Presses(Recorder):
    """Presses Ctrl-C so many times in its next step."""

    _times = 0

    def training_step(self, episodes):
        for _ in range(self._times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # a handler runs between two lines of Python
        self._times = 0
        return super().training_step(episodes)


def test_the_second_ctrl_c_stops_at_once_and_a_resumed_history_forgets_the_first(tmp_path):
    train, _ = samplers()
    path, module = tmp_path / "run.safetensors", Presses()
    module._times = 2
    with pytest.raises(KeyboardInterrupt):
        fit(module, train, steps=3, progress=False)
    module._times = 1
    first = fit(module, train, steps=3, cosine=True, checkpoint=path, progress=False)
    assert first.interrupted
    assert len(first.loss) == 1
    with pytest.raises(CheckpointError, match="other settings \\(steps: 3 there, 4 now"):
        fit(module, train, steps=4, cosine=True, checkpoint=path, progress=False)  # another cosine
    second = fit(module, train, steps=3, cosine=True, checkpoint=path, progress=False)
    assert not second.interrupted
    assert len(second.loss) == 3
    assert second.seconds >= first.seconds


def test_other_settings_are_refused_and_more_steps_are_welcome(tmp_path):
    train, _ = samplers()
    path = tmp_path / "run.safetensors"
    fit(learner(), train, steps=4, checkpoint=path, progress=False)
    with pytest.raises(CheckpointError, match="other settings \\(lr: 0.001 there, 0.01 now\\)"):
        fit(learner(), train, steps=4, lr=0.01, checkpoint=path, progress=False)
    more, once = learner(3), learner()
    assert len(fit(more, train, steps=6, checkpoint=path, progress=False).loss) == 6
    fit(once, train, steps=6, progress=False)
    assert same(weights(more), weights(once))
    with pytest.raises(CheckpointError, match="do not fit this learner"):
        fit(PrototypicalNetwork(conv4(16)), train, steps=6, checkpoint=path, progress=False)
    with pytest.raises(CheckpointError, match="has 6 steps behind it, more than the 5 asked for"):
        fit(learner(), train, steps=5, checkpoint=path, progress=False)


def test_other_classes_or_another_method_are_other_settings(tmp_path):
    source, path = toy_images(), tmp_path / "run.safetensors"
    first, second = (EpisodeSampler(source.select(rows), 3, 1, 2) for rows in (range(6), range(6, 12)))
    fit(learner(), first, steps=1, checkpoint=path, progress=False)
    with pytest.raises(CheckpointError, match="other settings \\(sampler: "):
        fit(learner(), second, steps=2, checkpoint=path, progress=False)

    class Another(PrototypicalNetwork):
        pass

    with pytest.raises(
        CheckpointError, match="learner: .PrototypicalNetwork.distance='euclidean', scale=1.0.. there, .Another"
    ):
        fit(Another(conv4(8)), first, steps=2, checkpoint=path, progress=False)


def test_another_setting_of_the_method_is_another_run(tmp_path):
    train, path = EpisodeSampler(toy_images(), 3, 1, 2), tmp_path / "run.safetensors"
    fit(SiameseNetwork(conv4(8), "contrastive"), train, steps=1, checkpoint=path, progress=False)
    with pytest.raises(CheckpointError, match="objective='contrastive'.*there.*objective='triplet'.*now"):
        fit(SiameseNetwork(conv4(8), "triplet"), train, steps=2, checkpoint=path, progress=False)


def test_the_random_state_of_a_gpu_is_saved_and_comes_back(tmp_path, monkeypatch):
    """With a stand-in for the GPU: its state is one tensor that is asked for and given back."""
    module, asked = learner(), []
    run = RunState(module, torch.optim.Adam(module.parameters()), {"steps": 1, "cosine": False})
    run.device = torch.device("cuda", 1)
    state = torch.arange(16, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked.append(device) or state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda new, device: asked.append((new.tolist(), device)))
    run.save(tmp_path / "run.safetensors")
    run.load(tmp_path / "run.safetensors")
    assert asked == [run.device, (state.tolist(), run.device)]
    run.device = torch.device("cpu")
    run.save(tmp_path / "cpu.safetensors")
    run.device = torch.device("cuda", 1)
    run.load(tmp_path / "cpu.safetensors")  # begun on a processor: there is no such state
    assert len(asked) == 2


def test_the_step_count_of_adam_stays_on_the_cpu_where_the_weights_are_elsewhere(tmp_path):
    path = tmp_path / "run.safetensors"
    module = SiameseNetwork(conv4(8))  # its bias is a scalar, as the count is
    fit(module, samplers()[0], steps=1, checkpoint=path, progress=False)
    tensors, _ = load_file(path)
    away = SiameseNetwork(conv4(8)).to("meta")
    run = RunState(away, torch.optim.Adam(away.parameters()), {})
    run._load_optimiser({k.removeprefix("optimiser."): t for k, t in tensors.items() if k.startswith("optimiser.")})
    states = run.optimiser.state.values()
    assert {s["step"].device.type for s in states} == {"cpu"}
    assert {s["exp_avg"].device.type for s in states} == {"meta"}
