"""The drawing pad without a browser: strokes in, pictures out."""

from __future__ import annotations

import math

import pytest
import torch

from fsl_classroom.widgets import SketchPad
from fsl_classroom.widgets.sketch_pad import rasterise
from fsl_course import load_glyphs

LETTER = [[[0.2, 0.9], [0.5, 0.1], [0.8, 0.9]], [[0.3, 0.6], [0.7, 0.6]]]  # an A that nearly fills the pad
RING = [[[0.1 + 0.05 * math.cos(0.2 * k), 0.8 + 0.05 * math.sin(0.2 * k)] for k in range(33)]]  # small, in a corner


def extent(pictures: torch.Tensor) -> torch.Tensor:
    """Returns the longer side of the ink in pixels. [B, H, W] -> [B]"""
    ink = pictures > 64
    sides = []
    for over in (1, 2):
        line = ink.any(over).int()
        sides.append(line.shape[1] - line.argmax(1) - line.flip(1).argmax(1))
    return torch.maximum(*sides)


def statistics(pictures: torch.Tensor) -> torch.Tensor:
    """Returns extent, mean ink, share of grey among inked pixels, and area over outline. [B, H, W] -> [4, B]"""
    ink = pictures.float() / 255
    grey = ((ink > 0.1) & (ink < 0.9)).float().sum((1, 2)) / (ink > 0.1).float().sum((1, 2))
    outline = ink.diff(dim=1).abs().sum((1, 2)) + ink.diff(dim=2).abs().sum((1, 2))
    return torch.stack([extent(pictures).float(), ink.mean((1, 2)), grey, 2 * ink.sum((1, 2)) / outline])


@pytest.fixture(scope="module")
def glyphs() -> torch.Tensor:
    return load_glyphs().images[::7, :5, 0].flatten(0, 1)


@pytest.mark.parametrize("strokes", [LETTER, RING], ids=["a letter", "a ring"])
def test_drawings_look_like_those_the_networks_know(strokes, glyphs):
    found = statistics(rasterise(strokes))[:, 0]
    low, high = statistics(glyphs).quantile(torch.tensor([0.01, 0.99]), dim=1)
    assert ((low <= found) & (found <= high)).all(), (low, found, high)


def test_pictures_are_ink_on_nothing_in_glyphs_levels_of_grey(glyphs):
    picture = SketchPad(strokes=LETTER).image()
    assert picture.shape == (1, 28, 28)
    assert picture.dtype == torch.uint8
    assert picture.max() == 255
    assert set(picture.unique().tolist()) <= set(glyphs.unique().tolist())


def test_place_and_size_on_the_pad_do_not_matter():
    moved = [[[0.3 * x + 0.6, 0.3 * y + 0.1] for x, y in stroke] for stroke in LETTER]
    difference = (rasterise(moved).float() - rasterise(LETTER).float()).abs()
    assert difference.mean() < 1.5  # rounding on the finer grid only
    ink = rasterise(RING)[0].float()
    across, down = ink.sum(0), ink.sum(1)
    place = torch.arange(28) + 0.5
    assert float((across * place).sum() / across.sum()) == pytest.approx(14, abs=0.5)
    assert float((down * place).sum() / down.sum()) == pytest.approx(14, abs=0.5)


def test_an_empty_pad_a_dot_and_a_very_long_stroke():
    assert rasterise([]).sum() == 0
    dot = rasterise([[[0.0, 1.0]]])
    assert 0 < int((dot > 0).sum()) <= 16  # in the middle and as large as the pen
    assert (dot > 0)[0, 12:16, 12:16].sum() == (dot > 0).sum()
    scribble = [[[0.5 + 0.5 * math.sin(0.1 * k), 0.5 + 0.5 * math.cos(0.13 * k)] for k in range(3000)]]
    assert rasterise(scribble).max() == 255


def test_a_larger_picture_is_the_same_drawing_with_a_relatively_finer_pen():
    small, large = (statistics(rasterise(LETTER, size))[:, 0] for size in (28, 84))
    assert float(large[0] / small[0]) == pytest.approx(3, rel=0.1)
    assert 0.45 < float(large[1] / small[1]) < 0.65  # as in Glyphs drawn at that size


def test_strokes_reach_the_pad_and_leave_it():
    pad = SketchPad()
    assert pad.empty
    pad.strokes = LETTER
    assert not pad.empty
    assert torch.equal(pad.image(), rasterise(LETTER))
    pad.clear()
    assert pad.strokes == []


@pytest.mark.parametrize(
    ("strokes", "words"),
    [
        ("no", "got str"),
        ([[]], "stroke 0 is []: it needs at least one point"),
        ([[[0.5, 0.5]], [[0.5]]], "stroke 1 holds"),
        ([[[0.5, 1.5]]], "in 0..1"),
        ([[[0.5, math.nan]]], "nan"),
        ([[["a", 0.5]]], "stroke 0 holds"),
        ([[0.1, 0.2]], "stroke 0 holds 0.1"),
    ],
)
def test_what_is_no_drawing_is_refused_in_words(strokes, words):
    with pytest.raises(ValueError, match="list of strokes") as raised:
        rasterise(strokes)
    assert words in str(raised.value)


def test_a_pad_keeps_its_strokes_when_it_refuses_others():
    pad = SketchPad(strokes=LETTER)
    with pytest.raises(ValueError, match="stroke 0 holds"):
        pad.strokes = [[[2, 2]]]
    assert pad.strokes == LETTER


@pytest.mark.parametrize("size", [0, 7, 28.0, True])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="size must be a whole number"):
        rasterise(LETTER, size)
