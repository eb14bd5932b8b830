"""Your own pictures in the form of an image set: squares of one size, grey or colour, light on dark or as they are."""

import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
Picture = str | os.PathLike | Image.Image | np.ndarray | Tensor
Pictures = Iterable[Picture] | Tensor | np.ndarray


def check_form(size: int, channels: int, invert: bool | str) -> None:
    """Raises ValueError unless size is a whole number, channels 1 or 3, and invert True, False or "auto"."""
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, 1 or more: the side of the square; got {size!r}.")
    if channels not in (1, 3) or isinstance(channels, bool):
        raise ValueError(f"channels must be 1 (grey) or 3 (colour); got {channels!r}.")
    if not (isinstance(invert, bool) or invert == "auto"):
        raise ValueError(f'invert must be True, False or "auto"; got {invert!r}.')


def listed(pictures: Pictures) -> list[Picture]:
    """Returns the pictures of a list, or of one tensor or array [S, c, H, W]. Raises TypeError for a single picture."""
    if isinstance(pictures, np.ndarray) and pictures.ndim == 4 and pictures.shape[1] in (1, 3):
        pictures = torch.from_numpy(pictures)
    array = isinstance(pictures, (Tensor, np.ndarray))
    if (array and pictures.ndim != 4) or isinstance(pictures, (str, os.PathLike)) or not isinstance(pictures, Iterable):
        got = f"shape {list(pictures.shape)}" if array else repr(pictures)
        raise TypeError(f"pictures are a list, or an array [S, c, H, W]; got {got:.80}. One picture: [picture].")
    return list(pictures)


def is_negative(backgrounds: Sequence[int], channels: int, invert: bool | str) -> bool:
    """Decides once for a whole set whether its pictures become their negatives.

    backgrounds: the grey value 0..255 of each picture's background. "auto" inverts grey pictures if most backgrounds are lighter
    than mid-grey, because ink is light on dark everywhere in this course. It never inverts colour pictures.
    """
    if invert != "auto":
        return bool(invert)
    return channels == 1 and 2 * sum(background > 127 for background in backgrounds) > len(backgrounds)


def square_picture(picture: Picture, size: int, channels: int) -> tuple[np.ndarray, int]:
    """Fits one picture into a square -> uint8 [channels, size, size], not inverted, and the grey value of its background.

    picture: a path, a PIL image, a numpy array [H, W] or [H, W, c], or a tensor [H, W] or [c, H, W]; arrays and tensors are
    uint8, or floats in [0, 1]. Raises FileNotFoundError, TypeError or ValueError, which name the picture and say what to do.
    """
    name = str(picture) if isinstance(picture, (str, os.PathLike)) else f"the {type(picture).__name__}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # an error, not only a warning
            with _opened(picture) as image:
                flat = _flat(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name} has too many pixels to be decoded safely ({error}): save a smaller copy.") from error
    except (FileNotFoundError, TypeError):
        raise
    except Exception as error:  # decoders raise almost any exception on a damaged file
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name} cannot be read as a picture ({reason}): replace it, or take it out.") from error
    return _square(flat, size)


def _opened(picture: Picture) -> AbstractContextManager[Image.Image]:
    """Opens a path, or takes what is in memory, as a PIL image for the time of a block."""
    if isinstance(picture, Image.Image):
        return nullcontext(picture)
    if isinstance(picture, (str, os.PathLike)):
        path = Path(picture).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"there is no picture {path}.")
        if not path.is_file():
            raise ValueError("it is no regular file")
        return Image.open(path)
    if isinstance(picture, Tensor):
        values = picture.detach().cpu().numpy()
        values = values.transpose(1, 2, 0) if values.ndim == 3 else values
    elif isinstance(picture, np.ndarray):
        values = picture
    else:
        raise TypeError(f"a picture is a path, a PIL image, an array or a tensor; got {type(picture).__name__}.")
    return nullcontext(_from_array(values))


def _from_array(values: np.ndarray) -> Image.Image:
    """Returns an array [H, W] or [H, W, c] as a PIL image."""
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in (3, 4)) or 0 in values.shape:
        raise ValueError(f"its shape is {list(values.shape)}: arrays are [H, W] or [H, W, c], tensors [c, H, W]")
    if np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError("floats must lie in [0, 1]")
        values = (values * 255).round().astype(np.uint8)
    if values.dtype not in (np.uint8, np.uint16, np.bool_):
        raise ValueError(f"its numbers are {values.dtype}: take uint8, or floats in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(values))


def _flat(picture: Image.Image) -> Image.Image:
    """Returns the picture with 8 bits per channel and without transparency."""
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255 instead of scaling
        values = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    alpha = np.asarray(picture.getchannel("A"), dtype=np.float64)
    grey = np.asarray(picture.convert("RGB").convert("L"), dtype=np.float64)
    paper = 0 if (grey * alpha).sum() > 127.5 * alpha.sum() else 255
    return Image.alpha_composite(Image.new("RGBA", picture.size, (paper, paper, paper, 255)), picture)


def _square(picture: Image.Image, size: int) -> tuple[np.ndarray, int]:
    """Fits a grey or RGB picture into the middle of a square: uint8 [c, size, size], and its background's grey value."""
    pixels = np.atleast_3d(np.asarray(picture))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border, axis=0).astype(np.uint8)
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    # HAMMING averages over an area, as for the 28x28 Omniglot; BILINEAR enlarges smoothly
    small = picture.resize((width, height), Image.Resampling.HAMMING if scale < 1 else Image.Resampling.BILINEAR)
    square = np.empty((size, size, len(background)), dtype=np.uint8)
    square[:] = background
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = np.atleast_3d(np.asarray(small))
    return square.transpose(2, 0, 1), int(background.mean())
