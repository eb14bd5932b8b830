"""Taking one support picture away: the closed forms equal fitting again, for prototypes, the ridge head and any learner."""

import pytest
import torch
from sklearn.linear_model import Ridge

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.methods.maml import MAML
from fsl_course.methods.prototypical import PrototypicalNetwork, prototypes
from fsl_course.methods.ridge import RidgeRegression, ridge_head
from fsl_course.nets import conv4
from fsl_course.trust.influence import (
    prototype_scores_without_each,
    prototypes_without_each,
    refitted_without_each,
    ridge_without_each,
)
from tests.conftest import toy_images

LABELS = torch.tensor([0, 2, 1, 0, 1, 2, 2, 0, 1, 2])  # 3, 3 and 4 shots


def rows(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def task() -> Episode:
    return EpisodeSampler(toy_images(12, 8), 3, 3, 2, dtype=torch.float64)[0]


def test_by_hand():
    found = prototypes_without_each(torch.tensor([[0.0], [4.0], [2.0], [9.0], [7.0]]), torch.tensor([0, 1, 0, 0, 1]), 2)
    assert found[:, 0].tolist() == [5.5, 7.0, 4.5, 1.0, 4.0]


def test_prototypes_equal_means_of_the_others():
    z = rows(0, 10, 4)
    found = prototypes_without_each(z, LABELS, 3)
    for i in range(10):
        keep = torch.arange(10) != i
        assert torch.allclose(found[i], prototypes(z[keep], LABELS[keep], 3)[LABELS[i]], rtol=0, atol=1e-12)


def test_a_class_of_one_row_is_refused():
    with pytest.raises(ValueError, match="class 1 has a single support row"):
        prototypes_without_each(rows(0, 3, 2), torch.tensor([0, 0, 1]), 2)


def test_ridge_equals_a_fit_without_the_row_by_scikit_learn():
    z, q = rows(1, 10, 4), rows(2, 5, 4)
    found = ridge_without_each(z, LABELS, q, 3, 0.7)
    hot = torch.nn.functional.one_hot(LABELS, 3).double()
    for i in range(10):
        keep = torch.arange(10) != i
        fitted = Ridge(alpha=0.7).fit(z[keep].numpy(), hot[keep].numpy())
        assert torch.allclose(found[i], torch.from_numpy(fitted.predict(q.numpy())), rtol=0, atol=1e-12)


def test_ridge_with_more_features_than_rows_equals_the_head():
    z, q = rows(3, 10, 40), rows(4, 5, 40)
    found = ridge_without_each(z, LABELS, q, 3, 5.0)
    keep = torch.arange(10) != 6
    weight, bias = ridge_head(z[keep], LABELS[keep], 3, 5.0)
    assert torch.allclose(found[6], q @ weight.T + bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [PrototypicalNetwork, RidgeRegression])
def test_closed_forms_equal_showing_the_task_again(kind, task):
    torch.manual_seed(0)
    learner = kind(conv4(4)).double().eval()
    with torch.no_grad():
        z, q = learner.embed(task.support_x), learner.embed(task.query_x)
        if kind is PrototypicalNetwork:
            found = prototype_scores_without_each(z, task.support_y, q, 3)
        else:
            found = learner.log_scale.exp() * ridge_without_each(z, task.support_y, q, 3, learner.log_l2.exp())
    assert torch.allclose(found, refitted_without_each(learner, task), atol=1e-10)


def test_influence_follows_the_row_and_its_slot():
    z, q = rows(5, 10, 4), rows(6, 3, 4)
    order, slot = torch.randperm(10, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 1])
    for form in (
        lambda s, y: prototype_scores_without_each(s, y, q, 3),
        lambda s, y: ridge_without_each(s, y, q, 3, 1.0),
    ):
        plain = form(z, LABELS)
        assert torch.allclose(form(z[order], LABELS[order]), plain[order], atol=1e-10)
        assert torch.allclose(form(z, slot[LABELS])[:, :, slot], plain, atol=1e-10)


def test_gradients_pass():
    z, q = rows(7, 10, 3).requires_grad_(), rows(8, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: prototype_scores_without_each(a, LABELS, b, 3), (z, q))
    assert torch.autograd.gradcheck(lambda a, b: ridge_without_each(a, LABELS, b, 3, 1.0), (z, q))


def test_a_learner_that_adapts_can_be_asked_too(task):
    torch.manual_seed(0)
    net = torch.nn.Sequential(conv4(4), torch.nn.Linear(4, 3)).double()
    learner = MAML(net, lr=0.1, steps=2)
    found = refitted_without_each(learner, task)
    assert found.shape == (9, 6, 3)
    assert learner.training
    assert float((found - learner.eval()(task).detach()).abs().max()) > 1e-6
