"""What the tests of the LSTM meta-learner share: a learner of lines, and points to fit."""

from __future__ import annotations

import torch
from torch import nn

from fsl_course.episodes import Episode
from fsl_course.methods.meta_lstm import MetaLSTM


def line(steps: int = 3, **settings: object) -> MetaLSTM:
    """A learner of lines y = w x + b: two parameters, gates that are far from constant."""
    torch.manual_seed(1)
    learner = MetaLSTM(nn.Linear(1, 1), steps, hidden=4, lr=0.2, **settings).double()
    with torch.no_grad():
        for gate in (learner.input_gate, learner.forget_gate):
            gate.weight.mul_(100)
        learner.forget_gate.bias.fill_(1.5)
    return learner


def points(seed: int = 0) -> Episode:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 7, 1, generator=generator, dtype=torch.float64)
    return Episode(x[:4], y[:4], x[4:], y[4:], torch.zeros(0, dtype=torch.int64))


def flat(learner: MetaLSTM, episode: Episode) -> torch.Tensor:
    return torch.cat([value.flatten() for value in learner.adapted(episode).values()])
