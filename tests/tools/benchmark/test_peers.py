import sys

import pytest
import torch
from torch.utils.data import Sampler

from fsl_course.episodes import EpisodeSampler
from tests.conftest import toy_images
from tools.benchmark import peers
from tools.benchmark.sampling import numbered


def test_a_missing_easyfsl_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "easyfsl", None)
    with pytest.raises(peers.Missing, match=r"easyfsl.*pip install 'fsl-course\[benchmark\]'"):
        peers.easyfsl()


def test_the_usual_conv4_is_the_same_function_in_the_usual_order_and_layout():
    ours, theirs = peers.encoders("cpu", torch.float64)
    assert [type(layer).__name__ for layer in theirs] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"] * 4 + [
        "Flatten"
    ]
    assert theirs[4].weight.is_contiguous()
    x = torch.rand(6, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours.train()(x), theirs.train()(x), atol=1e-10)


def test_squared_distances_are_those_of_the_paper(stand_in):
    network = peers.squared(peers.easyfsl().PrototypicalNetworks)(torch.nn.Identity())
    network.process_support_set(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([0, 1]))
    assert torch.allclose(network(torch.tensor([[0.0, 0.0]])), torch.tensor([[0.0, -25.0]]))


def test_pictures_come_one_by_one_as_numbers_from_0_to_1():
    source = numbered(3, 4)
    picture, label = peers.Pictures(source)[6]
    assert (label, picture.dtype, list(picture.shape)) == (1, torch.float32, [1, 28, 28])
    assert torch.equal(picture * 255, source.images[1, 2].float())
    source.counts[0] = 2
    with pytest.raises(ValueError, match="unequal size"):
        peers.Pictures(source)


def test_positions_class_by_class_hold_the_same_episode(stand_in):
    source = toy_images()
    sampler = EpisodeSampler(source, 5, 2, 3)
    positions = peers.class_by_class(sampler.layout(0, 2))
    data = peers.Pictures(source)
    collate = peers.easyfsl().TaskSampler(data, 5, 2, 3, n_tasks=1)
    for task, batch in enumerate(peers.loader(data, positions, collate, 0)):
        episode = sampler[task]
        for pictures, labels, mine, slots in (
            (batch[0], batch[1], episode.support_x, episode.support_y),
            (batch[2], batch[3], episode.query_x, episode.query_y),
        ):
            order = slots.argsort(stable=True)
            assert torch.equal(pictures, mine[order])
            assert torch.equal(labels, slots[order])


def test_the_argument_that_pytorch_no_longer_takes_ends_before_it():
    class Old(Sampler):
        def __init__(self):
            super().__init__(data_source=None)

    assert isinstance(type("New", (Old, peers._TakesDataSource), {})(), Old)
