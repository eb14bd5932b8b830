import pytest
import torch
from torch import Tensor, nn

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.inner_loop.functional import supervised_loss, with_gradient
from fsl_course.inner_loop.support_statistics import batch_statistics
from fsl_course.methods.base import ComparesEmbeddings, FewShotLearner, by_embeddings, class_means, class_sums


def test_sums_and_means_by_hand_with_unequal_shots():
    rows = torch.tensor([[4.0, 4.0], [0.0, 0.0], [4.0, 2.0], [2.0, 0.0], [4.0, 0.0]])
    labels = torch.tensor([1, 0, 1, 0, 1])
    assert class_sums(rows, labels, 2).tolist() == [[2.0, 0.0], [12.0, 6.0]]
    assert class_means(rows, labels, 2).tolist() == [[1.0, 0.0], [4.0, 2.0]]


def test_several_task_axes_equal_loops():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 3, 7, 4, generator=generator, dtype=torch.float64)
    labels = torch.stack([torch.randperm(7, generator=generator) % 3 for _ in range(6)]).view(2, 3, 7)
    labels[0, 1] = torch.tensor([2, 0, 1, 2, 2, 2, 2])  # shots differ within a task and from task to task
    sums, means = class_sums(rows, labels, 3), class_means(rows, labels, 3)
    assert sums.shape == means.shape == (2, 3, 3, 4)
    assert sums.dtype == means.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            for k in range(3):
                members = [rows[i, j, s] for s in range(7) if labels[i, j, s] == k]
                assert torch.allclose(sums[i, j, k], sum(members), atol=1e-12)
                assert torch.allclose(means[i, j, k], sum(members) / len(members), atol=1e-12)


def test_order_of_rows_changes_nothing_and_gradients_are_right():
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels, order = torch.tensor([2, 0, 1, 0, 2, 2]), torch.randperm(6, generator=generator)
    for pool in (class_sums, class_means):
        assert torch.allclose(pool(rows[order], labels[order], 3), pool(rows, labels, 3), atol=1e-14)
        assert torch.autograd.gradcheck(lambda r, pool=pool: pool(r, labels, 3), (rows,))


@pytest.mark.parametrize("pool", [class_sums, class_means])
def test_wrong_labels_are_explained(pool):
    rows = torch.rand(2, 4, 3)
    whole = torch.tensor([0, 1, 2, 2])
    with pytest.raises(ValueError, match="cover the slots 0..2"):  # the second task lacks class 2, the first has it
        pool(rows, torch.stack([whole, torch.tensor([0, 0, 1, 1])]), 3)
    with pytest.raises(ValueError, match=r"cover the slots 0..1; got \[0, 1, 2\]"):
        pool(rows[0], whole, 2)
    with pytest.raises(ValueError, match="cover the slots"):
        pool(rows[0], whole - 1, 3)
    with pytest.raises(ValueError, match="cover the slots 0..2; got \\[\\]"):
        pool(torch.rand(0, 3), torch.zeros(0, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match="int64"):
        pool(rows[0], whole.float(), 3)


class Recorder(FewShotLearner):
    """Doubles pictures, and keeps what its two halves were given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def embed(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return 2 * x.flatten(1)

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        self.scored = (support, labels, query, n_way)
        return query.new_zeros(len(query), n_way)


def test_by_embeddings_embeds_once_and_parts_support_from_query():
    """Five classes of which the labels show three: N comes from the episode."""
    support, query = torch.rand(4, 1, 2, 2), torch.rand(3, 1, 2, 2)
    labels = torch.tensor([2, 0, 1, 0])
    learner = Recorder()
    assert isinstance(learner, ComparesEmbeddings)
    logits = by_embeddings(learner, Episode(support, labels, query, torch.tensor([0, 1, 2]), torch.arange(5)))
    assert logits.shape == (3, 5)
    assert len(learner.seen) == 1
    assert torch.equal(learner.seen[0], torch.cat([support, query]))
    found = learner.scored
    assert torch.equal(found[0], 2 * support.flatten(1))
    assert torch.equal(found[1], labels)
    assert torch.equal(found[2], 2 * query.flatten(1))
    assert found[3] == 5


def test_by_default_pictures_are_embedded_by_the_encoder(task):
    class Ruler(FewShotLearner):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.Flatten()

        def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
            return query @ class_means(support, labels, n_way).mT

    expected = task.query_x.flatten(1) @ class_means(task.support_x.flatten(1), task.support_y, task.n_way).mT
    assert torch.allclose(Ruler()(task), expected)


def test_a_plain_learner_compares_no_embeddings_and_says_what_is_missing(task):
    assert not isinstance(FewShotLearner(), ComparesEmbeddings)
    with pytest.raises(NotImplementedError, match=r"FewShotLearner must define forward\(episode\)"):
        FewShotLearner()(task)


def test_by_default_nothing_follows_training(toys):
    learner = Recorder()
    assert learner.after_training(EpisodeSampler(toys, 3, 1, 2)) is None
    assert not learner.joins_tasks


def test_the_loss_follows_the_targets():
    """Labels: mean cross-entropy. Numbers: mean squared error over rows and dimensions."""
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.5, -1.0, 0.0]], dtype=torch.float64)
    expected = -(logits[0, 2] - logits[0].exp().sum().log() + logits[1, 0] - logits[1].exp().sum().log()) / 2
    assert supervised_loss(logits, torch.tensor([2, 0])).item() == pytest.approx(expected.item(), rel=1e-12)
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.5, 1.0, 3.0]], dtype=torch.float64)
    assert supervised_loss(logits, targets).item() == pytest.approx((1 + 4 + 9) / 6)


class Line(FewShotLearner):
    """x -> w x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(3.0))

    def forward(self, episode: Episode) -> Tensor:
        return self.w * episode.query_x


