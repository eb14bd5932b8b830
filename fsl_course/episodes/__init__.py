"""Few-shot tasks: N-way K-shot episodes from an image set, nameless pictures, scenes, sine curves, lines and made-up tables.

An episode is a pure function of (seed, index). Random numbers are drawn for blocks of 256 episodes, from one generator per block
that is seeded by (seed, block), so a batch of episodes is a slice of a block, with no Python loop over tasks.
"""

from fsl_course.episodes._blocks import BLOCK
from fsl_course.episodes.episode import Episode
from fsl_course.episodes.lake import LAKE_RUNS, LAKE_WAY, LakeSampler, PublishedRuns
from fsl_course.episodes.nameless import PictureSampler, warped
from fsl_course.episodes.sampler import EpisodeSampler, Layout
from fsl_course.episodes.scenes import SceneEpisode, SceneSampler
from fsl_course.episodes.sinusoid import SinusoidSampler
from fsl_course.episodes.tables import linear_tasks, standardise, table_tasks

__all__ = [
    "BLOCK", "LAKE_RUNS", "LAKE_WAY", "Episode", "EpisodeSampler", "LakeSampler", "Layout", "PictureSampler", "PublishedRuns",
    "SceneEpisode", "SceneSampler",
    "SinusoidSampler", "linear_tasks", "standardise", "table_tasks", "warped",
]  # fmt: skip
