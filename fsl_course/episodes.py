"""N-way K-shot tasks out of an image set (Vinyals et al. 2016, section 4.1), and sine curves (Finn et al. 2017, section 5.1).

An episode is a pure function of (seed, index): chance is drawn in blocks of 256 episodes, each block from a generator
of its own seeded by (seed, block). A batch of episodes is a slice of a block and one gather, with no Python loop over tasks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import index

import numpy as np
import torch
from torch import Tensor

from fsl_course.data.imageset import ImageSet

BLOCK = 256  # episodes drawn together


@dataclass(frozen=True, eq=False)
class Episode:
    """One task, or T stacked tasks with a leading [T] axis everywhere.

    support_x: float [N*K, c, H, W] in [0, 1]    regression tasks: [K, d_in]
    support_y: int64 [N*K] in 0..N-1             regression tasks: float [K, d_out]
    query_x:   float [N*Q, c, H, W]              regression tasks: [Q, d_in]
    query_y:   int64 [N*Q]                       regression tasks: float [Q, d_out]
    classes:   int64 [N]; which class of the source sits in which slot. Regression tasks have none: [0]

    Rows come in random order: neither support nor query is sorted by label.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    classes: Tensor

    @property
    def n_way(self) -> int:
        """N, the number of classes of a task. Read off `classes`, never off the labels."""
        return self.classes.shape[-1]

    @property
    def stacked(self) -> bool:
        """True when there is a leading task axis [T]."""
        return self.classes.dim() == 2

    def _each(self, change) -> Episode:
        return Episode(**{f.name: change(getattr(self, f.name)) for f in fields(self)})

    def __len__(self) -> int:
        """T, the number of stacked tasks."""
        if not self.stacked:
            raise TypeError(
                "this Episode is a single task without a task axis; take one from sampler.batch(start, tasks)."
            )
        return self.classes.shape[0]

    def __getitem__(self, task: int) -> Episode:
        """Task number `task` of T stacked tasks, without its task axis."""
        if not -len(self) <= task < len(self):
            raise IndexError(f"task {task} of {len(self)} stacked tasks.")
        return self._each(lambda t: t[task])

    def __iter__(self) -> Iterator[Episode]:
        return (self[task] for task in range(len(self)))

    def to(self, target: str | torch.device | torch.dtype) -> Episode:
        """The same episode on another device, or with its floating-point tensors in another dtype."""
        if isinstance(target, torch.dtype):
            return self._each(lambda t: t.to(target) if t.is_floating_point() else t)
        return self._each(lambda t: t.to(target))


def _generator(*key: int) -> torch.Generator:
    """A generator seeded by a tuple of non-negative integers of any size; different tuples give unrelated streams."""
    key = tuple(int(n) for n in key)
    # SeedSequence cuts numbers into 32-bit words and does not keep where one ends: (2**32, 0) would be (0, 1)
    words = key if max(key) < 2**32 else list(str(key).encode())
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))  # 63 bits: within int64 on every platform


def _check_span(start: int, tasks: int) -> None:
    try:
        index(start), index(tasks)
    except TypeError:
        raise TypeError(f"episodes are numbered by whole numbers; got start={start!r}, tasks={tasks!r}.") from None
    if start < 0 or tasks < 1:
        raise ValueError(f"batch(start, tasks) needs start >= 0 and tasks >= 1; got start={start}, tasks={tasks}.")


def _check_whole(**numbers: int) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}.")


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0; got {seed!r}.")


@dataclass(frozen=True, eq=False)
class Layout:
    """Which drawings make up T episodes. Positions count drawings in images.flatten(0, 1).

    support: int64 [T, N*K]; support_y: int64 [T, N*K]; query: int64 [T, N*Q]; query_y: int64 [T, N*Q]; classes: int64 [T, N]
    """

    support: Tensor
    support_y: Tensor
    query: Tensor
    query_y: Tensor
    classes: Tensor


