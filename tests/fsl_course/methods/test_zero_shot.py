"""Zero-shot learning: closed forms against Kronecker systems and loops, by hand, laws, and that true descriptions are needed."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fsl_course.classifier import FewShotClassifier
from fsl_course.data import ImageSet, load_glyphs, load_icons
from fsl_course.data.attributes import described, misdescribed
from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.zero_shot import (
    HEADS,
    ZeroShot,
    dap_scores,
    eszsl,
    per_class_accuracy,
    symmetric_loss,
)
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import card, pretrained
from tests.conftest import settled, toy_images
from tests.fsl_course.methods.laws import evaluating_twice_changes_nothing


def rows(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coded(classes: int = 40, noise: int = 60) -> ImageSet:
    """Classes made of eight attributes: each is a patch of the picture that is inked or not."""
    generator = torch.Generator().manual_seed(3)
    code = torch.randperm(256, generator=generator)[:classes, None] >> torch.arange(8) & 1
    patches = F.pad(code.unflatten(1, (2, 4)), (0, 0, 1, 1)).float()[:, None, None]  # [C, 1, 1, 4, 4]
    patches = patches.repeat_interleave(7, -1).repeat_interleave(7, -2).mul(160).expand(-1, 8, -1, -1, -1)
    dust = torch.randint(0, noise, patches.shape, generator=generator)
    toys = toy_images(classes)
    return replace(toys, images=(patches + dust).to(torch.uint8), attributes=code.float())


@pytest.fixture
def episode() -> Episode:
    """5-way in float64, with descriptions."""
    return EpisodeSampler(coded(), 5, 2, 3, dtype=torch.float64)[0]


@pytest.fixture(params=HEADS)
def learner(request: pytest.FixtureRequest, episode: Episode) -> ZeroShot:
    torch.manual_seed(0)
    return settled(ZeroShot(conv4(8), 8, joint=6, hidden=5, head=request.param).double(), episode)


def changed(episode: Episode, **parts: torch.Tensor) -> Episode:
    return replace(episode, **parts)


def test_eszsl_solves_the_normal_equations_written_as_one_large_system():
    """gamma V StS + lam XtX V + XtX V StS + gamma lam V = Xt Y S, with V as one long vector."""
    x, y, s, gamma, lam = rows(0, 30, 4), rows(1, 30, 5).sign(), rows(2, 5, 3), 0.7, 1.3
    left, right = x.T @ x + gamma * torch.eye(4).double(), s.T @ s + lam * torch.eye(3).double()
    whole = np.kron(left.numpy(), right.numpy())
    long = np.linalg.lstsq(whole, (x.T @ y @ s).numpy().ravel(), rcond=None)[0]
    assert torch.allclose(eszsl(x, y, s, gamma, lam), torch.from_numpy(long.reshape(4, 3)), atol=1e-10)


def test_eszsl_is_the_minimum_of_its_objective():
    """|Y - X V St|^2 + gamma |V St|^2 + lam |X V|^2 + gamma lam |V|^2 has gradient zero there."""
    x, y, s, gamma, lam = rows(3, 20, 4), rows(4, 20, 6), rows(5, 6, 3), 0.5, 2.0
    v = eszsl(x, y, s, gamma, lam).requires_grad_()
    objective = (y - x @ v @ s.T).square().sum() + gamma * (v @ s.T).square().sum()
    objective = objective + lam * (x @ v).square().sum() + gamma * lam * v.square().sum()
    (slope,) = torch.autograd.grad(objective, v)
    assert slope.abs().max() < 1e-9


def test_dap_by_loops_and_by_hand():
    logits, prior = rows(6, 4, 3), torch.tensor([0.2, 0.5, 0.9]).double()
    attributes = torch.tensor([[1, 0, 1], [0, 0, 1]]).double()
    found = dap_scores(logits, attributes, prior)
    for m, k in ((m, k) for m in range(4) for k in range(2)):
        product = 1.0
        for a in range(3):
            p = 1 / (1 + math.exp(-float(logits[m, a])))
            holds = bool(attributes[k, a])
            product *= (p if holds else 1 - p) / float(prior[a] if holds else 1 - prior[a])
        assert float(found[m, k]) == pytest.approx(math.log(product), abs=1e-10)
    even = dap_scores(torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.5, 0.5]))
    assert even.abs().max() < 1e-6  # nothing is known
    assert dap_scores(torch.tensor([[200.0, -200.0]]), torch.eye(2), torch.tensor([0.5, 0.5])).isfinite().all()


def test_symmetric_loss_is_that_of_clip_for_one_picture_a_class_and_counts_several_evenly():
    logits = rows(7, 4, 4)
    order = torch.tensor([2, 0, 3, 1])
    clip = (F.cross_entropy(logits, order) + F.cross_entropy(logits.T[order], torch.arange(4))) / 2
    assert torch.allclose(symmetric_loss(logits, order), clip)
    labels = torch.tensor([0, 0, 2, 0])
    column = logits.log_softmax(0)
    by_hand = (F.cross_entropy(logits, labels) - (column[[0, 1, 3], 0].mean() + column[2, 2]) / 2) / 2
    assert torch.allclose(symmetric_loss(logits, labels), by_hand)


def test_accuracy_per_class_counts_every_class_once():
    answers, labels = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 0, 1])
    assert per_class_accuracy(answers, labels) == pytest.approx((0.75 + 1) / 2)


@pytest.mark.parametrize("head", HEADS)
def test_gradients_agree_with_finite_differences(head):
    torch.manual_seed(1)
    learner = ZeroShot(torch.nn.Identity(), 4, features=3, joint=3, head=head).double()
    labels = torch.tensor([0, 1, 2, 1])

    def loss(x: torch.Tensor, attributes: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return learner.loss(Episode(x[:0], labels[:0], x, labels, torch.arange(3), None, attributes))

    inputs = rows(8, 4, 3).requires_grad_(), rows(9, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(loss, (*inputs, *learner.parameters()))
    v = rows(10, 5, 2), rows(11, 3, 2).requires_grad_()
    x = rows(12, 6, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, s: eszsl(x, rows(13, 6, 3), s, 0.5, 0.6), (x, v[1]))


def test_laws(learner, episode):
    logits, new_slot = learner(episode), torch.tensor([3, 0, 4, 1, 2])
    moved = episode.attributes.clone()
    moved[new_slot] = episode.attributes
    assert torch.allclose(learner(changed(episode, attributes=moved))[:, new_slot], logits, atol=1e-10)
    assert torch.equal(learner(changed(episode, support_x=episode.support_x.flip(0) * 0)), logits)  # shots are ignored
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(changed(episode, query_x=episode.query_x[order])), logits[order], atol=1e-10)
    single = changed(episode, query_x=episode.query_x[:1], query_y=episode.query_y[:1])
    assert torch.allclose(learner(single), logits[:1], atol=1e-10)
    assert torch.allclose(learner.prototypes(episode.attributes).norm(dim=1), torch.ones(5).double())


def test_stacked_tasks_equal_single_tasks_and_evaluate_agrees_with_forward(learner):
    drawn = EpisodeSampler(coded(), 4, 1, 3, dtype=torch.float64)
    batch = drawn.batch(0, 3)
    query = learner.embed(batch.query_x.flatten(0, 1)).unflatten(0, (3, 12))
    together = learner.score(query, batch.support_y, query, 4, batch.attributes)
    assert torch.allclose(together, torch.stack([learner(e) for e in batch]), atol=1e-10)
    assert isinstance(learner, ComparesEmbeddings)
    evaluating_twice_changes_nothing(learner.float().train(), coded(), 4)


@pytest.mark.parametrize("head", HEADS)
def test_true_descriptions_teach_unseen_classes_within_seconds_and_shuffled_ones_do_not(head):
    source = coded()
    reached = {}
    for name, classes in (("true", source), ("shuffled", misdescribed(source))):
        torch.manual_seed(0)
        learner = ZeroShot(conv4(16), 8, head=head)
        fit(learner, EpisodeSampler(classes.split("train"), 8, 1, 3), steps=80, progress=False)
        reached[name] = evaluate(learner, EpisodeSampler(classes.split("test"), 5, 1, 3, seed=9), 60)
    assert reached["true"].mean > 0.5
    assert reached["shuffled"].mean < 0.35 < reached["true"].mean - 0.1


@pytest.mark.parametrize("data", ["glyphs", "icons"])
def test_shipped_weights_reach_the_number_on_their_card(data):
    row = card("zero_shot", data)["test"][0]
    source = described(load_glyphs() if data == "glyphs" else load_icons())
    result = evaluate(pretrained("zero_shot", data), EpisodeSampler(source.split("test"), row["way"], 1, 15), 100)
    assert abs(result.mean - row["mean"]) < 2 * result.ci95


def test_what_cannot_be_is_explained(learner, episode):
    with pytest.raises(ValueError, match="one of prototypes, towers; got 'clip'"):
        ZeroShot(conv4(8), head="clip")
    with pytest.raises(ValueError, match="descriptions of 8 numbers, and these classes have none"):
        learner(changed(episode, attributes=None))
    with pytest.raises(ValueError, match="these classes have those of 7"):
        learner(changed(episode, attributes=episode.attributes[:, :7]))
    with pytest.raises(ValueError, match="pictures alone carry none"):
        FewShotClassifier(learner.float()).fit(torch.rand(4, 1, 28, 28), ["a", "a", "b", "b"])
