"""Omniglot: a small imitation, and (where FSL_DATA is set) the real one."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsl_course.data import omniglot
from fsl_course.data.omniglot import VALIDATION_ALPHABETS, load_omniglot


def same(a, b):
    return torch.equal(a.images, b.images) and a.class_names == b.class_names and a.splits == b.splits


# --- what is read ---


def test_shape_names_groups_and_splits(fake):
    source = load_omniglot(fake())
    assert source.images.shape == (20, 20, 1, 28, 28)
    assert source.images.dtype == torch.uint8
    assert source.counts.tolist() == [20] * 20
    assert source.name == "omniglot"
    assert source.class_names[:5] == [f"Greek/character{i:02d}" for i in (1, 2, 3, 4)] + ["Latin/character01"]
    assert source.groups == ["Greek"] * 4 + ["Latin"] * 4 + ["Tagalog"] * 2 + ["Angelic"] * 6 + ["Avesta"] * 4
    assert source.splits == ["train"] * 8 + ["val"] * 2 + ["test"] * 10


def test_pixels_are_antialiased_bilinear_with_ink_255_on_0(fake, imitation):
    """Against Pillow's filter on grey values, whose own arithmetic may round by one level."""
    source = load_omniglot(fake())
    files = {**imitation["images_background"], **imitation["images_evaluation"]}
    for row, drawing in ((0, 0), (9, 19), (19, 7)):
        names = sorted(member for member in files if f"/{source.class_names[row]}/" in member)
        ink = Image.fromarray(files[names[drawing]][1].astype(np.uint8) * 255)
        expected = np.asarray(ink.resize((28, 28), Image.Resampling.BILINEAR)).astype(int)
        got = source.images[row, drawing, 0].numpy().astype(int)
        assert np.abs(got - expected).max() <= 1
        assert got.max() > 40


def test_shrinking_keeps_full_and_empty_pictures():
    assert (omniglot._shrink(np.ones((2, 105, 105), dtype=bool)) == 255).all()
    assert (omniglot._shrink(np.zeros((2, 105, 105), dtype=bool)) == 0).all()


@pytest.mark.parametrize(
    ("zipped", "unpacked"),
    [
        ((), ("images_background", "images_evaluation")),
        (("images_background",), ("images_evaluation",)),
        (("images_background", "images_evaluation"), ("images_background",)),
    ],
)
def test_zipped_unpacked_and_mixed_layouts_are_the_same(fake, monkeypatch, tmp_path, zipped, unpacked):
    reference = load_omniglot(fake())
    monkeypatch.setenv("FSL_CACHE", str(tmp_path / "another cache"))
    assert same(load_omniglot(fake(zipped, unpacked, name="other")), reference)


def test_root_may_be_the_inner_folder_or_come_from_the_environment(fake, monkeypatch):
    root = fake()
    reference = load_omniglot(str(root))
    assert same(load_omniglot(root / "omniglot-py"), reference)
    monkeypatch.setenv("FSL_DATA", str(root))
    assert same(load_omniglot(), reference)


def test_the_random_protocol_splits_classes_in_the_published_proportions(fake):
    root = fake()
    source = load_omniglot(root, protocol="random")
    assert [source.splits.count(name) for name in ("train", "val", "test")] == [14, 1, 5]
    assert source.splits == load_omniglot(root, protocol="random").splits
    assert torch.equal(source.images, load_omniglot(root).images)


def test_rotations_are_classes_in_the_split_of_their_class(fake):
    root = fake()
    plain, turned = load_omniglot(root), load_omniglot(root, rotations=True)
    assert len(turned) == 80
    assert turned.splits == [split for split in plain.splits for _ in range(4)]
    assert torch.equal(turned.images[::4], plain.images)
    assert torch.equal(turned.images[1::4], torch.rot90(plain.images, 1, (-2, -1)))


# --- what is refused ---


def test_an_unknown_protocol_is_refused(fake):
    with pytest.raises(ValueError, match="no protocol 'vinyals': choose one of alphabets, random"):
        load_omniglot(fake(), protocol="vinyals")


def test_without_a_root_the_error_says_what_to_set(fake):
    with pytest.raises(FileNotFoundError, match=r"FSL_DATA.*omniglot-py/images_background\.zip"):
        load_omniglot()


def test_missing_parts_are_named(fake, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"images_background\.zip and no images_evaluation\.zip.*download=True"):
        load_omniglot(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no images_evaluation\.zip"):
        load_omniglot(fake(zipped=("images_background",)))


def test_a_truncated_zip_is_named(fake):
    root = fake()
    file = root / "omniglot-py" / "images_evaluation.zip"
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"images_evaluation\.zip is a damaged or half-downloaded zip"):
        load_omniglot(root)


