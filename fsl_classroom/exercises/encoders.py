"""A small encoder, and a law about its gradient, for the "from memory" exercises of lessons 03 to 05."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from fsl_classroom.checking.model import Case


def small_encoder(generator: Generator, weight: float = 0.25, bias: float = 1.0) -> nn.Module:
    """Returns an encoder from pictures [B, 1, 4, 4] to embeddings [B, 5] in -1..1.

    weight, bias: standard deviations of the random weights and biases
    """
    flat = nn.Linear(16, 5)
    with torch.no_grad():
        flat.weight.copy_(weight * torch.randn(5, 16, generator=generator))
        flat.bias.copy_(bias * torch.randn(5, generator=generator))
    return nn.Sequential(nn.Flatten(), flat, nn.Tanh())


def teaches_encoder(cases: Callable[[Generator], Sequence[Case]]) -> Callable[[Callable, Callable], str | None]:
    """Returns a law for `Property`: in the second case, the loss has the reference's gradient in the encoder's weights.

    The first argument of every case is the encoder; answers return (scores, loss).
    """

    def holds(answer: Callable, reference: Callable) -> str | None:
        args = cases(torch.Generator().manual_seed(5))[1].args
        slopes = []
        for method in (answer, reference):
            loss = method(*args)[1]
            if not isinstance(loss, Tensor) or not loss.requires_grad:
                return "no gradient flows from the loss to the encoder. Is there a no_grad or a detach?"
            slopes.append(torch.cat([s.flatten() for s in torch.autograd.grad(loss, list(args[0].parameters()))]))
        gap = float((slopes[0] - slopes[1]).abs().max())
        return None if gap < 1e-4 else f"the gradient in the encoder's weights is off by up to {gap:.2g}."

    return holds
