import pytest
import torch
import torch.nn.functional as F
from sklearn.semi_supervised import LabelSpreading

from fsl_course.classifier import FewShotClassifier
from fsl_course.data import load_glyphs
from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.label_propagation import LabelPropagation, affinities, normalised, propagate
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import card, pretrained
from tests.conftest import permute_support, relabel, settled, toy_images
from tests.fsl_course.methods.laws import evaluating_twice_changes_nothing, other_queries


@pytest.fixture
def learner(precise: Episode) -> LabelPropagation:
    torch.manual_seed(0)
    return settled(LabelPropagation(conv4(8), neighbours=4).double(), precise)


def points(count: int = 12, features: int = 3) -> torch.Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_by_hand_a_path_of_three_nodes():
    """0 - 1 - 2 with weights 1: degrees 1, 2, 1, so S_01 = 1/sqrt(2). With alpha 1/2, I - alpha S has the determinant 3/4."""
    weights = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.float64)
    flow = normalised(weights)
    assert torch.allclose(flow, weights / 2**0.5)
    found = propagate(flow, torch.tensor([[1.0], [0], [0]], dtype=torch.float64), 0.5)
    # the cofactors (1 - a^2, a, a^2) with a = 1 / (2 sqrt 2), over the determinant 1 - 2 a^2
    assert torch.allclose(found[:, 0], torch.tensor([7 / 8, 1 / 8**0.5, 1 / 8], dtype=torch.float64) / 0.75)


def test_closed_form_is_the_limit_of_the_iteration():
    given = F.pad(F.one_hot(torch.tensor([0, 1, 2]), 3).double(), (0, 0, 0, 9))
    flow = normalised(affinities(points(), 4))
    for alpha in (0.5, 0.9, 0.99):
        state = torch.rand(12, 3, dtype=torch.float64)  # the start does not matter
        for _ in range(4000):
            state = alpha * flow @ state + (1 - alpha) * given
        assert torch.allclose(state, (1 - alpha) * propagate(flow, given, alpha), atol=1e-12)


def test_it_agrees_with_label_spreading_of_scikit_learn():
    """The same method, written by others: a kernel of all pairs, iterated, and its rows normalised."""
    x, y = points(), torch.tensor([0, 1, 2, 1] + [-1] * 8)
    gamma = 0.4  # of exp(-gamma d^2); here 1 / (2 sigma^2 mean of d^2)
    mean = torch.cdist(x, x).square().sum() / (12 * 11)
    theirs = LabelSpreading(gamma=gamma, alpha=0.8, max_iter=5000, tol=1e-14).fit(x.numpy(), y.numpy())
    given = F.pad(F.one_hot(y[:4], 3).double(), (0, 0, 0, 8))
    weights = affinities(x, None, float((2 * gamma * mean) ** -0.5))
    mine = propagate(normalised(weights), given, 0.8)
    expected = torch.from_numpy(theirs.label_distributions_)
    assert torch.allclose(mine / mine.sum(1, keepdim=True), expected, atol=1e-8)


def test_edges_are_symmetric_and_join_neighbours_of_either_end():
    x = points()
    weights, dense = affinities(x, 2), affinities(x, None)
    nearest = torch.cdist(x, x).fill_diagonal_(torch.inf).argsort(1)[:, :2].tolist()
    for i in range(12):
        for j in range(12):
            kept = i != j and (j in nearest[i] or i in nearest[j])
            assert weights[i, j] == (dense[i, j] if kept else 0)
    assert torch.equal(weights, weights.T)
    assert torch.allclose(affinities(7 * x + 3, 2), weights, atol=1e-12)  # the unit and the origin do not matter
    assert torch.equal(affinities(x, 11), dense)
    assert torch.allclose(affinities(x[None].expand(2, -1, -1), 2)[1], weights)
    assert bool(affinities(torch.ones(3, 2)).isfinite().all())  # equal pictures


def test_relabelling_slots_permutes_logits_and_order_changes_nothing(learner, precise):
    logits, new_slot = learner(precise), torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(learner(relabel(precise, new_slot))[:, new_slot], logits, atol=1e-9)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(precise, order)), logits, atol=1e-9)


