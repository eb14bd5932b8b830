"""Descriptions of letters are what the shipped strokes say, and the name vectors are components fitted on training names."""

from itertools import pairwise

import numpy as np
import pytest

from tools.data.attributes import DATA, NAMED, SEEN, description
from tools.data.glyphs.letters import load_letters
from tools.data.glyphs.pen import Pen


def line(*points: tuple[int, int]) -> np.ndarray:
    """A stroke through these points of the box 0..255, with a point every few pixels."""
    parts = [np.linspace(a, b, 20) for a, b in pairwise(points)]
    return np.concatenate(parts).astype(np.uint8)


def test_a_cross_has_two_strokes_four_ends_and_one_crossing():
    pen = Pen.of([line((0, 128), (255, 128)), line((128, 0), (128, 255))])
    assert (pen.strokes, pen.pieces, pen.dots, pen.touches, len(pen.ends), pen.loops) == (2, 1, 0, 1, 4, [])
    assert pen.upright == pytest.approx(0.5, abs=0.02)
    assert min(pen.mirrored) > 0.85
    assert pen.turning == 0.0


def test_a_square_with_a_dot_has_a_loop_where_it_lies():
    square = line((0, 100), (155, 100), (155, 255), (0, 255), (0, 100))
    pen = Pen.of([square, line((230, 10), (232, 14))])
    assert (pen.strokes, pen.pieces, pen.dots, len(pen.loops), pen.ends) == (1, 2, 1, 1, [])
    (x, y) = pen.loops[0]
    assert x < -0.1
    assert y > 0.1
    assert max(pen.mirrored) < 0.6


def test_an_end_on_another_stroke_touches_it():
    pen = Pen.of([line((0, 0), (0, 255)), line((0, 255), (200, 255))])  # the letter L in two strokes
    assert (pen.strokes, pen.touches, len(pen.ends)) == (2, 2, 2)
    assert pen.aspect == pytest.approx(200 / 255, abs=0.01)
    assert pen.centre[0] < 0
    assert pen.centre[1] > 0


def test_the_shipped_table_is_what_the_tool_makes():
    letters = load_letters(DATA / "glyphs_strokes.npz")
    with np.load(DATA / "glyphs_attributes.npz") as file:
        assert file["names"].tolist() == [*SEEN, *NAMED]
        assert file["classes"].tolist() == letters.names
        for i in range(0, len(letters), 25):
            assert description(letters.strokes[i], int(letters.codepoint[i])) == file["values"][i].astype(bool).tolist()


def test_name_vectors_are_principal_components_of_the_training_names():
    with np.load(DATA / "icons_attributes.npz") as file, np.load(DATA / "icons.npz") as icons:
        assert file["classes"].tolist() == icons["name"].tolist()
        train = file["values"][icons["split"] == "train"].astype(np.float64)
    assert np.abs(train.mean(0)).max() < 1e-3
    likeness = np.corrcoef(train.T) - np.eye(64)
    assert np.abs(likeness).max() < 0.01
    assert (np.diff(train.std(0)) < 1e-3).all()
