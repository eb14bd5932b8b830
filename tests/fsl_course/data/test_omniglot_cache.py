"""The cache of Omniglot, and the download with a stand-in for torchvision."""

import os
import shutil
import urllib.error
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fsl_course.data import omniglot
from fsl_course.data.omniglot import load_omniglot


def same(a, b):
    return torch.equal(a.images, b.images) and a.class_names == b.class_names and a.splits == b.splits


# --- the cache ---


def cache_file(tmp_path):
    (file,) = (tmp_path / "cache").iterdir()
    return file


def test_the_second_call_reads_the_cache_and_gives_the_same(fake, tmp_path, monkeypatch):
    root = fake()
    first = load_omniglot(root)
    assert cache_file(tmp_path).suffix == ".npz"
    monkeypatch.setattr(omniglot, "_build", lambda parts: pytest.fail("the cache was not used"))
    assert same(load_omniglot(root), first)


def flip(data):
    data[-1000] ^= 255
    return data


@pytest.mark.parametrize("damage", [flip, lambda data: data[:-100], lambda data: b"rubbish", lambda data: b""])
def test_a_damaged_cache_is_rebuilt_with_a_word(fake, tmp_path, damage):
    root = fake()
    first = load_omniglot(root)
    file = cache_file(tmp_path)
    file.write_bytes(damage(bytearray(file.read_bytes())))
    with pytest.warns(UserWarning, match="is of no use .*: Omniglot is read anew"):
        assert same(load_omniglot(root), first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(load_omniglot(root), first)


def test_a_cache_that_cannot_be_written_costs_one_warning_only(fake, tmp_path, monkeypatch):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("FSL_CACHE", str(tmp_path / "a file" / "below"))
    with pytest.warns(UserWarning, match="no cache at .*Set FSL_CACHE") as caught:
        source = load_omniglot(fake())
    assert len(source) == 20
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


def test_a_write_that_breaks_off_leaves_nothing(fake, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="disk full"):
        load_omniglot(fake())
    assert list((tmp_path / "cache").iterdir()) == []


def test_writers_at_the_same_time_do_not_disturb_each_other(fake, tmp_path, monkeypatch):
    root, scratches, replace = fake(), [], os.replace

    def recorded(scratch, target):
        scratches.append(scratch)
        replace(scratch, target)

    monkeypatch.setattr(os, "replace", recorded)
    monkeypatch.setattr(omniglot, "_read_cache", lambda path: None)  # nobody sees the work of the others
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(load_omniglot, [root] * 4))
    assert len(set(scratches)) == 4, "every writer has a file of its own until it is whole"
    monkeypatch.undo()
    monkeypatch.setenv("FSL_CACHE", str(tmp_path / "cache"))
    images, names = omniglot._read_cache(cache_file(tmp_path))
    for source in sources:
        assert torch.equal(source.images, images)
        assert source.class_names == names


# --- the download, with a torchvision of our own ---


def stand_in(origin, calls, error=None):
    def dataset(root, background, download):
        part = "images_background" if background else "images_evaluation"
        calls.append(part)
        home = Path(root, "omniglot-py")
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(origin / "omniglot-py" / f"{part}.zip", home)
        if error:
            raise error
        (home / part).mkdir()

    return lambda: SimpleNamespace(datasets=SimpleNamespace(Omniglot=dataset))


def test_download_fetches_what_is_missing_and_nothing_else(fake, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(omniglot, "import_torchvision", stand_in(fake(name="origin"), calls))
    root = tmp_path / "fresh"
    source = load_omniglot(root, download=True)
    assert len(source) == 20
    assert sorted(calls) == ["images_background", "images_evaluation"]
    files = sorted(file.relative_to(root).as_posix() for file in root.rglob("*"))
    assert files == ["omniglot-py", "omniglot-py/images_background.zip", "omniglot-py/images_evaluation.zip"]
    (root / "omniglot-py" / "images_background.zip").unlink()
    load_omniglot(root / "omniglot-py", download=True)
    assert calls[2:] == ["images_background"]
    load_omniglot(root, download=True)
    assert len(calls) == 3


@pytest.mark.parametrize("error", [urllib.error.URLError("no network"), RuntimeError("File not found or corrupted.")])
def test_a_download_that_fails_says_so_and_leaves_nothing(fake, tmp_path, monkeypatch, error):
    monkeypatch.setattr(omniglot, "import_torchvision", stand_in(fake(name="origin"), [], error))
    with pytest.raises(
        ConnectionError, match=r"could not be downloaded .*bring images_background\.zip and images_evaluation"
    ):
        load_omniglot(tmp_path / "fresh", download=True)
    assert list((tmp_path / "fresh").iterdir()) == []


def test_a_download_without_torchvision_is_an_import_error(fake, tmp_path, monkeypatch):
    def absent():
        raise ImportError("this needs torchvision")

    monkeypatch.setattr(omniglot, "import_torchvision", absent)
    with pytest.raises(ImportError, match="this needs torchvision"):
        load_omniglot(tmp_path / "fresh", download=True)
    assert not (tmp_path / "fresh").exists()
