"""What the tests of the commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fsl_course._system.torchvision_guard import import_torchvision


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
