"""Every lesson, opened in JupyterLab as a student meets it, and run from top to bottom.

FSL_BROWSER_LESSONS chooses: unset, the first lesson and the next two in rotation; "all"; or numbers ("05 07").
"""

from __future__ import annotations

import os
from datetime import date

import pytest

from tests.browser.conftest import ROOT, Opener, run_all, screenshot
from tools.notebooks.pick import rotate

pytestmark = pytest.mark.browser


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
    not_run = page.evaluate(
        "() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.innerText)"
        ".filter(text => !/\\d/.test(text)).length"
    )
    assert not_run == 0
    shown = page.evaluate("() => [...document.querySelectorAll('.jp-OutputArea')].map(e => e.innerText).join('\\n')")
    assert "not attempted yet" in shown  # untouched exercises are reported, and the lesson goes on
