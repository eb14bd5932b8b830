"""Ticked attributes reach the letters that are shown, and the words say of how many they are true."""

from __future__ import annotations

import pytest
import torch

from fsl_classroom.widgets import AttributeBoard


@pytest.fixture(scope="module")
def board() -> AttributeBoard:
    return AttributeBoard()


def tick(board: AttributeBoard, *names: str) -> None:
    for name, box in board.boxes.items():
        box.value = name in names


def test_what_is_ticked_is_true_of_more_letters_than_usual(board: AttributeBoard) -> None:
    for name in ("wide", "free end top left", "straight", "winding"):
        tick(board, name)
        column = board.letters.attributes[:, board.names.index(name)]
        assert float(column[board.best()].mean()) > float(column.mean()) + 0.2
        assert f"{name}: true of {int(column[board.best()].sum())}" in board._status.value


def test_a_box_changes_picture_and_words(board: AttributeBoard) -> None:
    tick(board, "has a loop")
    before = board._view.value, board._status.value
    board.boxes["tall"].value = True
    assert board._view.value != before[0]
    assert board._status.value != before[1]


def test_nothing_and_everything_can_be_ticked(board: AttributeBoard) -> None:
    tick(board)
    assert board.words() == "Nothing is asked for yet."
    tick(board, *board.boxes)
    assert len(board.best().unique()) == 8
    assert board.letters.name == "glyphs/test"
    assert not torch.is_grad_enabled() or board.embedded.grad is None


def test_the_twin_is_deterministic_and_tells_the_words(board: AttributeBoard) -> None:
    tick(board, "has a loop", "wide")
    html = board.twin_html()
    assert html == board.twin_html()
    assert "unseen letters that fit best" in html
    assert "fsl-attribute-board" in board._dom_classes
