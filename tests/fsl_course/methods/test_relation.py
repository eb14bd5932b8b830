import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.relation import RelationModule, RelationNetwork
from fsl_course.training.loop import fit
from tests.conftest import permute_support, relabel, toy_images
from tests.fsl_course.methods.laws import evaluating_twice_changes_nothing, judges_each_query_alone, other_queries

NORMS = ("batch", "group", "none")


def lively(net: RelationNetwork, episode: Episode) -> RelationNetwork:
    """In evaluation mode, with logits that differ; those of a fresh network hardly do, and every law would hold."""
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one pass is enough
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.weight.data *= 2.5  # without norm every layer would shrink the differences
    with torch.no_grad():
        net.train()(episode)
        assert net.eval()(episode).std() > 1e-2
    return net


@pytest.fixture(params=NORMS)
def learner(request, precise) -> RelationNetwork:
    torch.manual_seed(0)
    return lively(RelationNetwork(4, request.param).double(), precise)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logits_of_pairs(module: RelationModule, classes: Tensor, query: Tensor) -> Tensor:
    """The figure of the paper, taken literally: concatenate class and query, then the whole convolution over 2C channels."""
    pairs = torch.stack([torch.cat([c, q]) for q in query for c in classes])  # [M*N, 2C, h, w]
    z = module.head(module.rest(module.first(pairs)))
    return z.view(len(query), len(classes))


# --- the comparison --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("norm", NORMS)
def test_split_convolution_equals_concatenation(norm, training):
    """The same numbers, gradients and running statistics as N * M whole convolutions."""
    torch.manual_seed(0)
    module = RelationModule(4, 8, norm).double().train(training)
    for layer in (module.head[0], module.head[2]):
        nn.init.normal_(layer.weight)  # livelier than fresh ones
    for buffer in module.buffers():  # running statistics that are not the fresh ones
        if buffer.is_floating_point():
            buffer += torch.rand_like(buffer)
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    classes, query = randn(3, 4, 8, 8, seed=1).requires_grad_(), randn(5, 4, 8, 8, seed=2).requires_grad_()
    inputs = (classes, query, *module.parameters())
    found = module(classes, query)
    found_gradients = torch.autograd.grad(found.square().sum(), inputs)
    after = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.load_state_dict(start)
    expected = logits_of_pairs(module, classes, query)
    expected_gradients = torch.autograd.grad(expected.square().sum(), inputs)
    assert found.shape == (5, 3)
    assert torch.allclose(found, expected, atol=1e-12)
    assert expected.std() > 1e-3
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-10)
    assert all(torch.allclose(after[name], tensor, atol=1e-12) for name, tensor in module.state_dict().items())
    assert any(not torch.equal(after[name], start[name]) for name in start) == (training and norm == "batch")


def test_comparison_has_the_layers_of_the_paper():
    """Two blocks that pool, then two linear layers with 8 units between them; a picture of 28 gives 7 x 7 and 1 x 1."""
    learner = RelationNetwork(6)
    assert learner.embed(torch.rand(2, 1, 28, 28)).shape == (2, 6 * 7 * 7)
    module = learner.relation
    assert module.first.weight.shape == (6, 12, 3, 3)
    block = ["BatchNorm2d", "MaxPool2d", "ReLU"]  # the maximum of ReLUs is the ReLU of the maximum
    assert [type(m).__name__ for m in module.rest] == [*block, "Conv2d", *block, "Flatten"]
    assert sum(isinstance(m, nn.MaxPool2d) for m in learner.encoder.modules()) == 2
    assert sum(isinstance(m, nn.Conv2d) for m in learner.encoder.modules()) == 4
    assert [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)] == [(6, 8), (8, 1)]
    assert RelationNetwork(4, in_channels=3, size=84).embed(torch.rand(1, 3, 84, 84)).shape == (1, 4 * 21 * 21)


def test_encoder_is_its_layers_written_out():
    torch.manual_seed(0)
    learner = RelationNetwork(4, "none").double()
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    z = x
    for index, convolution in enumerate(m for m in learner.encoder if isinstance(m, nn.Conv2d)):
        z = F.conv2d(z, convolution.weight.contiguous(), convolution.bias, padding=1).relu()
        if index < 2:
            z = z.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))
    assert torch.allclose(learner.embed(x), z.flatten(1), atol=1e-12)


