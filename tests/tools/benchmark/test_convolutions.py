import pytest
import torch

from fsl_course.nets import conv4
from tools.benchmark import convolutions
from tools.benchmark.measure import Disagreement, Settings


def test_operations_of_conv4_by_hand():
    # forward, per picture: 28*28*64*9*1, then 64*64*9 at 14*14, 7*7 and 3*3 positions; twice, for times and plus
    first, rest = 28 * 28 * 64 * 9, 64 * 64 * 9 * (14 * 14 + 7 * 7 + 3 * 3)
    assert convolutions.operations(conv4(), torch.zeros(2, 1, 28, 28)) == 2 * 2 * (2 * first + 3 * rest)


def test_the_row_says_a_share(monkeypatch):
    (row,) = convolutions.conv4_matmul_share(Settings(quick=True))
    assert row["ratio"] > 0
    assert row["peer"] == "matrix product"
    monkeypatch.setattr(convolutions, "operations", lambda net, pictures: 1)
    with pytest.raises(Disagreement, match="operations"):
        convolutions.conv4_matmul_share(Settings(quick=True))
