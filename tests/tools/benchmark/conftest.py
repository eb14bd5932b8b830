from __future__ import annotations

import pytest

from tests.tools.benchmark.stand_in import LIBRARY
from tools.benchmark import peers


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces easyfsl by the stand-in, whether it is installed or not."""
    monkeypatch.setattr(peers, "easyfsl", lambda: LIBRARY)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes easyfsl look as if it were not installed."""

    def fail() -> None:
        raise peers.Missing(peers.NEEDED)

    monkeypatch.setattr(peers, "easyfsl", fail)
