import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode, EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.inner_loop.functional import call, support_loss, trainable
from fsl_course.inner_loop.task_batches import tensors_of
from fsl_course.methods.maml import MAML, adapt, meta_loss
from fsl_course.methods.meta_sgd import MetaSGD
from fsl_course.nets import classifier, conv4, mlp
from fsl_course.training.loop import fit
from tests.conftest import toy_images
from tests.fsl_course.methods.adapting import (
    central_differences,
    linear_model,
    linear_task,
    quadratic,
    randn,
    small_conv,
    small_episodes,
    smooth_net,
)

SINES = SinusoidSampler(6, 4, dtype=torch.float64)


def test_every_parameter_has_a_rate_of_its_shape_and_start():
    model = small_conv("batch")
    learner = MetaSGD(model, 0.25, 1)
    named = dict(model.named_parameters())
    assert list(learner.named_rates()) == list(named)
    for name, rate in learner.named_rates().items():
        assert rate.shape == named[name].shape
        assert rate.dtype == torch.float64
        assert rate.requires_grad
        assert bool((rate == 0.25).all())
    assert sum(p.numel() for p in learner.parameters()) == 2 * sum(p.numel() for p in model.parameters())
    again = MetaSGD(small_conv("batch", seed=1), 0.1, 1)
    again.load_state_dict(learner.state_dict())  # rates are saved and loaded like weights
    assert all(bool((rate == 0.25).all()) for rate in again.named_rates().values())


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", ["mlp", "batch", "group"])
def test_a_constant_rate_is_maml(kind, steps, at_once):
    """The same loss and the same gradient for the initialisation."""
    if at_once and kind != "mlp":
        kind, at_once = kind, False  # vmap against loop is the business of task_batches
    model, batch = (smooth_net(), SINES.batch(0, 3)) if kind == "mlp" else (small_conv(kind), small_episodes(2))
    learner = MetaSGD(model, 0.1, steps, vmap=at_once)
    maml = MAML(copy.deepcopy(model), 0.1, steps, vmap=at_once)
    a, b = learner.training_step(batch), maml.training_step(batch)
    a.backward()
    b.backward()
    assert a.item() == pytest.approx(b.item(), abs=1e-12)
    for p, q in zip(model.parameters(), maml.model.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=0, atol=1e-11)
    assert max(r.grad.abs().max() for r in learner.rates) > 1e-4
    assert torch.allclose(learner.eval()(batch[0]), maml.eval()(batch[0]), atol=1e-12)


def test_the_gradient_of_the_rates_is_the_closed_form_on_a_quadratic():
    """One step w' = w - alpha * g_S(w): d L_Q / d alpha = -g_S(w) * g_Q(w'); for w it is (I - H diag(alpha)) g_Q(w')."""
    model, task = linear_model(3), linear_task(3)
    learner = MetaSGD(model, 0.1, 1)
    learner.rates[0].data = 0.1 * randn(1, 3, seed=3)  # signs differ
    (h, b), (h_query, b_query) = quadratic(task.support_x, task.support_y), quadratic(task.query_x, task.query_y)
    w, alpha = model.weight.detach()[0], learner.rates[0].detach()[0]
    slope = h @ w - b
    moved = w - alpha * slope
    outer = h_query @ moved - b_query
    learner.training_step(Episode(*(t[None] for t in tensors_of(task)))).backward()
    assert torch.allclose(learner.rates[0].grad[0], -slope * outer, rtol=0, atol=1e-12)
    assert torch.allclose(model.weight.grad[0], outer - h @ (alpha * outer), rtol=0, atol=1e-12)
    assert outer.abs().max() > 0.1


