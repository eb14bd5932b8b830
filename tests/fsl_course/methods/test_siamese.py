import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.siamese import (
    OBJECTIVES,
    SiameseNetwork,
    balanced_mean,
    contrastive_losses,
    euclidean_distances,
    sample_pairs,
    semi_hard_negatives,
    triplet_loss,
    weighted_l1,
)
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from tests.conftest import permute_support, relabel, settled, toy_images
from tests.fsl_course.methods.laws import evaluating_twice_changes_nothing, judges_each_query_alone, other_queries


@pytest.fixture(params=OBJECTIVES)
def learner(request, precise) -> SiameseNetwork:
    torch.manual_seed(0)
    net = SiameseNetwork(conv4(8), request.param).double()
    if request.param == "bce":  # weights of both signs, all different
        net.weight.data = torch.randn(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return settled(net, precise)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_are_balanced_never_a_row_with_itself_and_fixed_by_the_generator():
    labels = torch.tensor([3, 7, 3, 3, 9, 7])
    for count in (1, 2, 7, 400):
        first, second, same = sample_pairs(labels, count, torch.Generator().manual_seed(5))
        assert first.shape == second.shape == same.shape == (count,)
        assert same.tolist() == [True] * (count // 2) + [False] * (count - count // 2)
        assert torch.equal(same, labels[first] == labels[second])
        assert not (first == second).any()
        again = sample_pairs(labels, count, torch.Generator().manual_seed(5))
        assert all(torch.equal(a, b) for a, b in zip((first, second, same), again, strict=True))
    other = sample_pairs(labels, 400, torch.Generator().manual_seed(6))
    assert not torch.equal(first, other[0])


def test_every_pair_can_be_drawn_and_the_global_seed_is_left_alone():
    labels = torch.tensor([0, 0, 1, 1])
    state = torch.get_rng_state()
    first, second, _ = sample_pairs(labels, 2000, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    drawn = set(zip(first.tolist(), second.tolist(), strict=True))
    assert drawn == {(i, j) for i in range(4) for j in range(4) if i != j}


@pytest.mark.parametrize("labels", [[4, 4, 4], [0, 1, 2], [0], []])
def test_pairs_that_cannot_be_drawn_are_explained(labels):
    with pytest.raises(ValueError, match="pairs need two classes and a class with two pictures"):
        sample_pairs(torch.tensor(labels, dtype=torch.int64), 4, torch.Generator().manual_seed(0))


# --- distances -------------------------------------------------------------------------------------------------------


def test_weighted_l1_by_hand():
    """2 * |1 - 4| - 3 * |5 - 3| = 0, and 2 * |1 - 0| - 3 * |5 - 5| = 2."""
    found = weighted_l1(torch.tensor([[1.0, 5.0]]), torch.tensor([[4.0, 3.0], [0.0, 5.0]]), torch.tensor([2.0, -3.0]))
    assert found.tolist() == [[0.0, 2.0]]


def test_weighted_l1_equals_broadcasting_with_weights_of_both_signs():
    a, b = randn(3, 4, 6, seed=1), randn(3, 5, 6, seed=2)
    weight = torch.tensor([1.5, -2.0, 0.3, -0.1, 0.0, 4.0], dtype=torch.float64)
    expected = (weight * (a.unsqueeze(-2) - b.unsqueeze(-3)).abs()).sum(-1)
    assert expected.shape == (3, 4, 5)
    assert torch.allclose(weighted_l1(a, b, weight), expected, atol=1e-12)
    assert torch.allclose(weighted_l1(a[0], b[0], weight), expected[0], atol=1e-12)


def test_gradient_of_weighted_l1_agrees_with_finite_differences():
    a, b = randn(3, 4, seed=1).requires_grad_(), randn(2, 4, seed=2).requires_grad_()
    weight = torch.tensor([1.5, -2.0, 0.3, -0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(weighted_l1, (a, b, weight))


def test_distances_equal_loops_and_are_not_squared():
    a, b = randn(2, 4, 6, seed=1), randn(2, 3, 6, seed=2)
    found = euclidean_distances(a, b)
    for t in range(2):
        for m in range(4):
            for s in range(3):
                assert found[t, m, s].item() == pytest.approx(math.dist(a[t, m].tolist(), b[t, s].tolist()), abs=1e-12)
    assert euclidean_distances(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).item() == 5.0
    assert torch.autograd.gradcheck(euclidean_distances, (a[0].requires_grad_(), b[0].requires_grad_()))


def test_equal_rows_far_from_the_origin_have_distance_zero():
    """The fast |a|^2 - 2ab + |b|^2 gives about 0.1 here, in float32 and from 26 rows on."""
    z = randn(60, 64).float() + 30
    assert euclidean_distances(z, z).diagonal().abs().max() == 0


@pytest.mark.parametrize("distance", [euclidean_distances, lambda a, b: weighted_l1(a, b, torch.ones(3).double())])
def test_gradient_at_distance_zero_is_zero_and_finite(distance):
    z = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    distance(z, torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    assert z.grad.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_pair_of_equal_pictures_gives_a_finite_gradient(objective, task):
    torch.manual_seed(0)
    learner = SiameseNetwork(conv4(8, "group"), objective)
    twice = Episode(task.support_x, task.support_y, task.support_x.clone(), task.support_y, task.classes)
    loss = learner.loss(twice)
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [p.grad for p in learner.parameters()]
    assert all(torch.isfinite(g).all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)


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


# --- the learner -----------------------------------------------------------------------------------------------------


def test_scores_equal_loops_with_unequal_shots(learner):
    support, query = randn(6, 8, seed=1), randn(4, 8, seed=2)
    labels = torch.tensor([2, 0, 1, 2, 2, 0])
    logits = learner.score(support, labels, query, 3)
    assert logits.shape == (4, 3)
    for m in range(4):
        for k in range(3):
            found = []
            for s in range(6):
                if labels[s] == k:
                    difference = query[m] - support[s]
                    if learner.objective == "bce":
                        found.append((learner.weight * difference.abs()).sum() + learner.bias)
                    else:
                        found.append(-difference.square().sum().sqrt())
            assert logits[m, k].item() == pytest.approx((sum(found) / len(found)).item(), rel=1e-10)


def test_relabelling_slots_permutes_scores_and_order_of_support_changes_nothing(learner, precise):
    logits, new_slot = learner(precise), torch.tensor([3, 0, 4, 1, 2])
    assert logits.shape == (15, 5)
    assert logits.std() > 0.05  # otherwise every law holds
    assert torch.allclose(learner(relabel(precise, new_slot))[:, new_slot], logits, atol=1e-12)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(precise, order)), logits, atol=1e-12)


def test_pairs_have_no_order_and_labels_of_the_loss_no_meaning(learner, precise):
    a, b = randn(4, 8, seed=1), randn(5, 8, seed=2)
    assert torch.allclose(learner.similarities(a, b), learner.similarities(b, a).T, atol=1e-12)
    loss = learner.loss(precise).item()
    assert learner.loss(relabel(precise, torch.tensor([3, 0, 4, 1, 2]))).item() == pytest.approx(loss, rel=1e-10)


def test_a_query_is_judged_alone_in_evaluation_mode_and_not_in_training_mode(learner, precise):
    judges_each_query_alone(learner, precise)
    learner.train()
    assert not torch.allclose(learner(precise)[0], learner(other_queries(precise))[0], atol=1e-3)


def test_stacked_tasks_equal_single_tasks(toys, learner):
    batch = EpisodeSampler(toys, 4, 2, 3, dtype=torch.float64).batch(0, 3)
    single = torch.stack([learner(e) for e in batch])
    support, query = (
        learner.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in (batch.support_x, batch.query_x)
    )
    assert torch.allclose(single, learner.score(support, batch.support_y, query, 4), atol=1e-10)
    assert learner.training_step(batch).item() == pytest.approx(sum(learner.loss(e).item() for e in batch) / 3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_evaluating_twice_gives_the_same_and_changes_nothing(toys, objective):
    torch.manual_seed(0)
    learner = SiameseNetwork(conv4(8), objective)
    evaluating_twice_changes_nothing(learner, toys, 10)


def test_fresh_log_odds_are_4_for_equal_embeddings_and_0_at_a_mean_difference_of_one_half():
    learner = SiameseNetwork(conv4(8))
    z = torch.rand(1, 8)
    assert learner.similarities(z, z).item() == 4.0
    assert learner.similarities(z, z + 0.5).item() == pytest.approx(0.0, abs=1e-5)
    assert {name for name in learner.state_dict() if "encoder" not in name} == {"weight", "bias"}
    assert not [n for n, _ in SiameseNetwork(conv4(8), "contrastive").named_parameters() if "encoder" not in n]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_learns_in_seconds(objective):
    source = toy_images(80, 8, noise=120)
    torch.manual_seed(0)
    learner = SiameseNetwork(conv4(16), objective)
    test = EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    before = evaluate(learner, test, 50)
    history = fit(learner, EpisodeSampler(source.split("train"), 10, 1, 3), steps=60, progress=False)
    after = evaluate(learner, test, 50)
    assert after.mean > 0.9
    assert after.mean > before.mean + 0.1
    assert sum(history.loss[-5:]) < 0.6 * sum(history.loss[:5])


def test_wrong_arguments_are_explained(task):
    with pytest.raises(ValueError, match="objective must be one of bce, contrastive, triplet; got 'hinge'"):
        SiameseNetwork(conv4(8), "hinge")
    with pytest.raises(ValueError, match="pass features=D"):
        SiameseNetwork(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)))
    assert SiameseNetwork(torch.nn.Identity(), features=4).weight.shape == (4,)
    learner = SiameseNetwork(conv4(8))
    with pytest.raises(ValueError, match="cover the slots 0..2"):
        learner.score(torch.rand(4, 8), torch.tensor([0, 0, 1, 1]), torch.rand(2, 8), 3)
    one = Episode(task.support_x[:1], torch.tensor([0]), task.query_x[:2], torch.tensor([0, 0]), torch.tensor([5]))
    with pytest.raises(ValueError, match="equal and unequal pairs"):
        learner.loss(one)


def test_it_lets_evaluate_embed_each_picture_once(learner):
    assert isinstance(learner, ComparesEmbeddings)
