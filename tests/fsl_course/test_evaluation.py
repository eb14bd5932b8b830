import math
import threading
from typing import ClassVar

import pytest
import torch
from torch import nn

from fsl_course._system.allocator import keep_memory
from fsl_course.episodes import EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import compare, embed_all, evaluate, evaluation_mode, mean_and_ci95
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.baselines import Chance, PixelNearestNeighbour
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4


def test_interval_by_hand():
    """0, 1, 2: mean 1, s = 1, t(0.975, 2) = 4.302653, half width = t / sqrt(3)."""
    mean, half = mean_and_ci95(torch.tensor([0.0, 1.0, 2.0]))
    assert mean == 1.0
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    with pytest.raises(ValueError, match="at least 2 episodes; got 1"):
        mean_and_ci95(torch.tensor([1.0]))


@pytest.mark.parametrize("episodes", [5, 30, 600])
def test_intervals_cover_the_truth_about_95_times_in_100(episodes):
    """Accuracies of 75 queries at a true rate that varies between episodes; 4000 simulated evaluations."""
    generator = torch.Generator().manual_seed(0)
    truth, repeats = 0.7, 4000
    rate = (truth + 0.1 * torch.randn(repeats, episodes, generator=generator)).clamp(0, 1)
    accuracy = torch.binomial(torch.full_like(rate, 75), rate, generator=generator) / 75
    covered = 0
    for row in accuracy[:1500] if episodes == 600 else accuracy:
        mean, half = mean_and_ci95(row)
        covered += abs(mean - truth) <= half
    share = covered / (1500 if episodes == 600 else repeats)
    assert 0.935 < share < 0.965  # three standard errors around 0.95


def test_embedding_once_gives_what_forward_gives(toys):
    torch.manual_seed(0)
    learner = PrototypicalNetwork(conv4(8)).double()
    for _ in range(3):
        learner.train()(EpisodeSampler(toys, 5, 1, 3, dtype=torch.float64)[0])  # moves the running statistics
    sampler = EpisodeSampler(toys, 5, 1, 3, seed=4, dtype=torch.float64)
    result = evaluate(learner, sampler, 70)
    with evaluation_mode(learner), torch.no_grad():
        one_by_one = torch.stack([(learner(e).argmax(1) == e.query_y).double().mean() for e in sampler.batch(0, 70)])
    assert torch.equal(result.per_episode, one_by_one)
    assert result.mean == pytest.approx(float(one_by_one.mean()))


def test_evaluate_leaves_the_learner_as_it_was(toys):
    learner = PrototypicalNetwork(conv4(8)).train()
    learner.encoder.layers[0].eval()
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    modes = [m.training for m in learner.modules()]
    for transductive in (False, True):
        evaluate(learner, EpisodeSampler(toys, 5, 1, 3), 4, transductive=transductive)
    assert all(torch.equal(before[k], v) for k, v in learner.state_dict().items())
    assert modes == [m.training for m in learner.modules()]
    assert all(m.track_running_stats for m in learner.modules() if isinstance(m, torch.nn.BatchNorm2d))


class Plain(FewShotLearner):
    """A ProtoNet that `evaluate` can only call: it shows no embeddings. Remembers whether gradients were recorded."""

    def __init__(self, inner: PrototypicalNetwork, fails_at: int | None = None) -> None:
        super().__init__()
        self.inner, self.fails_at, self.calls, self.recorded = inner, fails_at, 0, False

    def forward(self, episode):
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("in the middle")
        logits = self.inner(episode)
        self.recorded |= logits.requires_grad
        return logits


def test_a_learner_that_shows_no_embeddings_is_evaluated_alike(toys):
    torch.manual_seed(0)
    inner, sampler = PrototypicalNetwork(conv4(8)).double(), EpisodeSampler(toys, 5, 1, 3, dtype=torch.float64)
    plain = Plain(inner)
    alone, together = evaluate(plain, sampler, 70), evaluate(plain, sampler, 70, transductive=True)
    assert plain.calls == 140
    assert not plain.recorded
    assert torch.equal(alone.per_episode, evaluate(inner, sampler, 70).per_episode)
    assert not torch.equal(alone.per_episode, together.per_episode)


