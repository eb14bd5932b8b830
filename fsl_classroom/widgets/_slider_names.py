"""Names for sliders: ipywidgets writes a slider's description beside it, and leaves its handle without a name."""

from __future__ import annotations

import anywidget


class SliderNames(anywidget.AnyWidget):
    """Put into a box of controls, it gives the handle and the value of every slider there the slider's description as name.

    It shows nothing. Screen readers say "slider" and no more without it.
    """

    _esm = """
const PATIENCE = 20; // looks, one every quarter of a second: sliders are drawn when their time comes

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
