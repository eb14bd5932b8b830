from itertools import permutations

import pytest
import torch
import torch.nn.functional as F

from fsl_course.data import load_glyphs
from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.graph import Edges, GraphNetwork, Messages
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import card, pretrained
from tests.conftest import permute_support, relabel, settled, toy_images
from tests.fsl_course.methods.laws import (
    evaluating_twice_changes_nothing,
    judges_each_query_alone,
    other_queries,
)


def settled_graph(precise: Episode, transductive: bool = False) -> GraphNetwork:
    torch.manual_seed(0)
    return settled(GraphNetwork(conv4(8), transductive, hidden=6).double(), precise)


def test_by_hand_two_nodes_listen_to_each_other():
    """With two nodes A is the exchange of rows, whatever the MLP says; then A x W1 + x W2 is worked out on paper."""
    nodes = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])
    edges = Edges(2, 3)(nodes)
    assert torch.equal(edges, torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
    layer = Messages(2, 1)
    with torch.no_grad():
        layer.others.weight.copy_(torch.tensor([[1.0, 10.0]]))
        layer.others.bias.fill_(0.5)
        layer.own.weight.copy_(torch.tensor([[100.0, 0.0]]))
    assert layer(edges, nodes)[0, :, 0].tolist() == [53.5 + 100, 21.5 + 300]


def test_edges_start_where_near_nodes_listen_to_each_other():
    torch.manual_seed(0)
    nodes = torch.tensor([[[0.0, 0.0], [0.1, 0.0], [3.0, 3.0]]])
    found = Edges(2, 16)(nodes)[0]
    assert torch.allclose(found.sum(1), torch.ones(3))
    assert found[0, 1] > found[0, 2]
    assert found.diagonal().tolist() == [0, 0, 0]


def by_loops(learner: GraphNetwork, support: torch.Tensor, labels: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """An independent second implementation: node by node, edge by edge, for one query."""
    known = [torch.cat([learner.norm(z), F.one_hot(y, 5).double()]) for z, y in zip(support, labels, strict=True)]
    nodes = [*known, torch.cat([learner.norm(query), torch.full((5,), 0.2, dtype=torch.float64)])]
    for layer, (edges, messages) in enumerate(zip(learner.edges, learner.messages, strict=True)):
        new = []
        for i, x in enumerate(nodes):
            others = [j for j in range(len(nodes)) if j != i]
            a = torch.stack([edges.mlp((x - nodes[j]).abs())[0] for j in others]).softmax(0)
            heard = sum(w * messages.others(nodes[j]) for w, j in zip(a, others, strict=True))
            out = heard + messages.own(x)
            new.append(torch.cat([x, F.leaky_relu(out)]) if layer < 2 else out)
        nodes = new
    return nodes[-1]


def test_it_agrees_with_loops_over_nodes_and_edges(precise):
    learner = settled_graph(precise)
    support, query = learner.embed(precise.support_x), learner.embed(precise.query_x)
    together = learner.score(support, precise.support_y, query, 5)
    for row in (0, 7):
        assert torch.allclose(together[row], by_loops(learner, support, precise.support_y, query[row]), atol=1e-10)


def test_stacked_tasks_and_small_parts_equal_single_tasks(toys, precise, monkeypatch):
    learner, batch = settled_graph(precise), EpisodeSampler(toys, 5, 2, 3, dtype=torch.float64).batch(0, 3)
    single = torch.stack([learner(e) for e in batch])
    embedded = [learner.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in (batch.support_x, batch.query_x)]
    for floats in (10**7, 1):
        monkeypatch.setattr("fsl_course.methods.graph._FLOATS_AT_ONCE", floats)
        together = learner.score(embedded[0], batch.support_y, embedded[1], 5)
        assert torch.allclose(single, together, atol=1e-10)


@pytest.mark.parametrize("transductive", [False, True])
def test_order_of_support_changes_nothing_and_queries_permute_their_answers(precise, transductive):
    learner = settled_graph(precise, transductive)
    logits, order = learner(precise), torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(precise, order)), logits, atol=1e-10)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    moved = Episode(
        precise.support_x, precise.support_y, precise.query_x[order], precise.query_y[order], precise.classes
    )
    assert torch.allclose(learner(moved), logits[order], atol=1e-10)


