import pytest
import torch

from tools.benchmark import maml
from tools.benchmark.measure import Disagreement, Settings

QUICK = Settings(quick=True)


@pytest.mark.parametrize(("net", "steps"), [("mlp", 1), ("mlp", 5), ("batch", 1), ("group", 2)])
def test_the_peer_and_the_course_have_the_same_meta_gradient(net, steps):
    assert maml.agreement(net, steps, {})["largest_difference"] < 1e-10


def test_the_peer_computes_the_same_function_in_another_layout():
    model, episodes = maml.model_and_tasks("batch", 1, torch.float64)
    peer = maml.as_others_write_it(maml.model_and_tasks("batch", 1, torch.float64)[0])
    kinds = [type(layer).__name__ for layer in peer]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"] * 4 + ["Flatten", "Linear"]
    assert peer[4].weight.is_contiguous()
    assert torch.allclose(model(episodes[0].query_x), peer(episodes[0].query_x), atol=1e-10)


def test_nothing_is_timed_where_gradients_differ(monkeypatch):
    def halved(model, episodes, steps):
        return [g / 2 for g in maml.clone_and_adapt(model, episodes, steps)]

    monkeypatch.setattr(maml, "course", halved)
    with pytest.raises(Disagreement, match="meta-gradient"):
        maml.maml_sine_25(QUICK)


@pytest.mark.parametrize(("work", "goal"), [(maml.maml_sine_25, 8), (maml.maml_sine_100, 20), (maml.maml_conv4, 1.5)])
def test_rows_of_the_works(work, goal):
    (row,) = work(QUICK)
    assert (row["peer"], row["goal"], row["repeats"]) == (maml.CLONES, goal, 2)
    assert row["agreement"]["largest_difference"] < 1e-10
    assert row["setting"].startswith("2 ")


@pytest.mark.parametrize(("device", "compared_on"), [("cpu", "cpu"), ("cuda:1", "cuda:1"), ("mps", "cpu")])
def test_gradients_are_compared_where_they_are_timed(monkeypatch, device, compared_on):
    asked = []

    def racers(net, tasks, steps, others, dtype, device="cpu"):
        asked.append((dtype, device))
        return {name: lambda: [torch.ones(1)] for name in (maml.COURSE, maml.CLONES)}

    monkeypatch.setattr(maml, "racers", racers)
    monkeypatch.setattr(maml.measure, "stopwatch", lambda *_: lambda number: 1.0)
    maml.maml_sine_25(Settings(quick=True, device=device))
    assert asked == [(torch.float64, compared_on), (torch.float32, device)]
