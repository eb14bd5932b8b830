import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.inner_loop.functional import predict
from fsl_course.inner_loop.support_statistics import batch_statistics
from fsl_course.methods.anil import ANIL
from fsl_course.methods.maml import MAML
from fsl_course.nets import classifier, conv4, mlp
from fsl_course.training.loop import fit
from tests.conftest import toy_images
from tests.fsl_course.methods.adapting import (
    central_differences,
    same_gradients,
    small_conv,
    small_episodes,
    smooth_net,
)
from tests.fsl_course.methods.laws import judges_each_query_alone

SINES = SinusoidSampler(6, 4, dtype=torch.float64)


def model_and_batch(kind: str):
    return (smooth_net(), SINES.batch(0, 2)) if kind == "mlp" else (small_conv(kind), small_episodes(2))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("kind", ["mlp", "batch", "group"])
def test_the_whole_model_as_head_is_maml(kind, first_order, training):
    model, batch = model_and_batch(kind)
    anil = ANIL(model, 0.1, 2, first_order, head="", vmap=False).train(training)
    maml = MAML(copy.deepcopy(model), 0.1, 2, first_order, vmap=False).train(training)
    a, b = anil.training_step(batch), maml.training_step(batch)
    assert a.item() == pytest.approx(b.item(), abs=1e-12)
    assert same_gradients(anil, maml, a, b, 1e-11)
    assert torch.allclose(anil(batch[0]), maml(batch[0]), atol=1e-12)


@pytest.mark.parametrize("first_order", [False, True])
def test_only_the_head_adapts_and_both_parts_learn(first_order):
    """Written out: features once, then plain gradient steps of the last layer on them."""
    model, task = smooth_net(), SINES[0]
    support, query = (model[1](model[0](x)) for x in (task.support_x, task.query_x))
    weight, bias = model[2].weight, model[2].bias
    for _ in range(3):
        loss = F.mse_loss(support @ weight.T + bias, task.support_y)
        slopes = torch.autograd.grad(loss, (weight, bias), create_graph=not first_order, retain_graph=True)
        weight, bias = weight - 0.1 * slopes[0], bias - 0.1 * slopes[1]
    expected = F.mse_loss(query @ weight.T + bias, task.query_y)
    learner = ANIL(model, 0.1, 3, first_order)
    found = learner.loss(task)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    assert same_gradients(model, model, found, expected, 1e-12)
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(learner.loss(task), list(model.parameters())))


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("training", [True, False])
def test_meta_gradient_agrees_with_central_differences(norm, training):
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(4) if norm == "batch" else nn.GroupNorm(1, 4)
    model = nn.Sequential(nn.Linear(1, 4), layer, nn.Tanh(), nn.Linear(4, 1)).double()
    learner, task = ANIL(model, 0.2, 2).train(training), SINES[0]
    params = dict(learner.named_parameters())

    def value(theta: dict[str, Tensor]) -> Tensor:
        other = copy.deepcopy(learner)
        other.load_state_dict(theta, strict=False)
        return other.loss(task)

    found = torch.autograd.grad(learner.loss(task), list(params.values()))
    expected = central_differences(value, params)
    error = max((g - e).abs().max().item() for g, e in zip(found, expected.values(), strict=True))
    assert error < 1e-5 * max(g.abs().max().item() for g in found)


def test_the_head_is_the_last_linear_layer_unless_named():
    assert ANIL(classifier(conv4(4), 5), 0.1, 1).head == "head"
    assert ANIL(mlp(), 0.1, 1).head == "4"
    assert ANIL(mlp(), 0.1, 1, head="4").head == "4"
    nested = nn.Sequential(OrderedDict(body=nn.Linear(1, 2), top=nn.Sequential(nn.ReLU(), nn.Linear(2, 1))))
    assert ANIL(nested, 0.1, 1).head == "top.1"
    assert ANIL(nested, 0.1, 1, head="top").head == "top"


def test_features_are_what_the_head_is_given():
    model, x = small_conv("group"), small_episodes(1)[0].support_x
    assert torch.equal(ANIL(model, 0.1, 1).features(x), model.encoder(x))
    assert torch.equal(ANIL(model, 0.1, 1, head="").features(x), x)
    net = mlp((1, 4, 3, 2)).double()
    z = SINES[0].support_x
    assert torch.equal(ANIL(net, 0.1, 1).features(z), net[:4](z))
    assert ANIL(model, 0.1, 1).features(x).requires_grad
    assert not any(m._forward_hooks for m in [*model.modules(), *net.modules()])


