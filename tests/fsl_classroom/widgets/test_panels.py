"""Panels, controls and tables that the widgets share."""

from __future__ import annotations

import ipywidgets
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from fsl_classroom.widgets._panels import Draw, LivePanel, control, log_scale, table, together, view


def _line(axes: Axes) -> None:
    axes.plot([1, 10, 100], [0.01, 1, 100])
    axes.set(title="a line")


def test_panels_stand_side_by_side_without_touching() -> None:
    figure = together([_line, _line], 3.0, 2.0)
    left, right = (axes.get_position() for axes in figure.axes)
    assert figure.get_size_inches().tolist() == [6.0, 2.0]
    assert left.x1 < right.x0
    assert [axes.get_title() for axes in figure.axes] == ["a line", "a line"]
    plt.close(figure)


def _bars(axes: Axes) -> None:
    axes.barh([0, 1], [3, 4], label="bars")
    axes.text(1, 1, "four")
    axes.axvline(2)
    axes.set(title="bars")
    axes.legend()


def _shown(*draws: Draw) -> str:
    place = view()
    panel = LivePanel(place)
    for draw in draws:
        panel.show(draw, 'a "line" & more')
    return place.value


def test_a_live_panel_is_a_picture_with_escaped_alt_text_and_leaves_no_figure_open() -> None:
    before = plt.get_fignums()
    assert 'alt="a &quot;line&quot; &amp; more"' in _shown(_line)
    assert plt.get_fignums() == before
    with pytest.raises(ValueError, match="alt text"):
        LivePanel(view()).show(_line, " ")


def test_nothing_of_the_picture_before_is_left_in_a_live_panel() -> None:
    assert _shown(_bars, _line) == _shown(_line)
    assert _shown(_line, _bars) == _shown(_bars, _bars) == _shown(_bars)
    assert _shown(_line) != _shown(_bars)


def test_a_live_panel_draws_only_what_has_changed() -> None:
    drawn: list[str] = []

    def draw(axes: Axes) -> None:
        drawn.append("once more")

    panel = LivePanel(view())
    for alt, state, total in (("a", 1, 1), ("a", 1, 1), ("a", 2, 2), ("b", 2, 3), ("b", None, 4), ("b", None, 5)):
        panel.show(draw, alt, state)
        assert len(drawn) == total


def test_log_scale_shows_plain_numbers() -> None:
    figure = together([_line])
    axes = figure.axes[0]
    log_scale(axes, "x", "y")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.yaxis.get_major_formatter()(0.01, 0) == "0.01"
    assert len(axes.xaxis.get_minorticklocs()) == 0
    plt.close(figure)


def test_a_control_keeps_its_description_in_sight() -> None:
    slider = control(ipywidgets.IntSlider, "ways N", value=3, min=2, max=5)
    assert (slider.value, slider.max, slider.description) == (3, 5, "ways N")
    assert slider.style.description_width == "initial"
    assert slider.layout.max_width == "100%"
    assert control(ipywidgets.Button, "Step").description == "Step"


def test_a_table_has_headers_and_escapes_its_text() -> None:
    html = table("Slots", ["", "class"], [["slot 0", "<b>"], ["slot 1", "x"]], height=100)
    # One column header, because a screen reader would announce an empty one.
    assert (html.count("scope=row"), html.count("scope=col")) == (2, 1)
    assert "&lt;b&gt;" in html
    assert 'tabindex="0"' in html
    assert "tabindex" not in table("Slots", [""], [["a"]])
