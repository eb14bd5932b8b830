"""Sine curves as regression tasks (Finn et al. 2017, section 5.1)."""

import math

import torch
from torch import Tensor

from fsl_course.episodes._blocks import BLOCK, Numbered, check_dtype, check_whole, generator_of, spans
from fsl_course.episodes.episode import Episode


class SinusoidSampler(Numbered):
    """Draws sine curves y = a sin(x - p) as regression tasks; same interface as EpisodeSampler.

    k_shot:    K support points
    n_query:   Q query points
    amplitude: range of a, uniform
    phase:     range of p in radians, uniform
    inputs:    range of x, uniform

    Episodes hold support_x, support_y float [K, 1], query_x, query_y float [Q, 1] and classes [0].
    """

    metric = "mse"

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
        check_whole(1, k_shot=k_shot, n_query=n_query)
        check_whole(0, seed=seed)
        check_dtype(dtype)
        for name, (low, high) in (("amplitude", amplitude), ("phase", phase), ("inputs", inputs)):
            if not low <= high:
                raise ValueError(f"{name} must be a range (low, high) with low <= high; got ({low}, {high}).")
        self.k_shot, self.n_query, self.seed, self.dtype = int(k_shot), int(n_query), int(seed), dtype
        self.amplitude, self.phase, self.inputs = amplitude, phase, inputs

    def __repr__(self) -> str:
        return f"SinusoidSampler({self.k_shot} support and {self.n_query} query points, seed {self.seed})"

    @property
    def key(self) -> str:
        """Identifies the episodes: the repr and the ranges."""
        return f"{self!r} with amplitude {self.amplitude}, phase {self.phase}, inputs {self.inputs}"

    def _draw(self, start: int, tasks: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draws amplitudes [T], phases [T] and inputs [T, K+Q], in float64 so that both dtypes see the same curves."""

        def drawn(block: int) -> Tensor:
            shape = BLOCK, 2 + self.k_shot + self.n_query
            return torch.rand(shape, generator=generator_of(self.seed, block), dtype=torch.float64)

        uniform = torch.cat([drawn(block)[part] for block, part in spans(start, tasks)])
        units, ranges = (uniform[:, 0], uniform[:, 1], uniform[:, 2:]), (self.amplitude, self.phase, self.inputs)
        return tuple(low + (high - low) * unit for unit, (low, high) in zip(units, ranges, strict=True))

    def curves(self, start: int, tasks: int) -> tuple[Tensor, Tensor]:
        """Returns the hidden amplitudes [T] and phases [T] of the episodes start .. start+tasks-1."""
        amplitude, phase, _ = self._draw(start, tasks)
        return amplitude.to(self.dtype), phase.to(self.dtype)

    def batch(self, start: int, tasks: int) -> Episode:
        """Returns the episodes start .. start+tasks-1, stacked: support_x [T, K, 1], query_x [T, Q, 1], and so on."""
        amplitude, phase, x = self._draw(start, tasks)
        y = (amplitude[:, None] * torch.sin(x - phase[:, None])).to(self.dtype)[..., None]
        x, k = x.to(self.dtype)[..., None], self.k_shot
        nothing = torch.zeros(tasks, 0, dtype=torch.int64)
        return Episode(support_x=x[:, :k], support_y=y[:, :k], query_x=x[:, k:], query_y=y[:, k:], classes=nothing)
