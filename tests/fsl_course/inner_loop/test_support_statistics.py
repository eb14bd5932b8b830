import pytest
import torch
from torch import Tensor, nn

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.inner_loop.functional import call, predict, trainable
from fsl_course.inner_loop.support_statistics import batch_statistics, query_statistics
from fsl_course.methods.anil import ANIL
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import MAML
from fsl_course.methods.meta_sgd import MetaSGD
from fsl_course.methods.reptile import Reptile
from tests.conftest import toy_images
from tests.fsl_course.methods.adapting import central_differences, randn, small_conv, small_episodes
from tests.fsl_course.methods.laws import judges_each_query_alone, other_queries

LEARNERS = {
    "maml": lambda model: MAML(model, 0.1, 2),
    "fomaml": lambda model: MAML(model, 0.1, 2, first_order=True),
    "meta_sgd": lambda model: MetaSGD(model, 0.1, 2),
    "reptile": lambda model: Reptile(model, 0.1, 2),
    "anil": lambda model: ANIL(model, 0.1, 2),
    "anil, whole": lambda model: ANIL(model, 0.1, 2, head=""),
}


@pytest.fixture(params=LEARNERS)
def learner(request) -> FewShotLearner:
    return LEARNERS[request.param](small_conv("batch"))


class Twice(nn.Module):
    """One batch norm that is called twice in a forward pass, another once, and not in the order they were made in."""

    def __init__(self, tracks: bool = True, affine: bool = True) -> None:
        super().__init__()
        self.late = nn.BatchNorm1d(3, track_running_stats=tracks, affine=affine)
        self.shared = nn.BatchNorm1d(3, track_running_stats=tracks, affine=affine)
        self.out = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.shared(x).tanh()
        z = self.shared(z + 0.5 * x**2)
        return self.out(self.late(z * x))


def twice(**kwargs: bool) -> Twice:
    torch.manual_seed(0)
    model = Twice(**kwargs).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def state_of(model: nn.Module) -> tuple[dict[str, Tensor], list[tuple]]:
    modes = [(m.training, getattr(m, "track_running_stats", None), len(m._forward_hooks) + len(m._forward_pre_hooks))
             for m in model.modules()]  # fmt: skip
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, modes


def assert_untouched(model: nn.Module, before: tuple[dict[str, Tensor], list[tuple]]) -> None:
    tensors, modes = state_of(model)
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in tensors.items())
    assert modes == before[1]


