"""Tasks whose examples are rows of numbers: lines with noise, and small made-up tables with classes."""

import torch
from torch import Generator, Tensor

from fsl_course.episodes.episode import Episode


def linear_tasks(tasks: int, shots: int, queries: int, features: int, noise: float, generator: Generator) -> Episode:
    """Draws T linear functions y = w.x, w and x standard normal (Garg et al. 2022, section 2).

    Support targets carry normal noise of this standard deviation, query targets none, so that the squared error on queries
    measures only what is left to learn. -> support_x [T, S, d], support_y [T, S, 1], query_x [T, M, d], query_y [T, M, 1]
    """
    weights = torch.randn(tasks, features, 1, generator=generator)
    x = torch.randn(tasks, shots + queries, features, generator=generator)
    y = x @ weights
    seen = y[:, :shots] + noise * torch.randn(tasks, shots, 1, generator=generator)
    return Episode(x[:, :shots], seen, x[:, shots:], y[:, shots:], torch.zeros(tasks, 0, dtype=torch.int64))


def table_tasks(
    tasks: int, n_way: int, shots: int, queries: int, features: int, width: int, generator: Generator
) -> Episode:
    """Draws T made-up tables: a prior over what small data sets may look like.

    A class is one cloud or two around centres of its own. A random matrix, the same for all classes, correlates the columns;
    some columns know nothing of the class, and some are bent. The columns are standardised by the support and padded with zeros
    up to `width`. -> support_x [T, N*shots, width], query_x [T, N*queries, width], labels int64
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(tasks, *shape, generator=generator)

    labels = torch.arange(n_way).repeat(shots + queries)  # the first N*shots rows hold every class `shots` times
    cloud = torch.randint(2, (len(labels),), generator=generator)
    apart = 0.5 + 2 * torch.rand(tasks, 1, 1, generator=generator)  # how far the classes lie from each other
    useful = (torch.rand(tasks, 1, features, generator=generator) < 0.7).float()
    second = (torch.rand(tasks, n_way, 1, generator=generator) < 0.3).float() * normal(n_way, features)
    centres = torch.stack([first := normal(n_way, features), first + second], dim=1)  # [T, 2, N, f]
    mix = torch.eye(features) + 0.5 * normal(features, features)
    x = apart * useful * centres[:, cloud, labels] + normal(len(labels), features) @ mix / features**0.25
    power = torch.where(torch.rand(tasks, 1, features, generator=generator) < 0.3, 2.0, 1.0)
    x = x.sign() * x.abs() ** power
    x = standardise(x[:, : n_way * shots], x)
    x = torch.cat([x, x.new_zeros(tasks, len(labels), width - features)], dim=2)
    y, classes = labels.expand(tasks, -1), torch.arange(n_way).expand(tasks, -1)
    known = n_way * shots
    return Episode(x[:, :known], y[:, :known], x[:, known:], y[:, known:], classes)


def standardise(support: Tensor, rows: Tensor) -> Tensor:
    """Standardises columns by mean and standard deviation of the support. [..., S, d], rows [..., R, d] -> [..., R, d].

    A column that is constant in the support tells nothing about the classes and becomes 0, also where a query differs: divided
    by a tiny number, that query would be enormous. Values are clipped to 5 standard deviations.
    """
    mean, spread = support.mean(-2, keepdim=True), support.std(-2, correction=0, keepdim=True)
    constant = spread <= 1e-6 * support.abs().amax(-2, keepdim=True)
    return ((rows - mean) / spread.masked_fill(constant, torch.inf)).clamp(-5, 5)