def test_relabelling_slots_permutes_logits_on_average_only(precise):
    """The weights belong to slots. Averaged over all relabellings, each taken back, the law holds; for one it does not."""
    three = EpisodeSampler(toy_images(), 3, 1, 2, dtype=torch.float64)[0]
    torch.manual_seed(0)
    learner = settled(GraphNetwork(conv4(8), n_way=3, hidden=6).double(), three)

    def average(episode: Episode) -> torch.Tensor:
        slots = [torch.tensor(slot) for slot in permutations(range(3))]
        return torch.stack([learner(relabel(episode, slot))[:, slot] for slot in slots]).mean(0)

    new_slot = torch.tensor([1, 2, 0])
    assert not torch.allclose(learner(relabel(three, new_slot))[:, new_slot], learner(three), atol=1e-4)
    assert torch.allclose(average(relabel(three, new_slot))[:, new_slot], average(three), atol=1e-12)


def test_a_query_is_judged_alone_unless_it_is_asked_otherwise(precise):
    learner = settled_graph(precise)
    assert not learner.transductive
    judges_each_query_alone(learner, precise)
    together = settled_graph(precise, transductive=True)
    assert together.transductive
    assert not torch.allclose(together(precise)[0], together(other_queries(precise))[0], atol=1e-6)
    assert evaluate(together.float(), EpisodeSampler(toy_images(), 5, 1, 3), 2).transductive


def test_gradient_agrees_with_finite_differences():
    torch.manual_seed(0)
    learner = GraphNetwork(torch.nn.Identity(), n_way=3, hidden=4, features=4).double()
    support, query = torch.randn(4, 4).double(), torch.randn(2, 4).double()
    labels, target = torch.tensor([0, 1, 2, 1]), torch.tensor([2, 0])

    def loss(support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(learner.score(support, labels, query, 3), target)

    assert torch.autograd.gradcheck(loss, (support.requires_grad_(), query.requires_grad_()), atol=1e-7)


def test_it_learns_in_seconds():
    source = toy_images(80, 8, noise=120)
    torch.manual_seed(0)
    learner, test = GraphNetwork(conv4(16)), EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    before = evaluate(learner, test, 50)
    history = fit(learner, EpisodeSampler(source.split("train"), 5, 1, 3), steps=80, tasks=2, lr=3e-3, progress=False)
    after = evaluate(learner, test, 50)
    assert after.mean > max(0.8, before.mean + 0.3)
    assert sum(history.loss[-5:]) < 0.6 * sum(history.loss[:5])


def test_evaluating_twice_changes_nothing():
    torch.manual_seed(0)
    evaluating_twice_changes_nothing(GraphNetwork(conv4(4), n_way=4), toy_images(), 5)


def test_shipped_weights_reach_the_number_on_their_card():
    sampler = EpisodeSampler(load_glyphs().split("test"), 5, 1, 15)
    result = evaluate(pretrained("graph", "glyphs", 5, 1), sampler, 100)
    assert abs(result.mean - card("graph", "glyphs", 5, 1)["test"][0]["mean"]) < 2 * result.ci95


def test_other_ways_and_a_missing_class_are_explained():
    learner = GraphNetwork(torch.nn.Identity(), features=3)
    assert isinstance(learner, ComparesEmbeddings)
    with pytest.raises(ValueError, match="has a head for 5 classes, and there are 3"):
        learner.score(torch.rand(3, 3), torch.tensor([0, 1, 2]), torch.rand(1, 3), 3)
    with pytest.raises(ValueError, match="cover the slots"):
        learner.score(torch.rand(4, 3), torch.tensor([0, 1, 2, 3]), torch.rand(1, 3), 5)
