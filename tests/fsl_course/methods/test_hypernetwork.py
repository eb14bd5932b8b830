import pytest
import torch
import torch.nn.functional as F

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.hypernetwork import Hypernetwork
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from tests.conftest import settled, toy_images
from tests.fsl_course.methods.laws import (
    evaluating_twice_changes_nothing,
    judges_each_query_alone,
    order_and_slots_do_not_matter,
    stacked_tasks_equal_single_tasks,
)


def stirred(learner: Hypernetwork) -> Hypernetwork:
    """With random last layers, because fresh ones are zero and would keep every law."""
    torch.manual_seed(5)
    for last in (learner.writer[-1], learner.modulator):
        if last is not None:
            torch.nn.init.normal_(last.weight, std=0.3)
            torch.nn.init.normal_(last.bias, std=0.3)
    return learner


@pytest.fixture(params=[False, True], ids=["plain", "film"])
def learner(request, precise) -> Hypernetwork:
    torch.manual_seed(0)
    return stirred(settled(Hypernetwork(conv4(8), hidden=6, film=request.param).double(), precise))


@pytest.mark.parametrize("film", [False, True])
def test_an_untrained_one_is_a_prototypical_network(precise, film):
    torch.manual_seed(0)
    learner = settled(Hypernetwork(conv4(8), film=film).double(), precise)
    prototypical = PrototypicalNetwork(learner.encoder)
    found, expected = learner(precise), prototypical(precise)
    assert torch.allclose(found.log_softmax(1), expected.log_softmax(1), atol=1e-6)
    constant = found - expected  # |z|^2, the same for all classes of a query
    assert torch.allclose(constant, learner.embed(precise.query_x).square().sum(1, keepdim=True).expand(-1, 5))


def test_it_equals_a_loop_over_classes_and_pictures(learner, precise):
    """An independent second implementation, with unequal shots."""
    keep = torch.tensor([True] * 7 + [False] * 3)
    keep |= torch.tensor([not bool((precise.support_y[:7] == y).any()) for y in precise.support_y])
    support_x, support_y = precise.support_x[keep], precise.support_y[keep]
    episode = Episode(support_x, support_y, precise.query_x, precise.query_y, precise.classes)
    support, query = learner.embed(support_x), learner.embed(precise.query_x)
    per_class = [[learner.element(z) for z, y in zip(support, support_y, strict=True) if y == k] for k in range(5)]
    class_codes = [sum(rows) / len(rows) for rows in per_class]
    task = sum(class_codes) / 5
    if learner.film:
        gamma, beta = learner.modulator(task).chunk(2)
        support, query = (z + gamma * z + beta for z in (support, query))
        per_class = [[learner.element(z) for z, y in zip(support, support_y, strict=True) if y == k] for k in range(5)]
        class_codes = [sum(rows) / len(rows) for rows in per_class]
        task = sum(class_codes) / 5
    columns = []
    for k in range(5):
        written = learner.writer(torch.cat([class_codes[k], task]))
        centre = support[support_y == k].mean(0)
        columns.append(query @ (2 * centre + written[:-1]) - centre @ centre + written[-1])
    assert torch.allclose(learner(episode), torch.stack(columns, 1), atol=1e-10)


def test_laws(learner, precise):
    order_and_slots_do_not_matter(learner, precise)
    judges_each_query_alone(learner, precise)
    assert isinstance(learner, ComparesEmbeddings)


def test_stacked_tasks_equal_single_tasks(toys, learner):
    stacked_tasks_equal_single_tasks(learner, toys, atol=1e-9)


@pytest.mark.parametrize("film", [False, True])
def test_gradient_agrees_with_finite_differences(film):
    torch.manual_seed(0)
    learner = stirred(Hypernetwork(torch.nn.Identity(), 3, film, features=4)).double()
    support, query = torch.randn(6, 4).double(), torch.randn(4, 4).double()
    labels, target = torch.tensor([0, 2, 1, 1, 2, 2]), torch.tensor([0, 1, 2, 0])
    names = [n for n, _ in learner.named_parameters()]

    def loss(support, query, *values):
        named = {f"learner.{name}": value for name, value in zip(names, values, strict=True)}
        found = torch.func.functional_call(Scores(learner), named, (support, labels, query, 3))
        return F.cross_entropy(found, target)

    values = [p.detach().clone().requires_grad_() for p in learner.parameters()]
    assert torch.autograd.gradcheck(loss, (support.requires_grad_(), query.requires_grad_(), *values))


class Scores(torch.nn.Module):
    """Calls score, so that functional_call can."""

    def __init__(self, learner: Hypernetwork) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, *inputs):
        return self.learner.score(*inputs)


def test_meta_gradient_is_the_chain_rule_through_the_map():
    """grad_phi L = grad_theta L . d theta / d phi, where theta = (weight, bias) is what the map writes."""
    torch.manual_seed(0)
    learner = stirred(Hypernetwork(torch.nn.Identity(), 3, features=4)).double()
    support, query = torch.randn(3, 4).double(), torch.randn(5, 4).double()
    labels, target = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2, 0, 1])
    phi = learner.element[0].weight
    theta = learner.head(support, labels, 3)
    loss = F.cross_entropy(query @ theta[0].T + theta[1], target)
    direct = torch.autograd.grad(loss, phi, retain_graph=True)[0]
    outer = torch.autograd.grad(loss, theta, retain_graph=True)
    total = torch.zeros_like(phi)
    for gradient, part in zip(outer, theta, strict=True):  # row by row of the Jacobian
        for slope, number in zip(gradient.flatten(), part.flatten(), strict=True):
            total += slope * torch.autograd.grad(number, phi, retain_graph=True)[0]
    assert torch.allclose(direct, total, atol=1e-12)


def test_evaluation_leaves_no_trace(toys):
    torch.manual_seed(0)
    evaluating_twice_changes_nothing(stirred(Hypernetwork(conv4(8), film=True)), toys, 6)


@pytest.mark.parametrize("film", [False, True])
def test_it_learns_in_seconds(film):
    source = toy_images(80, 8, noise=120)
    torch.manual_seed(0)
    learner = Hypernetwork(conv4(16), film=film)
    test = EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    before = evaluate(learner, test, 50)
    fit(learner, EpisodeSampler(source.split("train"), 10, 1, 3), steps=60, progress=False)
    after = evaluate(learner, test, 50)
    assert after.mean > max(0.9, before.mean + 0.1)
    assert float(learner.writer[-1].weight.detach().abs().max()) > 0  # the learned part has left zero