def test_a_flipped_byte_in_a_zip_is_noticed(fake):
    root = fake()
    file = root / "omniglot-py" / "images_background.zip"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"images_background\.zip"):
        load_omniglot(root)


GREEK = "images_background/Greek/character02/0004_05.png"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop(GREEK, None), r"Greek/character02 in .*images_background\.zip has 19 drawings, expected 20"),
        (
            lambda c: [c.pop(m) for m in list(c) if "Latin" in m],
            r"images_background\.zip holds 2 alphabets, expected 3",
        ),
        (
            lambda c: [c.pop(m) for m in list(c) if "Angelic/character06" in m],
            r"images_evaluation\.zip holds 9 characters, expected 10",
        ),
        (
            lambda c: c.__setitem__(GREEK, b"no PNG") if GREEK in c else None,
            r"0004_05\.png in .* is not a readable picture",
        ),
    ],
)
def test_what_is_missing_or_unreadable_is_named(fake, change, words):
    with pytest.raises(ValueError, match=words):
        load_omniglot(fake(change=change))


def png(side, paper=1):
    data = io.BytesIO()
    Image.new("1", (side, side), paper).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (png(28), r"0004_05\.png in .* has 28x28 pixels; the drawings of Omniglot have 105x105"),
        (png(105), r"images_background\.zip has as many .* but other names or pixels than the published Omniglot"),
    ],
)
def test_other_pixels_are_refused_and_leave_no_cache(fake, tmp_path, picture, words):
    def change(content):
        if GREEK in content:
            content[GREEK] = picture

    with pytest.raises(ValueError, match=words):
        load_omniglot(fake(change=change))
    assert not (tmp_path / "cache").exists()


# --- the real one ---


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The real Omniglot, read once from its files into a cache of its own."""
    if not os.environ.get("FSL_DATA"):
        pytest.skip("needs the real Omniglot: set FSL_DATA to the folder that holds omniglot-py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield load_omniglot()


@pytest.mark.omniglot
def test_real_counts_and_disjoint_alphabets(real):
    assert real.images.shape == (1623, 20, 1, 28, 28)
    background = [split != "test" for split in real.splits]
    assert (sum(background), len(background) - sum(background)) == (964, 659)
    groups = {name: set(real.split(name).groups) for name in ("train", "val", "test")}
    assert {name: len(found) for name, found in groups.items()} == {"train": 25, "val": 5, "test": 20}
    assert groups["val"] == set(VALIDATION_ALPHABETS)
    assert len(set.union(*groups.values())) == 50
    assert len(real.split("val")) == 81


@pytest.mark.omniglot
def test_real_validation_alphabets_are_the_five_smallest(real):
    sizes = {group: real.groups.count(group) for group, s in zip(real.groups, real.splits, strict=True) if s != "test"}
    assert set(sorted(sizes, key=sizes.get)[:5]) == set(VALIDATION_ALPHABETS)
    assert [sizes[name] for name in VALIDATION_ALPHABETS] == [20, 14, 16, 14, 17]


@pytest.mark.omniglot
def test_real_pixels_are_the_same_everywhere(real):
    digest = hashlib.sha256(real.images.numpy().tobytes()).hexdigest()
    assert digest == "5a0cde5540a6d8782b3619c0cb7e09b80a013220f7b460c0b42d50e221ed7980"
    ink = real.images.flatten(2).amax(-1)
    assert int(ink.min()) >= 120, "every drawing has a stroke that can be seen"


@pytest.mark.omniglot
def test_real_random_protocol(real):
    source = load_omniglot(protocol="random")
    parts = {name: set(source.split(name).class_names) for name in ("train", "val", "test")}
    assert {name: len(found) for name, found in parts.items()} == {"train": 1100, "val": 100, "test": 423}
    assert len(set.union(*parts.values())) == 1623
    digest = hashlib.sha256("\n".join(sorted(parts["test"])).encode()).hexdigest()
    assert digest == "86bafe21d3d36b7ceb68cac6ade50c76a33e28bf8e7ab3e6237a6c03eff250f0", (
        "another shuffle: results under this protocol cannot be compared any more"
    )


@pytest.mark.omniglot
def test_real_rotations(real):
    assert len(load_omniglot(rotations=True)) == 6492


@pytest.mark.omniglot
def test_real_cache_equals_fresh_and_a_damaged_one_is_rebuilt(real):
    assert same(load_omniglot(), real)
    (file,) = Path(os.environ["FSL_CACHE"]).iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="read anew"):
        assert same(load_omniglot(), real)
