"""Your own pictures: layouts, kinds of files, polarity."""

import numpy as np
import pytest
import torch
from PIL import Image

from fsl_course.data import folder
from fsl_course.data.folder import load_folder
from tests.fsl_course.data.painting import classes, paint


def one(root, picture, name="x.png", **options):
    """What load_folder makes of a picture, in a set that holds nothing else: uint8 [c, size, size]."""
    for place in (root / kind / f"{copy}{name}" for kind in ("cat", "dog") for copy in range(2)):
        place.parent.mkdir(exist_ok=True)
        picture.save(place) if isinstance(picture, Image.Image) else picture(place)
    images = load_folder(root, **options).images
    assert (images == images[0, 0]).all()
    return images[1, 1]


# --- layouts ---


def test_one_folder_per_class(tmp_path):
    source = load_folder(classes(tmp_path / "pets", ("dog", "Bird", "cat")))
    assert source.class_names == ["Bird", "cat", "dog"]
    assert source.groups == ["pets"] * 3
    assert source.splits is None
    assert source.name == "pets"
    assert source.images.shape == (3, 2, 1, 28, 28)
    assert source.images.dtype == torch.uint8
    assert source.counts.dtype == torch.int64


def test_groups_of_classes(tmp_path):
    classes(tmp_path / "wild", ("fox", "cat"))
    classes(tmp_path / "tame", ("cat", "dog"))
    source = load_folder(tmp_path)
    assert source.class_names == ["tame/cat", "tame/dog", "wild/cat", "wild/fox"]
    assert source.groups == ["tame", "tame", "wild", "wild"]


def test_train_val_and_test_become_splits(tmp_path):
    classes(tmp_path / "train", ("a", "b", "c"))
    classes(tmp_path / "val", ("d", "e"))
    classes(tmp_path / "test" / "group", ("f", "g"))
    source = load_folder(tmp_path)
    assert source.split("train").class_names == ["a", "b", "c"]
    assert source.split("val").class_names == ["d", "e"]
    assert source.split("test").class_names == ["group/f", "group/g"]
    assert source.split("test").groups == ["group", "group"]


def test_a_class_may_be_called_train(tmp_path):
    assert load_folder(classes(tmp_path, ("bus", "train"))).class_names == ["bus", "train"]


def test_uneven_classes_are_padded_with_zeros_and_counted(tmp_path):
    classes(tmp_path, ("a",), pictures=2)
    classes(tmp_path, ("b",), pictures=5)
    source = load_folder(tmp_path)
    assert source.counts.tolist() == [2, 5]
    assert source.images.shape[:2] == (2, 5)
    assert int(source.images[0, 2:].max()) == 0
    assert (source.images[0, :2].flatten(1).amax(1) == 255).all()
    assert (source.images[1].flatten(1).amax(1) == 255).all()


def test_pictures_are_sorted_by_name_whatever_the_disk_says(tmp_path, monkeypatch):
    classes(tmp_path)
    for k in (3, 1, 2):
        paint(tmp_path / "cat" / f"p{k}.png", ink=255 - 50 * k)
    listing = folder.Path.iterdir
    monkeypatch.setattr(folder.Path, "iterdir", lambda self: sorted(listing(self), reverse=True))
    source = load_folder(tmp_path, size=20)
    assert source.class_names == ["bird", "cat"]
    assert source.images[1].flatten(1).amax(1).tolist() == [255, 255, 50, 100, 150]


def test_hidden_files_and_other_kinds_are_passed_over(tmp_path):
    classes(tmp_path)
    (tmp_path / "README.txt").write_text("notes")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "__MACOSX" / "cat").mkdir(parents=True)
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"no picture")
    (tmp_path / "cat" / "._0.png").write_bytes(b"no picture")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"no picture")
    assert load_folder(tmp_path).counts.tolist() == [2, 2]


def test_suffixes_in_any_case_and_of_every_kind(tmp_path):
    classes(tmp_path)
    for name in ("a.PNG", "b.jpg", "c.JPEG", "d.webp", "e.Jpg"):
        paint(tmp_path / "cat" / name)
    source = load_folder(tmp_path, size=20)
    assert source.counts.tolist() == [2, 7]
    expected = source.images[0, 0].int()
    assert ((source.images[1].int() - expected).abs() <= 40).all(), "JPEG and WebP are lossy, but show the same box"


