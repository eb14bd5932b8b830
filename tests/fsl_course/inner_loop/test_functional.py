"""A module as a function: one task and T tasks with parameters of their own give the same."""

import pytest
import torch
from torch import nn

from fsl_course.inner_loop import functional
from fsl_course.inner_loop.functional import call, call_stacked, grad, own_copies, trainable
from fsl_course.nets import mlp
from tests.fsl_course.methods.adapting import plain_conv


def different(params: dict[str, torch.Tensor], tasks: int) -> dict[str, torch.Tensor]:
    """Parameters of `tasks` tasks that really differ."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: p.detach() + 0.1 * torch.randn(tasks, *p.shape, generator=generator, dtype=p.dtype)
        for name, p in params.items()
    }


def tied(model: nn.Sequential) -> nn.Sequential:
    model[3].weight = model[1].weight
    return model


def hooked(model: nn.Sequential) -> nn.Sequential:
    model[1].register_forward_hook(lambda layer, inputs, output: 2 * output)
    return model


MODELS = {
    "mlp": lambda: mlp((2, 5, 3)),
    "mlp without offsets": lambda: nn.Sequential(nn.Linear(2, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)),
    "another activation": lambda: nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)),
    "a single layer": lambda: nn.Linear(2, 3),
    "one relu in two places": lambda: nn.Sequential(
        nn.Linear(2, 5), relu := nn.ReLU(), nn.Linear(5, 4), relu, nn.Linear(4, 3)
    ),
    "one linear layer in two places": lambda: nn.Sequential(
        nn.Linear(2, 5), inner := nn.Linear(5, 5), nn.ReLU(), inner, nn.Linear(5, 3)
    ),
    "tied weights": lambda: tied(
        nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 3))
    ),
    "a hook": lambda: hooked(nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3))),
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


def cubic(params: dict[str, torch.Tensor]) -> torch.Tensor:
    return (params["a"] ** 3 * params["b"]).sum()


def vectors(requires_grad: bool = True) -> dict[str, torch.Tensor]:
    values = {"a": [1.0, -2.0], "b": [0.5, 3.0]}
    return {name: torch.tensor(v, dtype=torch.float64, requires_grad=requires_grad) for name, v in values.items()}


@pytest.mark.parametrize("requires_grad", [True, False])
def test_the_gradient_is_that_of_torch_func(requires_grad):
    params = vectors(requires_grad)
    found, expected = grad(cubic)(params), torch.func.grad(cubic)(params)
    assert list(found) == ["a", "b"]
    assert all(torch.equal(found[name], expected[name]) for name in params)
    assert all(g.requires_grad == requires_grad for g in found.values())
    assert all(p.grad is None for p in params.values())
    if requires_grad:
        (second,) = torch.autograd.grad(found["a"].sum(), [params["a"]])
        assert torch.allclose(second, 6 * params["a"] * params["b"])


def test_the_gradient_keeps_no_graph_where_gradients_are_off():
    params = vectors()
    with torch.no_grad():
        found = grad(cubic)(params)
        assert not torch.is_grad_enabled()
    assert torch.equal(found["a"], 3 * params["a"].detach() ** 2 * params["b"].detach())
    assert not any(g.requires_grad for g in found.values())


def test_inference_mode_has_gradients_too():
    """Plain autograd records nothing there: every gradient would be 0, and an inner loop would stay where it is."""
    params = vectors()
    with torch.inference_mode():
        found = grad(cubic)(params)
        assert found["a"].tolist() == (3 * params["a"] ** 2 * params["b"]).tolist()


def test_the_gradient_goes_through_the_argument_only():
    """The start of a proximal term is a constant, though it is the same tensor; what is not used has gradient 0."""
    params = vectors()
    for context in (torch.enable_grad(), torch.no_grad()):
        with context:
            found = grad(lambda theta: ((theta["a"] - 2 * params["a"]) ** 2).sum())(params)
            assert torch.equal(found["a"], -2 * params["a"])
            assert found["b"].tolist() == [0.0, 0.0]
            assert grad(lambda theta: torch.tensor(1.0))(params)["a"].tolist() == [0.0, 0.0]


def test_the_gradient_works_inside_the_transforms_of_torch_func():
    params = vectors(False)
    stacked = {name: torch.stack([p, 2 * p]) for name, p in params.items()}
    found = torch.func.vmap(grad(cubic))(stacked)
    assert torch.equal(found["a"][1], grad(cubic)({name: p[1] for name, p in stacked.items()})["a"])
    second = torch.func.grad(lambda theta: grad(cubic)(theta)["a"].sum())(params)
    assert torch.allclose(second["a"], 6 * params["a"] * params["b"])


class Twice(nn.Module):
    """One layer passed twice, registered once."""

    def __init__(self, layer: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.layer, self.rest = layer, rest

    def forward(self, x):
        return self.rest(self.layer(self.layer(x).relu()))


@pytest.mark.parametrize("kind", ["linear", "convolution", "batch norm"])
def test_a_layer_that_occurs_twice_in_a_sequence_is_one_layer(kind):
    """PyTorch's functional_call exchanges its weights under both names, and puts back those that it has just put in."""
    torch.manual_seed(0)
    layer = {"linear": nn.Linear(4, 4), "convolution": nn.Conv2d(2, 2, 3, padding=1), "batch norm": nn.BatchNorm2d(2)}[
        kind
    ]
    rest = nn.Sequential(nn.Flatten(), nn.Linear(4 if kind == "linear" else 32, 2))
    twice = nn.Sequential(layer, nn.ReLU(), layer, rest).double()
    plain, x = (
        Twice(layer, rest).double(),
        torch.randn(5, 4).double() if kind == "linear" else torch.randn(5, 2, 4, 4).double(),
    )
    own = dict(twice.named_parameters())
    changed = {name: (p.detach() + 0.1).requires_grad_() for name, p in own.items()}
    stem = {"0": "layer", "3": "rest"}
    as_plain = {f"{stem[name.split('.', 1)[0]]}.{name.split('.', 1)[1]}": p for name, p in changed.items()}
    out, expected = call(twice, changed, x), call(plain, as_plain, x)
    assert torch.equal(out, expected)
    for a, b in zip(
        *(torch.autograd.grad(y.square().sum(), list(changed.values())) for y in (out, expected)), strict=True
    ):
        assert torch.equal(a, b)
    assert all(p is own[name] and p.is_leaf for name, p in twice.named_parameters())


def test_tied_weights_of_two_layers_change_together():
    model = tied(nn.Sequential(nn.Flatten(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)))
    x, changed = torch.randn(2, 3), {name: p.detach() + 1 for name, p in model.named_parameters()}
    by_hand = torch.relu(x @ changed["1.weight"].T + changed["1.bias"]) @ changed["1.weight"].T + changed["3.bias"]
    assert torch.allclose(call(model, changed, x), by_hand)
    assert model[3].weight is model[1].weight
