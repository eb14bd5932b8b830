"""Labels flow along the graph as the package computes it, and the words say what the picture shows."""

from __future__ import annotations

import itertools

import pytest
import torch

from fsl_classroom.widgets import LabelFlow


@pytest.fixture
def flow() -> LabelFlow:
    return LabelFlow()


def test_along_edges_every_point_gets_its_class_where_the_nearest_label_fails(flow: LabelFlow) -> None:
    assert torch.equal(flow.answers(), flow.classes)
    nearest = torch.cdist(flow.points, flow.points[flow.labelled]).argmin(1)
    assert int((nearest == flow.classes).sum()) < 30
    assert "40 of 40 points get their class and 0 stay undecided" in flow._status.value


def test_without_flow_only_the_labelled_points_have_a_class(flow: LabelFlow) -> None:
    flow.alpha.value = 0.0
    answers = flow.answers()
    assert torch.equal(answers[flow.labelled], flow.classes[flow.labelled])
    assert int((answers >= 0).sum()) == 2
    assert "38 stay undecided" in flow._status.value


def test_with_one_neighbour_the_graph_falls_apart(flow: LabelFlow) -> None:
    flow.neighbours.value = 1
    assert int((flow.answers() < 0).sum()) > 20


def test_with_many_neighbours_labels_leap_from_crescent_to_crescent(flow: LabelFlow) -> None:
    flow.neighbours.value = 20
    assert int((flow.answers() == flow.classes).sum()) < 30


def test_a_slider_changes_picture_and_words(flow: LabelFlow) -> None:
    before = flow._view.value, flow._status.value
    flow.neighbours.value = 12
    assert flow._view.value != before[0]
    assert flow._status.value != before[1]
    assert "12 neighbours" in flow._view.value


def test_extremes_of_every_control(flow: LabelFlow) -> None:
    for neighbours, alpha in itertools.product((1, 30), (0.0, 0.99)):
        flow.neighbours.value, flow.alpha.value = neighbours, alpha
        assert set(flow.answers().tolist()) <= {-1, 0, 1}
        assert bool(flow.edges().isfinite().all())


def test_the_twin_is_deterministic_and_tells_the_numbers(flow: LabelFlow) -> None:
    html = flow.twin_html()
    assert html == flow.twin_html()
    assert "40 of 40 points" in html
    assert "fsl-label-flow" in flow._dom_classes
