"""Evaluation on many episodes, each query judged on its own, with t-based intervals and paired comparisons."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.special import stdtrit
from torch import Tensor, nn

from fsl_course.data.imageset import as_input
from fsl_course.episodes import EpisodeSampler, SceneSampler, SinusoidSampler
from fsl_course.inner_loop.support_statistics import batch_statistics
from fsl_course.methods.base import ComparesEmbeddings, FewShotLearner, not_finite

_EMBED_AT_ONCE = 256  # pictures, and
_NUMBERS_AT_ONCE = 2**22  # numbers in them; both bound the memory of a forward pass
_TASKS_AT_ONCE = 64  # episodes gathered together
_FLOATS_AT_ONCE = 2**21  # numbers of embeddings gathered together, because feature maps are large
MOST_EPISODES = 1_000_000  # whose interval is narrower than anybody needs
_modes = threading.RLock()  # the modes of modules, which threads share: one evaluation at a time


def mean_and_ci95(values: Tensor) -> tuple[float, float]:
    """Returns the mean and the half width of its 95 % confidence interval, by Student's t. values: [E] with E >= 2.

    Half width = t(0.975, E-1) * s / sqrt(E), s the standard deviation with E-1 in the denominator. It covers the choice of
    episodes only: neither the training seed nor other classes than those in the split.
    """
    values = values.to(torch.float64)
    count = len(values)
    if count < 2:
        raise ValueError(f"a confidence interval needs at least 2 episodes; got {count}.")
    half = float(stdtrit(count - 1, 0.975)) * float(values.std(correction=1)) / math.sqrt(count)
    return float(values.mean()), half


def _number(mean: float, ci95: float, metric: str, sign: str = "") -> str:
    form = f"{sign}.2%" if metric == "accuracy" else f"{sign}.4f"
    return f"{mean:{form}} ± {ci95:{form.lstrip('+')}}"


@dataclass(frozen=True, eq=False)
class Result:
    """The result of `evaluate`. mean, ci95: of per_episode [E] (accuracy as a fraction, or mean squared error).

    episodes_key identifies the episodes: `compare` pairs only results with equal keys.
    """

    mean: float
    ci95: float
    per_episode: Tensor
    metric: str
    transductive: bool
    episodes_key: str

    def __str__(self) -> str:
        number = _number(self.mean, self.ci95, self.metric)
        how = "transductive" if self.transductive else "inductive"
        return f"{self.metric} {number} ({len(self.per_episode)} episodes, 95 % interval, {how})"

    __repr__ = __str__


@dataclass(frozen=True, eq=False)
class PairedDifference:
    """The mean of a - b over the same episodes, the half width of its 95 % interval, and the differences [E]."""

    mean: float
    ci95: float
    per_episode: Tensor
    metric: str = "accuracy"

    @property
    def separated(self) -> bool:
        """True if the interval does not contain zero."""
        return abs(self.mean) > self.ci95

    def __str__(self) -> str:
        number = _number(self.mean, self.ci95, self.metric, sign="+")
        verdict = "the interval leaves out 0" if self.separated else "the interval contains 0: not separated"
        return f"difference {number} ({len(self.per_episode)} paired episodes; {verdict})"

    __repr__ = __str__


@contextmanager
def evaluation_mode(learner: nn.Module, *, transductive: bool = False) -> Iterator[None]:
    """Puts the learner into evaluation mode for the block, and each module back into its own mode afterwards.

    transductive=True makes batch norm use the statistics of the batch, without moving its running ones. Other threads wait with
    their own blocks, because the modes belong to the module.
    """
    with _modes:
        modes = [(module, module.training) for module in learner.modules()]
        learner.eval()
        try:
            with batch_statistics(learner) if transductive else nullcontext():
                yield
        finally:
            for module, mode in modes:
                module.training = mode


def _device(learner: nn.Module, otherwise: Tensor) -> torch.device:
    """Returns the device of a learner's parameters, or that of its data if it has none."""
    return next((p.device for p in learner.parameters()), otherwise.device)