def test_permuting_the_queries_permutes_the_answers_though_each_depends_on_the_others(learner, precise):
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    moved = Episode(
        precise.support_x, precise.support_y, precise.query_x[order], precise.query_y[order], precise.classes
    )
    assert torch.allclose(learner(moved), learner(precise)[order], atol=1e-9)
    assert learner.transductive
    assert not torch.allclose(learner(precise)[0], learner(other_queries(precise))[0], atol=1e-3)


def test_an_isolated_query_gets_the_same_share_from_every_class():
    x = torch.tensor([[0.0, 0], [1, 0], [0, 0.1], [1, 0.1], [90, 90], [90, 91]], dtype=torch.float64)
    logits = LabelPropagation(torch.nn.Identity(), neighbours=1).score(x[:2], torch.tensor([0, 1]), x[2:], 2)
    assert logits[:2].argmax(1).tolist() == [0, 1]
    assert torch.equal(logits[2:, 0], logits[2:, 1])
    assert bool(logits.isfinite().all())


def test_gradient_agrees_with_finite_differences():
    support, query = points(6), points(11)[6:]
    learner, target = LabelPropagation(torch.nn.Identity(), 3, alpha=0.7), torch.tensor([0, 1, 2, 0, 1])

    def loss(support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(learner.score(support, torch.tensor([0, 1, 2, 2, 1, 0]), query, 3), target)

    assert torch.autograd.gradcheck(loss, (support.requires_grad_(), query.requires_grad_()), atol=1e-7)


def test_evaluate_and_the_classifier_judge_the_queries_of_a_task_together(learner, precise):
    assert isinstance(learner, ComparesEmbeddings)
    learner = learner.float()
    evaluating_twice_changes_nothing(learner.train(), toy_images(noise=200), 5)
    result = evaluate(learner, EpisodeSampler(toy_images(), 5, 1, 3), 3)
    assert result.transductive
    assert "transductive" in str(result)
    clf = FewShotClassifier(learner).fit(precise.support_x, [str(y) for y in precise.support_y.tolist()])
    many = (precise.query_x.repeat(20, 1, 1, 1) * torch.linspace(0.5, 1, 300).view(-1, 1, 1, 1)).float()
    together = clf.decision_function(many)  # more than a forward pass takes
    task = Episode(precise.support_x.float(), precise.support_y, clf.pictures(many) / 255, None, precise.classes)
    assert torch.allclose(together, learner.eval()(task), atol=1e-3)
    assert not torch.allclose(together[0], clf.decision_function(many[:1])[0], atol=1e-3)


def test_it_learns_in_seconds():
    source = toy_images(80, 8, noise=230)
    torch.manual_seed(0)
    learner, test = LabelPropagation(conv4(16), neighbours=3), EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    before = evaluate(learner, test, 50)
    fit(learner, EpisodeSampler(source.split("train"), 10, 1, 3), steps=60, progress=False)
    after = evaluate(learner, test, 50)
    assert after.mean > max(0.9, before.mean + 0.1)


def test_shipped_weights_reach_the_number_on_their_card():
    sampler, about = EpisodeSampler(load_glyphs().split("test"), 5, 1, 15), card("label_propagation", "glyphs")
    result = evaluate(pretrained("label_propagation", "glyphs"), sampler, 60)
    assert about["protocol"].startswith("transductive")
    assert abs(result.mean - about["test"][0]["mean"]) < 2 * result.ci95


def test_wrong_arguments_are_explained():
    for wrong in (1.0, -0.1):
        with pytest.raises(ValueError, match="alpha must be at least 0 and below 1"):
            LabelPropagation(conv4(8), alpha=wrong)
    with pytest.raises(ValueError, match="neighbours must be at least 1, and sigma above 0"):
        LabelPropagation(conv4(8), neighbours=0)
    with pytest.raises(ValueError, match="cover the slots"):
        LabelPropagation(torch.nn.Identity()).score(torch.rand(2, 3), torch.tensor([0, 0]), torch.rand(1, 3), 2)
