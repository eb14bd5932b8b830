"""The mean over tasks: loop, threads and vmap agree."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from fsl_course.episodes import Episode, SinusoidSampler
from fsl_course.inner_loop import task_batches
from fsl_course.inner_loop.task_batches import mean_over_tasks, prefers_vmap, tensors_of
from fsl_course.methods import reptile
from fsl_course.methods.anil import ANIL
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import MAML
from fsl_course.methods.meta_sgd import MetaSGD
from fsl_course.methods.reptile import Reptile
from fsl_course.nets import conv4, mlp
from tests.fsl_course.methods.adapting import (
    LiveBytes,
    central_differences,
    plain_conv,
    same_gradients,
    small_conv,
    small_episodes,
)

SINES = SinusoidSampler(6, 4, dtype=torch.float64)

LEARNERS = {
    "maml": lambda model: MAML(model, 0.1, 2),
    "fomaml": lambda model: MAML(model, 0.1, 2, first_order=True),
    "meta_sgd": lambda model: MetaSGD(model, 0.1, 2),
    "anil": lambda model: ANIL(model, 0.1, 2),
    "first-order anil": lambda model: ANIL(model, 0.1, 2, first_order=True),
    "reptile": lambda model: Reptile(model, 0.1, 2),
    "reptile, minibatches": lambda model: Reptile(model, 0.1, 3, batch=4),
    "no inner loop": lambda model: MAML(model, 0.1, 0),
}

MODELS = ("mlp", "batch", "group", "none")


def model_and_tasks(kind: str, tasks: int) -> tuple[nn.Module, Episode]:
    torch.manual_seed(0)
    if kind == "mlp":
        return mlp((1, 8, 8, 1)).double(), SINES.batch(0, tasks)
    return plain_conv(kind), small_episodes(tasks)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("method", LEARNERS)
def test_loop_and_vmap_agree(method, kind):
    """The same loss and the same gradients in float64, for several tasks and for one, in both modes."""
    for tasks, training in ((3, True), (1, True), (2, False)):
        model, batch = model_and_tasks(kind, tasks)
        loop = LEARNERS[method](model).train(training)
        at_once = copy.deepcopy(loop)
        loop.vmap, at_once.vmap = False, True
        a, b = loop.training_step(batch), at_once.training_step(batch)
        assert a.dim() == 0
        assert a.item() == pytest.approx(b.item(), abs=1e-10)
        assert same_gradients(loop, at_once, a, b)


@pytest.mark.parametrize("norm", ["batch", "none", "group"])
@pytest.mark.parametrize("method", ["maml", "anil", "reptile"])
def test_conv4_too(method, norm):
    loop = LEARNERS[method](small_conv(norm))
    at_once, batch = copy.deepcopy(loop), small_episodes(2)
    loop.vmap, at_once.vmap = False, True
    assert same_gradients(loop, at_once, loop.training_step(batch), at_once.training_step(batch))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["batch", "batch without running statistics", "group"])
@pytest.mark.parametrize("at_once", [False, True])
def test_second_derivatives_of_norms_are_right(at_once, norm, training):
    """Central differences; PyTorch's own batch norm fails this under vmap, where it takes its deviation for a constant."""
    torch.manual_seed(0)
    layer = nn.GroupNorm(1, 4) if norm == "group" else nn.BatchNorm1d(4, track_running_stats=norm == "batch")
    learner = MAML(nn.Sequential(nn.Linear(1, 4), layer, nn.Tanh(), nn.Linear(4, 1)).double(), 0.3, 2, vmap=at_once)
    batch = SINES.batch(0, 2)
    params = dict(learner.train(training).named_parameters())
    loss = learner.training_step(batch)
    found = torch.autograd.grad(loss, list(params.values()))

    def value(theta: dict[str, Tensor]) -> Tensor:
        other = copy.deepcopy(learner)
        other.load_state_dict(theta, strict=False)
        return other.training_step(batch)

    expected = central_differences(value, params)
    error = max((g - e).abs().max().item() for g, e in zip(found, expected.values(), strict=True))
    assert error < 1e-5 * max(g.abs().max().item() for g in found)
    assert "forward" not in vars(layer)


