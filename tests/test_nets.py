import pytest
import torch

from fsl_course.nets import conv4, mlp


@pytest.mark.parametrize(
    ("width", "channels", "size", "features"), [(64, 1, 28, 64), (32, 1, 28, 32), (64, 3, 84, 1600), (32, 3, 84, 800)]
)
def test_shapes_of_the_papers(width, channels, size, features):
    assert conv4(width, in_channels=channels)(torch.rand(2, channels, size, size)).shape == (2, features)


def test_conv4_is_its_layers_written_out():
    torch.manual_seed(0)
    net = conv4(8).double().eval()
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    z = x
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    for convolution in convolutions:
        z = torch.nn.functional.conv2d(z, convolution.weight.contiguous(), padding=1)
        z = (z / (1 + 1e-5) ** 0.5).relu()  # fresh running statistics: mean 0, variance 1
        z = z.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))
    assert len(convolutions) == 4
    assert torch.allclose(net(x), z.flatten(1), atol=1e-12)


def test_weights_are_channels_last_and_have_the_known_number():
    net = conv4()
    assert net.layers[4].weight.is_contiguous(memory_format=torch.channels_last)
    assert sum(p.numel() for p in net.parameters()) == 9 * 64 + 3 * 9 * 64 * 64 + 4 * 2 * 64


def test_group_norm_judges_every_picture_alone_in_training_too():
    torch.manual_seed(0)
    assert [m.num_groups for m in conv4(12, norm="group").modules() if isinstance(m, torch.nn.GroupNorm)] == [6] * 4
    net, x = conv4(16, norm="group").train(), torch.rand(4, 1, 28, 28)
    assert torch.allclose(net(x)[:1], net(x[:1]), atol=1e-5)
    batch_norm = conv4(16).train()
    assert not torch.allclose(batch_norm(x)[:1], batch_norm(x[:1]), atol=1e-2)


def test_wrong_arguments_and_inputs_are_explained():
    with pytest.raises(ValueError, match='norm must be "batch", "group" or "none"'):
        conv4(norm="layer")
    with pytest.raises(ValueError, match="at least 1"):
        conv4(0)
    with pytest.raises(ValueError, match=r"takes \[B, 1, H, W\].*got \[2, 3, 28, 28\]"):
        conv4()(torch.rand(2, 3, 28, 28))
    with pytest.raises(ValueError, match="at least 16"):
        conv4()(torch.rand(2, 1, 8, 8))
    with pytest.raises(TypeError, match="weights in torch.float32 and got pictures in torch.float64"):
        conv4()(torch.rand(2, 1, 28, 28, dtype=torch.float64))


def test_mlp_is_the_sine_regressor():
    net = mlp()
    assert net(torch.rand(7, 1)).shape == (7, 1)
    assert sum(p.numel() for p in net.parameters()) == 80 + 40 * 41 + 41
    with pytest.raises(ValueError, match="at least an input and an output"):
        mlp((3,))
