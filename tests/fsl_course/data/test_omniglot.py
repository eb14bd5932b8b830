"""Omniglot: a small imitation in torchvision's layout, and (where FSL_DATA is set) the real one."""

import hashlib
import io
import os
import shutil
import urllib.error
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fsl_course.data import omniglot
from fsl_course.data.omniglot import VALIDATION_ALPHABETS, load_omniglot

CONTENT = {  # alphabet: characters; Tagalog is one of the validation alphabets
    "images_background": {"Tagalog": 2, "Greek": 4, "Latin": 4},
    "images_evaluation": {"Avesta": 4, "Angelic": 6},
}


@pytest.fixture(scope="module")
def imitation():
    """part -> member -> (PNG bytes, ink bool [105, 105]), in torchvision's names."""
    rng = np.random.default_rng(0)
    parts, number = {}, 0
    for part, alphabets in CONTENT.items():
        parts[part] = {}
        for alphabet, characters in alphabets.items():
            for character in range(1, characters + 1):
                number += 1
                for drawing in range(1, 21):
                    ink = rng.random((105, 105)) < 0.1
                    data = io.BytesIO()
                    Image.fromarray(~ink).save(data, "PNG")
                    member = f"{part}/{alphabet}/character{character:02d}/{number:04d}_{drawing:02d}.png"
                    parts[part][member] = (data.getvalue(), ink)
    return parts


@pytest.fixture
def fake(imitation, tmp_path, monkeypatch):
    """Expect the imitation instead of the real Omniglot, and keep caches in tmp_path. Gives a writer of layouts."""
    expected = {}
    for part, files in imitation.items():
        digest = hashlib.sha256()
        for alphabet in sorted(CONTENT[part]):
            for character in range(1, CONTENT[part][alphabet] + 1):
                name = f"{alphabet}/character{character:02d}"
                drawings = [ink for member, (_, ink) in sorted(files.items()) if f"/{name}/" in member]
                digest.update(name.encode() + b"\0" + np.packbits(np.stack(drawings)).tobytes())
        characters = sum(CONTENT[part].values())
        expected[part] = omniglot._Part(len(CONTENT[part]), characters, digest.hexdigest())
    monkeypatch.setattr(omniglot, "_PARTS", expected)
    monkeypatch.setenv("FSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FSL_DATA", raising=False)

    def write(zipped=("images_background", "images_evaluation"), unpacked=(), change=None, name="data") -> Path:
        home = tmp_path / name / "omniglot-py"
        home.mkdir(parents=True)
        for part, files in imitation.items():
            content = {member: data for member, (data, _) in files.items()}
            if change:
                change(content)
            if part in zipped:
                with zipfile.ZipFile(home / f"{part}.zip", "w") as archive:
                    for member, data in reversed(content.items()):  # the order in a zip must not matter
                        archive.writestr(member, data)
                    archive.writestr(f"__MACOSX/{part}/Greek/character01/._x.png", b"rubbish of an operating system")
            if part in unpacked:
                for member, data in content.items():
                    (home / member).parent.mkdir(parents=True, exist_ok=True)
                    (home / member).write_bytes(data)
                (home / part / "Greek").mkdir(exist_ok=True)
                (home / part / "Greek" / ".DS_Store").write_bytes(b"")
        return home.parent

    return write


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


# --- the cache ---


def cache_file(tmp_path):
    (file,) = (tmp_path / "cache").iterdir()
    return file


def test_the_second_call_reads_the_cache_and_gives_the_same(fake, tmp_path, monkeypatch):
    root = fake()
    first = load_omniglot(root)
    assert cache_file(tmp_path).suffix == ".safetensors"
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
