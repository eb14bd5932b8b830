"""One few-shot task, or several stacked ones, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Episode:
    """One task, or T stacked tasks with a leading [T] axis everywhere.

    support_x: float [N*K, c, H, W] in [0, 1]    regression tasks: [K, d_in]
    support_y: int64 [N*K] in 0..N-1             regression tasks: float [K, d_out]
    query_x:   float [N*Q, c, H, W]              regression tasks: [Q, d_in]
    query_y:   int64 [N*Q]                       regression tasks: float [Q, d_out]
    classes:   int64 [N], the class of the source in each slot; regression tasks have none: [0]
    unlabelled_x: float [U, c, H, W], pictures without labels, where the sampler was asked for them; otherwise None
    attributes: float [N, A], the description of the class in each slot, where the source has descriptions; otherwise None

    Rows come in random order: neither support nor query is sorted by label, nor are the unlabelled pictures.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    classes: Tensor
    unlabelled_x: Tensor | None = None
    attributes: Tensor | None = None

    @property
    def n_way(self) -> int:
        """N, the number of classes of a task. It is the length of `classes`; labels may leave a class out."""
        return self.classes.shape[-1]

    @property
    def stacked(self) -> bool:
        """True if there is a leading task axis [T]."""
        return self.classes.dim() == 2

    def _each(self, change: Callable[[Tensor], Tensor]) -> Episode:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: tensor if tensor is None else change(tensor) for name, tensor in tensors.items()})

    def __len__(self) -> int:
        """T, the number of stacked tasks."""
        if not self.stacked:
            raise TypeError(
                "this Episode is a single task without a task axis; take one from sampler.batch(start, tasks)."
            )
        return self.classes.shape[0]

    def __getitem__(self, task: int) -> Episode:
        """Returns task number `task` of T stacked tasks, without its task axis."""
        if not -len(self) <= task < len(self):
            raise IndexError(f"task {task} of {len(self)} stacked tasks.")
        return self._each(lambda t: t[task])

    def __iter__(self) -> Iterator[Episode]:
        return (self[task] for task in range(len(self)))

    def to(self, target: str | torch.device | torch.dtype) -> Episode:
        """Returns the same episode on another device, or with its floating-point tensors in another dtype."""
        if isinstance(target, torch.dtype):
            return self._each(lambda t: t.to(target) if t.is_floating_point() else t)
        return self._each(lambda t: t.to(target))
