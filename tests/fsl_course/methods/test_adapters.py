"""Adapters: by hand and by a second implementation, at rest they change nothing, statistics of another domain, and learning."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.adapters import Adapters, adapted, fresh, with_statistics
from fsl_course.nets import conv4
from tests.conftest import settled, toy_images
from tests.fsl_course.methods import laws

KINDS = ("film", "residual")


@pytest.fixture
def episode() -> Episode:
    return EpisodeSampler(toy_images(), 5, 2, 3, dtype=torch.float64)[0]


@pytest.fixture
def encoder(episode: Episode) -> nn.Module:
    torch.manual_seed(0)
    return settled(conv4(8).double(), episode)


def drawn(adapters: dict[str, Tensor], size: float = 0.3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {n: size * torch.randn(a.shape, generator=generator, dtype=a.dtype) for n, a in adapters.items()}


def test_there_is_one_adapter_for_every_layer_and_it_is_small(encoder):
    film, residual = fresh(encoder, "film"), fresh(encoder, "residual")
    assert [tuple(a.shape) for a in film.values()] == [(8,)] * 8
    assert [tuple(a.shape) for a in residual.values()] == [(8, 1, 1, 1), *[(8, 8, 1, 1)] * 3]
    weights = sum(p.numel() for p in encoder.parameters())
    assert sum(a.numel() for a in film.values()) < sum(a.numel() for a in residual.values()) < weights / 6


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_at_its_start_changes_nothing_bit_for_bit(encoder, episode, kind):
    plain = encoder(episode.query_x)
    with adapted(encoder, fresh(encoder, kind)):
        assert torch.equal(encoder(episode.query_x), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_block_the_encoder_is_as_before(encoder, episode, kind):
    before, plain = {n: t.clone() for n, t in encoder.state_dict().items()}, encoder(episode.query_x)
    with adapted(encoder, drawn(fresh(encoder, kind))):
        assert not torch.allclose(encoder(episode.query_x), plain)
    with pytest.raises(RuntimeError, match="size"), adapted(encoder, drawn(fresh(conv4(4).double(), kind))):
        encoder(episode.query_x)
    assert torch.equal(encoder(episode.query_x), plain)
    assert all(torch.equal(t, before[n]) for n, t in encoder.state_dict().items())


def test_film_behind_a_batch_norm_is_another_batch_norm(encoder, episode):
    """(1 + s) * (gamma * u + beta) + t = gamma (1 + s) * u + beta (1 + s) + t, layer by layer."""
    adapters = drawn(fresh(encoder, "film"))
    with adapted(encoder, adapters):
        found = encoder(episode.query_x)
    with torch.no_grad():
        for name, layer in encoder.named_modules():
            if isinstance(layer, nn.BatchNorm2d):
                scale, shift = adapters[f"{name}.scale"], adapters[f"{name}.shift"]
                layer.weight.mul_(1 + scale)
                layer.bias.mul_(1 + scale).add_(shift)
    assert torch.allclose(found, encoder(episode.query_x), atol=1e-10)


def test_a_residual_adapter_is_a_change_of_the_middle_of_the_filters(encoder, episode):
    """A 1x1 convolution beside a 3x3 one adds to the middle of its filters."""
    adapters = drawn(fresh(encoder, "residual"))
    with adapted(encoder, adapters):
        found = encoder(episode.query_x)
    with torch.no_grad():
        for name, layer in encoder.named_modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight[:, :, 1, 1] += adapters[f"{name}.beside"][:, :, 0, 0]
    assert torch.allclose(found, encoder(episode.query_x), atol=1e-10)


def test_residual_adapters_follow_the_stride(episode):
    torch.manual_seed(0)
    encoder = conv4(4, halving="stride").double().eval()
    with adapted(encoder, drawn(fresh(encoder, "residual"))):
        assert encoder(episode.query_x).shape == (15, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow_into_the_adapters(kind):
    torch.manual_seed(0)
    encoder = conv4(2).double().eval()
    x = torch.rand(3, 1, 16, 16, dtype=torch.float64)
    names = list(fresh(encoder, kind))

    def through(*adapters: Tensor) -> Tensor:
        with adapted(encoder, dict(zip(names, adapters, strict=True))):
            return encoder(x)

    assert torch.autograd.gradcheck(through, [a.requires_grad_() for a in drawn(fresh(encoder, kind), 0.1).values()])


def test_one_step_by_hand(encoder, episode):
    """The first step of Adam moves every number by the rate, against its gradient."""
    learner = Adapters(encoder, "film", lr=0.01, steps=1).eval()
    *_, adapters = learner.adapt(episode.support_x, episode.support_y, 5)
    start = {n: a.requires_grad_() for n, a in fresh(encoder, "film").items()}
    with adapted(encoder, start):
        z = encoder(episode.support_x)
    centres = torch.stack([z[episode.support_y == k].mean(0) for k in range(5)])
    cosine = F.cosine_similarity(z[:, None], centres[None], dim=-1)
    gradients = torch.autograd.grad(F.cross_entropy(10 * cosine, episode.support_y), list(start.values()))
    for found, gradient in zip(adapters.values(), gradients, strict=True):
        moved = gradient.abs() > 1e-6
        assert torch.allclose(found[moved], -0.01 * gradient.sign()[moved], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_laws(encoder, episode, kind):
    learner = Adapters(encoder, kind, steps=3).eval()
    laws.judges_each_query_alone(learner, episode)
    laws.order_and_slots_do_not_matter(learner, episode)
    laws.evaluating_twice_changes_nothing(Adapters(conv4(4), kind, steps=2), toy_images(), 3)


def test_the_weights_of_the_encoder_get_no_gradient(encoder, episode):
    Adapters(encoder, steps=2).eval()(episode)
    assert all(p.grad is None for p in encoder.parameters())


def test_adapting_in_training_mode_is_refused(episode):
    with pytest.raises(ValueError, match="running statistics"):
        Adapters(conv4(4).double())(episode)


@pytest.mark.parametrize(("net", "kind"), [(nn.Linear(3, 3), "film"), (conv4(2), "films"), (conv4(2, "none"), "film")])
def test_what_cannot_be_adapted_is_refused(net, kind):
    with pytest.raises(ValueError, match='"film" or "residual"'):
        Adapters(net, kind)


def test_statistics_are_those_of_a_pass_in_training_mode(encoder, episode):
    before = {n: t.clone() for n, t in encoder.state_dict().items()}
    new = with_statistics(encoder, episode.support_x)
    first = F.conv2d(episode.support_x, encoder.layers[0].weight, padding=1)
    assert torch.allclose(new.layers[1].running_mean, first.mean((0, 2, 3)), atol=1e-10)
    assert torch.allclose(new.layers[1].running_var, first.var((0, 2, 3)), atol=1e-10)
    # on its own pictures it does what training mode does, but for the n/(n-1) of a variance
    assert torch.allclose(new(episode.support_x), encoder.train()(episode.support_x), atol=0.05)
    encoder.eval().load_state_dict(before)
    half = with_statistics(encoder, episode.support_x, 0.5)
    middle = (encoder.layers[1].running_mean + new.layers[1].running_mean) / 2
    assert torch.allclose(half.layers[1].running_mean, middle)
    assert torch.equal(with_statistics(encoder, episode.support_x, 0.0)(episode.query_x), encoder(episode.query_x))
    assert all(torch.equal(t, before[n]) for n, t in encoder.state_dict().items())
    assert not new.training


def test_statistics_undo_a_change_of_contrast(encoder, episode):
    """A brighter, fainter domain: x -> 0.3 x + 0.5 inside a picture is undone at the first batch norm, but for its border."""
    task = EpisodeSampler(toy_images(12, 8, noise=200), 5, 2, 3, dtype=torch.float64)[0]
    faint = 0.3 * task.query_x
    new = with_statistics(encoder, faint)
    old = with_statistics(encoder, task.query_x)
    assert torch.allclose(new(faint), old(task.query_x), atol=0.05)
    assert not torch.allclose(encoder(faint), encoder(task.query_x), atol=0.05)


def test_fitting_lowers_the_loss_and_helps_an_encoder_that_learned_nothing_of_it():
    torch.manual_seed(0)
    encoder = settled(conv4(8), EpisodeSampler(toy_images(), 5, 2, 3)[0])
    sampler = EpisodeSampler(toy_images(noise=200, seed=5), 5, 5, 3, seed=2)
    frozen = evaluate(Adapters(encoder, "residual", 0.01, 0), sampler, 20)
    fitted = evaluate(Adapters(encoder, "residual", 0.01, 15), sampler, 20)
    assert fitted.mean > frozen.mean + 0.02
