"""Values in words, and advice on how to convert them."""

import numpy as np
import pytest
import torch

from fsl_classroom.checking.compare import compare
from fsl_classroom.checking.describe import describe

ROWS = torch.ones(2, 3)
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        (LABELS, [0, 1], "Expected an int64 tensor of shape [2], got a list of 2 items. torch.tensor(...) makes"),
        (LABELS, (0, 1), "torch.tensor(...) makes a tensor of it."),
        (torch.tensor(0.5), 0.5, "Leave .item() or float(...) away if one made it"),
        ({"w": ROWS}, (ROWS,), "dict(zip(names, tensors)) makes a dict of several tensors"),
        (torch.tensor(0.5), np.float32(0.5), "got the NumPy float32 0.5. Leave .item()"),
        (ROWS, [torch.ones(3), torch.ones(3)], "torch.stack(...) makes one tensor of several."),
        (ROWS, np.ones((2, 3), np.float32), "torch.from_numpy(...) makes a tensor of it."),
        (LABELS, LABELS.float(), "got a float32 tensor of shape [2]. .long() turns it into int64."),
        (LABELS > 0, LABELS, ".bool() turns it into bool."),
        (ROWS, ROWS.int(), ".float() turns it into float32."),
        (ROWS.double(), ROWS.long(), ".double() turns it into float64."),
        (ROWS.int(), ROWS, ".to(torch.int32) turns it into int32."),
        (ROWS, ROWS.double(), "Keep the dtype of the arguments: x.to(y.dtype) converts"),
        (0.5, torch.tensor(0.5), ".item() turns a tensor of one element into a number, and so does float(...)."),
        (0.5, np.array(0.5), ".item() turns an array of one element into a number, and so does float(...)."),
        (3, np.float64(3), "Expected the int 3, got the NumPy float64 3. int(...) turns it into an int."),
        (0.0, False, "float(...) turns it into a float."),
        (True, 1, "bool(...) turns it into a bool."),
        (np.ones(2), torch.ones(2), ".detach().numpy() makes an array of a tensor."),
        (np.ones(2), [1.0, 1.0], "np.array(...) makes an array of it."),
        ([0, 1], LABELS, ".tolist() makes a list of it."),
    ],
)
def test_the_wrong_type_comes_with_a_cure(expected, got, words):
    assert words in compare(expected, got, 1e-5)


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (3, 3.5),  # int(...) would hide a wrong number
        (0.5, "0.5"),
        (0.5, ROWS),
        (ROWS, (ROWS, ROWS, ROWS)),  # several results for one: stacking them would not help
        (ROWS, torch.ones(3)),
        ((ROWS, ROWS), ROWS),
    ],
)
def test_no_cure_is_better_than_a_wrong_one(expected, got):
    words = compare(expected, got, 1e-5)
    assert words == f"Expected {describe(expected)}, got {describe(got)}."


def test_numpy_numbers_stand_for_python_numbers():
    assert compare(0.5, np.float32(0.5), 1e-5) is None
    assert compare(3, np.int64(3), 1e-5) is None
    assert compare(np.float64(0.5), 0.5, 1e-5) is None
    assert compare(True, np.bool_(True), 1e-5) is None