def test_a_head_of_several_layers_with_batch_norm():
    """Its own batch norm follows the same rule: the support's statistics, under adapted weights."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
    model = nn.Sequential(OrderedDict(encoder=small_conv("batch").encoder, head=head)).double()
    learner, task = ANIL(model, 0.1, 2, head="head"), small_episodes(1)[0]
    before = copy.deepcopy(learner.state_dict())
    judges_each_query_alone(learner.eval(), task)
    learner.train().loss(task).backward()
    assert all(p.grad.abs().max() > 0 for n, p in model.named_parameters() if n != "head.0.bias")
    assert all(torch.equal(t, before[n]) for n, t in learner.state_dict().items())


def test_test_steps_count_in_evaluation_mode_only():
    model, task = smooth_net(), SINES[0]
    learner = ANIL(model, 0.1, 2, test_steps=5)
    two, five = (ANIL(model, 0.1, steps)(task) for steps in (2, 5))
    assert torch.equal(learner(task), two)
    assert torch.equal(learner.eval()(task), five)
    learner.test_steps = 0
    assert torch.allclose(learner(task), model(task.query_x), atol=1e-14)
    learner.test_steps = None
    assert torch.equal(learner(task), two)


def test_no_graph_without_gradients_and_nothing_moves():
    learner, task = ANIL(small_conv("batch"), 0.1, 2), small_episodes(1)[0]
    before = copy.deepcopy(learner.state_dict())
    with torch.no_grad():
        quiet = learner(task)
    assert not quiet.requires_grad
    assert torch.equal(quiet, learner(task))
    with batch_statistics(learner.eval()):
        assert torch.equal(quiet, learner(task))
    assert all(torch.equal(t, before[n]) for n, t in learner.state_dict().items())


@pytest.mark.parametrize("at_once", [False, True])
def test_frozen_parts_stay(at_once):
    model = smooth_net()
    model[2].bias.requires_grad_(False)
    model[0].weight.requires_grad_(False)
    learner = ANIL(model, 0.1, 2, vmap=at_once)
    learner.training_step(SINES.batch(0, 2)).backward()
    assert model[2].bias.grad is None
    assert model[0].weight.grad is None
    assert model[2].weight.grad.abs().max() > 0
    assert model[0].bias.grad.abs().max() > 0


class Behind(nn.Module):
    """Something happens to the output of the head."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.out, self.calls = nn.Linear(1, 1), calls

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            x = self.out(x)
        return x if self.calls == 2 else x * 2


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_head_that_is_not_the_last_thing_once_is_explained(calls):
    model = Behind(calls)
    with pytest.raises(ValueError, match="the head 'out' must be the last thing that the model does, once"):
        ANIL(model, 0.1, 1)(SinusoidSampler(3, 2)[0])
    assert not model.out._forward_hooks


def test_wrong_heads_are_explained():
    with pytest.raises(
        ValueError, match=r"no linear layer to adapt: name the head, e.g. ANIL\(model, lr, steps, head='o"
    ):
        ANIL(conv4(4), 0.1, 1)
    with pytest.raises(AttributeError, match="has no attribute `tail`"):
        ANIL(mlp(), 0.1, 1, head="tail")
    with pytest.raises(ValueError, match="head '0' must be the last thing"):
        ANIL(mlp(), 0.1, 1, head="0")(SinusoidSampler(3, 2)[0])
    with pytest.raises(ValueError, match="the model has 3 outputs and the episode 4 classes"):
        ANIL(small_conv("group"), 0.1, 1)(small_episodes(1, n_way=4)[0])


def test_it_learns_sine_curves():
    torch.manual_seed(0)
    learner, test = ANIL(mlp(), 0.01, 3), SinusoidSampler(10, 20, seed=1)
    fit(learner, SinusoidSampler(10, 10), steps=150, tasks=10, lr=5e-3, progress=False)
    after = evaluate(learner, test, 60, metric="mse").mean
    learner.test_steps = 0
    assert after < 0.7 * evaluate(learner, test, 60, metric="mse").mean


def test_it_learns_pictures():
    source = toy_images(80, 8, size=16, noise=120)
    torch.manual_seed(0)
    learner = ANIL(classifier(conv4(8), 4), 0.3, 3)
    test = EpisodeSampler(source.split("test"), 4, 1, 4, seed=10)
    before = evaluate(learner, test, 40)
    fit(learner, EpisodeSampler(source.split("train"), 4, 1, 3), steps=25, tasks=3, lr=1e-2, progress=False)
    assert evaluate(learner, test, 40).mean > before.mean + 0.15


@pytest.mark.parametrize("head", [None, "", "encoder"])
def test_adapted_parameters_of_the_whole_model_give_the_same_predictions(task, head):
    """What forward computes in two halves, one after the other: for programs that adapt once and predict often."""
    model = nn.Sequential(OrderedDict(encoder=conv4(4), head=nn.Linear(4, 5)))
    if head == "encoder":
        model = nn.Sequential(OrderedDict(stem=nn.Identity(), encoder=classifier(conv4(4), 5)))
    learner = ANIL(model, 0.5, 3, head=head).eval()
    with torch.no_grad():
        adapted = learner.adapted(task)
        assert set(adapted) == {name for name, _ in model.named_parameters()}
        torch.testing.assert_close(predict(model, adapted, task), learner(task), atol=1e-6, rtol=1e-5)
        assert any(not torch.equal(adapted[name], p) for name, p in model.named_parameters())
