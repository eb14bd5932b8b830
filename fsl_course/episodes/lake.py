"""The one-shot test of Lake et al. 2015: 20 letters of one alphabet, each drawn once by one person and once by another."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from fsl_course.data.imageset import ImageSet
from fsl_course.episodes._blocks import BLOCK
from fsl_course.episodes.sampler import EpisodeSampler

LAKE_WAY, LAKE_RUNS = 20, 20


class LakeSampler(EpisodeSampler):
    """Draws runs: 20-way 1-shot with one query a class, all classes from one alphabet.

    All support drawings of a run are by one person and all queries by another, as in Omniglot, where drawing number i of every
    letter of an alphabet is by person i. Raises ValueError if no group of the source has 20 classes.
    """

    def __init__(self, source: ImageSet, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(source, LAKE_WAY, 1, 1, seed=seed, within_group=True, dtype=dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source.name}: {LAKE_WAY}-way within alphabets, two people a run, seed {self.seed})"

    def _drawings(self, classes: Tensor, each: int, generator: Generator) -> Tensor:
        """Draws `each` people for every run. classes: int64 [T, C] -> positions [T, C, each]."""
        people = self.source.images.shape[1]
        drawn = torch.rand(len(classes), people, generator=generator).topk(each, dim=1).indices
        return classes[..., None] * people + drawn[:, None]


class PublishedRuns(LakeSampler):
    """Gives the published runs in their order: `load_lake_runs` is the source. Episode 20 is the first run again."""

    def _group(self, block: int, generator: Generator) -> Tensor:
        return (torch.arange(BLOCK) + block * BLOCK) % len(self._groups)

    def _drawings(self, classes: Tensor, each: int, generator: Generator) -> Tensor:
        """Takes the training drawing for the support and the test drawing for the query."""
        return classes[..., None] * self.source.images.shape[1] + torch.arange(each)
