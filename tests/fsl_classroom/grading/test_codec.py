"""Data between the judge and an answer's process: what goes through, what is refused, and that nothing in a message runs."""

import json
import os
import struct
import threading
import time
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fsl_classroom.checking.compare import compare
from fsl_classroom.grading import frames
from fsl_classroom.grading.codec import Packer, Thing, Unpacker, Unsendable

VALUES = [
    None, True, 3, -(2**70), 0.1, float("inf"), 1 + 2j, "ü \ud800", b"\x00\xff", ..., [], (), {}, [1, (2, [3.0])],
    {"a": 1, (0, 1): [2], 3: None}, {1, 2}, frozenset({3}), torch.tensor([[1.5, float("nan")]]), torch.tensor(True),
    torch.zeros(0, 3, dtype=torch.float64), torch.arange(6).reshape(2, 3).T, torch.ones(2, dtype=torch.bfloat16), torch.float16,
    np.arange(4.0).reshape(2, 2), np.float32(2.5), np.array([True, False]),
]  # fmt: skip


def there(value, strict=True):
    packer = Packer(strict)
    made = json.loads(json.dumps(packer.pack(value)))
    return Unpacker(packer.blob()).unpack(made)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_values_come_back_as_they_were(value):
    got = there(value)
    assert type(got) is type(value)
    assert compare(value, got, 0.0) is None
    if isinstance(value, torch.Tensor):
        assert (got.dtype, got.shape) == (value.dtype, value.shape)


def test_shared_tensors_stay_shared_and_keep_requires_grad():
    weight = torch.ones(2, requires_grad=True)
    first, (second,) = there([weight, (weight,)])
    assert first is second
    assert first.requires_grad


def test_a_generator_goes_on_where_it_was():
    generator = torch.Generator().manual_seed(3)
    torch.rand(5, generator=generator)
    state = generator.get_state()
    got = there(generator)
    assert torch.equal(torch.rand(3, generator=got), torch.rand(3, generator=generator))
    generator.set_state(state)


def test_what_the_other_side_knows_is_not_sent_again():
    images = torch.ones(3)
    packer = Packer(known={id(images): 4})
    assert packer.pack([images]) == {"list": [{"known": 4}]}
    assert len(packer.tensors) == 0
    assert Unpacker(packer.blob(), [0, 1, 2, 3, images]).unpack({"known": 4}) is images


def test_objects_become_plain_values_or_things():
    @dataclass
    class Setting:
        ways: int
        name: str = "a"

    class Lie(float):
        def __eq__(self, other):
            return True

    point = namedtuple("Point", "x y")(1, 2)
    setting, lie, tuple_, function, thing = there([Setting(5), Lie(2.0), point, there, object()], strict=False)
    assert (type(setting).__name__, setting.ways, setting.name) == ("Setting", 5, "a")
    assert type(setting) is not Setting
    assert (type(lie), lie, type(tuple_), tuple_) == (float, 2.0, tuple, (1, 2))
    assert function is not there
    assert function() is None
    assert isinstance(thing, Thing)
    assert type(thing).__name__ == "object"


@pytest.mark.parametrize("value", [lambda: 0, torch.nn.Linear(1, 1), object(), [torch.ones(2).to_sparse()]])
def test_arguments_that_are_no_data_are_refused(value):
    with pytest.raises(Unsendable):
        Packer(strict=True).pack(value)


def test_too_much_and_too_deep_is_refused():
    deep: list = []
    for _ in range(100):
        deep = [deep]
    for value, words in ((deep, "too deeply"), ([0] * 300_000, "more than 200000 items")):
        with pytest.raises(Unsendable, match=words):
            Packer().pack(value)


@pytest.mark.parametrize(
    "made",
    [
        {}, {"import": "os"}, {"tensor": 0}, {"tensor": 9, "grad": False}, {"tensor": "x", "grad": True}, {"int": 5},
        {"dict": [[{"list": []}, 1]]}, {"dict": 7}, {"list": 3}, {"known": 0}, {"generator": 0}, {"dtype": "load"}, {"int": "zz"},
        {"record": "A", "fields": [["__class__", None]]}, {"record": "A", "fields": [["a b", None]]}, {"record": "A"}, 1,
        {"meta": [-1], "dtype": "float32"}, {"bytes": 5}, {"complex": ["a"]}, {"array": None}, [], [1],
    ],
)  # fmt: skip
def test_structures_that_nobody_packs_are_garbled(made):
    with pytest.raises(frames.Garbled):
        Unpacker(Packer().blob()).unpack(made)


@pytest.mark.parametrize("blob", [b"x", b"\xff" * 100, struct.pack("<Q", 2**60) + b"{}"])
def test_tensors_that_nobody_saved_are_garbled(blob):
    with pytest.raises(frames.Garbled):
        Unpacker(blob)


def test_names_in_a_message_become_no_code():
    made = Unpacker(b"").unpack({"record": "x; import os", "fields": [["ways", {"int": "0x1"}]]})
    assert (type(made).__name__, made.ways) == ("Thing", 1)
    assert type(Unpacker(b"").unpack({"thing": "os.system('x')"})).__name__ == "Thing"


def through_a_pipe(content: bytes):
    read, write = os.pipe()
    os.write(write, content)
    os.close(write)
    try:
        return frames.receive(read, time.monotonic() + 5)
    finally:
        os.close(read)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EOFError),
        (b"\x01", EOFError),
        (struct.pack("<QQ", 2**62, 0), frames.Garbled),
        (struct.pack("<QQ", 0, 2**40), frames.Garbled),
        (struct.pack("<QQ", 1, 0) + b"{", frames.Garbled),
        (struct.pack("<QQ", 2, 0) + b"[]", frames.Garbled),
        (struct.pack("<QQ", 40_000, 0) + b"[" * 40_000, frames.Garbled),
    ],
)
def test_frames_that_nobody_sends(content, error):
    with pytest.raises(error):
        through_a_pipe(content)


def test_frames_arrive_whole_and_in_time():
    read, write = os.pipe()
    blob = os.urandom(2**21)
    sender = threading.Thread(target=frames.send, args=(write, {"a": [1]}, blob))
    sender.start()
    assert frames.receive(read, time.monotonic() + 60) == ({"a": [1]}, blob)
    sender.join()
    with pytest.raises(TimeoutError):
        frames.receive(read, time.monotonic() + 0.05)
    with pytest.raises(TimeoutError):  # nobody reads, and the pipe is full
        frames.send(write, {}, blob, time.monotonic() + 0.2)
    with pytest.raises(ValueError, match="too much"):
        frames.send(write, {"a": "x" * (frames.MOST_HEAD + 1)})
    os.close(read)
    os.close(write)
