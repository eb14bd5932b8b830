"""The comparison of two results, in words."""

import pytest
import torch

from fsl_classroom.checking.compare import compare


def test_comparison_points_at_the_largest_difference():
    expected, got = torch.zeros(2, 3), torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.0, -0.25]])
    words = compare(expected, got, 1e-5)
    assert words == "2 of 6 values differ. Largest difference 0.25 at [1, 2]: expected 0, got -0.25."
    assert compare(torch.tensor([torch.nan, 1.0]), torch.tensor([torch.nan, 1.0]), 1e-5) is None
    assert compare(torch.tensor([1.0]), torch.tensor([torch.inf]), 1e-5) == "At [0]: expected 1, got inf."
    assert compare(torch.tensor([1]), torch.tensor([2]), 10.0) is not None  # integers are exact


def test_whole_numbers_are_shown_where_they_differ_first():
    expected = torch.arange(20)
    got = expected.clone()
    got[17], got[19] = 4, 900
    assert compare(expected, got, 1e-5) == "2 of 20 values differ. First differs at [17]: expected 17, got 4."
    assert compare({"y": expected > 3}, {"y": expected > 4}, 1e-5) == (
        "1 of 20 values differ. First differs at ['y'][4]: expected True, got False."
    )
    assert compare(torch.tensor(2), torch.tensor(4), 1e-5) == "First differs at the only entry: expected 2, got 4."


def test_floats_have_six_digits_or_as_many_as_tell_them_apart():
    single = torch.tensor(0.09).item()  # 0.09000000357627869
    assert compare(0.1, single, 1e-5) == "Expected the float 0.1, got the float 0.09."
    assert compare(0.1, 0.1 + 2e-9, 0.0) == "Expected the float 0.1, got the float 0.100000002."
    assert compare(1.0, 1.0 + 2**-52, 0.0) == "Expected the float 1, got the float 1.0000000000000002."
    words = compare(torch.tensor([single, 1.0]), torch.tensor([single, 1.00002]), 1e-6)
    assert words.endswith("at [1]: expected 1, got 1.00002.")
    near = torch.tensor([1.0], dtype=torch.float64)
    assert compare(near, near + 1e-9, 1e-12).endswith("expected 1, got 1.000000001.")


@pytest.mark.parametrize("values", [(0.1, float("nan")), (float("inf"), 0.1), (1j, 2j), (1e300, -1e300)])
def test_odd_floats_are_written_too(values):
    expected, got = values
    assert compare(expected, got, 1e-5) == (
        f"Expected the {type(expected).__name__} {expected:g}, got the {type(got).__name__} {got:g}."
    )


def test_nothing_else_is_near_infinity():
    inf = torch.inf
    expected = torch.tensor([-inf, 1.0])
    assert compare(expected, expected.clone(), 1e-5) is None
    assert compare(expected, torch.tensor([-1e9, 1.0]), 1e-5) == (
        "1 of 2 values differ. At [0]: expected -inf, got -1e+09."
    )
    assert compare(expected, torch.tensor([inf, 1.0]), 1e-5).endswith("expected -inf, got inf.")
    assert compare(-inf, -inf, 1e-5) is None
    assert compare(-inf, inf, 1e-5) == "Expected the float -inf, got the float inf."
