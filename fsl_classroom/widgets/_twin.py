"""The static twin of a widget: a picture with alt text that replaces it where no kernel runs."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from fsl_course import figures


class WithTwin(ipywidgets.VBox):
    """A box of controls and views that also shows itself as a picture.

    A front end with a kernel shows the widget. A front end without one (GitHub, the website, a notebook before it is run)
    cannot, so it shows the next richest form of the same output, the twin. The built notebooks keep only the twin.
    """

    def twin(self) -> tuple[Figure, str]:
        """Returns the state of the widget as a figure, and the figure's alt text."""
        raise NotImplementedError(f"{type(self).__name__} has no static twin")

    def twin_html(self) -> str:
        """Returns the twin as one <img> with alt text."""
        figure, alt = self.twin()
        try:
            return figures.to_html(figure, alt)
        finally:
            plt.close(figure)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        bundle = dict(super()._repr_mimebundle_(**options) or {})
        bundle["text/plain"] = f"{type(self).__name__}: run this cell to use it"
        bundle["text/html"] = self.twin_html()
        return bundle


def status(text: str) -> str:
    """Returns a line that screen readers announce when it changes. text: plain text, which is escaped."""
    return f'<div role="status" aria-live="polite">{html.escape(text)}</div>'
