"""Tasks without labels: a picture is a class, its warped copies are the queries (Khodadadeh et al. 2019, Medina et al. 2020)."""

import hashlib
import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fsl_course.data.imageset import ImageSet
from fsl_course.episodes._blocks import Numbered, check_dtype, check_span, check_whole, generator_of
from fsl_course.episodes.episode import Episode

# The warp at strength 1: largest turn in degrees, shear, log of the scale of each axis, shift as a part of the picture, and the
# deviation of a smooth bend as a part of the picture.
TURN, SHEAR, SCALE, SHIFT, BEND = 15.0, 0.3, 0.2, 0.1, 0.05


def warped(pictures: Tensor, generator: Generator, strength: float = 1.0) -> Tensor:
    """Warps every picture at random: turned, sheared, stretched, shifted and bent. float [B, c, H, W] -> [B, c, H, W].

    strength: multiplies all of them; with 0 the pictures come back as they are. What leaves the frame is lost, and 0 comes in.
    """
    if strength == 0:
        return pictures.clone()
    count = len(pictures)
    turn, shear, wide, high, *shift = (strength * (2 * torch.rand(6, count, generator=generator) - 1)).unbind()
    angle, wide, high = math.radians(TURN) * turn, (SCALE * wide).exp(), (SCALE * high).exp()
    cos, sin, shear = angle.cos(), angle.sin(), SHEAR * shear
    rows = [cos * wide, cos * shear * wide - sin * high, sin * wide, sin * shear * wide + cos * high]
    matrix = torch.cat([torch.stack(rows, 1).view(count, 2, 2), 2 * SHIFT * torch.stack(shift, 1)[..., None]], dim=2)
    grid = F.affine_grid(matrix, list(pictures.shape), align_corners=False)
    bend = 2 * BEND * strength * torch.randn(count, 2, 4, 4, generator=generator)
    grid = grid + F.interpolate(bend, pictures.shape[-2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    return F.grid_sample(pictures, grid.to(pictures), align_corners=False)


class PictureSampler(Numbered):
    """Draws tasks of N pictures, whichever they are: N classes of one support picture each, and Q warped copies as queries.

    source: an ImageSet, whose classes play no part; seed: fixes a task completely, together with its index; strength: of `warped`

    Pictures are numbered in the order of a digest of their pixels, because the order of the source follows its classes.
    """

    k_shot = 1

    def __init__(
        self,
        source: ImageSet,
        n_way: int = 50,
        n_query: int = 3,
        *,
        seed: int = 0,
        strength: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_whole(1, n_way=n_way, n_query=n_query)
        check_whole(0, seed=seed)
        check_dtype(dtype)
        real = torch.arange(source.images.shape[1]) < source.counts.cpu()[:, None]
        position = real.flatten().nonzero().flatten()  # int64 [M], of the pictures in images.flatten(0, 1)
        if n_way > len(position):
            raise ValueError(f"n_way={n_way} needs as many pictures; {source.name} has {len(position)}.")
        pixels = source.images.cpu().flatten(0, 1)[position].numpy()
        digests = [hashlib.sha256(picture.tobytes()).digest() for picture in pixels]
        order = sorted(range(len(digests)), key=digests.__getitem__)
        self._position, self._digest = position[order], hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:12]
        self.source, self.n_way, self.n_query, self.seed = source, int(n_way), int(n_query), int(seed)
        self.strength, self.dtype = float(strength), dtype

    def __repr__(self) -> str:
        about = f"{self.n_way} pictures, {self.n_query} copies of each, strength {self.strength:g}, seed {self.seed}"
        return f"PictureSampler({self.source.name} without labels: {about})"

    @property
    def key(self) -> str:
        """Identifies the tasks: the repr, and a digest of all pictures, which knows nothing of their classes."""
        return f"{self!r} of pictures {self._digest}"

    def batch(self, start: int, tasks: int) -> Episode:
        """Returns the tasks start .. start+tasks-1, stacked. `classes` holds the pictures' places in images.flatten(0, 1)."""
        check_span(start, tasks)
        drawn = [self._draw(index) for index in range(start, start + tasks)]
        return Episode(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))

    def _draw(self, index: int) -> tuple[Tensor, ...]:
        generator, images = generator_of(self.seed, index), self.source.images
        place = self._position[torch.randperm(len(self._position), generator=generator)[: self.n_way]].to(images.device)
        label = torch.randperm(self.n_way * self.n_query, generator=generator) % self.n_way
        support = images.flatten(0, 1).index_select(0, place).to(self.dtype).div_(255)
        query = warped(support[label], generator, self.strength)
        slots = torch.arange(self.n_way)
        return support, slots.to(place), query, label.to(place), place
