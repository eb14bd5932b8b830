"""The buttons that save and restore work, without a browser."""

from __future__ import annotations

import json
from pathlib import Path

from fsl_classroom import find
from fsl_classroom.checking.progress import load, record
from fsl_classroom.widgets import WorkKeeper


def test_a_click_puts_the_work_together_and_says_where_it_goes():
    record(find("00.1"), passed=True, diagnosis="", answer="def f(): ...")
    keeper = WorkKeeper()
    keeper.asked += 1
    assert keeper.ready == 1
    assert json.loads(keeper.content)["exercises"]["00.1"]["answer"] == "def f(): ..."
    assert keeper.file_name in keeper.message
    assert keeper.file_name.endswith(".json")


def test_a_progress_file_that_cannot_be_read_is_told_of(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("FSL_PROGRESS", str(tmp_path))  # a folder: no file that can be read
    keeper = WorkKeeper()
    keeper.asked += 1
    assert f"It holds this session only, because the progress file {tmp_path} cannot be read" in keeper.message


def test_a_file_that_was_chosen_is_restored(tmp_path: Path, monkeypatch):
    record(find("00.1"), passed=True, diagnosis="", answer="def f(): ...")
    keeper = WorkKeeper(tmp_path)
    keeper.asked += 1
    monkeypatch.setenv("FSL_PROGRESS", str(tmp_path / "elsewhere.json"))
    keeper.brought = keeper.content
    keeper.brought_count += 1
    assert "1 of them right" in keeper.message
    assert load()["00.1"]["passed"] is True
    assert keeper.brought == ""


def test_a_wrong_file_is_refused_in_words(tmp_path: Path):
    keeper = WorkKeeper(tmp_path)
    keeper.brought = "no json"
    keeper.brought_count += 1
    assert keeper.message.startswith("Nothing was changed: this is no file of saved work")


def test_without_a_kernel_a_sentence_says_what_the_buttons_do():
    shown = WorkKeeper()._repr_mimebundle_()
    bundle = shown[0]
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "saves your answers" in bundle["text/html"]
    assert "saves your answers" in bundle["text/plain"]
