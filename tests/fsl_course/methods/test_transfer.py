import math
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from fsl_course.episodes import Episode, EpisodeSampler
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

LABELS = torch.tensor([2, 0, 1, 2, 2, 0])  # unequal shots


@pytest.fixture
def encoder(precise) -> torch.nn.Module:
    torch.manual_seed(0)
    return settled(conv4(8).double(), precise)


@pytest.fixture(params=CLASSIFIERS)
def learner(request, encoder) -> TransferNetwork:
    return TransferNetwork(encoder, 12, classifier=request.param, steps=20).double().eval()


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the classifiers of a task ---------------------------------------------------------------------------------------


def probe_objective(weight: Tensor, bias: Tensor, support: Tensor, labels: Tensor, l2: float) -> Tensor:
    total = support.new_zeros(())
    for z, k in zip(support, labels.tolist(), strict=True):
        logits = torch.stack([w @ z + b for w, b in zip(weight, bias, strict=True)])
        total = total - logits[k] + logits.exp().sum().log()
    return total / len(support) + l2 / 2 * (weight.square().sum() + bias.square().sum())


@pytest.mark.parametrize("l2", [0.01, 0.3])
def test_the_probe_is_the_minimum_that_scipy_finds(l2):
    support = randn(6, 4, seed=1)
    weight, bias = (t.requires_grad_() for t in fit_probe(support, LABELS, 3, l2))
    gradient = torch.autograd.grad(probe_objective(weight, bias, support, LABELS, l2), (weight, bias))
    assert all(g.abs().max() < 1e-5 for g in gradient)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.from_numpy(flat).view(3, 5).requires_grad_()
        value = probe_objective(w[:, :4], w[:, 4], support, LABELS, l2)
        value.backward()
        return value.item(), w.grad.numpy().ravel()

    found = minimize(objective, np.ones(15), jac=True, method="BFGS", options={"gtol": 1e-8})
    expected = torch.from_numpy(found.x).view(3, 5)
    assert torch.allclose(torch.cat([weight, bias[:, None]], 1), expected, atol=1e-3)
    assert expected.abs().max() > 0.1


def test_the_probe_by_hand():
    """Two points at +1 and -1: by symmetry w = (v, -v), b = 0, with sigmoid(-2v) = l2 * v."""
    weight, bias = fit_probe(torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([0, 1]), 2, l2=0.1)
    v = weight[0, 0].item()
    assert weight[1, 0].item() == pytest.approx(-v, abs=1e-6)
    assert bias.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert 1 / (1 + math.exp(2 * v)) == pytest.approx(0.1 * v, abs=1e-5)


def test_linear_head_equals_an_explicit_loop():
    support, labels = randn(6, 4, seed=1), LABELS
    weight, bias = torch.zeros(3, 4).double(), torch.zeros(3).double()
    for _ in range(7):
        step_w, step_b = torch.zeros_like(weight), torch.zeros_like(bias)
        for z, k in zip(support, labels.tolist(), strict=True):
            p = (weight @ z + bias).softmax(0)
            p[k] -= 1  # the gradient of cross-entropy in the logits
            step_w += p[:, None] * z / 6
            step_b += p / 6
        weight, bias = weight - 0.3 * step_w, bias - 0.3 * step_b
    found = fit_linear(support, labels, 3, steps=7, lr=0.3)
    assert torch.allclose(found[0], weight, atol=1e-12)
    assert torch.allclose(found[1], bias, atol=1e-12)
    assert all((t == 0).all() for t in fit_linear(support, labels, 3, steps=0))  # no slot is ahead


def test_cosine_head_equals_an_explicit_loop():
    support = randn(6, 4, seed=1)
    unit = [z / z.norm() for z in support]
    rows = []
    for k in range(3):
        members = [z for z, label in zip(unit, LABELS.tolist(), strict=True) if label == k]
        mean = sum(members) / len(members)
        rows.append(mean / mean.norm())
    start = torch.stack(rows)
    assert torch.allclose(fit_cosine(support, LABELS, 3, 5.0, steps=0), start, atol=1e-12)
    weight = start
    for _ in range(6):
        weight = weight.detach().requires_grad_()
        total = 0.0
        for z, k in zip(unit, LABELS.tolist(), strict=True):
            logits = torch.stack([5 * (z @ w) / w.norm() for w in weight])
            total = total - logits.log_softmax(0)[k] / 6
        total.backward()
        weight = weight - 0.4 * weight.grad
    found = fit_cosine(support, LABELS, 3, 5.0, steps=6, lr=0.4)
    assert torch.allclose(found, weight.detach(), atol=1e-12)
    assert not torch.allclose(found, start, atol=1e-2)
    assert torch.allclose(fit_cosine(3 * support, LABELS, 3, 5.0, 6, 0.4), found, atol=1e-12)  # directions only


def test_classifiers_are_fitted_also_where_gradients_are_switched_off_and_leave_none_behind():
    support = randn(6, 4, seed=1).requires_grad_()
    fitters = (fit_probe, fit_linear, lambda *args: (fit_cosine(*args, 10.0),))
    for fitter in fitters:
        outside = fitter(support, LABELS, 3)
        with torch.no_grad():
            inside = fitter(support, LABELS, 3)
        assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(inside, outside, strict=True))
    assert support.grad is None


def test_tasks_do_not_see_each_other():
    """An easy and a hard task, and one task alone: the same classifiers, to the accuracy of the solver."""
    support = torch.stack([randn(6, 4, seed=1), 5 * randn(6, 4, seed=2), 0.1 * randn(6, 4, seed=3)])
    labels = torch.stack([LABELS, LABELS.flip(0), LABELS])
    for fitter, atol in (
        (fit_probe, 1e-3),
        (fit_linear, 1e-12),
        (lambda *args: (fit_cosine(*args, 10.0),), 1e-12),
    ):
        together = fitter(support, labels, 3)
        for t in range(3):
            alone = fitter(support[t], labels[t], 3)
            assert all(torch.allclose(a[t], b, atol=atol) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("fitter", [fit_probe, fit_linear, lambda *args: fit_cosine(*args, 10.0)])
def test_labels_that_do_not_fit_are_explained(fitter):
    for labels in ([0, 0, 1, 1], [0, 1, 2, 3]):
        with pytest.raises(ValueError, match="cover the slots 0..2"):
            fitter(torch.rand(4, 3), torch.tensor(labels), 3)


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


# --- pretraining -----------------------------------------------------------------------------------------------------


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


# --- laws of the transferred learner ---------------------------------------------------------------------------------


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
    for make in (lambda net: TransferNetwork(net, 5), FineTuneAll):
        with pytest.raises(ValueError, match="pass features=D"):
            make(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)))
    assert TransferNetwork(torch.nn.Identity(), 5, features=4).head.weight.shape == (5, 4)


def test_only_the_transferred_learner_lets_evaluate_embed_each_picture_once(learner):
    """A learner that trains its encoder on each task has no embedding before it."""
    assert isinstance(learner, ComparesEmbeddings)
    assert not isinstance(FineTuneAll(conv4(8)), ComparesEmbeddings)


# --- fine-tuning of everything ---------------------------------------------------------------------------------------


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


def test_without_base_classes_nothing_warns(recwarn):
    """As weights ship: new tasks do not use the head."""
    learner = TransferNetwork(conv4(4), n_base=0)
    assert not recwarn.list
    assert learner.head.weight.shape == (0, 4)
