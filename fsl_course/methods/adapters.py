"""Adapters: few numbers beside a frozen encoder, fitted to the support of each task (Li et al. 2022, after Perez et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fsl_course.episodes import Episode
from fsl_course.inner_loop.functional import Params
from fsl_course.methods.base import FewShotLearner, class_means
from fsl_course.methods.prototypical import cosine_similarities


def fresh(encoder: nn.Module, kind: str) -> Params:
    """Returns adapters that change nothing yet, all zeros, by name.

    "film":     for every batch norm `scale` and `shift` [c]: its output h becomes (1 + scale) * h + shift
    "residual": for every convolution a 1x1 convolution `beside` [out, in, 1, 1] that adds to its output (Li et al. 2022, whose
                code starts at 1e-4 times the identity)
    """
    made, zeros = {}, next(encoder.parameters()).new_zeros
    for name, layer in encoder.named_modules():
        if kind == "film" and isinstance(layer, _BatchNorm):
            made |= {f"{name}.scale": zeros(layer.num_features), f"{name}.shift": zeros(layer.num_features)}
        elif kind == "residual" and isinstance(layer, nn.Conv2d):
            made[f"{name}.beside"] = zeros(layer.out_channels, layer.in_channels, 1, 1)
    if not made:
        raise ValueError(f'kind must be "film" or "residual", and the encoder have its layers; got {kind!r}.')
    return made


def _hook(name: str, adapters: Params, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    if f"{name}.beside" in adapters:
        return output + F.conv2d(inputs[0], adapters[f"{name}.beside"], stride=layer.stride)
    return output + adapters[f"{name}.scale"].view(-1, 1, 1) * output + adapters[f"{name}.shift"].view(-1, 1, 1)


@contextmanager
def adapted(encoder: nn.Module, adapters: Params) -> Iterator[None]:
    """Makes the encoder compute with these adapters for the time of the block; its weights and buffers stay as they are."""
    names = {name.rpartition(".")[0] for name in adapters}
    hooks = [encoder.get_submodule(n).register_forward_hook(partial(_hook, n, adapters)) for n in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def with_statistics(encoder: nn.Module, pictures: Tensor, share: float = 1.0) -> nn.Module:
    """Returns a copy whose batch norms hold (1 - share) * their statistics + share * those of pictures [B, c, H, W].

    Inductive if the pictures are the support, or others of the domain; transductive if they are the queries.
    """
    new = deepcopy(encoder).eval()
    for layer in new.modules():
        if isinstance(layer, _BatchNorm):
            layer.train().momentum = share
    new(pictures)
    return new.eval()


class Adapters(FewShotLearner):
    """Fits adapters to each task by the nearest-centroid loss on its support, and judges queries by the same centroids.

    Logits are 10 * cos(f(x), c_k), c_k the mean embedding of class k, as in the code of Li et al. 2022. No task changes the
    encoder; training fits it on the queries, without adapters. kind: see `fresh`; lr, steps: of Adam.
    """

    def __init__(self, encoder: nn.Module, kind: str = "film", lr: float = 0.01, steps: int = 20) -> None:
        super().__init__()
        fresh(encoder, kind)
        self.encoder, self.kind, self.lr, self.steps = encoder, kind, lr, steps

    def _scores(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        return 10 * cosine_similarities(query, class_means(support, labels, n_way))

    def loss(self, episode: Episode) -> Tensor:
        """Returns the cross-entropy of one task's queries without adapters, a scalar: what training minimises."""
        return F.cross_entropy(self.predict({}, episode), episode.query_y)

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int) -> Iterator[Params]:
        """Yields the adapters before the first step and after each, the same dictionary changed in place."""
        if self.encoder.training:
            raise ValueError("in training mode every step would move the running statistics: call .eval() first.")
        adapters = {name: zeros.requires_grad_() for name, zeros in fresh(self.encoder, self.kind).items()}
        solver = torch.optim.Adam(list(adapters.values()), lr=self.lr)
        yield adapters
        for _ in range(self.steps):
            with torch.enable_grad(), adapted(self.encoder, adapters):
                z = self.encoder(support_x)
                loss = F.cross_entropy(self._scores(z, support_y, z, n_way), support_y)
            found = torch.autograd.grad(loss, list(adapters.values()))  # the encoder's weights get none
            for adapter, gradient in zip(adapters.values(), found, strict=True):
                adapter.grad = gradient
            solver.step()
            yield adapters

    def predict(self, adapters: Params, episode: Episode) -> Tensor:
        """Predicts the queries of one task with these adapters -> logits [N*Q, N]."""
        with adapted(self.encoder, adapters):
            support, query = (self.encoder(x) for x in (episode.support_x, episode.query_x))
        return self._scores(support, episode.support_y, query, episode.n_way)

    def forward(self, episode: Episode) -> Tensor:
        """Predicts the queries of one task with the adapters after the last step -> logits [N*Q, N]."""
        *_, adapters = self.adapt(episode.support_x, episode.support_y, episode.n_way)
        return self.predict(adapters, episode)
