"""The LSTM meta-learner against plain loops and SGD, its laws, and that it learns."""

import math

import pytest
import torch
from torch import nn

from fsl_course.episodes import Episode, EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.inner_loop.functional import support_loss, trainable
from fsl_course.methods.maml import MAML, adapt
from fsl_course.methods.meta_lstm import MetaLSTM, preprocess
from fsl_course.nets import classifier, conv4, mlp
from fsl_course.training.loop import fit
from tests.conftest import permute_support
from tests.fsl_course.methods.laws import evaluating_twice_changes_nothing, judges_each_query_alone
from tests.fsl_course.methods.lines import flat, line, points


def force(learner: MetaLSTM, f: float, i: float) -> MetaLSTM:
    """Constant gates. A logit of 50 is a gate of exactly 1 in float64."""
    with torch.no_grad():
        for gate, value in ((learner.forget_gate, f), (learner.input_gate, i)):
            gate.weight.zero_()
            gate.bias.fill_(50.0 if value == 1 else math.log(value / (1 - value)))
    return learner


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def pair(x: float, p: float = 10.0) -> list[float]:
    """Preprocessing of one number, without torch."""
    if abs(x) < math.exp(-p):
        return [-1.0, math.exp(p) * x]
    return [math.log(abs(x)) / p, math.copysign(1.0, x)]


def by_loops(learner: MetaLSTM, episode: Episode) -> list[float]:
    """The paper's equations for a line, one coordinate after the other in plain numbers: [w, b]."""
    weights = {name: tensor.tolist() for name, tensor in learner.state_dict().items()}
    theta = [weights["model.weight"][0][0], weights["model.bias"][0]]
    x, y = episode.support_x.flatten().tolist(), episode.support_y.flatten().tolist()
    hidden = len(weights["reader.weight_hh"][0])
    h, c = ([[0.0] * hidden for _ in theta] for _ in range(2))
    i, f = [0.0, 0.0], [0.0, 0.0]
    for _ in range(learner.steps):
        errors = [theta[0] * a + theta[1] - b for a, b in zip(x, y, strict=True)]
        loss = sum(e * e for e in errors) / len(errors)
        gradient = [2 * sum(e * a for e, a in zip(errors, x, strict=True)) / len(errors), 2 * sum(errors) / len(errors)]
        moved = []
        for j in range(2):
            inputs = pair(gradient[j]) + pair(loss)
            z = [
                sum(w * v for w, v in zip(weights["reader.weight_ih"][k], inputs, strict=True))
                + sum(w * v for w, v in zip(weights["reader.weight_hh"][k], h[j], strict=True))
                + weights["reader.bias_ih"][k]
                + weights["reader.bias_hh"][k]
                for k in range(4 * hidden)
            ]
            into, keep, new, out = (
                z[k * hidden : (k + 1) * hidden] for k in range(4)
            )  # torch's order of an LSTM's gates
            c[j] = [sigmoid(keep[k]) * c[j][k] + sigmoid(into[k]) * math.tanh(new[k]) for k in range(hidden)]
            h[j] = [sigmoid(out[k]) * math.tanh(c[j][k]) for k in range(hidden)]
            for gate, last in (("input_gate", i), ("forget_gate", f)):
                seen = [*h[j], theta[j], last[j]]
                logit = sum(w * v for w, v in zip(weights[f"{gate}.weight"][0], seen, strict=True))
                last[j] = sigmoid(logit + weights[f"{gate}.bias"][0])
            moved.append(f[j] * theta[j] - i[j] * gradient[j])
        theta = moved
    return theta


# ---- oracles


def test_preprocess_by_hand():
    x = torch.tensor([1.0, -math.exp(-5), math.exp(2), 0.0, math.exp(-11), -math.exp(-12)], dtype=torch.float64)
    expected = [[0, 1], [-0.5, -1], [0.2, 1], [-1, 0], [-1, math.exp(-1)], [-1, -math.exp(-2)]]
    assert torch.allclose(preprocess(x), torch.tensor(expected, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(preprocess(x[1], 5.0), torch.tensor([-1.0, -1.0], dtype=torch.float64))
    assert preprocess(torch.ones(3, 2)).shape == (3, 2, 2)


@pytest.mark.parametrize("sign", [1, -1])
def test_preprocess_does_not_jump_at_the_threshold(sign):
    edge = sign * math.exp(-10)
    around = torch.tensor([edge * (1 - 1e-9), edge * (1 + 1e-9)], dtype=torch.float64)
    below, above = preprocess(around)
    assert torch.allclose(below, above, atol=1e-8)
    assert torch.allclose(above, torch.tensor([-1.0, sign], dtype=torch.float64), atol=1e-8)


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_it_agrees_with_plain_loops(steps):
    learner, episode = line(steps), points()
    assert flat(learner, episode).tolist() == pytest.approx(by_loops(learner, episode), abs=1e-12)


def test_gates_of_one_and_the_rate_are_sgd(precise):
    torch.manual_seed(0)
    learner = force(MetaLSTM(classifier(conv4(4, "group"), 5), 3).double(), f=1, i=0.1)
    sgd = adapt(support_loss(learner.model, precise), trainable(learner.model), lr=0.1, steps=3, track=False)
    for name, value in learner.adapted(precise).items():
        assert torch.allclose(value, sgd[name], atol=1e-10), name
    twin = MAML(learner.model, 0.1, 3)
    assert torch.allclose(learner(precise), twin(precise), atol=1e-9)


def test_a_forget_gate_below_one_is_weight_decay():
    learner, episode = force(line(3), f=1 - 0.2 * 0.5, i=0.2), points()
    loss = support_loss(learner.model, episode)

    def penalised(params):
        return loss(params) + 0.25 * sum(p.square().sum() for p in params.values())

    expected = adapt(penalised, trainable(learner.model), lr=0.2, steps=3, track=False)
    assert torch.allclose(flat(learner, episode), torch.cat([p.flatten() for p in expected.values()]), atol=1e-12)


def test_an_untrained_learner_is_nearly_sgd():
    torch.manual_seed(0)
    learner, episode = MetaLSTM(mlp(), 5, lr=0.02), SinusoidSampler(10, 10)[0]
    sgd, before = MAML(learner.model, 0.02, 5), learner.model(episode.query_x)
    assert (learner(episode) - sgd(episode)).norm() < 0.2 * (sgd(episode) - before).norm()


# ---- laws


@pytest.fixture
def learner() -> MetaLSTM:
    torch.manual_seed(0)
    return MetaLSTM(classifier(conv4(4), 5), 2, lr=0.2).double().eval()


def test_queries_are_judged_alone(learner, precise):
    judges_each_query_alone(learner, precise)


def test_order_of_the_support_changes_nothing(learner, precise):
    """Slots are not free: the head is trained, so relabelling changes more than the order of the logits."""
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(precise, order)), learner(precise), atol=1e-9)


