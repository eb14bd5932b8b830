"""Buttons that save a learner's answers and progress to a file and restore them, because Binder sessions forget everything."""

from __future__ import annotations

import html
from datetime import date
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from fsl_classroom import restore_work, saved_work
from fsl_classroom.checking.progress import trouble

_WITHOUT_KERNEL = (
    "Two buttons appear here when you run this cell: one saves your answers and your progress to a file on your "
    "computer, the other brings such a file back."
)


class WorkKeeper(anywidget.AnyWidget):
    """Two buttons that save and restore the work done in the course.

    The file holds the progress of every exercise and the cell of the last answer given to `check`, or of the last right
    answer if there is one. It does not hold cells that a learner added, or drawings; File > Download keeps a whole notebook.
    Restoring executes nothing and overwrites nothing; see `fsl_classroom.restore_work`.
    """

    _esm = Path(__file__).with_name("work_keeper.js")

    asked = traitlets.Int(0).tag(sync=True)  # counts clicks on "save"
    ready = traitlets.Int(0).tag(sync=True)  # counts answered clicks, raised after `content` is filled
    content = traitlets.Unicode("").tag(sync=True)
    file_name = traitlets.Unicode("").tag(sync=True)
    brought = traitlets.Unicode("").tag(sync=True)  # content of the chosen file
    brought_count = traitlets.Int(0).tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)

    def __init__(self, folder: Path | str = ".") -> None:
        super().__init__()
        self.folder = Path(folder)

    @traitlets.observe("asked")
    def _save(self, _change: object) -> None:
        self.file_name = f"fsl-course-work-{date.today():%Y-%m-%d}.json"
        self.content = saved_work()
        self.ready += 1
        self.message = f"Your work goes to {self.file_name}, in your browser's folder for downloads."
        if words := trouble():
            self.message += f" It holds this session only, because {words} Make it readable, and save again."

    @traitlets.observe("brought_count")
    def _restore(self, _change: object) -> None:
        try:
            self.message = " ".join(restore_work(self.brought, self.folder))
        except ValueError as error:
            self.message = f"Nothing was changed: {error}"
        self.brought = ""

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        bundle, metadata = shown if isinstance(shown, tuple) else (shown or {}, {})
        words = {"text/plain": _WITHOUT_KERNEL, "text/html": f"<p>{html.escape(_WITHOUT_KERNEL)}</p>"}
        return {**bundle, **words}, metadata
