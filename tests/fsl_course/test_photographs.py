import hashlib

import pytest
import torch

from fsl_course import EpisodeSampler, evaluate, photographs
from fsl_course._system.torchvision_guard import import_torchvision
from fsl_course.methods.transfer import TransferNetwork
from fsl_course.photographs import PIXELS, PhotographEncoder, photograph_encoder


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
    stand_in[0].write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        photograph_encoder(stand_in[0])
