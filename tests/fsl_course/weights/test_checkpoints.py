"""Files of weights: what is saved is what is loaded, and a write that fails leaves the old file."""

import json
from dataclasses import replace

import pytest
import torch

from fsl_course.episodes import SceneSampler
from fsl_course.weights import checkpoints
from fsl_course.weights.checkpoints import (
    CheckpointError,
    load_file,
    load_learner,
    save_file,
    save_json,
    save_learner,
)
from fsl_course.weights.learners import make
from tests.conftest import toy_images
from tests.fsl_course.weights.test_learners import CASES, RATES


def test_what_is_saved_is_what_is_loaded(tmp_path, task):
    torch.manual_seed(0)
    settings = {"width": 8, "norm": "group", "in_channels": 1}
    learner = make("prototypical", **settings).eval()
    path = tmp_path / "deep" / "weights.safetensors"
    save_learner(path, learner, {"method": "prototypical", "settings": settings})
    again, about = load_learner(path)
    assert about["settings"] == settings
    assert not again.training
    assert torch.equal(learner(task), again(task))


@pytest.mark.parametrize(
    ("method", "own"), CASES, ids=lambda value: value if isinstance(value, str) else str(len(value))
)
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_every_method_comes_back_with_its_own_settings(tmp_path, task, method, own, norm):
    if method == "adapters" and norm == "none" and own.get("kind", "film") == "film":
        pytest.skip("FiLM scales the channels of a normalisation, so an encoder without one takes no such adapter")
    torch.manual_seed(0)
    settings = {"width": 4, "norm": norm, "in_channels": 1, **own}
    learner = make(method, **settings)
    if learner.uses_attributes:
        task = replace(task, attributes=torch.rand(task.n_way, own.get("n_attributes", 36)))
    if method == "dense":
        task = SceneSampler(toy_images(24, 8), 1, 1)[0]
    if method == "adapters":
        learner.loss(task)  # in training mode: running statistics are saved too; its forward asks for the other mode
    else:
        learner(task)
    save_learner(tmp_path / "w.safetensors", learner, {"method": method, "settings": settings})
    again, about = load_learner(tmp_path / "w.safetensors")
    assert type(again) is type(learner)
    assert about == {"method": method, "settings": settings}
    assert list(again.state_dict()) == list(learner.state_dict())
    assert all(torch.equal(tensor, learner.state_dict()[name]) for name, tensor in again.state_dict().items())
    assert torch.equal(again(task), learner.eval()(task))
    assert again.loss(task).item() == learner.loss(task).item()
    for name, value in own.items():
        # a module, whose kind or shape shows in the weights; rates in Meta-SGD and the LSTM meta-learner are weights as well
        if name not in ("head", "net", "n_way") and (method, name) not in RATES:
            assert getattr(again, {"inner_lr": "lr", "inner_steps": "steps"}.get(name, name)) == value


def test_weights_of_another_kind_of_the_same_method_do_not_fit(tmp_path):
    path = tmp_path / "w.safetensors"
    save_learner(
        path, make("matching", width=4), {"method": "matching", "settings": {"width": 4, "full_context": True}}
    )
    with pytest.raises(CheckpointError, match="do not fit this learner"):
        load_learner(path)


def test_loading_a_learner_compares_shapes_and_names_first(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    learner = make("prototypical", width=4)
    weights = learner.state_dict() | {"more": torch.ones(2)}
    save_file(path, weights, {"method": "prototypical", "settings": {"width": 4}})
    with pytest.raises(CheckpointError, match="1 differ, e.g. more is .2. in the file and None in prototypical"):
        load_learner(path)


def test_a_full_disk_keeps_the_old_json(tmp_path, monkeypatch):
    path = tmp_path / "card.json"
    save_json(path, {"a": 1})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device. The file that was there before is untouched"):
        save_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


def test_equal_content_is_equal_bytes_and_the_dictionary_comes_back_as_it_was(tmp_path):
    about = {"b": {10: "x", 9: [1.5, None]}, "a": True}
    for n in range(8):  # the format itself writes several texts in a random order
        save_file(tmp_path / f"{n}.safetensors", {"z": torch.ones(2), "a": torch.zeros(3, 1)}, about)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    assert load_file(tmp_path / "0.safetensors")[1] == json.loads(json.dumps(about))


def test_weights_that_do_not_fit_are_explained(tmp_path):
    path = tmp_path / "w.safetensors"
    save_learner(path, make("prototypical", width=8), {"method": "prototypical", "settings": {"width": 16}})
    with pytest.raises(CheckpointError, match="do not fit this learner"):
        load_learner(path)


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="could not write .*Nothing was written"):
        save_file(tmp_path / "file" / "w.safetensors", {"a": torch.ones(1)}, {})


def test_a_file_that_cannot_be_opened_is_explained(tmp_path, monkeypatch):
    """A read-only disk refuses to open the file and then refuses to delete it too."""

    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(CheckpointError, match="Read-only file system"):
        save_file(tmp_path / "w.safetensors", {"a": torch.ones(1)}, {})


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def pressed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", pressed)
    with pytest.raises(KeyboardInterrupt):
        save_file(tmp_path / "w.safetensors", {"a": torch.ones(1)}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    """As a run does that saves while another process looks at its state. The check of the sum stands for the moment between."""
    path, digest, calls = tmp_path / "state.safetensors", checkpoints._digest, []
    save_file(path, {"w": torch.zeros(3)}, {"done": 9})

    def meanwhile(tensors, about):
        calls.append(about["done"])
        if len(calls) == 1:
            monkeypatch.setattr(checkpoints, "_digest", digest)
            save_file(path, {"w": torch.ones(3)}, {"done": 10})
            return "the sum of a mixture"
        return digest(tensors, about)

    monkeypatch.setattr(checkpoints, "_digest", meanwhile)
    tensors, about = load_file(path)
    assert (tensors["w"].tolist(), about, calls) == ([1.0, 1.0, 1.0], {"done": 10}, [9])
    monkeypatch.setattr(checkpoints, "_digest", lambda *_: "another sum")  # nothing replaces it now
    with pytest.raises(CheckpointError, match="is damaged: it has changed since it was written"):
        load_file(path)


def test_tensors_that_share_memory_are_saved_and_what_is_loaded_is_not_the_file(tmp_path):
    path, both = tmp_path / "w.safetensors", torch.arange(4.0)
    save_file(path, {"a": both, "b": both, "c": both[::2]}, {})
    loaded = load_file(path)[0]
    with open(path, "r+b") as file:  # the same file, not a new one in its place
        file.write(b"\0" * path.stat().st_size)
    assert loaded["a"].tolist() == loaded["b"].tolist() == [0, 1, 2, 3]
    assert loaded["c"].tolist() == [0, 2]


def test_a_save_that_fails_at_the_last_moment_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_file(path, {"a": torch.zeros(3)}, {})
    before = path.read_bytes()

    def refuse(*args, **kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(CheckpointError, match="Input/output error. The file that was there before is untouched"):
        save_file(path, {"a": torch.ones(3)}, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