def test_loss_and_training_step_of_regression_tasks():
    x = torch.tensor([[[1.0], [2.0]], [[0.0], [4.0]]])
    episodes = Episode(x, x, x, x, torch.zeros(2, 0, dtype=torch.int64))
    assert [Line().loss(task).item() for task in episodes] == [10, 32]  # the mean of (3x - x)^2
    assert Line().training_step(episodes).item() == 21


def test_with_gradient_has_the_value_and_the_gradient_it_is_given():
    a, b, c = (torch.tensor(v, requires_grad=True) for v in ([1.0, 2.0], [[3.0]], [7.0]))
    value = (a.sum() * b).squeeze()
    given = torch.tensor([0.5, -4.0], requires_grad=True)
    loss = with_gradient(value, [a, b, c], [given, torch.tensor([[6.0]]), None])
    assert loss.dim() == 0
    assert loss.item() == value.item() == 9
    (2 * loss).backward()
    assert a.grad.tolist() == [1.0, -8.0]
    assert b.grad.tolist() == [[12.0]]
    assert c.grad is None
    assert given.grad is None
    with pytest.raises(ValueError, match="zip"):
        with_gradient(value, [a, b], [given])


def test_with_gradient_keeps_value_and_precision():
    """Not a digit of the value is lost to the term that carries the gradient."""
    big = torch.tensor([1e8], dtype=torch.float64, requires_grad=True)
    loss = with_gradient(torch.tensor(0.1, dtype=torch.float64), [big], [torch.tensor([3.0], dtype=torch.float64)])
    assert loss.dtype == torch.float64
    assert loss.item() == 0.1
    assert not with_gradient(torch.tensor(2.0), [], []).requires_grad


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("tracks", [True, False])
def test_batch_statistics_are_those_of_the_batch_for_the_time_of_the_block(training, tracks):
    norm = nn.BatchNorm1d(2, track_running_stats=tracks, affine=False).double()
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(norm)).train(training)
    model[0].eval()
    modes = [m.training for m in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.tensor([[1.0, 0.0], [3.0, 8.0]], dtype=torch.float64)
    with batch_statistics(model):
        found = model(x)
        with batch_statistics(model):  # once more inside changes nothing
            assert torch.equal(model(x), found)
        assert torch.equal(model(x), found)
        assert not model[0].training  # other modules keep their mode
    expected = torch.tensor([[-1 / (1 + 1e-5) ** 0.5, -4 / (16 + 1e-5) ** 0.5]], dtype=torch.float64)
    assert torch.allclose(found, torch.cat([expected, -expected]), atol=1e-12)
    with pytest.raises(RuntimeError, match="on purpose"), batch_statistics(model):
        raise RuntimeError("on purpose")
    assert [m.training for m in model.modules()] == modes
    assert norm.track_running_stats == tracks
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
