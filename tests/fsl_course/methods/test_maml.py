"""MAML as a learner: modes, laws, memory, and that it learns."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_course.episodes import Episode, EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.inner_loop.functional import call, support_loss, trainable
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.maml import MAML, adapt, meta_loss
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import classifier, conv4, mlp
from fsl_course.training.loop import fit
from tests.conftest import relabel, toy_images
from tests.fsl_course.methods.adapting import (
    LiveBytes,
    small_conv,
    small_episodes,
    smooth_net,
)
from tests.fsl_course.methods.laws import judges_each_query_alone

SINES = SinusoidSampler(6, 4, dtype=torch.float64)


# --- the learner ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_order", [False, True])
def test_a_training_step_is_the_mean_meta_loss(first_order):
    model, batch = smooth_net(), SINES.batch(0, 3)
    learner = MAML(model, 0.1, 2, first_order)
    loss = learner.training_step(batch)
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    how = {"lr": 0.1, "steps": 2, "first_order": first_order, "loss_fn": F.mse_loss}
    expected = sum(meta_loss(model, trainable(model), task, **how) for task in batch) / 3
    model.zero_grad()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert all(torch.allclose(found[n], p.grad, atol=1e-12) for n, p in model.named_parameters())


def test_test_steps_count_in_evaluation_mode_only():
    model, task = smooth_net(), SINES[0]

    def outputs(steps: int) -> Tensor:
        adapted = adapt(support_loss(model, task), trainable(model), lr=0.1, steps=steps)
        return call(model, adapted, task.query_x)

    learner = MAML(model, 0.1, 2)
    assert torch.equal(learner(task), outputs(2))
    assert torch.equal(learner.eval()(task), outputs(2))
    for steps in (0, 5):
        learner.test_steps = steps
        assert torch.equal(learner.train()(task), outputs(2))
        assert torch.equal(learner.eval()(task), outputs(steps))
    assert torch.equal(MAML(model, 0.1, 2, test_steps=7).eval()(task), outputs(7))
    assert learner.loss(task).item() == pytest.approx(F.mse_loss(outputs(5), task.query_y).item())


def test_adaptation_keeps_a_graph_where_gradients_are_wanted():
    learner, task = MAML(smooth_net(), 0.1, 2), SINES[0]
    for module in (learner.train(), learner.eval()):
        assert all(p.grad_fn is not None for p in module.adapted(task).values())
        with torch.no_grad():
            assert not any(p.requires_grad for p in module.adapted(task).values())
            assert not module(task).requires_grad


# --- laws ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_every_query_is_judged_alone_in_evaluation_mode(norm):
    judges_each_query_alone(MAML(small_conv(norm), 0.1, 2).eval(), small_episodes(1)[0])


def test_evaluating_twice_gives_the_same_and_changes_nothing():
    torch.manual_seed(0)
    learner = MAML(classifier(conv4(4), 4), 0.1, 2)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    sampler = EpisodeSampler(toy_images(20, size=16), 4, 1, 3)
    first, second = (evaluate(learner, sampler, 5).per_episode for _ in range(2))
    assert torch.equal(first, second)
    assert learner.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())
    assert not isinstance(learner, ComparesEmbeddings)


def test_relabelling_slots_permutes_logits_only_while_the_head_is_symmetric():
    """A head of equal rows does not know its slots yet; a random or trained one does. Metric methods never learn them."""
    episode, new_slot = small_episodes(1)[0], torch.tensor([2, 0, 1])
    learner = MAML(small_conv("group"), 0.1, 3).eval()
    for model, equivariant in ((learner, False), (PrototypicalNetwork(learner.model.encoder).eval(), True)):
        difference = (model(relabel(episode, new_slot))[:, new_slot] - model(episode)).abs().max()
        assert (difference < 1e-12) == equivariant
        assert equivariant or difference > 1e-2
    learner.model.head.weight.data.zero_()
    learner.model.head.bias.data.zero_()
    assert torch.allclose(learner(relabel(episode, new_slot))[:, new_slot], learner(episode), atol=1e-12)
    assert learner(episode).std() > 1e-3


def test_shuffling_the_support_changes_nothing():
    learner, episode = MAML(small_conv("batch"), 0.1, 2).eval(), small_episodes(1)[0]
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    other = Episode(
        episode.support_x[order], episode.support_y[order], episode.query_x, episode.query_y, episode.classes
    )
    assert torch.allclose(learner(other), learner(episode), atol=1e-10)


@pytest.mark.parametrize("steps", [0, 1])
def test_other_ways_than_the_head_has_are_explained(steps):
    learner = MAML(small_conv("group", n_way=3), 0.1, steps, vmap=False)
    for way in (2, 4):
        message = f"the model has 3 outputs and the episode {way} classes: a method with a fixed head"
        with pytest.raises(ValueError, match=message):
            learner(small_episodes(1, n_way=way)[0])
        with pytest.raises(ValueError, match=message):
            learner.training_step(small_episodes(2, n_way=way))
        with pytest.raises(ValueError, match=message):
            evaluate(learner, EpisodeSampler(toy_images(size=16), way, 2, 2, dtype=torch.float64), 2)


# --- memory --------------------------------------------------------------------------------------------------------------


def test_memory_of_an_evaluation_does_not_grow_with_its_episodes():
    """Trap G5. What 450 more episodes leave behind are 8 bytes each; one kept graph alone has tens of thousands."""
    learner, sampler = MAML(mlp((1, 8, 8, 1)), 0.01, 2), SinusoidSampler(5, 5)
    most = {}
    for episodes in (64, 512):
        with LiveBytes() as memory:
            result = evaluate(learner, sampler, episodes, metric="mse")
        most[episodes] = memory.peak
        assert memory.now <= 3 * result.per_episode.nbytes + 10_000  # sampler and result
    assert most[512] - most[64] <= 448 * 8 * 4
    learner.eval()
    with LiveBytes() as memory, torch.no_grad():  # outputs kept by hand hold on to no graph either
        outputs = [learner(sampler[0]) for _ in range(3)]
        three = memory.now
        outputs += [learner(sampler[0]) for _ in range(20)]
    assert memory.now - three == 20 * outputs[0].nbytes


# --- learning ------------------------------------------------------------------------------------------------------------


def test_it_learns_sine_curves_better_than_no_adaptation_and_pretraining():
    """300 updates of 10 curves. Pretraining is the same learner without an inner loop (0 steps)."""
    train, test, after = SinusoidSampler(10, 10), SinusoidSampler(10, 20, seed=1), {}
    for name, steps, first_order in (("maml", 1, False), ("first order", 1, True), ("pretraining", 0, False)):
        torch.manual_seed(0)
        learner = MAML(mlp(), 0.01, steps, first_order)
        fit(learner, train, steps=300, tasks=10, lr=5e-3, progress=False)
        for test_steps in (0, 1, 5):
            learner.test_steps = test_steps
            after[name, test_steps] = evaluate(learner, test, 100, metric="mse").mean
    for name in ("maml", "first order"):
        assert after[name, 5] < after[name, 1] < 0.8 * after[name, 0]
        assert after[name, 1] < 0.9 * after["pretraining", 1]
        assert after[name, 5] < 0.9 * after["pretraining", 5]


@pytest.mark.parametrize(("norm", "lr"), [("batch", 0.3), ("group", 0.5)])
def test_it_learns_pictures_in_seconds_and_is_at_chance_before_adaptation(norm, lr):
    """On classes never seen; without adaptation, averaged over random slots, it scores 1/N (trap E4)."""
    source = toy_images(80, 8, size=16, noise=120)
    torch.manual_seed(0)
    learner = MAML(classifier(conv4(8, norm), 4), lr, 2)
    test = EpisodeSampler(source.split("test"), 4, 1, 4, seed=10)
    before = evaluate(learner, test, 40)
    fit(learner, EpisodeSampler(source.split("train"), 4, 1, 3), steps=50, tasks=3, lr=1e-2, progress=False)
    after = evaluate(learner, test, 40)
    assert after.mean > before.mean + 0.25
    learner.test_steps = 0
    unadapted = evaluate(learner, test, 300)
    assert abs(unadapted.mean - 1 / 4) <= unadapted.ci95 < 0.03


def test_a_task_is_solved_in_inference_mode_as_without_gradients():
    learner, episode = MAML(small_conv("batch"), 0.1, 2).eval(), small_episodes(1)[0]
    with torch.no_grad():
        expected = learner(episode)
    with torch.inference_mode():
        assert torch.allclose(learner(episode), expected, rtol=0, atol=1e-12)
