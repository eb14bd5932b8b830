"""Classes that keep coming: running means, growing heads, Fisher information, the penalty of EWC, and the bytes of each."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.methods.continual import FrozenPrototypes, GrowingNetwork, diagonal_fisher, ewc_penalty
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from tests.conftest import toy_images

SESSIONS = ((0, 6), (6, 9), (9, 12))


def encoder(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return conv4(width).eval()


def session(number: int, first: int = 0, last: int = 5) -> tuple[Tensor, Tensor]:
    """Drawings first .. last-1 of the toy classes of one session."""
    low, high = SESSIONS[number]
    images = toy_images().images[low:high, first:last].float() / 255
    return images.flatten(0, 1), torch.arange(low, high).repeat_interleave(last - first)


class Linear(nn.Module):
    """A linear softmax, for which the Fisher information has a closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.weight.mT


# --- frozen prototypes ---


def test_frozen_prototypes_are_a_prototypical_network_over_all_classes():
    net, parts = FrozenPrototypes(encoder()), [session(t) for t in range(3)]
    for part in parts:
        net.learn(*part)
    support, labels = (torch.cat(rows) for rows in zip(*parts, strict=True))
    query = torch.cat([session(t, 5, 8)[0] for t in range(3)])
    rival = PrototypicalNetwork(net.encoder)
    with torch.no_grad():
        wanted = rival.score(rival.embed(support), labels, rival.embed(query), 12)
        assert torch.allclose(net(query), wanted, atol=1e-4)
    assert net.counts.tolist() == [5] * 12
    assert net.extra_bytes() == 12 * 4 * 4


def test_the_order_of_sessions_changes_no_bit_and_that_of_pictures_only_rounding():
    forth, back, mixed = (FrozenPrototypes(encoder()) for _ in range(3))
    for t in (0, 1, 2):
        forth.learn(*session(t))
    for t in (2, 0, 1):
        back.learn(*session(t))
    for t in (1, 2, 0):
        pictures, labels = session(t)
        for rows in torch.randperm(len(labels), generator=torch.Generator().manual_seed(t)).chunk(4):
            mixed.learn(pictures[rows], labels[rows])
    assert torch.equal(forth.means, back.means)
    assert torch.equal(forth.counts, mixed.counts)
    assert torch.allclose(forth.means, mixed.means, atol=1e-6)


def test_a_new_class_leaves_the_old_means_bit_for_bit():
    net = FrozenPrototypes(encoder())
    net.learn(*session(0))
    before = net.means.clone()
    net.learn(*session(1))
    assert torch.equal(net.means[:6], before)


# --- the growing network ---


def trained(pictures_kept: int = 0, ewc: float = 0.0, cosine: bool = False, sessions: int = 2) -> GrowingNetwork:
    net = GrowingNetwork(encoder(), keep=pictures_kept, ewc=ewc, cosine=cosine)
    for t in range(sessions):
        net.learn(*session(t), steps=4, lr=1e-2)
    return net


