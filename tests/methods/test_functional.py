"""A module as a function: one task and T tasks with parameters of their own give the same."""

import pytest
import torch
from torch import nn

from fsl_course.methods import functional
from fsl_course.methods.functional import call, call_stacked, own_copies, trainable
from fsl_course.nets import mlp
from tests.methods.adapting import plain_conv


def different(params: dict[str, torch.Tensor], tasks: int) -> dict[str, torch.Tensor]:
    """Parameters of `tasks` tasks that really differ."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: p.detach() + 0.1 * torch.randn(tasks, *p.shape, generator=generator, dtype=p.dtype)
        for name, p in params.items()
    }


MODELS = {
    "mlp": lambda: mlp((2, 5, 3)),
    "mlp without offsets": lambda: nn.Sequential(nn.Linear(2, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)),
    "another activation": lambda: nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)),
    "a single layer": lambda: nn.Linear(2, 3),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(2, 5), nn.ReLU()), nn.Linear(5, 3)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_stacked_calls_are_the_calls_of_the_tasks(kind):
    torch.manual_seed(0)
    model = MODELS[kind]().double()
    params = different(trainable(model), 3)
    x = torch.randn(3, 4, 2, dtype=torch.float64)
    found = call_stacked(model, params, x)
    expected = torch.stack([call(model, {name: p[task] for name, p in params.items()}, x[task]) for task in range(3)])
    assert found.shape == (3, 4, 3)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_every_task_is_normalised_by_itself(norm):
    model = plain_conv(norm)
    params = different(trainable(model), 2)
    x = torch.rand(2, 5, 1, 16, 16, dtype=torch.float64)
    found = call_stacked(model, params, x)
    alone = [call(model, {name: p[task] for name, p in params.items()}, x[task]) for task in range(2)]
    assert torch.allclose(found, torch.stack(alone), rtol=0, atol=1e-10)


def test_a_plain_mlp_goes_without_vmap_and_a_frozen_one_keeps_its_own_weights(monkeypatch):
    used = []
    real = functional.vmap
    monkeypatch.setattr(functional, "vmap", lambda f: used.append(f) or real(f))
    model, x = mlp((2, 5, 3)), torch.randn(2, 4, 2)
    call_stacked(model, different(trainable(model), 2), x)
    assert used == []
    model[0].weight.requires_grad_(False)
    params = different(trainable(model), 2)
    found = call_stacked(model, params, x)
    assert len(used) == 1
    second = call(model, {name: p[1] for name, p in params.items()}, x[1])
    assert torch.allclose(found[1], second, atol=1e-5)


def test_gradients_of_the_copies_add_up():
    params = {"w": torch.tensor([1.0, 2.0], requires_grad=True)}
    copies = own_copies(params, 3)
    assert copies["w"].shape == (3, 2)
    (copies["w"] * torch.arange(3.0)[:, None]).sum().backward()
    assert params["w"].grad.tolist() == [3.0, 3.0]
