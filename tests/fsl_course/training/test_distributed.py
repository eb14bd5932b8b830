"""Real processes that talk over gloo, started as torchrun starts them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file as load_tensors
from torch import nn

from fsl_course.episodes import EpisodeSampler, SinusoidSampler
from fsl_course.methods.anil import ANIL
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import MAML
from fsl_course.methods.matching import MatchingNetwork
from fsl_course.methods.meta_lstm import MetaLSTM
from fsl_course.methods.meta_sgd import MetaSGD
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.relation import RelationNetwork
from fsl_course.methods.reptile import Reptile
from fsl_course.methods.siamese import SiameseNetwork
from fsl_course.methods.transfer import TransferNetwork
from fsl_course.nets import classifier, conv4, mlp
from fsl_course.training import distributed
from fsl_course.training.distributed import Processes
from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import CheckpointError, load_file
from tests.conftest import toy_images

ROOT = Path(__file__).resolve().parents[3]
TASKS, SEED = 4, 3


def sampler(split: str = "train") -> EpisodeSampler:
    return EpisodeSampler(toy_images(24, 8, noise=200).split(split), 3, 1, 2, dtype=torch.float64)


def learners() -> dict[str, FewShotLearner]:
    """Every method, tiny and in float64, always with the same weights."""
    torch.manual_seed(SEED)
    head = classifier(conv4(4), 3)
    found = {
        "prototypical": PrototypicalNetwork(conv4(4)),
        "matching": MatchingNetwork(conv4(4), full_context=True),
        "siamese": SiameseNetwork(conv4(4)),
        "siamese triplet": SiameseNetwork(conv4(4), "triplet"),
        "relation": RelationNetwork(4),
        "transfer": TransferNetwork(conv4(4, norm="group"), 12),
        "maml": MAML(head, 0.1, 2),
        "maml at once": MAML(classifier(conv4(4), 3), 0.1, 1, vmap=True),
        "first order": MAML(classifier(conv4(4), 3), 0.1, 2, first_order=True),
        "anil": ANIL(classifier(conv4(4), 3), 0.1, 2),
        "meta_sgd": MetaSGD(classifier(conv4(4), 3), 0.1, 1),
        "reptile": Reptile(classifier(conv4(4), 3), 0.1, 3, batch=2),
        "meta_lstm": MetaLSTM(classifier(conv4(4), 3), 1),
        "sine": MAML(mlp((1, 8, 1)), 0.01, 1),
    }
    return {name: learner.double().train() for name, learner in found.items()}


def tasks_of(name: str) -> EpisodeSampler | SinusoidSampler:
    return SinusoidSampler(dtype=torch.float64) if name == "sine" else sampler()


def step(learner: FewShotLearner, source, group: Processes) -> tuple[dict[str, torch.Tensor], float]:
    """Gradients, buffers and loss of one training step, as `fit` makes it."""
    buffers = [(b, b.clone()) for b in learner.buffers()]
    loss = learner.training_step(source.batch(*group.share(TASKS, TASKS)))
    loss.backward()
    value = loss.item()
    if group.size > 1:
        (value,) = group.combine(learner, buffers, [value / group.size])
    found = {f"gradient {n}": p.grad.contiguous() for n, p in learner.named_parameters() if p.grad is not None}
    return found | {f"buffer {n}": b.contiguous() for n, b in learner.named_buffers()}, value


def fit_toy(learner: FewShotLearner, steps: int, checkpoint: Path | None, **more):
    return fit(learner, sampler(), steps=steps, tasks=TASKS, lr=0.01, halve_every=10, validation=sampler("val"),
               validate_every=5, validation_episodes=10, checkpoint=checkpoint, save_every=3, progress=False,
               **more)  # fmt: skip


def toy_learner(seed: int = 0) -> FewShotLearner:
    torch.manual_seed(seed)
    return PrototypicalNetwork(conv4(4)).double()


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[k].double() - b[k].double()).abs().max().item() for k in a)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(code: str, *arguments: object, size: int = 2) -> list[subprocess.Popen]:
    """The same Python code in several processes, each with the environment that torchrun would give it."""
    common = os.environ | {
        "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    head = "import sys, torch; torch.set_num_threads(1)\nfrom tests.fsl_course.training.test_distributed import *\n"
    return [
        subprocess.Popen(
            [sys.executable, "-c", head + code, *map(str, arguments)], cwd=ROOT, text=True,
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(size)
    ]  # fmt: skip


def ended(processes: list[subprocess.Popen], seconds: float = 120) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each; whatever happens, none is left behind."""
    try:
        found = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, found, strict=True)]


