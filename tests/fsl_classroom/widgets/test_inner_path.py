"""The parameters on a path through the inner loop keep their numbers and their memory layout."""

from __future__ import annotations

import torch

from fsl_classroom.widgets._inner_path import RUNAWAY, Path
from fsl_course.episodes import EpisodeSampler
from fsl_course.inner_loop.functional import trainable
from fsl_course.methods.maml import adapt, support_loss
from fsl_course.nets import classifier, conv4
from tests.conftest import toy_images


def test_a_step_is_the_packages_step_laid_out_like_the_model() -> None:
    torch.manual_seed(0)
    model = classifier(conv4(8), 3).eval()
    task = EpisodeSampler(toy_images(), 3, 1, 2)[0]
    path = Path(model, {k: p.detach() for k, p in trainable(model).items()})
    path.measure(task)
    path.slice = torch.zeros(1)
    expected = adapt(support_loss(model, task), path.params, lr=0.1, steps=1, track=False)
    path.step(task, 0.1)
    assert path.slice is None  # the cache belonged to the previous parameters
    assert len(path.support) == len(path.query) == 2
    for name, own in trainable(model).items():
        assert torch.equal(path.params[name], expected[name])
        assert path.params[name].stride() == own.stride()


def test_a_loss_that_runs_away_or_is_no_number_has_diverged() -> None:
    path = Path(classifier(conv4(8), 3), {}, support=[1.0])
    assert not path.diverged
    for loss in (2 * RUNAWAY, float("nan"), float("inf")):
        path.support.append(loss)
        assert path.diverged
