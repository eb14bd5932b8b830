"""What a training run computes: steps, rates, clipping, validation, devices, and errors for settings that cannot work."""

import pytest
import torch

from fsl_course.episodes import Episode, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import FewShotLearner
from fsl_course.nets import mlp
from fsl_course.training.loop import fit, learning_rate
from tests.fsl_course.training.toys import Recorder, learner, same, samplers, weights


def test_a_step_is_adam_on_the_mean_loss_of_its_tasks():
    train, _ = samplers()
    ours, theirs = learner().eval(), learner()  # fit puts a learner into training mode by itself
    history = fit(ours, train, steps=2, tasks=3, lr=0.01, progress=False)
    optimiser = torch.optim.Adam(theirs.parameters(), lr=0.01)
    theirs.train()
    for step in range(2):
        loss = sum(theirs.loss(train[step * 3 + t]) for t in range(3)) / 3
        assert history.loss[step] == pytest.approx(loss.item(), rel=1e-5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert len(history.accuracy) == 2
    assert not ours.training


def test_schedules():
    common = {"lr": 0.1, "steps": 100}
    assert learning_rate(99, halve_every=None, cosine=False, **common) == 0.1
    assert [learning_rate(s, halve_every=10, cosine=False, **common) for s in (9, 10, 29)] == [0.1, 0.05, 0.025]
    assert learning_rate(0, halve_every=None, cosine=True, **common) == 0.1
    assert learning_rate(50, halve_every=None, cosine=True, **common) == pytest.approx(0.05)


def test_the_rate_reaches_the_optimiser():
    """Adam's first steps have the length of the rate: after halving to almost nothing the weights hardly move."""
    train, _ = samplers()
    short, long = learner(), learner()
    fit(short, train, steps=1, lr=0.01, progress=False)
    fit(long, train, steps=31, lr=0.01, halve_every=1, progress=False)
    moved = max((a - b).abs().max().item() for a, b in zip(short.parameters(), long.parameters(), strict=True))
    assert moved <= 0.01 * 1.5  # 0.005 + 0.0025 + ... with Adam's steps of at most about the rate


def test_clipping_bounds_the_gradient():
    train, _ = samplers()
    module = Recorder()
    seen = []
    step = torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        seen.append(float(module.weight.grad))
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", spy)
        fit(module, train, steps=1, clip=2.0, progress=False)
        fit(module, train, steps=1, progress=False)
    assert seen == pytest.approx([2.0, 1000.0], rel=1e-4)


def test_best_weights_are_copies_and_come_back(tmp_path):
    train, validation = samplers()
    module = learner()
    options = {"validation": validation, "validate_every": 5, "validation_episodes": 20, "progress": False}
    history = fit(module, train, steps=30, lr=0.02, **options)
    best = max(mean for _, mean, _ in history.validation)
    assert evaluate(module, validation, 20).mean == best
    assert history.best_step == next(step for step, mean, _ in history.validation if mean == best)
    assert [step for step, _, _ in history.validation] == [5, 10, 15, 20, 25, 30]
    # the same run without validation ends elsewhere unless the last step was the best
    last = learner()
    fit(last, train, steps=history.best_step, lr=0.02, progress=False)
    assert same(weights(last), weights(module))


class Constant(Recorder):
    """Every slot is equally likely to it, whatever its weight."""

    def forward(self, episode):
        return torch.zeros(len(episode.query_y), episode.n_way)


def test_among_equally_good_weights_the_first_are_kept():
    train, validation = samplers()
    module = Constant()
    history = fit(module, train, steps=4, lr=0.1, validation=validation, validate_every=1, validation_episodes=3,
                  progress=False)  # fmt: skip
    assert len({mean for _, mean, _ in history.validation}) == 1
    assert history.best_step == 1
    assert module.weight.item() == pytest.approx(-0.1, rel=1e-3)  # one step of Adam


class Sines(FewShotLearner):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp((1, 8, 1))

    def forward(self, episode):
        return self.net(episode.query_x)

    def loss(self, episode):
        return torch.nn.functional.mse_loss(self(episode), episode.query_y)


def test_regression_tasks_are_validated_by_their_error():
    torch.manual_seed(0)
    history = fit(Sines(), SinusoidSampler(), steps=4, tasks=5, validation=SinusoidSampler(seed=1), validate_every=2,
                  validation_episodes=10, progress=False)  # fmt: skip
    assert history.accuracy == []
    best = min(history.validation, key=lambda row: row[1])
    assert history.best_step == best[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 1, "clip": -1.0}, "clip must be a gradient norm above 0, or None; got -1.0"),
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ({"steps": 1.5}, "steps must be a whole number of at least 1; got 1.5"),
        ({"steps": 1, "tasks": 0}, "tasks must be a whole number of at least 1"),
        ({"steps": 1, "validate_every": "5"}, "validate_every must be a whole number of at least 1; got '5'"),
        ({"steps": 1, "save_every": None}, "save_every must be a whole number of at least 1; got None"),
        ({"steps": 1, "halve_every": 5, "cosine": True}, "cannot be combined"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    train, validation = samplers()
    with pytest.raises(ValueError, match=message):
        fit(learner(), train, **arguments)
    with pytest.raises(ValueError, match="validation_episodes must be at least 2"):
        fit(learner(), train, steps=1, validation=validation, validation_episodes=1)


def test_nothing_to_train_is_explained():
    from fsl_course.methods.baselines import Chance

    with pytest.raises(ValueError, match="Chance has no parameters to train"):
        fit(Chance(), samplers()[0], steps=1)


def test_weight_decay_reaches_adam():
    train, _ = samplers()
    ours, theirs = learner(), learner()
    fit(ours, train, steps=1, lr=0.01, weight_decay=10.0, progress=False)
    optimiser = torch.optim.Adam(theirs.parameters(), lr=0.01, weight_decay=10.0)
    theirs.train().loss(train[0]).backward()
    optimiser.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    plain = learner()
    fit(plain, train, steps=1, lr=0.01, progress=False)
    assert not same(weights(plain), weights(ours))


def test_batches_go_to_the_device_of_the_learner(monkeypatch):
    seen = []
    monkeypatch.setattr(Episode, "to", lambda self, target: seen.append(target) or self)
    fit(learner(), samplers()[0], steps=2, progress=False)
    assert seen == [torch.device("cpu")] * 2


@pytest.mark.parametrize("wrong", [None, "prototypical", samplers()[0].source])
def test_what_is_no_learner_or_no_sampler_is_explained(wrong):
    with pytest.raises(TypeError, match=r"learner must be one, such as Proto.*; got "):
        fit(wrong, samplers()[0], steps=1)
    with pytest.raises(
        TypeError, match=r"sampler must be an EpisodeSampler or a SinusoidSampler; got .*EpisodeSampler\(images"
    ):
        fit(learner(), wrong, steps=1)
