"""Support pictures that are taken away or renamed reach the answers, and the words say what was done."""

from __future__ import annotations

import pytest
import torch

from fsl_classroom.widgets import SupportBoard
from fsl_classroom.widgets.support_board import AWAY, NAMES
from fsl_course.weights.checkpoints import pretrained


@pytest.fixture
def board() -> SupportBoard:
    return SupportBoard()


def test_the_untouched_board_answers_as_the_shipped_learner(board: SupportBoard) -> None:
    learner = pretrained("prototypical", "glyphs").eval()
    with torch.no_grad():
        wanted = learner(board.task).softmax(1)
    assert torch.allclose(board.probabilities(board.labels), wanted, atol=1e-4)
    assert board.words().startswith("0 of 12 support pictures taken away, 0 with another label")


def test_a_picture_taken_away_leaves_the_mean_of_the_others(board: SupportBoard) -> None:
    before = board._panels[1]._place.value
    board.boxes[0].value = AWAY
    assert board.now().tolist()[:4] == [-1, 0, 0, 0]
    centres = torch.stack([board.support[i : i + 4][int(i == 0) :].mean(0) for i in (0, 4, 8)])
    wanted = (-torch.cdist(board.queries, centres).square()).softmax(1)
    assert torch.allclose(board.probabilities(board.now()), wanted, atol=1e-3)
    assert board._panels[1]._place.value != before
    assert "1 of 12 support pictures taken away" in board._status.value


def test_a_label_can_be_changed(board: SupportBoard) -> None:
    before = board.probabilities(board.labels)
    board.boxes[0].value = NAMES[1]
    assert "1 with another label" in board.words()
    assert float((board.probabilities(board.now()) - before).abs().max()) > 1e-4


def test_a_letter_or_everything_can_be_taken_away(board: SupportBoard) -> None:
    for box in board.boxes[:4]:
        box.value = AWAY
    found = board.probabilities(board.now())
    assert float(found[:, 0].max()) == 0
    assert torch.allclose(found.sum(1), torch.ones(len(found)))
    for box in board.boxes:
        box.value = AWAY
    assert board.words().endswith("0 of 6 queries are answered right.")


def test_every_picture_has_its_name_and_no_bar_hides_behind_the_legend() -> None:
    figure, _ = SupportBoard({0: "B", 5: AWAY}).twin()
    figure.canvas.draw()
    support, answers = figure.axes
    names = [text.get_text() for text in support.texts]
    assert names == ["A1 -> B", "A2", "A3", "A4", "B1", "B2 away", "B3", "B4", "C1", "C2", "C3", "C4"]
    legend = answers.get_legend().get_window_extent()
    assert len(answers.patches) == 12
    assert not any(legend.overlaps(bar.get_window_extent()) for bar in answers.patches)


def test_the_twin_is_deterministic_and_tells_the_words(board: SupportBoard) -> None:
    html = board.twin_html()
    assert html == board.twin_html()
    assert "0 of 12 support pictures" in html
    assert "fsl-support-board" in board._dom_classes
