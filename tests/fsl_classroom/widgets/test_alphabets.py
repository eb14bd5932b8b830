"""Alphabets on disk, and the example that widgets start from."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from fsl_classroom.widgets.alphabets import checked_alphabet, example, load_alphabet, save_alphabet
from fsl_classroom.widgets.sketch_pad import rasterise
from fsl_course import load_folder, load_glyphs

LINE = [[[0.1, 0.5], [0.9, 0.5]]]
CROSS = [[[0.1, 0.1], [0.9, 0.9]], [[0.9, 0.1], [0.1, 0.9]]]


def test_the_example_comes_from_letters_that_nobody_trained_on():
    alphabet, query, answer, script = example(3)
    source = load_glyphs()
    found = {(source.splits[i], source.groups[i]) for i in (source.images == query).all((2, 3, 4)).any(1).nonzero()}
    assert found == {("test", script)}
    assert [len(drawings) for drawings in alphabet.values()] == [2] * 5
    assert not any(torch.equal(query, drawing) for drawing in alphabet[answer])
    again = example(3)
    assert torch.equal(query, again[1])
    assert not torch.equal(query, example(4)[1])


def test_an_alphabet_is_saved_for_load_folder_and_comes_back(tmp_path):
    alphabet = {name: [rasterise(LINE), rasterise(CROSS)] for name in ("a", "A", "../CON", "train", "雪 & <b>")}
    folder = save_alphabet(alphabet, tmp_path / "mine")
    back = load_alphabet(folder)
    assert list(back) == list(alphabet)
    source = load_folder(folder)
    assert source.splits is None
    for slot, (name, drawings) in enumerate(alphabet.items()):
        assert torch.equal(source.images[slot], torch.stack(drawings))
        assert torch.equal(torch.stack(back[name]), torch.stack(drawings))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "mine"
    ]  # no temporary folders left, nothing written outside


def test_saving_again_replaces_the_old_drawings(tmp_path):
    save_alphabet({"A": [rasterise(LINE)] * 3, "B": [rasterise(LINE)]}, tmp_path / "mine")
    save_alphabet({"Z": [rasterise(CROSS)]}, tmp_path / "mine")
    assert {name: len(drawings) for name, drawings in load_alphabet(tmp_path / "mine").items()} == {"Z": 1}


def test_a_folder_that_holds_other_things_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="notes.txt"):
        save_alphabet({"A": [rasterise(LINE)]}, tmp_path)
    folder = save_alphabet({"A": [rasterise(LINE)]}, tmp_path / "mine")
    (folder / "01-A" / "photo.jpg").write_text("mine")
    with pytest.raises(ValueError, match="01-A/photo.jpg"):
        save_alphabet({"B": [rasterise(CROSS)]}, folder)
    assert list(load_alphabet(folder)) == ["A"]
    with pytest.raises(ValueError, match="it is a file"):
        save_alphabet({"A": [rasterise(LINE)]}, tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_folders_of_other_makers_and_pictures_of_other_sizes(tmp_path):
    folder = save_alphabet({"A": [rasterise(LINE)], "B": [rasterise(CROSS)]}, tmp_path / "mine")
    (folder / "alphabet.json").unlink()
    assert list(load_alphabet(folder)) == ["01-A", "02-B"]
    Image.new("L", (30, 28)).save(folder / "01-A" / "0.png")
    with pytest.raises(ValueError, match="0.png is 30x28 pixels"):
        load_alphabet(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no folders"):
        load_alphabet(tmp_path / "empty")


def test_names_that_would_fall_together_are_refused():
    with pytest.raises(ValueError, match="differ in blanks only"):
        checked_alphabet({"a b": [rasterise(LINE)], "a  b": [rasterise(CROSS)]})
