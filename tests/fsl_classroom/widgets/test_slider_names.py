"""Sliders of the widgets have names: what can be seen without a browser."""

import ipywidgets

from fsl_classroom.widgets import PrototypeBoard
from fsl_classroom.widgets._slider_names import SliderNames


def test_it_stands_in_the_box_of_the_sliders_and_shows_nothing():
    board = PrototypeBoard()
    named = [child for child in board.children if isinstance(child, SliderNames)]
    assert len(named) == 1
    assert named[0].layout.display == "none"


def test_it_looks_for_what_ipywidgets_writes():
    assert isinstance(PrototypeBoard(), ipywidgets.VBox)  # .widget-vbox, where it looks for sliders
    for mark in (".widget-vbox", ".widget-slider", ".noUi-handle", "aria-label"):
        assert mark in SliderNames._esm
