"""Every lesson, opened in JupyterLab as a student meets it, and run from top to bottom.

FSL_BROWSER_LESSONS chooses: unset, the first lesson and the next two in rotation; "all"; or numbers ("05 07").
"""

from __future__ import annotations

import os
from datetime import date

import nbformat
import pytest

from tests.browser.conftest import ROOT, Lab, Opener, run_all, screenshot
from tools.notebooks.folding import folded_metadata
from tools.notebooks.pick import rotate

pytestmark = pytest.mark.browser
# Asks the notebook and not the page, where a folded cell has no prompt.
EXECUTION_COUNTS = """() => jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === 'code').map(cell => cell.model.executionCount)"""


def chosen() -> list[str]:
    names = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    wanted = os.environ.get("FSL_BROWSER_LESSONS", "")
    if wanted == "all":
        return names
    if wanted:
        picked = [name for name in names if name[:2] in wanted.split()]
        if len(picked) != len(set(wanted.split())):
            raise ValueError(f'FSL_BROWSER_LESSONS takes "all" or numbers such as "05 07"; got {wanted!r}')
        return picked
    return names[:1] + rotate(names[1:], int(date.today().strftime("%j")))


@pytest.mark.parametrize("name", chosen())
def test_a_lesson_runs_from_top_to_bottom(name: str, open_notebook: Opener):
    page = open_notebook(f"notebooks/{name}.ipynb")
    screenshot(page, f"{name}-opened")
    run_all(page)
    page.wait_for_selector(".fsl-work-keeper button")  # the last cell: everything above it has run
    screenshot(page, f"{name}-run", whole=True)
    not_run = [cell for cell in page.evaluate(EXECUTION_COUNTS) if cell is None]
    assert not not_run
    shown = page.evaluate("() => [...document.querySelectorAll('.jp-OutputArea')].map(e => e.innerText).join('\\n')")
    assert "not attempted yet" in shown  # untouched exercises are reported, and the lesson goes on


def test_a_folded_cell_hides_its_source_and_shows_its_picture(lab: Lab, open_notebook: Opener):
    setup = "from fsl_course.figures import new, show"
    drawing = "figure, axis = new()\naxis.plot([0, 1])\nshow(figure, 'a rising line')"
    cells = [
        nbformat.v4.new_code_cell(source, metadata=folded_metadata({}, source, {"new", "show"}))
        for source in (setup, drawing)
    ]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, lab.folder / "notebooks" / "folded.ipynb")
    page = open_notebook("notebooks/folded.ipynb")
    run_all(page)
    picture = page.wait_for_selector(".jp-OutputArea img")
    screenshot(page, "folded")
    assert picture.is_visible()
    assert picture.get_attribute("alt") == "a rising line"
    assert page.evaluate(EXECUTION_COUNTS) == [1, 2]
    editors = page.locator(".jp-CodeCell .jp-InputArea-editor")
    assert editors.count() == 1  # only the open cell shows its source
    page.locator(".jp-CodeCell .jp-Placeholder").first.click()  # the fold opens
    assert editors.count() == 2
