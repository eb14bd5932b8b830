import pytest
import torch

from fsl_course.nets import classifier, conv4, conv_block, embedding_size, mlp


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


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_are_channels_last_whatever_the_weights_are(channels):
    """An inner step leaves the weights of a grey picture's convolution in an order that could be either."""
    net = conv4(4, in_channels=channels)
    net.layers[0].weight.data = net.layers[0].weight.data.contiguous()
    seen = []
    for layer in net.layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    for x in (torch.rand(2, channels, 32, 32), torch.rand(2, 32, 32, channels).permute(0, 3, 1, 2)):
        net(x)
    assert len(seen) == 32
    assert all(y.stride(1) == 1 for y in seen)


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


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("pool", [False, True])
def test_a_block_is_convolution_norm_relu_and_pooling_where_asked_for(norm, pool):
    torch.manual_seed(0)
    block = torch.nn.Sequential(*conv_block(3, 4, norm, pool)).double().train()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64) - 0.5
    z = torch.nn.functional.conv2d(x, block[0].weight, block[0].bias, padding=1)
    if norm == "batch":  # every channel over the whole batch
        z = (z - z.mean((0, 2, 3), keepdim=True)) / (z.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    elif norm == "group":  # every channel of every picture: 4 channels in 4 groups
        z = (z - z.mean((2, 3), keepdim=True)) / (z.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    z = z.relu()
    if pool:
        z = z.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))
    assert block(x).shape == ((2, 4, 4, 4) if pool else (2, 4, 8, 8))
    assert torch.allclose(block(x), z, atol=1e-12)
    assert (block[0].bias is not None) == (norm == "none")  # a norm has a bias of its own


def test_batch_norm_of_a_block_remembers_more_than_the_last_batch():
    """Momentum 0.1: with 1 the running statistics are those of the last batch (trap B3)."""
    torch.manual_seed(0)
    block = torch.nn.Sequential(*conv_block(1, 4, "batch", pool=True)).train()
    x = torch.rand(5, 1, 8, 8)
    block(x)
    assert torch.allclose(block[1].running_mean, 0.1 * block[0](x).mean((0, 2, 3)), atol=1e-6)


def test_a_block_with_an_unknown_norm_is_explained():
    with pytest.raises(ValueError, match='norm must be "batch", "group" or "none"; got \'layer\''):
        conv_block(1, 4, "layer", pool=True)


@pytest.mark.parametrize(
    ("encoder", "size", "features"),
    [
        (conv4(8), 28, 8),
        (conv4(8, in_channels=3), 28, 8),
        (conv4(4, in_channels=3), 84, 100),
        (conv4(8, "none").double(), 32, 32),
        (torch.nn.Sequential(torch.nn.Flatten(), mlp((784, 5))), 28, 5),
        (torch.nn.Flatten(), 28, 784),  # without weights
    ],
)
def test_embedding_size_is_what_the_encoder_gives(encoder, size, features):
    assert embedding_size(encoder, size) == features


def test_asking_for_the_embedding_size_leaves_the_encoder_and_chance_alone():
    encoder = conv4(8)
    encoder.layers[1].eval()  # a mode of its own
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    modes, state = [m.training for m in encoder.modules()], torch.get_rng_state()
    assert embedding_size(encoder) == 8
    assert [m.training for m in encoder.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in encoder.parameters())


@pytest.mark.parametrize("encoder", [torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), conv4(4), torch.nn.Linear(5, 2)])
def test_an_encoder_that_refuses_the_blank_picture_is_explained(encoder):
    with pytest.raises(ValueError, match=r"does not take a blank picture \[1, 1, 12, 12\].*pass features=D instead"):
        embedding_size(encoder, 12)


def test_an_encoder_that_gives_no_rows_is_explained():
    with pytest.raises(ValueError, match=r"gives embeddings \[B, D\]; a blank picture gave \[1, 1, 28, 28\]"):
        embedding_size(torch.nn.Identity())


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_pooling_before_relu_gives_the_same_bits_as_after(norm):
    """Outputs and gradients, for a single block and for all of Conv4."""
    torch.manual_seed(0)
    ours = conv4(4, norm).train()
    layers = []
    for at in range(0, 16, 4):
        convolution, normalisation, pool, relu = list(ours.layers)[at : at + 4]
        assert isinstance(pool, torch.nn.MaxPool2d)
        assert isinstance(relu, torch.nn.ReLU)
        layers += [convolution, normalisation, relu, pool]
    x = torch.randn(6, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    textbook = torch.nn.Sequential(*layers, torch.nn.Flatten())
    found = []
    for net in (ours, textbook):
        ours.zero_grad()
        picture = x.clone(memory_format=torch.preserve_format).requires_grad_()
        output = net(picture)
        (output**2).sum().backward()
        found.append([output.detach(), picture.grad, *(p.grad.clone() for p in ours.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert found[0][1].abs().max() > 0


def test_a_classifier_is_an_encoder_with_a_linear_head():
    torch.manual_seed(0)
    encoder = conv4(8, "group")
    model = classifier(encoder, 5)
    assert list(dict(model.named_children())) == ["encoder", "head"]
    assert model.encoder is encoder
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(model(x), encoder(x) @ model.head.weight.T + model.head.bias)
    assert model(x).shape == (3, 5)
    assert classifier(conv4(4, in_channels=3), 20, 100)(torch.rand(2, 3, 84, 84)).shape == (2, 20)
    assert classifier(torch.nn.Flatten(), 1).head.weight.shape == (1, 784)
    for n_way in (0, -1):
        with pytest.raises(ValueError, match=f"n_way must be at least 1; got {n_way}"):
            classifier(encoder, n_way)
