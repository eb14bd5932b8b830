"""N-way K-shot tasks drawn from an image set (Vinyals et al. 2016, section 4.1)."""

import hashlib
import json
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fsl_course.data.imageset import ImageSet, as_input
from fsl_course.episodes._blocks import BLOCK, Numbered, check_dtype, check_span, check_whole, generator_of, spans
from fsl_course.episodes.episode import Episode

_MOST_BYTES = 2**35  # of pictures in one call of batch


@dataclass(frozen=True, eq=False)
class Layout:
    """Which drawings make up T episodes, as positions in images.flatten(0, 1).

    support: int64 [T, N*K]; support_y: int64 [T, N*K]; query: int64 [T, N*Q]; query_y: int64 [T, N*Q]; classes: int64 [T, N]
    unlabelled: int64 [T, U]; unlabelled_y: int64 [T, U], the true slots, and -1 for a distractor. They stand here and not in the
    Episode, so that a method cannot read them and a lesson can mark its guesses.
    """

    support: Tensor
    support_y: Tensor
    query: Tensor
    query_y: Tensor
    classes: Tensor
    unlabelled: Tensor
    unlabelled_y: Tensor


def _shuffled(rows: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Puts rows [T, R] and their labels [T, R] into one random order for each task."""
    order = torch.rand(rows.shape, generator=generator).argsort(dim=1)
    return rows.gather(1, order), labels.gather(1, order)


class EpisodeSampler(Numbered):
    """Draws N-way K-shot episodes with Q queries for each class from an image set.

    source:       an ImageSet, usually one split of it
    n_way:        N, classes in an episode
    k_shot:       K, support drawings for each class
    n_query:      Q, query drawings for each class
    seed:         fixes an episode completely, together with its index
    within_group: draws all N classes from one group (alphabet). Groups with fewer than N classes are left out, the others
                  are equally likely
    n_unlabelled: M, drawings without a label for each class of the episode (Ren et al. 2018, section 2)
    n_distractors: classes that are not in the episode; each adds M drawings to those without a label
    dtype:        of the pictures, torch.float32 or torch.float64

    The class-to-slot map is a fresh random permutation in every episode; support, query and unlabelled never share a drawing.
    Support and query stay the same, whatever n_unlabelled and n_distractors are, so results with and without can be paired.
    Raises ValueError if the source is too small, and says what was asked for, what there is and what would fit.
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
        n_unlabelled: int = 0,
        n_distractors: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_whole(1, n_way=n_way, k_shot=k_shot, n_query=n_query)
        check_whole(0, seed=seed, n_unlabelled=n_unlabelled, n_distractors=n_distractors)
        if n_distractors and not n_unlabelled:
            words = f"n_distractors={n_distractors} classes add n_unlabelled pictures each"
            raise ValueError(f"{words}, and n_unlabelled is 0: take n_unlabelled >= 1.")
        check_dtype(dtype)
        if not isinstance(source, ImageSet):
            raise TypeError(f"source must be an ImageSet, such as load_glyphs() or load_folder(); got {source!r:.60}.")
        self.source, self.n_way, self.k_shot, self.n_query = source, int(n_way), int(k_shot), int(n_query)
        self.seed, self.within_group, self.dtype = int(seed), within_group, dtype
        self.n_unlabelled, self.n_distractors = int(n_unlabelled), int(n_distractors)
        self._classes = self.n_way + self.n_distractors  # drawn for an episode
        self._check_source()
        names = sorted(set(source.groups))
        member = torch.tensor([names.index(g) for g in source.groups])[None] == torch.arange(len(names))[:, None]
        self._groups = member[member.sum(1) >= self._classes]  # bool [G, C], the groups that are large enough
        if within_group and not len(self._groups):
            raise ValueError(
                f"within_group=True with {self._asked} needs a group of at least {self._classes} classes; the largest "
                f"of the {len(names)} groups of {source.name} has {int(member.sum(1).max())}. Take a smaller n_way."
            )
        self._block: tuple[int, Layout] | None = None  # the block drawn last; a cache, it never changes a result

    @property
    def _asked(self) -> str:
        return f"n_way={self.n_way}" + (f" and n_distractors={self.n_distractors}" if self.n_distractors else "")

    def _check_source(self) -> None:
        source, need = self.source, self.k_shot + self.n_query + self.n_unlabelled
        if len(source) < self._classes:
            more = f" and {self.n_distractors} classes of distractors" if self.n_distractors else ""
            room = len(source) - self.n_distractors
            raise ValueError(
                f"a {self.n_way}-way episode needs {self.n_way} classes{more}; {source.name} has {len(source)}. "
                f"Take {f'n_way <= {room}' if room > 0 else 'fewer distractors'} or add classes."
            )
        short = [i for i, count in enumerate(source.counts.tolist()) if count < need]
        if short:
            given = {"k_shot": self.k_shot, "n_query": self.n_query, "n_unlabelled": self.n_unlabelled}
            named = [f"{name}={value}" for name, value in given.items() if value]
            least, others = int(source.counts.min()), need - self.n_query
            fit = (
                f"with {' and '.join(n for n in named if 'n_query' not in n)} at most n_query={least - others} fits"
                if least > others
                else f"{' + '.join(name for name, value in given.items() if value)} <= {least} fits"
            )
            raise ValueError(
                f"{', '.join(named[:-1])} and {named[-1]} need {need} drawings of every class; {len(short)} of "
                f"{len(source)} classes of {source.name} have fewer, e.g. {source.class_names[short[0]]!r} has "
                f"{int(source.counts[short[0]])}. For all classes {fit}; or leave the short "
                f"classes out: source.select((source.counts >= {need}).nonzero())."
            )

    def __repr__(self) -> str:
        return (
            f"EpisodeSampler({self.source.name}: {self.n_way}-way {self.k_shot}-shot, {self.n_query} queries per class, "
            f"seed {self.seed}{', within groups' if self.within_group else ''}"
            f"{f', {self.n_unlabelled} unlabelled per class' if self.n_unlabelled else ''}"
            f"{f', {self.n_distractors} distractor classes' if self.n_distractors else ''})"
        )

    @property
    def key(self) -> str:
        """Identifies the episodes: the repr and, because two sets may share a name, a digest of the classes.

        The digest covers names, groups and counts of the classes and the shape of the pictures, not the pictures themselves.
        """
        source = self.source
        about = [source.class_names, source.groups, source.counts.tolist(), list(source.images.shape)]
        return f"{self!r} of classes {hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]}"

    def _draw_block(self, block: int) -> Layout:
        """Draws the 256 episodes of one block. Every choice without replacement is the top of a random ranking."""
        cached = self._block  # read once, because another thread may store another block meanwhile
        if cached is not None and cached[0] == block:
            return cached[1]
        generator = generator_of(self.seed, block)
        source, n_way, k_shot, known = self.source, self.n_way, self.k_shot, self.k_shot + self.n_query
        rank = torch.rand(BLOCK, len(source), generator=generator)
        if self.within_group:
            rank = rank.masked_fill(~self._groups[self._group(block, generator)], -1.0)
        drawn = rank.topk(self._classes, dim=1).indices  # [256, N + distractors], in random order
        classes = drawn[:, :n_way]  # the class-to-slot map
        position = self._drawings(classes, known + self.n_unlabelled, generator)  # [256, N, K+Q+M]
        label = torch.arange(n_way)[:, None].expand_as(position)
        parts = []
        for part in (slice(0, k_shot), slice(k_shot, known)):
            parts += _shuffled(position[..., part].flatten(1), label[..., part].flatten(1), generator)
        others = self._drawings(drawn[:, n_way:], self.n_unlabelled, generator).flatten(1)  # distractors, drawn last
        unlabelled = torch.cat([position[..., known:].flatten(1), others], dim=1)
        truth = torch.cat([label[..., known:].flatten(1), torch.full_like(others, -1)], dim=1)
        layout = Layout(*parts, classes, *_shuffled(unlabelled, truth, generator))
        self._block = (block, layout)
        return layout

    def _group(self, block: int, generator: torch.Generator) -> Tensor:
        """Draws the group of each of the 256 episodes -> int64 [256], places among those that are large enough."""
        return torch.randint(len(self._groups), (BLOCK,), generator=generator)

    def _drawings(self, classes: Tensor, each: int, generator: torch.Generator) -> Tensor:
        """Draws `each` different drawings of every class. classes: int64 [T, C] -> positions [T, C, each]."""
        drawings = self.source.images.shape[1]
        rank = torch.rand(*classes.shape, drawings, generator=generator)
        real = torch.arange(drawings) < self.source.counts.cpu()[classes][..., None]
        return classes[..., None] * drawings + rank.masked_fill(~real, -1.0).topk(each, dim=2).indices

    def layout(self, start: int, tasks: int) -> Layout:
        """Says which drawings make up the episodes start .. start+tasks-1, without touching the pictures."""
        drawn = [(self._draw_block(block), part) for block, part in spans(start, tasks)]
        return Layout(*(torch.cat([getattr(block, f.name)[part] for block, part in drawn]) for f in fields(Layout)))

    def descriptions(self, classes: Tensor) -> Tensor | None:
        """Returns the descriptions [..., N, A] of these classes int64 [..., N], or None where the source has none."""
        found = self.source.attributes
        return None if found is None else found[classes.to(found.device)].to(self.dtype)

    def batch(self, start: int, tasks: int) -> Episode:
        """Returns the episodes start .. start+tasks-1, stacked: every tensor of the Episode has a leading axis [tasks]."""
        check_span(start, tasks)
        rows, images = self.n_way * (self.k_shot + self.n_query) + self._classes * self.n_unlabelled, self.source.images
        if (size := tasks * rows * images[0, 0].numel() * self.dtype.itemsize) > _MOST_BYTES and tasks > 1:
            raise ValueError(f"{tasks} episodes hold {size / 1e9:.0f} GB of pictures: ask for fewer at once.")
        layout, device = self.layout(start, tasks), images.device

        def gather(position: Tensor) -> Tensor:
            picked = images.flatten(0, 1).index_select(0, position.to(device).flatten())  # twice as fast as [...]
            return as_input(picked, self.dtype).unflatten(0, position.shape)

        return Episode(
            support_x=gather(layout.support),
            support_y=layout.support_y.to(device),
            query_x=gather(layout.query),
            query_y=layout.query_y.to(device),
            classes=layout.classes.to(device),
            unlabelled_x=gather(layout.unlabelled) if self.n_unlabelled else None,
            attributes=self.descriptions(layout.classes),
        )
