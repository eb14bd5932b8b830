"""What the tests of the commands share."""

from __future__ import annotations

import pytest


@pytest.fixture
def few_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the 600 test episodes of the card, which take long and are not what these tests are about."""
    monkeypatch.setattr("fsl_course.cli.train.CARD_EPISODES", 4)
