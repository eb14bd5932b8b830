"""Losses of pairs and of triplets, by hand and by loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_course.episodes import Episode
from fsl_course.methods.siamese import (
    SiameseNetwork,
    balanced_mean,
    contrastive_losses,
    sample_pairs,
    semi_hard_negatives,
    triplet_loss,
)
from fsl_course.nets import conv4
from tests.conftest import settled
from tests.fsl_course.methods.adapting import randn

# --- losses ----------------------------------------------------------------------------------------------------------


def test_contrastive_losses_by_hand():
    """Equal pairs d^2 / 2; unequal ones (10 - d)^2 / 2 up to the margin, and nothing beyond it."""
    distance = torch.tensor([0.0, 3.0, 12.0, 0.0, 4.0, 10.0, 12.0])
    same = torch.tensor([True, True, True, False, False, False, False])
    assert contrastive_losses(distance, same).tolist() == [0.0, 4.5, 72.0, 50.0, 18.0, 0.0, 0.0]
    assert contrastive_losses(distance, same, margin=5.0).tolist() == [0.0, 4.5, 72.0, 12.5, 0.5, 0.0, 0.0]


def test_gradient_of_the_contrastive_loss_agrees_with_finite_differences():
    same = torch.tensor([True, True, False, False, False])
    distance = torch.tensor([0.5, 3.0, 0.0, 1.5, 2.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: contrastive_losses(d, same, 2.0), (distance,))
    contrastive_losses(distance, same, 2.0).sum().backward()
    assert distance.grad.tolist() == [0.5, 3.0, -2.0, -0.5, 0.0]


def test_balanced_mean_by_hand():
    losses, same = torch.tensor([1.0, 3.0, 10.0, 0.0, 2.0]), torch.tensor([True, True, False, False, False])
    assert balanced_mean(losses, same).item() == 0.5 * 2.0 + 0.5 * 4.0
    for one_kind in (torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)):
        with pytest.raises(ValueError, match="equal and unequal pairs"):
            balanced_mean(losses, one_kind)


def pair_rows(episode: Episode, learner: SiameseNetwork) -> tuple[Tensor, list[int]]:
    z = learner.encoder(torch.cat([episode.support_x, episode.query_x]))
    return z, [*episode.support_y.tolist(), *episode.query_y.tolist()]


@pytest.mark.parametrize("objective", ["bce", "contrastive"])
@pytest.mark.parametrize("margin", [None, 1.3])
def test_loss_of_pairs_equals_a_loop(precise, objective, margin):
    torch.manual_seed(0)
    learner = settled(SiameseNetwork(conv4(8), objective, margin).double(), precise)
    if objective == "bce":
        learner.weight.data = randn(8, seed=3)
    z, labels = pair_rows(precise, learner)
    losses: dict[bool, list[Tensor]] = {True: [], False: []}
    for i in range(len(z)):
        for j in range(i):
            same = labels[i] == labels[j]
            if objective == "bce":
                p = torch.sigmoid((learner.weight * (z[i] - z[j]).abs()).sum() + learner.bias)
                losses[same].append(-torch.log(p if same else 1 - p))
            else:
                d = (z[i] - z[j]).square().sum().sqrt()
                losses[same].append(d**2 / 2 if same else (learner.margin - d).clamp_min(0) ** 2 / 2)
    expected = 0.5 * torch.stack(losses[True]).mean() + 0.5 * torch.stack(losses[False]).mean()
    assert learner.margin == (10.0 if margin is None else margin)
    assert learner.loss(precise).item() == pytest.approx(expected.item(), rel=1e-10)


def test_loss_is_the_expectation_of_balanced_pairs(precise):
    """What `loss` averages over all pairs is what `sample_pairs` draws from."""
    torch.manual_seed(0)
    learner = settled(SiameseNetwork(conv4(8), "contrastive").double(), precise)
    z, labels = pair_rows(precise, learner)
    first, second, same = sample_pairs(torch.tensor(labels), 20_000, torch.Generator().manual_seed(0))
    drawn = contrastive_losses((z[first] - z[second]).square().sum(1).sqrt(), same)
    error = drawn.std().item() / math.sqrt(len(drawn))
    assert drawn.mean().item() == pytest.approx(learner.loss(precise).item(), abs=4 * error)


# --- triplets --------------------------------------------------------------------------------------------------------


def semi_hard_by_loops(squared: Tensor, labels: list[int]) -> dict[tuple[int, int], float]:
    """(anchor, positive) -> the distance of the negative that the rule names."""
    found = {}
    for a in range(len(labels)):
        for p in range(len(labels)):
            if a == p or labels[a] != labels[p]:
                continue
            farther, all_negatives = [], []
            for n in range(len(labels)):
                if labels[n] != labels[a]:
                    all_negatives.append(squared[a, n].item())
                    if squared[a, n] > squared[a, p]:
                        farther.append(squared[a, n].item())
            found[a, p] = min(farther) if farther else max(all_negatives)
    return found


@pytest.mark.parametrize("whole", [False, True], ids=["random", "with ties"])
def test_semi_hard_negatives_equal_a_triple_loop(whole):
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    z[:3] *= 6  # a class that is wide open: for some of its pairs no negative is farther than the positive
    if whole:
        z = z.round()  # on a grid many distances are equal: farther means strictly farther
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 5, 5, 2])
    squared = torch.stack([torch.stack([((p - q) ** 2).sum() for q in z]) for p in z])
    anchor, positive, negative = semi_hard_negatives(squared, labels)
    expected = semi_hard_by_loops(squared, labels.tolist())
    assert set(zip(anchor.tolist(), positive.tolist(), strict=True)) == set(expected)
    assert len(anchor) == len(expected)
    for a, p, n in zip(anchor.tolist(), positive.tolist(), negative.tolist(), strict=True):
        assert labels[n] != labels[a]
        assert squared[a, n].item() == expected[a, p]
    fallback = squared[anchor, negative] <= squared[anchor, positive]
    assert fallback.any()
    assert not fallback.all()
    if whole:
        strangers = labels[anchor][:, None] != labels
        assert (strangers & (squared[anchor] == squared[anchor, positive][:, None])).any()  # the ties are there


def test_semi_hard_negatives_by_hand():
    """On a line: 0 and 2 of class 0; 1, 3, 6 of class 1. A negative as far as the positive is not farther."""
    x = torch.tensor([0.0, 2.0, 1.0, 3.0, 6.0])
    anchor, positive, negative = semi_hard_negatives((x[:, None] - x).square(), torch.tensor([0, 0, 1, 1, 1]))
    found = dict(zip(zip(anchor.tolist(), positive.tolist(), strict=True), negative.tolist(), strict=True))
    assert found[0, 1] == 3  # 0 -> 2; 3 is the nearest beyond, though 1 is nearer
    assert found[1, 0] == 4  # 2 -> 0; beyond 2 lies only 6
    assert found[3, 2] == 0  # 3 -> 1; 2 is nearer than the positive, 0 beyond it
    assert found[2, 4] == 0  # 1 -> 6; nothing is farther, 0 and 2 are the farthest: the first of both
    assert found[4, 2] == 0  # 6 -> 1; 0 is farther
    assert found[4, 3] == 1  # 6 -> 3; 2 is the nearest beyond


def test_triplet_loss_by_hand_and_by_loops():
    z = F.normalize(randn(9, 4, seed=4), dim=-1)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 1])
    squared = torch.stack([torch.stack([((p - q) ** 2).sum() for q in z]) for p in z])
    for margin in (0.2, 1.0):
        expected = [
            max(0.0, squared[a, p].item() - negative + margin)
            for (a, p), negative in semi_hard_by_loops(squared, labels.tolist()).items()
        ]
        assert triplet_loss(z, labels, margin).item() == pytest.approx(sum(expected) / len(expected), rel=1e-10)
    line = torch.tensor([[0.0], [1.0], [1.1], [2.0]])
    # (0, 1): 1 - 1.21 + 0.5; (1, 0): 1 - 1 + 0.5, nothing is farther; (2, 3): 0.81 - 1.21 + 0.5; (3, 2): 0.81 - 1 + 0.5
    found = triplet_loss(line, torch.tensor([0, 0, 1, 1]), 0.5).item()
    assert found == pytest.approx((0.29 + 0.5 + 0.1 + 0.31) / 4, abs=1e-6)


def test_gradient_of_the_triplet_loss_agrees_with_finite_differences():
    z = F.normalize(randn(6, 4, seed=7), dim=-1).requires_grad_()
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda z: triplet_loss(z, labels, 0.7), (z,))
    assert torch.autograd.grad(triplet_loss(z, labels, 0.7), z)[0].abs().max() > 0


def test_gradient_of_the_triplet_loss_is_zero_where_all_embeddings_are_equal():
    z = F.normalize(torch.ones(4, 3, dtype=torch.float64), dim=-1).requires_grad_()
    loss = triplet_loss(z, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(0.2)
    assert torch.equal(z.grad, torch.zeros_like(z))


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], []])
def test_triplets_that_cannot_be_formed_are_explained(labels):
    with pytest.raises(ValueError, match="triplets need two classes, and two pictures of a class"):
        triplet_loss(randn(len(labels), 3), torch.tensor(labels, dtype=torch.int64))


def test_loss_with_triplets_is_the_triplet_loss_of_unit_embeddings(precise):
    torch.manual_seed(0)
    learner = settled(SiameseNetwork(conv4(8), "triplet", margin=0.6).double(), precise)
    z, labels = pair_rows(precise, learner)
    unit = z / z.square().sum(1, keepdim=True).sqrt()
    assert torch.allclose(learner.embed(precise.query_x).norm(dim=1), torch.ones(15, dtype=torch.float64))
    expected = triplet_loss(unit, torch.tensor(labels), 0.6)
    assert learner.loss(precise).item() == pytest.approx(expected.item(), rel=1e-10)
    assert SiameseNetwork(conv4(8), "triplet").margin == 0.2