@torch.no_grad()
def embed_all(learner: ComparesEmbeddings, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Embeds uint8 pictures [B, c, H, W] -> [B, D], in evaluation mode, a few hundred at a time."""
    at_once = min(_EMBED_AT_ONCE, max(1, _NUMBERS_AT_ONCE // max(images[:1].numel(), 1)))
    with evaluation_mode(learner):
        return torch.cat([learner.embed(as_input(part, dtype)) for part in images.split(at_once)])


def _scores(logits: Tensor, target: Tensor, metric: str) -> Tensor:
    """Scores logits [..., M, N] by labels [..., M] (or predictions by targets [..., M, d]) -> one number per task [...]."""
    if metric == "accuracy":
        return (logits.argmax(-1) == target).cpu().to(torch.float64).mean(-1)  # some GPUs have no float64
    if metric == "miou":
        # imported here, because a graded answer may use this module and no method
        from fsl_course.methods.dense import iou

        return iou(logits.argmax(1) == 1, target).cpu().to(torch.float64)
    return F.mse_loss(logits, target, reduction="none").cpu().to(torch.float64).flatten(-2).mean(-1)


def _by_embeddings(learner: ComparesEmbeddings, sampler: EpisodeSampler, episodes: int) -> Tensor:
    """Returns the accuracy of each episode, and embeds each picture only once, however many episodes it occurs in."""
    layout, images = sampler.layout(0, episodes), sampler.source.images
    more = sampler.n_unlabelled > 0 and getattr(learner, "uses_unlabelled", False)
    drawn = [layout.support, layout.query, layout.unlabelled][: 2 + more]
    used, place = torch.cat(drawn, dim=1).unique(return_inverse=True)
    device = _device(learner, images)
    table = embed_all(learner, images.flatten(0, 1)[used.to(images.device)].to(device), sampler.dtype)
    lengths, found = [part.shape[1] for part in drawn], []
    at_once = min(_TASKS_AT_ONCE, max(1, _FLOATS_AT_ONCE // (place.shape[1] * table.shape[1])))
    for low in range(0, episodes, at_once):
        part = slice(low, min(low + at_once, episodes))
        support, query, *rest = table[place[part].to(device)].split(lengths, dim=1)
        if getattr(learner, "uses_attributes", False):
            known = sampler.descriptions(layout.classes[part])
            rest = [known if known is None else known.to(device)]
        logits = learner.score(support, layout.support_y[part].to(device), query, sampler.n_way, *rest)
        found.append(_scores(logits, layout.query_y[part].to(device), "accuracy"))
    return torch.cat(found)


@torch.no_grad()
def evaluate(
    learner: FewShotLearner,
    sampler: EpisodeSampler | SinusoidSampler,
    episodes: int = 600,
    *,
    metric: str = "accuracy",
    transductive: bool = False,
) -> Result:
    """Returns the mean and 95 % interval of a learner over the episodes 0 .. episodes-1 of a sampler.

    metric:       "accuracy" (a fraction) for classification, "mse" for regression; "miou" for scenes: each episode has one class,
                  whose intersection over union is counted over all its queries together
    transductive: False: every query is judged on its own (batch norm with running statistics; learners that adapt use the
                  statistics of the support pass). True: batch norm sees all queries of an episode at once, which raises the
                  score; say so wherever the number is shown. The result says True of a learner that is transductive itself
    Leaves the learner's mode, weights and running statistics as they were. On Linux it is faster in a process that has called
    `fsl_course._system.allocator.keep_memory`. Threads may evaluate one learner; they take turns.

    Raises TypeError for what is no learner or no sampler, ValueError for settings that do not go together, FloatingPointError
    for weights that are not finite.
    """
    check_kinds(learner, sampler)
    kinds = {"accuracy": "classification", "mse": "regression", "miou": "segmentation"}
    if metric not in kinds:
        raise ValueError(f'metric must be "accuracy", "mse" or "miou"; got {metric!r}.')
    if metric != (fits := metric_of(sampler)):
        raise ValueError(f'{sampler!r} gives {kinds[fits]} tasks: take metric="{fits}".')
    if not 2 <= episodes <= MOST_EPISODES:
        raise ValueError(
            f"evaluate needs at least 2 episodes for an interval, and takes at most {MOST_EPISODES}; got {episodes}."
        )
    if damaged := not_finite(learner.state_dict()):
        raise FloatingPointError(
            f"{damaged} holds numbers that are not finite: these weights are damaged, or training diverged."
        )
    if isinstance(learner, ComparesEmbeddings) and not transductive and metric == "accuracy":
        with evaluation_mode(learner):
            per_episode = _by_embeddings(learner, sampler, episodes)
    else:
        found = []
        with evaluation_mode(learner, transductive=transductive):
            for low in range(0, episodes, _TASKS_AT_ONCE):
                batch = sampler.batch(low, min(_TASKS_AT_ONCE, episodes - low))
                for episode in batch.to(_device(learner, batch.query_x)):
                    found.append(_scores(learner(episode), episode.query_y, metric))
        per_episode = torch.stack(found)
    mean, half = mean_and_ci95(per_episode)
    transductive = transductive or getattr(learner, "transductive", False)
    return Result(mean, half, per_episode, metric, transductive, f"{sampler.key}, episodes 0..{episodes - 1}")


def metric_of(sampler: EpisodeSampler | SinusoidSampler | SceneSampler) -> str:
    """Returns the metric of a sampler's tasks: that of its class, or accuracy if it names none."""
    return getattr(sampler, "metric", "accuracy")


def check_kinds(learner: FewShotLearner, sampler: EpisodeSampler | SinusoidSampler) -> None:
    """Raises TypeError, with what to pass, for what is no learner or no sampler."""
    if not isinstance(learner, nn.Module):
        raise TypeError(f"learner must be one, such as PrototypicalNetwork(conv4()); got {type(learner).__name__}.")
    if not (callable(getattr(sampler, "batch", None)) and hasattr(sampler, "key")):
        raise TypeError(
            f"sampler must be an EpisodeSampler or a SinusoidSampler; got {type(sampler).__name__}. Of an image set, "
            "EpisodeSampler(images, n_way, k_shot, n_query) makes one."
        )


def compare(a: Result, b: Result) -> PairedDifference:
    """Returns how much better a is than b, episode by episode. Raises ValueError if their episodes or metrics differ.

    Some episodes are harder for both. Pairing removes this, so its interval is narrower than two separate ones.
    """
    if a.episodes_key != b.episodes_key or a.metric != b.metric:
        raise ValueError(
            "compare needs results from the same episodes and metric, so that differences are paired; got\n"
            f"  a: {a.metric} on {a.episodes_key}\n  b: {b.metric} on {b.episodes_key}\n"
            "Evaluate both with one sampler and the same number of episodes."
        )
    difference = a.per_episode - b.per_episode
    mean, half = mean_and_ci95(difference)
    return PairedDifference(mean, half, difference, a.metric)
