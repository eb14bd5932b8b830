"""The outer-loop microscope: its slopes against central differences and against lesson 08's formulas."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from fsl_classroom.widgets import OuterLoopMicroscope


def loss_by_hand(theta: float, lr: float, steps: int, curvature: float, support: float, query: float) -> float:
    for _ in range(steps):
        theta = theta - lr * curvature * (theta - support)
    return curvature / 2 * (theta - query) ** 2


def settings(microscope: OuterLoopMicroscope, task: int) -> tuple[float, ...]:
    return tuple(c[task].value for c in (microscope.curvature, microscope.support, microscope.query))


@pytest.mark.parametrize(("lr", "steps"), [(0.25, 1), (0.1, 3), (0.4, 2), (0.3, 0)])
def test_slopes_are_central_differences_and_the_first_order_formula(lr: float, steps: int) -> None:
    microscope = OuterLoopMicroscope()
    microscope.start.value, microscope.lr.value, microscope.steps.value = -0.7, lr, steps
    readings = microscope.readings()
    for task in range(2):
        own = settings(microscope, task)
        h = 1e-4
        up, down = (loss_by_hand(-0.7 + shift, lr, steps, *own) for shift in (h, -h))
        assert math.isclose(readings[task].true, (up - down) / (2 * h), rel_tol=1e-6)
        assert math.isclose(readings[task].loss, loss_by_hand(-0.7, lr, steps, *own), rel_tol=1e-9)
        curvature, _, query = own
        assert math.isclose(readings[task].first_order, curvature * (readings[task].lands - query), rel_tol=1e-9)
    mean = readings[2]
    assert math.isclose(mean.true, (readings[0].true + readings[1].true) / 2)
    assert math.isnan(mean.lands)


def test_case_a_of_the_lesson() -> None:
    reading = OuterLoopMicroscope().readings()[0]
    assert (reading.lands, reading.true, reading.first_order) == (2.0, -3.0, -6.0)
    assert not reading.opposed


def test_curves_hold_the_reading_at_the_start() -> None:
    microscope = OuterLoopMicroscope()
    places, losses = microscope.curves()
    middle = int(places.abs().argmin())
    microscope.start.value = float(places[middle])
    for loss, reading in zip(losses, microscope.readings(), strict=True):
        assert math.isclose(float(loss[middle]), reading.loss)


def test_words_when_the_signs_disagree_when_they_agree_and_when_the_start_does_not_matter() -> None:
    microscope = OuterLoopMicroscope()
    assert "The signs disagree for task 2 and the mean of both" in microscope._status.value
    assert "differ" in microscope._table.value
    microscope.lr.value = 0.01
    assert "The signs agree, the sizes do not." in microscope._status.value
    microscope.lr.value = 0.0
    assert "Both slopes agree." in microscope._status.value
    microscope.lr.value = 0.5
    microscope.curvature[1].value = 2.0
    assert microscope.readings()[0].true == 0.0  # one step leads from any start to the support's optimum
    assert "the start does not matter" in microscope._status.value


def test_at_an_optimum_rounding_has_no_sign() -> None:
    microscope = OuterLoopMicroscope()
    microscope.query[1].value = -2.0  # where the inner loop of task 2 ends from start 1
    assert microscope.readings()[1].true == 0.0
    assert not microscope.readings()[1].opposed


def test_moving_the_start_moves_every_picture_and_its_words() -> None:
    microscope = OuterLoopMicroscope()
    before = [place.value for place in microscope._views]
    microscope.start.value = -2.0
    assert all(place.value != old for place, old in zip(microscope._views, before, strict=True))
    assert all("at the start -2.0" in place.value for place in microscope._views)


def test_extremes_of_every_control() -> None:
    microscope = OuterLoopMicroscope()
    controls = [microscope.start, microscope.lr, microscope.steps]
    controls += [*microscope.curvature, *microscope.support, *microscope.query]
    for control, end in itertools.chain(((c, "max") for c in controls), ((c, "min") for c in controls)):
        control.value = getattr(control, end)
        assert all(math.isfinite(reading.true) for reading in microscope.readings())
    assert "Both slopes agree." in microscope._status.value


def test_the_twin_is_deterministic_and_tells_the_numbers() -> None:
    microscope = OuterLoopMicroscope()
    html = microscope.twin_html()
    assert html == microscope.twin_html()
    assert "its true slope -3, the first-order slope -6" in html
    assert "fsl-outer-loop-microscope" in microscope._dom_classes


def test_nothing_is_left_in_the_model() -> None:
    microscope = OuterLoopMicroscope()
    microscope.start.value = 4.0
    assert torch.equal(microscope._model.theta.detach(), torch.zeros((), dtype=torch.float64))
    assert microscope._model.theta.grad is None
