"""Tasks that ask where: find the wanted class among other objects, given scenes in which it is marked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_course.data.imageset import ImageSet
from fsl_course.data.scenes import SIDE, boxes_of, compose
from fsl_course.episodes._blocks import BLOCK, Numbered, check_dtype, check_whole, generator_of, spans
from fsl_course.episodes.episode import Episode

OBJECTS, CLUTTER = 4, 2  # on a canvas: at most four drawings, and quarters of drawings that belong to no class


@dataclass(frozen=True, eq=False)
class SceneEpisode(Episode):
    """One task of segmentation, or T stacked ones. What an Episode calls labels are masks here.

    support_x: float [K, 1, S, S]; support_y: bool [K, S, S], the visible ink of the wanted class; query_x, query_y: likewise [Q]
    classes:   int64 [1], the wanted class of the source
    boxes:     int64 [Q, 2, 4], left, top, right, bottom of each wanted object; -1 where there is only one
    """

    boxes: Tensor | None = None


class SceneSampler(Numbered):
    """Draws scenes of three or four objects with clutter; the wanted class is in each of them, other classes too.

    source: an ImageSet of one channel, usually one split; k_shot: marked scenes; n_query: scenes to segment; seed: fixes an
    episode completely, together with its index. In every second query, on average, the wanted class appears twice. No two wanted
    objects of an episode are the same drawing. Raises ValueError if the source is too small.
    """

    metric, n_way, chance = "miou", 1, None

    def __init__(
        self, source: ImageSet, k_shot: int = 1, n_query: int = 2, *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        check_whole(1, k_shot=k_shot, n_query=n_query)
        check_whole(0, seed=seed)
        check_dtype(dtype)
        need, least = k_shot + 2 * n_query, int(source.counts.min()) if len(source) else 0
        if len(source) < 2 or least < need or source.images.shape[2] != 1:
            raise ValueError(
                f"scenes with k_shot={k_shot} and n_query={n_query} need two classes of {need} grey drawings; {source.name} has "
                f"{len(source)}, of {least} or more drawings in {source.images.shape[2]} channel(s)."
            )
        self.source, self.k_shot, self.n_query, self.seed, self.dtype = source, k_shot, n_query, seed, dtype
        self._drawn: dict[int, tuple[Tensor, ...]] = {}  # the block drawn last; a cache, it never changes a result

    def __repr__(self) -> str:
        return f"SceneSampler({self.source.name}: {self.k_shot} marked, {self.n_query} to segment, seed {self.seed})"

    @property
    def key(self) -> str:
        """Identifies the episodes: the repr, and a digest of the names, groups and counts of the classes."""
        about = [self.source.class_names, self.source.groups, self.source.counts.tolist()]
        return f"{self!r} of classes {hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]}"

    def _draw_block(self, block: int) -> tuple[Tensor, ...]:
        """Draws the 256 episodes of one block, in float64: what lies where. P is K + Q, L is CLUTTER + OBJECTS.

        Returns the class [256, 1], positions [256, P, L] in images.flatten(0, 1), centres [256, P, L, 2], sizes, ink [256, P, L],
        paper [256, P, 16, 16], the layers [256, P, 2] of the wanted object and its twin, and where there is a twin, [256, P].
        """
        generator, counts = generator_of(self.seed, block), self.source.counts.cpu()
        pictures, layers = self.k_shot + self.n_query, CLUTTER + OBJECTS

        def uniform(*shape: int) -> Tensor:
            return torch.rand(BLOCK, *shape, generator=generator, dtype=torch.float64)

        classes, most = (uniform(1) * len(counts)).long(), self.source.images.shape[1]
        twin = uniform(pictures) < 0.5
        twin[:, : self.k_shot] = False
        other = (uniform(pictures, layers) * (len(counts) - 1)).long()
        other += other >= classes[:, None]  # any class but the wanted one
        place = other * most + (uniform(pictures, layers) * counts[other]).long()
        rank = uniform(most).masked_fill(torch.arange(most) >= counts[classes], -1.0).argsort(1, descending=True)
        own = classes[..., None] * most + rank[:, : self.k_shot + 2 * self.n_query].unsqueeze(1)
        # the first objects of all pictures, then the twins of the queries
        place[:, :, CLUTTER] = own[:, 0, :pictures]
        twins = F.pad(own[:, 0, pictures:], (self.k_shot, 0))
        place[:, :, CLUTTER + 1] = twins.where(twin, place[:, :, CLUTTER + 1])
        # an object in each quarter of the canvas, and anywhere near it; clutter anywhere
        corner = torch.tensor([[17.0, 17], [47, 17], [17, 47], [47, 47]], dtype=torch.float64)
        corner = corner[uniform(pictures, OBJECTS).argsort(2)] + 10 * uniform(pictures, OBJECTS, 2) - 5
        centres = torch.cat([6 + 52 * uniform(pictures, CLUTTER, 2), corner], 2)
        sizes, ink = 24 + 8 * uniform(pictures, layers), 0.6 + 0.4 * uniform(pictures, layers)
        ink[:, :, -1] *= uniform(pictures) < 0.5  # a fourth object in half of the pictures
        order = CLUTTER + uniform(pictures, OBJECTS).argsort(2)  # who covers whom; clutter lies below
        order = torch.cat([torch.arange(CLUTTER).expand(BLOCK, pictures, CLUTTER), order], 2)
        place, sizes, ink = (part.gather(2, order) for part in (place, sizes, ink))
        centres = centres.gather(2, order[..., None].expand(-1, -1, -1, 2))
        where = order.argsort(2)[:, :, CLUTTER : CLUTTER + 2]
        return classes, place, centres, sizes, ink, 0.2 * uniform(pictures, 16, 16), where, twin

    def batch(self, start: int, tasks: int) -> SceneEpisode:
        """Returns the episodes start .. start+tasks-1, stacked: every tensor has a leading axis [tasks]."""
        drawn = []
        for block, span in spans(start, tasks):
            if (found := self._drawn.get(block)) is None:
                self._drawn = {block: (found := self._draw_block(block))}
            drawn.append([part[span] for part in found])
        classes, *rest = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        images = self.source.images.flatten(0, 1)[:, 0]
        place, centres, sizes, ink, paper, where, twin = (part.flatten(0, 1).to(images.device) for part in rest)
        centres, sizes, ink, paper = (part.to(self.dtype) for part in (centres, sizes, ink, paper))
        drawings = images[place].to(self.dtype).div_(255)
        height, width = drawings.shape[-2:]
        drawings[:, :CLUTTER, height // 2 :] = drawings[:, :CLUTTER, :, width // 2 :] = (
            0  # clutter: a quarter of a drawing
        )
        ground = F.interpolate(paper.unsqueeze(1), SIDE, mode="bilinear", align_corners=True).squeeze(1)
        x, masks = compose(drawings, centres, sizes, ink, ground)
        both = masks[torch.arange(len(masks), device=masks.device)[:, None], where]  # [B, 2, S, S]
        both[:, 1] &= twin[:, None, None]
        x, both = (part.unflatten(0, (tasks, -1)) for part in (x, both))
        k, y = self.k_shot, both.any(2)
        return SceneEpisode(
            x[:, :k], y[:, :k], x[:, k:], y[:, k:], classes.to(images.device), boxes=boxes_of(both[:, k:])
        )
