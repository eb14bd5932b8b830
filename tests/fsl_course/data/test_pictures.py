"""Single pictures in the form of a set: every kind of input, and one decision about inversion for all."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from fsl_course.data import load_folder
from fsl_course.data.pictures import is_negative, square_picture
from tests.fsl_course.data.painting import classes, paint


def load_pictures(pictures, size=28, channels=1, invert="auto"):
    """What a set of these pictures holds -> uint8 [n, channels, size, size], and whether they were inverted."""
    found = [square_picture(picture, size, channels) for picture in pictures]
    negative = is_negative([background for _, background in found], channels, invert)
    images = torch.from_numpy(np.stack([square for square, _ in found]))
    return 255 - images if negative else images, negative


def drawn(size=(28, 28), channels=1):
    """uint8 [H, W] or [H, W, 3]: noise, so that nothing that moves or scales it can go unseen."""
    shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(28, 28), (50, 30)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_input_gives_the_same_picture(tmp_path, channels, size):
    array = drawn(size, channels)
    file = tmp_path / "picture.png"
    Image.fromarray(array).save(file)
    tensor = torch.from_numpy(array) if channels == 1 else torch.from_numpy(array).permute(2, 0, 1)
    kinds = [file, str(file), Image.open(file), array, array / 255, tensor, tensor.float() / 255, tensor.double() / 255]
    if channels == 1:
        kinds += [array[..., None], tensor[None]]
    found, inverted = load_pictures(kinds, 28, channels, invert=False)
    assert found.shape == (len(kinds), channels, 28, 28)
    assert found.dtype == torch.uint8
    assert not inverted
    assert (found == found[0]).all()


def test_a_square_of_the_right_size_passes_unchanged():
    tensor = torch.from_numpy(drawn())[None]
    assert torch.equal(load_pictures([tensor], invert=False)[0][0], tensor)


def test_they_equal_what_load_folder_reads(tmp_path):
    source = load_folder(classes(tmp_path))
    files = [tmp_path / name / f"{k}.png" for name in ("bird", "cat") for k in range(2)]
    found, inverted = load_pictures(files)
    assert torch.equal(found, source.images.flatten(0, 1))
    assert inverted is source.inverted is True


def test_what_was_decided_for_the_support_serves_the_queries(tmp_path):
    white, black = paint(tmp_path / "white.png"), paint(tmp_path / "black.png", paper=0, ink=255)
    support, inverted = load_pictures([white, white, black])
    assert inverted
    assert torch.equal(load_pictures([black], invert=inverted)[0][0], support[2])
    assert not load_pictures([white], channels=3)[1]
    assert is_negative([], 1, "auto") is False


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        ("nowhere.png", FileNotFoundError, "there is no picture nowhere.png"),
        (7, TypeError, "a path, a PIL image, an array or a tensor; got int"),
        (np.zeros((2, 5, 5), dtype=np.uint8), ValueError, r"the ndarray cannot be read .*shape is \[2, 5, 5\]"),
        (np.zeros((0, 5), dtype=np.uint8), ValueError, r"shape is \[0, 5\]"),
        (torch.zeros(3, 5, 5, 5), ValueError, r"the Tensor cannot be read .*shape is"),
        (torch.full((5, 5), 3.0), ValueError, r"floats must lie in \[0, 1\]"),
        (torch.full((5, 5), torch.nan), ValueError, r"floats must lie in \[0, 1\]"),
        (torch.zeros(5, 5, dtype=torch.int64), ValueError, "its numbers are int64: take uint8, or floats"),
    ],
)
def test_what_is_no_picture_is_explained(picture, error, message):
    with pytest.raises(error, match=message):
        load_pictures([picture])


def test_a_fifo_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(ValueError, match="x.png cannot be read as a picture .*no regular file"):
        load_pictures([tmp_path / "x.png"])