def test_the_written_out_norms_go_away_after_an_exception():
    model, _ = model_and_tasks("batch", 2)
    with pytest.raises(ValueError, match="the model has 3 outputs and the episode 4 classes"):
        MAML(model, 0.1, 1, vmap=True).training_step(small_episodes(2, n_way=4))
    assert not any("forward" in vars(module) for module in model.modules())
    assert all(m.training and m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("at_once", [False, True])
def test_it_is_the_mean_of_the_losses_and_of_their_gradients(at_once):
    model, batch = model_and_tasks("mlp", 3)
    learner, other = (MAML(m, 0.1, 2) for m in (model, copy.deepcopy(model)))
    found = mean_over_tasks(learner, batch, at_once)
    expected = sum(other.loss(task) for task in batch) / 3
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    assert same_gradients(learner, other, found, expected, 1e-12)
    halves = sum(mean_over_tasks(other, SINES.batch(start, 2), at_once) for start in (0, 2)) / 2
    assert mean_over_tasks(other, SINES.batch(0, 4), at_once).item() == pytest.approx(halves.item(), abs=1e-12)


@pytest.mark.parametrize("at_once", [False, True])
def test_order_of_tasks_changes_nothing(at_once):
    """One shared model that is adapted in place would start task 2 from the weights of task 1."""
    model, batch = model_and_tasks("group", 3)
    learner = MAML(model, 0.3, 2)
    turned = Episode(*(t.flip(0) for t in tensors_of(batch)))
    a, b = (mean_over_tasks(learner, tasks, at_once) for tasks in (batch, turned))
    assert a.item() == pytest.approx(b.item(), abs=1e-12)
    assert same_gradients(learner, learner, a, b, 1e-10)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("method", LEARNERS)
def test_without_gradients_there_is_a_value_and_no_graph(method, at_once):
    model, batch = model_and_tasks("mlp", 3)
    learner = LEARNERS[method](model)
    learner.vmap = at_once
    with torch.no_grad():
        value = learner.training_step(batch)
    assert not value.requires_grad
    assert value.item() == pytest.approx(learner.training_step(batch).item(), abs=1e-12)


@pytest.mark.parametrize("at_once", [False, True])
def test_parameters_without_part_in_the_loss_get_no_gradient_and_do_no_harm(at_once):
    model, batch = model_and_tasks("mlp", 2)
    learner = MAML(model, 0.1, 1)
    learner.idle = nn.Parameter(torch.ones(3))
    mean_over_tasks(learner, batch, at_once).backward()
    assert learner.idle.grad is None
    assert all(p.grad is not None for p in model.parameters())


class Gate(FewShotLearner):
    """One weight that only the second kind of task reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.sometimes = (nn.Parameter(torch.tensor(1.0)) for _ in range(2))

    def forward(self, episode: Episode) -> Tensor:
        out = episode.query_x * self.always
        return out * self.sometimes if episode.query_x[0] > 0 else out


def test_the_loop_adds_gradients_that_only_some_tasks_have():
    for signs in ([1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]):
        x = torch.tensor(signs)[:, None, None] * torch.tensor([[1.0], [2.0]])
        episodes = Episode(x, x, x, torch.zeros_like(x), torch.zeros(3, 0, dtype=torch.int64))
        learner = Gate()
        mean_over_tasks(learner, episodes, False).backward()
        share = sum(s > 0 for s in signs) / 3  # each task's loss is 2.5 always^2 (sometimes^2), its gradient 5
        assert learner.always.grad.item() == pytest.approx(5)
        assert learner.sometimes.grad.item() == pytest.approx(5 * share)


@pytest.fixture
def three_threads():
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("method", ["maml", "fomaml", "meta_sgd", "anil"])
def test_tasks_in_threads_are_those_of_the_loop_to_the_last_bit(method, kind, three_threads):
    """Five tasks on three threads, twice one after the other; model, mode and the number of threads are as before."""
    model, batch = model_and_tasks(kind, 5)
    threads = LEARNERS[method](model)
    loop = copy.deepcopy(threads)
    threads.vmap = loop.vmap = False
    a = threads.training_step(batch)
    with ThreadPoolExecutor(1) as pool:  # a later thread has as many as this one
        assert torch.get_num_threads() == pool.submit(torch.get_num_threads).result() == 3
    torch.set_num_threads(1)
    b = loop.training_step(batch)
    assert torch.equal(a, b)
    assert same_gradients(threads, loop, a, b, 0)
    assert all(torch.equal(t, loop.state_dict()[name]) for name, t in threads.state_dict().items())
    assert all(m.training for m in threads.modules())


def test_threads_tell_hooks_and_errors_as_the_loop_does(three_threads):
    learner, seen = MAML(plain_conv("batch"), 0.1, 1, vmap=False), []
    hook = learner.register_forward_hook(lambda module, args, output: seen.append(args[0].query_x.sum().item()))
    batch = small_episodes(4)
    learner.training_step(batch)
    hook.remove()
    assert sorted(seen) == pytest.approx(sorted(task.query_x.sum().item() for task in batch))
    with pytest.raises(ValueError, match="the model has 3 outputs and the episode 4 classes"):
        learner.training_step(small_episodes(3, n_way=4))
    assert torch.get_num_threads() == 3


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(1, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += x.mean()
        return self.out(x)


def test_what_is_preferred():
    cpu, accelerator = torch.device("cpu"), torch.device("cuda")
    assert prefers_vmap(mlp(), cpu)
    assert prefers_vmap(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), cpu)
    assert prefers_vmap(conv4(4), accelerator)
    for model in (
        conv4(4),
        nn.Sequential(nn.Conv1d(1, 1, 1)),
        nn.Sequential(nn.Sequential(nn.ConvTranspose2d(1, 1, 1))),
    ):
        assert not prefers_vmap(model, cpu)
        assert prefers_vmap(model, accelerator)
    for device in (cpu, accelerator):
        assert not prefers_vmap(nn.Sequential(mlp(), Buffered()), device)


@pytest.mark.parametrize("choice", [None, False, True])
@pytest.mark.parametrize("method", LEARNERS)
@pytest.mark.parametrize("kind", ["mlp", "group", "buffered"])
def test_none_takes_what_is_preferred_and_others_are_obeyed(method, kind, choice, monkeypatch):
    used = []
    for module, name in ((task_batches, "_at_once"), (reptile, "vmap")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, real=real: used.append(args) or real(*args))
    model, batch = (Buffered().double(), SINES.batch(0, 2)) if kind == "buffered" else model_and_tasks(kind, 2)
    learner = LEARNERS[method](model)
    assert learner.vmap is None
    learner.vmap = choice
    if kind == "buffered" and choice:
        with pytest.raises(
            RuntimeError, match="doesn't match the broadcast shape"
        ):  # its buffer would have to differ from task to task
            learner.training_step(batch)
    else:
        learner.training_step(batch).backward()
        assert bool(used) == ((kind == "mlp") if choice is None else choice)


@pytest.mark.parametrize("method", ["maml", "meta_sgd", "anil", "reptile"])
def test_the_loop_keeps_the_graph_of_one_task_only(method):
    """Trap G6. Bytes alive at the worst moment: hardly more for eight tasks than for one; by vmap several times more."""
    model, _ = model_and_tasks("mlp", 1)
    sampler, most = SinusoidSampler(200, 200, dtype=torch.float64), {}
    for at_once in (False, True):
        for tasks in (1, 8):
            learner, batch = LEARNERS[method](model), sampler.batch(0, tasks)
            learner.vmap = at_once
            learner.training_step(batch)  # what torch.func loads and keeps at first
            with LiveBytes() as memory:
                learner.training_step(batch)
            most[at_once, tasks] = memory.peak - sum(t.nbytes for t in tensors_of(batch))  # without the data
    assert most[False, 8] < 1.1 * most[False, 1]
    assert most[True, 8] > 4 * most[True, 1]
