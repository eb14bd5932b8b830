"""The experiment on the last half point, without its trainings."""

import os

import numpy as np
import pytest
import torch

from fsl_course.data import ImageSet, load_omniglot
from tools.results import half_point


def test_nearest_takes_the_pixel_under_the_middle_of_a_cell():
    drawings = np.zeros((1, 1, 105, 105), bool)
    drawings[0, 0, 1, 5] = True  # the middle of cell (0, 1) is at (1.875, 5.625)
    shrunk = half_point.nearest(drawings)
    assert shrunk.shape == (1, 1, 1, 28, 28)
    assert shrunk.dtype == torch.uint8
    assert shrunk.nonzero().tolist() == [[0, 0, 0, 0, 1]]
    assert int(shrunk.max()) == 255


def test_variants_differ_in_the_classes_that_they_train_on():
    splits = ["train"] * 8 + ["val"] * 4 + ["test"] * 4
    names = [f"c{i} @{90 * r}" for i in range(4) for r in range(4)]
    source = ImageSet(torch.zeros(16, 2, 1, 28, 28, dtype=torch.uint8), torch.full((16,), 2), names, ["a"] * 16, splits)

    def trains(variant: str) -> list[str]:
        return half_point.trained_on(source, variant).class_names

    assert trains("reference") == names[:12]
    assert trains("without validation classes") == names[:8]
    assert trains("upright") == ["c0 @0", "c1 @0", "c2 @0"]


@pytest.mark.omniglot
def test_original_drawings_are_those_of_load_omniglot():
    if not os.environ.get("FSL_DATA"):
        pytest.skip("needs the real Omniglot: set FSL_DATA to the folder that holds omniglot-py")
    source = load_omniglot()
    for at, (name, ink) in zip(range(3), half_point.original_drawings(), strict=False):
        assert name == source.class_names[at]
        assert ink.shape == (20, 105, 105)
        assert ink.dtype == bool
        coarse = torch.from_numpy(ink).float().view(20, 1, 105, 105)
        shrunk = torch.nn.functional.interpolate(coarse, 28, mode="bilinear", antialias=True)
        assert (shrunk[:, 0] * 255 - source.images[at, :, 0]).abs().max() < 2
