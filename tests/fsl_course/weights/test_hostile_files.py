"""Broken and hostile files are refused in words, before memory is taken and without executing anything."""

import json
import os
import pickle
import resource
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file as plain_save

from fsl_course.__main__ import main
from fsl_course.weights.checkpoints import (
    CheckpointError,
    load_file,
    load_learner,
    load_weights,
    save_file,
    save_learner,
)
from fsl_course.weights.learners import make


def test_broken_files_are_named_and_nothing_is_executed(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at .*nothing.safetensors"):
        load_file(tmp_path / "nothing.safetensors")
    whole = tmp_path / "whole.safetensors"
    save_file(whole, {"a": torch.arange(1000)}, {"x": 1})
    for name, content in {
        "cut": whole.read_bytes()[:-100],
        "empty": b"",
        "noise": bytes(range(256)) * 10,
        "pickle": pickle.dumps({"weights": [1, 2]}),
    }.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name}.safetensors is not a whole checkpoint"):
            load_file(path)
    plain_save({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match=r"not a whole checkpoint of this course \(it does not say what it holds"):
        load_file(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="does not say which method"):
        load_learner(whole)


@pytest.fixture
def unreadable():
    """A whole checkpoint that may not be read, in a folder that may; as root, this process gives up its rights for a while."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.safetensors"
        save_file(path, {"a": torch.arange(10)}, {"x": 1})
        Path(folder).chmod(0o755)
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield path
        finally:
            os.seteuid(user)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="this system has no rights of this kind")
def test_nobody_is_told_to_delete_a_file_that_only_cannot_be_read(unreadable):
    for read in (load_file, load_learner):
        with pytest.raises(
            CheckpointError, match="could not read .*Permission denied. It may be whole: leave it"
        ) as told:
            read(unreadable)
        assert "Delete" not in str(told.value)


class Evil:
    def __reduce__(self):
        return print, ("executed",)


HOSTILE = {
    "width": ("prototypical", {"width": 10**9}, "width must be a whole number from 1 to 1024"),
    "n_way": ("maml", {"n_way": 10**9}, "n_way must be a whole number from 1 to 10000"),
    "n_base": ("transfer", {"n_base": 10**9}, "n_base must be a whole number from 0 to 1000000"),
    "test_steps": ("maml", {"test_steps": 10**12}, "test_steps must be a whole number"),
    "inner_steps": ("reptile", {"inner_steps": 10**12}, "inner_steps must be a whole number"),
    "hidden": ("meta_lstm", {"hidden": 10**6}, "hidden must be a whole number"),
    "size": ("siamese", {"size": 10**9}, "size must be a whole number"),
    "in_channels": ("siamese", {"in_channels": 1.5}, "in_channels must be a whole number"),
    "large together": ("matching", {"width": 1024, "size": 1024, "full_context": True}, "do not fit this learner"),
    "large head": ("transfer", {"width": 1024, "size": 1024, "n_base": 10**6}, "do not fit this learner"),
    "a bool": ("maml", {"first_order": "yes"}, "first_order must be True or False"),
    "a true number": ("maml", {"n_way": True}, "n_way must be a whole number"),
    "not finite": ("maml", {"inner_lr": float("inf")}, "inner_lr must be a number"),
    "nested": ("matching", {"similarity": {"a": [1]}}, "cannot be used"),
    "unhashable": ("transfer", {"classifier": {"a": 1}}, "cannot be used"),
    "a module's name": ("__import__", {"name": "os"}, "no trainable method '__import__'"),
    "an attribute": ("prototypical", {"__class__": "os.system"}, "has no setting __class__"),
    "a method as a setting": ("prototypical", {"method": "os.system"}, "has no setting method"),
    "a list as a method": (["prototypical"], {}, "no trainable method"),
    "no settings": ("prototypical", [["width", 4]], "does not say which method"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_before_memory_is_taken(tmp_path, case):
    method, settings, message = HOSTILE[case]
    path = tmp_path / "hostile.safetensors"
    save_file(path, {"encoder.weight": torch.ones(1)}, {"method": method, "settings": settings})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=message) as error:
        load_learner(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    kilobytes = 1 if sys.platform != "darwin" else 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000 * kilobytes


@pytest.mark.parametrize(
    "content",
    [
        (2**62).to_bytes(8, "little") + b"{}",
        (2**64 - 1).to_bytes(8, "little"),
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (8).to_bytes(8, "little") + b'{"a": 1}',
        pickle.dumps(Evil()),
    ],
    ids=["header of 2**62 bytes", "header of 2**64 bytes", "nested header", "foreign header", "pickle"],
)
def test_a_file_that_is_no_safetensors_is_refused_by_the_command_line(tmp_path, capsys, content):
    path = tmp_path / "some.safetensors"
    path.write_bytes(content)
    assert main(["evaluate", str(path)]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"error: {path} is not a whole checkpoint of this course")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "about", ["[" * 100_000, "[1]", "7", '"word"', "{", '{"method": null, "settings": {}}', "9" * 5000]
)
def test_a_header_that_is_no_dictionary_is_refused(tmp_path, about):
    path = tmp_path / "some.safetensors"
    plain_save({"a": torch.ones(1)}, path, metadata={"about": about})
    with pytest.raises(CheckpointError, match="is not a whole checkpoint|does not say which method"):
        load_learner(path)


@pytest.fixture
def weights(tmp_path):
    """A file of a small learner."""
    path = tmp_path / "w.safetensors"
    save_learner(path, make("prototypical", width=2), {"method": "prototypical", "settings": {"width": 2}})
    return path


def rewritten(path, change):
    """Writes a file whose tensors went through change, as somebody else would: without a checksum."""
    tensors, about = load_file(path)
    plain_save(
        {name: change(t).contiguous() for name, t in tensors.items()}, path, metadata={"about": json.dumps(about)}
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(weights, number, capsys):
    rewritten(weights, lambda t: torch.full_like(t, number) if t.dim() == 4 else t)
    assert main(["evaluate", str(weights)]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert "encoder.layers.0.weight holds numbers that are not finite" in error


def as_type(dtype):
    return lambda t: t.to(dtype) if t.is_floating_point() else t


@pytest.mark.parametrize("change", [as_type(torch.float64), as_type(torch.float16), lambda t: t.float()])
def test_numbers_of_another_type_are_refused_and_never_converted(weights, change):
    rewritten(weights, change)
    with pytest.raises(CheckpointError, match=r"w.safetensors is torch.float\d\d, and torch.\w+ in this learner"):
        load_learner(weights)


def test_floats_that_a_changed_header_calls_whole_numbers_are_refused(weights):
    weights.write_bytes(weights.read_bytes().replace(b'"F32"', b'"I32"'))
    with pytest.raises(CheckpointError, match="w.safetensors is damaged|is torch.int32"):
        load_learner(weights)
    learner = torch.nn.Module()
    learner.register_buffer("a", torch.ones(2))
    with pytest.raises(CheckpointError, match="a in w is torch.int32, and torch.float32 in this learner"):
        load_weights(learner, {"a": torch.ones(2, dtype=torch.int32)}, "w")


def test_a_single_flipped_bit_is_found_wherever_it_is(weights):
    whole = weights.read_bytes()
    start = int.from_bytes(whole[:8], "little") + 8
    about = whole.index(b"prototypical")
    for place in (about, start, (start + len(whole)) // 2, len(whole) - 1):
        broken = bytearray(whole)
        broken[place] ^= 1
        weights.write_bytes(broken)
        with pytest.raises(
            CheckpointError, match="is damaged: it has changed since it was written|no trainable method"
        ):
            load_learner(weights)
        with pytest.raises(CheckpointError, match="is damaged"):
            load_file(weights)
    weights.write_bytes(whole)
    assert load_learner(weights)[1]["method"] == "prototypical"


def test_a_file_without_a_checksum_comes_from_an_earlier_version(weights):
    rewritten(weights, lambda t: t)
    assert load_learner(weights)[1]["settings"] == {"width": 2}
