import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_course.episodes import Episode, EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.inner_loop.functional import call, support_loss, trainable
from fsl_course.inner_loop.task_batches import tensors_of
from fsl_course.methods.maml import adapt
from fsl_course.methods.reptile import Reptile
from fsl_course.nets import classifier, conv4, mlp
from fsl_course.training.loop import fit
from tests.conftest import toy_images
from tests.fsl_course.methods.adapting import (
    linear_model,
    linear_task,
    plain_conv,
    quadratic,
    small_episodes,
    smooth_net,
)
from tests.fsl_course.methods.laws import other_queries

SINES = SinusoidSampler(6, 4, dtype=torch.float64)


def stacked(*tasks: Episode) -> Episode:
    return Episode(*(torch.stack(t) for t in zip(*(tensors_of(task) for task in tasks), strict=True)))


def pull(learner: Reptile, episodes: Episode) -> dict[str, Tensor]:
    """The pseudo-gradient of a training step."""
    learner.zero_grad()
    learner.training_step(episodes).backward()
    return {n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None}


def support_gradient(model: torch.nn.Module, task: Episode) -> dict[str, Tensor]:
    params = trainable(model)
    loss = support_loss(model, task)(params)
    return dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("kind", ["mlp", "batch", "group"])
def test_one_plain_step_is_an_sgd_step_on_the_task(kind, at_once):
    """theta - theta_task = lr * gradient of the support loss; over several tasks the mean of that."""
    model, batch = (smooth_net(), SINES.batch(0, 3)) if kind == "mlp" else (plain_conv(kind), small_episodes(3))
    found = pull(Reptile(model, 0.2, 1, vmap=at_once), batch)
    each = [support_gradient(model, task) for task in batch]
    for name in trainable(model):
        expected = 0.2 * sum(g[name] for g in each) / 3
        assert torch.allclose(found[name], expected, rtol=0, atol=1e-12)
    assert max(g.abs().max() for g in found.values()) > 1e-3


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_steps_on_a_one_dimensional_quadratic_are_the_closed_form(steps, at_once):
    """w* - w_k = (1 - lr h)^k (w* - w_0), so the displacement is (1 - (1 - lr h)^k) (w_0 - w*) (trap G3)."""
    model, tasks = linear_model(1), [linear_task(1, seed) for seed in (0, 5)]
    expected, losses, w = 0.0, 0.0, model.weight.item()
    for task in tasks:
        h, b = (v.item() for v in quadratic(task.support_x, task.support_y))
        kept = (1 - 0.1 * h) ** steps
        expected += (1 - kept) * (w - b / h) / 2
        end = b / h + kept * (w - b / h)
        losses += F.mse_loss(end * task.query_x, task.query_y).item() / 2
    learner = Reptile(model, 0.1, steps, vmap=at_once)
    assert learner.training_step(stacked(*tasks)).item() == pytest.approx(losses, rel=1e-12)
    assert pull(learner, stacked(*tasks))["weight"].item() == pytest.approx(expected, abs=1e-13)
    assert model.weight.item() == w


