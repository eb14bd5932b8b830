"""Warps, drawers, the VAE's two terms, deltas and calibrated Gaussians, against closed forms and second implementations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Independent, Normal, kl_divergence

from fsl_course.methods.hallucination import (
    DeltaEncoder,
    Drawer,
    DrawingVAE,
    calibrated,
    class_statistics,
    imagine,
    kl_to_prior,
    random_flow,
    tukey,
    warp,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bars(count: int, generator: torch.Generator) -> torch.Tensor:
    """Upright bars of random place and height, [count, 1, 28, 28]."""
    pictures = torch.zeros(count, 1, 28, 28)
    for picture in pictures:
        left, top = torch.randint(6, 20, (2,), generator=generator).tolist()
        picture[0, top - 4 : top + 4, left : left + 3] = 1
    return pictures


def squares(count: int, generator: torch.Generator) -> torch.Tensor:
    """Squares of one size in random places, [count, 1, 28, 28]."""
    pictures = torch.zeros(count, 1, 28, 28)
    for picture in pictures:
        left, top = torch.randint(6, 13, (2,), generator=generator).tolist()
        picture[0, top : top + 9, left : left + 9] = 1
    return pictures


# --- warps ---


def test_no_flow_changes_nothing_and_a_shift_shifts():
    pictures = bars(3, seeded())
    assert torch.allclose(warp(pictures, torch.zeros(3, 2, 7, 7)), pictures, atol=1e-5)
    right = torch.zeros(3, 2, 7, 7)
    right[:, 0] = 2 * 2 / 28  # reads two pixels further right, so that the ink moves two to the left
    assert torch.allclose(warp(pictures, right)[..., :-2], pictures[..., 2:], atol=1e-4)


def test_random_flows_have_the_spreads_that_were_asked_for():
    flow = random_flow(4000, seeded(), affine=0.0, elastic=0.1)
    assert flow.shape == (4000, 2, 7, 7)
    assert float(flow.std()) == pytest.approx(0.1, rel=0.02)
    middle = random_flow(4000, seeded(), affine=0.2, elastic=0.0)[:, :, 3, 3]  # at the middle only the shift is left
    assert float(middle.std()) == pytest.approx(0.2, rel=0.05)
    assert torch.equal(random_flow(5, seeded(1)), random_flow(5, seeded(1)))


def test_gradients_reach_the_flow():
    pictures = torch.rand(2, 1, 9, 9, generator=seeded(), dtype=torch.float64)
    pictures = F.avg_pool2d(pictures, 3, 1, 1)
    flow = 0.03 * torch.randn(2, 2, 4, 4, generator=seeded(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: warp(pictures, f), flow.requires_grad_())


# --- the VAE ---


def test_kl_is_that_of_torch_and_of_many_draws():
    mean, log_variance = torch.randn(2, 4, 3, generator=seeded(), dtype=torch.float64)
    found = kl_to_prior(mean, log_variance)
    q = Independent(Normal(mean, (log_variance / 2).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    assert torch.allclose(found, kl_divergence(q, prior))
    torch.manual_seed(0)
    z = q.sample((200_000,))
    assert torch.allclose(found, (q.log_prob(z) - prior.log_prob(z)).mean(0), rtol=0.02)
    assert float(kl_to_prior(torch.zeros(1, 5), torch.zeros(1, 5))) == 0
    assert torch.autograd.gradcheck(kl_to_prior, (mean.requires_grad_(), log_variance.requires_grad_()))


def test_an_untrained_drawer_copies_its_reference():
    reference = bars(2, seeded())
    drawn = Drawer().eval().draw(reference, 3, seeded())
    assert drawn.shape == (2, 3, 1, 28, 28)
    assert torch.allclose(drawn, reference[:, None].expand_as(drawn), atol=1e-5)


def test_terms_are_the_negative_log_likelihoods_of_coins_and_the_kl():
    torch.manual_seed(0)
    vae = DrawingVAE(latent=4, width=4).double().eval()
    torch.nn.init.normal_(vae.drawer.bend[2].weight, std=0.05)
    x, reference = bars(2, seeded()).double(), bars(2, seeded(1)).double()
    noise = torch.randn(2, 4, generator=seeded(2), dtype=torch.float64)
    coins, kl = vae.terms(x, reference, noise)
    mean, log_variance = vae.posterior(x, reference)
    share = vae.brush(vae.drawer(reference, mean + log_variance.exp().sqrt() * noise)).sigmoid()
    assert torch.allclose(coins, -(x * share.log() + (1 - x) * (1 - share).log()).sum((1, 2, 3)))
    assert torch.equal(kl, kl_to_prior(mean, log_variance))


def test_a_vae_learns_to_move_squares():
    """Pairs are one square in two places: what is to be learned is where the other one may be."""
    torch.manual_seed(0)
    vae, generator = DrawingVAE(latent=2, width=4), seeded()
    optimiser = torch.optim.Adam(vae.parameters(), 1e-2)
    bounds = []
    for _ in range(120):
        x, reference = squares(16, generator), squares(16, generator)
        coins, kl = vae.terms(x, reference, torch.randn(16, 2, generator=generator))
        optimiser.zero_grad()
        (coins + kl).mean().backward()
        optimiser.step()
        bounds.append(float((coins + kl).mean().detach()))
    assert sum(bounds[-10:]) < 0.75 * sum(bounds[15:25])
    spread = vae.eval().drawer.draw(squares(4, generator), 8, generator).std(1)
    assert float(spread.detach().amax()) > 0.1  # it no longer copies


# --- deltas ---


def test_deltas_learn_a_shift_that_every_class_shares():
    """All classes are lines in one direction: a delta found in one class must move a stranger along that direction."""
    torch.manual_seed(0)
    generator, direction = seeded(), torch.tensor([1.0, 0.0, 0.0, 0.0])
    net = DeltaEncoder(4, latent=1, hidden=32)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(600):
        centre = torch.randn(64, 4, generator=generator)
        x, reference = (centre + 2 * torch.randn(64, 1, generator=generator) * direction for _ in range(2))
        loss = (net(reference, net.delta(x, reference)) - x).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    base = torch.randn(50, 4, generator=generator)
    z = net.delta(base + 1.5 * direction, base)
    stranger = torch.randn(50, 4, generator=generator)
    moved = (net(stranger, z) - stranger).mean(0)
    assert float(moved[0]) == pytest.approx(1.5, abs=0.3)
    assert float(moved[1:].abs().max()) < 0.3


# --- calibration ---


def some_base(classes: int = 5, pictures: int = 7, features: int = 3) -> torch.Tensor:
    rows = torch.randn(classes, pictures, features, generator=seeded(), dtype=torch.float64)
    return rows + 3 * torch.randn(classes, 1, features, generator=seeded(1), dtype=torch.float64)


def test_calibration_is_numpys():
    base = some_base()
    x = torch.randn(4, 3, generator=seeded(2), dtype=torch.float64)
    mean, covariance = calibrated(x, *class_statistics(base), nearest=2, alpha=0.21)
    for row, m, c in zip(x.numpy(), mean, covariance, strict=True):
        gaps = [np.linalg.norm(row - rows.mean(0)) for rows in base.numpy()]
        a, b = (base.numpy()[k] for k in np.argsort(gaps)[:2])
        assert np.allclose(m, (a.mean(0) + b.mean(0) + row) / 3)
        assert np.allclose(c, (np.cov(a.T) + np.cov(b.T)) / 2 + 0.21 * np.eye(3))


def test_alpha_on_the_diagonal_makes_a_flat_covariance_definite():
    """Three pictures in six dimensions: rank 2. alpha on every entry, as in public code, adds one rank only."""
    mean, covariance = class_statistics(some_base(4, 3, 6))
    x = torch.zeros(1, 6, dtype=torch.float64)
    _, found = calibrated(x, mean, covariance, nearest=1, alpha=0.1)
    assert float(torch.linalg.eigvalsh(found).min()) == pytest.approx(0.1)
    everywhere = calibrated(x, mean, covariance, nearest=1, alpha=0.0)[1] + 0.1
    assert float(torch.linalg.eigvalsh(everywhere)[0, 2]) == pytest.approx(0, abs=1e-12)
    with pytest.raises(torch.linalg.LinAlgError):
        imagine(mean[:1], everywhere - 1e-9 * torch.eye(6), 2, seeded())


def test_imagined_examples_have_the_mean_and_the_covariance():
    mean, covariance = class_statistics(some_base(2, 9, 3))
    drawn = imagine(mean, covariance, 100_000, seeded())
    assert drawn.shape == (2, 100_000, 3)
    assert torch.allclose(drawn.mean(1), mean, atol=0.03)
    assert torch.allclose(class_statistics(drawn)[1], covariance, atol=0.05)


def test_tukey_is_a_power_and_refuses_negative_features():
    assert torch.equal(tukey(torch.tensor([0.0, 4.0])), torch.tensor([0.0, 2.0]))
    assert tukey(torch.zeros(0, 3)).shape == (0, 3)
    with pytest.raises(ValueError, match="not negative"):
        tukey(torch.tensor([1.0, -1e-3]))


def test_rows_are_calibrated_one_by_one():
    """The support's order, and which other pictures it holds, change nothing."""
    base = class_statistics(some_base())
    x = torch.randn(4, 3, generator=seeded(3), dtype=torch.float64)
    together = calibrated(x, *base)
    for k in range(4):
        for whole, alone in zip(together, calibrated(x[k : k + 1], *base), strict=True):
            assert torch.allclose(whole[k], alone[0])
