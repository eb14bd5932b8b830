"""The list of checksums: complete, sorted, and safe to write again."""

import hashlib
import json

from fsl_course.data.assets import asset
from tools.data.checksums import checksums, write_checksums


def test_data_and_weights_are_listed_by_relative_name_and_nothing_else(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("b.npz", "a.npz", "checkpoints/c.safetensors", "card.md"):
        (tmp_path / name).write_bytes(name.encode())
    sums = write_checksums(tmp_path)
    assert list(sums) == ["a.npz", "b.npz", "checkpoints/c.safetensors"]
    assert sums["a.npz"] == hashlib.sha256(b"a.npz").hexdigest()
    assert json.loads((tmp_path / "checksums.json").read_text()) == sums
    before = (tmp_path / "checksums.json").read_bytes()
    write_checksums(tmp_path)
    assert (tmp_path / "checksums.json").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_the_shipped_list_agrees_with_the_shipped_files():
    assert json.loads(asset("checksums.json").read_text()) == checksums()