def normalised(x: Tensor, like: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """x by the mean and the biased variance of `like`, written out."""
    mean = like.sum(0) / len(like)
    variance = ((like - mean) ** 2).sum(0) / len(like)
    z = (x - mean) / (variance + norm.eps).sqrt()
    return z * norm.weight + norm.bias if norm.affine else z


def by_hand(model: Twice, support: Tensor, x: Tensor) -> Tensor:
    s1 = normalised(support, support, model.shared).tanh() + 0.5 * support**2
    x1 = normalised(x, support, model.shared).tanh() + 0.5 * x**2
    s2, x2 = (normalised(z, s1, model.shared) * of for z, of in ((s1, support), (x1, x)))
    return model.out(normalised(x2, s2, model.late))


@pytest.mark.parametrize("tracks", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_queries_are_normalised_by_the_support_call_by_call(affine, tracks):
    """Also where a batch norm works twice in a pass, and where it has no running statistics."""
    model, support, query = twice(affine=affine, tracks=tracks).eval(), randn(5, 3), randn(4, 3, seed=1)
    before = state_of(model)
    with query_statistics(model, lambda: model(support)):
        found, again = model(query[:1]), None
    with query_statistics(model, lambda: model(support)):
        again = model(query)
    assert torch.allclose(again, by_hand(model, support, query), rtol=0, atol=1e-12)
    assert torch.allclose(found, again[:1], rtol=0, atol=1e-12)
    assert_untouched(model, before)


@pytest.mark.parametrize("tracked", [True, False])  # without gradients another pass counts
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4), (5, 3, 4, 2), (3, 3, 2, 2, 2)])
def test_every_kind_of_batch_norm(shape, tracked):
    """One-dimensional, with and without length, two- and three-dimensional: the support's own pass comes out again."""
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    norm, support = kind(3, eps=0.1).double(), 3 + 2 * randn(*shape)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean += 5
    with batch_statistics(norm):
        expected = norm(support)
    norm.eval()
    with torch.set_grad_enabled(tracked), query_statistics(norm, lambda: norm(support)):
        assert torch.allclose(norm(support), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_without_batch_norm_makes_no_extra_pass(training):
    model = small_conv("group").train(training)
    with query_statistics(model, lambda: pytest.fail("no pass is needed")):
        assert model(small_episodes(1)[0].query_x).shape == (6, 3)


def test_training_mode_uses_the_statistics_of_the_queries():
    model, support, query = twice(), randn(5, 3), randn(4, 3, seed=1)
    before = state_of(model)
    with query_statistics(model, lambda: pytest.fail("no pass is needed")):
        assert torch.allclose(model(query), by_hand(model, query, query), rtol=0, atol=1e-12)
    assert_untouched(model, before)
    model.eval()
    with batch_statistics(model), query_statistics(model, lambda: model(support)):  # transductive
        assert torch.allclose(model(query), by_hand(model, query, query), rtol=0, atol=1e-12)
    assert_untouched(model.train(), before)


def test_one_batch_norm_in_evaluation_mode_is_enough_to_be_inductive():
    model, support, query = twice(), randn(5, 3), randn(4, 3, seed=1)
    model.late.eval()
    before = state_of(model)
    with query_statistics(model, lambda: call(model, {}, support)):
        assert torch.allclose(call(model, {}, query), by_hand(model, support, query), rtol=0, atol=1e-12)
    assert_untouched(model, before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("where", ["support", "block"])
def test_modes_hooks_and_statistics_come_back_after_an_exception(training, where):
    model = twice().train(training)
    before = state_of(model)

    def stumble(*args):
        model(randn(5, 3))
        raise RuntimeError("on purpose")

    if not (training and where == "support"):  # in training mode there is no support pass
        support_pass = stumble if where == "support" else lambda: model(randn(5, 3))
        with pytest.raises(RuntimeError, match="on purpose"), query_statistics(model, support_pass):
            stumble()
    with pytest.raises(RuntimeError, match="on purpose"), batch_statistics(model):
        stumble()
    assert_untouched(model, before)


def test_gradients_flow_through_the_statistics():
    """Central differences of a query loss in evaluation mode; and through a whole adaptation."""
    model, support, query = twice().eval(), randn(5, 3), randn(4, 3, seed=1)
    task = Episode(support, randn(5, 3, seed=2), query, randn(4, 3, seed=3), torch.zeros(0, dtype=torch.int64))
    params = trainable(model)
    found = torch.autograd.grad((predict(model, params, task) ** 2).mean(), list(params.values()))
    expected = central_differences(lambda theta: (predict(model, theta, task) ** 2).mean(), params)
    assert all(torch.allclose(g, e, rtol=0, atol=1e-7) for g, e in zip(found, expected.values(), strict=True))

    x = support.clone().requires_grad_()
    with query_statistics(model, lambda: model(x)):
        model(query).sum().backward()
    assert x.grad.abs().max() > 1e-3

    learner = MAML(model, 0.05, 2).eval()
    found = torch.autograd.grad(learner.loss(task), list(params.values()))

    def adapted_loss(theta: dict[str, Tensor]) -> Tensor:
        copy = twice().eval()
        copy.load_state_dict(theta, strict=False)
        return MAML(copy, 0.05, 2).eval().loss(task)

    expected = central_differences(adapted_loss, params)
    assert all(torch.allclose(g, e, rtol=0, atol=1e-6) for g, e in zip(found, expected.values(), strict=True))


# --- the same, seen through every learner that adapts --------------------------------------------------------------------


def test_every_query_is_judged_alone_in_evaluation_mode_only(learner):
    """Traps B1 and B2: in training mode, and where evaluation is transductive, other queries matter."""
    episode = small_episodes(1)[0]
    other = other_queries(episode)
    before = state_of(learner)
    judges_each_query_alone(learner.eval(), episode)
    with batch_statistics(learner):
        assert (learner(episode)[0] - learner(other)[0]).abs().max() > 1e-3
        transductive = learner(episode)
    learner.train()
    assert (learner(episode)[0] - learner(other)[0]).abs().max() > 1e-3
    assert torch.equal(learner(episode), transductive)
    assert_untouched(learner, before)


def test_a_support_row_as_a_query_gets_its_logits_of_the_support_pass(learner):
    """One task whose only query is a support picture: exactly what the adapted model says of it among the support."""
    episode = small_episodes(1)[0]
    row = Episode(episode.support_x, episode.support_y, episode.support_x[2:3], episode.support_y[2:3], episode.classes)
    whole = Episode(episode.support_x, episode.support_y, episode.support_x, episode.support_y, episode.classes)
    learner.eval()
    with batch_statistics(learner):
        support_pass = learner(whole)  # the support judged together, as the inner loop does
    assert torch.allclose(learner(row)[0], support_pass[2], rtol=0, atol=1e-12)
    assert torch.allclose(learner(whole), support_pass, rtol=0, atol=1e-12)


def test_running_statistics_never_move_and_never_matter(learner):
    batch, episode = small_episodes(2), small_episodes(1)[0]
    before, output = state_of(learner), learner.eval()(episode)
    learner.train().training_step(batch).backward()
    learner(episode)
    with torch.no_grad():
        learner(episode)
    assert_untouched(learner, before)
    for module in learner.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 3
            module.running_var *= 7
    assert torch.equal(learner.eval()(episode), output)


def test_evaluation_is_inductive_unless_asked_otherwise(learner):
    """The number of queries in an episode changes a transductive result only."""
    sampler = EpisodeSampler(toy_images(size=16, noise=200), 3, 2, 2, dtype=torch.float64)
    before = state_of(learner)
    for transductive in (False, True):
        outputs = []
        hook = learner.register_forward_hook(lambda module, args, output: outputs.append((args[0], output)))  # noqa: B023
        evaluate(learner, sampler, 2, transductive=transductive)
        hook.remove()
        for episode, output in outputs:
            single = Episode(
                episode.support_x, episode.support_y, episode.query_x[:1], episode.query_y[:1], episode.classes
            )
            alone = learner.eval()(single)
            assert torch.allclose(output[:1], alone, rtol=0, atol=1e-12) != transductive
        learner.train()
    assert_untouched(learner, before)


@pytest.mark.parametrize("missing", ["weight", "bias"])
def test_a_norm_may_lack_its_weight_or_its_bias(missing):
    model, episode = small_conv("batch"), small_episodes(1)[0]
    setattr(model.encoder.layers[1], missing, None)
    by_one = MAML(model, 0.1, 0).eval()
    with torch.no_grad():
        found = by_one(episode)
        setattr(model.encoder.layers[1], missing, nn.Parameter(torch.full((4,), float(missing == "weight")).double()))
        assert torch.allclose(found, by_one(episode), rtol=0, atol=1e-12)