@pytest.mark.parametrize("steps", [1, 3])
def test_the_gradient_of_the_rates_agrees_with_central_differences(steps):
    model, task = smooth_net(), SINES[1]
    learner = MetaSGD(model, 0.2, steps)
    params = {n: p.detach() for n, p in trainable(model).items()}

    def by_rates(rates: dict[str, Tensor]) -> Tensor:
        return meta_loss(model, params, task, lr=rates, steps=steps, loss_fn=F.mse_loss)

    found = torch.autograd.grad(learner.loss(task), list(learner.rates))
    expected = central_differences(by_rates, learner.named_rates())
    assert all(torch.allclose(g, e, rtol=0, atol=1e-8) for g, e in zip(found, expected.values(), strict=True))


def test_the_same_rates_serve_all_steps_and_test_steps_count_in_evaluation_only():
    model, task = smooth_net(), SINES[0]
    learner = MetaSGD(model, 0.1, 2, test_steps=4)
    for i, rate in enumerate(learner.rates):
        rate.data += 0.05 * randn(*rate.shape, seed=i)
    for training, steps in ((True, 2), (False, 4)):
        theta = {n: p.detach() for n, p in trainable(model).items()}
        for _ in range(steps):
            theta = adapt(support_loss(model, task), theta, lr=dict(learner.named_rates()), steps=1, track=False)
        assert torch.allclose(learner.train(training)(task), call(model, theta, task.query_x), atol=1e-12)
    learner.test_steps = None
    two = learner(task)
    assert torch.allclose(two, learner.train()(task))
    learner.test_steps = 0
    assert torch.equal(learner.eval()(task), model(task.query_x))


def test_no_graph_without_gradients_and_nothing_moves():
    learner, task = MetaSGD(small_conv("batch"), 0.1, 2), small_episodes(1)[0]
    before = copy.deepcopy(learner.state_dict())
    for module in (learner.train(), learner.eval()):
        with torch.no_grad():
            assert not any(p.requires_grad for p in module.adapted(task).values())
        assert all(p.grad_fn is not None for p in module.adapted(task).values())
    assert all(torch.equal(t, before[n]) for n, t in learner.state_dict().items())


@pytest.mark.parametrize("at_once", [False, True])
def test_frozen_parameters_have_no_rates(at_once):
    model = smooth_net()
    model[0].weight.requires_grad_(False)
    learner = MetaSGD(model, 0.1, 2, vmap=at_once)
    assert list(learner.named_rates()) == ["0.bias", "2.weight", "2.bias"]
    learner.training_step(SINES.batch(0, 2)).backward()
    assert model[0].weight.grad is None
    assert all(rate.grad.abs().max() > 0 for rate in learner.rates)


def test_other_ways_than_the_head_has_are_explained():
    with pytest.raises(ValueError, match="the model has 3 outputs and the episode 4 classes"):
        MetaSGD(small_conv("group"), 0.1, 1)(small_episodes(1, n_way=4)[0])


def test_tied_weights_have_one_rate():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    model[2].weight = model[0].weight
    assert list(MetaSGD(model, 0.1, 1).named_rates()) == ["0.weight"]


def test_it_learns_sine_curves_in_one_step_and_its_rates_part():
    torch.manual_seed(0)
    learner, test = MetaSGD(mlp(), 0.01, 1), SinusoidSampler(10, 20, seed=1)
    fit(learner, SinusoidSampler(10, 10), steps=150, tasks=10, lr=5e-3, progress=False)
    after = evaluate(learner, test, 60, metric="mse").mean
    learner.test_steps = 0
    assert after < 0.5 * evaluate(learner, test, 60, metric="mse").mean
    rates = torch.cat([rate.detach().flatten() for rate in learner.rates])
    assert rates.std() > 0.01
    assert rates.min() < 0 < rates.max()  # signs are free


def test_it_learns_pictures():
    source = toy_images(80, 8, size=16, noise=120)
    torch.manual_seed(0)
    learner = MetaSGD(classifier(conv4(8), 4), 0.2, 1)
    test = EpisodeSampler(source.split("test"), 4, 1, 4, seed=10)
    before = evaluate(learner, test, 40)
    fit(learner, EpisodeSampler(source.split("train"), 4, 1, 3), steps=25, tasks=3, lr=1e-2, progress=False)
    assert evaluate(learner, test, 40).mean > before.mean + 0.15
