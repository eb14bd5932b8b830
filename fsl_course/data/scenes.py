"""Scenes: several drawings on one canvas with clutter, whose masks are known exactly; and folders of your own with masks."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_course.data.folder import pictures_in
from fsl_course.data.pictures import square_picture

SIDE = 64  # pixels of a canvas


def compose(drawings: Tensor, centres: Tensor, sizes: Tensor, ink: Tensor, paper: Tensor) -> tuple[Tensor, Tensor]:
    """Draws layers on canvases, a later one over an earlier one -> pictures [B, 1, S, S] and visible masks, bool [B, L, S, S].

    drawings: float [B, L, h, w] in [0, 1], ink is 1; centres: [B, L, 2], x and y in pixels; sizes: [B, L], pixels of a drawing's
    side on the canvas; ink: [B, L], the grey value of each layer, 0 for none; paper: [B, S, S], what lies below

    A pixel belongs to the topmost layer whose ink covers more than half of it. So a mask holds what can be seen of a drawing:
    neither the space between its strokes, nor what a later layer hides.
    """
    side, layers = paper.shape[-1], sizes.shape[1]
    cover = (ink > 0)[..., None, None] * drawings
    for axis, cells in enumerate(drawings.shape[-2:]):  # rows, then columns, each by a product with a matrix of tents
        pixel = (
            torch.arange(side).to(centres) + 0.5 - centres[..., 1 - axis, None]
        )  # [B, L, S], from the middle of the layer
        there = pixel * cells / sizes[..., None] + (cells - 1) / 2  # the same place, in cells of the drawing
        tent = (1 - (there[..., None] - torch.arange(cells).to(there)).abs()).clamp_min(0)  # [B, L, S, cells]
        cover = (tent @ cover).mT
    picture, owner = paper, torch.full_like(paper, -1, dtype=torch.int64)
    for layer in range(layers):
        seen, grey = cover[:, layer], ink[:, layer, None, None]
        picture = picture * (1 - seen) + grey * seen
        owner = owner.masked_fill(seen > 0.5, layer)
    return picture.unsqueeze(1), owner.unsqueeze(1) == torch.arange(layers, device=owner.device)[:, None, None]


def boxes_of(masks: Tensor) -> Tensor:
    """Returns the smallest boxes around masks: bool [..., H, W] -> int64 [..., 4], left, top, right, bottom; -1 if empty.

    Right and bottom are the first column and row outside, so that width = right - left.
    """
    ends = []
    for axis in (-2, -1):  # columns, then rows
        line = masks.any(axis).long()
        ends += [line.argmax(-1), line.shape[-1] - line.flip(-1).argmax(-1)]
    left, right, top, bottom = ends
    return torch.stack([left, top, right, bottom], -1).masked_fill(~masks.flatten(-2).any(-1, keepdim=True), -1)


def load_masks(path: str | Path, size: int = SIDE, *, invert: bool = False) -> tuple[Tensor, Tensor]:
    """Loads pictures of your own and their masks -> float [B, 1, size, size] in [0, 1] and bool [B, size, size].

    For every picture path/pictures/NAME there is a mask path/masks/NAME.png of the same size, which holds two grey values: the
    lighter one is the object. Both are fitted into a square; the mask is never mixed with its padding. invert: dark ink on light.

    Raises FileNotFoundError or ValueError, which name the file: no picture, no mask, another size, more or fewer than two values.
    """
    from PIL import Image

    root, found = Path(path).expanduser(), []
    for picture in pictures_in(root / "pictures") if (root / "pictures").is_dir() else []:
        mask = root / "masks" / f"{picture.stem}.png"
        if not mask.exists():
            raise FileNotFoundError(f"{picture.name} has no mask: there is no file {mask}.")
        with Image.open(mask) as opened, Image.open(picture) as pixels:
            grey, there = torch.frombuffer(bytearray(opened.convert("L").tobytes()), dtype=torch.uint8), pixels.size
            if opened.size != there:
                raise ValueError(f"the mask {mask} has {opened.size} pixels, and its picture {there}: make them alike.")
            values = grey.unique()
            if len(values) != 2:
                raise ValueError(f"the mask {mask} holds {len(values)} grey values; it takes two, e.g. 0 and 255.")
            object_at = (grey == values[1]).view(opened.size[::-1]).numpy()
        flat = torch.from_numpy(square_picture(picture, size, 1)[0]).float() / 255
        whole = max(object_at.shape)  # the mask is padded by 0 before it is scaled
        square = torch.zeros(whole, whole)
        top, left = ((whole - side) // 2 for side in object_at.shape)
        square[top : top + object_at.shape[0], left : left + object_at.shape[1]] = torch.from_numpy(object_at)
        shrunk = F.interpolate(square[None, None], size=(size, size), mode="area")[0, 0] > 0.5
        found.append((1 - flat if invert else flat, shrunk))
    if not found:
        raise FileNotFoundError(
            f"there are no pictures in {root / 'pictures'}: put some in, and their masks into masks."
        )
    pictures, masks = zip(*found, strict=True)
    return torch.stack(pictures), torch.stack(masks)
