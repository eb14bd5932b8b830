"""When a run is saved, and what happens if it cannot be."""

import json

import pytest

from fsl_course.training.loop import fit
from fsl_course.training.run_state import RunState
from fsl_course.weights.checkpoints import CheckpointError, load_file
from tests.fsl_course.training.toys import learner, same, samplers, weights


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


def test_the_state_is_json_and_tensors_only(tmp_path):
    train, validation = samplers()
    path = tmp_path / "run.safetensors"
    fit(learner(), train, steps=2, validation=validation, validation_episodes=5, checkpoint=path, progress=False)
    tensors, about = load_file(path)
    assert {name.partition(".")[0] for name in tensors} == {"model", "best", "optimiser", "rng"}
    assert json.loads(json.dumps(about))["settings"]["sampler"] == train.key


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
