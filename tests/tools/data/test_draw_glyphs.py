"""Strokes to drawings: the shipped pictures can be made again, at any size."""

import numpy as np
import pytest

from fsl_course.data.assets import asset
from tools.data.draw_glyphs import draw_letters, save_images
from tools.data.glyphs.hands import draw, random_hand
from tools.data.glyphs.letters import load_letters
from tools.data.glyphs.raster import grey_levels, raster

SOME = [0, 400, 916, 1100, 1528]  # letters of all three splits


@pytest.fixture(scope="module")
def letters():
    return load_letters(asset("glyphs_strokes.npz"))


@pytest.fixture(scope="module")
def shipped():
    with np.load(asset("glyphs.npz")) as file:
        return dict(file)


@pytest.fixture(scope="module")
def drawn(letters):
    return draw_letters(letters.select(SOME))


def test_drawing_twice_gives_the_same(letters, drawn):
    assert np.array_equal(draw_letters(letters.select(SOME)), drawn)


def test_drawing_again_gives_the_shipped_pictures(drawn, shipped):
    # The last bits of sine and exponential differ between machines: a pixel in a thousand may be one grey level off.
    difference = np.abs(drawn.astype(int) - shipped["images"][SOME])
    assert drawn.shape == (len(SOME), 20, 28, 28)
    assert (difference > 0).mean() <= 0.001
    assert difference.max() <= 51


def test_a_letter_does_not_depend_on_its_company_nor_on_the_number_of_hands(letters, drawn):
    assert np.array_equal(draw_letters(letters.select(SOME[1:2]), hands=3)[0], drawn[1, :3])


def test_another_seed_draws_otherwise(letters, drawn):
    other = draw_letters(letters.select(SOME[:1]), hands=2, seed=21)
    assert (other[0] != drawn[0, :2]).any(axis=(1, 2)).all()


def test_redrawing_at_84_pixels_has_shape_and_ink_in_the_same_places(letters, drawn):
    large = draw_letters(letters.select(SOME), hands=2, pixels=84)
    assert large.shape == (len(SOME), 2, 84, 84)
    assert large.dtype == np.uint8
    assert (large.max(axis=(2, 3)) == 255).all()
    # Shrunk by means of 3x3 pixels it is the small drawing but for the softness of the pen.
    small = large.reshape(len(SOME), 2, 28, 3, 28, 3).mean(axis=(3, 5))
    for a, b in zip(small.reshape(-1, 784), drawn[:, :2].reshape(-1, 784), strict=True):
        assert np.corrcoef(a, b)[0, 1] > 0.9


def test_strokes_and_pictures_name_the_same_letters(letters, shipped):
    assert len(letters) == 1529
    for key in ("codepoint", "script", "split"):
        assert np.array_equal(getattr(letters, key), shipped[key])
    assert letters.names == shipped["name"].tolist()


def test_saved_pictures_come_back_without_pickle(tmp_path, letters, drawn):
    save_images(tmp_path / "some.npz", letters.select(SOME), drawn)
    with np.load(tmp_path / "some.npz", allow_pickle=False) as file:
        assert np.array_equal(file["images"], drawn)
        assert file["name"].tolist() == letters.select(SOME).names


def test_a_drawing_stays_within_the_frame():
    square = [np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]])]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        points = np.concatenate(draw(square, random_hand(rng), rng, size=3.0))
        assert np.abs(points).max() < 0.5


def test_the_pen_has_the_width_asked_for():
    line = [np.array([[-0.4, 0.0], [0.4, 0.0]])]
    picture = raster(line, pen=4.0, pixels=40)
    assert picture.shape == (40, 40)
    assert picture[:, 20].sum() == pytest.approx(4.0, abs=0.01)
    assert (picture[0] == 0).all()


def test_six_grey_levels():
    assert grey_levels(np.linspace(0, 1, 101)).tolist()[::20] == [0, 51, 102, 153, 204, 255]
    assert set(grey_levels(np.linspace(0, 1, 1001)).tolist()) == {0, 51, 102, 153, 204, 255}


def test_impossible_sizes_are_refused(letters):
    with pytest.raises(ValueError, match="got hands=0, pixels=28"):
        draw_letters(letters.select([0]), hands=0)


def test_missing_strokes_are_reported_with_the_cure(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m tools\.data\.trace_glyphs"):
        load_letters(tmp_path / "none.npz")
