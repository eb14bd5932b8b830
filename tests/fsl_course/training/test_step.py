"""What surrounds a step: convolutions in bfloat16, and losses or gradients that are not finite."""

import pytest
import torch

from fsl_course.episodes import Episode
from fsl_course.methods.maml import MAML
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.relation import RelationNetwork
from fsl_course.nets import classifier, conv4
from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import CheckpointError, load_file
from tests.fsl_course.training.toys import Recorder, learner, same, samplers, weights


class Explodes(Recorder):
    def training_step(self, episodes):
        return self.weight.sum() * float("nan")


def test_a_loss_that_is_not_a_number_stops_with_advice():
    train, _ = samplers()
    with pytest.raises(FloatingPointError, match="nan at step 0: try a smaller lr"):
        fit(Explodes(), train, steps=2, progress=False)


class Overflows(PrototypicalNetwork):
    """Its third task holds infinite pictures."""

    def loss(self, episode):
        self.calls = getattr(self, "calls", 0) + 1
        return super().loss(episode.to(torch.float32) if self.calls < 3 else Overflows.infinite(episode))

    @staticmethod
    def infinite(episode):
        return Episode(episode.support_x / 0, episode.support_y, episode.query_x, episode.query_y, episode.classes)


def test_after_a_loss_that_is_not_a_number_the_learner_is_as_before_that_step():
    """The weights, and the running statistics of batch norm too: one infinite picture would spoil them for ever."""
    train, _ = samplers()
    torch.manual_seed(0)
    module, twin = Overflows(conv4(8)), learner()
    with pytest.raises(FloatingPointError, match="the loss became nan at step 2"):
        fit(module, train, steps=5, progress=False)
    fit(twin, train, steps=2, progress=False)
    assert same(weights(module), weights(twin))
    assert not module.training


class BareRoot(Recorder):
    """A finite loss whose gradient is 0 / 0."""

    def training_step(self, episodes):
        return self.weight.square().sum().sqrt()


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_a_number_stops_before_it_reaches_the_weights(clip):
    module = BareRoot()
    with pytest.raises(FloatingPointError, match="the norm of the gradient became nan at step 0"):
        fit(module, samplers()[0], steps=2, clip=clip, progress=False)
    assert module.weight.tolist() == [0.0]


class Watched(PrototypicalNetwork):
    """Notes the dtypes of its first convolution and of what its encoder returns; fails in the step that it is told to."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(conv4(8))
        self.dtypes: list[tuple[torch.dtype, torch.dtype]] = []
        self.fail_at: int | None = None
        self.encoder.layers[0].register_forward_hook(lambda module, args, output: self.inner.append(output.dtype))
        self.inner: list[torch.dtype] = []

    def embed(self, x):
        z = super().embed(x)
        self.dtypes.append((self.inner.pop(), z.dtype))
        if self.fail_at == len(self.dtypes):
            raise RuntimeError("in the middle of a step")
        return z


def test_in_bfloat16_convolutions_are_lowered_and_nothing_else():
    module = Watched()
    fit(module, samplers()[0], steps=3, bfloat16=True, progress=False)
    assert set(module.dtypes) == {(torch.bfloat16, torch.float32)}
    assert {p.dtype for p in module.parameters()} == {p.grad.dtype for p in module.parameters()} == {torch.float32}
    assert {b.dtype for b in module.buffers()} == {torch.float32, torch.int64}
    plain = Watched()
    fit(plain, samplers()[0], steps=1, progress=False)
    assert set(plain.dtypes) == {(torch.float32, torch.float32)}


def test_after_an_error_in_bfloat16_the_encoder_is_as_before():
    module = Watched()
    module.fail_at = 2
    with pytest.raises(RuntimeError, match="in the middle of a step"):
        fit(module, samplers()[0], steps=3, bfloat16=True, progress=False)
    assert "forward" not in vars(module.encoder)
    module.dtypes.clear()
    module.embed(torch.rand(2, 1, 28, 28))
    assert module.dtypes == [(torch.float32, torch.float32)]


@pytest.mark.parametrize("make", [lambda: PrototypicalNetwork(conv4(8)), lambda: RelationNetwork(8)])
def test_training_in_bfloat16_stays_close_to_float32(make):
    train, _ = samplers()
    losses, gradients = [], []
    for lowered in (False, True):
        torch.manual_seed(0)
        module = make()
        loss = fit(module, train, steps=1, bfloat16=lowered, progress=False).loss
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
        losses.append(loss + fit(module, train, steps=30, lr=0.005, bfloat16=lowered, progress=False).loss)
    # the same weights still: bfloat16 has 8 bits, 0.4 % a number; a gradient adds them up over four layers
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.01)
    assert 1e-6 < (gradients[1] - gradients[0]).norm() / gradients[0].norm() < 0.3
    for run in losses:
        assert sum(run[-5:]) < 0.7 * sum(run[:5])


def test_methods_that_adapt_weights_refuse_bfloat16(tmp_path):
    path = tmp_path / "run.safetensors"
    module = MAML(classifier(conv4(8), 5), 0.1, 1)
    with pytest.raises(ValueError, match="bfloat16 is for methods with an encoder; MAML adapts its weights"):
        fit(module, samplers()[0], steps=1, bfloat16=True, checkpoint=path, progress=False)
    assert not path.exists()


def test_a_run_in_bfloat16_goes_on_bit_for_bit_and_only_in_bfloat16(tmp_path):
    train, _ = samplers()
    path, whole, resumed = tmp_path / "run.safetensors", learner(), learner(seed=7)
    fit(learner(), train, steps=4, bfloat16=True, checkpoint=path, progress=False)
    with pytest.raises(CheckpointError, match="other settings \\(bfloat16: True there, None now\\)"):
        fit(resumed, train, steps=8, checkpoint=path, progress=False)
    fit(resumed, train, steps=8, bfloat16=True, checkpoint=path, progress=False)
    fit(whole, train, steps=8, bfloat16=True, progress=False)
    assert same(weights(whole), weights(resumed))
    plain = tmp_path / "plain.safetensors"
    fit(learner(), train, steps=1, checkpoint=plain, progress=False)
    assert "bfloat16" not in load_file(plain)[1]["settings"]  # states from before the option stay good
    with pytest.raises(CheckpointError, match="bfloat16: None there, True now"):
        fit(learner(), train, steps=2, bfloat16=True, checkpoint=plain, progress=False)
