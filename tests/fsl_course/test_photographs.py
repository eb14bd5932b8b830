import hashlib

import pytest
import torch
from safetensors.torch import save_file

from fsl_course import EpisodeSampler, evaluate, photographs
from fsl_course._system.torchvision_guard import import_torchvision
from fsl_course.methods.transfer import TransferNetwork
from fsl_course.photographs import PIXELS, PhotographEncoder, bare_encoder, load_photographs


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A file of random weights in the place of the real ones, with a name that fits its SHA-256."""
    torch.manual_seed(0)
    resnet = import_torchvision().models.resnet18()
    path = tmp_path / "resnet18.pth"
    torch.save(resnet.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    path = path.rename(tmp_path / f"resnet18-{digest}.pth")
    monkeypatch.setattr(photographs, "WEIGHTS", path.name)
    return path, resnet


def photograph_encoder(weights=None):
    encoder = bare_encoder()
    load_photographs(encoder, weights)
    return encoder.eval()


def test_it_equals_torchvisions_network_without_its_last_layer(stand_in):
    path, resnet = stand_in
    encoder = photograph_encoder(path)
    x = torch.rand(2, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(1))
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    normal = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / deviation
    features = []
    resnet.eval().fc.register_forward_pre_hook(lambda module, args: features.append(args[0]))
    with torch.no_grad():
        resnet(normal)
        assert torch.allclose(encoder(x), features[0], atol=1e-5)
    assert features[0].shape == (2, 512)
    assert not any(p.requires_grad for p in encoder.parameters())


def test_grey_ink_becomes_black_on_white_in_three_channels():
    encoder = PhotographEncoder(torch.nn.Identity()).eval()
    ink = torch.zeros(1, 1, PIXELS, PIXELS)
    ink[..., :8, :8] = 1
    seen = encoder(ink) * encoder.deviation + encoder.mean
    assert seen.shape == (1, 3, PIXELS, PIXELS)
    assert seen[..., :8, :8].abs().max() < 1e-6
    assert (seen[..., 8:, 8:] - 1).abs().max() < 1e-6
    assert encoder(torch.rand(2, 3, 40, 30)).shape == (2, 3, PIXELS, PIXELS)
    with pytest.raises(ValueError, match=r"1 or 3.*\[1, 2, 5, 5\]"):
        encoder(torch.zeros(1, 2, 5, 5))


def test_it_serves_as_an_encoder(stand_in, toys):
    learner = TransferNetwork(photograph_encoder(stand_in[0]), n_base=2)
    assert learner.head.in_features == 512
    assert 0 <= evaluate(learner, EpisodeSampler(toys, 3, 1, 2), 2).mean <= 1


def test_weights_that_are_missing_or_damaged_are_told_in_words(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match=r"not on this machine.*python -c") as error:
        photograph_encoder()
    assert str(tmp_path) not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"the weights of ResNet-18 .* are not at .*gone.pth\. .*python -c"):
        photograph_encoder(tmp_path / "gone.pth")
    stand_in[0].write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        photograph_encoder(stand_in[0])


@pytest.mark.parametrize("name", ["mine.pth", "mine.safetensors"])
def test_weights_of_your_own_may_have_any_name(stand_in, tmp_path, name):
    weights = stand_in[1].state_dict()
    (save_file if name.endswith("safetensors") else torch.save)(weights, tmp_path / name)
    x = torch.rand(2, 3, 40, 40)
    assert torch.equal(photograph_encoder(tmp_path / name)(x), photograph_encoder(stand_in[0])(x))


class Evil:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("name", ["mine.pth", "mine.safetensors"])
@pytest.mark.parametrize("content", ["rubbish", "pickle", "another network", "a list"])
def test_a_file_of_something_else_is_refused_and_never_executed(stand_in, tmp_path, name, content, capsys):
    path, safe = tmp_path / name, name.endswith("safetensors")
    if content == "rubbish":
        path.write_bytes(b"no weights")
    elif content == "another network" and safe:
        save_file({"a": torch.ones(1)}, path)
    else:
        torch.save({"pickle": Evil(), "a list": [1]}.get(content, {"a": torch.ones(1)}), path)
    with pytest.raises(ValueError, match=f"{name} does not hold the weights of a ResNet-18"):
        photograph_encoder(path)
    assert capsys.readouterr().out == ""


def test_a_frozen_encoder_keeps_its_mode_and_one_that_learns_does_not():
    resnet = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2))
    frozen = PhotographEncoder(resnet).train()
    assert not any(module.training for module in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())
    free = PhotographEncoder(resnet, frozen=False).train()
    assert all(module.training for module in free.modules())
    assert all(p.requires_grad for p in free.parameters())
    assert not any(module.training for module in free.eval().modules())
