"""Hallucination: examples that nobody drew, as pictures (warps, a conditional VAE) and as embeddings (deltas, calibration).

None of it is a learner of episodes: each part adds examples to a support set, and any classifier may use them. `DrawingVAE` holds
q(z | x, ref) and p(x | z, ref) (Sohn et al. 2015); `DeltaEncoder` works on embeddings (Schwartz et al. 2018, section 3.1);
`calibrated` lends a class seen once a Gaussian (Yang et al. 2021, equations 3 to 6).
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


def warp(pictures: Tensor, flow: Tensor) -> Tensor:
    """Bends pictures [B, c, H, W] by a flow [B, 2, m, m]: how far right and down each control point reads, in half pictures."""
    fine = F.interpolate(flow, pictures.shape[-2:], mode="bicubic", align_corners=True)
    stay = torch.eye(2, 3, dtype=pictures.dtype, device=pictures.device).expand(len(pictures), 2, 3)
    grid = F.affine_grid(stay, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid + fine.permute(0, 2, 3, 1), align_corners=False)


def random_flow(
    count: int, generator: Generator, affine: float = 0.12, elastic: float = 0.05, cells: int = 7
) -> Tensor:
    """Draws flows [count, 2, cells, cells]: a random linear map and shift of spread `affine`, and noise of spread `elastic`."""
    line = torch.linspace(-1, 1, cells)
    down, right = torch.meshgrid(line, line, indexing="ij")
    place = torch.stack([right, down, torch.ones_like(right)]).flatten(1)  # [3, cells^2]
    matrix = affine * torch.randn(count, 2, 3, generator=generator)
    noise = elastic * torch.randn(count, 2, cells, cells, generator=generator)
    return (matrix @ place).unflatten(2, (cells, cells)) + noise


def _halving(channels: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]


class Drawer(nn.Module):
    """Draws a further example of a 28x28 letter: reads the reference, and bends it by a flow that depends on z."""

    def __init__(self, latent: int = 16, width: int = 16, cells: int = 7) -> None:
        super().__init__()
        self.latent, self.cells = latent, cells
        maps = *_halving(1, width), *_halving(width, 2 * width)
        self.look = nn.Sequential(*maps, nn.Flatten(), nn.Linear(2 * width * 49, 64), nn.ReLU())
        self.bend = nn.Sequential(nn.Linear(64 + latent, 128), nn.ReLU(), nn.Linear(128, 2 * cells * cells))
        nn.init.zeros_(self.bend[2].weight)  # an untrained drawer copies its reference
        nn.init.zeros_(self.bend[2].bias)

    def forward(self, reference: Tensor, z: Tensor) -> Tensor:
        """reference [B, 1, 28, 28] in 0..1, z [B, latent] -> drawings [B, 1, 28, 28] in 0..1."""
        flow = self.bend(torch.cat([self.look(reference), z], dim=1))
        return warp(reference, flow.unflatten(1, (2, self.cells, self.cells)))

    def draw(self, reference: Tensor, count: int, generator: Generator) -> Tensor:
        """Draws each of R references [R, 1, 28, 28] `count` times, z from N(0, I) -> [R, count, 1, 28, 28]."""
        z = torch.randn(len(reference) * count, self.latent, generator=generator).to(reference)
        return self(reference.repeat_interleave(count, 0), z).unflatten(0, (len(reference), count))


def kl_to_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns KL(N(mean, exp(log_variance)) || N(0, I)) in nats (Kingma and Welling 2014, appendix B). [B, Z] twice -> [B]."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(-1)


class DrawingVAE(nn.Module):
    """A conditional VAE of pairs of one class: q(z | x, ref) is a Gaussian, p(x | z, ref) one coin per pixel.

    The coins see the drawing through a learned soft brush, because no drawer hits every pixel; the drawing itself stays sharp.
    """

    def __init__(self, latent: int = 16, width: int = 16, cells: int = 7) -> None:
        super().__init__()
        self.drawer = Drawer(latent, width, cells)
        self.read = nn.Sequential(
            *_halving(2, width), *_halving(width, 2 * width), *_halving(2 * width, 2 * width),
            nn.Flatten(), nn.Linear(2 * width * 16, 2 * latent),
        )  # fmt: skip
        self.brush = nn.Conv2d(1, 1, 5, padding=2)
        nn.init.constant_(self.brush.weight, 0.25)
        nn.init.constant_(self.brush.bias, -3.0)

    def posterior(self, x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of q(z | x, ref), each [B, latent]. x, reference [B, 1, 28, 28]."""
        mean, log_variance = self.read(torch.cat([x, reference], dim=1)).chunk(2, dim=1)
        return mean, log_variance

    def terms(self, x: Tensor, reference: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Returns reconstruction and KL, each [B], in nats: their sum is minus the evidence bound. noise [B, latent] ~ N(0, I).

        A grey level counts as the share of coins that fell on ink.
        """
        mean, log_variance = self.posterior(x, reference)
        drawing = self.drawer(reference, mean + (log_variance / 2).exp() * noise)
        coins = F.binary_cross_entropy_with_logits(self.brush(drawing), x, reduction="none")
        return coins.flatten(1).sum(1), kl_to_prior(mean, log_variance)


class DeltaEncoder(nn.Module):
    """z = E(x, ref) says how x differs from ref, and D(ref, z) adds that to any ref: [B, D] embeddings of one class."""

    def __init__(self, features: int, latent: int = 16, hidden: int = 256) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(2 * features, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, latent))
        told = features + latent
        self.decode = nn.Sequential(nn.Linear(told, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, features))

    def delta(self, x: Tensor, reference: Tensor) -> Tensor:
        """Returns z = E(x, ref), [B, latent]."""
        return self.encode(torch.cat([x, reference], dim=-1))

    def forward(self, reference: Tensor, z: Tensor) -> Tensor:
        """Returns D(ref, z), [B, D]. At test time z comes from pairs of training classes, never from N(0, I)."""
        return self.decode(torch.cat([reference, z], dim=-1))


def tukey(features: Tensor, power: float = 0.5) -> Tensor:
    """Returns features**power, more Gaussian (Yang et al. 2021, equation 3). Raises ValueError for negative features."""
    if features.numel() and float(features.detach().min()) < 0:
        raise ValueError("Tukey's power needs features that are not negative: take embeddings after the last ReLU.")
    return features**power


def class_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and unbiased covariance of every class. features [C, n, D] -> [C, D], [C, D, D]."""
    mean = features.mean(1)
    apart = features - mean[:, None]
    return mean, apart.mT @ apart / (features.shape[1] - 1)


def calibrated(
    x: Tensor, means: Tensor, covariances: Tensor, nearest: int = 2, alpha: float = 0.21
) -> tuple[Tensor, Tensor]:
    """Borrows a Gaussian for each embedding (Yang et al. 2021, equations 4 to 6): [R, D] -> means [R, D], covariances [R, D, D].

    means [C, D], covariances [C, D, D] of base classes. alpha on the diagonal alone makes every covariance positive definite.
    """
    near = torch.cdist(x, means).topk(nearest, largest=False).indices  # [R, nearest]
    mean = (means[near].sum(1) + x) / (nearest + 1)
    return mean, covariances[near].mean(1) + alpha * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)


def imagine(mean: Tensor, covariance: Tensor, count: int, generator: Generator) -> Tensor:
    """Draws from Gaussians [R, D], [R, D, D], which must be positive definite -> [R, count, D]."""
    noise = torch.randn(len(mean), count, mean.shape[1], generator=generator, dtype=mean.dtype).to(mean.device)
    return mean[:, None] + noise @ torch.linalg.cholesky(covariance).mT