TOGETHER = """
from safetensors.torch import save_file
folder, length = Path(sys.argv[1]), 12

def note(name, tensors, about):
    save_file({k: t.clone(memory_format=torch.contiguous_format) for k, t in tensors.items()},
              folder / f"{name}-{rank}.safetensors")
    (folder / f"{name}-{rank}.json").write_text(json.dumps(about))

rank = int(os.environ["RANK"])
with distributed.processes() as group:
    found, losses = {}, {}
    for name, learner in learners().items():
        tensors, losses[name] = step(learner, tasks_of(name), group)
        found |= {f"{name}/{k}": t for k, t in tensors.items()}
    note("gradients", found, losses)
    learner = toy_learner(seed=rank)  # other weights at the start: those of the first process count
    history = fit_toy(learner, length, folder / "new.safetensors")
    note("new", weights(learner), [history.loss, history.accuracy, history.validation, history.best_step])
    learner = toy_learner(seed=rank)
    fit_toy(learner, length, folder / "old.safetensors")
    note("old", weights(learner), None)
os.environ["MASTER_PORT"] = sys.argv[2]
with distributed.processes():
    fit(toy_learner(), sampler(), steps=3, tasks=2, lr=0.01 * (1 + rank), progress=False)
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> tuple[Path, list[tuple[int, str, str]]]:
    """What two processes did: a step of every method, a new run, a run that one process had begun, one with other settings."""
    folder = tmp_path_factory.mktemp("together")
    torch.set_num_threads(1)
    fit_toy(toy_learner(), 7, folder / "old.safetensors")
    return folder, ended(start(TOGETHER, folder, free_port()))


def both(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Tensors that the two processes noted under a name, after a look that they are the same."""
    first, second = (load_tensors(folder / f"{name}-{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    return first


@pytest.mark.parametrize("name", learners())
def test_two_processes_have_the_gradient_and_statistics_of_one(together, name):
    found, losses = both(together[0], "gradients"), json.loads((together[0] / "gradients-0.json").read_text())
    learner = learners()[name]
    alone, value = step(learner, tasks_of(name), Processes())
    assert any(g.abs().max() > 1e-3 for k, g in alone.items() if k.startswith("gradient"))
    shared = {k.removeprefix(f"{name}/"): t for k, t in found.items() if k.startswith(f"{name}/")}
    assert largest_difference(shared, alone) < 1e-12
    assert losses[name] == pytest.approx(value, abs=1e-12)
    if name == "prototypical":  # where batch norm keeps running statistics, they must have moved
        assert shared["buffer encoder.layers.1.num_batches_tracked"].item() == TASKS


def test_a_run_of_two_processes_is_the_run_of_one(together):
    learner = toy_learner()
    expected = fit_toy(learner, 12, None)
    assert largest_difference(both(together[0], "new"), weights(learner)) < 1e-9
    first, second = (json.loads((together[0] / f"new-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first[0] == pytest.approx(expected.loss, abs=1e-9)
    assert first[1] == pytest.approx(expected.accuracy, abs=1e-9)
    assert [tuple(row) for row in first[2]] == expected.validation
    assert first[3] == expected.best_step
    assert "Stopped" not in "".join(output for _, output, _ in together[1])


def test_one_may_go_on_with_the_run_of_two_and_two_with_the_run_of_one(together, tmp_path):
    assert load_file(together[0] / "old.safetensors")[1]["done"] == 12
    learner = toy_learner()
    fit_toy(learner, 7, tmp_path / "run.safetensors")
    fit_toy(learner, 12, tmp_path / "run.safetensors")
    assert largest_difference(both(together[0], "old"), weights(learner)) < 1e-9
    longer, whole = toy_learner(seed=5), toy_learner()
    fit_toy(longer, 15, together[0] / "new.safetensors")
    fit_toy(whole, 12, tmp_path / "whole.safetensors")
    fit_toy(whole, 15, tmp_path / "whole.safetensors")
    assert largest_difference(weights(longer), weights(whole)) < 1e-9


def test_processes_with_different_settings_do_not_train_together(together):
    first, second = together[1]
    assert (first[0], second[0]) == (1, 1)
    assert "lr: 0.01 there, 0.02 now" in second[2]
    assert CheckpointError.__name__ in second[2]
    assert "another process of this run has ended" in first[2]


def wait_for_steps(checkpoint: Path, processes: list[subprocess.Popen], steps: int = 1) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and all(p.poll() is None for p in processes):
        if checkpoint.exists() and load_file(checkpoint)[1]["done"] >= steps:
            return
        time.sleep(0.02)


LONG = """
with distributed.processes() as group:
    while True:
        history = fit_toy(toy_learner(), 100_000, f"{sys.argv[1]}/run.safetensors")
        print("interrupted after", len(history.loss), history.interrupted, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to another process")
def test_asked_to_end_all_stop_after_the_same_step_and_a_killed_process_ends_the_run_in_words(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    processes = start(LONG, tmp_path)
    try:
        wait_for_steps(checkpoint, processes)
        processes[1].send_signal(signal.SIGTERM)
        stopped, first, second = (processes[rank].stdout.readline() for rank in (0, 0, 1))
        assert stopped.startswith("Stopped after step")  # one process speaks for both
        assert re.fullmatch(r"interrupted after \d+ True\n", first)
        assert first == second
        wait_for_steps(checkpoint, processes, int(first.split()[2]) + 1)  # they have gone on
        processes[1].kill()
        deadline = time.monotonic() + 60  # far below the ten minutes of a step
        while processes[0].poll() is None and time.monotonic() < deadline:
            processes[0].send_signal(signal.SIGTERM)  # as torchrun does, at whatever moment
            time.sleep(0.05)
    finally:
        found = ended(processes, seconds=10)
    assert found[1][0] == -signal.SIGKILL
    assert found[0][0] == 1
    done = load_file(checkpoint)[1]["done"]
    assert "ConnectionError: another process of this run has ended" in found[0][2]
    assert re.search(rf"The state after step {done} is in .*run.safetensors: start again to go on", found[0][2])
    resumed, alone = toy_learner(seed=9), toy_learner()
    fit_toy(resumed, done + 2, checkpoint)
    fit_toy(alone, done + 2, None)
    assert largest_difference(weights(resumed), weights(alone)) < 1e-9


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to another process")
def test_when_the_process_that_writes_is_killed_the_others_end_and_its_last_checkpoint_is_whole(tmp_path):
    processes = start(LONG, tmp_path)
    try:
        wait_for_steps(tmp_path / "run.safetensors", processes)
        processes[0].kill()
    finally:
        found = ended(processes, seconds=60)
    assert found[0][0] == -signal.SIGKILL
    assert found[1][0] == 1
    assert "ConnectionError: another process of this run has ended" in found[1][2]
    about = load_file(tmp_path / "run.safetensors")[1]
    assert about["done"] == len(about["history"]["loss"]) >= 3


def test_torchrun_trains_and_only_the_first_process_writes(tmp_path):
    command = [
        "-m", "torch.distributed.run", "--nproc-per-node", "2", f"--master-port={free_port()}", "-m", "fsl_course",
        "train", "prototypical", "--data", "glyphs", "--way", "5", "--query", "2", "--width", "4", "--steps", "4",
        "--tasks", "2", "--validate-every", "4", "--quiet", "--out", str(tmp_path),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prototypical-glyphs.json", "prototypical-glyphs.safetensors"]
    assert done.stdout.count("prototypical-glyphs.safetensors and its card") == 1


def test_tasks_that_cannot_be_shared_name_the_next_number(monkeypatch):
    monkeypatch.setattr(distributed, "_present", Processes(0, 4))
    for tasks, fitting in ((1, 4), (6, 8), (9, 12)):
        with pytest.raises(ValueError, match=f"tasks={tasks} cannot be shared .* 4 processes: take tasks={fitting} "):
            fit(toy_learner(), sampler(), steps=1, tasks=tasks, progress=False)


def test_batch_norm_over_all_tasks_of_a_step_cannot_be_shared():
    with pytest.raises(ValueError, match="normalises the pictures of all tasks of a step together"):
        Processes(0, 2).check(TransferNetwork(conv4(4), 12), tasks=2)
    Processes(0, 2).check(TransferNetwork(conv4(4, norm="group"), 12), tasks=2)
    Processes().check(TransferNetwork(conv4(4), 12), tasks=1)


def test_shares_cover_the_step_in_order():
    shares = [Processes(rank, 3).share(12, 6) for rank in range(3)]
    assert shares == [(12, 2), (14, 2), (16, 2)]
    assert Processes().share(12, 6) == (12, 6)


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.processes() as group:
        assert (group.rank, group.size, group.first) == (0, 1, True)
        assert distributed.current() == group


def test_half_an_environment_is_explained(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_PORT", "1")
    with (
        pytest.raises(ValueError, match="WORLD_SIZE=2 .* RANK, MASTER_ADDR is not set: start them with torchrun"),
        distributed.processes(),
    ):
        pass
