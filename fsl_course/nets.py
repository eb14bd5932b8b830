"""The networks of the course: Conv4 (Vinyals et al. 2016, section 4.1.1), a small MLP (Finn et al. 2017, section 5.1), and two
encoders of sentences."""

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_block(in_channels: int, width: int, norm: str, pool: bool, stride: int = 1) -> list[nn.Module]:
    """Makes one block of the literature: 3x3 convolution, normalisation, ReLU and, with pool=True, 2x2 max-pooling."""
    # no bias before a norm: batch norm subtracts it again, and group norm has its own
    layers = [nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=norm == "none"), _norm(norm, width)]
    # pooling first, because the maximum of ReLUs is exactly the ReLU of the maximum, and ReLU then sees a quarter of the numbers
    return [*layers, nn.MaxPool2d(2), nn.ReLU()] if pool else [*layers, nn.ReLU()]


class _Conv4(nn.Module):
    """Four blocks of 3x3 convolution, normalisation, ReLU and halving; the last maps are flattened, or averaged (see conv4)."""

    def __init__(self, width: int, norm: str, in_channels: int, halving: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (in_channels, width, width, width):
            layers += conv_block(channels, width, norm, pool=halving == "pool", stride=1 if halving == "pool" else 2)
        if halving == "stride":
            layers.append(nn.AdaptiveAvgPool2d(1))
        self.layers = nn.Sequential(*layers)
        self.width, self.norm, self.in_channels = width, norm, in_channels
        self.to(
            memory_format=torch.channels_last
        )  # makes convolutions 1.7 times faster on a CPU, with the same numbers

    def forward(self, x: Tensor) -> Tensor:
        """x: float [B, c, H, W] with H, W >= 16 -> [B, width * (H // 16) * (W // 16)]."""
        if x.dim() != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < 16:
            raise ValueError(
                f"conv4(in_channels={self.in_channels}) takes [B, {self.in_channels}, H, W] with H and W of at least 16; "
                f"got {list(x.shape)}."
            )
        if x.dtype != self.layers[0].weight.dtype:
            raise TypeError(
                f"conv4 has weights in {self.layers[0].weight.dtype} and got pictures in {x.dtype}: "
                "take net.to(dtype), episode.to(dtype) or EpisodeSampler(..., dtype=dtype)."
            )
        # Converts to channels last by permuting, because vmap has no memory formats, and through one long row, because the
        # strides of grey pictures fit both formats: a convolution whose weights fit both, too, would take the slower one.
        rows, columns = x.shape[2:]
        flat = x.permute(0, 2, 3, 1).flatten()
        return self.layers(flat.view(-1, rows, columns, self.in_channels).permute(0, 3, 1, 2)).flatten(1)


def _norm(norm: str, width: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(width)
    if norm == "group":
        groups = max(g for g in range(1, min(8, width) + 1) if width % g == 0)
        return nn.GroupNorm(groups, width)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f'norm must be "batch", "group" or "none"; got {norm!r}.')


def conv4(width: int = 64, norm: str = "batch", in_channels: int = 1, halving: str = "pool") -> nn.Module:
    """Makes the four-block convolutional encoder of the few-shot literature.

    width:       filters in each block (64 in most papers, 32 in MAML's miniImageNet net)
    norm:        "batch", "group" (up to 8 groups; the same in training and evaluation) or "none"
    in_channels: c, 1 for grey and 3 for colour
    halving:     "pool": every block ends with 2x2 max-pooling; "stride": convolutions of stride 2, and the last maps are
                 averaged, [B, c, H, W] -> [B, width]: MAML's net for Omniglot (Finn et al. 2017, section 5.2; the average is
                 in the authors' code), a quarter of the work

    By default [B, c, 28, 28] -> [B, width] and [B, 3, 84, 84] -> [B, 25 * width].
    """
    if width < 1 or in_channels < 1:
        raise ValueError(f"width and in_channels must be at least 1; got width={width}, in_channels={in_channels}.")
    if halving not in ("pool", "stride"):
        raise ValueError(f'halving must be "pool" or "stride"; got {halving!r}.')
    return _Conv4(width, norm, in_channels, halving)


@torch.no_grad()
def embedding_size(encoder: nn.Module, size: int = 28) -> int:
    """Finds D of an encoder by one blank picture [1, c, size, size]; c is encoder.in_channels, or 1 if it has none."""
    weight = next(encoder.parameters(), torch.zeros(()))
    picture = torch.zeros(1, getattr(encoder, "in_channels", 1), size, size, dtype=weight.dtype, device=weight.device)
    try:
        blank = deepcopy(encoder).eval()(picture)  # a copy, so that mode and running statistics stay
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the encoder does not take a blank picture {list(picture.shape)} ({error}): pass features=D instead."
        ) from error
    if blank.dim() != 2:
        raise ValueError(f"an encoder gives embeddings [B, D]; a blank picture gave {list(blank.shape)}. Flatten it.")
    return blank.shape[1]


