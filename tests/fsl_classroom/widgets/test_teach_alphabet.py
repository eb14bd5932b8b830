"""The widget for an alphabet of one's own, without a browser: teaching, guessing, saving."""

from __future__ import annotations

import re

import pytest
import torch

from fsl_classroom.widgets import TeachAlphabet
from fsl_classroom.widgets.alphabets import load_alphabet, save_alphabet
from fsl_classroom.widgets.sketch_pad import rasterise
from fsl_classroom.widgets.verdicts import COMPARING, TITLES
from fsl_course import load_glyphs
from fsl_course.episodes import Episode
from fsl_course.weights.checkpoints import pretrained

LINE = [[[0.1, 0.5], [0.9, 0.5]]]
CROSS = [[[0.1, 0.1], [0.9, 0.9]], [[0.9, 0.1], [0.1, 0.9]]]


@pytest.fixture(scope="module")
def letters() -> torch.Tensor:
    """Ten letters of a script that no network was trained on, five drawings each: uint8 [10, 5, 1, 28, 28]."""
    source = load_glyphs().split("test")
    script = source.groups[0]
    return source.images[[i for i, group in enumerate(source.groups) if group == script][:10], :6]


def taught(letters: torch.Tensor, shots: list[int]) -> TeachAlphabet:
    teach = TeachAlphabet()
    for name, drawings, count in zip("ABCDEFGHIJ", letters, shots, strict=False):
        for drawing in drawings[:count]:
            teach.add_example(name, drawing)
    return teach


def says(teach: TeachAlphabet) -> str:
    return re.sub("<.*?>", "", teach._status.value)


def button(teach: TeachAlphabet, description: str):
    """Returns the button with that description, at any depth of the widget."""
    boxes = [teach]
    while boxes:
        box = boxes.pop()
        if getattr(box, "description", None) == description:
            return box
        boxes += getattr(box, "children", ())
    raise AssertionError(f"no button {description}")


def test_a_fresh_widget_says_what_to_do_and_guesses_nothing():
    teach = TeachAlphabet()
    assert teach.guesses() == {}
    assert "Choose a character" in says(teach)
    teach.set_query(LINE)
    assert teach.guesses() == {}
    assert "need two characters with drawings; so far no character has" in says(teach)
    teach.add_example("A", LINE)
    assert "only A has" in says(teach)
    teach.add_example("B", CROSS)
    assert set(teach.guesses()) == set(COMPARING)


@pytest.mark.parametrize("shots", [[1, 1], [1, 4, 2], [1] * 5, [5] * 5, [1, 2, 3, 4, 5], [5] * 10])
def test_a_query_that_was_taught_is_named_right(letters, shots):
    teach = taught(letters, shots)
    for slot in (0, len(shots) - 1):
        teach.set_query(letters[slot, 0])
        assert set(teach.guesses()) == {*COMPARING, *(["maml"] if len(shots) == 5 else [])}
        for method, verdict in teach.verdicts.items():
            assert len(verdict.values) == len(shots)
            assert verdict.guess == slot or method == "maml", method


def test_values_are_those_of_the_methods_themselves(letters):
    teach = taught(letters, [2, 1, 3, 1, 1])
    teach.set_query(letters[3, 5])
    labels = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4])
    support = torch.cat([letters[0, :2], letters[1, :1], letters[2, :3], letters[3, :1], letters[4, :1]]).float() / 255
    episode = Episode(support, labels, letters[3, 5:].float() / 255, torch.tensor([3]), torch.arange(5))
    ends = {"siamese": torch.sigmoid, "relation": torch.sigmoid, "transfer": lambda x: x}
    for method, values in teach.guesses().items():
        learner = pretrained(method, "glyphs", *((5, 1) if method == "maml" else ()))
        with torch.no_grad():
            expected = ends.get(method, lambda x: x.softmax(0))(learner(episode)[0])
        torch.testing.assert_close(torch.tensor(values), expected, atol=1e-4, rtol=1e-3)


def test_matching_shows_where_its_attention_goes(letters):
    teach = taught(letters, [2, 3])
    teach.set_query(letters[1, 2])
    slot, number, weight = teach.verdicts["matching"].attention[0]
    assert (slot, number) == (1, 2)  # the query is this drawing
    assert f"drawing 3 of B {weight:.2f}" in teach.verdicts["matching"].reason


def test_maml_waits_for_five_characters_and_says_so(letters):
    teach = taught(letters, [1] * 4)
    teach.set_query(letters[0, 1])
    assert "add 1" in teach.waiting["maml"]
    teach.add_example("E", letters[4, 0])
    assert "with 1 drawing each." in teach.verdicts["maml"].reason
    teach.add_example("E", letters[4, 1])
    assert "nearest weights" in teach.verdicts["maml"].reason
    query = letters[0, 1]
    teach.set_query(None)  # nothing to judge while drawings are added
    for name, drawings in zip("ABCDE", letters, strict=False):
        for drawing in drawings[len(teach.alphabet[name]) : 5]:
            teach.add_example(name, drawing)
    teach.set_query(query)
    assert "with 5 drawings each." in teach.verdicts["maml"].reason
    teach.add_example("F", letters[5, 0])
    assert "take away 1" in teach.waiting["maml"]


def test_characters_without_drawings_take_no_part(letters):
    teach = taught(letters, [1, 1])
    teach.new_character()
    teach.set_query(letters[0, 0])
    assert len(teach.guesses()["prototypical"]) == 2


