"""The inner-loop stepper takes the package's inner steps, and says in words when they diverge."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fsl_classroom.widgets import InnerLoopStepper
from fsl_classroom.widgets.inner_loop_stepper import STARTS, pretrained_on_all
from fsl_course.episodes import SinusoidSampler
from fsl_course.inner_loop.functional import call, trainable
from fsl_course.methods.maml import adapt, support_loss
from fsl_course.weights.checkpoints import pretrained


@pytest.fixture
def stepper() -> InnerLoopStepper:
    return InnerLoopStepper()


def pictures(stepper: InnerLoopStepper) -> list[str]:
    return [place.value for place in stepper._views]


def test_k_clicks_are_adapt_with_k_steps(stepper: InnerLoopStepper) -> None:
    stepper.rate.value = 0.005
    for _ in range(3):
        stepper.step.click()
    stepper.ten.click()
    assert stepper.taken == 13
    model, task = pretrained("maml", "sinusoids").model, SinusoidSampler(10, 100, seed=1)[stepper.index]
    expected = adapt(support_loss(model, task), trainable(model), lr=0.005, steps=13, track=False)
    path = stepper.paths["meta-learned"]
    assert all(torch.equal(path.params[name], value) for name, value in expected.items())
    error = F.mse_loss(call(model, expected, task.query_x), task.query_y)
    assert math.isclose(path.query[-1], float(error.detach()), rel_tol=1e-6)
    assert len(path.support) == len(path.query) == 14


def test_the_meta_learned_start_learns_faster(stepper: InnerLoopStepper) -> None:
    stepper.step.click()
    meta, other = stepper.paths.values()
    assert meta.query[-1] < 0.1 * meta.query[0]
    assert other.query[-1] > 5 * meta.query[-1]


def test_the_stand_in_fits_the_mean_curve_and_is_made_once() -> None:
    state = torch.random.get_rng_state()
    net = pretrained_on_all()
    x = torch.linspace(-5, 5, 50)[:, None]
    mean = SinusoidSampler(1, 1, seed=0)  # measures the mean curve from many curves at the same x
    amplitude, phase = mean.curves(0, 4000)
    measured = (amplitude * torch.sin(x - phase)).mean(1, keepdim=True)
    with torch.no_grad():
        assert float((net(x) - measured).square().mean()) < 0.02
    assert pretrained_on_all() is net
    assert torch.equal(torch.random.get_rng_state(), state)


def test_reset_new_task_and_another_start(stepper: InnerLoopStepper) -> None:
    first = pictures(stepper)
    stepper.ten.click()
    assert pictures(stepper) != first
    stepper.reset.click()
    assert stepper.taken == 0
    assert pictures(stepper) == first
    before = stepper.task.support_y
    stepper.new_task.click()
    assert not torch.equal(stepper.task.support_y, before)
    stepper.other.value = "random"
    assert list(stepper.paths) == ["meta-learned", "random"]


def test_the_slice_passes_through_the_next_step(stepper: InnerLoopStepper) -> None:
    at = 8
    stepper.rate.value = float(stepper.rates[at])
    expected = stepper.slice("meta-learned")[at]
    stepper.step.click()
    assert math.isclose(stepper.paths["meta-learned"].support[-1], float(expected), rel_tol=1e-4)


@pytest.mark.parametrize("rate", [0.3, 10.0])
def test_divergence_is_told_in_words_and_stops(stepper: InnerLoopStepper, rate: float) -> None:
    stepper.rate.value = rate
    stepper.ten.click()
    stepper.ten.click()
    gone = [path for path in stepper.paths.values() if path.diverged]
    assert gone
    assert "Diverged: " in stepper._status.value
    length = len(gone[0].support)
    stepper.step.click()
    assert len(gone[0].support) == length
    assert "<img" in stepper.twin_html()
    stepper.reset.click()
    assert "Diverged" not in stepper._status.value


def test_a_tiny_rate_changes_next_to_nothing(stepper: InnerLoopStepper) -> None:
    stepper.rate.value = stepper.rate.base**stepper.rate.min
    stepper.step.click()
    path = stepper.paths["pretrained on all curves"]
    assert 0 < path.support[0] - path.support[1] < 0.1 * path.support[0]


def test_letters_with_the_shipped_weights(stepper: InnerLoopStepper) -> None:
    stepper.data.value = "glyphs"
    assert list(stepper.paths) == ["meta-learned", "random"]
    learner = pretrained("maml", "glyphs", 5, 1)
    assert math.isclose(stepper.rate.value, learner.lr, rel_tol=1e-6)
    stepper.step.click()
    path = stepper.paths["meta-learned"]
    with torch.no_grad():
        expected = adapt(
            support_loss(learner.model, stepper.task), trainable(learner.model), lr=stepper.rate.value, steps=1
        )
    assert all(torch.allclose(path.params[name], value, atol=1e-6) for name, value in expected.items())
    assert path.query[-1] > path.query[0]
    assert "accuracy" in stepper._status.value
    stepper.data.value = "sine"
    assert stepper.other.options == STARTS["sine"][1:]
    assert stepper.rate.value == 0.01


def test_another_rate_moves_the_line_in_the_last_picture_only(stepper: InnerLoopStepper) -> None:
    before = pictures(stepper)
    stepper.rate.value = 0.1
    assert [new == old for new, old in zip(pictures(stepper), before, strict=True)] == [True, True, False]
    stepper.data.value = "glyphs"
    stepper.data.value = "sine"  # restores the first task, starts and rate
    assert pictures(stepper) == before


def test_letters_at_the_largest_rate(stepper: InnerLoopStepper) -> None:
    stepper.data.value = "glyphs"
    stepper.rate.value = 10.0
    stepper.step.click()
    stepper.step.click()
    assert stepper.taken >= 1
    assert "<img" in stepper.twin_html()


def test_the_twin_is_deterministic_and_tells_the_numbers(stepper: InnerLoopStepper) -> None:
    stepper.step.click()
    html = stepper.twin_html()
    assert html == stepper.twin_html()
    assert "after 1 step at rate 0.01" in html
    assert "pretrained on all curves: support loss" in html
    assert "fsl-inner-loop-stepper" in stepper._dom_classes
