"""Accessible names for sliders: ipywidgets writes a slider's description beside it but gives its handle no name."""

from __future__ import annotations

import anywidget


class SliderNames(anywidget.AnyWidget):
    """An invisible widget that names the handle and the value of every slider in its box after the slider's description.

    Without it screen readers say only "slider".
    """

    _esm = """
const PATIENCE = 20; // attempts, a quarter of a second apart, because the sliders are drawn later

function name(el, left) {
  for (const slider of el.closest(".widget-vbox")?.querySelectorAll(".widget-slider") ?? []) {
    const words = slider.querySelector(".widget-label")?.textContent ?? "";
    for (const handle of slider.querySelectorAll(".noUi-handle")) handle.setAttribute("aria-label", words);
    for (const value of slider.querySelectorAll(".widget-readout")) {
      value.setAttribute("role", "textbox");
      value.setAttribute("aria-label", `${words}, value`);
    }
  }
  if (left) setTimeout(() => name(el, left - 1), 250);
}

function render({ el }) {
  name(el, PATIENCE);
}

export default { render };
"""

    def __init__(self) -> None:
        super().__init__(layout={"display": "none"})