def test_scores_equal_loops_with_unequal_shots(learner):
    support, query, labels = randn(6, 196, seed=1), randn(4, 196, seed=2), torch.tensor([2, 0, 1, 2, 2, 0])
    for shots in ("mean", "sum"):
        learner.shots = shots
        found = learner.score(support, labels, query, 3)
        assert found.shape == (4, 3)
        for k in range(3):
            rows = [support[s].view(4, 7, 7) for s in range(6) if labels[s] == k]
            pooled = sum(rows) / (len(rows) if shots == "mean" else 1)
            for m in range(4):
                alone = logits_of_pairs(learner.relation, pooled[None], query[m].view(1, 4, 7, 7))
                assert found[m, k].item() == pytest.approx(alone.item(), abs=1e-12)


def test_class_and_query_are_not_interchangeable(learner):
    """The class fills the first half of the channels, the query the second."""
    a, b = randn(1, 4, 7, 7, seed=1), randn(1, 4, 7, 7, seed=2)
    assert not torch.allclose(learner.relation(a, b), learner.relation(b, a), atol=1e-6)


# --- shots and objectives --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shots", "same"), [("mean", True), ("sum", False)])
def test_doubling_the_support_changes_a_sum_and_not_a_mean(shots, same, precise):
    """Trap C7: with a sum of feature maps the scale of what is compared grows with K."""
    torch.manual_seed(0)
    learner = lively(RelationNetwork(4, shots=shots).double(), precise)
    twice = permute_support(precise, torch.arange(10).repeat(2))
    assert torch.allclose(learner(precise), learner(twice), atol=1e-12) == same
    if not same:
        assert (learner(precise) - learner(twice)).abs().max() > 1e-2
    single = permute_support(precise, torch.stack([(precise.support_y == k).nonzero()[0, 0] for k in range(5)]))
    other = RelationNetwork(4, shots="mean").double().eval()
    other.load_state_dict(learner.state_dict())
    assert torch.allclose(learner(single), other(single), atol=1e-12)  # with one shot both are the same


def test_mean_squared_error_by_a_loop(precise):
    """(sigmoid(logit) - 1)^2 for the right class and sigmoid(logit)^2 for the others, averaged over all pairs (trap C6)."""
    torch.manual_seed(0)
    learner = lively(RelationNetwork(4).double(), precise)
    logits, total = learner(precise), 0.0
    for m in range(15):
        for k in range(5):
            right = 1.0 if precise.query_y[m] == k else 0.0
            total += (1 / (1 + (-logits[m, k]).exp()) - right).item() ** 2
    assert learner.loss(precise).item() == pytest.approx(total / 75, rel=1e-12)


def test_mean_squared_error_by_hand(task, monkeypatch):
    """Scores 0.5 everywhere: 0.25. A right score of 0.75 and one wrong of 0.25: (0.0625 + 0.0625) / 2."""
    learner = RelationNetwork(4)
    pair = Episode(task.support_x[:2], torch.tensor([0, 1]), task.query_x[:1], torch.tensor([1]), torch.tensor([3, 8]))
    monkeypatch.setattr(learner, "forward", lambda episode: torch.zeros(1, 2))
    assert learner.loss(pair).item() == 0.25
    logit = torch.tensor(3.0).log().item()
    monkeypatch.setattr(learner, "forward", lambda episode: torch.tensor([[-logit, logit]]))
    assert learner.loss(pair).item() == pytest.approx(0.0625)


def test_cross_entropy_by_a_loop(precise):
    torch.manual_seed(0)
    learner = lively(RelationNetwork(4, objective="cross_entropy").double(), precise)
    logits = learner(precise)
    expected = sum(-logits[m].softmax(0)[precise.query_y[m]].log().item() for m in range(15)) / 15
    assert learner.loss(precise).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("objective", ["mse", "cross_entropy"])
def test_gradient_of_the_loss_agrees_with_finite_differences(objective, monkeypatch, task):
    learner = RelationNetwork(4, objective=objective)
    logits = randn(15, 5).requires_grad_()

    def loss(logits: Tensor) -> Tensor:
        monkeypatch.setattr(learner, "forward", lambda episode: logits)
        return learner.loss(task)

    assert torch.autograd.gradcheck(loss, (logits,))


