"""Attacks stay within their budget and raise the loss; labels flip where asked; robust centres by a second method."""

import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import trim_mean

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.methods.maml import MAML
from fsl_course.methods.matching import MatchingNetwork
from fsl_course.methods.prototypical import PrototypicalNetwork, prototypes
from fsl_course.methods.ridge import RidgeRegression
from fsl_course.nets import conv4
from fsl_course.trust import attacks
from tests.conftest import toy_images

ROWS = torch.tensor([1, 4])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def task() -> Episode:
    return EpisodeSampler(toy_images(16, 8), 4, 3, 4, dtype=torch.float64)[0]


def made(kind: type) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind is MAML:
        return MAML(torch.nn.Sequential(conv4(4), torch.nn.Linear(4, 4)).double(), lr=0.1, steps=2)
    return kind(conv4(4)).double()


def test_projection_by_hand():
    start, x = torch.tensor([0.0, 0.5, 0.9, 0.5]), torch.tensor([-0.3, 0.9, 1.4, 0.45])
    assert torch.allclose(attacks.project(x, start, 0.2), torch.tensor([0.0, 0.7, 1.0, 0.45]))


def test_one_step_by_hand_and_the_best_corner_of_a_linear_loss():
    start, slope = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([-2.0, 0.0, 1e-9])
    one = attacks.ascend(lambda x: slope @ x, start, 0.2, steps=1)
    assert torch.allclose(one, torch.tensor([0.05, 0.5, 0.95]))
    assert torch.allclose(attacks.ascend(lambda x: slope @ x, start, 0.2), torch.tensor([0.0, 0.5, 1.0]))


@pytest.mark.parametrize("kind", [PrototypicalNetwork, MatchingNetwork, RidgeRegression, MAML])
def test_poison_stays_in_its_ball_and_raises_the_loss_more_than_noise(kind, task):
    learner, before = made(kind), task.support_x.clone()
    weights = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    bad = attacks.poisoned(learner, task, ROWS, 0.1, steps=5)
    noise = attacks.noisy(task, ROWS, 0.1, generator())
    assert torch.equal(task.support_x, before)
    for changed in (bad, noise):
        gap = (changed.support_x - before).abs().flatten(1).amax(1)
        assert float(gap.max()) <= 0.1 + 1e-12
        assert gap.nonzero()[:, 0].tolist() == ROWS.tolist()
        assert 0 <= float(changed.support_x.min()) <= float(changed.support_x.max()) <= 1
        assert torch.equal(changed.support_y, task.support_y)
    assert learner.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in learner.state_dict().items())
    learner.eval()
    with torch.no_grad():
        assert learner.loss(bad) > learner.loss(task)
        assert learner.loss(bad) > learner.loss(noise)


def test_gradient_passes_through_the_inner_loop(task):
    """The poison's gradient is that of central differences with second derivatives, and not with first_order=True."""
    learner = made(MAML).eval()
    x = task.support_x.clone().requires_grad_()

    def loss(pictures: torch.Tensor) -> torch.Tensor:
        return learner.loss(Episode(pictures, task.support_y, task.query_x, task.query_y, task.classes))

    direction = torch.randn(x.shape, generator=generator(), dtype=torch.float64)
    with torch.no_grad():
        wanted = (loss(x + 1e-6 * direction) - loss(x - 1e-6 * direction)) / 2e-6
    for learner.first_order in (False, True):
        (gradient,) = torch.autograd.grad(loss(x), x)
        close = torch.allclose((gradient * direction).sum(), wanted, rtol=1e-4)
        assert close is not learner.first_order


@pytest.mark.parametrize("kind", [PrototypicalNetwork, MatchingNetwork, RidgeRegression])
def test_embedding_the_others_once_changes_nothing(kind, task, monkeypatch):
    learner = made(kind).eval()
    short = attacks._loss_of_rows(learner, task, ROWS)
    monkeypatch.setattr(attacks, "isinstance", lambda *_: False, raising=False)
    long = attacks._loss_of_rows(learner, task, ROWS)
    x = (task.support_x[ROWS] * 0.9).requires_grad_()
    gradients = [torch.autograd.grad(loss(x), x)[0] for loss in (short, long)]
    assert torch.allclose(*gradients, atol=1e-12)
    assert float(gradients[0].abs().max()) > 0


def test_queries_are_perturbed_one_by_one(task):
    learner = made(PrototypicalNetwork)
    bad = attacks.perturbed_queries(learner, task, 0.05, steps=3)
    assert torch.equal(bad.support_x, task.support_x)
    assert 0 < float((bad.query_x - task.query_x).abs().max()) <= 0.05 + 1e-12
    one = Episode(task.support_x, task.support_y, task.query_x[2:3], task.query_y[2:3], task.classes)
    assert torch.allclose(attacks.perturbed_queries(learner, one, 0.05, steps=3).query_x[0], bad.query_x[2])


def test_flipped_labels_are_wrong_where_asked_and_nowhere_else():
    labels = torch.arange(5).repeat(40)
    rows = torch.arange(0, 200, 3)
    new = attacks.flipped(labels, rows, 5, generator())
    assert (new != labels).nonzero()[:, 0].tolist() == rows.tolist()
    assert ((new - labels)[rows] % 5).unique().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("rows", "features"), [(5, 2), (7, 6), (10, 3), (3, 1)])
def test_geometric_median_minimises_the_sum_of_distances(rows, features):
    z = torch.randn(rows, features, generator=generator(), dtype=torch.float64)
    z[0] += 9.0
    cost = lambda c: float((z - torch.as_tensor(c)).norm(dim=1).sum())  # noqa: E731
    found = attacks.geometric_median(z, 500)
    best = minimize(cost, z.median(0).values.numpy(), method="Nelder-Mead", options={"xatol": 1e-8, "maxiter": 20000})
    assert cost(found) <= best.fun + 1e-4


def test_trimmed_means_and_medians_against_scipy_and_by_hand():
    z = torch.randn(10, 3, generator=generator(), dtype=torch.float64)
    assert torch.allclose(attacks.trimmed_mean(z), torch.from_numpy(trim_mean(z.numpy(), 0.2)))
    line = torch.tensor([[0.0], [1.0], [2.0], [100.0]])
    assert [float(attacks.CENTRES[kind](line)) for kind in ("mean", "median", "trimmed")] == [25.75, 1.5, 1.5]


def test_one_row_is_its_own_centre_and_slots_only_permute():
    z, labels = torch.randn(6, 4, generator=generator(), dtype=torch.float64), torch.tensor([2, 0, 1, 2, 0, 2])
    for kind in attacks.CENTRES:
        assert torch.allclose(attacks.robust_prototypes(z[:3], labels[:3], 3, kind), z[[1, 2, 0]])
        assert torch.allclose(
            attacks.robust_prototypes(z, (labels + 1) % 3, 3, kind),
            attacks.robust_prototypes(z, labels, 3, kind).roll(1, 0),
        )
    assert torch.allclose(attacks.robust_prototypes(z, labels, 3, "mean"), prototypes(z, labels, 3))
