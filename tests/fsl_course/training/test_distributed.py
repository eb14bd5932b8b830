"""Two processes compute what one does, step by step and run by run."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file as load_tensors

from fsl_course.methods.transfer import TransferNetwork
from fsl_course.nets import conv4
from fsl_course.training import distributed
from fsl_course.training.distributed import Processes
from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import CheckpointError, load_file
from tests.fsl_course.training.processes import (
    TASKS,
    Centred,
    ended,
    fit_toy,
    free_port,
    largest_difference,
    learners,
    sampler,
    start,
    step,
    tasks_of,
    toy_learner,
    weights,
)

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
    learner = Centred(seed=rank)
    fit_toy(learner, 3, None)
    note("centred", weights(learner), None)
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


def test_both_processes_hold_what_follows_training(together):
    learner = Centred()
    fit_toy(learner, 3, None)
    assert learner.centre.abs().max() > 0.01
    assert largest_difference(both(together[0], "centred"), weights(learner)) < 1e-9


def test_processes_with_different_settings_do_not_train_together(together):
    first, second = together[1]
    assert (first[0], second[0]) == (1, 1)
    assert "lr: 0.01 there, 0.02 now" in second[2]
    assert CheckpointError.__name__ in second[2]
    assert "another process of this run has ended" in first[2]


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
    Processes(0, 2).check(toy_learner(), tasks=2)  # its tasks pass through batch norm one by one


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
