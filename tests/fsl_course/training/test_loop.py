import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fsl_course.episodes import Episode, EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import MAML
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.relation import RelationNetwork
from fsl_course.methods.siamese import SiameseNetwork
from fsl_course.nets import classifier, conv4, mlp
from fsl_course.training.loop import fit, learning_rate
from fsl_course.training.run_state import RunState
from fsl_course.weights.checkpoints import CheckpointError, load_file
from tests.conftest import toy_images


def learner(seed: int = 0) -> PrototypicalNetwork:
    torch.manual_seed(seed)
    return PrototypicalNetwork(conv4(8))


def samplers() -> tuple[EpisodeSampler, EpisodeSampler]:
    source = toy_images(24, 8, noise=200)
    return EpisodeSampler(source.split("train"), 5, 1, 3), EpisodeSampler(source.split("val"), 5, 1, 3)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_step_is_adam_on_the_mean_loss_of_its_tasks():
    train, _ = samplers()
    ours, theirs = learner().eval(), learner()  # fit puts a learner into training mode by itself
    history = fit(ours, train, steps=2, tasks=3, lr=0.01, progress=False)
    optimiser = torch.optim.Adam(theirs.parameters(), lr=0.01)
    theirs.train()
    for step in range(2):
        loss = sum(theirs.loss(train[step * 3 + t]) for t in range(3)) / 3
        assert history.loss[step] == pytest.approx(loss.item(), rel=1e-5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert len(history.accuracy) == 2
    assert not ours.training


def test_schedules():
    common = {"lr": 0.1, "steps": 100}
    assert learning_rate(99, halve_every=None, cosine=False, **common) == 0.1
    assert [learning_rate(s, halve_every=10, cosine=False, **common) for s in (9, 10, 29)] == [0.1, 0.05, 0.025]
    assert learning_rate(0, halve_every=None, cosine=True, **common) == 0.1
    assert learning_rate(50, halve_every=None, cosine=True, **common) == pytest.approx(0.05)


def test_the_rate_reaches_the_optimiser():
    """Adam's first steps have the length of the rate: after halving to almost nothing the weights hardly move."""
    train, _ = samplers()
    short, long = learner(), learner()
    fit(short, train, steps=1, lr=0.01, progress=False)
    fit(long, train, steps=31, lr=0.01, halve_every=1, progress=False)
    moved = max((a - b).abs().max().item() for a, b in zip(short.parameters(), long.parameters(), strict=True))
    assert moved <= 0.01 * 1.5  # 0.005 + 0.0025 + ... with Adam's steps of at most about the rate


class Recorder(FewShotLearner):
    """One weight whose gradient is a constant 1000."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.gradients: list[float] = []
        self.weight.register_post_accumulate_grad_hook(lambda p: None)

    def training_step(self, episodes):
        return 1000 * self.weight.sum()


def test_clipping_bounds_the_gradient():
    train, _ = samplers()
    module = Recorder()
    seen = []
    step = torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        seen.append(float(module.weight.grad))
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", spy)
        fit(module, train, steps=1, clip=2.0, progress=False)
        fit(module, train, steps=1, progress=False)
    assert seen == pytest.approx([2.0, 1000.0], rel=1e-4)


def test_best_weights_are_copies_and_come_back(tmp_path):
    train, validation = samplers()
    module = learner()
    options = {"validation": validation, "validate_every": 5, "validation_episodes": 20, "progress": False}
    history = fit(module, train, steps=30, lr=0.02, **options)
    best = max(mean for _, mean, _ in history.validation)
    assert evaluate(module, validation, 20).mean == best
    assert history.best_step == next(step for step, mean, _ in history.validation if mean == best)
    assert [step for step, _, _ in history.validation] == [5, 10, 15, 20, 25, 30]
    # the same run without validation ends elsewhere unless the last step was the best
    last = learner()
    fit(last, train, steps=history.best_step, lr=0.02, progress=False)
    assert same(weights(last), weights(module))


class Constant(Recorder):
    """Every slot is equally likely to it, whatever its weight."""

    def forward(self, episode):
        return torch.zeros(len(episode.query_y), episode.n_way)


def test_among_equally_good_weights_the_first_are_kept():
    train, validation = samplers()
    module = Constant()
    history = fit(module, train, steps=4, lr=0.1, validation=validation, validate_every=1, validation_episodes=3,
                  progress=False)  # fmt: skip
    assert len({mean for _, mean, _ in history.validation}) == 1
    assert history.best_step == 1
    assert module.weight.item() == pytest.approx(-0.1, rel=1e-3)  # one step of Adam


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
from tests.fsl_course.training.test_loop import learner, samplers
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


def test_a_folder_that_cannot_be_written_shows_before_the_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    train, _ = samplers()
    module = learner()
    with pytest.raises(CheckpointError, match="could not write"):
        fit(module, train, steps=5, checkpoint=tmp_path / "file" / "run.safetensors", progress=False)
    assert same(weights(module), weights(learner()))


def test_a_lost_process_and_a_full_disk_do_not_promise_a_state_that_was_not_written(tmp_path, monkeypatch):
    train, _ = samplers()
    path = tmp_path / "run.safetensors"
    fit(learner(), train, steps=2, checkpoint=path, progress=False)

    def lost(start: int, tasks: int):
        raise ConnectionError("another process of this run has ended.")

    monkeypatch.setattr(train, "batch", lost)
    with pytest.raises(ConnectionError, match=r"The state after step 2 is in .*: start again"):
        fit(learner(), train, steps=5, checkpoint=path, progress=False)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with (
        pytest.warns(UserWarning, match="No space left.*untouched"),
        pytest.raises(ConnectionError, match=r"has ended\.$"),
    ):
        fit(learner(), train, steps=5, checkpoint=path, progress=False)


def test_a_full_disk_does_not_end_the_training(tmp_path, monkeypatch):
    train, _ = samplers()
    path = tmp_path / "run.safetensors"
    fit(learner(), train, steps=2, checkpoint=path, progress=False)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    module = learner()
    with (
        pytest.warns(UserWarning, match="No space left.*untouched.*Training goes on"),
        pytest.raises(CheckpointError, match="No space left on device"),
    ):
        fit(module, train, steps=5, save_every=2, checkpoint=path, progress=False)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]  # no scratch file is left
    once = learner()
    fit(once, train, steps=5, progress=False)
    assert same(weights(module), weights(once))  # what was trained is still in memory


class Sines(FewShotLearner):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp((1, 8, 1))

    def forward(self, episode):
        return self.net(episode.query_x)

    def loss(self, episode):
        return torch.nn.functional.mse_loss(self(episode), episode.query_y)


def test_regression_tasks_are_validated_by_their_error():
    torch.manual_seed(0)
    history = fit(Sines(), SinusoidSampler(), steps=4, tasks=5, validation=SinusoidSampler(seed=1), validate_every=2,
                  validation_episodes=10, progress=False)  # fmt: skip
    assert history.accuracy == []
    best = min(history.validation, key=lambda row: row[1])
    assert history.best_step == best[0]


class Explodes(Recorder):
    def training_step(self, episodes):
        return self.weight.sum() * float("nan")


def test_a_loss_that_is_not_a_number_stops_with_advice():
    train, _ = samplers()
    with pytest.raises(FloatingPointError, match="nan at step 0: try a smaller lr"):
        fit(Explodes(), train, steps=2, progress=False)


class Overflows(PrototypicalNetwork):
    """Its third task holds infinite pictures."""

    def loss(self, episode):
        self.calls = getattr(self, "calls", 0) + 1
        return super().loss(episode.to(torch.float32) if self.calls < 3 else Overflows.infinite(episode))

    @staticmethod
    def infinite(episode):
        return Episode(episode.support_x / 0, episode.support_y, episode.query_x, episode.query_y, episode.classes)


def test_after_a_loss_that_is_not_a_number_the_learner_is_as_before_that_step():
    """The weights, and the running statistics of batch norm too: one infinite picture would spoil them for ever."""
    train, _ = samplers()
    torch.manual_seed(0)
    module, twin = Overflows(conv4(8)), learner()
    with pytest.raises(FloatingPointError, match="the loss became nan at step 2"):
        fit(module, train, steps=5, progress=False)
    fit(twin, train, steps=2, progress=False)
    assert same(weights(module), weights(twin))
    assert not module.training


class BareRoot(Recorder):
    """A finite loss whose gradient is 0 / 0."""

    def training_step(self, episodes):
        return self.weight.square().sum().sqrt()


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_a_number_stops_before_it_reaches_the_weights(clip):
    module = BareRoot()
    with pytest.raises(FloatingPointError, match="the norm of the gradient became nan at step 0"):
        fit(module, samplers()[0], steps=2, clip=clip, progress=False)
    assert module.weight.tolist() == [0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 1, "clip": -1.0}, "clip must be a gradient norm above 0, or None; got -1.0"),
        ({"steps": 0}, "must be at least 1; got 0"),
        ({"steps": 1, "tasks": 0}, "must be at least 1"),
        ({"steps": 1, "halve_every": 5, "cosine": True}, "cannot be combined"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    train, validation = samplers()
    with pytest.raises(ValueError, match=message):
        fit(learner(), train, **arguments)
    with pytest.raises(ValueError, match="validation_episodes must be at least 2"):
        fit(learner(), train, steps=1, validation=validation, validation_episodes=1)


def test_nothing_to_train_is_explained():
    from fsl_course.methods.baselines import Chance

    with pytest.raises(ValueError, match="Chance has no parameters to train"):
        fit(Chance(), samplers()[0], steps=1)


def test_the_state_is_json_and_tensors_only(tmp_path):
    train, validation = samplers()
    path = tmp_path / "run.safetensors"
    fit(learner(), train, steps=2, validation=validation, validation_episodes=5, checkpoint=path, progress=False)
    tensors, about = load_file(path)
    assert {name.partition(".")[0] for name in tensors} == {"model", "best", "optimiser", "rng"}
    assert json.loads(json.dumps(about))["settings"]["sampler"] == train.key


def test_weight_decay_reaches_adam():
    train, _ = samplers()
    ours, theirs = learner(), learner()
    fit(ours, train, steps=1, lr=0.01, weight_decay=10.0, progress=False)
    optimiser = torch.optim.Adam(theirs.parameters(), lr=0.01, weight_decay=10.0)
    theirs.train().loss(train[0]).backward()
    optimiser.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    plain = learner()
    fit(plain, train, steps=1, lr=0.01, progress=False)
    assert not same(weights(plain), weights(ours))


def test_a_slow_run_is_saved_by_the_clock_and_a_fast_one_does_not_save_all_the_time(tmp_path, monkeypatch):
    train, _ = samplers()
    saved, save = [], RunState.save

    def spy(self, path):
        saved.append(self.done)
        save(self, path)

    monkeypatch.setattr(RunState, "save", spy)
    fit(learner(), train, steps=3, checkpoint=tmp_path / "run.safetensors", progress=False)
    assert saved == [0, 3]  # three fast steps, far fewer than save_every
    saved.clear()
    monkeypatch.setattr("fsl_course.training.saving._SHARE", 10**9)  # as if saving took for ever
    fit(learner(), train, steps=3, save_every=1, checkpoint=tmp_path / "costly.safetensors", progress=False)
    assert saved == [0, 3]
    saved.clear()
    monkeypatch.setattr("fsl_course.training.saving._SECONDS", -1.0)
    fit(learner(), train, steps=3, checkpoint=tmp_path / "slow.safetensors", progress=False)
    assert saved == [0, 1, 2, 3, 3]


def test_batches_go_to_the_device_of_the_learner(monkeypatch):
    seen = []
    monkeypatch.setattr(Episode, "to", lambda self, target: seen.append(target) or self)
    fit(learner(), samplers()[0], steps=2, progress=False)
    assert seen == [torch.device("cpu")] * 2


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


class Watched(PrototypicalNetwork):
    """Notes the dtypes of its first convolution and of what its encoder returns; fails in the step that it is told to."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(conv4(8))
        self.dtypes: list[tuple[torch.dtype, torch.dtype]] = []
        self.fail_at: int | None = None
        self.encoder.layers[0].register_forward_hook(lambda module, args, output: self.inner.append(output.dtype))
        self.inner: list[torch.dtype] = []

    def embed(self, x):
        z = super().embed(x)
        self.dtypes.append((self.inner.pop(), z.dtype))
        if self.fail_at == len(self.dtypes):
            raise RuntimeError("in the middle of a step")
        return z


def test_in_bfloat16_convolutions_are_lowered_and_nothing_else():
    module = Watched()
    fit(module, samplers()[0], steps=3, bfloat16=True, progress=False)
    assert set(module.dtypes) == {(torch.bfloat16, torch.float32)}
    assert {p.dtype for p in module.parameters()} == {p.grad.dtype for p in module.parameters()} == {torch.float32}
    assert {b.dtype for b in module.buffers()} == {torch.float32, torch.int64}
    plain = Watched()
    fit(plain, samplers()[0], steps=1, progress=False)
    assert set(plain.dtypes) == {(torch.float32, torch.float32)}


def test_after_an_error_in_bfloat16_the_encoder_is_as_before():
    module = Watched()
    module.fail_at = 2
    with pytest.raises(RuntimeError, match="in the middle of a step"):
        fit(module, samplers()[0], steps=3, bfloat16=True, progress=False)
    assert "forward" not in vars(module.encoder)
    module.dtypes.clear()
    module.embed(torch.rand(2, 1, 28, 28))
    assert module.dtypes == [(torch.float32, torch.float32)]


@pytest.mark.parametrize("make", [lambda: PrototypicalNetwork(conv4(8)), lambda: RelationNetwork(8)])
def test_training_in_bfloat16_stays_close_to_float32(make):
    train, _ = samplers()
    losses, gradients = [], []
    for lowered in (False, True):
        torch.manual_seed(0)
        module = make()
        loss = fit(module, train, steps=1, bfloat16=lowered, progress=False).loss
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
        losses.append(loss + fit(module, train, steps=30, lr=0.005, bfloat16=lowered, progress=False).loss)
    # the same weights still: bfloat16 has 8 bits, 0.4 % a number; a gradient adds them up over four layers
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.01)
    assert 1e-6 < (gradients[1] - gradients[0]).norm() / gradients[0].norm() < 0.3
    for run in losses:
        assert sum(run[-5:]) < 0.7 * sum(run[:5])


