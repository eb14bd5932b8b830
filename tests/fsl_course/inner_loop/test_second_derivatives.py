"""Every layer against PyTorch's own: values, first, second and third derivatives."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from fsl_course.inner_loop import functional
from fsl_course.inner_loop.functional import support_loss, trainable
from fsl_course.inner_loop.second_derivatives import BatchNorm, Convolution, MaxPool, cheap_second_derivatives
from fsl_course.inner_loop.support_statistics import batch_statistics
from fsl_course.methods.maml import meta_loss
from tests.fsl_course.methods.adapting import randn, small_conv, small_episodes

PAIRS = ((2, 1), (1, 2), (1, 1))  # stride, padding, dilation
# name -> ours, PyTorch's, inputs: as small as the shapes may be, since central differences take the square of their size
LAYERS = {
    "batch norm": (
        lambda x, w, b: BatchNorm.apply(x, w, b, 1e-3),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0.0, 1e-3),
        ((3, 2, 3, 2), (2,), (2,)),
    ),
    "batch norm of rows": (
        lambda x, w, b: BatchNorm.apply(x, w, b, 1e-3),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0.0, 1e-3),
        ((5, 2), (2,), (2,)),
    ),
    "convolution": (
        lambda x, w: Convolution.apply(x, w, (*PAIRS, 1)),
        lambda x, w: F.conv2d(x, w, None, *PAIRS, 1),
        ((2, 2, 4, 3), (3, 2, 3, 2)),
    ),
    "grouped convolution": (
        lambda x, w: Convolution.apply(x, w, ((1, 1), (1, 1), (2, 2), 2)),
        lambda x, w: F.conv2d(x, w, None, 1, 1, 2, 2),
        ((2, 4, 3, 4), (2, 2, 3, 2)),
    ),
    "pooling": (
        lambda x: MaxPool.apply(x, ((2, 2), (2, 2), (0, 0), (1, 1), False)),
        lambda x: F.max_pool2d(x, 2),
        ((2, 2, 3, 4),),
    ),
    "overlapping pooling": (
        lambda x: MaxPool.apply(x, ((3, 2), (2, 1), (1, 1), (1, 1), True)),
        lambda x: F.max_pool2d(x, (3, 2), (2, 1), 1, 1, True),
        ((2, 2, 3, 4),),
    ),
}


def inputs_of(name: str, last: bool = False) -> list[Tensor]:
    tensors = [1 + randn(*shape, seed=seed) for seed, shape in enumerate(LAYERS[name][2])]
    if last:
        tensors = [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in tensors]
    return [t.requires_grad_() for t in tensors]


@pytest.mark.parametrize("name", LAYERS)
def test_both_derivatives_by_central_differences(name):
    assert gradcheck(LAYERS[name][0], inputs_of(name))
    assert gradgradcheck(LAYERS[name][0], inputs_of(name))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_both_derivatives_are_pytorchs_to_the_twelfth_digit(name, last):
    found = []
    for layer in LAYERS[name][:2]:
        inputs = inputs_of(name, last)
        y = layer(*inputs)
        first = torch.autograd.grad(y.tanh().pow(3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum((g.sin() + g**2).sum() for g in first), inputs)
        found.append([y, *first, *second])
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*found, strict=True))
    assert all(g.abs().max() > 1e-3 for g in found[0])
    if last and y.dim() == 4:  # what comes after is slower in any other order
        assert all(g.is_contiguous(memory_format=torch.channels_last) for g in found[0] if g.dim() == 4)


@pytest.mark.parametrize("name", LAYERS)
def test_the_third_derivative_by_central_differences(name):
    def gradients(*inputs: Tensor) -> tuple[Tensor, ...]:
        value = LAYERS[name][0](*inputs).tanh().square().sum()
        return torch.autograd.grad(value, inputs, create_graph=True)

    assert gradgradcheck(gradients, inputs_of(name), atol=1e-4)


def test_pictures_without_gradient_get_none():
    x, w = inputs_of("convolution")
    x = x.detach()
    (first,) = torch.autograd.grad(Convolution.apply(x, w, (*PAIRS, 1)).tanh().sum(), [w], create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), [w])
    (expected,) = torch.autograd.grad(F.conv2d(x, w, None, *PAIRS, 1).tanh().sum(), [w], create_graph=True)
    (expected_second,) = torch.autograd.grad(expected.square().sum(), [w])
    assert torch.allclose(second, expected_second, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_meta_gradient_is_the_same_with_and_without(norm, steps, monkeypatch):
    task, found = small_episodes(1)[0], []
    for block in (cheap_second_derivatives, lambda model: nullcontext()):
        monkeypatch.setattr(functional, "cheap_second_derivatives", block)
        model = small_conv(norm)
        loss = meta_loss(model, trainable(model), task, lr=0.1, steps=steps)
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    assert all(torch.allclose(a, b, rtol=1e-11, atol=1e-12) for a, b in zip(*found, strict=True))


def test_the_support_loss_takes_them():
    """Otherwise all of the above would hold and nothing be gained."""
    model, task = small_conv("batch"), small_episodes(1)[0]
    nodes, seen = [support_loss(model, task)(trainable(model)).grad_fn], set()
    while nodes:
        node = nodes.pop()
        seen.add(type(node).__name__)
        nodes += [parent for parent, _ in node.next_functions if parent is not None]
    assert {"BatchNormBackward", "ConvolutionBackward", "MaxPoolBackward"} <= seen


OTHERS = {
    "bias": nn.Conv2d(3, 4, 3),
    "same": nn.Conv2d(3, 4, 3, padding="same", bias=False),
    "circular": nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular", bias=False),
    "one picture": nn.Conv2d(3, 4, 3, bias=False),
    "indices": nn.MaxPool2d(2, return_indices=True),
    "plain norm": nn.BatchNorm2d(3, affine=False),
    "running statistics": nn.BatchNorm2d(3).eval(),
    "moving statistics": nn.BatchNorm2d(3),
    "mixed": nn.BatchNorm2d(3).float(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_layer_that_does_more_stays_as_it_is(name):
    layer = OTHERS[name] if name == "mixed" else OTHERS[name].double()
    x = randn(2, 3, 6, 6) if name != "one picture" else randn(3, 6, 6)
    x = x.to(torch.bfloat16) if name == "mixed" else x
    expected = layer(x)
    with cheap_second_derivatives(layer):
        found = layer(x)
    assert "forward" not in vars(layer)
    for a, b in zip(*((y if isinstance(y, tuple) else (y,)) for y in (found, expected)), strict=True):
        assert torch.equal(a, b)


def without(parameter: str) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(3, track_running_stats=False).double()
    setattr(norm, parameter, None)
    return norm


@pytest.mark.parametrize("missing", ["weight", "bias"])
def test_a_norm_that_lacks_a_parameter_has_pytorchs_derivatives(missing):
    norm, found = without(missing), []
    for block in (cheap_second_derivatives, lambda model: nullcontext()):
        x = randn(2, 3, 4, 4).requires_grad_()
        with block(norm):
            (first,) = torch.autograd.grad(norm(x).pow(3).sum(), [x], create_graph=True)
        # PyTorch has no second derivative of a norm without a weight
        found.append([first, *(torch.autograd.grad(first.square().sum(), [x]) if missing == "bias" else ())])
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*found, strict=True))


def test_autocast_passes_through():
    model, x, found = nn.Conv2d(1, 2, 3, bias=False), torch.rand(4, 1, 8, 8), []
    for block in (cheap_second_derivatives, lambda model: nullcontext()):
        with torch.autocast("cpu", torch.bfloat16), block(model):
            y = model(x)
            (first,) = torch.autograd.grad(y.float().square().sum(), [model.weight], create_graph=True)
        found.append([y, first, *torch.autograd.grad(first.square().sum(), [model.weight])])
    assert found[0][0].dtype == torch.bfloat16
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_errors_of_the_layers_stay():
    norm = nn.BatchNorm2d(3)
    with batch_statistics(norm), cheap_second_derivatives(norm):
        with pytest.raises(ValueError, match="expected 4D input"):
            norm(torch.rand(5, 3))
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            norm(torch.rand(1, 3, 1, 1))
    assert "forward" not in vars(norm)


def test_transforms_of_torch_func_pass_through():
    model, x = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.MaxPool2d(2)).double(), randn(4, 2, 1, 8, 8)
    expected = torch.stack([model(rows) for rows in x])
    with cheap_second_derivatives(model):
        assert torch.allclose(torch.func.vmap(model)(x), expected, rtol=0, atol=1e-12)
        slopes = torch.func.grad(lambda rows: model(rows).square().sum())(x[0])
    plain = torch.func.grad(lambda rows: model(rows).square().sum())(x[0])
    assert torch.allclose(slopes, plain, rtol=0, atol=1e-12)
