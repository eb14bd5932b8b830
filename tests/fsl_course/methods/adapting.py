"""What the tests of MAML and its family share: tasks with closed forms, small models, and a count of live memory."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.nets import classifier, conv4, conv_block
from tests.conftest import toy_images


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- tasks with closed forms: a linear model and the mean squared error give quadratic losses ---------------------------


def linear_model(inputs: int) -> nn.Linear:
    """x -> x w, its only parameter weight [1, inputs] in float64."""
    model = nn.Linear(inputs, 1, bias=False).double()
    model.weight.data = randn(1, inputs, seed=7)
    return model


def linear_task(inputs: int, seed: int = 0, rows: int = 6) -> Episode:
    x, y = randn(2, rows, inputs, seed=seed), randn(2, rows, 1, seed=seed + 1)
    return Episode(x[0], y[0], x[1], y[1], torch.zeros(0, dtype=torch.int64))


def quadratic(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """H and b of the mean squared error of x w against y: its gradient is H w - b."""
    return 2 / len(x) * x.T @ x, 2 / len(x) * x.T @ y.squeeze(1)


# --- small models and episodes -------------------------------------------------------------------------------------------


def smooth_net(inputs: int = 1, outputs: int = 1, hidden: int = 5, seed: int = 0) -> nn.Sequential:
    """A net without kinks, so that central differences are exact to many digits."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs)).double()


def small_conv(norm: str, n_way: int = 3, seed: int = 0, width: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return classifier(conv4(width, norm), n_way, width).double()


def plain_conv(norm: str, n_way: int = 3, seed: int = 0) -> nn.Sequential:
    """Two blocks of Conv4 in the default memory layout."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(*conv_block(1, 4, norm, True), *conv_block(4, 4, norm, True), nn.Flatten())
    return nn.Sequential(OrderedDict(encoder=encoder, head=nn.Linear(64, n_way))).double()


def small_episodes(tasks: int, n_way: int = 3, start: int = 0) -> Episode:
    """Stacked episodes of 16 x 16 pictures in float64, 2 shots and 2 queries a class: Conv4 turns each into one vector."""
    return EpisodeSampler(toy_images(size=16), n_way, 2, 2, dtype=torch.float64).batch(start, tasks)


def same_gradients(a: nn.Module, b: nn.Module, loss_a: Tensor, loss_b: Tensor, tolerance: float = 1e-10) -> bool:
    """Do two losses pull the parameters of two equal modules the same way, and at all?"""
    first, second = (
        torch.autograd.grad(loss, list(m.parameters()), allow_unused=True) for loss, m in ((loss_a, a), (loss_b, b))
    )
    pairs = [(x, y) for x, y in zip(first, second, strict=True) if x is not None or y is not None]
    assert any(x.abs().max() > 1e-6 for x, _ in pairs if x is not None)
    return all(x is not None and y is not None and torch.allclose(x, y, rtol=0, atol=tolerance) for x, y in pairs)


def central_differences(f: Callable[[dict[str, Tensor]], Tensor], params: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of a scalar function of a parameter dict, from its values alone."""
    step, found = 1e-5, {}
    for name, value in params.items():
        slopes = []
        for i in range(value.numel()):
            bump = torch.zeros(value.numel(), dtype=value.dtype)
            bump[i] = step
            bump = bump.view(value.shape)
            up, down = (f({**params, name: value.detach() + s * bump}).detach() for s in (1, -1))
            slopes.append((up - down) / (2 * step))
        found[name] = torch.stack(slopes).view(value.shape)
    return found


# --- memory --------------------------------------------------------------------------------------------------------------


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors made in the block that are still alive, graphs included: `now`, and the most there were (`peak`)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if (key := storage._cdata) not in self._alive:
                    self._alive.add(key)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._gone, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out
