"""The works of the benchmark and their goals. Loads no PyTorch, so that the command line can name them at once."""

from __future__ import annotations

from typing import NamedTuple


class Work(NamedTuple):
    """One work.

    goal:   how many times faster than the peer; for conv4-matmul-share: the share of a matrix product's rate
    words:  what is timed
    module: file of this package that holds it, in a function with the name of the work
    """

    goal: float
    words: str
    module: str


WORKS = {
    "sampling-memory": Work(20, "drawing 20-way 5-shot episodes out of pictures in memory", "sampling"),
    "sampling-files": Work(100, "the same, where the peer reads PNG files", "sampling"),
    "evaluate-1000": Work(10, "testing a prototypical network on 1000 episodes", "metric"),
    "prototypical-step": Work(1.6, "one training step of a prototypical network", "metric"),
    "maml-sine-25": Work(8, "MAML's gradient for 25 sine curves, 5 inner steps", "maml"),
    "maml-sine-100": Work(20, "MAML's gradient for 100 sine curves, 5 inner steps", "maml"),
    "maml-conv4": Work(1.5, "MAML's gradient for 4 tasks of pictures (GPU goal: 8)", "maml"),
    "conv4-matmul-share": Work(0.5, "Conv4's share of the rate of a matrix product", "convolutions"),
    "time-to-95": Work(3, "from nothing to 95 % on Omniglot's validation alphabets", "time_to"),
}
