from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fsl_course.data import load_glyphs
from fsl_course.episodes import SceneEpisode, SceneSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.dense import DenseEncoder, DensePrototypes, compared, iou, masked_average, prototypes_of
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import card, pretrained
from tests.conftest import toy_images

TOYS = toy_images(12, 12, noise=40)


def learner(**more) -> DensePrototypes:
    torch.manual_seed(0)
    return DensePrototypes(DenseEncoder(8), **more).double().eval()


def task(k_shot: int = 2) -> SceneEpisode:
    return SceneSampler(TOYS, k_shot, 3, dtype=torch.float64)[0]


# --- oracles ---


def test_masked_average_by_hand():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[10.0, 0.0], [0.0, 0.0]]]]).double()
    masks = torch.tensor([[[1, 0], [0, 1]], [[1, 0], [0, 0]]]).bool()
    assert torch.allclose(masked_average(features, masks), torch.tensor([(2.5 + 10) / 2]).double(), atol=1e-4)
    # a shot counts as one, however large its mask is
    assert masked_average(features, torch.zeros_like(masks)).tolist() == [0.0]


def test_features_grow_to_the_mask_and_a_thin_mask_is_not_lost():
    features = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, 5, 3] = True  # falls between the places of the map
    large = F.interpolate(features, (16, 16), mode="bilinear", align_corners=False)
    assert torch.allclose(masked_average(features, mask), large[0, :, 5, 3], atol=1e-4)


def test_logits_are_twenty_cosines():
    features, prototypes = torch.randn(2, 5, 3, 3).double(), torch.randn(2, 5).double()
    found = compared(features, prototypes, 20.0)
    for b in range(2):
        for n in range(2):
            by_torch = 20 * F.cosine_similarity(features[b, :, 1, 2], prototypes[n], dim=0)
            assert torch.allclose(found[b, n, 1, 2], by_torch)


def test_iou_by_hand():
    a, b = torch.tensor([[[1, 1, 0, 0]]]).bool(), torch.tensor([[[0, 1, 1, 1]]]).bool()
    assert float(iou(a, b)) == 0.25
    nothing = torch.zeros_like(a)
    assert (float(iou(nothing, b)), float(iou(nothing, nothing))) == (0.0, 1.0)


def test_perfect_features_segment_perfectly():
    """An encoder that paints the wanted ink in a colour of its own."""
    episode = task()
    colours = torch.cat([episode.support_y, episode.query_y]).double()

    class Oracle(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([colours, 1 - colours], 1)

    found = DensePrototypes(Oracle())(episode).argmax(1) == 1
    assert torch.equal(found, episode.query_y)


# --- laws ---


def test_a_query_is_judged_alone_and_the_order_of_the_shots_does_not_matter():
    net, episode = learner(), task()
    logits = net(episode)
    assert logits.shape == (3, 2, 64, 64)
    single = SceneEpisode(
        episode.support_x, episode.support_y, episode.query_x[1:2], episode.query_y[1:2], episode.classes
    )
    assert torch.allclose(net(single)[0], logits[1], atol=1e-10)
    turned = SceneEpisode(
        episode.support_x.flip(0), episode.support_y.flip(0), episode.query_x.flip(0), episode.query_y, episode.classes
    )
    assert torch.allclose(net(turned), logits.flip(0), atol=1e-10)


def test_the_opposite_mask_gives_the_opposite_answer():
    net, episode = learner(), task()
    opposite = SceneEpisode(episode.support_x, ~episode.support_y, episode.query_x, episode.query_y, episode.classes)
    assert torch.allclose(net(opposite), net(episode).flip(1), atol=1e-10)


def test_stacked_tasks_have_the_mean_loss_in_evaluation_mode():
    net, batch = learner(), SceneSampler(TOYS, 2, 2, dtype=torch.float64).batch(0, 3)
    assert torch.allclose(net.training_step(batch), torch.stack([net.loss(e) for e in batch]).mean())


def test_gradients():
    episode = task(1)
    masks = episode.support_y[:, 20:28, 20:28]
    masks = torch.where(masks.any(), masks, torch.eye(8, dtype=torch.bool)[None])
    features = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    query = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, q: compared(q, prototypes_of(f, masks), 2.0), (features, query))


# --- alignment ---


def test_alignment_reads_the_predicted_masks_and_skips_an_empty_answer():
    net, episode = learner(), task(1)
    support, query = net.features(episode)
    logits = torch.zeros(3, 2, 64, 64, dtype=torch.float64)
    logits[:, 0] = 1  # nothing found
    assert float(net.alignment(support, episode.support_y, query, logits).detach()) == 0
    logits[:, 1, :32] = 2
    found = logits.argmax(1) == 1
    back = compared(support, prototypes_of(query, found), 20.0)
    back = F.interpolate(back, (64, 64), mode="bilinear", align_corners=False)
    by_hand = F.cross_entropy(back, episode.support_y.long(), weight=torch.tensor([1.0, 2.0]).double())
    assert torch.allclose(net.alignment(support, episode.support_y, query, logits), by_hand)
    without = learner(align=0.0).loss(episode)
    assert float(net.loss(episode).detach()) > float(without.detach())


def test_without_background_the_rival_is_a_fixed_threshold():
    logits = learner(background=False)(task())
    assert torch.allclose(logits[:, 0], torch.tensor(10.0).double())


# --- frozen blocks, learning ---


def test_frozen_blocks_stay_as_they_are():
    start, net = conv4(8), DenseEncoder(8, frozen=True)
    net.start_from(start)
    before = {name: tensor.clone() for name, tensor in net.first.state_dict().items()}
    fit(DensePrototypes(net), SceneSampler(TOYS), steps=2, progress=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.first.state_dict().items())
    with pytest.raises(ValueError, match="width 8: take that width"):
        DenseEncoder(4).start_from(start)


def test_training_lowers_the_loss_on_new_classes():
    net, test = learner().float(), SceneSampler(TOYS.split("test"), 1, 2, seed=1)

    def loss() -> float:
        with torch.no_grad():
            return float(net.eval().training_step(test.batch(0, 20)))

    before = loss()
    fit(net, SceneSampler(TOYS.split("train")), steps=30, lr=5e-3, progress=False)
    assert loss() < before - 0.05


def test_evaluate_counts_the_queries_of_an_episode_together():
    net, test = learner().float(), SceneSampler(TOYS.split("test"), 1, 2, seed=1)
    result = evaluate(net, test, 4, metric="miou")
    by_hand = [iou(net(episode).argmax(1) == 1, episode.query_y) for episode in test.batch(0, 4)]
    assert torch.allclose(result.per_episode, torch.stack(by_hand).double())
    assert "miou" in str(result)
    with pytest.raises(ValueError, match='segmentation tasks: take metric="miou"'):
        evaluate(net, test, 4)


def test_the_card_of_the_shipped_weights_holds():
    """On fewer episodes, so within a wider range."""
    result = evaluate(pretrained("dense", "glyphs"), SceneSampler(load_glyphs().split("test")), 60, metric="miou")
    promised = card("dense", "glyphs")["test"][0]
    assert (promised["way"], promised["shot"]) == (1, 1)
    assert abs(result.mean - promised["mean"]) < promised["ci95"] + result.ci95