def test_an_sgd_step_of_rate_epsilon_is_the_algorithm_to_the_letter():
    """theta + epsilon * mean(theta_task - theta), serial (one task) and batched (several)."""
    for tasks in (1, 3):
        model, batch = smooth_net(), SINES.batch(0, tasks)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        ends = [adapt(support_loss(model, t), trainable(model), lr=0.1, steps=4, track=False) for t in batch]
        learner = Reptile(model, 0.1, 4)
        optimiser = torch.optim.SGD(learner.parameters(), lr=0.25)
        learner.training_step(batch).backward()
        optimiser.step()
        for name, p in model.named_parameters():
            expected = before[name] + 0.25 * sum(end[name] - before[name] for end in ends) / tasks
            assert torch.allclose(p, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("batch", [None, 2])
def test_queries_have_no_part_in_the_gradient(batch, at_once):
    model, task = plain_conv("batch"), small_episodes(1)
    other = Episode(task.support_x, task.support_y, 1 - task.query_x, (task.query_y + 1) % 3, task.classes)
    learner = Reptile(model, 0.1, 3, batch=batch, vmap=at_once)
    first, second = pull(learner, task), pull(learner, other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert learner.training_step(task).item() != learner.training_step(other).item()


def test_minibatches_take_the_support_rows_in_turn():
    """Five rows in twos: 0 1, 2 3, 4 0, 1 2. Each step is plain SGD on its rows; in evaluation mode all rows count."""
    model, task = smooth_net(), SinusoidSampler(5, 3, dtype=torch.float64)[0]
    theta = {n: p.detach() for n, p in model.named_parameters()}
    for rows in ([0, 1], [2, 3], [4, 0], [1, 2]):
        part = Episode(task.support_x[rows], task.support_y[rows], task.query_x, task.query_y, task.classes)
        theta = adapt(support_loss(model, part), theta, lr=0.1, steps=1, track=False)
    learner = Reptile(model, 0.1, 4, batch=2)
    found = learner.adapted(task)
    assert all(torch.allclose(found[n], theta[n], rtol=0, atol=1e-14) for n in theta)
    moved = pull(learner, stacked(task))
    for n, p in model.named_parameters():
        assert torch.allclose(moved[n], p - theta[n], rtol=0, atol=1e-14)
    whole = adapt(support_loss(model, task), trainable(model), lr=0.1, steps=4, track=False)
    learner.eval()
    assert all(torch.equal(learner.adapted(task)[n], whole[n]) for n in theta)


@pytest.mark.parametrize("batch", [6, 7, 100])
def test_a_batch_of_all_rows_or_more_is_the_whole_support(batch):
    """The episode has six rows; none is taken twice in a step."""
    model, task = smooth_net(), SINES[0]
    whole, some = (Reptile(model, 0.1, 3, batch=b).adapted(task) for b in (None, batch))
    assert all(torch.allclose(some[n], whole[n], rtol=0, atol=1e-14) for n in whole)


def test_test_steps_count_in_evaluation_mode_only():
    model, task = smooth_net(), SINES[0]
    for batch in (None, 6):
        learner = Reptile(model, 0.1, 2, batch=batch, test_steps=5)
        for steps, module in ((2, learner.train()), (5, learner.eval())):
            module.train(steps == 2)
            end = adapt(support_loss(model, task), trainable(model), lr=0.1, steps=steps, track=False)
            assert all(torch.allclose(module.adapted(task)[n], end[n], rtol=0, atol=1e-13) for n in end)
            assert torch.allclose(module(task), call(model, end, task.query_x), atol=1e-13)
        learner.test_steps = 0
        assert torch.equal(learner.eval()(task), model(task.query_x))


def test_no_graph_and_nothing_moves():
    model, batch = plain_conv("batch"), small_episodes(2)
    learner = Reptile(model, 0.1, 2, batch=3)
    before = copy.deepcopy(learner.state_dict())
    for module in (learner.train(), learner):
        assert not any(p.requires_grad for p in module.adapted(batch[0]).values())
        assert not module(batch[0]).requires_grad
        module.training_step(batch).backward()
        learner.eval()
    assert all(torch.equal(t, before[n]) for n, t in learner.state_dict().items())


@pytest.mark.parametrize("at_once", [False, True])
def test_frozen_parameters_stay(at_once):
    model = smooth_net()
    model[0].weight.requires_grad_(False)
    found = pull(Reptile(model, 0.1, 2, vmap=at_once), SINES.batch(0, 2))
    assert list(found) == ["0.bias", "2.weight", "2.bias"]
    assert all(g.abs().max() > 0 for g in found.values())


@pytest.mark.parametrize("at_once", [False, True])
def test_training_mode_judges_queries_together_and_the_gradient_does_not_care(at_once):
    learner, task = Reptile(plain_conv("batch"), 0.1, 1, vmap=at_once), small_episodes(1)[0]
    assert (learner(task)[0] - learner(other_queries(task))[0]).abs().max() > 1e-3
    a, b = (pull(learner, stacked(t)) for t in (task, other_queries(task)))
    assert all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_without_rows_is_explained(batch):
    with pytest.raises(ValueError, match=f"batch must be at least 1 support row, or None for all; got {batch}"):
        Reptile(mlp(), 0.1, 1, batch=batch)


@pytest.mark.parametrize("at_once", [False, True])
def test_other_ways_than_the_head_has_are_explained(at_once):
    learner = Reptile(plain_conv("group"), 0.1, 1, vmap=at_once)
    with pytest.raises(ValueError, match="the model has 3 outputs and the episode 4 classes"):
        learner.training_step(small_episodes(2, n_way=4))


def test_it_learns_sine_curves():
    """Steps in its inner loop do for it what they never did for the net it starts from."""
    torch.manual_seed(0)
    learner, test = Reptile(mlp(), 0.02, 5, test_steps=10), SinusoidSampler(10, 20, seed=1)
    before = evaluate(learner, test, 60, metric="mse")
    fit(learner, SinusoidSampler(10, 10), steps=150, tasks=10, lr=5e-3, progress=False)
    after = evaluate(learner, test, 60, metric="mse")
    assert after.mean < 0.8 * before.mean
    learner.test_steps = 0
    assert after.mean < 0.6 * evaluate(learner, test, 60, metric="mse").mean


def test_it_learns_pictures():
    source = toy_images(80, 8, size=16, noise=120)
    torch.manual_seed(0)
    learner = Reptile(classifier(conv4(8), 4), 0.1, 4, batch=6)
    test = EpisodeSampler(source.split("test"), 4, 1, 4, seed=10)
    before = evaluate(learner, test, 40)
    fit(learner, EpisodeSampler(source.split("train"), 4, 3, 1), steps=25, tasks=3, lr=1e-2, progress=False)
    assert evaluate(learner, test, 40).mean > before.mean + 0.15
