"""Shapes to strokes: on shapes with a known answer, and on letters of the fonts where these are installed."""

import numpy as np
import pytest

from fsl_course.data.assets import asset
from tools.data.glyphs.curves import length, nearest, resample, smooth
from tools.data.glyphs.fonts import font_file
from tools.data.glyphs.graph import SkeletonGraph
from tools.data.glyphs.letters import load_letters, save_letters
from tools.data.glyphs.lookalikes import look_alike, select
from tools.data.glyphs.scripts import SCRIPTS
from tools.data.glyphs.skeleton import depth, thin
from tools.data.glyphs.strokes import trace
from tools.data.trace_glyphs import FONTS, trace_script

fonts_needed = pytest.mark.skipif(
    not (FONTS / "NotoSans-Regular.ttf").is_file(), reason="the Noto fonts (Debian's fonts-noto-core) are not installed"
)


def bar(width=12, size=140):
    mask = np.zeros((size, size), bool)
    mask[size // 2 - width // 2 : size // 2 + width // 2, 10:-10] = True
    return mask


def ring(size=140):
    rows, columns = np.mgrid[:size, :size]
    radius = np.hypot(rows - size / 2, columns - size / 2)
    return (radius > 44) & (radius < 56)


def disc(row, column, radius, size=140):
    rows, columns = np.mgrid[:size, :size]
    return np.hypot(rows - row, columns - column) < radius


def test_thinning_leaves_one_pixel_lines_inside_the_shape():
    for mask in (bar(), bar() | bar().T, ring()):
        skeleton = thin(mask)
        assert skeleton.any()
        assert not (skeleton & ~mask).any()
        squares = skeleton[:-1, :-1] & skeleton[1:, :-1] & skeleton[:-1, 1:] & skeleton[1:, 1:]
        assert not squares.any()


def test_depth_is_half_the_width_on_the_middle_line():
    assert depth(bar(width=12)).max() == 6
    assert depth(np.zeros((5, 5), bool)).max() == 0


def test_a_bar_is_one_straight_stroke():
    (stroke,) = trace(bar())
    assert np.ptp(stroke[:, 0]) == pytest.approx(1.0)
    assert np.ptp(stroke[:, 1]) < 0.02
    assert length(stroke) == pytest.approx(1.0, abs=0.02)


def test_a_plus_is_two_strokes_that_cross():
    strokes = trace(bar() | bar().T)
    assert len(strokes) == 2
    flat, upright = sorted(strokes, key=lambda stroke: np.ptp(stroke[:, 1]))
    assert np.ptp(flat[:, 0]) == pytest.approx(1.0, abs=0.03)
    assert np.ptp(flat[:, 1]) < 0.03
    assert np.ptp(upright[:, 1]) == pytest.approx(1.0, abs=0.03)
    assert np.ptp(upright[:, 0]) < 0.03


def test_a_ring_is_one_closed_stroke():
    (stroke,) = trace(ring())
    assert np.allclose(stroke[0], stroke[-1])
    assert length(stroke) == pytest.approx(np.pi, rel=0.05)
    assert np.hypot(*stroke.T) == pytest.approx(np.full(len(stroke), 0.5), abs=0.03)


def test_a_dot_beside_a_bar_is_a_short_stroke_in_its_place():
    strokes = trace(bar() | disc(30, 70, 8))
    assert len(strokes) == 2
    dot = min(strokes, key=length)
    assert length(dot) == pytest.approx(4 / 108, rel=0.2)
    line = max(strokes, key=length)
    assert (line.mean(axis=0) - dot.mean(axis=0)) == pytest.approx([0, 40 / 108], abs=0.02)


def test_a_speck_is_not_traced():
    assert trace(disc(30, 30, 4)) is None


def test_spurs_are_removed_and_branches_stay():
    skeleton = np.zeros((60, 60), bool)
    skeleton[30, 5:55] = True
    skeleton[27:30, 30] = True  # three pixels
    width = np.full(skeleton.shape, 4.0)
    graph = SkeletonGraph(skeleton, width)
    assert len(graph.edges) == 3
    graph.clean()
    (edge,) = graph.edges.values()
    assert length(edge.line) == pytest.approx(49)
    skeleton[10:30, 30] = True  # twenty pixels
    graph = SkeletonGraph(skeleton, width)
    graph.clean()
    assert len(graph.edges) == 3


def test_a_crossing_pulled_apart_becomes_one_junction():
    skeleton = np.zeros((60, 60), bool)
    skeleton[30, 5:55] = True
    skeleton[5:30, 28] = True
    skeleton[31:55, 32] = True
    graph = SkeletonGraph(skeleton, np.full(skeleton.shape, 4.0))
    graph.clean()
    assert sorted(graph.degree(node) for node in graph.nodes) == [1, 1, 1, 1, 4]


def test_resampled_lines_have_equal_steps_and_the_same_ends():
    line = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    result = resample(line, 8)
    assert result.shape == (9, 2)
    assert result[[0, -1]] == pytest.approx(line[[0, -1]])
    assert np.hypot(*np.diff(result, axis=0).T) == pytest.approx(np.full(8, 0.5))


def test_smoothing_keeps_ends_and_rings():
    angle = np.linspace(0, 2 * np.pi, 41)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    closed = smooth(circle, 1.5, 4)
    assert closed[0] == pytest.approx(closed[-1])
    assert np.hypot(*closed.T) == pytest.approx(np.full(41, np.hypot(*closed[0])))
    zigzag = np.stack([np.arange(20.0), np.arange(20) % 2], axis=1)
    open_line = smooth(zigzag, 1.5, 4)
    assert open_line[[0, -1]] == pytest.approx(zigzag[[0, -1]])
    assert np.abs(np.diff(open_line[5:-5, 1])).max() < 0.1


def test_halves_are_rounded_the_same_way_whatever_the_last_bits():
    assert nearest(np.array([126.5 - 1e-12, 126.5, 126.5 + 1e-12])).tolist() == [126, 126, 126]


def square(dent=0.0):
    """A square whose upper side is pushed in."""
    return [np.array([[-0.5, -0.5], [0.0, dent - 0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]])]


CROSS = [np.array([[-0.5, 0.0], [0.5, 0.0]]), np.array([[0.0, -0.5], [0.0, 0.5]])]


def test_the_same_shape_is_near_and_another_is_far():
    distance = look_alike([square(), CROSS, square(), square(dent=0.12)])
    assert distance == pytest.approx(distance.T)
    assert distance[0, 2] < 0.03
    assert distance[0, 1] > 0.2
    assert distance[0, 2] < distance[0, 3] < 0.09


@pytest.mark.parametrize(
    ("dent", "kept"),
    [  # within a script, in another script of the split, in another split
        (0.00, (False, False, False)),
        (0.10, (True, False, False)),
        (0.12, (True, True, False)),
        (0.20, (True, True, True)),
    ],
)
def test_look_alikes_are_dropped_most_strictly_across_splits(dent, kept):
    homes = [("A", "train"), ("B", "train"), ("C", "test")]
    for (script, split), expected in zip(homes, kept, strict=True):
        positions = select([square(), square(dent)], np.array(["A", script]), np.array(["train", split]))
        assert positions == ([0, 1] if expected else [0])


def test_a_script_gives_at_most_32_letters_and_dots_alone_are_no_letter():
    rng = np.random.default_rng(0)
    scribbles = [[rng.uniform(-0.5, 0.5, (6, 2))] for _ in range(40)]
    dot = [np.array([[-0.02, 0.0], [0.02, 0.0]])]
    kept = select([dot, *scribbles], np.array(["A"] * 41), np.array(["train"] * 41))
    assert 0 not in kept
    assert len(kept) == 32


def test_saved_letters_come_back(tmp_path):
    letters = load_letters(asset("glyphs_strokes.npz")).select([3, 900, 1528])
    save_letters(tmp_path / "some.npz", letters)
    again = load_letters(tmp_path / "some.npz")
    assert again.codepoint.tolist() == letters.codepoint.tolist()
    for a, b in zip(again.strokes, letters.strokes, strict=True):
        assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def test_the_list_names_fifty_scripts_once_and_no_letter_twice():
    assert len({script.name for script in SCRIPTS}) == len(SCRIPTS) == 50
    assert [sum(script.split == split for script in SCRIPTS) for split in ("train", "val", "test")] == [30, 7, 13]
    codes = [code for script in SCRIPTS for code in script.codepoints]
    assert len(codes) == len(set(codes))


def test_a_missing_font_is_reported_with_the_cure(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"NotoSansHebrew.*fonts-noto-core.*--fonts"):
        font_file(tmp_path, next(script for script in SCRIPTS if script.name == "Hebrew"))


@fonts_needed
@pytest.mark.parametrize("name", ["Hebrew", "OldPermic", "Thaana"])
def test_tracing_a_script_gives_the_shipped_strokes(name):
    shipped = load_letters(asset("glyphs_strokes.npz"))
    traced = trace_script(FONTS, next(script for script in SCRIPTS if script.name == name))
    place = {int(code): i for i, code in enumerate(traced.codepoint)}
    rows = np.flatnonzero(shipped.script == name)[:8]
    for row in rows:
        i = place[int(shipped.codepoint[row])]
        assert traced.size[i] == pytest.approx(shipped.size[row])
        assert len(traced.strokes[i]) == len(shipped.strokes[row])
        for a, b in zip(traced.strokes[i], shipped.strokes[row], strict=True):
            assert np.array_equal(a, b)
