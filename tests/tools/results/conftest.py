from __future__ import annotations

from pathlib import Path

import pytest

from tools.results import trained


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/ and data/checkpoints in a scratch folder."""
    monkeypatch.setattr(trained, "RUNS_FOLDER", tmp_path / "runs")
    monkeypatch.setattr(trained, "CHECKPOINTS", tmp_path / "checkpoints")
    (tmp_path / "checkpoints").mkdir()
    return tmp_path