def classifier(encoder: nn.Module, n_way: int, features: int | None = None) -> nn.Sequential:
    """Makes an encoder with a linear head, the model of methods that adapt one: [B, c, H, W] -> [B, n_way].

    features: D of the encoder; None finds it with a blank 28x28 picture
    """
    if n_way < 1:
        raise ValueError(f"n_way must be at least 1; got {n_way}.")
    head = nn.Linear(embedding_size(encoder) if features is None else features, n_way)
    return nn.Sequential(OrderedDict(encoder=encoder, head=head))


def mlp(sizes: Sequence[int] = (1, 40, 40, 1)) -> nn.Sequential:
    """Makes linear layers with ReLU between them, [B, sizes[0]] -> [B, sizes[-1]]. sizes: of input, hidden layers, output.

    The default is the sine regressor of Finn et al. 2017, section 5.1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes needs at least an input and an output size, all positive; got {tuple(sizes)}.")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def hashed_ngrams(codes: Tensor, lengths: Sequence[int], buckets: int) -> Tensor:
    """Returns the bucket of every run of n bytes, n of `lengths`: int64 [..., L] -> int64 [..., M], with 0 for "no run here".

    Capital A to Z become small, and a blank goes before and after the sentence, so that the edges of words count. The bucket
    is fixed arithmetic, the same on every machine: the bytes as digits in base 257, times 48271, modulo 2^31 - 1, then modulo
    buckets - 1, plus 1. Padding is in no run.
    """
    small = codes + 32 * ((codes >= 65) & (codes <= 90))
    framed = F.pad(small, (1, 2))
    framed = torch.where(torch.arange(framed.shape[-1], device=codes.device) == 0, 32, framed)
    framed = torch.where((framed == 0) & (framed.roll(1, -1) > 0), 32, framed)  # the blank after the last byte
    found = []
    for n in lengths:
        parts = [framed[..., j : framed.shape[-1] - n + 1 + j] for j in range(n)]
        number = sum(part * 257 ** (n - 1 - j) for j, part in enumerate(parts))
        bucket = number % (2**31 - 1) * 48271 % (2**31 - 1) % (buckets - 1) + 1
        found.append(bucket * (parts[-1] > 0))
    return torch.cat(found, dim=-1)


class _NGrams(nn.Module):
    def __init__(self, width: int, buckets: int, lengths: Sequence[int]) -> None:
        super().__init__()
        self.vectors = nn.Linear(buckets, width, bias=False)
        nn.init.normal_(self.vectors.weight, std=width**-0.5)  # a random projection, which keeps cosines, about
        self.buckets, self.lengths = buckets, tuple(lengths)

    def forward(self, x: Tensor) -> Tensor:
        """x: int64 [B, L], bytes of sentences, 0 pads -> [B, width]."""
        runs = hashed_ngrams(x, self.lengths, self.buckets)
        ones = torch.ones(runs.shape, dtype=self.vectors.weight.dtype, device=x.device)
        present = ones.new_zeros(*runs.shape[:-1], self.buckets).scatter_add(-1, runs, ones).clamp_max(1)
        present = present * (torch.arange(self.buckets, device=x.device) > 0)
        return self.vectors(F.normalize(present, dim=-1))


def ngram_encoder(width: int = 128, buckets: int = 1536, lengths: Sequence[int] = (2, 3, 4)) -> nn.Module:
    """Makes an encoder of sentences that knows no order beyond a few bytes, [B, L] -> [B, width].

    Every bucket has a vector, and runs that share a bucket share it. A sentence is the sum of the vectors of its runs, divided
    by the root of their number. Untrained it compares sentences by the runs that they share; training moves the vectors.
    """
    return _NGrams(width, buckets, lengths)


class _GRU(nn.Module):
    def __init__(self, width: int, letters: int) -> None:
        super().__init__()
        self.table, self.gru = nn.Embedding(256, letters), nn.GRU(letters, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """x: int64 [B, L], bytes of sentences, 0 pads -> [B, width]."""
        states, _ = self.gru(self.table(x))
        return torch.where((x > 0).unsqueeze(-1), states, -torch.inf).amax(1).clamp_min(-1)


def gru_encoder(width: int = 128, letters: int = 32) -> nn.Module:
    """Makes an encoder that reads a sentence byte by byte, [B, L] -> [B, width]; of each state the largest value is kept.

    It reads forwards only, and states over the padding are left out. A second direction would start in the padding.
    """
    return _GRU(width, letters)
