"""Scenes are held to drawings worked out by hand; folders of masks to their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsl_course.data.scenes import boxes_of, compose, load_masks


def layers(count: int, ink: list[float]) -> dict[str, torch.Tensor]:
    return {
        "drawings": torch.ones(1, count, 4, 4, dtype=torch.float64),
        "sizes": torch.full((1, count), 4.0, dtype=torch.float64),
        "ink": torch.tensor([ink], dtype=torch.float64),
        "paper": torch.full((1, 16, 16), 0.1, dtype=torch.float64),
    }


def test_a_square_lands_where_its_centre_is():
    picture, masks = compose(centres=torch.tensor([[[6.0, 10.0]]]).double(), **layers(1, [0.7]))
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[8:12, 4:8] = True  # four rows around y = 10, four columns around x = 6
    assert torch.equal(masks[0, 0], expected)
    assert torch.allclose(picture[0, 0][expected], torch.tensor(0.7).double())
    assert torch.allclose(picture[0, 0, 0], torch.tensor(0.1).double())
    assert boxes_of(masks[0, 0]).tolist() == [4, 8, 8, 12]


def test_a_later_layer_hides_an_earlier_one_and_a_layer_without_ink_hides_nothing():
    centres = torch.tensor([[[6.0, 6.0], [8.0, 6.0], [6.0, 6.0]]]).double()
    _, masks = compose(centres=centres, **layers(3, [0.7, 0.9, 0.0]))
    assert masks[0].sum((1, 2)).tolist() == [8, 16, 0]  # half of the first square can still be seen
    assert not bool((masks[0, 0] & masks[0, 1]).any())
    assert boxes_of(masks[0]).tolist() == [[4, 4, 6, 8], [6, 4, 10, 8], [-1, -1, -1, -1]]


def test_a_drawing_grows_with_its_size():
    given = layers(1, [1.0]) | {"sizes": torch.full((1, 1), 8.0, dtype=torch.float64)}
    _, masks = compose(centres=torch.tensor([[[8.0, 8.0]]]).double(), **given)
    assert boxes_of(masks[0, 0]).tolist() == [4, 4, 12, 12]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("pictures", "masks"):
        (tmp_path / name).mkdir()
    save(tmp_path, "a", np.full((20, 10), 90, np.uint8), square())
    return tmp_path


def square() -> np.ndarray:
    mask = np.zeros((20, 10), np.uint8)
    mask[5:15] = 255
    return mask


def save(root: Path, name: str, picture: np.ndarray, mask: np.ndarray) -> None:
    Image.fromarray(picture).save(root / "pictures" / f"{name}.png")
    Image.fromarray(mask).save(root / "masks" / f"{name}.png")


def test_a_folder_of_masks_is_fitted_into_squares(folder: Path):
    pictures, masks = load_masks(folder, 40)
    assert (pictures.shape, masks.shape, masks.dtype) == ((1, 1, 40, 40), (1, 40, 40), torch.bool)
    assert boxes_of(masks[0]).tolist() == [10, 10, 30, 30]  # 10 columns in the middle of 20, twice as large
    assert torch.allclose(load_masks(folder, 40, invert=True)[0], 1 - pictures)


def test_errors_name_the_file(folder: Path, tmp_path: Path):
    save(folder, "b", np.zeros((4, 4), np.uint8), np.arange(16, dtype=np.uint8).reshape(4, 4))
    with pytest.raises(ValueError, match=r"b\.png holds 16 grey values; it takes two"):
        load_masks(folder)
    save(folder, "b", np.zeros((4, 4), np.uint8), square())
    with pytest.raises(ValueError, match=r"b\.png has \(10, 20\) pixels, and its picture \(4, 4\)"):
        load_masks(folder)
    (folder / "masks" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.png has no mask"):
        load_masks(folder)
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        load_masks(tmp_path / "nowhere")
