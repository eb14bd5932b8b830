"""Finding a browser, installing one, and saying why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.setup import chromium


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("FSL_CHROMIUM", raising=False)
    return tmp_path


def program(folder: Path, name: str, script: str = "exit 0") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_variable_comes_before_what_is_installed(programs: Path, monkeypatch, capsys):
    installed, own = program(programs, "chromium"), program(programs, "my-browser")
    assert chromium.find() == str(installed)
    monkeypatch.setenv("FSL_CHROMIUM", "my-browser")
    assert chromium.main() == 0
    assert capsys.readouterr().out.strip() == str(own)
    monkeypatch.setenv("FSL_CHROMIUM", "gone")
    assert chromium.main() == 2  # a mistake, not a missing browser: nothing may be skipped for it
    assert "FSL_CHROMIUM names 'gone'" in capsys.readouterr().err


def test_debian_installs_its_package(programs: Path, monkeypatch, capsys):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    made = f'[ "$2" = install ] && printf "#!/bin/sh\\n" > {programs}/chromium && /bin/chmod 755 {programs}/chromium; exit 0'
    program(programs, "apt-get", made)
    assert chromium.main() == 0
    assert capsys.readouterr().out.strip() == str(programs / "chromium")


def test_where_it_cannot_be_had_the_reason_is_said(programs: Path, monkeypatch, capsys):
    assert chromium.main() == chromium.NONE
    assert "no apt-get" in capsys.readouterr().err
    program(programs, "apt-get", "echo 'E: no network' >&2; exit 100")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert chromium.main() == chromium.NONE
    assert "sudo apt-get install chromium" in capsys.readouterr().err
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert chromium.main() == chromium.NONE
    assert "failed: E: no network" in capsys.readouterr().err
