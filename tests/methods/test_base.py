import pytest
import torch
from torch import Tensor

from fsl_course.episodes import Episode
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


def test_a_plain_learner_compares_no_embeddings_and_says_what_is_missing(task):
    assert not isinstance(FewShotLearner(), ComparesEmbeddings)
    with pytest.raises(NotImplementedError, match=r"FewShotLearner must define forward\(episode\)"):
        FewShotLearner()(task)