def test_tasks_leave_nothing_behind(learner, toys):
    sampler = EpisodeSampler(toys, 5, 1, 2, dtype=torch.float64)
    alone = learner(sampler[1])
    learner(sampler[0])
    assert torch.equal(learner(sampler[1]), alone)


def test_evaluating_changes_nothing(toys):
    torch.manual_seed(0)
    evaluating_twice_changes_nothing(MetaLSTM(classifier(conv4(4), 4), 2, lr=0.2), toys, 4)


@pytest.mark.parametrize("steps", [0, 1, 10])
def test_any_number_of_steps(steps):
    learner, batch = line(steps), SinusoidSampler(5, 5, dtype=torch.float64).batch(0, 2)
    assert learner(batch[0]).shape == (5, 1)
    loss = learner.training_step(batch)
    assert loss.item() == pytest.approx(torch.stack([learner.loss(e) for e in batch]).mean().item())
    loss.backward()
    assert learner.model.weight.grad.abs().max() > 0
    assert (learner.input_gate.bias.grad is None) == (steps == 0)
    if steps == 0:
        assert torch.equal(learner(batch[0]), learner.model(batch[0].query_x))


def test_the_order_of_parameters_does_not_matter():
    """Coordinate-wise: the same net with its two features exchanged adapts to the same function."""
    generator = torch.Generator().manual_seed(4)
    x, y = torch.randn(6, 2, generator=generator).double(), torch.randn(6, 1, generator=generator).double()
    torch.manual_seed(0)
    learner = MetaLSTM(nn.Linear(2, 1), 3, lr=0.2).double()
    nothing = torch.zeros(0, dtype=torch.int64)
    one = learner(Episode(x[:4], y[:4], x[4:], y[4:], nothing))
    with torch.no_grad():
        learner.model.weight.copy_(learner.model.weight.flip(1))
    x = x.flip(1)
    assert torch.allclose(learner(Episode(x[:4], y[:4], x[4:], y[4:], nothing)), one, atol=1e-12)


# ---- learning


def test_the_rule_finds_a_better_rate_in_seconds():
    """From a fixed start (truncated), with an input gate that begins at a hundredth of a good rate."""
    torch.manual_seed(0)
    learner = MetaLSTM(nn.Linear(1, 1), 4, hidden=6, lr=0.005, truncate=3)
    start = learner.model.weight.clone()
    tasks = {"phase": (0.0, 0.0), "inputs": (-1.0, 1.0)}  # nearly lines through the origin
    test = SinusoidSampler(5, 5, seed=9, **tasks)
    by_hand = evaluate(MAML(learner.model, 0.005, 4), test, 40, metric="mse")
    fit(learner, SinusoidSampler(5, 5, **tasks), steps=80, tasks=2, lr=0.05, progress=False)
    after = evaluate(learner, test, 40, metric="mse")
    assert torch.equal(learner.model.weight, start)
    assert after.mean < 0.5 * by_hand.mean


def test_it_learns_start_and_rule_in_seconds():
    torch.manual_seed(0)
    learner = MetaLSTM(mlp((1, 10, 1)), 3, hidden=6, lr=0.02)
    test = SinusoidSampler(5, 5, seed=9, phase=(0.0, 0.5))
    before = evaluate(learner, test, 40, metric="mse")
    fit(learner, SinusoidSampler(5, 5, phase=(0.0, 0.5)), steps=120, tasks=2, lr=0.02, clip=0.25, progress=False)
    after = evaluate(learner, test, 40, metric="mse")
    assert after.mean < 0.6 * before.mean


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"lr": 0.0}, "lr must lie between 0 and 1"), ({"lr": 1.0}, "between"), ({"truncate": 0}, "at least 1 step")],
)
def test_wrong_arguments_are_explained(settings, message):
    with pytest.raises(ValueError, match=message):
        MetaLSTM(nn.Linear(1, 1), 2, **settings)
