"""The folder of coloured things: the same seed gives the same files, and its classes can be told apart."""

import numpy as np
import pytest
from PIL import Image

from fsl_course import EpisodeSampler, evaluate, load_folder
from fsl_course.methods.baselines import PixelNearestNeighbour
from tools.data import draw_things


def test_a_folder_that_load_folder_reads_and_that_is_no_game_of_chance(tmp_path):
    draw_things.write(tmp_path / "things", 12, 6, 32, seed=3)
    source = load_folder(tmp_path / "things", size=32, channels=3)
    assert source.images.shape == (12, 6, 3, 32, 32)
    assert source.inverted is False
    result = evaluate(PixelNearestNeighbour(), EpisodeSampler(source, 5, 1, 5), 200)
    assert 0.2 + result.ci95 < result.mean < 0.9


def test_the_same_seed_draws_the_same_files_and_another_one_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_things.write(tmp_path / name, 2, 2, 16, seed)
    a, b, c = ((tmp_path / name / "thing01" / "01.png").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("pattern", draw_things.PATTERNS)
def test_every_pattern_shows_in_the_picture(pattern):
    design = draw_things.Design(3, 0.1, 0.9, (0.0, 0.5), pattern, 6.0, 2)
    drawn = draw_things.picture(design, 48, np.random.default_rng(0))
    assert (drawn.size, drawn.mode) == ((48, 48), "RGB")
    red, _, blue = np.asarray(drawn, dtype=int)[16:32, 16:32].reshape(-1, 3).T
    second = (blue > red).mean()
    assert (second > 0.1) == (pattern != "plain")


def test_a_folder_with_files_is_left_alone(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "mine.png")
    with pytest.raises(FileExistsError, match="holds files already: name a new folder"):
        draw_things.write(tmp_path, 2, 2, 16, 0)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.png"]


def test_the_last_classes_may_be_kept_for_the_test(tmp_path):
    draw_things.write(tmp_path / "halves", 5, 2, 16, 0, test=2)
    draw_things.write(tmp_path / "all", 5, 2, 16, 0)
    source = load_folder(tmp_path / "halves", size=16)
    assert source.split("train").class_names == ["thing00", "thing01", "thing02"]
    assert source.split("test").class_names == ["thing03", "thing04"]
    one, other = (tmp_path / place / "thing04" / "01.png" for place in ("halves/test", "all"))
    assert one.read_bytes() == other.read_bytes()
    with pytest.raises(ValueError, match="--test is below --classes, 2; got 2"):
        draw_things.write(tmp_path / "none", 2, 2, 16, 0, test=2)
