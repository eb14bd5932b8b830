"""The transferred learner: its pretraining, and the laws that its classifiers keep."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.transfer import (
    CLASSIFIERS,
    CosineClassifier,
    FineTuneAll,
    TransferNetwork,
    fit_cosine,
    fit_linear,
    fit_probe,
)
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from tests.conftest import permute_support, relabel, settled, toy_images
from tests.fsl_course.methods.laws import judges_each_query_alone, other_queries
from tests.fsl_course.methods.transferring import LABELS, randn


@pytest.fixture
def encoder(precise) -> torch.nn.Module:
    torch.manual_seed(0)
    return settled(conv4(8).double(), precise)


@pytest.fixture(params=CLASSIFIERS)
def learner(request, encoder) -> TransferNetwork:
    return TransferNetwork(encoder, 12, classifier=request.param, steps=20).double().eval()


def score_by_hand(learner: TransferNetwork, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    support, query = (z / z.square().sum(1, keepdim=True).sqrt() for z in (support, query))
    if learner.classifier == "centroid":
        means = torch.stack([support[labels == k].mean(0) for k in range(n_way)])
        return query @ (means / means.norm(dim=1, keepdim=True)).T
    if learner.classifier == "cosine":
        weight = fit_cosine(support, labels, n_way, 10.0, learner.steps, learner.lr)
        return 10 * query @ (weight / weight.norm(dim=1, keepdim=True)).T
    if learner.classifier == "probe":
        weight, bias = fit_probe(support, labels, n_way)
    else:
        weight, bias = fit_linear(support, labels, n_way, learner.steps, learner.lr)
    return torch.stack([torch.stack([w @ q + b for w, b in zip(weight, bias, strict=True)]) for q in query])


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_scores_are_those_of_the_classifier_on_unit_embeddings(classifier):
    learner = TransferNetwork(torch.nn.Identity(), 9, classifier=classifier, steps=4, lr=0.5, features=4)
    support, query = randn(6, 4, seed=1), randn(5, 4, seed=2)
    found = learner.score(support, LABELS, query, 3)
    assert found.shape == (5, 3)
    assert found.std() > 0.05
    assert torch.allclose(found, score_by_hand(learner, support, LABELS, query, 3), atol=1e-10)
    assert torch.allclose(learner.score(9 * support, LABELS, 0.1 * query, 3), found, atol=1e-8)  # any encoder, one rate


def test_cosine_classifier_takes_the_learned_scale_of_a_cosine_head():
    support, query = randn(6, 4, seed=1), randn(5, 4, seed=2)
    for head, scale in (("linear", 10.0), ("cosine", 3.0)):
        learner = TransferNetwork(torch.nn.Identity(), 9, head, "cosine", steps=4, features=4).double()
        if head == "cosine":
            learner.head.log_scale.data = torch.tensor(3.0, dtype=torch.float64).log()
        weight = fit_cosine(support, LABELS, 3, scale, 4, 0.1)
        expected = scale * F.normalize(query, dim=1) @ F.normalize(weight, dim=1).T
        assert torch.allclose(learner.score(support, LABELS, query, 3), expected, atol=1e-12)


def test_unscaled_cosine_to_the_centroids_is_bounded(encoder, precise):
    """Good for the nearest centroid; as logits to train on, these would be too flat (trap C1)."""
    logits = TransferNetwork(encoder, 12).double().eval()(precise)
    assert logits.abs().max() <= 1 + 1e-12
    assert logits.softmax(1).max() <= math.e / (math.e + 4 / math.e)


def test_cosine_head_by_hand():
    """Cosines 24/25 and -1, times the scale; the scale starts at 10 and stays positive whatever the gradient."""
    head = CosineClassifier(2, 2)
    head.weight.data = torch.tensor([[8.0, 6.0], [-3.0, -4.0]])
    assert head(torch.tensor([[3.0, 4.0]]))[0].tolist() == pytest.approx([9.6, -10.0], rel=1e-5)
    assert CosineClassifier(2, 2, scale=4.0).log_scale.exp().item() == pytest.approx(4.0)
    head.log_scale.data -= 100
    assert head.log_scale.exp() > 0


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_pretraining_is_classification_of_all_pictures_by_base_class(toys, head):
    """By a loop that asks the image set itself which class a picture is of."""
    torch.manual_seed(0)
    learner = TransferNetwork(conv4(8), 12, head).double().eval()
    batch = EpisodeSampler(toys, 4, 2, 3, dtype=torch.float64).batch(5, 3)
    bank = toys.images.double().div(255)
    losses = []
    for episode in batch:
        for x in torch.cat([episode.support_x, episode.query_x]):
            (base,) = {c for c in range(12) for n in range(8) if torch.equal(bank[c, n], x)}
            z = learner.encoder(x[None])[0]
            if head == "linear":
                logits = learner.head.weight @ z + learner.head.bias
            else:
                w = learner.head.weight
                logits = learner.head.log_scale.exp() * (w @ z) / w.norm(dim=1) / z.norm()
            losses.append(-logits.log_softmax(0)[base].item())
    assert len(losses) == 3 * (8 + 12)
    assert learner.training_step(batch).item() == pytest.approx(sum(losses) / len(losses), rel=1e-8)


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_gradient_of_pretraining_reaches_every_weight(toys, head):
    torch.manual_seed(0)
    learner = TransferNetwork(conv4(8), 12, head)
    learner.training_step(EpisodeSampler(toys, 4, 2, 3).batch(0, 2)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learner.parameters())


def test_more_classes_than_the_head_has_are_explained(toys):
    batch = EpisodeSampler(toys, 12, 1, 1).batch(0, 1)
    TransferNetwork(conv4(8), 12).training_step(batch)
    with pytest.raises(ValueError, match=r"has 11 base classes and met class number 11.*n_base=len\(source\)"):
        TransferNetwork(conv4(8), 11).training_step(batch)


@pytest.mark.parametrize(
    ("head", "classifiers"), [("linear", ("centroid", "linear", "probe")), ("cosine", ("cosine",))]
)
def test_it_learns_in_seconds(head, classifiers):
    source = toy_images(80, 8, noise=120)
    train, test = source.split("train"), EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    torch.manual_seed(0)
    learner = TransferNetwork(conv4(16), len(train), head)

    def accuracy(classifier: str) -> float:
        learner.classifier = classifier
        return evaluate(learner, test, 50).mean

    before = {classifier: accuracy(classifier) for classifier in classifiers}
    history = fit(learner, EpisodeSampler(train, 20, 1, 3), steps=60, lr=5e-3, progress=False)
    assert sum(history.loss[-5:]) < 0.5 * sum(history.loss[:5])
    for classifier, start in before.items():
        assert accuracy(classifier) > max(0.9, start + 0.1), classifier


def test_every_classifier_knows_easy_classes(toys, encoder):
    for classifier in CLASSIFIERS:
        learner = TransferNetwork(encoder, 12, classifier=classifier, steps=30).double()
        assert evaluate(learner, EpisodeSampler(toys, 5, 2, 3, dtype=torch.float64), 20).mean > 0.6, classifier


def test_relabelling_slots_permutes_logits_and_order_of_support_changes_nothing(learner, precise):
    """The heads of tasks start without a preference, so that the law holds though they are trained."""
    logits, new_slot = learner(precise), torch.tensor([3, 0, 4, 1, 2])
    atol = 1e-4 if learner.classifier == "probe" else 1e-10  # its solver stops at a small gradient
    assert logits.shape == (15, 5)
    assert logits.std() > 0.005
    assert torch.allclose(learner(relabel(precise, new_slot))[:, new_slot], logits, atol=atol)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(precise, order)), logits, atol=atol)


def test_a_query_is_judged_alone_in_evaluation_mode_and_not_in_training_mode(learner, precise):
    judges_each_query_alone(learner, precise)
    learner.train()
    assert not torch.allclose(learner(precise)[0], learner(other_queries(precise))[0], rtol=0, atol=1e-4)


def test_stacked_tasks_equal_single_tasks(toys, learner):
    batch = EpisodeSampler(toys, 4, 2, 3, dtype=torch.float64).batch(0, 3)
    single = torch.stack([learner(e) for e in batch])
    support, query = (
        learner.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in (batch.support_x, batch.query_x)
    )
    together = learner.score(support, batch.support_y, query, 4)
    assert torch.allclose(single, together, rtol=0, atol=1e-4 if learner.classifier == "probe" else 1e-10)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_evaluating_twice_gives_the_same_and_changes_nothing(toys, classifier):
    """Trap C5: a learner that keeps what it fitted to one task carries it into the next."""
    torch.manual_seed(0)
    learner = TransferNetwork(conv4(8), 12, classifier=classifier, steps=10)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    attributes = set(vars(learner))
    sampler = EpisodeSampler(toys, 4, 1, 3)
    first, second = (evaluate(learner, sampler, 10).per_episode for _ in range(2))
    assert torch.equal(first, second)
    assert learner.training
    assert set(vars(learner)) == attributes
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())


def test_wrong_arguments_are_explained():
    with pytest.raises(ValueError, match='head must be "linear" or "cosine"; got \'mlp\''):
        TransferNetwork(conv4(8), 5, "mlp")
    with pytest.raises(ValueError, match="classifier must be one of centroid, probe, linear, cosine; got 'svm'"):
        TransferNetwork(conv4(8), 5, classifier="svm")
    for of_encoder in (lambda net: TransferNetwork(net, 5), FineTuneAll):
        with pytest.raises(ValueError, match="pass features=D"):
            of_encoder(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)))
    assert TransferNetwork(torch.nn.Identity(), 5, features=4).head.weight.shape == (5, 4)


def test_only_the_transferred_learner_lets_evaluate_embed_each_picture_once(learner):
    """A learner that trains its encoder on each task has no embedding before it."""
    assert isinstance(learner, ComparesEmbeddings)
    assert not isinstance(FineTuneAll(conv4(8)), ComparesEmbeddings)


def test_without_base_classes_nothing_warns(recwarn):
    """As weights ship: new tasks do not use the head."""
    learner = TransferNetwork(conv4(4), n_base=0)
    assert not recwarn.list
    assert learner.head.weight.shape == (0, 4)