def test_methods_that_adapt_weights_refuse_bfloat16(tmp_path):
    path = tmp_path / "run.safetensors"
    module = MAML(classifier(conv4(8), 5), 0.1, 1)
    with pytest.raises(ValueError, match="bfloat16 is for methods with an encoder; MAML adapts its weights"):
        fit(module, samplers()[0], steps=1, bfloat16=True, checkpoint=path, progress=False)
    assert not path.exists()


def test_a_run_in_bfloat16_goes_on_bit_for_bit_and_only_in_bfloat16(tmp_path):
    train, _ = samplers()
    path, whole, resumed = tmp_path / "run.safetensors", learner(), learner(seed=7)
    fit(learner(), train, steps=4, bfloat16=True, checkpoint=path, progress=False)
    with pytest.raises(CheckpointError, match="other settings \\(bfloat16: True there, None now\\)"):
        fit(resumed, train, steps=8, checkpoint=path, progress=False)
    fit(resumed, train, steps=8, bfloat16=True, checkpoint=path, progress=False)
    fit(whole, train, steps=8, bfloat16=True, progress=False)
    assert same(weights(whole), weights(resumed))
    plain = tmp_path / "plain.safetensors"
    fit(learner(), train, steps=1, checkpoint=plain, progress=False)
    assert "bfloat16" not in load_file(plain)[1]["settings"]  # states from before the option stay good
    with pytest.raises(CheckpointError, match="bfloat16: None there, True now"):
        fit(learner(), train, steps=2, bfloat16=True, checkpoint=plain, progress=False)
