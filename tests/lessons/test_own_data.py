"""Lesson 26 runs on data of one's own when its one line is changed: a folder of pictures, and a file of sentences."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

from fsl_classroom.widgets.alphabets import save_alphabet
from fsl_course.data import load_glyphs, load_intents
from tools.data.draw_things import write as draw_things
from tools.notebooks.cells import read_cells

LESSON = Path(__file__).resolve().parents[2] / "lessons" / "26_your_own.py"


def run_with(data: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs the code cells of the lesson with another DATA, up to its quiz, and returns its names. Checks record nothing."""
    matplotlib.use("Agg")
    monkeypatch.setattr("fsl_classroom.check", lambda number, answer: answer)
    monkeypatch.setattr("fsl_classroom.progress", lambda lesson: None)
    source = "\n\n".join(cell.source for cell in read_cells(LESSON) if cell.cell_type == "code")
    changed, count = re.subn(r'^DATA = "example"$', f"DATA = {data!r}", source, flags=re.MULTILINE)
    assert count == 1
    quick, lines = re.subn(r"steps=\d+", "steps=2", changed)  # training is not what is tested here
    assert lines >= 2
    names: dict[str, Any] = {"__name__": "lesson"}
    state = torch.get_rng_state()
    try:
        exec(compile(quick, str(LESSON), "exec"), names)
    finally:
        torch.set_rng_state(state)
        matplotlib.pyplot.close("all")
    return names


def assert_whole(names: dict[str, Any], classes: int) -> None:
    report = names["report"]
    parts = [set(report[part]) for part in ("train", "val", "test", "aside")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == classes
    assert names["leaks"](report) == []
    tested = {entry["setting"] for entry in report["ledger"] if entry["purpose"] == "test"}
    assert tested == set(report["declared"])
    assert report["chosen"] in tested
    assert set(report["gains"]) == tested - {report["chosen"]}


def test_a_folder_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "things"
    draw_things(folder, classes=12, pictures=8, size=32, seed=3)
    for picture in sorted((folder / "thing05").iterdir())[3:]:
        picture.unlink()
    names = run_with(str(folder), monkeypatch)
    assert not names["TEXTS"]
    assert names["report"]["aside"] == ["thing05"]
    assert (names["ways"], names["shots"], names["queries"]) == (3, 4, 4)
    assert_whole(names, 12)
    assert "the report stands" in capsys.readouterr().out


def test_folders_of_splits_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    draw_things(tmp_path / "all", classes=9, pictures=5, size=32, seed=1)
    for number, folder in enumerate(sorted((tmp_path / "all").iterdir())):
        place = tmp_path / "mine" / ("test", "train", "val")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        folder.rename(place / folder.name)
    names = run_with(str(tmp_path / "mine"), monkeypatch)
    assert names["report"]["test"] == ["thing00", "thing03", "thing06"]
    assert names["report"]["train"] == ["thing01", "thing04", "thing07"]
    assert_whole(names, 9)


def test_a_file_of_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    intents = load_intents().split("test")
    rows = [
        f'"{sentence.replace(chr(34), "")}",{name}'
        for name, sentences in zip(intents.class_names, intents.sentences, strict=True)
        for sentence in sentences[:12]
    ]
    (tmp_path / "mine.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    names = run_with(str(tmp_path / "mine.csv"), monkeypatch)
    assert names["TEXTS"]
    assert_whole(names, len(intents))
    assert "nothing to export" in capsys.readouterr().out


def test_what_was_drawn_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("IPython.display.display", lambda widget: None)
    glyphs = load_glyphs().split("test")
    drawn = {f"letter {k}": list(glyphs.images[7 * k, :4]) for k in range(8)}
    save_alphabet(drawn, tmp_path / "my_alphabet")
    names = run_with("draw", monkeypatch)
    assert (names["ways"], names["shots"], names["queries"]) == (2, 2, 2)
    assert names["own"].images.max() == 255
    assert_whole(names, 8)


def test_nothing_drawn_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("IPython.display.display", lambda widget: None)
    with pytest.raises(ValueError, match="draw on the pad and press Save"):
        run_with("draw", monkeypatch)


def test_two_pictures_of_a_class_are_refused_and_colour_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    draw_things(tmp_path / "few", classes=6, pictures=2, size=32, seed=2)
    with pytest.raises(ValueError, match="give every class three"):
        run_with(str(tmp_path / "few"), monkeypatch)
    assert "They are read as grey" in capsys.readouterr().out


def test_six_classes_of_three_pictures_run_and_are_told_apart_from_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    draw_things(tmp_path / "six", classes=6, pictures=3, size=32, seed=2)
    assert_whole(run_with(str(tmp_path / "six"), monkeypatch), 6)
    told = capsys.readouterr().out
    assert "only 9 different test episodes" in told
    assert "rests on 2 test classes" in told


def test_a_missing_file_of_sentences_is_not_called_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(FileNotFoundError) as told:
        run_with(str(tmp_path / "mine.csv"), monkeypatch)
    assert "folder" not in str(told.value)