def test_the_same_folder_gives_the_same_set(tmp_path):
    classes(tmp_path)
    first, second = load_folder(tmp_path), load_folder(str(tmp_path))
    assert torch.equal(first.images, second.images)


# --- fitting into the square ---


def test_a_square_picture_of_the_right_size_stays_as_it_is(tmp_path):
    pixels = np.zeros((28, 28), dtype=np.uint8)
    pixels[5:9, 6:20] = np.arange(14) * 15 + 30
    assert np.array_equal(one(tmp_path, Image.fromarray(pixels))[0].numpy(), pixels)


@pytest.mark.parametrize(("size", "rows", "columns"), [((56, 28), (7, 21), (0, 28)), ((28, 56), (0, 28), (7, 21))])
def test_the_aspect_is_kept_and_the_rest_is_background(tmp_path, size, rows, columns):
    picture = Image.new("L", size, 60)
    picture.paste(200, (2, 2, size[0] - 2, size[1] - 2))
    square = one(tmp_path, picture)[0]
    inside = square[slice(*rows), slice(*columns)]
    assert int(inside.max()) == 200
    outside = square.clone()
    outside[slice(*rows), slice(*columns)] = 60
    assert (outside == 60).all()


def test_a_very_long_picture_keeps_at_least_one_row(tmp_path):
    assert int(one(tmp_path, Image.new("L", (500, 1), 90))[0].max()) == 90


def test_small_pictures_are_enlarged(tmp_path):
    picture = Image.new("L", (7, 7), 0)
    picture.paste(255, (2, 2, 5, 5))
    square = one(tmp_path, picture)[0]
    assert int(square[14, 14]) == 255
    assert int(square[0, 0]) == 0


def test_shrinking_averages_instead_of_picking_pixels(tmp_path):
    pixels = np.zeros((280, 280), dtype=np.uint8)
    pixels[40:240:2, 40:240] = 255  # stripes one pixel wide: neither black nor white may win
    square = one(tmp_path, Image.fromarray(pixels))[0]
    assert ((square[8:20, 8:20].int() - 127).abs() <= 20).all()


@pytest.mark.parametrize("mode", ["1", "P"])
def test_bits_and_palettes_are_averaged_too(tmp_path, mode):
    pixels = np.zeros((280, 280), dtype=np.uint8)
    pixels[40:240:2, 40:240] = 255
    square = one(tmp_path, Image.fromarray(pixels).convert(mode))[0]
    assert ((square[8:20, 8:20].int() - 127).abs() <= 20).all()


@pytest.mark.parametrize(("size", "channels"), [(84, 3), (1, 1), (np.int64(16), 1)])
def test_size_and_channels(tmp_path, size, channels):
    source = load_folder(classes(tmp_path), size=size, channels=channels)
    assert source.images.shape == (2, 2, channels, int(size), int(size))


# --- kinds of pictures ---


def test_colour_stays_colour_in_three_channels(tmp_path):
    picture = Image.new("RGB", (28, 28), (10, 20, 30))
    picture.paste((200, 100, 0), (10, 10, 20, 20))
    square = one(tmp_path, picture, channels=3)
    assert square[:, 0, 0].tolist() == [10, 20, 30]
    assert square[:, 14, 14].tolist() == [200, 100, 0]


def test_colour_padding_is_the_colour_of_the_border(tmp_path):
    square = one(tmp_path, Image.new("RGB", (28, 14), (10, 20, 30)), channels=3)
    assert (square == torch.tensor([10, 20, 30]).view(3, 1, 1)).all()


def test_grey_becomes_three_equal_channels(tmp_path):
    square = one(tmp_path, Image.new("L", (28, 28), 77), channels=3)
    assert (square == 77).all()


def test_cmyk_jpeg(tmp_path):
    square = one(tmp_path, Image.new("CMYK", (28, 28), (0, 0, 0, 255)), name="x.jpg", channels=3)
    assert int(square.max()) < 60


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    pixels = np.full((28, 28), 257 * 20, dtype=np.uint16)
    pixels[10:20, 10:20] = 257 * 90
    square = one(tmp_path, Image.fromarray(pixels))[0]
    assert int(square[0, 0]) == 20
    assert int(square[14, 14]) == 90


