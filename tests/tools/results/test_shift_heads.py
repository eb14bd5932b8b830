"""The rows of lesson 23's comparison that embed every picture once: heads, parts of the statistics, and a matrix behind."""

import pytest
import torch
from torch import nn

from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.adapters import with_statistics
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from tests.conftest import toy_images
from tools.results import shift_heads


@pytest.fixture
def encoder() -> nn.Module:
    torch.manual_seed(0)
    return conv4(4).eval()


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_a_part_takes_its_numbers_from_the_domain_and_leaves_the_others(encoder):
    pictures = torch.rand(8, 1, 28, 28)
    old = norms(encoder)[0]
    seen = encoder.layers[0](pictures) if hasattr(encoder, "layers") else encoder[0](pictures)
    mean, variance = seen.mean((0, 2, 3)), seen.var((0, 2, 3))
    for part, moved in (("means", (True, False)), ("variances", (False, True)), ("statistics", (True, True))):
        first = norms(shift_heads.with_part(encoder, pictures, part))[0]
        assert torch.allclose(first.running_mean, mean if moved[0] else old.running_mean, atol=1e-5), part
        assert torch.allclose(first.running_var, variance if moved[1] else old.running_var, atol=1e-5), part


def test_both_parts_are_the_statistics_of_the_package(encoder):
    pictures = torch.rand(8, 1, 28, 28)
    ours, theirs = shift_heads.with_part(encoder, pictures, "statistics"), with_statistics(encoder, pictures)
    # the package normalises by n while it collects, and keeps n - 1: later norms see pictures that differ by as little
    assert torch.allclose(ours(pictures), theirs(pictures), atol=1e-2)
    assert not torch.allclose(ours(pictures), encoder(pictures), atol=0.1)


def test_the_nearest_mean_of_a_head_row_is_that_of_evaluate(encoder):
    source = toy_images()
    found = shift_heads.heads(encoder, source, 2, 6, 3, vote=True)
    wanted = evaluate(PrototypicalNetwork(encoder).eval(), EpisodeSampler(source, 5, 2, 3, seed=7), 6).per_episode
    assert found["correct"] == (wanted * 15).round().int().tolist()
    assert [len(rows) for rows in found["ridge"]] == [6] * len(shift_heads.PENALTIES)
    assert all(0 <= held <= 10 for rows in found["held"] for held in rows)
    assert found["penalties"][0] == max(found["penalties"])  # of equal votes the first wins: the one that fits least


def test_left_out_pictures_are_not_in_what_is_left(encoder):
    tasks = shift_heads.Tasks(encoder, toy_images(), 2, 3, 2)
    for turn in range(2):
        left, left_y, out, out_y = tasks.without(turn)
        assert left.shape[1] == out.shape[1] == 5
        assert torch.equal(left_y.sort(1).values, out_y.sort(1).values)
        both = torch.cat([left, out], 1).sum(1)
        assert torch.allclose(both, tasks.support.sum(1), atol=1e-4)
    assert not torch.equal(tasks.without(0)[2], tasks.without(1)[2])


def test_a_matrix_behind_changes_nothing_at_first_and_fits_then(encoder, monkeypatch):
    monkeypatch.setattr(shift_heads, "encoder_of", lambda name: encoder)
    found = shift_heads.behind("prototypical", toy_images(), 2, 4, 3, (0, 30))
    assert [len(column) for column in found["correct"]] == [4, 4]
    assert found["correct"][0] != found["correct"][1]
