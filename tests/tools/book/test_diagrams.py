"""tools/book/diagrams.py: the committed drawings are those that the code draws, and they can be read."""

import re

import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text

from tools.book import diagrams

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_NAMES = re.compile(r'(?:id="|#)[\w-]+')  # Matplotlib makes names of shared paths from their coordinates


@pytest.mark.parametrize("name", diagrams.DIAGRAMS)
def test_the_committed_drawing_is_what_the_code_draws(name, tmp_path):
    """Coordinates may differ by half a point: fonts are rasterised a little differently elsewhere."""
    diagrams.save(name, tmp_path / "new.svg")
    new = (tmp_path / "new.svg").read_text(encoding="utf-8")
    old = (diagrams.ROOT / diagrams.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    if new == old:
        return
    new, old = (_NAMES.sub("", text) for text in (new, old))
    assert _NUMBER.sub("0", new) == _NUMBER.sub("0", old), "run `python -m tools.book.diagrams`"
    numbers = [[float(number) for number in _NUMBER.findall(text)] for text in (new, old)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.5)


def test_two_drawings_have_the_same_bytes(tmp_path):
    for name in ("one.svg", "two.svg"):
        diagrams.save("loops", tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_drawing_names_no_date_and_no_machine():
    for name in diagrams.DIAGRAMS:
        text = (diagrams.ROOT / diagrams.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
        assert "dc:date" not in text
        assert "<image" not in text  # lines only: sharp at every size


@pytest.mark.parametrize("name", diagrams.DIAGRAMS)
def test_text_has_nine_points_on_a_telephone_and_stays_inside(name):
    figure = diagrams.figure(name)
    figure.canvas.draw()
    shrunk = 350 / (diagrams.WIDTH * 96)
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert texts
    paper = figure.bbox
    for text in texts:
        assert text.get_fontsize() * shrunk >= 9, text.get_text()
        box = text.get_window_extent()
        assert paper.x0 <= box.x0 <= box.x1 <= paper.x1, text.get_text()
        assert paper.y0 <= box.y0 <= box.y1 <= paper.y1, text.get_text()
    plt.close(figure)


def test_the_package_names_every_floor_of_the_contract():
    names = [name for floor in diagrams.floors() for name in floor]
    assert {path.stem for path in (diagrams.ROOT / "fsl_course").iterdir() if not path.stem.startswith("__")} == set(
        names
    )
    assert {floor[0] for floor in diagrams.floors()} == set(diagrams._FLOORS)


def test_markdown_carries_the_alt_text():
    assert diagrams.markdown("metric") == f"![{diagrams.DIAGRAMS['metric'].alt}](../docs/diagrams/metric.svg)"
    assert all(40 < len(one.alt) < 250 for one in diagrams.DIAGRAMS.values())