def test_exif_rotation_is_applied(tmp_path):
    picture = Image.new("L", (28, 28), 0)
    picture.paste(255, (0, 12, 14, 16))  # a bar that touches the left edge
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn to the right: the bar hangs from the top
    square = one(tmp_path, lambda file: picture.save(file, quality=95, exif=exif), name="x.jpg")[0]
    assert int(square[2, 14]) > 200
    assert int(square[14, 2]) < 50


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_ink_on_transparent_ground_is_seen_whatever_its_colour(tmp_path, ink, mode):
    bands = len(mode) - 1
    picture = Image.new(mode, (28, 28), (ink,) * bands + (0,))
    picture.paste((ink,) * bands + (255,), (10, 10, 20, 20))
    square = one(tmp_path, picture)[0]
    assert int(square[0, 0]) == 0
    assert int(square[14, 14]) == 255


@pytest.mark.parametrize(("ink", "paper"), [((200, 0, 0), 255), ((255, 255, 180), 0)])
def test_transparent_ground_in_colour_is_white_or_black_paper(tmp_path, ink, paper):
    picture = Image.new("RGBA", (28, 28), (0, 255, 0, 0))
    picture.paste((*ink, 255), (10, 10, 20, 20))
    square = one(tmp_path, picture, channels=3)
    assert square[:, 0, 0].tolist() == [paper] * 3
    assert square[:, 14, 14].tolist() == list(ink)


def test_a_palette_with_a_transparent_colour(tmp_path):
    picture = Image.new("P", (28, 28), 0)
    picture.putpalette([255, 0, 0, 30, 30, 30])
    picture.paste(1, (10, 10, 20, 20))
    square = one(tmp_path, lambda file: picture.save(file, transparency=0))[0]
    assert int(square[0, 0]) == 0, "the red is never seen: white paper, then the negative"
    assert int(square[14, 14]) == 225


def test_a_picture_that_is_nowhere_visible_is_blank(tmp_path):
    square = one(tmp_path, Image.new("RGBA", (28, 28), (200, 10, 10, 0)))
    assert int(square.max()) == 0


# --- polarity: decided once for a set ---


def mixed(root, *papers, ink=90):
    """Two classes whose pictures have these grey values of paper, in this order."""
    for name in ("a", "b"):
        for k, paper in enumerate(papers):
            paint(root / name / f"{k}.png", paper=paper, ink=ink, size=(28, 28), box=(10, 10, 20, 20))
    return root


@pytest.mark.parametrize(
    ("invert", "papers", "inverted"),
    [
        ("auto", (255, 255), True),
        ("auto", (0, 0), False),
        ("auto", (128, 128), True),
        ("auto", (127, 127), False),
        ("auto", (255, 0), False),  # a tie: as they are
        ("auto", (255, 255, 0), True),
        ("auto", (0, 0, 255), False),
        (True, (0, 0), True),
        (False, (255, 255), False),
    ],
)
def test_all_pictures_of_a_set_are_inverted_or_none(tmp_path, invert, papers, inverted):
    source = load_folder(mixed(tmp_path, *papers), invert=invert)
    corners, ink = source.images[:, :, 0, 0, 0], source.images[:, :, 0, 14, 14]
    assert source.inverted is inverted
    assert corners.tolist() == [[255 - paper if inverted else paper for paper in papers]] * 2
    assert (ink == (165 if inverted else 90)).all()


def test_the_padding_of_uneven_classes_is_never_inverted(tmp_path):
    classes(tmp_path, ("a",), pictures=2)
    classes(tmp_path, ("b",), pictures=3)
    source = load_folder(tmp_path, invert=True)
    assert int(source.images[0, 2].max()) == 0
    assert source.select([1, 0]).inverted is True


@pytest.mark.parametrize(("invert", "corner"), [("auto", 255), (False, 255), (True, 0)])
def test_colour_is_inverted_only_when_asked(tmp_path, invert, corner):
    source = load_folder(mixed(tmp_path, 255, 255), channels=3, invert=invert)
    assert source.images[0, 0, :, 0, 0].tolist() == [corner] * 3
    assert source.inverted is (invert is True)
