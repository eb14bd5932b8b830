"""What the tests of the commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fsl_course._system.torchvision_guard import import_torchvision
from tests.fsl_course.test_classifier import SHAPES, drawing


@pytest.fixture
def few_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the 600 test episodes of the card, which take long and are not what these tests are about."""
    monkeypatch.setattr("fsl_course.cli.train.CARD_EPISODES", 4)


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
    """A file of random weights of a ResNet-18."""
    try:
        models = import_torchvision().models
    except ImportError as error:
        pytest.skip(f"ResNet-18 cannot be made here: {error}")
    torch.manual_seed(0)
    torch.save(models.resnet18().state_dict(), tmp_path / "photographs.pth")
    return tmp_path / "photographs.pth"


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: `mine` holds 2 to 4 drawings of each shape, dark on light, and `new` one more of each."""
    monkeypatch.chdir(tmp_path)
    for count, shape in enumerate(SHAPES, start=2):
        (tmp_path / "mine" / shape).mkdir(parents=True)
        (tmp_path / "new").mkdir(exist_ok=True)
        for shift in range(count):
            drawing(shape, shift - 2).save(tmp_path / "mine" / shape / f"{shift}.png")
        drawing(shape, 3, mode="RGB").save(tmp_path / "new" / f"{shape}.jpg")
    return tmp_path
