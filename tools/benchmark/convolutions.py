"""How close Conv4 comes to what the machine can do: its rate of operations as a share of a matrix product's rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fsl_course._system.allocator import keep_memory
from tools.benchmark import measure, peers
from tools.benchmark.measure import COURSE, Row, Settings


def operations(net: nn.Module, pictures: Tensor) -> int:
    """Counts the multiplications and additions of the convolutions in one forward and backward pass.

    The backward pass takes twice as many as the forward pass: for the gradient of the weights, and for that of the input, which
    the first layer does not need.
    """
    counts: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.append(2 * output.numel() * layer.weight[0].numel())

    hooks = [layer.register_forward_hook(count) for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        net(pictures)
    for hook in hooks:
        hook.remove()
    return 3 * sum(counts) - counts[0]


def conv4_matmul_share(settings: Settings) -> list[Row]:
    """Times Conv4 on 360 pictures (60-way 1-shot, 5 queries a class). Norm, ReLU and pooling count as time, not as operations."""
    keep_memory()
    net = peers.encoders(settings.device, torch.float32)[0].train()
    count, side = (10, 128) if settings.quick else (360, 2048)
    pictures = torch.rand(count, 1, 28, 28, device=settings.device)
    left, right = torch.rand(2, side, side, device=settings.device)

    def convolve() -> None:
        net.zero_grad()
        net(pictures).square().mean().backward()

    total = operations(net, pictures)
    with FlopCounterMode(display=False) as counter:
        convolve()
    counted = float(counter.get_total_flops())
    agreed = measure.agree(
        "operations counted by layers and by PyTorch's own counter", abs(counted - total) / total, 1e-9
    )
    of_product = 2 * side**3
    sides = {
        COURSE: measure.stopwatch(convolve, settings.device),
        "matrix product": measure.stopwatch(lambda: left @ right, settings.device, units=of_product / total),
    }
    seconds = measure.race(sides, settings.rounds(15))
    return [
        measure.row(
            "conv4-matmul-share", f"{count} pictures, forward and backward", "matrix product", seconds[COURSE],
            seconds["matrix product"], settings, agreement=agreed, operations=total,
            note=f"ratio: share of the rate of a product of two {side} x {side} matrices; peer_s: the same operations at it",
        )
    ]  # fmt: skip