def test_equal_drawings_under_two_names_get_equal_values():
    teach = TeachAlphabet()
    for name in ("A", "B"):
        teach.add_example(name, LINE)
    teach.add_example("C", CROSS)
    teach.set_query(LINE)
    for method, values in teach.guesses().items():
        assert values[0] == pytest.approx(values[1], abs=1e-5), method
        assert values[0] > values[2], method


def test_drawing_on_the_pads_and_pressing_buttons():
    teach = TeachAlphabet()
    add = button(teach, "Add this drawing")
    add.click()
    assert "nothing on the pad" in says(teach)
    teach.example_pad.strokes = LINE
    add.click()
    assert teach.example_pad.empty
    teach.which.value = "B"
    teach.example_pad.strokes = CROSS
    add.click()
    assert {name: len(drawings) for name, drawings in teach.alphabet.items()} == {"A": 1, "B": 1}
    teach.query_pad.strokes = CROSS
    assert {v.guess for v in teach.verdicts.values()} == {1}
    assert "All 5 methods say B." in says(teach)
    assert teach._answers.value.count('data-guess="B"') == 5
    button(teach, "Clear query").click()
    assert teach.query_pad.empty
    assert teach.guesses() == {}
    teach.query_pad.strokes = [[[0.5, 0.5]]]  # one dot is a query, too
    assert set(teach.guesses()) == set(COMPARING)
    teach.query_pad.strokes = []
    assert teach.guesses() == {}


def test_every_change_can_be_taken_back(letters):
    teach = taught(letters, [2, 1])
    before = teach.alphabet
    teach.remove_last("A")
    teach.fill()
    button(teach, "Undo").click()
    assert len(teach.alphabet["A"]) == 1
    button(teach, "Undo").click()
    assert list(teach.alphabet) == list(before)
    assert all(torch.equal(a, b) for name in before for a, b in zip(before[name], teach.alphabet[name], strict=True))


def test_names():
    teach = TeachAlphabet()
    teach.name.value = "  ☃ & <b>co</b>  "
    assert list(teach.alphabet) == ["☃ & <b>co</b>", "B"]
    assert teach.name.value == teach.which.value == "☃ & <b>co</b>"
    assert "<b>co" not in teach._shown.value
    teach.name.value = "B"
    assert "There is a character B already" in says(teach)
    assert teach.name.value == "☃ & <b>co</b>"
    teach.name.value = " "
    assert "A name has 1 to 20 letters" in says(teach)
    assert teach.new_character() == "A"


def test_limits_are_said_in_words(letters):
    teach = taught(letters, [5] * 10)
    with pytest.raises(ValueError, match="A has 5 drawings already"):
        teach.add_example("A", LINE)
    with pytest.raises(ValueError, match="10 characters already"):
        teach.add_example("K", LINE)
    with pytest.raises(ValueError, match="10 characters already"):
        teach.new_character()
    with pytest.raises(ValueError, match="a drawing is uint8"):
        teach.set_query(torch.zeros(28, 28))
    with pytest.raises(ValueError, match="nothing on the pad"):
        teach.add_example("A", torch.zeros(1, 28, 28, dtype=torch.uint8))


def test_a_full_disk_leaves_the_old_alphabet(tmp_path, monkeypatch):
    teach = TeachAlphabet()
    teach.add_example("A", LINE)
    teach.folder.value = str(tmp_path / "mine")
    button(teach, "Save").click()
    assert "Saved 1 characters, 1 drawings" in says(teach)
    teach.add_example("B", CROSS)

    def full(self, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    button(teach, "Save").click()
    assert "No space left on device" in says(teach)
    assert [len(drawings) for drawings in teach.alphabet.values()] == [1, 1]
    assert list(load_alphabet(tmp_path / "mine")) == ["A"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_loading_says_what_is_wrong_and_changes_nothing(tmp_path, letters):
    teach = taught(letters, [1, 1])
    teach.folder.value = str(tmp_path / "nowhere")
    button(teach, "Load").click()
    assert "no folder" in says(teach)
    save_alphabet({str(k): [rasterise(LINE)] for k in range(11)}, tmp_path / "many")
    teach.folder.value = str(tmp_path / "many")
    button(teach, "Load").click()
    assert "11 characters" in says(teach)
    folder = save_alphabet({"Z": [rasterise(CROSS)], "Y": [rasterise(LINE)]}, tmp_path / "good")
    (folder / "01-Z" / "0.png").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot be read"):
        teach.load(folder)
    teach.folder.value = ""
    button(teach, "Load").click()
    assert "is empty" in says(teach)
    assert list(teach.alphabet) == ["A", "B"]


def test_a_loaded_alphabet_guesses_at_once_and_undo_brings_the_other_back(tmp_path):
    teach = TeachAlphabet()
    teach.add_example("A", LINE)
    save_alphabet({"Z": [rasterise(CROSS)], "Y": [rasterise(LINE)]}, tmp_path / "good")
    teach.set_query(LINE)
    teach.load(tmp_path / "good")
    assert {v.guess for v in teach.verdicts.values()} == {1}
    teach.undo()
    assert list(teach.alphabet) == ["A", "B"]
    assert teach.guesses() == {}


def test_the_twin_is_a_picture_of_an_example_and_then_of_the_learners_own(letters):
    teach = TeachAlphabet()
    first = teach.twin_html()
    assert first == TeachAlphabet().twin_html()
    for method in (*COMPARING, "maml"):
        assert f"{TITLES[method]} says" in first
    teach = taught(letters, [1, 1])
    teach.set_query(letters[0, 0])
    own = teach.twin_html()
    assert "MAML" not in own
    assert "Characters and their drawings: A (1), B (1)." in own
    assert own in teach._repr_mimebundle_()["text/html"]
