"""The prototype board shows the regions of the package's own classifiers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fsl_classroom.widgets import PrototypeBoard
from fsl_classroom.widgets.prototype_board import CELLS, MAX_SHOT, REACH, RULES
from fsl_course.methods.matching import MatchingNetwork
from fsl_course.methods.prototypical import PrototypicalNetwork, prototypes

LEARNERS = {
    "euclidean": PrototypicalNetwork(nn.Identity()),
    "cosine": PrototypicalNetwork(nn.Identity(), distance="cosine"),
    "attention cosine": MatchingNetwork(nn.Identity(), similarity="cosine", scale=1.0),
    "attention euclidean": MatchingNetwork(nn.Identity(), similarity="euclidean", scale=1.0),
}


def sent(board: PrototypeBoard) -> torch.Tensor:
    """Returns the regions as the browser gets them, uint8 [CELLS, CELLS]."""
    return torch.frombuffer(bytearray(board.board.regions), dtype=torch.uint8).view(CELLS, CELLS)


@pytest.mark.parametrize("rule", list(RULES.values()))
def test_regions_are_the_argmax_of_the_package_at_random_cells(rule: str) -> None:
    board = PrototypeBoard()
    board.rule.value = rule
    cells = torch.randint(0, CELLS, (200, 2), generator=torch.Generator().manual_seed(0))  # row, column
    y, x = ((cells.double() + 0.5) / CELLS * 2 * REACH - REACH).T
    support = torch.tensor([[x, y] for _, x, y in board.points.values()], dtype=torch.float64)
    labels = torch.tensor([slot for slot, _, _ in board.points.values()])
    expected = LEARNERS[rule].score(support, labels, torch.stack([x, y], 1), 3).argmax(1)
    assert torch.equal(sent(board)[cells[:, 0], cells[:, 1]].long(), expected)
    assert len(expected.unique()) > 1


def test_moving_a_point_moves_its_prototype_and_the_regions() -> None:
    board = PrototypeBoard()
    before = sent(board)
    board.move(0, -2.5, 9.0)  # beyond the edge, so it is clamped
    assert board.points[0] == (0, -2.5, REACH)
    assert not torch.equal(sent(board), before)
    centres = torch.tensor(board.board.board["centres"], dtype=torch.float64)
    assert torch.allclose(centres, prototypes(*board.support(), 3))
    with pytest.raises(KeyError, match="there is no point 99"):
        board.move(99, 0, 0)


def test_a_message_of_the_browser_is_answered_by_its_number() -> None:
    board = PrototypeBoard()
    words = board._status.value
    board.board.moved = [1, 2.0, -2.0, False, 41]
    assert board.points[1] == (0, 2.0, -2.0)
    assert board.board.board["answered"] == 41
    assert board._status.value == words  # nothing is announced while the point is dragged
    board.board.moved = [1, 2.0, -2.0, True, 42]
    assert board._status.value != words
    board.board.moved = [77, 0.0, 0.0, True, 43]  # a point that has been removed in the meantime
    assert board.board.board["answered"] == 43


def test_points_stay_where_they_are_when_classes_or_shots_change() -> None:
    board = PrototypeBoard()
    board.move(0, 0.25, 0.5)
    board.way.value, board.shot.value = 5, 5
    assert board.points[0] == (0, 0.25, 0.5)
    assert len(board.points) == 25
    board.way.value, board.shot.value = 2, 1
    assert [slot for slot, _, _ in board.points.values()] == [0, 1]
    assert board.points[0] == (0, 0.25, 0.5)


def test_shots_may_differ_and_a_class_keeps_its_last_point() -> None:
    board = PrototypeBoard()
    board.which.value = 1
    board.add.click()
    assert "A 3, B 4, C 3" in board._status.value
    for _ in range(2 * MAX_SHOT):
        board.add.click()
    assert f"has {MAX_SHOT} points already" in board._status.value
    for _ in range(2 * MAX_SHOT):
        board.remove.click()
    assert "one point left" in board._status.value
    assert [slot for slot, _, _ in board.points.values()].count(1) == 1


def test_new_points_and_the_seed() -> None:
    board = PrototypeBoard()
    first = list(board.points.values())
    board.fresh.click()
    assert list(board.points.values()) != first
    assert list(board.points.values()) == list(PrototypeBoard(seed=1).points.values())


def test_the_scale_changes_attention_only() -> None:
    board = PrototypeBoard()
    board.which.value = 0
    board.add.click()
    board.add.click()  # five points against three: at small scales the larger class wins
    assert board.scale.disabled
    board.rule.value = "attention cosine"
    assert not board.scale.disabled
    assert board.board.board["centres"] == []
    board.scale.value = 0.1
    small = sent(board)
    assert (small == 0).all()
    board.scale.value = 100.0
    assert not torch.equal(sent(board), small)


@pytest.mark.parametrize("rule", list(RULES.values()))
@pytest.mark.parametrize("way", [2, 5])
@pytest.mark.parametrize("shot", [1, MAX_SHOT])
def test_extremes(rule: str, way: int, shot: int) -> None:
    board = PrototypeBoard()
    board.rule.value, board.way.value, board.shot.value = rule, way, shot
    for scale in (board.scale.base**board.scale.min, board.scale.base**board.scale.max):
        board.scale.value = scale
        assert int(sent(board).max()) < way
    for point in board.points:
        board.move(point, 0.0, 0.0)  # all in one place, where a cosine is undefined
    assert torch.isfinite(board.scores(torch.zeros(1, 2, dtype=torch.float64))).all()


def test_the_twin_is_deterministic_and_names_shares_and_prototypes() -> None:
    board = PrototypeBoard()
    html = board.twin_html()
    assert html == board.twin_html()
    assert "Decision regions of 3 classes" in html
    assert "Prototypes, drawn as stars: A at (" in html
    board.rule.value = "attention cosine"
    assert "stars" not in board.twin_html()
    board.way.value = 2
    for point in board.points:
        board.move(point, 1.0, 1.0)  # one class wins everywhere: no boundary to draw
    assert "A 100%" in board.twin_html()
    assert "fsl-prototype-board" in board._dom_classes
