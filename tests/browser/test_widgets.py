"""Every widget, moved by mouse and keyboard in JupyterLab."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import screenshot

pytestmark = pytest.mark.browser
Scratch = Callable[[str, str], Page]


def test_work_is_saved_to_a_file_and_comes_back(scratch_notebook: Scratch, tmp_path):
    code = (
        "from fsl_course import check\nfrom fsl_course.exercises import find\nfrom fsl_course.widgets import WorkKeeper\n"
        "def accuracy(predictions, labels):\n    return (predictions == labels).double().mean().item()\n"
        "check('00.1', accuracy)\nWorkKeeper()"
    )
    page = scratch_notebook("keeper", code)
    with page.expect_download() as started:
        page.click(".fsl-work-keeper .fsl-save")
    started.value.save_as(tmp_path / "work.json")
    saved = json.loads((tmp_path / "work.json").read_text(encoding="utf-8"))
    assert saved["exercises"]["00.1"]["passed"] is True
    assert saved["exercises"]["00.1"]["answer"] == code

    saved["exercises"]["05.1"] = saved["exercises"]["00.1"] | {"title": "Prototypes", "answer": "x = 1"}
    (tmp_path / "work.json").write_text(json.dumps(saved), encoding="utf-8")
    page.set_input_files(".fsl-work-keeper input[type=file]", tmp_path / "work.json")
    page.wait_for_function("() => document.querySelector('.fsl-status').innerText.includes('2 exercises brought back')")
    screenshot(page, "work_keeper")
