"""Calibration by hand and by loops, temperature by another search, AUROC as scikit-learn has it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from fsl_course.trust.calibration import auroc, calibration_error, fitted_temperature, reliability


def logits(seed: int, rows: int = 400, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    return scale * drawn, torch.multinomial(drawn.softmax(1), 1, generator=generator)[:, 0]


def test_by_hand():
    """Confidences 0.6, 0.7, 0.95 and 1; the second is wrong. Four bins: (0.5, 0.75] and (0.75, 1]."""
    rows = torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.95, 0.05], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1])
    count, confidence, accuracy = reliability(rows, labels, 4)
    assert count.tolist() == [0, 0, 2, 2]
    assert torch.allclose(confidence, torch.tensor([0, 0, 0.65, 0.975], dtype=torch.float64))
    assert torch.allclose(accuracy, torch.tensor([0, 0, 0.5, 1.0], dtype=torch.float64))
    assert float(calibration_error(rows, labels, 4)) == pytest.approx((2 * 0.15 + 2 * 0.025) / 4)


def test_wrong_and_certain_is_the_worst():
    assert float(calibration_error(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))) == 1.0


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_error_equals_a_loop_over_bins(bins):
    scores, labels = logits(0)
    rows = scores.softmax(1)
    confidence, answer = rows.max(1)
    wanted = 0.0
    for low in np.linspace(0, 1, bins + 1)[:-1]:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            gap = (answer == labels)[inside].double().mean() - confidence[inside].mean()
            wanted += float(inside.double().mean() * gap.abs())
    assert float(calibration_error(rows, labels, bins)) == pytest.approx(wanted, abs=1e-12)


def test_temperature_finds_the_factor_that_was_put_in():
    scores, labels = logits(1, 20_000)
    found = fitted_temperature(scores, labels)
    assert found == pytest.approx(3.0, rel=0.05)
    grid = torch.linspace(math.log(2), math.log(4), 401, dtype=torch.float64).exp()
    assert found == pytest.approx(float(min(grid, key=lambda t: float(F.cross_entropy(scores / t, labels)))), rel=5e-3)


def test_temperature_mends_calibration_and_changes_no_answer():
    scores, labels = logits(2, 4000)
    other, truth = logits(3, 4000)
    warm = other / fitted_temperature(scores, labels)
    assert torch.equal(warm.argmax(1), other.argmax(1))
    assert calibration_error(warm.softmax(1), truth) < 0.3 * calibration_error(other.softmax(1), truth)


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_that_of_scikit_learn(ties):
    generator = torch.Generator().manual_seed(0)
    known, strangers = torch.randn(60, generator=generator) + 1, torch.randn(45, generator=generator)
    if ties:
        known, strangers = known.round(), strangers.round()
    truth = [1] * 60 + [0] * 45
    assert auroc(known, strangers) == pytest.approx(roc_auc_score(truth, torch.cat([known, strangers]).numpy()))


def test_auroc_by_hand():
    assert auroc(torch.tensor([3.0, 2.0]), torch.tensor([2.0, 1.0])) == 3.5 / 4