class EpisodeSampler:
    """N-way K-shot episodes with Q queries for each class out of an image set.

    source:       an ImageSet, usually one split of it
    n_way:        N, classes in an episode
    k_shot:       K, support drawings for each class
    n_query:      Q, query drawings for each class
    seed:         with the index it fixes an episode completely
    within_group: draw all N classes from one group (alphabet). Groups with fewer than N classes are left out, the others
                  are equally likely
    dtype:        of the pictures, torch.float32 or torch.float64

    The class-to-slot map is a fresh random permutation in every episode; support and query never share a drawing.
    Raises ValueError when the source is too small: what was asked, what there is, what would fit.
    """

    def __init__(
        self,
        source: ImageSet,
        n_way: int,
        k_shot: int,
        n_query: int,
        *,
        seed: int = 0,
        within_group: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        _check_whole(n_way=n_way, k_shot=k_shot, n_query=n_query)
        _check_seed(seed)
        if not dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating-point type such as torch.float32; got {dtype}.")
        self.source, self.n_way, self.k_shot, self.n_query = source, int(n_way), int(k_shot), int(n_query)
        self.seed, self.within_group, self.dtype = int(seed), within_group, dtype
        self._check_source()
        names = sorted(set(source.groups))
        member = torch.tensor([names.index(g) for g in source.groups])[None] == torch.arange(len(names))[:, None]
        self._groups = member[member.sum(1) >= n_way]  # bool [G, C], the groups that are large enough
        if within_group and not len(self._groups):
            raise ValueError(
                f"within_group=True with n_way={n_way} needs a group of at least {n_way} classes; the largest of the "
                f"{len(names)} groups of {source.name} has {int(member.sum(1).max())}. Take a smaller n_way."
            )
        self._block: tuple[int, Layout] | None = None  # the block drawn last; a cache, it never changes a result

    def _check_source(self) -> None:
        source, need = self.source, self.k_shot + self.n_query
        if len(source) < self.n_way:
            raise ValueError(
                f"a {self.n_way}-way episode needs {self.n_way} classes; {source.name} has {len(source)}. "
                f"Take n_way <= {len(source)} or add classes."
            )
        short = [i for i, count in enumerate(source.counts.tolist()) if count < need]
        if short:
            least = int(source.counts.min())
            fit = (
                f"with k_shot={self.k_shot} at most n_query={least - self.k_shot} fits"
                if least > self.k_shot
                else f"k_shot + n_query <= {least} fits"
            )
            raise ValueError(
                f"k_shot={self.k_shot} and n_query={self.n_query} need {need} drawings of every class; {len(short)} of "
                f"{len(source)} classes of {source.name} have fewer, e.g. {source.class_names[short[0]]!r} has "
                f"{int(source.counts[short[0]])}. For all classes {fit}; or leave the short "
                f"classes out: source.select((source.counts >= {need}).nonzero())."
            )

    def __repr__(self) -> str:
        return (
            f"EpisodeSampler({self.source.name}: {self.n_way}-way {self.k_shot}-shot, {self.n_query} queries per class, "
            f"seed {self.seed}{', within groups' if self.within_group else ''})"
        )

    @property
    def key(self) -> str:
        """Which episodes these are: the words of repr and a digest of the classes. Two sets may share a name.

        The digest covers names, groups and drawings of the classes, and the shape of the pictures, not the pictures.
        """
        source = self.source
        about = [source.class_names, source.groups, source.counts.tolist(), list(source.images.shape)]
        return f"{self!r} of classes {hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]}"

    def _draw_block(self, block: int) -> Layout:
        """The 256 episodes of one block. Every choice without replacement is the top of a random ranking."""
        cached = self._block  # read once: another thread may put another block there meanwhile
        if cached is not None and cached[0] == block:
            return cached[1]
        generator = _generator(self.seed, block)
        source, n_way, k_shot, n_query = self.source, self.n_way, self.k_shot, self.n_query
        drawings = source.images.shape[1]
        rank = torch.rand(BLOCK, len(source), generator=generator)
        if self.within_group:
            group = torch.randint(len(self._groups), (BLOCK,), generator=generator)
            rank = rank.masked_fill(~self._groups[group], -1.0)
        classes = rank.topk(n_way, dim=1).indices  # [256, N], in random order: the class-to-slot map
        rank = torch.rand(BLOCK, n_way, drawings, generator=generator)
        real = torch.arange(drawings) < source.counts.cpu()[classes][..., None]
        picked = rank.masked_fill(~real, -1.0).topk(k_shot + n_query, dim=2).indices  # [256, N, K+Q]
        position = classes[..., None] * drawings + picked
        label = torch.arange(n_way)[:, None].expand(BLOCK, n_way, k_shot + n_query)
        parts = []
        for part in (slice(0, k_shot), slice(k_shot, None)):
            flat, labels = position[..., part].flatten(1), label[..., part].flatten(1)
            order = torch.rand(flat.shape, generator=generator).argsort(dim=1)
            parts += [flat.gather(1, order), labels.gather(1, order)]
        layout = Layout(*parts, classes)
        self._block = (block, layout)
        return layout

    def layout(self, start: int, tasks: int) -> Layout:
        """Which drawings make up the episodes start .. start+tasks-1, without touching the pictures."""
        _check_span(start, tasks)
        spans = []
        for block in range(start // BLOCK, (start + tasks - 1) // BLOCK + 1):
            drawn, low = self._draw_block(block), max(start - block * BLOCK, 0)
            high = min(start + tasks - block * BLOCK, BLOCK)
            spans.append([getattr(drawn, f.name)[low:high] for f in fields(drawn)])
        return Layout(*(torch.cat(columns) for columns in zip(*spans, strict=True)))

    def batch(self, start: int, tasks: int) -> Episode:
        """Episodes start .. start+tasks-1, stacked: every tensor of the Episode has a leading axis [tasks]."""
        layout, images = self.layout(start, tasks), self.source.images
        device = images.device

        def gather(position: Tensor) -> Tensor:
            picked = images.flatten(0, 1).index_select(0, position.to(device).flatten())  # twice as fast as [...]
            return picked.to(self.dtype).div_(255).unflatten(0, position.shape)

        return Episode(
            support_x=gather(layout.support),
            support_y=layout.support_y.to(device),
            query_x=gather(layout.query),
            query_y=layout.query_y.to(device),
            classes=layout.classes.to(device),
        )

    def __getitem__(self, index: int) -> Episode:
        """Episode number `index`, a pure function of (seed, index). index: any whole number from 0 on."""
        return self.batch(index, 1)[0]

    __iter__ = None  # there is no last episode: `for episode in sampler` is an error instead of an endless loop


class SinusoidSampler:
    """Sine curves y = a sin(x - p) as regression tasks (Finn et al. 2017, section 5.1); same interface as EpisodeSampler.

    k_shot:    K support points
    n_query:   Q query points
    amplitude: range of a, uniform
    phase:     range of p in radians, uniform
    inputs:    range of x, uniform

    Episodes hold support_x, support_y float [K, 1], query_x, query_y float [Q, 1] and classes [0].
    `curves(start, tasks)` tells the hidden amplitude and phase.
    """

    def __init__(
        self,
        k_shot: int = 10,
        n_query: int = 10,
        *,
        seed: int = 0,
        amplitude: tuple[float, float] = (0.1, 5.0),
        phase: tuple[float, float] = (0.0, math.pi),
        inputs: tuple[float, float] = (-5.0, 5.0),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        _check_whole(k_shot=k_shot, n_query=n_query)
        _check_seed(seed)
        for name, (low, high) in (("amplitude", amplitude), ("phase", phase), ("inputs", inputs)):
            if not low <= high:
                raise ValueError(f"{name} must be a range (low, high) with low <= high; got ({low}, {high}).")
        self.k_shot, self.n_query, self.seed, self.dtype = int(k_shot), int(n_query), int(seed), dtype
        self.amplitude, self.phase, self.inputs = amplitude, phase, inputs

    def __repr__(self) -> str:
        return f"SinusoidSampler({self.k_shot} support and {self.n_query} query points, seed {self.seed})"

    @property
    def key(self) -> str:
        """Which episodes these are: the words of repr and the ranges."""
        return f"{self!r} with amplitude {self.amplitude}, phase {self.phase}, inputs {self.inputs}"

    def _draw(self, start: int, tasks: int) -> tuple[Tensor, Tensor, Tensor]:
        """Amplitudes [T], phases [T] and inputs [T, K+Q], always drawn in float64 so that both dtypes see the same curves."""
        _check_span(start, tasks)
        points, spans = self.k_shot + self.n_query, []
        for block in range(start // BLOCK, (start + tasks - 1) // BLOCK + 1):
            uniform = torch.rand(BLOCK, 2 + points, generator=_generator(self.seed, block), dtype=torch.float64)
            spans.append(uniform[max(start - block * BLOCK, 0) : min(start + tasks - block * BLOCK, BLOCK)])
        uniform = torch.cat(spans)

        def stretch(unit: Tensor, low: float, high: float) -> Tensor:
            return low + (high - low) * unit

        return (
            stretch(uniform[:, 0], *self.amplitude),
            stretch(uniform[:, 1], *self.phase),
            stretch(uniform[:, 2:], *self.inputs),
        )

    def curves(self, start: int, tasks: int) -> tuple[Tensor, Tensor]:
        """The hidden amplitudes [T] and phases [T] of episodes start .. start+tasks-1."""
        amplitude, phase, _ = self._draw(start, tasks)
        return amplitude.to(self.dtype), phase.to(self.dtype)

    def batch(self, start: int, tasks: int) -> Episode:
        """Episodes start .. start+tasks-1, stacked: support_x [T, K, 1], query_x [T, Q, 1], and so on."""
        amplitude, phase, x = self._draw(start, tasks)
        y = (amplitude[:, None] * torch.sin(x - phase[:, None])).to(self.dtype)[..., None]
        x, k = x.to(self.dtype)[..., None], self.k_shot
        nothing = torch.zeros(tasks, 0, dtype=torch.int64)
        return Episode(support_x=x[:, :k], support_y=y[:, :k], query_x=x[:, k:], query_y=y[:, k:], classes=nothing)

    def __getitem__(self, index: int) -> Episode:
        """Episode number `index`, a pure function of (seed, index)."""
        return self.batch(index, 1)[0]

    __iter__ = None  # there is no last episode
