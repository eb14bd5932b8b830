"""What the samplers share: random numbers for blocks of episodes, and checks of their arguments."""

from collections.abc import Iterator
from operator import index

import numpy as np
import torch

from fsl_course.episodes.episode import Episode

BLOCK = 256  # episodes drawn together
MOST_TASKS = 1_000_000  # episodes asked for at once, so that a slip of the keyboard cannot take all memory


class Numbered:
    """A sampler whose episodes have numbers: each is a pure function of (seed, index). A class defines batch(start, tasks)."""

    def __getitem__(self, index: int) -> Episode:
        """Returns episode number `index`, any whole number from 0 on."""
        return self.batch(index, 1)[0]

    __iter__ = None  # makes `for episode in sampler` an error, because the loop would never end


def generator_of(*key: int) -> torch.Generator:
    """Returns a generator seeded by non-negative integers of any size. Different keys give unrelated streams."""
    key = tuple(int(n) for n in key)
    # SeedSequence joins the 32-bit words of all numbers without a mark between them: (2**32, 0) would give the stream of (0, 1)
    words = key if max(key) < 2**32 else list(str(key).encode())
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))  # 63 bits: within int64 on every platform


def check_span(start: int, tasks: int) -> None:
    """Raises TypeError or ValueError for numbers that do not number the episodes start .. start+tasks-1."""
    try:
        index(start), index(tasks)
    except TypeError:
        raise TypeError(f"episodes are numbered by whole numbers; got start={start!r}, tasks={tasks!r}.") from None
    if tasks > MOST_TASKS:
        raise ValueError(f"at most {MOST_TASKS} episodes can be asked for at once; got {tasks}. Ask several times.")
    if start < 0 or tasks < 1:
        raise ValueError(f"batch(start, tasks) needs start >= 0 and tasks >= 1; got start={start}, tasks={tasks}.")


def spans(start: int, tasks: int) -> Iterator[tuple[int, slice]]:
    """Yields the blocks that hold the episodes start .. start+tasks-1, each with its slice of them. Raises as check_span does."""
    check_span(start, tasks)
    for block in range(start // BLOCK, (start + tasks - 1) // BLOCK + 1):
        first = block * BLOCK
        yield block, slice(max(start - first, 0), min(start + tasks - first, BLOCK))


def check_whole(least: int, **numbers: int) -> None:
    """Raises ValueError unless all are whole numbers of at least `least`."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}.")


def check_dtype(dtype: torch.dtype) -> None:
    """Raises TypeError or ValueError unless dtype is a floating-point type of PyTorch."""
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a type of PyTorch such as torch.float32; got {dtype!r}.")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type such as torch.float32; got {dtype}.")