def test_gradient_of_the_comparison_agrees_with_finite_differences():
    torch.manual_seed(0)
    module = RelationModule(2, 4, "none", hidden=3).double()
    classes, query = randn(2, 2, 4, 4, seed=1).requires_grad_(), randn(2, 2, 4, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(module, (classes, query))
    assert torch.autograd.grad(module(classes, query).sum(), query)[0].abs().max() > 0


# --- laws ------------------------------------------------------------------------------------------------------------


def test_relabelling_slots_permutes_logits_and_order_of_support_changes_nothing(learner, precise):
    logits, new_slot = learner(precise), torch.tensor([3, 0, 4, 1, 2])
    assert logits.shape == (15, 5)
    assert torch.allclose(learner(relabel(precise, new_slot))[:, new_slot], logits, atol=1e-12)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(precise, order)), logits, atol=1e-12)


def test_a_query_is_judged_alone_in_evaluation_mode(learner, precise):
    """In training mode too, unless batch norm looks at the whole episode (traps B1 and B2)."""
    judges_each_query_alone(learner, precise)
    batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in learner.modules())
    learner.train()
    assert torch.allclose(learner(precise)[0], learner(other_queries(precise))[0], atol=1e-4) != batch_norm


def test_stacked_tasks_equal_single_tasks(toys, learner):
    batch = EpisodeSampler(toys, 4, 2, 3, dtype=torch.float64).batch(0, 4)
    single = torch.stack([learner(e) for e in batch])
    support, query = (
        learner.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in (batch.support_x, batch.query_x)
    )
    assert torch.allclose(single, learner.score(support, batch.support_y, query, 4), atol=1e-10)
    grid = [x.unflatten(0, (2, 2)) for x in (support, batch.support_y, query)]  # two task axes
    assert torch.allclose(single, learner.score(*grid, 4).flatten(0, 1), atol=1e-10)


@pytest.mark.parametrize("norm", NORMS)
def test_evaluating_twice_gives_the_same_and_changes_nothing(toys, norm):
    torch.manual_seed(0)
    learner = RelationNetwork(4, norm)
    evaluating_twice_changes_nothing(learner, toys, 6)


@pytest.mark.parametrize("objective", ["mse", "cross_entropy"])
def test_it_learns_in_seconds(objective):
    source = toy_images(80, 8, noise=120)
    torch.manual_seed(0)
    learner = RelationNetwork(16, objective=objective)
    test = EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    before = evaluate(learner, test, 40)
    history = fit(learner, EpisodeSampler(source.split("train"), 5, 1, 3), steps=120, lr=3e-3, progress=False)
    after = evaluate(learner, test, 40)
    assert after.mean > before.mean + 0.3
    assert sum(history.loss[-5:]) < 0.8 * sum(history.loss[:5])


def test_wrong_arguments_are_explained():
    with pytest.raises(ValueError, match='objective must be "mse" or "cross_entropy"; got \'bce\''):
        RelationNetwork(4, objective="bce")
    with pytest.raises(ValueError, match='shots must be "mean" or "sum"; got \'max\''):
        RelationNetwork(4, shots="max")
    with pytest.raises(ValueError, match='norm must be "batch", "group" or "none"'):
        RelationNetwork(4, "layer")
    for size in (30, 12, 0):
        with pytest.raises(ValueError, match=f"size must be a multiple of 4 and at least 16; got {size}"):
            RelationNetwork(4, size=size)
    learner = RelationNetwork(4)
    for shape in ((2, 1, 32, 32), (2, 1, 28, 32), (2, 1, 32, 28)):
        with pytest.raises(ValueError, match=r"takes pictures of 28x28 pixels; got \[2, 1, .*make one with size="):
            learner.embed(torch.rand(shape))
    with pytest.raises(ValueError, match="cover the slots 0..2"):
        learner.score(torch.rand(4, 196), torch.tensor([0, 0, 1, 1]), torch.rand(2, 196), 3)


def test_it_lets_evaluate_embed_each_picture_once(learner):
    assert isinstance(learner, ComparesEmbeddings)
