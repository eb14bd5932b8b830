"""Every way in which a folder of pictures can be wrong."""

import os

import numpy as np
import pytest
from PIL import Image

from fsl_course.data import folder
from fsl_course.data.folder import load_folder
from tests.fsl_course.data.painting import classes, paint


@pytest.mark.parametrize("size", [0, -3, 2.5, "28", None, True])
def test_a_wrong_size(tmp_path, size):
    with pytest.raises(ValueError, match=r"size must be a whole number of pixels.*got"):
        load_folder(classes(tmp_path), size=size)


@pytest.mark.parametrize("channels", [0, 2, 4, True, "RGB"])
def test_wrong_channels(tmp_path, channels):
    with pytest.raises(ValueError, match=r"channels must be 1 \(grey\) or 3 \(colour\); got"):
        load_folder(classes(tmp_path), channels=channels)


def test_a_wrong_word_for_invert(tmp_path):
    with pytest.raises(ValueError, match="invert must be True, False or \"auto\"; got 'no'"):
        load_folder(classes(tmp_path), invert="no")


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        load_folder(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"pets\.zip is a file: load_folder needs a folder"):
        load_folder(paint(tmp_path / "pets.zip", format="PNG"))


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="holds no class folders: few-shot tasks need at least two classes"):
        load_folder(tmp_path)


def test_only_one_class(tmp_path):
    with pytest.raises(ValueError, match="holds only one class, cat: few-shot tasks need at least two"):
        load_folder(classes(tmp_path, ("cat",)))


def test_a_split_with_only_one_class_is_named(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "val", ("dog",))
    with pytest.raises(ValueError, match=r"val holds only one class, dog"):
        load_folder(tmp_path)


def test_an_empty_class(tmp_path):
    classes(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match=r"the class folder .*dog holds no pictures \(\.png.*\): put some in"):
        load_folder(tmp_path)


def test_a_class_with_pictures_of_another_kind_only(tmp_path):
    classes(tmp_path)
    paint(tmp_path / "dog" / "0.gif")
    with pytest.raises(ValueError, match=r"dog holds no pictures .* only files of other kinds such as 0\.gif"):
        load_folder(tmp_path)


def test_a_class_with_one_picture(tmp_path):
    classes(tmp_path)
    paint(tmp_path / "dog" / "rex.png")
    with pytest.raises(
        ValueError, match=r"dog holds one picture, rex\.png: too few.*one for support and one for query"
    ):
        load_folder(tmp_path)


def test_pictures_that_belong_to_no_class(tmp_path):
    paint(classes(tmp_path) / "loose.png")
    with pytest.raises(ValueError, match=r"loose\.png belongs to no class"):
        load_folder(tmp_path)


def test_pictures_that_belong_to_no_split(tmp_path):
    classes(tmp_path / "train")
    paint(tmp_path / "loose.png")
    with pytest.raises(ValueError, match=r"loose\.png belongs to no class"):
        load_folder(tmp_path)


def test_pictures_beside_folders_of_pictures(tmp_path):
    classes(tmp_path / "wild")
    paint(tmp_path / "wild" / "loose.png")
    with pytest.raises(ValueError, match=r"loose\.png lies beside the folder bird"):
        load_folder(tmp_path)


def test_folders_too_deep(tmp_path):
    classes(tmp_path / "animals" / "wild")
    with pytest.raises(ValueError, match=r"bird lies too deep: classes are one or two levels below"):
        load_folder(tmp_path)


@pytest.mark.parametrize("other", ["valid", "extra"])
def test_folders_beside_splits(tmp_path, other):
    classes(tmp_path / "train")
    classes(tmp_path / other, ("dog", "fox"))
    with pytest.raises(ValueError, match=f"holds the split train and beside it {other}.*called train, val, test"):
        load_folder(tmp_path)


def test_a_class_in_two_splits(tmp_path):
    classes(tmp_path / "train", ("cat", "dog"))
    classes(tmp_path / "test", ("cat", "fox"))
    with pytest.raises(ValueError, match=r"the class cat of .* is in train and in test: .*share no class"):
        load_folder(tmp_path)


def whole_jpeg(file):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(file, "JPEG")
    return file.read_bytes()


@pytest.mark.parametrize("content", ["rubbish", "empty", "truncated"])
def test_a_corrupt_picture_is_named(tmp_path, content):
    classes(tmp_path)
    file = tmp_path / "cat" / "broken.jpg"
    data = whole_jpeg(file)
    file.write_bytes({"rubbish": b"no picture at all", "empty": b"", "truncated": data[: len(data) // 2]}[content])
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read as a picture .*: replace it"):
        load_folder(tmp_path)


@pytest.mark.parametrize("limit", [300, 100])
def test_decompression_bombs_are_refused_whether_pillow_warns_or_raises(tmp_path, monkeypatch, limit):
    classes(tmp_path)
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", limit
    )  # the pictures have 400 pixels: above it, or more than twice it
    with pytest.raises(ValueError, match=r"bird.*0\.png has too many pixels to be decoded safely"):
        load_folder(tmp_path)


@pytest.mark.parametrize("kind", ["gif", "fifo", "dangling link"])
def test_a_file_among_pictures_that_is_not_read_is_named_in_a_warning(tmp_path, kind):
    classes(tmp_path)
    name = "more.gif" if kind == "gif" else "more.png"
    if kind == "gif":
        paint(tmp_path / "cat" / name)
    elif kind == "fifo":
        os.mkfifo(tmp_path / "cat" / name)
    else:
        (tmp_path / "cat" / name).symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(
        UserWarning, match=rf"1 file of .* left out \(cat/{name}\): only regular files that end in \.png"
    ):
        source = load_folder(tmp_path)
    assert source.counts.tolist() == [2, 2]


def test_what_a_system_puts_beside_pictures_needs_no_word(tmp_path, recwarn):
    classes(tmp_path)
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"no picture")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"no picture")
    load_folder(tmp_path)
    assert not recwarn.list


@pytest.mark.parametrize("limit", ["padding", "memory"])
def test_one_class_that_is_far_too_large_is_named(tmp_path, monkeypatch, limit):
    classes(tmp_path, ("a", "b", "c", "d"))
    classes(tmp_path, ("many",), pictures=60)
    if limit == "padding":
        monkeypatch.setattr(folder, "_MOST_PADDING", 5 * 60 * 28 * 28 - 1)
    else:

        def no_room(*args, **options):
            raise MemoryError("Unable to allocate 1.29 TiB")

        monkeypatch.setattr(folder.np, "zeros", no_room)
    with pytest.raises(
        ValueError, match=r"the class many has 60 pictures, half of the 5 classes at most 2\..*take pictures out"
    ):
        load_folder(tmp_path)
