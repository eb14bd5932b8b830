import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge

from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.ridge import RidgeRegression, ridge, ridge_head, solve_dual, solve_primal
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from tests.conftest import settled, toy_images
from tests.fsl_course.methods.laws import (
    evaluating_twice_changes_nothing,
    judges_each_query_alone,
    order_and_slots_do_not_matter,
    stacked_tasks_equal_single_tasks,
)


@pytest.fixture
def learner(precise) -> RidgeRegression:
    torch.manual_seed(0)
    return settled(RidgeRegression(conv4(8), l2=0.3).double(), precise)


def some_task(shots: tuple[int, ...] = (2, 3, 1), features: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings in float64 with labels in mixed order, and five queries."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(len(shots)).repeat_interleave(torch.tensor(shots))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    rows = torch.randn(len(labels) + 5, features, generator=generator, dtype=torch.float64)
    return rows[:-5] + labels[:, None], labels, rows[-5:]


class Scores(RidgeRegression):
    """Takes embeddings, so that functional_call can put numbers in the place of its parameters."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity())

    def forward(self, *inputs):
        return self.score(*inputs)


def test_by_hand():
    """Two pictures, (1, 0) of class 0 and (0, 1) of class 1, lambda 1, without a bias: X'X + I = 2 I, so W = I / 2."""
    eye = torch.eye(2)
    assert torch.allclose(solve_primal(eye, eye, 1.0), eye / 2)
    assert torch.allclose(solve_dual(eye, eye, 1.0), eye / 2)
    weight, bias = ridge_head(eye, torch.tensor([0, 1]), 2, 1.0)  # centred, the rows are (1, -1) / 2 and (-1, 1) / 2
    assert torch.allclose(weight, torch.tensor([[0.25, -0.25], [-0.25, 0.25]]))
    assert torch.allclose(bias, torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(("rows", "features"), [(6, 20), (20, 6), (7, 7)])
def test_dual_equals_primal(rows, features):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, rows, features, generator=generator, dtype=torch.float64)
    y = torch.randn(3, rows, 4, generator=generator, dtype=torch.float64)
    for l2 in (1e-3, 1.0, 1e3):
        primal = solve_primal(x, y, l2)
        assert torch.allclose(primal, solve_dual(x, y, l2), atol=1e-9)
        assert torch.equal(ridge(x, y, l2), solve_dual(x, y, l2) if rows <= features else primal)


@pytest.mark.parametrize("features", [3, 12])
def test_it_equals_scikit_learn(features):
    """Whose intercept is not penalised either."""
    support, labels, query = some_task(features=features)
    for l2 in (0.01, 2.0):
        theirs = Ridge(alpha=l2).fit(support.numpy(), F.one_hot(labels).double().numpy())
        weight, bias = ridge_head(support, labels, 3, l2)
        assert torch.allclose(weight, torch.from_numpy(theirs.coef_), atol=1e-9)
        expected = torch.from_numpy(theirs.predict(query.numpy()))
        assert torch.allclose(query @ weight.T + bias, expected, atol=1e-9)
        without = Ridge(alpha=l2, fit_intercept=False).fit(support.numpy(), F.one_hot(labels).double().numpy())
        found = ridge(support, F.one_hot(labels).double(), l2)
        assert torch.allclose(found.T, torch.from_numpy(without.coef_), atol=1e-9)


def test_gradients_flow_through_the_solve():
    support, labels, query = some_task()
    target = torch.tensor([0, 1, 2, 0, 1])

    def loss(support, query, log_l2, log_scale):
        values = {"log_l2": log_l2, "log_scale": log_scale}
        logits = torch.func.functional_call(Scores(), values, (support, labels, query, 3))
        return F.cross_entropy(logits, target)

    numbers = [torch.tensor(v, dtype=torch.float64) for v in (-0.5, 1.0)]
    assert torch.autograd.gradcheck(loss, [t.requires_grad_() for t in (support, query, *numbers)])
    for features in (2, 9):  # the primal and the dual system
        x = torch.randn(5, features, dtype=torch.float64, requires_grad=True)
        l2 = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x, l2: ridge(x, torch.eye(5).double(), l2), (x, l2))


def test_moving_all_embeddings_changes_nothing():
    """Because the bias is not penalised; a column of ones that is penalised fails this law."""
    support, labels, query = some_task()
    shift = torch.tensor([3.0, -1.0, 0.5, 10.0], dtype=torch.float64)
    learner = RidgeRegression(torch.nn.Identity())
    with torch.no_grad():
        logits = learner.score(support, labels, query, 3)
        assert torch.allclose(logits, learner.score(support + shift, labels, query + shift, 3), atol=1e-6)
        ones = [torch.cat([z, torch.ones_like(z[:, :1])], 1) for z in (support, query, support + shift, query + shift)]
        targets = F.one_hot(labels).double()
        here, there = (q @ ridge(s, targets, 1.0) for s, q in (ones[:2], ones[2:]))
        assert (here - there).abs().max() > 0.05


def test_a_strong_penalty_turns_the_weights_into_class_means():
    """lambda W -> X'Y: with equal shots, w_k = K (c_k - mean of the support)."""
    support, labels, _ = some_task((2, 2, 2))
    weight, _ = ridge_head(support, labels, 3, 1e6)
    centres = torch.stack([support[labels == k].mean(0) for k in range(3)])
    assert torch.allclose(1e6 * weight, 2 * (centres - support.mean(0)), rtol=1e-4)


def test_laws(learner, precise):
    order_and_slots_do_not_matter(learner, precise)
    judges_each_query_alone(learner, precise)
    assert isinstance(learner, ComparesEmbeddings)


def test_stacked_tasks_equal_single_tasks(toys, learner):
    stacked_tasks_equal_single_tasks(learner, toys, atol=1e-9)


def test_evaluation_leaves_no_trace(toys):
    torch.manual_seed(0)
    evaluating_twice_changes_nothing(RidgeRegression(conv4(8)), toys, 6)


def test_it_learns_in_seconds():
    source = toy_images(80, 8, noise=120)
    torch.manual_seed(0)
    learner = RidgeRegression(conv4(16))
    test = EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    before = evaluate(learner, test, 50)
    fit(learner, EpisodeSampler(source.split("train"), 10, 1, 3), steps=60, progress=False)
    after = evaluate(learner, test, 50)
    assert after.mean > max(0.9, before.mean + 0.1)
    assert learner.l2 != 10.0  # lambda and scale are trained, too
    assert learner.scale != 10.0


def test_wrong_arguments_are_explained():
    for wrong in ({"l2": 0.0}, {"scale": -1.0}):
        with pytest.raises(ValueError, match="l2 and scale must be positive"):
            RidgeRegression(conv4(8), **wrong)
    with pytest.raises(ValueError, match="cover the slots"):
        ridge_head(torch.rand(4, 3), torch.tensor([0, 0, 1, 1]), 3, 1.0)
