"""The embedded letters through the public API."""

import shutil

import pytest
import torch

from fsl_course.data import assets
from fsl_course.data.assets import load_glyphs

SCRIPTS = {"train": 30, "val": 7, "test": 13}
LETTERS = {"train": 916, "val": 205, "test": 408}


@pytest.fixture(scope="module")
def glyphs():
    return load_glyphs()


def test_shape_dtype_and_counts(glyphs):
    assert glyphs.images.shape == (1529, 20, 1, 28, 28)
    assert glyphs.images.dtype == torch.uint8
    assert glyphs.name == "glyphs"
    assert torch.equal(glyphs.counts, torch.full((1529,), 20))


def test_every_class_has_a_name_of_its_own(glyphs):
    assert len(set(glyphs.class_names)) == 1529
    assert all(isinstance(name, str) and name for name in glyphs.class_names + glyphs.groups)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_has_its_scripts_and_letters(glyphs, split):
    part = glyphs.split(split)
    assert len(set(part.groups)) == SCRIPTS[split]
    assert len(part) == LETTERS[split]


def test_splits_share_no_script_no_letter_and_no_picture(glyphs):
    parts = [glyphs.split(split) for split in SCRIPTS]
    for values in ([set(part.groups) for part in parts], [set(part.class_names) for part in parts]):
        assert sum(map(len, values)) == len(set.union(*values))
    pictures = [{drawing.numpy().tobytes() for drawing in part.images.flatten(0, 1)} for part in parts]
    assert sum(map(len, pictures)) == len(set.union(*pictures))


def test_ink_is_255_on_0_in_six_grey_levels(glyphs):
    assert glyphs.images.unique().tolist() == [0, 51, 102, 153, 204, 255]
    border = torch.ones(28, 28, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert (glyphs.images[..., border] == 0).float().mean() > 0.98
    inked = (glyphs.images > 0).float().mean(dim=(2, 3, 4))
    assert inked.min() > 0.005
    assert inked.max() < 0.5


def test_the_drawings_of_a_letter_all_differ(glyphs):
    for letter in glyphs.images[::50]:
        assert len(letter.flatten(1).unique(dim=0)) == 20


def test_both_files_take_at_most_three_megabytes():
    assert sum(assets.asset(name).stat().st_size for name in ("glyphs.npz", "glyphs_strokes.npz")) <= 3_000_000


def test_both_files_agree_with_their_checksums():
    for name in ("glyphs.npz", "glyphs_strokes.npz"):
        assert assets.verified(name).name == name


def test_a_damaged_file_is_refused_with_the_cure(tmp_path, monkeypatch):
    for name in ("glyphs.npz", "checksums.json"):
        shutil.copy(assets.asset(name), tmp_path / name)
    monkeypatch.setattr(assets, "_IN_WHEEL", tmp_path)
    monkeypatch.setattr(assets, "_IN_CHECKOUT", tmp_path)
    assert len(load_glyphs()) == 1529
    data = bytearray((tmp_path / "glyphs.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "glyphs.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"glyphs\.npz is damaged.*Restore it"):
        load_glyphs()


def test_a_missing_file_is_reported_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "_IN_WHEEL", tmp_path)
    monkeypatch.setattr(assets, "_IN_CHECKOUT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"glyphs\.npz is missing"):
        load_glyphs()
