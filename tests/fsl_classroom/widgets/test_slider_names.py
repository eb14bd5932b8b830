"""The widgets' sliders have accessible names, as far as can be tested without a browser."""

import ipywidgets

from fsl_classroom.widgets import PrototypeBoard
from fsl_classroom.widgets._slider_names import SliderNames


def test_it_stands_in_the_box_of_the_sliders_and_shows_nothing():
    board = PrototypeBoard()
    named = [child for child in board.children if isinstance(child, SliderNames)]
    assert len(named) == 1
    assert named[0].layout.display == "none"


def test_it_looks_for_what_ipywidgets_writes():
    # A VBox has the class .widget-vbox, where SliderNames looks for sliders.
    assert isinstance(PrototypeBoard(), ipywidgets.VBox)
    for mark in (".widget-vbox", ".widget-slider", ".noUi-handle", "aria-label"):
        assert mark in SliderNames._esm