@pytest.mark.parametrize("transductive", [False, True])
def test_an_error_in_the_middle_leaves_the_learner_as_it_was(toys, transductive):
    learner = Plain(PrototypicalNetwork(conv4(8)), fails_at=3).train()
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    with pytest.raises(RuntimeError, match="in the middle"):
        evaluate(learner, EpisodeSampler(toys, 5, 1, 3), 4, transductive=transductive)
    assert all(torch.equal(before[k], v) for k, v in learner.state_dict().items())
    assert all(m.training for m in learner.modules())
    assert all(m.track_running_stats for m in learner.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_each_picture_is_embedded_once_and_without_gradients(toys):
    seen = []

    class Counts(PrototypicalNetwork):
        def embed(self, x):
            found = super().embed(x)
            seen.append((len(x), found.requires_grad))
            return found

    evaluate(Counts(conv4(8)), EpisodeSampler(toys, 5, 1, 3), 300)
    assert sum(count for count, _ in seen) == toys.images.shape[0] * toys.images.shape[1]  # 300 episodes meet them all
    assert not any(recorded for _, recorded in seen)


def test_inductive_and_transductive_are_different_things(toys):
    torch.manual_seed(0)
    learner, sampler = PrototypicalNetwork(conv4(8)), EpisodeSampler(toys, 5, 1, 3)
    inductive, transductive = evaluate(learner, sampler, 30), evaluate(learner, sampler, 30, transductive=True)
    assert not torch.equal(inductive.per_episode, transductive.per_episode)
    assert "transductive" in str(transductive)
    assert "inductive" in str(inductive)


def test_pairing_narrows_the_interval_and_refuses_other_episodes(toys):
    sampler = EpisodeSampler(toys, 5, 1, 3)
    a, b = evaluate(PixelNearestNeighbour("cosine"), sampler, 200), evaluate(Chance(), sampler, 200)
    difference = compare(a, b)
    assert difference.mean == pytest.approx(a.mean - b.mean)
    assert torch.equal(difference.per_episode, a.per_episode - b.per_episode)
    assert difference.separated
    assert not compare(a, a).separated
    assert compare(a, a).ci95 == 0
    for other in (EpisodeSampler(toys, 5, 1, 3, seed=1), EpisodeSampler(toys, 4, 1, 3)):
        with pytest.raises(ValueError, match="same episodes and metric"):
            compare(a, evaluate(Chance(), other, 200))
    with pytest.raises(ValueError, match="same episodes"):
        compare(a, evaluate(Chance(), sampler, 100))
    same_name = EpisodeSampler(toys.select(range(11, -1, -1)), 5, 1, 3)
    with pytest.raises(ValueError, match="same episodes"):
        compare(a, evaluate(Chance(), same_name, 200))


def test_it_leaves_the_memory_of_the_process_to_the_caller(toys):
    keep_memory.cache_clear()
    evaluate(PrototypicalNetwork(conv4(8)), EpisodeSampler(toys, 5, 1, 3), 4)
    assert keep_memory.cache_info().misses == 0


class Zero(FewShotLearner):
    def forward(self, episode):
        return torch.zeros_like(episode.query_y)


def test_regression_by_mean_squared_error():
    sampler = SinusoidSampler(5, 20, seed=1)
    result = evaluate(Zero(), sampler, 300, metric="mse")
    batch = sampler.batch(0, 300)
    assert result.mean == pytest.approx(float(batch.query_y.double().square().mean()), rel=1e-6)
    with pytest.raises(ValueError, match='take metric="mse"'):
        evaluate(Zero(), sampler, 10)


def test_wrong_arguments_are_explained(toys):
    sampler = EpisodeSampler(toys, 5, 1, 3)
    with pytest.raises(ValueError, match='metric must be "accuracy", "mse" or "miou"'):
        evaluate(Chance(), sampler, metric="f1")
    for episodes in (1, 10**9):
        with pytest.raises(ValueError, match=f"at least 2 episodes .* at most 1000000; got {episodes}"):
            evaluate(Chance(), sampler, episodes)
    with pytest.raises(ValueError, match='take metric="accuracy"'):
        evaluate(Chance(), sampler, metric="mse")
    with pytest.raises(NotImplementedError, match="must define forward"):
        FewShotLearner()(sampler[0])


@pytest.mark.parametrize("wrong", [None, "prototypical", torch.zeros(3)])
def test_what_is_no_learner_or_no_sampler_is_explained(toys, wrong):
    with pytest.raises(TypeError, match=f"learner must be one, such as .* got {type(wrong).__name__}"):
        evaluate(wrong, EpisodeSampler(toys, 2, 1, 1))
    with pytest.raises(TypeError, match=f"sampler must be an EpisodeSampler or .* got {type(wrong).__name__}"):
        evaluate(Chance(), wrong)
    with pytest.raises(TypeError, match=r"got ImageSet. Of an image set, EpisodeSampler\(images, n_way"):
        evaluate(Chance(), toys)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_an_error_and_no_accuracy(toys, number):
    learner = PrototypicalNetwork(conv4(4))
    with torch.no_grad():
        learner.encoder.layers[0].weight[0, 0, 0, 0] = number
    with pytest.raises(FloatingPointError, match=r"encoder.layers.0.weight holds numbers that are not finite"):
        evaluate(learner, EpisodeSampler(toys, 2, 1, 1), 2)


class Waits(PrototypicalNetwork):
    """Its first embedding waits for a second evaluation, which must not begin meanwhile, and records the modes that it sees."""

    def __init__(self) -> None:
        super().__init__(conv4(4))
        self.begun, self.other, self.seen = threading.Event(), threading.Event(), []

    def embed(self, x):
        self.begun.set()
        self.other.wait(0.3)
        self.seen.append([(m.training, m.track_running_stats) for m in self.modules() if isinstance(m, nn.BatchNorm2d)])
        return super().embed(x)


def test_threads_that_share_a_learner_never_share_a_mode(toys):
    """One evaluates as usual, the other transductively."""
    learner, sampler = Waits().train(), EpisodeSampler(toys, 3, 1, 2)

    def transductive():
        learner.begun.wait()
        evaluate(learner, sampler, 2, transductive=True)
        learner.other.set()

    thread = threading.Thread(target=transductive)
    thread.start()
    evaluate(learner, sampler, 2)
    thread.join()
    assert learner.seen == [[(False, True)] * 4] + [[(True, False)] * 4] * 2
    assert all(module.training for module in learner.modules())


def test_large_pictures_are_embedded_in_smaller_parts(toys):
    class Counts(PixelNearestNeighbour):
        parts: ClassVar[list[int]] = []

        def embed(self, x):
            self.parts.append(len(x))
            return super().embed(x)

    for side in (28, 1120):
        assert embed_all(Counts(), torch.zeros(5, 3, side, side, dtype=torch.uint8)).shape == (5, 3 * side * side)
    assert Counts.parts == [5, 1, 1, 1, 1, 1]
