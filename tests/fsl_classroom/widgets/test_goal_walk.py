"""The policy of the widget walks to the goal that the sliders set, and the words say what the picture shows."""

from __future__ import annotations

import itertools

import pytest

from fsl_classroom.widgets import GoalWalk


@pytest.fixture
def board() -> GoalWalk:
    return GoalWalk()


def test_one_step_brings_the_walks_to_the_goal(board: GoalWalk) -> None:
    assert board.score(1) > board.score(0) + 2
    ends = board.walked[1].states[0, :, -1].mean(0).tolist()
    assert ends == pytest.approx([0.3, 0.4], abs=0.15)
    assert "after 1 inner step." in board._status.value


def test_the_same_goal_gives_the_same_walks(board: GoalWalk) -> None:
    assert board.score(1) == GoalWalk().score(1)


def test_a_slider_changes_picture_and_words(board: GoalWalk) -> None:
    before = board._view.value, board._status.value
    board.right.value = -0.4
    assert board._view.value != before[0]
    assert board._status.value != before[1]
    assert "(-0.4, 0.4)" in board._view.value


def test_extremes_of_every_control(board: GoalWalk) -> None:
    for right, up, steps in itertools.product((-0.5, 0.5), (-0.5, 0.5), (0, 3)):
        board.right.value, board.up.value, board.steps.value = right, up, steps
        assert -40 < board.score(steps) < 0


def test_the_twin_is_deterministic_and_tells_the_numbers(board: GoalWalk) -> None:
    html = board.twin_html()
    assert html == board.twin_html()
    assert "The goal lies at (0.3, 0.4)" in html
    assert "fsl-goal-walk" in board._dom_classes
