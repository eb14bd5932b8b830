"""Tasks of rows of numbers: lines with noise, made-up tables, and columns that are standardised by the support."""

import pytest
import torch
from torch import Generator

from fsl_course.episodes import linear_tasks, standardise, table_tasks


def test_lines_are_linear_and_only_their_support_is_noisy():
    task = linear_tasks(2000, 6, 5, 3, 0.5, Generator().manual_seed(0)).to(torch.float64)
    weights = torch.linalg.lstsq(task.query_x, task.query_y).solution
    assert torch.allclose(task.query_x @ weights, task.query_y, atol=1e-3)  # five points of a line in three dimensions
    noise = task.support_y - task.support_x @ weights
    assert noise.std() == pytest.approx(0.5, abs=0.02)
    assert weights.std() == pytest.approx(1, abs=0.05)
    assert len(task) == 2000


def test_tables_hold_every_class_and_are_padded_with_zeros():
    task = table_tasks(5, 3, 4, 2, 6, 9, Generator().manual_seed(0))
    assert task.support_x.shape == (5, 12, 9)
    assert task.query_x.shape == (5, 6, 9)
    assert task.n_way == 3
    assert all(row.bincount().tolist() == [4, 4, 4] for row in task.support_y)
    assert all(row.bincount().tolist() == [2, 2, 2] for row in task.query_y)
    assert not task.support_x[..., 6:].any()
    assert torch.allclose(task.support_x[..., :6].mean(1), torch.zeros(5, 6), atol=0.3)  # some values are clipped
    again = table_tasks(5, 3, 4, 2, 6, 9, Generator().manual_seed(0))
    assert torch.equal(task.query_x, again.query_x)


def test_columns_are_standardised_by_the_support_alone():
    support = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    rows = torch.tensor([[3.0, 7.0], [4.0, 8.0], [1000.0, -3.0]])
    assert standardise(support, support).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert standardise(support, rows).tolist() == [[1.0, 0.0], [2.0, 0.0], [5.0, 0.0]]  # a constant column stays silent


def test_a_column_that_is_constant_but_for_rounding_is_constant():
    support = torch.full((3, 1), 0.1) * torch.tensor([[1.0], [1.0 + 1e-7], [1.0]])
    assert standardise(support, torch.tensor([[5.0]])).tolist() == [[0.0]]
