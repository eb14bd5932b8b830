"""MAML of any module: buffers, tied and frozen weights, dropout, norms."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fsl_course.episodes import Episode, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.inner_loop.functional import call, support_loss, trainable
from fsl_course.inner_loop.task_batches import prefers_vmap, tensors_of
from fsl_course.methods.anil import ANIL
from fsl_course.methods.maml import MAML, adapt, meta_loss
from fsl_course.methods.meta_lstm import MetaLSTM
from fsl_course.methods.meta_sgd import MetaSGD
from fsl_course.methods.reptile import Reptile
from fsl_course.training.loop import fit
from tests.fsl_course.methods.adapting import (
    central_differences,
    linear_task,
    small_conv,
    small_episodes,
    smooth_net,
)

SINES = SinusoidSampler(6, 4, dtype=torch.float64)


class Counts(nn.Module):
    """A buffer of its own that moves with every call, in place and by assignment, and takes part in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(1, 1)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x.detach().mean(0)
        return self.out(x) + self.calls


class Tied(nn.Module):
    """x -> W^T tanh(W x), one matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())[:, :1]


def test_buffers_of_a_model_do_not_move():
    model = Counts().double()
    learner = MAML(model, 0.1, 3, vmap=False)
    for module in (learner.train(), learner.eval()):
        module.training_step(SINES.batch(0, 2)).backward()
        output = module(SINES[0])
        assert model.calls.item() == 0
        assert model.last.item() == 0
        at_rest = {"calls": torch.zeros(()), "last": torch.zeros(1)}  # functional_call moves what it is given
        plain = functional_call(model, {**module.adapted(SINES[0]), **at_rest}, (SINES[0].query_x,))
        assert torch.equal(output, plain)  # every call starts from the model's own buffers


def test_tied_weights_adapt_together_and_stay_tied():
    torch.manual_seed(0)
    model, task = Tied().double(), linear_task(3)
    assert list(trainable(model)) == ["first.weight"]
    adapted = adapt(support_loss(model, task), trainable(model), lr=0.1, steps=2)
    matrix = adapted["first.weight"]
    by_hand = ((task.query_x @ matrix.T).tanh() @ matrix.T)[:, :1]
    assert torch.allclose(call(model, adapted, task.query_x), by_hand, atol=1e-14)
    params = trainable(model)

    def objective(theta: dict[str, Tensor]) -> Tensor:
        return meta_loss(model, theta, task, lr=0.1, steps=2, loss_fn=F.mse_loss)

    gradient = torch.autograd.grad(objective(params), list(params.values()))[0]
    assert torch.allclose(gradient, central_differences(objective, params)["first.weight"], rtol=0, atol=1e-8)
    learner = MAML(model, 0.1, 2)
    learner.training_step(Episode(*(t[None] for t in tensors_of(task)))).backward()
    assert torch.allclose(model.first.weight.grad, gradient, rtol=0, atol=1e-12)
    assert model.first.weight is model.second.weight


@pytest.mark.parametrize("at_once", [False, True])
def test_frozen_parameters_are_neither_adapted_nor_learned(at_once):
    model, batch = smooth_net(), SINES.batch(0, 2)
    model[0].weight.requires_grad_(False)
    assert list(trainable(model)) == ["0.bias", "2.weight", "2.bias"]
    learner = MAML(model, 0.1, 2, vmap=at_once)
    assert set(learner.adapted(batch[0])) == {"0.bias", "2.weight", "2.bias"}
    learner.training_step(batch).backward()
    assert model[0].weight.grad is None
    assert all(p.grad.abs().max() > 0 for p in trainable(model).values())


@pytest.mark.parametrize("dropout", [nn.Dropout(0.3), nn.Dropout1d(0.3), nn.AlphaDropout(0.3)])
def test_active_dropout_is_refused_and_sleeping_dropout_is_not(dropout):
    model = nn.Sequential(smooth_net(1, 4), dropout, nn.Linear(4, 1).double())
    learner = MAML(model, 0.1, 1)
    message = (
        rf"{type(dropout).__name__}\(p=0.3\) makes the inner loss a game of chance.*set its p to 0, or put it into eval"
    )
    with pytest.raises(ValueError, match=message):
        learner(SINES[0])
    with pytest.raises(ValueError, match=message):
        learner.training_step(SINES.batch(0, 2))
    assert torch.equal(learner.eval()(SINES[0]), learner(SINES[0]))
    dropout.p = 0.0
    assert torch.equal(learner.train()(SINES[0]), learner.eval()(SINES[0]))
    dropout.p = 0.3
    learner.train()
    dropout.eval()
    assert learner(SINES[0]).shape == (4, 1)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_conv4_of_every_norm(norm):
    """Inner steps lower the support loss; the head and the first convolution both get a meta-gradient (trap G2)."""
    learner, episode = MAML(small_conv(norm), 0.05, 3), small_episodes(1)[0]
    start, after = (
        support_loss(learner.model, episode)(p) for p in (trainable(learner.model), learner.adapted(episode))
    )
    assert after < start
    assert learner(episode).shape == (6, 3)
    learner.loss(episode).backward()
    for parameter in (learner.model.head.weight, learner.model.encoder.layers[0].weight):
        assert parameter.grad.abs().max() > 1e-6


@pytest.mark.parametrize("make", [MAML, ANIL, MetaSGD, Reptile, MetaLSTM])
def test_training_with_a_layer_that_occurs_twice_moves_it(make, tmp_path):
    torch.manual_seed(0)
    layer = nn.Linear(5, 5)
    model = nn.Sequential(nn.Linear(1, 5), layer, nn.Tanh(), layer, nn.Linear(5, 1)).double()
    learner = make(model, lr=0.1, steps=1).double()
    before = layer.weight.detach().clone()
    fit(learner, SINES, steps=3, tasks=2, progress=False, checkpoint=tmp_path / "run.safetensors")
    assert layer.weight.is_leaf
    assert not torch.equal(layer.weight, before)
    assert evaluate(learner, SINES, 3, metric="mse").mean > 0


class Reads(nn.Module):
    """An LSTM over the rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(16, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.squeeze(1))[0][:, -1])


def test_an_lstm_takes_one_task_after_the_other():
    """PyTorch has no batching rule for it."""
    torch.manual_seed(0)
    model, episodes = Reads().double(), small_episodes(2)
    assert not prefers_vmap(model, torch.device("cpu"))
    losses = [MAML(model, 0.1, 1, vmap=vmap).training_step(episodes) for vmap in (None, False)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("make", [MAML, ANIL, MetaSGD, Reptile, MetaLSTM])
@pytest.mark.parametrize("steps", [-1, 1.5, "2", None])
def test_inner_steps_are_whole_numbers(make, steps):
    with pytest.raises(ValueError, match=f"steps must be a whole number of at least 0; got {steps!r}"):
        make(smooth_net(), lr=0.1, steps=steps)
    if make is not MetaLSTM and steps is not None:
        with pytest.raises(ValueError, match="test_steps must be a whole number of at least 0"):
            make(smooth_net(), lr=0.1, steps=1, test_steps=steps)
