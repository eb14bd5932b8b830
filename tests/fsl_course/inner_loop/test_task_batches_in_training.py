"""Tasks one after the other and at once, as `fit` sees them."""

import pytest
import torch
from torch import nn

from fsl_course.episodes import EpisodeSampler, SinusoidSampler
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import MAML
from fsl_course.methods.meta_sgd import MetaSGD
from fsl_course.methods.reptile import Reptile
from fsl_course.nets import mlp
from fsl_course.training.loop import fit
from tests.conftest import toy_images

LEARNERS = {
    "maml": lambda model: MAML(model, 0.1, 2),
    "meta_sgd": lambda model: MetaSGD(model, 0.1, 2),
    "reptile": lambda model: Reptile(model, 0.1, 2),
}


def test_history_has_accuracies_in_the_loop_and_none_from_vmap():
    """Hooks on the learner see episodes one by one; vmap would show them its own tensors."""
    sampler = EpisodeSampler(toy_images(size=16), 3, 1, 2)
    for at_once in (False, True):
        torch.manual_seed(0)
        learner = MAML(nn.Sequential(nn.Flatten(), mlp((256, 4, 3))), 0.1, 1, vmap=at_once)
        expected = torch.stack(
            [(learner(e).argmax(1) == e.query_y).double().mean() for e in sampler.batch(0, 3)]
        ).mean()
        history = fit(learner, sampler, steps=2, tasks=3, progress=False)
        assert len(history.loss) == 2
        assert len(history.accuracy) == (0 if at_once else 2)
        assert at_once or history.accuracy[0] == pytest.approx(expected.item())
    sines = fit(MAML(mlp(), 0.01, 1, vmap=False), SinusoidSampler(), steps=1, tasks=2, progress=False)
    assert sines.accuracy == []


@pytest.mark.parametrize("method", LEARNERS)
def test_a_run_with_tasks_at_once_goes_on_bit_for_bit(tmp_path, method):
    def fresh() -> FewShotLearner:
        torch.manual_seed(0)
        return LEARNERS[method](mlp((1, 8, 1)))

    whole, parts, sampler = fresh(), fresh(), SinusoidSampler(5, 5)
    fit(whole, sampler, steps=6, tasks=4, lr=0.01, progress=False)
    file = tmp_path / "run.safetensors"
    fit(parts, sampler, steps=3, tasks=4, lr=0.01, checkpoint=file, progress=False)
    again = fresh()
    history = fit(again, sampler, steps=6, tasks=4, lr=0.01, checkpoint=file, progress=False)
    assert len(history.loss) == 6
    assert all(torch.equal(t, whole.state_dict()[name]) for name, t in again.state_dict().items())
    assert not all(torch.equal(t, parts.state_dict()[name]) for name, t in again.state_dict().items())
