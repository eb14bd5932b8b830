"""Fine-tuning of the whole encoder on the support of each task."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.transfer import (
    FineTuneAll,
)
from fsl_course.nets import conv4
from tests.conftest import permute_support, relabel, settled, toy_images


@pytest.fixture
def encoder(precise) -> torch.nn.Module:
    torch.manual_seed(0)
    return settled(conv4(8).double(), precise)


def test_fine_tuning_equals_a_copy_trained_with_adam(encoder, precise):
    copy, head = deepcopy(encoder).eval(), torch.nn.Linear(8, 5).double()
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimiser = torch.optim.Adam([*copy.parameters(), *head.parameters()], lr=0.01)
    learner = FineTuneAll(encoder, steps=6, lr=0.01).eval()
    seen = 0
    for params in learner.adapt(precise.support_x, precise.support_y, 5):
        assert torch.allclose(learner.predict(params, precise.query_x), head(copy(precise.query_x)), atol=1e-10)
        seen += 1
        optimiser.zero_grad()
        F.cross_entropy(head(copy(precise.support_x)), precise.support_y).backward()
        optimiser.step()
    assert seen == 7  # before the first step, and after each of six
    found = learner(precise)
    assert torch.equal(found, learner.predict(params, precise.query_x))
    assert not torch.allclose(params["encoder.layers.0.weight"], encoder.layers[0].weight, atol=1e-3)


def test_an_encoder_with_a_part_called_head_is_fine_tuned_too(precise):
    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(784, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.flatten(1))

    torch.manual_seed(0)
    encoder = Named().double()
    *_, params = FineTuneAll(encoder, steps=3, lr=0.01).adapt(precise.support_x, precise.support_y, 5)
    assert params["head.weight"].shape == (5, 6)
    assert not torch.allclose(params["encoder.head.weight"], encoder.head.weight, atol=1e-3)


def test_fine_tuning_gives_no_slot_a_head_start(encoder, precise):
    assert torch.equal(FineTuneAll(encoder, steps=0).eval()(precise), torch.zeros(15, 5, dtype=torch.float64))


def test_fine_tuning_keeps_the_laws(encoder, precise):
    """The head starts at zero, so that relabelling permutes the logits though the head is trained."""
    learner = FineTuneAll(encoder, steps=5, lr=0.01).eval()
    logits, new_slot = learner(precise), torch.tensor([3, 0, 4, 1, 2])
    assert logits.std() > 0.05
    assert torch.allclose(learner(relabel(precise, new_slot))[:, new_slot], logits, atol=1e-9)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(precise, order)), logits, atol=1e-9)
    changed = precise.query_x.clone()
    changed[1:] = changed[1:].flip(0) * 0.3
    other = Episode(precise.support_x, precise.support_y, changed, precise.query_y, precise.classes)
    assert torch.allclose(learner(other)[0], logits[0], atol=1e-12)


def test_fine_tuning_learns_its_support_without_gradients_around_it(encoder, precise):
    learner = FineTuneAll(encoder, steps=40, lr=0.03).eval()
    own = Episode(precise.support_x, precise.support_y, precise.support_x, precise.support_y, precise.classes)
    with torch.no_grad():
        assert (learner(own).argmax(1) == own.query_y).all()
    with pytest.raises(ValueError, match="cover the slots 0..4"):
        learner(permute_support(precise, torch.arange(4)))


@pytest.mark.parametrize("frozen", [False, True])
def test_fine_tuning_twice_gives_the_same_and_changes_nothing(toys, frozen):
    """Trap C5, through evaluate and by a call of its own; also with an encoder whose weights take no gradient."""
    torch.manual_seed(0)
    learner = FineTuneAll(conv4(8).requires_grad_(not frozen), steps=3, lr=0.01)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    sampler = EpisodeSampler(toys, 4, 1, 3)
    first, second = (evaluate(learner, sampler, 5).per_episode for _ in range(2))
    assert torch.equal(first, second)
    assert learner.training
    learner.eval()
    assert torch.equal(learner(sampler[0]), learner(sampler[0]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())
    assert all(p.grad is None and p.requires_grad != frozen for p in learner.encoder.parameters())


def test_fine_tuning_in_training_mode_leaves_the_encoder_as_it_was(toys):
    """A fresh module is in training mode, in which batch norm moves running statistics: those of the copy only."""
    torch.manual_seed(0)
    learner = FineTuneAll(conv4(8), steps=3, lr=0.01)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    episode = EpisodeSampler(toys, 4, 1, 3)[0]
    assert torch.equal(learner(episode), learner(episode))
    assert [name for name, tensor in learner.state_dict().items() if not torch.equal(tensor, before[name])] == []


def test_fine_tuning_beats_its_start():
    """A fresh network, trained on each task's support alone. Without a step it names the same slot for all: 0.2."""
    sampler = EpisodeSampler(toy_images(20, 8, noise=60), 5, 3, 3)
    torch.manual_seed(0)
    encoder = conv4(16, "group")
    untrained, trained = (evaluate(FineTuneAll(encoder, steps, 5e-3), sampler, 6).mean for steps in (0, 30))
    assert untrained == pytest.approx(0.2)
    assert trained > 0.7