def test_no_penalty_and_a_negligible_one_are_fine_tuning():
    plain, tiny = trained(), trained(ewc=1e-30)
    assert tiny.anchor
    for a, b in zip(plain.state_dict().values(), tiny.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_an_overwhelming_penalty_holds_what_mattered():
    net = GrowingNetwork(encoder(), ewc=1e12)
    net.learn(*session(0), steps=4, lr=1e-2)
    before = net.weight.detach().clone()
    free = copy.deepcopy(net)
    free.anchor = {}
    for rival in (net, free):
        rival.learn(*session(1), steps=20, lr=1e-3)
    moved, drifted = (float((rival.weight.detach()[:6] - before).abs().max()) for rival in (net, free))
    assert moved < 0.5 * drifted


def test_replay_of_everything_holds_the_data_of_joint_training():
    net = trained(pictures_kept=5, sessions=3)
    stored, names = (torch.cat(parts) for parts in zip(*net.memory, strict=True))
    assert torch.equal(stored.float() / 255, torch.cat([session(t)[0] for t in range(3)]))
    assert torch.equal(names, torch.cat([session(t)[1] for t in range(3)]))


def test_bytes_are_counted_by_hand():
    head, encoder_floats = 9 * 4, sum(p.numel() for p in encoder().parameters())
    assert trained().extra_bytes() == 4 * head
    assert trained(pictures_kept=2).extra_bytes() == 4 * head + 9 * 2 * 784
    assert trained(ewc=1.0).extra_bytes() == 4 * head + 2 * 4 * (encoder_floats + head)


def test_a_cosine_head_starts_at_the_class_means_of_unit_length():
    net = GrowingNetwork(encoder(), cosine=True)
    net.learn(*session(0), steps=0, lr=0.0)
    pictures, labels = session(1)
    net.learn(pictures, labels, steps=0, lr=0.0)
    z = F.normalize(net.encoder(pictures), dim=1)
    wanted = F.normalize(torch.stack([z[labels == k].mean(0) for k in range(6, 9)]), dim=1)
    assert torch.allclose(net.weight[6:], wanted, atol=1e-6)


def test_only_the_head_moves_if_so_asked_and_batch_norm_learns_in_the_first_session_only():
    net = trained(sessions=1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.learn(*session(1), steps=4, lr=1e-2, head_only=True)
    for name, tensor in net.encoder.state_dict().items():
        assert torch.equal(tensor, before[f"encoder.{name}"]), name
    assert not torch.equal(net.weight[:6], before["weight"])
    net.learn(*session(2), steps=4, lr=1e-2)
    running = [name for name in before if "running" in name]
    assert running
    assert all(torch.equal(net.state_dict()[name], before[name]) for name in running)


def test_the_same_seed_gives_the_same_weights():
    for a, b in zip(trained(1).state_dict().values(), trained(1).state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_sessions_are_learned_prototypes_remember_and_fine_tuning_forgets():
    net = GrowingNetwork(encoder(8))
    net.learn(*session(0), steps=60, lr=5e-3)
    query, truth = session(0, 5, 8)
    learned = (net(query).argmax(1) == truth).double().mean()
    means = FrozenPrototypes(copy.deepcopy(net.encoder))
    for t in range(3):
        means.learn(*session(t))
    net.learn(*session(1), steps=60, lr=5e-3)
    forgot, kept = ((rival(query).argmax(1) == truth).double().mean() for rival in (net, means))
    assert learned > 0.8  # chance is 1/6
    assert kept > 0.7
    assert forgot < 0.3


# --- Fisher information and the penalty ---


def test_the_fisher_information_of_a_linear_softmax_has_a_closed_form():
    """Summed over the labels with their probabilities: F_kd = mean_x p_k (1 - p_k) z_d^2."""
    model, z = Linear(), torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = model(z).softmax(1).detach()
    closed = ((p * (1 - p))[:, :, None] * z.square()[:, None]).mean(0)
    by_label = torch.stack(
        [
            torch.stack([diagonal_fisher(model, z[i : i + 1], torch.tensor([k]))["weight"] for k in range(3)])
            for i in range(5)
        ]
    )
    assert torch.allclose((p[:, :, None, None] * by_label).sum(1).mean(0), closed, atol=1e-12)


def test_the_empirical_fisher_squares_each_picture_before_it_averages():
    model, z = Linear(), torch.randn(6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y, step = torch.tensor([0, 1, 2, 0, 1, 2]), 1e-5
    wanted = torch.zeros(3, 4, dtype=torch.float64)
    for k in range(3):
        for d in range(4):
            values = []
            for sign in (1, -1):
                moved = model.weight.detach().clone()
                moved[k, d] += sign * step
                values.append(F.cross_entropy(z @ moved.mT, y, reduction="none"))
            wanted[k, d] = ((values[0] - values[1]) / (2 * step)).square().mean()
    assert torch.allclose(diagonal_fisher(model, z, y)["weight"], wanted, atol=1e-8)


def test_the_penalty_by_hand_its_zero_and_its_gradient():
    old, fisher = {"w": torch.tensor([[1.0, 2.0]]).double()}, {"w": torch.tensor([[3.0, 0.5]]).double()}
    grown = torch.tensor([[2.0, 4.0], [9.0, 9.0]], dtype=torch.float64, requires_grad=True)
    assert float(ewc_penalty({"w": grown}, old, fisher, 2.0)) == 3 * 1 + 0.5 * 4
    assert float(ewc_penalty(old, old, fisher, 2.0)) == 0
    (gradient,) = torch.autograd.grad(ewc_penalty({"w": grown}, old, fisher, 2.0), grown)
    assert gradient.tolist() == [[6.0, 2.0], [0.0, 0.0]]
    assert torch.autograd.gradcheck(lambda w: ewc_penalty({"w": w}, old, fisher, 2.0), grown)


@pytest.mark.parametrize("sessions", [1, 2])
def test_fisher_information_adds_up_over_the_sessions(sessions):
    net = GrowingNetwork(encoder(), ewc=1.0)
    total: dict[str, Tensor] = {}
    for t in range(sessions):
        net.learn(*session(t), steps=2, lr=1e-3)
        found = diagonal_fisher(net, *session(t))
        for name, rows in total.items():
            found[name][: len(rows)] += rows
        total = found
    assert all(torch.allclose(net.fisher[name], rows) for name, rows in total.items())
